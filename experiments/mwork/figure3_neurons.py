"""Figure 3: language-specific neurons per layer, attention against FFN.

    python experiments/mwork/figure3_neurons.py [--model ...] [--texts ...] [--smoke]

The paper's numbers were not obtainable. Two questions, each against --set-draws random sets per language of the same size (2,000: no draw runs the
model); p is two-sided. Which structure: the share of attention units (row `A`), against draws from all units of all sites and layers. Which stage,
given the structure: the share in each stage and structure, against draws with as many neurons in each site from all layers
(`chance(match="site")`), which keep the share of attention; Holm over these six.
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


def attention(counts: pd.DataFrame, draws: int, seed: int) -> tuple[float, pd.Series]:
    """Mean over languages of the share of attention units, and the same of as many units drawn from all: their number is hypergeometric."""
    structure = np.where(counts["site"] == "ffn", "F", "A")
    held = counts.groupby(["language", structure], sort=False)["count"].sum().unstack(fill_value=0)
    sizes = held.sum(axis=1)
    one = (counts["language"] == counts["language"].iloc[0]).to_numpy()
    width = counts[one].groupby(structure[one])["width"].sum()
    held, sizes = held[sizes > 0], sizes[sizes > 0].to_numpy()
    generator = np.random.default_rng(seed)
    found = generator.hypergeometric(int(width["A"]), int(width["F"]), sizes, size=(draws, len(sizes)))
    return float((held["A"].to_numpy() / sizes).mean()), pd.Series((found / sizes).mean(axis=1))


def against(part: str, question: str, share: float, drawn: pd.Series) -> dict:
    """A share beside those of random sets, with a two-sided p; ties are ties beyond rounding (12 digits)."""
    share, drawn = round(share, 12), drawn.round(12)
    sides = [mw.p_value(share, drawn.tolist(), larger=larger) for larger in (True, False)]
    spread = drawn.std(ddof=1)
    return {
        "part": part, "question": question, "share": share, "random": drawn.mean(), "random_low": drawn.min(),
        "random_high": drawn.max(), "p": min(1.0, 2 * min(sides)), "z": (share - drawn.mean()) / spread if spread > 0 else np.nan,
    }  # fmt: skip


def run(bench: Bench) -> None:
    given, own = bench.arguments, bench.own
    if not any(own.values()):
        raise SystemExit("no language has specific neurons: raise --top or lower --consensus")
    counts = mw.layer_counts(own)
    observed = shares(own, bench.stages)
    drawn = pd.DataFrame([
        shares(chance(own, match="site", seed=given.seed * 1_000_000 + i), bench.stages) for i in range(given.set_draws)
    ])  # fmt: skip
    table = pd.DataFrame([against(part, "stage", observed[part], drawn[part]) for part in PARTS])
    table["holm"] = holm(table["p"].to_numpy(float))
    first = pd.DataFrame([against("A", "structure", *attention(counts, given.set_draws, given.seed))])
    table = pd.concat([first.assign(holm=first["p"]), table], ignore_index=True)
    widths = counts.assign(structure=np.where(counts["site"] == "ffn", "FFN", "attention"))
    density = widths.groupby(["language", "structure"], sort=False)[["count", "width"]].sum()
    density = density.assign(density=density["count"] / density["width"]).reset_index()
    lines = [
        [r["part"], "–", f"{r['share']:.1%}", f"{r['random']:.1%} ({r['random_low']:.1%} to {r['random_high']:.1%})", signed(r["z"]),
         f"{r['p']:.3f} ({r['holm']:.3f})", "–"]
        for r in rows_with(table)
    ]  # fmt: skip
    head = ["part", "paper", "ours: share of specific neurons", "random", "z", "p (Holm)", "agrees"]
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
