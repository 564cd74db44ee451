"""Mask files: the released format, without losing a language and without running code."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.masks import read_masks, write_masks
from mwork_lens.models import describe, fingerprint
from mwork_lens.neurons import NeuronSet

SHAPE = (2, 44)
UNITS = [(layer, unit) for layer in range(2) for unit in range(44)]


def neurons(*units, site="ffn", shape=SHAPE, model=None):
    return NeuronSet.of([(site, layer, unit) for layer, unit in units], {site: shape}, model=model)


def released(path, *languages):
    """A file as the released script writes it."""
    torch.save([[torch.tensor(units, dtype=torch.long) for units in layers] for layers in languages], path)
    return path


subsets = st.sets(st.sampled_from(UNITS), max_size=20)


@given(languages=st.lists(subsets, min_size=1, max_size=5))
def test_what_is_written_is_read(languages, tmp_path_factory):
    sets = {f"l{k}": neurons(*units, model="m") for k, units in enumerate(languages)}
    path = write_masks(sets, tmp_path_factory.mktemp("m") / "mask.pt")
    found = read_masks(path, SHAPE)
    assert list(found) == list(sets)
    assert found == sets
    assert {part.model for part in found.values()} == {"m"}


def test_the_file_is_the_released_format(tmp_path):
    """Plain lists of lists of sorted int64 tensors; empty languages are written in the middle and at the end."""
    sets = {"en": neurons((0, 7), (0, 3), (1, 43)), "de": neurons(), "fr": neurons((1, 0)), "zh": neurons()}
    path = write_masks(sets, tmp_path / "mask.pt")
    raw = torch.load(path, weights_only=True)
    assert [[units.tolist() for units in layers] for layers in raw] == [[[3, 7], [43]], [[], []], [[], [0]], [[], []]]
    assert {units.dtype for layers in raw for units in layers} == {torch.int64}
    assert type(raw) is list


def test_the_sidecar_says_whose_it_is(llama, tmp_path):
    sets = {"en": neurons((0, 7), model=fingerprint(llama)), "de": neurons()}
    path = write_masks(sets, tmp_path / "mask.pt", llama)
    sidecar = json.loads((tmp_path / "mask.pt.json").read_text())
    assert sidecar["languages"] == ["en", "de"]
    assert (sidecar["k"], sidecar["layers"], sidecar["width"], sidecar["site"]) == (2, 2, 44, "ffn")
    facts = describe(llama)
    assert (sidecar["model"], sidecar["revision"], sidecar["fingerprint"]) == (
        facts["name"],
        None,
        facts["fingerprint"],
    )
    found = read_masks(path, llama)
    assert found == sets
    assert found["en"].model == fingerprint(llama)
    assert write_masks(sets, tmp_path / "other.pt", facts).read_bytes() == path.read_bytes()
    assert (tmp_path / "other.pt.json").read_text() == (tmp_path / "mask.pt.json").read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mask.pt", "mask.pt.json", "other.pt", "other.pt.json"]


def test_a_released_file_is_read_by_the_names_given(llama, tmp_path):
    path = released(tmp_path / "Llama", [[1, 5], []], [[], []], [[43], [0]])
    found = read_masks(path, llama, languages=["en", "zh", "fr"])
    assert found == {"en": neurons((0, 1), (0, 5)), "zh": neurons(), "fr": neurons((0, 43), (1, 0))}
    assert {part.model for part in found.values()} == {None}  # nobody said
    assert found["zh"].shapes == {"ffn": SHAPE}


def test_other_sites_and_integers_are_read(tmp_path):
    sets = {"en": neurons((1, 2), site="z", shape=(2, 9))}
    assert read_masks(write_masks(sets, tmp_path / "z.pt"), (2, 9)) == sets
    torch.save([[torch.tensor([4, 1], dtype=torch.int32), torch.tensor([])]], tmp_path / "old")
    assert read_masks(tmp_path / "old", SHAPE, languages=["en"]) == {"en": neurons((0, 4), (0, 1))}


# --- lists and languages ---


def test_fewer_lists_than_languages_are_refused(tmp_path):
    """The released script drops languages without units from the end."""
    path = released(tmp_path / "mask", [[1], []], [[2], []])
    with pytest.raises(
        ValueError,
        match=r"holds 2 lists and 3 languages were named \(en, de, ja\): the released script drops .* the first 2 only",
    ):
        read_masks(path, SHAPE, languages=["en", "de", "ja"])


def test_more_lists_than_languages_are_refused(tmp_path):
    path = released(tmp_path / "mask", [[1], []], [[2], []])
    with pytest.raises(ValueError, match=r"holds 2 lists and 1 languages were named \(en\): name all, in order"):
        read_masks(path, SHAPE, languages=["en"])


def test_nameless_files_need_names(tmp_path):
    path = released(tmp_path / "mask", [[1], []], [[2], []])
    with pytest.raises(
        ValueError, match=r"holds 2 lists and names no languages: pass languages=\[...\] in the order of the file"
    ):
        read_masks(path, SHAPE)
    with pytest.raises(ValueError, match="a language is named twice in en, en: name each once"):
        read_masks(path, SHAPE, languages=["en", "en"])


def test_names_must_agree_with_the_sidecar(tmp_path):
    path = write_masks({"en": neurons((0, 1)), "de": neurons()}, tmp_path / "mask.pt")
    assert list(read_masks(path, SHAPE, languages=["en", "de"])) == ["en", "de"]
    for wrong in (["de", "en"], ["en"], ["en", "de", "fr"]):
        with pytest.raises(ValueError, match=r"has the languages en, de, not .*: leave languages out"):
            read_masks(path, SHAPE, languages=wrong)


# --- other models ---


def test_a_mask_of_another_shape_is_refused(llama, tmp_path):
    deep = released(tmp_path / "deep", [[1], [], []])
    with pytest.raises(ValueError, match="has 3 layers for 'en', and this model has 2: it was made for another model"):
        read_masks(deep, llama, languages=["en"])
    wide = released(tmp_path / "wide", [[1], [3, 44]])
    with pytest.raises(
        ValueError,
        match=r"names unit 44 in layer 1 of 'en', and this model has units 0..43: it was made for another model",
    ):
        read_masks(wide, llama, languages=["en"])
    negative = released(tmp_path / "negative", [[-1, 3], []])
    with pytest.raises(ValueError, match="names unit -1 in layer 0 of 'en'"):
        read_masks(negative, llama, languages=["en"])
    path = write_masks({"en": neurons((0, 1))}, tmp_path / "mask.pt")
    with pytest.raises(
        ValueError, match="is a mask of 2 layers of 44 units, and this model has 2 of 45: it was made for another model"
    ):
        read_masks(path, (2, 45))


def test_a_mask_of_another_model_of_the_same_shape_is_refused(llama, tmp_path):
    path = write_masks({"en": neurons((0, 1), model="other")}, tmp_path / "mask.pt", {"name": "org/other"})
    with pytest.raises(
        ValueError,
        match=r"is a mask of model org/other \(other\), not of this one .* pass the shape \(2, 44\) instead of the model",
    ):
        read_masks(path, llama)
    assert read_masks(path, SHAPE)["en"].model == "other"


def test_sets_are_written_for_the_model_they_were_found_on(llama, tmp_path):
    with pytest.raises(
        ValueError, match=r"the sets were found on model other, not on .*: pass the model they were found on"
    ):
        write_masks({"en": neurons((0, 1), model="other")}, tmp_path / "mask.pt", llama)
    with pytest.raises(ValueError, match="neuron sets of different models do not combine: a and b"):
        write_masks({"en": neurons(model="a"), "de": neurons(model="b")}, tmp_path / "mask.pt")
    with pytest.raises(ValueError, match="neuron sets differ in site 'ffn'"):
        write_masks({"en": neurons(), "de": neurons(shape=(2, 45))}, tmp_path / "mask.pt")
    assert not list(tmp_path.iterdir())


def test_one_site_and_at_least_one_language(tmp_path):
    with pytest.raises(ValueError, match="no language to write"):
        write_masks({}, tmp_path / "mask.pt")
    both = neurons((0, 1)) | neurons((0, 1), site="z")
    with pytest.raises(
        ValueError, match=r"one list of units per layer, and these sets have z, ffn: write .only\(sites=\[...\]\)"
    ):
        write_masks({"en": both}, tmp_path / "mask.pt")
    path = write_masks({"en": both.only(sites=["z"])}, tmp_path / "mask.pt")  # an empty second site is none
    assert read_masks(path, SHAPE) == {"en": neurons((0, 1), site="z")}


# --- foreign and hostile files ---


class Payload:
    """Runs code when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path):
    proof = tmp_path / "proof"
    torch.save([[Payload(proof)]], tmp_path / "bad")
    with pytest.raises(
        ValueError, match=r"was not read: .* holds more than tensors and lists, which is never executed"
    ):
        read_masks(tmp_path / "bad", SHAPE, languages=["en"])
    assert not proof.exists()
    with torch.load(tmp_path / "bad", weights_only=False)[0][0]:  # the control: it does run where code is allowed
        assert proof.exists()


def test_files_that_are_no_masks_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no mask file .*absent: check the path"):
        read_masks(tmp_path / "absent", SHAPE)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="text was not read: it is truncated, no torch file"):
        read_masks(tmp_path / "text", SHAPE, languages=["en"])
    whole = released(tmp_path / "whole", [[1], [2]]).read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="half was not read: it is truncated"):
        read_masks(tmp_path / "half", SHAPE, languages=["en"])
    for value, message in [
        ({"a": torch.ones(2)}, "holds dict, not a list over languages of lists over layers"),
        ([torch.tensor([1])], "holds list, not a list over languages of lists over layers"),
        ([[torch.ones(2), torch.ones(2)]], r"list 0, layer 0 is torch.float32 \[2\], not a vector of unit indices"),
        ([[[1, 2], [3]]], "list 0, layer 0 is list, not a vector of unit indices"),
        ([[torch.ones(44, dtype=torch.bool)] * 2], "torch.bool"),
        ([[torch.tensor([1]), torch.tensor([3, 3])]], "list 0, layer 1 names a unit twice: the file is damaged"),
    ]:
        torch.save(value, tmp_path / "wrong")
        with pytest.raises(ValueError, match=message):
            read_masks(tmp_path / "wrong", SHAPE, languages=["en"])


def test_a_sidecar_that_does_not_belong_is_refused(tmp_path):
    path = write_masks({"en": neurons((0, 1))}, tmp_path / "mask.pt")
    released(path, [[2], []])
    with pytest.raises(ValueError, match=r"mask.pt.json belongs to another mask than .*mask.pt: write both again"):
        read_masks(path, SHAPE)
    for text in ("{", "[]", "{}", '{"format": "mwork_lens/mask/1"}'):
        (tmp_path / "mask.pt.json").write_text(text)
        with pytest.raises(ValueError, match=r"mask.pt.json was not written by mwork_lens"):
            read_masks(path, SHAPE)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_masks({"en": neurons((0, 1))}, tmp_path / "mask.pt")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*mask.pt: no space is left on the disk"):
        write_masks({"en": neurons((0, 2))}, path)
    assert path.read_bytes() == before
    assert read_masks(path, SHAPE) == {"en": neurons((0, 1))}
