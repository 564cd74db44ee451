"""Causal ground truth: what switching off each neuron alone does to the loss of each document, for every neuron.

    effect(N, c) = NLL(c | N is zero) - NLL(c)           in nats, summed over the scored tokens of document c; above zero: c needs N

No estimate: every neuron is set to zero in turn, exactly as `deactivate` does, and the model is run. It is affordable on small models because
(1) blocks before the neuron's layer are not run again: their output is kept, (2) many copies of the documents, each without another neuron, are one
batch, (3) an FFN neuron enters the residual stream through one row of W_down, so that its block is not run again either (out - a W_down[j]),
(4) nothing behind the last scored token is run, and only scored positions are unembedded.

(3), fused attention and a separate unembedding need the Hugging Face model around the same parameters (`ablation.py`); elsewhere the hook points
are used. Whichever it is must agree with `deactivate` and `document_nll` on random neurons of every site before anything is measured. Scores are
sums of float32 losses: effects below about 1e-6 of a document's NLL are rounding.

The cost is neurons x tokens x remaining blocks (`plan`). Single ablations understate neurons that stand in for each other, and "zero" is one
choice of what a neuron without its language would do (Zhao et al. 2024 take it, too).
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportReturnType=false

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .ablation import stacked
from .corpora import Corpus, Tokens, pad
from .evaluate import Prepared, document_nll, prepare, require_causal
from .measure import claim_folder
from .models import describe, fingerprint
from .progress import hidden
from .sites import NEURON_SITES, Site, n_layers, require_sites, shape_of
from .stats import pack_sites, unpack_sites
from .storage import Run, content_hash, reuse, save

Texts = Prepared | Mapping[str, Corpus] | Mapping[str, Sequence[Tokens]]
"""Documents per group: corpora, batches whose `keep` says which tokens are scored, or what `prepare` made."""


@dataclass(frozen=True, eq=False)
class Effects:
    """The change of each document's loss when one neuron is zero."""

    effect: Mapping[Site, Float[Tensor, "layer width doc"]]
    """Nats, summed over the scored tokens; nan in layers that were not measured."""
    documents: tuple[str, ...]
    """Names within the group."""
    groups: tuple[str, ...]
    """Per document its group: a language, or a language and an ability."""
    tokens: Int[Tensor, " doc"]
    """Scored tokens."""
    baseline: Float[Tensor, " doc"]
    """NLL without ablation, nats."""
    model: str | None = field(default=None, kw_only=True)
    """Fingerprint of the model measured; None means unknown."""

    def regroup(self, group: Callable[[str], str | None]) -> "Effects":
        """With other groups, such as `lambda name: name.split("/")[0]`; documents whose group becomes None are left out.

        A document is named with what its new group no longer says (`text/d0` of `en/text`), so that parallel documents are parallel still; with the
        whole old group where several are joined under a name that is part of none of them.

        Raises:
            ValueError: No document is left.
        """
        named = [group(name) for name in self.groups]
        kept = [i for i, name in enumerate(named) if name is not None]
        if not kept:
            raise ValueError(f"no document is left: the groups were {', '.join(dict.fromkeys(self.groups))}")
        joined = [name for name in set(named) if len({self.groups[i] for i in kept if named[i] == name}) > 1]
        prefix = [_rest(self.groups[i], named[i], named[i] in joined) for i in kept]
        return Effects(
            {site: values[..., kept] for site, values in self.effect.items()},
            tuple(f"{old}/{self.documents[i]}".lstrip("/") for old, i in zip(prefix, kept, strict=True)),
            tuple(named[i] for i in kept),
            self.tokens[kept],
            self.baseline[kept],
            model=self.model,
        )

    def per_token(
        self, weights: Mapping[str, Float[Tensor, " doc"]] | None = None
    ) -> dict[str, dict[Site, Float[Tensor, "layer width"]]]:
        """Mean effect per scored token of each group (a ratio of sums), with documents weighted as in a bootstrap if asked."""
        found = {}
        for group in dict.fromkeys(self.groups):
            mine = [i for i, name in enumerate(self.groups) if name == group]
            drawn = torch.ones(len(mine), dtype=torch.double) if weights is None else weights[group].double()
            total = drawn @ self.tokens[mine].double()
            found[group] = {site: values[..., mine] @ drawn / total for site, values in self.effect.items()}
        return found

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` writes."""
        facts = {"model": self.model, "documents": list(self.documents), "groups": list(self.groups)}
        return {"tokens": self.tokens, "baseline": self.baseline, **pack_sites(effect=self.effect)}, facts

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Effects":
        """The inverse of `to_tensors`."""
        documents, groups = (tuple(facts[name]) for name in ("documents", "groups"))
        effect = unpack_sites(tensors, "effect")
        return cls(effect, documents, groups, tensors["tokens"], tensors["baseline"], model=facts.get("model"))


@dataclass(frozen=True)
class Plan:
    """What an exhaustive ablation costs."""

    neurons: int
    documents: int
    tokens: int
    """Positions of all documents up to their last scored token."""
    runs: int
    """Blocks x tokens x neurons that are run."""

    def __str__(self) -> str:
        return (
            f"{self.neurons:,} neurons, each without it {self.documents} documents of {self.tokens:,} tokens: "
            f"{self.neurons * self.tokens:,} tokens, {self.runs:,} runs of a block on a token"
        )


def plan(model: Any, texts: Texts, *, sites: Iterable[str] = NEURON_SITES, layers: Iterable[int] | None = None) -> Plan:
    """The cost of `ablation_effects` with the same arguments, without running anything."""
    rows, shapes = _rows(model, texts), shape_of(model, sites)
    tokens, depth = sum(len(row.ids[0]) for _, _, row in rows), n_layers(model)
    chosen = _layers(model, layers)
    runs = sum(shape[1] * (depth - layer - (site == "ffn")) for site, shape in shapes.items() for layer in chosen)
    return Plan(sum(shape[1] for shape in shapes.values()) * len(chosen), len(rows), tokens, runs * tokens)


def ablation_effects(
    model: Any,
    texts: Texts,
    *,
    sites: Iterable[str] = NEURON_SITES,
    layers: Iterable[int] | None = None,
    size: int = 8,
    stack: int = 2048,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Effects:
    """Ablate every neuron in turn and score every document.

    Args:
        model: What `load_model` returned, a causal decoder in float32 or float64; edits in force apply.
        texts: Documents per group: corpora, batches whose `keep` says which tokens are scored (answers), or what `prepare` made.
        sites: Sites whose neurons are ablated; default q, k, v, z, ffn.
        layers: In which layers; default all.
        size: Documents per batch.
        stack: Tokens per forward: about stack / (size x length) neurons are ablated together.
        out: Folder for one file per site and layer; None keeps nothing on disk.
        resume: Use the finished files of the same run in `out`.
        progress: Say what it costs, and show a progress bar.

    Raises:
        ValueError: The model sees what it predicts or is in half precision; a document without a scored token, or named twice; an unknown site
            or layer; `size` or `stack` is not positive; logits are not finite.
        FileExistsError: `out` holds another run (one under other edits, too), or this one and `resume` is False.
        NotImplementedError: The FFN site of a mixture of experts.
        RuntimeError: Nothing agrees with `deactivate` on this model.
    """
    from tqdm.auto import tqdm

    chosen, shapes = require_sites(sites, NEURON_SITES), shape_of(model, require_sites(sites, NEURON_SITES))
    for name, value in (("size", size), ("stack", stack)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    rows, depth = _rows(model, texts), _layers(model, layers)
    order = sorted(range(len(rows)), key=lambda i: rows[i][2].ids.shape[1])
    batches = [_batch([rows[i] for i in order[at : at + size]]) for at in range(0, len(order), size)]
    identity = {"method": "ablation", "code": 1, "model": fingerprint(model), "size": size, "stack": stack} | {
        "texts": content_hash([(g, n, r.ids.tolist(), r.keep.tolist()) for g, n, r in rows])
    }
    if out is not None:
        identity["state"] = content_hash([document_nll(model, batch).tolist() for batch in batches])  # edits in force
        claim_folder(Path(out), identity, resume=resume)
    cost = plan(model, texts, sites=chosen, layers=depth)
    way = stacked(model, batches[-1], chosen, depth)
    effect = {site: torch.full((*shapes[site], len(rows)), float("nan"), dtype=torch.double) for site in chosen}
    baseline = torch.empty(len(rows), dtype=torch.double)
    baseline[order] = torch.cat([way.baseline(batch) for batch in batches])
    if progress:
        tqdm.write(f"single-neuron ablation through {way.path}: {cost}")
    with tqdm(total=cost.neurons * cost.tokens, unit="token", unit_scale=True, disable=hidden(progress)) as bar:
        for layer in depth:
            for site in chosen:
                bar.set_postfix_str(f"{site} of layer {layer}")
                key = content_hash(identity, site, layer)
                path = None if out is None else Path(out) / f"{site}-{layer:03d}-{key[:12]}.parquet"
                table = reuse(path if resume else None, key, "ablating these neurons again")
                if table is None:
                    values = torch.empty(shapes[site][1], len(rows), dtype=torch.double)
                    at = 0
                    for batch in batches:
                        mine = order[at : at + len(batch)]
                        scores = way.ablate(batch, site, layer, torch.arange(len(values)), stack=stack)
                        values[:, mine] = scores - baseline[mine]
                        at += len(batch)
                    table = pd.DataFrame(values.numpy(), columns=[str(i) for i in range(len(rows))])
                    if path is not None:
                        save(table, path, Run("ablation", {"key": key, "path": way.path, **identity}, describe(model)))
                effect[site][layer] = torch.tensor(table.to_numpy(float))
                bar.update(shapes[site][1] * cost.tokens)
    return Effects(
        effect,
        tuple(name for _, name, _ in rows),
        tuple(group for group, _, _ in rows),
        torch.tensor([int(row.keep.sum()) for _, _, row in rows]),
        baseline,
        model=fingerprint(model),
    )


def _rows(model: Any, texts: Texts) -> list[tuple[str, str, Tokens]]:
    """(group, name, document) of every document, cut behind its last scored token."""
    require_causal(model)
    dtype = next(model.parameters()).dtype
    if dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"the effect of one neuron is lost in {str(dtype).removeprefix('torch.')}: load the model with dtype='float32'"
        )
    if isinstance(texts, Mapping) and texts and all(isinstance(value, Corpus) for value in texts.values()):
        texts = prepare(model, texts)
    if isinstance(texts, Prepared):
        names = list(zip(texts.names["language"], texts.names["document"], strict=True))
        scored = [batch.row(i) for batch in texts.batches for i in range(len(batch))]
        rows = [(*map(str, names[at]), row) for at, row in sorted(zip(texts.order, scored, strict=True), key=_first)]
    else:
        rows = [
            (group, batch.documents[i] if batch.documents else f"{number}.{i}", batch.row(i))
            for group, batches in texts.items()
            for number, batch in enumerate(batches)
            for i in range(len(batch))
        ]
    if not rows:
        raise ValueError("no documents to score: give at least one per group")
    seen: set[tuple[str, str]] = set()
    for group, name, _ in rows:
        if (group, name) in seen:
            raise ValueError(f"group {group!r} has two documents named {name!r}: names must differ")
        seen.add((group, name))
    return [(group, name, _cut(row, f"{group}/{name}")) for group, name, row in rows]


def _rest(old: str, new: str, joined: bool) -> str:
    """What of a group's old name its new one does not say."""
    left = old.split("/")
    for piece in new.split("/"):
        if piece not in left:
            return old if joined else ""
        left.remove(piece)
    return "/".join(left)


def _first(pair: tuple[int, Tokens]) -> int:
    return pair[0]


def _cut(row: Tokens, name: str) -> Tokens:
    """Without what stands behind the last scored token; the first token is not predicted."""
    keep = row.keep.clone()
    keep[:, 0] = False
    if not bool(keep.any()):
        raise ValueError(f"document {name} has no scored token: remove it, or keep the tokens of its answer")
    end = int(keep[0].nonzero().max()) + 1
    return Tokens(row.ids[:, :end], keep[:, :end], row.language, None, row.documents)


def _batch(rows: Sequence[tuple[str, str, Tokens]]) -> Tokens:
    made = pad([row.ids[0].tolist() for _, _, row in rows], "", [f"{g}/{name}" for g, name, _ in rows], bos=None)
    keep = torch.zeros_like(made.keep)
    for i, (_, _, row) in enumerate(rows):
        keep[i, : row.keep.shape[1]] = row.keep[0]
    return replace(made, keep=keep)


def _layers(model: Any, layers: Iterable[int] | None) -> list[int]:
    depth = n_layers(model)
    chosen = list(range(depth)) if layers is None else list(dict.fromkeys(layers))
    if outside := [layer for layer in chosen if not 0 <= layer < depth]:
        raise ValueError(f"layer {outside[0]} does not exist: this model has layers 0..{depth - 1}")
    if not chosen:
        raise ValueError(f"no layer given: choose from 0..{depth - 1}, or leave `layers` out for all")
    return chosen
