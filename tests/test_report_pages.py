"""The answer in two sentences, the warnings, the command, the page of any folder, and what a browser makes of a page."""

import dataclasses
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import typer
from test_plots import lens_table, neuron_sets
from test_report import Reader, fake_study, page, small_page
from typer.testing import CliRunner

from mwork_lens.cli import app
from mwork_lens.report import render
from mwork_lens.report.answer import answer, cautions
from mwork_lens.report.command import COMMANDS, commands, folder_of, recording, snippet
from mwork_lens.report.folder import render_folder, write_folder_report
from mwork_lens.storage import Run, save

HOSTILE = "</script><img src=x onerror=alert(1)><b>&"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


def summary(
    *, own=-1.0, low=-1.2, random=(-0.2, 0.0), english=-0.1, delta=0.9, delta_low=0.7, p=1 / 11, p_delta=1 / 11
):
    """The one cell of `summarise` that the answer reads."""
    ends = {
        "eng_low": english - 0.1,
        "eng_high": english + 0.1,
        "delta_high": 2 * delta - delta_low,
        "non_eng_high": 2 * own - low,
    }
    mine = {"neurons": "own", "count": 40.4, "non_eng": own, "non_eng_low": low, "eng": english, "delta": delta, "delta_low": delta_low,
            "p_non_eng": p, "p_delta": p_delta, **ends}  # fmt: skip
    chance = {
        "neurons": "random",
        "non_eng": sum(random) / 2,
        "non_eng_low": random[0],
        "non_eng_high": random[1],
        "eng": -0.1,
        "delta": 0.0,
    }
    return pd.DataFrame([mine, chance]).assign(stage="all", structure="both", draws=10)


def lens(*, english):
    """Four states; English has this mass in the middle, and the text's own language 0.3."""
    rows = [
        ("fr", token, layer, mass)
        for token, inner in (("en", english), ("fr", 0.3))
        for layer, mass in enumerate((0.9, inner, inner, 0.1))
    ]
    return pd.DataFrame(rows, columns=["text_language", "token_language", "layer", "mass"])


def sentences(text):
    return re.split(r"(?<=\.)\s", text)


@pytest.mark.parametrize(
    ("changes", "english", "opening", "said"),
    [
        ({}, 0.5, "Yes, by both signs: ", "a harm of the language’s own (Δ = +0.90 [0.70, 1.10], p = 0.09)"),
        ({}, 0.1, "In part: ", "more than any of 10 matched random sets (−0.20 to 0.00, p = 0.09; 10 draws allow no smaller p)"),
        ({"delta_low": -0.1}, 0.5, "In part: ", "not shown to be the language’s own"),
        ({"p_delta": 0.3}, 0.1, "Not shown: ", "not shown to be the language’s own"),
        ({"own": -0.1, "low": -0.3, "p": 0.6}, 0.1, "Not shown: ", "which is not more harm than every one of 10 matched random sets"),
        ({"own": np.nan}, 0.5, "Not tested in full: ", "no target language has specific neurons"),
    ],
)  # fmt: skip
def test_the_answer_is_two_sentences_with_numbers_and_the_control(changes, english, opening, said):
    first, second = answer(lens(english=english), summary(**changes))
    assert first.startswith(opening)
    assert said in first
    assert len(sentences(first)) == len(sentences(second)) == 1
    assert second.endswith(".")
    assert second[0].isupper()
    pivot = "English is ahead" in second
    assert pivot == (english > 0.3)
    assert ("at layer 1: 50% against 30%" if pivot else "at layer 1: 10% against 30%") in second
    assert "nan" not in first + second


def test_the_answer_says_what_it_cannot_tell():
    without = summary()
    first, _ = answer(lens(english=0.1), without[without["neurons"] == "own"].assign(p_non_eng=np.nan))
    assert "there is no random control to compare with" in first
    foreign = lens(english=0.1)
    first, second = answer(foreign[foreign["token_language"] != "en"], summary(own=np.nan))
    assert first.startswith("Not tested: ")
    assert second.startswith("The lens does not tell whether English is ahead")


def test_the_answer_of_the_page_is_that_of_the_tables():
    study = fake_study()
    seen = " ".join("".join(Reader(page()).text).split())
    assert " ".join(answer(study.lens, study.summary)) in seen


def test_warnings_name_what_is_weak():
    study = fake_study(failures={"ru": {"r3": "too short"}})
    study.findings = (*study.findings, "Documents are cut at 64 tokens: en 3 of 60.")
    study.lens = study.lens.assign(documents=8)
    run = study.run.to_json()
    run["corpora"]["de"]["hash"] = run["corpora"]["ru"]["hash"]
    found = "\n".join(cautions(study, run))
    for words in (
        "With 10 random draws no p can be below 0.09: 19 draws allow 0.05",
        "Documents are cut at 64 tokens: en 3 of 60.",
        "No language-specific neurons: Chinese (zh).",
        "1 document(s) of 'ru' could not be measured and are left out: r3.",
        "German (de) and Russian (ru) have identical texts",
        "few documents (en 8, de 8, ru 8, zh 8)",
        "The source tree was changed after the recorded commit",
    ):
        assert words in found


def test_a_study_without_weakness_says_so():
    study = fake_study(("en", "de"), empty=None)
    study.summary = study.summary.assign(draws=99)
    study.grid["count"] = np.where(study.grid["own"].isna(), 0, study.grid["count"])
    run = dataclasses.replace(study.run, git_commit="0123abc")
    assert cautions(study, run.to_json()) == []
    study.run = run
    assert "None: nothing that this page looks for" in render(study, interactive=False)


# --- how to reproduce


def test_the_snippet_gives_the_recorded_choices():
    from mwork_lens.grid import Settings

    settings = Settings(draws=12, length=64, sites=("q", "ffn"))
    facts = {"source": "embedded", "revision": None, "documents": 8, "hash": "x"}
    run = Run(
        "study",
        {**settings.__dict__, "stages": [2, 3, 3]},
        {"name": "organism", "dtype": "float32"},
        {"en": facts, "de": facts},
        0,
    )
    called = {}
    fake = SimpleNamespace(
        load_model=lambda name, **how: called.update(model=(name, how)),
        load_corpora=lambda *how, **more: called.update(corpora=(how, more)),
        Stages=SimpleNamespace(of=lambda n, **parts: (n, parts)),
        study=lambda *given, **how: called.update(study=(given, how)),
    )
    code = snippet(run.to_json())
    exec(code.replace("import mwork_lens as mw", ""), {"mw": fake})
    assert called["model"] == ("organism", {"dtype": "float32"})
    assert called["corpora"] == (("embedded", ["en", "de"]), {"limit": 8})
    assert called["study"][0][2] == (8, {"understanding": 2, "generation": 3})
    assert called["study"][1]["settings"] == settings
    assert snippet({**run.to_json(), "method": "lape"}) is None
    assert "given in memory" in snippet(dataclasses.replace(run, corpora={"en": {"source": "memory"}}).to_json())
    assert "corpora |= " in snippet(
        dataclasses.replace(run, corpora={"en": facts, "de": {**facts, "documents": 9}}).to_json()
    )


def test_the_command_is_kept_where_it_wrote_and_nowhere_else(tmp_path):
    folder = tmp_path / "out"
    with recording(["study", "--out", "a b"], folder):
        assert commands(folder) == ["mwork-lens study --out 'a b'"], "known while it runs"
        folder.mkdir()
        (folder / "x").write_text("x")
    assert commands(folder) == ["mwork-lens study --out 'a b'"]
    assert commands(None) == commands(tmp_path) == []
    with recording(["lape"], folder):
        pass  # wrote nothing
    with recording(["lape"], tmp_path / "none"):
        pass

    def interrupted():
        with recording(["study", "--resume", "--out", "a b"], folder):
            (folder / "y").write_text("y")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        interrupted()
    assert commands(folder) == ["mwork-lens study --out 'a b'"], "resumed, not another one"
    with recording(["report2"], folder):
        (folder / "z").write_text("z")
    assert len(json.loads((folder / COMMANDS).read_text())) == 2
    (folder / COMMANDS).write_text("[{")
    assert commands(folder) == [], "damaged: no word of it is believed"
    assert commands(folder, {"command": ["mwork-lens", "a b"]}) == ["mwork-lens 'a b'"]


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("study", "mwork-study"), ("study --out q", "q"), ("perplexity n.safetensors --limit 4 --out q", "q"), ("experts prune q", "q"),
        ("sensitivity q --draws 2", "q"), ("steer l --out=q", "q"), ("report q", None), ("doctor", None), ("lens", None), ("nothing", None),
        ("study --nonsense", None), ("study --help", None), ("", None),
    ],
)  # fmt: skip
def test_the_folder_of_every_command_is_known(words, folder):
    group = typer.main.get_command(app)
    ctx = group.make_context("mwork-lens", words.split(), resilient_parsing=True)
    found = folder_of(group, ctx, words.split())
    assert (None if found is None else str(found)) == folder


# --- the page of any folder


@pytest.fixture
def folder(tmp_path):
    """What a command leaves: two tables of two runs, a set, a figure, a stray file; names that are hostile."""
    table = pd.DataFrame(
        {
            "language": [HOSTILE, "en"] * 30,
            "dnll": [0.12345, np.nan] * 30,
            "count": [1234567, 2] * 30,
            "draws": 3,
            "ok": True,
        }
    )
    corpora = {
        "en": {"source": HOSTILE, "documents": 4, "hash": "h"},
        "de": {"source": "embedded", "documents": 5, "hash": "h"},
    }
    first = Run(
        "perplexity",
        {"draws": 3},
        {"name": f"m {HOSTILE}", "layers": 2},
        corpora,
        0,
        {"torch": "2"},
        "abc",
        "2026-01-02T00:00:00+00:00",
    )
    save(table, tmp_path / "matrix.parquet", first)
    save(table.iloc[:0], tmp_path / "rows.parquet", dataclasses.replace(first, method="other"))
    save(neuron_sets(("en", "fr"), empty=None), tmp_path / "neurons.safetensors", first)
    (tmp_path / "matrix.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', encoding="utf-8"
    )
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


def test_any_folder_has_a_page(folder):
    text = render_folder(folder)
    reader = Reader(text)
    assert reader.open == []
    seen = " ".join("".join(reader.text).split())
    for words in (
        "Whose neurons are off, and which language suffers?", "Method: other.", f"m {HOSTILE}", "the first 20 of 60 rows", "0.1235", "1,234,567",
        "notes.txt", "rows.parquet is empty.", "with 3 random draws no empirical p can be below 0.25",
        "English (en) and German (de) have identical texts",
        "No command line was recorded", "No sentence was recorded", "matrix.parquet, neurons.safetensors", "2026-01-02",
    ):  # fmt: skip
        assert words in seen, words
    assert len(re.findall(r"<tr>", text[text.index("matrix.parquet</h3>") : text.index("rows.parquet</h3>")])) == 21
    images = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 1
    assert images[0].startswith("data:image/svg+xml;base64,")
    assert all(value for tag, name, value in reader.attributes if (tag, name) == ("img", "alt"))
    assert text.count("<script") == 1
    assert text == render_folder(folder)


def test_the_command_line_writes_it(folder):
    with recording(["perplexity", "n", "--out", str(folder)], folder):
        (folder / "matrix.svg").touch()
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    assert f"mwork-lens perplexity n --out {folder}" in "".join(
        Reader((folder / "report.html").read_text(encoding="utf-8")).text
    )
    assert len(json.loads((folder / COMMANDS).read_text())) == 1, "`report` makes no results"
    assert write_folder_report(folder, folder / "deep" / "page.html").is_file()


def test_findings_of_a_record_are_shown(folder):
    (folder / "run.json").write_text(
        json.dumps({"method": "trial", "findings": ["A is 3.", "Documents are cut at 9 tokens: en 1 of 2."]})
    )
    text = render_folder(folder)
    assert text.index("<li>A is 3.") < text.index('id="warnings"') < text.index("<li>Documents are cut at 9 tokens")


def test_a_folder_without_a_run_says_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run: there is nothing, but no run\.json"):
        render_folder(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"holds no run: there is a.txt, b/, but no run.json .* give the folder that a command wrote",
    ):
        render_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none does not exist: give the folder"):
        render_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"a.txt is a file: give the folder"):
        render_folder(tmp_path / "a.txt")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json is not readable JSON .* run the command again"):
        render_folder(tmp_path)
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"run.json holds a list, not the record of a run"):
        render_folder(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "t.parquet").write_text("PAR1")
    with pytest.raises(ValueError, match=r"t.parquet is not a readable parquet table .* make it again"):
        render_folder(tmp_path)


def test_figures_that_do_not_fit_are_named(folder, monkeypatch):
    monkeypatch.setattr("mwork_lens.report.folder.FIGURES", 10)
    text = render_folder(folder)
    assert "Too large for this page, and only in the folder: matrix.svg." in text
    assert "<img" not in text.replace("&lt;img", "")
    monkeypatch.setattr("mwork_lens.report.folder.LIMIT", 1000)
    with pytest.raises(ValueError, match=r"would have [\d,]+ bytes, more than 1,000: move figures out of the folder"):
        render_folder(folder)


# --- in a browser

PROBE = """<script>
var log = [];
function column(t, at) { return Array.from(t.tBodies[0].rows).map(function (r) { return r.cells[at] ? r.cells[at].textContent : "#"; }); }
var t = document.querySelectorAll("table.sortable.wide")[0], b = t.querySelectorAll("thead button");
log.push(column(t, 3)); b[3].click(); log.push(column(t, 3)); log.push(t.querySelectorAll("th[aria-sort=ascending]").length);
b[3].click(); log.push(column(t, 3)); b[3].click(); log.push(column(t, 3)); log.push(t.querySelectorAll("th[aria-sort]").length);
var c = Array.from(document.querySelectorAll("table.sortable")).find(function (x) { return /^Language-specific/.test(x.caption.textContent); });
c.querySelector("thead button").click(); log.push(column(c, 0));
window.dispatchEvent(new Event("beforeprint")); log.push(document.querySelectorAll("details:not([open])").length);
window.dispatchEvent(new Event("afterprint")); log.push(document.querySelectorAll("details[open]").length);
var done = document.createElement("pre"); done.id = "probe"; done.textContent = JSON.stringify(log); document.body.appendChild(done);
</script></body>"""


def browse(path, fragment=""):
    """(DOM, what the browser's console said) of a page; no name resolves, so nothing could be fetched."""
    words = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=8000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    words += [
        "--enable-logging=stderr",
        f"--user-data-dir={path.parent / 'profile'}",
        "--dump-dom",
        f"file://{path}{fragment}",
    ]
    done = subprocess.run([CHROMIUM, *words], capture_output=True, text=True, timeout=180, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@needs_browser
def test_a_browser_draws_every_figure_and_runs_nothing_else(tmp_path):
    path = tmp_path / "report.html"
    study = fake_study(("en", "de", HOSTILE), empty=None, findings=(f"Found {HOSTILE}.",))
    path.write_text(render(study), encoding="utf-8")
    assert path.stat().st_size < 8_000_000
    dom, said = browse(path, "#interactive")
    assert said == []
    body = dom[dom.index("<main") : dom.index('<script type="application/json"')]
    assert len(re.findall(r'class="plot" id="plot-\w+"', body)) == 5
    assert body.count('class="main-svg"') >= 5
    assert len(re.findall(r"<button[^>]*>Static</button>", body)) == 5
    assert not re.search(r"<(img|script|iframe)", body)
    shown = body[body.index('id="plot-share"') : body.index('id="figure-2"')]
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown, "a title of a panel, as text"
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", body)
    assert "Share chart" not in body


@pytest.mark.slow
@needs_browser
def test_a_browser_sorts_tables_within_their_groups(tmp_path):
    path = tmp_path / "report.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", small_page()).replace("</body>", PROBE)
    path.write_text(text, encoding="utf-8")
    dom, said = browse(path)
    assert said == []
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    before, up, marked, down, again, unmarked, languages, folded, opened = json.loads(found[1])

    def groups(column):
        return [[float(x.replace("−", "-")) if x != "–" else None for x in part] for part in split(column)]

    def split(column):
        parts = [[]]
        for cell in column:
            parts.append([]) if cell == "#" else parts[-1].append(cell)
        return parts[1:]

    assert (marked, unmarked) == (1, 0)
    assert len(groups(before)) == 4
    for old, small, large in zip(groups(before), groups(up), groups(down), strict=True):
        known = sorted(x for x in old if x is not None)
        unknown = [None] * (len(old) - len(known))
        assert small == known + unknown
        assert large == known[::-1] + unknown, "what is not known stays last"
    assert again == before
    assert languages == sorted(languages)
    assert len(languages) == 2
    assert (folded, opened) == (0, 0)


@pytest.mark.slow
@needs_browser
def test_the_page_prints(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(small_page(), encoding="utf-8")
    words = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--print-to-pdf={tmp_path / 'page.pdf'}",
    ]
    subprocess.run([CHROMIUM, *words, f"file://{path}"], capture_output=True, timeout=180, check=True)
    made = (tmp_path / "page.pdf").read_bytes()
    assert made.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", made)) <= 12


def test_lens_of_one_inner_layer_has_an_answer():
    assert answer(lens_table(("en", "fr"), layers=2), summary())[1]
