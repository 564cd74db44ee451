"""Values on disk: safetensors, parquet and json; written atomically; with provenance.

A value that can be stored has `to_tensors() -> (tensors, facts)` and `from_tensors(tensors, facts)`. A file holds one value or a
mapping of names to values of one kind, and the `Run` that made it. Nothing is ever unpickled or evaluated. A file is written beside
its final name and moved into place with `os.replace`, so a reader sees the old file, the new file or none - never half of one.
"""

import errno
import hashlib
import json
import os
import platform
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pandas as pd

_FORMAT = "mwork_lens/1"

# kind written in the file -> module that defines it; the only names `load` will import
_KINDS = {
    "NeuronSet": "mwork_lens.neurons",
    "Moments": "mwork_lens.stats",
    "DocumentMoments": "mwork_lens.strata",
    "Importances": "mwork_lens.stats",
    "Stages": "mwork_lens.stages",
    "Reading": "mwork_lens.lenses",
    "Embeddings": "mwork_lens.geometry.embeddings",
    "ExpertCounts": "mwork_lens.experts.frequencies",
    "ScoreMoments": "mwork_lens.experts.scales",
    "Partition": "mwork_lens.experts.partition",
    "Effects": "mwork_lens.causal",
    "Delta": "mwork_lens.enhance.delta",
}


@dataclass(frozen=True)
class Run:
    """How an artefact came to be: enough to make it again."""

    method: str
    """What was done, such as `study` or `plnd`."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Every argument that affects the result."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Name, revision, dtype and fingerprint of the model (`describe`)."""
    corpora: Mapping[str, Any] = field(default_factory=dict)
    """Per language: source, number of documents and content hash."""
    seed: int | None = None
    """Seed of every random choice."""
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    """Of this package and of those that compute."""
    git_commit: str | None = field(default_factory=lambda: git_commit())
    """Of the source tree, where the package runs from one."""
    time: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    """UTC."""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, ready for json."""
        return json.loads(json.dumps(asdict(self), default=str))


@lru_cache
def versions() -> dict[str, str]:
    """Versions of the packages that decide a number."""
    names = ("mwork-lens", "transformer-lens", "transformers", "torch", "tokenizers", "numpy", "scipy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@lru_cache
def git_commit() -> str | None:
    """Commit of the source tree this package is imported from, with `+` if it was changed since; None outside one."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def content_hash(*parts: Any) -> str:
    """A short hash of JSON-able values and bytes; equal exactly when they are."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = (
            part
            if isinstance(part, bytes)
            else json.dumps(part, sort_keys=True, ensure_ascii=False, default=str).encode()
        )
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def write_atomically(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Raises:
        OSError: The disk is full or the folder cannot be written; `path` is as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            reason = "no space is left on the disk" if error.errno == errno.ENOSPC else error.strerror
        elif "No space left" in str(error):  # safetensors wraps the errno in a message of its own
            reason = "no space is left on the disk"
        else:
            raise
        raise OSError(
            getattr(error, "errno", None) or errno.ENOSPC,
            f"cannot write {path}: {reason}; what was finished before is kept - make room or choose another folder, and run again",
        ) from error
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write readable JSON, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
    return write_text(path, text)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8, atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return write_atomically(path, write)


def save(value: Any, path: str | Path, run: Run) -> Path:
    """Save a value, a mapping of names to values of one kind, or a table, with its `Run`.

    Args:
        value: NeuronSet, Moments, DocumentMoments, Importances, Stages, Reading; a mapping of names to one of these; or a DataFrame.
        path: `.safetensors` for values, `.parquet` for tables.
        run: What made it.

    Raises:
        TypeError: No file format is known for the value.
        ValueError: The ending does not fit the value, or the mapping mixes kinds.
        OSError: The file cannot be written.
    """
    path = Path(path)
    if isinstance(value, pd.DataFrame):
        _require_ending(path, ".parquet", "a table")
        return write_atomically(path, lambda temporary: _write_parquet(value, temporary, run))
    several = isinstance(value, Mapping) and not hasattr(value, "to_tensors")
    members = dict(value) if several else {"": value}
    kinds = {type(member).__name__ for member in members.values()}
    if len(kinds) > 1:
        raise ValueError(f"one file holds values of one kind, got {sorted(kinds)}")
    if unknown := kinds - _KINDS.keys():
        raise TypeError(
            f"no file format for {unknown.pop()}: save takes {', '.join(_KINDS)}, mappings of these, and DataFrames"
        )
    _require_ending(path, ".safetensors", "a value")
    tensors, facts = {}, {}
    for name, member in members.items():
        if "|" in name:
            raise ValueError(f"the name {name!r} contains '|', which separates names in the file")
        parts, facts[name] = member.to_tensors()  # pyright: ignore[reportAttributeAccessIssue]  # all _KINDS have it
        # cloned: safetensors refuses two names for one tensor, such as the same set under two languages
        tensors |= {f"{name}|{part}": tensor.contiguous().clone() for part, tensor in parts.items()}
    header = {"format": _FORMAT, "kind": next(iter(kinds), "NeuronSet"), "mapping": several}
    header |= {"facts": facts, "run": run.to_json()}

    def write(temporary: Path) -> None:
        from safetensors.torch import save_file

        save_file(tensors, temporary, metadata={"mwork_lens": json.dumps(header, ensure_ascii=False)})

    return write_atomically(path, write)


def load(path: str | Path) -> Any:
    """Read what `save` wrote: the value, the mapping of values, or the table.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, or not one of ours.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        _require_file(path)
        try:
            return pd.read_parquet(path)
        except Exception as error:
            raise ValueError(
                f"{path} is not a readable parquet table ({error}): it is truncated or foreign; make it again"
            ) from error
    header, tensors = _read(path)
    kind = getattr(import_module(_KINDS[header["kind"]]), header["kind"])
    parts: dict[str, dict[str, Any]] = {name: {} for name in header["facts"]}
    for key, tensor in tensors.items():
        name, _, part = key.partition("|")
        parts[name][part] = tensor
    values = {name: kind.from_tensors(parts[name], header["facts"][name]) for name in parts}
    return values if header["mapping"] else values[""]


def load_run(path: str | Path) -> dict[str, Any]:
    """The provenance stored in a file that `save` wrote."""
    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        _require_file(path)
        return json.loads((pq.read_schema(path).metadata or {}).get(b"mwork_lens", b"{}"))
    return _read(path)[0]["run"]


def reuse(path: Path | None, key: str, again: str) -> Any:
    """What a finished part of a run left at `path` under this `key`, or None; a file that cannot be used is warned about, and made again.

    Args:
        path: Where the part would be; None if nothing is kept.
        key: Hash of everything that decides it, stored as the parameter `key` of its `Run`.
        again: What happens then, such as `scoring this condition again`.
    """
    if path is None or not path.exists():
        return None
    try:
        if load_run(path).get("parameters", {}).get("key") != key:
            raise ValueError("it belongs to another run")
        return load(path)
    except (ValueError, OSError) as error:  # pyarrow's own error for a damaged file is a ValueError
        warnings.warn(f"{path} cannot be used ({error}): {again}", stacklevel=3)
        return None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    _require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("mwork_lens", "{}"))
            if header.get("format") != _FORMAT or header.get("kind") not in _KINDS:
                raise ValueError(
                    f"{path} was not written by mwork_lens ({_FORMAT}): it cannot be used here; delete it or point elsewhere"
                )
            return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error}): delete it and run again") from error


def _write_parquet(table: pd.DataFrame, path: Path, run: Run) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    facts = {**(arrow.schema.metadata or {}), b"mwork_lens": json.dumps(run.to_json(), ensure_ascii=False).encode()}
    pq.write_table(arrow.replace_schema_metadata(facts), path)


def _require_ending(path: Path, ending: str, what: str) -> None:
    if path.suffix != ending:
        raise ValueError(f"{what} is stored as {ending}: rename {path.name!r} to {path.stem + ending!r}")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, f"no file {path}: check the path, or run what makes it")


def remove_leftovers(folder: Path, names: Iterable[str] = ("*.tmp",)) -> None:
    """Delete temporary files that a killed process left in a folder of ours."""
    for name in names:
        for path in folder.glob(f".{name}" if not name.startswith(".") else name):
            path.unlink(missing_ok=True)
