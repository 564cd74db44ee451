"""Where neurons fire in texts, with circuitsvis's `TextNeuronActivations`.

The component has one colour scale for all neurons. So it is given the activation over the neuron's largest absolute activation on the texts
shown, and that activation is written beside the neuron's name. BOS is left out, as from every statistic.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ..capture import as_tokens, capture
from ..languages import LANGUAGES
from ..models import fingerprint
from ..neurons import Neuron, NeuronSet
from ..plots.style import language_name
from ..sites import n_layers, width
from ..tokens import Tokens
from .labels import document
from .page import View, component_text


def neuron_view(
    model: Any,
    texts: str | Mapping[str, str],
    neurons: NeuronSet,
    *,
    most: int = 32,
    positions: int = 256,
    title: str = "Neuron activations",
) -> View:
    """Activations of neurons over one text, or over one text per language (circuitsvis's `TextNeuronActivations`).

    Args:
        model: What `load_model` returned.
        texts: One text, or several by language (or any other name).
        neurons: Which; the view has a menu of them.
        most: Neurons at most: those with the largest absolute activation on these texts, in this order.
        positions: Tokens of each text at most.
        title: The heading.

    Returns:
        A view. Its properties hold, per text and token, the activation over the neuron's largest absolute activation, [pos neuron 1].

    Raises:
        TypeError: A text is not a string.
        ValueError: No text, or an empty one; the set is empty or was found on another model; `most` or `positions` is out of range.
        NotImplementedError: FFN neurons of a mixture of experts.
    """
    chosen = require_neurons(model, neurons)
    require_most(most)
    named = texts if isinstance(texts, Mapping) else {"": texts}
    if not named:
        raise ValueError("no text given: pass a string, or a mapping of languages to texts")
    read = {name: document(model, text, positions) for name, text in named.items()}
    found = {name: activations(model, chosen, as_tokens(d.ids, model)) for name, d in read.items()}
    largest = torch.stack([values.abs().amax(0) for values in found.values()]).amax(0)
    order = torch.argsort(largest, descending=True, stable=True)[:most].tolist()
    notes = [
        "Colour and number are the activation over the neuron's largest one on this page, which stands behind its name."
    ]
    if len(order) < len(chosen):
        notes.append(f"Shown are the {len(order):,} of {len(chosen):,} neurons with the largest activations.")
    notes += [f"{text_name(name)}{': ' if name else ''}{note}" for name, d in read.items() for note in d.note]
    tokens = [
        [*_heading(name), *(component_text(label.shown) for label in d.labels[int(d.bos) :])]
        for name, d in read.items()
    ]
    blank = torch.zeros(1, len(order))
    shares = [(values / largest.clamp_min(1e-30))[:, order] for values in found.values()]
    shares = [torch.cat([blank, share]) if name else share for name, share in zip(found, shares, strict=True)]
    props = {
        "tokens": tokens,
        "activations": [rearrange(share, "pos n -> pos n 1") for share in shares],
        "firstDimensionName": "Neuron",
        "firstDimensionLabels": [f"{neuron_name(chosen[i])} (largest {float(largest[i]):.3g})" for i in order],
        "secondDimensionName": "Value",
        "secondDimensionLabels": ["activation / largest"],
    }
    return View(
        title,
        tuple(notes),
        component="TextNeuronActivations",
        props=props,
        rtl=all(d.rtl for d in read.values()),
        height=min(900, 260 + sum(66 + 28 * (len(row) // 20) for row in tokens[:5])),
    )


def neuron_name(neuron: Neuron) -> str:
    """`ffn layer 3 unit 117`."""
    return f"{neuron.site} layer {neuron.layer} unit {neuron.index}"


def activations(model: Any, chosen: Sequence[Neuron], tokens: Tokens) -> Float[Tensor, "token n"]:
    """Activations of neurons at the kept positions of a batch, document after document."""
    keep = tokens.keep.cpu()
    columns = torch.zeros(int(keep.sum()), len(chosen))
    for site in dict.fromkeys(neuron.site for neuron in chosen):
        places: dict[int, list[int]] = {}
        for i, neuron in enumerate(chosen):
            if neuron.site == site:
                places.setdefault(neuron.layer, []).append(i)

        def on_layer(
            layer: int, seen: Mapping[str, Tensor], site: str = site, places: dict[int, list[int]] = places
        ) -> None:
            units = [chosen[i].index for i in places[layer]]
            columns[:, places[layer]] = seen[site].float().cpu()[keep][:, units]

        capture(model, tokens, [site], on_layer, layers=sorted(places))
    return columns


def require_neurons(model: Any, neurons: NeuronSet) -> list[Neuron]:
    """The neurons of a set, which must be one of this model's and not empty."""
    if not isinstance(neurons, NeuronSet):
        raise ValueError(f"expected a NeuronSet, got {type(neurons).__name__}: detectors return one per language")
    if not neurons:
        raise ValueError("this NeuronSet is empty, so there is nothing to look at; check `if neurons:` before")
    if neurons.model is not None and neurons.model != fingerprint(model):
        raise ValueError(
            f"these neurons were found on another model ({neurons.model}): detect them on this one ({fingerprint(model)})"
        )
    for site, (layers, units) in neurons.shapes.items():
        if (layers, units) != (n_layers(model), width(model, site, 0)):
            raise ValueError(
                f"the neurons of site {site!r} are [layer, width] {[layers, units]}, this model has "
                f"{[n_layers(model), width(model, site, 0)]} - detected on another model?"
            )
    return list(neurons)


def require_most(most: int) -> None:
    """Refuse to show no neuron."""
    if most < 1:
        raise ValueError(f"most={most}: give at least 1 neuron to show")


def text_name(name: str) -> str:
    """`German (de)`, or the name itself if it is no language."""
    return language_name(name) if name in LANGUAGES else name


def _heading(name: str) -> list[str]:
    """The language of a text, as its first, colourless token."""
    return [component_text(f"[{text_name(name)}]")] if name else []
