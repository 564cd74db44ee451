"""The plain Hugging Face model inside a TransformerLens model, where its FFNs are, and its folder: what is cut, trained and exported.

TransformerLens puts hook points into the model it wraps and splits fused q, k and v into copies (BLOOM, NeoX), so Hugging Face's model is made a
second time, from its configuration, and filled with copies of the weights that run.
"""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from .sites import blocks
from .unwrapped import plain_name

_LAYOUTS: tuple[tuple[str, ...], ...] = (
    ("gate_proj", "up_proj", "down_proj"),
    ("gate_up_proj", "down_proj"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("c_fc", "c_proj"),
    ("fc1", "fc2"),
    ("up_proj", "down_proj"),
)
"""Names of an FFN's linear maps, the one that leads out of it last."""
_WIDTH = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
"""What configurations call the width of an FFN."""

_AGREE = 1e-4
"""Largest difference of logits, in units of the largest logit, in float32; 5e-2 in half precision."""


def plain_model(model: Any, attention: str) -> Any:
    """The Hugging Face model without hook points, with weights of its own.

    Args:
        model: What `load_model` returned.
        attention: Kernel: `eager` is what TransformerLens runs, `sdpa` is faster where Hugging Face has it.

    Raises:
        NotImplementedError: No Hugging Face model is behind it, or its weights are quantised.
        ValueError: It lies on several devices, or is offloaded.
    """
    original = getattr(model, "original_model", None)
    if original is None or getattr(original, "config", None) is None:
        raise NotImplementedError(
            "only a model with a Hugging Face model behind it can be sliced, trained or exported; masks and edits work on any"
        )
    parameters = list(original.parameters())
    if not all(p.is_floating_point() for p in parameters):
        raise NotImplementedError(
            "quantised weights cannot be sliced or trained: load the model in float32 or bfloat16"
        )
    if len({p.device for p in parameters}) != 1 or parameters[0].is_meta:
        raise ValueError(
            "a model over several devices, or offloaded, cannot be sliced or trained: load it on one device"
        )
    state = {plain_name(name): value for name, value in tensors_of(original).items()}
    config = type(original.config).from_dict(original.config.to_dict())
    config.output_attentions = False  # TransformerLens asks for them, which the fused kernel cannot give
    made = like(original, config, attention)
    if original.config.model_type in ("bloom", "gpt_neox"):
        state |= _fused(model, list(tensors_of(made)))
    fill(made, state)
    made.generation_config = deepcopy(original.generation_config)
    return made


def like(model: Any, config: Any, attention: str) -> Any:
    """A model of the same class without weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = type(model)._from_config(
            config, dtype=next(model.parameters()).dtype, attn_implementation=attention
        )
    return made.eval()


def tensors_of(model: Any) -> dict[str, Any]:
    """Parameters and buffers by name, tied ones under all of their names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def fill(made: Any, state: Mapping[str, Tensor]) -> Any:
    """Copies of the tensors put into a model; what was tied stays tied."""
    copies: dict[int, Tensor] = {}
    for name in tensors_of(made):
        if name not in state:
            raise NotImplementedError(
                f"{type(made).__name__} has {name}, which was not found in TransformerLens's model"
            )
        value = state[name]
        holder = made.get_submodule(name.rpartition(".")[0])
        last = name.rpartition(".")[2]
        copied = copies.setdefault(id(value), value.detach().clone())
        if last in holder._parameters:
            copied = copies[id(value)] = copied if isinstance(copied, nn.Parameter) else nn.Parameter(copied)
            holder._parameters[last] = copied
        else:
            holder._buffers[last] = copied
    return made


def _fused(model: Any, names: list[str]) -> dict[str, Tensor]:
    """The q, k and v that TransformerLens runs, which are copies, in the fused tensors they were split from."""
    made: dict[str, Tensor] = {}
    for suffix in ("weight", "bias"):
        places = [name for name in names if name.endswith(f"query_key_value.{suffix}")]
        for place, block in zip(places, blocks(model), strict=False):  # there may be no biases
            attn, d_head = block.attn, block.attn.W_Q.shape[-1]
            if suffix == "weight":
                given = (attn.W_Q, attn.W_K, attn.W_V)
                parts = [rearrange(w, "head d_model d_head -> head d_head d_model") for w in given]
            else:
                parts = [b.reshape(-1, d_head) for b in (attn.b_Q, attn.b_K, attn.b_V)]
            made[place] = torch.stack(parts, dim=1).flatten(0, 2)
    return made


class FFN(NamedTuple):
    """The linear maps of one layer's FFN."""

    ins: tuple[Any, ...]
    out: Any
    copies: int
    """How often a unit occurs in each of `ins`: twice where gate and up are one matrix."""

    @property
    def width(self) -> int:
        """Number of units."""
        return int(self.out.weight.shape[0 if _is_conv(self.out) else 1])


def ffns(model: Any) -> list[FFN]:
    """The FFN of every layer of a plain Hugging Face model, found by the names of its modules.

    Raises:
        NotImplementedError: There is none of a known layout, or its maps are quantised.
    """
    layers = next((m for m in model.modules() if isinstance(m, nn.ModuleList)), ())
    found = []
    for block in layers:
        for holder in (block, *block.children()):
            held = dict(holder.named_children())
            layout = next((names for names in _LAYOUTS if all(name in held for name in names)), None)
            if layout is not None:
                *ins, out = (held[name] for name in layout)
                found.append(FFN(tuple(ins), out, 2 if layout[0] == "gate_up_proj" else 1))
                break
    linear = all(type(part) is nn.Linear or _is_conv(part) for ffn in found for part in (*ffn.ins, ffn.out))
    if not found or len(found) != len(layers) or not linear:
        raise NotImplementedError(
            f"the FFN of {type(model).__name__} is laid out in a way that is not known (known: "
            f"{'; '.join(' + '.join(names) for names in _LAYOUTS)}): use masked() instead"
        )
    return found


def _is_conv(module: Any) -> bool:
    return type(module).__name__ == "Conv1D"  # GPT-2's linear map, whose weight is [in, out]


def change_units(ffn: FFN, change: Callable[[Tensor, int], Tensor]) -> None:
    """Replace an FFN's units, in place: `change(tensor, dim)` does so where `dim` of a tensor runs over units once."""
    for part in ffn.ins:
        dim = 1 if _is_conv(part) else 0
        halves = [change(half, dim) for half in part.weight.detach().chunk(ffn.copies, dim)]
        biases = None if part.bias is None else [change(half, 0) for half in part.bias.detach().chunk(ffn.copies)]
        _put(part, torch.cat(halves, dim), None if biases is None else torch.cat(biases))
    _put(ffn.out, change(ffn.out.weight.detach(), 0 if _is_conv(ffn.out) else 1), ffn.out.bias)


def wider(tensor: Tensor, dim: int, to: int) -> Tensor:
    """Zeros behind a tensor, so that `dim` has size `to`; the tensor itself if it has."""
    if tensor.shape[dim] == to:
        return tensor
    shape = [to - size if i == dim else size for i, size in enumerate(tensor.shape)]
    return torch.cat((tensor, tensor.new_zeros(shape)), dim)


def _put(module: Any, weight: Tensor, bias: Tensor | None) -> None:
    """Give a linear map other weights, and make its sizes say so."""
    module.weight = nn.Parameter(weight)
    module.bias = None if bias is None else nn.Parameter(bias)
    if _is_conv(module):
        module.nx, module.nf = weight.shape
    else:
        module.out_features, module.in_features = weight.shape


def set_width(config: Any, width: int) -> None:
    """Say the FFN's width in a configuration, if it has a name for it."""
    name = next((name for name in _WIDTH if hasattr(config, name)), None)
    if name is not None:
        setattr(config, name, width)


def probe(hf_model: Any) -> Int[Tensor, "batch pos"]:
    """Two short rows of ids, to compare logits on."""
    ids = (torch.arange(24).reshape(2, 12) * 7) % len(hf_model.get_input_embeddings().weight)
    return ids.to(hf_model.device)


def logits(hf_model: Any, ids: Int[Tensor, "batch pos"]) -> Tensor:
    """Of a plain Hugging Face model, without gradients."""
    with torch.no_grad():
        return hf_model(ids, use_cache=False).logits


def require_equal(found: Tensor, expected: Tensor, what: str) -> None:
    """Refuse logits that differ by more than rounding explains.

    Raises:
        ValueError: They do; the message says by how much.
    """
    allowed = 5e-2 if expected.dtype in (torch.float16, torch.bfloat16) else _AGREE
    error = float((found.float() - expected.float()).abs().max() / expected.float().abs().max().clamp_min(1e-12))
    if not error <= allowed:
        raise ValueError(
            f"{what}: logits by {error:.2g} of the largest. Work outside any edit, with attention='eager', on a model whose weights were not replaced"
        )


def require_new(folder: str | Path, tokenizer: Any) -> Path:
    """The folder a model may be written to.

    Raises:
        ValueError: No tokenizer that can be written beside it.
        FileExistsError: The folder holds something.
    """
    folder = Path(folder).expanduser()
    if not hasattr(tokenizer, "save_pretrained"):
        raise ValueError(f"a folder needs a tokenizer, got {type(tokenizer).__name__}: pass model.tokenizer")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder: choose another")
    return folder


def write_folder(hf_model: Any, folder: str | Path, tokenizer: Any, *, equal_to: Any = None) -> Path:
    """Write a plain Hugging Face model as a folder, which `AutoModelForCausalLM` and `load_model` read.

    It is read back before it gets its name, and its logits compared, so a folder that exists is one that loads.

    Args:
        hf_model: What is written.
        folder: A folder that does not exist yet, or is empty.
        tokenizer: Written beside the model.
        equal_to: Plain model whose logits the folder must give; default the one that is written.

    Raises:
        FileExistsError: The folder holds something.
        ValueError: What was read back gives other logits; no tokenizer.
    """
    from transformers import AutoModelForCausalLM

    folder = require_new(folder, tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        place = Path(temporary) / "model"
        hf_model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        kernel = hf_model.config._attn_implementation
        read = AutoModelForCausalLM.from_pretrained(place, dtype=hf_model.dtype, attn_implementation=kernel)
        read = read.eval().to(hf_model.device)
        ids = probe(hf_model)
        expected = logits(hf_model if equal_to is None else equal_to, ids)
        require_equal(logits(read, ids), expected, f"what was written to {folder} reads back wrong")
        if folder.exists():
            folder.rmdir()
        place.rename(folder)
    return folder
