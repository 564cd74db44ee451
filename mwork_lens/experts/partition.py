"""Divide the FFN of every layer into experts, without changing a weight.

Unraveling Babel (Liu et al. 2024, arXiv 2402.16367) turns a dense model into a mixture of experts by *parameter clustering*, as MoEfication
(Zhang et al. 2022, arXiv 2110.01786) does: the d_ff units of a layer become E experts of d_ff / E units each, by balanced k-means on the rows of
the first FFN matrix, each divided by its length. On a gated FFN that matrix is W_gate (LLaMA-MoE, Zhu et al. 2024, does the same).

    rows_j = w_j / |w_j|                     w_j the weights into unit j, in R^d_model
    experts = balanced k-means of rows       sizes floor(d_ff / E) or ceil(d_ff / E), exactly

Paper: E = 256 in every layer of Llama-2-7B (43 units each), weights untouched. No code of the paper is public; the seed, number of starts and
iterations are not stated. We take one start (four for at most 128 units), 50 iterations at most, and then swaps (balanced.py).
`weights="both"` puts the two normalised rows of W_gate and W_up side by side, so that neither outweighs the other. Ungated FFNs have one first
matrix, W_in: it is used whatever `weights` says, and the partition records `weights="in"`. Controls: `random` experts of the same sizes, and
`contiguous` ones (units in the order of the matrix).

A partition is only labels: the model stays bit-identical, and its raw weights are read (folding a norm into W_gate would change the clusters).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..measure import claim_folder
from ..models import describe, fingerprint
from ..neurons import NeuronSet
from ..progress import hidden
from ..sites import is_mixture_of_experts, n_layers, weight, width, widths
from ..storage import Run, content_hash, reuse, save
from .balanced import balanced_kmeans, balanced_sizes, choose_backend, require_clusters

Weights = Literal["gate", "up", "both"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
Method = Literal["kmeans", "random", "contiguous"]
METHODS: tuple[Method, ...] = get_args(Method)

CODE = "1"
"""Raised when a change of the code changes the experts that are found."""

_MATRICES = {"gate": ("W_gate",), "up": ("W_up",), "both": ("W_gate", "W_up")}


@dataclass(frozen=True, eq=False)
class Partition:
    """To which expert each FFN unit of a model belongs."""

    labels: Int[Tensor, "layer width"]
    """Expert of each FFN unit, 0 .. experts - 1."""
    experts: int
    """Experts per layer."""
    weights: str = "gate"
    """Which rows were clustered: `gate`, `up`, `both`, or `in` for an ungated FFN."""
    method: str = "kmeans"
    """`kmeans`, or a control: `random`, `contiguous`."""
    seed: int = 0
    """Of the start."""
    backend: str = "numpy"
    """What solved the clustering: `numpy` or `constrained` (`none` for the controls)."""
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model; None means unknown."""

    def __post_init__(self) -> None:
        labels = self.labels
        if labels.ndim != 2 or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(
                f"labels must be integers [layer, width], got {labels.dtype} {list(labels.shape)}: give the expert of each unit"
            )
        if self.experts < 1:
            raise ValueError(f"experts={self.experts} must be at least 1")
        if bool(((labels < 0) | (labels >= self.experts)).any()):
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}: experts={self.experts} allows 0..{self.experts - 1}"
            )
        # the partition owns its labels: a caller's later change must not reach it
        object.__setattr__(self, "labels", labels.detach().cpu().long().clone())

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return self.labels.shape[0]

    @property
    def width(self) -> int:
        """FFN units of a layer."""
        return self.labels.shape[1]

    @property
    def fingerprint(self) -> str:
        """Content hash of the labels, their number of experts and their model: equal for partitions that divide alike."""
        return content_hash(list(self.labels.shape), self.labels.numpy().tobytes(), self.experts, self.model)

    def sizes(self) -> Int[Tensor, "layer expert"]:
        """Units of each expert."""
        return torch.stack([torch.bincount(row, minlength=self.experts) for row in self.labels])

    def members(self, layer: int, expert: int) -> Int[Tensor, " unit"]:
        """The units of one expert, ascending.

        Raises:
            ValueError: There is no such layer or expert.
        """
        for name, value, count in (("layer", layer, self.n_layers), ("expert", expert, self.experts)):
            if not 0 <= value < count:
                raise ValueError(f"{name} {value} does not exist: this partition has {name}s 0..{count - 1}")
        return (self.labels[layer] == expert).nonzero().flatten()

    def order(self) -> Int[Tensor, "layer width"]:
        """Units sorted by expert, and by index within one: `sizes` says where each expert ends."""
        return torch.argsort(self.labels, dim=1, stable=True)

    def units(self, keep: Bool[Tensor, "layer expert"]) -> NeuronSet:
        """The FFN units of the experts marked in `keep`; `units(~keep)` are those of the others.

        Raises:
            ValueError: `keep` has another shape than [n_layers, experts].
        """
        if tuple(keep.shape) != (self.n_layers, self.experts):
            raise ValueError(
                f"keep is {list(keep.shape)}, this partition has [layer, expert] {[self.n_layers, self.experts]}: mark each expert of each layer"
            )
        return NeuronSet({"ffn": keep.cpu().gather(1, self.labels)}, model=self.model)

    def require_model(self, model: Any) -> None:
        """Refuse a model that these experts do not divide.

        Raises:
            ValueError: The model has other layers or another width, or is another model than the one partitioned.
            NotImplementedError: A layer of the model is a mixture of experts.
        """
        _require_dense(model)
        found = [(n_layers(model), width(model, "ffn", layer)) for layer in range(n_layers(model))]
        if wrong := [shape for shape in found if shape != (self.n_layers, self.width)]:
            raise ValueError(
                f"this partition divides FFNs of [layer, width] {[self.n_layers, self.width]}, the model has {list(wrong[0])}: "
                "make a partition of this model"
            )
        if self.model is not None and self.model != fingerprint(model):
            raise ValueError(
                f"this partition was made for another model ({self.model}): make one of this model ({fingerprint(model)})"
            )

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        facts = ("experts", "weights", "method", "seed", "backend", "model")
        return {"labels": self.labels}, {name: getattr(self, name) for name in facts}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Partition":
        """The inverse of `to_tensors`."""
        return cls(tensors["labels"], **facts)


def partition(
    model: Any,
    *,
    experts: int = 256,
    weights: str = "gate",
    method: str = "kmeans",
    seed: int = 0,
    iterations: int = 50,
    backend: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Partition:
    """Divide the FFN units of every layer into experts.

    Args:
        model: What `load_model` returned; it is only read.
        experts: Experts per layer; where it does not divide the width, sizes differ by one.
        weights: Rows that are clustered: `gate`, `up` or `both`; an ungated FFN has only W_in.
        method: `kmeans`; or the controls `random` and `contiguous`.
        seed: Of the start, or of the random experts.
        iterations: Of k-means, and rounds of swaps after it (`balanced_kmeans`), at most.
        backend: `numpy` (default), or `constrained` for k-means-constrained (extra `experts`). The two find different experts of equal
            quality.
        out: Folder that keeps every finished layer, and the whole as `partition.safetensors`; None keeps nothing on disk.
        resume: Use the finished layers of the same run in `out`.
        progress: Show a progress bar.

    Raises:
        ValueError: `experts` is below 1 or above the width, `weights`, `method` or `backend` is unknown, `iterations` or `seed` is
            too small, layers differ in width, or the weights of a layer are not finite or not in memory.
        NotImplementedError: A layer is a mixture of experts.
        ImportError: `backend="constrained"` without the package.
        FileExistsError: `out` holds another run, or this one and `resume` is False.
    """
    from tqdm.auto import tqdm

    for name, value, known in (("weights", weights, WEIGHTS), ("method", method, METHODS)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: choose from {', '.join(known)}")
    for name, value, least in (("iterations", iterations, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")
    solver = choose_backend(backend) if method == "kmeans" else "none"
    _require_dense(model)
    total = widths(model, ["ffn"])["ffn"]
    require_clusters(experts, total, name="experts", of="FFN units of a layer")
    used = weights if "W_gate" in weight(model, "ffn", 0) else "in"
    basis = {"method": method, "experts": experts, "weights": used, "seed": seed, "backend": solver, "code": CODE}
    basis |= {"iterations": iterations if method == "kmeans" else None}
    about, folder = fingerprint(model), None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, {"model": about, **basis}, resume=resume, claim="partition.json")

    def made(labels: Tensor) -> Partition:
        return Partition(labels, experts, used, method, seed, solver, model=about)

    found: list[Tensor] = []
    for layer in tqdm(range(n_layers(model)), unit="layer", desc="experts", disable=hidden(progress)):
        rows = _rows(model, layer, weights)
        key = content_hash(basis, layer, list(rows.shape), rows.tobytes())
        path = None if folder is None else folder / f"layer-{layer:03d}-{key[:12]}.safetensors"
        part = reuse(path, key, "dividing this layer again")
        if part is None:
            part = made(_divide(rows, layer, experts, method, seed, iterations, solver)[None])
            if path is not None:
                save(part, path, Run("partition", {"key": key, **basis}, describe(model), seed=seed))
        found.append(part.labels[0])
    whole = made(torch.stack(found))
    if folder is not None:
        save(whole, folder / "partition.safetensors", Run("partition", basis, describe(model), seed=seed))
    return whole


def _require_dense(model: Any) -> None:
    if routed := [layer for layer in range(n_layers(model)) if is_mixture_of_experts(model, layer)]:
        raise NotImplementedError(
            f"layer {routed[0]} is a mixture of experts already: count the choices of its own router with mwork_lens.experts.routers"
        )


def _rows(model: Any, layer: int, weights: str) -> Float[np.ndarray, "width d"]:
    """The weights into each FFN unit, every row of every matrix divided by its length (a row of zeros stays)."""
    matrices = weight(model, "ffn", layer)
    names = _MATRICES[weights] if "W_gate" in matrices else ("W_up",)
    parts: list[np.ndarray] = []
    for name in names:
        if matrices[name].is_meta:
            raise ValueError(
                f"{name} of layer {layer} is offloaded and cannot be read: load the model without device_map"
            )
        rows = np.ascontiguousarray(matrices[name].detach().to(torch.float64).cpu().numpy())
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} of layer {layer} holds NaN or infinity: mend the weights of this model")
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        parts.append(rows / np.where(length > 0, length, 1))
    return np.concatenate(parts, axis=1)


def _divide(
    rows: Float[np.ndarray, "width d"], layer: int, experts: int, method: str, seed: int, iterations: int, backend: str
) -> Int[Tensor, " width"]:
    """Labels of one layer."""
    if method == "kmeans":
        return torch.from_numpy(balanced_kmeans(rows, experts, seed=seed, iterations=iterations, backend=backend))
    labels = np.repeat(np.arange(experts), balanced_sizes(len(rows), experts))
    if method == "random":
        labels = np.random.default_rng([seed, layer]).permutation(labels)
    return torch.from_numpy(labels)
