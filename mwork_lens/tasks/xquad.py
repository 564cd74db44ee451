"""XQuAD as understanding: a passage, a question, and the answer is a span of the passage (Artetxe, Ruder and Yogatama 2020, arXiv 1910.11856).

Files `xquad.<language>.json` in SQuAD's format, or `google/xquad`. 240 paragraphs and 1,190 questions per language, the same ids in all.
Prompt: the passage, a blank line, the question and the answer behind labels in the language (ours: the MWork paper's prompt and metric are not
released). Primary score: token F1; `exact` is beside it.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .files import decode
from .shots import few_shot
from .sources import clean, field, records
from .task import Item, Task

LABELS = {
    "ar": ("السؤال:", "الإجابة:"),
    "de": ("Frage:", "Antwort:"),
    "el": ("Ερώτηση:", "Απάντηση:"),
    "en": ("Question:", "Answer:"),
    "es": ("Pregunta:", "Respuesta:"),
    "fr": ("Question :", "Réponse :"),
    "hi": ("प्रश्न:", "उत्तर:"),
    "ro": ("Întrebare:", "Răspuns:"),
    "ru": ("Вопрос:", "Ответ:"),
    "sw": ("Swali:", "Jibu:"),
    "th": ("คำถาม:", "คำตอบ:"),
    "tr": ("Soru:", "Cevap:"),
    "vi": ("Câu hỏi:", "Trả lời:"),
    "zh": ("问题：", "答案："),
}
"""Labels of question and answer; English ones elsewhere."""


def xquad(
    source: Any,
    languages: Sequence[str] | str | None = None,
    *,
    shots: int = 0,
    examples: Task | None = None,
    max_new_tokens: int = 32,
) -> Task:
    """XQuAD as a task.

    Args:
        source: Folder of `xquad.<language>.json`; a mapping (DatasetDict) from language to records with id, context, question and answers;
            or an id such as `google/xquad`.
        languages: Which to load, default all there are.
        shots: Solved examples in front of every item, from other passages.
        examples: Where these come from; default the items themselves.
        max_new_tokens: Tokens to generate at most.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: A file is not UTF-8 or not in this format, a language is unknown or absent, or there are too few examples.
    """
    held = records(source, languages, pattern="xquad.{}.json", read=_read, config="xquad.{}", split="validation")
    items = tuple(_item(record, language, where) for language, rows in held.items() for where, record in rows)
    task = Task("xquad", "understanding", items, "generate", "f1", ("\n",), max_new_tokens)
    return few_shot(task, shots, examples=examples)


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        articles = json.loads(decode(path))["data"]
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield f"{path}, question {question.get('id')!r}", {"context": paragraph["context"], **question}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not in SQuAD's format, data / paragraphs / qas ({type(error).__name__}: {error})"
        ) from error


def _item(record: dict[str, Any], language: str, where: str) -> Item:
    name, passage, question = (field(record, key, str, where) for key in ("id", "context", "question"))
    passage, question = clean(passage), clean(question)
    given = field(record, "answers", (list, dict), where)
    # SQuAD's files hold a list of objects, the hub an object of lists
    answers = given.get("text", []) if isinstance(given, dict) else [field(one, "text", str, where) for one in given]
    asked, answer = LABELS.get(language, LABELS["en"])
    space = "" if asked.endswith("：") else " "
    meta = {"passage": passage, "question": question}
    try:
        prompt = f"{passage}\n\n{asked}{space}{question}\n{answer}"
        return Item(name, language, prompt, tuple(dict.fromkeys(map(clean, answers))), (), meta, space)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
