"""How firm is a set of language neurons? LAPE on resampled documents.

The documents of each language are drawn anew with replacement (the bootstrap of Efron 1979), LAPE is computed on every resample, and a unit's
*selection frequency* is the share of resamples that choose it for the language (as in the stability selection of Meinshausen and Buehlmann 2010,
which halves the sample instead). The positive tokens of a resample are

    weights [resample doc] @ positive [doc, layer width]          weights: how often each document is drawn

integers, exact in float64, and likewise its tokens; so a resample is what `lape` finds on those documents, and no model is run.

Languages whose documents have the same ids are parallel and are drawn jointly, the same passages in every language; others each on their own.
(Texts without ids are numbered, and so look parallel. Unrelated documents drawn jointly are still drawn correctly within each language.)

A resample holds about 63 % of the documents, some of them twice, and none that is new: frequencies say how much a set hangs on single documents,
not whether texts of another kind would give it. The paper reports one selection per model and no uncertainty; this is ours.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..detect.inputs import documents_of, site_of
from ..detect.lape import language_entropy, lape, select
from ..evaluate import resample
from ..neurons import NeuronSet
from ..progress import hidden
from ..sites import Site
from ..strata import DocumentMoments

Per = Literal["token", "document"]

STABILITY = ("language", "documents", "size", "expected_size", "jaccard", "jaccard_low", "jaccard_high", "half", "firm")
"""Columns of `stability_table`: one row a language."""

_ENTRIES = 2**25
"""Probabilities held at a time (8 bytes each)."""


@dataclass(frozen=True, eq=False)
class SelectionFrequency:
    """How often each unit is chosen when documents are drawn anew."""

    frequency: Mapping[str, Float[Tensor, "layer width"]]
    """Per language, share of the resamples that choose the unit for it."""
    full: Mapping[str, NeuronSet]
    """Per language, the set found on all documents."""
    sizes: Mapping[str, Int[Tensor, " resample"]]
    """Per language, size of each resample's set."""
    jaccard: Mapping[str, Float[Tensor, " resample"]]
    """Per language, Jaccard index of each resample's set with the full one; nan if both are empty."""
    documents: Mapping[str, int]
    """Per language, the number of documents."""
    joint: bool
    """Whether parallel documents were drawn together in all languages."""

    @property
    def resamples(self) -> int:
        """Number of resamples."""
        return len(next(iter(self.sizes.values())))

    def stable(self, at: float = 0.9) -> dict[str, NeuronSet]:
        """The units of each language that at least this share of the resamples chooses.

        Raises:
            ValueError: `at` is not a share above 0.
        """
        if not 0 < at <= 1:
            raise ValueError(f"at={at} is not a share of the resamples: give a number above 0 and at most 1")
        return {
            language: NeuronSet({full.sites[0]: self.frequency[language] >= at - 1e-12}, model=full.model)
            for language, full in self.full.items()
        }


def selection_frequency(
    moments: Mapping[str, DocumentMoments],
    *,
    resamples: int = 200,
    seed: int = 0,
    rate: float = 0.01,
    filter_rate: float = 0.95,
    bar_rate: float = 0.95,
    site: str | None = None,
    per: Per = "token",
    progress: bool = True,
) -> SelectionFrequency:
    """LAPE on resampled documents.

    Args:
        moments: Per language, what `measure(model, corpora, document_moments(...))` returned.
        resamples: How many times the documents are drawn.
        seed: Of the drawing; the result does not depend on the order of the languages.
        rate: As in `lape`, and so are `filter_rate`, `bar_rate`, `site` and `per`.
        filter_rate: See `lape`.
        bar_rate: See `lape`.
        site: See `lape`.
        per: See `lape`.
        progress: Show a progress bar.

    Raises:
        ValueError: Moments without documents; no resample; a language with one document; what `lape` refuses.
    """
    from tqdm.auto import tqdm

    documents_of(moments, "selection_frequency")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: draw the documents at least once, better 100 times or more")
    if single := [language for language, m in moments.items() if len(m.documents) < 2]:
        raise ValueError(
            f"language {single[0]!r} has one document: resampling needs several; cut its text into documents"
        )
    cuts = {"rate": rate, "filter_rate": filter_rate, "bar_rate": bar_rate}
    full = lape(moments, **cuts, site=site, per=per)
    known = torch.stack([neurons.masks[neurons.sites[0]] for neurons in full.values()])
    joint = parallel(moments)
    weights = {language: _weights(m, language if not joint else "", resamples, seed) for language, m in moments.items()}
    chosen, sizes, overlaps = torch.zeros(known.shape, dtype=torch.long), [], []
    with gathered("resamples"), tqdm(total=resamples, disable=hidden(progress), desc="selection frequency") as bar:
        for p in _resampled(moments, weights, site_of(moments, site), per):
            lists = choose(p, **cuts)
            chosen += lists
            sizes.append(lists.sum((1, 2)))
            overlaps.append((lists & known).sum((1, 2)).double() / (lists | known).sum((1, 2)))
            bar.update()
    return SelectionFrequency(
        {language: chosen[i].double() / resamples for i, language in enumerate(moments)},
        full,
        {language: torch.stack(sizes)[:, i] for i, language in enumerate(moments)},
        {language: torch.stack(overlaps)[:, i] for i, language in enumerate(moments)},
        {language: len(m.documents) for language, m in moments.items()},
        joint,
    )


def stability_table(found: SelectionFrequency) -> pd.DataFrame:
    """What resampling says about each language's set.

    Returns:
        Columns `STABILITY`: documents; `size` on all documents and `expected_size`, the mean of the resamples; the mean Jaccard index of the
        resamples with the full set and its 2.5 % and 97.5 % quantiles; the shares of the full set with a selection frequency of at least 0.5
        (`half`) and 0.9 (`firm`). nan where there is nothing to average.
    """
    rows = []
    for language, full in found.full.items():
        often = found.frequency[language][full.masks[full.sites[0]]]
        overlaps = found.jaccard[language][~found.jaccard[language].isnan()].numpy()
        mean, low, high = (overlaps.mean(), *np.quantile(overlaps, [0.025, 0.975])) if len(overlaps) else (np.nan,) * 3
        half, firm = (float((often >= at - 1e-12).double().mean()) for at in (0.5, 0.9))
        size = float(found.sizes[language].double().mean())
        rows.append((language, found.documents[language], len(full), size, mean, low, high, half, firm))
    return pd.DataFrame(rows, columns=list(STABILITY))


def frequency_table(found: SelectionFrequency) -> pd.DataFrame:
    """Every unit that some resample chooses.

    Returns:
        Columns language (categorical: it knows those without units too), layer, index, frequency, chosen (on all documents).
    """
    parts = []
    for language, full in found.full.items():
        often, chosen = found.frequency[language], full.masks[full.sites[0]]
        layer, index = ((often > 0) | chosen).nonzero(as_tuple=True)
        columns = {"layer": layer, "index": index, "frequency": often[layer, index], "chosen": chosen[layer, index]}
        parts.append(pd.DataFrame({"language": language, **{name: x.numpy() for name, x in columns.items()}}))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(language=pd.Categorical(table["language"], categories=list(found.full)))


@contextmanager
def gathered(what: str) -> Iterator[None]:
    """One warning for many: how often it was raised, and what it said first."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        yield
    for category in dict.fromkeys(warning.category for warning in raised):
        messages = [str(warning.message) for warning in raised if warning.category is category]
        warnings.warn(f"in {len(messages)} of the {what}: {messages[0]}", category, stacklevel=4)


def parallel(moments: Mapping[str, DocumentMoments]) -> bool:
    """Whether all languages have the same documents, by id."""
    ids = [frozenset(m.documents) for m in moments.values()]
    return len({*ids}) == 1 and all(
        len(set_) == len(m.documents) for set_, m in zip(ids, moments.values(), strict=True)
    )


def choose(
    p: Float[Tensor, "layer width lang"], *, rate: float, filter_rate: float, bar_rate: float
) -> Bool[Tensor, "lang layer width"]:
    """LAPE's lists from probabilities."""
    return select(p, language_entropy(p), rate=rate, filter_rate=filter_rate, bar_rate=bar_rate).lists


def _weights(moments: DocumentMoments, stream: str, resamples: int, seed: int) -> Float[Tensor, "resample doc"]:
    """How often each document is drawn. Drawn in the order of the ids, so neither the order of documents nor of languages matters."""
    own = zlib.crc32(stream.encode()) if stream else 0
    drawn = resample(
        len(moments.documents), resamples=resamples, seed=int(np.random.SeedSequence([seed, own]).generate_state(1)[0])
    )
    rank = np.argsort(np.argsort(np.array(moments.documents), kind="stable"))
    return torch.from_numpy(drawn[:, rank])


def _resampled(
    moments: Mapping[str, DocumentMoments], weights: Mapping[str, Tensor], site: Site, per: Per
) -> Iterator[Float[Tensor, "layer width lang"]]:
    """The probabilities of each resample, a few at a time."""
    first = next(iter(moments.values()))
    _, layers, width = first.positive[site].shape
    resamples = len(next(iter(weights.values())))
    step = max(1, _ENTRIES // (layers * width * len(moments)))
    for at in range(0, resamples, step):
        part = [_pooled(m, weights[language][at : at + step], site, per) for language, m in moments.items()]
        yield from torch.stack(part, dim=-1)


def _pooled(
    moments: DocumentMoments, weights: Float[Tensor, "resample doc"], site: Site, per: Per
) -> Float[Tensor, "resample layer width"]:
    """Probabilities of one language, layer by layer: the float64 copy of all counts would be twice their size."""
    used = moments.n > 0  # a document without a kept token has no share
    counts, n, weights = moments.positive[site][used], moments.n[used].double(), weights[:, used]
    total = weights.sum(1) if per == "document" else weights @ n

    def layers() -> Iterator[Tensor]:
        for layer in range(counts.shape[1]):
            values = counts[:, layer].double()
            yield weights @ (values / n[:, None] if per == "document" else values)

    return torch.stack([*layers()], dim=1) / total[:, None, None]
