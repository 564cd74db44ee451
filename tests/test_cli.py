"""The command line: what it writes, and one line instead of a traceback where something is wrong."""

import importlib
import json
import random
import subprocess
import sys

import families
import pandas as pd
import pytest
from transformers import LlamaConfig
from typer.testing import CliRunner

from mwork_lens.cli import app
from mwork_lens.cli.console import print_table
from mwork_lens.detect.plnd import importances
from mwork_lens.neurons import NeuronSet
from mwork_lens.storage import load, load_run

COMMANDS = ("demo", "study", "lens", "detect", "doctor", "report")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny saved model of four layers."""
    config = LlamaConfig(
        vocab_size=families.VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=families.CONTEXT, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model")
    families.hf_model("llama", config=config).save_pretrained(path)
    families.tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder of corpora, a line a document."""
    path = tmp_path_factory.mktemp("texts")
    for seed, (language, words) in enumerate({"en": range(0, 30), "de": range(30, 60), "fr": range(60, 90)}.items()):
        rng = random.Random(seed)
        lines = [" ".join(f"w{rng.choice(words)}" for _ in range(rng.randrange(3, 9))) for _ in range(6)]
        (path / f"{language}.txt").write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result, *parts, code=1):
    """One line that says what is wrong, and no traceback."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    last = result.stderr.strip().splitlines()
    assert len(last) == 1, last
    for part in parts:
        assert part in last[0]


def failing(monkeypatch, error, *, at):
    """Let the document named `at` (language, name) raise `error`."""
    real = importances.__call__

    def maybe(self, model, tokens):
        if (tokens.language, *tokens.documents) == at:
            raise error
        return real(self, model, tokens)

    monkeypatch.setattr(importances, "__call__", maybe)


# --- help


def test_help_answers_without_loading_anything():
    code = (
        "import sys\nsys.argv = ['mwork-lens', '--help']\nfrom mwork_lens.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code\n"
        "assert not {'torch', 'transformer_lens', 'transformers', 'pandas'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "How does a language model handle many languages?" in found.stdout
    assert all(command in found.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_no_arguments_show_the_help():
    assert "Usage" in call().output


# --- what they do


def test_detect_writes_sets(folder, texts, tmp_path):
    out = tmp_path / "n"
    result = call(
        "detect",
        "--model",
        folder,
        "--corpora",
        texts,
        "--out",
        out,
        "--top",
        0.2,
        "--consensus",
        0.5,
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    own, consistent = load(out / "specific.safetensors"), load(out / "consistent.safetensors")
    assert list(own) == list(consistent) == ["en", "de", "fr"]
    for language in own:
        assert isinstance(own[language], NeuronSet)
        others = [consistent[x] for x in own if x != language]
        assert own[language] == consistent[language] - others[0] - others[1]
        assert str(len(own[language])) in result.output
    assert any(own.values())
    record = load_run(out / "specific.safetensors")
    assert (record["method"], record["parameters"]["consensus"], record["parameters"]["minus"]) == (
        "plnd",
        0.5,
        "others",
    )
    assert record["model"]["name"] == folder
    assert "specific.safetensors" in result.output


def test_detect_resumes_only_when_asked(folder, texts, tmp_path):
    words = [
        "detect",
        "--model",
        folder,
        "--corpora",
        texts,
        "--out",
        tmp_path / "n",
        "--sites",
        "ffn",
        "--languages",
        "en, fr",
    ]
    assert call(*words).exit_code == 0
    before = load(tmp_path / "n" / "specific.safetensors")
    refused(call(*words), "error: ", "already holds this run: pass resume=True (--resume)")
    assert call(*words, "--resume").exit_code == 0
    assert load(tmp_path / "n" / "specific.safetensors") == before
    assert list(before) == ["en", "fr"]


def test_lens_prints_and_saves(folder, texts, tmp_path):
    out = tmp_path / "lens.parquet"
    result = call("lens", "--model", folder, "--corpora", texts, "--k", 5, "--limit", 4, "--out", out)
    assert result.exit_code == 0, result.output
    assert "Probability mass per language of the token, by layer" in " ".join(result.output.split())
    assert all(word in result.output for word in ("en", "de", "fr", "shared"))
    table = load(out)
    assert isinstance(table, pd.DataFrame)
    assert set(table["documents"]) == {4}
    assert f"{table['mass'].iloc[0]:.2f}" in result.output
    assert load_run(out)["parameters"]["k"] == 5
    (command,) = json.loads((tmp_path / "commands.json").read_text(encoding="utf-8"))
    assert command["command"].endswith(f"--out {out}")


def test_study_and_report(folder, texts, tmp_path):
    out = tmp_path / "s"
    words = ["study", "--model", folder, "--corpora", texts, "--out", out, "--languages", "en,de", "--stages", "1,1"]
    words += ["--sites", "ffn", "--top", 0.2, "--consensus", 0.5]
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "Change of log-likelihood (nats per token) when neurons are off" in " ".join(result.output.split())
    assert "task-solving" in result.output
    assert "- Language-specific neurons:" in result.output
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    again = call("report", out)
    assert again.exit_code == 0, again.output
    assert (out / "report.html").read_bytes() == page


def test_brackets_in_a_table_are_brackets(capsys):
    """Rich would take them for markup: drop them, or fail on them."""
    print_table("doctor: /x/m[/y]", ["[b]check"], [["shape [batch pos d_model]"], ["[/]"]])
    printed = capsys.readouterr().out
    for text in ("doctor: /x/m[/y]", "[b]check", "shape [batch pos d_model]", "[/]"):
        assert text in printed


def test_doctor_prints_verdicts(folder):
    result = call("doctor", "--model", folder)
    assert result.exit_code == 0, result.output
    assert "parity with Hugging Face" in result.output
    assert "ok" in result.output


def test_doctor_fails_with_the_model():
    result = call("doctor", "--model", "./nowhere")
    assert result.exit_code == 1
    assert "no model folder" in result.output
    assert not result.stderr


# --- what goes wrong


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["lens", "--languages", "en,klingon"], ["error: unknown language 'klingon'", "known codes: af, am, ar"]),
        (["detect", "--languages", "german"], ["error: unknown language 'german': did you mean 'de'?"]),
        (
            ["study", "--corpora", "/no/such/folder"],
            ["error: no folder /no/such/folder: give a folder that holds en.txt"],
        ),
        (["lens", "--languages", "sw"], ["error: no texts for language 'sw' in this source: it has"]),
        (["lens", "--model", "./nowhere"], ["error: no model folder nowhere: check the path"]),
        (["lens", "--out", "t.csv"], ["error: --out t.csv: a table is saved as .parquet, such as t.parquet"]),
        (["study", "--draws", "3"], ["error: draws=3: a claim against chance needs at least 10"]),
        (["report", "/no/such/study"], ["error: /no/such/study does not exist: give the folder that a command wrote"]),
    ],
)
def test_mistakes_are_one_line(words, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(call(*words), *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["study", "lens", "detect"])
@pytest.mark.parametrize(("option", "least"), [("--limit", 1), ("--length", 2)])
def test_numbers_that_cannot_be_are_usage_errors(command, option, least):
    result = call(command, option, least - 1)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr  # typer's words
    assert str(least) in result.stderr


@pytest.mark.parametrize("command", ["study", "lens", "detect", "doctor"])
def test_the_device_map_is_passed_through(command, tmp_path, monkeypatch):
    taken = {}

    def load(name, **how):
        taken.update(how)
        raise ValueError("seen")

    monkeypatch.setattr(sys.modules["mwork_lens.models"], "load_model", load)
    monkeypatch.setattr(importlib.import_module("mwork_lens.doctor"), "load_model", load)
    monkeypatch.chdir(tmp_path)
    result = call(command, "--device-map", "auto")
    assert result.exit_code == 1
    assert "seen" in result.output
    assert taken["device_map"] == "auto"


@pytest.mark.parametrize(
    ("stages", "part"),
    [
        ("early", "error: --stages 'early': give lens, or two numbers of layers such as 8,4"),
        ("1,2,3", "error: --stages '1,2,3': give lens, or two numbers"),
        (
            "3,3",
            "error: 3 layers of understanding and 3 of generation do not split 4 layers: each stage needs at least one",
        ),
    ],
)
def test_stages_that_cannot_be_are_one_line(folder, texts, tmp_path, stages, part):
    refused(call("study", "--model", folder, "--corpora", texts, "--out", tmp_path / "s", "--stages", stages), part)
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_unknown_choices_are_one_line(folder, texts, tmp_path):
    """In a process of its own, without the type checks of the tests, which would speak first."""
    code = """
import sys
from typer.testing import CliRunner
from mwork_lens.cli import app
given = ["--model", sys.argv[1], "--corpora", sys.argv[2]]
for words in (["detect", "--measure", "vibes"], ["study", "--sites", "q,nose"], ["lens", "--identify", "smell"]):
    result = CliRunner().invoke(app, [*words, *given])
    print(result.exit_code, result.stderr)
"""
    words = [sys.executable, "-c", code, folder, texts]
    found = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    said = [line for line in found.stdout.splitlines() if line.strip()]
    assert said == [
        "1 error: unknown measure 'vibes': choose from output, attention, released",
        "1 error: unknown site 'nose': choose from q, k, v, z, ffn",
        "1 error: unknown identify='smell': choose counts, script or lingua",
    ]
    assert not list(tmp_path.iterdir())


def test_an_interruption_says_what_is_kept(folder, texts, tmp_path, monkeypatch):
    words = ["detect", "--model", folder, "--corpora", texts, "--out", tmp_path / "n", "--sites", "ffn"]
    with monkeypatch.context() as patched:
        failing(patched, KeyboardInterrupt(), at=("de", "3"))
        result = call(*words)
    assert result.exit_code == 130
    assert "interrupted: what was finished is kept - run the same command with --resume to continue" in result.stderr
    assert "Traceback" not in result.output
    assert len(list((tmp_path / "n" / "shards").glob("en-*.safetensors"))) == 1
    assert not (tmp_path / "n" / "specific.safetensors").exists()
    assert call(*words, "--resume").exit_code == 0
    assert call(*words[:5], "--out", tmp_path / "whole", "--sites", "ffn").exit_code == 0
    assert load(tmp_path / "n" / "specific.safetensors") == load(tmp_path / "whole" / "specific.safetensors")


def test_an_interruption_advises_no_resume_where_there_is_none(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["mwork_lens.corpora"], "load_corpora", interrupted)
    refused(call("lens"), "interrupted", code=130)
    assert "--resume" not in call("lens").stderr
    assert "--resume" in call("study").stderr
    assert "--resume" in call("demo").stderr


def test_failed_documents_are_named(folder, texts, tmp_path, monkeypatch):
    words = ["detect", "--model", folder, "--corpora", texts, "--out", tmp_path / "n", "--sites", "ffn"]
    failing(monkeypatch, ArithmeticError("cannot read this"), at=("de", "3"))
    result = call(*words)
    assert result.exit_code == 1
    assert (
        "error: 1 document(s) failed and are left out of the results: de/3: ArithmeticError: cannot read this"
        in result.stderr
    )
    assert result.stderr.count("error: ") == 1  # and none for the exit itself
    assert "Traceback" not in result.output
    assert list(load(tmp_path / "n" / "specific.safetensors")) == ["en", "de", "fr"]  # the others are measured


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("ours, not the user's")

    monkeypatch.setattr(sys.modules["mwork_lens.corpora"], "load_corpora", broken)
    result = call("lens")
    assert isinstance(result.exception, ZeroDivisionError)
