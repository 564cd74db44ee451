"""Is one language easier? How many FFN neurons a text of each language puts to work, on parallel texts.

The weight of unit j at a token is w_j = |a_j| ||W_out[j]||, the length of what it writes; a count of positive activations means nothing in a gated
FFN, whose sign is that of its linear branch. Per token and layer, in units:

    participation   (sum w)^2 / sum w^2         between 1 and d_mlp; the same for a scaled layer
    ninety          the smallest number of units that carry 90 % of sum w

(0 where no unit writes anything), then the mean over a text's tokens (a sum would call a language laborious whose words are cut into more tokens).
Languages are compared text by text: mean difference with a bootstrap interval, Wilcoxon's signed rank test, and the difference that is left when the
two texts have the same number of tokens (the intercept of a regression on the difference of their logarithms), for more tokens per sentence otherwise
look like more effort.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..capture import capture
from ..corpora import Corpus, batches
from ..evaluate import RESAMPLES, resample
from ..progress import hidden
from ..sites import n_layers, weight

EFFORT = ("language", "document", "layer", "participation", "ninety", "tokens")
"""Columns of `effort`."""
DIFFERENCES = (
    "language", "measure", "mean", "of_reference", "difference", "low", "high", "same_length", "same_length_low", "same_length_high",
    "p_wilcoxon", "bh_wilcoxon", "documents",
)  # fmt: skip
"""Columns of `effort_differences`."""
MEASURES = ("participation", "ninety")


def effort(
    model: Any,
    corpora: Mapping[str, Corpus],
    layers: Iterable[int] | None = None,
    *,
    size: int = 16,
    length: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """How many FFN units each document puts to work.

    Args:
        model: What `load_model` returned; edits in force apply.
        corpora: Parallel documents: the same ids in every language.
        layers: Such as those of the task-solving stage; default all.
        size: Documents per batch.
        length: Tokens per document at most.
        progress: Show a bar.

    Returns:
        Columns `EFFORT`, a row per language, document and layer.

    Raises:
        ValueError: No corpora; a layer does not exist.
        NotImplementedError: A mixture of experts.
    """
    from tqdm.auto import tqdm

    chosen = list(range(n_layers(model))) if layers is None else list(layers)
    if outside := [layer for layer in chosen if not 0 <= layer < n_layers(model)]:
        raise ValueError(f"layer {outside[0]} does not exist: this model has layers 0..{n_layers(model) - 1}")
    if not corpora or not chosen:
        raise ValueError("nothing to measure: give at least one corpus and one layer")
    lengths = {layer: weight(model, "ffn", layer)["W_down"].detach().float().norm(dim=1) for layer in chosen}
    rows: list[tuple[Any, ...]] = []
    with tqdm(total=sum(map(len, corpora.values())), unit="doc", desc="effort", disable=hidden(progress)) as bar:
        for language, corpus in corpora.items():
            for tokens in batches(corpus, model, size=size, length=length):

                def on_layer(
                    layer: int, held: Mapping[str, Tensor], tokens: Any = tokens, language: str = language
                ) -> None:
                    found = working(held["ffn"].float().abs() * lengths[layer].to(held["ffn"].device))
                    keep = tokens.keep.to(held["ffn"].device)
                    means = [torch.where(keep, values, 0).sum(1) / keep.sum(1) for values in found]
                    for row, name in enumerate(tokens.documents):
                        rows.append((language, name, layer, *(float(m[row]) for m in means), int(keep[row].sum())))

                capture(model, tokens, ["ffn"], on_layer, layers=chosen)
                bar.update(len(tokens))
    return pd.DataFrame(rows, columns=list(EFFORT))


def working(weights: Float[Tensor, "*pos width"]) -> tuple[Float[Tensor, "*pos"], Float[Tensor, "*pos"]]:
    """(participation ratio, number of units that carry 90 %) of weights of at least 0; 0 where all are 0."""
    weights = weights.double()
    total = weights.sum(-1)
    squares = weights.pow(2).sum(-1)
    ratio = torch.where(squares > 0, total**2 / squares, 0.0)
    shares = weights.sort(-1, descending=True).values.cumsum(-1)
    ninety = (shares < 0.9 * total[..., None]).sum(-1).double() + 1
    return ratio, torch.where(total > 0, ninety, 0.0)


def effort_differences(
    rows: pd.DataFrame, reference: str = "en", *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Each language against a reference, document by document, over the layers measured.

    Args:
        rows: From `effort`.
        reference: The language that is supposed to be easy.
        resamples: Number of resamples of documents.
        seed: Of the resampling.

    Returns:
        Columns `DIFFERENCES`, a row per language and measure; above zero: the language puts more units to work.

    Raises:
        ValueError: The reference is not there, or a language does not have its documents: only parallel texts can be compared.
    """
    from scipy.stats import false_discovery_control, wilcoxon

    means = rows.groupby(["language", "document"], sort=False)[[*MEASURES, "tokens"]].mean()
    languages = list(dict.fromkeys(rows["language"]))
    if reference not in languages:
        raise ValueError(f"no rows of {reference!r}: there are {', '.join(languages)}")
    base, made = means.loc[reference], []
    for language in (x for x in languages if x != reference):
        mine = means.loc[language]
        if set(mine.index) != set(base.index):
            raise ValueError(
                f"{language!r} and {reference!r} do not hold the same documents: only parallel texts can be compared"
            )
        mine = mine.loc[base.index]
        weights = resample(len(base), resamples=resamples, seed=seed) / len(base)
        longer = np.log(mine["tokens"] / base["tokens"]).to_numpy(float)
        for measure in MEASURES:
            gap = (mine[measure] - base[measure]).to_numpy(float)
            low, high = np.quantile(weights @ gap, [0.025, 0.975])
            p = float(wilcoxon(gap).pvalue) if gap.any() else 1.0
            level, *edges = _at_equal_length(longer, gap, weights)
            made.append(
                (
                    language,
                    measure,
                    mine[measure].mean(),
                    base[measure].mean(),
                    gap.mean(),
                    low,
                    high,
                    level,
                    *edges,
                    p,
                    len(gap),
                )
            )
    table = pd.DataFrame(made, columns=[c for c in DIFFERENCES if c != "bh_wilcoxon"])
    return table.assign(bh_wilcoxon=false_discovery_control(table["p_wilcoxon"].to_numpy(float)))[list(DIFFERENCES)]


def _at_equal_length(longer: np.ndarray, gap: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Intercept of the regression of the gap on the difference of log lengths, and its 95 % interval over resamples [resample doc]."""
    if np.ptp(longer) == 0:
        return np.nan, np.nan, np.nan

    def intercept(w: np.ndarray) -> np.ndarray:
        x, y = w @ longer, w @ gap
        spread = w @ longer**2 - x**2
        slope = np.divide(w @ (longer * gap) - x * y, spread, out=np.full_like(x, np.nan), where=spread > 1e-12)
        return y - slope * x

    low, high = np.nanquantile(intercept(weights), [0.025, 0.975])
    return float(intercept(np.full((1, len(gap)), 1 / len(gap)))[0]), float(low), float(high)
