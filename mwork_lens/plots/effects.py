"""The figure of the interventions: what breaks when neurons are switched off."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..stages import Stages
from ..written import UNKNOWN, number, written_p
from .parts import add_legend, require_columns
from .style import GREY, INK, PALE, WIDTH, house_style, layers_name, make_figure, stage_name

if TYPE_CHECKING:
    import matplotlib.axes

OWN, OTHER = "#0072B2", "#8A6D00"
"""Colours of the two conditions of `deltas`; no language has them."""


def deltas(
    summary: pd.DataFrame, *, stages: Stages | None = None, axes: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """What breaks when neurons are switched off: change of log-likelihood, by stage and structure.

    Each row has two lanes: the other languages (filled) above English (hollow). A point is the mean over target languages, with its 95%
    interval; the grey bar behind it spans the random controls of the same lane, its tick their mean. Left of zero is harm; a blue point left
    of the bar is more harm than chance gives, and a filled point left of its hollow one is harm to the language more than to English.

    Args:
        summary: Columns stage, structure, neurons, eng, non_eng, with `_low` and `_high`, and delta, p_delta.
        stages: Layers are named beside the stages, if given.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    lanes = {"non_eng": -0.19, "eng": 0.19}
    measured = [f"{lane}{end}" for lane in lanes for end in ("", "_low", "_high")]
    require_columns(summary, ["stage", "structure", "neurons", *measured, "delta", "p_delta"], "summary", "summarise")
    rows = summary[["stage", "structure"]].drop_duplicates().itertuples(index=False)
    places: dict[tuple[str, str], float] = {}
    heads: dict[str, float] = {}
    at = 0.0
    for stage, structure in rows:
        if stage not in heads:
            at += 0.35 if heads else 0.0
            heads[stage] = at
            at += 0.8
        places[stage, structure] = at
        at += 1.0
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH, 1.1 + 0.4 * at).subplots()
        for _, row in summary.iterrows():
            y = places[row["stage"], row["structure"]]
            for lane, offset in lanes.items():
                low, high, mean = row[f"{lane}_low"], row[f"{lane}_high"], row[lane]
                if not np.isfinite(mean):
                    continue
                english = lane == "eng"
                if row["neurons"] == "random":
                    axes.fill_between(
                        [low, high], y + offset - 0.16, y + offset + 0.16, color="#CFCFCF", linewidth=0.8, zorder=1
                    )
                    axes.plot([mean, mean], [y + offset - 0.16, y + offset + 0.16], color=GREY, linewidth=1.4, zorder=2)
                    continue
                mine = row["neurons"] == "own"
                colour = OWN if mine else OTHER
                axes.errorbar(
                    mean, y + offset + (-0.055 if mine else 0.055), xerr=[[max(mean - low, 0)], [max(high - mean, 0)]],
                    fmt="o" if mine else "D", markersize=6 if mine else 4.6, color=colour, markerfacecolor="white" if english else colour,
                    markeredgewidth=1.4, elinewidth=1.5, zorder=5 if mine else 4, label=f"{row['neurons']} {lane}",
                )  # fmt: skip
        _delta_frame(axes, summary, places, heads, stages, at)
        add_legend([axes], _delta_handles(), own=False, columns=3)
    return axes


def _delta_handles() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def point(marker: str, colour: str, filled: bool, label: str, size: float = 6.0) -> Line2D:
        inside = colour if filled else "white"
        return Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            markersize=size,
            markerfacecolor=inside,
            markeredgewidth=1.4,
            label=label,
        )

    return [
        point("o", OWN, True, "own neurons off: the language"),
        point("o", OWN, False, "own neurons off: English"),
        point("D", OTHER, True, "another language's neurons off: the language", 4.6),
        point("D", OTHER, False, "another language's neurons off: English", 4.6),
        Patch(facecolor="#CFCFCF", label="random neurons off: range of the draws"),
        Line2D(
            [], [], color=GREY, linestyle="none", marker="|", markersize=10, markeredgewidth=1.4, label="their mean"
        ),
    ]


def _delta_frame(
    axes: Any, summary: pd.DataFrame, places: Any, heads: Any, stages: Stages | None, bottom: float
) -> None:
    """Rows, headings, zero line, and the numbers at the right of `deltas`."""
    from matplotlib.ticker import MaxNLocator

    edge = axes.get_yaxis_transform()
    own = summary[summary["neurons"] == "own"].set_index(["stage", "structure"])
    known = summary[["eng", "non_eng"]].notna().any(axis=1).groupby([summary["stage"], summary["structure"]]).any()
    empty = set(known.index[~known])

    def beside(y: float, delta: str, p: str, colour: str = INK) -> None:
        for text, points in ((delta, 32), (p, 72)):
            axes.annotate(
                text, (1, y), xycoords=edge, xytext=(points, 0), textcoords="offset points", ha="center", va="center",
                fontsize=8.5, color=colour, annotation_clip=False,
            )  # fmt: skip

    beside(-0.8, "Δ own", "p", GREY)
    for i, ((stage, structure), y) in enumerate(places.items()):
        if i % 2 == 0:
            axes.axhspan(y - 0.5, y + 0.5, color="#F6F6F6", linewidth=0, zorder=0)
        delta, p = (own[c].get((stage, structure), np.nan) for c in ("delta", "p_delta"))
        if np.isfinite(delta):
            beside(y, number(delta, signed=True), written_p(p))
        else:
            beside(y, UNKNOWN, UNKNOWN)
        if (stage, structure) in empty:
            look = {"fontsize": 8.5, "color": GREY, "style": "italic"}
            axes.text(0.01, y, "nothing to switch off", transform=edge, ha="left", va="center", **look)
    for stage, y in heads.items():
        layers = getattr(stages, stage, None) if stages is not None else None
        name = f"{stage_name(stage)}, {layers_name(layers)}" if layers else stage_name(stage)
        axes.text(0.0, y + 0.08, name, transform=edge, ha="left", va="center", fontsize=9.5, fontweight="bold")
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1.5)
    labels = {"ffn": "FFN"}
    axes.set_yticks(list(places.values()), [labels.get(structure, structure) for _, structure in places])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(bottom - 0.35, -0.55)
    axes.margins(x=0.04)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_xlabel("change of log-likelihood, nats per token (left of 0 = harm)")
