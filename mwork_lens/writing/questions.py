"""Questions to let a model answer, and how good the answers are, by a judge that you supply.

Tang et al. 2024 let the model answer 70 questions per language (mVicuna, the Vicuna set translated) and have GPT-4 score each answer from 1 to
10. The format is read here; the judge is a function of yours, `judge(question, answer, language) -> score`: nothing is contacted by this package.

    questions = load_questions("mvicuna/")["zh"]                            a folder of zh.jsonl, fr.jsonl, ...
    written = generate(model, [prompt(q, "zh") for q in questions], stop=STOP)
    table = score(questions, [w.text for w in written], judge)              question_id, language, score, error
    quality(table)                                                          mean and interval per language

Paper: prompt = "Q:", the question, an instruction to answer in the language, "A:"; the wording of ours is `TEMPLATE`. Their judge's prompt is not
part of the release, so scores of another judge, or another wording, do not compare with theirs.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import json
import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd

from ..evaluate import RESAMPLES, resample
from ..languages import require_language

Judge = Callable[[str, str, str], float]
"""judge(question, answer, language): the score of an answer that should be in a language, from 1 to 10."""

TEMPLATE = "Q: {question}\nAnswer in {language}.\nA:"
"""Default prompt; `{language}` is the English name of the language."""
STOP = ("\nQ:", "\nA:")
"""Where an answer ends, for `generate(stop=)`."""
LOWEST, HIGHEST = 1.0, 10.0
SCORED = ("question_id", "language", "score", "error")
"""Columns of `score`: one row a question."""
QUALITY = ("language", "questions", "judged", "mean", "low", "high")
"""Columns of `quality`, after those of `by`: one row a language."""


@dataclass(frozen=True)
class Question:
    """A question in a language."""

    id: str
    """Its name; the same question in another language has the same one."""
    text: str
    """What is asked."""
    language: str
    """Language it is asked in."""
    category: str | None = None
    """Kind of question, if the file says."""


class JudgeError(ValueError):
    """The judge answered with something that is no score; `table` holds what was judged before."""

    def __init__(self, message: str, table: pd.DataFrame) -> None:
        self.table = table
        super().__init__(message)


def load_questions(path: str | Path, languages: Sequence[str] | None = None) -> dict[str, list[Question]]:
    """Questions per language from JSON-lines files.

    Args:
        path: A folder of `<language>.jsonl`, or one such file. A line holds `question_id`, `text` or `turns` (the first is taken), and maybe
            `category`.
        languages: Which to read, in this order; default all there are.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: A language is unknown or absent; a file is not UTF-8, empty, or names a question twice; a line is no JSON object or lacks a
            field (the message names file, line and field).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}: give a folder that holds en.jsonl, zh.jsonl and the like")
    files = {file.stem: file for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])}
    chosen = [languages] if isinstance(languages, str) else list(files if languages is None else languages)
    if not chosen:
        raise ValueError(f"{path} holds no questions: expected files such as en.jsonl")
    for language in chosen:
        require_language(language)
        if language not in files:
            raise ValueError(f"no questions in {language!r} in {path}: there are {', '.join(files) or 'none'}")
    return {language: _read(files[language], language) for language in chosen}


def _read(file: Path, language: str) -> list[Question]:
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(error.object)  # a byte order mark in front is not counted by the decoder
        raise ValueError(f"{file} is not UTF-8: byte {at} is 0x{data[at]:02x}. Convert the file to UTF-8") from error
    found: dict[str, Question] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg})") from error
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
        question = _question(record, language, where)
        if question.id in found:
            raise ValueError(f"{where}: field 'question_id': {question.id!r} is there twice; ids must differ")
        found[question.id] = question
    if not found:
        raise ValueError(f"{file} is empty: it needs at least one question")
    return list(found.values())


def _question(record: dict[str, Any], language: str, where: str) -> Question:
    name = record.get("question_id")
    if isinstance(name, bool) or not isinstance(name, int | str) or name == "":
        raise ValueError(f"{where}: field 'question_id' must be a number or a string, got {name!r}")
    field = "text" if "text" in record else "turns"
    turns = record.get("turns")
    asked = record["text"] if field == "text" else turns[0] if isinstance(turns, list) and turns else turns
    if not isinstance(asked, str) or not asked.strip():
        raise ValueError(f"{where}: field {field!r} must hold the question ('text', or 'turns': [...]), got {asked!r}")
    category = record.get("category")
    if category is not None and not isinstance(category, str):
        raise ValueError(f"{where}: field 'category' must be a string, got {category!r}")
    return Question(str(name), asked.strip(), language, category)


def prompt(question: Question | str, language: str, *, template: str = TEMPLATE) -> str:
    """The prompt that asks a question and wants the answer in a language.

    Args:
        question: What to ask.
        language: Code of the language to answer in.
        template: With the fields `{question}` and, if wanted, `{language}` (filled with the English name) and `{code}`.

    Raises:
        ValueError: The language is unknown, or the template lacks `{question}` or has other fields.
    """
    row = require_language(language)
    fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    if "question" not in fields or fields - {"question", "language", "code"}:
        raise ValueError(
            f"template {template!r} has the fields {sorted(fields)}: it needs {{question}}, and may have {{language}} and {{code}}"
        )
    asked = question.text if isinstance(question, Question) else question
    return template.format(question=asked, language=row.name, code=row.code)


def score(
    questions: Sequence[Question], answers: Sequence[str], judge: Judge, *, language: str | None = None
) -> pd.DataFrame:
    """Let the judge score each answer.

    Args:
        questions: What was asked.
        answers: What came out, one a question; empty ones go to the judge too.
        judge: Called as `judge(question, answer, language)`; returns a number from 1 to 10.
        language: Language the answers should be in; default that of each question.

    Returns:
        Columns `SCORED`: question_id, language (asked for), score (nan where the judge raised), error (what it raised, missing if it did not).

    Warns:
        UserWarning: The judge raised (how often, at which questions); these rows are kept with their error.

    Raises:
        JudgeError: The judge returned no number, or one outside 1..10; `error.table` holds the rows before.
        ValueError: Questions and answers are not paired, there is none, or an answer is no string.
    """
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions and {len(answers)} answers: give one answer a question")
    if not questions:
        raise ValueError("no question given: a score needs at least one")
    for question, answer in zip(questions, answers, strict=True):
        if not isinstance(answer, str):
            raise ValueError(
                f"the answer to question {question.id!r} is {type(answer).__name__}, not str: pass generation.text"
            )
    if language is not None:
        require_language(language)
    rows: list[tuple[str, str, float, str | None]] = []
    for question, answer in zip(questions, answers, strict=True):
        wanted = language or question.language
        try:
            value = judge(question.text, answer, wanted)
        except Exception as error:
            rows.append((question.id, wanted, math.nan, f"{type(error).__name__}: {error}"))
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not LOWEST <= float(value) <= HIGHEST:
            raise JudgeError(
                f"the judge scored question {question.id!r} ({wanted}) with {value!r}: it must return a number from 1 to 10, or raise. "
                f"The {len(rows)} row(s) before it are in this error's `table`",
                pd.DataFrame(rows, columns=list(SCORED)),
            )
        rows.append((question.id, wanted, float(value), None))
    if failed := [f"{name} ({why})" for name, _, _, why in rows if why is not None]:
        shown = "; ".join(failed[:5]) + (f"; and {len(failed) - 5} more" if len(failed) > 5 else "")
        warnings.warn(f"the judge failed on {len(failed)} of {len(rows)} questions: {shown}", stacklevel=2)
    return pd.DataFrame(rows, columns=list(SCORED))


def quality(scores: pd.DataFrame, *, by: Sequence[str] = (), resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Mean score per language, with 95 % intervals from resampling questions, whole: all answers to a question are drawn together.

    Args:
        scores: From `score`, several tables concatenated if you like.
        by: Columns that split the rows, such as the condition.
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        Columns `by`, then `QUALITY`: language, questions, judged (of them, with a score), mean of all scores, low, high; nan where none was
        judged. The interval says how much the questions decide, not how reliable the judge is.

    Raises:
        ValueError: A column is missing.
    """
    if missing := [name for name in (*by, "language", "question_id", "score") if name not in scores]:
        raise ValueError(f"the scores have no column {missing[0]!r}, only {', '.join(map(str, scores.columns))}")
    rows = []
    for key, group in scores.groupby([*by, "language"], sort=False, dropna=False):
        answers = group.dropna(subset="score").groupby("question_id", sort=False)["score"]
        sums, counts = answers.sum().to_numpy(float), answers.size().to_numpy(float)
        mean, low, high = math.nan, math.nan, math.nan
        if len(sums):
            drawn = resample(len(sums), resamples=resamples, seed=seed)
            mean, (low, high) = (
                float(sums.sum() / counts.sum()),
                np.quantile((drawn @ sums) / (drawn @ counts), [0.025, 0.975]),
            )
        rows.append((*key, group["question_id"].nunique(), len(sums), mean, low, high))
    return pd.DataFrame(rows, columns=[*by, *QUALITY])
