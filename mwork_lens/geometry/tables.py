"""Where languages meet: similarity of parallel sentences, retrieval and dominance per layer (Tang et al. 2024), with their baselines.

With h(s_k) the embedding of sentence s in language k (`embeddings.py`), v_k the mean of h(s_k) over sentences, per layer:

    SES          mean over pairs of languages and sentences of cos(h(s_c), h(s_k))
    retrieval    share of sentences s_c whose nearest h(t_k), by cosine, is their own translation; chance 1/n
    dominance    c mapped into k, h'(s_c) = h(s_c) - v_c + v_k:  dom(c -> k) = mean_s cos(h'(s_c), h(s_k));  of k: mean over c

No code of these was released and the paper's formulas are known from slides, so this is a reading of them. Two additions, because around a
common vector much longer than what differs any cosine is near 1: the mean over all pairs of *other* sentences (s_c, t_k), s != t, exactly
(`shuffled`), and its difference (`adjusted`); and centred cosines, cos(h(s_c) - v_c, h(s_k) - v_k). Centred, dominance is a similarity.

Intervals: 95 %, bootstrap over documents, the same resample in all languages; means v are those of the resample, and a document drawn twice
is never its own baseline. Rows with `all` are means over pairs. A centred cosine is nan where all sentences of a language have one vector
(at layer 0, pool `last`, texts that all end in the same token); layer 0 with pool `mean` measures shared tokens, so look at what is gained
above it. Cost: a document x document product per pair of languages and layer, one held at a time.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping
from itertools import combinations, permutations
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..evaluate import RESAMPLES, resample
from .cosines import TIE, Space, cosine_means, cosine_table, hits, mapped_means, products
from .embeddings import Embeddings

ALL = "all"
"""Stands for the mean over languages."""

_SHUFFLES = 999


def similarity(
    embeddings: Embeddings,
    *,
    centred: bool = False,
    resamples: int = RESAMPLES,
    shuffles: int = _SHUFFLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Sentence-embedding similarity of each pair of languages per layer; the rows `all`, `all` are SES.

    Args:
        embeddings: What `embed` returned.
        centred: Subtract each language's mean first.
        resamples: Bootstrap resamples of documents.
        shuffles: Random pairings of documents behind `p`.
        seed: Of both.

    Returns:
        One row per layer and unordered pair, per language (`other` = `all`), and for all. Columns: language, other, layer, parallel (mean
        cosine of translations), parallel_low, parallel_high, shuffled (of non-translations), adjusted (parallel - shuffled),
        adjusted_low, adjusted_high, p (of a parallel mean as high if sentences are paired at random, one-sided, for this row alone),
        documents, centred.

    Raises:
        ValueError: Fewer than two languages or documents; a zero vector (unless centred).
    """
    languages = _require_comparable(embeddings, raw=not centred)
    n, rng = len(embeddings), np.random.default_rng(seed)
    weights = _weights(n, resamples, seed)
    orders = {x: torch.from_numpy(rng.permuted(np.tile(np.arange(n), (shuffles, 1)), axis=1)) for x in languages}
    rows = []
    for at, layer in enumerate(embeddings.layers):
        spaces = {x: Space.of(embeddings.vectors[x][at], centred=centred) for x in languages}
        draws, null = {}, {}
        for a, b in combinations(languages, 2):
            dots = products(spaces[a], spaces[b])
            draws[a, b] = cosine_means(weights, dots, spaces[a], spaces[b], centred=centred)
            cosines = cosine_table(dots, spaces[a], spaces[b])
            null[a, b] = cosines[orders[a], orders[b]].mean(1)
        for (a, b), members in _groups(draws).items():
            both, chance = (torch.stack([found[m] for m in members]).mean(0) for found in (draws, null))
            as_high = float((chance >= both[0, 0] - TIE).sum())
            p = (1 + as_high) / (1 + shuffles) if bool(torch.isfinite(both[0, 0])) else float("nan")
            rows.append({"language": a, "other": b, "layer": layer, **_estimates("parallel", both), "p": p})
    return pd.DataFrame(rows).assign(documents=n, centred=centred)


def retrieval(embeddings: Embeddings, *, centred: bool = False) -> pd.DataFrame:
    """How often the nearest sentence of another language, by cosine, is the translation.

    Ties share the hit. Means are those of all documents, also of the one that is looked for.

    Args:
        embeddings: What `embed` returned.
        centred: Subtract each language's mean first.

    Returns:
        One row per layer and ordered pair (sentences of `language` look in `other`), and with `all` on either side or both. Columns:
        language, other, layer, accuracy, low, high (95 %, Wilson; for a mean over pairs with the number of documents that its variance
        between documents is worth), chance (1/n: exactly the mean accuracy over random pairings), documents, centred.

    Raises:
        ValueError: Fewer than two languages or documents; a zero vector (unless centred).
    """
    languages = _require_comparable(embeddings, raw=not centred)
    n, rows = len(embeddings), []
    for at, layer in enumerate(embeddings.layers):
        spaces = {x: Space.of(embeddings.vectors[x][at], centred=centred) for x in languages}
        found = {}
        for a, b in combinations(languages, 2):
            cosines = cosine_table(products(spaces[a], spaces[b]), spaces[a], spaces[b])
            found[a, b], found[b, a] = hits(cosines), hits(cosines.T)
        for (a, b), members in _groups(found, ordered=True).items():
            per_document = torch.stack([found[m] for m in members]).mean(0)
            rows.append((a, b, layer, *_wilson(per_document, len(members)), 1 / n, n, centred))
    names = ("language", "other", "layer", "accuracy", "low", "high", "chance", "documents", "centred")
    return pd.DataFrame(rows, columns=list(names))


def dominance(embeddings: Embeddings, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """How well each language, mapped into another by the difference of their means, meets its translations there.

    Args:
        embeddings: What `embed` returned.
        resamples: Bootstrap resamples of documents.
        seed: Of the bootstrap.

    Returns:
        One row per layer and ordered pair (`language` c mapped into `other` k), with `language` = `all` the dominance of k, and for all.
        Columns: language, other, layer, dominance, dominance_low, dominance_high, shuffled (the same with another sentence of k), adjusted
        (dominance - shuffled), adjusted_low, adjusted_high, centred (the centred cosine, which does not know a direction), centred_low,
        centred_high, documents.

    Raises:
        ValueError: Fewer than two languages or documents; a zero vector.
    """
    languages = _require_comparable(embeddings, raw=True)
    weights = _weights(len(embeddings), resamples, seed)
    rows = []
    for at, layer in enumerate(embeddings.layers):
        raw, middle = ({x: Space.of(embeddings.vectors[x][at], centred=c) for x in languages} for c in (False, True))
        draws, centred = {}, {}
        for a, b in combinations(languages, 2):
            dots = products(raw[a], raw[b])
            draws[a, b] = mapped_means(weights, dots, raw[a], raw[b])
            draws[b, a] = mapped_means(weights, dots.T, raw[b], raw[a])
            dots = products(middle[a], middle[b])
            centred[a, b] = centred[b, a] = cosine_means(weights, dots, middle[a], middle[b], centred=True)
        for (a, b), members in _groups(draws, ordered=True).items():
            if b == ALL and a != ALL:
                continue  # the mean over where a language is sent to is no dominance
            both, core = (torch.stack([found[m] for m in members]).mean(0) for found in (draws, centred))
            more = {
                f"centred{end}": value for end, value in zip(("", "_low", "_high"), _interval(core[0]), strict=True)
            }
            rows.append({"language": a, "other": b, "layer": layer, **_estimates("dominance", both), **more})
    return pd.DataFrame(rows).assign(documents=len(embeddings))


def meeting(similarities: pd.DataFrame, counts: pd.DataFrame, *, shuffles: int = 9999, seed: int = 0) -> pd.DataFrame:
    """Are language neurons few where languages meet? Spearman over layers of adjusted similarity against number of neurons.

    Layer i is paired with the state after it, entry i + 1. A neuron of several languages counts once for each of them in `all`.

    The p value shuffles layers, so it takes neighbouring layers as independent; they are not, and it is too small. With few layers the
    check has no power: `detectable` is the smallest |rho| with p <= 0.05 (0.74 for 8 layers without ties; none for 4 or fewer).

    Args:
        similarities: What `similarity` returned, one variant.
        counts: What `analysis.layer_counts` returned, of the same languages; sites are added up (select rows for one of them).
        shuffles: Random orders of the layers, where there are more than 9; up to 9, all orders are tried.
        seed: Of the orders.

    Returns:
        One row per language, and `all`: rho (below zero: fewer neurons where similarity is higher; nan if either is constant), p
        (two-sided), detectable, layers (how many were compared), exact.

    Raises:
        ValueError: Other languages in the two tables; no layer in common; centred and raw similarities mixed.
    """
    if similarities["centred"].nunique() > 1:
        raise ValueError("the similarity table mixes centred and raw rows: select one of them, table[table['centred']]")
    ours, theirs = set(similarities["language"]) - {ALL}, set(counts["language"])
    ours |= set(similarities["other"]) - {ALL}
    if ours != theirs:
        raise ValueError(
            f"only one of the two tables has {', '.join(sorted(ours ^ theirs))}: compare similarity and neurons of the same languages"
        )
    rows = []
    for language in [*counts["language"].unique(), ALL]:
        of = similarities[(similarities["language"] == language) & (similarities["other"] == ALL)]
        chosen = counts if language == ALL else counts[counts["language"] == language]
        neurons = chosen.groupby("layer")["count"].sum()
        pairs = pd.DataFrame({"x": of.set_index("layer")["adjusted"], "y": neurons.rename(lambda layer: layer + 1)})
        if not len(set(of["layer"]) & {layer + 1 for layer in neurons.index}):
            raise ValueError(
                "the tables have no layer in common: layer i of the counts is entry i + 1 of the similarity"
            )
        rows.append({"language": language, **_spearman(pairs.dropna(), shuffles, seed)})
    return pd.DataFrame(rows)


def _spearman(pairs: pd.DataFrame, shuffles: int, seed: int) -> dict[str, Any]:
    from scipy.stats import rankdata

    n, nothing = len(pairs), float("nan")
    exact = n <= 9
    found = {"rho": nothing, "p": nothing, "detectable": nothing, "layers": n, "exact": exact}
    if n < 3 or pairs["x"].nunique() == 1 or pairs["y"].nunique() == 1:
        return found
    x, y = (rankdata(pairs[column]) for column in ("x", "y"))
    x, y = ((r - r.mean()) / np.linalg.norm(r - r.mean()) for r in (x, y))
    rng = np.random.default_rng(seed)
    orders = np.array(list(permutations(range(n)))) if exact else rng.permuted(np.tile(range(n), (shuffles, 1)), axis=1)
    rho, null = float(x @ y), np.abs(y[orders] @ x)
    if not exact:
        null = np.append(null, abs(rho))  # what was seen is one of the orders
    steps, many = np.unique(np.round(null, 9), return_counts=True)
    as_large = many[::-1].cumsum()[::-1] / len(null)
    enough = steps[as_large <= 0.05]
    p = float((null >= abs(rho) - 1e-9).mean())
    return found | {"rho": rho, "p": p, "detectable": float(enough.min()) if len(enough) else nothing}


def _require_comparable(embeddings: Embeddings, *, raw: bool) -> tuple[str, ...]:
    if len(embeddings.languages) < 2:
        raise ValueError(f"there is only {embeddings.languages[0]!r}: geometry compares at least two languages")
    if len(embeddings) < 2:
        raise ValueError(
            "there is one document: without a second there is no baseline, give at least two (better a hundred)"
        )
    for language, vectors in embeddings.vectors.items() if raw else ():
        if len(zero := (vectors == 0).all(-1).nonzero()):
            at, document = zero[0].tolist()
            raise ValueError(
                f"document {embeddings.documents[document]!r} of {language!r} is a zero vector at layer {embeddings.layers[at]}, "
                "which has no cosine: remove the document, or embed without this layer"
            )
    return embeddings.languages


def _weights(n: int, resamples: int, seed: int) -> Float[Tensor, "draw doc"]:
    """All documents once, then the resamples."""
    return torch.from_numpy(np.vstack([np.ones(n), resample(n, resamples=resamples, seed=seed)]))


def _groups(
    pairs: Mapping[tuple[str, str], Any], *, ordered: bool = False
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The pairs, then the means over pairs: per language, and over all of them."""
    groups = {pair: [pair] for pair in pairs}
    languages = list(dict.fromkeys(x for pair in pairs for x in pair))
    for x in languages:
        groups[x, ALL] = [pair for pair in pairs if x == pair[0] or (x in pair and not ordered)]
    for x in languages if ordered else ():
        groups[ALL, x] = [pair for pair in pairs if x == pair[1]]
    return groups | {(ALL, ALL): list(pairs)}


def _estimates(name: str, both: Float[Tensor, "2 draw"]) -> dict[str, float]:
    value, low, high = _interval(both[0])
    adjusted, adjusted_low, adjusted_high = _interval(both[0] - both[1])
    found = {name: value, f"{name}_low": low, f"{name}_high": high, "shuffled": float(both[1, 0]), "adjusted": adjusted}
    return found | {"adjusted_low": adjusted_low, "adjusted_high": adjusted_high}


def _interval(draws: Float[Tensor, " draw"]) -> tuple[float, float, float]:
    """The estimate and its 95 % interval; draws that are nan are left out."""
    known = draws[1:] if bool(torch.isfinite(draws[0])) else draws[:0]
    if not len(known):
        return float(draws[0]), float("nan"), float("nan")
    low, high = known.nanquantile(torch.tensor([0.025, 0.975], dtype=known.dtype)).tolist()
    return float(draws[0]), low, high


def _wilson(hits: Float[Tensor, " doc"], pairs: int, z: float = 1.959963984540054) -> tuple[float, float, float]:
    """Mean and interval; n is the effective one (Korn and Graubard 1998): between that of one pair and that of independent pairs."""
    share, spread, n = float(hits.mean()), float(hits.var(correction=0)), len(hits)
    n *= min(max(share * (1 - share) / spread, 1), pairs) if spread > 0 else 1
    middle, width = share + z * z / (2 * n), z * sqrt(max(share * (1 - share), 0) / n + z * z / (4 * n * n))
    return share, (middle - width) / (1 + z * z / n), (middle + width) / (1 + z * z / n)
