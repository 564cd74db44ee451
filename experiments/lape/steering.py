"""Language accuracy and its price: a language's neurons switched on while the model writes (Tang et al. 2024, Tables 4 and 5, as far as this goes).

    python experiments/lape/steering.py [--out runs/steering]          about ten minutes of one core; --resume continues

Texts in thirds: the first two for LAPE and for the values put on act(gate), the last for prompts and for damage. English prompts are continued under
every dose of every target; the dose of a target is chosen on the even prompts (highest accuracy, ties by lower NLL) and reported on the odd ones.
Then, at that dose: damage on the last third, prompts of twice as many tokens, lines judged one by one; and French and Chinese prompts
towards English.

The embedded model continues passages and ends them after a sentence; it has no chat ability and cannot be asked for a language. So prompts are
openings of 6 tokens (after 12 it writes 6 more tokens in English, too few to identify), and what is reached is set beside the accuracy of
unsteered continuations of the target's own prompts. 5 % of the units instead of the paper's 1 %, which here leaves 1 to 4 units to de, es, fr, ru and
none to English. Seed 0; greedy, repetition penalty 1.1. Writes results/steering.json and results/steering_*.svg.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import json
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

import mwork_lens as mw
from mwork_lens.corpora import Corpus
from mwork_lens.detect.lape import lape
from mwork_lens.measure import measure
from mwork_lens.steering.responses import Dose, openings, steering_responses
from mwork_lens.steering.tables import damage, steering_table
from mwork_lens.writing.confusion import language_accuracy, response_language
from mwork_lens.writing.identify import Identifier, lingua_identifier

DOSES = (
    *(Dose(strength=s) for s in (1.0, 2.0, 3.0, 4.0, 6.0)),
    *(Dose(how="add", strength=s) for s in (1.0, 2.0, 3.0, 4.0)),
    *(Dose(value="firing", strength=s) for s in (1.0, 2.0, 3.0)),
    *(Dose(how="add", value="contrast", strength=s) for s in (2.0, 4.0)),
    *(Dose(strength=4.0, phase=phase) for phase in ("prompt", "new")),
)
FROM_OTHERS = tuple(Dose(strength=s) for s in (1.0, 2.0, 4.0, 6.0))
PAPER = {
    "what": "language accuracy without and with the language's neurons on; Tang et al. 2024, prompts in the language itself, a chat model",
    "accuracy": {
        "zh": [0.87, 0.99], "fr": [0.73, 0.90], "es": [0.81, 0.93], "vi": [0.60, 0.97], "id": [0.40, 0.99], "ja": [0.79, 1.00],
    },
    "quality": {
        "zh": [4.30, 4.57], "fr": [4.19, 4.35], "es": [3.51, 4.02], "vi": [3.70, 3.57], "id": [4.16, 4.28], "ja": [2.86, 2.91],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Ready:
    """What both scripts of this folder start from."""

    model: Any
    corpora: dict[str, Corpus]
    detection: dict[str, Corpus]
    held_out: dict[str, Corpus]
    moments: dict[str, Any]
    sets: dict[str, mw.NeuronSet]


def arguments_of(description: str | None, out: str) -> argparse.ArgumentParser:
    """The arguments that both scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="polyglot")
    parser.add_argument("--corpora", default="embedded", help="a folder of <language>.txt, or 'embedded'")
    parser.add_argument("--limit", type=int, help="documents per language")
    parser.add_argument("--rate", type=float, default=0.05, help="share of the units that LAPE chooses")
    parser.add_argument("--tokens", type=int, default=6, help="of a prompt, BOS included")
    parser.add_argument("--new-tokens", type=int, default=32, help="to write at most")
    parser.add_argument("--draws", type=int, default=3, help="random sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser


def prepare(arguments: argparse.Namespace) -> Ready:
    """Model, texts in thirds, moments of the first two, neurons."""
    model = mw.load_model(arguments.model)
    corpora = mw.load_corpora(arguments.corpora, limit=arguments.limit)
    held_out = {name: corpus.shard(2, 3) for name, corpus in corpora.items()}
    detection = {name: first(corpus, len(corpus) - len(held_out[name])) for name, corpus in corpora.items()}
    statistic = mw.document_moments("ffn_act")
    measured = measure(model, detection, statistic, out=arguments.out / "moments", resume=arguments.resume)
    moments = {name: found.moments() for name, found in measured.items()}
    with warnings.catch_warnings():  # the number of tokens is in the findings
        warnings.simplefilter("ignore", UserWarning)
        sets = lape(moments, rate=arguments.rate)
    return Ready(model, corpora, detection, held_out, moments, sets)


def first(corpus: Corpus, count: int) -> Corpus:
    """The first documents of a corpus."""
    return replace(corpus, texts=corpus.texts[:count], ids=corpus.ids[:count])


def about_neurons(ready: Ready, rate: float) -> list[str]:
    """Findings on the sets themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        paper = lape(ready.moments, rate=0.01)
    tokens = [found.tokens for found in ready.moments.values()]
    seen = f"{min(tokens):,} to {max(tokens):,} tokens a language"
    found = f"LAPE at rate {rate:g} ({seen}): {_counts(ready.sets)} FFN units; at the paper's 0.01: {_counts(paper)}."
    return [found]


def _counts(sets: dict[str, mw.NeuronSet]) -> str:
    return ", ".join(f"{name} {len(units)}" for name, units in sets.items())


def identified_by(responses: pd.DataFrame, identifier: Identifier) -> pd.DataFrame:
    """The same responses with another identifier's answers."""
    return responses.assign(identified=[response_language(text, identifier) for text in responses["text"]])


def dose_name(row: Any) -> str:
    """`replace mean x4`, and the phase where it is not all positions."""
    phase = "" if row.phase == "all" else f", {row.phase} positions"
    return f"{row.how} {row.value} x{row.strength:g}{phase}"


def pick(table: Any, **wanted: Any) -> pd.DataFrame:
    """Rows whose columns have these values."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def share(row: Any) -> str:
    """Accuracy with its Wilson interval."""
    return f"{row.accuracy:.2f} [{row.accuracy_low:.2f}, {row.accuracy_high:.2f}]"


def choose(table: pd.DataFrame) -> dict[str, Dose]:
    """Per target, the dose of highest accuracy under `both`; ties by lower NLL."""
    both = pick(table, condition="both").sort_values(["accuracy", "nll"], ascending=[False, True], kind="stable")
    best = both.drop_duplicates("target").set_index("target")
    return {
        target: Dose(row.how, row.value, row.strength, row.phase)
        for target, row in best.loc[[t for t in table["target"].unique() if t in best.index]].iterrows()
    }


def at_dose(table: pd.DataFrame, target: str, dose: Dose) -> pd.DataFrame:
    """Rows of a target at a dose, and unsteered ones."""
    how = {name: value for name, value in asdict(dose).items() if name != "off_value"}
    rows = pick(table, target=target)
    return pd.concat([pick(rows, condition="none"), pick(rows, **how)])


def compact(table: pd.DataFrame) -> dict[str, Any]:
    """Columns and rows, rounded."""
    found = json.loads(table.round(4).to_json(orient="split", index=False))
    return {"columns": found["columns"], "rows": found["data"]}


def describe_target(target: str, dose: Dose, odd: pd.DataFrame, ceiling: Any, harm: pd.DataFrame) -> str:
    """A target's line: from unsteered to the chosen dose, random draws beside it, and the price."""
    rows = at_dose(odd, target, dose).set_index("condition")
    none, both, random = (rows.loc[name] for name in ("none", "both", "random"))
    own, others = (
        harm[(harm["condition"] == "both") & ((harm["language"] == target) == mine)]["dnll"].mean()
        for mine in (True, False)
    )
    chance = pick(harm, condition="random").groupby("draw")["dnll"].mean()
    return (
        f"{both.source} to {target}, {dose_name(both)}: accuracy {share(none)} -> {share(both)} ('on' alone {rows.loc['on'].accuracy:.2f}; "
        f"random draws {random.draw_low:.2f} to {random.draw_high:.2f}; unsteered on {target} prompts {ceiling.accuracy:.2f}). Price: NLL "
        f"{none.nll:.2f} -> {both.nll:.2f} [{both.nll_low:.2f}, {both.nll_high:.2f}] nats a token (random {random.nll:.2f}), repetition "
        f"{none.repetition:.2f} -> {both.repetition:.2f}; damage {own:+.2f} nats a token in {target}, {others:+.2f} on average elsewhere "
        f"(random, all languages: {chance.min():+.2f} to {chance.max():+.2f})."
    )


def main() -> None:
    """Steer, and write the results."""
    parser = arguments_of(__doc__, "runs/steering")
    parser.add_argument("--source", default="en", help="language of the prompts")
    parser.add_argument("--others", nargs="*", default=["fr", "zh"], help="languages steered towards the source")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    ready = prepare(arguments)
    model, sets, moments, source = ready.model, ready.sets, ready.moments, arguments.source
    targets = [name for name, units in sets.items() if units and name != source]
    identifier, candidates = lingua_identifier(), lingua_identifier(list(ready.corpora))

    def respond(name: str, prompts: dict[str, list[str]], to: Sequence[str], **choices: Any) -> pd.DataFrame:
        return steering_responses(
            model, prompts, sets, moments, identifier, targets=to, draws=arguments.draws, max_new_tokens=arguments.new_tokens,
            seed=arguments.seed, size=48, out=arguments.out / name, resume=arguments.resume, **choices,
        )  # fmt: skip

    prompts = {name: openings(model, corpus, tokens=arguments.tokens) for name, corpus in ready.held_out.items()}
    responses = respond("doses", {source: prompts[source]}, targets, doses=DOSES)
    ceiling = respond("own", prompts, list(sets), conditions=("none",))
    ceiling = ceiling.assign(target=ceiling["source"])  # what the identifier can say of the model's own text
    even, odd = (responses[responses["prompt"] % 2 == half] for half in (0, 1))
    table = steering_table(odd, targets=targets, seed=arguments.seed)
    of_six = steering_table(identified_by(odd, candidates), targets=targets, seed=arguments.seed)
    own = pd.concat([
        steering_table(part, seed=arguments.seed).assign(candidates=name)
        for part, name in ((ceiling, "all"), (identified_by(ceiling, candidates), "these"))
    ])  # fmt: skip
    chosen = choose(steering_table(even, targets=targets, seed=arguments.seed))

    damages, longer = [], []
    for target, dose in chosen.items():
        read = Dose(dose.how, dose.value, dose.strength)
        options: dict[str, Any] = {"targets": [target], "source": source, "doses": [read], "draws": arguments.draws}
        options |= {"conditions": ("on", "both", "random"), "seed": arguments.seed, "size": 48}
        damages.append(damage(model, ready.held_out, sets, moments, **options))
        twice = openings(model, ready.held_out[source], tokens=2 * arguments.tokens)
        longer.append(respond(f"longer-{target}", {source: twice}, [target], doses=[dose], conditions=("none", "both")))
    harm = pd.concat(damages, ignore_index=True)
    long = pd.concat([steering_table(part, targets=[t]) for t, part in zip(chosen, longer, strict=True)])
    lines = pd.concat([at_dose(odd.assign(target=odd["target"].replace("", t)), t, dose) for t, dose in chosen.items()])
    lines = lines.drop(columns="identified").rename(columns={"target": "language"})
    confusion = language_accuracy(lines[["condition", "language", "text"]], identifier, by=["condition"])
    back = {name: prompts[name] for name in arguments.others if sets.get(name) and sets.get(source)}
    towards = steering_table(respond("towards", back, [source], doses=FROM_OTHERS), targets=[source]) if back else None

    findings = about_neurons(ready, arguments.rate)
    ceilings = pick(own, condition="none", candidates="all").set_index("source")
    for target, dose in chosen.items():
        found = describe_target(target, dose, table, ceilings.loc[target], pick(harm, target=target))
        few, line = at_dose(of_six, target, dose).set_index("condition"), pick(confusion, language=target)
        strict, released = (pick(line, condition="both", rule=rule).iloc[0] for rule in ("strict", "released"))
        twice_rows = pick(long, target=target).set_index("condition")
        findings.append(
            f"{found} With {len(ready.corpora)} candidate languages for the identifier {few.loc['none'].accuracy:.2f} -> "
            f"{few.loc['both'].accuracy:.2f}. Lines that pass: strict {strict.lpr:.2f}, released {released.lpr:.2f} ({strict.skipped} of "
            f"{strict.responses} responses have no line to judge). Prompts of {2 * arguments.tokens} tokens: "
            f"{twice_rows.loc['none'].accuracy:.2f} -> {twice_rows.loc['both'].accuracy:.2f}."
        )
    findings += summary(table, ceilings, towards, source) + noise(table, chosen)
    record = {
        "findings": findings,
        "paper": PAPER,
        "chosen": {target: asdict(dose) for target, dose in chosen.items()},
        "steering": compact(table),
        "steering_few_candidates": compact(of_six),
        "unsteered_own_prompts": compact(own),
        "damage": compact(harm),
        "lines": compact(confusion),
        "longer_prompts": compact(long),
        "towards_source": None if towards is None else compact(towards),
        "examples": examples(odd, chosen),
        "seconds": round(time.perf_counter() - begun),
        "run": run_of(arguments, ready, "lape steering"),
    }
    write_results(arguments.results / "steering.json", record)
    draw(arguments.results, table, harm)
    print("\n".join(findings))


def curve(table: pd.DataFrame, how: str, value: str) -> str:
    """Mean over targets at each strength."""
    part = pick(table, condition="both", how=how, value=value, phase="all")
    means = part.groupby("strength")[["accuracy", "nll"]].mean()
    points = [f"x{s:g} accuracy {row.accuracy:.2f}, NLL {row.nll:.2f}" for s, row in means.iterrows()]
    return f"Mean over targets, {how} {value}: {'; '.join(points)}."


def summary(table: pd.DataFrame, ceilings: pd.DataFrame, towards: Any, source: str) -> list[str]:
    """What holds of all targets together."""
    found = [curve(table, *kind) for kind in dict.fromkeys((dose.how, dose.value) for dose in DOSES)]
    parts = pick(table, condition="both", how="replace", value="mean", strength=4.0).groupby("phase", sort=False)
    means = [f"{phase} {value:.2f}" for phase, value in parts["accuracy"].mean().items()]
    found.append(f"Replace mean x4 by positions: {', '.join(means)}.")
    random = pick(table, condition="random")
    tops = random.groupby("target", sort=False)["draw_high"].max()
    most = ", ".join(f"{target} {value:.2f}" for target, value in tops.items())
    found.append(f"Random neurons in the same layers, all doses: accuracy of a draw at most {most}.")
    seen = ", ".join(f"{name} {row.accuracy:.2f}" for name, row in ceilings.iterrows())
    found.append(
        f"Unsteered continuations of a language's own prompts are in it (what the identifier can see): {seen}."
    )
    for name in [] if towards is None else towards["source"].unique():
        rows = pick(towards, source=name)
        best = pick(rows, condition="both").sort_values(["accuracy", "nll"], ascending=[False, True]).iloc[0]
        none = pick(rows, condition="none").iloc[0]
        found.append(
            f"{name} to {source}: accuracy {share(none)} -> at best {share(best)} ({dose_name(best)}; chosen and reported on the same prompts), "
            f"still in {name} {none.in_source:.2f} -> {best.in_source:.2f}, NLL {none.nll:.2f} -> {best.nll:.2f}."
        )
    return found


def examples(responses: pd.DataFrame, chosen: dict[str, Dose], count: int = 4) -> list[dict[str, Any]]:
    """A few responses at the chosen doses, to be read."""
    rows = []
    for target, dose in chosen.items():
        part = at_dose(responses, target, dose)
        rows.append(pick(part, condition="both").head(count))
    columns = ["target", "how", "value", "strength", "phase", "text", "identified", "nll"]
    return json.loads(pd.concat(rows)[columns].round(3).to_json(orient="records", force_ascii=False))


def noise(table: pd.DataFrame, chosen: dict[str, Dose]) -> list[str]:
    """Targets whose text at the chosen dose is hardly a language any more."""
    found = []
    for target, dose in chosen.items():
        rows = at_dose(table, target, dose).set_index("condition")["nll"]
        if rows["both"] > 3 * rows["none"]:
            found.append(
                f"{target}: at the chosen dose NLL is {rows['both'] / rows['none']:.1f} times that of unsteered text. That is near noise (see the "
                "examples), and its accuracy is what an identifier says of noise with the right letters."
            )
    return found


def draw(results: Path, table: pd.DataFrame, harm: pd.DataFrame) -> None:
    """Three figures: replace mean by strength, the price of every dose, and the damage at the chosen ones."""
    from mwork_lens.plots import svg
    from mwork_lens.plots.steering import damage_heatmap, dose_curves, fluency_against_accuracy

    plain = pick(table, how="replace", value="mean", phase="all")
    figures = {
        "doses": dose_curves(pd.concat([pick(table, condition="none"), plain]))[0].figure,
        "price": fluency_against_accuracy(table).figure,
        "damage": damage_heatmap(harm).figure,
    }
    for name, figure in figures.items():
        (results / f"steering_{name}.svg").write_text(svg(figure) + "\n", encoding="utf-8")


def run_of(arguments: argparse.Namespace, ready: Ready, method: str) -> dict[str, Any]:
    """Provenance, without the names of folders."""
    paths = ("out", "results", "resume")
    parameters = {name: value for name, value in vars(arguments).items() if name not in paths}
    facts = {name: corpus.facts() for name, corpus in ready.corpora.items()}
    return mw.Run(method, parameters, mw.describe(ready.model), facts, seed=arguments.seed).to_json()


def write_results(path: Path, record: dict[str, Any]) -> None:
    """Write readable JSON: rows of tables on one line each."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_rows_on_lines(text) + "\n", encoding="utf-8")


def _rows_on_lines(text: str) -> str:
    return re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda match: "[" + re.sub(r"\n\s*", " ", match[1]) + "]", text)


if __name__ == "__main__":
    main()
