"""Tiny random masked language models, each with the kind of tokenizer its family has: WordPiece, byte-level BPE, SentencePiece."""

import copy
import functools
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    set_seed,
)

from mwork_lens.models import load_model

KINDS = ("bert", "roberta", "xlmr")
OBJECTS = ["Paris", "Rome", "Berlin", "New Berlin", "Lima town", "巴黎"]


def bert_tokenizer() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [
        "The",
        "capital",
        "of",
        "is",
        "the",
        ".",
        "Paris",
        "Rome",
        "Ber",
        "##lin",
        "New",
        "Lima",
        "town",
        "France",
        "Italy",
        "Peru",
        "North",
        "巴",
        "黎",
        "法",
        "国",
        "的",
        "首",
        "都",
        "是",
        "。",
    ]
    backend = Tokenizer(tokenizer_models.WordPiece({t: i for i, t in enumerate(special + words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.decoder = decoders.WordPiece()
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


_ROBERTA = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>"}  # fmt: skip


def roberta_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(tokenizer_models.BPE(unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(
        [" Paris Rome New Berlin Lima town", "Paris Rome", " capital of the is", "巴黎"] * 3, trainer
    )
    return _finished(backend)


def xlmr_tokenizer() -> PreTrainedTokenizerFast:
    pieces = [
        "▁",
        "▁The",
        "▁capital",
        "▁of",
        "▁is",
        "▁the",
        ".",
        "▁.",
        "▁Paris",
        "▁Rome",
        "▁Ber",
        "lin",
        "▁New",
        "▁Lima",
        "▁town",
        "▁France",
        "▁Italy",
        "▁Peru",
        "▁North",
        "巴黎",
        "法国",
        "的首都是",
        "。",
    ]
    vocab = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")] + [
        (piece, -2.0 - i / 50) for i, piece in enumerate(pieces)
    ]
    backend = Tokenizer(tokenizer_models.Unigram([*vocab, ("<mask>", 0.0)], unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    return _finished(backend)


def _finished(backend: Tokenizer) -> PreTrainedTokenizerFast:
    ends = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    mask = AddedToken("<mask>", lstrip=True, special=True)
    backend.add_special_tokens([mask])
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token=mask, **_ROBERTA)


TOKENIZERS = {"bert": bert_tokenizer, "roberta": roberta_tokenizer, "xlmr": xlmr_tokenizer}


def hf_model(kind: str, *, seed: int = 0) -> Any:
    vocab = len(TOKENIZERS[kind]())
    sizes = {
        "vocab_size": vocab, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 44, "max_position_embeddings": 48,
    }  # fmt: skip
    set_seed(seed)
    if kind == "bert":
        model: Any = BertForMaskedLM(BertConfig(**sizes))
    else:
        config, made = {
            "roberta": (RobertaConfig, RobertaForMaskedLM),
            "xlmr": (XLMRobertaConfig, XLMRobertaForMaskedLM),
        }[kind]
        model = made(config(**sizes, pad_token_id=1, type_vocab_size=1))
    with torch.no_grad():
        for parameter in model.parameters():  # weights that move the answer from mask to mask, no bias that decides it
            parameter.normal_(0, 0.7) if parameter.ndim > 1 else parameter.fill_(0)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.normal_(1, 0.3)
        head = model.cls.predictions if kind == "bert" else model.lm_head
        pieces = TOKENIZERS[kind]()(" ".join(["", *OBJECTS]), add_special_tokens=False)["input_ids"]
        head.bias[pieces] += 12.0  # so that some of them are said
    return model.eval()


@functools.cache
def pair(kind: str) -> tuple[Any, Any]:
    """(TransformerLens model, plain copy)."""
    hf = hf_model(kind)
    plain = copy.deepcopy(hf)
    return load_model(hf, tokenizer=TOKENIZERS[kind](), device="cpu"), plain
