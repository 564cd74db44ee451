"""A model in which the language neurons are known: each method must find them from texts, and none when the texts are shuffled.

Words carry a direction of their language, which attention and FFN leave in the stream. Planted gates read that direction; all others are blind to it.
"""

import families
import pytest
import torch

from mwork_lens.collect import document_moments
from mwork_lens.corpora import Corpus
from mwork_lens.detect.ap import ap, average_precisions
from mwork_lens.detect.lap import lap
from mwork_lens.detect.lape import effective_languages, language_entropy, lape, probabilities
from mwork_lens.detect.lave import activation_values, lave
from mwork_lens.detect.penalised import penalised
from mwork_lens.measure import measure
from mwork_lens.models import load_model

PLANTED = {"en": {(0, 3), (1, 40)}, "de": {(0, 21), (1, 5)}, "zh": {(0, 30), (1, 43)}}
WORDS = {"en": range(0, 31), "de": range(31, 62), "zh": range(62, 93)}
RATE = 6 / 88

pytestmark = pytest.mark.filterwarnings("ignore:too few tokens", "ignore:only .* units exceed")


@pytest.fixture(scope="module")
def model():
    hf = families.hf_model("llama")
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q
    languages, blind = (
        basis[:3],
        basis[3:].T @ basis[3:],
    )  # directions of the languages, and the projection that cannot see them
    with torch.no_grad():
        rows = 0.3 * torch.randn(families.VOCAB, 32, generator=generator) @ blind
        for direction, words in zip(languages, WORDS.values(), strict=True):
            rows[[4 + word for word in words]] += 3 * direction
        hf.model.embed_tokens.weight.copy_(rows)
        for layer, block in enumerate(hf.model.layers):
            for norm in (block.input_layernorm, block.post_attention_layernorm):
                norm.weight.fill_(1)
            block.self_attn.o_proj.weight.zero_()
            block.mlp.gate_proj.weight.copy_(block.mlp.gate_proj.weight @ blind)
            block.mlp.down_proj.weight.copy_(0.05 * blind @ block.mlp.down_proj.weight)
            for i, units in enumerate(PLANTED.values()):
                for unit in (unit for at, unit in units if at == layer):
                    block.mlp.gate_proj.weight[unit] = 1.5 * languages[i] - 0.5 * languages.sum(0)
    return load_model(hf, tokenizer=families.tokenizer())


def texts(*, shuffled):
    generator = torch.Generator().manual_seed(1)
    made = {}
    for language, words in WORDS.items():
        pool = torch.arange(93) if shuffled else torch.tensor(list(words))
        drawn = pool[torch.randint(len(pool), (40, 30), generator=generator)]
        made[language] = Corpus(language, tuple(" ".join(f"w{w}" for w in row) for row in drawn.tolist()))
    return made


@pytest.fixture(scope="module")
def true(model):
    return measure(model, texts(shuffled=False), document_moments("ffn_act"), progress=False)


@pytest.fixture(scope="module")
def false(model):
    return measure(model, texts(shuffled=True), document_moments("ffn_act"), progress=False)


METHODS = {
    "lape": lambda strata: lape(strata, rate=RATE),
    "lape per document": lambda strata: lape(strata, rate=RATE, per="document"),
    "lap": lambda strata: lap(strata),
    "lave": lambda strata: lave(strata, rate=RATE),
    "penalised": lambda strata: penalised(strata, rate=RATE),
    "ap": lambda strata: ap(strata, side="top", count=8),
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_the_planted_neurons(method, true):
    found = {language: {(j, i) for _, j, i in neurons} for language, neurons in METHODS[method](true).items()}
    if method == "ap":  # other units may label a document's language as well as the planted do
        assert all(PLANTED[language] <= units for language, units in found.items())
    else:
        assert found == PLANTED


@pytest.mark.parametrize("method", [method for method in METHODS if method != "lave"])
def test_no_method_finds_them_in_shuffled_texts(method, false):
    found = {language: {(j, i) for _, j, i in neurons} for language, neurons in METHODS[method](false).items()}
    assert all(not PLANTED[language] & units for language, units in found.items())
    if method == "lap":
        assert not any(found.values())


def test_what_is_chosen_from_shuffled_texts_is_nobodys(true, false):
    """Entropy and average precision say so: the chosen units serve all three languages, and label no document."""
    spread = {
        name: effective_languages(language_entropy(probabilities(strata)))
        for name, strata in (("true", true), ("false", false))
    }
    planted = torch.zeros(2, 44, dtype=torch.bool)
    for units in PLANTED.values():
        for unit in units:
            planted[unit] = True
    assert spread["true"][planted].max() == 1
    assert spread["false"].min() > 2.9
    best = {
        name: max(float(x.max()) for x in _precisions(strata)) for name, strata in (("true", true), ("false", false))
    }
    assert best["true"] == 1
    assert best["false"] < 0.7


def test_lave_gives_them_to_everybody_in_shuffled_texts(false):
    """Its filter asks for large means, which planted units have in every language now: they are chosen, and belong to nobody alone."""
    values = activation_values(false)
    planted = [unit for units in PLANTED.values() for unit in units]
    assert min(float(effective_languages(language_entropy(values))[unit]) for unit in planted) > 2.9
    sets = [{(j, i) for _, j, i in neurons} for neurons in lave(false, rate=RATE).values()]
    assert sum(map(len, sets)) > 2 * len(set.union(*sets))  # nearly every unit in nearly every list


def _precisions(strata):
    found = average_precisions(strata)
    for values in found.values() if isinstance(found, dict) else [found]:
        yield from values.values() if isinstance(values, dict) else [values]
