"""Cosines between two languages' sentences as sums over documents, for many resamples at once.

A resample of the documents is a vector of weights w (how often each was drawn). Mean cosines of translations and of other sentences under w,
with the languages' means taken under w as well, need only the documents' products: h_s . h_t within and between the languages. So every
resample costs a matrix-vector product, and no vector is touched again. All in float64.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

SAME = 1e-6
"""A centred vector shorter than this part of the language's mean length is float32 noise: nothing is left of it."""
TIE = 1e-12
"""Cosines nearer than this are equal."""


@dataclass(frozen=True)
class Space:
    """One language at one layer, in float64."""

    vectors: Float[Tensor, "doc d_model"]
    floor: float
    """Length below which a vector is none."""

    @classmethod
    def of(cls, vectors: Float[Tensor, "doc d_model"], *, centred: bool) -> "Space":
        """The vectors as they are, or centred at the mean of all documents."""
        found = vectors.double()
        if not centred:
            return cls(found, 0.0)
        return cls(found - found.mean(0), SAME * float(found.square().sum(1).mean().sqrt()))

    @cached_property
    def lengths(self) -> Float[Tensor, " doc"]:
        """Of the vectors; nan where nothing is left of one."""
        return _length(self.vectors.square().sum(1), self.floor)

    @cached_property
    def gram(self) -> Float[Tensor, "doc doc"]:
        """Products of the sentences of this language."""
        return self.vectors @ self.vectors.T


def products(a: Space, b: Space) -> Float[Tensor, "doc doc"]:
    """Products of every sentence of a with every sentence of b: the costly step, done once per pair."""
    return a.vectors @ b.vectors.T


def cosine_table(dots: Float[Tensor, "doc doc"], a: Space, b: Space) -> Float[Tensor, "doc doc"]:
    """Cosine of every sentence of a with every sentence of b."""
    return dots / (a.lengths[:, None] * b.lengths)


def _length(square: Tensor, floor: float) -> Tensor:
    length = square.clamp(min=0).sqrt()
    return torch.where(length > floor, length, torch.nan)


def cosine_means(
    weights: Float[Tensor, "draw doc"], dots: Float[Tensor, "doc doc"], a: Space, b: Space, *, centred: bool
) -> Float[Tensor, "2 draw"]:
    """Mean cosine of parallel and of other sentences, per draw; centred at the means of the draw."""
    if not centred:
        return _means(weights, dots, 0 * weights, 0 * weights, *(s.lengths.expand_as(weights) for s in (a, b)))
    p = weights / weights.sum(1, keepdim=True)
    left, right = p @ dots.T, p @ dots  # h_a . v_b and v_a . h_b
    lengths = []
    for s in (a, b):
        towards = p @ s.gram
        lengths.append(_length(s.gram.diagonal() - 2 * towards + (p * towards).sum(1, keepdim=True), s.floor))
    return _means(weights, dots, (p * right).sum(1, keepdim=True) - left, -right, *lengths)


def mapped_means(
    weights: Float[Tensor, "draw doc"], dots: Float[Tensor, "doc doc"], a: Space, b: Space
) -> Float[Tensor, "2 draw"]:
    """As `cosine_means`, of a's sentences moved by v_b - v_a."""
    p = weights / weights.sum(1, keepdim=True)
    left, right, own, other = p @ dots.T, p @ dots, p @ a.gram, p @ b.gram
    shift = ((own - 2 * right + other) * p).sum(1, keepdim=True)  # |v_b - v_a|^2
    length = _length(a.gram.diagonal() + shift + 2 * (left - own), 0.0)
    return _means(weights, dots, 0 * weights, other - right, length, b.lengths.expand_as(weights))


def _means(
    weights: Float[Tensor, "draw doc"],
    dots: Float[Tensor, "doc doc"],
    row: Float[Tensor, "draw doc"],
    column: Float[Tensor, "draw doc"],
    left: Float[Tensor, "draw doc"],
    right: Float[Tensor, "draw doc"],
) -> Float[Tensor, "2 draw"]:
    """Weighted mean of (dots[s, t] + row[s] + column[t]) / (left[s] right[t]) over s = t, and over s != t."""
    drawn = weights > 0  # what was not drawn may be nan
    q, r = (torch.where(drawn, weights / length, 0.0) for length in (left, right))
    own = torch.where(drawn, (dots.diagonal() + row + column) / (left * right), 0.0)
    total = ((q @ dots) * r).sum(1) + (q * row).sum(1) * r.sum(1) + q.sum(1) * (r * column).sum(1)
    size, squares = weights.sum(1), weights.square().sum(1)
    pairs = size.square() - squares
    others = (total - (weights.square() * own).sum(1)) / torch.where(
        pairs > 0, pairs, torch.nan
    )  # one document, n times
    return torch.stack([(weights * own).sum(1) / size, others])


def hits(cosines: Float[Tensor, "doc other"]) -> Float[Tensor, " doc"]:
    """1 where the largest entry of a row is on the diagonal, 0 elsewhere; k entries that tie for it are 1/k each."""
    best = cosines >= cosines.amax(1, keepdim=True) - TIE
    return best.diagonal().double() / best.sum(1)
