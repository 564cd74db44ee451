"""Where neurons live: site <-> hook point <-> width <-> slice of each weight matrix.

A *neuron* is one unit of a linear map inside a block (Zhao et al. 2024, section 2):

    site        one neuron is                                     width of a layer
    q           an output of W_Q (its row in HF's [out, in])      n_heads * d_head
    k, v        an output of W_K, W_V; grouped under GQA          n_kv_heads * d_head
    z           an input of W_O (one row of W_O [head d_head, d_model])   n_heads * d_head
    ffn         an input of W_down = column of W_up = column of W_gate    d_mlp
    ffn_gate    the same unit before its activation function      d_mlp
    ffn_act     the same unit behind its activation function, before it multiplies the output of W_up; `ffn` where there is no gate      d_mlp

and three kinds of places that hold no neurons but can be captured and edited: the residual stream
(`resid_pre`, `resid_mid`, `resid_post`, width d_model) and the attention `pattern`.

Hook names are HookedTransformer's, as `TransformerBridge` provides them; this file is the only one that spells them.
Widths are read from the weights, never from `cfg` (which is wrong for XGLM and T5), and checked against what arrives.
On a mixture-of-experts block `mlp.hook_post` silently carries the block's *output*: the FFN sites are refused there.
"""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Site = Literal["q", "k", "v", "z", "ffn", "ffn_gate", "ffn_act", "resid_pre", "resid_mid", "resid_post", "pattern"]

SITES: tuple[Site, ...] = get_args(Site)
NEURON_SITES: tuple[Site, ...] = ("q", "k", "v", "z", "ffn")
ATTENTION_SITES: tuple[Site, ...] = ("q", "k", "v", "z")
FFN_SITES: tuple[Site, ...] = ("ffn", "ffn_gate", "ffn_act")
"""The three places at which an FFN neuron can be looked at; a set of FFN neurons lives on `ffn`."""
HEAD_SITES: tuple[Site, ...] = ("q", "k", "v", "z")

_HOOK: dict[str, str] = {
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "pattern": "attn.hook_pattern",
    "ffn": "mlp.hook_post",
    "ffn_gate": "mlp.hook_pre",
    "ffn_act": "mlp.hook_pre",  # no hook point of its own: computed from this one (gates.py)
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    # observation points: not sites of neurons, but what the methods read beside them
    "scores": "attn.hook_attn_scores",
    "cos": "attn.hook_cos",
    "sin": "attn.hook_sin",
    "attn_out": "attn.o.hook_out",
    "ffn_out": "mlp.out.hook_out",
    "ffn_up": "mlp.hook_pre_linear",
    "expert_indices": "mlp.hook_expert_indices",  # of a mixture of experts: [batch*pos, top_k]
    "expert_weights": "mlp.hook_expert_weights",  # [batch*pos, experts]
}


class Heads(NamedTuple):
    """How a layer's attention is divided."""

    query: int
    """Number of query heads."""
    key_value: int
    """Number of key/value heads (fewer than `query` under GQA)."""
    d_head: int
    """Width of one head."""

    @property
    def group(self) -> int:
        """Query heads that share one key/value head."""
        return self.query // self.key_value


def require_sites(sites: Iterable[str], known: Iterable[str] = SITES) -> tuple[Site, ...]:
    """The sites as a tuple, in the order given and without repeats.

    Raises:
        ValueError: A name is not a site, or none was given.
    """
    known, asked = tuple(known), tuple(dict.fromkeys([sites] if isinstance(sites, str) else sites))
    if unknown := [site for site in asked if site not in known]:
        raise ValueError(f"unknown site {unknown[0]!r}: choose from {', '.join(known)}")
    if not asked:
        raise ValueError(f"no site given: choose from {', '.join(known)}")
    return asked  # type: ignore[return-value]  # narrowed by the check above


def unit_site(site: Site) -> Site:
    """The site a neuron set names a unit by: `ffn` for the three FFN sites, otherwise the site itself."""
    return "ffn" if site in FFN_SITES else site


def n_layers(model: Any) -> int:
    """Number of transformer blocks."""
    return len(blocks(model))


def blocks(model: Any) -> Any:
    """The model's blocks.

    Raises:
        ValueError: The model has no single stack of decoder or encoder blocks.
    """
    found = getattr(model, "blocks", None)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} has no single stack of blocks (an encoder-decoder, or not a TransformerLens model): "
            "pass what load_model returns for a decoder-only or encoder-only model"
        )
    return found


def hook_name(site: str, layer: int) -> str:
    """The hook point of a site (or observation point) in a layer."""
    return f"blocks.{layer}.{_HOOK[site]}"


def has_hook(model: Any, site: str, layer: int) -> bool:
    """Whether the model lists that hook point (it may still never fire: `doctor` tells)."""
    return hook_name(site, layer) in model.hook_dict


def require_hook(model: Any, site: str, layer: int) -> str:
    """The name of a hook point the model is known to have.

    Raises:
        ValueError: The site or layer is unknown, or the model lacks the hook point; the message names those there are.
        NotImplementedError: An FFN site of a mixture-of-experts block.
    """
    if site not in _HOOK:
        raise ValueError(f"unknown site {site!r}: choose from {', '.join(_HOOK)}")
    if not 0 <= layer < n_layers(model):
        raise ValueError(f"layer {layer} does not exist: this model has layers 0..{n_layers(model) - 1}")
    if site in (*FFN_SITES, "ffn_up", "ffn_out") and is_mixture_of_experts(model, layer):
        raise NotImplementedError(
            f"layer {layer} is a mixture of experts: its {site!r} site has no hook point that carries neurons "
            "(mlp.hook_post is the block's output there). Use the attention sites q, k, v, z of this model"
        )
    if not has_hook(model, site, layer):
        present = [s for s in _HOOK if has_hook(model, s, layer)]
        raise ValueError(
            f"layer {layer} of this model has no hook point for {site!r} ({hook_name(site, layer)}); "
            f"it has {', '.join(present) or 'none that mwork_lens knows'}"
        )
    return hook_name(site, layer)


def is_mixture_of_experts(model: Any, layer: int) -> bool:
    """Whether a block routes tokens to experts, so that no single W_down belongs to it."""
    mlp = getattr(blocks(model)[layer], "mlp", None)
    return mlp is not None and "MoE" in type(mlp).__name__


def heads(model: Any, layer: int) -> Heads:
    """Head counts and head width of a layer, from the shapes of its weights."""
    attn = blocks(model)[layer].attn
    query, _, d_head = attn.W_Q.shape
    return Heads(query, attn.W_K.shape[0], d_head)


def width(model: Any, site: str, layer: int = 0) -> int:
    """Number of units of a site in a layer, from the shapes of the weights.

    Raises:
        ValueError: `site` is unknown or has no width of its own (`pattern`).
        NotImplementedError: An FFN site of a mixture-of-experts block.
    """
    (site,) = require_sites([site])
    if site in FFN_SITES:
        require_hook(model, site, layer)
        return int(blocks(model)[layer].mlp.W_out.shape[0])
    shape = heads(model, layer)
    if site in ("q", "z"):
        return shape.query * shape.d_head
    if site in ("k", "v"):
        return shape.key_value * shape.d_head
    if site == "pattern":
        raise ValueError("'pattern' has no width: it is [head, pos, pos], as wide as the document is long")
    return int(blocks(model)[layer].attn.W_Q.shape[1])


def widths(model: Any, sites: Iterable[str] = NEURON_SITES) -> dict[Site, int]:
    """Width of each site, checked to be the same in every layer.

    Raises:
        ValueError: Layers differ in width.
    """
    found: dict[Site, int] = {}
    for site in require_sites(sites):
        per_layer = [width(model, site, layer) for layer in range(n_layers(model))]
        if len(set(per_layer)) != 1:
            raise ValueError(
                f"layers differ in the width of {site!r}: {per_layer}; masks of one width cannot hold them"
            )
        found[site] = per_layer[0]
    return found


def shape_of(model: Any, sites: Iterable[str] = NEURON_SITES) -> dict[Site, tuple[int, int]]:
    """(layers, width) of each site: the shape of a mask over that site."""
    return {site: (n_layers(model), w) for site, w in widths(model, sites).items()}


def weight(model: Any, site: str, layer: int) -> dict[str, Float[Tensor, "width d_model"]]:
    """The slices of the weight matrices that belong to a site's neurons, one row a neuron.

    Returns:
        Matrix name (`W_Q`, `W_K`, `W_V`, `W_O`, `W_gate`, `W_up`, `W_down`) to its [width, d_model] view or copy. An FFN
        neuron owns a row of two or three matrices; an attention neuron of one.

    Raises:
        ValueError: `site` holds no neurons.
    """
    (site,) = require_sites([site], (*NEURON_SITES, "ffn_gate"))
    if site in FFN_SITES:
        require_hook(model, site, layer)
        mlp = blocks(model)[layer].mlp
        gated = getattr(mlp, "W_gate", None) is not None
        rows = {"W_up": mlp.W_in.T, "W_down": mlp.W_out}
        return {"W_gate": mlp.W_gate.T, **rows} if gated else rows
    attn = blocks(model)[layer].attn
    if site == "z":
        return {"W_O": rearrange(attn.W_O, "head d_head d_model -> (head d_head) d_model")}
    name = {"q": "W_Q", "k": "W_K", "v": "W_V"}[site]
    return {name: rearrange(getattr(attn, name), "head d_model d_head -> (head d_head) d_model")}


def bias(model: Any, site: str, layer: int) -> dict[str, Float[Tensor, " width"]]:
    """The entries of biases that belong to a site's neurons: those added to what a neuron reads.

    Returns:
        Bias name (`b_Q`, `b_K`, `b_V`, `b_gate`, `b_up`) to its [width] view; empty where the model has none.

    Raises:
        ValueError: `site` holds no neurons.
    """
    (site,) = require_sites([site], (*NEURON_SITES, "ffn_gate"))
    if site in FFN_SITES:
        require_hook(model, site, layer)
        mlp = blocks(model)[layer].mlp
        found = {"b_gate": getattr(mlp, "b_gate", None), "b_up": getattr(mlp, "b_in", None)}
    else:
        names = {"q": "b_Q", "k": "b_K", "v": "b_V"}
        found = {name: getattr(blocks(model)[layer].attn, name, None) for name in [names.get(site)] if name}
    return {name: value.reshape(-1) for name, value in found.items() if value is not None}


def flatten_heads(site: str, activation: Tensor) -> Tensor:
    """`[batch pos head d_head]` as `[batch pos width]` at the head sites; other sites unchanged."""
    if site in HEAD_SITES and activation.ndim == 4:
        return rearrange(activation, "batch pos head d_head -> batch pos (head d_head)")
    return activation


def like_hook(site: str, activation: Tensor, original: Tensor) -> Tensor:
    """The inverse of `flatten_heads`: back to the shape the hook point delivered."""
    if site in HEAD_SITES and original.ndim == 4:
        return rearrange(activation, "batch pos (head d_head) -> batch pos head d_head", d_head=original.shape[-1])
    return activation


def delegates_attention(model: Any, layer: int) -> bool:
    """Whether the block runs Hugging Face's own attention, so that writing scores or pattern has no effect."""
    return type(blocks(model)[layer].attn).__name__ == "AttentionBridge"


def flat_index(kv_index: int, shape: Heads) -> list[int]:
    """Head-expanded indices (released PLND) that belong to one grouped k or v neuron.

    The inverse of `row = (i // d_head // group) * d_head + i % d_head`, which the released code gets wrong (it takes i // 4).
    """
    head, unit = divmod(kv_index, shape.d_head)
    return [(head * shape.group + copy) * shape.d_head + unit for copy in range(shape.group)]


def fold_heads(expanded: Float[Tensor, " expanded"], shape: Heads) -> Float[Tensor, " width"]:
    """Head-expanded scores of k or v folded to the grouped neurons: the largest score of a neuron's copies.

    The maximum, because the released code selects a row as soon as one of its copies is selected.
    """
    grouped = rearrange(expanded, "(kv group d_head) -> kv group d_head", kv=shape.key_value, d_head=shape.d_head)
    return rearrange(torch.amax(grouped, dim=1), "kv d_head -> (kv d_head)")
