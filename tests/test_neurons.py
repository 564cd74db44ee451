"""NeuronSet against Python sets of tuples."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.neurons import Neuron, NeuronSet, jaccard
from mwork_lens.storage import Run, load, load_run, save

SHAPES = {"q": (2, 3), "ffn": (2, 4)}
UNITS = [
    (site, layer, index)
    for site, (layers, width) in SHAPES.items()
    for layer in range(layers)
    for index in range(width)
]
units = st.sets(st.sampled_from(UNITS))


def of(chosen, shapes=SHAPES, **options):
    return NeuronSet.of(chosen, shapes, **options)


@given(a=units, b=units, c=units)
def test_the_algebra_is_that_of_sets(a, b, c):
    x, y, z = of(a), of(b), of(c)
    assert set(x & y) == a & b
    assert set(x | y) == a | b
    assert set(x - y) == a - b
    assert set(x ^ y) == a ^ b
    assert set(~x) == set(UNITS) - a
    assert (x == y) == (a == b)
    assert (x <= y) == (a <= b)
    assert bool(x) == bool(a)
    assert len(x) == len(a)
    assert ~(x | y) == ~x & ~y
    assert x & (y | z) == (x & y) | (x & z)
    assert ~~x == x
    assert len(x | y) == len(x) + len(y) - len(x & y)


@given(a=units)
def test_membership_iteration_and_counts_agree(a):
    x = of(a)
    assert [unit in x for unit in UNITS] == [unit in a for unit in UNITS]
    assert list(x) == sorted(a, key=UNITS.index)
    assert all(isinstance(neuron, Neuron) for neuron in x)
    for site, counts in x.counts().items():
        assert counts.tolist() == [sum(s == site and at == layer for s, at, _ in a) for layer in range(2)]
    for outside in [("q", 2, 0), ("q", 0, 3), ("q", -1, 0), ("k", 0, 0), "q", ("q", 0), None]:
        assert outside not in x


@given(
    a=units,
    sites=st.none() | st.lists(st.sampled_from(["q", "ffn", "k"]), min_size=1),
    layers=st.none() | st.lists(st.integers(0, 1), max_size=3),
)
def test_only_keeps_sites_and_layers_and_the_shape(a, sites, layers):
    part = of(a).only(sites=sites, layers=layers)
    assert set(part) == {
        (s, at, i) for s, at, i in a if (sites is None or s in sites) and (layers is None or at in layers)
    }
    assert part.shapes == SHAPES


@given(a=units, b=units)
def test_jaccard_is_the_overlap(a, b):
    expected = len(a & b) / len(a | b) if a | b else math.nan
    assert jaccard(of(a), of(b)) == pytest.approx(expected, nan_ok=True)


@given(a=units, b=units)
def test_a_site_without_neurons_equals_an_absent_one(a, b):
    q = {unit for unit in a if unit[0] == "q"}
    alone = of(q, {"q": SHAPES["q"]})
    assert alone == of(q)
    assert set(alone | of(b)) == q | b
    assert set(alone & of(b)) == q & b
    assert set(of(b) - alone) == b - q


def test_the_order_of_sites_is_that_of_the_forward_pass():
    x = NeuronSet({"ffn": torch.ones(1, 1, dtype=torch.bool), "q": torch.zeros(1, 2, dtype=torch.bool)})
    assert x.sites == ("q", "ffn")
    assert repr(x) == "NeuronSet(q 0/2, ffn 1/1)"
    assert repr(NeuronSet({})) == "NeuronSet(no sites)"
    assert NeuronSet({}).n_layers == 0
    assert len(NeuronSet.empty(SHAPES)) == 0


def test_masks_are_owned():
    mask = torch.zeros(2, 3, dtype=torch.bool)
    x = NeuronSet({"q": mask})
    mask[0, 0] = True
    assert not x
    y = x | of([("q", 0, 1)], {"q": (2, 3)})
    y.masks["q"][1, 1] = True
    assert not x
    with pytest.raises(AttributeError):
        x.model = "other"
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)


@pytest.mark.parametrize("combine", ["__and__", "__or__", "__sub__", "__xor__", "__le__"])
def test_sets_of_different_models_do_not_combine(combine):
    mine = of([("q", 0, 0)], model="aaa")
    with pytest.raises(
        ValueError,
        match=r"neuron sets differ in site 'ffn': \[layer, width\] \[2, 4\] vs \[2, 5\] - detected on another model\?",
    ):
        getattr(mine, combine)(of([], {"ffn": (2, 5)}))
    with pytest.raises(ValueError, match="different models do not combine: aaa and bbb"):
        getattr(mine, combine)(of([], model="bbb"))
    with pytest.raises(TypeError, match="a NeuronSet combines with a NeuronSet, not with set"):
        getattr(mine, combine)({("q", 0, 0)})
    getattr(mine, combine)(of([]))  # an unknown model combines with any of the same shape


def test_the_model_is_remembered_and_compared():
    mine, other, unknown = of([], model="aaa"), of([], model="bbb"), of([])
    assert (mine | unknown).model == (unknown | mine).model == "aaa"
    assert (~mine).model == mine.only(layers=[0]).model == "aaa"
    assert mine == unknown
    assert mine != other
    assert mine != "a string"
    assert of([], {"ffn": (2, 4)}) != of([], {"ffn": (2, 5)})


def test_sets_whose_layers_disagree_are_refused():
    with pytest.raises(ValueError, match=r"must agree on the number of layers, got \{'q': 2, 'ffn': 3\}"):
        of([], {"q": (2, 3)}) | of([], {"ffn": (3, 3)})


@pytest.mark.parametrize(
    ("mask", "got"),
    [(torch.zeros(2, 3), "torch.float32"), (torch.zeros(3, dtype=torch.bool), r"torch.bool \[3\]"), ([[True]], "list")],
)
def test_masks_are_boolean_matrices(mask, got):
    with pytest.raises(ValueError, match=f"mask of site 'q' must be a boolean tensor .layer, width., got {got}"):
        NeuronSet.__post_init__(_bare({"q": mask}))


def _bare(masks):
    """A set whose masks beartype has not seen: what a user without the test hook would construct."""
    bare = object.__new__(NeuronSet)
    object.__setattr__(bare, "masks", masks)
    return bare


def test_unknown_sites_and_neurons_outside_are_refused():
    with pytest.raises(ValueError, match="unknown site 'mlp'"):
        NeuronSet.__post_init__(_bare({"mlp": torch.zeros(1, 1, dtype=torch.bool)}))
    for outside in [("q", 2, 0), ("q", 0, 3), ("q", -1, 0), ("v", 0, 0)]:
        with pytest.raises(ValueError, match=rf"neuron \('{outside[0]}', {outside[1]}, {outside[2]}\) lies outside"):
            of([outside])
    with pytest.raises(ValueError, match=r"layer 2 does not exist: this set's model has layers 0\.\.1"):
        of([]).only(layers=[0, 2])
    with pytest.raises(ValueError, match="unknown site 'mlp'"):
        of([]).only(sites=["mlp"])


@given(a=units, b=units)
def test_save_and_load_give_the_same_sets(a, b, tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "sets.safetensors"
    sets = {"de": of(a, model="aaa"), "en": of(b), "fr": NeuronSet.empty(SHAPES), "ru": NeuronSet({})}
    save(sets, path, Run("test"))
    back = load(path)
    assert list(back) == list(sets)
    for language, found in back.items():
        assert set(found) == set(sets[language])
        assert (found.shapes, found.model) == (sets[language].shapes, sets[language].model)
    save(sets["de"], path, Run("test", seed=3))
    assert isinstance(load(path), NeuronSet)
    assert load(path) == sets["de"]
    assert load_run(path)["seed"] == 3


def test_one_set_under_two_names_and_the_empty_name(tmp_path):
    shared = of([("q", 1, 2)])
    for sets in ({"a": shared, "b": shared}, {"": shared}, {"": shared, "b": shared}, {}):
        assert load(save(sets, tmp_path / "sets.safetensors", Run("test"))) == sets
