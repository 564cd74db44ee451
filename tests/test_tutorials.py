"""The tutorials are fit to be run: whole files, no outputs, links and names that exist. They are run where the documentation is built.

To run them all without Sphinx, and see which cell fails:

    python tests/test_tutorials.py [01 05 ...]
"""

import ast
import importlib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "01_first_look",
    "02_language_neurons",
    "03_workflow",
    "04_comparing_detectors",
    "05_steering",
    "06_experts",
    "07_facts",
    "08_your_own_model",
]

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == kind]


def code(path: Path) -> ast.Module:
    """The code of a notebook as one module; lines for IPython (%matplotlib) are left out."""
    lines = "\n".join(cells(path, "code")).split("\n")
    return ast.parse("\n".join(line for line in lines if not line.startswith("%")), filename=path.name)


def public_names(tree: ast.Module) -> dict[str, Any]:
    """Everything of mwork_lens that a notebook names, as it is written there: mw.load_model, precision, ..."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mwork_lens":
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"
                found[name.asname or name.name] = getattr(module, name.name)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mw":
            import mwork_lens

            assert node.attr in mwork_lens.__all__, f"mwork_lens has no {node.attr}"
            found[f"mw.{node.attr}"] = getattr(mwork_lens, node.attr)
    return found


def test_every_tutorial_is_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@each
def test_it_is_a_notebook_without_outputs(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert "".join(cell["source"]).strip()
    if importlib.util.find_spec("nbformat"):  # comes with the extra `docs`
        import nbformat

        nbformat.validate(nbformat.read(path, as_version=4))


@each
def test_it_begins_with_a_question_and_says_where_to_go_on(path):
    texts = cells(path, "markdown")
    assert read(path)["cells"][0]["cell_type"] == "markdown"
    assert re.match(r"# \S", texts[0])
    assert "?" in texts[0]
    assert sum(line.startswith("# ") for text in texts for line in text.split("\n")) == 1
    assert "## What to try next" in texts[-1]


@each
def test_links_lead_somewhere(path):
    links = [link for text in cells(path, "markdown") for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link.split("#")[0] for link in links if not link.startswith(("http:", "https:"))]
    assert any(link.startswith("../methods/") for link in local)
    for link in local:
        assert (path.parent / link).resolve().is_file(), link


@each
def test_no_cell_asks_the_network(path):
    for text in cells(path, "code"):
        assert "http" not in text
        assert not re.search(r"\b(from_pretrained|load_dataset|hf_hub_download|urlopen|requests)\b", text)


@each
def test_its_names_and_arguments_exist(path):
    tree = code(path)
    names = public_names(tree)
    assert "mw.load_model" in names
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        target = names.get(ast.unparse(call.func))
        if target is None or not callable(target):
            continue
        taken = inspect.signature(target).parameters
        if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
            continue
        strange = [word.arg for word in call.keywords if word.arg and word.arg not in taken]
        assert not strange, f"{ast.unparse(call.func)} takes no {strange[0]}: it has {', '.join(taken)}"


def run(path: Path) -> float:
    """Execute a notebook with a fresh kernel in its own folder; seconds it took. Nothing is written back."""
    import time

    import nbclient
    import nbformat

    start = time.monotonic()
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    return time.monotonic() - start


if __name__ == "__main__":
    chosen = [path for path in NOTEBOOKS if not sys.argv[1:] or path.stem.startswith(tuple(sys.argv[1:]))]
    for path in chosen:
        sys.stdout.write(f"{path.name:32} {run(path):6.1f} s\n")
        sys.stdout.flush()
