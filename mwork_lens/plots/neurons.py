"""The figures of the neurons: how many each layer has, and which of them languages share."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..sites import ATTENTION_SITES
from ..stages import Stages
from .parts import (
    add_legend,
    label_axes,
    make_panels,
    require_columns,
    shade_stages,
    stage_handles,
    unique,
    whole_numbers,
)
from .style import GREY, INK, PALE, WIDTH, house_style, language_colours, language_name, make_figure

if TYPE_CHECKING:
    import matplotlib.axes


def layer_counts(
    table: pd.DataFrame, *, stages: Stages | None = None, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """Neurons of each language per layer: one panel per language, attention (q, k, v, z) below FFN.

    Args:
        table: Columns language, site, layer, count.
        stages: Shown as background, if given.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty or lacks a column; too few axes.
    """
    require_columns(table, ["language", "site", "layer", "count"], "counts", "analysis.layer_counts")
    languages = unique(table, "language")
    colours = language_colours(languages)
    attention = table["site"].isin(ATTENTION_SITES)
    with house_style():
        panels = make_panels(axes, len(languages), height=1.6)
        tallest = table.groupby(["language", "layer"])["count"].sum().max()
        layers = sorted({*table["layer"]})
        for panel, language in zip(panels, languages, strict=True):
            shade_stages(panel, stages, offset=-0.5)
            chosen = table["language"] == language
            per_layer = [
                table[chosen & which].groupby("layer")["count"].sum().reindex(layers, fill_value=0).to_numpy(float)
                for which in (attention, ~attention)
            ]
            colour = colours[language]
            panel.bar(layers, per_layer[0], width=0.82, color=colour, label="attention")
            panel.bar(
                layers, per_layer[1], width=0.82, bottom=per_layer[0], label="FFN",
                facecolor=_tint(colour, 0.35), edgecolor=colour, linewidth=0.6, hatch="//////",
            )  # fmt: skip
            panel.set_xlim(layers[0] - 0.6, layers[-1] + 0.6)
            panel.set_ylim(0, max(float(tallest) * 1.06, 1))
            panel.set_title(language_name(language), color=colour)
            total = int(sum(map(np.sum, per_layer)))
            note = f"{total:,} neurons" if total else "no neurons"
            panel.set_title(note, loc="right", fontsize=8.5, fontweight="normal", color=GREY)
            panel.grid(axis="y", color=PALE, linewidth=0.6)
            whole_numbers(panel, both=True)
        label_axes(panels, "layer", "neurons", own=axes is None)
        add_legend(panels, [*_count_handles(), *stage_handles(stages)], own=axes is None)
    return panels


def overlap_heatmap(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """Jaccard overlap |A and B| / |A or B| of the neurons of each pair of languages; the diagonal says how many each has.

    Args:
        table: Columns language, other, shared, jaccard; all ordered pairs, the diagonal included.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    require_columns(table, ["language", "other", "shared", "jaccard"], "overlap", "analysis.overlap")
    languages = unique(table, "language")
    grid = table.pivot(index="language", columns="other", values="jaccard").reindex(index=languages, columns=languages)
    sizes = table[table["language"] == table["other"]].set_index("language")["shared"]
    values = grid.to_numpy(float, copy=True)
    np.fill_diagonal(values, np.nan)
    top = max(float(np.nanmax(values)) if np.isfinite(values).any() else 0.0, 0.01)
    with house_style():
        if axes is None:
            axes = make_figure(min(1.8 + 0.95 * len(languages), WIDTH), 0.75 + 0.38 * len(languages)).subplots()
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("jaccard", ["#F3F7FB", "#7FB2D9", "#0B4A7F"])
        centres = np.arange(len(languages))  # a mesh, not an image: cells stay sharp at any size
        masked = np.ma.masked_invalid(values)
        look = {"vmin": 0, "vmax": top, "edgecolors": "white", "linewidth": 1.5}
        axes.pcolormesh(centres, centres, masked, cmap=shades.with_extremes(bad="#EDEDED"), **look)
        axes.invert_yaxis()
        size = 9 if len(languages) <= 12 else 6.5
        for row, column in np.ndindex(values.shape):
            value, dark = values[row, column], values[row, column] > 0.6 * top
            if row == column:
                text = f"{int(sizes[languages[row]]):,}" if languages[row] in sizes else "–"
            else:
                text = "–" if np.isnan(value) else f"{value:.2f}"
            colour = GREY if row == column else "white" if dark else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
        axes.set_xticks(range(len(languages)), languages)
        axes.set_yticks(range(len(languages)), [language_name(language) for language in languages])
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_title("Jaccard index (diagonal: number of neurons)", fontsize=9, fontweight="normal", color=GREY)
    return axes


def _tint(colour: str, strength: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(colour))
    return red, green, blue


def _count_handles() -> list[Any]:
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=GREY, label="attention (q, k, v, z)"),
        Patch(facecolor=_tint(GREY, 0.35), edgecolor=GREY, hatch="//////", label="FFN"),
    ]
