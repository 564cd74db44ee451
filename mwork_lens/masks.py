"""Language-neuron masks in the format released with LAPE (RUCAIBox/Language-Specific-Neurons), read and written without losing a language.

A mask file is a `torch.save` of a list over languages of lists over layers of sorted int64 unit indices. It names neither its languages nor
its model, and the released script drops languages without units from the end of the list, so that names and lists no longer pair up. So:

    writing    every language has its lists, empty or not; a sidecar `<file>.json` keeps names, order, model, revision, fingerprint, shape, site
    reading    as many lists as names, or an error; another shape or another model, or an error

The file is read by torch's restricted loader (`weights_only=True`), which builds tensors and lists and refuses everything else: a file made to run
code raises instead. This is the one place where a pickled format is touched.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .models import describe, fingerprint
from .neurons import NeuronSet
from .sites import NEURON_SITES, Site, require_sites, shape_of
from .storage import content_hash, write_atomically, write_json

_FORMAT = "mwork_lens/mask/1"


def write_masks(sets: Mapping[str, NeuronSet], path: str | Path, model: Any = None) -> Path:
    """Write sets of one site in the released format, and the sidecar `<path>.json` beside them.

    Args:
        sets: Per language, in the order to write; empty ones are written too.
        path: The mask file, such as `mask.pt`.
        model: What the sidecar says of the model: the model itself, what `describe(model)` returned, or None for the sets' fingerprint alone.

    Returns:
        The path of the mask file.

    Raises:
        ValueError: No language, neurons at several sites (the format has none), sets of different shapes or models, or another `model`.
        OSError: The file cannot be written.
    """
    site, shape, found_on = _common(sets)
    facts = {} if model is None else dict(model) if isinstance(model, Mapping) else describe(model)
    if found_on and facts.get("fingerprint") and facts["fingerprint"] != found_on:
        raise ValueError(
            f"the sets were found on model {found_on}, not on {facts.get('name', 'the one given')} ({facts['fingerprint']}): "
            "pass the model they were found on"
        )
    blank = torch.zeros(shape, dtype=torch.bool)
    lists = [[row.nonzero().flatten() for row in neurons.masks.get(site, blank)] for neurons in sets.values()]
    sidecar = {
        "format": _FORMAT,
        "languages": list(sets),
        "k": len(sets),
        "site": site,
        "layers": shape[0],
        "width": shape[1],
        "model": facts.get("name"),
        "revision": facts.get("revision"),
        "fingerprint": found_on or facts.get("fingerprint"),
        "content": _content(lists),
    }
    path = Path(path)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.save(lists, file)

    write_atomically(path, write)
    write_json(_sidecar(path), sidecar)
    return path


def read_masks(path: str | Path, model: Any, *, languages: Sequence[str] | None = None) -> dict[str, NeuronSet]:
    """Read a mask file, the released ones included.

    Args:
        path: The mask file. Its sidecar, if there is one, must agree with it.
        model: The model it is for, which gives layers and width, and is compared with the sidecar's; or `(layers, width)` alone.
        languages: Names in the order of the file; needed without a sidecar, and checked against it otherwise.

    Returns:
        A set per language, on the sidecar's site (`ffn` without one). Its `model` is the sidecar's fingerprint: a file that does not say where it
        comes from gives sets of an unknown model.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no mask file (or one that wants to run code), has more or fewer lists than languages, is for another model, or does not
            belong to its sidecar.
    """
    path = Path(path)
    lists = _load(path)
    facts = _facts(path, lists)
    names = _names(path, len(lists), facts, languages)
    (site,) = require_sites([facts.get("site", "ffn")], NEURON_SITES)
    layers, width = _shape(model, site)
    if (
        facts.get("fingerprint")
        and not isinstance(model, tuple)
        and facts["fingerprint"] != (own := fingerprint(model))
    ):
        raise ValueError(
            f"{path} is a mask of model {facts.get('model') or 'unknown'} ({facts['fingerprint']}), not of this one ({own}): units of different "
            f"models do not correspond. If only its dtype differs, pass the shape ({layers}, {width}) instead of the model"
        )
    if facts and (facts["layers"], facts["width"]) != (layers, width):
        raise ValueError(
            f"{path} is a mask of {facts['layers']} layers of {facts['width']} units, and this model has {layers} of {width}: "
            "it was made for another model"
        )
    sets = {}
    for name, of_language in zip(names, lists, strict=True):
        if len(of_language) != layers:
            raise ValueError(
                f"{path} has {len(of_language)} layers for {name!r}, and this model has {layers}: it was made for another model"
            )
        mask = torch.zeros(layers, width, dtype=torch.bool)
        for layer, units in enumerate(of_language):
            if len(units) and not 0 <= int(units.min()) <= int(units.max()) < width:
                outside = units[(units < 0) | (units >= width)][0].item()
                raise ValueError(
                    f"{path} names unit {outside} in layer {layer} of {name!r}, and this model has units 0..{width - 1}: "
                    "it was made for another model"
                )
            mask[layer, units.long()] = True
        sets[name] = NeuronSet({site: mask}, model=facts.get("fingerprint"))
    return sets


def _common(sets: Mapping[str, NeuronSet]) -> tuple[Site, tuple[int, int], str | None]:
    """Site, (layers, width) and fingerprint that all sets share."""
    if not sets:
        raise ValueError("no language to write: pass a mapping of language to NeuronSet")
    # a union refuses other shapes and other models
    union = next(iter(sets.values()))
    for neurons in sets.values():
        union = union | neurons
    inside: list[Site] = [site for site, mask in union.masks.items() if bool(mask.any())] or list(union.sites)
    if len(inside) != 1:
        raise ValueError(
            f"a mask file has one list of units per layer, and these sets have {', '.join(inside) or 'no site'}: "
            "write .only(sites=[...]) of one site, or use save(...)"
        )
    return inside[0], union.shapes[inside[0]], union.model


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _content(lists: Sequence[Sequence[Tensor]]) -> str:
    return content_hash([[units.tolist() for units in layers] for layers in lists])


def _load(path: Path) -> list[list[Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"no mask file {path}: check the path")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the restricted loader meets in a foreign file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} was not read: it is truncated, no torch file, or holds more than tensors and lists, which is never executed ({reason})"
        ) from error
    if not isinstance(loaded, list | tuple) or not all(isinstance(layers, list | tuple) for layers in loaded):
        raise ValueError(
            f"{path} holds {type(loaded).__name__}, not a list over languages of lists over layers: no mask file"
        )
    for language, layers in enumerate(loaded):
        for layer, units in enumerate(layers):
            if isinstance(units, Tensor) and not units.numel():
                continue  # of any dtype: `torch.tensor([])` is a float
            if not isinstance(units, Tensor) or units.ndim != 1 or units.dtype not in (torch.int64, torch.int32):
                got = f"{units.dtype} {list(units.shape)}" if isinstance(units, Tensor) else type(units).__name__
                raise ValueError(
                    f"{path}: list {language}, layer {layer} is {got}, not a vector of unit indices: no mask file"
                )
            if len(units.unique()) != len(units):
                raise ValueError(f"{path}: list {language}, layer {layer} names a unit twice: the file is damaged")
    return [[units.flatten().long() for units in layers] for layers in loaded]


def _facts(path: Path, lists: list[list[Tensor]]) -> dict[str, Any]:
    """What the sidecar says, or nothing."""
    beside = _sidecar(path)
    if not beside.is_file():
        return {}
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
        complete = facts["format"] == _FORMAT and {"languages", "site", "layers", "width", "content"} <= facts.keys()
    except (ValueError, KeyError, TypeError):
        complete, facts = False, {}
    if not complete:
        raise ValueError(
            f"{beside} was not written by mwork_lens ({_FORMAT}): rename it, and name the languages yourself"
        )
    if facts["content"] != _content(lists):
        raise ValueError(
            f"{beside} belongs to another mask than {path}: write both again, or remove the one that is wrong"
        )
    return facts


def _names(path: Path, count: int, facts: Mapping[str, Any], languages: Sequence[str] | None) -> list[str]:
    """The languages of the lists, in order."""
    if languages is None and not facts:
        raise ValueError(
            f"{path} holds {count} lists and names no languages: pass languages=[...] in the order of the file"
        )
    names = list(facts["languages"] if languages is None else languages)
    if facts and names != facts["languages"]:
        raise ValueError(
            f"{path} has the languages {', '.join(facts['languages'])}, not {', '.join(names)}: leave languages out"
        )
    if len(set(names)) != len(names):
        raise ValueError(f"a language is named twice in {', '.join(names)}: name each once")
    if count < len(names):
        raise ValueError(
            f"{path} holds {count} lists and {len(names)} languages were named ({', '.join(names)}): the released script drops languages without "
            f"units from the end. If that happened here, name the first {count} only; if not, the file is of another run"
        )
    if count > len(names):
        raise ValueError(
            f"{path} holds {count} lists and {len(names)} languages were named ({', '.join(names)}): name all, in order"
        )
    return names


def _shape(model: Any, site: Site) -> tuple[int, int]:
    if isinstance(model, tuple):
        layers, width = model
        return int(layers), int(width)
    return shape_of(model, [site])[site]
