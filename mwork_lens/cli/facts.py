"""The commands of facts: facts probe, share, neurons, trace. They share one folder, which `probe` makes."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import options as opt
from .console import guarded, print_table, say, warn
from .fact_folder import (
    NEURONS,
    PREDICTIONS,
    default_facts,
    neurons_of,
    percent,
    predictions_of,
    recovered,
    show_factors,
    show_trace,
    sources_of,
    tokenizer_of,
    volumes,
    warn_of_strangers,
)

facts = typer.Typer(
    no_args_is_help=True, help="Facts: probe them, whose languages share them, their neurons, whence they come."
)
opt.app.add_typer(facts, name="facts")

MADE = (
    "precision", "one_token", "tokens", "factors", "sharing", "sharing_by_relation", "clusters", "neurons", "refused", "similarity", "bins",
    "presence", "origins", "absent", "types", "labels", "recovery",
)  # fmt: skip
"""Tables made from the predictions; those of earlier predictions are removed."""

Folder = Annotated[Path, typer.Argument(help="Folder that `mwork-lens facts probe` wrote.")]
Metric = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="What counts as known: full, partial, contiguous or typed; default what the probe says."),
]

Again = Annotated[bool, typer.Option("--resume", help="Not needed: what is finished is always used again.")]


@facts.command()
def probe(
    model: opt.Model = opt.MODEL,
    source: Annotated[Optional[str], typer.Option("--facts", help="small, organism, a folder (ours or mLAMA's), or a hub id.")] = None,  # noqa: UP045
    languages: opt.Languages = None,
    relations: Annotated[Optional[str], typer.Option(help="Relations separated by commas; default all.")] = None,  # noqa: UP045
    take: Annotated[Optional[int], typer.Option(min=1, help="Facts per relation at most, drawn by --seed.")] = None,  # noqa: UP045
    metric: Annotated[Optional[str], typer.Option(help="What counts as known further on; default full for masked models, else typed.")] = None,  # noqa: UP045
    volume: Annotated[Optional[Path], typer.Option(help="CSV: column language, then a column per size of training text.")] = None,  # noqa: UP045
    size: Annotated[int, typer.Option(min=1, help="Sentences per batch.")] = 16,
    out: opt.Out = Path("mwork-facts"), resume: opt.Resume = False, seed: opt.Seed = 0,
    revision: opt.Revision = None, dtype: opt.Dtype = None, device: opt.Device = None, device_map: opt.DeviceMap = None,
) -> None:  # fmt: skip
    """Ask a model for the objects of facts in every language: P@1, and what goes with it."""

    def run() -> None:
        from ..facts.encoders import is_masked
        from ..facts.factset import load_facts, save_facts
        from ..facts.judged import METRICS
        from ..facts.precision import one_token_precision
        from ..facts.probe import probe as ask
        from ..facts.summary import summary
        from ..models import describe, load_model
        from ..storage import Run, save

        if metric is not None and metric not in METRICS:
            raise ValueError(f"--metric {metric!r}: choose from {', '.join(METRICS)}")
        sizes = None if volume is None else volumes(volume)
        chosen = source or default_facts(model)
        held = load_facts(chosen, opt.codes(languages))
        held = held if relations is None else held.only(relations=opt.codes(relations))
        held = held if take is None else held.take(take, seed)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        table = ask(loaded, held, size=size, out=out / "probe", resume=resume)
        main = metric or ("full" if is_masked(loaded) else "typed")
        for stale in MADE:
            (out / f"{stale}.parquet").unlink(missing_ok=True)
            (out / f"{stale}.svg").unlink(missing_ok=True)
        for drawn in out.glob("factor_*.svg"):
            drawn.unlink()
        save_facts(held, out / "facts")
        parameters = {"facts": chosen, "languages": languages, "relations": relations, "take": take, "metric": main}
        made = Run("facts probe", parameters, describe(loaded), seed=seed)
        save(table, out / PREDICTIONS, made)
        found = summary(table, seed=seed)
        save(found, out / "precision.parquet", made)
        try:
            save(one_token_precision(table, held, main, seed=seed), out / "one_token.parquet", made)
        except ValueError as error:  # no object of one token: no fault of the facts
            warn(f"no one-token P@1: {error}")
        show_factors(table, found, main, sizes, out, made)
        metrics = list(dict.fromkeys(found["metric"]))
        rows = [
            [f"{'all' if x == 'all' else x}{'' if x != 'all' else f' ({average})'}", f"{int(part['queries'].iloc[0]):,}",
             *(percent(part[part["metric"] == name]) for name in metrics)]
            for (x, average), part in found.groupby(["language", "average"], sort=False)
        ]  # fmt: skip
        print_table(f"P@1, % [95 % interval], {len(held):,} queries", ["language", "queries", *metrics], rows)
        say(f"predictions: {out / PREDICTIONS}; what counts as known further on: {main}")

    guarded(run, resumable=True)


@facts.command()
def share(
    folder: Folder, languages: opt.Languages = None, metric: Metric = None,
    groups: Annotated[int, typer.Option(min=1, help="Groups of languages.")] = 4,
) -> None:  # fmt: skip
    """Which facts languages know in common: Jaccard per pair, beside chance, and groups. Needs no model."""

    def run() -> None:
        import pandas as pd

        from ..facts.sharing import as_matrix, cluster, off_diagonal_mean, sharing_table
        from ..plots import language_heatmap, write_svg
        from ..storage import Run, save

        table, of, main = predictions_of(folder, metric)
        chosen = {"metric": main, "languages": opt.codes(languages)}
        pairs = sharing_table(table, **chosen)
        matrix = as_matrix(pairs)
        if len(matrix) < 2:
            raise ValueError(
                f"facts are shared between languages, and there is {matrix.index[0]!r} only: give two or more"
            )
        found = cluster(matrix, min(groups, len(matrix)))
        made = Run("facts share", {**of["parameters"], **chosen, "groups": groups}, of["model"], seed=of["seed"])
        save(pairs, folder / "sharing.parquet", made)
        save(sharing_table(table, **chosen, by_relation=True), folder / "sharing_by_relation.parquet", made)
        rows = [(x, found.groups[x], i) for i, x in enumerate(found.order)]
        save(pd.DataFrame(rows, columns=["language", "group", "place"]), folder / "clusters.parquet", made)
        chance = off_diagonal_mean(as_matrix(pairs, "chance"))
        write_svg(
            language_heatmap(matrix, found, label="facts known in both, of those known in either").figure,
            folder / "sharing.svg",
        )
        print_table(
            f"Facts known ({main}) in both languages, of those known in either",
            ["", *matrix.columns],
            [[str(x), *(f"{v:.3f}" for v in matrix.loc[x])] for x in matrix.index],
        )
        say(
            f"mean over pairs of languages {off_diagonal_mean(matrix):.3f}; by chance, with as many facts known, {chance:.3f}"
        )
        say("groups: " + " | ".join(" ".join(members) for members in found.members()))
        say(f"tables and figure: {folder}")

    guarded(run)


@facts.command()
def neurons(
    folder: Folder, model: opt.Model = opt.MODEL, languages: opt.Languages = None, metric: Metric = None,
    top: Annotated[int, typer.Option(min=1, help="Units per fact, over all layers.")] = 50,
    site: Annotated[str, typer.Option(help="ffn or resid_post.")] = "ffn",
    minimum: Annotated[int, typer.Option(help="Facts that a relation must have in a language; at least 2.")] = 5,
    bins: Annotated[int, typer.Option(min=1, help="Parts of a layer in the heat map.")] = 16,
    size: Annotated[int, typer.Option(min=1, help="Facts per batch.")] = 16,
    resume: Again = False,
    revision: opt.Revision = None, dtype: opt.Dtype = None, device: opt.Device = None, device_map: opt.DeviceMap = None,
) -> None:  # fmt: skip
    """The neurons of every known fact (PROBELESS), and how much languages share them."""

    def run() -> None:
        import pandas as pd

        from ..facts.factset import load_facts
        from ..facts.overlaps import neuron_similarity
        from ..facts.probeless import fact_neurons
        from ..models import describe, load_model
        from ..plots import bins_heatmap, language_heatmap, write_svg
        from ..storage import Run, content_hash, save

        table, of, main = predictions_of(folder, metric)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        if (print_of := describe(loaded)["fingerprint"]) != of["model"].get("fingerprint"):
            raise ValueError(
                f"{folder} holds predictions of {of['model'].get('name')!r}, and --model {model} is another: give the one that was probed"
            )
        chosen = {"metric": main, "site": site, "top": top, "minimum": minimum}
        kept = folder / "groups" / content_hash(print_of, site, top, main)[:12]
        found = fact_neurons(
            loaded,
            load_facts(folder / "facts"),
            table,
            **chosen,
            languages=opt.codes(languages),
            size=size,
            out=kept,
            resume=True,  # each group is kept under what decides it
        )
        if not len(found.table):
            raise ValueError(
                f"no relation has {minimum} facts known ({main}) in a language: lower --minimum, or choose another --metric"
            )
        parameters = {**of["parameters"], **chosen, "shape": list(found.shape)}
        made = Run("facts neurons", parameters, describe(loaded), seed=of["seed"])
        alike = neuron_similarity(found)
        (layers, width), names = found.shape, list(alike.matrix.index)
        pairs = [(a, b, alike.matrix.loc[a, b], int(alike.facts.loc[a, b])) for a in names for b in names]
        cells = pd.DataFrame(found.bins(min(bins, width)), columns=[f"bin_{i}" for i in range(min(bins, width))])
        save(found.table, folder / NEURONS, made)
        save(found.refused, folder / "refused.parquet", made)
        save(pd.DataFrame(pairs, columns=["a", "b", "overlap", "facts"]), folder / "similarity.parquet", made)
        save(cells, folder / "bins.parquet", made)
        write_svg(bins_heatmap(cells.to_numpy(), width=width).figure, folder / "bins.svg")
        label = f"overlap of the top {found.top} units"
        write_svg(language_heatmap(alike.matrix, label=label, chance=alike.chance).figure, folder / "similarity.svg")
        if len(found.refused):
            warn(
                f"{len(found.refused)} groups have no neurons: {found.refused['reason'].iloc[0]} (refused.parquet lists them)"
            )
        print_table(
            f"Mean overlap (Jaccard) of a fact's top {found.top} of {layers * width:,} units",
            ["", "facts", *names],
            [
                [x, str(int(alike.facts.loc[x, x])), *("-" if v != v else f"{v:.3f}" for v in alike.matrix.loc[x])]
                for x in names
            ],
        )
        say(f"mean over pairs of languages {alike.mean:.4f}; two random sets {alike.chance:.4f}")
        say(f"tables and figures: {folder}")

    guarded(run, resumable=True)


@facts.command()
def trace(
    folder: Folder,
    corpora: Annotated[str, typer.Option(help="embedded, organism, or a folder of en.txt, de.jsonl.gz, or folders fr, ...")] = "embedded",
    model: Annotated[Optional[str], typer.Option(help="Whose tokenizer; default the one that was probed.")] = None,  # noqa: UP045
    unit: Annotated[str, typer.Option(help="Where subject and object must stand: chunk, sentence or document.")] = "chunk",
    length: Annotated[int, typer.Option(min=1, help="Tokens per chunk.")] = 512,
    match: Annotated[Optional[str], typer.Option(help="tokens, words or string; default tokens for chunks, else words.")] = None,  # noqa: UP045
    naming: Annotated[Optional[str], typer.Option(help="Relations that names give away; default mLAMA's and the embedded set's.")] = None,  # noqa: UP045
    languages: opt.Languages = None, metric: Metric = None, resume: Again = False, revision: opt.Revision = None,
) -> None:  # fmt: skip
    """Is a known fact written in a corpus? Absent ones by type, patterns with `neurons`' tables, and recovery where the truth is known."""

    def run() -> None:
        from ..facts import origin
        from ..facts.factset import load_facts
        from ..facts.search import present, tokenizer_key
        from ..storage import Run, content_hash, save

        table, of, main = predictions_of(folder, metric)
        held = load_facts(folder / "facts", opt.codes(languages))
        table = table[table["language"].isin(held.languages)]
        sources = sources_of(corpora, held.languages)
        how = match or ("tokens" if unit == "chunk" else "words")
        tokenizer = tokenizer_of(model or of["model"].get("name"), revision or of["model"].get("revision"))
        settings = {"unit": unit, "match": how, "length": length}
        units = neurons_of(folder, main)
        asked = tokenizer if how == "tokens" or unit == "chunk" else None
        kept = folder / "presence" / content_hash(settings, corpora, tokenizer_key(asked))[:12]
        # each file is kept under what decides its counts
        found = present(held, sources, tokenizer=asked, out=kept, resume=True, **settings)
        warn_of_strangers(found)
        cues = origin.NAMING if naming is None else opt.codes(naming)
        traced = origin.origins(held, table, found, neurons=units, metric=main, tokenizer=tokenizer, naming=cues)
        parameters = {**of["parameters"], **settings, "metric": main, "corpora": corpora, "naming": list(cues)}
        made = Run("facts trace", parameters, of["model"], seed=of["seed"])
        tables = {"presence": found, "origins": traced, "absent": origin.absent_shares(traced)}
        types, labels = origin.type_counts(traced), origin.label_counts(traced)
        tables |= {"types": types.reset_index(), "labels": labels.reset_index()}
        tables |= recovered(held, traced, units)
        for name, one in tables.items():
            save(one, folder / f"{name}.parquet", made)
        show_trace(tables, types, labels, folder, units is not None)

    guarded(run, resumable=True)
