"""Where does an answer come from, by layer and position, in every language?

    python experiments/patching/trace.py [--model organism] [--task organism/cloze] [--relation colour] [--out runs/trace] [--smoke]

Two questions of one relation about two subjects, with different answers and the same tokens but for the name (a symmetric token replacement). A
state of the first run is put into the second: which one is enough to bring its answer? The share of the logit difference that comes back (1: as if
everything was patched), at every layer of `--site` and every position, means over pairs with 95 % intervals. Neither prompt of a pair is the clean
one, so exchanging the two (noising) is the same experiment on the same kind of pairs, and is not done.

Only the first token of each answer is scored, and the two first tokens of a pair differ: what follows ("ya njano") is computed behind the prompt,
where nothing is patched. Items whose prompt and answer merge into one token are left out, and so is a language with fewer than two pairs. Positions:
the template's own tokens, and all others, `(name)`. Control: a state of the same run changes nothing, and all positions at once give 1 at the first
layer (both are tested in tests/patching).
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
    """Pair, patch, write."""
    given = parse()
    started = time.time()
    model = mw.load_model(given.model)
    task = mw.load_task(given.task)
    tables, names, found = [], {}, []
    for language in given.languages or task.languages:
        items = [
            item
            for item in task.of(language)
            if item.meta.get("stated", "all") == "all" and item.meta.get("relation") == given.relation
        ]
        pairs, tokens = pairs_of(model, items, given.pairs, f"{given.seed}-{language}")
        if len(pairs) < 2:
            print(
                f"{language}: left out, {len(pairs)} pairs of like prompts whose answers begin with different tokens",
                flush=True,
            )
            continue
        names[language] = tokens
        rows = patching_scores(model, pairs, given.site, at="every", by_position=True, progress=False)
        part = recovery(rows, seed=given.seed).assign(language=language)
        tables.append(part)
        for layer in range(model.cfg.n_layers):
            best = part[part["layer"] == layer].dropna(subset="recovery").nlargest(1, "recovery")
            for row in best.to_dict("records"):
                place = f"{tokens[row['position']]!r}, position {row['position']} of 0..{len(tokens) - 1}"
                found.append(
                    f"{language}, layer {layer}: most of the answer is at {place}: {row['recovery']:.2f} "
                    f"[{row['low']:.2f}, {row['high']:.2f}] of it is brought back from there ({row['pairs']} pairs)"
                )
                print(found[-1], flush=True)
    if not tables:
        raise SystemExit(
            f"no language of task {given.task!r} has two pairs of like prompts about relation {given.relation!r} whose answers "
            "begin with different tokens: check --task and --relation"
        )
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


def pairs_of(model: Any, items: list[mw.Item], count: int, seed: str) -> tuple[list[Pair], list[str]]:
    """Random pairs of items of one shape whose answers begin with different tokens, and what stands at each position.

    A shape is the template's tokens, those in more than half of the prompts, and `(name)` for all others; the most frequent one is taken.
    """
    ids = dict(zip(items, prompt_ids(model, [item.prompt for item in items]), strict=True))
    often = Counter(token for row in ids.values() for token in set(row))
    shapes = {
        item: tuple(token if 2 * often[token] > len(items) else None for token in row) for item, row in ids.items()
    }
    begin = {item: text for item in items if (text := first_token(model, item, ids[item])) is not None}
    if not begin:
        return [], []
    shape = Counter(shapes[item] for item in begin).most_common(1)[0][0]
    same = [item for item in begin if shapes[item] == shape]
    chance, found = random.Random(seed), {}
    for _ in range(50 * count):
        if len(same) < 2 or len(found) == count:
            break
        a, b = chance.sample(same, 2)
        if begin[a] != begin[b]:
            found[a.id, b.id] = Pair(a, b, {"source": begin[a], "target": begin[b]})
    tokens = ["(name)" if token is None else model.tokenizer.decode([token]) for token in shape]
    return list(found.values()), tokens


def first_token(model: Any, item: mw.Item, prompt: list[int]) -> str | None:
    """The first token of an item's answer, as text; None if prompt and answer merge, or the token by itself is no text."""
    (whole,) = prompt_ids(model, [item.joined(item.answers[0])])
    text = model.tokenizer.decode(whole[len(prompt) : len(prompt) + 1]).strip()
    (short,) = prompt_ids(model, [item.joined(text)])
    return text if text and short == whole[: len(prompt) + 1] and short[:-1] == prompt else None


def draw(table: pd.DataFrame, names: dict[str, list[str]], path: Path) -> None:
    """A map per language, two in a row."""
    from mwork_lens.plots import recovery_heatmap
    from mwork_lens.plots.style import house_style, language_name, make_figure, write_svg

    height = (len(names) + 1) // 2
    with house_style():
        figure = make_figure(6.6, 0.3 + 2.2 * height)
        panels = figure.subplots(height, 2, squeeze=False).flatten()
        for panel, language in zip(panels, names, strict=False):
            part = table[table["language"] == language].reset_index(drop=True)
            recovery_heatmap(part, tokens=names[language], axes=panel)
            panel.set_title(language_name(language), fontsize=9)
        for panel in panels[len(names) :]:
            panel.set_axis_off()
        write_svg(figure, path)


if __name__ == "__main__":
    main()
