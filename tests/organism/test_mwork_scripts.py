"""The scripts of the MWork tables on small tables made by hand: what they sum up, what they claim, and what they refuse."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from mwork_scripts import Bench, script
from scipy.stats import combine_pvalues
from test_abilities import made

import mwork_lens as mw
from mwork_lens.abilities import EVERYWHERE
from mwork_lens.ability_tables import ability_changes, ability_grid
from mwork_lens.tasks.task import Item, Task

common = script("common")
SPLIT = mw.Stages.of(4, understanding=1, generation=1)


def neurons(*places, width=6):
    """A set from (site, layer, unit) in a model of four layers with the sites q and ffn."""
    masks = {site: torch.zeros(4, width, dtype=torch.bool) for site in ("q", "ffn")}
    for site, layer, unit in places:
        masks[site][layer, unit] = True
    return mw.NeuronSet(masks)


def task(name, ability="knowledge", languages=("en", "de", "fr"), **how):
    items = tuple(Item("i", x, "Which one?", ("a",), ("a", "b")) for x in languages)
    return Task(name, ability, items, **{"how": "choose", **how})


# --- what the scripts share


def test_numbers_are_written_with_a_sign_and_a_minus():
    assert [common.signed(x, 2) for x in (1, -0.5, 0, math.nan)] == ["+1.00", "−0.50", "+0.00", "–"]
    assert common.signed(0.123, 1, 100) == "+12.3"
    row = {"d": 0.5, "d_low": -0.25, "d_high": 1.0, "e": math.nan}
    assert common.interval(row, "d", 2) == "+0.50 [−0.25, +1.00]"
    assert common.interval(row, "d", 0, 100) == "+50 [−25, +100]"
    assert common.interval(row, "e") == "–"
    assert common.markdown(["a", "b"], [[1, "x"], ["–", 2.5]]) == "| a | b |\n|---|---|\n| 1 | x |\n| – | 2.5 |"
    assert common.facts(pd.DataFrame({"x": [0.123456, np.nan]})) == [{"x": 0.1235}, {"x": None}]


def test_grids_put_together_are_one_family_a_task():
    """Non-English .01 .02: Holm .02 .02, BH .02 .02. Delta .04 .03: Holm .06 .06, BH .04 .04. Alone, each p is its own."""

    def grid(name, non_eng, delta):
        p = {"p_non_eng": non_eng, "p_delta": delta, "fisher_non_eng": non_eng / 2, "fisher_delta": delta / 2}
        return pd.DataFrame([{"task": name, "neurons": "specific", **p}, {"task": name, "neurons": "random"}])

    table = common.corrected([grid("t", 0.01, 0.04), grid("t", 0.02, 0.03), grid("u", 0.01, 0.04)])
    mine = table[table["neurons"] == "specific"]
    wanted = {
        "holm_non_eng": [0.02, 0.02, 0.01], "bh_non_eng": [0.02, 0.02, 0.01], "fisher_holm_non_eng": [0.01, 0.01, 0.005],
        "holm_delta": [0.06, 0.06, 0.04], "bh_delta": [0.04, 0.04, 0.04], "fisher_holm_delta": [0.03, 0.03, 0.02],
    }  # fmt: skip
    for name, values in wanted.items():
        np.testing.assert_allclose(mine[name], values, err_msg=name)
    assert table.loc[table["neurons"] == "random", list(wanted)].isna().all(axis=None)


def test_the_tasks_that_are_needed():
    tasks = [task("organism-understanding", "understanding"), task("organism-cloze"), task("organism-knowledge")]

    def names(*abilities, ask=None, of=tasks):
        return [one.name for one in common.need(Bench(tasks=of, arguments={"ask": ask}), *abilities)]

    assert names() == ["organism-understanding", "organism-knowledge"]  # one an ability: the cloze is not asked
    assert names(ask=["cloze"]) == ["organism-cloze"]
    assert names("knowledge", ask=["cloze", "organism-understanding"]) == ["organism-cloze"]
    assert names(of=[task("capitals"), task("rivers")]) == ["capitals", "rivers"]  # none is named like an ability
    assert names(of=[task("reasoning"), task("knowledge")]) == ["knowledge"]  # a name that the ability belies
    for wrong, message in (
        (lambda: names(ask=["loze"]), r"no task 'loze' \(--ask\): there are organism-understanding, organism-cloze"),
        (lambda: names("generation"), "no task of generation: there are organism-understanding"),
        (lambda: names(of=[]), "there are none"),
    ):
        with pytest.raises(SystemExit, match=message):
            wrong()


class Known(common.Bench):
    key = "model and texts"


def test_a_table_is_made_once_a_version(tmp_path, monkeypatch):
    made_of = []

    def make():
        made_of.append(1)
        return pd.DataFrame({"x": [len(made_of)]})

    bench = Known("b", SimpleNamespace(out=tmp_path), None, {}, {})
    assert [bench.table("t", [1], make)["x"].item() for _ in range(2)] == [1, 1]
    assert bench.table("t", [2], make)["x"].item() == 2
    with monkeypatch.context() as patched:
        patched.setattr(common, "VERSION", 999)
        assert bench.table("t", [1], make)["x"].item() == 3
    assert bench.table("t", [1], make)["x"].item() == 1


SCRIPTS = {name: script(name) for name in ("figure1_layers", "stages_sweep", "tables4to7_abilities", "corpus_size")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--draws 0", "--draws 0: give at least 1"),
        ("--set-draws 0", "--set-draws 0: give at least 1"),
        ("--accuracy-draws 0", "--accuracy-draws 0: give at least 1"),
        ("--items 0", "--items 0: give at least 1"),
        ("--limit -1", "--limit -1: give at least 1"),
        ("--size 0", "--size 0: give at least 1"),
        ("--length 1", "--length 1: give at least 2, or leave it out"),
        ("--top 0", r"--top 0\.0: give a share above 0 and at most 1"),
        ("--top 1.5", r"--top 1\.5: give a share above 0 and at most 1"),
        ("--consensus 0", r"--consensus 0\.0: give a share above 0 and at most 1"),
        ("--consensus nan", "--consensus nan: give a share above 0 and at most 1"),
        ("--minus other", "--minus other: choose from common, english, others, none"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(words, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["script", *words.split()])
    monkeypatch.setattr(common.mw, "load_model", lambda *a: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit, match=message):
        common.begin("t", None, SCRIPTS["tables4to7_abilities"].more)


def test_settings_that_can_be_load_the_model_and_stages_must_split_it(monkeypatch):
    class Loaded(Exception):
        pass

    def tasks(folder):
        raise Loaded

    monkeypatch.setattr(common.mw, "load_model", lambda *a: SimpleNamespace(cfg=SimpleNamespace(n_layers=4)))
    monkeypatch.setattr(common, "_tasks", tasks)
    for words in ("", "--draws 1 --top 1 --consensus 1 --minus none", "--stages 1 2", "--stages 2 1"):
        monkeypatch.setattr("sys.argv", ["script", *words.split()])
        with pytest.raises(Loaded):
            common.begin("t", None)
    for words in ("2 2", "0 1", "1 0", "9 1"):
        monkeypatch.setattr("sys.argv", ["script", "--stages", *words.split()])
        with pytest.raises(SystemExit, match=rf"--stages {words}: .* do not split 4 layers: each stage needs"):
            common.begin("t", None)


# --- figure 1


def masses(*documents, positions=1.0):
    """One curve a document, of English tokens in German texts."""
    rows = [
        ("texts", "de", "en", at, layer, mass, positions)
        for at, curve in enumerate(documents)
        for layer, mass in enumerate(curve)
    ]
    return pd.DataFrame(
        rows, columns=["source", "text_language", "token_language", "document", "layer", "mass", "positions"]
    )


def test_the_rise_is_of_documents_that_did_not_choose_the_layer():
    """Layer 1 is chosen on documents 0 and 2; on the others it lies 0.1 below the larger end, while layer 2 would rise by 0.3."""
    figure1 = SCRIPTS["figure1_layers"]
    chosen, held_out = [0, 0.9, 0.1, 0], [0.1, 0.2, 0.6, 0.3]
    found = figure1.held_out_rise(masses(chosen, held_out, chosen, held_out), 0)
    assert (found["rise_layer"], found["rise_documents"]) == (1, 2)
    np.testing.assert_allclose([found["rise"], found["rise_low"], found["rise_high"]], -0.1)
    found = figure1.held_out_rise(masses(held_out, held_out, held_out, held_out), 0)
    assert (found["rise_layer"], round(found["rise_low"], 9)) == (2, 0.3)
    table = masses([0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 3, 1])
    table["positions"] = table["document"].map({0: 1, 1: 1, 2: 1, 3: 4})
    assert figure1.held_out_rise(table, 0)["rise"] == pytest.approx((1 + 3) / 5 - 1 / 5)  # sums over sums
    alone = figure1.held_out_rise(masses([0, 1, 0]), 0)
    assert alone["rise"] == 1
    assert math.isnan(alone["rise_low"])


def test_pivots_are_ranked_among_the_other_languages():
    figure1 = SCRIPTS["figure1_layers"]
    parts = [masses(*[curve] * 4).assign(token_language=name) for name, curve in
             {"de": [1, 0, 1], "en": [0.1, 0.4, 0.2], "fr": [0, 0.5, 0.1], "shared": [0, 0.9, 0]}.items()]  # fmt: skip
    each = pd.concat(parts)
    table = figure1.curves(each, 0)
    np.testing.assert_allclose(table["mass"], [1, 0, 1, 0.1, 0.4, 0.2, 0, 0.5, 0.1, 0, 0.9, 0])
    assert set(table["documents"]) == {4}
    found = figure1.pivots(table, each, 0).set_index("pivot")
    assert list(found.index) == ["en", "fr"]  # neither the text's own language nor what languages share
    np.testing.assert_allclose(found["rise"], [0.2, 0.4])
    np.testing.assert_allclose(found["ends"], [0.2, 0.1])
    assert found["rank"].tolist() == [2, 1]
    assert figure1.verdict(found.loc["en"]) == "no: another language rises more"
    assert figure1.verdict(found.loc["fr"]) == "yes"
    assert figure1.verdict(pd.Series({"rise_low": -0.1, "rank": 1})) == "no"
    assert figure1.verdict(pd.Series({"rise_low": math.nan, "rank": 1})) == "–"


# --- figure 3, overlap


def test_shares_are_means_over_languages_that_have_neurons():
    sets = {"en": neurons(("ffn", 1, 0)), "de": neurons(("q", 0, 0), ("ffn", 3, 1)), "fr": neurons()}
    found = script("figure3_neurons").shares(sets, SPLIT)
    assert found == {"UA": 0.25, "UF": 0, "SA": 0, "SF": 0.5, "GA": 0, "GF": 0.25}


def test_a_share_beside_random_ones():
    """Above all four draws: one-sided 1/5, two-sided 2/5; in their middle, 1. A tie is no excess."""
    against = script("figure3_neurons").against
    drawn = pd.Series([0.1, 0.2, 0.3, 0.4])
    above, middle = against("UA", "stage", 0.5, drawn), against("UA", "stage", 0.25, drawn)
    assert (above["p"], middle["p"]) == (pytest.approx(0.4), 1)
    assert against("UA", "stage", 0.0, drawn)["p"] == pytest.approx(0.4)
    assert against("UA", "stage", 0.4, drawn)["p"] == pytest.approx(0.8)
    assert above["z"] == pytest.approx(0.25 / np.std([0.1, 0.2, 0.3, 0.4], ddof=1))
    assert math.isnan(against("UA", "stage", 0.5, pd.Series([0.1, 0.1]))["z"])


def test_the_share_of_attention_is_set_beside_draws_from_all_units():
    counts = pd.DataFrame({
        "language": ["en"] * 2 + ["de"] * 2, "site": ["q", "ffn"] * 2, "count": [3, 1, 2, 2], "width": [10, 30] * 2,
    })  # fmt: skip
    share, drawn = script("figure3_neurons").attention(counts, 400, 0)
    assert share == (0.75 + 0.5) / 2
    assert len(drawn) == 400
    assert drawn.mean() == pytest.approx(0.25, abs=0.02)  # 10 of 40 units


def test_pairs_overlap_if_they_do_so_more_than_random_sets(monkeypatch):
    same = [("q", 0, 0), ("ffn", 1, 2), ("ffn", 2, 5), ("ffn", 3, 1)]
    sets = {"en": neurons(*same), "de": neurons(*same), "zh": neurons(*[(s, x, (u + 1) % 6) for s, x, u in same])}
    bench = Bench(consistent=sets)
    monkeypatch.setattr(script("overlap"), "figure", lambda table: None)  # its heatmaps have tests of their own
    script("overlap").run(bench)
    lines = {line[0]: line for line in bench.lines}
    assert list(lines) == ["en, de", "en, zh", "de, zh"]
    assert lines["en, de"][1:4] == ["overlap", "4", "1.000"]
    assert lines["en, de"][6] == "0.010 (0.030, BH 0.030)"  # (0 + 1) / (99 + 1), over three pairs
    assert [lines[pair][-1] for pair in lines] == ["yes", "no", "–"]
    assert bench.findings == ["Mean Jaccard with English 0.500, among the others 0.000."]


# --- tables


def scored(change, english=-0.02, *, row=EVERYWHERE, targets=("de",), noise=0.0, draws=(-0.1, 0.0, 0.05)):
    """Scores in which the own neurons change the language by `change`, and three random sets by `draws`."""
    gains = {}
    for target in targets:
        gains[target, row, "specific", -1] = (english, change)
        gains |= {(target, row, "random", at): (value, value) for at, value in enumerate(draws)}
    return made(gains, noise=noise)


def test_table_2_says_what_each_language_loses_and_what_p_it_can_have():
    """Own: -0.5 is below all three draws, p 1/4, and two languages make it 1/2. English: -0.02 is not below -0.1, p 2/4, twice."""
    table2 = script("table2_all")
    scores = scored(-0.5, targets=("de", "fr")).assign(rouge_l=lambda t: t["score"])
    table = table2.table_of(scores, "rouge_l", 0).set_index(["off", "language"])
    for target in ("de", "fr"):
        own, english = table.loc[(target, target)], table.loc[(target, "en")]
        np.testing.assert_allclose([own["change"], own["change_low"], own["change_high"]], -0.5)
        assert (own["family"], own["p"], own["holm"]) == ("own", 0.25, 0.5)
        assert (english["family"], english["p"], english["holm"]) == ("English", 0.5, 1)
        assert own["before"] - own["specific"] == pytest.approx(0.5)
        assert own["z"] == pytest.approx((-0.5 + 0.05 / 3) / np.std([-0.1, 0, 0.05], ddof=1))
    assert table2.attainable(table) == [
        "English: the smallest attainable Holm p is 0.500 (2 rows, 3 draws)",
        "own: the smallest attainable Holm p is 0.500 (2 rows, 3 draws)",
    ]
    assert len(table2.figure(table.reset_index()).axes) == 1
    with pytest.raises(SystemExit, match="no fidelity of any language with its own neurons off"):
        table2.table_of(scores, "fidelity", 0)  # nan throughout


def test_what_the_paper_and_what_ours_claims():
    tables = SCRIPTS["tables4to7_abilities"]
    assert [tables.claim(x) for x in ([7.4, 6.5], [-14.9, -3.0], [0.7, -2.9], [4.8, -0.6])] == [
        "English spared", "English hurt more", "nothing", "mixed",
    ]  # fmt: skip
    drawn = pd.Series({"delta_low": -0.02, "delta_high": 0.02})

    def own(low, high, p, neurons="specific"):
        return tables.ours(
            pd.Series({"neurons": neurons, "delta": (low + high) / 2, "delta_low": low, "delta_high": high}), drawn, p
        )

    assert own(0.1, 0.3, 0.04) == "English spared"
    assert own(-0.3, -0.1, 0.04) == "English hurt more"
    for nothing in ((0.1, 0.3, 0.06), (0.1, 0.3, math.nan), (-0.1, 0.3, 0.01), (0.005, 0.015, 0.01)):
        assert own(*nothing) == "nothing"
    assert own(-0.02, 0.01, math.nan, "random") == "nothing"
    assert own(-0.02, 0.04, math.nan, "random") == "random sets move it by 4.0"


@pytest.mark.parametrize("sign", [1, -1])
def test_the_two_sided_p_is_the_same_in_both_directions(sign):
    """19 draws at 0: one tail 1/20, two-sided 1/10, and Holm over two rows 2/10; the row without effect has p 1."""
    both = [scored(-0.5 * sign, 0.0, row="U", draws=(0.0,) * 19), scored(0.0, 0.0, row="G", draws=(0.0,) * 19)]
    changes = ability_changes(pd.concat([both[0], both[1][both[1]["neurons"] != "none"]], ignore_index=True))
    p = SCRIPTS["tables4to7_abilities"].two_sided(changes)
    assert p["t", "U"] == pytest.approx(0.2)
    assert p["t", "G"] == 1
    twice = ability_changes(scored(-0.5 * sign, 0.0, row="U", targets=("de", "fr"), draws=(0.0,) * 19))
    assert SCRIPTS["tables4to7_abilities"].two_sided(twice)["t", "U"] == pytest.approx(
        2 * combine_pvalues([0.05, 0.05]).pvalue
    )


def test_what_guessing_gives():
    floor = SCRIPTS["tables4to7_abilities"].floor
    items = (Item("a", "en", "q", ("x",), ("x", "y")), Item("b", "en", "q", ("x",), ("x", "y", "z", "w")))
    assert floor(Task("t", "knowledge", items, "choose")) == 0.375
    assert floor(Task("t", "knowledge", items, "generate")) == 0


def test_rows_stand_beside_the_papers():
    tables = SCRIPTS["tables4to7_abilities"]
    own = {"row": "SF", "neurons": "specific", "d_eng": -0.01, "d_non_eng": -0.2, "delta": 0.19, "h_non_eng": -0.4}
    chance = {"row": "SF", "neurons": "random", "d_eng": 0.0, "d_non_eng": 0.0, "delta": 0.0, "h_non_eng": math.nan}
    rows = []
    for one in (own, chance):
        edges = {
            f"{name}_{end}": one[name] + at
            for name in ("d_eng", "d_non_eng", "delta")
            for end, at in (("low", -0.01), ("high", 0.01))
        }
        rows.append({"task": "t", "eng_before": 0.9, "non_eng_before": 0.8, **one, **edges})
    accuracy = pd.DataFrame(rows)
    nll = accuracy.assign(z_delta=[4.0, math.nan], two_sided_delta=[0.01, math.nan])
    line, random = tables.rows_of(task("t"), accuracy, nll)
    assert line == [
        "SF", "specific", "−0.3 / −2.0 / +1.7", "−0.1 / −2.4 / +2.3", "−1.0 [−2.0, +0.0]", "−20.0 [−21.0, −19.0]", "+19.0 [+18.0, +20.0]",
        "+4.0 / −0.40", "0.010", "no: English spared",  # the paper's Delta is below 3 points: nothing
    ]  # fmt: skip
    assert random[-3:] == ["– / –", "–", "yes"]
    level = accuracy.assign(non_eng_before=0.54)  # two choices: guessing is 0.5
    assert tables.rows_of(task("t"), level, nll)[0][-1] == "at the floor"


# --- sweeps


def test_neurons_not_shared_with_english_spare_it_or_do_not():
    """All off cost English 0.30 and the language 0.50. The unshared: English 0.02, itself 0.50; or both less by 0.28: only the size."""
    sets = {"en": neurons(("q", 0, 0)), "de": neurons(("q", 0, 0), ("ffn", 1, 1))}
    unshared = script("unshared")
    for english, change, verdict in ((-0.02, -0.5, "yes"), (-0.02, -0.22, "no"), (-0.3, -0.5, "no")):
        bench = Bench([scored(-0.5, -0.3), scored(change, english), scored(-0.02)], tasks=[task("t")], consistent=sets)
        unshared.run(bench)
        assert [line[1] for line in bench.lines] == ["all", "not shared", "shared"]
        assert [line[-1] for line in bench.lines] == ["–", verdict, "–"]
        for column, value, digits in ((4, english, 2), (5, change, 2), (-3, english + 0.3, 3), (-2, change + 0.5, 3)):
            assert bench.lines[1][column] == common.interval(
                dict.fromkeys(("d", "d_low", "d_high"), value), "d", digits
            )
        assert [bench.lines[at][-3] for at in (0, 2)] == ["–", "–"]
    p = bench.tables["grid"].query("neurons == 'specific'")
    np.testing.assert_allclose(p["p_delta"], [0.25, 0.25, 1])
    np.testing.assert_allclose(p["holm_delta"], [0.75, 0.75, 1])  # over the three sets, not each alone


def test_a_sweep_takes_every_stage_that_leaves_the_others_a_layer():
    understanding = task("understanding", "understanding")
    harms = (-0.1, -0.4, -0.1, -0.1)
    given = [scored(harm, row=row) for harm, row in zip(harms, ("U", "U", "G", "G"), strict=True)]
    bench = Bench(given, tasks=[understanding], own={"de": neurons()}, stages=SPLIT)
    SCRIPTS["stages_sweep"].run(bench)
    splits = [tuple(map(len, (o["stages"].understanding, o["stages"].generation))) for o in bench.asked]
    assert splits == [(1, 1), (2, 1), (1, 1), (1, 2)]
    assert [line[:2] for line in bench.lines] == [
        [f"{side} layers", str(n)] for side in ("first N1", "last N2") for n in (1, 2)
    ]
    assert bench.lines[1][5] == "−0.40 [−0.40, −0.40]"
    grid = bench.tables["grid"].query("neurons == 'specific'")
    np.testing.assert_allclose(grid["p_non_eng"], [0.5, 0.25, 0.5, 0.5])
    np.testing.assert_allclose(grid["holm_non_eng"], 1.0)  # four rows of three draws
    assert bench.findings == ["The lens gives N1 = 1, N2 = 1 of 4."]
    for wrong in ("en", "xx"):
        with pytest.raises(SystemExit, match=f"--sweep {wrong}: choose from de, fr"):
            SCRIPTS["stages_sweep"].run(Bench(tasks=[understanding], arguments={"sweep": wrong}))


def test_samples_grow_to_all_documents_and_are_the_first_ones():
    corpus_size = SCRIPTS["corpus_size"]
    texts = {
        "en": mw.Corpus("en", tuple("abcdefg"), tuple("1234567")),
        "de": mw.Corpus("de", tuple("abcde"), tuple("12345")),
    }

    def sizes(wanted, smoke=False):
        return corpus_size.sizes(Bench(detection=texts, arguments={"sizes": wanted, "smoke": smoke}))

    assert sizes([2, 4, 9]) == [2, 4, 5]
    assert sizes(None) == [5]  # 10 are not there
    assert sizes(None, smoke=True) == [2, 4, 5]
    assert corpus_size.piece(texts["en"], 1, 3).ids == ("2", "3")
    with pytest.raises(SystemExit, match="--sizes 0: give at least 1"):
        sizes([0, 2])


def test_the_page_of_sizes_has_means_of_the_languages_and_every_grid():
    sets = pd.DataFrame({
        "documents": [2, 2, 2], "language": ["en", "de", "fr"], "consistent": [90, 10, 20], "specific": [9, 4, 6],
        "coverage": [1.0, 0.5, 0.7], "jaccard": [1.0, 0.2, 0.4],
    })  # fmt: skip
    grid = common.corrected([ability_grid(scored(-0.5), resamples=20).assign(documents=2)])
    bench = Bench()
    SCRIPTS["corpus_size"].report(bench, sets, grid)
    (line,) = bench.lines
    assert line[:7] == ["t", "2", "–", "15", "5", "60%", "0.30"]  # English is no target
    assert line[7:9] == ["−0.50 [−0.50, −0.50]", "+0.48 [+0.48, +0.48]"]
    assert line[-1] == "0.250 (0.250)"
