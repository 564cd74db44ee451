"""LAPE: neurons that fire in few languages (Tang et al. 2024, "Language-Specific Neurons", arXiv 2402.16438).

With P[l,j,k] the share of the tokens of language k on which unit (l, j) is above zero, and Q its distribution over the K languages,

    Q[l,j,:] = P[l,j,:] / sum_k P[l,j,k]          LAPE[l,j] = - sum_k Q ln Q          (natural logarithm, 0 ln 0 = 0, between 0 and ln K)

A low LAPE says that the unit fires in few languages; exp(LAPE) is how many, roughly (`effective_languages`). The selection is that of the
released script (RUCAIBox/Language-Specific-Neurons, fdeca23; defaults 0.01, 0.95, 0.95):

    1. threshold = the round(L N K 0.95)-th smallest of all P, over layers, units and languages: an order statistic, not interpolated
    2. a unit without a language P > threshold (strictly) is out, before any ranking: a dead unit has LAPE 0, the lowest there is
    3. of the rest, the round(L N 0.01) lowest LAPE are chosen; L N counts all units, so the number is fixed by the architecture
    4. bar = the same order statistic at `bar_rate`; a chosen unit joins EVERY language with P > bar (strictly), so the lists overlap

What is counted is act(gate) > 0, before it multiplies up (`ffn_act`; same sign on `ffn_gate`), not the sign of the product (`ffn`).

Departures from the released code: a language without units keeps its (empty) set, wherever it stands in the order; with fewer survivors of
step 2 than step 3 asks for, all survivors are taken and a warning says so (the released code fills up with units that did not survive);
one language, which makes every LAPE 0, is an error; ties at the cut go to the lower layer, then the lower unit.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from ..neurons import NeuronSet
from .inputs import AnyMoments, documents_of, neuron_sets, require_several, site_of

_RESOLVED = 1000
"""Tokens per language that settle a share of 1/2: standard error 0.016, agreement with the truth 0.89 (Jaccard; 0.81 at 300, 0.96 at 10k)."""

_DOCUMENTS = 40


@dataclass(frozen=True, eq=False)
class Selection:
    """Which units were chosen, and why."""

    lists: Bool[Tensor, "lang layer width"]
    """Per language, the chosen units with P above the bar."""
    threshold: float
    """Of the filter: a unit needs a language with P above it; 0 without a filter."""
    bar: float
    """A chosen unit joins every language with P above it."""
    survivors: int
    """Units that pass the filter."""
    chosen: Bool[Tensor, "layer width"]
    """The survivors of lowest score."""
    score: Float[Tensor, "layer width"]
    """The score of every unit, survivor or not."""


def lape(
    moments: Mapping[str, AnyMoments],
    *,
    rate: float = 0.01,
    filter_rate: float = 0.95,
    bar_rate: float = 0.95,
    site: str | None = None,
    per: str = "token",
) -> dict[str, NeuronSet]:
    """The language-specific neurons of each language, by LAPE.

    Warns when a language has too few tokens for the filter. A share at the threshold t, estimated from n tokens, has a standard error of
    sqrt(t (1 - t) / n); n = 1000 max(1, (1 - t) / t) keeps it below 0.016 and below 3.2 % of t. The warning gives that n.

    Args:
        moments: Per language, `Moments` or `DocumentMoments` of one model; the order of languages is kept.
        rate: Share of all units to choose.
        filter_rate: Quantile of all P that a unit must exceed in some language.
        bar_rate: Quantile of all P above which a chosen unit belongs to a language.
        site: Where to count; default `ffn_gate` or `ffn_act`, whichever was measured.
        per: `"token"`: P is a share of tokens. `"document"`: the mean over documents of each document's share, so that a long document
            weighs no more than a short one (needs `DocumentMoments`).

    Returns:
        A set per language, on the units' site (`ffn` for the FFN sites); languages without units have an empty set.

    Raises:
        ValueError: Fewer than two languages, statistics of different models or shapes, no suitable site, or a rate outside (0, 1).
    """
    require_several(moments, "LAPE")
    p = probabilities(moments, site=site, per=per)
    found = select(p, language_entropy(p), rate=rate, filter_rate=filter_rate, bar_rate=bar_rate)
    warn_few_tokens(moments, found.threshold)
    if per == "document":
        _warn_few_documents(moments)
    return neuron_sets(found.lists, moments, site_of(moments, site))


def probabilities(
    moments: Mapping[str, AnyMoments], *, site: str | None = None, per: str = "token"
) -> Float[Tensor, "layer width lang"]:
    """P: how often each unit is above zero in each language, between 0 and 1, float64.

    Args:
        moments: Per language, statistics of one model.
        site: Where to count; default `ffn_gate` if measured, else `ffn_act`, else the only site. A lone `ffn` must be asked for by name:
            it is act(gate) x up on gated models, and has another sign.
        per: As in `lape`. Documents without a kept token do not count.

    Raises:
        ValueError: Languages do not fit together, the site was not measured, or `per="document"` without per-document counts.
    """
    chosen = site_of(moments, site)
    for language, value in moments.items():
        if bool((over := value.counts(chosen) > value.tokens).any()):
            layer, unit = over.nonzero()[0].tolist()
            raise ValueError(
                f"unit {unit} of layer {layer} is positive on {int(value.counts(chosen)[layer, unit])} of {value.tokens} tokens of {language!r}: "
                "these counts are damaged, measure again"
            )
    if per == "token":
        return torch.stack([value.probability(chosen) for value in moments.values()], dim=-1)
    if per != "document":
        raise ValueError(f"per={per!r} is unknown: choose 'token' or 'document'")
    strata = documents_of(moments, "per='document'").values()
    return torch.stack([value.shares(chosen)[value.n > 0].mean(0) for value in strata], dim=-1)


def language_entropy(p: Float[Tensor, "layer width lang"]) -> Float[Tensor, "layer width"]:
    """LAPE: entropy in nats of each unit's distribution over languages; 0 for a unit that is zero everywhere.

    Raises:
        ValueError: An entry is negative or not a number.
    """
    _require_shares(p)
    total = p.sum(-1, keepdim=True)
    q = p / torch.where(total > 0, total, torch.ones_like(total))
    return torch.special.entr(q).sum(-1)


def effective_languages(score: Float[Tensor, "*unit"]) -> Float[Tensor, "*unit"]:
    """exp(LAPE): the number of equally used languages that gives the same entropy, between 1 and K.

    "Specific" is relative: on ten languages the units LAPE selects had a median of 7.8 where all units had 9.7. Report it.
    """
    return score.exp()


def how_many(units: int, rate: float) -> int:
    """How many of `units` a rate selects: rounded, half to even, as in the released code.

    Raises:
        ValueError: The rate is outside (0, 1), or selects nothing.
    """
    require_rate("rate", rate)
    if not (count := round(units * rate)):
        raise ValueError(f"rate={rate} of {units} units selects none: give at least {1 / units:.2g}")
    return count


def order_statistic(values: Tensor, rate: float) -> float:
    """The round(n rate)-th smallest of n values (at least the first): no interpolation, half to even."""
    return values.flatten().kthvalue(max(1, round(values.numel() * rate))).values.item()


def select(
    p: Float[Tensor, "layer width lang"],
    score: Float[Tensor, "layer width"],
    *,
    rate: float = 0.01,
    filter_rate: float | None = 0.95,
    bar_rate: float = 0.95,
) -> Selection:
    """Choose the units of lowest score among those that reach the filter, and give each to every language above the bar.

    Args:
        p: What is compared with filter and bar, at least 0: P, or what a relative of LAPE puts in its place.
        score: What is ranked; the lowest is chosen first, ties go to the lower layer, then the lower unit.
        rate: Share of all units to choose.
        filter_rate: Quantile of `p` that some language must exceed; None: any unit that is not 0 everywhere survives.
        bar_rate: Quantile of `p` above which a chosen unit belongs to a language.

    Raises:
        ValueError: A rate is outside (0, 1) or selects nothing, or `p` or `score` is not a number.
    """
    _require_shares(p)
    if bool(score.isnan().any()):
        raise ValueError(f"{int(score.isnan().sum())} scores are nan: they cannot be ranked")
    count = how_many(score.numel(), rate)
    for name, value in (("filter_rate", filter_rate), ("bar_rate", bar_rate)):
        if value is not None:
            require_rate(name, value)
    threshold = 0.0 if filter_rate is None else order_statistic(p, filter_rate)
    bar = threshold if bar_rate == filter_rate else order_statistic(p, bar_rate)
    alive = (p > threshold).any(-1)
    survivors = int(alive.sum())
    if survivors < count:
        warnings.warn(
            f"only {survivors} units exceed the filter's threshold {threshold:.4g} in some language, fewer than the {count} that "
            f"rate={rate} asks for: all of them are taken. Lower "
            + ("rate" if filter_rate is None else f"filter_rate={filter_rate} or rate"),
            stacklevel=2,
        )
    candidates = rearrange(alive, "layer width -> (layer width)").nonzero().flatten()
    order = rearrange(score, "layer width -> (layer width)")[candidates].sort(stable=True).indices[:count]
    chosen = torch.zeros(score.numel(), dtype=torch.bool)
    chosen[candidates[order]] = True
    chosen = chosen.reshape(score.shape)
    lists = rearrange(p > bar, "layer width lang -> lang layer width") & chosen
    return Selection(lists, threshold, bar, survivors, chosen, score)


def warn_few_tokens(moments: Mapping[str, AnyMoments], threshold: float = 0.5) -> None:
    """Warn of languages whose shares are too coarse to be compared with a threshold of P; the rule is in `lape`."""
    if threshold <= 0:
        warnings.warn(
            "the threshold is 0: that many shares are 0, so every unit that ever fires is above it. Units this sparse need a higher "
            "filter_rate and bar_rate, or more tokens",
            stacklevel=3,
        )
        return
    needed = math.ceil(_RESOLVED * max(1.0, (1 - threshold) / threshold))
    if few := {language: value.tokens for language, value in moments.items() if value.tokens < needed}:
        counts = ", ".join(f"{language} {tokens}" for language, tokens in few.items())
        warnings.warn(
            f"too few tokens for a threshold of {threshold:.3g}: {counts}; {needed} per language are needed to tell shares apart there",
            stacklevel=3,
        )


def _warn_few_documents(moments: Mapping[str, AnyMoments]) -> None:
    """Shares averaged over documents vary with the documents: with 0.1 between them, 40 documents give the same 0.016."""
    if few := {
        language: int((value.n > 0).sum())
        for language, value in moments.items()
        if int((value.n > 0).sum()) < _DOCUMENTS
    }:
        counts = ", ".join(f"{language} {documents}" for language, documents in few.items())
        warnings.warn(
            f"few documents for shares averaged over them: {counts}; give {_DOCUMENTS} per language", stacklevel=3
        )


def _require_shares(p: Tensor) -> None:
    if not bool((p >= 0).all()):  # nan compares as False
        raise ValueError(
            f"shares must be numbers of at least 0: {int((~(p >= 0)).sum())} of {p.numel()} are negative or nan; "
            "for means of activations use lave, which says what it does with their sign"
        )


def require_rate(name: str, rate: float) -> None:
    """Refuse what is no share between 0 and 1."""
    if not 0 < rate < 1:
        raise ValueError(
            f"{name}={rate} is not a share: give a number between 0 and 1, such as {0.01 if name == 'rate' else 0.95}"
        )
