"""Abilities without neurons: the MWork tables (paper: Tables 4-7), from items of tasks and one stored baseline.

For each target language t other than English, a part of its own neurons is switched off, and two languages are asked: t and English.

    d_non_eng = mean over t of [score of t after - before],   d_eng = mean over t of [score of English after - before],   delta = d_eng - d_non_eng

Rows are parts of a set: U (first layers), S (middle), G (last), each with A (attention) or F (FFN) behind it or neither, joined by `+`. Every row
is scored with the target's own neurons (`specific`), those of another language (`other`), and `random` sets that have as many neurons in every
site and layer. The paper's columns imply several baselines per table; here all differences are against one (ability_tables.py).

`score="accuracy"` asks items as their task does (choose, generate); `"nll"` takes the log-likelihood of the reference answer (nats an answer),
one forward pass an item, for grids with many draws.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from .detect.chance import matched_random
from .grid import ENGLISH, cut
from .interventions import deactivate
from .models import describe, fingerprint
from .neurons import NeuronSet
from .progress import hidden
from .sites import NEURON_SITES
from .stages import Stages
from .storage import Run, content_hash, reuse, save
from .tasks import ask
from .tasks.ask import WRITTEN, behaviour, identifier_facts, prepare_items
from .tasks.run import answer_scores
from .tasks.task import Task
from .writing.identify import Identifier

ROWS = ("U", "UA", "UF", "SA", "SF", "SA+SF", "G", "GA", "GF", "U+G", "U+SF+G", "U+SA+SF+G")
"""Stage by structure, and the paper's unions."""
EVERYWHERE = "U+SA+SF+G"

CONDITION = ("target", "row", "neurons", "of", "draw", "count")
SCORES = ("task", "ability", "metric", *CONDITION, "language", "item", "score", *WRITTEN, "tokens")
"""Columns of `ability_scores`: one row a condition and item."""

VERSION = 1
"""Of the rows of `ability_scores`, beside that of the scores (`ask.VERSION`). Raise it when they change: kept parts of another are not used."""

_PIECE = re.compile(r"([USG])([AF]?)")
_STAGE = {"U": "understanding", "S": "task_solving", "G": "generation"}
_STRUCTURE = {"": "both", "A": "attention", "F": "ffn"}
_DRAWS = 10  # random draws that are kept in one file


@dataclass(frozen=True)
class Condition:
    """One set of neurons to switch off."""

    target: str
    row: str
    neurons: str
    """specific, other or random."""
    of: str
    """Language the neurons belong to; empty for random ones."""
    draw: int
    """Number of a random control, else -1."""
    units: NeuronSet

    @property
    def label(self) -> str:
        """Its name among the conditions of its target and row."""
        return f"{self.neurons} {self.draw}" if self.neurons == "random" else self.neurons


def part_of(neurons: NeuronSet, stages: Stages, row: str) -> NeuronSet:
    """The part of a set that a row of the table names, such as `SA` or `U+SF+G`.

    Raises:
        ValueError: The row is not written so; the stages are of another number of layers; the set speaks of sites that are no neurons.
    """
    pieces = [_PIECE.fullmatch(piece) for piece in row.split("+")]
    if not all(pieces):
        raise ValueError(
            f"unknown row {row!r}: join pieces by '+', each U, S or G, with A (attention) or F (FFN) behind it if wanted"
        )
    if stages.n_layers != neurons.n_layers:
        raise ValueError(f"these stages divide {stages.n_layers} layers, the set is of a model of {neurons.n_layers}")
    if strange := [site for site, mask in neurons.masks.items() if site not in NEURON_SITES and bool(mask.any())]:
        raise ValueError(f"a set at {strange[0]!r} has no place in the rows: look at it from 'ffn' (neurons.at('ffn'))")
    found = NeuronSet.empty(neurons.shapes, model=neurons.model)
    for piece in filter(None, pieces):
        found = found | cut(neurons, getattr(stages, _STAGE[piece[1]]), _STRUCTURE[piece[2]])
    return found


def ability_conditions(
    own: Mapping[str, NeuronSet],
    stages: Stages,
    *,
    rows: Sequence[str] = ROWS,
    draws: int = 20,
    others: bool = True,
    seed: int = 0,
) -> Iterator[Condition]:
    """Everything that is switched off, by target and row; the first draws of a larger number are those of a smaller.

    Args:
        own: Each language's specific neurons; English is no target, but may be the other language.
        stages: The split of the layers.
        rows: Parts to switch off.
        draws: Random controls per target and row; a draw is one set, cut into all rows.
        others: Whether the neurons of another language (the next one) are a control too.
        seed: Of the draws; targets draw independently.

    Raises:
        ValueError: As in `part_of`; a row twice; draws below 1; no language besides English.
    """
    targets = [language for language in own if language != ENGLISH]
    if not targets:
        raise ValueError(f"no language besides {ENGLISH!r} has neurons to switch off: got {', '.join(own) or 'none'}")
    if draws < 1:
        raise ValueError(f"draws={draws}: a comparison with chance needs at least 1 random control, better 20")
    if len(set(rows)) < len(rows) or not rows:
        raise ValueError(f"rows must differ, and there must be one: got {', '.join(rows) or 'none'}")
    for number, target in enumerate(targets):
        generator = torch.Generator().manual_seed(int(content_hash(seed, target)[:8], 16))
        sets = [("specific", target, -1, own[target])]
        other = targets[(number + 1) % len(targets)] if len(targets) > 1 else ENGLISH
        if others and other in own:
            sets.append(("other", other, -1, own[other]))
        sets += [("random", "", i, matched_random(own[target], generator=generator)) for i in range(draws)]
        for row in rows:
            for kind, of, draw, units in sets:
                yield Condition(target, row, kind, of, draw, part_of(units, stages, row))


def ability_cost(tasks: Sequence[Task], own: Mapping[str, NeuronSet], stages: Stages, **options: Any) -> int:
    """How many items `ability_scores` asks with these options of `ability_conditions`, the baseline included."""
    each = {t: sum(len(x.of(ENGLISH)) + len(x.of(t)) for x in _having(tasks, t)) for t in own if t != ENGLISH}
    base = sum(len(task.of(x)) for task in tasks for x in task.languages if x in own or x == ENGLISH)
    return base + sum(each[one.target] for one in ability_conditions(own, stages, **options) if one.units)


def ability_scores(
    model: Any,
    tasks: Sequence[Task],
    own: Mapping[str, NeuronSet],
    stages: Stages,
    *,
    score: str = "nll",
    rows: Sequence[str] = ROWS,
    draws: int = 20,
    others: bool = True,
    seed: int = 0,
    size: int = 16,
    identify: Identifier | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Ask every item under every condition; finished parts are kept in `folder` and read back by their content.

    Args:
        model: What `load_model` returned.
        tasks: What to ask; their names differ, and English is among their languages. A task is asked for the targets it has.
        own: Each language's specific neurons.
        stages: The split of the layers.
        score: `accuracy`, the tasks' own scores; `nll`, the log-likelihood of the reference answer in nats.
        rows: Parts to switch off.
        draws: Random controls.
        others: Whether another language's neurons are a control too.
        seed: Of the draws.
        size: Texts per batch.
        identify: Identifier for the language of generated text.
        folder: Where finished parts are kept: one file per target, row, ten draws (or the other sets) and task; an interruption costs the part it
            falls in, ten draws of one task at most. They are found by content, what the model as it is now (edits included) and the identifier
            say to a probe among it, and by the version of the code.
        progress: Show a progress bar.

    Returns:
        Columns `SCORES`: the baseline (neurons `none`, target and row empty) in every language, then the conditions; `language` is that of the
        item (English or the target). A condition without neurons has scores of nan: nothing can be switched off.

    Raises:
        ValueError: A task lacks English or has no target; the score is unknown; else as in `ability_conditions` and `answer_scores`.
        OSError: The folder cannot be written.
    """
    from tqdm.auto import tqdm

    if score not in ("accuracy", "nll"):
        raise ValueError(f"unknown score={score!r}: choose accuracy or nll")
    targets = [language for language in own if language != ENGLISH]
    for task in tasks:
        if ENGLISH not in task.languages or not set(task.languages) & set(targets):
            raise ValueError(
                f"task {task.name!r} needs items in {ENGLISH!r} and one of {', '.join(targets)}: it has {', '.join(task.languages)}"
            )
    asked = [task.as_loglik() if score == "nll" else task for task in tasks]
    plan = list(ability_conditions(own, stages, rows=rows, draws=draws, others=others, seed=seed))
    blocks: dict[tuple[str, str, int], list[Condition]] = {}
    for one in plan:
        blocks.setdefault((one.target, one.row, -1 if one.draw < 0 else one.draw // _DRAWS), []).append(one)
    options: dict[str, Any] = {"size": size, "identify": identify, "progress": False}

    held = [task.only([x for x in task.languages if x in own or x == ENGLISH]) for task in asked]
    facts: list[Any] = [VERSION, ask.VERSION, fingerprint(model), score, size]
    said: dict[str, list[str]] = {task.name: [] for task in held}  # with the edits in force
    if folder is not None:
        facts.append(identifier_facts(identify))
        for task in held:
            said[task.name] = [behaviour(model, prepare_items(model, task, x, identify)) for x in task.languages]

    def kept(name: str, task: Task, block: Sequence[Condition]) -> pd.DataFrame:
        """Rows of one block and task: read, or made and kept."""
        prints = [said[task.name], [task.fingerprint(x) for x in task.languages]]
        key = content_hash(facts, prints, [[one.label, one.of, sorted(one.units)] for one in block])
        path = None if folder is None else folder / "abilities" / f"{name}-{key[:12]}.parquet"
        if (found := reuse(path, key, "asking these items again")) is None:
            acting = {one.label: (lambda units=one.units: deactivate(model, units)) for one in block if one.units}
            live: dict[str, Any] = acting if block else {"none": None}
            made = answer_scores(model, task, conditions=live, **options) if live else None
            found = _labelled(made, task, block)
            if path is not None:
                save(found, path, Run("abilities", {"key": key}, describe(model)))
        return found

    tables = [kept(f"baseline-{score}", task, ()) for task in held]
    parts = [(*at, block, task) for at, block in blocks.items() for task in _having(asked, at[0])]
    for target, row, number, block, task in (
        bar := tqdm(parts, unit="part", desc="abilities", disable=hidden(progress))
    ):
        bar.set_postfix_str(f"{target} {row} {task.name}")
        name = f"{target}-{row}-{'own' if number < 0 else number}-{score}"
        tables.append(kept(name, task.only([ENGLISH, target]), block))
    return pd.concat(tables, ignore_index=True)


def _having(tasks: Sequence[Task], language: str) -> list[Task]:
    return [task for task in tasks if language in task.languages]


def _labelled(made: pd.DataFrame | None, task: Task, block: Sequence[Condition]) -> pd.DataFrame:
    """The table of `answer_scores` with columns `SCORES`; conditions without neurons get rows of nan."""
    shown = [(one.label, (one.target, one.row, one.neurons, one.of, one.draw, len(one.units))) for one in block]
    facts = dict(shown) if block else {"none": ("", "", "none", "", -1, 0)}
    parts = [] if made is None else [made]
    names = [(task.name, task.ability, item.language, item.id) for item in task.items]
    empty = pd.DataFrame(names, columns=["task", "ability", "language", "item"]).assign(
        **dict.fromkeys(("score", *WRITTEN), np.nan), tokens=0
    )
    parts += [empty.assign(condition=one.label) for one in block if not one.units]
    table = pd.concat(parts, ignore_index=True)
    for at, name in enumerate(CONDITION):
        table[name] = [facts[label][at] for label in table["condition"]]
    return table.assign(metric=task.metric)[list(SCORES)]
