"""What a study answers, in two sentences, and what a reader should be warned of. Every number is in the tables of the study."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..plots import language_name
from ..plots.style import ENGLISH
from .tables import interval, number, sensible_digits

FEW_DOCUMENTS = 20
"""Below this, intervals from resampling documents are rough."""
LEVEL = 0.1
"""Of p, for the harm to count as specific; the findings use the same."""
CAUTIONS = (
    "Documents are cut at ",
    "could not be measured and are left out",
    "gave non-finite logits and are left out",
)
"""How the findings begin or go on that are warnings."""


def answer(lens: pd.DataFrame, summary: pd.DataFrame) -> tuple[str, str]:
    """Does the workflow hold? A sentence on the neurons, with the random control, and one on the English pivot of the lens.

    Two signs are looked at, each on its own: neurons whose loss harms their language more than chance and more than English (Δ above zero with
    its interval, p at most 0.1), and English ahead of the text's own language at some inner layer (averaged over languages). The first words
    say how many of the two were seen.

    Args:
        lens: Columns text_language, token_language, layer, mass.
        summary: What `summarise` returns.
    """
    specific, neurons = _neurons(summary)
    pivot, stream = _pivot(lens)
    if specific is None:
        opening = "Not tested in full: " if pivot is not None else "Not tested: "
    else:
        opening = {2: "Yes, by both signs: ", 1: "In part: ", 0: "Not shown: "}[specific + bool(pivot)]
    joined = {
        (True, True): "And ", (True, False): "But ", (False, True): "Yet ", (False, False): "Nor is the other sign there: ",
    }.get((specific, pivot), "")  # type: ignore[call-overload]  # None: no joint  # fmt: skip
    return opening + neurons, joined + (stream if joined else stream[0].upper() + stream[1:])


def _neurons(summary: pd.DataFrame) -> tuple[bool | None, str]:
    """Whether harm specific to the language is shown (None: not tested), and the sentence."""
    whole = summary[(summary["stage"] == "all") & (summary["structure"] == "both")].set_index("neurons")
    if "own" not in whole.index or not np.isfinite(whole.loc["own", "non_eng"]):
        return (
            None,
            "no target language has specific neurons that could be switched off, so what they are good for was not measured.",
        )
    o = whole.loc["own"]
    digits = sensible_digits(whole.loc[["own"], "non_eng_low"], whole.loc[["own"], "non_eng_high"])

    def change(name: str) -> str:
        return f"{number(o[name], digits, signed=True)} {interval(o[f'{name}_low'], o[f'{name}_high'], digits)}"

    start = (
        f"switching off a language’s own neurons ({number(o['count'], 0)} on average) changes its log-likelihood by "
        f"{change('non_eng')} nats per token and that of English by {change('eng')}"
    )
    r = whole.loc["random"] if "random" in whole.index else None
    if r is None or not np.isfinite(r["non_eng"]) or not np.isfinite(o["p_non_eng"]):
        return None, f"{start}, but there is no random control to compare with."
    draws = int(o["draws"])
    span = f"{number(r['non_eng_low'], digits)} to {number(r['non_eng_high'], digits)}"
    floor = f"; {draws} draws allow no smaller p" if np.isclose(o["p_non_eng"], 1 / (1 + draws)) else ""
    chance = f"{draws} matched random sets ({span}, p = {_p(o['p_non_eng'])}{floor})"
    difference = f"Δ = {change('delta')}, p = {_p(o['p_delta'])}"
    if o["non_eng"] >= r["non_eng_low"]:
        return False, f"{start} (a difference of {difference}), which is not more harm than every one of {chance}."
    if o["delta_low"] > 0 and o["p_delta"] <= LEVEL:
        return True, f"{start}, a harm of the language’s own ({difference}) and more than any of {chance}."
    return False, f"{start}, more harm than any of {chance} but not shown to be the language’s own ({difference})."


def _p(p: float) -> str:
    return number(p, 2 if p >= 0.005 else 3)


def _pivot(lens: pd.DataFrame) -> tuple[bool | None, str]:
    """Whether English is ahead at an inner layer (None: cannot be told), and the sentence without its first word."""
    foreign = lens[lens["text_language"] != ENGLISH]
    layers = sorted({*foreign["layer"]})[1:-1]

    def curve(which: pd.Series) -> pd.Series:
        return foreign[which].groupby("layer")["mass"].mean().reindex(layers)

    gap = (english := curve(foreign["token_language"] == ENGLISH)) - (
        own := curve(foreign["token_language"] == foreign["text_language"])
    )
    if not np.isfinite(gap.to_numpy(float)).any():
        return (
            None,
            "the lens does not tell whether English is ahead in the inner layers: there is no such layer, or no English.",
        )
    at = gap.idxmax()
    numbers = f"at layer {int(at)}: {_percent(english[at])} against {_percent(own[at])}"
    if gap[at] > 0:
        return (
            True,
            f"under the logit lens English is ahead of the text’s own language inside, most {numbers} of the probability.",
        )
    return False, (
        "under the logit lens English is at no inner layer ahead of the text’s own language, averaged over languages (it comes closest "
        f"{numbers} of the probability), so there is no English pivot."
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def is_caution(finding: str) -> bool:
    """Whether a finding is a warning: something was cut, failed, or is left out."""
    return finding.startswith(CAUTIONS[0]) or any(words in finding for words in CAUTIONS[1:])


def cautions(study: Any, run: Mapping[str, Any]) -> list[str]:
    """What to keep in mind: few draws or documents, cut, failed or identical texts, languages without neurons, a changed source tree.

    Args:
        study: A `Study`, or anything with its attributes.
        run: Its `Run`, as `to_json` gives it.
    """
    return [
        *_draws(study.summary),
        *filter(is_caution, study.findings),
        *_without(study.specific),
        *_failed(getattr(study, "failures", None) or {}, study.findings),
        *texts_cautions(run),
        *_few(study.lens),
        *_unmeasured(study.grid, study.findings),
        *source_cautions(run),
    ]


def _draws(summary: pd.DataFrame) -> Iterator[str]:
    draws = summary["draws"].max()
    if not np.isfinite(draws) or draws < 1:
        yield "There are no random controls: nothing here can be told from chance."
    elif draws < 19:
        yield f"With {int(draws)} random draws no p can be below {1 / (1 + draws):.2f}: 19 draws allow 0.05, 99 allow 0.01."


def _without(sets: Mapping[str, Any]) -> Iterator[str]:
    if empty := [language_name(str(language)) for language, held in sets.items() if not len(held)]:
        yield f"No language-specific neurons: {', '.join(empty)}. What has none cannot be switched off, and is in no mean."


def _failed(failures: Mapping[str, Any], said: tuple[str, ...]) -> Iterator[str]:
    for language, names in failures.items():
        if names and not any(f"of {language!r} could not be measured" in finding for finding in said):
            yield f"{len(names)} document(s) of {language!r} could not be measured and are left out: {', '.join(list(names)[:5])}."


def texts_cautions(run: Mapping[str, Any]) -> Iterator[str]:
    """Languages whose recorded texts are the same, byte for byte."""
    same: dict[str, list[str]] = {}
    for language, facts in (run.get("corpora") or {}).items():
        if isinstance(facts, Mapping) and facts.get("hash"):
            same.setdefault(str(facts["hash"]), []).append(language_name(str(language)))
    for names in same.values():
        if len(names) > 1:
            yield f"{' and '.join(names)} have identical texts: differences between them mean nothing."


def _few(lens: pd.DataFrame) -> Iterator[str]:
    if "documents" in lens and len(lens):
        documents = lens.groupby("text_language", sort=False)["documents"].max()
        if len(few := documents[documents.to_numpy(int) < FEW_DOCUMENTS]):
            each = ", ".join(f"{language} {int(count)}" for language, count in few.items())
            yield f"Lens and scores rest on few documents ({each}): intervals from resampling so few are rough."


def _unmeasured(grid: pd.DataFrame, said: tuple[str, ...]) -> Iterator[str]:
    broken = int((np.isnan(grid["own"].to_numpy(float)) & (grid["count"].to_numpy(float) > 0)).sum())
    if broken and not any(CAUTIONS[2] in finding for finding in said):
        yield f"{broken} condition(s) with neurons to switch off have no score and are left out."


def source_cautions(run: Mapping[str, Any]) -> Iterator[str]:
    """A source tree that was changed after its commit."""
    if str(run.get("git_commit") or "").endswith("+"):
        yield "The source tree was changed after the recorded commit (the + at its end): the commit alone does not give the same code."
