"""Peaks of pivots against the shares of the dominant language: the statistics and the figure of the dominance series.

peak        of a pivot language in a run: the largest, over the layers between the first and the last, of the mean probability of the pivot's words
            at the start of the answer to knowledge questions in the other languages (facts that training stated in the question's language)
no pivot    runs with equal shares have none: their point is the mean of the four languages' peaks
test        Spearman's rank correlation of share and peak over runs, with a permutation test; the dominant pivot's peak less the mean of the
            other languages' peaks in the same run, with a t interval over runs
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from miniworld.clones import LANGUAGES

RUN = ["run", "share", "dominant", "seed", "planted"]
SHARED = "shared"


def peaks(lens: pd.DataFrame) -> pd.DataFrame:
    """Per run, pivot and quantity: the largest mean over questions in other languages, in the layers between the embedding and the output."""
    inner = lens[
        (lens["layer"] > 0)
        & (lens["layer"] < lens["layer"].max())
        & (lens["words"] != SHARED)
        & (lens["words"] != lens["language"])
    ]
    rows = []
    for keys, table in inner.groupby([*RUN, "words"]):
        for quantity in ("mass", "counterpart"):
            by_layer = table.groupby("layer")[quantity].mean()
            rows.append((*keys, quantity, by_layer.max(), by_layer.idxmax()))
    return pd.DataFrame(rows, columns=[*RUN, "pivot", "quantity", "peak", "layer"])


def statistics(table: pd.DataFrame, *, draws: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Peaks against shares, of runs that are not planted.

    Args:
        table: From `peaks`.
        draws: Permutations.
        seed: Of the permutations.

    Raises:
        ValueError: There is no run.
    """
    from scipy.stats import rankdata, spearmanr

    table = table[~table["planted"].astype(bool)]
    if table.empty:
        raise ValueError("no finished run without planted units: run `series` first")
    found: dict[str, Any] = {}
    for quantity, part in table.groupby("quantity"):
        equal = part["share"].sub(1 / len(LANGUAGES)).abs() < 1e-9
        mine = part[equal | (part["pivot"] == part["dominant"])]
        points = mine.groupby(["run", "share", "dominant"])["peak"].mean().reset_index()
        others = part[~equal & (part["pivot"] != part["dominant"])].groupby("run")["peak"].mean()
        lead = (points.set_index("run")["peak"] - others).dropna()
        made: dict[str, Any] = {
            "points": points.round(4).to_dict("records"),
            "by_share": {str(share): interval(rows["peak"]) for share, rows in points.groupby("share")},
            "by_share_and_dominant": {f"{s} {d}": interval(rows["peak"]) for (s, d), rows in points.groupby(["share", "dominant"])},
            "lead_over_other_pivots": interval(lead) | {"positive": int((lead > 0).sum())},
        }  # fmt: skip
        if points["share"].nunique() > 1 and points["peak"].nunique() > 1:
            rho = float(spearmanr(points["share"], points["peak"]).statistic)
            chance = np.random.default_rng(seed)
            share, peak = rankdata(points["share"]), rankdata(points["peak"])
            drawn = [np.corrcoef(chance.permutation(share), peak)[0, 1] for _ in range(draws)]
            p = (1 + sum(abs(value) >= abs(rho) - 1e-12 for value in drawn)) / (1 + draws)
            made["spearman"] = {"rho": round(rho, 4), "p": p, "runs": len(points)}
        found[str(quantity)] = made
    return found


def interval(values: Any) -> dict[str, Any]:
    """Mean and 95 % t interval over runs; no interval for one run."""
    from scipy.stats import t

    x = np.asarray(values, float)
    if len(x) < 2:
        return {"mean": round(float(x.mean()), 4) if len(x) else None, "low": None, "high": None, "runs": len(x)}
    half = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)
    return {
        "mean": round(float(x.mean()), 4),
        "low": round(x.mean() - half, 4),
        "high": round(x.mean() + half, 4),
        "runs": len(x),
    }


def draw_figure(lens: pd.DataFrame, found: Mapping[str, Any], path: Path) -> None:
    """Per share, the mass on the dominant, the question's own and the other languages by layer (a thin line a run); peaks against shares."""
    from mwork_lens.plots.style import house_style, make_figure, write_svg

    questions = lens[(lens["language"] != lens["dominant"]) & (lens["words"] != SHARED)]
    role = np.where(
        questions["words"] == questions["dominant"],
        "dominant",
        np.where(questions["words"] == questions["language"], "own", "other"),
    )
    curves = questions.assign(role=role).groupby(["share", "run", "role", "layer"])["mass"].mean().reset_index()
    shares, colours = sorted(curves["share"].unique()), {"dominant": "#B5473C", "own": "#2F6F9F", "other": "#8A8A8A"}
    with house_style():
        drawn = make_figure(2.3 * (len(shares) + 1), 2.6)
        axes = drawn.subplots(1, len(shares) + 1)
        for axis, share in zip(axes, shares, strict=False):
            for name, colour in colours.items():
                part = curves[(curves["share"] == share) & (curves["role"] == name)]
                for _, one in part.groupby("run"):
                    axis.plot(one["layer"], one["mass"], color=colour, linewidth=0.6, alpha=0.4)
                mean = part.groupby("layer")["mass"].mean()
                axis.plot(mean.index, mean, color=colour, label=name)
            axis.set_ylim(0, 1)
            axis.set_title("equal shares" if abs(share - 0.25) < 1e-9 else f"dominant at {share:.0%}", fontsize=9)
            axis.set_xlabel("layer")
        axes[0].set_ylabel("probability of the language's words")
        axes[0].legend(fontsize=7)
        for point in found["points"]:
            x = point["share"] + (0.012 if point["dominant"] != "A" else -0.012)
            axes[-1].plot(x, point["peak"], "o", markersize=3, color=colours["dominant"], alpha=0.6)
        for share, value in found["by_share"].items():
            if value["low"] is not None:
                half = value["high"] - value["mean"]
                axes[-1].errorbar(float(share), value["mean"], half, fmt="_", color="black", capsize=3)
        axes[-1].set_xlabel("share of the dominant language")
        axes[-1].set_title("peak of its mass, inner layers", fontsize=9)
        write_svg(drawn, path)
