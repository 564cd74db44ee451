"""Random controls: sets that match a set in everything but the claim.

A claim about neurons is a claim against chance. `matched_random` draws a set with the same number of neurons in every site and layer; given
`like`, also with the same distribution of how often they are active, because frequent neurons break more when they are switched off.
Draws include the neurons of the target itself, so that under the null hypothesis "these neurons are nothing special" the target is
exchangeable with its controls and `p_value` is exact:

    p = (1 + number of draws at least as extreme) / (1 + number of draws)
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..neurons import NeuronSet
from ..sites import Site
from ..stats import Moments

_BINS = 10


def matched_random(
    neurons: NeuronSet,
    *,
    like: Moments | Mapping[Site, Float[Tensor, "layer width"]] | None = None,
    exclude: NeuronSet | None = None,
    generator: torch.Generator,
) -> NeuronSet:
    """A random set with as many neurons per site and layer.

    Args:
        neurons: The set to match.
        like: Activation frequencies to match too, in ten bins of equal size per layer: `Moments`, or [layer, width] per site.
        exclude: Neurons never drawn.
        generator: Source of randomness, on any device; the same generator state gives the same set.

    Raises:
        ValueError: Too few neurons are left to draw from, or `like` lacks a site.
    """
    masks = {}
    for site, mask in neurons.masks.items():
        frequency = _frequency(like, site)
        banned = exclude.masks[site] if exclude is not None and site in exclude.masks else torch.zeros_like(mask)
        masks[site] = torch.stack(
            [
                _draw(
                    mask[i],
                    banned[i],
                    None if frequency is None else frequency[i],
                    generator,
                    f"site {site!r}, layer {i}",
                )
                for i in range(len(mask))
            ]
        )
    return NeuronSet(masks, model=neurons.model)


def _frequency(like: Moments | Mapping[Site, Tensor] | None, site: Site) -> Tensor | None:
    if like is None:
        return None
    known = like.positive if isinstance(like, Moments) else like
    if site not in known:
        raise ValueError(
            f"like has no activation frequencies for site {site!r}, only {', '.join(known)}: measure moments({site!r}) too"
        )
    return known[site]


def _draw(chosen: Tensor, banned: Tensor, frequency: Tensor | None, generator: torch.Generator, where: str) -> Tensor:
    """A mask with as many True as `chosen`, in each frequency bin."""
    width = len(chosen)
    bins = torch.zeros(width, dtype=torch.long)
    if frequency is not None:
        rank = frequency.cpu().double().argsort(stable=True).argsort(stable=True)
        bins = rank * min(_BINS, width) // width
    drawn = torch.zeros_like(chosen)
    for b in bins[chosen].unique().tolist():
        need = int((chosen & (bins == b)).sum())
        pool = ((bins == b) & ~banned).nonzero().flatten()
        if len(pool) < need:
            raise ValueError(
                f"{where}: {need} neurons to match but only {len(pool)} to draw from; exclude fewer, or do not match frequencies"
            )
        order = torch.randperm(len(pool), generator=generator, device=generator.device).cpu()
        drawn[pool[order[:need]]] = True
    return drawn


def p_value(observed: float, draws: Sequence[float], *, larger: bool = True) -> float:
    """Empirical one-sided p-value of an observation among random draws.

    Args:
        observed: The statistic of the target.
        draws: The statistic of each random control.
        larger: Whether a larger value is more extreme.

    Raises:
        ValueError: There is no draw.
    """
    if not len(draws):
        raise ValueError("a p-value needs random draws: give at least one, better ten or more")
    extreme = sum((d >= observed) if larger else (d <= observed) for d in draws)
    return (1 + extreme) / (1 + len(draws))
