"""Do related languages use the same experts? Dendrogram, permutation test over language labels, Mantel test. All of them read a similarity table.

    family test    mean similarity of pairs within a family minus that of pairs between families; p = share of all relabellings of the languages
                   with at least this difference (exact up to eight languages, else drawn: (1 + hits) / (1 + drawn))
    Mantel         correlation of two tables over pairs of languages, p over the same relabellings
    dendrogram     average linkage on 1 - similarity; cophenetic correlation; adjusted Rand index of the cut into as many groups as families

Pairs are not independent (n languages make n (n - 1) / 2 pairs), so labels are permuted, not pairs. With few languages no p can be
small: six languages in families of 2, 2, 1 and 1 can be grouped in 45 ways, so p >= 1/45; the table says so (`smallest_p`).
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations as all_orders

import numpy as np
import pandas as pd

from .analysis import families_of
from .scores import require

EXACT = 8
"""Languages up to which all relabellings are tried: 40,320 of them."""


def matrix_of(
    table: pd.DataFrame, languages: Sequence[str] | None = None, *, least: int = 2
) -> tuple[list[str], np.ndarray]:
    """Languages, and their similarities as a symmetric matrix.

    Args:
        table: Columns language, other, similarity, one row a pair, as `similarity` returns.
        languages: Which, in this order; default all.
        least: Languages that are needed.

    Raises:
        ValueError: A language or a pair is missing or comes twice, a similarity is nan or not symmetric, or there are fewer than `least` languages.
    """
    known = list(dict.fromkeys(table["language"]))
    names = known if languages is None else list(languages)
    if len(set(names)) < len(names):
        raise ValueError(f"a language is named twice among {names}: name each once")
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"language {missing[0]!r} is missing from the similarities, which have {', '.join(known)}")
    if len(names) < least:
        raise ValueError(f"at least {least} languages are needed, got {names}: count experts for more languages")
    if table.duplicated(["language", "other"]).any():
        raise ValueError("a pair of languages comes twice: give the table of one measure")
    wide = table.pivot(index="language", columns="other", values="similarity").reindex(index=names, columns=names)
    values = wide.to_numpy(dtype=np.float64)
    if np.isnan(values).any():
        a, b = np.argwhere(np.isnan(values))[0]
        raise ValueError(
            f"the similarity of {names[a]!r} and {names[b]!r} is missing or nan: leave the language out, or use another measure"
        )
    if not np.allclose(values, values.T, rtol=0, atol=1e-9):
        raise ValueError("similarities must be symmetric: give the same value for (a, b) and (b, a)")
    return names, values


def _orders(n: int, draws: int, seed: int) -> tuple[np.ndarray, bool]:
    """Relabellings [order language], and whether they are all there are."""
    if n <= EXACT:
        return np.array(list(all_orders(range(n)))), True
    if draws < 1:
        raise ValueError(f"permutations={draws}: draw at least 1")
    generator = np.random.default_rng(seed)
    return generator.permuted(np.tile(np.arange(n), (draws, 1)), axis=1), False


def _p(statistics: np.ndarray, observed: float, exact: bool) -> float:
    """Share of relabellings that reach the observed value; ties count, up to rounding."""
    hits = int((statistics >= observed - 1e-9 * max(1.0, abs(observed))).sum())
    return hits / len(statistics) if exact else (1 + hits) / (1 + len(statistics))


def family_test(
    table: pd.DataFrame,
    *,
    families: Mapping[str, str] | None = None,
    languages: Sequence[str] | None = None,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether languages of one family are more alike than languages of two.

    Args:
        table: What `similarity` returned.
        families: Families that differ from `languages.LANGUAGES`, by language.
        languages: Which; default all.
        permutations: Relabellings drawn where there are more than eight languages.
        seed: Of the draw.

    Returns:
        One row: within, between (mean similarity of pairs), difference, p (one-sided), smallest_p (the least that these families allow),
        exact, permutations, languages, families (that have two languages or more).

    Raises:
        ValueError: As `matrix_of`; no family has two languages, or all languages are of one family.
    """
    names, values = matrix_of(table, languages, least=3)
    family = families_of(names, families)
    sizes = Counter(family.values())
    if max(sizes.values()) < 2:
        raise ValueError(
            f"no family has two of the languages ({', '.join(f'{a}: {b}' for a, b in family.items())}): add a related language"
        )
    if len(sizes) < 2:
        raise ValueError(f"all languages are of the family {next(iter(sizes))!r}: add one of another family")
    labels = np.unique([family[name] for name in names], return_inverse=True)[1]
    rows, columns = np.triu_indices(len(names), 1)
    pairs = values[rows, columns]
    orders, exact = _orders(len(names), permutations, seed)

    def difference(shuffled: np.ndarray) -> np.ndarray:
        inside = shuffled[:, rows] == shuffled[:, columns]
        return (inside @ pairs) / inside.sum(1) - (~inside @ pairs) / (~inside).sum(1)

    observed = float(difference(labels[None])[0])
    inside = labels[rows] == labels[columns]
    p = _p(difference(labels[orders]), observed, exact)
    least = 1 / _groupings(list(sizes.values()))
    return pd.DataFrame(
        [(pairs[inside].mean(), pairs[~inside].mean(), observed, p, least if exact else max(least, 1 / (1 + permutations)),
          exact, len(orders), len(names), sum(size > 1 for size in sizes.values()))],
        columns=["within", "between", "difference", "p", "smallest_p", "exact", "permutations", "languages", "families"],
    )  # fmt: skip


def _groupings(sizes: Sequence[int]) -> int:
    """Ways to divide languages into families of these sizes."""
    same = math.prod(math.factorial(n) for n in Counter(sizes).values())
    return math.factorial(sum(sizes)) // math.prod(math.factorial(size) for size in sizes) // same


def mantel(
    table: pd.DataFrame,
    other: pd.DataFrame,
    *,
    method: str = "spearman",
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mantel test: whether two tables of similarities agree over pairs of languages.

    Args:
        table: What `similarity` returned.
        other: Another, with (at least) the same languages: of another measure, or of how related they are.
        method: Correlation over pairs.
        permutations: Relabellings drawn where there are more than eight languages.
        seed: Of the draw.

    Returns:
        One row: r, p (one-sided: at least this r), exact, permutations, languages, method.

    Raises:
        ValueError: As `matrix_of`; fewer than three languages; a table whose similarities are all equal.
    """
    from scipy.stats import rankdata

    require("method", method, ("pearson", "spearman"))
    names, values = matrix_of(table, least=3)
    beside = matrix_of(other, names, least=3)[1]
    rows, columns = np.triu_indices(len(names), 1)
    mine, yours = values[rows, columns], beside[rows, columns]
    if method == "spearman":
        mine, yours = rankdata(mine), rankdata(yours)
    if np.ptp(mine) == 0 or np.ptp(yours) == 0:
        raise ValueError("all pairs of a table are equally similar: there is nothing to correlate")
    square = np.zeros_like(values)
    square[rows, columns] = square[columns, rows] = (yours - yours.mean()) / yours.std()
    scaled = (mine - mine.mean()) / mine.std() / len(mine)
    orders, exact = _orders(len(names), permutations, seed)
    r = float(square[rows, columns] @ scaled)
    p = _p(square[orders[:, rows], orders[:, columns]] @ scaled, r, exact)
    return pd.DataFrame(
        [(r, p, exact, len(orders), len(names), method)],
        columns=["r", "p", "exact", "permutations", "languages", "method"],
    )


@dataclass(frozen=True, eq=False)
class Dendrogram:
    """A tree of languages."""

    languages: tuple[str, ...]
    """Leaves, by the numbers that `linkage` uses."""
    linkage: np.ndarray
    """SciPy's linkage matrix, [language - 1, 4]."""
    order: tuple[str, ...]
    """Leaves as a figure draws them, from left to right; neighbours as alike as the tree allows."""
    cophenetic: float
    """Correlation of distances in the tree with the distances given; nan where those are all equal."""
    rand: float
    """Adjusted Rand index of the families and of the tree cut into as many groups; nan if either is trivial."""


def dendrogram(
    table: pd.DataFrame, *, families: Mapping[str, str] | None = None, languages: Sequence[str] | None = None
) -> Dendrogram:
    """Average linkage on 1 - similarity.

    Raises:
        ValueError: As `matrix_of`, with at least two languages; a language's family is unknown.
    """
    from scipy.cluster.hierarchy import cophenet, fcluster, leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    names, values = matrix_of(table, languages)
    distance = squareform(np.maximum(1 - (values + values.T) / 2, 0), checks=False)
    tree = optimal_leaf_ordering(linkage(distance, "average"), distance)
    varied = len(names) > 2 and np.ptp(distance) > 0
    fit = float(np.corrcoef(cophenet(tree), distance)[0, 1]) if varied else float("nan")
    family = families_of(names, families)
    labels = [family[name] for name in names]
    cut = fcluster(tree, len(set(labels)), "maxclust").tolist()
    order = tuple(names[i] for i in leaves_list(tree))
    return Dendrogram(tuple(names), tree, order, fit, adjusted_rand(labels, cut))


def adjusted_rand(a: Sequence[object], b: Sequence[object]) -> float:
    """Adjusted Rand index (Hubert & Arabie 1985) of two groupings of the same things; nan where chance already agrees fully."""
    both = sum(math.comb(n, 2) for n in Counter(zip(a, b, strict=True)).values())
    mine, yours = (sum(math.comb(n, 2) for n in Counter(x).values()) for x in (a, b))
    expected = mine * yours / math.comb(len(a), 2)
    most = (mine + yours) / 2
    return (both - expected) / (most - expected) if most != expected else float("nan")
