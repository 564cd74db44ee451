"""Tables of steering: language accuracy with its price, and damage elsewhere. Pure functions of responses, and one that scores texts."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ..corpora import Corpus
from ..edits import applied
from ..evaluate import RESAMPLES, prepare, resample
from ..languages import UNKNOWN
from ..neurons import NeuronSet
from ..writing.confusion import wilson
from .responses import DOSE, RESPONSES, Dose, steering_cells
from .switch import AnyMoments

STEERING = (
    *("source", "target", "condition", "how", "value", "strength", "phase", "off_value", "responses"),
    *("accuracy", "accuracy_low", "accuracy_high", "in_source", "unknown", "empty"),
    *("nll", "nll_low", "nll_high", "repetition", "draw_low", "draw_high"),
)
"""Columns of `steering_table`."""


def steering_table(responses: pd.DataFrame, *, targets: Sequence[str] | None = None, seed: int = 0) -> pd.DataFrame:
    """Language accuracy with its price, per source, target, condition and dose.

    Args:
        responses: From `steering_responses`.
        targets: For the rows of `none` and `off`, which have none: languages whose accuracy is asked; default those of the other rows.
        seed: Of the bootstrap over prompts.

    Returns:
        Columns `STEERING`. `accuracy` is the share of responses in the target language (95 % Wilson interval; an empty or unidentified
        response counts as a failure), `in_source` that in the prompt's; `nll` the mean over responses of the fluency under the unsteered model, with
        a bootstrap interval over prompts; `repetition` the share of repeated 3-grams. For `random`, accuracy is the mean over draws, its interval
        resamples prompts, and `draw_low` and `draw_high` are the smallest and largest accuracy of a draw (nan for other conditions).

    Raises:
        ValueError: The table lacks columns or rows, or names no target.
    """
    if missing := [column for column in RESPONSES if column not in responses]:
        raise ValueError(f"the responses lack the column {missing[0]!r}: give them as steering_responses makes them")
    if not len(responses):
        raise ValueError("no responses: there is nothing to count")
    asked = list(targets or dict.fromkeys(name for name in responses["target"] if name))
    if not asked:
        raise ValueError("these responses have no target: say whose accuracy is asked, with targets=[...]")
    rows = []
    for (source, target, condition, *dose), part in responses.groupby(list(DOSE[:-1]), sort=False, dropna=False):
        for language in [target] if target else [name for name in asked if name != source]:
            right = part["identified"] == language
            chance = condition == "random"  # the same prompts in every draw
            low, high = (
                _bootstrap(right.groupby(part["prompt"]).mean().to_numpy(float), seed)
                if chance
                else wilson(int(right.sum()), len(part))
            )
            by_draw = right.groupby(part["draw"]).mean()
            nll = part.dropna(subset="nll").groupby("prompt")["nll"].mean()
            edges = _bootstrap(nll.to_numpy(float), seed)
            ends = (by_draw.min(), by_draw.max()) if chance else (np.nan, np.nan)
            rows.append((
                source, language, condition, *dose, len(part), right.mean(), low, high, (part["identified"] == source).mean(),
                (part["identified"] == UNKNOWN).mean(), (part["tokens"] == 0).mean(), nll.mean(), *edges, part["repetition"].mean(), *ends,
            ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(STEERING))


def _bootstrap(values: np.ndarray, seed: int) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    means = resample(len(values), resamples=RESAMPLES, seed=seed) @ values / len(values)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def damage(
    model: Any,
    texts: Mapping[str, Corpus],
    sets: Mapping[str, NeuronSet],
    moments: Mapping[str, AnyMoments],
    *,
    targets: Sequence[str] | None = None,
    source: str = "en",
    conditions: Sequence[str] = ("off", "on", "both", "random"),
    doses: Sequence[Dose] = (Dose(),),
    values: Mapping[str, Tensor] | None = None,
    draws: int = 3,
    seed: int = 0,
    size: int = 16,
    length: int | None = None,
) -> pd.DataFrame:
    """Off-target damage: the change of the loss on texts of every language under the edits that steer from `source` to each target.

    Args:
        model: What `load_model` returned.
        texts: Held-out documents per language.
        sets: Neurons per language.
        moments: Per language, of site `ffn_act`.
        targets: Languages switched on; default all of `sets`.
        source: Language switched off.
        conditions: Of `CONDITIONS`, without `none`.
        doses: How neurons are switched. A `phase` makes no sense for texts that are read, and must be `all`.
        values: As in `steering_responses`.
        draws: Random sets for `random`.
        seed: Of the random sets and the bootstrap.
        size: Documents per batch.
        length: Tokens per document at most.

    Returns:
        Columns `DOSE`, language, dnll (nats per token; above zero is harm), dnll_low, dnll_high (95 % document bootstrap, paired).

    Raises:
        ValueError: As `steering_responses`; a dose with another phase than `all`.
    """
    if any(dose.phase != "all" for dose in doses):
        raise ValueError(
            "damage is measured on texts that are read, which have no prompt and no new tokens: use phase='all'"
        )
    pairs = [(source, target) for target in targets or sets if target != source]
    if not pairs:
        raise ValueError(f"nothing to steer from {source!r}: targets are {', '.join(targets or sets) or 'none'}")
    ready = prepare(model, texts, size=size, length=length)
    before, tokens = ready.scores(model), ready.names["tokens"].to_numpy(float)
    rows = []
    for cell in steering_cells(model, pairs, sets, moments, conditions, doses, draws, seed, values):
        if not cell.edits:
            continue
        with applied(model, *cell.edits):
            gap = ready.scores(model) - before
        for language in texts:
            mine = (ready.names["language"] == language).to_numpy()
            weights = resample(int(mine.sum()), seed=seed)
            low, high = np.quantile((weights @ gap[mine]) / (weights @ tokens[mine]), [0.025, 0.975])
            change = gap[mine].sum() / tokens[mine].sum()
            rows.append(
                (cell.source, cell.target, cell.condition, *astuple(cell.dose), cell.draw, language, change, low, high)
            )
    return pd.DataFrame(rows, columns=[*DOSE, "language", "dnll", "dnll_low", "dnll_high"])
