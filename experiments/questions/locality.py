"""Is knowledge local to the language that stated it? Facts known through one language only, that language's neurons off.

    python experiments/questions/locality.py [--model organism] [--task organism/cloze] [--out runs/questions] [--smoke]

Own FFN neurons of the task-solving layers off (`--part SF`), as in MWork knowledge sits there. Difference in differences: own against random sets
matched by layer, facts of this language alone against facts known in many, items matched on how well they were known before (`questions.locality`).
Which facts these are: the truth (`meta["stated"]`) where the task has it; else what the model answers: only in this language, or in at least half.
Also given: the neurons of the next language in place of the own ones, beside random sets like them; the share of the facts known before that are
still answered (where the task has choices); and the change of loss of held-out texts of the language itself, for a language that is broken loses
every fact. Below zero: local. With n draws no p is below 1 / (n + 1); BH is over languages.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse

import numpy as np
import pandas as pd
from common import Bench, begin, number, panels, random_like
from scipy.stats import false_discovery_control

import mwork_lens as mw
from mwork_lens.abilities import part_of
from mwork_lens.plots.style import house_style, language_name
from mwork_lens.questions import locality


def main() -> None:
    """Group, switch off, compare, write."""
    bench = begin("locality", __doc__, extend)
    task = bench.task(bench.given.task)
    groups = grouping(bench, task)
    languages = [x for x in task.languages if {"only", "many"} <= {g for (y, _), g in groups.items() if y == x}]
    if not languages:
        raise SystemExit(f"no language of {bench.given.task} has facts known in it alone and facts known in many")
    sets = {x: part_of(bench.own[x], bench.stages, bench.given.part) for x in languages}
    tables, losses, found, retained = [], [], [], []
    for number_, language in enumerate(languages):
        if not sets[language]:
            found.append(f"{language}: no neurons in {bench.given.part}, nothing to switch off")
            continue
        asked = task.only(language).where(lambda item, x=language: (x, item.id) in groups)
        off = {"own": sets[language]}
        if other := sets[languages[(number_ + 1) % len(languages)]]:
            off["other"] = other
        for kind, units in list(off.items()):
            drawn = random_like(units, bench.given.draws, bench.given.seed, f"{kind} {language}")
            off |= {f"random {kind} {i}": one for i, one in enumerate(drawn)}
        known = right(bench, asked)
        rows, base = (
            [mw.answer_nll(bench.model, asked, condition="none")],
            mw.evaluate(bench.model, {language: bench.held_out[language]}),
        )
        for label, units in off.items():
            with mw.deactivate(bench.model, units):
                rows.append(mw.answer_nll(bench.model, asked, condition=label))
                if not label.startswith("random"):
                    retained += kept_facts(bench, asked, groups, known, label)
                    after = mw.evaluate(bench.model, {language: bench.held_out[language]})
                    losses.append(mw.difference(after, base).assign(off=label))
        scores = pd.concat(rows, ignore_index=True)
        for own in ("own", "other"):
            if own in off:
                controls = [f"random {own} {i}" for i in range(bench.given.draws)]
                made = locality(scores, groups, own=own, controls=controls, seed=bench.given.seed)
                tables.append(made.assign(off=own, neurons=len(off[own])))
        row = tables[-1 - ("other" in off)].iloc[0]
        found.append(
            f"{language}: {row['neurons']} neurons off, DiD {number(row['did'])} [{number(row['low'])}, {number(row['high'])}] nats, "
            f"p = {row['p_random']:.2f} among {row['draws']} random sets; facts of this language alone {number(row['only_own'])} "
            f"(random {number(row['only_control'])}), of many {number(row['many_own'])} (random {number(row['many_control'])}); "
            f"{row['only']} and {row['many']} facts"
        )
        print(found[-1], flush=True)
    if not tables:
        raise SystemExit(
            "no language has neurons in this part: choose another --part, or larger sets (--top, --consensus)"
        )
    table = pd.concat(tables, ignore_index=True)
    for off in ("own", "other"):
        mine = table["off"] == off
        table.loc[mine, "bh_random"] = (
            false_discovery_control(table.loc[mine, "p_random"].to_numpy(float)) if mine.any() else np.nan
        )
    own = table[table["off"] == "own"]
    found.append(
        f"mean over {len(own)} languages: {number(own['did'].mean())}; smallest p {own['p_random'].min():.3f}, BH over languages "
        f"{own['bh_random'].min():.3f} "
        f"(smallest possible p {1 / (bench.given.draws + 1):.3f})"
    )
    written = {"table": table, "losses": pd.concat(losses, ignore_index=True)}
    if retained:
        written["retained"] = pd.DataFrame(retained, columns=["language", "off", "group", "known", "retained"])
        sums = written["retained"].groupby(["off", "group"], sort=False)[["known", "retained"]].sum()
        found += [
            f"{off} neurons off, facts {group}: {row.retained} of {row.known} still answered"
            for (off, group), row in sums.iterrows()
        ]
    bench.finish(
        written,
        {"did": draw(table)},
        found,
        stages=str(bench.stages),
    )


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="organism/cloze", help="facts; a file, or an embedded task")
    parser.add_argument("--part", default="SF", help="stage and structure to switch off, as in `mw.ability_scores`")


def right(bench: Bench, task: mw.Task) -> set[str]:
    """Items that are answered; none where the task has no choices."""
    if task.how != "choose":
        return set()
    scores = mw.answer_scores(bench.model, task, progress=False)
    return set(scores.loc[scores["score"] > 0.5, "item"])


def kept_facts(
    bench: Bench, task: mw.Task, groups: dict[tuple[str, str], str], known: set[str], off: str
) -> list[tuple[str, str, str, int, int]]:
    """Of the items known before, how many are answered now, by group."""
    if not known:
        return []
    now, (language,) = right(bench, task), task.languages
    part = {group: {item for item in known if groups[language, item] == group} for group in ("only", "many")}
    return [(language, off, group, len(items), len(items & now)) for group, items in part.items()]


def grouping(bench: Bench, task: mw.Task) -> dict[tuple[str, str], str]:
    """`only` and `many` per (language, item): by truth, or by what the model answers."""
    if all("stated" in item.meta for item in task.items):
        names = {"all": "many"}
        return {
            (item.language, item.id): names.get(stated, "only")
            for item in task.items
            if (stated := item.meta["stated"]) in ("all", item.language)
        }
    scores = mw.answer_scores(bench.model, task, progress=False)
    wide = scores.pivot(index="item", columns="language", values="score") > 0.5
    groups = {}
    for item, known in wide.iterrows():
        languages = list(known[known].index)
        for language in languages:
            if len(languages) == 1 or len(languages) >= wide.shape[1] / 2:
                groups[language, item] = "only" if len(languages) == 1 else "many"
    return groups


def draw(table: pd.DataFrame) -> object:
    """The difference in differences with its interval, own and another language's neurons."""
    languages = list(dict.fromkeys(table["language"]))
    with house_style():
        figure, (panel,) = panels(1, 4.2, 0.9 + 0.35 * len(languages))
        for off, colour, shift in (("own", "#0072B2", -0.12), ("other", "#999999", 0.12)):
            part = table[table["off"] == off]
            y = np.array([languages.index(x) for x in part["language"]]) + shift
            label = "its own neurons off" if off == "own" else "another language's"
            panel.errorbar(
                part["did"],
                y,
                xerr=[part["did"] - part["low"], part["high"] - part["did"]],
                fmt="o",
                color=colour,
                capsize=3,
                label=label,
            )
        panel.axvline(0, color="#222222", linewidth=0.8)
        panel.set_yticks(range(len(languages)), [language_name(x) for x in languages])
        panel.set_xlabel("difference in differences of log-likelihood, nats (below zero: local)")
        figure.legend(loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
