"""Partitions of a model's FFNs: labels that follow the weights, and weights that stay."""

import itertools
from types import SimpleNamespace

import conftest
import families
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens import sites
from mwork_lens.experts import balanced
from mwork_lens.experts import partition as module
from mwork_lens.experts.partition import Partition, partition
from mwork_lens.models import fingerprint, load_model
from mwork_lens.storage import Run, load, save

UNGATED = ("bloom", "gpt2", "neox", "xglm")


def divide(model, experts=11, **options):
    return partition(model, **{"experts": experts, "backend": "numpy", "progress": False, **options})


def together(labels):
    return labels[..., :, None] == labels[..., None, :]


def changed(change, family="llama"):
    """A tiny model after `change(mlp, layer)` of each layer's Hugging Face FFN."""
    hf = families.hf_model(family)
    with torch.no_grad():
        for layer, block in enumerate(hf.model.layers):
            change(block.mlp, layer)
    return load_model(hf, tokenizer=families.tokenizer())


def test_every_family_is_divided_and_left_as_it_was(any_family):
    name, model, _ = any_family
    before = {key: value.clone() for key, value in model.state_dict().items()}
    width = sites.width(model, "ffn")
    for options in ({}, {"weights": "up", "method": "random"}, {"weights": "both", "iterations": 1}):
        made = divide(model, 5, **options)
        assert made.labels.shape == (2, width) == (made.n_layers, made.width)
        sizes = made.sizes()
        assert sizes.shape == (2, 5)
        assert [sorted(row) for row in sizes.tolist()] == [
            sorted([-(-width // 5)] * (width % 5) + [width // 5] * (5 - width % 5))
        ] * 2
        assert made.weights == ("in" if name in UNGATED else options.get("weights", "gate"))
        assert made.model == fingerprint(model)
        made.require_model(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_ungated_models_have_one_matrix_to_cluster_and_gated_ones_two():
    found = {
        family: [divide(conftest.pair(family)[0], weights=weights).labels for weights in ("gate", "up", "both")]
        for family in ("gpt2", "llama")
    }
    gate, up, both = found["gpt2"]
    assert torch.equal(gate, up)
    assert torch.equal(gate, both)
    gate, up, both = map(together, found["llama"])
    for one, other in itertools.combinations((gate, up, both), 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("weights", "names"), [("gate", ["gate_proj"]), ("up", ["up_proj"]), ("both", ["gate_proj", "up_proj"])]
)
def test_the_rows_are_those_of_the_named_matrices_divided_by_their_length(weights, names):
    model, plain = conftest.pair("llama")
    for layer in range(2):
        rows = [getattr(plain.model.layers[layer].mlp, name).weight.detach().double() for name in names]
        wanted = torch.cat([row / row.norm(dim=1, keepdim=True) for row in rows], dim=1).numpy()
        np.testing.assert_allclose(module._rows(model, layer, weights), wanted, rtol=1e-12)
        own = torch.from_numpy(balanced.balanced_kmeans(wanted, 11))
        assert torch.equal(together(divide(model, weights=weights).labels[layer]), together(own))


@pytest.mark.parametrize("weights", module.WEIGHTS)
def test_planted_experts_are_recovered_from_the_matrices_that_hold_them(weights):
    generator = torch.Generator().manual_seed(0)
    truth = torch.stack([torch.randperm(44, generator=generator) % 11 for _ in range(2)])
    names = {"gate": ["gate_proj"], "up": ["up_proj"], "both": ["gate_proj", "up_proj"]}[weights]

    def plant(mlp, layer):
        for name in names:
            centres = torch.linalg.qr(torch.randn(32, 11, generator=generator)).Q.T
            noise = 0.02 * torch.randn(44, 32, generator=generator)
            length = 0.1 + 5 * torch.rand(44, 1, generator=generator)  # which normalisation takes away
            getattr(mlp, name).weight.copy_(length * (centres[truth[layer]] + noise))

    model = changed(plant)
    assert torch.equal(together(divide(model, weights=weights).labels), together(truth))
    for other in {"gate": ["up"], "up": ["gate"], "both": []}[weights]:  # the other matrix knows nothing of them
        assert not torch.equal(together(divide(model, weights=other).labels), together(truth))
    assert not torch.equal(together(divide(model, method="random").labels), together(truth))


def test_permuting_units_permutes_labels_and_scaling_them_changes_nothing():
    plain = divide(conftest.pair("llama")[0], weights="both").labels
    order = torch.randperm(44, generator=torch.Generator().manual_seed(1))
    scale = torch.logspace(-2, 2, 44)[:, None]

    def permute(mlp, layer):
        for matrix in (mlp.gate_proj, mlp.up_proj):
            matrix.weight.copy_(matrix.weight[order])

    def rescale(mlp, layer):
        mlp.gate_proj.weight.mul_(scale)
        mlp.up_proj.weight.mul_(scale.flip(0))

    def rotate(mlp, layer):  # negative control: another direction is another row
        mlp.gate_proj.weight[::2] *= -1

    assert torch.equal(together(divide(changed(permute), weights="both").labels), together(plain[:, order]))
    assert torch.equal(together(divide(changed(rescale), weights="both").labels), together(plain))
    assert not torch.equal(together(divide(changed(rotate), weights="both").labels), together(plain))


def test_a_unit_without_weights_is_somewhere():
    def silence(mlp, layer):
        mlp.gate_proj.weight[:9] = 0

    assert divide(changed(silence)).sizes().unique().tolist() == [4]


def test_controls(llama):
    contiguous = divide(llama, 8, method="contiguous")
    assert contiguous.labels.tolist() == [np.repeat(range(8), [6, 6, 6, 6, 5, 5, 5, 5]).tolist()] * 2
    first, again, other = (divide(llama, 8, method="random", seed=seed).labels for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    clustered, rows = divide(llama, 8), module._rows(llama, 0, "gate")
    cost = [balanced.inertia(rows, labels.numpy()) for labels in (clustered.labels[0], first[0], contiguous.labels[0])]
    assert cost[0] < 0.95 * min(cost[1:])
    assert (contiguous.backend, clustered.backend) == ("none", "numpy")


def test_the_same_call_gives_the_same_partition(llama):
    first, again = divide(llama), divide(llama)
    assert torch.equal(first.labels, again.labels)
    assert first.fingerprint == again.fingerprint
    assert (
        len(
            {
                made.fingerprint
                for made in (first, divide(llama, 10), divide(llama, seed=1), divide(llama, weights="up"))
            }
        )
        == 4
    )


@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 9), st.integers(0, 99))
def test_members_sizes_order_and_units_agree(layers, width, experts, seed):
    generator = torch.Generator().manual_seed(seed)
    made = Partition(torch.randint(experts, (layers, width), generator=generator), experts, model="m")
    keep = torch.rand(layers, experts, generator=generator) < 0.5
    order, sizes, units = made.order(), made.sizes(), made.units(keep)
    assert sizes.sum(1).tolist() == [width] * layers
    for layer in range(layers):
        by_hand = [[u for u in range(width) if made.labels[layer, u] == e] for e in range(experts)]
        assert [made.members(layer, e).tolist() for e in range(experts)] == by_hand
        assert sizes[layer].tolist() == [len(part) for part in by_hand]
        assert order[layer].tolist() == list(itertools.chain(*by_hand))
        kept = {u for e in range(experts) if keep[layer, e] for u in by_hand[e]}
        assert {n.index for n in units.only(layers=[layer])} == kept
    assert units.sites == ("ffn",)
    assert units.model == "m"
    assert units == ~made.units(~keep)


def test_a_partition_owns_its_labels():
    labels = torch.tensor([[0, 1, 1]], dtype=torch.int32)
    made = Partition(labels, 2)
    labels[0, 0] = 1
    assert made.labels.tolist() == [[0, 1, 1]]
    assert made.labels.dtype == torch.int64


def test_save_and_load(llama, tmp_path):
    made = divide(llama, weights="both", seed=3)
    back = load(save({"a": made}, tmp_path / "x.safetensors", Run("partition")))["a"]
    assert isinstance(back, Partition)
    assert torch.equal(back.labels, made.labels)
    assert back.to_tensors()[1] == made.to_tensors()[1] == {
        "experts": 11, "weights": "both", "method": "kmeans", "seed": 3, "backend": "numpy", "model": fingerprint(llama),
    }  # fmt: skip
    assert back.fingerprint == made.fingerprint


@pytest.fixture
def calls(monkeypatch):
    """Counts clusterings; `stop` raises in that call."""
    seen = SimpleNamespace(n=0, stop=None)
    real = balanced.balanced_kmeans

    def counted(*args, **options):
        seen.n += 1
        if seen.n == seen.stop:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(module, "balanced_kmeans", counted)
    return seen


def test_an_interruption_keeps_finished_layers(llama, tmp_path, calls):
    whole, calls.n, calls.stop = divide(llama), 0, 2
    with pytest.raises(KeyboardInterrupt):
        divide(llama, out=tmp_path)
    kept = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert [name[:10] for name in kept] == ["layer-000-"]
    with pytest.raises(FileExistsError, match="already holds this run: pass resume=True"):
        divide(llama, out=tmp_path)
    calls.n, calls.stop = 0, None
    made = divide(llama, out=tmp_path, resume=True)
    assert calls.n == 1
    assert torch.equal(made.labels, whole.labels)
    assert torch.equal(load(tmp_path / "partition.safetensors").labels, whole.labels)
    assert divide(llama, out=tmp_path, resume=True).fingerprint == whole.fingerprint
    assert calls.n == 1
    assert sorted(path.name[:9] for path in tmp_path.iterdir()) == ["layer-000", "layer-001", "partition", "partition"]


def test_a_damaged_layer_is_divided_again(llama, tmp_path, calls):
    whole = divide(llama, out=tmp_path)
    path = next(tmp_path.glob("layer-001-*"))
    path.write_bytes(path.read_bytes()[:50])
    calls.n = 0
    with pytest.warns(UserWarning, match="layer-001-.* cannot be used .* dividing this layer again"):
        again = divide(llama, out=tmp_path, resume=True)
    assert calls.n == 1
    assert torch.equal(again.labels, whole.labels)
    assert load(path).labels.shape == (1, 44)


@pytest.mark.parametrize(
    ("change", "differs"),
    [({"experts": 4}, "experts"), ({"weights": "up"}, "weights"), ({"seed": 1}, "seed"), ({"iterations": 3}, "iterations"),
     ({"method": "random"}, "method, backend, iterations")],
)  # fmt: skip
def test_a_folder_holds_one_run(llama, tmp_path, change, differs):
    divide(llama, out=tmp_path)
    with pytest.raises(FileExistsError, match=rf"already holds another run \(it differs in {differs}\)"):
        divide(llama, out=tmp_path, resume=True, **change)


def test_a_folder_of_another_model_is_refused(llama, tmp_path):
    divide(llama, out=tmp_path)
    with pytest.raises(FileExistsError, match=r"it differs in model\)"):
        divide(conftest.pair("qwen2")[0], out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"experts": 45}, "experts=45 is more than the 44 FFN units of a layer there are to divide: choose at most 44"),
        ({"experts": 0}, "experts=0 must be at least 1"),
        ({"weights": "down"}, "unknown weights 'down': choose from gate, up, both"),
        ({"method": "ward"}, "unknown method 'ward': choose from kmeans, random, contiguous"),
        ({"iterations": 0}, "iterations=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"backend": "faiss"}, "unknown backend 'faiss': choose from numpy, constrained"),
    ],
)
def test_bad_arguments_are_named(llama, options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        divide(llama, out=tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_as_many_experts_as_units_and_one(llama):
    assert divide(llama, 44).sizes().unique().tolist() == [1]
    assert divide(llama, 1).labels.unique().tolist() == [0]


def test_the_missing_extra_is_named(llama, monkeypatch):
    monkeypatch.setattr(balanced, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'mwork-lens\[experts\]'"):
        divide(llama, backend="constrained")
    assert divide(llama, backend=None).backend == "numpy"
    assert divide(llama, backend="constrained", method="random").backend == "none"  # nothing to solve


def test_a_mixture_of_experts_has_its_own_router(llama):
    mixtral = conftest.pair("mixtral")[0]
    with pytest.raises(
        NotImplementedError, match=r"layer 0 is a mixture of experts already: .*mwork_lens.experts.routers"
    ):
        divide(mixtral, 3)
    with pytest.raises(NotImplementedError, match="layer 0 is a mixture of experts already"):
        divide(llama).require_model(mixtral)


def test_weights_that_cannot_be_read_are_named(llama, monkeypatch):
    def spoil(mlp, layer):
        if layer == 1:
            mlp.gate_proj.weight[3, 4] = float("nan")

    with pytest.raises(ValueError, match="W_gate of layer 1 holds NaN or infinity: mend the weights"):
        divide(changed(spoil))
    real = sites.weight
    monkeypatch.setattr(module, "weight", lambda *place: {name: rows.to("meta") for name, rows in real(*place).items()})
    with pytest.raises(
        ValueError, match="W_up of layer 0 is offloaded and cannot be read: load the model without device_map"
    ):
        divide(llama, weights="up")


def test_a_partition_of_another_model_is_refused(llama):
    made = divide(llama)
    with pytest.raises(
        ValueError, match=r"\[layer, width\] \[2, 44\], the model has \[2, 128\]: make a partition of this model"
    ):
        made.require_model(conftest.pair("bloom")[0])
    with pytest.raises(ValueError, match=r"made for another model \(\w+\): make one of this model \(\w+\)"):
        made.require_model(conftest.pair("qwen2")[0])
    Partition(made.labels, 11).require_model(conftest.pair("qwen2")[0])  # of unknown origin, and it fits


@pytest.mark.parametrize(
    ("labels", "experts", "match"),
    [
        ([[0, 1, 2]], 2, r"labels run from 0 to 2: experts=2 allows 0..1"),
        ([[-1, 1]], 2, r"labels run from -1 to 1"),
        ([[0, 0]], 0, "experts=0 must be at least 1"),
    ],
)
def test_labels_are_checked(labels, experts, match):
    with pytest.raises(ValueError, match=match):
        Partition(torch.tensor(labels), experts)


def test_places_that_do_not_exist_are_named():
    made = Partition(torch.tensor([[0, 1, 1], [1, 0, 1]]), 2)
    with pytest.raises(ValueError, match=r"layer 2 does not exist: this partition has layers 0..1"):
        made.members(2, 0)
    with pytest.raises(ValueError, match=r"expert -1 does not exist: this partition has experts 0..1"):
        made.members(0, -1)
    with pytest.raises(
        ValueError, match=r"keep is \[2, 3\], this partition has \[layer, expert\] \[2, 2\]: mark each expert"
    ):
        made.units(torch.ones(2, 3, dtype=torch.bool))
