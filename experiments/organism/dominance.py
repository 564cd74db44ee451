"""The dominance series: small models of four cloned languages, of which one has 25, 50 or 80 % of the tokens. Does the pivot follow the share?

    python experiments/organism/dominance.py train --share 0.5 --dominant A --seed 0 --out runs/dominance/one
    python experiments/organism/dominance.py series --out runs/dominance        # 15 runs, and with --planted three more; finished ones are skipped
    python experiments/organism/dominance.py measure --out runs/dominance       # tables and figure into OUT/results

The languages differ in nothing but their share (miniworld/clones.py). Measured at the place where the answer to a knowledge question begins: per
layer, the probability that the logit lens (final norm, then unembedding) gives to the words of each language. The hypothesis is that the mass of the
dominant language in the middle layers of questions in the *other* languages grows with its share. Controls: the other languages as pivots in the same
models, another clone as the dominant one, the counterpart of the very answer in place of all words. A run is resumed by the same command.
`--planted` trains with reserved FFN units per language (miniworld/planted.py); `measure` then also ablates each block, and writes the truth.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from dominance_measure import measure, score
from miniworld.clones import LANGUAGES, batch, clone_facts, clone_items, lexicon
from miniworld.planted import Routing, planted
from recipe import Recipe
from train import build, export, loss_of, optimizers, rate

SHARES, DOMINANT, SEEDS = (0.25, 0.5, 0.8), ("A", "C"), (0, 1, 2)


@dataclass(frozen=True)
class Series(Recipe):
    """A run of the series; what it does not say is as in `Recipe`, of which `english`, `low`, `kinds`, `binding` and `held_out` are not used."""

    share: float = 0.25
    """Of the tokens, of the dominant language; the others share the rest equally."""
    dominant: str = "A"
    steps: int = 1200
    rows: int = 32
    length: int = 96
    width: int = 96
    layers: int = 6
    mlp: int = 288
    context: int = 128
    vocabulary: int = lexicon().size
    claims: int = 3
    """Longest passage."""
    subjects: int = 40
    """Of each kind, so many have facts."""
    planted: bool = False
    reserved: float = 0.5
    """Share of the FFN units that belong to one language each, if planted."""
    penalty: float = 0.1
    """Weight of the penalty on closed units, if planted."""

    def __post_init__(self) -> None:
        if self.dominant not in LANGUAGES:
            raise ValueError(f"no clone {self.dominant!r} to be dominant: there are {', '.join(LANGUAGES)}")
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share}: the dominant language has a share between 0 and 1 of the tokens")

    def shares(self) -> dict[str, float]:
        """Share of tokens of each language."""
        rest = (1 - self.share) / (len(LANGUAGES) - 1)
        return {code: self.share if code == self.dominant else rest for code in LANGUAGES}

    @property
    def name(self) -> str:
        """Such as `A-50-0`: the dominant language, its share in percent, the seed."""
        return f"{self.dominant}-{round(100 * self.share)}-{self.seed}{'-planted' if self.planted else ''}"

    def routes(self) -> Mapping:
        """Each language's own units, if planted."""
        return planted(self.layers, self.mlp, self.reserved) if self.planted else {}


def made_batch(recipe: Series, step: int, words, known: list) -> tuple:
    """The batch of a step: a function of the seed and the step."""
    chance = random.Random(f"clones-{recipe.seed}-{step}")
    return batch(
        chance, recipe.shares(), words, known, rows=recipe.rows, length=recipe.length, progress=step / recipe.steps, claims=recipe.claims,
    )  # fmt: skip


def train(
    recipe: Series, out: Path, *, every: int = 200, stop: int | None = None, compiled: bool = False
) -> Path | None:
    """Train a run, or go on with it, and write its folder.

    Args:
        recipe: What to train.
        out: The folder: recipe.json, log.jsonl, checkpoint.pt, and when finished model/ and done.json.
        every: Steps between checkpoints.
        stop: Stop (with a checkpoint) before this step.
        compiled: Compile the model; not for planted ones.

    Returns:
        The model's folder, or None if it was stopped.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    known_recipe = out / "recipe.json"
    if known_recipe.exists() and json.loads(known_recipe.read_text()) != json.loads(json.dumps(asdict(recipe))):
        raise ValueError(f"{out} holds a run with another recipe: choose another folder")
    recipe.save(known_recipe)
    if (out / "done.json").exists():
        return out / "model"
    words, known = lexicon(), clone_facts(count=recipe.subjects)
    model, checkpoint, start = build(recipe), out / "checkpoint.pt", 0
    opts = optimizers(model, recipe)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        start = state["step"]
    routing = Routing(model, recipe.routes()) if recipe.planted else None
    run = torch.compile(model.model, dynamic=False) if compiled and not routing else model.model
    last, begun, losses = min(recipe.steps, stop or recipe.steps), time.time(), []
    model.train()
    for step in range(start, last):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = recipe.rate * rate(recipe, step)
        *made, languages = made_batch(recipe, step, words, known)
        if routing:
            routing.languages = torch.from_numpy(languages)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, run, *made, torch.Generator().manual_seed(recipe.seed * 1_000_003 + step))
        whole = loss + recipe.penalty * routing.penalty() if routing else loss
        whole.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if (step + 1) % every == 0 or step + 1 == last:
            seen = {"step": step + 1, "loss": sum(losses) / len(losses), "seconds": round(time.time() - begun, 1)}
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(seen) + "\n")
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts], "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            print(
                f"{recipe.name} step {step + 1} of {recipe.steps}, loss {seen['loss']:.3f}, {seen['seconds']:.0f} s",
                flush=True,
            )
            losses.clear()
    if last < recipe.steps:
        return None
    if routing:
        routing.languages = None
    export(model.eval(), words.tokenizer(), out / "model", recipe.context)
    answers, _ = score(model, clone_items(words, known, 40, claims=max(3, recipe.claims)), words)
    right = answers.groupby(["kind", "known"])["right"].mean().round(3)
    done = {"name": recipe.name, "right": {f"{kind} {where}".strip(): value for (kind, where), value in right.items()}}
    (out / "done.json").write_text(json.dumps(done, indent=1) + "\n")
    print(done, flush=True)
    return out / "model"


def plan(arguments: argparse.Namespace) -> list[Series]:
    """All runs of the series: with equal shares no language is dominant, so that there is one run a seed."""
    sizes = sizes_of(arguments)
    runs = [Series(share=0.25, seed=seed, **sizes) for seed in SEEDS]
    runs += [
        Series(share=share, dominant=code, seed=seed, **sizes)
        for share in SHARES[1:]
        for code in DOMINANT
        for seed in SEEDS
    ]
    return runs + [Series(share=share, seed=0, planted=True, **sizes) for share in SHARES if arguments.planted]


def sizes_of(arguments: argparse.Namespace) -> dict[str, int]:
    """Sizes from the command line."""
    if arguments.smoke:
        return {"steps": 4, "rows": 4, "width": 32, "layers": 3, "mlp": 32, "subjects": 8, "warmup": 2}
    return {"steps": arguments.steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("train", "series", "measure"))
    parser.add_argument(
        "--out", type=Path, required=True, help="of `train` the run's folder, else the folder of all runs"
    )
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--dominant", default="A")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Series.steps)
    parser.add_argument(
        "--planted", action="store_true", help="reserved FFN units per language; in a series, three more runs"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", default="0/1", help="I/N: the runs I, I + N ... of a series, to use N processes")
    parser.add_argument("--compile", action="store_true", help="compile the model (needs a C++ compiler)")
    parser.add_argument("--smoke", action="store_true", help="four steps of a tiny model")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.do == "train":
        one = Series(
            share=given.share, dominant=given.dominant, seed=given.seed, planted=given.planted, **sizes_of(given)
        )
        train(one, given.out, compiled=given.compile)
    elif given.do == "series":
        part, parts = map(int, given.part.split("/"))
        for recipe in plan(given)[part::parts]:
            train(recipe, given.out / recipe.name, compiled=given.compile)
    else:
        measure(given.out, given.out / "results", Series, smoke=given.smoke)


if __name__ == "__main__":
    main()
