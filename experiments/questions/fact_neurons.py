"""Which neurons hold a fact, are they the same in every language, and are they those of the language?

    python experiments/questions/fact_neurons.py [--model organism] [--task organism/cloze] [--out runs/questions] [--smoke]

Integrated gradients at the FFN units, at the last token of the prompt, towards the right object (`questions.fact_neurons`); facts stated in every
language and, where the task says so (`meta["stated"]`), in one only. Hypothesis: a fact's units do not depend on the language asked in, and do not
coincide with neurons of the language (PLND, LAPE). Controls: the units of *another object* behind the same prompt (a relative threshold gives any
object some units), units of other facts in the same language, the layer-wise null of the overlap, and zeroing: a fact's own units against random
ones of the same layers and against those of another fact of its relation, paired by fact. At the last token of `Torsa joue` a model decides on an
article, so all words of an object but the last are moved into the prompt (`Torsa joue de la` + `guitare`; `--whole` leaves them). Units were
chosen on this very prompt, so zeroing them must hurt it: what counts is the same fact asked in other words (`--asked`), in which nothing was chosen.
PROBELESS, the cheap proxy, takes as many units per fact.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

import argparse
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import Bench, begin, number, panels, random_like

import mwork_lens as mw
from mwork_lens.corpora import pad
from mwork_lens.detect.probeless import mean_deviation
from mwork_lens.evaluate import resample
from mwork_lens.neurons import jaccard
from mwork_lens.plots.style import house_style, language_colours, language_name
from mwork_lens.questions import FactAttributions, fact_attributions, other_objects, set_overlap
from mwork_lens.tasks.likelihood import continuations, logp

Units = Mapping[tuple[str, str], mw.NeuronSet]
"""Per (item, language)."""
CONTROLS = {"random": "#999999", "other fact": "#009E73", "other object": "#CC79A7"}
"""What own units are compared with, and its colour."""


def main() -> None:
    """Attribute, compare, switch off, write."""
    bench = begin("fact_neurons", __doc__, extend)
    task = facts_of(bench)
    found = attribute(bench, task, "attributions")
    wrong = attribute(bench, labels_at_random(bench, task), "of other objects")
    items = {(item.id, item.language): item for item in task.items}
    own = {key: found.units(*key) for key in items}
    other = {key: wrong.units(*key) for key in items}
    layers = found.table().merge(meta(task), on="item")
    likeness = likenesses(bench, task, own, other, proxy(bench, task, own))
    overlaps = overlapping(bench, task, found, own)
    causal, changes = switching(bench, task, own, other)
    again, changed = switching(bench, otherwise(bench, task), own, other)
    causal = pd.concat([causal.assign(wording="as chosen"), again.assign(wording="other words")], ignore_index=True)
    changes = pd.concat([changes.assign(wording="as chosen"), changed.assign(wording="other words")], ignore_index=True)
    told = findings(layers, likeness, overlaps, causal, found, own, other, meta(task))
    bench.finish(
        {"layers": by_layer(layers), "likeness": likeness, "overlaps": overlaps, "causal": causal, "changes": changes},
        {"figure": draw(layers, likeness, overlaps, causal)},
        told,
        facts=len(found.items),
    )


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="organism/cloze", help="facts; a file, or an embedded task")
    parser.add_argument("--facts", type=int, default=28, help="stated in every language (or all, where unknown)")
    parser.add_argument("--each", type=int, default=2, help="facts stated in one language only, per language")
    parser.add_argument("--of", default="probability", choices=("probability", "logp"), help="what is attributed")
    parser.add_argument(
        "--asked", default="organism/knowledge", help="the same facts (`meta['fact']`, else the id) in other words"
    )
    parser.add_argument("--whole", action="store_true", help="objects with their articles")
    parser.add_argument("--steps", type=int, default=20)


def whole_task(bench: Bench) -> mw.Task:
    """The task, articles moved into the prompts."""
    task = bench.task(bench.given.task)
    return task if bench.given.whole else replace(task, items=tuple(map(bare, task.items)), how="loglik", metric="")


def bare(item: mw.Item) -> mw.Item:
    """`Torsa joue` + `de la guitare` as `Torsa joue de la` + `guitare`."""
    before, space, word = item.answers[0].rpartition(" ")
    if not space:
        return replace(item, choices=())
    return replace(item, prompt=item.joined(before), answers=(word,), choices=(), glue=" ")


def otherwise(bench: Bench, task: mw.Task) -> mw.Task:
    """The facts of a task as another one asks for them, under the ids of the first."""
    asked = {(item.language, item.meta.get("fact", item.id)): item for item in bench.task(bench.given.asked).items}
    found = [
        replace(bare(other) if not bench.given.whole else other, id=item.id, meta=item.meta)
        for item in task.items
        if (other := asked.get((item.language, item.meta.get("fact", item.id)))) is not None
    ]
    if not found:
        raise SystemExit(f"--asked {bench.given.asked}: it asks for none of the facts of {bench.given.task}")
    return replace(task, items=tuple(found))


def facts_of(bench: Bench) -> mw.Task:
    """Some facts of each source, the same in every language."""
    given = bench.given
    task = whole_task(bench)
    facts, each = (5, 1) if given.smoke else (given.facts, given.each)
    chosen: set[str] = set()
    for source in dict.fromkeys(item.meta.get("stated", "all") for item in task.items):
        if source in ("all", *task.languages):
            stated = task.where(lambda item, s=source: item.meta.get("stated", "all") == s)
            chosen |= {item.id for item in stated.take(facts if source == "all" else each, given.seed).items}
    parallel = set(task.parallel)
    return task.where(lambda item: item.id in chosen & parallel)


def labels_at_random(bench: Bench, task: mw.Task) -> mw.Task:
    """The same prompts with the object of another fact, drawn among all facts of the task."""
    every = whole_task(bench)
    chosen = {item.id for item in task.items}
    parallel = set(every.parallel)
    made = other_objects(every.where(lambda item: item.id in parallel), seed=bench.given.seed)
    return made.where(lambda item: item.id in chosen)


def attribute(bench: Bench, task: mw.Task, label: str) -> FactAttributions:
    """Attributions of every item."""
    made = fact_attributions(bench.model, task, of=bench.given.of, steps=bench.given.steps)
    print(f"{label}: {len(task)} prompts", flush=True)
    return made


def meta(task: mw.Task) -> pd.DataFrame:
    """Who stated each fact (`all`, or a language)."""
    stated = {item.id: item.meta.get("stated", "all") for item in task.items}
    return pd.DataFrame(stated.items(), columns=["item", "stated"])


def rows_of(bench: Bench, task: mw.Task, language: str) -> dict[str, Any]:
    """Tokens of every item of a language with its object."""
    items = task.of(language)
    wholes = [[item.joined(item.answers[0])] for item in items]
    made = continuations(bench.model, [item.prompt for item in items], wholes, [item.id for item in items])
    return {item.id: row for item, (row,) in zip(items, made, strict=True)}


def proxy(bench: Bench, task: mw.Task, own: Units) -> Units:
    """PROBELESS within language and relation, as many units per fact as integrated gradients found."""
    found = {}
    for language in task.languages:
        items = task.of(language)
        rows = list(rows_of(bench, task, language).values())
        last = torch.tensor([row.start - 1 for row in rows])
        held: list[torch.Tensor] = []

        def hold(layer: int, acts: Any, held: list[torch.Tensor] = held, last: torch.Tensor = last) -> None:
            held.append(acts["ffn"][torch.arange(len(last)), last].float().cpu())

        mw.capture(bench.model, pad([row.ids[: row.start] for row in rows], language, (), bos=None), ["ffn"], hold)
        h = torch.stack(held, 1)
        relation = [str(item.meta.get("relation", "")) for item in items]
        for name in dict.fromkeys(relation):
            at = [i for i, r in enumerate(relation) if r == name]
            if len(at) < 2:
                continue
            for i, score in zip(at, mean_deviation(h[at].flatten(1)), strict=True):
                mask = torch.zeros(len(score), dtype=torch.bool)
                mask[score.topk(len(own[items[i].id, language])).indices] = True
                found[items[i].id, language] = mw.NeuronSet({"ffn": mask.view(h.shape[1:])})
    return found


def likenesses(bench: Bench, task: mw.Task, own: Units, other: Units, cheap: Units) -> pd.DataFrame:
    """Jaccard of a fact's units with others', per fact and kind of comparison; `chance`: with random sets of the same layers in their place."""
    relation = {item.id: str(item.meta.get("relation", "")) for item in task.items}
    languages, rows = task.languages, []

    def add(item: str, kind: str, pairs: list[tuple[mw.NeuronSet, mw.NeuronSet]]) -> None:
        pairs = [(a, b) for a, b in pairs if a and b]
        if pairs:
            drawn = [
                jaccard(a, *random_like(b, 1, bench.given.seed, f"{item} {kind} {i}")) for i, (a, b) in enumerate(pairs)
            ]
            rows.append((item, kind, np.mean([jaccard(a, b) for a, b in pairs]), np.mean(drawn), len(pairs)))

    names = list(relation)
    for at, item in enumerate(names):
        rest = names[at + 1 :] + names[:at]
        alike = next((x for x in rest if relation[x] == relation[item]), None)
        apart = next((x for x in rest if relation[x] != relation[item]), None)
        add(item, "same fact, two languages", [(own[item, a], own[item, b]) for a, b in combinations(languages, 2)])
        crossed = [(own[item, a], own[alike, b]) for a, b in combinations(languages, 2) if alike]
        add(item, "other fact, two languages", crossed)
        add(item, "other fact of the relation", [(own[item, x], own[alike, x]) for x in languages if alike])
        add(item, "fact of another relation", [(own[item, x], own[apart, x]) for x in languages if apart])
        add(item, "other object, same prompt", [(own[item, x], other[item, x]) for x in languages])
        add(item, "PROBELESS", [(own[item, x], cheap[item, x]) for x in languages if (item, x) in cheap])
    return pd.DataFrame(rows, columns=["item", "kind", "jaccard", "chance", "pairs"]).merge(meta(task), on="item")


def overlapping(bench: Bench, task: mw.Task, found: FactAttributions, own: Units) -> pd.DataFrame:
    """Units of the facts asked in each language (of at least two facts), and shared ones, against neurons of every language.

    Row `all`, `own`: every language with its own neurons at once. The languages are laid side by side as if they were more layers, so the null draws
    in each layer of each language.
    """
    moments = mw.measure(
        bench.model, bench.detection, mw.document_moments("ffn_act"), out=bench.kept("document-moments"), resume=True
    )  # fmt: skip
    methods = {
        "PLND": {x: mw.NeuronSet({"ffn": s.masks["ffn"]}) for x, s in bench.own.items()},
        "LAPE": {x: mw.NeuronSet({"ffn": s.masks["ffn"]}) for x, s in mw.lape(moments, rate=0.05).items()},
    }
    facts = {x: [own[item, x] for item in found.items] for x in task.languages}
    facts["shared"] = [found.shared(item) for item in found.items]
    rows, beside = [], {method: [] for method in methods}
    for asked, sets in facts.items():
        times = torch.stack([units.masks["ffn"] for units in sets]).sum(0)
        whole = mw.NeuronSet({"ffn": times >= min(2, len(sets))})
        for method, languages in methods.items():
            some = {x: units for x, units in languages.items() if units}
            if whole and some:
                rows.append(set_overlap(whole, some).assign(asked=asked, method=method))
            if asked in some:
                beside[method].append((whole.masks["ffn"], some[asked].masks["ffn"]))
    for method, pairs in ((method, pairs) for method, pairs in beside.items() if pairs):
        first, second = (mw.NeuronSet({"ffn": torch.cat(side)}) for side in zip(*pairs, strict=True))
        if first and second:
            rows.append(set_overlap(first, {"own": second}).assign(asked="all", method=method))
    table = pd.concat(rows, ignore_index=True).rename(columns={"name": "neurons_of"})
    from scipy.stats import false_discovery_control

    own_rows = table["asked"] == table["neurons_of"]
    table["bh_own"] = np.nan
    for method in methods:
        mine = own_rows & (table["method"] == method)
        if mine.any():
            table.loc[mine, "bh_own"] = false_discovery_control(table.loc[mine, "p_in_layers"].to_numpy(float))
    return table


def switching(bench: Bench, task: mw.Task, own: Units, other: Units) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Change of a fact's log-probability with units off: its own, random ones of the same layers, those of another fact, of another object."""
    relation = {item.id: str(item.meta.get("relation", "")) for item in task.items}
    names, rows = list(relation), []
    partner = {}
    for kind in dict.fromkeys(relation.values()):
        same = [x for x in names if relation[x] == kind]
        partner |= {x: same[(i + 1) % len(same)] for i, x in enumerate(same) if len(same) > 1}
    stated = dict(meta(task).itertuples(index=False))
    for language in task.languages:
        row = rows_of(bench, task, language)
        before = dict(zip(row, logp(bench.model, list(row.values()), list(row)), strict=True))

        def change(item: str, units: mw.NeuronSet, row: Any = row, before: Any = before) -> float:
            if not units:
                return np.nan
            with mw.deactivate(bench.model, units):
                return float(logp(bench.model, [row[item]], [item])[0] - before[item])

        for item in row:
            if not own[item, language] or item not in partner:
                continue
            drawn = random_like(
                own[item, language], bench.given.draws // 4 or 1, bench.given.seed, f"{item} {language}"
            )
            rows.append({
                "item": item, "language": language, "stated": stated[item], "units": len(own[item, language]), "before": before[item],
                "own": change(item, own[item, language]), "random": np.mean([change(item, units) for units in drawn]),
                "other fact": change(item, own[partner[item], language]), "other object": change(item, other[item, language]),
            })  # fmt: skip
    changes = pd.DataFrame(rows)
    kept = [interval(part, language, group, bench.given.seed) for language, group, part in groups(changes)]
    return pd.DataFrame(kept), changes


def groups(changes: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Facts stated everywhere, per language and over all; facts of one language, asked in it and in the others."""
    everywhere, one = changes[changes["stated"] == "all"], changes[changes["stated"] != "all"]
    languages = dict.fromkeys(changes["language"])
    found = [(x, "stated everywhere", everywhere[everywhere["language"] == x]) for x in languages]
    found.append(("all", "stated everywhere", everywhere))
    found.append(("source", "stated once", one[one["language"] == one["stated"]]))
    found.append(("others", "stated once", one[one["language"] != one["stated"]]))
    return [x for x in found if len(x[2])]


def interval(part: pd.DataFrame, language: str, group: str, seed: int) -> dict[str, Any]:
    """Mean changes, and own against each control, with intervals over facts (all languages of a fact are drawn together)."""
    names = ["own", *CONTROLS]
    means = part.groupby("item")[names].mean()
    row: dict[str, Any] = {"language": language, "group": group, "facts": len(means)}
    row |= {name: part[name].mean() for name in ("units", "before")}
    row |= {name: means[name].mean() for name in names}
    for name in names[1:]:
        gap = (part["own"] - part[name]).groupby(part["item"]).mean().to_numpy(float)
        gap = gap[np.isfinite(gap)]  # where the control is not empty
        weights = resample(len(gap), seed=seed) / len(gap)
        low, high = np.quantile(weights @ gap, [0.025, 0.975]) if len(gap) else (np.nan, np.nan)
        row |= {
            f"own - {name}": gap.mean() if len(gap) else np.nan,
            f"own - {name} low": low,
            f"own - {name} high": high,
        }
    return row


def by_layer(layers: pd.DataFrame) -> pd.DataFrame:
    """Means over facts per language, source and layer."""
    here = np.where(layers["stated"] == layers["language"], "stated here", "stated elsewhere")
    kept = layers.assign(asked=np.where(layers["stated"] == "all", "stated everywhere", here))
    columns = ["units", "total", "effect", "gap", "score"]
    return kept.groupby(["asked", "language", "layer"], sort=False)[columns].mean().reset_index()


def findings(
    layers: pd.DataFrame, likeness: pd.DataFrame, overlaps: pd.DataFrame, causal: pd.DataFrame,
    found: FactAttributions, own: Units, other: Units, stated: pd.DataFrame,
) -> list[str]:  # fmt: skip
    """One line a question."""
    everywhere = list(stated.loc[stated["stated"] == "all", "item"])
    per = layers.groupby(["item", "language"])["units"].sum()
    many = layers.groupby("layer")["units"].sum()
    shared = {item: found.shared(item) for item in everywhere}
    kept = [len(shared[i] & own[i, x]) / len(own[i, x]) for i in everywhere for x in found.languages if own[i, x]]
    means = likeness[likeness["stated"] == "all"].groupby("kind", sort=False)[["jaccard", "chance"]].mean()
    told = [
        f"mean probability of the object {float(np.nanmean(found.score)):.2f}; units per fact and language: {per.mean():.1f} "
        f"(median {per.median():.0f}; another object: {np.mean([len(u) for u in other.values()]):.1f}); share by layer "
        + ", ".join(f"{layer}: {n / many.sum():.2f}" for layer, n in many.items()),
        f"facts stated everywhere have {np.mean([len(u) for u in shared.values()]):.1f} shared units "
        f"({np.mean([bool(u) for u in shared.values()]):.2f} of the facts have any); {np.mean(kept):.2f} of a language's units are shared",
        f"completeness: gap {layers['gap'].abs().mean():.4f} on the mean, of effects of {layers['effect'].abs().mean():.4f}",
        "Jaccard (chance by layer), facts stated everywhere: "
        + "; ".join(f"{kind} {row.jaccard:.2f} ({row.chance:.2f})" for kind, row in means.iterrows()),
    ]
    for method, part in overlaps.groupby("method", sort=False):
        mine, alone = part[part["asked"] == part["neurons_of"]], part[part["asked"] == "shared"]
        told.append(
            f"{method}: facts asked in a language and its neurons, lift plain / in layers (BH): "
            + ", ".join(
                f"{r.neurons_of} {r.lift:.2f} / {r.lift_in_layers:.2f} ({r.bh_own:.3f})" for r in mine.itertuples()
            )
            + "; shared units: "
            + ", ".join(f"{r.neurons_of} {r.lift_in_layers:.2f} ({r.bh_in_layers:.3f})" for r in alone.itertuples())
        )
        apart = part[~part["asked"].isin(["all", "shared"]) & (part["asked"] != part["neurons_of"])]
        told += [
            f"{method}, all languages and their own neurons: {r.both} units in both, {r.expected_in_layers:.1f} expected in layers, "
            f"p = {r.p_in_layers:.1g}; with neurons of other languages {apart['both'].sum()}, {apart['expected_in_layers'].sum():.1f} expected"
            for r in part[part["asked"] == "all"].itertuples()
        ]
    for _, row in causal.iterrows():
        gaps = [
            f"{x} {number(row[f'own - {x}'])} [{number(row[f'own - {x} low'])}, {number(row[f'own - {x} high'])}]"
            for x in CONTROLS
        ]
        told.append(
            f"{row['wording']}, {row['group']}, asked in {row['language']} ({row['facts']} facts, "
            f"{row['units']:.1f} units): own units off {number(row['own'])} nats, "
            f"beyond {', '.join(gaps)}"
        )
    return told


def draw(layers: pd.DataFrame, likeness: pd.DataFrame, overlaps: pd.DataFrame, causal: pd.DataFrame) -> object:
    """Units over layers; likeness with its chance; overlap with the language's neurons; what switching off does."""
    languages = list(dict.fromkeys(layers["language"]))
    colours = language_colours(languages)
    with house_style():
        figure, axes = panels(4, 2.5, 3.2)
        of = layers[layers["stated"] == "all"].groupby(["language", "layer"])["units"].mean()
        for language in languages:
            axes[0].plot(of[language].index, of[language], color=colours[language], label=language_name(language))
        axes[0].set(xlabel="layer", ylabel="units per fact", title="where", ylim=(0, None))
        kinds = likeness[likeness["stated"] == "all"].groupby("kind", sort=False)[["jaccard", "chance"]].mean()[::-1]
        y = np.arange(len(kinds))
        axes[1].barh(y, kinds["jaccard"], color="#0072B2", height=0.6)
        axes[1].plot(kinds["chance"], y, "|", color="#222222", markersize=10, label="chance, by layer")
        axes[1].set_yticks(y, [k.replace(", ", ",\n").replace(" of ", "\nof ") for k in kinds.index])
        axes[1].set(xlabel="Jaccard", title="a fact's units and ...")
        for method, marker, shift in (("PLND", "o", -0.15), ("LAPE", "s", 0.15)):
            part = overlaps[(overlaps["method"] == method) & (overlaps["asked"] == overlaps["neurons_of"])]
            at = [languages.index(x) + shift for x in part["asked"]]
            firm = part["bh_own"] < 0.05
            face = np.where(firm, "#D55E00", "white")
            axes[2].scatter(
                part["lift_in_layers"], at, marker=marker, s=22, edgecolors="#D55E00", facecolors=face, label=method
            )
        axes[2].axvline(1, color="#222222", linewidth=0.8)
        axes[2].set_yticks(range(len(languages)), [language_name(x) for x in languages])
        axes[2].set(xlabel="lift in layers (filled: BH < .05)", title="overlap with the language's")
        part = causal[
            (causal["group"] == "stated everywhere")
            & (causal["language"] != "all")
            & (causal["wording"] == "other words")
        ]
        at = np.array([languages.index(x) for x in part["language"]])
        for (name, colour), shift in zip(CONTROLS.items(), (-0.2, 0.0, 0.2), strict=True):
            gap = part[f"own - {name}"]
            reach = [gap - part[f"own - {name} low"], part[f"own - {name} high"] - gap]
            style = {"fmt": "o", "markersize": 3, "capsize": 2, "color": colour}
            axes[3].errorbar(gap, at + shift, xerr=reach, label=f"against {name}", **style)
        axes[3].axvline(0, color="#222222", linewidth=0.8)
        axes[3].set_yticks(range(len(languages)), [language_name(x) for x in languages])
        axes[3].set(xlabel="change beyond control, nats", title="own units off, asked in other words")
        every = [panel.get_legend_handles_labels() for panel in axes]
        handles, names = ([x for side in sides for x in side] for sides in zip(*every, strict=True))
        figure.legend(handles, names, loc="outside upper center", ncols=7)
    return figure


if __name__ == "__main__":
    main()
