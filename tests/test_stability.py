"""Resampled documents against a bootstrap with explicit lists of documents; planted units are firm, shuffled labels are not."""

import math
import warnings

import numpy as np
import pytest
import torch

from mwork_lens.detect.lape import lape, probabilities
from mwork_lens.neurons import NeuronSet
from mwork_lens.robustness.stability import (
    STABILITY,
    _weights,
    frequency_table,
    selection_frequency,
    stability_table,
)
from mwork_lens.stats import Moments
from mwork_lens.strata import DocumentMoments

LANGUAGES, LAYERS, WIDTH = ("de", "fr", "zh"), 3, 20
PLANTED = {language: [(layer, i) for layer in range(LAYERS)] for i, language in enumerate(LANGUAGES)}


def strata(shares, *, tokens=(2000, 3000), seed=0, names=None):
    """Counts drawn from [doc layer width] shares."""
    rng = np.random.default_rng(seed)
    n = rng.integers(*tokens, len(shares))
    counts = rng.binomial(n[:, None, None], shares)
    names = names or [f"topic{i % 3}-{i:03d}" for i in range(len(shares))]
    zeros = torch.zeros(shares.shape, dtype=torch.float32)
    counts = torch.from_numpy(counts.astype(np.int32))
    return DocumentMoments(tuple(names), torch.from_numpy(n), {"ffn_act": counts}, {"ffn_act": zeros}, model="m")


def planted(*, documents=12, jitter=0.2, shuffled=False, seed=0):
    """Units that fire in half the tokens of one language; others are as active in all, and differ from document to document."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.05, 0.3, (LAYERS, WIDTH))
    rows = {}
    for language in LANGUAGES:
        shares = base * rng.uniform(1 - jitter, 1 + jitter, (documents, LAYERS, WIDTH))
        for other in LANGUAGES:
            for layer, unit in PLANTED[other]:
                shares[:, layer, unit] = 0.5 if other == language else 0.02
        rows[language] = shares
    if shuffled:
        pool = rng.permutation(np.concatenate(list(rows.values())))
        rows = dict(zip(LANGUAGES, np.split(pool, len(LANGUAGES)), strict=True))
    return {language: strata(shares, seed=seed + i) for i, (language, shares) in enumerate(rows.items())}


FIND = {"rate": 0.15, "filter_rate": 0.9, "bar_rate": 0.9, "progress": False}


def naive_lape(counts, tokens, *, rate, filter_rate, bar_rate):
    """Python lists and sorting: counts[language][layer][unit], tokens[language]; a set of (layer, unit) per language."""
    p = {
        (j, i, x): counts[x][j][i] / tokens[x]
        for x in counts
        for j in range(len(counts[x]))
        for i in range(len(counts[x][j]))
    }
    ordered = sorted(p.values())
    threshold, bar = (ordered[max(1, round(len(ordered) * r)) - 1] for r in (filter_rate, bar_rate))
    scores = []
    for j, i in sorted({key[:2] for key in p}):
        values = [p[j, i, x] for x in counts]
        if max(values) > threshold:
            q = [v / sum(values) for v in values]
            scores.append((-sum(v * math.log(v) for v in q if v), j, i))
    chosen = sorted(scores)[: round(len(p) / len(counts) * rate)]
    return {x: {(j, i) for _, j, i in chosen if p[j, i, x] > bar} for x in counts}


@pytest.mark.parametrize("parallel", [True, False])
def test_frequencies_are_those_of_a_bootstrap_with_lists_of_documents(parallel):
    rng = np.random.default_rng(5)
    moments = {
        x: strata(rng.uniform(0.1, 0.6, (5, 2, 8)), seed=i, names=[f"{'' if parallel else x}{d}" for d in range(5)])
        for i, x in enumerate(LANGUAGES)
    }
    settings = {"rate": 0.25, "filter_rate": 0.8, "bar_rate": 0.7}
    found = selection_frequency(moments, resamples=25, seed=3, progress=False, **settings)
    assert (found.joint, found.resamples) == (parallel, 25)
    weights = {x: _weights(m, "" if parallel else x, 25, 3) for x, m in moments.items()}
    times = {x: np.zeros((2, 8)) for x in LANGUAGES}
    full = {x: {(j, i) for _, j, i in lape(moments, **settings)[x]} for x in LANGUAGES}
    for r in range(25):
        drawn = {x: [d for d in range(5) for _ in range(int(weights[x][r, d]))] for x in LANGUAGES}
        assert all(len(documents) == 5 for documents in drawn.values())
        counts, tokens = {}, {}
        for x, m in moments.items():
            positive = m.positive["ffn_act"].tolist()
            tokens[x] = sum(int(m.n[d]) for d in drawn[x])
            counts[x] = [[sum(positive[d][j][i] for d in drawn[x]) for i in range(8)] for j in range(2)]
        for x, units in naive_lape(counts, tokens, **settings).items():
            for unit in units:
                times[x][unit] += 1
            assert found.sizes[x][r] == len(units)
            union = len(units | full[x])
            assert float(found.jaccard[x][r]) == pytest.approx(
                len(units & full[x]) / union if union else math.nan, nan_ok=True
            )
    for x in LANGUAGES:
        np.testing.assert_allclose(found.frequency[x].numpy(), times[x] / 25)
    assert sum(((f > 0) & (f < 1)).sum() for f in found.frequency.values()) > 0  # the draws do differ


@pytest.mark.filterwarnings("ignore:few documents")
def test_document_means_are_resampled_as_means_of_shares():
    moments = planted(jitter=0.8)
    found = selection_frequency(moments, resamples=6, per="document", **FIND)
    weights = _weights(moments["de"], "", 6, 0).long().tolist()
    settings = {name: value for name, value in FIND.items() if name != "progress"}
    times = dict.fromkeys(LANGUAGES, 0)
    for row in weights:
        at = {
            x: [m.documents.index(sorted(m.documents)[d]) for d in range(12) for _ in range(row[d])]
            for x, m in moments.items()
        }
        again = lape({x: m.take(at[x]) for x, m in moments.items()}, per="document", **settings)
        times = {x: times[x] + again[x].masks["ffn"].double() for x in LANGUAGES}
    for x in LANGUAGES:
        torch.testing.assert_close(found.frequency[x], times[x] / 6)


@pytest.mark.filterwarnings("ignore:few documents")
def test_a_document_without_tokens_changes_nothing():
    moments = planted()
    counts, sums = (torch.zeros(1, LAYERS, WIDTH, dtype=dtype) for dtype in (torch.int32, torch.float32))
    extra = DocumentMoments(("void-1",), torch.tensor([0]), {"ffn_act": counts}, {"ffn_act": sums})
    found = selection_frequency({x: m + extra for x, m in moments.items()}, resamples=5, per="document", **FIND)
    assert {x: set(s) for x, s in found.full.items()} == {x: {("ffn", j, i) for j, i in PLANTED[x]} for x in LANGUAGES}
    assert all(float(found.frequency[x][PLANTED[x][0]]) == 1 for x in LANGUAGES)


def test_weights_sum_to_the_documents_and_follow_the_ids():
    one = planted()["de"]
    weights = _weights(one, "", 200, 0)
    assert (weights.sum(1) == 12).all()
    assert float(weights.mean()) == 1
    assert float(weights.var()) == pytest.approx(1 - 1 / 12, rel=0.1)
    turned = one.take(range(11, -1, -1))
    assert torch.equal(_weights(turned, "", 200, 0), weights.flip(1))
    assert not torch.equal(_weights(one, "de", 200, 0), weights)
    assert not torch.equal(_weights(one, "", 200, 1), weights)


def test_order_of_languages_and_documents_does_not_matter():
    moments = planted(jitter=0.8)
    turned = {x: moments[x].take(range(11, -1, -1)) for x in ("zh", "de", "fr")}
    one, two = (selection_frequency(m, resamples=20, **FIND) for m in (moments, turned))
    assert list(two.frequency) == ["zh", "de", "fr"]
    for x in LANGUAGES:
        assert torch.equal(one.frequency[x], two.frequency[x])


def test_planted_units_are_always_chosen_and_with_shuffled_labels_nothing_is_firm():
    found = selection_frequency(planted(), resamples=50, **FIND)
    for x in LANGUAGES:
        assert {(j, i) for _, j, i in found.stable(1.0)[x]} == {*PLANTED[x]}
        assert all(float(found.frequency[x][unit]) == 1 for unit in PLANTED[x])
    table = stability_table(found).set_index("language")
    assert (table[["jaccard", "half", "firm"]] == 1).all(axis=None)
    shuffled = selection_frequency(planted(shuffled=True), resamples=50, **{**FIND, "rate": 0.1})
    chance = stability_table(shuffled).set_index("language")
    assert (chance["size"] > 0).all()  # LAPE always chooses; resampling tells
    assert chance["jaccard"].mean() < 0.6
    assert (chance["firm"] == 0).all()


def test_the_tables_say_what_the_frequencies_say():
    moments = planted(jitter=0.9)
    found = selection_frequency(moments, resamples=40, **FIND)
    table = stability_table(found)
    assert tuple(table.columns) == STABILITY
    units = frequency_table(found)
    for row in table.itertuples():
        mine = units[units["language"] == row.language]
        assert (row.documents, row.size) == (12, len(found.full[row.language]))
        assert row.expected_size == pytest.approx(mine["frequency"].sum())
        inside = mine.loc[mine["chosen"], "frequency"]
        assert row.half == pytest.approx((inside >= 0.5).mean())
        assert row.firm == pytest.approx((inside >= 0.9).mean())
        assert row.jaccard_low <= row.jaccard <= row.jaccard_high
        assert {(j, i) for _, j, i in found.stable(0.5)[row.language]} == {
            (u.layer, u.index_) for u in mine.rename(columns={"index": "index_"}).itertuples() if u.frequency >= 0.5
        }


def test_a_language_without_units_stays():
    moments = planted()
    quiet = moments["zh"].positive["ffn_act"] // 100
    moments["zh"] = DocumentMoments(
        moments["zh"].documents, moments["zh"].n, {"ffn_act": quiet}, moments["zh"].total, model="m"
    )
    found = selection_frequency(moments, resamples=10, **FIND)
    assert found.stable()["zh"] == NeuronSet.empty({"ffn": (LAYERS, WIDTH)}, model="m")
    row = stability_table(found).set_index("language").loc["zh"]
    assert (row["size"], row["expected_size"]) == (0, 0)
    assert row[["jaccard", "half", "firm"]].isna().all()
    assert "zh" in frequency_table(found)["language"].cat.categories


def test_warnings_of_the_resamples_are_gathered_in_one():
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        selection_frequency(planted(), resamples=10, rate=0.5, filter_rate=0.95, progress=False)
    texts = [str(w.message) for w in raised]
    assert len(texts) == 2  # of all documents, and of the resamples
    assert texts[1].startswith("in 10 of the resamples: only ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selection_frequency(planted(), resamples=10, **FIND)


def test_the_full_set_is_lapes_and_carries_the_model():
    moments = planted()
    found = selection_frequency(moments, resamples=2, **FIND)
    assert found.full == lape(moments, rate=0.15, filter_rate=0.9, bar_rate=0.9)
    assert {s.model for s in found.stable().values()} == {"m"}
    assert probabilities(moments).shape == (LAYERS, WIDTH, 3)


@pytest.mark.parametrize("at", [0.0, -0.5, 1.5])
def test_a_share_must_be_one(at):
    found = selection_frequency(planted(), resamples=2, **FIND)
    with pytest.raises(ValueError, match=f"at={at} is not a share of the resamples"):
        found.stable(at)


def test_what_cannot_be_resampled_is_refused():
    moments = planted()
    with pytest.raises(ValueError, match="resamples=0: draw the documents at least once"):
        selection_frequency(moments, resamples=0, **FIND)
    with pytest.raises(ValueError, match="language 'fr' has one document: resampling needs several"):
        selection_frequency({**moments, "fr": moments["fr"].take([0])}, **FIND)
    zeros = {"ffn_act": torch.zeros(LAYERS, WIDTH, dtype=torch.float64)}
    pooled = Moments(torch.tensor(9), {"ffn_act": zeros["ffn_act"].long()}, zeros, zeros, zeros)
    with pytest.raises(ValueError, match="selection_frequency needs statistics per document, and 'fr' has Moments"):
        selection_frequency({**moments, "fr": pooled}, **FIND)
    with pytest.raises(ValueError, match="LAPE compares languages and got de"):
        selection_frequency({"de": moments["de"]}, **FIND)
