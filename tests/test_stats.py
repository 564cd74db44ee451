"""Statistics add, obey the keep-mask, and are what a naive loop says."""

import random
from functools import reduce
from operator import add

import pytest
import torch
from conftest import pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mwork_lens.collect import moments
from mwork_lens.corpora import Tokens, pad
from mwork_lens.sites import NEURON_SITES, hook_name
from mwork_lens.stats import Importances, shares, top_count
from mwork_lens.storage import Run, load, save

SITES = ("k", "ffn", "resid_post")


def documents(lengths, seed=0):
    rng = random.Random(seed)
    return [[1, *(rng.randrange(4, 97) for _ in range(n))] for n in lengths]


def batch(rows):
    return pad(rows, "de", [str(i) for i in range(len(rows))], bos=1)


def same(a, b, tolerance=1e-9):
    assert a.n == b.n
    for site in a.positive:
        assert torch.equal(a.positive[site], b.positive[site]), site
        for group in ("total", "square"):
            torch.testing.assert_close(getattr(a, group)[site], getattr(b, group)[site], rtol=tolerance, atol=tolerance)


def copied(value, **changes):
    return type(value)(**{**{name: getattr(value, name) for name in value.__dataclass_fields__}, **changes})


# --- Moments ---


@given(lengths=st.lists(st.just(6), min_size=2, max_size=8), data=st.data())
@settings(max_examples=15)
def test_moments_of_a_batch_are_the_sum_of_those_of_its_parts(lengths, data):
    """Equal lengths and float64: nothing but the split differs, and a row's arithmetic is the same to 1e-12."""
    model, rows = wide(), documents(lengths)
    cut = data.draw(st.integers(1, len(rows) - 1))
    statistic = moments(*SITES)
    whole, left, right = (statistic(model, batch(part)) for part in (rows, rows[:cut], rows[cut:]))
    same(left + right, whole)
    same(right + left, whole)
    same(reduce(add, (statistic(model, batch([row])) for row in rows)), whole)
    assert whole.n == sum(lengths)


_wide = []


def wide():
    """A tiny model in float64, made once."""
    if not _wide:
        import families

        from mwork_lens.models import load_model

        _wide.append(load_model(families.hf_model("llama").double(), tokenizer=families.tokenizer()))
    return _wide[0]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5))
@settings(max_examples=10)
def test_padding_and_bos_change_nothing(lengths):
    model, rows, statistic = wide(), documents(lengths), moments(*SITES)
    together = statistic(model, batch(rows))
    same(together, reduce(add, (statistic(model, batch([row])) for row in rows)))
    assert together.n == sum(lengths)  # BOS and padding are not counted
    longest = max(map(len, rows))
    padded = [row + [0] * (longest + 3 - len(row)) for row in rows]
    mask = torch.tensor([[i < len(row) for i in range(longest + 3)] for row in rows])
    keep = mask & (torch.arange(longest + 3) > 0)
    same(statistic(model, Tokens(torch.tensor(padded), keep, attention_mask=mask)), together)


def test_the_mask_matters():
    """Negative control: counting everything, or nothing less than BOS, gives other numbers."""
    rows, statistic = documents([3, 8]), moments("ffn")
    tokens = batch(rows)
    careful = statistic(wide(), tokens)
    careless = statistic(wide(), Tokens(tokens.ids, torch.ones_like(tokens.keep), attention_mask=tokens.attention_mask))
    assert careless.n == careful.n + 2 + 5
    assert not torch.equal(careless.positive["ffn"], careful.positive["ffn"])


@pytest.mark.parametrize("family", ["llama", "bloom", "neox"])
def test_moments_equal_a_naive_loop(family):
    model, _ = pair(family)
    rows = documents([4, 7])
    tokens, wanted = batch(rows), (*NEURON_SITES, "ffn_gate", "resid_pre")
    found = moments(*wanted)(model, tokens)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens.ids, attention_mask=tokens.mask.long())
    for site in wanted:
        for layer in range(2):
            values = cache[hook_name(site, layer)].reshape(*tokens.ids.shape, -1).double()
            for unit in (0, 1, values.shape[-1] - 1):
                kept = [values[i, p, unit].item() for i, row in enumerate(rows) for p in range(1, len(row))]
                assert found.positive[site][layer, unit] == sum(v > 0 for v in kept)
                assert found.total[site][layer, unit].item() == pytest.approx(sum(kept), rel=1e-12, abs=1e-12)
                assert found.square[site][layer, unit].item() == pytest.approx(sum(v * v for v in kept), rel=1e-12)
                assert found.probability(site)[layer, unit].item() == pytest.approx(
                    sum(v > 0 for v in kept) / len(kept)
                )
                assert found.mean(site)[layer, unit].item() == pytest.approx(sum(kept) / len(kept), abs=1e-12)
    assert found.n == 11
    assert found.positive["ffn"].dtype == torch.int64
    assert found.total["ffn"].dtype == torch.float64


def test_moments_of_different_models_or_sites_do_not_add():
    rows = batch(documents([3]))
    mine = moments("ffn", "k")(pair("llama")[0], rows)
    with pytest.raises(
        ValueError,
        match=r"differ in site 'ffn': \[layer, width\] \[2, 44\] vs \[2, 128\] - collected on another model\?",
    ):
        mine + moments("ffn", "k")(pair("bloom")[0], rows)
    with pytest.raises(ValueError, match=r"statistics of different sites do not add: \['ffn', 'k'\] and \['ffn'\]"):
        mine + moments("ffn")(pair("llama")[0], rows)


def test_a_batch_without_tokens_is_refused(llama):
    with pytest.raises(ValueError, match="this batch keeps no token: every position is padding or BOS"):
        moments("ffn")(llama, torch.tensor([[1]]))


def test_the_statistic_says_what_decides_it():
    assert moments().parameters() == {"statistic": "moments", "sites": ("ffn",), "size": 16, "length": None}
    assert moments("q", "q", "ffn", size=2, length=9).parameters() == {
        "statistic": "moments",
        "sites": ("q", "ffn"),
        "size": 2,
        "length": 9,
    }
    assert moments("ffn") == moments("ffn")
    with pytest.raises(AttributeError):
        moments("ffn").size = 3
    for bad in ("mlp", "pattern"):
        with pytest.raises(ValueError, match=f"unknown site '{bad}'"):
            moments(bad)
    for name in ("size", "length"):
        with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
            moments("ffn", **{name: 0})


def test_moments_are_saved_exactly(llama, tmp_path):
    value = moments(*SITES)(llama, batch(documents([5, 2])))
    same(load(save({"de": value}, tmp_path / "m.safetensors", Run("measure")))["de"], value, tolerance=0)


def test_sums_leave_their_parts_alone(llama):
    a = moments("ffn")(llama, batch(documents([5])))
    before = copied(a, n=a.n.clone(), positive={"ffn": a.positive["ffn"].clone()})
    a + a
    assert torch.equal(a.positive["ffn"], before.positive["ffn"])
    assert a.n == before.n == 5
    with pytest.raises(AttributeError):
        a.n = torch.tensor(0)


# --- Importances ---

dyadic = st.integers(-64, 64).map(lambda i: i / 16)  # sums of these are exact, so laws hold to the bit
scores = st.lists(st.lists(dyadic, min_size=5, max_size=5), min_size=2, max_size=2)


def of(rows, share=0.4):
    return Importances.of_document({"ffn": torch.tensor(rows)}, {"ffn": share})


def equal(a, b):
    return a.documents == b.documents and all(
        torch.equal(getattr(a, g)["ffn"], getattr(b, g)["ffn"]) for g in ("minimum", "total", "hits")
    )


@given(a=scores, b=scores, c=scores)
def test_importances_add_in_any_order(a, b, c):
    x, y, z = of(a), of(b), of(c)
    assert equal(x + y, y + x)
    assert equal((x + y) + z, x + (y + z))


@given(rows=st.lists(scores, min_size=1, max_size=5), share=st.sampled_from([0.1, 0.2, 0.4, 0.5, 0.79]))
def test_importances_equal_a_naive_loop(rows, share):
    found = reduce(add, (of(document, share) for document in rows))
    assert found.documents == len(rows)
    count = max(1, round(share * 5))
    for layer in range(2):
        for unit in range(5):
            values = [document[layer][unit] for document in rows]
            assert found.minimum["ffn"][layer, unit] == min(values)
            assert found.total["ffn"][layer, unit] == sum(values)
            assert found.mean("ffn")[layer, unit].item() == pytest.approx(sum(values) / len(values))
            ranks = [
                sorted(range(5), key=lambda j, row=document[layer]: (-row[j], j)).index(unit) for document in rows
            ]  # ties: lower index
            assert found.hits["ffn"][layer, unit] == sum(rank < count for rank in ranks)
    assert found.hits["ffn"].sum().item() == 2 * count * len(rows)


def test_importances_of_different_shapes_do_not_add():
    wider = Importances.of_document({"ffn": torch.zeros(2, 6)}, {"ffn": 0.4})
    with pytest.raises(ValueError, match=r"statistics differ in site 'ffn': .* \[2, 5\] vs \[2, 6\]"):
        of([[0.0] * 5] * 2) + wider
    other = Importances.of_document({"q": torch.zeros(2, 5)}, {"q": 0.4})
    with pytest.raises(ValueError, match=r"different sites do not add: \['ffn'\] and \['q'\]"):
        of([[0.0] * 5] * 2) + other


@given(a=scores)
def test_importances_are_saved_exactly(a, tmp_path_factory):
    path = tmp_path_factory.mktemp("i") / "i.safetensors"
    assert equal(load(save(of(a), path, Run("plnd"))), of(a))


def test_importances_own_their_numbers():
    given_scores = torch.ones(1, 5, dtype=torch.float64)
    value = Importances.of_document({"ffn": given_scores}, {"ffn": 0.4})
    given_scores.fill_(9)
    assert value.minimum["ffn"].max() == 1
    assert value.total["ffn"].max() == 1


# --- shares ---


@given(share=st.floats(0.001, 0.9), width=st.integers(20, 500))
def test_top_count_is_the_share_and_at_least_one(share, width):
    assert top_count(share, width) == max(1, round(share * width))


def test_top_count_refuses_nothing_and_everything():
    for share in (0.0, 1.0, -1.0, 5.0):
        with pytest.raises(
            ValueError, match=f"top={share} is not a share of a layer's units: give a number between 0 and 1"
        ):
            top_count(share, 10)
    with pytest.raises(ValueError, match=r"top=0.99 selects all 10 units of a layer"):
        top_count(0.99, 10)
    with pytest.raises(ValueError, match=r"top=0.5 selects all 1 units"):
        top_count(0.5, 1)


def test_shares_per_site():
    assert shares(0.1, ("q", "ffn")) == {"q": 0.1, "ffn": 0.1}
    assert shares({"attention": 0.1, "ffn": 0.2, "v": 0.3}, ("q", "v", "ffn")) == {"q": 0.1, "v": 0.3, "ffn": 0.2}
    with pytest.raises(ValueError, match=r"top gives no share for site 'ffn': it has \['attention'\]"):
        shares({"attention": 0.1}, ("q", "ffn"))


def test_statistics_of_different_models_do_not_add():
    from conftest import document

    from mwork_lens.capture import as_tokens
    from mwork_lens.detect.plnd import importances

    for statistic in (moments("ffn"), importances(sites=("ffn",))):
        a, b = (statistic(pair(family)[0], as_tokens(document(), pair(family)[0])) for family in ("llama", "qwen2"))
        assert (a + a).model == a.model
        with pytest.raises(ValueError, match="statistics of different models do not add"):
            a + b
