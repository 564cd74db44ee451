"""Detectors against planted truth: models whose language routing is known by construction, and every detector's view of it.

    python experiments/organism/dominance.py series --planted --out runs/dominance
    python experiments/organism/dominance.py measure --out runs/dominance
    python experiments/organism/planted_trial.py --runs runs/dominance [--out runs/planted]

In a planted run (miniworld/planted.py) each of four cloned languages owns an eighth of the FFN units, trained closed to the others; the four speak of
the same world in disjoint words, so that any difference is one of language. Texts: held-out passages, problems and facts with their answers, the
same in all languages. Importances and counts of one language say what any text needs, so each is also taken minus the mean over the other languages
(`contrasted`). Scored as in the trial: average precision and AUROC of a language's own block among all FFN units (chance: 1/8 and 0.5), precision of
the set a detector selects. Whether the blocks do what they should is in blocks.csv of `measure`: each off alone costs its language 0.5 to 1.6 nats.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import random
from pathlib import Path
from typing import Any

import pandas as pd
from miniworld.clones import LANGUAGES, clone_facts, clone_items, lexicon

import mwork_lens as mw
from mwork_lens.detect.listing import contrasted, detect, detectors
from mwork_lens.storage import Run, write_json, write_text
from mwork_lens.trial import trial


def main() -> None:
    """Every planted run: detect, compare, write."""
    given = parse()
    folders = sorted(path for path in given.runs.glob("*-planted") if (path / "done.json").exists())
    if not folders:
        raise SystemExit(f"no finished planted run in {given.runs}: run `dominance.py series --planted` first")
    listed = detectors(rate=given.rate)
    listed += tuple(contrasted(one) for one in listed if one.name not in ("LAPE", "LAVE", "random"))
    tables, model = [], None
    for folder in folders:
        model = mw.load_model(str(folder / "model"))
        truth = mw.load(given.runs / "results" / f"{folder.name}-truth.safetensors")
        truth = {x: mw.NeuronSet(units.masks, model=mw.fingerprint(model)) for x, units in truth.items()}
        corpora = texts(model, given.documents, given.seed)
        found = detect(model, corpora, listed, out=given.out / folder.name, resume=True)
        table = trial(found.scores, truth, chosen=found.chosen, sites=["ffn"])
        tables.append(table.assign(run=folder.name))
        print(
            folder.name,
            table.groupby("detector")[["ap", "auroc", "precision"]].mean().round(3).to_string(),
            sep="\n",
            flush=True,
        )
    table = pd.concat(tables, ignore_index=True)
    given.results.mkdir(parents=True, exist_ok=True)
    write_text(given.results / "planted.csv", table.round(5).to_csv(index=False))
    means = summary(table)
    settings = {k: str(v) for k, v in vars(given).items() if k not in ("out", "results", "runs")}
    run = Run("experiments/organism/planted_trial", settings, mw.describe(model), seed=given.seed)
    write_json(given.results / "planted.json", {"means": means.round(4).to_dict("records"), "run": run.to_json()})
    draw(table, given.results / "planted.svg")
    print(means.round(3).to_string(index=False))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=Path, required=True, help="the folder of `dominance.py series --planted`, measured"
    )
    parser.add_argument("--documents", type=int, default=96, help="per language")
    parser.add_argument("--rate", type=float, default=0.05, help="share of all units that LAPE and its like take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/planted"), help="what can be resumed")
    parser.add_argument("--results", type=Path, help="default OUT/results")
    given = parser.parse_args()
    given.results = given.results or given.out / "results"
    return given


def texts(model: Any, documents: int, seed: int) -> dict[str, mw.Corpus]:
    """The same held-out items with their answers in every clone, as texts of the model's own tokenizer."""
    words = lexicon()
    items = clone_items(words, clone_facts(count=40), documents, seed=seed)
    each = {x: [item for item in items if item.language == x] for x in LANGUAGES}
    chosen = sorted(random.Random(seed).sample(range(len(each["A"])), min(documents, len(each["A"]))))
    decode = model.tokenizer.decode
    return {
        x: mw.Corpus(
            x, tuple(decode([*held[i].prompt[1:], *held[i].answer]) for i in chosen), tuple(f"item-{i}" for i in chosen)
        )
        for x, held in each.items()
    }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Per detector: means over runs and languages, with the smallest and largest mean of a run."""
    runs = table.groupby(["detector", "run"], sort=False)[["ap", "auroc", "precision"]].mean()
    rows = []
    for detector, part in runs.groupby("detector", sort=False):
        row: dict[str, Any] = {"detector": detector, "runs": len(part)}
        for name in ("ap", "auroc", "precision"):
            row |= {name: part[name].mean(), f"{name}_min": part[name].min(), f"{name}_max": part[name].max()}
        rows.append(row)
    return pd.DataFrame(rows).sort_values("ap", ascending=False)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Average precision and AUROC of every detector, a point per run and language; chance is dashed."""
    from mwork_lens.plots.style import house_style, make_figure, write_svg

    order = list(summary(table)["detector"])
    colours = dict(zip(sorted(set(table["run"])), ("#56B4E9", "#0072B2", "#222222"), strict=False))
    with house_style():
        figure = make_figure(6.6, 1.0 + 0.22 * len(order))
        axes = figure.subplots(1, 2, sharey=True)
        for axis, name, chance in zip(axes, ("ap", "auroc"), (1 / 8, 0.5), strict=True):
            for run, colour in colours.items():
                part = table[table["run"] == run]
                y = [order.index(x) for x in part["detector"]]
                axis.plot(
                    part[name], y, "o", markersize=3, color=colour, alpha=0.7, label=f"{run.split('-')[1]} % dominant"
                )
            axis.axvline(chance, color="#777777", linestyle="--", linewidth=0.8)
            axis.set_xlabel({"ap": "average precision", "auroc": "AUROC"}[name])
        axes[0].set_yticks(range(len(order)), order)
        axes[0].invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        write_svg(figure, path)


if __name__ == "__main__":
    main()
