"""The figures of the geometry: how near translations are, how often they are found, and into which language the others map, per layer."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .parts import add_legend, label_axes, make_panels, require_columns, whole_numbers
from .style import GREY, INK, PALE, house_style, language_colours, language_name

if TYPE_CHECKING:
    import matplotlib.axes

_ALL = "all"
_LAYERS = "layer (0 = embeddings, last = output)"
_SIMILARITY = {"parallel": "cosine of translations", "adjusted": "cosine above other sentences"}
_DOMINANCE = {
    "dominance": "cosine after mapping",
    "adjusted": "cosine after mapping, above other sentences",
    "centred": "mean-centred cosine of translations",
}


def similarity_curves(
    table: pd.DataFrame,
    value: Literal["parallel", "adjusted"] = "parallel",
    *,
    axes: "Sequence[matplotlib.axes.Axes] | None" = None,
) -> "list[matplotlib.axes.Axes]":
    """How similar translations are at each layer: one panel per language, its mean over the other languages with a 95% band.

    Grey dots: sentences that are not translations of each other (zero for `"adjusted"`). Thin line: all pairs of languages (SES).

    Args:
        table: What `similarity` returns, one variant.
        value: The `"parallel"` cosine, or `"adjusted"`: above that of other sentences.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: `value` is neither; the table is empty, lacks a column or mixes centred and raw rows; too few axes.
    """
    _require_value(value, _SIMILARITY, "similarity")
    require_columns(table, _columns(value, "shuffled", "centred"), "similarity", "similarity")
    if table["centred"].nunique() > 1:
        raise ValueError("the similarity table mixes centred and raw rows: draw one of them, table[table['centred']]")
    label = f"mean-centred {_SIMILARITY[value]}" if table["centred"].iloc[0] else _SIMILARITY[value]

    def draw(panel: Any, language: str, colour: str) -> None:
        _curve(panel, _row(table, language, _ALL), (value, f"{value}_low", f"{value}_high"), colour, "own")
        _overall(panel, table, value)
        _baseline(panel, _row(table, language, _ALL), None if value == "adjusted" else "shuffled")

    return _figure(table, draw, label, ["with the other languages", "all pairs of languages", _chance(value)], axes)


def retrieval_curves(
    table: pd.DataFrame, *, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """How often the nearest sentence is the translation: one panel per language, with 95% bands.

    Filled: sentences of the panel's language look in the others; hollow, dashed: those of the others look in it. Grey dots: chance.

    Args:
        table: What `retrieval` returns, one variant.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty, lacks a column or mixes centred and raw rows; too few axes.
    """
    columns = ["language", "other", "layer", "accuracy", "low", "high", "chance", "centred"]
    require_columns(table, columns, "retrieval", "retrieval")
    if table["centred"].nunique() > 1:
        raise ValueError("the retrieval table mixes centred and raw rows: draw one of them, table[table['centred']]")
    label = "translation is nearest" + (" (mean-centred)" if table["centred"].iloc[0] else "")
    ends = ("accuracy", "low", "high")

    def draw(panel: Any, language: str, colour: str) -> None:
        from matplotlib.ticker import FuncFormatter

        _curve(panel, _row(table, language, _ALL), ends, colour, "from")
        _curve(panel, _row(table, _ALL, language), ends, colour, "to", dashed=True)
        _baseline(panel, _row(table, language, _ALL), "chance")
        panel.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        panel.set_ylim(0, min(1.02, 1.1 * float(table.loc[_aggregate(table), "high"].max(skipna=True))))

    return _figure(table, draw, label, ["from the panel's language", "to the panel's language", "chance"], axes)


def dominance_curves(
    table: pd.DataFrame,
    value: Literal["dominance", "adjusted", "centred"] = "dominance",
    *,
    axes: "Sequence[matplotlib.axes.Axes] | None" = None,
) -> "list[matplotlib.axes.Axes]":
    """How well the other languages map into each: one panel per language they are mapped into, with 95% bands.

    Grey dots: the same with sentences that are not translations (zero for `"adjusted"`; not drawn for `"centred"`). Thin line: all pairs.

    Args:
        table: What `dominance` returns.
        value: `"dominance"`, `"adjusted"` (above that of other sentences), or the `"centred"` cosine.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: `value` is none of these; the table is empty or lacks a column; too few axes.
    """
    _require_value(value, _DOMINANCE, "dominance")
    require_columns(table, _columns(value, "shuffled"), "dominance", "dominance")
    legend = ["the others mapped into this one", "all pairs of languages", _chance(value)]

    def draw(panel: Any, language: str, colour: str) -> None:
        _curve(panel, _row(table, _ALL, language), (value, f"{value}_low", f"{value}_high"), colour, "own")
        _overall(panel, table, value)
        _baseline(panel, _row(table, _ALL, language), "shuffled" if value == "dominance" else None)

    return _figure(table, draw, _DOMINANCE[value], legend, axes)


def _figure(
    table: pd.DataFrame, draw: Callable[[Any, str, str], None], y: str, legend: list[str], axes: Any
) -> list[Any]:
    languages = [str(name) for name in dict.fromkeys([*table["language"], *table["other"]]) if name != _ALL]
    colours = language_colours(languages)
    with house_style():
        panels = make_panels(axes, len(languages), height=1.95)
        layers = sorted({*table["layer"]})
        for panel, language in zip(panels, languages, strict=True):
            draw(panel, language, colours[language])
            panel.set_xlim(layers[0], max(layers[-1], layers[0] + 1))
            panel.set_title(language_name(language), color=colours[language])
            panel.grid(axis="y", color=PALE, linewidth=0.6)
            whole_numbers(panel)
        label_axes(panels, _LAYERS, y, own=axes is None)
        add_legend(panels, _handles(legend, list(colours.values())), own=axes is None)
    return panels


def _aggregate(table: pd.DataFrame) -> Any:
    return (table["language"] == _ALL) ^ (table["other"] == _ALL)


def _row(table: pd.DataFrame, language: str, other: str) -> pd.DataFrame:
    """The curve of one group of pairs, layer by layer."""
    return table[(table["language"] == language) & (table["other"] == other)].sort_values("layer")


def _curve(
    panel: Any, one: pd.DataFrame, columns: tuple[str, str, str], colour: str, label: str, *, dashed: bool = False
) -> None:
    x, y, low, high = (one[column].to_numpy(float) for column in ("layer", *columns))
    panel.fill_between(x, low, high, color=colour, alpha=0.1 if dashed else 0.2, linewidth=0, zorder=3)
    look = {"linestyle": "--", "markerfacecolor": "white"} if dashed else {}
    panel.plot(
        x, y, color=colour, label=label, marker="o", markersize=3.4 if len(x) <= 34 else 1.6, clip_on=False, zorder=4, **look
    )  # fmt: skip
    # a point between two gaps has no line and no band: its interval is drawn as a bar
    known = np.isfinite(np.concatenate([[np.nan], y, [np.nan]]))
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    panel.vlines(x[alone], low[alone], high[alone], color=colour, linewidth=1, zorder=3)


def _overall(panel: Any, table: pd.DataFrame, value: str) -> None:
    one = _row(table, _ALL, _ALL)
    panel.plot(one["layer"], one[value], color=INK, linewidth=0.8, label="all", zorder=3.5)


def _baseline(panel: Any, one: pd.DataFrame, column: str | None) -> None:
    y = np.zeros(len(one)) if column is None else one[column].to_numpy(float)
    panel.plot(one["layer"], y, color=GREY, linewidth=1.3, linestyle=":", label="baseline", zorder=4.5)


def _chance(value: str) -> str:
    return "other sentences" if value in ("parallel", "dominance") else "zero"


def _columns(value: str, *more: str) -> list[str]:
    return list(dict.fromkeys(["language", "other", "layer", value, f"{value}_low", f"{value}_high", *more]))


def _require_value(value: str, known: dict[str, str], what: str) -> None:
    if value not in known:
        raise ValueError(f"value={value!r}: a {what} curve shows {' or '.join(map(repr, known))}")


def _handles(legend: list[str], colours: list[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    own, other, chance = legend
    shown = [colour for colour in colours if colour != INK][:3] or [INK]
    hollow = {"linestyle": "--", "markerfacecolor": "white"}
    first = tuple(Line2D([], [], color=colour, marker="o", markersize=3.4, label=own) for colour in shown)
    if other.startswith("to "):
        second: Any = tuple(
            Line2D([], [], color=colour, marker="o", markersize=3.4, label=other, **hollow) for colour in shown
        )
    else:
        second = Line2D([], [], color=INK, linewidth=0.8, label=other)
    return [first, second, Line2D([], [], color=GREY, linewidth=1.3, linestyle=":", label=chance)]
