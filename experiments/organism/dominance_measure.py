"""What the models of the dominance series do: accuracies, what the logit lens says per layer, the pivot's peak against its share, planted blocks.

peak        of a pivot language in a run: the largest, over the layers between the first and the last, of the mean probability of the pivot's words
            at the start of the answer to knowledge questions in the other languages (facts that training stated in the question's language)
no pivot    runs with equal shares have none: their point is the mean of the four languages' peaks
test        Spearman's rank correlation of share and peak over runs, with a permutation test; the dominant pivot's peak less the mean of the
            other languages' peaks in the same run, with a t interval over runs
"""

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
from miniworld.clones import LANGUAGES, CloneItem, Lexicon, Routing, clone_facts, clone_items, lexicon

RUN = ["run", "share", "dominant", "seed", "planted"]
SHARED = "shared"


def known_by(item: CloneItem) -> str:
    """Who stated an item's fact, as its language sees it: `"all"`, `"own"`, `"elsewhere"`; empty for other kinds."""
    if not item.stated:
        return ""
    return item.stated if item.stated == "all" else "own" if item.stated == item.language else "elsewhere"


@torch.no_grad()
def score(model: Any, items: Sequence[CloneItem], words: Lexicon, *, routing: Routing | None = None, rows: int = 64) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every item's answer, and the lens where known answers begin.

    Args:
        model: A Llama of these words.
        items: Test items.
        words: The lexicon.
        routing: Sends each item past the other languages' units; None leaves the gates open.
        rows: Items per forward.

    Returns:
        One row an item (`right`: the answer is the likeliest token at every place; `logprob` of the whole answer, nats), and one row per language of the
        question, layer and language of tokens: `mass` on that language's words, `counterpart` the probability of the answer's first token in it.
        Layer 0 is the embedding.
    """
    size = lambda item: (len(item.prompt), len(item.answer))  # noqa: E731
    answers, seen = [], []
    place = torch.from_numpy(words.token_languages())
    belongs = torch.nn.functional.one_hot(place % (len(LANGUAGES) + 1), len(LANGUAGES) + 1).float()  # -1, shared, is the last column
    for (start, length), alike in groupby(sorted(items, key=size), key=size):
        group = list(alike)
        for part in (group[i : i + rows] for i in range(0, len(group), rows)):
            ids = torch.tensor([[*item.prompt, *item.answer] for item in part])
            if routing:
                routing.languages = torch.tensor([LANGUAGES.index(item.language) for item in part])[:, None].expand(ids.shape)
            out = model(input_ids=ids, output_hidden_states=True)
            said = out.logits[:, start - 1 : -1].log_softmax(-1)
            target = ids[:, start:]
            right = (said.argmax(-1) == target).all(1).tolist()
            logprob = said.gather(2, target[..., None]).sum((1, 2)).tolist()
            for item, hit, value in zip(part, right, logprob, strict=True):
                answers.append((item.kind, item.language, known_by(item), item.stated, item.asked, len(item.answer), float(hit), value))
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


def peaks(lens: pd.DataFrame) -> pd.DataFrame:
    """Per run, pivot and quantity: the largest mean over questions in other languages, in the layers between the embedding and the output."""
    inner = lens[(lens["layer"] > 0) & (lens["layer"] < lens["layer"].max()) & (lens["words"] != SHARED) & (lens["words"] != lens["language"])]
    rows = []
    for keys, table in inner.groupby([*RUN, "words"]):
        for quantity in ("mass", "counterpart"):
            by_layer = table.groupby("layer")[quantity].mean()
            rows.append((*keys, quantity, by_layer.max(), by_layer.idxmax()))
    return pd.DataFrame(rows, columns=[*RUN, "pivot", "quantity", "peak", "layer"])


def statistics(table: pd.DataFrame, *, draws: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Peaks against shares, of runs that are not planted.

    Args:
        table: From `peaks`.
        draws: Permutations.
        seed: Of the permutations.

    Raises:
        ValueError: There is no run.
    """
    from scipy.stats import rankdata, spearmanr

    table = table[~table["planted"].astype(bool)]
    if table.empty:
        raise ValueError("no finished run without planted units: run `series` first")
    found: dict[str, Any] = {}
    for quantity, part in table.groupby("quantity"):
        equal = part["share"].sub(1 / len(LANGUAGES)).abs() < 1e-9
        mine = part[equal | (part["pivot"] == part["dominant"])]
        points = mine.groupby(["run", "share", "dominant"])["peak"].mean().reset_index()
        others = part[~equal & (part["pivot"] != part["dominant"])].groupby("run")["peak"].mean()
        lead = (points.set_index("run")["peak"] - others).dropna()
        made: dict[str, Any] = {
            "points": points.round(4).to_dict("records"),
            "by_share": {str(share): interval(rows["peak"]) for share, rows in points.groupby("share")},
            "by_share_and_dominant": {f"{s} {d}": interval(rows["peak"]) for (s, d), rows in points.groupby(["share", "dominant"])},
            "lead_over_other_pivots": interval(lead) | {"positive": int((lead > 0).sum())},
        }  # fmt: skip
        if points["share"].nunique() > 1 and points["peak"].nunique() > 1:
            rho = float(spearmanr(points["share"], points["peak"]).statistic)
            chance = np.random.default_rng(seed)
            share, peak = rankdata(points["share"]), rankdata(points["peak"])
            drawn = [np.corrcoef(chance.permutation(share), peak)[0, 1] for _ in range(draws)]
            p = (1 + sum(abs(value) >= abs(rho) - 1e-12 for value in drawn)) / (1 + draws)
            made["spearman"] = {"rho": round(rho, 4), "p": p, "runs": len(points)}
        found[str(quantity)] = made
    return found


def interval(values: Any) -> dict[str, Any]:
    """Mean and 95 % t interval over runs; no interval for one run."""
    from scipy.stats import t

    x = np.asarray(values, float)
    if len(x) < 2:
        return {"mean": round(float(x.mean()), 4) if len(x) else None, "low": None, "high": None, "runs": len(x)}
    half = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)
    return {"mean": round(float(x.mean()), 4), "low": round(x.mean() - half, 4), "high": round(x.mean() + half, 4), "runs": len(x)}


def block_effects(model: Any, items: Sequence[CloneItem], words: Lexicon, own: Mapping[str, np.ndarray]) -> pd.DataFrame:
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


def planted_truth(own: Mapping[str, np.ndarray], *, model: str | None = None) -> dict[str, Any]:
    """The reserved units as a `NeuronSet` per language."""
    from mwork_lens.neurons import NeuronSet

    return {code: NeuronSet({"ffn": torch.from_numpy(mask)}, model=model) for code, mask in own.items()}


def measure(runs: Path, results: Path, kind: Any, *, smoke: bool = False) -> dict[str, Any]:
    """Measure all finished runs of a folder; write tables, statistics, figure, and planted truths.

    Args:
        runs: The folder of the runs' folders.
        results: Where to write accuracy.csv, lens.csv, peaks.csv, statistics.json, dominance.svg; of planted runs blocks.csv and NAME-truth-LANGUAGE.safetensors.
        kind: The class of recipes.
        smoke: Few items.

    Returns:
        The statistics.

    Raises:
        ValueError: No run of the folder is finished.
    """
    from transformers import LlamaForCausalLM

    folders = sorted(path.parent for path in runs.glob("*/done.json"))
    if not folders:
        raise ValueError(f"{runs} holds no finished run (a folder with done.json): run `series` first")
    results.mkdir(parents=True, exist_ok=True)
    words, tables = lexicon(), {"accuracy": [], "lens": [], "blocks": []}
    for folder in folders:
        recipe = kind(**json.loads((folder / "recipe.json").read_text()))
        model = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="eager").eval()
        items = clone_items(words, clone_facts(count=recipe.subjects), 4 if smoke else 100, claims=max(3, recipe.claims))
        named = {"run": recipe.name, "share": recipe.share, "dominant": recipe.dominant, "seed": recipe.seed, "planted": recipe.planted}
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
    """One file a language, as `mwork_lens.storage.load` reads it."""
    from mwork_lens.storage import Run, save

    for code, neurons in planted_truth(own).items():
        save(neurons, results / f"{name}-truth-{code}.safetensors", Run("planted", {"language": code, "run": name}, {"layers": len(model.model.layers)}))


def draw_figure(lens: pd.DataFrame, found: Mapping[str, Any], path: Path) -> None:
    """Per share, the mass on the dominant, the question's own and the other languages by layer (a thin line a run); peaks against shares."""
    from mwork_lens.plots.style import house_style, make_figure, write_svg

    questions = lens[(lens["language"] != lens["dominant"]) & (lens["words"] != SHARED)]
    role = np.where(questions["words"] == questions["dominant"], "dominant", np.where(questions["words"] == questions["language"], "own", "other"))
    curves = questions.assign(role=role).groupby(["share", "run", "role", "layer"])["mass"].mean().reset_index()
    shares, colours = sorted(curves["share"].unique()), {"dominant": "#B5473C", "own": "#2F6F9F", "other": "#8A8A8A"}
    with house_style():
        drawn = make_figure(2.3 * (len(shares) + 1), 2.6)
        axes = drawn.subplots(1, len(shares) + 1)
        for axis, share in zip(axes, shares, strict=False):
            for name, colour in colours.items():
                part = curves[(curves["share"] == share) & (curves["role"] == name)]
                for _, one in part.groupby("run"):
                    axis.plot(one["layer"], one["mass"], color=colour, linewidth=0.6, alpha=0.4)
                mean = part.groupby("layer")["mass"].mean()
                axis.plot(mean.index, mean, color=colour, label=name)
            axis.set_ylim(0, 1)
            axis.set_title("equal shares" if abs(share - 0.25) < 1e-9 else f"dominant at {share:.0%}", fontsize=9)
            axis.set_xlabel("layer")
        axes[0].set_ylabel("probability of the language's words")
        axes[0].legend(fontsize=7)
        for point in found["points"]:
            axes[-1].plot(point["share"] + (0.012 if point["dominant"] != "A" else -0.012), point["peak"], "o", markersize=3, color=colours["dominant"], alpha=0.6)
        for share, value in found["by_share"].items():
            if value["low"] is not None:
                axes[-1].errorbar(float(share), value["mean"], [[value["mean"] - value["low"]], [value["high"] - value["mean"]]], fmt="_", color="black", capsize=3)
        axes[-1].set_xlabel("share of the dominant language")
        axes[-1].set_title("peak of its mass, inner layers", fontsize=9)
        write_svg(drawn, path)
