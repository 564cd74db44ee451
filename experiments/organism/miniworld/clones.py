"""Cloned languages: the English of the generator, spelt with disjoint vocabularies, so that meaning and grammar are the same in every language.

Each word of language A has one counterpart in B, C and D, and nothing else differs: what a model does with them can only come from their shares of
the training text. Tokens are words. Names, numbers and marks (punctuation, operators, line breaks) are shared by all languages or cloned too, as
`lexicon` is told. A token of a shared word is spelt as it is, a clone's as `word~B`; texts are tokens with one space between them.

    facts           every language states the same number of them: 40 % of each relation in all languages, 15 % in each language alone
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .documents import Document, ask, draw
from .items import items
from .languages import grammar
from .meaning import COUNTABLES, FACTS, NAMES, RELATIONS, THINGS, Claim, Fact, Problem
from .world import asked, facts, problem_shapes, subjects

LANGUAGES = ("A", "B", "C", "D")
SPECIAL = ("<unk>", "<s>", "</s>")
BOS, EOS = 1, 2
KINDS = {"understanding": 0.4, "reasoning": 0.2, "knowledge": 0.4}
NUMBERS = tuple(map(str, range(100)))
OPERATORS = ("×", "+", "-", "=", ";")
STATED_IN_ALL = 0.4
ENGLISH = grammar("en")


def words(text: str) -> list[str]:
    """Words, numbers, marks and line breaks of an English text, in order."""
    return re.findall(r"\d+|\w+|[^\w\s]|\n", text)


@cache
def english_words() -> tuple[str, ...]:
    """Every word that documents of `KINDS` can hold, sorted."""
    texts = [f"\n{ENGLISH.question} {ENGLISH.answer}", *NUMBERS, *OPERATORS]
    for relation, values in RELATIONS.items():
        for value in values:
            for thing in THINGS if relation == "colour" else (None,):
                claim = Claim(relation, NAMES[0], value, thing)
                texts += [ENGLISH.claim(claim).text, ENGLISH.ask_value(claim)]
                texts += [] if relation == "colour" else [ENGLISH.ask_person(claim)]
    people = subjects()
    for relation, (kind, values) in FACTS.items():
        texts += [ENGLISH.ask_fact(relation, who) for who in people[kind]]
        texts += [
            ENGLISH.fact(relation, people[kind][0], value, variant).text for value in values for variant in range(3)
        ]
    for shape in problem_shapes():
        steps = tuple((*step, *["2"] * (2 if step[0] == "groups" else 1)) for step in shape)
        texts += [" ".join(ENGLISH.problem(Problem(who, item, steps))) for who in NAMES for item in COUNTABLES]
    return tuple(sorted({word for text in texts for word in words(text)}))


def kind_of(word: str) -> str:
    """`"name"`, `"number"`, `"mark"` or `"word"`."""
    if word.isdigit():
        return "number"
    if not word.isalpha():
        return "mark"
    return "name" if word.lower() in _names() else "word"


@cache
def _names() -> frozenset[str]:
    return frozenset(NAMES) | {"".join(who.syllables) for known in subjects().values() for who in known}


@dataclass(frozen=True)
class Lexicon:
    """Which token each word has in each language: the special tokens, the shared words, then one block of equal size per language."""

    shared: tuple[str, ...]
    own: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(SPECIAL) + len(self.shared) + len(LANGUAGES) * len(self.own)

    def tokens(self) -> list[str]:
        """Every token's spelling, by id."""
        own = [word if code == LANGUAGES[0] else f"{word}~{code}" for code in LANGUAGES for word in self.own]
        return [*SPECIAL, *self.shared, *own]

    def token_languages(self) -> np.ndarray:
        """Position in `LANGUAGES` of each token's language [token]; -1 for shared and special ones."""
        own = np.repeat(np.arange(len(LANGUAGES)), len(self.own))
        return np.concatenate([np.full(len(SPECIAL) + len(self.shared), -1), own])

    def encode(self, text: str, language: str) -> list[int]:
        """Ids of an English text's words in a language.

        Raises:
            ValueError: A language or a word that the lexicon does not have.
        """
        if language not in LANGUAGES:
            raise ValueError(f"no clone {language!r}: there are {', '.join(LANGUAGES)}")
        table, start = _tables(self)
        shift = LANGUAGES.index(language) * len(self.own)
        found = [table.get(word, -1) for word in words(text)]
        if -1 in found:
            raise ValueError(
                f"the lexicon has no word {words(text)[found.index(-1)]!r}: clones are made of the kinds {', '.join(KINDS)} only"
            )
        return [i + shift if i >= start else i for i in found]

    def translate(self, ids: Sequence[int], language: str) -> list[int]:
        """The same words in another language."""
        start, width = len(SPECIAL) + len(self.shared), max(1, len(self.own))
        shift = LANGUAGES.index(language) * width
        return [start + (i - start) % width + shift if i >= start else i for i in ids]

    def document(self, document: Document, language: str) -> tuple[list[int], list[float]]:
        """A document from `<s>` to `</s>`, and how much predicting each token counts."""
        ids, weights = [BOS], [0.0]
        for text, weight in document:
            made = self.encode(text, language)
            ids += made
            weights += [weight] * len(made)
        return [*ids, EOS], [*weights, 1.0]

    def tokenizer(self):
        """A `tokenizers` word-level tokenizer of `tokens()`; texts have one space between tokens."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors

        made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(self.tokens())}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
        return made


@cache
def _tables(lexicon: Lexicon) -> tuple[dict[str, int], int]:
    """Ids in language A, and where the languages' own words begin."""
    return {word: i for i, word in enumerate((*SPECIAL, *lexicon.shared, *lexicon.own))}, len(SPECIAL) + len(
        lexicon.shared
    )


def lexicon(*, names: bool = True, numbers: bool = True, marks: bool = True) -> Lexicon:
    """The lexicon; what is True is shared by all languages."""
    common = {kind for kind, shared in (("name", names), ("number", numbers), ("mark", marks)) if shared}
    known = english_words()
    return Lexicon(tuple(w for w in known if kind_of(w) in common), tuple(w for w in known if kind_of(w) not in common))


def clone_facts(seed: int = 0, count: int = 80) -> list[Fact]:
    """Facts of the first `count` subjects of each kind, 40 % stated in all languages and as many in each language alone, within each relation."""
    chance = random.Random(f"clone-facts-{seed}")
    made: list[Fact] = []
    for relation in FACTS:
        known = [fact for fact in facts() if fact.relation == relation and fact.subject.index < count]
        everywhere = round(STATED_IN_ALL * len(known))
        stated = [LANGUAGES] * everywhere
        stated += [(LANGUAGES[i % len(LANGUAGES)],) for i in range(len(known) - everywhere)]
        chance.shuffle(stated)
        made += [Fact(relation, f.subject, f.value, where) for f, where in zip(known, stated, strict=True)]
    return made


CloneBatch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def batch(
    chance: random.Random, shares: Mapping[str, float], words_of: Lexicon, known: Sequence[Fact], *, rows: int, length: int, progress: float,
    claims: int,
) -> CloneBatch:  # fmt: skip
    """Ids, weights, document numbers and languages [row pos]; numbers and languages are -1 where a row is not full.

    Args:
        chance: Randomness.
        shares: Share of the tokens of each language.
        words_of: The lexicon.
        known: The facts.
        rows: Number of rows.
        length: Tokens of a row.
        progress: In [0, 1]: passages grow.
        claims: Longest passage.
    """
    stated = {code: [fact for fact in known if code in fact.stated] for code in shares}
    counts = dict.fromkeys(shares, 0.0)
    room, refused = [length] * rows, 0
    numbers_of = [0] * rows
    ids, weights = np.zeros((rows, length), np.int64), np.zeros((rows, length), np.float32)
    numbers, languages = np.full((rows, length), -1, np.int64), np.full((rows, length), -1, np.int64)
    while refused < 12:  # a document goes into the fullest row that has room for it
        total = sum(counts.values()) + 40
        code = max(
            shares, key=lambda c: shares[c] * total - counts[c] + chance.random() * 40
        )  # by deficit: shares of tokens
        drawn = draw(chance, ENGLISH, stated[code], [], progress=min(progress, (claims - 0.5) / 12), kinds=KINDS)
        tokens, weight = words_of.document(drawn, code)
        fits = [i for i in range(rows) if room[i] >= len(tokens)]
        if not fits:
            refused += 1
            continue
        row = min(fits, key=lambda i: room[i])
        at = slice(length - room[row], length - room[row] + len(tokens))
        ids[row, at], weights[row, at], numbers[row, at], languages[row, at] = (
            tokens,
            weight,
            numbers_of[row],
            LANGUAGES.index(code),
        )
        numbers_of[row] += 1
        room[row] -= len(tokens)
        counts[code] += len(tokens)
    return ids, weights, numbers, languages


@dataclass(frozen=True)
class CloneItem:
    """A test item of one language: the ids of its prompt (with `<s>`) and of its answer; `stated` of facts is "all" or a language."""

    kind: str
    language: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    stated: str = ""
    asked: bool = True


def clone_items(
    words_of: Lexicon, known: Sequence[Fact], count: int, *, claims: int = 3, seed: int = 0
) -> list[CloneItem]:
    """`count` held-out items of understanding (passages of `claims`, 3 to 5) and of reasoning, and every fact, in every language."""
    made = []
    passages = [
        i for i in items("understanding", 3 * count, seed=seed, languages=("en",)) if i["meta"]["claims"] == claims
    ]
    texts = [("understanding", i["prompt"], i["answers"][0], "", True) for i in passages]
    texts += [
        ("reasoning", i["prompt"], i["meta"]["equations"], "", True)
        for i in items("reasoning", count, seed=seed, languages=("en",))
    ]
    for fact in known:
        where = "all" if len(fact.stated) > 1 else fact.stated[0]
        answer = ENGLISH.fact_answer(fact.relation, fact.subject, fact.value)
        texts.append(
            ("knowledge", ask(ENGLISH, ENGLISH.ask_fact(fact.relation, fact.subject)), answer, where, asked(fact))
        )
    for kind, prompt, answer, where, is_asked in texts:
        for code in LANGUAGES:
            ids = (BOS, *words_of.encode(prompt, code))
            made.append(CloneItem(kind, code, ids, tuple(words_of.encode(answer, code)), where, is_asked))
    return made
