"""How well do the analyses find out what is known: in which language a fact was stated?

A model trained on texts whose facts are known (the organism) has a truth for each query: the fact was stated in this language, or in others
only. What is asked of the analyses:

    prediction       is a predicted fact one that was stated in the language?                   (precision, recall)
    source absent    are the facts that the corpus search misses those not stated there?        (precision, recall, balanced accuracy)
    transferred      are predicted facts with this label those not stated there?                (precision, recall, balanced accuracy)
    high overlap     do facts with neurons in common come from elsewhere?                       (the same, and the area under the ROC curve)
    source language  is the language with the most overlap one that stated the fact?            (accuracy, over facts not stated here)
    own overlap      the same two, with overlaps less the mean of their pair of languages and relation (`above_pair`): the fact's own part
    own source

`chance` is the value of a method that knows nothing: the base rate for precision, the share found for recall, 1/2 for balanced accuracy and area,
the share of candidates that stated it for accuracy. Intervals come from resampling facts, with all their languages. No published method has had
this test; a truth by statement is no truth about neurons, so `high overlap` may be low for a good reason: facts stated in two languages
may still be stored once. And it may be high for a bad one: facts that are known without having been stated are known in related languages, which
overlap on every fact. `own overlap` is free of that.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .overlaps import above_pair
from .sharing import ALL

RECOVERY = ("analysis", "measure", "value", "low", "high", "chance", "positives", "queries")
"""Columns of `recovery`: 95 % intervals; nan where a measure is undefined (nothing found, or no positive)."""

Stated = str | Collection[str]

_PARTS = 64


def recovery(
    origins: pd.DataFrame, stated: Mapping[str, Any], overlaps: pd.DataFrame | None = None, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:  # fmt: skip
    """Compare types, labels and overlaps with the languages in which the facts were stated.

    Args:
        origins: What `origins` returned.
        stated: Per fact, `"all"`, the language that stated it, or several.
        overlaps: What `fact_overlaps` returned, for the source language and the fact's own overlap.
        resamples: Of the facts, for the intervals.
        seed: Of the resampling.

    Returns:
        Columns `RECOVERY`. An analysis without a query (no corpus, no neurons) has no rows.

    Raises:
        ValueError: The truth of a fact is not given or names no languages, or there is no query.
    """
    if origins.empty:
        raise ValueError("there is no query: nothing to compare with the truth")
    if missing := [fact for fact in dict.fromkeys(origins["fact"]) if fact not in stated]:
        raise ValueError(f"fact {missing[0]!r} has no truth: `stated` must name the languages of every fact, or 'all'")
    for fact in dict.fromkeys(origins["fact"]):
        _require_truth(fact, stated[fact])
    facts, codes = np.unique(origins["fact"].to_numpy(str), return_inverse=True)
    draws = _draws(len(facts), resamples, seed)
    here = np.array([_says(stated[f], x) for f, x in zip(origins["fact"], origins["language"], strict=True)])
    predicted = origins["predicted"].to_numpy(bool)
    searched = (origins["status"] >= 0).to_numpy()
    known = predicted & searched
    compared = predicted & origins["overlap"].notna().to_numpy() & origins["cut"].notna().to_numpy()
    overlap = origins["overlap"].to_numpy(float)
    high = overlap >= origins["cut"].to_numpy(float)
    plain, full = ("precision", "recall"), ("precision", "recall", "balanced accuracy")
    rows = []
    for name, part, truth, found, score, measures in (
        ("prediction", np.ones(len(origins), bool), here, predicted, None, plain),
        ("source absent", searched, ~here, ~origins["present"].fillna(False).to_numpy(bool), None, full),
        ("transferred", known, ~here, (origins["label"] == "transferred").to_numpy(), None, full),
        ("high overlap", compared, ~here, high, overlap, (*full, "area")),
    ):
        if part.any():
            given = None if score is None else score[part]
            rows += _judge(name, measures, truth[part], found[part], given, codes[part], draws)
    if overlaps is not None:
        own = above_pair(overlaps)
        score = _mean_overlap(origins, own)
        part = predicted & np.isfinite(score)
        if part.any():
            rows += _judge("own overlap", ("area",), ~here[part], score[part] > 0, score[part], codes[part], draws)
        rows += _source_language("source language", origins, stated, overlaps, facts, draws)
        rows += _source_language("own source", origins, stated, own, facts, draws)
    return pd.DataFrame(rows, columns=list(RECOVERY))


def _judge(
    name: str, measures: Collection[str], truth: np.ndarray, found: np.ndarray, score: np.ndarray | None, codes: np.ndarray,
    draws: np.ndarray,
) -> list[tuple]:  # fmt: skip
    """A row per measure; the first row of `draws` is the data itself."""
    parts = {measure: [] for measure in measures}
    for at in range(0, len(draws), _PARTS):
        weight = draws[at : at + _PARTS][:, codes]
        hits, chosen, wanted = weight @ (truth & found), weight @ found, weight @ truth
        total = weight.sum(1)
        recall, spared = _ratio(hits, wanted), _ratio(total - wanted - chosen + hits, total - wanted)
        values = {"precision": _ratio(hits, chosen), "recall": recall, "balanced accuracy": (recall + spared) / 2}
        if score is not None:
            values["area"] = weighted_area(score, truth, weight)
        for measure in measures:
            parts[measure].append(values[measure])
    chance = {"precision": truth.mean(), "recall": found.mean(), "balanced accuracy": 0.5, "area": 0.5}
    return [
        (name, measure, *_summary(np.concatenate(parts[measure])), chance[measure], int(truth.sum()), len(truth))
        for measure in measures
    ]


def weighted_area(score: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for each row of weights [draw query], ties half; nan where one class has no weight."""
    _, group = np.unique(score, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    positive, negative = (np.add.reduceat((weight * side)[:, order], starts, axis=1) for side in (truth, ~truth))
    below = negative.cumsum(1) - negative / 2
    return _ratio((positive * below).sum(1), positive.sum(1) * negative.sum(1))


def _mean_overlap(origins: pd.DataFrame, overlaps: pd.DataFrame) -> np.ndarray:
    """Of each query, the mean over the other languages; nan where there is none."""
    both = pd.concat([overlaps, overlaps.rename(columns={"a": "b", "b": "a"})])
    means = both.groupby(["a", "relation", "fact"])["overlap"].mean()
    keys = pd.MultiIndex.from_frame(origins[["language", "relation", "fact"]])
    return means.reindex(keys).to_numpy(float)


def _source_language(
    name: str,
    origins: pd.DataFrame,
    stated: Mapping[str, Stated],
    overlaps: pd.DataFrame,
    facts: np.ndarray,
    draws: np.ndarray,
) -> list[tuple]:
    both = pd.concat([overlaps, overlaps.rename(columns={"a": "b", "b": "a"})])
    asked = set(origins.loc[origins["predicted"].astype(bool), "fact"])
    hits, chances, where = [], [], []
    for (language, _, fact), part in both[both["fact"].isin(asked)].groupby(["a", "relation", "fact"], sort=False):
        source = np.array([_says(stated[fact], other) for other in part["b"]])
        if _says(stated[fact], language) or len(part) < 2 or not source.any():
            continue
        best = (part["overlap"] == part["overlap"].max()).to_numpy()
        hits.append((best & source).sum() / best.sum())
        chances.append(source.mean())
        where.append(np.searchsorted(facts, fact))
    if not hits:
        return []
    weight = draws[:, where]
    values = _ratio(weight @ np.array(hits), weight.sum(1))
    return [(name, "accuracy", *_summary(values), float(np.mean(chances)), len(hits), len(hits))]


def _require_truth(fact: str, stated: Any) -> None:
    several = [stated] if isinstance(stated, str) else stated
    if not isinstance(several, Collection) or not all(isinstance(x, str) for x in several):
        raise ValueError(f"fact {fact!r}: stated must name languages, such as ['en', 'de'] or 'all', got {stated!r}")


def _says(stated: Stated, language: str) -> bool:
    return stated in (ALL, language) if isinstance(stated, str) else language in stated or ALL in stated


def _draws(facts: int, resamples: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).multinomial(facts, np.full(facts, 1 / facts), size=resamples)
    return np.concatenate([np.ones((1, facts)), drawn])


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b > 0, a / np.where(b > 0, b, 1), np.nan)


def _summary(values: np.ndarray) -> tuple[float, float, float]:
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)
