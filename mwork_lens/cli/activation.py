"""The commands of activation statistics: lape, sensitivity. One forward over the texts; the rest takes seconds and no model."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .console import fail_on, guarded, print_table, say, warn
from .options import (
    MODEL,
    Corpora,
    Device,
    DeviceMap,
    Dtype,
    Languages,
    Length,
    Limit,
    Model,
    Out,
    Part,
    Resume,
    Revision,
    Seed,
    app,
    codes,
    numbers,
    take,
)

METHODS = {
    "lape": ("rate", "filter_rate", "bar_rate"),
    "lap": ("bar_rate",),
    "lave": ("rate", "filter_rate", "bar_rate"),
    "penalised": ("rate", "bar_rate"),
    "ap": ("rate",),
}
"""Methods, and which of the rates each of them reads."""
STRATA, MOMENTS, NEURONS = "documents.safetensors", "moments.safetensors", "neurons.safetensors"
"""Files of a folder that `lape` writes and other commands read."""


@app.command()
def lape(
    model: Model = MODEL,
    corpora: Corpora = "embedded",
    languages: Languages = None,
    limit: Limit = None,
    length: Length = None,
    part: Part = None,
    out: Out = Path("mwork-lape"),
    resume: Resume = False,
    method: Annotated[str, typer.Option(help="lape, lap, lave, penalised or ap.")] = "lape",
    rate: Annotated[float, typer.Option(help="Share of all FFN neurons to choose; lap has none.")] = 0.01,
    filter_rate: Annotated[float, typer.Option(help="Quantile a neuron must exceed in some language.")] = 0.95,
    bar_rate: Annotated[float, typer.Option(help="Quantile above which a chosen neuron belongs to a language.")] = 0.95,
    resamples: Annotated[int, typer.Option(min=0, help="Document bootstrap of LAPE; 0 for none.")] = 200,
    mask: Annotated[Optional[Path], typer.Option(help="Also write the sets in the released mask format.")] = None,  # noqa: UP045
    seed: Seed = 0,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Language-specific neurons by what they fire for (LAPE and relatives), with how firm the sets are."""

    def run() -> None:
        from ..analysis import layer_counts, overlap
        from ..collect import document_moments
        from ..corpora import load_corpora
        from ..detect.inputs import require_several
        from ..detect.lape import require_rate
        from ..masks import write_masks
        from ..measure import measure
        from ..models import describe, load_model
        from ..plots import layer_counts as draw_layers
        from ..plots import write_svg
        from ..robustness.stability import selection_frequency, stability_table
        from ..storage import Run, save

        if method not in METHODS:
            raise ValueError(f"--method {method!r}: choose from {', '.join(METHODS)}")
        rates = {"rate": rate, "filter_rate": filter_rate, "bar_rate": bar_rate}
        for name, value in rates.items():
            require_rate(f"--{name.replace('_', '-')}", value)
        used = {name: rates[name] for name in METHODS[method]}
        texts = take(load_corpora(corpora, codes(languages), limit=limit), part)
        if method != "lap":
            require_several(texts, method.upper())
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        statistic = document_moments("ffn_act", length=length)
        measured = measure(loaded, texts, statistic, out=out / "shards", resume=resume, allow_failures=True)
        pooled = {language: strata.moments() for language, strata in measured.items()}
        sets = _detect(method, measured, pooled, rates)
        parameters = {**statistic.parameters(), "method": method, "part": part, "seed": seed, **used}
        made = Run(method, parameters, describe(loaded), {x: texts[x].facts() for x in measured}, seed)
        save(measured.stats, out / STRATA, made)
        save(pooled, out / MOMENTS, made)
        save(sets, out / NEURONS, made)
        save(layer_counts(sets), out / "counts.parquet", made)
        save(overlap(sets), out / "overlap.parquet", made)
        write_svg(draw_layers(layer_counts(sets))[0].figure, out / "layers.svg")
        for stale in ("stability.parquet", "sensitivity.parquet", "sensitivity.svg"):
            (out / stale).unlink(missing_ok=True)  # of an earlier run with another method or rate
        firm: dict[str, Any] = {}
        if method == "lape" and resamples:
            table = stability_table(selection_frequency(measured.stats, resamples=resamples, seed=seed, **rates))
            save(table, out / "stability.parquet", made)
            firm = {str(row["language"]): row for _, row in table.iterrows()}
        print_table(
            f"Neurons per language ({method})",
            ["language", "tokens", "neurons", "Jaccard of resamples with the set", "chosen in 9 of 10 resamples"],
            [
                [x, f"{pooled[x].tokens:,}", str(len(sets[x])), *_firmness(firm.get(x))]
                for x in sets
            ],
        )  # fmt: skip
        if mask is not None:
            say(f"released format: {write_masks(sets, mask, loaded)}")
        say(f"neuron sets: {out / NEURONS}")
        fail_on(measured.failures)

    guarded(run, resumable=True)


def _detect(method: str, strata: Any, pooled: Any, rates: dict[str, float]) -> Any:
    from ..detect.ap import ap
    from ..detect.lap import lap
    from ..detect.lape import lape as select_lape
    from ..detect.lave import lave
    from ..detect.penalised import penalised

    if method == "lape":
        return select_lape(strata, **rates)
    if method == "lave":
        return lave(pooled, **rates)
    if method == "lap":
        return lap(strata, bar=rates["bar_rate"])
    if method == "ap":
        return ap(strata, rate=rates["rate"])
    return penalised(strata, rate=rates["rate"], bar_rate=rates["bar_rate"])


def _firmness(row: Any) -> list[str]:
    if row is None:
        return ["-", "-"]
    return [f"{row[name]:.2f}" if row[name] == row[name] else "-" for name in ("jaccard", "firm")]


@app.command()
def sensitivity(
    folder: Annotated[Path, typer.Argument(help="Folder that `mwork-lens lape` wrote.")],
    rates: Annotated[str, typer.Option(help="Rates to try.")] = "0.005,0.01,0.02,0.05",
    bars: Annotated[str, typer.Option(help="Quantiles to try for filter and bar.")] = "0.5,0.8,0.9,0.95,0.99",
    domains: Annotated[bool, typer.Option(help="Group documents by topic: the name before the last hyphen.")] = False,
    draws: Annotated[int, typer.Option(min=1, help="Draws of token subsamples.")] = 5,
    seed: Seed = 0,
) -> None:
    """How much LAPE's sets change with rate, bar, languages, domain and number of tokens. Needs no model."""

    def run() -> None:
        from ..plots import sensitivity_curves, write_svg
        from ..robustness.sensitivity import sensitivity as vary
        from ..storage import Run, load, load_run, save

        strata = load(folder / STRATA)
        if len(strata) < 3:
            warn("with two languages none can be left out: only the other settings are varied")
        made = load_run(folder / STRATA)
        given = {
            name: made["parameters"][name] for name in ("rate", "filter_rate", "bar_rate") if name in made["parameters"]
        }
        table = vary(
            strata,
            rates=numbers(rates, "--rates"),
            bars=numbers(bars, "--bars"),
            domains="topics" if domains else None,
            draws=draws,
            leave_out=len(strata) > 2,
            seed=seed,
            **given,
        )
        varied_by = {"rates": rates, "bars": bars, "domains": domains, "draws": draws}
        run_of = Run("sensitivity", varied_by, made["model"], made["corpora"], seed)
        save(table, folder / "sensitivity.parquet", run_of)
        write_svg(sensitivity_curves(table)[0].figure, folder / "sensitivity.svg")
        every = table[(table["language"] == "all") & ~table["reference"]]
        print_table(
            "Overlap (Jaccard) of the set of all chosen neurons with the reference",
            ["varied", "value", "neurons", "Jaccard", "by chance"],
            [
                [varied, str(value), f"{part['size'].mean():.0f}", f"{part['jaccard'].mean():.2f}", f"{part['jaccard_chance'].mean():.2f}"]
                for (varied, value), part in every.groupby(["varied", "value"], sort=False)
                if not str(varied).startswith("domain")
            ],
        )  # fmt: skip
        for varied, part in every[every["varied"].str.startswith("domain")].groupby("varied", sort=False):
            say(f"{varied}: mean Jaccard {part['jaccard'].mean():.2f} over {len(part)} subsets of documents")
        say(f"table: {folder / 'sensitivity.parquet'}, figure: {folder / 'sensitivity.svg'}")

    guarded(run)
