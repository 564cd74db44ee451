from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted_facts import RELATIONS, decoder, encoder, facts, predictions

from mwork_lens.detect.probeless import mean_deviation, probeless_scores
from mwork_lens.detect.probeless import probeless as language_neurons
from mwork_lens.facts.factset import FactSet
from mwork_lens.facts.overlaps import fact_overlaps
from mwork_lens.facts.probeless import NEURONS, FactNeurons, fact_activations, fact_neurons, probeless
from mwork_lens.stats import Moments


def brute(h: torch.Tensor) -> torch.Tensor:
    h = h.double()
    return (h[:, None] - h[None]).abs().sum(1) / (len(h) - 1)


def random(n: int, units: int, seed: int, *, ties: bool = False) -> torch.Tensor:
    h = torch.randn(n, units, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return h.round() if ties else h


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10_000), st.booleans())
def test_the_closed_form_is_brute_force(n: int, units: int, seed: int, ties: bool) -> None:
    h = random(n, units, seed, ties=ties)
    assert torch.allclose(probeless(h), brute(h), atol=1e-12)


def test_the_closed_form_keeps_its_digits_far_from_zero() -> None:
    h = random(300, 20, 0)
    assert (probeless(h) - brute(h)).abs().max() < 5e-14
    assert torch.allclose(probeless(h + 1e6), brute(h), atol=1e-8)
    assert torch.allclose(probeless(h.float()), brute(h.float()), atol=1e-12)


@given(st.integers(2, 12), st.integers(0, 10_000), st.floats(-5, 5), st.floats(-100, 100))
def test_laws_of_the_score(n: int, seed: int, factor: float, shift: float) -> None:
    h = random(n, 4, seed)
    score = probeless(h)
    assert (score >= 0).all()
    assert torch.allclose(probeless(h + shift), score, atol=1e-9)
    assert torch.allclose(probeless(factor * h), abs(factor) * score, atol=1e-9)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(probeless(h[order]), score[order], atol=1e-12)
    signed = probeless(h, signed=True)
    assert torch.allclose(signed.abs(), score)
    assert ((signed >= 0) == (h >= h.mean(0))).all()


def test_scores_of_one_fact_or_of_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1: every score would be 0"):
        probeless(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="row 1, unit 2 is inf"):
        probeless(torch.tensor([[0.0, 0, 0], [0, 0, float("inf")]]))


def by_hand(plain: Any, ids: list[int], positions: list[int], site: str) -> torch.Tensor:
    """Activations of one sentence, from the Hugging Face copy."""
    seen = []
    layers = plain.bert.encoder.layer if hasattr(plain, "bert") else plain.model.layers
    handles = []
    for layer in layers:
        down = layer.output.dense if hasattr(plain, "bert") else layer.mlp.down_proj
        if site == "ffn":
            handles.append(down.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, positions].mean(0))))
        else:

            def listen(_: Any, __: Any, out: Any) -> None:
                seen.append((out[0] if isinstance(out, tuple) else out)[0, positions].mean(0))

            handles.append(layer.register_forward_hook(listen))
    with torch.no_grad():
        plain(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("site", ["ffn", "resid_post"])
def test_activations_of_an_encoder_are_those_at_its_masks(site: str) -> None:
    model, plain = encoder()
    held = facts()
    asked = predictions(held)
    rows = held.table.merge(asked, on=["language", "relation", "fact"]).set_index(["language", "fact"])
    seen = 0
    for group in fact_activations(model, held, asked, site=site, size=3):
        for fact, h in zip(group.facts, group.h, strict=True):
            row = rows.loc[(group.language, fact)]
            text = (
                RELATIONS[group.relation]
                .replace("[X]", row["subject"])
                .replace("[Y]", " ".join(["[MASK]"] * row["masks"]))
            )
            ids = model.tokenizer(text)["input_ids"]
            at = [i for i, token in enumerate(ids) if token == model.tokenizer.mask_token_id]
            assert len(at) == row["masks"]
            assert torch.allclose(h, by_hand(plain, ids, at, site), atol=1e-5)
            seen += 1
    assert seen == len(held.table)


def test_facts_known_by_rank_are_taken_with_as_many_masks_as_the_object_has() -> None:
    model, _ = encoder()
    held, asked = facts(), predictions(facts())
    ranked = asked.assign(typed_rank=1, object_tokens=asked["masks"][::-1].to_numpy())
    wanted = asked.assign(masks=ranked["object_tokens"])
    by_rank = list(fact_activations(model, held, ranked, metric="typed"))
    for found, expected in zip(by_rank, fact_activations(model, held, wanted), strict=True):
        torch.testing.assert_close(found.h, expected.h)


def test_activations_of_a_decoder_are_those_at_the_end_of_its_prompt() -> None:
    model, plain = decoder()
    held = facts()
    asked = predictions(held).assign(masks=0)
    subjects = held.table.set_index(["language", "fact"])["subject"]
    for group in fact_activations(model, held, asked, size=2):
        for fact, h in zip(group.facts, group.h, strict=True):
            text = RELATIONS[group.relation].split("[Y]")[0].strip().replace("[X]", subjects[group.language, fact])
            ids = model.tokenizer(text)["input_ids"]
            assert torch.allclose(h, by_hand(plain, ids, [len(ids) - 1], "ffn"), atol=1e-4)


def test_top_units_are_those_of_brute_force() -> None:
    model, _ = encoder()
    held = facts()
    asked = predictions(held)
    found = fact_neurons(model, held, asked, top=7)
    assert tuple(found.table.columns) == NEURONS
    assert found.shape == (3, 22)
    for group in fact_activations(model, held, asked):
        score = brute(group.h)
        for i, fact in enumerate(group.facts):
            rows = found.table[(found.table["language"] == group.language) & (found.table["fact"] == fact)]
            units = list(rows["units"].iloc[0])
            assert torch.allclose(score[i, units], score[i].sort(descending=True).values[:7])
            assert len(set(units)) == 7
            neurons = found.set_of(group.language, group.relation, fact)
            assert {layer * 22 + unit for _, layer, unit in neurons} == set(units)
            assert neurons.sites == ("ffn",)
    assert found.bins(4).sum() == 7 * len(found.table)
    assert found.bins(22, language="de").shape == (3, 22)
    every = FactNeurons(found.table.head(1).assign(units=[list(range(66))]), found.refused, (3, 22), "ffn")
    assert set(every.bins(8).ravel()) == {2, 3}  # 8 does not divide 22: no bin is empty


def test_small_groups_are_refused_and_listed_not_scored_as_the_same() -> None:
    model, _ = encoder()
    held = facts()
    asked = predictions(held)
    alone = (asked["relation"] == "p1") & (asked["fact"] != "p1-0")
    found = fact_neurons(model, held, asked.assign(full=~alone), top=5)
    assert set(found.table["relation"]) == {"p2"}
    assert found.refused[["language", "relation", "facts"]].values.tolist() == [["en", "p1", 1], ["de", "p1", 1]]
    assert set(fact_overlaps(found)["relation"]) == {"p2"}
    with pytest.warns(UserWarning, match="2 of 4 groups are left out: fewer than 2 facts"):
        list(fact_activations(model, held, asked.assign(full=~alone)))
    with pytest.raises(KeyError, match="p1-0"):
        found.set_of("en", "p1", "p1-0")
    every = fact_neurons(model, held, asked, top=5, minimum=6)
    assert len(every.table) == 0
    assert len(every.refused) == 4


def test_a_decoder_is_not_asked_for_a_blank_in_front_of_its_subject() -> None:
    model, _ = decoder()
    held = facts()
    turned = FactSet(held.table, dict.fromkeys(held.templates, "w1 [Y] w2 [X]"))
    found = fact_neurons(model, turned, predictions(held).assign(masks=0), top=5)
    assert len(found.table) == 0
    assert found.refused["reason"].str.contains("behind").all()


def test_a_run_continues_and_another_run_is_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = encoder()
    held = facts()
    asked = predictions(held)
    whole = fact_neurons(model, held, asked, top=5)
    first = fact_neurons(model, held, asked, top=5, languages=["en"], out=tmp_path / "run")
    assert set(first.table["language"]) == {"en"}
    calls = []
    import mwork_lens.facts.probeless as module

    original = module.activations_of
    monkeypatch.setattr(module, "activations_of", lambda *args: calls.append(args[2]) or original(*args))
    again = fact_neurons(model, held, asked, top=5, out=tmp_path / "run", resume=True)
    assert calls == ["de", "de"]
    assert [list(u) for u in again.table["units"]] == [list(u) for u in whole.table["units"]]
    with pytest.raises(FileExistsError, match="another run"):
        fact_neurons(model, held, asked, top=6, out=tmp_path / "run", resume=True)


def test_bad_questions_are_refused() -> None:
    model, _ = encoder()
    held = facts()
    asked = predictions(held)
    with pytest.raises(ValueError, match="minimum=1"):
        fact_neurons(model, held, asked, minimum=1)
    with pytest.raises(ValueError, match="site='q'"):
        fact_neurons(model, held, asked, site="q")
    with pytest.raises(ValueError, match="top=67 of 66"):
        fact_neurons(model, held, asked, top=67)
    with pytest.raises(ValueError, match="no column 'masks'"):
        fact_neurons(model, held, asked.drop(columns="masks"), top=5)
    with pytest.raises(ValueError, match="'p1-0' in 'en' was predicted with 0 masks"):
        fact_neurons(model, held, asked.assign(masks=[0, *asked["masks"][1:]]), top=5)
    with pytest.raises(ValueError, match="'other' of 'p1' was predicted in 'en'"):
        fact_neurons(model, held, asked.assign(fact=["other", *asked["fact"][1:]]), top=5)
    with pytest.raises(ValueError, match="'p1' has no template"):
        fact_neurons(model, held.only(relations=["p2"]), asked, top=5)
    with pytest.raises(ValueError, match="language 'fr' was not asked: the predictions have en, de"):
        fact_neurons(model, held, asked, top=5, languages=["en", "fr"])
    with pytest.raises(ValueError, match="0 bins of 22"):
        fact_neurons(model, held, asked, top=5).bins(0)


def moments(means: torch.Tensor, model: str | None = None) -> Moments:
    """Statistics whose only content is a mean [layer width]."""
    n = torch.tensor(4)
    zeros = {"ffn": torch.zeros_like(means)}
    return Moments(n, {"ffn": zeros["ffn"].long()}, {"ffn": 4 * means}, zeros, zeros, model=model)  # type: ignore[arg-type]


def test_language_neurons_are_those_that_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(2, 20, generator=generator, dtype=torch.double)
    stats = {}
    for k, language in enumerate(("en", "de", "ja")):
        own = base.clone()
        own[0, 3 * k : 3 * k + 2] += 5
        own[1, 3 * k] -= 5
        stats[language] = moments(own)
    scores = probeless_scores(stats)
    by_pairs = brute(torch.stack([value.mean("ffn").flatten() for value in stats.values()]))
    assert torch.allclose(torch.stack(list(scores.values())).flatten(1).abs(), by_pairs)
    found = language_neurons(stats, rate=0.075)
    assert {(layer, unit) for _, layer, unit in found["de"]} == {(0, 3), (0, 4), (1, 3)}
    assert {(layer, unit) for _, layer, unit in language_neurons(stats, rate=0.025, side="low")["ja"]} == {(1, 6)}
    with pytest.raises(ValueError, match="side='top'"):
        language_neurons(stats, side="top")
    with pytest.raises(ValueError, match="compares languages"):
        language_neurons({"en": stats["en"]})
    with pytest.raises(ValueError, match="got 1"):
        mean_deviation(torch.zeros(1, 2))
