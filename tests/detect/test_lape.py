"""LAPE selects what the released code selects, keeps every language, and obeys its laws."""

import itertools
import json
import math
import warnings
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import planted as made
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from planted import PLANTED, documents_from, moments_from, moments_of, units

from mwork_lens.detect.lape import (
    effective_languages,
    how_many,
    language_entropy,
    lape,
    order_statistic,
    probabilities,
    select,
)

DATA = Path(__file__).parent.parent / "data"
CASES = json.loads((DATA / "lape_cases.json").read_text())["cases"]


def case(name):
    """(counts [layer, width, lang], tokens [lang], facts, LAPE or None) of a reference case."""
    with np.load(DATA / "lape_cases.npz", allow_pickle=False) as file:
        counts = file[f"{name}.over_zero"]
        if name == "empty_last_language":
            rest = file["empty_middle_language.over_zero"].copy()
            rest[[3, 6]] = counts
            counts = rest
        entropy = file.get(f"{name}.lape")
        tokens = file[f"{name}.n_tokens"]
    return torch.tensor(np.moveaxis(counts, 0, -1).astype(np.int64)), torch.tensor(tokens), CASES[name], entropy


def naive(counts, n, rate, filter_rate, bar_rate):
    """Scores, survivors and lists by loops over Python numbers (the oracle); the gap between the last chosen and the next."""
    layers, width, languages = len(counts), len(counts[0]), len(n)
    p = [[[counts[i][j][k] / n[k] for k in range(languages)] for j in range(width)] for i in range(layers)]
    everything = sorted(x for layer in p for unit in layer for x in unit)

    def smallest(share):
        return everything[max(1, round(len(everything) * share)) - 1]

    score, alive = {}, []
    for i, j in itertools.product(range(layers), range(width)):
        total = sum(p[i][j])
        score[i, j] = -sum(x / total * math.log(x / total) for x in p[i][j] if x)
        if max(p[i][j]) > smallest(filter_rate):
            alive.append((i, j))
    alive.sort(key=lambda unit: (score[unit], unit))
    chosen = alive[: round(layers * width * rate)]
    after = alive[len(chosen) :]
    gap = score[after[0]] - score[chosen[-1]] if after and chosen else math.inf
    lists = {
        f"l{k}": sorted(unit for unit in chosen if p[unit[0]][unit[1]][k] > smallest(bar_rate))
        for k in range(languages)
    }
    return score, len(alive), lists, gap


# --- the released selection ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_the_reference_cases_are_selected_to_the_unit(name, dtype):
    counts, n, facts, entropy = case(name)
    p = counts.to(dtype) / n.to(dtype)
    rates = {"rate": facts["top_rate"], "filter_rate": facts["filter_rate"], "bar_rate": facts["bar_ratio"]}
    found = select(p, language_entropy(p), **rates)
    lists = [[row.nonzero().flatten().tolist() for row in layers] for layers in found.lists]
    assert lists == facts["lists"]
    assert int(found.chosen.sum()) == facts["m"]
    assert found.survivors == facts["survivors"]
    if dtype == torch.float64:
        assert found.threshold == facts["filter_threshold"]
        assert found.bar == facts["bar_threshold"]
        if entropy is not None:
            torch.testing.assert_close(found.score, torch.tensor(entropy), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_lape_of_moments_gives_the_reference_lists_as_sets(name):
    counts, n, facts, _ = case(name)
    sets = lape(moments_of(counts, n), rate=facts["top_rate"])
    assert list(sets) == [f"l{k}" for k in range(len(n))]
    for neurons, lists in zip(sets.values(), facts["lists"], strict=True):
        assert neurons.sites == ("ffn",)
        assert neurons.model == "m"
        assert [row.nonzero().flatten().tolist() for row in neurons.masks["ffn"]] == lists


def test_a_language_without_neurons_stays_in_the_middle_and_at_the_end():
    for name, language in (("empty_middle_language", "l3"), ("empty_last_language", "l6")):
        counts, n, _, _ = case(name)
        sets = lape(moments_of(counts, n))
        assert [other for other in sets if not sets[other]] == [language]
        assert sets[language].shapes == {"ffn": (8, 512)}


def test_dead_units_score_lowest_and_are_never_selected():
    counts, n, _, _ = case("dead_neurons")
    p = counts.double() / n
    found = select(p, language_entropy(p), filter_rate=None)
    assert (found.score[:, :64] == 0).all()
    assert not found.chosen[:, :64].any()
    assert found.survivors == (counts > 0).any(-1).sum() < 8 * (512 - 64) + 1
    assert not select(p, language_entropy(p)).chosen[:, :64].any()


def worked_case():
    counts = torch.ones(2, 50, 2, dtype=torch.long)
    for (layer, unit), values in {(0, 3): [90, 0], (1, 7): [20, 60], (0, 9): [50, 50], (1, 0): [4, 0]}.items():
        counts[layer, unit] = torch.tensor(values)
    return counts, torch.tensor([100, 100])


def test_the_worked_case():
    counts, n = worked_case()
    p = counts.double() / n
    found = select(p, language_entropy(p), rate=0.02, filter_rate=0.975, bar_rate=0.975)
    assert (found.threshold, found.bar, found.survivors) == (0.04, 0.04, 3)
    assert found.chosen.nonzero().tolist() == [[0, 3], [1, 7]]
    assert [found.score[at].item() for at in ((0, 3), (1, 7), (0, 9))] == pytest.approx(
        [0, 0.562335, 0.693147], abs=1e-6
    )
    assert [row.nonzero().flatten().tolist() for row in found.lists[0]] == [[3], [7]]
    assert [row.nonzero().flatten().tolist() for row in found.lists[1]] == [[], [7]]


@pytest.mark.parametrize(
    ("layers", "width", "unique"),
    [
        (32, 11008, 3523),  # LLaMA-2-7B
        (40, 13824, 5530),  # LLaMA-2-13B
        (80, 28672, 22938),  # LLaMA-2-70B
        (30, 16384, 4915),  # BLOOM-7B
        (32, 14336, 4588),  # Mistral-7B
        (32, 16384, 5243),  # OPT-6.7B
        (32, 10240, 3277),  # Phi-2
    ],
)
def test_as_many_units_are_chosen_as_in_the_published_masks(layers, width, unique):
    """The number follows from the architecture, whatever the activations."""
    p = torch.rand(layers, width, 2, generator=torch.Generator().manual_seed(width))
    found = select(p, language_entropy(p))
    assert how_many(layers * width, 0.01) == unique
    assert int(found.chosen.sum()) == unique
    assert found.lists.any(0).sum() == unique  # each belongs to a language: bar and threshold are one


# --- entropy ---


@pytest.mark.parametrize(("q", "entropy"), [([0.8, 0.2], 0.5004), ([0.2, 0.1, 0.3, 0.1, 0.3], 1.5048)])
def test_entropy_of_the_published_vectors(q, entropy):
    for scale in (1.0, 0.3):
        assert language_entropy(scale * torch.tensor([[q]])).item() == pytest.approx(entropy, abs=5e-5)


shares = st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=6)


@given(rows=shares)
def test_entropy_is_between_zero_and_ln_k_and_effective_languages_between_one_and_k(rows):
    p = torch.tensor([rows], dtype=torch.float64)
    score = language_entropy(p)
    assert (score >= 0).all()
    assert (score <= math.log(4) + 1e-12).all()
    assert (effective_languages(score) <= 4 + 1e-11).all()
    for row, value in zip(rows, score[0].tolist(), strict=True):
        q = [x / (sum(row) or 1) for x in row]
        assert value == pytest.approx(-sum(x * math.log(x) for x in q if x), abs=1e-12)


def test_effective_languages_count_equal_ones():
    p = torch.tensor([[[0.4, 0.4, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1], [0.7, 0, 0, 0]]])
    assert effective_languages(language_entropy(p))[0].tolist() == pytest.approx([2, 4, 1])


# --- laws ---

tokens = 40


@st.composite
def tables(draw, languages=None):
    """Counts [layer, width, lang] as nested lists, in a model of 2 layers of 12 units, n = 40 tokens each."""
    languages = languages or draw(st.integers(2, 4))
    seed = draw(st.integers(0, 10_000))
    dead = draw(st.integers(0, 3))
    counts = np.random.default_rng(seed).integers(0, tokens + 1, (2, 12, languages))
    counts[:, :dead] = 0
    return counts


rates = st.fixed_dictionaries(
    {
        "rate": st.sampled_from([0.05, 0.1, 0.25]),
        "filter_rate": st.sampled_from([0.3, 0.8, 0.9]),
        "bar_rate": st.sampled_from([0.5, 0.8, 0.9]),
    }
)
quiet = pytest.mark.filterwarnings("ignore:too few tokens", "ignore:only .* units exceed", "ignore:the threshold is 0")


@quiet
@given(counts=tables(), rates=rates)
def test_lape_is_what_a_naive_loop_says(counts, rates):
    n = [tokens] * counts.shape[-1]
    score, survivors, lists, gap = naive(counts.tolist(), n, **rates)
    assume(gap > 1e-9)
    p = probabilities(moments_of(counts, n))
    found = select(p, language_entropy(p), **rates)
    for at, value in score.items():
        assert found.score[at].item() == pytest.approx(value, abs=1e-12)
    assert found.survivors == survivors
    assert units(lape(moments_of(counts, n), **rates)) == lists


@quiet
@given(counts=tables(languages=3), scale=st.integers(2, 1000), language=st.integers(0, 2), rates=rates)
def test_scaling_one_languages_counts_changes_nothing(counts, scale, language, rates):
    n = np.full(3, tokens)
    more, longer = counts.copy(), n.copy()
    more[..., language] *= scale
    longer[language] *= scale
    assert units(lape(moments_of(more, longer), **rates)) == units(lape(moments_of(counts, n), **rates))


def test_scaling_counts_alone_does_change_the_result():
    counts, n, _, _ = case("two_languages")
    fewer = counts.clone()
    fewer[..., 0] //= 2
    assert units(lape(moments_of(fewer, n))) != units(lape(moments_of(counts, n)))


@quiet
@given(counts=tables(), order=st.permutations(range(4)), rates=rates)
def test_permuting_languages_permutes_lists(counts, order, rates):
    languages = counts.shape[-1]
    order = [k for k in order if k < languages]
    n = [tokens] * languages
    assume(naive(counts.tolist(), n, **rates)[-1] > 1e-9)
    straight = lape(moments_of(counts, n), **rates)
    permuted = lape(moments_of(counts[..., order], n, names=[f"l{k}" for k in order]), **rates)
    assert list(permuted) == [f"l{k}" for k in order]
    assert all(permuted[name] == straight[name] for name in straight)


@quiet
@given(counts=st.lists(tables(languages=3), min_size=2, max_size=4), rates=rates, data=st.data())
def test_shards_merge_to_identical_sets_in_any_order(counts, rates, data):
    shards = [moments_of(part, [tokens + i] * 3) for i, part in enumerate(counts)]
    order = data.draw(st.permutations(shards))
    merged, other = ({name: reduce(add, (s[name] for s in parts)) for name in shards[0]} for parts in (shards, order))
    whole = moments_of(sum(counts), [sum(tokens + i for i in range(len(counts)))] * 3)
    assert units(lape(merged, **rates)) == units(lape(other, **rates)) == units(lape(whole, **rates))


@given(
    scores=st.lists(st.integers(0, 3), min_size=20, max_size=20),
    counts=st.lists(st.integers(0, 4), min_size=40, max_size=40),
)
@quiet
def test_ties_at_the_cut_go_to_the_lower_layer_then_the_lower_unit(scores, counts):
    p = torch.tensor(counts, dtype=torch.float64).reshape(2, 10, 2) / 4
    score = torch.tensor(scores, dtype=torch.float64).reshape(2, 10)
    found = select(p, score, rate=0.2, filter_rate=0.5, bar_rate=0.5)
    middle = sorted(x / 4 for x in counts)[19]
    alive = [(i, j) for i in range(2) for j in range(10) if p[i, j].max() > middle]
    best = sorted(alive, key=lambda at: (score[at].item(), at))[:4]
    assert sorted(map(tuple, found.chosen.nonzero().tolist())) == sorted(best)


def test_the_order_statistic_is_an_entry_and_rounds_half_to_even():
    values = torch.arange(1.0, 11)
    assert [order_statistic(values, rate) for rate in (0.25, 0.35, 0.95, 0.01)] == [
        2,
        4,
        10,
        1,
    ]  # 2.5 -> 2, 3.5 -> 4, 9.5 -> 10


# --- planted and shuffled ---


def test_planted_neurons_are_found_exactly():
    assert units(lape(moments_from(made.planted()), rate=0.03)) == PLANTED
    assert units(lape(documents_from(made.planted()), rate=0.03, per="document")) == PLANTED


def test_shuffled_labels_leave_nothing_specific():
    """LAPE always selects its share; under shuffled labels what it selects uses all three languages, and the planted ones are not preferred."""
    true, false = (moments_from(x) for x in (made.planted(), made.shuffled(made.planted())))
    spread = {}
    for name, value in (("true", true), ("false", false)):
        p = probabilities(value)
        found = select(p, language_entropy(p), rate=0.03)
        spread[name] = effective_languages(found.score[found.chosen])
    assert spread["true"].max() < 1.4
    assert spread["false"].min() > 2.95
    found = {unit for chosen in units(lape(false, rate=0.03)).values() for unit in chosen}
    assert len(found) == 6
    assert len(found & {unit for chosen in PLANTED.values() for unit in chosen}) <= 1


# --- per document ---


def test_per_document_every_document_weighs_the_same():
    rng = np.random.default_rng(0)
    texts = {
        name: [rng.normal(size=(n, 2, 5)) for n in lengths] for name, lengths in {"en": (3, 50), "de": (7, 9)}.items()
    }
    strata = documents_from(texts)
    found = probabilities(strata, per="document")
    pooled = probabilities(strata)
    for k, documents in enumerate(texts.values()):
        shares = [(text > 0).mean(0) for text in documents]
        np.testing.assert_allclose(found[..., k], np.mean(shares, 0), rtol=1e-12)
        np.testing.assert_allclose(pooled[..., k], (np.concatenate(documents) > 0).mean(0), rtol=1e-12)
    assert not torch.equal(found, pooled)
    assert torch.equal(pooled, probabilities(moments_from(texts)))


def test_documents_without_tokens_do_not_count():
    texts = {name: [np.ones((2, 1, 3)), np.zeros((0, 1, 3))] for name in ("en", "de")}
    assert (probabilities(documents_from(texts), per="document") == 1).all()


# --- the site ---


def two_sites(*sites):
    counts, n, _, _ = case("two_languages")
    parts = [moments_of(counts if i == 0 else counts.flip(1), n, site=site) for i, site in enumerate(sites)]
    groups = ("positive", "total", "square", "rectified")
    return {
        name: type(value)(
            value.n,
            *({s: getattr(part[name], g)[s] for s, part in zip(sites, parts, strict=True)} for g in groups),
            model="m",
        )
        for name, value in parts[0].items()
    }


def test_the_gate_is_counted_before_the_activation_before_the_product():
    both = two_sites("ffn", "ffn_gate")
    assert torch.equal(probabilities(both), probabilities(both, site="ffn_gate"))
    assert not torch.equal(probabilities(both), probabilities(both, site="ffn"))
    both = two_sites("ffn", "ffn_act")
    assert torch.equal(probabilities(both), probabilities(both, site="ffn_act"))
    assert lape(both)["l0"].sites == ("ffn",)
    assert lape(two_sites("z"))["l0"].sites == ("z",)


def test_the_product_alone_must_be_asked_for():
    alone = two_sites("ffn")
    with pytest.raises(
        ValueError, match=r"only ffn was measured, not 'ffn_gate' or 'ffn_act': measure moments\('ffn_act'\)"
    ):
        lape(alone)
    assert any(lape(alone, site="ffn").values())
    with pytest.raises(ValueError, match=r"only q, k was measured, .* or name the site to use, such as site='q'"):
        probabilities(two_sites("q", "k"))
    with pytest.raises(ValueError, match=r"site 'z' was not measured, only ffn: measure moments\('z'\)"):
        probabilities(alone, site="z")
    with pytest.raises(ValueError, match="unknown site 'mlp'"):
        probabilities(alone, site="mlp")


# --- refusals and warnings ---


def test_one_language_is_refused():
    counts, n, _, _ = case("two_languages")
    with pytest.raises(
        ValueError, match="LAPE compares languages and got l0: with one, every score is 0; give two or more"
    ):
        lape(moments_of(counts[..., :1], n[:1]))
    with pytest.raises(ValueError, match="LAPE compares languages and got none"):
        lape({})


def test_languages_of_different_models_sites_or_shapes_are_refused_by_name():
    counts, n, _, _ = case("two_languages")
    mine = moments_of(counts, n)
    with pytest.raises(ValueError, match=r"'l0' and 'l1' come from different models or tokenizers \(m, other\)"):
        lape({**mine, "l1": moments_of(counts, n, model="other")["l1"]})
    assert lape({**mine, "l1": moments_of(counts, n, model=None)["l1"]})["l0"].model == "m"  # unknown combines
    with pytest.raises(ValueError, match="'l0' was measured at ffn_act, 'l1' at ffn_gate: measure the same sites"):
        lape({**mine, "l1": moments_of(counts, n, site="ffn_gate")["l1"]})
    with pytest.raises(
        ValueError, match=r"'l0' and 'l1' differ in site 'ffn_act': \[layer, width\] \[4, 400\] vs \[4, 399\]"
    ):
        lape({**mine, "l1": moments_of(counts[:, :399], n)["l1"]})
    with pytest.raises(ValueError, match="statistics of 'l1' hold no token: give it texts, or leave it out"):
        lape(moments_of(counts, [1000, 0]))
    with pytest.raises(ValueError, match="no language given"):
        probabilities({})


def test_what_is_not_statistics_is_refused():
    from mwork_lens.detect.inputs import require_comparable

    with pytest.raises(TypeError, match="statistics of 'en' must be Moments or DocumentMoments, got dict"):
        require_comparable({"en": {}})


def test_per_document_needs_documents():
    counts, n, _, _ = case("two_languages")
    with pytest.raises(
        ValueError,
        match=r"per='document' needs statistics per document, and 'l0' has Moments .* measure document_moments",
    ):
        lape(moments_of(counts, n), per="document")
    with pytest.raises(ValueError, match="per='text' is unknown: choose 'token' or 'document'"):
        lape(moments_of(counts, n), per="text")


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, 5.0])
def test_rates_are_shares(bad):
    counts, n, _, _ = case("two_languages")
    for name in ("rate", "filter_rate", "bar_rate"):
        with pytest.raises(ValueError, match=f"{name}={bad} is not a share: give a number between 0 and 1"):
            lape(moments_of(counts, n), **{name: bad})


def test_a_rate_that_selects_nothing_is_refused():
    with pytest.raises(ValueError, match=r"rate=0.01 of 40 units selects none: give at least 0.025"):
        how_many(40, 0.01)


def test_what_cannot_be_ranked_is_refused():
    p = torch.full((1, 100, 2), 0.5)
    with pytest.raises(ValueError, match="1 scores are nan: they cannot be ranked"):
        select(p, torch.cat([torch.zeros(1, 99), torch.full((1, 1), torch.nan)], 1))
    for wrong in (-0.1, torch.nan):
        with pytest.raises(ValueError, match="shares must be numbers of at least 0: 1 of 4 are negative or nan"):
            language_entropy(torch.tensor([[[0.5, 0.2], [0.1, wrong]]]))


def test_too_few_survivors_are_all_taken_with_a_warning():
    """The released code fills up with units that did not survive."""
    p = torch.zeros(1, 100, 2)
    p[0, :, 0] = 0.5
    p[0, :3, 1] = torch.tensor([0.7, 0.8, 0.9])
    with pytest.warns(
        UserWarning, match=r"only 3 units exceed the filter's threshold 0.5 in some language, fewer than the 10"
    ):
        found = select(p, language_entropy(p), rate=0.1, filter_rate=0.95, bar_rate=0.4)
    assert found.chosen.nonzero()[:, 1].tolist() == [0, 1, 2]
    assert found.survivors == 3
    assert found.lists.sum() == 6  # a bar below the filter: they join both, and nothing else does


def test_too_few_tokens_are_named_with_the_number_needed():
    counts, n, _, _ = case("two_languages")
    short = moments_of(counts * 990 // n, [990, 5000])
    with pytest.warns(
        UserWarning, match=r"too few tokens for a threshold of 0.435: l0 990; 1297 per language are needed"
    ):
        lape(short)
    lape(moments_of(counts, n))  # 5000 do not warn


def test_rare_units_need_more_tokens():
    """At a threshold of 0.02 a share is known to 3.2 % with 49,000 tokens."""
    counts, n, _, _ = case("two_languages")
    with pytest.warns(
        UserWarning, match=r"too few tokens for a threshold of 0.02\d*: l0 5000, l1 5097; [34]\d{4} per language"
    ):
        lape(moments_of(counts // 25, n))


def test_a_filter_that_filters_nothing_is_said():
    counts = torch.zeros(1, 100, 2, dtype=torch.long)
    counts[0, :4] = torch.tensor([5, 0])
    with pytest.warns(
        UserWarning, match="the threshold is 0: that many shares are 0, so every unit that ever fires is above it"
    ):
        sets = lape(moments_of(counts, [5000, 5000]))
    assert units(sets) == {"l0": [(0, 0)], "l1": []}


def test_counts_that_exceed_their_tokens_are_damaged():
    """Published counts of a neighbour have such entries; a share of 4.5 would be chosen before all others."""
    counts = torch.randint(0, 1000, (2, 50, 2), generator=torch.Generator().manual_seed(0))
    counts[1, 7, 1] = 4500
    with pytest.raises(
        ValueError, match="unit 7 of layer 1 is positive on 4500 of 1000 tokens of 'l1': these counts are damaged"
    ):
        lape(moments_of(counts, [1000, 1000]), rate=0.1)


def test_counts_beyond_float32_and_many_languages_are_exact():
    """The released code holds counts in float32, which rounds above 2^24; 21 languages as in its neighbours."""
    generator = torch.Generator().manual_seed(0)
    n = torch.randint(2**26, 2**27, (21,), generator=generator)
    counts = (torch.rand(3, 40, 21, generator=generator, dtype=torch.float64) * n).long() | 1
    moments = moments_of(counts, n)
    p = counts.double().numpy() / n.double().numpy()
    flat = sorted(p.reshape(-1).tolist())
    threshold = flat[round(len(flat) * 0.95) - 1]
    q = p / p.sum(-1, keepdims=True)
    entropy = -(q * np.log(q)).sum(-1)
    order = sorted((entropy[j, i], j, i) for j in range(3) for i in range(40) if p[j, i].max() > threshold)
    expected = {(j, i) for _, j, i in order[: round(120 * 0.05)]}
    sets = lape(moments, rate=0.05)
    assert {(layer, unit) for found in sets.values() for _, layer, unit in found} == expected
    for k, found in enumerate(sets.values()):
        assert {(j, i) for _, j, i in found} == {(j, i) for j, i in expected if p[j, i, k] > threshold}


def test_few_documents_are_said_when_shares_are_averaged_over_them():
    strata = {x: held.take(range(20)) for x, held in documents_from(made.planted()).items()}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        lape(strata, rate=0.03, per="document")
        lape(strata, rate=0.03)
    said = [str(one.message) for one in told if "few documents" in str(one.message)]
    assert said == ["few documents for shares averaged over them: en 20, de 20, zh 20; give 40 per language"]
