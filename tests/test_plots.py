"""The figures say what the tables say."""

import functools
import importlib
import inspect
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

import mwork_lens
from mwork_lens.analysis import layer_counts as count_table
from mwork_lens.analysis import overlap as overlap_table
from mwork_lens.neurons import NeuronSet
from mwork_lens.plots import (
    deltas,
    language_colours,
    language_name,
    layer_counts,
    lens_curves,
    overlap_heatmap,
    svg,
)
from mwork_lens.stages import STAGES, Stages

LAYERS, DRAWS = 8, 10
SIX = ("en", "de", "es", "fr", "ru", "zh")
TWO = ("en", "fr")
SHAPES = {"q": (LAYERS, 32), "k": (LAYERS, 32), "v": (LAYERS, 32), "z": (LAYERS, 32), "ffn": (LAYERS, 96)}
SPLIT = Stages.of(LAYERS, understanding=2, generation=3)


def lens_table(languages=SIX, *, layers=LAYERS, seed=0):
    """A dip of the own language, a bump of shared and English; the first states of `ru` have no reliable token."""
    x = np.arange(layers + 1)
    rows = []
    for text in languages:
        rng = np.random.default_rng([seed, len(rows)])
        dip = 0.9 - 0.75 * np.exp(-(((x - layers / 2) / (layers / 4)) ** 2)) + rng.normal(0, 0.02, len(x))
        english, shared = 0.55 * (1 - dip), 0.35 * (1 - dip)
        for token in (*languages, "shared", "unknown"):
            named = {text: dip, "shared": shared}.get(token, english if token == "en" else np.full(len(x), 0.01))
            share = np.full(len(x), np.nan) if token in ("shared", "unknown") else named.copy()
            coverage = 0.3 + 0.5 * dip
            if text == "ru":
                share[[0, 2]], coverage[[0, 2]] = np.nan, 0
            rows.append(
                pd.DataFrame(
                    {
                        "text_language": text, "token_language": token, "layer": x,
                        "share": share, "share_low": share - 0.04, "share_high": share + 0.03,
                        "mass": named, "mass_low": named - 0.03, "mass_high": named + 0.03,
                        "coverage": coverage, "documents": 40, "positions": 4000,
                    }
                )
            )  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def neuron_sets(languages=SIX, *, empty="zh", rate=0.06, seed=0):
    """Random sets that share a part; the language `empty` has none."""
    rng = np.random.default_rng(seed)
    common = {site: rng.random(shape) < rate / 2 for site, shape in SHAPES.items()}
    import torch

    def draw(language):
        keep = language != empty
        return NeuronSet({s: torch.from_numpy(keep & (common[s] | (rng.random(x) < rate))) for s, x in SHAPES.items()})

    return {language: draw(language) for language in languages}


def grid_table(languages=SIX, *, empty="zh", draws=DRAWS, seed=0):
    rng = np.random.default_rng(seed)
    targets = [language for language in languages if language != "en"]
    stages = {"understanding": 0.5, "task_solving": 0.3, "generation": 0.9, "all": 2.0}
    structures = {"attention": 0.3, "ffn": 0.8, "both": 1.0}
    harm = {"own": (0.6, 0.1), "other": (0.12, 0.08), "random": (0.02, 0.02)}
    rows = []
    for i, language in enumerate(targets):
        other = targets[(i + 1) % len(targets)] if len(targets) > 1 else "en"
        conditions = [("own", language, -1), ("other", other, -1), *(("random", "", d) for d in range(draws))]
        for neurons, of, draw in conditions:
            for stage, a in stages.items():
                for structure, b in structures.items():
                    nothing = (empty in (language, of) and neurons != "other") or of == empty
                    # no neuron of that kind anywhere: the cell of every language is empty
                    nothing |= (stage, structure) == ("task_solving", "attention")
                    own, english = (-h * a * b * rng.uniform(0.7, 1.3) for h in harm[neurons])
                    values = [e + w for e in (english, own, english - own) for w in (0, -0.03 * a, 0.03 * a)]
                    count = 0 if nothing else int(40 * a * b)
                    values = [np.nan] * 9 if nothing else values
                    rows.append((language, stage, structure, neurons, of, draw, count, *values))
    ends = [f"{x}{e}" for x in ("english", "own", "delta") for e in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["language", "stage", "structure", "neurons", "of", "draw", "count", *ends])


def summary_table(grid):
    """As `study.summarise` documents it, written down again."""
    rows = []
    for (stage, structure, neurons), part in grid.groupby(["stage", "structure", "neurons"], sort=False):
        row = {"stage": stage, "structure": structure, "neurons": neurons, "count": part["count"].mean()}
        cell = grid[(grid["stage"] == stage) & (grid["structure"] == structure) & (grid["neurons"] == "random")]
        per_draw = cell.groupby("draw")[["english", "own", "delta"]].mean()
        for name, column in {"eng": "english", "non_eng": "own", "delta": "delta"}.items():
            chance = per_draw[column]
            row[name] = part[column].mean()
            random = neurons == "random"
            row[f"{name}_low"] = chance.min() if random else part[f"{column}_low"].mean()
            row[f"{name}_high"] = chance.max() if random else part[f"{column}_high"].mean()
        known = neurons != "random" and np.isfinite(row["delta"])
        row |= {"p_non_eng": 1 / 11 if known else np.nan, "p_delta": 2 / 11 if known else np.nan}
        row["draws"] = int(per_draw["delta"].notna().sum())
        rows.append(row)
    order = {name: i for i, name in enumerate((*STAGES, "all", "attention", "ffn", "both", "own", "other", "random"))}
    keys = ["stage", "structure", "neurons"]
    return pd.DataFrame(rows).sort_values(keys, key=lambda c: c.map(order)).reset_index(drop=True)


@functools.cache
def curves(value):
    """The panels of six languages, drawn once; only looked at."""
    return lens_curves(lens_table(), value, stages=SPLIT)


@functools.cache
def bars():
    return layer_counts(count_table(neuron_sets()), stages=SPLIT)


@functools.cache
def effects():
    return deltas(summary_table(grid_table()), stages=SPLIT)


def line(panel, label):
    return next(found for found in panel.get_lines() if found.get_label() == label)


@pytest.mark.parametrize("value", ["share", "mass"])
def test_the_curves_are_the_columns_of_the_table(value):
    table = lens_table()
    assert len(curves(value)) == len(SIX)
    for panel, text in zip(curves(value), SIX, strict=True):
        assert panel.get_title("left") == language_name(text)
        drawn = {"own language": text} | ({"English": "en"} if text != "en" else {})
        drawn |= {"shared by several languages": "shared"} if value == "mass" else {}
        for label, token in drawn.items():
            rows = table[(table["text_language"] == text) & (table["token_language"] == token)]
            np.testing.assert_array_equal(line(panel, label).get_ydata(), rows[value])
            np.testing.assert_array_equal(line(panel, label).get_xdata(), rows["layer"])


def test_a_layer_without_reliable_tokens_is_a_gap_and_its_coverage_zero():
    panel = curves("share")[SIX.index("ru")]
    y = np.asarray(line(panel, "own language").get_ydata(), dtype=float)
    assert np.isnan(y[[0, 2]]).all()
    assert np.isfinite(y[[1, *range(3, LAYERS + 1)]]).all()
    assert (np.asarray(line(panel, "coverage").get_ydata())[[0, 2]] == 0).all()


def test_rows_in_another_order_draw_the_same_curves():
    shuffled = (
        lens_table()
        .sample(frac=1, random_state=1)
        .sort_values("text_language", key=lambda c: c.map(SIX.index), kind="stable")
    )
    for a, b in zip(curves("share"), lens_curves(shuffled), strict=True):
        np.testing.assert_array_equal(line(a, "own language").get_ydata(), line(b, "own language").get_ydata())


def test_the_bars_add_up_to_the_neurons_of_each_layer():
    for panel, (language, neurons) in zip(bars(), neuron_sets().items(), strict=True):
        attention, ffn = panel.containers
        counts = neurons.counts()
        np.testing.assert_array_equal([bar.get_height() for bar in ffn], counts["ffn"])
        np.testing.assert_array_equal([bar.get_height() for bar in attention], sum(counts[s] for s in "qkvz"))
        assert [bar.get_y() for bar in ffn] == [bar.get_height() for bar in attention], "FFN stands on attention"
        assert ("no neurons" in panel.get_title("right")) == (language == "zh")


def test_the_heatmap_shows_overlaps_and_sizes():
    sets = neuron_sets()
    axes = overlap_heatmap(overlap_table(sets))
    cells = np.array([text.get_text() for text in axes.texts]).reshape(6, 6)
    both, either = len(sets["de"] & sets["fr"]), len(sets["de"] | sets["fr"])
    assert cells[1, 3] == cells[3, 1] == f"{both / either:.2f}"
    assert cells[1, 1] == str(len(sets["de"]))
    assert (cells[5, :5] == "0.00").all(), "zh has no neurons"
    both_empty = overlap_heatmap(overlap_table({"en": sets["zh"], "zh": sets["zh"]}))
    assert [text.get_text() for text in both_empty.texts] == ["0", "–", "–", "0"]


def test_deltas_draws_each_known_mean_and_nothing_else():
    summary = summary_table(grid_table())
    axes = effects()
    for neurons in ("own", "other"):
        for lane in ("eng", "non_eng"):
            points = [c for c in axes.containers if c.get_label() == f"{neurons} {lane}"]
            drawn = [float(c.lines[0].get_xdata()[0]) for c in points]
            known = summary[summary["neurons"] == neurons][lane].dropna()
            np.testing.assert_allclose(drawn, known)
            ends = [c.lines[2][0].get_segments()[0][:, 0] for c in points]
            edges = summary.loc[known.index, [f"{lane}_low", f"{lane}_high"]]
            np.testing.assert_allclose(ends, edges)
            hollow = [c.lines[0].get_markerfacecolor() == "white" for c in points]
            assert all(hollow) if lane == "eng" else not any(hollow)
    ranges = [c.get_paths()[0].get_extents() for c in axes.collections if len(c.get_paths()) and c.get_zorder() == 1]
    random = summary[summary["neurons"] == "random"].dropna(subset=["eng"])
    np.testing.assert_allclose(
        sorted((r.x0, r.x1) for r in ranges),
        sorted(
            zip(
                [*random["non_eng_low"], *random["eng_low"]],
                [*random["non_eng_high"], *random["eng_high"]],
                strict=True,
            )
        ),
    )
    assert "nothing to switch off" in [text.get_text() for text in axes.texts]


def test_a_summary_without_any_number_still_draws():
    grid = grid_table(TWO)
    grid.iloc[:, 7:] = np.nan
    summary = summary_table(grid)
    assert summary["delta"].isna().all()
    axes = deltas(summary)
    assert sum(text.get_text() == "nothing to switch off" for text in axes.texts) == 12
    assert "nan" not in svg(axes.figure)


def test_given_axes_are_drawn_into():
    from matplotlib.figure import Figure

    mine = Figure().subplots(2, 1)
    assert lens_curves(lens_table(TWO), axes=mine) == list(mine)
    others = list(Figure().subplots(1, 2))
    assert layer_counts(count_table(neuron_sets(TWO)), axes=others) == others
    one = Figure().subplots()
    assert deltas(summary_table(grid_table(TWO)), axes=one) is one
    assert overlap_heatmap(overlap_table(neuron_sets(TWO)), axes=one) is one
    with pytest.raises(ValueError, match="1 axes for 2 languages"):
        lens_curves(lens_table(TWO), axes=mine[:1])


@pytest.mark.parametrize(
    ("languages", "value"),
    [(TWO, "share"), (("fr",), "mass"), (("en", "$x$", "<b>&", "语言"), "mass"), (tuple("abcdfghijk"), "share")],
)
def test_any_number_of_languages_with_any_name(languages, value):
    figures = [
        lens_curves(lens_table(languages), value, stages=SPLIT)[0].figure,
        layer_counts(count_table(neuron_sets(languages)))[0].figure,
        overlap_heatmap(overlap_table(neuron_sets(languages))).figure,
    ]
    for figure in figures:
        text = svg(figure)
        words = "".join(ET.fromstring(text).itertext())
        assert all(name in words for name in languages)
        assert "<b>" not in text


def test_the_same_table_gives_the_same_svg_and_nothing_points_outside():
    first = svg(effects().figure)
    assert first == svg(inspect.unwrap(effects)().figure)
    assert first.startswith("<svg")
    assert first.endswith("</svg>")
    assert set(re.findall(r"https?://[^\"' ]+", first)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "sans-serif" in first
    assert "change of log-likelihood" in first, "text stays text"


def test_two_figures_on_a_page_share_no_ids():
    ids = [
        set(re.findall(r'\bid="([^"]+)"', svg(figure)))
        for figure in (lens_curves(lens_table(TWO), value)[0].figure for value in ("share", "mass"))
    ]
    assert all(ids)
    assert not ids[0] & ids[1]


def test_every_reference_in_an_svg_has_its_target():
    text = svg(bars()[0].figure)
    wanted = {*re.findall(r'href="#([^"]+)"', text), *re.findall(r"url\(#([^)]+)\)", text)}
    assert wanted
    assert wanted <= set(re.findall(r'\bid="([^"]+)"', text))


def test_a_language_keeps_its_colour():
    assert language_colours(SIX) == language_colours(reversed(SIX))
    assert len(set(language_colours(SIX).values())) == len(SIX)
    assert len(set(language_colours([*SIX, "ja", "ko", "th", "vi"]).values())) == len(SIX) + 4
    assert language_colours(["en", "zh", "th"])["zh"] == language_colours(SIX)["zh"]


@pytest.mark.parametrize(
    ("draw", "table", "column"),
    [
        (lens_curves, lens_table(), "share_low"),
        (layer_counts, count_table(neuron_sets()), "count"),
        (overlap_heatmap, overlap_table(neuron_sets()), "jaccard"),
        (deltas, summary_table(grid_table()), "non_eng_high"),
    ],
)
def test_a_table_that_cannot_be_shown_is_refused_by_name(draw, table, column):
    with pytest.raises(ValueError, match=rf"lacks {column}: give it as"):
        draw(table.drop(columns=column))
    with pytest.raises(ValueError, match="table is empty: there is nothing to show"):
        draw(table.iloc[:0])


def test_a_curve_of_something_else_is_refused():
    with pytest.raises(ValueError, match="'share' or 'mass'"):
        inspect.unwrap(lens_curves)(lens_table(), "coverage")  # past the type checker of the tests


def test_importing_the_module_does_not_import_matplotlib(monkeypatch):
    monkeypatch.setattr(mwork_lens, "plots", mwork_lens.plots)  # what is imported anew here is gone after the test
    for name in [name for name in sys.modules if re.match(r"mwork_lens\.plots\b|matplotlib\b", name)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    fresh = importlib.import_module("mwork_lens.plots")
    assert fresh.svg is not svg
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):  # negative control: it is imported on use
        fresh.lens_curves(lens_table(TWO))
