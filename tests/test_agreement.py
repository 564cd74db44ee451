"""Agreement against chance: enumeration of every placement, SciPy, and sets whose overlap is known."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mwork_lens.neurons import NeuronSet
from mwork_lens.robustness.agreement import AGREEMENT, agreement, expected_jaccard, shared_by_chance

SHAPES = {"q": (2, 3), "ffn": (2, 4)}
CELLS = [(site, layer) for site, (layers, _) in SHAPES.items() for layer in range(layers)]
UNITS = [(site, layer, unit) for site, layer in CELLS for unit in range(SHAPES[site][1])]
units = st.sets(st.sampled_from(UNITS))


def of(chosen, shapes=SHAPES, model=None):
    return NeuronSet.of(sorted(chosen), shapes, model=model)


def random_set(generator, shape=(3, 400), rate=0.1):
    return NeuronSet({"ffn": torch.rand(shape, generator=generator) < rate})


def placements(chosen, layers):
    """Every set with as many neurons in each site and layer."""
    cells = [
        itertools.combinations([u for u in UNITS if u[:2] == cell], sum(u[:2] == cell for u in chosen))
        for cell in CELLS
        if cell[1] in layers
    ]
    return [{unit for part in parts for unit in part} for parts in itertools.product(*cells)]


@given(a=units, b=units)
def test_every_row_is_what_enumeration_of_all_placements_gives(a, b):
    table = agreement({"one": {"de": of(a)}, "two": {"de": of(b)}})
    assert tuple(table.columns) == AGREEMENT
    assert list(table["level"]) == ["layer", "layer", "total"]
    for row in table.itertuples():
        layers = [0, 1] if row.level == "total" else [row.layer]
        mine, yours = ({u for u in x if u[1] in layers} for x in (a, b))
        draws = [len(mine & placed) for placed in placements(yours, layers)]
        assert (row.size_a, row.size_b, row.shared) == (len(mine), len(yours), len(mine & yours))
        assert row.units == 7 * len(layers)
        assert row.sites == "q, ffn"
        assert row.expected == pytest.approx(np.mean(draws))
        assert row.sd == pytest.approx(np.std(draws), abs=1e-9)
        assert row.p == pytest.approx(np.mean([x >= row.shared for x in draws]))
        if mine | yours:
            total = len(mine) + len(yours)
            assert row.jaccard == pytest.approx(row.shared / (total - row.shared))
            assert row.jaccard_chance == pytest.approx(np.mean([x / (total - x) for x in draws]))
        else:
            assert math.isnan(row.jaccard)
            assert math.isnan(row.jaccard_chance)
        assert math.isnan(row.lift) if not np.mean(draws) else row.lift == pytest.approx(row.shared / np.mean(draws))
        assert math.isnan(row.q) == (len({*draws}) == 1)


@pytest.mark.parametrize(("a", "b", "n"), [(143, 1434, 14336), (30, 12, 40)])
def test_the_distribution_is_scipys(a, b, n):
    mine = shared_by_chance(a, b, n)
    known = stats.hypergeom(n, a, b)
    assert mine @ np.arange(len(mine)) == pytest.approx(known.mean())
    for shared in (0, min(a, b) // 2, min(a, b)):
        assert mine[shared:].sum() == pytest.approx(known.sf(shared - 1), rel=1e-8)


@pytest.mark.parametrize(("a", "b", "n"), [(7, 7, 9), (1, 1, 1), (0, 4, 9), (9, 4, 9), (0, 0, 3), (30, 12, 40)])
def test_the_distribution_counts_combinations(a, b, n):
    counted = [
        math.comb(a, x) * math.comb(n - a, b - x) / math.comb(n, b) if b - x <= n - a else 0
        for x in range(min(a, b) + 1)
    ]
    assert list(shared_by_chance(a, b, n)) == pytest.approx(counted)


def test_expected_jaccard_is_that_of_random_draws():
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(4000):
        x, y = ({*rng.permutation(50)[:size].tolist()} for size in (12, 20))
        seen.append(len(x & y) / len(x | y))
    exact = expected_jaccard(12, 20, shared_by_chance(12, 20, 50))
    assert exact == pytest.approx(np.mean(seen), abs=4 * np.std(seen) / 4000**0.5)
    assert exact != pytest.approx(1, abs=0.5)


def test_small_tails_keep_their_digits():
    same = NeuronSet({"ffn": torch.arange(400).repeat(3, 1) < 40})
    total = agreement({"a": {"de": same}, "b": {"de": same}}).iloc[-1]
    assert total.p == pytest.approx(math.comb(400, 40) ** -3, rel=1e-6)
    assert (total.jaccard, total.lift) == (1, pytest.approx(10))


def test_order_of_methods_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    sets = {m: {x: random_set(generator) for x in ("de", "fr")} for m in ("one", "two")}
    there, back = agreement(sets), agreement(dict(reversed(sets.items())))
    assert list(there["size_a"]) == list(back["size_b"])
    for column in ("shared", "expected", "sd", "jaccard", "jaccard_chance", "p", "q"):
        np.testing.assert_allclose(there[column], back[column], rtol=1e-9)


def test_permuting_languages_permutes_rows():
    generator = torch.Generator().manual_seed(1)
    sets = {m: {x: random_set(generator) for x in ("de", "fr", "zh")} for m in ("one", "two")}
    turned = {m: {x: s[x] for x in ("zh", "de", "fr")} for m, s in sets.items()}
    key = ["language", "level", "layer"]
    one, two = (agreement(x).sort_values(key, ignore_index=True) for x in (sets, turned))
    pd.testing.assert_frame_equal(one, two)


def test_identical_sets_agree_and_disjoint_ones_do_not():
    generator = torch.Generator().manual_seed(2)
    mine = random_set(generator, rate=0.3)
    rest = NeuronSet({"ffn": ~mine.masks["ffn"]})
    same, apart = (agreement({"a": {"de": mine}, "b": {"de": other}}).iloc[-1] for other in (mine, rest))
    assert (same.jaccard, same.p < 1e-12) == (1, True)
    assert (apart.jaccard, apart.shared, apart.p) == (0, 0, 1)


def test_p_values_of_unrelated_methods_are_uniform_and_those_of_related_ones_are_not():
    generator = torch.Generator().manual_seed(3)
    names = [f"l{i}" for i in range(150)]
    one, two = ({x: random_set(generator) for x in names} for _ in range(2))
    related = {x: one[x] & random_set(generator, rate=0.5) | random_set(generator, rate=0.05) for x in names}
    table = agreement({"one": one, "two": two, "related": related})
    p = {m: rows[rows["level"] == "total"]["p"] for m, rows in table[table["method"] == "one"].groupby("other")}
    for cut in (0.05, 0.25, 0.5, 0.75):
        # p is discrete, so a little below uniform
        assert cut - 0.12 < (p["two"] <= cut).mean() < cut + 0.08
    assert (p["related"] < 1e-6).all()


def test_q_is_benjamini_and_hochberg_within_a_level_over_rows_that_test_something():
    generator = torch.Generator().manual_seed(4)
    sets = {m: {x: random_set(generator, rate=r) for x, r in (("de", 0.2), ("fr", 0.1))} for m in ("one", "two")}
    sets["one"]["zh"], sets["two"]["zh"] = NeuronSet.empty({"ffn": (3, 400)}), random_set(generator)
    table = agreement(sets)
    empty = table["language"] == "zh"
    assert table.loc[empty, "q"].isna().all()
    assert (table.loc[empty, "p"] == 1).all()
    for level, count in (("layer", 6), ("total", 2)):
        rows = table[(table["level"] == level) & ~empty].sort_values("p")
        assert len(rows) == count
        naive = [min(p * count / rank for rank, p in enumerate(rows["p"], 1) if rank > i) for i in range(count)]
        assert list(rows["q"]) == pytest.approx([min(q, 1) for q in naive])


def test_only_sites_of_both_methods_are_compared():
    wide = of({("q", 0, 1), ("ffn", 1, 2)})
    narrow = of({("ffn", 1, 2)}, {"ffn": (2, 4)})
    total = agreement({"plnd": {"de": wide}, "lape": {"de": narrow}}).iloc[-1]
    assert (total.sites, total.units, total.size_a, total.jaccard) == ("ffn", 8, 1, 1)
    both = agreement({"plnd": {"de": wide}, "again": {"de": wide}}, sites=["q"]).iloc[-1]
    assert (both.sites, both.units, both.size_a) == ("q", 6, 1)
    assert pd.isna(both.layer)


def one(**sets):
    return {name: {"de": neurons} for name, neurons in sets.items()}


Q, FFN = of({("q", 0, 0)}, {"q": (2, 3)}), of({("ffn", 0, 0)}, {"ffn": (2, 4)})


@pytest.mark.parametrize(
    ("detectors", "sites", "message"),
    [
        (one(lape=FFN), None, "at least two, got lape"),
        ({}, None, "at least two, got none"),
        ({"a": {}, "b": {}}, None, "the methods a, b have no sets"),
        ({**one(lape=FFN), "pv": {}}, None, "method 'pv' has no set for language 'de', which 'lape' has"),
        (one(a=Q, b=FFN), None, r"'a' and 'b' have no site in common \(language 'de'\): q and ffn"),
        (one(a=Q, b=FFN), ["q"], "method 'b' says nothing about site 'q'"),
        (one(a=Q, b=FFN), ["nose"], "unknown site 'nose'"),
        (one(a=FFN, b=of([], {"ffn": (2, 5)})), None, r"'a' and 'b' differ in site 'ffn': .*\[2, 4\] vs \[2, 5\]"),
        (
            one(a=of([], model="m1"), b=of([], model="m2")),
            None,
            r"'a' and 'b' were run on different models \(m1 and m2, language 'de'\)",
        ),
    ],
)
def test_what_does_not_compare_is_refused(detectors, sites, message):
    with pytest.raises(ValueError, match=message):
        agreement(detectors, sites=sites)


@pytest.mark.parametrize(("a", "b"), [(-1, 2), (2, 9)])
def test_impossible_sizes_are_refused(a, b):
    with pytest.raises(ValueError, match="cannot be drawn from 8: sizes lie between 0 and 8"):
        shared_by_chance(a, b, 8)
