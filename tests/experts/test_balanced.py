"""Balanced k-means: exact sizes, exact assignments, and nothing that depends on the order of the rows."""

import itertools
import sys
import time
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mwork_lens.experts import balanced
from mwork_lens.experts.balanced import assign, balanced_kmeans, balanced_sizes, choose_backend, inertia


def together(labels):
    """Which rows share a cluster."""
    return labels[:, None] == labels[None]


def unit_rows(seed, n, d):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(seed, sizes, d=12, noise=0.02):
    """Rows around centres far from each other, in random order, and their cluster."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return 3 * np.eye(max(d, len(sizes)))[truth] + noise * rng.normal(size=(len(truth), max(d, len(sizes)))), truth


def best_cost(cost):
    """SciPy's optimum: a column for every place that must be filled and one for the place a cluster may have more."""
    n, k = cost.shape
    must, may = np.repeat(cost, n // k, axis=1) - 1e4, cost if n % k else cost[:, :0]
    rows, columns = linear_sum_assignment(np.hstack((must, may)))
    return float(np.hstack((must, may))[rows, columns].sum()) + 1e4 * (n // k) * k


@st.composite
def problems(draw):
    n = draw(st.integers(1, 40))
    return n, draw(st.integers(1, n)), draw(st.integers(0, 10**6))


@given(problems(), st.integers(1, 5), st.sampled_from(["normal", "grid", "equal", "zero"]))
def test_sizes_are_exact_whatever_the_rows(problem, d, kind):
    n, k, seed = problem
    rng = np.random.default_rng(seed)
    rows = {
        "normal": rng.normal(size=(n, d)),
        "grid": rng.integers(0, 2, (n, d)).astype(float),  # many ties and copies
        "equal": np.ones((n, d)),
        "zero": np.zeros((n, d)),
    }[kind]
    labels = balanced_kmeans(rows, k, seed=seed, iterations=4)
    sizes = np.bincount(labels, minlength=k)
    assert len(labels) == n
    assert len(sizes) == k
    assert sorted(sizes) == sorted(balanced_sizes(n, k))
    assert set(sizes) <= {n // k, -(-n // k)}
    assert sizes.sum() == n


@given(problems(), st.sampled_from(["normal", "grid"]), st.booleans())
def test_assignments_are_as_cheap_as_scipys(problem, kind, warm):
    n, k, seed = problem
    rng = np.random.default_rng(seed)
    cost = rng.normal(size=(n, k)) if kind == "normal" else rng.integers(0, 3, (n, k)).astype(float)
    labels, prices = assign(cost, rng.normal(size=k) if warm else None)
    assert sorted(np.bincount(labels, minlength=k)) == sorted(balanced_sizes(n, k))
    assert cost[np.arange(n), labels].sum() == pytest.approx(best_cost(cost), abs=1e-6)
    priced = cost + prices  # the prices are a certificate: nobody would rather be elsewhere
    assert (priced[np.arange(n), labels] <= priced.min(axis=1) + 1e-9).all()


def test_the_nearest_centre_is_not_a_balanced_assignment():
    """Negative control: without moving rows along paths the sizes and the cost are other ones."""
    cost = np.random.default_rng(0).normal(size=(40, 5)) + np.arange(5)
    nearest = cost.argmin(axis=1)
    assert sorted(np.bincount(nearest, minlength=5)) != [8] * 5
    assert cost.min(axis=1).sum() < best_cost(cost) - 1


@given(problems(), st.integers(0, 50))
def test_permuting_rows_permutes_labels(problem, other):
    n, k, seed = problem
    rows = unit_rows(seed, n, 4)
    order = np.random.default_rng(other).permutation(n)
    labels = balanced_kmeans(rows, k, seed=other)
    moved = balanced_kmeans(rows[order], k, seed=other)
    np.testing.assert_array_equal(together(moved), together(labels)[np.ix_(order, order)])


def test_without_an_order_of_its_own_permuted_rows_end_elsewhere(monkeypatch):
    """Negative control of the test above."""
    monkeypatch.setattr(balanced, "_own_order", lambda rows: np.arange(len(rows)))
    rows, order = unit_rows(0, 150, 4), np.random.default_rng(1).permutation(150)
    labels, moved = (balanced_kmeans(x, 10) for x in (rows, rows[order]))
    assert (together(moved) != together(labels)[np.ix_(order, order)]).any()


@given(st.integers(0, 1000), st.sampled_from([(8, 8, 8, 8, 8), (5, 5, 4, 4, 4, 4), (13,) * 12, (1,) * 9]))
def test_planted_clusters_are_recovered(seed, sizes):
    rows, truth = planted(seed, sizes)
    np.testing.assert_array_equal(together(balanced_kmeans(rows, len(sizes), seed=seed)), together(truth))


def test_planted_clusters_are_not_recovered_from_noise():
    rows, truth = planted(0, (8,) * 5, noise=30)
    assert (together(balanced_kmeans(rows, 5)) != together(truth)).any()


def balanced_labels(n, k):
    """Every way to label n rows with balanced sizes, up to the names of clusters."""
    for labels in itertools.product(range(k), repeat=n):
        if sorted(np.bincount(labels, minlength=k)) == sorted(balanced_sizes(n, k)):
            yield np.array(labels)


@pytest.mark.parametrize(("n", "k"), [(6, 2), (6, 3), (7, 2), (8, 2), (7, 3), (5, 4)])
def test_inertia_is_the_least_there_is_on_tiny_problems(n, k):
    every = list(balanced_labels(n, k))
    ratios, chance = [], []
    for seed in range(6):
        rows = unit_rows(seed, n, 3)
        least = min(inertia(rows, labels) for labels in every)
        ratios.append(inertia(rows, balanced_kmeans(rows, k, seed=seed)) / least)
        chance.append(inertia(rows, every[seed % len(every)]) / least)
    assert min(ratios) >= 1 - 1e-9
    assert max(ratios) < 1.03
    assert np.mean(chance) > 1.05


def naive_lloyd(rows, k, centres):
    """Lloyd with SciPy's assignment, from given centres."""
    while True:
        cost = ((rows[:, None] - centres[None]) ** 2).sum(-1)
        _, columns = linear_sum_assignment(np.repeat(cost, len(rows) // k, axis=1))
        labels = columns // (len(rows) // k)
        new = np.stack([rows[labels == j].mean(0) for j in range(k)])
        if np.allclose(new, centres, atol=1e-12):
            return labels
        centres = new


@pytest.mark.parametrize("seed", range(3))
def test_inertia_is_that_of_lloyd_with_scipys_assignment(seed):
    rng, rows = np.random.default_rng(seed), unit_rows(seed, 180, 8)
    starts = rows[balanced._seeds(rows, 20, np.random.default_rng(seed))]
    labels, ours = balanced._lloyd(rows, 20, np.random.default_rng(seed), 50)
    assert ours == pytest.approx(sum(((rows[i] - rows[labels == labels[i]].mean(0)) ** 2).sum() for i in range(180)))
    assert inertia(rows, labels) == pytest.approx(ours)
    assert ours == pytest.approx(inertia(rows, naive_lloyd(rows, 20, starts)), rel=1e-6)
    # swaps make it better than any of several starts, and all of them far better than chance
    others = [inertia(rows, naive_lloyd(rows, 20, rows[rng.permutation(180)[:20]])) for _ in range(4)]
    swapped = inertia(rows, balanced_kmeans(rows, 20, seed=seed))
    assert swapped < min(others)
    assert max(others) < 0.75 * inertia(rows, rng.permutation(np.repeat(np.arange(20), 9)))


@given(problems())
def test_swaps_keep_sizes_say_what_they_gain_and_leave_no_swap_that_helps(problem):
    n, k, seed = problem
    rng = np.random.default_rng(seed)
    rows, before = unit_rows(seed, n, 3), rng.permutation(np.repeat(np.arange(k), balanced_sizes(n, k)))
    after, lowered = balanced._exchange(rows, before, 200)
    np.testing.assert_array_equal(np.bincount(after), np.bincount(before))
    least = inertia(rows, after)
    assert inertia(rows, before) - least == pytest.approx(lowered, abs=1e-8)
    for i, j in rng.integers(0, n, (30, 2)):
        swapped = after.copy()
        swapped[[i, j]] = after[[j, i]]
        assert inertia(rows, swapped) > least - 1e-7


def test_above_the_limit_nothing_is_swapped(monkeypatch):
    rows = unit_rows(0, 200, 8)
    swapped = inertia(rows, balanced_kmeans(rows, 20))
    monkeypatch.setattr(balanced, "_EXCHANGED", 199)
    assert swapped < inertia(rows, balanced_kmeans(rows, 20)) - 0.1


def test_it_is_deterministic_and_the_seed_matters():
    rows = unit_rows(0, 200, 6)
    first = balanced_kmeans(rows, 16, seed=3)
    np.testing.assert_array_equal(balanced_kmeans(rows.copy(), 16, seed=3), first)
    assert (together(balanced_kmeans(rows, 16, seed=4)) != together(first)).any()


def test_more_iterations_are_not_worse():
    rows = unit_rows(1, 200, 6)
    found = [balanced._lloyd(rows, 16, np.random.default_rng(0), i)[1] for i in (1, 2, 5, 50)]
    assert found == sorted(found, reverse=True)
    assert inertia(rows, balanced_kmeans(rows, 16, iterations=50)) < found[-1] < found[0]


def test_a_layer_of_the_embedded_size_is_quick():
    rows = unit_rows(0, 344, 128)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        balanced_kmeans(rows, 43)
        times.append(time.perf_counter() - begun)
    assert min(times) < 3  # about 0.1 s; the limit only catches another order of magnitude


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"clusters": 0}, "clusters=0 must be at least 1"),
        ({"clusters": 8}, "clusters=8 is more than the 7 rows there are to divide: choose at most 7"),
        ({"iterations": 0}, "iterations=0 must be at least 1"),
        ({"backend": "faiss"}, "unknown backend 'faiss': choose from numpy, constrained, or None"),
    ],
)
def test_bad_arguments_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        balanced_kmeans(np.ones((7, 2)), **{"clusters": 3, **change})


def test_a_row_that_is_not_finite_is_named():
    rows = np.ones((7, 2))
    rows[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"row 4 holds NaN or infinity \(1 such rows\)"):
        balanced_kmeans(rows, 2)


def test_the_extra_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(balanced, "find_spec", lambda name: None)
    assert choose_backend(None) == choose_backend("numpy") == "numpy"
    with pytest.raises(
        ImportError, match=r"needs the package k-means-constrained: pip install 'mwork-lens\[experts\]'"
    ):
        balanced_kmeans(np.ones((7, 2)), 2, backend="constrained")


def test_the_extra_is_used_when_it_is_there(monkeypatch):
    """A stand-in with the interface of k-means-constrained 0.7: what it is told, and that its labels come back in the order of the rows."""
    told = {}

    class KMeansConstrained:
        def __init__(self, n_clusters, *, size_min, size_max, n_init, max_iter, random_state):
            told.update(locals())

        def fit_predict(self, X):
            return np.argsort(np.argsort(X[:, 0])) * told["n_clusters"] // len(X)

    module = types.ModuleType("k_means_constrained")
    module.KMeansConstrained = KMeansConstrained
    monkeypatch.setitem(sys.modules, "k_means_constrained", module)
    monkeypatch.setattr(balanced, "find_spec", lambda name: module)
    assert choose_backend("constrained") == "constrained"
    assert choose_backend(None) == choose_backend("numpy") == "numpy"  # labels do not depend on what else is installed
    rows = np.array([[5.0], [1], [4], [0], [3], [2], [6]])
    assert balanced_kmeans(rows, 3, seed=9, iterations=8, backend="constrained").tolist() == [2, 0, 1, 0, 1, 0, 2]
    assert {name: told[name] for name in ("n_clusters", "size_min", "size_max", "n_init", "max_iter", "random_state")} == {
        "n_clusters": 3, "size_min": 2, "size_max": 3, "n_init": 1, "max_iter": 8, "random_state": 9,
    }  # fmt: skip
