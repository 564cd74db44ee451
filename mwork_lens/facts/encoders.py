"""Cloze probing of masked language models: an independent guess at every mask, for every number of masks.

    sentence     [X] = subject, [Y] = k mask tokens joined by one space (in every script), for k = 1..K
    K            tokens of the longest candidate of the relation in the language
    prediction   argmax over the whole vocabulary at each mask, all masks in one pass; no candidates, no decoding in steps
    full         for some k the predicted ids are the object's
    contiguous   for some k the object's ids stand in the predicted ones, side by side and in order
    partial      for some k every id of the object is among the predicted ones: order and adjacency are ignored
    typed        candidates ranked by their mean log-probability, each in the sentence with as many masks as it has tokens

Reference: Zhao, Yoshinaga & Oba, "Tracing the Roots of Facts in Multilingual Language Models" (EACL 2024, arXiv 2403.05189), and its released
code, of which K, full and partial are; typed is that of Kassner et al. 2021 (mLAMA). SentencePiece vocabularies (XLM-R) may put a bare word
boundary in front: that piece is dropped from objects and from predictions, as there, but counts for K.

Where the code is silent: an object behind white space is tokenised with a space in front (RoBERTa's tokens differ; those of BERT and XLM-R do not).
Candidates of the same tokens are one candidate. Ties count against the object. An object of unknown tokens is matched by unknown tokens.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..capture import forward
from ..corpora import context_length, pad
from ..storage import content_hash
from .factset import FactSet, fill
from .readers import OBJECT

_BOUNDARY = "▁"
TIE = 1e-6
"""Scores (nats) closer than this are level."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class EncoderBlock:
    """Facts of a relation in a language, tokenised and checked."""

    language: str
    relation: str
    template: str
    rows: pd.DataFrame
    """fact, subject, object."""
    subjects: tuple[str, ...]
    """Distinct ones."""
    candidates: tuple[Ids, ...]
    """Distinct ones, without word boundaries."""
    golds: dict[str, Ids]
    """Tokens of each object, without word boundaries."""
    longest: int
    """K."""
    boundary: int | None
    """Id of the bare word boundary, if it is dropped."""
    unknown: int
    """How many objects hold an unknown token."""

    def sentences(self, model: Any, masks: int, subjects: Sequence[str]) -> list[list[int]]:
        """Token ids of the cloze with so many masks, for each subject."""
        blank = " ".join([model.tokenizer.mask_token] * masks)
        texts = [fill(self.template, subject, blank) for subject in subjects]
        return [list(row) for row in model.tokenizer(texts, verbose=False)["input_ids"]]


def is_masked(model: Any) -> bool:
    """Whether this is a masked language model."""
    return "MaskedLM" in str(getattr(model.cfg, "architecture", ""))


def require_mask(model: Any) -> None:
    """Refuse a tokenizer without a mask token.

    Raises:
        ValueError: It has none.
    """
    if getattr(model.tokenizer, "mask_token_id", None) is None:
        raise ValueError(
            f"the tokenizer of this {getattr(model.cfg, 'architecture', 'model')} has no mask token, so nothing can be masked: "
            "load the model with its own tokenizer, or set tokenizer.mask_token to the one it was trained with"
        )


def candidate_ids(model: Any, facts: FactSet, language: str, relation: str) -> dict[str, Ids]:
    """Tokens of each candidate, as it stands in the template: with a space in front where [Y] has one.

    Raises:
        ValueError: The tokenizer leaves nothing of a candidate.
    """
    before = facts.templates[language, relation].partition(OBJECT)[0]
    lead = " " if before and before[-1].isspace() else ""
    texts = facts.candidates[language, relation]
    rows = model.tokenizer([lead + text for text in texts], add_special_tokens=False, verbose=False)["input_ids"]
    bare = boundary_id(model)
    for text, row in zip(texts, rows, strict=True):
        if not [i for i in row if i != bare]:
            here = facts.of(language, relation)
            held = here.index[here["object"] == text]
            place = facts.place(held[0]) if len(held) else facts.listed.get((language, relation), facts.source)
            raise ValueError(
                f"{place}: the tokenizer leaves nothing of the candidate {text!r} of {relation!r} in {language!r}: remove it, or "
                "leave out the relation in that language"
            )
    return {text: tuple(row) for text, row in zip(texts, rows, strict=True)}


def boundary_id(model: Any) -> int | None:
    """Id of the bare word boundary of a SentencePiece vocabulary."""
    found = model.tokenizer.convert_tokens_to_ids(_BOUNDARY)
    return None if found is None or found == model.tokenizer.unk_token_id else int(found)


def prepare(model: Any, facts: FactSet, language: str, relation: str, *, keep_boundary: bool = False) -> EncoderBlock:
    """Tokenise and check a relation in a language before anything is computed.

    Args:
        model: A masked language model.
        facts: The facts.
        language: Of the block.
        relation: Of the block.
        keep_boundary: Do not drop bare word boundaries.

    Raises:
        ValueError: See `probe.probe`.
    """
    ids = candidate_ids(model, facts, language, relation)
    boundary = None if keep_boundary else boundary_id(model)
    kept = {text: tuple(i for i in row if i != boundary) for text, row in ids.items()}
    rows = facts.of(language, relation)
    golds = {text: kept[text] for text in dict.fromkeys(rows["object"])}
    unk = model.tokenizer.unk_token_id
    block = EncoderBlock(
        language,
        relation,
        facts.templates[language, relation],
        rows[["fact", "subject", "object"]],
        tuple(dict.fromkeys(rows["subject"])),
        tuple(dict.fromkeys(kept.values())),
        golds,
        max(map(len, ids.values())),
        boundary,
        sum(unk in gold for gold in golds.values()),
    )
    _require_sentences(model, facts, block)
    return block


def _require_sentences(model: Any, facts: FactSet, block: EncoderBlock) -> None:
    """Refuse sentences that are too long, or whose masks are not side by side."""
    context, mask = context_length(model), model.tokenizer.mask_token_id
    copies = block.template.count(OBJECT)
    first = {subject: at for at, subject in zip(block.rows.index[::-1], block.rows["subject"][::-1], strict=True)}
    for subject, row in zip(block.subjects, block.sentences(model, block.longest, block.subjects), strict=True):
        if len(row) > context:
            raise ValueError(
                f"{facts.place(first[subject])}: with {block.longest} masks the sentence has {len(row)} tokens, more than this model's "
                f"context of {context}: shorten it, or leave out this fact"
            )
        at = [i for i, token in enumerate(row) if token == mask]
        if len(at) != copies * block.longest or at[block.longest - 1] - at[0] != block.longest - 1:
            raise ValueError(
                f"{facts.place(first[subject])}: {block.longest} masks became {len(at)} mask tokens, or are not side by side: "
                f"a subject or template holds {model.tokenizer.mask_token!r} itself, or the tokenizer puts tokens between masks"
            )


def mask_logits(
    model: Any, rows: Sequence[Sequence[int]], masks: int, names: Sequence[str]
) -> Float[Tensor, "row mask vocab"]:
    """Logits at the first `masks` mask tokens of each sentence, float32; edits in force apply.

    Raises:
        ValueError: They are NaN or infinite.
    """
    mask = model.tokenizer.mask_token_id
    at = torch.tensor([[i for i, token in enumerate(row) if token == mask][:masks] for row in rows])
    logits = forward(model, pad(rows, "", names, bos=None))
    found = logits[torch.arange(len(rows), device=logits.device)[:, None], at.to(logits.device)].float()
    finite = torch.isfinite(found).flatten(1).all(1)
    if not bool(finite.all()):
        bad = names[int((~finite).nonzero()[0])]
        raise ValueError(f"NaN or infinite logits in {bad}: load the model with dtype='float32', or soften the edit")
    return found


def candidate_scores(
    logits: Float[Tensor, "row mask vocab"], ids: Int[Tensor, "candidate mask"]
) -> Float[Tensor, "row candidate"]:
    """Summed log-probability (nats) of candidates of as many tokens as there are masks, each token at its mask."""
    logp = logits.log_softmax(-1)
    return logp[:, torch.arange(ids.shape[1]), ids].double().sum(-1)


def behaviour(model: Any, block: EncoderBlock) -> str:
    """Hash of what the model, as it is now, says to the first sentence: an edit that changes it gives another block."""
    rows = block.sentences(model, 1, block.subjects[:1])
    return content_hash(mask_logits(model, rows, 1, [block.relation]).cpu().contiguous().numpy().tobytes())


def ask(model: Any, block: EncoderBlock, *, size: int, normalise: str) -> pd.DataFrame:
    """Columns of `probe.PREDICTIONS` behind language and relation, one row a fact."""
    predicted: list[list[Ids]] = [[] for _ in block.subjects]
    scores = np.full((len(block.subjects), len(block.candidates)), np.nan)
    for masks in range(1, block.longest + 1):
        fitting = [c for c, ids in enumerate(block.candidates) if len(ids) == masks]
        wanted = torch.tensor([block.candidates[c] for c in fitting])
        for at in range(0, len(block.subjects), size):
            group = block.subjects[at : at + size]
            names = [f"{subject!r} ({block.relation!r} in {block.language!r})" for subject in group]
            logits = mask_logits(model, block.sentences(model, masks, group), masks, names)
            for found, ids in zip(predicted[at : at + size], logits.argmax(-1).tolist(), strict=True):
                found.append(tuple(i for i in ids if i != block.boundary))
            if fitting:
                summed = candidate_scores(logits, wanted.to(logits.device))
                scores[at : at + len(group), fitting] = summed.cpu().numpy()
    lengths = np.array([len(ids) for ids in block.candidates])
    compared = scores / lengths if normalise == "token" else scores
    number = {subject: s for s, subject in enumerate(block.subjects)}
    place = {ids: c for c, ids in enumerate(block.candidates)}
    made = []
    for fact, subject, text in block.rows.itertuples(index=False):
        s, gold = number[subject], block.golds[text]
        made.append((fact, *_match(model, gold, predicted[s]), rank(compared[s], place[gold]), scores[s, place[gold]]))
    columns = ["fact", "full", "partial", "contiguous", "masks", "predicted", "object_tokens", "typed_rank", "logp"]
    return pd.DataFrame(made, columns=columns)


def rank(scores: Float[np.ndarray, " candidate"], gold: int) -> int:
    """Place of a candidate, 1 is best; those that are level with it stand before it."""
    return int((scores >= scores[gold] - TIE).sum())


def matches(gold: Ids, predicted: Ids) -> tuple[bool, bool, bool]:
    """(full, contiguous, partial) of one prediction; each implies the next."""
    contiguous = any(predicted[at : at + len(gold)] == gold for at in range(len(predicted) - len(gold) + 1))
    return predicted == gold, contiguous, set(gold) <= set(predicted)


def _match(model: Any, gold: Ids, predicted: Sequence[Ids]) -> tuple[bool, bool, bool, int, str, int]:
    """full, partial, contiguous, masks of the first prediction with the best match, its text, length of the object."""
    found = [matches(gold, ids) for ids in predicted]
    full, contiguous, partial = (any(one) for one in zip(*found, strict=True))
    best = next((kind for kind, some in enumerate((full, contiguous, partial)) if some), None)
    masks = len(gold) if best is None else next(k for k, one in enumerate(found, 1) if one[best])
    text = model.tokenizer.decode(list(predicted[masks - 1]), clean_up_tokenization_spaces=False).strip()
    return full, partial, contiguous, masks, text, len(gold)
