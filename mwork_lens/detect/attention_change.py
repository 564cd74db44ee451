"""How attention changes when one unit of q or k is zero, for all units at once, exactly.

Zeroing unit c of q (or k), before norm and rotation, adds D to the raw scores X of one head (of a group, of every head if a norm joins
them). Without a norm the rotation makes D a sum of two outer products; with one, D is dense in the head's width:

    D[i,j] = sum_t left[i,t] right[j,t]

The softmax turns D into a relative change. With D centred row by row, D - sum_j A D (which no softmax can see),

    A' = A * exp(D) / (1 + s),   s = sum_j A (exp(D) - 1),   A' - A = (w - s A) / (1 + s),   w = A * (exp(D) - 1)

so that small changes lose no digits, and A', S' and their difference are never formed. Work proceeds in blocks (units x rows x keys) that
fit the cache, over the unmasked keys only: extra memory is O(block + heads * l^2 + l * d_model).

Rows whose D may exceed `_STEEP` are recomputed by a plain softmax of S', since A may underflow where A' does not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from ..attention import Attention

_STEEP = 30.0
_ROWS = 32


@dataclass(frozen=True)
class ScoreChange:
    """What the deactivation of each of some units adds to the raw scores of one query head."""

    head: int
    left: Float[Tensor, "#unit pos term"]
    """Per query position; one row for all units where it does not depend on the unit."""
    right: Float[Tensor, "#unit pos term"]
    """Per key position; likewise."""

    def __len__(self) -> int:
        return max(self.left.shape[0], self.right.shape[0])


def score_changes(att: Attention, site: str, owner: int, units: Int[Tensor, " unit"]) -> list[ScoreChange]:
    """D of some units of one head, for every query head they touch.

    Args:
        att: The layer's attention.
        site: `"q"` or `"k"`.
        owner: The query head (q) or key/value head (k) the units belong to.
        units: Coordinates within the head.
    """
    return (
        _through_norm(att, site, owner, units)
        if (att.q_norm if site == "q" else att.k_norm)
        else _plain(att, site, owner, units)
    )


def _plain(att: Attention, site: str, owner: int, units: Tensor) -> list[ScoreChange]:
    """D as one outer product, or two under a rotation."""
    turn = att.rotation
    if site == "q":
        value, keys = att.q[owner][:, units], att.k_rot[owner // att.group]
        left = [value] if turn is None else [value * turn.own[:, units], value * turn.cross[:, units]]
        right = [keys[:, units]] if turn is None else [keys[:, units], keys[:, turn.partner[units]]]
        return [_change(att, owner, left, right)]
    value = att.k[owner][:, units]
    right = [value] if turn is None else [value * turn.own[:, units], value * turn.cross[:, units]]
    changes = []
    for head in range(owner * att.group, (owner + 1) * att.group):
        queries = att.q_rot[head]
        left = [queries[:, units]] if turn is None else [queries[:, units], queries[:, turn.partner[units]]]
        changes.append(_change(att, head, left, right))
    return changes


def _change(att: Attention, head: int, left: Sequence[Tensor], right: Sequence[Tensor]) -> ScoreChange:
    stacked = [rearrange(list(side), "term pos unit -> unit pos term") for side in (left, right)]
    return ScoreChange(head, -att.scale * stacked[0], stacked[1])


def _through_norm(att: Attention, site: str, owner: int, units: Tensor) -> list[ScoreChange]:
    """D where a norm couples the coordinates: the ablated head is normed and rotated again."""
    whole, norm, turned = (att.q, att.q_norm, att.q_rot) if site == "q" else (att.k, att.k_norm, att.k_rot)
    touched = range(whole.shape[0]) if att.norm_joins_heads else range(owner, owner + 1)
    ablated = whole[touched.start : touched.stop].expand(len(units), -1, -1, -1).clone()
    ablated[torch.arange(len(units)), owner - touched.start, :, units] = 0.0
    delta = att.turn(ablated, norm, None if att.norm_joins_heads else owner) - turned[touched.start : touched.stop]
    if site == "q":
        return [ScoreChange(h, att.scale * delta[:, i], att.k_rot[h // att.group][None]) for i, h in enumerate(touched)]
    return [
        ScoreChange(head, att.scale * att.q_rot[head][None], delta[:, i])
        for i, kv in enumerate(touched)
        for head in range(kv * att.group, (kv + 1) * att.group)
    ]


@dataclass(frozen=True)
class _Prepared:
    """One head's change with its row means taken out, ready to be evaluated block by block."""

    att: Attention
    change: ScoreChange

    @cached_property
    def pattern(self) -> Tensor:
        return self.att.pattern[self.change.head]

    @cached_property
    def mean(self) -> Float[Tensor, "unit pos"]:
        right = self.change.right
        # one large product over all units instead of many thin ones
        joined = self.pattern @ rearrange(right, "unit pos term -> pos (unit term)")
        return (self.change.left * rearrange(joined, "pos (unit term) -> unit pos term", term=right.shape[2])).sum(-1)

    @cached_property
    def left(self) -> Tensor:
        left, mean = self.change.left, self.mean
        return torch.cat([left.expand(len(mean), -1, -1), -mean[..., None]], -1)

    @cached_property
    def right(self) -> Tensor:
        ones = torch.ones_like(self.change.right[..., :1])
        return torch.cat([self.change.right, ones], -1)

    @cached_property
    def steep(self) -> Tensor:
        """[unit pos]: rows where the centred D may be too large for exp."""
        largest = self.right.abs().amax(1, keepdim=True)
        return ((self.left.abs() * largest).sum(-1) > _STEEP).cpu()

    def weights(self, units: slice, rows: slice, keys: slice) -> Float[Tensor, "unit row key"]:
        """W = A * (exp(D) - 1), or A' - A outright in the rows where D is steep."""
        attention, raw = self.pattern[rows, keys], self.att.raw[self.change.head, rows, keys]
        right = self.right[units] if self.right.shape[0] > 1 else self.right
        delta = torch.matmul(self.left[units, rows], right[:, keys].transpose(1, 2))
        cap, steep, plain = self.att.cap, self.steep[units, rows], None
        if bool(steep.any()):
            uncentred = delta + self.mean[units, rows, None]
            bias = self.att.bias[self.change.head, rows, keys]
            shifted = raw + uncentred if cap is None else cap * torch.tanh((raw + uncentred) / cap)
            plain = torch.softmax(shifted + bias, dim=-1) - attention
            if bool(steep.all()):
                return plain
        if cap is not None:
            before = torch.tanh(raw / cap)
            delta = cap * (torch.tanh((raw + delta + self.mean[units, rows, None]) / cap) - before)
            delta -= (delta * attention).sum(-1, keepdim=True)
        relative = delta.expm1_().mul_(attention)
        # row by row: the small changes of a block must not lose their digits to a neighbour's large one
        return relative if plain is None else torch.where(steep[..., None].to(plain.device), plain, relative)


def _blocks(att: Attention, head: int, count: int) -> Iterator[tuple[slice, slice, slice]]:
    """(units, rows, keys) that cover a head's unmasked scores for `count` units, each about as large as a cache."""
    budget = 1 << 19 if att.q.device.type == "cpu" else 1 << 26
    length = att.q.shape[1]
    first, last = att.reach[head]
    height = length if length <= 2 * _ROWS and count * length * length <= budget else _ROWS
    for top in range(0, length, height):
        rows = slice(top, min(top + height, length))
        keys = slice(min(first[rows]), max(last[rows]))
        step = max(1, budget // ((rows.stop - rows.start) * (keys.stop - keys.start)))
        for at in range(0, count, step):
            yield slice(at, min(at + step, count)), rows, keys


def attention_change(att: Attention, changes: Sequence[ScoreChange]) -> Float[Tensor, " unit"]:
    """L2 norm of the change of the attention weights, over all query heads the units touch (Eq. 8-9)."""
    total = torch.zeros(len(changes[0]), dtype=torch.float64, device=att.q.device)
    for change in changes:
        prepared = _Prepared(att, change)
        for units, rows, keys in _blocks(att, change.head, len(total)):
            w = prepared.weights(units, rows, keys)
            s = w.sum(-1)
            w.addcmul_(s[..., None], prepared.pattern[rows, keys], value=-1)
            row = torch.linalg.vector_norm(w, dim=-1) / (1 + s)
            total[units] += row.double().square().sum(-1)
    return total.sqrt().to(att.q.dtype)


def output_change(att: Attention, changes: Sequence[ScoreChange]) -> Float[Tensor, " unit"]:
    """L2 norm of the change of the raw output of the attention sub-layer (Eq. 1).

    W_O is replaced by its triangular factor, which keeps norms, so no [l, d_model] tensor is formed per unit.
    """
    total = torch.zeros(len(changes[0]), dtype=torch.float64, device=att.q.device)
    alone = len(changes) == 1
    factor = output_factor(att, [change.head for change in changes])
    prepared = [_Prepared(att, change) for change in changes]
    values = [att.v[change.head // att.group] for change in changes]
    if alone:
        values = [values[0] @ factor]
    mixed = [p.pattern @ value for p, value in zip(prepared, values, strict=True)]
    for units, rows, keys in _blocks(att, changes[0].head, len(total)):
        moved = []
        for p, value, z in zip(prepared, values, mixed, strict=True):
            w = p.weights(units, rows, keys)
            s = w.sum(-1, keepdim=True)
            product = rearrange(w, "unit row key -> (unit row) key") @ value[keys]
            product = rearrange(product, "(unit row) width -> unit row width", row=w.shape[1])
            moved.append((product.addcmul_(s, z[rows], value=-1), 1 + s))
        if alone:  # the denominator is the row's own: divide its norm
            row = torch.linalg.vector_norm(moved[0][0], dim=-1) / moved[0][1][..., 0]
        else:
            row = torch.linalg.vector_norm(
                torch.cat([change / denominator for change, denominator in moved], -1) @ factor, dim=-1
            )
        total[units] += row.double().square().sum(-1)
    return total.sqrt().to(att.q.dtype)


def output_factor(att: Attention, heads: Sequence[int]) -> Float[Tensor, "in out"]:
    """A matrix M with |x M| = |x W_O| for every x of the given heads, at most as wide as W_O."""
    stacked = rearrange(att.W_O[list(heads)], "head d_head d_model -> (head d_head) d_model")
    if stacked.shape[0] >= stacked.shape[1]:
        return stacked
    return torch.linalg.qr(stacked.T.double(), mode="r").R.T.to(stacked.dtype)


def value_change(
    z: Float[Tensor, "head pos d_head"], w_o: Float[Tensor, "head d_head d_model"], group: int
) -> Float[Tensor, "kv d_head"]:
    """L2 norm of the change of the output when one unit of v is zero: it feeds every query head of its group, so cross terms count.

    Args:
        z: A v, the input of W_O.
        w_o: W_O.
        group: Query heads per key/value head.
    """
    grouped = rearrange(z, "(kv group) pos d_head -> kv group pos d_head", group=group).double()
    w = rearrange(w_o, "(kv group) d_head d_model -> kv group d_head d_model", group=group).double()
    moments = einsum(grouped, grouped, "kv a pos d_head, kv b pos d_head -> kv d_head a b")
    grams = einsum(w, w, "kv a d_head d_model, kv b d_head d_model -> kv d_head a b")
    return (moments * grams).sum((-1, -2)).clamp_min(0).sqrt().to(z.dtype)
