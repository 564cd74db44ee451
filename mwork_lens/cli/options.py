"""The options that commands share, and the app they belong to. Heavy imports happen inside the commands."""

import math
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How does a language model handle many languages?",
)

MODEL = "organism"
"""The embedded default; `models.EMBEDDED_MODEL`, without what that imports."""
Model = Annotated[str, typer.Option(help="organism or polyglot (embedded), a local Hugging Face folder, or a hub id.")]
Corpora = Annotated[str, typer.Option(help="embedded, organism, or a folder of en.txt, de.jsonl and the like.")]
Languages = Annotated[
    str | None, typer.Option(help="Codes separated by commas, such as en,de,fr; default all there are.")
]  # typer on Python 3.10
Limit = Annotated[Optional[int], typer.Option(min=1, help="Documents per language at most.")]  # noqa: UP045
Revision = Annotated[Optional[str], typer.Option(help="Hub revision.")]  # noqa: UP045
Dtype = Annotated[Optional[str], typer.Option(help="float32, bfloat16, ...; default the checkpoint's.")]  # noqa: UP045
Device = Annotated[Optional[str], typer.Option(help="cpu, cuda, ...")]  # noqa: UP045
DeviceMap = Annotated[Optional[str], typer.Option(help="Such as auto: one model over several devices.")]  # noqa: UP045
Length = Annotated[Optional[int], typer.Option(min=2, help="Tokens per document at most.")]  # noqa: UP045
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run that --out holds.")]
Part = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Which documents: 2/3 is the second of three equal parts, the same passages in every language; default all."
    ),
]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]


def codes(languages: str | None) -> list[str] | None:
    """The codes of `--languages`."""
    return None if languages is None else [code.strip() for code in languages.split(",") if code.strip()]


def take(texts: dict, part: str | None) -> dict:
    """The documents that `--part` names.

    Raises:
        ValueError: It is not written as i/n.
    """
    if part is None:
        return texts
    try:
        index, of = (int(number) for number in part.split("/"))
    except ValueError:
        raise ValueError(f"--part {part!r}: write i/n, such as 1/3 for the first of three parts") from None
    if not 1 <= index <= of:
        raise ValueError(f"--part {part!r}: there are parts 1/{of} to {of}/{of}")
    return {language: corpus.shard(index - 1, of) for language, corpus in texts.items()}


def numbers(text: str, option: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
        ValueError: Something else.
    """
    try:
        found = [float(number) for number in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(number) for number in found):
        raise ValueError(f"{option} {text!r}: give numbers separated by commas, such as 1,2,4")
    return found


def load_sets(path: Path) -> dict[str, Any]:
    """Neuron sets per language, as `lape` and `detect` save them.

    Raises:
        ValueError: The file holds something else.
        FileNotFoundError: There is none.
    """
    from ..neurons import NeuronSet
    from ..storage import load

    sets = load(path)
    if not isinstance(sets, dict) or not all(isinstance(held, NeuronSet) for held in sets.values()):
        raise ValueError(
            f"{path} holds no neuron sets per language: give neurons.safetensors of `lape`, or specific.safetensors of `detect`"
        )
    return sets
