"""Sums document by document: the same numbers as the pooled ones, and as a loop over tokens."""

import pytest
import torch
from conftest import pair
from hypothesis import given
from hypothesis import strategies as st
from test_unwrapped import batch

from mwork_lens.collect import document_moments, moments
from mwork_lens.corpora import Tokens
from mwork_lens.sites import hook_name
from mwork_lens.storage import Run, load, save
from mwork_lens.strata import DocumentMoments

SITES = ("ffn_act", "k", "resid_post")


@pytest.fixture(scope="module")
def both():
    model, _ = pair("llama")
    return document_moments(*SITES)(model, batch()), moments(*SITES)(model, batch())


def test_documents_add_up_to_the_pooled_moments(both):
    by_document, pooled = both
    assert by_document.tokens == pooled.tokens == 19
    assert by_document.documents == ("9", "4", "6")
    assert by_document.n.tolist() == [9, 4, 6]
    assert by_document.sites == pooled.sites == SITES
    for site in SITES:
        assert torch.equal(by_document.counts(site), pooled.counts(site))
        assert torch.equal(by_document.probability(site), pooled.probability(site))
        assert torch.allclose(by_document.mean(site), pooled.mean(site), atol=1e-6)


def test_one_forward_gives_both(both):
    together = both[0].moments()
    assert together.n == both[1].n
    for site in SITES:
        assert torch.equal(together.positive[site], both[1].positive[site])
        for name in ("total", "square", "rectified"):
            assert torch.allclose(getattr(together, name)[site], getattr(both[1], name)[site], rtol=1e-9)
    parts = [document_moments(*SITES)(pair("llama")[0], batch().row(i)) for i in range(3)]
    again = (parts[0] + parts[1] + parts[2]).moments()
    assert torch.allclose(again.square["k"], together.square["k"], rtol=1e-4)
    with pytest.raises(ValueError, match="taken out of a larger set"):
        both[0].take([0, 1]).moments()


def test_each_document_is_a_naive_loop_over_its_tokens(both):
    model, tokens = pair("llama")[0], batch()
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens.ids, attention_mask=tokens.mask.long())
    values = torch.nn.functional.silu(cache[hook_name("ffn_gate", 1)]).double()
    for i, length in enumerate((9, 4, 6)):
        for unit in (0, 7, 43):
            kept = [values[i, p, unit].item() for p in range(1, length + 1)]
            assert both[0].shares("ffn_act")[i, 1, unit].item() == pytest.approx(sum(v > 0 for v in kept) / length)
            assert both[0].means("ffn_act")[i, 1, unit].item() == pytest.approx(sum(kept) / length, abs=1e-6)


def test_rectified_and_firing_mean_are_a_naive_loop(both):
    model, tokens = pair("llama")[0], batch()
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens.ids, attention_mask=tokens.mask.long())
    values = torch.nn.functional.silu(cache[hook_name("ffn_gate", 0)]).double()[tokens.keep]
    positive = values.clamp_min(0)
    assert torch.allclose(both[1].rectified["ffn_act"][0], positive.sum(0), atol=1e-5)
    expected = torch.stack(
        [column[column > 0].mean() if (column > 0).any() else column.new_zeros(()) for column in values.T]
    )
    assert torch.allclose(both[1].firing_mean("ffn_act")[0], expected, atol=1e-5)
    assert bool((both[1].rectified["ffn_act"] >= both[1].total["ffn_act"]).all())


def made(names, seed=0):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.randint(0, 5, (len(names), 2, 3), generator=generator, dtype=torch.int32)
    return DocumentMoments(tuple(names), torch.full((len(names),), 5), {"ffn": positive}, {"ffn": positive.float()})


@given(cut=st.integers(1, 4), order=st.permutations(range(5)))
def test_adding_and_taking_documents_lose_nothing(cut, order):
    whole = made("abcde")
    again = whole.take(range(cut)) + whole.take(range(cut, 5))
    assert again.documents == whole.documents
    assert torch.equal(again.positive["ffn"], whole.positive["ffn"])
    assert torch.equal(whole.take(order).counts("ffn"), whole.counts("ffn"))
    assert whole.take(order).documents == tuple("abcde"[i] for i in order)
    assert len(whole.take([1, 1])) == 2  # a bootstrap draws a document twice


def test_what_does_not_add_is_refused():
    whole = made("ab")
    with pytest.raises(ValueError, match="document 'b' is in both: its tokens would count twice"):
        whole + made("bc")
    other = DocumentMoments(
        ("c",), torch.tensor([5]), {"ffn": torch.zeros(1, 2, 4, dtype=torch.int32)}, {"ffn": torch.zeros(1, 2, 4)}
    )
    with pytest.raises(ValueError, match=r"differ in site 'ffn': \[layer, width\] \[2, 3\] vs \[2, 4\]"):
        whole + other
    with pytest.raises(ValueError, match="2 documents but 1 token counts"):
        DocumentMoments(("a", "b"), torch.tensor([5]), {}, {})
    with pytest.raises(TypeError):
        whole + 1


def test_a_document_without_tokens_is_named(llama):
    keep = torch.tensor([[False, True], [False, False]])
    with pytest.raises(ValueError, match="document 'b' keeps no token"):
        document_moments("ffn")(llama, Tokens(torch.tensor([[1, 5], [1, 6]]), keep, documents=("a", "b")))


def test_they_survive_the_disk(tmp_path, both):
    save({"de": both[0]}, tmp_path / "x.safetensors", Run("moments"))
    back = load(tmp_path / "x.safetensors")["de"]
    assert back.documents == both[0].documents
    assert back.model == both[0].model
    for site in SITES:
        assert torch.equal(back.positive[site], both[0].positive[site])
        assert torch.equal(back.total[site], both[0].total[site])
        assert torch.equal(back.moments().square[site], both[0].moments().square[site])
    save(both[1], tmp_path / "y.safetensors", Run("moments"))
    assert torch.equal(load(tmp_path / "y.safetensors").rectified["k"], both[1].rectified["k"])
