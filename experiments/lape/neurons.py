"""How many language-specific neurons there are, where they are, how firm they are, and whether methods agree on them.

    python experiments/lape/neurons.py [--out runs/lape]          about a minute on one core; --smoke tries it in seconds

After Tang et al. 2024: neurons per language (Table 2, as far as known), over layers (a figure of theirs), belonging to one, two or more languages;
beyond the paper: selection frequencies over resampled documents, sensitivity to every setting, agreement of the methods against chance. Writes
results/neurons.json and results/neurons_*.svg.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from common import MAIN, RATE, Bench, Sets, begin, counts_in_words, detectors, finish, own_units

import mwork_lens as mw
from mwork_lens import plots
from mwork_lens.detect.lape import effective_languages, language_entropy, probabilities, select
from mwork_lens.plots import stability as firm_plots
from mwork_lens.robustness.agreement import agreement
from mwork_lens.robustness.sensitivity import ALL, sensitivity
from mwork_lens.robustness.stability import frequency_table, selection_frequency, stability_table

PUBLISHED = {
    "LLaMA-2-70B, the paper's table": "en 836, zh 5153, fr 6082, es 6154, vi 4980, id 6106, ja 5216 (about 23,000 units, 1%)",
    "LLaMA-2-7B, released masks": "en 95, zh 583, fr 1022, es 838, vi 836, id 1068, ja 582; of 3,523 units 68% / 24% / 8% in 1 / 2 / 3+ languages",
    "BLOOM-7B, released masks": "en 445, zh 653, fr 680, es 918, vi 551, id 2823; of 4,915 units 84% / 10% / 6% in 1 / 2 / 3+ languages",
    "Mistral-7B, released masks": "en 76, zh 1190, fr 919, es 838, vi 1554, id 1445; of 4,588 units 74% / 22% / 4% in 1 / 2 / 3+ languages",
}
"""Ours have other languages, another size and other texts: compare the pattern, not the numbers."""


def sizes(methods: Mapping[str, Sets]) -> pd.DataFrame:
    """Per method: neurons of each language, distinct ones, and how many belong to 1, 2, 3 or more languages."""
    rows = []
    for method, sets in methods.items():
        held = torch.stack([units.masks["ffn"] for units in sets.values()]).sum(0)
        ends = {f"in {n}": int((held == n).sum()) for n in (1, 2)} | {"in 3+": int((held > 2).sum())}
        rows.append(
            {
                "method": method,
                **{x: len(units) for x, units in sets.items()},
                "distinct": int((held > 0).sum()),
                **ends,
            }
        )
    return pd.DataFrame(rows)


def specificity(bench_moments: Mapping[str, mw.DocumentMoments]) -> pd.DataFrame:
    """exp(LAPE), the number of languages a unit is spread over: of all units, of those that pass the filter, of the selected."""
    p = probabilities(bench_moments)
    score = language_entropy(p)
    rows = []
    for rate in (0.01, RATE):
        found = select(p, score, rate=rate)
        groups = {
            "all": torch.ones_like(found.chosen),
            "above the filter": (p > found.threshold).any(-1),
            "selected": found.chosen,
        }
        for name, mask in groups.items():
            spread = effective_languages(score[mask]).numpy()
            quantiles = dict(zip(("min", "median", "max"), np.quantile(spread, [0, 0.5, 1]), strict=True))
            rows.append({"rate": rate, "units": name, "number": len(spread), **quantiles, "threshold": found.threshold})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, methods: Mapping[str, Sets]) -> pd.DataFrame:
    """Agreement per pair of methods over languages, and the same with the sets of other languages."""
    rows = []
    total = table[table["level"] == "total"]
    for (method, other), part in total.groupby(["method", "other"], sort=False):
        layers = table[(table["level"] == "layer") & (table["method"] == method) & (table["other"] == other)].dropna(
            subset="q"
        )
        crossed = [mw.jaccard(x, y) for a, x in methods[method].items() for b, y in methods[other].items() if a != b]
        rows.append(
            {
                "method": method, "other": other, "shared": part["shared"].sum(), "expected": part["expected"].sum(),
                "jaccard": part["jaccard"].mean(), "jaccard_chance": part["jaccard_chance"].mean(),
                "jaccard_other_languages": float(np.nanmean(crossed)),
                "languages": int(part["q"].notna().sum()), "languages_q05": int((part["q"] <= 0.05).sum()),
                "layers": len(layers), "layers_q05": int((layers["q"] <= 0.05).sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def findings_of_sets(methods: Mapping[str, Sets], spread: pd.DataFrame, shared: pd.DataFrame) -> list[str]:
    found = []
    for method in ("LAPE 1%", MAIN):
        sets = methods[method]
        held = torch.stack([units.masks["ffn"] for units in sets.values()]).sum(0)
        held = held[held > 0]
        ends = " / ".join(f"{float(x.double().mean()):.0%}" for x in (held == 1, held == 2, held > 2))
        found.append(
            f"{method}: {len(held)} units; per language {counts_in_words(sets)}; {ends} of them in 1 / 2 / 3+ languages."
        )
    found += [f"Published, {name}: {text}." for name, text in PUBLISHED.items()]
    counts = own_units(methods[MAIN]).masks["ffn"].sum(1).double()
    quarter = max(1, round(len(counts) / 4))
    first, last = (float(part.sum() / counts.sum()) for part in (counts[:quarter], counts[-quarter:]))
    ends = f"{first:.0%} in the first and {last:.0%} in the last quarter of the layers (even: {quarter / len(counts):.0%} each)"
    verdict = "both ends" if min(first, last) > quarter / len(counts) else "the top" if last > first else "the bottom"
    found.append(
        f"{MAIN} over layers: {', '.join(str(int(x)) for x in counts)}; {ends}. The paper says bottom and top layers; here it is {verdict}. "
        "(In the released masks: both ends for LLaMA-2, the top alone for BLOOM, Mistral and Phi-2.)"
    )
    row = spread[spread["rate"] == RATE].set_index("units")
    found.append(
        f"'Specific' is relative: exp(LAPE) of the selected has median {row.loc['selected', 'median']:.2f} "
        f"({row.loc['selected', 'min']:.2f} to {row.loc['selected', 'max']:.2f}), of all units {row.loc['all', 'median']:.2f}, "
        f"of {len(methods[MAIN])} languages."
    )
    pairs = shared[shared["language"] < shared["other"]].sort_values("jaccard", ascending=False)
    best = ", ".join(
        f"{a}-{b} {j:.2f}" for a, b, j in pairs[["language", "other", "jaccard"]].head(4).itertuples(index=False)
    )
    found.append(f"Overlap of languages ({MAIN}), Jaccard, largest first: {best}.")
    return found


def findings_of_firmness(stable: pd.DataFrame, varied: pd.DataFrame, agreed: pd.DataFrame) -> list[str]:
    per = ", ".join(f"{r.language} {r.jaccard:.2f} ({r.firm:.0%} firm)" for r in stable.itertuples() if r.size)
    found = [
        f"Resampled documents, {MAIN}: mean Jaccard index with the full set, and share of it chosen in 9 of 10 resamples: {per}."
    ]
    every = varied[(varied["language"] == ALL) & ~varied["reference"]]
    for kind, part in every.groupby("varied", sort=False):
        each = part.groupby("value", sort=False)["jaccard"].mean()
        spoken = ", ".join(f"{value} {j:.2f}" for value, j in each.items())
        if len(each) > 9:
            spoken = f"{each.min():.2f} to {each.max():.2f}, mean {each.mean():.2f}"
        found.append(
            f"Sensitivity to {kind}, Jaccard index with {MAIN}: {spoken} (chance {part['jaccard_chance'].mean():.2f})."
        )
    with_main = agreed[(agreed["method"] == MAIN) | (agreed["other"] == MAIN)]
    for row in with_main.itertuples():
        other = row.other if row.method == MAIN else row.method
        found.append(
            f"{MAIN} and {other}: Jaccard {row.jaccard:.2f}, chance {row.jaccard_chance:.2f}, with the sets of other languages "
            f"{row.jaccard_other_languages:.2f}; q <= 0.05 in {row.languages_q05} of {row.languages} languages, "
            f"{row.layers_q05} of {row.layers} language-layer pairs."
        )
    rest = agreed[(agreed["method"] != MAIN) & (agreed["other"] != MAIN)]
    least = rest.sort_values("languages_q05").iloc[0]
    found.append(
        f"Of the {len(agreed)} pairs of methods, {(agreed['languages_q05'] == agreed['languages']).sum()} agree above chance in every language "
        f"that tests it; the pair that does so least is {least['method']} and {least['other']} ({least['languages_q05']} of {least['languages']})."
    )
    return found


def main() -> None:
    """Detect, resample, vary, compare."""
    bench: Bench = begin(__doc__)
    moments = bench.moments()
    methods = detectors(bench, moments)
    spread, shared = specificity(moments), mw.overlap(methods[MAIN])
    firm = selection_frequency(
        moments, rate=RATE, resamples=20 if bench.smoke else 200, seed=bench.arguments.seed, progress=False
    )
    topics = [{name.rpartition("-")[0] for name in corpus.ids} for corpus in bench.detection.values()]
    by_topic = len(topics[0]) > 1 and all(found == topics[0] and "" not in found for found in topics)
    varied = sensitivity(
        moments,
        rate=RATE,
        rates=(0.01, 0.02, RATE, 0.1),
        domains="topics" if by_topic else None,
        draws=2 if bench.smoke else 5,
        seed=bench.arguments.seed,
    )
    drawn = varied[
        (varied["varied"] != "domain_random") | (varied["draw"] == 0)
    ]  # one draw per domain keeps the figure small
    agreed = agreement({name: sets for name, sets in methods.items() if name == MAIN or not name.startswith("LAPE")})
    pairs = summary(agreed, methods)
    stable = stability_table(firm)
    layers = pd.concat(
        [mw.layer_counts(methods[name]).assign(method=name) for name in ("LAPE 1%", MAIN)], ignore_index=True
    )
    largest = max(methods[MAIN], key=lambda language: len(methods[MAIN][language]))
    picked = [MAIN, "LAP percentile", "LAVE rectified", "penalised", "AP", "PLND ffn"]
    few = agreed[agreed["method"].isin(picked) & agreed["other"].isin(picked)]
    finish(
        bench,
        "neurons",
        findings_of_sets(methods, spread, shared) + findings_of_firmness(stable, varied, pairs),
        {
            "sizes": sizes(methods),
            "layers": layers.pivot_table(index=["method", "language"], columns="layer", values="count", sort=False)
            .astype(int).rename(columns=str).reset_index(),
            "specificity": spread,
            "overlap": shared[[a < b for a, b in zip(shared["language"], shared["other"], strict=True)]],
            "stability": stable,
            "sensitivity": varied[varied["language"] == ALL]
            .groupby(["varied", "value"], sort=False)[["tokens", "size", "reference_size", "jaccard", "jaccard_chance", "containment"]]
            .mean().reset_index(),
            "agreement": pairs,
            "agreement_by_layer": agreed[
                (agreed["level"] == "layer") & ((agreed["method"] == MAIN) & agreed["other"].isin(picked))
            ].groupby(["other", "layer"], sort=False)[["size_a", "size_b", "shared", "expected"]].sum().reset_index(),
        },
        {
            "layers": plots.layer_counts(mw.layer_counts(methods[MAIN])),
            "overlap": plots.overlap_heatmap(mw.overlap(methods[MAIN])),
            "frequency": firm_plots.selection_frequency_histogram(frequency_table(firm)),
            "sensitivity": firm_plots.sensitivity_curves(drawn),
            "agreement": firm_plots.agreement_heatmap(few, language=largest),
        },
        rate=RATE,
        plnd={"measure": "output", "top": 0.1, "consensus": 1.0, "minus": "others", "sites": ["ffn"]},
    )  # fmt: skip


if __name__ == "__main__":
    main()
