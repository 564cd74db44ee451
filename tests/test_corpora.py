"""Documents, their parts, and what becomes of them as tokens."""

import json
import random
import re
import unicodedata
from collections import Counter

import datasets
import families
import jaxtyping
import pytest
import torch
from conftest import pair
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.corpora import (
    Corpus,
    Tokens,
    batches,
    context_length,
    encode,
    load_corpora,
    pad,
    token_counts,
    token_limit,
)

LANGUAGES = ("de", "en", "es", "fr", "ru", "zh")


def corpus(n, language="de"):
    return Corpus(language, tuple(f"text {i}" for i in range(n)), tuple(f"id{i}" for i in range(n)))


# --- sources ---


def test_a_folder_of_texts_and_json_lines(tmp_path):
    (tmp_path / "de.txt").write_text("Ein Haus.\r\n\n  Zwei Häuser.  \n", encoding="utf-8")
    rows = [{"id": "a", "text": " A house. "}, {"id": "b", "text": "Two\nhouses."}]
    (tmp_path / "en.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    (tmp_path / "zh.txt").write_bytes("\ufeff房子。".encode())
    found = load_corpora(tmp_path)
    assert set(found) == {"de", "en", "zh"}
    assert found["de"].texts == ("Ein Haus.", "Zwei Häuser.")
    assert found["de"].ids == ("0", "1")
    assert list(found["en"].documents()) == [("a", "A house."), ("b", "Two\nhouses.")]
    assert found["zh"].texts == ("房子。",)
    assert list(load_corpora(str(tmp_path), ["zh", "de"])) == ["zh", "de"]
    assert found["en"].source == str(tmp_path)
    assert [len(c) for c in load_corpora(tmp_path, limit=1).values()] == [1, 1, 1]
    assert load_corpora(tmp_path, ["de"], limit=99)["de"] == found["de"]


def test_line_separators_inside_a_document_do_not_cut_it(tmp_path):
    (tmp_path / "en.txt").write_text("one\u2028still one\x0band on\ntwo", encoding="utf-8")
    assert len(load_corpora(tmp_path)["en"]) == 2


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_that_is_not_utf8_is_named_with_the_byte(mark, tmp_path):
    data = mark + "schön\n".encode() + "größer".encode("latin-1")
    (tmp_path / "de.txt").write_bytes(data)
    at = data.index(b"\xf6")
    with pytest.raises(ValueError, match=rf"de\.txt is not UTF-8: byte {at} is 0xf6\. Convert the file"):
        load_corpora(tmp_path)


@pytest.mark.parametrize("line", ["{not json", '{"id": "1"}', '["text"]', '{"text": 3}', '"text"', "null"])
def test_a_bad_json_line_is_named(line, tmp_path):
    (tmp_path / "de.jsonl").write_text('{"text": "gut"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=r"de\.jsonl, line 3: expected a JSON object"):
        load_corpora(tmp_path)


def test_empty_corpora_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no corpus: expected files such as en.txt"):
        load_corpora(tmp_path)
    (tmp_path / "de.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=f"corpus 'de' from {re.escape(str(tmp_path))} is empty"):
        load_corpora(tmp_path)
    with pytest.raises(ValueError, match="corpus 'de' from memory is empty"):
        load_corpora({"de": []})


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere: give a folder that holds en.txt"):
        load_corpora(tmp_path / "nowhere")


def test_languages_unknown_or_absent_are_refused(tmp_path):
    (tmp_path / "de.txt").write_text("Haus")
    for source in (tmp_path, {"de": ["Haus"]}, "embedded"):
        with pytest.raises(ValueError, match="unknown language 'xx'"):
            load_corpora(source, ["de", "xx"])
    for source in (tmp_path, {"de": ["Haus"]}):
        with pytest.raises(ValueError, match="no texts for language 'sw' in this source: it has de"):
            load_corpora(source, ["de", "sw"])
    with pytest.raises(ValueError, match="unknown language 'klingon'"):
        load_corpora({"klingon": ["nuqneH"]})


def test_texts_from_memory():
    found = load_corpora({"de": ["Haus"], "en": ("house", "home")}, ["en", "de"], limit=1)
    assert {language: c.texts for language, c in found.items()} == {"en": ("house",), "de": ("Haus",)}
    assert load_corpora({"de": corpus(3)})["de"].ids == ("id0", "id1", "id2")
    assert load_corpora({"de": ["ok"], "klingon": ["nuqneH"]}, ["de"]).keys() == {"de"}
    with pytest.raises(ValueError, match="the texts of 'de' are one string: give a list"):
        load_corpora({"de": "Haus"})
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"limit={limit}: give the largest number"):
            load_corpora({"de": ["Haus"]}, limit=limit)


def test_data_sets_of_the_datasets_library():
    made = {
        language: datasets.Dataset.from_dict({"text": [f"{language} {i}" for i in range(3)], "n": [0, 1, 2]})
        for language in ("de", "en")
    }
    for source in (made, datasets.DatasetDict(made)):
        found = load_corpora(source, ["en"], limit=2)
        assert found["en"].texts == ("en 0", "en 1")
        assert list(load_corpora(source)) == ["de", "en"]
    with pytest.raises(ValueError, match=r"the data set of 'de' has no column 'text', only \['body'\]: rename"):
        load_corpora({"de": datasets.Dataset.from_dict({"body": ["x"]})})


def test_corpora_check_their_ids():
    with pytest.raises(ValueError, match="corpus 'de' has 2 documents but 1 ids"):
        Corpus("de", ("a", "b"), ("1",))
    with pytest.raises(ValueError, match="corpus 'de' has two documents named '1'"):
        Corpus("de", ("a", "b"), ("1", "1"))
    with pytest.raises(AttributeError):
        corpus(1).language = "en"


@pytest.mark.parametrize(("text", "kind"), [(None, "NoneType"), (3, "int"), (b"Haus", "bytes")])
def test_a_text_that_is_no_string_is_named(text, kind, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would see it first
    with pytest.raises(ValueError, match=f"document 'b' of corpus 'de' is {kind}, not str: remove it"):
        Corpus("de", ("Haus", text), ("a", "b"))
    with pytest.raises(ValueError, match=f"document '1' of corpus 'de' is {kind}, not str"):
        load_corpora({"de": ["Haus", text]})


def test_a_hole_in_a_data_set_is_named(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    holed = datasets.Dataset.from_dict({"text": ["Haus", "Baum", None]})
    with pytest.raises(ValueError, match="document '2' of corpus 'de' is NoneType, not str"):
        load_corpora({"de": holed})


def test_the_fingerprint_changes_with_language_ids_and_texts():
    base = Corpus("de", ("a", "b"), ("1", "2"))
    assert base.fingerprint == Corpus("de", ("a", "b"), ("1", "2"), source="elsewhere").fingerprint
    others = [
        Corpus("en", ("a", "b"), ("1", "2")),
        Corpus("de", ("a", "c"), ("1", "2")),
        Corpus("de", ("a", "b"), ("1", "3")),
        Corpus("de", ("b", "a"), ("1", "2")),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert base.facts() == {"source": "memory", "revision": None, "documents": 2, "hash": base.fingerprint}


# --- parts ---


@given(n=st.integers(1, 60), of=st.integers(1, 60))
def test_shards_concatenate_to_the_corpus(n, of):
    whole = corpus(n)
    if of > n:
        with pytest.raises(ValueError, match=f"shard 0 of {of} does not exist for {n} documents"):
            whole.shard(0, of)
        return
    parts = [whole.shard(i, of) for i in range(of)]
    assert sum((part.texts for part in parts), ()) == whole.texts
    assert sum((part.ids for part in parts), ()) == whole.ids
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for outside in (-1, of):
        with pytest.raises(ValueError, match=f"shard {outside} of {of} does not exist"):
            whole.shard(outside, of)


@given(n=st.integers(1, 60), size=st.integers(1, 70))
def test_chunks_concatenate_to_the_corpus(n, size):
    whole = corpus(n)
    parts = whole.chunks(size)
    assert sum((part.ids for part in parts), ()) == whole.ids
    assert {len(part) for part in parts[:-1]} <= {size}
    assert all(part.language == "de" for part in parts)


def test_chunks_of_nothing_are_refused():
    with pytest.raises(ValueError, match="chunks of 0 documents do not exist: give at least 1"):
        corpus(3).chunks(0)


@given(n=st.integers(2, 90), share=st.floats(0.05, 0.95))
def test_a_split_is_disjoint_complete_and_the_same_in_parallel_corpora(n, share):
    whole, parallel = corpus(n), corpus(n, "en")
    if not 1 <= int(n * share) < n:
        with pytest.raises(ValueError, match=r"no document of corpus 'de' .* is left in this part"):
            whole.split(share)
        return
    rest, held = whole.split(share)
    assert sorted((*rest.ids, *held.ids)) == sorted(whole.ids)
    assert not set(rest.ids) & set(held.ids)
    assert [name for name in whole.ids if name in rest.ids] == list(rest.ids)  # in order
    assert len(held) == int(n * share)
    assert tuple(part.ids for part in parallel.split(share)) == (rest.ids, held.ids)


def test_a_split_of_a_large_corpus_takes_no_time():
    rest, held = corpus(30_000).split()  # quadratic, this takes minutes
    assert (len(rest), len(held)) == (20_000, 10_000)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 33.0])
def test_a_split_needs_a_share(share):
    with pytest.raises(ValueError, match=f"held_out={share} is not a share of documents"):
        corpus(9).split(share)


# --- the embedded texts ---


@pytest.fixture(scope="module")
def embedded():
    return load_corpora()


def test_the_embedded_texts_are_parallel(embedded):
    assert tuple(sorted(embedded)) == LANGUAGES
    assert len({found.ids for found in embedded.values()}) == 1
    assert len(embedded["en"]) >= 120
    assert {found.source for found in embedded.values()} == {"embedded"}
    everything = [text for found in embedded.values() for text in found.texts]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("language", LANGUAGES)
def test_embedded_passages_have_two_to_four_sentences(embedded, language):
    for name, text in embedded[language].documents():
        ends = re.findall(r"[.!?…]+[\"”»“']*(?=\s|$)|[。！？]+[”」]*", text)
        assert 2 <= len(ends) <= 4, (language, name, ends)
        assert unicodedata.normalize("NFC", text) == text
        assert text == text.strip()
        assert "\ufffd" not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_embedded_passages_are_written_in_their_script(embedded, language):
    wanted = {"ru": "CYRILLIC", "zh": "CJK"}.get(language, "LATIN")
    for name, text in embedded[language].documents():
        letters = Counter(unicodedata.name(c).split()[0] for c in text if c.isalpha())
        assert letters[wanted] > 0.8 * letters.total(), (language, name, letters)


def test_embedded_passages_are_in_their_language(embedded):
    """A handful of words nobody else has: each language's own are most frequent in its own texts."""
    words = {
        "de": "und der die nicht ist", "en": "the and of is was", "es": "el los una que las",
        "fr": "les des est et une", "ru": "и в не на что", "zh": "的 了 在 是 不",
    }  # fmt: skip
    for language, own in words.items():
        counts = {}
        for other in LANGUAGES:
            text = " ".join(embedded[other].texts).lower()
            pieces = list(text) if language == "zh" else re.findall(r"\w+", text)
            counts[other] = sum(pieces.count(word) for word in own.split())
        assert max(counts, key=counts.get) == language, counts


# --- batches ---


def words(*lengths, seed=0):
    """Documents of the tiny tokenizer, of the given lengths in words."""
    rng = random.Random(seed)
    return Corpus("de", tuple(" ".join(f"w{rng.randrange(90)}" for _ in range(n)) for n in lengths))


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=9), size=st.integers(1, 5))
def test_batches_hold_every_token_in_order(lengths, size):
    model, _ = pair("llama")
    made, tokenizer = words(*lengths), families.tokenizer()
    found = list(batches(made, model, size=size))
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    assert sum((batch.documents for batch in found), ()) == made.ids
    rows = [(batch, i) for batch in found for i in range(len(batch))]
    for text, (batch, i) in zip(made.texts, rows, strict=True):
        expected = tokenizer(text)["input_ids"]
        n = len(expected)
        assert batch.ids[i, :n].tolist() == expected
        assert batch.mask[i].tolist() == [True] * n + [False] * (batch.ids.shape[1] - n)  # right padding
        assert batch.keep[i].tolist() == [False] + [True] * (n - 1) + [False] * (
            batch.ids.shape[1] - n
        )  # BOS is not kept
        assert batch.ids.shape[1] == max(int(batch.mask[j].sum()) for j in range(len(batch)))
        alone = batch.row(i)
        assert alone.ids.tolist() == [expected]
        assert alone.keep.tolist() == [[False] + [True] * (n - 1)]
        assert (alone.documents, alone.language, alone.attention_mask) == (batch.documents[i : i + 1], "de", None)
    assert all((batch.attention_mask is None) == bool(batch.mask.all()) for batch in found)


def test_truncation_is_counted_and_warned():
    model, _ = pair("llama")
    with pytest.warns(UserWarning, match="2 of 3 documents of 'de' were longer than the limit and were truncated"):
        (batch,) = batches(words(9, 3, 20), model, length=6)
    assert batch.mask.sum(1).tolist() == [6, 4, 6]
    assert encode(words(9, 3, 20), model, length=6)[1] == 2
    rows, truncated = encode(words(200), model)  # the model's context is the limit of limits
    assert (len(rows[0]), truncated, context_length(model)) == (families.CONTEXT, 1, families.CONTEXT)
    assert encode(words(200), model, length=500) == (rows, 1)
    (batch,) = batches(words(9, 3), model, length=10)  # negative control: no warning (warnings are errors)
    assert batch.mask.sum(1).tolist() == [10, 4]


def test_bos_is_kept_out_only_where_it_is():
    batch = pad([[1, 5, 6], [5, 1, 6]], "de", ["a", "b"], bos=1)
    assert batch.keep.tolist() == [[False, True, True], [True, True, True]]
    assert pad([[1, 5]], "de", ["a"], bos=None).keep.all()
    assert pad([[0, 5], [7]], "de", ["a", "b"], bos=1).keep.tolist() == [
        [True, True],
        [True, False],
    ]  # id 0 is a token like any other


def test_a_row_of_a_left_padded_batch_is_the_document():
    ids, mask = torch.tensor([[0, 0, 1, 5], [1, 6, 7, 8]]), torch.tensor([[False, False, True, True], [True] * 4])
    row = Tokens(ids, mask & (ids != 1), "de", mask, ("a", "b")).row(0)
    assert (row.ids.tolist(), row.keep.tolist(), row.documents) == ([[1, 5]], [[False, True]], ("a",))


def test_batches_check_their_arguments():
    model, _ = pair("llama")
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        next(batches(words(3), model, size=0))
    with pytest.raises(ValueError, match="document '1' of 'de' has no token: remove it"):
        next(batches(Corpus("de", ("w1", "  ")), model))


@pytest.mark.parametrize("length", [-5, 0, 1])
def test_a_length_without_room_for_a_token_is_refused(length):
    model, _ = pair("llama")
    for call in (encode, lambda *args, **options: next(batches(*args, **options))):
        with pytest.raises(ValueError, match=f"length={length}: give at least 2 tokens per document"):
            call(words(3), model, length=length)
    assert encode(words(3), model, length=2)[0][0][0] == 1  # negative control: BOS and one token
    assert [token_limit(model, given) for given in (None, 2, 500)] == [families.CONTEXT, 2, families.CONTEXT]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": (2, 2)}, r"ids and keep must both be \[batch, pos\], got \[2, 3\] and \[2, 2\]"),
        ({"attention_mask": (1, 3)}, r"attention_mask must be \[2, 3\] like ids, got \[1, 3\]"),
    ],
)
def test_tokens_say_what_is_wrong(fields, message):
    bare = object.__new__(Tokens)
    shapes = {"keep": (2, 3), "attention_mask": (2, 3), **fields}
    object.__setattr__(bare, "ids", torch.ones(2, 3, dtype=torch.long))
    for name, shape in shapes.items():
        object.__setattr__(bare, name, torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match=message):
        Tokens.__post_init__(bare)


def test_token_counts_are_those_of_a_loop():
    model, _ = pair("llama")
    made = words(5, 9, 3)
    expected = Counter(i for text in made.texts for i in families.tokenizer()(text)["input_ids"] if i != 1)
    assert token_counts(made, model).tolist() == [expected[i] for i in range(families.VOCAB)]


def test_two_files_of_one_language_are_refused(tmp_path):
    for name in ("de.txt", "de.jsonl"):
        (tmp_path / name).write_text('{"text": "Haus"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds both de\.jsonl and de\.txt: keep one"):
        load_corpora(tmp_path)


def test_a_corpus_under_another_code_is_refused():
    with pytest.raises(ValueError, match="a corpus of 'de' was given as 'en': use one code"):
        load_corpora({"en": Corpus("de", ("Haus",))})


def test_one_language_may_be_a_string():
    assert list(load_corpora(languages="de", limit=1)) == ["de"]


def test_the_error_of_an_absent_language_lists_those_there_are():
    with pytest.raises(ValueError, match="no texts for language 'sw' in this source: it has en, de, es, fr, ru, zh"):
        load_corpora(languages=["en", "sw"])


def test_parallel_files_may_have_any_name(tmp_path):
    for name, line in (("news.deu.txt", "Guten Tag\nDanke\n"), ("news.eng.txt", "Good day\nThank you\n")):
        (tmp_path / name).write_text(line, encoding="utf-8")
    found = load_corpora({"en": tmp_path / "news.eng.txt", "de": tmp_path / "news.deu.txt"})
    assert found["de"].texts == ("Guten Tag", "Danke")
    assert found["de"].ids == found["en"].ids
    with pytest.raises(FileNotFoundError, match=r"no file .*news.fra.txt for the texts of 'fr'"):
        load_corpora({"fr": tmp_path / "news.fra.txt"})
