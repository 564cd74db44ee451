"""Statistics made by hand for the detectors: from counts, and from activations in which the answer is planted."""

import numpy as np
import torch

from mwork_lens.stats import Moments
from mwork_lens.strata import DocumentMoments

LANGUAGES = ("en", "de", "zh")
LAYERS, WIDTH = 2, 100
PLANTED = {"en": [(0, 3), (1, 40)], "de": [(0, 77), (1, 5)], "zh": [(0, 50), (1, 99)]}
DOCUMENTS, LENGTH = 60, 50


def moments_of(counts, n, *, mean=None, rectified=None, site="ffn_act", model="m", names=None):
    """Moments per language from counts [layer, width, lang] and tokens [lang]; sums are the counts unless means are given."""
    counts = torch.as_tensor(counts)
    names = names or [f"l{k}" for k in range(counts.shape[-1])]
    made = {}
    for k, name in enumerate(names):
        tokens = torch.as_tensor(n)[k].long()
        positive = counts[..., k].long()
        total = positive.double() if mean is None else torch.as_tensor(mean)[..., k].double() * tokens
        positive_part = (
            total.clamp_min(0) if rectified is None else torch.as_tensor(rectified)[..., k].double() * tokens
        )
        made[name] = Moments(
            tokens, {site: positive}, {site: total}, {site: total.square()}, {site: positive_part}, model=model
        )
    return made


def documents_from(activations, *, site="ffn_act", model="m"):
    """DocumentMoments per language from lists of activations [token, layer, width], one array a document."""
    made = {}
    for name, texts in activations.items():
        made[name] = DocumentMoments(
            tuple(f"{name}-{i}" for i in range(len(texts))),
            torch.tensor([len(text) for text in texts]),
            {site: torch.tensor(np.stack([(text > 0).sum(0) for text in texts]), dtype=torch.int32)},
            {site: torch.tensor(np.stack([text.sum(0) for text in texts]), dtype=torch.float32)},
            model=model,
        )
    return made


def moments_from(activations, *, site="ffn_act", model="m"):
    """Moments per language from the same."""
    made = {}
    for name, texts in activations.items():
        rows = torch.tensor(np.concatenate(texts))
        made[name] = Moments(
            torch.tensor(len(rows)),
            {site: (rows > 0).sum(0)},
            {site: rows.sum(0)},
            {site: rows.square().sum(0)},
            {site: rows.clamp_min(0).sum(0)},
            model=model,
        )
    return made


def planted(seed=0):
    """Activations per language in which a few units fire on 98 % of the tokens of one language and 2 % of the others', the rest on 30 % of all."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in LANGUAGES:
        chance = np.full((LAYERS, WIDTH), 0.3)
        for owner, units in PLANTED.items():
            for unit in units:
                chance[unit] = 0.98 if owner == name else 0.02
        texts = rng.random((DOCUMENTS, LENGTH, LAYERS, WIDTH)) < chance
        value = np.where(texts, rng.uniform(0.5, 1.5, texts.shape), -0.1)
        made[name] = list(value)
    return made


def shuffled(activations, seed=0):
    """The same tokens dealt to languages and documents at random: as many of each, and nothing tells the languages apart.

    Whole documents under random languages would not do: planted units fire in some documents and not in others, so their shares vary most.
    """
    rng = np.random.default_rng(seed)
    tokens = np.concatenate([text for texts in activations.values() for text in texts])
    texts = np.split(tokens[rng.permutation(len(tokens))], len(tokens) // LENGTH)
    return {name: texts[i :: len(activations)] for i, name in enumerate(activations)}


def units(sets):
    """Per language, the sorted (layer, unit) pairs."""
    return {name: sorted((layer, index) for _, layer, index in neurons) for name, neurons in sets.items()}
