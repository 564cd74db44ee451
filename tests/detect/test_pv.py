"""PV reads the weights of each unit from checkpoints of any layout, and finds units that were left alone."""

import json

import families
import pytest
import torch
from conftest import pair
from hypothesis import given
from hypothesis import strategies as st
from planted import units
from safetensors.torch import save_file

from mwork_lens.detect.lape import effective_languages, language_entropy, select
from mwork_lens.detect.pv import change_rates, pv, stillness
from mwork_lens.models import fingerprint, load_model

PLANTED = {"en": [(0, 3), (1, 40)], "de": [(0, 21), (1, 5)], "zh": [(0, 30), (1, 43)]}

# one row a unit: how each layout keeps the FFN weights of layer i (the oracle)
ROWS = {
    "llama": lambda w, i: [
        w[f"model.layers.{i}.mlp.gate_proj.weight"],
        w[f"model.layers.{i}.mlp.up_proj.weight"],
        w[f"model.layers.{i}.mlp.down_proj.weight"].T,
    ],
    "phi3": lambda w, i: [
        *w[f"model.layers.{i}.mlp.gate_up_proj.weight"].chunk(2),
        w[f"model.layers.{i}.mlp.down_proj.weight"].T,
    ],
    "gpt2": lambda w, i: [w[f"transformer.h.{i}.mlp.c_fc.weight"].T, w[f"transformer.h.{i}.mlp.c_proj.weight"]],
    "bloom": lambda w, i: [
        w[f"transformer.h.{i}.mlp.dense_h_to_4h.weight"],
        w[f"transformer.h.{i}.mlp.dense_4h_to_h.weight"].T,
    ],
    "xglm": lambda w, i: [w[f"model.layers.{i}.fc1.weight"], w[f"model.layers.{i}.fc2.weight"].T],
}


def weights(family):
    """The plain Hugging Face state dict, to be changed at will."""
    return {name: tensor.clone() for name, tensor in pair(family)[1].state_dict().items()}


def tuned(before, seed, size=0.1):
    """Every weight moved at random."""
    generator = torch.Generator().manual_seed(
        1000 + seed
    )  # not the model's own stream: that would scale every weight alike
    return {name: tensor + size * torch.randn(tensor.shape, generator=generator) for name, tensor in before.items()}


def tunings(*, planted=True):
    """Per language (before, after); the planted units of a language move a hundredth as far."""
    before = weights("llama")
    made = {}
    for seed, (language, left_alone) in enumerate(PLANTED.items()):
        after = tuned(before, seed, size=0.1 * (seed + 1))  # longer tuning moves everything more
        for layer, unit in left_alone if planted else ():
            for new, old in zip(ROWS["llama"](after, layer), ROWS["llama"](before, layer), strict=True):
                new[unit] = old[unit] + 0.01 * (new[unit] - old[unit])
        made[language] = (before, after)
    return made


@pytest.mark.parametrize("family", ROWS)
def test_change_rates_are_those_of_the_units_rows(family):
    before, model = weights(family), pair(family)[0]
    after = tuned(before, 0)
    found = change_rates(model, before, after)
    for layer in range(2):
        old, new = (torch.cat(ROWS[family](w, layer), dim=1).double() for w in (before, after))
        torch.testing.assert_close(found[layer], (new - old).norm(dim=1) / old.norm(dim=1), rtol=1e-6, atol=0)
    assert (change_rates(model, before, before) == 0).all()


def test_only_the_units_own_weights_count():
    before, model = weights("llama"), pair("llama")[0]
    after = {name: tensor.clone() for name, tensor in before.items()}
    after["model.layers.1.mlp.down_proj.weight"][:, 7] *= 2
    after["model.layers.0.self_attn.q_proj.weight"] += 1
    found = change_rates(model, before, after)
    assert found.nonzero().tolist() == [[1, 7]]
    rows = torch.cat(ROWS["llama"](before, 1), dim=1)[7]
    down = before["model.layers.1.mlp.down_proj.weight"][:, 7]
    assert found[1, 7].item() == pytest.approx((down.norm() / rows.norm()).item(), rel=1e-6)


def test_planted_neurons_are_found_exactly(llama):
    sets = pv(llama, tunings(), rate=6 / 88, filter_rate=0.977, bar_rate=0.977)
    assert units(sets) == PLANTED
    assert {neurons.model for neurons in sets.values()} == {fingerprint(llama)}
    assert sets["en"].shapes == {"ffn": (2, 44)}


def test_without_planted_neurons_nothing_is_specific(llama):
    """PV always selects its share; when every weight moves alike, what it selects is as still in all languages."""
    spread = {}
    for planted in (True, False):
        still = stillness({name: change_rates(llama, *both) for name, both in tunings(planted=planted).items()})
        found = select(still, language_entropy(still), rate=6 / 88, filter_rate=0.9, bar_rate=0.9)
        spread[planted] = effective_languages(found.score[found.chosen])
    assert spread[True].max() < 1.2
    assert spread[False].min() > 2.9


@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.25, 2.0, 8.0]))
def test_a_longer_tuning_of_one_language_changes_nothing(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    changes = {name: torch.rand(2, 9, generator=generator, dtype=torch.double) + 0.1 for name in PLANTED}
    assert torch.equal(stillness(changes), stillness({**changes, "de": scale * changes["de"]}))


def test_stillness_of_the_median_is_one_and_extremes_are_finite():
    change = torch.tensor([[0.0, 0.5, 1.0, 2.0, torch.inf]])
    still = stillness({"en": change, "de": torch.ones(1, 5)})
    assert still[0, :, 0].tolist() == pytest.approx(
        [1e6, 1, 0.5, 0.25, 0]
    )  # the median of the finite four: the lower, 0.5
    assert (still[..., 1] == 1).all()


def test_a_unit_without_weights_is_never_selected():
    hf = families.hf_model("llama")
    with torch.no_grad():
        for rows in ROWS["llama"](dict(hf.named_parameters()), 0):
            rows[11] = 0
    before = {name: tensor.clone() for name, tensor in hf.state_dict().items()}
    model = load_model(hf, tokenizer=families.tokenizer())
    made = {name: (before, tuned(before, seed)) for seed, name in enumerate(PLANTED)}
    rates = {name: change_rates(model, *both) for name, both in made.items()}
    assert all(rate[0, 11] == torch.inf for rate in rates.values())
    assert not any((0, 11) in found for found in units(pv(model, made, rate=0.5, filter_rate=0.01)).values())


def test_before_must_be_the_model(llama):
    before = weights("llama")
    with pytest.raises(
        ValueError, match="W_gate of layer 0 in the state dict is not this model's: `before` must be the model itself"
    ):
        change_rates(llama, tuned(before, 5), tuned(before, 6))
    half = {name: tensor.bfloat16() for name, tensor in before.items()}  # the same, saved in another precision
    assert torch.isfinite(change_rates(llama, half, tuned(before, 6))).all()


# --- from disk ---


def test_every_layout_on_disk_reads_the_same(llama, tmp_path):
    before = weights("llama")
    after = tuned(before, 0)
    expected = change_rates(llama, before, after)
    assert expected.min() > 0
    save_file(before, tmp_path / "before.safetensors")
    folder, sharded = tmp_path / "folder", tmp_path / "sharded"
    folder.mkdir()
    sharded.mkdir()
    save_file(after, folder / "model.safetensors")
    names = sorted(after)
    parts = {"model-1.safetensors": names[: len(names) // 2], "model-2.safetensors": names[len(names) // 2 :]}
    for file, held in parts.items():
        save_file({name: after[name] for name in held}, sharded / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    for source in (folder, sharded, sharded / "model.safetensors.index.json", str(folder / "model.safetensors")):
        assert torch.equal(change_rates(llama, tmp_path / "before.safetensors", source), expected)


def test_other_names_of_the_same_weights(llama):
    before = weights("llama")
    after = tuned(before, 0)
    expected = change_rates(llama, before, after)
    base = {name.removeprefix("model."): tensor for name, tensor in after.items()}
    assert torch.equal(change_rates(llama, before, base), expected)
    bridge = {name: tensor.detach() for name, tensor in llama.original_model.state_dict().items()}
    assert any("_original_component" in name for name in bridge)
    assert torch.equal(change_rates(llama, bridge, after), expected)


@pytest.mark.parametrize("family", ROWS)
def test_tensors_that_are_views_of_one_storage_read_the_same(family):
    before, model = weights(family), pair(family)[0]
    after = tuned(before, 0)
    storage = torch.cat([torch.zeros(5), *(tensor.flatten() for tensor in after.values())])
    sizes = [5, *(tensor.numel() for tensor in after.values())]
    parts = storage.split(sizes)[1:]
    views = {name: part.view(after[name].shape) for name, part in zip(after, parts, strict=True)}
    assert torch.equal(change_rates(model, before, views), change_rates(model, before, after))


def test_half_precision_is_compared_in_single(llama):
    before = {name: tensor.bfloat16() for name, tensor in weights("llama").items()}
    after = {name: tensor.bfloat16() for name, tensor in tuned(before, 0).items()}
    single = [{name: tensor.float() for name, tensor in w.items()} for w in (before, after)]
    assert torch.equal(change_rates(llama, before, after), change_rates(llama, *single))


# --- refusals ---


def test_one_language_is_refused(llama):
    before = weights("llama")
    with pytest.raises(ValueError, match="PV compares languages and got en"):
        pv(llama, {"en": (before, before)})


def test_a_checkpoint_that_did_not_change_is_refused(llama):
    made = tunings()
    with pytest.raises(
        ValueError, match="half of the FFN units or more did not change in 'de': before and after must be"
    ):
        pv(llama, {**made, "de": (made["de"][0], made["de"][0])})


def test_a_checkpoint_of_something_else_is_refused(llama):
    before = weights("llama")
    lacking = {name: tensor for name, tensor in before.items() if "layers.1.mlp" not in name}
    with pytest.raises(
        ValueError,
        match=r"the state dict has no model.layers.1.mlp.gate_proj.weight, but lm_head.weight, .*merge adapters first",
    ):
        change_rates(llama, before, lacking)
    with pytest.raises(ValueError, match=r"the state dict has no .*, but nothing: give the whole model"):
        change_rates(llama, {}, before)
    name = "model.layers.0.mlp.gate_proj.weight"
    with pytest.raises(ValueError, match=rf"{name} is \[43, 32\] in the state dict and \[44, 32\] in the model"):
        change_rates(llama, {**before, name: before[name][:43]}, before)
    spoiled = {**before, name: before[name] / 0}
    with pytest.raises(
        ValueError, match="layer 0 of the state dict or the state dict holds nan or infinity in its FFN weights"
    ):
        change_rates(llama, before, spoiled)


def test_files_that_are_not_there_or_not_safetensors_are_refused(llama, tmp_path):
    before = weights("llama")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*absent.safetensors: check the path"):
        change_rates(llama, tmp_path / "absent.safetensors", before)
    with pytest.raises(
        FileNotFoundError, match=r"holds no .safetensors file: save the checkpoint with save_pretrained"
    ):
        change_rates(llama, tmp_path, before)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"pytorch_model.bin is no .safetensors file: pickled checkpoints are not read; convert it"
    ):
        change_rates(llama, tmp_path / "pytorch_model.bin", before)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ValueError, match=r"model.safetensors is truncated or not a safetensors file"):
        change_rates(llama, tmp_path, before)


def test_weights_that_are_no_views_are_refused(llama, monkeypatch):
    from mwork_lens.detect import pv as module

    monkeypatch.setattr(module, "weight", lambda *_: {"W_up": torch.ones(44, 32)})
    before = weights("llama")
    with pytest.raises(NotImplementedError, match="W_up of layer 0 is not a view of a parameter in memory"):
        change_rates(llama, before, before)
