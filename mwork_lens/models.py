"""Load a model, and say what it is, exactly.

A model here is a TransformerLens model: a `TransformerBridge` with raw weights. `HookedTransformer` itself left TransformerLens in
version 4.0; the bridge provides its hook points, by name and shape. Compatibility mode is refused: it folds norms and biases, which
changes what zeroing a neuron means (0.005-0.08 in log-probability on models with value biases).
"""

import copy
import json
import os
import zlib
from importlib import resources
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from .sites import n_layers
from .storage import content_hash

EMBEDDED_MODELS = ("organism", "polyglot")
"""Models of the package, by name; the first is the default."""
EMBEDDED_MODEL = EMBEDDED_MODELS[0]

# parts of a tokenizer and of a configuration that say how they were used last, not what they are (the weights say the dtype)
_TRACES = ("padding", "truncation")
_PASSING = (
    "transformers_version", "dtype", "torch_dtype", "use_cache", "output_attentions", "output_hidden_states", "_name_or_path",
)  # fmt: skip

# the same computation under a name that TransformerLens does not know -> the name it knows
_ALIASES = {"XLMRobertaForMaskedLM": "RobertaForMaskedLM"}

_facts: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def load_model(
    name: Any = EMBEDDED_MODEL,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
) -> Any:
    """A TransformerLens model, ready to measure: raw weights, eval mode.

    Args:
        name: `"organism"`, the embedded default, or `"polyglot"`; a local Hugging Face folder; a hub id; or a live Hugging Face model, which becomes
            part of the bridge and must not be used on its own afterwards. A model that is loaded already is returned as it is.
        tokenizer: Required with a live model, and taken as it is; otherwise the folder's or hub's own, which TransformerLens
            makes put its BOS in front, if it has one (`mwork-lens doctor` shows the first ids); that of a masked model as it is.
        revision: Hub revision.
        dtype: Such as `"float32"` or `torch.bfloat16`; default the checkpoint's own.
        device: Such as `"cuda"`; default the first accelerator TransformerLens finds, else the CPU.
        device_map: Passed through, for one model over several devices.

    Raises:
        FileNotFoundError: A path was given and does not exist, or holds no model.
        OSError: The hub cannot be reached, or has no such model.
        ValueError: A live model without tokenizer, options for a model that is loaded already, an unknown dtype, or a model with
            processed weights.
    """
    from transformer_lens.model_bridge import TransformerBridge

    if isinstance(name, TransformerBridge):
        given = {
            "tokenizer": tokenizer,
            "revision": revision,
            "dtype": dtype,
            "device": device,
            "device_map": device_map,
        }
        if refused := [option for option, value in given.items() if value is not None]:
            raise ValueError(
                f"a loaded model is taken as it is, without {', '.join(refused)}: give them when it is loaded"
            )
        _require_raw(name)
        return name.eval()
    options: dict[str, Any] = {"device": None if device is None else str(device), "device_map": device_map}
    if isinstance(name, torch.nn.Module):
        if tokenizer is None:
            raise ValueError("a live model comes with its tokenizer: load_model(hf_model, tokenizer=tokenizer)")
        if revision is not None or device_map is not None:
            raise ValueError("revision and device_map are decided when a model is loaded: a live model takes neither")
        label = getattr(name.config, "_name_or_path", "") or type(name).__name__
        live: Any = name  # a PreTrainedModel
        live.config.architectures = live.config.architectures or [type(live).__name__]
        chosen = _dtype(dtype) or live.dtype
        device = options["device"] or str(live.device)
        model = TransformerBridge.boot_transformers(
            label,
            hf_model=_cast(live, chosen),
            tokenizer=_as_given(tokenizer),
            dtype=chosen,
            device=device,
            hf_config_overrides=_alias(live.config),
        )
    else:
        path = resolve(name)
        label = str(name)
        config = _checkpoint_config(path, revision)
        stored = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
        chosen = _dtype(dtype) or _dtype(stored) or torch.float32
        options["hf_config_overrides"] = _alias(config)
        if tokenizer is None and any("MaskedLM" in name for name in config.architectures or ()):
            tokenizer = _own_tokenizer(
                path, revision
            )  # with a BOS put in front, it would no longer end a sentence as it was trained to
        if tokenizer is not None:
            options["tokenizer"] = _as_given(tokenizer)
        if revision is not None:
            options["revision"] = revision
        try:
            model = TransformerBridge.boot_transformers(str(path), dtype=chosen, **options)
        except OSError as error:
            raise OSError(f"cannot load model {label!r}: {_first_line(error)} {_cure(path)}") from error
    _require_raw(model)
    model.eval()
    _facts[model] = {"name": label, "revision": revision}
    return model


def resolve(name: str | Path) -> str:
    """A path or hub id that Hugging Face understands; an embedded model's folder for its name.

    Raises:
        FileNotFoundError: It looks like a path and is none, or the folder holds no model.
    """
    if str(name) in EMBEDDED_MODELS:
        return str(resources.files("mwork_lens") / "data" / str(name))
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} holds no config.json: it is not a Hugging Face model folder")
        return str(path)
    if isinstance(name, Path) or str(name).startswith((".", "~", os.sep)) or str(name).count("/") > 1 or path.is_file():
        raise FileNotFoundError(f"no model folder {path}: check the path, or give a hub id such as 'org/model'")
    return str(name)


def _as_given(tokenizer: Any) -> Any:
    """A copy that TransformerLens takes as it is; it would otherwise reload one from `name_or_path` to add a BOS token."""
    kept = copy.copy(tokenizer)
    kept.init_kwargs = {"name_or_path": "", **tokenizer.init_kwargs, "add_bos_token": True}
    return kept


def _cast(hf_model: Any, dtype: torch.dtype) -> Any:
    """The model in `dtype`, as `from_pretrained` makes it: rotary frequencies stay as precise as they are."""
    if hf_model.dtype == dtype:
        return hf_model
    precise = {name: buffer for name, buffer in hf_model.named_buffers() if name.endswith("inv_freq")}
    hf_model.to(dtype)
    for name, buffer in precise.items():
        owner, _, leaf = name.rpartition(".")
        setattr(hf_model.get_submodule(owner), leaf, buffer)
    return hf_model


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cure(path: str) -> str:
    if Path(path).is_dir():
        return "Check that the folder holds config.json, weights (safetensors) and a tokenizer."
    return "Without a network, give a local folder; for a gated or private model, log in to the hub first."


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"unknown dtype {dtype!r}: choose float32, bfloat16, float16 or float64")
    return found


def _checkpoint_config(path: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise OSError(f"cannot load model {path!r}: {_first_line(error)} {_cure(path)}") from error


def _own_tokenizer(path: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise OSError(f"cannot load the tokenizer of {path!r}: {_first_line(error)} {_cure(path)}") from error


def _alias(config: Any) -> dict[str, list[str]] | None:
    """What to tell TransformerLens of an architecture that it knows under another name (XLM-R is RoBERTa)."""
    named = [_ALIASES[name] for name in config.architectures or () if name in _ALIASES]
    return {"architectures": named} if named else None


def _require_raw(model: Any) -> None:
    if getattr(model, "_weights_processed", False) or getattr(model, "compatibility_mode", False) is True:
        raise ValueError(
            "this model is in compatibility mode (norms and biases folded), where zeroing a neuron is another operation: "
            "load it again with load_model and do not call enable_compatibility_mode()"
        )


def fingerprint(model: Any) -> str:
    """Content hash of weights, configuration and tokenizer; changes when a weight does.

    The hash is kept until a weight is seen to change: by torch's own count of in-place writes, or, for writes through `.data`,
    which that count misses, by the first row and column of every matrix. A neuron's slice is a whole row or column, so editing
    one is always seen; only a write through `.data` that spares both is missed. Write under `torch.no_grad()` instead.

    An offloaded parameter (on `meta`, by `device_map`) counts by name, dtype and shape alone: its weights are not here to be read.
    So the hash of an offloaded model differs from that of the same model in memory, and misses changes of what is offloaded.
    """
    facts = _facts.setdefault(model, {"name": getattr(model.cfg, "model_name", type(model).__name__), "revision": None})
    state = tuple((id(p), p.data_ptr(), p._version, _glance(p)) for p in model.parameters())
    if facts.get("state") != state:
        digests = [
            (
                name,
                str(p.dtype),
                list(p.shape),
                None if p.is_meta else content_hash(_bytes(p)),
            )
            for name, p in model.named_parameters()
        ]
        facts["state"], facts["fingerprint"] = state, content_hash(digests, _configuration(model), _vocabulary(model))
    return facts["fingerprint"]


def _glance(parameter: torch.Tensor) -> int:
    """Checksum of the first row and column of a matrix, or of all of a vector."""
    values = parameter.detach()
    if values.is_meta:
        return 0
    if values.ndim > 1:
        matrix = values.reshape(values.shape[0], -1)
        values = torch.cat((matrix[0], matrix[:, 0]))
    return zlib.crc32(_bytes(values))


def _bytes(values: torch.Tensor) -> bytes:
    return values.detach().reshape(-1).contiguous().cpu().view(torch.uint8).numpy().tobytes()


def _vocabulary(model: Any) -> Any:
    tokenizer = getattr(model, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the last call's padding and truncation are kept in it, and are no part of what it is
        return {name: part for name, part in json.loads(backend.to_str()).items() if name not in _TRACES}
    return sorted(tokenizer.get_vocab().items()) if tokenizer is not None else None


def _configuration(model: Any) -> dict[str, Any] | None:
    """What decides a forward beside the weights: rope, windows, soft caps."""
    config = getattr(getattr(model, "original_model", None), "config", None)
    return (
        None if config is None else {name: part for name, part in config.to_diff_dict().items() if name not in _PASSING}
    )


def describe(model: Any) -> dict[str, Any]:
    """What a `Run` records of a model: name, revision, architecture, dtype, sizes, fingerprint."""
    print_of = fingerprint(model)
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "name": _facts[model]["name"],
        "revision": _facts[model]["revision"],
        "architecture": getattr(model.cfg, "architecture", None),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "layers": n_layers(model),
        "parameters": parameters,
        "fingerprint": print_of,
    }
