"""Integrated gradients at FFN units: equal to naive loops on plain models, complete, and honest about what they were not given."""

import copy
from dataclasses import replace

import families
import oracles
import pytest
import torch
from conftest import pair

from mwork_lens.models import load_model
from mwork_lens.questions import FactAttributions, fact_attributions, other_objects
from mwork_lens.tasks.task import Item, Task

FAMILIES = ("llama", "gpt2", "gemma2", "neox", "xglm")
"""Gated SiLU, plain GELU, gated GELU with soft caps, a parallel block, ReLU without a container."""
DOWN = {"gpt2": "mlp.c_proj", "neox": "mlp.dense_4h_to_h", "xglm": "fc2"}


def item(name: str, language: str, prompt: str, answer: str, relation: str = "r") -> Item:
    return Item(name, language, prompt, (answer,), meta={"relation": relation}, glue=" ")


TASK = Task(
    "facts",
    "knowledge",
    (
        item("a", "en", "w1 w2 w3", "w9"), item("b", "en", "w4 w5", "w10 w11"), item("c", "en", "w6", "w12"),
        item("a", "de", "w20 w21 w22 w23", "w30 w31 w32"), item("b", "de", "w24 w25 w26", "w33"),
    ),
    "loglik",
)  # fmt: skip


def down(hf, family: str, layer: int):
    return oracles.hf_blocks(hf)[layer].get_submodule(DOWN.get(family, "mlp.down_proj"))


def object_score(hf, family: str, one: Item, layer: int, change, of: str) -> torch.Tensor:
    """F of one item in a plain model whose FFN vector at the last position of the prompt is changed; one prompt, no batch."""
    ids = [1, *(4 + int(word[1:]) for word in f"{one.prompt} {one.answers[0]}".split())]
    prompt = 1 + len(one.prompt.split())

    def hook(module, args):
        x = args[0].clone()
        x.view(1, -1, x.shape[-1])[0, prompt - 1] = change(x.view(1, -1, x.shape[-1])[0, prompt - 1])
        return (x,)

    handle = down(hf, family, layer).register_forward_pre_hook(hook)
    try:
        logits = hf(input_ids=torch.tensor([ids])).logits[0]
    finally:
        handle.remove()
    logp = torch.stack([logits[t - 1].log_softmax(-1)[ids[t]] for t in range(prompt, len(ids))]).mean()
    return logp.exp() if of == "probability" else logp


def naive(hf, family: str, one: Item, layer: int, steps: int, of: str) -> torch.Tensor:
    """One step at a time."""
    total = torch.zeros(())
    for s in range(steps):
        held = []

        def change(a, s=s, held=held):
            a = a.detach().clone()
            held.extend([a, (a * s / (steps - 1)).requires_grad_()])
            return held[1]

        (gradient,) = torch.autograd.grad(object_score(hf, family, one, layer, change, of), held[1])
        total = total + held[0] * gradient
    return total / steps


@pytest.mark.parametrize("of", ["probability", "logp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_naive_loop_over_steps_on_the_plain_model_finds_the_same(family, of):
    model, hf = pair(family)
    found = fact_attributions(model, TASK, of=of, steps=4, size=7, progress=False)  # batches cut through prompts
    for one in TASK.items[1:4]:  # objects of two, one and three tokens
        row, column = found.items.index(one.id), found.languages.index(one.language)
        for layer in range(2):
            expected = naive(hf, family, one, layer, 4, of)
            torch.testing.assert_close(found.attributions[row, column, layer], expected, rtol=1e-3, atol=2e-6)
            off = object_score(hf, family, one, layer, torch.zeros_like, of)
            torch.testing.assert_close(found.zeroed[row, column, layer].float(), off.detach(), rtol=1e-4, atol=1e-6)
        full = object_score(hf, family, one, 0, lambda a: a, of).detach()
        torch.testing.assert_close(found.score[row, column].float(), full, rtol=1e-4, atol=1e-6)
    assert found.tokens.tolist() == [[1, 3], [2, 1], [1, 0]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
def test_a_layer_sums_to_its_effect_as_steps_grow(family):
    model, hf = pair(family)
    gaps = []
    for steps in (5, 40, 320):
        found = fact_attributions(model, TASK, ["en"], of="logp", steps=steps, progress=False)
        gap = 0.0
        for row, one in enumerate(TASK.of("en")):
            for layer in range(2):
                on, off = (object_score(hf, family, one, layer, f, "logp") for f in (lambda a: a, torch.zeros_like))
                gap = max(gap, abs(float(found.attributions[row, 0, layer].sum()) - float((on - off).detach())))
        gaps.append(gap)
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2], gaps  # the error of the mean falls as 1 / m
    trapezoid = fact_attributions(model, TASK, ["en"], of="logp", steps=40, rule="trapezoid", progress=False).table()
    assert trapezoid["gap"].abs().max() < gaps[1] / 2


def test_behind_a_norm_the_gap_says_that_attributions_cannot_be_trusted():
    table = fact_attributions(pair("gemma2")[0], TASK, ["en"], of="logp", steps=40, progress=False).table()
    assert table["gap"].abs().min() > table["effect"].abs().max()


def changed(family: str, change) -> tuple[FactAttributions, FactAttributions]:
    """Attributions of a model, and of a copy of which the FFN of layer 1 was changed."""
    hf = families.hf_model(family)
    other = copy.deepcopy(hf)
    with torch.no_grad():
        change(oracles.hf_blocks(other)[1].mlp)
    made = [load_model(x, tokenizer=families.tokenizer()) for x in (hf, other)]
    before, after = (fact_attributions(x, TASK, of="logp", steps=4, progress=False) for x in made)
    return before, after


def test_a_unit_that_writes_nothing_gets_nothing():
    before, after = changed("llama", lambda mlp: mlp.down_proj.weight[:, 3].zero_())
    held = after.tokens > 0
    assert not after.attributions[held][:, 1, 3].any()
    assert before.attributions[held][:, 1, 3].abs().min() > 0


def test_permuted_units_have_permuted_attributions():
    order = torch.randperm(44, generator=torch.Generator().manual_seed(1))

    def permute(mlp):
        for name, parameter in mlp.named_parameters():
            parameter.copy_(parameter[:, order] if "down" in name else parameter[order])

    before, after = changed("llama", permute)
    held = before.tokens > 0
    torch.testing.assert_close(after.attributions[held][:, 1], before.attributions[held][:, 1][:, order])
    torch.testing.assert_close(after.attributions[held][:, 0], before.attributions[held][:, 0])


def test_the_model_is_left_as_it_was():
    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    fact_attributions(model, TASK, ["de"], steps=2, progress=False)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]), name
        assert p.grad is None
        assert p.requires_grad == flags[name]
    with torch.inference_mode():
        fact_attributions(model, TASK, ["de"], steps=2, progress=False)


def test_bfloat16_is_summed_in_float32():
    exact = fact_attributions(pair("llama")[0], TASK, ["en"], of="logp", progress=False)
    rough = load_model(families.hf_model("llama").bfloat16(), tokenizer=families.tokenizer())
    found = fact_attributions(rough, TASK, ["en"], of="logp", progress=False)
    assert found.attributions.dtype == torch.float32
    a, b = found.attributions.flatten(), exact.attributions.flatten()
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.97


def test_layers_left_out_stay_at_zero_and_are_not_in_the_table():
    model = pair("llama")[0]
    every = fact_attributions(model, TASK, steps=3, progress=False)
    found = fact_attributions(model, TASK, steps=3, layers=[1], progress=False)
    held = found.tokens > 0
    assert not found.attributions[held][:, 0].any()
    torch.testing.assert_close(found.attributions[held][:, 1], every.attributions[held][:, 1])
    assert set(found.table()["layer"]) == {1}
    assert len(every.table()) == len(TASK) * 2


def made_up(values, tokens=None) -> FactAttributions:
    """One fact in some languages, one layer of four units."""
    attributions = torch.tensor(values)[None, :, None, :]
    languages = tuple("abcdef"[: len(values)])
    blank = torch.zeros(1, len(values), dtype=torch.double)
    held = torch.ones(1, len(values), dtype=torch.long) if tokens is None else torch.tensor([tokens])
    return FactAttributions(("f",), languages, attributions, blank, blank[..., None], held, (0,), "logp")


def chosen(neurons) -> list[int]:
    return neurons.masks["ffn"][0].nonzero().flatten().tolist()


def test_units_exceed_a_share_of_the_largest():
    facts = made_up([[1.0, 0.31, 0.3, -5.0], [-1.0, -2.0, -0.1, -3.0]])
    assert chosen(facts.units("f", "a")) == [0, 1]
    assert chosen(facts.units("f", "a", threshold=0.0)) == [0, 1, 2]
    assert not facts.units("f", "b")  # nothing speaks for the object


def test_shared_units_are_those_of_more_than_a_share_of_the_languages_that_have_the_fact():
    facts = made_up([[1.0, 1, 0, 0], [1.0, 0, 1, 0], [1.0, 1, 0, 0], [0.0, 0, 1, 0]])
    assert chosen(facts.shared("f")) == [0]  # unit 1 is in half of them: not more
    assert chosen(facts.shared("f", share=0.4)) == [0, 1, 2]
    assert chosen(facts.shared("f", ["b", "d"])) == [2]
    nan = float("nan")
    assert chosen(made_up([[1.0, 1, 0, 0], [1.0, 0, 0, 0], [nan] * 4], [1, 1, 0]).shared("f", share=0.6)) == [0]


def test_other_objects_are_those_of_another_fact_of_the_relation_in_every_language():
    items = tuple(
        item(f"{relation}{i}", language, f"w{i}", f"{language}-{relation}-{i % 3}", relation)
        for relation in "pq" for i in range(6) for language in ("en", "de")
    )  # fmt: skip
    task = Task("facts", "knowledge", items, "loglik")
    other = other_objects(task, seed=1)
    for mine, theirs in zip(task.items, other.items, strict=True):
        assert (mine.id, mine.language, mine.prompt) == (theirs.id, theirs.language, theirs.prompt)
        assert mine.answers != theirs.answers
        language, relation, _ = theirs.answers[0].split("-")
        assert (language, relation) == (mine.language, mine.meta["relation"])
    ends = {(x.id, x.answers[0][-1]) for x in other.items}
    assert len(ends) == 12  # one other object a fact, in both languages
    assert other_objects(task, seed=1).items == other.items
    assert other_objects(task, seed=2).items != other.items


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps=1"), ({"size": 0}, "size=0"), ({"layers": [2]}, "layer 2 does not exist"), ({"layers": []}, "no layer given"),
        ({"of": "p"}, "of='p'"), ({"rule": "simpson"}, "rule='simpson'"), ({"languages": ["sw"]}, "no items in 'sw'"),
        ({"languages": []}, "no language asked for"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fact_attributions(pair("llama")[0], TASK, progress=False, **options)


def test_what_cannot_be_attributed_is_named():
    model = pair("llama")[0]
    with pytest.raises(ValueError, match="answers"):
        replace(TASK.items[0], answers=())
    long = replace(TASK.items[0], prompt=" ".join(["w1"] * families.CONTEXT))
    with pytest.raises(ValueError, match="item 'a' in 'en' has"):
        fact_attributions(model, replace(TASK, items=(long,)), progress=False)
    broken = families.hf_model("llama")
    with torch.no_grad():
        oracles.hf_blocks(broken)[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite values in item"):
        fact_attributions(load_model(broken, tokenizer=families.tokenizer()), TASK, steps=2, progress=False)
    half = load_model(families.hf_model("llama").half(), tokenizer=families.tokenizer())
    with pytest.raises(ValueError, match="float16"):
        fact_attributions(half, TASK, progress=False)
    mixtral = load_model(families.hf_model("mixtral"), tokenizer=families.tokenizer())
    with pytest.raises(NotImplementedError, match="mixture of experts"):
        fact_attributions(mixtral, TASK, progress=False)


def test_unknown_facts_languages_and_shares_are_named():
    facts = made_up([[1.0, 0, 0, 0], [float("nan")] * 4], [1, 0])
    with pytest.raises(KeyError, match="no attributions of 'f' in 'zh'"):
        facts.units("f", "zh")
    with pytest.raises(KeyError, match="no attributions of 'g'"):
        facts.units("g", "a")
    with pytest.raises(KeyError, match="'b' does not have item 'f'"):
        facts.units("f", "b")
    with pytest.raises(KeyError, match="no language has item 'g'"):
        facts.shared("g")
    with pytest.raises(ValueError, match=r"share=1\.0"):
        facts.shared("f", share=1.0)
    with pytest.raises(ValueError, match=r"threshold=-0\.1"):
        facts.units("f", "a", threshold=-0.1)
    lone = replace(TASK, items=TASK.items[:1])
    with pytest.raises(ValueError, match="no other fact of 'r'"):
        other_objects(lone)
    with pytest.raises(ValueError, match="no field 'kind'"):
        other_objects(TASK, like="kind")
