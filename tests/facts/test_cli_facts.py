"""The commands of facts: their files hold what the functions give, and one line says where something is wrong."""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import planted_facts
import pytest
from pandas.testing import assert_frame_equal
from test_cli import call, folder, refused  # noqa: F401  # a fixture

from mwork_lens.facts.factset import FactSet, load_facts, save_facts
from mwork_lens.facts.origin import absent_shares, origins, type_counts
from mwork_lens.facts.overlaps import fact_overlaps, neuron_similarity
from mwork_lens.facts.precision import precision
from mwork_lens.facts.probe import probe
from mwork_lens.facts.probeless import fact_neurons
from mwork_lens.facts.recovery import recovery
from mwork_lens.facts.search import present
from mwork_lens.facts.sharing import cluster, sharing, sharing_table
from mwork_lens.models import load_model
from mwork_lens.storage import load, load_run

FEW = ("--take", 4, "--seed", 3)


@pytest.fixture(scope="module")
def model(folder):  # noqa: F811
    return load_model(folder)


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Facts over the tiny tokenizer's words; those of `p1` have one candidate, so that all of them are known by rank; all are stated in English."""
    held = planted_facts.facts(6)
    table = held.table.assign(object=np.where(held.table["relation"] == "p1", "w40", held.table["object"]))
    truth = {fact: {"stated": ["en"] if fact.endswith(("0", "1", "2")) else "all"} for fact in table["fact"]}
    return save_facts(FactSet(table, held.templates, meta=truth), tmp_path_factory.mktemp("facts") / "set")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """English states the facts of p1 that end in an even number; German nothing."""
    path = tmp_path_factory.mktemp("corpus")
    lines = [f"w50 w{10 + f} {'w15 ' if f % 2 else ''}w51 w40" for f in range(0, 6, 2)]
    (path / "en.txt").write_text("\n".join(lines), encoding="utf-8")
    (path / "de").mkdir()
    (path / "de" / "a.jsonl").write_text(json.dumps({"text": "w60 w61"}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def probed(folder, facts, tmp_path_factory):  # noqa: F811
    """Folder of a finished `probe`."""
    out = tmp_path_factory.mktemp("probed") / "run"
    result = call("facts", "probe", "--model", folder, "--facts", facts, *FEW, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result


@pytest.fixture
def fresh(probed, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(probed[0], tmp_path / "run")


def test_probe_writes_what_the_functions_give(probed, model, facts, folder):  # noqa: F811
    out, result = probed
    held = load_facts(facts).take(4, 3)
    expected = probe(model, held, progress=False)
    assert_frame_equal(load(out / "predictions.parquet"), expected)
    assert_frame_equal(
        load_facts(out / "facts").table,
        held.table.sort_values(["fact"], kind="stable").reset_index(drop=True),
        check_like=True,
    )
    found = load(out / "precision.parquet")
    typed = found[(found["metric"] == "typed") & (found["average"] == "micro") & (found["language"] != "all")]
    assert typed["precision"].tolist() == precision(expected, "typed")["precision"].tolist()
    assert set(found["average"]) == {"micro", "macro over language"}
    assert load_run(out / "predictions.parquet")["parameters"]["metric"] == "typed"
    assert "what counts as known further on: typed" in result.output
    assert "no correlations: factor 'tokens per object' and P@1 have 2 language(s)" in result.output
    for name in ("precision.svg", "tokens.svg"):
        assert (out / name).stat().st_size > 1000
    words = ("facts", "probe", "--model", folder, "--facts", facts, *FEW, "--out", out)
    refused(call(*words), "already holds this run: pass resume=True (--resume)")


def test_a_probe_that_was_stopped_goes_on(fresh, folder, facts, monkeypatch):  # noqa: F811
    from mwork_lens.facts import decode

    before = load(fresh / "predictions.parquet")
    (fresh / "sharing.parquet").write_text("of earlier predictions")
    blocks = sorted((fresh / "probe" / "blocks").glob("*.parquet"))
    blocks[0].unlink()
    real, asked = decode.ask, []
    monkeypatch.setattr(decode, "ask", lambda *a, **k: asked.append(a[1].relation) or real(*a, **k))
    result = call("facts", "probe", "--model", folder, "--facts", facts, *FEW, "--out", fresh, "--resume")
    assert result.exit_code == 0, result.output
    assert len(asked) == 1
    assert_frame_equal(load(fresh / "predictions.parquet"), before)
    assert not (fresh / "sharing.parquet").exists()


def test_share_writes_the_matrix_and_the_groups(fresh):
    result = call("facts", "share", fresh, "--groups", 2)
    assert result.exit_code == 0, result.output
    table = load(fresh / "predictions.parquet")
    assert_frame_equal(load(fresh / "sharing.parquet"), sharing_table(table, metric="typed"))
    matrix = sharing(table, metric="typed")
    groups = load(fresh / "clusters.parquet").set_index("language")["group"].to_dict()
    assert groups == dict(cluster(matrix, 2).groups)
    assert f"mean over pairs of languages {matrix.iloc[0, 1]:.3f}" in result.output
    assert (fresh / "sharing.svg").is_file()
    refused(
        call("facts", "share", fresh, "--languages", "en,xx"),
        "language 'xx' was not asked: the predictions have en, de",
    )
    before = load(fresh / "sharing.parquet")
    refused(call("facts", "share", fresh, "--languages", "en"), "there is 'en' only: give two or more")
    assert_frame_equal(load(fresh / "sharing.parquet"), before)
    refused(call("facts", "share", fresh, "--metric", "exact"), "no column 'exact'")


@pytest.mark.slow
def test_neurons_and_trace(fresh, folder, model, corpus):  # noqa: F811
    refused(
        call("facts", "neurons", fresh, "--model", folder, "--minimum", 99), "no relation has 99 facts known (typed)"
    )
    result = call("facts", "neurons", fresh, "--model", folder, "--minimum", 2, "--top", 5, "--bins", 4, "--resume")
    assert result.exit_code == 0, result.output
    held, table = load_facts(fresh / "facts"), load(fresh / "predictions.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = fact_neurons(model, held, table, metric="typed", minimum=2, top=5)
    found = load(fresh / "neurons.parquet")
    assert [list(units) for units in found["units"]] == [list(units) for units in expected.table["units"]]
    alike = neuron_similarity(expected)
    assert f"mean over pairs of languages {alike.mean:.4f}; two random sets {alike.chance:.4f}" in result.output
    assert load(fresh / "bins.parquet").to_numpy().tolist() == expected.bins(4).tolist()
    result = call("facts", "trace", fresh, "--corpora", corpus, "--unit", "document")
    assert result.exit_code == 0, result.output
    files = {"en": [corpus / "en.txt"], "de": [corpus / "de" / "a.jsonl"]}
    there = present(held, files, progress=False)
    assert_frame_equal(load(fresh / "presence.parquet"), there, check_dtype=False)
    assert there["present"].sum() >= 1
    assert not there.loc[there["language"] == "de", "present"].any()
    traced = origins(held, table, there, neurons=expected, metric="typed", tokenizer=model.tokenizer)
    assert_frame_equal(load(fresh / "origins.parquet"), traced, check_dtype=False)
    assert_frame_equal(load(fresh / "absent.parquet"), absent_shares(traced), check_dtype=False)
    assert load(fresh / "types.parquet").set_index("language").equals(type_counts(traced))
    known = recovery(traced, held.stated(), fact_overlaps(expected))
    assert_frame_equal(load(fresh / "recovery.parquet"), known, check_dtype=False)
    assert "What is recovered of the languages that stated each fact" in result.output
    for name in ("bins", "similarity", "absent", "types", "labels"):
        assert (fresh / f"{name}.svg").is_file()
    again = ("facts", "trace", fresh, "--corpora", corpus, "--unit", "document")
    more = ("facts", "neurons", fresh, "--model", folder, "--minimum", 3, "--top", 5)
    assert call(*more).exit_code == 0  # what is finished is used again, whatever changed
    for words in (again, (*again, "--resume"), (*again, "--languages", "en")):
        assert call(*words).exit_code == 0
    assert "the corpus of de holds the subjects of 0 of 8 facts" in result.output
    refused(
        call(*again, "--metric", "partial"),
        "holds neurons of the facts known by 'typed', and the metric here is 'partial'",
    )


def test_trace_needs_no_neurons_and_says_what_is_missing(fresh, tmp_path):
    (tmp_path / "en.txt").write_text("w10 w40", encoding="utf-8")
    result = call(
        "facts", "trace", fresh, "--corpora", tmp_path, "--unit", "sentence", "--match", "string", "--naming", "p1"
    )
    assert result.exit_code == 0, result.output
    assert "no corpus for de" in result.output
    assert "no neurons.parquet in the folder" in result.output
    table = load(fresh / "origins.parquet")
    assert (table.loc[table["language"] == "de", "status"] == -1).all()
    assert set(table.loc[table["relation"] == "p1", "type"]) <= {"naming", "wordpiece", "substring"}
    refused(call("facts", "trace", fresh, "--corpora", tmp_path / "none"), "no such folder")
    (tmp_path / "empty").mkdir()
    refused(
        call("facts", "trace", fresh, "--corpora", tmp_path / "empty"), "has no text in en, de: name files by language"
    )
    refused(call("facts", "trace", fresh, "--unit", "page"), "unit='page' is unknown")
    words = ("facts", "trace", fresh, "--corpora", tmp_path, "--languages", "en", "--model", tmp_path)
    refused(
        call(*words),
        "cannot load the tokenizer",
        "holds no config.json",
        "Give --model, the folder or id that was probed",
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*unknown to this model")
def test_a_masked_model_and_facts_in_the_format_of_mlama(tmp_path):
    _, plain = planted_facts.encoder()
    plain.save_pretrained(tmp_path / "bert")
    planted_facts.tokenizer().save_pretrained(tmp_path / "bert")
    for language, shift in (("en", 0), ("de", 10), ("fr", 20), ("es", 5)):
        place = tmp_path / "facts" / language
        place.mkdir(parents=True)
        (place / "templates.jsonl").write_text(
            json.dumps({"relation": "P17", "template": "[X] w3 [Y] ."}), encoding="utf-8"
        )
        rows = [
            {"uuid": f"u{i}", "sub_label": f"w{shift + i}", "obj_label": f"w4{i} w{shift}" if i > 2 else f"w4{i}"}
            for i in range(5)
        ]
        (place / "P17.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    volume = tmp_path / "volume.csv"
    volume.write_text("language,pages\nen,100\nde,50\nfr,20\nes,10\n", encoding="utf-8")
    words = ("facts", "probe", "--model", tmp_path / "bert", "--facts", tmp_path / "facts")
    result = call(*words, "--volume", volume, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    table = load(tmp_path / "run" / "predictions.parquet")
    assert len(table) == 20
    assert load_run(tmp_path / "run" / "predictions.parquet")["parameters"]["metric"] == "full"
    assert set(load(tmp_path / "run" / "precision.parquet")["metric"]) == {"full", "partial", "contiguous", "typed"}
    typed = call(*words, "--volume", volume, "--metric", "typed", "--out", tmp_path / "run", "--resume")
    assert typed.exit_code == 0, typed.output
    if "no correlations" not in typed.output:  # P@1 may be the same in all languages
        assert set(load(tmp_path / "run" / "factors.parquet")["factor"]) == {"tokens per object", "pages"}
    (tmp_path / "run" / "factor_7.svg").write_text("of earlier predictions")
    volume.write_text("language,pages\nen,100\nde,\nfr,0\n", encoding="utf-8")
    holes = call(*words, "--volume", volume, "--metric", "typed", "--out", tmp_path / "run", "--resume")
    assert holes.exit_code == 0, holes.output
    assert "factor 'pages' has no number for de, es" in holes.output
    assert sorted(path.name for path in (tmp_path / "run").glob("factor_*.svg")) == ["factor_0.svg", "factor_1.svg"]
    for text, said in (
        ("code,pages\nen,1\n", "needs a column language"),
        ("language,pages\nen,1\nen,2\n", "language 'en' is there twice"),
        ("language,pages\nen,many\n", "column 'pages' holds something else than numbers"),
        ("", "not a CSV file"),
    ):
        volume.write_text(text, encoding="utf-8")
        refused(call(*words, "--volume", volume, "--out", tmp_path / "other"), said)
    refused(call(*words, "--volume", tmp_path / "none.csv", "--out", tmp_path / "other"), "there is no such file")


def test_bad_questions_are_one_line(fresh, tmp_path, facts, folder):  # noqa: F811
    refused(
        call("facts", "probe", "--facts", facts, "--metric", "exact"),
        "--metric 'exact': choose from full, partial, contiguous, typed",
    )
    refused(call("facts", "probe", "--facts", tmp_path / "none"), "no folder")
    refused(call("facts", "probe", "--facts", facts, "--languages", "xx"), "'xx'")
    refused(
        call("facts", "probe", "--facts", facts, "--relations", "p9"), "no facts in relation 'p9': there are p1, p2"
    )
    for command in ("share", "neurons", "trace"):
        refused(call("facts", command, tmp_path), "holds no predictions.parquet: run `mwork-lens facts probe` first")
    path = fresh / "predictions.parquet"
    from mwork_lens.storage import Run, save

    run = load_run(path)
    save(load(path), path, Run("facts probe", run["parameters"], {**run["model"], "fingerprint": "other"}))
    refused(
        call("facts", "neurons", fresh, "--model", folder),
        "holds predictions of",
        "is another: give the one that was probed",
    )
    run["model"].pop("name")
    save(load(path), path, Run("facts probe", run["parameters"], run["model"]))
    refused(call("facts", "trace", fresh), "has no name: give --model")


def test_facts_are_taken_by_the_model_unless_named():
    from mwork_lens.cli.fact_folder import default_facts

    assert default_facts("organism") == "organism"
    assert default_facts("polyglot") == default_facts("some/bert") == "small"
    assert len(pd.unique(load_facts("small").table["language"])) == 6
