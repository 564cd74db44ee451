"""Activations of facts: one vector per correctly predicted fact, at its mask tokens or at the end of its prompt.

    encoder    the template with the subject for [X] and k mask tokens for [Y], k the count that matched (metric typed: tokens of the object);
               mean over the k mask tokens
    decoder    the template up to [Y]; its last token

Layers are concatenated. A group (language, relation) is in memory at a time; within it, activations are gathered layer by layer in the hook, so
that a fact costs layers * width floats. Reference: Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189); decoders are our extension.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..capture import capture
from ..sites import Site, shape_of
from ..tokens import pad
from .encoders import is_masked
from .factset import FactSet, fill
from .judged import judged
from .sharing import require_queries

REFUSED = ("language", "relation", "facts", "reason")
"""Columns of the groups that are left out."""
SITES = ("ffn", "resid_post")


@dataclass(frozen=True, eq=False)
class Group:
    """Activations of the facts of one relation in one language."""

    language: str
    relation: str
    facts: tuple[str, ...]
    """Which fact each row is."""
    h: Float[Tensor, "fact unit"]
    """Units of all layers, layer by layer; float32."""


def fact_activations(
    model: Any, facts: FactSet, predictions: pd.DataFrame, *, metric: str = "full", site: str = "ffn",
    languages: Sequence[str] | None = None, minimum: int = 2, size: int = 16,
) -> Iterator[Group]:  # fmt: skip
    """Activations of the correctly predicted facts, group by group: one group is in memory at a time.

    Args:
        model: What `load_model` returned: an encoder with a mask token, or a causal decoder.
        facts: With `table` (language, relation, fact, subject) and `templates` {(language, relation): text with [X] and [Y]}.
        predictions: One row a query, with `metric` and, for encoders, `masks` (the mask count that matched; for `typed`, `object_tokens`).
        metric: Which facts enter: one of `judged.METRICS`, or a column of booleans; the paper has full match.
        site: `"ffn"` or `"resid_post"`.
        languages: Which, of those asked; default all predicted.
        minimum: Facts that a group must have; smaller ones are left out with a warning.
        size: Facts per batch.

    Warns:
        UserWarning: Groups were left out.

    Raises:
        ValueError: `minimum` is below 2, an unknown site, a language that was not asked, a predicted query that the facts do not hold, or
            masks that are not found in the tokenised sentence.
    """
    groups, refused = plan(model, facts, predictions, metric, languages, minimum)
    if len(refused):
        warnings.warn(
            f"{len(refused)} of {len(groups) + len(refused)} groups are left out: {refused['reason'].iloc[0]}",
            stacklevel=2,
        )
    for language, relation, rows in groups:
        yield activations_of(model, facts, language, relation, rows, require_site(site), size)


def require_site(site: str) -> Site:
    """The site, checked."""
    if site not in SITES:
        raise ValueError(f"site={site!r} holds no fact activations here: choose from {', '.join(SITES)}")
    return site  # pyright: ignore[reportReturnType]


def plan(
    model: Any, facts: FactSet, predictions: pd.DataFrame, metric: str, languages: Sequence[str] | None, minimum: int
) -> tuple[list[tuple[str, str, pd.DataFrame]], pd.DataFrame]:
    """Groups with a prompt per fact (column prompt) and its number of masks (column run; 0 for a decoder); and those refused."""
    if minimum < 2:
        raise ValueError(f"minimum={minimum}: a fact alone has nothing to differ from; give at least 2")
    encoder = is_masked(model)
    mask = getattr(model.tokenizer, "mask_token", None)
    if encoder and mask is None:
        raise ValueError("this model's tokenizer has no mask token: load it with the tokenizer it was trained with")
    count = (
        "object_tokens" if metric == "typed" else "masks"
    )  # typed ranks the object with as many masks as it has tokens
    rows = require_queries(judged(predictions, metric), (metric, count) if encoder else (metric,))
    asked = list(dict.fromkeys(rows["language"]))
    rows = rows[rows[metric]]
    if languages is not None:
        if missing := [language for language in languages if language not in asked]:
            raise ValueError(f"language {missing[0]!r} was not asked: the predictions have {', '.join(asked)}")
        rows = rows[rows["language"].isin(list(languages))]
    subjects = {
        (x, r, f): s for x, r, f, s in facts.table[["language", "relation", "fact", "subject"]].itertuples(index=False)
    }
    groups, refused = [], []
    for (language, relation), part in rows.groupby(["language", "relation"], sort=False):
        template = facts.templates.get((language, relation))
        if template is None or "[X]" not in template or "[Y]" not in template:
            raise ValueError(f"relation {relation!r} has no template with [X] and [Y] in {language!r}: {template!r}")
        if len(part) < minimum:
            refused.append((language, relation, len(part), f"fewer than {minimum} facts predicted"))
            continue
        if not encoder and template.index("[X]") > template.index("[Y]"):
            refused.append((language, relation, len(part), "[X] stands behind [Y], which a causal model reads first"))
            continue
        if unknown := [f for f in part["fact"] if (language, relation, f) not in subjects]:
            raise ValueError(
                f"fact {unknown[0]!r} of {relation!r} was predicted in {language!r}, and is not among the facts"
            )
        run = part[count].fillna(0).astype(int).to_numpy() if encoder else np.zeros(len(part), dtype=int)
        if encoder and (run < 1).any():
            raise ValueError(
                f"fact {part['fact'].iloc[int(np.argmin(run))]!r} in {language!r} was predicted with {run.min()} masks: probe it again"
            )
        frame = template if encoder else template[: template.index("[Y]")].rstrip()
        prompts = [
            fill(frame, subjects[language, relation, f], " ".join([str(mask)] * k))
            for f, k in zip(part["fact"], run, strict=True)
        ]
        groups.append((language, relation, part.assign(prompt=prompts, run=run)))
    return groups, pd.DataFrame(refused, columns=list(REFUSED))


def activations_of(
    model: Any, facts: FactSet, language: str, relation: str, rows: pd.DataFrame, site: Site, size: int
) -> Group:
    """Run a planned group through the model."""
    encoded = [list(ids) for ids in model.tokenizer(list(rows["prompt"]), verbose=False)["input_ids"]]
    where = [
        _positions(model, ids, k, f"fact {f!r} of {relation!r} in {language!r}")
        for ids, k, f in zip(encoded, rows["run"], rows["fact"], strict=True)
    ]
    layers, width = shape_of(model, [site])[site]
    h = torch.empty(len(encoded), layers, width)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    for at in range(0, len(order), size):
        chosen = order[at : at + size]
        names = [f"{language}/{relation}/{rows['fact'].iloc[i]}" for i in chosen]
        tokens = pad([encoded[i] for i in chosen], language, names, bos=None)
        weight = torch.zeros(tokens.ids.shape)
        for row, i in enumerate(chosen):
            weight[row, where[i]] = 1 / len(where[i])

        def keep(layer: int, acts: Mapping[str, Tensor], weight: Tensor = weight, chosen: list[int] = chosen) -> None:
            x = acts[site].float()
            h[chosen, layer] = torch.einsum("bp,bpw->bw", weight.to(x.device), x).cpu()

        capture(model, tokens, [site], keep)
    return Group(language, relation, tuple(rows["fact"]), h.flatten(1))


def _positions(model: Any, ids: list[int], masks: int, what: str) -> list[int]:
    """The first run of masks (without masks: the last token, an end of text aside)."""
    if not masks:
        return [len(ids) - 1 - (len(ids) > 1 and ids[-1] == model.tokenizer.eos_token_id)]
    first = ids.index(model.tokenizer.mask_token_id) if model.tokenizer.mask_token_id in ids else -1
    if first < 0 or ids[first : first + masks] != [model.tokenizer.mask_token_id] * masks:
        raise ValueError(
            f"{what}: {masks} adjacent mask token(s) are not found in its tokenised sentence; check template and tokenizer"
        )
    return list(range(first, first + masks))
