"""How often does each expert of a dense model fire? Counts over tokens, per language.

Claim (Liu et al. 2024, arXiv 2402.16367, "Unraveling Babel"): languages share about half of the experts of a dense model, and related languages use
similar ones. With the units of each layer divided into experts (partition.py), a_j(t) what unit j sends into W_down (site `ffn`) at token t:

    score      s_le(t) = sum over the units j of expert e of layer l of a_j(t)                        (the paper's; `sum`)
               or of max(a_j, 0) (`positive`), |a_j| (`absolute`), a_j^2 (`square`), |a_j| * ||W_down[j]|| (`norm`)
    z-score    z_le(t) = (s_le(t) - mean_l) / std_l, mean and standard deviation over the experts of the layer at this token (`token`), or over
               experts and tokens of a corpus in which every language weighs the same (`layer`; needs `score_moments` first); `none` as a control
    selection  the k = round(share * L * E) largest of all z_le(t) of a token (`global`), or round(share * E) of each layer (`per_layer`);
               ties go to the lower layer, then the lower expert
    frequency  f_le = kept tokens that select (l, e) / kept tokens

So the mean of f over all experts is k / (L * E), exactly, whatever the model does. A sum of signed activations can cancel: compare with `absolute`.
The paper states `sum`, a z-score and a top share, but neither the share nor the axis of the z-score, and released no code: share 0.3 and `token` are
our choice (MoEfication, Zhang et al. 2022, keeps 20 %). Memory is O(L * E) per token: 32 kB at 32 layers of 256 experts.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..capture import as_tokens
from ..corpora import Tokens
from ..models import fingerprint
from ..stats import same_model
from ..storage import content_hash
from .partition import Partition
from .scales import Scale
from .scores import ROWS, Score, each_layer, require, require_sizes, select_top, standardise

Z = Literal["token", "layer", "none"]
Select = Literal["global", "per_layer"]


def selected_per_token(share: float, layers: int, experts: int, select: str = "global") -> int:
    """How many experts a token selects, over all layers.

    Raises:
        ValueError: `share` is not between 0 and 1, or rounds to no expert or to all; `select` is unknown.
    """
    require("select", select, get_args(Select))
    if not 0 < share < 1:
        raise ValueError(f"share={share} is not a share of the experts: give a number between 0 and 1, such as 0.3")
    of, times = (layers * experts, 1) if select == "global" else (experts, layers)
    k = round(share * of)
    if not 0 < k < of:
        every = "every expert" if k else "no expert"
        raise ValueError(f"share={share} of {of} experts rounds to {k}: each token would select {every}")
    return k * times


def tokens_needed(error: float = 0.05) -> int:
    """Tokens from which every frequency is known to within `error` (95 %), if tokens were independent: (1.96 * 0.5 / error)^2, 385 at 0.05.

    Neighbouring tokens of a text are not independent, so this is the least that makes sense, not enough.

    Raises:
        ValueError: `error` is not between 0 and 1.
    """
    if not 0 < error < 1:
        raise ValueError(f"error={error} must be between 0 and 1, such as 0.05")
    return math.ceil((1.96 * 0.5 / error) ** 2)


@dataclass(frozen=True, eq=False)
class ExpertCounts:
    """How often each expert was selected; `a + b` is that of both."""

    counts: Int[Tensor, "layer expert"]
    """Kept tokens that selected the expert, int64."""
    tokens: Int[Tensor, ""]
    """Kept tokens."""
    selected: int
    """Experts each token selects, over all layers: the counts sum to `tokens * selected`."""
    how: str = field(default="", kw_only=True)
    """Score, z-score, share and selection (or that a router chose)."""
    layers: tuple[int, ...] = field(default=(), kw_only=True)
    """The layer of each row of `counts`; all of them unless some have no router."""
    partition: str | None = field(default=None, kw_only=True)
    """Hash of the partition; None means unknown."""
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model; None means unknown."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers) or tuple(range(self.counts.shape[0])))
        if len(self.layers) != self.counts.shape[0]:
            raise ValueError(f"counts of {self.counts.shape[0]} layers, but layers are {self.layers}: name one per row")

    def __add__(self, other: "ExpertCounts") -> "ExpertCounts":
        if not isinstance(other, ExpertCounts):
            return NotImplemented
        model, partition = require_same(self, other)
        return ExpertCounts(
            self.counts + other.counts,
            self.tokens + other.tokens,
            self.selected,
            how=self.how,
            layers=self.layers,
            partition=partition,
            model=model,
        )

    def frequency(self) -> Float[Tensor, "layer expert"]:
        """Share of tokens that selected each expert, float64.

        Raises:
            ValueError: No token was counted.
        """
        if not int(self.tokens):
            raise ValueError("no token was counted, so no frequency is known: measure a corpus")
        return self.counts.double() / self.tokens

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        names = ("selected", "how", "layers", "partition", "model")
        return {"counts": self.counts, "tokens": self.tokens}, {name: getattr(self, name) for name in names}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "ExpertCounts":
        """The inverse of `to_tensors`."""
        named = {name: facts[name] for name in ("how", "partition", "model")}
        return cls(tensors["counts"], tensors["tokens"], facts["selected"], layers=tuple(facts["layers"]), **named)


def require_same(mine: ExpertCounts, yours: ExpertCounts) -> tuple[str | None, str | None]:
    """The model and the partition of both.

    Raises:
        ValueError: Counts of another model, partition, shape or way of selecting.
    """
    model = same_model(mine.model, yours.model)
    if mine.partition and yours.partition and mine.partition != yours.partition:
        raise ValueError(f"expert counts of different partitions do not add: {mine.partition} and {yours.partition}")
    if mine.counts.shape != yours.counts.shape or mine.layers != yours.layers:
        raise ValueError(
            f"expert counts differ in [layer, expert]: {list(mine.counts.shape)} of layers {mine.layers} and "
            f"{list(yours.counts.shape)} of layers {yours.layers} - counted on another partition?"
        )
    if (mine.how, mine.selected) != (yours.how, yours.selected):
        raise ValueError(
            f"expert counts were selected differently: {mine.selected} per token by {mine.how!r}, and "
            f"{yours.selected} by {yours.how!r}; count both in one way"
        )
    return model, mine.partition or yours.partition


@dataclass(frozen=True, eq=False)
class expert_counts:  # reads as a verb: measure(model, corpora, expert_counts(partition))
    """The statistic that collects `ExpertCounts`.

    Args:
        partition: Which unit belongs to which expert.
        score: Score of an expert at a token (see the module).
        z: What makes layers comparable.
        share: Share of the experts that a token selects.
        select: Over all layers at once, or in each layer.
        scale: Mean and standard deviation of each layer, from `layer_scale`; for `z="layer"` only.
        size: Documents per batch.
        length: Tokens per document at most.

    Raises:
        ValueError: A name is unknown, `share` is no share, `size` or `length` is not positive; `scale` is missing, not wanted, or of
            another number of layers.
    """

    partition: Partition
    score: str = field(default="sum", kw_only=True)
    z: str = field(default="token", kw_only=True)
    share: float = field(default=0.3, kw_only=True)
    select: str = field(default="global", kw_only=True)
    scale: Scale | None = field(default=None, kw_only=True)
    size: int = field(default=8, kw_only=True)
    length: int | None = field(default=None, kw_only=True)
    name: ClassVar[str] = "expert_counts"

    def __post_init__(self) -> None:
        require("score", self.score, get_args(Score))
        require("z", self.z, get_args(Z))
        layers = self.partition.labels.shape[0]
        selected_per_token(self.share, layers, self.partition.experts, self.select)
        require_sizes(self.size, self.length)
        if (self.z == "layer") != (self.scale is not None):
            raise ValueError(
                "z='layer' needs scale=layer_scale(measure(model, corpora, score_moments(partition)))"
                if self.z == "layer"
                else f"scale is used by z='layer' only, not by z={self.z!r}: leave it out"
            )
        if self.scale is not None:
            known = self.scale.partition
            if self.scale.mean.shape != (layers,) or (known is not None and known != self.partition.fingerprint):
                raise ValueError(
                    f"the scale ({len(self.scale.mean)} layers) is of another partition: measure score_moments of this one"
                )
            if self.scale.score != self.score:
                raise ValueError(
                    f"the scale is of score={self.scale.score!r}, the counts of {self.score!r}: measure score_moments of that"
                )
        sizes = self.partition.sizes()
        if int(sizes.max()) > 1.25 * int(sizes.min()):
            warnings.warn(
                f"experts have {int(sizes.min())} to {int(sizes.max())} units: scores are sums over units, so frequencies partly say how large an "
                f"expert is; choose a number of experts that divides {self.partition.labels.shape[1]} evenly",
                stacklevel=2,
            )

    @property
    def how(self) -> str:
        """The choices in words, so that counts made differently do not add."""
        scale = "" if self.scale is None else " " + content_hash(self.scale.mean.tolist(), self.scale.std.tolist())[:8]
        return f"score={self.score} z={self.z}{scale} share={self.share} select={self.select}"

    def parameters(self) -> dict[str, Any]:
        """What decides the result."""
        partition = self.partition.fingerprint
        return {
            "statistic": self.name,
            "partition": partition,
            "how": self.how,
            "size": self.size,
            "length": self.length,
        }

    def __call__(self, model: Any, tokens: Tokens | Tensor) -> ExpertCounts:
        """Count one batch.

        Raises:
            ValueError: The partition is of another model, or the batch keeps no token.
        """
        tokens = as_tokens(tokens, model)
        layers, experts = self.partition.labels.shape[0], self.partition.experts
        n = int(tokens.keep.sum())
        z = torch.empty(0)

        def take(layer: int, scores: Tensor) -> None:
            nonlocal z
            if not layer:  # on the device of the first layer; what comes from another is copied there
                z = scores.new_empty(n, layers, experts)
            if self.z == "token":
                scores = standardise(scores)
            elif self.scale is not None:
                scores = (scores - float(self.scale.mean[layer])) / float(self.scale.std[layer])
            z[:, layer] = scores

        each_layer(model, tokens, self.partition, self.score, take)
        k = selected_per_token(self.share, layers, experts, self.select)
        counts = torch.zeros(layers, experts, dtype=torch.long)
        for rows in z.split(ROWS):
            flat, at_once = (rows.flatten(1), k) if self.select == "global" else (rows.flatten(0, 1), k // layers)
            counts += select_top(flat, at_once).view(-1, layers, experts).sum(0).cpu()
        return ExpertCounts(
            counts, torch.tensor(n), k, how=self.how, partition=self.partition.fingerprint, model=fingerprint(model)
        )
