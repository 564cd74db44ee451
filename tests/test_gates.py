"""act(gate): measured and edited, against Hugging Face models whose activation function is really replaced."""

from contextlib import contextmanager

import oracles
import pytest
import torch
from conftest import document, pair
from families import FAMILIES

from mwork_lens import gates
from mwork_lens.capture import capture
from mwork_lens.edits import Edit, applied, during
from mwork_lens.interventions import deactivate, patch, record, scale, set_to, steer, zero
from mwork_lens.models import fingerprint
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import FFN_SITES, shape_of, unit_site

IDS = document(9)
NAMES = ("act_fn", "act", "activation_fn", "gelu_impl")


def holders(plain, layer):
    """(module, attribute) of a Hugging Face block's activation function."""
    block = oracles.hf_blocks(plain)[layer]
    for module in (getattr(block, "mlp", None), block):
        for name in NAMES:
            if module is not None and callable(getattr(module, name, None)):
                return module, name
    raise AssertionError(f"no activation function in {type(block).__name__}")


@contextmanager
def replaced(plain, changes):
    """The plain model with `changes[layer](act(x))` in place of its activation functions."""
    kept = []
    for layer, change in changes.items():
        module, name = holders(plain, layer)
        act = getattr(module, name)
        kept.append((module, name, act))

        class Changed(torch.nn.Module):
            def __init__(self, act, change):
                super().__init__()
                self.act, self.change = act, change

            def forward(self, x):
                return self.change(self.act(x))

        setattr(module, name, Changed(act, change))
    try:
        with torch.no_grad():
            yield lambda ids=IDS: plain(ids).logits
    finally:
        for module, name, act in kept:
            setattr(module, name, act)


def seen(plain, ids=IDS):
    """act(gate) of every layer, as the plain model computes it."""
    kept = {}

    def look(layer):
        def change(x):
            kept[layer] = x.clone()
            return x

        return change

    with replaced(plain, {layer: look(layer) for layer in range(2)}) as run:
        run(ids)
    return kept


def some(model, site="ffn_act", *, seed=0, share=0.3):
    shape = shape_of(model, [site])[site]
    return NeuronSet(
        {site: torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share}, model=fingerprint(model)
    )


def logits(model, *edits, ids=IDS):
    with torch.no_grad():
        if not edits:
            return model(ids)
        with applied(model, *edits):
            return model(ids)


def close(ours, theirs, tolerance=1e-5):
    return float((ours - theirs).abs().max() / theirs.abs().max()) < tolerance


@pytest.mark.parametrize("family", FAMILIES)
def test_act_of_gate_is_what_the_model_computes(family):
    model, plain = pair(family)
    got = {}
    capture(model, IDS, ["ffn_act", "ffn"], lambda layer, acts: got.update({layer: acts["ffn_act"]}))
    expected = seen(plain)
    for layer in range(2):
        assert close(got[layer], expected[layer])
        assert got[layer].shape[-1] == shape_of(model, ["ffn_act"])["ffn_act"][1]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_of_act_of_gate_equals_replacing_the_activation_function(family):
    model, plain = pair(family)
    neurons = some(model)
    masks = neurons.masks["ffn_act"]
    value = torch.randn(masks.shape, generator=torch.Generator().manual_seed(1))
    cases = {
        "zero": (zero(neurons), lambda i, x: torch.where(masks[i], torch.zeros(()), x)),
        "set_to": (set_to(neurons, {"ffn_act": value}), lambda i, x: torch.where(masks[i], value[i], x)),
        "scale": (scale(neurons, -1.5), lambda i, x: torch.where(masks[i], -1.5 * x, x)),
        "steer": (steer(value * masks, "ffn_act", by=0.5), lambda i, x: x + 0.5 * value[i] * masks[i]),
    }
    before = logits(model)
    for name, (edit, change) in cases.items():
        with replaced(plain, {i: (lambda x, i=i, change=change: change(i, x)) for i in range(2)}) as run:
            expected = run()
        assert close(logits(model, edit), expected), name
        assert not close(expected, before, 1e-3), name  # the case is not trivial
    assert torch.equal(logits(model), before)


def test_zero_at_act_is_zero_at_ffn(llama):
    neurons = some(llama)
    assert torch.allclose(logits(llama, zero(neurons)), logits(llama, zero(neurons.at("ffn"))), atol=1e-6)


def test_units_outside_the_edit_keep_their_bits(llama):
    neurons = some(llama, share=0.2)
    mask = neurons.masks["ffn_act"][0]
    before = record(llama, IDS, ["ffn"], layers=[0])["ffn", 0]
    with applied(llama, set_to(neurons.only(layers=[0]), 3.0)):
        after = record(llama, IDS, ["ffn"], layers=[0])["ffn", 0]
    assert torch.equal(after[..., ~mask], before[..., ~mask])
    assert not torch.equal(after[..., mask], before[..., mask])


def test_later_edits_see_earlier_ones(llama):
    """Off, then on, on the same units: fill + value when adding, the value when replacing; nested or side by side."""
    neurons, mean = some(llama), torch.full(shape_of(llama, ["ffn_act"])["ffn_act"], 0.7)
    add = steer(mean * neurons.masks["ffn_act"], "ffn_act")
    together = logits(llama, set_to(neurons, -1.0), add)
    assert torch.allclose(together, logits(llama, set_to(neurons, -0.3)), atol=1e-5)
    with applied(llama, set_to(neurons, -1.0)):
        assert torch.allclose(logits(llama, add), together, atol=1e-6)
    assert torch.allclose(
        logits(llama, set_to(neurons, -1.0), set_to(neurons, 0.7)), logits(llama, set_to(neurons, 0.7)), atol=1e-6
    )
    assert not torch.allclose(logits(llama, add, set_to(neurons, -1.0)), together, atol=1e-3)  # the order counts


def test_act_can_be_recorded_and_patched(llama):
    source = record(llama, document(9, seed=4), ["ffn_act"], layers=[1])
    own = record(llama, IDS, ["ffn_act"], layers=[1])
    assert torch.equal(logits(llama, patch(own)), logits(llama))
    with applied(llama, patch(source)):
        up = record(llama, IDS, ["ffn"], layers=[1])["ffn", 1]
    act = source["ffn_act", 1]
    plain_up = record(llama, IDS, ["ffn", "ffn_act"], layers=[1])
    ratio = plain_up["ffn", 1] / plain_up["ffn_act", 1]
    assert torch.allclose(up, act * ratio, atol=1e-4)


def test_the_function_is_found_under_an_edit():
    """A model first asked while an edit is in force answers the same."""
    import families

    from mwork_lens.models import load_model

    fresh = load_model(families.hf_model("gemma2"), tokenizer=families.tokenizer())
    with deactivate(fresh, some(fresh, "ffn", share=0.9)):
        act = gates.activation(fresh, 1)
        with torch.no_grad():
            fresh(IDS)
    x = torch.linspace(-3, 3, 11)
    assert torch.equal(act(x), gates.activation(pair("gemma2")[0], 1)(x))
    assert not torch.allclose(act(x), gates.activation(pair("llama")[0], 1)(x), atol=1e-3)


def test_an_unknown_ffn_is_refused():
    import families

    from mwork_lens.models import load_model

    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    for block in model.original_model.model.layers:
        del block.mlp.original_component.act_fn
        block.mlp.original_component.forward = _odd(block.mlp.original_component)
    with pytest.raises(
        ValueError, match=r"activation function of layer 0 is none of silu, .*measure 'ffn' or 'ffn_gate' instead"
    ):
        gates.activation(model, 0)


def test_a_function_of_the_models_own_is_found():
    import families

    from mwork_lens.models import load_model

    class Shifted(torch.nn.Module):
        def forward(self, x):
            return torch.sin(3 * x) + 2

    hf = families.hf_model("llama")
    for block in hf.model.layers:
        block.mlp.act_fn = Shifted()
    model = load_model(hf, tokenizer=families.tokenizer())
    assert torch.equal(gates.activation(model, 0)(torch.zeros(1)), torch.tensor([2.0]))


def _odd(mlp):
    return lambda x: mlp.down_proj(torch.sin(3 * mlp.gate_proj(x)) * mlp.up_proj(x))


def test_a_mixture_of_experts_is_refused():
    model, _ = pair("mixtral")
    with pytest.raises(NotImplementedError, match="mixture of experts"):
        gates.activation(model, 0)


def test_ffn_sites_name_the_same_units(llama):
    neurons = some(llama, "ffn")
    assert set(FFN_SITES) == {"ffn", "ffn_gate", "ffn_act"}
    for site in FFN_SITES:
        moved = neurons.at(site)
        assert moved.sites == (site,)
        assert torch.equal(moved.masks[site], neurons.masks["ffn"])
        assert moved.at("ffn") == neurons
        assert unit_site(site) == "ffn"
    assert unit_site("q") == "q"
    with pytest.raises(ValueError, match=r"moves FFN units; this set has q: take .only"):
        some(llama, "q").at("ffn")
    with pytest.raises(ValueError, match="unknown site 'z': choose from ffn, ffn_gate, ffn_act"):
        neurons.at("z")


# --- steer and during ---


def test_steer_adds_a_direction_to_the_stream(llama):
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    before = record(llama, IDS, ["resid_post"], layers=[0])["resid_post", 0]
    with applied(llama, steer(direction, "resid_post", [0], by=2.0)):
        after = record(llama, IDS, ["resid_post"], layers=[0])["resid_post", 0]
    assert torch.allclose(after, before + 2 * direction, atol=1e-6)
    rows = torch.stack([direction, torch.zeros(32)])
    assert list(steer(rows, "resid_post")) == [("resid_post", 0)]  # a layer without direction is left alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(32), "resid_post"), "needs layers="),
        ((torch.zeros(32), "resid_post", [0]), "direction is zero in these layers"),
        ((torch.full((32,), float("nan")), "resid_post", [0]), "NaN or infinite"),
        ((torch.ones(2, 32), "resid_post", [2]), r"layer 2 does not exist, the direction has layers 0\.\.1"),
        ((torch.ones(2, 32), "pattern", [0]), "unknown site 'pattern'"),
    ],
)
def test_a_direction_that_cannot_steer_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        steer(*arguments)


def test_a_direction_of_another_width_is_refused(llama):
    with pytest.raises(ValueError, match=r"'ffn_act' are \[layer, width\] \[2, 32\], this model has \[2, 44\]"):
        logits(llama, steer(torch.ones(2, 32), "ffn_act"))


def test_during_splits_a_generation_into_prompt_and_new_tokens(llama):
    calls = []

    def look(x):
        calls.append(x.shape[1])
        return x

    edit = Edit({("resid_post", 0): look})
    for phase, expected in (("prompt", [9]), ("new", [1, 1]), ("all", [9, 1, 1])):
        calls.clear()
        with torch.no_grad(), applied(llama, during(edit, phase)):
            llama.original_model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=None)
        assert calls == expected, phase
    with pytest.raises(ValueError, match="phase 'later': choose prompt, new or all"):
        during(edit, "later")


# --- edits of act(gate) among other edits, in batches, in generation, in half precision


def with_gates(plain, change):
    """Hooks on the plain model's gate projections."""
    return [
        block.mlp.gate_proj.register_forward_hook(lambda m, x, y, i=i: change(i, y))
        for i, block in enumerate(oracles.hf_blocks(plain))
    ]


@pytest.mark.parametrize("order", ["act first", "gate first", "act outside", "gate outside"])
def test_the_gate_may_be_edited_too(order):
    """An edit of the pre-activation counts wherever it stands: act(gate) is of the gate as edited."""
    model, plain = pair("llama")
    neurons, gates_of = some(model, share=0.5), some(model, "ffn_gate", seed=3, share=0.5)
    on_act, on_gate = scale(neurons, 2.0), scale(gates_of, -1.0)
    mask, inner = neurons.masks["ffn_act"], gates_of.masks["ffn_gate"]
    handles = with_gates(plain, lambda i, y: torch.where(inner[i], -y, y))
    try:
        with replaced(plain, {i: (lambda x, i=i: torch.where(mask[i], 2 * x, x)) for i in range(2)}) as run:
            expected = run()
    finally:
        for handle in handles:
            handle.remove()
    if order == "act first":
        found = logits(model, on_act, on_gate)
    elif order == "gate first":
        found = logits(model, on_gate, on_act)
    else:
        outer, inner_edit = (on_act, on_gate) if order == "act outside" else (on_gate, on_act)
        with applied(model, outer):
            found = logits(model, inner_edit)
    assert close(found, expected)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_edit_of_act_is_seen_where_act_is_read(family):
    model, _ = pair(family)
    neurons = some(model)
    mask = neurons.masks["ffn_act"]
    with applied(model, set_to(neurons, 3.0)):
        seen_act = record(model, IDS, ["ffn_act"])
        from mwork_lens.collect import moments

        sums = moments("ffn_act")(model, IDS)
    for layer in range(2):
        assert (seen_act["ffn_act", layer][..., mask[layer]] == 3.0).all()
        assert torch.allclose(sums.mean("ffn_act")[layer][mask[layer]], torch.tensor(3.0, dtype=torch.double))
    untouched = record(model, IDS, ["ffn_act"])["ffn_act", 0]
    assert torch.allclose(seen_act["ffn_act", 0][..., ~mask[0]], untouched[..., ~mask[0]], atol=1e-6)


def test_nothing_is_kept_after_an_edit(llama):
    with applied(llama, scale(some(llama), 2.0)):
        llama(IDS)
        assert gates._flows[llama]
    assert not gates._flows[llama]
    with pytest.raises(RuntimeError, match="stop"), applied(llama, scale(some(llama), 2.0)):  # noqa: PT012
        llama(IDS)
        raise RuntimeError("stop")
    assert not gates._flows[llama]
    before = logits(llama)
    assert torch.equal(logits(llama), before)


def test_edits_of_act_hold_in_padded_batches_and_half_precision():
    import families

    from mwork_lens.corpora import pad
    from mwork_lens.evaluate import document_nll
    from mwork_lens.models import load_model

    model, _ = pair("llama")
    rows = [[1, *range(5, 5 + n)] for n in (9, 3, 6)]
    with applied(model, scale(some(model), -2.0)):
        together = document_nll(model, pad(rows, "en", "abc", bos=1))
        alone = torch.cat([document_nll(model, pad([row], "en", ["a"], bos=1)) for row in rows])
    assert torch.allclose(together, alone, atol=1e-4)
    half = load_model(families.hf_model("llama").bfloat16(), tokenizer=families.tokenizer())
    plain = oracles.plain(families.hf_model("llama").bfloat16())
    mask = some(model).masks["ffn_act"]
    neurons = NeuronSet({"ffn_act": mask})
    with replaced(
        plain, {i: (lambda x, i=i: torch.where(mask[i], torch.tensor(1.5, dtype=x.dtype), x)) for i in range(2)}
    ) as run:
        expected = run()
    assert close(logits(half, set_to(neurons, 1.5)).float(), expected.float(), 0.03)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bloom"])
def test_generation_under_an_edit_of_act(family):
    """Token for token what Hugging Face writes with its activation function replaced."""
    model, plain = pair(family)
    neurons = some(model, share=0.5)
    mask = neurons.masks["ffn_act"]
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with replaced(plain, {i: (lambda x, i=i: torch.where(mask[i], -2 * x, x)) for i in range(2)}):
        expected = plain.generate(IDS, **settings)
    unedited = plain.generate(IDS, **settings)
    with torch.no_grad(), applied(model, scale(neurons, -2.0)):
        found = model.original_model.generate(IDS, **settings)
    assert found.tolist() == expected.tolist() != unedited.tolist()


def test_the_probe_disturbs_no_edit():
    """A patch for longer texts is in force when the activation function is first asked for; and a probe counts for no edit."""
    import families

    from mwork_lens.models import load_model

    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    source = record(model, document(11), ["ffn"], layers=[1])
    with applied(model, patch(source)):
        record(model, document(11), ["ffn_act"])
    fresh = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    with pytest.raises(RuntimeError, match="never fired"), applied(fresh, scale(some(fresh, "ffn"), 2.0)):
        gates.activation(fresh, 0)


def test_what_half_precision_cannot_tell_apart_is_refused():
    """Without a module of its own, bfloat16 leaves gelu and its approximations open; float32 decides."""
    gate = torch.randn(8, 44, generator=torch.Generator().manual_seed(0))
    up = torch.randn(8, 44, generator=torch.Generator().manual_seed(1))
    from transformers.activations import ACT2FN

    candidates = [(name, ACT2FN[name]) for name in gates._USUAL]
    half = gate.bfloat16(), (ACT2FN["gelu"](gate.bfloat16()) * up.bfloat16()), up.bfloat16()
    with pytest.raises(
        ValueError, match=r"may be gelu.* or gelu.*: they cannot be told apart in torch.bfloat16; load the model"
    ):
        gates._identify(0, *half, candidates)
    for name in ("gelu", "gelu_new", "quick_gelu", "silu", "relu", "relu2"):
        found = gates._identify(0, gate, ACT2FN[name](gate) * up, up, candidates)
        assert torch.allclose(found(gate), ACT2FN[name](gate), atol=1e-6), name


def test_an_ffn_of_nan_is_named():
    import families

    from mwork_lens.models import load_model

    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    with torch.no_grad():
        model.blocks[1].mlp.gate.original_component.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="the FFN of layer 1 gives NaN or infinite values"):
        gates.activation(model, 0)


def test_during_counts_the_calls_of_its_phase(llama):
    """An edit for new tokens that met none did nothing, and says so."""
    edit = scale(some(llama, "ffn"), 2.0)
    with (
        pytest.raises(RuntimeError, match=r"never fired: ffn\[0\] of scale \(new\)"),
        applied(llama, during(edit, "new")),
    ):
        llama(IDS)
    with applied(llama, during(edit, "prompt")):
        llama(IDS)


def test_the_advice_about_mixed_sets_helps(llama):
    mixed = some(llama, "ffn") | some(llama, "q")
    with pytest.raises(ValueError, match=r"take \.only"):
        mixed.at("ffn_act")
    assert mixed.only(sites=["ffn"]).at("ffn_act").at("ffn") == some(llama, "ffn")
