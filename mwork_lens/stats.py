"""What we remember of activations; everything here adds up.

A statistic turns a batch of tokens into a value that adds: `stat(model, a) + stat(model, b)` says of both what `stat` says of each, so
shards, languages, machines and restarts need no special code. Counts are int64 and exact; float64 sums are exact to about 1e-12.

    Moments           per site: tokens, how often positive, sum, sum of squares, sum of the positive part    LAPE, LAP, LAVE
    DocumentMoments   per site and document: tokens, how often positive, sum (strata.py)                     bootstrap, AP
    Importances       per site: documents, smallest, sum, how often among the top                            PLND
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .corpora import Tokens
from .sites import ATTENTION_SITES, SITES, Site


@runtime_checkable
class Stats(Protocol):
    """A value that adds and can be saved."""

    def __add__(self, other: Any) -> Any: ...

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and JSON facts."""
        ...


S_co = TypeVar("S_co", covariant=True)


@runtime_checkable
class Statistic(Protocol[S_co]):
    """What `measure` collects: called with a batch, returns something that adds."""

    @property
    def size(self) -> int:
        """Documents per batch."""
        ...

    @property
    def length(self) -> int | None:
        """Tokens per document at most; None for the model's context."""
        ...

    def parameters(self) -> dict[str, Any]:
        """Everything that decides the result: part of a shard's name."""
        ...

    def __call__(self, model: Any, tokens: Tokens) -> S_co:
        """Of one batch."""
        ...


_MOMENTS = ("positive", "total", "square", "rectified")


def add_sites(
    mine: Mapping[Site, Tensor], yours: Mapping[Site, Tensor], combine: Any = torch.add
) -> dict[Site, Tensor]:
    """Site by site; refuses other sites and other layers or widths."""
    if mine.keys() != yours.keys():
        raise ValueError(f"statistics of different sites do not add: {sorted(mine)} and {sorted(yours)}")
    for site in mine:
        if mine[site].shape[-2:] != yours[site].shape[-2:]:
            raise ValueError(
                f"statistics differ in site {site!r}: [layer, width] {list(mine[site].shape[-2:])} vs {list(yours[site].shape[-2:])} - "
                "collected on another model?"
            )
    return {site: combine(mine[site], yours[site]) for site in mine}


def same_model(mine: str | None, yours: str | None) -> str | None:
    """The fingerprint of both; refuses two that differ."""
    if mine and yours and mine != yours:
        raise ValueError(f"statistics of different models do not add: {mine} and {yours}")
    return mine or yours


def pack_sites(**groups: Mapping[Site, Tensor]) -> dict[str, Tensor]:
    """Tensors by `group.site`, as they are written."""
    return {f"{group}.{site}": tensor for group, by_site in groups.items() for site, tensor in by_site.items()}


def unpack_sites(tensors: Mapping[str, Tensor], group: str) -> dict[Site, Tensor]:
    """The inverse of `pack_sites` for one group."""
    return {site: tensors[f"{group}.{site}"] for site in SITES if f"{group}.{site}" in tensors}


@dataclass(frozen=True, eq=False)
class Moments:
    """Counts and sums of activations over kept tokens; `a + b` is those of both."""

    n: Int[Tensor, ""]
    """Tokens counted."""
    positive: Mapping[Site, Int[Tensor, "layer width"]]
    """Tokens on which the unit is above zero."""
    total: Mapping[Site, Float[Tensor, "layer width"]]
    """Sum, float64."""
    square: Mapping[Site, Float[Tensor, "layer width"]]
    """Sum of squares, float64."""
    rectified: Mapping[Site, Float[Tensor, "layer width"]]
    """Sum of the positive part max(a, 0), float64."""
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model measured; None means unknown."""

    def __add__(self, other: "Moments") -> "Moments":
        if not isinstance(other, Moments):
            return NotImplemented
        return Moments(
            self.n + other.n,
            *(add_sites(getattr(self, name), getattr(other, name)) for name in _MOMENTS),
            model=same_model(self.model, other.model),
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites measured."""
        return tuple(self.positive)

    @property
    def tokens(self) -> int:
        """Tokens counted."""
        return int(self.n)

    def counts(self, site: Site) -> Int[Tensor, "layer width"]:
        """Tokens on which each unit is above zero."""
        return self.positive[site]

    def probability(self, site: Site) -> Float[Tensor, "layer width"]:
        """Share of tokens on which each unit is above zero."""
        return self.positive[site].double() / self.n

    def mean(self, site: Site) -> Float[Tensor, "layer width"]:
        """Mean activation of each unit."""
        return self.total[site] / self.n

    def firing_mean(self, site: Site) -> Float[Tensor, "layer width"]:
        """Mean activation over the tokens on which the unit is above zero; 0 for a unit that never is."""
        return self.rectified[site] / self.positive[site].clamp_min(1)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        return {"n": self.n, **pack_sites(**{name: getattr(self, name) for name in _MOMENTS})}, {"model": self.model}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Moments":
        """The inverse of `to_tensors`."""
        return cls(tensors["n"], *(unpack_sites(tensors, name) for name in _MOMENTS), model=facts.get("model"))


@dataclass(frozen=True, eq=False)
class Importances:
    """Importances of neurons over documents; `a + b` is that of both (the smallest of `minimum`, the sum of the rest)."""

    documents: Int[Tensor, ""]
    """Documents seen."""
    minimum: Mapping[Site, Float[Tensor, "layer width"]]
    """Smallest importance over documents: `minimum >= eps` is Eq. 2 of the paper for all documents."""
    total: Mapping[Site, Float[Tensor, "layer width"]]
    """Sum over documents, float64."""
    hits: Mapping[Site, Int[Tensor, "layer width"]]
    """Documents in which the unit is among the top of its layer: `hits == documents` is the paper's intersection."""
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model measured; None means unknown."""

    def __add__(self, other: "Importances") -> "Importances":
        return Importances(
            self.documents + other.documents,
            add_sites(self.minimum, other.minimum, torch.minimum),
            add_sites(self.total, other.total),
            add_sites(self.hits, other.hits),
            model=same_model(self.model, other.model),
        )

    @classmethod
    def of_document(
        cls,
        importance: Mapping[Site, Float[Tensor, "layer width"]],
        top: Mapping[Site, float],
        *,
        model: str | None = None,
    ) -> "Importances":
        """Of a single document: importance per site, and the share of each layer's units that counts as its top."""
        values: dict[Site, Tensor] = {
            site: scores.detach().double().cpu().clone() for site, scores in importance.items()
        }
        hits: dict[Site, Tensor] = {site: _top(scores, top[site]) for site, scores in values.items()}
        total: dict[Site, Tensor] = {site: scores.clone() for site, scores in values.items()}
        return cls(torch.tensor(1), values, total, hits, model=model)

    def mean(self, site: Site) -> Float[Tensor, "layer width"]:
        """Mean importance of each unit."""
        return self.total[site] / self.documents

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        return {"documents": self.documents, **pack_sites(minimum=self.minimum, total=self.total, hits=self.hits)}, {
            "model": self.model
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Importances":
        """The inverse of `to_tensors`."""
        return cls(
            tensors["documents"],
            *(unpack_sites(tensors, group) for group in ("minimum", "total", "hits")),
            model=facts.get("model"),
        )


def top_count(share: float, width: int) -> int:
    """How many of `width` units a share of them is, at least one.

    Raises:
        ValueError: `share` would select nothing or everything.
    """
    if not 0 < share < 1:
        raise ValueError(f"top={share} is not a share of a layer's units: give a number between 0 and 1, such as 0.1")
    count = max(1, round(share * width))
    if count >= width:
        raise ValueError(
            f"top={share} selects all {width} units of a layer: nothing would be told apart; give a smaller share"
        )
    return count


def _top(scores: Float[Tensor, "layer width"], share: float) -> Int[Tensor, "layer width"]:
    """1 for the top of each layer; ties go to the lower index, the same on every machine."""
    count = top_count(share, scores.shape[1])
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(scores, dtype=torch.long).scatter_(1, order, 1)


def shares(top: float | Mapping[str, float], sites: Iterable[Site]) -> dict[Site, float]:
    """A share per site from one number or a mapping (keys: sites, or `attention` for q, k, v, z).

    Raises:
        ValueError: A site has no share.
    """
    if not isinstance(top, Mapping):
        return dict.fromkeys(sites, float(top))
    found: dict[Site, float] = {}
    for site in sites:
        share = top.get(site, top.get("attention") if site in ATTENTION_SITES else None)
        if share is None:
            raise ValueError(f"top gives no share for site {site!r}: it has {sorted(top)}")
        found[site] = float(share)
    return found
