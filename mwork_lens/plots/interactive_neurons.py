"""The interactive figures of the neurons: how many each layer has, and which of them languages share."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd

from ..sites import ATTENTION_SITES
from ..stages import Stages
from .interactive import Figure, frame, known, label, legend, panels, stage_keys
from .parts import require_columns, unique
from .style import INK, language_colours, language_name

SHADES = ["#F3F7FB", "#7FB2D9", "#0B4A7F"]
"""Of the overlap, as in the static figure; they are the same on a dark page, and so is what is written on them."""
_ON_DARK, _ON_PALE = "#FFFFFE", "#222223"  # not in DARK


def counts_plot(table: pd.DataFrame, *, stages: Stages | None = None) -> Figure:
    """As `layer_counts`: neurons of each language per layer, attention below FFN.

    Args:
        table: Columns language, site, layer, count.
        stages: Shown as background, if given.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    require_columns(table, ["language", "site", "layer", "count"], "counts", "analysis.layer_counts")
    languages = unique(table, "language")
    colours = language_colours(languages)
    totals = table.groupby("language")["count"].sum()
    titles = [f"{language_name(x)}: {int(totals[x]):,} neurons" for x in languages]
    layout = panels(titles, "layer", "neurons", height=175, stages=stages, offset=-0.5)
    layout |= {"barmode": "stack", "bargap": 0.18}
    layout["yaxis"] |= {"rangemode": "tozero"}
    data: list[Figure] = []
    named: set[str] = set()
    attention = table["site"].isin(ATTENTION_SITES)
    for i, language in enumerate(languages):
        axis = "" if i == 0 else str(i + 1)
        for name, which in (("attention (q, k, v, z)", attention), ("FFN", ~attention)):
            part = table[which & (table["language"] == language)]
            per_layer = part.groupby("layer")["count"].sum().reindex(sorted({*table["layer"]}), fill_value=0)
            sites = part.pivot_table(
                index="layer", columns="site", values="count", aggfunc="sum", observed=True
            ).reindex(per_layer.index)
            hover = [
                f"<b>{label(language_name(language))}</b>, layer {layer}<br>{label(name)}: {int(count):,}"
                + "".join(
                    f"<br>{label(site)}: {int(n):,}"
                    for site, n in sites.loc[layer].dropna().items()
                    if len(sites.columns) > 1
                )
                for layer, count in per_layer.items()
            ]
            hatch = (
                {}
                if name != "FFN"
                else {"pattern": {"shape": "/", "solidity": 0.35, "fgcolor": colours[language], "bgcolor": "#FFFFFF"}}
            )
            colour = colours[language]
            data.append({
                **legend(name, named), "type": "bar", "x": [int(layer) for layer in per_layer.index],
                "y": [int(count) for count in per_layer],
                "xaxis": f"x{axis}", "yaxis": f"y{axis}", "marker": {"color": colour, "line": {"color": colour, "width": 1}, **hatch},
                "hoverinfo": "text", "hovertext": hover, "textposition": "none",
            })  # fmt: skip
    return {"data": [*data, *stage_keys(stages)], "layout": layout}


def overlap_plot(table: pd.DataFrame) -> Figure:
    """As `overlap_heatmap`: Jaccard overlap of each pair of languages; the diagonal says how many neurons each has.

    Args:
        table: Columns language, other, shared, jaccard; all ordered pairs, the diagonal included.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    require_columns(table, ["language", "other", "shared", "jaccard"], "overlap", "analysis.overlap")
    languages = unique(table, "language")
    names = [label(language_name(x)) for x in languages]
    cells = {(str(r["language"]), str(r["other"])): (r["jaccard"], r["shared"]) for _, r in table.iterrows()}
    values, texts, hover = [], [], []
    for a, first in zip(languages, names, strict=True):
        row = [cells.get((a, b), (np.nan, np.nan)) for b in languages]
        values.append(known([np.nan if a == b else jaccard for b, (jaccard, _) in zip(languages, row, strict=True)]))
        texts.append([
            (f"{int(shared):,}" if np.isfinite(shared) else "–") if a == b else f"{jaccard:.2f}" if np.isfinite(jaccard) else "–"
            for b, (jaccard, shared) in zip(languages, row, strict=True)
        ])  # fmt: skip
        hover.append([
            f"{first}: {shared:,.0f} neurons" if a == b else f"{first} and {other}<br>Jaccard {jaccard:.3f}, {shared:,.0f} shared"
            for b, other, (jaccard, shared) in zip(languages, names, row, strict=True)
        ])  # fmt: skip
    size = len(languages)
    layout = frame(min(120 + 44 * size, 900), left=120)
    layout["margin"] |= {"t": 36, "b": 40}
    look = {
        "tickvals": list(range(size)),
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
        "constrain": "domain",
        "tickfont": {"color": INK},
    }
    # given, as plotly makes no room for cells where none has a number
    layout["xaxis"] = {**look, "ticktext": [label(x) for x in languages], "range": [-0.5, size - 0.5]}
    layout["yaxis"] = {**look, "ticktext": names, "range": [size - 0.5, -0.5]}
    top = max((v for row in values for v in row if v is not None), default=0.0)
    for i, j in np.ndindex(size, size):
        value = values[i][j]
        ink = INK if value is None else _ON_DARK if value > 0.6 * top else _ON_PALE
        layout["annotations"].append({"text": texts[i][j], "x": j, "y": i, "showarrow": False, "font": {"color": ink}})
    trace = {"type": "heatmap", "z": values, "zmin": 0, "zmax": max(top, 0.01), "xgap": 2, "ygap": 2, "hoverinfo": "text", "hovertext": hover,
             "hoverongaps": False, "colorscale": [[i / 2, shade] for i, shade in enumerate(SHADES)],
             "colorbar": {"title": {"text": "Jaccard index", "side": "right"}, "thickness": 12, "outlinewidth": 0}}  # fmt: skip
    return {"data": [trace], "layout": layout}
