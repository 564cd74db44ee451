"""Languages of tokens against naive loops over Python lists."""

import importlib.util
import sys
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.languages import (
    LANGUAGES,
    TokenLanguages,
    from_counts,
    from_lingua,
    from_script,
    require_language,
    script,
)


class Vocabulary:
    """A tokenizer with a piece per id; the first is special."""

    all_special_ids = [0]

    def __init__(self, *pieces):
        self.pieces = ("<s>", *pieces)

    def __len__(self):
        return len(self.pieces)

    def decode(self, ids):
        return self.pieces[ids[0]]


def label(token, counts, *, certain, seen, alpha):
    """The definition, in fractions: one token at a time."""
    vocab = len(next(iter(counts.values())))
    alpha = Fraction(alpha)
    if sum(row[token] for row in counts.values()) < seen:
        return "unknown", None
    likelihood = {code: (row[token] + alpha) / (sum(row) + alpha * vocab) for code, row in counts.items()}
    posterior = {code: value / sum(likelihood.values()) for code, value in likelihood.items()}
    best = max(posterior, key=posterior.get)
    return (best if posterior[best] >= certain else "shared"), posterior[best]


@given(
    rows=st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6).filter(any), min_size=2, max_size=4),
    certain=st.floats(0.3, 0.95), seen=st.integers(0, 5), alpha=st.sampled_from([0.25, 0.5, 1.0]),
)  # fmt: skip
def test_counts_give_the_smoothed_posterior(rows, certain, seen, alpha):
    counts = dict(zip(["de", "en", "fr", "ru"], rows, strict=False))
    found = from_counts(
        {code: torch.tensor(row) for code, row in counts.items()}, certain=certain, seen=seen, alpha=alpha
    )
    assert len(found) == 6
    assert found.names == (*counts, "shared", "unknown")
    for token in range(6):
        expected, best = label(token, counts, certain=certain, seen=seen, alpha=alpha)
        if best is None or abs(best - certain) > 1e-9:
            assert found.of(token) == expected
        one_hot = found.one_hot()[token]
        assert one_hot.sum() == 1
        assert one_hot[found.names.index(found.of(token))] == 1


def test_a_languages_size_does_not_decide():
    """Ten times the text, the same frequencies: the token stays shared."""
    few, many = torch.tensor([50, 50, 100]), torch.tensor([500, 500, 1000])
    assert [from_counts({"de": few, "en": many}).of(i) for i in range(3)] == ["shared"] * 3
    # negative control: other frequencies do decide
    assert from_counts({"de": few, "en": torch.tensor([1, 999, 1000])}).of(0) == "de"


def test_pseudo_counts_weigh_by_the_vocabulary():
    """(9 + 1) / (10 + 1 * 6) against (0 + 1) / (0 + 1 + 1 * 6): 0.81 for the first; 0.65 if `alpha` were added but once."""
    counts = {"de": torch.tensor([9, 0, 0, 0, 0, 1]), "en": torch.tensor([0, 1, 0, 0, 0, 0])}
    assert from_counts(counts, alpha=1.0, certain=0.8).of(0) == "de"
    assert from_counts(counts, alpha=1.0, certain=0.82).of(0) == "shared"


def test_seldom_seen_tokens_are_unknown():
    found = from_counts({"de": torch.tensor([1, 2, 50, 0]), "en": torch.tensor([0, 0, 1, 50])})
    assert [found.of(i) for i in range(4)] == ["unknown", "de", "de", "en"]


def test_counts_need_two_languages_with_tokens():
    with pytest.raises(ValueError, match=r"give at least two corpora, got \['de'\]"):
        from_counts({"de": torch.tensor([1])})
    with pytest.raises(ValueError, match="no token was counted for 'en': its corpus is empty"):
        from_counts({"de": torch.tensor([1]), "en": torch.tensor([0])})


def test_script_decides_where_it_belongs_to_one_language():
    pieces = ["Haus", "дом", "房子", "家", "は", "12", "!", "�", "дом house", "안녕", " ла", "e\u0301te", "Ｈ", "々"]
    found = from_script(Vocabulary(*pieces), ["en", "ru", "zh"], vocab=len(pieces) + 3)
    expected = [
        "unknown",
        "en",
        "ru",
        "zh",
        "zh",
        "zh",
        "unknown",
        "unknown",
        "unknown",
        "shared",
        "unknown",
        "ru",
        "en",
        "en",
        "zh",
        "unknown",
        "unknown",
    ]
    assert [found.of(i) for i in range(len(found))] == expected
    several = from_script(Vocabulary(*pieces), ["en", "de", "zh", "ja"], vocab=6)
    assert [several.of(i) for i in range(6)] == ["unknown", "shared", "unknown", "shared", "shared", "shared"]


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        *((character, "CJK") for character in "中かカー々ﾊ"), ("é", "LATIN"), ("Ｈ", "LATIN"), ("Я", "CYRILLIC"), ("한", "HANGUL"),
        ("ि", "DEVANAGARI"), ("ั", "THAI"),
        *((character, None) for character in "\u0301\ufe0f7 😀\x00"),
    ],
)  # fmt: skip
def test_script_of_a_character(character, expected):
    assert script(character) == expected


def test_every_language_is_described():
    assert all(code == row.code and row.name and row.family and row.script.isupper() for code, row in LANGUAGES.items())
    assert len({row.name for row in LANGUAGES.values()}) == len(LANGUAGES)
    assert require_language("de").name == "German"


LETTERS = {
    "ARABIC": "ع", "ARMENIAN": "ա", "BENGALI": "অ", "CJK": "中", "CYRILLIC": "я", "DEVANAGARI": "अ", "ETHIOPIC": "አ", "GEORGIAN": "ა",
    "GREEK": "ω", "GUJARATI": "અ", "GURMUKHI": "ਅ", "HANGUL": "한", "HEBREW": "א", "KANNADA": "ಅ", "KHMER": "ក", "LAO": "ກ",
    "LATIN": "a", "MALAYALAM": "അ", "MYANMAR": "က", "ORIYA": "ଅ", "SINHALA": "අ", "TAMIL": "அ", "TELUGU": "అ", "THAANA": "ދ",
    "THAI": "ก", "TIBETAN": "ཀ",
}  # fmt: skip


def test_every_script_is_named_as_script_names_it():
    assert {row.script for row in LANGUAGES.values()} == set(LETTERS)
    assert {name: script(letter) for name, letter in LETTERS.items()} == {name: name for name in LETTERS}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("sr", "љубав"), ("mk", "ѓавол"), ("kk", "қазақ"), ("mn", "монгол"), ("tg", "тоҷикӣ"), ("be", "ўсё"), ("hy", "հայերեն"),
        ("ps", "پښتو"), ("sd", "سنڌي"), ("ug", "ئۇيغۇرچە"), ("yi", "ייִדיש"), ("am", "አማርኛ"), ("ti", "ትግርኛ"), ("mr", "मराठी"),
        ("as", "অসমীয়া"), ("gu", "ગુજરાતી"), ("pa", "ਪੰਜਾਬੀ"), ("or", "ଓଡ଼ିଆ"), ("ml", "മലയാളം"), ("kn", "ಕನ್ನಡ"), ("si", "සිංහල"),
        ("my", "မြန်မာ"), ("km", "ខ្មែរ"), ("lo", "ລາວ"), ("yo", "Yorùbá"), ("az", "Azərbaycan"), ("mt", "ħobż"),
    ],
)  # fmt: skip
def test_languages_are_written_in_their_script(code, text):
    assert {script(character) for character in text} - {None} == {require_language(code).script}


def test_an_unknown_code_is_answered_with_a_suggestion():
    with pytest.raises(ValueError, match="unknown language 'german': did you mean 'de'"):
        require_language("german")
    with pytest.raises(ValueError, match="unknown language 'xx': known codes: af, am, ar,"):
        require_language("xx")
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        from_script(Vocabulary(), ["en", "xx"], vocab=1)


def test_labels_are_frozen():
    found = TokenLanguages(("de",), torch.tensor([0]), "counts")
    with pytest.raises(AttributeError):
        found.method = "script"


def test_without_lingua_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(ImportError, match=r"needs the extra `lang`: pip install 'mwork-lens\[lang\]'"):
        from_lingua(Vocabulary(), ["en", "de"], vocab=1)


class Codes:
    """Stands for lingua.IsoCode639_1: a few languages, Norwegian only as Bokmål."""

    EN, DE, NB = (SimpleNamespace(name=name) for name in ("EN", "DE", "NB"))


def pretend_lingua(answers):
    """A lingua whose classifier answers from a table {text: (code, confidence)}."""

    class Builder:
        @classmethod
        def from_iso_codes_639_1(cls, *codes):
            return cls()

        def build(self):
            return self

        def compute_language_confidence_values(self, text):
            code, value = answers[text]
            return [SimpleNamespace(language=SimpleNamespace(iso_code_639_1=getattr(Codes, code)), value=value)]

    return SimpleNamespace(IsoCode639_1=Codes, LanguageDetectorBuilder=Builder)


def test_lingua_labels_by_confidence(monkeypatch):
    answers = {"Haus": ("DE", 0.9), "house": ("EN", 0.61), "in": ("EN", 0.5), "hus": ("NB", 0.8)}
    monkeypatch.setitem(sys.modules, "lingua", pretend_lingua(answers))
    found = from_lingua(Vocabulary("Haus", " house", "in", "12", "hus"), ["en", "no", "de"], vocab=7)
    assert [found.of(i) for i in range(7)] == ["unknown", "de", "en", "shared", "unknown", "no", "unknown"]
    assert found.method == "lingua"


def test_a_language_lingua_lacks_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lingua", pretend_lingua({}))
    with pytest.raises(ValueError, match=r"lingua does not know 'ht' .Haitian Creole."):
        from_lingua(Vocabulary(), ["en", "ht"], vocab=1)


@pytest.mark.skipif(importlib.util.find_spec("lingua") is None, reason="docs/quarantine.md: needs the extra `lang`")
def test_the_real_lingua_knows_whole_words():
    pieces = ["Geschwindigkeitsbegrenzung", " neighbourhood", "достопримечательность", "42"]
    found = from_lingua(Vocabulary(*pieces), ["en", "de", "ru", "no"], vocab=5)
    assert [found.of(i) for i in range(5)] == ["unknown", "de", "en", "ru", "unknown"]
    with pytest.raises(ValueError, match="lingua does not know 'ht'"):
        from_lingua(Vocabulary(*pieces), ["en", "ht"], vocab=1)
