"""Keep the experts a language needs, and drop the others: which, at what cost, at what harm.

Claim (Unraveling Babel, arXiv 2402.16367): with a static mask that keeps the experts a language uses often, a dense model computes less (about
30 % less time) at comparable quality, and better than with random experts of the same number. Two schemes:

    threshold   keep expert (l, e) if frequency[l, e] >= tau         layers keep different numbers
    rank        keep the most frequent share q, over all layers or in each layer

The paper's tau, q and number of random draws were not published in what could be read; nothing is a default here but five draws. Frequencies
must not come from the texts a mask is scored on.

A mask only shows what pruning does to the model; it is slower than no mask. Time is saved by `slicing.sliced`. `flops` counts products of weight
matrices and no time:

    relative = 1 - phi (1 - q)      phi: FFN's share of the products of one token (q, k, v, o, FFN and unembedding), q: share of FFN units kept

without attention scores, which grow with the text's length and are the same before and after.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..corpora import Corpus
from ..edits import applied
from ..interventions import zero
from ..neurons import NeuronSet
from ..perplexity.scores import Condition, score_conditions
from ..perplexity.tables import ALL
from ..sites import ATTENTION_SITES, weight
from ..storage import content_hash
from .partition import Partition


def keep_by_threshold(
    frequency: Float[Tensor, "layer expert"], tau: float, *, empty_layers: bool = False
) -> Bool[Tensor, "layer expert"]:
    """Experts whose frequency reaches a threshold.

    Args:
        frequency: Share of tokens that select an expert, 0..1.
        tau: Keep at `tau` and above.
        empty_layers: Whether a layer may lose all its experts.

    Raises:
        ValueError: A frequency is no share, nothing reaches the threshold, or a layer has no such expert and `empty_layers` is False.
    """
    _require_shares(frequency)
    keep = frequency >= tau
    if not bool(keep.any()):
        raise ValueError(
            f"no expert reaches tau={tau:g}: the largest frequency is {float(frequency.max()):g}; give a lower threshold"
        )
    _require_layers(keep, empty_layers, f"tau={tau:g}: give a lower threshold")
    return keep


def keep_by_rank(
    frequency: Float[Tensor, "layer expert"], share: float, *, per_layer: bool = False, empty_layers: bool = False
) -> Bool[Tensor, "layer expert"]:
    """The most frequent experts: `round(share * number)` of them, a tie going to the earlier layer, then the lower index.

    Args:
        frequency: Share of tokens that select an expert, 0..1.
        share: Of experts to keep, above 0 and at most 1.
        per_layer: The same number in every layer; otherwise the most frequent of the model, wherever they are.
        empty_layers: Whether a layer may lose all its experts.

    Raises:
        ValueError: A frequency or `share` is no share, nothing would be left, or a layer would be empty and `empty_layers` is False.
    """
    _require_shares(frequency)
    if not 0 < share <= 1:
        raise ValueError(f"share={share} is not a share of the experts: give a number above 0 and at most 1")
    rows = frequency if per_layer else frequency.reshape(1, -1)
    count = round(share * rows.shape[1])
    if not count:
        raise ValueError(
            f"share={share:g} of {rows.shape[1]} experts is none: nothing would be left; keep at least one"
        )
    keep = torch.zeros_like(rows, dtype=torch.bool)
    keep.scatter_(1, rows.argsort(dim=1, descending=True, stable=True)[:, :count], True)
    keep = keep.reshape(frequency.shape)
    _require_layers(keep, empty_layers, f"share={share:g}: keep more, or per_layer=True")
    return keep


def random_keep(
    keep: Bool[Tensor, "layer expert"],
    *,
    generator: torch.Generator,
    per_layer: bool = True,
    sizes: Int[Tensor, "layer expert"] | None = None,
) -> Bool[Tensor, "layer expert"]:
    """As many experts drawn at random, those of `keep` not excluded.

    Args:
        keep: The experts to match in number.
        generator: Source of randomness, on any device; the same state gives the same draw.
        per_layer: As many in each layer; otherwise as many in the model, so that a layer may get none.
        sizes: Units of each expert (`Partition.sizes`): as many are drawn of each size, so that units match exactly. Without it experts
            match and units need not: the frequent experts of an uneven partition are its large ones.
    """
    rows = keep if per_layer else keep.reshape(1, -1)
    of_size = torch.zeros_like(rows, dtype=torch.long) if sizes is None else sizes.reshape(rows.shape)
    drawn = torch.zeros_like(rows)
    for row, kept, units in zip(drawn, rows, of_size, strict=True):
        for size in units.unique().tolist():
            pool = (units == size).nonzero().flatten()
            order = torch.randperm(len(pool), generator=generator, device=generator.device).to(pool.device)
            row[pool[order[: int(kept[pool].sum())]]] = True
    return drawn.reshape(keep.shape)


def dropped(model: Any, partition: Partition, keep: Bool[Tensor, "layer expert"]) -> NeuronSet:
    """The FFN units of the experts that are not kept.

    Args:
        model: The model it is about; checked.
        partition: Which units make up an expert.
        keep: Experts that stay.

    Raises:
        ValueError: A partition of another model, `keep` of another shape, or nothing kept.
        NotImplementedError: A mixture of experts, whose layers have no single FFN.
    """
    partition.require_model(model)
    if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
        kind = keep.dtype if isinstance(keep, Tensor) else type(keep).__name__
        raise ValueError(f"keep must be a boolean tensor [layer, expert], got {kind}: give what keep_by_rank returns")
    off = partition.units(~keep)
    if not bool(keep.any()):
        raise ValueError("keep has no expert: pruning everything away leaves no FFN; keep at least one expert")
    return off


def masked(model: Any, partition: Partition, keep: Bool[Tensor, "layer expert"]) -> AbstractContextManager[Any]:
    """Run a model with only some experts, for the length of a `with`.

    The units of all others are zero. With every expert kept, nothing is put on the model, so it is bit-identical. Leaving raises if the model
    was not run inside.

    Args:
        model: What `load_model` returned.
        partition: Which units make up an expert.
        keep: Experts that stay.

    Raises:
        ValueError: A partition of another model, `keep` of another shape, or nothing kept.
        NotImplementedError: A mixture of experts.
    """
    off = dropped(model, partition, keep)
    return applied(model, zero(off)) if off else nullcontext(model)


@dataclass(frozen=True)
class Flops:
    """Multiply-adds of weight matrices for one token, before and after pruning."""

    ffn: tuple[int, ...]
    """Of each layer's FFN, unpruned."""
    kept: tuple[int, ...]
    """Of each layer's FFN, pruned."""
    attention: int
    """Of q, k, v and o in all layers."""
    head: int
    """Of the unembedding."""

    @property
    def full(self) -> int:
        """Of the whole model, unpruned."""
        return sum(self.ffn) + self.attention + self.head

    @property
    def ffn_share(self) -> float:
        """phi: the FFN's share of the whole."""
        return sum(self.ffn) / self.full

    @property
    def kept_share(self) -> float:
        """q: the share of FFN units kept (weighted by their cost)."""
        return sum(self.kept) / sum(self.ffn)

    @property
    def relative(self) -> float:
        """Cost after pruning over cost before, 1 - phi (1 - q). Not a time."""
        return (sum(self.kept) + self.attention + self.head) / self.full


def flops(model: Any, partition: Partition, keep: Bool[Tensor, "layer expert"]) -> Flops:
    """What pruning saves in products, from the shapes of the weights.

    Args:
        model: What `load_model` returned.
        partition: Which units make up an expert.
        keep: Experts that stay.

    Raises:
        ValueError: A partition of another model, `keep` of another shape, or nothing kept.
        NotImplementedError: A mixture of experts.
    """
    off = dropped(model, partition, keep)
    units: Int[Tensor, " layer"] = partition.labels.shape[1] - off.counts()["ffn"]
    per_unit = [sum(w.shape[1] for w in weight(model, "ffn", layer).values()) for layer in range(len(units))]
    attention = sum(
        w.numel()
        for layer in range(len(units))
        for site in ATTENTION_SITES
        for w in weight(model, site, layer).values()
    )
    return Flops(
        ffn=tuple(cost * partition.labels.shape[1] for cost in per_unit),
        kept=tuple(cost * left for cost, left in zip(per_unit, units.tolist(), strict=True)),
        attention=attention,
        head=model.W_U.numel(),
    )


def pruning_scores(
    model: Any,
    texts: Mapping[str, Corpus],
    partition: Partition,
    keeps: Mapping[str, Bool[Tensor, "layer expert"]],
    *,
    draws: int = 5,
    per_layer: bool = True,
    seed: int = 0,
    size: int = 16,
    length: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Score every document of every language with each language's experts alone, and with as many random experts.

    A row of the matrix is the language whose mask is in force, a column the language evaluated; `perplexity.perplexity_matrix` and
    `perplexity.selectivity` read the table. Mind the sign: neurons of a language are switched off there and kept here, so a mask fits its
    language if the diagonal is the *least* harm, and beats chance if it lies below `random_low`. All else that `selectivity` says is about more
    harm and reads backwards here: the sign of `selectivity`, `rank`, `largest`, `p`, `q` and `p_permutation`.

    Args:
        model: What `load_model` returned.
        texts: Held-out documents per language, not those the frequencies were counted on.
        partition: Which units make up an expert.
        keeps: Experts kept for each language.
        draws: Random sets of as many experts per language.
        per_layer: Random experts match the number kept in each layer; otherwise in the model.
        seed: Of the random experts.
        size: Documents per batch, the same batches in every condition.
        length: Tokens per document at most.
        out: Folder in which every finished condition is kept; None keeps nothing.
        resume: Use the finished conditions in `out`.
        progress: Show a progress bar.

    Returns:
        Columns `SCORES` as `perplexity_scores` has them: `off` the language whose mask is in force ("" for the whole model), `neurons` one of
        none, own, random; `draw`, `count` how many units are off, `language`, `document`, `nll` in nats, `tokens`. A mask that keeps
        everything scores what the whole model scores, and has no random rows.

    Raises:
        ValueError: No mask, one for a language without texts or of another shape, negative draws, logits that are not finite.
        FileExistsError: `out` holds another run, or this one and `resume` is False.
    """
    if not keeps:
        raise ValueError("no mask: give the experts to keep per language, as keep_by_rank returns them")
    if draws < 0:
        raise ValueError(f"draws={draws}: give the number of random sets per language, 0 for none")
    plan = [Condition("", "none", -1, None)]
    for language, keep in keeps.items():
        if language not in texts or language in ("", ALL):
            raise ValueError(f"the mask of {language!r} has no texts: give texts of it; there are {', '.join(texts)}")
        off = dropped(model, partition, keep)
        plan.append(Condition(language, "own", -1, off or None))
        generator = torch.Generator().manual_seed(int(content_hash(seed, language)[:8], 16))
        for draw in range(draws if off else 0):
            drawn = random_keep(keep, generator=generator, per_layer=per_layer, sizes=partition.sizes())
            plan.append(Condition(language, "random", draw, dropped(model, partition, drawn)))
    return score_conditions(model, texts, plan, size, length, out, resume, progress).drop(columns="share")


def _require_shares(frequency: Any) -> None:
    if not isinstance(frequency, Tensor) or frequency.ndim != 2 or not frequency.numel():
        raise ValueError(
            f"frequencies must be a tensor [layer, expert], got {type(frequency).__name__}: give what ExpertCounts.frequency() returns"
        )
    if not bool(((frequency >= 0) & (frequency <= 1)).all()):  # nan is neither
        raise ValueError(
            "frequencies must be shares of tokens between 0 and 1, without nan: give what ExpertCounts.frequency() returns"
        )


def _require_layers(keep: Tensor, empty_layers: bool, cure: str) -> None:
    empty = (~keep.any(dim=1)).nonzero().flatten().tolist()
    if empty and not empty_layers:
        raise ValueError(
            f"layer {empty[0]} would keep no expert at {cure}, or allow it by empty_layers=True (the layer's FFN is then gone)"
        )
