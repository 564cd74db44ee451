"""Where does a fact come from? Absent from the language's texts and predicted all the same: by a shared name, by a naming cue, or by transfer.

Types, tested IN THIS ORDER (another order changes every count):

    substring   the object, in lower case, is contained in the subject, in lower case (Chinese: both in simplified characters first)
    wordpiece   they share a token, of those at the start of a text or of those behind a space
    naming      the relation is one that names give away: located in, citizen of, native language, religion, language used
    others      what is left: a fact that is absent, predicted, and `others` is a candidate for transfer across languages

    easy        absent and predicted, and one of the first three

Labels of a predicted fact in a language, by its neurons and its source; the paper describes the three patterns and gives no cut:

    transferred   its source is absent, and its type is `others`
    shared        its neurons overlap with those in the other languages more than other facts of the relation would: at or above the
                  95 % quantile of the query's own null (overlaps.py)
    independent   predicted in at least two languages, overlap below the cut, and its source is present
    (empty)       otherwise: known in one language only, no corpus, a group without neurons, too few facts for a cut

tested in this order too. Reference: Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189), section 6. There 19.6 % of predicted facts are absent: 25.8 %
of these share tokens, 22.0 % have a naming cue, 52.2 % are others. Absent means not found in the corpus given, by the match chosen.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd

from .factors import wilson_interval
from .judged import judged
from .overlaps import QUANTILE, null_cuts
from .sharing import ALL, require_queries

TYPES = ("substring", "wordpiece", "naming", "others")
"""In the order in which they are tested."""
LABELS = ("transferred", "shared", "independent")
NAMING = ("P17", "P27", "P103", "P140", "P1412", "city_country", "author_language")
"""Relations that names give away: mLAMA's country, citizenship, native language, religion, languages spoken or written, as in the paper; and
their like in the embedded set `small`."""
STATUS = {-1: "no corpus", 0: "neither", 1: "source only", 2: "predicted only", 3: "both"}

ORIGINS = (
    "language", "relation", "fact", "predicted", "present", "status", "type", "easy", "languages", "overlap", "cut", "label",
)  # fmt: skip
"""Columns of `origins`: `present` is missing without a corpus, `languages` counts those that predict the fact."""
ABSENT = ("language", "predicted", "absent", "share", "low", "high")
"""Columns of `absent_shares`."""

_KEY = ["language", "relation", "fact"]


def origin_type(
    subject: str, object: str, relation: str, *, tokens: tuple[Collection[Any], Collection[Any]] = ((), ()),
    naming: Collection[str] = NAMING,
) -> str:  # fmt: skip
    """The type of one fact, as it would be if it were absent and predicted.

    Args:
        subject: Its name (of Chinese facts, simplified).
        object: Its name.
        relation: Its relation.
        tokens: Of the subject and of the object; empty if the second test is left out.
        naming: Relations that names give away.
    """
    if object.lower() in subject.lower():
        return "substring"
    if set(tokens[0]) & set(tokens[1]):
        return "wordpiece"
    return "naming" if relation in naming else "others"


def origin_types(
    facts: Any, *, tokenizer: Any = None, simplify: Callable[[str], str] | None = None, naming: Collection[str] = NAMING
) -> pd.Series:
    """The type of every query, whether predicted or not: the base rates of the types need no model.

    Args:
        facts: A `FactSet`, or a table with columns language, relation, fact, subject, object.
        tokenizer: Of the model, for the second type; without it there is none of that type. A word-start mark alone is no shared token.
        simplify: Converts Chinese text to simplified characters (not included); applied to languages `zh...` before everything else.
        naming: Relations that names give away; those of mLAMA and of the embedded sets by default, so give your own for another fact set.

    Returns:
        One of `TYPES` a row, in the order and with the index of the facts.

    Raises:
        ValueError: A subject or object that is no string or empty.
    """
    table = getattr(facts, "table", facts)
    names: dict[tuple[bool, str], tuple[str, frozenset[int]]] = {}

    def read(language: str, name: Any, fact: str, what: str) -> tuple[str, frozenset[int]]:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"the {what} of fact {fact!r} in {language!r} is {name!r}: remove the fact, or name it")
        chinese = simplify is not None and str(language).startswith("zh")
        if (chinese, name) not in names:
            text = simplify(name) if chinese and simplify is not None else name
            names[chinese, name] = (text, frozenset() if tokenizer is None else _pieces(text, tokenizer))
        return names[chinese, name]

    found = []
    for row in table[[*_KEY, "subject", "object"]].itertuples(index=False):
        subject, a = read(row.language, row.subject, row.fact, "subject")
        thing, b = read(row.language, row.object, row.fact, "object")
        found.append(origin_type(subject, thing, row.relation, tokens=(a, b), naming=naming))
    return pd.Series(found, index=table.index, name="type", dtype=object)


def origins(
    facts: Any, predictions: pd.DataFrame, presence: pd.DataFrame, *, neurons: Any = None, metric: str = "full", tokenizer: Any = None,
    simplify: Callable[[str], str] | None = None, naming: Collection[str] = NAMING, quantile: float = QUANTILE, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Type, status and label of every query.

    Args:
        facts: A `FactSet`, or a table with columns language, relation, fact, subject, object.
        predictions: One row a query, as `probe` gives it; queries that were not asked are left out.
        presence: What `present` returned. A language without rows has no corpus.
        neurons: `FactNeurons`; without them `shared` and `independent` cannot be told, and no row has these labels.
        metric: What counts as predicted: one of `judged.METRICS`, or a column of booleans.
        tokenizer: As in `origin_types`.
        simplify: As there.
        naming: As there.
        quantile: Of each query's null that is its cut.
        seed: Of the null's draws.

    Returns:
        Columns `ORIGINS`. `status` is a key of `STATUS`, `present` a nullable boolean, `label` one of `LABELS` or empty. `overlap` is the mean
        over the other languages in which the fact has neurons, `cut` what other facts reach there in 5 of 100 draws.

    Raises:
        ValueError: A column is missing, a query appears twice, a query was asked that the facts do not hold; what `origin_types` refuses.
    """
    asked = require_queries(judged(predictions, metric), (metric,)).rename(columns={metric: "predicted"})
    held = getattr(facts, "table", facts)[[*_KEY, "subject", "object"]].reset_index(drop=True)
    table = asked.merge(held, on=_KEY, how="left")
    if len(table) > len(asked):
        raise ValueError("the facts hold a query twice: (language, relation, fact) must differ")
    if (lost := table["subject"].isna() & ~_known(table, held)).any():
        row = table[lost].iloc[0]
        raise ValueError(
            f"fact {row['fact']!r} of {row['relation']!r} was asked in {row['language']!r}, and is not among the facts"
        )
    sources = require_queries(presence, ("present", "searchable"))
    sources = sources.assign(present=sources["present"].astype("boolean").where(sources["searchable"].astype(bool)))
    table = table.merge(sources[[*_KEY, "present"]], on=_KEY, how="left")
    table["present"] = table["present"].astype("boolean")
    table["predicted"] = table["predicted"].astype(bool)
    table["type"] = origin_types(table, tokenizer=tokenizer, simplify=simplify, naming=naming)
    found = table["present"].fillna(False).to_numpy(bool)
    unknown, predicted = table["present"].isna().to_numpy(), table["predicted"].to_numpy(bool)
    table["status"] = np.where(unknown, -1, found + 2 * predicted)
    absent, others = predicted & ~unknown & ~found, (table["type"] == "others").to_numpy()
    table["easy"] = absent & ~others
    table["languages"] = table.groupby(["relation", "fact"])["predicted"].transform("sum").astype(int)
    table = _with_overlap(table, neurons, quantile, seed)
    compared = predicted & table["overlap"].notna().to_numpy() & table["cut"].notna().to_numpy()
    high = (table["overlap"] >= table["cut"]).to_numpy()
    several = (table["languages"] >= 2).to_numpy()
    conditions = [absent & others, compared & several & high, compared & several & ~high & found]
    table["label"] = np.select(conditions, list(LABELS), default="")
    return table[list(ORIGINS)]


def absent_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Of the predicted facts of each language that has a corpus, how many are absent from it, with Wilson's 95 % interval; last row: all."""
    known = table[table["predicted"].astype(bool) & (table["status"] >= 0)]
    rows = []
    for language, part in [*known.groupby("language", sort=False), (ALL, known)]:
        absent = int((part["status"] == 2).sum())
        low, high = wilson_interval(absent, len(part)) if len(part) else (np.nan, np.nan)
        rows.append((language, len(part), absent, absent / len(part) if len(part) else np.nan, low, high))
    return pd.DataFrame(rows, columns=list(ABSENT))


def type_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Absent and predicted facts by type: a row per language and one for all, a column per type, and `shared` = substring + wordpiece."""
    absent = table[table["status"] == 2]
    made = pd.crosstab(absent["language"], absent["type"]).reindex(
        index=list(dict.fromkeys(table["language"])), columns=list(TYPES), fill_value=0
    )
    made.loc[ALL] = made.sum()
    made["shared"] = made["substring"] + made["wordpiece"]
    return made.rename_axis(index="language", columns=None)


def label_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Predicted facts by label: a row per language and one for all, a column per label, and `none` for those without one."""
    predicted = table[table["predicted"].astype(bool)]
    named = predicted["label"].where(predicted["label"] != "", "none")
    made = pd.crosstab(predicted["language"], named).reindex(
        index=list(dict.fromkeys(table["language"])), columns=[*LABELS, "none"], fill_value=0
    )
    made.loc[ALL] = made.sum()
    return made.rename_axis(index="language", columns=None)


def _pieces(text: str, tokenizer: Any) -> frozenset[int]:
    """Ids of a name's tokens at the start of a text and behind a space, without marks of a word's start that stand alone."""
    ways = tokenizer([text, f" {text}"], add_special_tokens=False, verbose=False)["input_ids"]
    ids = [i for way in ways for i in way]
    special = set(getattr(tokenizer, "all_special_ids", ()))
    return frozenset(i for i in ids if i not in special and tokenizer.decode([i]).strip() not in ("", "▁"))


def _known(table: pd.DataFrame, held: pd.DataFrame) -> np.ndarray:
    return pd.MultiIndex.from_frame(table[_KEY]).isin(pd.MultiIndex.from_frame(held[_KEY]))


def _with_overlap(table: pd.DataFrame, neurons: Any, quantile: float, seed: int) -> pd.DataFrame:
    if neurons is None or not len(neurons.table):
        return table.assign(overlap=np.nan, cut=np.nan)
    cuts = null_cuts(neurons, quantile=quantile, seed=seed)
    return table.merge(cuts[[*_KEY, "overlap", "cut"]], on=_KEY, how="left")
