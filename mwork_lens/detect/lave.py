"""LAVE: LAPE with the mean activation in place of the activation probability (baseline of Tang et al. 2024, arXiv 2402.16438).

    A[l,j,k] = mean of act(gate) of unit (l, j) over the tokens of language k        LAVE[l,j] = entropy of A[l,j,:] / sum_k A[l,j,k]

then filter, ranking and membership as in LAPE, with A for P. A mean of SiLU or GELU can be negative, and then it is no distribution; no code
was released, so what happens to the sign is a parameter:

    rectified   E[max(a, 0)]     the default: never negative, 0 exactly for a unit that never fires, and no firing token is lost
    clamp       max(E[a], 0)     drops a unit that fires strongly on few tokens, where its negative tail outweighs them
    absolute    |E[a]|           counts a unit that is silent (SiLU down to -0.28, GELU to -0.17) as active

The filter compares means across units and layers, so layers with larger activations provide more survivors.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..neurons import NeuronSet
from ..strata import DocumentMoments
from .inputs import AnyMoments, neuron_sets, require_several, site_of
from .lape import language_entropy, select, warn_few_tokens

_SIGNS = ("rectified", "clamp", "absolute")


def lave(
    moments: Mapping[str, AnyMoments],
    *,
    sign: str = "rectified",
    rate: float = 0.01,
    filter_rate: float = 0.95,
    bar_rate: float = 0.95,
    site: str | None = None,
) -> dict[str, NeuronSet]:
    """The language-specific neurons of each language, by the entropy of mean activations.

    Warns when a language has fewer than 1000 tokens.

    Args:
        moments: Per language, statistics of one model; `sign="rectified"` needs `Moments`, or whole `DocumentMoments`.
        sign: What is done to negative activations, see above.
        rate: Share of all units to choose.
        filter_rate: Quantile of all means that a unit must exceed in some language.
        bar_rate: Quantile of all means above which a chosen unit belongs to a language.
        site: Whose mean; default `ffn_act`. The pre-activation `ffn_gate` must be asked for by name.

    Returns:
        A set per language, on the units' site; languages without units have an empty set.

    Raises:
        ValueError: Fewer than two languages, languages that do not fit together, no suitable site, an unknown sign, or a rate outside (0, 1).
    """
    require_several(moments, "LAVE")
    values = activation_values(moments, sign=sign, site=site)
    found = select(values, language_entropy(values), rate=rate, filter_rate=filter_rate, bar_rate=bar_rate)
    warn_few_tokens(moments)
    return neuron_sets(found.lists, moments, site_of(moments, site, ("ffn_act",)))


def activation_values(
    moments: Mapping[str, AnyMoments],
    *,
    sign: str = "rectified",
    site: str | None = None,
) -> Float[Tensor, "layer width lang"]:
    """Mean activation of each unit in each language, made non-negative; float64, in the unit of the activation.

    Raises:
        ValueError: An unknown sign, `rectified` of documents taken out, or what `lave` refuses.
    """
    if sign not in _SIGNS:
        raise ValueError(f"sign={sign!r} is unknown: choose from {', '.join(_SIGNS)}")
    chosen = site_of(moments, site, ("ffn_act",))
    columns = []
    for language, value in moments.items():
        if sign == "rectified":
            if isinstance(value, DocumentMoments):
                if value.pooled is None:
                    raise ValueError(
                        f"sign='rectified' needs the sum of the positive part, which is lost where documents were taken out ({language!r}): "
                        "give all documents that were measured, or choose sign='clamp'"
                    )
                value = value.pooled
            columns.append(value.rectified[chosen].double() / value.n)
        else:
            mean = value.mean(chosen).double()
            columns.append(mean.clamp_min(0) if sign == "clamp" else mean.abs())
    return torch.stack(columns, dim=-1)
