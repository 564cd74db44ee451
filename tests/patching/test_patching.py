"""Activation patching against TransformerLens's own (equal prompts), hooks written by hand (unequal ones), and its laws."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from families import CONFIGS, hf_model, tokenizer
from hypothesis import given
from hypothesis import strategies as st

import mwork_lens as mw
from mwork_lens.patching import Pair, align, carried, patching_scores, recovery
from mwork_lens.patching.scores import ROWS
from mwork_lens.sites import shape_of


@pytest.fixture(scope="module")
def model():
    return mw.load_model(hf_model("llama", seed=4), tokenizer=tokenizer())


def item(name: str, prompt: str, answer: str, language: str = "xx") -> mw.Item:
    return mw.Item(name, language, prompt, (answer,))


SAME = [
    Pair(item("a", "w1 w2 w3 w4", "w9"), item("b", "w1 w5 w3 w6", "w8")),
    Pair(item("c", "w7 w2 w9 w4", "w11"), item("d", "w7 w8 w3 w2", "w12")),
]
OTHER = [
    Pair(item("a", "w1 w2 w3 w4 w5", "w9 w10"), item("b", "w20 w2 w3 w21", "w8 w13 w2", "yy")),
    Pair(item("c", "w7 w2 w9", "w11"), item("d", "w7 w8 w3 w2 w9 w30", "w12 w9", "yy")),
]
QUIET = {"progress": False}


def ids(text: str) -> torch.Tensor:
    return torch.tensor([tokenizer()(text)["input_ids"]])


def by_hand(model, source: str, target: str, answer: str, hook: str, positions, units=slice(None)) -> float:
    """Log-likelihood of an answer with one hook point's activation replaced, by TransformerLens's hooks and nothing of ours."""
    whole, kept = ids(f"{target} {answer}"), {}

    def keep(x, hook):
        kept["x"] = x.detach().clone().flatten(2)

    def put(x, hook):
        flat = x.clone().flatten(2)
        for i, j in positions:
            flat[:, j, units] = kept["x"][:, i, units]
        return flat.reshape(x.shape)

    with torch.no_grad():
        model.run_with_hooks(ids(source), fwd_hooks=[(hook, keep)])
        logits = model.run_with_hooks(whole, fwd_hooks=[(hook, put)])[0].log_softmax(-1)
    start = ids(target).shape[1]
    return sum(float(logits[t - 1, whole[0, t]]) for t in range(start, whole.shape[1]))


def test_everything_patched_is_the_source_and_the_same_run_patched_is_itself(model):
    table = patching_scores(model, SAME, "resid_pre", at="every", layers=[0], **QUIET)
    assert list(table.columns) == list(ROWS)
    assert (table["logp"] == table["given"]).all()
    assert (table["logp"] != table["unpatched"]).all()
    twins = [Pair(pair.target, pair.target, {"one": "w9", "two": "w8"}) for pair in SAME]
    for site in ("resid_pre", "resid_mid", "resid_post", "q", "k", "v", "z", "ffn"):
        again = patching_scores(model, twins, site, at="every", **QUIET)
        assert (again["logp"] == again["unpatched"]).all(), site
    # all layers' own outputs, that is everything but the first state: the last state at the last position decides the answer
    last = patching_scores(model, SAME, "resid_post", at="last", layers=[1], **QUIET)
    assert np.allclose(last["logp"], last["given"], atol=1e-6)


def test_it_agrees_with_transformer_lens_on_prompts_of_one_length(model):
    from transformer_lens import patching

    pair = SAME[0]
    right, wrong = (ids(f"w0 {x}")[0, -1] for x in pair.candidates.values())
    with torch.no_grad():
        _, cache = model.run_with_cache(ids(pair.source.prompt))
    metric = lambda logits: logits[0, -1, right] - logits[0, -1, wrong]  # noqa: E731
    theirs = patching.get_act_patch_resid_pre(model, ids(pair.target.prompt), cache, metric)
    mine = patching_scores(model, [pair], "resid_pre", at="every", by_position=True, **QUIET)
    wide = mine.pivot(index=["layer", "position"], columns="candidate", values="logp")
    assert np.allclose((wide["source"] - wide["target"]).to_numpy().reshape(theirs.shape), theirs.numpy(), atol=1e-5)
    theirs = patching.get_act_patch_attn_head_out_all_pos(model, ids(pair.target.prompt), cache, metric)
    mine = patching_scores(model, [pair], "z", at="every", by_head=True, **QUIET)
    wide = mine.pivot(index=["layer", "head"], columns="candidate", values="logp")
    assert np.allclose(
        (wide["source"] - wide["target"]).to_numpy(float).reshape(theirs.shape), theirs.numpy(), atol=1e-5
    )


@pytest.mark.parametrize(("site", "hook"), [
    ("resid_pre", "hook_resid_pre"), ("resid_post", "hook_resid_post"), ("q", "attn.hook_q"), ("k", "attn.hook_k"), ("v", "attn.hook_v"),
    ("z", "attn.hook_z"), ("ffn", "mlp.hook_post"),
])  # fmt: skip
@pytest.mark.parametrize("at", ["last", "shared", [(1, 2), (-1, 0)]])
def test_it_is_hooks_written_by_hand_on_prompts_of_any_length(model, site, hook, at):
    table = patching_scores(model, OTHER, site, at=at, layers=[1], **QUIET).set_index(["pair", "candidate"])["logp"]
    for pair in OTHER:
        source, target = (ids(one.prompt)[0].tolist() for one in (pair.source, pair.target))
        positions = align(source, target, at, bos=1)
        for name, answer in pair.candidates.items():
            hand = by_hand(model, pair.source.prompt, pair.target.prompt, answer, f"blocks.1.{hook}", positions)
            assert table[pair.name, name] == pytest.approx(hand, abs=1e-5)


def test_units_heads_and_layers(model):
    shapes = shape_of(model, ("z", "ffn"))
    mask = torch.zeros(shapes["z"], dtype=torch.bool)
    mask[1, 8:16] = True  # the second head
    one_head = mw.NeuronSet({"z": mask}, model=mw.fingerprint(model))
    heads = patching_scores(model, OTHER, "z", by_head=True, **QUIET)
    assert set(heads["head"]) == {0, 1, 2, 3}
    chosen = patching_scores(model, OTHER, "z", where=one_head, layers=[1], **QUIET)
    second = heads[(heads["layer"] == 1) & (heads["head"] == 1)]
    assert np.allclose(chosen["logp"], second["logp"])
    both = patching_scores(model, OTHER, "z", by_head=True, where=one_head, **QUIET)
    assert set(zip(both["layer"], both["head"], strict=True)) == {
        (1, 1)
    }  # heads without a unit of the set are left out
    units = torch.zeros(shapes["ffn"], dtype=torch.bool)
    units[0, [3, 17]] = True
    few = patching_scores(model, OTHER[:1], "ffn", where=mw.NeuronSet({"ffn": units}), layers=[0], **QUIET).set_index(
        "candidate"
    )["logp"]
    pair = OTHER[0]
    hand = by_hand(model, pair.source.prompt, pair.target.prompt, "w9 w10", "blocks.0.mlp.hook_post", [(5, 4)], [3, 17])
    assert few["source"] == pytest.approx(hand, abs=1e-5)


@pytest.fixture(scope="module")
def deep():
    config = CONFIGS["llama"]()
    config.num_hidden_layers = 4
    return mw.load_model(hf_model("llama", seed=4, config=config), tokenizer=tokenizer())


def deep_by_hand(model, pair: Pair, answer: str, hook: str, units: dict[int, list[int]]) -> float:
    """As `by_hand` at the last position, with units of several layers replaced."""
    whole, kept = ids(f"{pair.target.prompt} {answer}"), {}
    theirs, mine = (ids(one.prompt).shape[1] - 1 for one in (pair.source, pair.target))

    def keep(x, hook):
        kept[hook.name] = x.detach().clone().flatten(2)

    def put(x, hook):
        flat, those = x.clone().flatten(2), units[int(hook.name.split(".")[1])]
        flat[:, mine, those] = kept[hook.name][:, theirs, those]
        return flat.reshape(x.shape)

    names = [f"blocks.{layer}.{hook}" for layer in units]
    with torch.no_grad():
        model.run_with_hooks(ids(pair.source.prompt), fwd_hooks=[(name, keep) for name in names])
        logits = model.run_with_hooks(whole, fwd_hooks=[(name, put) for name in names])[0].log_softmax(-1)
    return sum(float(logits[t - 1, whole[0, t]]) for t in range(mine + 1, whole.shape[1]))


def a_set(model, site: str, units: dict[int, list[int]]) -> mw.NeuronSet:
    mask = torch.zeros(shape_of(model, (site,))[site], dtype=torch.bool)
    for layer, those in units.items():
        mask[layer, those] = True
    return mw.NeuronSet({site: mask}, model=mw.fingerprint(model))


@pytest.mark.parametrize(("site", "hook"), [("ffn", "mlp.hook_post"), ("z", "attn.hook_z"), ("resid_post", "hook_resid_post")])  # fmt: skip
def test_from_a_layer_on_is_all_later_layers_by_hand(deep, site, hook):
    table = patching_scores(deep, OTHER, site, from_layer=True, **QUIET).set_index(["pair", "layer", "candidate"])[
        "logp"
    ]
    alone = patching_scores(deep, OTHER, site, **QUIET).set_index(["pair", "layer", "candidate"])["logp"]
    for pair, layer in itertools.product(OTHER, range(4)):
        everything = (
            list(range(shape_of(deep, (site,))[site][1])) if site != "resid_post" else list(range(deep.cfg.d_model))
        )
        for name, answer in pair.candidates.items():
            hand = deep_by_hand(deep, pair, answer, hook, dict.fromkeys(range(layer, 4), everything))
            assert table[pair.name, layer, name] == pytest.approx(hand, abs=1e-5)
    early = table.index.get_level_values("layer") < 3
    assert not np.isclose(table[early], alone[early], atol=1e-6).any()
    assert np.allclose(table[~early], alone[~early])  # the last layer has no later one


def test_from_a_layer_on_each_layer_has_its_own_units_of_the_set(deep):
    units = {1: [3, 17], 2: [5, 6, 7, 30], 3: [1]}  # layer 0 has none, and its row is that of the later ones
    table = patching_scores(deep, OTHER, "ffn", where=a_set(deep, "ffn", units), from_layer=True, **QUIET)
    assert list(dict.fromkeys(table["layer"])) == [0, 1, 2, 3]
    found = table.set_index(["pair", "layer", "candidate"])["logp"]
    for pair, layer in itertools.product(OTHER, range(4)):
        for name, answer in pair.candidates.items():
            own = {i: those for i, those in units.items() if i >= layer}
            hand = deep_by_hand(deep, pair, answer, "mlp.hook_post", own)
            assert found[pair.name, layer, name] == pytest.approx(hand, abs=1e-5)
    one = OTHER[0]
    reused = deep_by_hand(deep, one, one.candidates["source"], "mlp.hook_post", dict.fromkeys((1, 2, 3), units[1]))
    assert found[one.name, 1, "source"] != pytest.approx(reused, abs=1e-5)
    alone = patching_scores(deep, OTHER, "ffn", where=a_set(deep, "ffn", units), **QUIET)
    assert list(dict.fromkeys(alone["layer"])) == [1, 2, 3]
    with pytest.raises(ValueError, match="no neuron of 'ffn' in these layers"):
        patching_scores(deep, OTHER, "ffn", where=a_set(deep, "ffn", {0: [1]}), layers=[1], from_layer=True, **QUIET)


def test_from_a_layer_on_heads_are_cut_with_each_layers_own_units(deep):
    units = {0: [8, 9], 2: [0, 1, 10, 11], 3: [15, 24]}  # heads 1; 0 and 1; 1 and 3
    table = patching_scores(deep, OTHER, "z", where=a_set(deep, "z", units), by_head=True, from_layer=True, **QUIET)
    known = {(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 3), (2, 0), (2, 1), (2, 3), (3, 1), (3, 3)}
    assert set(zip(table["layer"], table["head"], strict=True)) == known
    found = table.set_index(["pair", "layer", "head", "candidate"])["logp"]
    for pair, (layer, head) in itertools.product(OTHER, sorted(known)):
        own = {i: [u for u in those if u // 8 == head] for i, those in units.items() if i >= layer}
        for name, answer in pair.candidates.items():
            hand = deep_by_hand(deep, pair, answer, "attn.hook_z", {i: those for i, those in own.items() if those})
            assert found[pair.name, layer, head, name] == pytest.approx(hand, abs=1e-5)


def test_the_number_of_positions_replaced_is_told(model):
    counted = patching_scores(model, OTHER, "resid_pre", at="shared", layers=[0], **QUIET)
    for pair in OTHER:
        source, target = (ids(one.prompt)[0].tolist() for one in (pair.source, pair.target))
        assert (
            counted.loc[counted["pair"] == pair.name, "positions"] == len(align(source, target, "shared", bos=1))
        ).all()
    assert (patching_scores(model, SAME, "z", at="every", by_position=True, **QUIET)["positions"] == 1).all()


def test_nothing_stays_on_the_model(model):
    known, before = mw.fingerprint(model), mw.evaluate(model, {"xx": mw.Corpus("xx", ("w1 w2 w3",))})
    patching_scores(model, OTHER, "resid_mid", at="shared", by_position=True, **QUIET)
    assert mw.fingerprint(model) == known
    assert mw.evaluate(model, {"xx": mw.Corpus("xx", ("w1 w2 w3",))}).equals(before)


@given(st.lists(st.integers(2, 6), min_size=1, max_size=9), st.lists(st.integers(2, 6), min_size=1, max_size=9))
def test_shared_positions_hold_the_same_tokens_in_the_same_order(source, target):
    source, target = [1, *source], [1, *target]
    if not set(source) & set(target) - {1}:
        with pytest.raises(ValueError, match="share no token"):
            align(source, target, "shared", bos=1)
        return
    found = align(source, target, "shared", bos=1)
    assert all(source[i] == target[j] != 1 for i, j in found)
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(found))
    assert align(source, source, "shared", bos=1) == align(source, source, "every")[1:]
    assert align(source, target, "last") == ((len(source) - 1, len(target) - 1),)


def invented(patched: float, unpatched: float = 0.0, whole: float = 2.0, pairs: int = 12) -> pd.DataFrame:
    noise = np.random.default_rng(0).normal(0, 0.1, pairs)
    rows = []
    for i in range(pairs):
        common = (f"p{i}", "en", "fr", "resid_pre", 3, "all", "all", 1)
        rows.append((*common, "source", patched + noise[i], unpatched + noise[i], whole + noise[i]))
        rows.append((*common, "target", 0.0, 0.0, 0.0))
    return pd.DataFrame(rows, columns=list(ROWS))


@pytest.mark.parametrize(("patched", "share"), [(0.0, 0.0), (2.0, 1.0), (1.0, 0.5), (-1.0, -0.5)])
def test_recovery_of_invented_rows(patched, share):
    (row,) = recovery(invented(patched)).to_dict("records")
    assert row["recovery"] == pytest.approx(share, abs=1e-9)
    assert row["low"] - 1e-9 <= share <= row["high"] + 1e-9
    assert row["pairs"] == 12


def noisy(size: float, shift: float = 0.0) -> pd.DataFrame:
    """Rows whose denominator is noise of a size around a shift, and whose patched runs differ by 0.1."""
    chance, rows = np.random.default_rng(0), []
    for i in range(12):
        common = (f"p{i}", "en", "fr", "resid_pre", 3, "all", "all", 1)
        rows.append((*common, "source", chance.normal(0, 0.1), 0.0, chance.normal(shift, size)))
        rows.append((*common, "target", 0.0, 0.0, 0.0))
    return pd.DataFrame(rows, columns=list(ROWS))


@pytest.mark.parametrize("size", [0.0, 1e-7, 1e-3, 1.0])
def test_recovery_without_an_effect_to_recover_is_nan_not_a_number_of_noise(size):
    (row,) = recovery(noisy(size)).to_dict("records")
    assert np.isnan([row["recovery"], row["low"], row["high"]]).all()
    assert row["pairs"] == 12
    for shift in (3.0, -3.0):  # a denominator that is surely not 0 gives a number, whichever its sign
        (row,) = recovery(noisy(size, shift)).to_dict("records")
        assert row["low"] <= row["recovery"] <= row["high"]
        assert abs(row["recovery"]) < 0.1


def test_what_is_carried_sums_to_one_and_names_the_likeliest(model):
    table = patching_scores(model, OTHER, at="last", **QUIET)
    found = carried(table)
    sums = found.groupby("layer")[["probability", "likeliest", "unpatched", "given"]].sum()
    assert np.allclose(sums, 1)
    assert (found["low"] <= found["probability"] + 1e-12).all()
    flat = invented(3.0)
    row = carried(flat).set_index("candidate").loc["source"]
    assert row["likeliest"] == 1
    assert row["probability"] > 0.9
    assert carried(flat, ["target", "source"]).set_index("candidate").loc["source", "probability"] == pytest.approx(
        row["probability"]
    )


def test_bad_input(model):
    pair = OTHER[0]
    cases = [
        ({"pairs": []}, "no pair of prompts"),
        ({"pairs": [pair, pair]}, "is there twice"),
        ({"at": "every"}, "do not align position by position: 6 and 5 tokens"),
        ({"at": [(0, 9)]}, r"positions \(0, 9\) do not exist"),
        ({"at": [(0, 1), (1, 1)]}, "named twice"),
        ({"at": []}, "no position given"),
        ({"layers": [2]}, r"layer 2 does not exist: this model has layers 0..1"),
        ({"layers": []}, "no layer was asked for"),
        ({"site": "ffn", "by_head": True}, "'ffn' has no heads"),
        (
            {"site": "ffn", "where": mw.NeuronSet({"ffn": torch.zeros(2, 44, dtype=torch.bool)})},
            "nothing would be patched",
        ),
        (
            {"site": "ffn", "where": mw.NeuronSet({"ffn": torch.ones(2, 40, dtype=torch.bool)})},
            "it was detected on another model",
        ),
        ({"pairs": [Pair(item("a", "w1 " * 70 + "w1", "w2"), pair.target)]}, "more than this model's context of 64"),
    ]
    for changed, message in cases:
        given = {"pairs": [pair], "site": "resid_pre"} | changed
        with pytest.raises(ValueError, match=message):
            patching_scores(model, given.pop("pairs"), given.pop("site"), **given, **QUIET)
    with pytest.raises(ValueError, match="share no token"):
        patching_scores(model, [Pair(item("a", "w1 w2", "w9"), item("b", "w3 w4", "w8"))], at="shared", **QUIET)
    with pytest.raises(ValueError, match="has one candidate"):
        Pair(pair.source, pair.target, {"one": "w9"})
    with pytest.raises(ValueError, match="two candidates are both 'w9'"):
        Pair(pair.source, pair.target, {"one": "w9", "two": "w9"})
    table = invented(1.0)
    for call, message in [
        (lambda: recovery(table, "north"), "no candidate 'north'"), (lambda: recovery(table, "source", "source"), "needs two candidates"),
        (lambda: carried(table, ["source"]), "compare at least two"), (lambda: carried(table, ["source", "x"]), "no candidate 'x'"),
        (lambda: carried(table.iloc[1:]), "lack a candidate"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


def test_an_alignment_that_does_not_exist():
    unchecked = getattr(align, "__wrapped__", align)
    with pytest.raises(ValueError, match="at='first': choose last, shared, every"):
        unchecked([1, 2], [1, 3], "first")
