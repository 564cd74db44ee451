"""Which facts do languages know in common?

For languages a and b let U be the facts asked in both, A and B those answered correctly there:

    J(a, b) = |A and B| / |A or B|        0 if neither language knows any of U; 1 on the diagonal; symmetric, between 0 and 1
    contained(a, b) = |A and B| / |A|     the asymmetric reading: how much of what a knows does b know?

Two languages that know much share much by chance. With |A|, |B| and |U| fixed and the correct facts drawn independently, the expected overlap
is |A| |B| / |U|; `chance` is the J it gives (a ratio of expectations), and what is to be explained is J above it.

Reference: Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189), section 4; there J per pair over all relations that both languages have. They cluster
with k-medoids on 1 - J; here average linkage (SciPy), whose leaf order the heat map uses, and no seed decides it.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .judged import judged

SHARING = (
    "a", "b", "relation", "facts", "correct_a", "correct_b", "both", "either", "jaccard", "contained", "chance",
)  # fmt: skip
"""Columns of `sharing_table`: one row an ordered pair of languages (and relation); `relation` is "all" without `by_relation`."""

ALL = "all"


@dataclass(frozen=True)
class Clusters:
    """Groups of languages, and an order in which alike ones stand together."""

    groups: Mapping[str, int]
    """Language to group; groups are numbered from 0 in the order of the leaves."""
    order: tuple[str, ...]
    """Leaves of the tree from left to right."""
    linkage: tuple[tuple[float, float, float, float], ...]
    """SciPy's linkage matrix."""

    def members(self) -> list[list[str]]:
        """The languages of each group, in the order of the leaves."""
        return [[x for x in self.order if self.groups[x] == g] for g in range(max(self.groups.values()) + 1)]


def sharing_table(
    predictions: pd.DataFrame,
    facts: Any = None,
    *,
    metric: str = "full",
    languages: Sequence[str] | None = None,
    by_relation: bool = False,
) -> pd.DataFrame:
    """Counts of facts known in common, for every ordered pair of languages.

    Args:
        predictions: One row a query, as `probe` gives it. A query that was not asked is in no U.
        facts: A `FactSet`, or a table with columns language, relation, fact: only its queries count. Default all that were asked.
        metric: What is correct: one of `judged.METRICS`, or a column of booleans. Queries for which it is missing were not asked.
        languages: Which, and in which order; default all in the predictions.
        by_relation: A row per relation as well as pair; pairs without a common fact of the relation have none.

    Returns:
        Columns `SHARING`. `jaccard` and `chance` are 0 where nothing is known, `contained` is nan where a knows nothing.

    Raises:
        ValueError: A column is missing, a query appears twice, a language was not asked, or no query of `facts` was.
    """
    asked = require_queries(judged(predictions, metric), (metric,))
    if facts is not None:
        held = getattr(facts, "table", facts)[["language", "relation", "fact"]].drop_duplicates()
        asked = asked.merge(held, on=["language", "relation", "fact"])
        if asked.empty:
            raise ValueError("none of these facts was asked: the predictions belong to another fact set")
    present = list(dict.fromkeys(asked["language"]))
    chosen = list(languages or present)
    if missing := [language for language in chosen if language not in present]:
        raise ValueError(f"language {missing[0]!r} was not asked: the predictions have {', '.join(present)}")
    asked = asked[asked["language"].isin(chosen)]
    relations = asked["relation"].to_numpy()
    codes = pd.MultiIndex.from_frame(asked[["relation", "fact"]]).factorize()[0]
    row = asked["language"].map({language: i for i, language in enumerate(chosen)}).to_numpy()
    exists = np.zeros((len(chosen), codes.max() + 1), dtype=bool)
    correct = exists.copy()
    exists[row, codes], correct[row, codes] = True, asked[metric].to_numpy(bool)
    of_fact = np.empty(exists.shape[1], dtype=object)
    of_fact[codes] = relations
    parts = [(r, of_fact == r) for r in dict.fromkeys(relations)] if by_relation else [(ALL, slice(None))]
    rows = []
    for relation, part in parts:
        e, c = exists[:, part].astype(float), correct[:, part].astype(float)
        common, both, left = e @ e.T, c @ c.T, c @ e.T  # left[a, b]: what a knows of U(a, b)
        for i, a in enumerate(chosen):
            for j, b in enumerate(chosen):
                if common[i, j] or not by_relation:
                    rows.append((a, b, relation, *_cell(common[i, j], left[i, j], left[j, i], both[i, j], same=i == j)))
    return pd.DataFrame(rows, columns=list(SHARING))


def sharing(
    predictions: pd.DataFrame, facts: Any = None, *, metric: str = "full", languages: Sequence[str] | None = None
) -> pd.DataFrame:
    """Jaccard matrix of the facts known in each two languages, over the facts asked in both.

    Args:
        predictions: One row a query, with columns language, relation, fact and `metric`.
        facts: As in `sharing_table`.
        metric: As in `sharing_table`.
        languages: Which, and in which order.

    Returns:
        Rows and columns are languages; symmetric, between 0 and 1, diagonal 1.

    Raises:
        ValueError: What `sharing_table` refuses.
    """
    return as_matrix(sharing_table(predictions, facts, metric=metric, languages=languages))


def as_matrix(table: pd.DataFrame, value: str = "jaccard") -> pd.DataFrame:
    """One column of a `sharing_table` (without relations) as a matrix, rows a, columns b."""
    if value not in SHARING[3:]:
        raise ValueError(f"value={value!r} is no column of numbers: choose from {', '.join(SHARING[3:])}")
    if table.duplicated(["a", "b"]).any():
        raise ValueError("the table has several rows for a pair: choose one relation of it first")
    order = list(dict.fromkeys(table["a"]))
    made = table.pivot(index="a", columns="b", values=value).reindex(index=order, columns=order)
    return made.rename_axis(index=None, columns=None)


def off_diagonal_mean(matrix: pd.DataFrame) -> float:
    """Mean over pairs of different languages; pairs without a value do not count. (The released mean includes a diagonal of zeros.)"""
    values = matrix.to_numpy(float)[~np.eye(len(matrix), dtype=bool)]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def cluster(similarity: pd.DataFrame, groups: int = 4, *, method: str = "average") -> Clusters:
    """Cluster languages on 1 - similarity.

    Args:
        similarity: Symmetric, between 0 and 1, languages as rows and columns; the diagonal is not read.
        groups: How many.
        method: SciPy's linkage: `"average"`, `"complete"` or `"single"` (others need coordinates).

    Raises:
        ValueError: The matrix is not square, not symmetric, has missing values or values outside [0, 1]; `groups` does not fit; an unknown
            method.
    """
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    names = [str(x) for x in similarity.index]
    if method not in ("average", "complete", "single"):
        raise ValueError(f"method={method!r} is unknown: choose average, complete or single")
    if names != [str(x) for x in similarity.columns]:
        raise ValueError("a similarity matrix has the same languages in rows and columns, in one order")
    if len(names) < 2 or not 1 <= groups <= len(names):
        raise ValueError(
            f"{groups} groups of {len(names)} language(s): give at least 2 languages, and 1..languages groups"
        )
    values = similarity.to_numpy(float).copy()
    np.fill_diagonal(values, 1.0)
    bad = ~np.isfinite(values) | (values < 0) | (values > 1)
    if bad.any() or not np.allclose(values, values.T):
        i, j = np.argwhere(bad if bad.any() else ~np.isclose(values, values.T))[0]
        raise ValueError(
            f"the similarity of {names[i]!r} and {names[j]!r} is {values[i, j]:g} ({values[j, i]:g} the other way): it must be symmetric "
            "and between 0 and 1; leave out languages without a value"
        )
    tree = linkage(squareform(1 - values, checks=False), method=method, optimal_ordering=True)
    leaves = leaves_list(tree)
    labels = fcluster(tree, groups, criterion="maxclust")
    renamed = {label: g for g, label in enumerate(dict.fromkeys(labels[leaves]))}
    rows = tuple(tuple(float(x) for x in row) for row in tree)
    return Clusters(
        {names[i]: renamed[labels[i]] for i in range(len(names))},
        tuple(names[i] for i in leaves),
        rows,  # pyright: ignore[reportArgumentType]
    )


def require_queries(predictions: pd.DataFrame, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table of queries with the columns asked for, each query once.

    Raises:
        ValueError: A column is missing, the table is empty, or a (language, relation, fact) appears twice.
    """
    wanted = list(dict.fromkeys(("language", "relation", "fact", *columns)))
    if missing := [name for name in wanted if name not in predictions.columns]:
        raise ValueError(f"the table has no column {missing[0]!r}, only {', '.join(map(str, predictions.columns))}")
    if predictions.empty:
        raise ValueError("the table has no query: nothing was asked")
    twice = predictions.duplicated(["language", "relation", "fact"])
    if twice.any():
        row = predictions[twice].iloc[0]
        raise ValueError(
            f"fact {row['fact']!r} of relation {row['relation']!r} appears twice in {row['language']!r}: "
            "keep one row a query (choose one model or condition first)"
        )
    return predictions[wanted].reset_index(drop=True)


def _cell(common: float, a: float, b: float, both: float, *, same: bool) -> tuple[Any, ...]:
    either = a + b - both
    expected = a * b / common if common else 0.0
    chance = expected / (a + b - expected) if a + b else 0.0
    jaccard = 1.0 if same else (both / either if either else 0.0)
    return int(common), int(a), int(b), int(both), int(either), jaccard, both / a if a else float("nan"), chance
