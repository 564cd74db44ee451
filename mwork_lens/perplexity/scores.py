"""The perplexity matrix: whose neurons are off, and which language suffers.

Row = language whose neurons are switched off, column = language evaluated, same tokens everywhere. Neurons are specific to their
language if the diagonal is the harm: off-diagonal cells say what the same neurons do to the others, and random sets with the same count in
every site and layer say what switching off that many neurons does at all.

    dnll = NLL off - NLL unmasked        nats per token, above zero is harm
    dppl = exp(NLL off) - exp(NLL unmasked)
    selectivity of a row = diagonal - mean(off-diagonal), in dnll

Reference: Tang et al. 2024, "Language-Specific Neurons" (arXiv 2402.16438), Figures 2 and 3. Their script prints the mean NLL of chunks of equal
length over 2^20 tokens, one masked model at a time, and no unmasked row; its random sets and the number of draws are not published.
Here a mean is a ratio of sums over documents, the unmasked row is part of every table, a row has its own random draws, and differences are
paired. Prefer dnll: dppl is dominated by the languages that the model finds hard.

`perplexity_scores` and `share_scores` run the model and make one row per condition and document; everything else is a pure function of that
table (tables.py):

    perplexity_matrix   per cell: difference in NLL and in perplexity, with intervals, beside the range of the random draws
    selectivity         per row: diagonal against off-diagonal, rank of the diagonal; and the same of the whole matrix
    share_curve         the matrix for growing shares of neurons (their Figure 3)
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..corpora import Corpus
from ..detect.chance import matched_random
from ..evaluate import prepare
from ..interventions import deactivate
from ..measure import claim_folder
from ..models import describe, fingerprint
from ..neurons import NeuronSet
from ..progress import hidden
from ..sites import SITES
from ..storage import Run, content_hash, reuse, save
from .tables import ALL, SCORES

Sets = Mapping[str, NeuronSet]


@dataclass(frozen=True)
class Condition:
    """One run: whose neurons are off (`units` None: nobody's)."""

    off: str
    kind: str
    draw: int
    units: NeuronSet | None
    share: float = 0.0


def perplexity_scores(
    model: Any,
    texts: Mapping[str, Corpus],
    neurons: Sets,
    *,
    draws: int = 20,
    like: Any = None,
    seed: int = 0,
    size: int = 16,
    length: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Score every document with nobody's, each language's, and as many random neurons off.

    Args:
        model: What `load_model` returned.
        texts: Held-out documents per language; parallel documents share ids and are paired.
        neurons: The set of each language, as detectors return them. Languages that are only evaluated need none.
        draws: Random sets per language, with its count in every site and layer. A p-value cannot fall below 1 / (1 + draws).
        like: Match activation frequencies too (`matched_random`): moments, [layer, width] per site, or one of these per language.
            A set of FFN units without statistics on `ffn` is matched by those of `ffn_gate`, else `ffn_act`.
        seed: Of the random sets.
        size: Documents per batch, the same batches in every condition.
        length: Tokens per document at most.
        out: Folder in which every finished condition is kept; None keeps nothing.
        resume: Use the finished conditions in `out`. They are found by content, so sets and draws may have been added since.
        progress: Show a progress bar.

    Returns:
        Columns `SCORES`: `off` the language whose neurons are off ("" for the unmasked model), `neurons` one of none, own, random;
        `draw` the number of a random set (-1 otherwise), `count` how many neurons are off, `language` and `document` what is evaluated, `nll`
        in nats, summed over `tokens`. A language with an empty set has own rows whose nll is nan, and no random rows.

    Warns:
        UserWarning: A language has no neurons; documents were truncated; a kept condition cannot be read.

    Raises:
        ValueError: No set, a set for a language without texts, a reserved name, negative draws, logits that are not finite, a set of another model.
        FileExistsError: `out` holds another run, or this one and `resume` is False.
    """
    plan = _conditions({0.0: neurons}, texts, draws, like, seed)
    return score_conditions(model, texts, plan, size, length, out, resume, progress)[list(SCORES)]


def share_scores(
    model: Any,
    texts: Mapping[str, Corpus],
    sets_by_rate: Mapping[float, Sets],
    *,
    draws: int = 5,
    like: Any = None,
    seed: int = 0,
    size: int = 16,
    length: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """`perplexity_scores` for growing sets: {rate: lape(moments, rate=rate) for rate in rates}, or the same of any detector.

    Args:
        model: What `load_model` returned.
        texts: Held-out documents per language.
        sets_by_rate: Share of all units -> set of each language; every share names the same languages.
        draws: Random sets per language and share.
        like: Activation frequencies to match too.
        seed: Of the random sets.
        size: Documents per batch.
        length: Tokens per document at most.
        out: Folder for finished conditions; it may be that of `perplexity_scores`.
        resume: Use the finished conditions in `out`.
        progress: Show a progress bar.

    Returns:
        Columns share, *`SCORES`; the unmasked rows have share 0.

    Raises:
        ValueError: As in `perplexity_scores`; a rate outside 0..1; rates with different languages.
    """
    for rate, sets in sets_by_rate.items():
        if not 0 < rate <= 1:
            raise ValueError(f"rate {rate} is not a share of the units: give numbers above 0 and at most 1")
        if list(sets) != list(next(iter(sets_by_rate.values()))):
            raise ValueError(
                f"rate {rate} has sets of other languages ({', '.join(sets)}): give every rate the same ones"
            )
    plan = _conditions(dict(sorted(sets_by_rate.items())), texts, draws, like, seed)
    return score_conditions(model, texts, plan, size, length, out, resume, progress)


def _conditions(
    sets_by_rate: Mapping[float, Sets], texts: Mapping[str, Corpus], draws: int, like: Any, seed: int
) -> Sequence[Condition]:
    if not sets_by_rate or not all(sets_by_rate.values()):
        raise ValueError("no neurons to switch off: give a NeuronSet per language, as lape or plnd return them")
    if draws < 0:
        raise ValueError(f"draws={draws}: give the number of random sets per language, 0 for none")
    plan = [Condition("", "none", -1, None)]
    for rate, sets in sets_by_rate.items():
        for language, units in sets.items():
            if language not in texts:
                raise ValueError(
                    f"the row {language!r} would have no diagonal: give texts of {language!r}, or leave its set out"
                )
            if language in ("", ALL):
                raise ValueError(f"a language cannot be called {language!r}: tables use that name; give its code")
            plan.append(Condition(language, "own", -1, units, rate))
            if not units:
                at = f" at rate {rate:g}" if rate else ""
                warnings.warn(
                    f"{language!r} has no neurons{at}: nothing can be switched off, so its row is nan", stacklevel=3
                )
                continue
            generator = torch.Generator().manual_seed(int(content_hash(seed, language)[:8], 16))
            frequency = _frequency(like, language)
            plan += [
                Condition(language, "random", draw, matched_random(units, like=frequency, generator=generator), rate)
                for draw in range(draws)
            ]
    return plan


def _frequency(like: Any, language: str) -> Any:
    """The statistics of one language, where they are given per language."""
    if not isinstance(like, Mapping) or set(like) <= set(SITES):
        return like
    if language not in like:
        raise ValueError(
            f"like has no statistics for {language!r}, only for {', '.join(like)}: measure it, or leave like out"
        )
    return like[language]


def score_conditions(
    model: Any, texts: Mapping[str, Corpus], plan: Sequence[Condition], size: int, length: int | None,
    out: str | Path | None, resume: bool, progress: bool,
) -> pd.DataFrame:  # fmt: skip
    """Score the conditions one after another; what is finished stays in `out`."""
    from tqdm.auto import tqdm

    ready = prepare(model, texts, size=size, length=length)
    basis = {"method": "perplexity", "model": fingerprint(model), "size": size, "length": length}
    basis["texts"] = {language: corpus.fingerprint for language, corpus in texts.items()}
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, basis, resume=resume, claim="perplexity.json")
    run = Run("perplexity", {}, describe(model), {language: corpus.facts() for language, corpus in texts.items()})
    tables = []
    with tqdm(plan, unit="run", desc="perplexity", disable=hidden(progress)) as bar:
        for condition in bar:
            bar.set_postfix_str(f"{condition.off} {condition.kind}")
            key = content_hash(basis, *_content(condition.units))
            path = None if folder is None else folder / "conditions" / f"{key}.parquet"
            scored = reuse(path, key, "scoring this condition again")
            if scored is None:
                scored = ready.names.assign(nll=_nll(model, ready, condition))
                if path is not None:
                    save(
                        scored,
                        path,
                        Run(
                            run.method,
                            {"key": key, "off": condition.off, "neurons": condition.kind},
                            run.model,
                            run.corpora,
                        ),
                    )
            labels = {"share": condition.share, "off": condition.off, "neurons": condition.kind, "draw": condition.draw}
            tables.append(scored.assign(**labels, count=len(condition.units or ())))
    return pd.concat(tables, ignore_index=True)[["share", *SCORES]]


def _nll(model: Any, ready: Any, condition: Condition) -> np.ndarray:
    if condition.units is None:
        return ready.scores(model)
    if not condition.units:
        return np.full(len(ready.names), np.nan)
    try:
        with deactivate(model, condition.units):
            return ready.scores(model)
    except ValueError as error:
        raise ValueError(f"{condition.kind} neurons of {condition.off!r} off: {error}") from error


def _content(units: NeuronSet | None) -> Iterator[Any]:
    """What a condition is, whoever asked for it."""
    for site, mask in (units.masks if units is not None else {}).items():
        if bool(mask.any()):
            yield from (site, list(mask.shape), np.packbits(mask.numpy()).tobytes())
    yield units is not None
