"""Where the stages end: understanding in one language with its own neurons off in the first N1 layers, or in the last N2.

    python experiments/mwork/stages_sweep.py [--sweep zh] [--metric nll] [--model ...] [--tasks ...] [--smoke]

Every N1 and every N2 that leaves the other stages a layer, beside --draws random sets with as many neurons in every site and layer. The paper swept
XQuAD-Zh on Mistral (numbers not obtainable) and settles on a quarter and an eighth of the layers: harm should grow with N1 and stay small with N2.
Corrections are over the whole sweep; the smallest p that Holm's can leave is (rows of the sweep) / (draws + 1).
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse

from common import ENGLISH, Bench, begin, corrected, interval, markdown, need, signed

import mwork_lens as mw
from mwork_lens.ability_tables import ability_grid


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sweep", default="zh", help="language whose neurons are off")
    parser.add_argument(
        "--metric", choices=("nll", "accuracy"), default="nll", help="log-likelihood, or the task's score"
    )


def run(bench: Bench) -> None:
    given, layers = bench.arguments, bench.model.cfg.n_layers
    task = need(bench, "understanding")[0]
    if given.sweep not in task.languages or given.sweep == ENGLISH:
        raise SystemExit(f"--sweep {given.sweep}: choose from {', '.join(task.languages[1:])}")
    only, own = task.only([ENGLISH, given.sweep]), {given.sweep: bench.own[given.sweep]}
    tables = []
    for name, row in (("first N1 layers", "U"), ("last N2 layers", "G")):
        for count in range(1, layers - 1):
            first, last = (count, 1) if row == "U" else (1, count)
            split = mw.Stages.of(layers, understanding=first, generation=last)
            scores = bench.scores(
                [only], own, stages=split, score=given.metric, rows=(row,), draws=given.draws, others=False
            )
            tables.append(ability_grid(scores, seed=given.seed).assign(panel=name, layers=count))
    table = corrected(tables)  # over the whole sweep
    lines = []
    for _, row in table[table["neurons"] == "specific"].iterrows():
        same = (table["panel"] == row["panel"]) & (table["layers"] == row["layers"]) & (table["neurons"] == "random")
        chance = table[same].iloc[0]
        numbers = [interval(row, name, 2) for name in ("d_eng", "d_non_eng", "delta")]
        random = f"{signed(chance['d_non_eng'], 2)} ({signed(chance['d_non_eng_low'], 2)} to {signed(chance['d_non_eng_high'], 2)})"
        p = f"{row['p_non_eng']:.3f} ({row['holm_non_eng']:.3f})"
        lines.append(
            [row["panel"], row["layers"], round(row["count"]), "–", *numbers, random, signed(row["z_non_eng"]), p]
        )
    head = [
        "off",
        "layers",
        "neurons",
        "paper",
        "ours: dEng",
        f"d {given.sweep}",
        "Delta",
        "random sets",
        "z",
        "p (Holm)",
    ]
    from mwork_lens.plots.abilities import sweep_curves

    unit = "log-likelihood, nats" if given.metric == "nll" else "score"
    figure = sweep_curves(table, "layers", unit=unit)[0].figure
    stages = {name: len(part) for name, part in bench.stages.items()}
    findings = [f"The lens gives N1 = {stages['understanding']}, N2 = {stages['generation']} of {layers}."]
    bench.finish({"grid": table}, {"curves": figure}, markdown(head, lines), findings, stages=stages)


if __name__ == "__main__":
    run(begin("stages_sweep", __doc__, more))
