"""What the organism was trained on, as corpora to search: documents drawn as training draws them, in the languages in which facts are stated.

Natural lines are left out: they hold no invented name. A page is several documents on one line, as an encyclopedia's article tells many facts: then a
chunk of 512 tokens holds subjects and objects of different facts.
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "organism"))  # the generated world

from miniworld.documents import draw
from miniworld.languages import CODES, grammar
from miniworld.world import facts
from recipe import Recipe


def corpora(documents: int, seed: int = 0, languages: tuple[str, ...] = CODES) -> dict[str, list[str]]:
    """So many training documents per language, one text each."""
    known, found = facts(languages=CODES), {}
    for code in languages:
        chance, language = random.Random(f"search-{seed}-{code}"), grammar(code)
        own = [fact for fact in known if code in fact.stated]
        made = (draw(chance, language, own, [], progress=1.0) for _ in range(documents))
        found[code] = [" ".join("".join(text for text, _ in one).split("\n")).strip() for one in made]
    return found


def pages(texts: dict[str, list[str]], size: int = 12) -> dict[str, list[str]]:
    """The same documents, so many on a page."""
    return {x: [" ".join(held[at : at + size]) for at in range(0, len(held), size)] for x, held in texts.items()}


def volumes() -> dict[str, dict[str, float]]:
    """What a language had of training: its share of the tokens (of the documented recipe), in percent, and how many facts its texts state."""
    known = facts(languages=CODES)
    return {
        "share of training tokens, %": {x: 100 * share for x, share in Recipe().shares().items()},
        "facts stated": {x: float(sum(x in fact.stated for fact in known)) for x in CODES},
    }
