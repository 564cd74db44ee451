"""Figure 1: which language each layer speaks, on texts, on the prompts of the tasks, and where an answer begins.

    python experiments/mwork/figure1_layers.py [--model ...] [--tasks ...] [--smoke]

The paper's claim: the query's language gives way to English in the middle layers and returns at the end. Tested per language: the largest mass on
English tokens in the inner layers, less that at the embedding and the output, whichever is larger; and that of every other language beside it, since
a pivot need not be English. Positions: all of held-out texts; all of the prompts; the last of each prompt, which predicts the answer. No neuron is
switched off, so there are no random controls; intervals are bootstraps over documents or items, of the layer that is the largest on all of them.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd
from common import ENGLISH, Bench, begin, interval, markdown

import mwork_lens as mw
from mwork_lens.corpora import pad
from mwork_lens.evaluate import resample
from mwork_lens.writing.generate import prompt_ids


def answer_masses(bench: Bench, task: mw.Task, labels: object) -> pd.DataFrame:
    """Probability mass per language at the last position of each prompt: one row an item, layer and token language."""
    rows = []
    for language in task.languages:
        items = task.of(language)
        for item, ids in zip(items, prompt_ids(bench.model, [item.prompt for item in items]), strict=True):
            seen = mw.read(bench.model, pad([ids], language, (item.id,), bos=None), labels, k=1).languages[:, 0, -1]
            rows += [
                (task.name, language, item.id, layer, name, float(mass))
                for layer, masses in enumerate(seen)
                for name, mass in zip(labels.names, masses, strict=True)
            ]
    return pd.DataFrame(rows, columns=["source", "text_language", "document", "layer", "token_language", "mass"])


def curves(masses: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Means with 95 % bootstrap intervals over items, in the columns of `layer_languages`."""
    rows = []
    for (source, language), part in masses.groupby(["source", "text_language"], sort=False):
        wide = part.pivot(index="document", columns=["token_language", "layer"], values="mass")
        drawn = resample(len(wide), seed=seed) @ wide.to_numpy() / len(wide)
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        for at, (token, layer) in enumerate(wide.columns):
            mean = wide.iloc[:, at].mean()
            rows.append((source, language, token, layer, mean, low[at], high[at], len(wide)))
    names = ["source", "text_language", "token_language", "layer", "mass", "mass_low", "mass_high", "documents"]
    return pd.DataFrame(rows, columns=names)


def pivots(table: pd.DataFrame) -> pd.DataFrame:
    """Per source and language of the text: how far each other language rises in the inner layers above both ends."""
    rows = []
    for (source, language, token), part in table.groupby(["source", "text_language", "token_language"], sort=False):
        if token in (language, "shared", "unknown"):
            continue
        curve = part.sort_values("layer").reset_index(drop=True)
        best = curve.loc[curve["mass"].iloc[1:-1].idxmax()]
        ends = max(curve["mass"].iloc[0], curve["mass"].iloc[-1])
        values = {f"mass{edge}": best[f"mass{edge}"] for edge in ("", "_low", "_high")}
        rows.append({"source": source, "text": language, "pivot": token, "layer": int(best["layer"]), **values,
                     "ends": ends, "rise": best["mass"] - ends})  # fmt: skip
    found = pd.DataFrame(rows)
    return found.assign(rank=found.groupby(["source", "text"])["rise"].rank(ascending=False, method="min").astype(int))


def run(bench: Bench) -> None:
    given = bench.arguments
    labels = mw.token_languages(bench.model, bench.detection)
    lens = bench.lens.assign(source="texts")
    tables = [lens]
    for name, task in bench.tasks.items():
        prompts = {
            x: mw.Corpus(x, tuple(i.prompt for i in task.of(x)), tuple(i.id for i in task.of(x)))
            for x in task.languages
        }
        settings = [name, [task.fingerprint(x) for x in task.languages], given.seed]
        on_prompts = bench.table(
            "prompts", settings, lambda p=prompts: mw.layer_languages(bench.model, p, identify=labels, seed=given.seed)
        )
        tables.append(on_prompts.assign(source=f"{name}, prompt"))
        masses = bench.table("answers", settings, lambda t=task: answer_masses(bench, t, labels))
        tables.append(curves(masses.assign(source=f"{name}, answer"), given.seed))
    table = pd.concat(tables, ignore_index=True)
    found = pivots(table)
    lines = []
    for _, row in found[(found["pivot"] == ENGLISH) & (found["text"] != ENGLISH)].iterrows():
        verdict = "yes" if row["mass_low"] > row["ends"] and row["rank"] == 1 else "no"
        if verdict == "no" and row["mass_low"] > row["ends"]:
            verdict = "no: another language rises more"
        numbers = [f"{row['ends']:.3f}", interval(row, "mass", 3).replace("+", ""), row["layer"], row["rank"]]
        lines.append([row["source"], row["text"], "rises, then falls", *numbers, verdict])
    head = [
        "where",
        "text",
        "paper: English",
        "ours: at the ends",
        "largest inside",
        "layer",
        "rank of English",
        "agrees",
    ]
    yes = sum(line[-1] == "yes" for line in lines)
    findings = [
        f"English is the pivot in {yes} of {len(lines)} curves (rises above both ends, and more than every other language)."
    ]
    bench.finish({"lens": table, "pivots": found}, figures(table, bench), markdown(head, lines), findings)


def figures(table: pd.DataFrame, bench: Bench) -> dict:
    from mwork_lens.plots import lens_curves

    return {
        source.replace(", ", "_"): lens_curves(part, value="mass", stages=bench.stages)[0].figure
        for source, part in table.groupby("source", sort=False)
    }


if __name__ == "__main__":
    run(begin("figure1", __doc__))
