"""The figures of a study to hover over, zoom and filter: plain plotly dictionaries, beside the static ones and saying the same.

A figure is `{"data": [...], "layout": {...}}`, ready for `Plotly.newPlot`; the page inlines plotly's script once (`bundle`). Colours are those of
the static figures, intervals are drawn, what is not known is left out. Plotly reads some HTML tags in labels, so every name from data is escaped
before it becomes one. `DARK` says which colour stands for which on a dark page.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import html
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..languages import SHARED
from ..stages import Stages
from .parts import require_columns, unique
from .style import ENGLISH, GREY, INK, PALE, language_colours, language_name, stage_name

Figure = dict[str, Any]

TINTS = {"understanding": "#E4EEF7", "task_solving": "#FFFFFF", "generation": "#FBEEDD"}
EDGE = "#C4C4C4"
DARK = {
    INK: "#E6E8EB", GREY: "#A2A9B1", PALE: "#3A4149", EDGE: "#4B535C", "#FFFFFF": "#1E2329", "#E4EEF7": "#22313F", "#FBEEDD": "#382E22",
    "#CFCFCF": "#4F5760", "#0072B2": "#4DA9E0", "#8A6D00": "#D6B13B", "#5D3A9B": "#B79BE8", "#8C564B": "#C99A90", "#1B7F9C": "#4FB3CF",
    "#009E73": "#19B98B", "#D55E00": "#E8792A", "#A8A03A": "#C2BA55",
}  # fmt: skip
"""Light colour -> the one that stands for it on a dark page."""

_OWN = "the text's own language"


def bundle() -> str:
    """Plotly's script, safe inside a `<script>` element."""
    from plotly.offline import get_plotlyjs

    text = get_plotlyjs().replace("\r\n", "\n")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def label(text: Any) -> str:
    """A name from data as plotly shows it: no tag is read in it."""
    return html.escape(str(text), quote=False)


def known(values: Any, digits: int = 5) -> list[float | None]:
    """Numbers fit for JSON: rounded, None where there is none."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in np.asarray(values, float)]


def panels(names: list[str], x: str, y: str, *, height: int, stages: Stages | None, offset: float) -> Figure:
    """The layout of small multiples: titles, shared axes, stages behind them, in rows of three (four if there are many).

    Args:
        names: A title per panel.
        x: What the horizontal axes show.
        y: What the vertical axes show.
        height: Pixels of a panel.
        stages: Shown as background, if given.
        offset: Where layer 0 begins.
    """
    columns = min(len(names), 3 if len(names) <= 9 else 4)
    rows = -(-len(names) // columns)
    total = rows * height + 132
    gap = 46 / total  # room for a title and numbers
    layout: Figure = frame(total, left=62)
    for i, name in enumerate(names):
        row, column = divmod(i, columns)
        width = (1 - 0.035 * (columns - 1)) / columns
        left = column * (width + 0.035)
        tall = (1 - gap * (rows - 1)) / rows
        top = 1 - row * (tall + gap)
        mark = "" if i == 0 else str(i + 1)
        last = i + columns >= len(names)
        shared = {} if i == 0 else {"matches": "x"}
        look = {"gridcolor": PALE, "linecolor": EDGE, "zeroline": False, "tickfont": {"color": INK}}
        layout[f"xaxis{mark}"] = {**look, **shared, "domain": [left, left + width], "anchor": f"y{mark}", "showgrid": False,
                                  "showticklabels": last, "tickformat": "d", "nticks": 9}  # fmt: skip
        layout[f"yaxis{mark}"] = {**look, **({} if i == 0 else {"matches": "y"}), "domain": [max(top - tall, 0), top], "anchor": f"x{mark}",
                                  "showticklabels": column == 0, "nticks": 6}  # fmt: skip
        layout["annotations"].append(
            note(f"<b>{label(name)}</b>", float(left), float(top), xanchor="left", yanchor="bottom", yshift=2)
        )
        for stage, layers in stages.items() if stages is not None else ():
            layout["shapes"].append(
                {"type": "rect", "xref": f"x{mark}", "yref": f"y{mark} domain", "x0": layers.start + offset, "x1": layers.stop + offset,
                 "y0": 0, "y1": 1, "fillcolor": TINTS[stage], "line": {"width": 0}, "layer": "below"}
            )  # fmt: skip
    layout["annotations"].append(note(label(x), 0.5, 0.0, yanchor="top", yshift=-24))
    layout["annotations"].append(note(label(y), 0.0, 0.5, textangle=-90, xanchor="right", xshift=-38))
    return layout


def frame(height: int, *, left: int) -> Figure:
    """The layout that all figures share."""
    return {
        "height": height, "autosize": True, "margin": {"l": left, "r": 14, "t": 78, "b": 54}, "paper_bgcolor": "#FFFFFF", "plot_bgcolor": "#FFFFFF",
        "font": {"family": "system-ui, 'Segoe UI', Roboto, 'Noto Sans', Arial, sans-serif", "size": 12, "color": INK}, "hovermode": "closest",
        "hoverlabel": {"bgcolor": "#FFFFFF", "bordercolor": EDGE, "font": {"color": INK}},
        "legend": {"orientation": "h", "x": 0, "y": round(1 - 26 / height, 4), "yref": "container", "xanchor": "left", "yanchor": "top"},
        "annotations": [], "shapes": [],
    }  # fmt: skip


def note(text: str, x: float, y: float, **look: Any) -> Figure:
    """Text at a place of the paper; `text` is plotly's, so names in it are escaped already."""
    return {"text": text, "x": x, "y": y, "xref": "paper", "yref": "paper", "showarrow": False, **look}


def lens_plot(
    table: pd.DataFrame, value: Literal["share", "mass"] = "share", *, stages: Stages | None = None
) -> Figure:
    """As `lens_curves`: which language each layer speaks, with 95% bands.

    Args:
        table: What `layer_languages` returns.
        value: `"share"` among the top-k tokens that have a language, or probability `"mass"`.
        stages: Shown as background, if given.

    Raises:
        ValueError: `value` is neither; the table is empty or lacks a column.
    """
    if value not in ("share", "mass"):
        raise ValueError(f"value={value!r}: a lens curve shows 'share' or 'mass'")
    columns = ["text_language", "token_language", "layer", value, f"{value}_low", f"{value}_high"]
    require_columns(table, [*columns, *(["coverage"] if value == "share" else [])], "lens", "layer_languages")
    languages = unique(table, "text_language")
    colours = language_colours(languages)
    of = "share of the top tokens that have a language" if value == "share" else "probability"
    layout = panels(
        [language_name(x) for x in languages],
        "layer (0 = embeddings, last = output)",
        of,
        height=200,
        stages=stages,
        offset=0.0,
    )
    for i in range(len(languages)):
        layout[f"yaxis{i + 1 if i else ''}"] |= {"range": [0, 1.02], "tickformat": ".0%"}
    data: list[Figure] = []
    named: set[str] = set()
    for i, language in enumerate(languages):
        part = table[table["text_language"] == language]
        axis = "" if i == 0 else str(i + 1)
        place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
        if value == "share":
            coverage = part.groupby("layer", as_index=False)["coverage"].first().sort_values("layer")
            data.append({
                **place, **legend("coverage", named), "type": "scatter", "mode": "lines", "x": coverage["layer"].tolist(),
                "y": known(coverage["coverage"]),
                "line": {"color": GREY, "width": 1.3, "dash": "dot"}, "hoverinfo": "skip",
            })  # fmt: skip
        lines = [(ENGLISH, INK, "English")] if language != ENGLISH else []
        lines += [(SHARED, GREY, "shared by several")] if value == "mass" else []
        for token, colour, name in [*lines, (language, colours[language], _OWN)]:
            one = part[part["token_language"] == token].sort_values("layer")
            if len(one):
                data += [{**trace, **place} for trace in _curve(one, value, colour, name, language, named)]
    if languages == [ENGLISH]:
        next(trace for trace in data if trace.get("name") == _OWN)["showlegend"] = True
    return {"data": [*data, *stage_keys(stages)], "layout": layout}


def stage_keys(stages: Stages | None) -> list[Figure]:
    """What the legend says about the background."""
    look = {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "hoverinfo": "skip"}
    square = {"symbol": "square", "size": 12, "line": {"color": EDGE, "width": 1}}
    names = [name for name, _ in stages.items()] if stages is not None else []
    return [{**look, "name": stage_name(name), "marker": {**square, "color": TINTS[name]}} for name in names]


def legend(name: str, named: set[str], *, wanted: bool = True) -> Figure:
    """A name in the legend, once, if it is `wanted`; a click there hides it in all panels."""
    first = wanted and name not in named
    if wanted:
        named.add(name)
    return {"name": label(name), "legendgroup": name, "showlegend": first}


def _curve(one: pd.DataFrame, value: str, colour: str, name: str, language: str, named: set[str]) -> list[Figure]:
    """Band, line, and bars for points between two gaps."""
    x, y, low, high = (one[column].to_numpy(float) for column in ("layer", value, f"{value}_low", f"{value}_high"))
    there = np.isfinite(y) & np.isfinite(low) & np.isfinite(high)
    runs = [run for run in np.split(np.arange(len(x)), np.flatnonzero(~there)) if there[run].any()]
    runs = [run[there[run]] for run in runs]
    edge_x: list[Any] = []
    edge_y: list[Any] = []
    for run in runs:
        edge_x += [*known(x[run]), *known(x[run][::-1]), None]
        edge_y += [*known(low[run]), *known(high[run][::-1]), None]
    hover = [
        f"<b>{label(name)}</b>, text in {label(language_name(language))}<br>layer {int(layer)}: {a:.1%} [{b:.1%}, {c:.1%}]"
        if ok else ""
        for layer, a, b, c, ok in zip(x, y, low, high, there, strict=True)
    ]  # fmt: skip
    group = {"legendgroup": name, "showlegend": False, "hoverinfo": "skip", "type": "scatter", "mode": "lines"}
    band = {
        **group,
        "x": edge_x[:-1],
        "y": edge_y[:-1],
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.2,
        "line": {"width": 0, "color": colour},
    }
    line = {
        **legend(name, named, wanted=(name, language) != (_OWN, ENGLISH)),
        "type": "scatter", "mode": "lines+markers", "x": known(x), "y": known(y), "connectgaps": False,
        "line": {"color": colour, "width": 2, "dash": "dash" if name == "shared by several" else "solid"}, "marker": {"color": colour, "size": 5},
        "hoverinfo": "text", "hovertext": hover, "cliponaxis": False,
    }  # fmt: skip
    alone = [int(run[0]) for run in runs if len(run) == 1]
    bars_x = [v for i in alone for v in (x[i], x[i], None)]
    bars_y = [v for i in alone for v in (*known([low[i], high[i]]), None)]
    bars = {**group, "x": bars_x[:-1], "y": bars_y[:-1], "line": {"color": colour, "width": 1.2}}
    return [*([band] if runs else []), line, *([bars] if alone else [])]
