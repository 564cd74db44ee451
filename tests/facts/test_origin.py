import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from families import byte_level_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from planted_facts import tokenizer
from published_facts import ABSENT, ABSENT_TOTAL
from published_facts import TYPES as COUNTS

from mwork_lens.facts.factors import wilson_interval
from mwork_lens.facts.origin import (
    LABELS,
    ORIGINS,
    TYPES,
    absent_shares,
    origin_type,
    origin_types,
    origins,
    type_counts,
)
from mwork_lens.facts.overlaps import above_pair, fact_overlaps
from mwork_lens.facts.probeless import NEURONS, FactNeurons
from mwork_lens.facts.recovery import RECOVERY, recovery, weighted_area


@pytest.mark.parametrize(
    ("subject", "object", "relation", "found"),
    [
        ("Lake Como", "Como", "P17", "substring"),  # a naming relation, too: the first test decides
        ("LAKE COMO", "como", "P131", "substring"),
        ("w1 w2", "w2 w3", "P17", "wordpiece"),
        ("w1 w2", "w3", "P17", "naming"),
        ("w1 w2", "w3", "P1412", "naming"),
        ("w1 w2", "w3", "P20", "others"),  # on the longer list that the authors switched off
    ],
)
def test_types_are_tested_in_their_order(subject: str, object: str, relation: str, found: str) -> None:
    table = pd.DataFrame(
        [("en", relation, "f", subject, object)], columns=["language", "relation", "fact", "subject", "object"]
    )
    assert origin_types(table, tokenizer=tokenizer()).tolist() == [found]
    without = "naming" if found == "wordpiece" else found
    assert origin_types(table).tolist() == [without]


@given(
    st.text("abA ", min_size=1, max_size=6), st.text("abA ", min_size=1, max_size=3), st.sampled_from(["P17", "P20"])
)
def test_each_fact_has_one_type_and_the_tests_are_nested(subject: str, object: str, relation: str) -> None:
    tokens = (set(subject.split()), set(object.split()))
    full = origin_type(subject, object, relation, tokens=tokens)
    rank = TYPES.index
    assert rank(full) <= rank(origin_type(subject, object, relation)) <= rank(origin_type(subject, object, "P20"))
    assert (full == "substring") == (object.lower() in subject.lower())


def test_chinese_is_simplified_first_and_only_chinese() -> None:
    rows = [("zh", "P20", "a", "臺灣大學", "台湾"), ("ja", "P20", "b", "臺灣大學", "台湾")]
    table = pd.DataFrame(rows, columns=["language", "relation", "fact", "subject", "object"])
    traditional = str.maketrans("臺灣學", "台湾学")
    assert origin_types(table).tolist() == ["others", "others"]
    assert origin_types(table, simplify=lambda text: text.translate(traditional)).tolist() == ["substring", "others"]
    with pytest.raises(ValueError, match="object of fact 'a' in 'zh' is ''"):
        origin_types(table.assign(object=""))


def test_pieces_behind_a_space_are_compared_too() -> None:
    """To a byte-level tokenizer a word at the start of a name is another than behind a space."""
    rows = [("en", "P20", "f", "ab Ro", "Ro xy"), ("en", "P20", "g", "ab Ro", "xy")]
    table = pd.DataFrame(rows, columns=["language", "relation", "fact", "subject", "object"])
    found = origin_types(table, tokenizer=byte_level_tokenizer())
    assert found.tolist() == ["wordpiece", "others"]


def test_own_naming_relations_replace_those_of_mlama() -> None:
    table = pd.DataFrame([("en", "born", "f", "x", "y")], columns=["language", "relation", "fact", "subject", "object"])
    assert origin_types(table).tolist() == ["others"]
    assert origin_types(table, naming={"born"}).tolist() == ["naming"]


def test_published_shares_of_absent_facts_and_of_types() -> None:
    rows = [
        (language, "r", f"{language}{i}", True, i >= absent, 2 if i < absent else 3)
        for language, (absent, present) in ABSENT.items()
        for i in range(absent + present)
    ]
    table = pd.DataFrame(rows, columns=["language", "relation", "fact", "predicted", "present", "status"])
    shares = absent_shares(table).set_index("language")["share"]
    wanted = {"en": 5.8, "es": 18.7, "it": 14.0, "af": 76.3, "sq": 61.6, "cy": 39.6, "sk": 12.4, "et": 7.6, "ja": 6.8}
    assert (100 * shares.drop("all")).round(1).to_dict() == pytest.approx(wanted)
    absent = sum(COUNTS.values())
    assert absent == ABSENT_TOTAL
    rows = [("en", 2, kind) for kind, n in COUNTS.items() for _ in range(n)]
    counts = type_counts(pd.DataFrame(rows, columns=["language", "status", "type"])).loc["all"]
    assert [round(100 * counts[name] / absent, 1) for name in ("shared", "naming", "others")] == [25.8, 22.0, 52.2]


LANGUAGES = ("en", "de", "ja")


def planted(*, shared: bool = True, seed: int = 0, facts: int = 60) -> tuple[Any, ...]:
    """A fact stated everywhere has neurons of its own in each language; otherwise the source has a core, and the others a part of it each."""
    rng = np.random.default_rng(seed)
    rows, asked, found, units, stated = [], [], [], [], {}
    for f in range(facts):
        fact, relation = f"f{f}", f"r{f % 2}"
        stated[fact] = "all" if f % 3 == 0 else LANGUAGES[f % 3]
        core, parts = rng.choice(400, 10, replace=False), [slice(0, 6), slice(4, 10)]
        for language in LANGUAGES:
            here = stated[fact] in ("all", language)
            kept = core[:0] if stated[fact] == "all" or not shared else core if here else core[parts.pop()]
            chosen = [*kept, *rng.permutation(np.setdiff1d(np.arange(400), core))][:10]
            rows.append((language, relation, fact, f"Subject{f}", f"Object{f}"))
            asked.append((language, relation, fact, True))
            found.append((language, relation, fact, here, True))
            units.append((language, relation, fact, facts // 2, [int(u) for u in chosen]))
    key = ["language", "relation", "fact"]
    neurons = FactNeurons(pd.DataFrame(units, columns=list(NEURONS)), pd.DataFrame(), (4, 100), "ffn")
    return (
        pd.DataFrame(rows, columns=[*key, "subject", "object"]),
        pd.DataFrame(asked, columns=[*key, "full"]),
        pd.DataFrame(found, columns=[*key, "present", "searchable"]),
        neurons,
        stated,
    )


def test_labels_find_what_was_planted_and_the_null_does_not() -> None:
    facts, asked, presence, neurons, stated = planted()
    table = origins(facts, asked, presence, neurons=neurons)
    assert tuple(table.columns) == ORIGINS
    here = np.array([stated[f] in ("all", x) for f, x in zip(table["fact"], table["language"], strict=True)])
    everywhere = table["fact"].map(stated) == "all"
    assert (table.loc[~here, "label"] == "transferred").all()
    assert (table.loc[here & ~everywhere, "label"] == "shared").all()
    assert (table.loc[everywhere, "label"] == "independent").mean() > 0.9
    assert set(table["label"]) <= {*LABELS, ""}
    assert table["status"].tolist() == [3 if known else 2 for known in here]
    facts, asked, presence, neurons, stated = planted(shared=False)
    control = origins(facts, asked, presence, neurons=neurons)
    assert (control.loc[control["label"] != "transferred", "label"] == "shared").mean() < 0.1


def test_recovery_is_high_where_planted_and_chance_where_shuffled() -> None:
    facts, asked, presence, neurons, stated = planted()
    table = origins(facts, asked, presence, neurons=neurons)
    found = recovery(table, stated, fact_overlaps(neurons), resamples=200)
    assert tuple(found.columns) == RECOVERY
    value = found.set_index(["analysis", "measure"])
    assert value.loc[("source absent", "recall"), "value"] == 1
    assert value.loc[("transferred", "precision"), "value"] == 1
    assert value.loc[("prediction", "precision"), "value"] == pytest.approx(1 / 3 + 2 / 3 / 3)
    assert value.loc[("high overlap", "recall"), "value"] == 1
    # above the facts stated everywhere, below those of their source
    assert value.loc[("high overlap", "area"), "value"] == pytest.approx(0.6)
    assert value.loc[("source language", "accuracy"), "value"] > 0.8
    assert value.loc[("source language", "accuracy"), "chance"] == 0.5
    held = found.dropna()
    assert ((held["low"] <= held["value"] + 1e-9) & (held["value"] <= held["high"] + 1e-9)).all()
    rng = np.random.default_rng(0)
    names = list(stated)
    shuffled = dict(zip(names, rng.permutation(list(stated.values())), strict=True))
    control = recovery(table, shuffled, fact_overlaps(neurons), resamples=200).set_index(["analysis", "measure"])
    for analysis, measure in (
        ("transferred", "balanced accuracy"),
        ("high overlap", "area"),
        ("source language", "accuracy"),
    ):
        row = control.loc[(analysis, measure)]
        assert row["low"] - 0.05 <= row["chance"] <= row["high"] + 0.05


def test_recovery_against_hand_counts() -> None:
    rows = [
        # language, fact, predicted, present
        ("en", "a", True, True), ("de", "a", True, False), ("en", "b", False, True), ("de", "b", True, True), ("en", "c", True, False),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["language", "fact", "predicted", "present"]).assign(
        relation="r", overlap=np.nan, cut=np.nan
    )
    table["present"] = table["present"].astype("boolean")
    table["status"] = [3, 2, 1, 3, 2]
    table["label"] = ["", "transferred", "", "", "transferred"]
    found = recovery(table, {"a": "en", "b": ["en"], "c": "all"}, resamples=20).set_index(["analysis", "measure"])[
        "value"
    ]
    # not stated there: (de, a), (de, b); found absent: (de, a), (en, c)
    assert found["source absent", "precision"] == 0.5
    assert found["source absent", "recall"] == 0.5
    assert found["source absent", "balanced accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["transferred", "recall"] == 0.5
    assert found["prediction", "precision"] == 0.5  # (en, a) and (en, c) of four predicted
    assert found["prediction", "recall"] == pytest.approx(2 / 3)
    assert "high overlap" not in found.index.get_level_values(0)
    with pytest.raises(ValueError, match="fact 'c' has no truth"):
        recovery(table, {"a": "en", "b": "en"})
    with pytest.raises(ValueError, match=r"fact 'b': stated must name languages, .* got 3"):
        recovery(table, {"a": "en", "b": 3, "c": "all"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="no query"):
        recovery(table.head(0), {})


@given(st.integers(2, 30), st.integers(0, 1000))
def test_the_weighted_area_is_that_of_repeated_queries(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, truth, weight = rng.integers(0, 5, n).astype(float), rng.random(n) < 0.5, rng.integers(0, 3, n)
    got = weighted_area(score, truth, weight[None].astype(float))[0]
    s, t = np.repeat(score, weight), np.repeat(truth, weight)
    gaps = s[t][:, None] - s[~t][None]
    wanted = ((gaps > 0) + (gaps == 0) / 2).mean() if gaps.size else np.nan
    assert got == pytest.approx(wanted, nan_ok=True)


def test_what_is_unknown_is_not_absent() -> None:
    facts, asked, presence, _, _ = planted(facts=6)
    some = presence[presence["language"] != "ja"]
    some = some.assign(searchable=some["fact"] != "f1")
    table = origins(facts, asked, some)
    unknown = (table["language"] == "ja") | (table["fact"] == "f1")
    assert (table.loc[unknown, "status"] == -1).all()
    assert table.loc[unknown, "present"].isna().all()
    assert (table.loc[unknown, "label"] == "").all()
    assert not table.loc[unknown, "easy"].any()
    assert set(table["label"]) == {"", "transferred"}  # without neurons there is nothing to overlap
    shares = absent_shares(table).set_index("language")
    assert "ja" not in shares.index
    row = shares.loc["all"]
    assert (row["low"], row["high"]) == pytest.approx(wilson_interval(int(row["absent"]), int(row["predicted"])))


def test_easy_facts_are_absent_predicted_and_of_an_easy_type() -> None:
    facts, asked, presence, _, _ = planted(facts=6)
    facts = facts.assign(object=facts["subject"])
    table = origins(facts, asked, presence)
    assert (table["easy"] == (table["status"] == 2)).all()
    assert (table["label"] == "").all()
    counts = type_counts(table)
    assert counts.loc["all", "substring"] == (table["status"] == 2).sum()
    assert all(a == "substring" or counts.loc["all", a] == 0 for a in TYPES)
    assert list(counts.index) == [*LANGUAGES, "all"]


def test_overlap_that_is_the_pairs_is_not_taken_for_the_facts() -> None:
    """Unstated facts are known in two related languages only, which overlap on everything: no fact's own overlap says where it was stated."""
    rng = np.random.default_rng(0)
    languages, rows, pairs, stated = ("aa", "bb", "cc"), [], [], {}
    for i in range(200):
        fact, everywhere = f"f{i}", i % 2 == 0
        stated[fact] = "all" if everywhere else "dd"
        knows = languages if everywhere else languages[:2]
        noise = {pair: 0.02 * rng.random() for pair in itertools.combinations(knows, 2)}
        pairs += [("r", fact, *pair, (0.6 if pair == ("aa", "bb") else 0.1) + noise[pair]) for pair in noise]
        rows += [(x, "r", fact, True, everywhere, 3 if everywhere else 2, "", 0.5) for x in knows]
    overlaps = pd.DataFrame(pairs, columns=["relation", "fact", "a", "b", "overlap"])
    table = pd.DataFrame(
        rows, columns=["language", "relation", "fact", "predicted", "present", "status", "label", "cut"]
    )
    both = pd.concat([overlaps, overlaps.rename(columns={"a": "b", "b": "a"})])
    means = both.groupby(["a", "fact"])["overlap"].mean()
    table["overlap"] = means.reindex(pd.MultiIndex.from_frame(table[["language", "fact"]])).to_numpy()
    value = recovery(table.astype({"present": "boolean"}), stated, overlaps, resamples=50).set_index(
        ["analysis", "measure"]
    )["value"]
    assert value["high overlap", "area"] > 0.95
    assert abs(value["own overlap", "area"] - 0.5) < 0.1
    assert above_pair(overlaps).groupby(["a", "b"])["overlap"].mean().abs().max() < 1e-12
    planted_here = overlaps.assign(overlap=overlaps["overlap"] + 0.1 * (overlaps["fact"].map(stated) == "dd"))
    found = recovery(table.astype({"present": "boolean"}), stated, planted_here, resamples=50).set_index(
        ["analysis", "measure"]
    )
    assert found.loc[("own overlap", "area"), "value"] > 0.8  # and what is a fact's own is found


def test_bad_tables_are_refused() -> None:
    facts, asked, presence, _, _ = planted(facts=6)
    with pytest.raises(ValueError, match="was asked in 'en', and is not among the facts"):
        origins(facts[facts["fact"] != "f0"], asked, presence)
    with pytest.raises(ValueError, match="appears twice"):
        origins(facts, asked, pd.concat([presence, presence]))
    with pytest.raises(ValueError, match="hold a query twice"):
        origins(pd.concat([facts, facts]), asked, presence)
    with pytest.raises(ValueError, match="no column 'searchable'"):
        origins(facts, asked, presence.drop(columns="searchable"))
