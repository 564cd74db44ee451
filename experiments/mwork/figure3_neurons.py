"""Figure 3: language-specific neurons per layer, attention against FFN.

    python experiments/mwork/figure3_neurons.py [--model ...] [--texts ...] [--smoke]

The paper's numbers were not obtainable. What is tested: are specific neurons denser in attention or in FFN, and in which stage, than among as many
neurons drawn at random per site from all layers (`chance(match="site")`), --draws times; p is two-sided, Holm over stages and structures.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd
from common import Bench, begin, facts, markdown, signed

import mwork_lens as mw
from mwork_lens.abilities import part_of
from mwork_lens.ability_tables import holm
from mwork_lens.detect.chance import chance

PARTS = ("UA", "UF", "SA", "SF", "GA", "GF")


def shares(sets: dict[str, mw.NeuronSet], stages: mw.Stages) -> dict[str, float]:
    """Mean over languages of the share of its neurons in each part."""
    held = [units for units in sets.values() if units]
    return {part: float(np.mean([len(part_of(units, stages, part)) / len(units) for units in held])) for part in PARTS}


def run(bench: Bench) -> None:
    given, own = bench.arguments, bench.own
    if not any(own.values()):
        raise SystemExit("no language has specific neurons: raise --top or lower --consensus")
    observed = shares(own, bench.stages)
    drawn = pd.DataFrame([
        shares(chance(own, match="site", seed=given.seed * 1000 + i), bench.stages) for i in range(given.draws)
    ])  # fmt: skip
    rows = []
    for part in PARTS:
        sides = [mw.p_value(observed[part], drawn[part].tolist(), larger=larger) for larger in (True, False)]
        spread = drawn[part].std(ddof=1)
        rows.append({
            "part": part, "share": observed[part], "random": drawn[part].mean(), "random_low": drawn[part].min(),
            "random_high": drawn[part].max(), "p": min(1.0, 2 * min(sides)),
            "z": (observed[part] - drawn[part].mean()) / spread if spread > 0 else np.nan,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    table["holm"] = holm(table["p"].to_numpy(float))
    counts = mw.layer_counts(own)
    widths = counts.assign(structure=np.where(counts["site"] == "ffn", "FFN", "attention"))
    density = widths.groupby(["language", "structure"], sort=False)[["count", "width"]].sum()
    density = density.assign(density=density["count"] / density["width"]).reset_index()
    lines = [
        [r["part"], "–", f"{r['share']:.1%}", f"{r['random']:.1%} ({r['random_low']:.1%} to {r['random_high']:.1%})", signed(r["z"]),
         f"{r['p']:.3f} ({r['holm']:.3f})", "–"]
        for r in rows_with(table)
    ]  # fmt: skip
    head = ["part", "paper", "ours: share of specific neurons", "random per site", "z", "p (Holm)", "agrees"]
    wide = density.pivot(index="language", columns="structure", values="density")
    findings = [
        f"{x}: {row['attention']:.2%} of attention units, {row['FFN']:.2%} of FFN units" for x, row in wide.iterrows()
    ]
    from mwork_lens.plots import layer_counts

    figure = layer_counts(counts, stages=bench.stages)[0].figure
    bench.finish(
        {"counts": counts, "shares": table, "density": density}, {"layers": figure}, markdown(head, lines), findings,
        stages={name: len(layers) for name, layers in bench.stages.items()}, shares=facts(table),
    )  # fmt: skip


def rows_with(table: pd.DataFrame) -> list[dict]:
    return table.to_dict("records")


if __name__ == "__main__":
    run(begin("figure3", __doc__))
