"""What an edit does to a text, token by token: two plain runs and their difference, with circuitsvis's `ColoredTokensMulti`.

    change = log P(token | text before it), with the edit  -  the same without it          in nats; or the logit of the token

Negative: the model finds the token less likely with the edit.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..capture import forward
from ..edits import Edit, applied
from ..tokens import Tokens
from ..written import number
from .labels import Document, document
from .page import View, component_text

Measure = Literal["logprob", "logit"]

_MEASURES = {"logprob": "log-probability (nats)", "logit": "logit"}


def edit_view(
    model: Any,
    text: str,
    *edits: Edit,
    measure: Measure = "logprob",
    positions: int = 256,
    title: str = "What an edit changes",
) -> View:
    """The change of each token's log-probability (or logit) when edits are in place, and both values.

    Args:
        model: What `load_model` returned.
        text: Read as one document, BOS included if the tokenizer puts one there.
        edits: What `applied` puts on the model, such as `zero(neurons)`.
        measure: `logprob`, of the token given those before it, or its `logit`.
        positions: Tokens of the text at most.
        title: The heading.

    Returns:
        A view; its property `values` is [pos-1, 3]: change, without, with. The first token is given and has no value.

    Raises:
        TypeError: `text` is not a string.
        ValueError: The text is empty, or has fewer than two tokens; unknown `measure`; no edit, or as `applied`.
        RuntimeError: An edit never fired.
    """
    if measure not in _MEASURES:
        raise ValueError(f"unknown measure {measure!r}: choose {' or '.join(_MEASURES)}")
    read = document(model, text, positions)
    if read.ids.shape[1] < 2:
        raise ValueError(f"the text {text[:20]!r} has one token, and nothing predicts it: give a longer text")
    with applied(model, *edits):
        after = _values(model, read, measure)
    before = _values(model, read, measure)
    change = after - before
    finite = change[change.isfinite()]
    mean = number(float(finite.mean()) if len(finite) else float("nan"), 4, signed=True)
    scales = [_largest(change), *[_largest(torch.cat([before, after]))] * 2]
    first = read.labels[0].shown
    notes = [
        f"Change of each token's {_MEASURES[measure]}: blue is more likely with the edit, red less. Mean {mean}. "
        "Without and with the edit the two have one scale of their own. "
        f"Point at a token for its values. The first token, {first}, is given, not predicted."
    ]
    if unknown := int((~change.isfinite()).sum()):
        notes.append(f"{unknown} token{'s have' if unknown > 1 else ' has'} no finite change and no colour.")
    props = {
        "tokens": [component_text(label.shown) for label in read.labels[1:]],
        "values": torch.stack([change, before, after], dim=1),
        "labels": ["change", "without edit", "with edit"],
        "positiveBounds": scales,
        "negativeBounds": [-scale for scale in scales],
    }
    return View(
        title,
        (*notes, *read.note),
        component="ColoredTokensMulti",
        props=props,
        rtl=read.rtl,
        height=min(900, 380 + 2 * read.ids.shape[1]),
    )


def _largest(values: Float[Tensor, " pos"]) -> float:
    """The largest absolute value that is finite; a little above zero if none is."""
    return max([1e-6, *values[values.isfinite()].abs().tolist()])


def _values(model: Any, read: Document, measure: Measure) -> Float[Tensor, " pos"]:
    """Of every token but the first, what the model said of it one position before."""
    logits = forward(model, Tokens(read.ids, read.ids >= 0))[0, :-1].float().cpu()
    said = logits if measure == "logit" else logits.log_softmax(-1)
    return said.gather(-1, read.ids[0, 1:, None])[:, 0]
