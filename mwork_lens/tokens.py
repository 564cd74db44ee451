"""A batch of token ids with what may be counted: the currency between texts and the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """A batch of token ids with what may be counted."""

    ids: Int[Tensor, "batch pos"]
    """Token ids, right padded."""
    keep: Bool[Tensor, "batch pos"]
    """True on tokens of the text; False on padding and BOS. Every statistic obeys it."""
    language: str = ""
    """Language of the texts."""
    attention_mask: Bool[Tensor, "batch pos"] | None = None
    """False on padding; None means nothing is padded."""
    documents: tuple[str, ...] = ()
    """Names of the documents, one a row."""

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.shape != self.keep.shape:
            raise ValueError(
                f"ids and keep must both be [batch, pos], got {list(self.ids.shape)} and {list(self.keep.shape)}"
            )
        if self.attention_mask is not None and self.attention_mask.shape != self.ids.shape:
            raise ValueError(
                f"attention_mask must be {list(self.ids.shape)} like ids, got {list(self.attention_mask.shape)}"
            )

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def mask(self) -> Bool[Tensor, "batch pos"]:
        """The attention mask, all True when nothing is padded."""
        return torch.ones_like(self.keep) if self.attention_mask is None else self.attention_mask

    def row(self, index: int) -> "Tokens":
        """One document without its padding, as a batch of one."""
        real = self.mask[index]
        names = self.documents[index : index + 1]
        return Tokens(self.ids[index, real][None], self.keep[index, real][None], self.language, None, names)


def pad(rows: Sequence[Sequence[int]], language: str, names: Sequence[str], *, bos: int | None) -> Tokens:
    """Rows of ids as one right-padded batch; padding repeats id 0 under a False mask."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    keep = mask.clone()
    if bos is not None:
        keep[:, 0] &= ids[:, 0] != bos
    return Tokens(ids, keep, language, None if bool(mask.all()) else mask, tuple(names))
