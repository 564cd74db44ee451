"""Scores against Hugging Face's own loss, one document at a time; differences against a plain bootstrap."""

import random

import families
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import pair
from tokenizers import processors

from mwork_lens.corpora import Corpus, Tokens, batches
from mwork_lens.edits import Edit, applied
from mwork_lens.evaluate import DIFFERENCES, SCORES, difference, document_nll, evaluate, resample
from mwork_lens.interventions import deactivate
from mwork_lens.models import load_model
from mwork_lens.neurons import NeuronSet
from mwork_lens.sites import shape_of


def corpus(language, n, seed):
    rng = random.Random(seed)
    texts = tuple(" ".join(f"w{rng.randrange(90)}" for _ in range(rng.randrange(2, 15))) for _ in range(n))
    return Corpus(language, texts, tuple(f"d{i}" for i in range(n)))


@pytest.fixture(scope="module")
def texts():
    return {"en": corpus("en", 9, 0), "de": corpus("de", 7, 1)}


def naive_nll(plain, tokenizer, text):
    """Hugging Face's loss of one document alone, times the tokens it is a mean of."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return plain(ids, labels=ids).loss.item() * (ids.shape[1] - 1)


def off(model):
    return NeuronSet({"ffn": torch.rand(shape_of(model)["ffn"], generator=torch.Generator().manual_seed(0)) < 0.5})


def test_scores_are_those_of_hugging_face(any_family, texts):
    _, model, plain = any_family
    table = evaluate(model, texts, size=4)
    assert list(table.columns) == list(SCORES)
    assert table["document"].tolist() == [f"d{i}" for n in (9, 7) for i in range(n)]
    assert table["language"].tolist() == ["en"] * 9 + ["de"] * 7
    assert set(table["condition"]) == {"baseline"}
    written = [text for language in ("en", "de") for text in texts[language].texts]
    for text, nll, tokens in zip(written, table["nll"], table["tokens"], strict=True):
        assert nll == pytest.approx(naive_nll(plain, model.tokenizer, text), rel=1e-4)
        assert tokens == len(text.split())  # neither BOS nor padding


def test_batches_do_not_change_scores_nor_tokens(llama, texts):
    one, many = evaluate(llama, texts, size=1), evaluate(llama, texts, size=16)
    assert one["tokens"].tolist() == many["tokens"].tolist()
    np.testing.assert_allclose(one["nll"], many["nll"], rtol=1e-5)


def test_every_condition_scores_the_same_tokens(llama, texts):
    before = evaluate(llama, texts)
    with deactivate(llama, off(llama)):
        after = evaluate(llama, texts, condition="off")
    assert after["tokens"].tolist() == before["tokens"].tolist()
    assert set(after["condition"]) == {"off"}
    assert (after["nll"] != before["nll"]).all()
    assert evaluate(llama, texts)["nll"].tolist() == before["nll"].tolist()
    assert len(difference(after, before)) == 2


def test_length_cuts_documents(llama, texts):
    with pytest.warns(UserWarning, match="were truncated"):
        table = evaluate(llama, texts, ["de"], length=5)
    assert table["tokens"].tolist() == [min(len(text.split()), 4) for text in texts["de"].texts]


def test_languages_are_scored_as_asked(llama, texts):
    assert evaluate(llama, texts, ["de"])["language"].unique().tolist() == ["de"]
    with pytest.raises(ValueError, match="no held-out texts for language 'fr': there are en, de"):
        evaluate(llama, texts, ["fr"])


def test_positions_that_are_not_kept_do_not_count(llama):
    plain = pair("llama")[1]
    ids = torch.tensor([[1, 10, 11, 12, 13]])
    keep = torch.tensor([[False, True, False, True, True]])
    with torch.no_grad():
        logprobs = plain(ids).logits.log_softmax(-1)
    expected = -sum(float(logprobs[0, i - 1, ids[0, i]]) for i in (1, 3, 4))
    assert float(document_nll(llama, Tokens(ids, keep))) == pytest.approx(expected, rel=1e-5)


def test_logits_that_are_no_number_are_named(llama, texts):
    def spoil(x):
        x = x.clone()
        x[2] = float("nan")
        return x

    by_length = sorted(
        (len(text.split()), i) for i, text in enumerate(texts["en"].texts)
    )  # batches are sorted by length
    culprit = (
        f"NaN or infinite logits in en/d{by_length[2][1]}: load the model with dtype='float32', or soften the edit"
    )
    spoiled = Edit({("resid_post", 1): spoil})
    with applied(llama, spoiled), pytest.raises(ValueError, match=culprit):
        evaluate(llama, texts, ["en"])
    tokens = next(batches(texts["en"], llama))
    nameless = Tokens(tokens.ids, tokens.keep, "en", tokens.attention_mask)
    with applied(llama, spoiled), pytest.raises(ValueError, match="logits in row 2:"):
        document_nll(llama, nameless)


def test_a_document_without_a_token_to_predict_is_named(llama):
    unmarked = families.tokenizer()
    unmarked.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    model = load_model(families.hf_model("llama"), tokenizer=unmarked)
    with pytest.raises(ValueError, match="document en/1 has a single token, so there is none to predict: remove it"):
        evaluate(model, {"en": Corpus("en", ("w1 w2 w3", "w4"))})
    # without BOS in front, the first token is not scored
    assert evaluate(model, {"en": Corpus("en", ("w1 w2 w3", "w4 w5"))})["tokens"].tolist() == [2, 1]
    assert evaluate(llama, {"en": Corpus("en", ("w1 w2 w3", "w4"))})["tokens"].tolist() == [3, 1]


# --- differences


def scores(rng, documents, *, harm=0.3, noise=0.02):
    """Two tables whose documents are alike in difficulty: (after, before)."""
    rows = []
    for language in ("en", "de"):
        tokens = rng.integers(5, 60, documents)
        hard = rng.normal(3, 1.0, documents)
        for condition, shift in (("off", harm), ("baseline", 0.0)):
            nll = (hard + shift + noise * rng.normal(size=documents)) * tokens
            rows += [(condition, language, f"d{i}", nll[i], tokens[i]) for i in range(documents)]
    table = pd.DataFrame(rows, columns=list(SCORES))
    return table[table["condition"] == "off"].reset_index(drop=True), table[
        table["condition"] == "baseline"
    ].reset_index(drop=True)


def test_differences_are_a_plain_bootstrap():
    after, before = scores(np.random.default_rng(1), 23)
    table = difference(after, before, resamples=400, seed=5)
    assert list(table.columns) == list(DIFFERENCES)
    drawn = np.random.default_rng(5).multinomial(23, [1 / 23] * 23, size=400)
    for row in table.itertuples():
        a, b = (t[t["language"] == row.language].to_dict("records") for t in (after, before))
        mean = [sum(r["nll"] for r in t) / sum(r["tokens"] for r in t) for t in (a, b)]
        assert (row.after, row.before) == pytest.approx(tuple(mean))
        assert row.change == pytest.approx(mean[0] - mean[1])
        changes = []
        for counts in drawn:
            again = [i for i, count in enumerate(counts) for _ in range(count)]
            assert len(again) == 23
            tokens = sum(a[i]["tokens"] for i in again)
            changes.append(sum(a[i]["nll"] for i in again) / tokens - sum(b[i]["nll"] for i in again) / tokens)
        assert (row.low, row.high) == pytest.approx(tuple(np.percentile(changes, [2.5, 97.5])))
        assert (row.documents, row.tokens) == (23, sum(r["tokens"] for r in a))


def test_above_zero_is_worse_and_the_order_is_the_sign():
    after, before = scores(np.random.default_rng(2), 40)
    there, back = difference(after, before), difference(before, after)
    assert (there["low"] > 0).all()
    assert (there["change"].sub(0.3).abs() < 0.05).all()
    np.testing.assert_allclose(there[["change", "low", "high"]], -back[["change", "high", "low"]].to_numpy(), rtol=1e-9)
    nothing = difference(before, before)
    assert (nothing[["change", "low", "high"]] == 0).all(axis=None)


def test_paired_intervals_are_narrower_on_correlated_documents():
    after, before = scores(np.random.default_rng(3), 60)
    paired = difference(after, before).iloc[0]
    a, b = (t[t["language"] == paired["language"]] for t in (after, before))
    rng = np.random.default_rng(0)
    unpaired = []
    for _ in range(1000):
        i, j = rng.integers(0, 60, 60), rng.integers(0, 60, 60)
        unpaired.append(
            a["nll"].iloc[i].sum() / a["tokens"].iloc[i].sum() - b["nll"].iloc[j].sum() / b["tokens"].iloc[j].sum()
        )
    low, high = np.quantile(unpaired, [0.025, 0.975])
    assert paired["high"] - paired["low"] < 0.2 * (high - low)
    # negative control: where documents do not correlate, pairing wins nothing
    shuffled = after.assign(
        nll=after.groupby("language")["nll"].transform(lambda x: x.sample(frac=1, random_state=0).to_numpy())
    )
    loose = difference(shuffled, before).iloc[0]
    assert loose["high"] - loose["low"] > 0.8 * (high - low)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, inside = np.random.default_rng(4), []
    for _ in range(80):
        after, before = scores(rng, 40, harm=0.1, noise=0.3)
        table = difference(after, before, resamples=200)
        inside += ((table["low"] <= 0.1) & (table["high"] >= 0.1)).tolist()
    assert 0.88 < np.mean(inside) < 0.99


def test_resampling_is_the_same_for_every_condition():
    assert (resample(12, seed=3) == resample(12, seed=3)).all()
    assert (resample(12, seed=3) != resample(12, seed=4)).any()
    assert (resample(12, resamples=50).sum(1) == 12).all()


def test_tables_of_other_tokens_are_refused():
    after, before = scores(np.random.default_rng(0), 6)
    other = before.assign(tokens=before["tokens"] + 1)
    for wrong in (other, before[before["document"] != "d3"], before.iloc[::-1]):
        for pair_of in ((after, wrong), (wrong, after)):
            with pytest.raises(
                ValueError, match=r"not score the same tokens of '(de|en)': evaluate the same texts with the"
            ):
                difference(*pair_of)
    one = before[before["language"] == "en"]
    for pair_of in ((after, one), (one, after)):
        with pytest.raises(
            ValueError, match="only one of the two tables scores de: evaluate the same texts under both"
        ):
            difference(*pair_of)


def test_a_masked_language_model_is_refused(llama, texts, monkeypatch):
    monkeypatch.setattr(llama.cfg, "architecture", "BertForMaskedLM")
    with pytest.raises(ValueError, match=r"BertForMaskedLM sees the tokens it predicts: .* need a causal decoder"):
        evaluate(llama, texts)


def test_left_padding_predicts_nothing(llama):
    ids, mask = torch.tensor([[0, 0, 5, 6, 7]]), torch.tensor([[False, False, True, True, True]])
    padded = document_nll(llama, Tokens(ids, mask, "", mask))
    alone = document_nll(llama, Tokens(ids[:, 2:], mask[:, 2:], ""))
    assert padded.item() == pytest.approx(alone.item(), rel=1e-5)
