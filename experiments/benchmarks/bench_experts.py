"""How much faster is a model with fewer experts, measured?

    python experiments/benchmarks/bench_experts.py                    the table of docs/benchmarks.md (some minutes)
    python experiments/benchmarks/bench_experts.py --device cuda --dtype bfloat16
    python experiments/benchmarks/bench_experts.py --smoke            one small size

Random Llamas (gated FFN, grouped heads; vocabulary 8,000, so that the FFN's share of the products is about that of Llama-2-7B), and the embedded
model. A contiguous partition: speed depends on how many units are kept, not on which. In every round all models run in turn on the same batch; a
figure is the median over rounds of the ratio within a round to the full Hugging Face model with the same kernel, with the smallest and the largest.

    sliced .. %     `sliced`, that share of experts kept in every layer
    padded          half of the experts in the model, unevenly (a quarter and three quarters in turn), padded to the widest layer as a folder is
    masked 50 %     the TransformerLens model with a mask: what pruning looks like without slicing
    relative        products of weight matrices, from `flops`; its inverse is not a speed but a bound on it for short texts
"""

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import mwork_lens as mw
from mwork_lens.experts.partition import Partition
from mwork_lens.experts.pruning import flops, keep_by_rank, masked
from mwork_lens.experts.slicing import export, ffn_widths, sliced, tokens_per_second
from mwork_lens.models import fingerprint
from mwork_lens.sites import n_layers, width

VOCAB, EXPERTS = 8_000, 64


def llama(d_model: int, layers: int, context: int, device: str, dtype: torch.dtype) -> Any:
    """A random Llama with the tokenizer of the embedded model (which is not used)."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=d_model, intermediate_size=d_model * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=d_model // 64, num_key_value_heads=max(1, d_model // 256), max_position_embeddings=context,
    )  # fmt: skip
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().to(device)
    return mw.load_model(made, tokenizer=mw.load_model(device="cpu").tokenizer)


def contiguous(model: Any, experts: int) -> Partition:
    """Neighbouring units form an expert."""
    units = width(model, "ffn")
    labels = (torch.arange(units) * experts // units).repeat(n_layers(model), 1)
    return Partition(labels, experts, "gate", "contiguous", 0, "none", model=fingerprint(model))


def measure(model: Any, ids: torch.Tensor, rounds: int, experts: int) -> dict[str, Any]:
    """Ratios to the full model, and what `flops` says."""
    partition = contiguous(model, experts)
    layers = n_layers(model)
    frequency = torch.rand(layers, experts, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keeps = {share: keep_by_rank(frequency, share, per_layer=True) for share in (1.0, 0.75, 0.5, 0.25)}
    made = {f"sliced {share:.0%}": sliced(model, partition, keep, attention="sdpa") for share, keep in keeps.items()}
    uneven = torch.stack(
        [keep_by_rank(row[None], 0.25 if layer % 2 else 0.75)[0] for layer, row in enumerate(frequency)]
    )
    with tempfile.TemporaryDirectory() as temporary:
        from transformers import AutoModelForCausalLM

        ragged = sliced(model, partition, uneven, attention="sdpa")
        folder = export(ragged, Path(temporary) / "padded", model.tokenizer)
        padded = AutoModelForCausalLM.from_pretrained(folder, dtype=ragged.dtype).eval().to(ragged.device)
    models: dict[str, Any] = {
        **{name: lambda tokens, run=run: run(tokens, use_cache=False) for name, run in made.items()},
        "uneven": lambda tokens: ragged(tokens, use_cache=False),
        "padded": lambda tokens: padded(tokens, use_cache=False),
        "unmasked": model,
    }

    def with_mask(tokens: torch.Tensor) -> None:
        with masked(model, partition, keeps[0.5]):
            model(tokens)

    models["masked 50%"] = with_mask
    table = tokens_per_second(models, ids, rounds=rounds).set_index("model")
    for name, run in (("uneven", ragged), ("padded", padded)):
        print(name, "widths", ffn_widths(run))
    return {
        "tokens_per_second": round(float(table["tokens_per_second"].iloc[0])),
        "ratio": {
            str(name): [round(float(row[c]), 3) for c in ("ratio", "ratio_low", "ratio_high")]
            for name, row in table.iloc[1:].iterrows()
        },
        "relative": {f"{share:.0%}": round(flops(model, partition, keep).relative, 3) for share, keep in keeps.items()},
        "ffn_share": round(flops(model, partition, keeps[0.5]).ffn_share, 3),
    }


def main() -> None:
    """Run the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bench_experts.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    sizes = [(256, 2, 1, 32)] if arguments.smoke else [(512, 8, 4, 128), (1024, 8, 4, 128), (1024, 8, 1, 512)]
    if device != "cpu" and not arguments.smoke:
        sizes = [(1024, 8, 8, 512), (2048, 8, 8, 512), (4096, 8, 8, 512)]
    rounds = 5 if arguments.smoke else arguments.rounds
    rows = []
    for d_model, layers, size, length in sizes:
        ids = torch.randint(4, VOCAB, (size, length), generator=torch.Generator().manual_seed(0)).to(device)
        row: dict[str, Any] = {"d_model": d_model, "layers": layers, "batch": size, "l": length}
        row |= measure(llama(d_model, layers, length, device, dtype), ids, rounds, EXPERTS)
        rows.append(row)
        print(row, flush=True)
    embedded = mw.load_model(device=device, dtype=dtype)
    vocabulary = embedded.W_E.shape[0]
    ids = torch.randint(4, vocabulary, (16, 96), generator=torch.Generator().manual_seed(0)).to(device)
    rows.append({"embedded": True, "batch": 16, "l": 96, **measure(embedded, ids, rounds, 43)})
    print(rows[-1])
    if not arguments.smoke:
        record = {
            "rows": rows,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
            "dtype": arguments.dtype,
            "threads": 1,
            "rounds": rounds,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
