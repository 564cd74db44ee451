"""Drop experts from the matrices themselves: a smaller Hugging Face model, its folder, and its speed.

`sliced` makes a plain Hugging Face model in which every FFN keeps only the rows of W_gate and W_up (with biases) and the columns of W_down that
belong to kept experts. The sum over units loses exactly the terms that a mask makes zero, so

    logits(sliced) == logits(masked)       up to the order of summation; checked on a short text whenever one is made

A dropped unit's bias goes with it (a unit whose activation is a constant adds a constant, and zeroing removes that too); the bias of W_down stays.

Layers may differ in width, which a Hugging Face configuration cannot say. `export` therefore pads narrower layers with units whose weights are
all zero to the width of the widest, which changes no logit, and saves what the widest layer allows. Choose experts per layer
(`keep_by_rank(..., per_layer=True)`) where the folder's speed matters.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..plain import (
    change_units,
    ffns,
    fill,
    like,
    logits,
    plain_model,
    probe,
    require_equal,
    require_new,
    set_width,
    tensors_of,
    wider,
    write_folder,
)
from .partition import Partition
from .pruning import dropped, masked

TIMES = ("model", "tokens_per_second", "ratio", "ratio_low", "ratio_high", "rounds")
"""Columns of `tokens_per_second`."""


def sliced(
    model: Any,
    partition: Partition,
    keep: Bool[Tensor, "layer expert"],
    *,
    attention: Literal["eager", "sdpa"] = "eager",
) -> Any:
    """A new Hugging Face model that holds only the kept experts, with weights of its own.

    Args:
        model: What `load_model` returned; it is not changed, and no edit may be in force.
        partition: Which units make up an expert.
        keep: Experts that stay. A layer without any gets one unit whose weights are zero, as GPT-2's linear map cannot have none.
        attention: Kernel. `eager` is what TransformerLens runs; `sdpa` is faster; Hugging Face refuses it where it cannot (Gemma 2).

    Returns:
        A causal language model of the class `model` wraps, in eval mode, on its device and in its dtype; `ffn_widths` tells the sizes. To
        compare speed, slice with everything kept for the full model.

    Raises:
        ValueError: A partition of another model, `keep` of another shape, nothing kept, a model over several devices, or logits that differ
            from those of the masked model.
        NotImplementedError: A mixture of experts, quantised weights, or an FFN laid out in a way that is not known.
    """
    off = dropped(model, partition, keep).masks["ffn"]
    made = plain_model(model, attention)
    for ffn, gone in zip(ffns(made), off, strict=True):
        units = (~gone).nonzero().flatten().to(ffn.out.weight.device)
        change_units(ffn, lambda tensor, dim, units=units: tensor.index_select(dim, units))
        change_units(ffn, partial(wider, to=max(1, len(units))))
    set_width(made.config, max(ffn_widths(made)))
    ids = probe(made)
    with torch.no_grad(), masked(model, partition, keep):
        expected = model(ids)
    require_equal(logits(made, ids), expected, "the sliced model differs from the masked one")
    return made


def ffn_widths(sliced_model: Any) -> tuple[int, ...]:
    """Number of FFN units in each layer of a plain Hugging Face model.

    Raises:
        NotImplementedError: Its FFN is laid out in a way that is not known.
    """
    return tuple(ffn.width for ffn in ffns(sliced_model))


def export(sliced_model: Any, folder: str | Path, tokenizer: Any) -> Path:
    """Write a sliced model as a Hugging Face folder, which `AutoModelForCausalLM` and `load_model` read.

    Layers narrower than the widest are padded with units of weight zero. The folder is read back before it gets its name, and its logits
    compared, so a folder that exists is one that loads.

    Args:
        sliced_model: What `sliced` returned; it is not changed.
        folder: A folder that does not exist yet, or is empty.
        tokenizer: Written beside the model.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder holds something.
        NotImplementedError: The architecture fixes the FFN's width (BLOOM: 4 x d_model), so no folder can hold a narrower one.
        ValueError: What was read back gives other logits.
    """
    folder = require_new(folder, tokenizer)
    widest = max(ffn_widths(sliced_model))
    config = type(sliced_model.config).from_dict(sliced_model.config.to_dict())
    set_width(config, widest)
    kernel = sliced_model.config._attn_implementation
    padded = like(sliced_model, config, kernel)
    if set(needed := ffn_widths(padded)) != {widest}:
        raise NotImplementedError(
            f"{type(sliced_model).__name__} has FFNs of {needed[0]} units whatever its configuration says, so a folder cannot hold {widest}: "
            "use the sliced model in memory, or a mask"
        )
    fill(padded, tensors_of(sliced_model))
    for ffn in ffns(padded):
        change_units(ffn, partial(wider, to=widest))
    padded.generation_config = sliced_model.generation_config
    return write_folder(padded, folder, tokenizer, equal_to=sliced_model)


def tokens_per_second(
    models: Mapping[str, Callable[[Int[Tensor, "batch pos"]], Any]],
    tokens: Int[Tensor, "batch pos"],
    *,
    rounds: int = 5,
) -> pd.DataFrame:
    """Speed of models on one batch, taken in turns, so that whatever else the machine does meets all of them alike.

    Args:
        models: What is called with the tokens, by name; the first is what the others are compared with.
        tokens: Ids, on the device of the models.
        rounds: Counted rounds; one more goes before them and is not counted.

    Returns:
        Columns `TIMES`: median tokens per second; `ratio` to the first model, the median over rounds of the ratio within a round (above 1 is
        faster), with the smallest and largest round.

    Raises:
        ValueError: No model, no token, or fewer than 5 rounds.
    """
    if not models or not tokens.numel():
        raise ValueError("nothing to time: give models by name, and at least one token")
    if rounds < 5:
        raise ValueError(f"rounds={rounds}: the median of fewer than 5 says little; give 5 or more")
    wait = torch.cuda.synchronize if tokens.is_cuda else (lambda: None)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for number in range(rounds + 1):
            for name, run in models.items():
                wait()
                start = time.perf_counter()
                run(tokens)
                wait()
                if number:
                    seconds[name].append(time.perf_counter() - start)
    first = seconds[next(iter(models))]
    rows = []
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(first, taken, strict=True)]
        speed = tokens.numel() / statistics.median(taken)
        rows.append((name, speed, statistics.median(ratios), min(ratios), max(ratios), rounds))
    return pd.DataFrame(rows, columns=list(TIMES))
