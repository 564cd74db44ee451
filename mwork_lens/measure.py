"""Turn texts into sums, shard by shard, so that nothing is lost.

A shard is a chunk of documents of one language. Its file is named by a hash of everything that decides it - weights, tokenizer, texts and
parameters - and written atomically. Interrupt a run and start it again with `resume=True`: finished shards are read, the rest computed, and
the sums are bit-identical to those of an uninterrupted run, because shards are added in order. A document that fails is left out, named,
and reported.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Generic, TypeVar

from .corpora import Corpus, encode, pad, token_limit, warn_truncated
from .models import describe, fingerprint
from .progress import hidden
from .stats import Statistic
from .storage import Run, content_hash, remove_leftovers, reuse, save, write_json

S = TypeVar("S")

CODE = "2"
"""Raised when a change of the code changes what a shard holds."""


class DocumentsFailed(RuntimeError):
    """Some documents could not be measured; `measured` holds everything else."""

    def __init__(self, measured: "Measured[Any]") -> None:
        self.measured = measured
        failed = [
            f"{language}/{name}: {why}" for language, names in measured.failures.items() for name, why in names.items()
        ]
        shown = "; ".join(failed[:5]) + (f"; and {len(failed) - 5} more" if len(failed) > 5 else "")
        lost = ", ".join(repr(language) for language in measured.failures if language not in measured)
        super().__init__(f"{len(failed)} document(s) failed - {shown}. "
                         + (f"Nothing is left of {lost}. " if lost else "")
                         + "The others are measured (and saved, if `out` was given); "
                         "mend or remove these documents, or pass allow_failures=True to go on without them")  # fmt: skip


@dataclass(frozen=True)
class Measured(Mapping[str, S], Generic[S]):
    """Per language, the sum over its documents; a language of which every document failed is only in `failures`."""

    stats: Mapping[str, S]
    failures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Per language, the documents that failed and why."""
    reused: int = 0
    """Shards read from disk instead of computed."""

    def __getitem__(self, language: str) -> S:
        return self.stats[language]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stats)

    def __len__(self) -> int:
        return len(self.stats)


def measure(
    model: Any,
    corpora: Mapping[str, Corpus],
    statistic: Statistic[S],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    chunk: int = 32,
    allow_failures: bool = False,
    progress: bool = True,
) -> Measured[S]:
    """Sum a statistic over the documents of each language.

    Args:
        model: What `load_model` returned.
        corpora: Documents per language.
        statistic: `moments(...)`, `importances(...)`, or anything with their shape.
        out: Folder for shards; None keeps nothing on disk.
        resume: Use the finished shards of the same run in `out`.
        chunk: Documents per shard.
        allow_failures: Return despite failed documents (they are in `failures`) instead of raising. A language of which every document
            failed is then missing from the result.
        progress: Show a progress bar.

    Raises:
        DocumentsFailed: Some documents failed; all others are in its `measured`, and in `out`.
        FileExistsError: `out` holds another run, or this one and `resume` is False.
        ValueError: There is no corpus, no document of any language could be measured, or the statistic's `length` is below 2.
        NotImplementedError: The statistic does not apply to this model; finished shards stay in `out`.
    """
    from tqdm.auto import tqdm

    if not corpora:
        raise ValueError("no corpora to measure: give at least one language, as from load_corpora")
    token_limit(model, statistic.length)
    plan = {language: corpus.chunks(chunk) for language, corpus in corpora.items()}
    basis = {"model": fingerprint(model), "code": CODE, **statistic.parameters()}
    folder = (
        None
        if out is None
        else _prepare(
            Path(out),
            {"method": "measure", **basis, "chunk": chunk, "texts": {k: c.fingerprint for k, c in corpora.items()}},
            resume,
        )
    )
    run = Run("measure", statistic.parameters(), describe(model), {k: c.facts() for k, c in corpora.items()})
    stats: dict[str, S] = {}
    failures: dict[str, dict[str, str]] = {}
    reused = 0
    with tqdm(
        total=sum(map(len, corpora.values())),
        unit="doc",
        disable=hidden(progress),
        desc=statistic.parameters()["statistic"],
    ) as bar:
        for language, chunks in plan.items():
            sums: list[S] = []
            for index, part in enumerate(chunks):
                bar.set_postfix_str(language)
                key = content_hash(basis, part.fingerprint)
                path = folder / f"{language}-{index:04d}-{key[:12]}.safetensors" if folder else None
                found = reuse(path if resume else None, key, "computing this shard again")
                if found is None:
                    total, failed = _collect(model, part, statistic)
                    failures.setdefault(language, {}).update(failed)
                    # a shard with failures is not kept: the next run tries those documents again
                    if path is not None and total is not None and not failed:
                        save(total, path, Run(run.method, {"key": key}, run.model, run.corpora))
                else:
                    total, reused = found, reused + 1
                if total is not None:
                    sums.append(total)
                bar.update(len(part))
            if sums:
                stats[language] = reduce(add, sums)  # type: ignore[arg-type]  # S adds
    if not stats:
        reasons = [f"{language}/{name}: {why}" for language, names in failures.items() for name, why in names.items()]
        raise ValueError(f"no document could be measured ({'; '.join(reasons[:3])}): mend or replace these documents")
    measured = Measured(stats, {language: names for language, names in failures.items() if names}, reused)
    if measured.failures and not allow_failures:
        raise DocumentsFailed(measured)
    return measured


def _collect(model: Any, part: Corpus, statistic: Statistic[S]) -> tuple[S | None, dict[str, str]]:
    """Sum over a chunk's documents; when a batch fails, its documents are tried one by one to name the culprit."""
    encoded, truncated, failed = _encode(part, model, statistic.length)
    warn_truncated(truncated, len(part), part.language)
    ids, rows = list(encoded), list(encoded.values())
    bos = model.tokenizer.bos_token_id
    total: S | None = None
    for at in range(0, len(rows), statistic.size):
        group, names = rows[at : at + statistic.size], ids[at : at + statistic.size]
        try:
            made = [statistic(model, pad(group, part.language, names, bos=bos))]
        except NotImplementedError:  # about the model: no document is to blame
            raise
        except Exception:
            made = []
            for row, name in zip(group, names, strict=True):
                try:
                    made.append(statistic(model, pad([row], part.language, [name], bos=bos)))
                except NotImplementedError:
                    raise
                except Exception as error:
                    failed[name] = _reason(error)
        for stat in made:
            total = stat if total is None else total + stat  # type: ignore[operator]  # S adds
    return total, failed


def _encode(part: Corpus, model: Any, length: int | None) -> tuple[dict[str, list[int]], int, dict[str, str]]:
    """Token ids by document, how many were cut, and why others have none; tried one by one when they fail together."""
    try:
        rows, truncated = encode(part, model, length=length)
        return dict(zip(part.ids, rows, strict=True)), truncated, {}
    except Exception:
        encoded: dict[str, list[int]] = {}
        truncated, failed = 0, {}
        for one in part.chunks(1):
            (name,) = one.ids
            try:
                (encoded[name],), cut = encode(one, model, length=length)
                truncated += cut
            except Exception as error:
                failed[name] = _reason(error)
        return encoded, truncated, failed


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _prepare(folder: Path, identity: Mapping[str, Any], resume: bool) -> Path:
    """The folder for shards, claimed for this run."""
    claim_folder(folder, identity, resume=resume, claim="measure.json")
    return folder


def claim_folder(folder: Path, identity: Mapping[str, Any], *, resume: bool, claim: str = "run.id.json") -> None:
    """Make `folder` this run's, or continue it. Temporary files that a killed process left in it or one folder below are deleted.

    Raises:
        FileExistsError: The folder holds another run, or files of somebody else's, or this run while `resume` is False.
        NotADirectoryError: There is a file of that name.
    """
    import json

    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: give a folder for the results")
    path, key = folder / claim, content_hash(dict(identity))
    if path.exists():
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            held = {}
        if held.get("key") != key:
            before, now = held.get("identity", {}), json.loads(json.dumps(identity, default=str))
            differing = [name for name in now if before.get(name) != now[name]]
            raise FileExistsError(
                f"{folder} already holds another run (it differs in {', '.join(differing) or 'its record'}): choose another folder"
            )
        if not resume:
            raise FileExistsError(
                f"{folder} already holds this run: pass resume=True (--resume) to continue it, or choose another folder"
            )
    elif folder.exists() and not all(_is_leftover(held) for held in folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no run of ours: choose another folder")
    write_json(path, {"key": key, "identity": identity})
    for place in (folder, *(held for held in folder.iterdir() if held.is_dir())):
        remove_leftovers(place)


def _is_leftover(path: Path) -> bool:
    """Whether this is a temporary file of ours, as `remove_leftovers` deletes."""
    return path.name.startswith(".") and path.name.endswith(".tmp") and path.is_file()
