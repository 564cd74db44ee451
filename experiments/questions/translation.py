"""Selective translation: language neurons of the generation layers off, or another language's on. Is the content kept while the language changes?

    python experiments/questions/translation.py [--model organism] [--task organism/cloze] [--to en] [--out runs/questions] [--smoke]

The model completes facts that every language stated. Conditions, of the FFN units of the generation layers: a language's own off; the target's
(`--to`) on; both; values are means of act(gate) over the target's texts, by several strengths (`steering_values`, `switch`); random units with as
many per layer, with the same values' rule. Units: LAPE's (`--rate`), or all units of these layers (`--units all`), the largest dose there is. An
answer is *right* (in the language asked), *kept* (right in any language), *moved* (kept in another), and *elsewhere*
(whatever it says, it is an answer in another language).
If back-translation were a matter of these neurons alone, answers would move: kept stays high while right falls.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from common import Bench, begin, panels, random_like

import mwork_lens as mw
from mwork_lens.plots.style import house_style, language_name
from mwork_lens.questions import selective_translation, translation_table
from mwork_lens.steering.switch import steering_values, switch

KINDS = ("own off", "on", "both", "random both")


def main() -> None:
    """Switch, let it write, tell content from language, write."""
    bench = begin("translation", __doc__, extend)
    given = bench.given
    if given.smoke:
        given.strengths, given.items, given.draws = [2.0], 6, 2
    task = (
        bench.task(given.task).where(lambda item: item.meta.get("stated", "all") == "all").take(given.items, given.seed)
    )
    moments = mw.measure(bench.model, bench.detection, mw.moments("ffn_act"), out=bench.kept("moments"), resume=True)
    last = list(bench.stages.generation)
    units = chosen_units(bench, moments, last)
    print(f"generation layers {last}; units: " + ", ".join(f"{x} {len(u)}" for x, u in units.items()), flush=True)
    values = steering_values(moments, given.to, given.value)
    tables = []
    for language in (x for x in task.languages if x != given.to):
        if not units[language] or not units[given.to]:
            print(f"{language}: no units in the generation layers, left out", flush=True)
            continue
        made = conditions(bench, language, units, values)
        rows = selective_translation(bench.model, task, made, [language], like=given.like, progress=False)
        tables.append(translation_table(rows, seed=given.seed))
        print(
            tables[-1][["condition", "language", "right", "kept", "moved", "elsewhere"]]
            .round(2)
            .to_string(index=False),
            flush=True,
        )
    if not tables:
        raise SystemExit("no language has units in the generation layers: raise --rate, or take --units all")
    table = averaged(pd.concat(tables, ignore_index=True))
    bench.finish({"table": table}, {"answers": draw(table, given.to)}, findings(table, given.to), stages=str(bench.stages),
                 units={x: len(u) for x, u in units.items()})  # fmt: skip


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="organism/cloze", help="facts to complete; a file, or an embedded task")
    parser.add_argument("--like", default="relation", help="field of meta: answers of the same kind tell a language")
    parser.add_argument("--items", type=int, default=40, help="per language at most")
    parser.add_argument("--to", default="en", help="language that is switched on")
    parser.add_argument("--units", default="lape", choices=("lape", "all"))
    parser.add_argument("--rate", type=float, default=0.05, help="share of the units that LAPE chooses")
    parser.add_argument("--value", default="mean", choices=("mean", "firing", "contrast"))
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0, 2.0, 4.0])


def chosen_units(bench: Bench, moments: Any, layers: list[int]) -> dict[str, mw.NeuronSet]:
    """Of each language, FFN units of the generation layers."""
    if bench.given.units == "all":
        shape = next(iter(bench.own.values())).shapes["ffn"]
        mask = torch.zeros(shape, dtype=torch.bool)
        mask[layers] = True
        return dict.fromkeys(bench.languages, mw.NeuronSet({"ffn": mask}, model=mw.fingerprint(bench.model)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few tokens; their number is in the provenance
        sets = mw.lape(moments, rate=bench.given.rate)
    return {x: found.only(layers=layers) for x, found in sets.items()}


def conditions(
    bench: Bench, language: str, units: dict[str, mw.NeuronSet], values: torch.Tensor
) -> dict[str, Callable[[], Any] | None]:
    """Label -> what makes the `with` block."""
    model, to = bench.model, units[bench.given.to]
    mine = units[language] - to if bench.given.units == "lape" else units[language]
    made: dict[str, Callable[[], Any] | None] = {"none": None}
    if mine:
        made["own off"] = lambda: mw.applied(model, *switch(off=mine))
    for strength in bench.given.strengths:
        made[f"on x{strength:g}"] = lambda s=strength: mw.applied(model, *switch(on=to, values=values, strength=s))
        if mine and bench.given.units == "lape":
            made[f"both x{strength:g}"] = lambda s=strength: mw.applied(
                model, *switch(on=to, values=values, off=mine, strength=s)
            )
    if bench.given.units == "lape":
        on = random_like(to, bench.given.draws, bench.given.seed, f"on {language}")
        off = random_like(mine, bench.given.draws, bench.given.seed, f"off {language}") if mine else [None] * len(on)
        for i, (a, b) in enumerate(zip(on, off, strict=True)):
            b = None if b is None or not b - a else b - a
            made[f"random both x{max(bench.given.strengths):g} {i}"] = lambda a=a, b=b: mw.applied(
                model, *switch(on=a, values=values, off=b, strength=max(bench.given.strengths))
            )
    return made


def averaged(table: pd.DataFrame) -> pd.DataFrame:
    """Random draws as one condition: mean, smallest and largest draw in place of the interval."""
    random = table["condition"].str.startswith("random")
    rows = [table[~random]]
    for language, part in table[random].groupby("language", sort=False):
        row: dict[str, Any] = {
            "condition": part["condition"].iloc[0].rsplit(" ", 1)[0],
            "language": language,
            "items": part["items"].iloc[0],
        }
        for column in table.columns.difference(["condition", "language", "items"]):
            edge = column.rsplit("_", 1)[-1]
            base = column.rsplit("_", 1)[0] if edge in ("low", "high") else column
            row[column] = {"low": part[base].min(), "high": part[base].max()}.get(edge, part[column].mean())
        rows.append(pd.DataFrame([row]))
    return pd.concat(rows, ignore_index=True)[list(table.columns)]


def findings(table: pd.DataFrame, to: str) -> list[str]:
    """Per condition, means over languages, and the language where most answers moved."""
    found = []
    for condition, part in table.groupby("condition", sort=False):
        best = part.loc[part["moved"].idxmax()]
        found.append(
            f"{condition}: right {part['right'].mean():.2f}, kept {part['kept'].mean():.2f}, moved {part['moved'].mean():.2f}, elsewhere "
            f"{part['elsewhere'].mean():.2f} (mean over {len(part)} languages, to {to}); most moved: {best['language']} {best['moved']:.2f} "
            f"[{best['moved_low']:.2f}, {best['moved_high']:.2f}]"
        )
    return found


def draw(table: pd.DataFrame, to: str) -> object:
    """Stacked shares per condition, one panel a language: right, moved, another content in another language, neither."""
    languages, order = list(dict.fromkeys(table["language"])), list(dict.fromkeys(table["condition"]))
    colours = {"right": "#0072B2", "moved": "#D55E00", "elsewhere": "#F0C8A0", "rest": "#D9D9D9"}
    names = {
        "right": "right",
        "moved": "right content, another language",
        "elsewhere": "other content, another language",
        "rest": "neither",
    }
    with house_style():
        figure, axes = panels(len(languages), 1.25, 0.9 + 0.24 * len(order), sharey=True)
        for panel, language in zip(axes, languages, strict=True):
            part = table[table["language"] == language].set_index("condition").reindex(order)
            shares = {
                "right": part["right"],
                "moved": part["moved"],
                "elsewhere": (part["elsewhere"] - part["moved"]).clip(lower=0),
            }
            shares["rest"] = (1 - sum(shares.values())).clip(lower=0)
            left = 0 * part["right"]
            for name, share in shares.items():
                panel.barh(range(len(order)), share, left=left, color=colours[name], label=names[name])
                left = left + share
            panel.set_title(language_name(language))
            panel.set_xlim(0, 1)
            panel.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        axes[0].set_yticks(range(len(order)), order)
        axes[0].invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
