"""Where does back-translation begin? The onset of each language over English under the logit lens, and its relation to the distance from English.

    python experiments/questions/onset.py [--model organism] [--texts organism] [--out runs/questions] [--smoke]

In how many documents does English lead over their own language in some state before the output, and from which state on does it no longer
(`questions.onsets`)? Read on held-out texts, and at the answers of knowledge questions (`--task`), where Figure 1 of the paper looks: there, the mass
is that of the place where the answer begins, and tokens have the language of texts and questions. Distance from English: one minus the share of
words (types) that the language's texts have in common with the English ones, so it is lexical. Beside it, the number of the language's specific
neurons in the layers before and after its onset. With six languages a rank correlation must be 0.89 to be significant at 5 %. `--least`: mass that
English must have to lead.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from common import ENGLISH, Bench, begin, panels

import mwork_lens as mw
from mwork_lens.analysis import layer_counts
from mwork_lens.corpora import batches
from mwork_lens.lenses import read
from mwork_lens.plots.style import house_style, language_name
from mwork_lens.questions import onset_table, onsets
from mwork_lens.questions.onset import LEAST, ONSETS, first_lead
from mwork_lens.tasks.scorers import tokens as words


def main() -> None:
    """Read the lens, take onsets, relate, write."""
    bench = begin("onset", __doc__, extend)
    if bench.given.smoke:
        bench.given.items = 6
    far = distance(bench.texts)
    rows = {
        "texts": onsets(bench.model, bench.held_out, reference=bench.detection, least=bench.given.least, progress=False)
    }
    rows["answers"] = at_answers(bench, bench.task(bench.given.task).take(bench.given.items, bench.given.seed))
    tables, found, related = [], [], {}
    for where, table in rows.items():
        made, correlation = onset_table(table, far, seed=bench.given.seed)
        tables.append(made.assign(where=where))
        related[where] = correlation
        for row in made.itertuples():
            until = f", there to state {row.onset:.1f} [{row.low:.1f}, {row.high:.1f}] of {bench.model.cfg.n_layers}"
            found.append(
                f"{where}, {row.language}: English leads before the output in {row.translated:.2f} [{row.translated_low:.2f}, "
                f"{row.translated_high:.2f}] of {row.documents}{until if row.translated else ''}; at the output in {row.none:.0%}; "
                f"distance {row.distance:.2f}"
            )
        if correlation:
            found.append(f"{where}: share and distance, Spearman {correlation[0]:+.2f}, p = {correlation[1]:.3f}")
    table = pd.concat(tables, ignore_index=True)
    counts = layer_counts(bench.own)
    table = table.assign(neurons_before=0, neurons_after=0)
    for at, row in table.iterrows():
        mine = counts[counts["language"] == row["language"]].groupby("layer")["count"].sum()
        early = mine.index < (row["onset"] if np.isfinite(row["onset"]) else len(mine))
        table.loc[at, ["neurons_before", "neurons_after"]] = int(mine[early].sum()), int(mine[~early].sum())
    bench.finish({"table": table, "documents": pd.concat([r.assign(where=w) for w, r in rows.items()])},
                 {"languages": draw(table, bench.model.cfg.n_layers)}, found, correlation=related)  # fmt: skip


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", default="organism/knowledge", help="questions of knowledge; a file, or an embedded one"
    )
    parser.add_argument("--items", type=int, default=100, help="per language at most")
    parser.add_argument("--least", type=float, default=LEAST, help="mass that English must have to lead")


def distance(texts: Mapping[str, mw.Corpus]) -> dict[str, float]:
    """One minus the share of a language's word types that the English texts have, too."""
    types = {
        x: {word for text in corpus.texts for word in words(text.lower()) if word.isalpha()}
        for x, corpus in texts.items()
    }
    return {x: 1 - len(found & types[ENGLISH]) / len(found) for x, found in types.items() if x != ENGLISH}


def at_answers(bench: Bench, task: mw.Task) -> pd.DataFrame:
    """Onsets at the last token of each prompt, where the answer begins."""
    labels = bench.labels
    english = labels.names.index(ENGLISH)
    rows = []
    for language in (x for x in task.languages if x != ENGLISH):
        items = task.of(language)
        corpus = mw.Corpus(language, tuple(i.prompt for i in items), tuple(i.id for i in items))
        mine = labels.names.index(language)
        for tokens in batches(corpus, bench.model, size=16):
            masses = read(bench.model, tokens, labels, k=1).languages
            last = (tokens.keep.cpu() * torch.arange(1, tokens.keep.shape[1] + 1)).argmax(1)
            here = masses[:, torch.arange(len(last)), last].transpose(0, 1).double().numpy()
            found = first_lead(here[..., mine], here[..., english], bench.given.least)
            rows += [(language, name, onset, 1) for name, onset in zip(tokens.documents, found, strict=True)]
    return pd.DataFrame(rows, columns=list(ONSETS))


def draw(table: pd.DataFrame, layers: int) -> object:
    """Share of documents in which English leads, and until which state, per language ordered by distance from English."""
    with house_style():
        figure, axes = panels(4, 2.3, 2.4, sharey=True)
        for at, where in enumerate(("texts", "answers")):
            part = table[table["where"] == where].sort_values("distance").reset_index()
            title = {"texts": "held-out texts", "answers": "answers"}[where]
            for panel, name, edges, label, limit in (
                (axes[2 * at], "translated", "translated_", "share in which English leads", 1),
                (axes[2 * at + 1], "onset", "", "there, own language leads from state", layers),
            ):
                low, high = part[name] - part[f"{edges}low"], part[f"{edges}high"] - part[name]
                reach = [low.clip(lower=0), high.clip(lower=0)]
                panel.errorbar(part[name], part.index, xerr=reach, fmt="o", color="#0072B2", capsize=3)
                panel.set_xlim(-0.04 * limit, 1.04 * limit)
                panel.set(xlabel=label, title=title)
            names = [
                f"{language_name(x)} ({far:.2f})" for x, far in zip(part["language"], part["distance"], strict=True)
            ]
            axes[2 * at].set_yticks(part.index, names)
        axes[0].set_ylabel("language (distance from English)")
    return figure


if __name__ == "__main__":
    main()
