"""What a study found and did not find, in words. Every number in a sentence is in its tables."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from .grid import ENGLISH
from .neurons import NeuronSet
from .stages import STAGES, Stages

_STRUCTURE = {"attention": "attention", "ffn": "FFN"}


def findings(
    lens: pd.DataFrame,
    own: Mapping[str, NeuronSet],
    grid: pd.DataFrame,
    summary: pd.DataFrame,
    stages: Stages,
    failures: Mapping[str, Mapping[str, str]],
) -> tuple[str, ...]:
    """Sentences about the lens, the neurons, the grid and what failed, null results included."""
    left_out = (
        f"{len(names)} document(s) of {language!r} could not be measured and are left out: {', '.join(list(names)[:5])}."
        for language, names in failures.items()
    )
    return (*_lens(lens, stages), *_neurons(own), *_whole(grid, summary), *_parts(summary), *left_out)


def _lens(lens: pd.DataFrame, stages: Stages) -> Iterator[str]:
    foreign = lens[lens["text_language"] != ENGLISH]

    def curve(which: pd.Series) -> pd.Series:
        return foreign[which].groupby("layer")["mass"].mean()

    own = curve(foreign["token_language"] == foreign["text_language"])
    english = curve(foreign["token_language"] == ENGLISH)
    shared = curve(foreign["token_language"] == "shared")
    low, peak = int(own.idxmin()), int(english.idxmax())
    yield (
        "Under the logit lens, the probability of tokens of the text's own language (texts other than English) is "
        f"{own.iloc[0]:.0%} at the embedding, {own[low]:.0%} at its lowest (layer {low}) and {own.iloc[-1]:.0%} at the output."
    )
    gap = english - own
    at = int(gap.idxmax())
    if gap[at] > 0:
        yield (
            f"English is more probable than the text's own language at layer {at} ({english[at]:.0%} against {own[at]:.0%}): "
            "an English pivot in the sense of the paper's Figure 1."
        )
    else:
        yield (
            "No English pivot: averaged over languages, English tokens are at no layer more probable than those of the text's own "
            f"language; they peak at {english[peak]:.1%} (layer {peak}), while tokens that several languages share rise to "
            f"{shared.max():.0%}."
        )
    if single := list(_english_ahead(foreign)):
        yield f"For single languages English is ahead of the text's own language in: {', '.join(single)}."
    yield (
        "Stages used: "
        + ", ".join(f"{name.replace('_', '-')} {_span(layers)}" for name, layers in stages.items())
        + "."
    )


def _english_ahead(foreign: pd.DataFrame) -> Iterator[str]:
    for language, part in foreign.groupby("text_language", sort=False):
        mass = part.pivot(index="layer", columns="token_language", values="mass")
        ahead = mass.index[mass[ENGLISH] > mass[language]].tolist()
        if ahead:
            yield f"{language} (layer{'s' if len(ahead) > 1 else ''} {', '.join(map(str, ahead))})"


def _span(layers: range) -> str:
    if not layers:
        return "no layer"
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"


def _neurons(own: Mapping[str, NeuronSet]) -> Iterator[str]:
    total = sum(mask.numel() for mask in next(iter(own.values())).masks.values())
    sizes = ", ".join(f"{language} {len(neurons)}" for language, neurons in own.items())
    yield f"Language-specific neurons: {sizes}, of {total} in the sites examined."
    if empty := [language for language, neurons in own.items() if not neurons]:
        yield f"No language-specific neuron was found for {', '.join(empty)}: nothing can be switched off there."


def _whole(grid: pd.DataFrame, summary: pd.DataFrame) -> Iterator[str]:
    """All layers and structures at once."""
    everywhere = (summary["stage"] == "all") & (summary["structure"] == "both")
    whole = summary[everywhere].set_index("neurons")
    if np.isnan(whole.loc["own", "non_eng"]):
        yield "The deactivation grid is empty: no language has specific neurons."
        return
    o, r = whole.loc["own"], whole.loc["random"]
    verdict = "more harm than any of" if o["non_eng"] < r["non_eng_low"] else "not more harm than every one of"
    yield (
        f"Switching off a language's own neurons ({o['count']:.0f} on average) changes its log-likelihood by "
        f"{_interval(o, 'non_eng')} nats per token, {verdict} {int(o['draws'])} matched random sets "
        f"({_signed(r['non_eng_low'])} to {_signed(r['non_eng_high'])}; p = {o['p_non_eng']:.2f})."
    )
    specific = o["delta_low"] > 0 and o["p_delta"] <= 0.1
    yield (
        f"With the same neurons off, English changes by {_interval(o, 'eng')}, so Delta = {_interval(o, 'delta')} (p = {o['p_delta']:.2f}): "
        + ("the harm is specific to the language." if specific else "harm specific to the language is not shown.")
    )
    cells = grid[(grid["stage"] == "all") & (grid["structure"] == "both")]
    measured = [(str(x), part) for x, part in cells[np.isfinite(cells["own"])].groupby("language", sort=False)]
    harmless = [x for x, part in measured if (part["neurons"] == "own").any() and not _beyond_chance(part)]
    if harmless:
        yield f"Not harmed beyond every random control: {', '.join(harmless)}."
    if broken := int((np.isnan(grid["own"]) & (grid["count"] > 0)).sum()):
        yield f"{broken} condition(s) gave non-finite logits and are left out; load the model with dtype='float32' to score them."


def _beyond_chance(part: pd.DataFrame) -> bool:
    own = part.loc[part["neurons"] == "own", "own"].iloc[0]
    return bool(own < part.loc[part["neurons"] == "random", "own"].min())


def _parts(summary: pd.DataFrame) -> Iterator[str]:
    """Single stages and structures."""
    single = summary["stage"].isin(STAGES) & (summary["structure"] != "both") & (summary["neurons"] == "own")
    parts = summary[single].dropna(subset=["delta"])
    if len(parts):
        best = parts.loc[parts["delta"].idxmax()]
        yield (
            f"Among single stages and structures, the largest Delta is in the {_STRUCTURE[best['structure']]} of the "
            f"{str(best['stage']).replace('_', '-')} stage: "
            f"{_interval(best, 'delta')} with {best['count']:.0f} neurons on average (p = {best['p_delta']:.2f}, not corrected for "
            f"choosing the largest of {len(parts)})."
        )


def _interval(row: pd.Series, name: str) -> str:
    return f"{_signed(row[name])} [{_signed(row[f'{name}_low'])}, {_signed(row[f'{name}_high'])}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
