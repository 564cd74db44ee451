"""How to make a run again: the command lines that filled its folder, or a Python snippet from the recorded parameters.

The command line keeps `commands.json` in every folder it writes results to: a list of `{"command", "time"}`, the oldest first.
"""

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path
from typing import Any

COMMANDS = "commands.json"
PROGRAM = "mwork-lens"

_current: ContextVar[tuple[Path, str] | None] = ContextVar("command", default=None)


@contextmanager
def recording(words: Sequence[str], folder: Path | None) -> Iterator[None]:
    """While a command runs, its line is known to the report; afterwards it is kept in its folder, if the command wrote anything there.

    Args:
        words: The command line without the program.
        folder: Where the command writes; None records nothing.
    """
    if folder is None:
        yield
        return
    line, before = shlex.join([PROGRAM, *words]), _state(folder)
    token = _current.set((folder, line))
    try:
        yield
    finally:
        _current.reset(token)
        if folder.is_dir() and _state(folder) != before and (kept := _kept(folder)) != (now := _with(kept, line)):
            from ..storage import write_json

            write_json(folder / COMMANDS, now)


def folder_of(group: Any, ctx: Any, words: list[str]) -> Path | None:
    """The folder that a command writes to: its --out, the one that holds the file of `lens --out`, else the folder it is given; None if it has none,
    or the words are wrong.

    Args:
        group: The commands, a `typer.core.TyperGroup`.
        ctx: The context of the call.
        words: The command line without the program.
    """
    command: Any = group
    rest = list(words)
    while hasattr(command, "commands"):
        command = command.commands.get(rest.pop(0)) if rest else None
    if command is None or command.name in ("report", "doctor") or "--help" in rest:
        return None
    try:
        given = command.make_parser(type(ctx)(command, parent=ctx)).parse_args(rest)[0]
    except Exception:  # the command itself will say so
        return None
    places = {option.name: option.default for option in command.params if option.name in ("out", "folder")}
    place = given.get("out") or places.get("out") or (given.get("folder") if "out" not in places else None)
    if not isinstance(place, (str, Path)):
        return None
    return Path(place).parent if command.name == "lens" else Path(place)


def commands(folder: str | Path | None, parameters: Mapping[str, Any] | None = None) -> list[str]:
    """The command lines that made a folder, in order; the one that is making it now included.

    Args:
        folder: Folder of a run; None for a run in memory.
        parameters: Of its `Run`; a `command` in them is what a caller recorded.
    """
    given = (
        next((parameters[name] for name in ("command", "command_line", "argv") if (parameters or {}).get(name)), None)
        if parameters
        else None
    )
    found = [] if given is None else [given if isinstance(given, str) else shlex.join(map(str, given))]
    if folder is None:
        return found
    kept = _kept(Path(folder))
    now = _current.get()
    if now is not None and now[0].resolve() == Path(folder).resolve():
        kept = _with(kept, now[1])
    return [*found, *(entry["command"] for entry in kept if entry["command"] not in found)]


def snippet(run: Mapping[str, Any]) -> str | None:
    """Python that makes a study again from its recorded parameters; None for a run of another method.

    Args:
        run: The `Run`, as `to_json` gives it.
    """
    from ..grid import Settings

    if run.get("method") != "study":
        return None
    model, parameters, corpora = (run.get(name) or {} for name in ("model", "parameters", "corpora"))
    how = "".join(f", {name}={model[name]!r}" for name in ("revision", "dtype") if model.get(name))
    names = {field.name for field in fields(Settings)}
    choices = {
        name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items() if name in names
    }
    stages = parameters.get("stages")
    lines = [
        "import mwork_lens as mw",
        "from mwork_lens.grid import Settings",
        "",
        f"model = mw.load_model({model.get('name', 'organism')!r}{how})",
        *_corpora(corpora),
        *_same_texts(corpora),
        f"settings = Settings({', '.join(f'{name}={value!r}' for name, value in choices.items())})",
    ]
    split = '"lens"'
    if isinstance(stages, (list, tuple)) and len(stages) == 3:
        split = f"mw.Stages.of({sum(stages)}, understanding={stages[0]}, generation={stages[2]})"
    return "\n".join([*lines, f'mw.study(model, corpora, {split}, settings=settings, out="mwork-study")'])


def _corpora(corpora: Mapping[str, Any]) -> Iterator[str]:
    """One call if all languages have one source and as many documents, else one call per language."""
    held = {str(x): facts if isinstance(facts, Mapping) else {} for x, facts in corpora.items()}
    kinds = {(facts.get("source"), facts.get("documents")) for facts in held.values()}
    if not kinds or any(source in (None, "memory", "datasets") for source, _ in kinds):
        yield f"corpora = mw.load_corpora(texts)  # given in memory, in {', '.join(map(repr, held))}: `texts` maps language to texts"
    elif len(kinds) == 1:
        source, documents = next(iter(kinds))
        yield f"corpora = mw.load_corpora({source!r}, {list(held)!r}, limit={documents!r})"
    else:
        yield "corpora = {}"
        for language, facts in held.items():
            yield f"corpora |= mw.load_corpora({facts.get('source')!r}, [{language!r}], limit={facts.get('documents')!r})"


def _same_texts(corpora: Mapping[str, Any]) -> Iterator[str]:
    """Lines that stop where the texts are not the recorded ones: a source is recorded, but not which part of it was taken."""
    hashes = {str(x): facts["hash"] for x, facts in corpora.items() if isinstance(facts, Mapping) and facts.get("hash")}
    if hashes:
        yield f"recorded = {hashes!r}"
        yield "other = [language for language in recorded if corpora[language].fingerprint != recorded[language]]"
        yield "if other:  # such as another part of the same source: see Corpus.shard and Corpus.split"
        yield '    raise SystemExit(f"these are not the documents of the recorded run: {other}")'


def _with(kept: list[dict[str, str]], line: str) -> list[dict[str, str]]:
    """The record with one more line; a run that is resumed or repeated stays where it is."""

    def bare(command: str) -> list[str]:
        return [word for word in shlex.split(command) if word != "--resume"]

    if any(bare(entry["command"]) == bare(line) for entry in kept):
        return kept
    return [*kept, {"command": line, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}]


def _kept(folder: Path) -> list[dict[str, str]]:
    """What a folder's record says; nothing if there is none or it is damaged."""
    try:
        found = json.loads((folder / COMMANDS).read_text(encoding="utf-8"))
        return [dict(entry) for entry in found if isinstance(entry["command"], str) and shlex.split(entry["command"])]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _state(folder: Path) -> dict[str, int]:
    """When each entry of a folder was last written."""
    if not folder.is_dir():
        return {}
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != COMMANDS}
