"""Rankings against their definitions, spelled out unit by unit, and against SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mwork_lens.rankings import Cells, auroc, average_precision, interval, spearman


def naive_auroc(score, positive):
    """Every positive against every negative."""
    won = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, p in zip(score, positive, strict=True)
        if p
        for b, q in zip(score, positive, strict=True)
        if not q
    ]
    return sum(won) / len(won)


def naive_ap(score, positive):
    """Precision at every threshold, weighted by the recall it adds."""
    total, before = 0.0, 0.0
    for bar in sorted(set(score), reverse=True):
        taken = [p for s, p in zip(score, positive, strict=True) if s >= bar]
        recall = sum(taken) / sum(positive)
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


marked = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=25).filter(
    lambda rows: len({p for _, p in rows}) == 2
)


@given(marked)
def test_areas_and_precisions_are_their_definitions(rows):
    score, positive = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])
    both = np.stack([positive, ~positive])
    np.testing.assert_allclose(auroc(score, both), [naive_auroc(score, row) for row in both])
    np.testing.assert_allclose(average_precision(score, both), [naive_ap(score, row) for row in both])
    np.testing.assert_allclose(auroc(-score, both), 1 - auroc(score, both))
    np.testing.assert_allclose(auroc(np.exp(score), both), auroc(score, both))  # monotone


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=20))
def test_rank_correlation_is_scipys(rows):
    a, b = np.array(rows, dtype=float).T
    found = spearman(np.stack([a, b]), b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(found[0])
    else:
        assert found[0] == pytest.approx(spearmanr(a, b).statistic)
        assert found[1] == pytest.approx(1)


def test_within_cells_knowing_the_layers_earns_nothing():
    cells = Cells(((2, 5), (2, 3)))
    assert [(c.start, c.stop) for c in cells.slices] == [(0, 5), (5, 10), (10, 13), (13, 16)]
    level = np.repeat([0.0, 100.0, 200.0, 300.0], [5, 5, 3, 3])
    effect = level + np.random.default_rng(0).normal(size=16)
    score = level + np.random.default_rng(1).normal(size=16)
    assert spearman(effect[None], score)[0] > 0.9
    expected = np.mean([spearmanr(effect[c], score[c]).statistic for c in cells.slices])
    assert cells.within(effect[None], score)[0] == pytest.approx(expected)
    score[cells.slices[1]] = 7.0  # a constant cell does not count
    expected = np.mean([spearmanr(effect[c], score[c]).statistic for i, c in enumerate(cells.slices) if i != 1])
    assert cells.within(effect[None], score)[0] == pytest.approx(expected)


def test_an_interval_leaves_out_what_has_no_value():
    values = np.append(np.arange(101.0), np.nan)
    assert interval(values) == pytest.approx((2.5, 97.5))
    assert np.isnan(interval(values[-1:])).all()
