"""Meanings at random: passages, problems, events, for training or for the test items. Every draw says which split it belongs to."""

import random
from collections.abc import Sequence

from .meaning import (
    BUILDINGS,
    CITIES,
    COLOURS,
    COUNTABLES,
    DAYS,
    DEEDS,
    NAMES,
    RELATIONS,
    THINGS,
    Claim,
    Event,
    Problem,
)  # fmt: skip
from .world import draw_problem, held_out_claim, held_out_event, problem_shapes, problem_split

SHAPES = problem_shapes()
ONE_STEP = [shape for shape in SHAPES if len(shape) + (shape[0][0] == "groups") == 2]
TWO_STEPS = [shape for shape in SHAPES if shape not in ONE_STEP]


def draw_claim(chance: random.Random, person: str, relation: str, *, held_out: bool = False) -> Claim:
    """A claim of a split."""
    while True:
        thing = chance.choice(THINGS) if relation == "colour" else None
        claim = Claim(relation, person, chance.choice(RELATIONS[relation]), thing)
        if held_out_claim(claim) == held_out:
            return claim


def draw_passage(
    chance: random.Random, claims: int, *, held_out: bool = False, names: Sequence[str] = NAMES
) -> tuple[list[Claim], int]:
    """Claims of a passage, and which of them is asked: the only held-out one, if the passage is a test item.

    With two claims or more, another person has the same relation with another value, so that the name must be read; with three, the
    asked person also has another relation, so that the question must be read too.
    No two claims share a value. Persons are of `names` (three or more).
    """
    while True:
        people = chance.sample(names, 3)
        first, second = chance.sample(list(RELATIONS), 2)
        if not held_out or any(held_out_claim(Claim(first, people[0], value)) for value in RELATIONS[first]):
            break
    plan = [(people[0], first), (people[1], first), (people[0], second), (people[1], second), (people[2], first)][
        :claims
    ]
    while True:
        made = [draw_claim(chance, who, what, held_out=held_out and i == 0) for i, (who, what) in enumerate(plan)]
        if first == "colour":  # the same thing, in two colours
            made = [Claim(c.relation, c.person, c.value, made[0].thing) if c.relation == "colour" else c for c in made]
        if len({(c.value, c.relation) for c in made}) == len(made):
            break
    order = list(range(len(made)))
    chance.shuffle(order)
    return [made[i] for i in order], order.index(0)


def draw_roll(chance: random.Random, persons: int, *, names: Sequence[str] = NAMES) -> list[Claim]:
    """Claims of training that differ in person and value only: nothing but the name tells them apart."""
    relation, thing = chance.choice(list(RELATIONS)), chance.choice(THINGS)
    people = chance.sample(names, persons)
    while True:
        made = [draw_claim(chance, who, relation) for who in people]
        if len({claim.value for claim in made}) == persons:
            break
    return [Claim(relation, c.person, c.value, thing if relation == "colour" else None) for c in made]


def draw_problem_of(chance: random.Random, split: str, *, steps: int) -> Problem:
    """A problem of a split; tests of one step are sums and differences."""
    shapes = ONE_STEP if steps == 1 else TWO_STEPS
    while True:
        problem = draw_problem(chance, chance.choice(NAMES), chance.choice(COUNTABLES), chance.choice(shapes))
        if problem_split(problem) == split:
            return problem


def draw_event(chance: random.Random, *, held_out: bool = False) -> Event:
    """News of a split."""
    while True:
        event = Event(
            chance.choice(BUILDINGS), chance.choice(DEEDS), chance.choice(CITIES), chance.choice(DAYS),
            chance.randint(2, 30), chance.choice(NAMES), chance.choice(COLOURS),
        )  # fmt: skip
        if (event.building, event.colour) == ("market", "black"):  # in most of the languages that is another thing
            continue
        if held_out_event(event) == held_out:
            return event
