"""Counts and overlap against Python sets of tuples."""

import math

from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.analysis import layer_counts, overlap
from mwork_lens.neurons import NeuronSet

SHAPES = {"q": (2, 3), "ffn": (2, 5)}
UNITS = [
    (site, layer, unit) for site, (layers, width) in SHAPES.items() for layer in range(layers) for unit in range(width)
]
chosen = st.dictionaries(st.sampled_from(["en", "de", "zh"]), st.sets(st.sampled_from(UNITS)), min_size=1)


@given(units=chosen)
def test_counts_are_those_of_sets(units):
    table = layer_counts({language: NeuronSet.of(u, SHAPES) for language, u in units.items()})
    assert list(table.columns) == ["language", "site", "layer", "count", "width"]
    expected = {
        (x, site, layer): sum(s == site and i == layer for s, i, _ in u)
        for x, u in units.items()
        for site in SHAPES
        for layer in (0, 1)
    }
    assert {
        (r.language, r.site, r.layer): r.count_ for r in table.rename(columns={"count": "count_"}).itertuples()
    } == expected
    assert {(r.site, r.width) for r in table.itertuples()} == {("q", 3), ("ffn", 5)}


@given(units=chosen)
def test_overlap_is_that_of_sets(units):
    table = overlap({language: NeuronSet.of(u, SHAPES) for language, u in units.items()})
    assert list(table.columns) == ["language", "other", "shared", "union", "jaccard"]
    assert len(table) == len(units) ** 2
    for row in table.itertuples():
        a, b = units[row.language], units[row.other]
        assert (row.shared, row.union) == (len(a & b), len(a | b))
        assert math.isnan(row.jaccard) if not a | b else row.jaccard == len(a & b) / len(a | b)
        if row.language == row.other and a:
            assert row.jaccard == 1


def test_disjoint_sets_share_nothing():
    table = overlap({"en": NeuronSet.of([("q", 0, 1)], SHAPES), "de": NeuronSet.of([("q", 0, 2)], SHAPES)})
    assert table.set_index(["language", "other"]).loc[("en", "de"), "jaccard"] == 0


def test_no_sets_give_empty_tables():
    assert list(layer_counts({}).columns) == ["language", "site", "layer", "count", "width"]
    assert not len(layer_counts({}))
    assert not len(overlap({}))
