"""Files of facts, as rows with the place they were read at: our own format, and mLAMA's as it is published.

mLAMA 1.1 (Kassner, Dufter & Schuetze 2021, CC BY-NC 4.0) holds, per language, `templates.jsonl` ({"relation", "template"}, of which some have no
facts) and `<relation>.jsonl` ({"sub_label", "obj_label", "uuid", ...}); the candidate lists lie in `TREx_multilingual_objects/<language>.json` and
`GoogleRE_objects/<language>.json` ({relation: {"objects": [...]}}). Nothing of it is part of this package. `lineid` links languages too, but only
within a relation: uuid is what is read.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..languages import require_language
from .records import line_of, parsed, records, text_of

SUBJECT, OBJECT = "[X]", "[Y]"

_OURS = {"fact": str, "relation": str, "subject": dict, "object": dict}
_KINDS = {str: "text", dict: "an object", list: "a list"}
_HUB = {"uuid": str, "predicate_id": str, "language": str, "sub_label": str, "obj_label": str, "template": str}
_LISTS = ("TREx_multilingual_objects", "GoogleRE_objects")

Pair = tuple[str, str]


@dataclass(frozen=True)
class Read:
    """What was read so far."""

    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    """(relation, fact, language, subject, object)."""
    templates: dict[Pair, str] = field(default_factory=dict)
    candidates: dict[Pair, tuple[str, ...]] = field(default_factory=dict)
    listed: dict[Pair, str] = field(default_factory=dict)
    """File and line of the lists of candidates."""
    files: dict[Pair, str] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)
    """Line of each row."""
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fact -> what its line says beside names."""


def require_template(template: Any, where: str) -> str:
    """A template that has both blanks.

    Raises:
        ValueError: It is no text, or lacks [X] or [Y]; the message begins with `where`.
    """
    if not isinstance(template, str):
        raise ValueError(f"{where}: a template must be a text, got {template!r}")
    for blank, what in ((SUBJECT, "subject"), (OBJECT, "object")):
        if blank not in template:
            raise ValueError(f"{where}: template {template!r} has no {blank}: write {blank} where the {what} stands")
    return template


def our_folder(folder: Path) -> Read:
    """relations.json and facts.jsonl of a folder."""
    read = Read()
    path = folder / "relations.json"
    text = text_of(path)
    relations = parsed(text, path)
    if not isinstance(relations, dict):
        raise ValueError(
            f'{path}: expected {{"relation": {{"templates": {{"en": "..."}}}}}}, got {type(relations).__name__}'
        )
    for relation, held in relations.items():
        if not isinstance(held, dict) or not isinstance(held.get("templates"), dict):
            raise ValueError(
                f'{path}, line {line_of(text, relation)}: relation {relation!r} needs {{"templates": {{"en": "..."}}}}'
            )
        if unknown := set(held) - {"templates", "candidates"}:
            raise ValueError(
                f"{path}, line {line_of(text, relation)}: relation {relation!r} has an unknown field {min(unknown)!r}; "
                "there are templates, candidates"
            )
        for language, template in held["templates"].items():
            where = f"{path}, line {line_of(text, template)}"
            _language(language, where)
            read.templates[language, relation] = require_template(template, where)
        lists, place = held.get("candidates", {}), f"{path}, line {line_of(text, relation)}"
        if not isinstance(lists, dict):
            raise ValueError(f'{place}: candidates of {relation!r} must be {{"en": ["..."]}}, got {lists!r}')
        for language, texts in lists.items():
            where = f"{place}: candidates of {relation!r} in {language!r}"
            _language(language, where)
            if language not in held["templates"]:
                raise ValueError(f"{where}: there is no template in that language: add one, or remove the candidates")
            read.candidates[language, relation] = _candidates(texts, where)
            read.listed[language, relation] = place
    _our_facts(folder / "facts.jsonl", read, set(relations))
    if idle := set(read.templates) - {(row[2], row[0]) for row in read.rows}:
        language, relation = min(idle)
        where = f"{path}, line {line_of(text, read.templates[language, relation])}"
        raise ValueError(
            f"{where}: relation {relation!r} has a template in {language!r} and no fact in it: add facts or remove it"
        )
    return read


def _our_facts(path: Path, read: Read, relations: set[str]) -> None:
    for number, record in records(path):
        where = f"{path}, line {number}"
        _require(record, _OURS, where)
        if unknown := set(record) - {*_OURS, "meta"}:
            raise ValueError(f"{where}: unknown field {min(unknown)!r}; there are {', '.join(_OURS)}, meta")
        relation, subjects, objects = record["relation"], record["subject"], record["object"]
        if relation not in relations:
            raise ValueError(
                f"{where}: relation {relation!r} is not in relations.json, which has {', '.join(sorted(relations))}"
            )
        if uneven := set(subjects) ^ set(objects):
            language = min(uneven)
            has, lacks = ("subject", "object") if language in subjects else ("object", "subject")
            raise ValueError(
                f"{where}: fact {record['fact']!r} has {_an(has)} but no {lacks} in {language!r}: give both, or neither"
            )
        if not subjects:
            raise ValueError(f"{where}: fact {record['fact']!r} is in no language: give a subject and an object")
        if not isinstance(record.get("meta", {}), dict):
            raise ValueError(f"{where}: field 'meta' must be an object, got {record['meta']!r}")
        if "stated" in record.get("meta", {}):
            require_stated(record["meta"]["stated"], f"{where}: fact {record['fact']!r}")
        if record.get("meta"):
            read.meta[record["fact"]] = record["meta"]
        for language, subject in subjects.items():
            if (language, relation) not in read.templates:
                raise ValueError(
                    f"{where}: relation {relation!r} has no template in {language!r}: add one to relations.json, or leave "
                    f"{language!r} out of this fact"
                )
            read.rows.append((relation, record["fact"], language, subject, objects[language]))
            read.lines.append(number)
            read.files[language, relation] = str(path)


def mlama_folder(folder: Path, languages: Sequence[str] | None) -> Read:
    """The languages of mLAMA's own files."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}: give the folder of facts, such as an unpacked mlama1.1, or an id on the Hugging Face hub as owner/name"
        )
    root = folder / "mlama1.1" if (folder / "mlama1.1").is_dir() else folder
    held = sorted(path.parent.name for path in root.glob("*/templates.jsonl"))
    if not held:
        raise FileNotFoundError(
            f"{folder} holds neither relations.json nor <language>/templates.jsonl: check the folder"
        )
    if missing := [language for language in languages or () if language not in held]:
        raise ValueError(f"no facts in language {missing[0]!r}: there are {', '.join(held)}")
    read = Read()
    for language in languages or held:
        _language(language, str(root / language))
        before = len(read.rows)
        templates = _mlama_templates(root / language / "templates.jsonl")
        for path in sorted((root / language).glob("*.jsonl")):
            if path.stem == "templates":
                continue
            if path.stem not in templates:
                raise ValueError(
                    f"{path}: relation {path.stem!r} has facts, but no template in "
                    f"{root / language / 'templates.jsonl'}: add one, or remove the file"
                )
            pair = (language, path.stem)
            read.templates[pair], read.files[pair] = templates[path.stem], str(path)
            for number, record in records(path):
                _require(record, {"uuid": str, "sub_label": str, "obj_label": str}, f"{path}, line {number}")
                read.rows.append((path.stem, record["uuid"], language, record["sub_label"], record["obj_label"]))
                read.lines.append(number)
        if len(read.rows) == before:
            raise ValueError(f"{root / language}: language {language!r} has templates, but no relation with facts")
        for base in dict.fromkeys((folder, root.parent, root)):
            _mlama_candidates(base, language, read)
    _complete(read, str(folder))
    return read


def _complete(read: Read, where: str) -> None:
    """Add objects to the candidate lists that lack them: the lists are files of their own, and need not be of the same release."""
    lacking: dict[Pair, list[str]] = {}
    listed = {pair: set(texts) for pair, texts in read.candidates.items()}
    for relation, _, language, _, thing in read.rows:
        pair = (language, relation)
        if pair in listed and thing not in listed[pair]:
            listed[pair].add(thing)
            lacking.setdefault(pair, []).append(thing)
    if lacking:
        (language, relation), texts = next(iter(lacking.items()))
        warnings.warn(
            f"{where}: {sum(map(len, lacking.values()))} objects are not in the candidate lists and are added to them, such as {texts[0]!r} of "
            f"{relation!r} in {language!r}",
            stacklevel=5,
        )
    for pair, texts in lacking.items():
        read.candidates[pair] = (*read.candidates[pair], *texts)


def _mlama_templates(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, record in records(path):
        where = f"{path}, line {number}"
        _require(record, {"relation": str, "template": str}, where)
        if record["relation"] in found:
            raise ValueError(f"{where}: relation {record['relation']!r} has two templates: keep one")
        found[record["relation"]] = require_template(record["template"], where)
    return found


def _mlama_candidates(base: Path, language: str, read: Read) -> None:
    for name in _LISTS:
        path = base / name / f"{language}.json"
        if not path.is_file():
            continue
        text = text_of(path)
        held = parsed(text, path)
        if not isinstance(held, dict):
            raise ValueError(f'{path}: expected {{"relation": {{"objects": ["..."]}}}}, got {type(held).__name__}')
        for relation, lists in held.items():
            if (language, relation) in read.templates:
                place = f"{path}, line {line_of(text, relation)}"
                where = f"{place}: relation {relation!r}"
                read.listed[language, relation] = place
                _require(lists, {"objects": list}, where)
                read.candidates[language, relation] = _candidates(lists["objects"], where)


def mlama_hub(name: str, languages: Sequence[str] | None) -> Read:
    """The facts of mLAMA as a data set on the Hugging Face hub."""
    import datasets

    return mlama_records(datasets.load_dataset(name, split="test"), languages)


def mlama_records(records: Any, languages: Sequence[str] | None) -> Read:
    """The facts of mLAMA as records, one a query: an iterable, or a DataFrame."""
    read, seen = Read(), set()
    rows = records.to_dict("records") if hasattr(records, "to_dict") and hasattr(records, "iloc") else records
    for number, record in enumerate(rows):
        where = f"record {number}"
        _require(record, _HUB, where)
        language, relation = record["language"], record["predicate_id"]
        seen.add(language)
        if languages is not None and language not in languages:
            continue
        _language(language, where)
        template = require_template(record["template"], where)
        if read.templates.setdefault((language, relation), template) != template:
            raise ValueError(f"{where}: relation {relation!r} has another template in {language!r} before: keep one")
        read.rows.append((relation, record["uuid"], language, record["sub_label"], record["obj_label"]))
    if missing := [language for language in languages or () if language not in seen]:
        raise ValueError(f"no facts in language {missing[0]!r}: there are {', '.join(sorted(seen))}")
    return read


def require_stated(stated: Any, where: str) -> None:
    """Refuse a truth that names no languages.

    Raises:
        ValueError: It is neither a code of a language, nor several, nor "all"; the message begins with `where`.
    """
    several = [stated] if isinstance(stated, str) else stated
    if (
        not isinstance(several, Collection)
        or isinstance(several, Mapping | bytes)
        or not all(isinstance(x, str) for x in several)
    ):
        raise ValueError(f'{where}: stated must name languages, such as ["en", "de"] or "all", got {stated!r}')
    for code in several:
        if code != "all":
            _language(code, f"{where}: stated")


def _candidates(texts: Any, where: str) -> tuple[str, ...]:
    if not isinstance(texts, list):
        raise ValueError(f"{where}: candidates must be a list of texts, got {texts!r}")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: candidate {number} is {text!r}: give a text that is not blank")
    return tuple(texts)


def _language(code: str, where: str) -> None:
    try:
        require_language(code)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _require(record: Any, fields: Mapping[str, type], where: str) -> None:
    """Refuse what is no object, or lacks a field, or holds another kind of value or a blank one."""
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
    for name, kind in fields.items():
        if name not in record:
            raise ValueError(f"{where}: field {name!r} is missing; needed are {', '.join(fields)}")
        value = record[name]
        if not isinstance(value, kind):
            raise ValueError(f"{where}: field {name!r} must be {_KINDS[kind]}, got {value!r}")
        texts = value.values() if kind is dict else [value] if kind is str else ()
        if any(not isinstance(text, str) or not text.strip() for text in texts):
            raise ValueError(f"{where}: field {name!r} holds a blank text, or none: {value!r}")


def _an(word: str) -> str:
    return f"an {word}" if word == "object" else f"a {word}"
