"""Importances of all q or k neurons of a layer: exact, to first order, or exact only where a selection cut needs it."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..attention import Attention
from ..stats import top_count
from .attention_change import attention_change, output_change, score_changes
from .first_order import covers, estimate

_TRUST = 0.2
_PEAKED = 0.3


def exact_change(att: Attention, site: str, measure: str) -> Float[Tensor, "head d_head"]:
    """Exact change of the output, or of the attention weights, for every unit of q or k."""
    change = output_change if measure == "output" else attention_change
    owners, d_head = (att.q if site == "q" else att.k).shape[0], att.q.shape[2]
    units = torch.arange(d_head, device=att.q.device)
    # a norm makes D dense, so fewer units fit in memory at once
    group = (
        d_head
        if covers(att) or att.q_norm is None
        else max(1, (1 << 22) // (att.q.shape[1] * d_head * (owners if att.norm_joins_heads else 1)))
    )
    return torch.stack(
        [
            torch.cat([change(att, score_changes(att, site, owner, some)) for some in units.split(group)])
            for owner in range(owners)
        ]
    )


def estimated_change(att: Attention, site: str, share: float | None) -> Float[Tensor, "head d_head"]:
    """First-order norms; with a share, exact wherever the side of the top-share cut is open.

    The rigorous bound is sound but wide on trained models, so it is shrunk: the error of an estimate is taken to be at most `trust` times
    its bound, where `trust` is twice the largest ratio seen on the units already evaluated exactly (those nearest the cut come first), at
    least `_TRUST` and at most 1, which is the bound itself. Calibrated, then, not proved. On peaked attention first order says little, and a
    sample of it no more: where the typical bound is more than `_PEAKED` of what any change could be, `trust` is 1 from the start.
    """
    owners = (att.q if site == "q" else att.k).shape[0]
    guesses = [estimate(att, site, owner, bounds=share is not None) for owner in range(owners)]
    value, low, high = (torch.stack([getattr(guess, name) for guess in guesses]) for name in ("value", "low", "high"))
    if share is None:
        return value
    count = top_count(share, value.numel())
    value = torch.minimum(torch.maximum(value, low), high)  # first order may overshoot what is possible
    rows = att.q.shape[1] * (1 if site == "q" else att.group)
    trust = 1.0 if float(high.median()) > _PEAKED * rows**0.5 else _TRUST
    best, done = value.clone(), torch.zeros_like(value, dtype=torch.bool)
    while True:
        near = [torch.where(done, best, value + trust * (edge - value)) for edge in (low, high)]
        todo = undecided(near[0].flatten(), near[1].flatten(), count).reshape(value.shape) & ~done
        for owner in range(owners):
            units = todo[owner].nonzero().flatten()
            if len(units):
                best[owner, units] = attention_change(att, score_changes(att, site, owner, units))
        done |= todo
        off = torch.where(
            best > value,
            (best - value) / (high - value).clamp_min(1e-30),
            (value - best) / (value - low).clamp_min(1e-30),
        )
        wanted_trust = min(1.0, max(trust, 2 * float(torch.where(done, off, 0.0).max())))
        if wanted_trust == trust and not bool(todo.any()):
            break
        trust = wanted_trust
    # a decided unit keeps its estimate, inside its bounds and so on its side of the cut: ranking by value selects the exact set
    return torch.where(done, best, torch.minimum(torch.maximum(best, near[0]), near[1]))


def undecided(low: Float[Tensor, " unit"], high: Float[Tensor, " unit"], count: int) -> Tensor:
    """Units that may be on either side of the top-`count` cut given their bounds."""
    surely_below = low.sort(descending=True).values[count - 1]  # at least `count` units reach this
    surely_above = high.sort(descending=True).values[count]  # at most `count` units exceed this
    return ~((high < surely_below) | (low > surely_above))
