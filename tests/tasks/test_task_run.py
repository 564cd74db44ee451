"""Asking items: against the plain Hugging Face model one text at a time; conditions, files, and faults found before any compute."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mwork_lens.edits import Edit, applied, during
from mwork_lens.evaluate import evaluate
from mwork_lens.interventions import deactivate, scale, zero
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import shape_of
from mwork_lens.storage import load_run
from mwork_lens.tasks.ask import behaviour, fitting, prepare_items
from mwork_lens.tasks.run import NLL, ROWS, answer_nll, answer_scores
from mwork_lens.tasks.task import Item, Task
from mwork_lens.writing.generate import generate
from mwork_lens.writing.identify import as_identifier

ENGLISH = [("w1 w2", ("w5", "w6 w7", "w8")), ("w9 w3 w4 w1", ("w2", "w3", "w90")), ("w5", ("w5 w5", "w6 w5"))]
CHOOSE = Task(
    "choose",
    "knowledge",
    tuple(
        Item(f"i{k}", language, prompt, (choices[k % 2],), choices)
        for language in ("en", "fr")
        for k, (prompt, choices) in enumerate(ENGLISH)
    ),
    "choose",
)
WRITE = replace(CHOOSE, name="write", ability="generation", how="generate", metric="f1", stop=("w7",), max_new_tokens=5)


def naive(plain, tokenizer, prompt, choice):
    """Log-likelihood of a choice, token by token, one text at a time."""
    before, ids = tokenizer(prompt)["input_ids"], tokenizer(f"{prompt} {choice}")["input_ids"]
    with torch.no_grad():
        likely = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(likely[t - 1, ids[t]].item() for t in range(len(before), len(ids)))


def off(model):
    return NeuronSet({"ffn": torch.rand(shape_of(model)["ffn"], generator=torch.Generator().manual_seed(0)) < 0.5})


@pytest.mark.parametrize("normalise", ["sum", "token", "character"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_choices_are_those_of_a_plain_loop(family, normalise):
    model, plain = pair(family)
    table = answer_scores(model, CHOOSE, normalise=normalise, progress=False)
    assert list(table.columns) == list(ROWS)
    assert table["item"].tolist() == ["i0", "i1", "i2"] * 2
    assert table["language"].tolist() == ["en"] * 3 + ["fr"] * 3
    for row, item in zip(table.itertuples(), CHOOSE.items, strict=True):
        sums = {choice: naive(plain, model.tokenizer, item.prompt, choice) for choice in item.choices}
        by = {"sum": lambda c: 1, "token": lambda c: len(c.split()), "character": len}[normalise]
        scores = {choice: value / by(choice) for choice, value in sums.items()}
        (right,) = item.answers
        assert row.text == max(scores, key=scores.get)
        assert row.score == float(row.text == right)
        assert row.logp == pytest.approx(sums[right], abs=1e-4)
        assert row.margin == pytest.approx(scores[right] - max(v for c, v in scores.items() if c != right), abs=1e-4)
        assert (row.tokens, row.tied, row.condition) == (len(right.split()), False, "baseline")
    assert table[["exact", "f1", "rouge_l", "number", "fidelity"]].isna().all().all()


@settings(max_examples=8)
@given(st.integers(1, 9), st.permutations(range(6)))
def test_batches_and_order_change_nothing(size, order):
    model, _ = pair("llama")
    reference = answer_scores(model, CHOOSE, size=1, progress=False).set_index(["language", "item"])
    shuffled = replace(CHOOSE, items=tuple(CHOOSE.items[i] for i in order))
    table = (
        answer_scores(model, shuffled, size=size, progress=False).set_index(["language", "item"]).loc[reference.index]
    )
    np.testing.assert_allclose(table[["logp", "margin"]], reference[["logp", "margin"]], atol=1e-5)
    assert table["text"].tolist() == reference["text"].tolist()


def test_a_model_that_prefers_nothing_is_at_chance(llama):
    def level(x):
        return torch.zeros_like(x)

    same = replace(
        CHOOSE, items=(Item("i", "en", "w1 w2", ("w3",), ("w3", "w4")), Item("j", "en", "w1 w2", ("w4",), ("w3", "w4")))
    )
    before = llama.original_model.get_output_embeddings().weight
    held = before.data.clone()
    try:
        before.data.zero_()
        table = same.scores(llama)
    finally:
        before.data.copy_(held)
    assert table["score"].tolist() == [0.5, 0.5]
    assert table["tied"].all()
    assert not same.scores(llama)["tied"].any()


def test_several_right_choices(llama):
    table = answer_scores(llama, CHOOSE, progress=False)
    item = CHOOSE.items[0]
    both = replace(CHOOSE, items=(replace(item, answers=item.choices[:2]),)).scores(llama)
    wrong = naive(pair("llama")[1], llama.tokenizer, item.prompt, item.choices[2])
    assert both["margin"][0] == pytest.approx(both["logp"][0] - wrong, abs=1e-4)
    assert both["logp"][0] >= table["logp"][0]


def test_chinese_and_english_of_the_embedded_model(polyglot):
    items = (
        Item("a", "en", "The capital of France is", ("Paris",), ("Paris", "xqz")),
        Item("a", "zh", "法国的首都是", ("巴黎",), ("巴黎", "呱呱呱")),
    )
    table = evaluate(polyglot, Task("t", "knowledge", items, "choose"))
    assert table["score"].tolist() == [1, 1]
    for item, row in zip(items, table.itertuples(), strict=True):
        before, whole = polyglot.tokenizer([item.prompt, item.prompt + item.glue + item.answers[0]])["input_ids"]
        assert whole[: len(before)] == before
        with torch.no_grad():
            likely = polyglot.original_model(torch.tensor([whole])).logits[0].log_softmax(-1)
        assert row.logp == pytest.approx(
            sum(likely[t - 1, whole[t]].item() for t in range(len(before), len(whole))), abs=1e-4
        )


def test_written_answers(llama):
    table = answer_scores(llama, WRITE, progress=False, identify=as_identifier(lambda text: "en", ["en", "fr"]))
    made = generate(llama, [item.prompt for item in WRITE.items], max_new_tokens=5, stop=["w7"])
    assert table["text"].tolist() == [one.text.strip() for one in made]
    assert table["tokens"].tolist() == [len(one.ids) for one in made]
    assert (table["score"] == table["f1"]).all()
    assert table.loc[table["language"] == "fr", "fidelity"].tolist() == [0] * 3
    assert table.loc[table["language"] == "en", "fidelity"].tolist() == [
        float(bool(text)) for text in table["text"][:3]
    ]
    assert table[["logp", "margin"]].isna().all().all()
    told = replace(
        WRITE,
        items=tuple(
            replace(i, answers=(one.text.strip() or "x",), choices=()) for i, one in zip(WRITE.items, made, strict=True)
        ),
    )
    assert told.scores(llama)["exact"].tolist() == [float(bool(one.text.strip())) for one in made]


def test_reference_answers(llama):
    plain = pair("llama")[1]
    table = answer_nll(llama, CHOOSE, ["fr"], condition="c")
    assert list(table.columns) == list(NLL)
    wanted = [-naive(plain, llama.tokenizer, i.prompt, i.answers[0]) for i in CHOOSE.of("fr")]
    np.testing.assert_allclose(table["nll"], wanted, atol=1e-4)
    assert table["tokens"].tolist() == [1, 1, 2]
    scores = evaluate(llama, WRITE.as_loglik(), ["fr"])
    np.testing.assert_allclose(scores["score"], -table["nll"], atol=1e-6)


def test_evaluate_hands_over(llama):
    table = evaluate(llama, CHOOSE, ["fr"], condition="x", size=2)
    pd.testing.assert_frame_equal(table, CHOOSE.scores(llama, ["fr"], condition="x", size=2))
    assert set(table["language"]) == {"fr"}
    with pytest.raises(ValueError, match="length=9 cuts documents"):
        evaluate(llama, CHOOSE, length=9)


def test_edits_in_force_apply_and_conditions_are_what_they_make(llama):
    conditions = {
        "baseline": None,
        "off": lambda: deactivate(llama, off(llama)),
        "nothing": lambda: applied(llama, scale(off(llama), 1.0)),
    }
    table = answer_scores(llama, [CHOOSE, WRITE], conditions=conditions, progress=False)
    before, after, nothing = (table[table["condition"] == name].reset_index(drop=True) for name in conditions)
    with deactivate(llama, off(llama)):
        pd.testing.assert_frame_equal(
            after, answer_scores(llama, [CHOOSE, WRITE], conditions={"off": None}, progress=False)
        )
    pd.testing.assert_frame_equal(nothing.assign(condition="baseline"), before)
    pd.testing.assert_frame_equal(before, answer_scores(llama, [CHOOSE, WRITE], progress=False))
    assert not np.allclose(before["logp"][:6], after["logp"][:6])


def test_an_interrupted_run_loses_no_finished_block(llama, tmp_path):
    asked = []

    @contextmanager
    def broken():
        raise KeyboardInterrupt
        yield

    def runs(conditions, **how):
        return answer_scores(llama, [CHOOSE, WRITE], conditions=conditions, out=tmp_path / "out", progress=False, **how)

    def spy():
        asked.append("off")
        return deactivate(llama, off(llama))

    with pytest.raises(KeyboardInterrupt):
        runs({"baseline": None, "off": spy, "broken": broken})
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "blocks").iterdir()}
    assert len(kept) == 2 * 2 * 2
    with pytest.raises(FileExistsError, match="resume=True"):
        runs({"baseline": None})
    table = runs({"baseline": None, "off": spy, "more": None}, resume=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole = answer_scores(
        llama, [CHOOSE, WRITE], conditions={"baseline": None, "off": spy, "more": None}, progress=False
    )
    pd.testing.assert_frame_equal(table, whole)
    run = load_run(next(iter(kept)))
    assert run["parameters"]["task"] in ("choose", "write")
    assert run["model"]
    with pytest.raises(FileExistsError, match="differs in size"):
        runs({"baseline": None}, resume=True, size=3)


def test_kept_blocks_are_those_of_the_same_model_and_items(llama, tmp_path):
    def run(task, conditions=None):
        return answer_scores(llama, task, conditions=conditions, out=tmp_path, resume=True, progress=False)

    before = run(CHOOSE)
    # the same label with an edit in force, and the same name with other items, are other blocks
    with deactivate(llama, off(llama)):
        assert not np.allclose(run(CHOOSE)["logp"], before["logp"])
    assert run(CHOOSE.where(lambda item: item.id != "i0"))["item"].tolist() == ["i1", "i2"] * 2
    pd.testing.assert_frame_equal(run(CHOOSE), before)
    damaged = sorted((tmp_path / "blocks").iterdir())
    for path in damaged:
        path.write_bytes(b"x")
    with pytest.warns(UserWarning, match="asking these items again"):
        pd.testing.assert_frame_equal(run(CHOOSE), before)


def test_kept_blocks_of_another_version_are_refused(llama, tmp_path, monkeypatch):
    def run():
        return answer_scores(llama, CHOOSE, out=tmp_path, resume=True, progress=False)

    before = run()
    with monkeypatch.context() as patched:
        patched.setattr("mwork_lens.tasks.run.VERSION", 999)
        with pytest.raises(FileExistsError, match=r"another run \(it differs in version\): choose another folder"):
            run()
    monkeypatch.setattr("mwork_lens.tasks.run.ask", lambda *a: pytest.fail("asked again"))
    pd.testing.assert_frame_equal(run(), before)


def test_an_edit_of_the_steps_alone_is_seen_again_on_resuming(llama, tmp_path):
    """Reading everything from disk, the edit must still act: one that never fires is an error."""
    later = {"later": lambda: applied(llama, during(zero(off(llama)), "new"))}
    first, again = (
        answer_scores(llama, WRITE, conditions=later, out=tmp_path, resume=True, progress=False) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert first["text"].tolist() != WRITE.scores(llama)["text"].tolist()


LONG = " ".join(["w1"] * 63)


@pytest.mark.parametrize(
    ("task", "how", "message"),
    [
        (replace(CHOOSE, items=(*CHOOSE.items, Item("long", "fr", LONG, ("w1",), ("w1", "w2")))), {},
         "item 'long' of 'choose' in 'fr' has 65 tokens with its answer .* context of 64"),
        (replace(WRITE, items=(*WRITE.items, Item("long", "fr", LONG, ("w1",)))), {},
         "item 'long' of 'write' in 'fr' has 64 tokens; with max_new_tokens=5 that is more than this model's context of 64"),
        (CHOOSE, {"languages": ["en", "sw"]}, "task 'choose' has no items in 'sw': it has en, fr"),
        (CHOOSE, {"size": 0}, "size=0 must be at least 1"),
        (replace(WRITE, metric="fidelity"), {}, "scored by fidelity: pass identify="),
        (WRITE, {"identify": as_identifier(lambda t: None, ["de"])}, "does not know 'en'"),
        ([CHOOSE, CHOOSE], {}, "two tasks are called 'choose'"),
        ([], {}, "no task given"),
    ],
)  # fmt: skip
def test_faults_are_found_before_the_model_computes(llama, monkeypatch, task, how, message):
    monkeypatch.setattr(type(llama), "forward", lambda *a, **k: pytest.fail("the model was run"))
    with pytest.raises(ValueError, match=message):
        answer_scores(llama, task, progress=False, **how)


def test_a_broken_edit_is_named_with_condition_and_item(llama):
    broken = Edit({("ffn", 0): lambda x: x * float("nan")})
    with pytest.raises(ValueError, match="condition 'bad': NaN or infinite logits in item 'i0' of 'choose' in 'en'"):
        answer_scores(llama, CHOOSE, conditions={"bad": lambda: applied(llama, broken)}, progress=False)


def test_an_edit_that_makes_written_text_of_nan_is_refused(llama):
    broken = Edit({("ffn", 0): lambda x: x * float("nan")})
    with pytest.raises(ValueError, match="condition 'bad': NaN or infinite logits while 'write' was written in 'en'"):
        answer_scores(llama, WRITE, conditions={"bad": lambda: applied(llama, broken)}, progress=False)


@pytest.mark.parametrize("task", [CHOOSE, WRITE])
def test_an_edit_that_is_silent_on_the_first_prompt_is_seen(llama, task):
    ready = prepare_items(llama, task, "en", None)
    lengths = [len(ids) for ids in ready.probe]
    assert lengths[1] not in (lengths[0], lengths[2])
    later = Edit({("ffn", 0): lambda x: x * (x.shape[1] != lengths[1])})  # acts on the second item alone
    before = behaviour(llama, ready)
    assert behaviour(llama, ready) == before
    with applied(llama, later):
        assert behaviour(llama, ready) != before


def test_masked_language_models_are_refused(llama, monkeypatch):
    monkeypatch.setattr(llama.cfg, "architecture", "BertForMaskedLM", raising=False)
    with pytest.raises(ValueError, match="need a causal decoder"):
        CHOOSE.scores(llama)


def test_items_that_do_not_fit_are_left_out_in_every_language(llama):
    long = Item("i0", "fr", LONG, ("w1",), ("w1", "w2"))
    mixed = replace(CHOOSE, items=(*CHOOSE.where(lambda i: (i.id, i.language) != ("i0", "fr")).items, long))
    with pytest.warns(UserWarning, match="2 of 6 items of 'choose' do not fit the context of 64"):
        kept = fitting(llama, mixed)
    assert kept.parallel == tuple(i.id for i in kept.of("en")) == ("i1", "i2")
    assert len(kept.scores(llama)) == 4
    with pytest.warns(UserWarning, match="2 of 6"):
        assert len(fitting(llama, replace(mixed, how="generate", metric="exact"))) == 4
    assert fitting(llama, CHOOSE) == CHOOSE
    with pytest.raises(ValueError, match="no item of task 'choose'"):
        fitting(llama, replace(CHOOSE, items=(long,)))
