"""LAVE: LAPE of mean activations, with the sign handled as named."""

import math
from dataclasses import replace

import numpy as np
import planted as made
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import PLANTED, documents_from, moments_from, moments_of, units

from mwork_lens.detect.lape import effective_languages, language_entropy, select
from mwork_lens.detect.lave import activation_values, lave

SIGNS = {
    "rectified": lambda rows: np.maximum(rows, 0).mean(0),
    "clamp": lambda rows: np.maximum(rows.mean(0), 0),
    "absolute": lambda rows: np.abs(rows.mean(0)),
}


@given(seed=st.integers(0, 1000), sign=st.sampled_from(sorted(SIGNS)))
def test_values_are_what_a_loop_over_tokens_says(seed, sign):
    rng = np.random.default_rng(seed)
    texts = {name: [rng.normal(size=(n, 2, 4)) for n in (3, 8)] for name in ("en", "de")}
    found = activation_values(moments_from(texts), sign=sign)
    for k, documents in enumerate(texts.values()):
        np.testing.assert_allclose(found[..., k], SIGNS[sign](np.concatenate(documents)), rtol=1e-12, atol=1e-15)


def test_the_signs_differ_where_they_should():
    """A unit that fires rarely but strongly, over a negative tail: kept by `rectified`, lost by `clamp`, silence counted by `absolute`."""
    rows = np.full((100, 1, 2), -0.2)
    rows[:5, 0, 0] = 2.0  # unit 0 fires on 5 %, unit 1 never
    moments = moments_from({"en": [rows], "de": [-rows]})
    value = {sign: activation_values(moments, sign=sign)[0, :, 0].tolist() for sign in SIGNS}
    assert value["rectified"] == pytest.approx([0.1, 0])
    assert value["clamp"] == pytest.approx([0, 0])
    assert value["absolute"] == pytest.approx([0.09, 0.2])
    assert torch.equal(activation_values(moments), activation_values(moments, sign="rectified"))


@pytest.mark.parametrize("sign", sorted(SIGNS))
def test_planted_neurons_are_found_exactly_and_shuffled_labels_find_nothing_specific(sign):
    true, false = moments_from(made.planted()), moments_from(made.shuffled(made.planted()))
    assert units(lave(true, sign=sign, rate=0.03)) == PLANTED
    values = activation_values(false, sign=sign)
    found = select(values, language_entropy(values), rate=0.03)
    assert effective_languages(found.score[found.chosen]).min() > 2.95
    chosen = {unit for part in units(lave(false, sign=sign, rate=0.03)).values() for unit in part}
    assert len(chosen & {unit for part in PLANTED.values() for unit in part}) <= 3


def test_lave_ranks_by_size_where_lape_sees_no_difference():
    """Every unit fires on half of the tokens everywhere; one is five times as strong in one language."""
    mean = np.ones((1, 100, 3))
    mean[0, 42] = [5, 1, 1]
    moments = moments_of(np.full((1, 100, 3), 1000), [2000] * 3, mean=mean)
    with pytest.warns(
        UserWarning, match="only 1 units exceed the filter's threshold 1 in some language, fewer than the 2"
    ):
        assert units(lave(moments, rate=0.02)) == {"l0": [(0, 42)], "l1": [], "l2": []}
    q = [5 / 7, 1 / 7, 1 / 7]
    assert language_entropy(activation_values(moments))[0, 42].item() == pytest.approx(-sum(x * math.log(x) for x in q))


def test_the_default_site_is_behind_the_activation_function():
    counts = np.random.default_rng(0).integers(0, 2000, (1, 200, 2))
    for site in ("ffn", "ffn_gate"):
        moments = moments_of(counts, [2000, 2000], site=site)
        with pytest.raises(ValueError, match=rf"only {site} was measured, not 'ffn_act': measure moments\('ffn_act'\)"):
            lave(moments)
        assert any(lave(moments, site=site).values())
    assert lave(moments_of(counts, [2000, 2000]))["l0"].sites == ("ffn",)


def test_documents_serve_as_moments_until_some_are_taken_out():
    pooled = moments_from(made.planted())
    strata = {x: replace(held, pooled=pooled[x]) for x, held in documents_from(made.planted()).items()}
    assert lave(strata, rate=0.03) == lave(pooled, rate=0.03)
    fewer = {x: held.take(range(len(held) - 1)) for x, held in strata.items()}
    with pytest.raises(ValueError, match=r"positive part, which is lost where documents were taken out \('en'\)"):
        lave(fewer)
    strata = fewer
    assert units(lave(strata, sign="clamp", rate=0.03)) == PLANTED


def test_bad_input_is_refused():
    moments = moments_of(np.ones((1, 100, 2), dtype=int), [2000, 2000])
    with pytest.raises(ValueError, match="sign='square' is unknown: choose from rectified, clamp, absolute"):
        lave(moments, sign="square")
    with pytest.raises(ValueError, match="LAVE compares languages and got l0"):
        lave({"l0": moments["l0"]})


def test_few_tokens_are_warned_of():
    counts = np.random.default_rng(0).integers(0, 500, (1, 200, 2))
    with pytest.warns(UserWarning, match=r"too few tokens for a threshold of 0.5: l1 500; 1000 per language"):
        lave(moments_of(counts, [2000, 500]))
