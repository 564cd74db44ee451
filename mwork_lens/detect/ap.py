"""AP: neurons whose activation tells a language from the others (Kojima et al. 2024, arXiv 2404.02431; after Cuadros et al. 2022).

Each document gives one number per unit, the mean activation over its tokens. Documents sorted by it, largest first, are a ranking, and the
average precision of "this document is in language k" against all other languages says how well the unit detects k:

    AP = sum_i (R_i - R_{i-1}) P_i          over the distinct values i, with R_i recall and P_i precision at that value (ties enter together)

An AP near 1: the unit is high in k. The lowest AP: the unit is low in k. The paper takes 1000 units from the top and 1000 from the bottom of all
units of all linear maps, before any activation function. A constant unit, which detects nothing, has the share of k's documents.

Departures: the sites are those that were measured; the number of units is a share of theirs by default; of tied units those of the
earlier site, lower layer and lower index count as higher.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from ..neurons import NeuronSet
from ..sites import Site, require_sites, unit_site
from ..strata import DocumentMoments
from .inputs import AnyMoments, documents_of, require_several, site_of
from .lape import how_many


def ap(
    moments: Mapping[str, AnyMoments],
    *,
    side: str = "both",
    count: int | None = None,
    rate: float = 0.01,
    sites: Iterable[str] | None = None,
) -> dict[str, NeuronSet]:
    """The units of highest and lowest average precision, per language.

    Args:
        moments: Per language, `DocumentMoments` of one model.
        side: The n/2 of highest and the n/2 of lowest AP together, or one half alone (an odd n gives the top one more).
        count: n; default `rate` of all units. The paper has 2000.
        rate: Share of all units, if `count` is not given.
        sites: Ranked together; default the one `lape` would count on.

    Returns:
        A set per language, in the order given. Its number of units is fixed: how well they detect the language is in `average_precisions`.

    Raises:
        ValueError: Fewer than two languages, languages that do not fit together, sums without documents, a site that was not measured, two FFN
            sites (they name the same units), an unknown side, or a count that does not fit.
    """
    if side not in ("both", "top", "bottom"):
        raise ValueError(f"side={side!r} is unknown: choose 'both', 'top' or 'bottom'")
    scores = average_precisions(moments, sites=sites)
    model = next((value.model for value in moments.values() if value.model is not None), None)
    return {language: _extremes(by_site, side, count, rate, model) for language, by_site in scores.items()}


def average_precisions(
    moments: Mapping[str, AnyMoments], *, sites: Iterable[str] | None = None
) -> dict[str, dict[Site, Float[Tensor, "layer width"]]]:
    """Average precision of every unit for every language, between 0 and 1, by the site that names the units.

    Documents without a kept token do not count.

    Raises:
        ValueError: What `ap` refuses of its statistics.
    """
    require_several(moments, "AP")
    strata = documents_of(moments, "AP")
    asked = [None] if sites is None else require_sites(sites)
    chosen: tuple[Site, ...] = tuple(site_of(moments, site) for site in asked)
    if len({unit_site(site) for site in chosen}) < len(chosen):
        raise ValueError(f"sites {', '.join(chosen)} look at the same FFN units: give one of them")
    used = {language: value.n > 0 for language, value in strata.items()}
    origin = torch.cat([torch.full((int(kept.sum()),), k) for k, kept in enumerate(used.values())])
    labels = torch.stack([origin == k for k in range(len(strata))])
    found: dict[str, dict[Site, Tensor]] = {language: {} for language in strata}
    for site in chosen:
        layers = [average_precision(values, labels) for values in _by_layer(strata, used, site)]
        for k, language in enumerate(strata):
            found[language][unit_site(site)] = torch.stack([layer[k] for layer in layers])
    return found


def average_precision(
    values: Float[Tensor, "doc unit"], labels: Bool[Tensor, "lang doc"]
) -> Float[Tensor, "lang unit"]:
    """Average precision of ranking documents by each column of `values`, for each row of labels; float64.

    Raises:
        ValueError: A label row without a document, or values that are not numbers.
    """
    if not bool(labels.any(-1).all()):
        raise ValueError(
            f"label {int((~labels.any(-1)).nonzero()[0])} marks no document: average precision is undefined"
        )
    if bool(values.isnan().any()):
        raise ValueError(f"{int(values.isnan().sum())} document means are nan: they cannot be ranked")
    ranked, order = values.sort(dim=0, descending=True, stable=True)
    documents = len(values)
    position = torch.arange(documents)[:, None].expand_as(ranked)
    # the last document of each group of ties: precision and recall are taken there
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    end = torch.where(last, position, documents).flip(0).cummin(0).values.flip(0)
    rows = []
    for label in labels:
        hit = label[order]
        precision = hit.cumsum(0).double() / (position + 1)
        rows.append((precision.gather(0, end) * hit).sum(0) / label.sum())
    return torch.stack(rows)


def _by_layer(
    strata: Mapping[str, DocumentMoments], used: Mapping[str, Tensor], site: Site
) -> Iterator[Float[Tensor, "doc unit"]]:
    """Mean activation of every document, one layer at a time: float64 copies of all layers would be large."""
    for layer in range(next(iter(strata.values())).total[site].shape[1]):
        yield torch.cat(
            [
                value.total[site][used[language], layer].double() / value.n[used[language], None]
                for language, value in strata.items()
            ]
        )


def _extremes(
    by_site: Mapping[Site, Tensor], side: str, count: int | None, rate: float, model: str | None
) -> NeuronSet:
    """The units at the ends of the ranking over all sites."""
    flat = torch.cat([rearrange(scores, "layer width -> (layer width)") for scores in by_site.values()])
    number = how_many(len(flat), rate) if count is None else count
    if not 2 <= number <= len(flat):
        raise ValueError(
            f"{number} units cannot be the top and bottom halves of {len(flat)}: choose count between 2 and that"
        )
    ranking = flat.sort(descending=True, stable=True).indices
    top, bottom = ranking[: (number + 1) // 2], ranking[len(ranking) - number // 2 :]
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[torch.cat([half for name, half in (("top", top), ("bottom", bottom)) if side in ("both", name)])] = True
    parts = chosen.split([scores.numel() for scores in by_site.values()])
    masks: dict[Site, Tensor] = {
        site: part.reshape(scores.shape) for (site, scores), part in zip(by_site.items(), parts, strict=True)
    }
    return NeuronSet(masks, model=model)
