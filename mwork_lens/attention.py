"""What one layer's attention computed on one document, taken apart and checked.

    q, k  --norm-->  --rotate-->  q_rot, k_rot        norm: RMS or layer norm, per head or across heads (Qwen3, Gemma3, OLMo2, Cohere)
    X = scale * q_rot k_rot^T                         k_rot of the group's key/value head
    S = cap * tanh(X / cap) + bias                    cap: Gemma2's soft-cap; bias: causal or sliding mask, ALiBi
    A = softmax(S),  z = A v,  out = z W_O + b_O

Closed forms for "what if this unit of q or k were zero" need these parts exactly, and architectures differ in all of them. So nothing is
assumed: the parts are read from the model, X, A and z are recomputed from them, and a layer whose own scores, pattern or z are not
reproduced is refused. Rotary conventions (half-split, adjacent pairs) are told apart by which one reproduces the scores.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .sites import blocks, delegates_attention, has_hook, heads

Norm = Callable[[Tensor, int | None], Tensor]

_MASKED = {torch.float16: -2e4}
"""Scores below this are a mask, not a bias (float16 masks with its smallest number, -65504); elsewhere no bias reaches -1e9."""


@dataclass(frozen=True)
class Rotation:
    """A rotary embedding as a sparse linear map: `out[c] = x[c] own[c] + x[partner[c]] cross[partner[c]]`."""

    own: Float[Tensor, "pos d_head"]
    """What a coordinate contributes to itself (cosine; 1 where nothing is rotated)."""
    cross: Float[Tensor, "pos d_head"]
    """What a coordinate contributes to its partner (plus or minus sine; 0 where nothing is rotated)."""
    partner: Int[Tensor, " d_head"]
    """The other coordinate of the pair; itself where nothing is rotated."""

    def __call__(self, x: Float[Tensor, "*axes pos d_head"]) -> Float[Tensor, "*axes pos d_head"]:
        """Rotate."""
        return x * self.own + (x * self.cross)[..., self.partner]

    @classmethod
    def of(
        cls, cos: Float[Tensor, "pos rotary"], sin: Float[Tensor, "pos rotary"], d_head: int, pairs: str
    ) -> "Rotation":
        """From the model's cosine and sine tables, for one of the pairings in `PAIRINGS`."""
        rotary = cos.shape[-1]
        if pairs == "adjacent, halved tables":  # GLM, ERNIE: one entry per pair, stored as two halves
            cos, sin = (table[:, : rotary // 2].repeat_interleave(2, dim=-1) for table in (cos, sin))
        index = torch.arange(rotary, device=cos.device)
        first = index < rotary // 2 if pairs == "half-split" else index % 2 == 0
        step = rotary // 2 if pairs == "half-split" else 1
        partner = torch.where(first, index + step, index - step)
        cross = torch.where(first, sin[:, partner], -sin[:, partner])
        passed = torch.arange(rotary, d_head, device=cos.device)
        ones = torch.ones(cos.shape[0], len(passed), device=cos.device, dtype=cos.dtype)
        return cls(torch.cat([cos, ones], -1), torch.cat([cross, 0 * ones], -1), torch.cat([partner, passed]))


PAIRINGS = ("half-split", "adjacent", "adjacent, halved tables")


@dataclass(frozen=True)
class Attention:
    """One layer's attention on one document, in float32."""

    layer: int
    q: Float[Tensor, "head pos d_head"]
    """As projected: before norm and rotation, bias included."""
    k: Float[Tensor, "kv pos d_head"]
    v: Float[Tensor, "kv pos d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    scale: float
    cap: float | None
    """Soft-cap of the scores, or None."""
    bias: Float[Tensor, "head pos pos"]
    """Added after the cap; minus infinity where a key is masked."""
    rotation: Rotation | None
    q_norm: Norm | None
    """Maps [... head d_head], of all heads (None) or of the one named, to the same shape; None where the model has none."""
    k_norm: Norm | None
    norm_joins_heads: bool
    """True if the norm runs over all heads at once, so that one unit touches every head."""

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.q.shape[0] // self.k.shape[0]

    def turn(self, x: Tensor, norm: Norm | None, head: int | None = None) -> Tensor:
        """Norm and rotation of [... head pos d_head]: of all heads, or of the one named (then of length 1)."""
        if norm is not None:
            normed = norm(rearrange(x, "... head pos d_head -> ... pos head d_head"), head)
            x = rearrange(normed, "... pos head d_head -> ... head pos d_head")
        return x if self.rotation is None else self.rotation(x)

    @cached_property
    def q_rot(self) -> Float[Tensor, "head pos d_head"]:
        """Queries as they meet the keys."""
        return self.turn(self.q, self.q_norm)

    @cached_property
    def k_rot(self) -> Float[Tensor, "kv pos d_head"]:
        """Keys as they meet the queries."""
        return self.turn(self.k, self.k_norm)

    @cached_property
    def raw(self) -> Float[Tensor, "head pos pos"]:
        """X: scores before cap and bias."""
        keys = self.k_rot.repeat_interleave(self.group, dim=0)
        return self.scale * einsum(self.q_rot, keys, "head i d_head, head j d_head -> head i j")

    def scores(self, raw: Tensor, head: int | None = None) -> Tensor:
        """S from X, for all heads or one."""
        capped = raw if self.cap is None else self.cap * torch.tanh(raw / self.cap)
        return capped + (self.bias if head is None else self.bias[head])

    @cached_property
    def pattern(self) -> Float[Tensor, "head pos pos"]:
        """A, recomputed in float32."""
        return torch.softmax(self.scores(self.raw), dim=-1)

    @cached_property
    def reach(self) -> list[tuple[list[int], list[int]]]:
        """Per head: the first key that each query sees, and one past the last."""
        allowed = torch.isfinite(self.bias)
        first = allowed.int().argmax(2) * allowed.any(2)
        last = allowed.shape[2] - allowed.flip(2).int().argmax(2)
        return list(zip(first.tolist(), last.tolist(), strict=True))

    @cached_property
    def z(self) -> Float[Tensor, "head pos d_head"]:
        """A v."""
        return self.pattern @ self.v.repeat_interleave(self.group, dim=0)


def wanted(model: Any, layer: int = 0) -> tuple[str, ...]:
    """The sites and observation points `of_layer` needs of a model."""
    rotary = [name for name in ("cos", "sin") if has_hook(model, name, layer)]
    return ("q", "k", "v", "z", "pattern", "scores", *rotary)


def of_layer(model: Any, layer: int, captured: Mapping[str, Tensor]) -> Attention:
    """Assemble and check one layer's attention from what `capture` delivered for a batch of one document.

    Raises:
        NotImplementedError: The parts do not reproduce the model's own scores, pattern and z.
    """
    attn, shape = blocks(model)[layer].attn, heads(model, layer)
    split = {
        s: rearrange(captured[s][0].float(), "pos (head d) -> head pos d", d=shape.d_head) for s in ("q", "k", "v", "z")
    }
    original = attn.original_component
    common = {
        "layer": layer, "q": split["q"], "k": split["k"], "v": split["v"], "W_O": attn.W_O.detach().float(),
        "scale": float(getattr(original, "scaling", None) or shape.d_head**-0.5),
        "cap": getattr(original, "attn_logit_softcapping", None),
        "q_norm": _norm(attn, "q_norm", shape.d_head), "k_norm": _norm(attn, "k_norm", shape.d_head),
        "norm_joins_heads": _joins_heads(attn, shape),
    }  # fmt: skip
    dtype = next(model.parameters()).dtype
    masked = captured["scores"][0] < _MASKED.get(dtype, -1e9)
    captured_scores = captured["scores"][0].float()
    pattern = captured["pattern"][0].float()
    low = dtype in (torch.bfloat16, torch.float16)
    readings: dict[str, tuple[float, Attention]] = {}
    for name, rotation in _rotations(captured, shape.d_head):
        blank = Attention(**common, bias=torch.zeros_like(pattern), rotation=rotation)
        if delegates_attention(model, layer):  # its "scores" are the pattern: only the mask can be read off
            bias, error = torch.zeros_like(pattern).masked_fill(pattern == 0, float("-inf")), 0.0
        else:
            bias, error = _bias(captured_scores, blank.scores(blank.raw), masked, alibi=rotation is None)
        found = Attention(**common, bias=bias, rotation=rotation)
        error = max(error, float((found.pattern - pattern).abs().max()), _relative(found.z, split["z"]))
        readings[name] = error, found
    error, best = min(readings.values(), key=lambda reading: reading[0])
    if error <= (0.1 if low else 2e-3):
        return best
    raise NotImplementedError(
        f"the attention of layer {layer} ({type(original).__name__}) is not reproduced from its q, k and v: off by "
        + ", ".join(f"{error:.2g} ({name})" for name, (error, _) in readings.items())
        + ". Importances of its q and k neurons would be wrong; ask for sites=('ffn', 'v', 'z') only"
    )


def _rotations(captured: Mapping[str, Tensor], d_head: int) -> Iterator[tuple[str, Rotation | None]]:
    if "cos" not in captured:
        yield "no rotary embedding", None
        return
    cos, sin = captured["cos"][0].float(), captured["sin"][0].float()
    for pairs in PAIRINGS:
        yield pairs, Rotation.of(cos, sin, d_head, pairs)


def _bias(
    scores: Float[Tensor, "head i j"], ours: Float[Tensor, "head i j"], masked: Bool[Tensor, "head i j"], *, alibi: bool
) -> tuple[Tensor, float]:
    """(what the model adds to our scores, how much of it is neither mask nor ALiBi).

    ALiBi, where there is no rotary embedding, adds f(key) + g(query) per head, and g cancels in the softmax; anything else means that our
    scores are wrong.
    """
    added = (scores - ours).masked_fill(masked, 0.0)
    rest = added
    if alibi:
        rest = added - added[:, -1:, :]  # the last query sees every key (under a sliding window: the last ones)
        rest = rest - rest.diagonal(dim1=1, dim2=2)[..., None]  # what remains once g(query) is taken out
        rest = rest.masked_fill(masked | masked[:, -1:, :], 0.0)
    size = 1.0 + float(ours.masked_fill(masked, 0.0).abs().max())
    if float(added.abs().max()) <= 1e-4 * size:
        added = torch.zeros_like(added)
    return added.masked_fill(masked, float("-inf")), float(rest.abs().max()) / size


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))


def _joins_heads(attn: Any, shape: Any) -> bool:
    norm = getattr(attn, "q_norm", None)
    weight = getattr(getattr(norm, "original_component", norm), "weight", None)
    return weight is not None and weight.ndim == 1 and weight.numel() == shape.query * shape.d_head != shape.d_head


def _norm(attn: Any, name: str, d_head: int) -> Norm | None:
    module = getattr(attn, name, None)
    module = getattr(module, "original_component", module)
    if module is None or isinstance(module, torch.nn.Identity):
        return None
    weight = getattr(module, "weight", None)
    if weight is not None and weight.ndim == 1 and weight.numel() != d_head:  # one norm over all heads: OLMo2

        def over_all_heads(x: Tensor, head: int | None) -> Tensor:
            flat = rearrange(x, "... head d_head -> ... (head d_head)")
            return rearrange(module(flat).to(x.dtype), "... (head d_head) -> ... head d_head", d_head=d_head)

        return over_all_heads
    if weight is not None and weight.ndim == 2:  # a gain of its own per head: Cohere

        def with_gain_per_head(x: Tensor, head: int | None) -> Tensor:
            if head is None:
                return module(x).to(x.dtype)
            full = x.new_zeros(*x.shape[:-2], weight.shape[0], d_head)
            full[..., head, :] = x[..., 0, :]
            return module(full)[..., head : head + 1, :].to(x.dtype)

        return with_gain_per_head
    return lambda x, head: module(x).to(x.dtype)
