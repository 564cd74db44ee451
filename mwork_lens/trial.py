"""The detectors on trial: does what a detector finds matter to the language?

A detector gives every neuron a number per language, and selects some. The truth is the causal effect of each neuron alone (`causal.py`), or sets that
are known by construction (*planted*). For language k and its effect e_k per scored token,

    own        e_k                              does the language need the neuron?
    specific   e_k - mean of the other e        does it need it more than the others do?
    magnitude  |e_k|                            does it matter, for better or worse? (all that an unsigned score can know)
    planted    1 in the set, 0 outside

and the *positives* are the `share` of compared neurons with the largest effect (or the planted set). For each detector, language and target:

    spearman   rank correlation of score and effect, over all compared neurons; `within`: in each layer and site, averaged over those, so that
               knowing the important layers earns nothing
    auroc      probability that a positive scores above another neuron, ties half; chance 0.5
    ap         average precision of ranking by score, tied neurons enter together; chance: share of positives
    precision  of the detector's own selection, against the precision of as many random neurons in the same layers and sites
               (`agreement` gives the exact one-sided p; `precision_q` is corrected over detectors and languages: `corrected`)

Only neurons that both sides speak about are compared (`sites`): a detector of FFN neurons is not charged with attention, and its numbers compare with
those of others only where `sites` are equal; pass `sites=["ffn"]` for that. Intervals resample the documents of the truth, jointly in all
languages if they are parallel: they say how firm the truth is, not how firm the detector; for that see `repeatability`.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import false_discovery_control

from .causal import Effects
from .detect.listing import Scores
from .evaluate import resample
from .neurons import NeuronSet
from .rankings import Cells, auroc, average_precision, flat, interval, spearman
from .robustness.agreement import agreement
from .sites import SITES, Site, require_sites

METRICS = ("spearman", "within", "auroc", "ap", "precision")
TRIAL = (
    "detector", "language", "target", "sites", "units", "positives", *METRICS,
    *(f"{metric}_{end}" for metric in METRICS for end in ("low", "high")),
    "ap_chance", "chosen", "precision_chance", "precision_p", "precision_q",
)  # fmt: skip
"""Columns of `trial`: one row a detector, language and target."""
TARGETS = ("own", "specific", "magnitude")


def trial(
    scores: Mapping[str, Scores],
    truth: Effects | Mapping[str, NeuronSet],
    *,
    chosen: Mapping[str, Mapping[str, NeuronSet]] | None = None,
    targets: Sequence[str] = ("own", "specific"),
    share: float = 0.05,
    sites: Iterable[str] | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Score detectors against the truth.

    Args:
        scores: Per detector and language, a number per neuron; higher means more of the language's.
        truth: `Effects` whose groups are languages (`regroup` renames them), or the true set of each language.
        chosen: Per detector, the sets it selects; those without have no precision.
        targets: Of `TARGETS`; ignored for sets, whose target is `planted`.
        share: Share of the compared neurons that are positives under effects.
        sites: Compare only these; default, for each detector, those that it and the truth speak about.
        resamples: Of the documents of the truth, for 95 % intervals; 0 for none. Sets have none.
        seed: Of the resampling.

    Returns:
        Columns `TRIAL`; nan where something is not defined: rank correlations with sets, a precision of nothing. `precision_q` is `precision_p`
        corrected over all detectors and languages of a target.

    Raises:
        ValueError: No detector; a language the truth lacks; shapes that differ; no common site; scores that are not numbers; an unknown target;
            a share that makes nothing or everything positive; a planted set that is empty or everything; sets of detectors without scores.
    """
    if not scores:
        raise ValueError("no detector on trial: give scores of at least one")
    if unknown := [name for name in chosen or {} if name not in scores]:
        raise ValueError(f"detector {unknown[0]!r} has sets but no scores: it has to give both")
    planted = not isinstance(truth, Effects)
    if not planted and (odd := [target for target in targets if target not in TARGETS]):
        raise ValueError(f"unknown target {odd[0]!r}: choose from {', '.join(TARGETS)}")
    if resamples < 0 or not 0 < share < 1:
        raise ValueError(
            f"share={share} and resamples={resamples}: give a share between 0 and 1, and at least 0 resamples"
        )
    asked = None if sites is None else require_sites(sites)
    known = {language: neurons.shapes for language, neurons in truth.items()} if planted else _shapes(truth)
    drawn = {} if planted else _drawn(truth, resamples, seed)
    rows, cache = [], {}
    for name, by_language in scores.items():
        for language, values in by_language.items():
            common = _common(name, language, values, known, asked)
            cells = Cells(tuple(values[site].shape for site in common))
            score = flat(values, common)
            if not np.isfinite(score).all():
                raise ValueError(
                    f"detector {name!r} gives {int((~np.isfinite(score)).sum())} scores of {language!r} that are no numbers"
                )
            own_set = None if chosen is None or name not in chosen else chosen[name].get(language)
            if own_set is not None:
                _require_fit(name, own_set, values, truth)
            for target in ("planted",) if planted else targets:
                if (common, language, target) not in cache:
                    cache[common, language, target] = (
                        _of_set(truth[language], common, language)
                        if planted
                        else _of_effects(drawn, common, language, target, share)
                    )
                goal = cache[common, language, target]
                rows.append((name, language, target, ", ".join(common), *_row(score, goal, own_set, common, cells)))
    return corrected(pd.DataFrame(rows, columns=[name for name in TRIAL if name != "precision_q"]))


def corrected(table: pd.DataFrame, p: str = "precision_p", *, by: str | None = "target") -> pd.DataFrame:
    """The table with its p-values after Benjamini and Hochberg, as in `agreement`, in a column with q for p (`precision_q`).

    Args:
        table: From `trial`, or several put together: its rows are the family.
        p: Column of p-values; nan is no test.
        by: Column that divides the rows into families, such as the targets, which ask other questions of the same sets; None for one family.
    """
    table = table.reset_index(drop=True)
    tested = table[p].dropna()
    families = table[by].reindex(tested.index) if by else pd.Series(0, tested.index)
    q = pd.Series(np.nan, table.index)
    for _, one in tested.groupby(families):
        q[one.index] = false_discovery_control(one)
    return table.assign(**{f"{p.removesuffix('p')}q": q})


@dataclass(frozen=True)
class _Goal:
    """What is to be found: row 0 as measured, the others resampled."""

    positive: np.ndarray
    effect: np.ndarray | None


def _row(score: np.ndarray, goal: _Goal, chosen: NeuronSet | None, sites: Sequence[Site], cells: Cells) -> tuple:
    """A row from `units` on."""
    positive, blank = goal.positive, np.full(len(goal.positive), np.nan)
    size, expected, p, precision = float("nan"), float("nan"), float("nan"), blank
    if chosen is not None:
        taken = flat({**_nothing(sites, cells), **chosen.masks}, sites) > 0
        size = int(taken.sum())
        if size:
            pair = {"chosen": {"": cells.neurons(taken, sites)}, "truth": {"": cells.neurons(positive[0], sites)}}
            overlap = agreement(pair).iloc[-1]
            precision, expected, p = positive[:, taken].mean(1), overlap["expected"] / size, overlap["p"]
    found = {
        "spearman": blank if goal.effect is None else spearman(goal.effect, score),
        "within": blank if goal.effect is None else cells.within(goal.effect, score),
        "auroc": auroc(score, positive),
        "ap": average_precision(score, positive),
        "precision": precision,
    }
    ends = [end for values in found.values() for end in interval(values[1:])]
    counts = positive.shape[1], int(positive[0].sum())
    return (*counts, *(float(v[0]) for v in found.values()), *ends, float(positive[0].mean()), size, expected, p)


def _nothing(sites: Sequence[Site], cells: Cells) -> dict[Site, torch.Tensor]:
    return {site: torch.zeros(shape, dtype=torch.bool) for site, shape in zip(sites, cells.shapes, strict=True)}


def _shapes(truth: Effects) -> dict[str, dict[Site, tuple[int, int]]]:
    shapes: dict[Site, tuple[int, int]] = {site: (v.shape[0], v.shape[1]) for site, v in truth.effect.items()}
    return dict.fromkeys(truth.groups, shapes)


def _common(
    name: str,
    language: str,
    values: Mapping[Site, torch.Tensor],
    known: Mapping[str, Mapping[Site, tuple[int, int]]],
    asked: Sequence[Site] | None,
) -> tuple[Site, ...]:
    """The sites that the detector and the truth speak about."""
    if language not in known:
        raise ValueError(
            f"detector {name!r} scores {language!r}, of which no truth is known: there are {', '.join(known)}"
        )
    truth = known[language]
    common: tuple[Site, ...] = tuple(s for s in SITES if s in values and s in truth and (asked is None or s in asked))
    if not common:
        wanted = "" if asked is None else f" among {', '.join(asked)}"
        raise ValueError(
            f"detector {name!r} and the truth of {language!r} have no site in common{wanted}: {', '.join(values)} and {', '.join(truth)}"
        )
    for site in common:
        if tuple(values[site].shape) != tuple(truth[site]):
            raise ValueError(
                f"detector {name!r} scores site {site!r} of {language!r} as [layer, width] {list(values[site].shape)}, the truth is "
                f"{list(truth[site])}: take both from one model"
            )
    return common


def _require_fit(
    name: str, chosen: NeuronSet, values: Mapping[Site, torch.Tensor], truth: Effects | Mapping[str, NeuronSet]
) -> None:
    """Refuse sets of another model."""
    model = truth.model if isinstance(truth, Effects) else next((n.model for n in truth.values() if n.model), None)
    if chosen.model and model and chosen.model != model:
        raise ValueError(
            f"detector {name!r} chose neurons of another model ({chosen.model}) than the truth is of ({model}): "
            "run both on one model"
        )
    for site, mask in chosen.masks.items():
        if site in values and mask.shape != values[site].shape:
            raise ValueError(
                f"detector {name!r} chose from {list(mask.shape)} units of site {site!r} and scores {list(values[site].shape)}"
            )


def _drawn(truth: Effects, resamples: int, seed: int) -> dict[str, dict[Site, np.ndarray]]:
    """Mean effect per token and language, [draw unit]: row 0 with every document once, the others resampled."""
    names = {g: [d for d, own in zip(truth.documents, truth.groups, strict=True) if own == g] for g in truth.groups}
    parallel = len({frozenset(documents) for documents in names.values()}) == 1
    found: dict[str, dict[Site, np.ndarray]] = {}
    for language, documents in names.items():
        own = seed if parallel else [seed, zlib.crc32(language.encode())]
        draws = resample(
            len(documents), resamples=resamples, seed=int(np.random.SeedSequence(own).generate_state(1)[0])
        )
        rank = np.argsort(np.argsort(np.array(documents), kind="stable"))  # the order of documents does not matter
        weights = np.concatenate([np.ones((1, len(documents))), draws[:, rank]])
        mine = [i for i, group in enumerate(truth.groups) if group == language]
        tokens = truth.tokens[mine].double().numpy()
        found[language] = {
            site: weights @ values[..., mine].reshape(-1, len(mine)).numpy().T / (weights @ tokens)[:, None]
            for site, values in truth.effect.items()
        }
    return found


def _of_effects(
    drawn: Mapping[str, Mapping[Site, np.ndarray]], sites: Sequence[Site], language: str, target: str, share: float
) -> _Goal:
    effect = np.concatenate([drawn[language][site] for site in sites], axis=1)
    if target == "specific":
        others = [by_site for other, by_site in drawn.items() if other != language]
        if not others:
            raise ValueError(f"the specific effect of {language!r} needs another language: the truth has only this one")
        effect = effect - sum(np.concatenate([by_site[s] for s in sites], axis=1) for by_site in others) / len(others)
    if target == "magnitude":
        effect = np.abs(effect)
    if not np.isfinite(effect).all():
        raise ValueError(
            f"the truth of {language!r} is not known for all neurons: ablate every layer of {', '.join(sites)}"
        )
    count = round(share * effect.shape[1])
    if not 0 < count < effect.shape[1]:
        raise ValueError(f"share={share} of {effect.shape[1]} neurons is {count}: give one that splits them")
    top = np.argsort(-effect, axis=1, kind="stable")[:, :count]
    positive = np.zeros(effect.shape, dtype=bool)
    np.put_along_axis(positive, top, True, axis=1)
    return _Goal(positive, effect)


def _of_set(truth: NeuronSet, sites: Sequence[Site], language: str) -> _Goal:
    positive = flat(truth.masks, sites)[None] > 0
    if positive.all() or not positive.any():
        size = int(positive.sum())
        raise ValueError(
            f"the planted set of {language!r} has {size} of {positive.size} compared neurons: nothing to tell apart"
        )
    return _Goal(positive, None)
