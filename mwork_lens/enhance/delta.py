"""What enhancement made of some rows and columns: a file of their new and old numbers.

Both are kept, not their difference: adding a difference and taking it off again does not give the same floating-point numbers. So a delta goes on
(`apply`) and comes off (`remove`) exactly, refuses a model it was not made for, and needs nothing but itself to do either:

    with delta.applied(model):
        evaluate(model, texts)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..models import fingerprint
from ..neurons import NeuronSet
from ..plain import plain_model, require_new, write_folder
from ..sites import Site, shape_of
from .slices import SITE_OF, rows


@dataclass(frozen=True)
class Delta:
    """New numbers of slices, by `layer.matrix` such as `3.W_Q`."""

    units: Mapping[str, Tensor]
    """[unit], which units of the site."""
    before: Mapping[str, Tensor]
    """[unit d_model], or [unit] of a bias: what the model held."""
    after: Mapping[str, Tensor]
    """The same, trained."""
    model: str
    """Fingerprint of the model it was made for."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained: settings, documents, log."""

    def __post_init__(self) -> None:
        if not self.units or not self.units.keys() == self.before.keys() == self.after.keys():
            raise ValueError("a delta needs the same slices, at least one, in units, before and after")
        for key, units in self.units.items():
            if not len(units) == len(self.before[key]) == len(self.after[key]):
                raise ValueError(
                    f"{key}: {len(units)} units, but {len(self.before[key])} and {len(self.after[key])} rows"
                )
            if not bool(torch.isfinite(self.after[key]).all()):
                raise ValueError(f"{key}: a trained number is NaN or infinite; train again at a lower rate")

    @property
    def size(self) -> int:
        """How many numbers it changes."""
        return sum(values.numel() for values in self.after.values())

    @property
    def changed(self) -> int:
        """How many of them really differ: training at a small rate in bfloat16 may change none."""
        return sum(int((self.after[key] != self.before[key]).sum()) for key in self.units)

    def norms(self) -> dict[str, float]:
        """Euclidean length of the change, over the length of what was there, per slice."""
        change = {key: (self.after[key].double() - self.before[key].double()).norm() for key in self.units}
        return {key: float(change[key] / self.before[key].double().norm().clamp_min(1e-300)) for key in self.units}

    def neurons(self, model: Any) -> NeuronSet:
        """The set of neurons it touches."""
        shapes = shape_of(model, dict.fromkeys(_site(key) for key in self.units))
        masks: dict[Site, Tensor] = {site: torch.zeros(shape, dtype=torch.bool) for site, shape in shapes.items()}
        for key, units in self.units.items():
            masks[_site(key)][int(key.partition(".")[0]), units] = True
        return NeuronSet(masks, model=self.model)

    def apply(self, model: Any) -> None:
        """Write the trained numbers into a model, in place.

        Raises:
            ValueError: It was made for another model, or the model was changed since.
        """
        if (found := fingerprint(model)) != self.model:
            raise ValueError(
                f"this delta is for the model {self.model[:8]}, this one is {found[:8]}: load the model it was trained on, "
                "take off any other delta first"
            )
        self._write(model, self.before, self.after)

    def remove(self, model: Any) -> None:
        """Write the old numbers back: the model is what it was, bit for bit.

        Raises:
            ValueError: The model does not hold this delta.
        """
        self._write(model, self.after, self.before)

    @contextmanager
    def applied(self, model: Any) -> Iterator[Any]:
        """The model with the delta on it, for the length of a `with`."""
        self.apply(model)
        try:
            yield model
        finally:
            self.remove(model)

    def export(self, model: Any, folder: str | Path) -> Path:
        """Write the enhanced model as a Hugging Face folder, fused q, k and v included; it is read back and compared.

        Args:
            model: The model it was made for, without the delta.
            folder: A folder that does not exist yet, or is empty.

        Raises:
            FileExistsError: The folder holds something.
            ValueError: Another model, or what was written reads back wrong.
        """
        require_new(folder, model.tokenizer)
        with self.applied(model):
            return write_folder(plain_model(model, "eager"), folder, model.tokenizer)

    def _write(self, model: Any, expected: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
        targets = {key: rows(model, int(key.partition(".")[0]), key.partition(".")[2]) for key in self.units}
        for key, target in targets.items():
            held, wanted = target[self.units[key].to(target.device)], expected[key].to(target.device)
            if held.dtype != wanted.dtype or not torch.equal(held, wanted):
                raise ValueError(
                    f"{key} of this model does not hold what this delta expects there: nothing was changed"
                )
        with torch.no_grad():
            for key, target in targets.items():
                target[self.units[key].to(target.device)] = new[key].to(target.device)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes: tensors by name, and JSON facts."""
        parts = {"units": self.units, "before": self.before, "after": self.after}
        tensors = {f"{part}/{key}": value for part, values in parts.items() for key, value in values.items()}
        return tensors, {"model": self.model, "facts": dict(self.facts)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Delta":
        """The inverse of `to_tensors`."""
        parts: dict[str, dict[str, Tensor]] = {"units": {}, "before": {}, "after": {}}
        for name, value in tensors.items():
            part, _, key = name.partition("/")
            parts[part][key] = value
        return cls(**parts, model=facts["model"], facts=facts.get("facts", {}))


def _site(key: str) -> Site:
    return SITE_OF[key.partition(".")[2][2:]]
