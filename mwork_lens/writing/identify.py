"""Which language is this text? An answer from a classifier, from the script, or from a function of yours; never a guess without saying so.

An identifier is called with a text and returns a language code or `unknown`; `languages` are the codes it can return. Three kinds:

    lingua_identifier()          lingua's n-gram classifier (extra `lang`)
    script_identifier([...])     Unicode script alone, for languages whose script no other of those asked for uses
    as_identifier(f, [...])      any callable, checked at every answer

**Candidates.** A classifier that may only answer with the languages under test turns noise into a hit: on words with shuffled letters, lingua
restricted to en de es fr ru zh names one of the six every time (with confidence of at least 0.5 on 57-100 % of the texts). With all its 75
languages, and below a confidence of 0.3 the answer `unknown`, Latin-script noise is taken for one of the six in 0-7 % of texts (Cyrillic noise
for Russian in 35 %: few of the 75 write Cyrillic), while 98.8-100 % of the sentences of the embedded passages (431 per language) are named
rightly and none wrongly. The price: 1 GB of memory and 10 s when the first Latin-script text arrives, then 4 ms a sentence (six languages:
0.14 GB, 1 s, 0.3 ms). So all languages are the default, and a restriction has to be written down. A text in two languages gets one label.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..languages import LANGUAGES, UNKNOWN, require_language, script

CERTAIN = 0.3
"""Confidence below which lingua's answer is `unknown`; the language-confusion benchmark uses the same value on fastText's."""

_LINGUA = {"no": "nb"}  # lingua tells the two written standards of Norwegian apart; Bokmål stands for `no`
_OURS = {lingua: ours for ours, lingua in _LINGUA.items()}


@runtime_checkable
class Identifier(Protocol):
    """Names the language of a text."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes it can return, beside `unknown`."""
        ...

    def __call__(self, text: str) -> str:
        """A code of `languages`, or `unknown`."""
        ...


def require_identifiable(identifier: Identifier, language: str) -> None:
    """Refuse a language that an identifier can never return: every text in it would count as a failure.

    Raises:
        ValueError: The language is not among `identifier.languages`.
    """
    if language not in identifier.languages:
        known = ", ".join(identifier.languages)
        raise ValueError(
            f"this language identifier does not know {language!r}, so no text could ever count as {language!r}: it knows {known}"
        )


@dataclass(frozen=True)
class LinguaIdentifier:
    """lingua's answer, `unknown` where it is not certain; made by `lingua_identifier`."""

    languages: tuple[str, ...]
    """Candidates."""
    certain: float
    """Confidence below which the answer is `unknown`."""
    detector: Any = field(repr=False, compare=False)
    """lingua's detector of these candidates."""

    def __call__(self, text: str) -> str:
        """Most likely of the candidates, or `unknown`."""
        if not any(script(character) for character in text):
            return UNKNOWN
        best = self.detector.compute_language_confidence_values(text)[0]
        code: str = best.language.iso_code_639_1.name.lower()
        return str(_OURS.get(code, code)) if best.value >= self.certain else UNKNOWN


def lingua_identifier(languages: Sequence[str] | None = None, *, certain: float = CERTAIN) -> LinguaIdentifier:
    """An identifier that asks lingua (https://github.com/pemistahl/lingua-py).

    Args:
        languages: The candidates; default all that lingua knows (75). Fewer need less memory and find a language where there is none: see the
            top of this module.
        certain: Confidence, in 0..1 and relative to the candidates, below which the answer is `unknown`. Higher values reject right answers
            too: at 0.5, 7 % of the embedded English sentences.

    Raises:
        ImportError: The extra `lang` is not installed.
        ValueError: lingua does not know one of the languages, there are fewer than two, or `certain` is not in 0..1.
    """
    try:
        from lingua import IsoCode639_1, Language, LanguageDetectorBuilder  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("lingua_identifier needs the extra `lang`: pip install 'mwork-lens[lang]'") from error
    if not 0 <= certain <= 1:
        raise ValueError(f"certain={certain} is not a confidence: give a number in 0..1")
    if languages is None:
        codes = [language.iso_code_639_1.name.lower() for language in Language.all()]
        builder = LanguageDetectorBuilder.from_all_languages()
        return LinguaIdentifier(tuple(sorted(_OURS.get(code, code) for code in codes)), certain, builder.build())
    chosen = _distinct(languages)
    named = {code: _LINGUA.get(require_language(code).code, code).upper() for code in chosen}
    if missing := [code for code, name in named.items() if not hasattr(IsoCode639_1, name)]:
        raise ValueError(
            f"lingua does not know {missing[0]!r} ({LANGUAGES[missing[0]].name}): leave it out, or give an identifier that knows it "
            "(as_identifier)"
        )
    if len(named) < 2:
        raise ValueError(f"a text's language is a choice: give lingua at least two candidates, got {list(named)}")
    builder = LanguageDetectorBuilder.from_iso_codes_639_1(*(getattr(IsoCode639_1, name) for name in named.values()))
    return LinguaIdentifier(chosen, certain, builder.build())


@dataclass(frozen=True)
class ScriptIdentifier:
    """The language that owns the script of most letters; made by `script_identifier`."""

    languages: tuple[str, ...]
    """Languages asked for that are alone with their script: the others can never be told."""
    owners: tuple[tuple[str, str], ...]
    """(script, language) pairs."""

    def __call__(self, text: str) -> str:
        """Owner of the script that more than half of the letters are in, or `unknown`."""
        counts = Counter(name for character in text if (name := script(character)))
        if not counts:
            return UNKNOWN
        name, letters = counts.most_common(1)[0]
        return dict(self.owners).get(name, UNKNOWN) if 2 * letters > counts.total() else UNKNOWN


def script_identifier(languages: Sequence[str]) -> ScriptIdentifier:
    """An identifier that looks at the script only: no extra needed, exact, and blind to everything else.

    It names a language only if no other of `languages` is mostly written in the same script; text in a shared script is `unknown`. It cannot
    see languages that were not asked for: with `["en", "zh"]`, French is called English.

    Raises:
        ValueError: A language is unknown, or every script is shared.
    """
    chosen = _distinct(languages)
    writing = Counter(require_language(code).script for code in chosen)
    owners = {LANGUAGES[code].script: code for code in chosen if writing[LANGUAGES[code].script] == 1}
    if not owners:
        raise ValueError(
            f"each of {', '.join(chosen) or 'no languages'} shares its script with another: use lingua_identifier()"
        )
    return ScriptIdentifier(tuple(owners.values()), tuple(owners.items()))


@dataclass(frozen=True)
class CallableIdentifier:
    """A function of yours, with its answers checked; made by `as_identifier`."""

    languages: tuple[str, ...]
    """Codes the function may return."""
    identify: Callable[[str], str | None]
    """The function."""

    def __call__(self, text: str) -> str:
        """The function's answer.

        Raises:
            ValueError: It is not among `languages`.
        """
        answer = self.identify(text)
        if answer is None or answer == UNKNOWN:
            return UNKNOWN
        if answer not in self.languages:
            raise ValueError(
                f"the language identifier answered {answer!r}, which is not among its languages ({', '.join(self.languages)}): "
                f"name it in `languages`, or return {UNKNOWN!r}"
            )
        return answer


def as_identifier(
    identify: Callable[[str], str | None], languages: Sequence[str] | None = None
) -> Identifier | CallableIdentifier:
    """A callable as an identifier.

    Args:
        identify: From a text to a code, or to `unknown` or None. Something that already is an `Identifier` passes through.
        languages: Every code it may return; all that a classifier has, not only those under test.

    Raises:
        ValueError: `languages` is missing, empty, or holds `unknown`.
    """
    if languages is None and isinstance(identify, Identifier):
        return identify
    if not languages:
        raise ValueError("name the languages this identifier may return: as_identifier(identify, ['en', 'de', ...])")
    if UNKNOWN in languages:
        raise ValueError(f"{UNKNOWN!r} is not a language: leave it out, every identifier may return it")
    return CallableIdentifier(_distinct(languages), identify)


def _distinct(languages: Sequence[str]) -> tuple[str, ...]:
    return (languages,) if isinstance(languages, str) else tuple(dict.fromkeys(languages))
