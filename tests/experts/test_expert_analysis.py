"""Similarities are SciPy's; planted experts and families are found, and not found when the labels are shuffled."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from mwork_lens.experts.analysis import families_of, frequency_table, similarity, stacked
from mwork_lens.experts.categories import CATEGORIES, categories, category_shares, quantile_thresholds, statements
from mwork_lens.experts.frequencies import ExpertCounts
from mwork_lens.experts.kinship import adjusted_rand, dendrogram, family_test, mantel, matrix_of

LANGUAGES = ("en", "de", "fr", "es", "pt", "zh")  # Germanic 2, Romance 3, Sinitic 1
FAMILIES = {"en": "Germanic", "de": "Germanic", "fr": "Romance", "es": "Romance", "pt": "Romance", "zh": "Sinitic"}
LAYERS, EXPERTS, TOKENS, DOCUMENTS = 4, 25, 60, 40
PLAN = {  # cells of each kind, of 100
    **{("co-activated", ""): 10, ("dormant", ""): 10, ("family", "Romance"): 6, ("family", "Germanic"): 4},
    **{("language", name): 3 for name in LANGUAGES},
}


def planted(seed=0):
    """(documents [language document layer expert] of counts, kind of each cell): independent tokens, probabilities well inside the thresholds."""
    rng = np.random.default_rng(seed)
    kinds = [kind for kind, n in PLAN.items() for _ in range(n)]
    kinds += [("mixed", "")] * (LAYERS * EXPERTS - len(kinds))
    kinds = [kinds[i] for i in rng.permutation(len(kinds))]
    p = np.empty((len(LANGUAGES), len(kinds)))
    for i, language in enumerate(LANGUAGES):
        for c, (kind, of) in enumerate(kinds):
            inside = {
                "co-activated": True,
                "dormant": False,
                "family": FAMILIES[language] == of,
                "language": language == of,
            }
            p[i, c] = 0.3 if kind == "mixed" else 0.75 if inside[kind] else 0.03
    documents = rng.binomial(TOKENS, p[:, None, :], (len(LANGUAGES), DOCUMENTS, len(kinds)))
    return documents.reshape(len(LANGUAGES), DOCUMENTS, LAYERS, EXPERTS), kinds


def counted(documents):
    tokens = torch.tensor(DOCUMENTS * TOKENS)
    return {
        name: ExpertCounts(torch.tensor(rows.sum(0)), tokens, 30)
        for name, rows in zip(LANGUAGES, documents, strict=True)
    }


def shuffled(documents, seed):
    """Documents dealt to languages at random: the labels mean nothing."""
    flat = documents.reshape(-1, LAYERS, EXPERTS)
    return np.random.default_rng(seed).permutation(flat).reshape(documents.shape)


def frequencies(seed, names=("en", "de", "fr"), shape=(2, 6)):
    rng = np.random.default_rng(seed)
    return {name: torch.tensor(rng.random(shape)) for name in names}


def table_of(matrix, names):
    rows = [(a, b, matrix[i, j]) for i, a in enumerate(names) for j, b in enumerate(names)]
    return pd.DataFrame(rows, columns=["language", "other", "similarity"])


# ---- similarity


def oracle(a, b, measure, high):
    if measure == "pearson":
        return scipy.stats.pearsonr(a.ravel(), b.ravel()).statistic
    if measure == "spearman":
        return scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
    if measure == "per_layer":
        return np.mean([scipy.stats.pearsonr(x, y).statistic for x, y in zip(a, b, strict=True)])
    if measure == "js":
        return 1 - jensenshannon(a.ravel(), b.ravel(), base=2) ** 2
    mine, yours = ({i for i, x in enumerate(v.ravel()) if x >= high} for v in (a, b))
    return len(mine & yours) / len(mine | yours) if mine | yours else float("nan")


@given(seed=st.integers(0, 10_000), high=st.sampled_from([0.3, 0.5, 0.9]), zeros=st.booleans())
@pytest.mark.parametrize("measure", ["pearson", "spearman", "per_layer", "jaccard", "js"])
def test_similarities_are_those_of_scipy(measure, seed, high, zeros):
    f = frequencies(seed)
    if zeros:
        f = {name: x * (x > 0.3) for name, x in f.items()}
    table = similarity(f, measure=measure, high=high)
    assert list(table.columns) == ["language", "other", "measure", "shared", "similarity"]
    assert len(table) == 9
    for row in table.itertuples():
        expected = oracle(f[row.language].numpy(), f[row.other].numpy(), measure, high)
        np.testing.assert_allclose(row.similarity, expected, atol=1e-9)


@pytest.mark.parametrize("measure", ["pearson", "spearman", "per_layer", "jaccard", "js"])
def test_shared_experts_can_be_removed(measure):
    f = frequencies(1, shape=(2, 9))
    for x in f.values():
        x[:, :3] = 0.9 + 0.05 * x[:, :3]
        x[0, 3:] = 0.1 + 0.5 * x[0, 3:]  # some at and above 0.5, none of them shared by all
    everywhere = np.all([x.numpy() >= 0.5 for x in f.values()], axis=0)
    table = similarity(f, measure=measure, shared="remove").set_index(["language", "other"])["similarity"]
    rest = {name: [row[~out] for row, out in zip(x.numpy(), everywhere, strict=True)] for name, x in f.items()}
    for a, b in itertools.combinations(f, 2):
        if measure == "per_layer":
            expected = np.mean([scipy.stats.pearsonr(x, y).statistic for x, y in zip(rest[a], rest[b], strict=True)])
        else:
            expected = oracle(np.concatenate(rest[a]), np.concatenate(rest[b]), measure, 0.5)
        np.testing.assert_allclose(table[a, b], expected, atol=1e-9)
    kept = similarity(f, measure=measure).set_index(["language", "other"])["similarity"]
    assert kept["en", "de"] > table["en", "de"]  # shared experts push every measure up


@pytest.mark.parametrize("measure", ["pearson", "spearman", "per_layer"])
def test_the_mean_over_languages_can_be_subtracted(measure):
    f = frequencies(2)
    mean = np.mean([x.numpy() for x in f.values()], axis=0)
    for row in similarity(f, measure=measure, shared="subtract").itertuples():
        expected = oracle(f[row.language].numpy() - mean, f[row.other].numpy() - mean, measure, 0.5)
        np.testing.assert_allclose(row.similarity, expected, atol=1e-9)


def test_what_has_no_similarity_is_nan():
    f = {"en": torch.full((2, 3), 0.3), "de": torch.rand(2, 3, generator=torch.Generator().manual_seed(0)).double()}
    table = similarity(f).set_index(["language", "other"])["similarity"]
    assert np.isnan([table["en", "en"], table["en", "de"]]).all()
    assert table["de", "de"] == pytest.approx(1)
    assert similarity({"en": f["en"], "de": f["en"]}, measure="jaccard")["similarity"].isna().all()
    with pytest.raises(ValueError, match="similarity of 'en' and 'en' is missing or nan"):
        dendrogram(similarity(f))
    with pytest.raises(ValueError, match="uses none of the experts compared"):
        similarity({"en": f["en"] * 0, "de": f["de"]}, measure="js")


def test_frequencies_are_a_tidy_table():
    f = frequencies(0)
    table = frequency_table(f)
    assert list(table.columns) == ["language", "layer", "expert", "frequency"]
    assert len(table) == 36
    row = table[(table["language"] == "de") & (table["layer"] == 1) & (table["expert"] == 4)]
    assert row["frequency"].item() == f["de"][1, 4]
    routed = ExpertCounts(torch.ones(2, 3, dtype=torch.long), torch.tensor(900), 2, layers=(1, 3))
    assert frequency_table({"en": routed})["layer"].tolist() == [1, 1, 1, 3, 3, 3]
    assert categories({"en": routed, "de": routed})["layer"].tolist() == [1, 1, 1, 3, 3, 3]


# ---- categories


@pytest.mark.parametrize("quantiles", [None, (0.2, 0.4)])
def test_planted_experts_are_recovered(quantiles):
    documents, kinds = planted()
    table = categories(counted(documents), quantiles=quantiles)
    assert list(zip(table["category"], table["of"], strict=True)) == kinds
    shares = category_shares(table).set_index(["category", "of"])
    for kind, n in PLAN.items():
        assert shares.loc[kind, "experts"] == n
        assert shares.loc[kind, "share"] == n / 100
    assert shares.loc[("language", ""), "experts"] == 18
    assert shares.xs("", level="of")["experts"].sum() == 100
    layers = category_shares(table, by="layer")
    assert layers[layers["of"] == ""].groupby("layer")["experts"].sum().tolist() == [EXPERTS] * LAYERS
    assert layers[(layers["of"] == "Romance")]["experts"].sum() == 6


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_languages_have_no_experts_of_their_own(seed):
    documents, kinds = planted()
    table = categories(counted(shuffled(documents, seed)))
    assert not table["category"].isin(["language", "family"]).any()
    common = [kind in ("co-activated", "dormant") for kind, _ in kinds]  # what all languages share stays
    assert (table["category"].isin(["co-activated", "dormant"]) == common).all()


@given(seed=st.integers(0, 10_000), high=st.sampled_from([0.4, 0.5, 0.7]), low=st.sampled_from([0.1, 0.3]))
def test_categories_are_what_loops_say(seed, high, low):
    rng = np.random.default_rng(seed)
    f = {
        name: torch.tensor(rng.choice([0.05, 0.1, 0.3, 0.5, 0.8], (2, 12), p=[0.4, 0.1, 0.1, 0.1, 0.3]))
        for name in ("en", "de", "fr")
    }
    for row in categories(f, high=high, low=low).itertuples():
        x = {name: float(f[name][row.layer, row.expert]) for name in f}
        using = {name for name in x if x[name] >= high}
        unused = {name for name in x if x[name] <= low}
        expected = ("mixed", "")
        if len(using) == 3:
            expected = ("co-activated", "")
        elif len(unused) == 3:
            expected = ("dormant", "")
        elif using | unused == {"en", "de", "fr"} and len(using) == 1:
            expected = ("language", *using)
        elif using | unused == {"en", "de", "fr"} and using == {"en", "de"}:
            expected = ("family", "Germanic")
        assert (row.category, row.of) == expected
        assert (row.least, row.most) == (min(x.values()), max(x.values()))


def test_families_can_be_given():
    f = {"en": torch.tensor([[0.9, 0.9]]), "fr": torch.tensor([[0.9, 0.9]]), "xx": torch.tensor([[0.0, 0.9]])}
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        categories(f)
    assert categories(f, families={"xx": "X"})["category"].tolist() == ["mixed", "co-activated"]
    table = categories(f, families={"xx": "X", "en": "A", "fr": "A"})
    assert table["category"].tolist() == ["family", "co-activated"]
    one = categories(f, families=dict.fromkeys(f, "A"))  # a family of all is no family
    assert one["category"].tolist() == ["mixed", "co-activated"]
    assert families_of(["en", "zh"], {"en": "A"}) == {"en": "A", "zh": "Sinitic"}
    assert set(CATEGORIES) == set(category_shares(table)["category"])


def test_quantiles_are_shares_of_all_frequencies():
    f = {"en": torch.arange(50).view(5, 10) / 100.0, "de": torch.arange(50, 100).view(5, 10) / 100.0}
    high, low = quantile_thresholds(f, top=0.3, bottom=0.12)
    values = stacked(f)
    assert ((values >= high).mean(), (values <= low).mean()) == (0.3, 0.12)
    for top, bottom in [(0.6, 0.5), (0.0, 0.1), (0.5, 1.0)]:
        with pytest.raises(ValueError, match="must be shares of the experts that leave some between them"):
            quantile_thresholds(f, top=top, bottom=bottom)
    with pytest.raises(ValueError, match=r"meet at 0\.3: give `high` and `low` instead"):
        quantile_thresholds({"en": torch.full((2, 3), 0.3, dtype=torch.double)})


def test_statements_stand_beside_the_papers():
    documents, kinds = planted()
    table = statements(counted(documents)).set_index("statement")
    assert table.loc["high in all languages", "experts"] == kinds.count(("co-activated", ""))
    assert table.loc["low in all languages", "share"] == kinds.count(("dormant", "")) / 100
    assert table["paper_share"].tolist() == [0.5, 1000 / 8192]
    assert (table["of"] == 100).all()
    assert (table["languages"] == 6).all()
    assert (table["share"] <= table["possible"]).all()


@given(seed=st.integers(0, 10_000), high=st.floats(0.2, 1), low=st.floats(0, 0.19))
def test_no_share_exceeds_what_the_mean_allows(seed, high, low):
    f = {name: x.round(decimals=1) ** 2 for name, x in frequencies(seed).items()}
    table = statements(f, high=high, low=low)
    assert (table["share"] <= table["possible"] + 1e-12).all()
    equal = statements({name: torch.tensor([[0.9, 0.0, 0.0]], dtype=torch.double) for name in "ab"}, high=0.9, low=0.0)
    assert equal["possible"].tolist() == pytest.approx([1 / 3, 0.7])
    assert equal["share"].tolist() == pytest.approx([1 / 3, 2 / 3])


# ---- kinship


def naive_family_test(matrix, labels):
    """(difference, p) by a loop over all orders."""

    def difference(given):
        pairs = [(given[i] == given[j], matrix[i, j]) for i, j in itertools.combinations(range(len(given)), 2)]
        return np.mean([s for same, s in pairs if same]) - np.mean([s for same, s in pairs if not same])

    observed = difference(labels)
    every = [difference(order) for order in itertools.permutations(labels)]
    return observed, np.mean([x >= observed - 1e-9 for x in every])


@given(seed=st.integers(0, 10_000), labels=st.sampled_from(["aabbc", "aaabb", "aabcd", "aabb"]))
def test_the_family_test_is_what_a_loop_over_orders_says(seed, labels):
    names = [f"l{i}" for i in range(len(labels))]
    matrix = np.random.default_rng(seed).random((len(labels), len(labels)))
    matrix = (matrix + matrix.T) / 2
    found = family_test(table_of(matrix, names), families=dict(zip(names, labels, strict=True))).iloc[0]
    difference, p = naive_family_test(matrix, list(labels))
    assert found["difference"] == pytest.approx(difference)
    assert found["p"] == pytest.approx(p)
    assert bool(found["exact"])
    blocks = np.equal.outer(list(labels), list(labels)) * 1.0
    best = family_test(table_of(blocks, names), families=dict(zip(names, labels, strict=True))).iloc[0]
    assert best["p"] == pytest.approx(best["smallest_p"])
    assert found["p"] >= best["p"] - 1e-12


@pytest.mark.parametrize("measure", ["pearson", "spearman", "per_layer", "jaccard", "js"])
def test_planted_families_are_found(measure):
    documents, _ = planted()
    table = similarity(counted(documents), measure=measure)
    found = family_test(table).iloc[0]
    assert found["difference"] > 0.005
    assert found["p"] == pytest.approx(1 / 60)  # 6! / (3! 2! 1!) groupings: the least there is
    assert found["smallest_p"] == pytest.approx(1 / 60)
    assert (found["languages"], found["families"]) == (6, 2)
    tree = dendrogram(table)
    assert tree.rand == 1
    assert tree.cophenetic > 0.9
    together = [FAMILIES[name] for name in tree.order]
    assert len([1 for a, b in itertools.pairwise(together) if a != b]) == 2  # each family stands together


def test_shuffled_languages_have_no_families():
    documents, _ = planted()
    p = [
        family_test(similarity(counted(shuffled(documents, seed)), shared="subtract")).iloc[0]["p"]
        for seed in range(40)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert 0.35 < np.mean(p) < 0.65


def test_many_languages_are_drawn_and_reproducible():
    names = [f"l{i}" for i in range(10)]
    families = {name: "abc"[i % 3] for i, name in enumerate(names)}
    blocks = np.equal.outer([families[n] for n in names], [families[n] for n in names]) * 1.0
    noise = np.random.default_rng(0).random((10, 10))
    table = table_of(blocks + (noise + noise.T) / 10, names)
    found = family_test(table, families=families, permutations=500).iloc[0]
    assert not found["exact"]
    assert found["p"] == found["smallest_p"] == 1 / 501
    assert family_test(table, families=families, permutations=500).iloc[0]["p"] == found["p"]
    noise_table = table_of((noise + noise.T) / 2, names)
    seeds = {family_test(noise_table, families=families, permutations=200, seed=s).iloc[0]["p"] for s in range(3)}
    assert len(seeds) > 1
    assert min(seeds) > 0.02
    with pytest.raises(ValueError, match="permutations=0: draw at least 1"):
        family_test(table, families=families, permutations=0)


@given(seed=st.integers(0, 10_000))
@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_mantel_is_what_a_loop_over_orders_says(method, seed):
    rng = np.random.default_rng(seed)
    names = list("abcd")
    mine, yours = (np.round(m + m.T, 2) for m in rng.random((2, 4, 4)))
    pairs = list(itertools.combinations(range(4), 2))
    correlate = scipy.stats.pearsonr if method == "pearson" else scipy.stats.spearmanr

    def r(order):
        return correlate([mine[i, j] for i, j in pairs], [yours[order[i], order[j]] for i, j in pairs]).statistic

    every = [r(order) for order in itertools.permutations(range(4))]
    found = mantel(table_of(mine, names), table_of(yours, names), method=method).iloc[0]
    assert found["r"] == pytest.approx(every[0])
    assert found["p"] == pytest.approx(np.mean([x >= every[0] - 1e-9 for x in every]))


def test_mantel_of_a_table_with_itself():
    documents, _ = planted()
    counts = counted(documents)
    found = mantel(similarity(counts), similarity(counts, measure="js")).iloc[0]
    assert found["r"] > 0.8
    assert found["p"] < 0.02
    with pytest.raises(ValueError, match="method='kendall' is unknown"):
        mantel(similarity(counts), similarity(counts), method="kendall")
    flat = table_of(np.ones((6, 6)), LANGUAGES)
    with pytest.raises(ValueError, match="there is nothing to correlate"):
        mantel(similarity(counts), flat)


def test_the_tree_is_scipys():
    from scipy.cluster.hierarchy import cophenet, linkage
    from scipy.spatial.distance import squareform

    table = similarity(frequencies(3, names=LANGUAGES))
    names, values = matrix_of(table)
    distance = squareform(1 - values, checks=False)
    tree = dendrogram(table)
    expected = linkage(distance, "average")
    np.testing.assert_allclose(np.sort(tree.linkage[:, 2]), np.sort(expected[:, 2]))
    assert tree.cophenetic == pytest.approx(cophenet(expected, distance)[0])
    assert sorted(tree.order) == sorted(names)
    assert tree.languages == LANGUAGES
    two = dendrogram(table, languages=["zh", "en"])
    assert np.isnan(two.cophenetic)
    assert set(two.order) == {"zh", "en"}


@given(a=st.lists(st.integers(0, 2), min_size=5, max_size=5), b=st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_the_adjusted_rand_index_is_that_of_counted_pairs(a, b):
    pairs = list(itertools.combinations(range(5), 2))
    same = [(a[i] == a[j], b[i] == b[j]) for i, j in pairs]
    n11, n10 = sum(x and y for x, y in same), sum(x and not y for x, y in same)
    n01, n00 = sum(y and not x for x, y in same), sum(not x and not y for x, y in same)
    below = (n11 + n10) * (n10 + n00) + (n11 + n01) * (n01 + n00)
    found = adjusted_rand(a, b)
    if below:
        assert found == pytest.approx(2 * (n11 * n00 - n10 * n01) / below)
    else:
        assert np.isnan(found)


# ---- bad input


def test_bad_frequencies_are_refused():
    f = frequencies(0)
    with pytest.raises(ValueError, match="language 'zh' is missing from the frequencies, which have en, de, fr"):
        similarity(f, languages=["en", "zh"])
    for few in ({}, {"en": f["en"]}):
        for call in (similarity, categories, statements):
            with pytest.raises(ValueError, match="at least 2 languages are needed"):
                call(few)
    with pytest.raises(ValueError, match=r"of one shape: 'de' has \[2, 5\], 'en' has \[2, 6\]"):
        similarity({"en": f["en"], "de": f["de"][:, :5]})
    with pytest.raises(ValueError, match="frequencies of 'de' are not all between 0 and 1"):
        similarity({"en": f["en"], "de": f["de"] * float("nan")})
    with pytest.raises(ValueError, match="give shares of tokens, not counts"):
        similarity({"en": f["en"], "de": f["de"] * 100})
    with pytest.raises(ValueError, match="measure='cosine' is unknown: choose from 'pearson', 'spearman'"):
        similarity(f, measure="cosine")
    with pytest.raises(ValueError, match="shared='drop' is unknown"):
        similarity(f, shared="drop")
    with pytest.raises(ValueError, match="shared='subtract' leaves differences"):
        similarity(f, measure="js", shared="subtract")
    with pytest.raises(ValueError, match="0 experts are left to compare"):
        similarity({name: x * 0 + 0.9 for name, x in f.items()}, shared="remove")
    with pytest.raises(ValueError, match=r"high=0.0 is no frequency"):
        similarity(f, measure="jaccard", high=0.0)
    for high, low in [(0.1, 0.5), (0.5, 0.5), (1.5, 0.1), (0.5, -0.1)]:
        for call in (categories, statements):
            with pytest.raises(ValueError, match="0 <= low < high <= 1"):
                call(f, high=high, low=low)
    with pytest.raises(ValueError, match="by='expert' is unknown"):
        category_shares(categories(f), by="expert")


def test_counts_of_other_partitions_or_models_are_not_compared():
    def counts(**facts):
        return ExpertCounts(torch.tensor([[300, 100, 0]]), torch.tensor(400), 1, **facts)

    for a, b, message in [
        ({"partition": "p"}, {"partition": "q"}, "different partitions"),
        ({"model": "m"}, {"model": "n"}, "different models"),
        ({"how": "x"}, {"how": "y"}, "selected differently"),
    ]:
        with pytest.raises(ValueError, match=message):
            similarity({"en": counts(**a), "de": counts(**b)})


def test_too_few_tokens_are_said():
    few = ExpertCounts(torch.tensor([[30, 10, 0]]), torch.tensor(40), 1)
    enough = ExpertCounts(torch.tensor([[385, 0, 0]]), torch.tensor(385), 1)
    with pytest.warns(UserWarning, match=r"too few tokens \(en 40\): 385 per language are needed"):
        similarity({"en": few, "de": enough})
    similarity({"en": enough, "de": enough})  # a warning is an error here


def test_bad_similarity_tables_are_refused():
    table = similarity(frequencies(0, names=LANGUAGES))
    with pytest.raises(ValueError, match="language 'ru' is missing from the similarities"):
        family_test(table, languages=["en", "ru", "fr"])
    with pytest.raises(ValueError, match=r"at least 3 languages are needed, got \['en', 'de'\]"):
        family_test(table, languages=["en", "de"])
    with pytest.raises(ValueError, match="a pair of languages comes twice"):
        dendrogram(pd.concat([table, table]))
    with pytest.raises(ValueError, match="similarity of 'en' and 'de' is missing or nan"):
        dendrogram(table[(table["language"] != "en") | (table["other"] != "de")])
    crooked = table.assign(similarity=np.arange(36.0))
    with pytest.raises(ValueError, match="similarities must be symmetric"):
        dendrogram(crooked)
    with pytest.raises(ValueError, match="no family has two of the languages"):
        family_test(table, languages=["en", "fr", "zh"])
    with pytest.raises(ValueError, match="all languages are of the family 'Romance'"):
        family_test(table, languages=["fr", "es", "pt"])
    with pytest.raises(ValueError, match="unknown language 'l0'"):
        family_test(table_of(np.eye(3), ["l0", "l1", "l2"]))


def test_a_language_is_named_once_and_subtracting_needs_three():
    f = {
        x: torch.rand(2, 6, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        for i, x in enumerate(("en", "fr", "es"))
    }
    with pytest.raises(ValueError, match="a language is named twice"):
        similarity(f, languages=["en", "en", "fr"])
    with pytest.raises(ValueError, match="a language is named twice"):
        family_test(similarity(f), languages=["fr", "fr", "es"])
    with pytest.raises(ValueError, match="shared='subtract' needs three languages"):
        similarity(f, shared="subtract", languages=["en", "fr"])
    alike = dict.fromkeys(f, f["en"])
    assert similarity(alike, shared="subtract")["similarity"].isna().all()  # nothing is left but rounding
