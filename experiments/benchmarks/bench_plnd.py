"""How fast are PLND importances of q and k, beside the algorithm that materialises everything?

    python experiments/benchmarks/bench_plnd.py            the table of docs/benchmarks.md (about ten minutes)
    python experiments/benchmarks/bench_plnd.py --smoke    one small size

One thread. Per size, all methods run in turn on the same layer: multi-head attention with rotary embeddings, heads of 64, synthetic q, k, v whose
units differ in size as much as those of the embedded model. Several rounds; a figure is the best round, and what matters is the ratio within the
row. Baselines, written here, share no code with the package:

    released       the published algorithm: Delta, softmax and difference as [heads, d_head, l, l] tensors, once (it gives k the scores of q)
    materialised   the same way of computing our measures: q and k, each with the two terms of the rotation; for `output` also times V and W_O
    per head       `materialised`, one head at a time, which needs a heads-th of the memory

The second table compares a whole importance pass of a document with a plain forward of it, on a random Llama. The third reports memory.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch

from mwork_lens.attention import Attention, Rotation
from mwork_lens.detect.attention_change import attention_change, output_change, score_changes
from mwork_lens.detect.plnd import _of_attention

D_HEAD = 64
SPREAD = 0.6
"""Standard deviation of the logarithm of a unit's size: that of q and k importances within a layer of the embedded model is 0.48-0.66."""


def layer(d_model: int, length: int, seed: int = 0) -> Attention:
    """Attention of one synthetic layer."""
    g = torch.Generator().manual_seed(seed)
    heads = d_model // D_HEAD
    q, k, v = (torch.randn(heads, length, D_HEAD, generator=g) for _ in range(3))
    spread = torch.exp(SPREAD * torch.randn(heads, 1, D_HEAD, generator=g))
    q = q * spread / spread.square().mean(-1, keepdim=True).sqrt()
    angles = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(0, D_HEAD, 2) / D_HEAD)).repeat(1, 2)
    bias = torch.zeros(heads, length, length).masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    w_o = torch.randn(heads, D_HEAD, d_model, generator=g) / d_model**0.5
    rotation = Rotation.of(angles.cos(), angles.sin(), D_HEAD, "half-split")
    att = Attention(0, q, k, v, w_o, D_HEAD**-0.5, None, bias, rotation, None, None, False)
    _ = att.pattern, att.z, att.raw  # part of any forward: not timed
    return att


def released(att: Attention) -> torch.Tensor:
    """The published algorithm for q (and k)."""
    scores = att.scores(att.raw)
    delta = torch.einsum("hic,hjc->hcij", att.q_rot, att.k_rot)
    return (torch.softmax(scores[:, None] - delta, -1) - att.pattern[:, None]).square().sum((2, 3))


def materialised(att: Attention, heads: slice, *, output: bool) -> list[torch.Tensor]:
    """Exact importances of q and k of some heads, everything materialised."""
    q, k, turn = att.q[heads], att.k[heads], att.rotation
    q_rot, k_rot, p = att.q_rot[heads], att.k_rot[heads], turn.partner
    terms = {
        "q": [(q * turn.own, k_rot), (q * turn.cross, k_rot[..., p])],
        "k": [(q_rot, k * turn.own), (q_rot[..., p], k * turn.cross)],
    }
    scores, found = att.scores(att.raw)[heads], []
    for pairs in terms.values():
        delta = sum(torch.einsum("hic,hjc->hcij", a, b) for a, b in pairs) * att.scale
        change = torch.softmax(scores[:, None] - delta, -1) - att.pattern[heads][:, None]
        if output:
            change = (change @ att.v[heads][:, None]) @ att.W_O[heads][:, None]
        found.append(change.square().sum((2, 3)).sqrt())
    return found


def per_head(att: Attention, *, output: bool) -> list[torch.Tensor]:
    """`materialised`, head by head."""
    parts = [materialised(att, slice(h, h + 1), output=output) for h in range(att.q.shape[0])]
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def exact(att: Attention, change: object) -> list[torch.Tensor]:
    """Ours."""
    units = torch.arange(D_HEAD)
    return [
        torch.stack([change(att, score_changes(att, site, h, units)) for h in range(att.q.shape[0])])
        for site in ("q", "k")
    ]


METHODS = {
    "released": released,
    "materialised": lambda att: materialised(att, slice(None), output=False),
    "per head": lambda att: per_head(att, output=False),
    "exact": lambda att: exact(att, attention_change),
    "where needed": lambda att: _of_attention(att, ("q", "k"), "attention", "where_needed", {"q": 0.1, "k": 0.1}),
    "first order": lambda att: _of_attention(att, ("q", "k"), "attention", "never", {}),
    "output, per head": lambda att: per_head(att, output=True),
    "output, exact": lambda att: exact(att, output_change),
}


def best(run: object, rounds: int) -> float:
    """Seconds of the best round after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def size_table(sizes: list[tuple[int, int]], rounds: int) -> list[dict]:
    """Seconds per size and method, and agreement of ours with the baseline."""
    rows = []
    for d_model, length in sizes:
        att = layer(d_model, length)
        row = {"d_model": d_model, "l": length}
        for name, method in METHODS.items():
            if name in ("released", "materialised") and d_model * length * length * 4 > 6e8:
                row[name] = None  # several tensors of over 600 MB each
                continue
            row[name] = best(partial(method, att), rounds)
        ours, theirs = exact(att, attention_change), per_head(att, output=False)
        row["error"] = max(float((a - b).abs().max() / b.max()) for a, b in zip(ours, theirs, strict=True))
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def pass_table(sizes: list[tuple[int, int]], rounds: int) -> list[dict]:
    """A whole importance pass of one document against a plain forward."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from mwork_lens.capture import as_tokens, forward
    from mwork_lens.detect.plnd import neuron_importance
    from mwork_lens.models import load_model

    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    import families

    rows = []
    for d_model, length in sizes:
        torch.manual_seed(0)
        heads = d_model // D_HEAD
        config = LlamaConfig(vocab_size=4096, hidden_size=d_model, intermediate_size=int(2.7 * d_model), num_hidden_layers=4,
                             num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=1024)  # fmt: skip
        model = load_model(LlamaForCausalLM(config).eval(), tokenizer=families.tokenizer())
        ids = torch.randint(4, 4096, (1, length))
        row = {"d_model": d_model, "l": length, "forward": best(partial(forward, model, as_tokens(ids, model)), rounds)}
        for name, options in {
            "first order": {"measure": "attention", "exact": "never"},
            "where needed": {"measure": "attention", "exact": "where_needed", "top": 0.1},
            "attention, exact": {"measure": "attention"},
            "output, exact": {"measure": "output"},
        }.items():
            row[name] = best(partial(neuron_importance, model, ids, **options), rounds)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def memory_table(d_model: int, length: int) -> dict[str, float]:
    """Peak resident memory a method adds, in MB, each in a process of its own (Linux)."""
    grown = {}
    for name in METHODS:
        code = (
            "import re, sys, torch; sys.path.insert(0, sys.argv[1]); torch.set_num_threads(1)\n"
            "import bench_plnd as b\n"
            f"att = b.layer({d_model}, {length}); b.METHODS[{name!r}](b.layer(128, 64))\n"
            "size = lambda key: int(re.search(key + r':\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1000\n"
            "open('/proc/self/clear_refs', 'w').write('5'); before = size('VmRSS')\n"  # 5: forget the peak so far
            f"b.METHODS[{name!r}](att); print(size('VmHWM') - before)"
        )
        out = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=True
        )
        grown[name] = round(float(out.stdout.split()[-1]), 1)
    print(json.dumps(grown), flush=True)
    return grown


def main() -> None:
    """Run and write results/bench_plnd.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [(d, n) for d in (256, 512, 1024) for n in (128, 256, 512)]
    if arguments.smoke:
        size_table([(128, 64)], 1)
        pass_table([(128, 64)], 1)
        return
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1},
        "sizes": size_table(sizes, arguments.rounds),
        "passes": pass_table([(256, 256), (512, 256), (1024, 128), (1024, 256)], arguments.rounds),
        "memory_mb_1024_256": memory_table(1024, 256),
    }
    path = Path(__file__).parent / "results" / "bench_plnd.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with torch.no_grad():
        main()
