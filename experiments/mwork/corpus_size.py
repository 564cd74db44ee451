"""How many documents does detection need? Size, overlap and effect of the sets that 10, 20, 40 ... documents give, and their vocabulary coverage.

    python experiments/mwork/corpus_size.py [--sizes 10 20 40] [--model ...] [--texts ...] [--tasks ...] [--smoke]

Samples are nested: the first documents of each language. Coverage: of the token types that belong to a language (labels by counts over all its texts;
types that languages share belong to none), the share that the sample holds. Effect: own neurons off in all layers, log-likelihood of the reference
answers, beside --draws random sets of the same size. Sets shrink as documents are added, since a neuron must be active in --consensus of them.
Corrections are over the sizes of a task.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pandas as pd
from common import ENGLISH, Bench, begin, corrected, interval, markdown, need, signed

import mwork_lens as mw
from mwork_lens.abilities import EVERYWHERE
from mwork_lens.ability_tables import ability_grid
from mwork_lens.corpora import token_counts
from mwork_lens.languages import from_counts
from mwork_lens.storage import content_hash


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", help="documents; default 10, 20, 40 ... and all")


def piece(corpus: mw.Corpus, start: int, stop: int) -> mw.Corpus:
    return replace(corpus, texts=corpus.texts[start:stop], ids=corpus.ids[start:stop])


def sizes(bench: Bench) -> list[int]:
    """Increasing, the last is all documents of the smallest language."""
    whole = min(map(len, bench.detection.values()))
    asked = bench.arguments.sizes
    if asked and min(asked) < 1:
        raise SystemExit(f"--sizes {min(asked)}: give at least 1")
    wanted = asked or [2 * 2**i if bench.arguments.smoke else 10 * 2**i for i in range(20)]
    return sorted({size for size in wanted if size < whole} | {whole})


def run(bench: Bench) -> None:
    given, steps = bench.arguments, sizes(bench)
    statistic = mw.importances(measure="output", top=given.top, length=given.length)
    counts = {x: token_counts(corpus, bench.model)[: bench.model.W_U.shape[1]] for x, corpus in bench.texts.items()}
    labels = from_counts(counts)
    tasks = need(bench)
    parts: dict[str, list] = {x: [] for x in bench.languages}
    found, rows, tables = {}, [], []
    for start, stop in zip([0, *steps], steps, strict=False):
        fresh = {x: piece(corpus, start, stop) for x, corpus in bench.detection.items()}
        key = content_hash(statistic.parameters(), [c.fingerprint for c in fresh.values()])[:8]
        measured = mw.measure(
            bench.model, fresh, statistic, out=bench.out / f"importances-{bench.key}-{key}", resume=True
        )
        for language, value in measured.items():
            parts[language].append(value)
        summed = {language: reduce(add, values) for language, values in parts.items()}
        consistent = mw.plnd(summed, consensus=given.consensus, model=bench.model)
        found[stop] = mw.specific(consistent, minus=given.minus)
        for number, (language, units) in enumerate(found[stop].items()):
            sample = token_counts(piece(bench.detection[language], 0, stop), bench.model)[: len(labels)]
            types = (counts[language] > 0) & (labels.labels == number)
            share = float(((sample > 0) & types).sum() / types.sum()) if bool(types.any()) else np.nan
            rows.append((stop, language, len(consistent[language]), len(units), share, int(sample.sum())))
        own = found[stop]
        print(f"{stop} documents: " + ", ".join(f"{x} {len(units)}" for x, units in own.items()), flush=True)
        scores = bench.scores(tasks, own, rows=(EVERYWHERE,), draws=given.draws, others=False)
        tables.append(ability_grid(scores, seed=given.seed).assign(documents=stop))
    sets = pd.DataFrame(rows, columns=["documents", "language", "consistent", "specific", "coverage", "tokens"])
    last = found[steps[-1]]
    sets["jaccard"] = [
        mw.jaccard(found[n][x], last[x]) for n, x in zip(sets["documents"], sets["language"], strict=True)
    ]
    grid = corrected(tables)
    report(bench, sets, grid)


def report(bench: Bench, sets: pd.DataFrame, grid: pd.DataFrame) -> None:
    lines = []
    others = (
        sets[sets["language"] != ENGLISH].groupby("documents")[["consistent", "specific", "coverage", "jaccard"]].mean()
    )
    for _, row in grid[grid["neurons"] == "specific"].iterrows():
        mean = others.loc[row["documents"]]
        same = (grid["task"] == row["task"]) & (grid["documents"] == row["documents"]) & (grid["neurons"] == "random")
        chance = grid[same].iloc[0]
        by_chance = (
            f"{signed(chance['delta'], 2)} ({signed(chance['delta_low'], 2)} to {signed(chance['delta_high'], 2)})"
        )
        lines.append([
            row["task"], row["documents"], "–", f"{mean['consistent']:.0f}", f"{mean['specific']:.0f}", f"{mean['coverage']:.0%}",
            f"{mean['jaccard']:.2f}", interval(row, "d_non_eng", 2), interval(row, "delta", 2), by_chance,
            f"{row['p_delta']:.3f} ({row['holm_delta']:.3f})",
        ])  # fmt: skip
    head = [
        "task", "documents", "paper", "ours: consistent", "specific", "token types seen", "Jaccard with the last", "dn-Eng, nats",
        "Delta", "Delta of random sets", "p (Holm)",
    ]  # fmt: skip
    from mwork_lens.plots.abilities import sweep_curves

    figure = sweep_curves(grid.assign(panel=grid["task"]), "documents", unit="log-likelihood, nats")[0].figure
    bench.finish({"sets": sets, "grid": grid}, {"curves": figure}, markdown(head, lines))


if __name__ == "__main__":
    run(begin("corpus_size", __doc__, more))
