"""One self-contained HTML page for a study.

The page needs no network, no JavaScript and no file beside it: figures are inline SVG, styles are in the page. What was found comes first, in
words; every number after it has its interval, and what could not be measured is a dash. Everything that comes from data is escaped. The same
study gives the same page, byte for byte.
"""

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from .neurons import NeuronSet
from .plots import deltas, language_name, layer_counts, lens_curves, overlap_heatmap, require_columns, svg
from .plots.style import layers_name, stage_name
from .report_tables import UNKNOWN, corpora_table, counts_table, language_tables, plain, summary_table
from .stages import Stages
from .storage import Run, write_text

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
        stages=[(stage_name(name), layers_name(layers)) for name, layers in study.stages.items()],
        last=study.stages.n_layers,
        counts=counts_table(study.counts, study.stages),
        summary=summary_table(study.summary),
        draws=_draws(study.summary),
        languages=[(language_name(language), table) for language, table in language_tables(study.grid)],
        single=study.grid["language"].nunique() == 1,
        provenance=list(_provenance(run)),
        corpora=corpora_table(run.get("corpora") or {}),
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
            yield name, [(key, plain(value)) for key, value in _flat(values)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
