import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_facts import LANGUAGES, MACRO, MICRO, PEARSON, PEARSON_LOG, PEARSON_RECOMPUTED
from scipy import stats

from mwork_lens.facts.factors import (
    BY_TOKENS,
    CORRELATIONS,
    factor_correlations,
    fisher_interval,
    precision_by_tokens,
    token_counts,
    usable_correlations,
    wilson_interval,
)

SIZES = LANGUAGES[list(PEARSON)]
GROWING = {x: float(i) for i, x in enumerate("abcd")}


def test_the_five_published_correlations() -> None:
    table = factor_correlations(LANGUAGES["mbert_full"], SIZES)
    assert tuple(table.columns) == CORRELATIONS
    assert set(table["languages"]) == {53}
    pearson = table[table["method"] == "pearson"].set_index(["scale", "factor"])["r"]
    for factor, value in PEARSON.items():
        assert pearson["raw", factor] == pytest.approx(value, abs=0.0051)
        assert pearson["raw", factor] == pytest.approx(PEARSON_RECOMPUTED[factor], abs=0.0006)
        assert pearson["log", factor] == pytest.approx(PEARSON_LOG[factor], abs=0.0006)


def test_the_interval_of_the_largest_published_correlation() -> None:
    assert fisher_interval(0.51, 53) == pytest.approx((0.28, 0.69), abs=0.005)


def test_the_published_mean_called_macro_is_micro() -> None:
    for column, micro, macro in zip(LANGUAGES.columns, MICRO, MACRO, strict=False):
        assert np.average(LANGUAGES[column], weights=LANGUAGES["queries"]) == pytest.approx(micro, abs=0.006)
        assert LANGUAGES[column].mean() == pytest.approx(macro, abs=0.001)
    assert LANGUAGES["queries"].sum() == 843143


def test_the_published_table_has_more_partial_than_full_matches_everywhere() -> None:
    assert (LANGUAGES["mbert_partial"] >= LANGUAGES["mbert_full"]).all()
    assert (LANGUAGES["xlmr_partial"] >= LANGUAGES["xlmr_full"]).all()


@given(st.integers(5, 40), st.integers(0, 10_000))
def test_pearson_and_its_interval_are_scipys(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"l{i}" for i in range(n)]
    x, y = rng.lognormal(size=n), rng.normal(size=n)
    table = factor_correlations(dict(zip(names, y, strict=True)), {"size": dict(zip(names, x, strict=True))})
    got = table.set_index(["method", "scale"])
    wanted = stats.pearsonr(x, y)
    interval = wanted.confidence_interval(0.95)
    assert got.loc[("pearson", "raw"), ["r", "low", "high"]].tolist() == pytest.approx([wanted[0], *interval])
    assert got.loc[("pearson", "log"), "r"] == pytest.approx(stats.pearsonr(np.log(x), y)[0])
    assert got.loc[("spearman", "raw"), "r"] == pytest.approx(stats.spearmanr(x, y)[0])
    assert ("spearman", "log") not in got.index  # the same number
    assert ((table["low"] <= table["r"]) & (table["r"] <= table["high"])).all()


@given(st.floats(-0.99, 0.99), st.integers(4, 200))
def test_a_spearman_interval_is_wider_and_mirrors(r: float, n: int) -> None:
    narrow, wide = fisher_interval(r, n), fisher_interval(r, n, method="spearman")
    assert wide[0] <= narrow[0] <= r <= narrow[1] <= wide[1]
    assert fisher_interval(-r, n) == pytest.approx((-narrow[1], -narrow[0]))


def test_shuffled_languages_give_chance() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        shuffled = dict(zip(LANGUAGES.index, rng.permutation(LANGUAGES["mbert_full"]), strict=True))
        table = factor_correlations(shuffled, {"abstracts": LANGUAGES["abstracts"]}, methods=["spearman"])
        found.append(table.iloc[0])
    table = pd.DataFrame(found)
    assert abs(table["r"].mean()) < 0.03
    assert ((table["low"] <= 0) & (table["high"] >= 0)).mean() == pytest.approx(0.95, abs=0.04)


def test_only_languages_in_common_count() -> None:
    score = {x: float(i) for i, x in enumerate("abcdef")}
    factor = {x: float(i * i + 1) for i, x in enumerate("bcdefgh")}
    table = factor_correlations(score, {"f": factor}, methods=["spearman"])
    assert table["languages"].tolist() == [5]
    assert table["r"].tolist() == pytest.approx([1.0])
    assert table["high"].tolist() == pytest.approx([1.0])


def queries() -> pd.DataFrame:
    rows = [("en", 1, True), ("en", 1, False), ("en", 3, False), ("ja", 2, True)]
    return pd.DataFrame(rows, columns=["language", "object_tokens", "full"])


def test_precision_by_tokens_counts_queries() -> None:
    table = precision_by_tokens(queries())
    assert tuple(table.columns) == BY_TOKENS
    assert table.drop(columns=["low", "high"]).values.tolist() == [
        ["en", 1, 2, 1, 0.5],
        ["en", 3, 1, 0, 0.0],
        ["ja", 2, 1, 1, 1.0],
    ]
    assert ((table["low"] <= table["p_at_1"] + 1e-12) & (table["p_at_1"] <= table["high"] + 1e-12)).all()
    assert token_counts(queries()).to_dict() == pytest.approx({"en": 5 / 3, "ja": 2.0})


@given(st.integers(1, 300), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    wanted = stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, n) == pytest.approx(tuple(wanted), abs=1e-12)


@pytest.mark.parametrize(
    ("score", "factor", "match"),
    [
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "c": 2.0}, "1 language.* in common"),
        (dict.fromkeys("abcd", 1.0), GROWING, "P@1 is 1 in all 4"),
        (GROWING, dict.fromkeys("abcd", 2.0), "factor 'f' is 2 in all 4"),
        (
            GROWING,
            {**GROWING, "a": 0.0},
            "'f' is 0 for 'a' and has no logarithm",
        ),
        (
            GROWING,
            {**GROWING, "a": float("nan")},
            "not a finite number for 'a'",
        ),
    ],
)
def test_what_has_no_correlation_is_refused(score: dict, factor: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        factor_correlations(score, {"f": factor})


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="method 'kendall' is unknown"):
        factor_correlations({}, {}, methods=["kendall"])
    with pytest.raises(ValueError, match="scale 'cube' is unknown"):
        factor_correlations({}, {}, scales=["cube"])
    with pytest.raises(ValueError, match="method='tau' is unknown"):
        fisher_interval(0.1, 9, method="tau")
    with pytest.raises(ValueError, match="over 3 points"):
        fisher_interval(0.1, 3)
    with pytest.raises(ValueError, match="no correlation"):
        fisher_interval(1.2, 9)
    with pytest.raises(ValueError, match="no column 'object_tokens'"):
        token_counts(queries()[["language"]])


def test_a_bad_cell_costs_its_factor_only_what_it_must() -> None:
    scores = {"en": 0.5, "de": 0.4, "fr": 0.1, "ru": 0.3, "zh": 0.2}
    factors = {
        "pages": {"en": 100.0, "de": 50.0, "fr": 20.0, "ru": float("nan"), "zh": 3.0},
        "bytes": {"en": 100.0, "de": 0.0, "fr": 20.0, "ru": 5.0},
        "same": dict.fromkeys(scores, 1.0),
        "good": {"en": 9.0, "de": 5.0, "fr": 2.0, "ru": 3.0, "zh": 1.0},
    }
    found, said = usable_correlations(scores, factors)
    kept = {x: v for x, v in scores.items() if x != "ru"}
    alone = factor_correlations(kept, {"pages": {x: factors["pages"][x] for x in kept}})
    assert found[found["factor"] == "pages"]["r"].tolist() == alone["r"].tolist()
    assert set(found.loc[found["factor"] == "bytes", "scale"]) == {"raw"}
    assert set(found["factor"]) == {"pages", "bytes", "good"}
    assert said == [
        "factor 'pages' has no number for ru: left out of its correlations",
        "factor 'bytes' has no number for zh: left out of its correlations",
        "factor 'bytes' is 0 for 'de': no correlation with its logarithm",
        "no correlations: factor 'same' is 1 in all 5 languages: what does not vary has no correlation",
    ]
    assert len(usable_correlations(scores, {"good": factors["good"]})[1]) == 0
