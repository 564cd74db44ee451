"""Is knowledge local to the language that stated it? A difference in differences: facts known in one language alone, its neurons off.

    d(item | S)   = log-likelihood of the right answer with S off - without, in nats
    effect(group) = mean d(item | own) - mean d(item | control)
    DiD           = effect(facts known in this language only) - effect(facts known in many)

Below zero: the language's neurons carry what only that language knows. Two traps are met here: any perturbation hurts what is barely known, so the
items of both groups are matched on their log-likelihood before (those outside the range of the other group are left out, the rest weighted within
bins of it); and a language's neurons break the language itself,
which the second group and the random controls take off. Whether the language still works must be reported beside it (`perplexity_scores`).
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..evaluate import RESAMPLES, resample

LOCALITY = (
    "language", "did", "low", "high", "p_random", "only_own", "only_control", "many_own", "many_control", "only", "many", "unmatched", "draws",
)  # fmt: skip
"""Columns of `locality`: the difference in differences, its interval over items, and its place among random draws; then its four means."""

BINS = 5


def locality(
    rows: pd.DataFrame,
    groups: Mapping[tuple[str, str], str],
    *,
    own: str = "own",
    controls: Sequence[str] = (),
    before: str = "none",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """The difference in differences of each language.

    Args:
        rows: Of `answer_nll`: every item under every condition (`own` is that of the item's language).
        groups: `only` or `many` per (language, item); other items are left out.
        own: Condition in which the language's own neurons are off.
        controls: Conditions of matched random sets, at least two.
        before: Condition without any edit.
        resamples: Number of resamples of items.
        seed: Of the resampling.

    Returns:
        Columns `LOCALITY`. `p_random`: two-sided place of the DiD among those of each draw taken for `own` (against the other draws);
        `unmatched`: items of `only` for which no item of `many` was about as well known before, left out; `only` and `many` count those used.

    Raises:
        ValueError: A condition is missing, fewer than two controls, or a language without items of both groups.
    """
    present = list(dict.fromkeys(rows["condition"]))
    if missing := [name for name in (before, own, *controls) if name not in present]:
        raise ValueError(f"no condition {missing[0]!r}: the table has {', '.join(present)}")
    if len(controls) < 2:
        raise ValueError(f"{len(controls)} random controls say nothing about chance: give at least two")
    made = []
    for language in dict.fromkeys(rows["language"]):
        wide = -rows[rows["language"] == language].pivot(index="item", columns="condition", values="nll")
        group = pd.Series({item: groups.get((language, item)) for item in wide.index})
        only, many = (wide[(group == name).to_numpy()] for name in ("only", "many"))
        if only.empty or many.empty:
            raise ValueError(
                f"{language!r} has {len(only)} items known only in it and {len(many)} known in many: both are needed"
            )
        made.append((language, *_of_language(only, many, own, list(controls), before, resamples, seed)))
    return pd.DataFrame(made, columns=list(LOCALITY))


def _of_language(
    only: pd.DataFrame, many: pd.DataFrame, own: str, controls: list[str], before: str, resamples: int, seed: int
) -> tuple[float | int, ...]:
    known = [part[before].to_numpy(float) for part in (only, many)]
    lowest, highest = max(x.min() for x in known), min(x.max() for x in known)
    inside = [(x >= lowest) & (x <= highest) for x in known]
    binned = [np.zeros(0, int)] * 2
    if all(x.any() for x in inside):
        edges = np.quantile(known[0][inside[0]], np.linspace(0, 1, BINS + 1)[1:-1])
        binned = [np.searchsorted(edges, x[chosen]) for x, chosen in zip(known, inside, strict=True)]
    kept = np.isin(binned[0], binned[1])
    if not kept.any():
        raise ValueError(
            "no item known in many languages was about as well known before as those known in one: add items"
        )
    unmatched = len(only) - int(kept.sum())
    only, many, one = only.loc[inside[0]].loc[kept], many.loc[inside[1]], binned[0][kept]
    changes = [part[[own, *controls]].to_numpy(float) - part[[before]].to_numpy(float) for part in (only, many)]

    def means(weights: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean change per condition of both groups, the second weighted to the bins of the first, in bins that hold both."""
        second = np.bincount(binned[1], drawn, BINS)
        weights = weights * (second > 0)[one]
        first = np.bincount(one, weights, BINS)
        scale = np.divide(first, second, out=np.zeros(BINS), where=second > 0)
        matched = drawn * scale[binned[1]]
        total = max(weights.sum(), 1e-12)
        return weights @ changes[0] / total, matched @ changes[1] / total

    def did(first: np.ndarray, second: np.ndarray, at: int = 0) -> float:
        rest = [i for i in range(1, len(controls) + 1) if i != at]
        return float((first[at] - first[rest].mean()) - (second[at] - second[rest].mean()))

    first, second = means(np.ones(len(one)), np.ones(len(many)))
    found = did(first, second)
    null = np.array([did(first, second, at) for at in range(1, len(controls) + 1)])
    p = (1 + (np.abs(null) >= abs(found)).sum()) / (1 + len(null))
    draws = zip(
        resample(len(one), resamples=resamples, seed=seed),
        resample(len(many), resamples=resamples, seed=seed + 1),
        strict=True,
    )
    low, high = np.quantile([did(*means(a, b)) for a, b in draws], [0.025, 0.975])
    four = (first[0], first[1:].mean(), second[0], second[1:].mean())
    return found, low, high, p, *map(float, four), len(only), len(many), unmatched, len(controls)
