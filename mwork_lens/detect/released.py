"""The importances that the published PLND code computes, for replication (DAMO-NLP-SG/multilingual_analysis, be2b161; Llama files).

    up = down   sum over tokens of |x W_up|                                           no gate, no activation, no W_down
    v = o       sum over tokens of |A v|                                              no W_O, not summed over the group
    q = k       sum_ij ( softmax_j(S_ij - q_i k_j) - A_ij )^2                         after the rotation; not divided by sqrt(d_head), no root

Departures from that code, all of them: the causal mask is applied in both softmaxes (it is missing from its Mistral files), scores are
those of the first layers on (its own forward drops the final norm), and nothing is ever swallowed. Indices of q, k, v and o are
head-expanded: h * d_head + c over all *query* heads. `neuron_importance(..., measure="released")` folds k and v to their grouped width by
the largest of a neuron's copies (`sites.fold_heads`), because the released code selects a row as soon as one copy is selected.
"""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ..attention import Attention, of_layer, wanted
from ..capture import as_document, capture
from ..sites import has_hook
from ..tokens import Tokens

_BUDGET = 1 << 19


def released_attention(att: Attention) -> dict[str, Float[Tensor, " expanded"]]:
    """q, k, v and o scores of one layer in the head-expanded index space, each [n_heads * d_head].

    Raises:
        NotImplementedError: The scores are soft-capped; the released formula for those compares capped with uncapped scores.
    """
    if att.cap is not None:
        raise NotImplementedError(
            "measure='released' is not defined for soft-capped scores (Gemma2): use measure='output' or 'attention'"
        )
    moved = torch.stack([_query_scores(att, head) for head in range(att.q.shape[0])])
    flat = rearrange(moved, "head d_head -> (head d_head)")
    z = rearrange(att.z.abs().double().sum(1), "head d_head -> (head d_head)").to(att.q.dtype)
    return {"q": flat, "k": flat, "v": z, "o": z}


def _query_scores(att: Attention, head: int) -> Float[Tensor, " d_head"]:
    pattern, scores = att.pattern[head].double(), att.scores(att.raw[head], head).double()
    q, k = att.q_rot[head].double(), att.k_rot[head // att.group].double()
    step = max(1, _BUDGET // pattern.numel())
    parts = []
    for at in range(0, q.shape[1], step):
        delta = torch.einsum("iu,ju->uij", q[:, at : at + step], k[:, at : at + step])
        parts.append((torch.softmax(scores - delta, -1) - pattern).square().sum((1, 2)))
    return torch.cat(parts).to(att.q.dtype)


def released_ffn(up: Float[Tensor, "batch pos width"]) -> Float[Tensor, " width"]:
    """Up and down scores of one layer."""
    return up[0].double().abs().sum(0).to(torch.float32)


def released_importance(model: Any, tokens: Tokens | Tensor) -> dict[str, Float[Tensor, "layer expanded"]]:
    """The released scores in their own index space: `up`, `down` [layer d_mlp]; `q`, `k`, `v`, `o` [layer n_heads*d_head].

    Args and errors as `neuron_importance`.
    """
    tokens = as_document(tokens, model)
    up = "ffn_up" if has_hook(model, "ffn_up", 0) else "ffn_gate"
    rows: dict[str, list[Tensor]] = {}

    def on_layer(layer: int, captured: Mapping[str, Tensor]) -> None:
        ffn = released_ffn(captured[up])
        for name, scores in {"up": ffn, "down": ffn, **released_attention(of_layer(model, layer, captured))}.items():
            rows.setdefault(name, []).append(scores)

    capture(model, tokens, [*wanted(model), up], on_layer)
    return {name: torch.stack(scores).cpu() for name, scores in rows.items()}
