"""A true mixture of experts has its own experts: the frequencies of its router's choices, as `ExpertCounts`.

    f_le = kept tokens that the router of layer l sends to expert e / kept tokens

Every token is routed to `top_k` experts of each routed layer, so the mean of f is top_k / E, exactly. Layers without a router (interleaved
stacks) have no row. Router choices are those of Jiang et al. 2024 (Mixtral) and its like: Hugging Face's indices [token, top_k].

What this file does not do: activations of the unit (expert, neuron). Such a unit is computed only at the tokens routed to its expert, so each
expert has a denominator of its own, while the statistics of this package (`Moments.n`, `DocumentMoments.n`) have one for all units; and the
model offers no hook point there (its experts are one batched product inside Hugging Face's code). The FFN sites stay refused on such blocks.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..capture import as_tokens, forward
from ..corpora import Tokens
from ..models import fingerprint
from ..sites import has_hook, hook_name, is_mixture_of_experts, n_layers
from ..storage import content_hash
from .frequencies import ExpertCounts
from .scores import require_sizes

_CHOICES, _WEIGHTS = "expert_indices", "expert_weights"


def routed_layers(model: Any) -> tuple[int, ...]:
    """Layers whose block routes tokens to experts and lists the router's choices.

    Raises:
        NotImplementedError: There is none.
    """
    found = tuple(
        layer
        for layer in range(n_layers(model))
        if is_mixture_of_experts(model, layer) and all(has_hook(model, name, layer) for name in (_CHOICES, _WEIGHTS))
    )
    if not found:
        raise NotImplementedError(
            "no layer of this model is a mixture of experts whose router can be read: build a partition of its FFNs instead"
        )
    return found


@dataclass(frozen=True)
class router_counts:  # reads as a verb: measure(model, corpora, router_counts())
    """The statistic that collects a router's choices as `ExpertCounts`.

    Raises:
        ValueError: `size` or `length` is not positive.
    """

    size: int = 8
    length: int | None = None
    name: ClassVar[str] = "router_counts"

    def __post_init__(self) -> None:
        require_sizes(self.size, self.length)

    def parameters(self) -> dict[str, Any]:
        """What decides the result."""
        return {"statistic": self.name, "size": self.size, "length": self.length}

    def __call__(self, model: Any, tokens: Tokens | Tensor) -> ExpertCounts:
        """Count one batch.

        Raises:
            NotImplementedError: No layer of the model is a mixture of experts.
            ValueError: The batch keeps no token; routers differ in experts or in choices per token, or choose experts that do not exist.
            RuntimeError: A router did not fire.
        """
        tokens = as_tokens(tokens, model)
        if not bool(tokens.keep.any()):
            raise ValueError("this batch keeps no token: every position is padding or BOS")
        layers = routed_layers(model)
        chosen: dict[int, Tensor] = {}
        experts: dict[int, int] = {}

        def choices(indices: Tensor, hook: Any, *, layer: int) -> None:
            if indices.is_floating_point():
                raise NotImplementedError(
                    f"the router of layer {layer} lists numbers where choices are expected: its layout is not known, so it cannot be counted"
                )
            chosen[layer] = (
                indices.detach().reshape(-1, indices.shape[-1])[tokens.keep.flatten().to(indices.device)].cpu()
            )

        def weights(given: Tensor, hook: Any, *, layer: int) -> None:
            experts[layer] = given.shape[-1]

        hooks = [
            (hook_name(name, layer), partial(listen, layer=layer))
            for layer in layers
            for name, listen in ((_CHOICES, choices), (_WEIGHTS, weights))
        ]
        with model.hooks(fwd_hooks=hooks):
            forward(model, tokens)
        if silent := [layer for layer in layers if layer not in chosen or layer not in experts]:
            raise RuntimeError(
                f"the router of layer {silent[0]} is listed by this model but never fired: it cannot be counted"
            )
        shapes = {(experts[layer], chosen[layer].shape[1]) for layer in layers}
        if len(shapes) > 1:
            raise ValueError(
                f"layers differ in (experts, choices per token): {sorted(shapes)}; one table cannot hold them"
            )
        ((wide, each),) = shapes
        counts = torch.stack([_count(chosen[layer], wide, layer) for layer in layers])
        stamp = fingerprint(model)
        return ExpertCounts(
            counts,
            tokens.keep.sum(),
            each * len(layers),
            how=f"router top_k={each}",
            layers=layers,
            partition=content_hash("router", stamp),
            model=stamp,
        )


def _count(chosen: Tensor, experts: int, layer: int) -> Tensor:
    if int(chosen.min()) < 0 or int(chosen.max()) >= experts:
        raise ValueError(
            f"the router of layer {layer} chose expert {int(chosen.max())} of {experts}: a dropped token has no count"
        )
    return torch.bincount(chosen.flatten(), minlength=experts)
