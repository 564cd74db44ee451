"""What goes with a language's P@1: how much text the model read in it, into how many tokens its objects fall.

    r          Pearson's or Spearman's correlation over languages of P@1 with a factor, raw or as its natural logarithm
    interval   tanh(atanh(r) -+ 1.96 s),   s = 1 / sqrt(n - 3) for Pearson (Fisher),   sqrt((1 + r^2 / 2) / (n - 3)) for Spearman
               (Bonett & Wright 2000)

Reference: Zhao, Yoshinaga & Oba 2024, "Tracing the Roots of Facts in Multilingual Language Models" (arXiv 2403.05189), section 4: Pearson's r
of 53 values of P@1 with five sizes of Wikipedia. They give no interval; with 53 languages an r of .51 has [.28, .69]. The sizes span four
orders of magnitude, so that Pearson's r hangs on a few large languages: Spearman's, and the logarithm, stand beside it. Languages are
related, and no independent draws: the intervals are too narrow for that reason.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .judged import judged

CORRELATIONS = ("factor", "scale", "method", "r", "low", "high", "languages")
"""Columns of `factor_correlations`."""
BY_TOKENS = ("language", "object_tokens", "queries", "correct", "p_at_1", "low", "high")
"""Columns of `precision_by_tokens`."""
METHODS = ("pearson", "spearman")
SCALES = ("raw", "log")

_Z = 1.959963984540054  # 97.5 % of the normal distribution


def fisher_interval(r: float, n: int, *, method: str = "pearson") -> tuple[float, float]:
    """95 % interval of a correlation over n points, by Fisher's transformation.

    Args:
        r: The correlation.
        n: Number of points.
        method: `"pearson"` or `"spearman"`.

    Raises:
        ValueError: Fewer than four points, r outside [-1, 1], or an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown: choose from {', '.join(METHODS)}")
    if n < 4:
        raise ValueError(f"a correlation over {n} points has no interval: give at least 4")
    if math.isnan(r):
        return math.nan, math.nan
    if abs(r) > 1:
        raise ValueError(f"r={r} is no correlation: it must lie between -1 and 1")
    if abs(r) == 1:
        return r, r
    spread = _Z * math.sqrt((1 + r * r / 2 if method == "spearman" else 1) / (n - 3))
    return math.tanh(math.atanh(r) - spread), math.tanh(math.atanh(r) + spread)


def factor_correlations(
    p_at_1: Mapping[str, float] | pd.Series,
    factors: Mapping[str, Mapping[str, float] | pd.Series] | pd.DataFrame,
    *,
    methods: Sequence[str] = METHODS,
    scales: Sequence[str] = SCALES,
) -> pd.DataFrame:
    """Correlation of P@1 with each factor over the languages that have both.

    Args:
        p_at_1: P@1 per language, in any unit.
        factors: Per factor, a number per language; or a table with a column per factor and a row per language.
        methods: Of `METHODS`.
        scales: Of `SCALES`; Spearman's does not change under a logarithm and has one row, scale raw.

    Returns:
        Columns `CORRELATIONS`: r between -1 and 1, its 95 % interval, the number of languages.

    Raises:
        ValueError: An unknown method or scale; fewer than four languages in common; a factor or P@1 that is the same in all of them, or is
            not a finite number; the logarithm of a factor that is not positive.
    """
    from scipy.stats import pearsonr, spearmanr

    for given, known, what in ((methods, METHODS, "method"), (scales, SCALES, "scale")):
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"{what} {unknown[0]!r} is unknown: choose from {', '.join(known)}")
    scores = pd.Series(dict(p_at_1), dtype=float)
    rows = []
    for factor in factors:
        values = pd.Series(dict(factors[factor]), dtype=float)
        shared = [language for language in scores.index if language in values.index]
        x, y = values[shared].to_numpy(), scores[shared].to_numpy()
        _require_usable(str(factor), shared, x, y)
        for scale in scales:
            if scale == "log" and (x <= 0).any():
                language = shared[int(np.argmax(x <= 0))]
                raise ValueError(
                    f"factor {factor!r} is {values[language]:g} for {language!r} and has no logarithm: use scales=['raw']"
                )
            scaled = np.log(x) if scale == "log" else x
            for method in methods:
                if method == "spearman" and scale != "raw" and "raw" in scales:
                    continue
                r = float((pearsonr if method == "pearson" else spearmanr)(scaled, y)[0])
                low, high = fisher_interval(max(-1.0, min(1.0, r)), len(shared), method=method)
                rows.append((factor, "raw" if method == "spearman" else scale, method, r, low, high, len(shared)))
    return pd.DataFrame(rows, columns=list(CORRELATIONS))


def usable_correlations(
    p_at_1: Mapping[str, float] | pd.Series, factors: Mapping[str, Mapping[str, float] | pd.Series]
) -> tuple[pd.DataFrame, list[str]]:
    """`factor_correlations` of what can be used: a language without a number is left out of its factor, and a factor that is not positive has no
    row of scale log.

    Args:
        p_at_1: P@1 per language.
        factors: Per factor, a number per language; some may be missing.

    Returns:
        Columns `CORRELATIONS`, and what was left out and why, a sentence each.
    """
    scores = pd.Series(dict(p_at_1), dtype=float)
    tables, said = [], []
    for factor, given in factors.items():
        values = pd.Series(dict(given), dtype=float).reindex(scores.index)
        usable = values[np.isfinite(values)]
        if lost := [str(language) for language in scores.index if language not in usable.index]:
            said.append(f"factor {factor!r} has no number for {', '.join(lost)}: left out of its correlations")
        scales = SCALES
        if len(low := usable[usable <= 0]):
            said.append(f"factor {factor!r} is {low.iloc[0]:g} for {low.index[0]!r}: no correlation with its logarithm")
            scales = ("raw",)
        try:
            tables.append(factor_correlations(scores, {factor: usable}, scales=scales))
        except ValueError as error:
            said.append(f"no correlations: {error}")
    return (pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(CORRELATIONS))), said


def token_counts(predictions: pd.DataFrame) -> pd.Series:
    """Mean number of tokens of the objects asked for, per language: the factor "mask tokens".

    Args:
        predictions: With columns language and object_tokens, one row a query.
    """
    _require_columns(predictions, ("language", "object_tokens"))
    return predictions.groupby("language", sort=False)["object_tokens"].mean()


def precision_by_tokens(predictions: pd.DataFrame, *, metric: str = "full") -> pd.DataFrame:
    """P@1 by how many tokens the object has, per language, with Wilson's 95 % interval.

    Micro: a query counts once. Longer objects are matched less often by chance and by whatever else makes them long.

    Args:
        predictions: One row a query, as `probe` gives it.
        metric: What is correct: one of `judged.METRICS`, or a column of booleans.

    Returns:
        Columns `BY_TOKENS`; p_at_1 between 0 and 1.

    Raises:
        ValueError: A column is missing.
    """
    _require_columns(predictions, ("language", "object_tokens"))
    predictions = judged(predictions, metric)
    rows = []
    for (language, tokens), part in predictions.groupby(["language", "object_tokens"], sort=True):
        n, correct = len(part), int(part[metric].sum())
        rows.append((language, int(tokens), n, correct, correct / n, *wilson_interval(correct, n)))
    return pd.DataFrame(rows, columns=list(BY_TOKENS))


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n."""
    p, z = correct / n, _Z
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))


def _require_usable(factor: str, shared: list[str], x: np.ndarray, y: np.ndarray) -> None:
    if len(shared) < 4:
        raise ValueError(
            f"factor {factor!r} and P@1 have {len(shared)} language(s) in common ({', '.join(shared) or 'none'}): "
            "a correlation with an interval needs at least 4"
        )
    for name, values in ((f"factor {factor!r}", x), ("P@1", y)):
        if not np.isfinite(values).all():
            language = shared[int(np.argmin(np.isfinite(values)))]
            raise ValueError(f"{name} is not a finite number for {language!r}: leave the language out")
        if np.ptp(values) == 0:
            raise ValueError(
                f"{name} is {values[0]:g} in all {len(shared)} languages: what does not vary has no correlation"
            )


def _require_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in table.columns]:
        raise ValueError(f"predictions have no column {missing[0]!r}, only {', '.join(map(str, table.columns))}")
