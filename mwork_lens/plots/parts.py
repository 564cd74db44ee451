"""What figures are put together from: a table that is fit to be drawn, panels, their labels, the stages behind them, one legend."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..stages import STAGES, Stages
from .style import WIDTH, make_figure, stage_name

_STAGE_TINTS = {"understanding": "#E4EEF7", "task_solving": "#FFFFFF", "generation": "#FBEEDD"}


def require_columns(table: pd.DataFrame, columns: Sequence[str], what: str, maker: str) -> None:
    """Refuse a table that cannot be shown.

    Raises:
        ValueError: It lacks columns, or has no rows.
    """
    if missing := [column for column in columns if column not in table.columns]:
        has = ", ".join(map(str, table.columns)) or "no columns"
        raise ValueError(
            f"the {what} table lacks {', '.join(missing)}: give it as `{maker}` makes it (this one has {has})"
        )
    if not len(table):
        raise ValueError(f"the {what} table is empty: there is nothing to show - was `{maker}` given any language?")


def unique(table: pd.DataFrame, column: str) -> list[str]:
    """The names in a column, in the order of the table."""
    return [str(name) for name in table[column].unique()]


def make_panels(axes: Any, count: int, *, height: float) -> list[Any]:
    """One axes per language, in rows of three (four if there are many); the given ones, or those of a new figure."""
    if axes is not None:
        panels = list(np.ravel(np.asarray(axes, dtype=object)))
        if len(panels) < count:
            raise ValueError(f"{len(panels)} axes for {count} languages: give one per language, or none")
        return panels[:count]
    columns = min(count, 3 if count <= 9 else 4)
    rows = -(-count // columns)
    # a single panel gets half the page, not all of it
    figure = make_figure(WIDTH if columns > 1 else WIDTH / 1.7, height * rows + 0.75 + (0.35 if columns < 3 else 0))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    for panel in grid[max(0, count - columns) : count]:  # a column that ends early still has its numbers
        panel.tick_params(labelbottom=True)
    return list(grid[:count])


def label_axes(panels: list[Any], x: str, y: str, *, own: bool) -> None:
    """Axis labels: once for a figure of ours, on every axes that was given."""
    if own:
        panels[0].figure.supxlabel(x, fontsize=9)
        panels[0].figure.supylabel(y, fontsize=9)
        return
    for panel in panels:
        panel.set(xlabel=x, ylabel=y)


def shade_stages(panel: Any, stages: Stages | None, *, offset: float) -> None:
    """Background per stage. A curve over the states of the stream has layer i between i and i + 1; a bar of layer i is centred on i."""
    if stages is None:
        return
    for name, layers in stages.items():
        panel.axvspan(layers.start + offset, layers.stop + offset, color=_STAGE_TINTS[name], linewidth=0, zorder=0)
        if layers.start:
            panel.axvline(layers.start + offset, color="#C4C4C4", linewidth=0.7, zorder=0.5)


def whole_numbers(panel: Any, *, both: bool = False) -> None:
    """Layers are counted in whole numbers; so is what stands on them, if `both`."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    if both:
        panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def add_legend(panels: list[Any], handles: list[Any], *, own: bool, columns: int | None = None) -> None:
    """One legend above all panels of a figure of ours; above the first one if the axes were given."""
    from matplotlib.legend_handler import HandlerTuple

    labels = [handle.get_label() if not isinstance(handle, tuple) else handle[0].get_label() for handle in handles]
    several = {tuple: HandlerTuple(ndivide=None, pad=0.15)}
    look: dict[str, Any] = {"handler_map": several, "handlelength": 2.0, "columnspacing": 1.2, "handletextpad": 0.5}
    if own:
        wide = len(panels) > 2
        panels[0].figure.legend(
            handles, labels, loc="outside upper left", ncols=columns or (len(handles) if wide else 3), **look
        )
    else:
        panels[0].legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0, 1.02), ncols=columns or 3, borderaxespad=0, **look
        )


def stage_handles(stages: Stages | None) -> list[Any]:
    """What the legend says about the background."""
    from matplotlib.patches import Patch

    if stages is None:
        return []
    return [
        Patch(facecolor=_STAGE_TINTS[name], edgecolor="#C4C4C4", linewidth=0.7, label=stage_name(name))
        for name in STAGES
    ]
