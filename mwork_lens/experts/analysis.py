"""How alike are languages in the experts they use?

    of two languages' frequencies f, all experts of all layers as one vector:
    pearson, spearman    correlation; `per_layer`: the mean over layers of Pearson r
    jaccard              of the sets {f >= high}
    js                   1 - Jensen-Shannon divergence, in bits, of f / sum f

Experts that every language uses push all of these up, so they can be removed, or the mean over languages subtracted (`shared`). The measure of
Liu et al. 2024 (arXiv 2402.16367) is not known (its figures are heat maps). Kinship of languages is tested in kinship.py.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from ..languages import require_language
from .frequencies import ExpertCounts, require_same, tokens_needed
from .scores import require

Measure = Literal["pearson", "spearman", "per_layer", "jaccard", "js"]
Shared = Literal["keep", "remove", "subtract"]


def stacked(frequencies: Mapping[str, Any], languages: Sequence[str] | None = None, *, least: int = 2) -> np.ndarray:
    """Frequencies [language layer expert], float64, checked.

    Args:
        frequencies: Per language, frequencies [layer expert] or `ExpertCounts`.
        languages: Which, in this order; default all.
        least: Languages that are needed.

    Warns:
        UserWarning: A language has fewer tokens than `tokens_needed()`.

    Raises:
        ValueError: A language is missing, there are fewer than `least`, shapes differ, a value is no share of tokens, or counts are of different
            models, partitions or ways of selecting.
    """
    chosen = list(frequencies) if languages is None else list(languages)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"a language is named twice among {chosen}: name each once")
    if missing := [language for language in chosen if language not in frequencies]:
        raise ValueError(
            f"language {missing[0]!r} is missing from the frequencies, which have {', '.join(frequencies) or 'none'}: count it too"
        )
    if len(chosen) < least:
        raise ValueError(f"at least {least} languages are needed, got {chosen}: count experts for more languages")
    values = [frequencies[language] for language in chosen]
    counted = [value for value in values if isinstance(value, ExpertCounts)]
    for other in counted[1:]:
        require_same(counted[0], other)
    few = {name: int(x.tokens) for name, x in zip(chosen, values, strict=True) if isinstance(x, ExpertCounts)}
    if short := {name: n for name, n in few.items() if n < tokens_needed()}:
        listed = ", ".join(f"{name} {n}" for name, n in short.items())
        warnings.warn(
            f"too few tokens ({listed}): {tokens_needed()} per language are needed to know a frequency to within 0.05",
            stacklevel=3,
        )
    arrays = [np.asarray(x.frequency() if isinstance(x, ExpertCounts) else x, dtype=np.float64) for x in values]
    for name, array in zip(chosen, arrays, strict=True):
        if array.ndim != 2 or array.shape != arrays[0].shape:
            raise ValueError(
                f"frequencies must be [layer, expert] of one shape: {name!r} has {list(array.shape)}, {chosen[0]!r} has {list(arrays[0].shape)}"
            )
        if not np.all((array >= 0) & (array <= 1)):
            raise ValueError(
                f"the frequencies of {name!r} are not all between 0 and 1: give shares of tokens, not counts"
            )
    return np.stack(arrays)


def layers_of(frequencies: Mapping[str, Any]) -> list[int]:
    """The layer of each row: that of the counts, or 0, 1, ... for plain frequencies."""
    first = next(iter(frequencies.values()))
    return list(first.layers) if isinstance(first, ExpertCounts) else list(range(first.shape[0]))


def frequency_table(frequencies: Mapping[str, Any]) -> pd.DataFrame:
    """Frequencies as one row per language, layer and expert: what heat maps draw.

    Returns:
        Columns language, layer, expert, frequency.
    """
    f = stacked(frequencies, least=1)
    index = pd.MultiIndex.from_product(
        [list(frequencies), layers_of(frequencies), range(f.shape[2])], names=["language", "layer", "expert"]
    )
    return pd.DataFrame({"frequency": f.ravel()}, index=index).reset_index()


def similarity(
    frequencies: Mapping[str, Any],
    *,
    measure: str = "pearson",
    shared: str = "keep",
    high: float = 0.5,
    languages: Sequence[str] | None = None,
) -> pd.DataFrame:
    """How alike languages are in the experts they use.

    Args:
        frequencies: Per language, frequencies [layer expert] or `ExpertCounts`.
        measure: See the module; a correlation is nan where a language uses all experts alike, `jaccard` where both sets are empty.
        shared: `keep` all experts, `remove` those with f >= high in every language, or `subtract` the mean over languages (correlations only).
        high: From which frequency on an expert is used, for `jaccard` and `remove`.
        languages: Which, in this order; default all.

    Returns:
        Columns language, other, measure, shared, similarity; all ordered pairs, the diagonal included.

    Raises:
        ValueError: As `stacked`; a name is unknown; `subtract` with `jaccard` or `js`; fewer than three experts are left.
    """
    require("measure", measure, get_args(Measure))
    require("shared", shared, get_args(Shared))
    _require_share("high", high)
    if shared == "subtract" and measure in ("jaccard", "js"):
        raise ValueError(
            f"shared='subtract' leaves differences, which measure={measure!r} does not compare: use 'remove'"
        )
    f = stacked(frequencies, languages)
    if shared == "subtract" and len(f) < 3:
        raise ValueError(
            "shared='subtract' needs three languages: of two, what is left is one the negative of the other"
        )
    kept = np.ones(f.shape[1:], dtype=bool) if shared != "remove" else ~(f >= high).all(0)
    if kept.sum() < 3:
        raise ValueError(
            f"{kept.sum()} experts are left to compare languages by, and 3 are needed: use shared='keep' or a larger `high`"
        )
    if shared == "subtract":
        left = f - f.mean(0)
        left[np.abs(left).max((1, 2)) <= 1e-12] = 0.0  # a language that is the mean has nothing left but rounding
        f = left
    if measure == "per_layer":
        per_layer = [_correlations(f[:, i, kept[i]]) for i in range(f.shape[1]) if kept[i].sum() >= 3]
        matrix = np.stack(per_layer).mean(0) if per_layer else np.full((len(f), len(f)), np.nan)
    else:
        matrix = _matrix(f[:, kept], measure, high)
    names = list(frequencies) if languages is None else list(languages)
    rows = [(a, b, measure, shared, float(matrix[i, j])) for i, a in enumerate(names) for j, b in enumerate(names)]
    return pd.DataFrame(rows, columns=["language", "other", "measure", "shared", "similarity"])


def _matrix(f: np.ndarray, measure: str, high: float) -> np.ndarray:
    """Of the rows of f [language expert]."""
    if measure == "pearson":
        return _correlations(f)
    if measure == "spearman":
        from scipy.stats import rankdata

        return _correlations(rankdata(f, axis=1))
    if measure == "jaccard":
        used = (f >= high).astype(np.float64)
        both = used @ used.T
        either = used.sum(1)[:, None] + used.sum(1)[None] - both
        return np.divide(both, either, out=np.full_like(both, np.nan), where=either > 0)
    from scipy.special import rel_entr

    total = f.sum(1, keepdims=True)
    if not total.all():
        raise ValueError("a language uses none of the experts compared, so measure='js' is not defined: use 'pearson'")
    p = f / total
    mid = (p[:, None] + p[None]) / 2
    half = rel_entr(p[:, None], mid).sum(-1) / np.log(2)
    return 1 - (half + half.T) / 2


def _correlations(f: np.ndarray) -> np.ndarray:
    """Pearson r between rows; nan with a row that is constant."""
    centred = f - f.mean(1, keepdims=True)
    norm = np.sqrt((centred**2).sum(1))
    norm[norm <= 1e-12 * np.sqrt((f**2).sum(1))] = np.nan
    return np.clip((centred / norm[:, None]) @ (centred / norm[:, None]).T, -1, 1)


def families_of(languages: Sequence[str], families: Mapping[str, str] | None = None) -> dict[str, str]:
    """Family of each language: what `families` says, else what this package knows.

    Raises:
        ValueError: A language is in neither.
    """
    given = families or {}
    return {code: given[code] if code in given else require_language(code).family for code in languages}


def _require_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name}={value} is no frequency: give a number above 0, at most 1, such as 0.5")
