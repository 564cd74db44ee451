"""What the scores of items say: means, paired differences, and the MWork columns. Pure functions of the table of `answer_scores`.

    change of a language = mean score after - mean score before, over the same items
    dEng = change in English,   dn-Eng = mean change of the other languages,   Delta = dEng - dn-Eng

Delta is above zero where an edit spares English. Intervals are 95 % percentile bootstraps over items. An item that several languages share is
drawn for all of them at once, so that Delta profits from parallel items; languages that share none are drawn independently. Reference: MWork,
arXiv 2402.18815, Tables 4-7, whose columns imply several baselines per table; here one stored baseline serves every row.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..evaluate import RESAMPLES, resample

CHANGES = ("task", "language", "before", "after", "change", "low", "high", "items")
"""Columns of `ability_difference`: one row a task and language."""
DELTAS = (
    "task", "english", "others", "d_english", "d_english_low", "d_english_high", "d_others", "d_others_low", "d_others_high",
    "delta", "delta_low", "delta_high", "items",
)  # fmt: skip
"""Columns of `ability_delta`: one row a task; `english` and `others` are the mean scores after."""


def accuracy(
    table: pd.DataFrame,
    by: Sequence[str] = ("task", "language"),
    *,
    score: str = "score",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean score of each group, with a 95 % bootstrap interval over items.

    Args:
        table: From `answer_scores`.
        by: Columns that make a group. Rows of a group with the same task and item (in several languages) are drawn together.
        score: Which score.
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        Columns *by, mean, low, high, items (distinct ones).

    Raises:
        ValueError: A column is missing, several conditions would be mixed, or a score is nan.
    """
    by = [by] if isinstance(by, str) else list(by)
    _require_columns(table, [*by, score, "task", "item", "condition"], score)
    if "condition" not in by and table["condition"].nunique() > 1:
        named = ", ".join(map(str, table["condition"].unique()))
        raise ValueError(f"the table holds several conditions ({named}): name 'condition' in `by`, or choose one")
    rows = []
    for key, group in table.groupby(by, sort=False):
        per_item = group.groupby(["task", "item"], sort=False)[score].agg(["sum", "count"])
        weights = resample(len(per_item), resamples=resamples, seed=seed)
        sums, counts = per_item["sum"].to_numpy(float), per_item["count"].to_numpy(float)
        low, high = np.quantile((weights @ sums) / (weights @ counts), [0.025, 0.975])
        rows.append((*key, sums.sum() / counts.sum(), low, high, len(per_item)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "items"])


def ability_difference(
    after: pd.DataFrame, before: pd.DataFrame, *, score: str = "score", resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Change of the mean score per task and language, with 95 % paired bootstrap intervals.

    Args:
        after: `answer_scores` under an edit.
        before: The same items without it.
        score: Which score.
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        Columns `CHANGES`; below zero is harm.

    Raises:
        ValueError: The two do not hold the same items of the same tasks and languages, one holds several conditions, or a score is nan.
    """
    rows = []
    for task, pairs in _paired(after, before, score).items():
        drawn = _resampled(pairs, resamples, seed)
        for language, pair in pairs.items():
            low, high = np.nanquantile(drawn[language], [0.025, 0.975])
            b, a = pair["before"].mean(), pair["after"].mean()
            rows.append((task, language, b, a, a - b, low, high, len(pair)))
    return pd.DataFrame(rows, columns=list(CHANGES))


def ability_delta(
    after: pd.DataFrame,
    before: pd.DataFrame,
    *,
    english: str = "en",
    languages: Sequence[str] | None = None,
    score: str = "score",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """The MWork columns: change in English, mean change in the other languages, and their difference, with 95 % intervals.

    Args:
        after: `answer_scores` under an edit.
        before: The same items without it.
        english: The language set against the others.
        languages: The others; default all there are.
        score: Which score.
        resamples: Number of resamples, drawn jointly for all languages.
        seed: Of the resampling.

    Returns:
        Columns `DELTAS`. `items` counts those of all languages together.

    Raises:
        ValueError: As in `ability_difference`; or a task lacks English, one of the others, or any other language.
    """
    rows = []
    for task, pairs in _paired(after, before, score).items():
        others = [language for language in pairs if language != english] if languages is None else list(languages)
        if missing := [language for language in (english, *others) if language not in pairs]:
            raise ValueError(f"task {task!r} has no scores in {missing[0]!r}: it has {', '.join(pairs)}")
        if not others or english in others:
            raise ValueError(f"task {task!r} needs languages other than {english!r} to compare with")
        kept = {language: pairs[language] for language in (english, *others)}
        drawn = _resampled(kept, resamples, seed)
        spread = {"d_english": drawn[english], "d_others": np.mean([drawn[language] for language in others], axis=0)}
        spread["delta"] = spread["d_english"] - spread["d_others"]
        change = {language: pair["after"].mean() - pair["before"].mean() for language, pair in kept.items()}
        value = {"d_english": change[english], "d_others": np.mean([change[language] for language in others])}
        value["delta"] = value["d_english"] - value["d_others"]
        cells = [(value[name], *np.nanquantile(spread[name], [0.025, 0.975])) for name in spread]
        means = (kept[english]["after"].mean(), np.mean([kept[language]["after"].mean() for language in others]))
        rows.append((task, *means, *(number for cell in cells for number in cell), sum(map(len, kept.values()))))
    return pd.DataFrame(rows, columns=list(DELTAS))


def ability_table(
    table: pd.DataFrame,
    before: str = "baseline",
    *,
    english: str = "en",
    languages: Sequence[str] | None = None,
    score: str = "score",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """`ability_delta` of every condition against one baseline, which every row shares.

    Returns:
        Columns condition, *`DELTAS`.

    Raises:
        ValueError: As in `ability_delta`, or there is no condition of the baseline's name, or no other.
    """
    conditions = list(dict.fromkeys(table["condition"]))
    if before not in conditions:
        raise ValueError(f"no condition {before!r} to compare with: there are {', '.join(map(str, conditions))}")
    baseline = table[table["condition"] == before]
    found = [
        ability_delta(
            table[table["condition"] == condition], baseline,
            english=english, languages=languages, score=score, resamples=resamples, seed=seed,
        ).assign(condition=condition)
        for condition in conditions
        if condition != before
    ]  # fmt: skip
    if not found:
        raise ValueError(f"the table holds {before!r} only: there is nothing to compare with it")
    return pd.concat(found, ignore_index=True)[["condition", *DELTAS]]


def _require_columns(table: pd.DataFrame, names: Sequence[str], score: str) -> None:
    if missing := [name for name in names if name not in table]:
        raise ValueError(f"no column {missing[0]!r}: the table has {', '.join(map(str, table.columns))}")
    if table.empty:
        raise ValueError("the table has no rows: score at least one item")
    if (bad := table[score].isna()).any():
        row = table[bad].iloc[0]
        raise ValueError(
            f"the {score} of item {row['item']!r} ({row['task']}, {row.get('language', '')}) is nan: choose a score that these tasks have"
        )


def _paired(after: pd.DataFrame, before: pd.DataFrame, score: str) -> dict[str, dict[str, pd.DataFrame]]:
    """Per task and language, columns before and after, indexed by item."""
    for name, table in (("after", after), ("before", before)):
        _require_columns(table, [score, "task", "language", "item", "condition"], score)
        if table["condition"].nunique() > 1:
            raise ValueError(
                f"{name} holds several conditions ({', '.join(map(str, table['condition'].unique()))}): choose one, or use ability_table"
            )
        if (twice := table.duplicated(["task", "language", "item"])).any():
            row = table[twice].iloc[0]
            raise ValueError(f"{name} holds item {row['item']!r} of {row['task']!r} in {row['language']!r} twice")
    key = ["task", "language", "item"]
    b, a = before.set_index(key)[score], after.set_index(key)[score]
    if len(alone := b.index.symmetric_difference(a.index)):
        task, language, item = alone[0]
        raise ValueError(
            f"only one of the two tables has item {item!r} of {task!r} in {language!r}: ask the same items under both conditions"
        )
    both = pd.DataFrame({"before": b, "after": a.reindex(b.index)}).reset_index()
    return {
        str(task): {str(language): group.set_index("item") for language, group in rows.groupby("language", sort=False)}
        for task, rows in both.groupby("task", sort=False)
    }


def _resampled(pairs: Mapping[str, pd.DataFrame], resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Change per language and resample; items that languages share are drawn together."""
    union = list(dict.fromkeys(item for pair in pairs.values() for item in pair.index))
    if len(union) == sum(map(len, pairs.values())):  # nothing is shared
        weights = {
            language: resample(len(pair), resamples=resamples, seed=seed + at)
            for at, (language, pair) in enumerate(pairs.items())
        }
    else:
        place = {item: at for at, item in enumerate(union)}
        drawn = resample(len(union), resamples=resamples, seed=seed)
        weights = {language: drawn[:, [place[item] for item in pair.index]] for language, pair in pairs.items()}
    found = {}
    for language, pair in pairs.items():
        counts = weights[language].sum(1)
        gap = weights[language] @ (pair["after"] - pair["before"]).to_numpy(float)
        found[language] = np.divide(gap, counts, out=np.full(resamples, np.nan), where=counts > 0)
    return found
