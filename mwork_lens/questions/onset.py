"""Where does back-translation begin? The layer from which on a text's own language is more probable than English, under the logit lens.

    onset(document) = the first state i of 0 .. L such that English leads at no i' >= i;  none if English leads at the output
    English leads at i  <=>  mass(English, i) >= mass(own, i)  and  mass(English, i) >= least

State 0 is the embedding, state L the output, as in `layer_languages`. Masses are means over a document's positions; tokens that several languages
share, or that are unknown, count for neither side. Where both have next to nothing, which is more is noise: `least` is what English must have. A
document in which English never leads has onset 0: it was never translated, so nothing is translated back. A mean over such documents and the others
would describe neither, so the table gives their share, and the onset of those in which English led.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..corpora import Corpus, batches
from ..evaluate import RESAMPLES, resample
from ..languages import TokenLanguages
from ..lenses import Identify, document_masses, read, token_languages
from ..progress import hidden

ONSETS = ("language", "document", "onset", "positions")
"""Columns of `onsets`; nan where English leads at the output."""
TABLE = (
    "language", "translated", "translated_low", "translated_high", "onset", "low", "high", "none", "documents", "distance",
)  # fmt: skip
"""Columns of `onset_table`: share of documents in which English leads before the output, and their mean onset; share in which it leads there."""
LEAST = 0.01
"""Mass that English must have to lead."""


def onsets(
    model: Any,
    corpora: Mapping[str, Corpus],
    *,
    english: str = "en",
    identify: Identify | TokenLanguages = "counts",
    reference: Mapping[str, Corpus] | None = None,
    least: float = LEAST,
    size: int = 16,
    length: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The onset of every document of the languages other than English.

    Args:
        model: What `load_model` returned.
        corpora: Texts by language; English may be among them, for the token labels.
        english: The pivot.
        identify: How a token's language is told.
        reference: Texts that label the vocabulary under `"counts"`; default `corpora`.
        least: Mass that English must have to lead.
        size: Documents per batch.
        length: Tokens per document at most.
        progress: Show a bar.

    Returns:
        Columns `ONSETS`.

    Raises:
        ValueError: No other language, or the labels do not have the pivot.
    """
    from tqdm.auto import tqdm

    others = {language: corpus for language, corpus in corpora.items() if language != english}
    if not others:
        raise ValueError(f"no language besides {english!r}: an onset is that of another language over it")
    labels = token_languages(model, reference or corpora, identify=identify)
    if missing := [language for language in (english, *others) if language not in labels.names]:
        raise ValueError(
            f"no token is labelled {missing[0]!r}: give its texts in corpora or reference ({', '.join(labels.names)})"
        )
    rows = []
    with tqdm(total=sum(map(len, others.values())), unit="doc", desc="onset", disable=hidden(progress)) as bar:
        for language, corpus in others.items():
            mine, theirs = labels.names.index(language), labels.names.index(english)
            for tokens in batches(corpus, model, size=size, length=length):
                masses, positions = document_masses(read(model, tokens, labels, k=1), tokens)
                means = masses / positions[:, None, None]
                found = first_lead(means[..., mine], means[..., theirs], least)
                rows += [
                    (language, name, onset, int(n))
                    for name, onset, n in zip(tokens.documents, found, positions, strict=True)
                ]
                bar.update(len(tokens))
    return pd.DataFrame(rows, columns=list(ONSETS))


def first_lead(own: np.ndarray, english: np.ndarray, least: float = LEAST) -> np.ndarray:
    """First state from which on English [doc state] does not lead over `own`; nan if it leads at the end."""
    ahead = (own > english) | (english < least)
    last_behind = np.where(ahead.all(1), -1, ahead.shape[1] - 1 - np.argmin(ahead[:, ::-1], axis=1))
    return np.where(ahead[:, -1], last_behind + 1.0, np.nan)


def onset_table(
    rows: pd.DataFrame, distance: Mapping[str, float] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[pd.DataFrame, tuple[float, float] | None]:
    """How often and until where English leads, per language, with 95 % intervals over documents, and how that share goes with a distance.

    Args:
        rows: From `onsets`.
        distance: Of each language from English, such as 1 - its lexical similarity; the measure is the caller's.
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        Columns `TABLE`, `onset` nan where English leads in no document; Spearman's correlation of `translated` and distance with its exact
        permutation p, None with fewer than four languages.

    Raises:
        ValueError: A language without a distance.
    """
    from scipy.stats import permutation_test, spearmanr

    languages = list(dict.fromkeys(rows["language"]))
    if distance is not None and (missing := [language for language in languages if language not in distance]):
        raise ValueError(f"no distance for {missing[0]!r}: give one for each of {', '.join(languages)}")
    table = []
    for language in languages:
        values = rows.loc[rows["language"] == language, "onset"].to_numpy(float)
        led = np.nan_to_num(values) > 0
        share = _interval(led.astype(float), resamples, seed)
        far = np.nan if distance is None else distance[language]
        onset = _interval(values[led], resamples, seed)
        table.append((language, *share, *onset, np.isnan(values).mean(), len(values), far))
    made = pd.DataFrame(table, columns=list(TABLE))
    usable = made.dropna(subset=["distance"])
    if len(usable) < 4 or usable["translated"].nunique() < 2 or usable["distance"].nunique() < 2:
        return made, None
    found = permutation_test(
        (usable["distance"].to_numpy(),), lambda x: spearmanr(x, usable["translated"]).statistic, permutation_type="pairings", n_resamples=9999,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return made, (float(found.statistic), float(found.pvalue))


def _interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean and its 95 % interval; nan of nothing."""
    if not len(values):
        return np.nan, np.nan, np.nan
    weights = resample(len(values), resamples=resamples, seed=seed) / len(values)
    low, high = np.quantile(weights @ values, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
