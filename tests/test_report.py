"""The page says what the study says, to everyone, offline."""

import base64
import functools
import hashlib
import html
import itertools
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_plots import SPLIT, TWO, grid_table, lens_table, neuron_sets, summary_table
from test_plots_interactive import contrast

from mwork_lens.analysis import layer_counts, overlap
from mwork_lens.report import render, write_report
from mwork_lens.report.page import script_json
from mwork_lens.report.tables import interval, number, sensible_digits
from mwork_lens.storage import Run

FOUR = ("en", "de", "ru", "zh")
EVIL = "<b>&$x$"
FINDINGS = (
    "French is 90% & English <10%.",
    "No neuron was found for <script>alert('x')</script>.",
    "Δ = -0.123 [-0.2, 0.1].",
)


def fake_study(languages=FOUR, *, empty="zh", **changes):
    """A study of made-up tables, with gaps, an empty cell and a language without neurons."""
    sets = neuron_sets(languages, empty=empty)
    grid = grid_table(languages, empty=empty)
    corpora = {x: {"source": "embedded", "revision": None, "documents": 60, "hash": f"hash of {x}"} for x in languages}
    run = Run(
        "study",
        {
            "measure": "output",
            "sites": ("q", "ffn"),
            "top": 0.1,
            "k": 10,
            "length": None,
            "command": f"mwork-lens study --x '{EVIL}'",
        },
        {"name": f"model {EVIL}", "dtype": "float32", "layers": 8, "parameters": 2_345_678, "revision": None},
        corpora,
        7,
        {"torch": "2.9"},
        "0123abc+",
        "2025-11-20T12:00:00+00:00",
    )
    study = SimpleNamespace(
        stages=SPLIT, lens=lens_table(languages), consistent=sets, specific=sets, counts=layer_counts(sets),
        overlap=overlap(sets), grid=grid, summary=summary_table(grid), findings=FINDINGS, run=run,
    )  # fmt: skip
    return SimpleNamespace(**{**vars(study), **changes})


@functools.cache
def page():
    """The page of four languages, rendered once."""
    return render(fake_study())


def small_study():
    """One language besides English; three random draws harm it more than its own neurons in one cell."""
    grid = grid_table(TWO, empty=None)
    cell = (grid["stage"] == "all") & (grid["structure"] == "both") & (grid["neurons"] == "random")
    grid.loc[cell & (grid["draw"] < 3), "own"] = -99.0
    return fake_study(TWO, empty=None, grid=grid)


@functools.cache
def small_page():
    return render(small_study(), interactive=False)


class Reader(HTMLParser):
    """What a browser would see: text, attributes, and whether every element is closed in order."""

    void = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.text, self.tags = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def rows(text, caption):
    """Cells of the table whose caption begins so."""
    table = text[: text.index("</table>", text.index(f"<caption><span>{caption}"))].rsplit("<table", 1)[1]
    cells = (re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL))
    return [[html.unescape(cell) for cell in row] for row in cells]


def ours(text):
    """A page without plotly's script, which is no text of ours."""
    return re.sub(r'(<script type="text/plain" id="plotly">).*?(</script>)', r"\1\2", text, flags=re.DOTALL)


def test_every_finding_is_on_the_page_and_escaped():
    seen = "".join(Reader(page()).text)
    for finding in FINDINGS:
        assert finding in seen
    order = ("The answer", "What was found", "Warnings", "What was asked", "How to read", "<svg", "How to reproduce")
    main = page()[page().index("<main") :]
    places = [main.index(f">{words}" if words[0] != "<" else words) for words in order]
    assert places == sorted(places)


def test_the_only_scripts_are_ours_and_nothing_else_may_run():
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page(), re.DOTALL)
    kinds = [(re.findall(r'type="([^"]+)"', words) or ["run"])[0] for words, _ in scripts]
    assert kinds == ["application/json"] * 6 + ["text/plain", "run"], (
        "five figures, the colours, plotly once, the page's own"
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page())[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none';")
    allowed = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for _, text in (scripts[-1], scripts[-2])
    ]
    assert f"script-src {' '.join(allowed)};" in policy
    assert not re.search(r"\son\w+=", ours(page())), "no handler in an attribute"
    assert small_page().count("<script") == 1
    assert len(page().encode()) < 8_000_000
    assert len(small_page().encode()) < 1_000_000


def test_the_data_of_the_figures_is_there_and_ends_no_script():
    for name in ("share", "mass", "counts", "overlap", "deltas", "dark"):
        text = re.search(rf'id="(?:data-)?{name}">(.*?)</script>', page())[1]
        assert not set("<>&") & set(text)
        json.loads(text)
        assert f'data-plot="{name}"' in page() or name == "dark"


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "a\u2028b", "&lt;", "Größe 中文"])
def test_what_is_in_a_script_stays_there(text):
    made = str(script_json({text: [text]}))
    assert json.loads(made) == {text: [text]}
    assert not set("<>&\u2028") & set(made)
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(float("nan"))


def test_the_page_is_well_formed_and_loads_nothing():
    reader = Reader(page())
    assert reader.open == []
    assert not {"link", "img", "iframe", "object"} & set(reader.tags)
    for tag, name, value in reader.attributes:
        if name in ("src", "href", "xlink:href", "data"):
            assert str(value).startswith("#"), (tag, name, value)
        assert name.startswith("xmlns") or "://" not in str(value), (tag, name, value)
    addresses = set(re.findall(r"https?://[^\"' <]+", ours(page())))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in ours(page())
    assert not re.search(r"url\((?!#)", ours(page()))


def test_every_id_is_used_once_and_every_reference_has_its_target():
    ids = [value for _, name, value in Reader(ours(page())).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = {*re.findall(r'href="#([^"]+)"', ours(page())), *re.findall(r"url\(#([^)]+)\)", ours(page()))}
    assert wanted <= set(ids)


def test_every_figure_is_there_with_words_for_who_cannot_see_it():
    figures = re.findall(
        r'<figure id="figure-(\d)" data-plot="\w+">\s*<div class="card" role="img" aria-label="([^"]+)"><svg.*?<figcaption><b>',
        page(),
        re.DOTALL,
    )
    assert [number for number, _ in figures] == ["1", "2", "3", "4", "5"]
    assert all(len(words) > 80 for _, words in figures)


def test_what_is_unknown_is_a_dash():
    seen = "".join(Reader(page()).text)
    assert not re.search(r"\b(nan|NaN|None|inf)\b", seen)
    assert "–" in seen
    empty = next(row for row in rows(page(), "Change of the mean") if row[:3] == ["attention", "own", "0"])
    assert empty[3:] == ["–", "", "–", "", "–", "", "–", "–"]


def test_names_from_data_are_text():
    study = fake_study(("en", EVIL), empty=None)
    text = ours(render(study))
    assert "<b>&" not in text.replace("&amp;", "").replace("<b>Figure", "")
    titles = json.loads(re.search(r'id="data-share">(.*?)</script>', text)[1])["layout"]["annotations"]
    assert any("&lt;b&gt;&amp;$x$" in title["text"] for title in titles), "plotly reads tags, and finds none"
    seen = "".join(Reader(text).text)
    assert f"model {EVIL}" in seen
    assert f"mwork-lens study --x '{EVIL}'" in seen
    assert seen.count(EVIL) > 10


def test_one_language_besides_english():
    assert "here there is one" in small_page()
    assert small_page().count("<details>") == 1
    assert Reader(small_page()).open == []


def test_no_neurons_at_all():
    grid = grid_table(TWO)
    grid["count"] = 0
    grid.iloc[:, 7:] = np.nan
    summary = summary_table(grid)
    sets = {language: s - s for language, s in neuron_sets(TWO).items()}
    study = fake_study(TWO, grid=grid, summary=summary, counts=layer_counts(sets), overlap=overlap(sets))
    seen = "".join(Reader(render(study, interactive=False)).text)
    assert seen.count("nothing to switch off") == 12
    assert "nan" not in re.findall(r"\w+", seen)


def test_the_tables_are_the_tables_of_the_study():
    study = fake_study()
    shown = [row for row in rows(page(), "Change of the mean") if len(row) == 11]
    assert len(shown) == len(study.summary)
    for row, (_, s) in zip(shown, study.summary.iterrows(), strict=True):
        assert row[2] == (f"{s['count']:.0f}" if s["count"].is_integer() else f"{s['count']:.1f}")
        for i, name in ((3, "non_eng"), (5, "eng"), (7, "delta")):
            if np.isfinite(s[name]):
                assert float(row[i].replace("−", "-")) == pytest.approx(s[name], abs=6e-4)
                low, high = (float(x.replace("−", "-")) for x in row[i + 1][1:-1].split(", "))
                assert (low, high) == pytest.approx((s[f"{name}_low"], s[f"{name}_high"]), abs=6e-4)
    german = next(row for row in rows(page(), "Language-specific") if row[0] == "German (de)")
    assert (
        german[6] == str(len(study.specific["de"])) == str(sum(map(int, german[1:6]))) == str(sum(map(int, german[8:])))
    )


def test_a_languages_own_table_counts_the_draws_that_harm_as_much():
    details = small_page()[small_page().index("<details>") : small_page().index("</details>")]
    assert "3 of 10" in details
    assert details.count("0 of 10") == 10, "eleven other cells, one of them empty"


def test_the_run_can_be_read():
    seen = " ".join("".join(Reader(page()).text).split())
    for fact in (
        "2025-11-20",
        "0123abc+",
        "hash of de",
        "2,345,678",
        "float32",
        "torch",
        "2.9",
        "q, ffn",
        "The command line:",
    ):
        assert fact in seen


def test_the_same_study_gives_the_same_page_and_one_that_cannot_be_shown_leaves_it(tmp_path):
    path = tmp_path / "deep" / "report.html"
    study = small_study()
    assert write_report(study, path, interactive=False) == path
    assert path.read_text(encoding="utf-8") == small_page(), "rendered a second time"
    study.summary = study.summary.iloc[:0]
    with pytest.raises(ValueError, match="summary table is empty"):
        write_report(study, path)
    assert path.read_text(encoding="utf-8") == small_page()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "column"),
    [("grid", "own_low"), ("summary", "p_delta"), ("counts", "width"), ("lens", "coverage"), ("overlap", "shared")],
)
def test_a_missing_column_is_named(name, column):
    study = fake_study(TWO)
    setattr(study, name, getattr(study, name).drop(columns=column))
    with pytest.raises(ValueError, match=f"the {name} table lacks {column}"):
        render(study)


def test_everyone_can_find_the_way():
    text = ours(page())
    reader = Reader(text)
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), "no level is left out"
    assert '<html lang="en">' in text
    assert text.index('class="skip" href="#main"') < text.index("<header")
    assert {"header", "nav", "main", "footer"} <= set(reader.tags)
    assert text.count("<table") == text.count("<caption")
    assert not re.search(r"<th(?![^>]*scope=)[ >]", text)
    assert all(value for _, name, value in reader.attributes if name in ("aria-label", "aria-labelledby"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert ":focus-visible { outline: 2px" in style
    assert style.count("outline") == 2, "never taken away"


def test_what_prints_is_static():
    style = page()[page().index("@media print") : page().index("</style>")]
    assert ".plot, .bar, nav, .skip { display: none !important; }" in style
    assert ".card[hidden] { display: block !important; }" in style
    assert "--page: #ffffff" in style, "dark pages print on white"
    assert "details::details-content { content-visibility: visible" in style


def palettes():
    """Colours of the page: light, dark, print."""
    style = page()[page().index("<style>") : page().index("</style>")]
    return [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{([^}]*)\}", style)]


@pytest.mark.parametrize("i", [0, 1, 2])
def test_letters_stand_out_from_what_is_behind_them(i):
    colours = palettes()[i]
    for letters in ("ink", "soft", "accent"):
        for ground in ("page", "panel"):
            assert contrast(colours[letters], colours[ground]) >= 4.5, (letters, ground)
    assert contrast(colours["warn"], colours["page"]) >= 3


def test_numbers_are_for_people():
    assert number(-0.12345) == "−0.123"
    assert number(-0.0001) == "0.000"
    assert number(0.5, signed=True) == "+0.500"
    assert number(float("nan")) == interval(float("nan"), 1.0) == "–"
    assert number(12345.6, 0) == "12,346"
    assert interval(-0.2, 0.1) == "[−0.200, 0.100]"


@pytest.mark.parametrize(
    ("half", "digits"), [(0.3, 2), (0.03, 3), (0.0031, 4), (1e-9, 5), (30.0, 2), (float("nan"), 3)]
)
def test_digits_follow_the_intervals(half, digits):
    low = pd.Series([0.0, 0.0, np.nan])
    assert sensible_digits(low, low + 2 * half) == digits
