"""Language accuracy against numbers worked out by hand, and against the benchmark's counting written down naively."""

import math
import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mwork_lens.writing.confusion import (
    ACCURACY,
    LINES,
    RESPONSES,
    judge,
    judge_lines,
    language_accuracy,
    repetition,
    response_language,
    wilson,
    words,
)
from mwork_lens.writing.identify import as_identifier, script_identifier

BY_SCRIPT = script_identifier(["en", "ru", "zh", "ar", "th"])
RU = "в доме стоит большой стол"
EN = "there is a large table here"


def row(table, rule, language=None):
    """The one row of a rule."""
    chosen = table[(table["rule"] == rule) & ((table["language"] == language) | (language is None))]
    assert len(chosen) == 1
    return chosen.iloc[0]


# --- tokens


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []), (" \t ", []), ("?!... —", []), ("Don't stop-gap, now!", ["Dont", "stopgap", "now"]), ("a—b – c", ["a", "b", "c"]),
        ("«Да», — сказал он.", ["Да", "сказал", "он"]), ("مرحبا، كيف؟", ["مرحبا", "كيف"]), ("1. x = 3$", ["1", "x", "3"]),
        ("我不知道。", ["我不", "知道"]), ("我们用model吧", ["我们", "用", "model", "吧"]), ("カタカナー", ["カタ", "カナ", "ー"]),
        ("สวัสดีครับ", ["สวัส", "ดีคร", "ับ"]), ("2023年3月", ["2023", "年", "3", "月"]), ("한국어 문장", ["한국어", "문장"]),
        ("😀 ok", ["😀", "ok"]),
    ],
)  # fmt: skip
def test_words_of_a_line(line, expected):
    assert words(line) == expected


@given(st.text(max_size=40))
def test_words_lose_nothing_but_punctuation_and_spaces(text):
    found = "".join(words(text))
    assert not set(found) & set(string.punctuation)
    assert [c for c in text if c.isalnum()] == [c for c in found if c.isalnum()]
    assert all(found for found in words(text))


# --- lines


def test_lines_are_judged_one_by_one():
    text = f"{RU}.\nкоротко и ясно\n\n{EN}\n{RU} table\n6 7 8 9 10\n?!\nQ: {EN}"
    found = judge_lines(text, "ru", BY_SCRIPT)
    assert list(found.columns) == list(LINES)
    assert found["line"].tolist() == [0, 1, 3, 4, 5]
    assert found["text"].tolist() == [RU, "коротко и ясно", EN, f"{RU} table", "6 7 8 9 10"]
    assert found["tokens"].tolist() == [5, 3, 6, 6, 5]
    assert found["judged"].tolist() == [True, False, True, True, True]
    assert found["identified"].tolist() == ["ru", "", "en", "ru", "unknown"]
    assert found["right"].tolist() == [True, False, False, True, False]
    assert found["english"].tolist() == [(), (), ("there", "large", "table", "here"), ("table",), ()]
    assert judge_lines("", "ru", BY_SCRIPT).empty


def test_what_counts_as_an_english_word():
    line = "он сказал Hello hello abc http café Hallo стол"

    def english(target, **how):
        return judge_lines(line, target, BY_SCRIPT, **how)["english"].tolist()[0]

    assert english("ru") == ("hello", "http")  # lower case, a-z, longer than 3
    assert english("ru", english=["hello", "Hallo", "abc", "café"]) == ("hello", "café")
    assert english("ru", english=[]) == ()
    assert english("en") == ()  # a target in Latin script


def test_chinese_is_counted_in_characters():
    assert judge_lines("我不知道他在哪里", "zh", BY_SCRIPT)["judged"].tolist() == [False]  # 8 letters, 4 tokens
    assert judge_lines("我不知道他在哪里。啊", "zh", BY_SCRIPT)[["tokens", "judged", "right"]].to_numpy().tolist() == [
        [5, True, True]
    ]
    # Chinese where English should be is wrong, not skipped
    assert judge(pd.DataFrame({"language": ["en"], "text": ["我不知道他现在到底在哪里"]}), BY_SCRIPT)[
        "skipped"
    ].tolist() == [False]


# --- responses


def by_hand():
    """Eight Russian responses whose outcome is worked out here."""
    return [
        RU,  # passes
        f"{RU}\n{RU}",  # passes
        f"{RU} table",  # passes, with an English word
        f"{RU}\n{EN}\n{RU}\n{RU}",  # 3 of 4 lines
        EN,  # 0 of 1
        "",  # skipped
        "да нет",  # skipped: too short
        "... !!! ??? --- ...",  # skipped: nothing in it
    ]


def test_rates_worked_out_by_hand():
    found = language_accuracy({"ru": by_hand()}, BY_SCRIPT)
    assert list(found.columns) == list(ACCURACY)
    strict, released = row(found, "strict"), row(found, "released")
    for one in (strict, released):
        assert (one["responses"], one["skipped"], one["line_passes"], one["word_passes"]) == (8, 3, 3, 2)
        assert one["wpr"] == pytest.approx(2 / 3)
        assert one["in_language"] == pytest.approx(5 / 8)  # the first four, and the short one
    assert strict["lpr"] == pytest.approx(3 / 8)
    assert released["lpr"] == pytest.approx(3 / 5)
    assert strict["line_accuracy"] == pytest.approx((1 + 1 + 1 + 3 / 4) / 8)
    assert released["line_accuracy"] == pytest.approx((1 + 1 + 1 + 3 / 4) / 5)
    for one, trials in ((strict, 8), (released, 5)):
        expected = binomtest(3, trials).proportion_ci(method="wilson")
        assert (one["lpr_low"], one["lpr_high"]) == pytest.approx((expected.low, expected.high))


def test_saying_nothing_is_a_failure_and_was_a_pass():
    found = language_accuracy({"ru": ["", " \n ", "?!", "😀"], "en": [""]}, BY_SCRIPT)
    for language, count in (("ru", 4), ("en", 1)):
        strict, released = row(found, "strict", language), row(found, "released", language)
        assert (strict["lpr"], strict["line_accuracy"], strict["in_language"], strict["skipped"]) == (0, 0, 0, count)
        assert (released["lpr"], released["line_accuracy"], released["in_language"]) == (1, 1, 0)
        assert (released["lpr_low"], released["lpr_high"]) == (0, 1)
    assert math.isnan(row(found, "strict", "ru")["wpr"])
    assert row(found, "released", "ru")["wpr"] == 1
    assert math.isnan(row(found, "released", "en")["wpr"])  # no such rate for Latin script
    # an identifier that calls everything Russian does not save an empty output
    eager = as_identifier(lambda text: "ru", ["ru"])
    assert language_accuracy({"ru": ["", "..."]}, eager)["in_language"].tolist() == [0, 0]


def test_perfect_and_hopeless_outputs():
    good = row(language_accuracy({"ru": [RU] * 9}, BY_SCRIPT), "strict")
    assert (good["lpr"], good["line_accuracy"], good["wpr"], good["in_language"]) == (1, 1, 1, 1)
    bad = row(language_accuracy({"ru": [EN] * 9}, BY_SCRIPT), "strict")
    assert (bad["lpr"], bad["line_accuracy"], bad["in_language"]) == (0, 0, 0)
    assert good["lpr_low"] > bad["lpr_high"]


LEXICON = {"ru": ["дом", "стол", "лес"], "en": ["table", "forest", "house", "at"], "de": ["Tisch", "Wald"]}


def lexical(text):
    """Most frequent language of the words."""
    counts = {code: sum(word in text.split() for word in known) for code, known in LEXICON.items()}
    best = max(counts, key=lambda code: counts[code])
    return best if counts[best] else "unknown"


def naive(completions, lang, listed):
    """The benchmark's rates, as its code counts them."""
    errors_word = errors_line = judged = 0
    shares = []
    for completion in completions:
        cleaned = "".join(c for c in completion.strip() if c not in string.punctuation)
        lines = [line for line in cleaned.split("\n") if len(line.split()) >= 5]
        if not lines:
            continue
        judged += 1
        wrong = 0
        for line in lines:
            if lexical(line) != lang:
                wrong += 1
        if wrong:
            errors_line += 1
        elif [w for line in lines for w in line.split() if w in listed]:
            errors_word += 1
        shares.append(1 - wrong / len(lines))
    return (
        1 - errors_line / max(1, judged),
        1 - errors_word / max(1, judged - errors_line),
        sum(shares) / len(shares) if shares else 1.0,
        len(completions) - judged,
        judged - errors_line,
    )


_line = st.lists(st.sampled_from([w for known in LEXICON.values() for w in known] + ["...", "7"]), max_size=8)
_responses = st.lists(st.lists(_line, max_size=4), min_size=1, max_size=6)


@given(_responses, st.sampled_from(["ru", "en"]))
def test_the_released_rule_is_the_benchmarks(responses, language):
    texts = ["\n".join(" ".join(line) for line in lines) for lines in responses]
    identifier = as_identifier(lexical, list(LEXICON))
    found = language_accuracy({language: texts}, identifier, english=LEXICON["en"])
    lpr, wpr, accuracy, skipped, passes = naive(texts, language, {"table", "forest", "house"})
    released, strict = row(found, "released"), row(found, "strict")
    assert (released["lpr"], released["line_accuracy"]) == pytest.approx((lpr, accuracy))
    assert (released["skipped"], released["line_passes"]) == (skipped, passes)
    if language == "ru":
        assert released["wpr"] == pytest.approx(wpr)
    # strict: the same passes among all responses; never above the released rate
    assert strict["lpr"] == pytest.approx(passes / len(texts))
    assert strict["lpr"] <= released["lpr"] + 1e-12
    assert strict["line_accuracy"] <= released["line_accuracy"] + 1e-12
    assert strict["lpr_low"] <= strict["lpr"] <= strict["lpr_high"]


def test_conditions_are_kept_apart():
    table = pd.DataFrame(
        {
            "dose": [0, 1, 0, 1, 1],
            "language": ["ru", "ru", "en", "en", "ru"],
            "text": [EN, RU, EN, "", RU],
            "other": [1, 2, 3, 4, 5],
        }
    )
    rows = judge(table, BY_SCRIPT, by=["dose"])
    assert list(rows.columns) == ["dose", *RESPONSES]
    assert rows["response"].tolist() == [0, 0, 0, 0, 1]
    assert rows["passed"].tolist() == [False, True, True, False, True]
    found = language_accuracy(table, BY_SCRIPT, by=["dose"])
    pd.testing.assert_frame_equal(found, language_accuracy(rows, BY_SCRIPT, by=["dose"]))
    strict = found[found["rule"] == "strict"].set_index(["dose", "language"])["lpr"]
    assert strict.to_dict() == {(0, "ru"): 0, (1, "ru"): 1, (0, "en"): 1, (1, "en"): 0}
    pooled = language_accuracy(table, BY_SCRIPT)
    assert row(pooled, "strict", "ru")["lpr"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"the judged responses have no column 'seed': judge\(..., by=\['seed'\]\)"):
        language_accuracy(rows, BY_SCRIPT, by=["seed"])


def test_bad_responses_are_named():
    with pytest.raises(ValueError, match="does not know 'fr', so no text could ever count as 'fr': it knows en, ru"):
        language_accuracy({"ru": [RU], "fr": ["oui"]}, BY_SCRIPT)
    with pytest.raises(ValueError, match="does not know 'de'"):
        judge_lines("ja", "de", BY_SCRIPT)
    with pytest.raises(ValueError, match="unknown language 'russian'"):
        judge({"russian": [RU]}, BY_SCRIPT)
    with pytest.raises(ValueError, match="the responses in 'ru' are one string: give a list"):
        judge({"ru": RU}, BY_SCRIPT)
    with pytest.raises(ValueError, match="no response given"):
        language_accuracy({"ru": []}, BY_SCRIPT)
    with pytest.raises(ValueError, match="response 1 is float, not str: give an empty string for no output"):
        judge(pd.DataFrame({"language": ["ru", "ru"], "text": [RU, np.nan]}), BY_SCRIPT)
    with pytest.raises(ValueError, match="the responses have no column 'text', only language"):
        judge(pd.DataFrame({"language": ["ru"]}), BY_SCRIPT)
    with pytest.raises(ValueError, match="'lines' cannot be grouped by"):
        judge(pd.DataFrame({"language": ["ru"], "text": [RU], "lines": [1]}), BY_SCRIPT, by=["lines"])


def test_a_whole_response_has_one_language():
    assert response_language(f"{RU}\n{RU}\n{EN}", BY_SCRIPT) == "ru"
    assert response_language(f"{RU}\nQ: {EN} {EN} {EN}", BY_SCRIPT) == "ru"
    assert response_language("", BY_SCRIPT) == "unknown"
    assert response_language("مرحبا كيف حالك اليوم", BY_SCRIPT) == "ar"


@given(st.integers(0, 40), st.integers(1, 40))
def test_intervals_are_wilsons(successes, more):
    trials = successes + more
    low, high = wilson(successes, trials)
    z, p = 1.959963984540054, successes / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert wilson(0, 0) == (0, 1)


# --- repetition


def test_repetition_is_a_share_of_ngrams():
    assert repetition([1, 2, 3, 1, 2, 3, 1], 3) == pytest.approx(2 / 5)  # 123 231 312 123 231
    assert repetition("a b c a b c a") == pytest.approx(2 / 5)
    assert repetition([1, 1, 1, 1], 1) == pytest.approx(3 / 4)
    assert repetition(range(20)) == 0
    assert repetition("我来我来我来", 2) == pytest.approx(3 / 5)  # letters, not pairs of them
    assert math.isnan(repetition([1, 2], 3))
    assert math.isnan(repetition(""))
    with pytest.raises(ValueError, match="n=0: n-grams need at least one token"):
        repetition([1, 2], 0)


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 4))
def test_repetition_counts_what_was_seen_before(ids, n):
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    again = sum(gram in grams[:i] for i, gram in enumerate(grams))
    assert repetition(ids, n) == pytest.approx(again / len(grams) if grams else math.nan, nan_ok=True)
