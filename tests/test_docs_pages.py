"""The documentation is whole: every public name, figure and method has its place, every example in a docstring is true. Sphinx itself runs in CI."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import mwork_lens as mw

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = {page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")}
DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:data):: (mwork_lens[\w.]*)$", re.MULTILINE)
DOCTESTED = ("corpora", "languages", "neurons", "stages")


def named():
    return [name for text in REFERENCE.values() for name in DIRECTIVE.findall(text)]


def test_every_public_name_has_its_place_in_the_reference():
    pages = "\n".join(REFERENCE.values())
    have = re.findall(r"^\.\. (?:auto(?:function|class|exception)|py:data):: mwork_lens\.(\w+)$", pages, re.MULTILINE)
    assert sorted(have) == mw.__all__


def test_the_reference_names_nothing_that_is_not_there():
    for name in named():
        short = name.removeprefix("mwork_lens.")
        if short in mw.__all__ or (ROOT / "mwork_lens" / short.replace(".", "/")).with_suffix(".py").is_file():
            continue
        module, _, inside = name.rpartition(".")
        assert hasattr(import_module(module), inside), name


def test_every_detector_has_its_module_in_the_reference():
    assert not {f"mwork_lens.detect.{path.stem}" for path in (ROOT / "mwork_lens/detect").glob("[!_]*.py")} - set(
        named()
    )


def test_every_area_of_the_reference_is_listed():
    listed = REFERENCE["index"].split("```{toctree}")[1].split("```")[0].split()
    assert set(listed) - {":maxdepth:", "1"} == set(REFERENCE) - {"index"}


def patterns():
    return re.findall(r"```\{figures\} (\S+)", (DOCS / "gallery.md").read_text(encoding="utf-8"))


def test_every_figure_of_the_experiments_is_in_the_gallery():
    shown = {path for pattern in patterns() for path in ROOT.glob(pattern)}
    assert not set((ROOT / "experiments").rglob("*.svg")) - shown


def test_every_caption_of_the_gallery_is_of_a_figure_and_every_command_of_a_script():
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for pattern, captions in re.findall(r"```\{figures\} (\S+)\n(.*?)```", text, flags=re.DOTALL):
        stems = {path.stem for path in ROOT.glob(pattern)}
        assert not {line.split(": ")[0] for line in captions.splitlines()} - stems, pattern
    for script in re.findall(r"python (experiments/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script


METHODS = sorted(page for page in (DOCS / "methods").glob("*.md") if page.stem not in ("report", "views"))
# a report and views estimate nothing


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_every_method_says_its_defaults_its_pitfalls_and_where_it_is_in_the_reference(page):
    text = page.read_text(encoding="utf-8").lower()
    for passage in ("default", "pitfalls", "source", "reference/"):
        assert passage in text, passage


def test_every_page_is_in_a_table_of_contents():
    written = "\n".join(
        path.read_text(encoding="utf-8") for path in (DOCS / "index.md", DOCS / "reference" / "index.md")
    )
    listed = {
        line.strip()
        for block in re.findall(r"```\{toctree\}(.*?)```", written, re.DOTALL)
        for line in block.split("\n")
    }
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        folder = f"{name.split('/')[0]}/*"
        assert name == "index" or {name, name.removeprefix("reference/"), folder} & listed, name


@pytest.mark.parametrize("name", DOCTESTED)
def test_the_examples_of_docstrings_are_true(name):
    found = doctest.testmod(import_module(f"mwork_lens.{name}"))
    assert found.attempted
    assert not found.failed


def test_the_drawing_names_modules_that_exist():
    drawing = (DOCS / "_static" / "architecture.svg").read_text(encoding="utf-8")
    for line in re.findall(r'class="m"[^>]*>([^<]*)<', drawing):
        for module in re.split(r"[,\s]+", line.removeprefix("whole runs:").removeprefix("storage:")):
            name = module.strip().removesuffix("/*").removesuffix("/")
            if name and name not in ("safetensors", "parquet", "json"):
                home = ROOT / "mwork_lens" / name
                assert home.is_dir() or home.with_suffix(".py").is_file(), name


@pytest.mark.filterwarnings("ignore:too few tokens")  # twelve documents are few
def test_the_example_of_a_detector_runs_and_its_tests_pass(monkeypatch, capsys):
    text = (DOCS / "adding_a_detector.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    less = code.replace("limit=48", "limit=12")
    assert less != code
    monkeypatch.setenv("TQDM_DISABLE", "1")
    names: dict = {}
    exec(compile(less, "docs", "exec"), names)
    own_tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(own_tests) == 3
    for test in own_tests:
        test()
    assert len(names["neurons"]) == len(names["control"]) > 0
    own, random = (names[name].set_index("language")["change"] for name in ("own", "random"))
    assert own["zh"] > max(0, random["zh"], own["en"])
    assert "gap" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_of_getting_started_runs(monkeypatch, capsys):
    text = (DOCS / "getting_started.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    less = code.replace("limit=24", "limit=6")
    assert less != code
    monkeypatch.setenv("TQDM_DISABLE", "1")
    names: dict = {}
    exec(compile(less, "docs", "exec"), names)
    assert "change" in capsys.readouterr().out


def test_the_example_of_the_gallery_runs(monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "gallery.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    names: dict = {}
    exec(compile(code.replace("limit=8", "limit=3"), "docs", "exec"), names)
    assert len(names["axes"]) == 2
