"""The commands of activation statistics: what they write is what the functions give, and one line where something is wrong."""

import pandas as pd
import pytest
import torch
from test_cli import call, folder, refused, texts  # noqa: F401  # fixtures

from mwork_lens.collect import moments
from mwork_lens.corpora import load_corpora
from mwork_lens.detect.lape import lape
from mwork_lens.masks import read_masks
from mwork_lens.measure import measure
from mwork_lens.models import load_model
from mwork_lens.storage import load, load_run
from mwork_lens.writing import identify
from mwork_lens.writing.identify import as_identifier

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # tiny corpora: too few tokens, by design

RATE = 0.2


@pytest.fixture(scope="module")
def found(folder, texts, tmp_path_factory):  # noqa: F811
    """Folder of a finished `lape` run on half of the texts."""
    out = tmp_path_factory.mktemp("lape") / "run"
    mask = out.parent / "mask.pt"
    result = call(
        "lape",
        "--model",
        folder,
        "--corpora",
        texts,
        "--part",
        "1/2",
        "--rate",
        RATE,
        "--out",
        out,
        "--mask",
        mask,
        "--resamples",
        5,
    )
    assert result.exit_code == 0, result.output
    return out, mask, result


def test_lape_writes_what_the_functions_find(found, folder, texts):  # noqa: F811
    out, mask, result = found
    model = load_model(folder)
    half = {language: corpus.shard(0, 2) for language, corpus in load_corpora(texts).items()}
    pooled = measure(model, half, moments("ffn_act"), progress=False)
    expected = lape(pooled, rate=RATE)
    sets = load(out / "neurons.safetensors")
    assert sets == expected
    assert sum(map(len, sets.values())) > 0
    assert read_masks(mask, model) == expected
    for language, stat in load(out / "moments.safetensors").items():
        assert torch.equal(stat.positive["ffn_act"], pooled[language].positive["ffn_act"])
    assert load(out / "documents.safetensors")["de"].documents == half["de"].ids
    counts = load(out / "counts.parquet")
    assert counts.groupby("language")["count"].sum().to_dict() == {language: len(s) for language, s in sets.items()}
    run = load_run(out / "neurons.safetensors")
    assert run["parameters"]["rate"] == RATE
    assert run["corpora"]["de"]["documents"] == len(half["de"])
    assert set(load(out / "stability.parquet")["language"]) == set(sets)
    assert (out / "layers.svg").read_text(encoding="utf-8").startswith("<svg")
    assert all(f" {language} " in result.output for language in sets)


@pytest.mark.parametrize("method", ["lap", "lave", "penalised", "ap"])
def test_the_relatives_of_lape_are_there(method, folder, texts, tmp_path):  # noqa: F811
    result = call(
        "lape", "--model", folder, "--corpora", texts, "--method", method, "--rate", RATE, "--out", tmp_path / "x"
    )
    assert result.exit_code == 0, result.output
    assert load_run(tmp_path / "x" / "neurons.safetensors")["method"] == method
    assert set(load(tmp_path / "x" / "neurons.safetensors")) == {"en", "de", "fr"}


def test_an_interrupted_run_continues(folder, texts, tmp_path):  # noqa: F811
    words = ("lape", "--model", folder, "--corpora", texts, "--rate", RATE, "--resamples", 0, "--out", tmp_path / "x")
    assert call(*words).exit_code == 0
    refused(call(*words), "already holds this run: pass resume=True (--resume)")
    assert call(*words, "--resume").exit_code == 0


def test_sensitivity_reads_the_folder_and_needs_no_model(found):
    result = call("sensitivity", found[0], "--rates", "0.1,0.2", "--bars", "0.9,0.95", "--draws", 1)
    assert result.exit_code == 0, result.output
    table = load(found[0] / "sensitivity.parquet")
    assert {"rate", "bar", "languages", "tokens"} <= set(table["varied"])
    reference = table[table["reference"]]
    assert (reference["jaccard"].dropna() == 1).all()
    assert (found[0] / "sensitivity.svg").exists()


def test_perplexity_writes_the_matrix(found, folder, texts, tmp_path):  # noqa: F811
    words = ("perplexity", found[0] / "neurons.safetensors", "--model", folder, "--corpora", texts, "--draws", 2)
    result = call(*words, "--part", "2/2", "--out", tmp_path / "x")
    assert result.exit_code == 0, result.output
    assert "neurons were found on" not in result.output
    matrix = load(tmp_path / "x" / "matrix.parquet")
    assert set(matrix["off"]) - {""} == set(load(found[0] / "neurons.safetensors"))
    assert "selectivity" in result.output
    again = call(*words, "--part", "1/2", "--out", tmp_path / "y")
    assert "texts of en, de, fr are among those the neurons were found on" in again.output
    some = call(*words, "--languages", "en,de", "--out", tmp_path / "z")  # all documents, half of them seen
    assert "texts of en, de are among those the neurons were found on" in some.output
    assert "no texts for fr, so their neurons are left alone" in some.output


def test_steer_writes_responses_and_their_price(found, folder, texts, tmp_path, monkeypatch):  # noqa: F811
    def nearest(text):
        numbers = [int(word[1:]) for word in text.split() if word[1:].isdigit()]
        return ("en", "de", "fr")[min(int(sum(numbers) / len(numbers)) // 30, 2)] if numbers else "unknown"

    monkeypatch.setattr(identify, "lingua_identifier", lambda: as_identifier(nearest, ["en", "de", "fr"]))
    words = (
        "steer",
        found[0],
        "--model",
        folder,
        "--corpora",
        texts,
        "--part",
        "2/2",
        "--target",
        "de",
        "--strength",
        "1,3",
        "--prompt",
        3,
    )
    result = call(*words, "--new", 3, "--draws", 1, "--out", tmp_path / "x")
    assert result.exit_code == 0, result.output
    table = load(tmp_path / "x" / "steering.parquet")
    assert set(table["target"]) == {"de"}
    assert set(table["condition"]) == {"none", "off", "on", "both", "random"}
    assert set(table.loc[table["condition"] == "on", "strength"]) == {1.0, 3.0}
    assert set(load(tmp_path / "x" / "damage.parquet")["language"]) == {"en", "de", "fr"}
    assert len(load(tmp_path / "x" / "responses.parquet")) == table["responses"].sum()
    lines = load(tmp_path / "x" / "lines.parquet")
    assert set(lines["rule"]) == {"strict", "released"}
    assert call(*words, "--new", 3, "--draws", 1, "--out", tmp_path / "x", "--phase", "new", "--resume").exit_code == 0
    assert not (tmp_path / "x" / "damage.parquet").exists()  # what is read has no new tokens


def test_files_of_the_wrong_kind_are_named(found, folder, texts, tmp_path):  # noqa: F811
    more = ("--model", folder, "--corpora", texts, "--out", tmp_path / "x")
    refused(
        call("perplexity", found[0] / "moments.safetensors", *more),
        "moments.safetensors holds no neuron sets per language",
    )
    refused(call("perplexity", found[0] / "counts.parquet", *more), "counts.parquet holds no neuron sets per language")


def test_nothing_of_an_earlier_run_stays_behind(folder, texts, tmp_path):  # noqa: F811
    words = ("lape", "--model", folder, "--corpora", texts, "--rate", RATE, "--out", tmp_path / "x")
    assert call(*words, "--resamples", 3).exit_code == 0
    assert (tmp_path / "x" / "stability.parquet").exists()
    assert call(*words, "--method", "lave", "--resume").exit_code == 0
    assert not (tmp_path / "x" / "stability.parquet").exists()
    assert set(load_run(tmp_path / "x" / "neurons.safetensors")["parameters"]) >= {"rate", "filter_rate"}
    assert call(*words, "--method", "ap", "--resume").exit_code == 0
    assert "filter_rate" not in load_run(tmp_path / "x" / "neurons.safetensors")["parameters"]  # ap reads none


def test_two_languages_can_be_varied_too(folder, texts, tmp_path):  # noqa: F811
    words = ("--model", folder, "--corpora", texts, "--languages", "en,de", "--rate", RATE, "--out", tmp_path / "x")
    assert call("lape", *words).exit_code == 0
    result = call("sensitivity", tmp_path / "x", "--rates", "0.1,0.2", "--draws", 1)
    assert result.exit_code == 0, result.output
    assert "with two languages none can be left out" in result.output


def test_geometry_writes_tables_and_figures(found, folder, texts, tmp_path):  # noqa: F811
    out = tmp_path / "x"
    result = call(
        "geometry", "--model", folder, "--corpora", texts, "--neurons", found[0] / "neurons.safetensors", "--out", out
    )
    assert result.exit_code == 0, result.output
    assert {path.stem for path in out.glob("*.parquet")} == {
        "similarity",
        "similarity_centred",
        "retrieval",
        "dominance",
        "meeting",
    }
    assert {path.stem for path in out.glob("*.svg")} == {"similarity", "retrieval", "dominance"}
    assert isinstance(load(out / "retrieval.parquet"), pd.DataFrame)
    assert "Spearman" in result.output


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("lape", "--method", "magic"), ["--method 'magic': choose from lape, lap, lave, penalised, ap"]),
        (("lape", "--part", "half"), ["--part 'half': write i/n"]),
        (("lape", "--part", "3/2"), ["--part '3/2': there are parts 1/2 to 2/2"]),
        (("lape", "--languages", "en"), ["compares languages and got en"]),
        (("lape", "--rate", "2"), ["--rate=2.0 is not a share"]),
        (("sensitivity", "nowhere"), ["no file nowhere"]),
        (("perplexity", "nowhere.safetensors"), ["no file nowhere.safetensors"]),
        (("geometry", "--pool", "max"), ["--pool 'max': choose last or mean"]),
    ],
)
def test_bad_input_is_one_line(words, parts, folder, texts, tmp_path):  # noqa: F811
    more = () if words[0] == "sensitivity" else ("--model", folder, "--corpora", texts, "--out", tmp_path / "x")
    refused(call(*words, *more), *parts)


def test_bad_steering_is_one_line(found, folder, texts, tmp_path):  # noqa: F811
    words = ("steer", found[0], "--model", folder, "--corpora", texts, "--part", "2/2", "--out", tmp_path / "x")
    refused(call(*words, "--identify", "magic"), "--identify 'magic': choose lingua or script")
    refused(call(*words, "--strength", "much"), "--strength 'much': give numbers separated by commas")
    refused(call(*words, "--strength", "nan"), "--strength 'nan': give numbers separated by commas")
    refused(call(*words, "--source", "sw"), "--source 'sw': there are texts in en, de, fr")
    refused(call(*words, "--identify", "script", "--target", "de"), "script")
