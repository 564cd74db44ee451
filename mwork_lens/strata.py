"""Activations document by document: the strata a bootstrap resamples, and what methods need that label whole documents.

`Moments` forget which document a token came from. Intervals over documents, LAPE on per-document means and average precision (Kojima et al.) need
it: `DocumentMoments` keep a count and a sum per document, layer and unit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .sites import Site
from .stats import Moments, add_sites, pack_sites, same_model, unpack_sites


def _join(mine: Tensor, yours: Tensor) -> Tensor:
    return torch.cat([mine, yours])


@dataclass(frozen=True, eq=False)
class DocumentMoments:
    """Counts and sums document by document: the strata that a bootstrap resamples; `a + b` holds the documents of both.

    Takes 8 bytes per document, layer and unit (1,000 documents of a 7 B Llama: 2.8 GB), so it is for samples, not for whole corpora.
    """

    documents: tuple[str, ...]
    """Names of the documents."""
    n: Int[Tensor, " doc"]
    """Tokens counted in each."""
    positive: Mapping[Site, Int[Tensor, "doc layer width"]]
    """Tokens on which the unit is above zero, int32."""
    total: Mapping[Site, Float[Tensor, "doc layer width"]]
    """Sum of activations, float32 (summed in float64)."""
    pooled: Moments | None = field(default=None, kw_only=True)
    """The `Moments` of all documents together, squares and positive parts included; None where documents were taken out."""
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model measured; None means unknown."""

    def __post_init__(self) -> None:
        if len(self.documents) != len(self.n):
            raise ValueError(f"{len(self.documents)} documents but {len(self.n)} token counts: give one per document")

    def __add__(self, other: "DocumentMoments") -> "DocumentMoments":
        if not isinstance(other, DocumentMoments):
            return NotImplemented
        if both := set(self.documents) & set(other.documents):
            raise ValueError(f"document {min(both)!r} is in both: its tokens would count twice")
        return DocumentMoments(
            (*self.documents, *other.documents),
            torch.cat([self.n, other.n]),
            add_sites(self.positive, other.positive, _join),
            add_sites(self.total, other.total, _join),
            pooled=None if self.pooled is None or other.pooled is None else self.pooled + other.pooled,
            model=same_model(self.model, other.model),
        )

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites measured."""
        return tuple(self.positive)

    @property
    def tokens(self) -> int:
        """Tokens counted, in all documents."""
        return int(self.n.sum())

    def counts(self, site: Site) -> Int[Tensor, "layer width"]:
        """Tokens on which each unit is above zero, in all documents."""
        return self.positive[site].sum(0, dtype=torch.long)

    def probability(self, site: Site) -> Float[Tensor, "layer width"]:
        """Share of tokens on which each unit is above zero, in all documents."""
        return self.counts(site).double() / self.tokens

    def mean(self, site: Site) -> Float[Tensor, "layer width"]:
        """Mean activation of each unit, over the tokens of all documents."""
        return self.total[site].sum(0, dtype=torch.double) / self.tokens

    def moments(self) -> Moments:
        """The sums over all documents, from the same forward.

        Raises:
            ValueError: Documents were taken out, and their squares and positive parts are not known one by one.
        """
        if self.pooled is None:
            raise ValueError(
                "these documents were taken out of a larger set, whose squares and positive parts are only known together"
            )
        return self.pooled

    def shares(self, site: Site) -> Float[Tensor, "doc layer width"]:
        """Share of each document's tokens on which each unit is above zero."""
        return self.positive[site].double() / self.n[:, None, None]

    def means(self, site: Site) -> Float[Tensor, "doc layer width"]:
        """Mean activation of each unit in each document."""
        return self.total[site].double() / self.n[:, None, None]

    def take(self, indices: Iterable[int]) -> "DocumentMoments":
        """The documents at these positions.

        Raises:
            IndexError: There is no such document.
        """
        chosen = list(indices)
        at = torch.tensor(chosen, dtype=torch.long)
        return DocumentMoments(
            tuple(self.documents[i] for i in chosen),
            self.n[at],
            {site: tensor[at] for site, tensor in self.positive.items()},
            {site: tensor[at] for site, tensor in self.total.items()},
            model=self.model,
        )

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        facts = {"model": self.model, "documents": list(self.documents)}
        together = (
            {} if self.pooled is None else {f"pooled.{name}": x for name, x in self.pooled.to_tensors()[0].items()}
        )
        return {"n": self.n, **pack_sites(positive=self.positive, total=self.total), **together}, facts

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "DocumentMoments":
        """The inverse of `to_tensors`."""
        groups = (unpack_sites(tensors, group) for group in ("positive", "total"))
        together = {name.removeprefix("pooled."): x for name, x in tensors.items() if name.startswith("pooled.")}
        pooled = Moments.from_tensors(together, facts) if together else None
        return cls(tuple(facts["documents"]), tensors["n"], *groups, pooled=pooled, model=facts.get("model"))
