"""What a token looks like: the characters it stands for, never a replacement mark.

A token of a byte-level tokenizer is a run of bytes and need not be a character. So a label comes from the tokenizer's offset mapping: tokens
whose spans overlap share their characters, and each is marked as a part of them, `मस् 1/3`. Text between two spans (a space that the tokenizer
drops) belongs to the token behind it. Hence the texts of the labels, each group once, are the text. Tokenizers without offsets are read byte by
byte: byte-level pieces through the GPT-2 byte alphabet, SentencePiece pieces with `▁` for a space and `<0xE0>` for a byte.

A token on its own (`token_name`) has no text around it: bytes that are no character are shown as `<0xE0>`.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..corpora import context_length

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SIGNS = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥", "\u00a0": "⍽"}
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class Label:
    """What one token of a text stands for."""

    text: str
    """The characters, shared by all parts; empty if the tokenizer put the token there."""
    name: str
    """Shown if there are no characters, such as `<s>`; otherwise empty."""
    part: int = 1
    """Which part of the characters this token is, from 1."""
    of: int = 1
    """How many tokens share the characters."""

    @property
    def shown(self) -> str:
        """One line to put on a page (not yet escaped): `·Haus`, `मस् 1/3`, `<s>`."""
        shown = visible(self.text or self.name)
        return shown if self.of == 1 else f"{shown} {self.part}/{self.of}"


@dataclass(frozen=True)
class Document:
    """A text as the model reads it."""

    ids: Int[Tensor, "1 pos"]
    """Token ids."""
    labels: tuple[Label, ...]
    """One a token."""
    total: int
    """Tokens before it was cut."""
    bos: bool
    """Whether the first token is BOS."""

    @property
    def note(self) -> tuple[str, ...]:
        """What was cut, in words; empty if nothing was."""
        pos = self.ids.shape[1]
        return () if pos == self.total else (f"The model read the first {pos:,} of {self.total:,} tokens.",)

    @property
    def rtl(self) -> bool:
        """Whether the text runs from right to left, by its first letter."""
        return runs_rtl("".join(label.text for label in self.labels))


def document(model: Any, text: str, positions: int) -> Document:
    """Tokens and labels of a text, as `batches` would tokenise it, cut at `positions` or at the model's context.

    Raises:
        TypeError: `text` is not a string.
        ValueError: The text is empty, holds half a character, or has no token; `positions` is below 2.
    """
    if not isinstance(text, str):
        raise TypeError(f"a view reads one text, got {type(text).__name__}: pass a string")
    if not text:
        raise ValueError("the text is empty: a view needs at least one token")
    if positions < 2:
        raise ValueError(f"positions={positions}: give at least 2 tokens to show")
    if broken := re.search("[\ud800-\udfff]", text):
        raise ValueError(f"the text holds half a character (surrogate) at {broken.start()}: decode it as UTF-8 before")
    ids, labels = text_labels(model.tokenizer, text)
    bos = model.tokenizer.bos_token_id
    if not [i for i in ids if i != bos]:
        raise ValueError(f"the text {text[:20]!r} has no token: give one that the model's tokenizer reads")
    at = min(positions, context_length(model))
    return Document(torch.tensor([ids[:at]]), tuple(labels[:at]), len(ids), ids[0] == bos)


def text_labels(tokenizer: Any, text: str) -> tuple[list[int], list[Label]]:
    """Token ids of a text (special tokens included) and a label for each."""
    if not getattr(tokenizer, "is_fast", False):
        ids = list(tokenizer([text], verbose=False)["input_ids"][0])
        return ids, labels_of_bytes(tokenizer, ids, text)
    encoded = tokenizer([text], verbose=False, return_offsets_mapping=True)
    ids = list(encoded["input_ids"][0])
    return ids, labels_of_spans(tokenizer, text, ids, encoded["offset_mapping"][0])


def labels_of_spans(tokenizer: Any, text: str, ids: list[int], spans: list[tuple[int, int]]) -> list[Label]:
    """Labels from the span of characters of each token; overlapping spans are parts of one group."""
    groups: list[list[int]] = []
    ends: list[int] = []
    for i, (start, end) in enumerate(spans):
        # SentencePiece's space before the text has no character, though it is given the first one's span
        if start == end or (tokenizer.convert_ids_to_tokens(ids[i]) == "▁" and not text[start:end].isspace()):
            continue
        if ends and start < ends[-1]:
            groups[-1].append(i)
            ends[-1] = max(ends[-1], end)
        else:
            groups.append([i])
            ends.append(end)
    found: dict[int, Label] = {}
    at = 0
    for number, (group, end) in enumerate(zip(groups, ends, strict=True)):
        end = len(text) if number == len(groups) - 1 else end
        for part, i in enumerate(group, 1):
            found[i] = Label(text[at:end], "", part, len(group))
        at = end
    return [found[i] if i in found else Label("", token_name(tokenizer, token)) for i, token in enumerate(ids)]


def labels_of_bytes(tokenizer: Any, ids: list[int], text: str) -> list[Label]:
    """Labels from the bytes of each piece; pieces are held together until they are whole characters."""
    labels: list[Label] = []
    special = set(tokenizer.all_special_ids)
    pending, data = 0, b""
    for i in ids:
        piece = b"" if i in special else piece_bytes(tokenizer, i)
        labels.append(Label("", "" if piece else token_name(tokenizer, i)))
        if not piece:
            continue
        pending, data = pending + 1, data + piece
        try:
            whole = data.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":  # the next piece goes on with it
                continue
            whole = readable(data)
        if not any(label.text for label in labels) and whole.startswith(" ") and not text.startswith(" "):
            whole = whole[1:]  # SentencePiece's space before the text
        _share(labels, whole, pending)
        pending, data = 0, b""
    if pending:
        _share(labels, readable(data), pending)
    return labels


def _share(labels: list[Label], text: str, parts: int) -> None:
    """Give the last `parts` labels with bytes their common text."""
    last = len(labels) - parts
    for part in range(parts):
        labels[last + part] = Label(text, "", part + 1, parts)


@lru_cache
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character of each byte, inverted."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in kept]
    return {chr(b): b for b in kept} | {chr(256 + i): b for i, b in enumerate(others)}


def _is_byte_level(tokenizer: Any) -> bool:
    unknown = getattr(tokenizer, "unk_token_id", None)
    known = [tokenizer.convert_tokens_to_ids(piece) not in (None, unknown) for piece in ("Ġ", "▁")]
    return known == [True, False]


def piece_bytes(tokenizer: Any, token: int) -> bytes:
    """The bytes a piece stands for."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if isinstance(piece, bytes):
        return piece
    if found := _BYTE.fullmatch(piece or ""):
        return bytes([int(found[1], 16)])
    alphabet = _byte_alphabet()
    if piece and all(c in alphabet for c in piece) and _is_byte_level(tokenizer):
        return bytes(alphabet[c] for c in piece)
    return (piece or "").replace("▁", " ").encode(errors="replace")


def readable(data: bytes) -> str:
    """UTF-8 where it is, `<0xE0>` for a byte that is no character."""
    shown = ""
    while data:
        try:
            return shown + data.decode()
        except UnicodeDecodeError as error:
            bad = "".join(f"<0x{byte:02X}>" for byte in data[error.start : error.end])
            shown, data = shown + data[: error.start].decode() + bad, data[error.end :]
    return shown


def token_name(tokenizer: Any, token: int) -> str:
    """A token on its own: its characters, `<0xE0>` for a byte that is none, `[5000]` for an id that the tokenizer does not have."""
    if token >= len(tokenizer):
        return f"[{token}]"
    if token in tokenizer.all_special_ids:
        return tokenizer.convert_ids_to_tokens(token)
    return readable(piece_bytes(tokenizer, token)) or f"[{token}]"


def visible(text: str) -> str:
    """Spaces, line ends, and characters that would act on the page (controls, direction overrides) as signs: `·`, `⏎`, `[U+202E]`."""

    def sign(character: str) -> str:
        if character in _SIGNS:
            return _SIGNS[character]
        acts = character.isspace() or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        return f"[U+{ord(character):04X}]" if acts and character not in _JOINERS else character

    return "".join(map(sign, text))


def runs_rtl(text: str) -> bool:
    """Whether the first letter of a text is written from right to left."""
    for character in text:
        if (kind := unicodedata.bidirectional(character)) in ("L", "R", "AL"):
            return kind != "L"
    return False
