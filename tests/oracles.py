"""Slow, obvious re-implementations that share no code with the package: they read Hugging Face models and plain lists."""

import copy
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch


def hf_blocks(hf: Any) -> Any:
    """The list of blocks of a plain Hugging Face model."""
    for path in ("model.layers", "transformer.h", "gpt_neox.layers"):
        node = hf
        for name in path.split("."):
            node = getattr(node, name, None)
            if node is None:
                break
        if node is not None:
            return node
    raise AssertionError(type(hf))


def _rows(weight: Any, bias: Any, rows: list[int]) -> list[Any]:
    return [(weight, (rows,))] + ([] if bias is None else [(bias, (rows,))])


def slices(hf: Any, site: str, layer: int, unit: int) -> list[Any]:
    """(parameter, index) pairs whose zeroing makes the unit's own output zero: weight row and bias."""
    block, config = hf_blocks(hf)[layer], hf.config
    family = config.model_type
    n_heads = config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    if family == "gpt2":
        d = config.n_embd
        if site in "qkv":
            column = "qkv".index(site) * d + unit
            return [(block.attn.c_attn.weight, (slice(None), column)), (block.attn.c_attn.bias, (column,))]
        if site == "z":
            return [(block.attn.c_proj.weight, (unit,))]
        return [(block.mlp.c_fc.weight, (slice(None), unit)), (block.mlp.c_fc.bias, (unit,))]
    if family in ("bloom", "gpt_neox"):
        attn = block.self_attention if family == "bloom" else block.attention
        if site in "qkv":
            head, coordinate = divmod(unit, d_head)
            row = (head * 3 + "qkv".index(site)) * d_head + coordinate
            return _rows(attn.query_key_value.weight, attn.query_key_value.bias, [row])
        if site == "z":
            return [(attn.dense.weight, (slice(None), unit))]
        return _rows(block.mlp.dense_h_to_4h.weight, block.mlp.dense_h_to_4h.bias, [unit])
    attn = block.self_attn
    if family == "phi3" and site in "qkv":
        n_kv = config.num_key_value_heads
        offset = {"q": 0, "k": n_heads * d_head, "v": (n_heads + n_kv) * d_head}[site]
        return _rows(attn.qkv_proj.weight, attn.qkv_proj.bias, [offset + unit])
    if site in "qkv":
        projection = getattr(attn, f"{site}_proj")
        return _rows(projection.weight, projection.bias, [unit])
    if site == "z":
        return [(o_projection(hf, layer).weight, (slice(None), unit))]
    if family == "phi3":
        return [(block.mlp.gate_up_proj.weight, ([config.intermediate_size + unit],))]
    if family == "xglm":
        return _rows(block.fc1.weight, block.fc1.bias, [unit])
    return _rows(block.mlp.up_proj.weight, block.mlp.up_proj.bias, [unit])


def o_projection(hf: Any, layer: int) -> Any:
    block = hf_blocks(hf)[layer]
    family = hf.config.model_type
    if family == "gpt2":
        return block.attn.c_proj
    if family == "bloom":
        return block.self_attention.dense
    if family == "gpt_neox":
        return block.attention.dense
    return getattr(block.self_attn, "o_proj", None) or block.self_attn.out_proj


def down_projection(hf: Any, layer: int) -> Any:
    block = hf_blocks(hf)[layer]
    family = hf.config.model_type
    if family == "gpt2":
        return block.mlp.c_proj
    if family in ("bloom", "gpt_neox"):
        return block.mlp.dense_4h_to_h
    return block.fc2 if family == "xglm" else block.mlp.down_proj


def attention_module(hf: Any, layer: int) -> Any:
    block = hf_blocks(hf)[layer]
    return getattr(
        block,
        {"gpt2": "attn", "bloom": "self_attention", "gpt_neox": "attention"}.get(hf.config.model_type, "self_attn"),
    )


@contextmanager
def zeroed(places: list[Any]) -> Any:
    """Zero the given slices of parameters, put them back bit for bit."""
    kept = [(parameter, index, parameter.data[index].clone()) for parameter, index in places]
    for parameter, index in places:
        parameter.data[index] = 0.0
    try:
        yield
    finally:
        for parameter, index, before in kept:
            parameter.data[index] = before


def observe(hf: Any, ids: Any, layer: int) -> dict[str, Any]:
    """Raw outputs of W_O and W_down, and the attention weights, of a layer of a plain model in float64."""
    seen: dict[str, Any] = {}
    # float64 throughout: transformers' eager attention computes its softmax in float32 otherwise
    handles = [
        o_projection(hf, layer).register_forward_hook(lambda m, a, out: seen.__setitem__("attn", out.detach().clone())),
        down_projection(hf, layer).register_forward_hook(
            lambda m, a, out: seen.__setitem__("ffn", out.detach().clone())
        ),
        attention_module(hf, layer).register_forward_hook(
            lambda m, a, out: seen.__setitem__("pattern", out[1].detach().clone())
        ),
    ]
    try:
        with torch.no_grad():
            hf(ids, output_attentions=True)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def brute_force(
    hf: Any, ids: Any, site: str, layer: int, unit: int, *, seen: dict[str, Any] | None = None
) -> dict[str, float]:
    """Importance of one unit by really zeroing its weights: change of the sub-layer's output and of the attention weights.

    The input of layer `layer` does not depend on its own weights, so a whole forward gives "the same input".
    """
    before = seen or observe(hf, ids, layer)
    with zeroed(slices(hf, site, layer, unit)):
        after = observe(hf, ids, layer)
    what = "ffn" if site == "ffn" else "attn"
    change = (after[what] - before[what]).double().norm().item()
    pattern = (after["pattern"] - before["pattern"]).double().norm().item() if site in ("q", "k") else change
    return {"output": change, "attention": pattern}


def plain(hf: Any) -> Any:
    """A copy that stays a plain Hugging Face model when the original becomes part of a bridge."""
    return copy.deepcopy(hf).eval()


@dataclass
class Parts:
    """One random attention sub-layer on one document, in plain arrays (float32 values held in float64)."""

    q: Any
    """[head, pos, d_head], before norm and rotation."""
    k: Any
    """[kv, pos, d_head]."""
    v: Any
    W_O: Any
    """[head, d_head, d_model]."""
    scale: float
    cap: float | None
    visible: Any
    """[pos, pos]: may query i see key j?"""
    slopes: Any
    """[head]: ALiBi, or None."""
    angles: Any
    """[pos, pairs]: rotation angles, or None."""
    pairing: str
    """"half-split" or "adjacent"."""
    q_gain: Any
    """RMS norm: [d_head], or [head * d_head] if the norm runs over all heads; None without norm."""
    k_gain: Any

    @property
    def group(self) -> int:
        return len(self.q) // len(self.k)

    @property
    def joined(self) -> bool:
        return self.q_gain is not None and len(self.q) > 1 and self.q_gain.size == self.q.shape[0] * self.q.shape[2]

    @property
    def bias(self) -> Any:
        """[head, pos, pos]: mask and ALiBi."""
        length = self.q.shape[1]
        slopes = np.zeros(len(self.q)) if self.slopes is None else self.slopes
        alibi = slopes[:, None, None] * np.arange(length)[None, None, :]
        return np.where(self.visible[None], alibi, -np.inf)

    def tables(self) -> Any:
        """(cos, sin) [pos, rotary] as Hugging Face lays them out for the pairing."""
        wide = (
            np.concatenate([self.angles, self.angles], 1)
            if self.pairing == "half-split"
            else np.repeat(self.angles, 2, 1)
        )
        return np.cos(wide), np.sin(wide)


def random_parts(
    seed: int, *, kv: int = 2, group: int = 2, d_head: int = 6, length: int = 9, d_model: int = 7, rotary: int | None = None,
    pairing: str = "half-split", cap: float | None = None, norm: str = "none", alibi: bool = False, window: int | None = None,
    peak: float = 1.0, offset: float = 0.0,
) -> Parts:  # fmt: skip
    """`rotary`: rotated coordinates (even; 0 for none); `peak`: size of q and k; `offset`: of their biases; `norm`: none, head or joined."""
    rng = np.random.default_rng(seed)
    heads, single = kv * group, lambda x: np.asarray(x, np.float32).astype(np.float64)
    rotary = d_head // 2 * 2 if rotary is None else rotary
    i, j = np.arange(length)[:, None], np.arange(length)[None]
    gains = {
        "none": (None, None), "head": (rng.normal(1, 0.3, d_head), rng.normal(1, 0.3, d_head)),
        "joined": (rng.normal(1, 0.3, heads * d_head), rng.normal(1, 0.3, kv * d_head)),
    }[norm]  # fmt: skip
    stretch = 1.0 if norm == "none" else peak
    return Parts(
        q=single(peak * rng.normal(size=(heads, length, d_head)) + offset * rng.normal(size=(heads, 1, d_head))),
        k=single(peak * rng.normal(size=(kv, length, d_head)) + offset * rng.normal(size=(kv, 1, d_head))),
        v=single(rng.normal(size=(kv, length, d_head))),
        W_O=single(rng.normal(size=(heads, d_head, d_model))),
        scale=float(rng.uniform(0.2, 0.6)), cap=cap,
        visible=(j <= i) & (j > i - (window or length)),
        slopes=single(rng.uniform(0.1, 1.0, heads)) if alibi else None,
        angles=single(np.arange(length)[:, None] * rng.uniform(0.01, 1.5, rotary // 2)) if rotary else None,
        pairing=pairing,
        q_gain=None if gains[0] is None else single(stretch * gains[0]), k_gain=None if gains[1] is None else single(stretch * gains[1]),
    )  # fmt: skip


EPSILON = 1e-6
"""Of the RMS norm of `Parts`."""


def _rms(x: Any, gain: Any) -> Any:
    """[head, pos, d_head] normed per head, or over all heads where the gain is as wide as they are."""
    if gain is None:
        return x
    if gain.size == x.shape[2]:
        return np.stack([head * gain / np.sqrt((head**2).mean(1, keepdims=True) + EPSILON) for head in x])
    flat = np.concatenate(list(x), 1)
    flat = flat * gain / np.sqrt((flat**2).mean(1, keepdims=True) + EPSILON)
    return np.stack(np.split(flat, len(x), 1))


def _rotate(x: Any, parts: Parts) -> Any:
    """Each pair of coordinates times exp(i angle), as complex numbers."""
    if parts.angles is None:
        return x
    pairs, out = parts.angles.shape[1], x.copy()
    for p in range(pairs):
        a, b = (p, p + pairs) if parts.pairing == "half-split" else (2 * p, 2 * p + 1)
        turned = (x[:, :, a] + 1j * x[:, :, b]) * np.exp(1j * parts.angles[:, p])
        out[:, :, a], out[:, :, b] = turned.real, turned.imag
    return out


def attend(parts: Parts) -> tuple[Any, Any, Any]:
    """(attention weights [head, pos, pos], z [head, pos, d_head], output [pos, d_model]) in float64, head by head."""
    q, k = _rotate(_rms(parts.q, parts.q_gain), parts), _rotate(_rms(parts.k, parts.k_gain), parts)
    weights, z, out = [], [], 0.0
    for h in range(len(q)):
        scores = parts.scale * q[h] @ k[h // parts.group].T
        if parts.cap is not None:
            scores = parts.cap * np.tanh(scores / parts.cap)
        scores = scores + parts.bias[h]
        e = np.exp(scores - scores.max(1, keepdims=True))
        weights.append(e / e.sum(1, keepdims=True))
        z.append(weights[-1] @ parts.v[h // parts.group])
        out = out + z[-1] @ parts.W_O[h]
    return np.stack(weights), np.stack(z), out


def ablation(parts: Parts, site: str) -> dict[str, Any]:
    """Importance of every unit of q, k or v by zeroing it and attending again: {"attention", "output"} [head, d_head]."""
    before = attend(parts)
    owners, _, d_head = getattr(parts, site).shape
    found = {"attention": np.zeros((owners, d_head)), "output": np.zeros((owners, d_head))}
    for owner in range(owners):
        for unit in range(d_head):
            changed = getattr(parts, site).copy()
            changed[owner, :, unit] = 0.0
            after = attend(replace(parts, **{site: changed}))
            found["attention"][owner, unit] = np.sqrt(((after[0] - before[0]) ** 2).sum())
            found["output"][owner, unit] = np.sqrt(((after[2] - before[2]) ** 2).sum())
    return found


def first_order(parts: Parts, site: str) -> Any:
    """|A (D - sum_j A D)| of every unit of q or k, [head, d_head]: the first order of the softmax's change. No norm, no cap."""
    owners, _, d_head = getattr(parts, site).shape
    found = np.zeros((owners, d_head))
    weights = attend(parts)[0]
    q, k = _rotate(parts.q, parts), _rotate(parts.k, parts)
    for owner in range(owners):
        for unit in range(d_head):
            only = np.zeros_like(getattr(parts, site))
            only[owner, :, unit] = getattr(parts, site)[owner, :, unit]
            only = _rotate(only, parts)
            total = 0.0
            for h in range(len(q)):
                kv = h // parts.group
                delta = -parts.scale * (only[h] @ k[kv].T if site == "q" else q[h] @ only[kv].T)
                change = weights[h] * (delta - (weights[h] * delta).sum(1, keepdims=True))
                total += (change**2).sum()
            found[owner, unit] = np.sqrt(total)
    return found


def released_llama(weights: Any, config: Any, ids: list[int]) -> list[dict[str, Any]]:
    """The published PLND scores of a Llama, layer by layer, in plain float64 loops over heads and coordinates (plnd.md, released mode)."""
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    n, groups = config["num_attention_heads"], config["num_attention_heads"] // config["num_key_value_heads"]
    d = config["hidden_size"] // n
    length = len(ids)
    angles = np.arange(length)[:, None] * config["rope_theta"] ** (-np.arange(d // 2) * 2 / d)
    x, layers = w["model.embed_tokens.weight"][ids], []

    def rms(h: Any, gain: Any) -> Any:
        return gain * h / np.sqrt((h**2).mean(1, keepdims=True) + config["rms_norm_eps"])

    def softmax(s: Any) -> Any:
        s = np.where(np.tril(np.ones((length, length), bool)), s, -np.inf)
        e = np.exp(s - s.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def turn(h: Any) -> Any:
        z = (h[:, : d // 2] + 1j * h[:, d // 2 :]) * np.exp(1j * angles)
        return np.concatenate([z.real, z.imag], 1)

    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        normed = rms(x, w[p + "input_layernorm.weight"])
        q, k, v = (normed @ w[f"{p}self_attn.{m}_proj.weight"].T for m in "qkv")
        moved, spread, mixed = np.zeros(n * d), np.zeros(n * d), []
        for h in range(n):
            mine, theirs = slice(h * d, h * d + d), slice(h // groups * d, h // groups * d + d)
            queries, keys = turn(q[:, mine]), turn(k[:, theirs])
            scores = queries @ keys.T / np.sqrt(d)
            before = softmax(scores)
            mixed.append(before @ v[:, theirs])
            spread[mine] = np.abs(mixed[-1]).sum(0)
            for c in range(d):
                moved[h * d + c] = ((softmax(scores - np.outer(queries[:, c], keys[:, c])) - before) ** 2).sum()
        x = x + np.concatenate(mixed, 1) @ w[p + "self_attn.o_proj.weight"].T
        normed = rms(x, w[p + "post_attention_layernorm.weight"])
        up, gate = normed @ w[p + "mlp.up_proj.weight"].T, normed @ w[p + "mlp.gate_proj.weight"].T
        layers.append({"up": np.abs(up).sum(0), "q": moved, "v": spread})
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    return layers


def observe_pattern(hf: Any, ids: Any, layer: int) -> Any:
    """Attention weights [head, pos, pos] of a layer of a plain model, of any architecture."""
    with torch.no_grad():
        return hf(ids, output_attentions=True).attentions[layer][0].numpy()
