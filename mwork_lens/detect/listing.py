"""Every detector in one list, so that they can be run on the same texts and put on trial (`trial.py`); a detector is added by listing it.

A detector is a statistic to measure, a score per neuron and language computed from it, and its own selection. A selection rule is not a score, so
where a paper gives only the rule, the score is the quantity the rule cuts:

    PLND, first order, attribution   mean importance over the language's documents (`signed`: with its sign)
    LAP                              P, the share of tokens on which the unit is above zero
    LAPE, LAVE                       (ln K - entropy) x the language's share of the unit's sum over languages; 0 for units the filter stops
    AP                               average precision (its selection takes both ends, the score only the upper one)
    random                           uniform; as many drawn as attribution selects, by layer

LAPE ranks units and gives each to languages by a bar: the product above is ours, and orders a language's units as closely to that as one number can.
PLND and attribution look at one language at a time; `contrasted` subtracts the mean of the other languages, as their selection subtracts the sets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..collect import document_moments
from ..corpora import Corpus
from ..measure import measure
from ..neurons import NeuronSet
from ..sites import Site, unit_site
from ..stats import Importances, Statistic
from ..storage import content_hash
from .ap import ap, average_precisions
from .attribution import attribution
from .chance import chance
from .inputs import site_of
from .lap import lap
from .lape import language_entropy, lape, order_statistic, probabilities
from .lave import activation_values, lave
from .plnd import importances, plnd, specific

Scores = Mapping[str, Mapping[Site, Float[Tensor, "layer width"]]]
"""Per language and site a number per neuron; higher: more of the language's."""


@dataclass(frozen=True)
class Detector:
    """A way to find a language's neurons."""

    name: str
    statistic: Statistic[Any]
    """What it measures; detectors with equal parameters share one pass."""
    score: Callable[[Mapping[str, Any]], Scores]
    """From the statistics per language to a score per neuron and language."""
    select: Callable[[Mapping[str, Any]], Mapping[str, NeuronSet]]
    """From the same to its sets."""


@dataclass(frozen=True)
class Outcome:
    """What detectors found on some texts."""

    scores: Mapping[str, Scores]
    """Per detector."""
    chosen: Mapping[str, Mapping[str, NeuronSet]]
    """Per detector, its sets per language."""


def detectors(
    *,
    sites: tuple[Site, ...] = ("q", "k", "v", "z", "ffn"),
    top: float | Mapping[str, float] = 0.1,
    consensus: float = 0.9,
    rate: float = 0.05,
    length: int | None = None,
    seed: int = 0,
) -> tuple[Detector, ...]:
    """All detectors that work on activations and gradients of one model.

    Args:
        sites: Of those that look at attention and FFN (LAPE and its family look at the FFN).
        top: Share of each layer's units that counts as the top of a document.
        consensus: Share of documents whose top must contain a unit. (The paper has 1.0, which leaves few units on many documents.)
        rate: Share of all units that LAPE, LAVE and AP choose.
        length: Tokens per document at most.
        seed: Of the random control.
    """
    strata = document_moments("ffn_act", length=length)

    def select(stats: Mapping[str, Importances]) -> dict[str, NeuronSet]:
        return specific(plnd(stats, consensus=consensus))

    def importance(**how: Any) -> Statistic[Any]:
        return importances(sites=sites, top=top, length=length, **how)

    causal = attribution(sites=sites, top=top, length=length)
    return (
        Detector("PLND", importance(), means, select),
        Detector("PLND (released)", importance(measure="released"), means, select),
        Detector("first order", importance(measure="attention", exact="never"), means, select),
        Detector("attribution", causal, means, select),
        Detector("attribution (signed)", replace(causal, signed=True), means, select),
        Detector("LAPE", strata, _lape_scores, lambda stats: lape(stats, rate=rate)),
        Detector("LAVE", strata, _lave_scores, lambda stats: lave(stats, rate=rate)),
        Detector("LAP", strata, _lap_scores, lap),
        Detector("AP", strata, average_precisions, lambda stats: ap(stats, rate=rate)),
        Detector(
            "random",
            causal,
            lambda stats: _noise(stats, seed),
            lambda stats: chance(select(stats), seed=seed),
        ),
    )


def contrasted(detector: Detector) -> Detector:
    """The detector with each language's score less the mean of the other languages' scores; its selection stays."""

    def score(stats: Mapping[str, Any]) -> Scores:
        own = detector.score(stats)
        if len(own) < 2:
            raise ValueError(f"a contrast needs another language: {detector.name} has only {', '.join(own)}")
        return {
            language: {
                site: values - torch.stack([own[other][site] for other in own if other != language]).mean(0)
                for site, values in by_site.items()
            }
            for language, by_site in own.items()
        }

    return replace(detector, name=f"{detector.name}, contrast", score=score)


def detect(
    model: Any,
    corpora: Mapping[str, Corpus],
    listed: Sequence[Detector] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Outcome:
    """Run detectors on the same texts; each statistic is measured once.

    Args:
        model: What `load_model` returned.
        corpora: Documents per language.
        listed: Which detectors; default `DETECTORS`.
        out: Folder in which each statistic gets one; None keeps nothing on disk.
        resume: Use what is finished there.
        progress: Show progress bars.

    Raises:
        ValueError: No detector, or two of one name; what a detector refuses.
    """
    listed = DETECTORS if listed is None else listed
    names = [detector.name for detector in listed]
    if not names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise ValueError(
            f"two detectors are called {twice!r}: rename one" if names else "no detector: list at least one"
        )
    measured: dict[str, Mapping[str, Any]] = {}
    scores, chosen = {}, {}
    for detector in listed:
        key = content_hash(detector.statistic.parameters())[:12]
        if key not in measured:
            folder = None if out is None else Path(out) / key
            again = resume and folder is not None and folder.exists()
            measured[key] = measure(model, corpora, detector.statistic, out=folder, resume=again, progress=progress)
        scores[detector.name] = detector.score(measured[key])
        chosen[detector.name] = detector.select(measured[key])
    return Outcome(scores, chosen)


def means(stats: Mapping[str, Importances]) -> Scores:
    """Mean importance of every neuron."""
    return {language: {site: seen.mean(site) for site in seen.total} for language, seen in stats.items()}


def _share_of_language(p: Float[Tensor, "layer width lang"], filter_rate: float = 0.95) -> Tensor:
    """Negentropy times the language's share, where some language passes LAPE's filter."""
    total = p.sum(-1, keepdim=True)
    share = p / torch.where(total > 0, total, torch.ones_like(total))
    alive = (p > order_statistic(p, filter_rate)).any(-1, keepdim=True)
    return torch.where(alive, (math.log(p.shape[-1]) - language_entropy(p))[..., None] * share, torch.zeros_like(p))


def _by_language(stats: Mapping[str, Any], values: Float[Tensor, "layer width lang"], site: Site) -> Scores:
    return {language: {unit_site(site): values[..., k]} for k, language in enumerate(stats)}


def _lape_scores(stats: Mapping[str, Any]) -> Scores:
    return _by_language(stats, _share_of_language(probabilities(stats)), site_of(stats, None))


def _lave_scores(stats: Mapping[str, Any]) -> Scores:
    return _by_language(stats, _share_of_language(activation_values(stats)), site_of(stats, None, ("ffn_act",)))


def _lap_scores(stats: Mapping[str, Any]) -> Scores:
    return _by_language(stats, probabilities(stats), site_of(stats, None))


def _noise(stats: Mapping[str, Importances], seed: int) -> Scores:
    found = {}
    for language, seen in stats.items():
        generator = torch.Generator().manual_seed(int(content_hash(seed, language)[:8], 16))
        found[language] = {
            site: torch.rand(values.shape, generator=generator, dtype=torch.double)
            for site, values in seen.total.items()
        }
    return found


DETECTORS = detectors()
"""With their defaults."""
