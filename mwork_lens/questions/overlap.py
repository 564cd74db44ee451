"""Do neurons of one kind (that hold a fact, say) coincide with neurons of another (of a language) more than chance?

    lift = |K and S| N / (|K| |S|)          1 for independent sets

Both kinds crowd into certain layers, so that even independent sets overlap more than |K| |S| / N: a plain hypergeometric p is far too small. The null
that counts keeps, for every site and layer, how many neurons each set has there, and lets chance choose which. The overlap is then a sum of
independent hypergeometric numbers, whose distribution is the convolution of theirs: the exact permutation p, without drawing any permutation.
`lift_in_layers` is the overlap over what this null expects.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..neurons import NeuronSet, jaccard
from ..sites import Site

OVERLAPS = (
    "name", "both", "first", "second", "units", "lift", "jaccard", "p_plain", "expected_in_layers", "lift_in_layers", "p_in_layers", "bh_in_layers",
)  # fmt: skip
"""Columns of `set_overlap`: sizes, and how unlikely so large an overlap is under the plain and the layer-wise null."""


def set_overlap(first: NeuronSet, others: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Overlap of one set with each of several, against chance.

    Args:
        first: Such as the neurons that hold a fact.
        others: Such as a set per language.

    Returns:
        Columns `OVERLAPS`, a row per set; Benjamini and Hochberg's correction is over these.

    Raises:
        ValueError: No other set, an empty set, or sets of other sites or shapes: the same neurons must have been open to both.
    """
    from scipy.stats import false_discovery_control, hypergeom

    if not others:
        raise ValueError("no set to compare with was given")
    rows = []
    for name, second in others.items():
        if first.shapes != second.shapes:
            raise ValueError(
                f"the sets were chosen among other neurons: {_shapes(first)} and, for {name!r}, {_shapes(second)}; restrict both to the same sites"
            )
        if not first or not second:
            raise ValueError(f"the set {'to compare' if not first else repr(name)} is empty, and overlaps with nothing")
        units = sum(mask.numel() for mask in first.masks.values())
        both = len(first & second)
        cells = [
            (int(a.sum()), int(b.sum()), a.numel())
            for site in first.masks
            for a, b in zip(first.masks[site], second.masks[site], strict=True)
        ]
        expected = sum(a * b / n for a, b, n in cells)
        rows.append(
            (name, both, len(first), len(second), units, both * units / (len(first) * len(second)), jaccard(first, second),
             float(hypergeom.sf(both - 1, units, len(second), len(first))), expected, both / expected if expected else np.nan, _upper(cells, both))
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=list(OVERLAPS[:-1]))
    return table.assign(bh_in_layers=false_discovery_control(table["p_in_layers"].to_numpy(float)))


def _upper(cells: list[tuple[int, int, int]], both: int) -> float:
    """P(overlap >= both) if in every cell the neurons of one set are drawn at random."""
    from scipy.stats import hypergeom

    whole = np.ones(1)
    for a, b, n in cells:
        whole = np.convolve(whole, hypergeom.pmf(np.arange(min(a, b) + 1), n, a, b))
    return float(min(1.0, whole[both:].sum()))


def _shapes(neurons: NeuronSet) -> dict[Site, tuple[int, int]]:
    return dict(neurons.shapes)
