"""The facts of the world, and what training never shows: splits are decided here, by hashing meanings, for all languages at once.

understanding   a claim (person, relation, value) that is held out occurs in no training passage of any language
reasoning       sums and differences (left, operator, right) that are held out occur in no training problem, not even as one step of two;
two-step problems are held out by their steps
knowledge       a fact is stated, and asked, only in the languages of `Fact.stated`; a quarter of the facts is never asked in training
generation      events (building, deed, city) that are held out occur in no training article
"""

import random
from hashlib import blake2b
from itertools import combinations, product

from .languages import CODES
from .languages.base import SYLLABLES
from .meaning import FACTS, Claim, Event, Fact, Problem, Subject

HELD_OUT = 0.12
"""Share of claims, sums and events that training never shows."""
NEVER_ASKED = 0.25
"""Share of facts that training states but never asks."""
SUBJECTS = {"town": 80, "person": 80}
REFUSED = {("su", "ka")}
"""Names that are a rude word in one of the languages."""
STATED = {"all": 0.4, "english": 0.2, "other": 0.4}
"""Shares of facts that are stated in all languages, in English only, and in exactly one other language."""


def share(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone: the same on every machine."""
    digest = blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def held_out_claim(claim: Claim) -> bool:
    """Whether training never shows this claim (the thing that has a colour does not matter)."""
    return share("claim", claim.person, claim.relation, claim.value) < HELD_OUT


def held_out_event(event: Event) -> bool:
    """Whether training never shows this building, deed and city together."""
    return share("event", event.building, event.deed, event.city) < HELD_OUT


def held_out_sum(left: int, operator: str, right: int) -> bool:
    """Whether training never shows this sum or difference; a sum and its mirror go together. Products are all shown: they are few."""
    if operator == "×":
        return False
    pair = sorted((left, right)) if operator == "+" else (left, right)
    return share("sum", operator, *pair) < HELD_OUT


def problem_split(problem: Problem) -> str | None:
    """`"train"`, `"test"`, or None for a two-step problem that has a held-out sum in it (it is used nowhere)."""
    steps = [held_out_sum(left, operator, right) for left, operator, right, _ in problem.equations()]
    if len(steps) == 1:
        return "test" if steps[0] else "train"
    if any(steps):
        return None
    return "test" if share("steps", *problem.equations()) < HELD_OUT else "train"


def asked(fact: Fact) -> bool:
    """Whether training asks for this fact (in the languages in which it is stated)."""
    return share("asked", fact.id) >= NEVER_ASKED


def subjects(seed: int = 0) -> dict[str, list[Subject]]:
    """Invented towns (three syllables) and persons (two); no two share a name."""
    chance = random.Random(f"subjects-{seed}")
    women = [s for s in SYLLABLES if s.endswith("a")]
    men = [s for s in SYLLABLES if not s.endswith("a")]
    towns = chance.sample(list(product(SYLLABLES, repeat=3)), 20 * SUBJECTS["town"])
    towns = [name for name in towns if len(set(name)) == 3][: SUBJECTS["town"]]
    half = SUBJECTS["person"] // 2
    people = [
        name
        for last in (women, men)
        for name in chance.sample([(a, b) for a in SYLLABLES for b in last if a != b and (a, b) not in REFUSED], half)
    ]
    chance.shuffle(people)
    return {
        kind: [Subject(kind, i, tuple(name)) for i, name in enumerate(names)]
        for kind, names in (("town", towns), ("person", people))
    }


def facts(seed: int = 0, languages: tuple[str, ...] = CODES) -> list[Fact]:
    """All facts: values balanced within a relation, languages of statement balanced within it too, and independent of the value."""
    chance = random.Random(f"facts-{seed}")
    people = subjects(seed)
    others = [code for code in languages if code != "en"]
    found = []
    for relation, (kind, values) in FACTS.items():
        n = len(people[kind])
        drawn = [values[i % len(values)] for i in range(n)]
        n_all, n_english = round(STATED["all"] * n), round(STATED["english"] * n)
        stated = [languages] * n_all + [("en",)] * n_english
        stated += [(others[i % len(others)],) for i in range(n - len(stated))]
        chance.shuffle(drawn)
        chance.shuffle(stated)
        found += [
            Fact(relation, who, value, where) for who, value, where in zip(people[kind], drawn, stated, strict=True)
        ]
    return found


def problem_shapes() -> list[tuple[tuple[str, ...], ...]]:
    """Kinds of steps: one step or two; `groups` only first."""
    last = [("gain", "buy"), ("gain", "find"), ("lose", "lose"), ("lose", "give_away")]
    one = [(("start", ""), step) for step in last] + [(("groups", box),) for box in ("box", "bag", "basket")]
    two = [(("start", ""), a, b) for a, b in combinations(last, 2)] + [
        (("start", ""), b, a) for a, b in combinations(last, 2)
    ]
    two += [(("groups", box), step) for box in ("box", "bag", "basket") for step in last]
    return one + two


def draw_problem(chance: random.Random, person: str, item: str, shape: tuple[tuple[str, ...], ...]) -> Problem:
    """Numbers for a shape: starts 2-20, gains and losses 2-9 (something is left), 2-5 containers of 2-6."""
    while True:
        steps: list[tuple[str, ...]] = []
        for kind, detail in shape:
            if kind == "start":
                steps.append((kind, detail, str(chance.randint(2, 20))))
            elif kind == "groups":
                steps.append((kind, detail, str(chance.randint(2, 5)), str(chance.randint(2, 6))))
            else:
                steps.append((kind, detail, str(chance.randint(2, 9))))
        problem = Problem(person, item, tuple(steps))
        if all(result >= 1 for *_, result in problem.equations()):
            return problem
