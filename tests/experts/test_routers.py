"""The choices of a mixture of experts' own router, as a plain forward makes them."""

import families
import numpy as np
import pytest
import torch
from conftest import pair

from mwork_lens.corpora import Corpus
from mwork_lens.experts.frequencies import ExpertCounts
from mwork_lens.experts.routers import _count, routed_layers, router_counts
from mwork_lens.measure import measure
from mwork_lens.models import load_model
from mwork_lens.storage import Run, load, save
from mwork_lens.tokens import Tokens

TEXTS = ("w1 w2 w3 w4 w5 w6 w7", "w9 w8", "w20 w21 w22 w23 w24")
CORPORA = {"en": Corpus("en", TEXTS), "de": Corpus("de", ("w50 w51", "w52 w60 w61 w62"))}


def naive(plain, texts, top_k):
    """Experts chosen per layer, by softmax over router logits that a hook on the plain model's router saw; BOS left out."""
    blocks = plain.model.layers
    counts = [[0] * block.mlp.gate.weight.shape[0] for block in blocks]
    for text in texts:
        seen: dict = {}
        handles = [
            block.mlp.gate.register_forward_pre_hook(
                lambda _, args, i=i, seen=seen: seen.__setitem__(i, args[0].detach())
            )
            for i, block in enumerate(blocks)
        ]
        with torch.no_grad():
            plain(torch.tensor([families.tokenizer()(text)["input_ids"]]))
        for handle in handles:
            handle.remove()
        for i, block in enumerate(blocks):
            logits = seen[i].reshape(-1, seen[i].shape[-1]).double() @ block.mlp.gate.weight.detach().double().T
            for row in logits.tolist()[1:]:
                for expert in sorted(range(len(row)), key=lambda e: -row[e])[:top_k]:
                    counts[i][expert] += 1
    return counts


def qwen3_moe():
    """Layer 0 is dense, layers 1 and 2 are routed: an interleaved stack."""
    from transformers import Qwen3MoeConfig

    config = Qwen3MoeConfig(
        vocab_size=97, hidden_size=32, intermediate_size=44, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=12, max_position_embeddings=64, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12,
        mlp_only_layers=[0], bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return families.hf_model("", config=config)


def test_counts_are_the_choices_of_the_router():
    model, plain = pair("mixtral")
    measured = measure(model, CORPORA, router_counts(size=2), progress=False)
    for language, corpus in CORPORA.items():
        found = measured[language]
        np.testing.assert_array_equal(found.counts, naive(plain, corpus.texts, 2))
        assert found.selected == 4
        assert found.layers == (0, 1)
        assert int(found.tokens) == sum(len(text.split()) for text in corpus.texts)
    assert not torch.equal(measured["en"].frequency(), measured["de"].frequency())


@pytest.mark.parametrize("size", [1, 3])
def test_padding_and_batch_size_change_nothing_and_the_mean_is_exact(size):
    model = pair("mixtral")[0]
    reference = measure(model, CORPORA, router_counts(), progress=False)
    for language, found in measure(model, CORPORA, router_counts(size=size), progress=False).items():
        assert torch.equal(found.counts, reference[language].counts)
        assert int(found.counts.sum()) == 4 * int(found.tokens)
        assert abs(float(found.frequency().mean()) - 2 / 3) < 1e-12


def test_only_kept_tokens_count():
    model = pair("mixtral")[0]
    ids = torch.randint(4, 97, (2, 6), generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[0, 1, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]], dtype=torch.bool)
    found = router_counts()(model, Tokens(ids, keep))
    assert int(found.tokens) == 3
    assert (found.counts.sum(1) == 6).all()
    rest = router_counts()(model, Tokens(ids, ~keep))
    everything = router_counts()(model, Tokens(ids, torch.ones_like(keep)))
    assert torch.equal(found.counts + rest.counts, everything.counts)
    with pytest.raises(ValueError, match="this batch keeps no token"):
        router_counts()(model, Tokens(ids, torch.zeros_like(keep)))


def test_dense_layers_of_an_interleaved_stack_have_no_row():
    import oracles

    hf = qwen3_moe()
    plain = oracles.plain(hf)
    model = load_model(hf, tokenizer=families.tokenizer())
    found = measure(model, {"en": Corpus("en", TEXTS)}, router_counts(), progress=False)["en"]
    assert found.layers == routed_layers(model) == (1, 2)
    assert found.counts.shape == (2, 5)
    assert int(found.counts.sum()) == 4 * 14
    blocks = plain.model.layers
    seen = {}
    for i in (1, 2):
        blocks[i].mlp.gate.register_forward_hook(lambda _, args, out, i=i: seen.setdefault(i, []).append(out[2]))
    for text in TEXTS:
        with torch.no_grad():
            plain(torch.tensor([families.tokenizer()(text)["input_ids"]]))
    for row, i in enumerate((1, 2)):
        chosen = torch.cat([out.reshape(-1, 2)[1:] for out in seen[i]]).flatten().tolist()
        assert found.counts[row].tolist() == [chosen.count(e) for e in range(5)]


def test_counts_of_a_router_survive_the_disk_and_do_not_add_to_those_of_a_partition(tmp_path):
    model = pair("mixtral")[0]
    found = router_counts()(model, torch.tensor([[5, 6, 7]]))
    path = save(found, tmp_path / "counts.safetensors", Run("test"))
    again = load(path)
    assert torch.equal(again.counts, found.counts)
    assert (again.how, again.layers, again.partition) == ("router top_k=2", (0, 1), found.partition)
    other = ExpertCounts(found.counts, found.tokens, 4, how="score=sum", partition=found.partition, model=found.model)
    with pytest.raises(ValueError, match="selected differently"):
        _ = found + other


def test_a_dense_model_has_no_router():
    with pytest.raises(NotImplementedError, match="no layer of this model is a mixture of experts"):
        router_counts()(pair("llama")[0], torch.tensor([[5, 6]]))
    with pytest.raises(NotImplementedError, match="build a partition"):
        measure(pair("llama")[0], CORPORA, router_counts(), progress=False)


def test_choices_that_do_not_exist_and_bad_sizes_are_refused():
    assert _count(torch.tensor([[0, 2], [2, 1]]), 3, 4).tolist() == [1, 1, 2]
    with pytest.raises(ValueError, match="router of layer 4 chose expert 3 of 3"):
        _count(torch.tensor([[0, 3]]), 3, 4)
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        router_counts(size=0)
    assert router_counts(size=2).parameters() != router_counts(size=3).parameters()
