"""Does the state of a layer still say what the text was about, in every language? A linear probe, trained in one language and read in the others.

With the states X_l [doc d_model] of parallel texts (`geometry.embed`) and a label per document, ridge regression onto one-hot labels

    W = argmin ||X W - Y||^2 + c n ||W||^2,   c = `penalty` times the mean variance of a column of X

is fitted on some documents of one language and predicts, by the largest output, those left out, in every language. A state that has been
converted into a common form answers alike whatever the language; one that has not is at chance in all but the language of training. Chance is
measured: the same probe, labels shuffled over documents. `centred` takes each language's own mean off first (of the documents of training), for
languages lie apart by a vector that says nothing of a text.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ..geometry.embeddings import Embeddings
from ..writing.confusion import wilson

PROBES = (
    "language", "layer", "accuracy", "low", "high", "chance", "chance_high", "majority", "p", "train", "classes", "documents", "centred",
)  # fmt: skip
"""Columns of `probe_accuracy`."""


def probe_accuracy(
    embeddings: Embeddings,
    labels: Mapping[str, str],
    *,
    train: str = "en",
    centred: bool = True,
    folds: int = 5,
    penalty: float = 0.01,
    shuffles: int = 99,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy of a probe of one language in all of them, per layer, by cross-validation over documents.

    Args:
        embeddings: Of parallel texts.
        labels: What each document is about, by its name.
        train: The language the probe is fitted in.
        centred: Take each language's mean off.
        folds: Parts of the documents; each is predicted by a probe of the others, its translations included.
        penalty: Of the ridge, relative to the mean variance of a coordinate.
        shuffles: Probes of shuffled labels.
        seed: Of folds and shuffles.

    Returns:
        Columns `PROBES`: `low`, `high` (95 %, Wilson), `chance` and `chance_high` (mean and 95th percentile over shuffled labels), `majority`
        (share of the commonest label), `p` (of so high an accuracy under shuffled labels, one-sided).

    Raises:
        ValueError: No such language; a document without label; fewer than two labels, or fewer documents than folds; a setting out of range.
    """
    _require(embeddings, labels, train, folds, penalty, shuffles)
    names = [labels[name] for name in embeddings.documents]
    classes = sorted(set(names))
    y = np.array([classes.index(name) for name in names])
    rng = np.random.default_rng(seed)
    columns = np.column_stack([y, *(rng.permutation(y) for _ in range(shuffles))])
    part = rng.permutation(len(y)) % folds
    majority, rows = np.bincount(y).max() / len(y), []
    for at, layer in enumerate(embeddings.layers):
        states = {x: vectors[at].double().numpy() for x, vectors in embeddings.vectors.items()}
        right = {x: np.zeros(columns.shape) for x in states}
        for fold in range(folds):
            held, kept = part == fold, part != fold
            middle = {x: v[kept].mean(0) if centred else states[train][kept].mean(0) for x, v in states.items()}
            said = _predict(
                states[train][kept] - middle[train],
                columns[kept],
                {x: v[held] - middle[x] for x, v in states.items()},
                len(classes),
                penalty,
            )
            for x, found in said.items():
                right[x][held] = found == columns[held]
        for language, hits in right.items():
            accuracy = hits.mean(0)
            low, high = wilson(int(hits[:, 0].sum()), len(y))
            p = (1 + (accuracy[1:] >= accuracy[0]).sum()) / (1 + shuffles)
            rows.append(
                (language, layer, accuracy[0], low, high, accuracy[1:].mean(), np.quantile(accuracy[1:], 0.95), majority, p,
                 train, len(classes), len(y), centred)
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(PROBES))


def _predict(
    x: Float[np.ndarray, "doc d_model"],
    labels: Int[np.ndarray, "doc draw"],
    asked: Mapping[str, Float[np.ndarray, "more d_model"]],
    classes: int,
    penalty: float,
) -> dict[str, Int[np.ndarray, "more draw"]]:
    """Predictions of one ridge per column of labels, all from one factorisation, in the space of documents (d_model may be large)."""
    targets = np.eye(classes)[labels]
    means = targets.mean(0, keepdims=True)
    scale = x.var(0).mean()
    gram = x @ x.T + penalty * max(scale, 1e-12) * len(x) * np.eye(len(x))
    dual = np.linalg.solve(gram, (targets - means).reshape(len(x), -1))
    return {
        name: ((more @ x.T @ dual).reshape(len(more), labels.shape[1], classes) + means).argmax(-1)
        for name, more in asked.items()
    }


def _require(
    embeddings: Embeddings, labels: Mapping[str, str], train: str, folds: int, penalty: float, shuffles: int
) -> None:
    if train not in embeddings.vectors:
        raise ValueError(f"no embeddings of {train!r} to train on: there are {', '.join(embeddings.languages)}")
    if missing := [name for name in embeddings.documents if name not in labels]:
        raise ValueError(
            f"document {missing[0]!r} has no label ({len(missing)} of {len(embeddings)} lack one): label all"
        )
    if len({labels[name] for name in embeddings.documents}) < 2:
        raise ValueError("all documents have one label: a probe needs at least two to tell apart")
    if not 2 <= folds <= len(embeddings):
        raise ValueError(f"folds={folds}: give between 2 and the number of documents, {len(embeddings)}")
    if shuffles < 1:
        raise ValueError(f"shuffles={shuffles}: chance is measured on at least 1 shuffle of the labels")
    if not penalty > 0:
        raise ValueError(f"penalty={penalty}: the ridge needs a penalty above 0")
