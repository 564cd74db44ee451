"""The interactive figures say what the tables say, in labels that run nothing."""

import functools
import inspect
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from test_plots import (
    LAYERS,
    SIX,
    SPLIT,
    TWO,
    count_table,
    grid_table,
    lens_table,
    neuron_sets,
    overlap_table,
    summary_table,
)

from mwork_lens.plots.interactive import DARK, bundle, label, lens_plot
from mwork_lens.plots.interactive_effects import deltas_plot
from mwork_lens.plots.interactive_neurons import counts_plot, overlap_plot
from mwork_lens.plots.style import INK, language_colours

EVIL = "<img src=x onerror=alert(1)>%{x}</script>"


@functools.cache
def figures(languages=SIX):
    empty = "zh" if "zh" in languages else None
    sets = neuron_sets(languages, empty=empty)
    lens = lens_table(languages)
    return {
        "share": lens_plot(lens, "share", stages=SPLIT),
        "mass": lens_plot(lens, "mass", stages=SPLIT),
        "counts": counts_plot(count_table(sets), stages=SPLIT),
        "overlap": overlap_plot(overlap_table(sets)),
        "deltas": deltas_plot(summary_table(grid_table(languages, empty=empty)), stages=SPLIT),
    }


def texts(value):
    """Every string of a figure."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(item)


@pytest.mark.parametrize("name", ["share", "mass", "counts", "overlap", "deltas"])
def test_plotly_knows_every_word_and_json_every_number(name):
    import plotly.graph_objects as go

    figure = figures()[name]
    go.Figure(figure)
    assert json.loads(json.dumps(figure, allow_nan=False)) == figure
    assert len(json.dumps(figure)) < 60_000


def test_the_curves_are_the_columns_of_the_table():
    table = lens_table()
    data = figures()["mass"]["data"]
    for i, language in enumerate(SIX):
        axis = f"x{i + 1 if i else ''}"
        own = next(t for t in data if t.get("xaxis") == axis and t.get("name") == "the text's own language")
        wanted = table[(table["text_language"] == language) & (table["token_language"] == language)]
        np.testing.assert_allclose(own["y"], wanted["mass"], atol=1e-5)
        assert own["line"]["color"] == language_colours(SIX)[language], "as in the static figure"
        low, high = (wanted[f"mass_{edge}"].to_numpy() for edge in ("low", "high"))
        bands = [t for t in data if t.get("xaxis") == axis and t.get("fill") == "toself"]
        band = next(
            t for t in bands if t["fillcolor"] == own["line"]["color"] and np.isclose(t["y"][0], low[0], atol=1e-5)
        )
        np.testing.assert_allclose(band["y"], [*low, *high[::-1]], atol=1e-5)


def test_a_gap_stays_a_gap_and_the_point_beside_it_has_its_interval():
    data = [t for t in figures()["share"]["data"] if t.get("xaxis") == "x5"]  # Russian: layers 0 and 2 are unknown
    own = next(t for t in data if t.get("name") == "the text's own language")
    assert own["y"][0] is None
    assert own["y"][2] is None
    assert own["connectgaps"] is False
    assert own["hovertext"][0] == ""
    assert any(
        t["x"][:2] == [1.0, 1.0] and t["y"][0] < own["y"][1] < t["y"][1] for t in data if t["mode"] == "lines"
    ), "a bar"


def test_each_name_is_once_in_the_legend():
    for figure in figures().values():
        shown = [t["name"] for t in figure["data"] if "name" in t and t.get("showlegend", True)]
        assert len(shown) == len(set(shown))
    english = lens_plot(lens_table(("en",)), "mass")
    assert [t["name"] for t in english["data"] if t.get("showlegend")] == [
        "shared by several",
        "the text's own language",
    ]


def test_the_bars_are_the_counts():
    counts = count_table(neuron_sets())
    for i, language in enumerate(SIX):
        bars = [t for t in figures()["counts"]["data"] if t.get("xaxis") == f"x{i + 1 if i else ''}"]
        wanted = counts[counts["language"] == language].groupby("layer")["count"].sum()
        assert [sum(x) for x in zip(*(t["y"] for t in bars), strict=True)] == wanted.tolist()
        assert [t["x"] for t in bars] == [list(range(LAYERS))] * 2


def test_the_overlap_is_the_table():
    table = overlap_table(neuron_sets())
    trace = figures()["overlap"]["data"][0]
    written = [a["text"] for a in figures()["overlap"]["layout"]["annotations"]]
    for i, a in enumerate(SIX):
        for j, b in enumerate(SIX):
            row = table[(table["language"] == a) & (table["other"] == b)].iloc[0]
            if a == b:
                assert trace["z"][i][j] is None
                assert written[i * len(SIX) + j] == f"{row['shared']:,}"
            elif np.isfinite(row["jaccard"]):
                assert trace["z"][i][j] == pytest.approx(row["jaccard"], abs=1e-5)


def test_points_intervals_and_the_range_of_chance():
    summary = summary_table(grid_table())
    data = {t["name"]: t for t in figures()["deltas"]["data"] if t["mode"] == "markers"}
    own = summary[(summary["neurons"] == "own") & np.isfinite(summary["non_eng"])]
    trace = data["own neurons off: the language"]
    np.testing.assert_allclose(trace["x"], own["non_eng"], atol=1e-5)
    np.testing.assert_allclose(np.subtract(trace["x"], trace["error_x"]["arrayminus"]), own["non_eng_low"], atol=3e-5)
    np.testing.assert_allclose(np.add(trace["x"], trace["error_x"]["array"]), own["non_eng_high"], atol=3e-5)
    ranges = next(
        t
        for t in figures()["deltas"]["data"]
        if t["name"] == "random neurons off: the language" and t["mode"] == "lines"
    )
    chance = summary[(summary["neurons"] == "random") & np.isfinite(summary["non_eng"])]
    np.testing.assert_allclose(ranges["x"][0::3], chance["non_eng_low"], atol=1e-5)
    np.testing.assert_allclose(ranges["x"][1::3], chance["non_eng_high"], atol=1e-5)


def test_names_from_data_are_text():
    figs = figures(("en", EVIL))
    for figure in figs.values():
        found = list(texts(figure))
        assert not any("<img" in text or "</script" in text for text in found if text != "coverage"), figure
        assert not any("hovertemplate" in t or "texttemplate" in t for t in figure["data"]), (
            "names never meet a template"
        )
    assert sum(label(EVIL) in text for text in texts(figs["overlap"])) > 3
    assert label(EVIL) == "&lt;img src=x onerror=alert(1)&gt;%{x}&lt;/script&gt;"


def test_the_same_table_gives_the_same_figure():
    assert lens_plot(lens_table(TWO)) == lens_plot(lens_table(TWO))
    assert "nan" not in json.dumps(figures())


@pytest.mark.parametrize(
    ("draw", "table", "column"),
    [
        (lens_plot, lens_table(TWO), "coverage"), (counts_plot, count_table(neuron_sets(TWO)), "count"),
        (overlap_plot, overlap_table(neuron_sets(TWO)), "jaccard"), (deltas_plot, summary_table(grid_table(TWO)), "p_delta"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_drawn_is_refused(draw, table, column):
    with pytest.raises(ValueError, match=rf"table lacks {column}: give it as"):
        draw(table.drop(columns=column))
    with pytest.raises(ValueError, match="table is empty: there is nothing to show"):
        draw(table.iloc[:0])


def test_an_unknown_value_is_refused():
    with pytest.raises(ValueError, match="value='mean': a lens curve shows 'share' or 'mass'"):
        inspect.unwrap(lens_plot)(lens_table(TWO), "mean")


def test_no_neurons_and_nothing_measured():
    sets = {language: s - s for language, s in neuron_sets(TWO).items()}
    assert all(sum(t["y"]) == 0 for t in counts_plot(count_table(sets))["data"] if t["type"] == "bar")
    assert overlap_plot(overlap_table(sets))["data"][0]["zmax"] == 0.01
    grid = grid_table(TWO)
    grid.iloc[:, 7:] = np.nan
    figure = deltas_plot(summary_table(grid))
    assert all(not t["x"] for t in figure["data"])
    assert "–" in list(texts(figure))
    assert figure["layout"]["xaxis"]["range"] == [-1, 1], "zero stands in the middle"
    assert "nothing to switch off" in list(texts(figure))
    assert "range" not in figures()["deltas"]["layout"]["xaxis"]
    nothing = overlap_plot(overlap_table(sets))["layout"]
    assert (nothing["xaxis"]["range"], nothing["yaxis"]["range"]) == ([-0.5, 1.5], [1.5, -0.5]), (
        "every cell has its place"
    )


def test_the_script_cannot_end_its_element():
    script = bundle()
    assert "</script" not in script.lower()
    assert "<!--" not in script
    assert "\r" not in script
    assert "Plotly" in script


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_lines_and_letters_stand_out_on_a_dark_page():
    card = DARK["#FFFFFF"]
    letters, lines = DARK[INK], {DARK.get(c, c) for c in language_colours([*SIX, "a", "b", "c", "d"]).values()}
    assert contrast(letters, card) > 7
    assert all(contrast(letters, DARK[tint]) > 7 for tint in ("#E4EEF7", "#FBEEDD"))
    assert all(contrast(line, card) > 3 for line in lines), {line: contrast(line, card) for line in lines}


def test_plotly_is_not_loaded_for_the_figures():
    code = "import sys, mwork_lens.plots.interactive, mwork_lens.plots.interactive_effects; assert 'plotly' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_many_languages_fit():
    many = tuple(f"l{i:02d}" for i in range(14))
    figure = counts_plot(pd.concat(count_table(neuron_sets((x,), empty=None)) for x in many))
    assert figure["layout"]["xaxis14"]["domain"][1] <= 1
    assert all(0 <= figure["layout"][f"yaxis{i if i > 1 else ''}"]["domain"][0] <= 1 for i in range(1, 15))
