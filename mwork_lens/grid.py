"""The deactivation grid: what breaks when neurons are off, by stage and structure, beside controls (paper: Tables 4-7).

For each target language: {its own neurons, those of another language, random draws} in {understanding, task-solving, generation,
all} x {attention, FFN, both}. English is scored with the *same* neurons off. A control draw is one random set with the target's
count in every site and layer, cut into the same cells as the target. A cell without neurons is nan: nothing can be switched off.

`deactivation_scores` makes one row per condition and document; everything else is a pure function of that table:

    grid       per target language: change of the mean log-likelihood per token, with document-bootstrap intervals
    summary    the mean over target languages, as in the paper's tables, with intervals and p-values against the draws

Documents are resampled by their id, jointly for all languages and conditions, so parallel documents stay paired.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch

from .corpora import Corpus
from .detect.chance import matched_random, p_value
from .detect.plnd import Measure, Minus, importances
from .evaluate import prepare, resample
from .interventions import deactivate
from .neurons import NeuronSet
from .progress import hidden
from .sites import ATTENTION_SITES, NEURON_SITES, Site, require_sites
from .stages import STAGES, Stages
from .storage import Run, content_hash, reuse, save

ENGLISH = "en"
STRUCTURES: dict[str, tuple[Site, ...]] = {"attention": ATTENTION_SITES, "ffn": ("ffn",), "both": NEURON_SITES}
ALL_STAGES = (*STAGES, "all")

CONDITION = ("language", "stage", "structure", "neurons", "of", "draw", "count")
SCORES = (*CONDITION, "scored", "document", "tokens", "gain")
CHANGES = ("english", "own", "delta")
GRID = (*CONDITION, *(f"{name}{edge}" for name in CHANGES for edge in ("", "_low", "_high")))


@dataclass(frozen=True)
class Settings:
    """Every choice of a study besides model and texts; recorded with its results."""

    measure: Measure = "output"
    """Importance measure of PLND."""
    top: float = 0.1
    """Share of each layer's units (per site) that counts as the top of a document."""
    consensus: float = 0.9
    """Share of a language's documents whose top must contain the neuron; 1.0 is the paper's intersection."""
    minus: Minus = "others"
    """What makes a consistent neuron language-specific."""
    sites: tuple[Site, ...] = NEURON_SITES
    draws: int = 10
    """Random controls per cell."""
    k: int = 10
    """Top tokens of the lens."""
    seed: int = 0
    held_out: float = 1 / 3
    """Share of documents kept for lens and scores."""
    length: int | None = None
    """Tokens per document at most; None: the model's context."""
    size: int = 16
    """Documents per batch."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", require_sites(self.sites, NEURON_SITES))
        if self.draws < 10:
            raise ValueError(f"draws={self.draws}: a claim against chance needs at least 10 random controls")
        importances(measure=self.measure, sites=self.sites, top=self.top, length=self.length)  # refuses what it must
        if self.minus not in get_args(Minus):
            raise ValueError(f"unknown minus={self.minus!r}: choose from {', '.join(get_args(Minus))}")
        for name, number, least in (("k", self.k, 1), ("size", self.size, 1), ("length", self.length, 2)):
            if number is not None and number < least:
                raise ValueError(f"{name}={number} is too small: give at least {least}")
        for name, value, highest in (("consensus", self.consensus, 1.0), ("held_out", self.held_out, 0.9)):
            if not 0 < value <= highest:
                raise ValueError(f"{name}={value} is not a share: give a number above 0 and at most {highest:g}")


def cells(neurons: NeuronSet, stages: Stages) -> Iterator[tuple[str, str, NeuronSet]]:
    """(stage, structure, part of the set) of the grid."""
    for stage in ALL_STAGES:
        layers = range(neurons.n_layers) if stage == "all" else getattr(stages, stage)
        for structure in STRUCTURES:
            yield stage, structure, cut(neurons, layers, structure)


def cut(neurons: NeuronSet, layers: Iterable[int], structure: str) -> NeuronSet:
    """The part of a set in some layers, of one of `STRUCTURES`; empty if the set speaks of none of its sites."""
    present = [site for site in STRUCTURES[structure] if site in neurons.sites]
    if not present:
        return NeuronSet.empty(neurons.shapes, model=neurons.model)
    return neurons.only(sites=present, layers=layers)


def deactivation_scores(
    model: Any,
    test: Mapping[str, Corpus],
    own: Mapping[str, NeuronSet],
    stages: Stages,
    settings: Settings,
    *,
    folder: Path | None = None,
    run: Run | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score every condition, document by document; finished languages are kept in `folder` and read back.

    Args:
        model: What `load_model` returned.
        test: Held-out documents, English among them.
        own: Each language's specific neurons.
        stages: The split of the layers.
        settings: Draws, seed, batch size and length.
        folder: Where to keep finished languages.
        run: Provenance of what is kept.
        progress: Show a progress bar.

    Returns:
        Columns `SCORES`: `of` is the language the neurons belong to, `draw` the number of a random control (-1 otherwise), `count`
        how many neurons were off, `scored` the language of the document (English or the target), `gain` the change of the
        document's log-likelihood in nats (negative is harm; nan where count is 0 or the
        edit makes logits non-finite).

    Raises:
        ValueError: Logits are not finite without any edit.
        OSError: The folder cannot be written.
    """
    from tqdm.auto import tqdm

    targets = [language for language in test if language != ENGLISH]
    conditions = len(ALL_STAGES) * len(STRUCTURES) * (settings.draws + 2)
    tables = []
    with tqdm(total=len(targets) * conditions, unit="run", desc="deactivation", disable=hidden(progress)) as bar:
        for number, language in enumerate(targets):
            bar.set_postfix_str(language)
            other = targets[(number + 1) % len(targets)] if len(targets) > 1 else ENGLISH
            sizes = [len(layers) for _, layers in stages.items()]
            parameters = None if run is None else run.to_json()["parameters"]
            key = content_hash([list(map(list, own[x])) for x in (language, other)], sizes, parameters)
            path = None if folder is None else folder / "scores" / f"{language}-{key[:12]}.parquet"
            if (kept := reuse(path, key, "scoring this language again")) is not None:
                tables.append(kept)
                bar.update(conditions)
                continue
            ready = prepare(model, test, (ENGLISH, language), size=settings.size, length=settings.length)
            before = ready.scores(model)
            names = ready.names.rename(columns={"language": "scored"})
            parts = []
            for condition, neurons in _conditions(own, language, other, stages, settings):
                gain = np.full(len(names), np.nan)
                if neurons:
                    with deactivate(model, neurons):
                        after = ready.scores(model, finite=False)
                    if np.isfinite(after).all():
                        gain = before - after
                row = dict(zip(CONDITION, (*condition, len(neurons)), strict=True))
                parts.append(names.assign(**row, gain=gain)[list(SCORES)])
                bar.update()
            tables.append(pd.concat(parts, ignore_index=True))
            if path is not None:
                save(tables[-1], path, replace(run or Run("deactivation"), parameters={"key": key}))
    return pd.concat(tables, ignore_index=True)


def _conditions(
    own: Mapping[str, NeuronSet], language: str, other: str, stages: Stages, settings: Settings
) -> Iterator[tuple[tuple[str, str, str, str, str, int], NeuronSet]]:
    """((language, stage, structure, neurons, of, draw), set) of one target language."""
    generator = torch.Generator().manual_seed(int(content_hash(settings.seed, language)[:8], 16))
    controls = [matched_random(own[language], generator=generator) for _ in range(settings.draws)]
    named = [("own", language, -1, own[language]), ("other", other, -1, own[other])]
    named += [("random", "", draw, control) for draw, control in enumerate(controls)]
    for kind, of, draw, neurons in named:
        for stage, structure, part in cells(neurons, stages):
            yield (language, stage, structure, kind, of, draw), part


def _replicates(scores: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Conditions, and changes [condition, change, replicate] with the estimate as replicate 0 and bootstrap ones behind it."""
    documents = list(dict.fromkeys(scores["document"]))
    weights = np.vstack([np.ones(len(documents)), resample(len(documents), seed=seed)])
    column = {document: i for i, document in enumerate(documents)}
    frames, values = [], []
    for condition, part in scores.groupby(list(CONDITION), sort=False):
        sides = []
        for side in (ENGLISH, condition[0]):
            mine = part[part["scored"] == side]
            at = [column[document] for document in mine["document"]]
            with np.errstate(invalid="ignore", divide="ignore"):
                sides.append(
                    (weights[:, at] @ mine["gain"].to_numpy(float)) / (weights[:, at] @ mine["tokens"].to_numpy(float))
                )
        frames.append(condition)
        values.append([*sides, sides[0] - sides[1]])
    return pd.DataFrame(frames, columns=list(CONDITION)), np.array(values)


def _interval(replicates: np.ndarray) -> tuple[float, float, float]:
    """(estimate, low, high) from an estimate followed by its bootstrap replicates."""
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    if not len(drawn):
        return (float(replicates[0]), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(replicates[0]), float(low), float(high)


def changes(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """The grid of each target language.

    Args:
        scores: From `deactivation_scores`.
        seed: Of the bootstrap.

    Returns:
        Columns `GRID`: `english` and `own` are changes of the mean log-likelihood per token (nats; negative is harm) of English and
        of the target language, delta = english - own; each with its 95 % interval.
    """
    conditions, values = _replicates(scores, seed)
    for i, name in enumerate(CHANGES):
        for edge, numbers in zip(("", "_low", "_high"), zip(*map(_interval, values[:, i]), strict=True), strict=True):
            conditions[f"{name}{edge}"] = numbers
    return conditions[list(GRID)]


def summarise(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """The mean over target languages, as the paper's tables are.

    Args:
        scores: From `deactivation_scores`.
        seed: Of the bootstrap.

    Returns:
        Columns stage, structure, neurons, count (mean), eng, non_eng, delta with `_low` and `_high`, p_non_eng, p_delta, draws. For own and
        other, `_low` and `_high` are the 95 % interval of the mean over languages; for random, the value is the mean over
        draws and the edges are the smallest and largest draw. p: one-sided, of own against the draws, which match own's counts (nan for
        other and random). Languages without neurons in a cell do not enter its means.
    """
    conditions, values = _replicates(scores, seed)
    names = dict(zip(("eng", "non_eng", "delta"), range(3), strict=True))
    rows = []
    for (stage, structure), cell in conditions.groupby(["stage", "structure"], sort=False):
        draws = [_mean(values[part.index]) for _, part in cell[cell["neurons"] == "random"].groupby("draw")]
        chance = {name: [float(draw[i, 0]) for draw in draws if np.isfinite(draw[i, 0])] for name, i in names.items()}
        for neurons in ("own", "other", "random"):
            part = cell[cell["neurons"] == neurons]
            sizes = part["count"][part["count"] > 0]
            row: dict[str, Any] = {"stage": stage, "structure": structure, "neurons": neurons}
            row["count"] = sizes.mean() if len(sizes) else 0.0
            for name, i in names.items():
                if neurons == "random":
                    drawn = chance[name] or [float("nan")]
                    estimate, low, high = float(np.mean(drawn)), min(drawn), max(drawn)
                else:
                    estimate, low, high = _interval(_mean(values[part.index])[i])
                row |= {name: estimate, f"{name}_low": low, f"{name}_high": high}
            compare = neurons == "own" and bool(chance["delta"]) and np.isfinite(row["delta"])
            row["p_non_eng"] = p_value(row["non_eng"], chance["non_eng"], larger=False) if compare else float("nan")
            row["p_delta"] = p_value(row["delta"], chance["delta"]) if compare else float("nan")
            row["draws"] = len(chance["delta"])
            rows.append(row)
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the conditions that have an estimate: [condition, change, replicate] to [change, replicate]."""
    present = values[np.isfinite(values[:, 2, 0])]
    return present.mean(axis=0) if len(present) else np.full(values.shape[1:], np.nan)
