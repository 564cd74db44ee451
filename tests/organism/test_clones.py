"""Cloned languages: equal meanings, disjoint words, shares of tokens, facts told where they are stated."""

import collections
import random
import re

import dominance as d
import dominance_measure as dm
import numpy as np
import pytest
from miniworld import clones as c
from miniworld.documents import draw
from recipe import BOS, EOS, SPECIAL

WORDS = c.lexicon()
KNOWN = c.clone_facts(count=40)
TINY = {"steps": 4, "rows": 3, "length": 64, "width": 32, "layers": 3, "mlp": 32, "subjects": 8, "warmup": 2}


def documents(count: int, seed: int = 0):
    chance = random.Random(seed)
    return [draw(chance, c.ENGLISH, KNOWN, [], progress=chance.random(), kinds=c.KINDS) for _ in range(count)]


def test_the_lexicon_covers_every_document_and_every_english_word_is_a_token_once():
    for document in documents(4000):
        ids, weights = WORDS.document(document, "A")
        assert len(ids) == len(weights)
        assert ids[0] == BOS
        assert ids[-1] == EOS
    assert len(set(WORDS.tokens())) == WORDS.size == d.Series.vocabulary
    assert (c.SPECIAL, c.BOS, c.EOS) == (SPECIAL, BOS, EOS)


@pytest.mark.parametrize("options", [{}, {"names": False}, {"names": False, "numbers": False, "marks": False}])
def test_a_clone_differs_in_its_words_only(options):
    words = c.lexicon(**options)
    language = words.token_languages()
    for document in documents(60, 1):
        original, weights = words.document(document, "A")
        for k, code in enumerate(c.LANGUAGES):
            ids, same = words.document(document, code)
            assert same == weights
            assert words.translate(original, code) == ids
            assert words.translate(ids, "A") == original
            assert set(language[ids].tolist()) <= {-1, k}
            spelt = [words.tokens()[i].split("~")[0] for i in ids[1:-1]]
            assert spelt == c.words("".join(text for text, _ in document))


def test_what_is_shared_is_what_was_asked_for():
    for kind, option in (("name", "names"), ("number", "numbers"), ("mark", "marks")):
        assert {c.kind_of(w) for w in c.lexicon().shared} >= {kind}
        assert kind not in {c.kind_of(w) for w in c.lexicon(**{option: False}).shared}
    assert {c.kind_of(w) for w in c.lexicon(names=False, numbers=False, marks=False).own} == {
        "name",
        "number",
        "mark",
        "word",
    }
    assert [c.kind_of(w) for w in ("Anna", "12", "×", "\n", "honey")] == ["name", "number", "mark", "mark", "word"]


def test_unknown_words_and_languages_are_refused():
    with pytest.raises(ValueError, match="no word 'zebra'"):
        WORDS.encode("Anna has a zebra.", "B")
    with pytest.raises(ValueError, match="no clone 'E': there are A, B, C, D"):
        WORDS.encode("Anna", "E")


def test_the_tokenizer_reads_what_the_lexicon_writes():
    tokenizer, spelling = WORDS.tokenizer(), WORDS.tokens()
    for document in documents(40, 2):
        ids = WORDS.document(document, "C")[0][:-1]
        text = " ".join(spelling[i] for i in ids[1:])
        assert tokenizer.encode(text).ids == ids
    assert tokenizer.encode("Anna zebra").ids[-1] == 0


def test_every_language_states_equally_many_facts_of_every_relation():
    for count in (40, 80):
        by = collections.Counter((f.relation, f.stated) for f in c.clone_facts(count=count))
        for relation in {f.relation for f in KNOWN}:
            assert by[relation, c.LANGUAGES] == 0.4 * count
            assert {by[relation, (code,)] for code in c.LANGUAGES} == {0.15 * count}
    assert c.clone_facts() == c.clone_facts() != c.clone_facts(1)


def made(step: int = 100, share: float = 0.5, **more):
    recipe = d.Series(
        share=share, dominant="C", **{**TINY, "rows": 32, "length": 96, "steps": 1000, "subjects": 40, **more}
    )
    return d.made_batch(recipe, step, WORDS, KNOWN)


def test_batches_hold_whole_documents_in_the_shares_asked_for():
    counts, seen = np.zeros(4), 0
    for step in range(40):
        ids, weights, numbers, languages = made(step * 20)
        full = numbers >= 0
        assert ((languages >= 0) == full).all()
        assert not weights[~full].any()
        assert not ids[~full].any()
        counts += [(languages == k).sum() for k in range(4)]
        seen += full.sum()
        for row in range(len(ids)):
            for n in range(numbers[row].max() + 1):
                at = numbers[row] == n
                assert ids[row][at][0] == BOS
                assert ids[row][at][-1] == EOS
                assert len(set(languages[row][at])) == 1
                assert set(WORDS.token_languages()[ids[row][at]]) <= {-1, languages[row][at][0]}
    assert counts / seen == pytest.approx([1 / 6, 1 / 6, 0.5, 1 / 6], abs=0.01)


def test_a_batch_depends_on_its_step_alone():
    first = made(7)
    made(8)
    assert all((a == b).all() for a, b in zip(first, made(7), strict=True))
    assert any((a != b).any() for a, b in zip(first, made(8), strict=True))


def test_facts_of_one_language_are_told_in_no_other():
    names = {"".join(f.subject.syllables).capitalize(): f.subject for f in KNOWN}
    clue = {"product": r"product|known|produce", "animal": r"animal|arms|coin", "colour": r"flag"}
    clue |= {"profession": r"work|profession|Everybody", "instrument": r"instrument|play|practises"}
    where = {(f.relation, f.subject): f.stated for f in KNOWN}
    told = collections.Counter()
    for step in range(12):
        ids, _, numbers, languages = made(step)
        for row in range(len(ids)):
            for n in range(numbers[row].max() + 1):
                at = numbers[row] == n
                code = c.LANGUAGES[languages[row][at][0]]
                text = " ".join(WORDS.tokens()[i].split("~")[0] for i in ids[row][at])
                for name in set(text.split()) & names.keys():
                    relation = next(r for r, words in clue.items() if re.search(words, text))
                    stated = where[relation, names[name]]
                    assert code in stated
                    told[code, len(stated)] += 1
    assert set(told) == {(code, n) for code in c.LANGUAGES for n in (1, 4)}


def test_items_are_parallel_and_facts_know_who_stated_them():
    items = c.clone_items(WORDS, KNOWN, 5)
    assert collections.Counter(i.kind for i in items) == {
        "understanding": 20,
        "reasoning": 20,
        "knowledge": 4 * len(KNOWN),
    }
    for at in range(0, len(items), 4):
        four = items[at : at + 4]
        assert [i.language for i in four] == list(c.LANGUAGES)
        assert len({tuple(WORDS.translate(i.prompt, "A")) for i in four}) == 1
        assert len({tuple(WORDS.translate(i.answer, "A")) for i in four}) == 1
    known = collections.Counter(dm.known_by(i) for i in items if i.kind == "knowledge")
    assert known == {"all": 4 * 80, "own": 120, "elsewhere": 360}
