import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from families import byte_level_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from planted_facts import tokenizer

import mwork_lens.facts.search as module
from mwork_lens.corpora import Corpus
from mwork_lens.facts.patterns import token_keys, token_text
from mwork_lens.facts.search import PRESENCE, present
from mwork_lens.facts.streams import batched, lines_of, sentences

KEY = ["language", "relation", "fact", "subject", "object"]


def table(*pairs: tuple[str, str], language: str = "en") -> pd.DataFrame:
    return pd.DataFrame([(language, "r", f"f{i}", s, o) for i, (s, o) in enumerate(pairs)], columns=KEY)


def counts(found: pd.DataFrame) -> list[list[int]]:
    return found[["units", "subject", "object", "together", "apart"]].values.tolist()


def places(text: list, name: list) -> list[int]:
    return [i for i in range(len(text) - len(name) + 1) if text[i : i + len(name)] == name]


def naive(units: list[list], facts: list[tuple[list, list]]) -> list[list[int]]:
    rows = []
    for s, o in facts:
        a, b = ([places(unit, name) for unit in units] for name in (s, o))
        apart = [any(i + len(s) <= j or j + len(o) <= i for i in x for j in y) for x, y in zip(a, b, strict=True)]
        both = [bool(x and y) for x, y in zip(a, b, strict=True)]
        rows.append([len(units), sum(map(bool, a)), sum(map(bool, b)), sum(both), sum(apart)])
    return rows


words = st.lists(st.sampled_from(["w1", "w2", "w3", "w12"]), min_size=1, max_size=8)
names = st.lists(st.sampled_from(["w1", "w2", "w3", "w12"]), min_size=1, max_size=3)


@given(
    st.lists(words, min_size=1, max_size=6),
    st.lists(st.tuples(names, names), min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_tokens_and_words_equal_a_search_for_each_fact(texts: list, pairs: list, length: int) -> None:
    facts = table(*[(" ".join(s), " ".join(o)) for s, o in pairs])
    corpus = {"en": [" ".join(text) for text in texts]}
    wanted = naive(texts, pairs)
    assert counts(present(facts, corpus)) == wanted
    assert counts(present(facts, corpus, tokenizer=tokenizer())) == wanted
    chunks = [text[at : at + length] for text in texts for at in range(0, len(text), length)]
    for match in ("tokens", "words"):
        how = {"tokenizer": tokenizer(), "unit": "chunk", "match": match, "length": length}
        assert counts(present(facts, corpus, **how)) == naive(chunks, pairs)


short = st.text("aAb ", min_size=1, max_size=8).filter(str.strip)


@given(
    st.lists(short, min_size=1, max_size=5), st.lists(st.tuples(short, short), min_size=1, max_size=5), st.booleans()
)
def test_strings_equal_a_search_for_each_fact(texts: list[str], pairs: list[tuple[str, str]], lower: bool) -> None:
    found = present(table(*pairs), {"en": texts}, match="string", lower=lower)
    same: Callable[[str], str] = str.lower if lower else str
    assert counts(found) == naive(
        [list(same(t)) for t in texts], [(list(same(s.strip())), list(same(o.strip()))) for s, o in pairs]
    )


def test_words_end_where_letters_do_and_scripts_without_spaces_have_no_ends() -> None:
    texts = ["Parisian Rome", "(Paris), Rome!", "Paris2 Rome", "Paris_Rome", "Pari\u0301s Rome"]
    assert counts(present(table(("Paris", "Rome")), {"en": texts})) == [[5, 2, 5, 2, 2]]
    zh = table(("北京", "中国"), language="zh")
    assert counts(present(zh, {"zh": ["北京是中国的首都", "Beijing北京 中国"]})) == [[2, 2, 2, 2, 2]]
    hindi = table(("राम", "सीता"), language="hi")
    assert counts(present(hindi, {"hi": ["रामा सीता", "राम, सीता"]})) == [[2, 1, 2, 1, 1]]


def test_composed_and_decomposed_letters_are_the_same() -> None:
    facts = table(("Zu\u0308rich", "Schweiz"))
    assert present(facts, {"en": ["Z\u00fcrich Schweiz"]})["present"].tolist() == [True]


def test_an_object_inside_its_subject_is_together_and_not_apart() -> None:
    facts = table(("Paris Saint-Germain", "Paris"), ("Rome", "Rome"))
    texts = ["Paris Saint-Germain won.", "Rome and Rome."]
    found = present(facts, {"en": texts})
    assert counts(found) == [[2, 1, 1, 1, 0], [2, 1, 1, 1, 1]]
    assert found["present"].tolist() == [True, True]
    assert present(facts, {"en": texts}, apart=True)["present"].tolist() == [False, True]


def test_units_grow_from_sentence_to_document() -> None:
    texts = ['He said "Rome is old." Paris is far!', "罗马很老。巴黎很远。", "Rome and Paris."]
    facts = table(("Rome", "Paris"))
    assert counts(present(facts, {"en": texts})) == [[3, 2, 2, 2, 2]]
    assert counts(present(facts, {"en": texts}, unit="sentence")) == [[5, 2, 2, 1, 1]]
    assert sentences(texts[0]) == ['He said "Rome is old."', "Paris is far!"]
    assert sentences(texts[1]) == ["罗马很老。", "巴黎很远。"]


def test_shuffled_objects_are_together_less_often() -> None:
    rng = np.random.default_rng(0)
    pairs = [(f"Town{i}", f"Land{i}") for i in range(200)]
    texts = [f"{s} lies in {o}." for s, o in pairs]
    assert present(table(*pairs), {"en": texts})["present"].all()
    mixed = rng.permutation([o for _, o in pairs])
    shuffled = table(*[(s, str(o)) for (s, _), o in zip(pairs, mixed, strict=True)])
    assert present(shuffled, {"en": texts})["present"].mean() < 0.03


def test_files_are_read_as_documents(tmp_path: Path) -> None:
    texts = ["Rome Italy", "Rome", "Paris Italy"]
    (tmp_path / "a.txt").write_bytes("\ufeffRome Italy\r\n\nRome\n".encode())
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "Paris Italy"}) + "\n", encoding="utf-8")
    with gzip.open(tmp_path / "c.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(texts))
    facts = table(("Rome", "Italy"))
    wanted = counts(present(facts, {"en": texts}))
    both = [tmp_path / "a.txt", tmp_path / "b.jsonl"]
    assert counts(present(facts, {"en": both}, progress=False)) == wanted
    assert counts(present(facts, {"en": str(tmp_path / "c.txt.gz")}, progress=False)) == wanted
    assert counts(present(facts, {"en": Corpus("en", tuple(texts))})) == wanted


def test_a_stream_holds_one_block_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_text("\n".join(f"line {i}" for i in range(5000)), encoding="utf-8")
    read = 0

    def counted() -> object:
        nonlocal read
        for line in lines_of(path):
            read += 1
            yield line

    blocks = batched(counted(), characters=100)  # type: ignore[arg-type]
    assert "".join(next(blocks)) == "".join(f"line {i}" for i in range(read))
    assert read < 30
    assert sum(map(len, blocks)) + 15 >= 5000 - 30


def test_bad_files_name_file_and_line(tmp_path: Path) -> None:
    facts = table(("Rome", "Italy"))
    (tmp_path / "latin.txt").write_bytes("Rome\nZürich\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt, line 2: not UTF-8 \(byte 1 of the line is 0xfc\)"):
        present(facts, {"en": tmp_path / "latin.txt"})
    (tmp_path / "bad.jsonl").write_text('{"text": "Rome"}\n{"body": "Rome"}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2: expected a JSON object"):
        present(facts, {"en": tmp_path / "bad.jsonl"})
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="the corpus of 'en' holds no text"):
        present(facts, {"en": tmp_path / "empty.txt"})
    (tmp_path / "empty.txt").write_text("long\n")
    with pytest.raises(ValueError, match=r"empty\.txt, line 1: longer than 1 bytes"):
        list(lines_of(tmp_path / "empty.txt", longest=1))
    (tmp_path / "torn.txt.gz").write_bytes(gzip.compress(b"Rome Italy\n" * 100)[:30])
    with pytest.raises(ValueError, match=r"torn\.txt\.gz, line \d+: damaged gzip"):
        present(facts, {"en": tmp_path / "torn.txt.gz"})
    packed = bytearray(gzip.compress(bytes(range(256)) * 50))
    packed[20:60] = b"\xff" * 40
    (tmp_path / "spoilt.txt.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=r"spoilt\.txt\.gz, line \d+: damaged gzip"):
        present(facts, {"en": tmp_path / "spoilt.txt.gz"})
    (tmp_path / "deep.jsonl").write_text('{"text": ' + "[" * 200_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"deep\.jsonl, line 1: expected a JSON object"):
        present(facts, {"en": tmp_path / "deep.jsonl"})
    (tmp_path / "wide.txt").write_bytes("Rome Italy\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"wide\.txt, line 1: holds a NUL character \(byte 1\)"):
        present(facts, {"en": tmp_path / "wide.txt"})
    with pytest.raises(FileNotFoundError, match=r"none\.txt for the corpus of 'en'"):
        present(facts, {"en": tmp_path / "none.txt"})
    with pytest.raises(ValueError, match="names a file twice"):
        present(facts, {"en": [tmp_path / "bad.jsonl", tmp_path / "bad.jsonl"]})


def test_finished_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    for path in paths:
        path.write_text("Rome Italy\nRome\n", encoding="utf-8")
    paths[2].write_bytes(b"Rome Italy\n\xff\n")
    facts, out = table(("Rome", "Italy")), tmp_path / "out"
    with pytest.raises(ValueError, match=r"c\.txt, line 2"):
        present(facts, {"en": paths}, out=out, progress=False)
    paths[2].write_text("Rome Italy\nRome Italy\n", encoding="utf-8")
    read = []
    original = module.lines_of
    monkeypatch.setattr(module, "lines_of", lambda path, **how: read.append(path.name) or original(path, **how))
    found = present(facts, {"en": paths}, out=out, resume=True, progress=False)
    assert read == ["c.txt"]
    assert counts(found) == [[6, 6, 4, 4, 4]]
    paths[0].write_text("Rome\n", encoding="utf-8")  # a file that changed is read again
    with pytest.warns(UserWarning, match="searching this file again"):
        assert counts(present(facts, {"en": paths}, out=out, resume=True, progress=False)) == [[5, 5, 3, 3, 3]]
    assert read == ["c.txt", "a.txt"]
    with pytest.raises(FileExistsError, match="resume=True"):
        present(facts, {"en": paths}, out=out)
    with pytest.raises(FileExistsError, match="another run"):
        present(facts, {"en": paths}, out=out, unit="sentence", resume=True)


def test_tokens_miss_a_name_whose_end_is_merged_with_what_follows() -> None:
    """As Chinese names are; the text of a chunk has them all the same."""
    how = {"unit": "chunk", "tokenizer": byte_level_tokenizer()}  # it merges R with an o behind it
    found = {
        match: counts(present(table(("R", "It")), {"en": ["It Ro"]}, match=match, **how))
        for match in ("tokens", "string")
    }
    assert found == {"tokens": [[1, 0, 1, 0, 0]], "string": [[1, 1, 1, 1, 1]]}


def test_unknown_tokens_are_not_searched() -> None:
    facts = table(("w1", "outside"), ("w1", "w2"))
    found = present(facts, {"en": ["w1 w2 unheard"]}, tokenizer=tokenizer())
    assert found["searchable"].tolist() == [False, True]
    assert found["present"].tolist() == [False, True]
    alone = present(table(("outside", "beyond")), {"en": ["w1 outside"]}, tokenizer=tokenizer())
    assert alone["searchable"].tolist() == [False]


def test_names_are_searched_as_they_stand_in_a_text() -> None:
    """A byte-level tokenizer has other tokens behind a space than at the start."""
    bytes_ = byte_level_tokenizer()
    assert len(token_keys("Ro", bytes_)) == 2
    assert counts(present(table(("Ro", "It")), {"en": ["Ro It", "It (Ro)", "to Ro, It"]}, tokenizer=bytes_)) == [
        [3, 3, 3, 3, 3]
    ]


@given(st.lists(st.integers(0, 300_000), max_size=20), st.lists(st.integers(0, 300_000), max_size=20))
def test_tokens_are_one_character_each_and_differ(a: list[int], b: list[int]) -> None:
    assert len(token_text(a)) == len(a)
    assert (token_text(a) == token_text(b)) == (a == b)
    assert token_text(a) + token_text(b) == token_text(a + b)
    token_text(a).encode()  # no surrogates


def test_bad_questions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = table(("Rome", "Italy"))
    corpus = {"en": ["Rome Italy"]}
    slow = SimpleNamespace(is_fast=False)
    assert tuple(present(facts, corpus).columns) == PRESENCE
    for how, match in (
        ({"unit": "page"}, "unit='page'"), ({"match": "fuzzy"}, "match='fuzzy'"), ({"unit": "chunk"}, "give the model's tokenizer"),
        ({"match": "tokens"}, "give the model's tokenizer"), ({"length": 0}, "length=0"),
        ({"unit": "chunk", "match": "words", "tokenizer": slow}, "SimpleNamespace does not say"),
        ({"lower": True, "tokenizer": tokenizer()}, "no effect on tokens"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            present(facts, corpus, **how)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="corpus of 'de' and no fact"):
        present(facts, {**corpus, "de": ["Rom"]})
    with pytest.raises(ValueError, match="no corpus given"):
        present(facts, {})
    with pytest.raises(ValueError, match="'f0' of 'r' appears twice"):
        present(pd.concat([facts, facts]), corpus)
    with pytest.raises(ValueError, match="object of fact 'f0' is ' '"):
        present(table(("Rome", " ")), corpus)
    with pytest.raises(ValueError, match="must be files, a Corpus, or documents"):
        present(facts, {"en": ["Rome", 3]})
    monkeypatch.setitem(sys.modules, "ahocorasick", None)
    with pytest.raises(ImportError, match="pip install pyahocorasick"):
        present(facts, corpus)
