"""LAPE with a reward for being active: the score of NJUNLP/Language-Neurons-Alignment (Zhang et al. 2025, arXiv 2505.21505).

    score[l,j] = LAPE[l,j] / ln K  -  lambda * max_k P[l,j,k] / (H_K / K)          H_K = 1 + 1/2 + ... + 1/K,  lambda = 0.109375

H_K / K is the mean share of the largest of K random parts of 1, so the penalty is in multiples of what chance gives. The round(L N 0.01) lowest
scores are chosen out of all units: the reward replaces LAPE's filter. Membership is LAPE's (P above the 0.95 order statistic of all P).
Their sets are language-related rather than language-specific: Jaccard 0.36 with LAPE's on the same counts of Mistral.
Their lambda is the largest at which no chosen unit belongs to all ten languages; it is a setting of one model and language set, not a constant.

A unit that never fires has score 1, the highest, as in the released code (which counts it as uniform), and is never chosen.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..neurons import NeuronSet
from .inputs import AnyMoments, neuron_sets, require_several, site_of
from .lape import language_entropy, probabilities, select, warn_few_tokens


def penalised(
    moments: Mapping[str, AnyMoments],
    *,
    penalty: float = 0.109375,
    rate: float = 0.01,
    bar_rate: float = 0.95,
    site: str | None = None,
    per: str = "token",
) -> dict[str, NeuronSet]:
    """The language neurons of each language, by penalised entropy.

    A chosen unit may be above the bar in no language and then belongs to none; warns when a language has too few tokens, as `lape` does.

    Args:
        moments: Per language, statistics of one model.
        penalty: lambda; 0 ranks by LAPE without its filter.
        rate: Share of all units to choose.
        bar_rate: Quantile of all P above which a chosen unit belongs to a language.
        site: Where to count; default as in `lape`.
        per: As in `lape`.

    Returns:
        A set per language, on the units' site; languages without units have an empty set.

    Raises:
        ValueError: Fewer than two languages, languages that do not fit together, no suitable site, a negative penalty, or a rate outside (0, 1).
    """
    require_several(moments, "penalised entropy")
    p = probabilities(moments, site=site, per=per)
    found = select(p, penalised_entropy(p, penalty=penalty), rate=rate, filter_rate=None, bar_rate=bar_rate)
    warn_few_tokens(moments, found.bar)
    return neuron_sets(found.lists, moments, site_of(moments, site))


def penalised_entropy(
    p: Float[Tensor, "layer width lang"], *, penalty: float = 0.109375
) -> Float[Tensor, "layer width"]:
    """The score above of each unit: at most 1, lower for units active in few languages and often.

    Raises:
        ValueError: Fewer than two languages, a negative penalty, or shares that are negative or nan.
    """
    if penalty < 0:
        raise ValueError(f"penalty={penalty} would reward units that never fire: give 0 or more, such as 0.109375")
    languages = p.shape[-1]
    if languages < 2:
        raise ValueError(f"penalised entropy compares languages and got {languages}: give two or more")
    harmonic = sum(1 / k for k in range(1, languages + 1))
    score = language_entropy(p) / math.log(languages) - penalty * p.amax(-1) / (harmonic / languages)
    return torch.where(p.amax(-1) > 0, score, torch.ones_like(score))
