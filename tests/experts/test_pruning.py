"""Which experts stay, what that costs, and what it harms: against naive loops and hand counts."""

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import document, pair
from families import hf_model
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.corpora import Corpus
from mwork_lens.evaluate import evaluate
from mwork_lens.experts.partition import Partition
from mwork_lens.experts.pruning import (
    Flops,
    dropped,
    flops,
    keep_by_rank,
    keep_by_threshold,
    masked,
    pruning_scores,
    random_keep,
)
from mwork_lens.interventions import deactivate
from mwork_lens.models import fingerprint
from mwork_lens.neurons import NeuronSet
from mwork_lens.perplexity.tables import SCORES, perplexity_matrix


def stripes(model: Any, experts: int = 5) -> Partition:
    """Unit j of layer l belongs to expert (j + l) % experts: sizes differ by one where they must."""
    layers, width = len(model.blocks), model.blocks[0].mlp.W_out.shape[0]
    labels = torch.stack([(torch.arange(width) + layer) % experts for layer in range(layers)])
    return Partition(
        labels=labels,
        experts=experts,
        weights="gate",
        method="stripes",
        seed=0,
        backend="none",
        model=fingerprint(model),
    )


def run(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids)


def shares(seed: int, layers: int, experts: int) -> torch.Tensor:
    """Frequencies with many ties."""
    return torch.randint(0, 5, (layers, experts), generator=torch.Generator().manual_seed(seed)).double() / 4


SIZES = st.tuples(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 7))


@given(SIZES, st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0]))  # frequencies are quarters: at and between them
def test_threshold_against_a_loop(sizes, tau):
    frequency = shares(*sizes)
    expected = [[value >= tau for value in row] for row in frequency.tolist()]
    if not any(map(any, expected)):
        with pytest.raises(ValueError, match="no expert reaches tau"):
            keep_by_threshold(frequency, tau)
        return
    assert keep_by_threshold(frequency, tau, empty_layers=True).tolist() == expected


@given(SIZES, st.floats(0.01, 1), st.booleans())
def test_rank_against_a_loop(sizes, share, per_layer):
    frequency = shares(*sizes)
    layers, experts = frequency.shape
    groups = [[(l, e) for e in range(experts)] for l in range(layers)]  # noqa: E741
    if not per_layer:
        groups = [[place for group in groups for place in group]]
    expected = torch.zeros(layers, experts, dtype=torch.bool)
    for group in groups:
        for place in sorted(group, key=lambda place: (-frequency[place].item(), place))[: round(share * len(group))]:
            expected[place] = True
    if not expected.any():
        with pytest.raises(ValueError, match="nothing would be left"):
            keep_by_rank(frequency, share, per_layer=per_layer)
        return
    assert torch.equal(keep_by_rank(frequency, share, per_layer=per_layer, empty_layers=True), expected)


@given(SIZES, st.booleans())
def test_random_experts_are_as_many_and_reproducible(sizes, per_layer):
    keep = shares(*sizes) > 0.5
    draw = lambda seed: random_keep(keep, generator=torch.Generator().manual_seed(seed), per_layer=per_layer)  # noqa: E731
    assert torch.equal(draw(3), draw(3))
    assert draw(3).sum() == keep.sum()
    if per_layer:
        assert draw(3).sum(1).tolist() == keep.sum(1).tolist()


def test_random_experts_differ_between_draws_and_reach_every_expert():
    keep = torch.zeros(2, 6, dtype=torch.bool)
    keep[0, :2] = True
    generator = torch.Generator().manual_seed(0)
    layered = torch.stack([random_keep(keep, generator=generator) for _ in range(60)])
    assert layered[:, 0].any(0).all()
    assert not layered[:, 1].any()
    anywhere = torch.stack([random_keep(keep, generator=generator, per_layer=False) for _ in range(60)])
    assert anywhere.any(0).all()
    assert 0 < layered[:, 0].double().mean(0).min() < layered[:, 0].double().mean(0).max() < 0.7


def test_frequencies_that_are_none_are_refused():
    for bad in (float("nan"), -0.1, 1.5):
        frequency = torch.tensor([[0.5, bad]], dtype=torch.float64)
        with pytest.raises(ValueError, match="shares of tokens between 0 and 1"):
            keep_by_threshold(frequency, 0.1)
        with pytest.raises(ValueError, match="shares of tokens between 0 and 1"):
            keep_by_rank(frequency, 0.5)
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="not a share of the experts"):
            keep_by_rank(torch.ones(2, 2).double(), share)


def test_a_layer_without_experts_must_be_asked_for():
    frequency = torch.tensor([[0.9, 0.8], [0.1, 0.2]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"layer 1 would keep no expert at tau=0\.5"):
        keep_by_threshold(frequency, 0.5)
    with pytest.raises(ValueError, match=r"layer 1 would keep no expert at share=0\.5: keep more, or per_layer=True"):
        keep_by_rank(frequency, 0.5)
    both = [[True, True], [False, False]]
    assert keep_by_threshold(frequency, 0.5, empty_layers=True).tolist() == both
    assert keep_by_rank(frequency, 0.5, empty_layers=True).tolist() == both
    assert keep_by_rank(frequency, 0.5, per_layer=True).tolist() == [[True, False], [False, True]]


def test_keeping_everything_is_bit_identical_and_dropping_something_is_not(any_family):
    _, model, _ = any_family
    partition, ids = stripes(model), document()
    keep = torch.ones(2, 5, dtype=torch.bool)
    before = run(model, ids)
    hooks = lambda: sum(len(point.fwd_hooks) for point in model.hook_dict.values())  # noqa: E731
    held = hooks()  # XGLM has some of TransformerLens's own
    with masked(model, partition, keep):
        assert torch.equal(run(model, ids), before)
        assert hooks() == held
    keep[1, 3] = False
    with masked(model, partition, keep):
        assert not torch.allclose(run(model, ids), before, atol=1e-4)
    assert torch.equal(run(model, ids), before)


def test_the_mask_is_that_of_the_units_of_dropped_experts(llama):
    partition, ids = stripes(llama), document()
    keep = torch.tensor([[True, False, True, True, False], [False, True, True, True, True]])
    units = [
        ("ffn", layer, unit)
        for layer in range(2)
        for unit in range(44)
        if not keep[layer, partition.labels[layer, unit]]
    ]
    expected = NeuronSet.of(units, {"ffn": (2, 44)})
    assert dropped(llama, partition, keep) == expected
    with deactivate(llama, expected):
        other = run(llama, ids)
    with masked(llama, partition, keep):
        assert torch.equal(run(llama, ids), other)


def test_masks_that_do_not_fit_are_refused(llama):
    partition, keep = stripes(llama), torch.ones(2, 5, dtype=torch.bool)
    for use in (masked, flops, dropped):
        with pytest.raises(ValueError, match="partition was made for another model"):
            use(llama, replace(partition, model="somebody else"), keep)
        with pytest.raises(ValueError, match="divides FFNs of"):
            use(llama, replace(partition, labels=partition.labels[:, :40]), keep)
        with pytest.raises(ValueError, match=r"keep is \[2, 4\], this partition has \[layer, expert\] \[2, 5\]"):
            use(llama, partition, keep[:, :4])
        with pytest.raises(ValueError, match="pruning everything away"):
            use(llama, partition, ~keep)
    mixture = pair("mixtral")[0]
    with pytest.raises(NotImplementedError, match="mixture of experts"):
        masked(mixture, partition, keep)


def test_flops_counted_by_hand(llama):
    # d_model 32, 4 heads of 8, 2 of keys and values, 44 units, 2 layers, vocabulary 97
    keep = torch.tensor([[True, False, True, True, True], [True, True, True, True, True]])
    cost = flops(llama, stripes(llama), keep)
    assert cost.attention == 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32)
    assert cost.head == 32 * 97
    assert cost.ffn == (3 * 32 * 44,) * 2
    assert cost.kept == (3 * 32 * 35, 3 * 32 * 44)  # expert 1 of layer 0 has 9 of 44 units
    assert cost.full == 8448 + 3104 + 6144
    assert cost.ffn_share == pytest.approx(8448 / 17696)
    assert cost.kept_share == pytest.approx(79 / 88)
    assert cost.relative == pytest.approx(1 - cost.ffn_share * (1 - cost.kept_share)) == pytest.approx(16832 / 17696)


@pytest.mark.parametrize(("family", "per_unit"), [("gpt2", 2), ("bloom", 2), ("phi3", 3), ("neox", 2)])
def test_flops_of_fused_and_ungated_families(family, per_unit):
    model = pair(family)[0]
    cost = flops(model, stripes(model), torch.ones(2, 5, dtype=torch.bool))
    width = 128 if family == "bloom" else 44
    assert cost.ffn == cost.kept == (per_unit * 32 * width,) * 2
    assert cost.attention == 2 * 32 * 32 * (
        3 if family == "phi3" else 4
    )  # q, k, v, o; grouped keys and values halve two
    assert cost.relative == 1


def test_flops_of_llama_2_7b_are_those_of_the_method_note():
    ffn = 3 * 4096 * 11008
    half = Flops((ffn,) * 32, (round(0.54 * ffn),) * 32, 32 * 4 * 4096**2, 4096 * 32000)
    assert half.ffn_share == pytest.approx(0.655, abs=5e-4)
    assert half.relative == pytest.approx(0.70, abs=2e-3)  # about 30 % less


def corpora(**lengths: int) -> dict[str, Corpus]:
    words = lambda seed: " ".join(f"w{(seed * 7 + i * 5) % 90}" for i in range(9))  # noqa: E731
    return {
        language: Corpus(language, tuple(words(seed + 10 * i) for i in range(3)), tuple(f"d{i}" for i in range(3)))
        for language, seed in lengths.items()
    }


def test_the_matrix_scores_what_a_masked_model_scores(llama):
    partition, texts = stripes(llama), corpora(aa=1, bb=2)
    keeps = {"aa": torch.arange(10).reshape(2, 5) % 3 > 0, "bb": torch.ones(2, 5, dtype=torch.bool)}
    scores = pruning_scores(llama, texts, partition, keeps, draws=2, progress=False)
    assert list(scores.columns) == list(SCORES)
    assert set(zip(scores["off"], scores["neurons"], scores["draw"], strict=True)) == {
        ("", "none", -1), ("aa", "own", -1), ("aa", "random", 0), ("aa", "random", 1), ("bb", "own", -1),
    }  # fmt: skip
    rows = lambda off, neurons: scores[(scores["off"] == off) & (scores["neurons"] == neurons)]["nll"].tolist()  # noqa: E731
    whole = evaluate(llama, texts)["nll"].to_numpy()
    with masked(llama, partition, keeps["aa"]):
        pruned = evaluate(llama, texts)["nll"].to_numpy()
    np.testing.assert_allclose(rows("aa", "own"), pruned)
    np.testing.assert_array_equal(rows("", "none"), whole)
    np.testing.assert_array_equal(rows("bb", "own"), whole)  # everything kept
    assert np.abs(pruned - whole).max() > 0.01
    counts = scores.groupby(["off", "neurons"])["count"].unique()
    gone = len(dropped(llama, partition, keeps["aa"]))
    assert counts["aa", "own"].tolist() == [gone]
    assert max(abs(count - gone) for count in counts["aa", "random"]) <= 4  # as many experts, which differ by a unit
    assert counts["bb", "own"].tolist() == [0]
    matrix = perplexity_matrix(scores)
    own = matrix[(matrix["off"] == "bb") & (matrix["neurons"] == "own")]
    assert (own["dnll"] == 0).all()


def test_random_rows_follow_the_seed_and_not_the_other_languages(llama):
    partition, texts = stripes(llama), corpora(aa=1, bb=2)
    keep = torch.arange(10).reshape(2, 5) % 3 > 0

    def score(keeps, seed):
        scores = pruning_scores(llama, texts, partition, keeps, draws=2, seed=seed, progress=False)
        return scores[(scores["off"] == "bb") & (scores["neurons"] == "random")]["nll"].tolist()

    alone = score({"bb": keep}, 0)
    assert score({"aa": keep, "bb": keep}, 0) == alone
    assert score({"bb": keep}, 1) != alone


def test_finished_conditions_are_found_again(llama, tmp_path):
    partition, texts = stripes(llama), corpora(aa=1)
    keeps = {"aa": torch.arange(10).reshape(2, 5) % 3 > 0}
    options = {"draws": 1, "out": tmp_path / "run", "progress": False}
    first = pruning_scores(llama, texts, partition, keeps, **options)
    assert len(list((tmp_path / "run" / "conditions").glob("*.parquet"))) == 3
    again = pruning_scores(llama, texts, partition, keeps, **options, resume=True)
    np.testing.assert_array_equal(again["nll"], first["nll"])


def test_a_matrix_that_cannot_be_made_is_refused(llama):
    partition, texts, keep = stripes(llama), corpora(aa=1), torch.ones(2, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match="no mask"):
        pruning_scores(llama, texts, partition, {})
    with pytest.raises(ValueError, match="mask of 'bb' has no texts"):
        pruning_scores(llama, texts, partition, {"bb": keep})
    with pytest.raises(ValueError, match="draws=-1"):
        pruning_scores(llama, texts, partition, {"aa": keep}, draws=-1)
    with pytest.raises(ValueError, match="pruning everything away"):
        pruning_scores(llama, texts, partition, {"aa": ~keep})


def test_a_partition_made_before_the_weights_changed_is_refused():
    from families import tokenizer

    from mwork_lens.models import load_model

    model = load_model(hf_model("llama", seed=5), tokenizer=tokenizer())
    partition, keep = stripes(model), torch.ones(2, 5, dtype=torch.bool)
    masked(model, partition, keep)
    with torch.no_grad():
        model.blocks[0].mlp.W_out[3] = 0.0
    with pytest.raises(ValueError, match="partition was made for another model"):
        masked(model, partition, keep)


def test_random_experts_match_units_where_sizes_differ():
    """Six experts of one unit and six of two: with sizes given, as many of each are drawn."""
    sizes = torch.tensor([[1] * 6 + [2] * 6] * 2)
    keep = torch.tensor([[False] * 5 + [True] * 5 + [False] * 2] * 2)
    generator = torch.Generator().manual_seed(0)
    drawn = [random_keep(keep, generator=generator, sizes=sizes) for _ in range(20)]
    assert all(int((one * sizes).sum()) == int((keep * sizes).sum()) for one in drawn)
    assert any(not torch.equal(one, keep) for one in drawn)
    without = [random_keep(keep, generator=generator) for _ in range(20)]
    assert any(int((one * sizes).sum()) != int((keep * sizes).sum()) for one in without)  # negative control


def test_what_is_no_frequency_or_mask_is_refused(llama):
    for wrong in ([[0.5]], torch.ones(3), torch.empty(0, 2)):
        with pytest.raises(ValueError, match="frequencies must be a tensor"):
            inspect.unwrap(keep_by_rank)(wrong, 0.5)
    parts = Partition(torch.arange(44).remainder(4).expand(2, 44).clone(), 4)
    with pytest.raises(ValueError, match=r"keep must be a boolean tensor .* got torch\.float32"):
        inspect.unwrap(dropped)(llama, parts, torch.ones(2, 4))
