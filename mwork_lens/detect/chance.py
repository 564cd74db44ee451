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
from ..sites import FFN_SITES, Site, unit_site
from ..stats import Moments
from ..storage import content_hash
from ..strata import DocumentMoments

Like = Moments | DocumentMoments | Mapping[Site, Float[Tensor, "layer width"]]

_BINS = 10


def matched_random(
    neurons: NeuronSet,
    *,
    like: Like | None = None,
    exclude: NeuronSet | None = None,
    generator: torch.Generator,
) -> NeuronSet:
    """A random set with as many neurons per site and layer.

    Args:
        neurons: The set to match.
        like: Activation frequencies to match too, in ten bins of equal size per layer: `Moments`, or [layer, width] per site. Those of FFN
            units are taken from `ffn`, `ffn_gate` or `ffn_act`, whichever was measured.
        exclude: Neurons never drawn.
        generator: Source of randomness, on any device; the same generator state gives the same set.

    Raises:
        ValueError: Too few neurons are left to draw from, or `like` lacks a site.
    """
    masks = {}
    for site, mask in neurons.masks.items():
        frequency = _frequency(like, site)
        banned = _banned(exclude, site, mask)
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


def chance(
    sets: Mapping[str, NeuronSet],
    *,
    match: str = "layer",
    moments: Mapping[str, Moments | DocumentMoments] | None = None,
    among: NeuronSet | None = None,
    seed: int = 0,
) -> dict[str, NeuronSet]:
    """The random baseline as a detector: for each language as many neurons as it has, drawn at random.

    Args:
        sets: What a detector found.
        match: `site`: as many in each site, wherever; `layer`: in each site and layer; `frequency`: and as often active in the language.
        moments: Per language, for `frequency`.
        among: Neurons to draw from, such as those a detector's filter lets pass; default all.
        seed: Of the draw; languages draw independently.

    Raises:
        ValueError: `match` is unknown, a language has no moments, or there are too few neurons to draw from.
    """
    if match not in ("site", "layer", "frequency"):
        raise ValueError(f"match={match!r}: choose site, layer or frequency")
    drawn = {}
    for language, neurons in sets.items():
        generator = torch.Generator().manual_seed(int(content_hash(seed, language)[:8], 16))
        exclude = None if among is None else ~among
        like = None
        if match == "frequency":
            if moments is None or language not in moments:
                raise ValueError(
                    f"match='frequency' needs moments of {language!r}: there are {', '.join(moments or {}) or 'none'}"
                )
            like = moments[language]
        if match == "site":
            drawn[language] = _anywhere(neurons, exclude, generator)
        else:
            drawn[language] = matched_random(neurons, like=like, exclude=exclude, generator=generator)
    return drawn


def _anywhere(neurons: NeuronSet, exclude: NeuronSet | None, generator: torch.Generator) -> NeuronSet:
    """As many in each site, in whatever layer: the layers of a site as one long one."""
    masks = {}
    for site, mask in neurons.masks.items():
        banned = _banned(exclude, site, mask)
        masks[site] = _draw(mask.flatten(), banned.flatten(), None, generator, f"site {site!r}").reshape(mask.shape)
    return NeuronSet(masks, model=neurons.model)


def _banned(exclude: NeuronSet | None, site: Site, mask: Tensor) -> Tensor:
    """Units never drawn; an FFN unit is the same unit at whichever FFN site a set names it."""
    banned = torch.zeros_like(mask)
    for name, held in (exclude.masks if exclude is not None else {}).items():
        if unit_site(name) == unit_site(site):
            banned |= held
    return banned


def _frequency(like: Like | None, site: Site) -> Tensor | None:
    """How often each unit is active; that of FFN units may have been counted at any of the FFN sites, best where the gate is."""
    if like is None:
        return None
    known = tuple(like) if isinstance(like, Mapping) else like.sites
    places = [name for name in (site, "ffn_gate", "ffn_act") if name in known] if site in FFN_SITES else [site]
    if not places or places[0] not in known:
        raise ValueError(
            f"like has no activation frequencies for site {site!r}, only {', '.join(known)}: measure moments({site!r}) too"
        )
    return like[places[0]] if isinstance(like, Mapping) else like.counts(places[0])


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
        ValueError: There is no draw, or a nan.
    """
    if not len(draws):
        raise ValueError("a p-value needs random draws: give at least one, better ten or more")
    if any(value != value for value in (observed, *draws)):
        raise ValueError("a p-value of nan: a condition without a score compares with nothing; leave it out")
    extreme = sum((d >= observed) if larger else (d <= observed) for d in draws)
    return (1 + extreme) / (1 + len(draws))
