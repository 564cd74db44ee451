"""Names of subjects and objects as one Aho-Corasick automaton, and how a text is searched for all of them at once.

With `match="tokens"` a token id is one character, so that a run of tokens is a substring and token borders need no test. With `words` a hit
counts if no letter, digit or combining mark joins it to its neighbours; between characters of scripts that are written without spaces nothing is
a border and everything is allowed.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

MATCHES = ("tokens", "words", "string")

# Thai, Lao, Tibetan, Burmese, Khmer; kana; Han with its extensions
_UNSPACED = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)  # fmt: skip
_SURROGATES = 0xD800, 0x0800


@dataclass(frozen=True, eq=False)
class Patterns:
    """The names of a language's facts, ready to search."""

    automaton: Any
    """None if no name can be searched."""
    subject: np.ndarray
    """Name of each fact's subject, by number."""
    object: np.ndarray
    """Name of each fact's object."""
    facts_of: Mapping[int, Sequence[tuple[int, int]]]
    """Name of a subject to its (fact, name of the object)."""
    names: int
    """How many names there are."""
    searchable: np.ndarray
    """Per fact, whether both its names can be searched."""
    match: str
    lower: bool

    @classmethod
    def of(
        cls, subjects: pd.Series, objects: pd.Series, facts: Sequence[str], match: str, tokenizer: Any, lower: bool
    ) -> "Patterns":
        """Build the automaton of all subjects and objects.

        Raises:
            ValueError: A name is missing, empty, or has no token.
            ImportError: pyahocorasick is not installed.
        """
        for what, column in (("subject", subjects), ("object", objects)):
            for fact, name in zip(facts, column, strict=True):
                if not isinstance(name, str) or not name.strip():
                    raise ValueError(f"the {what} of fact {fact!r} is {name!r}: a name to search must not be empty")
        distinct = list(dict.fromkeys([*subjects, *objects]))
        number = {name: i for i, name in enumerate(distinct)}
        subject, thing = (np.array([number[name] for name in column], dtype=np.int64) for column in (subjects, objects))
        keys: dict[str, list[int]] = {}
        unknown = np.zeros(len(distinct), dtype=bool)
        for i, name in enumerate(distinct):
            ways = token_keys(name, tokenizer) if match == "tokens" else {written(name.strip(), lower)}
            unknown[i] = not ways
            for way in ways:
                keys.setdefault(way, []).append(i)
        facts_of: dict[int, list[tuple[int, int]]] = {}
        for fact, (s, o) in enumerate(zip(subject, thing, strict=True)):
            facts_of.setdefault(int(s), []).append((fact, int(o)))
        searchable = ~unknown[subject] & ~unknown[thing]
        return cls(_automaton(keys), subject, thing, facts_of, len(distinct), searchable, match, lower)

    def find(self, text: str) -> dict[int, tuple[int, int]]:
        """Name to (smallest end, largest start) of its occurrences, ends exclusive less one: enough to tell whether two names stand apart."""
        hits: dict[int, tuple[int, int]] = {}
        if self.automaton is None:
            return hits
        if self.match != "tokens":
            text = written(text, self.lower)
        words = self.match == "words"
        for end, (size, names) in self.automaton.iter(text):
            start = end - size + 1
            if words and (_joined(text, start) or _joined(text, end + 1)):
                continue
            for name in names:
                first, last = hits.get(name, (end, start))
                hits[name] = (min(first, end), max(last, start))
        return hits


def written(text: str, lower: bool) -> str:
    """A text as it is compared: NFC, in lower case if asked."""
    text = unicodedata.normalize("NFC", text)
    return text.lower() if lower else text


def token_text(ids: Sequence[int]) -> str:
    """Token ids as one character each; surrogates are skipped."""
    first, gap = _SURROGATES
    return "".join([chr(i) if i < first else chr(i + gap) for i in ids])


def token_keys(name: str, tokenizer: Any) -> set[str]:
    """The runs of tokens that a name may be: at the start of a text, behind a space, behind a bracket. Empty if a token is unknown.

    Raises:
        ValueError: The name has no token.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    found, empty = set(), True
    for before in ("", " ", "("):
        head, ids = (
            list(x)
            for x in tokenizer([before or " ", before + name], add_special_tokens=False, verbose=False)["input_ids"]
        )
        if before == "(":
            if ids[: len(head)] != head or unknown in head:
                continue  # the bracket melts into the name, or is unknown itself
            ids = ids[len(head) :]
        empty &= not ids
        if ids and unknown not in ids:
            found.add(token_text(ids))
    if empty:
        raise ValueError(
            f"the name {name!r} has no token in this tokenizer: remove its facts, or search with match='words'"
        )
    return found


def _automaton(keys: Mapping[str, list[int]]) -> Any:
    try:
        import ahocorasick  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("searching a corpus for facts needs pyahocorasick: pip install pyahocorasick") from error
    if not keys:
        return None
    automaton = ahocorasick.Automaton()
    for key, names in keys.items():
        automaton.add_word(key, (len(key), tuple(names)))
    automaton.make_automaton()
    return automaton


def _joined(text: str, at: int) -> bool:
    """Whether the characters before and at a place belong to one word."""
    if at <= 0 or at >= len(text):
        return False
    left, right = _kind(text[at - 1]), _kind(text[at])
    if right == "mark":  # it belongs to the character before it, in any script
        return True
    return bool(left) and bool(right) and "unspaced" not in (left, right)


@lru_cache(maxsize=1 << 16)
def _kind(char: str) -> str:
    category = unicodedata.category(char)[0]
    if any(a <= ord(char) <= b for a, b in _UNSPACED):
        return "unspaced" if category in "LNM" else ""
    return {"L": "word", "N": "word", "M": "mark"}.get(category, "")
