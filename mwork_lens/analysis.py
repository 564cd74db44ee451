"""Tables about neuron sets: how many per layer, how much languages share, how much methods agree. Pure functions of sets."""

from collections.abc import Mapping

import pandas as pd

from .neurons import NeuronSet, jaccard


def layer_counts(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Neurons of each language per site and layer.

    Returns:
        Columns language, site, layer, count, width (units the layer has).
    """
    rows = [
        (language, site, layer, int(count), neurons.shapes[site][1])
        for language, neurons in sets.items()
        for site, per_layer in neurons.counts().items()
        for layer, count in enumerate(per_layer)
    ]
    return pd.DataFrame(rows, columns=["language", "site", "layer", "count", "width"])


def overlap(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Neurons that each pair of languages shares.

    Returns:
        Columns language, other, shared, union, jaccard; all ordered pairs, the diagonal included; jaccard is nan where both are empty.
    """
    rows = [(a, b, len(x & y), len(x | y), jaccard(x, y)) for a, x in sets.items() for b, y in sets.items()]
    return pd.DataFrame(rows, columns=["language", "other", "shared", "union", "jaccard"])
