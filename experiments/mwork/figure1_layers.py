"""Figure 1: which language each layer speaks, on texts, on the prompts of the tasks, and where an answer begins.

    python experiments/mwork/figure1_layers.py [--model ...] [--tasks ...] [--smoke]

The paper's claim: the query's language gives way to English in the middle layers and returns at the end. Tested per language: the rise of the mass
on English tokens in an inner layer above that at the embedding or the output, whichever is larger; and that of every other language beside it, since
a pivot need not be English. The largest of many layers is large by chance too, so the layer is chosen on one half of the documents or items (every
second one) and the rise is measured on the other half, with a paired bootstrap over its documents (the larger end anew in each resample); the
verdict is by that interval. Positions: all of held-out texts; all of the prompts; the last of each prompt, which predicts the answer. No neuron is
switched off, so there are no random controls. Languages of tokens: from the texts; for prompts and answers, from texts and tasks. The masses at the
ends and the largest inside are of all documents, and only describe.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd
from common import ENGLISH, Bench, begin, interval, markdown

import mwork_lens as mw
from mwork_lens.corpora import batches, pad
from mwork_lens.evaluate import resample
from mwork_lens.lenses import document_masses
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


def text_masses(bench: Bench, corpora: dict[str, mw.Corpus], labels: object, length: int | None) -> pd.DataFrame:
    """Probability mass per language summed over the positions of each document: what `layer_languages` takes the ratios of."""
    parts = []
    for language, corpus in corpora.items():
        number = 0
        for tokens in batches(corpus, bench.model, length=length):
            masses, positions = document_masses(mw.read(bench.model, tokens, labels, k=1), tokens)
            at = np.indices(masses.shape).reshape(3, -1)
            parts.append(pd.DataFrame({
                "text_language": language, "document": at[0] + number, "layer": at[1], "token_language": np.asarray(labels.names)[at[2]],
                "mass": masses.ravel(), "positions": positions[at[0]],
            }))  # fmt: skip
            number += len(masses)
    return pd.concat(parts, ignore_index=True)


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


def pivots(table: pd.DataFrame, masses: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Per source and language of the text: how far each other language rises inside above both ends, on documents that did not choose the layer."""
    rises = {
        key: held_out_rise(part, seed)
        for key, part in masses.groupby(["source", "text_language", "token_language"], sort=False)
    }
    rows = []
    for (source, language, token), part in table.groupby(["source", "text_language", "token_language"], sort=False):
        if token in (language, "shared", "unknown"):
            continue
        curve = part.sort_values("layer").reset_index(drop=True)
        best = curve.loc[curve["mass"].iloc[1:-1].idxmax()]
        ends = max(curve["mass"].iloc[0], curve["mass"].iloc[-1])
        values = {f"mass{edge}": best[f"mass{edge}"] for edge in ("", "_low", "_high")}
        rows.append({"source": source, "text": language, "pivot": token, "layer": int(best["layer"]), **values,
                     "ends": ends, **rises[source, language, token]})  # fmt: skip
    found = pd.DataFrame(rows)
    return found.assign(rank=found.groupby(["source", "text"])["rise"].rank(ascending=False, method="min").astype(int))


def held_out_rise(part: pd.DataFrame, seed: int) -> dict[str, float]:
    """The layer from every second document, the rise above the larger end on the others; no interval with fewer than two of those."""
    wide = part.pivot(index="document", columns="layer", values="mass").sort_index(axis=1)
    positions = part.groupby("document")["positions"].first().reindex(wide.index).to_numpy(float)
    mass = wide.to_numpy()
    chosen = int(mass[::2].sum(0)[1:-1].argmax()) + 1
    test = slice(1, None, 2) if len(mass) > 1 else slice(None)

    def rise(weights: np.ndarray) -> np.ndarray:
        curve = weights @ mass[test] / (weights @ positions[test])[:, None]
        return curve[:, chosen] - np.maximum(curve[:, 0], curve[:, -1])

    count = len(positions[test])
    low, high = np.quantile(rise(resample(count, seed=seed)), [0.025, 0.975]) if count > 1 else (np.nan, np.nan)
    found = {"rise": float(rise(np.ones((1, count)))[0]), "rise_low": float(low), "rise_high": float(high)}
    return {**found, "rise_layer": chosen, "rise_documents": count}


def verdict(row: pd.Series) -> str:
    """Whether the curve of English agrees with the paper; a dash without an interval."""
    if row["rise_low"] != row["rise_low"]:
        return "–"
    if row["rise_low"] > 0:
        return "yes" if row["rank"] == 1 else "no: another language rises more"
    return "no"


def run(bench: Bench) -> None:
    given = bench.arguments
    labels = bench.labels
    lens = bench.lens.assign(source="texts")
    tables, length = [lens], given.length
    on_texts = mw.token_languages(bench.model, bench.detection)  # as the lens of the texts has it
    held = bench.table("text_masses", [length], lambda: text_masses(bench, bench.held_out, on_texts, length))
    each = [held.assign(source="texts")]
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
        held = bench.table("prompt_masses", settings, lambda p=prompts: text_masses(bench, p, labels, None))
        each.append(held.assign(source=f"{name}, prompt"))
        masses = bench.table("answers", settings, lambda t=task: answer_masses(bench, t, labels))
        each.append(masses.assign(source=f"{name}, answer", positions=1.0))
        tables.append(curves(masses.assign(source=f"{name}, answer"), given.seed))
    table = pd.concat(tables, ignore_index=True)
    found = pivots(table, pd.concat(each, ignore_index=True), given.seed)
    lines = []
    for _, row in found[(found["pivot"] == ENGLISH) & (found["text"] != ENGLISH)].iterrows():
        numbers = [f"{row['ends']:.3f}", interval(row, "mass", 3).replace("+", ""), row["layer"]]
        numbers += [f"{interval(row, 'rise', 3)}, layer {row['rise_layer']}", row["rank"]]
        lines.append([row["source"], row["text"], "rises, then falls", *numbers, verdict(row)])
    head = [
        "where",
        "text",
        "paper: English",
        "ours: at the ends",
        "largest inside",
        "layer",
        "rise on the other half",
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
