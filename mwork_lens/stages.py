"""The understanding / task-solving / generation split of the layers (MWork, Zhao et al. 2024).

The paper's figure: early layers turn the query into an English-centred form, middle layers solve the task, the last layers answer in the
query's language. Where one stage ends is a choice of layer counts (their trainer: 8 and 4 of 32), or is read off the lens:

    understanding ends   where the text's own language has lost half of what it loses from layer 0 to its minimum
    generation begins    where it has regained half of what it gains from that minimum to the last layer

If a curve has no such dip, the thresholds are still crossed somewhere; the report shows the curve beside the split.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

STAGES = ("understanding", "task_solving", "generation")


@dataclass(frozen=True)
class Stages:
    """A partition of the layers into three consecutive ranges."""

    understanding: range
    task_solving: range
    generation: range

    def __post_init__(self) -> None:
        joined = [*self.understanding, *self.task_solving, *self.generation]
        if joined != list(range(len(joined))) or not joined:
            raise ValueError(
                f"stages must be consecutive ranges from layer 0, got {self.understanding}, {self.task_solving}, {self.generation}"
            )

    @classmethod
    def of(cls, n_layers: int, *, understanding: int, generation: int) -> "Stages":
        """From the number of layers of the first and last stage.

        Raises:
            ValueError: They leave no layer to the middle, or one of them is empty.

        Example:
            >>> stages = Stages.of(32, understanding=8, generation=4)  # the paper's trainer
            >>> stages.task_solving, stages.stage_of(30)
            (range(8, 28), 'generation')
            >>> dict(Stages.of(3, understanding=1, generation=1).items())
            {'understanding': range(0, 1), 'task_solving': range(1, 2), 'generation': range(2, 3)}
        """
        if understanding < 1 or generation < 1 or understanding + generation >= n_layers:
            raise ValueError(
                f"{understanding} layers of understanding and {generation} of generation do not split {n_layers} layers: "
                "each stage needs at least one"
            )
        middle = n_layers - generation
        return cls(range(understanding), range(understanding, middle), range(middle, n_layers))

    @classmethod
    def from_lens(cls, table: pd.DataFrame) -> "Stages":
        """From the table of `layer_languages`: the probability mass of each text's own language, averaged over those besides English.

        Raises:
            ValueError: Fewer than three layers, or no layer with reliable tokens of a language besides English.
        """
        own = table[(table["token_language"] == table["text_language"]) & (table["text_language"] != "en")]
        curve = own.groupby("layer")["mass"].mean().sort_index()
        values = curve.to_numpy()
        if len(values) < 4 or not pd.Series(values).notna().all():
            raise ValueError(
                "the lens table gives no curve to read stages from: it needs a language besides English and at least three layers"
            )
        n_layers = len(values) - 1  # entry i is the stream before layer i; the last one is the model's output
        low = int(values.argmin())
        fall = (values[0] + values[low]) / 2
        rise = (values[-1] + values[low]) / 2
        first = next(i for i in range(len(values)) if values[i] <= fall)
        last = next(i for i in range(low, len(values)) if values[i] >= rise)
        understanding = min(max(first, 1), n_layers - 2)
        generation = min(max(n_layers - last + 1, 1), n_layers - understanding - 1)
        return cls.of(n_layers, understanding=understanding, generation=generation)

    @property
    def n_layers(self) -> int:
        """Number of layers divided."""
        return len(self.understanding) + len(self.task_solving) + len(self.generation)

    def items(self) -> Iterator[tuple[str, range]]:
        """Pairs (stage, layers)."""
        return ((name, getattr(self, name)) for name in STAGES)

    def stage_of(self, layer: int) -> str:
        """The stage a layer belongs to."""
        for name, layers in self.items():
            if layer in layers:
                return name
        raise ValueError(f"layer {layer} is outside 0..{self.n_layers - 1}")

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        return {"lengths": torch.tensor([len(layers) for _, layers in self.items()])}, {}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Stages":
        """The inverse of `to_tensors`."""
        first, middle, last = tensors["lengths"].tolist()
        return cls(range(first), range(first, first + middle), range(first + middle, first + middle + last))
