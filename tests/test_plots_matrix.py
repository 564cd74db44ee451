"""The figures of the perplexity matrix say what its tables say."""

import functools
import itertools
import sys

import numpy as np
import pandas as pd
import pytest

from mwork_lens.evaluate import resample
from mwork_lens.perplexity.tables import SCORES, perplexity_matrix, selectivity, share_curve
from mwork_lens.plots.matrix import perplexity_heatmap, selectivity_bars, share_curves
from mwork_lens.plots.style import language_name, svg

SIX = ("en", "de", "es", "fr", "ru", "zh")


def made_up(languages=SIX, *, empty="ru", draws=3, documents=6, seed=0, share=0.01, own=0.7, other=0.02, chance=0.1):
    """Own neurons harm their language more than random ones, and the others less."""
    rng = np.random.default_rng(seed)
    tokens = np.random.default_rng(7).integers(20, 60, documents)
    rows = []

    def add(off, kind, draw, count, change):
        for j, language in enumerate(languages):
            hard = 3 + 0.4 * j + (rng.normal(0, 0.01, documents) if off else 0) + change(language)
            rows.extend(
                (share if off else 0.0, off, kind, draw, count, language, f"d{d}", hard[d] * tokens[d] if off else hard * tokens[d], tokens[d])
                for d in range(documents)
            )  # fmt: skip

    add("", "none", -1, 0, lambda language: 0.0)
    for off in languages:
        if off == empty:
            add(off, "own", -1, 0, lambda language: np.nan)
            continue
        add(off, "own", -1, 1234, lambda language, off=off: own if language == off else other)
        for draw in range(draws):
            add(off, "random", draw, 1234, lambda language: chance)
    return pd.DataFrame(rows, columns=["share", *SCORES])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """40 resamples instead of a thousand."""
    module = sys.modules["mwork_lens.perplexity.tables"]
    monkeypatch.setattr(module, "resample", lambda n, seed: resample(n, resamples=40, seed=seed))


@functools.cache
def matrix():
    return perplexity_matrix(made_up())


@functools.cache
def heatmap(value):
    return perplexity_heatmap(matrix(), value=value)


@functools.cache
def curve():
    parts = [
        made_up(share=share, own=40 * share, chance=5 * share, seed=i) for i, share in enumerate((0.01, 0.02, 0.05))
    ]
    return share_curve(pd.concat([parts[0], *(part[part["off"] != ""] for part in parts[1:])], ignore_index=True))


@functools.cache
def curves():
    return share_curves(curve())


@functools.cache
def table():
    return selectivity(made_up())


@functools.cache
def bars():
    return selectivity_bars(table())


def words(axes):
    return [text.get_text() for text in axes.texts]


def cells(axes):
    """Texts of the cells: at (column, row), in data coordinates."""
    return [text for text in axes.texts if text.get_transform() == axes.transData]


def number(text):
    return float(text.split()[0].replace("−", "-").replace(",", ""))


@pytest.mark.parametrize("value", ["dnll", "dppl"])
def test_the_cells_are_the_numbers_of_the_table(value):
    axes, wanted = heatmap(value), matrix()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [*(language_name(x) for x in SIX), *(language_name(x) for x in SIX if x != "ru"), "unmasked"]
    written = [text for text in cells(axes) if not text.get_text().startswith("[")]
    blocks = [wanted[wanted["neurons"] == kind] for kind in ("own", "random", "none")]
    assert len(written) == sum(map(len, blocks))
    shown = iter(written)
    for block in blocks:
        for (_, row), text in zip(block.iterrows(), shown, strict=False):
            assert SIX[round(text.get_position()[0])] == row["language"]
            if row["neurons"] == "none":
                expected = row["nll"] if value == "dnll" else np.exp(row["nll"])
                assert number(text.get_text()) == pytest.approx(expected, abs=0.051 if value == "dppl" else 0.0051)
            elif row["off"] == "ru":
                assert text.get_text() == "–"
            else:
                assert number(text.get_text()) == pytest.approx(row[value], abs=0.051 if value == "dppl" else 0.0051)
    intervals = [text.get_text() for text in cells(axes) if text.get_text().startswith("[")]
    known = pd.concat(blocks[:2]).dropna(subset=["dnll"])
    assert len(intervals) == len(known)
    for text, (_, row) in zip(intervals, known.iterrows(), strict=True):
        low, high = (float(edge.replace("−", "-")) for edge in text.strip("[]").split(", "))
        assert (low, high) == pytest.approx(
            (row[f"{value}_low"], row[f"{value}_high"]), abs=0.051 if value == "dppl" else 0.0051
        )


def test_colours_are_centred_at_nothing_and_grow_with_harm():
    axes = perplexity_heatmap(perplexity_matrix(made_up(("de", "en"), empty=None, own=0.5, other=-0.5)))
    meshes = axes.collections
    norm, shades = meshes[0].norm, meshes[0].cmap
    assert shades(norm(0.0)) == pytest.approx((1, 1, 1, 1), abs=0.02)
    assert norm.vmin == -norm.vmax
    red, _, blue, _ = shades(norm(0.5))
    assert red > blue  # harm is orange
    red, _, blue, _ = shades(norm(-0.5))
    assert blue > red
    first = np.asarray(meshes[0].get_array()).ravel()
    np.testing.assert_allclose(first, [0.5, -0.5], atol=0.02)
    unmasked = np.ma.getmaskarray(meshes[-1].get_array())
    assert unmasked.all()  # NLL itself is not on the scale of the differences


def test_arrows_say_on_which_side_of_chance_a_cell_lies():
    own = matrix()[lambda t: (t["neurons"] == "own") & (t["off"] != "ru")]
    written = [t for t in cells(heatmap("dnll")) if not t.get_text().startswith("[") and t.get_text() != "–"][
        : len(own)
    ]
    for text, (_, row) in zip(written, own.iterrows(), strict=True):
        diagonal = row["off"] == row["language"]
        assert text.get_text().endswith(" ↑" if diagonal else " ↓")
        assert (text.get_fontweight() == "bold") == diagonal
    alike = perplexity_heatmap(perplexity_matrix(made_up(own=0.1, other=0.1, draws=9)))
    assert sum("↑" in word or "↓" in word for word in words(alike)) <= 12  # of 30: chance against chance
    without = perplexity_heatmap(perplexity_matrix(made_up(draws=0)))
    assert not any("↑" in word or "random" in word for word in words(without))
    assert "random" not in without.get_xlabel()
    assert "random" in heatmap("dnll").get_xlabel()


def test_the_diagonal_is_framed_and_the_neurons_are_counted():
    axes = heatmap("dnll")
    frames = [(p.get_x() + p.get_width() / 2, p.get_y() + p.get_height() / 2) for p in axes.patches]
    rows = dict(zip(SIX, axes.get_yticks()[:6], strict=True))
    np.testing.assert_allclose(frames, [(i, rows[language]) for i, language in enumerate(SIX)])
    assert words(axes).count("1,234") == 10
    assert words(axes).count("0") == 1  # Russian
    assert "as many random neurons off, mean of 3 draws" in words(axes)


def overlaps(axes):
    """Pairs of texts of a figure that cover each other, and those that leave the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = []
    for one in figure.axes:
        for axis in (one.xaxis, one.yaxis):  # ticks beyond the limits are not drawn
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [tick.label2 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        found += [*one.texts, one.title, one._left_title, one.xaxis.label]
    found += [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in found if t.get_text() and t.get_visible()]
    frame = figure.bbox
    outside = [
        (name, "page") for name, b in boxes if b.x0 < -1 or b.y0 < -1 or b.x1 > frame.x1 + 1 or b.y1 > frame.y1 + 1
    ]
    pairs = itertools.combinations(boxes, 2)
    return outside + [
        (a, b)
        for (a, x), (b, y) in pairs
        if min(x.x1, y.x1) - max(x.x0, y.x0) > 0.5 and min(x.y1, y.y1) - max(x.y0, y.y0) > 0.5
    ]


@pytest.mark.parametrize("value", ["dnll", "dppl"])
def test_no_label_covers_another(value):
    assert overlaps(heatmap(value)) == []
    if value == "dnll":
        assert overlaps(curves()[0]) == []
        assert overlaps(bars()) == []
        for languages in (("en", "zh"), ("pt", "id", "vi", "zh", "en", "ja", "ko", "de"), (*"abcdefg", "zh", "vi")):
            scores = made_up(languages, empty=None, draws=1, documents=3)
            assert overlaps(perplexity_heatmap(perplexity_matrix(scores))) == [], languages
            assert overlaps(selectivity_bars(selectivity(scores))) == [], languages
    axes = perplexity_heatmap(perplexity_matrix(made_up(("en", "zh"), empty=None)))
    cells(axes)[0].set_position((1, cells(axes)[0].get_position()[1]))
    assert overlaps(axes)  # the check itself sees what it should


def test_a_cell_is_dark_where_its_text_is_white():
    from matplotlib.colors import to_rgb

    def luminance(colour):
        channels = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]

    for level in np.linspace(-0.9, 0.9, 19):
        scores = made_up(("de", "en"), empty=None, draws=0, own=1.0, other=level, documents=3)
        axes = perplexity_heatmap(perplexity_matrix(scores))
        mesh = axes.collections[0]
        shade = mesh.cmap(mesh.norm(np.asarray(mesh.get_array()).ravel()[1]))
        text = cells(axes)[2]
        light, dark = sorted((luminance(shade[:3]), luminance(text.get_color())), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.5, level


# --- curves


def test_the_curves_are_the_columns_of_the_table_and_begin_at_nothing():
    known = curve()
    assert [panel.get_title("left") for panel in curves()] == [language_name(x) for x in SIX]
    for panel, language in zip(curves(), SIX, strict=True):
        lines = {line.get_label(): line for line in panel.get_lines()}
        own = known[(known["off"] == language) & (known["neurons"] == "own")]
        mine = own[own["language"] == language]
        drawn = lines["own language"]
        np.testing.assert_allclose(drawn.get_xdata(), [0, 1, 2, 5])
        np.testing.assert_array_equal(drawn.get_ydata(), [0, *mine["dnll"]])
        others = own[own["language"] != language].groupby("share")["dnll"].mean()
        np.testing.assert_array_equal(lines["other languages"].get_ydata(), [0, *others])
        bands = [c.get_paths()[0].get_extents() if c.get_paths() else None for c in panel.collections]
        if language == "ru":
            assert mine["dnll"].isna().all()
            continue
        chance, interval = bands
        edges = mine[["random_low", "random_high"]].to_numpy()
        assert (chance.y0, chance.y1) == pytest.approx((min(0, edges.min()), edges.max()))
        assert (interval.y0, interval.y1) == pytest.approx((0, mine["dnll_high"].max()))


def test_curves_without_draws_have_no_range():
    scores = made_up(("de", "en"), empty=None, draws=0)
    panels = share_curves(share_curve(scores))
    assert [len(panel.collections) for panel in panels] == [1, 1]


# --- bars


def test_the_bars_are_the_selectivities():
    own = table()[table()["neurons"] == "own"]
    drawn = [patch.get_width() for patch in bars().patches]
    np.testing.assert_allclose(drawn, own["selectivity"].dropna())
    names = [label.get_text() for label in bars().get_yticklabels()]
    assert names == [*(language_name(x) for x in SIX), "mean"]
    assert "no neurons" in words(bars())
    assert words(bars()).count("0.25") == 6  # 1 / (1 + 3 draws), Russian has none
    assert "suffers most in 5 of 5 rows; permutation p = 0.0083" in bars().get_title("left")
    random = table()[table()["neurons"] == "random"].groupby("off", sort=False)["selectivity"].agg(["min", "max"])
    ranges = [c.get_paths()[0].get_extents() for c in bars().collections if c.get_zorder() == 1]
    np.testing.assert_allclose(sorted((r.x0, r.x1) for r in ranges), sorted(random.itertuples(index=False, name=None)))
    few = selectivity_bars(selectivity(made_up(("en", "zh"), empty="zh", draws=0)))
    assert "1 of 1 rows" in few.get_title("left")
    assert "permutation" not in few.get_title("left")


# --- all of them


def test_given_axes_are_drawn_into():
    from matplotlib.figure import Figure

    one = Figure().subplots()
    assert perplexity_heatmap(matrix(), axes=one) is one
    assert selectivity_bars(table(), axes=one) is one
    mine = list(Figure().subplots(2, 3).ravel())
    assert share_curves(curve(), axes=mine) == mine
    with pytest.raises(ValueError, match="5 axes for 6 languages: give one per language, or none"):
        share_curves(curve(), axes=mine[:5])


@pytest.mark.parametrize("languages", [("en", "zh"), ("en", "$x$", "<b>&", "语言")])
def test_any_language_with_any_name(languages):
    scores = made_up(languages, empty=None)
    figures = [
        perplexity_heatmap(perplexity_matrix(scores)).figure,
        selectivity_bars(selectivity(scores)).figure,
        share_curves(share_curve(scores))[0].figure,
    ]
    for figure in figures:
        drawn = svg(figure)
        assert "nan" not in drawn
        assert all(name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in drawn for name in languages)


def test_nothing_to_switch_off_anywhere_still_draws():
    scores = made_up(("de", "en"), empty="de")
    scores = scores[scores["off"] != "en"]
    axes = perplexity_heatmap(perplexity_matrix(scores))
    assert [text.get_text() for text in cells(axes)][:2] == ["–", "–"]
    assert "nan" not in svg(axes.figure)
    assert "nan" not in svg(selectivity_bars(selectivity(scores)).figure)


def test_tables_that_cannot_be_shown_are_refused():
    for draw, known, what, maker in (
        (perplexity_heatmap, matrix(), "matrix", "perplexity_matrix"),
        (share_curves, curve(), "curve", "share_curve"),
        (selectivity_bars, table(), "selectivity", "selectivity"),
    ):
        with pytest.raises(ValueError, match=f"the {what} table lacks off: give it as `{maker}` makes it"):
            draw(known.drop(columns="off"))
        with pytest.raises(ValueError, match=f"the {what} table is empty"):
            draw(known.iloc[:0])
    for draw, known in ((share_curves, curve()), (selectivity_bars, table())):
        with pytest.raises(ValueError, match="table is empty: there is nothing to show"):
            draw(known[known["neurons"] != "own"])
    with pytest.raises(ValueError, match="unknown value='nll': choose from dnll, dppl"):
        perplexity_heatmap(matrix(), value="nll")
