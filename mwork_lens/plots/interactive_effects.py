"""The interactive figure of the interventions: what breaks when neurons are switched off."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from typing import Any

import numpy as np
import pandas as pd

from ..stages import Stages
from ..written import interval, number, written_p
from .effects import OTHER, OWN
from .interactive import Figure, frame, known, label, note
from .parts import require_columns
from .style import GREY, INK, PALE, layers_name, stage_name

_LANES = {"non_eng": (-0.19, "the language"), "eng": (0.19, "English")}
_NAMES = {"own": "own neurons off", "other": "another language's neurons off", "random": "random neurons off"}


def deltas_plot(summary: pd.DataFrame, *, stages: Stages | None = None) -> Figure:
    """As `deltas`: change of log-likelihood by stage and structure, with 95% intervals, on the range of the random controls.

    Args:
        summary: Columns stage, structure, neurons, eng, non_eng, with `_low` and `_high`, and delta, p_delta.
        stages: Layers are named beside the stages, if given.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    measured = [f"{lane}{end}" for lane in _LANES for end in ("", "_low", "_high")]
    require_columns(summary, ["stage", "structure", "neurons", *measured, "delta", "p_delta"], "summary", "summarise")
    places, heads, bottom = _places(summary)
    layout = frame(170 + int(34 * bottom), left=86)
    layout["margin"] |= {"t": 116, "r": 110}
    for (stage, structure), y in places.items():
        own = summary[(summary["stage"] == stage) & (summary["structure"] == structure) & (summary["neurons"] == "own")]
        delta, p = (float(own[c].iloc[0]) if len(own) else np.nan for c in ("delta", "p_delta"))
        beside = {"yref": "y", "xanchor": "left", "font": {"color": INK}}
        layout["annotations"].append(note(number(delta, signed=True), 1.0, y, xshift=12, **beside))
        layout["annotations"].append(note(written_p(p), 1.0, y, xshift=70, **beside))
    for text, shift in (("Δ own", 12), ("p", 70)):
        layout["annotations"].append(note(text, 1.0, -0.1, yref="y", xanchor="left", xshift=shift, font={"color": INK}))
    for stage, y in heads.items():
        layers = getattr(stages, stage, None) if stages is not None else None
        name = f"{stage_name(stage)}, {layers_name(layers)}" if layers else stage_name(stage)
        layout["annotations"].append(note(f"<b>{label(name)}</b>", 0.0, y, yref="y", xanchor="left", xshift=-78))
    names = ["FFN" if structure == "ffn" else label(structure) for _, structure in places]
    layout["yaxis"] = {"tickvals": list(places.values()), "ticktext": names, "range": [bottom - 0.35, -0.55], "showgrid": False,
                       "zeroline": False, "fixedrange": True, "tickfont": {"color": INK}}  # fmt: skip
    layout["xaxis"] = {"title": {"text": "change of log-likelihood, nats per token (left of 0 = harm)"}, "gridcolor": PALE, "zeroline": True,
                       "zerolinecolor": INK, "zerolinewidth": 1, "tickfont": {"color": INK}}  # fmt: skip
    if not np.isfinite(
        summary[list(_LANES)].to_numpy(float)
    ).any():  # plotly's own range for nothing lies aside of zero
        layout["xaxis"] |= {"range": [-1, 1]}
        layout["annotations"].append(note("nothing to switch off", 0.5, 0.5, font={"color": GREY}))
    return {"data": list(_traces(summary, places)), "layout": layout}


def _places(summary: pd.DataFrame) -> tuple[dict[tuple[str, str], float], dict[str, float], float]:
    """Where each row and each heading stands, and where the figure ends; as in the static figure."""
    places: dict[tuple[str, str], float] = {}
    heads: dict[str, float] = {}
    at = 0.0
    for stage, structure in summary[["stage", "structure"]].drop_duplicates().itertuples(index=False):
        if stage not in heads:
            at += 0.35 if heads else 0.0
            heads[stage] = at
            at += 0.8
        places[stage, structure] = round(at, 3)
        at += 1.0
    return places, heads, at


def _traces(summary: pd.DataFrame, places: dict[tuple[str, str], float]) -> Any:
    """Random ranges first, so that points lie above them; a trace per condition and lane, to be switched in the legend."""
    for neurons in ("random", "other", "own"):
        for lane, (offset, who) in _LANES.items():
            rows = summary[(summary["neurons"] == neurons) & np.isfinite(summary[lane].to_numpy(float))]
            y = [round(places[r["stage"], r["structure"]] + offset, 3) for _, r in rows.iterrows()]
            values, low, high = (known(rows[f"{lane}{end}"]) for end in ("", "_low", "_high"))
            name = f"{_NAMES[neurons]}: {who}"
            span = "range of the draws" if neurons == "random" else "95% interval"
            hover = [
                f"<b>{name}</b><br>{label(stage_name(r['stage']))}, {label(r['structure'])}: {number(r[lane], signed=True)}"
                f"<br>{span} {interval(r[f'{lane}_low'], r[f'{lane}_high'])}"
                for _, r in rows.iterrows()
            ]
            base = {"type": "scatter", "name": name, "hoverinfo": "text", "legendgroup": name}
            if neurons == "random":
                between = [v for a, b in zip(low, high, strict=True) for v in (a, b, None)]
                twice = [v for at in y for v in (at, at, None)]
                yield {**base, "mode": "lines", "x": between[:-1], "y": twice[:-1], "line": {"color": "#CFCFCF", "width": 10}, "hoverinfo": "skip",
                       "showlegend": False}  # fmt: skip
                yield {**base, "mode": "markers", "x": values, "y": y, "hovertext": hover,
                       "marker": {"symbol": "line-ns", "size": 10, "color": GREY, "line": {"color": GREY, "width": 2}}}  # fmt: skip
                continue
            colour = OWN if neurons == "own" else OTHER
            arms = {"type": "data", "symmetric": False, "color": colour, "thickness": 1.6, "width": 3,
                    "array": known(rows[f"{lane}_high"] - rows[lane]), "arrayminus": known(rows[lane] - rows[f"{lane}_low"])}  # fmt: skip
            inside = colour if lane == "non_eng" else "#FFFFFF"
            shape = {
                "symbol": "circle" if neurons == "own" else "diamond",
                "size": 9 if neurons == "own" else 8,
                "color": inside,
            }
            yield {**base, "mode": "markers", "x": values, "y": y, "hovertext": hover, "error_x": arms,
                   "marker": {**shape, "line": {"color": colour, "width": 2}}}  # fmt: skip
