"""Negative controls: the same analyses when facts, languages or the truth are shuffled.

facts shuffled       answers (or neuron sets) change places within language and relation: only how much is known stays
languages shuffled   they change places within a fact: only how well a fact is known stays
truth shuffled       the languages that stated a fact change places within a relation
objects shuffled     another fact's object of the same relation: what a corpus search finds of facts that nobody
                         stated, and which answers are right by luck
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mwork_lens.facts.decode import completed
from mwork_lens.facts.factset import FactSet
from mwork_lens.facts.overlaps import neuron_similarity
from mwork_lens.facts.recovery import recovery
from mwork_lens.facts.sharing import off_diagonal_mean, sharing

KEYS = {"facts": ["language", "relation"], "languages": ["relation", "fact"]}


def shuffled(table: pd.DataFrame, column: str, what: str, rng: np.random.Generator) -> pd.DataFrame:
    """A table whose `column` changes places within the groups of `KEYS[what]`."""
    order = np.arange(len(table))
    for rows in table.reset_index(drop=True).groupby(KEYS[what], sort=False).indices.values():
        order[rows] = rng.permutation(rows)
    values = table[column].to_numpy()[order]
    return table.assign(**{column: pd.Series(values, index=table.index, dtype=table[column].dtype)})


def spread(matrix: pd.DataFrame) -> float:
    """How much pairs of languages differ: the standard deviation over pairs."""
    values = matrix.to_numpy(float)[np.triu_indices(len(matrix), 1)]
    return float(np.nanstd(values))


def of_sharing(known: pd.DataFrame, metric: str, draws: int, seed: int) -> pd.DataFrame:
    """Mean and spread of the Jaccard matrix, real and shuffled."""
    rng = np.random.default_rng(seed)
    rows = [("sharing", "none", -1, *_both(sharing(known, metric=metric)))]
    for what in KEYS:
        rows += [
            ("sharing", what, i, *_both(sharing(shuffled(known, metric, what, rng), metric=metric)))
            for i in range(draws)
        ]
    return _summed(rows)


def of_neurons(neurons: Any, draws: int, seed: int) -> pd.DataFrame:
    """Mean and spread of the overlap of fact neurons, real and shuffled."""
    rng = np.random.default_rng(seed)
    rows = [("neurons", "none", -1, *_both(neuron_similarity(neurons).matrix))]
    for what in KEYS:
        for i in range(draws):
            table = shuffled(neurons.table, "units", what, rng)
            rows.append(("neurons", what, i, *_both(neuron_similarity(replace(neurons, table=table)).matrix)))
    return _summed(rows)


def of_recovery(
    traced: pd.DataFrame, stated: Mapping[str, Any], overlaps: pd.DataFrame | None, draws: int, seed: int
) -> pd.DataFrame:
    """The recovery table with the truth shuffled: columns analysis, measure, shuffled, shuffled_low, shuffled_high (of the draws)."""
    rng = np.random.default_rng(seed)
    relation = traced.drop_duplicates("fact").set_index("fact")["relation"]
    parts = []
    for _ in range(draws):
        moved: dict[str, Any] = {}
        for _, group in relation.groupby(relation, sort=False):
            names = list(group.index)
            moved |= dict(zip(names, [stated[names[i]] for i in rng.permutation(len(names))], strict=True))
        parts.append(recovery(traced, moved, overlaps, resamples=1))
    together = pd.concat(parts).groupby(["analysis", "measure"], sort=False)["value"]
    return together.agg(shuffled="mean", shuffled_low="min", shuffled_high="max").reset_index()


def other_objects(facts: FactSet, seed: int) -> pd.DataFrame:
    """The table of facts with the object of another fact of the relation, the same one in all languages; where it is the same text, no row."""
    rng, table = np.random.default_rng(seed), facts.table
    donor: dict[str, str] = {}
    for _, group in table.drop_duplicates("fact").groupby("relation", sort=False):
        names = rng.permutation(group["fact"].to_numpy())
        donor |= dict(zip(names, np.roll(names, 1), strict=True))
    objects = table.set_index(["language", "fact"])["object"]
    keys = pd.MultiIndex.from_arrays([table["language"], table["fact"].map(donor)])
    false = table.assign(object=objects.reindex(keys).to_numpy())
    return false[false["object"].notna() & (false["object"] != table["object"])].reset_index(drop=True)


def of_guessing(predictions: pd.DataFrame, facts: FactSet, draws: int, seed: int) -> pd.DataFrame:
    """How often an answer is right for another fact: objects change places within language and relation, answers stay.

    What the model says of facts it does not know is a value of the relation all the same, and some of these are right by luck.

    Returns:
        The predictions with a column `guessed`: the share of draws in which the answer is a full match.
    """
    rng = np.random.default_rng(seed)
    keys = ["language", "relation", "fact"]
    table = predictions.merge(facts.table[[*keys, "object"]], on=keys)
    said = list(table["predicted"])
    right = np.zeros(len(table))
    for _ in range(draws):
        things = shuffled(table, "object", "facts", rng)["object"]
        right += [completed(thing, text)[0] for thing, text in zip(things, said, strict=True)]
    return table.assign(guessed=right / draws)


def _both(matrix: pd.DataFrame) -> tuple[float, float]:
    return off_diagonal_mean(matrix), spread(matrix)


def _summed(rows: Sequence[tuple]) -> pd.DataFrame:
    """One row a kind of shuffling: mean over draws, and their range."""
    table = pd.DataFrame(rows, columns=["analysis", "shuffled", "draw", "mean", "spread"])
    made = table.groupby(["analysis", "shuffled"], sort=False)[["mean", "spread"]].agg(["mean", "min", "max"])
    made.columns = [name if of == "mean" else f"{name}_{of}" for name, of in made.columns]
    return made.reset_index()
