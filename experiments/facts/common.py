"""What the study of facts is told, and how it writes what it found."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

import mwork_lens as mw
from mwork_lens.cli.fact_folder import default_facts
from mwork_lens.facts.factset import FactSet


def arguments(description: str | None) -> argparse.Namespace:
    """The command line; `description` is the script's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism")
    parser.add_argument(
        "--facts", help="organism, small, or a folder (ours or mLAMA's); default what the model was trained on"
    )
    parser.add_argument(
        "--corpora",
        help="world, embedded, organism, or a folder; default world for the organism's facts, else embedded",
    )
    parser.add_argument("--languages", nargs="+")
    parser.add_argument("--take", type=int, help="facts per relation at most")
    parser.add_argument("--metric", help="full, partial, contiguous or typed")
    parser.add_argument("--documents", type=int, default=10_000, help="of the world, per language")
    parser.add_argument("--unit", default="document", help="document, sentence or chunk (of 512 tokens)")
    parser.add_argument("--top", type=int, default=50, help="neurons per fact")
    parser.add_argument("--minimum", type=int, default=5, help="facts of a relation that a language must know")
    parser.add_argument("--draws", type=int, default=20, help="of each control")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/facts"))
    parser.add_argument(
        "--results", type=Path, help="default: results/ beside the script for the organism, else OUT/results"
    )
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="a few facts, seconds; writes to OUT/results")
    a = parser.parse_args()
    if a.smoke:
        a.take, a.minimum, a.draws, a.documents = a.take or 4, 2, 2, 600
        a.languages = a.languages or ["en", "de", "es", "ru"]
    a.facts = a.facts or default_facts(a.model)
    a.corpora = a.corpora or ("world" if a.facts == "organism" else "embedded")
    ours = (a.model, a.facts, a.corpora, a.languages, a.take) == ("organism", "organism", "world", None, None)
    a.results = a.results or (Path(__file__).parent / "results" if ours and not a.smoke else a.out / "results")
    return a


def share(row: pd.Series) -> str:
    return f"{row['precision']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def in_words(table: pd.DataFrame) -> list[str]:
    real = table[table["shuffled"] == "none"].iloc[0]
    return [
        f"Control of {row['analysis']}, {row['shuffled']} shuffled: mean {row['mean']:.4f} ({row['mean_min']:.4f} to {row['mean_max']:.4f}), "
        f"spread over pairs {row['spread']:.4f} ({row['spread_min']:.4f} to {row['spread_max']:.4f}); as found {real['mean']:.4f}, "
        f"{real['spread']:.4f}."
        for _, row in table[table["shuffled"] != "none"].iterrows()
    ]


def finish(
    a: argparse.Namespace,
    model: Any,
    facts: FactSet,
    metric: str,
    said: list[str],
    tables: dict,
    figures: dict,
    start: float,
) -> None:
    """Write the findings, tables and figures."""
    from mwork_lens.plots import write_svg

    given = ("languages", "take", "documents", "unit", "top", "minimum", "draws", "smoke")
    parameters = {name: getattr(a, name) for name in given} | {
        "facts": facts.source if a.facts not in ("small", "organism") else a.facts,
        "metric": metric,
    }
    run = mw.Run("experiments/facts/study", parameters, mw.describe(model), {"searched": a.corpora}, a.seed)
    short = {
        name: table.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x) for name, table in tables.items()
    }
    rows = {name: json.loads(table.to_json(orient="split", index=False)) for name, table in short.items()}
    parts = [f'"findings": {json.dumps(said, indent=1, ensure_ascii=False)}']
    for name, table in rows.items():
        lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in table["data"])
        parts.append(f'"{name}": {{"columns": {json.dumps(table["columns"])}, "rows": [\n  {lines}]}}')
    parts += [
        f'"seconds": {round(time.monotonic() - start)}',
        f'"run": {json.dumps(run.to_json(), ensure_ascii=False)}',
    ]
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    json.loads(text)
    a.results.mkdir(parents=True, exist_ok=True)
    (a.results / "study.json").write_text(text, encoding="utf-8")
    for name, axes in figures.items():
        write_svg(axes.figure, a.results / f"{name}.svg")
    print("\n".join(said))
    print(f"{time.monotonic() - start:.0f} s; results in {a.results}")
