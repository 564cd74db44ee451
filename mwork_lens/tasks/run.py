"""Ask a model every item of a task, and keep every item's row. It never knows what a neuron is: edits in force apply.

    choose      score = share of the best-scored choices that are right: 1 or 0, and 1/n where n choices tie (a model that prefers nothing is at
                chance, wherever the right choice stands); margin = logp(best right choice) - logp(best wrong choice), in nats
    generate    greedy text up to a stop string; the primary score is the task's metric, the others stand beside it
    loglik      score = log-likelihood of the reference answer, in nats

Choices are compared by the sum of their tokens' log-likelihoods; `token` and `character` divide by the length of the choice, since a sum
prefers short ones (the common harness's acc and acc_norm are `sum` and, in bytes, `character`). Everything that is wrong about an item (too
long for the context, an answer of no token) is found before the model computes anything.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..measure import claim_folder
from ..models import describe, fingerprint
from ..progress import hidden
from ..storage import Run, content_hash, reuse, save
from ..writing.identify import Identifier
from .ask import VERSION, WRITTEN, Ready, ask, behaviour, identifier_facts, prepare_items
from .task import Normalise, Task

Condition = Callable[[], AbstractContextManager[Any]] | None
"""Makes the `with` block that a condition is; None changes nothing."""

# fmt: off
ROWS = ("task", "ability", "condition", "language", "item", "score", "text", *WRITTEN, "logp", "margin", "tied", "tokens")
# fmt: on
"""Columns of `answer_scores`: one row an item."""
NLL = ("task", "ability", "condition", "language", "item", "nll", "tokens")
"""Columns of `answer_nll`: one row an item."""


def answer_scores(
    model: Any,
    tasks: Task | Sequence[Task],
    languages: Sequence[str] | None = None,
    *,
    conditions: Mapping[str, Condition] | None = None,
    size: int = 16,
    identify: Identifier | None = None,
    normalise: Normalise = "sum",
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Ask every item of several tasks, under one condition or several.

    Args:
        model: What `load_model` returned; edits in force apply to every condition.
        tasks: What to ask; their names differ.
        languages: Which, of every task; default all that each has.
        conditions: Label -> what makes the context of the condition, such as `lambda: deactivate(model, units)`; default `baseline` alone.
        size: Texts per batch.
        identify: Identifier for the language of generated text; None leaves `fidelity` nan.
        normalise: How the likelihoods of choices are compared: their `sum`, or that per `token` or `character`.
        out: Folder in which every finished block (condition, task, language) is kept; None keeps nothing.
        resume: Use the finished blocks in `out`. They are found by content (items, settings, label of the condition, and what the model under it
            says to a probe, up to 8 items and steps after them) and by the version of the code that scores, so tasks and conditions may have been
            added since. Conditions that act on the steps after a prompt only should differ in their labels.
        progress: Show a progress bar.

    Returns:
        Columns `ROWS`. `text` is what was written or chosen; `logp` (nats, of the best right choice or the reference, over `tokens`), `margin` and
        `tied` (a right choice is level with a wrong one, or right ones are) are those of choices; `tokens` of a written text is its length.

    Raises:
        ValueError: A task lacks a language, an item does not fit the context, two tasks share a name, a setting is out of its range, the
            identifier cannot name a language, or fidelity is the metric without one; the model is no causal decoder, or its logits not finite.
        FileExistsError: `out` holds another run, or one of another version, or this one and `resume` is False.
    """
    from tqdm.auto import tqdm

    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    _require_settings(tasks, size, normalise)
    plan = [
        prepare_items(model, task, language, identify) for task in tasks for language in _languages(task, languages)
    ]
    basis = {
        "method": "tasks",
        "version": VERSION,
        "model": fingerprint(model),
        "size": size,
        "normalise": normalise,
        "identify": None if out is None else identifier_facts(identify),
    }
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, basis, resume=resume, claim="tasks.json")
    chosen = {"baseline": None} if conditions is None else dict(conditions)
    tables = []
    with tqdm(total=len(chosen) * len(plan), unit="block", desc="tasks", disable=hidden(progress)) as bar:
        for label, condition in chosen.items():
            with nullcontext() if condition is None else condition():
                for ready in plan:
                    bar.set_postfix_str(f"{label} {ready.task.name} {ready.language}")
                    scored = _block(model, ready, label, basis, folder, identify)
                    tables.append(scored.assign(condition=label)[list(ROWS)])
                    bar.update()
    return pd.concat(tables, ignore_index=True)


def task_scores(
    model: Any,
    task: Task,
    languages: Sequence[str] | None = None,
    *,
    condition: str = "baseline",
    size: int = 16,
    identify: Identifier | None = None,
    normalise: Normalise = "sum",
) -> pd.DataFrame:
    """`answer_scores` of one task as the model is now; what `Task.scores` and `evaluate` call."""
    return answer_scores(
        model, task, languages, conditions={condition: None}, size=size, identify=identify, normalise=normalise, progress=False
    )  # fmt: skip


def answer_nll(
    model: Any, task: Task, languages: Sequence[str] | None = None, *, condition: str = "baseline", size: int = 16
) -> pd.DataFrame:
    """Negative log-likelihood of every item's reference answer after its prompt: a continuous score without generation.

    Args:
        model: What `load_model` returned; edits in force apply.
        task: The items, asked in whatever way.
        languages: Which to score, default all.
        condition: Label of the rows.
        size: Texts per batch.

    Returns:
        Columns `NLL`: nll in nats, summed over `tokens`.

    Raises:
        ValueError: As in `answer_scores`.
    """
    table = task_scores(model, task.as_loglik(), languages, condition=condition, size=size)
    return table.assign(nll=-table["logp"])[list(NLL)]


def _languages(task: Task, languages: Sequence[str] | None) -> tuple[str, ...]:
    return task.languages if languages is None else task.only(languages).languages


def _require_settings(tasks: Sequence[Task], size: int, normalise: str) -> None:
    if not tasks:
        raise ValueError("no task given: give at least one, as from load_task")
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two tasks are called {twice!r}: rename one (dataclasses.replace(task, name=...))")
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
    if normalise not in ("sum", "token", "character"):
        raise ValueError(f"normalise={normalise!r} is not one of sum, token, character")


def _block(
    model: Any, ready: Ready, label: str, basis: Mapping[str, Any], folder: Path | None, identify: Identifier | None
) -> pd.DataFrame:
    """Rows of one condition, task and language: read if they are finished, else computed and kept."""
    key, path = "", None
    if folder is not None:
        key = content_hash(dict(basis), label, ready.task.fingerprint(ready.language), behaviour(model, ready))
        path = folder / "blocks" / f"{key}.parquet"
    scored = reuse(path, key, "asking these items again")
    if scored is None:
        try:
            rows = ask(model, ready, basis["size"], basis["normalise"], identify)
        except ValueError as error:
            raise ValueError(f"condition {label!r}: {error}") from error
        empty = {**dict.fromkeys((*WRITTEN, "logp", "margin"), np.nan), "tied": False}
        scored = pd.DataFrame({"item": [item.id for item in ready.items], **empty, **rows})
        scored = scored.assign(task=ready.task.name, ability=ready.task.ability, language=ready.language)
        if path is not None:
            facts = {"key": key, "condition": label, "task": ready.task.name, "language": ready.language, **basis}
            items = {
                "source": ready.task.name,
                "items": len(ready.items),
                "hash": ready.task.fingerprint(ready.language),
            }
            save(scored, path, Run("tasks", facts, describe(model), {ready.language: items}))
    return scored
