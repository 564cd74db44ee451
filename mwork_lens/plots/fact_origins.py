"""The figures of where facts come from: absent from a corpus and predicted all the same, by which easy way, and how they are represented.

Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189) show the absent share, its types and three patterns; intervals and numbers are ours. `facts.origin`
computes what is drawn here.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..facts.origin import LABELS, TYPES
from ..facts.sharing import ALL
from .parts import require_columns
from .style import GREY, INK, PALE, WIDTH, house_style, language_colours, language_name, make_figure

if TYPE_CHECKING:
    import matplotlib.axes

_STACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "substring": ("object inside the subject", {"facecolor": "#0B4A7F"}),
    "wordpiece": ("a token in common", {"facecolor": "#7FB2D9"}),
    "naming": ("naming cue", {"facecolor": "#E69F00"}),
    "others": ("others", {"facecolor": "#FFFFFF", "edgecolor": "#9A9A9A", "hatch": "//////", "linewidth": 0.6}),
    "transferred": ("transferred", {"facecolor": "#D55E00"}),
    "shared": ("shared neurons", {"facecolor": "#0B4A7F"}),
    "independent": ("independent", {"facecolor": "#009E73"}),
    "none": ("no label", {"facecolor": PALE}),
}


def absent_bars(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """Of the facts predicted in each language, the share that its corpus does not hold, with Wilson's 95% interval.

    Args:
        table: Columns language, predicted, absent, share, low, high, as `absent_shares` returns.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    require_columns(
        table, ["language", "predicted", "absent", "share", "low", "high"], "absence", "facts.origin.absent_shares"
    )
    value, low, high = (100 * table[name].to_numpy(float) for name in ("share", "low", "high"))
    colours = language_colours(x for x in table["language"] if x != ALL)
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH / 1.5, 1.0 + 0.3 * len(table)).subplots()
        for y, language in enumerate(table["language"]):
            if np.isfinite(value[y]):
                axes.barh(y, value[y], height=0.6, color=colours.get(language, GREY), alpha=0.9)
                ends = np.clip([[value[y] - low[y]], [high[y] - value[y]]], 0, None)
                axes.errorbar(value[y], y, xerr=ends, color=INK, elinewidth=1.2, capsize=2.5)
        said = [f"{a:,} of {n:,}" for a, n in zip(table["absent"], table["predicted"], strict=True)]
        _name_bars(axes, list(table["language"]), said)
        axes.set_xlim(0, 100)
        axes.set_xlabel("predicted facts that are absent from the corpus, %")
    return axes


def type_bars(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """Absent and predicted facts by type, as shares of them: a bar per language, their number at the right.

    Args:
        table: A row per language (the index) and a column per type, as `type_counts` returns.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a type.
    """
    require_columns(table, list(TYPES), "type", "facts.origin.type_counts")
    return _stacked({name: table[name] for name in TYPES}, "absent and predicted facts, % of them", axes)


def pattern_bars(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """How predicted facts are represented, as shares of them: a bar per language, their number at the right.

    Args:
        table: A row per language (the index) and a column per label, as `label_counts` returns.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a label.
    """
    require_columns(table, [*LABELS, "none"], "label", "facts.origin.label_counts")
    return _stacked({name: table[name] for name in (*LABELS, "none")}, "predicted facts, % of them", axes)


def _stacked(columns: Mapping[str, pd.Series], label: str, axes: Any) -> Any:
    table = pd.DataFrame(columns).astype(float)
    total = table.sum(axis=1)
    shares = table.div(total.where(total > 0), axis=0).fillna(0.0) * 100
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH / 1.1, 1.2 + 0.3 * len(table)).subplots()
        left = np.zeros(len(table))
        for name in table:
            text, look = _STACKS[name]
            axes.barh(range(len(table)), shares[name].to_numpy(), left=left, height=0.65, label=text, **look)
            left += shares[name].to_numpy()
        _name_bars(axes, [str(x) for x in table.index], [f"{int(n):,}" for n in total])
        axes.set_xlim(0, 100)
        axes.set_xlabel(label)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, columnspacing=1.2, handlelength=1.6
        )
    return axes


def _name_bars(axes: Any, languages: list[str], said: list[str]) -> None:
    axes.set_yticks(range(len(languages)), ["all" if x == ALL else language_name(x) for x in languages])
    axes.set_ylim(len(languages) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for y, text in enumerate(said):
        axes.annotate(
            text, (1, y), xycoords=axes.get_yaxis_transform(), xytext=(6, 0), textcoords="offset points", va="center",
            fontsize=8.5, color=GREY, annotation_clip=False,
        )  # fmt: skip
