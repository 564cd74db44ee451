"""Neurons not shared with English: does it matter which of a language's consistent neurons are off?

    python experiments/mwork/unshared.py [--model ...] [--tasks ...] [--smoke]

Three sets per language, in all layers: all it activates consistently, those of them that English does not, and those that English shares. Beside
each, --draws random sets with as many neurons in every site and layer, by log-likelihood of the reference answer. The paper's appendix compares the
first two (numbers not obtainable): without the shared ones, English should be spared. Corrections are over the three sets of a task.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import pandas as pd
from common import ENGLISH, Bench, begin, corrected, interval, markdown, need, signed

from mwork_lens.abilities import EVERYWHERE
from mwork_lens.ability_tables import ability_changes, ability_grid

PAPER = {"all": "–", "not shared": "English spared", "shared": "–"}


def run(bench: Bench) -> None:
    given, found = bench.arguments, bench.consistent
    english = found[ENGLISH]
    kinds = {
        "all": found,
        "not shared": {x: units - english for x, units in found.items()},
        "shared": {x: units & english for x, units in found.items()},
    }
    tables, per_language = [], []
    tasks = need(bench)
    for kind, own in kinds.items():
        print(f"{kind}: " + ", ".join(f"{x} {len(units)}" for x, units in own.items() if x != ENGLISH), flush=True)
        scores = bench.scores(tasks, own, rows=(EVERYWHERE,), draws=given.draws, others=False)
        tables.append(ability_grid(scores, seed=given.seed).assign(row=kind))
        per_language.append(ability_changes(scores).assign(row=kind))
    table = corrected(tables)
    lines = []
    for _, row in table[table["neurons"] == "specific"].iterrows():
        same = (table["task"] == row["task"]) & (table["row"] == row["row"]) & (table["neurons"] == "random")
        chance = table[same].iloc[0]
        spared = row["delta_low"] > 0 and row["delta"] > chance["delta_high"]
        verdict = "–" if row["row"] != "not shared" else "yes" if spared else "no"
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
        "agrees",
    ]
    from mwork_lens.plots.abilities import ability_deltas

    figure = ability_deltas(table, unit="log-likelihood, nats")[0].figure
    bench.finish(
        {"grid": table, "languages": pd.concat(per_language, ignore_index=True)},
        {"deltas": figure},
        markdown(head, lines),
    )


if __name__ == "__main__":
    run(begin("unshared", __doc__))
