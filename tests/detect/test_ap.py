"""AP is the average precision of its definition, ties included; the two ends of the ranking are taken."""

import numpy as np
import planted as made
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import LANGUAGES, LAYERS, PLANTED, WIDTH, documents_from, moments_from, units

from mwork_lens.detect.ap import ap, average_precision, average_precisions


def naive(values, labels):
    """Average precision by its definition: precision and recall at every distinct threshold (the oracle)."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(values), reverse=True):
        inside = [label for value, label in zip(values, labels, strict=True) if value >= threshold]
        now = sum(inside) / sum(labels)
        area += (now - recall) * sum(inside) / len(inside)
        recall = now
    return area


@given(
    columns=st.lists(st.lists(st.integers(-3, 3), min_size=8, max_size=8), min_size=1, max_size=5),
    labels=st.lists(st.booleans(), min_size=8, max_size=8).filter(any),
)
def test_average_precision_is_its_definition_with_ties(columns, labels):
    found = average_precision(torch.tensor(columns).T.double(), torch.tensor([labels, [True] * 8]))
    assert found.shape == (2, len(columns))
    for j, column in enumerate(columns):
        assert found[0, j].item() == pytest.approx(naive(column, labels), abs=1e-12)
    torch.testing.assert_close(found[1], torch.ones_like(found[1]))


@given(seed=st.integers(0, 1000))
def test_average_precision_does_not_depend_on_the_order_of_documents_or_the_scale(seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-5, 5, (12, 6), generator=generator).double()
    labels = torch.rand(1, 12, generator=generator) < 0.5
    labels[0, 0] = True
    order = torch.randperm(12, generator=generator)
    straight = average_precision(values, labels)
    torch.testing.assert_close(average_precision(values[order], labels[:, order]), straight, rtol=0, atol=1e-12)
    assert torch.equal(average_precision(3 * values - 7, labels), straight)


def test_a_perfect_and_a_constant_and_an_inverse_unit():
    values = torch.tensor([[2.0, 1, -2], [1.5, 1, -1.5], [0, 1, 0], [-1, 1, 1]])
    found = average_precision(values, torch.tensor([[True, True, False, False]]))[0]
    assert found.tolist() == pytest.approx([1, 0.5, (1 / 3 + 2 / 4) / 2])


@pytest.fixture(scope="module")
def strata():
    return documents_from(made.planted())


def test_scores_are_those_of_document_means(strata):
    found = average_precisions(strata)
    texts = made.planted()
    for name in LANGUAGES:
        for layer, unit in [(0, 0), (1, 40), (0, 77), (1, 63)]:
            values = [
                np.float32(text[:, layer, unit].sum()) / LENGTH for texts_of in texts.values() for text in texts_of
            ]
            labels = [other == name for other in LANGUAGES for _ in texts[other]]
            assert found[name]["ffn"][layer, unit].item() == pytest.approx(naive(values, labels), abs=1e-12)


LENGTH = made.LENGTH


def test_planted_neurons_are_found_exactly_and_shuffled_labels_find_none(strata):
    assert units(ap(strata, side="top", count=4)) == PLANTED
    assert all(average_precisions(strata)[name]["ffn"][unit] == 1 for name, found in PLANTED.items() for unit in found)
    false = average_precisions(documents_from(made.shuffled(made.planted())))
    for name in LANGUAGES:  # AP always selects its number; the best of 200 units is now far from detecting a language
        assert false[name]["ffn"].max() < 0.55
        assert false[name]["ffn"].median() == pytest.approx(1 / 3, abs=0.03)
    found = {
        unit for chosen in units(ap(documents_from(made.shuffled(made.planted())), count=4)).values() for unit in chosen
    }
    assert len(found & {unit for chosen in PLANTED.values() for unit in chosen}) <= 3


def test_the_bottom_holds_units_that_are_low_in_the_language(strata):
    """A unit planted for one of two languages is silent in the other."""
    two = {name: strata[name] for name in ("en", "de")}
    assert units(ap(two, side="bottom", count=4)) == {"en": PLANTED["de"], "de": PLANTED["en"]}
    both = ap(two, count=4)
    assert units(both) == {name: sorted(PLANTED["en"] + PLANTED["de"]) for name in two}


def test_both_sides_are_the_two_halves(strata):
    for count in (2, 7, 100, LAYERS * WIDTH):
        top, bottom, both = (ap(strata, side=side, count=count) for side in ("top", "bottom", "both"))
        for name in LANGUAGES:
            assert (len(top[name]), len(bottom[name]), len(both[name])) == ((count + 1) // 2, count // 2, count)
            assert both[name] == top[name] | bottom[name]
    assert all(len(found) == 2 for found in ap(strata).values())  # 1 % of 200
    assert ap(strata)["en"].model == "m"


def test_sites_are_ranked_together(strata):
    texts = made.planted(seed=1)
    quiet = {name: [text * 0 for text in texts[name]] for name in texts}
    sites = documents_from(quiet, site="z")
    for name, value in strata.items():
        sites[name].positive["ffn_act"], sites[name].total["ffn_act"] = (
            value.positive["ffn_act"],
            value.total["ffn_act"],
        )
    found = ap(sites, side="top", count=4, sites=["z", "ffn_act"])
    assert {name: len(part.only(sites=["ffn"])) for name, part in found.items()} == dict.fromkeys(LANGUAGES, 2)
    assert found["en"].sites == ("z", "ffn")
    assert units({name: part.only(sites=["ffn"]) for name, part in found.items()}) == PLANTED


def test_long_documents_rank_by_their_mean_like_short_ones():
    rng = np.random.default_rng(0)
    texts = {
        name: [rng.normal(1, 1, size=(n, 1, 6)) for n in lengths]
        for name, lengths in {"en": (2, 30, 9), "de": (20, 3, 1)}.items()
    }
    found = average_precisions(documents_from(texts))
    for name in texts:
        labels = [other == name for other in texts for _ in texts[other]]
        for unit in range(6):
            values = [text[:, 0, unit].mean() for part in texts.values() for text in part]
            assert found[name]["ffn"][0, unit].item() == pytest.approx(naive(values, labels), abs=1e-12)


def test_documents_without_tokens_do_not_count():
    rng = np.random.default_rng(0)
    texts = {name: [rng.normal(size=(4, 1, 6)) for _ in range(3)] for name in ("en", "de")}
    longer = {name: [*part, np.zeros((0, 1, 6))] for name, part in texts.items()}
    for name, scores in average_precisions(documents_from(longer)).items():
        assert torch.equal(scores["ffn"], average_precisions(documents_from(texts))[name]["ffn"])


def test_bad_input_is_refused(strata):
    with pytest.raises(ValueError, match="side='left' is unknown: choose 'both', 'top' or 'bottom'"):
        ap(strata, side="left")
    with pytest.raises(ValueError, match="AP compares languages and got en"):
        ap({"en": strata["en"]})
    with pytest.raises(ValueError, match="AP needs statistics per document, and 'en' has Moments over all of them"):
        ap(moments_from(made.planted()))
    for count in (1, 0, 201):
        with pytest.raises(
            ValueError, match=f"{count} units cannot be the top and bottom halves of 200: choose count between 2"
        ):
            ap(strata, count=count)
    with pytest.raises(ValueError, match=r"site 'z' was not measured, only ffn_act"):
        ap(strata, sites=["z"])


def test_two_ffn_sites_name_the_same_units():
    both = documents_from(made.planted(), site="ffn")
    for value in both.values():
        value.positive["ffn_act"], value.total["ffn_act"] = value.positive["ffn"], value.total["ffn"]
    with pytest.raises(ValueError, match="sites ffn, ffn_act look at the same FFN units: give one of them"):
        ap(both, sites=["ffn", "ffn_act"])


def test_average_precision_of_nothing_is_refused():
    with pytest.raises(ValueError, match="label 1 marks no document: average precision is undefined"):
        average_precision(torch.ones(2, 1), torch.tensor([[True, False], [False, False]]))
    with pytest.raises(ValueError, match="1 document means are nan: they cannot be ranked"):
        average_precision(torch.tensor([[1.0], [torch.nan]]), torch.tensor([[True, False]]))
