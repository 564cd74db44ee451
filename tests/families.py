"""Tiny random models, one per architecture family: small odd sizes, random biases and gains, so that nothing hides in a zero or a one."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    XGLMConfig,
    set_seed,
)

VOCAB, CONTEXT = 97, 64
_common = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_llama = {
    **_common,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}

CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**_llama),
    "llama_mha_bias": lambda: LlamaConfig(**{**_llama, "num_key_value_heads": 4}, attention_bias=True, mlp_bias=True),
    "mistral": lambda: MistralConfig(**_llama, sliding_window=5),
    "qwen2": lambda: Qwen2Config(**_llama),
    "qwen3": lambda: Qwen3Config(**_llama, head_dim=12),
    "gemma2": lambda: Gemma2Config(
        **_llama,
        head_dim=12,
        query_pre_attn_scalar=10,
        sliding_window=5,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "gemma3": lambda: Gemma3TextConfig(**_llama, head_dim=12, query_pre_attn_scalar=10, sliding_window=5),
    "olmo2": lambda: Olmo2Config(**_llama),
    "bloom": lambda: BloomConfig(**_common, hidden_size=32, n_layer=2, n_head=4),
    "gpt2": lambda: GPT2Config(**_common, n_embd=32, n_layer=2, n_head=4, n_inner=44, n_positions=CONTEXT),
    "neox": lambda: GPTNeoXConfig(
        **_common,
        hidden_size=32,
        intermediate_size=44,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        rotary_pct=0.5,
    ),
    "phi3": lambda: Phi3Config(**_llama),
    "cohere": lambda: CohereConfig(**_llama, logit_scale=0.3),
    "cohere_qk_norm": lambda: CohereConfig(**_llama, logit_scale=0.3, use_qk_norm=True),
    "xglm": lambda: XGLMConfig(
        **_common, d_model=32, ffn_dim=44, num_layers=2, attention_heads=4, max_position_embeddings=CONTEXT
    ),
}
FAMILIES = tuple(CONFIGS)
OTHERS: dict[str, Any] = {
    "mixtral": lambda: MixtralConfig(**_llama, num_local_experts=3, num_experts_per_tok=2),
    "cohere2": lambda: Cohere2Config(**_llama, sliding_window=5),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w0 .. w92 are ids 4 .. 96; BOS in front; no padding token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {f"w{i}": i + 4 for i in range(VOCAB - 4)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the one piece `Ro`, which is another token behind a space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [("R", "o"), ("Ġ", "R"), ("ĠR", "o")]
    vocab = {token: i for i, token in enumerate([*letters, *(a + b for a, b in merged)])}
    backend = Tokenizer(models.BPE(vocab, merged))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def hf_model(family: str, *, seed: int = 0, std: float = 0.25, config: Any = None) -> Any:
    """A random Hugging Face model of the family, float32, with random biases, gains and peaked enough attention."""
    set_seed(seed)
    made = config or {**CONFIGS, **OTHERS}[family]()
    made._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1 or "norm" in name:
                gain = 1.0 if name.endswith("weight") and "gemma" not in family else 0.0
                parameter.copy_(gain + 0.3 * noise)
            else:
                parameter.copy_(std * noise)
    return model
