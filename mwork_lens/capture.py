"""Run the model once, hand over each layer's activations, forget them.

`capture` is the only function that listens to a model. An 80-layer model's FFN activations at 8 x 512 tokens are 19 GB: so a layer's
tensors are given to `on_layer` as soon as the last of them has arrived, and dropped when it returns. No activation cache is ever built.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .corpora import Tokens, context_length
from .gates import activation as activation_of
from .gates import edited_act, followed, is_gated
from .sites import FFN_SITES, HEAD_SITES, SITES, flatten_heads, n_layers, require_hook, width
from .unwrapped import unwrapped

OnLayer = Callable[[int, Mapping[str, Tensor]], None]


def as_tokens(tokens: Tokens | Tensor, model: Any) -> Tokens:
    """An id tensor [batch, pos] (no padding) as `Tokens`; BOS is not kept. `Tokens` pass through.

    Raises:
        ValueError: This is no integer tensor [batch, pos], it is empty, or it does not fit the model: an id is outside the vocabulary, or
            the documents are longer than the context.
    """
    if isinstance(tokens, Tokens):
        _require_fit(tokens.ids, model)
        return tokens
    integers = isinstance(tokens, Tensor) and not (tokens.is_floating_point() or tokens.is_complex())
    if not integers or tokens.ndim != 2 or tokens.dtype == torch.bool:
        got = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"expected Tokens or an integer tensor [batch, pos], got {got}")
    _require_fit(tokens, model)
    keep = torch.ones_like(tokens, dtype=torch.bool)
    bos = getattr(getattr(model, "tokenizer", None), "bos_token_id", None)
    if bos is not None:
        keep[:, 0] &= tokens[:, 0] != bos
    return Tokens(tokens, keep)


def _require_fit(ids: Tensor, model: Any) -> None:
    """Refuse ids that this model's embedding or context does not hold, in words instead of an index error (or nothing, or an assert on CUDA)."""
    if not ids.numel():
        raise ValueError(f"no token given: ids are {list(ids.shape)}, give at least one document with one token")
    vocab = _vocabulary(model)
    smallest, largest = (int(x) for x in ids.aminmax())
    if smallest < 0:
        raise ValueError(f"token id {smallest} is negative: pad with any id, and an attention_mask that is False there")
    if vocab is not None and largest >= vocab:
        raise ValueError(
            f"token id {largest} is outside this model's vocabulary of {vocab}: make the ids with the model's own tokenizer"
        )
    if getattr(getattr(model, "cfg", None), "n_ctx", None) and ids.shape[1] > context_length(model):
        raise ValueError(
            f"documents of {ids.shape[1]} tokens are longer than this model's context of {context_length(model)}: cut them"
        )


def _vocabulary(model: Any) -> int | None:
    """How many ids the model embeds; None if it does not say."""
    for name, axis in (("W_E", 0), ("W_U", 1)):
        if isinstance(weights := getattr(model, name, None), Tensor):
            return int(weights.shape[axis])
    tokenizer = getattr(model, "tokenizer", None)
    return None if tokenizer is None else len(tokenizer)


def as_document(tokens: Tokens | Tensor, model: Any) -> Tokens:
    """One document without padding, from `Tokens` of one row or ids [1, pos].

    Raises:
        ValueError: It is a batch of several, or not what `as_tokens` takes.
    """
    tokens = as_tokens(tokens, model)
    if len(tokens) != 1:
        raise ValueError(
            f"importance is defined for one document, got a batch of {len(tokens)}: pass tokens.row(i), or measure(..., importances())"
        )
    return tokens.row(0)


def device_of(model: Any) -> torch.device:
    """Where the model takes its input."""
    return next(model.parameters()).device


def forward(model: Any, tokens: Tokens) -> Tensor:
    """Logits [batch pos vocab] of a batch, with its attention mask, without gradients."""
    device = device_of(model)
    mask = None if tokens.attention_mask is None else tokens.mask.to(device).long()
    with torch.no_grad():
        return model(tokens.ids.to(device), attention_mask=mask)


def capture(
    model: Any,
    tokens: Tokens | Tensor,
    sites: Iterable[str],
    on_layer: OnLayer,
    *,
    layers: Iterable[int] | None = None,
    fused: bool = False,
) -> None:
    """Run one forward and hand each layer's activations to `on_layer`, in the order of the layers.

    Args:
        model: What `load_model` returned.
        tokens: A batch, or an id tensor [batch pos].
        sites: Sites (or observation points of `sites.py`) wanted together.
        on_layer: Called as `on_layer(layer, {site: activation})` once per layer. Head sites arrive as
            [batch pos head*d_head], `pattern` as [batch head pos pos], the others as [batch pos width]. What it does not
            copy is gone afterwards.
        layers: Layers to listen to, default all.
        fused: Where only FFN sites are wanted and no edit is in force, run the model with fused attention and without its unembedding
            (unwrapped.py): faster, and different in the last bits.

    Raises:
        ValueError: The tokens do not fit the model (`as_tokens`); no site or layer is given; a site, layer or hook point does not
            exist; a hook point delivers another width than the weights have, or NaN or infinite values.
        RuntimeError: A hook point did not fire.
        NotImplementedError: An FFN site of a mixture-of-experts block.
    """
    tokens = as_tokens(tokens, model)
    wanted = tuple(dict.fromkeys([sites] if isinstance(sites, str) else sites))
    if not wanted:
        raise ValueError(f"no site given: choose from {', '.join(SITES)}")
    chosen = list(range(n_layers(model)) if layers is None else layers)
    if not chosen:
        raise ValueError(f"no layer given: choose from 0..{n_layers(model) - 1}, or leave `layers` out for all")
    names = {(site, layer): require_hook(model, site, layer) for layer in chosen for site in wanted}
    acts = {layer: activation_of(model, layer) for layer in chosen if "ffn_act" in wanted and is_gated(model, layer)}
    if "ffn_act" in wanted:  # without a gate it is what W_down reads; an edit of act(gate) is complete only there, too
        late = [layer for layer in chosen if layer not in acts or followed(model, layer)]
        names |= {("ffn_act", layer): require_hook(model, "ffn", layer) for layer in late}
    expected = {
        site: {layer: width(model, site, layer) for layer in chosen}
        for site in wanted
        if site in (*HEAD_SITES, *FFN_SITES)
    }
    arrived: dict[int, dict[str, Tensor]] = {}
    finished: set[int] = set()

    def listen(activation: Tensor, hook: Any, *, site: str, layer: int) -> None:
        activation = flatten_heads(site, activation.detach())
        if site in expected and activation.shape[-1] != expected[site][layer]:
            raise ValueError(
                f"site {site!r} of layer {layer} delivers width {activation.shape[-1]}, its weights have {expected[site][layer]}: "
                "this architecture is not read correctly; please report it"
            )
        if site == "ffn_act" and layer in acts:
            edited = edited_act(model, layer)
            activation = acts[layer](activation) if edited is None else edited.detach()
        _require_finite(activation, site, layer, tokens)
        here = arrived.setdefault(layer, {})
        here[site] = activation
        if len(here) == len(wanted):
            on_layer(layer, arrived.pop(layer))
            finished.add(layer)

    plain = unwrapped(model, tokens, wanted) if fused and set(wanted) <= {*FFN_SITES, "ffn_up"} else None
    if plain is not None:
        plain.run(tokens, wanted, chosen, lambda layer, site, x: listen(x, None, site=site, layer=layer))
    else:
        hooks = [(name, partial(listen, site=site, layer=layer)) for (site, layer), name in names.items()]
        with model.hooks(fwd_hooks=hooks):
            forward(model, tokens)
    for layer in chosen:
        if layer not in finished:
            silent = [site for site in wanted if site not in arrived.get(layer, {})]
            raise RuntimeError(
                f"hook point(s) for {', '.join(map(repr, silent))} of layer {layer} are listed by this model but never fired: "
                "these sites cannot be measured on it (`mwork-lens doctor` shows which can)"
            )


def _require_finite(activation: Tensor, site: str, layer: int, tokens: Tokens) -> None:
    if site == "scores":  # masked entries are hugely negative by design
        return
    if bool(torch.isfinite(activation.sum())) or bool(torch.isfinite(activation).all()):
        return
    finite = torch.isfinite(activation)
    by_position = finite.all(-1).all(1) if site == "pattern" else finite.flatten(2).all(-1)
    bad = (~by_position & tokens.mask.to(by_position.device)).any(dim=1)  # what stands on padding is nobody's
    if not bool(bad.any()):
        return
    rows = [tokens.documents[i] if tokens.documents else f"row {i}" for i in bad.nonzero().flatten().tolist()]
    raise ValueError(
        f"NaN or infinite activation at site {site!r} of layer {layer}, in {', '.join(rows)}: "
        "load the model with dtype='float32', or remove the document"
    )
