"""PLND: importances equal to real ablation on every architecture, and selection equal to plain Python sets."""

from dataclasses import replace
from typing import Any

import families
import numpy as np
import oracles
import pytest
import torch
from conftest import document, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mwork_lens.corpora import Corpus, Tokens, load_corpora
from mwork_lens.detect.plnd import importances, neuron_importance, plnd, specific
from mwork_lens.measure import measure
from mwork_lens.models import fingerprint, load_model
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import NEURON_SITES
from mwork_lens.stats import Importances, top_count

MEASURES = ("output", "attention")


def assert_importance(found: float, right: float, largest: float, label: Any = "") -> None:
    """To rounding: the oracle itself subtracts two float32 outputs; of one token, all patterns are 1 and scores are rounding alone."""
    assert found == pytest.approx(right, rel=1e-5, abs=max(1e-6 * largest, 1e-12)), label


def _against_brute_force(model: Any, plain: Any, ids: torch.Tensor, *, step: int, sites: Any = NEURON_SITES) -> None:
    found = {m: neuron_importance(model, ids, measure=m, sites=sites) for m in MEASURES}
    for layer in range(len(found["output"][sites[0]])):
        seen = oracles.observe(plain, ids, layer)
        for offset, site in enumerate(sites):
            for unit in range((offset + layer) % step, found["output"][site].shape[1], step):
                right = oracles.brute_force(plain, ids, site, layer, unit, seen=seen)
                for m in MEASURES:
                    scores = found[m][site][layer]
                    assert_importance(float(scores[unit]), right[m], float(scores.max()), (m, site, layer, unit))


# ---------------------------------------------------------------- importance


def test_importance_is_ablation_on_every_family(any_family: tuple[str, Any, Any]) -> None:
    """Every third unit of every site of both layers: its weights really zeroed in the Hugging Face model."""
    _, model, plain = any_family
    _against_brute_force(model, plain, document(11), step=3)


@pytest.mark.parametrize("length", [1, 2, 40])
def test_importance_is_ablation_at_every_length(length: int) -> None:
    for family in ("llama", "mistral", "gemma2", "olmo2", "bloom"):
        model, plain = pair(family)
        _against_brute_force(model, plain, document(length, seed=length), step=13)


@pytest.mark.parametrize(
    ("layers", "heads", "kv", "d_head", "d_mlp"), [(1, 3, 1, 10, 37), (3, 5, 5, 6, 13), (7, 1, 1, 4, 3)]
)
def test_importance_is_ablation_on_odd_models(layers: int, heads: int, kv: int, d_head: int, d_mlp: int) -> None:
    config = families.LlamaConfig(
        vocab_size=families.VOCAB, hidden_size=heads * 7, intermediate_size=d_mlp, num_hidden_layers=layers, head_dim=d_head,
        num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=families.CONTEXT,
    )  # fmt: skip
    hf = families.hf_model("llama", config=config, std=0.2)
    plain = oracles.plain(hf)
    model = load_model(hf, tokenizer=families.tokenizer())
    found = neuron_importance(model, document(9))
    widths = {"q": heads * d_head, "k": kv * d_head, "v": kv * d_head, "z": heads * d_head, "ffn": d_mlp}
    assert {site: tuple(scores.shape) for site, scores in found.items()} == {s: (layers, w) for s, w in widths.items()}
    _against_brute_force(model, plain, document(9), step=7)


@settings(max_examples=10)
@given(
    family=st.sampled_from(["llama", "llama_mha_bias", "qwen3", "gemma2", "gemma3", "neox", "cohere_qk_norm"]),
    length=st.integers(1, 20), seed=st.integers(0, 99),
)  # fmt: skip
def test_importance_is_ablation_on_any_document(family: str, length: int, seed: int) -> None:
    model, plain = pair(family)
    _against_brute_force(model, plain, document(length, seed=seed), step=17)


def test_peaked_models_too() -> None:
    """Weights four times as large: softmaxes close to one-hot."""
    hf = families.hf_model("llama", std=0.8)
    plain = oracles.plain(hf)
    model = load_model(hf, tokenizer=families.tokenizer())
    ids = document(14)
    assert oracles.observe(plain, ids, 1)["pattern"].amax(-1).median() > 0.999
    found = neuron_importance(model, ids)
    for layer in (0, 1):
        seen = oracles.observe(plain, ids, layer)
        for site in NEURON_SITES:
            for unit in range(0, found[site].shape[1], 5):
                right = oracles.brute_force(plain, ids, site, layer, unit, seen=seen)["output"]
                largest = float(found[site][layer].max())
                assert float(found[site][layer, unit]) == pytest.approx(right, rel=1e-3, abs=1e-4 * largest)


def test_another_unit_is_another_importance() -> None:
    """The control of the equalities above: neighbours, measures and layers differ by far more than the tolerance."""
    found = {m: neuron_importance(pair("llama")[0], document(11), measure=m) for m in MEASURES}
    for site in NEURON_SITES:
        scores = found["output"][site]
        assert ((scores[:, 1:] / scores[:, :-1] - 1).abs() > 1e-4).all(), site
        assert not torch.allclose(scores[0], scores[1], rtol=1e-2)
    for site in ("q", "k"):
        assert not torch.allclose(found["output"][site], found["attention"][site], rtol=1e-2)
    for site in ("v", "z", "ffn"):
        assert torch.equal(found["output"][site], found["attention"][site])


def test_sites_can_be_asked_for_one_by_one(llama: Any) -> None:
    whole = neuron_importance(llama, document())
    for site in NEURON_SITES:
        alone = neuron_importance(llama, document(), sites=site)
        assert list(alone) == [site]
        assert torch.equal(alone[site], whole[site])


def test_padding_does_not_count(llama: Any) -> None:
    ids = document(7)
    padded = torch.cat([ids, torch.zeros(1, 4, dtype=torch.long)], 1)
    mask = torch.arange(11)[None] < 7
    found = neuron_importance(llama, Tokens(padded, mask.clone(), "fr", mask))
    right = neuron_importance(llama, ids)
    for site in NEURON_SITES:
        assert torch.equal(found[site], right[site])


# ---------------------------------------------------------------- invariants (plnd.md, section 6)


def _changed(change: Any, family: str = "llama") -> Any:
    hf = families.hf_model(family)
    with torch.no_grad():
        change(oracles.hf_blocks(hf)[1])
    return load_model(hf, tokenizer=families.tokenizer())


@given(seed=st.integers(0, 999))
@settings(max_examples=5)
def test_permuting_ffn_units_permutes_scores(seed: int) -> None:
    order = torch.randperm(44, generator=torch.Generator().manual_seed(seed))

    def permute(block: Any) -> None:
        for projection in (block.mlp.up_proj, block.mlp.gate_proj):
            projection.weight.copy_(projection.weight[order].clone())
        block.mlp.down_proj.weight.copy_(block.mlp.down_proj.weight[:, order].clone())

    for m in ("output", "released"):
        right = neuron_importance(pair("llama")[0], document(), measure=m, sites="ffn")["ffn"]
        found = neuron_importance(_changed(permute), document(), measure=m, sites="ffn")["ffn"]
        torch.testing.assert_close(found[1], right[1][order], rtol=1e-5, atol=0)
        torch.testing.assert_close(found[0], right[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("by", [0.1, 8.0])
def test_rescaling_up_against_down_leaves_the_paper_and_moves_the_released_scores(by: float) -> None:
    def rescale(block: Any) -> None:
        block.mlp.up_proj.weight.mul_(by)
        block.mlp.down_proj.weight.div_(by)

    for m, factor in (("output", 1.0), ("released", by)):
        right = neuron_importance(pair("llama")[0], document(), measure=m, sites="ffn")["ffn"]
        found = neuron_importance(_changed(rescale), document(), measure=m, sites="ffn")["ffn"]
        torch.testing.assert_close(found[1], factor * right[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "olmo2"])
def test_a_zero_column_scores_nothing_and_nobody_scores_below(family: str) -> None:
    def silence(block: Any) -> None:
        for projection, unit in (("q_proj", 3), ("k_proj", 4), ("v_proj", 5)):
            getattr(block.self_attn, projection).weight[unit] = 0.0
        block.self_attn.o_proj.weight[:, 6] = 0.0
        block.mlp.up_proj.weight[7] = 0.0

    for m in MEASURES:
        found = neuron_importance(_changed(silence, family), document(), measure=m)
        for site, unit in (("q", 3), ("k", 4), ("v", 5), ("z", 6), ("ffn", 7)):
            assert found[site][1, unit] == 0.0, (m, site)
            assert found[site][0, unit] > 0.0
            assert (found[site] >= 0).all()
            # a v row feeds one unit of z in each query head of its group
            assert int((found[site][1] == 0).sum()) == (3 if site == "z" else 1)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "bloom"])
def test_earlier_tokens_contribute_what_they_contribute_alone(family: str) -> None:
    """The change at positions below t, in documents that differ from t on, is the importance of document[:t]."""
    model, plain = pair(family)
    t, whole = 8, document(13)
    other = whole.clone()
    other[0, t:] = (other[0, t:] + 11) % families.VOCAB
    alone = {m: neuron_importance(model, whole[:, :t], measure=m) for m in MEASURES}
    longer = neuron_importance(model, whole)
    for ids in (whole, other):
        seen = oracles.observe(plain, ids, 1)
        for site in NEURON_SITES:
            unit = 5
            with oracles.zeroed(oracles.slices(plain, site, 1, unit)):
                after = oracles.observe(plain, ids, 1)
            what = "ffn" if site == "ffn" else "attn"
            change = float((after[what] - seen[what])[0, :t].norm())
            assert_importance(float(alone["output"][site][1, unit]), change, float(alone["output"][site][1].max()))
            if site in ("q", "k"):
                moved = float((after["pattern"] - seen["pattern"])[0, :, :t].norm())
                assert float(alone["attention"][site][1, unit]) == pytest.approx(moved, rel=1e-4)
    for site in NEURON_SITES:  # sums of squares over positions: later tokens only add
        assert (longer[site] >= alone["output"][site] * (1 - 1e-5)).all()


def test_k_and_v_expanded_by_hand() -> None:
    """Every query head with its own copy of k and v: q keeps its scores, a k row is the root sum of squares of its copies."""
    hf = families.hf_model("llama")
    wide = families.hf_model("llama", config=families.LlamaConfig(**{**families._llama, "num_key_value_heads": 4}))
    state = hf.state_dict()
    for name in list(state):
        if "k_proj" in name or "v_proj" in name:
            state[name] = state[name].reshape(2, 8, -1).repeat_interleave(2, 0).reshape(32, -1)
    wide.load_state_dict(state)
    grouped, expanded = (load_model(m, tokenizer=families.tokenizer()) for m in (hf, wide))
    a, b = (neuron_importance(m, document(), measure="attention") for m in (grouped, expanded))
    for site in ("q", "z", "ffn"):
        torch.testing.assert_close(a[site], b[site], rtol=1e-5, atol=1e-8)
    copies = {site: b[site].reshape(2, 2, 2, 8).square().sum(2).sqrt().reshape(2, 16) for site in ("k", "v")}
    torch.testing.assert_close(a["k"], copies["k"], rtol=1e-5, atol=1e-8)
    assert ((a["v"] / copies["v"] - 1).abs() > 1e-3).float().mean() > 0.9  # the cross terms of Eq. 5 under grouping


def test_measuring_leaves_the_model_as_it_was(llama: Any) -> None:
    ids = document()
    with torch.no_grad():
        before, stamp = llama(ids), fingerprint(llama)
        for m in ("output", "attention", "released"):
            neuron_importance(llama, ids, measure=m)
        assert torch.equal(llama(ids), before)
    assert fingerprint(llama) == stamp


# ---------------------------------------------------------------- selection


@st.composite
def st_documents(draw: Any) -> tuple[list[dict[str, torch.Tensor]], dict[str, float]]:
    """Importances of one to five documents, with many ties, and a share per site."""
    layers, widths = draw(st.integers(1, 3)), {"q": draw(st.integers(3, 12)), "ffn": draw(st.integers(3, 12))}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    levels = draw(st.sampled_from([2, 5, 1000]))
    docs = [
        {site: torch.randint(0, levels, (layers, width), generator=generator).float() for site, width in widths.items()}
        for _ in range(draw(st.integers(1, 5)))
    ]
    return docs, {site: draw(st.sampled_from([0.1, 0.34, 0.5])) for site in widths}


def _top_of(doc: dict[str, torch.Tensor], top: dict[str, float]) -> set[tuple[str, int, int]]:
    """Plain Python: the best of each layer, the lower index first among equals."""
    chosen = set()
    for site, scores in doc.items():
        for layer, row in enumerate(scores.tolist()):
            count = max(1, round(top[site] * len(row)))
            best = sorted(range(len(row)), key=lambda unit, row=row: (-row[unit], unit))[:count]
            chosen |= {(site, layer, unit) for unit in best}
    return chosen


def _sum(docs: Any, top: dict[str, float]) -> Importances:
    parts = [Importances.of_document(doc, top) for doc in docs]
    return sum(parts[1:], parts[0])


def _as_set(neurons: NeuronSet) -> set[tuple[str, int, int]]:
    return {tuple(neuron) for neuron in neurons}


@given(made=st_documents(), consensus=st.sampled_from([0.01, 0.4, 0.5, 2 / 3, 1.0]))
def test_consensus_is_a_vote_of_plain_sets(made: Any, consensus: float) -> None:
    docs, top = made
    tops = [_top_of(doc, top) for doc in docs]
    everyone = set().union(*tops)
    right = {neuron for neuron in everyone if sum(neuron in t for t in tops) / len(docs) >= consensus - 1e-9}
    found = plnd({"fr": _sum(docs, top)}, consensus=consensus)
    assert _as_set(found["fr"]) == right
    if consensus == 1.0:
        assert right == set.intersection(*tops)


@given(made=st_documents(), threshold=st.sampled_from([0.0, 1.0, 1.5, 400.0, 1e9]))
def test_threshold_is_equation_two(made: Any, threshold: float) -> None:
    docs, top = made
    right = {
        (site, layer, unit)
        for site in docs[0]
        for layer in range(len(docs[0][site]))
        for unit in range(docs[0][site].shape[1])
        if all(doc[site][layer, unit].item() >= threshold for doc in docs)
    }
    assert _as_set(plnd({"fr": _sum(docs, top)}, threshold=threshold)["fr"]) == right


@given(made=st_documents(), data=st.data())
def test_order_is_irrelevant_and_documents_only_take_away(made: Any, data: Any) -> None:
    docs, top = made
    whole = plnd({"fr": _sum(docs, top)})["fr"]
    assert plnd({"fr": _sum(data.draw(st.permutations(docs)), top)})["fr"] == whole
    for n in range(1, len(docs)):
        assert whole <= plnd({"fr": _sum(docs[:n], top)})["fr"]
        assert (
            plnd({"fr": _sum(docs, top)}, threshold=2.0)["fr"] <= plnd({"fr": _sum(docs[:n], top)}, threshold=2.0)["fr"]
        )
    alone = plnd({"fr": _sum(docs[:1], top)})["fr"]
    assert _as_set(alone) == _top_of(docs[0], top)
    assert plnd({"fr": _sum([docs[0]] * 3, top)})["fr"] == alone


def test_ties_go_to_the_lower_index() -> None:
    flat = {"ffn": torch.ones(2, 10)}
    found = plnd({"fr": _sum([flat], {"ffn": 0.3})})["fr"]
    assert _as_set(found) == {("ffn", layer, unit) for layer in range(2) for unit in range(3)}


def test_a_language_without_neurons_keeps_its_empty_set() -> None:
    one, two = {"ffn": torch.tensor([[3.0, 1, 0, 0]])}, {"ffn": torch.tensor([[1.0, 3, 0, 0]])}
    found = plnd({"fr": _sum([one, two], {"ffn": 0.25}), "de": _sum([one], {"ffn": 0.25})})
    assert list(found) == ["fr", "de"]
    assert not found["fr"]
    assert found["fr"].shapes == {"ffn": (1, 4)}
    assert _as_set(found["de"]) == {("ffn", 0, 0)}


def test_sets_know_their_model(llama: Any) -> None:
    seen = importances(sites=("ffn",))(llama, Tokens(document(), torch.ones(1, 11, dtype=torch.bool)))
    assert plnd({"fr": seen}, model=llama)["fr"].model == fingerprint(llama)
    assert plnd({"fr": seen})["fr"].model == fingerprint(llama)


def test_the_statistic_is_the_importance_of_each_document(llama: Any) -> None:
    docs = [document(9, seed=seed) for seed in range(3)]
    statistic = importances(measure="attention", sites=("k", "ffn"), top={"attention": 0.3, "ffn": 0.1})
    parts = [statistic(llama, Tokens(ids, torch.ones_like(ids, dtype=torch.bool))) for ids in docs]
    found = parts[0] + parts[1] + parts[2]
    right = [neuron_importance(llama, ids, measure="attention", sites=("k", "ffn")) for ids in docs]
    assert int(found.documents) == 3
    for site, share in (("k", 0.3), ("ffn", 0.1)):
        stacked = torch.stack([r[site].double() for r in right])
        torch.testing.assert_close(found.minimum[site], stacked.min(0).values)
        torch.testing.assert_close(found.mean(site), stacked.mean(0))
        assert found.hits[site].sum() == 3 * 2 * top_count(share, stacked.shape[2])
    tops = [_top_of(r, {"k": 0.3, "ffn": 0.1}) for r in right]
    assert _as_set(plnd({"fr": found})["fr"]) == set.intersection(*tops)


# ---------------------------------------------------------------- specific


def _toy() -> dict[str, NeuronSet]:
    """0: all; 1: English and French; 2: English; 3: French; 4: German and French; German has 0 and 4 only."""
    members = {"en": (0, 1, 2), "fr": (0, 1, 3, 4), "de": (0, 4)}
    return {code: NeuronSet.of([("ffn", 0, i) for i in own], {"ffn": (1, 6)}) for code, own in members.items()}


@pytest.mark.parametrize(
    ("minus", "right"),
    [
        ("none", {"en": {0, 1, 2}, "fr": {0, 1, 3, 4}, "de": {0, 4}}),
        ("common", {"en": {1, 2}, "fr": {1, 3, 4}, "de": {4}}),
        ("english", {"en": {0, 1, 2}, "fr": {3, 4}, "de": {4}}),
        ("others", {"en": {2}, "fr": {3}, "de": set()}),
    ],
)
def test_what_is_specific_to_a_language(minus: Any, right: dict[str, set[int]]) -> None:
    found = specific(_toy(), minus=minus)
    assert {code: {index for _, _, index in own} for code, own in found.items()} == right
    assert all(own.shapes == {"ffn": (1, 6)} for own in found.values())


def test_the_released_rule_is_the_default() -> None:
    """Minus what all share - an English neuron stays unless every language has it."""
    assert specific(_toy()) == specific(_toy(), minus="common")
    assert ("ffn", 0, 1) in specific(_toy())["fr"]


@given(seed=st.integers(0, 999), languages=st.integers(2, 5))
def test_specific_sets_are_plain_set_algebra(seed: int, languages: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = ["en", "fr", "de", "ru", "zh"][:languages]
    sets = {c: NeuronSet({"ffn": torch.rand(2, 9, generator=generator) < 0.6}) for c in codes}
    plain = {c: _as_set(own) for c, own in sets.items()}
    common = set.intersection(*plain.values())
    assert {c: _as_set(own) for c, own in specific(sets).items()} == {c: own - common for c, own in plain.items()}
    for c, own in specific(sets, minus="others").items():
        assert _as_set(own) == plain[c] - set().union(*(plain[o] for o in codes if o != c))
        assert own <= specific(sets)[c] <= sets[c]


@pytest.fixture(scope="module")
def halves(polyglot: Any) -> dict[str, Importances]:
    """FFN, v and z importances of the even and the odd documents of French and of Chinese."""
    corpora = load_corpora(languages=["fr", "zh"], limit=8)
    parts = {
        f"{code}{odd}": Corpus(code, corpus.texts[odd::2], corpus.ids[odd::2])
        for code, corpus in corpora.items()
        for odd in (0, 1)
    }
    with pytest.warns(UserWarning, match="were truncated"):
        return dict(measure(polyglot, parts, importances(sites=("ffn", "v", "z"), length=48), progress=False))


def _own_share(halves: dict[str, Importances], a: str, b: str) -> list[float]:
    """Share of each set that the other does not have."""
    sets = plnd({"a": halves[a], "b": halves[b]})
    own = specific(sets, minus="others")
    return [len(own[name]) / len(sets[name]) for name in sets]


def test_two_languages_have_neurons_of_their_own(halves: dict[str, Importances]) -> None:
    for odd in "01":
        assert min(_own_share(halves, f"fr{odd}", f"zh{odd}")) > 0.75


def test_one_language_under_two_labels_has_few(halves: dict[str, Importances]) -> None:
    """The negative control: what two halves of a language do not share is sampling, far less than what two languages do not."""
    for code in ("fr", "zh"):
        shuffled = np.mean(_own_share(halves, f"{code}0", f"{code}1"))
        real = min(np.mean(_own_share(halves, f"fr{odd}", f"zh{odd}")) for odd in "01")
        assert shuffled < 0.6
        assert shuffled < 0.7 * real


def test_the_same_documents_under_two_labels_have_none(halves: dict[str, Importances]) -> None:
    assert _own_share(halves, "fr0", "fr0") == [0.0, 0.0]
    assert not any(specific(plnd({"a": halves["fr0"], "b": halves["fr0"]})).values())


# ---------------------------------------------------------------- refusals


def _untyped(function: Any) -> Any:
    """The function as it runs outside the tests, where no annotation is checked."""
    return getattr(function, "__wrapped__", function)


def test_unknown_names_are_refused(llama: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown measure 'outputs': choose from output, attention, released"):
        _untyped(neuron_importance)(llama, document(), measure="outputs")
    with pytest.raises(ValueError, match=r"unknown site 'up': choose from q, k, v, z, ffn"):
        _untyped(neuron_importance)(llama, document(), sites=["q", "up"])
    with pytest.raises(ValueError, match=r"unknown site 'resid_pre'"):
        _untyped(neuron_importance)(llama, document(), sites="resid_pre")
    with pytest.raises(ValueError, match=r"no site given"):
        _untyped(neuron_importance)(llama, document(), sites=[])
    with pytest.raises(ValueError, match=r"unknown exact='maybe': choose from always, where_needed, never"):
        _untyped(neuron_importance)(llama, document(), exact="maybe")


def test_first_order_is_for_the_attention_measure(llama: Any) -> None:
    for m in ("output", "released"):
        with pytest.raises(ValueError, match=rf"exact='never' is defined for measure='attention'.*not for '{m}'"):
            neuron_importance(llama, document(), measure=m, exact="never")


def test_where_needed_must_know_the_cut(llama: Any) -> None:
    with pytest.raises(ValueError, match=r"must know the cut: give top"):
        neuron_importance(llama, document(), measure="attention", exact="where_needed")
    with pytest.raises(ValueError, match=r"top gives no share for site 'q': it has \['ffn'\]"):
        neuron_importance(llama, document(), measure="attention", exact="where_needed", top={"ffn": 0.1})


@pytest.mark.parametrize("top", [0.0, 1.0, 1.5, -0.1])
def test_a_top_that_is_no_share_is_refused(llama: Any, top: float) -> None:
    with pytest.raises(ValueError, match="is not a share of a layer's units"):
        neuron_importance(llama, document(), measure="attention", exact="where_needed", top=top)
    with pytest.raises(ValueError, match="is not a share of a layer's units"):
        importances(top=top)(llama, Tokens(document(), torch.ones(1, 11, dtype=torch.bool)))


def test_a_top_that_selects_everything_is_refused(llama: Any) -> None:
    with pytest.raises(ValueError, match="selects all 16 units of a layer"):
        importances(sites=("k",), top=0.99)(llama, Tokens(document(), torch.ones(1, 11, dtype=torch.bool)))
    with pytest.raises(ValueError, match="selects all 16 units of a layer"):
        neuron_importance(llama, document(), measure="attention", sites="k", exact="where_needed", top=0.99)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("measure", "x", "unknown measure 'x'"),
        ("sites", ("x",), "unknown site 'x'"),
        ("exact", "x", "unknown exact='x'"),
        ("exact", "never", "exact='never' is defined for measure='attention'"),
        ("top", {"ffn": 0.1}, r"top gives no share for site 'q': it has \['ffn'\]"),
    ],
)
def test_a_statistic_checks_its_parameters_before_any_document(field: str, value: Any, message: str) -> None:
    statistic = importances()
    object.__setattr__(statistic, field, value)  # past the annotations, which only tests check
    with pytest.raises(ValueError, match=message):
        statistic.__post_init__()


@pytest.mark.parametrize("ask", [neuron_importance, importances()])
def test_a_batch_of_two_is_refused(llama: Any, ask: Any) -> None:
    ids = document().repeat(2, 1)
    args = (Tokens(ids, torch.ones_like(ids, dtype=torch.bool)), llama)
    with pytest.raises(ValueError, match=r"one document, got a batch of 2: pass tokens.row\(i\), or measure"):
        ask(args[1], args[0])


@pytest.mark.parametrize("tokens", [torch.zeros(1, 4), torch.zeros(4, dtype=torch.long)])
def test_what_are_no_ids_is_refused(llama: Any, tokens: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected Tokens or an integer tensor"):
        neuron_importance(llama, tokens)


_NAN = [
    ("self_attn.q_proj", "activation at site 'q'"), ("self_attn.k_proj", "activation at site 'k'"),
    ("self_attn.v_proj", "activation at site 'v'"), ("mlp.up_proj", "activation at site 'ffn'"),
    ("mlp.down_proj", "importance at site 'ffn'"), ("self_attn.o_proj", "(importance|activation) at site '(z|ffn)'"),
]  # fmt: skip


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("projection", "where"), _NAN)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_named(layer: int, projection: str, where: str, value: float) -> None:
    """Also in the last layer's W_down, behind which no activation of the model lies."""
    hf = families.hf_model("llama")
    module = oracles.hf_blocks(hf)[layer].get_submodule(projection)
    with torch.no_grad():
        module.weight[3, 2] = value
    model = load_model(hf, tokenizer=families.tokenizer())
    with pytest.raises(ValueError, match=rf"NaN or infinite {where} of layer {layer}"):
        neuron_importance(model, document())


def test_a_broken_output_matrix_of_the_last_layer_is_named() -> None:
    hf = families.hf_model("llama")
    with torch.no_grad():
        oracles.o_projection(hf, 1).weight[2, 9] = float("nan")
    model = load_model(hf, tokenizer=families.tokenizer())
    with pytest.raises(ValueError, match=r"NaN or infinite importance at site 'z' of layer 1 \(1 units, first 9\)"):
        neuron_importance(model, document(), sites=("z",))


@pytest.mark.parametrize("measure_", ["output", "attention", "released"])
def test_a_mixture_of_experts_has_no_ffn_site_but_attention(measure_: Any) -> None:
    model = pair("mixtral")[0]
    with pytest.raises(
        NotImplementedError, match=r"layer 0 is a mixture of experts.*Use the attention sites q, k, v, z"
    ):
        neuron_importance(model, document(), measure=measure_)
    found = neuron_importance(model, document(), measure=measure_, sites=("q", "k", "v", "z"))
    assert {site: tuple(s.shape) for site, s in found.items()} == {
        "q": (2, 32),
        "k": (2, 16),
        "v": (2, 16),
        "z": (2, 32),
    }


def test_the_attention_of_a_mixture_of_experts_is_ablation() -> None:
    model, plain = pair("mixtral")
    ids = document(9)
    found = neuron_importance(model, ids, sites=("q", "k", "v", "z"))
    for layer in (0, 1):
        seen = _observe_attention(plain, ids, layer)
        for site in ("q", "k", "v", "z"):
            for unit in range(layer, found[site].shape[1], 5):
                with oracles.zeroed(oracles.slices(plain, site, layer, unit)):
                    right = float((_observe_attention(plain, ids, layer) - seen).norm())
                assert_importance(float(found[site][layer, unit]), right, float(found[site][layer].max()))


def _observe_attention(plain: Any, ids: torch.Tensor, layer: int) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    handle = oracles.o_projection(plain, layer).register_forward_hook(
        lambda module, args, out: kept.append(out.detach().clone())
    )
    with torch.no_grad():
        plain(ids)
    handle.remove()
    return kept[0]


def test_an_attention_that_is_not_reproduced_is_refused(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its q and k would be wrong; the FFN, which does not depend on it, still works."""
    original = llama.blocks[1].attn.original_component
    from mwork_lens.detect import plnd as module

    right = module.of_layer
    monkeypatch.setattr(
        module, "of_layer",
        lambda model, layer, seen: right(model, layer, {**seen, "v": 2 * seen["v"]} if layer == 1 else seen),
    )  # fmt: skip
    with pytest.raises(NotImplementedError, match=rf"layer 1 \({type(original).__name__}\) is not reproduced"):
        neuron_importance(llama, document())
    assert set(neuron_importance(llama, document(), sites="ffn")) == {"ffn"}


@pytest.mark.parametrize("consensus", [0.0, -1.0, 1.01, 95.0])
def test_a_consensus_that_is_no_share_is_refused(consensus: float) -> None:
    with pytest.raises(ValueError, match=r"is not a share of documents: give a number above 0 and at most 1"):
        plnd({}, consensus=consensus)


def test_two_criteria_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold is Eq. 2.*leave consensus at 1.0"):
        plnd({}, consensus=0.5, threshold=1.0)


def test_a_language_without_documents_is_refused() -> None:
    seen = replace(_sum([{"ffn": torch.ones(1, 4)}], {"ffn": 0.5}), documents=torch.tensor(0))
    with pytest.raises(ValueError, match="no document of 'fr' was measured"):
        plnd({"fr": seen})


def test_specific_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"unknown minus='all': choose from common, english, others, none"):
        _untyped(specific)(_toy(), minus="all")
    with pytest.raises(ValueError, match=r"needs another to compare with: got only \['fr'\]"):
        specific({"fr": _toy()["fr"]})
    with pytest.raises(ValueError, match=r"minus='english' needs the set of 'en': there are fr, de"):
        specific({code: own for code, own in _toy().items() if code != "en"}, minus="english")
    assert specific({"fr": _toy()["fr"]}, minus="none")["fr"] == _toy()["fr"]
