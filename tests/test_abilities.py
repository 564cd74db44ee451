"""The MWork tables: parts against loops, scores against single calls, tables against hand-worked numbers; what they must find, and not."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import combine_pvalues

from mwork_lens.abilities import (
    ROWS,
    SCORES,
    ability_conditions,
    ability_cost,
    ability_scores,
    part_of,
)
from mwork_lens.ability_tables import CHANGES, GRID, ability_changes, ability_grid, cohen_h, holm
from mwork_lens.detect.chance import p_value
from mwork_lens.edits import applied
from mwork_lens.interventions import deactivate, scale
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import shape_of
from mwork_lens.stages import Stages
from mwork_lens.tasks.run import answer_nll, answer_scores
from mwork_lens.tasks.tables import ability_delta
from mwork_lens.tasks.task import Item, Task
from mwork_lens.writing.identify import as_identifier

SPLIT = Stages.of(5, understanding=2, generation=1)
SHAPES = {"q": (5, 6), "v": (5, 4), "ffn": (5, 9)}
STAGE = {"U": (0, 1), "S": (2, 3), "G": (4,)}


def some(seed, share=0.4, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return NeuronSet({site: torch.rand(shape, generator=generator) < share for site, shape in shapes.items()})


# --- parts


@given(st.lists(st.sampled_from([s + x for s in "USG" for x in ("", "A", "F")]), min_size=1, max_size=4, unique=True))
def test_a_row_is_the_union_of_its_pieces(pieces):
    neurons = some(1)
    wanted = {
        one
        for one in neurons
        for piece in pieces
        if one.layer in STAGE[piece[0]] and (len(piece) == 1 or (one.site == "ffn") == (piece[1] == "F"))
    }
    assert set(part_of(neurons, SPLIT, "+".join(pieces))) == wanted


def test_all_stages_are_the_set_and_attention_and_ffn_divide_it():
    neurons = some(2)
    assert part_of(neurons, SPLIT, "U+SA+SF+G") == neurons
    assert part_of(neurons, SPLIT, "SA") | part_of(neurons, SPLIT, "SF") == part_of(neurons, SPLIT, "S")
    assert not part_of(neurons, SPLIT, "UA") & part_of(neurons, SPLIT, "UF")


@pytest.mark.parametrize("row", ["", "X", "SA SF", "U+", "SAF", "u"])
def test_an_unknown_row_is_refused(row):
    with pytest.raises(ValueError, match=r"unknown row .*: join pieces by '\+'"):
        part_of(some(0), SPLIT, row)


def test_sets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="divide 3 layers, the set is of a model of 5"):
        part_of(some(0), Stages.of(3, understanding=1, generation=1), "U")
    with pytest.raises(ValueError, match="a set at 'ffn_act' has no place in the rows"):
        part_of(some(0, shapes={"ffn_act": (5, 9)}), SPLIT, "U")


# --- conditions


def test_every_target_has_every_row_with_matched_draws_that_are_cut_alike():
    own = {"en": some(0), "de": some(1), "fr": some(2)}
    made = list(ability_conditions(own, SPLIT, rows=("U", "SF", "U+SF"), draws=3))
    assert [(x.target, x.row, x.label) for x in made[:5]] == [
        ("de", "U", label) for label in ("specific", "other", "random 0", "random 1", "random 2")
    ]
    assert len(made) == 2 * 3 * 5
    find = {(x.target, x.row, x.label): x.units for x in made}
    assert find["de", "U", "other"] == part_of(own["fr"], SPLIT, "U")
    for (target, row, _), units in find.items():
        mine = part_of(own[target], SPLIT, row)
        if _.startswith("random"):
            assert all(torch.equal(units.counts()[site], mine.counts()[site]) for site in mine.sites)
            assert find[target, "U", _] | find[target, "SF", _] == find[target, "U+SF", _]
    assert find["de", "U", "random 0"] != find["de", "U", "random 1"]


def test_fewer_draws_are_the_first_of_more_and_the_seed_decides():
    own = {"en": some(0), "de": some(1)}

    def draws(n, seed):
        return [x.units for x in ability_conditions(own, SPLIT, rows=("U",), draws=n, seed=seed) if x.draw >= 0]

    assert draws(2, 0) == draws(5, 0)[:2]
    assert draws(2, 0) != draws(2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 0}, "draws=0: a comparison with chance needs at least 1"),
        ({"rows": ("U", "U")}, "rows must differ"),
        ({"rows": ()}, "rows must differ, and there must be one: got none"),
        ({"own": {"en": some(0)}}, "no language besides 'en' has neurons to switch off: got en"),
    ],
)
def test_conditions_that_make_no_table_are_refused(change, message):
    own = change.pop("own", {"en": some(0), "de": some(1)})
    with pytest.raises(ValueError, match=message):
        list(ability_conditions(own, SPLIT, **change))


# --- scores

TWO = (("w1 w2", ("w5", "w6 w7")), ("w9 w3 w4", ("w2", "w3")), ("w5 w8", ("w1", "w6")))
TASK = Task(
    "facts",
    "knowledge",
    tuple(
        Item(f"i{k}", language, f"w{20 + at} {prompt}", (choices[0],), choices)
        for at, language in enumerate(("en", "de", "fr"))
        for k, (prompt, choices) in enumerate(TWO)
    ),
    "choose",
)


@pytest.fixture(scope="module")
def five():
    import families
    from transformers import LlamaConfig

    from mwork_lens.models import load_model

    config = LlamaConfig(
        vocab_size=families.VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=families.CONTEXT, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return load_model(families.hf_model("llama", config=config), tokenizer=families.tokenizer())


@pytest.fixture(scope="module")
def three(five):
    shapes = shape_of(five, ("q", "ffn"))
    sets = {language: some(i, 0.2, shapes) for i, language in enumerate(("en", "de", "fr"))}
    sets["fr"] = sets["fr"].only(layers=[0, 1])  # nothing to switch off in the last stage
    return sets


THREE = Stages.of(3, understanding=1, generation=1)
FEW = {"rows": ("U", "SA+SF", "G"), "draws": 2}
FEWEST = {"rows": ("U",), "draws": 1}


@pytest.fixture(scope="module")
def scores(five, three):
    return ability_scores(five, [TASK], three, THREE, progress=False, **FEW)


def one(scores, **wanted):
    chosen = np.logical_and.reduce([scores[name] == value for name, value in wanted.items()])
    return scores[chosen]


@pytest.mark.parametrize("score", ["nll", "accuracy"])
def test_a_condition_is_a_single_call_with_the_neurons_off(five, three, score):
    scores = ability_scores(five, [TASK], three, THREE, score=score, progress=False, **FEW)
    assert list(scores.columns) == list(SCORES)
    none = scores[scores["neurons"] == "none"]
    assert none["language"].unique().tolist() == ["en", "de", "fr"]
    with deactivate(five, part_of(three["de"], THREE, "U")):
        if score == "nll":
            expected = -answer_nll(five, TASK, ["en", "de"])["nll"]
        else:
            expected = answer_scores(five, TASK, ["en", "de"], progress=False)["score"]
    mine = one(scores, target="de", row="U", neurons="specific")
    np.testing.assert_allclose(mine["score"], expected, atol=1e-5)
    assert mine["language"].tolist() == ["en"] * 3 + ["de"] * 3
    assert not np.allclose(mine["score"], none["score"][:6]) or score == "accuracy"


def test_a_part_without_neurons_is_nan_and_leaves_the_means(scores):
    empty = one(scores, target="fr", row="G")
    assert set(empty["neurons"]) == {"specific", "other", "random"}
    off = empty[empty["neurons"] != "other"]  # another language has neurons there
    assert off["score"].isna().all()
    assert (off["count"] == 0).all()
    table = ability_grid(scores, resamples=20)
    assert one(table, row="G", neurons="specific")["targets"].item() == 1
    assert one(table, row="U", neurons="specific")["targets"].item() == 2


def test_the_cost_is_what_is_asked(three, scores):
    assert ability_cost([TASK], three, THREE, **FEW) == scores["score"].notna().sum()


@pytest.fixture
def asked(monkeypatch):
    """Names of the tasks of every call that runs the model; one past `stop` calls is interrupted."""
    from mwork_lens import abilities

    class Calls(list):
        stop = None

    calls = Calls()

    def ask(model, task, **options):
        if len(calls) == calls.stop:
            raise KeyboardInterrupt
        calls.append(task.name)
        return answer_scores(model, task, **options)

    monkeypatch.setattr(abilities, "answer_scores", ask)
    return calls


def test_finished_parts_are_read_back_and_damaged_ones_made_again(five, three, scores, tmp_path, asked):
    options = {"folder": tmp_path, "progress": False, **FEW}
    first = ability_scores(five, [TASK], three, THREE, **options)
    pd.testing.assert_frame_equal(first, scores)
    files = sorted((tmp_path / "abilities").iterdir())
    assert len(files) == 1 + 2 * 3 * 2  # baseline; per target and row: own and other, draws
    asked.clear()
    pd.testing.assert_frame_equal(ability_scores(five, [TASK], three, THREE, **options), scores)
    assert not asked
    more = ability_scores(five, [TASK], three, THREE, **{**options, "rows": ("U", "SA+SF", "G", "UF")})
    assert len(asked) == 4  # the new row alone
    pd.testing.assert_frame_equal(more[more["row"] != "UF"].reset_index(drop=True), scores[scores["row"] != "UF"])
    asked.clear()
    files[0].write_bytes(b"cut")
    with pytest.warns(UserWarning, match="asking these items again"):
        pd.testing.assert_frame_equal(ability_scores(five, [TASK], three, THREE, **options), scores)
    assert len(asked) == 1


def test_an_interruption_costs_the_task_it_falls_in_alone(five, three, tmp_path, asked):
    small = TASK.take(1)
    tasks = [small, replace(small, name="more"), replace(small, name="third")]
    options = {"folder": tmp_path, "progress": False, **FEWEST}
    asked.stop = 3
    with pytest.raises(KeyboardInterrupt):
        ability_scores(five, tasks[:2], three, THREE, **options)
    assert asked == ["facts", "more", "facts"]  # baselines, and the own set of the first language
    assert len(list((tmp_path / "abilities").iterdir())) == 3
    asked.stop = None
    resumed = ability_scores(five, tasks[:2], three, THREE, **options)
    assert len(asked) == 2 * (1 + 2 * 2)  # per task: baseline; own and draws of two languages; none of them twice
    asked.clear()
    pd.testing.assert_frame_equal(resumed, ability_scores(five, tasks[:2], three, THREE, **{**options, "folder": None}))
    asked.clear()
    ability_scores(five, tasks, three, THREE, **options)
    assert asked == ["third"] * 5  # a task more leaves the others as they are


@pytest.mark.parametrize("module", ["abilities", "tasks.ask"])
def test_parts_of_another_version_are_not_read_back(five, three, tmp_path, asked, monkeypatch, module):
    options = {"folder": tmp_path, "progress": False, **FEWEST}
    ability_scores(five, [TASK.take(1)], three, THREE, **options)
    assert len(asked) == 5
    with monkeypatch.context() as patched:
        patched.setattr(f"mwork_lens.{module}.VERSION", 999)
        ability_scores(five, [TASK.take(1)], three, THREE, **options)
    assert len(asked) == 10
    ability_scores(five, [TASK.take(1)], three, THREE, **options)
    assert len(asked) == 10  # those of this version are still there


def test_other_sets_or_items_are_not_read_back(five, three, tmp_path):
    options = {"folder": tmp_path, "progress": False, **FEWEST}
    ability_scores(five, [TASK], three, THREE, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changed = ability_scores(five, [TASK.take(2)], three, THREE, **options)
        swapped = ability_scores(five, [TASK], {**three, "de": three["fr"]}, THREE, **options)
    assert changed["item"].nunique() == 2
    assert (
        len(part_of(three["fr"], THREE, "U")) == one(swapped, target="de", row="U", neurons="specific")["count"].iloc[0]
    )


@pytest.mark.slow
def test_parts_under_other_edits_neurons_of_others_and_identifiers_are_not_read_back(five, three, tmp_path):
    def run(own=three, tasks=(TASK,), **options):
        return ability_scores(five, tasks, own, THREE, folder=tmp_path, progress=False, **FEWEST, **options)

    plain = run()
    with applied(five, scale(NeuronSet.of([("ffn", 0, 1)], shape_of(five)), 30.0)):
        assert not np.allclose(run()["score"][:9], plain["score"][:9])
    pd.testing.assert_frame_equal(run(), plain)
    renamed = {"en": three["fr"], "de": three["de"]}  # the other language is now English, with the same neurons
    assert one(run(renamed), target="de", neurons="other")["of"].unique().tolist() == ["en"]
    write = replace(TASK, how="generate", metric="fidelity", max_new_tokens=3)
    for language in ("en", "de"):
        told = run(tasks=[write], score="accuracy", identify=as_identifier(lambda x, y=language: y, ["en", "de", "fr"]))
        assert set(told.dropna(subset=["score"]).groupby("language")["score"].max().pipe(lambda x: x[x > 0]).index) == {
            language
        }


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (TASK, {"score": "loss"}, "unknown score='loss': choose accuracy or nll"),
        (TASK.only(["de", "fr"]), {}, "task 'facts' needs items in 'en' and one of de, fr: it has de, fr"),
        (TASK.only(["en"]), {}, "task 'facts' needs items in 'en' and one of de, fr: it has en"),
    ],
)
def test_tasks_that_make_no_table_are_refused_before_anything_is_computed(three, task, options, message):
    with pytest.raises(ValueError, match=message):
        ability_scores(None, [task], three, THREE, **options)


# --- tables


def made(gains, *, metric="logp", items=4, noise=0.0, seed=0):
    """Scores with planted changes: gains maps (target, row, neurons, draw) to (change of English, change of the target)."""
    rng = np.random.default_rng(seed)
    base = {(x, i): rng.uniform(0.2, 0.8) for x in ("en", "de", "fr") for i in map(str, range(items))}
    rows = [("", "", "none", -1, x, i, v) for (x, i), v in base.items()]
    for (target, row, neurons, draw), changes in gains.items():
        for language, change in zip(("en", target), changes, strict=True):
            rows += [
                (target, row, neurons, draw, language, i, base[language, i] + change + noise * rng.normal())
                for i in map(str, range(items))
            ]
    table = pd.DataFrame(rows, columns=["target", "row", "neurons", "draw", "language", "item", "score"])
    facts = {"task": "t", "ability": "knowledge", "metric": metric, "of": "", "count": 5, "tokens": 1}
    return table.assign(**facts).reindex(columns=list(SCORES))


def planted(draws=20, rows=("U", "G"), harm=0.5, **options):
    rng = np.random.default_rng(3)
    gains = {}
    for target in ("de", "fr"):
        for row in rows:
            gains[target, row, "specific", -1] = (-0.02, -harm if row == "U" else -0.02)
            for draw in range(draws):
                gains[target, row, "random", draw] = tuple(rng.normal(-0.02, 0.01, 2))
    return made(gains, **options)


def test_the_columns_are_the_papers():
    """English -0.1 and -0.3 with the neurons of de and fr off; de -0.4, fr -0.8: dEng -0.2, dn-Eng -0.6, Delta +0.4."""
    scores = made({("de", "U", "specific", -1): (-0.1, -0.4), ("fr", "U", "specific", -1): (-0.3, -0.8)})
    changes = ability_changes(scores)
    assert list(changes.columns) == list(CHANGES)
    np.testing.assert_allclose(changes[["d_eng", "d_own", "delta"]], [[-0.1, -0.4, 0.3], [-0.3, -0.8, 0.5]], atol=1e-12)
    table = ability_grid(scores, resamples=50)
    assert list(table.columns) == list(GRID)
    row = table.iloc[0]
    np.testing.assert_allclose([row["d_eng"], row["d_non_eng"], row["delta"]], [-0.2, -0.6, 0.4], atol=1e-12)
    for side in ("eng", "non_eng"):
        assert row[side] - row[f"{side}_before"] == pytest.approx(row[f"d_{side}"])
    assert row[["p_delta", "z_delta", "fisher_delta"]].isna().all()  # no draws, no claim


def test_the_table_is_that_of_ability_delta_for_one_target(scores):
    table = ability_grid(scores[scores["target"].isin(["", "de"])], resamples=200, seed=4)
    none = one(scores, neurons="none")
    after = one(scores, target="de", row="U", neurons="specific").assign(condition="after")
    expected = ability_delta(
        after, none[none["language"] != "fr"].assign(condition="before"), resamples=200, seed=4
    ).iloc[0]
    mine = one(table, row="U", neurons="specific").iloc[0]
    for ours, theirs in (("d_eng", "d_english"), ("d_non_eng", "d_others"), ("delta", "delta")):
        for edge in ("", "_low", "_high"):
            assert mine[ours + edge] == pytest.approx(expected[theirs + edge], abs=1e-9)


def test_every_difference_is_against_one_baseline(scores):
    table = ability_grid(scores, resamples=20)
    whole = table[table["targets"] == 2]
    assert whole["eng_before"].nunique() == 1
    assert whole["non_eng_before"].nunique() == 1


def test_planted_harm_is_found_and_absent_harm_is_not():
    table = ability_grid(planted(noise=0.01), resamples=200).set_index(["row", "neurons"])
    harmed, spared = table.loc["U", "specific"], table.loc["G", "specific"]
    assert harmed["p_delta"] == pytest.approx(1 / 21)
    assert harmed["holm_delta"] == pytest.approx(2 / 21)  # 20 draws and two rows: not below 0.05, as the module says
    assert harmed["fisher_delta"] == pytest.approx(combine_pvalues([1 / 21] * 2).pvalue)
    assert harmed["fisher_holm_delta"] < 0.05
    assert harmed["delta_low"] > 0.3
    assert harmed["z_delta"] > 5
    assert harmed["z_non_eng"] < -5
    assert spared["p_delta"] > 0.1
    assert spared["fisher_holm_delta"] > 0.1
    assert abs(spared["z_delta"]) < 3
    drawn = table.loc["U", "random"]
    assert drawn["delta_low"] <= drawn["delta"] <= drawn["delta_high"]
    assert drawn[["p_delta", "h_eng"]].isna().all()


def test_a_naive_loop_gives_the_same_p_values():
    scores = planted(draws=7, noise=0.02, rows=("U", "G", "S"))
    table = ability_grid(scores, resamples=10).set_index(["row", "neurons"])
    base = scores[scores["neurons"] == "none"].set_index(["language", "item"])["score"]

    def changed(target, row, kind, draw):
        mine = one(scores, target=target, row=row, neurons=kind, draw=draw)
        gap = {
            language: np.mean(
                [r.score - base[language, r.item] for r in mine[mine["language"] == language].itertuples()]
            )
            for language in ("en", target)
        }
        return gap["en"] - gap[target]

    for row in ("U", "G", "S"):
        own = np.mean([changed(t, row, "specific", -1) for t in ("de", "fr")])
        draws = [np.mean([changed(t, row, "random", d) for t in ("de", "fr")]) for d in range(7)]
        assert table.loc[(row, "specific"), "p_delta"] == pytest.approx(p_value(own, draws))
        assert table.loc[(row, "specific"), "z_delta"] == pytest.approx((own - np.mean(draws)) / np.std(draws, ddof=1))
    p = table.xs("specific", level="neurons")["p_delta"]
    np.testing.assert_allclose(table.xs("specific", level="neurons")["holm_delta"], holm(p.to_numpy()))


def test_effect_sizes_are_of_proportions_only():
    gains = {("de", "U", "specific", -1): (0.0, -0.2)}
    assert ability_grid(made(gains), resamples=10)[["h_eng", "h_non_eng"]].isna().all(axis=None)
    row = ability_grid(made(gains, metric="accuracy"), resamples=10).iloc[0]
    assert row["h_eng"] == pytest.approx(0, abs=1e-12)
    assert row["h_non_eng"] == pytest.approx(cohen_h(row["non_eng"], row["non_eng_before"]))
    assert row["h_non_eng"] < 0
    assert cohen_h(1.0, 0.0) == pytest.approx(np.pi)
    assert cohen_h(0.75, 0.25) == pytest.approx(np.pi / 3)  # asin(sqrt(3)/2) = 60 degrees, asin(1/2) = 30


def test_scores_that_make_no_table_are_refused():
    scores = made({("de", "U", "specific", -1): (0.0, -0.2)})
    with pytest.raises(ValueError, match="the scores lack 'count'"):
        ability_changes(scores.drop(columns="count"))
    for part in (scores[scores["neurons"] == "none"], scores[scores["neurons"] != "none"]):
        with pytest.raises(ValueError, match=r"changes need the baseline .* and a condition"):
            ability_changes(part)
    lost = (scores["neurons"] == "none") & (scores["language"] == "de") & (scores["item"] == "2")
    with pytest.raises(ValueError, match="the baseline has no score of item '2' of 't' in 'de'"):
        ability_grid(scores[~lost])
    dropped = (scores["neurons"] == "specific") & (scores["language"] == "de") & (scores["item"] == "2")
    for whole in (dropped, (scores["neurons"] == "specific") & (scores["language"] == "en")):
        with pytest.raises(ValueError, match=r"a condition has no score of item '\d' of 't' in '..': target de, row U"):
            ability_grid(scores[~whole])


# --- corrections


def test_holm_by_hand():
    """Sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, made to rise: .02 .03 .06 .06."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.2]), [0.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_lies_between_p_and_bonferroni(p):
    p, adjusted = np.array(p), holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
    order = p.argsort(kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    rejected = adjusted <= 0.05  # the step-down rule itself
    naive = np.zeros(len(p), bool)
    for step, at in enumerate(order):
        if p[at] * (len(p) - step) > 0.05:
            break
        naive[at] = True
    assert (rejected == naive).all()


def test_rows_are_a_family_within_their_task():
    scores = planted(rows=("U", "G"))
    both = pd.concat([scores, scores.assign(task="other")], ignore_index=True)
    alone, together = ability_grid(scores, resamples=5), ability_grid(both, resamples=5)
    names = ["holm_delta", "bh_delta", "fisher_holm_non_eng"]
    pd.testing.assert_frame_equal(alone[names], together[together["task"] == "t"][names])


def test_the_default_rows_hold_those_of_the_paper():
    assert {"U", "SA", "SF", "SA+SF", "G", "U+G", "U+SF+G", "U+SA+SF+G"} <= set(ROWS)
