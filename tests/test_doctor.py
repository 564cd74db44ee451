"""The doctor says ok where all is well, limited where a method does not apply, failed where nothing should be measured."""

import sys

import families
import pytest
from conftest import pair
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration, set_seed

from mwork_lens.doctor import Check, doctor

ALL = [
    "loads offline",
    "tokens",
    "readout",
    "parity with Hugging Face",
    "batch equals single",
    "hook points",
    "attention is understood",
]


def by_name(checks):
    assert all(isinstance(check, Check) and check.detail for check in checks)
    return {check.name: check for check in checks}


def test_the_embedded_model_is_well():
    checks = doctor()
    assert [check.name for check in checks] == [*ALL, "memory, estimated"]
    assert {check.verdict for check in checks} == {"ok"}, checks
    found = by_name(checks)
    assert "8 layers" in found["loads offline"].detail
    assert "BOS first" in found["tokens"].detail
    assert "4 query and 2 key/value heads of 32, d_mlp 384" in found["hook points"].detail
    assert "weights 9.45 MB" in found["memory, estimated"].detail
    assert "of all 8 layers are reproduced" in found["attention is understood"].detail


def test_memory_grows_with_length():
    from mwork_lens.doctor import _bytes

    assert [_bytes(n) for n in (5, 5e3, 5.25e6, 5e9, 5e12)] == ["5 B", "5 kB", "5.25 MB", "5 GB", "5 TB"]


def test_a_mixture_of_experts_is_limited_to_its_attention():
    found = by_name(doctor(families.hf_model("mixtral"), tokenizer=families.tokenizer()))
    assert found["hook points"].verdict == "limited"
    assert "mixture of experts" in found["hook points"].detail
    assert "fire: q, k, v, z" in found["hook points"].detail
    assert {name: check.verdict for name, check in found.items() if name != "hook points"} == dict.fromkeys(
        [*(name for name in ALL if name != "hook points"), "memory, estimated"], "ok"
    )


def test_a_live_model_is_compared_with_itself_before():
    found = by_name(doctor(families.hf_model("llama"), tokenizer=families.tokenizer(), device="cpu"))
    assert {check.verdict for check in found.values()} == {"ok"}
    assert "largest difference of logits" in found["parity with Hugging Face"].detail


def test_a_loaded_model_has_nothing_to_be_compared_with(llama):
    found = by_name(doctor(llama))
    assert found["parity with Hugging Face"].verdict == "limited"
    assert "no plain model to compare with" in found["parity with Hugging Face"].detail


def test_delegated_attention_is_well_but_limited_nowhere_else():
    found = by_name(doctor(pair("xglm")[0]))
    assert found["batch equals single"].verdict == "ok"
    assert found["attention is understood"].verdict == "ok"


@pytest.mark.parametrize("where", ["nowhere/at/all", "/no/such/folder", "./gone"])
def test_a_path_that_does_not_exist_is_one_failed_check(where):
    (check,) = doctor(where)
    assert (check.name, check.verdict) == ("loads offline", "failed")
    assert check.detail.startswith("FileNotFoundError: no model folder")
    assert "check the path, or give a hub id" in check.detail


def test_a_folder_that_is_no_model_is_one_failed_check(tmp_path):
    (check,) = doctor(str(tmp_path))
    assert check.verdict == "failed"
    assert "holds no config.json: it is not a Hugging Face model folder" in check.detail


def test_a_model_that_is_not_here_is_not_fetched():
    (check,) = doctor("nobody/such-model")
    assert check.verdict == "failed"
    assert "cannot load model 'nobody/such-model'" in check.detail


def test_a_live_model_without_tokenizer_is_one_failed_check():
    (check,) = doctor(families.hf_model("llama"))
    assert check.verdict == "failed"
    assert "a live model comes with its tokenizer" in check.detail


def test_a_model_that_differs_from_its_plain_self_fails(llama, monkeypatch):
    module = sys.modules["mwork_lens.doctor"]
    other = families.hf_model("llama", seed=1)
    check = module._parity(llama, "x", other, {})
    assert check.verdict == "failed"
    assert module._parity(llama, "x", pair("llama")[1], {}).verdict == "ok"


def test_a_check_that_breaks_is_an_answer(llama, monkeypatch):
    def broken(model):
        raise ArithmeticError("no sum")

    monkeypatch.setattr(sys.modules["mwork_lens.doctor"], "_padding", broken)
    checks = doctor(llama)
    failed = [check for check in checks if check.verdict == "failed"]
    assert [(check.name, check.detail) for check in failed] == [("batch equals single", "ArithmeticError: no sum")]
    assert len(checks) == 8


def test_a_model_that_cannot_be_described_is_an_answer_too():
    set_seed(0)
    config = T5Config(
        vocab_size=families.VOCAB, d_model=32, d_kv=8, d_ff=44, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    found = by_name(doctor(T5ForConditionalGeneration(config).eval(), tokenizer=families.tokenizer(), device="cpu"))
    assert list(found) == [*ALL, "memory, estimated"]
    assert found["loads offline"].verdict == found["readout"].verdict == "failed"
    assert "ValueError" in found["loads offline"].detail


def test_an_encoder_has_no_readout():
    set_seed(0)
    config = BertConfig(
        vocab_size=families.VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=44,
        max_position_embeddings=families.CONTEXT, initializer_range=0.25,
    )  # fmt: skip
    found = by_name(doctor(BertForMaskedLM(config).eval(), tokenizer=families.tokenizer(), device="cpu"))
    assert found["readout"].verdict == "failed"
    assert "lens, evaluate and study need a causal decoder" in found["readout"].detail
    assert {name for name, check in found.items() if check.verdict == "failed"} == {"readout"}


def test_every_family_has_a_readout(any_family):
    assert sys.modules["mwork_lens.doctor"]._readout(any_family[1]).verdict == "ok"


def test_the_device_map_is_used_for_both_models(monkeypatch):
    from transformers import AutoModelForCausalLM

    maps = []
    real = AutoModelForCausalLM.from_pretrained

    def record(*args, **how):
        maps.append(how.get("device_map"))
        return real(*args, **how)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", record)
    found = by_name(doctor(device_map={"": "cpu"}))
    assert found["parity with Hugging Face"].verdict == "ok"
    assert maps == [{"": "cpu"}, {"": "cpu"}]
