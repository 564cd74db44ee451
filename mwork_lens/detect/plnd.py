"""PLND: parallel language-specific neuron detection.

A neuron's importance for a document is how much the raw output of its sub-layer changes when that neuron alone is deactivated
(Zhao et al. 2024, Eq. 1; "deactivated": its own output is zero, weights and bias, before norm and rotation):

    Imp(N | c) = | T_without_N(h) - T(h) |_2          h: the same input; T: attention or feed-forward sub-layer

Every importance here has a closed form that equals that ablation, for all neurons of q, k, v, z and ffn at once:

    ffn, z    |activation| * |row of W_down or W_O|                             rank one, so exact (Eq. 4-5)
    v         sqrt( sum over head pairs of a group of (z.z') (W_O.W_O') )       cross terms matter under GQA
    q, k      the change of the softmax, pushed through v and W_O               `attention_change.py`

Measures: `"output"` is the above. `"attention"` is the paper's Eq. 6-9: for q and k, the change of the attention weights themselves (with the
1/sqrt(d_head) that Eq. 8 has), the rest as in `"output"`. `"released"` is what the published code computes (`released.py`).

Selection (Eq. 2): a neuron is activated for a document when its importance is at least eps, or - as the released code has it - when it is
among the top k of its layer; it belongs to a language when activated by all its documents (`consensus=1.0`), or by that share of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ..attention import Attention, of_layer, wanted
from ..capture import as_document, capture
from ..corpora import Tokens
from ..models import fingerprint
from ..neurons import NeuronSet
from ..sites import NEURON_SITES, Site, blocks, fold_heads, has_hook, heads, require_sites
from ..stats import Importances, shares
from .attention_change import value_change
from .first_order import covers
from .queries_keys import estimated_change, exact_change
from .released import released_attention, released_ffn

Measure = Literal["output", "attention", "released"]
Exact = Literal["always", "where_needed", "never"]
Minus = Literal["common", "english", "others", "none"]


def neuron_importance(
    model: Any,
    tokens: Tokens | Tensor,
    *,
    measure: Measure = "output",
    sites: Iterable[str] = NEURON_SITES,
    exact: Exact = "always",
    top: float | Mapping[str, float] | None = None,
) -> dict[Site, Float[Tensor, "layer width"]]:
    """Importance of every neuron for one document.

    Args:
        model: What `load_model` returned.
        tokens: One document: `Tokens` of one row, or an id tensor [1, pos] without padding.
        measure: `"output"`, `"attention"` or `"released"`, see the module.
        sites: Sites wanted; default q, k, v, z, ffn.
        exact: For q and k under `measure="attention"`: `"always"`; `"never"`, the first-order form; `"where_needed"`, exact for the units
            that a calibrated bound does not place on one side of the top-`top` cut, first order for the others, so that the selected
            set is the exact one. Where a q/k norm or a soft-cap rules the first-order form out, all units are exact.
        top: Share of each layer's units that will be selected; needed by `"where_needed"`.

    Returns:
        Per site, [layer, width] in the units of the sub-layer's output (of attention weights, for q and k under `"attention"`).
        All positions of the document count, BOS included, as in the paper.

    Raises:
        ValueError: Not exactly one document; an unknown measure or site; `exact` does not apply; NaN activations or weights.
        NotImplementedError: The FFN site of a mixture of experts; an attention that its parts do not reproduce.
    """
    chosen = require_sites(sites, NEURON_SITES)
    tokens = as_document(tokens, model)
    cut = _check(measure, exact, top, chosen)
    attention_sites: list[Site] = [site for site in chosen if site != "ffn"]
    # z and v follow from z alone; only q and k (and the released scores) need the attention taken apart
    whole = measure == "released" or not {"q", "k"}.isdisjoint(attention_sites)
    up = "ffn_up" if has_hook(model, "ffn_up", 0) else "ffn_gate"
    listen = [
        *((wanted(model) if whole else ("z",)) if attention_sites else ()),
        *((up if measure == "released" else "ffn",) if "ffn" in chosen else ()),
    ]
    rows: dict[Site, list[Tensor]] = {site: [] for site in chosen}

    def on_layer(layer: int, captured: Mapping[str, Tensor]) -> None:
        if "ffn" in chosen:
            rows["ffn"].append(
                released_ffn(captured[up]) if measure == "released" else _ffn(model, layer, captured["ffn"])
            )
        if attention_sites and not whole:
            w_o = blocks(model)[layer].attn.W_O.detach().float()
            z = rearrange(captured["z"][0].float(), "pos (head d_head) -> head pos d_head", head=w_o.shape[0])
            for site in attention_sites:
                rows[site].append(_of_z(z, w_o, heads(model, layer).group, site))
        elif attention_sites:
            att = of_layer(model, layer, captured)
            layer_scores = (
                _released(model, layer, att, attention_sites)
                if measure == "released"
                else _of_attention(att, attention_sites, measure, exact, cut)
            )
            for site, scores in layer_scores.items():
                rows[site].append(scores)
        for site in chosen:
            _require_finite(rows[site][-1], site, layer)

    capture(model, tokens, listen, on_layer)
    return {site: torch.stack(scores).float().cpu() for site, scores in rows.items()}


def _require_finite(scores: Tensor, site: str, layer: int) -> None:
    """Activations are checked by `capture`; here the matrix behind them (W_O, W_down) shows."""
    if not bool(torch.isfinite(scores).all()):
        units = (~torch.isfinite(scores)).nonzero().flatten().tolist()
        raise ValueError(
            f"NaN or infinite importance at site {site!r} of layer {layer} ({len(units)} units, first {units[0]}): the "
            "weights behind it are not finite, or too large for float32; check the checkpoint"
        )


def _check(measure: str, exact: str, top: Any, sites: tuple[Site, ...]) -> dict[Site, float]:
    if measure not in get_args(Measure):
        raise ValueError(f"unknown measure {measure!r}: choose from {', '.join(get_args(Measure))}")
    if exact not in get_args(Exact):
        raise ValueError(f"unknown exact={exact!r}: choose from {', '.join(get_args(Exact))}")
    if exact != "always" and measure != "attention":
        raise ValueError(
            f"exact={exact!r} is defined for measure='attention' (its q and k have a first-order form), not for {measure!r}"
        )
    if exact == "where_needed" and top is None:
        raise ValueError(
            "exact='where_needed' must know the cut: give top, the share of each layer's units that will be selected"
        )
    return (
        shares(top, [site for site in sites if site in ("q", "k")])
        if exact == "where_needed" and top is not None
        else {}
    )


def _ffn(model: Any, layer: int, post: Float[Tensor, "batch pos width"]) -> Float[Tensor, " width"]:
    down = blocks(model)[layer].mlp.W_out.detach()
    return torch.linalg.vector_norm(post[0].float(), dim=0) * torch.linalg.vector_norm(down.float(), dim=1)


def _released(model: Any, layer: int, att: Attention, sites: Iterable[Site]) -> dict[Site, Tensor]:
    expanded = released_attention(att)
    shape = heads(model, layer)
    scores: dict[Site, Tensor] = {"q": expanded["q"], "z": expanded["o"]}
    scores |= {"k": fold_heads(expanded["k"], shape), "v": fold_heads(expanded["v"], shape)}
    return {site: scores[site] for site in sites}


def _of_z(
    z: Float[Tensor, "head pos d_head"], w_o: Float[Tensor, "head d_head d_model"], group: int, site: Site
) -> Float[Tensor, " width"]:
    """Importances of z or v, which need no more than what enters W_O."""
    norms = (
        value_change(z, w_o, group)
        if site == "v"
        else torch.linalg.vector_norm(z, dim=1) * torch.linalg.vector_norm(w_o, dim=2)
    )
    return rearrange(norms, "head d_head -> (head d_head)")


def _of_attention(
    att: Attention, sites: Iterable[Site], measure: str, exact: str, cut: Mapping[Site, float]
) -> dict[Site, Tensor]:
    scores: dict[Site, Tensor] = {}
    for site in sites:
        if site in ("z", "v"):
            scores[site] = _of_z(att.z, att.W_O, att.group, site)
            continue
        if exact == "always" or (exact == "where_needed" and not covers(att)):
            norms = exact_change(att, site, measure)
        elif not covers(att):
            raise ValueError(
                f"layer {att.layer} has a q/k norm or a soft-cap, which the first-order form does not describe: use exact='always'"
            )
        else:
            norms = estimated_change(att, site, None if exact == "never" else cut[site])
        scores[site] = rearrange(norms, "head d_head -> (head d_head)")
    return scores


@dataclass(frozen=True)
class importances:  # reads as a verb: measure(model, corpora, importances())
    """The statistic that collects `Importances`, one document a batch.

    Raises:
        ValueError: As `neuron_importance`; `top` selects nothing or everything.
    """

    measure: Measure = "output"
    sites: tuple[Site, ...] = NEURON_SITES
    top: float | Mapping[str, float] = 0.1
    """Share of each layer's units that counts as the top of a document: one number, or one per site."""
    exact: Exact = "always"
    length: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", require_sites(self.sites, NEURON_SITES))
        shares(self.top, self.sites)
        _check(self.measure, self.exact, self.top, self.sites)

    @property
    def size(self) -> int:
        """Documents per batch: importance is defined for one."""
        return 1

    def parameters(self) -> dict[str, Any]:
        """What decides the result."""
        top = shares(self.top, self.sites)
        return {
            "statistic": "importances",
            "measure": self.measure,
            "sites": self.sites,
            "top": top,
            "exact": self.exact,
            "length": self.length,
        }

    def __call__(self, model: Any, tokens: Tokens) -> Importances:
        """Importances of one document."""
        found = neuron_importance(model, tokens, measure=self.measure, sites=self.sites, exact=self.exact, top=self.top)
        return Importances.of_document(found, shares(self.top, self.sites), model=fingerprint(model))


def plnd(
    importances: Mapping[str, Importances], *, consensus: float = 1.0, threshold: float | None = None, model: Any = None
) -> dict[str, NeuronSet]:
    """Neurons each language activates consistently.

    Args:
        importances: Per language, what `measure(model, corpora, importances(...))` returned.
        consensus: Share of a language's documents whose top must contain the neuron; 1.0 is the paper's intersection.
        threshold: eps of Eq. 2 instead: the neuron's importance is at least this in every document. Exact only for importances that
            are (`exact="always"`).
        model: Stamped into the sets, so that sets of different models do not combine; default the one that was measured.

    Returns:
        Per language, a set; a language without neurons keeps an empty one.

    Raises:
        ValueError: `consensus` is outside (0, 1], both criteria were given, or a language has no document.
    """
    if not 0 < consensus <= 1:
        raise ValueError(f"consensus={consensus} is not a share of documents: give a number above 0 and at most 1")
    if threshold is not None and consensus != 1.0:
        raise ValueError(
            "threshold is Eq. 2, which holds for all documents: leave consensus at 1.0, or use the top-k consensus without threshold"
        )
    sets = {}
    for language, seen in importances.items():
        if int(seen.documents) < 1:
            raise ValueError(f"no document of {language!r} was measured")
        if threshold is not None:
            masks: dict[Site, Tensor] = {site: minimum >= threshold for site, minimum in seen.minimum.items()}
        else:
            masks = {site: hits.double() >= consensus * int(seen.documents) - 1e-9 for site, hits in seen.hits.items()}
        sets[language] = NeuronSet(masks, model=seen.model if model is None else fingerprint(model))
    return sets


def specific(sets: Mapping[str, NeuronSet], *, minus: Minus = "common") -> dict[str, NeuronSet]:
    """The part of each language's set that is its own.

    Args:
        sets: Per language, a set of neurons.
        minus: What to take away. `"common"`: neurons of *all* the languages (the released code). `"english"`: neurons of English, from
            the other languages. `"others"`: neurons of *any* other language. `"none"`: nothing.

    Raises:
        ValueError: Unknown `minus`; fewer than two languages; `"english"` without `en`.
    """
    if minus not in get_args(Minus):
        raise ValueError(f"unknown minus={minus!r}: choose from {', '.join(get_args(Minus))}")
    if minus == "none":
        return dict(sets)
    if len(sets) < 2:
        raise ValueError(f"what is specific to a language needs another to compare with: got only {list(sets)}")
    if minus == "english":
        if "en" not in sets:
            raise ValueError(f"minus='english' needs the set of 'en': there are {', '.join(sets)}")
        return {language: own if language == "en" else own - sets["en"] for language, own in sets.items()}
    if minus == "common":
        common = None
        for own in sets.values():
            common = own if common is None else common & own
        return {language: own - common for language, own in sets.items()}  # type: ignore[operator]  # there are at least two
    result = {}
    for language, own in sets.items():
        for other, theirs in sets.items():
            own = own if other == language else own - theirs
        result[language] = own
    return result
