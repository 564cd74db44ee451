"""Ask a model for the objects of facts, relation by relation and language by language, and keep every fact's row.

    facts = load_facts("small")
    predictions = probe(model, facts, out="probe/")                    encoders.py for masked models, decode.py for decoders
    precision(predictions, "full", average="macro", by=())             precision.py

Masked models (BERT, RoBERTa, XLM-R) are probed as in Zhao, Yoshinaga & Oba (EACL 2024); decoders rank candidates and complete greedily, with the
same columns. It never knows what a neuron is: edits in force apply. Everything that is wrong about a fact (a sentence longer than the context, a
candidate of no token) is found before the model computes anything.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..evaluate import require_causal
from ..measure import claim_folder
from ..models import describe, fingerprint
from ..progress import hidden
from ..storage import Run, content_hash, reuse, save
from . import decode, encoders
from .factset import FactSet

PREDICTIONS = (
    "language", "relation", "fact", "full", "partial", "contiguous", "typed_rank", "masks", "predicted", "object_tokens", "logp",
)  # fmt: skip
"""Columns of `probe`: one row a fact and language."""
CODE = "1"
"""Raised when a change of the code changes what a block holds."""


def probe(
    model: Any,
    facts: FactSet,
    *,
    normalise: Literal["sum", "token"] | None = None,
    keep_boundary: bool = False,
    size: int = 16,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Probe every fact in every language that has it.

    Args:
        model: What `load_model` returned: a masked language model or a decoder; edits in force apply.
        facts: What to ask; `facts.only(...)` and `facts.take(...)` choose.
        normalise: How candidates are compared for `typed_rank`: by the `sum` of their tokens' log-probabilities or their mean (`token`).
            Default `token` for masked models, as in mLAMA, and `sum` for decoders.
        keep_boundary: Compare tokens with the bare word boundary of SentencePiece vocabularies (exact match). Masked models only.
        size: Sentences per batch.
        out: Folder in which every finished block (language, relation) is kept; None keeps nothing.
        resume: Use the finished blocks in `out`. They are found by content (facts, settings, and what the model says to the first sentence), so
            facts may have been added since.
        progress: Show a progress bar.

    Returns:
        Columns `PREDICTIONS`. `full`, `partial`, `contiguous`: matches (encoders.py, decode.py; missing where a decoder's prompt would lack the
        subject). `typed_rank`: place of the object among the candidates, 1 is best. `masks`: mask count of the first prediction with the best match,
        else that of the object; 0 for decoders. `predicted`: its text. `object_tokens`: length of the object. `logp`: log-probability of the object,
        in nats, summed over its tokens (with as many masks; for a decoder behind the prompt).

    Warns:
        UserWarning: Objects hold an unknown token; a kept block cannot be read.

    Raises:
        ValueError: The model has no mask token, or is neither masked nor a causal decoder; a candidate has no token; a sentence does not fit the
            context, or its masks are not side by side; a setting is out of its range; logits are not finite.
        FileExistsError: `out` holds another run, or this one and `resume` is False.
    """
    from tqdm.auto import tqdm

    way, prepare = _way(model, keep_boundary)
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
    chosen = normalise or ("token" if way is encoders else "sum")
    if chosen not in ("sum", "token"):
        raise ValueError(f"normalise={normalise!r} is not one of sum, token")
    # every block is checked before the first is asked, and prepared again then: all of mLAMA's at once are gigabytes
    if unknown := sum(prepare(model, facts, language, relation).unknown for language, relation in facts.pairs):
        warnings.warn(
            f"{unknown} objects hold a token that is unknown to this model: what it answers with that token counts as a match",
            stacklevel=2,
        )
    basis = {
        "method": "facts",
        "code": CODE,
        "model": fingerprint(model),
        "size": size,
        "normalise": chosen,
        "keep_boundary": keep_boundary,
    }
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, basis, resume=resume, claim="facts.json")
    tables = []
    with tqdm(facts.pairs, unit="block", desc="facts", disable=hidden(progress)) as bar:
        for language, relation in bar:
            bar.set_postfix_str(f"{language} {relation}")
            tables.append(_block(model, way, prepare(model, facts, language, relation), facts, basis, folder))
    return pd.concat(tables, ignore_index=True)


def _way(model: Any, keep_boundary: bool) -> tuple[Any, Any]:
    if encoders.is_masked(model):
        encoders.require_mask(model)
        return encoders, partial(encoders.prepare, keep_boundary=keep_boundary)
    require_causal(model)
    if keep_boundary:
        raise ValueError("keep_boundary=True is about the tokens at masks; a decoder has none: leave it out")
    return decode, decode.prepare


def _block(
    model: Any, way: Any, block: Any, facts: FactSet, basis: Mapping[str, Any], folder: Path | None
) -> pd.DataFrame:
    """Rows of a relation in a language: read if they are finished, else computed and kept."""
    key, path, held = "", None, ""
    if folder is not None:
        held = facts.fingerprint(block.language, block.relation)
        key = content_hash(dict(basis), held, way.behaviour(model, block))
        path = folder / "blocks" / f"{key}.parquet"
    found = reuse(path, key, "probing these facts again")
    if found is None:
        found = way.ask(model, block, size=basis["size"], normalise=basis["normalise"])
        found = found.assign(language=block.language, relation=block.relation)[list(PREDICTIONS)]
        if path is not None:
            parameters = {"key": key, "language": block.language, "relation": block.relation, **basis}
            about = {"source": facts.source, "facts": len(found), "hash": held}
            save(found, path, Run("facts", parameters, describe(model), {block.language: about}))
    return found
