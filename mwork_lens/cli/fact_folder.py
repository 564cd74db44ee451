"""The folder that `mwork-lens facts probe` makes, what else its commands read, and how their tables are shown."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from pathlib import Path
from typing import Any

from .console import print_table, say, warn

PREDICTIONS, NEURONS = "predictions.parquet", "neurons.parquet"
"""Tables of the folder that `probe` and `neurons` write and other commands read."""
ENDINGS = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")
"""Of the files of a corpus."""


def default_facts(model: str) -> str:
    """The embedded fact set that is about what this model was trained on."""
    return "organism" if model == "organism" else "small"


def predictions_of(folder: Path, metric: str | None) -> tuple[Any, Any, str]:
    """Predictions of a folder, how they were made, and what counts as known."""
    from ..storage import load, load_run

    path = folder / PREDICTIONS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {PREDICTIONS}: run `mwork-lens facts probe` first")
    of = load_run(path)
    return load(path), of, metric or of.get("parameters", {}).get("metric", "full")


def neurons_of(folder: Path, metric: str) -> Any:
    """What `neurons` found, or None.

    Raises:
        ValueError: It was of the facts that another metric says are known.
    """
    import pandas as pd

    from ..facts.probeless import FactNeurons
    from ..storage import load, load_run

    if not (folder / NEURONS).is_file():
        return None
    of = load_run(folder / NEURONS)
    if (other := of["parameters"]["metric"]) != metric:
        raise ValueError(
            f"{folder / NEURONS} holds neurons of the facts known by {other!r}, and the metric here is {metric!r}: give --metric {other}, "
            f"or run `mwork-lens facts neurons --metric {metric}` first"
        )
    layers, width = of["parameters"]["shape"]
    return FactNeurons(
        load(folder / NEURONS),
        pd.DataFrame(),
        (layers, width),
        of["parameters"]["site"],
        of["model"].get("fingerprint"),
    )


def recovered(held: Any, traced: Any, units: Any) -> dict[str, Any]:
    """The recovery table, where the facts say who stated them."""
    from ..facts.overlaps import fact_overlaps
    from ..facts.recovery import recovery

    truth = held.stated()
    return {"recovery": recovery(traced, truth, None if units is None else fact_overlaps(units))} if truth else {}


def volumes(path: Path) -> Any:
    """Sizes of training text: a row per language, a column per size.

    Raises:
        ValueError: The file has no column `language`, none of numbers, a language twice, or something else than numbers.
        FileNotFoundError: There is none.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"--volume {path}: there is no such file")
    try:
        table = pd.read_csv(path)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"--volume {path}: not a CSV file in UTF-8 ({error})") from error
    if "language" not in table or len(table.columns) < 2:
        raise ValueError(
            f"--volume {path}: needs a column language and one or more of numbers; it has {', '.join(table.columns)}"
        )
    if (twice := table["language"].duplicated()).any():
        raise ValueError(f"--volume {path}: language {table['language'][twice].iloc[0]!r} is there twice")
    table = table.set_index("language")
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise ValueError(f"--volume {path}: column {name!r} holds something else than numbers")
    return table


def sources_of(corpora: str, languages: Any) -> dict[str, Any]:
    """The corpus of each language of the facts: files to be streamed, or the embedded texts.

    Raises:
        ValueError: There is none for any language.
        FileNotFoundError: There is no such folder.
    """
    from ..corpora import EMBEDDED, load_corpora

    if corpora in EMBEDDED:
        texts = load_corpora(corpora)
        found: dict[str, Any] = {x: texts[x] for x in languages if x in texts}
    else:
        folder = Path(corpora)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"--corpora {corpora}: no such folder; give one of en.txt, de.jsonl and the like, or {', '.join(EMBEDDED)}"
            )
        found = {x: files for x in languages if (files := _files(folder, x))}
    if not found:
        raise ValueError(
            f"--corpora {corpora} has no text in {', '.join(languages)}: name files by language, such as en.txt or de.jsonl.gz"
        )
    if lost := [x for x in languages if x not in found]:
        warn(f"no corpus for {', '.join(lost)}: whether facts are present there is not known")
    return found


def warn_of_strangers(found: Any, share: float = 0.05) -> None:
    """Warn of corpora that hold almost none of the subjects of their language: a fact that is absent there says nothing."""
    searched = found[found["searchable"].astype(bool)]
    for language, part in searched.groupby("language", sort=False):
        held = int((part["subject"] > 0).sum())
        if held < share * len(part):
            warn(
                f"the corpus of {language} holds the subjects of {held} of {len(part)} facts: is it in that language, and about these things? "
                "That a fact is absent there says little"
            )


def _files(folder: Path, language: str) -> list[Path]:
    own = [folder / f"{language}{ending}" for ending in ENDINGS]
    within = sorted((folder / language).glob("*")) if (folder / language).is_dir() else []
    return [path for path in own if path.is_file()] + [path for path in within if path.name.endswith(ENDINGS)]


def tokenizer_of(name: Any, revision: str | None) -> Any:
    """The tokenizer of a model, without its weights.

    Raises:
        OSError: It cannot be loaded.
        ValueError: The model has no name to find it by.
    """
    from transformers import AutoTokenizer

    from ..models import resolve

    if not name:
        raise ValueError("the model that was probed has no name: give --model")
    try:
        return AutoTokenizer.from_pretrained(resolve(name), revision=revision)
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"cannot load the tokenizer of {str(name)!r}: {first} Give --model, the folder or id that was probed"
        ) from error


def show_factors(table: Any, found: Any, main: str, sizes: Any, out: Path, made: Any) -> None:
    """P@1 against tokens of the objects and training volume: tables and figures."""
    from ..facts.factors import precision_by_tokens, token_counts, usable_correlations
    from ..plots import factor_scatter, precision_intervals, token_curves, write_svg
    from ..storage import save

    each = found[(found["average"] == "micro") & (found["language"] != "all")]
    write_svg(precision_intervals(each).figure, out / "precision.svg")
    tokens = precision_by_tokens(table, metric=main)
    save(tokens, out / "tokens.parquet", made)
    write_svg(token_curves(tokens).figure, out / "tokens.svg")
    score = each[each["metric"] == main].set_index("language")
    factors = {"tokens per object": token_counts(table), **({} if sizes is None else dict(sizes.items()))}
    related, said = usable_correlations(score["precision"], factors)
    for one in said:  # a cell that is empty, too few languages, nothing known: no fault of the facts
        warn(one)
    for number, (name, values) in enumerate(factors.items()):
        drawn = score.reset_index().assign(**{name: lambda t, v=values: t["language"].map(v)}).dropna(subset=[name])
        if len(drawn):
            log = number > 0 and bool((drawn[name] > 0).all())
            write_svg(factor_scatter(drawn, related, factor=name, log=log).figure, out / f"factor_{number}.svg")
    if related.empty:
        return
    save(related, out / "factors.parquet", made)
    rows = [[str(r["factor"]), r["scale"], r["method"], f"{r['r']:+.2f} [{r['low']:+.2f}, {r['high']:+.2f}]", str(r["languages"])]
            for _, r in related.iterrows()]  # fmt: skip
    print_table(
        f"Correlation of P@1 ({main}) over languages",
        ["factor", "scale", "method", "r [95 % interval]", "languages"],
        rows,
    )


def show_trace(tables: Any, types: Any, labels: Any, folder: Path, with_neurons: bool) -> None:
    """Figures and tables of `trace`."""
    from ..plots import absent_bars, pattern_bars, type_bars, write_svg

    absent = tables["absent"]
    figures = {"absent": absent_bars(absent), "types": type_bars(types), "labels": pattern_bars(labels)}
    for name, axes in figures.items():
        write_svg(axes.figure, folder / f"{name}.svg")
    kinds = [name for name in types.columns if name != "shared"]
    print_table(
        "Known facts that the corpus does not hold, and by which easy way they may be known",
        ["language", "known", "absent", "share, % [95 % interval]", *kinds],
        [[x["language"], f"{x['predicted']:,}", f"{x['absent']:,}", _interval(x["share"], x["low"], x["high"]),
          *(str(types.loc[x["language"], kind]) if x["language"] in types.index else "0" for kind in kinds)] for _, x in absent.iterrows()],
    )  # fmt: skip
    if with_neurons:
        print_table(
            "Known facts by pattern",
            ["language", *labels.columns],
            [[str(x), *map(str, row)] for x, row in zip(labels.index, labels.to_numpy(), strict=True)],
        )
    else:
        warn(
            "no neurons.parquet in the folder: shared and independent facts cannot be told apart (`mwork-lens facts neurons` makes it)"
        )
    if "recovery" in tables:
        print_table(
            "What is recovered of the languages that stated each fact",
            ["analysis", "measure", "value [95 % interval]", "chance", "queries"],
            [[r["analysis"], r["measure"], f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}]", f"{r['chance']:.2f}", f"{r['queries']:,}"]
             for _, r in tables["recovery"].iterrows()],
        )  # fmt: skip
    say(f"tables and figures: {folder}")


def percent(rows: Any) -> str:
    """P@1 and its interval, in percent."""
    return _interval(*rows[["precision", "low", "high"]].iloc[0]) if len(rows) else "-"


def _interval(value: float, low: float, high: float) -> str:
    return "-" if value != value else f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
