"""The penalised entropy is its formula, and needs no filter."""

import math

import numpy as np
import planted as made
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import PLANTED, moments_from, moments_of, units

from mwork_lens.detect.lape import effective_languages, language_entropy, probabilities, select
from mwork_lens.detect.penalised import penalised, penalised_entropy


@given(
    rows=st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5),
    penalty=st.sampled_from([0.0, 0.109375, 1.0]),
)
def test_the_score_is_the_formula(rows, penalty):
    found = penalised_entropy(torch.tensor([rows], dtype=torch.float64), penalty=penalty)[0].tolist()
    for row, value in zip(rows, found, strict=True):
        if not max(row):
            assert value == 1  # never fires: the worst score
            continue
        q = [x / sum(row) for x in row]
        entropy = -sum(x * math.log(x) for x in q if x) / math.log(3)
        assert value == pytest.approx(entropy - penalty * max(row) / ((1 + 1 / 2 + 1 / 3) / 3), abs=1e-12)
        assert value <= 1 + 1e-12


def test_without_a_penalty_the_ranking_is_lapes_without_its_filter():
    p = torch.rand(2, 100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine = select(p, penalised_entropy(p, penalty=0.0), filter_rate=None)
    lapes = select(p, language_entropy(p), filter_rate=None)
    assert torch.equal(mine.lists, lapes.lists)
    strict = select(p, penalised_entropy(p, penalty=1.0), filter_rate=None)
    assert not torch.equal(strict.lists, mine.lists)


def test_the_reward_prefers_the_active_of_two_equally_specific_units():
    counts = torch.full((1, 100, 2), 1000)
    counts[0, 10] = torch.tensor([40, 4])  # as specific as unit 20, but rare
    counts[0, 20] = torch.tensor([2000, 200])
    moments = moments_of(counts, [4000, 4000])
    assert units(penalised(moments)) == {"l0": [(0, 20)], "l1": []}
    assert units(penalised(moments, penalty=0.0)) == {
        "l0": [],
        "l1": [],
    }  # a tie: the lower unit, which is above the bar nowhere


def test_dead_units_are_never_selected():
    counts = torch.full((1, 100, 2), 500)
    counts[0, :95] = 0
    p = probabilities(moments_of(counts, [2000, 2000]))
    with pytest.warns(
        UserWarning, match="only 5 units exceed the filter's threshold 0 in some language, fewer than the 10"
    ):
        found = select(p, penalised_entropy(p), rate=0.1, filter_rate=None)
    assert found.chosen.nonzero()[:, 1].tolist() == [95, 96, 97, 98, 99]


def test_planted_neurons_are_found_exactly_and_shuffled_labels_find_nothing_specific():
    assert units(penalised(moments_from(made.planted()), rate=0.03)) == PLANTED
    false = moments_from(made.shuffled(made.planted()))
    p = probabilities(false)
    found = select(p, penalised_entropy(p), rate=0.03, filter_rate=None)
    assert effective_languages(language_entropy(p)[found.chosen]).min() > 2.95


def test_bad_input_is_refused():
    moments = moments_of(np.ones((1, 100, 2), dtype=int), [2000, 2000])
    with pytest.raises(ValueError, match=r"penalty=-1.0 would reward units that never fire: give 0 or more"):
        penalised(moments, penalty=-1.0)
    with pytest.raises(ValueError, match="penalised entropy compares languages and got l0"):
        penalised({"l0": moments["l0"]})
    with pytest.raises(ValueError, match="penalised entropy compares languages and got 1: give two or more"):
        penalised_entropy(torch.ones(1, 2, 1))
