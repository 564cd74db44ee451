"""The activation function inside an FFN, verified on the model itself.

LAPE counts and steering sets act(gate), the unit behind its activation function and before it multiplies the output of W_up (site `ffn_act`). No
hook point carries it: TransformerLens has the pre-activation (`ffn_gate`), the up projection (`ffn_up`) and the product (`ffn`). The function
cannot be taken from the configuration, which names the wrong one for BLOOM and mT5. So every function that could be it is tried on a short run,
and one is accepted only if it reproduces the model's own `ffn` in every layer:

    ffn = act(ffn_gate) * ffn_up     where there is a gate,        ffn = act(ffn_gate)     where there is none

An FFN that none reproduces (a bias or a clamp in between) is refused.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .sites import blocks, has_hook, hook_name, n_layers, require_hook

Activation = Callable[[Tensor], Tensor]

_OWN = "the model's own"
_USUAL = (
    "silu",
    "gelu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "quick_gelu",
    "relu",
    "relu2",
    "sigmoid",
    "tanh",
)

_known: WeakKeyDictionary[Any, tuple[Activation, ...]] = WeakKeyDictionary()


def is_gated(model: Any, layer: int = 0) -> bool:
    """Whether the FFN multiplies act(gate) by an up projection."""
    return has_hook(model, "ffn_up", layer)


def activation(model: Any, layer: int) -> Activation:
    """The activation function of a layer's FFN.

    Raises:
        ValueError: No known function reproduces this model's FFN; the model has no such hook points or layer.
        NotImplementedError: A mixture-of-experts block.
    """
    require_hook(model, "ffn_gate", layer)
    require_hook(model, "ffn", layer)
    if model not in _known:
        _known[model] = _verified(model)
    return _known[model][layer]


@dataclass
class _Flow:
    """A layer's FFN in the forward in progress, while an edit of act(gate) is in force."""

    users: int = 0
    gate: Tensor | None = None
    up: Tensor | None = None
    act: Tensor | None = None
    """As edited so far; None before the first edit of this forward."""


_flows: WeakKeyDictionary[Any, dict[int, _Flow]] = WeakKeyDictionary()


@contextmanager
def act_edits(model: Any, layers: Iterable[int]) -> Iterator[None]:
    """Follow the FFN of gated layers while edits of act(gate) are in force; nothing is kept afterwards."""
    flows, mine = _flows.setdefault(model, {}), [layer for layer in layers if is_gated(model, layer)]
    for layer in mine:
        flows.setdefault(layer, _Flow()).users += 1
    try:
        yield
    finally:
        for layer in mine:
            flows[layer].users -= 1
            if not flows[layer].users:
                del flows[layer]


def edited_act(model: Any, layer: int) -> Tensor | None:
    """act(gate) of the forward in progress as edits in force have left it; None where none has touched it."""
    flow = _flows.get(model, {}).get(layer)
    return None if flow is None else flow.act


def followed(model: Any, layer: int) -> bool:
    """Whether an edit of this layer's act(gate) is in force (on a gated FFN)."""
    return layer in _flows.get(model, {})


def act_hook(model: Any, layer: int, change: Callable[[Tensor], Tensor]) -> tuple[str, Any]:
    """A hook (name, function) that puts `change(act(gate))` in the place of act(gate): new act(gate) x up, for the units it changed.

    Needs `readers` of the layer, registered last of all, and `act_edits` around them.
    """
    act, name = activation(model, layer), hook_name("ffn", layer)
    if not is_gated(model, layer):
        return name, lambda ffn, hook: change(ffn)
    flow = _flows[model][layer]

    def on_ffn(ffn: Tensor, hook: Any) -> Tensor:
        assert flow.gate is not None, "the pre-activation was not read"
        assert flow.up is not None, "the up projection was not read"
        before = act(flow.gate) if flow.act is None else flow.act
        flow.act = change(before)
        return torch.where(flow.act == before, ffn, flow.act * flow.up)

    return name, on_ffn


def readers(model: Any, layer: int) -> list[tuple[str, Any]]:
    """Hooks that note a gated layer's pre-activation and up projection, as they are behind every hook registered before."""
    flow = _flows[model][layer]

    def on_gate(gate: Tensor, hook: Any) -> None:
        flow.gate, flow.act = gate, None

    def on_up(up: Tensor, hook: Any) -> None:
        flow.up = up

    return [(hook_name("ffn_gate", layer), on_gate), (hook_name("ffn_up", layer), on_up)]


def _verified(model: Any) -> tuple[Activation, ...]:
    """One function per layer, each shown to reproduce the FFN of its layer on a short run."""
    seen = _probe(model)
    found: list[Activation] = []
    for layer in range(n_layers(model)):
        gate, ffn, up = (seen.get((site, layer)) for site in ("ffn_gate", "ffn", "ffn_up"))
        if gate is None or ffn is None:
            raise ValueError(
                f"the FFN hook points of layer {layer} are listed but never fired: act(gate) cannot be measured on this model"
            )
        if not bool(torch.isfinite(ffn).all()):
            raise ValueError(
                f"the FFN of layer {layer} gives NaN or infinite values: load the model with dtype='float32', or mend its weights"
            )
        found.append(_identify(layer, gate, ffn, up, list(_candidates(model, layer))))
    return tuple(found)


def _identify(
    layer: int, gate: Tensor, ffn: Tensor, up: Tensor | None, candidates: list[tuple[str, Any]]
) -> Activation:
    """The candidate that reproduces `ffn`: the block's own module if it does, else the nearest, if no other is as near."""
    wanted, tolerance = ffn.float(), 8 * torch.finfo(ffn.dtype).eps
    size = wanted.abs().max().clamp_min(1e-12)
    made = {name: act(gate.float()) * (1 if up is None else up.float()) for name, act in candidates}
    errors = {name: float((value - wanted).abs().max() / size) for name, value in made.items()}
    good = [name for name in errors if errors[name] <= tolerance]
    own = [name for name in good if name.startswith(_OWN)]
    typical = {name: float((made[name] - wanted).square().mean()) for name in good}
    best = own[0] if own else min(good, key=lambda name: typical[name], default=None)
    if best is None:
        nearest = min(errors, key=lambda name: errors[name])
        raise ValueError(
            f"the activation function of layer {layer} is none of {', '.join(errors)} (nearest: {nearest}, {errors[nearest]:.1e} of the largest "
            "activation): act(gate) of this architecture is not understood; measure 'ffn' or 'ffn_gate' instead"
        )
    rivals = [name for name in good if typical[name] <= 2 * typical[best] and not torch.equal(made[name], made[best])]
    if not own and rivals:
        raise ValueError(
            f"the activation function of layer {layer} may be {best} or {rivals[0]}: they cannot be told apart in {ffn.dtype}; load the model "
            "with dtype='float32'"
        )
    return dict(candidates)[best]


def _probe(model: Any) -> dict[tuple[str, int], Tensor]:
    """Pre-activation, up projection and product of every layer on eight tokens, with all other hooks suspended."""
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(x: Tensor, hook: Any, *, place: tuple[str, int]) -> None:
        seen[place] = x.detach().clone()

    places = [
        (site, layer)
        for layer in range(n_layers(model))
        for site in ("ffn_gate", "ffn_up", "ffn")
        if has_hook(model, site, layer)
    ]
    device = next(blocks(model).parameters()).device
    ids = torch.arange(8, device=device)[None] % int(model.W_E.shape[0])
    hooks = [(hook_name(*place), partial(keep, place=place)) for place in places]
    with suspended(model), torch.no_grad(), model.hooks(fwd_hooks=hooks):
        model(ids)
    return seen


@contextmanager
def suspended(model: Any) -> Iterator[None]:
    """The model as if no edit were in force: hooks on its hook points are set aside for the length of a `with`."""
    points = {id(point): point for point in model.hook_dict.values()}.values()
    held = [(point, point._forward_hooks) for point in points]
    for point, hooks in held:
        point._forward_hooks = type(hooks)()
    try:
        yield
    finally:
        for point, hooks in held:
            point._forward_hooks = hooks


def _candidates(model: Any, layer: int) -> Iterator[tuple[str, Any]]:
    """Functions that could be it: the block's own modules first, then the usual ones by name."""
    block = blocks(model)[layer]
    for holder in (getattr(block, "mlp", None), block):
        original = getattr(holder, "original_component", None)
        for name in ("act_fn", "act", "activation_fn", "gelu_impl", "activation", "dropout_act"):
            act = getattr(original, name, None)
            if callable(act):
                yield f"{_OWN} {name}", act
    from transformers.activations import ACT2FN

    for name in _USUAL:
        yield name, ACT2FN[name]
