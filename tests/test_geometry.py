"""Embeddings against a plain model's own hidden states; geometry against plain loops over sentences, laws, and planted spaces."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import pair
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, spearmanr

from mwork_lens.analysis import layer_counts
from mwork_lens.corpora import Corpus, load_corpora
from mwork_lens.evaluate import resample
from mwork_lens.geometry.embeddings import Embeddings, embed
from mwork_lens.geometry.tables import ALL, dominance, meeting, retrieval, similarity
from mwork_lens.neurons import NeuronSet

LANGUAGES = ("en", "de", "zh")
WORDS = {
    "en": ("w3 w14 w15", "w2", "w6 w53 w58 w9 w7 w9 w20", "w1 w1"),
    "de": ("w31 w40", "w2 w7 w8 w60 w61", "w33", "w35 w36 w37 w38"),
}
TEXTS = {language: Corpus(language, texts, tuple("abcd")) for language, texts in WORDS.items()}


def planted(n=40, *, meaning=1.0, offset=0.0, noise=0.3, layers=1, width=24, languages=LANGUAGES, seed=0):
    """Sentence = meaning shared by its translations + what its language adds + noise of its own."""
    g = torch.Generator().manual_seed(seed)
    content = torch.randn(layers, n, width, generator=g)
    return Embeddings(
        tuple(f"s{i}" for i in range(n)),
        {
            x: meaning * content
            + offset * torch.randn(layers, 1, width, generator=g)
            + noise * torch.randn(layers, n, width, generator=g)
            for x in languages
        },
    )


def changed(embeddings, change):
    return Embeddings(embeddings.documents, {x: change(v) for x, v in embeddings.vectors.items()}, embeddings.layers)


def value(table, a, b, column, layer=0):
    rows = table[(table["language"] == a) & (table["other"] == b) & (table["layer"] == layer)]
    assert len(rows) == 1
    return float(rows[column].iloc[0])


def cos(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / math.sqrt(
        sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b)
    )


def naive(xs, ys, names, how):
    """Mean cosine of the same and of other sentences; `names` says which of the (perhaps repeated) rows are the same sentence."""
    v, u = xs.mean(0), ys.mean(0)
    if how == "centred":
        xs, ys = xs - v, ys - u
    if how == "mapped":
        xs = xs - v + u
    same, other = [], []
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            if i == j:
                same.append(cos(x, y))
            elif names[i] != names[j]:
                other.append(cos(x, y))
    return float(np.mean(same)), float(np.mean(other))


def rows_of(embeddings, language, layer=0):
    return embeddings.vectors[language][layer].double().numpy()


# --- embed


def hidden(plain, text):
    """The stream before each block and after the last of one text, BOS first, of a plain model."""
    ids = torch.tensor([[1, *(int(word[1:]) + 4 for word in text.split())]])
    seen = []
    blocks = plain.model.layers
    handles = [
        b.register_forward_hook(lambda m, args, out: seen.append(out[0] if isinstance(out, tuple) else out))
        for b in blocks
    ]
    try:
        with torch.no_grad():
            plain(ids)
            embedding = plain.model.embed_tokens(ids)
    finally:
        for handle in handles:
            handle.remove()
    return [state.reshape(ids.shape[1], -1) for state in (embedding, *seen)]


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_embeddings_are_the_hidden_states_of_a_plain_model(llama, pool):
    found = embed(llama, TEXTS, pool=pool, size=3, progress=False)
    assert found.layers == (0, 1, 2)
    assert found.languages == ("en", "de")
    assert (found.documents, found.pool) == (tuple("abcd"), pool)
    for language, texts in WORDS.items():
        for s, text in enumerate(texts):
            for layer, state in enumerate(hidden(pair("llama")[1], text)):
                expected = state[-1] if pool == "last" else state[1:].mean(0)  # BOS is no token of the sentence
                torch.testing.assert_close(found.vectors[language][layer, s], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_padding_changes_no_embedding(any_family, pool):
    _, model, _ = any_family
    alone, together = (embed(model, TEXTS, pool=pool, size=size, progress=False) for size in (1, 4))
    for language in TEXTS:
        torch.testing.assert_close(alone.vectors[language], together.vectors[language], rtol=1e-4, atol=1e-5)
    # negative control: sentences differ
    assert float((alone.vectors["en"][-1, 0] - alone.vectors["en"][-1, 2]).abs().max()) > 1e-2


def test_some_layers_are_those_layers_of_all(llama):
    whole = embed(llama, TEXTS, progress=False)
    for layers in ([0], [2], [2, 0], [1]):
        some = embed(llama, TEXTS, layers=layers, progress=False)
        assert some.layers == tuple(sorted(layers))
        for language in TEXTS:
            assert torch.equal(some.vectors[language], whole.vectors[language][list(some.layers)])


def test_documents_are_matched_by_id_not_by_place(llama):
    turned = TEXTS | {"de": Corpus("de", WORDS["de"][::-1], tuple("dcba"))}
    a, b = embed(llama, TEXTS, progress=False), embed(llama, turned, progress=False)
    torch.testing.assert_close(a.vectors["de"], b.vectors["de"], rtol=1e-4, atol=1e-5)
    assert a.documents == b.documents


def test_embeddings_survive_their_tensors(llama):
    found = embed(llama, TEXTS, layers=[1], progress=False)
    again = Embeddings.from_tensors(*found.to_tensors())
    assert (again.documents, again.layers, again.pool, again.model) == (found.documents, (1,), "last", found.model)
    assert again.languages == found.languages
    assert all(torch.equal(again.vectors[x], found.vectors[x]) for x in found.languages)


def test_texts_that_are_not_parallel_are_refused(llama):
    fewer = TEXTS | {"de": Corpus("de", WORDS["de"][:3], ("a", "b", "x"))}
    with pytest.raises(
        ValueError, match=r"not parallel: 'de' lacks 2 documents of 'en' \(c, d\); 'en' lacks 1 of 'de' \(x\)"
    ):
        embed(llama, fewer, progress=False)
    with pytest.raises(ValueError, match="no corpora to embed"):
        embed(llama, {}, progress=False)


def test_an_unknown_pool_or_layer_is_refused(llama):
    import sys

    unchecked = sys.modules["mwork_lens.geometry.embeddings"].embed.__wrapped__  # without the tests' type checks
    with pytest.raises(ValueError, match="unknown pool='max': choose last or mean"):
        unchecked(llama, TEXTS, pool="max")
    with pytest.raises(ValueError, match=r"layer 3 does not exist: the stream of this model has entries 0\.\.2"):
        embed(llama, TEXTS, layers=[3])
    with pytest.raises(ValueError, match=r"no layer given: choose from 0\.\.2"):
        embed(llama, TEXTS, layers=[])


@pytest.mark.parametrize(
    ("vectors", "options", "message"),
    [
        ({}, {}, "no language given"),
        ({"en": torch.ones(1, 2, 3), "de": torch.ones(1, 2, 4)}, {}, r"'en' is \[1, 2, 3\], 'de' \[1, 2, 4\]"),
        ({"en": torch.full((1, 2, 3), float("nan"))}, {}, "NaN or infinite values in the vectors of 'en'"),
        ({"en": torch.ones(1, 3, 3)}, {}, r"1 layers and 2 documents are named, but the vectors are \[1, 3, 3\]"),
        ({"en": torch.ones(2, 2, 3)}, {"layers": (1,)}, "1 layers and 2 documents"),
        ({"en": torch.ones(2, 2, 3)}, {"layers": (1, 1)}, "a layer is given twice"),
    ],
)
def test_embeddings_that_do_not_fit_together_are_refused(vectors, options, message):
    with pytest.raises(ValueError, match=message):
        Embeddings(("a", "b"), vectors, **options)
    with pytest.raises(ValueError, match="a document is given twice"):
        Embeddings(("a", "a"), {"en": torch.ones(1, 2, 3)})


# --- against loops


@pytest.mark.parametrize("how", ["raw", "centred", "mapped"])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_means_and_intervals_are_those_of_loops_over_sentences(how, offset):
    """Offset 30: the common vector that makes every raw cosine near 1."""
    n, resamples, seed = 6, 12, 5
    e = planted(n, offset=offset, width=5, layers=2, seed=3)
    name = "dominance" if how == "mapped" else "parallel"
    if how == "mapped":
        table = dominance(e, resamples=resamples, seed=seed)
    else:
        table = similarity(e, centred=how == "centred", resamples=resamples, shuffles=9, seed=seed)
    pairs = list((itertools.permutations if how == "mapped" else itertools.combinations)(LANGUAGES, 2))
    draws = [
        np.arange(n),
        *(np.repeat(np.arange(n), w.astype(int)) for w in resample(n, resamples=resamples, seed=seed)),
    ]
    for layer in (0, 1):
        found = {
            (a, b): np.array([naive(rows_of(e, a, layer)[d], rows_of(e, b, layer)[d], d, how) for d in draws])
            for a, b in pairs
        }
        groups = {p: [p] for p in pairs} | {(ALL, ALL): pairs}
        for x in LANGUAGES:
            key = (ALL, x) if how == "mapped" else (x, ALL)
            groups[key] = [p for p in pairs if (x == p[1] if how == "mapped" else x in p)]
        assert len(table[table["layer"] == layer]) == len(groups)
        for (a, b), members in groups.items():
            same, other = np.mean([found[m] for m in members], axis=0).T
            for column, series in ((name, same), ("adjusted", same - other)):
                assert value(table, a, b, column, layer) == pytest.approx(series[0], abs=1e-9)
                ends = np.quantile(series[1:], [0.025, 0.975])
                assert value(table, a, b, f"{column}_low", layer) == pytest.approx(ends[0], abs=1e-9)
                assert value(table, a, b, f"{column}_high", layer) == pytest.approx(ends[1], abs=1e-9)
            assert value(table, a, b, "shuffled", layer) == pytest.approx(other[0], abs=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_retrieval_is_that_of_loops(centred):
    e = planted(9, noise=1.0, offset=0.5, width=6)
    table = retrieval(e, centred=centred)
    found = {}
    for a, b in itertools.permutations(LANGUAGES, 2):
        xs, ys = (rows_of(e, x) - (rows_of(e, x).mean(0) if centred else 0) for x in (a, b))
        found[a, b] = [max(range(9), key=lambda j, x=x, ys=ys: cos(x, ys[j])) == i for i, x in enumerate(xs)]
        assert value(table, a, b, "accuracy") == pytest.approx(np.mean(found[a, b]))
        ends = binomtest(sum(found[a, b]), 9).proportion_ci(method="wilson")
        assert value(table, a, b, "low") == pytest.approx(ends.low, abs=1e-9)
        assert value(table, a, b, "high") == pytest.approx(ends.high)
    assert 0 < value(table, ALL, ALL, "accuracy") < 1
    assert value(table, ALL, ALL, "accuracy") == pytest.approx(np.mean(list(found.values())))
    assert value(table, "en", ALL, "accuracy") == pytest.approx(np.mean([found["en", "de"], found["en", "zh"]]))
    assert value(table, ALL, "en", "accuracy") == pytest.approx(np.mean([found["de", "en"], found["zh", "en"]]))
    assert (table["chance"] == 1 / 9).all()
    # a mean over pairs is known no worse than a pair with its accuracy, no better than if the pairs were independent
    share = value(table, ALL, ALL, "accuracy")
    width = value(table, ALL, ALL, "high") - value(table, ALL, ALL, "low")
    widths = [np.ptp(binomtest(round(share * m), m).proportion_ci(method="wilson")) for m in (9, 54)]
    assert widths[1] - 1e-9 <= width <= widths[0] + 0.02


def test_p_is_that_of_an_exact_permutation_test():
    e = planted(6, noise=2.0, languages=("en", "de"), width=4, seed=2)
    x, y = (rows_of(e, name) for name in ("en", "de"))
    cosines = np.array([[cos(a, b) for b in y] for a in x])

    def mean_of(order):
        return np.mean([cosines[i, int(j)] for i, j in enumerate(order)])

    exact = permutation_test(
        (np.arange(6),), mean_of, permutation_type="pairings", alternative="greater", n_resamples=np.inf
    )
    table = similarity(e, resamples=5, shuffles=4000)
    assert 0.05 < exact.pvalue < 0.95
    assert value(table, "en", "de", "p") == pytest.approx(exact.pvalue, abs=0.03)
    assert value(table, ALL, ALL, "p") == value(table, "en", "de", "p")


# --- laws


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), n=st.integers(3, 8))
def test_scaling_and_turning_the_space_change_nothing(seed, scale, n):
    e = planted(n, width=5, offset=1.0, seed=seed)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    moved = changed(e, lambda v: scale * (v.double() @ turn))
    e = changed(e, lambda v: v.double())
    for measure in (
        lambda e: similarity(e, resamples=9, shuffles=9),
        lambda e: similarity(e, centred=True, resamples=9, shuffles=9),
        lambda e: dominance(e, resamples=9),
        retrieval,
    ):
        pd.testing.assert_frame_equal(measure(e), measure(moved), atol=1e-7)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 8), centred=st.booleans())
def test_similarity_is_symmetric_and_bounded(seed, n, centred):
    e = planted(n, width=5, offset=1.0, seed=seed)
    backwards = Embeddings(e.documents, dict(reversed(e.vectors.items())))
    there, back = (similarity(x, centred=centred, resamples=9, shuffles=9) for x in (e, backwards))
    for a, b in itertools.combinations(LANGUAGES, 2):
        for column in ("parallel", "shuffled", "adjusted", "parallel_low", "adjusted_high"):
            assert value(there, a, b, column) == pytest.approx(value(back, b, a, column), nan_ok=True)
    for column in ("parallel", "parallel_low", "parallel_high", "shuffled"):
        assert there[column].dropna().between(-1 - 1e-12, 1 + 1e-12).all()
    assert there["p"].between(1 / 10, 1).all()


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), far=st.floats(-100, 100))
def test_moving_a_language_as_a_whole_changes_no_centred_value(seed, far):
    e = planted(6, width=5, seed=seed)
    e = changed(e, lambda v: v.double())
    moved = Embeddings(e.documents, {x: v + (far if x == "de" else 0) for x, v in e.vectors.items()})
    for measure in (
        lambda e: similarity(e, centred=True, resamples=9, shuffles=9),
        lambda e: retrieval(e, centred=True),
    ):
        pd.testing.assert_frame_equal(measure(e), measure(moved), atol=1e-7)
    # and dominance sees only where it is sent to
    there, back = (dominance(x, resamples=9) for x in (e, moved))
    for column in ("dominance", "shuffled", "centred_low"):
        assert value(there, "de", "en", column) == pytest.approx(value(back, "de", "en", column), abs=1e-7)
    if abs(far) > 1:
        assert value(there, "en", "de", "dominance") != pytest.approx(value(back, "en", "de", "dominance"), abs=1e-7)


def test_centred_dominance_is_centred_similarity():
    e = planted(8, offset=2.0)
    table, core = dominance(e, resamples=20), similarity(e, centred=True, resamples=20, shuffles=9)
    for a, b in itertools.combinations(LANGUAGES, 2):
        for mine, theirs in (
            ("centred", "parallel"),
            ("centred_low", "parallel_low"),
            ("centred_high", "parallel_high"),
        ):
            assert value(table, a, b, mine) == value(table, b, a, mine) == value(core, a, b, theirs)


def test_draws_are_seeded():
    e = planted(12)
    pd.testing.assert_frame_equal(similarity(e, seed=1), similarity(e, seed=1))
    a, b = similarity(e, seed=1), similarity(e, seed=2)
    assert (a["parallel_low"] != b["parallel_low"]).any()
    assert (a["parallel"] == b["parallel"]).all()


def test_intervals_hold_the_estimate_and_shrink_with_documents():
    widths = []
    for n in (20, 320):
        table = similarity(planted(n), shuffles=9)
        assert ((table["adjusted_low"] <= table["adjusted"]) & (table["adjusted"] <= table["adjusted_high"])).all()
        widths.append((table["adjusted_high"] - table["adjusted_low"]).mean())
    assert widths[1] < 0.5 * widths[0]


# --- planted spaces


def test_shared_meaning_is_found_behind_language_offsets():
    e = planted(60, meaning=1.0, offset=8.0, noise=0.2)
    centred = similarity(e, centred=True)
    assert value(centred, ALL, ALL, "parallel") > 0.9
    assert value(centred, ALL, ALL, "adjusted_low") > 0.9
    assert (centred["p"] == 1 / 1000).all()
    assert (retrieval(e, centred=True)["accuracy"] == 1).all()
    # raw, the offsets drown it
    assert value(similarity(e, shuffles=9), ALL, ALL, "adjusted") < 0.1
    # mapped, near 1 with and without meaning: only the baseline tells
    mapped = dominance(e)
    assert value(mapped, ALL, ALL, "dominance") > 0.97
    assert 0 < value(mapped, ALL, ALL, "adjusted") < 0.1


def test_without_shared_meaning_there_is_none():
    e = planted(60, meaning=0.0, offset=8.0, noise=1.0)
    centred = similarity(e, centred=True)
    assert abs(value(centred, ALL, ALL, "adjusted")) < 0.05
    assert value(centred, ALL, ALL, "adjusted_low") < 0 < value(centred, ALL, ALL, "adjusted_high")
    assert value(centred, ALL, ALL, "p") > 0.05
    found = retrieval(e, centred=True)
    assert value(found, ALL, ALL, "low") < 1 / 60 < value(found, ALL, ALL, "high")
    assert value(dominance(e), ALL, ALL, "dominance") > 0.97, "as high as with meaning"
    assert abs(value(dominance(e), ALL, ALL, "adjusted")) < 0.01


def test_shuffled_documents_lose_what_parallel_ones_have():
    e = planted(60, noise=0.2)
    g = torch.Generator().manual_seed(1)
    mixed = changed(e, lambda v: v[:, torch.randperm(60, generator=g)])
    before, after = similarity(e), similarity(mixed)
    assert value(before, ALL, ALL, "adjusted") > 0.9
    assert abs(value(after, ALL, ALL, "adjusted")) < 0.05
    assert value(after, ALL, ALL, "p") > 0.05
    assert value(retrieval(mixed), ALL, ALL, "accuracy") < 0.1


def test_chance_is_the_mean_accuracy_over_all_pairings():
    e = planted(4, noise=0.1, languages=("en", "de"), width=3)
    accuracies = []
    for order in itertools.permutations(range(4)):
        mixed = Embeddings(e.documents, {"en": e.vectors["en"], "de": e.vectors["de"][:, list(order)]})
        accuracies.append(value(retrieval(mixed), "en", "de", "accuracy"))
    assert np.mean(accuracies) == pytest.approx(1 / 4)


# --- the edge


def test_one_vector_for_all_sentences_has_no_centred_cosine_and_ties_in_retrieval():
    e = planted(5, layers=2)
    g = torch.Generator().manual_seed(0)
    for x in LANGUAGES:
        e.vectors[x][0] = torch.randn(1, 24, generator=g)  # as at layer 0, if all texts end in a full stop
    raw, centred = similarity(e, resamples=20, shuffles=9), similarity(e, centred=True, resamples=20, shuffles=9)
    assert value(raw, "en", "de", "adjusted") == pytest.approx(0, abs=1e-12)
    assert value(raw, "en", "de", "p") == 1
    assert (retrieval(e).query("layer == 0")["accuracy"] - 0.2).abs().max() < 1e-12
    for table, columns in (
        (centred, ["parallel", "adjusted", "adjusted_low", "adjusted_high", "p"]),
        (retrieval(e, centred=True), ["accuracy", "low", "high"]),
        (dominance(e, resamples=20), ["centred", "centred_low"]),
    ):
        assert table[table["layer"] == 0][columns].isna().all(axis=None)
        assert table[table["layer"] == 1][columns].notna().all(axis=None)


def test_too_little_to_compare_is_refused():
    for measure in (similarity, retrieval, dominance):
        with pytest.raises(ValueError, match="there is only 'en': geometry compares at least two languages"):
            measure(planted(languages=("en",)))
        with pytest.raises(ValueError, match="there is one document: without a second there is no baseline"):
            measure(planted(1))
        e = planted(3, layers=2)
        e.vectors["de"][1, 2] = 0
        with pytest.raises(ValueError, match="document 's2' of 'de' is a zero vector at layer 1, which has no cosine"):
            measure(e)
    assert np.isfinite(value(similarity(e, centred=True, shuffles=9), "en", "de", "parallel", 1)), (
        "centred it is a vector"
    )


# --- meeting


def tables(adjusted, counts, *, first=1):
    """Similarity and counts of two languages, the same for both; entry 0 of the stream has similarity 9."""
    rows = [
        (a, b, layer, x, False)
        for layer, x in enumerate([9.0, *adjusted], first - 1)
        for a, b in (("en", "de"), ("en", ALL), ("de", ALL), (ALL, ALL))
    ]
    counted = [(x, "ffn", layer, n, 100) for x in ("en", "de") for layer, n in enumerate(counts)]
    return (
        pd.DataFrame(rows, columns=["language", "other", "layer", "adjusted", "centred"]),
        pd.DataFrame(counted, columns=["language", "site", "layer", "count", "width"]),
    )


@given(
    values=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=5),
)
def test_meeting_is_scipys_spearman_with_an_exact_p(values):
    x, y = (np.array(column, dtype=float) for column in zip(*values, strict=True))
    row = meeting(*tables(x, y.astype(int))).set_index("language").loc[ALL]
    assert (row["layers"], row["exact"]) == (len(x), True)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(row[["rho", "p", "detectable"]].astype(float)).all()
        return
    rho = spearmanr(x, y).statistic
    assert row["rho"] == pytest.approx(rho)
    every = [abs(spearmanr(x, np.array(order)).statistic) for order in itertools.permutations(y)]
    assert row["p"] == pytest.approx(np.mean([r >= abs(rho) - 1e-9 for r in every]))
    reached = [r for r in every if np.mean([other >= r - 1e-9 for other in every]) <= 0.05]
    assert row["detectable"] == pytest.approx(min(reached) if reached else np.nan, nan_ok=True)


def test_meeting_pairs_layer_i_with_the_state_after_it():
    falling = np.arange(8.0)[::-1]
    table = meeting(*tables(falling, range(8)))
    assert list(table["language"]) == ["en", "de", ALL]
    np.testing.assert_allclose(table["rho"], -1)
    assert (table["layers"] == 8).all()
    assert table["p"].iloc[0] == pytest.approx(2 / math.factorial(8))
    assert table["detectable"].iloc[0] == pytest.approx(0.738, abs=1e-3)  # the critical value of the usual tables
    rising = meeting(*tables(np.arange(8.0), range(8)))
    assert rising["rho"].iloc[0] == pytest.approx(1), "negative control"


def test_with_four_layers_nothing_can_be_detected_and_with_many_the_orders_are_drawn():
    few = meeting(*tables([4.0, 3, 2, 1], [1, 2, 3, 4])).iloc[-1]
    assert few["rho"] == pytest.approx(-1)
    assert few["p"] == pytest.approx(2 / 24)
    assert np.isnan(few["detectable"])
    two = meeting(*tables([4.0, 3], [1, 2])).iloc[-1]
    assert np.isnan(two["rho"])
    g = np.random.default_rng(0)
    x, y = g.normal(size=20), g.integers(0, 50, 20)
    many = meeting(*tables(x, y), shuffles=2000, seed=3).iloc[-1]
    assert not many["exact"]
    assert many["rho"] == pytest.approx(spearmanr(x, y).statistic)
    assert many["p"] == pytest.approx(spearmanr(x, y).pvalue, abs=0.05)
    assert 0.4 < many["detectable"] < 0.5  # the tables say 0.447
    assert many["p"] == meeting(*tables(x, y), shuffles=2000, seed=3).iloc[-1]["p"]


def test_a_layer_without_similarity_is_left_out():
    table = meeting(*tables([5.0, np.nan, 3, 2, 1], [1, 100, 2, 3, 4])).iloc[-1]
    assert (table["layers"], table["rho"]) == (4, pytest.approx(-1))


def test_meeting_reads_the_tables_as_they_are_made():
    shape = {"ffn": (1, 6), "q": (1, 3)}
    sets = {x: NeuronSet.of([("ffn", 0, i), ("q", 0, i)], shape) for i, x in enumerate(LANGUAGES)}
    table = meeting(similarity(planted(layers=2), shuffles=9), layer_counts(sets))
    assert list(table["language"]) == [*LANGUAGES, ALL]
    assert (table["layers"] == 1).all()


def test_tables_that_do_not_belong_together_are_refused():
    similarities, counts = tables([3.0, 2, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="only one of the two tables has de: compare"):
        meeting(similarities, counts[counts["language"] == "en"])
    with pytest.raises(ValueError, match="no layer in common"):
        meeting(similarities[similarities["layer"] == 0], counts)
    with pytest.raises(ValueError, match="mixes centred and raw rows"):
        meeting(pd.concat([similarities, similarities.assign(centred=True)]), counts)


def test_the_trained_model_puts_translations_nearer_than_other_sentences_in_related_languages(polyglot):
    texts = load_corpora("embedded", ["en", "fr", "es"], limit=24)
    e = embed(polyglot, texts, pool="mean", layers=[8], progress=False)
    table = similarity(e, centred=True, resamples=200, shuffles=199)
    assert value(table, "fr", "es", "adjusted_low", 8) > 0
    assert value(table, ALL, ALL, "p", 8) == 1 / 200
    mixed = Embeddings(e.documents, {x: v.roll(i, dims=1) for i, (x, v) in enumerate(e.vectors.items())}, e.layers)
    assert value(similarity(mixed, centred=True, resamples=200, shuffles=199), ALL, ALL, "p", 8) > 0.05
