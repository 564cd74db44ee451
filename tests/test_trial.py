"""The trial against definitions spelled out unit by unit (test_rankings.py), SciPy's rank correlation, and truths whose answer is known."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import false_discovery_control, spearmanr
from test_rankings import naive_ap, naive_auroc

from mwork_lens.causal import Effects
from mwork_lens.detect.listing import Outcome
from mwork_lens.neurons import NeuronSet
from mwork_lens.repeatability import REPEATABILITY, repeatability
from mwork_lens.trial import TRIAL, corrected, trial

LANGUAGES, LAYERS, WIDTH = ("en", "de", "zh"), 3, 40


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def effects(documents=6, *, noise=0.1, sites=("q", "ffn"), model="m"):
    """Effects with a part of each language's own and a part all share, and noise between documents."""
    value = {}
    for k, site in enumerate(sites):
        shared = random(LAYERS, WIDTH, 1, seed=100 + k)
        own = [random(LAYERS, WIDTH, 1, seed=10 * k + i) for i in range(len(LANGUAGES))]
        value[site] = torch.cat(
            [shared + part + noise * random(LAYERS, WIDTH, documents, seed=7 + i) for i, part in enumerate(own)], dim=-1
        )
    groups = tuple(language for language in LANGUAGES for _ in range(documents))
    names = tuple(f"d{i}" for _ in LANGUAGES for i in range(documents))
    n = torch.ones(len(groups), dtype=torch.long)
    return Effects(value, names, groups, n, n.double(), model=model)


def scores_of(truth, *, specific=False):
    mean = truth.per_token()
    total = {site: sum(mean[other][site] for other in LANGUAGES) / len(LANGUAGES) for site in truth.effect}
    return {k: {s: v - total[s] if specific else v for s, v in by_site.items()} for k, by_site in mean.items()}


def noise(seed=3):
    return {k: {s: random(LAYERS, WIDTH, seed=seed + i) for s in ("q", "ffn")} for i, k in enumerate(LANGUAGES)}


def top(scores, share=0.05):
    """The sets of the largest scores."""
    sets = {}
    for language, by_site in scores.items():
        row = torch.cat([by_site[s].flatten() for s in ("q", "ffn")])
        bar = row.sort(descending=True).values[round(share * len(row)) - 1]
        sets[language] = NeuronSet({s: by_site[s] >= bar for s in ("q", "ffn")}, model="m")
    return sets


def test_the_truth_scores_perfectly_and_noise_does_not():
    truth = effects()
    candidates = {"oracle": scores_of(truth), "contrast": scores_of(truth, specific=True), "noise": noise()}
    table = trial(candidates, truth, chosen={n: top(s) for n, s in candidates.items()}, resamples=20)
    assert list(table.columns) == list(TRIAL)
    assert len(table) == 3 * 3 * 2
    by = table.set_index(["detector", "target"])
    for detector, target in (("oracle", "own"), ("contrast", "specific")):
        rows = by.loc[(detector, target)]
        for metric in ("spearman", "within", "auroc", "ap", "precision"):
            np.testing.assert_allclose(rows[metric], 1, rtol=1e-9)
        assert (rows["precision_p"] < 1e-6).all()
    for target in ("own", "specific"):
        rows = by.loc[("noise", target)]
        assert rows["spearman"].abs().max() < 0.2
        assert rows["auroc"].between(0.2, 0.8).all()
        assert rows["ap"].max() < 0.25
        assert (rows["precision_p"] > 0.01).all()
        np.testing.assert_allclose(rows["ap_chance"], 12 / 240)
    assert (by.loc[("oracle", "specific"), "spearman"] < 0.95).all()  # what all need is not specific


def test_a_row_is_what_it_says():
    truth, candidate = effects(), noise()
    table = trial({"noise": candidate}, truth, chosen={"noise": top(candidate, 0.1)}, share=0.1, resamples=0)
    row = table[(table["language"] == "de") & (table["target"] == "specific")].iloc[0]
    mean = truth.per_token()
    effect = {s: mean["de"][s] - (mean["en"][s] + mean["zh"][s]) / 2 for s in ("q", "ffn")}
    flat = torch.cat([effect[s].flatten() for s in ("q", "ffn")]).numpy()
    score = torch.cat([candidate["de"][s].flatten() for s in ("q", "ffn")]).numpy()
    positive = flat >= np.sort(flat)[-24]
    taken = score >= np.sort(score)[-24]
    assert (row["sites"], row["units"], row["positives"], row["chosen"]) == ("q, ffn", 240, 24, 24)
    assert row["spearman"] == pytest.approx(spearmanr(flat, score).statistic)
    assert row["auroc"] == pytest.approx(naive_auroc(score, positive))
    assert row["ap"] == pytest.approx(naive_ap(score, positive))
    assert row["precision"] == pytest.approx(positive[taken].mean())
    cells = [slice(i, i + WIDTH) for i in range(0, 240, WIDTH)]
    assert row["precision_chance"] == pytest.approx(sum(taken[c].sum() * positive[c].mean() for c in cells) / 24)
    assert np.isnan(row["ap_low"])


def test_p_values_are_corrected_over_detectors_and_languages_of_a_target():
    """Sorted .01 .02 .03 .04 times 4/1 4/2 4/3 4/4 are all .04; alone, .01 .02 are .02 and .03 .04 are .04."""
    p = pd.DataFrame(
        {"target": ["own", "own", "specific", "specific", "own"], "precision_p": [0.02, 0.01, 0.03, 0.04, np.nan]}
    )
    np.testing.assert_allclose(corrected(p)["precision_q"], [0.02, 0.02, 0.04, 0.04, np.nan])
    np.testing.assert_allclose(corrected(p, by=None)["precision_q"], [0.04, 0.04, 0.04, 0.04, np.nan])
    assert corrected(p[4:])["precision_q"].isna().all()
    twice = corrected(pd.concat([p, p.assign(precision_p=1.0)]))  # a larger family, whose rows are numbered anew
    np.testing.assert_allclose(twice["precision_q"][:2], [0.05, 0.05])
    assert list(twice.index) == list(range(10))

    truth = effects()
    candidates = {"oracle": scores_of(truth), "noise": noise(), "none": noise(9)}
    sets = {name: top(candidates[name]) for name in ("oracle", "noise")}
    table = trial(candidates, truth, chosen=sets, resamples=0)
    for target, rows in table.dropna(subset="precision_p").groupby("target"):
        assert len(rows) == 2 * 3, target
        np.testing.assert_allclose(rows["precision_q"], false_discovery_control(rows["precision_p"]))
    rows = table[table["target"] == "own"].groupby("detector")["precision_q"]
    assert rows.max()["oracle"] < 1e-5
    assert rows.min()["noise"] > 0.05
    assert rows.count()["none"] == 0


def test_many_detectors_of_noise_are_no_discovery():
    """Thirty detectors of noise in three languages: some p is below 0.05 by chance, no q is."""
    candidates = {str(i): noise(1000 + 10 * i) for i in range(30)}
    table = trial(
        candidates,
        effects(),
        chosen={n: top(s, 0.2) for n, s in candidates.items()},
        targets=["own"],
        share=0.2,
        resamples=0,
    )
    assert (table["precision_p"] < 0.05).any()
    assert (table["precision_q"] > 0.05).all()


def test_intervals_hold_the_value_and_shrink_with_documents():
    candidate = {"x": scores_of(effects(noise=0))}
    wide = trial(candidate, effects(6, noise=2.0), resamples=60, targets=["own"])
    tight = trial(candidate, effects(60, noise=2.0), resamples=60, targets=["own"])
    spread = [(t["spearman_high"] - t["spearman_low"]).mean() for t in (wide, tight)]
    assert spread[1] < spread[0]
    assert (tight["auroc_low"] <= tight["auroc"]).all()
    again = trial(candidate, effects(6, noise=2.0), resamples=60, targets=["own"])
    assert again.equals(wide)


def test_regrouped_languages_are_drawn_jointly_as_directly_grouped_ones_are():
    truth, candidate = effects(5, noise=1.0), {"x": noise()}
    expected = trial(candidate, truth, resamples=20)
    long = dataclasses.replace(truth, groups=tuple(f"{group}/text" for group in truth.groups))
    assert trial(candidate, long.regroup(lambda name: name.split("/")[0]), resamples=20).equals(expected)
    numbered = dataclasses.replace(truth, groups=tuple({"en": "1", "de": "2", "zh": "3"}[g] for g in truth.groups))
    assert trial(candidate, numbered.regroup({"1": "en", "2": "de", "3": "zh"}.get), resamples=20).equals(expected)


def test_the_order_of_documents_does_not_matter():
    truth, candidate = effects(5, noise=1.0), {"x": noise()}
    order = list(reversed(range(len(truth.groups))))
    turned = dataclasses.replace(
        truth,
        effect={s: v[..., order] for s, v in truth.effect.items()},
        documents=tuple(truth.documents[i] for i in order),
        groups=tuple(truth.groups[i] for i in order),
    )
    one, two = (trial(candidate, t, resamples=10) for t in (truth, turned))
    for metric in ("spearman", "ap_low", "auroc_high"):
        np.testing.assert_allclose(one[metric], two[metric])


def test_planted_sets_are_a_truth():
    planted = {
        k: NeuronSet({s: random(LAYERS, WIDTH, seed=20 + 2 * i + j) > 1.3 for j, s in enumerate(("q", "ffn"))})
        for i, k in enumerate(LANGUAGES)
    }
    knows = {
        k: {s: planted[k].masks[s].double() + 0.5 * random(LAYERS, WIDTH).sigmoid() for s in ("q", "ffn")}
        for k in LANGUAGES
    }
    table = trial({"knows": knows, "noise": noise()}, planted, chosen={"knows": planted}).set_index("detector")
    assert set(table["target"]) == {"planted"}
    np.testing.assert_allclose(table.loc["knows", ["auroc", "ap", "precision"]].to_numpy(float), 1)
    assert table["spearman"].isna().all()
    assert (table.loc["noise", "ap"] < 0.35).all()
    assert table.loc["noise", "precision"].isna().all()


def test_only_common_sites_are_compared():
    truth = effects()
    ffn = {k: {"ffn": v["ffn"]} for k, v in scores_of(truth).items()}
    table = trial({"ffn": ffn, "both": scores_of(truth)}, truth, resamples=0).set_index("detector")
    assert set(table.loc["ffn", "sites"]) == {"ffn"}
    assert set(table.loc["ffn", "units"]) == {120}
    assert set(table.loc["both", "units"]) == {240}
    table = trial({"both": scores_of(truth)}, truth, sites=["ffn"], resamples=0)
    assert set(table["units"]) == {120}


def bad(scores=None, truth=None, **options):
    return trial({"x": scores or noise()} if scores != {} else {}, truth or effects(), resamples=0, **options)


def test_bad_input():
    with pytest.raises(ValueError, match="no detector on trial"):
        bad({})
    with pytest.raises(ValueError, match="detector 'y' has sets but no scores"):
        bad(chosen={"y": {}})
    with pytest.raises(ValueError, match="unknown target 'all': choose from own, specific, magnitude"):
        bad(targets=["all"])
    with pytest.raises(ValueError, match=r"share=1\.5 and resamples=0"):
        bad(share=1.5)
    with pytest.raises(ValueError, match=r"share=0\.001 of 240 neurons is 0"):
        bad(share=0.001)
    with pytest.raises(ValueError, match="'x' scores 'sw', of which no truth is known: there are en, de, zh"):
        bad({"sw": noise()["en"]})
    with pytest.raises(ValueError, match="no site in common: k and q, ffn"):
        bad({"en": {"k": random(LAYERS, WIDTH)}})
    with pytest.raises(ValueError, match="no site in common among k: q, ffn and q, ffn"):
        bad(sites=["k"])
    with pytest.raises(ValueError, match=r"site 'q' of 'en' as \[layer, width\] \[2, 2\], the truth is \[3, 40\]"):
        bad({"en": {"q": random(2, 2)}})
    with pytest.raises(ValueError, match="gives 1 scores of 'en' that are no numbers"):
        bad({"en": {"q": torch.where(torch.arange(120).reshape(LAYERS, WIDTH) == 0, torch.nan, 1.0)}})
    with pytest.raises(ValueError, match=r"neurons of another model \(other\) than the truth is of \(m\)"):
        bad(chosen={"x": {"en": NeuronSet({"q": torch.ones(LAYERS, WIDTH).bool()}, model="other")}})
    with pytest.raises(ValueError, match=r"chose from \[2, 2\] units of site 'q' and scores \[3, 40\]"):
        bad(chosen={"x": {"en": NeuronSet({"q": torch.ones(2, 2).bool()})}})
    with pytest.raises(ValueError, match="the planted set of 'en' has 0 of 120 compared neurons"):
        bad({"en": noise()["en"]}, {"en": NeuronSet({"q": torch.zeros(LAYERS, WIDTH).bool()})})
    alone = effects().regroup(lambda name: name if name == "en" else None)
    with pytest.raises(ValueError, match="the specific effect of 'en' needs another language"):
        bad({"en": noise()["en"]}, alone)
    part = effects()
    part.effect["q"][1] = torch.nan
    with pytest.raises(
        ValueError, match="the truth of 'en' is not known for all neurons: ablate every layer of q, ffn"
    ):
        bad(truth=part)


def test_runs_that_do_not_compare():
    sets = top(noise())
    one = Outcome({"a": noise()}, {"a": sets})
    with pytest.raises(ValueError, match="the two runs hold other detectors: a and b"):
        repeatability(one, Outcome({"b": noise()}, {"b": sets}))
    with pytest.raises(ValueError, match="the two runs of 'a' hold other languages"):
        repeatability(one, Outcome({"a": {"en": noise()["en"]}}, {"a": sets}))
    two = Outcome({"b": noise(), "a": noise()}, {"b": sets, "a": sets})
    swapped = Outcome(dict(reversed(two.scores.items())), dict(reversed(two.chosen.items())))
    pd.testing.assert_frame_equal(repeatability(two, swapped), repeatability(two, two))
    narrow = {x: {"ffn": found["ffn"]} for x, found in noise().items()}
    with pytest.raises(
        ValueError, match=r"'a' scores site 'q' of 'en' in only one of the two runs \(.*\): run both with the same"
    ):
        repeatability(one, Outcome({"a": narrow}, {"a": sets}))
    short = {x: {**found, "ffn": found["ffn"][:, :-1]} for x, found in noise().items()}
    with pytest.raises(
        ValueError, match=r"site 'ffn' of 'en' as \[layer, width\] \[3, 40\] in one run and \[3, 39\] in the other"
    ):
        repeatability(one, Outcome({"a": short}, {"a": sets}))
    apart = repeatability(one, Outcome({"a": noise(50)}, {"a": top(noise(50))}))
    assert apart["spearman"].abs().max() < 0.25
    assert (apart["p"] > 0.01).all()
    assert list(apart.columns) == list(REPEATABILITY)
    np.testing.assert_allclose(apart["q"], false_discovery_control(apart["p"]))


@pytest.mark.filterwarnings("ignore::UserWarning")  # two documents are few, and they are cut
def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "methods" / "trial.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    less = code.replace("limit=12", "limit=4").replace("length=24", "length=4").replace("length=48", "length=8")
    less = (
        less.replace('("v", "ffn")', '("ffn",)')
        .replace('["v", "ffn"]', '["ffn"]')
        .replace("resamples=50", "resamples=2")
        .replace("corpus.shard(1, 2)", "corpus.shard(1, 4)")
    )
    assert less != code
    names: dict = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TQDM_DISABLE", "1")
        exec(compile(less, "docs", "exec"), names)
    table = names["table"]
    assert set(table["detector"]) == {detector.name for detector in names["listed"]}
    assert set(names["firm"]["language"]) == {"en", "de", "zh"}
    area = table[table["target"] == "own"].groupby("detector")["auroc"].mean()
    assert area["attribution"] > area["random"] + 0.1
    assert names["neurons"]["de"].sites == ("q", "k", "v", "z", "ffn")


def test_magnitude_is_all_that_an_unsigned_score_can_know():
    truth = effects()
    unsigned = {k: {s: v.abs() for s, v in by_site.items()} for k, by_site in scores_of(truth).items()}
    table = trial({"unsigned": unsigned}, truth, targets=["own", "magnitude"], resamples=0).set_index("target")
    np.testing.assert_allclose(table.loc["magnitude", "spearman"], 1)
    assert (table.loc["own", "spearman"] < 0.5).all()
