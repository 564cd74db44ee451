"""The commands of the MWork workflow: demo, study, lens, detect, doctor, report."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from .console import fail_on, guarded, print_study, print_table, say
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
    Resume,
    Revision,
    app,
    codes,
)


class Recorded(TyperGroup):
    """The commands; the line of each is kept in the folder it writes to, for the report."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remember the words before they are taken apart."""
        ctx.meta["mwork_lens.words"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the words name, recorded."""
        from ..report.command import folder_of, recording

        words = ctx.meta["mwork_lens.words"]
        with recording(words, folder_of(self, ctx, words)):
            return super().invoke(ctx)


app.callback(cls=Recorded)(lambda: None)


@app.command()
def demo(out: Out = Path("mwork-demo"), resume: Resume = False) -> None:
    """The MWork study of the embedded model on the embedded texts: a report in a few minutes, without a network."""
    guarded(
        lambda: _study(MODEL, "embedded", None, DEMO_DOCUMENTS, out, resume, {}, DEMO_SETTINGS, None),
        resumable=True,
    )


DEMO_DOCUMENTS = 40
DEMO_SETTINGS = {"held_out": 0.25, "length": 64}
"""What fits into three minutes on two cores; `mwork-lens study` takes all 144 documents, whole, and keeps a third."""


@app.command()
def study(
    model: Model = MODEL,
    corpora: Corpora = "embedded",
    languages: Languages = None,
    out: Out = Path("mwork-study"),
    resume: Resume = False,
    limit: Limit = None,
    length: Length = None,
    stages: Annotated[str, typer.Option(help="lens, or layers of understanding and generation, such as 8,4.")] = "lens",
    measure: Annotated[str, typer.Option(help="output, attention or released.")] = "output",
    top: Annotated[float, typer.Option(help="Share of each layer's units that is the top of a document.")] = 0.1,
    consensus: Annotated[
        float, typer.Option(help="Share of documents that must agree; 1 is the paper's intersection.")
    ] = 0.9,
    minus: Annotated[str, typer.Option(help="others, english, common or none.")] = "others",
    sites: Annotated[str, typer.Option(help="Sites separated by commas.")] = "q,k,v,z,ffn",
    draws: Annotated[int, typer.Option(help="Random controls per cell, at least 10.")] = 10,
    seed: int = 0,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Lens, detection, layer counts, overlap and the deactivation grid of any model, with a report."""
    choices = {
        "measure": measure,
        "top": top,
        "consensus": consensus,
        "minus": minus,
        "draws": draws,
        "seed": seed,
        "length": length,
    }
    choices["sites"] = tuple(sites.split(","))
    how = {"revision": revision, "dtype": dtype, "device": device, "device_map": device_map}
    guarded(lambda: _study(model, corpora, languages, limit, out, resume, how, choices, stages), resumable=True)


@app.command()
def lens(
    model: Model = MODEL,
    corpora: Corpora = "embedded",
    languages: Languages = None,
    limit: Limit = None,
    length: Length = None,
    identify: Annotated[str, typer.Option(help="How a token's language is told: counts, script or lingua.")] = "counts",
    k: Annotated[int, typer.Option(help="Top tokens per position.")] = 10,
    out: Annotated[Optional[Path], typer.Option(help="A .parquet file for the table.")] = None,  # noqa: UP045
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Which language each layer speaks."""

    def run() -> None:
        from ..corpora import load_corpora
        from ..lenses import layer_languages
        from ..models import describe, load_model
        from ..storage import Run, save

        if out is not None and out.suffix != ".parquet":
            raise ValueError(f"--out {out}: a table is saved as .parquet, such as {out.with_suffix('.parquet')}")
        texts = load_corpora(corpora, codes(languages), limit=limit)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        table = layer_languages(loaded, texts, k=k, identify=identify, length=length)  # type: ignore[arg-type]  # checked there
        own = table[table["token_language"].isin([*texts, "shared"])]
        print_table(
            "Probability mass per language of the token, by layer",
            ["text", "layer", *own["token_language"].unique()],
            [
                [language, str(layer), *(f"{mass:.2f}" for mass in part["mass"])]
                for (language, layer), part in own.groupby(["text_language", "layer"], sort=False)
            ],
        )
        if out is not None:
            save(
                table,
                out,
                Run(
                    "lens",
                    {"k": k, "identify": identify, "length": length},
                    describe(loaded),
                    {x: c.facts() for x, c in texts.items()},
                ),
            )
            say(f"table: {out}")

    guarded(run)


@app.command()
def detect(
    model: Model = MODEL,
    corpora: Corpora = "embedded",
    languages: Languages = None,
    limit: Limit = None,
    length: Length = None,
    out: Out = Path("mwork-neurons"),
    resume: Resume = False,
    measure: Annotated[str, typer.Option(help="output, attention or released.")] = "output",
    top: Annotated[float, typer.Option(help="Share of each layer's units that is the top of a document.")] = 0.1,
    consensus: Annotated[
        float, typer.Option(help="Share of documents that must agree; 1 is the paper's intersection.")
    ] = 0.9,
    minus: Annotated[str, typer.Option(help="others, english, common or none.")] = "others",
    sites: Annotated[str, typer.Option(help="Sites separated by commas.")] = "q,k,v,z,ffn",
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """PLND: consistent and language-specific neurons, saved as safetensors."""

    def run() -> None:
        from ..corpora import load_corpora
        from ..detect.plnd import importances, plnd, specific
        from ..measure import measure as collect
        from ..models import describe, load_model
        from ..storage import Run, save

        texts = load_corpora(corpora, codes(languages), limit=limit)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        statistic = importances(measure=measure, sites=tuple(sites.split(",")), top=top, length=length)  # type: ignore[arg-type]  # checked there
        measured = collect(loaded, texts, statistic, out=out / "shards", resume=resume, allow_failures=True)
        consistent = plnd(measured, consensus=consensus, model=loaded)
        own = specific(consistent, minus=minus)  # type: ignore[arg-type]  # checked there
        parameters = {**statistic.parameters(), "consensus": consensus, "minus": minus}
        made = Run("plnd", parameters, describe(loaded), {x: c.facts() for x, c in texts.items()})
        save(consistent, out / "consistent.safetensors", made)
        save(own, out / "specific.safetensors", made)
        print_table(
            "Neurons per language",
            ["language", "consistent", "specific", *statistic.sites],
            [
                [
                    x,
                    str(len(consistent[x])),
                    str(len(own[x])),
                    *(str(int(own[x].masks[s].sum())) for s in statistic.sites),
                ]
                for x in own
            ],
        )
        say(f"neuron sets: {out / 'specific.safetensors'}")
        fail_on(measured.failures)

    guarded(run, resumable=True)


@app.command()
def doctor(
    model: Model = MODEL,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
    length: Length = 256,
) -> None:
    """Can this model be measured here? Loading, readout, hook points, sizes, parity, padding, memory."""

    def run() -> None:
        from ..doctor import doctor as examine

        checks = examine(
            model, revision=revision, dtype=dtype, device=device, device_map=device_map, length=length or 256
        )
        print_table(f"doctor: {model}", ["check", "verdict", "detail"], [[c.name, c.verdict, c.detail] for c in checks])
        if any(c.verdict == "failed" for c in checks):
            raise typer.Exit(1)

    guarded(run)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished study, or of any other run.")],
    interactive: Annotated[bool, typer.Option(help="With the interactive figures of a study (5 MB).")] = True,
) -> None:
    """Write report.html of a run, from what its folder holds."""

    def run() -> None:
        import json

        from ..report import write_report
        from ..report.folder import write_folder_report
        from ..study import load_study

        record = folder / "run.json"
        try:
            method = json.loads(record.read_text(encoding="utf-8"))["method"] if record.is_file() else None
        except (ValueError, KeyError, TypeError):
            method = None  # the page of a folder says what is wrong with it
        if method == "study":
            made = write_report(load_study(folder), folder / "report.html", interactive=interactive)
        else:
            made = write_folder_report(folder)
        say(f"report: {made}")

    guarded(run)


def _study(
    model: str,
    corpora: str,
    languages: str | None,
    limit: int | None,
    out: Path,
    resume: bool,
    how: dict[str, Any],
    choices: dict[str, Any],
    stages: str | None,
) -> None:
    from ..corpora import load_corpora
    from ..grid import Settings
    from ..models import load_model
    from ..sites import n_layers
    from ..stages import Stages
    from ..study import study as run

    texts = load_corpora(corpora, codes(languages), limit=limit)
    settings = Settings(**choices)
    loaded = load_model(model, **how)
    split: Any = "lens"
    if stages not in (None, "lens"):
        try:
            first, last = (int(part) for part in str(stages).split(","))
        except ValueError:
            raise ValueError(f"--stages {stages!r}: give lens, or two numbers of layers such as 8,4") from None
        split = Stages.of(n_layers(loaded), understanding=first, generation=last)
    result = run(loaded, texts, split, settings=settings, out=out, resume=resume, say=say)
    print_study(result)
    say(f"report: {out / 'report.html'}")
    fail_on(result.failures or {})
