"""What the documentation shows works: the examples of the activation statistics, page after page, on fewer documents."""

import re
from pathlib import Path

import pytest
import torch

import mwork_lens as mw

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # six documents are few, and English has no neurons then
def test_the_examples_of_activation_statistics_run():
    code = "\n".join(block for page in ("lape", "perplexity", "steering") for block in blocks(f"methods/{page}.md"))
    less = code.replace("limit=24", "limit=6").replace("draws=10", "draws=1").replace("resamples=50", "resamples=3")
    assert less != code
    names: dict = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TQDM_DISABLE", "1")
        exec(compile(less, "docs", "exec"), names)
    assert set(names["neurons"]) == {"en", "de", "es", "fr", "ru", "zh"}
    assert len(names["control"]["zh"]) == len(names["neurons"]["zh"]) > 0
    assert set(names["firm"]["language"]) == set(names["neurons"])
    assert {"own", "random"} <= set(names["matrix"]["neurons"])
    assert (names["rows"]["off"] == "all").any()
    assert names["written"][0].ids


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tokens")  # four documents are few
def test_the_example_of_experts_runs():
    (code,) = blocks("methods/experts.md")
    less = code.replace("limit=24", "limit=8")
    assert less != code
    names: dict = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TQDM_DISABLE", "1")
        exec(compile(less, "docs", "exec"), names)
    assert names["parts"].labels.shape == (8, 344)
    assert names["cost"] < 1
    assert len(names["german"]) == 4
    assert {"p"} <= set(names["related"].columns if hasattr(names["related"], "columns") else vars(names["related"]))


def test_the_example_of_tasks_runs():
    (code,) = blocks("methods/tasks.md")
    names: dict = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TQDM_DISABLE", "1")
        exec(compile(code, "docs", "exec"), names)
    assert len(names["before"]) == 12
    assert set(names["both"]["condition"]) == {"baseline", "off"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*groups are left out")
def test_the_example_of_facts_runs():
    (code,) = blocks("methods/facts.md")
    less = code.replace("take(6)", "take(3)").replace('"de", "es"]', '"de"]')
    assert less.count("take(3)") == 1
    names: dict = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TQDM_DISABLE", "1")
        exec(compile(less, "docs", "exec"), names)
    assert len(names["known"]) == 5 * 3 * 2
    assert names["neurons"].top == 50
    assert {"prediction", "transferred"} <= set(names["truth"]["analysis"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tokens|.*were truncated")
def test_the_example_of_enhancement_runs(tmp_path, monkeypatch, polyglot):
    (code,) = blocks("methods/enhance.md")
    mask = torch.zeros(8, 344, dtype=torch.bool)
    mask[:, ::20] = True
    names: dict = {"mw": mw, "model": polyglot, "neurons": {"ru": mw.NeuronSet({"ffn": mask})}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    exec(compile(code, "docs", "exec"), names)
    assert names["delta"].changed > 0.9 * names["delta"].size
    assert (tmp_path / "runs" / "ru-model" / "config.json").is_file()


def test_the_examples_of_patching_and_questions_run(monkeypatch, capsys):
    names: dict = {"mw": mw, "model": mw.load_model("organism")}
    monkeypatch.setenv("TQDM_DISABLE", "1")
    for page in ("patching", "questions"):
        (code,) = blocks(f"methods/{page}.md")
        exec(compile(code.replace("limit=24", "limit=6"), "docs", "exec"), names)
    assert len(names["rows"]) == 8 * 3
    assert set(names["table"]["language"]) == {"de", "zh"}
    assert set(names["easier"]["language"]) == {"de", "zh"}
    assert "probability" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_nothing_is_left_to_be_filled_in(page):
    assert not re.search(r"FINDINGS_|\bTODO\b|\bTIME\b|\bTBD\b", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target
