"""Items of one language, made ready once and asked under many conditions: choices, greedy text, or the reference answer."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..capture import forward
from ..corpora import context_length, pad
from ..evaluate import require_causal
from ..storage import content_hash
from ..writing.generate import generate, prompt_ids
from ..writing.identify import Identifier, require_identifiable
from . import scorers
from .likelihood import Continuation, continuations, logp
from .task import Item, Normalise, Task

WRITTEN = ("exact", "f1", "rouge_l", "number", "fidelity")
"""Scores of generated text; nan elsewhere."""

VERSION = 1
"""Of what `ask` makes of an item, scorers included. Raise it when that changes: kept results of another version are not used."""

_PROBED = 8
"""Items of a language whose answer tells what state the model is in."""
_SENTENCES = (
    "The house stands by the river, and nobody lives there now.", "Das Haus steht am Fluss, und niemand wohnt mehr dort.",
    "La maison est au bord de la rivière.", "La casa está junto al río.", "Nyumba iko kando ya mto.", "Дом стоит у реки.", "房子在河边。",
    "家は川のそばにあります。", "บ้านอยู่ริมแม่น้ำ", "ఇల్లు నది పక్కన ఉంది.", "বাড়িটি নদীর ধারে।", "البيت بجانب النهر.",
    "Paris", "no", "die in", "xqz vrtk", "42", "",
)  # fmt: skip
"""Sentences, short words that several languages have, and noise: what tells identifiers apart."""


@dataclass(frozen=True)
class Ready:
    """Items of one language, tokenised and checked; asked under any number of conditions."""

    task: Task
    language: str
    items: tuple[Item, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[Continuation, ...], ...] = ()
    """Per item, its choices, or its reference answer; empty for generation."""
    probe: tuple[tuple[int, ...], ...] = ()
    """Tokens of up to `_PROBED` items, spread over all: the prompt, with its first answer or choice where none is written."""


def prepare_items(model: Any, task: Task, language: str, identify: Identifier | None) -> Ready:
    """Tokenise and check the items of one language before anything is computed.

    Raises:
        ValueError: See `run.answer_scores`.
    """
    require_causal(model)
    items = task.of(language)
    names = tuple(f"item {item.id!r} of {task.name!r} in {language!r}" for item in items)
    prompts = [item.prompt for item in items]
    if task.how != "generate":
        asked = [item.choices if task.how == "choose" else item.answers[:1] for item in items]
        wholes = [[item.joined(text) for text in texts] for item, texts in zip(items, asked, strict=True)]
        rows = tuple(map(tuple, continuations(model, prompts, wholes, names)))
        return Ready(task, language, items, names, rows, tuple(rows[i][0].ids for i in _spread(len(items))))
    if identify is not None:
        require_identifiable(identify, language)
    elif task.metric == "fidelity":
        raise ValueError(f"task {task.name!r} is scored by fidelity: pass identify=, such as lingua_identifier()")
    context, held = context_length(model), prompt_ids(model, prompts)
    for name, ids in zip(names, held, strict=True):
        if len(ids) + task.max_new_tokens > context:
            raise ValueError(
                f"{name} has {len(ids)} tokens; with max_new_tokens={task.max_new_tokens} that is more than this model's context of {context}: "
                "shorten the prompt, write fewer tokens, or leave such items out (fitting)"
            )
        if len(ids) < 2:
            raise ValueError(f"{name} has {len(ids)} token(s): a prompt to generate from needs at least 2")
    return Ready(task, language, items, names, (), tuple(tuple(held[i]) for i in _spread(len(items))))


def fitting(model: Any, task: Task) -> Task:
    """The items that fit the model's context in every language that has them, so that parallel items stay parallel.

    Warns:
        UserWarning: Items were left out (how many, of how many).

    Raises:
        ValueError: None is left.
    """
    context = context_length(model)
    if task.how == "generate":
        lengths = [len(ids) + task.max_new_tokens for ids in prompt_ids(model, [item.prompt for item in task.items])]
    else:
        asked = [item.choices if task.how == "choose" else item.answers[:1] for item in task.items]
        wholes = [item.joined(text) for item, texts in zip(task.items, asked, strict=True) for text in texts]
        counts = iter([len(ids) for ids in prompt_ids(model, wholes)])
        lengths = [max(next(counts) for _ in texts) for texts in asked]
    long = {item.id for item, length in zip(task.items, lengths, strict=True) if length > context}
    kept = task.where(lambda item: item.id not in long)
    if left_out := len(task) - len(kept):
        warnings.warn(
            f"{left_out} of {len(task)} items of {task.name!r} do not fit the context of {context}", stacklevel=2
        )
    return kept


def behaviour(model: Any, ready: Ready) -> str:
    """Hash of what the model, as it is now, says to some prompts: an edit that changes it gives another block.

    Where text is generated, a step after each prompt is taken too.
    """
    said = []
    for ids in ready.probe:  # one by one: the logits of a batch can be larger than the model
        logits = forward(model, pad([ids], "", (), bos=None))
        said.append(content_hash(logits.float().cpu().contiguous().numpy().tobytes()))
    steps = []
    if ready.task.how == "generate":
        few = min(3, ready.task.max_new_tokens)
        prompts = [ready.items[i].prompt for i in _spread(len(ready.items))]
        steps = [list(one.ids) for one in generate(model, prompts, max_new_tokens=few)]
    return content_hash(said, steps)


def _spread(items: int) -> list[int]:
    """Up to `_PROBED` numbers of items, first and last among them."""
    return sorted({round(at) for at in np.linspace(0, items - 1, _PROBED)})


def identifier_facts(identify: Identifier | None) -> Any:
    """What of an identifier decides its answers, as far as it can be told: its kind, its settings, and what it says to some sentences."""
    if identify is None:
        return None
    said = []
    for text in _SENTENCES:
        try:
            said.append(identify(text))
        except ValueError as error:  # a language it should not have named
            said.append(str(error))
    return [type(identify).__name__, list(identify.languages), getattr(identify, "certain", None), said]


def ask(model: Any, ready: Ready, size: int, normalise: Normalise, identify: Identifier | None) -> dict[str, Any]:
    """Columns of what a model, as it is now, makes of prepared items: score, text, tokens, and what the way of asking adds."""
    if ready.task.how == "choose":
        return _choose(model, ready, size, normalise)
    if ready.task.how == "generate":
        return _write(model, ready, size, identify)
    return _reference(model, ready, size)


def _choose(model: Any, ready: Ready, size: int, normalise: str) -> dict[str, Any]:
    flat = [row for rows in ready.rows for row in rows]
    names = [name for name, rows in zip(ready.names, ready.rows, strict=True) for _ in rows]
    likely = logp(model, flat, names, size=size)
    found: dict[str, list[Any]] = {name: [] for name in ("score", "text", "logp", "margin", "tied", "tokens")}
    at = 0
    for item, rows in zip(ready.items, ready.rows, strict=True):
        sums = likely[at : at + len(rows)]
        at += len(rows)
        lengths = {
            "sum": [1] * len(rows),
            "token": [row.tokens for row in rows],
            "character": list(map(len, item.choices)),
        }
        scores = sums / np.array(lengths[normalise])
        right = np.array([choice in item.answers for choice in item.choices])
        best = scores >= scores.max() - 1e-6  # level, but for rounding
        reference = int(np.where(right, scores, -np.inf).argmax())
        found["score"].append(float(right[best].mean()))
        found["text"].append(item.choices[int(scores.argmax())])
        found["logp"].append(float(sums[reference]))
        found["margin"].append(float(scores[reference] - scores[~right].max()))
        found["tied"].append(bool(best.sum() > 1))
        found["tokens"].append(rows[reference].tokens)
    return found


def _write(model: Any, ready: Ready, size: int, identify: Identifier | None) -> dict[str, Any]:
    task, language = ready.task, ready.language
    finite: list[torch.Tensor] = []

    def look(module: Any, args: Any, output: Any) -> None:
        finite.append(output.logits[:, -1].amax(-1).isfinite().all())

    handle = model.original_model.register_forward_hook(look)
    try:
        made = generate(
            model, [item.prompt for item in ready.items], max_new_tokens=task.max_new_tokens, stop=task.stop, size=size
        )
    finally:
        handle.remove()
    if not all(map(bool, finite)):
        raise ValueError(
            f"NaN or infinite logits while {task.name!r} was written in {language!r}: load the model with dtype='float32', or soften the edit"
        )
    texts = [one.text.strip() for one in made]
    measured = {
        name: [
            getattr(scorers, name)(text, item.answers, language) for text, item in zip(texts, ready.items, strict=True)
        ]
        for name in WRITTEN[:4]
    }
    if identify is not None:
        measured["fidelity"] = [scorers.fidelity(text, language, identify) for text in texts]
    return {**measured, "score": measured[task.metric], "text": texts, "tokens": [len(one.ids) for one in made]}


def _reference(model: Any, ready: Ready, size: int) -> dict[str, Any]:
    rows = [row for (row,) in ready.rows]
    likely = logp(model, rows, ready.names, size=size)
    return {
        "score": likely,
        "logp": likely,
        "text": [item.answers[0] for item in ready.items],
        "tokens": [row.tokens for row in rows],
    }
