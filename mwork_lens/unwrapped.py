"""The same model without hook points, for FFN statistics: Hugging Face's own forward, with fused attention, and without the unembedding.

TransformerLens must run eager attention, which forms [head pos pos] scores: at 2,048 tokens a forward costs 2.6 times that of the fused kernel.
FFN statistics need no scores. So the Hugging Face model is made a second time around the same parameters (nothing is copied), with the kernel
PyTorch offers, and its FFN modules, found by the identity of their weights, are listened to. It is used only if it is shown to agree
with the hook points on a short run; families whose weights TransformerLens splits or fuses (GPT-2, BLOOM, NeoX, Phi3), quantised models and models
over several devices run through the hook points, as does everything while an edit is in force or once weights were replaced.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .gates import is_gated
from .sites import blocks, hook_name, n_layers
from .tokens import Tokens

Listener = Callable[[int, str, Tensor], None]
"""Called as `listener(layer, site, activation)`."""

_AGREE = 1e-4
"""Largest difference from the hook points, in units of the largest activation, in float32; 2e-2 in half precision."""


@dataclass(frozen=True)
class Unwrapped:
    """A Hugging Face model that shares the parameters of a TransformerLens model."""

    model: Any
    """Without its unembedding."""
    modules: Mapping[tuple[str, int], Any]
    """The linear module of (site, layer): its output is `ffn_gate` or `ffn_up`, its input `ffn`."""
    gated: bool
    """Whether act(gate) multiplies an up projection; without, `ffn_act` is `ffn`."""
    parameters: frozenset[int]
    """Identities of the parameters of the TransformerLens model when this was made."""

    def reads(self, site: str) -> str:
        """The site whose module is listened to."""
        return ("ffn_gate" if self.gated else "ffn") if site == "ffn_act" else site

    def run(self, tokens: Tokens, sites: Iterable[str], layers: Iterable[int], listener: Listener) -> None:
        """One forward without gradients."""
        handles = []
        for layer in layers:
            for site in sites:
                module = self.modules[self.reads(site), layer]
                if self.reads(site) == "ffn":
                    handles.append(module.register_forward_pre_hook(_input(listener, layer, site)))
                else:
                    handles.append(module.register_forward_hook(_output(listener, layer, site)))
        device = next(self.model.parameters()).device
        mask = None if tokens.attention_mask is None else tokens.mask.to(device).long()
        try:
            with torch.no_grad():
                self.model(tokens.ids.to(device), attention_mask=mask, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()


def _input(listener: Listener, layer: int, site: str) -> Any:
    return lambda module, inputs: listener(layer, site, inputs[0].detach())


def _output(listener: Listener, layer: int, site: str) -> Any:
    return lambda module, inputs, output: listener(layer, site, output.detach())


_known: WeakKeyDictionary[Any, Unwrapped | None] = WeakKeyDictionary()


def unwrapped(model: Any, tokens: Tokens, sites: Iterable[str]) -> Unwrapped | None:
    """The model to listen to instead, or None where the hook points must be used.

    Args:
        model: A TransformerLens model.
        tokens: What it is to read: padding anywhere but on the right needs the hook points, which number positions.
        sites: Of the FFN: `ffn`, `ffn_gate`, `ffn_up`; for `ffn_act` of a gated FFN the listener receives the pre-activation.
    """
    mask = tokens.mask
    right = bool(mask[:, 0].all()) and bool((mask[:, 1:] <= mask[:, :-1]).all())
    if not right or any(point.fwd_hooks or point.bwd_hooks for point in model.hook_dict.values()):
        return None
    if model not in _known:
        _known[model] = _make(model)
    found = _known[model]
    if found is None or not all((found.reads(site), 0) in found.modules for site in sites):
        return None
    if found.parameters != _identities(model):  # somebody assigned new weights, which the shared model does not have
        return None
    return found


def _make(model: Any) -> Unwrapped | None:
    original = getattr(model, "original_model", None)
    parameters = list(model.parameters())
    if (
        original is None
        or len({p.device for p in parameters}) != 1
        or not all(p.is_floating_point() for p in parameters)
    ):
        return None
    try:
        plain = _share(original)
        shared = {id(p) for p in plain.parameters()} | {id(p) for p in original.get_output_embeddings().parameters()}
        if not _identities(model) <= shared:  # split or fused copies: an edit of those would not reach this model
            return None
        made = Unwrapped(plain, _modules(model, plain), is_gated(model), _identities(model))
        return made if made.modules and _agrees(model, made) else None
    except Exception:  # whatever Hugging Face cannot build again has its hook points
        return None


def _identities(model: Any) -> frozenset[int]:
    return frozenset(id(p) for p in model.parameters())


def _share(original: Any) -> Any:
    """Hugging Face's model around the parameters and buffers of the wrapped one."""
    config = original.config.__class__.from_dict(original.config.to_dict())
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = type(original)._from_config(config, attn_implementation="sdpa")
    state = {plain_name(name): value for name, value in original.named_parameters(remove_duplicate=False)}
    state |= {plain_name(name): value for name, value in original.named_buffers(remove_duplicate=False)}
    base = made.base_model
    prefix = f"{made.base_model_prefix}."
    for names in (base.named_parameters(remove_duplicate=False), base.named_buffers(remove_duplicate=False)):
        for name, _ in list(names):
            place, _, last = name.rpartition(".")
            value = state[prefix + name]
            holder = base.get_submodule(place)
            if last in holder._parameters:
                holder._parameters[last] = value
            else:
                holder._buffers[last] = value
    return base.eval()


def plain_name(name: str) -> str:
    """What Hugging Face calls a parameter of the model that TransformerLens wraps."""
    return name.replace("._original_component", "").replace("_original_component.", "")


def _modules(model: Any, plain: Any) -> dict[tuple[str, int], Any]:
    """The FFN modules, found by the identity of their weights."""
    by_weight = {
        id(m.weight): m for m in plain.modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 2
    }
    modules = {}
    for layer, block in enumerate(blocks(model)):
        parts = (
            {"ffn_gate": "gate", "ffn_up": "in", "ffn": "out"}
            if is_gated(model, layer)
            else {"ffn_gate": "in", "ffn": "out"}
        )
        for site, name in parts.items():
            mine = getattr(getattr(getattr(block, "mlp", None), name, None), "original_component", None)
            theirs = by_weight.get(id(getattr(mine, "weight", None)))
            if theirs is not None:
                modules[site, layer] = theirs
    complete = {site for site, _ in modules if all((site, i) in modules for i in range(n_layers(model)))}
    return {place: module for place, module in modules.items() if place[0] in complete}


def _agrees(model: Any, made: Unwrapped) -> bool:
    """Whether both see the same activations of a short batch, one row of it padded."""
    ids = (torch.arange(24).reshape(2, 12) * 7) % int(model.W_E.shape[0])
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 9:] = False
    tokens = Tokens(ids, mask, "", mask)
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(x: Tensor, hook: Any, *, place: tuple[str, int]) -> None:
        seen[place] = x.detach().clone()

    device = next(made.model.parameters()).device
    hooks = [(hook_name(*place), partial(keep, place=place)) for place in made.modules]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        model(ids.to(device), attention_mask=mask.to(device).long())
    errors: list[float] = []

    def compare(layer: int, site: str, activation: Tensor) -> None:
        mine = seen[site, layer][mask].float()
        errors.append(float((activation[mask].float() - mine).abs().max() / mine.abs().max().clamp_min(1e-12)))

    made.run(tokens, sorted({site for site, _ in made.modules}), range(n_layers(model)), compare)
    half = next(made.model.parameters()).dtype in (torch.float16, torch.bfloat16)
    return len(errors) == len(made.modules) and max(errors) <= (2e-2 if half else _AGREE)
