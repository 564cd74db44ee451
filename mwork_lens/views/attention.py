"""Attention heads over a text, with circuitsvis's `AttentionHeads`: a heat map per head, one of them large.

A head's pattern is [dest, src]: each row, the token that attends, sums to 1 over the tokens it attends to.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..capture import capture
from ..sites import n_layers
from .labels import document
from .page import View, component_text


def attention_view(
    model: Any,
    text: str,
    heads: Iterable[tuple[int, int]] | None = None,
    *,
    layers: Iterable[int] | None = None,
    most: int = 24,
    positions: int = 48,
    title: str = "Attention heads",
) -> View:
    """Attention patterns of heads over a text.

    Args:
        model: What `load_model` returned.
        text: Read as one document, BOS included if the tokenizer puts one there.
        heads: (layer, head) of each; default all heads of `layers`.
        layers: Layers whose heads are shown if `heads` is not given; default all.
        most: Heads at most, the first.
        positions: Tokens of the text at most.
        title: The heading.

    Returns:
        A view; its property `attention` is [head dest src].

    Raises:
        TypeError: `text` is not a string.
        ValueError: The text is empty or has no token; no head, or one that does not exist; `most` or `positions` is out of range.
        RuntimeError: The model computes no pattern (`capture`).
    """
    if most < 1:
        raise ValueError(f"most={most}: give at least 1 head to show")
    read = document(model, text, positions)
    wanted = None if heads is None else list(dict.fromkeys((int(layer), int(head)) for layer, head in heads))
    if wanted is not None:
        listed = sorted({layer for layer, _ in wanted})
    else:
        listed = list(range(n_layers(model)) if layers is None else dict.fromkeys(layers))
    if not listed:
        raise ValueError(
            f"no head given: pass (layer, head) pairs, layers of 0..{n_layers(model) - 1}, or neither for all"
        )
    if outside := [layer for layer in listed if not 0 <= layer < n_layers(model)]:
        raise ValueError(f"layer {outside[0]} does not exist: this model has layers 0..{n_layers(model) - 1}")
    patterns: dict[int, Tensor] = {}

    def on_layer(layer: int, seen: Mapping[str, Tensor]) -> None:
        patterns[layer] = seen["pattern"][0].float().cpu()

    capture(model, read.ids, ["pattern"], on_layer, layers=listed)
    every = (
        wanted if wanted is not None else [(layer, head) for layer in listed for head in range(len(patterns[layer]))]
    )
    for layer, head in every:
        if not 0 <= head < len(patterns[layer]):
            raise ValueError(f"head {head} of layer {layer} does not exist: it has heads 0..{len(patterns[layer]) - 1}")
    shown = every[:most]
    attention = torch.stack([patterns[layer][head] for layer, head in shown])
    notes = [
        "A row is the token that attends, a column the token attended to; rows sum to 1. Point at a small map to enlarge it, click to keep it."
    ]
    if len(shown) < len(every):
        notes.append(f"Shown are the first {len(shown):,} of {len(every):,} heads.")
    props = {
        "attention": attention,
        "attentionHeadNames": [f"L{layer}H{head}" for layer, head in shown],
        "tokens": [component_text(label.shown) for label in read.labels],
        "minValue": 0,
        "maxValue": 1,
        "maskUpperTri": not bool(attention.triu(1).any()),
    }
    return View(title, (*notes, *read.note), component="AttentionHeads", props=props, height=950)
