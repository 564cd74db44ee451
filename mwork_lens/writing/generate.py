"""Let a model write, and ask how likely it finds what was written. It never knows what a neuron is: edits in force apply.

    with applied(model, steer(...)):
        written = generate(model, prompts, stop=questions.STOP, repetition_penalty=1.1)
    fluency(model, written)                        outside the `with`: under the unsteered model

Generation is Hugging Face's, through the model's hook points and with its cache: an edit sees [batch prompt width] first and [batch 1 width] at
every step after that. Batches hold prompts of equal length, so nothing is padded, and no position exists that a prompt alone would not have.

Greedy by default. Tang et al. 2024 decode at temperature 0 with a repetition penalty of 1.1, at most 1024 tokens (2048 for Llama), and stop at a
new line that starts with `Q:` or `A:`. The penalty divides (or multiplies, below zero) the logits of tokens seen in the prompt or the output.
What a checkpoint's own `generation_config` asks for (sampling, penalties, limits) is left out, except its end-of-text tokens. A beginning-of-text
token ends a text too: what a model trained on packed documents writes behind it is another document.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..capture import device_of
from ..corpora import context_length, pad
from ..evaluate import document_nll, require_causal

Finished = Literal["stop", "eos", "length"]


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt."""

    prompt: str
    """What it was given."""
    text: str
    """What it wrote, without the stop string."""
    ids: tuple[int, ...]
    """The new tokens that `text` is made of; the last may hold the first characters of the stop string. Without end-of-text."""
    finished: Finished
    """Why it ended: a stop string, an end-of-text (or BOS) token, or `max_new_tokens`."""


def generate(
    model: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    stop: Sequence[str] = (),
    repetition_penalty: float = 1.0,
    temperature: float = 0.0,
    seed: int = 0,
    size: int = 16,
) -> list[Generation]:
    """Continue each prompt.

    Args:
        model: What `load_model` returned; any edit in force applies.
        prompts: Texts to continue.
        max_new_tokens: Tokens to write at most.
        stop: Strings at which a text ends; the earliest one counts, and is cut off.
        repetition_penalty: 1 for none.
        temperature: 0 for greedy; otherwise tokens are drawn from the softmax at this temperature, from the whole vocabulary.
        seed: Of the drawing. What is drawn also depends on `size`; greedy text does not.
        size: Prompts per batch.

    Returns:
        One `Generation` a prompt, in their order.

    Raises:
        ValueError: The model is no causal decoder; a prompt has fewer than two tokens (an edit tells the prompt from the steps after it by its
            length), or no room for `max_new_tokens` in the model's context; a setting is out of its range.
    """
    require_causal(model)
    _require_settings(prompts, max_new_tokens, stop, repetition_penalty, temperature, size)
    rows = prompt_ids(model, prompts)
    context = context_length(model)
    for number, row in enumerate(rows):
        if len(row) < 2:
            raise ValueError(
                f"prompt {number} ({prompts[number]!r}) has {len(row)} token(s): give at least 2, so that a prompt is not mistaken for a step"
            )
        if len(row) + max_new_tokens > context:
            raise ValueError(
                f"prompt {number} has {len(row)} tokens; with max_new_tokens={max_new_tokens} that is more than this model's context of "
                f"{context}: shorten the prompt, or write at most {context - len(row)} tokens"
            )
    ends = _end_of_text(model)
    made: dict[int, Generation] = {}
    with (
        torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))),
        _own_settings(model, max_new_tokens, repetition_penalty, temperature, ends),
    ):
        torch.manual_seed(seed)
        for group in _equal_length(rows, size):
            ids = torch.tensor([rows[i] for i in group])
            new = _continue(model, ids, _Stop(model.tokenizer, ids, stop))
            for i, tokens in zip(group, new.tolist(), strict=True):
                made[i] = _cut(model.tokenizer, prompts[i], rows[i], tokens, ends, stop)
    return [made[i] for i in range(len(prompts))]


def fluency(model: Any, generations: Sequence[Generation], *, size: int = 16) -> Float[np.ndarray, " doc"]:
    """Mean negative log-likelihood per new token, in nats, given the prompt, under the model as it is now.

    Call it outside the edit that the texts were written under: steered text is then scored by the unsteered model. Low is not always good:
    text that repeats itself is likely, so give `confusion.repetition` beside it.

    Args:
        model: The model the texts were written by (their token ids are scored).
        generations: From `generate`.
        size: Texts per batch.

    Returns:
        One number a generation; nan where nothing was written.

    Raises:
        ValueError: The model is no causal decoder, or returns NaN or infinite logits.
    """
    require_causal(model)
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
    prompts = prompt_ids(model, [generation.prompt for generation in generations])
    found = np.full(len(generations), np.nan)
    written = [i for i, generation in enumerate(generations) if generation.ids]
    written.sort(key=lambda i: len(prompts[i]) + len(generations[i].ids))
    for at in range(0, len(written), size):
        group = written[at : at + size]
        rows = [[*prompts[i], *generations[i].ids] for i in group]
        tokens = pad(rows, "", [f"generation {i}" for i in group], bos=None)
        keep = tokens.keep.clone()
        for row, i in enumerate(group):
            keep[row, : len(prompts[i])] = False
        nll = document_nll(model, replace(tokens, keep=keep)).numpy()
        found[group] = nll / [len(generations[i].ids) for i in group]
    return found


def prompt_ids(model: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, BOS in front if the tokenizer puts one there; an end-of-text token that it appends is left out.

    Raises:
        ValueError: The prompts are one string, or one of them is no string.
    """
    if isinstance(prompts, str):
        raise ValueError("the prompts are one string: give a list of prompts")
    if wrong := [i for i, prompt in enumerate(prompts) if not isinstance(prompt, str)]:
        raise ValueError(f"prompt {wrong[0]} is {type(prompts[wrong[0]]).__name__}, not str")
    if not prompts:
        return []
    eos, bos = model.tokenizer.eos_token_id, model.tokenizer.bos_token_id
    rows = [list(row) for row in model.tokenizer(list(prompts), verbose=False)["input_ids"]]
    appended = eos is not None and eos != bos
    return [
        row[:-1] if appended and row and row[-1] == eos and not prompt.endswith(model.tokenizer.eos_token) else row
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def _require_settings(
    prompts: Sequence[str], max_new_tokens: int, stop: Sequence[str], penalty: float, temperature: float, size: int
) -> None:
    if not isinstance(prompts, str) and not prompts:
        raise ValueError("no prompt given: generate needs at least one")
    for name, value in (("max_new_tokens", max_new_tokens), ("size", size)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    if isinstance(stop, str) or not all(stop):
        raise ValueError(f"stop={stop!r}: give a list of strings, none of them empty")
    if not (np.isfinite(penalty) and penalty > 0):
        raise ValueError(f"repetition_penalty={penalty} must be above 0; 1 is none")
    if not (np.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature} must be 0 (greedy) or above")


def _equal_length(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Indices of prompts with the same number of tokens, `size` at a time."""
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(i)
    for same in by_length.values():
        yield from (same[at : at + size] for at in range(0, len(same), size))


def _end_of_text(model: Any) -> frozenset[int]:
    """The tokenizer's end-of-text and BOS tokens, and those of the checkpoint (chat models end a turn with another one)."""
    own = getattr(getattr(model.original_model, "generation_config", None), "eos_token_id", None)
    found = [
        model.tokenizer.eos_token_id,
        model.tokenizer.bos_token_id,
        *(own if isinstance(own, list | tuple) else [own]),
    ]
    return frozenset(int(i) for i in found if i is not None)


@contextmanager
def _own_settings(
    model: Any, max_new_tokens: int, penalty: float, temperature: float, ends: frozenset[int]
) -> Iterator[None]:
    """The checkpoint's generation settings replaced by ours, for the length of a `with`.

    Settings that are passed to `generate` are not enough: whatever they leave open, it fills in from the checkpoint's.
    """
    from transformers import GenerationConfig

    hf = model.original_model
    before = hf.generation_config
    pad_id = model.tokenizer.pad_token_id
    how: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    hf.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        repetition_penalty=penalty,
        eos_token_id=sorted(ends) or None,
        pad_token_id=pad_id if pad_id is not None else min(ends, default=0),
        use_cache=True,
        **how,
    )
    try:
        yield
    finally:
        hf.generation_config = before


class _Stop:
    """Tells Hugging Face's loop which rows hold a stop string."""

    def __init__(self, tokenizer: Any, prompts: Int[Tensor, "batch pos"], stop: Sequence[str]) -> None:
        self.tokenizer, self.prompts, self.stop = tokenizer, prompts.tolist(), tuple(stop)

    def __call__(self, ids: Int[Tensor, "batch pos"], scores: Any) -> Bool[Tensor, " batch"]:
        texts = (
            _written(self.tokenizer, prompt, row[len(prompt) :])
            for prompt, row in zip(self.prompts, ids.tolist(), strict=True)
        )
        return torch.tensor([any(end in text for end in self.stop) for text in texts], device=ids.device)


def _continue(model: Any, ids: Int[Tensor, "batch pos"], stop: _Stop) -> Int[Tensor, "batch new"]:
    ids = ids.to(device_of(model))
    criteria: Any = [stop] if stop.stop else []
    with torch.no_grad():
        out = model.original_model.generate(ids, attention_mask=torch.ones_like(ids), stopping_criteria=criteria)
    return out[:, ids.shape[1] :].cpu()


def _written(tokenizer: Any, prompt: Sequence[int], new: Sequence[int]) -> str:
    """Text of new tokens after a prompt: decoded together, since alone the first would lose its leading space in some tokenizers."""

    def decode(ids: Sequence[int]) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    before, both = decode(prompt), decode([*prompt, *new])
    return both[len(before) :] if both.startswith(before) else decode(new)


def _cut(
    tokenizer: Any, prompt: str, given: list[int], new: list[int], ends: frozenset[int], stop: Sequence[str]
) -> Generation:
    at = next((i for i, token in enumerate(new) if token in ends), None)
    new = new if at is None else new[:at]
    text = _written(tokenizer, given, new)
    found = [place for end in stop if (place := text.find(end)) >= 0]
    if not found:
        return Generation(prompt, text, tuple(new), "length" if at is None else "eos")
    kept = text[: min(found)]
    needed = next(k for k in range(len(new) + 1) if len(_written(tokenizer, given, new[:k])) >= len(kept))
    return Generation(prompt, kept, tuple(new[:needed]), "stop")
