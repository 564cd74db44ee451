"""Attribution against Hugging Face's own gradients of weights, against finite differences through `scale`, and in exact cases."""

import copy

import families
import oracles
import pytest
import torch
from conftest import document, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mwork_lens.corpora import Corpus, Tokens, pad
from mwork_lens.detect.attribution import attribution, attributions
from mwork_lens.detect.plnd import plnd, specific
from mwork_lens.edits import applied
from mwork_lens.evaluate import document_nll
from mwork_lens.interventions import deactivate, scale
from mwork_lens.measure import measure
from mwork_lens.models import load_model
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import NEURON_SITES, shape_of

SOME = ("llama", "llama_mha_bias", "gpt2", "qwen3", "gemma2", "neox")


def rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[1, *torch.randint(4, families.VOCAB, (n,), generator=generator).tolist()] for n in lengths]


def batch(*lengths, language="en", seed=0):
    return pad(rows(*lengths, seed=seed), language, [f"d{i}" for i in range(len(lengths))], bos=1)


def one(model, site, layer, unit):
    return NeuronSet.of([(site, layer, unit)], shape_of(model))


def gradient_of_weights(plain, ids, site, layer, unit):
    """-sum w dL/dw over the unit's own weights and bias: by Euler's theorem what attribution is, as the unit is linear in them."""
    plain = copy.deepcopy(plain).requires_grad_(True)
    logits = plain(ids).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").backward()
    return -sum(float((p.detach()[i] * p.grad[i]).sum()) for p, i in oracles.slices(plain, site, layer, unit))


@pytest.mark.parametrize("family", SOME)
@pytest.mark.parametrize("site", ["q", "k", "v", "z"])
def test_it_is_the_gradient_of_hugging_faces_own_weights(family, site):
    model, plain = pair(family)
    ids = document(9)
    found = attributions(model, ids, sites=[site])[site]
    assert found.shape == (1, *shape_of(model)[site])
    for layer, unit in ((0, 1), (0, 7), (1, 2)):
        expected = gradient_of_weights(plain, ids, site, layer, unit)
        assert found[0, layer, unit].item() == pytest.approx(expected, rel=1e-3, abs=2e-5)


@pytest.mark.parametrize("family", ["llama", "llama_mha_bias", "qwen3", "gemma2"])
def test_an_ffn_unit_is_the_gradient_of_its_column_of_w_down(family):
    model, plain = pair(family)
    ids = document(9)
    found = attributions(model, ids, sites=["ffn"])["ffn"][0]
    plain = copy.deepcopy(plain).requires_grad_(True)
    torch.nn.functional.cross_entropy(plain(ids).logits[0, :-1], ids[0, 1:], reduction="sum").backward()
    for layer, block in enumerate(oracles.hf_blocks(plain)):
        down = block.mlp.down_proj.weight
        torch.testing.assert_close(found[layer], -(down.detach() * down.grad).sum(0).double(), rtol=1e-3, atol=1e-5)


@settings(max_examples=15)
@given(
    family=st.sampled_from(("llama", "gpt2", "bloom", "xglm")),
    site=st.sampled_from(NEURON_SITES),
    layer=st.integers(0, 1),
    unit=st.integers(0, 15),
)
def test_it_is_the_slope_of_the_loss_as_a_unit_fades(family, site, layer, unit):
    model, _ = pair(family)
    tokens = batch(8)
    neuron, eps = one(model, site, layer, unit), 1e-2
    with scaled(model, neuron, 1 - eps):
        down = document_nll(model, tokens)
    with scaled(model, neuron, 1 + eps):
        up = document_nll(model, tokens)
    found = attributions(model, tokens, sites=[site])[site][0, layer, unit].item()
    assert found == pytest.approx(((down - up) / (2 * eps)).item(), rel=0.02, abs=3e-3)


def scaled(model, neuron, by):
    return applied(model, scale(neuron, by))


def test_it_ranks_units_as_ablation_does_and_permuted_gradients_do_not():
    model, _ = pair("llama")
    tokens = batch(8, 11)
    base = document_nll(model, tokens)
    found = attributions(model, tokens, sites=["ffn"])["ffn"].sum(0)[1]
    effects = []
    for unit in range(len(found)):
        with deactivate(model, one(model, "ffn", 1, unit)):
            effects.append(float((document_nll(model, tokens) - base).sum()))
    truth = torch.tensor(effects, dtype=torch.float64)
    permuted = found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]
    assert torch.corrcoef(torch.stack([found, truth]))[0, 1] > 0.9
    assert abs(torch.corrcoef(torch.stack([permuted, truth]))[0, 1]) < 0.5


@settings(max_examples=10)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from(("llama", "gpt2")))
def test_padding_and_batches_change_nothing(lengths, family):
    model, _ = pair(family)
    tokens = batch(*lengths)
    together = attributions(model, tokens)
    for site, values in together.items():
        alone = torch.cat([attributions(model, tokens.row(i), sites=[site])[site] for i in range(len(tokens))])
        torch.testing.assert_close(values, alone, rtol=1e-3, atol=1e-4)


def test_an_answer_is_scored_alone():
    model, _ = pair("llama")
    tokens = batch(8, 5)
    masked = torch.zeros_like(tokens.keep)
    masked[0, 7:9] = masked[1, 5] = True
    by_keep = attributions(model, Tokens(tokens.ids, masked, "en", tokens.attention_mask, tokens.documents))
    for of in ({"d0": 2, "en/d1": 1}, answer_of):
        for site, values in attributions(model, tokens, of=of).items():
            torch.testing.assert_close(values, by_keep[site])
    whole = attributions(model, tokens)
    assert not torch.allclose(whole["ffn"], by_keep["ffn"], atol=1e-3)


def answer_of(tokens):
    mask = torch.zeros_like(tokens.keep)
    mask[0, 7:9] = mask[1, 5] = True
    return mask


def test_edits_in_force_apply():
    model, _ = pair("llama")
    tokens, off = batch(7), one(pair("llama")[0], "ffn", 0, 3)
    before = attributions(model, tokens)
    with deactivate(model, off):
        inside = attributions(model, tokens)
    assert inside["ffn"][0, 0, 3] == 0 != before["ffn"][0, 0, 3]
    assert not torch.equal(inside["q"][0, 1], before["q"][0, 1])
    assert torch.equal(attributions(model, tokens)["q"], before["q"])


@pytest.mark.parametrize("frozen", [False, True])
def test_no_gradient_is_left_behind(frozen):
    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    expected = attributions(pair("llama")[0], batch(6))
    model.requires_grad_(not frozen)
    with torch.no_grad():
        found = attributions(model, batch(6))
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        attributions(model, batch(6), sites=["v"])
    assert all(p.grad is None and p.requires_grad != frozen for p in model.parameters())
    assert not any(values.requires_grad for values in found.values())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    for site in NEURON_SITES:
        torch.testing.assert_close(found[site], expected[site])


def corpora():
    texts = {
        language: [" ".join(f"w{i}" for i in row[1:]) for row in rows(5, 7, 4, 9, seed=seed)]
        for seed, language in enumerate(("en", "de"))
    }
    return {language: Corpus(language, tuple(t)) for language, t in texts.items()}


def test_measure_collects_it_and_plnd_selects_from_it(llama):
    found = measure(llama, corpora(), attribution(top=0.25, size=3), progress=False)
    single = measure(llama, corpora(), attribution(top=0.25, size=1), progress=False)
    signed = measure(llama, corpora(), attribution(top=0.25, size=3, signed=True), progress=False)
    for language, value in found.items():
        assert int(value.documents) == 4
        for site in NEURON_SITES:
            torch.testing.assert_close(value.mean(site), single[language].mean(site), rtol=1e-3, atol=1e-5)
            assert (signed[language].mean(site).abs() <= value.mean(site) + 1e-12).all()
            assert (value.minimum[site] >= 0).all()
    assert any((signed["en"].mean(site) < 0).any() for site in NEURON_SITES)
    sets = specific(plnd(found, consensus=0.5))
    assert sets["en"]
    assert sets["en"] != sets["de"]


def test_what_decides_a_shard_is_recorded():
    whole, answers = attribution(), attribution(of={"d0": 2})
    assert whole.parameters() != answers.parameters()
    assert attribution(of=answer_of).parameters()["of"].endswith("test_attribution.answer_of")
    assert attribution(signed=True).parameters() != whole.parameters()


@pytest.mark.parametrize(
    ("of", "error"),
    [
        ("answer", r"of='answer' is unknown: give 'loss'"),
        ({"d0": 0}, r"the answer of document 'd0' has 0 tokens"),
        (lambda tokens: tokens.keep, r"has no name of its own: define the function in a module"),
    ],
)
def test_unknown_targets(of, error):
    with pytest.raises(ValueError, match=error):
        attribution(of=of)


def test_bad_statistics():
    with pytest.raises(ValueError, match="unknown site 'resid_post'"):
        attribution(sites=("resid_post",))
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        attribution(size=0)
    with pytest.raises(ValueError, match=r"top=1\.0 is not a share"):
        attribution(top=1.0)(pair("llama")[0], batch(5))


def test_bad_input(llama, monkeypatch):
    with pytest.raises(
        ValueError, match=r"no token of document 'd1' is predicted from another \(1 token\(s\), of='loss'\)"
    ):
        attributions(llama, batch(4, 0))
    with pytest.raises(ValueError, match=r"an answer of 5 tokens is all of document 'd0' \(5 tokens\): leave a prompt"):
        attributions(llama, batch(4), of={"d0": 5})
    with pytest.raises(ValueError, match=r"of names no answer for document 'd0': it has x, ..."):
        attributions(llama, batch(4), of={"x": 1})
    with pytest.raises(ValueError, match=r"boolean mask \[batch, pos\] \[1, 5\] .* got torch.int64 \[1, 5\]"):
        attributions(llama, batch(4), of=lambda tokens: tokens.ids)
    monkeypatch.setattr(llama.cfg, "architecture", "BertForMaskedLM")
    with pytest.raises(ValueError, match=r"BertForMaskedLM sees the tokens it predicts: .* a causal decoder"):
        attributions(llama, batch(4))


def test_half_precision_is_refused():
    half = load_model(families.hf_model("llama").bfloat16(), tokenizer=families.tokenizer())
    with pytest.raises(ValueError, match=r"a model in bfloat16 lose small effects: load it with dtype='float32'"):
        attributions(half, batch(4))


def test_experts_have_no_ffn_neurons():
    model = load_model(families.hf_model("mixtral"), tokenizer=families.tokenizer())
    with pytest.raises(NotImplementedError, match="mixture of experts"):
        attributions(model, batch(4))
    assert attributions(model, batch(4), sites=["q", "v"])["v"].abs().sum() > 0
