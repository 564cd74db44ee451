"""Tasks as files: JSON lines, one item a line; read whole and checked before anything is computed.

    {"task": {"name": "capitals", "ability": "knowledge", "how": "choose"}}                          settings, optional, first line only
    {"id": "f1", "language": "en", "prompt": "The capital of Peru is", "answers": ["Lima"], "choices": ["Lima", "Quito"], "meta": {"split": "test"}}

Fields of an item: id (string or number), language, prompt, answers (list), and if wanted choices (list), meta (object), glue (string). Settings:
name, ability, how, metric, stop, max_new_tokens; an argument of `load_task` wins over the first line. Without either, the name is that of the
file, and items are chosen from if all have choices, generated if none has. An error names file, line and field.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from ..languages import require_language
from ..storage import write_text
from .task import Ability, How, Item, Task

_FIELDS = {
    "id": (str, int),
    "language": str,
    "prompt": str,
    "answers": list,
    "choices": list,
    "meta": dict,
    "glue": str,
}
_REQUIRED = ("id", "language", "prompt", "answers")
_SETTINGS = {"name": str, "ability": str, "how": str, "metric": str, "stop": list, "max_new_tokens": int}
_KINDS = {str: "a string", int: "a number", list: "a list", dict: "an object", (str, int): "a string or a number"}


def embedded_folder() -> Path:
    """Where the embedded tasks lie: `<world>/<name>.jsonl`."""
    return Path(str(resources.files("mwork_lens") / "data" / "tasks"))


def embedded_tasks() -> tuple[str, ...]:
    """Names of the tasks in this package, such as `organism/knowledge`."""
    folder = embedded_folder()
    return tuple(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.jsonl")))


def load_task(
    source: str | Path,
    *,
    languages: Sequence[str] | None = None,
    name: str | None = None,
    ability: Ability | None = None,
    how: How | None = None,
    metric: str | None = None,
    stop: Sequence[str] | None = None,
    max_new_tokens: int | None = None,
) -> Task:
    """A task from a file, or one of the embedded ones by its name.

    Args:
        source: Path of a `.jsonl` file, or a name of `embedded_tasks()`, such as `organism/knowledge`.
        languages: Which to keep, in this order; default all.
        name: Of the task.
        ability: understanding, reasoning, knowledge or generation; needed here or in the first line.
        how: choose, generate or loglik.
        metric: The primary score.
        stop: Strings at which generated text ends.
        max_new_tokens: Tokens to generate at most.

    Raises:
        FileNotFoundError: There is no such file, or no embedded task of that name.
        ValueError: The file is not UTF-8, a line is no JSON object, a field is missing, unknown, of the wrong type or without content, an answer
            is not among the choices, only some items have choices and no `how` is given, an id is twice in a language, a setting is missing or
            wrong, or the task does not have a language.
    """
    path = _path(source)
    lines = _lines(path)
    settings: dict[str, Any] = {"name": path.stem}
    if lines and set(lines[0][1]) == {"task"}:
        settings |= _settings(lines[0][1]["task"], f"{path}, line {lines[0][0]}")
        lines = lines[1:]
    given = {
        "name": name,
        "ability": ability,
        "how": how,
        "metric": metric,
        "stop": stop,
        "max_new_tokens": max_new_tokens,
    }
    settings |= {key: value for key, value in given.items() if value is not None}
    items: dict[tuple[str, str], Item] = {}
    without: dict[bool, int] = {}  # whether an item has no choices -> the first such line
    for number, record in lines:
        item = _item(record, f"{path}, line {number}")
        if (item.language, item.id) in items:
            raise ValueError(
                f"{path}, line {number}: field 'id': {item.id!r} is there twice in {item.language!r}; ids must differ"
            )
        items[item.language, item.id] = item
        without.setdefault(not item.choices, number)
    if not items:
        raise ValueError(f"{path} holds no items: it needs at least one")
    if "ability" not in settings:
        raise ValueError(
            f'{path}: no ability is given: begin the file with {{"task": {{"ability": "knowledge"}}}}, or pass ability="knowledge"'
        )
    if "how" not in settings and len(without) == 2:
        raise ValueError(
            f"{path}, line {without[True]}: field 'choices' is missing, and other items have it: give it, or say how they are asked (how='generate')"
        )
    settings.setdefault("how", "generate" if True in without else "choose")
    if isinstance(stop, str):
        raise ValueError(f"stop={stop!r} is one string: give a list of strings")
    try:
        task = Task(items=tuple(items.values()), **{**settings, "stop": tuple(settings.get("stop", ("\n",)))})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return task if languages is None else task.only(languages)


def save_task(task: Task, path: str | Path) -> Path:
    """Write a task as `load_task` reads it: settings first, then one item a line.

    Raises:
        ValueError: The ending is not `.jsonl`, or `meta` holds something that is no JSON value.
        OSError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise ValueError(f"a task is stored as .jsonl: rename {path.name!r} to {path.stem + '.jsonl'!r}")
    rows: list[dict[str, Any]] = [{"task": {key: getattr(task, key) for key in _SETTINGS}}]
    for item in task.items:
        held = asdict(item)
        rows.append({key: value for key, value in held.items() if key not in ("choices", "meta") or value})
    try:
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"task {task.name!r} cannot be written as JSON ({error}): keep json values in `meta`"
        ) from error
    return write_text(path, text)


def _path(source: str | Path) -> Path:
    if isinstance(source, Path) or source.endswith(".jsonl"):
        if not Path(source).is_file():
            raise FileNotFoundError(f"no file {source} for a task: check the path")
        return Path(source)
    names = embedded_tasks()
    if source not in names:
        raise FileNotFoundError(
            f"no embedded task {source!r}: there are {', '.join(names) or 'none'}; for a file of yours give a path that ends in .jsonl"
        )
    return embedded_folder() / f"{source}.jsonl"


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not blank."""
    found = []
    for number, line in enumerate(decode(path).split("\n"), 1):
        if line.strip():
            found.append((number, json_object(line, f"{path}, line {number}")))
    return found


def decode(path: Path) -> str:
    """Text of a UTF-8 file, without a byte order mark.

    Raises:
        ValueError: It is not UTF-8; the message names the byte.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(error.object)  # a byte order mark in front is not counted by the decoder
        raise ValueError(f"{path} is not UTF-8: byte {at} is 0x{data[at]:02x}. Convert the file to UTF-8") from error


def json_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: It is something else; the message begins with `where`.
    """
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg}, column {error.colno})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
    return record


def _item(record: dict[str, Any], where: str) -> Item:
    for name in _REQUIRED:
        if name not in record:
            raise ValueError(f"{where}: field {name!r} is missing; an item needs {', '.join(_REQUIRED)}")
    _check(record, _FIELDS, where)
    for name in ("answers", "choices"):
        if wrong := [text for text in record.get(name, ()) if not isinstance(text, str)]:
            raise ValueError(f"{where}: field {name!r} must hold strings, got {wrong[0]!r}")
    if record.get("choices") == []:
        raise ValueError(f"{where}: field 'choices' is empty: write them out, or leave the field out")
    try:
        require_language(record["language"])
        return Item(
            str(record["id"]),
            record["language"],
            record["prompt"],
            tuple(record["answers"]),
            tuple(record.get("choices", ())),
            record.get("meta", {}),
            record.get("glue"),
        )
    except ValueError as error:
        at = "field 'language': " if str(error).startswith("unknown language") else ""
        raise ValueError(f"{where}: {at}{error}") from error


def _settings(held: Any, where: str) -> dict[str, Any]:
    if not isinstance(held, dict):
        raise ValueError(f"{where}: field 'task' must be an object with settings, got {held!r}")
    _check(held, _SETTINGS, where)
    if any(not isinstance(end, str) for end in held.get("stop", ())):
        raise ValueError(f"{where}: field 'stop' must hold strings, got {held['stop']!r}")
    return held


def _check(record: dict[str, Any], known: dict[str, Any], where: str) -> None:
    """Refuse unknown fields, and known ones of another type."""
    for name, value in record.items():
        if name not in known:
            raise ValueError(f"{where}: unknown field {name!r}; there are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, known[name]):
            raise ValueError(f"{where}: field {name!r} must be {_KINDS[known[name]]}, got {value!r}")
