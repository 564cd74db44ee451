"""The open questions' functions against sums written out, planted answers, and nulls that must stay null."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from families import hf_model, tokenizer
from hypothesis import given
from hypothesis import strategies as st

import mwork_lens as mw
from mwork_lens.languages import TokenLanguages
from mwork_lens.questions import effort, effort_differences, locality, onset_table, onsets, set_overlap
from mwork_lens.questions.effort import working
from mwork_lens.questions.onset import first_lead


def neurons(*places: tuple[int, int], width: int = 12, layers: int = 3) -> mw.NeuronSet:
    mask = torch.zeros(layers, width, dtype=torch.bool)
    for layer, unit in places:
        mask[layer, unit] = True
    return mw.NeuronSet({"ffn": mask})


# ---- overlap


def test_the_layerwise_p_is_that_of_every_permutation():
    first, second = (
        neurons((0, 0), (0, 1), (1, 0), width=4, layers=2),
        neurons((0, 1), (1, 0), (1, 2), width=4, layers=2),
    )
    (row,) = set_overlap(first, {"x": second}).to_dict("records")
    hits = [
        len({(0, a), (0, b)} & {(0, 1)}) + len({(1, c)} & {(1, 0), (1, 2)})
        for (a, b), c in itertools.product(itertools.combinations(range(4), 2), range(4))
    ]
    assert row["both"] == 2
    assert row["p_in_layers"] == pytest.approx(np.mean(np.array(hits) >= 2))
    assert row["expected_in_layers"] == pytest.approx(np.mean(hits))
    assert row["lift"] == pytest.approx(2 * 8 / 9)
    assert row["jaccard"] == pytest.approx(2 / 4)


def test_sets_that_crowd_into_one_layer_fool_the_plain_p_and_not_the_layerwise_one():
    chance = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        a, b = ([(2, int(u)) for u in chance.choice(40, 12, replace=False)] for _ in range(2))
        rows.append(set_overlap(neurons(*a, width=40), {"x": neurons(*b, width=40)}).iloc[0])
    table = pd.DataFrame(rows)
    assert (table["p_plain"] < 0.05).mean() > 0.5
    assert (table["p_in_layers"] < 0.05).mean() < 0.15
    assert table["lift_in_layers"].mean() == pytest.approx(1, abs=0.2)


def test_a_planted_overlap_is_found_and_spread_sets_agree_on_both_p():
    first = neurons(*[(layer, unit) for layer in range(3) for unit in range(4)])
    table = set_overlap(
        first, {"same": first, "other": neurons(*[(layer, unit) for layer in range(3) for unit in range(8, 12)])}
    )
    table = table.set_index("name")
    assert table.loc["same", "p_in_layers"] < 1e-4
    assert table.loc["other", "p_in_layers"] == 1
    assert table.loc["same", "bh_in_layers"] == pytest.approx(2 * table.loc["same", "p_in_layers"])
    assert table.loc["same", "p_plain"] == pytest.approx(table.loc["same", "p_in_layers"], abs=1e-3)
    turned = set_overlap(neurons((0, 1), (1, 2)), {"x": first}).iloc[0]
    again = set_overlap(first, {"x": neurons((0, 1), (1, 2))}).iloc[0]
    assert turned["p_in_layers"] == pytest.approx(again["p_in_layers"])


def test_overlap_refuses_what_it_cannot_compare():
    one = neurons((0, 1))
    for first, others, message in [
        (one, {}, "no set to compare with"), (one, {"x": neurons((0, 1), width=9)}, "were chosen among other neurons"),
        (one, {"x": neurons()}, "the set 'x' is empty"), (neurons(), {"x": one}, "the set to compare is empty"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            set_overlap(first, others)


# ---- onset


masses = st.lists(st.tuples(*[st.sampled_from([0.0, 0.1, 0.2, 0.3])] * 2), min_size=5, max_size=5)


@given(st.lists(masses, min_size=1, max_size=6))
def test_the_onset_is_the_first_state_after_which_english_never_leads(rows):
    both = np.array(rows)
    for found, row in zip(first_lead(both[..., 0], both[..., 1], 0.2), rows, strict=True):
        slow = next((i for i in range(5) if all(own > en or en < 0.2 for own, en in row[i:])), np.nan)
        assert found == slow or (np.isnan(found) and np.isnan(slow))


def test_onsets_of_a_model_are_read_off_its_lens():
    model = mw.load_model(hf_model("llama"), tokenizer=tokenizer())
    labels = TokenLanguages(("en", "xx"), torch.arange(97) % 2, "counts")  # even tokens are English
    texts = {"en": mw.Corpus("en", ("w0 w2",)), "xx": mw.Corpus("xx", ("w1 w3 w5 w7", "w9 w11", "w13 w1 w7"))}
    rows = onsets(model, texts, identify=labels, least=0.0, progress=False)
    assert list(rows["language"]) == ["xx"] * 3
    assert (onsets(model, texts, identify=labels, least=1.1, progress=False)["onset"] == 0).all()
    for text, onset in zip(texts["xx"].texts, rows["onset"], strict=True):
        reading = mw.read(model, torch.tensor([tokenizer()(text)["input_ids"]]), labels)
        masses = reading.languages[:, 0, 1:].mean(1)
        slow = next((i for i in range(3) if bool((masses[i:, 1] > masses[i:, 0]).all())), float("nan"))
        assert onset == slow or (np.isnan(onset) and np.isnan(slow))
    with pytest.raises(ValueError, match="no language besides 'en'"):
        onsets(model, {"en": texts["en"]}, identify=labels, progress=False)
    with pytest.raises(ValueError, match="no token is labelled 'yy'"):
        onsets(model, {"yy": texts["xx"]}, identify=labels, progress=False)


def test_the_table_of_onsets_and_distance():
    rows = pd.DataFrame(
        [
            (f"l{i}", f"d{j}", (max(i, 2) if 4 - j <= i else 0.0) if j else np.nan, 9)
            for i in range(6)
            for j in range(4)
        ],
        columns=["language", "document", "onset", "positions"],
    )
    table, related = onset_table(rows, {f"l{i}": 10.0 * i for i in range(6)})
    assert list(table["translated"]) == [0, 0.25, 0.5, 0.75, 0.75, 0.75]
    assert list(table["onset"])[1:] == [2, 2, 3, 4, 5]
    assert np.isnan(table["onset"].iloc[0])  # English led nowhere
    assert (table["none"] == 0.25).all()
    assert (table["translated_low"] <= table["translated"]).all()
    assert related[0] == pytest.approx(0.94, abs=0.01)
    assert related[1] < 0.05
    _, shuffled = onset_table(rows, {f"l{i}": float(far) for i, far in enumerate((3, 0, 5, 1, 4, 2))})
    assert shuffled[1] > 0.05
    assert onset_table(rows[rows["language"] < "l3"], {f"l{i}": 1.0 * i for i in range(3)})[1] is None
    with pytest.raises(ValueError, match="no distance for 'l1'"):
        onset_table(rows, {"l0": 1.0})


# ---- effort


@given(st.lists(st.floats(0, 50), min_size=1, max_size=12), st.floats(0.1, 10))
def test_working_units_are_counted_as_defined(values, by):
    weights = torch.tensor(values, dtype=torch.float64)
    ratio, ninety = (float(x) for x in working(weights))
    if sum(values) == 0:
        assert ratio == ninety == 0
        return
    assert 1 - 1e-9 <= ratio <= len(values) + 1e-9
    ordered, total, count = sorted(values, reverse=True), 0.0, 0
    while total < 0.9 * sum(values) - 1e-9:
        total += ordered[count]
        count += 1
    assert abs(ninety - max(count, 1)) <= 1  # a tie in rounding at the edge may cost one
    assert float(working(weights * by)[0]) == pytest.approx(ratio)


def test_effort_of_a_model_is_a_loop_over_its_tokens():
    model = mw.load_model(hf_model("gpt2"), tokenizer=tokenizer())
    texts = {
        "en": mw.Corpus("en", ("w1 w2 w3", "w4 w5"), ids=("a", "b")),
        "xx": mw.Corpus("xx", ("w9 w8 w7 w6", "w5 w2"), ids=("a", "b")),
    }
    rows = effort(model, texts, [1], progress=False)
    held = {}
    with torch.no_grad():
        model.run_with_hooks(
            torch.tensor([tokenizer()("w9 w8 w7 w6")["input_ids"]]),
            fwd_hooks=[("blocks.1.mlp.hook_post", lambda x, hook: held.update(x=x[0]))],
        )
    lengths = model.blocks[1].mlp.W_out.detach().norm(dim=1)
    ratios = []
    for token in held["x"][1:]:  # without BOS
        w = [abs(float(a)) * float(n) for a, n in zip(token, lengths, strict=True)]
        ratios.append(sum(w) ** 2 / sum(x * x for x in w))
    row = rows[(rows["language"] == "xx") & (rows["document"] == "a")].iloc[0]
    assert row["participation"] == pytest.approx(np.mean(ratios), rel=1e-5)
    assert row["tokens"] == 4
    with mw.deactivate(model, mw.NeuronSet({"ffn": torch.ones_like(lengths, dtype=torch.bool).expand(2, -1)})):
        assert (effort(model, texts, [1], progress=False)[["participation", "ninety"]] == 0).all(None)  # nothing works
    with pytest.raises(ValueError, match="layer 2 does not exist"):
        effort(model, texts, [2], progress=False)
    with pytest.raises(ValueError, match="nothing to measure"):
        effort(model, {}, progress=False)


def invented(gap: float, per_token: float, count: int = 40) -> pd.DataFrame:
    chance, rows = np.random.default_rng(1), []
    for i in range(count):
        tokens, base = int(chance.integers(8, 30)), chance.normal(50, 5)
        more = int(chance.integers(0, 12))
        rows.append(("en", f"d{i}", 0, base, 2 * base, tokens))
        value = base + gap + per_token * np.log((tokens + more) / tokens) + chance.normal(0, 0.3)
        rows.append(("xx", f"d{i}", 0, value, 2 * value, tokens + more))
    return pd.DataFrame(rows, columns=["language", "document", "layer", "participation", "ninety", "tokens"])


def test_more_tokens_are_told_from_more_effort():
    real, longer, same = (effort_differences(invented(*case)).iloc[0] for case in ((3.0, 0.0), (0.0, 8.0), (0.0, 0.0)))
    assert real["low"] > 2
    assert real["same_length"] == pytest.approx(3, abs=0.5)
    assert longer["low"] > 1  # looks like effort
    assert longer["same_length"] == pytest.approx(0, abs=0.5)  # and is length
    assert longer["same_length_low"] < 0 < longer["same_length_high"]
    assert real["same_length_low"] > 2
    assert same["low"] < 0 < same["high"]
    assert same["p_wilcoxon"] > 0.05
    with pytest.raises(ValueError, match="only parallel texts can be compared"):
        effort_differences(invented(0, 0).iloc[1:])
    with pytest.raises(ValueError, match="no rows of 'de'"):
        effort_differences(invented(0, 0), "de")


# ---- locality


def scored(
    own_only: float, own_many: float, *, items: int = 60, draws: int = 19, weak: float = 0.0, own_weak: float = 0.0
) -> tuple[pd.DataFrame, dict]:
    """Items whose log-likelihood falls by the given amounts; `weak`, `own_weak`: how much more anything, or own neurons, hurt what is barely so."""
    chance, rows, groups = np.random.default_rng(3), [], {}
    for i in range(items):
        group = "only" if i % 2 else "many"
        before = chance.normal(-3 if group == "only" else -2.5, 1)
        groups["xx", f"i{i}"] = group
        frail = max(0.0, -before - 2)
        for name in ("none", "own", *(f"random {k}" for k in range(draws))):
            fall = 0.0 if name == "none" else weak * frail + abs(chance.normal(0, 0.05))
            fall += own_weak * frail if name == "own" else 0.0
            fall += (own_only if group == "only" else own_many) if name == "own" else 0.0
            rows.append(("xx", name, f"i{i}", -(before - fall), 3))
    return pd.DataFrame(rows, columns=["language", "condition", "item", "nll", "tokens"]), groups


def test_a_planted_difference_in_differences_is_found_and_none_is_not():
    controls = [f"random {k}" for k in range(19)]
    found = {}
    for name, case in {"local": (1.0, 0.2), "both": (0.6, 0.6), "none": (0.0, 0.0)}.items():
        table, groups = scored(*case, weak=0.5)
        found[name] = locality(table, groups, controls=controls).iloc[0]
    assert found["local"]["did"] == pytest.approx(-0.8, abs=0.1)
    assert found["local"]["high"] < 0
    assert found["local"]["p_random"] == pytest.approx(1 / 20)
    for name in ("both", "none"):  # what breaks the language, or anything, is not local knowledge
        assert abs(found[name]["did"]) < 0.1
    assert found["none"]["p_random"] > 0.05


def test_barely_known_items_are_compared_with_barely_known_ones(monkeypatch):
    table, groups = scored(0.0, 0.0, items=400, own_weak=0.5)
    controls = [f"random {k}" for k in range(19)]
    matched = locality(table, groups, controls=controls).iloc[0]
    assert abs(matched["did"]) < 0.05
    assert matched["low"] < 0 < matched["high"]
    monkeypatch.setattr(sys.modules["mwork_lens.questions.locality"], "BINS", 1)
    assert locality(table, groups, controls=controls).iloc[0]["did"] < -0.1  # what matching takes off


def test_items_without_a_counterpart_are_left_out():
    rows, groups = [], {}
    for i, (group, before) in enumerate(
        [("only", -6.0), ("only", -2.0), ("many", -2.5), ("many", -1.5), ("many", -0.1)]
    ):
        groups["xx", f"i{i}"] = group
        rows += [
            ("xx", name, f"i{i}", -before + (5.0 if name == "own" and before == -6 else 0.0), 3)
            for name in ("none", "own", "a", "b")
        ]
    table = pd.DataFrame(rows, columns=["language", "condition", "item", "nll", "tokens"])
    row = locality(table, groups, controls=["a", "b"]).iloc[0]
    assert (row["only"], row["many"], row["unmatched"], row["did"]) == (1, 1, 1, 0)
    apart = table.assign(nll=table["nll"] + table["item"].isin(["i0", "i1"]) * 9)
    with pytest.raises(ValueError, match="about as well known before"):
        locality(apart, groups, controls=["a", "b"])


def test_locality_refuses_what_it_cannot_tell():
    table, groups = scored(1.0, 0.0)
    controls = ["random 0", "random 1"]
    for call, message in [
        (lambda: locality(table, groups, controls=controls[:1]), "1 random controls say nothing"),
        (lambda: locality(table, groups, own="mine", controls=controls), "no condition 'mine'"),
        (
            lambda: locality(table, dict.fromkeys(groups, "only"), controls=controls),
            "and 0 known in many: both are needed",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
