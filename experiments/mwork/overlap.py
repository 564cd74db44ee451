"""Overlap of languages: Jaccard index of the neurons that each pair activates consistently, beside chance.

    python experiments/mwork/overlap.py [--model ...] [--texts ...] [--smoke]

Chance: both sets redrawn with as many neurons in every site and layer, --set-draws times: 2,000, since no draw runs the model, so that Holm's
correction over 21 pairs can leave a p of 0.011. A pair overlaps ("agrees") if that p is at most 0.05. Consistent sets (before anything is taken
away) are compared, since specific ones are disjoint by the rule that makes them. The paper: sets overlap with English; its numbers per pair were
not obtainable.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd
from common import ENGLISH, Bench, begin, markdown, signed
from scipy.stats import false_discovery_control

import mwork_lens as mw
from mwork_lens.ability_tables import holm
from mwork_lens.detect.chance import chance


def run(bench: Bench) -> None:
    given, sets = bench.arguments, bench.consistent
    table = mw.overlap(sets)
    keys = ["language", "other"]
    draws = [
        mw.overlap(chance(sets, seed=given.seed * 1_000_000 + i)).set_index(keys)["jaccard"]
        for i in range(given.set_draws)
    ]
    drawn = pd.concat(draws, axis=1)
    index = pd.MultiIndex.from_frame(table[keys])
    by_chance = drawn.reindex(index)
    table["random"], table["random_low"] = by_chance.mean(axis=1).to_numpy(), by_chance.min(axis=1).to_numpy()
    table["random_high"] = by_chance.max(axis=1).to_numpy()
    spread = by_chance.std(axis=1, ddof=1).to_numpy()
    table["z"] = np.divide(
        table["jaccard"] - table["random"], spread, out=np.full(len(table), np.nan), where=spread > 0
    )
    order = {language: i for i, language in enumerate(sets)}
    once = (table["language"].map(order) < table["other"].map(order)) & table["jaccard"].notna()
    table.loc[once, "p"] = [
        mw.p_value(float(table.loc[i, "jaccard"]), by_chance.iloc[i].tolist()) for i in table.index[once]
    ]
    table.loc[once, "holm"] = holm(table.loc[once, "p"].to_numpy(float))
    table.loc[once, "bh"] = false_discovery_control(table.loc[once, "p"])
    lines = [
        [f"{r.language}, {r.other}", "overlap" if ENGLISH in (r.language, r.other) else "–", f"{r.shared}", f"{r.jaccard:.3f}",
         f"{r.random:.3f} ({r.random_low:.3f} to {r.random_high:.3f})", signed(r.z), f"{r.p:.3f} ({r.holm:.3f}, BH {r.bh:.3f})",
         ("yes" if r.holm <= 0.05 else "no") if ENGLISH in (r.language, r.other) else "–"]
        for r in table[once].itertuples()
    ]  # fmt: skip
    head = ["pair", "paper", "ours: shared", "Jaccard", "random", "z", "p (Holm, BH)", "agrees"]
    english = table[once & (table["language"] == ENGLISH)]["jaccard"]
    rest = table[once & (table["language"] != ENGLISH)]["jaccard"]
    findings = [f"Mean Jaccard with English {english.mean():.3f}, among the others {rest.mean():.3f}."]
    bench.finish({"pairs": table}, {"heatmap": figure(table)}, markdown(head, lines), findings)


def figure(table: pd.DataFrame):
    """Observed beside chance."""
    from mwork_lens.plots import overlap_heatmap
    from mwork_lens.plots.style import WIDTH, house_style, make_figure

    count = table["language"].nunique()
    with house_style():
        left, right = make_figure(WIDTH, 1.1 + 0.4 * count).subplots(1, 2)
    overlap_heatmap(table, axes=left)
    overlap_heatmap(table.assign(jaccard=table["random"]), axes=right)
    left.set_title("observed: Jaccard (diagonal: neurons)", fontsize=9)
    right.set_title("matched random sets", fontsize=9)
    return left.figure


if __name__ == "__main__":
    run(begin("overlap", __doc__))
