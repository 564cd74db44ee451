"""Documents in a language, and how they become batches of tokens.

    load_corpora("folder/", ["en", "de"])          folder/en.txt or .jsonl, folder/de.txt ...
    load_corpora()                                 the embedded parallel passages, six languages
    load_corpora("organism")                       passages and articles of the organism's world, seven languages, parallel
    load_corpora({"en": [...], "de": [...]})       from memory
    load_corpora(datasets.load_dataset(...), ...)  a DatasetDict whose splits are languages

A document is one line of a `.txt` file or the `text` of one line of a `.jsonl` file. Texts that are parallel across languages keep
the same `ids`, so intervals can be paired. `batches` is deterministic: documents in order, right padding, BOS in front if the
tokenizer puts one there; `keep` is False on padding and on BOS, and every statistic obeys it.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from .languages import require_language
from .storage import content_hash
from .tokens import Tokens, pad

EMBEDDED = {"embedded": ("texts",), "organism": ("texts", "organism")}
"""Folders of the package, by the name of the source."""


@dataclass(frozen=True)
class Corpus:
    """Documents of one language.

    Example:
        >>> corpus = Corpus("de", ("eins", "zwei", "drei"))
        >>> len(corpus), [text for name, text in corpus.shard(1, 2).documents()]
        (3, ['drei'])
        >>> [len(part) for part in corpus.split()]
        [2, 1]
    """

    language: str
    """Language code, such as `de`."""
    texts: tuple[str, ...]
    """One string a document."""
    ids: tuple[str, ...] = ()
    """A name per document; parallel documents of several languages share it. Numbered if not given."""
    source: str = "memory"
    """Where the texts came from."""
    revision: str | None = None
    """Revision of a data set."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "ids", tuple(self.ids) or tuple(str(i) for i in range(len(self.texts))))
        if len(self.ids) != len(self.texts):
            raise ValueError(f"corpus {self.language!r} has {len(self.texts)} documents but {len(self.ids)} ids")
        if not self.texts:
            raise ValueError(f"corpus {self.language!r} from {self.source} is empty: it needs at least one document")
        for name, text in self.documents():
            if not isinstance(text, str):
                raise ValueError(
                    f"document {name!r} of corpus {self.language!r} is {type(text).__name__}, not str: remove it, or make it a string"
                )
        if len(set(self.ids)) != len(self.ids):
            twice = next(i for i in self.ids if self.ids.count(i) > 1)
            raise ValueError(f"corpus {self.language!r} has two documents named {twice!r}: ids must differ")

    def __len__(self) -> int:
        return len(self.texts)

    def documents(self) -> Iterator[tuple[str, str]]:
        """Pairs (id, text)."""
        return zip(self.ids, self.texts, strict=True)

    def _part(self, indices: Sequence[int]) -> "Corpus":
        if not len(indices):
            raise ValueError(f"no document of corpus {self.language!r} ({len(self)} documents) is left in this part")
        return replace(self, texts=tuple(self.texts[i] for i in indices), ids=tuple(self.ids[i] for i in indices))

    def shard(self, index: int, of: int) -> "Corpus":
        """The `index`-th of `of` consecutive parts; together they are the corpus, in order."""
        if not 0 <= index < of <= len(self):
            raise ValueError(
                f"shard {index} of {of} does not exist for {len(self)} documents: give 0 <= index < of <= documents"
            )
        cuts = [round(len(self) * i / of) for i in range(of + 1)]
        return self._part(range(cuts[index], cuts[index + 1]))

    def chunks(self, size: int) -> list["Corpus"]:
        """Consecutive parts of `size` documents, the last one shorter."""
        if size < 1:
            raise ValueError(f"chunks of {size} documents do not exist: give at least 1")
        return [self._part(range(at, min(at + size, len(self)))) for at in range(0, len(self), size)]

    def split(self, held_out: float = 1 / 3) -> tuple["Corpus", "Corpus"]:
        """(rest, held out): every m-th document is held out, the same positions in each of several parallel corpora."""
        if not 0 < held_out < 1:
            raise ValueError(f"held_out={held_out} is not a share of documents: give a number between 0 and 1")
        chosen = [int((i + 1) * held_out) > int(i * held_out) for i in range(len(self))]
        rest, held = ([i for i, out in enumerate(chosen) if out is wanted] for wanted in (False, True))
        return self._part(rest), self._part(held)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of language, ids and texts."""
        return content_hash(self.language, self.ids, self.texts)

    def facts(self) -> dict[str, Any]:
        """What a `Run` records."""
        return {"source": self.source, "revision": self.revision, "documents": len(self), "hash": self.fingerprint}


def load_corpora(
    source: Any = "embedded", languages: Sequence[str] | None = None, *, limit: int | None = None
) -> dict[str, Corpus]:
    """Documents per language.

    Args:
        source: `"embedded"`, `"organism"`, a folder of `<language>.txt` or `<language>.jsonl`, a mapping language -> texts or the `Path`
            of such a file (the lines of parallel files are parallel documents), or a `datasets` DatasetDict (or mapping of Datasets) keyed
            by language with a `text` column.
        languages: Codes to load, in this order; default all that the source has.
        limit: At most this many documents per language, from the start.

    Raises:
        ValueError: A language is unknown or absent; a corpus is empty; a file is not UTF-8 (file and byte offset) or not JSON lines.
        FileNotFoundError: The folder does not exist.
    """
    languages = [languages] if isinstance(languages, str) else languages
    for language in languages or ():
        require_language(language)
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: give the largest number of documents per language, at least 1")
    if isinstance(source, Mapping):
        held, read = dict(source), _from_mapping
    else:
        embedded = EMBEDDED.get(source) if isinstance(source, str) else None
        folder = Path(str(resources.files("mwork_lens")), "data", *embedded) if embedded else Path(source)
        held, read = _files(folder), partial(_read_file, source=str(source))
    chosen = list(languages or held)
    if missing := [language for language in chosen if language not in held]:
        raise ValueError(f"no texts for language {missing[0]!r} in this source: it has {', '.join(held) or 'none'}")
    if not chosen:
        raise ValueError(f"{source} holds no corpus: expected files such as en.txt or en.jsonl")
    for language in chosen:
        require_language(language)
    corpora = {language: read(language, held[language]) for language in chosen}
    return {
        language: corpus._part(range(min(limit or len(corpus), len(corpus)))) for language, corpus in corpora.items()
    }


def _from_mapping(language: str, value: Any) -> Corpus:
    if isinstance(value, Corpus):
        if value.language != language:
            raise ValueError(f"a corpus of {value.language!r} was given as {language!r}: use one code for both")
        return value
    if isinstance(value, Path):
        if not value.is_file():
            raise FileNotFoundError(f"no file {value} for the texts of {language!r}: check the path")
        return _read_file(language, value, source=str(value))
    if isinstance(value, str):
        raise ValueError(f"the texts of {language!r} are one string: give a list of documents")
    if hasattr(value, "column_names"):  # a datasets.Dataset
        if "text" not in value.column_names:
            raise ValueError(
                f"the data set of {language!r} has no column 'text', only {value.column_names}: rename the column"
            )
        return Corpus(language, tuple(value["text"]), source=getattr(value.info, "dataset_name", None) or "datasets")
    return Corpus(language, tuple(value))


def _files(folder: Path) -> dict[str, Path]:
    """The corpus file of each language, English first."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give a folder that holds en.txt, de.jsonl and the like")
    found: dict[str, Path] = {}
    for path in sorted(
        [*folder.glob("*.txt"), *folder.glob("*.jsonl")], key=lambda path: (path.stem != "en", path.name)
    ):
        if path.stem in found:
            raise ValueError(f"{folder} holds both {found[path.stem].name} and {path.name}: keep one of them")
        found[path.stem] = path
    return found


def _read_file(language: str, path: Path, *, source: str) -> Corpus:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(error.object)  # a byte order mark in front is not counted by the decoder
        raise ValueError(f"{path} is not UTF-8: byte {at} is 0x{data[at]:02x}. Convert the file to UTF-8") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if path.suffix == ".txt":
        return Corpus(language, tuple(line.strip() for _, line in lines), source=source)
    ids, texts = [], []
    for number, line in lines:
        try:
            record = json.loads(line)
            texts.append(record["text"].strip())
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path}, line {number}: expected a JSON object such as {{"id": "1", "text": "..."}} ({error!r})'
            ) from error
        ids.append(str(record.get("id", len(ids))))
    return Corpus(language, tuple(texts), tuple(ids), source=source)


def batches(corpus: Corpus, model: Any, *, size: int = 16, length: int | None = None) -> Iterator[Tokens]:
    """Token batches of a corpus, in order, right padded.

    Args:
        corpus: The documents.
        model: What `load_model` returned (its tokenizer and context length are used).
        size: Documents per batch.
        length: Tokens per document at most, BOS included; default the model's context.

    Warns:
        UserWarning: Documents were truncated (how many, of how many).

    Raises:
        ValueError: A document has no token, `size` is not positive, or `length` is below 2.
    """
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
    encoded, truncated = encode(corpus, model, length=length)
    warn_truncated(truncated, len(corpus), corpus.language)
    for at in range(0, len(encoded), size):
        yield pad(
            encoded[at : at + size], corpus.language, corpus.ids[at : at + size], bos=model.tokenizer.bos_token_id
        )


def warn_truncated(truncated: int, of: int, language: str) -> None:
    """Say that documents were cut, if any were."""
    if truncated:
        warnings.warn(
            f"{truncated} of {of} documents of {language!r} were longer than the limit and were truncated", stacklevel=3
        )


def context_length(model: Any) -> int:
    """Tokens the model can attend to."""
    return int(getattr(model.cfg, "n_ctx", None) or 2048)


def token_limit(model: Any, length: int | None = None) -> int:
    """Tokens at which documents are cut: `length`, but no more than the model's context.

    Raises:
        ValueError: `length` is below 2, BOS and a token.
    """
    if length is not None and length < 2:
        raise ValueError(f"length={length}: give at least 2 tokens per document")
    context = context_length(model)
    return context if length is None else min(length, context)


def encode(corpus: Corpus, model: Any, *, length: int | None = None) -> tuple[list[list[int]], int]:
    """Token ids per document, and how many documents were cut at `length` (default: the model's context).

    Raises:
        ValueError: A document has no token besides BOS, or `length` is below 2.
    """
    limit = token_limit(model, length)
    bos = model.tokenizer.bos_token_id
    encoded, truncated = [], 0
    # verbose=False: the tokenizer's own "longer than the maximum" warning is replaced by our count
    for (name, _), ids in zip(
        corpus.documents(), model.tokenizer(list(corpus.texts), verbose=False)["input_ids"], strict=True
    ):
        if not [i for i in ids if i != bos]:
            raise ValueError(f"document {name!r} of {corpus.language!r} has no token: remove it from the corpus")
        truncated += len(ids) > limit
        encoded.append(list(ids[:limit]))
    return encoded, truncated


def token_counts(corpus: Corpus, model: Any) -> Int[Tensor, " vocab"]:
    """How often each token id occurs in a corpus, as long as the model's unembedding; BOS counts for nobody.

    Raises:
        ValueError: A document has no token.
    """
    rows, _ = encode(corpus, model)
    vocab = max(len(model.tokenizer), int(model.W_U.shape[1]))
    counts = torch.bincount(torch.tensor([i for row in rows for i in row]), minlength=vocab)
    if model.tokenizer.bos_token_id is not None:
        counts[model.tokenizer.bos_token_id] = 0
    return counts
