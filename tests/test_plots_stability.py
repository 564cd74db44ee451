"""The figures of stability say what the tables say."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from test_stability import FIND, planted

from mwork_lens.neurons import NeuronSet
from mwork_lens.plots import language_colours, svg
from mwork_lens.plots.stability import (
    ALL_COLOUR,
    agreement_heatmap,
    selection_frequency_histogram,
    sensitivity_curves,
)
from mwork_lens.robustness.agreement import agreement
from mwork_lens.robustness.sensitivity import sensitivity
from mwork_lens.robustness.stability import frequency_table, selection_frequency

LANGUAGES = ("de", "fr", "zh")


@pytest.fixture(scope="module")
def varied():
    return sensitivity(
        planted(jitter=0.8), rates=(0.05, 0.1, 0.15), bars=(0.7, 0.85), domains="topics", tokens=(5000, 12000), draws=2,
        rate=0.1, filter_rate=0.85, bar_rate=0.85,
    )  # fmt: skip


def agreed(*, methods=("lape", "lave", "plnd"), languages=LANGUAGES):
    generator = torch.Generator().manual_seed(0)
    return agreement(
        {m: {x: NeuronSet({"ffn": torch.rand(2, 60, generator=generator) < 0.3}) for x in languages} for m in methods}
    )


def texts(axes):
    return [text.get_text() for text in axes.texts]


def line_of(panel, colour):
    return next(x for x in panel.lines if same_color(x.get_color(), colour) and x.get_linestyle() == "-")


def test_curves_are_the_means_over_draws(varied):
    panels = sensitivity_curves(varied)
    assert [p.get_title(loc="left") for p in panels] == [
        "Rate", "Filter and bar", "Amount of text", "A language left out", "One domain only", "Way of averaging"
    ]  # fmt: skip
    colours = {**language_colours(LANGUAGES), "all": ALL_COLOUR}
    for kind, panel in (("rate", panels[0]), ("tokens", panels[2])):
        for language, colour in colours.items():
            mine = varied[(varied["varied"] == kind) & (varied["language"] == language)]
            means = mine.groupby("number")["jaccard"].mean().dropna()
            np.testing.assert_allclose(line_of(panel, colour).get_xdata(), means.index)
            np.testing.assert_allclose(line_of(panel, colour).get_ydata(), means)
    ticks = [label.get_text() for label in panels[1].get_xticklabels()]
    assert ticks == ["0.7", "0.85"]
    dashed = next(x for x in panels[0].lines if x.get_linestyle() == "--")
    assert list(dashed.get_xdata()) == [0.1, 0.1]
    grey = line_of(panels[0], "#A8A8A8")
    chance = varied[(varied["varied"] == "rate") & ~varied["reference"]].groupby("number")["jaccard_chance"].mean()
    np.testing.assert_allclose(grey.get_ydata(), chance)


def test_names_stand_below_their_points(varied):
    panel = sensitivity_curves(varied)[3]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["none", "de", "fr", "zh"]
    rows = varied[(varied["varied"] == "languages") & (varied["language"] == "fr")].set_index("value")["jaccard"]
    (points,) = (x for x in panel.lines if same_color(x.get_color(), language_colours(LANGUAGES)["fr"]))
    np.testing.assert_allclose(points.get_ydata(), rows.reindex(["none", "de", "fr", "zh"]))


def test_domains_stand_beside_their_controls(varied):
    panel = sensitivity_curves(varied)[4]
    assert [label.get_text() for label in panel.get_xticklabels()] == [*LANGUAGES, "all"]
    points = [x for x in panel.lines if same_color(x.get_color(), ALL_COLOUR)]
    filled, hollow = sorted(points, key=lambda x: x.get_markerfacecolor() == "white")
    for line, kind in ((filled, "domain"), (hollow, "domain_random")):
        rows = varied[(varied["varied"] == kind) & (varied["language"] == "all") & ~varied["reference"]]
        np.testing.assert_allclose(line.get_ydata(), rows["jaccard"])


def test_an_unknown_value_is_left_out(varied):
    gone = varied.assign(jaccard=varied["jaccard"].mask((varied["language"] == "fr") & (varied["number"] == 0.05)))
    panel = sensitivity_curves(gone)[0]
    assert list(line_of(panel, language_colours(LANGUAGES)["fr"]).get_xdata()) == [0.1, 0.15]


def test_given_axes_are_used(varied):
    part = varied[varied["varied"].isin(["rate", "per"])]
    given = list(Figure().subplots(1, 2))
    assert sensitivity_curves(part, axes=given) == given
    assert given[0].get_ylabel() == "Jaccard index with the reference"
    with pytest.raises(ValueError, match=r"2 axes for 6 panels \(rate, bar, tokens"):
        sensitivity_curves(varied, axes=list(Figure().subplots(1, 2)))
    axes = Figure().subplots()
    assert agreement_heatmap(agreed(), language="de", axes=axes) is axes


def test_the_heat_map_shows_jaccard_and_chance_both_ways():
    table = agreed()
    axes = agreement_heatmap(table, language="fr")
    assert "French" in axes.get_title(loc="left")
    rows = table[(table["language"] == "fr") & (table["level"] == "total")]
    expected = [t for r in rows.itertuples() for t in [f"{r.jaccard:.2f}", f"chance {r.jaccard_chance:.2f}"] * 2]
    sizes = {**dict(zip(rows["method"], rows["size_a"], strict=True)), **dict(zip(rows["other"], rows["size_b"], strict=True))}  # fmt: skip
    assert sorted(texts(axes)) == sorted([*expected, *(f"{size}" for size in sizes.values())])
    drawn = axes.collections[0].get_array()
    assert drawn.shape == (3, 3)
    assert np.ma.allclose(drawn, drawn.T)
    assert drawn[0, 2] == pytest.approx(rows.set_index(["method", "other"]).loc[("lape", "plnd"), "jaccard"])
    assert agreement_heatmap(agreed(languages=["de"])).get_title(loc="left").startswith("German")


def test_a_size_that_depends_on_the_sites_is_a_range_and_no_overlap_is_a_dash():
    ones = torch.ones(1, 2, dtype=torch.bool)
    both, ffn = NeuronSet({"q": ones, "ffn": ones}), NeuronSet({"ffn": ones})
    none = NeuronSet.empty({"q": (1, 2), "ffn": (1, 2)})
    table = agreement({"a": {"de": both}, "b": {"de": ffn}, "c": {"de": none}, "d": {"de": none}})
    shown = texts(agreement_heatmap(table))
    assert "2–4" in shown
    assert shown.count("–") == 2


def test_bars_count_units_by_frequency():
    found = selection_frequency(planted(jitter=0.9), resamples=20, **FIND)
    table = frequency_table(found)
    panels = selection_frequency_histogram(table)
    for panel, language in zip(panels, LANGUAGES, strict=True):
        mine = table[table["language"] == language]
        heights = np.array([patch.get_height() for patch in panel.patches]).reshape(2, 20)
        assert heights.sum(1).tolist() == [mine["chosen"].sum(), (~mine["chosen"]).sum()]
        # 0.95 < frequency <= 1 in the last bar
        assert heights[0, -1] == (mine["chosen"] & (mine["frequency"] > 0.951)).sum()
        assert panel.get_title(loc="right").startswith(f"{mine['chosen'].sum()} in the set")


def test_a_language_without_units_has_an_empty_panel():
    names = pd.Categorical(["de"], categories=["de", "zh"])
    panels = selection_frequency_histogram(pd.DataFrame({"language": names, "frequency": [0.5], "chosen": [True]}))
    assert [p.get_title(loc="right") for p in panels] == ["1 in the set, 0 at 0.9", "none is ever chosen"]
    heights = [patch.get_height() for patch in panels[0].patches]
    assert heights.index(1) == 9  # 0.45 < frequency <= 0.5


def test_figures_are_drawn(varied):
    frequencies = frequency_table(selection_frequency(planted(jitter=0.9), resamples=5, **FIND))
    for axes in (
        sensitivity_curves(varied)[0],
        agreement_heatmap(agreed(), language="de"),
        selection_frequency_histogram(frequencies)[0],
    ):
        assert ET.fromstring(svg(axes.figure)).tag.endswith("svg")


@pytest.mark.parametrize("plot", [sensitivity_curves, agreement_heatmap, selection_frequency_histogram])
def test_tables_that_cannot_be_shown_are_refused(plot):
    columns = {
        sensitivity_curves: ["varied", "value", "number", "draw", "language", "jaccard", "jaccard_chance", "reference"],
        agreement_heatmap: ["method", "other", "language", "level", "size_a", "size_b", "jaccard", "jaccard_chance"],
        selection_frequency_histogram: ["language", "frequency", "chosen"],
    }[plot]
    with pytest.raises(ValueError, match=f"table lacks {re.escape(', '.join(columns))}"):
        plot(pd.DataFrame({"x": [1]}))
    with pytest.raises(ValueError, match="table is empty"):
        plot(pd.DataFrame(columns=columns))


def test_choices_that_do_not_exist_are_refused(varied):
    with pytest.raises(ValueError, match="the table has 3 languages: choose one with language=, of de, fr, zh"):
        agreement_heatmap(agreed())
    with pytest.raises(ValueError, match="the table has no language 'xx': there are de, fr, zh"):
        agreement_heatmap(agreed(), language="xx")
    with pytest.raises(ValueError, match="no panel shows what happens when 'weather' is varied"):
        sensitivity_curves(varied.assign(varied="weather"))
