"""Thinking against knowing: attention neurons off, FFN neurons off, on word problems and on facts.

    python experiments/questions/thinking.py [--model organism] [--thinking organism/reasoning] [--knowing organism/cloze] [--smoke]

MWork says that the task-solving layers think with self-attention and draw knowledge from FFNs. A language's own neurons of these layers are switched
off, those of attention or those of FFNs, on a task that needs no knowledge and on one that needs nothing else; English is asked under the same
neurons. Changes are of the log-likelihood of the right answer, beyond that of random sets matched by site and layer; the interaction
(below zero: as the paper says) stands among those of the random draws, with BH over the languages. `questions.thinking_against_knowing`.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
from common import begin, number, panels
from scipy.stats import false_discovery_control

from mwork_lens.abilities import ability_scores
from mwork_lens.plots.style import house_style, language_name
from mwork_lens.questions import thinking_against_knowing
from mwork_lens.questions.thinking import MEAN


def main() -> None:
    """Ask both tasks under both parts, compare, write."""
    bench = begin("thinking", __doc__, extend)
    count = 3 if bench.given.smoke else bench.given.items
    tasks = [replace(bench.task(name).take(count, bench.given.seed), name=kind)
             for kind, name in (("thinking", bench.given.thinking), ("knowing", bench.given.knowing))]  # fmt: skip
    scores = ability_scores(bench.model, tasks, bench.own, bench.stages, rows=("SA", "SF"), draws=bench.given.draws, others=False,
                            seed=bench.given.seed, folder=bench.given.out)  # fmt: skip
    counts = scores[scores["neurons"] == "specific"].groupby(["target", "row"])["count"].first().unstack()
    table = thinking_against_knowing(scores, "thinking", "knowing", seed=bench.given.seed)
    single = table["target"] != MEAN
    for asked in ("target", "English"):
        mine = single & (table["asked"] == asked)
        table.loc[mine, "bh"] = false_discovery_control(table.loc[mine, "p"].to_numpy(float)) if mine.any() else np.nan
    found = [
        f"{row.target}, {row.asked} asked: attention off {number(row.thinking_SA)} thinking, {number(row.knowing_SA)} knowing; FFN off "
        f"{number(row.thinking_SF)}, {number(row.knowing_SF)}; interaction {number(row.interaction)} nats, p = {row.p:.2f} among {row.draws} draws"
        + (f" (BH {row.bh:.2f})" if row.bh == row.bh else "")
        + (f", 95 % over languages [{number(row.low)}, {number(row.high)}]" if row.low == row.low else "")
        for row in table.itertuples()
    ]
    bench.finish(
        {"table": table, "counts": counts.reset_index()}, {"interaction": draw(table)}, found, stages=str(bench.stages)
    )


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--thinking", default="organism/reasoning", help="a task that needs no knowledge")
    parser.add_argument("--knowing", default="organism/cloze", help="a task that needs knowledge")
    parser.add_argument("--items", type=int, default=60, help="per task and language at most")


def draw(table: pd.DataFrame) -> object:
    """The four changes beyond chance per target, the target asked (left) and English asked (right)."""
    colours = {"thinking_SA": "#D55E00", "thinking_SF": "#E69F00", "knowing_SA": "#56B4E9", "knowing_SF": "#0072B2"}
    off = {"SA": "attention off", "SF": "FFN off"}
    names = {column: f"{column[:-3]}, {off[column[-2:]]}" for column in colours}
    with house_style():
        figure, axes = panels(2, 3.2, 2.9, sharey=True)
        for panel, asked in zip(axes, ("target", "English"), strict=True):
            part = table[table["asked"] == asked].reset_index()
            for at, (column, colour) in enumerate(colours.items()):
                panel.bar(part.index + 0.2 * (at - 1.5), part[column], 0.19, color=colour, label=names[column])
            panel.axhline(0, color="#222222", linewidth=0.8)
            panel.set_xticks(
                part.index,
                ["mean" if x == "all" else language_name(x) for x in part["target"]],
                rotation=30,
                ha="right",
            )
            panel.set_title("the language asked" if asked == "target" else "English asked, the same neurons off")
        axes[0].set_ylabel("change beyond random sets, nats")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
