"""The figures of steering say what its tables say."""

import functools
import itertools
import sys

import numpy as np
import pandas as pd
import pytest

from mwork_lens.evaluate import resample
from mwork_lens.plots.steering import damage_heatmap, dose_curves, fluency_against_accuracy
from mwork_lens.plots.style import language_colours, language_name, svg
from mwork_lens.steering.responses import RESPONSES
from mwork_lens.steering.tables import STEERING, steering_table

DAMAGE = ("source", "target", "condition", "how", "value", "strength", "draw", "language", "dnll", "dnll_low", "dnll_high")  # fmt: skip
MEAN = (("replace", "mean", "all"),)
EVERY = (*MEAN, ("add", "mean", "all"), ("replace", "firing", "all"), ("replace", "mean", "new"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """40 resamples instead of a thousand."""
    module = sys.modules["mwork_lens.steering.tables"]
    monkeypatch.setattr(module, "resample", lambda n, resamples, seed: resample(n, resamples=40, seed=seed))


def made_up(
    targets=("fr", "zh", "de"), *, sources=("en",), kinds=MEAN, strengths=(1.0, 2.0, 4.0), draws=3, without=(), seed=0
):
    """Responses of which more are in the target language the stronger the dose; random draws rarely; unsteered never."""
    rng = np.random.default_rng(seed)
    rows = []

    def add(source, target, condition, how, value, strength, phase, draw, rate):
        if condition in without:
            return
        for prompt in range(20):
            said = target if rng.random() < rate else source
            nll = 2 + 0.6 * strength * (condition in ("on", "both")) + rng.normal(0, 0.2)
            rows.append((source, target, condition, how, value, strength, phase, 0.0, draw, prompt, "abc", "eos", 9, said, nll, 0.1))  # fmt: skip

    for source in sources:
        add(source, "", "none", "", "", 0.0, "", -1, 0.0)
        add(source, "", "off", "", "", 0.0, "all", -1, 0.0)
        for target, (how, value, phase), strength in itertools.product(targets, kinds, strengths):
            for condition, rate in (("on", 0.15 * strength), ("both", 0.22 * strength)):
                add(source, target, condition, how, value, strength, phase, -1, rate)
            for draw in range(draws):
                add(source, target, "random", how, value, strength, phase, draw, 0.05)
    return steering_table(pd.DataFrame(rows, columns=list(RESPONSES)), targets=targets)


@functools.cache
def steered(kinds=MEAN, sources=("en",)):
    return made_up(("fr", "de") if len(kinds) > 1 else ("fr", "zh", "de"), kinds=kinds, sources=sources)


def harm(targets=("de", "fr", "zh"), languages=("en", "de", "fr", "zh"), *, draws=3, doses=None, source="en"):
    rng = np.random.default_rng(1)
    rows = []
    for target in targets:
        for how, value, strength in doses or (("replace", "mean", 4.0),):
            for draw in [-1, *range(draws)]:
                for language in languages:
                    level = 0.05 * draw if draw >= 0 else -0.3 if language == target else 1.0 + rng.random()
                    name = "random" if draw >= 0 else "both"
                    rows.append((source, target, name, how, value, strength, draw, language, level, level - 0.04, level + 0.04))  # fmt: skip
                    if draw < 0:
                        rows.append((source, target, "on", how, value, strength, draw, language, 9.0, 8.9, 9.1))
    return pd.DataFrame(rows, columns=list(DAMAGE))


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def overlaps(figure):
    """Pairs of texts of a figure that cover each other, and those that leave the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = [figure._supxlabel, figure._supylabel]
    for one in figure.axes:
        for axis in (one.xaxis, one.yaxis):  # ticks beyond the limits are not drawn
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [label for tick in ticks for label in (tick.label1, tick.label2)]
        found += [*one.texts, one.title, one._left_title, one._right_title, one.xaxis.label, one.yaxis.label]
    for legend in figure.legends:
        found += [*legend.get_texts(), legend.get_title()]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in found if t and t.get_text() and t.get_visible()]
    frame = figure.bbox
    outside = [
        (name, "page") for name, b in boxes if b.x0 < -1 or b.y0 < -1 or b.x1 > frame.x1 + 1 or b.y1 > frame.y1 + 1
    ]
    return outside + [
        (a, b)
        for (a, x), (b, y) in itertools.combinations(boxes, 2)
        if min(x.x1, y.x1) - max(x.x0, y.x0) > 0.5 and min(x.y1, y.y1) - max(x.y0, y.y0) > 0.5
    ]


# --- dose curves


def test_the_curves_are_the_rows_of_the_table():
    table, panels = steered(), dose_curves(steered())
    assert set(table.columns) == set(STEERING)
    assert [panel.get_title("left") for panel in panels] == [language_name(x) for x in ("fr", "zh", "de")]
    for panel, target in zip(panels, ("fr", "zh", "de"), strict=True):
        rows = table[(table["target"] == target) & (table["source"] == "en")]
        lines = {line.get_label(): line for line in panel.get_lines()}
        for condition in ("on", "both"):
            wanted = rows[rows["condition"] == condition].sort_values("strength")
            np.testing.assert_array_equal(lines[condition].get_xdata(), [1, 2, 4])
            np.testing.assert_array_equal(lines[condition].get_ydata(), wanted["accuracy"])
            assert lines[condition].get_color() == language_colours(["fr", "zh", "de"])[target]
        level = [line for name, line in lines.items() if name.startswith("_")]
        assert [list(line.get_ydata()) for line in level] == [[0.0, 0.0]]  # unsteered
        chance, band = panel.collections
        both, random = (rows[rows["condition"] == name] for name in ("both", "random"))
        box = band.get_paths()[0].get_extents()
        assert (box.y0, box.y1) == pytest.approx((both["accuracy_low"].min(), both["accuracy_high"].max()))
        box = chance.get_paths()[0].get_extents()
        assert (box.y0, box.y1) == pytest.approx((random["draw_low"].min(), random["draw_high"].max()))


def test_a_higher_accuracy_is_drawn_higher():
    table = steered()
    changed = table.assign(accuracy=table["accuracy"].where(table["condition"] != "both", 0.9))
    both = {line.get_label(): line for line in dose_curves(changed)[0].get_lines()}["both"]
    np.testing.assert_array_equal(both.get_ydata(), [0.9] * 3)
    assert not np.array_equal({x.get_label(): x for x in dose_curves(table)[0].get_lines()}["both"].get_ydata(), [0.9] * 3)  # fmt: skip


def test_every_way_to_steer_has_its_panel():
    table = steered(EVERY, ("en", "fr"))
    table = table[table["source"] != table["target"]]
    panels = dose_curves(table)
    kinds = table[table["condition"] == "both"][["source", "target", "how", "value", "phase"]].drop_duplicates()
    assert len(panels) == len(kinds)
    notes = {panel.get_title("left") + ": " + texts_of(panel)[0] for panel in panels}
    assert len(notes) == len(panels)
    assert "French (fr): from en, add mean, all tokens" in notes
    assert "German (de): from fr, replace mean, new only" in notes
    assert {texts_of(panel)[0] for panel in dose_curves(steered())} == {""}  # one way: nothing to tell apart
    for panel, (_, kind) in zip(panels, kinds.iterrows(), strict=True):
        rows = table[(table["condition"] == "both") & (table[list(kind.index)] == kind).all(axis=1)]
        drawn = {line.get_label(): line for line in panel.get_lines()}["both"]
        np.testing.assert_array_equal(drawn.get_ydata(), rows.sort_values("strength")["accuracy"])


def test_conditions_that_were_not_run_are_not_drawn():
    def legend(panels):
        return [text.get_text() for text in panels[0].figure.legends[0].get_texts()]

    assert legend(dose_curves(steered())) == ["source off, target on (95% interval)", "target on", "unsteered", "random neurons: range"]  # fmt: skip
    alone = dose_curves(made_up(without=("both", "random", "none")))
    assert legend(alone) == ["target on"]
    assert [line.get_label() for line in alone[0].get_lines()] == ["on"]
    assert len(alone[0].collections) == 1  # its interval, since there is no other
    single = dose_curves(made_up(("fr",), strengths=(4.0,)))
    assert "nan" not in svg(single[0].figure)
    assert len(single[0].collections) > len(dose_curves(made_up(("fr",)))[0].collections)  # an interval of one strength


# --- the price


def test_each_dose_is_a_point():
    table = steered(EVERY)
    axes = fluency_against_accuracy(table)
    both = table[table["condition"] == "both"]
    kinds = both[["target", "how", "value", "phase"]].drop_duplicates()
    chance, *groups, before = axes.collections
    assert len(groups) == len(kinds) == len(axes.get_lines())
    for group, line, (_, kind) in zip(groups, axes.get_lines(), kinds.iterrows(), strict=True):
        rows = both[(both[list(kind.index)] == kind).all(axis=1)].sort_values("strength")
        points = rows[["nll", "accuracy"]].to_numpy()
        np.testing.assert_array_equal(group.get_offsets(), points)
        np.testing.assert_array_equal(np.stack(line.get_data(), axis=1), points)  # joined in order of strength
        assert (np.diff(group.get_sizes()) > 0).all()
        corners = len(group.get_paths()[0].vertices)
        assert (corners < 6) == (kind["how"] == "add")  # triangles, circles
        assert (line.get_linestyle() == "--") == (kind["value"] == "firing")
        hollow = np.allclose(group.get_facecolor(), 1)
        assert hollow == (kind["phase"] == "new")
    np.testing.assert_array_equal(chance.get_offsets(), table[table["condition"] == "random"][["nll", "accuracy"]])
    np.testing.assert_array_equal(before.get_offsets(), table[table["condition"] == "none"][["nll", "accuracy"]])


def test_the_legend_names_what_occurs():
    def legend(table):
        return [text.get_text() for text in fluency_against_accuracy(table).figure.legends[0].get_texts()]

    few = legend(made_up(("fr",), without=("random", "none")))
    assert few == ["French (fr)", "replace act(gate)"]
    many = legend(steered(EVERY))
    for name in ("add to act(gate)", "value: firing", "some positions only", "random neurons", "unsteered"):
        assert name in many
    alone = fluency_against_accuracy(made_up(("fr",), without=("both",)))
    wanted = made_up(("fr",), without=("both",))
    points = wanted[wanted["condition"] == "on"][["nll", "accuracy"]]
    np.testing.assert_array_equal(alone.collections[1].get_offsets(), points)  # `on`, where there is no `both`


# --- damage


def cells(axes):
    """Values in the cells, by row."""
    found = [text for text in axes.texts if text.get_transform() == axes.transData]
    return [text for text in found if not text.get_text().startswith("[")]


def number(text):
    return float(text.split()[0].replace("−", "-"))


def test_the_cells_are_the_numbers_of_the_table():
    table, axes = harm(), damage_heatmap(harm())
    names = ["German (de)", "French (fr)", "Chinese (zh)"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [*names, *names]
    shown, languages = cells(axes), ["en", "de", "fr", "zh"]
    assert len(shown) == 24
    own = table[table["condition"] == "both"]
    for text, (_, row) in zip(shown, own.iterrows(), strict=False):
        assert number(text.get_text()) == pytest.approx(row["dnll"], abs=0.0051)
        assert languages[round(text.get_position()[0])] == row["language"]
        assert text.get_text().endswith(" ↓" if row["language"] == row["target"] else " ↑")  # random: 0 to 0.1
        assert (text.get_fontweight() == "bold") == (row["language"] != row["target"])
    for text in shown[12:]:
        assert text.get_text() == "0.05"  # mean of 0, 0.05, 0.1; those of `on` are shown nowhere
    drawn = np.concatenate([mesh.get_array().ravel() for mesh in axes.collections])
    np.testing.assert_allclose(drawn[:12], own["dnll"])
    np.testing.assert_allclose(drawn[12:], 0.05)
    norm = axes.collections[0].norm
    assert norm.vmin == -norm.vmax
    frames = [p.get_x() + p.get_width() / 2 for p in axes.patches]
    np.testing.assert_allclose(frames, [1, 2, 3])
    intervals = [text.get_text() for text in axes.texts if text.get_text().startswith("[")]
    assert intervals[1] == "[−0.34, −0.26]"
    assert len(intervals) == 12
    assert texts_of(axes).count("replace mean ×4") == 6
    assert "as many random neurons, mean of 3 draws" in texts_of(axes)


def test_doses_and_sources_have_their_own_rows():
    doses = (("replace", "mean", 2.0), ("add", "mean", 4.0))
    table = pd.concat([harm(("de", "zh"), doses=doses), harm(("de",), doses=doses, source="fr")])
    axes = damage_heatmap(table)
    names = [label.get_text() for label in axes.get_yticklabels()][:6]
    assert names == ["German (de) from en"] * 2 + ["Chinese (zh) from en"] * 2 + ["German (de) from fr"] * 2
    assert texts_of(axes).count("add mean ×4") == 6
    plain = damage_heatmap(harm(draws=0))
    assert len(plain.get_yticks()) == 3
    assert not any("random" in text or "↑" in text for text in texts_of(plain))
    assert "random" not in plain.get_xlabel()
    assert "as many random neurons, one draw" in texts_of(damage_heatmap(harm(draws=1)))
    unknown = harm()
    unknown.loc[unknown["language"] == "zh", ["dnll", "dnll_low", "dnll_high"]] = np.nan
    assert cells(damage_heatmap(unknown))[3].get_text() == "–"


# --- all of them


def test_no_label_covers_another():
    every = steered(EVERY)
    wide = harm(("pt", "vi"), ("pt", "id", "vi", "zh", "en", "ja", "ko", "de"))
    for drawn in (dose_curves(steered())[0], dose_curves(every)[0]):
        assert overlaps(drawn.figure) == []
    assert overlaps(fluency_against_accuracy(every).figure) == []
    for table in (wide, harm(("zh",), tuple("abcdefghij"), draws=0)):
        assert overlaps(damage_heatmap(table).figure) == []
    axes = damage_heatmap(harm(("zh",), ("en", "zh")))
    assert overlaps(axes.figure) == []
    cells(axes)[0].set_position((1, cells(axes)[0].get_position()[1]))
    assert overlaps(axes.figure)  # the check itself sees what it should


def test_given_axes_are_drawn_into():
    from matplotlib.figure import Figure

    one = Figure().subplots()
    assert fluency_against_accuracy(steered(), axes=one) is one
    assert one.get_legend() is not None
    one = Figure().subplots()
    assert damage_heatmap(harm(), axes=one) is one
    mine = list(Figure().subplots(1, 3))
    assert dose_curves(steered(), axes=mine) == mine
    assert mine[0].get_ylabel() == "language accuracy"
    with pytest.raises(ValueError, match="2 axes for 3 languages: give one per language, or none"):
        dose_curves(steered(), axes=mine[:2])


@pytest.mark.parametrize("languages", [("en", "zh"), ("$x$", "<b>&")])
def test_any_language_with_any_name(languages):
    table = made_up(languages[1:], sources=languages[:1])
    figures = [
        dose_curves(table)[0].figure,
        fluency_against_accuracy(table).figure,
        damage_heatmap(harm(languages[1:], languages, source=languages[0])).figure,
    ]
    for figure in figures:
        drawn = svg(figure)
        assert "nan" not in drawn
        assert languages[1].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in drawn


def test_tables_that_cannot_be_shown_are_refused():
    known, unsteered = steered(), made_up(without=("on", "both"))
    for draw in (dose_curves, fluency_against_accuracy):
        with pytest.raises(ValueError, match="the steering table lacks how: give it as `steering_table` makes it"):
            draw(known.drop(columns="how"))
        with pytest.raises(ValueError, match="the steering table is empty: there is nothing to show"):
            draw(known.iloc[:0])
        with pytest.raises(ValueError, match="the steering table is empty: there is nothing to show"):
            draw(unsteered)
    with pytest.raises(ValueError, match="the damage table lacks dnll_low: give it as `damage` makes it"):
        damage_heatmap(harm().drop(columns="dnll_low"))
    with pytest.raises(ValueError, match="the damage table is empty: there is nothing to show"):
        damage_heatmap(harm()[lambda t: t["condition"] != "both"])
