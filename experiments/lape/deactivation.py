"""What a model writes when a language's neurons are off (Tang et al. 2024, Table 3, as far as this goes without a judge).

    python experiments/lape/deactivation.py [--out runs/deactivation]          about four minutes of one core; --resume continues

LAPE on the first two thirds of the texts; openings of the last third are continued with the neurons of each language off (act(gate) set to 0), and
with as many random ones in the same layers: language accuracy, NLL under the unchanged model, repetition and length, per language off and language
of the prompt. Seed 0; greedy, repetition penalty 1.1. 5 % of the units instead of the paper's 1 %, which leaves most languages 1 to 4 units here.

The paper has GPT-4 score answers to 70 questions a language. No judge is contacted unless you bring one:

    python experiments/lape/deactivation.py --questions folder/ --judge module:function

asks the questions in folder/<language>.jsonl and hands (question, answer, language) to the function, which returns 1 to 10. Writes
results/deactivation.json.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import importlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from steering import Ready, about_neurons, arguments_of, compact, prepare, run_of, write_results
from tqdm.auto import tqdm

import mwork_lens as mw
from mwork_lens.evaluate import resample
from mwork_lens.steering.responses import openings
from mwork_lens.steering.switch import switch
from mwork_lens.storage import content_hash
from mwork_lens.writing.confusion import language_accuracy, repetition, response_language, wilson
from mwork_lens.writing.generate import fluency, generate
from mwork_lens.writing.identify import lingua_identifier
from mwork_lens.writing.questions import STOP, load_questions, prompt, quality, score

PAPER = {
    "what": "score by GPT-4, 1 to 10, answers to 70 questions a language; Tang et al. 2024, a 70 B model",
    "normal": {"zh": 4.30, "fr": 4.19, "es": 3.51, "vi": 3.70, "id": 4.16, "ja": 2.86},
    "random off": {"zh": 4.18, "fr": 4.22, "es": 3.35, "vi": 3.53, "id": 4.42, "ja": 2.99},
    "own language off": {"zh": 2.46, "fr": 2.50, "es": 2.01, "vi": 2.74, "id": 2.84, "ja": 1.84},
}
ROW = ["off", "neurons", "draw", "language", "prompt", "text", "tokens", "finished", "identified", "nll", "repetition"]
CELL = ["off", "neurons", "language"]


def settings(ready: Ready, draws: int, seed: int) -> list[tuple[str, str, int, Any]]:
    """(language off, own or random, draw, neurons); first nothing."""
    found: list[tuple[str, str, int, Any]] = [("", "none", -1, None)]
    for language, units in ready.sets.items():
        if not units:
            continue
        found.append((language, "own", -1, units))
        for draw in range(draws):
            generator = torch.Generator().manual_seed(int(content_hash(seed, language, draw)[:8], 16))
            found.append((language, "random", draw, mw.matched_random(units, generator=generator)))
    return found


def write(
    model: Any, prompts: Sequence[str], units: Any, new_tokens: int, stop: Sequence[str] = ()
) -> tuple[list[Any], np.ndarray]:
    """Continuations with units off, and their NLL under the unchanged model."""
    with nullcontext() if units is None else mw.applied(model, *switch(off=units)):
        made = generate(model, prompts, max_new_tokens=new_tokens, repetition_penalty=1.1, stop=stop, size=48)
    return made, fluency(model, made, size=48)


def continuations(ready: Ready, arguments: argparse.Namespace, identifier: Any) -> pd.DataFrame:
    """One row a response; a finished cell is kept in the folder."""
    prompts = {name: openings(ready.model, corpus, tokens=arguments.tokens) for name, corpus in ready.held_out.items()}
    tables = []
    for off, kind, draw, units in tqdm(settings(ready, arguments.draws, arguments.seed), unit="set", desc="off"):
        basis = [mw.fingerprint(ready.model), prompts, arguments.new_tokens, kind]
        path = (
            arguments.out / "responses" / f"{content_hash(*basis, *([list(units)] if units is not None else []))}.json"
        )
        if arguments.resume and path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            rows = []
            for language, given in prompts.items():
                made, nll = write(ready.model, given, units, arguments.new_tokens)
                for i, (text, loss) in enumerate(zip(made, nll.tolist(), strict=True)):
                    said = response_language(text.text, identifier)
                    loss = None if np.isnan(loss) else loss
                    rows.append([language, i, text.text, len(text.ids), text.finished, said, loss, repetition(text.text)])  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        tables.append(pd.DataFrame([[off, kind, draw, *row] for row in rows], columns=ROW))
    return pd.concat(tables, ignore_index=True)


def matrix(responses: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Per language off, kind of neurons and language of the prompts; random draws pooled, with their range."""
    rows = []
    for (off, kind, language), part in responses.groupby(CELL, sort=False):
        right = part["identified"] == language
        by_draw = part.assign(right=right).groupby("draw")[["right", "nll"]].mean()
        nll = part.dropna(subset="nll").groupby("prompt")["nll"].mean().to_numpy(float)
        means = resample(len(nll), seed=seed) @ nll / len(nll)
        ends = [by_draw["right"].min(), by_draw["right"].max(), by_draw["nll"].min(), by_draw["nll"].max()]
        rows.append([
            off, kind, language, len(part), right.mean(), *wilson(int(right.sum()), len(part)),
            (part["identified"] == "unknown").mean(), (part["tokens"] == 0).mean(), nll.mean(), *np.quantile(means, [0.025, 0.975]),
            part["repetition"].astype(float).mean(), part["tokens"].mean(), *(ends if kind == "random" else [np.nan] * 4),
        ])  # fmt: skip
    names = ["responses", "accuracy", "accuracy_low", "accuracy_high", "unknown", "empty", "nll", "nll_low", "nll_high"]
    names += ["repetition", "tokens", "accuracy_draw_low", "accuracy_draw_high", "nll_draw_low", "nll_draw_high"]
    return pd.DataFrame(rows, columns=[*CELL, *names])


def findings_of(table: pd.DataFrame, responses: pd.DataFrame, sets: Mapping[str, Any]) -> list[str]:
    """A sentence a language, and what holds of the matrix."""
    cells, found = table.set_index(CELL), []
    for language, units in sets.items():
        if not units:
            found.append(f"{language}: no neurons, nothing to switch off.")
            continue
        none, own, random = (
            cells.loc[key]
            for key in (("", "none", language), (language, "own", language), (language, "random", language))
        )
        now = responses[(responses["off"] == language) & (responses["neurons"] == "own")]
        said = now[now["language"] == language]["identified"].value_counts().head(3)
        elsewhere = table[(table["off"] == language) & (table["neurons"] == "own") & (table["language"] != language)]
        base = table[(table["neurons"] == "none") & (table["language"] != language)].set_index("language")
        other = elsewhere.set_index("language")[["accuracy", "nll"]] - base[["accuracy", "nll"]]
        found.append(
            f"{language}, {len(units)} of its own units off: accuracy {none.accuracy:.2f} -> {own.accuracy:.2f} [{own.accuracy_low:.2f}, "
            f"{own.accuracy_high:.2f}] (random draws {random.accuracy_draw_low:.2f} to {random.accuracy_draw_high:.2f}), NLL {none.nll:.2f} -> "
            f"{own.nll:.2f} [{own.nll_low:.2f}, {own.nll_high:.2f}] (random {random.nll_draw_low:.2f} to {random.nll_draw_high:.2f}), repetition "
            f"{none.repetition:.2f} -> {own.repetition:.2f}, tokens {none.tokens:.1f} -> {own.tokens:.1f}; other languages' prompts: accuracy "
            f"{other['accuracy'].mean():+.2f}, NLL {other['nll'].mean():+.2f} on average. Identified: "
            + ", ".join(f"{name} {count}" for name, count in said.items())
            + "."
        )
    for column, worst in (("accuracy", "min"), ("nll", "max")):
        gap = table[table["neurons"] == "own"].set_index(["off", "language"])[column].unstack("language")
        gap = gap - table[table["neurons"] == "none"].set_index("language")[column]
        at = getattr(gap, f"idx{worst}")(axis=1)
        own = [gap.loc[name, name] for name in gap.index]
        ties = [int((gap.loc[name] == gap.loc[name, name]).sum()) > 1 for name in gap.index]
        harm = "falls" if column == "accuracy" else "rises"
        hit = sum(where == name and not tied for (name, where), tied in zip(at.items(), ties, strict=True))
        what = "language accuracy" if column == "accuracy" else "NLL of the continuations"
        found.append(
            f"Matrix: {what} {harm} most in the language switched off in {hit} of {len(gap)} rows (ties not counted); on the diagonal "
            f"{np.mean(own):+.2f} on average, elsewhere {(gap.to_numpy().sum() - np.sum(own)) / (gap.size - len(own)):+.2f}."
        )
    return found


def judged(ready: Ready, arguments: argparse.Namespace) -> pd.DataFrame | None:
    """Answers scored by the user's judge: own neurons off beside random ones; None without a judge."""
    if not (arguments.judge and arguments.questions):
        return None
    module, _, function = arguments.judge.partition(":")
    judge = getattr(importlib.import_module(module), function)
    tables = []
    for language, asked in load_questions(arguments.questions).items():
        for off, kind, draw, units in settings(ready, arguments.draws, arguments.seed):
            if off not in ("", language):
                continue
            prompts = [prompt(question, language) for question in asked]
            made, _ = write(ready.model, prompts, units, arguments.answer_tokens, STOP)
            scores = score(asked, [answer.text for answer in made], judge, language=language)
            tables.append(scores.assign(neurons=kind, draw=draw))
    return quality(pd.concat(tables), by=["neurons"], seed=arguments.seed)


def main() -> None:
    """Switch off, let the model write, and count."""
    parser = arguments_of(__doc__, "runs/deactivation")
    parser.add_argument("--questions", type=Path, help="folder of <language>.jsonl")
    parser.add_argument("--judge", help="module:function, called as function(question, answer, language) -> 1..10")
    parser.add_argument("--answer-tokens", type=int, default=256, help="of an answer to a question, at most")
    arguments = parser.parse_args()
    if bool(arguments.judge) != bool(arguments.questions):
        parser.error("--judge and --questions belong together: give both or none")
    begun = time.perf_counter()
    ready = prepare(arguments)
    identifier = lingua_identifier()
    responses = continuations(ready, arguments, identifier)
    table = matrix(responses, arguments.seed)
    few = lingua_identifier(list(ready.corpora))
    again = responses.assign(identified=[response_language(text, few) for text in responses["text"]])
    lines = language_accuracy(responses.drop(columns="identified"), identifier, by=["off", "neurons"])
    scores = judged(ready, arguments)
    findings = about_neurons(ready, arguments.rate) + findings_of(table, responses, ready.sets)
    findings.append("Identifier with only these languages: " + findings_of(matrix(again, arguments.seed), again, ready.sets)[-2])  # fmt: skip
    own = (responses["neurons"] == "own") & (responses["off"] == responses["language"]) & (responses["prompt"] < 4)
    record = {
        "findings": findings,
        "paper": PAPER,
        "matrix": compact(table),
        "matrix_few_candidates": compact(matrix(again, arguments.seed)),
        "lines": compact(lines[(lines["off"] == "") | (lines["off"] == lines["language"])]),
        "quality": "no judge was given" if scores is None else compact(scores),
        "examples": json.loads(responses[own][["off", "text", "identified", "nll"]].round(3).to_json(orient="records", force_ascii=False)),
        "seconds": round(time.perf_counter() - begun),
        "run": run_of(arguments, ready, "lape deactivation"),
    }  # fmt: skip
    write_results(arguments.results / "deactivation.json", record)
    print("\n".join(findings))


if __name__ == "__main__":
    main()
