"""Scores of the experts of a layer at each token, and the largest of them: the steps of frequencies.py that need no counts."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..capture import capture
from ..corpora import Tokens
from ..sites import weight
from .partition import Partition

Score = Literal["sum", "positive", "absolute", "square", "norm"]

ROWS = 1024
"""Tokens whose activations are copied, or whose experts are ranked, together."""


def require(name: str, value: Any, known: tuple[Any, ...]) -> None:
    """Refuse a name that is not one of the known ones.

    Raises:
        ValueError: It is not.
    """
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown: choose from {', '.join(map(repr, known))}")


def select_top(z: Float[Tensor, "row expert"], k: int) -> Bool[Tensor, "row expert"]:
    """The `k` largest of each row, ties to the lower index: exactly k in every row, on every machine."""
    least = torch.topk(z, k, dim=1, sorted=False).values.amin(1, keepdim=True)
    above, ties = z > least, z == least
    return above | (ties & (ties.cumsum(1) <= k - above.sum(1, keepdim=True)))


def standardise(scores: Float[Tensor, "tok expert"]) -> Float[Tensor, "tok expert"]:
    """(s - mean) / std over the experts of each token; 0 where all are equal, up to rounding."""
    centred = scores - scores.mean(1, keepdim=True)
    std = centred.square().mean(1, keepdim=True).sqrt()
    return torch.where(std > 1e-6 * scores.abs().amax(1, keepdim=True), centred / std, 0.0)


def expert_scores(
    activation: Float[Tensor, "tok width"],
    labels: Int[Tensor, " width"],
    experts: int,
    score: str = "sum",
    norms: Float[Tensor, " width"] | None = None,
) -> Float[Tensor, "tok expert"]:
    """Scores of a layer's experts, float32. `norms` are those of the rows of W_down, for `norm` only.

    Raises:
        ValueError: The score is unknown, or `norm` has no norms.
    """
    require("score", score, get_args(Score))
    order = torch.argsort(labels, stable=True).to(activation.device)
    sizes = torch.bincount(labels, minlength=experts).tolist()
    even = len(set(sizes)) == 1
    if not even:  # a column of zeros fills up the smaller experts: no scattered additions, so the same sum every time
        parts = order.split(sizes)
        order = torch.cat(
            [torch.nn.functional.pad(part, (0, max(sizes) - len(part)), value=len(labels)) for part in parts]
        )
    rows = []
    for part in activation.split(ROWS):
        values = part.float()
        if score == "positive":
            values = values.clamp_min(0)
        elif score == "square":
            values = values.square()
        elif score != "sum":
            values = values.abs()
        if score == "norm":
            if norms is None:
                raise ValueError("score='norm' needs the norms of the rows of W_down: give norms=")
            values = values * norms.to(values.device, values.dtype)
        if not even:
            values = torch.nn.functional.pad(values, (0, 1))
        rows.append(values[:, order].unflatten(1, (experts, max(sizes))).sum(-1))
    return torch.cat(rows)


def each_layer(
    model: Any, tokens: Tokens, partition: Partition, score: str, take: Callable[[int, Tensor], None]
) -> None:
    """One forward; `take(layer, scores [tok expert])` of the kept tokens, in the order of the layers.

    Raises:
        ValueError: The partition is of another model, or the batch keeps no token.
        NotImplementedError: A layer of the model is a mixture of experts.
    """
    partition.require_model(model)
    if not bool(tokens.keep.any()):
        raise ValueError("this batch keeps no token: every position is padding or BOS")

    def on_layer(layer: int, activations: Mapping[str, Tensor]) -> None:
        kept = activations["ffn"][tokens.keep.to(activations["ffn"].device)]
        norms = weight(model, "ffn", layer)["W_down"].detach().float().norm(dim=1) if score == "norm" else None
        take(layer, expert_scores(kept, partition.labels[layer].cpu(), partition.experts, score, norms))

    capture(model, tokens, ("ffn",), on_layer)


def require_sizes(size: int, length: int | None) -> None:
    """Refuse a batch size or length that is not positive.

    Raises:
        ValueError: One is not.
    """
    for name, value in (("size", size), ("length", length)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
