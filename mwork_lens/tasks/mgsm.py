"""MGSM as reasoning: 250 grade-school problems whose answer is a number (Shi et al. 2022, arXiv 2210.03057).

Files `mgsm_<language>.tsv` (question, tab, answer), or `juletxara/mgsm`. The same problem has the same line in every language, which is its id
(from 0).
Prompt: the localised question label, the problem, and the localised label of a step-by-step answer, as the benchmark's own exemplars word them
(the MWork paper: zero-shot, no chat template, these labels plus an instruction of its own, 512 new tokens). Examples have no written solution
in the files, so a few-shot prompt uses the label of a plain answer. Score: the last number (scorers.py says where the released rule errs).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .files import decode
from .scorers import last_number
from .shots import few_shot
from .sources import clean, field, records
from .task import Item, Task

LABELS = {
    "bn": ("প্রশ্ন:", "ধাপে ধাপে উত্তর:", "উত্তর:"),
    "de": ("Frage:", "Schritt-für-Schritt-Antwort:", "Antwort:"),
    "en": ("Question:", "Step-by-Step Answer:", "Answer:"),
    "es": ("Pregunta:", "Respuesta paso a paso:", "Respuesta:"),
    "fr": ("Question :", "Réponse étape par étape :", "Réponse :"),
    "ja": ("問題：", "ステップごとの答え：", "答え："),
    "ru": ("Задача:", "Пошаговое решение:", "Ответ:"),
    "sw": ("Swali:", "Jibu la Hatua kwa Hatua:", "Jibu:"),
    "te": ("ప్రశ్న:", "దశలవారీగా సమాధానం:", "సమాధానం:"),
    "th": ("โจทย์:", "คำตอบทีละขั้นตอน:", "คำตอบ:"),
    "zh": ("问题：", "逐步解答：", "答案："),
}
"""Labels of the question, of a step-by-step answer, and of a plain one; English ones elsewhere."""


def mgsm(
    source: Any,
    languages: Sequence[str] | str | None = None,
    *,
    shots: int = 0,
    examples: Task | None = None,
    steps: bool | None = None,
    max_new_tokens: int | None = None,
) -> Task:
    """MGSM as a task.

    Args:
        source: Folder of `mgsm_<language>.tsv`; a mapping (DatasetDict) from language to records with question and answer_number; or an id
            such as `juletxara/mgsm`.
        languages: Which to load, default all there are.
        shots: Solved examples in front of every item.
        examples: Where these come from; default the items themselves.
        steps: Ask for a step-by-step answer; default only without examples.
        max_new_tokens: Tokens to generate at most; default 512 with steps, 16 without.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: A file is not UTF-8 or not in this format, a language is unknown or absent, there are too few examples, or a problem's
            answers differ between languages.
    """
    steps = shots == 0 if steps is None else steps
    held = records(source, languages, pattern="mgsm_{}.tsv", read=_read, config="{}", split="test")
    items = tuple(
        _item(record, language, where, str(record.get("line", number)), steps)
        for language, rows in held.items()
        for number, (where, record) in enumerate(rows)
    )
    _require_same_answers(items)
    # a model that goes on with the next problem has answered; reasoning itself may hold new lines
    asked = dict.fromkeys("\n" + LABELS.get(language, LABELS["en"])[0] for language in held)
    stop = tuple(asked) if steps else ("\n",)
    length = (512 if steps else 16) if max_new_tokens is None else max_new_tokens
    task = Task("mgsm", "reasoning", items, "generate", "number", stop, length)
    return few_shot(task, shots, examples=examples)


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(decode(path).split("\n"), 1):
        if not line.strip():
            continue
        question, tab, answer = line.rstrip("\r").rpartition("\t")
        if not tab:
            raise ValueError(f"{path}, line {number}: expected a question, a tab and a number, got no tab")
        yield f"{path}, line {number}", {"question": question, "answer_number": answer, "line": number - 1}


def _require_same_answers(items: Sequence[Item]) -> None:
    """Refuse languages whose lines have slipped: a problem has one answer."""
    first: dict[str, Item] = {}
    for item in items:
        other = first.setdefault(item.id, item)
        if last_number(item.answers[0]) != last_number(other.answers[0]):
            raise ValueError(
                f"problem {item.id} is {other.answers[0]} in {other.language!r} and {item.answers[0]} in {item.language!r}: the same line "
                "must hold the same problem in every language"
            )


def _item(record: dict[str, Any], language: str, where: str, name: str, steps: bool) -> Item:
    question = clean(field(record, "question", str, where))
    answer = str(field(record, "answer_number", (str, int, float), where)).strip()
    if last_number(answer) is None:
        raise ValueError(f"{where}: the answer {answer!r} is no number")
    asked, by_steps, plain = LABELS.get(language, LABELS["en"])
    space = "" if asked.endswith("：") else " "
    try:
        prompt = f"{asked}{space}{question}\n{by_steps if steps else plain}"
        return Item(name, language, prompt, (answer,), (), {"question": question}, space)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
