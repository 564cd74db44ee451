"""What the methods that compare languages ask of their statistics: one model, the same sites and shapes, tokens in every language.

Shared by LAPE and its relatives; each function refuses with the language, the value and the cure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from ..neurons import NeuronSet
from ..sites import FFN_SITES, Site, require_sites, unit_site
from ..stats import Moments
from ..strata import DocumentMoments

AnyMoments = Moments | DocumentMoments


def site_of(
    moments: Mapping[str, AnyMoments], site: str | None, prefer: Sequence[Site] = ("ffn_gate", "ffn_act")
) -> Site:
    """The site a method reads: the one asked for, else the first of `prefer` that was measured, else the only one, if no FFN site.

    Raises:
        ValueError: Languages do not fit together, or the site is unknown, was not measured, or must be named.
    """
    sites = require_comparable(moments)
    if site is not None:
        chosen = require_sites([site])[0]
        if chosen not in sites:
            raise ValueError(f"site {site!r} was not measured, only {', '.join(sites)}: measure moments({site!r})")
        return chosen
    for preferred in prefer:
        if preferred in sites:
            return preferred
    others: list[Site] = [name for name in sites if name not in FFN_SITES]
    if len(sites) == 1 and others:
        return others[0]
    wanted = " or ".join(map(repr, prefer))
    raise ValueError(
        f"only {', '.join(sites)} was measured, not {wanted}: measure moments({prefer[-1]!r}), or name the site to use, such as "
        f"site={sites[0]!r}, if that is what you mean"
    )


def require_comparable(moments: Mapping[str, Any]) -> tuple[Site, ...]:
    """Refuse languages whose statistics do not compare; returns the sites that all have.

    Raises:
        ValueError: No language, other models (so other tokenizers), other sites or shapes, or a language without tokens.
        TypeError: A value is no such statistic.
    """
    if not moments:
        raise ValueError("no language given: pass a mapping of language to Moments, such as measure(...) returns")
    first, reference = next(iter(moments.items()))
    known: tuple[str, str] | None = None
    for language, value in moments.items():
        if not isinstance(value, Moments | DocumentMoments):
            raise TypeError(
                f"statistics of {language!r} must be Moments or DocumentMoments, got {type(value).__name__}"
            )
        if value.model is not None and known is not None and value.model != known[1]:
            raise ValueError(
                f"statistics of {known[0]!r} and {language!r} come from different models or tokenizers ({known[1]}, {value.model}): "
                "shares of tokens compare only under one; measure all languages with the same model"
            )
        known = known or ((language, value.model) if value.model is not None else None)
        if set(value.sites) != set(reference.sites):
            raise ValueError(
                f"{first!r} was measured at {', '.join(reference.sites)}, {language!r} at {', '.join(value.sites)}: measure the same sites"
            )
        for site in reference.sites:
            mine, yours = (list(one.positive[site].shape[-2:]) for one in (reference, value))
            if mine != yours:
                raise ValueError(
                    f"{first!r} and {language!r} differ in site {site!r}: [layer, width] {mine} vs {yours}; measure both on one model"
                )
        if not value.tokens:
            raise ValueError(f"statistics of {language!r} hold no token: give it texts, or leave it out")
    return reference.sites


def require_several(moments: Mapping[str, Any], method: str) -> None:
    """Refuse fewer than two languages.

    Raises:
        ValueError: Nothing to compare a language with.
    """
    if len(moments) < 2:
        raise ValueError(
            f"{method} compares languages and got {', '.join(moments) or 'none'}: with one, every score is 0; give two or more"
        )


def documents_of(moments: Mapping[str, AnyMoments], what: str) -> dict[str, DocumentMoments]:
    """The statistics as per-document ones.

    Raises:
        ValueError: A language has sums over all documents only.
    """
    found = {language: value for language, value in moments.items() if isinstance(value, DocumentMoments)}
    if lacking := [language for language in moments if language not in found]:
        raise ValueError(
            f"{what} needs statistics per document, and {lacking[0]!r} has Moments over all of them: "
            "measure document_moments(...) instead of moments(...)"
        )
    return found


def neuron_sets(
    lists: Bool[Tensor, "lang layer width"], moments: Mapping[str, AnyMoments], site: Site
) -> dict[str, NeuronSet]:
    """One set per language, on the site that names the units."""
    model = next((value.model for value in moments.values() if value.model is not None), None)
    return {
        language: NeuronSet({unit_site(site): mask}, model=model) for language, mask in zip(moments, lists, strict=True)
    }
