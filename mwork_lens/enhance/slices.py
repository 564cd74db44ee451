"""Which rows and columns of which matrices a set of neurons owns, in a TransformerLens model and in the plain one behind it.

    site    in                                     out
    q k v   row of W_Q, W_K, W_V (and its bias)    -
    z       -                                      column of W_O
    ffn     row of W_up (and its bias)             column of W_down         W_gate: the in-slice too, if asked for

The paper trains q, k, v and up rows and down columns, and leaves W_gate and W_O alone: `both`, without the gate. A neuron of `z` owns a column of
W_O only; the paper's sets hold none.

In a plain Hugging Face model the same numbers lie in matrices of other names and layouts (fused qkv, fused gate and up, transposed linear maps). They
are found by where the rows lie in memory, not by a table of families; the copies that TransformerLens makes of fused q, k and v (BLOOM,
NeoX) are head by head, then q, k, v. Either way what is found is compared with what runs, number by number, before it is used.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..neurons import NeuronSet
from ..plain import tensors_of
from ..sites import Site, bias, heads, n_layers, require_sites, weight, widths

Part = Literal["in", "out", "both"]

IN = ("W_Q", "W_K", "W_V", "W_up", "W_gate", "b_Q", "b_K", "b_V", "b_up", "b_gate")
OUT = ("W_O", "W_down")
_GATE = ("W_gate", "b_gate")
SITE_OF: dict[str, Site] = {"Q": "q", "K": "k", "V": "v", "O": "z", "up": "ffn", "gate": "ffn", "down": "ffn"}


class Slice(NamedTuple):
    """Some rows (or columns) of one matrix, or entries of one bias."""

    layer: int
    matrix: str
    """W_Q, W_K, W_V, W_O, W_up, W_gate, W_down, or b_Q, b_K, b_V, b_up, b_gate."""
    units: Int[Tensor, " unit"]

    @property
    def key(self) -> str:
        """Such as `3.W_Q`."""
        return f"{self.layer}.{self.matrix}"


class Place(NamedTuple):
    """Where the units of a matrix lie in a plain Hugging Face model."""

    name: str
    """Of the parameter."""
    dim: int
    """Along which units run."""
    at: Int[Tensor, " width"]
    """Where every unit of the site is, along `dim`."""


def owned(model: Any, neurons: NeuronSet, part: Part = "both", *, gate: bool = False) -> tuple[Slice, ...]:
    """The slices of a set of neurons.

    Args:
        model: What `load_model` returned.
        neurons: A set of this model.
        part: `in` (what a neuron reads with), `out` (what it writes with), or `both`.
        gate: Whether the rows of W_gate belong to what a gated FFN neuron reads with.

    Returns:
        One slice per layer and matrix that the set touches.

    Raises:
        ValueError: The set is empty, of another model's shape, or owns no slice of this part; `part` is unknown.
    """
    if part not in ("in", "out", "both"):
        raise ValueError(f"part={part!r}: choose in, out or both")
    if not neurons:
        raise ValueError("this NeuronSet is empty, so there is nothing to train; check `if neurons:` before")
    sites = require_sites([site for site, mask in neurons.masks.items() if bool(mask.any())])
    for site, width in widths(model, sites).items():
        if (found := list(neurons.masks[site].shape)) != [n_layers(model), width]:
            raise ValueError(
                f"the NeuronSet has {found} (layer, width) at site {site!r}, this model {[n_layers(model), width]}: "
                "it was detected on another model"
            )
    made = []
    for site in sites:
        for layer in range(n_layers(model)):
            if len(units := neurons.masks[site][layer].nonzero().flatten()):
                made += [Slice(layer, name, units) for name in _matrices(model, site, layer, part, gate)]
    if not made:
        raise ValueError(
            f"{neurons!r} owns no slice that is {part!r}: neurons of q, k and v have no `out`, those of z no `in`"
        )
    return tuple(made)


def _matrices(model: Any, site: str, layer: int, part: Part, gate: bool) -> Iterator[str]:
    wanted = (*(IN if part != "out" else ()), *(OUT if part != "in" else ()))
    for name in (*weight(model, site, layer), *bias(model, site, layer)):
        if name in wanted and (gate or name not in _GATE):
            yield name


def rows(model: Any, layer: int, matrix: str) -> Float[Tensor, "width *d_model"]:  # noqa: F821  # jaxtyping: d_model or nothing
    """A matrix of a TransformerLens model, one row a unit, or a bias: a view, so that writing to it changes what runs.

    Raises:
        ValueError: There is no such matrix.
        NotImplementedError: TransformerLens computes it anew each time, so it cannot be written to.
    """
    site = SITE_OF.get(matrix[2:], "")
    found = {**weight(model, site, layer), **bias(model, site, layer)} if site else {}
    if matrix not in found:
        raise ValueError(f"layer {layer} of this model has no {matrix!r}; it has {', '.join(found) or 'no such site'}")
    view = found[matrix].detach()
    storage = view.untyped_storage().data_ptr()
    if not any(p.untyped_storage().data_ptr() == storage for p in model.parameters()):
        raise NotImplementedError(
            f"{matrix} of this model is not a view of a parameter, so a slice of it cannot be trained"
        )
    return view


def locate(model: Any, plain: Any, layer: int, matrix: str) -> Place:
    """Where the units of a matrix lie in the plain model that `plain_model` made of this one.

    Raises:
        NotImplementedError: Not found, or what lies there is something else.
    """
    view = rows(model, layer, matrix)
    named = tensors_of(plain)
    place = _fused(model, named, layer, matrix) or _in_memory(model, named, view)
    if place is not None:
        found = named[place.name].detach().index_select(place.dim, place.at.to(view.device))
        if torch.equal(found if place.dim == 0 else found.T, view):
            return place
    raise NotImplementedError(
        f"{matrix} of layer {layer} was not found in {type(plain).__name__}: this family's layout is not known"
    )


def _in_memory(model: Any, named: dict[str, Any], view: Tensor) -> Place | None:
    """By address: which parameter of the wrapped model the view lies in, and at which offset."""
    from ..unwrapped import plain_name

    for name, tensor in model.original_model.named_parameters(remove_duplicate=False):
        if (name := plain_name(name)) not in named:
            continue
        offset, rest = divmod(view.data_ptr() - tensor.data_ptr(), tensor.element_size())
        if rest or not 0 <= offset < tensor.numel() or not tensor.is_contiguous():
            continue
        units = torch.arange(len(view))
        if view.ndim == 1:
            return Place(name, 0, offset + units)
        columns = tensor.shape[1]
        if view.stride() == (columns, 1):
            return Place(name, 0, offset // columns + units)
        if view.stride() == (1, columns):
            return Place(name, 1, offset + units)
    return None


def _fused(model: Any, named: dict[str, Any], layer: int, matrix: str) -> Place | None:
    """In a `query_key_value` whose q, k and v TransformerLens runs as copies."""
    kind = "weight" if matrix.startswith("W_") else "bias"
    places = [name for name in named if name.endswith(f"query_key_value.{kind}")]
    if matrix[2:] not in "QKV" or not places:
        return None
    shape = heads(model, layer)
    head, unit = torch.arange(shape.query)[:, None], torch.arange(shape.d_head)
    index = (head * 3 + "QKV".index(matrix[2:])) * shape.d_head + unit
    return Place(places[layer], 0, index.flatten())
