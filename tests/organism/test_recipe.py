"""Batches and loss of the recipe: shares, weights on the answers alone, packed rows that do not see one another, exact resume."""

import collections
import functools
import json
import random
import re
import sys

import numpy as np
import pytest
import recipe as r
import torch
import train as t
from miniworld.documents import ANSWER, CONTENT, KINDS, PLAIN, VALUE, draw, roll
from miniworld.languages import CODES, grammar
from miniworld.meaning import NAMES
from miniworld.sampling import draw_roll
from miniworld.world import held_out_claim

PLAIN_TEXT = {code: [] for code in CODES}
TINY = {"rows": 4, "width": 32, "layers": 2, "mlp": 32, "vocabulary": 4096, "steps": 4, "warmup": 2}


@functools.cache
def tokenizer():
    """Of an eighth of the generated sentences, in the order of the generator."""
    texts = r.lexicon_texts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(r, "lexicon_texts", lambda: [text for i, text in enumerate(texts) if i // 8 % 8 == 0])
        return r.train_tokenizer(PLAIN_TEXT, 4096)


@functools.cache
def encoder():
    return r.Encoder(tokenizer())


@functools.cache
def stated():
    return r.stated_facts()


def made(step: int, **more):
    return r.batch(r.Recipe(**(TINY | {"rows": 12, "steps": 1000} | more)), step, encoder(), PLAIN_TEXT, stated())


def documents(code: str, count: int, kinds=KINDS, plain=()):
    chance = random.Random(f"{code}-test")
    return [
        draw(chance, grammar(code), stated()[code], plain, progress=chance.random(), kinds=kinds) for _ in range(count)
    ]


def rows_of(batch):
    """(ids, weights) of each document."""
    ids, weights, numbers = batch
    return [
        (ids[row][numbers[row] == n], weights[row][numbers[row] == n])
        for row in range(len(ids))
        for n in range(numbers[row].max() + 1)
    ]


def language_of(text: str) -> str:
    """By the label of the question or headline, else by the script; "" where neither tells."""
    for code in CODES:
        if any(
            re.search(rf"(^|\n){re.escape(label)}", text) for label in (grammar(code).question, grammar(code).headline)
        ):
            return code
    return ""


def test_shares_of_a_recipe_are_those_asked_for():
    shares = r.Recipe(english=0.5, low=0.1).shares()
    assert shares == pytest.approx({"en": 0.5, "sw": 0.1} | dict.fromkeys(["de", "fr", "es", "ru", "zh"], 0.08))
    assert sum(r.Recipe().shares().values()) == pytest.approx(1)


@pytest.mark.slow
def test_tokens_have_their_languages_shares():
    kinds = {"understanding": 0.5, "reasoning": 0.5}  # every document has a label that tells its language
    counts = collections.Counter()
    labels = {label: code for code in CODES for label in [grammar(code).question]}
    assert len(labels) == 7
    for step in range(0, 300, 10):
        for ids, _ in rows_of(made(step, rows=8, kinds=kinds, english=0.4, low=0.05)):
            counts[language_of(tokenizer().decode(ids.tolist()))] += len(ids)
    assert counts[""] == 0
    total = sum(counts.values())
    for code, share in r.Recipe().shares().items():
        assert counts[code] / total == pytest.approx(share, abs=0.015)


def test_rows_hold_whole_documents_one_after_the_other():
    for step in (0, 500):
        ids, weights, numbers = made(step)
        assert ids.shape == weights.shape == numbers.shape == (12, 160)
        for row in range(len(ids)):
            full = numbers[row] >= 0
            assert full[: full.sum()].all()  # padding is at the end
            assert not weights[row][~full].any()
            assert not ids[row][~full].any()
            assert (np.diff(numbers[row][full]) >= 0).all()
            assert ((ids[row] == r.BOS) == (np.diff(numbers[row], prepend=-1) > 0)).all()
            assert (ids[row] == r.EOS).sum() == numbers[row].max() + 1
        assert (numbers >= 0).mean() > 0.85
        for tokens, weight in rows_of((ids, weights, numbers)):
            assert tokens[0] == r.BOS
            assert tokens[-1] == r.EOS
            assert weight[0] == 0
            assert weight[-1] == 1


@pytest.mark.parametrize("code", CODES)
def test_the_tokens_that_weigh_most_are_exactly_the_answers(code):
    for document in documents(code, 60, plain=["Una linea."]):
        ids, weights = encoder()(document)
        assert len(ids) == len(weights)
        for level in (ANSWER, VALUE, CONTENT, PLAIN):
            want = "".join(text for text, weight in document if weight == level)
            got = [i for i, w in zip(ids[:-1], weights[:-1], strict=True) if w == level]
            assert tokenizer().decode(got).replace(" ", "") == want.replace(" ", "")
        assert not set(weights) - {0.0, ANSWER, VALUE, CONTENT, PLAIN}


def test_a_batch_is_a_function_of_seed_and_step():
    alone = made(7)
    made(3)
    for one, again, other, seed in zip(alone, made(7), made(8), made(7, seed=1), strict=True):
        assert (one == again).all()
        assert (one != other).any()
        assert (one != seed).any()
    recipe = r.Recipe(**TINY)
    late = list(r.batches(recipe, 2, encoder(), PLAIN_TEXT))
    for one, two in zip(list(r.batches(recipe, 0, encoder(), PLAIN_TEXT))[2:], late, strict=True):
        assert all((a == b).all() for a, b in zip(one, two, strict=True))


@functools.cache
def packed():
    """A batch without weights between 0 and 1, which are drawn at random."""
    ids, weights, numbers = made(400, rows=3)
    return ids, np.where(weights < 1, 0, weights).astype(np.float32), numbers


def test_the_loss_of_packed_rows_is_that_of_the_documents_alone():
    recipe = r.Recipe(**TINY)
    model, chance = t.build(recipe).eval(), torch.Generator()
    with torch.no_grad():
        got = float(t.loss_of(model, model.model, *packed(), chance.manual_seed(0)))
        total = weight = 0.0
        for ids, weights in rows_of(packed()):
            logits = model(input_ids=torch.from_numpy(ids)[None]).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[1:]), reduction="none")
            total += float((losses * torch.from_numpy(weights[1:])).sum())
            weight += weights[1:].sum()
        assert got == pytest.approx(total / weight, rel=1e-5)
        ids, weights, numbers = packed()  # the same with documents that see one another: the test would notice
        merged = float(t.loss_of(model, model.model, ids, weights, np.where(numbers < 0, -1, 0), chance.manual_seed(0)))
        assert abs(merged - got) > 1e-5


def test_no_token_sees_what_comes_after_it():
    model = t.build(r.Recipe(**TINY)).eval()
    seen = []

    def run(input_ids, attention_mask):
        out = model.model(input_ids=input_ids, attention_mask=attention_mask)
        seen.append(out.last_hidden_state)
        return out

    ids, weights, numbers = packed()
    other = ids.copy()
    other[0, 60] = 999
    with torch.no_grad():
        for given in (ids, other):
            t.loss_of(model, run, given, weights, numbers, torch.Generator().manual_seed(0))
    changed = (seen[0] - seen[1]).abs().amax(-1)[0] > 0
    later = (np.arange(len(changed)) >= 60) & (numbers[0] == numbers[0, 60])
    assert not changed[~torch.from_numpy(later)].any()
    assert changed[60:][later[60:]].all()


def test_light_tokens_are_predicted_in_proportion():
    ids, weights, numbers = made(400)
    model = t.build(r.Recipe(**TINY)).eval()
    with torch.no_grad():
        full = float(t.loss_of(model, model.model, *packed(), torch.Generator().manual_seed(0)))
        drawn = {
            float(t.loss_of(model, model.model, ids, weights, numbers, torch.Generator().manual_seed(s)))
            for s in (0, 0, 1)
        }
    assert len(drawn) == 2
    assert max(drawn) == pytest.approx(full, rel=0.1)


def test_the_rate_rises_stays_and_falls_to_nothing():
    recipe = r.Recipe(steps=1000, warmup=100, decay=0.4)
    rates = [t.rate(recipe, step) for step in range(1001)]
    assert rates[0] == 0.01
    assert set(rates[99:601]) == {1.0}
    assert rates[800] == pytest.approx(0.5)
    assert rates[999] == pytest.approx(1 / 400)
    assert rates[1000] == 0
    assert rates[:100] == sorted(rates[:100])
    assert rates[600:] == sorted(rates[600:], reverse=True)


def test_a_roll_has_one_relation_and_asks_for_every_person():
    chance = random.Random(0)
    for code in CODES:
        for persons in (2, 3, 4):
            made = roll(chance, grammar(code), persons)
            asked = [text for text, weight in made if weight == CONTENT][1:]
            answers = [text.strip() for text, weight in made if weight == ANSWER][:-1]
            assert len(asked) == len(answers) == len(set(answers)) == persons
            assert all(answer in made[0][0] for answer in answers), (code, made)


def test_claims_of_a_roll_differ_in_person_and_value_only_and_are_of_training():
    chance = random.Random(1)
    for persons in (2, 4):
        for _ in range(200):
            claims = draw_roll(chance, persons, names=NAMES[:5])
            assert len({c.person for c in claims}) == len({c.value for c in claims}) == persons
            assert len({(c.relation, c.thing) for c in claims}) == 1
            assert {c.person for c in claims} <= set(NAMES[:5])
            assert not any(held_out_claim(c) for c in claims)


def test_the_curriculum_begins_with_few_persons_and_ends_with_the_recipes_shares():
    recipe = r.Recipe()
    first, few = recipe.curriculum(0.0)
    still, same = recipe.curriculum(recipe.binding)
    last, everybody = recipe.curriculum(1.0)
    assert first == still
    assert few == same
    assert len(few) == r.FEW
    assert sorted(everybody) == sorted(NAMES)
    assert first["understanding"] == first["roll"] == pytest.approx(0.35)
    assert last["understanding"] + last["roll"] == pytest.approx(recipe.kinds["understanding"])
    assert all(sum(recipe.curriculum(p)[0].values()) == pytest.approx(1) for p in (0.0, 0.2, 0.4, 0.5, 0.9))
    sizes = [len(recipe.curriculum(p / 50)[1]) for p in range(51)]
    assert sizes == sorted(sizes)
    assert len(r.Recipe(binding=0.0).curriculum(0.0)[1]) == len(NAMES)


def test_early_batches_name_few_persons():
    spoken = {name.capitalize() for name in NAMES}

    def named(step):
        found = collections.Counter()
        for ids, _ in rows_of(made(step)):
            text = tokenizer().decode(list(ids))
            if grammar("en").question in text and "How many" not in text:
                found += collections.Counter(spoken & set(re.findall(r"[A-Z]\w+", text)))
        return found

    assert len(sum((named(step) for step in range(4)), collections.Counter())) == r.FEW
    assert len(sum((named(step) for step in range(900, 904)), collections.Counter())) > 12


def run_script(monkeypatch, out, *more):
    """train.py with a tiny recipe."""
    small = r.Recipe(**TINY)
    monkeypatch.setattr(
        t,
        "Recipe",
        functools.partial(r.Recipe, **{k: v for k, v in TINY.items() if k not in t.CHOICES}),
    )
    for name in t.CHOICES:
        monkeypatch.setattr(t.Recipe, name, getattr(small, name), raising=False)
    monkeypatch.setattr(t, "COUNTS", {"understanding": 1})
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(out), "--every", "2", *more])
    t.main()


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path, monkeypatch, capsys):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        tokenizer().save(str(tmp_path / name / "tokenizer.json"))
    run_script(monkeypatch, tmp_path / "one")
    for _ in range(4):  # each run is late after its first step
        run_script(monkeypatch, tmp_path / "two", "--minutes", "0")
    assert not (tmp_path / "two/model").exists()
    run_script(monkeypatch, tmp_path / "two")
    one, two = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in ("one", "two"))
    assert one["step"] == two["step"] == 4
    for key, value in one["model"].items():
        torch.testing.assert_close(value, two["model"][key], rtol=1e-5, atol=1e-7)
    assert (tmp_path / "two/model/model.safetensors").exists()
    with pytest.raises(SystemExit, match="another recipe"):
        run_script(monkeypatch, tmp_path / "one", "--seed", "3")


def test_natural_text_needs_every_language_and_leaves_out_the_held_out_head(tmp_path):
    assert r.natural(None, 0.1) == PLAIN_TEXT
    for code in CODES[:-1]:
        (tmp_path / f"{code}.txt").write_text(
            "".join(f"{code} {i}\n" for i in range(50)) + "\n" + "x" * 500 + "\n", encoding="utf-8"
        )
    with pytest.raises(
        FileNotFoundError, match=r"sw.txt is missing: give a folder with a text file for each of en, de"
    ):
        r.natural(tmp_path, 0.1)
    (tmp_path / "sw.txt").write_text("moja\n", encoding="utf-8")
    found = r.natural(tmp_path, 0.1)
    assert found["en"] == [f"en {i}" for i in range(5, 50)]
    assert found["sw"] == ["moja"]
    assert len(r.natural(tmp_path, 0.1, longest=600)["en"]) == 46


def test_a_recipe_is_written_as_it_is(tmp_path):
    r.Recipe(seed=3).save(tmp_path / "recipe.json")
    assert r.Recipe(**json.loads((tmp_path / "recipe.json").read_text())) == r.Recipe(seed=3)
