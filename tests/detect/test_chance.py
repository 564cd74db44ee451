"""Random controls: matched in everything but the claim, and p-values that mean what they say."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.detect.chance import chance, matched_random, p_value
from mwork_lens.neurons import NeuronSet
from mwork_lens.stats import Moments

SHAPES = {"k": (3, 7), "ffn": (3, 23)}
UNITS = [
    (site, layer, unit) for site, (layers, width) in SHAPES.items() for layer in range(layers) for unit in range(width)
]
targets = st.sets(st.sampled_from(UNITS)).map(lambda units: NeuronSet.of(units, SHAPES, model="m"))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def per_place(neurons):
    return Counter((site, layer) for site, layer, _ in neurons)


def frequencies(seed, *, ties=False):
    rng = np.random.default_rng(seed)
    made = {site: rng.random(shape) for site, shape in SHAPES.items()}
    return {site: torch.from_numpy(x.round(1) if ties else x) for site, x in made.items()}


def bin_of(values, unit):
    """Tenth of the layer, by rank; ties in the order of the units (the oracle)."""
    ranked = sorted(range(len(values)), key=lambda i: (float(values[i]), i))
    return ranked.index(unit) * min(10, len(values)) // len(values)


def histogram(neurons, like):
    return Counter((site, layer, bin_of(like[site][layer].tolist(), unit)) for site, layer, unit in neurons)


@given(target=targets, seed=st.integers(0, 1000))
def test_a_control_has_as_many_neurons_everywhere(target, seed):
    drawn = matched_random(target, generator=seeded(seed))
    assert per_place(drawn) == per_place(target)
    assert drawn.shapes == target.shapes
    assert drawn.model == "m"
    assert drawn == matched_random(target, generator=seeded(seed))


@given(target=targets, seed=st.integers(0, 1000), ties=st.booleans())
def test_frequency_matching_keeps_the_histogram(target, seed, ties):
    like = frequencies(seed, ties=ties)
    drawn = matched_random(target, like=like, generator=seeded(seed))
    assert histogram(drawn, like) == histogram(target, like)
    assert per_place(drawn) == per_place(target)


def test_without_frequency_matching_the_histogram_moves():
    like = frequencies(0)
    frequent = NeuronSet({site: x >= x.quantile(0.8, dim=1, keepdim=True) for site, x in like.items()})
    loose = [matched_random(frequent, generator=seeded(i)) for i in range(5)]
    assert all(histogram(drawn, like) != histogram(frequent, like) for drawn in loose)
    matched = [matched_random(frequent, like=like, generator=seeded(i)) for i in range(5)]
    assert len({tuple(drawn) for drawn in matched}) > 1  # matched, and still random


def test_draws_differ_and_follow_the_generator():
    target = NeuronSet.of([u for i, u in enumerate(UNITS) if i % 3 == 0], SHAPES)
    generator = seeded(0)
    draws = [matched_random(target, generator=generator) for _ in range(10)]
    assert len({tuple(drawn) for drawn in draws}) == 10
    generator = seeded(0)
    assert [tuple(matched_random(target, generator=generator)) for _ in range(10)] == [tuple(drawn) for drawn in draws]
    assert tuple(matched_random(target, generator=seeded(1))) != tuple(draws[0])
    state = torch.get_rng_state()
    matched_random(target, generator=generator)
    assert torch.equal(state, torch.get_rng_state())  # the global generator is left alone


def test_draws_stay_what_they_were():
    """Reference values of the first release: a seed is a promise."""
    target = NeuronSet.of([("ffn", 0, u) for u in range(5)] + [("k", 2, 3)], SHAPES)
    assert [unit for _, _, unit in matched_random(target, generator=seeded(0))] == [4, 2, 6, 12, 17, 22]
    assert [unit for _, _, unit in matched_random(target, like=frequencies(0), generator=seeded(0))] == [
        3,
        2,
        3,
        7,
        14,
        18,
    ]


@pytest.mark.gpu
def test_generators_and_frequencies_may_be_on_a_gpu():
    target, like = NeuronSet.of(UNITS[::2], SHAPES), frequencies(0)
    there = {site: x.cuda() for site, x in like.items()}
    assert matched_random(target, like=there, generator=seeded(0)) == matched_random(
        target, like=like, generator=seeded(0)
    )
    drawn = [matched_random(target, like=x, generator=torch.Generator("cuda").manual_seed(0)) for x in (like, there)]
    assert drawn[0] == drawn[1]
    assert histogram(drawn[0], like) == histogram(target, like)


@given(target=targets, banned=targets, seed=st.integers(0, 1000))
def test_excluded_neurons_are_never_drawn(target, banned, seed):
    need, left = per_place(target), per_place(~banned)
    if any(left[place] < count for place, count in need.items()):
        with pytest.raises(ValueError, match="neurons to match but only"):
            matched_random(target, exclude=banned, generator=seeded(seed))
        return
    drawn = matched_random(target, exclude=banned, generator=seeded(seed))
    assert not drawn & banned
    assert per_place(drawn) == need


def test_every_unit_is_as_likely():
    target = NeuronSet.of([("ffn", 0, u) for u in range(5)], {"ffn": (1, 20)})
    generator, draws = seeded(0), 2000
    seen = Counter(unit for _ in range(draws) for _, _, unit in matched_random(target, generator=generator))
    assert set(seen) == set(range(20))  # the target's own units included
    assert scipy.stats.chisquare([seen[u] for u in range(20)]).pvalue > 0.001


def test_moments_say_how_often():
    positive = {site: torch.randint(0, 100, shape, generator=seeded(3)) for site, shape in SHAPES.items()}
    zeros = {site: torch.zeros(shape, dtype=torch.float64) for site, shape in SHAPES.items()}
    target = NeuronSet.of(UNITS[::2], SHAPES)
    like = Moments(torch.tensor(100), positive, zeros, dict(zeros), dict(zeros))
    drawn = matched_random(target, like=like, generator=seeded(0))
    assert drawn == matched_random(target, like={s: p.double() for s, p in positive.items()}, generator=seeded(0))
    assert histogram(drawn, positive) == histogram(target, positive)
    assert drawn != matched_random(target, generator=seeded(0))


def test_too_few_left_is_said_with_the_place():
    target = NeuronSet.of([("k", 1, 0), ("k", 1, 1)], SHAPES)
    crowd = NeuronSet.of([("k", 1, u) for u in range(6)], SHAPES)
    with pytest.raises(
        ValueError, match="site 'k', layer 1: 2 neurons to match but only 1 to draw from; exclude fewer"
    ):
        matched_random(target, exclude=crowd, generator=seeded(0))


def test_a_missing_frequency_is_named():
    target = NeuronSet.of([("k", 1, 0)], SHAPES)
    like = {"ffn": frequencies(0)["ffn"]}
    with pytest.raises(
        ValueError, match=r"no activation frequencies for site 'k', only ffn: measure moments\('k'\) too"
    ):
        matched_random(target, like=like, generator=seeded(0))


# --- p-values


@given(
    observed=st.integers(-5, 5).map(float),
    draws=st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30),
    larger=st.booleans(),
)
def test_p_is_a_count(observed, draws, larger):
    extreme = 0
    for draw in draws:
        if draw == observed or (draw > observed) == larger:
            extreme += 1
    found = p_value(observed, draws, larger=larger)
    assert found == (extreme + 1) / (len(draws) + 1)
    assert 1 / (len(draws) + 1) <= found <= 1
    assert found == p_value(-observed, [-draw for draw in draws], larger=not larger)


@pytest.mark.parametrize("larger", [True, False])
def test_p_is_that_of_scipy(larger):
    theirs = scipy.stats.monte_carlo_test(
        [0.9, 0.3, 0.5],
        np.random.default_rng(0).standard_normal,
        np.mean,
        n_resamples=199,
        alternative="greater" if larger else "less",
    )
    assert p_value(float(theirs.statistic), theirs.null_distribution.tolist(), larger=larger) == pytest.approx(
        theirs.pvalue
    )


def test_p_of_nothing_special_is_uniform():
    """A random set among its own controls: P(p <= a) = a. And the negative control: the set with the largest weights is always special."""
    draws, trials, p, special = 19, 200, [], []
    generator = seeded(0)
    template = NeuronSet.of([("ffn", 0, u) for u in range(6)], {"ffn": (1, 24)})
    for _ in range(trials):
        worth = torch.rand(1, 24, generator=generator, dtype=torch.float64)

        def score(neurons, worth=worth):
            return float(worth[neurons.masks["ffn"]].sum())

        target = matched_random(template, generator=generator)
        chance = [score(matched_random(target, generator=generator)) for _ in range(draws)]
        p.append(p_value(score(target), chance))
        best = NeuronSet({"ffn": worth >= worth.sort(descending=True).values[:, 5:6]})
        special.append(p_value(score(best), chance))
    counts = Counter(round(value * (draws + 1)) for value in p)
    assert set(counts) <= set(range(1, draws + 2))
    assert scipy.stats.chisquare([counts[i] for i in range(1, draws + 2)]).pvalue > 0.001
    assert np.mean([value <= 0.1 for value in p]) == pytest.approx(0.1, abs=0.05)
    assert np.mean([value <= 0.05 for value in special]) > 0.95


def test_a_p_value_needs_draws():
    with pytest.raises(ValueError, match="needs random draws: give at least one, better ten"):
        p_value(1.0, [])


# --- the random baseline as a detector


SHAPE = {"ffn": (3, 30)}


def scattered(seed, count):
    places = torch.randperm(90, generator=seeded(seed))[:count].tolist()
    return NeuronSet.of([("ffn", place // 30, place % 30) for place in places], SHAPE)


def test_chance_matches_what_it_is_asked_to():
    sets = {"de": scattered(0, 12), "fr": scattered(1, 7)}
    positive = {"ffn_act": torch.randint(0, 50, (3, 30), generator=seeded(2))}
    zeros = {"ffn_act": torch.zeros(3, 30, dtype=torch.float64)}
    moments = {language: Moments(torch.tensor(50), positive, zeros, zeros, zeros) for language in sets}
    for match in ("site", "layer", "frequency"):
        drawn = chance(sets, match=match, moments=moments)
        assert {language: len(found) for language, found in drawn.items()} == {"de": 12, "fr": 7}
        same = [torch.equal(drawn[x].counts()["ffn"], sets[x].counts()["ffn"]) for x in sets]
        assert all(same) == (match != "site")
        assert drawn == chance(sets, match=match, moments=moments)
        assert drawn != chance(sets, match=match, moments=moments, seed=1)
    exact = chance(sets, match="frequency", moments=moments)["de"]
    assert histogram(exact, {"ffn": positive["ffn_act"]}) == histogram(sets["de"], {"ffn": positive["ffn_act"]})


def test_chance_draws_from_the_neurons_it_may():
    among = scattered(5, 40)
    for match in ("site", "layer"):
        assert chance({"de": scattered(0, 6)}, match=match, among=among)["de"] <= among


def test_chance_says_what_it_lacks():
    sets = {"de": scattered(0, 6)}
    with pytest.raises(ValueError, match="match='width': choose site, layer or frequency"):
        chance(sets, match="width")
    with pytest.raises(ValueError, match="match='frequency' needs moments of 'de': there are none"):
        chance(sets, match="frequency")
    with pytest.raises(ValueError, match="site 'ffn': 6 neurons to match but only 2 to draw from"):
        chance(sets, match="site", among=scattered(3, 2))
