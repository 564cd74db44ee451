"""Enhancement (Zhao et al. 2024, section 4.4): does training a language's neurons alone help the language, and spare the others?

    python experiments/enhance/study.py --corpora FOLDER [--model organism] [--languages ru zh] [--out runs/enhance] [--smoke]

Arms: the language's own neurons, as many random ones per site and layer, all parameters, and LoRA of about equal size (needs `peft`), each on 100,
200, 400 and 800 documents and several seeds. FOLDER holds <language>.txt, a document a line; `--first-share` of its lines are used (of the corpora
the embedded organism was trained on it has not seen the first 4 %): for training, for choosing, and for the test. Every arm gets the rate that is
best for the target language on the choosing documents, chosen for every size with seed 0, so that no arm is judged at another's rate; rates are
tried upward and downward by factors of about three until the best one has a worse one on either side.
Results are NLL per token on test documents: of the target, of English, and the mean of the other languages. Finished runs are kept in --out.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportMissingImports=false

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import mwork_lens as mw
from mwork_lens.enhance.training import NotFinite, fit
from mwork_lens.plain import plain_model
from mwork_lens.storage import Run, content_hash, reuse, save, write_json, write_text

FIRST_RATE = {"own": 1e-2, "random": 1e-2, "all": 1e-3, "lora": 1e-2}
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
SIZES = (100, 200, 400, 800)
LORA = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")


class Whole(nn.Module):
    """A plain model, all of whose parameters are trained."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any, **loss: Any) -> Any:
        return self.plain(input_ids=input_ids, attention_mask=attention_mask, labels=labels, use_cache=False, **loss)


@dataclass
class Bench:
    """What the arms share."""

    given: argparse.Namespace
    model: Any
    train: Mapping[str, mw.Corpus]
    held_out: Mapping[str, mw.Corpus]
    """`<language>/choose` and `<language>/test`."""
    own: Mapping[str, mw.NeuronSet]

    def settings(self, rate: float, documents: int, seed: int) -> mw.Training:
        """The paper's schedule, with batches small enough for 100 documents to make steps."""
        return mw.Training(
            rate=rate,
            epochs=self.given.epochs,
            batch=8,
            accumulation=1,
            clip=1.0,
            length=self.given.length,
            seed=seed,
            save_every=10**6,
        )

    def nll(self, arm: str, language: str, rate: float, documents: int, seed: int) -> dict[str, float]:
        """NLL per token after training, by held-out corpus; kept in --out."""
        training = self.settings(rate, documents, seed)
        corpus = self.train[language].chunks(documents)[0]
        held_out = {k: c for k, c in self.held_out.items() if k.endswith("/test") or k == f"{language}/choose"}
        key = content_hash(mw.fingerprint(self.model), arm, corpus.fingerprint, vars(training), [c.fingerprint for c in held_out.values()],
                           {k: sorted(map(str, v)) for k, v in self.own.items()} if arm in ("own", "random") else None)  # fmt: skip
        path = self.given.out / "runs" / f"{arm}-{language}-{documents}-{seed}-{key[:10]}.parquet"
        if (found := reuse(path, key, "training this run again")) is None:
            log, size = self._trained(arm, language, corpus, training, held_out)
            values = [row["nll"] for row in log if "nll" in row][-1]
            found = pd.DataFrame({"corpus": list(values), "nll": list(values.values()), "size": size})
            save(found, path, Run("enhance study", {"key": key}))
        return dict(zip(found["corpus"], found["nll"], strict=True)) | {"size": int(found["size"].iloc[0])}

    def chosen_by(self, arm: str, language: str, documents: int, rate: float) -> float:
        """NLL per token of the choosing documents, seed 0."""
        return self.nll(arm, language, rate, documents, 0)[f"{language}/choose"]

    def _trained(
        self,
        arm: str,
        language: str,
        corpus: mw.Corpus,
        training: mw.Training,
        held_out: Mapping[str, mw.Corpus],
    ) -> tuple[list[dict[str, Any]], int]:
        options = {"held_out": held_out, "baseline": False, "progress": False}
        if arm in ("own", "random"):
            neurons = self.own[language]
            if arm == "random":
                generator = torch.Generator().manual_seed(training.seed)
                neurons = mw.matched_random(neurons, exclude=neurons, generator=generator)
            delta = mw.enhance(self.model, corpus, neurons, training, **options)
            return list(delta.facts["log"]), delta.size
        plain = plain_model(self.model, "eager")
        torch.manual_seed(training.seed)
        module: Any = Whole(plain) if arm == "all" else lora(plain, self._rank(plain, language))
        size = sum(p.numel() for p in module.parameters() if p.requires_grad)
        return fit(module, plain, self.model, corpus, training, **options), size

    def _rank(self, plain: Any, language: str) -> int:
        """The rank whose size is nearest to that of the language's own slices."""
        from mwork_lens.enhance.slices import owned, rows

        size = sum(rows(self.model, s.layer, s.matrix)[s.units].numel() for s in owned(self.model, self.own[language]))
        one = sum(sum(m.weight.shape) for name, m in plain.named_modules() if name.endswith(LORA))
        return max(1, round(size / one))


def lora(plain: Any, rank: int) -> Any:
    """LoRA on the matrices that enhancement trains."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise SystemExit(
            "the arm lora needs peft: pip install 'mwork-lens[enhance]', or leave it out with --arms own random all"
        ) from None
    return get_peft_model(plain, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(LORA), lora_dropout=0.0))


def main() -> None:
    """Choose rates, train every arm, write."""
    given = parse()
    started, bench = time.time(), begin(given)
    rows, rates = [], {}
    before = {language: bench_nll(bench) for language in given.languages}
    for language in given.languages:
        for arm in given.arms:
            for documents in given.sizes:
                tried = climb(FIRST_RATE[arm], partial(bench.chosen_by, arm, language, documents))
                rate = min(tried, key=lambda r: tried[r])
                rates[f"{arm}, {language}, {documents}"] = {str(r): round(nll, 4) for r, nll in sorted(tried.items())}
                for seed in range(given.seeds):
                    after = bench.nll(arm, language, rate, documents, seed)
                    rows.append({"arm": arm, "language": language, "documents": documents, "seed": seed, "rate": rate, "size": after["size"],
                                 **change(before[language], after, language)})  # fmt: skip
                print(
                    f"{arm}, {language}, {documents} documents: rate {rate}, {time.time() - started:.0f} s", flush=True
                )
    table = pd.DataFrame(rows)
    means = summary(table)
    write_text(given.results / "enhance.csv", table.round(5).to_csv(index=False))
    write_text(given.results / "means.csv", means.round(5).to_csv(index=False))
    run = Run(
        "experiments/enhance/study",
        {k: str(v) for k, v in vars(given).items() if k not in ("out", "results", "corpora")},
        mw.describe(bench.model),
        {k: c.facts() for k, c in bench.train.items()},
    )
    record = {
        "tried": rates,
        "neurons": {k: len(v) for k, v in bench.own.items()},
        "before": before,
        "seconds": round(time.time() - started),
    }
    write_json(given.results / "enhance.json", {**record, "run": run.to_json()})
    draw(means, given.results / "enhance.svg")
    print(means.round(3).to_string(index=False))


def climb(first: float, score: Callable[[float], float]) -> dict[float, float]:
    """Rates and their scores, from `first` on until the lowest score has a neighbour on either side; a loss that left the numbers is the worst."""
    at = RATES.index(first)
    tried: dict[float, float] = {}
    while True:
        for near in (at, at - 1, at + 1):
            if 0 <= near < len(RATES) and RATES[near] not in tried:
                try:
                    tried[RATES[near]] = score(RATES[near])
                except NotFinite:
                    tried[RATES[near]] = float("inf")
        best = RATES.index(min(tried, key=lambda r: (tried[r], r)))  # of rates that all diverge the lowest
        if best == at:
            return tried
        at = best


def bench_nll(bench: Bench) -> dict[str, float]:
    """Before anything was trained."""
    table = mw.evaluate(bench.model, dict(bench.held_out), length=bench.given.length)
    sums = table.groupby("language")[["nll", "tokens"]].sum()
    return (sums["nll"] / sums["tokens"]).to_dict()


def change(before: Mapping[str, float], after: Mapping[str, float], language: str) -> dict[str, float]:
    """NLL per token after minus before: target, English, mean of the others."""
    names = [name.split("/")[0] for name in before if name.endswith("/test")]
    gap = {name: after[f"{name}/test"] - before[f"{name}/test"] for name in names}
    others = [value for name, value in gap.items() if name not in (language, "en")]
    return {"target": gap[language], "english": gap["en"], "others": float(np.mean(others)) if others else float("nan")}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with 95 % t intervals."""
    from scipy.stats import t

    made = []
    for key, part in table.groupby(["language", "arm", "documents"], sort=False):
        row = dict(zip(("language", "arm", "documents"), key, strict=True)) | {
            "size": int(part["size"].iloc[0]),
            "seeds": len(part),
        }
        for name in ("target", "english", "others"):
            values = part[name].to_numpy(float)
            half = (
                t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            )
            row |= {name: values.mean(), f"{name}_low": values.mean() - half, f"{name}_high": values.mean() + half}
        made.append(row)
    return pd.DataFrame(made)


def draw(means: pd.DataFrame, path: Path) -> None:
    """Change of NLL over documents, a line per arm; a row per language, columns target, English, others."""
    from mwork_lens.plots.style import house_style, make_figure, write_svg

    colours = {"own": "#009E73", "random": "#8A8A8A", "all": "#D55E00", "lora": "#0072B2"}
    labels = {
        "own": "the language's own neurons",
        "random": "random neurons",
        "all": "all parameters",
        "lora": "LoRA, equal size",
    }
    languages = list(dict.fromkeys(means["language"]))
    with house_style():
        figure = make_figure(7.0, 0.6 + 2.1 * len(languages))
        panels = figure.subplots(len(languages), 3, sharex=True, sharey="row", squeeze=False)
        for row, language in zip(panels, languages, strict=True):
            for panel, name in zip(row, ("target", "english", "others"), strict=True):
                for arm, colour in colours.items():
                    part = means[(means["language"] == language) & (means["arm"] == arm)].sort_values("documents")
                    if part.empty:
                        continue
                    panel.fill_between(
                        part["documents"],
                        part[f"{name}_low"],
                        part[f"{name}_high"],
                        color=colour,
                        alpha=0.15,
                        linewidth=0,
                    )
                    panel.plot(part["documents"], part[name], color=colour, marker="o", markersize=3, label=labels[arm])
                panel.axhline(0, color="#222222", linewidth=0.8)
                of = {"target": "in itself", "english": "in English", "others": "in the others"}[name]
                panel.set_title(f"{language} trained: {of}")
                panel.set_xscale("log")
                panel.set_xticks(list(means["documents"].unique()), [str(x) for x in means["documents"].unique()])
                panel.minorticks_off()
            row[0].set_ylabel("change of NLL, nats per token")
        for panel in panels[-1]:
            panel.set_xlabel("documents")
        handles, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=4)
        write_svg(figure, path)


def begin(given: argparse.Namespace) -> Bench:
    """Model, documents, and the neurons of each language."""
    if given.corpora == "embedded" and not given.smoke:
        raise SystemExit(
            "give --corpora FOLDER: neurons are found in the embedded texts, so these are no texts to test on"
        )
    model = mw.load_model(given.model)
    texts = mw.load_corpora(given.corpora)
    known = mw.load_corpora("embedded", limit=given.passages)
    if missing := [x for x in (*given.languages, "en") if x not in texts or x not in known]:
        raise SystemExit(
            f"{missing[0]!r} is not among the languages of both {given.corpora} and the embedded texts: {', '.join(x for x in texts if x in known)}"
        )
    train, held_out = {}, {}
    for language in (x for x in texts if x in known):
        corpus = texts[language]
        first = corpus.chunks(max(1, int(len(corpus) * given.first_share)))[0]
        need = max(given.sizes) + given.choose + given.test
        if len(first) < need and language in given.languages:
            raise SystemExit(
                f"{language}: {len(first)} documents are fewer than the {need} needed; use less (--sizes) or a larger --first-share"
            )
        parts = first.chunks(given.test)
        held_out[f"{language}/test"] = parts[0]
        if language in given.languages:
            held_out[f"{language}/choose"] = mw.Corpus(language, first.texts[given.test : given.test + given.choose])
            train[language] = mw.Corpus(language, first.texts[given.test + given.choose : need])
    sums = mw.measure(
        model, known, mw.importances(top=0.1, length=given.length), out=given.out / "importances", resume=True
    )
    own = mw.specific(mw.plnd(sums, consensus=0.9, model=model), minus="others")
    print("neurons: " + ", ".join(f"{x} {len(own[x])}" for x in given.languages), flush=True)
    return Bench(given, model, train, held_out, {x: own[x] for x in given.languages})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism")
    parser.add_argument(
        "--corpora",
        default="embedded",
        help="folder of <language>.txt; the embedded texts, in which neurons are found, serve for --smoke alone",
    )
    parser.add_argument(
        "--first-share", type=float, default=1.0, help="share of each file's lines, from its start, that may be used"
    )
    parser.add_argument("--languages", nargs="+", default=["ru", "zh"])
    parser.add_argument("--arms", nargs="+", default=list(FIRST_RATE), choices=list(FIRST_RATE))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="documents")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--length", type=int, default=64, help="tokens per document at most")
    parser.add_argument(
        "--passages", type=int, default=144, help="embedded passages per language in which neurons are found"
    )
    parser.add_argument("--choose", type=int, default=100, help="documents on which rates are chosen")
    parser.add_argument("--test", type=int, default=200, help="documents on which arms are compared")
    parser.add_argument("--out", type=Path, default=Path("runs/enhance"))
    parser.add_argument("--results", type=Path, help="default OUT/results")
    parser.add_argument("--smoke", action="store_true", help="one language, 8 documents, two seeds")
    given = parser.parse_args()
    given.results = given.results or given.out / "results"
    if given.smoke:
        given.languages, given.arms, given.sizes, given.seeds = (
            ["ru"],
            ["own", "all"],
            [8],
            2,
        )
        given.choose, given.test, given.passages = 8, 8, 24
    return given


if __name__ == "__main__":
    main()
