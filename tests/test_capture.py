"""Capture against TransformerLens's own cache, and that nothing of it stays."""

import gc
import sys
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import families
import pytest
import torch
from conftest import document, pair
from einops import rearrange

from mwork_lens.capture import as_tokens, capture, forward
from mwork_lens.corpora import Tokens, context_length, pad
from mwork_lens.sites import HEAD_SITES, NEURON_SITES, hook_name

ALL = ("q", "k", "v", "z", "ffn", "ffn_gate", "resid_pre", "resid_post", "pattern")


def record(model, tokens, wanted, **options):
    """[(layer, {site: activation})] in the order they were handed over."""
    calls = []
    capture(model, tokens, wanted, lambda layer, acts: calls.append((layer, dict(acts))), **options)
    return calls


def live_hooks(model):
    return sum(len(point.fwd_hooks) + len(point._forward_hooks) for point in model.hook_dict.values())


def test_each_layer_comes_once_in_order_with_all_its_sites(any_family):
    _, model, _ = any_family
    for wanted in (ALL, ("ffn", "q", "ffn")):
        calls = record(model, document(), wanted)
        assert [layer for layer, _ in calls] == [0, 1]
        assert all(set(acts) == set(wanted) for _, acts in calls)


def test_values_are_those_of_the_cache(any_family):
    _, model, _ = any_family
    ids = document(9, seed=1)
    with torch.no_grad():
        _, cache = model.run_with_cache(ids)
    for layer, acts in record(model, ids, ALL):
        for site in ALL:
            expected = cache[hook_name(site, layer)]
            if site in HEAD_SITES and expected.ndim == 4:
                expected = rearrange(expected, "batch pos head d_head -> batch pos (head d_head)")
            assert torch.equal(acts[site], expected), (site, layer)
    assert acts["pattern"].shape == (1, 4, 9, 9)


def test_only_the_layers_asked_for(llama):
    assert [layer for layer, _ in record(llama, document(), ["ffn"], layers=[1])] == [1]
    assert [layer for layer, _ in record(llama, document(), ["ffn"], layers=[1, 0])] == [
        0,
        1,
    ]  # the order of the forward pass


def test_observation_points_are_captured_too(llama):
    ((_, acts), _) = record(llama, document(), ["scores", "ffn_out", "attn_out"])
    assert (
        acts["scores"].isinf().any() or acts["scores"].min() < -1e4
    )  # what lies in the future; not mistaken for a broken model
    assert acts["attn_out"].shape == acts["ffn_out"].shape == (1, 11, 32)


def test_kept_positions_of_a_padded_batch_are_those_of_single_documents(any_family):
    _, model, _ = any_family
    rows = [document(n, seed=n)[0].tolist() for n in (4, 11, 7)]
    batch = pad(rows, "de", ["a", "b", "c"], bos=1)
    assert not batch.mask.all()
    together = record(model, batch, NEURON_SITES)
    for i in range(3):
        alone = batch.row(i)
        for (_, many), (_, one) in zip(together, record(model, alone, NEURON_SITES), strict=True):
            for site in NEURON_SITES:
                kept = (acts[keep] for acts, keep in ((many[site][i], batch.keep[i]), (one[site][0], alone.keep[0])))
                torch.testing.assert_close(*kept, rtol=1e-4, atol=1e-5)


def test_without_the_mask_padding_would_change_left_padded_documents(llama):
    """Negative control: the mask matters, so `forward` must have passed it."""
    ids = torch.cat((torch.zeros(1, 3, dtype=torch.long), document(5)), dim=1)
    mask = torch.tensor([[False] * 3 + [True] * 5])
    masked, naked = (forward(llama, Tokens(ids, mask, attention_mask=given))[0, -1] for given in (mask, None))
    assert not torch.allclose(masked, naked, atol=1e-3)


def test_nothing_stays_alive_after_on_layer_returns(llama):
    seen = []

    def on_layer(layer, acts):
        gc.collect()
        assert not [ref for ref in seen if ref() is not None], (
            f"layer {layer}: an earlier layer's activations are still alive"
        )
        seen.extend(weakref.ref(tensor) for tensor in acts.values())

    capture(llama, document(), NEURON_SITES, on_layer)
    gc.collect()
    assert len(seen) == 2 * len(NEURON_SITES)
    assert not [ref for ref in seen if ref() is not None]
    # negative control: a listener that keeps its tensors does keep them alive
    kept, refs = [], []
    capture(
        llama, document(), ["ffn"], lambda _, acts: (kept.append(acts["ffn"]), refs.append(weakref.ref(acts["ffn"])))
    )
    gc.collect()
    assert all(ref() is not None for ref in refs)


def test_no_gradients_and_no_change_of_the_model(llama):
    before = forward(llama, as_tokens(document(), llama))
    calls = record(llama, document(), ALL)
    assert not any(acts[site].requires_grad for _, acts in calls for site in ALL)
    assert torch.equal(forward(llama, as_tokens(document(), llama)), before)


def test_no_listener_is_left_behind(llama):
    before = live_hooks(llama)

    def fail(layer, acts):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        capture(llama, document(), ["q", "ffn"], fail)
    record(llama, document(), ["q", "ffn"])
    assert live_hooks(llama) == before


# --- what goes wrong ---


def test_a_missing_hook_names_those_present():
    with pytest.raises(
        ValueError, match=r"layer 0 .* no hook point for 'resid_mid' .*; it has q, k, v, z, pattern, ffn"
    ):
        record(pair("neox")[0], document(), ["q", "resid_mid"])
    assert record(pair("llama")[0], document(), ["q", "resid_mid"])  # negative control


def test_unknown_sites_no_sites_and_absent_layers_are_refused(llama):
    with pytest.raises(ValueError, match="unknown site 'mlp': choose from q, k, v, z"):
        record(llama, document(), ["mlp"])
    with pytest.raises(ValueError, match="no site given: choose from q, k, v, z"):
        record(llama, document(), [])
    with pytest.raises(ValueError, match=r"no layer given: choose from 0\.\.1, or leave `layers` out for all"):
        record(llama, document(), ["ffn"], layers=[])
    for site in ("q", "ffn"):
        with pytest.raises(ValueError, match=r"layer 2 does not exist: this model has layers 0\.\.1"):
            record(llama, document(), [site], layers=[0, 2])


def test_a_mixture_of_experts_is_refused():
    with pytest.raises(NotImplementedError, match="layer 0 is a mixture of experts"):
        record(pair("mixtral")[0], document(), ["ffn"])


def test_a_hook_that_never_fires_is_an_error(llama, monkeypatch):
    real = llama.hooks

    @contextmanager
    def deaf(fwd_hooks):
        with real(fwd_hooks=[(name, hook) for name, hook in fwd_hooks if name != "blocks.1.mlp.hook_post"]):
            yield

    monkeypatch.setattr(llama, "hooks", deaf, raising=False)
    with pytest.raises(
        RuntimeError, match=r"hook point\(s\) for 'ffn' of layer 1 are listed by this model but never fired"
    ):
        record(llama, document(), ["q", "ffn"])


def test_another_width_than_the_weights_have_is_an_error(llama, monkeypatch):
    monkeypatch.setattr(sys.modules[capture.__module__], "width", lambda model, site, layer: 43)
    with pytest.raises(
        ValueError, match=r"site 'ffn' of layer 0 delivers width 44, its weights have 43.*please report it"
    ):
        record(llama, document(), ["ffn"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_activation_is_named_by_layer_site_and_document(llama, bad):
    tokens = pad([document(5, seed=s)[0].tolist() for s in range(3)], "de", ["first", "second", "third"], bos=1)

    def poison(activation, hook):
        activation = activation.clone()
        activation[1, 3, 7] = bad
        return activation

    with llama.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", poison)]):
        with pytest.raises(
            ValueError,
            match="NaN or infinite activation at site 'ffn' of layer 1, in second: load the model with dtype='float32'",
        ):
            record(llama, tokens, ["q", "ffn"])
        with pytest.raises(ValueError, match="at site 'ffn' of layer 1, in row 1:"):
            record(llama, tokens.ids, ["ffn"])
        assert len(record(llama, tokens, ["ffn"], layers=[0])) == 1  # negative control: the other layer is sound


# --- what tokens may be ---


def test_id_tensors_become_tokens(llama):
    ids = torch.tensor([[1, 5, 1], [5, 6, 7]])
    tokens = as_tokens(ids, llama)
    assert tokens.keep.tolist() == [[False, True, True], [True, True, True]]
    assert tokens.mask.all()
    assert as_tokens(tokens, llama) is tokens
    assert as_tokens(ids, object()).keep.all()  # no tokenizer, no BOS


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (torch.zeros(1, 3), "torch.float32"),
        (torch.zeros(1, 3, dtype=torch.bool), r"torch.bool \[1, 3\]"),
        (torch.zeros(1, 3, dtype=torch.complex64), "torch.complex64"),
        (torch.zeros(3, dtype=torch.long), r"torch.int64 \[3\]"),
    ],
)
def test_other_inputs_are_refused(llama, bad, got):
    with pytest.raises(ValueError, match=f"expected Tokens or an integer tensor .batch, pos., got {got}"):
        as_tokens(bad, llama)


def filled(value, *shape):
    ids = torch.full(shape, 5)
    ids[..., -1:] = value
    return ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (filled(5, 1, 0), r"no token given: ids are \[1, 0\], give at least one document"),
        (filled(-1, 1, 4), "token id -1 is negative: pad with any id, and an attention_mask"),
        (
            filled(97, 2, 4),
            "token id 97 is outside this model's vocabulary of 97: make the ids with the model's own tokenizer",
        ),
    ],
)
def test_ids_that_do_not_fit_the_model_are_refused(any_family, ids, message):
    _, model, _ = any_family
    for tokens in (ids, Tokens(ids, torch.ones_like(ids, dtype=torch.bool))):
        with pytest.raises(ValueError, match=message):
            as_tokens(tokens, model)
        with pytest.raises(ValueError, match=message):
            record(model, tokens, ["ffn"])


def test_documents_longer_than_the_context_are_refused(any_family):
    _, model, _ = any_family
    context = context_length(model)
    with pytest.raises(
        ValueError,
        match=f"documents of {context + 1} tokens are longer than this model's context of {context}: cut them",
    ):
        as_tokens(filled(5, 2, context + 1), model)
    assert as_tokens(filled(5, 2, 5000), SimpleNamespace(cfg=SimpleNamespace()))  # a model that does not say


def test_ids_at_the_limits_fit(any_family):
    _, model, _ = any_family
    assert len(record(model, filled(96, 1, families.CONTEXT), ["ffn"])) == 2
    assert len(record(model, filled(0, 1, 1), ["ffn"])) == 2


def test_the_vocabulary_is_that_of_the_embedding_or_what_else_is_known(llama):
    """A padded embedding has more rows than the tokenizer has words; ids in between are the model's."""
    tokenizer = llama.tokenizer
    ids = filled(99, 1, 4)
    assert as_tokens(ids, SimpleNamespace(W_E=torch.zeros(100, 3), W_U=torch.zeros(3, 97), tokenizer=tokenizer))
    assert as_tokens(ids, SimpleNamespace())  # says nothing: nothing is refused
    known = ({"W_U": torch.zeros(3, 97)}, {"tokenizer": tokenizer}, {"W_U": torch.zeros(3, 97), "cfg": object()})
    for attributes in known:
        with pytest.raises(ValueError, match="token id 99 is outside this model's vocabulary of 97"):
            as_tokens(ids, SimpleNamespace(**attributes))
