"""Which queries are answered right, by each of the metrics: the one place that knows how the table of `probe` says so.

    full contiguous partial     columns of booleans; missing where a decoder's completion would lack the subject
    typed                       the object is ranked first among the candidates (`typed_rank` is 1)
    any other                   a column of booleans of the user's own

Queries for which a metric is missing were not put to the model in a way that it could answer: they are left out, never counted as wrong.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import pandas as pd

METRICS = ("full", "partial", "contiguous", "typed")
"""What counts as right in the table of `probe`."""


def judged(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The queries that a metric judges, with a column of booleans of its name.

    Args:
        table: From `probe`, or any table of queries.
        metric: One of `METRICS`, or a column of booleans.

    Raises:
        ValueError: There is no such column, or the metric is missing for every query.
    """
    if metric in table:
        right = table[metric]
    elif metric == "typed" and "typed_rank" in table:
        right = table["typed_rank"] == 1
    else:
        column = "typed_rank" if metric == "typed" else metric
        raise ValueError(
            f"the table has no column {column!r}: give what probe returned (it has {', '.join(map(str, table.columns))})"
        )
    known = right.notna()
    if len(table) and not known.any():
        raise ValueError(f"the metric {metric!r} is missing for every fact: choose typed, or other templates")
    return table[known].assign(**{metric: right[known].astype(bool)})
