"""Training documents: text with a weight for every stretch of it. Answers weigh most: the content of passages cannot be predicted.

A document is a list of `(text, weight)`; the text of a document is their concatenation. Kinds:

    understanding   a passage and questions about it, one after the other
    roll            a passage of one relation and several persons, every one asked for; a part of understanding
    reasoning       a word problem and its equations
    knowledge       statements of facts, and questions about facts
    generation      an article and its headline
    plain           a natural sentence (or paragraph) of a corpus
"""

import random
from collections.abc import Mapping, Sequence

from .languages import CODES, grammar
from .languages.base import Grammar
from .meaning import NAMES, Claim, Fact, Problem
from .sampling import draw_event, draw_passage, draw_problem_of, draw_roll
from .world import asked

Document = list[tuple[str, float]]

ANSWER, VALUE, CONTENT, PLAIN = 10.0, 5.0, 0.3, 1.0
"""Weights of answers, of the values of stated facts, of all other generated text, of natural text."""

KINDS = {"understanding": 0.36, "reasoning": 0.16, "knowledge": 0.22, "generation": 0.12, "plain": 0.14}
"""Shares of documents."""


def glue(language: Grammar) -> str:
    """What stands between a label and what follows it."""
    return "" if language.script == "Hans" else " "


def ask(language: Grammar, question: str) -> str:
    """A question and the label of its answer, as two lines."""
    return f"{language.question}{glue(language)}{question}\n{language.answer}"


def solution(problem: Problem) -> str:
    """The calculation, the same in all languages: `3 × 4 = 12 ; 12 + 5 = 17`."""
    return " ; ".join(f"{left} {operator} {right} = {result}" for left, operator, right, result in problem.equations())


def understanding(chance: random.Random, language: Grammar, claims: int, *, names: Sequence[str] = NAMES) -> Document:
    """A passage and up to four questions about it, of values and of persons."""
    made, _ = draw_passage(chance, claims, names=names)
    said = [language.claim(claim) for claim in made]
    document: Document = [(language.join([sentence.text for sentence in said]), CONTENT)]
    questions = [(language.ask_value(c), s.value) for c, s in zip(made, said, strict=True)]
    questions += [(language.ask_person(c), s.person) for c, s in zip(made, said, strict=True) if _one_person(c, made)]
    chance.shuffle(questions)
    return document + _answered(language, questions[:4])


def roll(chance: random.Random, language: Grammar, persons: int, *, names: Sequence[str] = NAMES) -> Document:
    """A passage of one relation, and the value of every person: only the name says which value is meant."""
    made = draw_roll(chance, persons, names=names)
    text = language.join([language.claim(claim).text for claim in made])
    chance.shuffle(made)
    return [(text, CONTENT), *_answered(language, [(language.ask_value(c), language.claim(c).value) for c in made])]


def _answered(language: Grammar, questions: Sequence[tuple[str, str]]) -> Document:
    """Questions, each with its answer, and the end."""
    parts: Document = []
    for question, answer in questions:
        parts += [(f"\n{ask(language, question)}", CONTENT), (f"{glue(language)}{answer}", ANSWER)]
    return [*parts, ("\n", ANSWER)]


def _one_person(claim: Claim, others: Sequence[Claim]) -> bool:
    """Whether "who ...?" has one answer, and is a question at all."""
    same = [c for c in others if (c.relation, c.value) == (claim.relation, claim.value)]
    return claim.relation != "colour" and len(same) == 1


def reasoning(chance: random.Random, language: Grammar, steps: int) -> Document:
    """A word problem and its equations."""
    problem = draw_problem_of(chance, "train", steps=steps)
    *story, question = language.problem(problem)
    text = f"{language.join(story)}\n{ask(language, question)}"
    return [(text, CONTENT), (f"{glue(language)}{solution(problem)}", ANSWER), ("\n", ANSWER)]


def knowledge(chance: random.Random, language: Grammar, fact: Fact) -> Document:
    """A fact: a statement, or a question with its answer if the fact is one that training asks."""
    if asked(fact) and chance.random() < 0.5:
        answer = language.fact_answer(fact.relation, fact.subject, fact.value)
        question = ask(language, language.ask_fact(fact.relation, fact.subject))
        return [(question, CONTENT), (f"{glue(language)}{answer}", ANSWER), ("\n", ANSWER)]
    said = language.fact(fact.relation, fact.subject, fact.value, chance.randrange(3))
    at = said.text.rindex(said.value)
    if at and said.text[at - 1] == " ":  # the space belongs to the word that follows it
        at -= 1
    end = said.text.index(said.value, at) + len(said.value)
    parts = [(said.text[:at], CONTENT), (said.text[at:end], VALUE), (said.text[end:], CONTENT)]
    return [(text, weight) for text, weight in parts if text]


def generation(chance: random.Random, language: Grammar) -> Document:
    """An article and its headline."""
    event = draw_event(chance)
    text = f"{language.join(language.article(event))}\n{language.headline}"
    return [(text, CONTENT), (f"{glue(language)}{language.title(event)}", ANSWER), ("\n", ANSWER)]


def draw(
    chance: random.Random,
    language: Grammar,
    facts: Sequence[Fact],
    plain: Sequence[str],
    *,
    progress: float,
    kinds: Mapping[str, float] = KINDS,
    names: Sequence[str] = NAMES,
) -> Document:
    """One training document of a language.

    Args:
        chance: Randomness.
        language: Its grammar.
        facts: Those stated in this language.
        plain: Natural texts of this language; without any, no plain document is drawn.
        progress: In [0, 1]: passages grow from one claim to five in the first half of training.
        kinds: Share of each kind.
        names: Persons of passages.
    """
    shares = {kind: share for kind, share in kinds.items() if kind != "plain" or plain}
    kind = chance.choices(list(shares), weights=list(shares.values()))[0]
    if kind == "understanding":
        longest = min(5, 1 + int(progress * 12))
        claims = chance.randint(max(1, min(2, longest)), longest) if longest > 1 else 1
        return understanding(chance, language, claims, names=names)
    if kind == "roll":
        return roll(chance, language, chance.randint(2, 4), names=names)
    if kind == "reasoning":
        return reasoning(chance, language, chance.choice((1, 2)))
    if kind == "knowledge":
        return knowledge(chance, language, chance.choice(facts))
    if kind == "generation":
        return generation(chance, language)
    return [(chance.choice(plain), PLAIN)]


def lexicon_texts() -> list[str]:
    """Every word form of every language at least once, for the tokenizer: claims, questions, problems, articles, titles."""
    chance = random.Random("lexicon")
    found = []
    for code in CODES:
        language = grammar(code)
        for _ in range(4000):
            claims, _ = draw_passage(chance, 2)
            problem = draw_problem_of(chance, "train", steps=chance.choice((1, 2)))
            event = draw_event(chance)
            found.append(language.join([language.claim(claim).text for claim in claims]))
            found.append(f"\n{ask(language, language.ask_value(claims[0]))}")
            if claims[-1].relation != "colour":
                found.append(f"\n{ask(language, language.ask_person(claims[-1]))}")
            found += [language.join(language.problem(problem)), f" {solution(problem)}"]
            found.append(language.join(language.article(event)))
            found.append(f"\n{language.headline}{glue(language)}{language.title(event)}")
    return found
