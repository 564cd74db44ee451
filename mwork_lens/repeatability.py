"""Does a detector find the same neurons again, in other documents? Scores and sets of two runs, side by side.

Being stable is not being right: `trial` says what the scores are worth, this only how firm they are.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping

import pandas as pd
import torch

from .detect.listing import Outcome
from .rankings import Cells, flat, spearman
from .robustness.agreement import agreement
from .sites import SITES, Site
from .trial import corrected

REPEATABILITY = (
    "detector", "language", "sites", "spearman", "within", "first", "second", "shared", "jaccard", "jaccard_chance", "p", "q",
)  # fmt: skip
"""Columns of `repeatability`: one row a detector and language."""


def repeatability(first: Outcome, second: Outcome) -> pd.DataFrame:
    """How alike detectors are on two samples of texts, or under two seeds.

    Args:
        first: What `detect` found on one half of the documents, say.
        second: And on the other.

    Returns:
        Columns `REPEATABILITY`: rank correlation of the scores (`within` layers and sites, too), sizes of the two selections, their Jaccard index,
        that expected of random sets with the same number in each layer and site, and the one-sided p of the overlap; `q`: p corrected over all rows.

    Raises:
        ValueError: They hold other detectors, languages or sites; shapes that differ; sets of different models.
    """
    if set(first.scores) != set(second.scores):
        raise ValueError(f"the two runs hold other detectors: {', '.join(first.scores)} and {', '.join(second.scores)}")
    rows = []
    for name, by_language in first.scores.items():
        if set(by_language) != set(second.scores[name]):
            raise ValueError(f"the two runs of {name!r} hold other languages: run both on the same")
        for language, values in by_language.items():
            _require_alike(name, language, values, second.scores[name][language])
        overlap = agreement({"first": first.chosen[name], "second": second.chosen[name]})
        total = overlap[overlap["level"] == "total"].set_index("language")
        for language, values in by_language.items():
            common = tuple(site for site in SITES if site in values)
            cells = Cells(tuple(values[site].shape for site in common))
            one, two = flat(values, common), flat(second.scores[name][language], common)
            row = total.loc[language]
            sizes = (row["size_a"], row["size_b"], row["shared"], row["jaccard"], row["jaccard_chance"], row["p"])
            correlation = float(spearman(two[None], one)[0]), float(cells.within(two[None], one)[0])
            rows.append((name, language, ", ".join(common), *correlation, *sizes))
    return corrected(pd.DataFrame(rows, columns=[name for name in REPEATABILITY if name != "q"]), "p", by=None)


def _require_alike(
    name: str, language: str, first: Mapping[Site, torch.Tensor], second: Mapping[Site, torch.Tensor]
) -> None:
    """Refuse two runs of a detector that do not score the same neurons of a language."""
    if lone := sorted({*first} ^ {*second}):
        raise ValueError(
            f"detector {name!r} scores site {lone[0]!r} of {language!r} in only one of the two runs ({', '.join(first)} and {', '.join(second)}): "
            "run both with the same sites"
        )
    for site, values in first.items():
        if values.shape != second[site].shape:
            raise ValueError(
                f"detector {name!r} scores site {site!r} of {language!r} as [layer, width] {list(values.shape)} in one run and "
                f"{list(second[site].shape)} in the other: take both from one model"
            )
