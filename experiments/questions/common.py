"""What the scripts of the open questions share: the command line, model, texts, tasks, neurons, stages, and how results are written.

Every script runs on the embedded organism, whose languages and facts are known, and on any `--model` with `--texts` (a folder of <language>.txt)
and `--task` (a .jsonl, or an embedded task). Neurons are found by PLND on the first two thirds of the texts, specific ones against the other
languages; `--top` and `--consensus` make the sets larger (a dose). Random sets have as many neurons in every site and layer.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

import mwork_lens as mw
from mwork_lens.storage import Run, content_hash, write_json, write_text

ENGLISH = "en"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")


@dataclass(frozen=True)
class Bench:
    """A model, its texts, and where things go."""

    name: str
    given: argparse.Namespace
    model: Any
    texts: dict[str, mw.Corpus]
    started: float = field(default_factory=time.time)

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
        """The others."""
        return {language: corpus.split()[1] for language, corpus in self.texts.items()}

    def kept(self, name: str, *settings: Any) -> Path:
        """Folder in --out for what can be resumed, named by everything that decides it: other models, texts or settings do not collide."""
        key = content_hash(mw.fingerprint(self.model), [c.fingerprint for c in self.texts.values()], *settings)
        return self.given.out / f"{name}-{key[:10]}"

    @cached_property
    def labels(self) -> Any:
        """Language of each token, from the texts and from what the task says: texts alone lack the words of many an answer."""
        task = self.task(self.given.task)
        said = {x: task.corpus(x).texts if x in task.languages else () for x in self.languages}
        return mw.token_languages(
            self.model, {x: mw.Corpus(x, (*c.texts, *said[x])) for x, c in self.detection.items()}
        )

    @cached_property
    def stages(self) -> mw.Stages:
        """From --stages, else read off the lens."""
        if self.given.stages:
            first, last = self.given.stages
            return mw.Stages.of(self.model.cfg.n_layers, understanding=first, generation=last)
        lens = mw.layer_languages(self.model, self.held_out, reference=self.detection, seed=self.given.seed)
        return mw.Stages.from_lens(lens)

    @cached_property
    def own(self) -> dict[str, mw.NeuronSet]:
        """Each language's specific neurons."""
        statistic = mw.importances(top=self.given.top)
        folder = self.kept("importances", statistic.parameters())
        sums = mw.measure(self.model, self.detection, statistic, out=folder, resume=True)
        sets = mw.specific(mw.plnd(sums, consensus=self.given.consensus, model=self.model), minus="others")
        print("neurons: " + ", ".join(f"{language} {len(units)}" for language, units in sets.items()), flush=True)
        return sets

    def task(self, name: str) -> mw.Task:
        """A task in the languages of the texts, English first, items that fit."""
        from mwork_lens.tasks.ask import fitting

        task = mw.load_task(name)
        order = [x for x in self.languages if x in task.languages]
        if ENGLISH not in order or len(order) < 2:
            raise SystemExit(
                f"task {name!r} has no items in English and another language of the texts: {', '.join(task.languages)}"
            )
        return fitting(self.model, task.only(order))

    def finish(
        self, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Any], findings: Sequence[str], **facts: Any
    ) -> None:
        """Write NAME_*.csv, NAME_*.svg and NAME.json (findings, settings, provenance), and print the findings."""
        from mwork_lens.plots import write_svg

        folder = self.given.results
        folder.mkdir(parents=True, exist_ok=True)
        for key, table in tables.items():
            write_text(folder / f"{self.name}_{key}.csv", table.round(5).to_csv(index=False))
        for key, figure in figures.items():
            write_svg(figure, folder / f"{self.name}_{key}.svg")
        settings = {
            k: str(v) if isinstance(v, Path) else v for k, v in vars(self.given).items() if k not in ("results", "out")
        }
        corpora = {language: corpus.facts() for language, corpus in self.texts.items()}
        run = Run(f"experiments/questions/{self.name}", settings, mw.describe(self.model), corpora, self.given.seed)
        seconds = round(time.time() - self.started)
        write_json(
            folder / f"{self.name}.json",
            {"findings": list(findings), **facts, "seconds": seconds, "run": run.to_json()},
        )
        print("\n".join(findings))
        print(f"{seconds} s; results in {folder}")


def begin(name: str, description: str | None, extend: Callable[[argparse.ArgumentParser], None] | None = None) -> Bench:
    """Read the command line, load model and texts; `description` is the script's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism", help="local folder, hub id or an embedded model")
    parser.add_argument("--texts", default="organism", help="folder of <language>.txt or .jsonl, or embedded texts")
    parser.add_argument("--languages", nargs="+", help="codes; default all that the texts have")
    parser.add_argument("--limit", type=int, default=144, help="documents per language at most")
    parser.add_argument("--stages", type=int, nargs=2, metavar=("N1", "N2"), help="layers of the first and last stage")
    parser.add_argument("--top", type=float, default=0.1, help="share of each layer's units that a document activates")
    parser.add_argument("--consensus", type=float, default=0.9, help="share of documents that must activate a neuron")
    parser.add_argument("--draws", type=int, default=20, help="random sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/questions"), help="what can be resumed")
    parser.add_argument("--results", type=Path, help="default OUT/results")
    parser.add_argument(
        "--smoke", action="store_true", help="two languages, few documents and draws: only tries the script"
    )
    if extend is not None:
        extend(parser)
    given = parser.parse_args()
    given.results = given.results or given.out / "results"
    if given.draws < 2:
        raise SystemExit(f"--draws {given.draws}: a comparison with chance needs at least 2 random sets, better 20")
    if given.smoke:
        given.languages, given.limit, given.draws = given.languages or [ENGLISH, "zh"], 12, 3
    texts = mw.load_corpora(given.texts, limit=given.limit)
    chosen = given.languages or list(texts)
    if missing := [language for language in chosen if language not in texts]:
        raise SystemExit(f"no texts of {missing[0]!r} in {given.texts}: there are {', '.join(texts)}")
    if ENGLISH not in chosen or len(chosen) < 2:
        raise SystemExit(f"English and another language are needed: got {', '.join(chosen)}")
    if not 0 < given.top < 1 or not 0 < given.consensus <= 1:
        raise SystemExit(
            f"--top {given.top} and --consensus {given.consensus} are shares: give numbers between 0 and 1"
        )
    model = mw.load_model(given.model)
    if given.stages:
        try:
            mw.Stages.of(model.cfg.n_layers, understanding=given.stages[0], generation=given.stages[1])
        except ValueError as error:
            raise SystemExit(f"--stages {given.stages[0]} {given.stages[1]}: {error}") from None
    order = [ENGLISH, *(language for language in chosen if language != ENGLISH)]
    return Bench(name, given, model, {language: texts[language] for language in order})


def random_like(units: mw.NeuronSet, draws: int, seed: int, label: str) -> list[mw.NeuronSet]:
    """Random sets with as many neurons in every site and layer."""
    import torch

    generator = torch.Generator().manual_seed(int(content_hash(seed, label)[:8], 16))
    return [mw.matched_random(units, generator=generator) for _ in range(draws)]


def panels(count: int, width: float = 2.1, height: float = 2.5, **options: Any) -> tuple[Any, Any]:
    """A row of panels in the house's style; call it inside `house_style()`."""
    from mwork_lens.plots.style import make_figure

    figure = make_figure(0.8 + width * count, height)
    return figure, figure.subplots(1, count, squeeze=False, **options)[0]


def number(value: float, digits: int = 2) -> str:
    """With a sign, and a minus that is one."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
