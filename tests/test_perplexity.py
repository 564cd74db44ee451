"""The perplexity matrix against zeroed Hugging Face weights and plain loops; what it must find, and what it must not."""

import random
import sys
import warnings
from dataclasses import replace

import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from conftest import pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mwork_lens.collect import document_moments, moments
from mwork_lens.corpora import Corpus, batches
from mwork_lens.detect.chance import _frequency, matched_random
from mwork_lens.evaluate import difference, evaluate
from mwork_lens.interventions import deactivate
from mwork_lens.neurons import NeuronSet
from mwork_lens.perplexity.scores import perplexity_scores, share_scores
from mwork_lens.perplexity.tables import CURVE, MATRIX, SCORES, SELECTIVITY, perplexity_matrix, selectivity, share_curve
from mwork_lens.sites import shape_of
from mwork_lens.storage import load_run

LANGUAGES = ("de", "en", "fr")


def corpus(language, n, seed, words):
    rng = random.Random(seed)
    texts = tuple(" ".join(f"w{rng.choice(words)}" for _ in range(rng.randrange(2, 9))) for _ in range(n))
    return Corpus(language, texts, tuple(f"d{i}" for i in range(n)))


@pytest.fixture(scope="module")
def texts():
    return {language: corpus(language, 6, i, range(30 * i, 30 * i + 30)) for i, language in enumerate(LANGUAGES)}


def some(model, seed, share=0.15, sites=("ffn", "v")):
    generator = torch.Generator().manual_seed(seed)
    shapes = shape_of(model, sites)
    return NeuronSet({site: torch.rand(shape, generator=generator) < share for site, shape in shapes.items()})


@pytest.fixture(scope="module")
def sets(llama):
    return {language: some(llama, i) for i, language in enumerate(LANGUAGES)}


@pytest.fixture(scope="module")
def scores(llama, texts, sets):
    return score(llama, texts, sets)


def score(model, texts, neurons, **options):
    return perplexity_scores(model, texts, neurons, **{"draws": 2, "size": 4, "progress": False, **options})


def cell(table, off, neurons, language):
    chosen = (table["off"] == off) & (table["neurons"] == neurons) & (table["language"] == language)
    assert chosen.sum() == 1
    return table[chosen].iloc[0]


# --- scoring


def test_the_scores_hold_every_condition_on_the_same_tokens(scores, texts, sets):
    assert list(scores.columns) == list(SCORES)
    conditions = scores[["off", "neurons", "draw"]].drop_duplicates()
    expected = [("", "none", -1)]
    expected += [(x, kind, draw) for x in LANGUAGES for kind, draw in (("own", -1), ("random", 0), ("random", 1))]
    assert list(conditions.itertuples(index=False, name=None)) == expected
    first = scores[scores["neurons"] == "none"]
    for (off, _, _), part in scores.groupby(["off", "neurons", "draw"]):
        for column in ("language", "document", "tokens"):
            assert part[column].tolist() == first[column].tolist()
        assert set(part["count"]) == {len(sets[off]) if off else 0}
    assert first["tokens"].tolist() == [len(text.split()) for language in LANGUAGES for text in texts[language].texts]


def test_the_matrix_is_that_of_zeroed_weights(llama, texts, sets, scores):
    """Every cell of the own rows, by zeroing rows of the plain model and averaging its losses one document at a time."""
    plain = pair("llama")[1]

    def losses():
        found = {}
        for language, held in texts.items():
            total = tokens = 0
            for text in held.texts:
                ids = torch.tensor([llama.tokenizer(text)["input_ids"]])
                with torch.no_grad():
                    total += plain(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
                tokens += ids.shape[1] - 1
            found[language] = total / tokens
        return found

    matrix, before = perplexity_matrix(scores), losses()
    assert list(matrix.columns) == list(MATRIX)
    for language in LANGUAGES:
        assert cell(matrix, "", "none", language)["nll"] == pytest.approx(before[language], rel=1e-5)
    for off in LANGUAGES:
        rows = [place for site, layer, unit in sets[off] for place in oracles.slices(plain, site, layer, unit)]
        with oracles.zeroed(rows):
            after = losses()
        for language in LANGUAGES:
            found = cell(matrix, off, "own", language)
            assert found["nll"] == pytest.approx(after[language], rel=1e-5)
            assert found["dnll"] == pytest.approx(after[language] - before[language], abs=1e-5)
            assert found["dppl"] == pytest.approx(np.exp(after[language]) - np.exp(before[language]), rel=1e-3)
    assert matrix[matrix["neurons"] == "own"]["dnll"].abs().min() > 1e-3  # the edits do something


def test_cells_are_differences_of_evaluations(llama, texts, sets, scores):
    matrix = perplexity_matrix(scores, seed=3)
    with deactivate(llama, sets["fr"]):
        after = evaluate(llama, texts, size=4)
    expected = difference(after, evaluate(llama, texts, size=4), seed=3).set_index("language")
    for language in LANGUAGES:
        found = cell(matrix, "fr", "own", language)
        assert found["dnll"] == pytest.approx(expected.loc[language, "change"])
        assert (found["dnll_low"], found["dnll_high"]) == pytest.approx(tuple(expected.loc[language, ["low", "high"]]))


def test_random_rows_are_sets_with_the_counts_of_the_row(llama, texts, sets, monkeypatch):
    seen = []
    real = deactivate
    monkeypatch.setattr(
        sys.modules["mwork_lens.perplexity.scores"],
        "deactivate",
        lambda model, units: (seen.append(units), real(model, units))[1],
    )
    score(llama, texts, sets, seed=4)
    for i, language in enumerate(LANGUAGES):
        own, *drawn = seen[3 * i : 3 * i + 3]
        assert own == sets[language]
        assert drawn[0] != drawn[1]
        for control in drawn:
            assert control != own
            assert all((control.counts()[site] == counts).all() for site, counts in own.counts().items())
    again = list(seen)
    seen.clear()
    score(
        llama, texts, {"fr": sets["fr"]}, seed=4, draws=3
    )  # a row's draws depend neither on other rows nor on how many follow
    assert all(a == b for a, b in zip(seen, again[6:], strict=False))
    seen.clear()
    score(llama, texts, {"fr": sets["fr"]}, seed=5)
    assert seen[0] == again[6]
    assert seen[1] != again[7]


def test_random_sets_may_match_activation_frequencies(llama, texts, monkeypatch):
    seen = []
    module = sys.modules["mwork_lens.perplexity.scores"]

    def spy(neurons, *, like, generator):
        seen.append(like)
        return matched_random(neurons, like=like, generator=generator)

    monkeypatch.setattr(module, "matched_random", spy)
    units = {"de": some(llama, 0, sites=("ffn",))}
    shape = shape_of(llama)["ffn"]
    counts = torch.arange(shape[0] * shape[1]).reshape(shape).double()
    tokens = next(batches(texts["de"], llama))
    measured, strata = (make("ffn_gate")(llama, tokens) for make in (moments, document_moments))
    for like, expected in (
        ({"ffn": counts}, counts),
        ({"ffn_gate": counts}, counts),
        ({"ffn": counts, "ffn_gate": counts + 1}, counts),
        ({"de": {"ffn_act": counts}}, counts),
        (strata, measured.positive["ffn_gate"]),
        (measured, measured.positive["ffn_gate"]),
        ({"de": measured, "fr": None}, measured.positive["ffn_gate"]),
    ):
        score(llama, texts, units, like=like, draws=1)
        assert torch.equal(_frequency(seen.pop(), "ffn").double(), expected.double())
    score(llama, texts, units, draws=1)
    assert seen == [None]
    with pytest.raises(ValueError, match="like has no statistics for 'de', only for fr: measure it, or leave like out"):
        score(llama, texts, units, like={"fr": measured})


def test_an_empty_set_is_said_and_nan(llama, texts, sets):
    empty = NeuronSet.empty(sets["de"].shapes)
    with pytest.warns(UserWarning, match=r"^'fr' has no neurons: nothing can be switched off, so its row is nan$"):
        found = score(llama, texts, {**sets, "fr": empty})
    mine = found[found["off"] == "fr"]
    assert set(mine["neurons"]) == {"own"}
    assert mine["nll"].isna().all()
    assert (mine["count"] == 0).all()
    matrix, table = perplexity_matrix(found), selectivity(found)
    row = matrix[matrix["off"] == "fr"]
    assert len(row) == 3
    assert row[["nll", "dnll", "dnll_low", "dppl", "random_low", "p"]].isna().all(axis=None)
    others = ~matrix["off"].isin(["fr"])
    without = perplexity_matrix(found[found["off"] != "fr"])
    pd.testing.assert_frame_equal(matrix[others].reset_index(drop=True), without)
    assert table[table["off"] == "fr"][["selectivity", "rank", "p"]].isna().all(axis=None)
    assert table[(table["off"] == "all") & (table["neurons"] == "own")]["rows"].item() == 2
    with pytest.warns(UserWarning, match=r"'de' has no neurons at rate 0\.01: nothing can be"):
        share_scores(llama, texts, {0.01: {"de": empty}, 0.1: {"de": sets["de"]}}, draws=0, progress=False)


def test_what_cannot_be_scored_is_refused(llama, texts, sets):
    with pytest.raises(ValueError, match="no neurons to switch off: give a NeuronSet per language, as lape or plnd"):
        score(llama, texts, {})
    with pytest.raises(
        ValueError, match="the row 'ru' would have no diagonal: give texts of 'ru', or leave its set out"
    ):
        score(llama, texts, {"ru": sets["de"]})
    with pytest.raises(ValueError, match="draws=-1: give the number of random sets per language, 0 for none"):
        score(llama, texts, sets, draws=-1)
    with pytest.raises(ValueError, match="a language cannot be called 'all': tables use that name; give its code"):
        score(llama, {"all": texts["de"]}, {"all": sets["de"]})
    other = NeuronSet(sets["de"].masks, model="another")
    with pytest.raises(ValueError, match=r"own neurons of 'de' off: .* was made for another model \(another\)"):
        score(llama, texts, {"de": other})
    with pytest.raises(ValueError, match=r"rate 1\.5 is not a share of the units: give numbers above 0 and at most 1"):
        share_scores(llama, texts, {1.5: sets})
    with pytest.raises(ValueError, match=r"rate 0.2 has sets of other languages \(de\): give every rate the same ones"):
        share_scores(llama, texts, {0.1: sets, 0.2: {"de": sets["de"]}})
    with pytest.raises(ValueError, match="no neurons to switch off"):
        share_scores(llama, texts, {})


def test_logits_that_are_no_number_name_the_condition(llama, texts, sets, monkeypatch):
    from mwork_lens import interventions

    module = sys.modules["mwork_lens.perplexity.scores"]
    monkeypatch.setattr(
        module, "deactivate", lambda model, units: interventions.applied(model, interventions.scale(units, 1e38))
    )
    with pytest.raises(ValueError, match=r"own neurons of 'de' off: NaN or infinite logits in .*dtype='float32'"):
        score(llama, texts, sets)


# --- keeping what is finished


def stop_after(monkeypatch, calls):
    """Raise KeyboardInterrupt in the forward pass of the condition behind `calls` masked ones."""
    module, real, seen = sys.modules["mwork_lens.perplexity.scores"], deactivate, []

    def stop(model, units):
        if len(seen) == calls:
            raise KeyboardInterrupt
        seen.append(units)
        return real(model, units)

    monkeypatch.setattr(module, "deactivate", stop)


def test_an_interrupted_run_loses_one_condition_and_resumes_to_the_same_bits(
    llama, texts, sets, scores, tmp_path, monkeypatch
):
    out = tmp_path / "matrix"
    for calls, kept, resume in ((4, 5, False), (3, 8, True)):  # the unmasked model and four; then three more
        with monkeypatch.context() as patched:
            stop_after(patched, calls)
            with pytest.raises(KeyboardInterrupt):
                score(llama, texts, sets, out=out, resume=resume)
        assert len(list((out / "conditions").glob("*.parquet"))) == kept
        assert not list(out.rglob("*.tmp"))
    with pytest.raises(FileExistsError, match="already holds this run: pass resume=True"):
        score(llama, texts, sets, out=out)
    pd.testing.assert_frame_equal(score(llama, texts, sets, out=out, resume=True), scores, check_exact=True)
    with monkeypatch.context() as patched:
        stop_after(patched, 0)  # nothing is computed again
        patched.setattr(sys.modules["mwork_lens.evaluate"].Prepared, "scores", None)
        pd.testing.assert_frame_equal(score(llama, texts, sets, out=out, resume=True), scores, check_exact=True)
    facts = [load_run(path) for path in (out / "conditions").iterdir()]
    assert {f["parameters"]["off"] for f in facts} == {"", *LANGUAGES}
    assert {f["corpora"]["de"]["hash"] for f in facts} == {texts["de"].fingerprint}


def test_more_draws_and_another_set_cost_only_themselves(llama, texts, sets, scores, tmp_path, monkeypatch):
    score(llama, texts, sets, out=tmp_path / "m", draws=1)
    stop_after(monkeypatch, 3)  # one more draw for each of three languages
    found = score(llama, texts, sets, out=tmp_path / "m", resume=True)
    pd.testing.assert_frame_equal(found, scores, check_exact=True)
    with pytest.raises(KeyboardInterrupt):
        score(llama, texts, {"de": some(llama, 9)}, out=tmp_path / "m", resume=True)


def test_kept_conditions_of_other_texts_or_models_are_not_used(llama, texts, sets, tmp_path):
    one = {"de": sets["de"]}
    score(llama, texts, one, draws=0, out=tmp_path)
    for wrong, options in ((texts, {"size": 5}), ({**texts, "en": replace(texts["en"], ids=tuple("abcdef"))}, {})):
        with pytest.raises(FileExistsError, match="already holds another run"):
            score(llama, wrong, one, draws=0, out=tmp_path, resume=True, **options)
    with pytest.raises(FileExistsError, match="it differs in model"):
        score(pair("qwen2")[0], texts, one, draws=0, out=tmp_path, resume=True)


def test_a_damaged_condition_is_scored_again(llama, texts, sets, tmp_path):
    one = {"de": sets["de"]}
    before = score(llama, texts, one, draws=0, out=tmp_path)
    a, b = sorted((tmp_path / "conditions").iterdir())
    a.write_bytes(a.read_bytes()[:50])
    with pytest.warns(UserWarning, match=r"parquet cannot be used \(.*\): scoring this condition again"):
        pd.testing.assert_frame_equal(score(llama, texts, one, draws=0, out=tmp_path, resume=True), before)
    a.write_bytes(b.read_bytes())
    with pytest.warns(UserWarning, match=r"cannot be used \(it belongs to another run\): scoring this condition again"):
        pd.testing.assert_frame_equal(score(llama, texts, one, draws=0, out=tmp_path, resume=True), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(llama, texts, one, draws=0, out=tmp_path, resume=True)


# --- tables of made-up scores


def made_up(harm, *, documents=12, noise=0.05, draws=4, seed=0, languages=None, alone=False):
    """Scores whose own rows do `harm` [row, column] nats per token, and whose random rows do nothing but noise."""
    rng = np.random.default_rng(seed)
    harm = np.asarray(harm, float)
    languages = languages or [f"l{i}" for i in range(harm.shape[1])]
    tokens = rng.integers(5, 40, (len(languages), documents))
    hard = rng.integers(100, 400, (len(languages), documents)) / 64  # exact in binary
    rows = []

    def add(off, kind, draw, count, change):
        for j, language in enumerate(languages):
            for d in range(documents):
                nll = tokens[j, d] * (hard[j, d] + change[j] + (noise * rng.normal() if kind != "none" else 0))
                name = f"{language}{d}" if alone else f"d{d}"
                rows.append((off, kind, draw, count, language, name, nll, int(tokens[j, d])))

    add("", "none", -1, 0, np.zeros(len(languages)))
    for i, change in enumerate(harm):
        add(languages[i], "own", -1, 7 + i, change)
        for draw in range(draws):
            add(languages[i], "random", draw, 7 + i, np.zeros(len(languages)))
    return pd.DataFrame(rows, columns=list(SCORES))


def naive_matrix(scores, off, kind, draw, language, counts):
    """dnll and dppl of one cell in plain loops; counts: how often each document is drawn."""
    sums = {"off": 0.0, "none": 0.0, "tokens": 0.0}
    for row in scores.to_dict("records"):
        if row["language"] != language:
            continue
        if (row["off"], row["neurons"], row["draw"]) == (off, kind, draw):
            sums["off"] += counts[row["document"]] * row["nll"]
        if row["neurons"] == "none":
            sums["none"] += counts[row["document"]] * row["nll"]
            sums["tokens"] += counts[row["document"]] * row["tokens"]
    after, before = sums["off"] / sums["tokens"], sums["none"] / sums["tokens"]
    return after - before, np.exp(after) - np.exp(before)


@pytest.fixture
def quick(monkeypatch):
    """40 resamples instead of a thousand."""
    from mwork_lens.evaluate import resample

    module = sys.modules["mwork_lens.perplexity.tables"]
    monkeypatch.setattr(module, "resample", lambda n, seed: resample(n, resamples=40, seed=seed))


@pytest.mark.parametrize("alone", [False, True])
def test_the_matrix_is_a_plain_bootstrap(alone, quick):
    scores = made_up([[0.5, 0.1], [0.0, 0.3]], documents=5, draws=2, alone=alone)
    matrix = perplexity_matrix(scores, seed=5)
    names = list(dict.fromkeys(scores["document"]))
    drawn = np.random.default_rng(5).multinomial(len(names), [1 / len(names)] * len(names), size=40)
    for off in ("l0", "l1"):
        for language in ("l0", "l1"):
            row = cell(matrix, off, "own", language)
            once = dict.fromkeys(names, 1)
            assert (row["dnll"], row["dppl"]) == pytest.approx(naive_matrix(scores, off, "own", -1, language, once))
            again = [naive_matrix(scores, off, "own", -1, language, dict(zip(names, x, strict=True))) for x in drawn]
            for i, name in enumerate(("dnll", "dppl")):
                edges = np.percentile([x[i] for x in again], [2.5, 97.5])
                assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(tuple(edges))
            draws = [naive_matrix(scores, off, "random", draw, language, once)[0] for draw in range(2)]
            assert (row["random_low"], row["random_high"]) == pytest.approx((min(draws), max(draws)))
            assert row["p"] == (1 + sum(draw >= row["dnll"] for draw in draws)) / 3
            control = cell(matrix, off, "random", language)
            assert control["dnll"] == pytest.approx(np.mean(draws))
            assert control["dnll_low"] <= control["dnll"] <= control["dnll_high"]
            assert np.isnan(control["p"])
            assert control["draws"] == row["draws"] == 2


def test_the_unmasked_row_is_exactly_nothing(scores):
    for table in (scores, made_up(np.ones((2, 3)))):
        row = perplexity_matrix(table).query("neurons == 'none'")
        assert (row[[f"{x}{e}" for x in ("dnll", "dppl") for e in ("", "_low", "_high")]] == 0.0).all(axis=None)
        assert (row["off"] == "").all()
        assert row["p"].isna().all()


def test_above_zero_is_harm_and_scaling_all_tokens_changes_nothing():
    table = made_up([[0.5, 0.0], [0.0, -0.3]])
    matrix = perplexity_matrix(table)
    assert cell(matrix, "l0", "own", "l0")["dnll_low"] > 0
    assert cell(matrix, "l1", "own", "l1")["dnll_high"] < 0
    larger = table.assign(tokens=7 * table["tokens"], nll=7 * table["nll"])
    pd.testing.assert_frame_equal(perplexity_matrix(larger), matrix)
    pd.testing.assert_frame_equal(selectivity(larger), selectivity(table))


@settings(max_examples=12)
@given(order=st.permutations(range(4)), seed=st.integers(0, 99))
def test_permuting_languages_permutes_rows_and_columns(quick, order, seed):
    table = made_up(np.random.default_rng(seed).normal(0, 0.2, (4, 4)), documents=3, draws=1, seed=seed)
    place = {f"l{i}": order.index(i) for i in range(4)} | {"": -1}
    moved = table.sort_values(["off", "language"], key=lambda c: c.map(place), kind="stable").reset_index(drop=True)
    keys = ["off", "neurons", "language"]
    one, other = (perplexity_matrix(t) for t in (table, moved))
    assert list(other["language"].unique()) == [f"l{i}" for i in order]
    pd.testing.assert_frame_equal(*(t.sort_values(keys).reset_index(drop=True) for t in (one, other)))
    keys = ["off", "neurons", "draw"]
    pd.testing.assert_frame_equal(*(selectivity(t).sort_values(keys).reset_index(drop=True) for t in (table, moved)))


def test_a_planted_diagonal_is_found():
    table = selectivity(made_up(0.1 + 0.5 * np.eye(5), draws=9))
    assert list(table.columns) == list(SELECTIVITY)
    own = table[table["neurons"] == "own"].set_index("off")
    for i in range(5):
        row = own.loc[f"l{i}"]
        assert (row["rank"], row["largest"], row["rows"], row["p"], row["count"]) == (1, 1, 1, 0.1, 7 + i)
        assert row["selectivity"] == row["diagonal"] - row["off_diagonal"] == pytest.approx(0.5, abs=0.1)
        assert 0 < row["selectivity_low"] < row["selectivity"] < row["selectivity_high"]
        assert np.isnan(row["p_permutation"])
    whole = own.loc["all"]
    assert (whole["rank"], whole["largest"], whole["rows"], whole["p"]) == (1, 5, 5, 0.1)
    assert whole["p_permutation"] == 1 / 120
    assert whole["selectivity"] == pytest.approx(own["selectivity"].drop("all").mean())
    assert whole["selectivity_low"] > 0.4
    random = table[(table["neurons"] == "random") & (table["off"] != "all")]
    assert len(random) == 45
    assert (random["selectivity"].abs() < 0.1).all()
    assert random[["p", "p_permutation"]].isna().all(axis=None)


def test_where_the_harm_knows_no_language_nothing_is_found(quick):
    """Rows and columns differ in strength, but no row picks its language: neither test may say so."""
    rng = np.random.default_rng(0)
    ps, permuted, scaled = [], [], []
    for seed in range(24):
        # sets of many sizes in languages of many fragilities, the larger sets in the more fragile ones
        strength, fragility = np.sort(rng.uniform(0.1, 6, 5)), np.sort(rng.uniform(0.1, 6, 5))
        outer = made_up(
            0.1 * np.outer(strength, fragility) * rng.lognormal(0, 0.05, (5, 5)),
            documents=3,
            seed=seed,
            draws=0,
            noise=0,
        )
        scaled.append(selectivity(outer).set_index("off").loc["all", "p_permutation"])
        harm = rng.normal(0.3, 0.1, (5, 1)) + rng.normal(0, 0.3, (1, 5)) + rng.normal(0, 0.05, (5, 5))
        whole = (
            selectivity(made_up(harm, documents=3, seed=seed, draws=1))
            .set_index(["off", "neurons"])
            .loc[("all", "own")]
        )
        permuted.append(whole["p_permutation"])
        shuffled = made_up(np.zeros((5, 5)), documents=3, seed=seed, draws=9)
        ps.append(selectivity(shuffled).set_index(["off", "neurons"]).loc[("all", "own"), "p"])
    for found in (ps, permuted, scaled):
        assert np.mean(found) > 0.35
        assert np.mean(np.array(found) <= 0.1) < 0.25
    assert max(np.mean(ps), np.mean(permuted)) < 0.7
    # label-shuffled: the diagonal of another language is no diagonal
    rolled = selectivity(made_up(np.roll(np.eye(5), 1, axis=1))).set_index(["off", "neurons"])
    assert rolled.loc[("all", "own"), "selectivity_high"] < 0
    assert rolled.loc[("all", "own"), "largest"] == 0
    assert rolled.loc[("all", "own"), "p_permutation"] > 0.5


def test_the_permutation_p_is_that_of_all_assignments():
    from itertools import permutations

    for size in (3, 4):
        harm = np.random.default_rng(size).normal(0, 0.3, (size, size))
        found = selectivity(made_up(harm, noise=0, draws=0)).set_index("off").loc["all", "p_permutation"]

        def mean_rank(order, harm=harm, size=size):
            return np.mean([sum(harm[i, k] <= harm[i, j] for k in range(size)) for i, j in enumerate(order)])

        every = [mean_rank(order) for order in permutations(range(size))]
        assert found == np.mean([value >= every[0] - 1e-9 for value in every])
    many = made_up(0.1 + np.eye(8), documents=2, draws=0)
    whole = selectivity(many).set_index("off").loc["all"]
    assert whole["p_permutation"] <= 3 / 10_000
    assert np.isnan(whole["p"])  # no draws, no p against them
    whole = selectivity(made_up(np.zeros((8, 8)), documents=2, draws=0)).set_index("off").loc["all"]
    assert whole["p_permutation"] > 0.05


def test_ties_count_against_the_diagonal_and_columns_may_lack_rows():
    table = selectivity(made_up([[0.5, 0.5, 0.1], [0.0, 0.2, 0.9]], noise=0, draws=0)).set_index("off")
    assert table.loc[["l0", "l1", "all"], "rank"].tolist() == [2, 2, 2]
    assert table.loc["l1", "off_diagonal"] == pytest.approx(0.45)
    nothing = selectivity(made_up(np.zeros((2, 2)), noise=0, draws=1)).query("neurons == 'own'")
    assert (nothing["largest"] == 0).all()
    assert (nothing["p"] == 1).all()


def test_parallel_documents_are_resampled_together():
    table = made_up(np.zeros((1, 2)), noise=0, draws=0, documents=30)
    table["tokens"] = 10
    shift = {f"d{i}": x for i, x in enumerate(np.random.default_rng(1).normal(0, 5, 30))}
    own = table["neurons"] == "own"
    base = table.loc[~own, "nll"].to_numpy()
    table.loc[own, "nll"] = base + table.loc[own, "document"].map(shift) + 3 * (table.loc[own, "language"] == "l0")
    row = selectivity(table).iloc[0]
    assert row["selectivity"] == pytest.approx(0.3)
    assert row["selectivity_high"] - row["selectivity_low"] < 1e-9  # what the two share cancels
    row = selectivity(table.assign(document=table["language"] + table["document"])).iloc[0]
    assert row["selectivity"] == pytest.approx(0.3)
    assert row["selectivity_high"] - row["selectivity_low"] > 0.1


def test_tables_that_do_not_pair_are_refused():
    table = made_up(np.eye(2), documents=3, draws=1)
    own = (table["off"] == "l1") & (table["neurons"] == "own")
    cut = table.assign(tokens=table["tokens"] - 1 * (own & (table["language"] == "l0")))
    lost = table.drop(index=table.index[own][0])
    twice = pd.concat([table, table[own]])
    renamed = table.assign(document=table["document"].where(~own, table["document"] + "x"))
    for wrong in (cut, lost, twice, renamed):
        for make in (perplexity_matrix, selectivity):
            with pytest.raises(
                ValueError, match=r"the rows of own neurons of 'l1' \(draw -1\) do not score the same tokens"
            ):
                make(wrong)
    pd.testing.assert_frame_equal(perplexity_matrix(table), perplexity_matrix(pd.concat([table[~own], table[own]])).loc[
        lambda t: t.index])  # the order of rows does not matter  # fmt: skip


def test_tables_that_lack_something_are_refused():
    table = made_up(np.eye(2), documents=3, draws=1)
    with pytest.raises(ValueError, match="the scores lack nll, tokens: give them as `perplexity_scores` makes them"):
        perplexity_matrix(table.drop(columns=["nll", "tokens"]))
    with pytest.raises(ValueError, match=r"the scores have no unmasked rows \(neurons 'none'\)"):
        perplexity_matrix(table[table["neurons"] != "none"])
    with pytest.raises(ValueError, match="only 'l0' is evaluated, score at least two"):
        selectivity(table[(table["language"] == "l0") & (table["off"] != "l1")])
    with pytest.raises(ValueError, match="the row 'xx' has no diagonal: l0, l1 are evaluated; score 'xx' too"):
        selectivity(table.assign(off=table["off"].replace("l1", "xx")))
    with pytest.raises(ValueError, match="these scores hold several shares of neurons: give them to `share_curve`"):
        perplexity_matrix(table.assign(share=table["draw"]))
    with pytest.raises(ValueError, match="the scores have no column share: give them as `share_scores` makes them"):
        share_curve(table)
    with pytest.raises(ValueError, match="the scores hold the unmasked model only: there is no curve to make"):
        share_curve(table[table["neurons"] == "none"].assign(share=0.0))


# --- growing shares


def test_the_curve_is_the_matrix_of_every_share(llama, texts, tmp_path):
    sets = {rate: {x: some(llama, i, rate) for i, x in enumerate(LANGUAGES)} for rate in (0.4, 0.1)}
    found = share_scores(llama, texts, sets, draws=1, size=4, out=tmp_path, progress=False)
    assert list(found.columns) == ["share", *SCORES]
    curve = share_curve(found, seed=2)
    assert list(curve.columns) == list(CURVE)
    assert curve["share"].drop_duplicates().tolist() == [0, 0.1, 0.4]
    for rate in sets:
        alone = score(llama, texts, sets[rate], draws=1, out=tmp_path, resume=True)
        matrix = perplexity_matrix(alone, seed=2)
        part = pd.concat([curve[curve["share"] == 0], curve[curve["share"] == rate]])[list(MATRIX)]
        pd.testing.assert_frame_equal(part.reset_index(drop=True), matrix, check_exact=True)
    counts = curve[curve["neurons"] == "own"].groupby("off")["count"].unique()
    for language, (few, many) in counts.items():
        assert (few, many) == (len(sets[0.1][language]), len(sets[0.4][language]))
    assert len(list((tmp_path / "conditions").iterdir())) == 1 + 2 * 3 * 2
