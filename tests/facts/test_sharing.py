import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.facts.sharing import SHARING, as_matrix, cluster, off_diagonal_mean, sharing, sharing_table

LANGUAGES = ("en", "de", "ja", "sw")


def table(seed: int, *, facts: int = 20, missing: float = 0.3, correct: float = 0.4) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        (x, f"r{f % 3}", f"f{f}", bool(rng.random() < correct))
        for x in LANGUAGES
        for f in range(facts)
        if rng.random() >= missing
    ]
    return pd.DataFrame(rows, columns=["language", "relation", "fact", "full"])


def naive(predictions: pd.DataFrame, a: str, b: str) -> float:
    sides = []
    for language in (a, b):
        rows = predictions[predictions["language"] == language]
        sides.append({(r.relation, r.fact): r.full for r in rows.itertuples()})
    common = [key for key in sides[0] if key in sides[1]]
    one, two = ({key for key in common if side[key]} for side in sides)
    if a == b:
        return 1.0
    return len(one & two) / len(one | two) if one | two else 0.0


@given(st.integers(0, 10_000))
def test_sharing_equals_sets_written_out(seed: int) -> None:
    predictions = table(seed)
    matrix = sharing(predictions)
    for a in LANGUAGES:
        for b in LANGUAGES:
            assert matrix.loc[a, b] == pytest.approx(naive(predictions, a, b))


@given(st.integers(0, 10_000))
def test_sharing_is_symmetric_between_0_and_1_and_ignores_order(seed: int) -> None:
    predictions = table(seed)
    matrix = sharing(predictions, languages=LANGUAGES)
    assert np.allclose(matrix, matrix.T)
    assert (matrix.to_numpy() >= 0).all()
    assert (matrix.to_numpy() <= 1).all()
    assert (np.diag(matrix) == 1).all()
    shuffled = predictions.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(sharing(shuffled, languages=LANGUAGES), matrix)


@given(st.integers(0, 10_000))
def test_counts_add_up_over_relations(seed: int) -> None:
    predictions = table(seed)
    whole = sharing_table(predictions).set_index(["a", "b"])
    assert tuple(whole.reset_index().columns) == SHARING
    parts = sharing_table(predictions, by_relation=True)
    counts = ["facts", "correct_a", "correct_b", "both", "either"]
    summed = parts.groupby(["a", "b"])[counts].sum()
    pd.testing.assert_frame_equal(summed.sort_index(), whole[counts].sort_index(), check_dtype=False)
    assert (whole["either"] == whole["correct_a"] + whole["correct_b"] - whole["both"]).all()


def test_facts_outside_the_set_do_not_count() -> None:
    predictions = table(3)
    held = predictions[predictions["relation"] == "r1"]
    pd.testing.assert_frame_equal(sharing(predictions, held), sharing(held))

    class Facts:
        table = held

    pd.testing.assert_frame_equal(sharing(predictions, Facts()), sharing(held))


def test_independent_knowledge_overlaps_as_chance_says_and_shared_knowledge_more() -> None:
    rng = np.random.default_rng(0)
    known = rng.random(4000) < 0.3
    alike = np.where(rng.random(4000) < 0.8, known, rng.random(4000) < 0.3)
    sides = {"en": known, "de": alike, "ja": rng.permutation(known)}
    rows = [(x, "r", f"f{i}", bool(v)) for x, side in sides.items() for i, v in enumerate(side)]
    found = sharing_table(pd.DataFrame(rows, columns=["language", "relation", "fact", "full"])).set_index(["a", "b"])
    shuffled, real = found.loc[("en", "ja")], found.loc[("en", "de")]
    assert shuffled["jaccard"] == pytest.approx(shuffled["chance"], abs=0.03)
    assert real["jaccard"] > real["chance"] + 0.3


def test_nothing_known_is_0_and_contained_is_undefined() -> None:
    predictions = table(1).assign(full=False)
    found = sharing_table(predictions)
    other = found[found["a"] != found["b"]]
    assert (other["jaccard"] == 0).all()
    assert (other["chance"] == 0).all()
    assert other["contained"].isna().all()


def blocks() -> pd.DataFrame:
    names = ["en", "hi", "de", "ur", "nl", "bn"]
    group = {"en": 0, "de": 0, "nl": 0, "hi": 1, "ur": 1, "bn": 1}
    return pd.DataFrame(
        [[1.0 if a == b else 0.6 if group[a] == group[b] else 0.1 for b in names] for a in names], names, names
    )


def test_clusters_are_the_planted_blocks() -> None:
    found = cluster(blocks(), 2)
    assert {frozenset(group) for group in found.members()} == {
        frozenset({"en", "de", "nl"}),
        frozenset({"hi", "ur", "bn"}),
    }
    assert set(found.order[:3]) in ({"en", "de", "nl"}, {"hi", "ur", "bn"})
    assert len(found.linkage) == 5
    assert [found.groups[x] for x in found.order] == [0, 0, 0, 1, 1, 1]


@given(st.permutations(range(6)))
def test_clusters_do_not_depend_on_the_order_of_languages(order: list[int]) -> None:
    mixed = blocks().iloc[order, order]
    assert {frozenset(g) for g in cluster(mixed, 2).members()} == {frozenset(g) for g in cluster(blocks(), 2).members()}


def test_the_off_diagonal_mean_leaves_out_the_diagonal_and_missing_pairs() -> None:
    matrix = pd.DataFrame([[0.0, 0.2, np.nan], [0.2, 0.0, 0.4], [np.nan, 0.4, 0.0]])
    assert off_diagonal_mean(matrix) == pytest.approx(0.3)
    # 30 languages: a zero diagonal takes a thirtieth, as between the two published means
    zeros, without = 0.24612879, 0.25461599
    assert zeros * 30 / 29 == pytest.approx(without)


def test_bad_tables_are_refused() -> None:
    good = table(0)
    with pytest.raises(ValueError, match="appears twice in 'en'"):
        sharing(pd.concat([good, good.head(1)]))
    with pytest.raises(ValueError, match="no column 'partial'"):
        sharing(good, metric="partial")
    with pytest.raises(ValueError, match="'xx' was not asked"):
        sharing(good, languages=["en", "xx"])
    with pytest.raises(ValueError, match="no query"):
        sharing(good.head(0))
    with pytest.raises(ValueError, match="none of these facts was asked"):
        sharing(good, good.assign(fact="other"))
    with pytest.raises(ValueError, match="several rows for a pair"):
        as_matrix(sharing_table(good, by_relation=True))
    with pytest.raises(ValueError, match="no column of numbers"):
        as_matrix(sharing_table(good), "relation")


def test_bad_matrices_are_refused() -> None:
    skewed = blocks()
    skewed.loc["en", "de"] = 0.7
    with pytest.raises(ValueError, match="symmetric"):
        cluster(skewed)
    holes = blocks()
    holes.loc["en", "de"] = holes.loc["de", "en"] = np.nan
    with pytest.raises(ValueError, match="'en' and 'de' is nan"):
        cluster(holes)
    with pytest.raises(ValueError, match="9 groups of 6"):
        cluster(blocks(), 9)
    with pytest.raises(ValueError, match="'ward' is unknown"):
        cluster(blocks(), method="ward")
    with pytest.raises(ValueError, match="rows and columns"):
        cluster(blocks().iloc[:, ::-1])
