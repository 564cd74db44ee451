"""The figures of patching: what is brought back from where, and which answer carries over between languages."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .parts import add_legend, label_axes, make_panels, require_columns, unique, whole_numbers
from .style import GREY, INK, WIDTH, house_style, language_name, make_figure

if TYPE_CHECKING:
    import matplotlib.axes

_DIVERGING = ["#A63C06", "#F0B27A", "#FFFFFF", "#7FB2D9", "#0B4A7F"]
"""Orange through white to blue: told apart under every common colour blindness."""
_ANSWERS = ("#009E73", "#D55E00", "#444444", "#A0A0A0", "#0072B2", "#CC79A7")


def recovery_heatmap(
    table: pd.DataFrame,
    *,
    tokens: Sequence[str] | None = None,
    value: str = "recovery",
    axes: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """How far patching brings the logit difference back, by layer (rows) and position or head (columns).

    0 (white): as without a patch; 1 (blue): the target says what the source says; below 0 (orange): further away. A cell whose interval holds 0 has
    a hollow dot, one without a difference to recover (NaN) is grey.

    Args:
        table: From `patching.recovery`, of one site and one pair of languages, patched `by_position` or `by_head` (or neither: one column).
        tokens: What stands at each position, in the order of the columns; default their numbers.
        value: The column that is drawn, with `low` and `high` beside it.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column; it holds several sites or languages, heads and positions at once, or another number of
            columns than tokens.
    """
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

    require_columns(
        table,
        ["source", "target", "site", "layer", "head", "position", value, "low", "high"],
        "recovery",
        "patching.recovery",
    )
    for name in ("source", "target", "site"):
        if table[name].nunique() > 1:
            raise ValueError(
                f"the table holds several values of {name!r} ({', '.join(unique(table, name))}): select one"
            )
    many = [name for name in ("head", "position") if table[name].nunique() > 1]
    if len(many) == 2:
        raise ValueError(
            "the table has heads and positions: a map has one of them on its horizontal axis, select the other"
        )
    across = many[0] if many else "position"
    columns, layers = sorted(table[across].unique(), key=_order), sorted(table["layer"].unique())
    if tokens is not None and len(tokens) != len(columns):
        raise ValueError(f"{len(tokens)} tokens for {len(columns)} columns: give one per {across}")
    wide = table.pivot(index="layer", columns=across, values=value).loc[layers, columns].to_numpy(float)
    unclear = ((table["low"] <= 0) & (table["high"] >= 0)).to_numpy()
    names = [str(c) for c in columns] if tokens is None else [_mark(token) for token in tokens]
    with house_style():
        if axes is None:
            width = min(WIDTH, 1.9 + 0.42 * len(columns))
            axes = make_figure(width, 1.3 + 0.26 * len(layers)).subplots()
        shown = wide[np.isfinite(wide)]
        norm = TwoSlopeNorm(0.0, min([-1.0, *shown]), max([1.0, *shown]))
        shades = LinearSegmentedColormap.from_list("recovery", _DIVERGING).with_extremes(bad="#E4E4E4")
        mesh = axes.pcolormesh(
            np.arange(len(columns) + 1) - 0.5, np.arange(len(layers) + 1) - 0.5, np.ma.masked_invalid(wide), cmap=shades, norm=norm,
            edgecolors="white", linewidth=0.8,
        )  # fmt: skip
        dots = table[unclear]
        axes.plot([columns.index(x) for x in dots[across]], [layers.index(x) for x in dots["layer"]], "o", color=GREY, markerfacecolor="none",
                  markersize=2.5, markeredgewidth=0.6)  # fmt: skip
        axes.set_xticks(range(len(columns)), names, rotation=0 if across == "head" or tokens is None else 60,
                        ha="center" if across == "head" or tokens is None else "right")  # fmt: skip
        axes.set_yticks(range(len(layers)), [str(x) for x in layers])
        axes.set(xlabel=across if tokens is None else "", ylabel="layer")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(_title(table), fontsize=9)
        axes.figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02, label=value)
    return axes


def carried_curves(
    table: pd.DataFrame,
    *,
    value: str = "likeliest",
    names: Mapping[str, str] | None = None,
    axes: "Sequence[matplotlib.axes.Axes] | None" = None,
) -> "list[matplotlib.axes.Axes]":
    """Which answer the patched run gives, layer by layer, with 95% bands: one panel per pair of languages.

    Args:
        table: From `patching.carried`.
        value: `likeliest` (share of pairs) or `probability` (mean among the candidates).
        names: Labels of candidates; default their own.
        axes: Drawn into, if given: one per pair of languages.

    Raises:
        ValueError: The table is empty or lacks a column; an unknown value; more candidates than colours.
    """
    edges = {"likeliest": ("likeliest_low", "likeliest_high"), "probability": ("low", "high")}
    if value not in edges:
        raise ValueError(f"unknown value={value!r}: choose from {', '.join(edges)}")
    require_columns(
        table, ["source", "target", "layer", "candidate", value, *edges[value]], "carried", "patching.carried"
    )
    candidates = unique(table, "candidate")
    if len(candidates) > len(_ANSWERS):
        raise ValueError(
            f"{len(candidates)} candidates are more than {len(_ANSWERS)} that can be told apart: select some"
        )
    pairs = list(dict.fromkeys(zip(table["source"], table["target"], strict=True)))
    with house_style():
        panels, handles = make_panels(axes, len(pairs), height=1.7), {}
        for panel, (source, target) in zip(panels, pairs, strict=True):
            part = table[(table["source"] == source) & (table["target"] == target)]
            for name, colour in zip(candidates, _ANSWERS, strict=False):
                rows = part[part["candidate"] == name].sort_values("layer")
                low, high = (rows[edge] for edge in edges[value])
                panel.fill_between(rows["layer"], low, high, color=colour, alpha=0.15, linewidth=0)
                (handles[name],) = panel.plot(
                    rows["layer"],
                    rows[value],
                    color=colour,
                    marker="o",
                    markersize=3,
                    label=(names or {}).get(name, name),
                )
            panel.set_title(
                f"{language_name(source)} \N{RIGHTWARDS ARROW} {language_name(target)}", fontsize=9, color=INK
            )
            panel.set_ylim(-0.03, 1.03)
            whole_numbers(panel)
        label_axes(
            panels,
            "layer patched",
            {"likeliest": "share of pairs", "probability": "probability"}[value],
            own=axes is None,
        )
        add_legend(panels, list(handles.values()), own=axes is None, columns=2)
    return panels


def _order(value: object) -> tuple[int, float, str]:
    """Numbers in their order, `all` before them."""
    return (1, float(value), "") if isinstance(value, int | float | np.integer) else (0, 0.0, str(value))


def _mark(token: str) -> str:
    """White space is shown."""
    return token.replace("\n", "\N{RETURN SYMBOL}").replace(" ", "\N{MIDDLE DOT}") or "\N{EMPTY SET}"


def _title(table: pd.DataFrame) -> str:
    source, target, site = (table[name].iloc[0] for name in ("source", "target", "site"))
    pair = (
        language_name(source)
        if source == target
        else f"{language_name(source)} \N{RIGHTWARDS ARROW} {language_name(target)}"
    )
    return f"{pair}, {site}"
