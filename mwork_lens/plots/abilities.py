"""The figures of the abilities: the rows of the MWork tables, and curves over a choice such as a stage's boundary."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .effects import OTHER, OWN
from .parts import label_axes, require_columns, unique
from .style import GREY, INK, PALE, WIDTH, house_style, make_figure

if TYPE_CHECKING:
    import matplotlib.axes

_LANES = {"d_non_eng": -0.18, "d_eng": 0.18}
_BAND = "#CFCFCF"


def ability_deltas(
    table: pd.DataFrame, *, unit: str = "score", axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """What is lost without neurons: one panel a task, one line a row of the table.

    Each line has two lanes: the other languages (filled) above English (hollow). Points are changes with their 95 % intervals, of the target's
    own neurons (circles) and of another language's (diamonds); the grey bar spans the random draws, its tick is their mean. Left of zero is harm.
    Nothing is marked as significant: the tests stand in the table, where one can see which they are.

    Args:
        table: What `ability_grid` returns.
        unit: Of the score, for the axis.
        axes: One per task, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty or lacks a column; too few axes.
    """
    from matplotlib.ticker import MaxNLocator

    edges = [f"{lane}{end}" for lane in _LANES for end in ("", "_low", "_high")]
    require_columns(table, ["task", "row", "neurons", *edges], "ability", "ability_grid")
    tasks, rows = unique(table, "task"), unique(table, "row")
    places = {row: float(at) for at, row in enumerate(rows)}
    with house_style():
        panels = _columns(axes, len(tasks), 1.35 + 0.36 * len(rows))
        for number, (panel, task) in enumerate(zip(panels, tasks, strict=True)):
            for at in range(0, len(rows), 2):
                panel.axhspan(at - 0.5, at + 0.5, color="#F6F6F6", linewidth=0, zorder=0)
            for _, row in table[table["task"] == task].iterrows():
                for lane, offset in _LANES.items():
                    _lane(panel, row, lane, places[row["row"]] + offset)
            panel.axvline(0, color=INK, linewidth=0.9, zorder=1.5)
            panel.set_yticks(list(places.values()), rows if number == 0 or axes is not None else [""] * len(rows))
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
            panel.set_ylim(len(rows) - 0.5, -0.5)
            panel.grid(axis="x", color=PALE, linewidth=0.6)
            panel.xaxis.set_major_locator(MaxNLocator(4))  # small changes have long numbers
            panel.set_title(task)
        label_axes(panels, f"change of {unit} (left of 0 = harm)", "", own=axes is None)
        if axes is None:
            panels[0].figure.legend(handles=_handles(unique(table, "neurons")), loc="outside upper center", ncols=3)
    return panels


def _lane(panel: Any, row: pd.Series, lane: str, y: float) -> None:
    low, high, mean = row[f"{lane}_low"], row[f"{lane}_high"], row[lane]
    if not np.isfinite(mean):
        return
    if row["neurons"] == "random":
        panel.fill_between([low, high], y - 0.15, y + 0.15, color=_BAND, linewidth=0.8, zorder=1)
        panel.plot([mean, mean], [y - 0.15, y + 0.15], color=GREY, linewidth=1.4, zorder=2)
        return
    mine = row["neurons"] == "specific"
    colour = OWN if mine else OTHER
    panel.errorbar(
        mean, y + (-0.05 if mine else 0.05), xerr=[[max(mean - low, 0)], [max(high - mean, 0)]], fmt="o" if mine else "D",
        markersize=5.5 if mine else 4.2, color=colour, markerfacecolor=colour if lane == "d_non_eng" else "white",
        markeredgewidth=1.3, elinewidth=1.4, zorder=5 if mine else 4, label=f"{row['neurons']} {lane}",
    )  # fmt: skip


def sweep_curves(
    table: pd.DataFrame, x: str, *, unit: str = "score", axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """How the harm grows with a choice: one panel a `panel` of the table, change against `x`.

    Lines are the target (filled, 95 % band) and English (hollow, 95 % bars); the grey band spans the random draws of the target, its dashed line
    is their mean, and the dotted line that of English.

    Args:
        table: Columns panel, neurons (specific, random), `x`, d_non_eng and d_eng with `_low` and `_high`; one row a point.
        x: Name of the column on the horizontal axis.
        unit: Of the score.
        axes: One per panel; made if absent.

    Raises:
        ValueError: The table is empty or lacks a column; too few axes.
    """
    edges = [f"{lane}{end}" for lane in _LANES for end in ("", "_low", "_high")]
    require_columns(table, ["panel", "neurons", x, *edges], "sweep", "ability_grid")
    names = unique(table, "panel")
    with house_style():
        panels = _columns(axes, len(names), 3.0)
        for panel, name in zip(panels, names, strict=True):
            part = table[table["panel"] == name].sort_values(x)
            drawn, own = part[part["neurons"] == "random"], part[part["neurons"] == "specific"]
            at, means = drawn[x].to_numpy(float), drawn["d_non_eng"].to_numpy(float)
            edge = (drawn[f"d_non_eng_{end}"].to_numpy(float) for end in ("low", "high"))
            panel.fill_between(at, *edge, color=_BAND, linewidth=0, zorder=1)
            panel.plot(at, means, color=GREY, linestyle="--", linewidth=1.1, zorder=2, label="random d_non_eng")
            english = drawn["d_eng"].to_numpy(float)
            panel.plot(at, english, color=GREY, linestyle=":", linewidth=1.1, zorder=2, label="random d_eng")
            for lane, colour in (("d_non_eng", OWN), ("d_eng", INK)):
                xs, y, low, high = (own[c].to_numpy(float) for c in (x, lane, f"{lane}_low", f"{lane}_high"))
                language = lane == "d_non_eng"
                if language:
                    panel.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0, zorder=3)
                else:  # a second band would hide the first
                    panel.vlines(xs, low, high, color=colour, linewidth=1, zorder=3)
                face = colour if language else "white"
                panel.plot(
                    xs,
                    y,
                    color=colour,
                    marker="o",
                    markersize=4,
                    markerfacecolor=face,
                    zorder=4,
                    label=f"specific {lane}",
                )
            panel.axhline(0, color=INK, linewidth=0.8, zorder=1.5)
            panel.grid(axis="y", color=PALE, linewidth=0.6)
            panel.set_title(name)
            panel.set_xlabel(x)
            panel.set_ylabel(f"change of {unit}")
        if axes is None:
            panels[0].figure.legend(handles=_sweep_handles(), loc="outside upper center", ncols=3)
    return panels


def _columns(axes: Any, count: int, height: float) -> list[Any]:
    """Panels side by side, at most five in a row."""
    if axes is not None:
        panels = list(np.ravel(np.asarray(axes, dtype=object)))
        if len(panels) < count:
            raise ValueError(f"{len(panels)} axes for {count} panels: give one each, or none")
        return panels[:count]
    across = min(count, 5)
    down = -(-count // across)
    figure = make_figure(WIDTH if count > 1 else WIDTH / 1.7, height * down + 0.5)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    return list(grid[:count])


def _handles(kinds: Sequence[str]) -> list[Any]:
    """Of the kinds of neurons that the table has."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def point(marker: str, colour: str, face: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, markersize=5, markerfacecolor=face, label=label)

    own = [point("o", OWN, OWN, "own neurons off: the languages"), point("o", OWN, "white", "own neurons off: English")]
    others = [
        point("D", OTHER, OTHER, "another language's: the languages"),
        point("D", OTHER, "white", "another language's: English"),
    ]
    made = {
        "specific": own,
        "random": [Patch(facecolor=_BAND, label="random neurons off: range of the draws")],
        "other": others,
    }
    return [handle for kind in made if kind in kinds for handle in made[kind]]


def _sweep_handles() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Line2D([], [], color=OWN, marker="o", markersize=4, label="own neurons off: the language"),
        Line2D([], [], color=INK, marker="o", markersize=4, markerfacecolor="white", label="own neurons off: English"),
        Patch(facecolor=_BAND, label="random neurons off: the language, range of the draws"),
        Line2D([], [], color=GREY, linestyle="--", label="random: the language, mean"),
        Line2D([], [], color=GREY, linestyle=":", label="random: English, mean"),
    ]
