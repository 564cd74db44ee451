"""What the command line says: tables, findings, errors. Only this file prints."""

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import typer


def say(message: str) -> None:
    """A line on standard output."""
    typer.echo(message)


def warn(message: str) -> None:
    """A line on standard error that stops nothing."""
    typer.echo(f"warning: {message}", err=True)


def fail_on(failures: Any) -> None:
    """Exit with 1 and the names of the documents that failed."""
    if failures:
        named = [f"{language}/{name}: {why}" for language, names in failures.items() for name, why in names.items()]
        typer.echo(
            f"error: {len(named)} document(s) failed and are left out of the results: {'; '.join(named)}", err=True
        )
        raise typer.Exit(1)


def guarded(run: Callable[[], None], *, resumable: bool = False) -> None:
    """Errors of the user's making are one line; an interruption says what is kept; anything else keeps its traceback."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # threads that wait for each other should spin briefly, then sleep: spinning for long costs a factor of ten on a busy machine
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: warn(str(message))
            run()
    except typer.Exit:  # a RuntimeError of its own, and no error
        raise
    except KeyboardInterrupt:
        kept = ": what was finished is kept - run the same command with --resume to continue" if resumable else ""
        stop(f"interrupted{kept}", 130)
    except (ValueError, OSError, NotImplementedError, ImportError, RuntimeError) as error:
        stop(f"error: {error}", 1)


def stop(message: str, code: int) -> NoReturn:
    """A line on standard error, and the end."""
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


def print_study(result: Any) -> None:
    """The summary table and the findings of a study."""
    from ..findings import change
    from ..written import UNKNOWN, written_p

    rows = [
        [row["stage"].replace("_", "-"), row["structure"], row["neurons"], f"{row['count']:.0f}",
         *(change(row, name, 3) if row[name] == row[name] else UNKNOWN for name in ("eng", "non_eng", "delta")), written_p(row["p_delta"])]
        for _, row in result.summary.iterrows()
    ]  # fmt: skip
    print_table(
        "Change of log-likelihood (nats per token) when neurons are off",
        ["stage", "structure", "neurons", "n", "English", "other languages", "Δ", "p"],
        rows,
    )
    for finding in result.findings:
        say(f"- {finding}")


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table as wide as the terminal, or 140 columns where there is none; brackets in it are brackets, and no markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, style="table.title"), title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
