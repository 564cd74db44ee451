"""Identifiers on texts whose language is plain, on texts that have none, and on languages they cannot know."""

import importlib.util
import random
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.corpora import load_corpora
from mwork_lens.writing.identify import (
    Identifier,
    as_identifier,
    lingua_identifier,
    require_identifiable,
    script_identifier,
)

NOTHING = ["", "   \n\t", "...!?", "12 34 56", "😀 😀 😀", "\u200f\u200e", "\x00"]


# --- by script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the kitchen", "en"), ("кухня", "ru"), ("厨房里很安静", "zh"), ("المطبخ هادئ", "ar"), ("\u200fالمطبخ\u200e", "ar"), ("रसोई", "hi"),
        ("кухня ok", "ru"), ("ok кухня, 厨", "ru"), ("aa бб", "unknown"), ("aa бб 中中", "unknown"), ("한국어", "unknown"),
        ("été 2024 😀", "en"), *((text, "unknown") for text in NOTHING),
    ],
)  # fmt: skip
def test_the_script_of_most_letters_decides(text, expected):
    assert script_identifier(["en", "ru", "zh", "ar", "hi"])(text) == expected


def test_a_shared_script_belongs_to_nobody():
    found = script_identifier(["en", "de", "zh"])
    assert found.languages == ("zh",)
    assert (found("the kitchen"), found("die Küche"), found("厨房")) == ("unknown", "unknown", "zh")
    assert script_identifier(["ja", "zh", "en"])("厨房") == "unknown"
    with pytest.raises(ValueError, match=r"each of en, de shares its script with another: use lingua_identifier\(\)"):
        script_identifier(["en", "de"])
    with pytest.raises(ValueError, match="each of no languages shares"):
        script_identifier([])
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        script_identifier(["en", "xx"])


@given(st.text(max_size=30), st.sampled_from(["en ru zh", "ar en", "th"]))
def test_every_text_has_an_answer_that_was_announced(text, languages):
    identifier = script_identifier(languages.split())
    assert identifier(text) in (*identifier.languages, "unknown")
    assert identifier(text) == identifier(text[::-1])  # letters are counted, not read


# --- a function of the user's


def test_a_callable_is_an_identifier():
    found = as_identifier({"hallo": "de", "hello": "en", "??": None, "!!": "unknown"}.get, ["en", "de", "en"])
    assert isinstance(found, Identifier)
    assert found.languages == ("en", "de")
    assert [found(text) for text in ("hallo", "hello", "??", "!!", "else")] == ["de", "en", *["unknown"] * 3]
    assert as_identifier(found) is found
    assert as_identifier(found, ["de", "en"]).languages == ("de", "en")


def test_an_answer_that_was_not_announced_is_refused():
    found = as_identifier(lambda text: "pt", ["en", "de"])
    with pytest.raises(ValueError, match=r"answered 'pt', which is not among its languages \(en, de\): name it in"):
        found("olá")
    for missing in (None, []):
        with pytest.raises(ValueError, match="name the languages this identifier may return"):
            as_identifier(lambda text: "en", missing)
    with pytest.raises(ValueError, match="'unknown' is not a language"):
        as_identifier(lambda text: "en", ["en", "unknown"])


def test_a_language_that_can_never_be_answered_is_refused():
    found = script_identifier(["en", "de", "zh"])
    require_identifiable(found, "zh")
    with pytest.raises(ValueError, match="does not know 'de', so no text could ever count as 'de': it knows zh"):
        require_identifiable(found, "de")


# --- lingua


class Codes:
    """Stands for lingua.IsoCode639_1: a few languages, Norwegian only as Bokmål."""

    EN, DE, NB = (SimpleNamespace(name=name) for name in ("EN", "DE", "NB"))


def pretend_lingua(answers, asked):
    """A lingua whose classifier answers from a table {text: (code, confidence)} and notes its candidates in `asked`."""

    class Builder:
        @classmethod
        def from_iso_codes_639_1(cls, *codes):
            asked.append([code.name for code in codes])
            return cls()

        @classmethod
        def from_all_languages(cls):
            asked.append("all")
            return cls()

        def build(self):
            return self

        def compute_language_confidence_values(self, text):
            code, value = answers[text]
            return [SimpleNamespace(language=SimpleNamespace(iso_code_639_1=getattr(Codes, code)), value=value)]

    every = [SimpleNamespace(iso_code_639_1=code) for code in (Codes.NB, Codes.EN, Codes.DE)]
    return SimpleNamespace(
        IsoCode639_1=Codes, LanguageDetectorBuilder=Builder, Language=SimpleNamespace(all=lambda: every)
    )


def test_lingua_is_asked_among_all_languages_unless_told(monkeypatch):
    answers, asked = {"Haus": ("DE", 0.3), "house": ("EN", 0.29), "hus": ("NB", 0.8)}, []
    monkeypatch.setitem(sys.modules, "lingua", pretend_lingua(answers, asked))
    found = lingua_identifier()
    assert isinstance(found, Identifier)
    assert found.languages == ("de", "en", "no")
    assert [found(text) for text in answers] == ["de", "unknown", "no"]
    assert [found(text) for text in NOTHING] == ["unknown"] * len(NOTHING)  # not in the table: lingua was not asked
    narrow = lingua_identifier(["no", "en"], certain=0.2)
    assert (narrow.languages, narrow("house"), narrow("hus")) == (("no", "en"), "en", "no")
    assert asked == ["all", ["NB", "EN"]]


def test_what_lingua_cannot_do_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "lingua", pretend_lingua({}, []))
    with pytest.raises(ValueError, match=r"lingua does not know 'ht' \(Haitian Creole\): leave it out, or give"):
        lingua_identifier(["en", "ht"])
    with pytest.raises(ValueError, match="unknown language 'german': did you mean 'de'"):
        lingua_identifier(["en", "german"])
    for few in (["en"], "en", ["en", "en"]):
        with pytest.raises(ValueError, match=r"give lingua at least two candidates, got \['en'\]"):
            lingua_identifier(few)
    for certain in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"certain={certain} is not a confidence"):
            lingua_identifier(certain=certain)
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(ImportError, match=r"needs the extra `lang`: pip install 'mwork-lens\[lang\]'"):
        lingua_identifier()


@pytest.mark.skipif(importlib.util.find_spec("lingua") is None, reason="docs/quarantine.md: needs the extra `lang`")
def test_the_real_lingua_knows_the_embedded_passages():
    everything = lingua_identifier()
    assert len(everything.languages) == 75
    assert {"en", "de", "no", "nn", "zh"} <= set(everything.languages)
    with pytest.raises(ValueError, match="lingua does not know 'ht'"):
        lingua_identifier(["en", "ht"])
    corpora = load_corpora(limit=6)
    found = lingua_identifier([*corpora, "nl", "uk", "ja"])
    for language, corpus in corpora.items():
        assert [found(text) for text in corpus.texts] == [language] * 6
    # negative control: noise is not certain
    rng = random.Random(0)
    noise = [" ".join("".join(rng.choices("bcdfghjklmnpqrstvwxz", k=6)) for _ in range(6)) for _ in range(20)]
    assert [lingua_identifier([*corpora, "nl"], certain=0.99)(text) for text in noise].count("unknown") >= 15
