"""Sites against plain Hugging Face models: widths, which slice of which matrix, and which activation goes with it."""

from types import SimpleNamespace
from typing import Any

import families
import oracles
import pytest
import torch
from conftest import document, pair
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens import sites
from mwork_lens.capture import capture

PARALLEL = ("neox", "cohere", "cohere_qk_norm")


def hf_sizes(config: Any) -> dict[str, int]:
    """Widths as the Hugging Face configuration states them, one family at a time."""
    kind, n_heads = config.model_type, config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    n_kv = n_heads if kind in ("gpt2", "bloom", "gpt_neox", "xglm") else config.num_key_value_heads
    d_mlp = {"gpt2": "n_inner", "xglm": "ffn_dim"}.get(kind, "intermediate_size")
    ffn = 4 * config.hidden_size if kind == "bloom" else getattr(config, d_mlp)
    return {
        **{"q": n_heads * d_head, "k": n_kv * d_head, "v": n_kv * d_head, "z": n_heads * d_head},
        **{"ffn": ffn, "ffn_gate": ffn, "resid_pre": config.hidden_size, "resid_post": config.hidden_size},
    }


def row_of(places: list[Any]) -> tuple[torch.Tensor, float]:
    """(weights, bias) of one unit from the oracle's (parameter, index) pairs."""
    weight = places[0][0].data[places[0][1]].flatten()
    return weight, places[1][0].data[places[1][1]].item() if len(places) > 1 else 0.0


def gate_rows(hf: Any, layer: int) -> Any:
    """W_gate [width, d_model] of a gated plain model, else None."""
    mlp = getattr(oracles.hf_blocks(hf)[layer], "mlp", None)
    if hasattr(mlp, "gate_up_proj"):
        return mlp.gate_up_proj.weight.data[: hf.config.intermediate_size]
    return mlp.gate_proj.weight.data if hasattr(mlp, "gate_proj") else None


def test_widths_are_those_of_the_configuration(any_family):
    _, model, hf = any_family
    expected = hf_sizes(hf.config)
    assert sites.widths(model, expected) == expected
    assert sites.n_layers(model) == len(oracles.hf_blocks(hf)) == 2
    assert sites.shape_of(model, ["k", "ffn"]) == {"k": (2, expected["k"]), "ffn": (2, expected["ffn"])}
    shape = sites.heads(model, 1)
    assert shape.query == hf.config.num_attention_heads
    assert shape.query * shape.d_head == expected["q"]
    assert shape.key_value * shape.d_head == expected["k"]
    assert shape.group * expected["k"] == expected["q"]


@pytest.mark.parametrize("site", sites.NEURON_SITES)
def test_weight_slices_are_the_right_ones(any_family, site):
    _, model, hf = any_family
    for layer in range(2):
        found = sites.weight(model, site, layer)
        main = {"q": "W_Q", "k": "W_K", "v": "W_V", "z": "W_O", "ffn": "W_up"}[site]
        for unit in range(found[main].shape[0]):
            assert torch.equal(found[main][unit], row_of(oracles.slices(hf, site, layer, unit))[0]), unit
        if site == "ffn":
            down = oracles.down_projection(hf, layer).weight.data
            assert torch.equal(found["W_down"], down if hf.config.model_type == "gpt2" else down.T)
            gate = gate_rows(hf, layer)
            assert ("W_gate" in found) == (gate is not None)
            assert gate is None or torch.equal(found["W_gate"], gate)


def test_every_activation_is_its_weight_row_times_the_input(any_family):
    """x @ W + b == hook for q, k, v; z and ffn are what enters W_O and W_down. All from the plain model."""
    _, model, hf = any_family
    ids, layer, seen = document(9, seed=3), 1, {}
    attention = oracles.attention_module(hf, layer)
    takes_queries = getattr(attention, "q_proj", None)
    for fused in ("qkv_proj", "c_attn", "query_key_value"):
        takes_queries = takes_queries or getattr(attention, fused, None)
    places = {"x": takes_queries, "z": oracles.o_projection(hf, layer), "ffn": oracles.down_projection(hf, layer)}
    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: seen.__setitem__(name, args[0].detach().clone()))
        for name, module in places.items()
    ]
    with torch.no_grad():
        hf(ids)
    for handle in handles:
        handle.remove()
    wanted, got = ("q", "k", "v", "z", "ffn"), {}
    capture(model, ids, wanted, lambda _, acts: got.update(acts), layers=[layer])
    for site in "qkv":
        rows = [row_of(oracles.slices(hf, site, layer, unit)) for unit in range(got[site].shape[-1])]
        expected = seen["x"] @ torch.stack([row for row, _ in rows]).T + torch.tensor([bias for _, bias in rows])
        torch.testing.assert_close(got[site], expected, rtol=2e-5, atol=2e-5)
    for site in ("z", "ffn"):
        torch.testing.assert_close(got[site].reshape(seen[site].shape), seen[site], rtol=2e-5, atol=2e-5)
    # negative control: the units are not interchangeable
    assert not torch.allclose(got["q"].roll(1, dims=-1), got["q"], atol=1e-2)


def test_gate_is_the_pre_activation():
    model, hf = pair("llama")
    seen, got = [], {}
    handle = hf.model.layers[0].mlp.gate_proj.register_forward_hook(lambda m, args, out: seen.append(out.detach()))
    with torch.no_grad():
        hf(document())
    handle.remove()
    capture(model, document(), ["ffn_gate"], lambda layer, acts: got.update({layer: acts["ffn_gate"]}))
    torch.testing.assert_close(got[0], seen[0])


@given(
    heads=st.integers(1, 4),
    d_head=st.integers(1, 5),
    pos=st.integers(1, 4),
    site=st.sampled_from(sites.HEAD_SITES),
    seed=st.integers(0, 9),
)
def test_like_hook_undoes_flatten_heads(heads, d_head, pos, site, seed):
    original = torch.randn(2, pos, heads, d_head, generator=torch.Generator().manual_seed(seed))
    flat = sites.flatten_heads(site, original)
    assert flat.shape == (2, pos, heads * d_head)
    assert flat[1, 0, (heads - 1) * d_head] == original[1, 0, heads - 1, 0]  # the head comes first in a unit's index
    assert torch.equal(sites.like_hook(site, flat, original), original)
    assert sites.flatten_heads(site, flat) is flat
    assert sites.like_hook(site, flat, flat) is flat


def test_sites_without_heads_pass_through():
    stream = torch.randn(1, 2, 3, 4)
    assert sites.flatten_heads("pattern", stream) is stream
    assert sites.like_hook("ffn", stream[0], stream) is not None


@given(kv=st.integers(1, 4), group=st.integers(1, 4), d_head=st.integers(1, 6), seed=st.integers(0, 99))
def test_folding_expanded_heads_is_the_maximum_over_a_neurons_copies(kv, group, d_head, seed):
    shape = sites.Heads(kv * group, kv, d_head)
    expanded = torch.randn(kv * group * d_head, generator=torch.Generator().manual_seed(seed))
    owner = [
        (i // d_head // group) * d_head + i % d_head for i in range(len(expanded))
    ]  # repeat_interleave of the heads
    folded = sites.fold_heads(expanded, shape)
    for neuron in range(kv * d_head):
        copies = [i for i, mine in enumerate(owner) if mine == neuron]
        assert sites.flat_index(neuron, shape) == copies
        assert folded[neuron].item() == max(expanded[i].item() for i in copies)


@pytest.mark.parametrize("site", ["ffn", "ffn_gate"])
def test_ffn_of_a_mixture_of_experts_is_refused(site):
    model, _ = pair("mixtral")
    assert sites.is_mixture_of_experts(model, 0)
    for ask in (sites.width, sites.require_hook, sites.weight):
        with pytest.raises(NotImplementedError, match=r"layer 0 is a mixture of experts.*attention sites q, k, v, z"):
            ask(model, site, 0)
    assert sites.widths(model, sites.ATTENTION_SITES) == {"q": 32, "k": 16, "v": 16, "z": 32}  # its attention is fine
    assert not sites.is_mixture_of_experts(pair("llama")[0], 0)


def test_parallel_blocks_have_no_middle_of_the_stream():
    for family in families.FAMILIES:
        assert sites.has_hook(pair(family)[0], "resid_mid", 0) == (family not in PARALLEL)


def test_delegated_attention_is_recognised():
    assert [family for family in families.FAMILIES if sites.delegates_attention(pair(family)[0], 0)] == ["xglm"]


def test_a_missing_hook_names_those_there_are():
    with pytest.raises(
        ValueError, match=r"layer 1 .* no hook point for 'resid_mid' \(blocks.1.hook_resid_mid\); it has q, k, v, z"
    ):
        sites.require_hook(pair("neox")[0], "resid_mid", 1)
    with pytest.raises(ValueError, match="it has none that mwork_lens knows"):
        sites.require_hook(SimpleNamespace(blocks=[SimpleNamespace()], hook_dict={}), "q", 0)


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_does_not_exist_is_refused(llama, layer):
    for site in ("q", "ffn"):
        with pytest.raises(ValueError, match=rf"layer {layer} does not exist: this model has layers 0\.\.1"):
            sites.require_hook(llama, site, layer)


def test_unknown_sites_are_refused(llama):
    with pytest.raises(ValueError, match="unknown site 'mlp': choose from q, k, v, z, ffn"):
        sites.require_sites(["q", "mlp"])
    with pytest.raises(ValueError, match="no site given"):
        sites.require_sites([])
    with pytest.raises(ValueError, match="unknown site 'mlp'"):
        sites.width(llama, "mlp")
    with pytest.raises(ValueError, match="unknown site 'mlp'"):
        sites.require_hook(llama, "mlp", 0)
    with pytest.raises(ValueError, match="unknown site 'resid_pre'"):  # holds no neurons
        sites.weight(llama, "resid_pre", 0)
    assert sites.require_sites("ffn") == ("ffn",)
    assert sites.require_sites(["v", "q", "v"]) == ("v", "q")


def test_pattern_has_no_width(llama):
    with pytest.raises(ValueError, match="'pattern' has no width"):
        sites.width(llama, "pattern")


def test_layers_of_different_widths_are_refused():
    block = lambda d_mlp: SimpleNamespace(mlp=SimpleNamespace(W_out=torch.zeros(d_mlp, 4)))  # noqa: E731
    hooks = {f"blocks.{layer}.mlp.hook_post": None for layer in range(2)}
    with pytest.raises(ValueError, match=r"layers differ in the width of 'ffn': \[8, 6\]"):
        sites.widths(SimpleNamespace(blocks=[block(8), block(6)], hook_dict=hooks), ["ffn"])


def test_a_model_without_one_stack_of_blocks_is_refused():
    with pytest.raises(ValueError, match="Linear has no single stack of blocks"):
        sites.n_layers(torch.nn.Linear(2, 2))
