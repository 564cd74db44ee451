"""What do activation statistics cost over a plain forward of the same batches?

    python experiments/benchmarks/bench_statistics.py            the table of docs/benchmarks.md (about ten minutes)
    python experiments/benchmarks/bench_statistics.py --smoke    one small size

One thread, random Llamas (gated FFN, grouped heads, vocabulary 32,000) in float32, and the embedded model on its own texts. In every round all
methods run in turn on the same batch; a figure is the median over rounds of the ratio within a round.

    forward             the TransformerLens model, logits included, nothing listened to: what a plain forward is here
    hugging face        Hugging Face's model around the same weights with fused attention, logits included: what a plain forward is elsewhere
    body                the same without its unembedding
    moments gate, act   `moments("ffn_gate")`, `moments("ffn_act")`: counts, sums, squares, positive parts
    documents           `document_moments("ffn_act")`: the same, and document by document
    hooked              the same sums as `moments gate`, through the hook points (`fused=False`)
    naive               counts and sums by float64 copies of whole batches, as this package did before
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

import torch

import mwork_lens as mw
from mwork_lens import collect
from mwork_lens.capture import capture, forward
from mwork_lens.tokens import Tokens
from mwork_lens.unwrapped import unwrapped

VOCAB = 32_000


def llama(d_model: int, layers: int, context: int) -> object:
    """A random Llama with the tokenizer of the embedded model (which is not used)."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=d_model, intermediate_size=d_model * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=d_model // 64, num_key_value_heads=max(1, d_model // 256), max_position_embeddings=context,
    )  # fmt: skip
    torch.manual_seed(0)
    return mw.load_model(AutoModelForCausalLM.from_config(config).eval(), tokenizer=mw.load_model("polyglot").tokenizer)


def batch(size: int, length: int) -> Tokens:
    """Random ids without padding."""
    ids = torch.randint(4, VOCAB, (size, length), generator=torch.Generator().manual_seed(0))
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool), documents=tuple(map(str, range(size))))


def naive(model: object, tokens: Tokens) -> None:
    """Sums of float64 copies of whole batches, through the hook points."""

    def on_layer(layer: int, activations: object) -> None:
        kept = activations["ffn_gate"][tokens.keep].double()
        _ = (kept > 0).sum(0), kept.sum(0), kept.square().sum(0), kept.clamp_min(0).sum(0)

    capture(model, tokens, ["ffn_gate"], on_layer)


def hooked(model: object, tokens: Tokens) -> None:
    """`moments("ffn_gate")` through the hook points."""
    slow = lambda *given, fused=False, **more: capture(*given, **more)  # noqa: E731
    with mock.patch.object(collect, "capture", slow):
        mw.moments("ffn_gate")(model, tokens)


def measure(model: object, tokens: Tokens, rounds: int) -> dict[str, float]:
    """Median ratio to `forward`, and seconds of it."""
    plain = unwrapped(model, tokens, ["ffn"])
    head = model.W_U

    def body(logits: bool) -> None:
        with torch.no_grad():
            stream = plain.model(tokens.ids, attention_mask=None, use_cache=False).last_hidden_state
            if logits:
                _ = stream @ head

    methods = {
        "forward": lambda: forward(model, tokens),
        "hugging face": lambda: body(True),
        "body": lambda: body(False),
        "moments gate": lambda: mw.moments("ffn_gate")(model, tokens),
        "moments act": lambda: mw.moments("ffn_act")(model, tokens),
        "documents": lambda: mw.document_moments("ffn_act")(model, tokens),
        "hooked": lambda: hooked(model, tokens),
        "naive": lambda: naive(model, tokens),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name, run in methods.items():
            start = time.perf_counter()
            run()
            if number:  # the first round is not counted
                seconds[name].append(time.perf_counter() - start)
    ratio = lambda name, to: statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))  # noqa: E731
    found = {name: round(ratio(name, "forward"), 3) for name in methods if name != "forward"}
    found |= {"moments gate / hugging face": round(ratio("moments gate", "hugging face"), 3)}
    found |= {"moments gate / body": round(ratio("moments gate", "body"), 3)}
    return {"forward_seconds": round(min(seconds["forward"]), 3), **found}


def main() -> None:
    """Run the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [(256, 2, 2, 64)] if arguments.smoke else [
        (256, 4, 8, 128), (512, 4, 8, 128), (512, 4, 2, 512), (1024, 4, 4, 128), (1024, 4, 1, 512), (512, 4, 1, 2048), (1024, 2, 1, 2048),
    ]  # fmt: skip
    rows = []
    for d_model, layers, size, length in sizes:
        row = {"d_model": d_model, "layers": layers, "batch": size, "l": length}
        row |= measure(llama(d_model, layers, length), batch(size, length), 1 if arguments.smoke else arguments.rounds)
        rows.append(row)
        print(row, flush=True)
    embedded = mw.load_model("polyglot")
    tokens = next(mw.batches(mw.load_corpora()["en"], embedded, size=16, length=96))
    rows.append(
        {
            "embedded": True,
            "batch": 16,
            "l": tokens.ids.shape[1],
            **measure(embedded, tokens, 1 if arguments.smoke else arguments.rounds),
        }
    )
    print(rows[-1])
    if not arguments.smoke:
        record = {
            "rows": rows,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": 1,
            "rounds": arguments.rounds,
        }
        path = Path(__file__).parent / "results" / "bench_statistics.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
