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
from .seen import warn_seen

DELTA = "delta.safetensors"
"""File of a finished delta; `enhance.run.DELTA`, without what that imports."""


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
        import pandas as pd
        import torch

        from ..corpora import load_corpora
        from ..detect.chance import matched_random
        from ..enhance import Training
        from ..enhance import enhance as train
        from ..evaluate import difference, evaluate
        from ..models import describe, load_model
        from ..storage import Run, content_hash, save

        if part not in ("in", "out", "both"):
            raise ValueError(f"--part {part!r}: choose in, out or both")
        sets = load_sets(neurons)
        if language not in sets:
            raise ValueError(f"--language {language!r} has no neurons in {neurons}: there are {', '.join(sets)}")
        texts = load_corpora(corpora, codes(languages), limit=limit)
        if language not in texts:
            raise ValueError(f"no texts of {language!r} in {corpora}: there are {', '.join(texts)}")
        parts = {x: corpus.split() for x, corpus in texts.items()}
        trained, held = parts[language][0], {x: rest for x, (_, rest) in parts.items()}
        warn_seen(neurons, held, texts)
        loaded = load_model(model, revision=revision, dtype=dtype, device=device, device_map=device_map)
        exported = export is not None and _exported(export, loaded, out / "own" / DELTA if resume else None)
        settings = Training(rate, epochs, batch, accumulation, length=length, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        arms = {"own": sets[language]} | {
            f"random {i}": matched_random(sets[language], generator=generator) for i in range(draws)
        }
        before, tables, deltas = evaluate(loaded, held, length=length), [], {}
        for name, units in arms.items():
            folder = out / name.replace(" ", "-")
            delta = deltas[name] = train(loaded, trained, units, settings, part=part, out=folder, resume=resume)
            with delta.applied(loaded):
                tables.append(difference(evaluate(loaded, held, length=length), before, seed=seed).assign(neurons=name))
            say(f"{name}: {delta.changed:,} of {delta.size:,} numbers changed; {folder}")
        table = pd.concat(tables, ignore_index=True)
        parameters = {
            "neurons": str(neurons),
            "neurons_hash": content_hash(list(map(list, sets[language]))),
            "language": language,
            "part": part,
            "draws": draws,
            **{name: getattr(settings, name) for name in ("rate", "epochs", "batch", "accumulation", "length")},
            "trained": {language: trained.facts()},
            "scored": {x: corpus.facts() for x, corpus in held.items()},
        }
        made = Run("enhance", parameters, describe(loaded), {x: c.facts() for x, c in texts.items()}, seed)
        save(table, out / "changes.parquet", made)
        print_table(
            "Change of NLL on held-out texts, nats per token (below zero is better)",
            ["trained", *held],
            [[name, *map(_cell, rows.to_dict("records"))] for name, rows in table.groupby("neurons", sort=False)],
        )
        if export is not None:
            if not exported:
                deltas["own"].export(loaded, export)
            say(f"the trained model: {export}{' (there already)' if exported else ''}")

    guarded(run, resumable=True)


def _exported(export: Path, model: Any, finished: Path | None) -> bool:
    """Whether `export` holds the trained model already; any other folder that is not empty is refused, before anything is trained.

    Args:
        export: Where the trained model is to be written.
        model: The one that is trained.
        finished: Where the delta of a run that is gone on with would be; None for a new run.
    """
    from ..models import fingerprint, load_model
    from ..plain import require_new
    from ..storage import load

    if finished is not None and finished.exists() and (export / "config.json").is_file():
        with load(finished).applied(model):
            trained = fingerprint(model)
        if fingerprint(load_model(str(export))) == trained:
            return True
    require_new(export, model.tokenizer)
    return False


def _cell(row: dict[str, Any]) -> str:
    return f"{row['change']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
