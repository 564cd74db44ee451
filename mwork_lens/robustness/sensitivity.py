"""How much does a set of language neurons depend on the settings and the texts? LAPE with one thing varied at a time.

All else stays as in the reference, and the sets are compared with the reference's:

    rate            share of all units that are chosen
    bar             the filter before the ranking and the bar of membership, both at this value
    languages       one language is left out of the entropy
    domain          only the documents of one domain (topic)
    domain_random   as many documents as that domain has, drawn from all: what the smaller sample alone does
    tokens          documents of about n tokens per language, drawn several times; larger subsamples of a draw contain its smaller ones
    per             probabilities pooled over tokens, or means of per-document shares

Beside each Jaccard index stands the one expected of two random sets of those sizes among all units (the distribution of `agreement`, exact).
Changing the rate changes the size, so that even nested sets have a low Jaccard index: `containment`, shared / the smaller size, is 1 for them.
A subsample is part of the reference's documents, so the overlap says how much a set moves, not how well a new sample would repeat it. A domain is
to be read against `domain_random`. The paper fixes rate and bar and reports no such analysis; the choices are ours.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from ..detect.inputs import documents_of
from ..detect.lape import lape, probabilities
from ..strata import DocumentMoments
from .agreement import expected_jaccard, shared_by_chance
from .stability import Per, choose, gathered

SENSITIVITY = (
    "varied", "value", "number", "draw", "language", "tokens", "size", "reference_size", "shared",
    "jaccard", "jaccard_chance", "containment", "reference",
)  # fmt: skip
"""Columns of `sensitivity`: one row a language and value, and one for all languages together (`language` is "all")."""

ALL = "all"

_Strata = Mapping[str, DocumentMoments]
_Lists = dict[str, Bool[Tensor, "layer width"]]


class _Trial(NamedTuple):
    varied: str
    value: str
    number: float
    draw: int
    of: _Strata
    """What was selected from."""
    found: _Lists
    same: bool = False
    """Whether this is the reference."""


@dataclass(frozen=True)
class _Reference:
    """The settings that all trials share but for one, and what they find on all documents."""

    moments: _Strata
    rate: float
    filter_rate: float
    bar_rate: float
    site: str | None
    per: Per
    found: _Lists

    def lists(
        self, of: _Strata, *, rate: float | None = None, bar: float | None = None, per: Per | None = None
    ) -> _Lists:
        """The set of each language, with a setting changed."""
        chosen = choose(
            probabilities(of, site=self.site, per=per or self.per),
            rate=self.rate if rate is None else rate,
            filter_rate=self.filter_rate if bar is None else bar,
            bar_rate=self.bar_rate if bar is None else bar,
        )
        return dict(zip(of, chosen, strict=True))

    def itself(self, varied: str, value: str, number: float = np.nan) -> _Trial:
        """The reference, among the trials of a group."""
        return _Trial(varied, value, number, -1, self.moments, self.found, True)

    def settings(self, rates: Sequence[float], bars: Sequence[float]) -> Iterator[_Trial]:
        """Rates, bars, and the way of averaging."""
        both = f"{self.bar_rate:g}" if self.filter_rate == self.bar_rate else f"{self.filter_rate:g}/{self.bar_rate:g}"
        if len(rates):
            yield self.itself("rate", f"{self.rate:g}", self.rate)
        for rate in dict.fromkeys(rates):
            if rate != self.rate:
                yield _Trial("rate", f"{rate:g}", rate, -1, self.moments, self.lists(self.moments, rate=rate))
        if len(bars):
            yield self.itself("bar", both, self.bar_rate)
        for bar in dict.fromkeys(bars):
            if f"{bar:g}" != both:
                yield _Trial("bar", f"{bar:g}", bar, -1, self.moments, self.lists(self.moments, bar=bar))
        yield self.itself("per", self.per)
        other: Per = "document" if self.per == "token" else "token"
        yield _Trial("per", other, np.nan, -1, self.moments, self.lists(self.moments, per=other))

    def languages(self) -> Iterator[_Trial]:
        """Each language left out in turn."""
        yield self.itself("languages", "none")
        for language in self.moments:
            rest = {name: m for name, m in self.moments.items() if name != language}
            yield _Trial("languages", language, np.nan, -1, rest, self.lists(rest))

    def domains(self, groups: Mapping[str, frozenset[str]], draws: int, seed: int) -> Iterator[_Trial]:
        """Each domain, and as many documents at random."""
        if groups:
            yield self.itself("domain", ALL)
        for name, members in groups.items():
            inside = {k: [i for i, d in enumerate(m.documents) if d in members] for k, m in self.moments.items()}
            part = {k: m.take(inside[k]) for k, m in self.moments.items()}
            yield _Trial("domain", name, np.nan, -1, part, self.lists(part))
            for draw in range(draws):
                orders = _orders(self.moments, [seed, draw, zlib.crc32(name.encode())])
                part = {k: m.take(orders[k][: len(inside[k])]) for k, m in self.moments.items()}
                yield _Trial("domain_random", name, np.nan, draw, part, self.lists(part))

    def tokens(self, ladder: Sequence[int], draws: int, seed: int) -> Iterator[_Trial]:
        """Subsamples of documents."""
        if ladder:
            yield self.itself("tokens", ALL, float(min(m.tokens for m in self.moments.values())))
        for draw in range(draws if ladder else 0):
            orders = _orders(self.moments, [seed, draw])
            for number in ladder:
                part = {k: m.take(_about(m, orders[k], number)) for k, m in self.moments.items()}
                yield _Trial("tokens", str(number), float(number), draw, part, self.lists(part))


def sensitivity(
    moments: Mapping[str, DocumentMoments],
    *,
    rates: Sequence[float] = (0.005, 0.01, 0.02, 0.05),
    bars: Sequence[float] = (0.5, 0.8, 0.9, 0.95, 0.99),
    domains: Mapping[str, Sequence[str]] | str | None = None,
    tokens: Sequence[int] | None = None,
    draws: int = 5,
    leave_out: bool = True,
    rate: float = 0.01,
    filter_rate: float = 0.95,
    bar_rate: float = 0.95,
    site: str | None = None,
    per: Per = "token",
    seed: int = 0,
) -> pd.DataFrame:
    """How much LAPE's sets change with rate, bar, language set, domain, number of tokens, and the way of averaging.

    Args:
        moments: Per language, what `measure(model, corpora, document_moments(...))` returned.
        rates: Rates to try; empty to skip.
        bars: Values of filter and bar to try; empty to skip.
        domains: Per domain, the ids of its documents; `"topics"`: the part of an id before its last hyphen (`kitchen-001`); None: skip.
        tokens: Tokens per language to try; None: 1/8, 1/4 and 1/2 of what the language with the fewest has; empty to skip.
        draws: Random subsamples per number of tokens and per domain.
        leave_out: Leave out each language in turn.
        rate: Of the reference, as in `lape`.
        filter_rate: Of the reference.
        bar_rate: Of the reference.
        site: As in `lape`.
        per: Of the reference; the other way is one of the things tried.
        seed: Of the subsamples; neither the order of languages nor of documents matters.

    Returns:
        Columns `SENSITIVITY`. `value` is what was tried, as text; `number` the same as a number, nan for a name; `draw` counts subsamples, -1
        where nothing is drawn. `tokens` are those used of the language, `size` and `reference_size` the sizes of the two sets. Rows with
        `reference` True are the reference itself, once in each group; "all" is the union over the languages present, on both sides.
        `jaccard` is nan where both sets are empty, `containment` where one is.

    Raises:
        ValueError: Moments without documents; nothing to leave out; a domain that has no document of some language, or names one that no
            language has; ids that name no topics; more tokens than a language has; what `lape` refuses.
    """
    documents_of(moments, "sensitivity")
    if draws < 1:
        raise ValueError(f"draws={draws}: draw each subsample at least once")
    if leave_out and len(moments) < 3:
        raise ValueError(
            f"LAPE needs two languages, so with {len(moments)} ({', '.join(moments)}) none can be left out: pass leave_out=False"
        )
    groups, ladder = _domains(moments, domains), _ladder(moments, tokens)
    full = lape(moments, rate=rate, filter_rate=filter_rate, bar_rate=bar_rate, site=site, per=per)
    found = {language: neurons.masks[neurons.sites[0]] for language, neurons in full.items()}
    base = _Reference(moments, rate, filter_rate, bar_rate, site, per, found)
    with gathered("trials"):
        trials = chain(
            base.settings(rates, bars),
            base.languages() if leave_out else (),
            base.domains(groups, draws, seed),
            base.tokens(ladder, draws, seed),
        )
        rows = [(*trial[:4], *row, trial.same) for trial in trials for row in _compared(trial.found, found, trial.of)]
    return pd.DataFrame(rows, columns=list(SENSITIVITY))


def _compared(found: _Lists, base: _Lists, moments: _Strata) -> Iterator[tuple]:
    """From `language` to `containment`, per language and for all of them."""
    pairs = [(language, mask, base[language], moments[language].tokens) for language, mask in found.items()]
    unions = [sum(sets.values()) > 0 for sets in (found, {k: base[k] for k in found})]  # sums of masks count languages
    for language, mask, reference, n in [*pairs, (ALL, *unions, sum(m.tokens for m in moments.values()))]:
        a, b, shared = (int(x.sum()) for x in (mask, reference, mask & reference))
        union, smaller = a + b - shared, min(a, b)
        chance = expected_jaccard(a, b, shared_by_chance(a, b, mask.numel()))
        yield (
            language, n, a, b, shared, shared / union if union else np.nan, chance, shared / smaller if smaller else np.nan,
        )  # fmt: skip


def _domains(moments: _Strata, domains: Mapping[str, Sequence[str]] | str | None) -> dict[str, frozenset[str]]:
    """Per domain, the ids of its documents, every language having some."""
    ids = {document for m in moments.values() for document in m.documents}
    if domains is None:
        return {}
    if isinstance(domains, str):
        if domains != "topics":
            raise ValueError(f"unknown domains={domains!r}: give 'topics', a mapping of names to document ids, or None")
        if nameless := sorted(document for document in ids if not document.rpartition("-")[0]):
            raise ValueError(
                f"the id {nameless[0]!r} names no topic (topics are read as 'kitchen' from 'kitchen-001'): give domains as a mapping "
                "of names to document ids"
            )
        topics = dict.fromkeys(d.rpartition("-")[0] for m in moments.values() for d in m.documents)
        if len(topics) < 2:
            raise ValueError(f"all documents are of one topic, {next(iter(topics))!r}: there is no domain to vary")
        groups = {topic: frozenset(d for d in ids if d.rpartition("-")[0] == topic) for topic in topics}
    else:
        groups = {name: frozenset(members) for name, members in domains.items()}
    for name, members in groups.items():
        if unknown := sorted(members - ids):
            raise ValueError(f"domain {name!r} names document {unknown[0]!r}, which no language has")
        if lacking := [language for language, m in moments.items() if members.isdisjoint(m.documents)]:
            raise ValueError(
                f"domain {name!r} has no document of language {lacking[0]!r}: probabilities need some in every language"
            )
    return groups


def _ladder(moments: _Strata, tokens: Sequence[int] | None) -> tuple[int, ...]:
    fewest = min(moments, key=lambda language: moments[language].tokens)
    most = moments[fewest].tokens
    if tokens is None:
        return tuple(most // part for part in (8, 4, 2))
    for number in tokens:
        if not 1 <= number <= most:
            raise ValueError(
                f"tokens={number} cannot be drawn: give numbers between 1 and {most}, which is what language {fewest!r} has"
            )
    return tuple(tokens)


def _orders(moments: _Strata, seed: Sequence[int]) -> dict[str, list[int]]:
    """A random order of each language's documents; documents that share an id come in the same order in all languages."""
    ids = sorted({document for m in moments.values() for document in m.documents})
    place = dict(zip(ids, np.random.default_rng(list(seed)).permutation(len(ids)).tolist(), strict=True))
    return {k: sorted(range(len(m)), key=lambda i, m=m: place[m.documents[i]]) for k, m in moments.items()}


def _about(moments: DocumentMoments, order: Sequence[int], number: int) -> list[int]:
    """The first documents of the order whose tokens come closest to the number; at least one."""
    reached = np.cumsum([int(moments.n[i]) for i in order])
    return list(order[: 1 + int(np.abs(reached - number).argmin())])
