"""The command that trains neurons: its delta is the function's, its export is the model with it, and one line says what is wrong."""

import pytest
import torch
from test_cli import call, folder, refused, texts  # noqa: F401  # fixtures

import mwork_lens as mw
from mwork_lens.cli.seen import warn_seen
from mwork_lens.corpora import load_corpora
from mwork_lens.storage import Run, content_hash, load, load_run, save

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
    made = load_run(tmp_path / "run" / "changes.parquet")["parameters"]
    assert (made["length"], made["batch"], made["accumulation"], made["draws"], made["epochs"]) == (512, 2, 1, 1, 1)
    assert made["trained"] == {"en": corpora["en"].split()[0].facts()}
    assert made["scored"] == {x: corpus.facts() for x, corpus in held.items()}
    assert made["neurons_hash"] == content_hash([list(neuron) for neuron in mw.load(neurons)["en"]])
    again = run(folder, texts, neurons, tmp_path / "run")
    refused(again, "holds this very run: pass resume=True (--resume)")
    resumed = run(folder, texts, neurons, tmp_path / "run", "--resume", "--export", tmp_path / "model")
    assert resumed.exit_code == 0, resumed.output
    assert f"{tmp_path / 'model'} (there already)" in "".join(resumed.output.splitlines())
    # a folder of somebody else's is refused before anything is trained, and one with another model is no export of this
    occupied = run(folder, texts, neurons, tmp_path / "new", "--export", tmp_path / "model")
    refused(occupied, "is not an empty folder: choose another")
    assert not (tmp_path / "new").exists()
    refused(
        run(folder, texts, neurons, tmp_path / "run", "--resume", "--export", folder),
        "is not an empty folder: choose another",
    )


def test_held_out_texts_that_found_the_neurons_are_named(folder, texts, neurons, tmp_path):  # noqa: F811
    corpora, sets = load_corpora(texts), load(neurons)
    whole = {x: corpus.facts() for x, corpus in corpora.items()}
    trained = {x: corpus.split()[0] for x, corpus in corpora.items()}

    def warned(made, scored, within):
        path = tmp_path / "sets.safetensors"
        save(sets, path, made)
        with pytest.MonkeyPatch.context() as patched:
            said = []
            patched.setattr("mwork_lens.cli.seen.warn", said.append)
            warn_seen(path, scored, within)
        return said

    held = {x: corpus.split()[1] for x, corpus in corpora.items()}
    (said,) = warned(Run("plnd", {}, {}, {**whole, "fr": {"source": "other"}}), held, corpora)
    assert said.startswith("texts of en, de are among those the neurons were found on")
    assert not warned(Run("plnd", {}, {}, {x: c.facts() for x, c in trained.items()}), held, corpora)
    assert not warned(Run("study", {"held_out": 1 / 3}, {}, whole), held, corpora), (
        "those that a study left to be scored"
    )
    assert warned(Run("study", {"held_out": 1 / 6}, {}, whole), held, corpora)
    first = {x: corpus.chunks(3)[0].facts() for x, corpus in corpora.items()}
    assert warned(Run("plnd", {}, {}, first), held, corpora), "the first of them, as with --limit"
    # the command says so
    save(sets, tmp_path / "sets.safetensors", Run("plnd", {}, {}, whole))
    result = run(folder, texts, tmp_path / "sets.safetensors", tmp_path / "run", "--draws", 0, "--languages", "en")
    assert "texts of en are among those the neurons were found on" in result.output


def test_what_is_wrong_is_said_in_one_line(folder, texts, neurons, tmp_path):  # noqa: F811
    refused(
        call("enhance", neurons, "--language", "xx", "--model", folder, "--corpora", texts, "--out", tmp_path),
        "'xx' has no neurons in",
    )
    refused(run(folder, texts, neurons, tmp_path, "--part", "all"), "--part 'all': choose in, out or both")
    refused(run(folder, texts, neurons, tmp_path, "--languages", "de"), "no texts of 'en'")
    refused(run(folder, texts, neurons, tmp_path, "--rate", "0"), "rate=0.0: give a positive number")
