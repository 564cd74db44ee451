"""Does the English pivot follow where a fact was stated? English under the lens, where the answer to a question of knowledge begins.

    python experiments/organism/pivot_by_source.py [--model organism] [--results experiments/organism/results]

Facts of the world were stated in all languages, in English only, in the language asked only, or in one of the others: the truth that no study of a
real model has. For every language, layer and source: mean probability of English tokens and of the language's own (labels of tokens from texts of
the world and from the questions with their choices), with 95 % intervals over facts. At the layer where English is largest over all facts of a
language, facts stated in English only are compared with those stated in another language only - neither of which the language asked ever stated - by
a permutation test; Holm's correction is over the languages.
Writes pivot_by_source.csv and .json.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import mwork_lens as mw
from mwork_lens.ability_tables import holm
from mwork_lens.evaluate import resample
from mwork_lens.storage import Run, write_json, write_text


def main() -> None:
    """Read, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism")
    parser.add_argument("--task", default="organism/knowledge")
    parser.add_argument("--limit", type=int, default=200, help="items per language at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("runs/pivot"))
    given = parser.parse_args()
    model, task = mw.load_model(given.model), mw.load_task(given.task).take(given.limit, given.seed)
    texts = {
        x: mw.Corpus(x, (*corpus.texts, *task.corpus(x).texts)) for x, corpus in mw.load_corpora("organism").items()
    }
    labels = mw.token_languages(model, texts)
    rows = pd.concat(
        [masses(model, task, language, labels) for language in task.languages if language != "en"], ignore_index=True
    )
    found = [compared(part, given.seed) for _, part in rows.groupby("language", sort=False)]
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p_holm"] = round(float(p), 4)
    write_text(given.results / "pivot_by_source.csv", summary(rows, given.seed).round(5).to_csv(index=False))
    run = Run(
        "experiments/organism/pivot_by_source",
        {k: str(v) for k, v in vars(given).items() if k != "results"},
        mw.describe(model),
        seed=given.seed,
    )
    write_json(given.results / "pivot_by_source.json", {"compared": found, "run": run.to_json()})
    print(pd.DataFrame(found).to_string(index=False))


def masses(model, task: mw.Task, language: str, labels) -> pd.DataFrame:
    """English and own probability per item and state, at the last position of the prompt."""
    made = []
    for item in task.of(language):
        ids = torch.tensor([model.tokenizer(item.prompt)["input_ids"]])
        seen = mw.read(model, ids, labels, k=1).languages[:, 0, -1].double().numpy()
        stated = item.meta["stated"]
        source = {"all": "all languages", "en": "English only", language: "the language asked only"}.get(
            stated, "another language only"
        )
        english, own = (seen[:, labels.names.index(code)] for code in ("en", language))
        made += [
            (language, item.id, source, layer, float(e), float(o))
            for layer, (e, o) in enumerate(zip(english, own, strict=True))
        ]
    return pd.DataFrame(made, columns=["language", "item", "source", "layer", "english", "own"])


def summary(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Means with 95 % intervals over facts."""
    made = []
    for key, part in rows.groupby(["language", "source", "layer"], sort=False):
        weights = resample(len(part), seed=seed) / len(part)
        row = dict(zip(("language", "source", "layer"), key, strict=True)) | {"facts": len(part)}
        for name in ("english", "own"):
            values = part[name].to_numpy(float)
            low, high = np.quantile(weights @ values, [0.025, 0.975])
            row |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
        made.append(row)
    return pd.DataFrame(made)


def compared(part: pd.DataFrame, seed: int) -> dict:
    """Stated in English only against stated in another language only, at the layer of most English."""
    from scipy.stats import permutation_test

    layer = int(part.groupby("layer")["english"].mean().idxmax())
    at = part[part["layer"] == layer].set_index("source")["english"]
    groups = [np.atleast_1d(at.loc[name].to_numpy(float)) for name in ("English only", "another language only")]
    test = permutation_test(
        groups,
        lambda a, b: a.mean() - b.mean(),
        n_resamples=9999,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    means = at.groupby(level=0).mean().round(3).to_dict()
    return {"language": part["language"].iloc[0], "layer": layer, **means, "p": round(float(test.pvalue), 4)}


if __name__ == "__main__":
    main()
