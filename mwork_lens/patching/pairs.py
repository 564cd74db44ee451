"""Two prompts, the answers that are scored behind the second, and which of their positions correspond.

A prompt and its translation differ in length and order, so "the same position" is a decision, and it is stated:

    last      the last position of each: where the answer is predicted
    shared    positions that hold the same tokens in the same order (names, numbers, marks; Ratcliff and Obershelp's matching blocks), never BOS
    every     position by position; only prompts of equal length have it (a corrupted twin)
    [(i, j)]  named by hand: position i of the source, j of the target

Positions that correspond to nothing are not patched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Literal

from ..tasks.likelihood import Continuation, continuations
from ..tasks.task import Item
from ..writing.generate import prompt_ids

Alignment = Literal["last", "shared", "every"] | Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Pair:
    """A run that gives activations, and one that receives them."""

    source: Item
    """Its prompt is run once, and its activations are kept."""
    target: Item
    """Its prompt is run with them in place."""
    candidates: Mapping[str, str] = field(default_factory=dict)
    """What is scored behind the target's prompt, by name; default `source` and `target`: the first answer of each item."""

    def __post_init__(self) -> None:
        known = dict(self.candidates) or {"source": self.source.answers[0], "target": self.target.answers[0]}
        object.__setattr__(self, "candidates", known)
        if len(known) < 2:
            raise ValueError(f"pair {self.name!r} has one candidate: give at least two, to tell which gains")
        if len(set(known.values())) < len(known):
            twice = next(text for text in known.values() if list(known.values()).count(text) > 1)
            raise ValueError(
                f"pair {self.name!r}: two candidates are both {twice!r}, so patching cannot tell them apart"
            )

    @property
    def name(self) -> str:
        """Such as `en/7 > fr/3`."""
        return f"{self.source.language}/{self.source.id} > {self.target.language}/{self.target.id}"


@dataclass(frozen=True)
class Prepared:
    """A pair in tokens."""

    pair: Pair
    source: tuple[int, ...]
    """Ids of the source's prompt."""
    rows: tuple[Continuation, ...]
    """The target's prompt with each candidate."""
    positions: tuple[tuple[int, int], ...]
    """Which position of the source stands for which of the target."""
    bare: tuple[Continuation, ...]
    """The source's prompt with each candidate: what patching everything would give."""


def prepare(model: Any, pairs: Sequence[Pair], at: Alignment) -> list[Prepared]:
    """Tokenise pairs and align them, before anything is computed.

    Raises:
        ValueError: No pair; two of one name; a prompt longer than the context; prompts that do not align; candidates that begin with the same token
            and differ only behind it are fine, a candidate without a token is not.
    """
    if not pairs:
        raise ValueError("no pair of prompts was given")
    names = [pair.name for pair in pairs]
    if len(set(names)) < len(names):
        raise ValueError(
            f"pair {next(n for n in names if names.count(n) > 1)!r} is there twice: items of a pair need ids that differ"
        )
    sources = prompt_ids(model, [pair.source.prompt for pair in pairs])
    targets = prompt_ids(model, [pair.target.prompt for pair in pairs])
    rows = continuations(
        model,
        [p.target.prompt for p in pairs],
        [[p.target.joined(text) for text in p.candidates.values()] for p in pairs],
        names,
    )
    bare = continuations(
        model,
        [p.source.prompt for p in pairs],
        [[p.source.joined(text) for text in p.candidates.values()] for p in pairs],
        names,
    )
    made = []
    for pair, source, target, these, those in zip(pairs, sources, targets, rows, bare, strict=True):
        # a token that merges prompt and answer belongs to neither: only what stands before the answers can be patched
        shorter, longer = source[: those[0].start], target[: these[0].start]
        positions = align(shorter, longer, at, name=pair.name, bos=model.tokenizer.bos_token_id)
        made.append(Prepared(pair, tuple(shorter), tuple(these), positions, tuple(those)))
    return made


def align(
    source: Sequence[int], target: Sequence[int], at: Alignment, *, name: str = "these prompts", bos: int | None = None
) -> tuple[tuple[int, int], ...]:
    """Positions of the source and of the target that correspond.

    Args:
        source: Ids of the prompt that gives.
        target: Ids of the prompt that receives.
        at: `last`, `shared`, `every`, or pairs of positions; negative ones count from the end.
        name: For errors.
        bos: Its positions are left out of `shared`.

    Raises:
        ValueError: They do not align: no token is shared, lengths differ, a position does not exist or is named twice.
    """
    if not source or not target:
        raise ValueError(f"{name}: a prompt has no token, so nothing can be patched")
    if at == "last":
        return ((len(source) - 1, len(target) - 1),)
    if at == "every":
        if len(source) != len(target):
            raise ValueError(
                f"{name} do not align position by position: {len(source)} and {len(target)} tokens; use at='last' or 'shared', or name positions"
            )
        return tuple((i, i) for i in range(len(source)))
    if at == "shared":
        blocks = SequenceMatcher(None, source, target, autojunk=False).get_matching_blocks()
        found = tuple((a + i, b + i) for a, b, size in blocks for i in range(size) if source[a + i] != bos)
        if not found:
            raise ValueError(f"{name} share no token, so nothing aligns: use at='last', or name positions")
        return found
    if isinstance(at, str):
        raise ValueError(f"at={at!r}: choose last, shared, every, or give pairs of positions")
    made = []
    for i, j in at:
        if not (-len(source) <= i < len(source) and -len(target) <= j < len(target)):
            raise ValueError(
                f"{name}: positions ({i}, {j}) do not exist in prompts of {len(source)} and {len(target)} tokens"
            )
        made.append((i % len(source), j % len(target)))
    if not made:
        raise ValueError(f"{name}: no position given to patch")
    if len({j for _, j in made}) < len(made):
        raise ValueError(
            f"{name}: a position of the target is named twice in {list(at)}: it can hold one activation only"
        )
    return tuple(made)
