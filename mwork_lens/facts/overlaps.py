"""Do languages keep a fact in the same neurons? Overlap of fact neurons between languages, chance, and the overlap of different facts.

    similarity(a, b) = mean over the facts that have neurons in both of J(top_a, top_b)
    chance           = E[J] of two random sets of `top` of `units`: sum_k P(k) k / (2 top - k), P hypergeometric   (.0007 for 50 of 36,864)
    null             = J(top_a(f), top_b(g)) of DIFFERENT facts f, g of one relation in different languages a, b

Random sets are far below anything measured, because units that vary much are chosen for many facts. The null has all that facts of a relation
have in common, and lacks the fact itself: overlap that at most 5 % of it reach is called high (ours; the paper gives no cut).

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
CUTS = ("relation", "cut", "median", "pairs")
"""Columns of `null_cuts`."""

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
    neurons: Any, *, quantile: float = QUANTILE, top: int | None = None, draws: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """The overlap above which a fact counts as kept in the same neurons, per relation.

    Args:
        neurons: `FactNeurons`.
        quantile: Of the overlaps of different facts of the relation in different languages.
        top: Use only the best so many.
        draws: At most so many pairs per relation, drawn at random (with replacement) where there are more.
        seed: Of the draws.

    Returns:
        Columns `CUTS`; cut and median are nan for a relation with fewer than 20 pairs.

    Raises:
        ValueError: A quantile outside (0, 1), or what `fact_overlaps` refuses.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile} must lie between 0 and 1")
    table, top = _held(neurons, top, None)
    rng = np.random.default_rng(seed)
    rows = []
    for relation, part in table.groupby("relation", sort=False):
        values = _null(part, top, draws, rng)
        enough = len(values) >= _ENOUGH
        cut, median = (upper_cut(values, quantile), float(np.median(values))) if enough else (np.nan, np.nan)
        rows.append((relation, cut, median, len(values)))
    return pd.DataFrame(rows, columns=list(CUTS))


def upper_cut(values: np.ndarray, quantile: float) -> float:
    """The smallest of the values at or above which lie at most 1 - quantile of them; if there is none, the next number above the largest.

    For distinct values the order statistic. Overlaps of small sets take few values, and many are equal to an interpolated percentile.
    """
    distinct, counts = np.unique(values, return_counts=True)
    above = counts[::-1].cumsum()[::-1] / len(values)
    rare = distinct[above <= 1 - quantile + 1e-12]
    return float(rare[0]) if len(rare) else float(np.nextafter(distinct[-1], np.inf))


def _null(part: pd.DataFrame, top: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    units = np.stack([np.asarray(u, dtype=np.int64)[:top] for u in part["units"]])
    fact, language = (part[name].factorize()[0] for name in ("fact", "language"))
    n = len(part)
    if n * (n - 1) // 2 <= 4 * draws:
        i, j = np.triu_indices(n, 1)
    else:
        i, j = rng.integers(n, size=4 * draws), rng.integers(n, size=4 * draws)
    usable = (fact[i] != fact[j]) & (language[i] != language[j])
    i, j = i[usable], j[usable]
    if len(i) > draws:
        chosen = rng.choice(len(i), draws, replace=False)
        i, j = i[chosen], j[chosen]
    found = np.empty(len(i))
    for at in range(0, len(i), 256):
        a, b = units[i[at : at + 256]], units[j[at : at + 256]]
        both = (a[:, :, None] == b[:, None, :]).sum((1, 2))
        found[at : at + 256] = both / (2 * top - both)
    return found


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
