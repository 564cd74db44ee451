"""The commands that use neuron sets: perplexity, steer; and the geometry of languages beside them."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .activation import MOMENTS, NEURONS
from .console import guarded, print_table, say, warn
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
    load_sets,
    numbers,
    take,
)
from .seen import warn_seen


@app.command()
def perplexity(
    neurons: Annotated[
        Path, typer.Argument(help="neurons.safetensors of `lape`, or specific.safetensors of `detect`.")
    ],
    model: Model = MODEL,
    corpora: Corpora = "embedded",
    languages: Languages = None,
    limit: Limit = None,
    length: Length = None,
    part: Part = None,
    out: Out = Path("mwork-perplexity"),
    resume: Resume = False,
    draws: Annotated[int, typer.Option(min=0, help="Random sets per language.")] = 20,
    seed: Seed = 0,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Whose neurons are off, and which language suffers: the matrix, its selectivity, its random controls."""

    def run() -> None:
        from ..corpora import load_corpora
        from ..models import describe, load_model
        from ..perplexity.scores import perplexity_scores
        from ..perplexity.tables import perplexity_matrix, selectivity
        from ..plots import perplexity_heatmap, write_svg
        from ..storage import Run, save
        from ..written import written_p

        sets = load_sets(neurons)
        whole = load_corpora(corpora, codes(languages), limit=limit)
        texts = take(whole, part)
        warn_seen(neurons, texts, whole)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        chosen = {language: sets[language] for language in sets if language in texts}
        if lost := [language for language in sets if language not in texts]:
            warn(f"no texts for {', '.join(lost)}, so their neurons are left alone")
        scores = perplexity_scores(loaded, texts, chosen, draws=draws, seed=seed, length=length, out=out, resume=resume)
        matrix, rows = perplexity_matrix(scores, seed=seed), selectivity(scores, seed=seed)
        parameters = {"neurons": str(neurons), "draws": draws, "length": length, "part": part}
        made = Run("perplexity", parameters, describe(loaded), {x: c.facts() for x, c in texts.items()}, seed)
        for name, table in (("scores", scores), ("matrix", matrix), ("selectivity", rows)):
            save(table, out / f"{name}.parquet", made)
        write_svg(perplexity_heatmap(matrix).figure, out / "matrix.svg")
        own = matrix[matrix["neurons"] == "own"]
        print_table(
            "Change of NLL (nats per token; above zero is harm) when a language's neurons are off",
            ["off", "n", *texts, "random, own column"],
            [
                [off, str(part["count"].iloc[0]), *(f"{x:+.3f}" for x in part["dnll"]), _range(part[part["language"] == off])]
                for off, part in own.groupby("off", sort=False)
            ],
        )  # fmt: skip
        whole = rows[(rows["off"] == "all") & (rows["neurons"] == "own")].iloc[0]
        say(
            f"selectivity (diagonal minus the rest) {whole['selectivity']:+.3f} [{whole['selectivity_low']:+.3f}, {whole['selectivity_high']:+.3f}]; "
            f"the diagonal is the largest harm in {whole['largest']:.0f} of {whole['rows']:.0f} rows; permutation "
            f"p = {written_p(whole['p_permutation'])}"
        )
        say(f"tables and figure: {out}")

    guarded(run, resumable=True)


def _range(cell: Any) -> str:
    if not len(cell) or not cell["random_low"].notna().iloc[0]:
        return "-"
    return f"{cell['random_low'].iloc[0]:+.3f} to {cell['random_high'].iloc[0]:+.3f}"


@app.command()
def steer(
    folder: Annotated[Path, typer.Argument(help="Folder that `mwork-lens lape` wrote: neurons and moments.")],
    model: Model = MODEL,
    corpora: Corpora = "embedded",
    limit: Limit = None,
    part: Part = None,
    source: Annotated[str, typer.Option(help="Language of the prompts, switched off.")] = "en",
    target: Annotated[
        str | None, typer.Option(help="Languages to switch on, separated by commas; default all others.")
    ] = None,
    strength: Annotated[str, typer.Option(help="Doses: factors on the value.")] = "1,2,4",
    how: Annotated[str, typer.Option(help="replace or add.")] = "replace",
    value: Annotated[str, typer.Option(help="mean, firing or contrast.")] = "mean",
    phase: Annotated[str, typer.Option(help="all, prompt or new positions.")] = "all",
    off_value: Annotated[float, typer.Option(help="act(gate) of neurons that are off.")] = 0.0,
    prompt: Annotated[int, typer.Option(min=2, help="Tokens of a prompt: the opening of a document.")] = 12,
    new: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 32,
    draws: Annotated[int, typer.Option(min=1, help="Random sets per target and dose.")] = 3,
    identify: Annotated[str, typer.Option(help="lingua (extra lang), or script.")] = "lingua",
    out: Out = Path("mwork-steer"),
    resume: Resume = False,
    seed: Seed = 0,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Switch languages on and off while the model writes: language accuracy, fluency, damage elsewhere."""

    def run() -> None:
        from ..corpora import load_corpora
        from ..models import describe, load_model
        from ..plots import dose_curves, write_svg
        from ..steering.responses import Dose, openings, steering_responses
        from ..steering.tables import damage, steering_table
        from ..storage import Run, load, save
        from ..writing.confusion import language_accuracy
        from ..writing.identify import lingua_identifier, script_identifier

        if identify not in ("lingua", "script"):
            raise ValueError(f"--identify {identify!r}: choose lingua or script")
        sets, moments = load_sets(folder / NEURONS), load(folder / MOMENTS)
        whole = load_corpora(corpora, None, limit=limit)
        texts = take(whole, part)
        warn_seen(folder / NEURONS, texts, whole)
        if source not in texts:
            raise ValueError(f"--source {source!r}: there are texts in {', '.join(texts)}")
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        targets = codes(target) or [language for language in sets if language != source]
        doses = [Dose(how, value, factor, phase, off_value) for factor in numbers(strength, "--strength")]
        identifier = lingua_identifier() if identify == "lingua" else script_identifier([source, *targets])
        written = steering_responses(
            loaded, {source: openings(loaded, texts[source], tokens=prompt)}, sets, moments, identifier, targets=targets, doses=doses,
            draws=draws, max_new_tokens=new, seed=seed, out=out, resume=resume,
        )  # fmt: skip
        table = steering_table(written, targets=targets, seed=seed)
        parameters = {
            "folder": str(folder),
            "source": source,
            "doses": [str(dose) for dose in doses],
            "identify": identify,
        }
        made = Run("steering", parameters, describe(loaded), {x: c.facts() for x, c in texts.items()}, seed)
        save(written, out / "responses.parquet", made)
        save(table, out / "steering.parquet", made)
        steered = written[written["target"] != ""].assign(language=lambda rows: rows["target"])
        by = ["source", "condition", "strength"]
        save(language_accuracy(steered, identifier, by=by), out / "lines.parquet", made)
        (out / "damage.parquet").unlink(missing_ok=True)  # of an earlier run with another phase
        if phase == "all":
            harm = damage(
                loaded, texts, sets, moments, targets=targets, source=source, doses=doses, draws=draws, seed=seed
            )
            save(harm, out / "damage.parquet", made)
        write_svg(dose_curves(table)[0].figure, out / "doses.svg")
        print_table(
            f"Language accuracy of what is written after {source} prompts, and its price",
            ["target", "condition", "strength", "accuracy", f"still {source}", "NLL", "repetition"],
            [
                [row["target"], row["condition"], f"{row['strength']:g}" if row["how"] else "-",
                 f"{row['accuracy']:.2f} [{row['accuracy_low']:.2f}, {row['accuracy_high']:.2f}]", f"{row['in_source']:.2f}",
                 f"{row['nll']:.2f}", f"{row['repetition']:.2f}"]
                for _, row in table.iterrows()
            ],
        )  # fmt: skip
        say(f"tables and figure: {out}")

    guarded(run, resumable=True)


@app.command()
def geometry(
    model: Model = MODEL,
    corpora: Corpora = "embedded",
    languages: Languages = None,
    limit: Limit = None,
    length: Length = None,
    pool: Annotated[str, typer.Option(help="A sentence's vector: its last token, or the mean of all.")] = "last",
    neurons: Annotated[Optional[Path], typer.Option(help="Neuron sets: are they few where languages meet?")] = None,  # noqa: UP045
    out: Out = Path("mwork-geometry"),
    seed: Seed = 0,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Where languages meet: similarity of parallel sentences per layer, retrieval, dominance, with shuffled baselines."""

    def run() -> None:
        from ..analysis import layer_counts
        from ..corpora import load_corpora
        from ..geometry.embeddings import embed
        from ..geometry.tables import dominance, meeting, retrieval, similarity
        from ..models import describe, load_model
        from ..plots import dominance_curves, retrieval_curves, similarity_curves, write_svg
        from ..storage import Run, save
        from ..written import written_p

        if pool not in ("last", "mean"):
            raise ValueError(f"--pool {pool!r}: choose last or mean")
        texts = load_corpora(corpora, codes(languages), limit=limit)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        found = embed(loaded, texts, pool=pool, length=length)
        tables = {
            "similarity": similarity(found, seed=seed),
            "similarity_centred": similarity(found, centred=True, seed=seed),
            "retrieval": retrieval(found, centred=True),
            "dominance": dominance(found, seed=seed),
        }
        if neurons is not None:
            tables["meeting"] = meeting(tables["similarity_centred"], layer_counts(load_sets(neurons)), seed=seed)
        made = Run(
            "geometry",
            {"pool": pool, "length": length},
            describe(loaded),
            {x: c.facts() for x, c in texts.items()},
            seed,
        )
        for name, table in tables.items():
            save(table, out / f"{name}.parquet", made)
        figures = {
            "similarity": similarity_curves(tables["similarity_centred"], value="adjusted"),
            "retrieval": retrieval_curves(tables["retrieval"]),
            "dominance": dominance_curves(tables["dominance"], value="adjusted"),
        }
        for name, axes in figures.items():
            write_svg(axes[0].figure, out / f"{name}.svg")
        shown = [tables[name] for name in ("similarity", "similarity_centred", "retrieval")]
        rows = [table[(table["language"] == "all") & (table["other"] == "all")] for table in shown]
        print_table(
            "All pairs of languages: cosine of parallel sentences, of shuffled pairs, and centred; retrieval",
            ["layer", "parallel", "shuffled", "centred, minus shuffled", "retrieval"],
            [
                [str(raw["layer"]), f"{raw['parallel']:.3f}", f"{raw['shuffled']:.3f}",
                 f"{centred['adjusted']:.3f} [{centred['adjusted_low']:.3f}, {centred['adjusted_high']:.3f}]", f"{100 * hit['accuracy']:.1f} %"]
                for (_, raw), (_, centred), (_, hit) in zip(*(part.iterrows() for part in rows), strict=True)
            ],
        )  # fmt: skip
        if neurons is not None:
            row = tables["meeting"][tables["meeting"]["language"] == "all"].iloc[0]
            say(
                f"neurons per layer against similarity: Spearman {row['rho']:+.2f}, p = {written_p(row['p'])} over {row['layers']:.0f} layers, which "
                f"are not independent; with so few, only |rho| of {row['detectable']:.2f} or more could be told from chance"
            )
        say(f"tables and figures: {out}")

    guarded(run)
