"""Can this model be measured here? `mwork-lens doctor --model X` asks before a long run does.

loads        offline, from what is on this machine
readout      a causal language model: logits do not depend on later tokens
parity       logits equal those of the plain Hugging Face model
padding      a document alone equals the same document in a batch, padded on the right and on the left
hooks        every hook point that the sites need is listed and fires, with the width of the weights
attention    scores, pattern and z are reproduced from q, k and v, so that importances of q and k are exact
memory       an estimate for weights, a forward and an importance pass
"""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from .attention import of_layer, wanted
from .capture import capture, forward
from .corpora import Tokens, context_length, pad
from .models import EMBEDDED_MODEL, describe, load_model, resolve
from .sites import SITES, heads, is_mixture_of_experts, n_layers, width

Verdict = Literal["ok", "limited", "failed"]

PROBE = ("The river is long and quiet.", "Am Morgen lag Schnee auf den Dächern der kleinen Stadt.", "今天下雨。")


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    name: str
    verdict: Verdict
    """`ok`; `limited`: some methods do not apply; `failed`: do not measure this model here."""
    detail: str


def doctor(name: Any = EMBEDDED_MODEL, *, tokenizer: Any = None, length: int = 256, **how: Any) -> list[Check]:
    """Examine a model.

    Args:
        name: As for `load_model`.
        tokenizer: With a live model.
        length: Tokens per document for the estimate of memory.
        how: `revision`, `dtype`, `device`, `device_map`, as for `load_model`.

    Returns:
        Checks in order. A model that does not load yields one failed check, a check that breaks is a failed one; nothing is raised.
    """
    live = isinstance(name, torch.nn.Module) and not hasattr(name, "hook_dict")
    plain = None
    try:
        if live:
            import copy

            plain = copy.deepcopy(name).eval()
        with _offline():
            model = load_model(name, tokenizer=tokenizer, **how)
    except Exception as error:
        return [Check("loads offline", "failed", f"{type(error).__name__}: {error}")]
    checks = []
    for check, make in {
        "loads offline": lambda: _loads(model),
        "tokens": lambda: _tokens(model),
        "readout": lambda: _readout(model),
        "parity with Hugging Face": lambda: _parity(model, name, plain, how),
        "batch equals single": lambda: _padding(model),
        "hook points": lambda: _hooks(model),
        "attention is understood": lambda: _attention(model),
        "memory, estimated": lambda: _memory(model, length),
    }.items():
        try:
            checks.append(make())
        except Exception as error:  # a check that breaks is an answer too
            checks.append(Check(check, "failed", f"{type(error).__name__}: {error}"))
    return checks


@contextmanager
def _offline() -> Any:
    """Ask the hub's own cache only."""
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _loads(model: Any) -> Check:
    facts = describe(model)
    sizes = f"{facts['parameters']:,} parameters, {facts['dtype']}, {facts['layers']} layers, context {context_length(model)}"
    return Check("loads offline", "ok", f"{facts['architecture']}, {sizes}")


def _tokens(model: Any) -> Check:
    first = model.tokenizer(PROBE[0])["input_ids"][:6]
    bos = "first" if first[0] == model.tokenizer.bos_token_id else "not added"
    return Check("tokens", "ok", f"first ids {first} = {model.tokenizer.convert_ids_to_tokens(first)}; BOS {bos}")


def _readout(model: Any) -> Check:
    """Another last token must leave the logits before it as they are."""
    tokens = _probe(model, left=False)[1][1]
    logits = forward(model, tokens)
    ids = tokens.ids.clone()
    ids[:, -1] = (ids[:, -1] + 1) % logits.shape[-1]
    gap = _gap(forward(model, replace(tokens, ids=ids))[:, :-1], logits[:, :-1])
    if gap <= min(_tolerance(model), 1e-2):
        return Check("readout", "ok", f"a causal language model: logits before a changed token move by {gap:.1e}")
    return Check(
        "readout",
        "failed",
        f"logits before a changed token move by {gap:.1e}: the model sees later tokens (an encoder); lens, evaluate and study "
        "need a causal decoder",
    )


def _sizes(model: Any) -> str:
    shape = heads(model, 0)
    ffn = "mixture of experts" if is_mixture_of_experts(model, 0) else f"d_mlp {width(model, 'ffn')}"
    return f"{shape.query} query and {shape.key_value} key/value heads of {shape.d_head}, {ffn}"


def _probe(model: Any, *, left: bool) -> tuple[Tokens, list[Tokens]]:
    """The probe texts as one padded batch, and one by one."""
    rows = [model.tokenizer(text)["input_ids"] for text in PROBE]
    bos = model.tokenizer.bos_token_id
    alone = [pad([row], "", [""], bos=bos) for row in rows]
    batch = pad(rows, "", [""] * len(rows), bos=bos)
    if left:
        flipped = [
            torch.stack([row.roll(int((~mask).sum())) for row, mask in zip(x, batch.mask, strict=True)])
            for x in (batch.ids, batch.keep, batch.mask)
        ]
        batch = Tokens(flipped[0], flipped[1], "", flipped[2])
    return batch, alone


def _parity(model: Any, name: Any, plain: Any, how: dict[str, Any]) -> Check:
    if plain is None:
        if hasattr(name, "hook_dict"):
            return Check(
                "parity with Hugging Face",
                "limited",
                "a TransformerLens model was given: there is no plain model to compare with",
            )
        from transformers import AutoModelForCausalLM

        with _offline():
            plain = AutoModelForCausalLM.from_pretrained(
                resolve(name),
                revision=how.get("revision"),
                dtype=next(model.parameters()).dtype,
                device_map=how.get("device_map"),
                attn_implementation="eager",
            ).eval()
        if how.get("device_map") is None:
            plain.to(next(model.parameters()).device)
    worst = 0.0
    for tokens in _probe(model, left=False)[1]:
        ids = tokens.ids.to(next(model.parameters()).device)
        with torch.no_grad():
            theirs = plain(ids).logits
        worst = max(worst, _gap(forward(model, tokens).to(theirs.device), theirs))
    return Check(
        "parity with Hugging Face",
        "ok" if worst <= _tolerance(model) else "failed",
        f"largest difference of logits {worst:.1e} of their size",
    )


def _padding(model: Any) -> Check:
    worst = {}
    for side in ("right", "left"):
        batch, alone = _probe(model, left=side == "left")
        logits = forward(model, batch)
        gaps = [
            _gap(logits[i][batch.mask[i].to(logits.device)], forward(model, tokens)[0])
            for i, tokens in enumerate(alone)
        ]
        worst[side] = max(gaps)
    tolerance = _tolerance(model)
    good = [side for side, gap in worst.items() if gap <= tolerance]
    verdict: Verdict = "ok" if len(good) == 2 else "limited" if "right" in good else "failed"
    return Check(
        "batch equals single",
        verdict,
        ", ".join(f"{side} padding off by {gap:.1e}" for side, gap in worst.items()) + "; mwork_lens pads right",
    )


def _tolerance(model: Any) -> float:
    """Largest difference of logits, relative to their size, that rounding explains."""
    return 5e-2 if next(model.parameters()).dtype != torch.float32 else 1e-4


def _gap(ours: Tensor, theirs: Tensor) -> float:
    gap = float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
    return gap if gap == gap else float("inf")  # NaN would lose every comparison


def _hooks(model: Any) -> Check:
    tokens = _probe(model, left=False)[1][0]
    good, bad = [], []
    for site in SITES:
        try:
            capture(model, tokens, [site], lambda layer, activations: None)
            good.append(site)
        except Exception as error:
            bad.append(f"{site} ({str(error).splitlines()[0][:160]})")
    needed = {"q", "k", "v", "z", "pattern", "ffn", "resid_pre", "resid_post"}
    detail = f"{_sizes(model)}; fire: {', '.join(good)}" + (f"; do not: {'; '.join(bad)}" if bad else "")
    return Check("hook points", "ok" if needed <= set(good) else "limited", detail)


def _attention(model: Any) -> Check:
    refused: list[str] = []

    def on_layer(layer: int, captured: Any) -> None:
        try:
            of_layer(model, layer, captured)
        except NotImplementedError as error:
            refused.append(str(error))

    capture(model, _probe(model, left=False)[1][1], wanted(model), on_layer)
    if refused:
        return Check(
            "attention is understood", "limited", f"{len(refused)} of {n_layers(model)} layers are not: {refused[0]}"
        )
    return Check(
        "attention is understood",
        "ok",
        f"scores, pattern and z of all {n_layers(model)} layers are reproduced from q, k and v",
    )


def _memory(model: Any, length: int) -> Check:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    shape, d_model = heads(model, 0), width(model, "resid_pre")
    item = next(model.parameters()).element_size()
    vocab = int(model.W_U.shape[1])
    ffn = 0 if is_mixture_of_experts(model, 0) else width(model, "ffn")
    batch = 16 * length * (
        vocab * (item + 4) + 6 * d_model * item + 2 * ffn * item
    ) + 16 * shape.query * length * length * (item + 4)
    document = 6 * 4 * shape.query * length * length + 4 * length * (12 * d_model + 4 * ffn) + (1 << 23)
    parts = {
        "weights": weights,
        f"a batch of 16 x {length} tokens": batch,
        f"importances of one document of {length} tokens": document,
    }
    return Check("memory, estimated", "ok", ", ".join(f"{what} {_bytes(size)}" for what, size in parts.items()))


def _bytes(size: int | float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
