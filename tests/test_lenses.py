"""The lens against the model's own logits, against explicit arithmetic, and against plain loops over documents."""

import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import document, pair
from families import CONTEXT, VOCAB
from oracles import hf_blocks

from mwork_lens.corpora import Corpus, Tokens, batches
from mwork_lens.languages import TokenLanguages
from mwork_lens.lenses import Reading, layer_languages, read, token_languages
from mwork_lens.storage import Run, load, save

IDS = document(9)


def labelled(seed=0, languages=("en", "de"), vocab=VOCAB):
    """Random labels: languages, shared and unknown."""
    generator = torch.Generator().manual_seed(seed)
    return TokenLanguages(languages, torch.randint(0, len(languages) + 2, (vocab,), generator=generator), "counts")


def corpus(language, n, seed, *, words=range(90)):
    rng = random.Random(seed)
    texts = tuple(" ".join(f"w{rng.choice(words)}" for _ in range(rng.randrange(2, 12))) for _ in range(n))
    return Corpus(language, texts, tuple(f"{language}{i}" for i in range(n)))


@pytest.fixture(scope="module")
def texts():
    """Each language has words of its own, and a third it shares."""
    return {"en": corpus("en", 6, 0, words=range(0, 45)), "de": corpus("de", 5, 1, words=range(30, 75))}


def lens(model, corpora, **options):
    return layer_languages(model, corpora, progress=False, **{"resamples": 200, **options})


def curve(table, text, token, column="share"):
    rows = table[(table["text_language"] == text) & (table["token_language"] == token)]
    return rows.set_index("layer")[column].sort_index()


def spread(reading, layer):
    """All log-probabilities [batch pos vocab] of a reading with k = vocab."""
    out = torch.full(reading.tokens.shape[1:], float("nan"))
    return out.scatter(-1, reading.tokens[layer], reading.logprobs[layer])


def streams(plain, ids):
    """The residual stream before each block and after the last, of a plain model."""
    seen, blocks = [], hf_blocks(plain)
    handles = [
        b.register_forward_pre_hook(
            lambda m, args, kwargs: seen.append((args or tuple(kwargs.values()))[0]), with_kwargs=True
        )
        for b in blocks
    ]
    handles.append(
        blocks[-1].register_forward_hook(lambda m, args, out: seen.append(out[0] if isinstance(out, tuple) else out))
    )
    try:
        with torch.no_grad():
            plain(ids)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def say(plain, stream):
    """Log-probabilities of a stream of a plain Llama: its RMS norm and unembedding, written out."""
    norm, unembed = plain.model.norm, plain.lm_head.weight.detach().double()
    x = stream.double()
    x = x / (x.square().mean(-1, keepdim=True) + plain.config.rms_norm_eps).sqrt() * norm.weight.detach().double()
    logits = x @ unembed.T
    return logits - logits.exp().sum(-1, keepdim=True).log()


# --- read


def test_the_last_entry_is_what_the_model_says(any_family):
    """Soft-cap (gemma2) and logit scale (cohere) included."""
    _, model, plain = any_family
    labels = labelled()
    reading = read(model, IDS, labels, k=VOCAB)
    with torch.no_grad():
        expected = plain(IDS).logits.log_softmax(-1)
    assert reading.tokens.shape == (3, 1, 9, VOCAB)
    torch.testing.assert_close(spread(reading, -1), expected, rtol=1e-4, atol=1e-4)
    for i in range(4):
        mass = expected.exp()[..., labels.labels == i].sum(-1)
        torch.testing.assert_close(reading.languages[-1][..., i], mass, rtol=1e-3, atol=1e-5)
    # negative control: no earlier entry is
    assert all(float((spread(reading, i) - expected).abs().max()) > 1e-2 for i in (0, 1))


def test_every_entry_of_a_llama_is_norm_and_unembedding(llama):
    plain = pair("llama")[1]
    reading = read(llama, IDS, labelled(), k=VOCAB)
    with torch.no_grad():
        embedding = plain.model.embed_tokens(IDS)
    torch.testing.assert_close(spread(reading, 0).double(), say(plain, embedding), rtol=1e-4, atol=1e-4)
    for layer, stream in enumerate(streams(plain, IDS)):
        torch.testing.assert_close(spread(reading, layer).double(), say(plain, stream), rtol=1e-4, atol=1e-4)


def test_the_top_is_sorted_and_mass_is_a_distribution(any_family):
    _, model, _ = any_family
    reading = read(model, torch.cat([IDS, document(9, seed=4)]), labelled(), k=5)
    assert reading.names == ("en", "de", "shared", "unknown")
    assert reading.tokens.shape == reading.logprobs.shape == (3, 2, 9, 5)
    assert reading.languages.shape == (3, 2, 9, 4)
    assert (reading.logprobs.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(reading.languages.sum(-1), torch.ones(3, 2, 9), rtol=1e-4, atol=1e-4)
    whole = read(model, torch.cat([IDS, document(9, seed=4)]), labelled(), k=VOCAB)
    assert torch.equal(whole.tokens[..., :5], reading.tokens)


def test_reading_in_pieces_reads_the_same(llama, monkeypatch):
    import sys

    whole = read(llama, IDS, labelled(), k=7)
    monkeypatch.setattr(sys.modules["mwork_lens.lenses"], "_CHUNK", 4 * VOCAB)
    pieces = read(llama, IDS, labelled(), k=7)
    assert torch.equal(whole.tokens, pieces.tokens)
    torch.testing.assert_close(whole.logprobs, pieces.logprobs)
    torch.testing.assert_close(whole.languages, pieces.languages)


def test_a_reading_survives_the_disk(llama, tmp_path):
    reading = read(llama, IDS, labelled(), k=3)
    save(reading, tmp_path / "r.safetensors", Run("lens"))
    again = load(tmp_path / "r.safetensors")
    assert isinstance(again, Reading)
    assert again.names == reading.names
    assert all(
        torch.equal(getattr(again, name), getattr(reading, name)) for name in ("tokens", "logprobs", "languages")
    )


@pytest.mark.parametrize("k", [0, VOCAB + 1])
def test_a_k_outside_the_vocabulary_is_refused(llama, k):
    with pytest.raises(ValueError, match=f"k={k}: give between 1 and 97 top tokens"):
        read(llama, IDS, labelled(), k=k)


# --- layer_languages


def test_shares_and_masses_are_those_of_plain_loops(llama):
    plain, labels = pair("llama")[1], labelled(3)
    texts = {"en": Corpus("en", ("w3 w14 w15 w9", "w2 w6 w53 w58 w9 w7 w9"))}
    table = lens(llama, texts, identify=labels, k=6)
    counts, mass, positions = np.zeros((3, 4)), np.zeros((3, 4)), 0
    for text in texts["en"].texts:
        ids = torch.tensor([[1, *(int(word[1:]) + 4 for word in text.split())]])
        for layer, stream in enumerate(streams(plain, ids)):
            logprobs = say(plain, stream)[0]
            for position in range(1, ids.shape[1]):  # BOS is not read
                by_size = sorted(range(VOCAB), key=lambda token, at=logprobs[position]: -float(at[token]))
                for token in by_size[:6]:
                    counts[layer, int(labels.labels[token])] += 1
                for token in range(VOCAB):
                    mass[layer, int(labels.labels[token])] += float(logprobs[position, token].exp())
        positions += ids.shape[1] - 1
    for layer in range(3):
        for i, name in enumerate(("en", "de", "shared", "unknown")):
            assert curve(table, "en", name, "mass")[layer] == pytest.approx(mass[layer, i] / positions, rel=1e-4)
            share = counts[layer, i] / counts[layer, :2].sum() if i < 2 else float("nan")
            assert curve(table, "en", name)[layer] == pytest.approx(share, nan_ok=True)
            assert curve(table, "en", name, "coverage")[layer] == pytest.approx(
                counts[layer, :2].sum() / counts[layer].sum()
            )
    assert set(table["documents"]) == {2}
    assert set(table["positions"]) == {11} == {positions}


def test_shares_and_masses_sum_to_one(llama, texts):
    table = lens(llama, texts)
    assert len(table) == 2 * 4 * 3  # texts, tokens, entries
    per_entry = table.groupby(["text_language", "layer"])
    np.testing.assert_allclose(per_entry["mass"].sum(), 1, rtol=1e-4)
    covered = per_entry["coverage"].first() > 0
    assert covered.all()
    np.testing.assert_allclose(per_entry["share"].sum(), 1)
    assert table[table["token_language"].isin(["shared", "unknown"])]["share"].isna().all()
    assert table["coverage"].between(0, 1).all()


def test_without_reliable_tokens_there_is_no_share(llama, texts):
    nobody = TokenLanguages(("en", "de"), torch.full((VOCAB,), 3), "counts")
    table = lens(llama, texts, identify=nobody)
    assert table[["share", "share_low", "share_high"]].isna().all(axis=None)  # and not zero
    assert (table["coverage"] == 0).all()
    np.testing.assert_allclose(table[table["token_language"] == "unknown"]["mass"], 1, rtol=1e-4)
    assert (table[table["token_language"] != "unknown"]["mass"] == 0).all()
    # negative control: a single labelled token is enough, where it is among the top
    labels = nobody.labels.clone()
    labels[int(read(llama, IDS, nobody, k=1).tokens[-1, 0, -1, 0])] = 1
    table = lens(llama, texts, identify=TokenLanguages(("en", "de"), labels, "counts"), k=40)
    seen = table[table["coverage"] > 0]
    assert len(seen)
    assert (seen[seen["token_language"] == "de"]["share"] == 1).all()
    assert (seen[seen["token_language"] == "en"]["share"] == 0).all()


def test_padding_changes_nothing(llama, texts):
    alone, together = lens(llama, texts, size=1), lens(llama, texts, size=16)
    pd.testing.assert_frame_equal(alone, together, rtol=1e-4, atol=1e-5)
    batch = next(batches(texts["en"], llama))
    assert batch.attention_mask is not None
    spoiled = Tokens(
        torch.where(batch.mask, batch.ids, torch.full_like(batch.ids, 50)), batch.keep, "en", batch.attention_mask
    )
    for a, b in zip(*(read(llama, t, labelled()).languages[:, batch.keep] for t in (batch, spoiled)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_intervals_hold_the_estimate_and_shrink_with_documents(llama):
    widths = []
    for n in (6, 96):
        table = lens(llama, {"en": corpus("en", n, 7)}, identify=labelled())
        for name in ("share", "mass"):
            known = table.dropna(subset=[name])
            assert ((known[f"{name}_low"] <= known[name]) & (known[name] <= known[f"{name}_high"])).all()
        widths.append((table["mass_high"] - table["mass_low"]).mean())
    assert widths[1] < 0.5 * widths[0]
    one = lens(llama, {"en": corpus("en", 1, 7)}, identify=labelled())
    np.testing.assert_allclose(one["mass_low"], one["mass_high"])  # one document cannot be resampled


def test_the_bootstrap_is_seeded(llama, texts):
    pd.testing.assert_frame_equal(lens(llama, texts, seed=1), lens(llama, texts, seed=1))
    a, b = lens(llama, texts, seed=1), lens(llama, texts, seed=2)
    assert (a["mass_low"] != b["mass_low"]).any()
    assert (a["mass"] == b["mass"]).all()


@pytest.mark.filterwarnings("ignore:.*were truncated")
def test_the_trained_model_ends_in_the_language_of_the_text(polyglot):
    from mwork_lens.corpora import load_corpora

    texts = load_corpora("embedded", ["en", "ru", "zh"], limit=3)
    table = lens(polyglot, texts, identify="script", length=48)
    n = int(table["layer"].max())
    assert n == 8
    for language in texts:
        last = curve(table, language, language, "mass")[n]
        assert last == max(curve(table, language, name, "mass")[n] for name in texts)
        assert curve(table, language, language)[n] > 0.8
    assert curve(table, "ru", "zh", "mass")[n] < 0.05  # the control: a language nobody speaks here


# --- labels


def test_script_labels_words_by_their_letters(llama, texts):
    table = lens(llama, {"en": texts["en"], "zh": texts["de"]}, identify="script")
    assert (curve(table, "en", "en") == 1).all()  # w12 is Latin, and Chinese is not
    assert (curve(table, "zh", "zh") == 0).all()
    table = lens(llama, texts, identify="script")  # both Latin: nobody's
    assert table["share"].isna().all()
    assert (table["coverage"] == 0).all()


def test_reference_texts_label_the_vocabulary(llama, texts):
    found = token_languages(llama, texts)
    for language, theirs in (("en", range(0, 30)), ("de", range(45, 75))):
        words = Counter(word for text in texts[language].texts for word in text.split() if int(word[1:]) in theirs)
        word, count = words.most_common(1)[0]
        assert count > 1
        assert found.of(4 + int(word[1:])) == language
    table = lens(
        llama, {"en": texts["de"]}, reference=texts
    )  # German documents read as "en": labels come from the reference
    labelled_by_reference = lens(llama, {"en": texts["de"]}, identify=found)
    pd.testing.assert_frame_equal(table, labelled_by_reference)


def test_labels_of_another_vocabulary_are_refused(llama, texts):
    with pytest.raises(ValueError, match="label 96 tokens, the model has 97: made for another tokenizer"):
        lens(llama, texts, identify=labelled(vocab=96))


def test_an_unknown_way_to_identify_is_refused(llama, texts):
    import sys

    unchecked = sys.modules[
        "mwork_lens.lenses"
    ].token_languages.__wrapped__  # as from the command line, without type checks
    with pytest.raises(ValueError, match="unknown identify='vibes': choose counts, script or lingua"):
        unchecked(llama, texts, identify="vibes")


def test_nothing_to_read_is_refused(llama, texts):
    with pytest.raises(ValueError, match="no corpora to read: give at least one language"):
        lens(llama, {})
    with pytest.raises(ValueError, match=r"at least two corpora, got .'en'"):
        lens(llama, {"en": texts["en"]})


def test_long_documents_are_cut_with_a_warning(llama):
    long = {"en": Corpus("en", ("w1 " * (CONTEXT + 5), "w2 w3")), "de": Corpus("de", ("w7 w8 w9", "w7"))}
    with pytest.warns(UserWarning, match="1 of 2 documents of 'en' were longer than the limit"):
        table = lens(llama, long)
    assert set(table[table["text_language"] == "en"]["positions"]) == {CONTEXT - 1 + 2}


def test_read_without_labels_leaves_the_languages_empty(llama, texts):
    reading = read(llama, document(), k=3)
    assert reading.names == ()
    assert reading.languages.shape == (*reading.tokens.shape[:3], 0)
    assert torch.equal(reading.tokens, read(llama, document(), token_languages(llama, texts), k=3).tokens)
