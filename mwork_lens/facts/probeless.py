"""Fact neurons: units that are active otherwise on this fact than on the other facts of its relation (PROBELESS).

A group is a language and a relation; each of its N correctly predicted facts is a label with one example, its probing sentence:

    h(f)       the FFN units of all layers, averaged over the mask tokens (`ffn`: behind the activation, in front of W_down), or the
               residual stream behind each block (`resid_post`)                                            [layer * width]
    score(f) = 1 / (N - 1) * sum_{f' != f} |h(f) - h(f')|                                                  [layer * width]
    neurons  = the `top` units of highest score, over all layers together (50 in the paper's figures)

Reference: Zhao, Yoshinaga & Oba 2024, "Tracing the Roots of Facts in Multilingual Language Models" (arXiv 2403.05189), section 5; PROBELESS is
by Antverg & Belinkov 2022 (`detect/probeless.py`, with the closed form used here, O(N log N) per unit). Facts with several mask tokens
enter with the mask count that matched, and are compared with the others as they are.

Departures: a group of one fact has only zeros for scores, and the released code then takes the last 50 units in every language, which
counts as perfect overlap; here groups of fewer than `minimum` facts are refused and listed. Of tied units the lower one comes first. For
a causal decoder h(f) is taken at the last token of the prompt, the template up to [Y]; templates with [X] behind [Y] are refused.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..detect.probeless import mean_deviation
from ..measure import claim_folder
from ..models import fingerprint
from ..neurons import NeuronSet
from ..sites import Site, shape_of
from ..storage import Run, content_hash, reuse, save
from .activations import REFUSED, SITES, Group, activations_of, fact_activations, plan, require_site
from .factset import FactSet

__all__ = ["NEURONS", "REFUSED", "SITES", "FactNeurons", "Group", "fact_activations", "fact_neurons", "probeless"]

NEURONS = ("language", "relation", "fact", "group", "units")
"""Columns of `FactNeurons.table`: `group` is the number of facts compared, `units` flat indices (layer * width + index), best first."""


@dataclass(frozen=True, eq=False)
class FactNeurons:
    """The top units of every fact in every language."""

    table: pd.DataFrame
    """Columns `NEURONS`."""
    refused: pd.DataFrame
    """Columns `REFUSED`: groups that have no neurons, and why."""
    shape: tuple[int, int]
    """(layers, width)."""
    site: Site
    """Where the units are."""
    model: str | None = None
    """Fingerprint of the model."""

    @property
    def top(self) -> int:
        """Units per fact."""
        return len(self.table["units"].iloc[0]) if len(self.table) else 0

    def set_of(self, language: str, relation: str, fact: str) -> NeuronSet:
        """The neurons of a fact in a language.

        Raises:
            KeyError: It has none: it was not predicted, or its group was refused.
        """
        t = self.table
        rows = t[(t["language"] == language) & (t["relation"] == relation) & (t["fact"] == fact)]
        if rows.empty:
            raise KeyError(f"no neurons for fact {fact!r} of {relation!r} in {language!r}: not predicted, or refused")
        mask = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.bool)
        mask[torch.as_tensor(np.asarray(rows["units"].iloc[0], dtype=np.int64))] = True
        return NeuronSet({self.site: mask.view(self.shape)}, model=self.model)

    def bins(self, count: int = 16, *, language: str | None = None) -> np.ndarray:
        """How many of the chosen units lie in each part of each layer, [layer, bin], for a heat map.

        Bins are contiguous (the released figures reshape, so that a bin holds every 16th unit); their sizes differ by one at most.
        """
        t = self.table if language is None else self.table[self.table["language"] == language]
        if not 1 <= count <= self.shape[1]:
            raise ValueError(f"{count} bins of {self.shape[1]} units: give between 1 and {self.shape[1]}")
        flat = np.concatenate([np.asarray(u, dtype=np.int64) for u in t["units"]]) if len(t) else np.empty(0, np.int64)
        layer, unit = np.divmod(flat, self.shape[1])
        return np.bincount(layer * count + unit * count // self.shape[1], minlength=self.shape[0] * count).reshape(
            -1, count
        )


def probeless(h: Float[Tensor, "fact unit"], *, signed: bool = False) -> Float[Tensor, "fact unit"]:
    """Mean absolute difference of each fact to the other facts, per unit; float64.

    Args:
        h: One row a fact of one relation.
        signed: Give it the sign of the fact's difference to the mean (ours).

    Raises:
        ValueError: Fewer than two facts, or activations that are not finite.
    """
    return mean_deviation(h, signed=signed)


def fact_neurons(
    model: Any, facts: FactSet, predictions: pd.DataFrame, *, top: int = 50, metric: str = "full", site: str = "ffn",
    languages: Sequence[str] | None = None, minimum: int = 2, signed: bool = False, size: int = 16,
    out: str | Path | None = None, resume: bool = False,
) -> FactNeurons:  # fmt: skip
    """The `top` units of every correctly predicted fact.

    Args:
        model: As in `fact_activations`.
        facts: As there.
        predictions: As there.
        top: Units per fact, over all layers.
        metric: As there.
        site: As there.
        languages: As there.
        minimum: As there; refused groups are listed in the result. Five or more are advisable: with two facts both have the same neurons.
        signed: Rank by signed score, so that only units above the group's mean count (ours).
        size: Facts per batch.
        out: Folder in which each group is kept as soon as it is done; None keeps nothing.
        resume: Continue what is there.

    Raises:
        ValueError: What `fact_activations` refuses; more units asked for than there are.
        FileExistsError: `out` holds another run, or this one while `resume` is False.
    """
    place = require_site(site)
    shape = shape_of(model, [place])[place]
    if not 1 <= top <= shape[0] * shape[1]:
        raise ValueError(f"top={top} of {shape[0] * shape[1]} units: give between 1 and that")
    groups, refused = plan(model, facts, predictions, metric, languages, minimum)
    print_of = fingerprint(model)
    identity = {"method": "fact neurons", "model": print_of, "site": place, "top": top, "signed": signed}
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, identity, resume=resume)
    parts = []
    for language, relation, rows in groups:
        asked = list(zip(rows["fact"], rows["prompt"], rows["run"].astype(int), strict=True))
        key = content_hash(identity, language, relation, asked)
        path = None if folder is None else folder / f"{content_hash(language, relation)[:16]}.parquet"
        part = reuse(path, key, "computing this group again")
        if part is None:
            group = activations_of(model, facts, language, relation, rows, place, size)
            order = probeless(group.h, signed=signed).sort(dim=1, descending=True, stable=True).indices[:, :top]
            part = pd.DataFrame(
                {
                    "language": language,
                    "relation": relation,
                    "fact": group.facts,
                    "group": len(rows),
                    "units": order.tolist(),
                }
            )
            if path is not None:
                save(part, path, Run("fact neurons", {**identity, "key": key}))
        parts.append(part)
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(NEURONS))
    return FactNeurons(table[list(NEURONS)], refused, shape, place, print_of)
