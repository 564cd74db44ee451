"""Switch a language's neurons on, another's off, or both (Tang et al. 2024, section 5).

A steering edit puts values on act(gate) of chosen FFN neurons (site `ffn_act`): in TransformerLens `hook_post = v` would be something else, because
the hook carries act(gate) x up. The paper assigns values "by hand" and releases no code for it. So the value, how it is put there, how strongly, and
at which positions are arguments here, and are recorded with every result:

    value       mean        mean of act(gate) over the language's own tokens
                firing      mean over the tokens on which the neuron is above zero (mean / share of firing tokens, of the positive part)
                contrast    mean of the language minus the mean of the other languages' means (a direction, for adding)
                quantile    `quantile_values`, from the model itself
    how         replace     a := strength * value
                add         a := a + strength * value
    off         the other language's neurons are set to `off_value` (0), *before* the first language's are switched on: a neuron of both gets the
                value (replace) or off_value + value (add)
    phase       all, prompt, new: the positions of a generation at which the edit acts

A steered model can do worse at everything else: `steering_table` (tables.py) has fluency and repetition beside language accuracy, and `damage`
the loss on texts of every language.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..capture import capture, forward
from ..corpora import Corpus, Tokens, batches
from ..edits import Edit, applied, during
from ..interventions import set_to, steer
from ..models import fingerprint
from ..neurons import NeuronSet
from ..sites import Site, shape_of
from ..stats import Moments
from ..strata import DocumentMoments

SITE: Site = "ffn_act"

AnyMoments = Moments | DocumentMoments

Value = Literal["mean", "firing", "contrast"]
How = Literal["replace", "add"]


def steering_values(
    moments: Mapping[str, AnyMoments], language: str, kind: str = "mean"
) -> Float[Tensor, "layer width"]:
    """Values of act(gate) that switch a language's neurons on.

    Args:
        moments: Per language, of site `ffn_act`; `firing` of `DocumentMoments` needs all documents that were measured.
        language: Whose tokens.
        kind: `mean`, `firing` or `contrast`, as above.

    Returns:
        A value for every FFN unit, float32.

    Raises:
        ValueError: The language or `ffn_act` was not measured; the kind is unknown, or needs other languages and there are none.
    """
    if language not in moments:
        raise ValueError(f"no moments of language {language!r}: there are {', '.join(moments) or 'none'}")
    if missing := [name for name, stat in moments.items() if SITE not in stat.sites]:
        raise ValueError(
            f"the moments of {missing[0]!r} are of {', '.join(moments[missing[0]].sites)}: steering needs act(gate), measure moments({SITE!r})"
        )
    if kind == "mean":
        found = moments[language].mean(SITE)
    elif kind == "firing":
        stat = moments[language]
        found = (stat.moments() if isinstance(stat, DocumentMoments) else stat).firing_mean(SITE)
    elif kind == "contrast":
        others = [stat.mean(SITE) for name, stat in moments.items() if name != language]
        if not others:
            raise ValueError(f"a contrast is against other languages, and there is only {language!r}: use kind='mean'")
        found = moments[language].mean(SITE) - torch.stack(others).mean(0)
    else:
        raise ValueError(f"unknown kind of value {kind!r}: choose mean, firing or contrast")
    return found.float()


def quantile_values(
    model: Any,
    corpus: Corpus,
    neurons: NeuronSet,
    q: float,
    *,
    tokens: int = 20_000,
    size: int = 16,
    length: int | None = None,
) -> Float[Tensor, "layer width"]:
    """A quantile of act(gate) of each neuron of a set over a language's tokens; 0 for the units outside it.

    Quantiles do not add, so they are taken from the first `tokens` tokens, of the set's neurons only.

    Args:
        model: What `load_model` returned.
        corpus: Documents of the language.
        neurons: FFN neurons.
        q: Between 0 and 1.
        tokens: How many tokens to look at, at most.
        size: Documents per batch.
        length: Tokens per document at most.

    Raises:
        ValueError: `q` is no share, the set is empty or not of the FFN.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q={q} is not a quantile: give a number between 0 and 1, such as 0.9")
    if tokens < 1:
        raise ValueError(f"tokens={tokens}: a quantile needs at least one token")
    units = require_units(neurons, "quantile_values")
    require_same(model, units, "the neurons")
    mask = units.masks[SITE]
    layers = mask.any(1).nonzero().flatten().tolist()
    kept: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    seen = 0
    for batch in batches(corpus, model, size=size, length=length):

        def on_layer(layer: int, activations: Mapping[str, Tensor], batch: Tokens = batch) -> None:
            here = activations[SITE]
            kept[layer].append(here[batch.keep.to(here.device)][:, mask[layer].to(here.device)].float().cpu())

        capture(model, batch, [SITE], on_layer, layers=layers, fused=True)
        seen += int(batch.keep.sum())
        if seen >= tokens:
            break
    values = torch.zeros(mask.shape)
    for layer, parts in kept.items():
        values[layer, mask[layer]] = torch.quantile(torch.cat(parts)[:tokens], q, dim=0)
    return values


def switch(
    *,
    on: NeuronSet | None = None,
    values: Float[Tensor, "layer width"] | None = None,
    off: NeuronSet | None = None,
    off_value: float = 0.0,
    how: str = "replace",
    strength: float = 1.0,
    phase: str = "all",
) -> tuple[Edit, ...]:
    """Edits that switch neurons off, then others on: `with applied(model, *switch(on=sets["fr"], values=..., off=sets["en"]))`.

    Args:
        on: FFN neurons to switch on.
        values: What act(gate) becomes, or what is added to it, per layer and unit; entries outside `on` are ignored.
        off: FFN neurons to switch off.
        off_value: What act(gate) of these becomes (Tang et al.: 0; other releases use -1 and -1.5).
        how: `replace` or `add`.
        strength: Factor on `values`.
        phase: `all`, `prompt` or `new` positions of a generation.

    Raises:
        ValueError: Neither on nor off is given, or one is empty; `values` is missing or of another shape; `how` or `phase` is unknown.
    """
    if on is None and off is None:
        raise ValueError("switch() without neurons would do nothing: give on=, off=, or both")
    if not torch.isfinite(torch.tensor([strength, off_value])).all():
        raise ValueError(f"strength={strength}, off_value={off_value}: give finite numbers")
    if how not in ("replace", "add"):
        raise ValueError(f"unknown how={how!r}: choose replace or add")
    edits = []
    if off is not None:
        edits.append(set_to(require_units(off, "off"), off_value))
    if on is not None:
        units = require_units(on, "on")
        mask = units.masks[SITE]
        if values is None or values.shape != mask.shape:
            got = "nothing" if values is None else list(values.shape)
            raise ValueError(
                f"switching neurons on needs values [layer, width] {list(mask.shape)}, got {got}: steering_values makes them"
            )
        scaled = strength * values
        if how == "replace":
            edits.append(set_to(units, {SITE: scaled}))
        else:
            edits.append(steer(scaled * mask, SITE, by=1.0, model=units.model))
    return tuple(during(edit, phase) for edit in edits)


def require_units(neurons: NeuronSet, what: str) -> NeuronSet:
    """FFN neurons at `ffn_act`.

    Raises:
        ValueError: The set is empty, or holds neurons of other sites.
    """
    if not neurons:
        raise ValueError(
            f"{what}: this set of neurons is empty, so there is nothing to steer; detect with a larger rate, or leave the language out"
        )
    return neurons.at(SITE)


def require_same(model: Any, what: NeuronSet | AnyMoments, name: str) -> None:
    """Refuse neurons or moments of another model.

    Raises:
        ValueError: The fingerprints differ, or the FFN has another shape.
    """
    if what.model is not None and what.model != fingerprint(model):
        raise ValueError(f"{name} are of another model ({what.model}): detect and measure them on this one")
    shape = what.shapes[SITE] if isinstance(what, NeuronSet) else tuple(what.counts(SITE).shape)
    if SITE in what.sites and shape != shape_of(model, [SITE])[SITE]:
        raise ValueError(
            f"{name} are of another model: [layer, width] {list(shape)}, this one has {list(shape_of(model, [SITE])[SITE])}"
        )


def require_effect(model: Any, tokens: Tokens, *edits: Edit) -> float:
    """Refuse edits that change nothing (a published evaluation was of such an edit, unnoticed) or that stay behind.

    Returns:
        Largest change of a logit.

    Raises:
        RuntimeError: The logits are the same with the edits in force, or not the same afterwards as before.
    """
    before = forward(model, tokens)
    with applied(model, *edits):
        change = float((forward(model, tokens) - before).abs().max())
    if not change > 0:  # nan included
        raise RuntimeError(
            "the edits leave every logit as it was: they do nothing on this text; check neurons and values"
        )
    if not torch.equal(forward(model, tokens), before):
        raise RuntimeError(
            "the logits are not the same after the edits were taken off: another hook of this model keeps a state"
        )
    return change


def own_units(sets: Mapping[str, NeuronSet], languages: Iterable[str], model: Any) -> dict[str, NeuronSet]:
    """The FFN neurons of languages that are to be steered, at `ffn_act`.

    Raises:
        ValueError: A language has no set or an empty one; a set holds neurons of other sites, or is of another model.
    """
    found = {}
    for language in languages:
        if not sets.get(language):
            held = ", ".join(name for name, neurons in sets.items() if neurons) or "no language"
            raise ValueError(
                f"language {language!r} has no neurons to steer: raise the detector's rate, or choose among {held}"
            )
        units = sets[language]
        found[language] = require_units(units, language)
        require_same(model, found[language], f"the neurons of {language!r}")
    return found
