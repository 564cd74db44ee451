"""The sliced model is the masked model, on every family, in memory and from a folder."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from conftest import document, pair
from families import CONFIGS, hf_model, tokenizer
from hypothesis import given
from hypothesis import strategies as st
from oracles import down_projection, hf_blocks

from mwork_lens.experts import slicing
from mwork_lens.experts.partition import Partition
from mwork_lens.experts.pruning import flops, masked
from mwork_lens.experts.slicing import TIMES, export, ffn_widths, sliced, tokens_per_second
from mwork_lens.interventions import deactivate
from mwork_lens.models import fingerprint, load_model, resolve
from mwork_lens.neurons import NeuronSet


def stripes(model: Any, experts: int = 5) -> Partition:
    """Unit j of layer l belongs to expert (j + l) % experts: sizes differ by one where they must."""
    layers, width = len(model.blocks), model.blocks[0].mlp.W_out.shape[0]
    labels = torch.stack([(torch.arange(width) + layer) % experts for layer in range(layers)])
    return Partition(
        labels=labels,
        experts=experts,
        weights="gate",
        method="stripes",
        seed=0,
        backend="none",
        model=fingerprint(model),
    )


KEEP = torch.tensor([[True, False, True, False, False], [False, True, True, True, True]])


def run(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out = model(ids)
    return getattr(out, "logits", out)


def test_the_slice_is_the_mask(any_family):
    name, model, plain = any_family
    partition, ids = stripes(model), document()
    whole = run(model, ids)
    cut = sliced(model, partition, KEEP)
    with masked(model, partition, KEEP):
        expected = run(model, ids)
    torch.testing.assert_close(run(cut, ids), expected, rtol=1e-5, atol=1e-5)
    assert (expected - whole).abs().max() > 1e-2
    assert torch.equal(run(model, ids), whole)
    sizes = [int((KEEP[layer][partition.labels[layer]]).sum()) for layer in range(2)]
    assert list(ffn_widths(cut)) == sizes
    for layer, size in enumerate(sizes):  # really fewer rows and columns
        down = down_projection(cut, layer).weight
        assert sorted(down.shape) == sorted((32, size))
    width = 128 if name == "bloom" else 44
    theirs = dict(plain.named_parameters())
    for place, mine in cut.named_parameters():  # nothing else changed
        if mine.shape == theirs[place].shape:
            assert torch.equal(mine, theirs[place])
        else:
            assert {width, 2 * width} & set(theirs[place].shape)


@given(st.integers(0, 10_000), st.integers(1, 44))
def test_the_slice_is_the_mask_of_any_partition(seed, experts):
    model, generator = pair("llama")[0], torch.Generator().manual_seed(seed)
    labels = torch.randint(0, experts, (2, 44), generator=generator)
    partition = Partition(labels, experts, model=fingerprint(model))
    keep = torch.rand(2, experts, generator=generator) < 0.6
    keep[0, 0] = True
    cut = sliced(model, partition, keep)
    if bool((~keep).gather(1, labels).any()):
        with masked(model, partition, keep):
            expected = run(model, document(seed=seed))
    else:
        expected = run(model, document(seed=seed))
    torch.testing.assert_close(run(cut, document(seed=seed)), expected, rtol=1e-5, atol=1e-5)
    gates = [block.mlp.gate_proj.weight for block in cut.model.layers]
    for layer, gate in enumerate(gates):  # rows in their old order
        rows = [unit for unit in range(44) if keep[layer, labels[layer, unit]]]
        expected_rows = model.blocks[layer].mlp.W_gate.T[rows] if rows else torch.zeros(1, 32)
        assert torch.equal(gate, expected_rows)


def test_keeping_everything_is_the_plain_model(any_family):
    _, model, plain = any_family
    cut = sliced(model, stripes(model), torch.ones(2, 5, dtype=torch.bool))
    assert torch.equal(run(cut, document()), run(plain, document()))
    mine, theirs = dict(cut.named_parameters()), dict(plain.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    original = {p.data_ptr() for p in model.parameters()}
    assert not any(p.data_ptr() in original for p in cut.parameters())  # weights of its own


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "bloom", "xglm"])
def test_a_layer_may_lose_its_ffn(family):
    model = pair(family)[0]
    keep = torch.tensor([[False] * 5, [True, False, True, True, True]])
    cut = sliced(model, stripes(model), keep)
    assert ffn_widths(cut)[0] == 1
    assert not down_projection(cut, 0).weight.any()
    with masked(model, stripes(model), keep):
        expected = run(model, document())
    torch.testing.assert_close(run(cut, document()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", [name for name in CONFIGS if name != "bloom"])
def test_a_folder_loads_back(family, tmp_path):
    model = pair(family)[0]
    cut = sliced(model, stripes(model), KEEP)
    folder = export(cut, tmp_path / "pruned", tokenizer())
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    back = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = document()
    torch.testing.assert_close(run(back, ids), run(cut, ids), rtol=1e-5, atol=1e-5)
    assert ffn_widths(back) == (max(ffn_widths(cut)),) * 2
    assert PreTrainedTokenizerFast.from_pretrained(folder)("w3 w4")["input_ids"] == [1, 7, 8]
    assert [path.name for path in tmp_path.iterdir()] == ["pruned"]
    assert list(ffn_widths(cut)) != list(ffn_widths(back))  # the original stays as narrow as it was


def test_the_folder_is_smaller_than_the_unpruned_one_and_load_model_reads_it(tmp_path):
    model = pair("llama")[0]
    weights = lambda folder: (folder / "model.safetensors").stat().st_size  # noqa: E731
    everything = sliced(model, stripes(model), torch.ones(2, 5, dtype=torch.bool))
    whole = export(everything, tmp_path / "whole", tokenizer())
    cut = sliced(model, stripes(model), KEEP)
    small = export(cut, tmp_path / "small", tokenizer())
    dropped = 2 * (44 - max(ffn_widths(cut))) * 3 * 32 * 4  # bytes
    assert dropped > 0
    assert weights(whole) - weights(small) == pytest.approx(dropped, abs=200)  # a header says the shapes
    again = load_model(small)
    torch.testing.assert_close(run(again, document()), run(cut, document()), rtol=1e-5, atol=1e-5)


def test_the_embedded_model_is_cut_and_written(polyglot, tmp_path):
    partition = stripes(polyglot, 43)
    keep = (torch.arange(8)[:, None] + torch.arange(43)[None]) % 4 > 0
    cut = sliced(polyglot, partition, keep, attention="sdpa")
    folder = export(cut, tmp_path / "pruned", polyglot.tokenizer)
    text = "The kitchen is small."
    again = load_model(folder)
    ids = again.tokenizer(text, return_tensors="pt")["input_ids"]
    assert torch.equal(ids, polyglot.tokenizer(text, return_tensors="pt")["input_ids"])
    with masked(polyglot, partition, keep):
        expected = run(polyglot, ids)
    torch.testing.assert_close(run(again, ids), expected, rtol=1e-4, atol=1e-4)
    kept = json.loads((folder / "config.json").read_text())
    before = json.loads(Path(resolve("polyglot"), "config.json").read_text())
    changed = {name for name in {*kept, *before} - {"transformers_version"} if kept.get(name) != before.get(name)}
    assert changed == {"intermediate_size"}


def test_padding_units_are_zero(tmp_path):
    model = pair("llama_mha_bias")[0]
    cut = sliced(model, stripes(model), KEEP)
    back = load_model(export(cut, tmp_path / "pruned", tokenizer()))
    narrow, widest = ffn_widths(cut)
    mlp = back.blocks[0].mlp
    assert narrow < widest
    assert not mlp.W_out[narrow:].any()
    assert not mlp.W_in[:, narrow:].any()
    assert not mlp.b_in[narrow:].any()
    assert mlp.W_out[:narrow].abs().sum(1).min() > 0


def test_bloom_has_no_folder_of_another_width(tmp_path):
    model = pair("bloom")[0]
    with pytest.raises(NotImplementedError, match="FFNs of 128 units whatever its configuration says"):
        export(sliced(model, stripes(model), KEEP), tmp_path / "pruned", tokenizer())
    assert not list(tmp_path.iterdir())
    full = sliced(model, stripes(model), torch.ones(2, 5, dtype=torch.bool))
    assert (export(full, tmp_path / "whole", tokenizer()) / "model.safetensors").is_file()


def test_a_folder_that_holds_something_is_kept(tmp_path, llama):
    cut = sliced(llama, stripes(llama), KEEP)
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        export(cut, tmp_path, tokenizer())
    assert (tmp_path / "mine.txt").read_text() == "kept"
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        export(cut, tmp_path / "mine.txt", tokenizer())
    (tmp_path / "empty").mkdir()
    assert (export(cut, tmp_path / "empty", tokenizer()) / "config.json").is_file()


def test_a_folder_that_reads_back_wrong_is_not_left_behind(tmp_path, llama):
    cut = sliced(llama, stripes(llama), KEEP)
    broken = lambda tensor, dim, to: torch.nn.functional.pad(  # noqa: E731
        tensor.transpose(dim, -1), (0, to - tensor.shape[dim]), value=0.5
    ).transpose(dim, -1)
    with mock.patch.object(slicing, "wider", broken), pytest.raises(ValueError, match="reads back wrong"):
        export(cut, tmp_path / "pruned", tokenizer())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["bloom", "neox", "gpt2", "phi3"])
def test_edited_attention_weights_are_in_the_slice(family):
    model = load_model(hf_model(family, seed=3), tokenizer=tokenizer())
    before = run(model, document())
    with torch.no_grad():
        model.blocks[0].attn.q.weight.mul_(2.0)
        model.blocks[1].attn.v.weight.mul_(-1.0)
        if model.blocks[0].attn.k.bias is not None:
            model.blocks[0].attn.q.bias.add_(torch.linspace(0, 2, 32))
            model.blocks[0].attn.v.bias.mul_(3.0)
    assert (run(model, document()) - before).abs().max() > 1e-2
    partition = stripes(model)
    with masked(model, partition, KEEP):
        expected = run(model, document())
    torch.testing.assert_close(run(sliced(model, partition, KEEP), document()), expected, rtol=1e-5, atol=1e-5)


def test_a_slice_that_is_not_the_mask_is_refused(llama):
    partition = stripes(llama)
    some = NeuronSet.of([("resid_post", 0, 3)], {"resid_post": (2, 32)})
    with deactivate(llama, some), pytest.raises(ValueError, match="differs from the masked one"):
        sliced(llama, partition, KEEP)


def test_another_kernel(llama):
    cut = sliced(llama, stripes(llama), KEEP, attention="sdpa")
    assert cut.config._attn_implementation == "sdpa"
    with masked(llama, stripes(llama), KEEP):
        torch.testing.assert_close(run(cut, document()), run(llama, document()), rtol=1e-4, atol=1e-4)
    gemma = pair("gemma2")[0]
    with pytest.raises(ValueError, match="does not support an attention implementation"):
        sliced(gemma, stripes(gemma), KEEP, attention="sdpa")


def test_half_precision_stays_half(tmp_path):
    model = load_model(hf_model("llama", seed=1).to(torch.bfloat16), tokenizer=tokenizer())
    cut = sliced(model, stripes(model), KEEP)
    assert {p.dtype for p in cut.parameters()} == {torch.bfloat16}
    export(cut, tmp_path / "pruned", tokenizer())
    assert load_model(tmp_path / "pruned").W_E.dtype == torch.bfloat16


def test_mixtures_and_foreign_layouts_are_refused(llama):
    mixture = pair("mixtral")[0]
    with pytest.raises(NotImplementedError, match="mixture of experts"):
        sliced(mixture, stripes(llama), KEEP)
    with pytest.raises(NotImplementedError, match="laid out in a way that is not known"):
        ffn_widths(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    quantised = hf_model("llama")
    hf_blocks(quantised)[0].mlp.up_proj = type("Packed", (torch.nn.Linear,), {})(32, 44)
    with pytest.raises(NotImplementedError, match="laid out in a way that is not known"):
        ffn_widths(quantised)


def test_what_is_sliced_is_what_flops_count(llama):
    partition = stripes(llama)
    full, cut = (sliced(llama, partition, keep) for keep in (torch.ones_like(KEEP), KEEP))
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    cost = flops(llama, partition, KEEP)
    assert count(full) - count(cut) == sum(cost.ffn) - sum(cost.kept) > 0


def test_speed_is_compared_within_rounds():
    calls, clock = [], [0.0]
    seconds = {
        "slow": [9.0, 2.0, 2.0, 4.0, 8.0, 2.0],
        "fast": [9.0, 0.5, 1.0, 1.0, 2.0, 1.0],
    }  # the first is not counted

    def wait(name: str) -> Any:
        def call(tokens: torch.Tensor) -> None:
            assert not torch.is_grad_enabled()
            clock[0] += seconds[name][calls.count(name)]
            calls.append(name)

        return call

    ids = torch.zeros(2, 5, dtype=torch.long)
    with mock.patch.object(slicing.time, "perf_counter", side_effect=lambda: clock[0]):
        table = tokens_per_second({"slow": wait("slow"), "fast": wait("fast")}, ids, rounds=5)
    assert list(table.columns) == list(TIMES)
    assert calls == ["slow", "fast"] * 6
    assert table.to_numpy().tolist() == [["slow", 5.0, 1.0, 1.0, 1.0, 5], ["fast", 10.0, 4.0, 2.0, 4.0, 5]]
    for named, rounds, message in (({}, 5, "nothing to time"), ({"a": print}, 4, "fewer than 5")):
        with pytest.raises(ValueError, match=message):
            tokens_per_second(named, ids, rounds=rounds)
    with pytest.raises(ValueError, match="at least one token"):
        tokens_per_second({"a": print}, ids[:, :0])
