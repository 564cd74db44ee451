"""Held-out items of the four abilities, the same in every language: an id names one meaning.

understanding   a passage, a question; the answer is in the passage (the shape of XQuAD)
reasoning       a word problem of one or two steps (the shape of MGSM)
knowledge       a question about a fact and four answers of the same relation (the shape of X-CSQA); `meta` says who stated it
cloze           the same facts as the beginning of a sentence
generation      an article and its headline (the shape of XL-Sum)
"""

import random
from collections.abc import Sequence
from typing import Any

from .documents import ask, solution
from .languages import CODES, grammar
from .languages.base import Grammar
from .meaning import FACTS, Fact
from .sampling import draw_event, draw_passage, draw_problem_of
from .world import asked, facts

ABILITIES = {
    "understanding": "understanding", "reasoning": "reasoning", "knowledge": "knowledge", "cloze": "knowledge", "generation": "generation",
}  # fmt: skip
COUNTS = {"understanding": 120, "reasoning": 120, "knowledge": 200, "cloze": 200, "generation": 100}

Item = dict[str, Any]


def items(kind: str, count: int, *, seed: int = 0, languages: Sequence[str] = CODES) -> list[Item]:
    """`count` items of a kind in every language.

    Raises:
        ValueError: An unknown kind.
    """
    if kind not in ABILITIES:
        raise ValueError(f"unknown kind {kind!r}: choose from {', '.join(ABILITIES)}")
    chance = random.Random(f"items-{kind}-{seed}")
    grammars = [grammar(code) for code in languages]
    make = {"understanding": _understanding, "reasoning": _reasoning, "generation": _generation}
    if kind in make:
        found: list[Item] = []
        for number in range(count):
            found += make[kind](random.Random(f"{kind}-{seed}-{number}"), grammars, f"{kind}-{number:03d}", number)
        return found
    known = facts(languages=CODES)
    chance.shuffle(known)
    rank = {fact.id: i for i, fact in enumerate(known)}
    known.sort(key=lambda fact: rank[fact.id])
    return [item for fact in known[:count] for item in _knowledge(fact, grammars, kind)]


def _understanding(chance: random.Random, grammars: Sequence[Grammar], name: str, number: int) -> list[Item]:
    claims, at = draw_passage(chance, 3 + number % 3, held_out=True)
    found = []
    for language in grammars:
        said = [language.claim(claim) for claim in claims]
        prompt = f"{language.join([s.text for s in said])}\n{ask(language, language.ask_value(claims[at]))}"
        meta = {"relation": claims[at].relation, "claims": len(claims), "position": at}
        found.append(_item(name, language, prompt, said[at].value, meta))
    return found


def _reasoning(chance: random.Random, grammars: Sequence[Grammar], name: str, number: int) -> list[Item]:
    problem = draw_problem_of(chance, "test", steps=1 + number % 2)
    found = []
    for language in grammars:
        *story, question = language.problem(problem)
        prompt = f"{language.join(story)}\n{ask(language, question)}"
        meta = {"steps": 1 + number % 2, "equations": solution(problem)}
        found.append(_item(name, language, prompt, str(problem.answer), meta))
    return found


def _generation(chance: random.Random, grammars: Sequence[Grammar], name: str, number: int) -> list[Item]:
    event = draw_event(chance, held_out=True)
    return [
        _item(
            name, language, f"{language.join(language.article(event))}\n{language.headline}", language.title(event), {}
        )
        for language in grammars
    ]


def _knowledge(fact: Fact, grammars: Sequence[Grammar], kind: str) -> list[Item]:
    """The question, or the cloze, with three other values of the relation as choices; the right one stands anywhere."""
    chance = random.Random(f"choices-{fact.id}")
    wrong = chance.sample([value for value in FACTS[fact.relation][1] if value != fact.value], 3)
    values = [fact.value, *wrong]
    chance.shuffle(values)
    found = []
    for language in grammars:
        phrases = [language.fact_answer(fact.relation, fact.subject, value) for value in values]
        right = language.fact_answer(fact.relation, fact.subject, fact.value)
        if kind == "cloze":
            prompt, _ = language.cloze(fact.relation, fact.subject, fact.value)
        else:
            prompt = ask(language, language.ask_fact(fact.relation, fact.subject))
        stated = "all" if len(fact.stated) > 1 else fact.stated[0]
        meta = {"fact": fact.id, "relation": fact.relation, "stated": stated, "asked": asked(fact)}
        found.append(_item(f"{kind}-{fact.id}", language, prompt, right, meta) | {"choices": phrases})
    return found


def _item(name: str, language: Grammar, prompt: str, answer: str, meta: dict[str, Any]) -> Item:
    return {"id": name, "language": language.code, "prompt": prompt, "answers": [answer], "meta": meta}
