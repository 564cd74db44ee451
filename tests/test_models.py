"""Loading models without a network, and knowing exactly which one it is."""

import os

import families
import pytest
import torch
from conftest import document, pair
from tokenizers import processors

from mwork_lens.models import describe, fingerprint, load_model, resolve


@pytest.fixture
def live():
    """A fresh tiny Hugging Face model and its tokenizer, to be changed at will."""
    return families.hf_model("llama"), families.tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A local Hugging Face folder."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    families.hf_model("llama").save_pretrained(path)
    families.tokenizer().save_pretrained(path)
    return path


def logits(model):
    with torch.no_grad():
        out = model(document())
    return getattr(out, "logits", out)


# --- loading ---


def test_the_embedded_model_needs_no_network(polyglot):
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    facts = describe(polyglot)
    assert facts["name"] == "polyglot"
    assert facts["architecture"] == "LlamaForCausalLM"
    assert (facts["layers"], facts["dtype"], facts["revision"]) == (8, "float32", None)
    assert facts["parameters"] == sum(p.numel() for p in polyglot.parameters())
    assert facts["fingerprint"] == fingerprint(polyglot)
    assert not polyglot.training


def test_the_embedded_model_makes_no_connection(monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError(f"a connection was tried: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert fingerprint(load_model()) == fingerprint(load_model(resolve("organism")))
    assert fingerprint(load_model("polyglot")) == fingerprint(load_model(resolve("polyglot")))


def test_the_embedded_model_knows_its_languages(polyglot):
    """It was trained: real text is likelier than the same tokens shuffled."""
    for text in ("Das Haus steht am Ende der Straße.", "Дом стоит в конце улицы."):
        ids = torch.tensor(polyglot.tokenizer(text)["input_ids"])[None]
        assert ids[0, 0] == polyglot.tokenizer.bos_token_id

        def loss(ids):
            with torch.no_grad():
                return torch.nn.functional.cross_entropy(polyglot(ids)[0, :-1], ids[0, 1:]).item()

        order = torch.randperm(ids.shape[1] - 1, generator=torch.Generator().manual_seed(0)) + 1
        assert loss(ids) < loss(torch.cat((ids[:, :1], ids[:, order]), dim=1)) - 1


def test_a_local_folder(folder):
    plain = families.hf_model("llama")
    for name in (folder, str(folder)):
        model = load_model(name)
        torch.testing.assert_close(logits(model), logits(plain), rtol=0, atol=1e-6)
        assert describe(model)["name"] == str(folder)
        assert model.tokenizer("w0 w1")["input_ids"] == [1, 4, 5]
    assert fingerprint(load_model(folder)) == fingerprint(model)


def test_a_live_model_with_its_tokenizer(live):
    hf, tokenizer = live
    expected = logits(hf)
    model = load_model(hf, tokenizer=tokenizer)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-6)
    assert model.tokenizer("w0 w1")["input_ids"] == tokenizer("w0 w1")["input_ids"]
    assert not model.training
    assert load_model(model) is model  # loading a loaded model changes nothing


@pytest.mark.parametrize(
    "how", [{"tokenizer": families.tokenizer()}, {"revision": "main"}, {"dtype": "bfloat16"}, {"device": "cpu"}, {"device_map": "auto"}]
)  # fmt: skip
def test_a_loaded_model_takes_no_loading_options(how, llama):
    (option,) = how
    with pytest.raises(
        ValueError, match=f"a loaded model is taken as it is, without {option}: give them when it is loaded"
    ):
        load_model(llama, **how)


@pytest.fixture
def bare():
    """A tokenizer that has a BOS and does not put it in front."""
    tokenizer = families.tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return tokenizer


def test_a_given_tokenizer_is_taken_as_it_is_and_a_folders_own_begins_with_bos(live, bare, tmp_path):
    live[0].save_pretrained(tmp_path)
    bare.save_pretrained(tmp_path)
    first = [
        model.tokenizer("w0 w1")["input_ids"]
        for model in (load_model(tmp_path, tokenizer=bare), load_model(live[0], tokenizer=bare), load_model(tmp_path))
    ]
    assert first == [[4, 5], [4, 5], [1, 4, 5]]


def test_a_live_model_without_tokenizer_is_refused(live):
    with pytest.raises(
        ValueError, match=r"a live model comes with its tokenizer: load_model\(hf_model, tokenizer=tokenizer\)"
    ):
        load_model(live[0])


def test_the_users_tokenizer_is_not_changed(live):
    hf, tokenizer = live
    before = dict(tokenizer.init_kwargs)
    load_model(hf, tokenizer=tokenizer)
    assert tokenizer.init_kwargs == before


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_is_none_is_refused(name):
    with pytest.raises(
        FileNotFoundError, match=r"no model folder .*: check the path, or give a hub id such as 'org/model'"
    ):
        load_model(name)


def test_a_path_object_is_never_a_hub_id(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder"):
        resolve(tmp_path.relative_to(tmp_path) / "org" / "model")
    (tmp_path / "weights.bin").write_text("")
    with pytest.raises(FileNotFoundError, match="no model folder"):
        resolve(tmp_path / "weights.bin")
    assert resolve("org/model") == "org/model"


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config.json: it is not a Hugging Face model folder"):
        load_model(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    families.hf_model("llama").config.save_pretrained(tmp_path)
    with pytest.raises(
        OSError,
        match=r"cannot load model .*Check that the folder holds config.json, weights .safetensors. and a tokenizer",
    ):
        load_model(tmp_path)


def test_a_folder_with_a_broken_configuration_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OSError, match=r"cannot load model .*Check that the folder holds"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model"])
def test_a_hub_id_without_a_network_is_told(name):
    with pytest.raises(
        OSError, match=rf"cannot load model '{name}': .*Without a network, give a local folder; for a gated"
    ):
        load_model(name)


@pytest.mark.parametrize("dtype", ["float33", "int8", "nn", ""])
def test_an_unknown_dtype_is_refused(dtype, folder, live):
    with pytest.raises(ValueError, match=f"unknown dtype '{dtype}': choose float32, bfloat16, float16 or float64"):
        load_model(folder, dtype=dtype)
    with pytest.raises(ValueError, match=f"unknown dtype '{dtype}'"):
        load_model(live[0], tokenizer=live[1], dtype=dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "float64"])
def test_the_dtype_passes_through(dtype, folder, live):
    expected = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    for model in (load_model(folder, dtype=dtype), load_model(live[0], tokenizer=live[1], dtype=dtype)):
        assert {p.dtype for p in model.parameters()} == {expected}
        assert logits(model).dtype == expected
        assert {b.dtype for name, b in model.named_buffers() if "inv_freq" in name} == {torch.float32}
        assert describe(model)["dtype"] == str(expected).removeprefix("torch.")


def test_the_default_dtype_is_the_checkpoints(tmp_path, live):
    live[0].bfloat16().save_pretrained(tmp_path)
    live[1].save_pretrained(tmp_path)
    assert describe(load_model(tmp_path))["dtype"] == "bfloat16"
    assert describe(load_model(live[0], tokenizer=live[1]))["dtype"] == "bfloat16"


def test_a_model_in_compatibility_mode_is_refused(live):
    model = load_model(live[0], tokenizer=live[1])
    model.enable_compatibility_mode()
    with pytest.raises(ValueError, match=r"this model is in compatibility mode .*load it again with load_model"):
        load_model(model)


# --- which model it is ---


def test_the_fingerprint_is_the_same_for_the_same_model(folder, live):
    first = fingerprint(load_model(folder))
    assert first == fingerprint(load_model(folder))
    model = load_model(folder)
    logits(model)
    model.tokenizer.pad_token = "<pad>"
    model.tokenizer(["w1", "w1 w2 w3"], padding=True, truncation=True, max_length=3)  # use leaves traces in a tokenizer
    assert fingerprint(model) == first
    assert fingerprint(load_model(folder, tokenizer=model.tokenizer)) == first


def test_a_cast_live_model_computes_what_a_cast_checkpoint_does(folder, live):
    expected = logits(load_model(folder, dtype="bfloat16"))
    assert torch.equal(logits(load_model(live[0], tokenizer=live[1], dtype="bfloat16")), expected)
    assert not torch.equal(expected.float(), logits(load_model(folder)))


def test_families_and_seeds_have_different_fingerprints():
    """Llama and Mistral differ in nothing but the attention window here: the configuration counts too."""
    found = {family: fingerprint(pair(family)[0]) for family in families.FAMILIES}
    assert len(set(found.values())) == len(found)
    other = load_model(families.hf_model("llama", seed=1), tokenizer=families.tokenizer())
    assert fingerprint(other) != found["llama"]


def no_grad_write(p):
    with torch.no_grad():
        p[(-1,) * p.ndim] += 1


def training_step(p):
    optimizer = torch.optim.SGD([p], lr=1.0)
    p.sum().backward()
    optimizer.step()
    p.grad = None


def replaced(p):
    fresh = p.data.clone()
    fresh[(-1,) * p.ndim] += 1
    p.data = fresh


def row_through_data(p):
    p.data[p.shape[0] // 2] = 7.0


def column_through_data(p):
    p.data[..., p.shape[-1] // 2] = 7.0


@pytest.mark.parametrize(
    "change", [no_grad_write, training_step, replaced, row_through_data, column_through_data], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_the_fingerprint_changes_when_any_weight_does(change, family):
    model = load_model(families.hf_model(family), tokenizer=families.tokenizer())
    before = fingerprint(model)
    for name, parameter in model.named_parameters():
        kept = parameter.data.clone()
        change(parameter)
        assert fingerprint(model) != before, name
        with torch.no_grad():
            parameter.copy_(kept)
        assert fingerprint(model) == before, name  # put back, it is the same model


def test_the_fingerprint_sees_a_scalar(live):
    model = load_model(live[0], tokenizer=live[1])
    plain = fingerprint(model)
    live[0].register_parameter("scale", torch.nn.Parameter(torch.tensor(1.0)))
    before = fingerprint(model)
    assert before != plain
    with torch.no_grad():
        live[0].scale.fill_(2.0)
    assert fingerprint(model) != before


def test_an_offloaded_weight_counts_by_name_dtype_and_shape(live):
    model = load_model(live[0], tokenizer=live[1])
    found = {fingerprint(model)}
    for shape in ((3, 4), (4, 3), ()):
        live[0].register_parameter("away", torch.nn.Parameter(torch.empty(shape, device="meta")))
        found.add(fingerprint(model))
        live[0].register_parameter("away", torch.nn.Parameter(torch.empty(shape, device="meta")))
        assert fingerprint(model) in found
    assert len(found) == 4


def test_the_fingerprint_sees_the_dtype_and_the_tokenizer(folder, live):
    first = fingerprint(load_model(folder))
    assert fingerprint(load_model(folder, dtype="float64")) != first
    tokenizer = families.tokenizer()
    tokenizer.add_tokens(["extra"])
    assert fingerprint(load_model(live[0], tokenizer=tokenizer)) != first


def test_describe_has_what_a_run_records(folder):
    facts = describe(load_model(folder))
    assert facts.keys() == {"name", "revision", "architecture", "dtype", "layers", "parameters", "fingerprint"}
    plain = families.hf_model("llama")
    assert (facts["layers"], facts["parameters"], facts["architecture"]) == (
        2,
        sum(p.numel() for p in plain.parameters()),
        "LlamaForCausalLM",
    )


def test_a_bridge_loaded_by_somebody_else_is_described(folder):
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    bridge.train()
    model = load_model(bridge)
    assert not model.training
    assert describe(model)["layers"] == 2


@pytest.mark.parametrize("how", [{"revision": "main"}, {"device_map": "auto"}])
def test_a_live_model_takes_no_loading_options(how):
    with pytest.raises(ValueError, match="revision and device_map are decided when a model is loaded"):
        load_model(families.hf_model("llama"), tokenizer=families.tokenizer(), **how)
