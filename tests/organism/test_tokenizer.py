"""The tokenizer of the recipe: nothing is lost, nothing merges across words, byte tokens are text."""

import functools
import json
import random
import re

import pytest
import recipe as r
import train as t
from miniworld.documents import KINDS, draw
from miniworld.languages import CODES, grammar
from tokenizers import Tokenizer

PLAIN_TEXT = {code: [] for code in CODES}
TINY = {"width": 32, "layers": 2, "mlp": 32, "vocabulary": 4096}


@functools.cache
def tokenizer():
    """Of an eighth of the generated sentences, in the order of the generator."""
    texts = r.lexicon_texts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(r, "lexicon_texts", lambda: [text for i, text in enumerate(texts) if i // 8 % 8 == 0])
        return r.train_tokenizer(PLAIN_TEXT, 4096)


def documents(code: str, count: int, kinds=KINDS, plain=()):
    chance = random.Random(f"{code}-test")
    return [
        draw(chance, grammar(code), r.stated_facts()[code], plain, progress=chance.random(), kinds=kinds)
        for _ in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES)
def test_every_generated_text_survives_the_tokenizer(code):
    for document in documents(code, 120):
        text = "".join(part for part, _ in document)
        ids = tokenizer().encode(text).ids
        assert ids[0] == r.BOS
        assert tokenizer().decode(ids) == text


def test_byte_tokens_are_kept_by_a_decoder_that_skips_special_ones(tmp_path):
    from transformers import PreTrainedTokenizerFast

    t.export(t.build(r.Recipe(**TINY)), tokenizer(), tmp_path, 64)
    read = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "Is it?\nYes: ☃"
    assert read.decode(read(text).input_ids, skip_special_tokens=True) == text
    assert read.all_special_ids == [r.BOS, r.EOS, 0]


def test_making_bytes_plain_changes_no_id():
    state = json.loads(tokenizer().to_str())
    special = [{"id": 3 + b, "content": f"<0x{b:02X}>", "special": True} for b in range(256)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    state["added_tokens"] += [token | plain for token in special]
    before = Tokenizer.from_str(json.dumps(state))
    after = r.plain_bytes(before)
    lost = 0
    for code in CODES:
        for document in documents(code, 40):
            text = "".join(part for part, _ in document) + " ☃"
            one, two = before.encode(text), after.encode(text)
            assert (one.ids, one.offsets) == (two.ids, two.offsets)
            lost += before.decode(one.ids) != text  # the control: special bytes are lost
            assert after.decode(two.ids) == text
    assert lost == 40 * len(CODES)


def test_bytes_carry_what_was_never_seen():
    for text in ("Ωmega ☃ zebra", "सब 한국어", "naïve  two spaces"):
        assert tokenizer().decode(tokenizer().encode(text).ids) == text


def test_no_token_spans_words_numbers_marks_or_lines():
    whole = tokenizer().get_vocab()
    for token in whole:
        if token in r.SPECIAL or re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            continue
        body = token.removeprefix("▁")
        assert "▁" not in body, token
        assert re.fullmatch(r"\d*|[^\d\W]+|[^\w\s]+|\n|", body), token
        assert len(body) == 1 or not re.search(r.MARKS, body), token
    assert any(re.fullmatch(r"▁\d\d", token) for token in whole)
    assert "\n" in whole


def test_generated_words_are_mostly_one_token():
    for code in ("en", "de", "ru", "sw"):
        text = " ".join(
            "".join(part for part, _ in document) for document in documents(code, 100, {"understanding": 1.0})
        )
        pieces = len(tokenizer().encode(text).ids) / len(re.findall(r"\w+|[^\w\s]|\n", text))
        assert pieces < 1.15, code
