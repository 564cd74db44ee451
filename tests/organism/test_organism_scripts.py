"""The organism's scripts on small tables made by hand: the detectors' trial, what it can do, and its training curves."""

import json

import curves
import measure
import numpy as np
import pandas as pd
import pytest
import torch
import trial as script

from mwork_lens.tasks.task import Item, Task
from mwork_lens.tokens import Tokens

# --- curves


def log(path, *looks):
    path.write_text(
        "".join(json.dumps({"step": s, "loss": 1 / s, "seconds": t, **more}) + "\n" for s, t, more in looks)
    )
    return curves.looks(path)


def test_seconds_go_on_where_a_run_was_resumed(tmp_path):
    """Three processes: up to 20 s, up to 12 s, up to 5 s; step 300 was looked at twice."""
    looks = [(100, 10, {}), (200, 20, {}), (300, 8, {}), (300, 12, {}), (400, 5, {})]
    table = log(tmp_path / "log.jsonl", *looks)
    assert table["step"].tolist() == [100, 200, 300, 400]
    assert table["seconds"].tolist() == [10, 20, 32, 37]
    whole = log(tmp_path / "log.jsonl", (100, 10, {}), (200, 20, {}), (300, 30, {}))
    assert whole["seconds"].tolist() == [10, 20, 30]  # one process: as they are


def test_looks_have_english_beside_the_mean_of_the_others(tmp_path):
    seen = {"reasoning/en": 1.0, "reasoning/de": 0.2, "reasoning/zh": 0.4, "generation/en": 0.5}
    (row,) = log(tmp_path / "log.jsonl", (4, 1, seen)).to_dict("records")
    assert (row["loss"], row["reasoning, English"], row["reasoning, others"]) == (0.25, 1, pytest.approx(0.3))
    assert (row["generation, English"], row["generation, others"]) == (0.5, 0)


def test_a_run_without_a_log_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["curves.py", "--run", str(tmp_path), "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"no log\.jsonl in it; train\.py writes one"):
        curves.main()


# --- what it can do


def test_facts_are_told_apart_by_where_they_were_stated():
    facts = {"a": ("all", True), "b": ("en", True), "c": ("de", False)}
    items = tuple(
        Item(name, x, "q", ("r",), ("r", "w"), {"stated": stated, "asked": asked})
        for x in ("en", "de")
        for name, (stated, asked) in facts.items()
    )
    known = {("a", "en"): 1, ("b", "en"): 1, ("c", "en"): 0, ("a", "de"): 1, ("b", "de"): 0, ("c", "de"): 1}
    rows = pd.DataFrame(
        [{"task": "k", "language": x, "item": i, "score": s, "condition": "baseline"} for (i, x), s in known.items()]
    )
    table = measure.stated_table(rows, [Task("k", "knowledge", items, "choose")]).set_index(["task", "language"])
    assert table[["mean", "items"]].astype(float).apply(tuple, axis=1).to_dict() == {
        ("k, stated here, asked in training", "en"): (1, 2),  # a and b
        ("k, stated elsewhere, never asked", "en"): (0, 1),  # c
        ("k, stated here, asked in training", "de"): (1, 1),  # a
        ("k, stated in English only, asked in training", "de"): (0, 1),  # b
        ("k, stated here, never asked", "de"): (1, 1),  # c
    }


def test_measuring_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["measure.py", "--model", "m", "--out", str(tmp_path), "--limit", "0"])
    monkeypatch.setattr(measure.mw, "load_model", lambda *a: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit, match="--limit 0: give at least 1, or leave it out"):
        measure.main()


# --- the trial


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--limit 0", "--limit 0: give at least 1"),
        ("--documents 0", "--documents 0: give at least 1"),
        ("--stack 0", "--stack 0: give at least 1"),
        ("--scored 1", "--scored 1: give at least 2"),
        ("--top 0", r"--top 0\.0: give a share above 0 and at most 1"),
        ("--consensus 1.01", r"--consensus 1\.01: give a share above 0 and at most 1"),
        ("--rate -1", r"--rate -1\.0: give a share above 0 and at most 1"),
        ("--share 1", r"--share 1\.0 --resamples 200: give a share between 0 and 1"),
        ("--resamples -1", r"--share 0\.05 --resamples -1: .* at least 0 resamples"),
    ],
)
def test_settings_that_cannot_be_are_refused(words, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["trial.py", *words.split()])
    with pytest.raises(SystemExit, match=message):
        script.parse()


def test_settings_that_can_be(monkeypatch):
    monkeypatch.setattr(
        "sys.argv",
        [
            "trial.py",
            "--top",
            "1",
            "--consensus",
            "1",
            "--rate",
            "1",
            "--share",
            "0.5",
            "--resamples",
            "0",
            "--model",
            "m",
        ],
    )
    given = script.parse()
    assert (given.top, given.share, given.texts, str(given.out)) == (1, 0.5, "embedded", "runs/trial")
    monkeypatch.setattr("sys.argv", ["trial.py", "--smoke"])
    given = script.parse()
    assert (given.texts, given.languages, given.documents) == ("organism", ["en", "zh"], 2)


def test_tables_put_together_are_one_family_a_target():
    """Alone .01 .04 would be .02 .04; with two more of .5 they are .04 .08. The other target stays as it is."""

    def table(*p, target="own"):
        return pd.DataFrame({"target": target, "precision_p": p, "precision_q": -1.0})

    both = script.joined([table(0.01, 0.04), table(0.5, 0.5), table(0.01, np.nan, target="specific")])
    np.testing.assert_allclose(both["precision_q"], [0.04, 0.08, 0.5, 0.5, 0.01, np.nan])
    np.testing.assert_allclose(script.joined([table(0.01, 0.04)])["precision_q"], [0.02, 0.04])


def test_documents_are_told_apart_again_in_the_order_of_their_names():
    class Prepared:
        names = pd.DataFrame({"language": ["en", "de", "en"], "document": ["a", "b", "c"]})
        order = (2, 0, 1)
        batches = (
            Tokens(torch.tensor([[1, 5], [1, 6]]), torch.ones(2, 2, dtype=torch.bool), "", None, ("", "")),
            Tokens(torch.tensor([[1, 7]]), torch.ones(1, 2, dtype=torch.bool), "", None, ("",)),
        )

    found = script.documents(Prepared)
    assert {group: [(one.documents, one.ids.tolist()) for one in held] for group, held in found.items()} == {
        "en/text": [(("a",), [[1, 6]]), (("c",), [[1, 5]])],
        "de/text": [(("b",), [[1, 7]])],
    }
