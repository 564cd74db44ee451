"""A whole study on a tiny model: what it writes, that it resumes to the same bits, and that it finds nothing where there is nothing."""

import json
import random
import sys
from dataclasses import replace

import families
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import pair
from transformers import LlamaConfig

from mwork_lens.corpora import Corpus, load_corpora
from mwork_lens.corpora import pad as as_batch
from mwork_lens.detect.chance import matched_random, p_value
from mwork_lens.detect.plnd import importances, plnd, specific
from mwork_lens.evaluate import difference, evaluate
from mwork_lens.findings import findings
from mwork_lens.grid import ALL_STAGES, CONDITION, GRID, STRUCTURES, Settings, cells, changes, summarise
from mwork_lens.interventions import deactivate
from mwork_lens.measure import measure
from mwork_lens.models import fingerprint, load_model
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import shape_of
from mwork_lens.stages import Stages
from mwork_lens.stats import Importances, shares
from mwork_lens.storage import load, load_run
from mwork_lens.study import load_study, study

TABLES = ("lens", "counts", "overlap", "scores", "grid", "summary")
DRAWS = 10
SETTINGS = Settings(draws=DRAWS, top=0.2, consensus=0.5, k=5, size=8)
SMALL = replace(SETTINGS, sites=("ffn",))
SPLIT = Stages.of(4, understanding=1, generation=1)


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(
        vocab_size=families.VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=families.CONTEXT, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return load_model(families.hf_model("llama", config=config), tokenizer=families.tokenizer())


def random_words(language, seed, *, n=8, words=range(90)):
    rng = random.Random(seed)
    texts = tuple(" ".join(f"w{rng.choice(words)}" for _ in range(rng.randrange(3, 9))) for _ in range(n))
    return Corpus(language, texts, tuple(f"d{i}" for i in range(n)))


@pytest.fixture(scope="module")
def texts():
    """Three languages with words of their own; documents are parallel by name."""
    ranges = {"en": range(0, 30), "de": range(30, 60), "fr": range(60, 90)}
    return {language: random_words(language, i, words=words) for i, (language, words) in enumerate(ranges.items())}


def run(model, texts, **options):
    return study(
        model,
        texts,
        options.pop("stages", SPLIT),
        settings=options.pop("settings", SETTINGS),
        progress=False,
        **options,
    )


def without_page(monkeypatch):
    """Leave the report out: it takes as long as the rest."""
    monkeypatch.setattr(sys.modules["mwork_lens.study"], "write_report", lambda result, path: path)


@pytest.fixture(scope="module")
def done(model, texts, tmp_path_factory):
    return run(model, texts, out=tmp_path_factory.mktemp("study") / "run")


def same(a, b):
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name), check_exact=True)
    for name in ("consistent", "specific"):
        mine, yours = getattr(a, name), getattr(b, name)
        assert list(mine) == list(yours)
        assert all(mine[x] == yours[x] and mine[x].model == yours[x].model for x in mine)
    assert a.stages == b.stages
    assert a.findings == b.findings


# --- what a study holds


def test_the_folder_holds_everything_with_provenance(done, model, texts):
    names = {path.name for path in done.folder.iterdir()}
    wanted = {f"{name}.parquet" for name in TABLES} | {
        f"{name}.safetensors" for name in ("consistent", "specific", "stages")
    }
    assert wanted | {"run.json", "report.html"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    facts = json.loads((done.folder / "run.json").read_text(encoding="utf-8"))
    assert facts["method"] == "study"
    assert facts["model"]["fingerprint"] == fingerprint(model)
    assert facts["parameters"] == {
        "measure": "output", "top": 0.2, "consensus": 0.5, "minus": "others", "sites": ["q", "k", "v", "z", "ffn"], "draws": DRAWS,
        "k": 5, "seed": 0, "held_out": 1 / 3, "length": None, "size": 8, "stages": [1, 2, 1],
    }  # fmt: skip
    assert {language: facts["corpora"][language]["hash"] for language in texts} == {
        x: c.fingerprint for x, c in texts.items()
    }
    assert facts["stages"] == {"understanding": 1, "task_solving": 2, "generation": 1}
    assert tuple(facts["findings"]) == done.findings
    assert facts["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    for name in wanted:
        assert load_run(done.folder / name)["model"]["fingerprint"] == fingerprint(model), name
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "Language-specific neurons" in page


def test_a_study_is_read_back(done):
    again = load_study(done.folder)
    same(again, done)
    assert again.run.parameters["draws"] == DRAWS
    assert again.failures == {}
    assert load(done.folder / "specific.safetensors")["de"] == done.specific["de"]


def test_the_grid_has_every_cell(done):
    assert list(done.grid.columns) == list(GRID)
    expected = {
        (language, stage, structure, *kind)
        for language in ("de", "fr")
        for stage in ALL_STAGES
        for structure in STRUCTURES
        for kind in [("own", -1), ("other", -1), *(("random", i) for i in range(DRAWS))]
    }
    found = list(done.grid[["language", "stage", "structure", "neurons", "draw"]].itertuples(index=False, name=None))
    assert set(found) == expected
    assert len(found) == len(expected)
    of = done.grid.groupby(["language", "neurons"])["of"].unique()
    assert {place: list(value) for place, value in of.items()} == {
        ("de", "own"): ["de"], ("de", "other"): ["fr"], ("de", "random"): [""],
        ("fr", "own"): ["fr"], ("fr", "other"): ["de"], ("fr", "random"): [""],
    }  # fmt: skip
    assert len(done.summary) == 4 * 3 * 3


def test_counts_are_those_of_the_sets_and_controls_match_them(done):
    for language in ("de", "fr"):
        for stage, structure, part in cells(done.specific[language], SPLIT):
            at = done.grid[
                (done.grid["language"] == language)
                & (done.grid["stage"] == stage)
                & (done.grid["structure"] == structure)
            ]
            assert at[at["neurons"] == "own"]["count"].tolist() == [len(part)]
            assert at[at["neurons"] == "random"]["count"].tolist() == [len(part)] * DRAWS
    assert done.grid["count"].max() > 0


def test_cells_cut_a_set_by_stage_and_structure():
    full = ~NeuronSet.empty({"q": (4, 3), "k": (4, 2), "ffn": (4, 5)})
    found = {(stage, structure): set(part) for stage, structure, part in cells(full, SPLIT)}
    for (stage, structure), part in found.items():
        layers = {"understanding": {0}, "task_solving": {1, 2}, "generation": {3}, "all": {0, 1, 2, 3}}[stage]
        sites = {"attention": {"q", "k"}, "ffn": {"ffn"}, "both": {"q", "k", "ffn"}}[structure]
        assert part == {neuron for neuron in full if neuron.layer in layers and neuron.site in sites}


def test_empty_cells_are_nan_and_only_those(model, texts):
    found = run(model, {"en": texts["en"], "de": texts["de"]}, settings=replace(SMALL, top=0.1, consensus=1.0))
    grid = found.grid
    empty = grid["count"] == 0
    assert empty.any()
    assert (grid["structure"] == "attention")[empty].any()
    values = grid[[f"{name}{edge}" for name in ("english", "own", "delta") for edge in ("", "_low", "_high")]]
    assert values[empty].isna().all(axis=None)
    assert values[~empty].notna().all(axis=None)
    assert found.scores[found.scores["count"] == 0]["gain"].isna().all()


def test_grid_rows_are_evaluations_under_the_edit(done, model, texts):
    """The same numbers by another way: `evaluate` and `difference`, whose sign is the opposite."""
    test = {language: corpus.split(1 / 3)[1] for language, corpus in texts.items()}
    row = done.grid[
        (done.grid["language"] == "de") & (done.grid["neurons"] == "own") & (done.grid["structure"] == "both")
    ]
    row = row[row["stage"] == "all"].iloc[0]
    before = evaluate(model, test, size=1)
    with deactivate(model, done.specific["de"]):
        after = evaluate(model, test, size=1)
    harm = difference(after, before).set_index("language")
    assert row["own"] == pytest.approx(-harm.loc["de", "change"], rel=1e-3)
    assert row["english"] == pytest.approx(-harm.loc["en", "change"], rel=1e-3)
    assert row["delta"] == pytest.approx(row["english"] - row["own"])
    assert (row["own_low"], row["own_high"]) == pytest.approx(
        (-harm.loc["de", "high"], -harm.loc["de", "low"]), rel=1e-3
    )


def test_the_summary_is_the_mean_over_languages(done):
    grid = done.grid.groupby(["stage", "structure", "neurons"])
    for row in done.summary.itertuples():
        part = grid.get_group((row.stage, row.structure, row.neurons))
        present = part[part["count"] > 0]
        if not len(present):
            assert np.isnan(row.delta)
            continue
        draws = present.groupby("draw")[["english", "own", "delta"]].mean()
        assert (row.eng, row.non_eng, row.delta) == pytest.approx(tuple(draws.mean()))
        if row.neurons == "random":
            assert (row.delta_low, row.delta_high) == pytest.approx((draws["delta"].min(), draws["delta"].max()))
            assert np.isnan(row.p_delta)
        else:
            assert row.delta_low <= row.delta <= row.delta_high
            chance = grid.get_group((row.stage, row.structure, "random")).groupby("draw")[["own", "delta"]].mean()
            assert row.draws == DRAWS
            if row.neurons == "other":  # the draws match the own sets, not these
                assert np.isnan(row.p_delta)
                assert np.isnan(row.p_non_eng)
                continue
            assert row.p_delta == (1 + (chance["delta"] >= row.delta).sum()) / (1 + DRAWS)
            assert row.p_non_eng == (1 + (chance["own"] <= row.non_eng).sum()) / (1 + DRAWS)


def test_stages_come_from_the_lens_if_asked_and_two_languages_are_enough(model, texts):
    found = run(model, {"en": texts["en"], "fr": texts["fr"]}, stages="lens", settings=SMALL)
    assert found.stages == Stages.from_lens(found.lens)
    assert found.folder is None
    assert set(found.lens["documents"]) == {2}  # held out: the detection did not see them
    assert found.run.parameters["stages"] == "lens"
    assert set(found.grid[found.grid["neurons"] == "other"]["of"]) == {"en"}
    assert set(found.grid["language"]) == {"fr"}


# --- bootstrap and summary on made-up scores


def made_up(gains):
    """Scores with one cell: {(language, neurons, draw): (gains of English, gains of the language)} of parallel documents, 10 tokens each."""
    rows = []
    for (language, neurons, draw), sides in gains.items():
        for scored, values in zip(("en", language), sides, strict=True):
            rows += [
                (language, "all", "both", neurons, "", draw, 3, scored, f"d{i}", 10, gain)
                for i, gain in enumerate(values)
            ]
    return pd.DataFrame(rows, columns=[*CONDITION, "scored", "document", "tokens", "gain"])


def test_parallel_documents_are_resampled_together():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 5, 30)
    scores = made_up({("de", "own", -1): (common - 1, common - 3)})
    row = changes(scores).iloc[0]
    assert row["delta"] == pytest.approx(0.2)
    assert row["delta_high"] - row["delta_low"] < 1e-9  # paired: what the two share cancels
    assert row["own_high"] - row["own_low"] > 0.1
    unpaired = scores.assign(document=scores["scored"] + scores["document"])
    row = changes(unpaired).iloc[0]
    assert row["delta"] == pytest.approx(0.2)
    assert row["delta_high"] - row["delta_low"] > 0.1


def test_the_sign_of_harm_is_that_of_the_paper():
    rng = np.random.default_rng(1)
    draws = {
        (x, "random", i): (rng.normal(0, 0.1, 20), rng.normal(0, 0.1, 20)) for i in range(10) for x in ("de", "fr")
    }
    harm = {(x, "own", -1): (np.full(20, -1.0), np.full(20, -8.0)) for x in ("de", "fr")}
    none = {(x, "other", -1): (rng.normal(0, 0.1, 20), rng.normal(0, 0.1, 20)) for x in ("de", "fr")}
    summary = summarise(made_up({**harm, **none, **draws})).set_index("neurons")
    own = summary.loc["own"]
    assert (own["eng"], own["non_eng"], own["delta"]) == pytest.approx((-0.1, -0.8, 0.7))
    assert own["p_delta"] == own["p_non_eng"] == pytest.approx(1 / 11)
    assert np.isnan(summary.loc["other", "p_delta"])
    nothing = {(x, "own", draw): sides for (x, _, draw), sides in none.items()}
    other = {(x, "other", draw): sides for (x, _, draw), sides in none.items()}
    assert summarise(made_up({**nothing, **other, **draws})).set_index("neurons").loc["own", "p_delta"] > 0.1


def test_a_language_without_neurons_enters_no_mean_and_no_verdict():
    from mwork_lens.findings import _whole

    rng = np.random.default_rng(2)
    some = {("de", "random", i): (rng.normal(0, 0.1, 20), rng.normal(0, 0.1, 20)) for i in range(10)}
    some |= {("de", "own", -1): (np.zeros(20), np.full(20, -5.0)), ("de", "other", -1): (np.zeros(20), np.zeros(20))}
    empty = {("fr", kind, draw): (np.full(20, np.nan),) * 2 for _, kind, draw in some}
    scores = made_up({**some, **empty})
    scores.loc[scores["language"] == "fr", "count"] = 0
    summary = summarise(scores)
    assert (summary["count"] == 3).all()
    said = " ".join(_whole(changes(scores), summary))
    assert "more harm than any of 10" in said
    assert "fr" not in said


def test_conditions_that_break_the_logits_are_counted():
    from mwork_lens.findings import without_score

    values = {("de", "random", i): (np.zeros(5), np.zeros(5)) for i in range(10)}
    values |= {("de", "own", -1): (np.full(5, -1.0), np.full(5, -2.0)), ("de", "other", -1): (np.full(5, np.nan),) * 2}
    scores = made_up(values)
    assert "1 condition(s) gave non-finite logits" in " ".join(without_score(changes(scores)))


@pytest.mark.parametrize(
    ("own", "english", "word"),
    [
        ([0.5, 0.1, 0.1, 0.6, 0.6], [0.05, 0.3, 0.3, 0.2, 0.35],
         "more probable than the text's own language at layer 1 (30% [28%, 32%] against 10% [8.0%, 12%])"),
        ([0.5, 0.3, 0.3, 0.6, 0.6], [0.9, 0.1, 0.1, 0.2, 0.9], "No English pivot"),
        ([0.5, 0.3, 0.3, 0.6, 0.6], [0.05, 0.1, 0.29, 0.2, 0.35], "overlap at layer 2 (29% [27%, 31%] against 30% [28%, 32%])"),
    ],
)  # fmt: skip
def test_the_pivot_is_looked_for_at_every_inner_layer(own, english, word):
    from mwork_lens.findings import _lens

    rows = [
        ("de", token, layer, mass[layer], mass[layer] - 0.02, mass[layer] + 0.02)
        for token, mass in (("de", own), ("en", english), ("shared", [0.1] * 5))
        for layer in range(5)
    ]
    table = pd.DataFrame(rows, columns=["text_language", "token_language", "layer", "mass", "mass_low", "mass_high"])
    said = " ".join(_lens(table, Stages.of(4, understanding=1, generation=1)))
    assert word in said
    single = (
        "ahead of the text's own language in: de (layers 1, 2); without overlap of the intervals in de (layers 1, 2)."
    )
    assert (single in said) == ("at layer 1" in word)


def test_what_must_fail_fails_before_the_folder_is_claimed(model, texts, tmp_path):
    three = {"en": texts["en"], "fr": texts["fr"]}
    with pytest.raises(ValueError, match=r"stages='foo': give 'lens', or Stages\.of"):
        sys.modules["mwork_lens.study"]._require_model(model, "foo", SMALL)
    with pytest.raises(ValueError, match="k=1000: the model's vocabulary has 97 tokens"):
        run(model, three, settings=replace(SMALL, k=1000), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    for wrong, message in (
        ({"k": 0}, "k=0 is too small"),
        ({"size": 0}, "size=0"),
        ({"length": 1}, "length=1 is too small"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(SMALL, **wrong)


def test_two_layers_are_too_few(texts):
    with pytest.raises(ValueError, match=r"three stages: this model has 2 layer\(s\)"):
        run(pair("llama")[0], {"en": texts["en"], "fr": texts["fr"]}, settings=SMALL)


# --- interruption


def stop_at(monkeypatch, module, name, after):
    """Raise KeyboardInterrupt when `module.name` has been called `after` times."""
    owner, calls = sys.modules[f"mwork_lens.{module}"], []
    real = getattr(owner, name)

    def stop(*args, **kwargs):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(name)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, stop)


@pytest.mark.slow
def test_an_interrupted_study_resumes_to_the_same_bits(model, texts, done, tmp_path, monkeypatch):
    """Stopped in the lens, in the detection, in the second language of the grid and in the report; each time it continues."""
    folder, resume = tmp_path / "s", False
    for place, kept in {
        ("lenses", "read", 1): set(),
        ("detect.plnd", "neuron_importance", 7): {"lens.parquet"},
        ("grid", "deactivate", 200): {"lens.parquet", "shards", "scores"},
        ("study", "write_report", 0): {"lens.parquet", "shards", "scores", "summary.parquet"},
    }.items():
        with monkeypatch.context() as patched:
            stop_at(patched, *place)
            with pytest.raises(KeyboardInterrupt):
                run(model, texts, out=folder, resume=resume)
        resume = True
        assert kept <= {path.name for path in folder.iterdir()}
        assert not (folder / "report.html").exists()
        with pytest.raises(FileExistsError, match="already holds this run: pass resume=True"):
            run(model, texts, out=folder)
        if place[1] == "deactivate":
            assert len(list((folder / "scores").iterdir())) == 1  # German is finished, French is not
    # finished parts are not computed again
    for module, name in (("lenses", "read"), ("detect.plnd", "neuron_importance"), ("grid", "deactivate")):
        stop_at(monkeypatch, module, name, 0)
    without_page(monkeypatch)
    same(run(model, texts, out=folder, resume=True), done)
    same(load_study(folder), done)


def test_a_finished_study_is_not_run_again(model, texts, done):
    with pytest.raises(FileExistsError, match=r"already holds this run: pass resume=True .--resume."):
        run(model, texts, out=done.folder)
    with pytest.raises(
        FileExistsError, match=r"already holds another run .it differs in parameters.: choose another folder"
    ):
        run(model, texts, out=done.folder, settings=replace(SETTINGS, seed=1), resume=True)
    with pytest.raises(FileExistsError, match="it differs in corpora"):
        run(model, {**texts, "de": random_words("de", 9)}, out=done.folder, resume=True)
    same(load_study(done.folder), done)


# --- nothing to find, documents that fail


def test_where_languages_are_the_same_nothing_is_found(model, texts):
    alike = {language: replace(texts["en"], language=language) for language in texts}
    found = run(model, alike, settings=SMALL)
    assert not any(found.specific.values())
    assert (found.grid["count"] == 0).all()
    said = " ".join(found.findings)
    assert "No language-specific neuron was found for en, de, fr: nothing can be switched off there." in said
    assert "The deactivation grid is empty: no language has specific neurons." in said
    assert "Switching off" not in said


def test_a_failing_document_is_named(model, texts, tmp_path, monkeypatch):
    real, module = importances.__call__, sys.modules["mwork_lens.detect.plnd"]

    def fail_on(self, model, tokens):
        if tokens.language == "de" and tokens.documents == ("d3",):
            raise ArithmeticError("cannot read this")
        return real(self, model, tokens)

    some, few = {"en": texts["en"], "de": texts["de"]}, replace(SMALL, top=0.05, consensus=1.0)
    with monkeypatch.context() as patched:
        without_page(patched)
        patched.setattr(module.importances, "__call__", fail_on)
        found = run(model, some, out=tmp_path / "s", settings=few)
    assert found.failures == {"de": {"d3": "ArithmeticError: cannot read this"}}
    assert "1 document(s) of 'de' could not be measured and are left out: d3." in found.findings
    assert load_study(tmp_path / "s").failures == found.failures
    # once it can be read, a resumed study counts it
    without_page(monkeypatch)
    mended = run(model, some, out=tmp_path / "s", settings=few, resume=True)
    assert not mended.failures
    assert "could not be measured" not in " ".join(mended.findings)


def test_an_empty_stage_is_put_in_words(done):
    split = Stages(range(0), range(3), range(3, 4))
    said = findings(done.lens, done.specific, done.grid, done.summary, split, {})
    assert any("understanding no layer, task-solving layers 0-2, generation layer 3" in sentence for sentence in said)


# --- refusals


def test_english_and_another_language_are_needed(model, texts):
    for some in ({"de": texts["de"], "fr": texts["fr"]}, {"en": texts["en"]}, {}):
        with pytest.raises(ValueError, match=r"give 'en' and at least one more, got (de, fr|en|none)"):
            run(model, some)


def test_a_corpus_too_small_to_split_is_refused(model, texts):
    small = {**texts, "fr": random_words("fr", 0, n=3)}
    with pytest.raises(ValueError, match="corpus 'fr' has 3 documents: the study splits it and needs at least 4"):
        run(model, small)


def test_stages_of_another_depth_are_refused(model, texts):
    with pytest.raises(ValueError, match="these stages divide 8 layers, the model has 4"):
        run(model, texts, stages=Stages.of(8, understanding=2, generation=2))


def test_too_few_controls_are_refused():
    with pytest.raises(ValueError, match="draws=9: a claim against chance needs at least 10 random controls"):
        Settings(draws=9)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no finished study: run `mwork-lens study --out"):
        load_study(tmp_path)


# --- the trained model


@pytest.fixture(scope="module")
def one_by_one(polyglot):
    """Importances of 10 documents of three languages, each alone: they add up to any grouping."""
    languages = ("en", "ru", "zh")
    statistic = importances(sites=("v", "z", "ffn"), length=40)
    top = shares(statistic.top, statistic.sites)
    found = {}
    for language, corpus in load_corpora("embedded", languages, limit=10).items():
        rows = [ids[:40] for ids in polyglot.tokenizer(list(corpus.texts))["input_ids"]]
        found[language] = [statistic(polyglot, as_batch([row], language, [""], bos=1)) for row in rows]
    assert isinstance(found["en"][0], Importances)
    assert top == dict.fromkeys(("v", "z", "ffn"), 0.1)
    return found


def specific_of(polyglot, groups):
    sums = {name: sum(members[1:], members[0]) for name, members in groups.items()}
    return specific(plnd(sums, consensus=0.9, model=polyglot), minus="others")


def test_shuffled_languages_have_no_neurons_of_their_own(polyglot, one_by_one):
    true = {language: len(own) for language, own in specific_of(polyglot, one_by_one).items()}
    mixed = [members[i] for i in range(10) for members in one_by_one.values()]
    random.Random(0).shuffle(mixed)
    fake = {name: len(own) for name, own in specific_of(polyglot, {str(i): mixed[i::3] for i in range(3)}).items()}
    assert min(true.values()) > 20
    assert sum(fake.values()) < 0.1 * sum(true.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*were truncated")
def test_a_languages_own_neurons_hurt_it_more_than_any_random_set(polyglot, one_by_one):
    own = specific_of(polyglot, one_by_one)
    held_out = {x: c.shard(8, 9) for x, c in load_corpora("embedded", ["ru", "zh"]).items()}
    before = evaluate(polyglot, held_out, length=40)

    def harm(neurons, language):
        with deactivate(polyglot, neurons):
            after = evaluate(polyglot, held_out, [language], length=40)
        return float(difference(after, before[before["language"] == language], resamples=10)["change"].iloc[0])

    for language in held_out:
        generator = torch.Generator().manual_seed(0)
        draws = [harm(matched_random(own[language], generator=generator), language) for _ in range(10)]
        mine = harm(own[language], language)
        assert mine > 3 * max(draws), language
        assert p_value(mine, draws) == 1 / 11
        # negative control: a random set among random sets is nothing special
        assert p_value(harm(matched_random(own[language], generator=generator), language), draws) > 1 / 11


def test_measured_and_added_one_by_one_are_the_same(polyglot, one_by_one):
    texts = {"en": load_corpora("embedded", ["en"], limit=2)["en"]}
    with pytest.warns(UserWarning, match="were truncated"):
        found = measure(polyglot, texts, importances(sites=("v", "z", "ffn"), length=40), progress=False)["en"]
    a, b = one_by_one["en"][:2]
    assert all(torch.equal(found.hits[site], (a + b).hits[site]) for site in ("v", "z", "ffn"))
    assert shape_of(polyglot, ("v", "z", "ffn")) == {site: tuple(x.shape) for site, x in found.hits.items()}
