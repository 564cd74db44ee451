"""Cloze probing of decoders against naive loops over plain Hugging Face models."""

from pathlib import Path
from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import pair
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.facts import decode
from mwork_lens.facts.factset import FACT_COLUMNS, FactSet, load_facts, save_facts
from mwork_lens.facts.precision import precision
from mwork_lens.facts.probe import PREDICTIONS, probe

TEMPLATES = {
    ("en", "final"): "w1 [X] w2 [Y] .",
    ("de", "middle"): "w3 [X] w4 [Y] w5 w6",
    ("fr", "first"): "[Y] w7 [X]",
}
SUBJECTS = ["w20", "w21 w22", "w23"]
OBJECTS = ["w40", "w41", "w42 w43", "w42 w44", "w45 w46 w47"]
MATCHES = ["full", "partial", "contiguous"]


def some_facts(objects: Any = OBJECTS) -> FactSet:
    rows = [
        (relation, f"{relation}-{i}-{j}", language, subject, text)
        for language, relation in TEMPLATES
        for i, subject in enumerate(SUBJECTS)
        for j, text in enumerate(objects)
    ]
    return FactSet(pd.DataFrame(rows, columns=list(FACT_COLUMNS)), TEMPLATES)


def ids_of(text: str) -> list[int]:
    return [1, *(3 if word == "." else int(word[1:]) + 4 for word in text.split())]


def naive_logp(plain: Any, before: str, whole: str) -> float:
    """Log-probability of what stands behind `before`, one token after another."""
    ids, start = ids_of(whole), len(ids_of(before))
    total = 0.0
    for at in range(start, len(ids)):
        with torch.no_grad():
            logits = plain(torch.tensor([ids[:at]])).logits[0, -1]
        total += float(logits.log_softmax(-1)[ids[at]])
    return total


def naive_greedy(plain: Any, prompt: str, steps: int) -> list[str]:
    """Words of the greedy completion."""
    ids = ids_of(prompt)
    for _ in range(steps):
        with torch.no_grad():
            new = int(plain(torch.tensor([ids])).logits[0, -1].argmax())
        if new in (1, 2):
            break
        ids.append(new)
    return [f"w{i - 4}" for i in ids[len(ids_of(prompt)) :] if i > 3]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("normalise", ["sum", "token"])
def test_probing_is_the_naive_loop(family: str, normalise: Any) -> None:
    model, plain = pair(family)
    facts = some_facts()
    table = probe(model, facts, normalise=normalise, size=4, progress=False)
    assert tuple(table.columns) == PREDICTIONS
    cut = {"final": "w1 [X] w2", "middle": "w3 [X] w4", "first": ""}
    whole = {"final": "w1 [X] w2 [Y]", "middle": "w3 [X] w4 [Y] w5 w6", "first": "[Y] w7 [X]"}
    for row, (relation, _, _, subject, text) in zip(
        table.itertuples(), facts.table.itertuples(index=False), strict=True
    ):
        before = cut[relation].replace("[X]", subject)
        scores = {}
        for one in OBJECTS:
            sentence = whole[relation].replace("[X]", subject).replace("[Y]", one)
            sums = naive_logp(plain, before, sentence)
            scores[one] = sums / (len(ids_of(sentence)) - len(ids_of(before)) if normalise == "token" else 1)
            if one == text:
                assert row.logp == pytest.approx(sums, abs=1e-3)
        assert row.typed_rank == 1 + sum(score > scores[text] for score in scores.values())
        assert row.object_tokens == len(text.split())
        assert row.masks == 0
        if relation == "first":
            assert row.predicted == max(scores, key=lambda one: scores[one])
            assert [getattr(row, name) for name in MATCHES] == [pd.NA] * 3
        else:
            written = naive_greedy(plain, before, 4)  # the longest object and a token
            assert row.predicted.replace("<unk>", "").split() == written
            assert row.full == (written[: len(text.split())] == text.split())
            assert row.partial == (set(text.split()) <= set(written))
    assert set(table["typed_rank"]) == {1, 2, 3, 4, 5}


def test_what_a_model_writes_is_a_full_match_and_another_word_is_not() -> None:
    model, plain = pair("llama")
    written = {subject: naive_greedy(plain, f"w1 {subject} w2", 2) for subject in SUBJECTS}
    rows = [("r", f"{subject}-{kind}", "en", subject, text)
            for subject in SUBJECTS
            for kind, text in (("right", " ".join(written[subject])), ("wrong", "w90 w91"),
                               ("half", f"{written[subject][0]} w92"), ("turned", " ".join(written[subject][::-1])))]  # fmt: skip
    facts = FactSet(pd.DataFrame(rows, columns=list(FACT_COLUMNS)), {("en", "r"): "w1 [X] w2 [Y]"})
    found = probe(model, facts, progress=False).set_index("fact")
    assert found["full"].dtype == bool
    for subject in SUBJECTS:
        assert all(len(words) == 2 for words in written.values())
        assert found.loc[f"{subject}-right", MATCHES].tolist() == [True] * 3
        assert found.loc[f"{subject}-wrong", MATCHES].tolist() == [False] * 3
        assert found.loc[f"{subject}-half", MATCHES].tolist() == [False] * 3
        assert found.loc[f"{subject}-turned", "partial"]


@pytest.mark.parametrize(
    ("gold", "text", "expected"),
    [
        ("Rome", "Rome, in Italy", (True, True, True)),
        ("Rome", "Romeo", (False, False, False)),
        ("the guitar", "The guitar.", (True, True, True)),
        ("Rome", "in Rome", (False, True, True)),
        ("New York", "York is New", (False, False, True)),
        ("巴黎", "巴黎是法国", (True, True, True)),
        ("巴黎", "黎巴嫩", (False, False, True)),
        ("巴黎", "里昂", (False, False, False)),
        ("++", "++ and", (True, True, True)),
        ("++", "and ++", (False, False, False)),
        ("Rome", "", (False, False, False)),
    ],
)
def test_completions(gold: str, text: str, expected: tuple[bool, bool, bool]) -> None:
    assert decode.completed(gold, text) == expected


words = st.lists(st.sampled_from(["a", "b", "cc", "巴"]), min_size=1, max_size=4).map(" ".join)


@given(gold=words, text=words)
def test_full_implies_contiguous_implies_partial(gold: str, text: str) -> None:
    full, contiguous, partial = decode.completed(gold, text)
    assert full <= contiguous <= partial


def test_equal_tokens_are_one_candidate_and_ties_count_against_the_object() -> None:
    model = pair("llama")[0]
    rows = [("r", f"f{i}", "en", "w20", text) for i, text in enumerate(["w40", "w40 ", "w41"])]
    table = probe(
        model, FactSet(pd.DataFrame(rows, columns=list(FACT_COLUMNS)), {("en", "r"): "w1 [X] [Y]"}), progress=False
    )
    assert sorted(table["typed_rank"]) in ([1, 1, 2], [1, 2, 2])
    assert table["typed_rank"][0] == table["typed_rank"][1]


def test_templates_with_words_behind_the_blank_score_them() -> None:
    """The words behind [Y] count; punctuation does not."""
    model = pair("llama")[0]

    def scores(template: str) -> np.ndarray:
        rows = pd.DataFrame([("r", "f", "en", "w20", "w40")], columns=list(FACT_COLUMNS))
        return probe(model, FactSet(rows, {("en", "r"): template}), progress=False)["logp"].to_numpy()

    bare = scores("w1 [X] w2 [Y]")
    np.testing.assert_allclose(scores("w1 [X] w2 [Y] ."), bare)
    np.testing.assert_allclose(scores("w1 [X] w2 [Y]。"), bare)
    assert scores("w1 [X] w2 [Y] w5") < bare


def test_missing_matches_are_left_out_of_precision() -> None:
    table = probe(pair("llama")[0], some_facts(), progress=False)
    assert set(precision(table, "full")["language"]) == {"en", "de"}
    assert set(precision(table, "typed")["language"]) == {"en", "de", "fr"}
    with pytest.raises(ValueError, match="the metric 'full' is missing for every fact"):
        precision(table[table["relation"] == "first"], "full")


def test_blocks_are_kept_with_missing_values(tmp_path: Path) -> None:
    model, facts = pair("llama")[0], some_facts(OBJECTS[:3])
    whole = probe(model, facts, progress=False)
    pd.testing.assert_frame_equal(probe(model, facts, out=tmp_path / "run", progress=False), whole)
    resumed = probe(model, facts.only(["fr", "en"]), out=tmp_path / "run", resume=True, progress=False)
    assert len(list((tmp_path / "run" / "blocks").iterdir())) == 3  # none was made again
    assert resumed["logp"].tolist() == whole.loc[whole["language"] != "de", "logp"].tolist()
    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", lambda act, hook: act * 0)]):
        edited = probe(model, facts, out=tmp_path / "run", resume=True, progress=False)
    assert len(list((tmp_path / "run" / "blocks").iterdir())) == 6
    assert not np.allclose(edited["logp"], whole["logp"])


def test_what_cannot_be_asked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pair("llama")[0]
    one = FactSet(
        pd.DataFrame([("r", "f", "en", "w20 " * 70, "w40")], columns=list(FACT_COLUMNS)), {("en", "r"): "[X] [Y]"}
    )
    held = load_facts(save_facts(one, tmp_path / "set"))
    with pytest.raises(
        ValueError, match=r"facts.jsonl, line 1 has 72 tokens .*context of 64.*; or leave out 'r' in 'en'"
    ):
        probe(model, held, progress=False)
    tight = FactSet(one.table.assign(subject="w20 " * 61), one.templates)
    with pytest.raises(ValueError, match=r"the prompt has 62 tokens; with 3 to write"):
        probe(model, FactSet(tight.table.assign(object="w40 w41"), one.templates), progress=False)
    with pytest.raises(ValueError, match="keep_boundary=True is about the tokens at masks"):
        probe(model, some_facts(), keep_boundary=True, progress=False)
    monkeypatch.setattr(model.cfg, "architecture", "BertForMaskedLM", raising=False)
    with pytest.raises(ValueError, match="BertForMaskedLM has no mask token"):
        probe(model, some_facts(), progress=False)


def test_sentences_need_a_token_before_the_answer() -> None:
    """Without a BOS, nothing predicts the first token of a sentence that begins with its answer."""
    from tokenizers import processors

    from mwork_lens.models import load_model

    tokenizer = families.tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    model = load_model(families.hf_model("gpt2"), tokenizer=tokenizer)
    facts = some_facts()
    with pytest.raises(
        ValueError, match=r"no token of its prompt stands before its answers.*; or leave out 'first' in 'fr'"
    ):
        probe(model, facts, progress=False)
    assert len(probe(model, facts.only(["en"]), progress=False)) == 15
    short = FactSet(facts.only(["en"]).table, {("en", "final"): "[X] [Y]"})
    with pytest.raises(ValueError, match=r"the prompt has 1 token\(s\), to complete one it needs at least 2"):
        probe(model, short, progress=False)
