"""What patched runs say, with intervals over pairs. Pure functions of the table of `patching_scores`.

    difference(run) = logp(right) - logp(wrong)
    recovery        = (difference(patched) - difference(unpatched)) / (difference(given) - difference(unpatched))

Recovery is a ratio of means over pairs, not a mean of ratios, which one pair without an effect would blow up. 0: nothing changed; 1: the target
says what the source says. Where the 95 % interval of the denominator holds 0, source and target do not differ for sure: there is nothing to recover,
and recovery is NaN.

`carried` is for candidates that cross content and language (`source content in the target's language` ...): the probability of each, and which is
likeliest, layer by layer.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..evaluate import RESAMPLES, resample

PLACE = ["source", "target", "site", "layer", "head", "position"]
RECOVERY = (*PLACE, "unpatched", "given", "patched", "recovery", "low", "high", "pairs")
"""Columns of `recovery`: mean logit differences, and the share recovered with its 95 % interval."""
CARRIED = (
    *PLACE,
    "candidate",
    "probability",
    "low",
    "high",
    "likeliest",
    "likeliest_low",
    "likeliest_high",
    "unpatched",
    "given",
    "pairs",
)
"""Columns of `carried`: mean probability among the candidates, and the share of pairs in which the candidate is the likeliest."""


def recovery(
    table: pd.DataFrame, right: str = "source", wrong: str = "target", *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """How far patching brings the target's logit difference to the source's.

    Args:
        table: From `patching_scores`.
        right: Candidate that the source favours.
        wrong: Candidate that the target favours.
        resamples: Number of resamples of pairs.
        seed: Of the resampling.

    Returns:
        Columns `RECOVERY`, a row per languages, site, layer, head and position; recovery and its interval are NaN where the interval of
        difference(given) - difference(unpatched) holds 0.

    Raises:
        ValueError: A candidate is not in the table, or the two are the same.
    """
    known = list(dict.fromkeys(table["candidate"]))
    if missing := [name for name in (right, wrong) if name not in known]:
        raise ValueError(f"no candidate {missing[0]!r}: the table has {', '.join(known)}")
    if right == wrong:
        raise ValueError(f"right and wrong are both {right!r}: a difference needs two candidates")
    rows = []
    for place, group in table.groupby(PLACE, sort=False):
        sides = [group[group["candidate"] == name].set_index("pair") for name in (right, wrong)]
        one, two = sides[0], sides[1].loc[sides[0].index]
        differ = {c: (one[c] - two[c]).to_numpy(float) for c in ("logp", "unpatched", "given")}
        weights = resample(len(one), resamples=resamples, seed=seed)
        gained, whole = differ["logp"] - differ["unpatched"], differ["given"] - differ["unpatched"]
        effect = weights @ whole
        share, low, high = np.nan, np.nan, np.nan
        least, most = np.quantile(effect, [0.025, 0.975])
        if least > 0 or most < 0:
            drawn = (weights @ gained)[effect != 0] / effect[effect != 0]
            share, (low, high) = gained.mean() / whole.mean(), np.quantile(drawn, [0.025, 0.975])
        rows.append(
            (
                *place,
                differ["unpatched"].mean(),
                differ["given"].mean(),
                differ["logp"].mean(),
                share,
                low,
                high,
                len(one),
            )
        )
    return pd.DataFrame(rows, columns=list(RECOVERY))


def carried(
    table: pd.DataFrame, candidates: Sequence[str] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Which candidate the patched target says.

    Args:
        table: From `patching_scores`.
        candidates: Which to compare; default all. Probabilities are among these.
        resamples: Number of resamples of pairs.
        seed: Of the resampling.

    Returns:
        Columns `CARRIED`, a row per languages, site, layer, head, position and candidate.

    Raises:
        ValueError: Fewer than two candidates, or one that is not in the table; a pair that lacks one.
    """
    known = list(dict.fromkeys(table["candidate"]))
    names = known if candidates is None else list(candidates)
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"no candidate {missing[0]!r}: the table has {', '.join(known)}")
    if len(names) < 2:
        raise ValueError("one candidate says nothing: compare at least two")
    rows = []
    for place, group in table.groupby(PLACE, sort=False):
        wide = {
            c: group.pivot(index="pair", columns="candidate", values=c)[names] for c in ("logp", "unpatched", "given")
        }
        if wide["logp"].isna().any(axis=None):
            raise ValueError("some pairs lack a candidate that others have: give every pair the same names")
        shares = {c: _softmax(values.to_numpy(float)) for c, values in wide.items()}
        best = _best(shares["logp"])
        weights = resample(len(best), resamples=resamples, seed=seed) / len(best)
        for i, name in enumerate(names):
            low, high = np.quantile(weights @ shares["logp"][:, i], [0.025, 0.975])
            first, last = np.quantile(weights @ best[:, i], [0.025, 0.975])
            rows.append(
                (*place, name, shares["logp"][:, i].mean(), low, high, best[:, i].mean(), first, last,
                 shares["unpatched"][:, i].mean(), shares["given"][:, i].mean(), len(best))
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(CARRIED))


def _softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _best(shares: np.ndarray) -> np.ndarray:
    """1 for the likeliest of a row, shared by those that tie."""
    top = shares == shares.max(axis=1, keepdims=True)
    return top / top.sum(axis=1, keepdims=True)
