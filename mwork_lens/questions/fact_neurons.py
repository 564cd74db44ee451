"""Which FFN units hold a fact? Integrated gradients at the units, towards the right object.

At the last position of the prompt the activation vector a of one layer is scaled as a whole, by c_1 .. c_m evenly spaced from 0 to 1 (m = 20), and

    attr_j = a_j * mean_s  d F(object | layer vector at c_s a) / d (its unit j)                      per prompt [layer width]

F is `probability`: the object's, and for an object of several tokens the geometric mean of theirs, exp(mean log p); or `logp`: that mean
log-probability itself, in nats. A fact's units in a language are those with attr > `threshold` (.3) times the largest of all layers; its *shared*
units are those of more than `share` (.5) of its languages: knowledge that does not depend on the language asked in.

As the layer is scaled jointly its attributions are complete: they sum to F(a) - F(0), the effect of switching the whole layer off at this position,
as m grows. The end points are among the c_s, so F(a) and F(0) are measured on the way and kept (`score`, `zeroed`), and `table` shows the gap.

Reference: Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers" (arXiv 2104.08696); defaults as read in EleutherAI/knowledge-neurons and
its multilingual fork. Choices: units of a gated FFN are signed, so the zero where the path begins is a choice and not their rest; units with attr < 0
speak against the object and are never chosen. `rule="trapezoid"` gives the end points half their weight, and a far smaller gap. A threshold
relative to the largest gives *any* object some units: `other_objects` is the control. Where a norm follows the FFN (Gemma 2 and 3, OLMo 2) its output
hardly depends on the scale until it is next to 0, so that the path is a step at its beginning: look at `gap` before believing attributions there.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..capture import device_of
from ..corpora import pad
from ..evaluate import require_causal
from ..models import fingerprint
from ..neurons import NeuronSet
from ..progress import hidden
from ..sites import n_layers, require_hook, shape_of
from ..storage import content_hash
from ..tasks.likelihood import Continuation, continuations
from ..tasks.task import Item, Task

OF = ("probability", "logp")
RULES = ("mean", "trapezoid")
ATTRIBUTED = ("item", "language", "layer", "units", "total", "effect", "gap", "score", "tokens")
"""Columns of `FactAttributions.table`: units chosen in the layer, sum of attributions, F(a) - F(0), sum minus that, F(a), tokens of the object."""


@dataclass(frozen=True, eq=False)
class FactAttributions:
    """Attributions of facts in languages, and what to choose from them."""

    items: tuple[str, ...]
    """Ids, the same in every language."""
    languages: tuple[str, ...]
    attributions: Float[Tensor, "item lang layer width"]
    """float32, in units of F; nan where a language lacks the item, 0 in layers that were not measured."""
    score: Float[Tensor, "item lang"]
    """F of the model as it is."""
    zeroed: Float[Tensor, "item lang layer"]
    """F with the layer's units all 0 at the last position of the prompt."""
    tokens: Int[Tensor, "item lang"]
    """Of the object; 0 where a language lacks the item."""
    layers: tuple[int, ...]
    """Those that were measured."""
    of: str
    """`probability` or `logp`."""
    model: str | None = None
    """Fingerprint of the model."""

    def units(self, item: str, language: str, *, threshold: float = 0.3) -> NeuronSet:
        """The units of a fact in a language: attr > threshold x the largest; empty if no attribution is above 0.

        Raises:
            KeyError: There is no such item in the language.
            ValueError: `threshold` is outside [0, 1).
        """
        if item not in self.items or language not in self.languages:
            raise KeyError(f"no attributions of {item!r} in {language!r}: languages are {', '.join(self.languages)}")
        row, column = self.items.index(item), self.languages.index(language)
        if not int(self.tokens[row, column]):
            raise KeyError(f"{language!r} does not have item {item!r}")
        return NeuronSet({"ffn": _above(self.attributions[row, column], threshold)}, model=self.model)

    def shared(
        self, item: str, languages: Sequence[str] | None = None, *, share: float = 0.5, threshold: float = 0.3
    ) -> NeuronSet:
        """The units of a fact in more than `share` of the languages that have it.

        Args:
            item: Its id.
            languages: Among which; default all.
            share: Between 0 (in any language) and below 1.
            threshold: As in `units`.

        Raises:
            KeyError: No language has the item.
            ValueError: `share` or `threshold` is outside [0, 1).
        """
        if not 0 <= share < 1:
            raise ValueError(f"share={share}: give a share of the languages, at least 0 and below 1")
        asked = self.languages if languages is None else tuple(languages)
        row = self.items.index(item) if item in self.items else -1
        if unknown := [x for x in asked if x not in self.languages]:
            raise KeyError(f"no attributions in {unknown[0]!r}: languages are {', '.join(self.languages)}")
        having = [x for x in asked if row >= 0 and self.tokens[row, self.languages.index(x)]]
        if not having:
            raise KeyError(f"no language has item {item!r}")
        masks = torch.stack([self.units(item, x, threshold=threshold).masks["ffn"] for x in having])
        return NeuronSet({"ffn": masks.sum(0) > share * len(having)}, model=self.model)

    def table(self, *, threshold: float = 0.3) -> pd.DataFrame:
        """Columns `ATTRIBUTED`, a row per item, language and measured layer."""
        rows = []
        for (row, item), (column, language) in product(enumerate(self.items), enumerate(self.languages)):
            if not (tokens := int(self.tokens[row, column])):
                continue
            chosen = self.units(item, language, threshold=threshold).counts()["ffn"].tolist()
            score = float(self.score[row, column])
            for layer in self.layers:
                total = float(self.attributions[row, column, layer].double().sum())
                effect = score - float(self.zeroed[row, column, layer])
                rows.append((item, language, layer, chosen[layer], total, effect, total - effect, score, tokens))
        return pd.DataFrame(rows, columns=list(ATTRIBUTED))


def fact_attributions(
    model: Any, task: Task, languages: Sequence[str] | None = None, *, of: str = "probability", steps: int = 20, rule: str = "mean",
    layers: Iterable[int] | None = None, size: int = 160, progress: bool = True,
) -> FactAttributions:  # fmt: skip
    """Integrated gradients of every FFN unit towards the first answer of every item.

    Args:
        model: What `load_model` returned, in float32, float64 or bfloat16 (sums are float32); edits in force apply.
        task: Facts; items of one id are one fact in several languages. It does not matter how the task is asked.
        languages: Whose items; default all of the task's.
        of: What is attributed: see the top of this module.
        steps: m, at least 2: the zero and the activation itself are among them.
        rule: Weights of the steps: their mean, as released, or the trapezoidal rule.
        layers: Layers to attribute to, one at a time; default all.
        size: Rows per batch; a row is one prompt at one step.
        progress: Show a bar.

    Raises:
        ValueError: A setting out of range; a layer or language that does not exist; no item; a prompt too long, or an answer without tokens (as
            `continuations`); NaN or infinite values; a model in float16 or one that sees what it predicts.
        RuntimeError: A hook point did not fire.
        NotImplementedError: A mixture of experts.
    """
    from tqdm.auto import tqdm

    chosen = _check(model, of, steps, rule, layers, size)
    task = task if languages is None else task.only(languages)
    items = tuple(dict.fromkeys(item.id for item in task.items))
    names = tuple(f"item {item.id!r} in {item.language!r}" for item in task.items)
    wholes = [[item.joined(item.answers[0])] for item in task.items]
    rows = [one for (one,) in continuations(model, [item.prompt for item in task.items], wholes, names)]
    place = [(items.index(item.id), task.languages.index(item.language)) for item in task.items]
    depth, width = shape_of(model, ["ffn"])["ffn"]
    values = torch.full((len(items), len(task.languages), depth, width), torch.nan)
    score = torch.full(values.shape[:2], torch.nan, dtype=torch.double)
    zeroed, tokens = score[..., None].repeat(1, 1, depth), torch.zeros(values.shape[:2], dtype=torch.long)
    for at, row in zip(place, rows, strict=True):
        values[at], tokens[at] = 0, row.tokens
    scales = torch.linspace(0, 1, steps)
    weights = torch.ones(steps) / steps
    if rule == "trapezoid":
        weights = torch.ones(steps) / (steps - 1)
        weights[[0, -1]] /= 2
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))  # alike in length: little padding
    pairs = [(i, s) for i in order for s in range(steps)]
    with tqdm(total=len(chosen) * len(pairs), unit="row", desc="attributing", disable=hidden(progress)) as bar:
        for layer, at in product(chosen, range(0, len(pairs), size)):
            part = pairs[at : at + size]
            scale = scales[[s for _, s in part]]
            made, found = _integrand(model, [rows[i] for i, _ in part], [names[i] for i, _ in part], layer, scale, of)
            for (i, s), gradient, value in zip(part, made * weights[[s for _, s in part], None], found, strict=True):
                values[place[i]][layer] += gradient
                if s == 0:
                    zeroed[place[i]][layer] = value
                elif s == steps - 1:
                    score[place[i]] = value
            bar.update(len(part))
    return FactAttributions(items, task.languages, values, score, zeroed, tokens, chosen, of, fingerprint(model))


def other_objects(task: Task, *, like: str = "relation", seed: int = 0) -> Task:
    """The same prompts, each with the object of another fact of the same relation, the same one in every language: labels at random.

    Args:
        task: The facts.
        like: The field of `meta` that says which objects fit a prompt.
        seed: Of the choice.

    Returns:
        Items without choices, for `fact_attributions` and `answer_nll` (`how="loglik"`).

    Raises:
        ValueError: An item lacks the field, or no other fact of its relation has other answers in all of its languages.
    """
    if lacking := [item.id for item in task.items if like not in item.meta]:
        raise ValueError(f"item {lacking[0]!r} has no field {like!r} in its meta: name a field that groups objects")
    facts: dict[str, dict[str, Item]] = {}
    for item in task.items:
        facts.setdefault(item.id, {})[item.language] = item
    kind = {name: next(iter(found.values())).meta[like] for name, found in facts.items()}
    made: dict[str, str] = {}
    for name, mine in facts.items():
        fitting = [
            other for other, theirs in facts.items()
            if kind[other] == kind[name] and all(x in theirs and not set(theirs[x].answers) & set(item.answers) for x, item in mine.items())
        ]  # fmt: skip
        if not fitting:
            raise ValueError(f"no other fact of {kind[name]!r} has another object than {name!r} in all its languages")
        made[name] = min(fitting, key=lambda other, name=name: content_hash(seed, name, other))
    items = tuple(
        replace(item, answers=facts[made[item.id]][item.language].answers[:1], choices=()) for item in task.items
    )
    return replace(task, name=f"{task.name}-other-objects", items=items, how="loglik", metric="")


def _above(values: Float[Tensor, "layer width"], threshold: float) -> Bool[Tensor, "layer width"]:
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold}: give a share of the largest attribution, at least 0 and below 1")
    return values > threshold * values.max().clamp(min=0)


def _check(model: Any, of: str, steps: int, rule: str, layers: Iterable[int] | None, size: int) -> tuple[int, ...]:
    require_causal(model)
    for name, value, known in (("of", of, OF), ("rule", rule, RULES)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: choose {' or '.join(known)}")
    if steps < 2:
        raise ValueError(f"steps={steps}: the path needs both its ends, so at least 2 steps, better 20")
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
    depth = n_layers(model)
    chosen = tuple(range(depth)) if layers is None else tuple(dict.fromkeys(layers))
    if not chosen:
        raise ValueError(f"no layer given: choose from 0..{depth - 1}, or leave `layers` out for all")
    for layer in chosen:
        require_hook(model, "ffn", layer)
    if next(model.parameters()).dtype == torch.float16:
        raise ValueError("gradients of a probability underflow in float16: load the model in float32 or bfloat16")
    return chosen


def _integrand(
    model: Any, rows: Sequence[Continuation], names: Sequence[str], layer: int, scale: Float[Tensor, " row"], of: str
) -> tuple[Float[Tensor, "row width"], Float[Tensor, " row"]]:
    """Activation x gradient where the layer's vector at the last position of the prompt is scaled, and F there; float32, on the CPU."""
    device = device_of(model)
    held: list[tuple[Tensor, Tensor]] = []

    def scaled(x: Tensor, hook: Any) -> Tensor:
        x = x.detach().clone()  # the graph begins here
        a = x[each, before].float()
        leaf = (a * scale.to(a.device)[:, None]).to(x.dtype).requires_grad_()
        x[each, before] = leaf
        held.append((a, leaf))
        return x

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        model.hooks(fwd_hooks=[(require_hook(model, "ffn", layer), scaled)]),
    ):
        # made here: tensors of an inference mode around us cannot enter the graph
        each = torch.arange(len(rows), device=device)
        before = torch.tensor([row.start - 1 for row in rows], device=device)
        scale = scale.clone()
        batch = pad([row.ids[:-1] for row in rows], "", (), bos=None)
        mask = None if batch.attention_mask is None else batch.mask.to(device).long()
        value = _score(model(batch.ids.to(device), attention_mask=mask), rows)
        value = value.exp() if of == "probability" else value
        if not held:
            raise RuntimeError(f"the hook point for 'ffn' of layer {layer} is listed by this model but never fired")
        ((a, leaf),) = held
        (gradient,) = torch.autograd.grad(value.sum(), [leaf])
    product = (a * gradient.float()).cpu()
    finite = torch.isfinite(product).all(1) & torch.isfinite(value).cpu()
    if not bool(finite.all()):
        bad = names[int((~finite).nonzero()[0])]
        raise ValueError(f"NaN or infinite values in {bad}, layer {layer}: load the model with dtype='float32'")
    return product, value.detach().cpu()


def _score(logits: Float[Tensor, "row pos vocab"], rows: Sequence[Continuation]) -> Float[Tensor, " row"]:
    """Mean log-probability of the object's tokens; only positions that predict one are normalised."""
    found = [(r, p, row.ids[p + 1]) for r, row in enumerate(rows) for p in range(row.start - 1, len(row.ids) - 1)]
    r, p, token = torch.tensor(found, device=logits.device).T
    likely = logits[r, p].float().log_softmax(-1).gather(1, token[:, None]).squeeze(1)
    sums = torch.zeros(len(rows), device=likely.device).index_add(0, r, likely)
    return sums / torch.tensor([row.tokens for row in rows], device=likely.device)
