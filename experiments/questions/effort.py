"""Is the dominant language easier? FFN units at work in the task-solving layers, on parallel word problems and texts.

    python experiments/questions/effort.py [--model organism] [--task organism/reasoning] [--out runs/questions] [--smoke]

Per token: the participation ratio of what the units write, and how many carry 90 % of it (`questions.effort`). English against every language, item
by item, Wilcoxon's test with BH over all rows of the table (languages, measures, texts, layers); the difference at equal length is beside it, for a
language cut into more tokens is not laborious. Also among the items that the model answers correctly in both languages, since different content
costs different work. Control: layers outside the task-solving stage; what they show too is not of solving tasks.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse

import pandas as pd
from common import ENGLISH, begin, number, panels
from scipy.stats import false_discovery_control

import mwork_lens as mw
from mwork_lens.plots.style import house_style, language_name
from mwork_lens.questions import effort, effort_differences


def main() -> None:
    """Count, compare, write."""
    bench = begin("effort", __doc__, extend)
    task = bench.task(bench.given.task).take(4 if bench.given.smoke else bench.given.items, bench.given.seed)
    shared = set(task.parallel)
    prompts = {
        x: mw.Corpus(
            x, tuple(i.prompt for i in task.of(x) if i.id in shared), tuple(i.id for i in task.of(x) if i.id in shared)
        )
        for x in task.languages
    }
    solved = (
        mw.answer_scores(bench.model, task, progress=False).pivot(index="item", columns="language", values="score")
        > 0.5
    )
    middle = list(bench.stages.task_solving)
    outside = [layer for layer in range(bench.model.cfg.n_layers) if layer not in middle]
    tables = []
    for where, corpora in (("problems", prompts), ("texts", bench.held_out)):
        rows = effort(bench.model, corpora, progress=False)
        tables.append(
            compare(rows[rows["layer"].isin(middle)], bench.given.seed).assign(where=where, layers="task-solving")
        )
        if outside:
            tables.append(
                compare(rows[rows["layer"].isin(outside)], bench.given.seed).assign(where=where, layers="other")
            )
        if where == "problems":
            inside = rows[rows["layer"].isin(middle)]
            for language in (x for x in task.languages if x != ENGLISH):
                both = solved.index[solved[ENGLISH] & solved[language]]
                part = inside[inside["language"].isin([ENGLISH, language]) & inside["document"].isin(both)]
                if len(both) > 5:
                    tables.append(
                        compare(part, bench.given.seed).assign(where="problems solved in both", layers="task-solving")
                    )
    table = pd.concat(tables, ignore_index=True)
    table["bh_wilcoxon"] = false_discovery_control(table["p_wilcoxon"].to_numpy(float))
    said = {"ninety": "units that carry 90 %", "participation": "participation ratio"}
    found = [
        f"{row.where}, {row.layers} layers, {row.language}: {said[row.measure]} {row.mean:.0f}, English {row.of_reference:.0f}; difference "
        f"{number(row.difference, 1)} [{number(row.low, 1)}, {number(row.high, 1)}], at equal length {number(row.same_length, 1)} "
        f"[{number(row.same_length_low, 1)}, {number(row.same_length_high, 1)}], BH p = {row.bh_wilcoxon:.3f}"
        for row in table.itertuples()
    ]
    bench.finish({"table": table}, {"differences": draw(table)}, found, stages=str(bench.stages))


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="organism/reasoning", help="parallel problems; a file, or an embedded task")
    parser.add_argument("--items", type=int, default=120, help="per language at most")


def compare(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    return effort_differences(rows, ENGLISH, seed=seed)


def draw(table: pd.DataFrame) -> object:
    """Difference to English in units that carry 90 %, task-solving layers and the others."""
    part = table[table["measure"] == "ninety"]
    languages = list(dict.fromkeys(part["language"]))
    with house_style():
        figure, axes = panels(2, 3.0, 0.9 + 0.32 * len(languages), sharey=True, sharex=True)
        for panel, where in zip(axes, ("problems", "texts"), strict=True):
            for layers, colour, shift in (("task-solving", "#0072B2", -0.12), ("other", "#999999", 0.12)):
                rows = part[(part["where"] == where) & (part["layers"] == layers)]
                y = [languages.index(x) + shift for x in rows["language"]]
                edges = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
                panel.errorbar(
                    rows["difference"], y, xerr=edges, fmt="o", color=colour, capsize=3, label=f"{layers} layers"
                )
            panel.axvline(0, color="#222222", linewidth=0.8)
            panel.set_yticks(range(len(languages)), [language_name(x) for x in languages])
            panel.set_xlabel("units that carry 90 %, minus English")
            panel.set_title(where)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
