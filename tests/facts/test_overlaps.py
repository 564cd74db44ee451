import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.facts.overlaps import CUTS, chance_overlap, fact_overlaps, neuron_similarity, null_cuts, upper_cut
from mwork_lens.facts.probeless import NEURONS, FactNeurons


def made(units: dict[tuple[str, str, str], list[int]], shape: tuple[int, int] = (2, 50)) -> FactNeurons:
    table = pd.DataFrame([(*key, 9, value) for key, value in units.items()], columns=list(NEURONS))
    return FactNeurons(table, pd.DataFrame(), shape, "ffn")


def drawn(seed: int, *, shared: float = 0.0, facts: int = 30, top: int = 10) -> FactNeurons:
    """Random neurons; a share of each fact's is the same in all languages."""
    rng = np.random.default_rng(seed)
    units = {}
    for f in range(facts):
        common = rng.choice(100, top, replace=False)
        for language in ("en", "de", "ja"):
            kept = common[: round(shared * top)]
            rest = rng.permutation(np.setdiff1d(np.arange(100), kept))[: top - len(kept)]
            units[language, "r", f"f{f}"] = rng.permutation(np.concatenate([kept, rest])).tolist()
    return made(units)


@given(st.integers(0, 10_000))
def test_overlaps_equal_sets_written_out(seed: int) -> None:
    neurons = drawn(seed, facts=4)
    held = {(r.language, r.fact): set(r.units) for r in neurons.table.itertuples()}
    pairs = fact_overlaps(neurons)
    assert len(pairs) == 4 * 3
    for row in pairs.itertuples():
        a, b = held[row.a, row.fact], held[row.b, row.fact]
        assert row.overlap == pytest.approx(len(a & b) / len(a | b))
    found = neuron_similarity(neurons)
    assert found.matrix.loc["de", "ja"] == pytest.approx(
        pairs[(pairs["a"] == "de") & (pairs["b"] == "ja")]["overlap"].mean()
    )
    assert np.allclose(found.matrix, found.matrix.T)
    assert found.mean == pytest.approx(pairs["overlap"].mean())
    assert (found.facts.to_numpy() == 4).all()


def test_random_neurons_overlap_by_chance_and_shared_ones_above_the_null() -> None:
    plain, planted = (neuron_similarity(drawn(0, shared=share, facts=200)) for share in (0.0, 0.6))
    assert plain.mean == pytest.approx(plain.chance, abs=0.005)
    assert planted.mean > 5 * planted.chance


def labelled(languages: int, facts: int, *, alike: int = 0, common: int = 0, seed: int = 0) -> pd.DataFrame:
    """Cuts of random neurons. Units differ in how often they are chosen. All languages have `alike` units in common on a fact, or, all but the
    first, `common`."""
    rng = np.random.default_rng(seed)
    weight = rng.random(100) ** 2
    units = {}
    for f in range(facts):
        core = rng.choice(100, 10, replace=False)
        for number in range(languages):
            kept = core[: alike or (common if number else 0)]
            free = np.setdiff1d(np.arange(100), kept)
            rest = rng.choice(free, 10 - len(kept), replace=False, p=weight[free] / weight[free].sum())
            units[f"x{number}", "r", f"f{f}"] = [*map(int, kept), *map(int, rest)]
    return null_cuts(made(units), seed=seed)


@pytest.mark.parametrize("others", [1, 2, 3, 7])
def test_the_cut_is_reached_by_5_percent_of_the_null_for_any_number_of_languages(others: int) -> None:
    tables = [labelled(others + 1, 150, seed=seed) for seed in range(4)]
    table = pd.concat(tables)
    assert (table["others"] == others).all()
    rate = (table["overlap"] >= table["cut"]).mean()
    assert (0.01 if others == 1 else 0.025) < rate < 0.075  # a single overlap takes few values: ties count against it
    found = labelled(others + 1, 60, alike=5)
    assert (found["overlap"] >= found["cut"]).mean() > 0.95
    weak = labelled(others + 1, 150, alike=2)
    assert (weak["overlap"] >= weak["cut"]).mean() > 0.25
    # the first language has nothing in common with the others, which are alike: that does not make it shared
    apart = pd.concat([labelled(others + 1, 150, common=7, seed=seed) for seed in range(4)])
    apart = apart[apart["language"] == "x0"]
    assert (apart["overlap"] >= apart["cut"]).mean() == pytest.approx(0.05, abs=0.03)


def test_cuts_equal_sets_written_out() -> None:
    """Every draw of other facts is one of those there are, and the overlap is the mean over the languages that have the fact."""
    neurons = drawn(5, shared=0.3, facts=25)
    keep = ~((neurons.table["language"] == "ja") & (neurons.table["fact"] == "f3"))
    neurons = made({(r.language, r.relation, r.fact): r.units for r in neurons.table[keep].itertuples()})
    held = {(r.language, r.fact): set(r.units) for r in neurons.table.itertuples()}
    cuts = null_cuts(neurons, draws=400)
    assert tuple(cuts.columns) == CUTS

    def jaccard(a: set[int], b: set[int]) -> float:
        return len(a & b) / len(a | b)

    for row in cuts.itertuples():
        others = [x for x in ("en", "de", "ja") if x != row.language and (x, row.fact) in held]
        assert row.others == len(others) == (1 if row.fact == "f3" else 2)
        mine = held[row.language, row.fact]
        assert row.overlap == pytest.approx(np.mean([jaccard(mine, held[x, row.fact]) for x in others]))
        if row.fact != "f3":
            null = [
                np.mean([jaccard(mine, held[x, g]) for x in others])
                for g in (f"f{i}" for i in range(25) if i != 3)
                if g != row.fact
            ]
            assert row.median == pytest.approx(np.median(null), abs=0.06)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95]))
def test_few_values_lie_above_the_cut_however_many_are_tied(values: list[int], quantile: float) -> None:
    held = np.array(values, dtype=float)
    cut = upper_cut(held, quantile)
    assert (held >= cut).mean() <= 1 - quantile + 1e-9
    lower = held[held < cut]
    assert len(lower) == 0 or (held >= lower.max()).mean() > 1 - quantile


def test_shuffled_facts_overlap_like_the_null() -> None:
    neurons = drawn(3, shared=0.6, facts=100)
    german = neurons.table["language"] == "de"
    mixed = neurons.table.copy()
    mixed.loc[german, "fact"] = np.roll(mixed.loc[german, "fact"], 7)  # no fact stays where it was
    shuffled = neuron_similarity(made({(r.language, r.relation, r.fact): r.units for r in mixed.itertuples()}))
    assert shuffled.matrix.loc["en", "de"] == pytest.approx(shuffled.chance, abs=0.02)
    assert shuffled.matrix.loc["en", "ja"] > 0.3


def test_chance_is_that_of_drawn_sets_and_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    overlaps = []
    for _ in range(4000):
        a, b = (set(rng.choice(40, 10, replace=False)) for _ in range(2))
        overlaps.append(len(a & b) / len(a | b))
    assert chance_overlap(10, 40) == pytest.approx(np.mean(overlaps), abs=0.004)
    assert chance_overlap(50, 36_864) == pytest.approx(0.00063, abs=0.0001)
    assert chance_overlap(40, 40) == 1


def test_too_few_facts_have_no_cut_and_bad_questions_no_answer() -> None:
    few = drawn(0, facts=2)
    assert null_cuts(few)["cut"].isna().all()
    assert null_cuts(drawn(0, facts=20))["cut"].isna().all()  # 19 other facts
    assert null_cuts(drawn(0, facts=30))["cut"].notna().all()
    assert null_cuts(drawn(0, facts=1))["cut"].isna().all()
    with pytest.raises(ValueError, match="draws=19 of other facts make no null"):
        null_cuts(few, draws=19)
    with pytest.raises(ValueError, match="quantile=1"):
        null_cuts(few, quantile=1.0)
    with pytest.raises(ValueError, match="top=11, and 10"):
        fact_overlaps(few, top=11)
    with pytest.raises(ValueError, match="'fr' has no fact neurons"):
        neuron_similarity(few, languages=["en", "fr"])
    with pytest.raises(ValueError, match="top=0"):
        chance_overlap(0, 3)
