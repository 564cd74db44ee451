"""Do the measures of PLND agree, on a trained model?

    python experiments/benchmarks/agreement_plnd.py            the second table of docs/benchmarks.md (about a minute)

Spearman correlation and overlap of the top 10 % (Jaccard; 0.053 by chance) between measures, per site: mean over layers and documents, with the
smallest layer's mean. Documents: the first four embedded passages of each of six languages.
"""

import json
from itertools import combinations
from pathlib import Path

import torch
from scipy.stats import spearmanr

import mwork_lens as mw
from mwork_lens.attention import of_layer, wanted
from mwork_lens.detect import queries_keys
from mwork_lens.detect.first_order import estimate
from mwork_lens.stats import top_count

MEASURES = {
    "output": {"measure": "output"},
    "attention": {"measure": "attention"},
    "first order": {"measure": "attention", "exact": "never"},
    "where needed": {"measure": "attention", "exact": "where_needed", "top": 0.1},
    "released": {"measure": "released"},
}


def top(scores: torch.Tensor) -> set[int]:
    """The top tenth of a layer's units."""
    return set(scores.topk(max(1, round(0.1 * len(scores)))).indices.tolist())


def open_share(model: object, documents: list[mw.Tokens]) -> dict[str, float]:
    """Share of q and k units whose side of a top-10 % cut is open: under the rigorous bound, and evaluated by `where_needed`."""
    bound, evaluated, units = 0, 0, 0
    exactly = queries_keys.attention_change

    def counted(att: object, changes: list) -> torch.Tensor:
        nonlocal evaluated
        evaluated += len(changes[0])
        return exactly(att, changes)

    def on_layer(layer: int, captured: dict) -> None:
        nonlocal bound, units
        att = of_layer(model, layer, captured)
        for site, owners in (("q", att.q.shape[0]), ("k", att.k.shape[0])):
            guesses = [estimate(att, site, owner) for owner in range(owners)]
            low, high = (torch.cat([getattr(guess, edge) for guess in guesses]) for edge in ("low", "high"))
            bound += int(queries_keys.undecided(low, high, top_count(0.1, len(low))).sum())
            units += len(low)

    for document in documents:
        mw.capture(model, document, wanted(model), on_layer)
    queries_keys.attention_change = counted
    for document in documents:
        mw.neuron_importance(model, document, sites=("q", "k"), **MEASURES["where needed"])
    queries_keys.attention_change = exactly
    return {"rigorous bound": round(bound / units, 3), "where needed": round(evaluated / units, 3)}


def main() -> None:
    """Compare, print and write results/agreement_plnd.json."""
    model = mw.load_model("polyglot")
    documents = [
        next(iter(mw.batches(corpus.shard(i, 4), model, size=1)))
        for corpus in mw.load_corpora(limit=4).values()
        for i in range(4)
    ]
    found = [
        {name: mw.neuron_importance(model, document, **how) for name, how in MEASURES.items()} for document in documents
    ]
    rows = []
    for a, b in combinations(MEASURES, 2):
        for site in ("q", "k", "v", "z", "ffn"):
            if (a in ("first order", "where needed") or b in ("first order", "where needed")) and site not in (
                "q",
                "k",
            ):
                continue
            rank = torch.zeros(len(found), model.cfg.n_layers)
            overlap = torch.zeros_like(rank)
            for i, measures in enumerate(found):
                for layer in range(rank.shape[1]):
                    x, y = measures[a][site][layer], measures[b][site][layer]
                    rank[i, layer] = spearmanr(x, y).statistic
                    overlap[i, layer] = len(top(x) & top(y)) / len(top(x) | top(y))
            row = {
                "measures": f"{a} / {b}", "site": site,
                "spearman": rank.mean().item(), "smallest layer": rank.mean(0).min().item(), "at layer": int(rank.mean(0).argmin()),
                "top 10 % jaccard": overlap.mean().item(),
            }  # fmt: skip
            rows.append({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})
            print(json.dumps(rows[-1]), flush=True)
    path = Path(__file__).parent / "results" / "agreement_plnd.json"
    shares = open_share(model, documents)
    print(json.dumps(shares), flush=True)
    path.write_text(
        json.dumps({"documents": len(documents), "open at a top-10 % cut": shares, "rows": rows}, indent=1) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
