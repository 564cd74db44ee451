"""PROBELESS: units whose mean differs between labels, without a probe (Antverg & Belinkov 2022, "On the Pitfalls of Analyzing Individual Neurons").

With mu_l the mean activation of a unit on the examples of label l, the released code scores a unit by the sum over pairs of labels

    score = sum_{l < m} |mu_l - mu_m|

and, for one label against the others, as used for facts by Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189),

    score_l = 1 / (L - 1) * sum_{m != l} |mu_l - mu_m|

Here labels are languages, and the second form is what `probeless` ranks. Both come from a sort: with a unit's values in ascending order
y_0 .. y_{L-1}, prefix sums P_k = y_0 + ... + y_k and total P,

    (L - 1) score_k = y_k (2k + 2 - L) + P - 2 P_k            O(L log L) per unit instead of O(L^2)

The absolute value makes high and low deviations count alike; `signed` keeps those that lie above the mean of all labels apart from those
below (ours). Nothing is standardised: a unit that varies much scores high for every label, as in the paper.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..neurons import NeuronSet
from .inputs import AnyMoments, neuron_sets, require_several, site_of
from .lape import how_many


def mean_deviation(values: Float[Tensor, "label unit"], *, signed: bool = False) -> Float[Tensor, "label unit"]:
    """Mean absolute difference of each row to the other rows, per column; float64.

    Args:
        values: One row a label (an example, a fact, a language).
        signed: Give it the sign of the row's difference to the mean of all rows.

    Raises:
        ValueError: Fewer than two rows, or values that are not finite.
    """
    n = len(values)
    if n < 2:
        raise ValueError(
            f"PROBELESS compares a label with others and got {n}: every score would be 0; give two or more"
        )
    x = values.double()
    if not bool(torch.isfinite(x).all()):
        row, unit = (int(i) for i in (~torch.isfinite(x)).nonzero()[0])
        raise ValueError(
            f"the value of row {row}, unit {unit} is {float(x[row, unit])}: load the model with dtype='float32'"
        )
    centre = x.mean(0)
    x = x - centre  # differences do not change, and prefix sums stay small
    y, order = x.sort(dim=0)
    prefix = y.cumsum(0)
    k = torch.arange(n, dtype=torch.double, device=x.device)[:, None]
    score = (y * (2 * k + 2 - n) + prefix[-1] - 2 * prefix).clamp(min=0) / (n - 1)  # rounding may fall below zero
    found = torch.empty_like(score).scatter_(0, order, score)
    return torch.where(x < 0, -found, found) if signed else found


def probeless(
    moments: Mapping[str, AnyMoments], *, rate: float = 0.01, side: str = "both", site: str | None = None
) -> dict[str, NeuronSet]:
    """The units whose mean in a language is farthest from their means in the others.

    Args:
        moments: Per language, statistics of one model.
        rate: Share of all units to choose for each language.
        side: `"both"`, or only units that are `"high"` or `"low"` in the language, against the mean of all languages.
        site: Whose mean; default `ffn`, as in the paper on facts, else the only site.

    Returns:
        A set per language, in the order given. Of tied units those of the lower layer and index come first.

    Raises:
        ValueError: Fewer than two languages, statistics that do not fit together, a site that was not measured, an unknown side, or a rate
            that is outside (0, 1) or selects nothing.
    """
    if side not in ("both", "high", "low"):
        raise ValueError(f"side={side!r} is unknown: choose 'both', 'high' or 'low'")
    chosen = site_of(moments, site, ("ffn",))
    scores = probeless_scores(moments, site=site)
    score = torch.stack(list(scores.values()))
    count = how_many(score[0].numel(), rate)
    ranked = {"both": score.abs(), "high": score, "low": -score}[side].flatten(1)
    lists = torch.zeros_like(ranked, dtype=torch.bool)
    lists.scatter_(1, ranked.sort(dim=1, descending=True, stable=True).indices[:, :count], True)
    return neuron_sets(lists.view_as(score), moments, chosen)


def probeless_scores(
    moments: Mapping[str, AnyMoments], *, site: str | None = None
) -> dict[str, Float[Tensor, "layer width"]]:
    """Mean absolute difference of a unit's mean in a language to its means in the others, with the sign of its deviation; float64.

    Raises:
        ValueError: What `probeless` refuses of its statistics.
    """
    require_several(moments, "PROBELESS")
    chosen = site_of(moments, site, ("ffn",))
    means = torch.stack([value.mean(chosen) for value in moments.values()])
    scores = mean_deviation(means.flatten(1), signed=True).view_as(means)
    return dict(zip(moments, scores, strict=True))
