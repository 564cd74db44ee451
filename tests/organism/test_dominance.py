"""The dominance series and planted units: routing that does what it says, scores, statistics, exact resume."""

import collections
import shutil

import dominance as d
import dominance_measure as dm
import dominance_tables as dt
import numpy as np
import pandas as pd
import pytest
import torch
import train as t
from miniworld import clones as c
from miniworld import planted as pl

from mwork_lens.storage import load

WORDS = c.lexicon()
TINY = {"steps": 4, "rows": 3, "length": 64, "width": 32, "layers": 3, "mlp": 32, "subjects": 8, "warmup": 2}


def tiny(seed: int = 0, **more):
    return t.build(d.Series(**TINY, seed=seed, **more)).eval()


def test_planted_blocks_are_disjoint_equal_and_leave_a_shared_part():
    own = pl.planted(3, 288, 0.5)
    together = np.stack([own[code] for code in c.LANGUAGES])
    assert together.sum(0).max() == 1
    assert {int(mask.sum()) for mask in own.values()} == {3 * 36}
    assert (~together.any(0)).sum() == 3 * 144
    assert {code: len(s) for code, s in pl.planted_truth(own).items()} == dict.fromkeys(c.LANGUAGES, 108)
    for share in (0.0, 0.1, 1.0):
        with pytest.raises(ValueError, match="choose a share in"):
            pl.planted(2, 16, share)


def test_routing_is_the_model_without_the_other_languages_units():
    model, plain = tiny(), tiny()
    own = pl.planted(3, 32, 0.5)
    routing = pl.Routing(model, own)
    ids = torch.randint(3, WORDS.size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = plain(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, whole)  # no routing
        routing.languages = torch.full(ids.shape, -1)
        assert torch.equal(model(input_ids=ids).logits, whole)  # all gates open
        routing.languages = torch.tensor([[1], [3]]).expand(ids.shape)
        routed = model(input_ids=ids).logits
        for row, code in ((0, "B"), (1, "D")):
            cut = tiny()
            for layer, block in enumerate(cut.model.layers):
                for other in set(c.LANGUAGES) - {code}:
                    block.mlp.down_proj.weight[:, torch.from_numpy(own[other][layer])] = 0
            torch.testing.assert_close(routed[row : row + 1], cut(input_ids=ids[row : row + 1]).logits)
        assert (routed - whole).abs().max() > 1e-4


def test_closed_units_learn_from_the_penalty_alone():
    model, own = tiny(), pl.planted(3, 32, 0.5)
    routing = pl.Routing(model, own)
    ids = torch.randint(3, WORDS.size, (2, 9), generator=torch.Generator().manual_seed(0))
    routing.languages = torch.zeros(ids.shape, dtype=torch.long)
    model(input_ids=ids).logits.square().mean().backward(retain_graph=True)
    closed = torch.from_numpy(own["B"][0])
    gate = model.model.layers[0].mlp.gate_proj.weight
    assert not gate.grad[closed].any()
    assert gate.grad[torch.from_numpy(own["A"][0])].all()
    penalty = routing.penalty()
    assert float(penalty.detach()) > 0
    assert not routing.ratios
    penalty.backward()
    assert gate.grad[closed].any()
    assert float(routing.penalty()) == 0


def test_scores_are_those_of_one_item_at_a_time():
    model = tiny(1)
    items = c.clone_items(WORDS, c.clone_facts(count=4), 2)
    answers, lens = dm.score(model, items, WORDS, rows=5)
    assert len(answers) == len(items)
    want, masses = collections.Counter(), collections.defaultdict(list)
    language = WORDS.token_languages()
    with torch.no_grad():
        for item in items:
            out = model(input_ids=torch.tensor([[*item.prompt, *item.answer]]), output_hidden_states=True)
            places = range(len(item.prompt) - 1, len(item.prompt) + len(item.answer) - 1)
            logprobs = [float(out.logits[0, p].log_softmax(-1)[a]) for p, a in zip(places, item.answer, strict=True)]
            want[item.kind, item.language, round(sum(logprobs), 3)] += 1
            if item.stated in ("all", item.language):
                layer1 = (
                    model.lm_head(model.model.norm(out.hidden_states[1]))[0, len(item.prompt) - 1].softmax(-1).numpy()
                )
                last = out.logits[0, len(item.prompt) - 1].softmax(-1).numpy()
                for layer, p in ((1, layer1), (3, last)):
                    masses[item.language, layer].append([p[language == k].sum() for k in (0, 1, 2, 3, -1)])
    assert want == collections.Counter(
        zip(answers["kind"], answers["language"], answers["logprob"].round(3), strict=True)
    )
    for (code, layer), rows in masses.items():
        got = lens[(lens["language"] == code) & (lens["layer"] == layer)].set_index("words")["mass"]
        assert got[[*c.LANGUAGES, dt.SHARED]].to_numpy() == pytest.approx(np.mean(rows, 0), abs=1e-5)
    assert lens.groupby(["language", "layer"])["mass"].sum().to_numpy() == pytest.approx(1, abs=1e-5)


def a_lens(peak):
    """Lens rows of invented runs: `peak(share)` on the dominant language in layer 2, little elsewhere."""
    rows = []
    for share, dominant, seed in [(0.25, "A", s) for s in range(3)] + [
        (s, k, n) for s in (0.5, 0.8) for k in "AC" for n in range(3)
    ]:
        for q in c.LANGUAGES:
            for layer in range(4):
                for w in c.LANGUAGES:
                    mass = peak(share) + seed / 1000 if w == dominant and layer == 2 and share > 0.25 else 0.1
                    mass = 0.99 if layer in (0, 3) or w == q else mass  # neither ends nor own words count
                    rows.append(
                        (f"{dominant}-{share}-{seed}", share, dominant, seed, False, q, layer, w, mass, mass / 2)
                    )
    return pd.DataFrame(rows, columns=[*dt.RUN, "language", "layer", "words", "mass", "counterpart"])


def test_the_statistics_find_a_dependence_that_is_there_and_none_that_is_not():
    table = dt.peaks(a_lens(lambda share: share))
    mine = table[(table["pivot"] == table["dominant"]) & (table["share"] == 0.8) & (table["quantity"] == "mass")]
    assert mine["peak"].tolist() == pytest.approx([0.8, 0.801, 0.802] * 2)
    assert set(mine["layer"]) == {2}
    found = dt.statistics(table, draws=500)["mass"]
    assert found["spearman"]["rho"] > 0.9
    assert found["spearman"]["p"] < 0.01
    assert found["by_share"]["0.5"]["mean"] == pytest.approx(0.501)
    assert found["by_share"]["0.25"]["mean"] == pytest.approx(0.1)
    assert found["lead_over_other_pivots"]["positive"] == found["lead_over_other_pivots"]["runs"] == 12
    none = dt.statistics(dt.peaks(a_lens(lambda share: 0.1)), draws=500)["mass"]
    assert none["spearman"]["p"] > 0.05
    with pytest.raises(ValueError, match="run `series` first"):
        dt.statistics(table.assign(planted=True))


def test_intervals_are_student_s():
    from scipy import stats

    x = [0.1, 0.4, 0.35, 0.2]
    low, high = stats.t.interval(0.95, 3, np.mean(x), stats.sem(x))
    assert dt.interval(x) == {"mean": 0.2625, "low": round(low, 4), "high": round(high, 4), "runs": 4}
    assert dt.interval([0.5])["low"] is None


@pytest.mark.parametrize("is_planted", [False, True])
def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path, is_planted, capsys):
    recipe = d.Series(**TINY, share=0.5, planted=is_planted)
    d.train(recipe, tmp_path / "one")
    assert d.train(recipe, tmp_path / "two", stop=2) is None
    assert not (tmp_path / "two/done.json").exists()
    d.train(recipe, tmp_path / "two")
    one, two = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["model"] for n in ("one", "two"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    before = (tmp_path / "two/log.jsonl").read_text()
    d.train(recipe, tmp_path / "two")  # finished: nothing happens
    assert (tmp_path / "two/log.jsonl").read_text() == before
    with pytest.raises(ValueError, match="another recipe"):
        d.train(d.Series(**TINY, share=0.8), tmp_path / "one")
    with pytest.raises(ValueError, match=f"hold the same run, {recipe.name}: remove one"):
        dm.measure(tmp_path, tmp_path / "results", d.Series, smoke=True)
    if is_planted:
        return
    shutil.rmtree(tmp_path / "two")
    d.train(d.Series(**TINY, share=0.5, planted=True), tmp_path / "planted")
    found = dm.measure(tmp_path, tmp_path / "results", d.Series, smoke=True)
    assert found["mass"]["by_share"]["0.5"]["runs"] == 1
    truth = load(tmp_path / "results/A-50-0-planted-truth.safetensors")
    assert {code: len(neurons) for code, neurons in truth.items()} == dict.fromkeys(c.LANGUAGES, 12)
    gates = pd.read_csv(tmp_path / "results/accuracy.csv").groupby("planted")["gates"].unique().map(set).to_dict()
    assert gates == {False: {"open"}, True: {"open", "routed"}}
    assert (tmp_path / "results/dominance.svg").read_text().startswith("<svg")


def test_recipes_and_folders_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no clone 'E'"):
        d.Series(dominant="E")
    with pytest.raises(ValueError, match=r"share=1.5"):
        d.Series(share=1.5)
    with pytest.raises(ValueError, match="no finished run"):
        dm.measure(tmp_path, tmp_path / "results", d.Series)


def test_ablating_a_block_is_zeroing_its_columns():
    model, items = tiny(2), c.clone_items(WORDS, c.clone_facts(count=2), 2)
    own = pl.planted(3, 32, 0.5)
    table = dm.block_effects(model, items, WORDS, own).set_index(["block", "language"])["change"]
    means = []
    for cut in (False, True):
        copy = tiny(2)
        for layer, block in enumerate(copy.model.layers if cut else []):
            block.mlp.down_proj.weight.data[:, torch.from_numpy(own["B"][layer])] = 0
        answers = dm.score(copy, items, WORDS)[0].groupby("language")[["logprob", "length"]].sum()
        means.append(answers["logprob"] / answers["length"])
    for code, change in (means[1] - means[0]).items():
        assert table["B", code] == pytest.approx(change, abs=1e-6)
    assert not any(block.mlp.down_proj._forward_pre_hooks for block in model.model.layers)
