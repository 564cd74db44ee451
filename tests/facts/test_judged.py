"""What counts as known: every analysis takes every metric, and a query that a metric does not judge was not asked."""

import pandas as pd
import planted_facts
import pytest

from mwork_lens.facts.factors import precision_by_tokens
from mwork_lens.facts.judged import METRICS, judged
from mwork_lens.facts.origin import LABELS, label_counts, origins
from mwork_lens.facts.precision import precision
from mwork_lens.facts.probeless import fact_neurons
from mwork_lens.facts.sharing import sharing_table
from mwork_lens.facts.summary import SUMMARY, summary


def asked() -> pd.DataFrame:
    """Two languages, three facts; one query of `full` is missing."""
    rows = [
        ("en", "a", True, 1),
        ("en", "b", False, 1),
        ("en", "c", pd.NA, 2),
        ("de", "a", True, 3),
        ("de", "b", True, 1),
        ("de", "c", True, 1),
    ]
    table = pd.DataFrame(rows, columns=["language", "fact", "full", "typed_rank"]).assign(relation="r", object_tokens=1)
    return table.assign(full=table["full"].astype("boolean"), partial=pd.array([pd.NA] * 6, dtype="boolean"))


def test_typed_is_the_first_rank_and_missing_queries_are_left_out() -> None:
    assert judged(asked(), "typed")["typed"].tolist() == [True, True, False, False, True, True]
    held = judged(asked(), "full")
    assert held["full"].tolist() == [True, False, True, True, True]
    assert held["full"].dtype == bool
    assert "c" not in set(held.loc[held["language"] == "en", "fact"])
    own = judged(asked().assign(mine=[1, 0, 1, 0, 1, 0]), "mine")
    assert own["mine"].tolist() == [True, False, True, False, True, False]


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="the metric 'partial' is missing for every fact: choose typed"):
        judged(asked(), "partial")
    with pytest.raises(ValueError, match="no column 'contiguous': give what probe returned"):
        judged(asked(), "contiguous")
    with pytest.raises(ValueError, match="no column 'typed_rank'"):
        judged(asked().drop(columns="typed_rank"), "typed")


def test_sharing_and_factors_take_every_metric() -> None:
    pairs = sharing_table(asked(), metric="typed").set_index(["a", "b"])
    assert pairs.loc[("en", "de"), ["facts", "correct_a", "correct_b", "both"]].tolist() == [3, 2, 2, 1]
    pairs = sharing_table(asked(), metric="full").set_index(["a", "b"])
    assert pairs.loc[("en", "de"), ["facts", "correct_a", "correct_b", "both"]].tolist() == [2, 1, 2, 1]
    assert precision_by_tokens(asked(), metric="full")["queries"].tolist() == [3, 2]
    assert precision_by_tokens(asked(), metric="typed")["correct"].tolist() == [2, 2]


def test_fact_neurons_and_origins_take_the_typed_metric() -> None:
    held = planted_facts.facts(3)
    table = planted_facts.predictions(held).drop(columns="full")
    table = table.assign(full=pd.NA, typed_rank=[1, 1, 2] * 4)
    model, _ = planted_facts.decoder()
    found = fact_neurons(model, held, table, metric="typed", top=3)
    assert set(found.table["fact"]) == {"p1-0", "p1-1", "p2-0", "p2-1"}
    presence = held.table[["language", "relation", "fact"]].assign(present=False, searchable=True)
    traced = origins(held, table, presence, metric="typed")
    assert traced["predicted"].tolist() == [True, True, False] * 4
    counts = label_counts(traced)
    assert list(counts.columns) == [*LABELS, "none"]
    assert counts.loc["all"].tolist() == [8, 0, 0, 0]
    assert counts.loc["en"].sum() == 4


def test_the_summary_is_precision_by_every_metric_that_can_be_told() -> None:
    found = summary(asked().assign(contiguous=asked()["full"]), resamples=20)
    assert tuple(found.columns) == SUMMARY
    assert list(dict.fromkeys(found["metric"])) == [name for name in METRICS if name != "partial"]
    micro = found[(found["language"] == "all") & (found["average"] == "micro")].set_index("metric")["precision"]
    macro = found[found["average"] == "macro over language"].set_index("metric")["precision"]
    assert micro["full"] == pytest.approx(4 / 5)
    assert macro["full"] == pytest.approx((1 / 2 + 1) / 2)
    each = found[(found["metric"] == "typed") & (found["language"] == "en")]
    assert each["precision"].item() == precision(asked(), "typed", resamples=20)["precision"].iloc[0]
    with pytest.raises(ValueError, match="none of the metrics partial can be told"):
        summary(asked(), metrics=["partial"])
