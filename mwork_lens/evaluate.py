"""Score a model on held-out texts; differences with paired intervals. It never knows what a neuron is.

The score of a document is its negative log-likelihood, in nats, summed over its kept tokens; every condition is scored on the same tokens.
A mean is a ratio of sums (nats per token), and intervals come from resampling documents, the same resample for every condition and, where
texts are parallel, for every language: `with deactivate(model, neurons): evaluate(model, texts)` beside `evaluate(model, texts)`.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from .capture import forward
from .corpora import Corpus, Tokens, encode, pad, warn_truncated
from .sites import blocks

SCORES = ("condition", "language", "document", "nll", "tokens")
"""Columns of `evaluate`: one row a document."""
DIFFERENCES = ("language", "before", "after", "change", "low", "high", "documents", "tokens")
"""Columns of `difference`: one row a language."""

RESAMPLES = 1000


@runtime_checkable
class Scorable(Protocol):
    """Something that scores a model on its own items, such as a task; `evaluate` hands over to it."""

    def scores(
        self, model: Any, languages: Sequence[str] | None = None, *, condition: str = "baseline", size: int = 16
    ) -> pd.DataFrame:
        """One row an item, with at least the columns condition, language, item and score."""
        ...


def document_nll(model: Any, tokens: Tokens, *, finite: bool = True) -> Float[Tensor, " batch"]:
    """Negative log-likelihood of each document, in nats, summed over kept tokens (the first token is kept only behind a BOS).

    Raises:
        ValueError: The model returns NaN or infinite logits, unless `finite` is False.
    """
    logits = forward(model, tokens)
    # position i predicts token i+1; the last one predicts nothing, and is ignored rather than cut off (which would copy the logits)
    scored = tokens.keep.roll(-1, dims=1)
    scored[:, -1] = False
    scored &= tokens.mask  # on the left, padding predicts nothing
    targets = tokens.ids.roll(-1, dims=1).masked_fill(~scored, -100).to(logits.device)
    rows = zip(
        logits, targets, strict=True
    )  # row by row: the float32 copy of a batch's logits can be larger than the model
    losses = [torch.nn.functional.cross_entropy(row.float(), target, reduction="none") for row, target in rows]
    sums = torch.stack([loss.double().sum() for loss in losses]).cpu()
    if finite and not bool(torch.isfinite(sums).all()):
        bad = (~torch.isfinite(sums)).nonzero().flatten().tolist()
        names = ", ".join(tokens.documents[i] if tokens.documents else f"row {i}" for i in bad)
        raise ValueError(f"NaN or infinite logits in {names}: load the model with dtype='float32', or soften the edit")
    return sums


@dataclass(frozen=True)
class Prepared:
    """Documents of some languages as batches of similar length, made once and scored under many conditions."""

    batches: tuple[Tokens, ...]
    """Sorted by length, so that little is padded; languages may share a batch."""
    order: tuple[int, ...]
    """Row of `names` that each scored document is."""
    names: pd.DataFrame
    """Columns language, document, tokens (those that are scored), in the order of the texts."""

    def scores(self, model: Any, *, finite: bool = True) -> np.ndarray:
        """NLL of each document, in nats, in the order of `names`; edits in force apply.

        Args:
            model: The model.
            finite: Raise if a score is not finite; otherwise return it.

        Raises:
            ValueError: Logits are not finite, and they must be.
        """
        scored = np.empty(len(self.order))
        scored[list(self.order)] = np.concatenate(
            [document_nll(model, tokens, finite=finite).numpy() for tokens in self.batches]
        )
        return scored


def require_causal(model: Any) -> None:
    """Refuse a model that sees the token it predicts: its likelihoods would mean nothing.

    Raises:
        ValueError: The model is a masked language model (BERT, XLM-R) or an encoder-decoder.
    """
    blocks(model)
    architecture = str(getattr(model.cfg, "architecture", ""))
    if "MaskedLM" in architecture:
        raise ValueError(f"{architecture} sees the tokens it predicts: next-token likelihoods need a causal decoder")


def prepare(
    model: Any,
    texts: Mapping[str, Corpus],
    languages: Sequence[str] | None = None,
    *,
    size: int = 16,
    length: int | None = None,
) -> Prepared:
    """Tokenise held-out documents for scoring.

    Args:
        model: What `load_model` returned.
        texts: Held-out documents per language.
        languages: Which to score, default all.
        size: Documents per batch.
        length: Tokens per document at most.

    Raises:
        ValueError: A language has no texts, or a document no token to predict; the model is not a causal decoder.
    """
    require_causal(model)
    bos = model.tokenizer.bos_token_id
    rows, names = [], []
    for language in languages or texts:
        if language not in texts:
            raise ValueError(f"no held-out texts for language {language!r}: there are {', '.join(texts) or 'none'}")
        encoded, truncated = encode(texts[language], model, length=length)
        warn_truncated(truncated, len(encoded), language)
        rows += encoded
        names += [
            (language, document, len(row) - 1)
            for (document, _), row in zip(texts[language].documents(), encoded, strict=True)
        ]
    if short := [f"{language}/{document}" for language, document, tokens in names if tokens < 1]:
        raise ValueError(f"document {short[0]} has a single token, so there is none to predict: remove it")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    groups = [order[at : at + size] for at in range(0, len(order), size)]
    made = tuple(
        pad([rows[i] for i in group], "", [f"{names[i][0]}/{names[i][1]}" for i in group], bos=bos) for group in groups
    )
    return Prepared(made, tuple(order), pd.DataFrame(names, columns=["language", "document", "tokens"]))


def evaluate(
    model: Any,
    texts: Mapping[str, Corpus] | Scorable,
    languages: Sequence[str] | None = None,
    *,
    condition: str = "baseline",
    size: int = 16,
    length: int | None = None,
) -> pd.DataFrame:
    """NLL of every document, or the scores of every item of a task.

    Args:
        model: What `load_model` returned; any edit in force applies.
        texts: Held-out documents per language; or a task (anything `Scorable`), which then does the scoring.
        languages: Which to score, default all.
        condition: Label of the rows.
        size: Documents per batch; keep it fixed across conditions.
        length: Tokens per document at most.

    Returns:
        Columns `SCORES`: condition, language, document, nll (nats, summed), tokens; for a task, those that it says.

    Raises:
        ValueError: A language has no texts, a document no token to predict, or logits are not finite; `length` for a task.
    """
    if isinstance(texts, Scorable):
        if length is not None:
            raise ValueError(f"length={length} cuts documents; the items of a task are asked whole: leave it out")
        return texts.scores(model, languages, condition=condition, size=size)
    ready = prepare(model, texts, languages, size=size, length=length)
    return ready.names.assign(condition=condition, nll=ready.scores(model))[list(SCORES)]


def resample(documents: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Bootstrap weights [resample doc]: how often each document is drawn; the same for all conditions."""
    return (
        np.random.default_rng(seed)
        .multinomial(documents, np.full(documents, 1 / documents), size=resamples)
        .astype(float)
    )


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
        ValueError: The two do not score the same tokens of the same documents in the same languages.
    """
    rows = []
    if unpaired := set(before["language"]) ^ set(after["language"]):
        raise ValueError(
            f"only one of the two tables scores {', '.join(sorted(unpaired))}: evaluate the same texts under both conditions"
        )
    for language in before["language"].unique():
        b, a = (t[t["language"] == language].set_index("document") for t in (before, after))
        if list(a.index) != list(b.index) or not (a["tokens"] == b["tokens"]).all():
            raise ValueError(
                f"the two tables do not score the same tokens of {language!r}: evaluate the same texts with the same length"
            )
        weights, tokens = resample(len(b), resamples=resamples, seed=seed), b["tokens"].to_numpy(float)
        gap = (a["nll"] - b["nll"]).to_numpy(float)
        low, high = np.quantile((weights @ gap) / (weights @ tokens), [0.025, 0.975])
        total = tokens.sum()
        rows.append(
            (language, b["nll"].sum() / total, a["nll"].sum() / total, gap.sum() / total, low, high, len(b), int(total))
        )
    return pd.DataFrame(rows, columns=list(DIFFERENCES))
