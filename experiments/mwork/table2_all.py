"""Table 2: all language-specific neurons off, and what is then written in every language: ROUGE-L and language fidelity.

    python experiments/mwork/table2_all.py [--model ...] [--tasks ...] [--draws 20] [--smoke]

Per language its own neurons are off in all layers, beside --draws random sets with as many in every site and layer; `union` switches off those
of all languages at once. Holm's correction is over the rows of one score in one family: own neurons in their language, the same sets in English,
the union. The smallest p that it can leave, (rows of the family) / (draws + 1), is printed: six languages need 119 draws for 0.05. Items: the
generation task. Fidelity: lingua (extra `lang`) among the languages of the task.
The paper: about 0.13 % of all neurons, 7 B models, XLSum.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from functools import reduce

import numpy as np
import pandas as pd
from common import ENGLISH, Bench, begin, interval, markdown, need

import mwork_lens as mw
from mwork_lens.abilities import EVERYWHERE
from mwork_lens.ability_tables import holm
from mwork_lens.tasks.tables import ability_difference, accuracy

PAPER = {  # original, random, language
    "fr": ((14.2, 14.1, 0.83), (15.2, 15.4, 0.21)),
    "zh": ((61.1, 61.6, 0.00), (56.4, 55.9, 0.39)),
    "es": ((10.4, 10.4, 0.24), (10.6, 10.2, 0.15)),
    "ru": ((20.8, 20.8, 0.42), (21.0, 21.2, 0.07)),
}


def table_of(scores: pd.DataFrame, score: str, seed: int) -> pd.DataFrame:
    """Per language: original, own neurons off, random sets, with paired intervals and an exact p; ties are ties beyond rounding (12 digits)."""
    baseline = scores[scores["neurons"] == "none"].assign(condition="baseline")
    rows = []
    for (target, kind), part in scores[scores["neurons"] != "none"].groupby(["target", "neurons"], sort=False):
        if kind != "specific" or part[score].isna().any():
            continue
        for language, mine in part.groupby("language", sort=False):
            before = baseline[baseline["language"] == language]
            change = ability_difference(mine.assign(condition="off"), before, score=score, seed=seed).iloc[0]
            chosen = (scores["target"] == target) & (scores["neurons"] == "random") & (scores["language"] == language)
            means = scores[chosen].groupby("draw")[score].mean().round(12)
            after, spread = round(float(change["after"]), 12), means.std(ddof=1)
            rows.append({
                "off": target, "language": language, "score": score, "count": mine["count"].iloc[0],
                "before": change["before"], "specific": after, "change": change["change"],
                "change_low": change["low"], "change_high": change["high"], "random": means.mean(),
                "random_low": means.min(), "random_high": means.max(), "draws": len(means),
                "p": mw.p_value(after, means.tolist(), larger=False),
                "z": (after - means.mean()) / spread if spread > 0 else np.nan,
            })  # fmt: skip
    if not rows:
        raise SystemExit(f"no {score} of any language with its own neurons off: give the task more --items")
    table = pd.DataFrame(rows)
    table["family"] = np.where(
        table["off"] == "union", "union", np.where(table["language"] == ENGLISH, "English", "own")
    )
    for _, part in table.groupby("family"):
        table.loc[part.index, "holm"] = holm(part["p"].to_numpy(float))
    return table


def attainable(table: pd.DataFrame) -> list[str]:
    """The smallest p that Holm's correction can leave in each family: its size / (draws + 1)."""
    one = table[table["score"] == table["score"].iloc[0]]
    return [
        f"{family}: the smallest attainable Holm p is {min(1.0, len(part) / (part['draws'].min() + 1)):.3f} ({len(part)} rows, "
        f"{part['draws'].min()} draws)"
        for family, part in one.groupby("family", sort=False)
    ]


def with_union(bench: Bench, task: mw.Task, identify: object, draws: int) -> pd.DataFrame:
    """Scores with the neurons of all languages off at once, as a target of its own in every language."""
    union = reduce(lambda a, b: a | b, bench.own.values())
    if not union:
        return pd.DataFrame()
    parts = []
    for number, language in enumerate(task.languages[1:]):  # English is asked beside each: once is enough
        sets = {language: union}
        found = bench.scores(
            [task], sets, score="accuracy", rows=(EVERYWHERE,), draws=draws, others=False, identify=identify
        )
        kept = [language] if number else [ENGLISH, language]
        parts.append(found[(found["neurons"] != "none") & found["language"].isin(kept)].assign(target="union"))
    return pd.concat(parts, ignore_index=True)


def run(bench: Bench) -> None:
    given = bench.arguments
    (task, *_) = need(bench, "generation")
    draws = given.draws
    identify = mw.lingua_identifier(list(task.languages))
    own = {x: units for x, units in bench.own.items() if x in task.languages}
    if not any(units for language, units in own.items() if language != ENGLISH):
        raise SystemExit("no language but English has specific neurons: raise --top or lower --consensus")
    scores = bench.scores(
        [task], own, score="accuracy", rows=(EVERYWHERE,), draws=draws, others=False, identify=identify
    )
    union = with_union(bench, task, identify, draws)
    both = pd.concat([scores, union], ignore_index=True)
    tables = pd.concat([table_of(both, score, given.seed) for score in ("rouge_l", "fidelity")], ignore_index=True)
    none = scores[scores["neurons"] == "none"].assign(condition="baseline")
    means = pd.concat([accuracy(none, score=x, seed=given.seed).assign(score=x) for x in ("rouge_l", "fidelity")])
    lines = []
    shown = tables[(tables["off"] == tables["language"]) | (tables["off"] == "union")]
    for _, row in shown.iterrows():
        paper = ["–", "–"]
        if row["off"] in PAPER and row["score"] == "rouge_l":
            paper = [" / ".join(f"{x:g}" for x in triple) for triple in PAPER[row["off"]]]
        collapsed = row["specific"] <= 0.2 * row["before"] and row["specific"] < row["random_low"]
        agrees = "–" if paper[0] == "–" else "yes" if collapsed else "no: not to a fifth"
        numbers = f"{100 * row['before']:.1f} / {100 * row['random']:.1f} / {100 * row['specific']:.1f}"
        p = f"{row['p']:.3f} ({row['holm']:.3f})"
        lines.append(
            [
                row["off"],
                row["language"],
                row["score"],
                int(row["count"]),
                *paper,
                numbers,
                interval(row, "change", 1, 100),
                p,
                agrees,
            ]
        )
    head = [
        "off",
        "in",
        "score",
        "neurons",
        "paper: Vicuna original / random / own",
        "Mistral",
        "ours",
        "change",
        "p (Holm)",
        "agrees",
    ]
    total = sum(mask.numel() for mask in next(iter(own.values())).masks.values())
    findings = [f"{x}: {len(units)} of {total} neurons ({len(units) / total:.2%})" for x, units in own.items()]
    findings += attainable(tables)
    bench.finish({"changes": tables, "baseline": means}, {"bars": figure(tables)}, markdown(head, lines), findings)


def figure(table: pd.DataFrame):
    """Both scores of every language, with its own neurons off and with those of all."""
    from mwork_lens.plots.abilities import ability_deltas

    english = table[table["language"] == "en"].set_index(["off", "score"])
    rows = []
    for _, row in table[table["off"] == table["language"]].iterrows():
        for kind in ("specific", "random"):
            line = {
                "task": row["score"],
                "row": row["off"],
                "neurons": kind,
            }
            for name, one in (("d_non_eng", row), ("d_eng", english.loc[(row["off"], row["score"])])):
                if kind == "specific":
                    values = [one["change"], one["change_low"], one["change_high"]]
                else:
                    values = [one[f"random{edge}"] - one["before"] for edge in ("", "_low", "_high")]
                line |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
            rows.append(line)
    return ability_deltas(pd.DataFrame(rows), unit="score")[0].figure


if __name__ == "__main__":
    run(begin("table2", __doc__))
