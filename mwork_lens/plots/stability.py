"""The figures of how firm a set of neurons is: settings and texts varied, documents drawn anew, methods compared."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .parts import add_legend, label_axes, make_panels, require_columns, unique, whole_numbers
from .style import GREY, INK, PALE, WIDTH, house_style, language_colours, language_name, log_axis, make_figure

if TYPE_CHECKING:
    import matplotlib.axes

ALL, ALL_COLOUR = "all", "#0072B2"
"""The union of the languages, and its colour, which no language has."""

_PANELS = {
    "rate": ("Rate", "share of units chosen"),
    "bar": ("Filter and bar", "quantile of all probabilities"),
    "tokens": ("Amount of text", "tokens per language"),
    "languages": ("A language left out", "language left out"),
    "domain": ("One domain only", "hollow: as many documents at random"),
    "per": ("Way of averaging", "probabilities averaged over"),
}


def sensitivity_curves(
    table: pd.DataFrame, *, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """Jaccard index with the reference set, per language, against what was varied: one panel for each kind.

    Lines are means over draws, small points the draws. The dashed line marks the reference, grey what two random sets of those sizes would
    share. In the panel of domains, a filled point is a domain and the hollow one beside it a random draw of as many documents.

    Args:
        table: Columns varied, value, number, draw, language, jaccard, jaccard_chance, reference.
        axes: One per kind, in the order of the panels; made if absent.

    Raises:
        ValueError: The table is empty or lacks a column; too few axes; a kind that is not known.
    """
    columns = ["varied", "value", "number", "draw", "language", "jaccard", "jaccard_chance", "reference"]
    require_columns(table, columns, "sensitivity", "sensitivity.sensitivity")
    there = set(unique(table, "varied"))
    if unknown := sorted(there - {*_PANELS, "domain_random"}):
        raise ValueError(f"no panel shows what happens when {unknown[0]!r} is varied: there are {', '.join(_PANELS)}")
    kinds = [kind for kind in _PANELS if kind in there]
    languages = [language for language in unique(table, "language") if language != ALL]
    colours = {**language_colours(languages), ALL: ALL_COLOUR}
    colours = {
        language: colours[language] for language in [*languages, *([ALL] if ALL in set(table["language"]) else [])]
    }
    with house_style():
        panels = _own_panels(len(kinds)) if axes is None else list(np.ravel(np.asarray(axes, dtype=object)))
        if len(panels) < len(kinds):
            raise ValueError(f"{len(panels)} axes for {len(kinds)} panels ({', '.join(kinds)}): give one each, or none")
        for panel, kind in zip(panels, kinds, strict=False):
            part = table[table["varied"] == kind]
            if kind == "domain":
                _strips(panel, part, table[table["varied"] == "domain_random"], colours)
            elif part["number"].notna().all():
                _curves(panel, part, colours, log=kind != "bar")
            else:
                _points(panel, part, colours)
            title, label = _PANELS[kind]
            panel.set_title(title)
            panel.set_xlabel(label)
            panel.set_ylim(-0.03, 1.05)
            panel.grid(axis="y", color=PALE, linewidth=0.6)
        if axes is None:
            panels[0].figure.supylabel("Jaccard index with the reference", fontsize=9)
        else:
            for panel in panels:
                panel.set_ylabel("Jaccard index with the reference")
        add_legend(panels, _handles(colours), own=axes is None, columns=5)
    return panels[: len(kinds)]


def agreement_heatmap(
    table: pd.DataFrame, *, language: str | None = None, axes: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """Jaccard index of each pair of methods in one language, over all layers, with what chance gives in small type.

    The diagonal says how many neurons a method has; a range, if that depends on the sites it shares with the other method.

    Args:
        table: Columns method, other, language, level, size_a, size_b, jaccard, jaccard_chance.
        language: Which to show; may be left out if there is only one.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty, lacks a column or this language; several languages and none chosen.
    """
    columns = ["method", "other", "language", "level", "size_a", "size_b", "jaccard", "jaccard_chance"]
    require_columns(table, columns, "agreement", "agreement.agreement")
    languages = unique(table, "language")
    if language is None and len(languages) > 1:
        raise ValueError(
            f"the table has {len(languages)} languages: choose one with language=, of {', '.join(languages)}"
        )
    language = languages[0] if language is None else language
    if language not in languages:
        raise ValueError(f"the table has no language {language!r}: there are {', '.join(languages)}")
    rows = table[(table["language"] == language) & (table["level"] == "total")]
    methods = list(dict.fromkeys([*unique(rows, "method"), *unique(rows, "other")]))
    values, chance = (np.full((len(methods),) * 2, np.nan) for _ in range(2))
    sizes: dict[str, set[int]] = {method: set() for method in methods}
    for _, row in rows.iterrows():
        i, j = methods.index(row["method"]), methods.index(row["other"])
        values[[i, j], [j, i]], chance[[i, j], [j, i]] = row["jaccard"], row["jaccard_chance"]
        sizes[methods[i]].add(int(row["size_a"]))
        sizes[methods[j]].add(int(row["size_b"]))
    top = max(float(np.nanmax(values)) if np.isfinite(values).any() else 0.0, 0.01)
    with house_style():
        if axes is None:
            axes = make_figure(min(2.2 + 1.05 * len(methods), WIDTH), 0.9 + 0.52 * len(methods)).subplots()
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("jaccard", ["#F3F7FB", "#7FB2D9", "#0B4A7F"])
        centres = np.arange(len(methods))
        look = {"vmin": 0, "vmax": top, "edgecolors": "white", "linewidth": 1.5}
        axes.pcolormesh(
            centres, centres, np.ma.masked_invalid(values), cmap=shades.with_extremes(bad="#EDEDED"), **look
        )
        axes.invert_yaxis()
        for i, j in np.ndindex(values.shape):
            if i == j:
                ends = [f"{size:,}" for size in (min(sizes[methods[i]]), max(sizes[methods[i]]))]
                axes.text(j, i, "–".join(dict.fromkeys(ends)), ha="center", va="center", color=GREY)
                continue
            if np.isnan(values[i, j]):
                axes.text(j, i, "–", ha="center", va="center", color=INK)
                continue
            dark = values[i, j] > 0.6 * top
            axes.text(j, i - 0.1, f"{values[i, j]:.2f}", ha="center", va="center", color="white" if dark else INK)
            by_chance = f"chance {chance[i, j]:.2f}"
            axes.text(j, i + 0.24, by_chance, ha="center", va="center", fontsize=6.5, color="white" if dark else GREY)
        axes.set_xticks(centres, methods)
        axes.set_yticks(centres, methods)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        title = f"{language_name(language)}: Jaccard index (diagonal: neurons)"
        axes.set_title(title, fontsize=9, fontweight="normal", color=GREY)
    return axes


def selection_frequency_histogram(
    table: pd.DataFrame, *, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """How often the units of each language are chosen when documents are drawn anew: one panel per language, in steps of 0.05.

    Filled: units of the set found on all documents; hatched: units that only resamples choose. A firm set is one filled bar at 1.

    Args:
        table: Columns language, frequency, chosen; a categorical language without rows gets an empty panel.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty or lacks a column; too few axes.
    """
    columns = ["language", "frequency", "chosen"]
    require_columns(table, columns, "selection frequency", "stability.frequency_table")
    names = table["language"]
    languages = (
        list(names.cat.categories) if isinstance(names.dtype, pd.CategoricalDtype) else unique(table, "language")
    )
    colours = language_colours(languages)
    edges = np.linspace(0, 1, 21)
    with house_style():
        panels = make_panels(axes, len(languages), height=1.6)
        tallest = 1.0
        for panel, language in zip(panels, languages, strict=True):
            part = table[table["language"] == language]
            chosen = part["chosen"].to_numpy(bool)
            frequency = part["frequency"].to_numpy(float) - 1e-9  # a frequency of 0.9 ends the bar below it
            kept, other = (np.histogram(frequency[which].clip(0), edges)[0] for which in (chosen, ~chosen))
            tallest = max(tallest, (kept + other).max())
            centres = (edges[1:] + edges[:-1]) / 2
            panel.bar(centres, kept, width=0.046, color=colours[language])
            panel.bar(
                centres, other, width=0.046, bottom=kept, facecolor="white", edgecolor=colours[language], linewidth=0.6, hatch="//////"
            )  # fmt: skip
            panel.set_title(language_name(language), color=colours[language])
            note = f"{int(chosen.sum()):,} in the set, {int((chosen & (part['frequency'] >= 0.9)).sum()):,} at 0.9"
            note = note if len(part) else "none is ever chosen"
            panel.set_title(note, loc="right", fontsize=8.5, fontweight="normal", color=GREY)
            panel.grid(axis="y", color=PALE, linewidth=0.6)
        for panel in panels:
            whole_numbers(panel, both=True)
            panel.set(xlim=(0, 1), ylim=(0, tallest * 1.06))
            panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        label_axes(panels, "selection frequency", "units", own=axes is None)
        add_legend(panels, _set_handles(), own=axes is None)
    return panels


def _own_panels(count: int) -> list[Any]:
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = make_figure(WIDTH if columns > 1 else WIDTH / 1.7, 2.2 * rows + 0.7)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    return list(grid[:count])


def _curves(panel: Any, part: pd.DataFrame, colours: Mapping[str, str], *, log: bool) -> None:
    """Against a number; on a log axis, or evenly spaced, as quantiles that crowd towards 1 must be."""
    order = part.sort_values(["number", "value"]).drop_duplicates("value")
    labels = [f"{n:,.0f}" if n > 1 else v for v, n in zip(order["value"], order["number"], strict=True)]
    places = order["number"] if log else pd.Series(range(len(order)))
    part = part.assign(x=part["value"].map(dict(zip(order["value"], places, strict=True))))
    for language, colour in colours.items():
        mine = part[part["language"] == language]
        means = mine.groupby("x")["jaccard"].mean().dropna()
        panel.plot(means.index, means, color=colour, marker="o", markersize=3.5, zorder=3)
        if mine["draw"].max() > 0:
            panel.plot(mine["x"], mine["jaccard"], "o", color=colour, markersize=2.2, alpha=0.35, zorder=2)
    chance = part[~part["reference"]].groupby("x")["jaccard_chance"].mean().dropna()
    panel.plot(chance.index, chance, color="#A8A8A8", linewidth=1.4, zorder=1)
    for x in part.loc[part["reference"], "x"].unique():
        panel.axvline(x, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.5)
    if log:
        log_axis(panel)
    panel.set_xticks(list(places), labels)
    panel.set_xticks([], minor=True)


def _points(panel: Any, part: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """Against a name."""
    names = [*unique(part[part["reference"]], "value"), *unique(part[~part["reference"]], "value")]
    for i, (language, colour) in enumerate(colours.items()):
        mine = part[part["language"] == language].set_index("value")["jaccard"].reindex(names)
        spread = (i - (len(colours) - 1) / 2) * min(0.1, 0.7 / len(colours))
        panel.plot(np.arange(len(names)) + spread, mine, "o", color=colour, markersize=4.5, zorder=3)
    chance = part[~part["reference"]].groupby("value")["jaccard_chance"].mean().reindex(names)
    panel.plot(np.arange(len(names)), chance, "_", color="#A8A8A8", markersize=14, markeredgewidth=1.4, zorder=1)
    panel.axvline(0, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.5)
    panel.set_xticks(range(len(names)), names)
    panel.set_xlim(-0.6, len(names) - 0.4)


def _strips(panel: Any, part: pd.DataFrame, random: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """All domains of a language above each other, and beside them as many documents at random."""
    for i, (language, colour) in enumerate(colours.items()):
        for rows, offset, face in ((part[~part["reference"]], -0.16, colour), (random, 0.16, "white")):
            mine = rows.loc[rows["language"] == language, "jaccard"].dropna().to_numpy(float)
            # the same value many times: spread, evenly and the same each time
            spread = (np.arange(len(mine)) * 0.618 % 1 - 0.5) * 0.22
            look = {"markersize": 3.2, "markeredgewidth": 0.7, "alpha": 0.75}
            panel.plot(i + offset + spread, mine, "o", color=colour, markerfacecolor=face, **look)
            if len(mine):
                panel.plot(
                    [i + offset - 0.14, i + offset + 0.14], [mine.mean()] * 2, color=INK, linewidth=1.6, zorder=4
                )
    chance = part[~part["reference"]].groupby("language")["jaccard_chance"].mean().reindex(list(colours))
    panel.plot(range(len(colours)), chance, "_", color="#A8A8A8", markersize=14, markeredgewidth=1.4, zorder=1)
    panel.set_xticks(range(len(colours)), list(colours))


def _handles(colours: Mapping[str, str]) -> list[Any]:
    from matplotlib.lines import Line2D

    names = {language: "all languages" if language == ALL else language_name(language) for language in colours}
    return [
        *(Line2D([], [], color=colour, marker="o", markersize=4, label=names[x]) for x, colour in colours.items()),
        Line2D([], [], color="#A8A8A8", label="chance"),
        Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), label="reference"),
    ]


def _set_handles() -> list[Any]:
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=GREY, label="in the set of all documents"),
        Patch(facecolor="white", edgecolor=GREY, hatch="//////", label="chosen by resamples only"),
    ]
