"""The command that trains a language's neurons: enhance."""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .console import guarded, print_table, say
from .options import (
    MODEL,
    Corpora,
    Device,
    DeviceMap,
    Dtype,
    Languages,
    Limit,
    Model,
    Out,
    Resume,
    Revision,
    Seed,
    app,
    codes,
    load_sets,
)


@app.command()
def enhance(
    neurons: Annotated[
        Path, typer.Argument(help="specific.safetensors of `detect`, or neurons.safetensors of `lape`.")
    ],
    language: Annotated[str, typer.Option(help="Whose neurons are trained, on its texts.")],
    model: Model = MODEL,
    corpora: Corpora = "embedded",
    languages: Languages = None,
    limit: Limit = None,
    length: Annotated[int, typer.Option(min=2, help="Tokens per document at most.")] = 512,
    out: Out = Path("mwork-enhance"),
    resume: Resume = False,
    rate: Annotated[
        float, typer.Option(help="Peak learning rate; the paper's is for 7 B parameters and bfloat16.")
    ] = 2e-6,
    epochs: Annotated[float, typer.Option(help="Passes over the documents.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Documents per forward.")] = 8,
    accumulation: Annotated[int, typer.Option(min=1, help="Forwards per step.")] = 4,
    part: Annotated[str, typer.Option(help="Slices of a neuron that are trained: in, out or both.")] = "both",
    draws: Annotated[int, typer.Option(min=0, help="Random sets, matched by layer and site, trained beside.")] = 1,
    export: Annotated[Optional[Path], typer.Option(help="Write the trained model as a Hugging Face folder.")] = None,  # noqa: UP045
    seed: Seed = 0,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Train the neurons of one language and nothing else, on two thirds of its texts; evaluate every language on the last third."""

    def run() -> None:
        import torch

        from ..corpora import load_corpora
        from ..detect.chance import matched_random
        from ..enhance import Training
        from ..enhance import enhance as train
        from ..evaluate import difference, evaluate
        from ..models import describe, load_model
        from ..storage import Run, save

        if part not in ("in", "out", "both"):
            raise ValueError(f"--part {part!r}: choose in, out or both")
        sets = load_sets(neurons)
        if language not in sets:
            raise ValueError(f"--language {language!r} has no neurons in {neurons}: there are {', '.join(sets)}")
        texts = load_corpora(corpora, codes(languages), limit=limit)
        if language not in texts:
            raise ValueError(f"no texts of {language!r} in {corpora}: there are {', '.join(texts)}")
        parts = {x: corpus.split() for x, corpus in texts.items()}
        held = {x: rest for x, (_, rest) in parts.items()}
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        settings = Training(rate, epochs, batch, accumulation, length=length, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        arms = {"own": sets[language]} | {
            f"random {i}": matched_random(sets[language], generator=generator) for i in range(draws)
        }
        before, tables = evaluate(loaded, held, length=length), []
        for name, units in arms.items():
            delta = train(
                loaded, parts[language][0], units, settings, part=part, out=out / name.replace(" ", "-"), resume=resume
            )
            with delta.applied(loaded):
                tables.append(difference(evaluate(loaded, held, length=length), before, seed=seed).assign(neurons=name))
            if name == "own" and export is not None:
                delta.export(loaded, export)
            say(f"{name}: {delta.changed:,} of {delta.size:,} numbers changed; {out / name.replace(' ', '-')}")
        import pandas as pd

        table = pd.concat(tables, ignore_index=True)
        parameters = {"neurons": str(neurons), "language": language, "rate": rate, "epochs": epochs, "part": part}
        made = Run("enhance", parameters, describe(loaded), {x: c.facts() for x, c in texts.items()}, seed)
        save(table, out / "changes.parquet", made)
        print_table(
            "Change of NLL on held-out texts, nats per token (below zero is better)",
            ["trained", *held],
            [[name, *map(_cell, rows.to_dict("records"))] for name, rows in table.groupby("neurons", sort=False)],
        )
        if export is not None:
            say(f"the trained model: {export}")

    guarded(run, resumable=True)


def _cell(row: dict[str, Any]) -> str:
    return f"{row['change']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
