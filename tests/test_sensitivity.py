"""Every row against LAPE run by itself on the documents and settings that the row names."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from test_stability import LANGUAGES, LAYERS, PLANTED, WIDTH, planted, strata

from mwork_lens.detect.lape import lape
from mwork_lens.robustness.sensitivity import SENSITIVITY, sensitivity
from mwork_lens.stats import Moments
from mwork_lens.strata import DocumentMoments

REFERENCE = {"rate": 0.1, "filter_rate": 0.85, "bar_rate": 0.85}
TRIED = {"rates": (0.05, 0.1, 0.15), "bars": (0.7, 0.85), "domains": "topics", "tokens": (5000, 12000), "draws": 2}


def table_of(moments, **changed):
    return sensitivity(moments, **{**REFERENCE, **TRIED, **changed})


def units(moments, **changed):
    return {x: {(j, i) for _, j, i in s} for x, s in lape(moments, **{**REFERENCE, **changed}).items()}


def check(rows, found, base, number_of_units=LAYERS * WIDTH):
    """The rows of one trial against Python sets."""
    assert list(rows["language"]) == [*found, "all"]
    found, base = ({**s, "all": set().union(*(s[x] for x in found))} for s in (found, base))
    for row in rows.itertuples():
        a, b = found[row.language], base[row.language]
        assert (row.size, row.reference_size, row.shared) == (len(a), len(b), len(a & b))
        assert row.jaccard == pytest.approx(len(a & b) / len(a | b) if a | b else math.nan, nan_ok=True)
        assert row.containment == pytest.approx(len(a & b) / min(len(a), len(b)) if a and b else math.nan, nan_ok=True)
        shared = np.arange(min(len(a), len(b)) + 1)
        chance = stats.hypergeom(number_of_units, len(a), len(b)).pmf(shared) if a and b else np.ones(1)
        expected = chance @ (shared / (len(a) + len(b) - shared)) if a or b else math.nan
        assert row.jaccard_chance == pytest.approx(expected, nan_ok=True)


def trial(table, varied, value, draw=-1):
    rows = table[(table["varied"] == varied) & (table["value"] == value) & (table["draw"] == draw)]
    assert len(rows)
    return rows


@pytest.mark.filterwarnings("ignore:few documents")
def test_settings_languages_and_domains_are_those_of_lape_by_itself():
    moments = planted(jitter=0.8)
    table = table_of(moments)
    base = units(moments)
    assert tuple(table.columns) == SENSITIVITY
    for rate in TRIED["rates"]:
        check(trial(table, "rate", f"{rate:g}"), units(moments, rate=rate), base)
    for bar in TRIED["bars"]:
        check(trial(table, "bar", f"{bar:g}"), units(moments, filter_rate=bar, bar_rate=bar), base)
    for per in ("token", "document"):
        check(trial(table, "per", per), units(moments, per=per), base)
    for left in LANGUAGES:
        rest = {x: m for x, m in moments.items() if x != left}
        check(trial(table, "languages", left), units(rest), base)
    for topic in ("topic0", "topic1", "topic2"):
        part = {x: m.take([i for i, d in enumerate(m.documents) if d.startswith(topic)]) for x, m in moments.items()}
        rows = trial(table, "domain", topic)
        check(rows, units(part), base)
        assert list(rows["tokens"]) == [*(m.tokens for m in part.values()), sum(m.tokens for m in part.values())]
    assert table.loc[table["jaccard"].notna() & (table["varied"] == "rate"), "jaccard"].nunique() > 2  # sets do change


def test_the_reference_is_in_each_group_once_and_equals_itself():
    table = table_of(planted(jitter=0.8))
    rows = table[table["reference"]]
    assert [*rows["varied"].unique()] == ["rate", "bar", "per", "languages", "domain", "tokens"]
    assert not rows.duplicated(["varied", "language"]).any()
    assert [*rows.drop_duplicates("varied")["value"]] == ["0.1", "0.85", "token", "none", "all", "all"]
    assert (rows["size"] == rows["reference_size"]).all()
    assert (rows["jaccard"].dropna() == 1).all()
    assert not table.duplicated(["varied", "value", "draw", "language"]).any()


def test_subsamples_have_about_the_tokens_asked_for_and_are_nested():
    moments = planted(jitter=0.8)
    table = table_of(moments, tokens=(1, 5000, 12000), draws=3)
    table = table[(table["varied"] == "tokens") & ~table["reference"] & (table["language"] != "all")]
    assert len(table) == 3 * 3 * 3
    for number, rows in table.groupby("number"):
        if number > 1:
            assert ((rows["tokens"] - number).abs() <= 1500).all()  # half a document
    wide = table.pivot(index=["draw", "language"], columns="number", values="tokens")
    assert ((wide[1.0] < wide[5000.0]) & (wide[5000.0] < wide[12000.0])).all()
    lengths = {x: {int(n) for n in m.n} for x, m in moments.items()}
    assert all(int(n) in lengths[x] for (_, x), n in wide[1.0].items())  # one document at least
    assert wide[1.0].nunique() > 3  # draws differ


def test_default_numbers_of_tokens_are_parts_of_the_shortest_language():
    moments = planted()
    moments["fr"] = moments["fr"].take(range(8))
    fewest = moments["fr"].tokens
    table = sensitivity(moments, rate=0.1, filter_rate=0.85, bar_rate=0.85, rates=(), bars=())
    numbers = table.loc[(table["varied"] == "tokens") & ~table["reference"], "number"]
    assert sorted({*numbers}) == [fewest // 8, fewest // 4, fewest // 2]
    assert {*table["varied"]} == {"per", "languages", "tokens"}


def test_warnings_of_the_trials_are_gathered_in_one():
    with pytest.warns(UserWarning, match="in 1 of the trials: only .* rate=0.9 asks for") as raised:
        table_of(planted(), rates=(0.9,))
    assert len(raised) == 1


def test_neither_order_of_languages_nor_of_documents_matters():
    moments = planted(jitter=0.8)
    turned = {x: moments[x].take(range(11, -1, -1)) for x in ("zh", "de", "fr")}
    key = ["varied", "value", "draw", "language"]
    one, two = (table_of(m).sort_values(key, ignore_index=True) for m in (moments, turned))
    pd.testing.assert_frame_equal(one, two)
    other = table_of(moments, seed=1).sort_values(key, ignore_index=True)
    assert not one.equals(other)


def test_a_smaller_rate_gives_part_of_the_set():
    table = table_of(planted(jitter=0.8))
    less = table[(table["varied"] == "rate") & (table["value"] == "0.05")]
    assert (less["containment"].dropna() == 1).all()
    assert less["jaccard"].min() < 1


def test_units_of_a_domain_show_and_a_random_split_hides_them():
    """Only in topic0, other units are specific."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.05, 0.3, (LAYERS, WIDTH))
    moments = {}
    for number, x in enumerate(LANGUAGES):
        shares = np.tile(base, (12, 1, 1))
        for k, other in enumerate(LANGUAGES):
            for layer, unit in PLANTED[other]:
                shares[:, layer, unit] = 0.5 if x == other else 0.02
            shares[::3, :, 10 + k] = 0.9 if x == other else 0.001
            shares[1::3, :, 10 + k] = shares[2::3, :, 10 + k] = 0.1
        moments[x] = strata(shares, seed=number)
    table = table_of(
        moments, rate=0.15, rates=(), bars=(), tokens=(), leave_out=False, draws=5, filter_rate=0.8, bar_rate=0.8
    )
    mean = table[table["language"] == "all"].groupby(["varied", "value"])["jaccard"].mean()
    assert mean["domain", "topic0"] < 0.2
    assert mean["domain_random", "topic1"] > mean["domain", "topic0"] + 0.3


def test_domains_by_name_and_groups_left_out():
    moments = planted()
    halves = {"first": moments["de"].documents[:6], "second": moments["de"].documents[6:]}
    table = table_of(moments, domains=halves, tokens=(), rates=(), bars=(), leave_out=False, draws=1)
    assert {*table["varied"]} == {"domain", "domain_random", "per"}
    base = units(moments)
    for name, at in (("first", range(6)), ("second", range(6, 12))):
        check(trial(table, "domain", name), units({x: m.take(at) for x, m in moments.items()}), base)
        assert (trial(table, "domain_random", name, 0)["tokens"] > 6 * 2000 - 1).all()


def test_filter_and_bar_of_the_reference_may_differ():
    moments = planted()
    table = table_of(moments, filter_rate=0.8, domains=None, tokens=())
    bars = table[table["varied"] == "bar"]
    assert [*bars["value"].unique()] == ["0.8/0.85", "0.7", "0.85"]
    check(trial(table, "bar", "0.85"), units(moments), units(moments, filter_rate=0.8))


def test_a_language_without_units_has_rows_without_a_ratio():
    moments = planted()
    zh = moments["zh"]
    moments["zh"] = DocumentMoments(zh.documents, zh.n, {"ffn_act": zh.positive["ffn_act"] // 100}, zh.total, model="m")
    rows = table_of(moments, domains=None, tokens=(), bars=()).query("language == 'zh' and reference")
    assert (rows["size"] == 0).all()
    assert rows[["jaccard", "jaccard_chance", "containment"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"draws": 0}, "draws=0: draw each subsample at least once"),
        (
            {"tokens": (10**6,)},
            r"tokens=1000000 cannot be drawn: give numbers between 1 and \d+, which is what language '\w\w' has",
        ),
        ({"tokens": (0,)}, "tokens=0 cannot be drawn"),
        ({"domains": "genres"}, "unknown domains='genres': give 'topics'"),
        ({"domains": {"a": ["nowhere"]}}, "domain 'a' names document 'nowhere', which no language has"),
        ({"domains": {"a": []}}, "domain 'a' has no document of language 'de'"),
        ({"rates": (2.0,)}, "rate=2.0 is not a share"),
        ({"bars": (1.0,)}, "filter_rate=1.0 is not a share"),
    ],
)
def test_what_cannot_be_varied_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        table_of(planted(), **changed)


def test_languages_and_documents_that_do_not_fit_are_refused():
    moments = planted()
    two = {x: moments[x] for x in ("de", "fr")}
    with pytest.raises(ValueError, match=r"with 2 \(de, fr\) none can be left out: pass leave_out=False"):
        table_of(two)
    assert len(table_of(two, leave_out=False, domains=None, tokens=()))
    partly = {**moments, "zh": moments["zh"].take([0, 1, 3, 4])}
    with pytest.raises(ValueError, match="domain 'topic2' has no document of language 'zh'"):
        table_of(partly)
    numbered = {x: DocumentMoments(tuple("0123456789ab"), m.n, m.positive, m.total) for x, m in moments.items()}
    with pytest.raises(ValueError, match="the id '0' names no topic"):
        table_of(numbered)
    same = {x: m.take([0, 3]) for x, m in moments.items()}
    with pytest.raises(ValueError, match="all documents are of one topic, 'topic0'"):
        table_of(same)
    zeros = {"ffn_act": torch.zeros(LAYERS, WIDTH, dtype=torch.float64)}
    pooled = Moments(torch.tensor(9), {"ffn_act": zeros["ffn_act"].long()}, zeros, zeros, zeros)
    with pytest.raises(ValueError, match="sensitivity needs statistics per document, and 'fr' has Moments"):
        table_of({**moments, "fr": pooled})
