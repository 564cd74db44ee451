"""Questions read from files, prompts made of them, and judges that answer well, badly, or not at all."""

import json
import math

import jaxtyping
import numpy as np
import pandas as pd
import pytest

from mwork_lens.languages import LANGUAGES
from mwork_lens.writing.questions import (
    QUALITY,
    SCORED,
    JudgeError,
    Question,
    load_questions,
    prompt,
    quality,
    score,
)

LINES = {
    "en": [
        {"question_id": 1, "text": "How do I cook rice?", "category": "generic"},
        {"question_id": 2, "turns": ["What is a {tree}?", "And a forest?"]},
    ],
    "zh": [{"question_id": 1, "category": None, "text": " 怎么煮饭？ "}, {"question_id": "2", "text": "什么是树？"}],
}


@pytest.fixture
def folder(tmp_path):
    for language, records in LINES.items():
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        (tmp_path / f"{language}.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return tmp_path


# --- files


def test_questions_are_read(folder):
    found = load_questions(folder)
    assert list(found) == ["en", "zh"]
    assert found["en"] == [
        Question("1", "How do I cook rice?", "en", "generic"),
        Question("2", "What is a {tree}?", "en"),
    ]
    assert found["zh"] == [Question("1", "怎么煮饭？", "zh"), Question("2", "什么是树？", "zh")]
    assert list(load_questions(folder, ["zh", "en"])) == ["zh", "en"]
    assert load_questions(folder, "zh") == {"zh": found["zh"]}
    assert load_questions(str(folder / "zh.jsonl")) == {"zh": found["zh"]}


def test_a_byte_order_mark_and_windows_lines_are_no_matter(folder):
    (folder / "en.jsonl").write_bytes(
        b'\xef\xbb\xbf{"question_id": 1, "text": "a"}\r\n{"question_id": 2, "text": "b"}\r\n'
    )
    assert [q.text for q in load_questions(folder, ["en"])["en"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object, got list"),
        ('{"text": "a"}', "line 2: field 'question_id' must be a number or a string, got None"),
        ('{"question_id": true, "text": "a"}', "field 'question_id' must be a number or a string, got True"),
        ('{"question_id": "", "text": "a"}', "field 'question_id' must be a number or a string, got ''"),
        ('{"question_id": 5}', "line 2: field 'turns' must hold the question"),
        ('{"question_id": 5, "text": " "}', "line 2: field 'text' must hold the question"),
        ('{"question_id": 5, "text": 7}', "field 'text' must hold the question .*, got 7"),
        ('{"question_id": 5, "turns": []}', r"field 'turns' must hold the question .*, got \[\]"),
        ('{"question_id": 5, "turns": [null]}', "field 'turns' must hold the question .*, got None"),
        ('{"question_id": 5, "text": "a", "category": 3}', "line 2: field 'category' must be a string, got 3"),
        ('{"question_id": "1", "text": "a"}', "line 2: field 'question_id': '1' is there twice"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    file = tmp_path / "de.jsonl"
    file.write_text('{"question_id": 1, "text": "Wie?"}\n' + line, encoding="utf-8")
    with pytest.raises(ValueError, match=r"de\.jsonl, .*" + message):
        load_questions(tmp_path)


def test_bad_files_are_named(tmp_path, folder):
    with pytest.raises(ValueError, match=r"no questions in 'fr' in .*: there are en, zh"):
        load_questions(folder, ["fr"])
    with pytest.raises(ValueError, match="unknown language 'chinese': did you mean 'zh'"):
        load_questions(folder, ["chinese"])
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere"):
        load_questions(tmp_path / "nowhere")
    (tmp_path / "latin.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="unknown language 'latin'"):
        load_questions(tmp_path)
    (tmp_path / "latin.jsonl").rename(tmp_path / "fr.jsonl")
    with pytest.raises(ValueError, match=r"fr\.jsonl is empty: it needs at least one question"):
        load_questions(tmp_path, ["fr"])
    (tmp_path / "fr.jsonl").write_bytes(b'{"question_id": 1, "text": "\xe9t\xe9"}')
    with pytest.raises(ValueError, match=r"fr\.jsonl is not UTF-8: byte 28 is 0xe9"):
        load_questions(tmp_path, ["fr"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="nothing holds no questions: expected files such as en"):
        load_questions(tmp_path / "nothing")


# --- prompts


def test_a_prompt_names_the_language():
    question = Question("2", "What is a {tree}?", "en")
    assert prompt(question, "de") == "Q: What is a {tree}?\nAnswer in German.\nA:"
    assert prompt("Wie?", "zh", template="{question} [{code}]") == "Wie? [zh]"
    for code, row in LANGUAGES.items():
        assert f"Answer in {row.name}." in prompt("?", code)
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        prompt(question, "xx")
    for template in ("Q:", "{question} {topic}", "{question.id}", "{question} {}"):
        with pytest.raises(ValueError, match=r"it needs \{question\}, and may have \{language\} and \{code\}"):
            prompt(question, "de", template=template)


# --- judges

QUESTIONS = [Question(str(i), f"question {i}", "en") for i in range(6)]
ANSWERS = ["", "a", "bb", "ccc", "dddd", "eeeee"]


def test_each_answer_is_judged():
    calls = []

    def judge(question, answer, language):
        calls.append((question, answer, language))
        return np.float32(1 + len(answer))

    table = score(QUESTIONS, ANSWERS, judge, language="fr")
    assert list(table.columns) == list(SCORED)
    assert table["score"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["question_id"].tolist() == list("012345")
    assert set(table["language"]) == {"fr"}
    assert table["error"].isna().all()
    assert calls == [(q.text, a, "fr") for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    assert set(score(QUESTIONS, ANSWERS, judge)["language"]) == {"en"}


def test_a_judge_that_raises_loses_nothing_but_its_row():
    def judge(question, answer, language):
        if len(answer) % 2:
            raise TimeoutError(f"no answer for {answer}")
        return 7

    with pytest.warns(UserWarning, match=r"judge failed on 3 of 6 questions: 1 \(TimeoutError: no answer for a\); 3"):
        table = score(QUESTIONS, ANSWERS, judge)
    assert table["score"].isna().tolist() == [False, True] * 3
    assert table["error"].isna().tolist() == [True, False] * 3
    assert table["error"][1] == "TimeoutError: no answer for a"
    only = quality(table).iloc[0]
    assert (only["questions"], only["judged"], only["mean"]) == (6, 3, 7)


@pytest.mark.parametrize("value", [0, 11, 0.99, float("nan"), float("inf"), "8", None, True, [5]])
def test_a_judge_that_gives_no_score_is_refused(value):
    def judge(question, answer, language):
        return value if answer == "bb" else 5

    with pytest.raises(
        JudgeError, match=r"scored question '2' \(en\) with .*: it must return a number from 1 to 10"
    ) as e:
        score(QUESTIONS, ANSWERS, judge)
    assert e.value.table["score"].tolist() == [5, 5]
    assert e.value.table["question_id"].tolist() == ["0", "1"]


def test_an_interrupt_is_not_swallowed():
    def judge(question, answer, language):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(QUESTIONS, ANSWERS, judge)


def test_questions_and_answers_must_fit(monkeypatch):
    def judge(*_):
        raise AssertionError("not reached")

    with pytest.raises(ValueError, match="6 questions and 5 answers: give one answer a question"):
        score(QUESTIONS, ANSWERS[1:], judge)
    with pytest.raises(ValueError, match="no question given"):
        score([], [], judge)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would see it first
    with pytest.raises(ValueError, match="the answer to question '5' is NoneType, not str"):
        score(QUESTIONS, [*ANSWERS[:5], None], judge)
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        score(QUESTIONS, ANSWERS, judge, language="xx")


# --- means


def test_means_and_intervals_are_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "condition": ["on"] * 30 + ["off"] * 30,
            "language": (["en"] * 20 + ["de"] * 10) * 2,
            "question_id": [*range(20), *range(10)] * 2,
            "score": rng.integers(1, 11, 60).astype(float),
        }
    )
    found = quality(table, by=["condition"], resamples=300, seed=4)
    assert list(found.columns) == ["condition", *QUALITY]
    assert found[["condition", "language", "questions"]].to_numpy().tolist() == [
        ["on", "en", 20], ["on", "de", 10], ["off", "en", 20], ["off", "de", 10],
    ]  # fmt: skip
    for row in found.itertuples():
        chosen = table[(table["condition"] == row.condition) & (table["language"] == row.language)]["score"].to_numpy()
        drawn = np.random.default_rng(4).multinomial(len(chosen), [1 / len(chosen)] * len(chosen), size=300)
        means = [sum(count * value for count, value in zip(one, chosen, strict=True)) / len(chosen) for one in drawn]
        assert row.mean == pytest.approx(sum(chosen) / len(chosen))
        assert (row.low, row.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
        assert row.low <= row.mean <= row.high


def test_answers_to_one_question_are_drawn_together():
    """Five answers to each question are not five questions: the interval stays as wide as with one."""
    rng = np.random.default_rng(1)
    once = pd.DataFrame({"language": "en", "question_id": range(20), "score": rng.integers(1, 11, 20).astype(float)})
    often = pd.concat([once] * 5)
    one, many = (quality(table).iloc[0] for table in (once, often))
    assert (many["questions"], many["judged"]) == (20, 20)
    assert (many["mean"], many["low"], many["high"]) == pytest.approx((one["mean"], one["low"], one["high"]))


def test_a_language_that_nobody_judged_has_no_mean():
    table = pd.DataFrame({"language": ["en", "de", "de"], "question_id": [1, 1, 2], "score": [math.nan, 4.0, 4.0]})
    found = quality(table).set_index("language")
    assert found.loc["en", ["mean", "low", "high"]].isna().all()
    assert (found.loc["en", "judged"], found.loc["de", "judged"]) == (0, 2)
    assert found.loc["de", ["mean", "low", "high"]].tolist() == [4, 4, 4]
    with pytest.raises(ValueError, match="the scores have no column 'condition', only language, question_id, score"):
        quality(table, by=["condition"])
