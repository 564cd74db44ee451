"""PV: neurons whose weights stay put when a model is tuned on one language (baseline of Tang et al. 2024, arXiv 2402.16438, after Zhang et al. 2024).

Parameter variation compares a model before and after it is tuned on each language alone; what changes little in few languages is taken for
language-specific. No code was released. Our reading, for FFN unit (l, j) and language k, with w its slices of W_gate, W_up and W_down side by
side (biases are left out):

    r[l,j,k] = |w_after - w_before| / |w_before|                  relative change, Euclidean norm
    S[l,j,k] = median_k / r[l,j,k]                                stillness: 1 for the median unit of that language, larger for stiller ones

then filter, entropy, ranking and membership as in LAPE, with S for P: S must be among the 5 % largest of all, and large in few languages. Dividing by
the language's median makes tunings of different length or step comparable; scaling all changes of a language changes nothing.
A change below 1e-6 of the median counts as that; a unit without weights (|w_before| = 0) has S = 0 and is never chosen.
Nothing is trained here: checkpoints are read from disk (safetensors), one matrix at a time, or from state dicts.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..models import fingerprint
from ..neurons import NeuronSet
from ..sites import n_layers, weight
from .inputs import require_several
from .lape import language_entropy, select

Source = str | Path | Mapping[str, Tensor]
"""A checkpoint: state dict, `.safetensors` file, its `.index.json`, or a folder of them, under Hugging Face names."""

_STILL = 1e-6
_SAME = 1e-2
"""Relative difference up to which `before` is this model, saved in another precision."""
_WRAPPER = "._original_component"


def pv(
    model: Any,
    checkpoints: Mapping[str, tuple[Source, Source]],
    *,
    rate: float = 0.01,
    filter_rate: float = 0.95,
    bar_rate: float = 0.95,
) -> dict[str, NeuronSet]:
    """The FFN units of each language, by parameter variation.

    Args:
        model: The model the checkpoints are of; it says which weights belong to a unit, and stays as it is.
        checkpoints: Per language, (before, after) tuning on that language alone. LoRA adapters must be merged first.
        rate: Share of all units to choose.
        filter_rate: Quantile of all stillness that a unit must exceed in some language.
        bar_rate: Quantile of all stillness above which a chosen unit belongs to a language.

    Returns:
        A set per language on site `ffn`, in the order given; languages without units have an empty set.

    Raises:
        ValueError: Fewer than two languages, a checkpoint that lacks a matrix, has it in another shape or did not change, or a rate outside (0, 1).
        FileNotFoundError: A checkpoint is not there.
        NotImplementedError: The model's FFN weights are not views of its checkpoint's.
    """
    require_several(checkpoints, "PV")
    still = stillness(
        {language: change_rates(model, before, after) for language, (before, after) in checkpoints.items()}
    )
    found = select(still, language_entropy(still), rate=rate, filter_rate=filter_rate, bar_rate=bar_rate)
    of_model = fingerprint(model)
    return {
        language: NeuronSet({"ffn": mask}, model=of_model)
        for language, mask in zip(checkpoints, found.lists, strict=True)
    }


def stillness(changes: Mapping[str, Float[Tensor, "layer width"]]) -> Float[Tensor, "layer width lang"]:
    """S above, from the relative changes of each language.

    Raises:
        ValueError: Half of the units or more of a language did not change.
    """
    columns = []
    for language, change in changes.items():
        median = change[change.isfinite()].median().item() if bool(change.isfinite().any()) else 0.0
        if not median > 0:
            raise ValueError(
                f"half of the FFN units or more did not change in {language!r}: before and after must be the model before and after "
                "tuning on that language, with its FFN trained"
            )
        columns.append(median / change.clamp_min(_STILL * median))  # infinite change: 0
    return torch.stack(columns, dim=-1)


def change_rates(model: Any, before: Source, after: Source) -> Float[Tensor, "layer width"]:
    """Relative change r of each FFN unit, float64; infinite for a unit whose weights were 0.

    Raises:
        ValueError: A checkpoint lacks a matrix, has it in another shape, or holds nan or infinity there; `before` is not this model.
        FileNotFoundError: A checkpoint is not there.
        NotImplementedError: The model's FFN weights are not views of its parameters.
    """
    old, new = _Checkpoint(before), _Checkpoint(after)
    owners: dict[int, list[tuple[str, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        owners.setdefault(parameter.untyped_storage().data_ptr(), []).append((name.replace(_WRAPPER, ""), parameter))
    rates = []
    for layer in range(n_layers(model)):
        moved: Any = 0.0
        size: Any = 0.0
        for matrix, view in weight(model, "ffn", layer).items():
            candidates = [] if view.is_meta else owners.get(view.untyped_storage().data_ptr(), [])
            if not candidates:
                raise NotImplementedError(
                    f"{matrix} of layer {layer} is not a view of a parameter in memory (offloaded, or copied when loaded): "
                    "PV cannot tell where a checkpoint keeps it; load the model without device_map"
                )
            a, b = old.rows(view, candidates), new.rows(view, candidates)
            if not torch.allclose(a, view.detach().cpu().to(a.dtype), rtol=_SAME, atol=_SAME * float(a.abs().max())):
                raise ValueError(
                    f"{matrix} of layer {layer} in {old} is not this model's: `before` must be the model itself, as it was before tuning"
                )
            moved = moved + (b - a).square().sum(1, dtype=torch.double)
            size = size + a.square().sum(1, dtype=torch.double)
        if not bool((moved + size).isfinite().all()):
            raise ValueError(
                f"layer {layer} of {old} or {new} holds nan or infinity in its FFN weights: use sound checkpoints"
            )
        rates.append(torch.where(size > 0, (moved / size).sqrt(), torch.inf))
    return torch.stack(rates)


class _Checkpoint:
    """Tensors by Hugging Face name, read one at a time."""

    def __init__(self, source: Source) -> None:
        if isinstance(source, Mapping):
            self.label = "the state dict"
            self.tensors = {name.replace(_WRAPPER, ""): tensor for name, tensor in source.items()}
            self.files: dict[str, Path] = {}
        else:
            self.label, self.tensors, self.files = str(source), {}, dict(_index(Path(source)))

    def __str__(self) -> str:
        return self.label

    def rows(self, view: Tensor, candidates: list[tuple[str, Tensor]]) -> Float[Tensor, "width d_model"]:
        """This checkpoint's values of a view [width, d_model] of one of the parameters, in float32 or better."""
        for name, parameter in candidates:
            for alias in (name, name.partition(".")[2]):  # a base model is saved without the head's prefix `model.`
                found = self._get(alias)
                if found is None:
                    continue
                if found.shape != parameter.shape:
                    raise ValueError(
                        f"{alias} is {list(found.shape)} in {self} and {list(parameter.shape)} in the model: a checkpoint of another model?"
                    )
                found = found.detach().cpu().contiguous()
                inside = view.storage_offset() - parameter.storage_offset()
                rows = found.as_strided(view.shape, view.stride(), found.storage_offset() + inside)
                return rows.to(torch.promote_types(rows.dtype, torch.float32))
        names = sorted({*self.tensors, *self.files})
        raise ValueError(
            f"{self} has no {' or '.join(name for name, _ in candidates)}, but {', '.join(names[:3]) or 'nothing'}"
            f"{', ...' if len(names) > 3 else ''}: give the whole model under its Hugging Face names (merge adapters first)"
        )

    def _get(self, name: str) -> Tensor | None:
        if name not in self.files:
            return self.tensors.get(name)
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as file:
            return file.get_tensor(name)


def _index(path: Path) -> Iterator[tuple[str, Path]]:
    """(tensor name, file) of a checkpoint on disk."""
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        index = path / "model.safetensors.index.json"
        files = [index] if index.is_file() else sorted(path.glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"{path} holds no .safetensors file: save the checkpoint with save_pretrained")
    else:
        files = [path]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"no checkpoint {file}: check the path")
        if file.suffix == ".json":
            for name, shard in json.loads(file.read_text(encoding="utf-8"))["weight_map"].items():
                yield name, file.parent / shard
            continue
        if file.suffix != ".safetensors":
            raise ValueError(f"{file.name} is no .safetensors file: pickled checkpoints are not read; convert it")
        try:
            with safe_open(file, framework="pt") as opened:
                yield from ((name, file) for name in opened.keys())  # noqa: SIM118  # not a mapping
        except SafetensorError as error:
            raise ValueError(f"{file} is truncated or not a safetensors file ({error}): save it again") from error
