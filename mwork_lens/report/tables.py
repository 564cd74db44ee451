"""The tables of the page, and how a recorded value is written there.

What could not be measured is a dash, in every table.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..plots import language_name
from ..plots.style import stage_name
from ..sites import SITES
from ..stages import Stages
from ..written import UNKNOWN, interval, number, sensible_digits, written_p

_STRUCTURES = {"attention": "attention", "ffn": "FFN", "both": "both"}
_CONDITIONS = {"own": "own", "other": "another’s", "random": "random"}


class Cell(NamedTuple):
    """A table cell: its text, and how it looks (`n` numbers, `h` row heading, `h again` one that repeats the heading above it)."""

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


def summary_table(summary: pd.DataFrame) -> Table:
    """What switching neurons off changes, averaged over the target languages."""
    own = summary[summary["neurons"] == "own"]
    digits = sensible_digits(own["non_eng_low"], own["non_eng_high"])

    def row(found: Any) -> list[Cell]:
        tested = found["neurons"] == "own"  # the others are what it is compared with
        p = [_n(written_p(found[column])) if tested else _n("") for column in ("p_non_eng", "p_delta")]
        measured = _measured(found, ("non_eng", "eng", "delta"), digits)
        return [Cell(_CONDITIONS.get(found["neurons"], found["neurons"])), _count(found["count"]), *measured, *p]

    head = _head("structure", "neurons off", "count", "the languages", "English", "Δ", "p harm", "p Δ")
    caption = (
        "Change of the mean log-likelihood in nats per token, averaged over the target languages, with 95% intervals; "
        "for random sets: mean and [smallest, largest] draw."
    )
    return Table(head, list(_grouped(summary, row)), caption)


def language_tables(grid: pd.DataFrame) -> Iterator[tuple[str, Table]]:
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

        head = _head(
            "structure", "neurons off", "count", language_name(str(language)), "English", "Δ", "draws as harmful"
        )
        caption = (
            "Change of the mean log-likelihood in nats per token with 95% intervals (paired bootstrap over documents); for random sets: mean and "
            "[smallest, largest] draw. Last column: random draws that harm the language at least as much as its own neurons."
        )
        yield str(language), Table(head, list(_grouped(_with_mean_draw(part), row)), caption)


def counts_table(counts: pd.DataFrame, stages: Stages) -> Table:
    """How many neurons each language has, by site and by stage."""
    sites = [site for site in SITES if site in set(counts["site"])]
    rows = []
    for language, part in counts.groupby("language", sort=False):
        by_site = part.groupby("site")["count"].sum()
        total, units = int(part["count"].sum()), int(part["width"].sum())
        in_stage = [part.loc[part["layer"].isin(list(layers)), "count"].sum() for _, layers in stages.items()]
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
        *(_n(stage_name(n)) for n, _ in stages.items()),
    ]
    return Table(head, rows, "Language-specific neurons by site (summed over layers) and by stage (summed over sites).")


def corpora_table(corpora: Mapping[str, Any]) -> Table | None:
    """What is recorded of the texts of each language; none if nothing is."""
    if not corpora:
        return None
    columns = list(dict.fromkeys(key for facts in corpora.values() if isinstance(facts, Mapping) for key in facts))
    rows = []
    for language, facts in corpora.items():
        facts = facts if isinstance(facts, Mapping) else {}
        values = (facts.get(column) for column in columns)
        rows.append(Row([Cell(language_name(str(language)), "h"), *(Cell(plain(value)) for value in values)]))
    return Table([Cell("language"), *(Cell(column) for column in columns)], rows, "Texts")


def plain(value: Any) -> str:
    """A recorded value for people: lists with commas, large integers with separators, a dash for what is not there."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "−", 1) if "e" not in f"{value:.6g}" else f"{value:.6g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(plain, value)) or UNKNOWN
    return str(value)


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


def _grouped(table: pd.DataFrame, row: Any) -> Iterator[Row]:
    """Rows with a heading per stage; the structure is seen once, and on every row once they are sorted."""
    stage = structure = None
    for _, found in table.iterrows():
        if found["stage"] != stage:
            yield Row([Cell(stage_name(str(found["stage"])))], "group")
            structure = None
        first = found["structure"] != structure
        stage, structure = found["stage"], found["structure"]
        name = Cell(_STRUCTURES.get(str(structure), str(structure)), "h" if first else "h again")
        yield Row([name, *row(found)], " ".join(["strong"] * (found["neurons"] == "own") + ["first"] * first))


def _measured(row: Any, names: Iterable[str], digits: int) -> Iterator[Cell]:
    """An estimate and its interval, in two cells, for each name."""
    for name in names:
        edges = interval(row[f"{name}_low"], row[f"{name}_high"], digits)
        yield _n(number(row[name], digits, signed=True))
        yield Cell("" if edges == UNKNOWN else edges, "i")


def _head(*names: str) -> list[Cell]:
    """Headings of a table of changes: the three changes take two columns each, counts and shares are set right."""
    return [Cell(name, "two" if 3 <= i <= 5 else "n" if i > 1 else "") for i, name in enumerate(names)]


def _n(text: str) -> Cell:
    return Cell(text, "n")


def _count(value: float) -> Cell:
    """How many neurons; a mean over languages has one decimal if it is not whole."""
    return _n(number(value, 0 if not np.isfinite(value) or float(value).is_integer() or value >= 100 else 1))
