"""The figure of the lens: which language each layer speaks."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ..languages import SHARED
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
from .style import ENGLISH, GREY, INK, PALE, house_style, language_colours, language_name

if TYPE_CHECKING:
    import matplotlib.axes


def lens_curves(
    table: pd.DataFrame,
    value: Literal["share", "mass"] = "share",
    *,
    stages: Stages | None = None,
    axes: "Sequence[matplotlib.axes.Axes] | None" = None,
) -> "list[matplotlib.axes.Axes]":
    """Which language each layer speaks: one panel per language of the text.

    Lines, with 95% bands: the text's own language, English and, for `"mass"`, tokens that several languages share. For `"share"`, a dotted
    line says which part of the top-k tokens the share speaks about (`coverage`); layers where that is nothing leave a gap.

    Args:
        table: What `layer_languages` returns.
        value: `"share"` among the top-k tokens that have a language, or probability `"mass"` over the whole vocabulary.
        stages: Shown as background, if given.
        axes: One per language of the text, in the order of the table; made if absent.

    Raises:
        ValueError: `value` is neither; the table is empty or lacks a column; too few axes.
    """
    if value not in ("share", "mass"):
        raise ValueError(f"value={value!r}: a lens curve shows 'share' or 'mass'")
    columns = ["text_language", "token_language", "layer", value, f"{value}_low", f"{value}_high"]
    require_columns(table, [*columns, *(["coverage"] if value == "share" else [])], "lens", "layer_languages")
    languages = unique(table, "text_language")
    colours = language_colours(languages)
    with house_style():
        panels = make_panels(axes, len(languages), height=1.95)
        for panel, language in zip(panels, languages, strict=True):
            part = table[table["text_language"] == language]
            shade_stages(panel, stages, offset=0.0)
            if value == "share":
                coverage = part.groupby("layer")["coverage"].first().sort_index()
                panel.plot(
                    coverage.index, coverage, color=GREY, linewidth=1.1, linestyle=":", label="coverage", zorder=2
                )
            lines = [(ENGLISH, INK, "English")] if language != ENGLISH else []
            lines += [(SHARED, GREY, "shared by several languages")] if value == "mass" else []
            for token, colour, label in [*lines, (language, colours[language], "own language")]:
                one = part[part["token_language"] == token].sort_values("layer")
                if len(one):  # a study without English has no English line
                    _curve(panel, one, value, colour, label, dashed=token == SHARED)
            layers = sorted({*part["layer"]})
            panel.set_xlim(layers[0], max(layers[-1], layers[0] + 1))
            panel.set_ylim(0, 1.02)
            panel.set_title(language_name(language), color=colours[language])
            _percent(panel)
            whole_numbers(panel)
        of = "share of the top-k tokens that have a language" if value == "share" else "probability"
        label_axes(panels, "layer (0 = embeddings, last = output)", of, own=axes is None)
        add_legend(panels, [*_lens_handles(value, list(colours.values())), *stage_handles(stages)], own=axes is None)
    return panels


def _curve(panel: Any, one: pd.DataFrame, value: str, colour: str, label: str, *, dashed: bool) -> None:
    x, y, low, high = (one[column].to_numpy(float) for column in ("layer", value, f"{value}_low", f"{value}_high"))
    panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, zorder=3)
    size = 3.4 if len(x) <= 34 else 1.6
    panel.plot(
        x,
        y,
        color=colour,
        label=label,
        linestyle="--" if dashed else "-",
        marker="o",
        markersize=size,
        clip_on=False,
        zorder=4,
    )
    # a point between two gaps has no line and no band: its interval is drawn as a bar
    known = np.isfinite(np.concatenate([[np.nan], y, [np.nan]]))
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    panel.vlines(x[alone], low[alone], high[alone], color=colour, linewidth=1, zorder=3)


def _percent(panel: Any) -> None:
    from matplotlib.ticker import FixedLocator, PercentFormatter

    panel.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.grid(axis="y", color=PALE, linewidth=0.6)


def _lens_handles(value: str, colours: list[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    shown = [colour for colour in colours if colour != INK][:3] or [INK]
    own = tuple(Line2D([], [], color=colour, label="the text's own language") for colour in shown)
    handles: list[Any] = [own, Line2D([], [], color=INK, marker="o", markersize=3.4, label="English")]
    if value == "mass":
        handles.append(
            Line2D([], [], color=GREY, linestyle="--", marker="o", markersize=3.4, label="shared by several")
        )
    else:
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1.1, label="coverage"))
    return handles
