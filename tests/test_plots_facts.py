"""The figures of facts show the numbers of their tables."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mwork_lens.facts.factors import factor_correlations, precision_by_tokens
from mwork_lens.facts.origin import LABELS, TYPES
from mwork_lens.facts.sharing import cluster
from mwork_lens.plots import (
    absent_bars,
    bins_heatmap,
    factor_scatter,
    language_heatmap,
    language_name,
    pattern_bars,
    precision_intervals,
    svg,
    token_curves,
    type_bars,
)
from mwork_lens.plots.style import log_axis, plain_number

LANGUAGES = ["en", "de", "fr", "ru", "zh"]


def precisions():
    rows = [("full", x, 0.1 * i + 0.05, 0.1 * i, 0.1 * i + 0.12) for i, x in enumerate(LANGUAGES)]
    rows += [("typed", x, 0.5, 0.4, 0.7) for x in LANGUAGES[:-1]]
    return pd.DataFrame(rows, columns=["metric", "language", "precision", "low", "high"])


def similarity():
    values = np.full((5, 5), 0.1)
    values[:2, :2] = values[2:4, 2:4] = 0.6
    np.fill_diagonal(values, 1.0)
    return pd.DataFrame(values, index=LANGUAGES, columns=LANGUAGES)


def absent():
    rows = [("en", 100, 10, 0.1, 0.05, 0.18), ("de", 0, 0, np.nan, np.nan, np.nan), ("all", 100, 10, 0.1, 0.05, 0.18)]
    return pd.DataFrame(rows, columns=["language", "predicted", "absent", "share", "low", "high"])


def texts(items):
    return [item.get_text() for item in items]


def test_precision_is_drawn_in_percent_the_best_language_on_top():
    axes = precision_intervals(precisions())
    assert texts(axes.get_yticklabels()) == [language_name(x) for x in reversed(LANGUAGES)]
    first, second = (bars.lines[0].get_xdata() for bars in axes.containers)
    np.testing.assert_allclose(first, [45, 35, 25, 15, 5])
    assert np.isnan(second[0])  # zh has no typed rank: left out, not zero
    np.testing.assert_allclose(second[1:], 50)
    ends = axes.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(ends[:, 0], [40, 52])
    assert texts(axes.get_legend().get_texts()) == ["full", "typed"]


def test_factors_are_drawn_with_their_correlations():
    table = precisions()[lambda t: t["metric"] == "full"].assign(pages=[10, 300, 20, 1000, 5000])
    score = table.set_index("language")["precision"]
    found = factor_correlations(score, {"pages": table.set_index("language")["pages"]})
    axes = factor_scatter(table, found, factor="pages", log=True)
    assert axes.get_xscale() == "log"
    logarithmic = found[found["scale"] == "log"].iloc[0]
    assert f"pearson of log pages {logarithmic['r']:.2f} [" in axes.get_title(loc="left").replace("−", "-")
    assert "spearman" in axes.get_title(loc="left")
    assert axes.get_title(loc="left").endswith("n = 5")
    raw = found[(found["scale"] == "raw") & (found["method"] == "pearson")].iloc[0]
    assert f"pearson {raw['r']:.2f} [" in factor_scatter(table, found, factor="pages").get_title(loc="left").replace(
        "−", "-"
    )
    assert [axes.containers[i].lines[0].get_ydata()[0] for i in range(5)] == pytest.approx([5, 15, 25, 35, 45])
    with pytest.raises(ValueError, match="'pages' is not positive for 'de': use log=False"):
        factor_scatter(table.assign(pages=[1, 0, 1, 1, 1]), factor="pages", log=True)
    with pytest.raises(ValueError, match="the factor table lacks area"):
        factor_scatter(table, factor="area")


@pytest.mark.parametrize("top", [3, 30, 5e9])
def test_numbers_of_logarithmic_axes_are_plain(top):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1.2, top], [1.2, top])
    log_axis(axes)
    log_axis(axes, "y")
    drawn = svg(figure)
    assert "mathdefault" not in drawn
    assert (">2<" in drawn) == (top < 100)
    table = precisions()[lambda t: t["metric"] == "full"].assign(pages=np.geomspace(1.2, top, 5))
    assert "mathdefault" not in svg(factor_scatter(table, factor="pages", log=True).figure)


def test_names_of_points_that_lie_together_are_moved_apart():
    table = precisions()[lambda t: t["metric"] == "full"].assign(pages=7.0, precision=0.2)
    places = [text.get_position() for text in factor_scatter(table, factor="pages").texts]
    assert len(set(places)) == len(LANGUAGES)
    apart = factor_scatter(table.assign(pages=[1, 2, 3, 4, 5]), factor="pages").texts
    assert len({text.get_position() for text in apart}) == 1


@pytest.mark.parametrize(
    ("value", "said"), [(0.5, "0.5"), (1.0, "1"), (20000.0, "20,000"), (2e7, "2e+07"), (0.001, "0.001")]
)
def test_plain_numbers(value, said):
    assert plain_number(value) == said


def test_curves_of_tokens_are_the_shares():
    asked = pd.DataFrame(
        {
            "language": ["en"] * 3 + ["de"] * 2,
            "object_tokens": [1, 1, 2, 1, 3],
            "full": [True, False, True, False, True],
        }
    )
    axes = token_curves(precision_by_tokens(asked))
    drawn = {bars.get_label(): bars.lines[0].get_ydata().tolist() for bars in axes.containers}
    assert drawn == {language_name("de"): [0.0, 100.0], language_name("en"): [50.0, 100.0]}


def test_the_heat_map_stands_in_the_order_of_the_tree_and_parts_the_groups():
    matrix = similarity()
    found = cluster(matrix, 3)
    axes = language_heatmap(matrix, found, label="Jaccard", chance=0.0123)
    assert texts(axes.get_xticklabels()) == list(found.order)
    drawn = np.ma.getdata(axes.collections[0].get_array()).reshape(5, 5)
    blank = np.ma.getmaskarray(axes.collections[0].get_array()).reshape(5, 5)
    assert (blank == np.eye(5, dtype=bool)).all()
    np.testing.assert_allclose(drawn[~blank], matrix.loc[list(found.order), list(found.order)].to_numpy()[~blank])
    assert len(axes.lines) == 2 * 2  # three groups, two borders each way
    assert axes.get_xlabel() == "by chance 0.0123; beige: a language with itself"
    assert len(axes.texts) == 20
    plain = language_heatmap(matrix, label="Jaccard")
    assert texts(plain.get_xticklabels()) == LANGUAGES
    assert not plain.lines


def test_unknown_pairs_are_blank_and_other_languages_are_refused():
    matrix = similarity()
    matrix.loc["en", "zh"] = matrix.loc["zh", "en"] = np.nan
    blank = np.ma.getmaskarray(language_heatmap(matrix, label="").collections[0].get_array())
    assert blank.sum() == 5 + 2
    assert language_heatmap(matrix, label="").get_xlabel() == "beige: a language with itself, or no fact in both"
    with pytest.raises(ValueError, match="same ones in rows and columns"):
        language_heatmap(matrix.iloc[:3], label="")
    with pytest.raises(ValueError, match=r"the matrix is of en, de, fr, ru: cluster this one"):
        language_heatmap(matrix.iloc[:4, :4], cluster(similarity(), 2), label="")


def test_bins_are_layers_by_parts():
    counts = np.arange(12).reshape(3, 4)
    axes = bins_heatmap(counts, width=10)
    np.testing.assert_array_equal(np.asarray(axes.collections[0].get_array()).reshape(3, 4), counts)
    assert axes.get_xlabel() == "bin of 2 or 3 units, side by side"
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        bins_heatmap([1, 2, 3])


def test_absent_shares_are_bars_and_what_is_unknown_has_none():
    axes = absent_bars(absent())
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 10])
    assert "10 of 100" in texts(axes.texts)
    assert texts(axes.get_yticklabels()) == [language_name("en"), language_name("de"), "all"]


@pytest.mark.parametrize(("draw", "columns"), [(type_bars, TYPES), (pattern_bars, (*LABELS, "none"))])
def test_stacks_add_up_to_the_whole_and_an_empty_one_is_empty(draw, columns):
    table = pd.DataFrame([[1, 2, 3, 4], [0, 0, 0, 0]], index=["en", "de"], columns=list(columns))
    axes = draw(table)
    widths = np.array([[bar.get_width() for bar in bars] for bars in axes.containers])
    np.testing.assert_allclose(widths.T, [[10, 20, 30, 40], [0, 0, 0, 0]])
    assert [t for t in texts(axes.texts) if t in ("10", "0")] == ["10", "0"]
    with pytest.raises(ValueError, match=f"lacks {columns[1]}"):
        draw(table.drop(columns=columns[1]))


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (precision_intervals, precisions()),
        (
            token_curves,
            pd.DataFrame({"language": ["en"], "object_tokens": [1], "p_at_1": [0.5], "low": [0.1], "high": [0.9]}),
        ),
        (absent_bars, absent()),
    ],
)
def test_axes_that_were_given_are_used_and_bad_tables_are_refused(draw, table):
    axes = Figure().subplots()
    assert draw(table, axes=axes) is axes
    assert svg(axes.figure).startswith("<svg")
    with pytest.raises(ValueError, match="table is empty"):
        draw(table.iloc[:0])
    with pytest.raises(ValueError, match="lacks low"):
        draw(table.drop(columns="low"))


def test_one_average_at_a_time():
    with pytest.raises(ValueError, match="a language twice for a metric"):
        precision_intervals(pd.concat([precisions(), precisions()]))
