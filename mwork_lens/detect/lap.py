"""LAP: neurons that are active in a language nearly always (baseline of Tang et al. 2024, arXiv 2402.16438).

With P[l,j,k] the share of the tokens of language k on which unit (l, j) is above zero, a unit belongs to language k if P is high there. No code was
released, and the paper's "above 95 %" has two readings:

    absolute     P[l,j,k] > 0.95
    percentile   P[l,j,k] > the round(L N 0.95)-th smallest P of language k: among the 5 % of units that are most active in k

Neither asks about other languages, nor fixes the number of units: a unit that always fires belongs to every language.
"""

from collections.abc import Mapping

import torch

from ..neurons import NeuronSet
from .inputs import AnyMoments, neuron_sets, site_of
from .lape import order_statistic, probabilities


def lap(
    moments: Mapping[str, AnyMoments],
    *,
    reading: str = "absolute",
    bar: float = 0.95,
    site: str | None = None,
    per: str = "token",
) -> dict[str, NeuronSet]:
    """The units whose activation probability is above the bar, per language.

    Args:
        moments: Per language, `Moments` or `DocumentMoments` of one model.
        reading: What the bar is: a probability (the default, the plain reading), or a quantile of that language's units.
        bar: Exceeded strictly, so a unit that never fires is never selected.
        site: Where to count; default as in `lape`.
        per: As in `lape`.

    Returns:
        A set per language, in the order given; languages without units have an empty set.

    Raises:
        ValueError: Languages do not fit together, no suitable site, an unknown reading, or a bar outside (0, 1).
    """
    if reading not in ("absolute", "percentile"):
        raise ValueError(
            f"reading={reading!r} is unknown: choose 'absolute' (P > bar) or 'percentile' (of the language's units)"
        )
    if not 0 < bar < 1:
        raise ValueError(f"bar={bar} is not a share: give a number between 0 and 1, such as 0.95")
    p = probabilities(moments, site=site, per=per)
    bars = [bar if reading == "absolute" else order_statistic(p[..., k], bar) for k in range(p.shape[-1])]
    lists = torch.stack([p[..., k] > of_language for k, of_language in enumerate(bars)])
    return neuron_sets(lists, moments, site_of(moments, site))
