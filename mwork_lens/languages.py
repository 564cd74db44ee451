"""Languages: codes, names, families, scripts; which language is this token?

Three ways to label a vocabulary, all of them with an explicit answer for tokens that belong to nobody:

    counts    P(language | token) from counts in given corpora, add-alpha smoothed, uniform prior over languages (default)
    script    by Unicode script, where a script belongs to exactly one of the languages asked for
    lingua    lingua's sentence classifier on the decoded token (extra `lang`); weak on sub-words

A token is *shared* when no language reaches `certain`, and *unknown* when it was seen fewer than `seen` times (`counts`), or has no
letter. Both stay out of every "share of language" but are reported beside it.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

SHARED, UNKNOWN = "shared", "unknown"


class Language(NamedTuple):
    """A language as this package knows it."""

    code: str
    """ISO 639-1, or 639-3 where there is none."""
    name: str
    """In English."""
    family: str
    """Branch, for comparisons between families."""
    script: str
    """Unicode script most of its text is written in, as `script` names it."""


LANGUAGES: dict[str, Language] = {
    row[0]: Language(*row)
    for row in (
        ("af", "Afrikaans", "Germanic", "LATIN"),
        ("am", "Amharic", "Semitic", "ETHIOPIC"),
        ("ar", "Arabic", "Semitic", "ARABIC"),
        ("as", "Assamese", "Indo-Aryan", "BENGALI"),
        ("az", "Azerbaijani", "Turkic", "LATIN"),
        ("ba", "Bashkir", "Turkic", "CYRILLIC"),
        ("be", "Belarusian", "Slavic", "CYRILLIC"),
        ("bg", "Bulgarian", "Slavic", "CYRILLIC"),
        ("bn", "Bengali", "Indo-Aryan", "BENGALI"),
        ("bo", "Tibetan", "Tibeto-Burman", "TIBETAN"),
        ("br", "Breton", "Celtic", "LATIN"),
        ("bs", "Bosnian", "Slavic", "LATIN"),
        ("ca", "Catalan", "Romance", "LATIN"),
        ("ceb", "Cebuano", "Austronesian", "LATIN"),
        ("cs", "Czech", "Slavic", "LATIN"),
        ("cy", "Welsh", "Celtic", "LATIN"),
        ("da", "Danish", "Germanic", "LATIN"),
        ("de", "German", "Germanic", "LATIN"),
        ("dv", "Dhivehi", "Indo-Aryan", "THAANA"),
        ("el", "Greek", "Hellenic", "GREEK"),
        ("en", "English", "Germanic", "LATIN"),
        ("eo", "Esperanto", "constructed", "LATIN"),
        ("es", "Spanish", "Romance", "LATIN"),
        ("et", "Estonian", "Uralic", "LATIN"),
        ("eu", "Basque", "isolate", "LATIN"),
        ("fa", "Persian", "Iranian", "ARABIC"),
        ("fi", "Finnish", "Uralic", "LATIN"),
        ("fo", "Faroese", "Germanic", "LATIN"),
        ("fr", "French", "Romance", "LATIN"),
        ("fy", "West Frisian", "Germanic", "LATIN"),
        ("ga", "Irish", "Celtic", "LATIN"),
        ("gd", "Scottish Gaelic", "Celtic", "LATIN"),
        ("gl", "Galician", "Romance", "LATIN"),
        ("gn", "Guarani", "Tupian", "LATIN"),
        ("gu", "Gujarati", "Indo-Aryan", "GUJARATI"),
        ("ha", "Hausa", "Chadic", "LATIN"),
        ("he", "Hebrew", "Semitic", "HEBREW"),
        ("hi", "Hindi", "Indo-Aryan", "DEVANAGARI"),
        ("hr", "Croatian", "Slavic", "LATIN"),
        ("ht", "Haitian Creole", "French creole", "LATIN"),
        ("hu", "Hungarian", "Uralic", "LATIN"),
        ("hy", "Armenian", "Armenian", "ARMENIAN"),
        ("id", "Indonesian", "Austronesian", "LATIN"),
        ("ig", "Igbo", "Volta-Niger", "LATIN"),
        ("is", "Icelandic", "Germanic", "LATIN"),
        ("it", "Italian", "Romance", "LATIN"),
        ("ja", "Japanese", "Japonic", "CJK"),
        ("jv", "Javanese", "Austronesian", "LATIN"),
        ("ka", "Georgian", "Kartvelian", "GEORGIAN"),
        ("kk", "Kazakh", "Turkic", "CYRILLIC"),
        ("km", "Khmer", "Austroasiatic", "KHMER"),
        ("kn", "Kannada", "Dravidian", "KANNADA"),
        ("ko", "Korean", "Koreanic", "HANGUL"),
        ("ku", "Kurdish", "Iranian", "LATIN"),
        ("ky", "Kyrgyz", "Turkic", "CYRILLIC"),
        ("la", "Latin", "Italic", "LATIN"),
        ("lb", "Luxembourgish", "Germanic", "LATIN"),
        ("lg", "Ganda", "Bantu", "LATIN"),
        ("ln", "Lingala", "Bantu", "LATIN"),
        ("lo", "Lao", "Kra-Dai", "LAO"),
        ("lt", "Lithuanian", "Baltic", "LATIN"),
        ("lv", "Latvian", "Baltic", "LATIN"),
        ("mg", "Malagasy", "Austronesian", "LATIN"),
        ("mi", "Maori", "Austronesian", "LATIN"),
        ("mk", "Macedonian", "Slavic", "CYRILLIC"),
        ("ml", "Malayalam", "Dravidian", "MALAYALAM"),
        ("mn", "Mongolian", "Mongolic", "CYRILLIC"),
        ("mr", "Marathi", "Indo-Aryan", "DEVANAGARI"),
        ("ms", "Malay", "Austronesian", "LATIN"),
        ("mt", "Maltese", "Semitic", "LATIN"),
        ("my", "Burmese", "Tibeto-Burman", "MYANMAR"),
        ("ne", "Nepali", "Indo-Aryan", "DEVANAGARI"),
        ("nl", "Dutch", "Germanic", "LATIN"),
        ("nn", "Norwegian Nynorsk", "Germanic", "LATIN"),
        ("no", "Norwegian", "Germanic", "LATIN"),
        ("ny", "Chichewa", "Bantu", "LATIN"),
        ("oc", "Occitan", "Romance", "LATIN"),
        ("om", "Oromo", "Cushitic", "LATIN"),
        ("or", "Odia", "Indo-Aryan", "ORIYA"),
        ("pa", "Punjabi", "Indo-Aryan", "GURMUKHI"),
        ("pl", "Polish", "Slavic", "LATIN"),
        ("ps", "Pashto", "Iranian", "ARABIC"),
        ("pt", "Portuguese", "Romance", "LATIN"),
        ("qu", "Quechua", "Quechuan", "LATIN"),
        ("ro", "Romanian", "Romance", "LATIN"),
        ("ru", "Russian", "Slavic", "CYRILLIC"),
        ("rw", "Kinyarwanda", "Bantu", "LATIN"),
        ("sa", "Sanskrit", "Indo-Aryan", "DEVANAGARI"),
        ("sd", "Sindhi", "Indo-Aryan", "ARABIC"),
        ("si", "Sinhala", "Indo-Aryan", "SINHALA"),
        ("sk", "Slovak", "Slavic", "LATIN"),
        ("sl", "Slovenian", "Slavic", "LATIN"),
        ("sn", "Shona", "Bantu", "LATIN"),
        ("so", "Somali", "Cushitic", "LATIN"),
        ("sq", "Albanian", "Albanian", "LATIN"),
        ("sr", "Serbian", "Slavic", "CYRILLIC"),
        ("st", "Southern Sotho", "Bantu", "LATIN"),
        ("su", "Sundanese", "Austronesian", "LATIN"),
        ("sv", "Swedish", "Germanic", "LATIN"),
        ("sw", "Swahili", "Bantu", "LATIN"),
        ("ta", "Tamil", "Dravidian", "TAMIL"),
        ("te", "Telugu", "Dravidian", "TELUGU"),
        ("tg", "Tajik", "Iranian", "CYRILLIC"),
        ("th", "Thai", "Kra-Dai", "THAI"),
        ("ti", "Tigrinya", "Semitic", "ETHIOPIC"),
        ("tk", "Turkmen", "Turkic", "LATIN"),
        ("tl", "Tagalog", "Austronesian", "LATIN"),
        ("tn", "Tswana", "Bantu", "LATIN"),
        ("tr", "Turkish", "Turkic", "LATIN"),
        ("tt", "Tatar", "Turkic", "CYRILLIC"),
        ("ug", "Uyghur", "Turkic", "ARABIC"),
        ("uk", "Ukrainian", "Slavic", "CYRILLIC"),
        ("ur", "Urdu", "Indo-Aryan", "ARABIC"),
        ("uz", "Uzbek", "Turkic", "LATIN"),
        ("vi", "Vietnamese", "Austroasiatic", "LATIN"),
        ("wo", "Wolof", "Senegambian", "LATIN"),
        ("xh", "Xhosa", "Bantu", "LATIN"),
        ("yi", "Yiddish", "Germanic", "HEBREW"),
        ("yo", "Yoruba", "Volta-Niger", "LATIN"),
        ("zh", "Chinese", "Sinitic", "CJK"),
        ("zu", "Zulu", "Bantu", "LATIN"),
    )
}


def require_language(code: str) -> Language:
    """The language of a code.

    Raises:
        ValueError: The code is unknown; the message lists the known ones.

    Example:
        >>> require_language("sw").family
        'Bantu'
        >>> require_language("German")
        Traceback (most recent call last):
        ValueError: unknown language 'German': did you mean 'de'?
    """
    if code not in LANGUAGES:
        named = [language.code for language in LANGUAGES.values() if language.name.lower() == str(code).lower()]
        hint = f"did you mean {named[0]!r}?" if named else f"known codes: {', '.join(LANGUAGES)}"
        raise ValueError(f"unknown language {code!r}: {hint}")
    return LANGUAGES[code]


def script(character: str) -> str | None:
    """Unicode script of a letter (`CJK` for Han, kana counted as `CJK` too); None if it is no letter.

    Example:
        >>> [script(character) for character in "aжの水7"]
        ['LATIN', 'CYRILLIC', 'CJK', 'CJK', None]
    """
    if not unicodedata.category(character).startswith(("L", "M")):
        return None
    words = unicodedata.name(character, "").split()
    first = words[1] if words[:1] in (["FULLWIDTH"], ["HALFWIDTH"]) else words[0] if words else None
    if first in ("COMBINING", "VARIATION", "MODIFIER"):  # belong to the letter they stand with, whatever its script
        return None
    return "CJK" if first in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC") else first


@dataclass(frozen=True)
class TokenLanguages:
    """Which language each token of a vocabulary belongs to."""

    languages: tuple[str, ...]
    """The languages asked for; label i is `names[i]`."""
    labels: Int[Tensor, " vocab"]
    """Index into `names` per token id."""
    method: str
    """`counts`, `script` or `lingua`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The languages, then `shared`, then `unknown`."""
        return (*self.languages, SHARED, UNKNOWN)

    def of(self, token: int) -> str:
        """Language of one token id."""
        return self.names[int(self.labels[token])]

    def one_hot(self) -> Float[Tensor, "vocab lang"]:
        """Labels as rows of zeros and a one, for sums over the vocabulary."""
        return torch.nn.functional.one_hot(self.labels, len(self.names)).float()

    def __len__(self) -> int:
        return self.labels.shape[0]


def from_counts(
    counts: Mapping[str, Int[Tensor, " vocab"]], *, certain: float = 0.7, seen: int = 2, alpha: float = 0.5
) -> TokenLanguages:
    """Label tokens by the smoothed posterior P(language | token) with a uniform prior over languages.

        P(token | language) = (count + alpha) / (total + alpha * vocab),   P(language | token) proportional to it

    Args:
        counts: Per language, how often each token id occurs in its corpus.
        certain: Posterior a language must reach; below it the token is `shared`.
        seen: Occurrences over all languages below which the token is `unknown`.
        alpha: Pseudo-count.

    Raises:
        ValueError: Fewer than two languages (a posterior needs an alternative), or a language without tokens.

    Example:
        >>> counts = {"en": torch.tensor([9, 5, 0, 0]), "de": torch.tensor([0, 5, 9, 1])}
        >>> labels = from_counts(counts)
        >>> [labels.of(token) for token in range(4)]
        ['en', 'shared', 'de', 'unknown']
    """
    if len(counts) < 2:
        raise ValueError(
            f"a token's language is a choice between languages: give at least two corpora, got {list(counts)}"
        )
    languages = tuple(counts)
    table = torch.stack([counts[language] for language in languages]).double()
    if not bool((table.sum(1) > 0).all()):
        raise ValueError(f"no token was counted for {languages[int(table.sum(1).argmin())]!r}: its corpus is empty")
    likelihood = (table + alpha) / (table.sum(1, keepdim=True) + alpha * table.shape[1])
    posterior = likelihood / likelihood.sum(0)
    best, labels = posterior.max(dim=0)
    labels = torch.where(best >= certain, labels, len(languages))
    labels = torch.where(table.sum(0) >= seen, labels, len(languages) + 1)
    return TokenLanguages(languages, labels, "counts")


def from_script(tokenizer: Any, languages: Sequence[str], *, vocab: int) -> TokenLanguages:
    """Label tokens by script; a script that several of the languages use makes its tokens `shared`."""
    owners: dict[str, list[int]] = {}
    for i, code in enumerate(languages):
        owners.setdefault(require_language(code).script, []).append(i)

    def label(text: str) -> int:
        scripts = {s for character in text if (s := script(character))}
        found = {i for s in scripts for i in owners.get(s, [])}
        if not found:
            return len(languages) + 1
        return found.pop() if len(found) == 1 and len(scripts) == 1 else len(languages)

    return TokenLanguages(
        tuple(languages), torch.tensor([label(_decode(tokenizer, i)) for i in range(vocab)]), "script"
    )


def from_lingua(tokenizer: Any, languages: Sequence[str], *, vocab: int, certain: float = 0.6) -> TokenLanguages:
    """Label tokens with the lingua classifier; a confidence below `certain` makes a token `shared`.

    Raises:
        ImportError: The extra `lang` is not installed.
        ValueError: lingua does not know one of the languages.
    """
    try:
        from lingua import IsoCode639_1, LanguageDetectorBuilder  # pyright: ignore[reportMissingImports]  # extra
    except ImportError as error:
        raise ImportError("identify='lingua' needs the extra `lang`: pip install 'mwork-lens[lang]'") from error
    # lingua tells the two written standards of Norwegian apart; Bokmål stands for `no`
    named = {code: {"no": "NB"}.get(require_language(code).code, code.upper()) for code in languages}
    if missing := [code for code, name in named.items() if not hasattr(IsoCode639_1, name)]:
        raise ValueError(f"lingua does not know {missing[0]!r} ({LANGUAGES[missing[0]].name}): use identify='counts'")
    codes = [getattr(IsoCode639_1, name) for name in named.values()]
    detector = LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()

    def label(text: str) -> int:
        if not any(script(character) for character in text):
            return len(languages) + 1
        best = detector.compute_language_confidence_values(text.strip())[0]
        index = list(named.values()).index(best.language.iso_code_639_1.name)
        return index if best.value >= certain else len(languages)

    return TokenLanguages(
        tuple(languages), torch.tensor([label(_decode(tokenizer, i)) for i in range(vocab)]), "lingua"
    )


def _decode(tokenizer: Any, token: int) -> str:
    """Text of a token id; the replacement character of a byte piece is no letter. Ids beyond the tokenizer are empty."""
    if token >= len(tokenizer):
        return ""
    return "" if token in tokenizer.all_special_ids else tokenizer.decode([token])
