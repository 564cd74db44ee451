"""Means and differences against plain loops over resamples; what pairing buys; faults."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.evaluate import resample
from mwork_lens.tasks.tables import CHANGES, DELTAS, ability_delta, ability_difference, ability_table, accuracy


def table(scores, condition="baseline", task="t"):
    """Rows from {language: {item: score}}."""
    rows = [
        (task, condition, language, item, value) for language, held in scores.items() for item, value in held.items()
    ]
    return pd.DataFrame(rows, columns=["task", "condition", "language", "item", "score"])


def random_scores(seed, languages=("en", "fr", "zh"), n=40, share=0.6):
    rng = np.random.default_rng(seed)
    return {language: {f"i{k}": float(rng.random() < share) for k in range(n)} for language in languages}


def test_accuracy_against_a_plain_bootstrap():
    scores = random_scores(0)
    found = accuracy(table(scores), resamples=200, seed=3)
    assert list(found.columns) == ["task", "language", "mean", "low", "high", "items"]
    weights = resample(40, resamples=200, seed=3)
    for row in found.itertuples():
        values = np.array(list(scores[row.language].values()))
        means = [np.average(values, weights=w) for w in weights]
        assert row.mean == pytest.approx(values.mean())
        np.testing.assert_allclose([row.low, row.high], np.quantile(means, [0.025, 0.975]))
        assert row.items == 40


def test_parallel_items_are_drawn_together():
    one = random_scores(0, ["en"])["en"]
    same = accuracy(table({"en": one, "fr": one}), by=["task"])
    alone = accuracy(table({"en": one}), by="task")
    np.testing.assert_allclose(same[["mean", "low", "high"]], alone[["mean", "low", "high"]])
    renamed = accuracy(table({"en": one, "fr": {f"x{k}": v for k, v in one.items()}}), by="task")
    assert (renamed["high"] - renamed["low"]).item() < (same["high"] - same["low"]).item()  # 80 items instead of 40
    assert (same["items"].item(), renamed["items"].item()) == (40, 80)


def test_difference_against_a_plain_bootstrap():
    before, after = random_scores(0), random_scores(1, share=0.3)
    found = ability_difference(table(after, "off"), table(before), resamples=300, seed=2)
    assert list(found.columns) == list(CHANGES)
    weights = resample(40, resamples=300, seed=2)
    for row in found.itertuples():
        b, a = (np.array(list(held[row.language].values())) for held in (before, after))
        drawn = [np.average(a - b, weights=w) for w in weights]
        assert (row.before, row.after, row.change) == pytest.approx((b.mean(), a.mean(), a.mean() - b.mean()))
        np.testing.assert_allclose([row.low, row.high], np.quantile(drawn, [0.025, 0.975]))


def test_delta_is_that_of_the_paper():
    before, after = random_scores(0), random_scores(1, share=0.3)
    (row,) = ability_delta(table(after, "off"), table(before), resamples=300, seed=2).itertuples()
    mean = {language: np.mean(list(after[language].values())) for language in after}
    change = {language: mean[language] - np.mean(list(before[language].values())) for language in after}
    assert row.english == pytest.approx(mean["en"])
    assert row.others == pytest.approx((mean["fr"] + mean["zh"]) / 2)
    assert row.d_english == pytest.approx(change["en"])
    assert row.d_others == pytest.approx((change["fr"] + change["zh"]) / 2)
    assert row.delta == pytest.approx(row.d_english - row.d_others)
    gaps = {
        language: np.subtract(list(after[language].values()), list(before[language].values())) for language in after
    }
    weights = resample(40, resamples=300, seed=2) / 40
    drawn = weights @ gaps["en"] - (weights @ gaps["fr"] + weights @ gaps["zh"]) / 2
    np.testing.assert_allclose([row.delta_low, row.delta_high], np.quantile(drawn, [0.025, 0.975]))
    (only,) = ability_delta(table(after, "off"), table(before), languages=["zh"]).itertuples()
    assert only.d_others == pytest.approx(change["zh"])
    (other,) = ability_delta(table(after, "off"), table(before), english="fr").itertuples()
    assert other.d_english == pytest.approx(change["fr"])


def test_parallel_items_make_delta_sharper():
    """The same items fail in both languages: resampled together, their difference does not move; without shared ids it does."""
    before, after = (
        random_scores(0, ["en", "fr"], share=1.0),
        dict.fromkeys(["en", "fr"], random_scores(1, ["en"], share=0.5)["en"]),
    )
    (row,) = ability_delta(table(after, "off"), table(before)).itertuples()
    assert (row.delta, row.delta_low, row.delta_high) == (0, 0, 0)
    assert row.d_english_low < row.d_english < row.d_english_high

    def apart(scores):
        return {
            language: {f"{language}{item}": value for item, value in held.items()} for language, held in scores.items()
        }

    (row,) = ability_delta(table(apart(after), "off"), table(apart(before))).itertuples()
    assert row.delta_low < 0 < row.delta_high


def test_partly_shared_items():
    before = {"en": {"a": 1.0, "b": 1.0, "c": 0.0}, "fr": {"b": 1.0, "c": 1.0, "d": 1.0}}
    after = {"en": {"a": 0.0, "b": 1.0, "c": 0.0}, "fr": {"b": 0.0, "c": 1.0, "d": 0.0}}
    found = ability_difference(table(after), table(before))
    assert found["change"].tolist() == pytest.approx([-1 / 3, -2 / 3])
    assert np.isfinite(found[["low", "high"]]).all().all()


@given(st.integers(0, 99))
def test_laws(seed):
    before, after = table(random_scores(seed, n=12)), table(random_scores(seed + 1000, n=12), "off")
    there, back = (ability_difference(*pair, resamples=50) for pair in ((after, before), (before, after)))
    np.testing.assert_allclose(there["change"], -back["change"])
    np.testing.assert_allclose(there["low"], -back["high"], atol=1e-12)
    shuffled = ability_difference(after.sample(frac=1, random_state=seed), before, resamples=50)
    pd.testing.assert_frame_equal(shuffled, there)
    nothing = ability_delta(before, before, resamples=50)
    assert (nothing[["d_english", "d_others", "delta", "delta_low", "delta_high"]] == 0).all().all()


def test_every_condition_against_one_baseline():
    rows = pd.concat([table(random_scores(k), name) for k, name in enumerate(("off", "baseline", "random"))])
    found = ability_table(rows)
    assert list(found.columns) == ["condition", *DELTAS]
    assert found["condition"].tolist() == ["off", "random"]
    baseline, off = (rows[rows["condition"] == name] for name in ("baseline", "off"))
    pd.testing.assert_frame_equal(found[found["condition"] == "off"][list(DELTAS)], ability_delta(off, baseline))
    with pytest.raises(ValueError, match="no condition 'none' to compare with: there are off, baseline, random"):
        ability_table(rows, "none")
    with pytest.raises(ValueError, match="the table holds 'baseline' only"):
        ability_table(baseline)


def test_faults():
    before, after = table(random_scores(0)), table(random_scores(1), "off")
    both = pd.concat([before, after])
    with pytest.raises(ValueError, match=r"several conditions \(baseline, off\): name 'condition'"):
        accuracy(both)
    assert len(accuracy(both, by=("condition", "language"))) == 6
    with pytest.raises(ValueError, match="no column 'f1': the table has task"):
        accuracy(before, score="f1")
    with pytest.raises(ValueError, match=r"the f1 of item 'i0' .* is nan"):
        accuracy(before.assign(f1=np.nan), score="f1")
    with pytest.raises(ValueError, match="the table has no rows"):
        accuracy(before[:0])
    with pytest.raises(ValueError, match="after holds several conditions"):
        ability_difference(both, before)
    with pytest.raises(ValueError, match="only one of the two tables has item 'i0' of 't' in 'en'"):
        ability_difference(after, before[1:])
    with pytest.raises(ValueError, match="before holds item 'i0' of 't' in 'en' twice"):
        ability_difference(after, pd.concat([before, before[:1]]))
    with pytest.raises(ValueError, match="task 't' has no scores in 'de': it has en, fr, zh"):
        ability_delta(after, before, english="de")
    with pytest.raises(ValueError, match="needs languages other than 'en'"):
        ability_delta(after, before, languages=["en"])
