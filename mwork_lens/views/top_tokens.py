"""The tokens that fire each neuron most, with circuitsvis's `TopkTokens`.

A token type counts once per language, with its largest activation there. The component colours by a number between 0 and 1: it is given that
activation over the neuron's largest absolute activation in any of the languages, and the real one stands beside the token. Below zero there is no
colour. BOS is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ..corpora import Corpus, batches
from ..neurons import Neuron, NeuronSet
from ..plots.style import language_name
from ..tokens import Tokens
from .labels import Label, text_labels, token_name, visible
from .neurons import activations, neuron_name, require_most, require_neurons, text_name
from .page import View, component_text

_COLUMNS = 5
"""Columns that `TopkTokens` shows at first; it needs as many."""


def top_tokens_view(
    model: Any,
    neurons: NeuronSet | Mapping[str, NeuronSet],
    corpora: Mapping[str, Corpus],
    *,
    k: int = 10,
    most: int = 20,
    size: int = 16,
    length: int | None = None,
    title: str = "Top tokens of language neurons",
) -> View:
    """The tokens that fire each neuron most, per language of the text (circuitsvis's `TopkTokens`).

    A token counts once, with its largest activation in the corpus. The component numbers its columns, so the names of the neurons stand below it.

    Args:
        model: What `load_model` returned.
        neurons: One set, or a set per language, as a detector returns.
        corpora: The texts to look through, per language.
        k: Tokens with the largest and with the smallest activation that are listed.
        most: Neurons of each set at most: those with the largest absolute activation in these texts, in the order of the set.
        size: Documents per batch.
        length: Tokens per document at most.
        title: The heading.

    Returns:
        A view. Its properties hold, per language, set, rank and neuron, the activation over the neuron's largest one in any language.

    Raises:
        ValueError: No corpora; every set is empty, or one was found on another model; `k` or `most` is out of range.
        NotImplementedError: FFN neurons of a mixture of experts.
    """
    if not corpora:
        raise ValueError("no corpora to look through: give at least one language, as from load_corpora")
    if k < 1:
        raise ValueError(f"k={k}: give at least 1 token per neuron")
    require_most(most)
    sets = neurons if isinstance(neurons, Mapping) else {"": neurons}
    chosen = {name: require_neurons(model, one) for name, one in sets.items() if one or len(sets) == 1}
    if not chosen:
        raise ValueError(f"all {len(sets)} neuron sets are empty: there is nothing to look at")
    if any(len(found) > most for found in chosen.values()):
        every = _distinct(chosen)
        texts = (tokens for corpus in corpora.values() for tokens in batches(corpus, model, size=size, length=length))
        peaks = dict(zip(every, _peaks(model, every, texts), strict=True))
        best = {name: {*sorted(found, key=lambda n: -peaks[n])[:most]} for name, found in chosen.items()}
        chosen = {name: [neuron for neuron in found if neuron in best[name]] for name, found in chosen.items()}
    flat = _distinct(chosen)
    tops = {
        language: _top_types(model, flat, batches(corpus, model, size=size, length=length), corpus, k)
        for language, corpus in corpora.items()
    }
    largest = torch.stack([top.largest for top in tops.values()]).amax(0).clamp_min(1e-30)
    columns = max(_COLUMNS, *(len(found) for found in chosen.values()))
    props: dict[str, Any] = {
        "tokens": [], "topkVals": [], "topkIdxs": [], "bottomkVals": [], "bottomkIdxs": [],
        "firstDimensionName": "Neurons of",
        "thirdDimensionName": "Column",
        "sampleLabels": [f"text: {language_name(language)}" for language in corpora],
        "firstDimensionLabels": [text_name(name) or "the set" for name in chosen],
    }  # fmt: skip
    for top in tops.values():
        words = [""]
        for end, ids, values in (("topk", top.ids, top.values), ("bottomk", top.low_ids, top.low_values)):
            shares, places = [], []
            for found in chosen.values():
                at = [flat.index(neuron) for neuron in found]
                share, place = np.zeros((len(ids), columns)), np.zeros((len(ids), columns), dtype=int)
                share[:, : len(at)] = (values[:, at] / largest[at]).numpy()
                for rank, column in np.ndindex(len(ids), len(at)):
                    place[rank, column] = len(words)
                    token, value = int(ids[rank, at[column]]), float(values[rank, at[column]])
                    words.append(f"{component_text(top.names[token, at[column]])}\u00a0\u00a0{value:.3g}")
                shares.append(share)
                places.append(place)
            props[f"{end}Vals"].append(shares)
            props[f"{end}Idxs"].append(places)
        props["tokens"].append(words)
    left = [f"{text_name(name)} {len(sets[name]):,}" for name in chosen if len(chosen[name]) < len(sets[name])]
    notes = [
        "The number beside a token is its largest activation in the texts; colour is that over the neuron's largest in any language, "
        "and there is none below zero."
    ]
    if left:
        notes.append(
            f"Shown are the {most} neurons of each set with the largest activations, of {', '.join(left).strip()}."
        )
    if gone := [text_name(name) for name in sets if name not in chosen]:
        notes.append(f"No neurons: {', '.join(gone)}.")
    return View(
        title, tuple(notes), _keys(chosen), component="TopkTokens", props=props, height=min(1000, 420 + 62 * min(k, 12))
    )


class _Top:
    """The highest and lowest token types of each neuron: `ids`, `values` [k n], their names, and the largest absolute activation [n]."""

    def __init__(self, best: Float[Tensor, "n vocab"], k: int) -> None:
        seen = best.isfinite()
        k = min(k, int(seen[0].sum()))
        self.values, self.ids = (rearrange(x, "n k -> k n") for x in best.topk(k, dim=1))
        low = torch.where(seen, best, torch.inf).topk(k, dim=1, largest=False)
        self.low_values, self.low_ids = (rearrange(x.flip(1), "n k -> k n") for x in low)
        self.largest = torch.where(seen, best.abs(), 0.0).amax(1)
        self.names: dict[tuple[int, int], str] = {}

    def wanted(self) -> Iterable[tuple[int, int]]:
        """(token id, neuron) of everything listed."""
        for ids in (self.ids, self.low_ids):
            for rank, column in np.ndindex(*ids.shape):
                yield int(ids[rank, column]), column


def _top_types(model: Any, chosen: Sequence[Neuron], given: Iterable[Tokens], corpus: Corpus, k: int) -> _Top:
    """The top types of each neuron in a corpus, each named as it stands in the text where the neuron fires most."""
    vocab = int(model.W_U.shape[1])
    best = torch.full((len(chosen), vocab), -torch.inf)
    at = np.zeros((len(chosen), vocab, 2), dtype=np.int32)
    document_of = 0
    for tokens in given:
        values = rearrange(activations(model, chosen, tokens), "token n -> n token")
        keep = tokens.keep.cpu()
        ids, (rows, columns) = tokens.ids.cpu()[keep], keep.nonzero(as_tuple=True)
        new = best.scatter_reduce(1, ids.expand(len(chosen), -1), values, "amax")
        hit = (values == new[:, ids]) & (new[:, ids] > best[:, ids])
        neuron, where = hit.flip(1).nonzero(as_tuple=True)  # the first of equals is written last
        where = len(ids) - 1 - where
        at[neuron, ids[where]] = torch.stack([rows[where] + document_of, columns[where]], dim=1).numpy()
        best, document_of = new, document_of + len(tokens)
    top = _Top(best, k)
    labels: dict[int, list[Label]] = {}
    for token, column in top.wanted():
        name = visible(token_name(model.tokenizer, token))
        if "<0x" in name:  # bytes of a character: the text knows which
            number, pos = (int(x) for x in at[column, token])
            if number not in labels:
                labels[number] = text_labels(model.tokenizer, corpus.texts[number])[1]
            name = labels[number][pos].shown
        top.names[token, column] = name
    return top


def _distinct(chosen: Mapping[str, Sequence[Neuron]]) -> list[Neuron]:
    """The neurons of all sets, each once."""
    return list(dict.fromkeys(neuron for found in chosen.values() for neuron in found))


def _peaks(model: Any, every: Sequence[Neuron], given: Iterable[Tokens]) -> list[float]:
    """The largest absolute activation of each neuron."""
    largest = torch.zeros(len(every))
    for tokens in given:
        largest = torch.maximum(largest, activations(model, every, tokens).abs().amax(0))
    return largest.tolist()


def _keys(chosen: Mapping[str, Sequence[Neuron]]) -> str:
    rows = "".join(
        f"<dt>{escape(text_name(name) or 'Columns')}</dt><dd>"
        f"{'; '.join(f'{i}: {neuron_name(neuron)}' for i, neuron in enumerate(found))}</dd>"
        for name, found in chosen.items()
    )
    return f'<details class="mw-keys" open><summary>Which neuron a column is</summary><dl>{rows}</dl></details>'
