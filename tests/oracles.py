"""Slow, obvious re-implementations that share no code with the package: they read Hugging Face models and plain lists."""

import copy
from contextlib import contextmanager
from typing import Any

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
    return getattr(block, {"gpt2": "attn", "bloom": "self_attention", "gpt_neox": "attention"}.get(hf.config.model_type, "self_attn"))


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
        down_projection(hf, layer).register_forward_hook(lambda m, a, out: seen.__setitem__("ffn", out.detach().clone())),
        attention_module(hf, layer).register_forward_hook(lambda m, a, out: seen.__setitem__("pattern", out[1].detach().clone())),
    ]
    try:
        with torch.no_grad():
            hf(ids, output_attentions=True)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def brute_force(hf: Any, ids: Any, site: str, layer: int, unit: int, *, seen: dict[str, Any] | None = None) -> dict[str, float]:
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
