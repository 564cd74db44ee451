"""The fast path of FFN statistics gives what the hook points give, and steps aside where it cannot."""

import families
import pytest
import torch
from conftest import document, pair

from mwork_lens.capture import capture
from mwork_lens.collect import moments
from mwork_lens.corpora import Tokens, pad
from mwork_lens.interventions import deactivate
from mwork_lens.models import load_model
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import shape_of
from mwork_lens.unwrapped import unwrapped

SITES = ("ffn", "ffn_gate", "ffn_act")
SHARED = {"llama", "llama_mha_bias", "mistral", "qwen2", "qwen3", "gemma3", "olmo2", "cohere", "cohere_qk_norm"}
"""Families of which both models have the same weights, and fused attention computes the same."""


def batch(lengths=(9, 4, 6)):
    rows = [
        [1, *torch.randint(4, families.VOCAB, (n,), generator=torch.Generator().manual_seed(n)).tolist()]
        for n in lengths
    ]
    return pad(rows, "en", [str(n) for n in lengths], bos=1)


def collected(model, tokens, sites, *, fused):
    got = {}
    capture(model, tokens, sites, lambda layer, acts: got.update({(layer, s): acts[s] for s in sites}), fused=fused)
    return got


@pytest.mark.parametrize("family", families.FAMILIES)
def test_fused_and_hooked_activations_agree(family):
    model, _ = pair(family)
    tokens = batch()
    assert (unwrapped(model, tokens, SITES) is not None) == (family in SHARED)
    slow, fast = (collected(model, tokens, SITES, fused=fused) for fused in (False, True))
    assert slow.keys() == fast.keys()
    for place, expected in slow.items():
        kept = tokens.keep
        assert torch.allclose(fast[place][kept], expected[kept], atol=1e-5 * float(expected.abs().max())), place


def test_nothing_is_copied(llama):
    found = unwrapped(llama, batch(), SITES)
    assert found is not None
    mine = {p.data_ptr() for p in llama.parameters()}
    assert all(p.data_ptr() in mine for p in found.model.parameters())


def test_an_edit_in_force_is_seen(llama):
    """The fast path cannot see edits: it must step aside, and come back afterwards."""
    shape = shape_of(llama, ["ffn"])
    neurons = NeuronSet({"ffn": torch.ones(shape["ffn"], dtype=torch.bool)}).only(layers=[0])
    before = moments("ffn")(llama, batch())
    with deactivate(llama, neurons):
        assert unwrapped(llama, batch(), SITES) is None
        off = moments("ffn")(llama, batch())
    assert not bool(off.square["ffn"][0].any())
    assert bool(before.square["ffn"][0].all())
    assert unwrapped(llama, batch(), SITES) is not None


def test_left_padding_runs_through_the_hook_points(llama):
    ids = torch.cat([torch.zeros(1, 3, dtype=torch.long), document(5)], dim=1)
    mask = torch.arange(8)[None] >= 3
    assert unwrapped(llama, Tokens(ids, mask, attention_mask=mask), SITES) is None
    assert unwrapped(llama, Tokens(ids, mask), SITES) is not None
    hole = torch.tensor([[True] * 3 + [False] + [True] * 4])
    assert unwrapped(llama, Tokens(ids, hole, attention_mask=hole), SITES) is None


def test_capture_uses_it_when_asked(llama, monkeypatch):
    from mwork_lens import unwrapped as module

    runs = []
    real = module.Unwrapped.run
    monkeypatch.setattr(module.Unwrapped, "run", lambda self, *given: runs.append(1) or real(self, *given))
    collected(llama, batch(), SITES, fused=False)
    collected(llama, batch(), ("ffn", "z"), fused=True)
    assert not runs
    collected(llama, batch(), SITES, fused=True)
    moments("ffn_act")(llama, batch())
    assert len(runs) == 2


def test_a_copy_of_the_model_has_its_own():
    import copy

    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    before = moments("ffn")(model, batch())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.blocks[0].mlp.gate.original_component.weight.mul_(-1)
    assert torch.equal(moments("ffn")(model, batch()).total["ffn"], before.total["ffn"])
    assert not torch.allclose(moments("ffn")(twin, batch()).total["ffn"], before.total["ffn"])


def test_weights_changed_in_place_are_followed_and_new_ones_refused():
    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    before = moments("ffn")(model, batch())
    gate = model.blocks[0].mlp.gate.original_component
    with torch.no_grad():
        gate.weight.mul_(0.5)
    fast, slow = (collected(model, batch(), ("ffn",), fused=fused)[0, "ffn"] for fused in (True, False))
    assert torch.allclose(fast, slow, atol=1e-5)
    assert not torch.allclose(moments("ffn")(model, batch()).square["ffn"], before.square["ffn"])
    gate.weight = torch.nn.Parameter(gate.weight.detach() * 2)
    assert unwrapped(model, batch(), SITES) is None


@pytest.mark.parametrize("family", ["llama", "neox", "gpt2", "bloom"])
def test_an_edit_of_attention_weights_is_followed(family):
    """Whatever TransformerLens computes with - the weight itself, a split copy, a new parameter - statistics are of that."""
    model = load_model(families.hf_model(family), tokenizer=families.tokenizer())
    before = moments("ffn")(model, batch())
    query = model.blocks[0].attn.q.original_component
    with torch.no_grad():
        query.weight.mul_(-2)
    query.weight = torch.nn.Parameter(query.weight.detach().clone())
    fast, slow = (collected(model, batch(), ("ffn",), fused=fused)[1, "ffn"] for fused in (True, False))
    kept = batch().keep
    assert torch.allclose(fast[kept], slow[kept], atol=1e-5 * float(slow.abs().max()))
    assert not torch.allclose(moments("ffn")(model, batch()).square["ffn"][1], before.square["ffn"][1])


def test_half_precision_is_accepted():
    model = load_model(families.hf_model("llama").bfloat16(), tokenizer=families.tokenizer())
    assert unwrapped(model, batch(), SITES) is not None
    fast, slow = (collected(model, batch(), ("ffn",), fused=fused)[1, "ffn"] for fused in (True, False))
    assert torch.allclose(fast.float(), slow.float(), atol=0.05 * float(slow.abs().max()))


def test_a_forward_of_another_kind_is_not_trusted():
    """Negative control: when the two disagree, the hook points are used."""
    hf = families.hf_model("llama")
    model = load_model(hf, tokenizer=families.tokenizer())
    block = model.blocks[0]
    real = block.mlp.original_component.forward
    block.mlp.original_component.forward = lambda x: (
        real(x) * 1.5
    )  # of this object only: the shared copy does not have it
    assert unwrapped(model, batch(), SITES) is None
