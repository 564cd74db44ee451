"""Where does an answer come from? Denoising and noising by layer and position, in every language.

    python experiments/patching/trace.py [--model organism] [--task organism/cloze] [--relation colour] [--out runs/trace] [--smoke]

Two questions of one relation about two subjects, with different answers and prompts of equal length (a symmetric token replacement). *Denoising*: a
state of the first run in the second: which one is enough to bring its answer? *Noising*: a state of the second run in the first: which one can its
answer not do without? Both are shares of the same logit difference (1: as if everything was patched), at every layer of `--site` and every position,
means over pairs with 95 % intervals. Positions: the template's own tokens, and the subject's. Control: a state of the same run changes nothing, and
all positions at once give 1 at the first layer (both are tested in tests/patching). Take a relation whose answers differ in their first token: what
is only computed behind an article ("a baker") lies behind the prompt.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

import mwork_lens as mw
from mwork_lens.patching import Pair, patching_scores, recovery
from mwork_lens.storage import Run, write_json, write_text
from mwork_lens.writing.generate import prompt_ids


def main() -> None:
    """Pair, patch both ways, write."""
    given = parse()
    started = time.time()
    model = mw.load_model(given.model)
    task = mw.load_task(given.task).where(
        lambda item: item.meta.get("stated", "all") == "all" and item.meta.get("relation") == given.relation
    )
    tables, names, found = [], {}, []
    for language in given.languages or task.languages:
        pairs, tokens = pairs_of(model, task, language, given.pairs, given.seed)
        if not pairs:
            print(f"{language}: no two prompts of one length with different answers, left out", flush=True)
            continue
        names[language] = tokens
        for way, both in (
            ("denoising", pairs),
            (
                "noising",
                [
                    Pair(p.target, p.source, {"source": p.candidates["target"], "target": p.candidates["source"]})
                    for p in pairs
                ],
            ),
        ):
            rows = patching_scores(model, both, given.site, at="every", by_position=True, progress=False)
            tables.append(recovery(rows, seed=given.seed).assign(way=way, language=language))
        part = tables[-2]
        for layer in (0, model.cfg.n_layers // 2, model.cfg.n_layers - 1):
            best = part[part["layer"] == layer].sort_values("recovery").iloc[-1]
            found.append(
                f"{language}, layer {layer}: most of the answer is at {tokens[int(best['position'])]!r}: {best['recovery']:.2f} "
                f"[{best['low']:.2f}, {best['high']:.2f}] of it is brought back from there ({len(pairs)} pairs)"
            )
            print(found[-1], flush=True)
    if not tables:
        raise SystemExit(f"no two prompts of one length about relation {given.relation!r}: check --task and --relation")
    table = pd.concat(tables, ignore_index=True)
    given.results.mkdir(parents=True, exist_ok=True)
    write_text(given.results / "trace.csv", table.round(5).to_csv(index=False))
    settings = {k: str(v) for k, v in vars(given).items() if k not in ("out", "results")}
    run = Run("experiments/patching/trace", settings, mw.describe(model), seed=given.seed)
    write_json(
        given.results / "trace.json", {"findings": found, "seconds": round(time.time() - started), "run": run.to_json()}
    )
    draw(table, names, given.results / "trace.svg")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism")
    parser.add_argument(
        "--task", default="organism/cloze", help="a task with meta `relation`; a file, or an embedded one"
    )
    parser.add_argument("--relation", default="colour")
    parser.add_argument("--languages", nargs="+", help="default all of the task")
    parser.add_argument("--site", default="resid_pre")
    parser.add_argument("--pairs", type=int, default=16, help="per language")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/trace"))
    parser.add_argument("--results", type=Path, help="default OUT/results")
    parser.add_argument("--smoke", action="store_true", help="two languages, two pairs")
    given = parser.parse_args()
    given.results = given.results or given.out / "results"
    if given.smoke:
        given.languages, given.pairs = given.languages or ["en", "zh"], 2
    return given


def pairs_of(model: Any, task: mw.Task, language: str, count: int, seed: int) -> tuple[list[Pair], list[str]]:
    """Random pairs of items of one length and different answers, and what stands at each position (a dot where prompts differ)."""
    items = task.of(language)
    ids = dict(zip(items, prompt_ids(model, [item.prompt for item in items]), strict=True))
    length = Counter(map(len, ids.values())).most_common(1)[0][0]
    same = [item for item in items if len(ids[item]) == length]
    chance, found = random.Random(f"{seed}-{language}"), {}
    for _ in range(50 * count):
        if len(same) < 2 or len(found) == count:
            break
        a, b = chance.sample(same, 2)
        if a.answers[0] != b.answers[0]:
            found[a.id, b.id] = Pair(a, b)
    columns = list(zip(*(ids[item] for item in same), strict=True))
    tokens = ["(name)" if len(set(column)) > 1 else model.tokenizer.decode([column[0]]) for column in columns]
    return list(found.values()), tokens


def draw(table: pd.DataFrame, names: dict[str, list[str]], path: Path) -> None:
    """A map per language (rows) and way (columns)."""
    from mwork_lens.plots import recovery_heatmap
    from mwork_lens.plots.style import house_style, language_name, make_figure, write_svg

    languages = list(names)
    with house_style():
        figure = make_figure(6.6, 0.3 + 2.2 * len(languages))
        panels = figure.subplots(len(languages), 2, squeeze=False)
        for row, language in zip(panels, languages, strict=True):
            for panel, way in zip(row, ("denoising", "noising"), strict=True):
                part = table[(table["language"] == language) & (table["way"] == way)]
                recovery_heatmap(part.reset_index(drop=True), tokens=names[language], axes=panel)
                panel.set_title(f"{language_name(language)}: {way}", fontsize=9)
        write_svg(figure, path)


if __name__ == "__main__":
    main()
