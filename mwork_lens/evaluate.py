"""Score a model on held-out texts; differences with paired intervals. It never knows what a neuron is.

The score of a document is its negative log-likelihood, in nats, summed over its kept tokens; every condition is scored on the same tokens.
A mean is a ratio of sums (nats per token), and intervals come from resampling documents, the same resample for every condition and, where
texts are parallel, for every language: `with deactivate(model, neurons): evaluate(model, texts)` beside `evaluate(model, texts)`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from .capture import forward
from .corpora import Corpus, Tokens, batches

SCORES = ("condition", "language", "document", "nll", "tokens")
"""Columns of `evaluate`: one row a document."""
DIFFERENCES = ("language", "before", "after", "change", "low", "high", "documents", "tokens")
"""Columns of `difference`: one row a language."""

RESAMPLES = 1000


def document_nll(model: Any, tokens: Tokens) -> Float[Tensor, " batch"]:
    """Negative log-likelihood of each document, in nats, summed over kept tokens (the first token is kept only behind a BOS).

    Raises:
        ValueError: The model returns NaN or infinite logits.
    """
    logits = forward(model, tokens)[:, :-1].float()
    targets = tokens.ids[:, 1:].to(logits.device)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    scored = tokens.keep[:, 1:].to(losses.device)
    sums = torch.where(scored, losses, torch.zeros_like(losses)).double().sum(1).cpu()
    if not bool(torch.isfinite(sums).all()):
        bad = (~torch.isfinite(sums)).nonzero().flatten().tolist()
        names = ", ".join(tokens.documents[i] if tokens.documents else f"row {i}" for i in bad)
        raise ValueError(f"NaN or infinite logits in {names}: load the model with dtype='float32', or soften the edit")
    return sums


def evaluate(
    model: Any,
    texts: Mapping[str, Corpus],
    languages: Sequence[str] | None = None,
    *,
    condition: str = "baseline",
    size: int = 16,
    length: int | None = None,
) -> pd.DataFrame:
    """NLL of every document.

    Args:
        model: What `load_model` returned; any edit in force applies.
        texts: Held-out documents per language.
        languages: Which to score, default all.
        condition: Label of the rows.
        size: Documents per batch; keep it fixed across conditions.
        length: Tokens per document at most.

    Returns:
        Columns `SCORES`: condition, language, document, nll (nats, summed), tokens.

    Raises:
        ValueError: A language has no texts, or logits are not finite.
    """
    rows = []
    for language in languages or texts:
        if language not in texts:
            raise ValueError(f"no held-out texts for language {language!r}: there are {', '.join(texts) or 'none'}")
        for tokens in batches(texts[language], model, size=size, length=length):
            counted = tokens.keep[:, 1:].sum(1).tolist()
            rows += [(condition, language, *row) for row in zip(tokens.documents, document_nll(model, tokens).tolist(), counted, strict=True)]
    return pd.DataFrame(rows, columns=list(SCORES))


def resample(documents: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Bootstrap weights [resample doc]: how often each document is drawn; the same for all conditions."""
    return np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=resamples).astype(float)


def difference(after: pd.DataFrame, before: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Change of mean NLL per token and language, with 95 % paired document-bootstrap intervals.

    Args:
        after: `evaluate` under an edit.
        before: `evaluate` without it, of the same documents.
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        Columns `DIFFERENCES`; `change` = after - before in nats per token, so above zero means worse.

    Raises:
        ValueError: The two do not score the same tokens of the same documents.
    """
    rows = []
    for language in before["language"].unique():
        b, a = (t[t["language"] == language].set_index("document") for t in (before, after))
        if list(a.index) != list(b.index) or not (a["tokens"] == b["tokens"]).all():
            raise ValueError(f"the two tables do not score the same tokens of {language!r}: evaluate the same texts with the same length")
        weights, tokens = resample(len(b), resamples=resamples, seed=seed), b["tokens"].to_numpy(float)
        gap = (a["nll"] - b["nll"]).to_numpy(float)
        low, high = np.quantile((weights @ gap) / (weights @ tokens), [0.025, 0.975])
        total = tokens.sum()
        rows.append((language, b["nll"].sum() / total, a["nll"].sum() / total, gap.sum() / total, low, high, len(b), int(total)))
    return pd.DataFrame(rows, columns=list(DIFFERENCES))
