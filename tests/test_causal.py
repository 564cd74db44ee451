"""Exhaustive ablation against brute force through `deactivate`, on the families whose blocks differ most; interruption, padding and stacking."""

import families
import pytest
import torch
from conftest import pair
from hypothesis import given, settings
from hypothesis import strategies as st

import mwork_lens.ablation as ablation
from mwork_lens.ablation import Stacked, stacked
from mwork_lens.causal import Effects, ablation_effects, plan
from mwork_lens.corpora import Corpus, Tokens, pad
from mwork_lens.edits import applied
from mwork_lens.evaluate import document_nll, prepare
from mwork_lens.interventions import deactivate, scale
from mwork_lens.models import load_model
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import NEURON_SITES, n_layers, shape_of

WAYS = {"llama": "fused", "qwen3": "fused", "olmo2": "shared", "gpt2": "hooks", "xglm": "hooks", "gemma2": "hooks"}


def batch(*lengths, seed=0, name="d"):
    generator = torch.Generator().manual_seed(seed)
    rows = [[1, *torch.randint(4, families.VOCAB, (n,), generator=generator).tolist()] for n in lengths]
    return pad(rows, "en", [f"{name}{i}" for i in range(len(lengths))], bos=1)


def answers(tokens, *counts):
    """The same batch with only the last tokens of each document scored."""
    keep = torch.zeros_like(tokens.keep)
    for row, count in enumerate(counts):
        end = int(tokens.mask[row].sum())
        keep[row, end - count : end] = True
    return Tokens(tokens.ids, keep, tokens.language, tokens.attention_mask, tokens.documents)


def brute(model, tokens, site, layer, unit):
    """One neuron off."""
    with deactivate(model, NeuronSet.of([(site, layer, unit)], shape_of(model, [site]))):
        without = document_nll(model, tokens)
    return without - document_nll(model, tokens)


@pytest.mark.parametrize("family", WAYS)
def test_it_is_brute_force_deactivation(family):
    model, _ = pair(family)
    texts = {"en": [batch(7, 4)], "de": [answers(batch(9, 6, seed=1), 2, 1)]}
    found = ablation_effects(model, texts, size=4, stack=700, progress=False)
    assert found.documents == ("d0", "d1", "d0", "d1")
    assert found.groups == ("en", "en", "de", "de")
    assert found.tokens.tolist() == [7, 4, 2, 1]
    for site in NEURON_SITES:
        assert found.effect[site].shape == (*shape_of(model)[site], 4)
        assert found.effect[site].isfinite().all()
        for layer, unit in ((0, 3), (1, 5)):
            expected = torch.cat([brute(model, batches[0], site, layer, unit) for batches in texts.values()])
            torch.testing.assert_close(found.effect[site][layer, unit], expected, rtol=1e-3, atol=1e-4)
    # the negative control: another unit's effects are others
    wrong = torch.cat([brute(model, batches[0], "ffn", 0, 4) for batches in texts.values()])
    assert not torch.allclose(found.effect["ffn"][0, 3], wrong, atol=1e-3)


@pytest.mark.parametrize(("family", "way"), WAYS.items())
def test_the_fastest_way_that_agrees_is_taken(family, way):
    model, _ = pair(family)
    assert stacked(model, batch(8, 5), NEURON_SITES, [0, 1]).path == way


@settings(max_examples=5)
@given(st.permutations(range(4)), st.integers(1, 4), st.sampled_from([1, 40, 500]), st.sampled_from(["llama", "gpt2"]))
def test_order_batches_padding_and_stacking_change_nothing(order, size, stack, family):
    model, _ = pair(family)
    whole = batch(7, 3, 9, 5)
    texts = {"en": [whole.row(i) for i in order]}
    found = ablation_effects(model, texts, sites=["k"], layers=[1], size=size, stack=stack, progress=False)
    expected = reference(family)
    torch.testing.assert_close(found.effect["k"][1], expected.effect["k"][1][:, list(order)], rtol=0, atol=1e-4)
    assert found.documents == tuple(f"d{i}" for i in order)


def reference(family, known={}):  # noqa: B006  # computed once
    if family not in known:
        model, _ = pair(family)
        texts = {"en": [batch(7, 3, 9, 5)]}
        known[family] = ablation_effects(model, texts, sites=["k"], layers=[1], size=4, progress=False)
    return known[family]


def corpora():
    return {
        "en": Corpus("en", ("w1 w2 w3 w4", "w9 w8 w3")),
        "de": Corpus("de", ("w41 w42", "w50 w51 w52 w53 w54")),
    }


def test_corpora_and_prepared_texts_are_the_same(llama):
    one = ablation_effects(llama, corpora(), sites=["q"], progress=False)
    two = ablation_effects(llama, prepare(llama, corpora(), size=2), sites=["q"], progress=False)
    assert one.groups == two.groups == ("en", "en", "de", "de")
    assert torch.equal(one.effect["q"], two.effect["q"])
    assert one.tokens.tolist() == [4, 3, 2, 5]
    torch.testing.assert_close(one.baseline, torch.tensor(prepare(llama, corpora()).scores(llama)), rtol=1e-5, atol=0)


def test_an_interrupted_run_continues_to_the_identical_table(llama, tmp_path, monkeypatch):
    whole = ablation_effects(llama, corpora(), progress=False)
    real, calls = Stacked.ablate, []

    def until(self, tokens, site, layer, units, **options):
        calls.append((site, layer))
        if (site, layer) == ("z", 1):
            raise KeyboardInterrupt
        return real(self, tokens, site, layer, units, **options)

    ways = stacked(llama, batch(8), ["q"], [0])
    monkeypatch.setattr("mwork_lens.causal.stacked", lambda *_: ways)
    monkeypatch.setattr(Stacked, "ablate", until)
    with pytest.raises(KeyboardInterrupt):
        ablation_effects(llama, corpora(), out=tmp_path / "a", progress=False)
    with pytest.raises(FileExistsError, match="pass resume=True"):
        ablation_effects(llama, corpora(), out=tmp_path / "a", progress=False)
    files = sorted(path.name for path in (tmp_path / "a").glob("*.parquet"))
    assert len(files) == 8
    calls.clear()
    monkeypatch.setattr(Stacked, "ablate", lambda *a, **k: calls.append(a[2:4]) or real(*a, **k))
    again = ablation_effects(llama, corpora(), out=tmp_path / "a", resume=True, progress=False)
    assert set(calls) == {("z", 1), ("ffn", 1)}
    for site in NEURON_SITES:
        assert torch.equal(again.effect[site], whole.effect[site])
    (tmp_path / "a" / files[0]).write_bytes(b"half")
    with pytest.warns(UserWarning, match="cannot be used .* ablating these neurons again"):
        mended = ablation_effects(llama, corpora(), out=tmp_path / "a", resume=True, progress=False)
    assert all(torch.equal(mended.effect[site], whole.effect[site]) for site in NEURON_SITES)
    with pytest.raises(FileExistsError, match=r"another run .*stack"):
        ablation_effects(llama, corpora(), out=tmp_path / "a", stack=64, resume=True, progress=False)


def test_edits_in_force_apply(llama):
    edit = scale(NeuronSet.of([("ffn", 0, 1)], shape_of(llama)), 3.0)
    tokens = batch(6)
    with applied(llama, edit):
        found = ablation_effects(llama, {"en": [tokens]}, sites=["v"], layers=[1], progress=False)
        base = document_nll(llama, tokens)
        with deactivate(llama, NeuronSet.of([("v", 1, 2)], shape_of(llama))):
            expected = document_nll(llama, tokens) - base
    plain = ablation_effects(llama, {"en": [tokens]}, sites=["v"], layers=[1], progress=False)
    torch.testing.assert_close(found.effect["v"][1, 2], expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found.effect["v"][1], plain.effect["v"][1], atol=1e-3)
    assert plain.effect["v"][0].isnan().all()  # not measured


def test_effects_under_other_edits_are_not_read_back(llama, tmp_path):
    def run():
        return ablation_effects(
            llama, {"en": [batch(6)]}, sites=["v"], layers=[1], out=tmp_path, resume=True, progress=False
        )

    first = run()
    assert torch.equal(run().effect["v"][1], first.effect["v"][1])
    with (
        applied(llama, scale(NeuronSet.of([("ffn", 0, 1)], shape_of(llama)), 3.0)),
        pytest.raises(FileExistsError, match=r"another run .*state"),
    ):
        run()


def test_the_model_is_left_as_it_was(llama):
    tokens = batch(6)
    before = document_nll(llama, tokens)
    ablation_effects(llama, {"en": [tokens]}, sites=["q", "ffn"], progress=False)
    assert torch.equal(document_nll(llama, tokens), before)
    assert not any("forward" in vars(block) for block in llama.blocks)
    assert not any(point.fwd_hooks for point in llama.hook_dict.values())


def test_a_way_that_is_wrong_is_not_taken(monkeypatch):
    model, _ = pair("llama")
    real = ablation._off
    monkeypatch.setattr(ablation, "_off", lambda units, n: real((units + 1) % 16, n))
    with pytest.raises(RuntimeError, match=r"does not agree with deactivate.*fused: q\[0\] is off by .*plain: q\[0\]"):
        stacked(model, batch(8, 5), ["q"], [0, 1])
    monkeypatch.undo()
    monkeypatch.setattr(ablation, "_skipping", broken)
    assert stacked(model, batch(8, 5), ["q"], [0, 1]).path == "plain"


def test_effects_too_small_to_tell_do_not_make_an_ffn_neuron_a_rank_one_change(monkeypatch):
    model, _ = pair("llama")
    real = ablation._checks

    def small(*args):
        return {
            key: (units, base + 1e-5 * (truth - base).sign(), base) for key, (units, truth, base) in real(*args).items()
        }

    monkeypatch.setattr(ablation, "_checks", small)
    monkeypatch.setattr(
        Stacked, "ablate", lambda self, tokens, site, layer, units, **_: self.baseline(tokens).repeat(len(units), 1)
    )
    assert stacked(model, batch(8, 5), ["ffn"], [0, 1]).path == "shared"
    assert stacked(model, batch(8, 5), ["q"], [0, 1]).path == "fused"


def broken(skipped, hidden, rest):
    if skipped or hidden is not None:
        raise RuntimeError("these blocks cannot be skipped")
    return ablation.nullcontext()


def test_the_cost_is_said_in_advance(llama, capsys):
    texts = {"en": [batch(7, 4)], "de": [answers(batch(9), 2)]}
    cost = plan(llama, texts)
    widths = {site: shape[1] for site, shape in shape_of(llama).items()}
    tokens, depth = 8 + 5 + 10, n_layers(llama)
    assert (cost.neurons, cost.documents, cost.tokens) == (depth * sum(widths.values()), 3, tokens)
    assert cost.runs == tokens * sum(w * (depth - i - (s == "ffn")) for s, w in widths.items() for i in range(depth))
    short = plan(llama, {"de": [answers(batch(9), 9)]}, sites=["q"], layers=[1])
    assert (short.neurons, short.tokens, short.runs) == (widths["q"], 10, widths["q"] * 10)
    assert f"{cost.neurons:,} neurons" in str(cost)
    ablation_effects(llama, texts, sites=["k"], layers=[0])
    assert "single-neuron ablation through fused: 16 neurons" in capsys.readouterr().out


def effects():
    value = torch.arange(12, dtype=torch.double).reshape(1, 3, 4)
    groups = ("en/a", "en/b", "de/a", "de/a")
    return Effects({"q": value}, ("x", "y", "x", "y"), groups, torch.tensor([1, 3, 2, 2]), torch.ones(4).double())


def test_means_are_ratios_of_sums():
    by_language = effects().regroup(lambda name: name.split("/")[0])
    assert by_language.groups == ("en", "en", "de", "de")
    assert by_language.documents == ("a/x", "b/y", "a/x", "a/y")
    mean = by_language.per_token()
    torch.testing.assert_close(mean["en"]["q"][0], torch.tensor([1 / 4, 9 / 4, 17 / 4], dtype=torch.double))
    weights = {"en": torch.tensor([2.0, 0.0]), "de": torch.tensor([1.0, 1.0])}
    torch.testing.assert_close(by_language.per_token(weights)["en"]["q"][0], torch.tensor([0.0, 4.0, 8.0]).double())
    some = effects().regroup(lambda name: name if name.endswith("/a") else None)
    assert some.groups == ("en/a", "de/a", "de/a")
    assert some.documents == ("x", "x", "y")
    renamed = effects().regroup({"en/a": "English", "en/b": "English", "de/a": "German"}.get)
    assert renamed.documents == ("en/a/x", "en/b/y", "x", "y")
    with pytest.raises(ValueError, match="no document is left: the groups were en/a, en/b, de/a"):
        effects().regroup(lambda name: None)


def test_it_goes_through_its_tensors():
    one = effects()
    two = Effects.from_tensors(*one.to_tensors())
    assert torch.equal(one.effect["q"], two.effect["q"])
    assert (one.documents, one.groups, one.model) == (two.documents, two.groups, two.model)


def test_bad_input(llama, monkeypatch):
    def run(texts, **options):
        return ablation_effects(llama, texts, progress=False, **options)

    tokens = batch(5)
    silent = Tokens(tokens.ids, torch.zeros_like(tokens.keep), "en", None, ("d0",))
    with pytest.raises(
        ValueError, match="document en/d0 has no scored token: remove it, or keep the tokens of its answer"
    ):
        run({"en": [silent]})
    with pytest.raises(ValueError, match="group 'en' has two documents named 'd0'"):
        run({"en": [tokens, tokens]})
    with pytest.raises(ValueError, match="no documents to score"):
        run({"en": []})
    with pytest.raises(ValueError, match=r"layer 7 does not exist: this model has layers 0\.\.1"):
        run({"en": [tokens]}, layers=[7])
    with pytest.raises(ValueError, match=r"no layer given: choose from 0\.\.1"):
        run({"en": [tokens]}, layers=[])
    with pytest.raises(ValueError, match="unknown site 'resid_post'"):
        run({"en": [tokens]}, sites=["resid_post"])
    with pytest.raises(ValueError, match="stack=0 must be at least 1"):
        run({"en": [tokens]}, stack=0)
    monkeypatch.setattr(llama.cfg, "architecture", "BertForMaskedLM")
    with pytest.raises(ValueError, match="BertForMaskedLM sees the tokens it predicts"):
        run({"en": [tokens]})


def test_half_precision_is_refused():
    half = load_model(families.hf_model("llama").bfloat16(), tokenizer=families.tokenizer())
    with pytest.raises(
        ValueError, match=r"effect of one neuron is lost in bfloat16: load the model with dtype='float32'"
    ):
        ablation_effects(half, {"en": [batch(4)]})


def test_experts_have_no_ffn_neurons():
    model = load_model(families.hf_model("mixtral"), tokenizer=families.tokenizer())
    with pytest.raises(NotImplementedError, match="mixture of experts"):
        ablation_effects(model, {"en": [batch(4)]}, progress=False)
    found = ablation_effects(model, {"en": [batch(4)]}, sites=["v"], layers=[1], progress=False)
    torch.testing.assert_close(found.effect["v"][1, 3], brute(model, batch(4), "v", 1, 3), rtol=1e-3, atol=1e-4)
