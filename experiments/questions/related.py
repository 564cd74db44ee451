"""Does the converted representation still relate to the query?

    python experiments/questions/related.py [--model organism] [--task organism/cloze] [--label relation] [--out runs/questions] [--smoke]

Two readings, per layer, with chance beside both. *Retrieval*: is the nearest state of another language, by cosine, that of the translation (chance
1/n; means of the language taken off, and not)? *Probe*: a linear probe trained on English states tells what is asked (`--label`, a field of the
items' meta) on other items, in every language (chance: labels shuffled). States are the last token of each prompt. Control for shared words: layer 0
is the embedding, and what a probe or a neighbour finds there is spelling; names spelt in another script (Russian, Chinese) cannot help.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse

import pandas as pd
from common import ENGLISH, begin, panels

import mwork_lens as mw
from mwork_lens.geometry.embeddings import embed
from mwork_lens.geometry.tables import retrieval
from mwork_lens.plots.style import house_style, language_colours, language_name
from mwork_lens.questions import probe_accuracy


def main() -> None:
    """Embed, retrieve, probe, write."""
    bench = begin("related", __doc__, extend)
    task = bench.task(bench.given.task).take(bench.given.items, bench.given.seed)
    shared = set(task.parallel)
    texts = {
        x: mw.Corpus(x, tuple(i.prompt for i in kept), tuple(i.id for i in kept))
        for x in task.languages
        if (kept := [item for item in task.of(x) if item.id in shared])
    }
    states = embed(bench.model, texts, pool=bench.given.pool, progress=False)
    neighbours = pd.concat([retrieval(states, centred=c) for c in (False, True)], ignore_index=True)
    labels = {item.id: str(item.meta[bench.given.label]) for item in task.of(ENGLISH) if bench.given.label in item.meta}
    probes = pd.concat(
        [
            probe_accuracy(
                states, labels, train=x, centred=True, shuffles=max(19, bench.given.draws), seed=bench.given.seed
            ).assign(trained="English" if x == ENGLISH else "itself")
            for x in texts
        ],
        ignore_index=True,
    )
    probes = probes[(probes["train"] == ENGLISH) | (probes["train"] == probes["language"])]
    bench.finish(
        {"retrieval": neighbours, "probes": probes},
        {"layers": draw(neighbours, probes)},
        findings(neighbours, probes),
        items=len(states),
    )


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", default="organism/cloze", help="a task with parallel items; a file, or an embedded one"
    )
    parser.add_argument("--label", default="relation", help="field of meta that the probe tells")
    parser.add_argument("--items", type=int, default=200, help="per language at most")
    parser.add_argument("--pool", default="last", choices=("last", "mean"))


def findings(neighbours: pd.DataFrame, probes: pd.DataFrame) -> list[str]:
    """Where each language is nearest to English, at the embedding, and at the output; and what an English probe reads there."""
    found = []
    centred = neighbours[neighbours["centred"] & (neighbours["other"] == ENGLISH)]
    for language in [x for x in dict.fromkeys(centred["language"]) if x not in (ENGLISH, "all")]:
        near = centred[centred["language"] == language].set_index("layer")
        read = probes[(probes["language"] == language) & (probes["train"] == ENGLISH)].set_index("layer")
        best, top, last = int(near["accuracy"].idxmax()), int(read["accuracy"].idxmax()), near.index.max()
        row, said = near.loc[best], read.loc[top]
        found.append(
            f"{language}: its English translation is the nearest at best for {row['accuracy']:.2f} [{row['low']:.2f}, {row['high']:.2f}] "
            f"(state {best}; embedding {near.loc[0, 'accuracy']:.2f}, output {near.loc[last, 'accuracy']:.2f}, chance {row['chance']:.3f}); "
            f"an English probe is right at best for {said['accuracy']:.2f} [{said['low']:.2f}, {said['high']:.2f}] "
            f"(state {top}; chance {said['chance']:.2f}), in the middle "
            f"({last // 2}) for {read.loc[last // 2, 'accuracy']:.2f}."
        )
    return found


def draw(neighbours: pd.DataFrame, probes: pd.DataFrame) -> object:
    """Retrieval of English (left), the English probe (middle) and each language's own probe (right), over states."""
    of = neighbours[neighbours["centred"] & (neighbours["other"] == ENGLISH) & (neighbours["language"] != "all")]
    languages = [x for x in dict.fromkeys(of["language"]) if x != ENGLISH]
    colours = language_colours([ENGLISH, *languages])
    english, own = probes[probes["train"] == ENGLISH], probes[probes["train"] == probes["language"]]
    with house_style():
        figure, axes = panels(3, 2.3, 2.9, sharex=True)
        for panel, table, title in zip(
            axes,
            (of, english, own),
            ("nearest is the translation", "probe trained in English", "probe trained in itself"),
            strict=True,
        ):
            for language in languages:
                part = table[table["language"] == language].sort_values("layer")
                panel.fill_between(
                    part["layer"], part["low"], part["high"], color=colours[language], alpha=0.12, linewidth=0
                )
                panel.plot(part["layer"], part["accuracy"], color=colours[language], label=language_name(language))
            chance = table.groupby("layer")["chance"].mean()
            panel.plot(chance.index, chance, color="#777777", linestyle=":", label="chance")
            panel.set_title(title)
            panel.set_xlabel("state of the stream")
            panel.set_ylim(-0.02, 1.02)
        axes[0].set_ylabel("accuracy")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


if __name__ == "__main__":
    main()
