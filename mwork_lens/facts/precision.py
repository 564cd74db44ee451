"""Precision at 1 of probed facts: what share is answered right. Pure functions of the table of `probe`.

    micro     matches / queries, over all queries of a group
    macro     mean over the languages (or relations) of a group of the micro value of each

Reference: Zhao, Yoshinaga & Oba (EACL 2024), Table 1, whose row "Macro average" is the micro average over all queries of all languages; the mean
over languages is another number, and both are here under their names. Values are shares (0..1), where the paper prints percents.

Intervals are 95 % percentile bootstraps over facts: a fact is drawn in all its languages at once, since they ask the same thing.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from ..evaluate import RESAMPLES
from .factset import FactSet
from .judged import METRICS, judged

__all__ = ["METRICS", "one_token_precision", "precision"]

_CHUNK = 50


def precision(
    table: pd.DataFrame,
    metric: str = "full",
    average: Literal["micro", "macro"] = "micro",
    *,
    by: Sequence[str] = ("language",),
    over: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """P@1 of each group, with a 95 % interval.

    Args:
        table: From `probe`.
        metric: One of `METRICS`.
        average: `micro`: matches / queries; `macro`: the mean of that over the values of the column `over`.
        by: Columns that make a group, such as `("language",)` or `("language", "relation")`; () for one group of everything.
        over: Column that a macro average goes over; default `relation` where `by` has languages, else `language`.
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        Columns *by, metric, average (`micro`, or `macro over language`), precision, low, high, matches, queries. Queries for which the metric is
        missing (a decoder's completions that would lack the subject) are left out.

    Raises:
        ValueError: A metric, average or column is unknown, a macro average goes over a column of `by` or comes without it, or nothing is left.
    """
    by = [by] if isinstance(by, str) else list(by)
    kept = _right(table, metric)
    if average not in ("micro", "macro"):
        raise ValueError(f"average={average!r} is not one of micro, macro")
    if average == "micro" and over is not None:
        raise ValueError(f"over={over!r} belongs to average='macro': a micro average pools all queries")
    over = (over or ("relation" if "language" in by else "language")) if average == "macro" else None
    if over in by:
        raise ValueError(f"a macro average over {over!r} needs several of them in a group: leave it out of by")
    columns = [*by, *([] if over is None else [over])]
    if missing := [name for name in (*columns, "fact") if name not in table]:
        raise ValueError(f"the table has no column {missing[0]!r}: there are {', '.join(table.columns)}")
    rows = []
    for key, group in kept.groupby(by, sort=False) if by else [((), kept)]:
        cells = group.groupby(over, sort=False).ngroup().to_numpy() if over else np.zeros(len(group), dtype=int)
        matches = group["_right"].to_numpy(float)
        value, low, high = _bootstrap(group["fact"].to_numpy(), cells, matches, resamples, seed)
        named = "micro" if over is None else f"macro over {over}"
        rows.append((*key, metric, named, value, low, high, int(matches.sum()), len(group)))
    names = [*by, "metric", "average", "precision", "low", "high", "matches", "queries"]
    return pd.DataFrame(rows, columns=names)


def one_token_precision(
    table: pd.DataFrame,
    facts: FactSet,
    metric: str = "full",
    *,
    tokens: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """P@1 on objects of one token (or `tokens`) per language: the mean over distinct objects of matches / queries of the object.

    Frequent objects (a country that many facts share) weigh no more than rare ones here, and no object has more tokens to get right than another.

    Args:
        table: From `probe`.
        facts: The facts that were probed: they say which object a query has.
        metric: One of `METRICS`.
        tokens: Length of the objects.
        resamples: Number of resamples, over objects.
        seed: Of the resampling.

    Returns:
        Columns language, metric, tokens, precision, low, high, objects (distinct ones), queries; languages without such an object have no row.

    Raises:
        ValueError: The metric is unknown, a fact of the table is not in `facts`, or no object has that length.
    """
    held = _right(table, metric)
    objects = facts.table.set_index(["language", "fact"])["object"]
    keys = pd.MultiIndex.from_frame(held[["language", "fact"]])
    if not keys.isin(objects.index).all():
        language, fact = keys[~keys.isin(objects.index)][0]
        raise ValueError(f"fact {fact!r} in {language!r} is not among the facts given: give those that were probed")
    held = held.assign(object=objects.reindex(keys).to_numpy())
    held = held[held["object_tokens"] == tokens]
    if not len(held):
        lengths = sorted(table["object_tokens"].unique())
        raise ValueError(f"no object has {tokens} token(s): there are lengths {', '.join(map(str, lengths))}")
    rows = []
    for language, group in held.groupby("language", sort=False):
        each = group.groupby("object", sort=False)["_right"].mean()
        value, low, high = _bootstrap(
            each.index.to_numpy(), np.zeros(len(each), dtype=int), each.to_numpy(), resamples, seed
        )
        rows.append((language, metric, tokens, value, low, high, len(each), len(group)))
    names = ["language", "metric", "tokens", "precision", "low", "high", "objects", "queries"]
    return pd.DataFrame(rows, columns=names)


def _right(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The queries that the metric judges, with a column `_right`."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
    held = judged(table, metric)
    return held.assign(_right=held[metric])


def _bootstrap(
    facts: np.ndarray, cells: np.ndarray, matches: np.ndarray, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean over cells of matches / queries, and its interval over resampled facts; a cell that a resample misses is left out of it."""
    codes, names = pd.factorize(facts)
    shape = (len(names), int(cells.max()) + 1)
    sums = sparse.csr_array((matches, (codes, cells)), shape=shape)
    counts = sparse.csr_array((np.ones(len(codes)), (codes, cells)), shape=shape)
    value = float((sums.sum(0) / counts.sum(0)).mean())
    generator = np.random.default_rng(seed)
    drawn = []
    for at in range(0, resamples, _CHUNK):
        few = min(_CHUNK, resamples - at)
        weights = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=few).astype(float)
        queries = (counts.T @ weights.T).T
        shares = np.divide((sums.T @ weights.T).T, queries, out=np.full(queries.shape, np.nan), where=queries > 0)
        drawn.append(np.nanmean(shares, axis=1))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return value, float(low), float(high)
