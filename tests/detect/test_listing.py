"""Every listed detector on a tiny model: one pass per statistic, resumed identically, and judged by exhaustive ablation."""

import dataclasses

import numpy as np
import pytest
import torch

from mwork_lens.causal import ablation_effects
from mwork_lens.corpora import Corpus
from mwork_lens.detect.listing import Detector, contrasted, detect, detectors
from mwork_lens.repeatability import REPEATABILITY, repeatability
from mwork_lens.trial import trial

LANGUAGES = ("en", "de", "zh")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def corpora(n=4):
    return {
        k: Corpus(k, tuple(" ".join(f"w{20 * i + (3 * j + d) % 20}" for j in range(6)) for d in range(n)))
        for i, k in enumerate(("en", "de"))
    }


@pytest.mark.filterwarnings("ignore:.*(tokens|documents|units)")  # eight short documents are few
def test_every_listed_detector_runs_and_attribution_beats_chance(llama, tmp_path):
    listed = detectors(top=0.25, consensus=0.5, rate=0.2)
    found = detect(llama, corpora(), listed, out=tmp_path / "d", progress=False)
    assert list(found.scores) == [detector.name for detector in listed] == list(found.chosen)
    assert (
        len(list((tmp_path / "d").iterdir())) == 6
    )  # LAPE and its family share one pass, and random takes attribution's
    again = detect(llama, corpora(), listed, out=tmp_path / "d", resume=True, progress=False)
    truth = ablation_effects(llama, corpora(), progress=False, stack=1000)
    table = trial(found.scores, truth, chosen=found.chosen, resamples=3, targets=["own"])
    assert trial(again.scores, truth, chosen=again.chosen, resamples=3, targets=["own"]).equals(table)
    mean = table.groupby("detector")[["spearman", "auroc"]].mean()
    assert mean.loc["attribution (signed)", "spearman"] > 0.7
    assert mean.loc["attribution (signed)", "auroc"] > 0.9
    assert abs(mean.loc["random", "spearman"]) < 0.2
    assert set(table.loc[table["detector"] == "LAPE", "sites"]) == {"ffn"}
    sizes = {k: len(s) for k, s in found.chosen["random"].items()}
    assert sizes == {k: len(s) for k, s in found.chosen["attribution"].items()}
    half = [detect(llama, {k: c.shard(i, 2) for k, c in corpora().items()}, listed, progress=False) for i in (0, 1)]
    repeats = repeatability(*half).set_index("detector")
    assert list(repeatability(*half).columns) == list(REPEATABILITY)
    assert (repeats.loc["PLND", "spearman"] > 0.5).all()
    same = repeatability(half[0], half[0])
    np.testing.assert_allclose(same["spearman"], 1)


def test_a_detector_is_added_by_listing_it(llama):
    (_, _, _, plain, *_), names = detectors(sites=("v",)), []
    seen = Detector(
        "mine", plain.statistic, lambda stats: names.append(list(stats)) or plain.score(stats), plain.select
    )
    found = detect(llama, corpora(), [plain, seen], progress=False)
    assert names == [["en", "de"]]
    assert torch.equal(found.scores["mine"]["de"]["v"], found.scores["attribution"]["de"]["v"])


def test_a_contrast_is_own_less_the_others():
    plain = detectors()[0]
    made = contrasted(dataclasses.replace(plain, score=lambda stats: stats))
    stats = {k: {"q": random(2, 3, seed=i)} for i, k in enumerate(LANGUAGES)}
    assert made.name == "PLND, contrast"
    torch.testing.assert_close(
        made.score(stats)["de"]["q"], stats["de"]["q"] - (stats["en"]["q"] + stats["zh"]["q"]) / 2
    )
    with pytest.raises(ValueError, match="a contrast needs another language: PLND has only en"):
        made.score({"en": stats["en"]})


def test_listing_twice_is_refused(llama):
    one = detectors()[0]
    with pytest.raises(ValueError, match="two detectors are called 'PLND'"):
        detect(llama, corpora(), [one, one])
    with pytest.raises(ValueError, match="no detector: list at least one"):
        detect(llama, corpora(), [])
