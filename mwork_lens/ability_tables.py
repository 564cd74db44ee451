"""The MWork tables from the scores of `ability_scores`: changes, intervals, chance, corrections, effect sizes. Pure functions.

    d_non_eng = mean over targets t of [score of t after - before],   d_eng the same of English,   delta = d_eng - d_non_eng

    p       exact and one-sided, of the mean over targets among the draws: harm to the languages (p_non_eng), harm beyond English (p_delta);
            never below 1 / (draws + 1), so that 20 draws cannot reach 0.05 after Holm's correction of two rows
    fisher  targets draw independently, so their own exact p-values combine (Fisher 1932; conservative, as they are discrete)
    holm, bh  corrected over the rows of one task (Holm 1979: any dependence; Benjamini and Hochberg 1995)
    z       standardised difference: (specific - mean of the draws) / standard deviation of the draws
    h       Cohen's h, 2 asin(sqrt(after)) - 2 asin(sqrt(before)), where the score is a proportion (accuracy, exact, number, fidelity)

Intervals are 95 % percentile bootstraps over items, drawn jointly for all languages and both conditions (`tasks.tables.ability_delta`); they say
how far other items could differ, the draws how far other neurons could.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import combine_pvalues, false_discovery_control

from .abilities import CONDITION, SCORES
from .detect.chance import p_value
from .evaluate import RESAMPLES
from .grid import ENGLISH
from .tasks.tables import ability_delta

CHANGES = ("task", "ability", "metric", *CONDITION, "d_eng", "d_own", "delta")
"""Columns of `ability_changes`: one row a condition."""
PROPORTIONS = ("accuracy", "exact", "number", "fidelity")
_TESTS = {"non_eng": False, "delta": True}  # which is larger when it is more extreme
GRID = (
    "task", "ability", "metric", "row", "neurons", "count", "targets", "draws", "eng_before", "non_eng_before", "eng", "non_eng",
    *(f"{name}{edge}" for name in ("d_eng", "d_non_eng", "delta") for edge in ("", "_low", "_high")),
    *(f"{kind}_{name}" for name in _TESTS for kind in ("p", "holm", "bh", "fisher", "fisher_holm", "z")), "h_eng", "h_non_eng",
)  # fmt: skip
"""Columns of `ability_grid`: one row a task, row of the table and kind of neurons."""


def ability_changes(scores: pd.DataFrame, *, score: str = "score") -> pd.DataFrame:
    """Changes of every target under every condition: what the tables are means of.

    Args:
        scores: From `ability_scores`.
        score: Which column is the score.

    Returns:
        Columns `CHANGES`: mean change of English, of the target, and their difference; below zero is harm, nan where nothing was switched off.

    Raises:
        ValueError: A column is missing, there is no baseline, or a condition holds other items than it.
    """
    if missing := [name for name in (*SCORES, score) if name not in scores]:
        raise ValueError(f"the scores lack {missing[0]!r}: give them as `ability_scores` makes them")
    none = scores["neurons"] == "none"
    if not none.any() or none.all():
        raise ValueError("changes need the baseline (neurons 'none') and a condition: give the whole table")
    item = ["task", "language", "item"]
    before = scores[none].set_index(item)[score]
    table = scores[~none]
    known = before.reindex(pd.MultiIndex.from_frame(table[item]))
    if (lost := known.isna().to_numpy() & table[score].notna().to_numpy()).any():
        row = table[lost].iloc[0]
        raise ValueError(f"the baseline has no score of item {row['item']!r} of {row['task']!r} in {row['language']!r}")
    _require_all(scores[none], table)
    table = table.assign(change=table[score].to_numpy(float) - known.to_numpy(float))
    keys = ["task", "ability", "metric", *CONDITION]
    means = table.assign(side=np.where(table["language"] == ENGLISH, "d_eng", "d_own"))
    wide = means.groupby([*keys, "side"], sort=False)["change"].apply(lambda x: x.mean(skipna=False)).unstack("side")
    found = wide.reset_index().rename_axis(columns=None)
    return found.assign(delta=found["d_eng"] - found["d_own"])[list(CHANGES)]


def _require_all(before: pd.DataFrame, table: pd.DataFrame) -> None:
    """Refuse a condition that lacks items of the baseline, of English or its target."""
    asked = {key: set(part) for key, part in before.groupby(["task", "language"], sort=False)["item"]}
    held = {key: set(part) for key, part in table.groupby(["task", *CONDITION, "language"], sort=False)["item"]}
    for task, *condition in dict.fromkeys(key[:-1] for key in held):
        for language in (ENGLISH, condition[0]):
            lost = asked.get((task, language), set()) - held.get((task, *condition, language), set())
            if lost:
                named = ", ".join(f"{name} {value}" for name, value in zip(CONDITION, condition, strict=True))
                raise ValueError(f"a condition has no score of item {min(lost)!r} of {task!r} in {language!r}: {named}")


def ability_grid(
    scores: pd.DataFrame, *, score: str = "score", resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """The table of every task: each row with its specific, other and random neurons.

    Args:
        scores: From `ability_scores`.
        score: Which column is the score.
        resamples: Of the bootstrap over items.
        seed: Of the bootstrap.

    Returns:
        Columns `GRID`. `eng` and `non_eng` are the scores after, `count` the mean number of neurons, `targets` the languages that have some (the
        others do not enter the means). Of random rows, a change is the mean over draws, its edges are the smallest and largest draw. Tests and
        effect sizes stand in the specific rows; they are nan where a row has no neurons, and z where draws do not differ.

    Raises:
        ValueError: As in `ability_changes`; a score is nan in the baseline.
    """
    changes = ability_changes(scores, score=score)
    baseline = scores[scores["neurons"] == "none"]
    rows = []
    for (task, row), cell in changes.groupby(["task", "row"], sort=False):
        before = baseline[baseline["task"] == task]
        mine = scores[(scores["task"] == task) & (scores["row"] == row)]
        cell = cell.dropna(subset=["delta"]) if cell["delta"].notna().any() else cell
        drawn = cell[cell["neurons"] == "random"].groupby("draw")[["d_eng", "d_own", "delta"]].mean()
        drawn = drawn.rename(columns={"d_own": "d_non_eng"})
        for kind in cell["neurons"].unique():
            part = cell[cell["neurons"] == kind]
            found: dict[str, Any] = {
                name: part[name].iloc[0] for name in ("task", "ability", "metric", "row", "neurons")
            }
            targets = list(part["target"].unique())
            means = before.groupby("language")[score].mean()
            found |= {"count": part["count"].mean(), "targets": len(targets), "draws": len(drawn)}
            found |= {"eng_before": means[ENGLISH], "non_eng_before": means[targets].mean()}
            if part["delta"].isna().all():
                found |= {"targets": 0}
            elif kind == "random":
                for name in drawn:
                    found |= {
                        name: drawn[name].mean(),
                        f"{name}_low": drawn[name].min(),
                        f"{name}_high": drawn[name].max(),
                    }
            else:
                asked = before[before["language"].isin([ENGLISH, *targets])]
                found |= _intervals(mine[mine["neurons"] == kind], asked, targets, score, resamples, seed)
            if kind == "specific" and len(drawn) and found["targets"]:
                found |= _against(drawn, cell)
            rows.append(found)
    table = pd.DataFrame(rows).reindex(columns=list(GRID))
    table["eng"] = table["eng_before"] + table["d_eng"]
    table["non_eng"] = table["non_eng_before"] + table["d_non_eng"]
    for side in ("eng", "non_eng"):
        known = (
            table["metric"].isin(PROPORTIONS)
            & (table["neurons"] == "specific")
            & table[side].notna()
            & (score == "score")
        )
        for i in table.index[known]:
            table.loc[i, f"h_{side}"] = cohen_h(float(table.loc[i, side]), float(table.loc[i, f"{side}_before"]))
    return _corrected(table)


def _intervals(
    part: pd.DataFrame, before: pd.DataFrame, targets: list[str], score: str, resamples: int, seed: int
) -> dict[str, float]:
    """The three changes with their edges; English is the mean over targets, item by item."""
    keep = ["task", "language", "item"]
    after = (
        part[part["target"].isin(targets)]
        .groupby(keep, sort=False)[score]
        .mean()
        .reset_index()
        .assign(condition="after")
    )
    row = ability_delta(
        after,
        before.assign(condition="before"),
        english=ENGLISH,
        languages=targets,
        score=score,
        resamples=resamples,
        seed=seed,
    ).iloc[0]
    names = {"d_eng": "d_english", "d_non_eng": "d_others", "delta": "delta"}
    return {f"{ours}{edge}": row[f"{theirs}{edge}"] for ours, theirs in names.items() for edge in ("", "_low", "_high")}


def _against(drawn: pd.DataFrame, cell: pd.DataFrame) -> dict[str, float]:
    """p, fisher and z of the specific neurons against the draws; `cell` holds every target. Ties are ties beyond rounding (12 digits)."""
    tests: dict[str, float] = {}
    specific, random = cell[cell["neurons"] == "specific"], cell[cell["neurons"] == "random"]
    for name, larger in _TESTS.items():
        column = "d_own" if name == "non_eng" else name
        values = drawn["d_non_eng" if name == "non_eng" else name].round(12)
        value = round(float(specific[column].mean()), 12)
        tests[f"p_{name}"] = p_value(value, values.tolist(), larger=larger)
        spread = values.std(ddof=1)
        tests[f"z_{name}"] = (value - values.mean()) / spread if spread > 0 else np.nan
        each = []
        for target, one in specific.groupby("target", sort=False):
            chance = random.loc[random["target"] == target, column].round(12).tolist()
            each.append(p_value(round(float(one[column].iloc[0]), 12), chance, larger=larger))
        tests[f"fisher_{name}"] = float(combine_pvalues(each, method="fisher").pvalue)
    return tests


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Holm and Benjamini-Hochberg over the rows of each task."""
    for name in _TESTS:
        for _, part in table[table[f"p_{name}"].notna()].groupby("task", sort=False):
            table.loc[part.index, f"holm_{name}"] = holm(part[f"p_{name}"].to_numpy(float))
            table.loc[part.index, f"bh_{name}"] = false_discovery_control(part[f"p_{name}"])
            table.loc[part.index, f"fisher_holm_{name}"] = holm(part[f"fisher_{name}"].to_numpy(float))
    return table


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction: adjusted p-values, in the order given."""
    values = np.asarray(p, float)
    order = values.argsort(kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return adjusted


def cohen_h(after: float, before: float) -> float:
    """Cohen's h of two proportions; below zero is less than before."""
    return float(2 * np.arcsin(np.sqrt(after)) - 2 * np.arcsin(np.sqrt(before)))
