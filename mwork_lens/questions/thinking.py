"""Thinking against knowing: are attention neurons needed to solve a task and FFN neurons to know a fact, as MWork says?

Of each language its own neurons of the task-solving layers are switched off, those of attention (SA) or those of FFNs (SF), on a task that needs
no knowledge and on one that needs nothing else (`ability_scores` with `score="nll"`). With x the change of log-likelihood beyond matched random sets,

    interaction = [x(thinking, SA) - x(thinking, SF)] - [x(knowing, SA) - x(knowing, SF)]

Below zero is what the paper says: attention matters more to thinking than to knowing. Chance is every random draw taken for the own neurons, against
the other draws: the two sets differ in size, and so do their draws. One row for each language, one for English under the same neurons.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd

from ..ability_tables import ability_changes
from ..evaluate import RESAMPLES, resample

PARTS = ("SA", "SF")
THINKING = ("target", "asked", "thinking_SA", "thinking_SF", "knowing_SA", "knowing_SF", "interaction", "p", "draws")
"""Columns of `thinking_against_knowing`: the four changes beyond chance, their interaction, its two-sided p among random draws."""
MEAN = "all"


def thinking_against_knowing(
    scores: pd.DataFrame, thinking: str, knowing: str, *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """The interaction of structure and task, for every target and for their mean.

    Args:
        scores: From `ability_scores` with both tasks and the rows SA and SF.
        thinking: Name of the task that needs no knowledge.
        knowing: Name of the task that needs knowledge.
        resamples: Of targets, for the interval of the mean.
        seed: Of the resampling.

    Returns:
        Columns `THINKING` and `low`, `high` (95 %, over targets; only of the rows `all`). `asked` is `target` or `English`.

    Raises:
        ValueError: A task or row is missing; fewer than two draws; no target has neurons of both structures.
    """
    changes = ability_changes(scores)
    for name in (thinking, knowing):
        if name not in set(changes["task"]):
            raise ValueError(f"no scores of task {name!r}: there are {', '.join(dict.fromkeys(changes['task']))}")
    if missing := [row for row in PARTS if row not in set(changes["row"])]:
        raise ValueError(f"no scores of row {missing[0]!r}: ask ability_scores for rows={PARTS}")
    made, kept = [], {"target": [], "English": []}
    for target, part in changes[changes["neurons"].isin(["specific", "random"])].groupby("target", sort=False):
        for asked, column in (("target", "d_own"), ("English", "d_eng")):
            wide = part.pivot(index=["neurons", "draw"], columns=["task", "row"], values=column)
            four = wide[[(task, row) for task in (thinking, knowing) for row in PARTS]]
            own, random = four.loc["specific"].to_numpy(float)[0], four.loc["random"].to_numpy(float)
            if np.isnan(own).any():
                continue
            if len(random) < 2:
                raise ValueError(f"{len(random)} random draws say nothing about chance: give at least two")
            made.append((target, asked, *_row(own, random)))
            kept[asked].append((own, random))
    if not made:
        raise ValueError("no target has both attention and FFN neurons in the task-solving layers: take larger sets")
    table = pd.DataFrame(made, columns=list(THINKING)).assign(low=np.nan, high=np.nan)
    for asked, each in kept.items():
        own, random = (np.mean(column, axis=0) for column in zip(*each, strict=True))
        singles = np.array([_interaction(o - r.mean(0)) for o, r in each])
        weights = resample(len(singles), resamples=resamples, seed=seed) / len(singles)
        low, high = np.quantile(weights @ singles, [0.025, 0.975]) if len(singles) > 1 else (np.nan, np.nan)
        table.loc[len(table)] = [MEAN, asked, *_row(own, random), low, high]
    return table


def _interaction(changes: np.ndarray) -> float:
    return float((changes[..., 0] - changes[..., 1] - changes[..., 2] + changes[..., 3]).item())


def _row(own: np.ndarray, random: np.ndarray) -> tuple[float | int, ...]:
    beyond = own - random.mean(0)
    found = _interaction(beyond)
    others = (random.sum(0) - random) / (len(random) - 1)
    null = np.array([_interaction(one) for one in random - others])
    p = (1 + (np.abs(null) >= abs(found)).sum()) / (1 + len(null))
    return *map(float, beyond), found, float(p), len(random)
