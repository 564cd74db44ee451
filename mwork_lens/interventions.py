"""The changes: zero, scale, set_to, steer, patch.

Each makes an `Edit` (edits.py), which `applied` puts on a model for the length of a `with`:

    with deactivate(model, neurons):          = applied(model, zero(neurons))
        model(tokens)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .capture import capture
from .corpora import Tokens
from .edits import Change, Edit, applied
from .neurons import NeuronSet
from .sites import SITES, Site, require_sites


def _on_units(neurons: NeuronSet, name: str, make: Callable[[Site, int, Tensor], Change]) -> Edit:
    """An edit with one function per layer and site in which the set has neurons."""
    changes: dict[tuple[Site, int], Change] = {
        (site, layer): make(site, layer, mask[layer])
        for site, mask in neurons.masks.items()
        for layer in range(mask.shape[0])
        if bool(mask[layer].any())
    }
    if not changes:
        raise ValueError(f"{name}: this NeuronSet is empty, so the edit would do nothing; check `if neurons:` before")
    return Edit(changes, name=name, model=neurons.model, shapes=neurons.shapes)


def zero(neurons: NeuronSet) -> Edit:
    """Deactivate neurons: their output is zero (what zeroing their weights and bias does, to rounding).

    Raises:
        ValueError: The set is empty.
    """

    def make(site: Site, layer: int, mask: Tensor) -> Change:
        return lambda x: torch.where(mask.to(x.device), torch.zeros((), dtype=x.dtype, device=x.device), x)

    return _on_units(neurons, "zero", make)


def scale(neurons: NeuronSet, by: float) -> Edit:
    """Multiply the activation of neurons.

    Raises:
        ValueError: The set is empty, or `by` is not finite.
    """
    if not torch.isfinite(torch.tensor(by)):
        raise ValueError(f"scale by {by}: give a finite number")

    def make(site: Site, layer: int, mask: Tensor) -> Change:
        return lambda x: torch.where(mask.to(x.device), x * by, x)

    return _on_units(neurons, "scale", make)


def set_to(neurons: NeuronSet, values: float | Mapping[Site, Float[Tensor, "layer width"]]) -> Edit:
    """Put neurons at given values, at every position.

    Args:
        neurons: Which.
        values: One number, or per site [layer, width] (entries outside the set are ignored), such as mean activations.

    Raises:
        ValueError: The set is empty, or `values` lacks a site, has another shape, or is not finite.
    """
    given = [values] if not isinstance(values, Mapping) else list(values.values())
    if not all(bool(torch.isfinite(torch.as_tensor(value)).all()) for value in given):
        raise ValueError("set_to: a value is NaN or infinite; give finite numbers")
    if isinstance(values, Mapping):
        for site, mask in neurons.masks.items():
            if bool(mask.any()) and (site not in values or values[site].shape != mask.shape):
                got = list(values[site].shape) if site in values else "nothing"
                raise ValueError(f"set_to needs values [layer, width] {list(mask.shape)} for site {site!r}, got {got}")

    def make(site: Site, layer: int, mask: Tensor) -> Change:
        value = values[site][layer] if isinstance(values, Mapping) else torch.tensor(float(values))
        return lambda x: torch.where(mask.to(x.device), value.to(x.device, x.dtype), x)

    return _on_units(neurons, "set_to", make)


def steer(
    direction: Float[Tensor, " width"] | Float[Tensor, "layer width"],
    site: Site,
    layers: Iterable[int] | None = None,
    *,
    by: float = 1.0,
    model: str | None = None,
) -> Edit:
    """Add a direction to the activations at a site, at every position: x + by * direction.

    Args:
        direction: One for all layers, or one per layer of the model.
        site: Where, such as `resid_post` or `ffn_act`.
        layers: In which layers; default those of `direction` that are not zero. Required with a single direction.
        by: Strength.
        model: Fingerprint of the model it was measured on; None means any.

    Raises:
        ValueError: The direction is zero, not finite, or has no such layer; a single direction without layers.
    """
    require_sites([site], [name for name in SITES if name != "pattern"])
    if not bool(torch.isfinite(direction).all()) or not torch.isfinite(torch.tensor(by)):
        raise ValueError(
            "steer: the direction or its strength is NaN or infinite; measure it on tokens the model can read"
        )
    if direction.ndim == 1:
        if layers is None:
            raise ValueError("steer: one direction for every layer needs layers=..., such as layers=[3]")
        chosen = dict.fromkeys(layers, direction)
    else:
        rows = [i for i in range(len(direction)) if bool(direction[i].any())] if layers is None else list(layers)
        if outside := [i for i in rows if not 0 <= i < len(direction)]:
            raise ValueError(
                f"steer: layer {outside[0]} does not exist, the direction has layers 0..{len(direction) - 1}"
            )
        chosen = {i: direction[i] for i in rows}
    if not by or not any(bool(row.any()) for row in chosen.values()):
        raise ValueError("steer: the direction is zero in these layers, so the edit would do nothing")

    def make(row: Tensor) -> Change:
        return lambda x: x + by * row.to(x.device, x.dtype)

    shapes: dict[Site, tuple[int, int]] = {site: (len(direction), direction.shape[1])} if direction.ndim == 2 else {}
    return Edit({(site, i): make(row) for i, row in chosen.items()}, name="steer", model=model, shapes=shapes)


def patch(source: Mapping[tuple[Site, int], Float[Tensor, "batch pos width"]], where: NeuronSet | None = None) -> Edit:
    """Replace activations by those of another run (`record` makes them).

    Args:
        source: Activations per (site, layer), of the same batch and positions as the run to be patched. If that run is longer (a
            generation), the patched positions are the first ones, in the call that holds the prompt.
        where: Units to replace; all if None.

    Raises:
        ValueError: Nothing to patch, or (when applied) the shapes do not fit.
    """
    if not source:
        raise ValueError("patch: no activations given; record(model, tokens, sites) makes them")

    def make(site: Site, layer: int, new: Tensor) -> Change:
        mask = None if where is None else where.masks[site][layer]

        def change(x: Tensor) -> Tensor:
            if x.shape[1] == 1 and new.shape[1] > 1:  # a generation step after the prompt
                return x
            if x.shape[0] != new.shape[0] or x.shape[1] < new.shape[1] or x.shape[2:] != new.shape[2:]:
                raise ValueError(
                    f"patch of {site!r} in layer {layer} holds {list(new.shape)}, the run has {list(x.shape)}: [batch pos width] must fit"
                )
            put = new.to(x.device, x.dtype)
            part = x[:, : new.shape[1]]
            return torch.cat(
                [put if mask is None else torch.where(mask.to(x.device), put, part), x[:, new.shape[1] :]], dim=1
            )

        return change

    places = {
        place: new
        for place, new in source.items()
        if where is None or (place[0] in where.masks and bool(where.masks[place[0]][place[1]].any()))
    }
    if not places:
        raise ValueError(
            "patch: the recorded activations and the neuron set have no layer in common, so the edit would do nothing"
        )
    shapes: dict[Site, tuple[int, int]] = {} if where is None else {site: where.shapes[site] for site, _ in places}
    return Edit(
        {(s, i): make(s, i, x) for (s, i), x in places.items()},
        name="patch",
        model=None if where is None else where.model,
        shapes=shapes,
    )


def record(
    model: Any, tokens: Tokens | Tensor, sites: Iterable[str], *, layers: Iterable[int] | None = None
) -> dict[tuple[Site, int], Tensor]:
    """Activations [batch pos width] per (site, layer), copied, for `patch`. Ask for the layers you need: this is a cache.

    Raises:
        ValueError: As `capture`; `pattern` cannot be patched.
    """
    chosen = require_sites(sites)
    if "pattern" in chosen:
        raise ValueError("pattern cannot be recorded for patching: patch z, which is what the pattern makes")
    kept: dict[tuple[Site, int], Tensor] = {}

    def on_layer(layer: int, activations: Mapping[str, Tensor]) -> None:
        kept.update({(site, layer): activations[site].clone() for site in chosen})

    capture(model, tokens, chosen, on_layer, layers=layers)
    return kept


def deactivate(model: Any, neurons: NeuronSet) -> Any:
    """`applied(model, zero(neurons))`: the model without these neurons, for the length of a `with`."""
    return applied(model, zero(neurons))
