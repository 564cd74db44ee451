"""JSON as people write it by hand: read with the file and line of whatever is wrong with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class _Twice(ValueError):
    """A key is twice in an object."""


def records(path: Path) -> list[tuple[int, Any]]:
    """(line number, value) of every line that is not blank.

    Raises:
        ValueError: A line is no JSON, is nested too deeply, or has a key twice in an object; the file is not UTF-8.
        FileNotFoundError: There is no such file.
    """
    lines = enumerate(text_of(path).split("\n"), 1)
    return [(number, parsed(line, path, number)) for number, line in lines if line.strip()]


def parsed(text: str, path: Path, number: int | None = None) -> Any:
    """The value of a JSON text: a line of a file, by its number, or a whole file.

    Raises:
        ValueError: It is no JSON, is nested too deeply, or has a key twice in an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        line = number or last_line_of(text, error.args[0])
        raise ValueError(f"{path}, line {line}: {error.args[0]!r} is there twice in one object: keep one") from error
    except json.JSONDecodeError as error:
        where = f"{path}, line {number or error.lineno}"
        raise ValueError(f"{where}: not JSON ({error.msg}, column {error.colno})") from error
    except RecursionError as error:
        raise ValueError(f"{path}, line {number or 1}: nested too deeply to be read: write it flat") from error


def text_of(path: Path) -> str:
    """Text of a UTF-8 file, without a byte order mark.

    Raises:
        ValueError: It is not UTF-8.
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: a folder of facts needs it")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(error.object)  # a byte order mark in front is not counted by the decoder
        line = data[:at].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: not UTF-8 (byte {at} is 0x{data[at]:02x}). Convert the file to UTF-8"
        ) from error


def line_of(text: str, value: Any) -> int:
    """The first line of a JSON file that holds a value, as it may be written; 1 if none does."""
    return (_lines_of(text, value) or [1])[0]


def last_line_of(text: str, value: Any) -> int:
    """The last line that holds it; 1 if none does."""
    return (_lines_of(text, value) or [1])[-1]


def _lines_of(text: str, value: Any) -> list[int]:
    written = [json.dumps(value, ensure_ascii=escaped) for escaped in (False, True)]
    return [i for i, line in enumerate(text.split("\n"), 1) if any(one in line for one in written)]


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found
