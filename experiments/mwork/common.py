"""What the scripts of the MWork tables share: arguments, model, tasks, texts, detected neurons, stages, and how results are written.

Texts: of each three documents, two are for detection, one is held out for the lens (`Corpus.split`). Languages: those that both the texts and the
tasks have, English among them. Everything that runs the model is kept in --out under a name made of its content: the same command again goes on
where it stopped, and other settings do not collide with what is there. The paper is arXiv 2402.18815; its numbers are of Vicuna-7B and Mistral-7B.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from scipy.stats import false_discovery_control

import mwork_lens as mw
from mwork_lens.ability_tables import holm
from mwork_lens.detect.plnd import Minus
from mwork_lens.storage import content_hash, reuse, save, write_json, write_text
from mwork_lens.tasks.ask import fitting
from mwork_lens.tasks.files import embedded_folder
from mwork_lens.tasks.task import ABILITIES

ENGLISH = "en"
VERSION = 2
"""Of the tables that `Bench.table` keeps. Raise it when what one of them holds changes: kept tables of another version are not used."""


@dataclass(frozen=True)
class Bench:
    """A model, its texts and tasks, and where things go."""

    name: str
    arguments: argparse.Namespace
    model: Any
    tasks: dict[str, mw.Task]
    texts: dict[str, mw.Corpus]
    started: float = field(default_factory=time.time)

    @property
    def out(self) -> Path:
        """Folder of whatever can be resumed."""
        return self.arguments.out

    @property
    def languages(self) -> tuple[str, ...]:
        """English first."""
        return tuple(self.texts)

    @cached_property
    def detection(self) -> dict[str, mw.Corpus]:
        """Documents on which neurons are found."""
        return {language: corpus.split()[0] for language, corpus in self.texts.items()}

    @cached_property
    def held_out(self) -> dict[str, mw.Corpus]:
        """Documents for the lens."""
        return {language: corpus.split()[1] for language, corpus in self.texts.items()}

    @cached_property
    def labels(self) -> Any:
        """Language of each token, counted in the texts for detection and in what the tasks say: texts alone lack the words of many an answer."""
        said = {
            language: [
                text
                for task in self.tasks.values()
                if language in task.languages
                for text in task.corpus(language).texts
            ]
            for language in self.languages
        }
        known = {x: mw.Corpus(x, (*corpus.texts, *said[x])) for x, corpus in self.detection.items()}
        return mw.token_languages(self.model, known)

    @property
    def key(self) -> str:
        """Hash of the model and the texts."""
        return content_hash(mw.fingerprint(self.model), [c.fingerprint for c in self.texts.values()])[:8]

    @cached_property
    def lens(self) -> pd.DataFrame:
        """`layer_languages` of the held-out documents."""
        options = {"length": self.arguments.length, "reference": self.detection, "seed": self.arguments.seed}
        return self.table(
            "lens",
            [self.arguments.length, self.arguments.seed],
            lambda: mw.layer_languages(self.model, self.held_out, **options),
        )

    @cached_property
    def stages(self) -> mw.Stages:
        """From --stages, else read off the lens as the study does."""
        layers = self.model.cfg.n_layers
        if self.arguments.stages:
            first, last = self.arguments.stages
            return mw.Stages.of(layers, understanding=first, generation=last)
        return mw.Stages.from_lens(self.lens)

    @cached_property
    def consistent(self) -> dict[str, mw.NeuronSet]:
        """Neurons that each language activates consistently; settings as in the study."""
        statistic = mw.importances(measure="output", top=self.arguments.top, length=self.arguments.length)
        settings = content_hash(statistic.parameters())[:6]
        out = self.out / f"importances-{self.key}-{settings}"
        found = mw.measure(self.model, self.detection, statistic, out=out, resume=True)
        return mw.plnd(found, consensus=self.arguments.consensus, model=self.model)

    @cached_property
    def own(self) -> dict[str, mw.NeuronSet]:
        """Language-specific neurons."""
        sets = mw.specific(self.consistent, minus=self.arguments.minus)
        print("neurons: " + ", ".join(f"{language} {len(units)}" for language, units in sets.items()), flush=True)
        return sets

    def table(self, name: str, settings: Any, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table that is made once and kept in --out; found by model, texts, settings and `VERSION`."""
        key = content_hash(VERSION, self.key, name, settings)
        path = self.out / "tables" / f"{name}-{key[:12]}.parquet"
        if (found := reuse(path, key, "making this table again")) is None:
            found = make()
            save(found, path, mw.Run(name, {"key": key}))
        return found

    def scores(
        self,
        tasks: Sequence[mw.Task],
        own: Mapping[str, mw.NeuronSet],
        *,
        stages: mw.Stages | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """`ability_scores` kept in --out, with its cost said in advance."""
        from mwork_lens.abilities import ability_cost, ability_scores

        split = stages or self.stages
        seed = self.arguments.seed
        plan = {key: options[key] for key in ("rows", "draws", "others") if key in options}
        items = ability_cost(tasks, own, split, seed=seed, **plan)
        how = "accuracy" if options.get("score") == "accuracy" else "log-likelihood"
        rate = self._rate(tasks, options.get("score", "nll"), options.get("identify"))
        print(f"{items} items by {how}: about {items / rate / 60:.1f} minutes, less what is kept", flush=True)
        return ability_scores(
            self.model, tasks, own, split, seed=seed, size=self.arguments.size, folder=self.out, **options
        )

    def _rate(self, tasks: Sequence[mw.Task], score: str, identify: Any) -> float:
        """Items a second, on a few items of every task."""
        few = [task.take(8) for task in tasks]
        asked = [task.as_loglik() if score == "nll" else task for task in few]
        begun = time.time()
        mw.answer_scores(self.model, asked, identify=identify, size=self.arguments.size, progress=False)
        return sum(map(len, asked)) / (time.time() - begun)

    def finish(
        self,
        tables: Mapping[str, pd.DataFrame],
        figures: Mapping[str, Any],
        markdown: str,
        findings: Sequence[str] = (),
        **facts: Any,
    ) -> None:
        """Write NAME_*.csv, NAME.json (settings, findings, provenance), NAME_*.svg and NAME.md, and print the table."""
        from mwork_lens.plots import write_svg

        folder = self.arguments.results or self.out / "results"
        for key, table in tables.items():
            write_text(folder / f"{self.name}_{key}.csv", table.round(6).to_csv(index=False))
        for key, figure in figures.items():
            write_svg(figure, folder / f"{self.name}_{key}.svg")
        given = {
            k: str(v) if isinstance(v, Path) else v
            for k, v in vars(self.arguments).items()
            if k not in ("out", "results")
        }
        corpora = {language: corpus.facts() for language, corpus in self.texts.items()}
        items = {name: {x: task.fingerprint(x) for x in task.languages} for name, task in self.tasks.items()}
        run = mw.Run(
            f"mwork/{self.name}", given | {"items": items}, mw.describe(self.model), corpora, self.arguments.seed
        )
        seconds = round(time.time() - self.started)
        write_json(
            folder / f"{self.name}.json",
            {"findings": list(findings), **facts, "seconds": seconds, "run": run.to_json()},
        )
        write_text(folder / f"{self.name}.md", markdown.rstrip() + "\n")
        print(markdown.rstrip())
        print("\n".join(findings))
        print(f"{seconds} s; results in {folder}")


def begin(name: str, description: str | None, extend: Callable[[argparse.ArgumentParser], None] | None = None) -> Bench:
    """Read the command line and load model, tasks and texts; `description` is the script's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="local folder or hub id; default the embedded `organism`")
    parser.add_argument("--tasks", type=Path, help="folder of <task>.jsonl; default the embedded ones")
    parser.add_argument(
        "--texts",
        help="folder of <language>.txt or .jsonl, `organism` or `embedded`; default those of the organism's own world for it, "
        "else `embedded` (natural sentences)",
    )
    parser.add_argument("--languages", nargs="+", help="codes; default all that texts and tasks have")
    parser.add_argument("--draws", type=int, default=20, help="random controls")
    parser.add_argument(
        "--set-draws",
        type=int,
        default=2000,
        help="random controls of what only counts neurons and never runs the model",
    )
    parser.add_argument("--limit", type=int, default=144, help="documents per language at most")
    parser.add_argument(
        "--ask",
        nargs="+",
        help="tasks by name, or by the ability that their name ends in; default one an ability, else all there are",
    )
    parser.add_argument("--items", type=int, default=24, help="items per task and language at most")
    parser.add_argument("--length", type=int, help="tokens per document at most; default all")
    parser.add_argument("--stages", type=int, nargs=2, metavar=("N1", "N2"), help="layers of the first and last stage")
    parser.add_argument("--top", type=float, default=0.1, help="share of each layer's units that a document activates")
    parser.add_argument("--consensus", type=float, default=0.9, help="share of documents that must activate a neuron")
    parser.add_argument("--minus", default="others", help="what makes a neuron specific: others, english, common, none")
    parser.add_argument("--size", type=int, default=16, help="texts per batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--smoke", action="store_true", help="two languages, few items and draws: only tries the script"
    )
    parser.add_argument("--out", type=Path, help="what can be resumed; default runs/mwork (runs/mwork-smoke)")
    parser.add_argument("--results", type=Path, help="default OUT/results")
    if extend is not None:
        extend(parser)
    given = parser.parse_args()
    check(given)
    given.out = given.out or Path("runs/mwork-smoke" if given.smoke else "runs/mwork")
    given.texts = given.texts or ("organism" if given.model in (None, "organism") else "embedded")
    if given.smoke:
        given.languages = given.languages or ["en", "zh"]
        given.limit, given.items, given.draws, given.length = min(given.limit, 12), 3, min(given.draws, 3), 32
        given.set_draws = min(given.set_draws, 50)
    model = mw.load_model(*([given.model] if given.model else []))
    check_stages(given.stages, model.cfg.n_layers)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        tasks = {task.name: fitting(model, task) for task in _tasks(given.tasks)}
    texts = mw.load_corpora(given.texts, limit=given.limit)
    known = [x for x in texts if any(x in task.languages for task in tasks.values())] if tasks else list(texts)
    chosen = given.languages or known
    if lost := sorted({x for task in tasks.values() for x in task.languages} - set(texts)):
        print(f"{name}: tasks but no texts, so left out: {', '.join(lost)}", flush=True)
    if missing := [language for language in chosen if language not in known]:
        raise SystemExit(f"{missing[0]!r} is not among the languages of both texts and tasks: {', '.join(known)}")
    if ENGLISH not in chosen or len(chosen) < 2:
        raise SystemExit(f"English and another language are needed; texts and tasks have {', '.join(known)}")
    order = [ENGLISH, *(language for language in chosen if language != ENGLISH)]
    held = {
        name: task.only([x for x in order if x in task.languages]).take(given.items, given.seed)
        for name, task in tasks.items()
        if ENGLISH in task.languages
    }
    print(f"{name}: {', '.join(order)}; tasks {', '.join(held) or 'none'}; out {given.out}", flush=True)
    return Bench(name, given, model, held, {language: texts[language] for language in order})


def check(given: argparse.Namespace) -> None:
    """Refuse settings that cannot be, before anything is loaded."""
    for name in ("draws", "set_draws", "accuracy_draws", "limit", "items", "size"):
        if (number := getattr(given, name, 1)) < 1:
            raise SystemExit(f"--{name.replace('_', '-')} {number}: give at least 1")
    if given.length is not None and given.length < 2:
        raise SystemExit(f"--length {given.length}: give at least 2, or leave it out")
    for name in ("top", "consensus"):
        if not 0 < (share := getattr(given, name)) <= 1:
            raise SystemExit(f"--{name} {share}: give a share above 0 and at most 1")
    if given.minus not in get_args(Minus):
        raise SystemExit(f"--minus {given.minus}: choose from {', '.join(get_args(Minus))}")


def check_stages(stages: Sequence[int] | None, layers: int) -> None:
    """Refuse stages that leave one of the three without a layer."""
    try:
        if stages is not None:
            mw.Stages.of(layers, understanding=stages[0], generation=stages[1])
    except ValueError as error:
        raise SystemExit(f"--stages {stages[0]} {stages[1]}: {error}") from error


def _tasks(folder: Path | None) -> list[mw.Task]:
    place = folder or embedded_folder() / "organism"
    files = sorted(place.glob("*.jsonl"))
    if folder is not None and not files:
        raise SystemExit(f"no task (*.jsonl) in {folder}: check --tasks")
    return [mw.load_task(path) for path in files]


def need(bench: Bench, *abilities: str) -> list[mw.Task]:
    """The tasks of --ask, or of these abilities; by default one an ability, named like it, or all there are."""
    allowed = abilities or ABILITIES
    if asked := bench.arguments.ask:
        found = [_named(bench, name) for name in asked]
        if missing := [name for name, task in zip(asked, found, strict=True) if task is None]:
            raise SystemExit(f"no task {missing[0]!r} (--ask): there are {', '.join(bench.tasks) or 'none'}")
    else:
        found = [_of_ability(bench, ability) for ability in allowed]
        if not any(found):
            found = list(bench.tasks.values())
    kept = {task.name: task for task in found if task is not None and task.ability in allowed}
    if not kept:
        raise SystemExit(f"no task of {', '.join(allowed)}: there are {', '.join(bench.tasks) or 'none'}")
    return list(kept.values())


def _named(bench: Bench, name: str) -> mw.Task | None:
    """The task of this name or, if there is none, that whose name ends in it: `cloze` is `organism-cloze`."""
    if name in bench.tasks:
        return bench.tasks[name]
    ends = tuple(f"{mark}{name}" for mark in "-_/. ")
    return next((task for known, task in bench.tasks.items() if known.endswith(ends)), None)


def _of_ability(bench: Bench, ability: str) -> mw.Task | None:
    """The task of an ability that is named like it: `understanding`, or `organism-understanding`."""
    task = _named(bench, ability)
    return task if task is not None and task.ability == ability else None


def corrected(grids: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of `ability_grid` as one, its p-values corrected over all rows of a task: one grid only knows of its own rows."""
    table = pd.concat(grids, ignore_index=True)
    for name in ("non_eng", "delta"):
        for _, part in table[table[f"p_{name}"].notna()].groupby("task", sort=False):
            table.loc[part.index, f"holm_{name}"] = holm(part[f"p_{name}"].to_numpy(float))
            table.loc[part.index, f"bh_{name}"] = false_discovery_control(part[f"p_{name}"])
            table.loc[part.index, f"fisher_holm_{name}"] = holm(part[f"fisher_{name}"].to_numpy(float))
    return table


def signed(value: float, digits: int = 1, scale: float = 1.0) -> str:
    """With a sign, and a minus that is one; a dash for what is not known."""
    return "–" if value != value else f"{scale * value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def interval(row: Mapping[str, Any], name: str, digits: int = 1, scale: float = 1.0) -> str:
    """`+12.0 [+10.0, +14.0]` from the columns name, name_low and name_high."""
    if row[name] != row[name]:
        return "–"
    ends = ", ".join(signed(row[f"{name}_{end}"], digits, scale) for end in ("low", "high"))
    return f"{signed(row[name], digits, scale)} [{ends}]"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table to be pasted into a page."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def facts(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as JSON values, to four digits."""
    return json.loads(table.round(4).to_json(orient="records"))
