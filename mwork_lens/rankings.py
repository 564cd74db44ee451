"""How well numbers rank units: rank correlation, area under the ROC curve, average precision, for one ranking against many truths.

Tied scores are what they are: they share a rank, count half in the area, and enter average precision together. `Cells` looks inside each layer and
site of a ranking over several.
"""

# pyright: reportArgumentType=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from .neurons import NeuronSet
from .sites import Site


def average_precision(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Average precision of ranking by `score` [unit], for every row of `positive` [row unit]; tied units enter together."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = positive[:, order].cumsum(1)[:, last]
    gained = np.diff(hits, axis=1, prepend=0)
    return (gained * hits / (last + 1)).sum(1) / positive.sum(1)


def auroc(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Probability that a positive scores above a negative, ties half, for every row of `positive` [row unit]."""
    from scipy.stats import rankdata

    count = positive.sum(1)
    return (positive @ rankdata(score) - count * (count + 1) / 2) / (count * (positive.shape[1] - count))


def spearman(effect: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of `effect` [row unit] with `score` [unit]; nan where one is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(effect, axis=1), rankdata(score)
    a, b = a - a.mean(1, keepdims=True), b - b.mean()
    norm = np.sqrt((a**2).sum(1) * (b**2).sum())
    return np.where(norm > 0, a @ b / np.where(norm > 0, norm, 1), np.nan)


@dataclass(frozen=True)
class Cells:
    """Neurons of several sites in one row: layer by layer of each site."""

    shapes: tuple[tuple[int, int], ...]

    @cached_property
    def slices(self) -> list[slice]:
        """Where each layer of each site stands in the row."""
        widths = [width for layers, width in self.shapes for _ in range(layers)]
        ends = np.cumsum([0, *widths])
        return [slice(a, b) for a, b in pairwise(ends)]

    def within(self, effect: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Mean over cells of the rank correlation there; cells in which one side is constant do not count."""
        found = np.stack([spearman(effect[:, cell], score[cell]) for cell in self.slices])
        valid = ~np.isnan(found)
        return np.where(valid.any(0), np.where(valid, found, 0).sum(0) / np.maximum(valid.sum(0), 1), np.nan)

    def neurons(self, flat: np.ndarray, sites: Sequence[Site]) -> NeuronSet:
        """A row of booleans as a set."""
        parts = torch.from_numpy(flat > 0).split([layers * width for layers, width in self.shapes])
        return NeuronSet(
            {site: part.reshape(shape) for site, part, shape in zip(sites, parts, self.shapes, strict=True)}
        )


def flat(values: Mapping[Site, torch.Tensor], sites: Sequence[Site]) -> np.ndarray:
    """Tensors [layer width] of several sites as the row that `Cells` describes."""
    return np.concatenate([values[site].detach().cpu().double().numpy().ravel() for site in sites])


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the resamples, those without a value left out."""
    held = values[np.isfinite(values)]
    return tuple(np.quantile(held, [0.025, 0.975])) if len(held) else (float("nan"), float("nan"))
