"""Planted language neurons: FFN units of which it is known, by construction, which language they work for.

A part of the FFN units of each layer is reserved for each language (`planted`), the rest is shared. In training, documents of other languages do not
pass through a language's units (`Routing`), so that nothing of them is learnt there; and a penalty on what the closed units would have said teaches
the gates to stay shut by themselves, so that the finished model is a stock Llama that needs no routing. The truth is what was reserved; how well the
model keeps to it is measured by ablating each block (dominance_measure.py), not assumed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .clones import LANGUAGES


def planted(layers: int, width: int, reserved: float) -> dict[str, np.ndarray]:
    """The FFN units that are each language's own [layer width]: equal blocks at the end of every layer, which hold the `reserved` share in all.

    Raises:
        ValueError: A share that leaves a language without a unit, or the shared part.
    """
    size = int(width * reserved) // len(LANGUAGES)
    if not 1 <= size <= (width - 1) // len(LANGUAGES):
        raise ValueError(
            f"reserved={reserved} of {width} units gives each language {size}: choose a share in (0, 1) that gives at least 1"
        )
    start = width - size * len(LANGUAGES)
    made = {}
    for k, code in enumerate(LANGUAGES):
        made[code] = np.zeros((layers, width), bool)
        made[code][:, start + k * size : start + (k + 1) * size] = True
    return made


class Routing:
    """Sends documents past the reserved units of the other languages.

    `languages` [row pos] (-1: all gates open) is set before a forward; None leaves the model as it is. `penalty` is, over the layers of the last
    forward, the mean square of what the closed units would have said, in units of that of the open ones.
    """

    def __init__(self, model: Any, own: Mapping[str, np.ndarray]) -> None:
        masks = torch.from_numpy(np.stack([own[code] for code in LANGUAGES]))  # [language layer width]
        others = masks.any(0) & ~masks
        self.open = torch.cat([~others, torch.ones_like(others[:1])]).float()  # the last row, -1, is all open
        self.languages: torch.Tensor | None = None
        self.ratios: list[torch.Tensor] = []
        for layer, block in enumerate(model.model.layers):
            block.mlp.down_proj.register_forward_pre_hook(
                lambda module, given, layer=layer: self._pass(layer, given[0])
            )

    def _pass(self, layer: int, said: torch.Tensor) -> tuple[torch.Tensor] | None:
        if self.languages is None:
            return None
        keep = self.open[self.languages, layer]
        square, shut = said.float() ** 2, 1 - keep
        loud = (square * keep).sum() / keep.sum()
        self.ratios.append((square * shut).sum() / shut.sum().clamp_min(1) / (loud.detach() + 1e-6))
        return (said * keep.to(said.dtype),)

    def penalty(self) -> torch.Tensor:
        """Of the last forward; it forgets it."""
        ratios, self.ratios = self.ratios, []
        return torch.stack(ratios).mean() if ratios else torch.zeros(())


def planted_truth(own: Mapping[str, np.ndarray], *, model: str | None = None) -> dict[str, Any]:
    """The reserved units as a `NeuronSet` per language."""
    from mwork_lens.neurons import NeuronSet

    return {code: NeuronSet({"ffn": torch.from_numpy(mask)}, model=model) for code, mask in own.items()}
