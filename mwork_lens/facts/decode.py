"""Cloze probing of decoders: candidates ranked by likelihood, and greedy completion.

    prompt        the template up to [Y], without white space at its end
    typed_rank    place of the object among the candidates, by log p(candidate | prompt), summed over tokens (`normalise="token"`: their mean)
    full          the greedy completion begins with the object's words
    contiguous    the object's words stand in the completion, side by side and in order
    partial       every word of the object is in the completion

The paper probes encoders only; this is its counterpart. Words are those of `tasks.scorers.tokens`: lower case, without punctuation, and single
characters in scripts written without spaces. A completion is as long as the longest candidate, and a token more, so that the end of its last word
is seen; it ends at a new line. A mask count does not exist: `masks` is 0.

[Y] is *final* if nothing but punctuation follows it; that punctuation is not scored. Where words follow, whole sentences are ranked: the score
of a candidate is that of everything behind the prompt. Where [X] follows [Y], a completion would not know the subject: full, partial and
contiguous are missing there, and `predicted` is the candidate ranked first. Ties count against the object.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..capture import forward
from ..corpora import context_length, pad
from ..storage import content_hash
from ..tasks.likelihood import Continuation, continuations, logp
from ..tasks.scorers import tokens as words
from ..writing.generate import generate, prompt_ids
from .encoders import candidate_ids, matches, rank
from .factset import FactSet, fill
from .readers import OBJECT, SUBJECT


@dataclass(frozen=True)
class DecoderBlock:
    """Facts of a relation in a language, tokenised and checked."""

    language: str
    relation: str
    rows: pd.DataFrame
    """fact, subject, object."""
    subjects: tuple[str, ...]
    """Distinct ones."""
    candidates: tuple[str, ...]
    """Texts."""
    prompts: tuple[str, ...]
    """One a subject."""
    scored: tuple[tuple[Continuation, ...], ...]
    """Per subject, its candidates."""
    lengths: tuple[int, ...]
    """Tokens of each candidate behind the prompt."""
    written: bool
    """Whether a completion knows the subject."""
    unknown: int = 0
    """How many objects hold an unknown token."""


def prepare(model: Any, facts: FactSet, language: str, relation: str) -> DecoderBlock:
    """Tokenise and check a relation in a language before anything is computed.

    Raises:
        ValueError: See `probe.probe`.
    """
    candidates = candidate_ids(model, facts, language, relation)
    rows, template = facts.of(language, relation), facts.templates[language, relation]
    before, _, after = template.partition(OBJECT)
    final, written = not any(character.isalnum() for character in after), SUBJECT in before
    subjects = tuple(dict.fromkeys(rows["subject"]))
    first = {subject: facts.place(at) for at, subject in zip(rows.index[::-1], rows["subject"][::-1], strict=True)}
    names = [first[subject] for subject in subjects]
    prompts = [fill(before, subject, "").rstrip() for subject in subjects]
    ending = OBJECT if final else OBJECT + after
    wholes = [[fill(before + ending, subject, text) for text in candidates] for subject in subjects]
    try:
        scored = continuations(model, prompts, wholes, names)
        alone = [[fill(before + OBJECT, subjects[0], text) for text in candidates]]
        lengths = [one.tokens for one in continuations(model, prompts[:1], alone, names[:1])[0]]
    except ValueError as error:
        raise ValueError(f"{error}; or leave out {relation!r} in {language!r} (facts.only)") from error
    if written:
        _require_room(model, prompts, names, max(lengths) + 1)
    unk = getattr(model.tokenizer, "unk_token_id", None)
    unknown = sum(unk is not None and unk in candidates[text] for text in set(rows["object"]))
    return DecoderBlock(
        language,
        relation,
        rows[["fact", "subject", "object"]],
        subjects,
        tuple(candidates),
        tuple(prompts),
        tuple(map(tuple, scored)),
        tuple(lengths),
        written,
        unknown,
    )


def _require_room(model: Any, prompts: Sequence[str], names: Sequence[str], steps: int) -> None:
    context = context_length(model)
    for name, ids in zip(names, prompt_ids(model, prompts), strict=True):
        if len(ids) < 2:
            raise ValueError(f"{name}: the prompt has {len(ids)} token(s), to complete one it needs at least 2")
        if len(ids) + steps > context:
            raise ValueError(
                f"{name}: the prompt has {len(ids)} tokens; with {steps} to write that is more than this model's context of {context}: "
                "shorten it, or leave out this fact"
            )


def behaviour(model: Any, block: DecoderBlock) -> str:
    """Hash of what the model, as it is now, says to the first prompt and writes behind it."""
    logits = forward(model, pad([block.scored[0][0].ids], "", (), bos=None))
    steps = generate(model, block.prompts[:1], max_new_tokens=min(3, _steps(block)))[0].ids if block.written else ()
    return content_hash(logits.float().cpu().contiguous().numpy().tobytes(), list(steps))


def _steps(block: DecoderBlock) -> int:
    return max(block.lengths) + 1


def ask(model: Any, block: DecoderBlock, *, size: int, normalise: str) -> pd.DataFrame:
    """Columns of `probe.PREDICTIONS` behind language and relation, one row a fact."""
    flat = [row for rows in block.scored for row in rows]
    names = [
        f"{subject!r} ({block.relation!r} in {block.language!r})"
        for subject, rows in zip(block.subjects, block.scored, strict=True)
        for _ in rows
    ]
    scores = logp(model, flat, names, size=size).reshape(len(block.subjects), -1)
    lengths = np.array([[row.tokens for row in rows] for rows in block.scored])
    compared = scores / lengths if normalise == "token" else scores
    best = [block.candidates[int(one.argmax())] for one in compared]
    texts = _completions(model, block, size) if block.written else best
    number = {subject: s for s, subject in enumerate(block.subjects)}
    place = {text: c for c, text in enumerate(block.candidates)}
    made = []
    for fact, subject, text in block.rows.itertuples(index=False):
        s, c = number[subject], place[text]
        full, contiguous, partial = completed(text, texts[s]) if block.written else (None, None, None)
        found = (
            fact,
            full,
            partial,
            contiguous,
            0,
            texts[s],
            block.lengths[c],
            _rank(block, compared, s, c),
            scores[s, c],
        )
        made.append(found)
    columns = ["fact", "full", "partial", "contiguous", "masks", "predicted", "object_tokens", "typed_rank", "logp"]
    table = pd.DataFrame(made, columns=columns)
    kind = "bool" if block.written else "boolean"
    return table.astype(dict.fromkeys(("full", "partial", "contiguous"), kind))


def _rank(block: DecoderBlock, compared: np.ndarray, subject: int, candidate: int) -> int:
    """Rank among candidates of different tokens."""
    rows = block.scored[subject]
    own = rows[candidate].ids
    others = {row.ids: c for c, row in enumerate(rows) if row.ids != own}
    chosen = [candidate, *others.values()]
    return rank(compared[subject][chosen], 0)


def _completions(model: Any, block: DecoderBlock, size: int) -> list[str]:
    made = generate(model, block.prompts, max_new_tokens=_steps(block), stop=("\n",), size=size)
    return [one.text.strip() for one in made]


def completed(gold: str, text: str) -> tuple[bool, bool, bool]:
    """(full, contiguous, partial): whether a completion begins with the words of an object, holds them in a row, holds each of them.

    An object without a word (`++`) is compared as text, and must be where the completion begins.
    """
    wanted, found = words(gold), words(text)
    if not wanted:
        return (text.startswith(gold),) * 3
    numbers = {word: i for i, word in enumerate(dict.fromkeys((*wanted, *found)))}
    ids, predicted = (tuple(numbers[word] for word in these) for these in (wanted, found))
    _, contiguous, partial = matches(ids, predicted)
    return predicted[: len(ids)] == ids, contiguous, partial
