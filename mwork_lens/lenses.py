"""Logit lens: what each layer would say, and in which language.

Every state of the residual stream is read through the model's own final norm and unembedding (soft-cap and logit scale included; this is
TransformerLens's `logit_readout`). Entry i of L+1 is the stream before layer i, so entry 0 is the embedding - measured, where the paper's
code overwrites it - and entry L is what the model says. Per entry and language of the text:

    share   of the language among the top-k tokens that belong to *some* language (Zhao et al. 2024, Figure 1); the rest of the top-k
            tokens, shared or unknown, is not counted as anything, and `coverage` says how much of the top-k the share speaks about
    mass    probability of all tokens of the language, over the whole vocabulary, shared and unknown tokens included in the total

An entry without a reliable token has share nan and coverage 0; it does not count as non-English. Intervals: bootstrap over documents.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .capture import as_tokens, capture
from .corpora import Corpus, Tokens, batches, token_counts
from .languages import TokenLanguages, from_counts, from_lingua, from_script
from .progress import hidden
from .sites import n_layers

Identify = Literal["counts", "script", "lingua"]

_CHUNK = 1 << 22
"""Logits held at once."""


@dataclass(frozen=True)
class Reading:
    """What a lens saw of a batch, at each of the layers+1 states of the stream."""

    tokens: Int[Tensor, "layer batch pos k"]
    """The top-k tokens, most likely first."""
    logprobs: Float[Tensor, "layer batch pos k"]
    """Their log-probabilities, in nats."""
    languages: Float[Tensor, "layer batch pos lang"]
    """Probability mass per language, in the order of `names`; sums to 1."""
    names: tuple[str, ...]
    """The languages, then `shared`, then `unknown`."""

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        return {"tokens": self.tokens, "logprobs": self.logprobs, "languages": self.languages}, {"names": self.names}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Reading":
        """The inverse of `to_tensors`."""
        return cls(tensors["tokens"], tensors["logprobs"], tensors["languages"], tuple(facts["names"]))


def token_languages(
    model: Any,
    corpora: Mapping[str, Corpus],
    *,
    identify: Identify | TokenLanguages = "counts",
) -> TokenLanguages:
    """Label the model's vocabulary with the languages of `corpora`.

    Args:
        model: What `load_model` returned.
        corpora: For `"counts"`, the texts that are counted, each up to the model's context; otherwise only their languages matter.
        identify: `"counts"`, `"script"`, `"lingua"`, or labels made before.

    Raises:
        ValueError: Unknown `identify`; labels of another vocabulary.
        ImportError: `"lingua"` without the extra `lang`.
    """
    vocab = int(model.W_U.shape[1])
    if isinstance(identify, TokenLanguages):
        if len(identify) != vocab:
            raise ValueError(
                f"these token languages label {len(identify)} tokens, the model has {vocab}: made for another tokenizer?"
            )
        return identify
    if identify == "counts":
        return from_counts({language: token_counts(corpus, model)[:vocab] for language, corpus in corpora.items()})
    if identify == "script":
        return from_script(model.tokenizer, tuple(corpora), vocab=vocab)
    if identify == "lingua":
        return from_lingua(model.tokenizer, tuple(corpora), vocab=vocab)
    raise ValueError(f"unknown identify={identify!r}: choose counts, script or lingua")


def read(model: Any, tokens: Tokens | Tensor, labels: TokenLanguages | None = None, *, k: int = 10) -> Reading:
    """What every layer would say at every position of a batch.

    Args:
        model: What `load_model` returned.
        tokens: A batch, or ids [batch pos].
        labels: Language of each token (`token_languages`); None leaves `languages` and `names` empty.
        k: How many top tokens.

    Raises:
        ValueError: `k` is not between 1 and the vocabulary size.
    """
    vocab = int(model.W_U.shape[1])
    if not 1 <= k <= vocab:
        raise ValueError(f"k={k}: give between 1 and {vocab} top tokens")
    tokens = as_tokens(tokens, model)
    one_hot = torch.zeros(vocab, 0) if labels is None else labels.one_hot()
    one_hot = one_hot.to(model.W_U.device)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_layer(layer: int, stream: Mapping[str, Tensor]) -> None:
        rows.append(_readout(model, stream["resid_pre"], one_hot, k))
        if layer == n_layers(model) - 1:
            rows.append(_readout(model, stream["resid_post"], one_hot, k))

    capture(model, tokens, ("resid_pre", "resid_post"), on_layer)
    return Reading(
        *(torch.stack(column) for column in zip(*rows, strict=True)), names=() if labels is None else labels.names
    )


def _readout(
    model: Any, stream: Float[Tensor, "batch pos d_model"], one_hot: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    from transformer_lens.tools.analysis import logit_readout

    flat = stream.reshape(-1, stream.shape[-1])
    step = max(1, _CHUNK // one_hot.shape[0])
    parts = []
    for chunk in flat.split(step):
        logprobs = logit_readout(model, chunk, return_type="log_probs", chunk_size=step).values
        top = logprobs.topk(k, dim=-1)
        parts.append((top.indices.cpu(), top.values.cpu(), (logprobs.exp() @ one_hot).cpu()))
    shape = stream.shape[:2]
    ids, values, mass = (torch.cat(column).reshape(*shape, -1) for column in zip(*parts, strict=True))
    return ids, values, mass


def layer_languages(
    model: Any,
    corpora: Mapping[str, Corpus],
    *,
    k: int = 10,
    identify: Identify | TokenLanguages = "counts",
    reference: Mapping[str, Corpus] | None = None,
    size: int = 16,
    length: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Which language each layer speaks while it reads texts of each language.

    Args:
        model: What `load_model` returned.
        corpora: Texts to read, per language.
        k: Top tokens that count for `share`.
        identify: How a token's language is told (`languages.py`).
        reference: Texts whose token counts label the vocabulary under `"counts"`; default `corpora` themselves.
        size: Documents per batch.
        length: Tokens per document at most.
        resamples: Bootstrap resamples of documents.
        seed: Of the bootstrap.
        progress: Show a progress bar.

    Returns:
        One row per text_language, token_language (with `shared` and `unknown`) and layer 0..L: `share`, `share_low`, `share_high` (95 %
        interval; nan for shared and unknown, and where no top token has a language), `mass`, `mass_low`, `mass_high`, `coverage` (share of
        the top-k tokens that have a language: the denominator of `share`), `documents`, `positions`.

    Raises:
        ValueError: No corpora, or as `token_languages`.
    """
    from tqdm.auto import tqdm

    if not corpora:
        raise ValueError("no corpora to read: give at least one language, as from load_corpora")
    labels = token_languages(model, reference or corpora, identify=identify)
    tables = []
    with tqdm(total=sum(map(len, corpora.values())), unit="doc", desc="lens", disable=hidden(progress)) as bar:
        for language, corpus in corpora.items():
            bar.set_postfix_str(language)
            counts, masses, positions = [], [], []
            for tokens in batches(corpus, model, size=size, length=length):
                c, m, p = _per_document(read(model, tokens, labels, k=k), tokens, labels)
                counts.append(c)
                masses.append(m)
                positions.append(p)
                bar.update(len(tokens))
            tables.append(
                _table(
                    language,
                    labels,
                    np.concatenate(counts),
                    np.concatenate(masses),
                    np.concatenate(positions),
                    resamples,
                    seed,
                )
            )
    return pd.concat(tables, ignore_index=True)


def _per_document(
    reading: Reading, tokens: Tokens, labels: TokenLanguages
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per document: top-k tokens [doc layer lang] and probability mass [doc layer lang] summed over kept positions, and their number."""
    keep = tokens.keep.cpu()
    found = torch.nn.functional.one_hot(labels.labels[reading.tokens], len(labels.names)).sum(dim=3).double()
    counts = (found * keep[None, :, :, None]).sum(2).transpose(0, 1)
    return counts.numpy(), *document_masses(reading, tokens)


def document_masses(
    reading: Reading, tokens: Tokens
) -> tuple[Float[np.ndarray, "doc layer lang"], Float[np.ndarray, " doc"]]:
    """Per document: probability mass of each language at each state, summed over kept positions, and how many those are."""
    keep = tokens.keep.cpu()
    masses = (reading.languages.double() * keep[None, :, :, None]).sum(2).transpose(0, 1)
    return masses.numpy(), keep.sum(1).double().numpy()


def _table(
    language: str,
    labels: TokenLanguages,
    counts: np.ndarray,
    masses: np.ndarray,
    positions: np.ndarray,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Ratios of sums over documents, with percentile intervals from resampled documents."""
    documents, layers, _ = counts.shape
    known = len(labels.languages)
    draws = (
        np.random.default_rng(seed)
        .multinomial(documents, np.full(documents, 1 / documents), size=resamples)
        .astype(float)
    )

    def ratios(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        c, m, p = (np.tensordot(weights, x, axes=1) for x in (counts, masses, positions))
        reliable = c[..., :known].sum(-1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(reliable > 0, c / reliable, np.nan)
        share[..., known:] = np.nan
        return share, m / p[..., None, None], reliable[..., 0] / c.sum(-1)

    share, mass, coverage = ratios(np.ones((1, documents)))
    many_share, many_mass, _ = ratios(draws)
    with np.errstate(invalid="ignore"):
        edges = [np.full(share.shape[1:], np.nan)] * 2
        if np.isfinite(many_share).any():
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # all-nan columns stay nan
                edges = list(np.nanquantile(many_share, [0.025, 0.975], axis=0))
    bounds = np.quantile(many_mass, [0.025, 0.975], axis=0)
    layer, token = np.meshgrid(np.arange(layers), np.arange(len(labels.names)), indexing="ij")
    return pd.DataFrame({
        "text_language": language,
        "token_language": np.asarray(labels.names)[token.ravel()],
        "layer": layer.ravel(),
        "share": share[0].ravel(), "share_low": edges[0].ravel(), "share_high": edges[1].ravel(),
        "mass": mass[0].ravel(), "mass_low": bounds[0].ravel(), "mass_high": bounds[1].ravel(),
        "coverage": np.repeat(coverage[0], len(labels.names)),
        "documents": documents,
        "positions": int(positions.sum()),
    })  # fmt: skip
