"""From which layer on does an answer carry over from one language to another, while the output's language stays?

    python experiments/patching/carry.py [--model organism] [--task organism/cloze] [--pairs 40] [--out runs/carry] [--smoke]

An English prompt about one thing gives its state at the last position to a prompt in another language about another thing, one layer at a time.
Four answers are scored behind the receiving prompt: the content of the source or of the target, in English or in the target's language. If the
middle layers hold a content without a language (the paper's task-solving in English, or anything shared), patching there gives the *source's
content in the target's language*; patching late gives the source's answer as it is, in English. The same is done the other way round (a state of
another language in an English prompt). Controls: the same language on both sides (content carries, language cannot change), and, for both directions,
a source of another relation, whose content does not fit: it can bring a language and no answer.

The layer that is reported is not chosen on the pairs that it is reported for: each half of the pairs is read at the layer that is best for the other
half, and so is the control. Intervals of these shares are Wilson's, p is Fisher's exact test against the control, Holm's over languages and
directions. Pairs are drawn from a few dozen facts, so they are not fully independent, and intervals are somewhat too narrow.

Only facts stated in every language are used, and pairs whose four answers differ in their first word: what follows an article ("a baker") is computed
behind the prompt, where nothing is patched. Writes OUT/rows.csv (every pair), RESULTS/carry.csv (every layer), carry.json, carry.svg.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest, fisher_exact

import mwork_lens as mw
from mwork_lens.ability_tables import holm
from mwork_lens.patching import Pair, carried, patching_scores
from mwork_lens.storage import Run, write_json, write_text

NAMES = (
    "source content, target language",
    "source content, source language",
    "target content, target language",
    "target content, source language",
)


CONTROL = ", another relation"


def main() -> None:
    """Pair, patch, write."""
    given = parse()
    started = time.time()
    model = mw.load_model(given.model)
    task = mw.load_task(given.task)
    if not any(map(usable, task.items)):
        raise SystemExit(
            f"no item of task {given.task!r} has meta 'relation' and is stated in all languages: check --task"
        )
    task = task.where(usable)
    given.out.mkdir(parents=True, exist_ok=True)
    every = []
    for language in [x for x in (given.languages or task.languages) if x != "en"]:
        for setting, source, target, crossed in (
            ("from English", "en", language, False), ("from English" + CONTROL, "en", language, True),
            ("to English", language, "en", False), ("to English" + CONTROL, language, "en", True),
            ("same language", language, language, False),
        ):  # fmt: skip
            pairs = pairs_of(task, source, target, given.pairs, given.seed, crossed=crossed)
            rows = patching_scores(model, pairs, given.site, at="last", size=16, progress=False)
            every.append(rows.assign(setting=setting, language=language))
            print(f"{setting}, {language}: {len(pairs)} pairs, {time.time() - started:.0f} s", flush=True)
        write_text(given.out / "rows.csv", pd.concat(every).to_csv(index=False))
    table = pd.concat([
        carried(rows, seed=given.seed).assign(setting=rows["setting"].iloc[0], language=rows["language"].iloc[0]) for rows in every
    ], ignore_index=True)  # fmt: skip
    findings = summary(pd.concat(every, ignore_index=True))
    given.results.mkdir(parents=True, exist_ok=True)
    write_text(given.results / "carry.csv", table.round(5).to_csv(index=False))
    run = Run(
        "experiments/patching/carry",
        {k: str(v) for k, v in vars(given).items() if k not in ("out", "results")},
        mw.describe(model),
        seed=given.seed,
    )
    record = {"findings": findings, "seconds": round(time.time() - started), "run": run.to_json()}
    write_json(given.results / "carry.json", record)
    draw(table[table["setting"] == "from English"], given.results / "carry.svg")
    print(json.dumps(findings, indent=1))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism")
    parser.add_argument(
        "--task", default="organism/cloze", help="a task with parallel items; a file, or an embedded one"
    )
    parser.add_argument("--languages", nargs="+", help="besides English; default all of the task")
    parser.add_argument("--site", default="resid_post")
    parser.add_argument("--pairs", type=int, default=40, help="per language and setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/carry"))
    parser.add_argument("--results", type=Path, help="default OUT/results")
    parser.add_argument("--smoke", action="store_true", help="two languages, four pairs")
    given = parser.parse_args()
    given.results = given.results or given.out / "results"
    if given.smoke:
        given.languages, given.pairs = given.languages or ["de", "zh"], 4
    return given


def usable(item: mw.Item) -> bool:
    """Whether an item is stated in every language, and of a known relation."""
    return item.meta.get("stated", "all") == "all" and "relation" in item.meta


def pairs_of(task: mw.Task, source: str, target: str, count: int, seed: int, *, crossed: bool) -> list[Pair]:
    """Random pairs of facts of one relation (or of two: `crossed`), with the four answers, whose first words all differ."""
    theirs, mine = ({item.id: item for item in task.of(language)} for language in (source, target))
    chance, found = random.Random(f"{seed}-{source}-{target}-{crossed}"), {}
    known = sorted(set(theirs) & set(mine))
    for _ in range(100 * count if len(known) > 1 else 0):
        a, b = chance.sample(known, 2)
        if (theirs[a].meta["relation"] == mine[b].meta["relation"]) == crossed:
            continue
        answers = (mine[a], theirs[a], mine[b], theirs[b]) if source != target else (mine[a], mine[b])
        names = NAMES if source != target else (NAMES[0], NAMES[2])
        candidates = {name: item.answers[0] for name, item in zip(names, answers, strict=True)}
        if len({first_word(text) for text in candidates.values()}) == len(candidates):
            found[a, b] = Pair(theirs[a], mine[b], candidates)
        if len(found) == count:
            break
    if not found:
        raise SystemExit(
            f"no pair of facts of {source!r} and {target!r} has answers with different first words: check --task"
        )
    return list(found.values())


def first_word(text: str) -> str:
    """The first word of an answer; the first character where words are not spaced."""
    word = text.split()[0].lower()
    return word if word.isascii() or not "\u4e00" <= word[0] <= "\u9fff" else word[0]


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Per setting and language: how often the source's content comes in the target's language, at layers chosen on other pairs; and the control."""
    found: dict[str, Any] = {}
    hits = {place: likeliest(part) for place, part in rows.groupby(["setting", "language"], sort=False)}
    for (setting, language), own in hits.items():
        if setting.endswith(CONTROL):
            continue
        layers, shown = crosswise(own, own)
        found[f"{setting}, {language}"] = {"layers": layers, "share of pairs": share(shown), "pairs": len(shown)}
        if setting + CONTROL in rows["setting"].unique():
            _, other = crosswise(own, hits[setting + CONTROL, language])
            counts = [[int(x.sum()), int((~x).sum())] for x in (shown, other)]
            found[f"{setting}, {language}"] |= {
                "another relation": share(other), "pairs of another relation": len(other), "p": float(fisher_exact(counts).pvalue),
            }  # fmt: skip
    tested = [one for one in found.values() if "p" in one]
    for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one |= {"p": float(f"{one['p']:.2g}"), "holm": float(f"{p:.2g}")}
    return found


def likeliest(rows: pd.DataFrame) -> pd.DataFrame:
    """[pair layer] whether the source's content in the target's language is the likeliest answer."""
    wide = rows.pivot(index=["pair", "layer"], columns="candidate", values="logp")
    return (wide[NAMES[0]] > wide.drop(columns=NAMES[0]).max(axis=1)).unstack("layer")


def crosswise(chosen_on: pd.DataFrame, read: pd.DataFrame) -> tuple[list[int], pd.Series]:
    """The best layer of each half of the pairs, and the other half of `read` at it."""
    layers = [int(chosen_on.iloc[half::2].mean().idxmax()) for half in (0, 1)]
    return layers, pd.concat([read.iloc[1 - half :: 2][layer] for half, layer in zip((0, 1), layers, strict=True)])


def share(hits: pd.Series) -> list[float]:
    """Mean with Wilson's 95 % interval."""
    low, high = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return [round(float(x), 3) for x in (hits.mean(), low, high)]


def draw(table: pd.DataFrame, path: Path) -> None:
    """Share of pairs in which each answer is the likeliest, over layers; one panel a language."""
    from mwork_lens.plots.style import house_style, make_figure, write_svg

    colours = dict(zip(NAMES, ("#009E73", "#D55E00", "#444444", "#999999"), strict=True))
    languages = list(dict.fromkeys(table["language"]))
    with house_style():
        figure = make_figure(1.2 + 1.5 * len(languages), 2.8)
        panels = figure.subplots(1, len(languages), sharey=True, squeeze=False)[0]
        for panel, language in zip(panels, languages, strict=True):
            for name, colour in colours.items():
                part = table[(table["language"] == language) & (table["candidate"] == name)].sort_values("layer")
                panel.fill_between(
                    part["layer"], part["likeliest_low"], part["likeliest_high"], color=colour, alpha=0.15, linewidth=0
                )
                panel.plot(part["layer"], part["likeliest"], color=colour, marker="o", markersize=3, label=name)
            panel.set_title(language)
            panel.set_xlabel("layer patched")
            panel.set_ylim(-0.02, 1.02)
        panels[0].set_ylabel("share of pairs")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
        write_svg(figure, path)


if __name__ == "__main__":
    main()
