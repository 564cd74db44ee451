"""The statistics of activations that `measure` collects: `moments` and `document_moments`.

One forward over the corpora gives the sums from which LAPE, LAP, LAVE and their relatives are computed in seconds, without the model. For them,
collect `ffn_act`: Tang et al. (2024) count act(gate) > 0, not gate x up > 0, and LAVE and steering need the mean of act(gate).
Every statistic obeys `Tokens.keep`: padding and BOS are never counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .capture import as_tokens, capture
from .corpora import Tokens
from .models import fingerprint
from .sites import SITES, Site, require_sites
from .stats import Moments
from .storage import content_hash
from .strata import DocumentMoments

_ROWS = 64
"""Tokens reduced together: few enough that their float64 copy stays in the cache (2-8 times faster than all at once)."""


def _settle(statistic: Any, sites: tuple[str, ...], size: int, length: int | None) -> None:
    """Check and set the fields of a frozen statistic."""
    chosen = require_sites(sites or ("ffn",), [site for site in SITES if site != "pattern"])
    for name, value in (("size", size), ("length", length)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    for name, value in (("sites", chosen), ("size", size), ("length", length)):
        object.__setattr__(statistic, name, value)


@dataclass(frozen=True)
class moments:  # reads as a verb: measure(model, corpora, moments("ffn_act"))
    """The statistic that collects `Moments` of the given sites.

    Raises:
        ValueError: A site is unknown or has no width (`pattern`); `size` or `length` is not positive.
    """

    sites: tuple[Site, ...]
    size: int = 16
    length: int | None = None
    name: ClassVar[str] = "moments"

    def __init__(self, *sites: str, size: int = 16, length: int | None = None) -> None:
        _settle(self, sites, size, length)

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
        rows: dict[Site, list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {site: [] for site in self.sites}

        def on_layer(layer: int, activations: Mapping[str, Tensor]) -> None:
            for site in self.sites:
                rows[site].append(_reduce(_kept(activations[site], tokens.keep)))

        capture(model, tokens, self.sites, on_layer, fused=True)
        sums: list[dict[Site, Tensor]] = [
            {site: torch.stack([row[i] for row in rows[site]]) for site in self.sites} for i in range(4)
        ]
        return Moments(torch.tensor(n), *sums, model=fingerprint(model))


@dataclass(frozen=True)
class document_moments:
    """The statistic that collects `DocumentMoments` of the given sites.

    Raises:
        ValueError: As `moments`.
    """

    sites: tuple[Site, ...]
    size: int = 16
    length: int | None = None
    name: ClassVar[str] = "document_moments"

    def __init__(self, *sites: str, size: int = 16, length: int | None = None) -> None:
        _settle(self, sites, size, length)

    def parameters(self) -> dict[str, Any]:
        """What decides the result."""
        return {"statistic": self.name, "sites": self.sites, "size": self.size, "length": self.length}

    def __call__(self, model: Any, tokens: Tokens | Tensor) -> DocumentMoments:
        """Collect one batch. Documents without a name are called by their row and content.

        Raises:
            ValueError: A document keeps no token.
        """
        tokens = as_tokens(tokens, model)
        names = tokens.documents or tuple(_name(tokens, i) for i in range(len(tokens)))
        n = tokens.keep.sum(1)
        if not bool(n.all()):
            raise ValueError(f"document {names[int(n.argmin())]!r} keeps no token: every position is padding or BOS")
        counts: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        totals: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        pooled: dict[Site, list[tuple[Tensor, ...]]] = {site: [] for site in self.sites}

        def on_layer(layer: int, activations: Mapping[str, Tensor]) -> None:
            for site in self.sites:
                sums = [
                    _reduce(_kept(x[None], keep[None])) for x, keep in zip(activations[site], tokens.keep, strict=True)
                ]
                counts[site].append(torch.stack([positive.int() for positive, *_ in sums]))
                totals[site].append(torch.stack([total.float() for _, total, *_ in sums]))
                pooled[site].append(tuple(torch.stack(part).sum(0) for part in zip(*sums, strict=True)))

        capture(model, tokens, self.sites, on_layer, fused=True)
        together: list[dict[Site, Tensor]] = [
            {site: torch.stack([row[i] for row in rows]) for site, rows in pooled.items()} for i in range(4)
        ]
        stamp = fingerprint(model)
        return DocumentMoments(
            names,
            n.long(),
            {site: torch.stack(layers, dim=1) for site, layers in counts.items()},
            {site: torch.stack(layers, dim=1) for site, layers in totals.items()},
            pooled=Moments(n.sum(), *together, model=stamp),
            model=stamp,
        )


def _name(tokens: Tokens, row: int) -> str:
    return f"row {row} ({content_hash(tokens.ids[row][tokens.mask[row]].tolist())[:8]})"


def _kept(activation: Float[Tensor, "batch pos width"], keep: Bool[Tensor, "batch pos"]) -> Float[Tensor, "tok width"]:
    """The rows that count, without a copy where all do."""
    if bool(keep.all()):
        return activation.flatten(0, 1)
    return activation[keep.to(activation.device)]


def _reduce(rows: Float[Tensor, "tok width"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(how often positive, sum, sum of squares, sum of the positive part) over tokens, on the CPU; int64 and float64."""
    positive = torch.zeros(rows.shape[1], dtype=torch.long, device=rows.device)
    wide = rows.device.type != "mps"  # which has no float64
    total, square, rectified = (
        torch.zeros(rows.shape[1], dtype=torch.double if wide else torch.float, device=rows.device) for _ in range(3)
    )
    for part in rows.split(_ROWS if rows.device.type == "cpu" else 4096):
        positive += (part > 0).sum(0, dtype=torch.int32)
        values = part.to(total.dtype)
        total += values.sum(0)
        rectified += values.clamp_min(0).sum(0)
        square += values.square_().sum(0) if values is not part else values.square().sum(0)
    return positive.cpu(), total.cpu().double(), square.cpu().double(), rectified.cpu().double()
