"""The curves of the geometry: what is drawn is what the table says; nothing is drawn of what is not known."""

import functools
import inspect
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch

from mwork_lens.geometry.embeddings import Embeddings
from mwork_lens.geometry.tables import ALL, dominance, retrieval, similarity
from mwork_lens.plots.geometry import dominance_curves, retrieval_curves, similarity_curves
from mwork_lens.plots.style import GREY, INK, language_colours, language_name, svg

SIX = ("en", "de", "es", "fr", "ru", "zh")


@functools.cache
def tables(languages=SIX, layers=5, seed=0):
    """Tables of random sentences that share some meaning; all have one vector at layer 0, so centred there is nothing."""
    g = torch.Generator().manual_seed(seed)
    content = torch.randn(layers, 12, 8, generator=g)
    vectors = {x: content + torch.randn(layers, 12, 8, generator=g) + 2 for x in languages}
    for x in languages:
        vectors[x][0] = torch.randn(1, 8, generator=g)
    e = Embeddings(tuple(f"s{i}" for i in range(12)), vectors)
    return {
        "similarity": similarity(e, resamples=50, shuffles=9),
        "centred": similarity(e, centred=True, resamples=50, shuffles=9),
        "retrieval": retrieval(e),
        "retrieval centred": retrieval(e, centred=True),
        "dominance": dominance(e, resamples=50),
    }


def rows(table, language, other):
    return table[(table["language"] == language) & (table["other"] == other)].sort_values("layer")


def line(panel, label):
    return next(found for found in panel.get_lines() if found.get_label() == label)


def band(panel, at=0):
    """Low and high edge of a band, layer by layer."""
    path = panel.collections[at].get_paths()
    points = np.concatenate([p.vertices for p in path])
    return {x: (points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()) for x in set(points[:, 0])}


CURVES = [
    (similarity_curves, "similarity", "parallel", False, "shuffled"),
    (similarity_curves, "similarity", "adjusted", False, None),
    (similarity_curves, "centred", "parallel", False, "shuffled"),
    (dominance_curves, "dominance", "dominance", True, "shuffled"),
    (dominance_curves, "dominance", "adjusted", True, None),
    (dominance_curves, "dominance", "centred", True, None),
]


@pytest.mark.parametrize(("draw", "name", "value", "into", "baseline"), CURVES)
def test_the_curves_bands_and_baselines_are_the_columns(draw, name, value, into, baseline):
    table = tables()[name]
    panels = draw(table, value)
    assert len(panels) == len(SIX)
    for panel, language in zip(panels, SIX, strict=True):
        assert panel.get_title("left") == language_name(language)
        own = rows(table, ALL, language) if into else rows(table, language, ALL)
        drawn = line(panel, "own")
        assert drawn.get_color() == language_colours(SIX)[language]
        np.testing.assert_array_equal(drawn.get_xdata(), own["layer"])
        np.testing.assert_array_equal(drawn.get_ydata(), own[value])
        np.testing.assert_array_equal(line(panel, "all").get_ydata(), rows(table, ALL, ALL)[value])
        assert line(panel, "all").get_color() == INK
        grey = line(panel, "baseline")
        assert grey.get_color() == GREY
        np.testing.assert_array_equal(grey.get_ydata(), own[baseline] if baseline else np.zeros(len(own)))
        edges = band(panel)
        for row in own.dropna(subset=[value]).itertuples():
            low, high = getattr(row, f"{value}_low"), getattr(row, f"{value}_high")
            np.testing.assert_allclose(edges[row.layer], (low, high))


@pytest.mark.parametrize("name", ["retrieval", "retrieval centred"])
def test_retrieval_is_drawn_both_ways(name):
    table = tables()[name]
    for panel, language in zip(retrieval_curves(table), SIX, strict=True):
        for at, (label, own) in enumerate(
            {"from": rows(table, language, ALL), "to": rows(table, ALL, language)}.items()
        ):
            np.testing.assert_array_equal(line(panel, label).get_ydata(), own["accuracy"])
            edges = band(panel, at * 2)
            for row in own.dropna().itertuples():
                np.testing.assert_allclose(edges[row.layer], (row.low, row.high))
        assert line(panel, "to").get_linestyle() == "--"
        assert (np.asarray(line(panel, "baseline").get_ydata()) == 1 / 12).all()


def test_an_unknown_layer_is_a_gap_not_a_zero():
    for panels in (
        similarity_curves(tables()["centred"], "adjusted"),
        dominance_curves(tables()["dominance"], "centred"),
    ):
        for panel in panels:
            y = np.asarray(line(panel, "own").get_ydata(), dtype=float)
            assert np.isnan(y[0])
            assert np.isfinite(y[1:]).all()


def test_the_label_says_what_is_drawn():
    def label(panels):
        return panels[0].figure.get_supylabel()

    assert label(similarity_curves(tables()["similarity"])) == "cosine of translations"
    assert label(similarity_curves(tables()["centred"])) == "mean-centred cosine of translations"
    assert label(retrieval_curves(tables()["retrieval centred"])) == "translation is nearest (mean-centred)"
    assert "above other sentences" in label(dominance_curves(tables()["dominance"], "adjusted"))


def test_given_axes_are_drawn_into():
    from matplotlib.figure import Figure

    found = tables(("en", "zh"))
    for draw, name in (
        (similarity_curves, "similarity"),
        (retrieval_curves, "retrieval"),
        (dominance_curves, "dominance"),
    ):
        mine = list(Figure().subplots(2, 1))
        assert draw(found[name], axes=mine) == mine
        with pytest.raises(ValueError, match="1 axes for 2 languages"):
            draw(found[name], axes=mine[:1])


@pytest.mark.parametrize("languages", [("en", "zh"), ("$x$", "<b>&", "语言"), tuple("abcdfgh")])
def test_any_number_of_languages_with_any_name(languages):
    found = tables(languages, layers=2)
    for draw, name in (
        (similarity_curves, "similarity"),
        (retrieval_curves, "retrieval"),
        (dominance_curves, "dominance"),
    ):
        text = svg(draw(found[name])[0].figure)
        words = "".join(ET.fromstring(text).itertext())
        assert all(language in words for language in languages)
        assert "nan" not in words


@pytest.mark.parametrize(
    ("draw", "name", "column"),
    [
        (similarity_curves, "similarity", "parallel_low"),
        (retrieval_curves, "retrieval", "chance"),
        (dominance_curves, "dominance", "shuffled"),
    ],
)
def test_a_table_that_cannot_be_shown_is_refused(draw, name, column):
    table = tables()[name]
    with pytest.raises(ValueError, match=rf"lacks {column}: give it as `{name}` makes it"):
        draw(table.drop(columns=column))
    with pytest.raises(ValueError, match="table is empty: there is nothing to show"):
        draw(table.iloc[:0])


def test_centred_and_raw_rows_are_not_drawn_as_one():
    for draw, raw, centred in (
        (similarity_curves, "similarity", "centred"),
        (retrieval_curves, "retrieval", "retrieval centred"),
    ):
        with pytest.raises(ValueError, match="mixes centred and raw rows: draw one of them"):
            draw(pd.concat([tables()[raw], tables()[centred]]))


def test_a_curve_of_something_else_is_refused():
    with pytest.raises(ValueError, match="a similarity curve shows 'parallel' or 'adjusted'"):
        inspect.unwrap(similarity_curves)(tables()["similarity"], "p")
    with pytest.raises(ValueError, match="a dominance curve shows 'dominance' or 'adjusted' or 'centred'"):
        inspect.unwrap(dominance_curves)(tables()["dominance"], "parallel")
