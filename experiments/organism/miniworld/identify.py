"""Which of the seven languages a generated sentence is in: the one whose words it is made of. Exact where the world's own words are used."""

import random
import re
from collections.abc import Callable

from .languages import CODES, grammar
from .sampling import draw_event

UNKNOWN = "unknown"


def words(text: str) -> list[str]:
    """Lower-case words; each Chinese character is one."""
    return re.findall(r"[一-鿿]|[^\W\d_一-鿿]+", text.lower())


def headline_words(events: int = 4000) -> dict[str, set[str]]:
    """Words of each language's headlines."""
    chance = random.Random("identify")
    found: dict[str, set[str]] = {code: set() for code in CODES}
    for _ in range(events):
        event = draw_event(chance)
        for code in CODES:
            found[code].update(words(grammar(code).title(event)))
    return found


def identifier() -> Callable[[str], str]:
    """A function from a headline to its language: the one that has most of its words; a tie, or a minority, is unknown."""
    known = headline_words()

    def which(text: str) -> str:
        said = words(text)
        shares = {code: sum(word in vocabulary for word in said) for code, vocabulary in known.items()}
        best = max(shares.values())
        named = [code for code, count in shares.items() if count == best]
        return named[0] if len(named) == 1 and best * 2 > len(said) else UNKNOWN

    return which
