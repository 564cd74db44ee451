"""The probe against ridge regression written out, a planted transfer, and labels that say nothing."""

import numpy as np
import pytest
import torch

from mwork_lens.geometry.embeddings import Embeddings
from mwork_lens.questions import probe_accuracy
from mwork_lens.questions.probe import _predict


def embeddings(
    doc: int = 60, width: int = 12, *, noise: float = 0.3, seed: int = 0
) -> tuple[Embeddings, dict[str, str]]:
    """State 0 is noise; in state 1 English and German hold the label in one direction, `xx` in another; every language has an offset."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, doc)
    centres, turned = rng.normal(size=(3, width)), rng.normal(size=(3, width))
    vectors = {}
    for language, where in (("en", centres), ("de", centres), ("xx", turned)):
        state = where[kinds] + noise * rng.normal(size=(doc, width)) + 5 * rng.normal(size=width)
        vectors[language] = torch.tensor(np.stack([rng.normal(size=(doc, width)), state]), dtype=torch.float32)
    names = tuple(f"d{i}" for i in range(doc))
    return Embeddings(names, vectors), {name: f"kind {k}" for name, k in zip(names, kinds, strict=True)}


def test_what_languages_share_is_read_across_them_and_what_they_do_not_is_not():
    states, labels = embeddings()
    table = probe_accuracy(states, labels, shuffles=39).set_index(["language", "layer"])
    assert table.loc[("en", 1), "accuracy"] > 0.95
    assert table.loc[("de", 1), "accuracy"] > 0.95
    assert table.loc[("xx", 1), "accuracy"] < 0.75
    assert table.loc[("de", 1), "p"] == pytest.approx(1 / 40)
    for language in ("en", "de", "xx"):  # noise is at chance, and chance is near the share of the commonest label
        assert table.loc[(language, 0), "p"] > 0.05
        assert table.loc[(language, 0), "chance"] == pytest.approx(table["majority"].iloc[0], abs=0.12)
    own = probe_accuracy(states, labels, train="xx", shuffles=19).set_index(["language", "layer"])
    assert own.loc[("xx", 1), "accuracy"] > 0.95


def test_an_offset_between_languages_is_taken_off_only_if_asked():
    states, labels = embeddings(noise=1.0)
    centred, plain = (
        probe_accuracy(states, labels, centred=c, shuffles=9).set_index(["language", "layer"])["accuracy"]
        for c in (True, False)
    )
    assert centred["en", 1] == plain["en", 1]
    assert centred["de", 1] > plain["de", 1]


def test_predictions_are_those_of_a_ridge_in_the_space_of_weights():
    rng = np.random.default_rng(1)
    x, more, labels = rng.normal(size=(20, 5)), rng.normal(size=(7, 5)), rng.integers(0, 3, (20, 4))
    said = _predict(x, labels, {"other": more}, 3, 0.01)["other"]
    strength = 0.01 * x.var(0).mean() * len(x)
    for draw in range(4):
        y = np.eye(3)[labels[:, draw]]
        weights = np.linalg.solve(x.T @ x + strength * np.eye(5), x.T @ (y - y.mean(0)))
        assert (said[:, draw] == (more @ weights + y.mean(0)).argmax(1)).all()


def test_documents_are_never_predicted_by_a_probe_that_saw_them():
    rng = np.random.default_rng(2)  # as wide as there are documents: a probe can learn any label of what it sees
    states = Embeddings(tuple(f"d{i}" for i in range(40)), {"en": torch.tensor(rng.normal(size=(1, 40, 60)))})
    labels = {f"d{i}": str(i % 2) for i in range(40)}
    (row,) = probe_accuracy(states, labels, shuffles=99, penalty=1e-6).to_dict("records")
    assert row["p"] > 0.05


def test_the_probe_says_what_is_wrong():
    states, labels = embeddings(doc=10)
    few = dict.fromkeys(labels, "same")
    for given, options, message in [
        (labels, {"train": "yy"}, "no embeddings of 'yy' to train on: there are en, de, xx"),
        ({}, {}, r"document 'd0' has no label \(10 of 10 lack one\)"),
        (few, {}, "all documents have one label"),
        (labels, {"folds": 1}, "folds=1: give between 2 and the number of documents, 10"),
        (labels, {"shuffles": 0}, "shuffles=0: chance is measured"),
        (labels, {"penalty": 0.0}, "penalty=0.0: the ridge needs"),
    ]:
        with pytest.raises(ValueError, match=message):
            probe_accuracy(states, given, **options)
