"""Mean and spread of the expert scores of each layer, over a corpus: the first pass of `expert_counts(..., z="layer")`.

    mean_l = mean over languages of the mean of s_le(t) over experts e and kept tokens t of the language; std_l likewise from the mean of squares

Every language weighs the same, however many tokens it has. Unlike z-scores per token, these depend on which languages are measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..capture import as_tokens
from ..corpora import Tokens
from ..models import fingerprint
from ..stats import same_model
from .partition import Partition
from .scores import Score, each_layer, require, require_sizes


@dataclass(frozen=True, eq=False)
class ScoreMoments:
    """Sums of expert scores over kept tokens and the experts of a layer; `a + b` is that of both."""

    tokens: Int[Tensor, ""]
    """Kept tokens."""
    total: Float[Tensor, " layer"]
    """Sum over tokens and experts, float64."""
    square: Float[Tensor, " layer"]
    """Sum of squares, float64."""
    experts: int
    """Experts of a layer: each token counts that often."""
    score: str
    """Which score."""
    partition: str | None = field(default=None, kw_only=True)
    """Hash of the partition."""
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model."""

    def __add__(self, other: "ScoreMoments") -> "ScoreMoments":
        if not isinstance(other, ScoreMoments):
            return NotImplemented
        model = same_model(self.model, other.model)
        mine, yours = ((x.partition, x.experts, x.score) for x in (self, other))
        if mine != yours or self.total.shape != other.total.shape:
            raise ValueError(
                f"scores of different partitions or kinds do not add: {mine} and {yours} (partition, experts, score)"
            )
        return ScoreMoments(
            self.tokens + other.tokens,
            self.total + other.total,
            self.square + other.square,
            self.experts,
            self.score,
            partition=self.partition,
            model=model,
        )

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        facts = {name: getattr(self, name) for name in ("experts", "score", "partition", "model")}
        return {name: getattr(self, name) for name in ("tokens", "total", "square")}, facts

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "ScoreMoments":
        """The inverse of `to_tensors`."""
        sums = (tensors["tokens"], tensors["total"], tensors["square"])
        stamps = {name: facts[name] for name in ("partition", "model")}
        return cls(*sums, facts["experts"], facts["score"], **stamps)


@dataclass(frozen=True, eq=False)
class Scale:
    """What z-scores per layer are taken with."""

    mean: Float[Tensor, " layer"]
    """Mean score of a layer's experts."""
    std: Float[Tensor, " layer"]
    """Their standard deviation."""
    score: str
    """Of which score."""
    partition: str | None = field(default=None, kw_only=True)
    """Of which partition; None: unknown."""

    def __post_init__(self) -> None:
        sound = torch.isfinite(self.mean).all() and torch.isfinite(self.std).all() and (self.std > 0).all()
        if self.mean.shape != self.std.shape or not bool(sound):
            raise ValueError(
                "a scale needs a finite mean and a positive standard deviation per layer: take it from layer_scale"
            )


def layer_scale(moments: Mapping[str, ScoreMoments]) -> Scale:
    """Mean and standard deviation of the scores of each layer, float64, every language weighing the same.

    Raises:
        ValueError: There is no language, one has no token, they do not belong together, or the scores of a layer never differ.
    """
    if not moments:
        raise ValueError("no language to take a scale from: measure score_moments on at least one corpus")
    sums = list(moments.values())
    for one in sums[1:]:
        _ = sums[0] + one  # refuses what does not belong together
    if empty := [language for language, one in moments.items() if not int(one.tokens)]:
        raise ValueError(f"no token of {empty[0]!r} was counted: measure a corpus of it")
    mean = torch.stack([one.total / (one.tokens * one.experts) for one in sums]).mean(0)
    square = torch.stack([one.square / (one.tokens * one.experts) for one in sums]).mean(0)
    variance = square - mean.square()
    if bool((variance <= 1e-12 * square).any()):
        raise ValueError(
            f"the expert scores of layer {int((variance <= 1e-12 * square).nonzero()[0])} never differ: no z-score; use z='token'"
        )
    return Scale(mean, variance.sqrt(), sums[0].score, partition=sums[0].partition)


@dataclass(frozen=True, eq=False)
class score_moments:  # reads as a verb: measure(model, corpora, score_moments(partition))
    """The statistic that collects `ScoreMoments`.

    Raises:
        ValueError: The score is unknown; `size` or `length` is not positive.
    """

    partition: Partition
    score: str = field(default="sum", kw_only=True)
    size: int = field(default=8, kw_only=True)
    length: int | None = field(default=None, kw_only=True)
    name: ClassVar[str] = "score_moments"

    def __post_init__(self) -> None:
        require("score", self.score, get_args(Score))
        require_sizes(self.size, self.length)

    def parameters(self) -> dict[str, Any]:
        """What decides the result."""
        partition = self.partition.fingerprint
        return {
            "statistic": self.name,
            "partition": partition,
            "score": self.score,
            "size": self.size,
            "length": self.length,
        }

    def __call__(self, model: Any, tokens: Tokens | Tensor) -> ScoreMoments:
        """Sum one batch.

        Raises:
            ValueError: The partition is of another model, or the batch keeps no token.
        """
        tokens = as_tokens(tokens, model)
        sums: list[tuple[Tensor, Tensor]] = []

        def take(_: int, scores: Tensor) -> None:
            exact = scores.cpu().double()
            sums.append((exact.sum(), exact.square().sum()))

        each_layer(model, tokens, self.partition, self.score, take)
        total, square = (torch.stack(part) for part in zip(*sums, strict=True))
        stamps = {"partition": self.partition.fingerprint, "model": fingerprint(model)}
        return ScoreMoments(tokens.keep.sum(), total, square, self.partition.experts, self.score, **stamps)
