"""The figures of the abilities say what the tables say."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from mwork_lens.plots import svg
from mwork_lens.plots.abilities import ability_deltas, sweep_curves
from mwork_lens.plots.effects import OTHER, OWN

KINDS = ("specific", "other", "random")


def grid(tasks=("xquad", "mgsm"), rows=("U", "SA+SF", "G")):
    rng = np.random.default_rng(0)
    made = []
    for task in tasks:
        for row in rows:
            for kind in KINDS:
                one = {"task": task, "row": row, "neurons": kind}
                for lane in ("d_eng", "d_non_eng"):
                    mean = rng.normal()
                    one |= {lane: mean, f"{lane}_low": mean - 0.2, f"{lane}_high": mean + 0.3}
                made.append(one)
    return pd.DataFrame(made)


def point(panel, label, row):
    """The bar container of a label whose point lies in the row."""
    found = [c for c in panel.containers if c.get_label() == label and abs(c[0].get_ydata()[0] - row) < 0.5]
    assert len(found) == 1
    return found[0]


def test_points_stand_where_the_table_has_them():
    table = grid()
    panels = ability_deltas(table)
    assert [panel.get_title(loc="left") for panel in panels] == ["xquad", "mgsm"]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["U", "SA+SF", "G"]
    for panel, task in zip(panels, ("xquad", "mgsm"), strict=True):
        for at, row in enumerate(("U", "SA+SF", "G")):
            for kind, colour in (("specific", OWN), ("other", OTHER)):
                for lane in ("d_eng", "d_non_eng"):
                    wanted = (table["task"] == task) & (table["row"] == row) & (table["neurons"] == kind)
                    one = table[wanted].iloc[0]
                    line, _, (bar,) = point(panel, f"{kind} {lane}", at)
                    assert line.get_xdata()[0] == pytest.approx(one[lane])
                    ends = bar.get_segments()[0][:, 0]
                    np.testing.assert_allclose(sorted(ends), [one[f"{lane}_low"], one[f"{lane}_high"]])
                    assert same_color(line.get_markerfacecolor(), colour if lane == "d_non_eng" else "white")
                    assert (line.get_ydata()[0] < at) == (lane == "d_non_eng")  # languages above English


def test_the_bars_span_the_draws():
    table = grid(tasks=("xquad",))
    (panel,) = ability_deltas(table)
    drawn = table[table["neurons"] == "random"]
    spans = sorted(tuple(np.round([c.get_paths()[0].vertices[:, 0].min(), c.get_paths()[0].vertices[:, 0].max()], 6))
                   for c in panel.collections if type(c).__name__ in ("PolyCollection", "FillBetweenPolyCollection"))  # fmt: skip
    wanted = sorted(
        tuple(np.round([row[f"{lane}_low"], row[f"{lane}_high"]], 6))
        for _, row in drawn.iterrows()
        for lane in ("d_eng", "d_non_eng")
    )
    np.testing.assert_allclose(spans, wanted)


def test_what_is_not_known_is_not_drawn():
    table = grid(tasks=("xquad",))
    table.loc[(table["row"] == "G") & (table["neurons"] == "specific"), "d_eng"] = np.nan
    (panel,) = ability_deltas(table)
    assert not [c for c in panel.containers if c.get_label() == "specific d_eng" and c[0].get_ydata()[0] > 1.5]
    assert len([c for c in panel.containers if c.get_label() == "specific d_non_eng"]) == 3
    assert "<svg" in svg(panel.figure)


def test_nothing_is_marked_by_a_test():
    """The table holds one-sided and two-sided tests: the figure sides with none of them."""
    plain = grid()
    tested = plain.assign(delta=0.1, fisher_holm_delta=0.001, holm_delta=0.9)
    assert svg(ability_deltas(tested)[0].figure) == svg(ability_deltas(plain)[0].figure)
    harmed = plain.assign(d_eng=plain["d_eng"] - 1)  # what it does show
    assert svg(ability_deltas(harmed)[0].figure) != svg(ability_deltas(plain)[0].figure)


def test_given_axes_are_drawn_into_and_too_few_are_refused():
    axes = Figure().subplots(1, 2)
    assert ability_deltas(grid(), axes=axes) == list(axes)
    with pytest.raises(ValueError, match="1 axes for 2 panels: give one each, or none"):
        ability_deltas(grid(), axes=axes[:1])


@pytest.mark.parametrize("draw", [ability_deltas, lambda table: sweep_curves(table, "layers")])
def test_tables_that_cannot_be_shown_are_refused(draw):
    with pytest.raises(ValueError, match=r"table lacks .*ability_grid"):
        draw(grid().drop(columns="d_eng_low").assign(panel="p", layers=1))
    with pytest.raises(ValueError, match="table is empty"):
        draw(grid()[:0].assign(panel="p", layers=1))


def sweep():
    parts = [
        grid(tasks=("t",), rows=("U",)).assign(layers=n, panel=name) for name in ("first", "last") for n in (4, 1, 2)
    ]
    table = pd.concat(parts, ignore_index=True)
    table["d_non_eng"] = table["layers"] * 1.0 + (table["panel"] == "last")
    return table[table["neurons"] != "other"]


def test_curves_are_the_table_in_the_order_of_x():
    table = sweep()
    panels = sweep_curves(table, "layers", unit="nats")
    assert [panel.get_title(loc="left") for panel in panels] == ["first", "last"]
    for number, panel in enumerate(panels):
        lines = {line.get_label(): line for line in panel.lines}
        mine = lines["specific d_non_eng"]
        assert list(mine.get_xdata()) == [1, 2, 4]
        np.testing.assert_allclose(mine.get_ydata(), np.array([1, 2, 4]) + number)
        english = table[(table["panel"] == panel.get_title(loc="left")) & (table["neurons"] == "random")]
        np.testing.assert_allclose(lines["random d_eng"].get_ydata(), english.sort_values("layers")["d_eng"])
        assert panel.get_ylabel() == "change of nats"
    assert svg(panels[0].figure) == svg(sweep_curves(table, "layers", unit="nats")[0].figure)


@pytest.mark.parametrize(("kinds", "entries"), [(KINDS, 5), (("specific", "random"), 3)])
def test_the_legend_has_what_the_figure_has(kinds, entries):
    table = grid()
    (legend,) = ability_deltas(table[table["neurons"].isin(kinds)])[0].figure.legends
    assert len(legend.get_texts()) == entries


def test_tick_labels_of_small_changes_do_not_touch():
    table = grid()
    columns = [name for name in table if name.startswith("d_")]
    table[columns] *= 1e-3
    panels = ability_deltas(table)
    panels[0].figure.draw_without_rendering()
    for panel in panels:
        spans = [tick.get_window_extent() for tick in panel.get_xticklabels() if tick.get_text()]
        spans = sorted((span.x0, span.x1) for span in spans)
        assert all(end < start for (_, end), (start, _) in pairwise(spans))
