"""Selective translation: with a language's neurons off, or another's on, is the content of an answer kept while its language changes?

The same item is answered in every language, so an answer that was written tells two things apart: what it says and in which language. Per item

    right      it begins with an accepted answer in the language asked
    kept       it begins with an accepted answer of this item in *any* language
    moved      it is kept, and not right: the content stayed, the language changed
    said       the languages in which what it begins with is an answer of any item (of a question of the same kind): which language was spoken,
               whether or not the content was right

Answers that are the same in several languages (names, numbers) cannot show a change of language: items of which the answer in the language asked
is also one in another language are `telling` = False and are left out of the table.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..evaluate import RESAMPLES, resample
from ..progress import hidden
from ..tasks.run import Condition
from ..tasks.scorers import normalise
from ..tasks.task import Task, default_glue
from ..writing.generate import generate

TRANSLATIONS = ("condition", "language", "item", "text", "right", "kept", "moved", "said", "telling")
"""Columns of `selective_translation`."""
_SHARES = ("right", "kept", "moved", "elsewhere")
TABLE = (
    "condition", "language", *(f"{name}{edge}" for name in _SHARES for edge in ("", "_low", "_high")), *(f"d_{name}" for name in _SHARES),
    *(f"d_{name}_{edge}" for name in _SHARES for edge in ("low", "high")), "items",
)  # fmt: skip
"""Columns of `translation_table`."""


def selective_translation(
    model: Any,
    task: Task,
    conditions: Mapping[str, Condition],
    languages: Sequence[str] | None = None,
    *,
    like: str = "",
    max_new_tokens: int = 8,
    size: int = 16,
    progress: bool = True,
) -> pd.DataFrame:
    """Let the model write every answer under every condition, and tell content from language.

    Args:
        model: What `load_model` returned.
        task: Parallel items; `answers` of each language are what is looked for.
        conditions: Label -> what makes the `with` block of an edit, None for none, as for `answer_scores`.
        languages: Whose items are asked; default all of the task's. Answers are looked for in all.
        like: A field of `meta`, such as `relation`: an answer counts as spoken language only if it is one to a question of the same kind.
        max_new_tokens: To write at most; the first line is looked at.
        size: Prompts per batch.
        progress: Show a bar.

    Returns:
        Columns `TRANSLATIONS`; `said` joins codes by `+`, and is empty if what was written is nobody's answer.

    Raises:
        ValueError: One language alone, no condition, a language the task does not have, an item without the field; else as in `generate`.
    """
    from contextlib import nullcontext

    from tqdm.auto import tqdm

    if len(task.languages) < 2:
        raise ValueError(f"task {task.name!r} is in {task.languages[0]!r} alone: a change of language needs another")
    if not conditions:
        raise ValueError("no condition was given: None as a condition is the model as it is")
    if like and (lacking := [item.id for item in task.items if like not in item.meta]):
        raise ValueError(f"item {lacking[0]!r} has no field {like!r} in its meta: leave `like` out, or add the field")
    known = {(item.language, item.id): item for item in task.items}
    answers = {key: tuple(normalise(a, key[0]) for a in item.answers) for key, item in known.items()}
    kinds: dict[Any, dict[str, set[str]]] = {}
    for (language, _), item in known.items():
        found = kinds.setdefault(item.meta.get(like), {}).setdefault(language, set())
        found.update(answers[language, item.id])
    asked = task if languages is None else task.only(languages)
    rows = []
    with tqdm(total=len(conditions), unit="condition", desc="translation", disable=hidden(progress)) as bar:
        for label, condition in conditions.items():
            bar.set_postfix_str(label)
            with nullcontext() if condition is None else condition():
                made = generate(
                    model,
                    [item.prompt for item in asked.items],
                    max_new_tokens=max_new_tokens,
                    stop=task.stop or ("\n",),
                    size=size,
                )
            for item, one in zip(asked.items, made, strict=True):
                text = one.text.strip()
                mine = {x: answers[x, item.id] for x in task.languages if (x, item.id) in answers}
                own = set(mine[item.language])
                telling = not any(own & set(found) for x, found in mine.items() if x != item.language)
                right = begins(text, mine[item.language], item.language)
                kept = right or any(begins(text, found, x) for x, found in mine.items())
                said = [x for x, found in kinds[item.meta.get(like)].items() if begins(text, tuple(found), x)]
                rows.append(
                    (label, item.language, item.id, text, right, kept, kept and not right, "+".join(said), telling)
                )
            bar.update()
    return pd.DataFrame(rows, columns=list(TRANSLATIONS))


def begins(text: str, answers: tuple[str, ...], language: str) -> bool:
    """Whether a text begins with one of some normalised answers, up to the end of a word (of a character, where words are not spaced)."""
    given = normalise(text, language)
    spaced = bool(default_glue(language))
    return any(given == answer or given.startswith(f"{answer} " if spaced else answer) for answer in answers if answer)


def translation_table(
    rows: pd.DataFrame, *, before: str = "none", resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Shares per condition and language asked, and how they change, with 95 % intervals over items (paired).

    Args:
        rows: From `selective_translation`.
        before: The condition without an edit.
        resamples: Number of resamples of items.
        seed: Of the resampling.

    Returns:
        Columns `TABLE`: shares of telling items that are right, kept, moved, and `elsewhere` (what was written is an answer in other languages and
        not in the one asked, whatever its content), and the same minus `before`.

    Raises:
        ValueError: No such condition, or no telling item in a language.
    """
    conditions = list(dict.fromkeys(rows["condition"]))
    if before not in conditions:
        raise ValueError(f"no condition {before!r}: there are {', '.join(conditions)}")
    made = []
    for language in dict.fromkeys(rows["language"]):
        part = rows[(rows["language"] == language) & rows["telling"]]
        if part.empty:
            raise ValueError(
                f"every answer in {language!r} is also one in another language: a change of language cannot be seen"
            )
        away = [bool(said) and language not in said.split("+") for said in part["said"]]
        part = part.assign(elsewhere=away)
        wide = {name: part.pivot(index="item", columns="condition", values=name).astype(float) for name in _SHARES}
        weights = resample(len(wide["right"]), resamples=resamples, seed=seed) / len(wide["right"])
        for condition in conditions:
            row: dict[str, Any] = {"condition": condition, "language": language, "items": len(wide["right"])}
            for name, table in wide.items():
                now = table[condition].to_numpy()
                for key, values in ((name, now), (f"d_{name}", now - table[before].to_numpy())):
                    low, high = np.quantile(weights @ values, [0.025, 0.975])
                    row |= {key: values.mean(), f"{key}_low": low, f"{key}_high": high}
            made.append(row)
    return pd.DataFrame(made)[list(TABLE)]
