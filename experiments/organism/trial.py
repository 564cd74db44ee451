"""The detectors on trial: every neuron of a model ablated alone, and every detector's scores against what that did.

    python experiments/organism/trial.py [--out runs/trial] [--resume] [--tasks organism/knowledge ...] [--smoke]

Texts: of each three documents two are for detection, and their two halves for repeatability; the first --documents others are scored. Tasks: the
first --documents items of each language, of which only the tokens of the first accepted answer are scored. Everything that runs the model is kept in
--out and used again with --resume. Writes to --results: trial.csv (every detector, language, target, on the FFN and on all sites), abilities.csv
(the same per ability, if tasks are given), repeatability.csv, agreement.csv, trial.json (cost, provenance, means) and trial.svg. The columns
precision_q and q are p-values corrected over all rows of a file (of a target, where it has several).

The embedded model has 5,824 neurons. One core does about 15,000 tokens per second in the first layer and 300,000 in the last where only answers are
scored, 40,000 where all tokens are: 50 million tokens (8 documents of 24 tokens in 6 languages are 6.7 million) take about 25 minutes.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import mwork_lens as mw
from mwork_lens.causal import Effects, ablation_effects, plan
from mwork_lens.detect.listing import Outcome, contrasted, detect, detectors
from mwork_lens.evaluate import prepare
from mwork_lens.repeatability import repeatability
from mwork_lens.robustness.agreement import agreement
from mwork_lens.storage import Run, save, write_json, write_text
from mwork_lens.tokens import Tokens
from mwork_lens.trial import TARGETS, corrected, trial

ATTENTION_TOO = ("PLND", "PLND (released)", "first order", "attribution", "attribution (signed)")


def main() -> None:
    """Detect, ablate, compare, write."""
    arguments = parse()
    started = time.time()
    model = mw.load_model(arguments.model)
    corpora = mw.load_corpora(arguments.texts, arguments.languages, limit=arguments.limit)
    parts = {language: corpus.split() for language, corpus in corpora.items()}
    detection = {language: rest for language, (rest, _) in parts.items()}
    scored = {
        language: held.shard(0, max(1, len(held) // arguments.documents)) for language, (_, held) in parts.items()
    }

    listed = detectors(top=arguments.top, rate=arguments.rate, consensus=arguments.consensus, length=arguments.length)
    listed += tuple(contrasted(one) for one in listed if one.name in ATTENTION_TOO)
    options = {"resume": arguments.resume, "progress": True}
    found = detect(model, detection, listed, out=arguments.out / "detect", **options)
    halves = [
        detect(
            model, {k: c.shard(i, 2) for k, c in detection.items()}, listed, out=arguments.out / f"half{i}", **options
        )
        for i in (0, 1)
    ]

    texts = documents(prepare(model, scored, length=arguments.scored))
    for name in arguments.tasks:
        texts |= answers(model, name, list(corpora), arguments.documents)
    cost = plan(model, texts)
    truth = ablation_effects(model, texts, out=arguments.out / "ablation", stack=arguments.stack, **options)
    save_effects(truth, arguments.out / "effects.parquet")
    write(arguments, truth, found, halves, {"cost": str(cost), "seconds": round(time.time() - started)}, model, corpora)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism", help="local folder or hub id; default the embedded organism")
    parser.add_argument(
        "--texts",
        help="folder of <language>.txt or .jsonl, `organism` or `embedded`; default those of the organism's own world for it, "
        "else `embedded` (natural sentences)",
    )
    parser.add_argument("--tasks", nargs="*", default=[], help="task files, or names of embedded tasks")
    parser.add_argument("--languages", nargs="+", help="codes, in this order; default all")
    parser.add_argument("--limit", type=int, default=72, help="documents per language at most")
    parser.add_argument("--documents", type=int, default=8, help="documents, or items of a task, scored per language")
    parser.add_argument("--length", type=int, help="tokens per document at most for detection; default all")
    parser.add_argument("--scored", type=int, default=24, help="tokens per document at most where text is scored")
    parser.add_argument("--stack", type=int, default=2048, help="tokens per forward of the ablation")
    parser.add_argument(
        "--top", type=float, default=0.1, help="share of each layer's units that PLND and attribution take"
    )
    parser.add_argument("--consensus", type=float, default=0.9, help="share of documents whose top must hold a unit")
    parser.add_argument("--rate", type=float, default=0.05, help="share of all units that LAPE, LAVE and AP take")
    parser.add_argument("--share", type=float, default=0.05, help="share of neurons that are positives")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--out", type=Path, help="what can be resumed; default runs/trial (runs/trial-smoke)")
    parser.add_argument("--resume", action="store_true", help="use what an earlier run left in --out")
    parser.add_argument("--results", type=Path, help="default OUT/results")
    parser.add_argument("--smoke", action="store_true", help="few and short documents of two languages: half a minute")
    arguments = parser.parse_args()
    check(arguments)
    arguments.out = arguments.out or Path("runs/trial-smoke" if arguments.smoke else "runs/trial")
    arguments.results = arguments.results or arguments.out / "results"
    arguments.texts = arguments.texts or ("organism" if arguments.model == "organism" else "embedded")
    if arguments.smoke:
        arguments.languages = arguments.languages or ["en", "zh"]
        arguments.limit, arguments.documents, arguments.length, arguments.scored, arguments.resamples = 12, 2, 16, 6, 5
    return arguments


def check(arguments: argparse.Namespace) -> None:
    """Refuse settings that cannot be, before anything is loaded."""
    for name in ("limit", "documents", "stack"):
        if (number := getattr(arguments, name)) < 1:
            raise SystemExit(f"--{name} {number}: give at least 1")
    for name in ("length", "scored"):
        if (number := getattr(arguments, name)) is not None and number < 2:
            raise SystemExit(f"--{name} {number}: give at least 2")
    for name in ("top", "consensus", "rate"):
        if not 0 < (share := getattr(arguments, name)) <= 1:
            raise SystemExit(f"--{name} {share}: give a share above 0 and at most 1")
    if not 0 < arguments.share < 1 or arguments.resamples < 0:
        raise SystemExit(
            f"--share {arguments.share} --resamples {arguments.resamples}: give a share between 0 and 1, and at least 0 resamples"
        )


def documents(prepared: Any) -> dict[str, list[Tokens]]:
    """Prepared documents as batches of one per language; the group is `<language>/text`."""
    rows = [batch.row(i) for batch in prepared.batches for i in range(len(batch))]
    made: dict[str, list[Tokens]] = {}
    for at, row in sorted(zip(prepared.order, rows, strict=True), key=lambda pair: pair[0]):
        language, name = prepared.names.loc[at, "language"], prepared.names.loc[at, "document"]
        made.setdefault(f"{language}/text", []).append(Tokens(row.ids, row.keep, language, None, (str(name),)))
    return made


def answers(model: Any, source: str, languages: list[str], count: int) -> dict[str, list[Tokens]]:
    """Items of a task, of which the tokens of the answer are scored; the group is `<language>/<ability>`."""
    from mwork_lens.tasks.files import load_task
    from mwork_lens.tasks.likelihood import continuations

    task = load_task(source)
    made: dict[str, list[Tokens]] = {}
    for language in languages:
        items = [item for item in task.items if item.language == language][:count]
        if not items:
            continue
        names = [f"item {item.id!r} of {task.name!r} in {language!r}" for item in items]
        wholes = [[item.joined(item.answers[0])] for item in items]
        for item, (whole,) in zip(items, continuations(model, [i.prompt for i in items], wholes, names), strict=True):
            ids = torch.tensor([whole.ids])
            keep = torch.arange(ids.shape[1])[None] >= whole.start
            group = made.setdefault(f"{language}/{task.ability}", [])
            group.append(Tokens(ids, keep, language, None, (f"{task.name}/{item.id}",)))
    return made


def save_effects(truth: Effects, path: Path) -> None:
    """The raw effects, one row a neuron, one column a document."""
    parts = []
    for site, values in truth.effect.items():
        layers, width, _ = values.shape
        names = [f"{g}|{d}" for g, d in zip(truth.groups, truth.documents, strict=True)]
        table = pd.DataFrame(values.flatten(0, 1).numpy(), columns=names)
        places = {"site": site, "layer": torch.arange(layers).repeat_interleave(width).numpy()}
        parts.append(pd.DataFrame({**places, "index": torch.arange(width).repeat(layers).numpy()}).join(table))
    save(pd.concat(parts, ignore_index=True), path, Run("ablation", {}, {"fingerprint": truth.model}))


def write(
    arguments: argparse.Namespace,
    truth: Effects,
    found: Outcome,
    halves: list[Outcome],
    facts: Mapping[str, Any],
    model: Any,
    corpora: Mapping[str, mw.Corpus],
) -> None:
    """Tables, record and figure."""
    from mwork_lens.models import describe

    options = {"chosen": found.chosen, "share": arguments.share, "resamples": arguments.resamples, "targets": TARGETS}
    wide = {name: scores for name, scores in found.scores.items() if len(next(iter(scores.values()))) > 1}
    chosen = {name: found.chosen[name] for name in wide}
    text = truth.regroup(lambda name: name.split("/")[0] if name.endswith("/text") else None)
    on_ffn = trial(found.scores, text, sites=["ffn"], **options)
    table = joined([on_ffn, trial(wide, text, **{**options, "chosen": chosen})])
    tables = {"trial": table, "repeatability": repeatability(*halves)}
    tables["agreement"] = agreement(found.chosen, sites=["ffn"]).query("level == 'total'")
    abilities = [name for name in dict.fromkeys(group.split("/")[1] for group in truth.groups) if name != "text"]
    rows = []
    for ability in abilities:
        part = truth.regroup(lambda name, ability=ability: name.split("/")[0] if name.endswith(f"/{ability}") else None)
        known = {n: {k: v for k, v in s.items() if k in part.groups} for n, s in found.scores.items()}
        rows.append(trial(known, part, sites=["ffn"], **options).assign(ability=ability))
    if rows:
        tables["abilities"] = joined(rows)
    arguments.results.mkdir(parents=True, exist_ok=True)
    for name, made in tables.items():
        write_text(arguments.results / f"{name}.csv", made.round(5).to_csv(index=False))
    mean = table.groupby(["sites", "target", "detector"])[["spearman", "within", "auroc", "ap", "precision"]].mean()
    run = Run(
        "trial",
        {k: str(v) for k, v in vars(arguments).items() if k not in ("out", "results")},
        describe(model),
        {k: c.facts() for k, c in corpora.items()},
    )
    record = {**facts, "means": json.loads(mean.round(4).reset_index().to_json(orient="records")), "run": run.to_json()}
    write_json(arguments.results / "trial.json", record)
    figure(table, arguments.results / "trial.svg")
    print(mean.round(3).to_string())


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables of `trial` as one, corrected over all of its rows: one table only knows of its own."""
    return corrected(pd.concat(tables, ignore_index=True))


def figure(table: pd.DataFrame, path: Path) -> None:
    """Each detector's rank correlation and area per language on FFN neurons, for both targets; chance is dashed."""
    from mwork_lens.plots.style import house_style, language_colours, make_figure, write_svg

    part = table[table["sites"] == "ffn"]
    names, colours = list(dict.fromkeys(part["detector"])), language_colours(dict.fromkeys(part["language"]))
    with house_style():
        drawn = make_figure(7.0, 1.2 + 0.22 * len(names))
        axes = drawn.subplots(1, 4, sharey=True)
        panels = [(metric, target) for metric in ("within", "auroc") for target in ("own", "specific")]
        for axis, (metric, target) in zip(axes, panels, strict=True):
            rows = part[part["target"] == target]
            for k, (language, colour) in enumerate(colours.items()):
                mine = rows[rows["language"] == language].set_index("detector").reindex(names)
                at = [i + 0.5 * (k / max(1, len(colours) - 1) - 0.5) for i in range(len(names))]
                axis.hlines(at, mine[f"{metric}_low"], mine[f"{metric}_high"], color=colour, linewidth=0.8, alpha=0.5)
                axis.plot(mine[metric], at, "o", markersize=3, color=colour, label=language)
            axis.axvline(0.5 if metric == "auroc" else 0.0, color="grey", linestyle="--", linewidth=0.8)
            axis.set_title(f"{'rank correlation' if metric == 'within' else 'AUROC'}\n{target} effect", fontsize=8)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        axes[-1].legend(fontsize=6)
        write_svg(drawn, path)


if __name__ == "__main__":
    main()
