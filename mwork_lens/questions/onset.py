"""Where does back-translation begin? The layer from which on a text's own language is more probable than English, under the logit lens.

    onset(document) = the first state i of 0 .. L with mass(own, i') > mass(English, i') at every i' >= i;  none if English leads at the output

State 0 is the embedding, state L the output, as in `layer_languages`. Masses are means over a document's positions; tokens that several languages
share, or that are unknown, count for neither side. A document whose own language leads everywhere has onset 0: it was never translated, so nothing
is translated back. That is the finding for such a document, not a missing value; one without an onset is, and is counted.
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
TABLE = ("language", "onset", "low", "high", "never_english", "none", "documents", "distance")
"""Columns of `onset_table`: mean over documents that have one; shares with onset 0, and without any."""


def onsets(
    model: Any,
    corpora: Mapping[str, Corpus],
    *,
    english: str = "en",
    identify: Identify | TokenLanguages = "counts",
    reference: Mapping[str, Corpus] | None = None,
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
                found = first_lead(masses[..., mine], masses[..., theirs])
                rows += [
                    (language, name, onset, int(n))
                    for name, onset, n in zip(tokens.documents, found, positions, strict=True)
                ]
                bar.update(len(tokens))
    return pd.DataFrame(rows, columns=list(ONSETS))


def first_lead(own: np.ndarray, english: np.ndarray) -> np.ndarray:
    """First state from which on `own` [doc state] is above `english` to the end; nan if it is not at the end."""
    ahead = own > english
    last_behind = np.where(ahead.all(1), -1, ahead.shape[1] - 1 - np.argmin(ahead[:, ::-1], axis=1))
    return np.where(ahead[:, -1], last_behind + 1.0, np.nan)


def onset_table(
    rows: pd.DataFrame, distance: Mapping[str, float] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[pd.DataFrame, tuple[float, float] | None]:
    """Mean onset per language with 95 % intervals over documents, and its relation to the distance from English.

    Args:
        rows: From `onsets`.
        distance: Of each language from English, such as 1 - its lexical similarity; the measure is the caller's.
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        Columns `TABLE`; Spearman's correlation of mean onset and distance with its exact permutation p, None with fewer than four languages.

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
        known = np.isfinite(values)
        low = high = mean = np.nan
        if known.any():
            weights = resample(int(known.sum()), resamples=resamples, seed=seed) / known.sum()
            mean, (low, high) = values[known].mean(), np.quantile(weights @ values[known], [0.025, 0.975])
        far = np.nan if distance is None else distance[language]
        table.append((language, mean, low, high, (values == 0).mean(), (~known).mean(), len(values), far))
    made = pd.DataFrame(table, columns=list(TABLE))
    usable = made.dropna(subset=["onset", "distance"])
    if len(usable) < 4 or usable["onset"].nunique() < 2 or usable["distance"].nunique() < 2:
        return made, None
    found = permutation_test(
        (usable["distance"].to_numpy(),), lambda x: spearmanr(x, usable["onset"]).statistic, permutation_type="pairings", n_resamples=9999,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return made, (float(found.statistic), float(found.pvalue))
