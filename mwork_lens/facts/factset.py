"""Facts in several languages: (subject, relation, object), a cloze template per relation and language, and the candidates for its blank.

    load_facts("small")             the embedded set; "organism" is that of the generated world, which knows who stated what
    load_facts("folder/")           relations.json and facts.jsonl (below), or mLAMA's own files
    read_mlama("folder/")           mLAMA 1.1 (Kassner et al. 2021), which is CC BY-NC 4.0: your own copy

A *query* is a fact in a language: one row. The id of a fact links its languages (mLAMA's uuid) and belongs to one relation; a fact may be missing
in some languages, and the same subject, relation and object may occur under several ids, as in mLAMA.

Our format is a folder with

    relations.json   {"capital": {"templates": {"en": "The capital of [X] is [Y].", ...}}, ...}
    facts.jsonl      {"fact": "capital-1", "relation": "capital", "subject": {"en": "France", ...}, "object": {"en": "Paris", ...}}

A relation may also have "candidates" {language: [texts]}; by default the candidates of a relation in a language are its distinct objects there.
A fact may also have "meta" {...}: what else is known of it, such as {"stated": ["en"]} (`recovery.py`).
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..storage import content_hash, write_json, write_text
from .readers import OBJECT, SUBJECT, Read, mlama_folder, mlama_hub, mlama_records, our_folder, require_template

FACT_COLUMNS = ("relation", "fact", "language", "subject", "object")
"""Columns of `FactSet.table`: one row a query."""
EMBEDDED = ("small", "organism")
"""Fact sets that come with the package: general knowledge in six languages; the generated world's in seven, with its truth."""

Pair = tuple[str, str]
"""(language, relation)."""


@dataclass(frozen=True, eq=False)
class FactSet:
    """Facts of several relations in several languages."""

    table: pd.DataFrame
    """Columns `FACT_COLUMNS`."""
    templates: Mapping[Pair, str]
    """(language, relation) -> cloze with [X] and [Y]."""
    candidates: Mapping[Pair, tuple[str, ...]] = field(default_factory=dict)
    """(language, relation) -> texts that may fill [Y]; default its distinct objects. Each object is among them."""
    source: str = "memory"
    """Where the facts came from."""
    files: Mapping[Pair, str] = field(default_factory=dict)
    """(language, relation) -> file its facts were read from, for errors."""
    lines: tuple[int, ...] = ()
    """Line of each row in that file."""
    meta: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fact -> what else is known of it, such as `stated`: the languages whose training text states it, or "all"."""
    listed: Mapping[Pair, str] = field(default_factory=dict)
    """(language, relation) -> file and line of its list of candidates, for errors."""

    def __post_init__(self) -> None:
        if missing := [name for name in FACT_COLUMNS if name not in self.table]:
            raise ValueError(f"the table of facts has no column {missing[0]!r}: it needs {', '.join(FACT_COLUMNS)}")
        if not len(self.table):
            raise ValueError(f"no facts in {self.source}: give at least one")
        table = self.table[list(FACT_COLUMNS)].reset_index(drop=True)
        object.__setattr__(self, "table", table)
        for name in FACT_COLUMNS:
            bad = [i for i, text in enumerate(table[name]) if not isinstance(text, str) or not text.strip()]
            if bad:
                raise ValueError(
                    f"{self.place(bad[0])}: {name} is {table[name][bad[0]]!r}: give a text that is not blank"
                )
        if twice := list(np.flatnonzero(table.duplicated(["language", "fact"]))):
            row = table.loc[twice[0]]
            raise ValueError(
                f"{self.place(twice[0])}: fact {row['fact']!r} is there twice in {row['language']!r}; ids must differ"
            )
        kinds = table.drop_duplicates(["fact", "relation"])
        if several := list(kinds.index[kinds.duplicated("fact")]):
            row = table.loc[several[0]]
            raise ValueError(
                f"{self.place(several[0])}: fact {row['fact']!r} belongs to {row['relation']!r} here and to another "
                "relation elsewhere; ids must differ between relations"
            )
        self._set_relations()

    def _set_relations(self) -> None:
        """Templates and candidates of the pairs that have facts, checked."""
        templates, candidates = {}, {}
        for (language, relation), group in self.table.groupby(["language", "relation"], sort=False):
            pair = (language, relation)
            if pair not in self.templates:
                raise ValueError(
                    f"{self.place(group.index[0])}: relation {relation!r} has no template in {language!r}: add one with "
                    f"{SUBJECT} and {OBJECT}, or leave out the facts of that language"
                )
            require_template(self.templates[pair], f"template of {relation!r} in {language!r}")
            templates[pair] = self.templates[pair]
            objects = tuple(dict.fromkeys(group["object"]))
            given = tuple(dict.fromkeys(self.candidates.get(pair, objects)))
            if blank := [text for text in given if not isinstance(text, str) or not text.strip()]:
                raise ValueError(
                    f"a candidate of {relation!r} in {language!r} is {blank[0]!r}: give texts that are not blank"
                )
            if outside := set(objects) - set(given):
                at = next(i for i in group.index if group["object"][i] in outside)
                raise ValueError(
                    f"{self.place(at)}: object {group['object'][at]!r} is not among the {len(given)} candidates of {relation!r} in "
                    f"{language!r}: add it to them"
                )
            candidates[pair] = given
        object.__setattr__(self, "templates", templates)
        object.__setattr__(self, "candidates", candidates)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages with facts, in the order of the table."""
        return tuple(dict.fromkeys(self.table["language"]))

    @property
    def relations(self) -> tuple[str, ...]:
        """Relations with facts, in the order of the table."""
        return tuple(dict.fromkeys(self.table["relation"]))

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """(language, relation) that have facts."""
        return tuple(self.templates)

    def place(self, row: int | np.integer) -> str:
        """Where a row of the table was read: file and line, or the fact's name if it was made in memory."""
        fact = self.table.iloc[int(row)]
        file = self.files.get((fact["language"], fact["relation"]))
        if file is None or not self.lines:
            return f"fact {fact['fact']!r} of {fact['relation']!r} in {fact['language']!r}"
        return f"{file}, line {self.lines[int(row)]}"

    def of(self, language: str, relation: str) -> pd.DataFrame:
        """Rows of a relation in a language; their index is that of `table`.

        Raises:
            ValueError: There are none.
        """
        if (language, relation) not in self.templates:
            has = [name for code, name in self.pairs if code == language]
            raise ValueError(
                f"language {language!r} has no relation {relation!r}: it has {', '.join(has)}"
                if has
                else f"no facts in language {language!r}: there are {', '.join(self.languages)}"
            )
        return self.table[(self.table["language"] == language) & (self.table["relation"] == relation)]

    def only(self, languages: Sequence[str] | None = None, relations: Sequence[str] | None = None) -> "FactSet":
        """Facts of some languages and relations; candidates stay as they are.

        Raises:
            ValueError: A language or relation has no facts, or a language none in these relations.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, asked, held in (("language", languages, self.languages), ("relation", relations, self.relations)):
            if asked is None:
                continue
            asked = [asked] if isinstance(asked, str) else list(asked)
            if unknown := [one for one in asked if one not in held]:
                raise ValueError(f"no facts in {name} {unknown[0]!r}: there are {', '.join(held)}")
            keep &= self.table[name].isin(asked).to_numpy()
        left = set(self.table["language"][keep])
        if without := [language for language in (languages or ()) if language not in left]:
            raise ValueError(f"language {without[0]!r} has none of the relations {', '.join(relations or ())}")
        return self._part(keep)

    def take(self, n: int, seed: int = 0) -> "FactSet":
        """At most `n` facts of each relation, drawn without replacement, in all the languages that have them; candidates stay.

        Raises:
            ValueError: `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"n={n}: take at least one fact a relation")
        generator = np.random.default_rng(seed)
        kept: set[str] = set()
        for _, group in self.table.groupby("relation", sort=False):
            ids = list(dict.fromkeys(group["fact"]))
            kept.update(ids[i] for i in generator.permutation(len(ids))[:n])
        return self._part(self.table["fact"].isin(kept).to_numpy())

    def shared(self, a: str, b: str) -> tuple[str, ...]:
        """Ids of the facts that two languages both have, in the order of the table.

        Raises:
            ValueError: A language has no facts.
        """
        ids = [self.only([language]).table["fact"] for language in (a, b)]
        both = set(ids[1])
        return tuple(fact for fact in ids[0] if fact in both)

    def _part(self, keep: np.ndarray) -> "FactSet":
        lines = tuple(line for line, kept in zip(self.lines, keep, strict=True) if kept) if self.lines else ()
        return replace(self, table=self.table[keep], lines=lines)

    def stated(self) -> dict[str, Any]:
        """Per fact, the languages that state it, if all facts say so: the truth that `recovery` wants. Empty if they do not."""
        facts = dict.fromkeys(self.table["fact"])
        known = {fact: self.meta[fact]["stated"] for fact in facts if "stated" in self.meta.get(fact, ())}
        return known if len(known) == len(facts) else {}

    def fingerprint(self, language: str, relation: str) -> str:
        """Hash of a relation in a language: template, facts and candidates."""
        rows = self.of(language, relation)[["fact", "subject", "object"]].to_numpy().tolist()
        pair = (language, relation)
        return content_hash(language, relation, self.templates[pair], rows, list(self.candidates[pair]))


def fill(template: str, subject: str, object: str) -> str:
    """A template with its blanks filled; `[X]` within a text that is filled in is left alone."""
    texts = {SUBJECT: subject, OBJECT: object}
    return re.sub(r"\[[XY]\]", lambda found: texts[found[0]], template)


def load_facts(source: Any = "small", languages: Sequence[str] | None = None) -> FactSet:
    """Facts from a folder in our format or mLAMA's, or one of the embedded sets by its name.

    Args:
        source: `"small"`, `"organism"`, or a folder (of ours with relations.json, else of mLAMA); otherwise as for `read_mlama`.
        languages: Which to keep; default all.

    Raises:
        FileNotFoundError: There is no such folder, or it lacks a file.
        ValueError: A file is not UTF-8 or not JSON, a field is missing or unknown, an id is twice in a language, a template lacks [X] or [Y], a fact
            has a subject but no object in a language, or is in a language that has no template of its relation; a language has no facts.
    """
    if isinstance(source, str) and source in EMBEDDED:
        source = Path(str(resources.files("mwork_lens") / "data" / "facts" / source))
    if isinstance(source, str | Path) and (Path(source) / "relations.json").is_file():
        facts = _made(our_folder(Path(source)), str(source))
        return facts if languages is None else facts.only(languages)
    return read_mlama(source, languages)


def read_mlama(source: Any, languages: Sequence[str] | None = None) -> FactSet:
    """Facts of mLAMA 1.1: relations, templates and labels of Wikidata facts in 53 languages.

    Args:
        source: The unpacked folder `mlama1.1` (a folder a language, with templates.jsonl and a file a relation), or the one above it, where the
            candidate lists `TREx_multilingual_objects` and `GoogleRE_objects` may lie beside it; an id `org/name` on the Hugging Face hub; or
            records with uuid, predicate_id, language, sub_label, obj_label and template.
        languages: Which to read; default all there are.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no languages.
        ValueError: As in `load_facts`; a relation has facts but no template, or an object is not in its candidate list.
    """
    chosen = [languages] if isinstance(languages, str) else None if languages is None else list(languages)
    if isinstance(source, Iterable) and not isinstance(source, str | Path):
        return _made(mlama_records(source, chosen), "records")
    if isinstance(source, str) and not Path(source).exists() and source.count("/") == 1 and source[0] not in "./~":
        return _made(mlama_hub(source, chosen), source)
    return _made(mlama_folder(Path(source), chosen), str(source))


def _made(read: Read, source: str) -> FactSet:
    table = pd.DataFrame(read.rows, columns=list(FACT_COLUMNS))
    return FactSet(
        table, read.templates, read.candidates, source, read.files, tuple(read.lines), read.meta, read.listed
    )


def save_facts(facts: FactSet, folder: str | Path) -> Path:
    """Write facts as `load_facts` reads them: relations.json and facts.jsonl. Candidates are written where they are not the objects.

    Raises:
        OSError: A file cannot be written.
    """
    folder = Path(folder)
    relations: dict[str, dict[str, Any]] = {}
    for language, relation in facts.pairs:
        pair = (language, relation)
        held = relations.setdefault(relation, {"templates": {}})
        held["templates"][language] = facts.templates[pair]
        if facts.candidates[pair] != tuple(dict.fromkeys(facts.of(*pair)["object"])):
            held.setdefault("candidates", {})[language] = list(facts.candidates[pair])
    write_json(folder / "relations.json", relations)
    lines = []
    for fact, group in facts.table.groupby("fact", sort=False):
        texts = {name: dict(zip(group["language"], group[name], strict=True)) for name in ("subject", "object")}
        record = {"fact": fact, "relation": group["relation"].iloc[0], **texts}
        if facts.meta.get(fact):
            record["meta"] = dict(facts.meta[fact])
        lines.append(json.dumps(record, ensure_ascii=False))
    write_text(folder / "facts.jsonl", "".join(line + "\n" for line in lines))
    return folder
