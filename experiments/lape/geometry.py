"""Where languages meet: similarity of parallel sentences, retrieval and dominance per layer, and whether neurons are few there.

    python experiments/lape/geometry.py [--out runs/lape]          about a minute on one core; --smoke tries it in seconds

After Tang et al. 2024: mean sentence embedding similarity (SES) per layer, and "Dominance scores (mean SES) across layers when different languages
serve as the target language" (two of Figures 5 to 7, as far as known). Both with the baseline of other sentences and centred, since around a common
vector any cosine is near 1; sentences embedded at their last token (the paper) and as the mean of their tokens. Texts must be parallel; all documents
take part. Writes results/geometry.json and results/geometry_*.svg.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import pandas as pd
from common import MAIN, RATE, Bench, begin, finish, interval

import mwork_lens as mw
from mwork_lens.detect.lape import lape
from mwork_lens.geometry.embeddings import embed
from mwork_lens.geometry.tables import ALL, dominance, meeting, retrieval, similarity
from mwork_lens.plots.geometry import dominance_curves, retrieval_curves, similarity_curves

POOLS = ("last", "mean")


def aggregate(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that are means over languages."""
    return table[(table["language"] == ALL) | (table["other"] == ALL)]


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of all pairs together, by layer."""
    return table[(table["language"] == ALL) & (table["other"] == ALL)].set_index("layer")


def peak(table: pd.DataFrame, column: str) -> str:
    """First, largest and last value, and where."""
    known = table[column].dropna()
    if known.empty:
        return "undefined at every layer"
    first, best, last = known.index[0], known.idxmax(), known.index[-1]
    return f"{known[first]:.3f} at layer {first}, most {known[best]:.3f} at layer {best}, {known[last]:.3f} at the last ({last})"


def of_similarity(pool: str, raw: pd.DataFrame, middle: pd.DataFrame) -> list[str]:
    mine, core = overall(raw), overall(middle)
    top, best = mine["parallel"].idxmax(), mine["adjusted"].idxmax()
    firm = int((core["adjusted_low"] > 0).sum())
    shape = "rises towards the middle and falls again" if top in mine.index[1:-1] else "does not peak between the ends"
    return [
        f"Pool {pool}: SES {peak(mine, 'parallel')}; of other sentences {peak(mine, 'shuffled')}. It {shape} (the paper: high in the middle); "
        f"at its peak sentences that are no translations have {mine['shuffled'][top] / mine['parallel'][top]:.0%} of it.",
        f"Pool {pool}: SES above other sentences is largest at layer {best}: {interval(mine.loc[best], 'adjusted')}; centred cosines of "
        f"translations {peak(core, 'parallel')}, above other sentences (interval) at {firm} of {core['adjusted'].notna().sum()} layers.",
    ]


def of_retrieval(pool: str, raw: pd.DataFrame, middle: pd.DataFrame) -> str:
    mine, core = overall(raw), overall(middle)
    return (
        f"Pool {pool}: the nearest sentence is the translation in a share of {peak(mine, 'accuracy')}, centred {peak(core, 'accuracy')}; "
        f"chance {mine['chance'].iloc[0]:.4f}, below the interval "
        f"at {int((mine['low'] > mine['chance']).sum())} of {len(mine)} layers, centred at {int((core['low'] > core['chance']).sum())}."
    )


def of_dominance(pool: str, table: pd.DataFrame) -> list[str]:
    to = table[(table["language"] == ALL) & (table["other"] != ALL)]
    found = []
    for column in ("dominance", "adjusted"):
        wide = to.pivot_table(index="layer", columns="other", values=column)
        spread = wide.max(axis=1) - wide.min(axis=1)
        first = ", ".join(f"{layer} {language}" for layer, language in wide.idxmax(axis=1).items())
        english = (
            f"; English is rank {', '.join(str(int(r)) for r in wide.rank(axis=1, ascending=False)['en'])}"
            if "en" in wide
            else ""
        )
        found.append(
            f"Pool {pool}, {column if column == 'dominance' else 'dominance above other sentences'}: first by layer: {first}{english}; "
            f"largest difference between languages {spread.max():.3f} (layer {spread.idxmax()})."
        )
    return found


def of_meeting(table: pd.DataFrame) -> list[str]:
    found = []
    for row in table[table["language"] == ALL].to_dict("records"):
        kind = "centred" if row["centred"] else "raw"
        found.append(
            f"Are neurons few where languages meet? Pool {row['pool']}, {kind}, {row['method']}: Spearman {row['rho']:+.2f} over {row['layers']} "
            f"layers, p {row['p']:.2g}; detectable from |rho| {row['detectable']:.2f}."
        )
    return found


def main() -> None:
    """Embed, compare, and set beside the neurons."""
    bench: Bench = begin(__doc__)
    arguments = bench.arguments
    moments = bench.moments()
    counts = {name: mw.layer_counts(lape(moments, rate=rate)) for name, rate in (("LAPE 1%", 0.01), (MAIN, RATE))}
    few = {"resamples": 100} if bench.smoke else {}
    findings: list[str] = []
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in ("similarity", "retrieval", "dominance", "meeting")}
    figures = {}
    for pool in POOLS:
        embeddings = embed(bench.model, bench.together, pool=pool, size=arguments.size, length=arguments.length)
        likeness = {c: similarity(embeddings, centred=c, seed=arguments.seed, **few) for c in (False, True)}
        found = {c: retrieval(embeddings, centred=c) for c in (False, True)}
        dominant = dominance(embeddings, seed=arguments.seed, **few)
        meets = [
            meeting(likeness[c], counts[name]).assign(pool=pool, centred=c, method=name)
            for c in likeness
            for name in counts
        ]
        findings += of_similarity(pool, likeness[False], likeness[True])
        findings += [of_retrieval(pool, found[False], found[True]), *of_dominance(pool, dominant)]
        tables["similarity"] += [aggregate(t).assign(pool=pool) for t in likeness.values()]
        tables["retrieval"] += [overall(t).reset_index().assign(pool=pool) for t in found.values()]
        tables["dominance"] += [aggregate(dominant).assign(pool=pool)]
        tables["meeting"] += meets
        figures |= {
            f"ses_{pool}": similarity_curves(likeness[False]),
            f"ses_centred_{pool}": similarity_curves(likeness[True], "adjusted"),
            f"retrieval_{pool}": retrieval_curves(found[True]),
        }
        if pool == "last":
            figures |= {
                "dominance": dominance_curves(dominant),
                "dominance_adjusted": dominance_curves(dominant, "adjusted"),
            }
    whole = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    findings += of_meeting(whole["meeting"])
    finish(bench, "geometry", findings, whole, figures, rates=[0.01, RATE], pools=list(POOLS))


if __name__ == "__main__":
    main()
