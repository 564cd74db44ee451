"""The first-order form is the derivative, its bounds hold, and where_needed selects the set that exact importances select."""

from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from conftest import document, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mwork_lens.attention import Attention, Rotation, of_layer, wanted
from mwork_lens.capture import capture
from mwork_lens.corpora import Tokens, batches, load_corpora
from mwork_lens.detect import queries_keys
from mwork_lens.detect.first_order import covers, estimate
from mwork_lens.detect.plnd import neuron_importance
from mwork_lens.stats import top_count


def as_attention(parts: oracles.Parts, dtype: torch.dtype = torch.float64) -> Attention:
    """The package's view of an oracle's parts (without norm: the first-order form knows none)."""

    def tensor(x: Any) -> torch.Tensor:
        return torch.tensor(x, dtype=dtype)

    rotation = (
        Rotation.of(*map(tensor, parts.tables()), parts.q.shape[2], parts.pairing) if parts.angles is not None else None
    )
    return Attention(
        layer=0, q=tensor(parts.q), k=tensor(parts.k), v=tensor(parts.v), W_O=tensor(parts.W_O), scale=parts.scale,
        cap=parts.cap, bias=tensor(parts.bias), rotation=rotation, q_norm=None, k_norm=None, norm_joins_heads=False,
    )  # fmt: skip


@st.composite
def st_parts(draw: Any, *, peaks: Any, offsets: Any = (0.0, 3.0, 10.0, 100.0)) -> oracles.Parts:
    return oracles.random_parts(
        draw(st.integers(0, 2**20)),
        kv=draw(st.integers(1, 3)),
        group=draw(st.integers(1, 3)),
        d_head=draw(st.sampled_from([2, 4, 6, 8])),
        length=draw(st.integers(1, 24)),
        rotary=draw(st.sampled_from([0, 2, None])),
        pairing=draw(st.sampled_from(["half-split", "adjacent"])),
        alibi=draw(st.booleans()),
        window=draw(st.sampled_from([None, None, 3])),
        peak=draw(st.sampled_from(list(peaks))),
        offset=draw(st.sampled_from(list(offsets))),
    )


def _estimates(att: Attention, site: str, *, bounds: bool = True) -> dict[str, np.ndarray]:
    owners = (att.q if site == "q" else att.k).shape[0]
    found = [estimate(att, site, owner, bounds=bounds) for owner in range(owners)]
    return {name: torch.stack([getattr(e, name) for e in found]).double().numpy() for name in ("value", "low", "high")}


# ---------------------------------------------------------------- the form


@settings(max_examples=50)
@given(parts=st_parts(peaks=(0.1, 1.0), offsets=(0.0, 0.5)), site=st.sampled_from(["q", "k"]), bounds=st.booleans())
def test_the_value_is_the_first_order_of_the_softmax(parts: oracles.Parts, site: str, bounds: bool) -> None:
    right = oracles.first_order(parts, site)
    found = _estimates(as_attention(parts), site, bounds=bounds)["value"]
    np.testing.assert_allclose(found, right, rtol=1e-6, atol=1e-8 * float(right.max()) + 1e-30)


@given(parts=st_parts(peaks=(1.0,), offsets=(0.0,)), site=st.sampled_from(["q", "k"]))
def test_it_is_the_limit_of_small_units(parts: oracles.Parts, site: str) -> None:
    """Scaled by 1e-4, one unit changes the attention as its first order says."""
    small = getattr(parts, site).copy()
    small[0, :, 0] *= 1e-4
    parts = replace(parts, **{site: small})
    exact = oracles.ablation(parts, site)["attention"][0, 0]
    found = _estimates(as_attention(parts), site)["value"][0, 0]
    np.testing.assert_allclose(found, exact, rtol=5e-3, atol=1e-10)


def test_large_units_are_beyond_it() -> None:
    """The control: this is why a bound is needed."""
    parts = oracles.random_parts(0, peak=5.0, length=12)
    exact, found = oracles.ablation(parts, "q")["attention"], _estimates(as_attention(parts), "q")["value"]
    assert np.max(np.abs(found - exact) / exact) > 0.5


def test_what_it_covers() -> None:
    assert covers(as_attention(oracles.random_parts(0)))
    assert not covers(as_attention(oracles.random_parts(0, cap=2.0)))
    assert not covers(replace(as_attention(oracles.random_parts(0)), q_norm=lambda x, head: x))
    assert not covers(replace(as_attention(oracles.random_parts(0)), k_norm=lambda x, head: x))


# ---------------------------------------------------------------- the bounds


@settings(max_examples=120)
@given(
    parts=st_parts(peaks=(0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0)),
    site=st.sampled_from(["q", "k"]),
    single=st.booleans(),
)
def test_the_exact_value_lies_between_the_bounds(parts: oracles.Parts, site: str, single: bool) -> None:
    """On random, biased and adversarially peaked attention, in both precisions, for every unit."""
    exact = oracles.ablation(parts, site)["attention"]
    found = _estimates(as_attention(parts, torch.float32 if single else torch.float64), site)
    assert (found["low"] <= exact * (1 + 1e-6) + 1e-12).all()
    assert (exact <= found["high"] * (1 + 1e-6) + 1e-12).all()


def test_a_key_whose_weight_underflowed_is_within_the_bounds() -> None:
    """A is exactly one-hot in floating point, so every moment is zero; yet the unit decides the row."""
    parts = oracles.random_parts(0, kv=1, group=1, d_head=2, length=2, rotary=0)
    q, k = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    q[0, 1], k[0, 0], k[0, 1] = (1.0, 1.0), (200.0, 0.0), (0.0, 50.0)
    found = _estimates(as_attention(replace(parts, q=q, k=k, scale=1.0), torch.float32), "q")
    assert found["low"][0, 0] <= 2**0.5 <= found["high"][0, 0] * (1 + 1e-6)


def test_the_bounds_are_tight_where_units_are_small() -> None:
    """The control of soundness: bounds of 0 and infinity would pass the tests above."""
    parts = oracles.random_parts(0, peak=0.2, length=20)
    for site in ("q", "k"):
        exact, found = oracles.ablation(parts, site)["attention"], _estimates(as_attention(parts), site)
        assert np.max((found["high"] - found["low"]) / exact) < 0.5


def test_without_bounds_they_say_nothing() -> None:
    found = _estimates(as_attention(oracles.random_parts(0)), "q", bounds=False)
    assert not found["low"].any()
    assert np.isinf(found["high"]).all()


@pytest.fixture(scope="module")
def passages(polyglot: Any) -> list[Tokens]:
    """One real document in each of four languages."""
    corpora = load_corpora(languages=["de", "en", "ru", "zh"], limit=2)
    return [list(batches(corpus, polyglot, size=1))[i % 2] for i, corpus in enumerate(corpora.values())]


@pytest.fixture(scope="module")
def exact(polyglot: Any, passages: list[Tokens]) -> list[dict[str, torch.Tensor]]:
    """Their exact importances."""
    return [neuron_importance(polyglot, tokens, measure="attention", sites=("q", "k")) for tokens in passages]


def test_the_bounds_hold_on_the_trained_model(polyglot: Any, passages: list[Tokens], exact: Any) -> None:
    for tokens, right in zip(passages, exact, strict=True):

        def on_layer(layer: int, seen: Any, right: Any = right) -> None:
            att = of_layer(polyglot, layer, seen)
            for site in ("q", "k"):
                found, true = _estimates(att, site), right[site][layer].double().numpy()
                assert (found["low"].ravel() <= true * (1 + 1e-4)).all()
                assert (true <= found["high"].ravel() * (1 + 1e-4)).all()

        capture(polyglot, tokens, wanted(polyglot), on_layer)


# ---------------------------------------------------------------- where_needed


def _assert_same_top(found: np.ndarray, exact: np.ndarray, count: int) -> None:
    """The sets are equal; a unit may stand for another only where rounding cannot tell them apart."""
    chosen = set(np.argsort(-found, kind="stable")[:count].tolist())
    right = set(np.argsort(-exact, kind="stable")[:count].tolist())
    for unit in chosen ^ right:
        cut = np.sort(exact)[::-1][count - 1]
        assert exact[unit] == pytest.approx(cut, rel=1e-4, abs=1e-6), (sorted(chosen - right), sorted(right - chosen))


@settings(max_examples=100)
@given(
    parts=st_parts(peaks=(0.1, 1.0, 3.0, 10.0, 30.0, 100.0)), site=st.sampled_from(["q", "k"]),
    share=st.sampled_from([0.1, 0.3, 0.5]), single=st.booleans(),
)  # fmt: skip
def test_where_needed_selects_the_exact_set(parts: oracles.Parts, site: str, share: float, single: bool) -> None:
    exact = oracles.ablation(parts, site)["attention"].ravel()
    if max(1, round(share * exact.size)) >= exact.size:
        return
    att = as_attention(parts, torch.float32 if single else torch.float64)
    found = queries_keys.estimated_change(att, site, share).flatten().double().numpy()
    _assert_same_top(found, exact, top_count(share, exact.size))


def test_where_needed_selects_the_exact_set_of_the_trained_model(
    polyglot: Any, passages: list[Tokens], exact: Any
) -> None:
    for tokens, right in zip(passages, exact, strict=True):
        found = neuron_importance(
            polyglot, tokens, measure="attention", sites=("q", "k"), exact="where_needed", top=0.1
        )
        for site in ("q", "k"):
            count = top_count(0.1, right[site].shape[1])
            for layer in range(len(right[site])):
                _assert_same_top(found[site][layer].numpy(), right[site][layer].numpy(), count)


def test_where_needed_leaves_units_to_first_order(
    polyglot: Any, passages: list[Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: if all units were exact, equal sets would say nothing about the bound."""
    evaluated = []
    change = queries_keys.attention_change
    monkeypatch.setattr(
        queries_keys, "attention_change", lambda att, changes: evaluated.append(len(changes[0])) or change(att, changes)
    )
    neuron_importance(polyglot, passages[0], measure="attention", sites=("q",), exact="where_needed", top=0.1)
    assert 0 < sum(evaluated) < 0.6 * 8 * 128


def test_first_order_ranks_like_exact_beyond_the_first_layer(polyglot: Any, passages: list[Tokens], exact: Any) -> None:
    ranks = []
    for tokens, right in zip(passages, exact, strict=True):
        first = neuron_importance(polyglot, tokens, measure="attention", sites=("q", "k"), exact="never")
        ranks.append([[spearmanr(a, b).statistic for a, b in zip(first[s], right[s], strict=True)] for s in ("q", "k")])
    by_layer = np.array(ranks).mean(0)
    assert by_layer[:, 1:].mean() >= 0.99
    assert np.array(ranks)[:, :, 1:].min() >= 0.975  # a single layer of a single document
    assert (by_layer[:, 0] < by_layer[:, 1:].min(1)).all()  # the first layer's units move scores most


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "olmo2"])
def test_a_norm_or_cap_makes_where_needed_exact_and_never_impossible(family: str) -> None:
    model = pair(family)[0]
    sites = ("q", "k")
    right = neuron_importance(model, document(), measure="attention", sites=sites)
    found = neuron_importance(model, document(), measure="attention", sites=sites, exact="where_needed", top=0.2)
    for site in sites:
        assert torch.equal(found[site], right[site])
    with pytest.raises(ValueError, match=r"layer 0 has a q/k norm or a soft-cap.*use exact='always'"):
        neuron_importance(model, document(), measure="attention", sites=sites, exact="never")
