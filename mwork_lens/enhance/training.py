"""Train the slices of a set of neurons on documents, and nothing else.

Hugging Face's Trainer runs a module whose only parameters are the slices, in float32: its forward puts them into the plain model's matrices
(`index_copy`, differentiable) and calls the model. So weight decay, gradient clipping, the optimiser's state, and checkpoints see the slices alone,
and what lies outside cannot move. The released code does otherwise: it trains the whole model and zeroes gradients after clipping by the norm of all
of them, so that its steps are smaller than its settings say, and weight decay would move what it means to keep.

In bfloat16 a step of 2e-6 is far below the spacing of the weights. The slices are therefore kept in float32 while they are trained, and rounded once,
at the end; `Delta.changed` counts what then differs.

Dropout stays off: the model is run as it is analysed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ..corpora import Corpus, Tokens, batches, encode, warn_truncated
from ..plain import tensors_of
from ..progress import hidden
from ..tokens import pad
from .slices import Place, Slice


@dataclass(frozen=True)
class Training:
    """How to train. The defaults are the paper's, as far as its code tells."""

    rate: float = 2e-6
    """Peak learning rate of AdamW."""
    epochs: int | float = 1
    """Passes over the documents."""
    batch: int = 8
    """Documents per forward."""
    accumulation: int = 4
    """Forwards per step."""
    schedule: str = "cosine"
    """Of the rate after the warm-up: a name of Hugging Face's schedules."""
    warmup: float = 0.05
    """Share of the steps."""
    weight_decay: float = 0.0
    """Of AdamW; it pulls the slices towards zero, and sees nothing else."""
    clip: float = 0.3
    """Largest norm of the gradient of the slices."""
    length: int = 512
    """Tokens per document at most, BOS included."""
    seed: int = 0
    """Of the order of the documents."""
    save_every: int = 50
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("rate", "epochs", "clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name}={getattr(self, name)}: give a positive number")
        for name in ("batch", "accumulation", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup} is a share of the steps: give a number from 0 to below 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay={self.weight_decay}: give a number of at least 0")


class NotFinite(ValueError):
    """A loss, or what a step left, was NaN or infinite; `Slices` are back at the last state whose loss was a number."""


def fit(
    module: nn.Module, plain: Any, model: Any, corpus: Corpus, training: Training, *,
    held_out: Mapping[str, Corpus] | None = None, baseline: bool = True, out: Path | None = None, progress: bool = True,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train the parameters of a module that need gradients, with Hugging Face's Trainer: what the slices, and the baselines of a study, share.

    Args:
        module: Called like a Hugging Face causal model; returns an output with a `loss`.
        plain: The model inside it, for its device.
        model: What `load_model` returned, for its tokenizer.
        corpus: Documents.
        training: Settings.
        held_out: Documents by language, evaluated before, at checkpoints, and after.
        baseline: Evaluate them before the first step; False where that is known, as for many runs from one model.
        out: Folder for checkpoints; one there is gone on with.
        progress: Show a bar.

    Returns:
        The log: step, loss, and NLL per language.

    Raises:
        NotFinite: The loss is NaN or infinite.
    """
    from transformers.trainer_utils import get_last_checkpoint

    encoded, truncated = encode(corpus, model, length=training.length)
    warn_truncated(truncated, len(corpus), corpus.language)
    texts = {
        name: list(batches(one, model, size=training.batch, length=training.length))
        for name, one in (held_out or {}).items()
    }
    with TemporaryDirectory() as temporary:
        place = Path(temporary) if out is None else out / "checkpoints"
        trainer = _trainer(
            module,
            plain,
            model,
            encoded,
            training,
            texts,
            place,
            baseline=baseline,
            keep=out is not None,
            progress=progress,
        )
        last = get_last_checkpoint(str(place)) if place.is_dir() else None
        trainer.train(resume_from_checkpoint=last)
        if not all(bool(torch.isfinite(p).all()) for p in module.parameters() if p.requires_grad):
            trainer.put_back(f"step {trainer.state.global_step} left a number that is NaN or infinite")
        return [row for row in trainer.state.log_history if "loss" in row or "nll" in row]


class Slices(nn.Module):
    """A plain model whose only parameters are slices of its matrices, in float32."""

    def __init__(self, plain: Any, slices: tuple[Slice, ...], places: Mapping[str, Place]) -> None:
        super().__init__()
        self._plain = [plain.requires_grad_(False)]  # in a list: its weights are not this module's
        tensors = tensors_of(plain)
        self.names = {one.key: one.key.replace(".", "_") for one in slices}
        self.places: list[tuple[str, str, int, Tensor]] = []
        values: dict[str, nn.Parameter] = {}
        for one in slices:
            name, dim, at = places[one.key]
            chosen = at[one.units].to(tensors[name].device)
            held = tensors[name].detach().index_select(dim, chosen)
            values[self.names[one.key]] = nn.Parameter((held.T if dim else held).float().contiguous().clone())
            self.places.append((name, self.names[one.key], dim, chosen))
        self.values = nn.ParameterDict(values)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **loss: Any) -> Any:
        """The plain model's output with the slices in place."""
        plain = self._plain[0]
        held: dict[str, Tensor] = tensors_of(plain)
        changed: dict[str, Tensor] = {}
        for name, key, dim, index in self.places:
            whole = changed.get(name, held[name])
            new = self.values[key].to(whole.dtype)
            changed[name] = whole.index_copy(dim, index, new.T if dim else new)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, "use_cache": False, **loss}
        return torch.func.functional_call(plain, changed, (), given)


def _trainer(
    module: nn.Module, plain: Any, model: Any, encoded: list[list[int]], training: Training, texts: Mapping[str, list[Tokens]],
    place: Path, *, baseline: bool, keep: bool, progress: bool,
) -> Any:  # fmt: skip
    from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

    bos = model.tokenizer.bos_token_id

    class Stopping(Trainer):
        """Stops where a loss is not a number, and puts back the last slices that gave one."""

        good: tuple[int, dict[str, Tensor]] | None = None

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
            loss = super().training_step(model, inputs, num_items_in_batch)
            step = self.state.global_step
            if not bool(torch.isfinite(loss)):
                self.put_back(f"step {step + 1}: the loss is {float(loss)}")
            if isinstance(module, Slices) and (self.good is None or self.good[0] != step):
                self.good = step, {name: value.detach().clone() for name, value in module.state_dict().items()}
            return loss

        def put_back(self, why: str) -> None:
            if not isinstance(module, Slices):
                raise NotFinite(why)
            if self.good is None:
                raise NotFinite(f"{why}, before anything was trained")
            module.load_state_dict(self.good[1])
            raise NotFinite(f"{why}, so the slices are as after step {self.good[0]}")

    class Watch(TrainerCallback):
        """NLL per token of held-out documents: before, at every checkpoint, and after."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if baseline and state.global_step == 0:
                self._measure(state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % training.save_every == 0 or state.global_step == state.max_steps:
                self._measure(state)

        def _measure(self, state: Any) -> None:
            if texts:
                state.log_history.append(
                    {"step": state.global_step, "nll": {k: _nll(module, v, plain.device) for k, v in texts.items()}}
                )

    class Bar(ProgressCallback):
        """The bar alone: the log is kept, not printed."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            pass

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        tokens = pad([row["ids"] for row in rows], "", [""] * len(rows), bos=bos)
        return {
            "input_ids": tokens.ids,
            "attention_mask": tokens.mask.long(),
            "labels": tokens.ids.masked_fill(~tokens.keep, -100),
        }

    settings = TrainingArguments(
        output_dir=str(place), per_device_train_batch_size=training.batch, gradient_accumulation_steps=training.accumulation,
        learning_rate=training.rate, num_train_epochs=training.epochs, lr_scheduler_type=training.schedule, warmup_steps=training.warmup,
        weight_decay=training.weight_decay, max_grad_norm=training.clip, seed=training.seed, data_seed=training.seed,
        logging_steps=1, save_strategy="steps" if keep else "no", save_steps=training.save_every, save_total_limit=1, eval_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=plain.device.type == "cpu", dataloader_pin_memory=False, remove_unused_columns=False,
        logging_nan_inf_filter=False,
    )  # fmt: skip
    data: Any = [{"ids": ids} for ids in encoded]
    trainer = Stopping(module, settings, collate, data, callbacks=[Watch(), *([] if hidden(progress) else [Bar()])])
    trainer.remove_callback(PrinterCallback)  # what Hugging Face has where its own bar is off
    return trainer


@torch.no_grad()
def _nll(module: nn.Module, texts: list[Tokens], device: Any) -> float:
    """Mean NLL per kept token."""
    total, count = 0.0, 0
    for tokens in texts:
        ids, mask = tokens.ids.to(device), tokens.mask.to(device)
        labels = ids.masked_fill(~tokens.keep.to(device), -100)
        scored = int((labels[:, 1:] != -100).sum())
        total += float(module(input_ids=ids, attention_mask=mask.long(), labels=labels).loss) * scored
        count += scored
    return total / max(count, 1)
