"""The perplexity matrix for a growing share of neurons.

    python experiments/lape/share.py [--out runs/lape]          about five minutes on one core, two after perplexity.py

After Tang et al. 2024 (Figure 3, as far as known: "Change in PPL across different languages upon incremental number of language specific neurons
when deactivating French neurons"); here the neurons of every language in turn. LAPE at 0.5, 1, 2, 5 and 10 %: the rate is the share of ALL units
that is chosen over all languages together, so a language's own share is smaller, and the larger sets contain the smaller ones. Five random sets with
the same count in every layer, per language and rate. Held-out documents. What is finished in --out, by perplexity.py too, is used again. Writes
results/share.json and results/share_curves.svg.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from typing import Any

import pandas as pd
from common import Bench, begin, finish, signed

from mwork_lens.detect.lape import lape
from mwork_lens.perplexity.scores import share_scores
from mwork_lens.perplexity.tables import ALL, SCORES, selectivity, share_curve
from mwork_lens.plots.matrix import share_curves

RATES = (0.005, 0.01, 0.02, 0.05, 0.1)
DRAWS = 5


def summary(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Per rate and language: own harm, harm to the others, and the same of the random sets."""
    rows = []
    unmasked = scores["neurons"] == "none"
    for share in sorted(scores.loc[~unmasked, "share"].unique()):
        table = selectivity(scores.loc[unmasked | (scores["share"] == share), list(SCORES)], seed=seed)
        drawn = table[table["neurons"] == "random"].groupby("off")[["diagonal", "off_diagonal", "selectivity"]].mean()
        for row in table[table["neurons"] == "own"].to_dict("records"):
            chance: Any = drawn.loc[row["off"]] if row["off"] in drawn.index else {}
            kept = (
                "count",
                "diagonal",
                "off_diagonal",
                "selectivity",
                "selectivity_low",
                "selectivity_high",
                "rank",
                "largest",
                "rows",
                "p",
            )
            found = {"rate": share, "off": row["off"], **{name: row[name] for name in kept}}
            rows.append(
                found | {f"random_{name}": chance.get(name) for name in ("diagonal", "off_diagonal", "selectivity")}
            )
    return pd.DataFrame(rows)


def in_words(table: pd.DataFrame) -> list[str]:
    found = []
    for row in table[table["off"] == ALL].to_dict("records"):
        found.append(
            f"Rate {row['rate']:g} ({row['count']} neurons in {row['rows']} languages): harm {signed(row['diagonal'])} to the language itself, "
            f"{signed(row['off_diagonal'])} to the others; random {signed(row['random_diagonal'])} and {signed(row['random_off_diagonal'])}; "
            f"selectivity {signed(row['selectivity'])} [{signed(row['selectivity_low'])}, {signed(row['selectivity_high'])}]; "
            f"the language itself suffers most in {row['largest']} of {row['rows']} rows."
        )
    rising = []
    for language, part in table[table["off"] != ALL].groupby("off", sort=False):
        part = part.dropna(subset="diagonal")
        steps = part["diagonal"].diff().dropna()
        path = ", ".join(
            f"{count} {signed(harm)} ({signed(others)})"
            for count, harm, others in part[["count", "diagonal", "off_diagonal"]].values
        )
        path = path.replace(".0 ", " ")
        found.append(f"{language}: neurons, harm to itself (to the others): {path or 'never any neurons'}.")
        if len(steps) and (steps > 0).all():
            rising.append(str(language))
    found.append(
        f"Harm to the language itself grows at every step for {', '.join(rising) or 'none'}; the paper shows that it grows with the number of "
        "neurons and that other languages change less."
    )
    last = table[(table["off"] == ALL) & (table["rate"] == table["rate"].max())].iloc[0]
    more = "more" if last["off_diagonal"] > last["random_off_diagonal"] else "not more"
    found.append(
        f"What the sets do to other languages is {more} than what as many random neurons do to them ({signed(last['off_diagonal'])} and "
        f"{signed(last['random_off_diagonal'])} at rate {last['rate']:g}). The rate is a share of all units over all languages; those switched "
        "off for one language are the counts above."
    )
    return found


def main() -> None:
    """Detect at every rate, switch off, tabulate."""
    bench: Bench = begin(__doc__)
    arguments, moments = bench.arguments, bench.moments()
    rates = RATES[1:4] if bench.smoke else RATES
    scores = share_scores(
        bench.model,
        bench.held_out,
        {rate: lape(moments, rate=rate) for rate in rates},
        draws=1 if bench.smoke else DRAWS,
        seed=arguments.seed,
        size=arguments.size,
        length=arguments.scored,
        out=bench.out / "perplexity",
        resume=True,  # conditions are found by content, those of perplexity.py in the same OUT too
    )
    curve, table = share_curve(scores, seed=arguments.seed), summary(scores, arguments.seed)
    finish(
        bench,
        "share",
        in_words(table),
        {"rates": table, "curve": curve},
        {"curves": share_curves(curve)},
        rates=list(rates),
        draws=DRAWS,
        held_out=1 / 3,
    )


if __name__ == "__main__":
    main()
