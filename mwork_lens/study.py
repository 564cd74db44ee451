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

The folder of a study holds parquet tables, safetensors neuron sets, `run.json` and `report.html`. Shards of the detection and finished languages
of the grid are kept as they are made, so an interrupted study continues with `resume=True`.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from .analysis import layer_counts, overlap
from .corpora import Corpus, encode, token_limit
from .detect.plnd import importances, plnd, specific
from .evaluate import prepare
from .findings import findings
from .grid import ENGLISH, Settings, changes, deactivation_scores, summarise
from .lenses import layer_languages
from .measure import Measured, claim_folder, measure
from .models import describe
from .neurons import NeuronSet
from .report import write_report
from .sites import n_layers, shape_of
from .stages import Stages
from .storage import Run, load, save, write_json


@dataclass(frozen=True)
class Study:
    """What a study found. Tables are described where they are made."""

    stages: Stages
    lens: pd.DataFrame
    consistent: dict[str, NeuronSet]
    specific: dict[str, NeuronSet]
    counts: pd.DataFrame
    overlap: pd.DataFrame
    scores: pd.DataFrame
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

    Documents that cannot be measured do not stop a study: they are in `failures` and among the findings.
    """
    _require_languages(corpora)
    _require_model(model, stages, settings)
    parts = {language: corpus.split(settings.held_out) for language, corpus in corpora.items()}
    train, test = ({language: part[i] for language, part in parts.items()} for i in (0, 1))
    run = Run(
        "study",
        {**settings.__dict__, "stages": "lens" if stages == "lens" else [len(r) for _, r in stages.items()]},
        describe(model),
        {language: corpus.facts() for language, corpus in corpora.items()},
        settings.seed,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*were longer than the limit")
        prepare(model, test, length=settings.length)  # refuses what could not be scored, before anything is computed
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(
            folder,
            {"method": run.method, "model": run.model, "corpora": run.corpora, "parameters": run.parameters},
            resume=resume,
        )
        if not (folder / "run.json").exists():  # a finished study keeps its record until it is finished again
            write_json(folder / "run.json", run.to_json())

    cut = _cut(model, corpora, settings.length)
    for sentence in cut:
        say(sentence)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*were longer than the limit")  # said once, above
        return _run(model, train, test, stages, settings, folder, run, cut, progress, say)


def _run(
    model: Any,
    train: Mapping[str, Corpus],
    test: Mapping[str, Corpus],
    stages: Stages | Literal["lens"],
    settings: Settings,
    folder: Path | None,
    run: Run,
    cut: tuple[str, ...],
    progress: bool,
    say: Say,
) -> Study:
    say("lens: which language each layer speaks")
    options: dict[str, Any] = {
        "size": settings.size,
        "length": settings.length,
        "seed": settings.seed,
        "progress": progress,
    }
    lens = _kept(folder, "lens", run, lambda: layer_languages(model, test, k=settings.k, reference=train, **options))
    split = Stages.from_lens(lens) if stages == "lens" else stages

    say("detection: which neurons each language needs")
    statistic = importances(measure=settings.measure, sites=settings.sites, top=settings.top, length=settings.length)
    shards = None if folder is None else folder / "shards"
    measured: Measured[Any] = measure(
        model,
        train,
        statistic,
        out=shards,
        resume=shards is not None and shards.exists(),
        chunk=16,
        allow_failures=True,
        progress=progress,
    )
    if lost := [language for language in train if language not in measured]:
        raise ValueError(
            f"no document of {lost[0]!r} could be measured: {dict(measured.failures[lost[0]])}; the lens and other shards are kept"
        )
    consistent = plnd(measured, consensus=settings.consensus, model=model)
    own = specific(consistent, minus=settings.minus)

    say("deactivation: what breaks, by stage and structure, beside random controls")
    scores = deactivation_scores(model, test, own, split, settings, folder=folder, run=run, progress=progress)
    grid, summary = changes(scores, seed=settings.seed), summarise(scores, seed=settings.seed)
    said = (*findings(lens, own, grid, summary, split, measured.failures), *cut)
    result = Study(
        stages=split, lens=lens, consistent=consistent, specific=own, counts=layer_counts(own), overlap=overlap(consistent),
        scores=scores, grid=grid, summary=summary, findings=said, run=run, folder=folder, failures=measured.failures,
    )  # fmt: skip
    if folder is not None:
        _write(result, folder)
    return result


def _cut(model: Any, corpora: Mapping[str, Corpus], length: int | None) -> tuple[str, ...]:
    """A sentence about documents that are longer than the limit, if there are any."""
    longer = {language: encode(corpus, model, length=length)[1] for language, corpus in corpora.items()}
    counted = ", ".join(
        f"{language} {count} of {len(corpora[language])}" for language, count in longer.items() if count
    )
    limit = token_limit(model, length)
    return (f"Documents are cut at {limit} tokens: {counted}.",) if counted else ()


def _require_model(model: Any, stages: Stages | str, settings: Settings) -> None:
    """Refuse now what would only fail after the lens."""
    layers, vocab = n_layers(model), int(model.W_U.shape[1])
    if layers < 3:
        raise ValueError(f"the study divides the layers into three stages: this model has {layers} layer(s)")
    if isinstance(stages, Stages) and stages.n_layers != layers:
        raise ValueError(f"these stages divide {stages.n_layers} layers, the model has {layers}")
    if not isinstance(stages, Stages) and stages != "lens":
        raise ValueError(f"stages={stages!r}: give 'lens', or Stages.of(n_layers, understanding=, generation=)")
    if settings.k > vocab:
        raise ValueError(f"k={settings.k}: the model's vocabulary has {vocab} tokens")
    shape_of(model, settings.sites)  # refuses a site that this model lacks


def _require_languages(corpora: Mapping[str, Corpus]) -> None:
    if ENGLISH not in corpora or len(corpora) < 2:
        raise ValueError(
            f"the study compares English with other languages: give 'en' and at least one more, got {', '.join(corpora) or 'none'}"
        )
    for language, corpus in corpora.items():
        if len(corpus) < 4:
            raise ValueError(
                f"corpus {language!r} has {len(corpus)} documents: the study splits it and needs at least 4, better a hundred"
            )


def _kept(folder: Path | None, name: str, run: Run, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table from the folder of a resumed study, or made now and kept."""
    path = None if folder is None else folder / f"{name}.parquet"
    if path is not None and path.exists():
        return load(path)
    table = make()
    if path is not None:
        save(table, path, run)
    return table


def _write(result: Study, folder: Path) -> None:
    for name in ("counts", "overlap", "scores", "grid", "summary"):
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
        raise FileNotFoundError(
            f"{folder} holds no finished study: run `mwork-lens study --out {folder} --resume` first"
        )
    facts = json.loads(path.read_text(encoding="utf-8"))
    if "findings" not in facts:
        raise FileNotFoundError(f"the study in {folder} is not finished: run it again with --resume")
    tables = {
        name: load(folder / f"{name}.parquet") for name in ("lens", "counts", "overlap", "scores", "grid", "summary")
    }
    sets = {name: load(folder / f"{name}.safetensors") for name in ("consistent", "specific")}
    names = Run.__dataclass_fields__
    return Study(
        load(folder / "stages.safetensors"), **tables, **sets, findings=tuple(facts["findings"]), folder=folder,
        run=Run(**{name: facts[name] for name in names}), failures=facts.get("failures"),
    )  # fmt: skip
