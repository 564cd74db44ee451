"""Do methods find the same neurons? Agreement of all detectors from the same texts, by layer, against chance.

Two sets of a and b units among the N of one layer and site, drawn independently and uniformly, share X units:

    X ~ Hypergeometric(N, a, b)        E X = a b / N        Var X = a b (N - a)(N - b) / (N^2 (N - 1))

A layer with several sites, and the model as a whole, add such draws, which are independent: expectations and variances add, and the
distribution is the convolution of theirs, computed exactly. So the layer profile of each method is taken as given: two methods that both like
the last layers gain nothing by it. From that distribution come

    p                P(X >= shared), one-sided
    lift             shared / E X
    jaccard_chance   E[X / (a + b - X)], the Jaccard index expected by chance

and q, the p-values of all rows of the same level under the procedure of Benjamini and Hochberg (1995), which controls the false discovery
rate for tests that are independent or positively dependent. A row whose overlap follows from the sizes alone (a set is empty, or all units)
tests nothing: its p is 1 and its q is nan.

What this chance is not: methods that both prefer units that are often active agree more than uniform draws do, without knowing a language.
To see how much of an agreement is about the language, compare a method with another one's sets of *other* languages (rename them).

The test is ours; the papers report overlaps without chance.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import combinations

import numpy as np
import pandas as pd

from ..neurons import NeuronSet
from ..sites import Site, require_sites

AGREEMENT = (
    "method", "other", "language", "level", "layer", "sites", "units", "size_a", "size_b", "shared",
    "expected", "sd", "lift", "jaccard", "jaccard_chance", "p", "q",
)  # fmt: skip
"""Columns of `agreement`: one row a pair of methods, language and layer (`level` is "layer"), and one in total (`layer` is missing there)."""


def shared_by_chance(a: int, b: int, units: int) -> np.ndarray:
    """Distribution of the number of units that two random sets share: entry i is P(X = i), i = 0..min(a, b).

    Args:
        a: Size of one set.
        b: Size of the other.
        units: Units that both are drawn from, uniformly and independently.

    Raises:
        ValueError: A size is negative or above `units`.
    """
    from scipy.stats import hypergeom

    for size in (a, b):
        if not 0 <= size <= units:
            raise ValueError(f"a set of {size} units cannot be drawn from {units}: sizes lie between 0 and {units}")
    if 0 in (a, b):
        return np.ones(1)
    return hypergeom.pmf(np.arange(min(a, b) + 1), units, a, b)


def expected_jaccard(a: int, b: int, distribution: np.ndarray) -> float:
    """Expected Jaccard index of random sets of `a` and `b` units that share a number of units with this distribution; nan if both are empty."""
    if not a + b:
        return float("nan")
    shared = np.arange(len(distribution))
    return float(distribution @ (shared / (a + b - shared)))


def agreement(detectors: Mapping[str, Mapping[str, NeuronSet]], *, sites: Iterable[str] | None = None) -> pd.DataFrame:
    """Overlap of every pair of methods, per language, by layer and in total, against chance.

    Args:
        detectors: Per method, its sets per language, as `lape`, `specific` and the other detectors return them.
        sites: Compare only these; default, for each pair, the sites that both methods speak about (the column `sites` names them).

    Returns:
        Columns `AGREEMENT`. `units` are those of the compared sites (per layer, or in all), `size_a` and `size_b` the sizes of the sets of
        `method` and `other` there, `expected` and `sd` mean and standard deviation of the shared units under chance. `jaccard` is nan where
        both sets are empty, `lift` where none is expected.

    Raises:
        ValueError: Fewer than two methods; a language that only some methods have; methods without a common site, or without a site that was
            asked for; sets of different models or shapes.
    """
    if len(detectors) < 2:
        raise ValueError(
            f"agreement compares methods: give the sets of at least two, got {', '.join(detectors) or 'none'}"
        )
    asked = None if sites is None else require_sites(sites)
    languages = _languages(detectors)
    rows = []
    for (method, mine), (other, yours) in combinations(detectors.items(), 2):
        for language in languages:
            a, b = mine[language], yours[language]
            compared = _comparable((method, a), (other, b), language, asked)
            head = (method, other, language)
            rows += [(*head, *row) for row in _rows(a, b, compared)]
    table = pd.DataFrame(rows, columns=[*AGREEMENT[:-1], "fixed"])
    table["layer"] = table["layer"].astype("Int64")
    table["q"] = np.nan
    for level in ("layer", "total"):
        tested = (table["level"] == level) & ~table["fixed"].astype(bool)
        table.loc[tested, "q"] = _benjamini_hochberg(table.loc[tested, "p"].to_numpy(float))
    return table[list(AGREEMENT)]


def _languages(detectors: Mapping[str, Mapping[str, NeuronSet]]) -> list[str]:
    """The languages, which all methods must have."""
    languages = list(dict.fromkeys(language for sets in detectors.values() for language in sets))
    if not languages:
        raise ValueError(f"no language to compare: the methods {', '.join(detectors)} have no sets")
    for method, sets in detectors.items():
        if missing := [language for language in languages if language not in sets]:
            holder = next(name for name, held in detectors.items() if missing[0] in held)
            raise ValueError(
                f"method {method!r} has no set for language {missing[0]!r}, which {holder!r} has: run all methods on the same "
                "languages (one without neurons keeps an empty set), or leave that language out"
            )
    return languages


def _comparable(
    one: tuple[str, NeuronSet], two: tuple[str, NeuronSet], language: str, asked: Sequence[Site] | None
) -> tuple[Site, ...]:
    """The sites on which the two sets are compared."""
    (method, a), (other, b) = one, two
    if a.model and b.model and a.model != b.model:
        raise ValueError(
            f"methods {method!r} and {other!r} were run on different models ({a.model} and {b.model}, language {language!r}): "
            "their neurons are not the same units"
        )
    if asked is not None:
        for name, neurons in (one, two):
            if absent := [site for site in asked if site not in neurons.masks]:
                raise ValueError(
                    f"method {name!r} says nothing about site {absent[0]!r} (language {language!r}): it has {', '.join(neurons.sites)}"
                )
    common = tuple(site for site in a.sites if site in b.masks and (asked is None or site in asked))
    if not common:
        raise ValueError(
            f"methods {method!r} and {other!r} have no site in common (language {language!r}): "
            f"{', '.join(a.sites)} and {', '.join(b.sites)}"
        )
    for site in common:
        if a.shapes[site] != b.shapes[site]:
            raise ValueError(
                f"methods {method!r} and {other!r} differ in site {site!r}: [layer, width] {list(a.shapes[site])} vs "
                f"{list(b.shapes[site])} - detected on another model?"
            )
    return common


def _rows(a: NeuronSet, b: NeuronSet, sites: Sequence[Site]) -> list[tuple]:
    """A row per layer, and the total: from `level` to `p`, and whether the sizes leave no choice."""
    by_layer: list[list[tuple[int, ...]]] = [
        [
            (a.shapes[site][1], *(int(mask[layer].sum()) for mask in (a.masks[site], b.masks[site], a.masks[site] & b.masks[site])))
            for site in sites
        ]
        for layer in range(a.n_layers)
    ]  # fmt: skip
    layers = [_convolve([shared_by_chance(x, y, units) for units, x, y, _ in cells]) for cells in by_layer]
    places = ", ".join(sites)
    rows = [
        ("layer", layer, places, *_row(cells, chance))
        for layer, (cells, chance) in enumerate(zip(by_layer, layers, strict=True))
    ]
    everything = [cell for cells in by_layer for cell in cells]
    return [*rows, ("total", None, places, *_row(everything, _convolve(layers)))]


def _row(cells: Sequence[tuple[int, ...]], chance: np.ndarray) -> tuple:
    units, a, b, shared = (sum(column) for column in zip(*cells, strict=True))
    expected = sum(x * y / n for n, x, y, _ in cells)
    variance = sum(x * y * (n - x) * (n - y) / (n * n * (n - 1)) for n, x, y, _ in cells if n > 1)
    union = a + b - shared
    return (
        units, a, b, shared, expected, variance**0.5,
        shared / expected if expected else float("nan"),
        shared / union if union else float("nan"),
        expected_jaccard(a, b, chance),
        _upper_tail(chance, shared),
        all(x in (0, n) or y in (0, n) for n, x, y, _ in cells),
    )  # fmt: skip


def _upper_tail(chance: np.ndarray, shared: int) -> float:
    """P(X >= shared), exactly 1 where nothing smaller is possible."""
    upper, lower = float(chance[shared:].sum()), float(chance[:shared].sum())
    return upper / (upper + lower)


def _convolve(distributions: Sequence[np.ndarray]) -> np.ndarray:
    """Distribution of the sum of independent counts. Sums of products of positive numbers: small tails keep their digits, as under no FFT."""
    return reduce(np.convolve, distributions, np.ones(1))


def _benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    from scipy.stats import false_discovery_control

    return false_discovery_control(p) if len(p) else p
