"""Roots of facts: what a model knows in which language, which languages share it, in which neurons it lies, and where it comes from.

    python experiments/facts/study.py [--model organism] [--facts organism] [--out runs/facts]      three minutes of one core; --resume, --smoke

After Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189), on a model whose facts have a known source: the generated world of the organism says which
languages stated each fact, so that every analysis can be scored (`recovery`), which no study of a real model could do. Corpora: `world` (the
default for the organism's facts) are documents drawn as its training draws them; else a folder of <language>.txt, .jsonl (.gz). Negative controls
beside every analysis (`controls.py`). Writes RESULTS/study.json and figures.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import time
import warnings
from collections.abc import Mapping
from typing import Any

import controls
import numpy as np
import pandas as pd
import world
from common import arguments, finish, in_words, share

import mwork_lens as mw
from mwork_lens.cli.fact_folder import sources_of
from mwork_lens.facts import origin
from mwork_lens.facts.factors import factor_correlations, precision_by_tokens, token_counts
from mwork_lens.facts.factset import FactSet, load_facts
from mwork_lens.facts.judged import judged
from mwork_lens.facts.overlaps import fact_overlaps, neuron_similarity, null_cuts
from mwork_lens.facts.precision import one_token_precision, precision
from mwork_lens.facts.probe import probe
from mwork_lens.facts.probeless import fact_neurons
from mwork_lens.facts.recovery import recovery
from mwork_lens.facts.search import present
from mwork_lens.facts.sharing import as_matrix, cluster, off_diagonal_mean, sharing_table
from mwork_lens.facts.summary import summary

LITTLE = 0.02
"""If fewer than this share of the queries are full matches, the typed rank says what is known."""


def main() -> None:
    """Run the study and write the results."""
    a = arguments(__doc__)
    start = time.monotonic()
    model = mw.load_model(a.model)
    facts = load_facts(a.facts, a.languages)
    facts = facts if a.take is None else facts.take(a.take, a.seed)
    tables: dict[str, pd.DataFrame] = {}
    figures: dict[str, Any] = {}
    predictions = probe(model, facts, size=32, out=a.out / "probe", resume=a.resume)
    metric = a.metric or main_metric(predictions)
    said = [f"What counts as known: {metric}.", *known(predictions, facts, metric, a, tables, figures)]
    said += shared(predictions, metric, a, tables, figures)
    neurons = units(model, facts, predictions, metric, a, tables, figures, said)
    said += traced(model, facts, predictions, neurons, metric, a, tables, figures)
    finish(a, model, facts, metric, said, tables, figures, start)


def main_metric(predictions: pd.DataFrame) -> str:
    full = judged(predictions, "full")["full"].mean() if predictions["full"].notna().any() else 0.0
    return "full" if full >= LITTLE else "typed"


def known(
    predictions: pd.DataFrame, facts: FactSet, metric: str, a: argparse.Namespace, tables: dict, figures: dict
) -> list[str]:
    """P@1, what goes with it, and who had stated what is known."""
    from mwork_lens.plots import factor_scatter, precision_intervals, token_curves

    tables["precision"] = found = summary(predictions, seed=a.seed)
    each = found[(found["average"] == "micro") & (found["language"] != "all")]
    figures["precision"] = precision_intervals(each)
    tables["tokens"] = precision_by_tokens(predictions, metric=metric)
    figures["tokens"] = token_curves(tables["tokens"])
    overall = found[(found["language"] == "all") & (found["metric"] == metric)].set_index("average")
    micro, macro = overall.loc["micro"], overall.loc["macro over language"]
    said = [
        f"P@1: micro {share(micro)}, macro over {len(each['language'].unique())} languages {share(macro)} ({int(micro['queries'])} queries)."
    ]
    try:
        tables["one_token"] = one_token_precision(predictions, facts, metric, seed=a.seed)
    except ValueError as error:
        said.append(f"No one-token P@1: {error}.")
    score = each[each["metric"] == metric].set_index("language")
    factors: dict[str, Any] = {"tokens per object": token_counts(predictions)}
    if a.facts == "organism":
        factors |= world.volumes()
    try:
        tables["factors"] = related = factor_correlations(score["precision"], factors, methods=("pearson", "spearman"))
    except ValueError as error:
        related = None
        said.append(f"No correlations: {error}.")
    for number, (name, values) in enumerate(factors.items()):
        drawn = score.reset_index().assign(**{name: lambda t, v=values: t["language"].map(v)})
        figures[f"factor_{number}"] = factor_scatter(drawn, related, factor=name, log=number > 0)
    if related is not None:
        for _, row in related[related["method"] == "spearman"].iterrows():
            said.append(
                f"P@1 and {row['factor']}: Spearman {row['r']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}], n = {row['languages']}."
            )
    if truth := facts.stated():
        group = [source_of(truth[f], x) for f, x in zip(predictions["fact"], predictions["language"], strict=True)]
        split = predictions.assign(stated=group)
        tables["stated"] = pd.concat(
            [
                precision(split, metric, by=("language", "stated"), seed=a.seed),
                precision(split, metric, by=("stated",), seed=a.seed).assign(language="all"),
            ]
        )
        luck = controls.of_guessing(split, facts, a.draws, a.seed).groupby("stated")["guessed"].mean()
        for _, row in tables["stated"][tables["stated"]["language"] == "all"].iterrows():
            right = f"with other facts' objects {luck[row['stated']]:.3f}"
            said.append(f"P@1 of facts {row['stated']}: {share(row)}, {right} ({row['queries']} queries).")
    return said


def source_of(stated: Any, language: str) -> str:
    """Who had stated a fact, seen from a language."""
    if stated == "all" or language in stated:
        return "stated here"
    return "stated in English only" if list(stated) == ["en"] else "stated in another language only"


def shared(predictions: pd.DataFrame, metric: str, a: argparse.Namespace, tables: dict, figures: dict) -> list[str]:
    """Facts that languages know in common, beside chance and the controls."""
    from mwork_lens.plots import language_heatmap

    tables["sharing"] = pairs = sharing_table(predictions, metric=metric)
    matrix, chance = as_matrix(pairs), off_diagonal_mean(as_matrix(pairs, "chance"))
    groups = cluster(matrix, min(4, len(matrix)))
    figures["sharing"] = language_heatmap(
        matrix, groups, label="facts known in both, of those known in either", chance=chance
    )
    answers = judged(predictions, metric)
    tables["controls"] = controls.of_sharing(answers, metric, a.draws, a.seed)
    together = " | ".join(" ".join(members) for members in groups.members())
    return [
        f"Facts shared: mean Jaccard {off_diagonal_mean(matrix):.3f}, by chance {chance:.3f}; groups {together}.",
        *in_words(tables["controls"]),
    ]


def units(
    model: Any, facts: FactSet, predictions: pd.DataFrame, metric: str, a: argparse.Namespace, tables: dict, figures: dict, said: list[str]
) -> Any:  # fmt: skip
    """Fact neurons and their overlap between languages; None if no group is large enough."""
    from mwork_lens.plots import bins_heatmap, language_heatmap

    found = fact_neurons(
        model, facts, predictions, metric=metric, top=a.top, minimum=a.minimum, out=a.out / "neurons", resume=a.resume
    )
    if not len(found.table):
        said.append(f"No relation has {a.minimum} facts known in a language: no fact neurons.")
        return None
    alike, (layers, width) = neuron_similarity(found), found.shape
    names = list(alike.matrix.index)
    tables["similarity"] = pd.DataFrame(
        [(x, y, alike.matrix.loc[x, y], int(alike.facts.loc[x, y])) for x in names for y in names],
        columns=["a", "b", "overlap", "facts"],
    )
    counts = found.bins(min(16, width))
    tables["bins"] = pd.DataFrame(counts, columns=[f"bin_{i}" for i in range(counts.shape[1])])
    cuts = null_cuts(found, seed=a.seed).dropna(subset=["cut"])
    cuts = cuts.assign(high=cuts["overlap"] >= cuts["cut"], queries=1).groupby(["relation", "others"], as_index=False)
    tables["cuts"] = cuts.agg({"overlap": "mean", "median": "mean", "cut": "mean", "high": "mean", "queries": "sum"})
    tables["refused"] = found.refused
    figures["similarity"] = language_heatmap(
        alike.matrix, label=f"overlap of the top {a.top} units", chance=alike.chance
    )
    figures["bins"] = bins_heatmap(counts, width=width)
    control = controls.of_neurons(found, a.draws, a.seed)
    tables["controls"] = pd.concat([tables["controls"], control], ignore_index=True)
    by_layer = counts.sum(1) / counts.sum()
    said.append(
        f"Fact neurons: {len(found.table)} facts in {found.table['language'].nunique()} languages, {len(found.refused)} groups refused; overlap of "
        f"the top {a.top} of {layers * width} between languages {alike.mean:.4f}, two random sets {alike.chance:.4f}; most lie in layer "
        f"{int(by_layer.argmax())} ({by_layer.max():.0%})."
    )
    said += in_words(control)
    return found


def traced(
    model: Any, facts: FactSet, predictions: pd.DataFrame, neurons: Any, metric: str, a: argparse.Namespace, tables: dict, figures: dict
) -> list[str]:  # fmt: skip
    """Presence in the corpora, types, patterns; recovery of the truth where it is known."""
    from mwork_lens.plots import absent_bars, pattern_bars, type_bars

    texts: Mapping[str, Any] = (
        world.corpora(a.documents, a.seed, facts.languages)
        if a.corpora == "world"
        else sources_of(a.corpora, facts.languages)
    )
    ways = [(a.unit, "tokens" if a.unit == "chunk" else "words", texts)]
    if a.corpora == "world":
        pages = world.pages(texts)
        ways += [
            ("sentence", "words", texts),
            ("document", "tokens", texts),
            ("chunk", "tokens", pages),
            ("chunk", "words", pages),
        ]
    false, truth, rows, presences = controls.other_objects(facts, a.seed), facts.stated(), [], {}
    for number, (unit, match, held) in enumerate(ways):
        tokenizer = model.tokenizer if match == "tokens" or unit == "chunk" else None
        how = {"unit": unit, "match": match, "tokenizer": tokenizer, "progress": False}
        where = "pages of 12" if number >= 3 else "documents"
        real = presences[f"{unit}, {match}, {where}"] = present(facts, held, **how)
        odd = false[false["language"].isin(list(held))]
        wrong = present(odd, held, **how)["present"].mean() if len(odd) else float("nan")
        queries = zip(real["fact"], real["language"], strict=True)
        here = np.array([not truth or source_of(truth[fact], x) == "stated here" for fact, x in queries])
        shares = (real["present"][side].mean() if side.any() else float("nan") for side in (here, ~here))
        rows.append((unit, match, where, *shares, wrong, len(real)))
    columns = [
        "unit",
        "match",
        "corpus",
        "present_stated" if truth else "present",
        "present_elsewhere",
        "present_shuffled_objects",
        "queries",
    ]
    tables["search"] = pd.DataFrame(rows, columns=columns)
    options = {"neurons": neurons, "metric": metric, "tokenizer": model.tokenizer, "seed": a.seed}
    first, *others = presences
    found = origin.origins(facts, predictions, presences[first], **options)
    absent, types, labels = origin.absent_shares(found), origin.type_counts(found), origin.label_counts(found)
    tables |= {"absent": absent, "types": types.reset_index(), "labels": labels.reset_index()}
    figures |= {"absent": absent_bars(absent), "types": type_bars(types), "labels": pattern_bars(labels)}
    whole, kinds = absent.iloc[-1], types.loc["all"]
    said = [f"Search ({r.unit}, {r.match}, {r.corpus}): present {r[4]:.3f}, of facts stated elsewhere {r[5]:.3f}, with another object {r[6]:.3f}."
            for r in tables["search"].itertuples()]  # fmt: skip
    said += [
        f"Known and absent: {whole['absent']} of {whole['predicted']} ({whole['share']:.1%} [{whole['low']:.1%}, {whole['high']:.1%}]); by type "
        + ", ".join(f"{name} {int(kinds[name])}" for name in origin.TYPES) + ".",
        "Patterns: " + ", ".join(f"{name} {int(n)}" for name, n in labels.loc["all"].items()) + ".",
    ]  # fmt: skip
    if truth:
        overlaps = None if neurons is None else fact_overlaps(neurons)
        keys = ["analysis", "measure"]
        control = controls.of_recovery(found, truth, overlaps, a.draws, a.seed)
        table = recovery(found, truth, overlaps, seed=a.seed).merge(control, on=keys, how="left").assign(search=first)
        said += [
            f"Recovery, {row['analysis']}, {row['measure']}: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}], chance "
            f"{row['chance']:.2f}, truth shuffled {row['shuffled']:.2f} ({row['shuffled_low']:.2f} to {row['shuffled_high']:.2f}), "
            f"{row['queries']} queries."
            for _, row in table.iterrows()
        ]
        for name in others:  # what becomes of the origin under another search
            again = recovery(origin.origins(facts, predictions, presences[name], **options), truth, seed=a.seed)
            again = again[again["analysis"].isin(["source absent", "transferred"])].assign(search=name)
            table = pd.concat([table, again], ignore_index=True)
            said += [
                f"Recovery, search by {name}, {row['analysis']}, {row['measure']}: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]."
                for _, row in again[again["measure"] != "precision"].iterrows()
            ]
        tables["recovery"] = table
    return said


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.filterwarnings("once")
        main()
