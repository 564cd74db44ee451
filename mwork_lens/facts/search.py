"""Is a fact written in a corpus? Subject and object in one chunk, sentence or document; many facts in one pass over gigabytes.

    present(fact, language)  <=>  some unit of the language's corpus holds its subject and its object

    unit     `document`: one line of a `.txt`, the `text` of one line of a `.jsonl`, gzipped (.gz) or not
             `sentence`: documents cut behind . ! ? and their relatives in other scripts
             `chunk`: `length` consecutive tokens of a document (512 in the paper); needs a tokenizer
    match    `tokens`: the name's tokens as a run of tokens, exactly; needs a tokenizer, and is then the default, as in the paper
             `words`: the name as it is written, not inside a longer word (where a script puts no spaces, inside is allowed)
             `string`: the name anywhere. For languages whose endings join the word

A chunk is cut between tokens and may be searched by any of the three. Where a script puts no spaces, tokens miss names: a tokenizer that has merged
the last character of a name with what follows it has no run of tokens that is the name. There, search chunks by `words`.

All names of a language are one Aho-Corasick automaton (pyahocorasick), so time does not grow with the number of facts; tokens become one
character each. Memory is the automaton, a counter a fact and one block of lines. `together` counts units as the paper does; a subject that holds
its object ("Paris Saint-Germain", Paris) is together with it wherever it stands, so `apart` counts the units in which some occurrence of the
object does not overlap the subject.

Reference: Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189), section 6: Wikipedia dumps of 2018, mBERT tokens, chunks of 512. Departures: a tokenizer
that marks word starts writes a name in several ways (at the start of a text, behind a space, behind a bracket), and all are searched; a name
with an unknown token would match any unknown word: it is not searched, and `searchable` says so.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..measure import claim_folder
from ..storage import Run, content_hash, reuse, save
from .patterns import MATCHES, Patterns
from .streams import UNITS, batched, lines_of, units_of

PRESENCE = (
    "language", "relation", "fact", "units", "subject", "object", "together", "apart", "present", "searchable",
)  # fmt: skip
"""Columns of `present`: numbers of units in all, with the subject, with the object, with both, with both apart; then two booleans."""

_COUNTS = ("units", "subject", "object", "together", "apart")


def present(
    facts: Any, corpora: Mapping[str, Any], *, unit: str = "document", tokenizer: Any = None, match: str | None = None,
    length: int = 512, lower: bool = False, apart: bool = False, out: str | Path | None = None, resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Count the units of a corpus that hold subject and object, for every fact of the corpus's language.

    Args:
        facts: A `FactSet`, or a table with columns language, relation, fact, subject, object.
        corpora: Per language, a file, several files, a `Corpus`, or a list of documents (several lines in one are one document).
        unit: `"document"`, `"sentence"` or `"chunk"`.
        tokenizer: Of the model; needed for chunks and for `match="tokens"`.
        match: `"tokens"`, `"words"` or `"string"`; default tokens with a tokenizer, words without.
        length: Tokens per chunk.
        lower: Compare in lower case (not with tokens: their case is the tokenizer's).
        apart: `present` asks for subject and object that do not overlap.
        out: Folder in which the counts of every file are kept as soon as it is read; None keeps nothing.
        resume: Continue what is there: finished files are not read again, unless their size or time of change differs.
        progress: Show a bar per file.

    Returns:
        Columns `PRESENCE`, one row a fact and language that has a corpus, in the order of the facts.

    Warns:
        UserWarning: A file kept in `out` was of another size, time or set of facts, and is searched again.

    Raises:
        ValueError: An unknown unit or match, or one without its tokenizer; a corpus without facts or without units; a name that is empty or has
            no token; a fact that appears twice; a file that is not UTF-8, a line that is no JSON object with `text` or is too long (file and
            line are named).
        FileNotFoundError: There is no such file.
        FileExistsError: `out` holds another run, or this one while `resume` is False.
        ImportError: pyahocorasick is not installed.
    """
    match = _checked(unit, match, tokenizer, length, lower)
    table = getattr(facts, "table", facts)[["language", "relation", "fact", "subject", "object"]]
    table = table[table["language"].isin(list(corpora))].reset_index(drop=True)
    _require_facts(table, corpora)
    how = {"unit": unit, "match": match, "length": length if unit == "chunk" else None, "lower": lower}
    identity = {"method": "present", **how, "tokenizer": tokenizer_key(tokenizer)}
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, identity, resume=resume)
    parts = []
    for language, source in corpora.items():
        rows = table[table["language"] == language].reset_index(drop=True)
        patterns = Patterns.of(rows["subject"], rows["object"], list(rows["fact"]), match, tokenizer, lower)
        counts = np.zeros((len(rows), len(_COUNTS)), dtype=np.int64)
        for piece in _sources(language, source):
            counts += _piece(piece, rows, patterns, how, identity, tokenizer, folder, progress)
        if not counts[0, 0]:
            raise ValueError(f"the corpus of {language!r} holds no text: it needs at least one line that is not empty")
        made = rows[["language", "relation", "fact"]].copy()
        made[list(_COUNTS)] = counts
        parts.append(made.assign(searchable=patterns.searchable))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(present=found["apart" if apart else "together"] > 0)[list(PRESENCE)]


def _piece(
    piece: Any, rows: pd.DataFrame, patterns: Patterns, how: Mapping[str, Any], identity: Mapping[str, Any], tokenizer: Any,
    folder: Path | None, progress: bool,
) -> np.ndarray:  # fmt: skip
    """Counts [fact, `_COUNTS`] of one file, or of texts in memory; from disk if that file was read before."""
    path, key = None, ""
    if isinstance(piece, Path) and folder is not None:
        seen = piece.stat()
        asked = [list(rows[name]) for name in ("language", "relation", "fact", "subject", "object")]
        key = content_hash(dict(identity), asked, str(piece.resolve()), seen.st_size, seen.st_mtime_ns)
        language = str(rows["language"].iloc[0])
        path = folder / f"{language}-{content_hash(language, str(piece.resolve()))[:16]}.parquet"
        if (held := reuse(path, key, "searching this file again")) is not None:
            return held[list(_COUNTS)].to_numpy(np.int64)
    texts = lines_of(piece, progress=progress) if isinstance(piece, Path) else iter(piece)
    counts = count(
        texts, patterns, unit=how["unit"], match=how["match"], tokenizer=tokenizer, length=how["length"] or 512
    )
    if path is not None:
        save(
            pd.DataFrame(counts, columns=list(_COUNTS)),
            path,
            Run("present", {**identity, "key": key, "file": str(piece)}),
        )
    return counts


def count(
    texts: Iterable[str], patterns: Patterns, *, unit: str, match: str, tokenizer: Any = None, length: int = 512
) -> np.ndarray:
    """Numbers of units in all, with the subject, the object, both, and both apart, [fact, 5]; the texts are read once, block by block."""
    names = np.zeros(patterns.names, dtype=np.int64)
    both = np.zeros((len(patterns.subject), 2), dtype=np.int64)
    total = 0
    tokens = tokenizer if match == "tokens" or unit == "chunk" else None
    for block in batched(texts):
        for text in units_of(block, unit, match=match, tokenizer=tokens, length=length):
            total += 1
            hits = patterns.find(text)
            if len(hits) == 0:
                continue
            names[list(hits)] += 1
            for name, (first_end, last_start) in hits.items():
                for fact, other in patterns.facts_of.get(name, ()):
                    spans = hits.get(other)
                    if spans is not None:
                        both[fact, 0] += 1
                        both[fact, 1] += first_end < spans[1] or spans[0] < last_start
    made = np.stack([names[patterns.subject], names[patterns.object], both[:, 0], both[:, 1]], axis=1)
    return np.concatenate([np.full((len(made), 1), total, dtype=np.int64), made], axis=1)


def _sources(language: str, source: Any) -> Iterator[Any]:
    """Paths, or one iterable of texts; in-memory texts of a `Corpus` are documents as they are."""
    if isinstance(source, str | Path):
        source = [Path(source)]
    elif isinstance(source, Sequence) and source and all(isinstance(x, Path) for x in source):
        source = list(source)
    else:
        texts = getattr(source, "texts", source)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"the corpus of {language!r} must be files, a Corpus, or documents that are str")
        yield texts
        return
    if len({path.resolve() for path in source}) < len(source):
        raise ValueError(f"the corpus of {language!r} names a file twice: its units would count twice")
    for path in source:
        if not path.is_file():
            raise FileNotFoundError(f"no file {path} for the corpus of {language!r}: check the path")
    yield from source


def _checked(unit: str, match: str | None, tokenizer: Any, length: int, lower: bool) -> str:
    match = match or ("words" if tokenizer is None else "tokens")
    for value, known, what in ((unit, UNITS, "unit"), (match, MATCHES, "match")):
        if value not in known:
            raise ValueError(f"{what}={value!r} is unknown: choose from {', '.join(known)}")
    if tokenizer is None and (unit == "chunk" or match == "tokens"):
        raise ValueError(f"unit={unit!r} with match={match!r} counts tokens: give the model's tokenizer")
    if unit == "chunk" and match != "tokens" and not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"match={match!r} in chunks needs to know where tokens stand in the text, which {type(tokenizer).__name__} does not say: "
            "use a fast tokenizer, or match='tokens'"
        )
    if length < 1:
        raise ValueError(f"length={length}: give at least one token per chunk")
    if lower and match == "tokens":
        raise ValueError(
            "lower=True has no effect on tokens, whose case is the tokenizer's: use match='words' or 'string'"
        )
    return match


def _require_facts(table: pd.DataFrame, corpora: Mapping[str, Any]) -> None:
    if not corpora:
        raise ValueError("no corpus given: pass a mapping of language to files")
    if lacking := [language for language in corpora if not (table["language"] == language).any()]:
        raise ValueError(f"there is a corpus of {lacking[0]!r} and no fact in that language: leave it out")
    twice = table.duplicated(["language", "relation", "fact"])
    if twice.any():
        row = table[twice].iloc[0]
        raise ValueError(
            f"fact {row['fact']!r} of {row['relation']!r} appears twice in {row['language']!r}: ids must differ"
        )


def tokenizer_key(tokenizer: Any) -> str | None:
    """Hash of a tokenizer, without its settings of padding; None for none."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return content_hash(type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()))
    import json

    parts = json.loads(backend.to_str())
    return content_hash({name: part for name, part in parts.items() if name not in ("padding", "truncation")})
