"""What a study found and did not find, in words. Every number in a sentence is in its tables.

Two questions are decided here, for the findings and for the answer of the page: what switching neurons off does (`harm`), and whether English is
ahead inside (`pivot`).
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Collection, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from .grid import ENGLISH
from .neurons import NeuronSet
from .stages import STAGES, Stages
from .written import interval, number, percent, sensible_digits, written_p

LEVEL = 0.1
"""Of p, for a harm to count as the language's own: ten draws cannot give less than 0.09."""

_STRUCTURE = {"attention": "attention", "ffn": "FFN"}
_CUT = "Documents are cut at "
_LEFT_OUT = "could not be measured and are left out"
_NO_SCORE = "gave non-finite logits and are left out"
_NO_NEURON = "No language-specific neuron was found for "


def findings(
    lens: pd.DataFrame,
    own: Mapping[str, NeuronSet],
    grid: pd.DataFrame,
    summary: pd.DataFrame,
    stages: Stages,
    failures: Mapping[str, Mapping[str, str]],
) -> tuple[str, ...]:
    """Sentences about the lens, the neurons, the grid and what failed, null results included."""
    return (
        *_lens(lens, stages), *_neurons(own), *without_neurons(own), *_whole(grid, summary), *without_score(grid), *_parts(summary),
        *left_out(failures),
    )  # fmt: skip


class Harm(NamedTuple):
    """What switching off all of a language's own neurons does to it, averaged over the target languages."""

    kind: Literal["untested", "uncontrolled", "none", "chance", "shared", "own"]
    """Nothing to switch off; no random control; no harm (the interval is not below zero); harm, but not more than every random set; more than any
    of them, but not shown to be more than English suffers; a harm of the language's own."""
    own: pd.Series
    """The row of `summarise`; empty if untested."""
    random: pd.Series
    """Of the random sets; empty if there are none."""


def harm(summary: pd.DataFrame) -> Harm:
    """Whether all of the own neurons, switched off, harm their language; more than chance; and more than English.

    Args:
        summary: What `summarise` returns.
    """
    whole = summary[(summary["stage"] == "all") & (summary["structure"] == "both")].set_index("neurons")
    o, r = (whole.loc[name] if name in whole.index else pd.Series(dtype=float) for name in ("own", "random"))
    if not np.isfinite(o.get("non_eng", np.nan)):
        return Harm("untested", o, r)
    if not np.isfinite(r.get("non_eng", np.nan)) or not np.isfinite(o["p_non_eng"]):
        return Harm("uncontrolled", o, r)
    if not o["non_eng_high"] < 0:
        return Harm("none", o, r)
    if not _harmed(o["non_eng"], o["non_eng_high"], r["non_eng_low"]):
        return Harm("chance", o, r)
    return Harm("own" if o["delta_low"] > 0 and o["p_delta"] <= LEVEL else "shared", o, r)


def _harmed(change: float, high: float, worst_draw: float) -> bool:
    """Whether a change is harm (its interval is below zero), and more of it than in any random draw."""
    return bool(high < 0 and change < worst_draw)


class Pivot(NamedTuple):
    """Whether English is ahead of the text's own language at an inner layer, averaged over the other languages."""

    ahead: bool | None
    """True: at some inner layer, with intervals that do not overlap. False: behind at all of them, likewise. None: cannot be told."""
    layer: int | None
    """Where it is furthest ahead, or comes closest; where it cannot be told, the closest of the layers with intervals that overlap. None: there is
    no inner layer, or no English."""
    english: tuple[float, float, float]
    """Mean probability of English tokens there, with its interval."""
    own: tuple[float, float, float]
    """Of tokens of the text's own language."""


def pivot(lens: pd.DataFrame) -> Pivot:
    """English against the text's own language at the inner layers: all but the embedding and the output.

    The interval of a mean over languages has the means of their ends: it is no narrower than one that knew how they vary together.

    Args:
        lens: Columns text_language, token_language, layer, and mass with `_low` and `_high`.
    """
    english, own, _ = _curves(lens)
    both = english.join(own, lsuffix="_english", rsuffix="_own").iloc[1:-1].dropna()
    if not len(both):
        return Pivot(None, None, (np.nan,) * 3, (np.nan,) * 3)
    above, below = both["mass_low_english"] > both["mass_high_own"], both["mass_high_english"] < both["mass_low_own"]
    open_ = ~(above | below)
    ahead = True if above.any() else None if open_.any() else False
    among = above if ahead else open_ if ahead is None else below
    at = (both["mass_english"] - both["mass_own"])[among].idxmax()
    ends = [
        tuple(float(both.loc[at, f"mass{end}_{who}"]) for end in ("", "_low", "_high")) for who in ("english", "own")
    ]
    return Pivot(ahead, int(at), *ends)


def _curves(lens: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Mean mass and its interval by layer, over texts in other languages: of English tokens, of the text's own language, of shared ones."""
    foreign = lens[lens["text_language"] != ENGLISH]
    layers = sorted({*foreign["layer"]})
    token = foreign["token_language"]
    for which in (token == ENGLISH, token == foreign["text_language"], token == "shared"):
        yield foreign[which].groupby("layer")[["mass", "mass_low", "mass_high"]].mean().reindex(layers)


def _lens(lens: pd.DataFrame, stages: Stages) -> Iterator[str]:
    english, own, shared = (curve["mass"] for curve in _curves(lens))
    low, inside = int(own.idxmin()), english.iloc[1:-1]
    yield (
        "Under the logit lens, the probability of tokens of the text's own language (texts other than English) is "
        f"{own.iloc[0]:.0%} at the embedding, {own[low]:.0%} at its lowest (layer {low}) and {own.iloc[-1]:.0%} at the output."
    )
    found = pivot(lens)
    if found.layer is None:
        yield "Whether English is ahead in the inner layers the lens does not tell: there is no such layer, or no English."
    elif found.ahead:
        yield (
            f"English is more probable than the text's own language at layer {found.layer} ({shares(found.english)} against {shares(found.own)}): "
            "an English pivot in the sense of the paper's Figure 1."
        )
    elif found.ahead is None:
        yield (
            "Whether there is an English pivot cannot be told: averaged over languages, the intervals of English and of the text's own language "
            f"overlap at layer {found.layer} ({shares(found.english)} against {shares(found.own)})."
        )
    else:
        yield (
            "No English pivot: averaged over languages, English tokens are at no inner layer more probable than those of the text's own "
            f"language; they peak at {inside.max():.1%} (layer {int(inside.idxmax())}), while tokens that several languages share rise to "
            f"{shared.max():.0%}."
        )
    yield from _single(lens[lens["text_language"] != ENGLISH])
    yield (
        "Stages used: "
        + ", ".join(f"{name.replace('_', '-')} {_span(layers)}" for name, layers in stages.items())
        + "."
    )


def shares(measured: tuple[float, float, float]) -> str:
    """A probability and its interval: `30% [27%, 33%]`."""
    value, low, high = map(percent, measured)
    return f"{value} [{low}, {high}]"


def _single(foreign: pd.DataFrame) -> Iterator[str]:
    """Languages whose texts have English ahead at an inner layer, and those of them where the intervals do not overlap."""
    ahead: dict[str, str] = {}
    apart: dict[str, str] = {}
    for language, part in foreign.groupby("text_language", sort=False):
        mass, low, high = (
            part.pivot(index="layer", columns="token_language", values=f"mass{end}").iloc[1:-1]
            for end in ("", "_low", "_high")
        )
        for found, where in ((ahead, mass[ENGLISH] > mass[language]), (apart, low[ENGLISH] > high[language])):
            if layers := where.index[where].tolist():
                found[str(language)] = (
                    f"{language} (layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))})"
                )
    if ahead:
        beyond = f"in {', '.join(apart.values())}" if apart else "nowhere"
        yield (
            f"For single languages English is ahead of the text's own language in: {', '.join(ahead.values())}; without overlap of the intervals "
            f"{beyond}."
        )


def _span(layers: range) -> str:
    if not layers:
        return "no layer"
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"


def _neurons(own: Mapping[str, NeuronSet]) -> Iterator[str]:
    total = sum(mask.numel() for mask in next(iter(own.values())).masks.values())
    sizes = ", ".join(f"{language} {len(neurons)}" for language, neurons in own.items())
    yield f"Language-specific neurons: {sizes}, of {total} in the sites examined."


def _whole(grid: pd.DataFrame, summary: pd.DataFrame) -> Iterator[str]:
    """All layers and structures at once."""
    kind, o, r = harm(summary)
    if kind == "untested":
        yield "The deactivation grid is empty: no language has specific neurons."
        return
    digits = digits_of(o, "non_eng")
    start = (
        f"Switching off a language's own neurons ({o['count']:.0f} on average) changes its log-likelihood by "
        f"{change(o, 'non_eng', digits)} nats per token"
    )
    if kind == "uncontrolled":
        yield f"{start}; there is no random control to compare with."
        return
    verdict = {
        "none": "no harm, as the interval is not below zero, beside",
        "chance": "not more harm than every one of",
    }.get(kind, "more harm than any of")
    span = f"{number(r['non_eng_low'], digits)} to {number(r['non_eng_high'], digits)}"
    yield f"{start}, {verdict} {int(o['draws'])} matched random sets ({span}; p = {written_p(o['p_non_eng'])})."
    conclusion = {
        "none": "there is no harm that could be specific to the language",
        "own": "the harm is specific to the language",
    }.get(kind, "harm specific to the language is not shown")
    yield (
        f"With the same neurons off, English changes by {change(o, 'eng', digits)}, so Δ = {change(o, 'delta', digits)} "
        f"(p = {written_p(o['p_delta'])}): {conclusion}."
    )
    cells = grid[(grid["stage"] == "all") & (grid["structure"] == "both")]
    measured = [(str(x), part) for x, part in cells[np.isfinite(cells["own"])].groupby("language", sort=False)]
    harmless = [x for x, part in measured if (part["neurons"] == "own").any() and not _beyond_chance(part)]
    if harmless:
        yield f"Not harmed beyond every random control: {', '.join(harmless)}."


def _beyond_chance(part: pd.DataFrame) -> bool:
    """Of one language, all layers and structures at once."""
    own = part[part["neurons"] == "own"].iloc[0]
    return _harmed(own["own"], own["own_high"], part.loc[part["neurons"] == "random", "own"].min())


def _parts(summary: pd.DataFrame) -> Iterator[str]:
    """Single stages and structures."""
    single = summary["stage"].isin(STAGES) & (summary["structure"] != "both") & (summary["neurons"] == "own")
    parts = summary[single].dropna(subset=["delta"])
    if len(parts):
        best = parts.loc[parts["delta"].idxmax()]
        stage, size = str(best["stage"]).replace("_", "-"), f"{best['count']:.0f} neurons on average"
        yield (
            f"Among single stages and structures, the largest Δ is in the {_STRUCTURE[best['structure']]} of the {stage} stage: "
            f"{change(best, 'delta', digits_of(best, 'delta'))} with {size} (p = {written_p(best['p_delta'])}, not corrected for "
            f"choosing the largest of {len(parts)})."
        )


def change(row: pd.Series, name: str, digits: int) -> str:
    """An estimate of `summarise` and its interval: `+0.960 [0.895, 1.027]`."""
    return f"{number(row[name], digits, signed=True)} {interval(row[f'{name}_low'], row[f'{name}_high'], digits)}"


def digits_of(row: pd.Series, name: str) -> int:
    """Decimals that the interval of an estimate of `summarise` allows."""
    low, high = (pd.Series([row[f"{name}_{end}"]], dtype=float) for end in ("low", "high"))
    return sensible_digits(low, high)


def without_neurons(own: Mapping[str, Collection]) -> Iterator[str]:
    """The languages that have no neurons of their own."""
    if empty := [language for language, neurons in own.items() if not len(neurons)]:
        yield f"{_NO_NEURON}{', '.join(empty)}: nothing can be switched off there."


def without_score(grid: pd.DataFrame) -> Iterator[str]:
    """How many conditions have neurons to switch off and no score."""
    if broken := int((np.isnan(grid["own"].to_numpy(float)) & (grid["count"].to_numpy(float) > 0)).sum()):
        yield f"{broken} condition(s) {_NO_SCORE}; load the model with dtype='float32' to score them."


def left_out(failures: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The documents that could not be measured, by language."""
    for language, names in failures.items():
        yield f"{len(names)} document(s) of {language!r} {_LEFT_OUT}: {', '.join(list(names)[:5])}."


def is_caution(finding: str) -> bool:
    """Whether a finding is a warning: something was cut, failed, is left out or is not there to switch off."""
    return finding.startswith((_CUT, _NO_NEURON)) or _LEFT_OUT in finding or _NO_SCORE in finding
