"""How likely is a continuation of a prompt? Log-likelihoods in nats, of several continuations from the same point.

A prompt and its continuation are tokenised together, since `Answer:` + ` Lima` need not be the tokens of both parts. Where the tokens of the whole
do not begin with those of the prompt (a merge across the boundary), scoring starts at the longest common prefix of the prompt's tokens and
those of every continuation: all of them are scored from there, so all are conditioned on the same tokens.

    logp(continuation) = sum over t >= start of log p(token_t | tokens before t)

Continuations that differ in their last token only share one forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ..capture import forward
from ..corpora import context_length, pad
from ..writing.generate import prompt_ids


@dataclass(frozen=True)
class Continuation:
    """Tokens of a prompt with something behind it."""

    ids: tuple[int, ...]
    """All of them, BOS included."""
    start: int
    """The first that is scored."""

    @property
    def tokens(self) -> int:
        """How many are scored."""
        return len(self.ids) - self.start


def continuations(
    model: Any, prompts: Sequence[str], wholes: Sequence[Sequence[str]], names: Sequence[str]
) -> list[list[Continuation]]:
    """Tokenise prompts and what follows them.

    Args:
        model: What `load_model` returned.
        prompts: One an item.
        wholes: Per item, the prompt with each of its continuations.
        names: Of the items, for errors.

    Returns:
        Per item, one `Continuation` a text.

    Raises:
        ValueError: A text is longer than the model's context, has nothing before the first scored token, or nothing behind the prompt.
    """
    before = prompt_ids(model, prompts)
    flat = prompt_ids(model, [text for texts in wholes for text in texts])
    context = context_length(model)
    found: list[list[Continuation]] = []
    at = 0
    for prompt, texts, name in zip(before, wholes, names, strict=True):
        rows = flat[at : at + len(texts)]
        at += len(texts)
        longest = max(map(len, rows))
        if longest > context:
            raise ValueError(
                f"{name} has {longest} tokens with its answer (prompt: {len(prompt)}), more than this model's context of {context}: "
                "shorten the prompt, or leave such items out (fitting)"
            )
        start = min(_common(prompt, row) for row in rows)
        if start < 1:
            raise ValueError(
                f"{name}: no token of its prompt stands before its answers, so nothing predicts their first token"
            )
        for row, text in zip(rows, texts, strict=True):
            if len(row) <= start:
                raise ValueError(
                    f"{name}: the tokenizer leaves nothing of the answer behind the prompt in {text[-30:]!r}"
                )
        found.append([Continuation(tuple(row), start) for row in rows])
    return found


def _common(one: Sequence[int], two: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def logp(
    model: Any, rows: Sequence[Continuation], names: Sequence[str], *, size: int = 16
) -> Float[np.ndarray, " text"]:
    """Log-likelihood of each continuation given what stands before it, in nats; edits in force apply.

    Args:
        model: What `load_model` returned.
        rows: From `continuations`.
        names: One a row, for errors.
        size: Texts per batch.

    Raises:
        ValueError: `size` is below 1, or the model returns NaN or infinite logits.
    """
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
    sharing: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        sharing.setdefault(row.ids[:-1], []).append(i)  # the last token is predicted, but predicts nothing
    contexts = sorted(sharing, key=len)
    found = np.full(len(rows), np.nan)
    for at in range(0, len(contexts), size):
        group = contexts[at : at + size]
        logits = forward(model, pad(group, "", (), bos=None))
        for before, scores in zip(group, logits, strict=True):
            first = min(rows[i].start for i in sharing[before])
            likely = scores[first - 1 : len(before)].float().log_softmax(-1)
            for i in sharing[before]:
                targets = torch.tensor(rows[i].ids[rows[i].start :], device=likely.device)[:, None]
                found[i] = float(likely[rows[i].start - first :].gather(1, targets).double().sum())
    if not np.isfinite(found).all():
        bad = names[int(np.flatnonzero(~np.isfinite(found))[0])]
        raise ValueError(f"NaN or infinite logits in {bad}: load the model with dtype='float32', or soften the edit")
    return found
