"""Run the target of a pair with activations of its source in place, and score the candidates behind it.

    denoising   source = the clean prompt, target = its corrupted twin: which activation is enough to bring the answer back
    noising     the two exchanged: which activation the answer cannot do without
    across      source = a question in one language, target = another question in another: what carries over, content or language

A candidate's score is the log-likelihood of all of its tokens behind the target's prompt, in nats; only positions of the prompt are patched. The
source is run by itself, so that nothing of the target reaches it. Patching is done by our own edits and not by `transformer_lens.patching`, which
takes two prompts of one length and no candidates of several tokens; on prompts of equal length the two agree (tested).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..edits import Edit, applied
from ..interventions import record
from ..neurons import NeuronSet
from ..progress import hidden
from ..sites import HEAD_SITES, Site, heads, n_layers, require_hook, require_sites, unit_site, width
from ..tasks.likelihood import logp
from .pairs import Alignment, Pair, Prepared, prepare

ROWS = (
    "pair", "source", "target", "site", "layer", "head", "position", "positions", "candidate", "logp", "unpatched", "given",
)  # fmt: skip
"""Columns of `patching_scores`: `position` is the target's or `all`, `positions` how many were replaced; `unpatched` is the candidate's score
behind the target, `given` behind the source."""
Masks = Mapping[int, Tensor | None]
"""Per layer, which of its units are replaced; None for all."""


def patching_scores(
    model: Any,
    pairs: Sequence[Pair],
    site: Site = "resid_pre",
    *,
    at: Alignment = "last",
    layers: Iterable[int] | None = None,
    from_layer: bool = False,
    by_head: bool = False,
    by_position: bool = False,
    where: NeuronSet | None = None,
    size: int = 16,
    progress: bool = True,
) -> pd.DataFrame:
    """Score candidates with one layer's activations replaced, layer by layer.

    Args:
        model: What `load_model` returned; edits in force apply to both runs.
        pairs: Who gives, who receives, what is scored.
        site: What is replaced: the residual stream, `q`, `k`, `v`, `z`, or an FFN site.
        at: Which positions correspond (`align`).
        layers: Which layers; default all.
        from_layer: Replace the site in this layer and all later ones, not in this layer alone; each layer's own units of `where`.
        by_head: One row per head (sites q, k, v, z) instead of all heads at once.
        by_position: One row per aligned position instead of all at once.
        where: Only these units (sites q, k, v, z, ffn). A row whose layers hold none of them is left out.
        size: Texts per batch.
        progress: Show a bar.

    Returns:
        Columns `ROWS`, a row per pair, layer, head, position and candidate.

    Raises:
        ValueError: Prompts do not align, a layer does not exist, heads at a site without any, units at a site that holds none, an empty set.
    """
    from tqdm.auto import tqdm

    (site,) = require_sites([site])
    chosen = list(range(n_layers(model))) if layers is None else list(layers)
    if outside := [layer for layer in chosen if not 0 <= layer < n_layers(model)]:
        raise ValueError(f"layer {outside[0]} does not exist: this model has layers 0..{n_layers(model) - 1}")
    if not chosen:
        raise ValueError("no layer was asked for")
    reach = {layer: range(layer, n_layers(model)) if from_layer else [layer] for layer in chosen}
    for layer in sorted({i for those in reach.values() for i in those}):
        require_hook(model, site, layer)
    units = _units(model, site, reach, by_head, where)
    prepared = prepare(model, pairs, at)
    rows = []
    for one in tqdm(prepared, desc="patching", unit="pair", disable=hidden(progress)):
        rows += _of_pair(model, one, site, units, by_position, size)
    return pd.DataFrame(rows, columns=list(ROWS))


def _units(
    model: Any, site: Site, reach: Mapping[int, Sequence[int]], by_head: bool, where: NeuronSet | None
) -> list[tuple[int, int | str, Masks]]:
    """(layer, head, masks of the layers it reaches) of each row; layers without a unit are left out of the masks, rows without a layer altogether."""
    if where is not None:
        mask = where.masks.get(unit_site(site))
        if mask is not None and list(mask.shape) != [n_layers(model), width(model, site)]:
            raise ValueError(
                f"the NeuronSet has {list(mask.shape)} (layer, width) at site {site!r}, this model {[n_layers(model), width(model, site)]}: "
                "it was detected on another model"
            )
        if mask is None or not bool(mask[sorted({i for those in reach.values() for i in those})].any()):
            raise ValueError(f"the NeuronSet has no neuron of {site!r} in these layers, so nothing would be patched")
    if by_head and site not in HEAD_SITES:
        raise ValueError(f"{site!r} has no heads: by_head goes with {', '.join(HEAD_SITES)}")
    found = []
    for layer, those in reach.items():
        count = width(model, site, layer) // heads(model, layer).d_head if by_head else 0
        for head in range(count) if by_head else ["all"]:
            masks = {i: _mask(model, site, i, head, where) for i in those}
            kept = {i: mask for i, mask in masks.items() if mask is None or bool(mask.any())}
            if kept:
                found.append((layer, head, kept))
    return found


def _mask(model: Any, site: Site, layer: int, head: int | str, where: NeuronSet | None) -> Tensor | None:
    """The units of a layer that are in the set and in the head; None if neither chooses."""
    chosen = None if where is None else where.masks[unit_site(site)][layer]
    if isinstance(head, str):
        return chosen
    d_head = heads(model, layer).d_head
    own = torch.zeros(width(model, site, layer), dtype=torch.bool)
    own[head * d_head : (head + 1) * d_head] = True
    return own if chosen is None else own & chosen


def _of_pair(
    model: Any, one: Prepared, site: Site, units: Sequence[tuple[int, int | str, Masks]], by_position: bool, size: int
) -> list[tuple[Any, ...]]:
    pair, names = one.pair, list(one.pair.candidates)
    labels = [f"{pair.name}: {name}" for name in names]
    before, given = (logp(model, rows, labels, size=size) for rows in (one.rows, one.bare))
    places = [[position] for position in one.positions] if by_position else [list(one.positions)]
    source = record(model, torch.tensor([one.source]), [site], layers=sorted({i for *_, masks in units for i in masks}))
    made = []
    for layer, head, masks in units:
        for positions in places:
            changes: dict[tuple[Site, int], Any] = {
                (site, i): _put(source[site, i], positions, mask) for i, mask in masks.items()
            }
            with applied(model, Edit(changes, name=f"patch of {site}")):
                after = logp(model, one.rows, labels, size=size)
            where, count = positions[0][1] if by_position else "all", len(positions)
            place = (pair.name, pair.source.language, pair.target.language, site, layer, head, where, count)
            made += [(*place, name, after[i], before[i], given[i]) for i, name in enumerate(names)]
    return made


def _put(source: Tensor, positions: Sequence[tuple[int, int]], mask: Tensor | None) -> Any:
    """A change that writes positions of the source's activation [1 pos width] into those of the target's."""
    theirs = torch.tensor([i for i, _ in positions])
    mine = torch.tensor([j for _, j in positions])
    new = source[0, theirs]

    def change(x: Tensor) -> Tensor:
        put = new.to(x.device, x.dtype).expand(len(x), -1, -1)
        if mask is not None:
            put = torch.where(mask.to(x.device), put, x[:, mine])
        return x.index_copy(1, mine.to(x.device), put)

    return change
