"""What the scripts of this folder share: arguments, texts, one pass over the model, the sets of every method, and how results are written.

Documents: of each three, two are for detection and one is held out (`Corpus.split`). Statistics of act(gate) are kept per document in
`OUT/moments` and read again by the next script on the same model and texts; everything that runs the model afterwards is kept in `OUT` too.

Tang et al. 2024 are arXiv 2402.16438. Their full text was not at hand: what each of their figures and tables shows is known, mostly from the
presentation and from captions quoted by others, and its number only "as far as known".
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

import mwork_lens as mw
from mwork_lens.detect.ap import ap
from mwork_lens.detect.lap import lap
from mwork_lens.detect.lape import lape
from mwork_lens.detect.lave import lave
from mwork_lens.detect.penalised import penalised
from mwork_lens.detect.pv import pv

EMBEDDED, RATE = "embedded", 0.05
MAIN = f"LAPE {RATE:.0%}"
"""The embedded model has 2,752 FFN units: the paper's 1 % of them are 28, so tests of what sets do take 5 %, and 1 % is shown beside them."""

Sets = Mapping[str, mw.NeuronSet]


@dataclass(frozen=True)
class Bench:
    """A model, its texts, and where things go."""

    arguments: argparse.Namespace
    model: Any
    detection: dict[str, mw.Corpus]
    held_out: dict[str, mw.Corpus]
    results: Path
    started: float = field(default_factory=time.time)

    @property
    def out(self) -> Path:
        """Folder of whatever can be resumed."""
        return self.arguments.out

    @property
    def smoke(self) -> bool:
        """Whether this only tries the script."""
        return self.arguments.smoke

    @property
    def together(self) -> dict[str, mw.Corpus]:
        """All documents, detection and held out."""
        return mw.load_corpora(self.arguments.corpora, self.arguments.languages, limit=self.arguments.limit)

    def moments(self) -> Mapping[str, mw.DocumentMoments]:
        """Counts and sums of act(gate) per document, on the documents for detection."""
        statistic = mw.document_moments("ffn_act", size=self.arguments.size, length=self.arguments.length)
        return mw.measure(self.model, self.detection, statistic, out=self.out / "moments", resume=True)


def begin(description: str | None) -> Bench:
    """Read the command line and load model and texts; `description` is the script's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="polyglot", help="local folder or hub id; default the embedded model")
    parser.add_argument(
        "--corpora", default=EMBEDDED, help="folder of <language>.txt or .jsonl; default the embedded texts"
    )
    parser.add_argument("--languages", nargs="+", help="codes, in this order; default all")
    parser.add_argument("--limit", type=int, help="documents per language at most")
    parser.add_argument("--length", type=int, help="tokens per document at most; default all")
    parser.add_argument("--scored", type=int, default=64, help="tokens per document at most where perplexity is scored")
    parser.add_argument("--size", type=int, default=16, help="documents per batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--before", type=Path, help="for PV: the checkpoint before tuning")
    parser.add_argument(
        "--tuned", type=Path, help="for PV: folder with one tuned checkpoint per language, named by its code"
    )
    parser.add_argument("--out", type=Path, help="what can be resumed; default runs/lape (runs/lape-smoke)")
    parser.add_argument("--resume", action="store_true", help="use what an earlier run of this script left in --out")
    parser.add_argument(
        "--results", type=Path, help="default: results/ beside the script for the embedded model, else OUT/results"
    )
    parser.add_argument("--smoke", action="store_true", help="a few documents, seconds; writes to OUT/results")
    arguments = parser.parse_args()
    arguments.out = arguments.out or Path("runs/lape-smoke" if arguments.smoke else "runs/lape")
    if arguments.smoke:
        arguments.limit, arguments.length, arguments.scored = 12, 32, 32
    ours = (arguments.model, arguments.corpora) == ("polyglot", EMBEDDED) and not arguments.smoke
    results = arguments.results or (Path(__file__).parent / "results" if ours else arguments.out / "results")
    model = mw.load_model(arguments.model)
    corpora = mw.load_corpora(arguments.corpora, arguments.languages, limit=arguments.limit)
    parts = {language: corpus.split() for language, corpus in corpora.items()}
    return Bench(
        arguments,
        model,
        {language: rest for language, (rest, _) in parts.items()},
        {language: held for language, (_, held) in parts.items()},
        results,
    )


def detectors(bench: Bench, moments: Mapping[str, mw.DocumentMoments]) -> dict[str, dict[str, mw.NeuronSet]]:
    """The sets of every method, FFN units only. Methods that can choose their size have that of LAPE at 5 %.

    LAP's percentile and AP take as many units in every language as LAPE has on average; PLND has no size to choose (top tenth of a layer's
    units in every document, minus the units of any other language). PV takes part if tuned checkpoints are given.
    """
    pooled = {language: value.moments() for language, value in moments.items()}
    main = lape(moments, rate=RATE)
    units = next(iter(main.values())).masks["ffn"].numel()
    mean = max(2, round(sum(map(len, main.values())) / len(main)))
    ranked = mw.measure(
        bench.model,
        bench.detection,
        mw.importances(sites=("ffn",), top=0.1, length=bench.arguments.length),
        out=bench.out / "importances",
        resume=True,
    )
    found = {
        "LAPE 1%": lape(moments, rate=0.01),
        MAIN: main,
        f"{MAIN} per document": lape(moments, rate=RATE, per="document"),
        "LAP > 0.95": lap(moments),
        "LAP percentile": lap(moments, reading="percentile", bar=1 - mean / units),
        **{f"LAVE {sign}": lave(pooled, sign=sign, rate=RATE) for sign in ("rectified", "clamp", "absolute")},
        "penalised": penalised(moments, rate=RATE),
        "AP": ap(moments, count=mean),
        "PLND ffn": mw.specific(mw.plnd(ranked), minus="others"),
    }
    if bench.arguments.tuned:
        pairs = {language: (bench.arguments.before, bench.arguments.tuned / language) for language in moments}
        found["PV"] = pv(bench.model, pairs, rate=RATE)
    return found


def own_units(sets: Sets) -> mw.NeuronSet:
    """Union over languages."""
    first, *rest = sets.values()
    for units in rest:
        first = first | units
    return first


def finish(
    bench: Bench,
    name: str,
    findings: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Any],
    **facts: Any,
) -> None:
    """Write `NAME.json` and one `NAME_*.svg` per figure, and print the findings.

    Args:
        bench: What `begin` returned.
        name: Of the script.
        findings: In words.
        tables: Numbers are rounded to four digits.
        figures: Axes, or a list of them, per figure.
        **facts: Choices of this script, for the provenance.
    """
    from mwork_lens.plots import svg

    bench.results.mkdir(parents=True, exist_ok=True)
    given = ("languages", "limit", "length", "scored", "size", "seed", "smoke", "resume")
    parameters = {key: getattr(bench.arguments, key) for key in given} | facts
    facts_of_texts = {language: corpus.facts() for language, corpus in bench.together.items()}
    run = mw.Run(f"experiments/lape/{name}", parameters, mw.describe(bench.model), facts_of_texts, bench.arguments.seed)
    seconds = round(time.time() - bench.started)
    parts = [
        f'"findings": {_json(findings, 1)}',
        '"tables": {\n' + ",\n".join(_table(key, table) for key, table in tables.items()) + "\n }",
        f'"seconds": {seconds}',
        f'"run": {_json(run.to_json(), 1)}',
    ]
    text = "{\n " + ",\n ".join(parts) + "\n}\n"
    json.loads(text)
    (bench.results / f"{name}.json").write_text(text, encoding="utf-8")
    for key, axes in figures.items():
        figure = (axes[0] if isinstance(axes, Iterable) else axes).figure
        (bench.results / f"{name}_{key}.svg").write_text(_shorter(svg(figure)) + "\n", encoding="utf-8")
    print("\n".join(findings))
    print(f"{seconds} s; results in {bench.results}")


def _json(value: Any, depth: int) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False).replace("\n", "\n" + " " * depth)


def _shorter(drawn: str) -> str:
    """Coordinates to 0.01 points; the text between the tags stays as it is."""
    return re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), drawn)


def _table(name: str, table: pd.DataFrame) -> str:
    """One row a line."""
    short = table.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x)
    rows = json.loads(short.to_json(orient="values", double_precision=15))
    lines = ",\n   ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f'  {json.dumps(name)}: {{"columns": {json.dumps(list(table.columns))}, "rows": [\n   {lines}]}}'


def signed(value: float, digits: int = 3) -> str:
    """With a sign, and a minus that is one."""
    return f"{value:+.{digits}f}".replace("-", "−")


def interval(row: Mapping[str, Any], name: str, digits: int = 3) -> str:
    """`+0.120 [+0.100, +0.140]` from the columns name, name_low and name_high."""
    ends = ", ".join(signed(row[f"{name}_{end}"], digits) for end in ("low", "high"))
    return f"{signed(row[name], digits)} [{ends}]"


def counts_in_words(sets: Sets) -> str:
    """`en 2, de 18`."""
    return ", ".join(f"{language} {len(units)}" for language, units in sets.items())
