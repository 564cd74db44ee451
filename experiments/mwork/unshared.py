"""Neurons not shared with English: does it matter which of a language's consistent neurons are off?

    python experiments/mwork/unshared.py [--model ...] [--tasks ...] [--smoke]

Three sets per language, in all layers: all it activates consistently, those of them that English does not, and those that English shares. Beside
each, --draws random sets with as many neurons in every site and layer, by log-likelihood of the reference answer. The paper's appendix compares the
first two (numbers not obtainable): without the shared ones, English should be spared, that is, lose less than with all of them off. That difference
is taken item by item: mean over languages of English with the unshared set off, less with the whole set off, 95 % bootstrap over the items of
English. A smaller set spares anything, so the same difference of the languages themselves stands beside it; it agrees if the interval lies above zero
and above what they are spared. Corrections are over the three sets of a task.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd
from common import ENGLISH, Bench, begin, corrected, interval, markdown, need, signed

from mwork_lens.abilities import EVERYWHERE
from mwork_lens.ability_tables import ability_changes, ability_grid
from mwork_lens.evaluate import resample

PAPER = {"all": "–", "not shared": "English spared", "shared": "–"}


def run(bench: Bench) -> None:
    given, found = bench.arguments, bench.consistent
    english = found[ENGLISH]
    kinds = {
        "all": found,
        "not shared": {x: units - english for x, units in found.items()},
        "shared": {x: units & english for x, units in found.items()},
    }
    tables, per_language, held = [], [], {}
    tasks = need(bench)
    for kind, own in kinds.items():
        print(f"{kind}: " + ", ".join(f"{x} {len(units)}" for x, units in own.items() if x != ENGLISH), flush=True)
        scores = bench.scores(tasks, own, rows=(EVERYWHERE,), draws=given.draws, others=False)
        held[kind] = scores[scores["neurons"] == "specific"]
        tables.append(ability_grid(scores, seed=given.seed).assign(row=kind))
        per_language.append(ability_changes(scores).assign(row=kind))
    table = corrected(tables)
    gains = spared(held["all"], held["not shared"], given.seed)
    lines = []
    for _, row in table[table["neurons"] == "specific"].iterrows():
        same = (table["task"] == row["task"]) & (table["row"] == row["row"]) & (table["neurons"] == "random")
        chance = table[same].iloc[0]
        gain = gains.loc[row["task"]]
        verdict = "–" if row["row"] != "not shared" else "yes" if gain["english_low"] > max(0, gain["own"]) else "no"
        numbers = [interval(row, name, 2) for name in ("d_eng", "d_non_eng", "delta")]
        by_chance = (
            f"{signed(chance['delta'], 2)} ({signed(chance['delta_low'], 2)} to {signed(chance['delta_high'], 2)})"
        )
        p = f"{row['p_delta']:.3f} ({row['fisher_delta']:.3f}, Holm {row['fisher_holm_delta']:.3f})"
        lines.append(
            [
                row["task"],
                row["row"],
                round(row["count"]),
                PAPER[row["row"]],
                *numbers,
                by_chance,
                signed(row["z_delta"]),
                p,
                *(interval(gain, side, 3) if row["row"] == "not shared" else "–" for side in ("english", "own")),
                verdict,
            ]
        )
    head = [
        "task",
        "off",
        "neurons",
        "paper",
        "ours: dEng, nats",
        "dn-Eng",
        "Delta",
        "Delta of random sets",
        "z",
        "p (Fisher, its Holm)",
        "English spared, nats",
        "themselves spared",
        "agrees",
    ]
    from mwork_lens.plots.abilities import ability_deltas

    figure = ability_deltas(table, unit="log-likelihood, nats")[0].figure
    bench.finish(
        {"grid": table, "languages": pd.concat(per_language, ignore_index=True), "spared": gains.reset_index()},
        {"deltas": figure},
        markdown(head, lines),
    )


def spared(whole: pd.DataFrame, part: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Per task, score with `part` off less score with `whole` off, in nats: of English and of the languages themselves, with intervals over items."""
    key = ["task", "target", "language", "item"]
    both = whole.merge(part, on=key, suffixes=("_whole", "_part"))
    both["gain"] = both["score_part"] - both["score_whole"]
    rows = {}
    for task, of_task in both.groupby("task", sort=False):
        sides = {"english": of_task["language"] == ENGLISH, "own": of_task["language"] == of_task["target"]}
        rows[task] = {}
        for side, chosen in sides.items():
            values = of_task[chosen].groupby("item")["gain"].mean().to_numpy(float)
            weights = resample(len(values), seed=seed) / len(values)
            low, high = np.quantile(weights @ values, [0.025, 0.975])
            rows[task] |= {side: values.mean(), f"{side}_low": low, f"{side}_high": high}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")


if __name__ == "__main__":
    run(begin("unshared", __doc__))
