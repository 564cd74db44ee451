"""The figures of the perplexity matrix: who suffers when a language's neurons are off, how selectively, and from how many neurons on."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .effects import OWN
from .parts import add_legend, label_axes, make_panels, require_columns, unique
from .style import GREY, INK, PALE, WIDTH, house_style, language_colours, language_name, make_figure

if TYPE_CHECKING:
    import matplotlib.axes

_LABELS = {"dnll": "change of NLL, nats per token", "dppl": "change of perplexity"}
_UNMASKED = {"dnll": "nothing off: NLL, nats per token", "dppl": "nothing off: perplexity"}
_CHANCE, _BLANK = "#CFCFCF", "#F1F1F1"
_HATCHED: dict[str, Any] = {"facecolor": "#ECECEC", "edgecolor": "#A8A8A8", "hatch": "//////", "linewidth": 0}
_DIVERGING = ["#0B4A7F", "#7FB2D9", "#FFFFFF", "#F0B27A", "#A63C06"]
"""Blue through white to orange: told apart under every common colour blindness."""


def perplexity_heatmap(
    table: pd.DataFrame, *, value: str = "dnll", axes: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """Harm in every cell: rows are the languages whose neurons are off, columns those evaluated; above zero (orange) is harm.

    Three blocks: the languages' own neurons, diagonal framed; as many random ones (mean over the row's draws); the unmasked model, whose row
    shows NLL or perplexity itself. Below each value stands its 95% interval (up to eight languages); an arrow says that it lies above (bold) or
    below the range of the row's random draws. A row of dashes had nothing to switch off.

    Args:
        table: Columns off, neurons, count, language, nll, dnll and dppl with `_low` and `_high`, random_low, random_high, draws.
        value: dnll in nats per token, or dppl.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column; an unknown value.
    """
    if value not in _LABELS:
        raise ValueError(f"unknown value={value!r}: choose from {', '.join(_LABELS)}")
    edges = [f"{name}{edge}" for name in ("dnll", "dppl") for edge in ("", "_low", "_high")]
    needed = ["off", "neurons", "count", "language", "nll", *edges, "random_low", "random_high", "draws"]
    require_columns(table, needed, "matrix", "perplexity_matrix")
    languages = unique(table, "language")
    small = len(languages) > 8
    blocks = {kind: part for kind in ("own", "random", "none") if len(part := table[table["neurons"] == kind])}
    places, heads = _places(blocks)
    with house_style():
        if axes is None:
            width, rows = max(4.8, min(2.6 + 1.0 * len(languages), WIDTH)), max(places.values()) + 1
            axes = make_figure(width, 1.0 + (0.26 if small else 0.36) * rows).subplots()
        from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
        from matplotlib.patches import Rectangle

        known = table.loc[table["neurons"] != "none", value].to_numpy(float)
        top = max(float(np.abs(known[np.isfinite(known)]).max(initial=0.0)), 1e-9)
        look: dict[str, Any] = {"edgecolors": "white", "linewidth": 1.5, "norm": TwoSlopeNorm(0.0, -top, top)}
        look["cmap"] = LinearSegmentedColormap.from_list("harm", _DIVERGING).with_extremes(bad=_BLANK)
        for (kind, off), y in places.items():
            row = blocks[kind][blocks[kind]["off"] == off].set_index("language").reindex(languages)
            values = row[value].to_numpy(float)[None] * (np.nan if kind == "none" else 1.0)
            columns = np.arange(len(languages) + 1) - 0.5  # a mesh, not an image: cells stay sharp at any size
            axes.pcolormesh(columns, [y - 0.5, y + 0.5], np.ma.masked_invalid(values), **look)
            for x, (_, cell) in enumerate(row.iterrows()):
                shade = look["cmap"](look["norm"](values[0, x]))
                _write(axes, x, y, _texts(cell, value, kind, top), _ink(shade), small)
            if kind == "own" and off in languages:
                at = (languages.index(off) - 0.46, y - 0.46)
                axes.add_patch(Rectangle(at, 0.92, 0.92, fill=False, edgecolor=INK, linewidth=1.3, zorder=3))
        _name_rows(axes, blocks, places, heads, value)
        names = [language if small else language_name(language).replace(" (", "\n(") for language in languages]
        axes.set_xticks(range(len(languages)), names)
        axes.set_xlim(-0.5, len(languages) - 0.5)
        axes.set_ylim(max(places.values()) + 0.5, -1.05)
        axes.tick_params(which="both", length=0)
        axes.xaxis.tick_top()
        axes.spines[:].set_visible(False)
        axes.set_title(f"{_LABELS[value]}; column: language evaluated", fontsize=9, fontweight="normal", color=GREY)
        note = "above 0 is harm" + ("" if small else "; below each value its 95% interval")
        note += "\n↑ ↓ interval above or below the range of the row's random draws" if "random" in blocks else ""
        axes.set_xlabel(note, fontsize=8, color=GREY, loc="left")
    return axes


def _places(blocks: dict[str, pd.DataFrame]) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Where each (neurons, off) row stands, and the heading of each block."""
    places: dict[tuple[str, str], float] = {}
    heads: dict[str, float] = {}
    y = -0.75
    for kind, part in blocks.items():
        heads[kind] = y
        y += 0.85
        for off in unique(part, "off"):
            places[kind, off] = y
            y += 1.0
        y += 0.05
    return places, heads


def _texts(cell: pd.Series, value: str, kind: str, top: float) -> tuple[str, str, bool]:
    """(value, interval, whether it is more than chance) of a cell."""
    decimals = 3 if top < 0.1 else 2 if top < 10 else 1 if top < 1000 else 0

    def number(x: float) -> str:
        text = f"{x:.{decimals}f}" if abs(x) < 1e5 else f"{x:.0e}"
        return "–" if not np.isfinite(x) else text.replace("-", "−") if float(text) else text.lstrip("-")

    if kind == "none":
        nll = cell["nll"]
        return (f"{np.exp(nll):,.1f}" if value == "dppl" else f"{nll:.2f}") if np.isfinite(nll) else "–", "", False
    if not np.isfinite(cell[value]):
        return "–", "", False
    above, below = cell["dnll_low"] > cell["random_high"], cell["dnll_high"] < cell["random_low"]
    arrow = "" if kind != "own" else " ↑" if above else " ↓" if below else ""
    interval = f"[{number(cell[f'{value}_low'])}, {number(cell[f'{value}_high'])}]"
    return number(cell[value]) + arrow, interval, arrow == " ↑"


def _ink(shade: Any) -> str:
    """White or dark, whichever is easier to read on the shade."""
    red, green, blue = (channel**2.2 for channel in shade[:3])
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.21 else INK


def _write(axes: Any, x: int, y: float, texts: tuple[str, str, bool], colour: str, small: bool) -> None:
    shown, interval, found = texts
    beneath = interval if not small else ""
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": colour}
    look |= {"fontsize": 6.5 if small else 9, "fontweight": "bold" if found else "normal"}
    axes.text(x, y - (0.15 if beneath else 0), shown, **look)
    if beneath:
        axes.text(x, y + 0.26, beneath, **{**look, "fontsize": 6.3, "fontweight": "normal"})


def _name_rows(axes: Any, blocks: Any, places: Any, heads: Any, value: str) -> None:
    """Names at the left of the rows, headings of the blocks, numbers of neurons at the right."""
    draws = int(blocks["random"]["draws"].max()) if "random" in blocks else 0
    titles = {"own": "the language's own neurons off", "none": _UNMASKED[value]}
    titles["random"] = f"as many random neurons off, mean of {draws} draws"
    edge = axes.get_yaxis_transform()
    axes.set_yticks(list(places.values()), [language_name(off) if off else "unmasked" for _, off in places])
    for kind, y in heads.items():
        axes.text(0.0, y, titles[kind], transform=edge, ha="left", va="center", fontsize=9, fontweight="bold")
    look: dict[str, Any] = {
        "xycoords": edge,
        "textcoords": "offset points",
        "va": "center",
        "ha": "right",
        "color": GREY,
    }
    for (kind, off), y in places.items():
        if kind != "none":
            count = blocks[kind].loc[blocks[kind]["off"] == off, "count"].iloc[0]
            axes.annotate(f"{int(count):,}", (1, y), xytext=(44, 0), fontsize=8.5, **look)
    axes.annotate("neurons", (1, -0.75), xytext=(44, 0), fontsize=8.5, **look)


def share_curves(
    table: pd.DataFrame, *, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """Harm for growing shares of neurons off: one panel per language.

    The coloured curve is the language itself, with its 95% interval; the dashed one the mean over the other languages, with the same neurons
    off; hatched is the range of the random sets, scored on the language itself.

    Args:
        table: Columns share, off, neurons, language, dnll, dnll_low, dnll_high, random_low, random_high.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty or lacks a column, or holds no language's own neurons; too few axes.
    """
    needed = ["share", "off", "neurons", "language", "dnll", "dnll_low", "dnll_high", "random_low", "random_high"]
    require_columns(table, needed, "curve", "share_curve")
    own = table[table["neurons"] == "own"]
    require_columns(own, needed, "curve", "share_curve")
    languages = unique(own, "off")
    colours = language_colours(languages)
    with house_style():
        panels = make_panels(axes, len(languages), height=1.7)
        for panel, language in zip(panels, languages, strict=True):
            part = own[own["off"] == language].sort_values("share")
            mine = part[part["language"] == language]
            others = part[part["language"] != language].groupby("share")["dnll"].mean()

            def from_zero(values: Any) -> np.ndarray:
                return np.concatenate([[0.0], np.asarray(values, float)])  # nothing off, nothing changed

            x = from_zero(100 * mine["share"])
            low, high = from_zero(mine["random_low"]), from_zero(mine["random_high"])
            if np.isfinite(low[1:]).any():
                panel.fill_between(x, low, high, zorder=1, **_HATCHED)
            colour = colours[language]
            band = from_zero(mine["dnll_low"]), from_zero(mine["dnll_high"])
            panel.fill_between(x, *band, color=colour, alpha=0.25, linewidth=0, zorder=2)
            panel.plot(
                x, from_zero(mine["dnll"]), color=colour, marker="o", markersize=3.5, label="own language", zorder=4
            )
            rest = from_zero(100 * others.index.to_numpy(float)), from_zero(others)
            panel.plot(*rest, color=GREY, linestyle=(0, (4, 2)), linewidth=1.4, label="other languages", zorder=3)
            panel.axhline(0, color=INK, linewidth=0.7, zorder=1.5)
            panel.set_title(language_name(language), color=colour)
            panel.grid(axis="y", color=PALE, linewidth=0.6)
            panel.set_xlim(0, None)
        label_axes(panels, "units chosen, % of all units, all languages together", _LABELS["dnll"], own=axes is None)
        add_legend(panels, _curve_handles(), own=axes is None)
    return panels


def _curve_handles() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Line2D([], [], color=INK, marker="o", markersize=3.5, label="the language itself, 95% interval"),
        Line2D([], [], color=GREY, linestyle=(0, (4, 2)), linewidth=1.4, label="mean of the others"),
        Patch(label="random sets: range of the draws", **_HATCHED),
    ]


def selectivity_bars(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """Selectivity of each language's neurons, and of all: harm to the language minus the mean harm to the others.

    A bar with its 95% interval per language, the mean over languages below; the grey band spans the random sets of the same size. Rank of
    the diagonal (1 = the language itself suffers most) and p against the random sets stand at the right.

    Args:
        table: Columns off, neurons, selectivity, selectivity_low, selectivity_high, rank, largest, rows, p, p_permutation.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column, or holds no language's own neurons.
    """
    value = ["selectivity", "selectivity_low", "selectivity_high"]
    needed = ["off", "neurons", *value, "rank", "largest", "rows", "p", "p_permutation"]
    require_columns(table, needed, "selectivity", "selectivity")
    own = table[table["neurons"] == "own"]
    require_columns(own, needed, "selectivity", "selectivity")
    colours = language_colours(off for off in own["off"] if off != "all")
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH / 1.4, 1.0 + 0.36 * len(own)).subplots()
        edge = axes.get_yaxis_transform()
        look: dict[str, Any] = {
            "xycoords": edge,
            "textcoords": "offset points",
            "ha": "center",
            "va": "center",
            "fontsize": 8.5,
        }
        for text, points in (("rank", 24), ("p", 58)):
            axes.annotate(text, (1, -0.85), xytext=(points, 0), color=GREY, **look)
        for y, (_, row) in enumerate(own.iterrows()):
            drawn = table.loc[(table["neurons"] == "random") & (table["off"] == row["off"]), "selectivity"].dropna()
            if len(drawn):
                axes.fill_between(
                    [drawn.min(), drawn.max()], y - 0.42, y + 0.42, color=_CHANCE, linewidth=0.8, zorder=1
                )
            estimate, low, high = row[value].to_numpy(float)
            if not np.isfinite(estimate):
                note = {**look, "xycoords": "data", "ha": "left"}
                axes.annotate("no neurons", (0, y), xytext=(5, 0), color=GREY, style="italic", **note)
            else:
                axes.barh(y, estimate, height=0.5, color=colours.get(row["off"], OWN), alpha=0.9, zorder=2)
                axes.errorbar(
                    estimate,
                    y,
                    xerr=[[max(estimate - low, 0)], [max(high - estimate, 0)]],
                    color=INK,
                    elinewidth=1.3,
                    capsize=2.5,
                    zorder=3,
                )
            for number, points, form in (
                (row["rank"], 24, ".0f" if row["off"] != "all" else ".1f"),
                (row["p"], 58, ".2f"),
            ):
                axes.annotate(f"{number:{form}}" if np.isfinite(number) else "–", (1, y), xytext=(points, 0), **look)
        axes.set_yticks(range(len(own)), ["mean" if off == "all" else language_name(off) for off in own["off"]])
        axes.set_ylim(len(own) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.axvline(0, color=INK, linewidth=0.9, zorder=2.5)
        axes.grid(axis="x", color=PALE, linewidth=0.6)
        axes.set_xlabel(
            "selectivity: harm to the language − mean harm to the others, nats per token\n(grey: random sets of the same size)"
        )
        if len(whole := own[own["off"] == "all"]):
            total = whole.iloc[0]
            p = f"; permutation p = {total['p_permutation']:.2g}" if np.isfinite(total["p_permutation"]) else ""
            title = f"the language itself suffers most in {int(total['largest'])} of {int(total['rows'])} rows{p}"
            axes.set_title(title, fontsize=9, fontweight="normal", color=GREY, pad=16)
    return axes
