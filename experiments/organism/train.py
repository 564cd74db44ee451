"""Train a model organism: a small Llama on the generated world and natural sentences. Resumable: run the same command again.

    python experiments/organism/train.py --out runs/organism --corpora <folder of <lang>.txt>

`--corpora` holds natural text, one line a document, a file per language (Common Voice sentences, CC0, and the like); without it the model is
trained on the generated world alone. A batch is a function of (seed, step), so an interrupted run goes on as if it had not stopped, up to the
rounding of the machine's kernels. Hidden matrices are updated by Muon, embeddings and norms by AdamW, both from torch.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import torch
from miniworld.items import COUNTS, items
from recipe import BOS, EOS, Encoder, Recipe, batches, natural, plain_bytes, train_tokenizer
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHOICES = ("seed", "steps", "rows", "english", "low", "width", "layers", "mlp", "rate", "binding")
"""Fields of the recipe that the command line sets."""


def build(recipe: Recipe) -> LlamaForCausalLM:
    """The untrained model."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocabulary, hidden_size=recipe.width, num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads, num_key_value_heads=recipe.kv_heads, intermediate_size=recipe.mlp,
            max_position_embeddings=recipe.context, tie_word_embeddings=True, bos_token_id=BOS, eos_token_id=EOS,
            rms_norm_eps=1e-6, attn_implementation="eager",
        )
    )  # fmt: skip


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for the rest (no decay on norms)."""
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    embedding = [p for n, p in model.named_parameters() if "embed" in n]
    norms = [p for p in model.parameters() if p.ndim == 1]
    return [
        torch.optim.Muon(hidden, lr=recipe.rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": embedding, "weight_decay": recipe.weight_decay}, {"params": norms, "weight_decay": 0.0}],
            lr=recipe.rate, betas=(0.9, 0.97), fused=True,
        ),
    ]  # fmt: skip


def rate(recipe: Recipe, step: int) -> float:
    """Warm-up, plateau, linear fall to zero: as a share of the peak."""
    fall = recipe.decay * recipe.steps
    return min(1.0, (step + 1) / recipe.warmup, (recipe.steps - step) / fall)


def loss_of(model: LlamaForCausalLM, run, ids, weights, numbers, chance: torch.Generator) -> torch.Tensor:
    """Weighted cross-entropy; of tokens that weigh less than one, only as large a share is predicted at all."""
    ids, weights, numbers = torch.from_numpy(ids), torch.from_numpy(weights), torch.from_numpy(numbers)
    seen = (numbers[:, :, None] == numbers[:, None, :]) & torch.ones(
        ids.shape[1], ids.shape[1], dtype=torch.bool
    ).tril()
    # added to the scores: eager attention would take True and False for 1 and 0
    mask = torch.zeros(seen.shape, dtype=torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32)
    mask = mask.masked_fill(~seen, -1e9)[:, None]
    target = weights[:, 1:].contiguous()
    light = target < 1
    chosen = torch.where(light, torch.rand(target.shape, generator=chance) < target, target > 0)
    hidden = run(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1][chosen]
    logits = model.lm_head(hidden).float()
    weight = torch.where(light, 1.0, target)[chosen]
    losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][chosen], reduction="none")
    return (losses * weight).sum() / weight.sum()


@torch.no_grad()
def quick(model: LlamaForCausalLM, tokenizer: Tokenizer, probe: list[dict]) -> dict[str, float]:
    """Share of held-out items whose answer is the likeliest token at every place, by kind and language (facts: where they were stated)."""
    right: dict[str, list[float]] = {}
    for item in probe:
        glue = "" if item["language"] == "zh" else " "
        answer = item["meta"].get("equations") or item["answers"][0]
        prompt = tokenizer.encode(item["prompt"]).ids
        ids = tokenizer.encode(f"{item['prompt']}{glue}{answer}").ids
        guess = model(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].argmax(-1)
        stated = item["meta"].get("stated")
        where = "" if stated is None else ("-stated" if stated in ("all", item["language"]) else "-elsewhere")
        kind = item["id"].split("-")[0]
        right.setdefault(f"{kind}{where}/{item['language']}", []).append(
            float((guess == torch.tensor(ids[len(prompt) :])).all())
        )
    return {key: sum(values) / len(values) for key, values in sorted(right.items())}


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """A Hugging Face folder, float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.float().save_pretrained(folder)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=plain_bytes(tokenizer), bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=context,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    wrapped.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpora", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints and looks at held-out items")
    parser.add_argument(
        "--compile", action="store_true", help="compile the model (needs a C++ compiler); a third faster on a CPU"
    )
    parser.add_argument("--minutes", type=float, help="stop (with a checkpoint) after so many minutes")
    parser.add_argument(
        "--tokenizer", type=Path, help="use this tokenizer.json (that of the shipped model, to make it again)"
    )
    for name in CHOICES:
        default = getattr(Recipe, name)
        parser.add_argument(f"--{name}", type=type(default), default=default)
    given = parser.parse_args()
    recipe = Recipe(**{name: getattr(given, name) for name in CHOICES})
    if given.threads:
        torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    known = given.out / "recipe.json"
    if known.exists() and json.loads(known.read_text()) != json.loads(json.dumps(vars(recipe))):
        raise SystemExit(f"{given.out} holds a run with another recipe: choose another --out")
    recipe.save(known)
    plain = natural(given.corpora, recipe.held_out)
    path = given.out / "tokenizer.json"
    if given.tokenizer:
        shutil.copy(given.tokenizer, path)
    if not path.exists():
        train_tokenizer(plain, recipe.vocabulary).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    model = build(recipe)
    opts, checkpoint, start = optimizers(model, recipe), given.out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        start = state["step"]
    probe = [item for kind, count in COUNTS.items() for item in items(kind, min(16, count)) if kind != "cloze"]
    log, begun, losses = given.out / "log.jsonl", time.time(), []
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, from step {start} of {recipe.steps}",
        flush=True,
    )

    def keep(step: int) -> None:
        model.eval()
        seen = {"step": step, "loss": sum(losses) / max(1, len(losses)), "seconds": time.time() - begun} | quick(
            model, tokenizer, probe
        )
        model.train()
        with log.open("a") as file:
            file.write(json.dumps(seen) + "\n")
        torch.save(
            {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts], "step": step},
            checkpoint.with_suffix(".tmp"),
        )
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        means: dict[str, list[float]] = {}
        for key, value in seen.items():
            if "/" in key:
                kind, language = key.split("/")
                means.setdefault(f"{kind}:{'en' if language == 'en' else 'rest'}", []).append(value)
        shown = " ".join(f"{key}={sum(values) / len(values):.2f}" for key, values in means.items())
        print(f"step {step} loss {seen['loss']:.3f} {seen['seconds']:.0f}s {shown}", flush=True)
        losses.clear()

    model.train()
    run = torch.compile(model.model, dynamic=False) if given.compile else model.model
    for step, made in enumerate(batches(recipe, start, Encoder(tokenizer), plain), start):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = recipe.rate * rate(recipe, step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, run, *made, torch.Generator().manual_seed(recipe.seed * 1_000_003 + step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            print(f"  {step} {losses[-1]:.3f} {time.time() - begun:.0f}s", flush=True)
        late = given.minutes is not None and time.time() - begun > 60 * given.minutes
        if (step + 1) % given.every == 0 or late:
            keep(step + 1)
        if late:
            return
    if start < recipe.steps and recipe.steps % given.every:
        keep(recipe.steps)
    export(model.eval(), tokenizer, given.out / "model", recipe.context)


if __name__ == "__main__":
    main()
