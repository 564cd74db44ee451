"""A tiny random encoder and decoder, and facts over their words."""

import functools
from typing import Any

import families
import pandas as pd
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, set_seed

from mwork_lens.facts.factset import FactSet
from mwork_lens.models import load_model

WORDS = 60


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w0 .. w54 are ids 5 .. 59."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(WORDS - len(special)))])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", pad_token="[PAD]", unk_token="[UNK]"
    )  # fmt: skip


@functools.cache
def encoder() -> tuple[Any, Any]:
    """(TransformerLens model, plain Hugging Face copy) of a tiny random BERT."""
    import copy

    set_seed(0)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=22, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=32,
        initializer_range=0.4,
    )  # fmt: skip
    hf = BertForMaskedLM(config).eval()
    plain = copy.deepcopy(hf)
    return load_model(hf, tokenizer=tokenizer()), plain


@functools.cache
def decoder() -> tuple[Any, Any]:
    """The same of a tiny random Llama."""
    import copy

    hf = families.hf_model("llama")
    plain = copy.deepcopy(hf)
    return load_model(hf, tokenizer=families.tokenizer()), plain


LANGUAGES = ("en", "de")
RELATIONS = {"p1": "w1 [X] w2 [Y] w3", "p2": "[X] w4 w5 [Y]"}


def facts(count: int = 5) -> FactSet:
    """Facts of two relations in two languages, with subjects of one or two words."""
    rows = []
    for language in LANGUAGES:
        shift = 10 * LANGUAGES.index(language)
        for r, relation in enumerate(RELATIONS):
            for f in range(count):
                subject = f"w{10 + shift + f}" + (f" w{15 + r}" if f % 2 else "")
                rows.append((relation, f"{relation}-{f}", language, subject, f"w{40 + f}"))
    table = pd.DataFrame(rows, columns=["relation", "fact", "language", "subject", "object"])
    return FactSet(table, {(x, r): RELATIONS[r] for x in LANGUAGES for r in RELATIONS})


def predictions(held: FactSet) -> pd.DataFrame:
    """Everything predicted, with one to three masks."""
    table = held.table[["language", "relation", "fact"]].copy()
    return table.assign(full=True, masks=[1 + i % 3 for i in range(len(table))])
