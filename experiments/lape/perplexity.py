"""The perplexity matrix of every method: whose neurons are off, and which language suffers?

    python experiments/lape/perplexity.py [--out runs/lape]          about nine minutes on one core; --resume continues, --smoke tries it

After Tang et al. 2024 (Figure 2, as far as known: "Impact of four identification methods on the PPL increase", LAPE, LAVE, PV and random
selection). Row = language whose neurons are off, column = language evaluated, on held-out documents. Sets of comparable size (`common.detectors`);
random sets with the row's count in every layer, and for LAPE also with its firing frequencies in the row's language. PV needs a checkpoint tuned on
each language (--before, --tuned). Writes results/perplexity.json and results/perplexity_*.svg.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import MAIN, RATE, Bench, Sets, begin, detectors, finish, interval, signed

import mwork_lens as mw
from mwork_lens.perplexity.scores import perplexity_scores
from mwork_lens.perplexity.tables import ALL, perplexity_matrix, selectivity
from mwork_lens.plots import matrix as figures
from mwork_lens.plots.style import WIDTH, house_style, make_figure

FREQUENCY = f"{MAIN}, frequency matched"
PANELS = (MAIN, "LAVE rectified", "LAP percentile", "penalised", "AP", "PLND ffn", "PV")
MANY, FEW = 20, 5


def score(bench: Bench, methods: Mapping[str, Sets], like: Any) -> dict[str, pd.DataFrame]:
    """Scores per method: many draws for LAPE at 5 %, matched in two ways, few for the others."""
    arguments, resume, found = bench.arguments, bench.arguments.resume, {}
    plan = [(name, sets, MANY if name == MAIN else FEW, None) for name, sets in methods.items()]
    plan.insert([name for name, *_ in plan].index(MAIN) + 1, (FREQUENCY, methods[MAIN], MANY, like))
    for name, sets, draws, frequencies in plan:
        found[name] = perplexity_scores(
            bench.model,
            bench.held_out,
            sets,
            draws=1 if bench.smoke else draws,
            like=frequencies,
            seed=arguments.seed,
            size=arguments.size,
            length=arguments.scored,
            out=bench.out / "perplexity",
            resume=resume,
        )
        resume = True  # what is the same in the next method, the unmasked model at least, is in the folder now
    return found


def own_cells(matrix: pd.DataFrame) -> pd.DataFrame:
    """Change of NLL with the languages' own neurons off, [off, language]."""
    own = matrix[matrix["neurons"] == "own"]
    return own.pivot_table(index="off", columns="language", values="dnll", sort=False, dropna=False)


def verdicts(matrices: Mapping[str, pd.DataFrame], tested: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a method: is its matrix diagonal?"""
    rows = []
    for name, table in tested.items():
        cells = own_cells(matrices[name])
        cells = cells.dropna(how="all")
        total = table[table["off"] == ALL]
        own = total[total["neurons"] == "own"].iloc[0]
        drawn = total.loc[total["neurons"] == "random", "selectivity"]
        single = table[(table["off"] != ALL) & (table["neurons"] == "own")]
        columns = sum(cells[language].idxmax() == language for language in cells.index)
        rows.append(
            {
                "method": name, "units": int(own["count"]), "rows": int(own["rows"]), "largest_in_row": int(own["largest"]),
                "largest_in_column": int(columns),
                **{key: own[key] for key in ("diagonal", "off_diagonal", "selectivity", "selectivity_low", "selectivity_high")},
                "rows_above_zero": int((single["selectivity_low"] > 0).sum()),
                "random_low": drawn.min(), "random_mean": drawn.mean(), "random_high": drawn.max(), "draws": len(drawn),
                "p": own["p"], "p_permutation": own["p_permutation"],
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def shared_with_controls(sets: Sets, like: Any, seed: int) -> dict[str, float]:
    """How much of a set its frequency-matched draws contain by necessity: many frequent units leave little to draw from."""
    found = {}
    for language, units in sets.items():
        if not units:
            continue
        often = {"ffn": like[language].counts("ffn_act").double()}
        generator = torch.Generator().manual_seed(seed)
        drawn = [mw.matched_random(units, like=often, generator=generator) for _ in range(MANY)]
        found[language] = float(np.mean([len(units & control) / len(units) for control in drawn]))
    return found


def in_words(
    table: pd.DataFrame, matrices: Mapping[str, pd.DataFrame], tested: Mapping[str, pd.DataFrame]
) -> list[str]:
    found = []
    for row in table.to_dict("records"):
        diagonal = row["largest_in_row"] == row["rows"] == row["largest_in_column"]
        found.append(
            f"{row['method']} ({row['units']} neurons off in all, each language its own): the diagonal is the largest cell in "
            f"{row['largest_in_row']} of {row['rows']} rows and {row['largest_in_column']} of {row['rows']} columns"
            f"{', the matrix is diagonal' if diagonal else ''}; harm {signed(row['diagonal'])} on it, {signed(row['off_diagonal'])} off it; "
            f"selectivity {interval(row, 'selectivity')} nats per token, random {signed(row['random_low'])} to {signed(row['random_high'])} "
            f"({row['draws']} draws, p {row['p']:.2g}); against other assignments of rows to languages p {row['p_permutation']:.2g}."
        )
    single = tested[MAIN]
    single = single[(single["off"] != ALL) & (single["neurons"] == "own")]
    for row in single.to_dict("records"):
        if not np.isfinite(row["selectivity"]):
            found.append(f"{MAIN}, {row['off']}: no neurons.")
            continue
        found.append(
            f"{MAIN}, {row['off']} ({row['count']} neurons): harm to itself {signed(row['diagonal'])}, to the others "
            f"{signed(row['off_diagonal'])}, selectivity {interval(row, 'selectivity')}, rank {row['rank']:.0f}, p {row['p']:.2g} by layer, "
            f"{_p(tested[FREQUENCY], row['off']):.2g} with frequency matched."
        )
    cells = own_cells(matrices[MAIN])
    mine = [cells.loc[language, language] for language in cells.index]
    ratio = single["count"].corr(pd.Series(mine, index=single.index), method="spearman")
    found.append(
        f"The p values against {MANY} draws cannot be below {1 / (1 + MANY):.3f}, against {FEW} not below {1 / (1 + FEW):.2f}."
    )
    found.append(
        f"The harm grows with the size of the set: Spearman {ratio:.2f} between count and diagonal over the languages of {MAIN}."
    )
    return found


def _p(table: pd.DataFrame, language: str) -> float:
    return float(table.loc[(table["off"] == language) & (table["neurons"] == "own"), "p"].iloc[0])


def panels(matrices: Mapping[str, pd.DataFrame]) -> Any:
    """The own-neuron matrices of several methods."""
    chosen = [name for name in PANELS if name in matrices]
    languages = matrices[MAIN]["language"].nunique()
    rows = -(-len(chosen) // 2)
    with house_style():
        figure = make_figure(max(WIDTH, 1.3 * languages + 3), rows * (0.9 + 0.36 * languages))
        axes = figure.subplots(rows, 2, squeeze=False).ravel()
        for spare in axes[len(chosen) :]:
            spare.remove()
        for panel, name in zip(axes, chosen, strict=False):
            matrix = matrices[name]
            figures.perplexity_heatmap(matrix[matrix["neurons"] == "own"], axes=panel)
            panel.set_title(name)
    return list(axes)


def main() -> None:
    """Score every condition, then make the tables."""
    bench: Bench = begin(__doc__)
    moments = bench.moments()
    methods = detectors(bench, moments)
    scores = score(bench, methods, moments)
    matrices = {name: perplexity_matrix(table, seed=bench.arguments.seed) for name, table in scores.items()}
    tested = {name: selectivity(table, seed=bench.arguments.seed) for name, table in scores.items()}
    table = verdicts(matrices, tested)
    findings = in_words(table, matrices, tested)
    bound = shared_with_controls(methods[MAIN], moments, bench.arguments.seed)
    findings.append(
        "Frequency-matched draws must contain part of the set itself, because few units of a layer fire as often: "
        f"{', '.join(f'{language} {share:.0%}' for language, share in bound.items())} of it; that test is conservative."
    )
    if "PV" not in methods:
        findings.append("PV was not run: it needs a checkpoint tuned on each language (--before, --tuned).")
    cells = [
        own_cells(matrix).reset_index().assign(method=name) for name, matrix in matrices.items() if name != FREQUENCY
    ]
    finish(
        bench,
        "perplexity",
        findings,
        {
            "methods": table,
            "dnll_own": pd.concat(cells, ignore_index=True),
            "matrix": matrices[MAIN],
            "matrix_frequency_matched": matrices[FREQUENCY][matrices[FREQUENCY]["neurons"] == "random"],
            "selectivity": pd.concat(
                [t[t["neurons"] == "own"].assign(method=name) for name, t in tested.items()], ignore_index=True
            ).drop(columns=["neurons", "draw"]),
        },
        {
            "matrix": figures.perplexity_heatmap(matrices[MAIN]),
            "dppl": figures.perplexity_heatmap(matrices[MAIN], value="dppl"),
            "frequency": figures.perplexity_heatmap(matrices[FREQUENCY]),
            "methods": panels(matrices),
            "selectivity": figures.selectivity_bars(tested[MAIN]),
        },
        rate=RATE,
        draws={MAIN: MANY, FREQUENCY: MANY, "others": FEW},
        held_out=1 / 3,
    )


if __name__ == "__main__":
    main()
