"""Precision at 1: micro and macro under their names, intervals over facts, objects of one token."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.facts.factset import FACT_COLUMNS, FactSet
from mwork_lens.facts.precision import METRICS, one_token_precision, precision
from mwork_lens.facts.probe import PREDICTIONS


def answers(*languages: tuple[str, int, int]) -> pd.DataFrame:
    """(language, right, asked); facts are shared between languages."""
    rows = [
        (code, f"r{i % 2}", f"f{i}", i < right, i < right, i < right, 1 if i < right else 2, 1, "x", 1 + i % 2, -1.0)
        for code, right, asked in languages
        for i in range(asked)
    ]
    return pd.DataFrame(rows, columns=list(PREDICTIONS))


def test_micro_and_macro_are_different_numbers() -> None:
    table = answers(("en", 30, 100), ("de", 8, 40), ("af", 1, 20))
    micro = precision(table, by=()).iloc[0]
    macro = precision(table, average="macro", by=()).iloc[0]
    assert micro["precision"] == pytest.approx(39 / 160)
    assert macro["precision"] == pytest.approx((0.3 + 0.2 + 0.05) / 3)
    assert (micro["average"], macro["average"]) == ("micro", "macro over language")
    assert (micro["matches"], micro["queries"]) == (39, 160)
    assert list(precision(table)["precision"]) == [0.3, 0.2, 0.05]
    assert list(precision(table)["language"]) == ["en", "de", "af"]
    over = precision(table, average="macro")
    assert set(over["average"]) == {"macro over relation"}
    assert over["precision"][2] == pytest.approx((1 / 10 + 0) / 2)


def test_the_published_table_is_a_micro_average() -> None:
    """Shares and counts of a few languages as published (percent, queries): weighted by queries, not averaged over languages."""
    published = {"en": (19.07, 37498), "ja": (1.34, 25356), "th": (0.49, 9826), "af": (12.05, 7353)}
    table = answers(*((code, round(p * n / 1e4), round(n / 100)) for code, (p, n) in published.items()))
    weighted = sum(p * n for p, n in published.values()) / sum(n for _, n in published.values()) / 100
    mean = sum(p for p, _ in published.values()) / 4 / 100
    assert precision(table, by=(), resamples=50)["precision"][0] == pytest.approx(weighted, abs=2e-3)
    assert precision(table, average="macro", by=(), resamples=50)["precision"][0] == pytest.approx(mean, abs=2e-3)
    assert abs(weighted - mean) > 0.02


@given(right=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=4))
def test_shares_and_intervals(right: list[tuple[int, int]]) -> None:
    table = answers(*((code, min(k, n), n) for code, (k, n) in zip(("en", "de", "fr", "es"), right, strict=False)))
    for metric in METRICS:
        for average in ("micro", "macro"):
            found = precision(table, metric, average, by=(), resamples=60).iloc[0]
            assert 0 <= found["low"] <= found["high"] <= 1
            assert found["precision"] == pytest.approx(
                precision(table, "full", average, by=(), resamples=60)["precision"][0]
            )
    same = precision(answers(*((code, 3, 7) for code in ("en", "de"))), average="macro", by=(), resamples=60)
    assert same["precision"][0] == pytest.approx(3 / 7)


def test_intervals_draw_facts_with_all_their_languages() -> None:
    """Four languages that agree on every fact say no more than one does; four that have other facts do."""
    one = answers(("en", 20, 40))
    same = answers(*((code, 20, 40) for code in ("en", "de", "fr", "es")))
    other = same.assign(fact=same["language"] + same["fact"])
    width = [float((t["high"] - t["low"])[0]) for t in (precision(x, by=()) for x in (one, same, other))]
    assert width[0] == pytest.approx(width[1])
    assert width[2] == pytest.approx(width[0] / 2, rel=0.2)
    normal = 2 * 1.96 * math.sqrt(0.25 / 40)
    assert width[0] == pytest.approx(normal, rel=0.1)


def test_missing_answers_are_left_out() -> None:
    table = answers(("en", 3, 6))
    table["full"] = table["full"].astype("boolean")
    table.loc[5, "full"] = pd.NA
    assert precision(table)["precision"][0] == pytest.approx(3 / 5)
    assert precision(table, "typed")["queries"][0] == 6
    with pytest.raises(ValueError, match="the metric 'full' is missing for every fact: choose typed"):
        precision(table.iloc[5:])


def test_one_token_precision_weighs_objects() -> None:
    table = answers(("en", 3, 6), ("de", 0, 2))
    rows = [("r", f"f{i}", "en", "s", "Rome" if i in (0, 4) else "Paris" if i == 2 else f"two {i}") for i in range(6)]
    rows += [("r", f"f{i}", "de", "s", "Rom") for i in range(2)]
    facts = FactSet(pd.DataFrame(rows, columns=list(FACT_COLUMNS)), {("en", "r"): "[X] [Y]", ("de", "r"): "[X] [Y]"})
    found = one_token_precision(table, facts)
    assert found["precision"].tolist() == pytest.approx([(1 / 2 + 1) / 2, 0])  # Rome 1 of 2, Paris 1 of 1
    assert found["objects"].tolist() == [2, 1]
    assert found["queries"].tolist() == [3, 1]
    assert one_token_precision(table, facts, tokens=2)["objects"].tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"no object has 5 token\(s\): there are lengths 1, 2"):
        one_token_precision(table, facts, tokens=5)
    with pytest.raises(ValueError, match="fact 'f0' in 'de' is not among the facts given"):
        one_token_precision(table, facts.only(["en"]))


def test_what_precision_refuses() -> None:
    table, ask = answers(("en", 1, 2)), precision.__wrapped__ if hasattr(precision, "__wrapped__") else precision
    with pytest.raises(ValueError, match="unknown metric 'exact': choose from full, partial, contiguous, typed"):
        precision(table, "exact")
    with pytest.raises(ValueError, match="has no column 'typed_rank': give what probe returned"):
        precision(table.drop(columns="typed_rank"), "typed")
    with pytest.raises(ValueError, match="average='mean' is not one of"):
        ask(table, average="mean")
    with pytest.raises(ValueError, match="over='relation' belongs to average='macro'"):
        precision(table, over="relation")
    with pytest.raises(ValueError, match="a macro average over 'language' needs several"):
        precision(table, average="macro", over="language")
    with pytest.raises(ValueError, match="has no column 'family'"):
        precision(table, by="family")
