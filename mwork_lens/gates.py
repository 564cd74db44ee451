"""The activation function inside an FFN, verified on the model itself.

LAPE counts and steering sets act(gate), the unit behind its activation function and before it multiplies the output of W_up (site `ffn_act`). No
hook point carries it: TransformerLens has the pre-activation (`ffn_gate`), the up projection (`ffn_up`) and the product (`ffn`). The function
cannot be taken from the configuration, which names the wrong one for BLOOM and mT5. So every function that could be it is tried on a short run,
and one is accepted only if it reproduces the model's own `ffn` in every layer:

    ffn = act(ffn_gate) * ffn_up     where there is a gate,        ffn = act(ffn_gate)     where there is none

An FFN that none reproduces (a bias or a clamp in between) is refused.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .sites import blocks, has_hook, hook_name, n_layers, require_hook

Activation = Callable[[Tensor], Tensor]

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


_now: WeakKeyDictionary[Any, dict[int, dict[str, Tensor]]] = WeakKeyDictionary()
"""Per model and layer, gate, up and act(gate) of the forward in progress, so that several edits of act(gate) see each other."""


def gate_hooks(model: Any, layer: int, change: Callable[[Tensor], Tensor]) -> list[tuple[str, Any]]:
    """Hooks (name, function) that put `change(act(gate))` in the place of act(gate): new act(gate) x up, for the units it changed."""
    act, name = activation(model, layer), hook_name("ffn", layer)
    if not is_gated(model, layer):
        return [(name, lambda ffn, hook: change(ffn))]
    state = _now.setdefault(model, {}).setdefault(layer, {})

    def on_gate(gate: Tensor, hook: Any) -> None:
        state["gate"] = gate
        state.pop("act", None)

    def on_up(up: Tensor, hook: Any) -> None:
        state["up"] = up

    def on_ffn(ffn: Tensor, hook: Any) -> Tensor:
        before = state["act"] if "act" in state else act(state["gate"])
        after = change(before)
        state["act"] = after
        return torch.where(after == before, ffn, after * state["up"])

    return [(hook_name("ffn_gate", layer), on_gate), (hook_name("ffn_up", layer), on_up), (name, on_ffn)]


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
        errors: dict[str, float] = {}
        for name, act in _candidates(model, layer):
            made = act(gate) if up is None else act(gate) * up
            errors[name] = float((made - ffn).float().abs().max() / ffn.float().abs().max().clamp_min(1e-12))
            if errors[name] <= 8 * torch.finfo(ffn.dtype).eps:
                found.append(act)
                break
        else:
            best = min(errors, key=lambda name: errors[name])
            raise ValueError(
                f"the activation function of layer {layer} is none of {', '.join(errors)} (nearest: {best}, {errors[best]:.1e} of the largest "
                "activation): act(gate) of this architecture is not understood; measure 'ffn' or 'ffn_gate' instead"
            )
    return tuple(found)


def _probe(model: Any) -> dict[tuple[str, int], Tensor]:
    """Pre-activation, up projection and product of every layer on eight tokens.

    Edits in force do not disturb it: pre-activation and up projection are taken behind them, the product before them.
    """
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(x: Tensor, hook: Any, *, place: tuple[str, int]) -> None:
        seen[place] = x.detach().clone()

    def keep_raw(module: Any, inputs: tuple[Tensor, ...], *, place: tuple[str, int]) -> None:
        seen[place] = inputs[0].detach().clone()

    layers = range(n_layers(model))
    places = [(site, i) for i in layers for site in ("ffn_gate", "ffn_up") if has_hook(model, site, i)]
    handles = [
        model.hook_dict[hook_name("ffn", i)].register_forward_pre_hook(partial(keep_raw, place=("ffn", i)))
        for i in layers
        if has_hook(model, "ffn", i)
    ]
    device = next(blocks(model).parameters()).device
    ids = torch.arange(8, device=device)[None] % int(model.W_E.shape[0])
    try:
        with (
            torch.no_grad(),
            model.hooks(fwd_hooks=[(hook_name(*place), partial(keep, place=place)) for place in places]),
        ):
            model(ids)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _candidates(model: Any, layer: int) -> Iterator[tuple[str, Any]]:
    """Functions that could be it: the block's own modules first, then the usual ones by name."""
    block = blocks(model)[layer]
    for holder in (getattr(block, "mlp", None), block):
        original = getattr(holder, "original_component", None)
        for name in ("act_fn", "act", "activation_fn", "gelu_impl", "activation", "dropout_act"):
            act = getattr(original, name, None)
            if callable(act):
                yield f"the model's own {name}", act
    from transformers.activations import ACT2FN

    for name in _USUAL:
        yield name, ACT2FN[name]
