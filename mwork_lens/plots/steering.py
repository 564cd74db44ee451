"""The figures of steering: how much of it is needed, what it costs in fluency, and which other languages pay."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .matrix import _DIVERGING, _HATCHED, _ink, _write
from .parts import add_legend, label_axes, make_panels, require_columns, unique
from .style import GREY, INK, PALE, WIDTH, house_style, language_colours, language_name, make_figure

if TYPE_CHECKING:
    import matplotlib.axes

_KIND = ["source", "target", "how", "value", "phase"]
_MARKERS = {"replace": "o", "add": "^"}
_DASHES: dict[str, Any] = {"mean": "-", "firing": (0, (5, 2)), "contrast": (0, (1, 1.5))}
_FAINT = "#BDBDBD"


def dose_curves(
    table: pd.DataFrame, *, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """Language accuracy against the strength of the dose: one panel per target language.

    Coloured is the share of responses in the target language with the source's neurons off and the target's on (`both`), with its 95 % Wilson
    interval; hollow, with the target's on alone (`on`). Hatched is the range of the random draws, dashed the unsteered model. A target
    with several sources, values, phases or ways to put the value has a panel for each, which says so.

    Args:
        table: Columns source, target, condition, how, value, strength, phase, accuracy, accuracy_low, accuracy_high, draw_low, draw_high.
        axes: One per panel, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty or lacks a column, or holds no steered rows; too few axes.
    """
    needed = [*_KIND, "condition", "strength", "accuracy", "accuracy_low", "accuracy_high", "draw_low", "draw_high"]
    require_columns(table, needed, "steering", "steering_table")
    steered = table[table["condition"].isin(["both", "on"])]
    require_columns(steered, needed, "steering", "steering_table")
    colours = language_colours(steered["target"])
    kinds = _kinds(steered)
    with house_style():
        panels = make_panels(axes, len(kinds), height=1.7)
        for panel, kind in zip(panels, kinds, strict=True):
            source, target, *_ = kind
            colour = colours[target]
            part = _pick(table, dict(zip(_KIND, kind, strict=True))).sort_values("strength")
            chance = part[part["condition"] == "random"].dropna(subset=["draw_low"])
            if len(chance):
                x, low, high = (chance[name].to_numpy(float) for name in ("strength", "draw_low", "draw_high"))
                # an edge, so that a range from 0 to 0 is still to be seen; and a bar for that of one strength
                panel.fill_between(x, low, high, zorder=1, **{**_HATCHED, "linewidth": 1.8})
                if len(x) == 1:
                    panel.vlines(x, low, high, color=_FAINT, linewidth=4, zorder=1)
            before = _pick(table, {"source": source, "target": target, "condition": "none"})
            for level in before["accuracy"]:
                panel.axhline(level, color=GREY, linestyle=(0, (4, 2)), linewidth=1.4, zorder=2)
            for condition, look in (("on", {"markerfacecolor": "white", "linewidth": 1.0}), ("both", {})):
                mine = part[part["condition"] == condition]
                if not len(mine):
                    continue
                x = mine["strength"].to_numpy(float)
                if condition == "both" or "both" not in {*part["condition"]}:
                    low, high = (mine[name].to_numpy(float) for name in ("accuracy_low", "accuracy_high"))
                    panel.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0, zorder=2)
                    if len(x) == 1:
                        panel.vlines(x, low, high, color=colour, linewidth=1.3, zorder=2.5)
                shown: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 3.5, "zorder": 3, **look}
                panel.plot(x, mine["accuracy"].to_numpy(float), label=condition, clip_on=False, **shown)
            note = _note(kind, kinds)
            panel.set_title(language_name(target), color=colour, pad=15 if note else None)
            panel.annotate(note, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=8, color=GREY)
            panel.grid(axis="y", color=PALE, linewidth=0.6)
            panel.set_ylim(-0.03, 1.03)
        strengths = table.loc[table["condition"].isin(["both", "on", "random"]), "strength"].to_numpy(float)
        for panel in panels:
            panel.set_xlim(min(0.0, strengths.min()), strengths.max() * 1.04)
        label_axes(panels, "strength: factor on the values of act(gate)", "language accuracy", own=axes is None)
        add_legend(panels, _dose_handles({*table["condition"]}), own=axes is None, columns=2 if len(panels) < 3 else 4)
    return panels


def _kinds(rows: Any) -> list[tuple[str, ...]]:
    """Source, target, how, value, phase, in the order of the table."""
    return list(dict.fromkeys(rows[_KIND].itertuples(index=False, name=None)))


def _pick(table: pd.DataFrame, wanted: dict[str, Any]) -> pd.DataFrame:
    return table[np.logical_and.reduce([table[column] == value for column, value in wanted.items()])]


def _note(kind: tuple[str, ...], kinds: list[tuple[str, ...]]) -> str:
    """What tells a panel from the others, beside its target."""
    source, _, how, value, phase = kind
    several = [len({other[i] for other in kinds}) > 1 for i in (0, 2, 3, 4)]
    texts = (f"from {source}", f"{how} {value}", "all tokens" if phase == "all" else f"{phase} only")
    shown = (several[0], several[1] or several[2], several[3])
    return ", ".join(text for text, needed in zip(texts, shown, strict=True) if needed)


def _dose_handles(conditions: set[str]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    look: dict[str, Any] = {"color": INK, "marker": "o", "markersize": 3.5}
    handles: dict[str, Any] = {
        "both": Line2D([], [], label="source off, target on (95% interval)", **look),
        "on": Line2D([], [], label="target on", markerfacecolor="white", linewidth=1.0, **look),
        "none": Line2D([], [], label="unsteered", color=GREY, linestyle=(0, (4, 2)), linewidth=1.4),
        "random": Patch(label="random neurons: range", **_HATCHED),
    }
    return [handle for name, handle in handles.items() if name in conditions]


def fluency_against_accuracy(
    table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """The price of language accuracy: each dose a point, those of one target joined in order of strength; larger is stronger.

    Shown are the rows with the source's neurons off and the target's on (`both`; those of `on` if there is none). Circles replace act(gate),
    triangles add to it; dashed values are of firing tokens, dotted ones contrasts; a hollow point acts at some positions only. Grey points
    are random neurons at the same doses, `+` is the unsteered model.

    Args:
        table: Columns source, target, condition, how, value, strength, phase, accuracy, nll.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column, or holds no steered rows.
    """
    needed = [*_KIND, "condition", "strength", "accuracy", "nll"]
    require_columns(table, needed, "steering", "steering_table")
    condition = "both" if (table["condition"] == "both").any() else "on"
    steered = table[table["condition"] == condition]
    require_columns(steered, needed, "steering", "steering_table")
    languages = unique(steered, "target")
    colours = language_colours(languages)
    strongest = max(float(steered["strength"].abs().max()), 1e-9)
    with house_style():
        mine = axes is None
        axes = make_figure(WIDTH / 1.35, 4.2).subplots() if axes is None else axes
        chance = table[table["condition"] == "random"]
        look: dict[str, Any] = {"linewidths": 0, "color": _FAINT, "zorder": 1, "clip_on": False}
        axes.scatter(chance["nll"], chance["accuracy"], s=_area(chance["strength"], strongest) * 0.6, **look)
        for kind in _kinds(steered):
            _, target, how, value, phase = kind
            part = _pick(steered, dict(zip(_KIND, kind, strict=True))).sort_values("strength")
            colour = colours[target]
            x, y = part["nll"].to_numpy(float), part["accuracy"].to_numpy(float)
            axes.plot(x, y, color=colour, linewidth=1.1, alpha=0.75, linestyle=_DASHES.get(value, "-"), zorder=2)
            axes.scatter(
                x, y, s=_area(part["strength"], strongest), marker=_MARKERS.get(how, "s"), zorder=3, clip_on=False,
                facecolors=colour if phase == "all" else "white", edgecolors=colour, linewidths=0.9,
            )  # fmt: skip
        before = table[(table["condition"] == "none") & table["target"].isin(languages)]
        look |= {"marker": "+", "s": 60, "color": INK, "linewidths": 1.4, "zorder": 4}
        axes.scatter(before["nll"], before["accuracy"], **look)
        x = "fluency: NLL under the unsteered model, nats per token (right is worse)"
        axes.set(xlabel=x, ylabel="language accuracy", ylim=(-0.03, 1.03))
        axes.grid(color=PALE, linewidth=0.6)
        _price_legend(axes, steered, colours, table, mine)
    return axes


def _area(strength: pd.Series, strongest: float) -> np.ndarray:
    return 10 + 55 * strength.abs().to_numpy(float) / strongest


def _price_legend(axes: Any, steered: pd.DataFrame, colours: dict[str, str], table: pd.DataFrame, mine: bool) -> None:
    """Languages, then what the marks mean, as far as they occur; beside a figure of ours, else in a corner."""
    from matplotlib.lines import Line2D

    def mark(label: str, **look: Any) -> Line2D:
        return Line2D([], [], **{"label": label, "color": GREY, "linestyle": "", "markersize": 5.5, **look})

    languages, values = unique(steered, "target"), unique(steered, "value")
    handles = [mark(language_name(name), color=colours[name], marker="s", markersize=7) for name in languages]
    texts = {"replace": "replace act(gate)", "add": "add to act(gate)"}
    handles += [mark(texts.get(how, how), marker=_MARKERS.get(how, "s")) for how in unique(steered, "how")]
    for value in values if len(values) > 1 else ():
        handles.append(mark(f"value: {value}", linestyle=_DASHES.get(value, "-"), linewidth=1.3))
    if (steered["phase"] != "all").any():
        handles.append(mark("some positions only", marker="o", markerfacecolor="white"))
    if (table["condition"] == "random").any():
        handles.append(mark("random neurons", color=_FAINT, marker="o"))
    if (table["condition"] == "none").any():
        handles.append(mark("unsteered", color=INK, marker="+", markersize=8, markeredgewidth=1.4))
    if mine:
        axes.figure.legend(handles=handles, loc="outside right upper", title="larger: stronger", title_fontsize=9)
    else:
        axes.legend(handles=handles, loc="best", fontsize=7)


def damage_heatmap(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """Who pays: the change of NLL of every language (columns) with the source off and a target on (rows); above zero (orange) is harm.

    Own neurons first, the target's column framed, with the 95 % interval below each value and an arrow where it lies above (bold) or below the
    range of the random draws; as many random neurons, mean over draws, below. The dose stands at the right.

    Args:
        table: Columns source, target, condition, how, value, strength, draw, language, dnll, dnll_low, dnll_high; `both` and `random` are shown.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column, or holds no rows of `both`.
    """
    keys = ["source", "target", "how", "value", "strength"]
    needed = [*keys, "condition", "draw", "language", "dnll", "dnll_low", "dnll_high"]
    require_columns(table, needed, "damage", "damage")
    own = table[table["condition"] == "both"]
    require_columns(own, needed, "damage", "damage")
    rows = list(own[keys].drop_duplicates().itertuples(index=False, name=None))
    languages, random = unique(own, "language"), table[table["condition"] == "random"]
    blocks = ["both", "random"] if len(random) else ["both"]
    shown = table.loc[table["condition"].isin(blocks), "dnll"].abs()
    top = max(float(np.nanmax(shown.to_numpy(float), initial=0.0)), 1e-9)
    small = len(languages) > 8
    with house_style():
        if axes is None:
            height = 1.15 + (0.27 if small else 0.36) * (len(rows) + 0.85) * len(blocks)
            axes = make_figure(max(5.4, min(3.2 + 0.95 * len(languages), WIDTH)), height).subplots()
        from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
        from matplotlib.patches import Rectangle

        norm = TwoSlopeNorm(0.0, -top, top)
        shades = LinearSegmentedColormap.from_list("harm", _DIVERGING).with_extremes(bad="#F1F1F1")
        edge = axes.get_yaxis_transform()
        look: dict[str, Any] = {"xycoords": edge, "textcoords": "offset points", "va": "center", "ha": "left"}
        look |= {"color": GREY, "fontsize": 8}
        drawn = f"mean of {random['draw'].nunique()} draws" if random["draw"].nunique() > 1 else "one draw"
        heads = {"both": "source off, target on", "random": f"as many random neurons, {drawn}"}
        y, ticks, names = -0.75, [], []
        sources = len({row[0] for row in rows}) > 1
        for block in blocks:
            axes.text(0.0, y, heads[block], transform=edge, ha="left", va="center", fontsize=9, fontweight="bold")
            y += 0.85
            for source, target, how, kind, strength in rows:
                chosen = dict(zip(keys, (source, target, how, kind, strength), strict=True))
                chance = (
                    _pick(random, chosen).groupby("language")["dnll"].agg(["mean", "min", "max"]).reindex(languages)
                )
                mine = _pick(own, chosen).set_index("language").reindex(languages)
                level = mine["dnll"] if block == "both" else chance["mean"]
                values = level.to_numpy(float)[None]
                grid = np.arange(len(languages) + 1) - 0.5
                look_of: dict[str, Any] = {"cmap": shades, "norm": norm, "edgecolors": "white", "linewidth": 1.5}
                axes.pcolormesh(grid, [y - 0.5, y + 0.5], np.ma.masked_invalid(values), **look_of)
                for x, language in enumerate(languages):
                    cell = _cell(mine.loc[language], chance.loc[language], block, top)
                    _write(axes, x, y, cell, _ink(shades(norm(values[0, x]))), small)
                if block == "both" and target in languages:
                    at = (languages.index(target) - 0.46, y - 0.46)
                    axes.add_patch(Rectangle(at, 0.92, 0.92, fill=False, edgecolor=INK, linewidth=1.3, zorder=3))
                ticks.append(y)
                names.append(language_name(target) + (f" from {source}" if sources else ""))
                axes.annotate(f"{how} {kind} ×{strength:g}", (1, y), xytext=(6, 0), **look)
                y += 1.0
            y += 0.05
        axes.set_yticks(ticks, names)
        axes.set_xticks(
            range(len(languages)), [x if small else language_name(x).replace(" (", "\n(") for x in languages]
        )
        axes.set_xlim(-0.5, len(languages) - 0.5)
        axes.set_ylim(ticks[-1] + 0.5, -1.05)
        axes.tick_params(which="both", length=0)
        axes.xaxis.tick_top()
        axes.spines[:].set_visible(False)
        title = (
            "change of NLL, nats per token"
            + ("; " if len(languages) > 4 else "\n")
            + "row: switched on, column: evaluated"
        )
        axes.set_title(title, fontsize=9, fontweight="normal", color=GREY)
        note = "above 0 is harm" + ("" if small else "; below each value its 95% interval")
        note += "\n↑ ↓ interval above or below the range of the random draws" if len(blocks) > 1 else ""
        axes.set_xlabel(note, fontsize=8, color=GREY, loc="left")
    return axes


def _cell(own: pd.Series, drawn: pd.Series, block: str, top: float) -> tuple[str, str, bool]:
    """(value, interval, whether it is more than chance)."""
    decimals = 3 if top < 0.1 else 2 if top < 10 else 1

    def number(x: float) -> str:
        text = f"{x:.{decimals}f}"
        return "–" if not np.isfinite(x) else text.replace("-", "−") if float(text) else text.lstrip("-")

    if block == "random":
        return number(drawn["mean"]), "", False
    if not np.isfinite(own["dnll"]):
        return "–", "", False
    above, below = own["dnll_low"] > drawn["max"], own["dnll_high"] < drawn["min"]
    interval = f"[{number(own['dnll_low'])}, {number(own['dnll_high'])}]"
    return number(own["dnll"]) + (" ↑" if above else " ↓" if below else ""), interval, bool(above)
