"""XCOPA as reasoning by choice: which of two sentences is the cause, or the effect, of a premise (Ponti et al. 2020, arXiv 2005.00333).

Files `<language>/test.<language>.jsonl` (500 items; `val`: 100), or `cambridgeltl/xcopa`. The same idx is the same item in every language.
Prompt: the premise without its full stop and a connective, `because` or `so`; the choices follow with a small first letter (as in the common
harness, which cuts the premise's last character whatever it is: ours cuts a full stop only).

**The field `question` (cause or effect) is not the same in all files.** In the released test files et, ht, qu, ta, vi and zh agree on all 500
items; th differs from them in 250 (it says `effect` throughout), tr in 51, sw in 37, it and id in 4. The labels agree everywhere. By default
the file is believed and a disagreement is warned about; `question_from="zh"` takes the field from one language for all.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from .files import decode, json_object
from .shots import few_shot
from .sources import Records, clean, field, records
from .task import Item, Task

CONNECTIVES = {
    "en": ("because", "so"),
    "et": ("sest", "seetõttu"),
    "ht": ("poukisa", "donk sa"),
    "id": ("karena", "maka"),
    "it": ("perché", "quindi"),
    "qu": ("imataq", "chaymi"),
    "sw": ("kwa sababu", "kwa hiyo"),
    "ta": ("காரணமாக", "எனவே"),
    "th": ("เพราะ", "ดังนั้น"),
    "tr": ("çünkü", "bu yüzden"),
    "vi": ("bởi vì", "vì vậy"),
    "zh": ("因为", "所以"),
}
"""Before a cause, and before an effect."""
_STOPS = ".。．"


def xcopa(
    source: Any,
    languages: Sequence[str] | str | None = None,
    *,
    split: Literal["test", "val"] = "test",
    question_from: str | None = None,
    shots: int = 0,
    examples: Task | None = None,
) -> Task:
    """XCOPA as a task.

    Args:
        source: Folder of `<language>/<split>.<language>.jsonl`; a mapping (DatasetDict) from language to records with premise, choice1, choice2,
            question, label and idx; or an id such as `cambridgeltl/xcopa`.
        languages: Which to load, default all there are.
        split: `test` or `val`.
        question_from: Language whose `question` field holds for all.
        shots: Solved examples in front of every item.
        examples: Where these come from, such as the `val` items; default the items themselves.

    Warns:
        UserWarning: The languages disagree on what is asked.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: A file is not UTF-8 or not in this format, a language is unknown or absent or has no connective, or there are too few examples.
    """
    hub = "validation" if split == "val" else split
    held = records(source, languages, pattern=f"{{}}/{split}.{{}}.jsonl", read=_read, config="{}", split=hub)
    if missing := [language for language in held if language not in CONNECTIVES]:
        raise ValueError(f"XCOPA has no {missing[0]!r}: it has {', '.join(CONNECTIVES)}")
    asked = _asked(held, question_from)
    items = tuple(_item(record, language, where, asked) for language, rows in held.items() for where, record in rows)
    return few_shot(Task("xcopa", "reasoning", items, "choose"), shots, examples=examples)


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(decode(path).split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", json_object(line, f"{path}, line {number}")


def _asked(held: Records, question_from: str | None) -> dict[tuple[str, Any], str]:
    """What is asked per language and idx."""
    found: dict[tuple[str, Any], str] = {}
    for language, rows in held.items():
        for where, record in rows:
            asked = found[language, field(record, "idx", int, where)] = field(record, "question", str, where)
            if asked not in ("cause", "effect"):
                raise ValueError(f"{where}: field 'question' must be cause or effect, got {asked!r}")
    if question_from is None:
        per_item: dict[Any, set[str]] = {}
        for (_, idx), asked in found.items():
            per_item.setdefault(idx, set()).add(asked)
        if split := sum(len(asked) > 1 for asked in per_item.values()):
            warnings.warn(
                f"the files disagree on cause or effect in {split} of {len(per_item)} items: pass question_from, such as 'zh'",
                stacklevel=3,
            )
        return found
    if question_from not in held:
        raise ValueError(f"question_from={question_from!r} is not loaded: there are {', '.join(held)}")
    if alone := [key for key in found if (question_from, key[1]) not in found]:
        raise ValueError(f"question_from={question_from!r} has no item {alone[0][1]}, which {alone[0][0]!r} has")
    return {key: found[question_from, key[1]] for key in found}


def _item(record: dict[str, Any], language: str, where: str, asked: dict[tuple[str, Any], str]) -> Item:
    premise, one, two = (clean(field(record, name, str, where)) for name in ("premise", "choice1", "choice2"))
    label, idx = field(record, "label", int, where), record["idx"]
    if label not in (0, 1):
        raise ValueError(f"{where}: field 'label' must be 0 or 1, got {label!r}")
    question = asked[language, idx]
    connective = CONNECTIVES[language][question == "effect"]
    choices = tuple(_small(choice, language) for choice in (one, two))
    space = "" if language in ("th", "zh") else " "
    try:
        prompt = f"{premise.rstrip(_STOPS)}{space}{connective}"
        return Item(str(idx), language, prompt, (choices[label],), choices, {"question": question, "premise": premise})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _small(text: str, language: str) -> str:
    """Text with a small first letter; Turkish has two kinds of i."""
    first = {"I": "ı", "İ": "i"}.get(text[:1], text[:1].lower()) if language == "tr" else text[:1].lower()
    return first + text[1:]
