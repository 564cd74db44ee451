"""What steered models write: responses, language accuracy with its price, damage elsewhere (Tang et al. 2024, Tables 4 and 5).

`steering_responses` lets a model continue prompts of each source language under every condition, one row a response; everything else is a pure
function of that table:

    none      nothing is changed
    off       the neurons of the prompt's language are off
    on        the neurons of the target language are on
    both      off, then on (the paper's cross-lingual setting)
    random    as `both`, with random neurons of the same count in every layer, and the target's values for them; `draws` of them

A response is in a language when the identifier says so of the whole text; an empty one is in none, a failure. `damage` scores held-out texts of every
language under the same edits: what is switched on for one language is paid for by others.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..corpora import Corpus, encode
from ..detect.chance import matched_random
from ..edits import Edit, applied
from ..measure import claim_folder
from ..models import describe, fingerprint
from ..neurons import NeuronSet
from ..progress import hidden
from ..storage import Run, content_hash, reuse, save
from ..writing.confusion import repetition, response_language
from ..writing.generate import fluency, generate
from ..writing.identify import Identifier, require_identifiable
from .switch import SITE, AnyMoments, own_units, require_same, steering_values, switch

CODE = "1"
"""Raised when a change of the code changes what a kept run holds."""

CONDITIONS = ("none", "off", "on", "both", "random")
DOSE = ("source", "target", "condition", "how", "value", "strength", "phase", "off_value", "draw")
RESPONSES = (*DOSE, "prompt", "text", "finished", "tokens", "identified", "nll", "repetition")
"""Columns of `steering_responses`: `nll` is the mean per new token under the unsteered model, in nats."""


@dataclass(frozen=True)
class Dose:
    """How neurons are switched on and off."""

    how: str = "replace"
    """`replace` or `add`."""
    value: str = "mean"
    """`mean`, `firing` or `contrast` (`steering_values`)."""
    strength: float = 1.0
    """Factor on the values."""
    phase: str = "all"
    """`all`, `prompt` or `new` positions."""
    off_value: float = 0.0
    """act(gate) of neurons that are off."""


@dataclass(frozen=True)
class Cell:
    """One run: whose prompts, which edits."""

    source: str
    target: str
    condition: str
    draw: int
    dose: Dose
    edits: tuple[Edit, ...]
    units: tuple[NeuronSet, ...]
    values: Tensor | None = None


def steering_cells(
    model: Any,
    pairs: Sequence[tuple[str, str]],
    sets: Mapping[str, NeuronSet],
    moments: Mapping[str, AnyMoments],
    conditions: Sequence[str],
    doses: Sequence[Dose],
    draws: int,
    seed: int,
    given: Mapping[str, Tensor] | None = None,
) -> Iterator[Cell]:
    """Every run that is needed; without neurons to switch, the pair and the dose do not matter, and it is run once a source."""
    if unknown := [name for name in conditions if name not in CONDITIONS]:
        raise ValueError(f"unknown condition {unknown[0]!r}: choose from {', '.join(CONDITIONS)}")
    if not doses or draws < 0 or ("random" in conditions and not draws):
        raise ValueError(
            f"{len(doses)} doses and draws={draws}: give at least one dose, and a draw for the condition 'random'"
        )
    for language, stat in moments.items():
        require_same(model, stat, f"the moments of {language!r}")
    units = own_units(sets, dict.fromkeys(language for pair in pairs for language in pair), model)
    for source in dict.fromkeys(source for source, _ in pairs):
        if "none" in conditions:
            yield Cell(source, "", "none", -1, Dose("", "", 0.0, ""), (), ())
        for phase, off_value in (
            dict.fromkeys((dose.phase, dose.off_value) for dose in doses) if "off" in conditions else ()
        ):
            edits = switch(off=units[source], off_value=off_value, phase=phase)
            yield Cell(source, "", "off", -1, Dose("", "", 0.0, phase, off_value), edits, (units[source],))
    for (source, target), dose in product(pairs, doses):
        values = steering_values(moments, target, dose.value) if given is None else _of_target(given, target)

        def put(on: NeuronSet, off: NeuronSet | None, values: Tensor = values, dose: Dose = dose) -> tuple[Edit, ...]:
            chosen = {name: value for name, value in asdict(dose).items() if name != "value"}
            return switch(on=on, values=values, off=off, **chosen)

        if "on" in conditions:
            yield Cell(source, target, "on", -1, dose, put(units[target], None), (units[target],), values)
        if "both" in conditions:
            yield Cell(
                source,
                target,
                "both",
                -1,
                dose,
                put(units[target], units[source]),
                (units[target], units[source]),
                values,
            )
        for draw in range(draws if "random" in conditions else 0):
            generator = torch.Generator().manual_seed(int(content_hash(seed, source, target, draw)[:8], 16))
            on, off = (matched_random(units[name], generator=generator) for name in (target, source))
            yield Cell(source, target, "random", draw, dose, put(on, off), (on, off), values)


def openings(model: Any, corpus: Corpus, *, tokens: int = 12) -> list[str]:
    """The first words of each document as prompts of exactly `tokens` tokens (BOS included), so that they share batches.

    Documents whose opening does not survive being written out and read again are left out.

    Raises:
        ValueError: No document has such an opening, or `tokens` is below 2.
    """
    if tokens < 2:
        raise ValueError(f"tokens={tokens}: a prompt needs at least 2, BOS and a word")
    rows, _ = encode(corpus, model)
    tokenizer = model.tokenizer
    texts = [tokenizer.decode(row[:tokens], skip_special_tokens=True).rstrip() for row in rows if len(row) > tokens]
    found = (
        [text for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True) if len(ids) == tokens]
        if texts
        else []
    )
    if not found:
        raise ValueError(
            f"no document of {corpus.language!r} opens with {tokens} tokens: give longer documents, or ask for fewer tokens"
        )
    return found


def steering_responses(
    model: Any,
    prompts: Mapping[str, Sequence[str]],
    sets: Mapping[str, NeuronSet],
    moments: Mapping[str, AnyMoments],
    identifier: Identifier,
    *,
    targets: Sequence[str] | None = None,
    conditions: Sequence[str] = CONDITIONS,
    doses: Sequence[Dose] = (Dose(),),
    values: Mapping[str, Tensor] | None = None,
    draws: int = 3,
    max_new_tokens: int = 48,
    repetition_penalty: float = 1.1,
    stop: Sequence[str] = (),
    seed: int = 0,
    size: int = 16,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Continue prompts under every condition.

    Args:
        model: What `load_model` returned.
        prompts: Per source language.
        sets: Neurons per language, of the FFN only (`.only(sites=["ffn"])`).
        moments: Per language, of site `ffn_act`, on texts that are neither prompts nor scored.
        identifier: Names the language of a response.
        targets: Languages to switch on; default all of `sets`. A language is not steered towards itself.
        conditions: Of `CONDITIONS`.
        doses: How neurons are switched; `off` is run once for each phase and `off_value` of theirs.
        values: Per target, values of your own [layer, width] (such as `quantile_values`) in place of the doses' kind, which is then a label.
        draws: Random sets for `random`.
        max_new_tokens: To write at most.
        repetition_penalty: 1.1 in the paper; 1 for none.
        stop: Strings at which a response ends.
        seed: Of the random sets.
        size: Prompts per batch.
        out: Folder in which every finished run is kept.
        resume: Use the finished runs in `out`.
        progress: Show a progress bar.

    Returns:
        Columns `RESPONSES`, a row a response. Rows of `none` and `off` have no target.

    Raises:
        ValueError: A language has no neurons or moments, the identifier does not know it, or a choice is unknown.
        FileExistsError: `out` holds another run, or this one and `resume` is False.
    """
    from tqdm.auto import tqdm

    pairs = [(source, target) for source in prompts for target in targets or sets if target != source]
    if not pairs:
        raise ValueError(
            f"nothing to steer: prompts in {', '.join(prompts) or 'no language'}, targets {', '.join(targets or sets) or 'none'}"
        )
    for language in dict.fromkeys(language for pair in pairs for language in pair):
        require_identifiable(identifier, language)
    cells = list(steering_cells(model, pairs, sets, moments, conditions, doses, draws, seed, values))
    basis = {
        "method": "steering", "model": fingerprint(model), "prompts": {x: list(p) for x, p in prompts.items()},
        "max_new_tokens": max_new_tokens, "repetition_penalty": repetition_penalty, "stop": list(stop), "size": size,
        "identifier": re.sub(r" at 0x[0-9a-f]+", "", repr(identifier)), "code": CODE,
    }  # fmt: skip
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, basis, resume=resume, claim="steering.json")
    tables = []
    with tqdm(cells, unit="run", desc="steering", disable=hidden(progress)) as bar:
        for cell in bar:
            bar.set_postfix_str(f"{cell.source} to {cell.target or '-'} {cell.condition}")
            key = content_hash(
                basis, cell.source, cell.target, cell.condition, cell.draw, asdict(cell.dose), *_content(cell)
            )
            path = None if folder is None else folder / "responses" / f"{key}.parquet"
            rows = reuse(path, key, "writing these responses again")
            if rows is None:
                rows = _write(
                    model, prompts[cell.source], cell, max_new_tokens, repetition_penalty, stop, size, identifier
                )
                if path is not None:
                    save(rows, path, Run("steering", {"key": key}, describe(model)))
            tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def _content(cell: Cell) -> Iterator[Any]:
    for units in cell.units:
        yield np.packbits(units.masks[SITE].numpy()).tobytes()
    if cell.values is not None:
        yield cell.values.float().cpu().numpy().tobytes()


def _of_target(given: Mapping[str, Tensor], target: str) -> Tensor:
    if target not in given:
        raise ValueError(f"values are given for {', '.join(given) or 'no language'}, not for the target {target!r}")
    return given[target]


def _write(
    model: Any, prompts: Sequence[str], cell: Cell, max_new_tokens: int, penalty: float, stop: Sequence[str], size: int,
    identifier: Identifier,
) -> pd.DataFrame:  # fmt: skip
    """One row a prompt."""
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "repetition_penalty": penalty,
        "stop": stop,
        "size": size,
    }
    if cell.edits:
        with applied(model, *cell.edits):
            written = generate(model, prompts, **settings)
    else:
        written = generate(model, prompts, **settings)
    dose = cell.dose
    label = (cell.source, cell.target, cell.condition, *astuple(dose), cell.draw)
    rows = [
        (
            *label,
            i,
            made.text,
            made.finished,
            len(made.ids),
            response_language(made.text, identifier),
            nll,
            repetition(made.text),
        )
        for i, (made, nll) in enumerate(zip(written, fluency(model, written, size=size).tolist(), strict=True))
    ]
    return pd.DataFrame(rows, columns=list(RESPONSES))
