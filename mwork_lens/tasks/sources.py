"""Records per language out of the original files of a benchmark, or out of a data set."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..languages import require_language

Records = dict[str, list[tuple[str, dict[str, Any]]]]
"""Language -> (where a record stands, the record)."""


def records(
    source: Any,
    languages: Sequence[str] | str | None,
    *,
    pattern: str,
    read: Callable[[Path], Iterable[tuple[str, dict[str, Any]]]],
    config: str,
    split: str,
) -> Records:
    """Records of each language.

    Args:
        source: A folder of original files; a mapping (or DatasetDict) from language to records; or an id on the Hugging Face hub.
        languages: Which, in this order; default all there are. An id needs them.
        pattern: Names of the files below the folder, with `{}` for the language.
        read: From a file to places and records.
        config: Name of a language's configuration on the hub, with `{}` for the language.
        split: Which split of the data set on the hub.

    Raises:
        FileNotFoundError: The folder does not exist, or holds no such file.
        ValueError: A language is unknown or absent, or has no records.
    """
    chosen = [languages] if isinstance(languages, str) else None if languages is None else list(languages)
    for language in chosen or ():
        require_language(language)
    if isinstance(source, Mapping):
        held: dict[str, Any] = dict(source)
    elif isinstance(source, str) and not Path(source).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return _from_hub(source, chosen, config, split)
    else:
        held = _files(Path(source), pattern)
    for language in chosen or held:
        require_language(language)
        if language not in held:
            raise ValueError(f"no items in {language!r} in this source: it has {', '.join(map(str, held))}")
    found = {
        language: list(read(held[language]))
        if isinstance(held[language], Path)
        else _numbered(language, held[language])
        for language in chosen or held
    }
    if empty := [language for language, rows in found.items() if not rows]:
        raise ValueError(f"no items in {empty[0]!r}: the source is empty there")
    return found


def field(record: Mapping[str, Any], name: str, kind: Any, where: str) -> Any:
    """A field of a record.

    Raises:
        ValueError: It is missing, or of another kind; the message says where.
    """
    if name not in record:
        raise ValueError(f"{where}: field {name!r} is missing; there are {', '.join(map(str, record))}")
    if not isinstance(record[name], kind) or isinstance(record[name], bool):
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{where}: field {name!r} must be {wanted}, got {record[name]!r}")
    return record[name]


def clean(text: str) -> str:
    """Text without white space and byte order marks at its ends."""
    return text.strip().strip("\ufeff").strip()


def _numbered(language: str, rows: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{language}, record {number}", dict(row)) for number, row in enumerate(rows)]


def _from_hub(name: str, languages: list[str] | None, config: str, split: str) -> Records:
    import datasets

    if not languages:
        raise ValueError(f"say which languages of {name!r} to load: each is a configuration of its own")
    return {
        language: _numbered(f"{name} {language}", datasets.load_dataset(name, config.format(language), split=split))
        for language in languages
    }


def _files(folder: Path, pattern: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}: give the folder of the original files ({pattern.format('en')} ...)"
        )
    name = re.compile(re.escape(pattern).replace(r"\{\}", r"(?P<l>\w+?)", 1).replace(r"\{\}", r"(?P=l)"))
    found = {}
    for path in sorted(folder.glob(pattern.replace("{}", "*")), key=lambda path: path.as_posix()):
        if match := name.fullmatch(path.relative_to(folder).as_posix()):
            found[match["l"]] = path
    if not found:
        raise FileNotFoundError(f"{folder} holds no files such as {pattern.format('en')}: check the folder")
    return dict(sorted(found.items(), key=lambda pair: pair[0] != "en"))
