"""Experts inside the dense FFNs of a model: which fire for which language, what that says of language families, what pruning to them costs.

    python experiments/experts/study.py [--out runs/experts]          about five minutes on one core; --resume continues, --smoke tries it

After *Unraveling Babel* (arXiv 2402.16367), whose text, corpora and thresholds were not at hand: what can be compared are its statements ("about
half of the experts are high in all languages", "more than 1000 of 8192 low in all", "language families are visible", "comparable performance at
about 30 % less time"). Two thirds of the documents count frequencies, one third scores pruned models. Partitions: clusters of W_gate, and random and
contiguous ones as controls. Each language keeps its own most frequent experts; beside it as many random ones in every layer. Writes
results/study.json and, for the embedded model, results/*.svg.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import mwork_lens as mw
from mwork_lens.corpora import encode
from mwork_lens.evaluate import document_nll
from mwork_lens.experts.analysis import similarity
from mwork_lens.experts.categories import categories, category_shares, quantile_thresholds, statements
from mwork_lens.experts.frequencies import expert_counts
from mwork_lens.experts.kinship import dendrogram, family_test
from mwork_lens.experts.partition import Partition, partition
from mwork_lens.experts.pruning import flops, keep_by_rank, masked, pruning_scores, random_keep
from mwork_lens.perplexity.tables import perplexity_matrix

METHODS = ("kmeans", "random", "contiguous")
SHARES = (0.1, 0.2, 0.3, 0.5)
"""Share of the experts a token selects; the paper does not give it."""
SHARE = 0.3
KEPT = (0.9, 0.75, 0.5, 0.25)
SHARED = ("keep", "subtract")


def related(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Family test per measure."""
    rows = []
    for shared in SHARED:
        table = similarity(counts, shared=shared)
        found = family_test(table).iloc[0].to_dict()
        rows.append({"shared": shared, "cophenetic": dendrogram(table).cophenetic, **found})
    return rows


def pruned(model: Any, parts: Partition, counts: Mapping[str, Any], texts: Any, a: argparse.Namespace) -> pd.DataFrame:
    """The matrix of every share kept: rows keep a language's own experts, or as many random ones."""
    tables = []
    for share in (0.5,) if a.smoke else KEPT:
        keeps = {x: keep_by_rank(held.frequency(), share) for x, held in counts.items()}
        scores = pruning_scores(
            model, texts, parts, keeps, draws=1 if a.smoke else a.draws, seed=a.seed, length=a.length,
            out=a.out / "pruning", resume=a.resume or bool(tables),
        )  # fmt: skip
        relative = {x: flops(model, parts, keep).relative for x, keep in keeps.items()}
        matrix = perplexity_matrix(scores, seed=a.seed)
        tables.append(matrix.assign(share=share, relative=matrix["off"].map(relative)))
    return pd.concat(tables, ignore_index=True)


def choices(model: Any, corpus: mw.Corpus, *, part: int, seed: int, options: int = 4) -> tuple[mw.Tokens, int]:
    """A task this model can do: which of four passages' continuations belongs to this opening? Openings and continuations of `part` tokens.

    Returns the sequences, `options` a question, the right one first; only the continuation is kept, so only it is scored.
    """
    rows = [row for row in encode(corpus, model)[0] if len(row) > 2 * part]
    generator = torch.Generator().manual_seed(seed)
    ids = []
    for i, row in enumerate(rows):
        others = [j for j in torch.randperm(len(rows), generator=generator).tolist() if j != i][: options - 1]
        ids += [row[: part + 1] + rows[j][part + 1 : 2 * part + 1] for j in (i, *others)]
    table = torch.tensor(ids)
    keep = torch.zeros_like(table, dtype=torch.bool)
    keep[:, part + 1 :] = True
    return mw.Tokens(table, keep), options


def accuracy(model: Any, tokens: mw.Tokens, options: int) -> float:
    """Share of questions whose right continuation is the likeliest."""
    nll = torch.cat(
        [document_nll(model, mw.Tokens(i, k)) for i, k in zip(tokens.ids.split(64), tokens.keep.split(64), strict=True)]
    )
    return float((nll.reshape(-1, options).argmin(1) == 0).double().mean())


def tasks(model: Any, parts: Partition, counts: Mapping[str, Any], texts: Any, a: argparse.Namespace) -> pd.DataFrame:
    """Accuracy of the choice of continuations per language: whole model, own experts, as many random ones."""
    rows = []
    for language, corpus in texts.items():
        tokens, options = choices(model, corpus, part=8 if a.smoke else 24, seed=a.seed)
        questions = len(tokens) // options
        rows.append((language, 1.0, "none", -1, questions, accuracy(model, tokens, options)))
        for share in (0.5,) if a.smoke else KEPT:
            keep = keep_by_rank(counts[language].frequency(), share)
            generator = torch.Generator().manual_seed(a.seed)
            drawn = [random_keep(keep, generator=generator, sizes=parts.sizes()) for _ in range(1 if a.smoke else 3)]
            for kind, draw, chosen in [("own", -1, keep), *(("random", i, one) for i, one in enumerate(drawn))]:
                with masked(model, parts, chosen):
                    rows.append((language, share, kind, draw, questions, accuracy(model, tokens, options)))
    return pd.DataFrame(rows, columns=["language", "share", "neurons", "draw", "questions", "accuracy"])


def task_in_words(table: pd.DataFrame) -> list[str]:
    """Mean accuracy over languages per share."""
    questions = int(table.groupby("language")["questions"].first().sum())
    whole = table[table["neurons"] == "none"]["accuracy"].mean()
    said = [
        f"Which of four continuations belongs to the opening ({questions} questions in all, chance 0.25): whole model {whole:.2f}."
    ]
    for share, part in table[table["neurons"] != "none"].groupby("share", sort=False):
        own, random = (part[part["neurons"] == kind] for kind in ("own", "random"))
        drawn = random.groupby("draw")["accuracy"].mean()
        said.append(
            f"{share:.0%} of the experts kept: own {own['accuracy'].mean():.2f}, random {drawn.mean():.2f} ({drawn.min():.2f} to {drawn.max():.2f})."
        )
    return said


def in_words(found: dict[str, Any], table: pd.DataFrame) -> list[str]:
    """The findings, with their numbers."""
    said = []
    for method, one in found.items():
        for row in one["related"]:
            said.append(
                f"{method} experts, {'language mean subtracted' if row['shared'] == 'subtract' else 'all experts'}: similarity within families minus "
                f"between {row['difference']:+.3f}, p {row['p']:.3f} (smallest possible {row['smallest_p']:.3f})."
            )
    main = found["kmeans"]
    for row in main["statements"]:
        said.append(
            f"'{row['statement']}': paper {row['paper']}; here {row['share']:.2f} of the experts at high {row['high']:.2f}, low {row['low']:.2f} "
            f"(at most {row['possible']:.2f} is possible at this mean frequency)."
        )
    for share, part in table.groupby("share", sort=False):
        own, random = (part[(part["neurons"] == kind) & (part["off"] != "")] for kind in ("own", "random"))
        diagonal = own[own["off"] == own["language"]]
        others = own[own["off"] != own["language"]]
        drawn = random[random["off"] == random["language"]]
        said.append(
            f"{share:.0%} of the experts kept (products {diagonal['relative'].mean():.2f} of the full model): a language's own change its NLL by "
            f"{diagonal['dnll'].mean():+.3f} ({diagonal['dnll'].min():+.3f} to {diagonal['dnll'].max():+.3f}) nats per token, that of the others by "
            f"{others['dnll'].mean():+.3f}; as many random experts {drawn['dnll'].mean():+.3f} ({diagonal['random_low'].min():+.3f} to "
            f"{diagonal['random_high'].max():+.3f}); own beats every draw in {int((diagonal['dnll'] < diagonal['random_low']).sum())} of "
            f"{len(diagonal)}."
        )
    return said


def draw(folder: Path, counts: Any, table: pd.DataFrame) -> None:
    """The figures."""
    from mwork_lens.experts.analysis import frequency_table
    from mwork_lens.plots import write_svg
    from mwork_lens.plots.experts import category_bars, frequency_heatmaps, language_tree, pruning_curves

    top, bottom = 0.5, 1000 / 8192
    diagonal = table[(table["off"] == table["language"])]
    figures = {
        "frequencies": frequency_heatmaps(frequency_table(counts)),
        "tree": language_tree(dendrogram(similarity(counts, shared="subtract"))),
        "categories": category_bars(category_shares(categories(counts, quantiles=(top, bottom)), by="layer")),
        "pruning": pruning_curves(diagonal),
    }
    for name, axes in figures.items():
        first = axes[0] if isinstance(axes, list) else axes
        write_svg(first.figure, folder / f"{name}.svg")


def main() -> None:
    """Run the study and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="polyglot")
    parser.add_argument("--corpora", default="embedded")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--length", type=int, default=64, help="tokens per document where pruned models are scored")
    parser.add_argument("--experts", type=int, default=43, help="per layer; 43 gives the embedded model 8 units each")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/experts"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    a = parser.parse_args()
    start = time.monotonic()
    if a.smoke:
        a.limit, a.length = 12, 32
    model, corpora = mw.load_model(a.model), mw.load_corpora(a.corpora, limit=a.limit)
    counting, held_out = ({x: corpus.split()[part] for x, corpus in corpora.items()} for part in (0, 1))
    found: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for method in METHODS:
        parts = partition(model, experts=a.experts, method=method, seed=a.seed, progress=False)
        counts = mw.measure(model, counting, expert_counts(parts, share=SHARE)).stats
        high, low = quantile_thresholds(counts)
        found[method] = {
            "related": related(counts),
            "statements": statements(counts).to_dict("records")
            + statements(counts, high=high, low=low).to_dict("records"),
            "categories": category_shares(categories(counts, quantiles=(0.5, 1000 / 8192))).to_dict("records"),
        }
        kept[method] = (parts, counts)
    parts, counts = kept["kmeans"]
    curve = []
    for share in SHARES:
        here = mw.measure(model, counting, expert_counts(parts, share=share)).stats
        curve += [{"share": share, **row} for row in statements(here).to_dict("records")]
    table = pruned(model, parts, counts, held_out, a)
    scored = tasks(model, parts, counts, held_out, a)
    findings = in_words(found, table) + task_in_words(scored)
    run = mw.Run(
        "experts", {name: getattr(a, name) for name in ("experts", "draws", "length", "limit")} | {"share": SHARE},
        mw.describe(model), {x: c.facts() for x, c in corpora.items()}, a.seed,
    )  # fmt: skip
    diagonal = table[(table["off"] == table["language"])].round(4)
    record = {
        "findings": findings, "partitions": found, "statements_by_share": curve,
        "task": scored.round(4).to_dict("records"),
        "pruning": json.loads(diagonal.to_json(orient="records")),
        "seconds": round(time.monotonic() - start), "run": run.to_json(),
    }  # fmt: skip
    ours = (a.model, a.corpora) == ("polyglot", "embedded") and not a.smoke
    folder = Path(__file__).parent / "results" if ours else a.out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(
        json.dumps(record, indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8"
    )
    draw(folder, counts, table)
    print("\n".join(findings))


if __name__ == "__main__":
    main()
