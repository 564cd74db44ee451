"""What the organism can do: every ability in every language, with intervals; facts by where they were stated.

    python experiments/organism/measure.py --model runs/organism/model --out runs/organism/results

Rows of every item are kept in `--out` (so an interrupted run goes on), the tables beside this script's other results.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import argparse
from pathlib import Path

import pandas as pd
from miniworld.identify import identifier
from miniworld.languages import CODES

import mwork_lens as mw
from mwork_lens.writing.identify import as_identifier

KINDS = ("understanding", "reasoning", "knowledge", "cloze", "generation")


def stated_table(rows: pd.DataFrame, tasks: list[mw.Task]) -> pd.DataFrame:
    """Accuracy on facts, in languages that stated them and in others, by what was ever asked."""
    meta = [
        {"task": task.name, "language": item.language, "item": item.id, **item.meta}
        for task in tasks
        for item in task.items
    ]
    known = rows.merge(pd.DataFrame(meta), on=["task", "language", "item"])
    here = (known["stated"] == "all") | (known["stated"] == known["language"])
    known["where"] = here.map({True: "stated here", False: "stated elsewhere"})
    known.loc[~here & (known["stated"] == "en"), "where"] = "stated in English only"
    known["asked"] = known["asked"].map({True: "asked in training", False: "never asked"})
    known["task"] = known["task"] + ", " + known["where"] + ", " + known["asked"]
    return mw.accuracy(known, by=("task", "language"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="items per task and language")
    given = parser.parse_args()
    if given.limit is not None and given.limit < 1:
        raise SystemExit(f"--limit {given.limit}: give at least 1, or leave it out")
    model = mw.load_model(given.model)
    tasks = [mw.load_task(f"organism/{kind}") for kind in KINDS]
    if given.limit:
        tasks = [task.take(given.limit) for task in tasks]
    rows = mw.answer_scores(
        model, tasks, size=64, identify=as_identifier(identifier(), CODES), out=given.out / "rows", resume=True
    )
    main_table = mw.accuracy(rows, by=("task", "language"))
    facts = stated_table(rows[rows["ability"] == "knowledge"], [task for task in tasks if task.ability == "knowledge"])
    fidelity = mw.accuracy(rows[rows["ability"] == "generation"], by=("task", "language"), score="fidelity")
    for name, table in (("abilities", main_table), ("facts", facts), ("fidelity", fidelity)):
        table.to_csv(given.out / f"{name}.csv", index=False)
        print(f"\n{name}\n{table.to_string(index=False, float_format='%.3f')}")


if __name__ == "__main__":
    main()
