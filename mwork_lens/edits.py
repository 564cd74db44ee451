"""Put changes of activations on a model, for the length of a `with`, and take them off again.

An `Edit` is data: a mapping from (site, layer) to a function of the activation there. `applied(model, *edits)` puts edits on the model's hook
points and takes them off again; the weights are never touched, so the model is bit-identical afterwards. Edits nest (a later one sees what an
earlier one made of the activation), work under `generate`, and refuse to do nothing: an edit that never fired raises on leaving.

Activations arrive as [batch pos width] at the neuron sites and the residual stream. During generation with a cache, pos is the prompt first and
then 1: an edit must broadcast over positions, unless it is meant for some of them (`during`).

Site `ffn_act`, act(gate) before it multiplies the up projection, has no hook point: an edit there is computed from the pre-activation and written
into `ffn` as new act(gate) x up, for the units it changed and no others. Several edits at `ffn_act` see what the earlier ones made of it,
in the order given; an edit at `ffn` is not seen, so switch off and on at one site.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from .gates import act_edits, act_hook, activation, followed, readers
from .models import fingerprint
from .sites import Site, delegates_attention, flatten_heads, like_hook, n_layers, require_hook, require_sites, width

Change = Callable[[Tensor], Tensor]


class Edit(Mapping[tuple[Site, int], Change]):
    """What to do to the activation at each (site, layer).

    Args:
        changes: Functions of a [batch pos width] activation that return one of the same shape.
        name: Shown in errors.
        model: Fingerprint of the model the edit is meant for; None means any.
        shapes: [layer, width] expected at each site, checked against the model when applied.
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


def during(edit: Edit, phase: str) -> Edit:
    """The edit at some positions of a generation only: those of the `prompt`, or those of `new` tokens (or `all`).

    The prompt is told from a new token by the number of positions in a call, so prompts need at least two tokens (`generate` sees to that), and the
    model must generate with its cache. Outside a generation a call of several positions counts as a prompt, of one as a new token.

    Raises:
        ValueError: `phase` is none of the three.
    """
    if phase not in ("prompt", "new", "all"):
        raise ValueError(f"phase {phase!r}: choose prompt, new or all")
    if phase == "all":
        return edit

    changes: dict[tuple[Site, int], Change] = {place: _During(change, phase) for place, change in edit.items()}
    return Edit(changes, name=f"{edit.name} ({phase})", model=edit.model, shapes=edit.shapes)


@dataclass(frozen=True)
class _During:
    """A change at the positions of one phase."""

    change: Change
    phase: str

    def active(self, x: Tensor) -> bool:
        return (x.shape[1] > 1) == (self.phase == "prompt")

    def __call__(self, x: Tensor) -> Tensor:
        return self.change(x) if self.active(x) else x


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
    if foreign := [edit for edit in edits if not isinstance(edit, Edit)]:
        raise ValueError(
            f"applied() takes edits, got {type(foreign[0]).__name__}: write applied(model, *edits) for several"
        )
    if not any(len(edit) for edit in edits):
        raise ValueError("applied() without an edit would do nothing: pass zero(neurons) or another edit")
    fired: dict[tuple[int, Site, int], int] = {}
    hooks: list[tuple[str, Any]] = []
    for edit in edits:
        _require_fit(model, edit)
    acts = {layer for edit in edits for site, layer in edit if site == "ffn_act"}
    for layer in acts:
        activation(model, layer)  # verified before anything is in force
    with act_edits(model, acts):
        for number, edit in enumerate(edits):
            for (site, layer), change in edit.items():
                fired[number, site, layer] = 0
                look = partial(_change, change=change, site=site, layer=layer, number=number, fired=fired)
                hooks.append(
                    act_hook(model, layer, look) if site == "ffn_act" else (require_hook(model, site, layer), look)
                )
        # behind every edit of the pre-activation, those of this call and of calls around it
        touched = {
            layer
            for edit in edits
            for site, layer in edit
            if site in ("ffn_act", "ffn_gate") and followed(model, layer)
        }
        for layer in sorted(touched):
            hooks += readers(model, layer)
        with model.hooks(fwd_hooks=hooks):
            yield model
    silent = [f"{site}[{layer}] of {edits[number].name}" for (number, site, layer), count in fired.items() if not count]
    if silent:
        raise RuntimeError(
            f"these edits never fired: {', '.join(silent)} - the model was not run inside the with, or not through these layers"
        )


def _change(
    activation: Tensor,
    hook: Any = None,
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
    fired[number, site, layer] += change.active(flat) if isinstance(change, _During) else 1
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
