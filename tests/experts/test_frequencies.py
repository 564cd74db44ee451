"""Expert counts are what a loop over tokens says, whatever the batch, and add up."""

import functools
import itertools

import families
import numpy as np
import oracles
import pytest
import torch
from conftest import pair
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.corpora import Corpus, batches
from mwork_lens.experts.frequencies import ExpertCounts, expert_counts, selected_per_token, tokens_needed
from mwork_lens.experts.partition import Partition
from mwork_lens.experts.scales import Scale, ScoreMoments, layer_scale, score_moments
from mwork_lens.experts.scores import expert_scores, select_top, standardise
from mwork_lens.measure import DocumentsFailed, measure
from mwork_lens.models import fingerprint
from mwork_lens.storage import Run, load, save
from mwork_lens.tokens import Tokens

SCORES = ("sum", "positive", "absolute", "square", "norm")
TEXTS = {
    "en": ["w1 w2 w3 w4 w5 w6", "w9 w8", "w20 w21 w22 w23 w24 w25 w26 w27 w28", "w3"],
    "de": ["w50 w51 w52", "w60 w61 w62 w63 w64 w65 w66", "w70"],
}
CORPORA = {name: Corpus(name, tuple(texts)) for name, texts in TEXTS.items()}


def partition_of(model, experts=6, *, seed=0, stamped=True):
    """Uneven experts at random: 44 units, or 128, do not divide by 6."""
    layers, width = len(model.blocks), model.blocks[0].mlp.W_out.shape[0]
    generator = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randperm(width, generator=generator) % experts for _ in range(layers)])
    return Partition(labels, experts, model=fingerprint(model) if stamped else None)


@functools.cache
def activations(family, language):
    """What enters W_down at each kept token [layer][token, unit], by the plain Hugging Face model, one document at a time, in float64."""
    plain = pair(family)[1]
    seen = []
    layers = plain.config.num_hidden_layers
    handles = [
        oracles.down_projection(plain, i).register_forward_pre_hook(
            lambda _, args: seen.append(args[0].detach().clone())
        )
        for i in range(layers)
    ]
    rows = [[] for _ in range(layers)]
    for text in TEXTS[language]:
        seen.clear()
        with torch.no_grad():
            plain(torch.tensor([families.tokenizer()(text)["input_ids"]]))
        for i in range(layers):
            rows[i].append(seen[i].reshape(-1, seen[i].shape[-1])[1:].double().numpy())  # BOS is the first
    for handle in handles:
        handle.remove()
    return [np.concatenate(parts) for parts in rows]


@functools.cache
def lengths_of_rows(family, layer):
    """||row of W_down|| of each unit."""
    module = oracles.down_projection(pair(family)[1], layer)
    weight = module.weight.detach().double().numpy()
    return np.linalg.norm(weight, axis=1 if family == "gpt2" else 0)


def naive_scores(family, language, partition, score):
    """[token][layer][expert], with loops."""
    acts = activations(family, language)
    made = []
    for t in range(len(acts[0])):
        made.append([])
        for layer, values in enumerate(acts):
            sums, norms = [0.0] * partition.experts, lengths_of_rows(family, layer)
            for j, a in enumerate(values[t]):
                part = {"sum": a, "positive": max(a, 0), "absolute": abs(a), "square": a * a, "norm": abs(a) * norms[j]}
                sums[int(partition.labels[layer, j])] += part[score]
            made[-1].append(sums)
    return made


def naive_counts(scores, *, z="token", share=0.3, select="global", scale=None):
    layers, experts = len(scores[0]), len(scores[0][0])
    counts = np.zeros((layers, experts), dtype=int)
    for token in scores:
        if z == "token":
            token = [[(s - np.mean(row)) / np.std(row) for s in row] for row in token]
        elif z == "layer":
            token = [[(s - scale[0][i]) / scale[1][i] for s in row] for i, row in enumerate(token)]
        cells = [(-token[i][e], i, e) for i in range(layers) for e in range(experts)]
        if select == "global":
            chosen = sorted(cells)[: round(share * layers * experts)]
        else:
            chosen = [c for i in range(layers) for c in sorted(x for x in cells if x[1] == i)[: round(share * experts)]]
        for _, i, e in chosen:
            counts[i, e] += 1
    return counts


def naive_scale(family, partition, score):
    """Mean and deviation over languages, tokens and experts of each layer, every language weighing the same."""
    means, squares = [], []
    for language in TEXTS:
        scores = np.array(naive_scores(family, language, partition, score))
        means.append(scores.mean((0, 2)))
        squares.append((scores**2).mean((0, 2)))
    mean = np.mean(means, axis=0)
    return mean, np.sqrt(np.mean(squares, axis=0) - mean**2)


@pytest.mark.parametrize("family", ["llama_mha_bias", "gpt2"])
@pytest.mark.parametrize("score", SCORES)
def test_counts_are_what_a_loop_over_tokens_says(family, score):
    model = pair(family)[0]
    partition = partition_of(model)
    measured = measure(model, CORPORA, expert_counts(partition, score=score, size=3), progress=False)
    for language in TEXTS:
        expected = naive_counts(naive_scores(family, language, partition, score))
        np.testing.assert_array_equal(measured[language].counts, expected)
        assert int(measured[language].tokens) == sum(len(text.split()) for text in TEXTS[language])


@pytest.mark.parametrize("select", ["global", "per_layer"])
@pytest.mark.parametrize("z", ["token", "layer", "none"])
def test_z_scores_and_selections_are_what_loops_say(z, select):
    model = pair("llama")[0]
    partition = partition_of(model, 7)
    scale = None
    if z == "layer":
        scale = layer_scale(measure(model, CORPORA, score_moments(partition, size=2), progress=False))
        for mine, naive in zip((scale.mean, scale.std), naive_scale("llama", partition, "sum"), strict=True):
            np.testing.assert_allclose(mine, naive, rtol=1e-5)
    stat = expert_counts(partition, z=z, select=select, share=0.4, scale=scale)
    measured = measure(model, CORPORA, stat, progress=False)
    for language in TEXTS:
        scores = naive_scores("llama", language, partition, "sum")
        expected = naive_counts(scores, z=z, select=select, share=0.4, scale=naive_scale("llama", partition, "sum"))
        np.testing.assert_array_equal(measured[language].counts, expected)


def test_the_choices_matter():
    """Negative control: a test that counts agree would pass if nothing depended on score, z-score or selection."""
    model = pair("llama")[0]
    partition = partition_of(model)
    stats = [expert_counts(partition, score=score) for score in SCORES]
    stats += [
        expert_counts(partition, z="none"),
        expert_counts(partition, select="per_layer"),
        expert_counts(partition, share=0.5),
    ]
    counts = [measure(model, CORPORA, stat, progress=False)["en"].counts for stat in stats]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(counts, 2))
    assert len({str(stat.parameters()) for stat in stats}) == len(stats)
    assert expert_counts(partition_of(model, seed=1)).parameters() != stats[0].parameters()


def test_padding_and_batch_size_change_nothing():
    model = pair("llama")[0]
    partition = partition_of(model)
    one, two, all_at_once = (
        measure(model, CORPORA, expert_counts(partition, size=size), progress=False) for size in (1, 2, 8)
    )
    for language in TEXTS:
        assert torch.equal(one[language].counts, two[language].counts)
        assert torch.equal(one[language].counts, all_at_once[language].counts)
    (batch,) = batches(CORPORA["en"], model, size=8)
    junk = Tokens(batch.ids.masked_fill(~batch.mask, 33), batch.keep, "en", batch.attention_mask)
    assert torch.equal(expert_counts(partition)(model, junk).counts, one["en"].counts)


def test_only_kept_tokens_count():
    model = pair("llama")[0]
    partition = partition_of(model)
    ids = torch.randint(4, 97, (2, 9), generator=torch.Generator().manual_seed(3))
    keep = torch.zeros(2, 9, dtype=torch.bool)
    keep[0, 2:5] = keep[1, 7] = True
    stat = expert_counts(partition)
    parts = [stat(model, Tokens(ids, keep & (torch.arange(9) == i))) for i in (2, 3, 4, 7)]
    together = functools.reduce(lambda a, b: a + b, parts)
    found = stat(model, Tokens(ids, keep))
    assert int(found.tokens) == 4
    assert torch.equal(found.counts, together.counts)
    everything = stat(model, Tokens(ids, torch.ones_like(keep)))
    assert int(everything.tokens) == 18


@given(
    seed=st.integers(0, 10_000),
    experts=st.integers(2, 11),
    share=st.floats(0.1, 0.9),
    score=st.sampled_from(SCORES),
    z=st.sampled_from(["token", "none"]),
    select=st.sampled_from(["global", "per_layer"]),
)
def test_the_mean_frequency_is_the_share(seed, experts, share, score, z, select):
    model = pair("llama")[0]
    k = round(share * 2 * experts) if select == "global" else 2 * round(share * experts)
    if not 0 < k < 2 * experts:
        with pytest.raises(ValueError, match="each token would select"):
            expert_counts(partition_of(model, experts, seed=seed), share=share, select=select)
        return
    stat = expert_counts(partition_of(model, experts, seed=seed), score=score, z=z, share=share, select=select)
    ids = torch.randint(4, 97, (2, 7), generator=torch.Generator().manual_seed(seed))
    found = stat(model, ids)
    assert found.selected == k
    assert int(found.counts.sum()) == k * int(found.tokens)
    assert found.counts.dtype == torch.int64
    assert abs(float(found.frequency().mean()) - k / (2 * experts)) < 1e-12
    if select == "per_layer":
        assert (found.counts.sum(1) == k // 2 * 14).all()


@given(rows=st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=5), k=st.integers(1, 6))
def test_ties_go_to_the_lower_index(rows, k):
    found = select_top(torch.tensor(rows).float(), k)
    for row, chosen in zip(rows, found, strict=True):
        best = sorted(range(6), key=lambda i: (-row[i], i))[:k]
        assert chosen.nonzero().flatten().tolist() == sorted(best)


@given(seed=st.integers(0, 10_000), experts=st.integers(1, 5))
def test_experts_may_be_empty_or_of_any_size(seed, experts):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(experts, (9,), generator=generator)
    a = torch.randn(4, 9, generator=generator)
    expected = [[sum(float(a[t, j]) for j in range(9) if labels[j] == e) for e in range(experts)] for t in range(4)]
    np.testing.assert_allclose(expert_scores(a, labels, experts), expected, atol=1e-5)


@pytest.mark.parametrize("rows", [3, 1500])
def test_long_batches_are_worked_through_in_parts(rows):
    a = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 1, 2, 2])
    scores = expert_scores(a, labels, 3)
    torch.testing.assert_close(scores, torch.stack([a[:, labels == e].sum(1) for e in range(3)], 1))


def test_scores_need_a_name_and_norms():
    a, labels = torch.ones(2, 4), torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match="score='mean' is unknown"):
        expert_scores(a, labels, 2, "mean")
    with pytest.raises(ValueError, match="score='norm' needs the norms"):
        expert_scores(a, labels, 2, "norm")
    assert expert_scores(-a, labels, 2, "norm", torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [[3, 7], [3, 7]]


def test_equal_scores_have_no_z_score():
    assert standardise(torch.full((2, 5), 7.0)).abs().sum() == 0


def test_z_scores_make_layers_equal_on_a_ramp_of_scales():
    """Planted: the same distribution in five layers, four times larger in the last. Without a z-score the last layer takes the most."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(1, 4, 5)[:, None]
    scores = torch.randn(400, 5, 20, generator=generator) * ramp

    def per_layer(z):
        return select_top(z.flatten(1), 30).view(-1, 5, 20).double().mean((0, 2))

    raw = per_layer(scores)
    token = per_layer(torch.stack([standardise(scores[:, i]) for i in range(5)], 1))
    layer = per_layer((scores - scores.mean((0, 2), keepdim=True)) / scores.std((0, 2), keepdim=True))
    assert raw[-1] > 1.4 * raw[0]
    for equal in (token, layer):
        assert (equal - 0.3).abs().max() < 0.02


def counts_of(table, tokens, **facts):
    return ExpertCounts(torch.tensor(table), torch.tensor(tokens), 2, **facts)


@given(seed=st.integers(0, 10_000))
def test_counts_add_in_any_order_and_grouping(seed):
    tables = np.random.default_rng(seed).integers(0, 99, (3, 2, 4))
    a, b, c = (counts_of(table, i + 5, partition="p", model="m") for i, table in enumerate(tables))
    for x, y in [((a + b) + c, a + (b + c)), (a + b, b + a)]:
        assert torch.equal(x.counts, y.counts)
        assert torch.equal(x.tokens, y.tokens)
    np.testing.assert_array_equal((a + b + c).counts, tables.sum(0))


def test_counts_that_do_not_belong_together_do_not_add():
    mine = counts_of([[1, 2]], 3, how="x", partition="p", model="m")
    for other, message in [
        (counts_of([[1, 2]], 3, how="x", partition="q", model="m"), "different partitions do not add: p and q"),
        (counts_of([[1, 2]], 3, how="x", partition="p", model="n"), "different models do not add: m and n"),
        (counts_of([[1, 2, 3]], 3, how="x", partition="p", model="m"), r"differ in \[layer, expert\]: \[1, 2\]"),
        (
            counts_of([[1, 2]], 3, how="x", layers=(4,), partition="p", model="m"),
            r"of layers \(0,\) and \[1, 2\] of layers \(4,\)",
        ),
        (
            counts_of([[1, 2]], 3, how="y", partition="p", model="m"),
            "selected differently: 2 per token by 'x', and 2 by 'y'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            _ = mine + other
    with pytest.raises(TypeError):
        _ = mine + 1
    with pytest.raises(ValueError, match="name one per row"):
        counts_of([[1, 2]], 3, layers=(0, 1))
    with pytest.raises(ValueError, match="no token was counted"):
        counts_of([[0, 0]], 0).frequency()


def test_counts_and_scales_survive_the_disk_and_a_run_resumes(tmp_path):
    model = pair("llama")[0]
    partition = partition_of(model)
    for stat in (expert_counts(partition), score_moments(partition)):
        first = measure(model, CORPORA, stat, out=tmp_path / stat.name, chunk=2, progress=False)
        again = measure(model, CORPORA, stat, out=tmp_path / stat.name, chunk=2, resume=True, progress=False)
        assert again.reused == 4
        for language in TEXTS:
            assert first[language].to_tensors()[1] == again[language].to_tensors()[1]
            for name, tensor in first[language].to_tensors()[0].items():
                assert torch.equal(tensor, again[language].to_tensors()[0][name])
    path = save(
        dict(measure(model, CORPORA, expert_counts(partition), progress=False)), tmp_path / "a.safetensors", Run("t")
    )
    assert load(path)["de"].layers == (0, 1)


def test_a_scale_refuses_what_does_not_belong_together():
    def sums(n=2, total=1.0, square=9.0, experts=3, score="sum", partition="p"):
        one = torch.ones(2, dtype=torch.double)
        return ScoreMoments(torch.tensor(n), total * one, square * one, experts, score, partition=partition)

    scale = layer_scale({"en": sums(), "de": sums(n=20, total=60.0, square=600.0)})
    mean, std = scale.mean, scale.std
    # en: mean 1/6, square 9/6; de: mean 1, square 10
    np.testing.assert_allclose(mean, [(1 / 6 + 1) / 2] * 2)
    np.testing.assert_allclose(std, [((1.5 + 10) / 2 - (7 / 12) ** 2) ** 0.5] * 2)
    for other in (sums(score="norm"), sums(experts=4), sums(partition="q")):
        with pytest.raises(ValueError, match="different partitions or kinds do not add"):
            layer_scale({"en": sums(), "de": other})
    with pytest.raises(TypeError):
        _ = sums() + 1
    with pytest.raises(ValueError, match="no language to take a scale from"):
        layer_scale({})
    with pytest.raises(ValueError, match="no token of 'de' was counted"):
        layer_scale({"en": sums(), "de": sums(n=0)})
    with pytest.raises(ValueError, match="scores of layer 0 never differ"):
        layer_scale({"en": sums(n=2, total=6.0, square=6.0)})


def test_a_partition_of_another_model_is_refused():
    model = pair("llama")[0]
    other = partition_of(pair("gpt2")[0])
    ids = torch.tensor([[5, 6, 7]])
    for stat in (expert_counts(other), score_moments(other)):
        with pytest.raises(ValueError, match="made for another model"):
            stat(model, ids)
    with pytest.raises(ValueError, match=r"no document could be measured.*made for another model"):
        measure(model, CORPORA, expert_counts(other), progress=False)
    short = Partition(torch.arange(44).remainder(2)[None], 2)
    with pytest.raises(ValueError, match=r"divides FFNs of \[layer, width\] \[1, 44\], the model has \[2, 44\]"):
        expert_counts(short, share=0.5)(model, ids)
    unstamped = partition_of(model, stamped=False)
    assert torch.equal(
        expert_counts(unstamped)(model, ids).counts, expert_counts(partition_of(model))(model, ids).counts
    )
    with pytest.raises(NotImplementedError, match="mixture of experts"):
        expert_counts(partition_of(model, stamped=False))(pair("mixtral")[0], ids)


def test_a_batch_without_tokens_and_a_document_without_tokens_are_refused():
    model = pair("llama")[0]
    stat = expert_counts(partition_of(model))
    with pytest.raises(ValueError, match="this batch keeps no token"):
        stat(model, Tokens(torch.tensor([[1, 5]]), torch.zeros(1, 2, dtype=torch.bool)))
    with pytest.raises(DocumentsFailed, match="en/1"):
        measure(model, {"en": Corpus("en", ("w1 w2", ""))}, stat, progress=False)


def test_bad_choices_are_refused():
    partition = partition_of(pair("llama")[0])
    for options, message in [
        ({"score": "mean"}, "score='mean' is unknown: choose from 'sum', 'positive'"),
        ({"z": "corpus"}, "z='corpus' is unknown: choose from 'token', 'layer', 'none'"),
        ({"select": "all"}, "select='all' is unknown: choose from 'global', 'per_layer'"),
        ({"share": 0.0}, "share=0.0 is not a share of the experts"),
        ({"share": 1.0}, "share=1.0 is not a share"),
        ({"share": 30.0}, "share=30.0 is not a share"),
        ({"share": 0.01}, "share=0.01 of 12 experts rounds to 0: each token would select no expert"),
        ({"share": 0.99}, "rounds to 12: each token would select every expert"),
        ({"size": 0}, "size=0 must be at least 1"),
        ({"length": 0}, "length=0 must be at least 1"),
        ({"z": "layer"}, "z='layer' needs scale=layer_scale"),
        ({"scale": Scale(torch.ones(2), torch.ones(2), "sum")}, "scale is used by z='layer' only"),
        (
            {"z": "layer", "scale": Scale(torch.ones(3), torch.ones(3), "sum")},
            r"scale \(3 layers\) is of another partition",
        ),
        (
            {"z": "layer", "scale": Scale(torch.ones(2), torch.ones(2), "sum", partition="x")},
            "is of another partition: measure",
        ),
        (
            {"z": "layer", "scale": Scale(torch.ones(2), torch.ones(2), "square")},
            "is of score='square', the counts of 'sum'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            expert_counts(partition, **options)
    with pytest.raises(ValueError, match="score='mean' is unknown"):
        score_moments(partition, score="mean")
    with pytest.raises(ValueError, match="size=-1"):
        score_moments(partition, size=-1)


def test_numbers_of_the_paper():
    assert selected_per_token(0.3, 32, 256) == 2458
    assert selected_per_token(0.3, 32, 256, "per_layer") == 32 * 77
    assert tokens_needed() == 385
    assert tokens_needed(0.01) == 9604
    with pytest.raises(ValueError, match=r"error=5\.0 must be between 0 and 1"):
        tokens_needed(5.0)


def test_a_scale_must_be_sound():
    for mean, std in ((torch.tensor([0.0, float("nan")]), torch.ones(2)), (torch.zeros(2), torch.tensor([1.0, 0.0]))):
        with pytest.raises(ValueError, match="a finite mean and a positive standard deviation"):
            Scale(mean, std, "sum")


def test_uneven_experts_are_said():
    """44 units in 6 experts are 7 or 8 each, alike enough; in 16 they are 2 or 3."""
    even, uneven = (torch.arange(44).remainder(n).expand(2, 44).clone() for n in (6, 16))
    expert_counts(Partition(even, 6))
    with pytest.warns(
        UserWarning, match="experts have 2 to 3 units: .* choose a number of experts that divides 44 evenly"
    ):
        expert_counts(Partition(uneven, 16))
