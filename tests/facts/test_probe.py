"""Cloze probing of masked models against naive loops over plain Hugging Face models; runs that are kept."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masked import KINDS, OBJECTS, TOKENIZERS, bert_tokenizer, hf_model, pair, xlmr_tokenizer

from mwork_lens.facts import encoders
from mwork_lens.facts.factset import FACT_COLUMNS, FactSet
from mwork_lens.facts.probe import PREDICTIONS, probe
from mwork_lens.models import load_model

SUBJECTS = ["France", "Italy", "Peru", "North Peru", "法国"]
TEMPLATES = {
    ("en", "capital"): "The capital of [X] is [Y] .",
    ("en", "first"): "[Y] is the capital of [X].",
    ("zh", "capital"): "[X]的首都是[Y]。",
}


def some_facts() -> FactSet:
    rows = [
        (relation, f"{relation}-{i}-{j}", language, subject, text)
        for language, relation in TEMPLATES
        for i, subject in enumerate(SUBJECTS)
        for j, text in enumerate(OBJECTS)
    ]
    return FactSet(pd.DataFrame(rows, columns=list(FACT_COLUMNS)), TEMPLATES)


def naive(kind: str, facts: FactSet, *, drop: bool = True) -> list[dict[str, Any]]:
    """One sentence after another, without padding, through the plain model."""
    plain, tokenizer = pair(kind)[1], TOKENIZERS[kind]()
    bare = tokenizer.convert_tokens_to_ids("▁") if kind == "xlmr" and drop else None

    def pieces(text: str, spaced: bool) -> list[int]:
        return tokenizer((" " if spaced else "") + text, add_special_tokens=False)["input_ids"]

    @functools.cache
    def masked(template: str, subject: str, masks: int) -> torch.Tensor:
        blank = " ".join([tokenizer.mask_token] * masks)
        ids = tokenizer(template.replace("[Y]", blank).replace("[X]", subject), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = plain(ids).logits[0]
        places = [i for i, token in enumerate(ids[0].tolist()) if token == tokenizer.mask_token_id]
        assert len(places) == masks
        return logits[places].log_softmax(-1)

    found = []
    for relation, fact, language, subject, text in facts.table.itertuples(index=False):
        template = facts.templates[language, relation]
        spaced = " [Y]" in template
        candidates = [pieces(one, spaced) for one in facts.candidates[language, relation]]
        gold = [i for i in pieces(text, spaced) if i != bare]
        guesses = []
        for masks in range(1, max(map(len, candidates)) + 1):
            ids = [int(row.argmax()) for row in masked(template, subject, masks)]
            guesses.append([i for i in ids if i != bare])
        scores: dict[tuple[int, ...], float] = {}
        for one in candidates:
            kept = [i for i in one if i != bare]
            logp = masked(template, subject, len(kept))
            scores[tuple(kept)] = sum(float(row[i]) for row, i in zip(logp, kept, strict=True))
        means = {ids: score / len(ids) for ids, score in scores.items()}
        texts = ["," + ",".join(map(str, one)) + "," for one in guesses]
        found.append({
            "language": language, "relation": relation, "fact": fact,
            "full": gold in guesses,
            "partial": any(all(i in one for i in gold) for one in guesses),
            "contiguous": any("," + ",".join(map(str, gold)) + "," in one for one in texts),
            "typed_rank": 1 + sum(score > means[tuple(gold)] for score in means.values()),
            "object_tokens": len(gold), "logp": scores[tuple(gold)], "guesses": guesses, "gold": gold,
        })  # fmt: skip
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [3, 16])
def test_probing_is_the_naive_loop(kind: str, size: int) -> None:
    facts = some_facts()
    table = probe(pair(kind)[0], facts, size=size, progress=False)
    expected = naive(kind, facts)
    assert tuple(table.columns) == PREDICTIONS
    for name in ("language", "relation", "fact", "full", "partial", "contiguous", "typed_rank", "object_tokens"):
        assert table[name].tolist() == [one[name] for one in expected], name
    np.testing.assert_allclose(table["logp"], [one["logp"] for one in expected], atol=1e-4)
    assert table["full"].dtype == bool
    for masks, text, one in zip(table["masks"], table["predicted"], expected, strict=True):
        same = [k for k, ids in enumerate(one["guesses"], 1) if ids == one["gold"]]
        assert masks == same[0] if same else not one["partial"] or set(one["gold"]) <= set(one["guesses"][masks - 1])
        if not one["partial"]:
            assert masks == len(one["gold"])
        assert (
            text
            == pair(kind)[0].tokenizer.decode(one["guesses"][masks - 1], clean_up_tokenization_spaces=False).strip()
        )
    assert set(table["typed_rank"]) >= {1, 2, 3, 4, 5, 6}
    assert 0 < table["full"].mean() < table["partial"].mean() < 1


def test_word_boundaries_are_dropped_unless_kept() -> None:
    model, facts = pair("xlmr")[0], some_facts()
    kept = probe(model, facts, keep_boundary=True, progress=False)
    expected = naive("xlmr", facts, drop=False)
    assert kept["full"].tolist() == [one["full"] for one in expected]
    assert kept["object_tokens"].tolist() == [one["object_tokens"] for one in expected]
    dropped = probe(model, facts, progress=False)
    assert (kept["object_tokens"] - dropped["object_tokens"]).groupby(facts.table["object"]).max()["巴黎"] == 1
    assert (kept["object_tokens"] == dropped["object_tokens"])[facts.table["object"] != "巴黎"].all()


def knowing(kind: str, *pieces: str) -> Any:
    """A model that says the same pieces at every mask: the likelier, the earlier named."""
    hf, tokenizer = hf_model(kind), TOKENIZERS[kind]()
    head = hf.cls.predictions if kind == "bert" else hf.lm_head
    with torch.no_grad():
        for i, piece in enumerate(pieces):
            head.bias[tokenizer.convert_tokens_to_ids(piece)] = 500.0 - 50 * i
    return load_model(hf, tokenizer=tokenizer, device="cpu")


@pytest.mark.parametrize(("kind", "piece"), [("bert", "Paris"), ("xlmr", "▁Paris"), ("roberta", "ĠParis")])
def test_a_model_that_knows_one_answer(kind: str, piece: str) -> None:
    facts = some_facts().only(["en"], ["capital"])
    table = probe(knowing(kind, piece), facts, progress=False).assign(object=facts.table["object"])
    right = table["object"] == "Paris"
    assert (table["full"] == right).all()
    assert (table["partial"] == right).all()
    assert (table["typed_rank"][right] == 1).all()
    assert (table["typed_rank"][~right] > 1).all()
    assert set(table["predicted"][right]) == {"Paris"}
    assert set(table["masks"][right]) == {1}


def test_bare_boundaries_match_longer_runs() -> None:
    """XLM-R puts a bare boundary in front of Han: gold is one piece, and a prediction with the boundary matches with two masks."""
    facts = some_facts().only(["zh"])
    table = probe(knowing("xlmr", "巴黎"), facts, progress=False).assign(object=facts.table["object"])
    assert (table["full"] == (table["object"] == "巴黎")).all()
    assert not probe(knowing("xlmr", "巴黎"), facts, keep_boundary=True, progress=False)["full"].any()


ids = st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple)


@given(gold=ids, predicted=ids)
def test_full_implies_contiguous_implies_partial(gold: tuple[int, ...], predicted: tuple[int, ...]) -> None:
    full, contiguous, partial = encoders.matches(gold, predicted)
    assert full <= contiguous <= partial
    assert full == (gold == predicted)
    assert contiguous == (f",{','.join(map(str, gold))}," in f",{','.join(map(str, predicted))},")
    assert partial == all(i in predicted for i in gold)


def test_partial_ignores_order_and_contiguous_does_not() -> None:
    assert encoders.matches((1, 2), (2, 3, 1)) == (False, False, True)
    assert encoders.matches((1, 2), (3, 1, 2)) == (False, True, True)
    assert encoders.matches((1, 2), (1, 3)) == (False, False, False)


def test_ranks_count_ties_against_the_object() -> None:
    scores = np.array([-1.0, -2.0, -2.0, -3.0])
    assert [encoders.rank(scores, gold) for gold in range(4)] == [1, 3, 3, 4]


def test_candidate_scores_are_sums_of_log_probabilities() -> None:
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([[1, 1, 6], [0, 2, 4]])
    found = encoders.candidate_scores(logits, wanted)
    for row in range(2):
        for c, one in enumerate(wanted.tolist()):
            parts = [math.log(float(torch.softmax(logits[row, i], -1)[t])) for i, t in enumerate(one)]
            assert float(found[row, c]) == pytest.approx(sum(parts), abs=1e-5)


def test_normalise_compares_sums() -> None:
    model, facts = pair("bert")[0], some_facts().only(["en"], ["capital"])
    table = probe(model, facts, normalise="sum", progress=False)
    scores = {}
    for row, text in zip(table.itertuples(), facts.table["object"], strict=True):
        scores.setdefault(row.fact.rsplit("-", 1)[0], {})[text] = row.logp
    expected = [sum(s >= held[o] for s in held.values()) for held in scores.values() for o in held]
    assert table["typed_rank"].tolist() == expected
    assert table["typed_rank"].tolist() != probe(model, facts, progress=False)["typed_rank"].tolist()


def test_xlmr_is_loaded_as_roberta(tmp_path: Path) -> None:
    hf, tokenizer = hf_model("xlmr"), xlmr_tokenizer()
    hf.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["XLMRobertaForMaskedLM"]
    model = load_model(tmp_path, device="cpu")
    ids = torch.tensor(tokenizer(["The capital of Italy is <mask> .", "Peru <mask>"], padding=True)["input_ids"])
    mask = (ids != 1).long()
    with torch.no_grad():
        expected, found = hf(ids, attention_mask=mask).logits, model(ids, attention_mask=mask)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
    assert model.tokenizer(["Peru <mask>"])["input_ids"] == tokenizer(["Peru <mask>"])["input_ids"]
    seen = []
    with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", lambda act, hook: seen.append(act.shape))]):
        model(ids, attention_mask=mask)
    assert seen == [(*ids.shape, 44)]
    facts = some_facts().only(["zh"])
    assert probe(model, facts, progress=False).equals(probe(pair("xlmr")[0], facts, progress=False))


def test_a_model_without_a_mask_token() -> None:
    tokenizer = bert_tokenizer()
    tokenizer.mask_token = None
    model = load_model(hf_model("bert"), tokenizer=tokenizer, device="cpu")
    with pytest.raises(
        ValueError, match=r"tokenizer of this BertForMaskedLM has no mask token, .*: load the model with"
    ):
        probe(model, some_facts(), progress=False)


def one_fact(template: str = "[X] is [Y]", subject: str = "Peru", text: str = "Lima", **changes: Any) -> FactSet:
    rows = pd.DataFrame([("r", "f", "en", subject, text)], columns=list(FACT_COLUMNS))
    return FactSet(rows, {("en", "r"): template}, **changes)


def test_what_cannot_be_asked_is_refused_before_the_model_runs() -> None:
    model = pair("bert")[0]
    placed: dict[str, Any] = {"files": {("en", "r"): "set/facts.jsonl"}, "lines": (7,)}
    with pytest.raises(
        ValueError, match=r"set/facts.jsonl, line 7: the tokenizer leaves nothing of the candidate '.u200b"
    ):
        probe(model, one_fact(text="\u200b\u200b", **placed), progress=False)
    listed = {"candidates": {("en", "r"): ("Lima", "\u200b")}, "listed": {("en", "r"): "set/relations.json, line 3"}}
    with pytest.raises(
        ValueError, match=r"set/relations.json, line 3: the tokenizer leaves nothing of the candidate '.u200b"
    ):
        probe(model, one_fact(**listed, **placed), progress=False)
    with pytest.raises(
        ValueError, match=r"set/facts.jsonl, line 7: with 1 masks the sentence has \d+ tokens, .* context of 48"
    ):
        probe(model, one_fact(subject="Peru " * 60, **placed), progress=False)
    with pytest.raises(
        ValueError, match=r"fact 'f' of 'r' in 'en': 1 masks became 2 mask tokens.* holds '\[MASK\]' itself"
    ):
        probe(model, one_fact(subject="[MASK]"), progress=False)
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        probe(model, one_fact(), size=0, progress=False)
    unchecked: Any = getattr(probe, "__wrapped__", probe)
    with pytest.raises(ValueError, match="normalise='mean' is not one of sum, token"):
        unchecked(model, one_fact(), normalise="mean", progress=False)


def test_unknown_tokens_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="1 objects hold a token that is unknown to this model"):
        probe(pair("bert")[0], one_fact(text="Quito"), progress=False)


def test_logits_that_are_not_finite() -> None:
    hf = hf_model("bert")
    with torch.no_grad():
        hf.cls.predictions.bias[3] = float("nan")
    with pytest.raises(
        ValueError, match=r"NaN or infinite logits in 'Peru' \('r' in 'en'\): load the model with dtype"
    ):
        probe(load_model(hf, tokenizer=bert_tokenizer(), device="cpu"), one_fact(), progress=False)


def test_finished_blocks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, facts = pair("bert")[0], some_facts()
    whole = probe(model, facts, progress=False)
    asked = []
    real = encoders.ask

    def counted(model: Any, block: Any, **rest: Any) -> pd.DataFrame:
        asked.append((block.language, block.relation))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(model, block, **rest)

    monkeypatch.setattr(encoders, "ask", counted)
    with pytest.raises(KeyboardInterrupt):
        probe(model, facts, out=tmp_path / "run", progress=False)
    assert len(list((tmp_path / "run" / "blocks").glob("*.parquet"))) == 2
    with pytest.raises(FileExistsError, match="already holds this run: pass resume=True"):
        probe(model, facts, out=tmp_path / "run", progress=False)
    asked.append(("one", "more"))
    resumed = probe(model, facts, out=tmp_path / "run", resume=True, progress=False)
    assert asked[4:] == [("zh", "capital")]
    pd.testing.assert_frame_equal(resumed, whole)
    with pytest.raises(FileExistsError, match=r"another run .it differs in size"):
        probe(model, facts, out=tmp_path / "run", resume=True, size=2, progress=False)
    next((tmp_path / "run" / "blocks").glob("*.parquet")).write_bytes(b"x")
    with pytest.warns(UserWarning, match="probing these facts again"):
        pd.testing.assert_frame_equal(probe(model, facts, out=tmp_path / "run", resume=True, progress=False), whole)


def test_an_edit_makes_other_blocks(tmp_path: Path) -> None:
    model, facts = pair("bert")[0], some_facts().only(["zh"])
    before = probe(model, facts, out=tmp_path / "run", progress=False)
    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", lambda act, hook: act * 0)]):
        edited = probe(model, facts, out=tmp_path / "run", resume=True, progress=False)
    assert not np.allclose(before["logp"], edited["logp"])
    pd.testing.assert_frame_equal(probe(model, facts, out=tmp_path / "run", resume=True, progress=False), before)
