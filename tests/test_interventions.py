"""Edits against Hugging Face models that are really changed: weights zeroed, inputs of a projection overwritten."""

from contextlib import contextmanager

import oracles
import pytest
import torch
from conftest import document, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mwork_lens.corpora import Tokens
from mwork_lens.edits import Edit, applied
from mwork_lens.interventions import deactivate, patch, record, scale, set_to, zero
from mwork_lens.models import fingerprint
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import NEURON_SITES, shape_of

IDS = document(11)


def some(model, seed, *, share=0.3, sites=NEURON_SITES):
    """A random set of neurons, stamped with the model."""
    generator = torch.Generator().manual_seed(seed)
    masks = {site: torch.rand(shape, generator=generator) < share for site, shape in shape_of(model, sites).items()}
    return NeuronSet(masks, model=fingerprint(model))


def run(model, ids=IDS):
    with torch.no_grad():
        return model(ids)


def reference(plain, ids=IDS):
    with torch.no_grad():
        return plain(ids).logits


def gap(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


def weights_of(neurons, plain):
    return [place for site, layer, unit in neurons for place in oracles.slices(plain, site, layer, unit)]


def bits(model):
    return {name: parameter.clone() for name, parameter in model.named_parameters()}


def same_bits(model, before):
    return all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@contextmanager
def overwritten(plain, neurons, change):
    """Change the units of z and ffn where the plain model's output projections read them."""
    handles = []
    for site, find in (("z", oracles.o_projection), ("ffn", oracles.down_projection)):
        for layer in range(neurons.n_layers):
            units = [u for s, at, u in neurons if s == site and at == layer]

            def before(module, args, units=units, site=site, layer=layer):
                x = args[0].clone()
                for unit in units:
                    x[..., unit] = change(x[..., unit], site, layer, unit)
                return (x, *args[1:])

            handles.append(find(plain, layer).register_forward_pre_hook(before))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# --- zero


def test_zero_is_zeroing_the_weights(any_family):
    _, model, plain = any_family
    before = run(model)
    for sites in (NEURON_SITES, *((site,) for site in NEURON_SITES)):
        neurons = some(model, 1, sites=sites)
        with oracles.zeroed(weights_of(neurons, plain)):
            expected = reference(plain)
        with applied(model, zero(neurons)):
            found = run(model)
        assert gap(found, expected) < 1e-4, sites
        # negative controls: it is not the unchanged model, nor that with other neurons off
        assert gap(found, before) > 1e-3, sites
        with deactivate(model, some(model, 2, sites=sites)):
            assert gap(run(model), expected) > 1e-3, sites
    assert gap(reference(plain), before) < 1e-4


def test_afterwards_the_model_is_as_before(any_family):
    _, model, _ = any_family
    before, weights = run(model), bits(model)
    with deactivate(model, some(model, 0)):
        assert not torch.equal(run(model), before)
    assert torch.equal(run(model), before)
    with pytest.raises(ArithmeticError, match="in the body"), deactivate(model, some(model, 0)):
        raise ArithmeticError("in the body")  # its own error, not the complaint that the edit never fired
    assert torch.equal(run(model), before)
    assert same_bits(model, weights)


@settings(max_examples=6)
@given(a=st.integers(0, 10**6), b=st.integers(0, 10**6), share=st.floats(0.02, 0.9))
def test_switching_off_two_sets_is_switching_off_their_union(a, b, share):
    model, plain = pair("llama")
    x, y = some(model, a, share=share), some(model, b, share=share)
    if not x or not y:
        return
    with deactivate(model, x | y):
        union = run(model)
    with deactivate(model, x), deactivate(model, y):
        assert torch.equal(run(model), union)
    with applied(model, zero(y), zero(x)):
        assert torch.equal(run(model), union)
    with oracles.zeroed(weights_of(x | y, plain)):
        assert gap(union, reference(plain)) < 1e-4


def test_padded_batches_are_edited_in_every_row(llama):
    plain = pair("llama")[1]
    neurons = some(llama, 3)
    rows = [document(9, seed=1)[0], document(5, seed=2)[0]]
    ids, mask = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    with torch.no_grad(), deactivate(llama, neurons):
        found = llama(ids, attention_mask=mask.long())
    with oracles.zeroed(weights_of(neurons, plain)):
        for i, row in enumerate(rows):
            assert gap(found[i, : len(row)], reference(plain, row[None])[0]) < 1e-4


# --- scale, set_to


@pytest.mark.parametrize("by", [-1.5, 3.0])
def test_scale_is_scaling_what_the_projection_reads(any_family, by):
    _, model, plain = any_family
    neurons = some(model, 4, sites=("z", "ffn"))
    with overwritten(plain, neurons, lambda x, *_: x * by):
        expected = reference(plain)
    with applied(model, scale(neurons, by)):
        assert gap(run(model), expected) < 1e-4
    assert gap(run(model), expected) > 1e-3


def test_scale_by_one_is_nothing_and_by_zero_is_zero(llama):
    neurons, before = some(llama, 5), run(llama)
    with applied(llama, scale(neurons, 1.0)):
        assert torch.equal(run(llama), before)
    with deactivate(llama, neurons):
        off = run(llama)
    with applied(llama, scale(neurons, 0.0)):
        assert torch.equal(run(llama), off)
    assert not torch.equal(off, before)


def test_set_to_mean_values(any_family):
    _, model, plain = any_family
    neurons = some(model, 6, sites=("z", "ffn"))
    seen = record(model, document(9, seed=9), ("z", "ffn"))
    means = {site: torch.stack([seen[site, layer][0].mean(0) for layer in range(2)]) for site in ("z", "ffn")}
    with overwritten(plain, neurons, lambda x, site, layer, unit: torch.full_like(x, means[site][layer, unit].item())):
        expected = reference(plain)
    with applied(model, set_to(neurons, means)):
        assert gap(run(model), expected) < 1e-4
        inside = record(model, IDS, ("ffn",))
    assert gap(run(model), expected) > 1e-3
    outside = record(model, IDS, ("ffn",), layers=[0])
    for unit in range(neurons.shapes["ffn"][1]):
        if ("ffn", 0, unit) in neurons:
            assert (inside["ffn", 0][..., unit] == means["ffn"][0, unit]).all()
        elif "z" not in neurons.sites:
            assert torch.equal(inside["ffn", 0][..., unit], outside["ffn", 0][..., unit])


def test_set_to_one_number(llama):
    neurons = some(llama, 7, sites=("k", "ffn"))
    with applied(llama, set_to(neurons, 0.0)):
        zeroed = run(llama)
    with deactivate(llama, neurons):
        assert torch.equal(run(llama), zeroed)
    with applied(llama, set_to(neurons, 0.7)):
        for site in ("k", "ffn"):
            for layer, x in ((layer, record(llama, IDS, (site,))[site, layer]) for layer in range(2)):
                mask = neurons.masks[site][layer]
                assert (x[..., mask] == 0.7).all()
                assert not (x[..., ~mask] == 0.7).any()


def test_later_edits_see_what_earlier_ones_made(llama):
    neurons = some(llama, 8, sites=("v", "ffn"))

    def logits(*edits):
        with applied(llama, *edits):
            return run(llama)

    two, six = logits(set_to(neurons, 2.0)), logits(set_to(neurons, 6.0))
    assert torch.equal(logits(scale(neurons, 3.0), set_to(neurons, 2.0)), two)
    assert torch.equal(logits(set_to(neurons, 2.0), scale(neurons, 3.0)), six)
    with applied(llama, set_to(neurons, 2.0)), applied(llama, scale(neurons, 3.0)):
        assert torch.equal(run(llama), six)
    with applied(llama, scale(neurons, 3.0)), deactivate(llama, neurons):
        inner = run(llama)
    assert torch.equal(inner, logits(zero(neurons)))
    assert not torch.equal(two, six)


# --- patch and record


def test_patching_the_first_stream_reproduces_the_other_run(any_family):
    _, model, _ = any_family
    other = document(11, seed=5)
    source = record(model, other, ("resid_pre",), layers=[0])
    assert list(source) == [("resid_pre", 0)]
    before, expected = run(model), run(model, other)
    with applied(model, patch(source)):
        found = run(model)
    assert gap(found, expected) < 1e-6
    assert gap(before, expected) > 1e-2


def test_patching_touches_the_chosen_units_only(llama):
    other = document(11, seed=5)
    source, mine = record(llama, other, ("ffn", "k")), record(llama, IDS, ("ffn", "k"))
    where = some(llama, 9, sites=("ffn",)).only(layers=[0])
    with applied(llama, patch(source, where)):
        now = record(llama, IDS, ("ffn", "k"))
    mask = where.masks["ffn"][0]
    assert torch.equal(now["ffn", 0][..., mask], source["ffn", 0][..., mask])
    assert torch.equal(now["ffn", 0][..., ~mask], mine["ffn", 0][..., ~mask])
    assert torch.equal(now["k", 0], mine["k", 0])
    assert not torch.equal(now["ffn", 1], mine["ffn", 1])  # downstream of the patch
    assert not torch.equal(source["ffn", 0][..., mask], mine["ffn", 0][..., mask])


def test_patching_all_units_equals_patching_without_where(llama):
    source = record(llama, document(11, seed=5), ("z",))
    everything = ~NeuronSet.empty(shape_of(llama, ("z",)))
    with applied(llama, patch(source)):
        expected = run(llama)
    with applied(llama, patch(source, everything)):
        assert torch.equal(run(llama), expected)


def test_a_patch_is_for_the_prompt_when_the_run_is_longer(llama):
    source = record(llama, document(6, seed=5), ("ffn",), layers=[1])
    with applied(llama, patch(source)):
        now = record(llama, IDS, ("ffn",), layers=[1])["ffn", 1]
    mine = record(llama, IDS, ("ffn",), layers=[1])["ffn", 1]
    assert torch.equal(now[:, :6], source["ffn", 1])
    assert torch.equal(now[:, 6:], mine[:, 6:])
    prompt = document(6, seed=1)
    full = record(llama, prompt, ("resid_pre",), layers=[0])
    plainly = llama.original_model.generate(prompt, max_new_tokens=3, do_sample=False, pad_token_id=0)
    with applied(llama, patch(full)):  # its own activations: nothing changes, in the prompt or after it
        again = llama.original_model.generate(prompt, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert torch.equal(plainly, again)


def test_record_copies(llama):
    kept = record(llama, Tokens(IDS, torch.ones_like(IDS, dtype=torch.bool)), ("q", "resid_post"))
    assert set(kept) == {(site, layer) for site in ("q", "resid_post") for layer in (0, 1)}
    assert kept["q", 0].shape == (1, 11, 32)
    edited = {place: x.clone() for place, x in kept.items()}
    with deactivate(llama, some(llama, 0)):
        run(llama)
    assert all(torch.equal(kept[place], edited[place]) for place in kept)


# --- any function


def test_a_pattern_can_be_written_where_the_model_reads_it(llama):
    silent = Edit({("pattern", layer): torch.zeros_like for layer in (0, 1)})
    with applied(llama, silent):
        found = run(llama)
    with applied(llama, zero(~NeuronSet.empty(shape_of(llama, ("z",))))):
        assert torch.equal(run(llama), found)


def test_an_edit_is_a_mapping():
    change = torch.zeros_like
    edit = Edit({("ffn", 1): change}, name="mine")
    assert edit["ffn", 1] is change
    assert dict(edit) == {("ffn", 1): change}
    assert len(edit) == 1
    assert repr(edit) == "Edit(mine at ffn[1])"
    assert "nowhere" in repr(Edit({}))


# --- generation


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "bloom"])
def test_generation_is_that_of_zeroed_weights(family, use_cache):
    model, plain = pair(family)
    weights, prompt, calls = bits(model), document(7, seed=3), []
    how = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "use_cache": use_cache, "pad_token_id": 0}
    how["attention_mask"] = torch.ones_like(prompt)
    neurons = some(model, 11, share=0.4)

    def watch(x):
        calls.append(x.shape[1])
        return x

    unedited = model.original_model.generate(prompt, **how)
    with applied(model, zero(neurons), Edit({("ffn", 1): watch})):
        found = model.original_model.generate(prompt, **how)
    with oracles.zeroed(weights_of(neurons, plain)):
        expected = plain.generate(prompt, **how)
    assert found.tolist() == expected.tolist()
    assert calls == ([7, 1, 1, 1, 1, 1] if use_cache else [7, 8, 9, 10, 11, 12])
    assert found.tolist() != unedited.tolist()
    assert unedited.tolist() == plain.generate(prompt, **how).tolist()
    assert same_bits(model, weights)
    assert torch.equal(model.original_model.generate(prompt, **how), unedited)


# --- refusals


def test_an_edit_that_never_fired_raises(llama):
    with (
        pytest.raises(RuntimeError, match=r"never fired: ffn\[0\] of zero.*not run inside the with"),
        deactivate(llama, some(llama, 0, sites=("ffn",)).only(layers=[0])),
    ):
        pass
    lower, upper = (some(llama, 0, sites=("ffn",)).only(layers=[i]) for i in (0, 1))
    with (
        torch.no_grad(),
        pytest.raises(RuntimeError, match=r"never fired: ffn\[1\] of scale -"),  # the other one did
        applied(llama, zero(lower), scale(upper, 2.0)),
    ):
        llama(IDS, stop_at_layer=1)


@pytest.mark.parametrize(
    "make", [zero, lambda s: scale(s, 2.0), lambda s: set_to(s, 1.0)], ids=["zero", "scale", "set_to"]
)
def test_an_empty_set_is_refused(llama, make):
    with pytest.raises(ValueError, match=r"NeuronSet is empty, so the edit would do nothing; check `if neurons:`"):
        make(NeuronSet.empty(shape_of(llama)))


def test_no_edit_is_refused(llama):
    for edits in ((), (Edit({}),)):
        with (
            pytest.raises(ValueError, match=r"without an edit would do nothing: pass zero\(neurons\)"),
            applied(llama, *edits),
        ):
            pass


def test_neurons_of_another_model_are_refused(llama):
    other = pair("mistral")[0]
    neurons = some(other, 0)
    with pytest.raises(
        ValueError, match=f"made for another model .{fingerprint(other)}.*detect the neurons on this model"
    ):
        deactivate(llama, neurons).__enter__()
    with deactivate(other, neurons):
        run(other)


def test_neurons_of_another_shape_are_refused(llama):
    foreign = NeuronSet.of([("ffn", 0, 3)], {"ffn": (2, 40)})
    with pytest.raises(
        ValueError, match=r"site 'ffn' are \[layer, width\] \[2, 40\], this model has \[2, 44\] - detected on another"
    ):
        deactivate(llama, foreign).__enter__()
    deeper = NeuronSet.of([("ffn", 0, 3)], {"ffn": (3, 44)})
    with pytest.raises(ValueError, match=r"are \[layer, width\] \[3, 44\], this model has \[2, 44\]"):
        deactivate(llama, deeper).__enter__()


def test_places_that_do_not_exist_are_refused(llama):
    for place, message in {
        ("ffn", 2): r"names layer 2, this model has layers 0\.\.1",
        ("ffn", -1): r"names layer -1, this model has layers 0\.\.1",
        ("nose", 0): "unknown site 'nose': choose from q, k",
    }.items():
        with pytest.raises(ValueError, match=message):
            applied(llama, Edit({("ffn", 0): torch.zeros_like, place: torch.zeros_like})).__enter__()
    with pytest.raises(ValueError, match=r"no hook point for 'resid_mid'.*it has q, k"):
        applied(pair("neox")[0], Edit({("resid_mid", 0): torch.zeros_like})).__enter__()


def test_a_change_of_shape_is_refused(llama):
    with (
        pytest.raises(ValueError, match=r"'ffn' of layer 1 returned \[1, 11, 3\] for an activation of \[1, 11, 44\]"),
        applied(llama, Edit({("ffn", 1): lambda x: x[..., :3]})),
    ):
        run(llama)


def test_scaling_by_infinity_is_refused(llama):
    for by in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"scale by {by}: give a finite number"):
            scale(some(llama, 0), by)


def test_values_that_do_not_fit_are_refused(llama):
    neurons = some(llama, 0, sites=("ffn", "k"))
    with pytest.raises(ValueError, match=r"values \[layer, width\] \[2, 16\] for site 'k', got nothing"):
        set_to(neurons, {"ffn": torch.zeros(2, 44)})
    with pytest.raises(ValueError, match=r"\[2, 44\] for site 'ffn', got \[1, 44\]"):
        set_to(neurons, {"k": torch.zeros(2, 16), "ffn": torch.zeros(1, 44)})


def test_patches_that_do_not_fit_are_refused(llama):
    source = record(llama, IDS, ("ffn",))
    with pytest.raises(ValueError, match=r"no activations given; record\(model"):
        patch({})
    with pytest.raises(ValueError, match="no layer in common, so the edit would do nothing"):
        patch(source, NeuronSet.empty(shape_of(llama, ("ffn",))))
    with pytest.raises(ValueError, match="no layer in common"):
        patch(source, some(llama, 0, sites=("k",)))
    with (
        pytest.raises(ValueError, match=r"patch of 'ffn' in layer 0 holds \[1, 11, 44\], the run has \[1, 8, 44\]"),
        applied(llama, patch(source)),
    ):
        run(llama, document(8))
    with (
        pytest.raises(ValueError, match=r"holds \[1, 11, 44\], the run has \[2, 11, 44\]"),
        applied(llama, patch(source)),
    ):
        run(llama, IDS.repeat(2, 1))
    with pytest.raises(ValueError, match="pattern cannot be recorded for patching: patch z"):
        record(llama, IDS, ("pattern",))
    other = pair("mistral")[0]
    with pytest.raises(ValueError, match="made for another model"):
        applied(llama, patch(source, some(other, 0, sites=("ffn",)))).__enter__()


def test_a_pattern_that_would_be_ignored_is_refused():
    with pytest.raises(NotImplementedError, match="ignores a changed pattern: edit z instead"):
        applied(pair("xglm")[0], Edit({("pattern", 0): torch.zeros_like})).__enter__()
