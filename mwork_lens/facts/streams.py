"""Corpora as streams of units: lines of a file, their sentences, or chunks of their tokens. At most one block of lines is in memory."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..progress import hidden
from .patterns import token_text

UNITS = ("document", "sentence", "chunk")
LONGEST = 1 << 26
"""Bytes of a line at most (64 MiB)."""

_BLOCK = 1 << 20  # characters
# . ! ? and their relatives, with the quotes and brackets that close behind them; a space, or a full-width mark, ends the sentence
_END = re.compile(r"[.!?…؟۔।॥][\"'»”’)\]]*\s+|[。！？｡]+[」』”’）]*")


def lines_of(path: Path, *, progress: bool = False, longest: int = LONGEST) -> Iterator[str]:
    """Documents of a file, one a line, empty lines left out: the line of a `.txt`, the field `text` of a `.jsonl`; `.gz` is unpacked.

    Raises:
        ValueError: A line is not UTF-8, holds a NUL, is longer than `longest` bytes, or (of a `.jsonl`) no object with a string `text`; or the file
            is a damaged gzip file.
    """
    packed = path.suffix == ".gz"
    is_json = Path(path.stem if packed else path.name).suffix == ".jsonl"
    with (
        path.open("rb") as raw,
        tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, disable=hidden(progress)) as bar,
    ):
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        number, at = 0, 0
        while True:
            number += 1
            try:
                line = file.readline(longest + 1)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f"{path}, line {number}: damaged gzip file ({error}); fetch or pack it again"
                ) from error
            if not line:
                return
            if len(line) > longest:
                raise ValueError(f"{path}, line {number}: longer than {longest} bytes; put one document on a line")
            text = _decoded(line, path, number).strip()
            if number % 256 == 0:
                bar.update(raw.tell() - at)
                at = raw.tell()
            if text:
                yield _field(text, path, number) if is_json else text


def batched(texts: Iterable[str], characters: int = _BLOCK) -> Iterator[list[str]]:
    """Lists of texts of about so many characters together, or of one text that is longer."""
    block, size = [], 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= characters:
            yield block
            block, size = [], 0
    if block:
        yield block


def sentences(text: str) -> list[str]:
    """A text cut behind its sentence marks; an abbreviation with a full stop ends a sentence too."""
    ends = [0, *(mark.end() for mark in _END.finditer(text)), len(text)]
    parts = (text[a:b].strip() for a, b in pairwise(ends))
    return [part for part in parts if part]


def units_of(block: Sequence[str], unit: str, *, match: str, tokenizer: Any = None, length: int = 512) -> Iterator[str]:
    """The units of some documents, as text, or, for `match="tokens"`, with a character per token.

    A chunk as text is what its tokens were made of.
    """
    texts = [part for text in block for part in sentences(text)] if unit == "sentence" else list(block)
    if match != "tokens" and unit != "chunk":
        yield from texts
        return
    if not texts:
        return
    if match != "tokens":
        spans = tokenizer(texts, add_special_tokens=False, verbose=False, return_offsets_mapping=True)["offset_mapping"]
        for text, offsets in zip(texts, spans, strict=True):
            for at in range(0, len(offsets), length):
                part = offsets[at : at + length]
                yield text[part[0][0] : part[-1][1]]
        return
    for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        step = length if unit == "chunk" else max(len(ids), 1)
        for at in range(0, len(ids), step):
            yield token_text(ids[at : at + step])


def _decoded(line: bytes, path: Path, number: int) -> str:
    if (at := line.find(b"\0")) >= 0:
        raise ValueError(
            f"{path}, line {number}: holds a NUL character (byte {at}), as UTF-16 text without a mark does; convert the file to UTF-8"
        )
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        at = error.start + len(line) - len(error.object)
        raise ValueError(
            f"{path}, line {number}: not UTF-8 (byte {at} of the line is 0x{line[at]:02x}); convert the file to UTF-8"
        ) from error


def _field(text: str, path: Path, number: int) -> str:
    try:
        found = json.loads(text)["text"]
        if not isinstance(found, str):
            raise TypeError(f"text is {type(found).__name__}")
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f'{path}, line {number}: expected a JSON object such as {{"text": "..."}} ({error!r})'
        ) from error
    return found
