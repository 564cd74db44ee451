"""How good is an answer? Pure functions of texts, each in 0..1.

    exact      1 if the normalised answer equals a normalised reference                                  SQuAD, MLQA
    f1         2 P R / (P + R) of the bags of normalised tokens, best reference                           SQuAD, MLQA
    rouge_l    2 P R / (P + R) with P = LCS / |answer|, R = LCS / |reference|, best reference             Lin 2004; no stemming
    number     1 if the last number of the answer is that of a reference                                 GSM8K, MGSM
    fidelity   1 if an identifier names the language asked for                                           language confusion

*Normalised* is: NFKC, lower case, punctuation removed, articles removed, white space squeezed (Rajpurkar et al. 2016, the steps and their order;
articles per language as in MLQA, Lewis et al. 2020, whose Vietnamese list holds particles and classifiers). Departures: NFKC, so that full-width
digits are digits; French articles, which MLQA lacks; Arabic `al-` at the start of words only (MLQA removes the two letters anywhere); a text
that would vanish keeps its articles and then its punctuation, so that the answer `A` is not the answer `the`. Tokens are words, and single
characters (with their combining marks) in scripts written without spaces: Han, kana, Thai, Lao, Khmer, Myanmar, Tibetan. MLQA splits Chinese only.

ROUGE-L: the tokens of `tokens`, NFKC and lower case; on ASCII text they are those of the `rouge-score` package, which drops every other letter.

Numbers: the released MGSM rule takes the text behind `#### `, else the last number, drops its sign, cuts its decimals, splits numbers with two or
more separators, and answers -1 on failure. Ours keeps sign and decimals, and reads `1,234` `1.234` `1 234` `1'234` as 1234 in every language:
a single separator before exactly three digits groups thousands (not behind a lone 0), any other is a decimal mark. No number is no match.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from ..writing.confusion import response_language
from ..writing.identify import Identifier

# scripts written without spaces: each character is a token
_SINGLE = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U000323af]"
)
_ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "fr": r"\b(un|une|des|le|la|les|du)\b",
    "ar": r"\bال",
}
_ELISION = re.compile(r"\bl['’]")
"""French `l'`, removed before punctuation is: behind it the apostrophe would be gone."""
_MARKS = ".,'’٫٬ \u00a0\u202f"
_NUMBER = re.compile(rf"(?:(?<![\w)\]%])[-−](?=[$€£¥]?\d))?[$€£¥]?\d+(?:[{_MARKS}]\d+)*")


def tokens(text: str) -> list[str]:
    """Words in lower case (NFKC), and single characters in scripts written without spaces; punctuation is none."""
    found: list[str] = []
    word, single = "", False
    for character in unicodedata.normalize("NFKC", text).lower():
        kind = unicodedata.category(character)[0]
        if single and kind == "M":
            found[-1] += character
        elif kind in "LN" and _SINGLE.match(character):
            found += [word] if word else []
            found.append(character)
            word, single = "", True
        elif kind in "LN" or (word and kind == "M"):
            word, single = word + character, False
        else:
            found += [word] if word else []
            word, single = "", False
    return found + ([word] if word else [])


@lru_cache(maxsize=65536)
def normalise(text: str, language: str = "en") -> str:
    """Text as SQuAD and MLQA compare it; see the top of this module."""
    lower = unicodedata.normalize("NFKC", text).lower()
    bare = _without_punctuation(_ELISION.sub(" ", lower) if language == "fr" else lower)
    kept = " ".join(re.sub(_ARTICLES[language], " ", bare).split()) if language in _ARTICLES else ""
    return kept or " ".join(bare.split()) or " ".join(lower.split())


def normalised_tokens(text: str, language: str = "en") -> list[str]:
    """Tokens of the normalised text: what `f1` counts."""
    text = normalise(text, language)
    return [piece for word in text.split() for piece in (tokens(word) if _SINGLE.search(word) else [word])]


def exact(text: str, answers: Sequence[str], language: str = "en") -> float:
    """Whether a text is one of the answers, after normalisation."""
    return float(normalise(text, language) in {normalise(answer, language) for answer in answers})


def f1(text: str, answers: Sequence[str], language: str = "en") -> float:
    """Token F1 with the answer it agrees with most."""
    return max(_f1(normalised_tokens(text, language), normalised_tokens(answer, language)) for answer in answers)


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    return _harmonic((Counter(given) & Counter(wanted)).total(), len(given), len(wanted))


def rouge_l(text: str, answers: Sequence[str], language: str = "en") -> float:
    """F of the longest common subsequence of tokens, with the answer it is largest for; the language is not used."""
    from rapidfuzz.distance import LCSseq

    given = tokens(text)
    wanted = [tokens(answer) for answer in answers]
    return max(
        _harmonic(LCSseq.similarity(given, one), len(given), len(one)) if given and one else float(given == one)
        for one in wanted
    )


def _harmonic(common: int, given: int, wanted: int) -> float:
    return 2 * common / (given + wanted)  # of precision common / given and recall common / wanted


def number(text: str, answers: Sequence[str], language: str = "en") -> float:
    """Whether the last number of a text is that of an answer; the language is not used.

    Read are decimal digits of every script, full-width ones too (`１６`, `১২৩`, `٤٢`), with a sign and a currency mark in front (`-` or `−`; not
    between numbers: `10-5` ends in 5). One of `.` `,` `'` `’` `٬` or a space groups thousands, or Indian lakhs; `.`, `,` or `٫` before the last
    digits is the decimal mark. A single mark before exactly three digits groups: `1.234` and `1,234` are 1234, `0.125` and `1234.567` decimals.
    Not read: numerals of words or characters (`twelve`, `十二`, `XII`, `½`), exponents (`1e5` ends in 5), fractions (`3/4` ends in 4), units of
    quantity (`3 million` and `3万` are 3), and full-width marks (`１，２３４` ends in 234).
    """
    found = last_number(text)
    wanted = [value for answer in answers if (value := last_number(answer)) is not None]
    return float(found is not None and any(abs(found - value) <= 1e-9 * max(1.0, abs(value)) for value in wanted))


def last_number(text: str) -> float | None:
    """The first number behind the last `####`, else the last number of a text; None if there is none."""
    _, mark, behind = text.rpartition("####")
    if mark and (first := _NUMBER.search(behind)):
        return _value(first.group())
    found = list(_NUMBER.finditer(text))
    return _value(found[-1].group()) if found else None


def _value(written: str) -> float:
    sign = -1.0 if written[0] in "-−" else 1.0
    pieces = re.split(f"([{_MARKS}])", written.lstrip("-−$€£¥"))
    groups, marks = pieces[::2], pieces[1::2]
    if not marks:
        return sign * float(groups[0])
    if _grouped(groups, marks):
        return sign * float("".join(groups))
    if not marks[-1].isspace() and (len(marks) == 1 or (marks[-1] != marks[0] and _grouped(groups[:-1], marks[:-1]))):
        return sign * float("".join(groups[:-1]) + "." + groups[-1])
    spaces = [at for at, mark in enumerate(marks) if mark.isspace()]
    if spaces:  # numbers side by side: the last one counts
        return _value("".join(pieces[2 * spaces[-1] + 2 :]))
    return float(groups[-1])  # a list such as 1,2,3


def _grouped(groups: Sequence[str], marks: Sequence[str]) -> bool:
    """Whether digits are grouped in thousands (or as in India, 12,50,000) by one kind of mark."""
    return (
        len(set(marks)) == 1
        and marks[0] != "٫"
        and len(groups[0]) <= 3
        and groups[0].strip("0") != ""
        and len({len(group) for group in groups[1:-1]} | {3}) <= 2
        and all(len(group) in (2, 3) for group in groups[1:-1])
        and len(groups[-1]) == 3
    )


def fidelity(text: str, language: str, identify: Identifier) -> float:
    """Whether a text is in a language; text without a word is in none."""
    return float(response_language(text, identify) == language)


@lru_cache(maxsize=65536)
def _without_punctuation(text: str) -> str:
    return "".join(c for c in text if not unicodedata.category(c).startswith("P") and c not in string.punctuation)
