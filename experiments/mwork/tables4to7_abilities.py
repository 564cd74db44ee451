"""Tables 4-7: what the four abilities lose when parts of a language's own neurons are off, beside random sets and another language's.

    python experiments/mwork/tables4to7_abilities.py [--model ...] [--tasks ...] [--draws 20] [--accuracy-draws 3] [--full] [--smoke]

Two grids. `nll`: log-likelihood of the reference answer, every row of stage by structure, --draws random sets: the tests. `accuracy`: the tasks' own
scores in points, the paper's rows of each task, --accuracy-draws random sets (--full: all rows, --draws): the numbers that stand beside the paper's.

The paper's columns imply several baselines: English on XQuAD is 57.5, 57.0, 56.8 or 58.3 (Vicuna), on X-CSQA 61.3 or 61.7 (Mistral). Its deltas are
quoted as printed; with one baseline of 57.5 Vicuna's Delta on XQuAD would be +6.9 (U), -1.3 (SA+SF), +1.5 (G). Ours are all against one baseline.
"Agrees" compares Delta alone. The paper's says that English is spared (or hurt more) if both models have the same sign and at least 3 points (its
random rows move by up to 6.8), and nothing if both are below; ours says so, in either direction alike, if its interval excludes 0, it lies outside
the random draws, and the two-sided p is at most 0.05: Delta of the log-likelihoods among the draws of every target, each tail combined by Fisher,
twice the smaller, Holm over the rows of a task (`two_sided`). z: Delta against the draws, by log-likelihood; h: Cohen's h of the other languages'
score. A model that is within 5 points of guessing in English or in the others has nothing to lose: "at the floor".
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse

import pandas as pd
from common import Bench, begin, facts, interval, markdown, need, signed
from scipy.stats import combine_pvalues

import mwork_lens as mw
from mwork_lens.abilities import EVERYWHERE, ROWS
from mwork_lens.ability_tables import ability_changes, ability_grid, holm

NOISE = 3.0
# ability: [(row, random or specific, (dEng, dn-Eng, Delta) of Vicuna, the same of Mistral)], as printed
PAPER = {
    "understanding": ("T4, XQuAD", [
        ("U", "random", (0.3, -0.1, 0.4), (1.0, -0.2, 1.2)),
        (EVERYWHERE, "random", (0.4, 0.3, 0.1), (0.5, -0.2, 0.7)),
        ("U", "specific", (-0.5, -7.9, 7.4), (-0.9, -7.4, 6.5)),
        ("SA+SF", "specific", (-15.9, -15.3, -0.6), (-3.9, -8.7, 4.8)),
        ("G", "specific", (-0.4, -1.1, 0.7), (-0.7, -1.0, 0.3)),
    ]),
    "reasoning": ("T5, MGSM", [
        ("SA", "random", (-0.4, -1.8, 1.4), (-5.2, -2.9, -2.3)),
        ("SA+SF", "random", (-2.0, -1.0, -1.0), (-6.8, -2.3, -4.5)),
        (EVERYWHERE, "random", (-0.8, -0.7, -0.1), (-0.8, 0.5, -1.3)),
        ("SA+SF", "specific", (-13.2, -9.8, -3.4), (-7.8, -7.9, 0.1)),
        ("U+G", "specific", (-2.3, -4.9, 2.6), (-2.0, -8.2, 6.2)),
        ("U+SF+G", "specific", (-1.4, -5.4, 4.0), (0.2, -8.0, 8.2)),
    ]),
    "knowledge": ("T6, X-CSQA", [
        ("SF", "random", (-0.3, 0.0, -0.3), (-0.3, -0.5, 0.2)),
        ("SA+SF", "random", (-1.8, -0.8, -1.0), (-0.6, -1.2, 0.6)),
        (EVERYWHERE, "random", (-0.1, 0.1, -0.2), (0.1, -0.1, 0.2)),
        ("SA", "specific", (-24.1, -9.2, -14.9), (-10.1, -8.6, -1.5)),
        ("SF", "specific", (-0.3, -2.0, 1.7), (-0.1, -2.4, 2.3)),
    ]),
    "generation": ("T7, XLSum", [
        ("G", "random", (0.1, 0.1, 0.0), (0.1, 0.1, 0.0)),
        (EVERYWHERE, "random", (-0.1, 0.0, -0.1), (0.1, -0.2, 0.3)),
        ("G", "specific", (0.0, -1.1, 1.1), (0.3, -1.5, 1.8)),
    ]),
}  # fmt: skip


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accuracy-draws", type=int, default=3, help="random sets scored by the tasks' own scores")
    parser.add_argument("--full", action="store_true", help="own scores for every row and all draws")


def claim(deltas: list[float]) -> str:
    """What the paper's Delta says, of all its models together."""
    if all(abs(value) < NOISE for value in deltas):
        return "nothing"
    if all(value >= NOISE for value in deltas):
        return "English spared"
    return "English hurt more" if all(value <= -NOISE for value in deltas) else "mixed"


def ours(row: pd.Series, drawn: pd.Series, p: float) -> str:
    """What our Delta says."""
    if row["neurons"] == "random":
        wide = 100 * max(abs(row["delta_low"]), abs(row["delta_high"]))
        return "nothing" if wide < NOISE else f"random sets move it by {wide:.1f}"
    if not p <= 0.05:
        return "nothing"
    if row["delta_low"] > 0 and row["delta"] > drawn["delta_high"]:
        return "English spared"
    return "English hurt more" if row["delta_high"] < 0 and row["delta"] < drawn["delta_low"] else "nothing"


def two_sided(changes: pd.DataFrame) -> pd.Series:
    """Per task and row: two-sided p of the specific neurons' Delta, Fisher over targets in each tail, Holm over the rows of a task."""
    found = {}
    for key, cell in changes.dropna(subset=["delta"]).groupby(["task", "row"], sort=False):
        specific, random = cell[cell["neurons"] == "specific"], cell[cell["neurons"] == "random"]
        each = []
        for target, value in specific.groupby("target")["delta"].first().round(12).items():
            chance = random.loc[random["target"] == target, "delta"].round(12).tolist()
            each.append([mw.p_value(value, chance, larger=larger) for larger in (True, False)])
        if each:
            tails = [float(combine_pvalues(tail, method="fisher").pvalue) for tail in zip(*each, strict=True)]
            found[key] = min(1.0, 2 * min(tails))
    p = pd.Series(found, dtype=float)
    p.index = pd.MultiIndex.from_tuples(p.index, names=["task", "row"])
    return p.groupby(level="task", group_keys=False).transform(lambda one: holm(one.to_numpy()))


def floor(task: mw.Task) -> float:
    """What guessing gives."""
    shares = [len(item.answers) / len(item.choices) for item in task.items if task.how == "choose"]
    return sum(shares) / len(shares) if shares else 0.0


def rows_of(task: mw.Task, accuracy: pd.DataFrame, nll: pd.DataFrame) -> list[list[str]]:
    """Lines of the pasted table."""
    printed = {(row, kind): (v, m) for row, kind, v, m in PAPER[task.ability][1]}
    table = accuracy[accuracy["task"] == task.name].set_index(["row", "neurons"], drop=False)
    tests = nll[nll["task"] == task.name].set_index(["row", "neurons"])
    lines = []
    for (row, kind), one in table.iterrows():
        if kind == "other":
            continue
        known = printed.get((row, kind))
        paper = [" / ".join(signed(x) for x in triple) for triple in known] if known else ["–", "–"]
        p = tests["two_sided_delta"].get((row, kind), float("nan"))
        verdict = "–"
        if min(one["eng_before"], one["non_eng_before"]) - floor(task) < 0.05:
            verdict = "at the floor"
        elif one["delta"] == one["delta"]:
            said, found = claim([v[2] for v in known]) if known else "", ours(one, table.loc[(row, "random")], p)
            verdict = (
                found if not known else "paper mixed" if said == "mixed" else "yes" if said == found else f"no: {found}"
            )
        numbers = [interval(one, name, 1, 100) for name in ("d_eng", "d_non_eng", "delta")]
        z = tests["z_delta"].get((row, kind), float("nan"))
        effect = f"{signed(z)} / {signed(one['h_non_eng'], 2)}"
        lines.append([row, kind, *paper, *numbers, effect, "–" if p != p else f"{p:.3f}", verdict])
    return lines


def figure(table: pd.DataFrame, unit: str):
    from mwork_lens.plots.abilities import ability_deltas

    return ability_deltas(table, unit=unit)[0].figure


def run(bench: Bench) -> None:
    given = bench.arguments
    tasks = need(bench)
    rows = ("U", "SA+SF", EVERYWHERE) if given.smoke else ROWS
    scored = bench.scores(tasks, bench.own, score="nll", rows=rows, draws=given.draws)
    nll = ability_grid(scored, seed=given.seed)
    tested = two_sided(ability_changes(scored)).reindex(pd.MultiIndex.from_frame(nll[["task", "row"]]))
    nll["two_sided_delta"] = tested.where(nll["neurons"].eq("specific").to_numpy()).to_numpy()
    draws = given.draws if given.full else min(given.draws, given.accuracy_draws)
    parts = []
    for task in tasks:
        printed = {row for row, *_ in PAPER[task.ability][1]} | {EVERYWHERE}
        few = [row for row in rows if given.full or row in printed]
        parts.append(bench.scores([task], bench.own, score="accuracy", rows=few, draws=draws, others=given.full))
    scores = pd.concat(parts, ignore_index=True)
    accuracy = ability_grid(scores, seed=given.seed)
    head = ["off", "neurons", "paper: Vicuna", "Mistral", "ours: dEng", "dn-Eng", "Delta", "z / h", "p", "agrees"]
    text = []
    for task in tasks:
        first = accuracy[accuracy["task"] == task.name].iloc[0]
        text += [
            f"**{task.name}** ({PAPER[task.ability][0]}; {task.metric}, points; baseline {100 * first['eng_before']:.1f} English, "
            f"{100 * first['non_eng_before']:.1f} others; p: Delta by log-likelihood, {given.draws} draws a language, two-sided, Fisher, Holm)\n",
            markdown(head, rows_of(task, accuracy, nll)) + "\n",
        ]
    stages = {name: len(layers) for name, layers in bench.stages.items()}
    bench.finish(
        {
            "nll": nll, "accuracy": accuracy,
            "languages_nll": ability_changes(scored), "languages_accuracy": ability_changes(scores),
        },
        {"nll": figure(nll, "log-likelihood, nats"), "accuracy": figure(accuracy, "score")},
        "\n".join(text),
        stages=stages, specific=facts(nll[nll["neurons"] == "specific"]),
    )  # fmt: skip


if __name__ == "__main__":
    run(begin("tables4to7", __doc__, more))
