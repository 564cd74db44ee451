"""What the models of the dominance series do: accuracies, what the logit lens says per layer, planted blocks. Peaks are in dominance_tables.py."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from dominance_tables import RUN, SHARED, draw_figure, peaks, statistics
from miniworld.clones import LANGUAGES, CloneItem, Lexicon, clone_facts, clone_items, lexicon
from miniworld.planted import Routing, planted_truth


def known_by(item: CloneItem) -> str:
    """Who stated an item's fact, as its language sees it: `"all"`, `"own"`, `"elsewhere"`; empty for other kinds."""
    if not item.stated:
        return ""
    return item.stated if item.stated == "all" else "own" if item.stated == item.language else "elsewhere"


@torch.no_grad()
def score(
    model: Any, items: Sequence[CloneItem], words: Lexicon, *, routing: Routing | None = None, rows: int = 64
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every item's answer, and the lens where known answers begin.

    Args:
        model: A Llama of these words.
        items: Test items.
        words: The lexicon.
        routing: Sends each item past the other languages' units; None leaves the gates open.
        rows: Items per forward.

    Returns:
        One row an item (`right`: the answer is the likeliest token at every place; `logprob` of the whole answer, nats), and one row per
        language of the question, layer and language of tokens: `mass` on that language's words, `counterpart` the probability of the
        answer's first token in it.
        Layer 0 is the embedding.
    """
    size = lambda item: (len(item.prompt), len(item.answer))  # noqa: E731
    answers, seen = [], []
    place = torch.from_numpy(words.token_languages())
    belongs = torch.nn.functional.one_hot(
        place % (len(LANGUAGES) + 1), len(LANGUAGES) + 1
    ).float()  # -1, shared, is the last column
    for (start, _), alike in groupby(sorted(items, key=size), key=size):
        group = list(alike)
        for part in (group[i : i + rows] for i in range(0, len(group), rows)):
            ids = torch.tensor([[*item.prompt, *item.answer] for item in part])
            if routing:
                routing.languages = torch.tensor([LANGUAGES.index(item.language) for item in part])[:, None].expand(
                    ids.shape
                )
            out = model(input_ids=ids, output_hidden_states=True)
            said = out.logits[:, start - 1 : -1].log_softmax(-1)
            target = ids[:, start:]
            right = (said.argmax(-1) == target).all(1).tolist()
            logprob = said.gather(2, target[..., None]).sum((1, 2)).tolist()
            for item, hit, value in zip(part, right, logprob, strict=True):
                answers.append(
                    (
                        item.kind,
                        item.language,
                        known_by(item),
                        item.stated,
                        item.asked,
                        len(item.answer),
                        float(hit),
                        value,
                    )
                )
            told = [i for i, item in enumerate(part) if known_by(item) in ("all", "own")]
            if not told:
                continue
            last = len(out.hidden_states) - 1
            firsts = torch.tensor([[words.translate([part[i].answer[0]], code)[0] for code in LANGUAGES] for i in told])
            for layer, stream in enumerate(out.hidden_states):
                at = stream[told, start - 1]
                logits = out.logits[told, start - 1] if layer == last else model.lm_head(model.model.norm(at))
                p = logits.softmax(-1)
                both = torch.cat([p @ belongs, p.gather(1, firsts)], 1).numpy()
                seen += [(part[i].language, layer, *row) for i, row in zip(told, both, strict=True)]
    if routing:
        routing.languages, routing.ratios = None, []
    names = [*LANGUAGES, SHARED]
    wide = pd.DataFrame(seen, columns=["language", "layer", *names, *(f"{code}'" for code in LANGUAGES)])
    rows_of = []
    for (language, layer), table in wide.groupby(["language", "layer"]):
        for code in names:
            counterpart = table[f"{code}'"].mean() if code in LANGUAGES else np.nan
            rows_of.append((language, layer, code, table[code].mean(), counterpart, len(table)))
    columns = ["kind", "language", "known", "stated", "asked", "length", "right", "logprob"]
    lens = pd.DataFrame(rows_of, columns=["language", "layer", "words", "mass", "counterpart", "items"])
    return pd.DataFrame(answers, columns=columns), lens


def block_effects(
    model: Any, items: Sequence[CloneItem], words: Lexicon, own: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Each language's reserved units zeroed, gates open: the change of the answers' log-probability per token, per language of the items."""

    def mean() -> pd.Series:
        table = score(model, items, words)[0]
        sums = table.groupby("language")[["logprob", "length"]].sum()
        return sums["logprob"] / sums["length"]

    base, rows = mean(), []
    for code, mask in own.items():
        keep = torch.from_numpy(~mask).float()
        hooks = [
            block.mlp.down_proj.register_forward_pre_hook(lambda module, given, k=keep[layer]: (given[0] * k,))
            for layer, block in enumerate(model.model.layers)
        ]
        try:
            rows += [(code, language, change) for language, change in (mean() - base).items()]
        finally:
            for hook in hooks:
                hook.remove()
    return pd.DataFrame(rows, columns=["block", "language", "change"])


def measure(runs: Path, results: Path, kind: Any, *, smoke: bool = False) -> dict[str, Any]:
    """Measure all finished runs of a folder; write tables, statistics, figure, and planted truths.

    Args:
        runs: The folder of the runs' folders.
        results: Where to write accuracy.csv, lens.csv, peaks.csv, statistics.json, dominance.svg;
            of planted runs blocks.csv and NAME-truth.safetensors.
        kind: The class of recipes.
        smoke: Few items.

    Returns:
        The statistics.

    Raises:
        ValueError: No run of the folder is finished, or two folders hold the same run.
    """
    from transformers import LlamaForCausalLM

    folders = sorted(path.parent for path in runs.glob("*/done.json"))
    if not folders:
        raise ValueError(f"{runs} holds no finished run (a folder with done.json): run `series` first")
    results.mkdir(parents=True, exist_ok=True)
    words, tables = lexicon(), {"accuracy": [], "lens": [], "blocks": []}
    done: dict[str, Path] = {}
    for folder in folders:
        recipe = kind(**json.loads((folder / "recipe.json").read_text()))
        model = LlamaForCausalLM.from_pretrained(
            folder / "model", dtype=torch.float32, attn_implementation="eager"
        ).eval()
        items = clone_items(
            words, clone_facts(count=recipe.subjects), 4 if smoke else 100, claims=max(3, recipe.claims)
        )
        if recipe.name in done:
            raise ValueError(f"{done[recipe.name]} and {folder} hold the same run, {recipe.name}: remove one of them")
        done[recipe.name] = folder
        named = {
            "run": recipe.name,
            "share": recipe.share,
            "dominant": recipe.dominant,
            "seed": recipe.seed,
            "planted": recipe.planted,
        }
        answers, lens = score(model, items, words)
        by = ["kind", "language", "known", "asked"]
        tables["lens"].append(lens.assign(**named))
        tables["accuracy"].append(accuracies(answers, by).assign(gates="open", **named))
        if recipe.planted:
            own = recipe.routes()
            tables["blocks"].append(block_effects(model, items, words, own).assign(**named))
            save_truth(own, model, results, recipe.name)
            routed, _ = score(model, items, words, routing=Routing(model, own))
            tables["accuracy"].append(accuracies(routed, by).assign(gates="routed", **named))
    made = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if parts}
    made["peaks"] = peaks(made["lens"])
    for name, table in made.items():
        first = [column for column in RUN if column in table]
        table[[*first, *(c for c in table if c not in first)]].round(5).to_csv(results / f"{name}.csv", index=False)
    lens = made["lens"][~made["lens"]["planted"].astype(bool)]
    found = statistics(made["peaks"])
    (results / "statistics.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw_figure(lens, found["mass"], results / "dominance.svg")
    return found


def accuracies(answers: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Share of right answers and number of items."""
    return answers.groupby(by)["right"].agg(right="mean", items="size").reset_index()


def save_truth(own: Mapping[str, np.ndarray], model: Any, results: Path, name: str) -> None:
    """A `NeuronSet` per language in one file, as `mwork_lens.storage.load` reads it."""
    from mwork_lens.storage import Run, save

    made = Run("planted", {"run": name}, {"layers": len(model.model.layers)})
    save(planted_truth(own), results / f"{name}-truth.safetensors", made)
