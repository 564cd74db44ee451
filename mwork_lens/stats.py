"""What we remember of activations; everything here adds up.

A statistic turns a batch of tokens into a value that adds: `stat(model, a) + stat(model, b)` says of both what `stat` says of each, so
shards, languages, machines and restarts need no special code. Counts are int64 and exact; float64 sums are exact to about 1e-12.

    Moments       per site: tokens, how often positive, sum, sum of squares         LAPE, LAP, LAVE, ...
    Importances   per site: documents, smallest, sum, how often among the top       PLND
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .capture import as_tokens, capture
from .corpora import Tokens
from .models import fingerprint
from .sites import ATTENTION_SITES, SITES, Site, require_sites


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


def _add(mine: Mapping[Site, Tensor], yours: Mapping[Site, Tensor], combine: Any = torch.add) -> dict[Site, Tensor]:
    if mine.keys() != yours.keys():
        raise ValueError(f"statistics of different sites do not add: {sorted(mine)} and {sorted(yours)}")
    for site in mine:
        if mine[site].shape != yours[site].shape:
            raise ValueError(
                f"statistics differ in site {site!r}: [layer, width] {list(mine[site].shape)} vs {list(yours[site].shape)} - "
                "collected on another model?"
            )
    return {site: combine(mine[site], yours[site]) for site in mine}


def _same_model(mine: str | None, yours: str | None) -> str | None:
    if mine and yours and mine != yours:
        raise ValueError(f"statistics of different models do not add: {mine} and {yours}")
    return mine or yours


def _pack(**groups: Mapping[Site, Tensor]) -> dict[str, Tensor]:
    return {f"{group}.{site}": tensor for group, by_site in groups.items() for site, tensor in by_site.items()}


def _unpack(tensors: Mapping[str, Tensor], group: str) -> dict[Site, Tensor]:
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
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model measured; None means unknown."""

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.n + other.n,
            _add(self.positive, other.positive),
            _add(self.total, other.total),
            _add(self.square, other.square),
            model=_same_model(self.model, other.model),
        )

    def probability(self, site: Site) -> Float[Tensor, "layer width"]:
        """Share of tokens on which each unit is above zero."""
        return self.positive[site].double() / self.n

    def mean(self, site: Site) -> Float[Tensor, "layer width"]:
        """Mean activation of each unit."""
        return self.total[site] / self.n

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        return {"n": self.n, **_pack(positive=self.positive, total=self.total, square=self.square)}, {
            "model": self.model
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Moments":
        """The inverse of `to_tensors`."""
        return cls(
            tensors["n"],
            *(_unpack(tensors, group) for group in ("positive", "total", "square")),
            model=facts.get("model"),
        )


@dataclass(frozen=True)
class moments:  # reads as a verb: measure(model, corpora, moments("ffn"))
    """The statistic that collects `Moments` of the given sites.

    Raises:
        ValueError: A site is unknown or has no width (`pattern`); `size` or `length` is not positive.
    """

    sites: tuple[Site, ...]
    size: int = 16
    length: int | None = None
    name: ClassVar[str] = "moments"

    def __init__(self, *sites: str, size: int = 16, length: int | None = None) -> None:
        chosen = require_sites(sites or ("ffn",), [site for site in SITES if site != "pattern"])
        for name, value in (("size", size), ("length", length)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for name, value in (("sites", chosen), ("size", size), ("length", length)):
            object.__setattr__(self, name, value)

    def parameters(self) -> dict[str, Any]:
        """What decides the result. Batch size counts: it changes activations in the last bits, and so counts near zero."""
        return {"statistic": self.name, "sites": self.sites, "size": self.size, "length": self.length}

    def __call__(self, model: Any, tokens: Tokens | Tensor) -> Moments:
        """Collect one batch.

        Raises:
            ValueError: The batch keeps no token.
        """
        tokens = as_tokens(tokens, model)
        n = int(tokens.keep.sum())
        if not n:
            raise ValueError("this batch keeps no token: every position is padding or BOS")
        rows: dict[Site, list[tuple[Tensor, Tensor, Tensor]]] = {site: [] for site in self.sites}

        def on_layer(layer: int, activations: Mapping[str, Tensor]) -> None:
            for site in self.sites:
                kept = activations[site][tokens.keep.to(activations[site].device)].double()
                rows[site].append(((kept > 0).sum(0).cpu(), kept.sum(0).cpu(), kept.square().sum(0).cpu()))

        capture(model, tokens, self.sites, on_layer)
        sums: list[dict[Site, Tensor]] = [
            {site: torch.stack([row[i] for row in rows[site]]) for site in self.sites} for i in range(3)
        ]
        return Moments(torch.tensor(n), *sums, model=fingerprint(model))


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
            _add(self.minimum, other.minimum, torch.minimum),
            _add(self.total, other.total),
            _add(self.hits, other.hits),
            model=_same_model(self.model, other.model),
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
        return {"documents": self.documents, **_pack(minimum=self.minimum, total=self.total, hits=self.hits)}, {
            "model": self.model
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Importances":
        """The inverse of `to_tensors`."""
        return cls(
            tensors["documents"],
            *(_unpack(tensors, group) for group in ("minimum", "total", "hits")),
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
