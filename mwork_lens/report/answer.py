"""What a study answers, in two sentences, and what a reader should be warned of. Every number is in the tables of the study."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .. import findings as found
from ..plots import language_name
from ..written import number, percent, written_p

FEW_DOCUMENTS = 20
"""Below this, intervals from resampling documents are rough."""
FEW_DRAWS = 19
"""Below this, p cannot reach 0.05."""


def answer(lens: pd.DataFrame, summary: pd.DataFrame) -> tuple[str, str]:
    """Does the workflow hold? A sentence on the neurons, with the random control, and one on the English pivot of the lens.

    Two signs are looked at, each on its own: neurons whose loss harms their language more than chance and more than English (`findings.harm`), and
    English ahead of the text's own language at some inner layer, averaged over languages (`findings.pivot`). The first words say how many of the
    two were seen.

    Args:
        lens: Columns text_language, token_language, layer, and mass with `_low` and `_high`.
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
    kind, o, r = found.harm(summary)
    if kind == "untested":
        return (
            None,
            "no target language has specific neurons that could be switched off, so what they are good for was not measured.",
        )
    digits = found.digits_of(o, "non_eng")
    own, english, delta = (found.change(o, name, digits) for name in ("non_eng", "eng", "delta"))
    start = (
        f"switching off a language’s own neurons ({number(o['count'], 0)} on average) changes its log-likelihood by "
        f"{own} nats per token and that of English by {english}"
    )
    if kind == "uncontrolled":
        return None, f"{start}, but there is no random control to compare with."
    draws = int(o["draws"])
    span = f"{number(r['non_eng_low'], digits)} to {number(r['non_eng_high'], digits)}"
    floor = f"; {draws} draws allow no smaller p" if np.isclose(o["p_non_eng"], 1 / (1 + draws)) else ""
    chance = f"{draws} matched random sets ({span}, p = {written_p(o['p_non_eng'])}{floor})"
    difference = f"Δ = {delta}, p = {written_p(o['p_delta'])}"
    end = {
        "none": f" (a difference of {difference}), which is no harm, as the interval of the first is not below zero; beside it are {chance}.",
        "chance": f" (a difference of {difference}), which is not more harm than every one of {chance}.",
        "shared": f", more harm than any of {chance} but not shown to be the language’s own ({difference}).",
        "own": f", a harm of the language’s own ({difference}) and more than any of {chance}.",
    }[kind]
    return kind == "own", start + end


def _pivot(lens: pd.DataFrame) -> tuple[bool | None, str]:
    """Whether English is ahead at an inner layer (None: cannot be told), and the sentence."""
    at = found.pivot(lens)
    if at.layer is None:
        return (
            None,
            "the lens does not tell whether English is ahead in the inner layers: there is no such layer, or no English.",
        )
    numbers = f"at layer {at.layer}: {found.shares(at.english)} against {found.shares(at.own)}"
    if at.ahead:
        return (
            True,
            f"under the logit lens English is ahead of the text’s own language inside, most {numbers} of the probability.",
        )
    if at.ahead is None:
        return None, (
            "under the logit lens it cannot be told whether English is ahead of the text’s own language inside, as their intervals overlap "
            f"(averaged over languages, {numbers} of the probability)."
        )
    return False, (
        "under the logit lens English is at no inner layer ahead of the text’s own language, averaged over languages (it comes closest "
        f"at layer {at.layer}: {percent(at.english[0])} against {percent(at.own[0])} of the probability), so there is no English pivot."
    )


def cautions(study: Any, run: Mapping[str, Any]) -> list[str]:
    """What to keep in mind: few draws or documents, cut, failed or identical texts, languages without neurons, a changed source tree.

    Args:
        study: A `Study`, or anything with its attributes.
        run: Its `Run`, as `to_json` gives it.
    """
    every = [
        *draws_cautions(draws_asked(study.summary, run)),
        *filter(found.is_caution, study.findings),
        *found.without_neurons(study.specific),
        *found.left_out(getattr(study, "failures", None) or {}),
        *texts_cautions(run),
        *documents_cautions(study.lens, "Lens and scores rest"),
        *found.without_score(study.grid),
        *source_cautions(run),
    ]
    return list(dict.fromkeys(every))  # the findings say most of it already


def draws_asked(summary: pd.DataFrame, run: Mapping[str, Any]) -> int:
    """Random sets per cell: as the run was asked for, else as many as were measured, which is none where no language has neurons."""
    draws = (run.get("parameters") or {}).get("draws", summary["draws"].max())
    return int(draws) if np.isfinite(draws) else 0


def draws_cautions(draws: int) -> Iterator[str]:
    """That there are few random draws, or none."""
    if draws < 1:
        yield "There are no random controls: nothing here can be told from chance."
    elif draws < FEW_DRAWS:
        yield f"With {draws} random draw{'s' * (draws > 1)} no p can be below {written_p(1 / (1 + draws))}: 19 draws allow 0.05, 99 allow 0.01."


def documents_cautions(table: pd.DataFrame, what: str) -> Iterator[str]:
    """That a table with a column of documents rests on few of them, by language where it has languages.

    Args:
        table: Any; one without the column gives nothing.
        what: Subject and verb, such as `The scores rest`.
    """
    if "documents" not in table or not len(table) or not pd.api.types.is_numeric_dtype(table["documents"]):
        return
    by = next((column for column in ("text_language", "language") if column in table), None)
    counts = (
        table["documents"].groupby(table[by], sort=False).max() if by else pd.Series({"": table["documents"].max()})
    )
    if len(few := counts[counts.to_numpy(float) < FEW_DOCUMENTS]):
        each = ", ".join(f"{language} {int(count)}".strip() for language, count in few.items())
        yield f"{what} on few documents ({each}): intervals from resampling so few are rough."


def texts_cautions(run: Mapping[str, Any]) -> Iterator[str]:
    """Languages whose recorded texts are the same, byte for byte."""
    same: dict[str, list[str]] = {}
    for language, facts in (run.get("corpora") or {}).items():
        if isinstance(facts, Mapping) and facts.get("hash"):
            same.setdefault(str(facts["hash"]), []).append(language_name(str(language)))
    for names in same.values():
        if len(names) > 1:
            yield f"{' and '.join(names)} have identical texts: differences between them mean nothing."


def source_cautions(run: Mapping[str, Any]) -> Iterator[str]:
    """A source tree that was changed after its commit."""
    if str(run.get("git_commit") or "").endswith("+"):
        yield "The source tree was changed after the recorded commit (the + at its end): the commit alone does not give the same code."
