"""The MWork study: lens, detection, and deactivation by stage and structure against controls, in one run.

    1. Lens         which language each layer speaks, on held-out documents                        (paper: Figure 1)
    2. Detection    PLND importances on the other documents; consistent, then language-specific neurons     (section 2)
    3. Counts       neurons per layer and site; overlap between languages                                   (Figures 5-6)
    4. Grid         switch off {of the language, of another language, random} neurons in {understanding, task-solving, generation, all}
                    x {attention, FFN, both}; score English and the language itself on held-out documents    (Tables 4-7)

A score is the mean log-likelihood per token (nats), so that, as in the paper, a negative change means harm and
Delta = Delta_Eng - Delta_n-Eng is positive when the language suffers more than English. English is scored with the *same* neurons off.
Random controls match the number of neurons in every site and layer; intervals resample documents, jointly for all languages and
conditions (parallel documents are paired); p-values are empirical, one-sided, over the random draws.

The folder of a study holds parquet tables, safetensors neuron sets, `run.json` and `report.html`. Shards of the detection and finished rows of
the grid are kept as they are made, so an interrupted study continues with `resume=True`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from .analysis import layer_counts, overlap
from .corpora import Corpus, Tokens, batches
from .detect.chance import matched_random, p_value
from .detect.plnd import Measure, Minus, importances, plnd, specific
from .evaluate import document_nll, resample
from .interventions import deactivate
from .lenses import layer_languages
from .measure import Measured, claim_folder, measure
from .models import describe
from .neurons import NeuronSet
from .report import write_report
from .sites import ATTENTION_SITES, NEURON_SITES, Site, n_layers, require_sites
from .stages import STAGES, Stages
from .storage import Run, content_hash, load, save, write_json

STRUCTURES: dict[str, tuple[Site, ...]] = {"attention": ATTENTION_SITES, "ffn": ("ffn",), "both": NEURON_SITES}
ALL_STAGES = (*STAGES, "all")
ENGLISH = "en"

GRID = ("language", "stage", "structure", "neurons", "of", "draw", "count", "english", "english_low", "english_high",
        "own", "own_low", "own_high", "delta", "delta_low", "delta_high")  # fmt: skip


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


@dataclass(frozen=True)
class Study:
    """What a study found. Tables are described where they are made."""

    stages: Stages
    lens: pd.DataFrame
    consistent: dict[str, NeuronSet]
    specific: dict[str, NeuronSet]
    counts: pd.DataFrame
    overlap: pd.DataFrame
    grid: pd.DataFrame
    summary: pd.DataFrame
    findings: tuple[str, ...]
    run: Run
    folder: Path | None = None
    failures: Mapping[str, Mapping[str, str]] | None = None


Say = Callable[[str], None]


def study(
    model: Any,
    corpora: Mapping[str, Corpus],
    stages: Stages | Literal["lens"] = "lens",
    *,
    settings: Settings = Settings(),  # noqa: B008  # frozen
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    say: Say = lambda message: None,
) -> Study:
    """Run the MWork study.

    Args:
        model: What `load_model` returned.
        corpora: Documents per language, English and at least one other; parallel documents share ids and are paired.
        stages: The split of the layers, or `"lens"` to read it off the lens curve.
        settings: Every other choice.
        out: Folder for the results; None keeps them in memory.
        resume: Continue the study that `out` holds.
        progress: Show progress bars.
        say: Told in words what begins.

    Raises:
        ValueError: English or a second language is missing; a corpus is too small to split; stages of another number of layers.
        FileExistsError: `out` holds another run, or this one and `resume` is False.
        DocumentsFailed: Raised at the end, once everything else is computed and saved: some documents could not be measured.
    """
    _require_languages(corpora)
    if isinstance(stages, Stages) and stages.n_layers != n_layers(model):
        raise ValueError(f"these stages divide {stages.n_layers} layers, the model has {n_layers(model)}")
    parts = {language: corpus.split(settings.held_out) for language, corpus in corpora.items()}
    train, test = ({language: part[i] for language, part in parts.items()} for i in (0, 1))
    run = Run(
        "study",
        {**settings.__dict__, "stages": "lens" if stages == "lens" else [len(r) for _, r in stages.items()]},
        describe(model),
        {language: corpus.facts() for language, corpus in corpora.items()},
        settings.seed,
    )
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, {"method": run.method, "model": run.model, "corpora": run.corpora, "parameters": run.parameters}, resume=resume)
        write_json(folder / "run.json", run.to_json())

    say("lens: which language each layer speaks")
    lens = _kept(folder, "lens", run, lambda: layer_languages(model, test, k=settings.k, reference=train, size=settings.size, length=settings.length, seed=settings.seed, progress=progress))
    split = Stages.from_lens(lens) if stages == "lens" else stages

    say("detection: which neurons each language needs")
    statistic = importances(measure=settings.measure, sites=settings.sites, top=settings.top, length=settings.length)
    shards = None if folder is None else folder / "shards"
    measured: Measured[Any] = measure(
        model, train, statistic, out=shards, resume=shards is not None and shards.exists(), chunk=16, allow_failures=True, progress=progress
    )
    consistent = plnd(measured, consensus=settings.consensus, model=model)
    own = specific(consistent, minus=settings.minus)

    say("deactivation: what breaks, by stage and structure, beside random controls")
    grid = _grid(model, test, own, split, settings, folder, run, progress)
    summary = summarise(grid)
    result = Study(split, lens, consistent, own, layer_counts(own), overlap(consistent), grid, summary, findings(lens, own, grid, summary, split, measured.failures), run, folder, measured.failures)  # fmt: skip
    if folder is not None:
        _write(result, folder)
    return result


def _require_languages(corpora: Mapping[str, Corpus]) -> None:
    if ENGLISH not in corpora or len(corpora) < 2:
        raise ValueError(f"the study compares English with other languages: give 'en' and at least one more, got {', '.join(corpora) or 'none'}")
    for language, corpus in corpora.items():
        if len(corpus) < 4:
            raise ValueError(f"corpus {language!r} has {len(corpus)} documents: the study splits it and needs at least 4, better a hundred")


def _kept(folder: Path | None, name: str, run: Run, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table from the folder of a resumed study, or made now and kept."""
    path = None if folder is None else folder / f"{name}.parquet"
    if path is not None and path.exists():
        return load(path)
    table = make()
    if path is not None:
        save(table, path, run)
    return table


def _prepare(model: Any, corpus: Corpus, settings: Settings) -> list[Tokens]:
    return list(batches(corpus, model, size=settings.size, length=settings.length))


def _scores(model: Any, prepared: list[Tokens]) -> np.ndarray:
    """NLL per document."""
    return np.concatenate([document_nll(model, tokens).numpy() for tokens in prepared])


def cells(neurons: NeuronSet, stages: Stages) -> Iterator[tuple[str, str, NeuronSet]]:
    """(stage, structure, part of the set) of the deactivation grid."""
    for stage in ALL_STAGES:
        layers = range(neurons.n_layers) if stage == "all" else getattr(stages, stage)
        for structure, sites in STRUCTURES.items():
            yield stage, structure, neurons.only(sites=[s for s in sites if s in neurons.sites], layers=layers)


def _grid(model: Any, test: Mapping[str, Corpus], own: Mapping[str, NeuronSet], stages: Stages, settings: Settings, folder: Path | None, run: Run, progress: bool) -> pd.DataFrame:  # fmt: skip
    """Rows of `GRID`: changes of the mean log-likelihood per token with paired document-bootstrap intervals."""
    from tqdm.auto import tqdm

    prepared = {language: _prepare(model, corpus, settings) for language, corpus in test.items()}
    before = {language: _scores(model, tokens) for language, tokens in prepared.items()}
    targets = [language for language in test if language != ENGLISH]
    tables = []
    with tqdm(total=len(targets) * len(ALL_STAGES) * len(STRUCTURES) * (settings.draws + 2), unit="run", desc="deactivation", disable=not progress) as bar:
        for number, language in enumerate(targets):
            bar.set_postfix_str(language)
            other = targets[(number + 1) % len(targets)] if len(targets) > 1 else ENGLISH
            key = content_hash([list(map(list, own[x])) for x in (language, other)], [len(r) for _, r in stages.items()])[:12]
            path = None if folder is None else folder / "grid" / f"{language}-{key}.parquet"
            if path is not None and path.exists():
                tables.append(load(path))
                bar.update(len(ALL_STAGES) * len(STRUCTURES) * (settings.draws + 2))
                continue
            scorer = _Scorer(model, prepared, before, test, language, settings)
            rows = []
            for row in _conditions(own, language, other, stages, settings):
                rows.append((*row[:-1], len(row[-1]), *scorer(row[-1])))
                bar.update()
            tables.append(pd.DataFrame(rows, columns=list(GRID)))
            if path is not None:
                save(tables[-1], path, run)
    return pd.concat(tables, ignore_index=True)


def _conditions(own: Mapping[str, NeuronSet], language: str, other: str, stages: Stages, settings: Settings) -> Iterator[tuple[Any, ...]]:
    """(language, stage, structure, neurons, of, draw, set) for one target language.

    A control draw is one random set, cut like the target itself: its attention and FFN parts are those of its "both".
    """
    seed = int(content_hash(settings.seed, language)[:8], 16)
    generator = torch.Generator().manual_seed(seed)
    controls = [matched_random(own[language], generator=generator) for _ in range(settings.draws)]
    named = [("own", language, -1, own[language]), ("other", other, -1, own[other]), *(("random", "", i, c) for i, c in enumerate(controls))]
    for kind, of, draw, neurons in named:
        for stage, structure, part in cells(neurons, stages):
            yield language, stage, structure, kind, of, draw, part


@dataclass(frozen=True)
class _Scorer:
    """Scores one target language and English with a set switched off."""

    model: Any
    prepared: Mapping[str, list[Tokens]]
    before: Mapping[str, np.ndarray]
    test: Mapping[str, Corpus]
    language: str
    settings: Settings

    def __call__(self, neurons: NeuronSet) -> tuple[float, ...]:
        """english, own and delta, each with its interval; nan where there is nothing to switch off."""
        if not neurons:
            return (float("nan"),) * 9
        with deactivate(self.model, neurons):
            after = {x: _scores(self.model, self.prepared[x]) for x in (ENGLISH, self.language)}
        english, own = (self._change(x, after[x]) for x in (ENGLISH, self.language))
        values = []
        for many in (english, own, english - own):
            values += [many[0], *np.quantile(many[1:], [0.025, 0.975])]
        return tuple(float(value) for value in values)

    def _change(self, language: str, after: np.ndarray) -> np.ndarray:
        """Change of the mean log-likelihood per token: of all documents first, then of each resample."""
        tokens = np.concatenate([t.keep[:, 1:].sum(1).numpy() for t in self.prepared[language]]).astype(float)
        weights = np.vstack([np.ones(len(tokens)), resample(len(tokens), seed=self.settings.seed)])
        return (weights @ (self.before[language] - after)) / (weights @ tokens)


def summarise(grid: pd.DataFrame) -> pd.DataFrame:
    """The grid averaged over target languages, as the paper's tables are.

    Returns:
        Columns stage, structure, neurons, count (mean), eng, non_eng, delta with `_low` and `_high`, p_non_eng, p_delta, draws. Intervals of
        own and other: the mean of the languages' intervals' half-widths over sqrt(languages) would assume independence, which parallel
        documents violate; so low and high are the means of the languages' lows and highs, which is conservative. Of random: the smallest
        and largest draw. p: share of draws (plus one) whose harm, or delta, is at least as large.
    """
    names = {"eng": "english", "non_eng": "own", "delta": "delta"}
    rows = []
    for (stage, structure, neurons), part in grid.groupby(["stage", "structure", "neurons"], sort=False):
        controls = grid[(grid["stage"] == stage) & (grid["structure"] == structure) & (grid["neurons"] == "random")].groupby("draw")
        chance = {name: controls[column].mean().dropna().tolist() for name, column in names.items()}
        row: dict[str, Any] = {"stage": stage, "structure": structure, "neurons": neurons, "count": part["count"].mean()}
        for name, column in names.items():
            row[name] = part[column].mean()
            edges = (part[f"{column}_low"].mean(), part[f"{column}_high"].mean())
            row[f"{name}_low"], row[f"{name}_high"] = (min(chance[name], default=np.nan), max(chance[name], default=np.nan)) if neurons == "random" else edges
        compare = neurons != "random" and chance["delta"] and not np.isnan(row["delta"])
        row["p_non_eng"] = p_value(row["non_eng"], chance["non_eng"], larger=False) if compare else np.nan
        row["p_delta"] = p_value(row["delta"], chance["delta"]) if compare else np.nan
        row["draws"] = len(chance["delta"])
        rows.append(row)
    table = pd.DataFrame(rows)
    order = {name: i for i, name in enumerate((*ALL_STAGES, *STRUCTURES, "own", "other", "random"))}
    return table.sort_values(["stage", "structure", "neurons"], key=lambda column: column.map(order)).reset_index(drop=True)


def findings(lens: pd.DataFrame, own: Mapping[str, NeuronSet], grid: pd.DataFrame, summary: pd.DataFrame, stages: Stages, failures: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:  # fmt: skip
    """What was and was not found, in words."""
    return (
        *_lens_findings(lens, stages), *_neuron_findings(own), *_grid_findings(grid, summary),
        *(f"{len(names)} document(s) of {language!r} could not be measured and are left out: {', '.join(list(names)[:5])}."
          for language, names in failures.items()),
    )  # fmt: skip


def _lens_findings(lens: pd.DataFrame, stages: Stages) -> Iterator[str]:
    foreign = lens[lens["text_language"] != ENGLISH]
    own = foreign[foreign["token_language"] == foreign["text_language"]].groupby("layer")["mass"].mean()
    english = foreign[foreign["token_language"] == ENGLISH].groupby("layer")["mass"].mean()
    shared = foreign[foreign["token_language"] == "shared"].groupby("layer")["mass"].mean()
    low, peak = int(own.idxmin()), int(english.idxmax())
    yield (
        f"Under the logit lens, the probability of tokens of the text's own language (texts other than English) is {own.iloc[0]:.0%} at the embedding, "
        f"{own[low]:.0%} at its lowest (layer {low}) and {own.iloc[-1]:.0%} at the output."
    )
    if english[peak] > own[peak]:
        yield f"English is more probable than the text's own language at layer {peak} ({english[peak]:.0%} against {own[peak]:.0%}): an English pivot in the sense of the paper's Figure 1."
    else:
        yield (
            f"No English pivot: English tokens never become more probable than those of the text's own language; they peak at {english[peak]:.0%} (layer {peak}), "
            f"while tokens that several languages share rise to {shared.max():.0%}."
        )
    yield f"Stages used: understanding {_span(stages.understanding)}, task-solving {_span(stages.task_solving)}, generation {_span(stages.generation)}."


def _span(layers: range) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"


def _neuron_findings(own: Mapping[str, NeuronSet]) -> Iterator[str]:
    total = sum(mask.numel() for mask in next(iter(own.values())).masks.values())
    sizes = ", ".join(f"{language} {len(neurons)}" for language, neurons in own.items())
    yield f"Language-specific neurons: {sizes}, of {total} in the sites examined."
    if empty := [language for language, neurons in own.items() if not neurons]:
        yield f"No language-specific neuron was found for {', '.join(empty)}: nothing can be switched off there."


def _grid_findings(grid: pd.DataFrame, summary: pd.DataFrame) -> Iterator[str]:
    whole = summary[(summary["stage"] == "all") & (summary["structure"] == "both")].set_index("neurons")
    if "own" not in whole.index or np.isnan(whole.loc["own", "non_eng"]):
        yield "The deactivation grid is empty: no language has specific neurons."
        return
    o, r = whole.loc["own"], whole.loc["random"]
    harmed = o["non_eng"] < r["non_eng_low"]
    verdict = "more than all" if harmed else "not more than every one of"
    yield (
        f"Switching off a language's own neurons ({o['count']:.0f} on average) changes its log-likelihood by {o['non_eng']:+.3f} nats per token "
        f"[{o['non_eng_low']:+.3f}, {o['non_eng_high']:+.3f}], {verdict} {int(o['draws'])} matched random sets ({r['non_eng_low']:+.3f} to {r['non_eng_high']:+.3f}; p = {o['p_non_eng']:.2f})."
    )
    yield (
        f"English changes by {o['eng']:+.3f} under the same neurons, so Delta = {o['delta']:+.3f} [{o['delta_low']:+.3f}, {o['delta_high']:+.3f}] (p = {o['p_delta']:.2f}): "
        + ("the harm is specific to the language." if o["delta_low"] > 0 and o["p_delta"] <= 0.1 else "no harm specific to the language is shown.")
    )
    single = grid[(grid["stage"] == "all") & (grid["structure"] == "both")]
    not_shown = []
    for language, part in single.groupby("language", sort=False):
        mine = part.loc[part["neurons"] == "own", "own"].iloc[0]
        if not mine < part.loc[part["neurons"] == "random", "own"].min():
            not_shown.append(str(language))
    if not_shown:
        yield f"Not harmed beyond all random controls: {', '.join(not_shown)}."
    parts = summary[(summary["stage"].isin(STAGES)) & (summary["structure"] != "both") & (summary["neurons"] == "own")].dropna(subset=["delta"])
    if len(parts):
        best = parts.loc[parts["delta"].idxmax()]
        yield (
            f"Among single stages and structures, the largest Delta is in {best['structure']} of {str(best['stage']).replace('_', '-')}: {best['delta']:+.3f} "
            f"[{best['delta_low']:+.3f}, {best['delta_high']:+.3f}] with {best['count']:.0f} neurons on average (p = {best['p_delta']:.2f}, not corrected for choosing the largest of {len(parts)})."
        )


def _write(result: Study, folder: Path) -> None:
    for name in ("counts", "overlap", "grid", "summary"):
        save(getattr(result, name), folder / f"{name}.parquet", result.run)
    save(result.consistent, folder / "consistent.safetensors", result.run)
    save(result.specific, folder / "specific.safetensors", result.run)
    save(result.stages, folder / "stages.safetensors", result.run)
    write_json(folder / "run.json", {**result.run.to_json(), "stages": {k: len(r) for k, r in result.stages.items()}, "findings": result.findings,
                                     "failures": result.failures, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")})  # fmt: skip
    write_report(result, folder / "report.html")


def load_study(folder: str | Path) -> Study:
    """A finished study from its folder.

    Raises:
        FileNotFoundError: The folder holds no finished study.
    """
    import json

    folder = Path(folder)
    path = folder / "run.json"
    if not path.is_file() or not (folder / "summary.parquet").is_file():
        raise FileNotFoundError(f"{folder} holds no finished study: run `mwork-lens study --out {folder} --resume` first")
    facts = json.loads(path.read_text(encoding="utf-8"))
    tables = {name: load(folder / f"{name}.parquet") for name in ("lens", "counts", "overlap", "grid", "summary")}
    sets = {name: load(folder / f"{name}.safetensors") for name in ("consistent", "specific")}
    names = Run.__dataclass_fields__
    return Study(
        load(folder / "stages.safetensors"), **tables, **sets, findings=tuple(facts["findings"]), folder=folder,
        run=Run(**{name: facts[name] for name in names}), failures=facts.get("failures"),
    )  # fmt: skip
