"""Tables of the perplexity matrix, made from scores (scores.py); no model is needed.

Differences are paired: every condition scores the same tokens of the same documents, and a table where one does not is refused. Documents are
resampled by their id, jointly for all languages and conditions, so parallel documents stay paired; where all languages have the same ids, the
intervals of a cell are those of `evaluate.difference`.

A p-value is empirical and one-sided, of the language's own neurons against the random draws of its row. Random draws know nothing of languages
but harm some columns more than others; so does a detector that finds nothing but generally important neurons, and the harm may grow with the size
of a set times the fragility of a language. Hence the second test, `p_permutation`, on ranks: within each row, is the language itself ranked
higher than when rows are assigned to languages in any other way? Rows that order the columns alike give no evidence, whatever their sizes.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, rankdata

from ..detect.chance import p_value
from ..evaluate import resample

_CONDITION = ("off", "neurons", "draw", "count")
_EDGES = ("", "_low", "_high")
SCORES = (*_CONDITION, "language", "document", "nll", "tokens")
"""Columns of `perplexity_scores`: one row a condition and document. `share_scores` has `share` in front."""
MATRIX = (
    *("off", "neurons", "count", "language", "nll", *(f"{x}{edge}" for x in ("dnll", "dppl") for edge in _EDGES)),
    *("random_low", "random_high", "p", "q", "draws"),
)
"""Columns of `perplexity_matrix`: one row a cell."""
CURVE = ("share", *MATRIX)
"""Columns of `share_curve`."""
SELECTIVITY = (
    *(*_CONDITION, "diagonal", "off_diagonal", "selectivity", "selectivity_low", "selectivity_high"),
    *("rank", "largest", "rows", "p", "p_permutation"),
)
"""Columns of `selectivity`."""
ALL = "all"
"""`off` of the rows of `selectivity` that speak about the whole matrix."""

_EXACT, _PERMUTATIONS = 7, 9999  # up to 7 languages all assignments are tried, 5040 at most


@dataclass(frozen=True)
class _Cells:
    """Every condition in every language, with the estimate as replicate 0 and bootstrap ones behind it."""

    conditions: pd.DataFrame
    """Columns off, neurons, draw, count; one row has neurons "none"."""
    languages: list[str]
    base: np.ndarray
    """NLL per token of the unmasked model [language, replicate]."""
    dnll: np.ndarray
    """Difference to it [condition, language, replicate]; nan where nothing could be switched off."""

    def of(self, off: str, neurons: str) -> list[int]:
        """Rows of `conditions`."""
        return np.flatnonzero((self.conditions["off"] == off) & (self.conditions["neurons"] == neurons)).tolist()

    @property
    def rows(self) -> list[str]:
        """Languages whose neurons are off, in order."""
        return [off for off in self.conditions["off"].unique() if off]


def _cells(scores: pd.DataFrame, seed: int) -> _Cells:
    if missing := [name for name in SCORES if name not in scores.columns]:
        raise ValueError(f"the scores lack {', '.join(missing)}: give them as `perplexity_scores` makes them")
    if "share" in scores.columns and scores.loc[scores["neurons"] != "none", "share"].nunique() > 1:
        raise ValueError("these scores hold several shares of neurons: give them to `share_curve`, or choose one share")
    table = scores[list(_CONDITION)].drop_duplicates(["off", "neurons", "draw"], ignore_index=True)
    condition = scores.groupby(["off", "neurons", "draw"], sort=False).ngroup().to_numpy()
    unmasked = np.flatnonzero(table["neurons"] == "none")
    if len(unmasked) != 1:
        raise ValueError(
            "the scores have no unmasked rows (neurons 'none'), which differences need: keep them in the table"
        )
    first = scores[condition == unmasked[0]].drop_duplicates(["language", "document"])
    order, tokens = pd.MultiIndex.from_frame(first[["language", "document"]]), first["tokens"].to_numpy(float)
    column = order.get_indexer(pd.MultiIndex.from_frame(scores[["language", "document"]]))
    known = column >= 0
    times = np.zeros((len(table), len(order)), int)
    np.add.at(times, (condition[known], column[known]), 1)
    alike = known & (scores["tokens"].to_numpy(float) == tokens[column])
    if len(wrong := table.index[(times != 1).any(axis=1) | np.isin(table.index, condition[~alike])]):
        off, neurons, draw, _ = table.loc[wrong[0]]
        raise ValueError(
            f"the rows of {neurons} neurons of {off!r} (draw {draw}) do not score the same tokens as the unmasked model, each once: score all "
            "conditions in one call, or with the same texts and length"
        )
    nll = np.empty(times.shape)
    nll[condition, column] = scores["nll"].to_numpy(float)
    before = nll[unmasked[0]]
    documents = list(dict.fromkeys(first["document"]))
    number = {document: i for i, document in enumerate(documents)}
    weights = np.vstack([np.ones(len(documents)), resample(len(documents), seed=seed)])
    languages = list(first["language"].unique())
    base, dnll = [], []
    for language in languages:
        mine = np.flatnonzero(first["language"] == language)
        drawn = weights[:, [number[document] for document in first["document"].iloc[mine]]]
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no document of the language
            base.append(before[mine] @ drawn.T / (tokens[mine] @ drawn.T))
            dnll.append((nll[:, mine] - before[mine]) @ drawn.T / (tokens[mine] @ drawn.T))
    return _Cells(table, languages, np.stack(base), np.stack(dnll, axis=1))


def _interval(replicates: np.ndarray) -> tuple[float, float, float]:
    """(estimate, low, high) from an estimate followed by its bootstrap replicates."""
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return float(replicates[0]), float(low), float(high)


def _chance(observed: float, drawn: Any) -> float:
    """One-sided p-value; nan without an observation or without draws."""
    return p_value(observed, list(drawn)) if np.isfinite(observed) and len(drawn) else float("nan")


def perplexity_matrix(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Harm in every cell: row = language whose neurons are off, column = language evaluated.

    Args:
        scores: From `perplexity_scores`.
        seed: Of the bootstrap.

    Returns:
        Columns `MATRIX`. The unmasked model comes first (`off` "", differences 0), then per language one row `own` and one row `random` (the mean
        over its draws) for each language evaluated. nll: nats per token; dnll: its difference to the unmasked model, above zero is harm;
        dppl = exp(nll) - exp(unmasked nll) (of random rows the mean over draws); `_low` and `_high`: 95 % paired document bootstrap.
        random_low, random_high: smallest and largest dnll of the row's draws; p: one-sided, of own against them (nan elsewhere); q: p
        corrected for the number of cells (Benjamini-Hochberg).
        A language without neurons has a row of nan.

    Raises:
        ValueError: A column or the unmasked rows are missing; the conditions do not score the same tokens; several shares.
    """
    cells = _cells(scores, seed)
    rows = []
    for off in ["", *cells.rows]:
        draws = cells.of(off, "random")
        for neurons in ("none", "own", "random"):
            if not (at := cells.of(off, neurons)):
                continue
            for column, language in enumerate(cells.languages):
                chance = cells.dnll[draws, column, 0]
                dnll, base = cells.dnll[at, column], cells.base[column]
                with np.errstate(over="ignore", invalid="ignore"):
                    dppl = (np.exp(base) * np.expm1(dnll)).mean(axis=0)
                dnll = dnll.mean(axis=0)
                low, high = (chance.min(), chance.max()) if len(chance) else (np.nan, np.nan)
                p = _chance(dnll[0], chance) if neurons == "own" else np.nan
                count = int(cells.conditions["count"].iloc[at[0]])
                rows.append(
                    (
                        off,
                        neurons,
                        count,
                        language,
                        base[0] + dnll[0],
                        *_interval(dnll),
                        *_interval(dppl),
                        low,
                        high,
                        p,
                        np.nan,
                        len(chance),
                    )
                )
    table = pd.DataFrame(rows, columns=list(MATRIX))
    if (known := table["p"].notna()).any():
        table.loc[known, "q"] = false_discovery_control(table.loc[known, "p"])
    return table


def share_curve(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """The perplexity matrix for growing shares of neurons.

    Args:
        scores: From `share_scores`.
        seed: Of the bootstrap, the same documents for every share.

    Returns:
        Columns `CURVE`: `perplexity_matrix` of every share, with the unmasked rows once, at share 0.

    Raises:
        ValueError: There is no column share, or as in `perplexity_matrix`.
    """
    if "share" not in scores.columns:
        raise ValueError("the scores have no column share: give them as `share_scores` makes them")
    unmasked = scores["neurons"] == "none"
    parts = []
    for share in sorted(scores.loc[~unmasked, "share"].unique()):
        matrix = perplexity_matrix(scores[unmasked | (scores["share"] == share)], seed=seed)
        matrix.insert(0, "share", np.where(matrix["neurons"] == "none", 0.0, share))
        parts.append(matrix if not parts else matrix[matrix["neurons"] != "none"])
    if not parts:
        raise ValueError("the scores hold the unmasked model only: there is no curve to make")
    return pd.concat(parts, ignore_index=True)[list(CURVE)]


def selectivity(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Is the matrix diagonal? Per row, and as a whole.

    Args:
        scores: From `perplexity_scores`.
        seed: Of the bootstrap, and of the permutations beyond 7 languages.

    Returns:
        Columns `SELECTIVITY`, one row per language and condition (own, and every random draw), then the same for `off` "all", the mean over
        languages with neurons. diagonal: dnll of the language itself; off_diagonal: mean dnll of the others; selectivity: their
        difference, with its 95 % interval; rank of the diagonal (1 = largest harm; a tie counts against it; the mean rank in "all");
        largest: how many of `rows` have rank 1; p: one-sided, of own against its draws; p_permutation (own rows of "all"): share of the
        assignments of rows to languages whose diagonal ranks as high, on average over rows; 1 / K! at least (K languages).

    Raises:
        ValueError: As in `perplexity_matrix`; a single language is evaluated, or a row has no column.
    """
    cells = _cells(scores, seed)
    width = len(cells.languages)
    if width < 2:
        raise ValueError(
            f"selectivity compares a language with others: only {cells.languages[0]!r} is evaluated, score at least two"
        )
    if lost := [off for off in cells.rows if off not in cells.languages]:
        raise ValueError(
            f"the row {lost[0]!r} has no diagonal: {', '.join(cells.languages)} are evaluated; score {lost[0]!r} too"
        )
    parts: dict[int, np.ndarray] = {}  # condition -> [diagonal | off-diagonal, replicate]
    rows: list[dict[str, Any]] = []
    for i, condition in enumerate(cells.conditions.itertuples(index=False)):
        if condition.neurons == "none":
            continue
        at = cells.languages.index(condition.off)
        others = [j for j in range(width) if j != at]
        parts[i] = np.stack([cells.dnll[i, at], cells.dnll[i, others].mean(axis=0)])
        harm = cells.dnll[i, :, 0]
        rank = float(1 + (harm[others] >= harm[at]).sum()) if np.isfinite(harm).all() else np.nan
        rows.append(
            {
                **condition._asdict(),
                **_row(parts[i]),
                "rank": rank,
                "largest": int(rank == 1),
                "rows": int(np.isfinite(rank)),
            }
        )
    single = [(i, row) for i, row in zip(parts, rows, strict=True) if row["rows"]]
    for kind, draw in dict.fromkeys((row["neurons"], row["draw"]) for row in rows):
        held = [(i, row) for i, row in single if (row["neurons"], row["draw"]) == (kind, draw)]
        mean = np.mean([parts[i] for i, _ in held], axis=0) if held else np.full((2, len(cells.base[0])), np.nan)
        total = {"off": ALL, "neurons": kind, "draw": draw, "count": sum(row["count"] for _, row in held), **_row(mean)}
        total |= {"rank": float(np.mean([row["rank"] for _, row in held])) if held else np.nan}
        total |= {name: sum(row[name] for _, row in held) for name in ("largest", "rows")}
        if kind == "own" and len(held) > 1:
            chosen = [cells.languages.index(row["off"]) for _, row in held]
            harm = cells.dnll[np.ix_([i for i, _ in held], chosen, [0])][..., 0]
            total["p_permutation"] = _permuted(rankdata(harm, axis=1), seed)
        rows.append(total)
    table = pd.DataFrame(rows).reindex(columns=list(SELECTIVITY))
    own = table["neurons"] == "own"
    for i in table.index[own]:
        drawn = table.loc[~own & (table["off"] == table.loc[i, "off"]), "selectivity"]
        table.loc[i, "p"] = _chance(table.loc[i, "selectivity"], drawn)
    table[["p", "p_permutation"]] = table[["p", "p_permutation"]].astype(float)
    return table


def _row(parts: np.ndarray) -> dict[str, float]:
    """Columns diagonal to selectivity_high from [diagonal | off-diagonal, replicate]."""
    value, low, high = _interval(parts[0] - parts[1])
    return {"diagonal": float(parts[0, 0]), "off_diagonal": float(parts[1, 0]), "selectivity": value,
            "selectivity_low": low, "selectivity_high": high}  # fmt: skip


def _permuted(harm: np.ndarray, seed: int) -> float:
    """Share of assignments of rows to columns, the given one included, whose cells hold as much: harm is [row, its languages]."""
    size = len(harm)
    if size <= _EXACT:
        orders = np.array(list(permutations(range(size))))
    else:
        generator = np.random.default_rng(seed)
        orders = np.stack([np.arange(size), *(generator.permutation(size) for _ in range(_PERMUTATIONS))])
    sums = harm[np.arange(size), orders].sum(axis=1)
    return float((sums >= np.trace(harm) - 1e-12 * np.abs(harm).sum()).mean())
