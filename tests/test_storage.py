"""Files: the old one, the new one or none; and nothing of anybody else's."""

import errno
import json
import os
import pickle  # noqa: TID251  # to make files that must not be unpickled
import stat

import pandas as pd
import pytest
import safetensors.torch
import torch

from mwork_lens import storage
from mwork_lens.neurons import NeuronSet
from mwork_lens.stats import Importances, Moments
from mwork_lens.storage import (
    Run,
    content_hash,
    load,
    load_run,
    remove_leftovers,
    save,
    versions,
    write_atomically,
    write_json,
)

NEURONS = NeuronSet.of([("ffn", 0, 1), ("ffn", 1, 2)], {"ffn": (2, 3)})
MOMENTS = Moments(
    torch.tensor(4),
    *({"ffn": torch.full((2, 3), 2, dtype=kind)} for kind in (torch.int64, *3 * (torch.float64,))),
)
RUN = Run("plnd", {"top": 0.01, "sites": ("ffn",)}, {"name": "m"}, {"de": {"documents": 3}}, seed=7)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "value",
    [NEURONS, {"de": NEURONS}, MOMENTS, {"de": MOMENTS, "en": MOMENTS}],
    ids=["set", "sets", "moments", "several"],
)
def test_a_file_holds_the_value_and_its_run(value, tmp_path):
    path = save(value, tmp_path / "deep" / "er" / "x.safetensors", RUN)
    back = load(path)

    def members(v):
        return v if isinstance(v, dict) else {"": v}

    for name, member in members(value).items():
        mine, yours = member.to_tensors(), members(back)[name].to_tensors()
        assert mine[0].keys() == yours[0].keys()
        assert all(
            torch.equal(mine[0][key], yours[0][key]) and mine[0][key].dtype == yours[0][key].dtype for key in mine[0]
        )
    run = load_run(path)
    assert run == json.loads(json.dumps(RUN.to_json()))
    assert (run["method"], run["parameters"], run["seed"]) == ("plnd", {"top": 0.01, "sites": ["ffn"]}, 7)
    assert run["versions"].keys() >= {"python", "torch", "transformer-lens", "transformers"}
    assert names(path.parent) == ["x.safetensors"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_table_and_its_run(tmp_path):
    table = pd.DataFrame({"language": ["de", "中"], "layer": [0, 1], "share": [0.25, float("nan")]})
    path = save(table, tmp_path / "t.parquet", RUN)
    pd.testing.assert_frame_equal(load(path), table)
    assert load_run(path) == RUN.to_json()
    pd.testing.assert_frame_equal(pd.read_parquet(path), table)  # other tools read it too
    table.to_parquet(tmp_path / "foreign.parquet")
    assert load_run(tmp_path / "foreign.parquet") == {}


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), OSError("no errno")])
def test_an_exception_while_writing_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def write(temporary):
        temporary.write_text("half of")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert names(tmp_path) == ["a.json"]
    assert json.loads(path.read_text()) == {"old": 1}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_and_the_old_file_stays(error, tmp_path, monkeypatch):
    path = save(NEURONS, tmp_path / "x.safetensors", RUN)

    def full(tensors, temporary, metadata):
        temporary.write_bytes(b"half")
        raise error

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(
        OSError, match=r"cannot write .*x.safetensors: no space is left on the disk; what was finished before is kept"
    ) as caught:
        save(~NEURONS, path, RUN)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == ["x.safetensors"]
    assert load(path) == NEURONS


def test_a_failing_rename_is_told(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(
        OSError,
        match=r"cannot write .*x.json: Permission denied; what was finished before is kept - make room or choose",
    ):
        write_json(tmp_path / "x.json", 1)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/x.json"):
        write_json(tmp_path / "file" / "x.json", 1)


@pytest.mark.parametrize("keep", [0, 3, 60, -1])
def test_a_truncated_file_is_refused(keep, tmp_path):
    path = save(NEURONS, tmp_path / "x.safetensors", RUN)
    path.write_bytes(path.read_bytes()[:keep])
    for read in (load, load_run):
        with pytest.raises(
            ValueError, match=r"x.safetensors is truncated or not a safetensors file .*: delete it and run again"
        ):
            read(path)


def test_a_truncated_table_is_refused(tmp_path):
    path = save(pd.DataFrame({"a": [1]}), tmp_path / "t.parquet", RUN)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"t.parquet is not a readable parquet table"):
        load(path)


def test_foreign_safetensors_are_refused(tmp_path):
    tensors = {"ffn": torch.zeros(2)}
    metadata = [None, {"mwork_lens": "{}"}, {"mwork_lens": json.dumps({"format": "mwork_lens/0", "kind": "NeuronSet"})}]
    metadata.append({"mwork_lens": json.dumps({"format": "mwork_lens/1", "kind": "os.system"})})
    for facts in metadata:
        safetensors.torch.save_file(tensors, tmp_path / "x.safetensors", metadata=facts)
        for read in (load, load_run):
            with pytest.raises(ValueError, match=r"x.safetensors was not written by mwork_lens \(mwork_lens/1\)"):
                read(tmp_path / "x.safetensors")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("ending", [".safetensors", ".parquet", ".pt"])
def test_nothing_is_unpickled(ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"x{ending}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="truncated"):
        load(path)
    assert not (tmp_path / "exploded").exists()
    torch.save({"x": Bomb()}, path)
    with pytest.raises(ValueError, match="truncated"):
        load(path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))  # negative control: the bomb works
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.parquet"])
def test_a_missing_file_is_named(name, tmp_path):
    for read in (load, load_run):
        with pytest.raises(FileNotFoundError, match=f"no file .*{name}: check the path"):
            read(tmp_path / name)


def test_endings_and_kinds_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"a value is stored as .safetensors: rename 'x.pt' to 'x.safetensors'"):
        save(NEURONS, tmp_path / "x.pt", RUN)
    with pytest.raises(ValueError, match=r"a table is stored as .parquet: rename 'x.csv' to 'x.parquet'"):
        save(pd.DataFrame(), tmp_path / "x.csv", RUN)
    with pytest.raises(ValueError, match=r"values of one kind, got \['Moments', 'NeuronSet'\]"):
        save({"a": NEURONS, "b": MOMENTS}, tmp_path / "x.safetensors", RUN)
    with pytest.raises(TypeError, match="no file format for list: save takes NeuronSet, Moments, DocumentMoments"):
        save([1], tmp_path / "x.safetensors", RUN)
    with pytest.raises(ValueError, match=r"the name 'a\|b' contains '\|'"):
        save({"a|b": NEURONS}, tmp_path / "x.safetensors", RUN)
    assert names(tmp_path) == []


def test_hashes_differ_exactly_when_values_do():
    same = [content_hash({"a": 1, "b": 2}, b"x"), content_hash({"b": 2, "a": 1}, b"x")]
    assert same[0] == same[1]
    others = [
        content_hash("ab", "c"),
        content_hash("a", "bc"),
        content_hash(["a", "bc"]),
        content_hash("é"),
        content_hash("e\u0301"),
        content_hash(b"a"),
        content_hash(),
    ]
    assert len({same[0], *others}) == 1 + len(others)


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    for name in (".x.safetensors.abc.tmp", "x.safetensors", "notes.tmp", ".hidden"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "notes.tmp", "x.safetensors"]


def test_provenance_outside_git_and_without_a_package(monkeypatch, tmp_path):
    assert set(versions()) >= {"mwork-lens", "numpy"}
    monkeypatch.setattr(storage, "__file__", str(tmp_path / "mwork_lens" / "storage.py"))
    assert storage.git_commit.__wrapped__() is None
    missing = storage.metadata.PackageNotFoundError

    def absent(name):
        raise missing(name)

    monkeypatch.setattr(storage.metadata, "version", absent)
    assert storage.versions.__wrapped__()["torch"] == "not installed"


def test_importances_round_trip(tmp_path):
    value = Importances.of_document({"ffn": torch.arange(8.0).reshape(2, 4)}, {"ffn": 0.25})
    back = load(save({"de": value}, tmp_path / "x.safetensors", RUN))["de"]
    for group in ("minimum", "total", "hits"):
        assert torch.equal(getattr(back, group)["ffn"], getattr(value, group)["ffn"])
    assert back.documents == 1
