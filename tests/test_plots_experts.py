"""The figures of the experts show the numbers of their tables."""

import functools
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mwork_lens.experts.analysis import frequency_table, similarity
from mwork_lens.experts.categories import CATEGORIES, categories, category_shares
from mwork_lens.experts.kinship import dendrogram
from mwork_lens.plots.experts import category_bars, frequency_heatmaps, language_tree, pruning_curves
from mwork_lens.plots.style import language_name, svg

FAMILIES = {"en": "Germanic", "fr": "Romance", "de": "Germanic", "es": "Romance"}
CURVE = ["share", "off", "neurons", "language", "dnll", "dnll_low", "dnll_high", "random_low", "random_high"]


@functools.cache
def frequencies():
    """Languages of one family are alike; 3 layers of 7 experts."""
    rng = np.random.default_rng(0)
    base = {family: rng.uniform(0.1, 0.9, (3, 7)) for family in ("Germanic", "Romance")}
    return {code: base[family] + rng.uniform(-0.02, 0.02, (3, 7)) for code, family in FAMILIES.items()}


def pruning(languages=("de", "en"), shares=(0.25, 0.75, 0.5)):
    """Diagonal rows of own experts, a row off the diagonal and one of random experts, which are not to be drawn."""
    rows = []
    for i, code in enumerate(languages):
        for share in shares:
            d = (1 - share) * (i + 1)
            rows.append((share, code, "own", code, d, d - 0.1, d + 0.2, 2 * d, 3 * d))
            rows.append((share, code, "random", code, 50.0, 49.0, 51.0, np.nan, np.nan))
            rows.append((share, code, "own", "zh", 70.0, 69.0, 71.0, 60.0, 80.0))
    return pd.DataFrame(rows, columns=CURVE)


def test_heatmap_cells_are_the_frequencies_in_one_order_for_all_languages():
    f = frequencies()
    panels = frequency_heatmaps(frequency_table(f))
    assert [panel.get_title(loc="left") for panel in panels] == [language_name(code) for code in f]
    scales = set()
    for panel, code in zip(panels, f, strict=True):
        mesh = panel.collections[0]
        scales.add(mesh.get_clim())
        for layer in range(3):
            order = sorted(range(7), key=lambda e, at=layer: (-sum(x[at, e] for x in f.values()), e))
            drawn = np.asarray(mesh.get_array()).reshape(3, 7)[layer]
            np.testing.assert_array_equal(drawn, [f[code][layer, e] for e in order])
    assert scales == {(0, max(x.max() for x in f.values()))}
    bars = [axes for axes in panels[0].figure.axes if axes not in panels]
    assert [bar.get_ylabel() for bar in bars] == ["frequency, share of tokens"]


def test_heatmap_ignores_the_order_of_rows_and_names_layers_that_were_counted():
    table = frequency_table(frequencies())
    table["layer"] = table["layer"].map({0: 3, 1: 8, 2: 11})
    mixed = table.sample(frac=1, random_state=1)
    panels = frequency_heatmaps(mixed)
    first = {panel.get_title(loc="left"): np.asarray(panel.collections[0].get_array()) for panel in panels}
    for panel in frequency_heatmaps(table):
        np.testing.assert_array_equal(first[panel.get_title(loc="left")], panel.collections[0].get_array())
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["3", "8", "11"]


def test_an_unknown_frequency_is_blank_not_zero():
    table = frequency_table(frequencies())
    gone = (table["language"] == "de") & (table["layer"] == 1) & (table["expert"] == 4)
    masks = [np.ma.getmaskarray(p.collections[0].get_array()) for p in frequency_heatmaps(table[~gone])]
    assert [mask.sum() for mask in masks] == [0, 0, 1, 0]
    assert masks[2].reshape(3, 7)[1].sum() == 1


def test_the_tree_has_the_leaves_and_distances_of_the_dendrogram():
    tree = dendrogram(similarity(frequencies()))
    axes = language_tree(tree)
    texts = axes.get_yticklabels()
    assert [text.get_text() for text in texts] == [f"{language_name(c)}  {FAMILIES[c]}" for c in tree.order]
    merges = sorted(max(line.get_xdata()) for line in axes.lines)
    np.testing.assert_allclose(merges, sorted(tree.linkage[:, 2]))
    places = {
        float(y) for line in axes.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if x == 0
    }
    assert places == {0.0, 1.0, 2.0, 3.0}
    assert f"cophenetic correlation {tree.cophenetic:.2f}" in axes.get_title(loc="left")
    low, high = sorted(axes.get_xlim())
    assert low <= 0 < tree.linkage[:, 2].max() < high


def test_names_have_the_colour_of_their_family():
    tree = dendrogram(similarity(frequencies()))

    def colours(families):
        texts = language_tree(tree, families=families).get_yticklabels()
        return {code: to_hex(text.get_color()) for code, text in zip(tree.order, texts, strict=True)}

    known = colours(None)
    assert known["en"] == known["de"] != known["fr"] == known["es"]
    other = colours({"de": "Uralic", "fr": "Uralic"})
    assert other["de"] == other["fr"]
    assert len({other[code] for code in ("en", "de", "es")}) == 3


def test_two_languages_have_no_cophenetic_correlation():
    two = dendrogram(similarity(frequencies(), languages=["en", "fr"]))
    title = language_tree(two).get_title(loc="left")
    assert "nan" not in title
    assert "cophenetic correlation 0" not in title


def test_bars_are_the_shares_stacked_to_the_whole():
    table = category_shares(categories(frequencies(), high=0.5, low=0.4), by="layer")
    assert (table["of"] != "").any()  # parts of a category, which must not be stacked again
    axes = category_bars(table)
    whole = table[table["of"] == ""].set_index(["category", "layer"])["share"]
    assert [bars.get_label() for bars in axes.containers] == list(CATEGORIES)
    for bars in axes.containers:
        np.testing.assert_allclose(
            [bar.get_height() for bar in bars], [whole[bars.get_label(), layer] for layer in range(3)]
        )
    for layer in range(3):
        stack = [bars[layer] for bars in axes.containers]
        bottoms = np.cumsum([0.0, *(bar.get_height() for bar in stack)])
        np.testing.assert_allclose([bar.get_y() for bar in stack], bottoms[:-1], atol=1e-12)
        assert bottoms[-1] == pytest.approx(1)


def test_curves_are_the_diagonal_of_own_experts_from_all_kept_to_few():
    table = pruning()
    panels = pruning_curves(table)
    assert [panel.get_title(loc="left") for panel in panels] == [language_name("de"), language_name("en")]
    for i, panel in enumerate(panels):
        (curve,) = [line for line in panel.lines if line.get_label() == "own experts kept"]
        np.testing.assert_allclose(curve.get_xdata(), [100, 75, 50, 25])
        change = np.array([0.0, 0.25, 0.5, 0.75]) * (i + 1)
        np.testing.assert_allclose(curve.get_ydata(), change)
        chance, band = (area.get_paths()[0].vertices for area in panel.collections)
        assert {*chance[:, 1].round(9)} == {*(2 * change).round(9), *(3 * change).round(9)}
        assert {*band[:, 1].round(9)} == {0, *(change[1:] - 0.1).round(9), *(change[1:] + 0.2).round(9)}
        left, right = panel.get_xlim()
        assert left > 100 > 25 > right


def test_a_row_with_everything_kept_is_used_as_it_is():
    table = pruning(("de",))
    full = table.iloc[[0]].assign(
        share=1.0, dnll=0.01, dnll_low=0.0, dnll_high=0.02, random_low=np.nan, random_high=np.nan
    )
    (panel,) = pruning_curves(pd.concat([table, full]))
    assert panel.lines[0].get_ydata()[0] == 0.01
    assert len(panel.lines[0].get_xdata()) == 4


def test_without_random_draws_there_is_no_grey():
    bare = pruning().assign(random_low=np.nan, random_high=np.nan)
    assert [len(panel.collections) for panel in pruning_curves(bare)] == [1, 1]
    assert [len(panel.collections) for panel in pruning_curves(pruning())] == [2, 2]


def drawings():
    f = frequencies()
    return {
        frequency_heatmaps: frequency_table(f),
        category_bars: category_shares(categories(f), by="layer"),
        pruning_curves: pruning(),
    }


def test_given_axes_are_used_and_too_few_refused():
    tree = dendrogram(similarity(frequencies()))
    for draw, data in (*drawings().items(), (language_tree, tree)):
        many = draw in (frequency_heatmaps, pruning_curves)
        figure = Figure(layout="constrained")
        given = list(figure.subplots(1, 5))
        made = draw(data, axes=given if many else given[0])
        used = made if many else [made]
        assert all(a is b for a, b in zip(used, given, strict=False))
        assert all(axes.has_data() for axes in used)
        assert not given[-1].has_data()
        assert used[0].get_xlabel()
        if many:
            with pytest.raises(ValueError, match=r"1 axes for . languages: give one per language"):
                draw(data, axes=given[:1])


def test_figures_are_the_same_each_time_and_without_pyplot():
    loaded = "matplotlib.pyplot" in sys.modules
    tree = dendrogram(similarity(frequencies()))
    for draw, data in (*drawings().items(), (language_tree, tree)):
        one, two = (svg(np.ravel(draw(data))[0].figure) for _ in range(2))
        assert one == two
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize(
    ("draw", "column", "maker"),
    [
        (frequency_heatmaps, "frequency", "frequency_table"),
        (category_bars, "layer", 'by="layer"'),
        (pruning_curves, "share", "pruning_scores"),
        (pruning_curves, "random_low", "perplexity_matrix"),
    ],
)
def test_a_missing_column_or_row_is_refused(draw, column, maker):
    table = drawings()[draw]
    with pytest.raises(ValueError, match=f"lacks {column}: give it as `.*{maker}"):
        draw(table.drop(columns=column))
    with pytest.raises(ValueError, match="table is empty: there is nothing to show"):
        draw(table.iloc[:0])


def test_tables_that_say_two_things_are_refused():
    for draw, table in drawings().items():
        with pytest.raises(ValueError, match="twice: give one row for each"):
            draw(pd.concat([table, table.iloc[:1]]))
    with pytest.raises(ValueError, match=r"pruning table has share 0\.25, language zh twice"):
        pruning_curves(pruning().drop(columns="off"))  # the rows off the diagonal cannot be told from it
    bars = drawings()[category_bars]
    with pytest.raises(ValueError, match="unknown category 'odd': the categories are co-activated, family"):
        category_bars(bars.replace({"category": {"mixed": "odd"}}))
    with pytest.raises(ValueError, match=r"share=1\.5 is not a share of experts kept"):
        pruning_curves(pruning(shares=(1.5, 0.5)))
    with pytest.raises(ValueError, match="table is empty"):
        pruning_curves(pruning().query("neurons == 'random'"))


def test_a_language_without_a_family_is_refused():
    tree = dendrogram(similarity({"en": frequencies()["en"], "qq": frequencies()["fr"]}), families={"qq": "Made up"})
    assert "qq  Made up" in [t.get_text() for t in language_tree(tree, families={"qq": "Made up"}).get_yticklabels()]
    with pytest.raises(ValueError, match="qq"):
        language_tree(tree)
