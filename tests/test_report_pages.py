"""The answer in two sentences, the warnings, the command, the page of any folder, and what a browser makes of a page."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import typer
from test_plots import TWO, grid_table, lens_table, neuron_sets, summary_table
from test_report import Reader, fake_study, page, small_page
from typer.testing import CliRunner

import mwork_lens.cli
from mwork_lens.analysis import layer_counts, overlap
from mwork_lens.cli import app
from mwork_lens.cli.activation import METHODS
from mwork_lens.cli.console import print_study
from mwork_lens.findings import findings, is_caution, pivot
from mwork_lens.report import render
from mwork_lens.report.answer import answer, cautions
from mwork_lens.report.command import COMMANDS, commands, folder_of, recording, snippet
from mwork_lens.report.folder import QUESTIONS, render_folder, write_folder_report
from mwork_lens.stages import Stages
from mwork_lens.storage import Run, save
from mwork_lens.written import written_p

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


def lens(*, english, half=0.03):
    """Four states; English has this mass in the middle, and the text's own language 0.3, give or take `half`."""
    rows = [
        ("fr", token, layer, mass, mass - half, mass + half)
        for token, inner in (("en", english), ("fr", 0.3))
        for layer, mass in enumerate((0.9, inner, inner, 0.1))
    ]
    return pd.DataFrame(rows, columns=["text_language", "token_language", "layer", "mass", "mass_low", "mass_high"])


def sentences(text):
    return re.split(r"(?<=\.)\s", text)


@pytest.mark.parametrize(
    ("changes", "english", "opening", "said"),
    [
        ({}, 0.5, "Yes, by both signs: ", "a harm of the language’s own (Δ = +0.90 [0.70, 1.10], p = 0.09)"),
        ({}, 0.1, "In part: ", "more than any of 10 matched random sets (−0.20 to 0.00, p = 0.09; 10 draws allow no smaller p)"),
        ({"delta_low": -0.1}, 0.5, "In part: ", "not shown to be the language’s own"),
        ({"p_delta": 0.3}, 0.1, "Not shown: ", "not shown to be the language’s own"),
        ({"own": -0.1, "low": -0.15, "p": 0.6}, 0.1, "Not shown: ", "which is not more harm than every one of 10 matched random sets"),
        ({"own": -0.5, "low": -1.1}, 0.1, "Not shown: ", "which is no harm, as the interval of the first is not below zero"),
        ({"own": 0.01, "low": 0.006, "random": (0.02, 0.04), "english": 0.05, "delta": 0.04, "delta_low": 0.03}, 0.1, "Not shown: ",
         "(a difference of Δ = +0.0400 [0.0300, 0.0500], p = 0.09), which is no harm, as the interval of the first is not below zero; beside it are "
         "10 matched random sets (0.0200 to 0.0400,"),
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
    assert ("at layer 1: 50% [47%, 53%] against 30% [27%, 33%]" if pivot else "at layer 1: 10% against 30%") in second
    assert "nan" not in first + second


def test_the_answer_says_what_it_cannot_tell():
    without = summary()
    first, _ = answer(lens(english=0.1), without[without["neurons"] == "own"].assign(p_non_eng=np.nan))
    assert "there is no random control to compare with" in first
    foreign = lens(english=0.1)
    first, second = answer(foreign[foreign["token_language"] != "en"], summary(own=np.nan))
    assert first.startswith("Not tested: ")
    assert second.startswith("The lens does not tell whether English is ahead")


@pytest.mark.parametrize(
    ("english", "half", "ahead"), [(0.31, 0.03, None), (0.29, 0.03, None), (0.31, 0.001, True), (0.29, 0.001, False)]
)
def test_english_is_ahead_or_behind_only_where_the_intervals_are_apart(english, half, ahead):
    found = pivot(lens(english=english, half=half))
    assert found.ahead is ahead
    assert (found.layer, found.english[0], found.own) == (1, english, (0.3, 0.3 - half, 0.3 + half))
    first, second = answer(lens(english=english, half=half), summary())
    assert first.startswith({True: "Yes, by both signs: ", False: "In part: ", None: "In part: "}[ahead])
    assert ("cannot be told whether English is ahead" in second) == (ahead is None)


def test_the_pivot_is_where_it_can_be_told_and_inside():
    """The embedding and the output do not count, and a layer with intervals apart comes before one with a larger gap."""
    table = lens(english=0.4)
    english = table["token_language"] == "en"
    table.loc[english & (table["layer"] == 0), ["mass", "mass_low", "mass_high"]] = 1.0
    assert pivot(table).layer == 1
    table.loc[english & (table["layer"] == 1), ["mass", "mass_low", "mass_high"]] = (0.6, 0.2, 0.9)
    assert pivot(table)[:3] == (True, 2, (0.4, 0.37, pytest.approx(0.43)))
    table.loc[english & (table["layer"] == 2), ["mass", "mass_low", "mass_high"]] = (0.1, 0.05, 0.15)
    assert pivot(table)[:2] == (None, 1), "behind at layer 2, but who knows at layer 1"
    assert pivot(table[table["layer"] != 1]).layer is not None
    assert pivot(table[table["layer"] > 1])[:2] == (None, None)


@pytest.mark.parametrize(
    ("own", "said"), [(-0.5, "the harm is specific to the language"), (0.01, "there is no harm that could be specific")]
)
def test_the_findings_say_of_harm_and_pivot_what_the_answer_says(own, said):
    table = summary(own=own, low=own - 0.004, random=(0.02, 0.04), english=0.05, delta=0.05 - own, delta_low=0.04 - own)
    grid = pd.DataFrame([
        ("fr", "own", own, own + 0.004, 9), *(("fr", "random", x, np.nan, 9) for x in (0.02, 0.04)),
    ], columns=["language", "neurons", "own", "own_high", "count"]).assign(stage="all", structure="both")  # fmt: skip
    split = Stages.of(3, understanding=1, generation=1)
    found = findings(lens(english=0.3), neuron_sets(("en", "fr"), empty=None), grid, table, split, {})
    assert said in "".join(found)
    assert any("Not harmed beyond every random control: fr" in x for x in found) == (own > 0)
    first, second = answer(lens(english=0.3), table)
    assert ("no harm" in first) == (own > 0)
    assert "cannot be told" in second
    assert any("Whether there is an English pivot cannot be told" in x for x in found)
    start = re.search(r"changes its log-likelihood by (.*?) nats", first)[1]
    assert f"by {start} nats per token" in "".join(found), "written alike"


@pytest.mark.parametrize(
    ("p", "text"), [(1 / 11, "0.09"), (0.25, "0.25"), (1.0, "1.00"), (0.01, "0.01"), (0.005, "0.005"), (0.001, "0.001"), (1 / 3000, "0.0003"),
                    (float("nan"), "–")]
)  # fmt: skip
def test_a_small_p_is_not_zero(p, text):
    assert written_p(p) == text


def test_a_p_from_many_draws_is_the_same_everywhere(capsys):
    study = fake_study()
    own = study.summary["neurons"] == "own"
    study.summary.loc[own, ["p_non_eng", "p_delta"]] = 0.001
    study.summary["draws"] = 999
    text = render(study)
    assert "p = 0.001" in answer(study.lens, study.summary)[0]
    assert text.count(">0.001<") > 20, "the table and the static figure"
    assert (
        json.loads(re.search(r'id="data-deltas">(.*?)</script>', text)[1])["layout"]["annotations"][1]["text"]
        == "0.001"
    )
    print_study(study)
    printed = capsys.readouterr().out
    assert "0.001" in printed
    assert "0.00 " not in text + printed


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
        "No language-specific neuron was found for zh: nothing can be switched off there.",
        "1 document(s) of 'ru' could not be measured and are left out: r3.",
        "German (de) and Russian (ru) have identical texts",
        "few documents (en 8, de 8, ru 8, zh 8)",
        "The source tree was changed after the recorded commit",
    ):
        assert found.count(words) == 1
    study.findings = (*study.findings, *(line for line in found.split("\n") if is_caution(line)))
    assert "\n".join(sorted(cautions(study, run))) == "\n".join(sorted(found.split("\n"))), "said once, whoever says it"


def test_what_was_asked_for_is_said_where_nothing_could_be_switched_off():
    grid = grid_table(TWO)
    grid["count"] = 0
    grid.iloc[:, 7:] = np.nan
    sets = {language: s - s for language, s in neuron_sets(TWO).items()}
    study = fake_study(
        TWO, grid=grid, specific=sets, summary=summary_table(grid), counts=layer_counts(sets), overlap=overlap(sets)
    )
    run = dataclasses.replace(study.run, parameters={**study.run.parameters, "draws": 10})
    assert "There are no random controls" in "".join(cautions(study, study.run.to_json())), (
        "nobody asked, and there are none"
    )
    study.run = run
    seen = " ".join("".join(Reader(render(study, interactive=False)).text).split())
    assert "There are no random controls" not in seen
    assert "With 10 random draws no p can be below 0.09" in seen
    assert "beside neurons of another language and 10 random sets" in seen
    assert "There is no p: nothing was switched off" in seen
    assert not re.search("[Ww]ith – draws|– random|of – draws", seen)


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
    called, held = {}, {language: SimpleNamespace(fingerprint="x") for language in ("en", "de")}
    fake = SimpleNamespace(
        load_model=lambda name, **how: called.update(model=(name, how)),
        load_corpora=lambda *how, **more: called.update(corpora=(how, more)) or held,
        Stages=SimpleNamespace(of=lambda n, **parts: (n, parts)),
        study=lambda *given, **how: called.update(study=(given, how)),
    )
    code = snippet(run.to_json())
    exec(code.replace("import mwork_lens as mw", ""), {"mw": fake})
    assert called["model"] == ("organism", {"dtype": "float32"})
    assert called["corpora"] == (("embedded", ["en", "de"]), {"limit": 8})
    assert called["study"][0][2] == (8, {"understanding": 2, "generation": 3})
    assert called["study"][1]["settings"] == settings
    held["de"].fingerprint = "of another shard"
    with pytest.raises(SystemExit, match=r"not the documents of the recorded run: \['de'\]"):
        exec(code.replace("import mwork_lens as mw", ""), {"mw": fake})
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
        ("sensitivity q --draws 2", "q"), ("steer l --out=q", "q"), ("report q", None), ("doctor", None), ("lens", None),
        ("lens --out q/t.parquet", "q"), ("nothing", None),
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
            "documents": [4, 40] * 30,
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
        "notes.txt", "rows.parquet is empty.", "matrix.parquet: With 3 random draws no p can be below 0.25",
        f"matrix.parquet rests on few documents ({HOSTILE} 4)",
        "English (en) and German (de) have identical texts",
        "No command line was recorded", "matrix.parquet, neurons.safetensors", "2026-01-02",
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


def test_the_first_run_of_a_folder_comes_first(folder):
    """By time, whatever the files are called."""
    late = Run("sensitivity", {}, {"name": "m"}, {}, 0, {}, None, "2026-03-02T00:00:00+00:00")
    save(pd.DataFrame({"x": [1]}), folder / "a.parquet", late)
    assert re.search(r"<h1>(\w+) of", render_folder(folder))[1] == "perplexity"


def test_every_command_has_its_question():
    written = set()
    for path in (Path(mwork_lens.cli.__file__).parent).glob("*.py"):
        written |= set(re.findall(r'Run\(\s*"([^"]+)"', path.read_text(encoding="utf-8")))
    assert {"enhance", "lens", "experts prune"} <= written
    assert written | {*METHODS, "partition"} <= {*QUESTIONS}


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
    for record, message in (
        ("{", r"run.json is not readable JSON .* run the command again"),
        ("[1]", r"run.json holds a list, not the record of a run"),
        ('{"method": "x", "model": "m", "corpora": ["a"]}', r"run.json: 'model' is a str, not names and values .* it is foreign"),
        ('{"method": "x", "corpora": ["a"]}', r"run.json: 'corpora' is a list, not names and values"),
    ):  # fmt: skip
        (tmp_path / "run.json").write_text(record)
        with pytest.raises(ValueError, match=message):
            render_folder(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "t.parquet").write_text("PAR1")
    with pytest.raises(ValueError, match=r"t.parquet is not a readable parquet table .* make it again"):
        render_folder(tmp_path)


def test_figures_that_do_not_fit_are_named(folder, monkeypatch):
    size = (folder / "matrix.svg").stat().st_size
    monkeypatch.setattr("mwork_lens.report.folder.FIGURES", size)
    assert "Too large for this page" not in render_folder(folder), "bytes of the file, not of what it is written as"
    monkeypatch.setattr("mwork_lens.report.folder.FIGURES", size - 1)
    text = render_folder(folder)
    assert "Too large for this page, and only in the folder: matrix.svg." in text
    assert "<img" not in text.replace("&lt;img", "")
    monkeypatch.setattr("mwork_lens.report.page.LIMIT", 1000)
    with pytest.raises(ValueError, match=r"would have [\d,]+ bytes, more than 1,000: move figures out of the folder"):
        render_folder(folder)
    with pytest.raises(
        ValueError, match=r"this study would have [\d,]+ bytes, more than 1,000: leave out the interactive figures"
    ):
        render(fake_study(), interactive=False)


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
