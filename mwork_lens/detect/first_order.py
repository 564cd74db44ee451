"""The attention measure of q and k to first order, with a rigorous bound on what that leaves out.

With D centred row by row, A' - A = A D + higher orders, so a unit's squared importance is sum_ij A^2 D^2. D is a sum of two outer
products a_t[i] b_t[j] (two because of the rotation), so everything follows from moments that all units share - a few matrix products:

    sum_j A^2 D^2 = sum_tu a_t a_u ( A^2 @ b_t b_u  -  mu_t A^2 @ b_u  -  mu_u A^2 @ b_t  +  mu_t mu_u A^2 @ 1 ),    mu = A @ b

It is a filter, not a replacement: units of trained models move scores by more than 1. The bound makes the filter safe. With m >= max_j |D|,
phi(m) = (e^m - 1 - m) / m^2, F = |A D|, V = sum_j A D^2 (all of one row), the Taylor remainder is at most phi D^2, hence

    | |A' - A| - F |  <=  phi m F  +  phi V (|A| + F),       and always   |A' - A| <= sqrt(1 + |A|^2)

Both hold in exact arithmetic. In floating point F^2 and V are differences of moments and lose digits where A is peaked: they are widened
by `_ROUNDING` eps r^2, where r >= max_j |sum_t a_t b_t|; without that, an A that has underflowed would pass for a unit without effect.
`_SLACK` covers the rest. A soft-cap multiplies D by its slope and is not covered, nor is a q/k norm.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ..attention import Attention

_SLACK = 1e-4
_ROUNDING = 16.0


@dataclass(frozen=True)
class Estimate:
    """Importances of all units of one head to first order, and what the exact value must lie between."""

    value: Float[Tensor, " unit"]
    low: Float[Tensor, " unit"]
    high: Float[Tensor, " unit"]


def covers(att: Attention) -> bool:
    """Whether the first-order form describes this attention."""
    return att.cap is None and att.q_norm is None and att.k_norm is None


def estimate(att: Attention, site: str, owner: int, *, bounds: bool = True) -> Estimate:
    """First-order attention change of every unit of one query head (q) or key/value head (k).

    Args:
        att: The layer's attention, without norm or cap.
        site: `"q"` or `"k"`.
        owner: The head.
        bounds: Also compute `low` and `high` (about twice the work); otherwise they are 0 and infinity.
    """
    heads = [owner] if site == "q" else range(owner * att.group, (owner + 1) * att.group)
    parts = [_one_head(att, site, owner, head, bounds=bounds) for head in heads]
    return Estimate(*(torch.stack(column).sum(0).sqrt().to(att.q.dtype) for column in zip(*parts, strict=True)))


def _terms(att: Attention, site: str, owner: int, head: int) -> list[tuple[Tensor, Tensor]]:
    """a_t [pos unit] and b_t [pos unit] with D = sum_t a_t[i] b_t[j] up to sign."""
    turn = att.rotation
    if site == "q":
        value, keys = att.scale * att.q[owner], att.k_rot[owner // att.group]
        return (
            [(value, keys)] if turn is None else [(value * turn.own, keys), (value * turn.cross, keys[:, turn.partner])]
        )
    value, queries = att.k[owner], att.scale * att.q_rot[head]
    return (
        [(queries, value)]
        if turn is None
        else [(queries, value * turn.own), (queries[:, turn.partner], value * turn.cross)]
    )


def _one_head(att: Attention, site: str, owner: int, head: int, *, bounds: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Squared (value, low, high) of one query head."""
    # a constant in b is invisible to the softmax; without it fewer digits cancel (k biases can be large)
    terms = [(a, b - b.mean(0, keepdim=True)) for a, b in _terms(att, site, owner, head)]
    pattern = att.pattern[head]
    pairs = [(t, u) for t in range(len(terms)) for u in range(t, len(terms))]
    b = torch.cat([terms[t][1] for t in range(len(terms))] + [terms[t][1] * terms[u][1] for t, u in pairs], -1)
    width = terms[0][1].shape[1]
    squared = pattern.square()
    second = rearrange(squared @ b, "pos (term unit) -> term pos unit", unit=width)
    norm = squared.sum(-1)[:, None]
    a = [term[0] for term in terms]
    if not bounds:
        mu = list(rearrange(pattern @ b[:, : width * len(terms)], "pos (term unit) -> term pos unit", unit=width))
        value = _quadratic(a, mu, second, norm, pairs).sum(0)
        return value, torch.zeros_like(value), torch.full_like(value, float("inf"))
    first = rearrange(pattern @ b, "pos (term unit) -> term pos unit", unit=width)
    mu = list(first[: len(terms)])
    row = _quadratic(a, mu, second, norm, pairs)
    variance = _quadratic(a, mu, first, torch.ones_like(norm), pairs)
    scale = sum((at.abs() * bt.abs().amax(0, keepdim=True) for at, bt in terms), torch.zeros_like(row))
    lost = _ROUNDING * torch.finfo(row.dtype).eps * scale.square()
    largest = sum(
        (at.abs() * _reach(att, head, bt, mt) for (at, bt), mt in zip(terms, mu, strict=True)),
        lost / scale.clamp_min(1e-30),
    )
    near = largest.clamp_max(1.0)  # e^m - 1 - m cancels for small m; the series below is above it up to m = 1
    phi = torch.where(
        largest < 1,
        0.5 + near / 6 + near.square() / 19,
        (largest.exp() - 1 - largest) / largest.clamp_min(1.0).square(),
    )
    size = norm.sqrt()
    most, least = (row + lost * norm).sqrt(), (row - lost * norm).clamp_min(0.0).sqrt()
    error = phi * largest * most + phi * (variance + lost) * (size + most) + _SLACK * most
    ceiling = (1 + norm).sqrt()
    high = torch.minimum(torch.nan_to_num(most + error, nan=float("inf")), ceiling)
    low = torch.nan_to_num(least - error, nan=0.0, neginf=0.0).clamp_min(0.0)
    return row.sum(0), low.square().sum(0), high.square().sum(0)


def _quadratic(
    a: list[Tensor], mu: list[Tensor], moments: Tensor, norm: Tensor, pairs: list[tuple[int, int]]
) -> Float[Tensor, "pos unit"]:
    """sum_j weight (sum_t a_t (b_t - mu_t))^2 from the weighted moments of b_t and b_t b_u."""
    total = torch.zeros_like(a[0])
    for index, (t, u) in enumerate(pairs, start=len(a)):
        centred = moments[index] - mu[t] * moments[u] - mu[u] * moments[t] + mu[t] * mu[u] * norm
        total += (1 if t == u else 2) * a[t] * a[u] * centred
    return total.clamp_min(0.0)


def _reach(att: Attention, head: int, b: Tensor, mu: Tensor) -> Float[Tensor, "pos unit"]:
    """An upper bound of max_j |b[j] - mu[i]| over the keys that query i sees."""
    causal = all(last <= query + 1 for query, last in enumerate(att.reach[head][1]))
    top, bottom = (
        (b.cummax(0).values, b.cummin(0).values) if causal else (b.amax(0, keepdim=True), b.amin(0, keepdim=True))
    )
    return torch.maximum(top - mu, mu - bottom)
