"""Which experts belong to all languages, a family, one language or none; and the paper's two statements beside ours.

    co-activated   f >= high in every language
    family         f >= high in every language of one family (two or more), f <= low in all others
    language       f >= high in one language, f <= low in all others
    dormant        f <= low in every language
    mixed          none of these

The names are those of Liu et al. 2024 (arXiv 2402.16367); the thresholds are ours (0.5 and 0.1, or quantiles).
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from .analysis import families_of, layers_of, stacked
from .scores import require

Category = Literal["co-activated", "family", "language", "dormant", "mixed"]
CATEGORIES: tuple[Category, ...] = get_args(Category)


def quantile_thresholds(
    frequencies: Mapping[str, Any], *, top: float = 0.5, bottom: float = 1000 / 8192
) -> tuple[float, float]:
    """(high, low) such that the share `top` of all frequencies of all languages is at or above high, and `bottom` at or below low.

    Raises:
        ValueError: The shares overlap or are none; the frequencies are too equal for two thresholds.
    """
    if not (0 < top < 1 and 0 < bottom < 1 and top + bottom < 1):
        raise ValueError(
            f"top={top} and bottom={bottom} must be shares of the experts that leave some between them, such as 0.5 and 0.12"
        )
    f = stacked(frequencies, least=1).ravel()
    high, low = float(np.quantile(f, 1 - top, method="higher")), float(np.quantile(f, bottom, method="lower"))
    if high <= low:
        raise ValueError(
            f"the top {top} and the bottom {bottom} of the frequencies meet at {high}: give `high` and `low` instead"
        )
    return high, low


def categories(
    frequencies: Mapping[str, Any],
    *,
    families: Mapping[str, str] | None = None,
    high: float = 0.5,
    low: float = 0.1,
    quantiles: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """Which experts all languages use, one family, one language, or none.

    Args:
        frequencies: Per language, frequencies [layer expert] or `ExpertCounts`.
        families: Families that differ from `languages.LANGUAGES`, by language.
        high: From which frequency on an expert is used.
        low: Up to which frequency it is not.
        quantiles: (top, bottom) shares instead of `high` and `low`: see `quantile_thresholds`.

    Returns:
        Columns layer, expert, category, of (the language or family, else ""), least, mean, most (frequency over languages), high, low.

    Raises:
        ValueError: As `stacked`; not 0 <= low < high <= 1; a language's family is unknown.
    """
    f = stacked(frequencies)
    if quantiles is not None:
        high, low = quantile_thresholds(frequencies, top=quantiles[0], bottom=quantiles[1])
    _require_thresholds(high, low)
    names = list(frequencies)
    family = families_of(names, families)
    used, unused = f >= high, f <= low
    kind = np.full(f.shape[1:], "mixed", dtype=object)
    owner = np.full(f.shape[1:], "", dtype=object)
    kind[used.all(0)], kind[unused.all(0)] = "co-activated", "dormant"
    groups: list[tuple[str, str, list[bool]]] = [("language", name, [n == name for n in names]) for name in names]
    for name in dict.fromkeys(family.values()):
        groups.append(("family", name, [family[n] == name for n in names]))
    for category, name, inside in groups:
        member = np.array(inside)
        if member.all() or (category == "family" and member.sum() < 2):
            continue  # all languages: co-activated; a family of one: a language
        here = used[member].all(0) & unused[~member].all(0)
        kind[here], owner[here] = category, name
    layer, expert = np.meshgrid(layers_of(frequencies), range(f.shape[2]), indexing="ij")
    columns = {"layer": layer, "expert": expert, "category": kind, "of": owner}
    columns |= {"least": f.min(0), "mean": f.mean(0), "most": f.max(0)}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}).assign(high=high, low=low)


def category_shares(table: pd.DataFrame, by: str = "all") -> pd.DataFrame:
    """How many experts each category has, of the model or of each layer; an empty category has a row of 0.

    Args:
        table: What `categories` returned.
        by: Of all experts, or layer by layer.

    Returns:
        Columns (layer,) category, of, experts, share; `of` is "" for the whole category, else the family or language.

    Raises:
        ValueError: `by` is unknown.
    """
    require("by", by, ("all", "layer"))
    owned = table[table["of"] != ""]
    owners = [*dict.fromkeys(zip(owned["category"], owned["of"], strict=True))]
    keys = [(category, "") for category in CATEGORIES] + sorted(owners, key=lambda o: (CATEGORIES.index(o[0]), o[1]))
    rows = []
    for place, part in [(None, table)] if by == "all" else list(table.groupby("layer")):
        for category, of in keys:
            found = (part["category"] == category) & ((part["of"] == of) | (of == ""))
            rows.append((place, category, of, int(found.sum()), float(found.mean())))
    made = pd.DataFrame(rows, columns=["layer", "category", "of", "experts", "share"])
    return made.drop(columns="layer") if by == "all" else made


def statements(frequencies: Mapping[str, Any], *, high: float = 0.5, low: float = 0.1) -> pd.DataFrame:
    """The paper's two statements (Llama-2-7B, 8192 experts, nine languages) beside what was counted here.

    `possible` is the largest share that the mean frequency m allows at all: m / high for high experts, (1 - m) / (1 - low) for low ones, at most 1.
    A paper whose top share is not known can differ from ours by that alone.

    Returns:
        Columns statement, paper, paper_share, share, experts, of, possible, languages, high, low; two rows.

    Raises:
        ValueError: As `categories`.
    """
    _require_thresholds(high, low)
    f = stacked(frequencies)
    mean, of = float(f.mean()), f[0].size
    rows = [
        ("high in all languages", "about half", 0.5, (f >= high).all(0), mean / high),
        ("low in all languages", "more than 1000 of 8192", 1000 / 8192, (f <= low).all(0), (1 - mean) / (1 - low)),
    ]
    made = [(name, paper, at, float(x.mean()), int(x.sum()), of, min(1.0, top)) for name, paper, at, x, top in rows]
    columns = ["statement", "paper", "paper_share", "share", "experts", "of", "possible"]
    return pd.DataFrame(made, columns=columns).assign(languages=len(f), high=high, low=low)


def _require_thresholds(high: float, low: float) -> None:
    if not 0 <= low < high <= 1:
        raise ValueError(f"high={high} and low={low}: give frequencies with 0 <= low < high <= 1, such as 0.5 and 0.1")
