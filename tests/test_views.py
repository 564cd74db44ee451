"""The views show what the model did: labels are the text, numbers are those of plain runs, and no text becomes HTML."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import families
import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mwork_lens as mw
from mwork_lens.languages import TokenLanguages
from mwork_lens.plots import language_colours
from mwork_lens.views import (
    View,
    attention_view,
    edit_view,
    fragment,
    lens_view,
    neuron_view,
    page,
    top_tokens_view,
    write_views,
)
from mwork_lens.views.labels import (
    document,
    labels_of_bytes,
    readable,
    runs_rtl,
    text_labels,
    token_name,
    visible,
)
from mwork_lens.views.page import _json, circuitsvis_script, component_text, plain_values
from mwork_lens.written import number

TEXT = "w3 w14 w15 w9 w26 w5"
HOSTILE = "<img src=x onerror=alert(1)> </script><script>alert(2)</script> <b>& \"'> w3"
SHAPE = {"ffn": (2, 44), "z": (2, 32)}
UNITS = [("ffn", 0, 3), ("ffn", 1, 7), ("ffn", 1, 9), ("z", 1, 2)]
# what a tokenizer may be given: any text, but no half characters; `<s>` in a text is a special token to Hugging Face, so it is no example here
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def organism():
    return mw.load_model("organism")


@pytest.fixture(scope="module")
def labels():
    generator = torch.Generator().manual_seed(0)
    return TokenLanguages(("en", "de", "zh"), torch.randint(0, 5, (families.VOCAB,), generator=generator), "counts")


@pytest.fixture
def unchecked(monkeypatch):
    """Without the tests' type checker, which would refuse a wrong type before the code does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def neurons():
    return mw.NeuronSet.of(UNITS, SHAPE)


class _Slow:
    """A tokenizer without offsets around one that has them."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *args, **options):
        return self._tokenizer(*args, **options)

    def __len__(self):
        return len(self._tokenizer)


class _Skeleton(HTMLParser):
    """The elements of a page with the names of their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text.append(data)


def skeleton(views):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules["mwork_lens.views.page"], "circuitsvis_script", lambda: "")
        return _Skeleton(page(views))


def whole(labels):
    """The text of labels, each group once."""
    return "".join(label.text for label in labels if label.part == 1)


def all_views(model, text, labels, neurons):
    return [
        lens_view(model, text, labels),
        neuron_view(model, {"de": text, "zh": text}, neurons),
        top_tokens_view(model, {"de": neurons}, {"de": mw.Corpus("de", (text,)), "zh": mw.Corpus("zh", (text, TEXT))}, k=3),
        attention_view(model, text),
        edit_view(model, text, mw.zero(neurons)),
    ]  # fmt: skip


def run(model, text, edit=None):
    """Logits [pos vocab] of a text, and its ids."""
    ids = torch.tensor(model.tokenizer([text])["input_ids"])
    with torch.no_grad():
        if edit is None:
            return model(ids)[0], ids[0]
        with mw.applied(model, edit):
            return model(ids)[0], ids[0]


# --- labels


@pytest.mark.parametrize("kind", ["words", "bytes", "sentencepiece", "sentencepiece of natural text"])
def test_labels_are_the_text(kind, organism, polyglot):
    tokenizer = {
        "words": families.tokenizer(),
        "bytes": families.byte_level_tokenizer(),
        "sentencepiece": organism.tokenizer,
        "sentencepiece of natural text": polyglot.tokenizer,
    }[kind]

    @given(texts.filter(str.strip))
    def law(text):
        ids, found = text_labels(tokenizer, text)
        assert len(ids) == len(found)
        assert whole(found) == text
        assert "\ufffd" not in "".join(label.shown for label in found)
        assert all(label.shown for label in found)

    law()


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_labels_without_offsets_are_the_text_too(kind, organism):
    tokenizer = _Slow(families.byte_level_tokenizer() if kind == "bytes" else organism.tokenizer)

    @given(texts.filter(lambda text: "▁" not in text))  # a space to SentencePiece
    def law(text):
        found = text_labels(tokenizer, text)[1]
        assert whole(found) == text
        assert "\ufffd" not in "".join(label.shown for label in found)

    law()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("莱娜", ["莱 1/3", "莱 2/3", "莱 3/3", "娜 1/3", "娜 2/3", "娜 3/3"]),
        ("สวั", ["ส 1/3", "ส 2/3", "ส 3/3", "ว 1/3", "ว 2/3", "ว 3/3", "ั 1/3", "ั 2/3", "ั 3/3"]),
        ("मस्", ["म 1/3", "म 2/3", "म 3/3", "स 1/3", "स 2/3", "स 3/3", "् 1/3", "् 2/3", "् 3/3"]),
        ("aRo \n", ["a", "Ro", "·", "⏎"]),
    ],
)
def test_bytes_are_shown_as_the_characters_they_are_part_of(text, shown):
    tokenizer = families.byte_level_tokenizer()
    assert [label.shown for label in text_labels(tokenizer, text)[1]] == shown
    assert [label.shown for label in text_labels(_Slow(tokenizer), text)[1]] == shown
    # negative control: one token at a time, as it is often done, shows replacement marks
    ids = tokenizer([text])["input_ids"][0]
    assert ("\ufffd" in "".join(tokenizer.decode([i]) for i in ids)) == (not text.isascii())


def test_a_token_over_two_characters_shares_both():
    """Byte-level merges can end inside a character; `स्` of the label is then of two tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    base = sorted(pre_tokenizers.ByteLevel.alphabet())
    table = {b: c for c, b in sys.modules["mwork_lens.views.labels"]._byte_alphabet().items()}
    pieces = [table[b] for b in "éa".encode()]  # C3 A9 61
    merged = [(pieces[1], pieces[2])]  # the second byte of é with a
    vocab = {token: i for i, token in enumerate([*base, pieces[1] + pieces[2]])}
    backend = Tokenizer(models.BPE(vocab, merged))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert [label.shown for label in text_labels(tokenizer, "éa")[1]] == ["éa 1/2", "éa 2/2"]
    assert [label.shown for label in text_labels(_Slow(tokenizer), "éa")[1]] == ["éa 1/2", "éa 2/2"]
    assert token_name(tokenizer, vocab[pieces[1] + pieces[2]]) == "<0xA9>a"


def test_special_tokens_are_named(organism):
    assert text_labels(organism.tokenizer, "Lena")[1][0].shown == "<s>"
    assert text_labels(_Slow(organism.tokenizer), "Lena")[1][0].shown == "<s>"
    assert token_name(organism.tokenizer, 2) == "</s>"
    assert token_name(organism.tokenizer, 10**6) == "[1000000]"
    table = TokenLanguages(("en", "de"), torch.zeros(organism.W_U.shape[1], dtype=torch.long), "counts")
    assert "&lt;s&gt;" in lens_view(organism, "Lena", table).html


def test_the_space_before_a_text_is_nobodys(organism):
    """SentencePiece puts a space before the text, and gives it the first character's span."""
    ids, found = text_labels(organism.tokenizer, "न")
    assert [label.shown for label in found[1:]] == ["·", "न 1/3", "न 2/3", "न 3/3"]
    assert len(ids) == 5


@given(st.binary(max_size=12))
def test_bytes_are_readable(data):
    shown = readable(data)
    assert "\ufffd" not in shown or "\ufffd".encode() in data
    assert re.sub(rb"<0x(..)>", lambda m: bytes.fromhex(m[1].decode()), shown.encode()) == data or b"<0x" in data


def test_what_acts_on_a_page_is_shown_as_a_sign():
    assert visible(" a\n\t\u00a0\u202e\x07") == "·a⏎⇥⍽[U+202E][U+0007]"
    assert visible("क्\u200dष") == "क्\u200dष"  # joins letters


@pytest.mark.parametrize(
    ("text", "rtl"), [("مرحبا", True), ("שלום x", True), ("1. hello مرحبا", False), ("123", False)]
)
def test_direction_is_that_of_the_first_letter(text, rtl, llama):
    assert runs_rtl(text) == rtl
    view = lens_view(llama, text)
    assert view.rtl == rtl
    assert f'<table dir="{"rtl" if rtl else "ltr"}">' in view.html
    assert ('dir="rtl"></div>' in page([attention_view(llama, text), neuron_view(llama, text, mw.NeuronSet.of(UNITS, SHAPE))])) == rtl  # fmt: skip


def test_slow_tokenizers_may_have_bytes_as_pieces():
    class Tiktoken:
        all_special_ids, unk_token_id = (), None
        pieces = ("é".encode()[:1], "é".encode()[1:], b" x")

        def convert_ids_to_tokens(self, token):
            return self.pieces[token]

        def convert_tokens_to_ids(self, piece):
            return None

        def __len__(self):
            return 3

    assert [x.shown for x in labels_of_bytes(Tiktoken(), [0, 1, 2], "é x")] == ["é 1/2", "é 2/2", "·x"]
    assert [x.shown for x in labels_of_bytes(Tiktoken(), [2, 0], " xé")] == ["·x", "<0xC3>"]  # cut in a character
    assert token_name(Tiktoken(), 0) == "<0xC3>"


# --- nothing is HTML


@given(texts)
def test_a_component_gets_no_html(text):
    shown = component_text(visible(text))
    assert not set("<>&\n") & set(shown)
    written = _json({"tokens": [text]})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {"tokens": [text]}


def test_a_hostile_text_adds_no_element(llama, labels, neurons):
    plain = skeleton(all_views(llama, "w1 w2 w3 w4 w5 w6 w7 w8", labels, neurons))
    attacked = skeleton(all_views(llama, HOSTILE, labels, neurons))
    assert set(attacked.elements) <= set(plain.elements)
    assert sum(e[0] == "script" for e in attacked.elements) == sum(e[0] == "script" for e in plain.elements) == 5
    assert "onerror=alert(1)>" in "".join(attacked.text)  # it is there, as text
    # negative control: unescaped it would be found
    assert ("img", "src", "onerror") in _Skeleton(HOSTILE).elements


def test_any_text_stays_text_in_the_lens(llama, labels):
    allowed = set(skeleton([lens_view(llama, TEXT, labels)]).elements)

    @settings(max_examples=12)
    @given(st.text(st.sampled_from("<>&\"'/=! scriptimgon-"), min_size=1, max_size=40).filter(str.strip))
    def law(text):
        view = lens_view(llama, text, labels, title=text, positions=4)
        assert set(skeleton([view]).elements) <= allowed

    law()


def test_titles_names_and_notes_are_escaped(llama, neurons):
    views = [
        neuron_view(llama, {"<i>x</i>": TEXT}, neurons, title="<u>t</u>"),
        top_tokens_view(llama, {"<i>n</i>": neurons}, {"de": mw.Corpus("de", (TEXT,))}, k=2),
        View("a", notes=("<u>",), languages=("<u>", "de")),
    ]
    found = skeleton(views)
    assert not {"i", "u"} & {e[0] for e in found.elements if len(e) == 1}
    assert "<u>t</u>" in "".join(found.text)
    assert "&lt;u&gt;t&lt;/u&gt;" in views[0]._repr_html_()[-200:] or "&lt;u&gt;" in views[0]._repr_html_()


# --- the lens


def test_the_lens_shows_what_read_returns(llama, labels):
    read_text = document(llama, TEXT, 64)
    reading = mw.read(llama, read_text.ids, labels, k=3)
    view = lens_view(llama, TEXT, labels, k=3, layers=[0, 2])
    html = re.sub(r"<style>.*?</style>", "", view.html, flags=re.DOTALL)
    rows = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', html)
    assert [name for name, _ in rows] == ["output", "embedding"]
    for (_, row), layer in zip(rows, (2, 0), strict=True):
        cells = re.findall(r'<td class="c(\d)( hit)?" tabindex="0"><bdi>(.*?)</bdi>.*?<ol dir="ltr">(.*?)</ol>', row)
        assert len(cells) == 7
        for pos, (colour, hit, shown, top) in enumerate(cells):
            ids = reading.tokens[layer, 0, pos].tolist()
            names = [token_name(llama.tokenizer, i).replace("<", "&lt;").replace(">", "&gt;") for i in ids]
            assert shown == names[0]
            assert int(colour) == int(labels.labels[ids[0]])
            assert bool(hit) == (pos < 6 and ids[0] == int(read_text.ids[0, pos + 1]))
            chances = reading.logprobs[layer, 0, pos].exp().tolist()
            listed = re.findall(r"<bdi>(.*?)</bdi> ([\d.]+)% <small>(\w+)</small>", top)
            assert listed == [
                (name, f"{chance:.1%}"[:-1], labels.of(i)) for name, chance, i in zip(names, chances, ids, strict=True)
            ]


def test_languages_have_the_colours_of_the_figures(llama, labels):
    view = lens_view(llama, TEXT, labels)
    assert view.languages == ("en", "de", "zh", "shared", "unknown")
    shown = page([view])
    for name, colour in language_colours(["en", "de", "zh"]).items():
        assert f"--c: {colour}" in view.html, name
        assert f'<i style="background:{colour}">' in shown, name
    assert "Chinese (zh)" in shown
    assert lens_view(llama, TEXT).languages == ()
    # a lens of other languages on the same page has its own colours
    other = lens_view(llama, TEXT, TokenLanguages(("fr", "ru"), labels.labels.clamp(max=3), "counts"))
    rules = [re.findall(r"^\.(mw-\w+) \.c0 ", v.html, flags=re.MULTILINE) for v in (view, other)]
    assert rules[0] != rules[1]
    assert all(f'class="mw-lens {rule[0]}"' in v.html for rule, v in zip(rules, (view, other), strict=True))


# --- neurons


def test_activations_are_those_of_capture(llama, neurons):
    ids = document(llama, TEXT, 64).ids
    seen = mw.record(llama, ids, ["ffn", "z"])
    by_hand = torch.stack([seen[site, layer][0, 1:, index] for site, layer, index in neurons], dim=1)  # without BOS
    view = neuron_view(llama, TEXT, neurons)
    order = by_hand.abs().amax(0).argsort(descending=True)
    (shares,) = view.props["activations"]
    assert shares.shape == (6, 4, 1)
    torch.testing.assert_close(shares[..., 0], (by_hand / by_hand.abs().amax(0))[:, order])
    units = list(neurons)
    for label, i in zip(view.props["firstDimensionLabels"], order.tolist(), strict=True):
        site, layer, index = units[i]
        assert label.startswith(f"{site} layer {layer} unit {index} (largest {float(by_hand[:, i].abs().max()):.3g})")
    assert view.props["tokens"] == [["w3", "·w14", "·w15", "·w9", "·w26", "·w5"]]


def test_several_texts_share_a_scale_and_are_named(llama, neurons):
    view = neuron_view(llama, {"de": TEXT, "zh": "w7"}, neurons)
    assert [tokens[0] for tokens in view.props["tokens"]] == ["[German (de)]", "[Chinese (zh)]"]
    both = torch.cat([share[1:] for share in view.props["activations"]])
    assert all(len(share) == len(row) for share, row in zip(view.props["activations"], view.props["tokens"], strict=True))  # fmt: skip
    torch.testing.assert_close(both.abs().amax(0)[:, 0], torch.ones(4))


def test_only_the_strongest_neurons_are_shown_and_it_says_so(llama, neurons):
    every = neuron_view(llama, TEXT, neurons).props["firstDimensionLabels"]
    view = neuron_view(llama, TEXT, neurons, most=2)
    assert view.props["firstDimensionLabels"] == every[:2]
    assert "Shown are the 2 of 4 neurons with the largest activations." in view.notes


def test_top_tokens_are_those_of_a_plain_search(organism):
    corpora = mw.load_corpora("organism", ["de", "zh"], limit=3)
    neurons = mw.NeuronSet.of([("ffn", 2, 5), ("ffn", 6, 167)], {"ffn": (8, mw.sites.width(organism, "ffn"))})
    view = top_tokens_view(organism, neurons, corpora, k=4, size=2)
    found: dict = {}
    for language, corpus in corpora.items():
        for text in corpus.texts:
            read_text = document(organism, text, 512)
            seen = mw.record(organism, read_text.ids, ["ffn"], layers=[2, 6])
            for pos, label in enumerate(read_text.labels):
                for column, (site, layer, index) in enumerate(neurons):
                    types = found.setdefault((language, column), {})
                    token, value = int(read_text.ids[0, pos]), float(seen[site, layer][0, pos, index])
                    if pos and value > types.get(token, (-1e9, ""))[0]:
                        types[token] = (value, label.shown)
    for sample, language in enumerate(corpora):
        for column in range(2):
            ranked = sorted(found[language, column].values(), reverse=True)
            largest = max(abs(v) for key in corpora for v, _ in found[key, column].values())
            for end, best in (("topk", ranked[:4]), ("bottomk", ranked[-4:])):
                places = view.props[f"{end}Idxs"][sample][0][:, column]
                listed = [view.props["tokens"][sample][place] for place in places]
                assert [float(word.split("\u00a0\u00a0")[1]) for word in listed] == pytest.approx([v for v, _ in best], rel=1e-2)  # fmt: skip
                shares = view.props[f"{end}Vals"][sample][0][:, column]
                np.testing.assert_allclose(shares, [v / largest for v, _ in best], rtol=1e-4)
            # a name is the token's own, or, for a byte, the character it was part of
            best = view.props["tokens"][sample][view.props["topkIdxs"][sample][0][0, column]].split("\u00a0\u00a0")[0]
            assert best == component_text(ranked[0][1])
    assert view.props["sampleLabels"] == ["text: German (de)", "text: Chinese (zh)"]
    assert "0: ffn layer 2 unit 5; 1: ffn layer 6 unit 167" in view.html


def test_a_byte_that_is_a_character_has_one_name(organism):
    """The organism's tokenizer has no line end but as a byte."""
    ids, labels = text_labels(organism.tokenizer, "a\n")
    assert organism.tokenizer.convert_ids_to_tokens(ids[-1]) == "<0x0A>"
    assert visible(token_name(organism.tokenizer, ids[-1])) == labels[-1].shown == "⏎"
    assert token_name(organism.tokenizer, organism.tokenizer.convert_tokens_to_ids("<0xE0>")) == "<0xE0>"


def test_top_tokens_of_bytes_are_characters(organism):
    """A character that the organism does not know is three tokens; each is shown as a part of it."""
    neurons = mw.NeuronSet.of([("ffn", 3, 5)], {"ffn": (8, mw.sites.width(organism, "ffn"))})
    view = top_tokens_view(organism, neurons, {"th": mw.Corpus("th", ("ส",))}, k=9)
    words = {word.split("\u00a0\u00a0")[0] for word in view.props["tokens"][0]} - {""}
    assert words == {"·", "ส 1/3", "ส 2/3", "ส 3/3"}


def test_top_tokens_say_what_they_leave_out(llama, neurons):
    corpora = {"de": mw.Corpus("de", (TEXT,)), "zh": mw.Corpus("zh", ("w7 w8",))}
    view = top_tokens_view(llama, {"de": neurons, "zh": neurons - neurons}, corpora, most=3)
    assert "Shown are the 3 neurons of each set with the largest activations, of German (de) 4." in view.notes
    assert "none below zero" in view.notes[0]
    seen = [mw.record(llama, document(llama, c.texts[0], 64).ids, ["ffn", "z"]) for c in corpora.values()]
    least = min(neurons, key=lambda n: max(float(x[n.site, n.layer][0, 1:, n.index].abs().max()) for x in seen))
    assert least in list(neurons)[:3], "the first three are others"
    shown = [f"{n.site} layer {n.layer} unit {n.index}" for n in neurons if n != least]
    assert "; ".join(f"{i}: {name}" for i, name in enumerate(shown)) in view.html
    assert "No neurons: Chinese (zh)." in view.notes
    assert len(view.props["topkVals"][1][0]) == 2  # as many as there are types


# --- attention and edits


def test_attention_is_the_model_s(llama):
    view = attention_view(llama, TEXT, [(1, 3), (0, 0)])
    seen = {}
    mw.capture(llama, document(llama, TEXT, 64).ids, ["pattern"], lambda i, x: seen.update({i: x["pattern"][0]}))
    torch.testing.assert_close(view.props["attention"], torch.stack([seen[1][3], seen[0][0]]))
    torch.testing.assert_close(view.props["attention"].sum(-1), torch.ones(2, 7))
    assert view.props["attentionHeadNames"] == ["L1H3", "L0H0"]
    assert view.props["tokens"][0] == "‹s›"
    assert view.props["maskUpperTri"]
    assert attention_view(llama, TEXT, layers=[1]).props["attentionHeadNames"] == [f"L1H{i}" for i in range(4)]


def test_only_the_first_heads_are_shown_and_it_says_so(llama):
    view = attention_view(llama, TEXT, most=3)
    assert len(view.props["attention"]) == 3
    assert "Shown are the first 3 of 8 heads." in view.notes


@pytest.mark.parametrize("measure", ["logprob", "logit"])
def test_changes_are_those_of_two_plain_runs(llama, neurons, measure):
    edit = mw.zero(neurons)
    view = edit_view(llama, TEXT, edit, measure=measure)
    (before, ids), (after, _) = run(llama, TEXT), run(llama, TEXT, edit)
    if measure == "logprob":
        before, after = before.log_softmax(-1), after.log_softmax(-1)
    at = torch.arange(len(ids) - 1)
    expected = torch.stack([after[at, ids[1:]] - before[at, ids[1:]], before[at, ids[1:]], after[at, ids[1:]]], dim=1)
    torch.testing.assert_close(view.props["values"], expected)
    assert float(view.props["values"][:, 0].abs().max()) > 1e-3
    assert len(view.props["tokens"]) == len(expected)
    assert "<s>, is given" in view.notes[0]
    # the change has a scale of its own, and the two values have one in common, so that equal numbers have one colour
    largest = expected.abs().amax(0).tolist()
    assert view.props["positiveBounds"] == pytest.approx([largest[0], *[max(largest[1:])] * 2], rel=1e-5)
    assert view.props["negativeBounds"] == [-bound for bound in view.props["positiveBounds"]]
    # negative control: an edit that changes nothing
    same = edit_view(llama, TEXT, mw.scale(neurons, 1.0), measure=measure).props["values"]
    assert not same[:, 0].any()


def test_a_change_that_is_no_number_is_counted(llama, neurons, monkeypatch):
    forward = sys.modules["mwork_lens.views.edits"].forward

    def broken(model, tokens):
        logits = forward(model, tokens).clone()
        logits[0, 2] = torch.nan
        return logits

    monkeypatch.setattr(sys.modules["mwork_lens.views.edits"], "forward", broken)
    view = edit_view(llama, TEXT, mw.zero(neurons))
    assert "1 token has no finite change and no colour." in view.notes
    values = view.props["values"][:, 0]
    assert f"Mean {number(float(values[values.isfinite()].mean()), 4, signed=True)}." in view.notes[0]
    assert "NaN" not in fragment([view]).split("CircuitsVis.render")[-1]
    monkeypatch.setattr(sys.modules["mwork_lens.views.edits"], "forward", lambda *given: forward(*given) * torch.nan)
    assert "Mean –." in edit_view(llama, TEXT, mw.zero(neurons)).notes[0]


# --- pages


def test_long_texts_are_cut_and_it_says_so(llama, labels, neurons):
    text = " ".join(f"w{i % 90}" for i in range(1499))
    note = "The model read the first 16 of 1,500 tokens."
    views = [
        lens_view(llama, text, labels, positions=16),
        neuron_view(llama, text, neurons, positions=16),
        attention_view(llama, text, positions=16),
        edit_view(llama, text, mw.zero(neurons), positions=16),
    ]
    assert all(note in view.notes for view in views)
    assert note in page(views)
    assert "first 64 of 1,500" in edit_view(llama, text, mw.zero(neurons)).notes[1]  # the context
    assert not any("read the first" in note for note in lens_view(llama, TEXT).notes)
    # what is shown is a prefix of the whole
    short, long = (attention_view(llama, TEXT, [(1, 0)], positions=n).props["attention"] for n in (3, 5))
    torch.testing.assert_close(short, long[:, :3, :3])


def test_several_views_share_one_script(llama, labels, neurons, tmp_path):
    views = all_views(llama, TEXT, labels, neurons)
    path = write_views(views, tmp_path / "deep" / "views.html", title="All")
    text = path.read_text(encoding="utf-8")
    assert text.count("var CircuitsVis=") == 1
    assert text.count("CircuitsVis.render(") == 4
    assert len(text) < len(circuitsvis_script()) + 200_000
    assert len(set(re.findall(r'id="(view-[^"]+)"', text))) == 4
    assert not list(tmp_path.rglob("*.tmp"))
    assert text == page(all_views(llama, TEXT, labels, neurons), "All")  # the same views, the same page
    assert page([views[0]]).count("<script") == 0  # the lens needs none
    assert write_views(views[0], tmp_path / "one.html").is_file()


def test_nothing_comes_from_outside(llama, labels, neurons):
    text = page(all_views(llama, TEXT, labels, neurons))
    without = text.replace(circuitsvis_script(), "")
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", without)
    assert "default-src 'none'" in text
    assert "connect-src" not in text  # nothing widens it
    assert "</script" not in circuitsvis_script()
    assert "sourceMappingURL" not in circuitsvis_script()


def test_a_notebook_shows_a_view_in_a_frame_without_asking_the_network(llama, neurons, monkeypatch):
    import html
    import socket

    monkeypatch.setattr(socket, "socket", lambda *args, **options: pytest.fail("the view opened a socket"))
    view = neuron_view(llama, TEXT, neurons)
    shown = view._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
    assert 'sandbox="allow-scripts"' in shown
    assert html.unescape(shown.split('srcdoc="')[1].split('" sandbox')[0]) == view.to_html() == page([view], view.title)


def test_numbers_of_every_kind_become_plain():
    given_ = {
        "a": [np.float32(1.23456789), torch.tensor(2.5), np.int64(3)],
        "b": np.array([[1.0, np.nan]]),
        "c": (float("inf"), True, None, "x"),
        "d": torch.ones(2, dtype=torch.bfloat16),
    }
    assert plain_values(given_) == {"a": [1.235, 2.5, 3], "b": [[1.0, None]], "c": [None, True, None, "x"], "d": [1.0, 1.0]}  # fmt: skip
    assert json.loads(_json(given_))["b"] == [[1.0, None]]


# --- refusals


@pytest.mark.parametrize("make", [lens_view, attention_view])
def test_texts_that_cannot_be_shown_are_refused(make, llama, unchecked):
    with pytest.raises(ValueError, match="the text is empty: a view needs at least one token"):
        make(llama, "")
    with pytest.raises(ValueError, match="the text '   ' has no token"):
        make(llama, "   ")
    with pytest.raises(TypeError, match="a view reads one text, got list: pass a string"):
        make(llama, ["w1"])
    with pytest.raises(ValueError, match=r"half a character \(surrogate\) at 3"):
        make(llama, "w1 \ud800")
    with pytest.raises(ValueError, match="positions=1: give at least 2 tokens"):
        make(llama, "w1", positions=1)


def test_layers_and_heads_that_do_not_exist_are_refused(llama):
    with pytest.raises(ValueError, match=r"layer 3 does not exist: the lens reads states 0 \(embedding\) to 2 \(output\)"):  # fmt: skip
        lens_view(llama, TEXT, layers=[0, 3])
    with pytest.raises(ValueError, match=r"no layer given: choose from 0\.\.2"):
        lens_view(llama, TEXT, layers=[])
    with pytest.raises(ValueError, match=r"layer 2 does not exist: this model has layers 0\.\.1"):
        attention_view(llama, TEXT, [(2, 0)])
    with pytest.raises(ValueError, match=r"head 4 of layer 1 does not exist: it has heads 0\.\.3"):
        attention_view(llama, TEXT, [(1, 4)])
    with pytest.raises(ValueError, match=r"no head given: pass \(layer, head\) pairs"):
        attention_view(llama, TEXT, [])
    with pytest.raises(ValueError, match="most=0: give at least 1 head"):
        attention_view(llama, TEXT, most=0)


def test_labels_of_another_vocabulary_are_refused(llama):
    other = TokenLanguages(("en", "de"), torch.zeros(5, dtype=torch.long), "counts")
    with pytest.raises(ValueError, match="label 5 tokens, the model has 97: made for another tokenizer"):
        lens_view(llama, TEXT, other)


def test_neurons_that_cannot_be_shown_are_refused(llama, neurons, unchecked):
    corpora = {"de": mw.Corpus("de", (TEXT,))}
    foreign = mw.NeuronSet(neurons.masks, model="abc")
    wide = mw.NeuronSet.of([("ffn", 0, 45)], {"ffn": (2, 50)})
    for show in (lambda x: neuron_view(llama, TEXT, x), lambda x: top_tokens_view(llama, x, corpora)):
        with pytest.raises(ValueError, match="this NeuronSet is empty, so there is nothing to look at"):
            show(neurons - neurons)
        with pytest.raises(ValueError, match=r"found on another model \(abc\): detect them on this one"):
            show(foreign)
        with pytest.raises(ValueError, match=r"'ffn' are \[layer, width\] \[2, 50\], this model has \[2, 44\]"):
            show(wide)
        with pytest.raises(ValueError, match="expected a NeuronSet, got list"):
            show([("ffn", 0, 1)])
    with pytest.raises(ValueError, match="most=0: give at least 1 neuron"):
        neuron_view(llama, TEXT, neurons, most=0)
    with pytest.raises(ValueError, match="no text given: pass a string, or a mapping"):
        neuron_view(llama, {}, neurons)
    with pytest.raises(ValueError, match="no corpora to look through"):
        top_tokens_view(llama, neurons, {})
    with pytest.raises(ValueError, match="all 2 neuron sets are empty"):
        top_tokens_view(llama, dict.fromkeys(("de", "zh"), neurons - neurons), corpora)
    with pytest.raises(ValueError, match="k=0: give at least 1 token per neuron"):
        top_tokens_view(llama, neurons, corpora, k=0)


def test_edits_that_cannot_be_shown_are_refused(llama, neurons, unchecked):
    with pytest.raises(ValueError, match="unknown measure 'loss': choose logprob or logit"):
        edit_view(llama, TEXT, mw.zero(neurons), measure="loss")
    with pytest.raises(ValueError, match="without an edit would do nothing"):
        edit_view(llama, TEXT)


def test_a_text_of_one_token_predicts_nothing(neurons):
    class NoBos(_Slow):
        is_fast, bos_token_id = True, None

        def __call__(self, *args, **options):
            return self._tokenizer(*args, add_special_tokens=False, **options)

    model = type("Model", (), {"tokenizer": NoBos(families.tokenizer()), "cfg": type("Cfg", (), {"n_ctx": 64})()})()
    with pytest.raises(ValueError, match="the text 'w1' has one token, and nothing predicts it"):
        edit_view(model, "w1", mw.zero(neurons))


def test_pages_without_views_are_refused(tmp_path, unchecked):
    with pytest.raises(ValueError, match="no view given: make one with lens_view"):
        page([])
    with pytest.raises(TypeError, match="expected views, got str"):
        write_views(["<b>"], tmp_path / "x.html")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"unknown circuitsvis component 'x;alert\(1\)': choose from AttentionHeads"):
        View("t", component="x;alert(1)")


def test_a_broken_circuitsvis_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["mwork_lens.views.page"].resources, "files", lambda name: tmp_path)
    circuitsvis_script.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=r"has no dist/cdn/iife\.js: pip install --force-reinstall"):
            circuitsvis_script()
    finally:
        circuitsvis_script.cache_clear()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # four documents are few
def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    source = (Path(__file__).parents[1] / "docs" / "methods" / "views.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", source, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert "limit=24" in code
    names: dict = {}
    exec(compile(code.replace("limit=24", "limit=6"), "docs", "exec"), names)
    text = (tmp_path / "runs" / "views.html").read_text(encoding="utf-8")
    assert text.count('<section class="mw-view"') == len(names["views"]) == 5
    assert all(f"`{name}`" in source for name in mw.__all__ if name.endswith("_view"))
