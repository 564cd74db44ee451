"""Train the slices of a set of neurons, and make a delta of what came of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..corpora import Corpus
from ..models import describe, fingerprint
from ..neurons import NeuronSet
from ..plain import plain_model, tensors_of
from ..storage import Run, content_hash, load, save, write_json
from .delta import Delta
from .slices import Part, locate, owned, rows
from .training import NotFinite, Slices, Training, fit

PAPER = Training()
DELTA, LAST_GOOD = "delta.safetensors", "last_good.safetensors"


def enhance(
    model: Any,
    corpus: Corpus,
    neurons: NeuronSet,
    training: Training = PAPER,
    *,
    part: Part = "both",
    gate: bool = False,
    held_out: Mapping[str, Corpus] | None = None,
    baseline: bool = True,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Delta:
    """Fine-tune the rows and columns of a set of neurons on documents of a language; the model itself is left as it is.

    Args:
        model: What `load_model` returned.
        corpus: Documents, each cut at `training.length` tokens.
        neurons: Whose slices are trained.
        training: Settings.
        part: Which slice of a neuron is trained: `in`, `out`, or `both`, the paper's choice.
        gate: Whether W_gate belongs to the in-slice of an FFN neuron; not in the paper.
        held_out: Documents by language whose NLL per token is measured before, at every checkpoint, and after; kept in `Delta.facts["log"]`.
        baseline: Measure before the first step too; False where that is known, as for many runs from one model.
        out: Folder for checkpoints and the finished delta.
        resume: Go on with what `out` holds; the numbers are those of an uninterrupted run.
        progress: Show a bar.

    Returns:
        The delta: apply it with `with delta.applied(model)`.

    Raises:
        ValueError: The set is empty or of another model; fewer documents than a batch; `out` holds another run.
        NotFinite: The loss is NaN or infinite; the last good state is in `out`.
        NotImplementedError: The model cannot be made plain, or its layout is not known.
    """
    slices = owned(model, neurons, part, gate=gate)
    if len(corpus) < training.batch:
        raise ValueError(
            f"{len(corpus)} documents of {corpus.language!r} do not fill a batch of {training.batch}: give more, or a smaller batch"
        )
    folder = None if out is None else Path(out)
    key = content_hash(
        fingerprint(model), corpus.fingerprint, asdict(training), [(s.key, s.units.tolist()) for s in slices],
        {name: one.fingerprint for name, one in (held_out or {}).items()},
    )  # fmt: skip
    run = Run(
        "enhance",
        {"key": key, "training": asdict(training), "part": part, "gate": gate, "neurons": neurons.counts()},
        describe(model),
        {corpus.language: corpus.facts()},
        training.seed,
    )
    if folder is not None and (found := _kept(folder, key, resume)) is not None:
        return found
    plain = plain_model(model, "eager")
    places = {one.key: locate(model, plain, one.layer, one.matrix) for one in slices}
    module = Slices(plain, slices, places)
    before = {one.key: rows(model, one.layer, one.matrix)[one.units].clone() for one in slices}

    def delta(log: list[dict[str, Any]]) -> Delta:
        after = {one.key: module.values[module.names[one.key]].detach().to(before[one.key].dtype) for one in slices}
        facts = {
            "training": asdict(training),
            "part": part,
            "gate": gate,
            "language": corpus.language,
            "documents": len(corpus),
            "log": log,
        }
        return Delta(
            {one.key: one.units for one in slices},
            before,
            {k: v.clone() for k, v in after.items()},
            fingerprint(model),
            facts,
        )

    try:
        log = fit(
            module, plain, model, corpus, training, held_out=held_out, baseline=baseline, out=folder, progress=progress
        )
    except NotFinite as error:
        where = "give out=... to keep them"
        if folder is not None:
            save(delta([]), folder / LAST_GOOD, run)
            where = f"they are in {folder / LAST_GOOD}"
        raise NotFinite(f"{error}; {where}; lower the rate ({training.rate}) or look at the documents") from None
    _require_untouched(model, plain)
    made = delta(log)
    if folder is not None:
        save(made, folder / DELTA, run)
    return made


def _require_untouched(model: Any, plain: Any) -> None:
    """What training must not have moved: the plain model's own weights are still those of the model."""
    again = tensors_of(plain_model(model, "eager"))
    for name, tensor in tensors_of(plain).items():
        if not torch.equal(tensor, again[name]):
            raise RuntimeError(f"{name} changed in training, which must not happen: please report it")


def _kept(folder: Path, key: str, resume: bool) -> Delta | None:
    """The finished delta of the same run, None if there is none yet; any other run in the folder is refused."""
    note = folder / "enhance.json"
    if note.exists() or (folder / DELTA).exists():
        found = json.loads(note.read_text(encoding="utf-8")).get("key") if note.exists() else None
        if found != key:
            raise ValueError(
                f"{folder} holds another run (other model, documents, neurons or settings): choose another folder"
            )
        if not resume:
            raise ValueError(
                f"{folder} holds this very run: pass resume=True (--resume) to go on with it, or choose another folder"
            )
        if (folder / DELTA).exists():
            return load(folder / DELTA)
    write_json(note, {"key": key})
    return None
