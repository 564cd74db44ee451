"""NeuronSet: a set of neurons with the algebra of sets.

A set is one boolean mask per site, `[layer, width]`, so that unions, overlaps, controls and counts are one line each and an
80-layer model's FFN mask takes 2.3 MB. Sets of different models do not combine: the shapes differ, or their `model` does.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .sites import FFN_SITES, SITES, Site, require_sites


class Neuron(NamedTuple):
    """One neuron: where it lives and which unit it is."""

    site: Site
    layer: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # a tuple's `index` method gives way to the field


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """A set of neurons of one model.

    `a & b`, `a | b`, `a - b` and `a ^ b` are set operations, `~a` is the complement within the sites of `a`;
    `len(a)`, `neuron in a` and iteration over `(site, layer, index)` do what they say.

    Example:
        >>> shapes = {"ffn": (2, 4)}  # two layers of four units
        >>> a = NeuronSet.of([("ffn", 0, 1), ("ffn", 1, 3)], shapes)
        >>> b = NeuronSet.of([("ffn", 1, 3), ("ffn", 1, 0)], shapes)
        >>> a & b, len(a | b), len(a - b), len(~a)
        (NeuronSet(ffn 1/8), 3, 1, 6)
        >>> [tuple(neuron) for neuron in a ^ b]
        [('ffn', 0, 1), ('ffn', 1, 0)]
        >>> ("ffn", 1, 3) in a, a & b <= a, a.only(layers=[0]).counts()["ffn"].tolist()
        (True, True, [1, 0])
    """

    masks: Mapping[Site, Bool[Tensor, "layer width"]]
    """Per site, True where the neuron belongs to the set."""
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model the set was found on; None means unknown, and combines with any of the same shape."""

    def __post_init__(self) -> None:
        masks: dict[Site, Tensor] = {site: self.masks[site] for site in SITES if site in self.masks}
        require_sites(self.masks or ["ffn"])
        for site, mask in masks.items():
            if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.dtype != torch.bool:
                got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
                raise ValueError(f"the mask of site {site!r} must be a boolean tensor [layer, width], got {got}")
        if len({mask.shape[0] for mask in masks.values()}) > 1:
            layers = {site: mask.shape[0] for site, mask in masks.items()}
            raise ValueError(f"the sites of one NeuronSet must agree on the number of layers, got {layers}")
        # the set owns its masks: a caller's later change must not reach it
        object.__setattr__(self, "masks", {site: mask.detach().cpu().clone() for site, mask in masks.items()})

    @classmethod
    def empty(cls, shapes: Mapping[Site, tuple[int, int]], *, model: str | None = None) -> "NeuronSet":
        """No neurons, over sites of the given (layers, width)."""
        return cls({site: torch.zeros(shape, dtype=torch.bool) for site, shape in shapes.items()}, model=model)

    @classmethod
    def of(
        cls,
        neurons: Iterable[tuple[str, int, int]],
        shapes: Mapping[Site, tuple[int, int]],
        *,
        model: str | None = None,
    ) -> "NeuronSet":
        """The set of the given `(site, layer, index)`.

        Raises:
            ValueError: A neuron lies outside the shapes.
        """
        made = cls.empty(shapes, model=model)
        for site, layer, index in neurons:
            mask = {str(name): mask for name, mask in made.masks.items()}.get(site)
            if mask is None or not (0 <= layer < mask.shape[0] and 0 <= index < mask.shape[1]):
                raise ValueError(f"neuron {(site, layer, index)} lies outside {dict(shapes)}")
            mask[layer, index] = True
        return made

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites the set speaks about, in the order of the forward pass."""
        return tuple(self.masks)

    @property
    def shapes(self) -> dict[Site, tuple[int, int]]:
        """(layers, width) of each site."""
        return {site: (mask.shape[0], mask.shape[1]) for site, mask in self.masks.items()}

    @property
    def n_layers(self) -> int:
        """Number of layers of the model (0 if the set has no site)."""
        return next((mask.shape[0] for mask in self.masks.values()), 0)

    def counts(self) -> dict[Site, Int[Tensor, " layer"]]:
        """Per site, the number of neurons in each layer."""
        return {site: mask.sum(dim=1) for site, mask in self.masks.items()}

    def only(self, *, sites: Iterable[str] | None = None, layers: Iterable[int] | None = None) -> "NeuronSet":
        """The part of the set in the given sites and layers; its shape stays the same.

        Raises:
            ValueError: A site is unknown, or a layer does not exist.
        """
        keep = self.sites if sites is None else require_sites(sites)
        chosen = torch.ones(self.n_layers, dtype=torch.bool)
        if layers is not None:
            layers = list(layers)
            if outside := [layer for layer in layers if not 0 <= layer < self.n_layers]:
                raise ValueError(
                    f"layer {outside[0]} does not exist: this set's model has layers 0..{self.n_layers - 1}"
                )
            chosen = torch.zeros(self.n_layers, dtype=torch.bool)
            chosen[layers] = True
        return NeuronSet(
            {s: m & chosen[:, None] if s in keep else torch.zeros_like(m) for s, m in self.masks.items()},
            model=self.model,
        )

    def at(self, site: Site) -> "NeuronSet":
        """The FFN units of the set, looked at from another FFN site: `neurons.at("ffn_act")` for an edit of act(gate).

        Raises:
            ValueError: `site` is not one of the FFN sites, or the set speaks of other sites, or of FFN units twice.
        """
        require_sites([site], FFN_SITES)
        mine = [name for name, mask in self.masks.items() if bool(mask.any())]
        mine = mine or [name for name in self.masks if name in FFN_SITES][:1]
        if len(mine) != 1 or mine[0] not in FFN_SITES:
            raise ValueError(
                f"at({site!r}) moves FFN units; this set has {', '.join(self.masks) or 'no sites'}: take .only(sites=['ffn']) of it first"
            )
        return NeuronSet({site: self.masks[mine[0]]}, model=self.model)

    def _with(self, other: "NeuronSet", combine: Any) -> "NeuronSet":
        if not isinstance(other, NeuronSet):
            raise TypeError(f"a NeuronSet combines with a NeuronSet, not with {type(other).__name__}")
        if self.model and other.model and self.model != other.model:
            raise ValueError(f"neuron sets of different models do not combine: {self.model} and {other.model}")
        mine, yours = self.shapes, other.shapes
        for site in mine.keys() & yours.keys():
            if mine[site] != yours[site]:
                raise ValueError(
                    f"neuron sets differ in site {site!r}: [layer, width] {list(mine[site])} vs {list(yours[site])} - "
                    "detected on another model?"
                )
        shapes: dict[Site, tuple[int, int]] = {**mine, **yours}
        blank: dict[Site, Tensor] = {site: torch.zeros(shape, dtype=torch.bool) for site, shape in shapes.items()}
        masks: dict[Site, Tensor] = {
            site: combine(self.masks.get(site, empty), other.masks.get(site, empty)) for site, empty in blank.items()
        }
        return NeuronSet(masks, model=self.model or other.model)

    def __and__(self, other: "NeuronSet") -> "NeuronSet":
        return self._with(other, torch.logical_and)

    def __or__(self, other: "NeuronSet") -> "NeuronSet":
        return self._with(other, torch.logical_or)

    def __sub__(self, other: "NeuronSet") -> "NeuronSet":
        return self._with(other, lambda a, b: a & ~b)

    def __xor__(self, other: "NeuronSet") -> "NeuronSet":
        return self._with(other, torch.logical_xor)

    def __invert__(self) -> "NeuronSet":
        return NeuronSet({site: ~mask for site, mask in self.masks.items()}, model=self.model)

    def __le__(self, other: "NeuronSet") -> bool:
        return not len(self - other)

    def __eq__(self, other: object) -> bool:
        """Same neurons; a site without neurons equals an absent one."""
        if not isinstance(other, NeuronSet) or (self.model and other.model and self.model != other.model):
            return False
        if any(self.shapes[site] != other.shapes[site] for site in self.shapes.keys() & other.shapes.keys()):
            return False
        return not len(self ^ other)

    __hash__ = None  # type: ignore[assignment]  # holds tensors

    def __len__(self) -> int:
        return sum(int(mask.sum()) for mask in self.masks.values())

    def __bool__(self) -> bool:
        return any(bool(mask.any()) for mask in self.masks.values())

    def __contains__(self, neuron: object) -> bool:
        if not (isinstance(neuron, tuple) and len(neuron) == 3) or neuron[0] not in self.masks:
            return False
        mask, layer, index = self.masks[neuron[0]], neuron[1], neuron[2]
        return 0 <= layer < mask.shape[0] and 0 <= index < mask.shape[1] and bool(mask[layer, index])

    def __iter__(self) -> Iterator[Neuron]:
        for site, mask in self.masks.items():
            for layer, index in mask.nonzero().tolist():
                yield Neuron(site, layer, index)

    def __repr__(self) -> str:
        inside = ", ".join(f"{site} {int(mask.sum())}/{mask.numel()}" for site, mask in self.masks.items())
        return f"NeuronSet({inside or 'no sites'})"

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes: tensors by name, and JSON facts."""
        return {str(site): mask for site, mask in self.masks.items()}, {"model": self.model}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "NeuronSet":
        """The inverse of `to_tensors`."""
        return cls(dict(tensors), model=facts.get("model"))  # type: ignore[arg-type]  # names are checked by __post_init__


def jaccard(a: NeuronSet, b: NeuronSet) -> float:
    """Overlap `|a & b| / |a | b|`, between 0 and 1; nan if both are empty.

    Example:
        >>> a = NeuronSet.of([("ffn", 0, 1), ("ffn", 0, 2)], {"ffn": (1, 4)})
        >>> jaccard(a, a), jaccard(a, ~a), jaccard(a, NeuronSet.of([("ffn", 0, 2)], {"ffn": (1, 4)}))
        (1.0, 0.0, 0.5)
    """
    union = len(a | b)
    return len(a & b) / union if union else float("nan")
