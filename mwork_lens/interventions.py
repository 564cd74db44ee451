"""Change what a model computes, for the length of a `with`.

An `Edit` is data: a mapping from (site, layer) to a function of the activation there. `applied(model, *edits)` puts edits on the model's hook
points and takes them off again; the weights are never touched, so the model is bit-identical afterwards. Edits nest (a later one sees what an
earlier one made of the activation), work under `generate`, and refuse to do nothing: an edit that never fired raises on leaving.

    with deactivate(model, neurons):          = applied(model, zero(neurons))
        model(tokens)

Activations arrive as [batch pos width] at the neuron sites and the residual stream. During generation with a cache, pos is the prompt first and
then 1: an edit must broadcast over positions, unless it is meant for the prompt only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .capture import capture
from .corpora import Tokens
from .models import fingerprint
from .neurons import NeuronSet
from .sites import Site, delegates_attention, flatten_heads, like_hook, n_layers, require_hook, require_sites, width

Change = Callable[[Tensor], Tensor]


class Edit(Mapping[tuple[Site, int], Change]):
    """What to do to the activation at each (site, layer).

    Args:
        changes: Functions of a [batch pos width] activation that return one of the same shape.
        name: Shown in errors.
        model: Fingerprint of the model the edit is meant for; None means any.
        widths: Units expected at each site, checked against the model when applied.
    """

    def __init__(
        self,
        changes: Mapping[tuple[Site, int], Change],
        *,
        name: str = "edit",
        model: str | None = None,
        shapes: Mapping[Site, tuple[int, int]] | None = None,
    ) -> None:
        self._changes = dict(changes)
        self.name, self.model, self.shapes = name, model, dict(shapes or {})

    def __getitem__(self, place: tuple[Site, int]) -> Change:
        return self._changes[place]

    def __iter__(self) -> Iterator[tuple[Site, int]]:
        return iter(self._changes)

    def __len__(self) -> int:
        return len(self._changes)

    def __repr__(self) -> str:
        return f"Edit({self.name} at {', '.join(f'{site}[{layer}]' for site, layer in self) or 'nowhere'})"


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
        ValueError: The set is empty, or `values` lacks a site or has another shape.
    """
    if isinstance(values, Mapping):
        for site, mask in neurons.masks.items():
            if bool(mask.any()) and (site not in values or values[site].shape != mask.shape):
                got = list(values[site].shape) if site in values else "nothing"
                raise ValueError(f"set_to needs values [layer, width] {list(mask.shape)} for site {site!r}, got {got}")

    def make(site: Site, layer: int, mask: Tensor) -> Change:
        value = values[site][layer] if isinstance(values, Mapping) else torch.tensor(float(values))
        return lambda x: torch.where(mask.to(x.device), value.to(x.device, x.dtype), x)

    return _on_units(neurons, "set_to", make)


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


@contextmanager
def applied(model: Any, *edits: Edit) -> Iterator[Any]:
    """Run the model with edits in place.

    Yields:
        The model.

    Raises:
        ValueError: No edit, an edit of another model, a missing hook point, or a change that returns another shape.
        NotImplementedError: `pattern` where the block runs Hugging Face's own attention, which ignores writes to it.
        RuntimeError: On leaving: an edit never fired, so nothing was changed.
    """
    if not edits or not any(len(edit) for edit in edits):
        raise ValueError("applied() without an edit would do nothing: pass zero(neurons) or another edit")
    fired: dict[tuple[int, Site, int], int] = {}
    hooks = []
    for number, edit in enumerate(edits):
        _require_fit(model, edit)
        for (site, layer), change in edit.items():
            name = require_hook(model, site, layer)
            fired[number, site, layer] = 0
            hooks.append((name, partial(_change, change=change, site=site, layer=layer, number=number, fired=fired)))
    with model.hooks(fwd_hooks=hooks):
        yield model
    silent = [f"{site}[{layer}] of {edits[number].name}" for (number, site, layer), count in fired.items() if not count]
    if silent:
        raise RuntimeError(
            f"these edits never fired: {', '.join(silent)} - the model was not run inside the with, or not through these layers"
        )


def _change(
    activation: Tensor,
    hook: Any,
    *,
    change: Change,
    site: Site,
    layer: int,
    number: int,
    fired: dict[tuple[int, Site, int], int],
) -> Tensor:
    flat = flatten_heads(site, activation)
    new = change(flat)
    if new.shape != flat.shape:
        raise ValueError(
            f"the edit at {site!r} of layer {layer} returned {list(new.shape)} for an activation of {list(flat.shape)}"
        )
    fired[number, site, layer] += 1
    return like_hook(site, new, activation)


def _require_fit(model: Any, edit: Edit) -> None:
    if edit.model is not None and edit.model != fingerprint(model):
        raise ValueError(
            f"{edit!r} was made for another model ({edit.model}): detect the neurons on this model ({fingerprint(model)})"
        )
    layers = n_layers(model)
    for site, layer in edit:
        require_sites([site])
        if not 0 <= layer < layers:
            raise ValueError(f"the edit names layer {layer}, this model has layers 0..{layers - 1}")
        if site == "pattern" and delegates_attention(model, layer):
            raise NotImplementedError(
                "this model runs Hugging Face's own attention, which ignores a changed pattern: edit z instead"
            )
        expected = edit.shapes.get(site)
        if expected is not None and expected != (layers, width(model, site, layer)):
            raise ValueError(
                f"the neurons of site {site!r} are [layer, width] {list(expected)}, this model has "
                f"{[layers, width(model, site, layer)]} - detected on another model?"
            )


def deactivate(model: Any, neurons: NeuronSet) -> Any:
    """`applied(model, zero(neurons))`: the model without these neurons, for the length of a `with`."""
    return applied(model, zero(neurons))
