"""The scripts of experiments/patching: which pairs they take, which layer they report, what they say of a task that has nothing for them."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pandas as pd
import pytest
from families import hf_model, tokenizer

import mwork_lens as mw
from mwork_lens.tasks.task import Task

FOLDER = Path(__file__).parents[2] / "experiments" / "patching"


def script(name: str):
    """Loaded by path: `trace` is a module of Python's own."""
    spec = spec_from_file_location(f"experiments_patching_{name}", FOLDER / f"{name}.py")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


carry, trace = script("carry"), script("trace")


@pytest.fixture(scope="module")
def model():
    return mw.load_model(hf_model("llama", seed=4), tokenizer=tokenizer())


def item(name: str, prompt: str, answer: str, language: str = "en", **meta: str) -> mw.Item:
    return mw.Item(name, language, prompt, (answer,), meta=meta)


def test_pairs_to_trace_begin_with_different_tokens_and_only_those_are_scored(model):
    items = [
        item("a", "w1 w2 w20 w3", "w9 w10"), item("b", "w1 w2 w21 w3", "w9 w11"), item("c", "w1 w2 w22 w3", "w12"),
        item("d", "w1 w2 w23 w24 w3", "w13"),
    ]  # fmt: skip
    pairs, tokens = trace.pairs_of(model, items, 20, "0")
    assert tokens[-4:] == ["w1", "w2", "(name)", "w3"]
    assert {(p.source.id, p.target.id) for p in pairs} == {("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")}
    assert {tuple(p.candidates.values()) for p in pairs} == {("w9", "w12"), ("w12", "w9")}
    alike, _ = trace.pairs_of(model, items[:2], 20, "0")  # "ya njano" and "ya kahawia"
    assert alike == []
    assert trace.pairs_of(model, [], 20, "0") == ([], [])


def test_only_prompts_of_one_template_are_paired(model):
    items = [item(str(i), f"w1 w2 w{20 + i} w3", f"w{10 + i}") for i in range(4)]
    merged = [
        item(f"m{i}", f"w1 w2 w{30 + i} w{40 + i}", f"w{50 + i}") for i in range(3)
    ]  # as long, without the last token
    pairs, tokens = trace.pairs_of(model, items + merged, 50, "0")
    assert tokens[-1] == "w3"
    assert {one.id for p in pairs for one in (p.source, p.target)} == {"0", "1", "2", "3"}


@pytest.mark.parametrize("module", [carry, trace])
def test_a_task_with_nothing_to_use_is_told(module, tmp_path, monkeypatch, model):
    path = tmp_path / "none.jsonl"
    path.write_text(
        '{"task": {"ability": "knowledge"}}\n{"id": "a", "language": "en", "prompt": "w1 w2", "answers": ["w3"]}\n'
    )
    monkeypatch.setattr(module.mw, "load_model", lambda name: model)
    monkeypatch.setattr(sys, "argv", ["x", "--task", str(path), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="check --task"):
        module.main()


def test_an_item_that_does_not_say_where_it_is_stated_counts_as_stated():
    assert carry.usable(item("a", "w1", "w2", relation="colour"))
    assert carry.usable(item("a", "w1", "w2", relation="colour", stated="all"))
    assert not carry.usable(item("a", "w1", "w2", relation="colour", stated="en"))
    assert not carry.usable(item("a", "w1", "w2"))


def test_pairs_to_carry_over_are_of_one_relation_and_crossed_of_two():
    items = tuple(
        item(f"{relation}{i}", f"{relation} {i}", f"{language}{relation}{i}", language, relation=relation)
        for relation in ("colour", "animal") for i in range(4) for language in ("en", "fr")
    )  # fmt: skip
    task = Task("invented", "knowledge", items, how="generate")
    for source, target in (("en", "fr"), ("fr", "en")):
        for crossed in (False, True):
            pairs = carry.pairs_of(task, source, target, 10, 0, crossed=crossed)
            assert len(pairs) == 10
            for p in pairs:
                assert (p.source.language, p.target.language) == (source, target)
                assert (p.source.meta["relation"] != p.target.meta["relation"]) == crossed
                assert p.candidates[carry.NAMES[0]] == f"{target}{p.source.id}"
                assert p.candidates[carry.NAMES[3]] == f"{source}{p.target.id}"
    with pytest.raises(SystemExit, match="check --task"):
        carry.pairs_of(Task("one", "knowledge", items[:2], how="generate"), "en", "fr", 10, 0, crossed=False)


def test_a_layer_is_reported_for_pairs_that_did_not_choose_it():
    names = [f"p{i}" for i in range(8)]
    # the even pairs answer at layer 1, the odd ones at layer 2: best in hindsight 4 of 8, and nothing on the pairs that did not choose
    hits = pd.DataFrame({layer: [i % 2 == layer - 1 for i in range(8)] for layer in range(4)}, index=names)
    layers, shown = carry.crosswise(hits, hits)
    assert layers == [1, 2]
    assert sorted(shown.index) == names
    assert shown.sum() == 0
    _, other = carry.crosswise(hits, ~hits)  # the control at the same layers
    assert other.all()
    steady = pd.DataFrame({0: [False] * 8, 1: [True] * 6 + [False] * 2}, index=names)
    layers, shown = carry.crosswise(steady, steady)
    assert layers == [1, 1]
    assert carry.share(shown)[0] == 0.75


def test_what_carries_over_is_compared_with_its_control_by_fishers_exact_test():
    def rows(setting: str, hits: int, count: int) -> list[tuple]:
        scores = lambda hit: dict(zip(carry.NAMES, (1.0 if hit else -1.0, 0.0, -2.0, -3.0), strict=True))  # noqa: E731
        return [
            (f"p{i:02}", layer, name, logp, setting, "fr")
            for i in range(count) for layer in (0, 1) for name, logp in scores(layer == 1 and i < hits).items()
        ]  # fmt: skip

    columns = ["pair", "layer", "candidate", "logp", "setting", "language"]
    table = pd.DataFrame(
        rows("from English", 8, 10) + rows("from English" + carry.CONTROL, 2, 10) + rows("same language", 10, 10),
        columns=columns,
    )
    found = carry.summary(table)
    assert list(found) == ["from English, fr", "same language, fr"]
    one = found["from English, fr"]
    assert one["layers"] == [1, 1]
    assert (one["share of pairs"][0], one["another relation"][0]) == (0.8, 0.2)
    tail = 45 * 45 + 10 * 10 + 1  # ways to get 8, 9 or 10 of 10 beside 2, 1 or 0, of the 184756 to choose 10 of 20
    assert one["p"] == one["holm"] == pytest.approx(2 * tail / 184756, rel=0.01)
    assert found["same language, fr"] == {"layers": [1, 1], "share of pairs": [1.0, 0.722, 1.0], "pairs": 10}
