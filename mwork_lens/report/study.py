"""One self-contained HTML page for a study; `folder` makes that of any other run.

The page needs no network and no file beside it; a content security policy forbids what it does not need. Without JavaScript it is complete:
figures are inline SVG, which is also what prints. With it, tables sort and figures have an interactive version, drawn by plotly, whose script is
in the page once. The answer comes first, in two sentences. Changes, shares and probabilities in tables and figures have their intervals, and effects
their random control beside them; counts and overlaps have neither. What could not be measured is a dash. Everything that comes from data is escaped.
The same study gives the same page, byte for byte.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from ..findings import is_caution
from ..neurons import NeuronSet
from ..plots import deltas, language_name, layer_counts, lens_curves, overlap_heatmap, require_columns, svg
from ..plots.interactive import DARK, bundle, lens_plot
from ..plots.interactive_effects import deltas_plot
from ..plots.interactive_neurons import counts_plot, overlap_plot
from ..plots.style import layers_name, stage_name
from ..stages import Stages
from ..storage import Run, write_text
from ..written import UNKNOWN
from .answer import answer, cautions, draws_asked
from .command import commands, snippet
from .page import day, documents, fill, keys, model_name, provenance, short, within_limit
from .tables import corpora_table, counts_table, language_tables, summary_table

_ENDS = ("", "_low", "_high")
_GRID = ["language", "stage", "structure", "neurons", "of", "draw", "count",
         *(f"{name}{end}" for name in ("english", "own", "delta") for end in _ENDS)]  # fmt: skip
_SUMMARY = ["stage", "structure", "neurons", "count", *(f"{name}{end}" for name in ("eng", "non_eng", "delta") for end in _ENDS),
            "p_non_eng", "p_delta", "draws"]  # fmt: skip


class Studied(Protocol):
    """What a page is made of; `study.Study` is one. Its `folder` and `failures` are shown if it has them."""

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


def render(study: Any, *, interactive: bool = True) -> str:
    """The page of a study, as text.

    Args:
        study: A `Study`, or anything with its attributes (`Studied`).
        interactive: With plotly's script (4.8 MB) and the interactive figures; without, the page has a tenth of the size.

    Raises:
        ValueError: A table is empty or lacks a column, which the message names; the page would be too large.
    """
    from markupsafe import Markup

    require_columns(study.grid, _GRID, "grid", "study")
    require_columns(study.summary, _SUMMARY, "summary", "summarise")
    require_columns(study.counts, ["language", "site", "layer", "count", "width"], "counts", "analysis.layer_counts")
    figures = {name: Markup(svg(figure)) for name, figure in _figures(study).items()}  # matplotlib escaped it
    run = study.run.to_json()
    draws = draws_asked(study.summary, run)
    page = fill(
        kind="study",
        title=f"How does {model_name(run)} handle many languages?",
        made=f"A study with mwork_lens, {day(run)}",
        model=model_name(run),
        facts=_facts(study, run, draws),
        answer=answer(study.lens, study.summary),
        findings=[finding for finding in study.findings if not is_caution(finding)],
        warnings=cautions(study, run),
        commands=commands(getattr(study, "folder", None), run.get("parameters")),
        snippet=snippet(run),
        figures=figures,
        plots=_plots(study) if interactive else {},
        dark=DARK,
        plotly=Markup(bundle()) if interactive else "",
        k=run["parameters"].get("k"),
        stages=[(stage_name(name), layers_name(layers)) for name, layers in study.stages.items()],
        last=study.stages.n_layers,
        counts=counts_table(study.counts, study.stages),
        summary=summary_table(study.summary),
        draws=draws,
        tested=bool(study.summary["p_delta"].notna().any()),
        languages=[(language_name(language), table) for language, table in language_tables(study.grid)],
        single=study.grid["language"].nunique() == 1,
        asked=keys("Model", run["model"]) if run.get("model") else None,
        provenance=[table for table in provenance(run) if table.caption != "Model"],
        corpora=corpora_table(run.get("corpora") or {}),
    )
    return within_limit(page, "this study", "leave out the interactive figures (interactive=False, --no-interactive)")


def write_report(study: Any, path: str | Path, *, interactive: bool = True) -> Path:
    """Write the page of a study, atomically.

    Args:
        study: A `Study`, or anything with its attributes.
        path: The file to write, such as `report.html`.
        interactive: As in `render`.

    Raises:
        ValueError: As `render`.
        OSError: The file cannot be written; what was there before is kept.
    """
    page = render(study, interactive=interactive)
    return write_text(path, page)


def _figures(study: Any) -> dict[str, Any]:
    return {
        "share": lens_curves(study.lens, "share", stages=study.stages)[0].figure,
        "mass": lens_curves(study.lens, "mass", stages=study.stages)[0].figure,
        "counts": layer_counts(study.counts, stages=study.stages)[0].figure,
        "overlap": overlap_heatmap(study.overlap).figure,
        "deltas": deltas(study.summary, stages=study.stages).figure,
    }


def _plots(study: Any) -> dict[str, Any]:
    return {
        "share": lens_plot(study.lens, "share", stages=study.stages),
        "mass": lens_plot(study.lens, "mass", stages=study.stages),
        "counts": counts_plot(study.counts, stages=study.stages),
        "overlap": overlap_plot(study.overlap),
        "deltas": deltas_plot(study.summary, stages=study.stages),
    }


def _facts(study: Any, run: Mapping[str, Any], draws: int) -> list[tuple[str, str]]:
    """The study at a glance, under the title."""
    facts = [
        ("Layers", str(study.stages.n_layers)),
        ("Languages", ", ".join(map(str, study.counts["language"].unique()))),
        *([("Documents", f"{count:,}")] if (count := documents(run)) else []),
        ("Random controls", str(draws or UNKNOWN)),
    ]
    if parameters := (run.get("model") or {}).get("parameters"):
        facts.insert(0, ("Parameters", short(int(parameters))))
    return facts
