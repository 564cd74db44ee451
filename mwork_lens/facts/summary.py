"""What a probe found, in one table: every metric, micro and macro, per language and over all of them."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence

import pandas as pd

from ..evaluate import RESAMPLES
from .judged import METRICS
from .precision import precision
from .sharing import ALL

SUMMARY = ("language", "metric", "average", "precision", "low", "high", "matches", "queries")
"""Columns of `summary`; language "all" is every query of every language, `macro over language` the mean over languages."""


def summary(
    table: pd.DataFrame, *, metrics: Sequence[str] = METRICS, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """P@1 of each language by every metric, and over all: micro, and macro over languages.

    Args:
        table: From `probe`.
        metrics: Which; one that is missing for every query has no rows.
        resamples: Number of resamples of the intervals.
        seed: Of the resampling.

    Returns:
        Columns `SUMMARY`.

    Raises:
        ValueError: A metric is unknown, or all are missing.
    """
    parts = []
    for metric in metrics:
        if metric in table and not table[metric].notna().any():
            continue
        options = {"metric": metric, "resamples": resamples, "seed": seed}
        parts.append(precision(table, by=("language",), **options))
        parts.append(precision(table, by=(), **options).assign(language=ALL))
        parts.append(precision(table, by=(), average="macro", over="language", **options).assign(language=ALL))
    if not parts:
        raise ValueError(f"none of the metrics {', '.join(metrics)} can be told from this table: add typed")
    return pd.concat(parts, ignore_index=True)[list(SUMMARY)]
