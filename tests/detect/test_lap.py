"""LAP in both readings is what a loop over units says."""

import numpy as np
import planted as made
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import PLANTED, documents_from, moments_from, moments_of, units

from mwork_lens.detect.lap import lap

counts = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).integers(0, 21, (2, 10, 3)))


@given(table=counts, bar=st.sampled_from([0.3, 0.75, 0.95]))
def test_lap_is_what_a_naive_loop_says(table, bar):
    moments = moments_of(table, [20, 20, 20])
    every = [(i, j) for i in range(2) for j in range(10)]
    absolute = {f"l{k}": [at for at in every if table[at][k] / 20 > bar] for k in range(3)}
    assert units(lap(moments, bar=bar)) == absolute
    percentile = {}
    for k in range(3):
        ranked = sorted(table[at][k] / 20 for at in every)
        percentile[f"l{k}"] = [at for at in every if table[at][k] / 20 > ranked[round(20 * bar) - 1]]
    assert units(lap(moments, reading="percentile", bar=bar)) == percentile


def test_the_readings_differ():
    table = np.tile(np.arange(1, 101)[None, :, None], (1, 1, 2))
    moments = moments_of(table, [1000, 100])
    assert {name: len(found) for name, found in lap(moments).items()} == {"l0": 0, "l1": 5}
    assert {name: len(found) for name, found in lap(moments, reading="percentile").items()} == {"l0": 5, "l1": 5}


def test_one_language_will_do():
    assert units(lap(moments_of(np.array([[[10], [3]]]), [10]))) == {"l0": [(0, 0)]}


def test_a_unit_that_never_fires_is_never_selected():
    table = np.zeros((1, 20, 2), dtype=int)
    for reading in ("absolute", "percentile"):
        assert units(lap(moments_of(table, [10, 10]), reading=reading)) == {"l0": [], "l1": []}


@pytest.mark.parametrize("per", ["token", "document"])
def test_planted_neurons_are_found_and_shuffled_labels_find_none(per):
    """The planted ones fire on 98 % of their tokens; mixed over three languages, on 34 %, as the rest do."""
    moments = documents_from(made.planted())
    assert units(lap(moments, per=per)) == PLANTED
    assert units(lap(moments, reading="percentile", bar=0.99, per=per)) == PLANTED
    assert not any(lap(documents_from(made.shuffled(made.planted())), per=per).values())


def test_the_percentile_always_selects_its_share_also_of_nothing():
    """With shuffled labels the 1 % most active are still selected; they are the most active of all languages alike, by a hair."""
    false = moments_from(made.shuffled(made.planted()))
    assert all(len(found) <= 2 for found in lap(false, reading="percentile", bar=0.99).values())
    for name, found in lap(false, reading="percentile", bar=0.99).items():
        assert false[name].probability("ffn_act")[found.masks["ffn"]].max() < 0.4


def test_bad_choices_are_refused():
    moments = moments_of(np.ones((1, 4, 2), dtype=int), [10, 10])
    with pytest.raises(ValueError, match=r"bar=95.0 is not a share: give a number between 0 and 1, such as 0.95"):
        lap(moments, bar=95.0)
    with pytest.raises(ValueError, match=r"reading='top' is unknown: choose 'absolute' \(P > bar\) or 'percentile'"):
        lap(moments, reading="top")
