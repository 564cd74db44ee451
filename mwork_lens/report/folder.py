"""A page for the folder of any run: what was asked, the figures, the tables, who made them and how.

A study has a page of its own (`study`); every other command leaves tables (`.parquet`), neuron sets (`.safetensors`) and figures (`.svg`), each
table and each set with the `Run` that made it. That is all this page reads: nothing is computed, and no model is loaded.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..storage import load, load_run, write_text
from ..written import UNKNOWN
from .answer import documents_cautions, draws_cautions, source_cautions, texts_cautions
from .command import COMMANDS, commands
from .page import day, documents, fill, keys, model_name, provenance, within_limit
from .tables import Cell, Row, Table, corpora_table, plain

ROWS = 20
"""Rows of a table that the page shows."""
COLUMNS = 24
"""Columns of a table that the page shows."""
FIGURES = 4_000_000
"""Bytes of all figure files together; those that come after are named, not shown."""

QUESTIONS = {
    "lape": "Which FFN neurons fire for few languages only (LAPE), and how firm are the sets?",
    "lap": "Which FFN neurons fire above a bar for a language (LAP)?",
    "lave": "Which FFN neurons have high values for few languages only (LAVE)?",
    "penalised": "Which FFN neurons fire for few languages only (LAPE with a penalty on rare ones)?",
    "ap": "Which FFN neurons tell a language from the others (average precision)?",
    "plnd": "Which neurons does each language need, and which of them no other (PLND)?",
    "lens": "Which language does each layer speak?",
    "sensitivity": "How much do the sets change with rate, bar, languages, domain and number of tokens?",
    "perplexity": "Whose neurons are off, and which language suffers?",
    "steering": "Can neurons switch the language of what is written, and at which price?",
    "geometry": "Where do languages meet: similarity of parallel sentences, retrieval and dominance per layer?",
    "experts": "Which groups of FFN units does each language use?",
    "experts compare": "How alike are languages in the experts they use?",
    "experts prune": "What breaks when only a language's most frequent experts are kept?",
    "facts": "How many facts does the model know in each language?",
    "facts probe": "How many facts does the model know in each language?",
    "facts share": "Which facts do languages know in common?",
    "facts neurons": "Which neurons does each known fact have, and do languages share them?",
    "enhance": "What does training a language's neurons change, in its language and in others?",
    "partition": "Which FFN units work together as an expert?",
    "facts trace": "Is a known fact written in the training text, and where else may it come from?",
}
"""Method of a `Run` -> what it asks."""


class Held(NamedTuple):
    """What a folder holds: names and values in alphabetical order, and the runs that made them."""

    tables: dict[str, pd.DataFrame]
    figures: dict[str, bytes]
    runs: dict[str, dict[str, Any]]
    """File -> its `Run`."""
    others: list[str]


def render_folder(folder: str | Path) -> str:
    """The page of a run's folder, as text.

    Args:
        folder: What a command wrote, with `--out` or as its argument.

    Raises:
        FileNotFoundError: There is no such folder, or no run in it; the message says what is there.
        ValueError: A file of it is damaged.
    """
    folder = Path(folder)
    held = _held(folder)
    made = list(_distinct(held.runs))
    main = made[0][1]
    methods = list(dict.fromkeys(str(run.get("method") or "") for _, run in made))
    asked = [QUESTIONS.get(method, f"Method: {method or 'not recorded'}.") for method in methods]
    figures, left = _figures(held)
    corpora = next((run["corpora"] for _, run in made if run.get("corpora")), {})
    facts = [("Method", ", ".join(method or UNKNOWN for method in methods)), ("Model", model_name(main))]
    if corpora:
        facts += [("Languages", ", ".join(map(str, corpora))), ("Documents", f"{documents({'corpora': corpora}):,}")]
    page = fill(
        kind="folder",
        title=f"{methods[0] or 'A run'} of {model_name(main)}",
        made=f"A run with mwork_lens, {day(main)}",
        question=" ".join(dict.fromkeys(asked)),
        facts=facts,
        warnings=list(_cautions(made, held, left)),
        asked=[keys("Model" if i == 0 else f"Model ({i + 1})", model) for i, model in enumerate(_models(made))],
        corpora=corpora_table(corpora),
        figures=figures,
        plots={},
        tables=[(f"{name}.parquet", *shown(table, name)) for name, table in held.tables.items()],
        others=", ".join(held.others),
        commands=commands(folder, main.get("parameters")),
        snippet=None,
        plotly="",
        provenance=[(name, [table for table in provenance(run) if table.caption != "Model"]) for name, run in made],
    )
    return within_limit(page, str(folder), "move figures out of the folder")


def write_folder_report(folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a run's folder, atomically; `report.html` in the folder if no path is given.

    Raises:
        FileNotFoundError: As `render_folder`.
        ValueError: As `render_folder`.
        OSError: The file cannot be written; what was there before is kept.
    """
    page = render_folder(folder)
    return write_text(Path(folder) / "report.html" if path is None else path, page)


def shown(table: pd.DataFrame, caption: str) -> tuple[Table, str]:
    """The first rows and columns of a table as the page shows them, and a note of how many there are.

    Args:
        table: Any; floats get four significant digits, nan a dash.
        caption: What it is called.
    """
    part = table.iloc[:ROWS, :COLUMNS]
    numeric = [pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype) for dtype in part.dtypes]
    rows = [Row([Cell(_written(value), "n" if is_n else "") for value, is_n in zip(row, numeric, strict=True)])
            for row in part.itertuples(index=False, name=None)]  # fmt: skip
    head = [Cell(str(column), "n" if is_n else "") for column, is_n in zip(part.columns, numeric, strict=True)]
    cut = (
        [f"the first {len(part):,} of {len(table):,} rows"]
        if len(part) < len(table)
        else [f"{len(table):,} row{'s' * (len(table) != 1)}"]
    )
    cut += [f"the first {COLUMNS} of {table.shape[1]:,} columns"] if part.shape[1] < table.shape[1] else []
    return Table(head, rows, caption), f"({', '.join(cut)})"


def _written(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        if not np.isfinite(value):
            return UNKNOWN if np.isnan(value) else "∞" if value > 0 else "−∞"
        text = f"{value:.4g}"
        return f"−{text[1:]}" if text.startswith("-") else text
    if value is None or value is pd.NA or value is pd.NaT:
        return UNKNOWN
    text = value if isinstance(value, str) else plain(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _held(folder: Path) -> Held:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"{folder} {what}: give the folder that a command wrote, such as the one of its --out")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    runs: dict[str, dict[str, Any]] = {}
    if (folder / "run.json").is_file():
        runs["run.json"] = _record(folder / "run.json")
    tables: dict[str, pd.DataFrame] = {}
    others: list[str] = []
    for path in paths:
        run = _run_of(path)
        if run:
            runs[path.name] = run
        if path.suffix == ".parquet":
            tables[path.stem] = load(path)
        elif path.suffix != ".svg" and path.name not in ("report.html", "run.json", COMMANDS):
            others.append(path.name)
    if not runs:
        names = ", ".join(path.name + "/" * path.is_dir() for path in sorted(folder.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(
            f"{folder} holds no run: there is {names}, but no run.json and no table or neuron set of ours; give the folder that a command wrote"
        )
    return Held(tables, {path.stem: path.read_bytes() for path in paths if path.suffix == ".svg"}, runs, others)


def _record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error}): it is damaged; run the command again") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} holds a {type(found).__name__}, not the record of a run: it is foreign; run the command again"
        )
    for part in ("parameters", "model", "corpora", "versions"):
        if found.get(part) is not None and not isinstance(found[part], dict):
            raise ValueError(
                f"{path}: {part!r} is a {type(found[part]).__name__}, not names and values as in the record of a run: it is foreign; "
                "run the command again, or point elsewhere"
            )
    return found


def _run_of(path: Path) -> dict[str, Any]:
    """The `Run` inside a file, if it is one of ours."""
    if path.suffix == ".parquet":
        try:
            return load_run(path)
        except ValueError as error:
            raise ValueError(
                f"{path} is not a readable parquet table ({error}): it is truncated or foreign; make it again"
            ) from error
    if path.suffix == ".safetensors":
        try:
            return load_run(path)
        except (ValueError, KeyError):
            return {}  # of somebody else; named among the other files
    return {}


def _distinct(runs: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(files, run) for each run, the earliest first; files that one run wrote belong together."""
    files: dict[str, list[str]] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        key = json.dumps(
            [run.get(part) for part in ("method", "parameters", "model", "corpora", "time")],
            sort_keys=True,
            default=str,
        )
        files.setdefault(key, []).append(name)
        found.setdefault(key, run)
    for key in sorted(files, key=lambda key: str(found[key].get("time") or "")):
        yield ", ".join(files[key]), found[key]


def _models(made: list[tuple[str, dict[str, Any]]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for _, run in made:
        if run.get("model") and run["model"] not in found:
            found.append(run["model"])
    return found


def _cautions(made: list[tuple[str, dict[str, Any]]], held: Held, left: list[str]) -> Iterator[str]:
    every: dict[str, None] = {}
    for _, run in made:
        every |= dict.fromkeys([*texts_cautions(run), *source_cautions(run)])
    yield from every
    if len(_models(made)) > 1:
        yield "The folder holds files of different models: compare them with care."
    for name, table in held.tables.items():
        if not len(table):
            yield f"{name}.parquet is empty."
        draws = float(pd.to_numeric(table["draws"], errors="coerce").max()) if "draws" in table else np.nan
        if np.isfinite(draws):
            yield from (f"{name}.parquet: {sentence}" for sentence in draws_cautions(int(draws)))
        yield from documents_cautions(table, f"{name}.parquet rests")
    if left:
        yield f"Too large for this page, and only in the folder: {', '.join(left)}."


def _figures(held: Held) -> tuple[list[dict[str, str]], list[str]]:
    """Figures as images inside the page (nothing in an image can run or load), and the names of those that did not fit."""
    figures, left, room = [], [], FIGURES
    for name, data in held.figures.items():
        if len(data) > room:
            left.append(f"{name}.svg")
            continue
        room -= len(data)
        text = base64.b64encode(data).decode()
        method = str(held.runs.get(f"{name}.parquet", next(iter(held.runs.values()))).get("method") or "")
        where = f"table {name}.parquet" if name in held.tables else "tables"
        alt = f"Figure {name} of the run ({method}). {QUESTIONS.get(method, '')} Its numbers are in the {where} below."
        figures.append(
            {
                "data": f"data:image/svg+xml;base64,{text}",
                "alt": alt,
                "caption": f"{name}.svg. {QUESTIONS.get(method, '')}",
            }
        )
    return figures, left
