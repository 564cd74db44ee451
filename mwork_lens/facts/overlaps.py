"""Do languages keep a fact in the same neurons? Overlap of fact neurons between languages, chance, and the overlap of different facts.

    similarity(a, b) = mean over the facts that have neurons in both of J(top_a, top_b)
    chance           = E[J] of two random sets of `top` of `units`: sum_k P(k) k / (2 top - k), P hypergeometric   (.0007 for 50 of 36,864)
    overlap of f     = mean over b in B of J(top_a(f), top_b(f)),     B: the other languages in which f has neurons
    its null         = mean over b in B of J(top_a(f), top_b(g_b)),   g_b: ANOTHER fact of the relation, drawn at random from those of b

Random sets are far below anything measured, because units that vary much are chosen for many facts. The null has all that facts of a relation
have in common, and lacks the fact itself: overlap that at most 5 % of it reach is called high (ours; the paper gives no cut). It is drawn for each
query, with the query's own neurons and languages: a mean over many languages varies less than one over few, and related languages overlap on
everything. A draw takes the same other fact in every language of B that has it: what languages of B have in common on a fact stays together, and
a mean over them varies as it does for f.

Reference: Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189), section 5. The released mean over language pairs includes the zero diagonal of its
matrix (.246 for mBERT); without it, as here, it is .255.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .sharing import off_diagonal_mean

OVERLAPS = ("relation", "fact", "a", "b", "overlap")
"""Columns of `fact_overlaps`: one row a fact and unordered pair of languages."""
CUTS = ("language", "relation", "fact", "others", "overlap", "cut", "median")
"""Columns of `null_cuts`: one row a query whose fact has neurons in `others` >= 1 other languages."""

QUANTILE = 0.95
_ENOUGH = 20


@dataclass(frozen=True)
class NeuronSimilarity:
    """How alike the fact neurons of languages are."""

    matrix: pd.DataFrame
    """Mean Jaccard per pair of languages; 1 on the diagonal, nan where no fact has neurons in both."""
    facts: pd.DataFrame
    """How many facts each mean is over."""
    mean: float
    """Over pairs of different languages."""
    chance: float
    """Of random sets of this size."""
    top: int
    """Neurons per fact."""


def chance_overlap(top: int, units: int) -> float:
    """Expected Jaccard overlap of two random sets of `top` of `units`.

    Raises:
        ValueError: `top` is not between 1 and `units`.
    """
    from scipy.stats import hypergeom

    if not 1 <= top <= units:
        raise ValueError(f"top={top} of {units} units: give between 1 and that")
    k = np.arange(top + 1)
    return float((hypergeom(units, top, top).pmf(k) * k / (2 * top - k)).sum())


def fact_overlaps(neurons: Any, *, top: int | None = None, languages: Sequence[str] | None = None) -> pd.DataFrame:
    """Jaccard overlap of each fact's neurons between languages.

    Args:
        neurons: `FactNeurons`.
        top: Use only the best so many; default all that are held.
        languages: Which, in this order; default all.

    Returns:
        Columns `OVERLAPS`; a stands before b in the order of languages.

    Raises:
        ValueError: `top` is more than is held, or a language has no neurons.
    """
    table, top = _held(neurons, top, languages)
    order = {language: i for i, language in enumerate(languages or dict.fromkeys(table["language"]))}
    rows = []
    for (relation, fact), part in table.groupby(["relation", "fact"], sort=False):
        part = part.sort_values("language", key=lambda column: column.map(order))
        if len(part) < 2:
            continue
        units = np.stack([np.asarray(u, dtype=np.int64)[:top] for u in part["units"]])
        _, where = np.unique(units, return_inverse=True)
        member = np.zeros((len(part), where.max() + 1))
        np.put_along_axis(member, where.reshape(units.shape), 1, axis=1)
        both = member @ member.T
        names = list(part["language"])
        for i, j in zip(*np.triu_indices(len(part), 1), strict=True):
            rows.append((relation, fact, names[i], names[j], both[i, j] / (2 * top - both[i, j])))
    return pd.DataFrame(rows, columns=list(OVERLAPS))


def above_pair(overlaps: pd.DataFrame) -> pd.DataFrame:
    """Overlaps less the mean over the facts of their relation in their pair of languages.

    Related languages overlap more on every fact. Facts that are known in few, related languages have a high overlap for that reason alone; what is
    left here is the fact's own.

    Args:
        overlaps: What `fact_overlaps` returned.

    Returns:
        The same columns; a pair with one fact of a relation has 0 there.
    """
    mean = overlaps.groupby(["a", "b", "relation"])["overlap"].transform("mean")
    return overlaps.assign(overlap=overlaps["overlap"] - mean)


def neuron_similarity(
    neurons: Any, *, top: int | None = None, languages: Sequence[str] | None = None
) -> NeuronSimilarity:
    """Mean overlap of fact neurons per pair of languages, with the mean over pairs and the level of chance.

    Args:
        neurons: `FactNeurons`.
        top: Use only the best so many.
        languages: Which, in this order.

    Raises:
        ValueError: What `fact_overlaps` refuses.
    """
    table, top = _held(neurons, top, languages)
    names = list(languages or dict.fromkeys(table["language"]))
    pairs = fact_overlaps(neurons, top=top, languages=names)
    sums = pairs.groupby(["a", "b"])["overlap"].agg(["mean", "count"])
    matrix = pd.DataFrame(np.nan, index=names, columns=names)
    counts = pd.DataFrame(0, index=names, columns=names)
    for (a, b), row in sums.iterrows():
        matrix.loc[a, b] = matrix.loc[b, a] = row["mean"]
        counts.loc[a, b] = counts.loc[b, a] = int(row["count"])
    for language, n in table["language"].value_counts().items():
        matrix.loc[language, language], counts.loc[language, language] = 1.0, int(n)
    return NeuronSimilarity(
        matrix, counts, off_diagonal_mean(matrix), chance_overlap(top, neurons.shape[0] * neurons.shape[1]), top
    )


def null_cuts(
    neurons: Any, *, quantile: float = QUANTILE, top: int | None = None, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Of every query, its mean overlap with the other languages, and the value from which on that is more than other facts would have.

    Args:
        neurons: `FactNeurons`.
        quantile: Of the same mean with other facts of the relation in the other languages.
        top: Use only the best so many.
        draws: Of other facts, per relation.
        seed: Of the draws.

    Returns:
        Columns `CUTS`. Cut and median are nan where fewer than 20 choices of other facts were drawn: 5 % of them is no number.

    Raises:
        ValueError: A quantile outside (0, 1), fewer than 20 draws, or what `fact_overlaps` refuses.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile} must lie between 0 and 1")
    if draws < _ENOUGH:
        raise ValueError(f"draws={draws} of other facts make no null: give at least {_ENOUGH}")
    table, top = _held(neurons, top, None)
    rng = np.random.default_rng(seed)
    rows: list[tuple] = []
    for relation, part in table.groupby("relation", sort=False):
        rows += _relation_cuts(str(relation), part, top, quantile, rng, draws)
    return pd.DataFrame(rows, columns=list(CUTS))


def upper_cut(values: np.ndarray, quantile: float) -> float:
    """The smallest of the values at or above which lie at most 1 - quantile of them; if there is none, the next number above the largest.

    For distinct values the order statistic. Overlaps of small sets take few values, and many are equal to an interpolated percentile.
    """
    distinct, counts = np.unique(values, return_counts=True)
    above = counts[::-1].cumsum()[::-1] / len(values)
    rare = distinct[above <= 1 - quantile + 1e-12]
    return float(rare[0]) if len(rare) else float(np.nextafter(distinct[-1], np.inf))


def _relation_cuts(
    relation: str, part: pd.DataFrame, top: int, quantile: float, rng: np.random.Generator, draws: int
) -> list[tuple]:
    """Rows of `null_cuts`. A draw puts the facts in an order; g_b is the first of it in b that is not f."""
    from scipy.sparse import csr_array

    codes, names = part["fact"].factorize()
    units = np.stack([np.asarray(u, dtype=np.int64)[:top] for u in part["units"]])
    languages = list(dict.fromkeys(part["language"]))
    of = part["language"].to_numpy()
    order = rng.random((draws, len(names)))
    mark = rng.integers(1, 2**62, len(names))  # the sum of random marks tells choices of other facts apart
    facts, sets, row, first, second = {}, {}, {}, {}, {}
    for x in languages:
        held = codes[of == x]
        start = np.arange(len(held) + 1) * top
        size = (len(held), int(units.max()) + 1)
        facts[x], row[x] = held, np.full(len(names), -1)
        sets[x] = csr_array((np.ones(len(held) * top), units[of == x].ravel(), start), shape=size)
        row[x][held] = np.arange(len(held))
        best = held[order[:, held].argsort(1)[:, :2]]
        first[x], second[x] = best[:, 0], best[:, -1]
    rows = []
    for a in languages:
        shape = (len(facts[a]), draws)
        others, own, null, chosen = np.zeros(shape[0], int), np.zeros(shape[0]), np.zeros(shape), np.zeros(shape, int)
        for number, b in enumerate(languages):
            mine = np.flatnonzero(row[b][facts[a]] >= 0)
            if a == b or not len(mine):
                continue
            here, there = sets[a][mine], sets[b][row[b][facts[a][mine]]]
            others[mine] += 1
            own[mine] += _jaccard(np.asarray((here * there).sum(1)), top)
            taken = facts[a][mine][:, None] == first[b][None]  # f itself comes first there: the next one then
            one, two = ((here @ sets[b][row[b][g]].T).toarray() for g in (first[b], second[b]))
            null[mine] += _jaccard(np.where(taken, two, one), top)
            chosen[mine] += np.where(taken, mark[second[b]], mark[first[b]]) * (2 * number + 1)
            if len(facts[b]) < 2:  # there is no other fact
                null[mine] = np.nan
        for i in np.flatnonzero(others):
            values = null[i] / others[i]
            enough = np.isfinite(values).all() and len(np.unique(chosen[i])) >= _ENOUGH
            cut, median = (upper_cut(values, quantile), float(np.median(values))) if enough else (np.nan, np.nan)
            rows.append((a, relation, names[facts[a][i]], int(others[i]), own[i] / others[i], cut, median))
    return rows


def _jaccard(both: np.ndarray, top: int) -> np.ndarray:
    return both / (2 * top - both)


def _held(neurons: Any, top: int | None, languages: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
    table = neurons.table
    held = int(neurons.top)
    top = held if top is None else top
    if not 1 <= top <= held:
        raise ValueError(f"top={top}, and {held} neurons per fact are held: find more with fact_neurons(top=...)")
    if languages is not None:
        present = set(table["language"])
        if missing := [language for language in languages if language not in present]:
            raise ValueError(
                f"language {missing[0]!r} has no fact neurons: those that have are {', '.join(sorted(present))}"
            )
        table = table[table["language"].isin(list(languages))]
    return table, top
