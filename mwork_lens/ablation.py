"""Run a model on many copies of some documents at once, each copy without another neuron; exact, and shown to be so before it is used.

Ways of doing it, fastest first; the first that agrees with `deactivate` and `document_nll` on random neurons is taken:

    fused      Hugging Face's forward around the same parameters; an FFN neuron is taken out of the block's output: out - a W_down[j]
    shared     the same, but the block of an FFN neuron is run again (a norm behind W_down makes it no rank-one change, and effects that
               are as small as rounding do not show that it is one)
    hooks      the model's own hook points
    plain      the same, and every block is run for every neuron

All but the last keep the input of the neuron's block and skip the blocks before it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from .capture import device_of
from .edits import Change, Edit, applied
from .evaluate import document_nll
from .interventions import deactivate
from .neurons import NeuronSet
from .sites import Site, blocks, n_layers, shape_of
from .tokens import Tokens
from .unwrapped import unwrapped

_CHUNK = 2048
"""Positions unembedded together."""
_LOGITS = 2**28
"""Logits held at a time, where the model makes those of every position."""
_CHECKED = 4
"""Random neurons per site, in the first and the last layer, on which a way must agree with `deactivate`."""
_SEEN = 10
"""How many times the allowed rounding the effect of a checked FFN neuron must be to show that it is a rank-one change."""


@dataclass(frozen=True)
class Stacked:
    """A way to run stacked copies."""

    path: str
    """Its name."""
    run: Callable[[Tensor, Tensor | None], Tensor]
    """Token ids [row pos] and their attention mask to states [row pos width]."""
    unembed: Callable[[Tensor], Tensor]
    """States [position width] to logits [position vocab]."""
    switch: Callable[[Site, int, Change], AbstractContextManager[Any]]
    """Puts a change of the activation [row pos width] at a site and layer in force."""
    blocks: Sequence[Any] = ()
    """The blocks, to keep what enters them and to skip them; none: all of them are run."""
    down: Mapping[int, Any] = field(default_factory=dict)
    """The W_down module per layer where an FFN neuron is a rank-one change of the block's output."""
    limit: int | None = None
    """Most tokens per forward."""

    def baseline(self, tokens: Tokens) -> Float[Tensor, " batch"]:
        """NLL of each document, nats, float64."""
        return _nll(self, self._states(tokens, 1), tokens, 1)[0]

    def ablate(
        self, tokens: Tokens, site: Site, layer: int, units: Int[Tensor, " unit"], *, stack: int = 2048
    ) -> Float[Tensor, "unit batch"]:
        """NLL of each document without each of the units alone, nats, float64.

        Args:
            tokens: Right-padded documents; scored tokens are those `keep` keeps.
            site: Where the neurons are.
            layer: In which layer.
            units: Which.
            stack: Tokens per forward.
        """
        copies = max(1, min(stack, self.limit or stack) // max(1, tokens.ids.numel() - len(tokens)))
        kept = self._keep(tokens, layer)
        scores = []
        for some in units.split(copies):
            start, hidden, switch = layer, None, nullcontext()
            if site == "ffn" and self.down:
                rows = self.down[layer].weight[:, some]
                gone = einsum(kept["down"][..., some], rows, "batch pos unit, d unit -> unit batch pos d")
                start, hidden = layer + 1, rearrange(kept["out"] - gone, "unit batch pos d -> (unit batch) pos d")
            else:
                if self.blocks:
                    hidden = kept["in"].repeat(len(some), 1, 1)
                switch = self.switch(site, layer, _off(some, len(tokens)))
            with _skipping(self.blocks[:start], hidden, kept.get("rest")), switch:
                states = self._states(tokens, len(some))
            scores.append(_nll(self, states, tokens, len(some)))
        return torch.cat(scores)

    def _states(self, tokens: Tokens, copies: int) -> Tensor:
        """States of stacked copies; the last token of the longest document predicts nothing and is not run."""
        ids = tokens.ids[:, :-1].repeat(copies, 1)
        mask = None if tokens.attention_mask is None else tokens.mask[:, :-1].repeat(copies, 1)
        with torch.no_grad():
            return self.run(ids, mask)

    def _keep(self, tokens: Tokens, layer: int) -> dict[str, Any]:
        """What enters a block and its W_down, and what leaves it."""
        kept: dict[str, Any] = {}
        if not self.blocks:
            return kept

        def on_block(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            several = isinstance(output, tuple)
            kept["in"] = (args[0] if args else kwargs["hidden_states"]).detach().clone()
            kept["out"] = (output[0] if several else output).detach().clone()
            kept["rest"] = output[1:] if several else None

        def on_down(module: Any, args: Any) -> None:
            kept["down"] = args[0].detach().clone()

        handles = [self.blocks[layer].register_forward_hook(on_block, with_kwargs=True)]
        if layer in self.down:
            handles.append(self.down[layer].register_forward_pre_hook(on_down))
        try:
            self._states(tokens, 1)
        finally:
            for handle in handles:
                handle.remove()
        return kept


def stacked(model: Any, tokens: Tokens, sites: Iterable[Site], layers: Sequence[int]) -> Stacked:
    """The fastest way that agrees with `deactivate` and `document_nll` on random neurons of these documents.

    Raises:
        RuntimeError: None does.
        ValueError: Logits are not finite.
    """
    checks = _checks(model, tokens, tuple(sites), layers)
    differing: list[str] = []
    for make in (_fused, _shared, _hooks, _plain):
        way = make(model, tokens)
        if way is None:
            continue
        try:
            worst = _disagreement(way, tokens, checks)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, AttributeError, KeyError, RuntimeError) as error:  # a block that cannot be skipped or hooked
            differing.append(f"{way.path}: {type(error).__name__}")
            continue
        if worst is None:
            return way
        differing.append(f"{way.path}: {worst}")
    raise RuntimeError(
        f"stacked ablation does not agree with deactivate() on this model ({'; '.join(differing)}): its batches are not independent"
    )


def _fused(model: Any, tokens: Tokens) -> Stacked | None:
    way = _shared(model, tokens)
    found = unwrapped(model, tokens, ["ffn"])
    if way is None or found is None:
        return None
    return replace(way, path="fused", down={layer: found.modules["ffn", layer] for layer in range(n_layers(model))})


def _shared(model: Any, tokens: Tokens) -> Stacked | None:
    found = unwrapped(model, tokens, ["ffn"])
    if found is None:
        return None
    plain, depth = found.model, n_layers(model)
    stack = next((m for m in plain.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth), None)
    head = model.original_model.get_output_embeddings()
    head = getattr(head, "original_component", head)
    by_weight = {id(m.weight): m for m in plain.modules() if getattr(m, "weight", None) is not None}
    places: dict[tuple[str, int], Any] = {("ffn", layer): found.modules["ffn", layer] for layer in range(depth)}
    for layer, block in enumerate(blocks(model)):
        for site, name in (("q", "q"), ("k", "k"), ("v", "v"), ("z", "o")):
            part = getattr(getattr(block.attn, name, None), "original_component", None)
            module = by_weight.get(id(getattr(part, "weight", None)))
            if module is not None:
                places[site, layer] = module
    if stack is None or len(places) != 5 * depth:
        return None

    def run(ids: Tensor, mask: Tensor | None) -> Tensor:  # right padding is behind every token that is scored: no mask
        return plain(ids.to(device_of(plain)), use_cache=False).last_hidden_state

    @contextmanager
    def switch(site: Site, layer: int, change: Change) -> Iterator[None]:
        module = places[site, layer]
        if site in ("z", "ffn"):
            handle = module.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:]))
        else:
            handle = module.register_forward_hook(lambda module, args, output: change(output))
        try:
            yield
        finally:
            handle.remove()

    return Stacked("shared", run, lambda x: torch.nn.functional.linear(x, head.weight, head.bias), switch, list(stack))


def _hooks(model: Any, tokens: Tokens) -> Stacked:
    return replace(_plain(model, tokens), path="hooks", blocks=list(blocks(model)))


def _plain(model: Any, tokens: Tokens) -> Stacked:
    device = device_of(model)

    def run(ids: Tensor, mask: Tensor | None) -> Tensor:
        return model(ids.to(device), attention_mask=None if mask is None else mask.to(device).long())

    def switch(site: Site, layer: int, change: Change) -> AbstractContextManager[Any]:
        return applied(model, Edit({(site, layer): change}, name="ablation"))

    with torch.no_grad():
        vocabulary = int(run(tokens.ids[:1, :1], None).shape[-1])
    return Stacked("plain", run, lambda x: x, switch, limit=max(1, _LOGITS // vocabulary))


def _off(units: Int[Tensor, " unit"], documents: int) -> Change:
    """Zero one unit in each copy."""

    def change(x: Tensor) -> Tensor:
        parts = rearrange(x.clone(), "(unit batch) pos width -> unit batch pos width", batch=documents)
        parts[torch.arange(len(units)), :, :, units] = 0.0
        return rearrange(parts, "unit batch pos width -> (unit batch) pos width")

    return change


@contextmanager
def _skipping(skipped: Sequence[Any], hidden: Tensor | None, rest: Any) -> Iterator[None]:
    """Make blocks hand on a state instead of computing it."""
    before = [block.__dict__.get("forward") for block in skipped]
    for block in skipped:
        block.__dict__["forward"] = lambda *_, **__: hidden if rest is None else (hidden, *rest)
    try:
        yield
    finally:
        for block, forward in zip(skipped, before, strict=True):
            del block.__dict__["forward"]
            if forward is not None:
                block.__dict__["forward"] = forward


def _nll(way: Stacked, states: Tensor, tokens: Tokens, copies: int) -> Float[Tensor, "copy batch"]:
    """Sum over each document's scored tokens."""
    row, at = tokens.keep[:, 1:].nonzero(as_tuple=True)
    targets = tokens.ids[row, at + 1].to(states.device).repeat(copies)
    parts = rearrange(states, "(copy batch) pos width -> copy batch pos width", copy=copies)
    picked = rearrange(parts[:, row, at], "copy token width -> (copy token) width")
    losses = []
    with torch.no_grad():
        for some, target in zip(picked.split(_CHUNK), targets.split(_CHUNK), strict=True):
            losses.append(torch.nn.functional.cross_entropy(way.unembed(some).float(), target, reduction="none"))
    by_copy = rearrange(torch.cat(losses).double().cpu(), "(copy token) -> copy token", copy=copies)
    return torch.zeros(copies, len(tokens), dtype=torch.double).index_add(1, row, by_copy)


def _checks(
    model: Any, tokens: Tokens, sites: Sequence[Site], layers: Sequence[int]
) -> dict[tuple[Site, int], tuple[Tensor, Tensor, Tensor]]:
    """Per site and layer: random units, the NLL without each of them, and with all."""
    generator = torch.Generator().manual_seed(0)
    shapes, base = shape_of(model, sites), document_nll(model, tokens)
    made = {}
    for site in sites:
        for layer in dict.fromkeys((layers[0], layers[-1])):
            units = torch.randperm(shapes[site][1], generator=generator)[:_CHECKED]
            truth = []
            for unit in units.tolist():
                with deactivate(model, NeuronSet.of([(site, layer, unit)], shapes)):
                    truth.append(document_nll(model, tokens))
            made[site, layer] = units, torch.stack(truth), base
    return made


def _disagreement(
    way: Stacked, tokens: Tokens, checks: Mapping[tuple[Site, int], tuple[Tensor, Tensor, Tensor]]
) -> str | None:
    """Where a way differs from the truth, or None."""
    seen = []  # of FFN neurons, the largest effect in multiples of what rounding is allowed
    for (site, layer), (units, truth, base) in checks.items():
        found = torch.cat([way.ablate(tokens, site, layer, units), way.baseline(tokens)[None]])
        expected = torch.cat([truth, base[None]])
        rounding = 1e-4 + 5e-6 * base.abs()
        allowed = rounding + 1e-3 * (expected - base).abs()
        if bool(((found - expected).abs() > allowed).any()):
            off = float((found - expected).abs().max())
            return f"{site}[{layer}] is off by {off:.2g} nats"
        if site == "ffn":
            seen.append(float(((expected - base).abs() / rounding).max()))
    if way.down and seen and max(seen) < _SEEN:
        return "no FFN effect is large enough to tell"
    return None
