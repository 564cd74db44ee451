"""The command that trains neurons: its delta is the function's, its export is the model with it, and one line says what is wrong."""

import pytest
import torch
from test_cli import call, folder, refused, texts  # noqa: F401  # fixtures

import mwork_lens as mw
from mwork_lens.corpora import load_corpora
from mwork_lens.storage import Run, load, save

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # tiny corpora


@pytest.fixture(scope="module")
def neurons(folder, tmp_path_factory):  # noqa: F811
    model = mw.load_model(folder)
    mask = torch.rand(4, 20, generator=torch.Generator().manual_seed(0)) < 0.2
    path = tmp_path_factory.mktemp("sets") / "specific.safetensors"
    save({"en": mw.NeuronSet({"ffn": mask}, model=mw.fingerprint(model))}, path, Run("test", {}, {}))
    return path


def run(folder, texts, neurons, out, *more):  # noqa: F811
    return call("enhance", neurons, "--language", "en", "--model", folder, "--corpora", texts, "--rate", "0.01", "--batch", "2",
                "--accumulation", "1", "--out", out, *more)  # fmt: skip


def test_the_delta_is_the_functions_and_the_export_has_it(folder, texts, neurons, tmp_path):  # noqa: F811
    result = run(folder, texts, neurons, tmp_path / "run", "--export", tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert "own: " in result.output
    assert "random 0: " in result.output
    model = mw.load_model(folder)
    corpora = load_corpora(texts)
    settings = mw.Training(rate=0.01, batch=2, accumulation=1)
    delta = mw.enhance(model, corpora["en"].split()[0], mw.load(neurons)["en"], settings, progress=False)
    kept = load(tmp_path / "run" / "own" / "delta.safetensors")
    assert all(torch.equal(kept.after[key], delta.after[key]) for key in delta.after)
    table = load(tmp_path / "run" / "changes.parquet")
    assert set(table["neurons"]) == {"own", "random 0"}
    held = {x: c.split()[1] for x, c in corpora.items()}
    before = mw.evaluate(model, held)
    with delta.applied(model):
        change = mw.difference(mw.evaluate(model, held), before)
    assert table[table["neurons"] == "own"]["change"].to_numpy() == pytest.approx(change["change"].to_numpy())
    exported = mw.difference(mw.evaluate(mw.load_model(tmp_path / "model"), held), before)
    assert exported["change"].to_numpy() == pytest.approx(change["change"].to_numpy(), abs=1e-6)
    again = run(folder, texts, neurons, tmp_path / "run")
    refused(again, "holds this very run")
    assert run(folder, texts, neurons, tmp_path / "run", "--resume").exit_code == 0


def test_what_is_wrong_is_said_in_one_line(folder, texts, neurons, tmp_path):  # noqa: F811
    refused(
        call("enhance", neurons, "--language", "xx", "--model", folder, "--corpora", texts, "--out", tmp_path),
        "'xx' has no neurons in",
    )
    refused(run(folder, texts, neurons, tmp_path, "--part", "all"), "--part 'all': choose in, out or both")
    refused(run(folder, texts, neurons, tmp_path, "--languages", "de"), "no texts of 'en'")
    refused(run(folder, texts, neurons, tmp_path, "--rate", "0"), "rate=0.0: give a positive number")
