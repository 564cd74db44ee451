"""One self-contained HTML page for a study.

The page needs no network, no JavaScript and no file beside it: figures are inline SVG, styles are in the page. What was found comes first, in
words; every number after it has its interval, and what could not be measured is a dash. Everything that comes from data is escaped. The same
study gives the same page, byte for byte.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from .neurons import NeuronSet
from .plots import deltas, language_name, layer_counts, lens_curves, overlap_heatmap, require_columns, svg
from .sites import SITES
from .stages import Stages
from .storage import Run, write_text

UNKNOWN = "–"
"""What stands where there is no number."""

_STRUCTURES = {"attention": "attention", "ffn": "FFN", "both": "both"}
_CONDITIONS = {"own": "own", "other": "another’s", "random": "random"}
_ENDS = ("", "_low", "_high")
_GRID = ["language", "stage", "structure", "neurons", "of", "draw", "count",
         *(f"{name}{end}" for name in ("english", "own", "delta") for end in _ENDS)]  # fmt: skip
_SUMMARY = ["stage", "structure", "neurons", "count", *(f"{name}{end}" for name in ("eng", "non_eng", "delta") for end in _ENDS),
            "p_non_eng", "p_delta", "draws"]  # fmt: skip


class Studied(Protocol):
    """What a page is made of; `study.Study` is one."""

    stages: Stages
    lens: pd.DataFrame
    consistent: Mapping[str, NeuronSet]
    specific: Mapping[str, NeuronSet]
    counts: pd.DataFrame
    overlap: pd.DataFrame
    grid: pd.DataFrame
    summary: pd.DataFrame
    findings: tuple[str, ...]
    run: Run


class Cell(NamedTuple):
    """A table cell: its text, and how it looks (`n` numbers, `h` row heading)."""

    text: str
    look: str = ""


class Row(NamedTuple):
    """A table row; a `group` row is a heading that spans the table, `strong` one is what the table is about."""

    cells: Sequence[Cell]
    look: str = ""


class Table(NamedTuple):
    """A table as the page shows it: column headings and rows."""

    head: Sequence[Cell]
    rows: Sequence[Row]
    caption: str


def render(study: Any) -> str:
    """The page of a study, as text.

    Args:
        study: A `Study`, or anything with its attributes (`Studied`).

    Raises:
        ValueError: A table is empty or lacks a column; the message names them.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    require_columns(study.grid, _GRID, "grid", "study")
    require_columns(study.summary, _SUMMARY, "summary", "summarise")
    require_columns(study.counts, ["language", "site", "layer", "count", "width"], "counts", "analysis.layer_counts")
    figures = {name: Markup(svg(figure)) for name, figure in _figures(study).items()}  # matplotlib escaped it
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (resources.files("mwork_lens") / "data" / "report.html.j2").read_text(encoding="utf-8")
    run = study.run.to_json()
    facts = _facts(study, run)
    return environment.from_string(source).render(
        model=_model_name(run),
        date=str(run.get("time") or "")[:10] or "date unknown",
        facts=facts,
        findings=study.findings,
        figures=figures,
        k=run["parameters"].get("k"),
        stages=[(name.replace("_", "-"), _layers(layers)) for name, layers in study.stages.items()],
        last=study.stages.n_layers,
        counts=_counts_table(study),
        summary=_summary_table(study.summary),
        draws=_draws(study.summary),
        languages=[(language_name(language), table) for language, table in _language_tables(study.grid)],
        single=study.grid["language"].nunique() == 1,
        provenance=list(_provenance(run)),
        corpora=_corpora_table(run.get("corpora") or {}),
    )


def write_report(study: Any, path: str | Path) -> Path:
    """Write the page of a study, atomically.

    Args:
        study: A `Study`, or anything with its attributes.
        path: The file to write, such as `report.html`.

    Raises:
        ValueError: As `render`.
        OSError: The file cannot be written; what was there before is kept.
    """
    page = render(study)
    return write_text(path, page)


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A number for people: a true minus sign, no sign on what rounds to zero, a dash for nan."""
    if not np.isfinite(value):
        return UNKNOWN
    text = f"{abs(value):,.{digits}f}"
    sign = "−" if value < 0 else "+" if signed else ""
    return (sign if text.strip("0.,") else "") + text


def interval(low: float, high: float, digits: int = 3) -> str:
    """`[low, high]`; a dash if either is unknown."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return UNKNOWN
    return f"[{number(low, digits)}, {number(high, digits)}]"


def sensible_digits(low: pd.Series, high: pd.Series) -> int:
    """Decimals for a column of estimates: two significant digits of the typical half-width of their intervals, between 2 and 5."""
    half = ((high - low).abs() / 2).replace(0, np.nan).median()
    return int(np.clip(1 - np.floor(np.log10(half)), 2, 5)) if np.isfinite(half) else 3


def _figures(study: Any) -> dict[str, Any]:
    return {
        "share": lens_curves(study.lens, "share", stages=study.stages)[0].figure,
        "mass": lens_curves(study.lens, "mass", stages=study.stages)[0].figure,
        "counts": layer_counts(study.counts, stages=study.stages)[0].figure,
        "overlap": overlap_heatmap(study.overlap).figure,
        "deltas": deltas(study.summary, stages=study.stages).figure,
    }


def _model_name(run: Mapping[str, Any]) -> str:
    return str((run.get("model") or {}).get("name") or "a language model")


def _layers(layers: range) -> str:
    return f"layer {layers.start}" if len(layers) == 1 else f"layers {layers.start}–{layers.stop - 1}"


def _stage_name(stage: str) -> str:
    return "all layers" if stage == "all" else stage.replace("_", "-")


def _facts(study: Any, run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The study at a glance, under the title."""
    documents = sum(int(corpus.get("documents", 0)) for corpus in (run.get("corpora") or {}).values())
    facts = [
        ("Layers", str(study.stages.n_layers)),
        ("Languages", ", ".join(map(str, study.counts["language"].unique()))),
        *([("Documents", f"{documents:,}")] if documents else []),
        ("Random controls", _draws(study.summary)),
    ]
    if parameters := (run.get("model") or {}).get("parameters"):
        facts.insert(0, ("Parameters", _short(int(parameters))))
    return facts


def _short(count: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,}"


def _draws(summary: pd.DataFrame) -> str:
    draws = summary["draws"].max()
    return f"{int(draws)}" if np.isfinite(draws) and draws else UNKNOWN


def _n(text: str) -> Cell:
    return Cell(text, "n")


def _measured(row: Any, names: Iterable[str], digits: int) -> Iterator[Cell]:
    """An estimate and its interval, in two cells, for each name."""
    for name in names:
        edges = interval(row[f"{name}_low"], row[f"{name}_high"], digits)
        yield _n(number(row[name], digits, signed=True))
        yield Cell("" if edges == UNKNOWN else edges, "i")


def _count(value: float) -> Cell:
    """How many neurons; a mean over languages has one decimal if it is not whole."""
    return _n(number(value, 0 if not np.isfinite(value) or float(value).is_integer() or value >= 100 else 1))


def _probability(value: float) -> Cell:
    return _n(number(value, 2) if not 0 < value < 0.005 else number(value, 3))


def _grouped(table: pd.DataFrame, row: Any) -> Iterator[Row]:
    """Rows with a heading per stage; the structure is named once."""
    stage = structure = None
    for _, found in table.iterrows():
        if found["stage"] != stage:
            yield Row([Cell(_stage_name(str(found["stage"])))], "group")
            structure = None
        first = found["structure"] != structure
        stage, structure = found["stage"], found["structure"]
        name = Cell(_STRUCTURES.get(str(structure), str(structure)) if first else "", "h")
        yield Row([name, *row(found)], " ".join(["strong"] * (found["neurons"] == "own") + ["first"] * first))


def _summary_table(summary: pd.DataFrame) -> Table:
    own = summary[summary["neurons"] == "own"]
    digits = sensible_digits(own["non_eng_low"], own["non_eng_high"])

    def row(found: Any) -> list[Cell]:
        known = found["neurons"] != "random"
        p = [_probability(found[column]) if known else _n("") for column in ("p_non_eng", "p_delta")]
        measured = _measured(found, ("non_eng", "eng", "delta"), digits)
        return [Cell(_CONDITIONS.get(found["neurons"], found["neurons"])), _count(found["count"]), *measured, *p]

    head = _head("", "neurons off", "count", "the languages", "English", "Δ", "p harm", "p Δ")
    caption = (
        "Change of the mean log-likelihood in nats per token, averaged over the target languages, with 95% intervals; "
        "for random sets: mean and [smallest, largest] draw."
    )
    return Table(head, list(_grouped(summary, row)), caption)


def _language_tables(grid: pd.DataFrame) -> Iterator[tuple[str, Table]]:
    """Per target language, its own part of the grid; the random draws as their mean and range."""
    for language, part in grid.groupby("language", sort=False):
        own = part[part["neurons"] == "own"]
        digits = sensible_digits(own["own_low"], own["own_high"])

        def row(found: Any, digits: int = digits) -> list[Cell]:
            name = (
                f"of {found['of']}"
                if found["neurons"] == "other"
                else _CONDITIONS.get(found["neurons"], found["neurons"])
            )
            measured = _measured(found, ("own", "english", "delta"), digits)
            return [Cell(name), _count(found["count"]), *measured, _n(found["beyond"])]

        head = _head("", "neurons off", "count", language_name(str(language)), "English", "Δ", "draws as harmful")
        caption = (
            "Change of the mean log-likelihood in nats per token with 95% intervals (paired bootstrap over documents); for random sets: mean and "
            "[smallest, largest] draw. Last column: random draws that harm the language at least as much as its own neurons."
        )
        yield str(language), Table(head, list(_grouped(_with_mean_draw(part), row)), caption)


def _with_mean_draw(part: pd.DataFrame) -> pd.DataFrame:
    """One language's grid with the draws of each cell as one row, and `beyond`: how many draws harm at least as much as the own neurons."""
    rows: list[dict[str, Any]] = []
    for (stage, structure), cell in part.groupby(["stage", "structure"], sort=False):
        random = cell[cell["neurons"] == "random"]
        draws = random["own"].dropna()
        for _, found in cell[cell["neurons"] != "random"].iterrows():
            known = found["neurons"] == "own" and np.isfinite(found["own"]) and len(draws)
            rows.append({**found, "beyond": f"{int((draws <= found['own']).sum())} of {len(draws)}" if known else ""})
        if len(random):
            mean = {
                "stage": stage,
                "structure": structure,
                "neurons": "random",
                "count": random["count"].mean(),
                "beyond": "",
            }
            for name in ("english", "own", "delta"):
                mean |= {
                    name: random[name].mean(),
                    f"{name}_low": random[name].min(),
                    f"{name}_high": random[name].max(),
                }
            rows.append(mean)
    return pd.DataFrame(rows)


def _head(*names: str) -> list[Cell]:
    """Headings of a table of changes: the three changes take two columns each, counts and shares are set right."""
    return [Cell(name, "two" if 3 <= i <= 5 else "n" if i > 1 else "") for i, name in enumerate(names)]


def _counts_table(study: Any) -> Table:
    counts = study.counts
    sites = [site for site in SITES if site in set(counts["site"])]
    stages = list(study.stages.items())
    rows = []
    for language, part in counts.groupby("language", sort=False):
        by_site = part.groupby("site")["count"].sum()
        total, units = int(part["count"].sum()), int(part["width"].sum())
        in_stage = [part.loc[part["layer"].isin(list(layers)), "count"].sum() for _, layers in stages]
        cells = [*(by_site.get(site, 0) for site in sites), total]
        rows.append(Row([
            Cell(language_name(str(language)), "h"), *(_n(f"{int(c):,}") for c in cells),
            _n(f"{100 * total / units:.2f}%" if units else UNKNOWN), *(_n(f"{int(c):,}") for c in in_stage),
        ]))  # fmt: skip
    names = {"ffn": "FFN", "ffn_gate": "FFN gate"}
    head = [
        Cell("language"),
        *(_n(names.get(s, s)) for s in sites),
        _n("all"),
        _n("of all units"),
        *(_n(_stage_name(n)) for n, _ in stages),
    ]
    return Table(head, rows, "Language-specific neurons by site (summed over layers) and by stage (summed over sites).")


def _corpora_table(corpora: Mapping[str, Any]) -> Table | None:
    if not corpora:
        return None
    columns = list(dict.fromkeys(key for facts in corpora.values() if isinstance(facts, Mapping) for key in facts))
    rows = []
    for language, facts in corpora.items():
        facts = facts if isinstance(facts, Mapping) else {}
        values = (facts.get(column) for column in columns)
        rows.append(Row([Cell(language_name(str(language)), "h"), *(Cell(_plain(value)) for value in values)]))
    return Table([Cell("language"), *(Cell(column) for column in columns)], rows, "Texts")


def _provenance(run: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(heading, key and value) of everything a `Run` records besides the corpora."""
    parameters = dict(run.get("parameters") or {})
    made = {
        "method": run.get("method"),
        "time (UTC)": run.get("time"),
        "seed": run.get("seed"),
        "git commit": run.get("git_commit"),
    }
    for name in ("command", "command_line", "argv"):
        if name in parameters or name in run:
            made["command line"] = parameters.pop(name, None) or run.get(name)
    groups = {"run": made, "model": run.get("model"), "parameters": parameters, "versions": run.get("versions")}
    for name, values in groups.items():
        if values:
            yield name, [(key, _plain(value)) for key, value in _flat(values)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "−", 1) if "e" not in f"{value:.6g}" else f"{value:.6g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(_plain, value)) or UNKNOWN
    return str(value)
