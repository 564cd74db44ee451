"""Switching languages on and off: values, edits, what is written, what it costs."""

import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import document, pair

from mwork_lens.capture import as_tokens
from mwork_lens.collect import document_moments, moments
from mwork_lens.corpora import Corpus
from mwork_lens.edits import Edit, applied
from mwork_lens.interventions import record
from mwork_lens.measure import measure
from mwork_lens.models import fingerprint
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import shape_of
from mwork_lens.steering import responses as writing
from mwork_lens.steering.responses import CONDITIONS, RESPONSES, Dose, openings, steering_responses
from mwork_lens.steering.switch import quantile_values, require_effect, steering_values, switch
from mwork_lens.steering.tables import STEERING, damage, steering_table
from mwork_lens.writing.generate import generate
from mwork_lens.writing.identify import as_identifier

IDS = document(9)


def corpus(language, first, last, n=6, words=7):
    """Documents of words of a range of the vocabulary: two 'languages' that share no word."""
    generator = torch.Generator().manual_seed(first)
    texts = [
        " ".join(f"w{i}" for i in torch.randint(first, last, (words,), generator=generator).tolist()) for _ in range(n)
    ]
    return Corpus(language, tuple(texts), tuple(f"d-{i}" for i in range(n)), "test", None)


TEXTS = {"en": corpus("en", 0, 40), "fr": corpus("fr", 40, 80)}


def identify(text):
    """The language most words of a text are of."""
    numbers = [int(word[1:]) for word in text.split() if word.startswith("w")]
    return "unknown" if not numbers else ("en" if sum(n < 40 for n in numbers) * 2 > len(numbers) else "fr")


IDENTIFIER = as_identifier(identify, ["en", "fr"])


@pytest.fixture(scope="module")
def measured():
    return measure(pair("llama")[0], TEXTS, moments("ffn_act"), progress=False)


def some(model, *units, site="ffn"):
    return NeuronSet.of([(site, *unit) for unit in units], shape_of(model, [site]), model=fingerprint(model))


def sets(model):
    return {"en": some(model, (0, 3), (1, 5)), "fr": some(model, (0, 7), (1, 9), (1, 11))}


# --- values ---


def test_values_are_means_of_act_of_gate(llama, measured):
    """Against a loop over documents that reads the pre-activation and applies SiLU."""
    kept = {language: [] for language in TEXTS}
    for language, texts in TEXTS.items():
        for text in texts.texts:
            ids = torch.tensor([llama.tokenizer(text)["input_ids"]])
            gate = record(llama, ids, ["ffn_gate"], layers=[1])["ffn_gate", 1][0, 1:]
            kept[language].append(torch.nn.functional.silu(gate))
    act = {language: torch.cat(parts).double() for language, parts in kept.items()}
    close = {"atol": 1e-5}
    assert torch.allclose(steering_values(measured, "fr")[1].double(), act["fr"].mean(0), **close)
    firing = torch.stack(
        [column[column > 0].mean() if (column > 0).any() else column.new_zeros(()) for column in act["fr"].T]
    )
    assert torch.allclose(steering_values(measured, "fr", "firing")[1].double(), firing, **close)
    contrast = act["fr"].mean(0) - act["en"].mean(0)
    assert torch.allclose(steering_values(measured, "fr", "contrast")[1].double(), contrast, **close)
    neurons = some(llama, (1, 2), (1, 8))
    found = quantile_values(llama, TEXTS["fr"], neurons, 0.8)
    assert torch.allclose(found[1, [2, 8]].double(), torch.quantile(act["fr"], 0.8, dim=0)[[2, 8]], **close)
    assert int((found != 0).sum()) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sw",), "no moments of language 'sw': there are en, fr"),
        (("fr", "median"), "unknown kind of value 'median': choose mean, firing or contrast"),
    ],
)
def test_values_that_cannot_be_had_are_refused(measured, arguments, message):
    with pytest.raises(ValueError, match=message):
        steering_values(measured, *arguments)


def test_values_need_act_of_gate_and_a_contrast_another_language(llama, measured):
    gate = measure(llama, TEXTS, moments("ffn"), progress=False)
    with pytest.raises(
        ValueError, match=r"moments of 'en' are of ffn: steering needs act\(gate\), measure moments\('ffn_act'\)"
    ):
        steering_values(gate, "fr")
    with pytest.raises(ValueError, match="against other languages, and there is only 'fr'"):
        steering_values({"fr": measured["fr"]}, "fr", "contrast")
    with pytest.raises(ValueError, match=r"q=1.5 is not a quantile"):
        quantile_values(llama, TEXTS["fr"], some(llama, (0, 1)), 1.5)


# --- edits ---


def put(model, unit, *edits):
    """act(gate) of a unit of layer 0 under edits, from what W_down reads: ffn / up, up taken from the run without edits (layer 0 only)."""
    plain = record(model, IDS, ["ffn", "ffn_act"], layers=[0])
    up = plain["ffn", 0] / plain["ffn_act", 0]
    with applied(model, *edits):
        return (record(model, IDS, ["ffn"], layers=[0])["ffn", 0] / up)[0, :, unit]


def test_on_replaces_and_adds_and_off_comes_first(llama, measured):
    neurons = some(llama, (0, 3), (0, 7))
    values = torch.full(shape_of(llama, ["ffn"])["ffn"], 0.4)
    before = record(llama, IDS, ["ffn_act"], layers=[0])["ffn_act", 0][0, :, 3]

    def at(**choices):
        return put(llama, 3, *switch(on=neurons, values=values, **choices))

    close = {"atol": 1e-4}
    assert torch.allclose(at(), torch.full((9,), 0.4), **close)
    assert torch.allclose(at(strength=2.0), torch.full((9,), 0.8), **close)
    assert torch.allclose(at(how="add", strength=0.5), before + 0.2, **close)
    both = some(llama, (0, 3), (1, 1))
    assert torch.allclose(at(off=both, off_value=-1.0), torch.full((9,), 0.4), **close)
    assert torch.allclose(at(off=both, off_value=-1.0, how="add"), torch.full((9,), -0.6), **close)
    assert torch.allclose(put(llama, 3, *switch(off=both)), torch.zeros(9), **close)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "without neurons would do nothing"),
        ({"on": (0, 3)}, r"needs values \[layer, width\] \[2, 44\], got nothing"),
        ({"on": (0, 3), "values": torch.ones(2, 40)}, r"needs values \[layer, width\] \[2, 44\], got \[2, 40\]"),
        ({"off": (0, 3), "how": "multiply"}, "unknown how='multiply': choose replace or add"),
        ({"off": (0, 3), "phase": "later"}, "phase 'later': choose prompt, new or all"),
        ({"off": ()}, "off: this set of neurons is empty"),
    ],
)
def test_a_switch_that_cannot_be_is_refused(llama, choices, message):
    made = {
        name: some(llama, *([value] if value else [])) if name in ("on", "off") else value
        for name, value in choices.items()
    }
    with pytest.raises(ValueError, match=message):
        switch(**made)


def test_an_edit_without_effect_is_noticed(llama, measured):
    tokens = as_tokens(IDS, llama)
    neurons = some(llama, (0, 3))
    assert require_effect(llama, tokens, *switch(off=neurons)) > 0
    nothing = Edit({("ffn_act", 0): lambda x: x.clone()})
    with pytest.raises(RuntimeError, match="leave every logit as it was"):
        require_effect(llama, tokens, nothing)


# --- what is written ---


@pytest.fixture(scope="module")
def written(measured):
    model, _ = pair("llama")
    prompts = {"en": openings(model, TEXTS["en"], tokens=5), "fr": openings(model, TEXTS["fr"], tokens=4)[:2]}
    doses = (Dose(strength=3.0), Dose(strength=3.0, phase="new"), Dose(how="add", strength=3.0, off_value=-1.0))
    return prompts, steering_responses(
        model, prompts, sets(model), measured, IDENTIFIER, doses=doses, draws=2, max_new_tokens=6, progress=False
    )


def test_every_condition_is_written_once(written):
    prompts, table = written
    assert list(table.columns) == list(RESPONSES)
    assert set(table["condition"]) == set(CONDITIONS)
    runs = table.groupby(["source", "target", "condition", "how", "strength", "phase", "off_value", "draw"]).size()
    # per source: none; off per phase and value; per dose: on, both, two random
    assert len(runs) == 2 * (1 + 3 + 3 * 4)
    assert all(count == len(prompts[key[0]]) for key, count in runs.items())


def test_responses_are_those_of_the_edits(written, measured):
    """Recomputed by hand: generate inside `applied`, without the function under test."""
    prompts, table = written
    model, _ = pair("llama")
    own = sets(model)
    values = steering_values(measured, "fr")
    with applied(model, *switch(off=own["en"]), *switch(on=own["fr"], values=values, strength=3.0)):
        expected = [made.text for made in generate(model, prompts["en"], max_new_tokens=6, repetition_penalty=1.1)]
    chosen = (
        (table["source"] == "en")
        & (table["condition"] == "both")
        & (table["how"] == "replace")
        & (table["phase"] == "all")
    )
    assert table[chosen]["text"].tolist() == expected
    unsteered = table[(table["source"] == "en") & (table["condition"] == "none")]
    assert unsteered["text"].tolist() == [
        made.text for made in generate(model, prompts["en"], max_new_tokens=6, repetition_penalty=1.1)
    ]
    assert (table["identified"] == table["text"].map(identify)).all()


def test_phase_and_off_value_matter(written, measured):
    """The same dose at other positions writes other texts; with prompt and new tokens together it is the dose at all."""
    prompts, table = written
    here = table[(table["source"] == "en") & (table["how"] == "replace")]
    for condition in ("on", "both"):
        texts = {phase: part["text"].tolist() for phase, part in here[here["condition"] == condition].groupby("phase")}
        assert texts["all"] != texts["new"]
    model, _ = pair("llama")
    values = steering_values(measured, "fr")
    halves = [switch(on=sets(model)["fr"], values=values, strength=3.0, phase=phase) for phase in ("prompt", "new")]
    with applied(model, *halves[0], *halves[1]):
        whole = [made.text for made in generate(model, prompts["en"], max_new_tokens=6, repetition_penalty=1.1)]
    assert whole == here[(here["condition"] == "on") & (here["phase"] == "all")]["text"].tolist()
    off = table[(table["source"] == "en") & (table["condition"] == "off")]
    assert set(zip(off["phase"], off["off_value"], strict=True)) == {("all", 0.0), ("new", 0.0), ("all", -1.0)}
    assert len(steering_table(table).query("condition == 'off' and source == 'en'")) == 3


def test_values_of_ones_own(measured):
    model, _ = pair("llama")
    prompts, dose = {"en": openings(model, TEXTS["en"], tokens=5)}, Dose(value="q99", strength=4.0)
    own = {"fr": quantile_values(model, TEXTS["fr"], sets(model)["fr"], 0.99)}
    given = {"conditions": ("on",), "doses": (dose,), "max_new_tokens": 4, "progress": False}
    table = steering_responses(model, prompts, sets(model), measured, IDENTIFIER, values=own, **given)
    with applied(model, *switch(on=sets(model)["fr"], values=own["fr"], strength=4.0)):
        expected = [made.text for made in generate(model, prompts["en"], max_new_tokens=4, repetition_penalty=1.1)]
    assert table["text"].tolist() == expected
    assert set(table["value"]) == {"q99"}
    with pytest.raises(ValueError, match="values are given for sw, not for the target 'fr'"):
        steering_responses(model, prompts, sets(model), measured, IDENTIFIER, values={"sw": own["fr"]}, **given)


def test_documents_serve_as_moments(llama):
    strata = measure(llama, TEXTS, document_moments("ffn_act"), progress=False)
    for kind in ("mean", "firing", "contrast"):
        pooled = {language: stat.moments() for language, stat in strata.items()}
        assert torch.allclose(steering_values(strata, "fr", kind), steering_values(pooled, "fr", kind), atol=1e-6)


def test_what_is_not_finite_or_of_another_model_is_refused(measured):
    model, _ = pair("llama")
    values = steering_values(measured, "fr")
    for wrong in ({"strength": float("nan")}, {"off_value": float("inf")}):
        with pytest.raises(ValueError, match="give finite numbers"):
            switch(on=sets(model)["fr"], values=values, **wrong)
    with pytest.raises(ValueError, match="set_to: a value is NaN or infinite"):
        switch(on=sets(model)["fr"], values=values * float("nan"))
    foreign = {language: replace(stat, model="another") for language, stat in measured.items()}
    with pytest.raises(ValueError, match=r"the moments of 'en' are of another model \(another\)"):
        steering_responses(model, {"en": ["w1 w2"]}, sets(model), foreign, IDENTIFIER, progress=False)
    wide, _ = pair("bloom")
    with pytest.raises(
        ValueError, match=r"the neurons are of another model: \[layer, width\] \[2, 44\], this one has \[2, 128\]"
    ):
        quantile_values(wide, TEXTS["fr"], NeuronSet(sets(model)["fr"].masks), 0.5)
    with pytest.raises(ValueError, match="tokens=0: a quantile needs at least one token"):
        quantile_values(model, TEXTS["fr"], sets(model)["fr"], 0.5, tokens=0)
    with pytest.raises(ValueError, match=r"applied\(\) takes edits, got tuple: write applied\(model, \*edits\)"):
        next(inspect.unwrap(applied)(model, switch(off=sets(model)["en"])))


def test_finished_runs_are_read_back(tmp_path, measured, monkeypatch):
    model, _ = pair("llama")
    arguments = (model, {"en": openings(model, TEXTS["en"], tokens=5)}, sets(model), measured, IDENTIFIER)
    settings = {"draws": 1, "max_new_tokens": 4, "out": tmp_path / "run", "progress": False}
    real, calls = writing.generate, []

    def breaking(*given, **choices):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given, **choices)

    monkeypatch.setattr(writing, "generate", breaking)
    with pytest.raises(KeyboardInterrupt):
        steering_responses(*arguments, **settings)
    monkeypatch.setattr(writing, "generate", lambda *given, **choices: calls.append(1) or real(*given, **choices))
    with pytest.raises(FileExistsError, match="pass resume=True"):
        steering_responses(*arguments, **settings)
    whole = steering_responses(*arguments, **settings, resume=True)
    assert len(calls) == 3 + 3  # two were finished, three of five were left
    pd.testing.assert_frame_equal(whole, steering_responses(*arguments, **{**settings, "out": None}))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": ["en"]}, ValueError, "nothing to steer: prompts in en, targets en"),
        ({"targets": ["ru"]}, ValueError, "identifier does not know 'ru'"),
        (
            {"conditions": ("sideways",)},
            ValueError,
            "unknown condition 'sideways': choose from none, off, on, both, random",
        ),
        ({"draws": 0}, ValueError, "draws=0: give at least one dose, and a draw"),
        ({"doses": ()}, ValueError, "0 doses"),
        ({"doses": (Dose(value="median"),)}, ValueError, "unknown kind of value 'median'"),
    ],
)
def test_bad_choices_are_refused_before_anything_is_written(measured, change, error, message):
    model, _ = pair("llama")
    with pytest.raises(error, match=message):
        steering_responses(model, {"en": ["w1 w2 w3"]}, sets(model), measured, IDENTIFIER, **change, progress=False)


def test_a_language_without_neurons_is_named(measured):
    model, _ = pair("llama")
    empty = {**sets(model), "fr": some(model)}
    with pytest.raises(
        ValueError, match="language 'fr' has no neurons to steer: raise the detector's rate, or choose among en"
    ):
        steering_responses(model, {"en": ["w1 w2"]}, empty, measured, IDENTIFIER, progress=False)
    foreign = {**sets(model), "fr": NeuronSet(sets(model)["fr"].masks, model="another")}
    with pytest.raises(ValueError, match=r"neurons of 'fr' are of another model \(another\)"):
        steering_responses(model, {"en": ["w1 w2"]}, foreign, measured, IDENTIFIER, progress=False)
    attention = {**sets(model), "fr": some(model, (0, 1), site="q")}
    with pytest.raises(ValueError, match="moves FFN units; this set has q"):
        steering_responses(model, {"en": ["w1 w2"]}, attention, measured, IDENTIFIER, progress=False)


def test_openings_have_the_length_asked_for(llama):
    for text in openings(llama, TEXTS["en"], tokens=4):
        assert len(llama.tokenizer(text)["input_ids"]) == 4
        assert any(whole.startswith(text) for whole in TEXTS["en"].texts)
    with pytest.raises(ValueError, match="no document of 'en' opens with 50 tokens"):
        openings(llama, TEXTS["en"], tokens=50)
    with pytest.raises(ValueError, match="tokens=1: a prompt needs at least 2"):
        openings(llama, TEXTS["en"], tokens=1)


# --- tables ---


def rows(identified, *, condition="both", target="fr", draw=-1, tokens=5, nll=2.0):
    return [
        ("en", target, condition, "replace", "mean", 1.0, "all", 0.0, draw, i, "w50", "length", tokens, name, nll, 0.1)
        for i, name in enumerate(identified)
    ]


def test_accuracy_counts_empty_and_unknown_as_failures():
    data = [
        *rows(["fr", "fr", "en", "unknown"]),
        *rows(["fr", "en", "en", "en"], condition="random", draw=0),
        *rows(["fr", "fr", "en", "en"], condition="random", draw=1),
        *rows(["unknown"] * 4, condition="none", target="", tokens=0, nll=float("nan")),
    ]
    table = steering_table(pd.DataFrame(data, columns=list(RESPONSES)), targets=["fr"])
    assert list(table.columns) == list(STEERING)
    both, random, none = (table[table["condition"] == name].iloc[0] for name in ("both", "random", "none"))
    assert (both["accuracy"], both["in_source"], both["unknown"]) == (0.5, 0.25, 0.25)
    from scipy.stats import binomtest

    expected = binomtest(2, 4).proportion_ci(method="wilson")
    assert (both["accuracy_low"], both["accuracy_high"]) == pytest.approx((expected.low, expected.high))
    assert (random["accuracy"], random["draw_low"], random["draw_high"], random["responses"]) == (3 / 8, 0.25, 0.5, 8)
    # the draws share their prompts: four prompts decide, not eight responses (by prompt 1, 1/2, 0, 0)
    assert random["accuracy_high"] - random["accuracy_low"] > 0.7
    assert (none["target"], none["accuracy"], none["empty"]) == ("fr", 0.0, 1.0)
    assert np.isnan(none["nll"])
    with pytest.raises(ValueError, match="responses lack the column 'identified'"):
        steering_table(pd.DataFrame(data, columns=list(RESPONSES)).drop(columns="identified"))
    with pytest.raises(ValueError, match="these responses have no target: say whose accuracy"):
        steering_table(pd.DataFrame(rows(["fr"], condition="none", target=""), columns=list(RESPONSES)))
    with pytest.raises(ValueError, match="no responses"):
        steering_table(pd.DataFrame([], columns=list(RESPONSES)))


def test_damage_is_the_change_of_the_loss(measured):
    """Against Hugging Face's loss of the plain model, one document at a time, with the activation function replaced."""
    from test_gates import replaced

    model, plain = pair("llama")
    own = sets(model)
    table = damage(model, TEXTS, own, measured, targets=["fr"], conditions=("both",), doses=(Dose(strength=2.0),))
    assert table["language"].tolist() == ["en", "fr"]
    values = 2.0 * steering_values(measured, "fr")

    def change(layer):
        def put(x):
            x = torch.where(own["en"].masks["ffn"][layer], torch.zeros(()), x)
            return torch.where(own["fr"].masks["ffn"][layer], values[layer], x)

        return put

    for language, texts in TEXTS.items():
        total, tokens = 0.0, 0
        for text in texts.texts:
            ids = torch.tensor([model.tokenizer(text)["input_ids"]])
            with torch.no_grad():
                before = plain(ids, labels=ids).loss.item()
            with replaced(plain, {layer: change(layer) for layer in range(2)}):
                after = plain(ids, labels=ids).loss.item()
            total += (after - before) * (ids.shape[1] - 1)
            tokens += ids.shape[1] - 1
        row = table[table["language"] == language].iloc[0]
        assert row["dnll"] == pytest.approx(total / tokens, abs=1e-4)
        assert row["dnll_low"] <= row["dnll"] <= row["dnll_high"]
    with pytest.raises(ValueError, match="nothing to steer from 'en': targets are en"):
        damage(model, TEXTS, own, measured, targets=["en"])
    with pytest.raises(ValueError, match="use phase='all'"):
        damage(model, TEXTS, own, measured, doses=(Dose(phase="new"),))
