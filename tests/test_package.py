"""The package as a vocabulary: every public name resolves, is documented, and stays what it means."""

import inspect
import re
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest

import mwork_lens as mw

SOURCES = sorted(Path(mw.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("name", mw.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(mw, name)
    assert not isinstance(value, types.ModuleType)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert len(inspect.getdoc(value) or "") > 20
        assert value.__module__.startswith("mwork_lens.")
    assert name in dir(mw)


def test_the_module_page_names_the_vocabulary():
    listed = set(re.findall(r"\w+", mw.__doc__))
    assert len(mw.__all__) - len(set(mw.__all__) & listed) < 20  # the rest are types and constants
    for name in ("load_model", "measure", "plnd", "matched_random", "deactivate", "evaluate", "study", "save", "load"):
        assert name in listed
        assert name in mw.__all__


def test_functions_stay_functions_when_their_files_are_imported():
    for name in ("capture", "measure", "evaluate", "study", "doctor"):
        module = import_module(f"mwork_lens.{name}")
        assert isinstance(module, types.ModuleType)
        assert inspect.isfunction(getattr(mw, name)), name
        assert getattr(mw, name) is getattr(module, name)
    # other files are modules of the package, as usual
    assert isinstance(import_module("mwork_lens.stages"), types.ModuleType)
    assert isinstance(mw.stages, types.ModuleType)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"mwork_lens has no 'lape_of_faith'; it has Corpus, .*load_model"):
        _ = mw.lape_of_faith


@pytest.mark.parametrize(
    "code",
    ["import mwork_lens; dir(mwork_lens); mwork_lens.__version__", "import mwork_lens.cli"],
    ids=["package", "command line"],
)
def test_importing_the_package_loads_nothing_heavy(code):
    check = "import sys; heavy = {'torch', 'transformer_lens', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", f"{code}\n{check}"], check=True)
    # negative control: the check sees what is loaded on use
    if code.startswith("import mwork_lens;"):
        late = subprocess.run(
            [sys.executable, "-c", f"import mwork_lens; mwork_lens.Site\n{check}"], capture_output=True, text=True
        )
        assert "AssertionError: {'torch'}" in late.stderr


def test_every_module_opens_with_what_it_is_for():
    for path in SOURCES:
        assert path.read_text(encoding="utf-8").startswith('"""'), path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_no_file_is_long(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 320, f"{path.name} has {lines} lines: split it"


def test_bars_are_hidden_by_the_variable_of_tqdm(monkeypatch):
    from mwork_lens.progress import hidden

    for value, expected in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("TQDM_DISABLE", value)
        assert hidden(True) is expected
        assert hidden(False)
    monkeypatch.delenv("TQDM_DISABLE")
    assert not hidden(True)
