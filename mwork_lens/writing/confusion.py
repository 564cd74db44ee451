"""Is the output in the language it should be in? Line by line, word by word, and as a whole.

The rules of the language-confusion benchmark (Marchisio et al. 2024, "Understanding and Mitigating Language Confusion in LLMs"; released
code: for-ai/language-confusion, `compute_metrics.py`), re-implemented:

    line       what is left of a line without punctuation, if it has at least 5 tokens; shorter lines are not judged
    passes     a response whose every judged line is identified as the target language
    LPR        responses that pass / responses                              line pass rate
    accuracy   mean over responses of the share of right lines              `line_accuracy`
    WPR        responses that pass and hold no English word / responses that pass; only for targets not written in Latin script

A response without any judged line is *skipped*. Two counting rules, always reported side by side:

    strict     skipped responses fail: they stay in the denominator of LPR and have line accuracy 0; WPR of no response is nan (ours, first)
    released   skipped responses leave the denominators, and a rate over no response at all is 1.0: a model that says nothing is perfect

`in_language` is the share of responses whose *whole* text is identified as the target, which is how Tang et al. 2024 count language accuracy
(their detector was not released); an empty text fails. Intervals are Wilson's, 95 %.

Where we depart from the released code: the identifier is an argument (theirs: fastText lid.176, score above 0.3); all Unicode punctuation is
stripped, not ASCII's only; no word segmenter: in scripts written without spaces a token is 2 letters (Chinese, Japanese) or 4, marks counted
(Thai, Lao, Khmer, Burmese, Tibetan), about the mean word, and this holds for such letters anywhere, so that a Chinese answer to an English
question is judged and wrong instead of skipped; an English word is lower case and longer than 3 letters as there, but looked up only if a word
list is given (theirs: a Unix word list), otherwise every such word in a-z counts; WPR exists for every target that is not written in Latin
script (theirs: ar hi ja ko ru zh).
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import math
import re
import string
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import pandas as pd

from ..languages import UNKNOWN, require_language, script
from .identify import Identifier, require_identifiable
from .questions import STOP

SHORTEST = 5
"""Tokens below which a line is not judged."""
LINES = ("line", "text", "tokens", "judged", "identified", "right", "english")
"""Columns of `judge_lines`: one row a line that holds anything."""
RESPONSES = ("language", "response", "lines", "right", "skipped", "passed", "english", "identified")
"""Columns of `judge`, after those of `by`: one row a response."""
ACCURACY = (
    *("rule", "language", "responses", "skipped"),
    *("in_language", "in_language_low", "in_language_high"),
    *("line_passes", "lpr", "lpr_low", "lpr_high", "line_accuracy"),
    *("word_passes", "wpr", "wpr_low", "wpr_high"),
)
"""Columns of `language_accuracy`, after those of `by`: one row a rule and language."""

_PER_TOKEN = {"CJK": 2, "THAI": 4, "LAO": 4, "KHMER": 4, "MYANMAR": 4, "TIBETAN": 4}
_ENGLISH = re.compile(r"[a-z]{4,}")


def words(line: str) -> list[str]:
    """Tokens of a line, punctuation stripped: pieces between spaces, and groups of letters in scripts written without spaces."""
    found = []
    for piece in "".join(map(_without_punctuation, line)).split():
        for name, run in groupby(piece, _unspaced):
            part = "".join(run)
            size = _PER_TOKEN.get(name or "", len(part))
            found += [part[at : at + size] for at in range(0, len(part), size)]
    return found


def _without_punctuation(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Pd" and character not in string.punctuation:  # an em dash parts words, a hyphen does not
        return " "
    return "" if category.startswith("P") or character in string.punctuation else character


def _unspaced(character: str) -> str | None:
    name = script(character)
    return name if name in _PER_TOKEN else None


def response_language(text: str, identifier: Identifier) -> str:
    """Language of a whole response: the identifier's one label for its text; `unknown` if nothing but punctuation is in it."""
    answer = _answer(text)
    return identifier(answer) if words(answer) else UNKNOWN


def _answer(text: str) -> str:
    for turn in STOP:
        text = text.split(turn)[0]
    return text.strip()


def judge_lines(
    text: str, target: str, identifier: Identifier, *, shortest: int = SHORTEST, english: Collection[str] | None = None
) -> pd.DataFrame:
    """Each line of a response against the language it should be in.

    Args:
        text: The response; what follows a new line that starts with `Q:` or `A:` is not part of it.
        target: Language it should be in.
        identifier: Names the language of a line.
        shortest: Tokens a line needs to be judged.
        english: English words; those in lower case and longer than 3 letters are looked for. Without a list, every such word in a-z counts.

    Returns:
        Columns `LINES`: line (from 0, among all lines), text (without punctuation), tokens, judged, identified (empty if not judged), right,
        english (words of the line that count as English, tuple; empty for a target in Latin script).

    Raises:
        ValueError: The target is unknown, or the identifier does not know it.
    """
    listed = None if english is None else {word for word in english if word.islower() and len(word) > 3}
    return _lines(text, target, identifier, shortest, listed)


def _lines(
    text: str, target: str, identifier: Identifier, shortest: int, english: Collection[str] | None
) -> pd.DataFrame:
    require_identifiable(identifier, target)
    latin = require_language(target).script == "LATIN"
    rows = []
    for number, line in enumerate(_answer(text).splitlines()):
        if not (tokens := words(line)):
            continue
        # spaces as written: a segment of Chinese is no word to be parted from the next
        shown = " ".join("".join(map(_without_punctuation, line)).split())
        judged = len(tokens) >= shortest
        identified = identifier(shown) if judged else ""
        found = (token for token in tokens if (_ENGLISH.fullmatch(token) if english is None else token in english))
        rows.append(
            (number, shown, len(tokens), judged, identified, identified == target, () if latin else tuple(found))
        )
    return pd.DataFrame(rows, columns=list(LINES))


def judge(
    responses: pd.DataFrame | Mapping[str, Sequence[str]],
    identifier: Identifier,
    *,
    by: Sequence[str] = (),
    shortest: int = SHORTEST,
    english: Collection[str] | None = None,
) -> pd.DataFrame:
    """Each response against the language it should be in.

    Args:
        responses: Per target language, the texts; or a table with columns `language` (target), `text` and those of `by`.
        identifier: Names the language of a line.
        by: Columns to carry along, such as the condition or the dose.
        shortest: Tokens a line needs to be judged.
        english: As in `judge_lines`.

    Returns:
        Columns `by`, then `RESPONSES`: language (target), response (its number within language and `by`), lines (judged), right (of them),
        skipped (no line to judge), passed (judged, and all right), english (passed, but with an English word), identified (the whole text).

    Raises:
        ValueError: There is no response, a column is missing, a text is no string, or the identifier does not know a language.
    """
    table = _table(responses, by)
    for language in table["language"].unique():
        require_language(language)
        require_identifiable(identifier, language)
    listed = None if english is None else {word for word in english if word.islower() and len(word) > 3}
    rows = []
    for language, text in zip(table["language"], table["text"], strict=True):
        lines = _lines(text, language, identifier, shortest, listed)
        lines = lines[lines["judged"].astype(bool)]
        right, passed = int(lines["right"].sum()), len(lines) > 0 and bool(lines["right"].all())
        foreign = passed and bool(lines["english"].map(bool).any())
        rows.append((len(lines), right, not len(lines), passed, foreign, response_language(text, identifier)))
    judged = pd.DataFrame(rows, columns=list(RESPONSES[2:]), index=table.index)
    number = table.groupby([*by, "language"], dropna=False).cumcount().rename("response")
    return pd.concat([table[[*by, "language"]], number, judged], axis=1)


def _table(responses: pd.DataFrame | Mapping[str, Sequence[str]], by: Sequence[str]) -> pd.DataFrame:
    if not isinstance(responses, pd.DataFrame):
        if single := [language for language, texts in responses.items() if isinstance(texts, str)]:
            raise ValueError(f"the responses in {single[0]!r} are one string: give a list of texts")
        rows = [(language, text) for language, texts in responses.items() for text in texts]
        responses = pd.DataFrame(rows, columns=["language", "text"])
    if missing := [name for name in (*by, "language", "text") if name not in responses]:
        raise ValueError(f"the responses have no column {missing[0]!r}, only {', '.join(map(str, responses.columns))}")
    if clash := set(by) & set(RESPONSES):
        raise ValueError(f"{clash.pop()!r} cannot be grouped by: a column of the result has this name; rename yours")
    if responses.empty:
        raise ValueError("no response given: an accuracy needs at least one")
    for row, text in enumerate(responses["text"]):
        if not isinstance(text, str):
            raise ValueError(f"response {row} is {type(text).__name__}, not str: give an empty string for no output")
    return responses.reset_index(drop=True)


def language_accuracy(
    responses: pd.DataFrame | Mapping[str, Sequence[str]],
    identifier: Identifier,
    *,
    by: Sequence[str] = (),
    shortest: int = SHORTEST,
    english: Collection[str] | None = None,
) -> pd.DataFrame:
    """Language accuracy per target language, under both counting rules.

    Args:
        responses: As in `judge`; a table that `judge` returned is only counted.
        identifier: Names the language of a line.
        by: Columns that split the rows, such as the condition or the dose.
        shortest: Tokens a line needs to be judged.
        english: As in `judge_lines`.

    Returns:
        Columns `by`, then `ACCURACY`; rates in 0..1 with 95 % Wilson bounds. `line_passes` and `word_passes` are counts of responses. The WPR
        columns are nan (and `word_passes` 0) for targets in Latin script. `in_language` does not depend on the rule.

    Raises:
        ValueError: As `judge`.
    """
    ready = isinstance(responses, pd.DataFrame) and set(RESPONSES) <= set(responses.columns)
    judged = responses if ready else judge(responses, identifier, by=by, shortest=shortest, english=english)
    if missing := [name for name in by if name not in judged]:
        raise ValueError(
            f"the judged responses have no column {missing[0]!r}: judge(..., by={list(by)}) carries it along"
        )
    rows = []
    for key, group in judged.groupby([*by, "language"], sort=False, dropna=False):
        rows += [(*key[:-1], *_rates(group, key[-1], rule)) for rule in ("strict", "released")]
    return pd.DataFrame(rows, columns=[*by, *ACCURACY])


def _rates(group: pd.DataFrame, language: str, rule: str) -> tuple[object, ...]:
    strict = rule == "strict"
    counted = group if strict else group[~group["skipped"]]
    passes, named = int(group["passed"].sum()), int((group["identified"] == language).sum())
    shares = counted["right"] / counted["lines"].clip(lower=1)
    clean = passes - int(group["english"].sum())
    latin = require_language(language).script == "LATIN"
    return (
        *(rule, language, len(group), int(group["skipped"].sum())),
        *(named / len(group), *wilson(named, len(group))),
        *(passes, passes / len(counted) if len(counted) else 1.0, *wilson(passes, len(counted))),
        float(shares.mean()) if len(counted) else 1.0,
        0 if latin else clean,
        math.nan if latin or (strict and not passes) else clean / passes if passes else 1.0,
        *((math.nan, math.nan) if latin else wilson(clean, passes)),
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson interval of a proportion; (0, 1) without a trial, for nothing is known then."""
    if not trials:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def repetition(text: str | Sequence[int], n: int = 3) -> float:
    """Share of n-grams that repeat an earlier one: 1 - distinct / all (seq-rep-n of Welleck et al. 2020; n = 4 there).

    Args:
        text: Token ids, or a text: then words, and single letters in scripts written without spaces.
        n: Length of the n-grams.

    Returns:
        0 when all differ; nan if there are fewer than n tokens.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n={n}: n-grams need at least one token")
    if isinstance(text, str):
        tokens: list[object] = [part for word in words(text) for part in (word if _unspaced(word[0]) else (word,))]
    else:
        tokens = list(text)
    grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else math.nan
