"""Generated text against a plain argmax loop without a cache on Hugging Face's model, one prompt at a time."""

import math

import families
import jaxtyping
import numpy as np
import pytest
import torch
from conftest import pair
from tokenizers import processors
from transformers import GenerationConfig

from mwork_lens.interventions import Edit, applied, deactivate, zero
from mwork_lens.models import load_model
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import shape_of
from mwork_lens.writing.generate import Generation, fluency, generate, prompt_ids

PROMPTS = ["w1 w2 w3", "w5", "w9 w4", "w3 w3 w80 w7 w6", "w8 w1", "w11 w22 w33"]
SOME = ["llama", "gpt2", "bloom", "qwen2"]
BOS, EOS = 1, 2


def naive(plain, tokenizer, prompt, *, new, penalty=1.0, ends=(BOS, EOS)):
    """The most likely token, again and again; every step from scratch."""
    ids, made = tokenizer(prompt)["input_ids"], []
    for _ in range(new):
        with torch.no_grad():
            logits = plain(torch.tensor([ids + made])).logits[0, -1]
        for token in set(ids + made):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        best = int(logits.argmax())
        if best in ends:
            return made, "eos"
        made.append(best)
    return made, "length"


def off(model, share=0.4):
    masks = torch.rand(shape_of(model)["ffn"], generator=torch.Generator().manual_seed(0)) < share
    return NeuronSet({"ffn": masks})


def ids_of(generations):
    return [list(g.ids) for g in generations]


# --- the text


def test_text_is_that_of_a_plain_loop(any_family):
    _, model, plain = any_family
    prompts = PROMPTS[:2] + PROMPTS[5:]  # two of them share a batch
    found = generate(model, prompts, max_new_tokens=6)
    assert [(list(g.ids), g.finished) for g in found] == [naive(plain, model.tokenizer, p, new=6) for p in prompts]
    assert [g.prompt for g in found] == prompts
    for g in found:
        assert g.text.split() == model.tokenizer.decode(g.ids, skip_special_tokens=True).split()


@pytest.mark.parametrize("family", SOME)
def test_batches_change_nothing(family):
    model = pair(family)[0]
    alone = [generate(model, [prompt], max_new_tokens=5)[0] for prompt in PROMPTS]
    assert generate(model, PROMPTS, max_new_tokens=5) == alone
    assert generate(model, PROMPTS, max_new_tokens=5, size=2) == alone
    assert generate(model, PROMPTS[::-1], max_new_tokens=5) == alone[::-1]


def test_repetition_is_penalised(llama):
    plain = pair("llama")[1]
    for penalty in (1.1, 5.0):
        found = generate(llama, PROMPTS[:3], max_new_tokens=7, repetition_penalty=penalty)
        expected = [naive(plain, llama.tokenizer, p, new=7, penalty=penalty)[0] for p in PROMPTS[:3]]
        assert ids_of(found) == expected
    assert ids_of(found) != ids_of(generate(llama, PROMPTS[:3], max_new_tokens=7))


def test_an_end_of_text_token_ends_a_text():
    model, plain = pair("qwen2")
    found = generate(model, PROMPTS, max_new_tokens=9)
    assert {g.finished for g in found} == {"eos", "length"}
    ended = next(g for g in found if g.finished == "eos")
    assert EOS not in ended.ids
    assert len(ended.ids) < 9
    # the checkpoint's own tokens end it too, as those that close a turn of a chat
    config = model.original_model.generation_config
    second = naive(plain, model.tokenizer, PROMPTS[0], new=2)[0][1]
    model.original_model.generation_config = GenerationConfig(eos_token_id=[EOS, second])
    try:
        (earlier,) = generate(model, PROMPTS[:1], max_new_tokens=9)
    finally:
        model.original_model.generation_config = config
    assert (list(earlier.ids), earlier.finished) == naive(
        plain, model.tokenizer, PROMPTS[0], new=9, ends=(BOS, EOS, second)
    )
    assert len(earlier.ids) == 1


def test_a_second_beginning_ends_a_text(polyglot):
    prompt = "Q: Where is the kitchen?\nAnswer in German.\nA:"
    (found,) = generate(polyglot, [prompt], max_new_tokens=40)
    ids = polyglot.tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        following = int(polyglot(torch.tensor([[*ids, *found.ids]]))[0, -1].argmax())
    assert (found.finished, following) == ("eos", polyglot.tokenizer.bos_token_id)
    assert found.text.endswith(".")
    assert "<s>" not in found.text


def test_stop_strings_cut(llama):
    (free,) = generate(llama, PROMPTS[:1], max_new_tokens=9)
    written = free.text.split()
    third, fifth = written[2], written[4]
    assert third not in written[:2]
    (cut,) = generate(llama, PROMPTS[:1], max_new_tokens=9, stop=[fifth, third])
    assert cut.finished == "stop"
    assert free.text.startswith(cut.text)
    assert cut.text.split() == written[:2]
    assert cut.ids[:2] == free.ids[:2]
    assert len(cut.ids) <= 3
    # the others of the batch go on
    several = generate(llama, [PROMPTS[0], PROMPTS[5]], max_new_tokens=9, stop=[third])
    assert several[0] == cut.__class__(cut.prompt, cut.text, cut.ids, "stop")
    assert several[1] == generate(llama, [PROMPTS[5]], max_new_tokens=9, stop=[third])[0]
    assert len(several[1].ids) > 3
    # negative control: a string that never comes, and one that only the prompt holds
    assert generate(llama, PROMPTS[:1], max_new_tokens=9, stop=["never"]) == [free]
    assert generate(llama, PROMPTS[:1], max_new_tokens=9, stop=["w1 w2"]) == [free]
    # a text may be empty
    (nothing,) = generate(llama, PROMPTS[:1], max_new_tokens=9, stop=[" "])
    assert (nothing.text, nothing.ids, nothing.finished) == ("", (), "stop")


def test_text_of_a_real_tokenizer_continues_the_prompt(polyglot):
    prompts = ["The kitchen is", "Die Küche ist", "厨房里"]
    found = generate(polyglot, prompts, max_new_tokens=12)
    for prompt, generation in zip(prompts, found, strict=True):
        ids = polyglot.tokenizer(prompt)["input_ids"]
        whole = polyglot.tokenizer.decode([*ids, *generation.ids], skip_special_tokens=True)
        assert whole.endswith(generation.text)
        assert generation.text
        (cut,) = generate(polyglot, [prompt], max_new_tokens=12, stop=[generation.text[2:4]])
        assert cut.text == generation.text[: generation.text.find(generation.text[2:4])]
        assert cut.finished == "stop"
        assert cut.ids == generation.ids[: len(cut.ids)]
    assert found[0].text.startswith(" ")  # the space between prompt and answer is kept


def test_the_checkpoints_own_settings_stay_out(llama):
    plainly = generate(llama, PROMPTS, max_new_tokens=6)
    hf = llama.original_model
    before = hf.generation_config
    spoiled = GenerationConfig(
        do_sample=True, temperature=9.0, repetition_penalty=3.0, suppress_tokens=[plainly[0].ids[0]], min_new_tokens=6
    )
    hf.generation_config = spoiled
    try:
        assert generate(llama, PROMPTS, max_new_tokens=6) == plainly
        assert hf.generation_config is spoiled
        with pytest.raises(RuntimeError, match="broken"), applied(llama, Edit({("ffn", 0): broken})):
            generate(llama, PROMPTS, max_new_tokens=6)
        assert hf.generation_config is spoiled  # put back after an error too
        assert hf.generate(torch.tensor([[1, 5, 6]]), pad_token_id=0, max_new_tokens=6).shape == (1, 9)
    finally:
        hf.generation_config = before


def broken(x):
    raise RuntimeError("broken")


# --- sampling


def test_sampling_is_seeded_and_leaves_the_global_generator_alone(llama):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    prompts = ["w1 w2", "w3 w4"]
    drawn = [generate(llama, prompts, temperature=1.0, seed=seed, max_new_tokens=8) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn[0] == drawn[1] != drawn[2]
    greedy = generate(llama, prompts, max_new_tokens=8)
    assert drawn[0] != greedy
    assert generate(llama, prompts, max_new_tokens=8, seed=1) == greedy
    assert generate(llama, prompts, max_new_tokens=8, temperature=1e-4) == greedy  # towards the argmax


def test_sampling_draws_from_the_whole_softmax(llama):
    plain = pair("llama")[1]
    drawn = generate(llama, ["w1 w2"] * 300, temperature=2.0, max_new_tokens=1, size=300)
    with torch.no_grad():
        p = (plain(torch.tensor([[1, 5, 6]])).logits[0, -1] / 2).softmax(-1).numpy()
    counts = np.bincount([g.ids[0] for g in drawn if g.ids], minlength=families.VOCAB) / 300
    assert np.abs(counts - p).max() < 4 * math.sqrt(p.max() / 300)
    assert (counts > 0).sum() > 50  # Hugging Face's own default keeps 50 tokens only


# --- under edits


@pytest.mark.parametrize("family", SOME)
def test_edits_hold_at_every_step(family):
    model = pair(family)[0]
    seen = []

    def watch(x):
        seen.append(tuple(x.shape[:2]))
        return x

    free = generate(model, PROMPTS[:2], max_new_tokens=4, size=1)
    with applied(model, Edit({("ffn", 1): watch})):
        assert generate(model, PROMPTS[:2], max_new_tokens=4, size=1) == free
    assert seen == [(1, 4), *[(1, 1)] * 3, (1, 2), *[(1, 1)] * 3]
    with deactivate(model, off(model)):
        edited = generate(model, PROMPTS, max_new_tokens=4)
    assert edited != generate(model, PROMPTS, max_new_tokens=4)
    # what a loop without a cache makes of the edited model
    for prompt, generation in zip(PROMPTS[:3], edited, strict=False):
        ids = model.tokenizer(prompt)["input_ids"]
        for i, token in enumerate(generation.ids):
            with deactivate(model, off(model)), torch.no_grad():
                logits = model(torch.tensor([[*ids, *generation.ids[:i]]]))
            assert int(logits[0, -1].argmax()) == token


def test_an_edit_of_the_prompt_only_is_told_by_its_length(llama):
    def prompt_only(x):
        return x * 0 if x.shape[1] > 1 else x

    with applied(llama, Edit({("ffn", 0): prompt_only})):
        on_prompt = generate(llama, PROMPTS, max_new_tokens=6)
    with applied(llama, Edit({("ffn", 0): lambda x: x * 0})):
        everywhere = generate(llama, PROMPTS, max_new_tokens=6)
    assert [g.ids[:1] for g in on_prompt] == [g.ids[:1] for g in everywhere]
    assert on_prompt != everywhere


# --- fluency


@pytest.mark.parametrize("family", SOME)
def test_fluency_is_the_likelihood_given_the_prompt(family):
    model, plain = pair(family)
    made = [*generate(model, PROMPTS, max_new_tokens=6), Generation("w1 w2", "", (), "stop")]
    found = fluency(model, made, size=4)
    for value, generation in zip(found[:-1], made, strict=False):
        ids = model.tokenizer(generation.prompt)["input_ids"]
        with torch.no_grad():
            logprobs = plain(torch.tensor([[*ids, *generation.ids]])).logits[0].log_softmax(-1)
        if not generation.ids:
            assert math.isnan(value)
            continue
        terms = [-float(logprobs[len(ids) + i - 1, token]) for i, token in enumerate(generation.ids)]
        assert value == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    assert math.isnan(found[-1])
    assert np.isfinite(found).sum() >= 4


def test_fluency_tells_greedy_text_from_noise_and_sees_edits(llama):
    made = generate(llama, PROMPTS, max_new_tokens=8)
    noise = [Generation(g.prompt, "", tuple((7 * i + 31 * j) % 90 + 4 for j in range(8)), "length") for i, g in enumerate(made)]  # fmt: skip
    found = fluency(llama, made)
    assert (found < fluency(llama, noise)).all()
    with applied(llama, zero(off(llama))):
        assert (fluency(llama, made) != found).all()
    assert fluency(llama, made, size=1) == pytest.approx(found, rel=1e-5)
    assert fluency(llama, []).shape == (0,)
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        fluency(llama, made, size=0)


def test_fluency_under_a_broken_model_is_named(llama):
    def nan(x):
        return x * float("nan")

    made = generate(llama, PROMPTS[:2], max_new_tokens=3)
    with (
        applied(llama, Edit({("resid_post", 1): nan})),
        pytest.raises(ValueError, match="NaN or infinite logits in gen"),
    ):
        fluency(llama, made)


# --- bad input


def test_prompts_that_cannot_be_continued_are_named(llama, monkeypatch):
    called = []
    monkeypatch.setattr(type(llama.original_model), "generate", lambda *a, **k: called.append(1))
    with pytest.raises(ValueError, match=r"prompt 1 \(''\) has 1 token\(s\): give at least 2"):
        generate(llama, ["w1", ""], max_new_tokens=5)
    with pytest.raises(
        ValueError,
        match="prompt 1 has 60 tokens; with max_new_tokens=5 that is more than this model's context of 64: shorten the prompt, or write at most 4",
    ):
        generate(llama, ["w1", "w1 " * 59], max_new_tokens=5)
    with pytest.raises(ValueError, match="no prompt given"):
        generate(llama, [])
    with pytest.raises(ValueError, match="the prompts are one string"):
        generate(llama, "w1 w2")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would see it first
    with pytest.raises(ValueError, match="prompt 1 is NoneType, not str"):
        generate(llama, ["w1", None])
    assert not called


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"size": 0}, "size=0 must be at least 1"),
        ({"stop": "Q:"}, "stop='Q:': give a list of strings"),
        ({"stop": ["Q:", ""]}, "none of them empty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be above 0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty=nan must be above 0"),
        ({"temperature": -1.0}, "temperature=-1.0 must be 0"),
        ({"temperature": float("inf")}, "temperature=inf must be 0"),
    ],
)
def test_settings_out_of_range_are_refused(llama, setting, message):
    with pytest.raises(ValueError, match=message):
        generate(llama, ["w1 w2"], **setting)


def test_the_context_can_be_filled(llama):
    (full,) = generate(llama, ["w1 " * 59], max_new_tokens=4)
    assert len(full.ids) == 4 or full.finished == "eos"


def test_a_masked_language_model_is_refused(llama, monkeypatch):
    monkeypatch.setattr(llama.cfg, "architecture", "BertForMaskedLM")
    for run in (lambda: generate(llama, ["w1 w2"]), lambda: fluency(llama, [])):
        with pytest.raises(ValueError, match="BertForMaskedLM sees the tokens it predicts"):
            run()


def test_an_end_of_text_token_that_the_tokenizer_appends_is_left_out():
    closing = families.tokenizer()
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    model = load_model(families.hf_model("llama"), tokenizer=closing)
    assert prompt_ids(model, ["w1 w2", "w3 </s>"]) == [[1, 5, 6], [1, 7, 2, 2]]
    both = (generate(one, PROMPTS, max_new_tokens=5) for one in (model, pair("llama")[0]))
    assert next(both) == next(both)
