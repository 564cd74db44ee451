"""Attribution: gradient x activation of a language's loss, for every neuron of every site in one backward pass.

What setting a neuron to zero does to a document's loss L, to first order (a the neuron's activation, summed over all positions, since `zero`
acts at all of them; L is summed over the tokens that are scored):

    L(a = 0) - L(a)  =  - sum_pos  a[pos] dL/da[pos]  +  O(a^2)         importance = |that|,  or with its sign: positive where L would rise

Detectors of activation (LAPE, PLND) say where a language is *active*; this asks what its prediction *needs*, in the spirit of the functional
necessity of CRANE (arXiv 2601.04664, of which we know the abstract), by the oldest means: gradient x input, which as an approximation of ablation
is attribution patching with a source of zeros. It is exact for a unit that acts linearly on the loss, and knows nothing of what saturates: a
softmax that is already decided has no gradient. `causal.py` measures what this estimates.

Activations are taken where `zero` acts: q and k before norm and rotation, k and v grouped. Parameters receive no gradient. The loss may be restricted
to answer tokens (`of`); attention to the prompt is attributed all the same. BOS and prompt count as positions of a neuron, padding has no gradient.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..capture import as_tokens, device_of
from ..corpora import Tokens
from ..models import fingerprint
from ..sites import NEURON_SITES, Site, blocks, flatten_heads, n_layers, require_hook, require_sites
from ..stats import Importances, shares

Target = Callable[[Tokens], Tensor]
"""Which tokens are scored: a function of a batch that returns Bool[batch pos]."""
Of = str | Mapping[str, int] | Target


def attributions(
    model: Any, tokens: Tokens | Tensor, *, sites: Iterable[str] = NEURON_SITES, of: Of = "loss"
) -> dict[Site, Float[Tensor, "batch layer width"]]:
    """First-order change of each document's loss when a neuron is set to zero.

    Args:
        model: What `load_model` returned, in float32 or float64; edits in force apply.
        tokens: A batch, or ids [batch pos].
        sites: Sites wanted; default q, k, v, z, ffn.
        of: `"loss"`: the tokens that `tokens.keep` keeps. A mapping of document (or `language/document`) to how many tokens at its end are its
            answer. Or a function of the batch that returns a mask of the tokens to score; it is intersected with nothing, so mind BOS.

    Returns:
        Per site [batch layer width], float64, in nats, with sign: above zero where the loss would rise without the neuron.

    Raises:
        ValueError: A model in half precision or one that sees what it predicts; a document without a token to predict; a target of another
            shape; a gradient or loss that is not finite.
        RuntimeError: A hook point did not fire.
        NotImplementedError: The FFN site of a mixture of experts.
    """
    chosen = require_sites(sites, NEURON_SITES)
    _require_differentiable(model)
    tokens = as_tokens(tokens, model)
    names: dict[tuple[Site, int], str] = {
        (site, layer): require_hook(model, site, layer) for site in chosen for layer in range(n_layers(model))
    }
    held: dict[tuple[Site, int], Tensor] = {}

    def hold(activation: Tensor, hook: Any, *, place: tuple[Site, int]) -> Tensor:
        # the first sites of a frozen model hang on nothing that has a gradient: the graph begins there
        held[place] = activation if activation.requires_grad else activation.detach().requires_grad_()
        return held[place]

    hooks = [(name, partial(hold, place=place)) for place, name in names.items()]
    with torch.inference_mode(False), torch.enable_grad(), model.hooks(fwd_hooks=hooks):
        tokens = _own(tokens)
        loss = _loss(model, tokens, _scored(tokens, of))
        if silent := [place for place in names if place not in held]:
            raise RuntimeError(
                f"the hook point for {silent[0][0]!r} of layer {silent[0][1]} is listed by this model but never fired: "
                "leave that site out (`mwork-lens doctor` shows which can be measured)"
            )
        gradients = torch.autograd.grad(loss, list(held.values()), allow_unused=True)
    first_order: dict[tuple[Site, int], Tensor] = {}
    for (place, activation), gradient in zip(held.items(), gradients, strict=True):
        if gradient is None:
            raise RuntimeError(
                f"the loss does not depend on the hook point for {place[0]!r} of layer {place[1]}: leave that site out"
            )
        first_order[place] = -flatten_heads(place[0], activation.detach() * gradient).double().sum(1).cpu()
    found: dict[Site, Tensor] = {
        site: torch.stack([first_order[site, layer] for layer in range(n_layers(model))], dim=1) for site in chosen
    }
    for site, values in found.items():
        if not bool(torch.isfinite(values).all()):
            row = int((~torch.isfinite(values)).flatten(1).any(1).nonzero()[0])
            raise ValueError(
                f"NaN or infinite gradient at site {site!r} in {_name(tokens, row)}: load the model in float32 or remove it"
            )
    return found


@dataclass(frozen=True)
class attribution:  # reads as a verb: measure(model, corpora, attribution())
    """The statistic that collects `Importances` by attribution: select from it with `plnd` and `specific`.

    Raises:
        ValueError: A site is unknown; `top` selects nothing or everything; `size` or `length` is not positive; `of` is a word other than
            `"loss"`, an answer without tokens, or a function without a name of its own.
    """

    sites: tuple[Site, ...] = NEURON_SITES
    of: Of = "loss"
    """As in `attributions`. A function decides by its name what a shard holds, so it must be defined in a module."""
    top: float | Mapping[str, float] = 0.1
    """Share of each layer's units that counts as the top of a document: one number, or one per site."""
    signed: bool = False
    """Keep the sign: the top are then the units without which the loss rises most, and means can be negative."""
    size: int = 8
    """Documents per batch: gradients of one batch are held at a time."""
    length: int | None = None
    name: ClassVar[str] = "attribution"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", require_sites(self.sites, NEURON_SITES))
        shares(self.top, self.sites)
        for name, value in (("size", self.size), ("length", self.length)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        _of_name(self.of)

    def parameters(self) -> dict[str, Any]:
        """What decides the result."""
        return {
            "statistic": self.name,
            "sites": self.sites,
            "of": _of_name(self.of),
            "top": shares(self.top, self.sites),
            "signed": self.signed,
            "size": self.size,
            "length": self.length,
        }

    def __call__(self, model: Any, tokens: Tokens | Tensor) -> Importances:
        """Importances of a batch, document by document.

        Raises:
            ValueError: As `attributions`.
        """
        found = attributions(model, tokens, sites=self.sites, of=self.of)
        top, stamp = shares(self.top, self.sites), fingerprint(model)
        documents = len(next(iter(found.values())))
        return reduce(
            add,
            (
                Importances.of_document(
                    {site: values[row] if self.signed else values[row].abs() for site, values in found.items()},
                    top,
                    model=stamp,
                )
                for row in range(documents)
            ),
        )


def _own(tokens: Tokens) -> Tokens:
    """A copy: tensors made in inference mode cannot enter a graph."""
    mask = None if tokens.attention_mask is None else tokens.attention_mask.clone()
    return replace(tokens, ids=tokens.ids.clone(), keep=tokens.keep.clone(), attention_mask=mask)


def _loss(model: Any, tokens: Tokens, scored: Bool[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """Negative log-likelihood of the scored tokens, summed over the batch: a document's gradient is its own."""
    device = device_of(model)
    mask = None if tokens.attention_mask is None else tokens.mask.to(device).long()
    logits = model(tokens.ids.to(device), attention_mask=mask)
    # position i predicts token i+1
    predicts = scored[:, 1:].to(device)
    targets = tokens.ids.to(device)[:, 1:][predicts]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1][predicts].float(), targets, reduction="none").sum()
    if not bool(torch.isfinite(loss)):
        raise ValueError("NaN or infinite loss: load the model with dtype='float32', or soften the edit in force")
    return loss


def _scored(tokens: Tokens, of: Of) -> Bool[Tensor, "batch pos"]:
    """The tokens whose loss counts, as a mask over the tokens that are predicted."""
    if isinstance(of, str):
        scored = tokens.keep.clone()
    elif isinstance(of, Mapping):
        scored = torch.zeros_like(tokens.keep)
        for row in range(len(tokens)):
            held = tokens.mask[row].nonzero().flatten()
            count = _answer(tokens, row, of)
            if count >= len(held):
                raise ValueError(
                    f"an answer of {count} tokens is all of {_name(tokens, row)} ({len(held)} tokens): leave a prompt before it"
                )
            scored[row, held[-count:]] = True
    else:
        scored = of(tokens)
        if not isinstance(scored, Tensor) or scored.dtype != torch.bool or scored.shape != tokens.ids.shape:
            got = f"{scored.dtype} {list(scored.shape)}" if isinstance(scored, Tensor) else type(scored).__name__
            raise ValueError(
                f"of must return a boolean mask [batch, pos] {list(tokens.ids.shape)} of the tokens to score, got {got}"
            )
        scored = scored & tokens.mask
    before = torch.zeros_like(tokens.mask)
    before[:, 1:] = tokens.mask[:, :-1]  # on the left, padding predicts nothing
    scored = scored & before
    if not bool(scored.any(1).all()):
        row = int((~scored.any(1)).nonzero()[0])
        raise ValueError(
            f"no token of {_name(tokens, row)} is predicted from another ({int(tokens.mask[row].sum())} token(s), of={_of_name(of)!r}): "
            "remove it, or score other tokens"
        )
    return scored


def _answer(tokens: Tokens, row: int, answers: Mapping[str, int]) -> int:
    name = tokens.documents[row] if tokens.documents else f"row {row}"
    for key in (f"{tokens.language}/{name}", name):
        if key in answers:
            return answers[key]
    raise ValueError(f"of names no answer for {_name(tokens, row)}: it has {', '.join(list(answers)[:3])}, ...")


def _name(tokens: Tokens, row: int) -> str:
    return f"document {tokens.documents[row]!r}" if tokens.documents else f"row {row}"


def _of_name(of: Of) -> Any:
    """What a shard's identity records of a target."""
    if isinstance(of, str):
        if of != "loss":
            raise ValueError(
                f"of={of!r} is unknown: give 'loss', answer lengths by document, or a function of the batch that returns a mask"
            )
        return of
    if isinstance(of, Mapping):
        if bad := [name for name, count in of.items() if count < 1]:
            raise ValueError(f"the answer of document {bad[0]!r} has {of[bad[0]]} tokens: it needs at least one")
        return dict(of)
    name = f"{getattr(of, '__module__', '')}.{getattr(of, '__qualname__', '')}"
    if "<" in name or name.endswith("."):
        raise ValueError(f"of is {name or of!r}, which has no name of its own: define the function in a module")
    return name


def _require_differentiable(model: Any) -> None:
    blocks(model)
    architecture = str(getattr(model.cfg, "architecture", ""))
    if "MaskedLM" in architecture:
        raise ValueError(
            f"{architecture} sees the tokens it predicts: attribution of a next-token loss needs a causal decoder"
        )
    dtype = next(model.parameters()).dtype
    if dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"gradients of a model in {str(dtype).removeprefix('torch.')} lose small effects: load it with dtype='float32'"
        )
