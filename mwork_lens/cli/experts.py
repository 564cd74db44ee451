"""The commands of experts inside dense models: experts build, frequencies, compare, prune. They share one folder, which `build` makes."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import options as opt
from .console import fail_on, guarded, print_table, say, warn

experts = typer.Typer(no_args_is_help=True, help="Experts inside dense models: build, count, compare languages, prune.")
opt.app.add_typer(experts, name="experts")

PARTITION, COUNTS = "partition.safetensors", "counts.safetensors"
"""Files of the folder that `build` and `frequencies` write and other commands read."""
MADE = ("similarity", "categories", "shares", "statements", "family", "pruning", "flops")
"""Tables made from the counts; those of earlier counts are removed."""

Folder = Annotated[Path, typer.Argument(help="Folder that `mwork-lens experts build` wrote.")]


@experts.command()
def build(
    model: opt.Model = opt.MODEL,
    number: Annotated[int, typer.Option("--experts", help="Experts per layer.")] = 256,
    weights: Annotated[str, typer.Option(help="Rows that are clustered: gate, up or both.")] = "gate",
    method: Annotated[str, typer.Option(help="kmeans; or the controls random and contiguous.")] = "kmeans",
    out: opt.Out = Path("mwork-experts"), resume: opt.Resume = False, seed: opt.Seed = 0,
    revision: opt.Revision = None, dtype: opt.Dtype = None, device: opt.Device = None, device_map: opt.DeviceMap = None,
) -> None:  # fmt: skip
    """Divide the FFN units of every layer into experts of equal size; no weight changes."""

    def run() -> None:
        from ..experts.partition import partition
        from ..models import load_model

        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        made = partition(loaded, experts=number, weights=weights, method=method, seed=seed, out=out, resume=resume)
        least, most = int(made.sizes().min()), int(made.sizes().max())
        units = f"{least}" if least == most else f"{least} to {most}"
        divided = f"{made.n_layers} layers of {made.width} units: {made.experts} experts of {units}"
        say(f"{divided} ({method}, {made.weights})")
        say(f"partition: {out / PARTITION}")

    guarded(run, resumable=True)


@experts.command()
def frequencies(
    folder: Folder,
    model: opt.Model = opt.MODEL, corpora: opt.Corpora = "embedded", languages: opt.Languages = None,
    limit: opt.Limit = None, length: opt.Length = None, part: opt.Part = None, resume: opt.Resume = False,
    score: Annotated[str, typer.Option(help="sum, positive, absolute, square or norm.")] = "sum",
    z: Annotated[str, typer.Option(help="token, layer (reads the texts twice) or none.")] = "token",
    share: Annotated[float, typer.Option(help="Share of the experts that a token selects.")] = 0.3,
    select: Annotated[str, typer.Option(help="global, or per_layer.")] = "global",
    revision: opt.Revision = None, dtype: opt.Dtype = None, device: opt.Device = None, device_map: opt.DeviceMap = None,
) -> None:  # fmt: skip
    """Count how often each expert is among the top of a token, per language."""

    def run() -> None:
        from ..corpora import load_corpora
        from ..experts.analysis import frequency_table
        from ..experts.frequencies import expert_counts
        from ..experts.scales import layer_scale, score_moments
        from ..measure import measure
        from ..models import describe, load_model
        from ..storage import Run, content_hash, save

        held = _held(folder / PARTITION, "build")
        # refuses unknown names and bad shares before the model is loaded
        expert_counts(held, score=score, z="token" if z == "layer" else z, share=share, select=select, length=length)
        texts = opt.take(load_corpora(corpora, opt.codes(languages), limit=limit), part)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        held.require_model(loaded)

        def counted(statistic: Any) -> Any:
            key = content_hash(statistic.parameters(), {x: c.fingerprint for x, c in texts.items()})[:12]
            shards = folder / "shards" / key  # other choices may be counted in the same folder later
            return measure(loaded, texts, statistic, out=shards, resume=resume, allow_failures=True)

        scale = layer_scale(counted(score_moments(held, score=score, length=length))) if z == "layer" else None
        statistic = expert_counts(held, score=score, z=z, share=share, select=select, scale=scale, length=length)
        counts = counted(statistic)
        facts = {x: texts[x].facts() for x in counts}
        parameters = {**statistic.parameters(), "score": score, "z": z, "share": share, "select": select, "part": part}
        ids = {x: list(texts[x].ids) for x in counts}  # `prune` warns of documents that were counted
        save(counts.stats, folder / COUNTS, Run("experts", {**parameters, "ids": ids}, describe(loaded), facts))
        table = frequency_table(counts)
        save(table, folder / "frequencies.parquet", Run("experts", parameters, describe(loaded), facts))
        for stale in MADE:
            (folder / f"{stale}.parquet").unlink(missing_ok=True)
        per_language = table.groupby("language", sort=False)["frequency"]
        print_table(
            f"How often experts fire ({statistic.how})",
            ["language", "tokens", "mean", "least", "most"],
            [[str(x), f"{int(counts[x].tokens):,}", *(f"{v:.3f}" for v in (f.mean(), f.min(), f.max()))] for x, f in per_language],
        )  # fmt: skip
        say(f"counts: {folder / COUNTS}")
        fail_on(counts.failures)

    guarded(run, resumable=True)


@experts.command()
def compare(
    folder: Folder,
    measure: Annotated[str, typer.Option(help="pearson, spearman, per_layer, jaccard or js.")] = "pearson",
    shared: Annotated[str, typer.Option(help="Experts all languages use: keep, remove, or subtract (the mean).")] = "keep",
    high: Annotated[float, typer.Option(help="From which frequency on an expert is used.")] = 0.5,
    low: Annotated[float, typer.Option(help="Up to which frequency it is not.")] = 0.1,
    quantiles: Annotated[Optional[str], typer.Option(help="Top and bottom shares, such as 0.5,0.1, for --high and --low.")] = None,  # noqa: UP045
    seed: opt.Seed = 0,
) -> None:  # fmt: skip
    """How alike languages are in the experts they use, and which experts all, one family, one or none use. Needs no model."""

    def run() -> None:
        import warnings

        from ..experts.analysis import similarity, stacked
        from ..experts.categories import categories, category_shares, quantile_thresholds, statements
        from ..experts.kinship import family_test
        from ..storage import Run, load_run, save

        counts = _held(folder / COUNTS, "frequencies")
        stacked(counts)  # warns of few tokens, which is once enough
        tables: dict[str, Any] = {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="too few tokens")
            upper, lower = high, low
            if quantiles is not None:
                if len(shares := opt.numbers(quantiles, "--quantiles")) != 2:
                    raise ValueError(f"--quantiles {quantiles!r}: give two shares, top and bottom, such as 0.5,0.1")
                upper, lower = quantile_thresholds(counts, top=shares[0], bottom=shares[1])
            tables["statements"] = statements(counts, high=upper, low=lower)  # refuses bad thresholds first
            tables["categories"] = categories(counts, high=upper, low=lower)
            tables["similarity"] = similarity(counts, measure=measure, shared=shared, high=upper)
        tables["shares"] = category_shares(tables["categories"])
        (folder / "family.parquet").unlink(missing_ok=True)
        try:
            tables["family"] = family_test(tables["similarity"], seed=seed)
        except ValueError as error:  # too few languages, or none related: no fault of the counts
            warn(f"no family test: {error}")
        of = load_run(folder / COUNTS)
        choices = {"measure": measure, "shared": shared, "high": upper, "low": lower, "quantiles": quantiles}
        made = Run("experts compare", choices, of["model"], of["corpora"], seed)
        for name, table in tables.items():
            save(table, folder / f"{name}.parquet", made)
        _print_comparison(tables, f"({measure}, shared experts: {shared})", upper, lower)
        say(f"tables: {folder}")

    guarded(run)


def _print_comparison(tables: dict[str, Any], how: str, high: float, low: float) -> None:
    alike = tables["similarity"]
    print_table(
        f"Similarity of languages in the experts they use {how}",
        ["", *alike["other"].unique()],
        [[str(x), *(f"{v:.3f}" for v in part["similarity"])] for x, part in alike.groupby("language", sort=False)],
    )
    if "family" in tables:
        row = tables["family"].iloc[0]
        say(
            f"within families {row['within']:.3f}, between {row['between']:.3f}: difference {row['difference']:+.3f}, p = {row['p']:.4f} "
            f"(these {row['languages']} languages allow no p below {row['smallest_p']:.4f})"
        )
    print_table(
        f"Experts by category (high {high:.3f}, low {low:.3f})",
        ["category", "of", "experts", "share"],
        [[x["category"], x["of"], str(x["experts"]), f"{100 * x['share']:.1f} %"] for _, x in tables["shares"].iterrows()],
    )  # fmt: skip
    print_table(
        "The paper's statements (Llama-2-7B, nine languages) beside what was counted here",
        ["experts", "paper", "here", "most that this mean frequency allows"],
        [[x["statement"], x["paper"], f"{x['experts']} of {x['of']} ({100 * x['share']:.1f} %)", f"{100 * x['possible']:.1f} %"]
         for _, x in tables["statements"].iterrows()],
    )  # fmt: skip


@experts.command()
def prune(
    folder: Folder,
    model: opt.Model = opt.MODEL, corpora: opt.Corpora = "embedded", languages: opt.Languages = None,
    limit: opt.Limit = None, length: opt.Length = None, part: opt.Part = None, resume: opt.Resume = False,
    keep: Annotated[str, typer.Option(help="Shares of the experts to keep.")] = "0.75,0.5,0.25",
    per_layer: Annotated[bool, typer.Option("--per-layer", help="Keep the same number in every layer.")] = False,
    draws: Annotated[int, typer.Option(min=0, help="Random sets of as many experts.")] = 3,
    export: Annotated[Optional[Path], typer.Option(help="Also write a smaller Hugging Face model here.")] = None,  # noqa: UP045
    language: Annotated[Optional[str], typer.Option(help="Of --export: whose experts it keeps.")] = None,  # noqa: UP045
    share: Annotated[Optional[float], typer.Option(help="Of --export: share of the experts it keeps.")] = None,  # noqa: UP045
    seed: opt.Seed = 0,
    revision: opt.Revision = None, dtype: opt.Dtype = None, device: opt.Device = None, device_map: opt.DeviceMap = None,
) -> None:  # fmt: skip
    """Keep each language's most frequent experts only: the harm in every language, beside random experts, and the cost left."""

    def run() -> None:
        import pandas as pd

        from ..corpora import load_corpora
        from ..experts import slicing
        from ..experts.pruning import flops, keep_by_rank, pruning_scores
        from ..models import describe, load_model
        from ..perplexity.tables import perplexity_matrix
        from ..storage import Run, content_hash, save

        held, counts = _held(folder / PARTITION, "build"), _held(folder / COUNTS, "frequencies")
        if other := [x for x, c in counts.items() if c.partition != held.fingerprint]:
            raise ValueError(f"{folder / COUNTS}: {other[0]} was counted on another partition: count again")

        def kept(whose: str, q: float, option: str) -> Any:
            try:
                return keep_by_rank(counts[whose].frequency(), q, per_layer=per_layer)
            except ValueError as error:
                cure = str(error).replace("per_layer=True", "per_layer=True (--per-layer)")
                raise ValueError(f"{option} {q:g}, {whose}: {cure}") from None

        small = _exported(export, language, share, counts)
        small = None if small is None else kept(*small, "--share")
        levels = list(dict.fromkeys(opt.numbers(keep, "--keep")))
        if bad := [q for q in levels if not 0 < q <= 1]:
            raise ValueError(f"--keep {bad[0]:g} is not a share: give numbers above 0, at most 1")
        texts = opt.take(load_corpora(corpora, opt.codes(languages), limit=limit), part)
        if lost := [x for x in counts if x not in texts]:
            warn(f"no texts for {', '.join(lost)}, so their experts are not tried")
        plans = {q: {x: kept(x, q, "--keep") for x in counts if x in texts} for q in levels}
        _warn_counted(folder, texts)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        done = folder / "scores" / content_hash(length, {x: c.fingerprint for x, c in texts.items()})[:12]
        matrices, costs = [], []
        for at, (q, keeps) in enumerate(plans.items()):
            how = {"draws": draws, "seed": seed, "length": length, "out": done}
            scores = pruning_scores(loaded, texts, held, keeps, **how, resume=resume or at > 0)
            matrices.append(perplexity_matrix(scores, seed=seed))
            matrices[-1].insert(0, "share", q)
            costs += [(q, x, flops(loaded, held, which)) for x, which in keeps.items()]
        table = pd.concat(matrices, ignore_index=True)
        rows = [(q, x, cost.kept_share, cost.ffn_share, cost.relative) for q, x, cost in costs]
        cost_of = pd.DataFrame(rows, columns=["share", "language", "kept_share", "ffn_share", "relative"])
        parameters = {"keep": levels, "per_layer": per_layer, "draws": draws, "length": length, "part": part}
        made = Run("experts prune", parameters, describe(loaded), {x: c.facts() for x, c in texts.items()}, seed)
        save(table, folder / "pruning.parquet", made)
        save(cost_of, folder / "flops.parquet", made)
        own = table[(table["neurons"] == "own") & (table["off"] == table["language"])]
        print_table(
            "Change of NLL (nats per token; above zero is harm) in the language whose experts are kept; below the range beats random experts",
            ["kept", "language", "change", "random experts", "products left"],
            [[f"{a['share']:g}", a["off"], f"{a['dnll']:+.3f} [{a['dnll_low']:+.3f}, {a['dnll_high']:+.3f}]",
              "-" if a["random_low"] != a["random_low"] else f"{a['random_low']:+.3f} to {a['random_high']:+.3f}", f"{100 * b:.1f} %"]
             for (_, a), b in zip(own.iterrows(), cost_of["relative"], strict=True)],
        )  # fmt: skip
        say(f"tables: {folder / 'pruning.parquet'}, {folder / 'flops.parquet'}")
        if export is not None:
            say(f"smaller model: {slicing.export(slicing.sliced(loaded, held, small), export, loaded.tokenizer)}")

    guarded(run, resumable=True)


def _exported(export: Any, language: Any, share: Any, counts: Any) -> tuple[str, float] | None:
    """Language and share of the model to write; what is wrong with them is said before anything is scored."""
    if export is None and language is None and share is None:
        return None
    if export is None or language is None or share is None:
        raise ValueError("--export, --language and --share go together: give all, such as small, de and 0.5, or none")
    if language not in counts:
        raise ValueError(f"--language {language!r}: experts were counted for {', '.join(counts)}")
    if export.exists() and (not export.is_dir() or any(export.iterdir())):
        raise FileExistsError(f"--export {export} exists and is not an empty folder: choose another")
    return language, share


def _held(path: Path, command: str) -> Any:
    """The partition, or the counts per language, of a folder."""
    from ..experts.frequencies import ExpertCounts
    from ..experts.partition import Partition
    from ..storage import load

    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no {path.name}: run `mwork-lens experts {command}` first")
    found = load(path)
    several = isinstance(found, dict) and all(isinstance(x, ExpertCounts) for x in found.values())
    if not (isinstance(found, Partition) if path.name == PARTITION else several):
        raise ValueError(f"{path} holds something else: make it again with `mwork-lens experts {command}`")
    return found


def _warn_counted(folder: Path, texts: Any) -> None:
    """Say so when documents to be scored are among those the experts were counted on."""
    from ..storage import load_run

    of = load_run(folder / COUNTS)
    ids, facts = of["parameters"].get("ids", {}), of["corpora"]
    seen = {x: set(ids.get(x, ())) & set(c.ids) for x, c in texts.items()}
    same = [x for x, c in texts.items() if seen[x] and facts[x]["source"] == c.source]
    if same:
        warn(f"texts of {', '.join(same)} are among those counted: score others (--corpora), or another --part")
