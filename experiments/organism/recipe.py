"""What a run is made of: the configuration, the tokenizer, the batches. A batch depends on the seed and its step alone, so a run resumes exactly."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from miniworld.documents import KINDS, Document, draw, lexicon_texts
from miniworld.languages import CODES, grammar, zh
from miniworld.meaning import NAMES
from miniworld.world import facts

FEW = 4
"""Persons of the first passages."""
ALPHABET = 800
"""Letters that are tokens; rarer ones are spelt in bytes."""
SPECIAL = ("<unk>", "<s>", "</s>")
BOS, EOS = 1, 2
MARKS = r"[.,!?:;'’\-\n。，？！：；、¿¡«»“”\"()—–…]"


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training run."""

    seed: int = 0
    steps: int = 3600
    rows: int = 40
    length: int = 160
    english: float = 0.4
    """Share of the tokens that are English."""
    low: float = 0.05
    """Share of Swahili; the other languages share the rest equally."""
    kinds: Mapping[str, float] = field(default_factory=lambda: dict(KINDS))
    """Shares of documents in the end."""
    binding: float = 0.35
    """Share of the steps, at the start, in which most documents are passages, of a few persons only: who has what is learnt then, or late."""
    vocabulary: int = 6144
    width: int = 128
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 384
    context: int = 512
    rate: float = 4e-3
    """Peak learning rate, of Muon (matched to AdamW's update size) and of AdamW."""
    warmup: int = 100
    decay: float = 0.45
    """Share of the steps, at the end, over which the rate falls linearly to zero."""
    weight_decay: float = 0.05
    held_out: float = 0.04
    """Share of the natural lines at the head of each file that training does not see."""

    def shares(self) -> dict[str, float]:
        """Share of tokens of each language."""
        rest = [code for code in CODES if code not in ("en", "sw")]
        return {"en": self.english, "sw": self.low} | {code: (1 - self.english - self.low) / len(rest) for code in rest}

    def curriculum(self, progress: float) -> tuple[dict[str, float], tuple[str, ...]]:
        """Shares of documents and persons of passages at a point of training: four persons at first, then steadily more, all in the end."""
        grown = min(1.0, max(0.0, (progress - self.binding) / (0.6 * self.binding))) if self.binding else 1.0
        order = random.Random("persons").sample(NAMES, len(NAMES))
        read = self.kinds["understanding"]
        passages = read + (1 - grown) * max(0.0, 0.7 - read)
        rest = {kind: share for kind, share in self.kinds.items() if kind != "understanding"}
        rest = {kind: share * (1 - passages) / sum(rest.values()) for kind, share in rest.items()}
        return {"understanding": 0.5 * passages, "roll": 0.5 * passages, **rest}, tuple(
            order[: FEW + round(grown * (len(NAMES) - FEW))]
        )

    def save(self, path: Path) -> None:
        """Write as json."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def natural(folder: Path | None, held_out: float, *, longest: int = 400) -> dict[str, list[str]]:
    """Natural lines per language from `<folder>/<lang>.txt`, without the held-out head of each file; long ones are left out."""
    if folder is None:
        return {code: [] for code in CODES}
    found = {}
    for code in CODES:
        path = folder / f"{code}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: give a folder with a text file for each of {', '.join(CODES)}")
        lines = path.read_text(encoding="utf-8").splitlines()
        lines = lines[int(held_out * len(lines)) :]
        found[code] = [line for line in lines if line and len(line) <= longest]
    return found


def chinese_words() -> list[str]:
    """Words of the Chinese lexicon, longest first: they are pieces of their own; what stands between them may merge."""
    tables = [table for table in vars(zh).values() if isinstance(table, dict)]
    leaves = [
        leaf
        for table in tables
        for value in table.values()
        for leaf in (value if isinstance(value, tuple) else (value,))
    ]
    words = {
        leaf for leaf in leaves if isinstance(leaf, str) and len(leaf) > 1 and all("一" <= c <= "鿿" for c in leaf)
    }
    return sorted(words | {"问题", "回答", "标题", "现在", "多少"}, key=lambda word: (-len(word), word))


def train_tokenizer(texts: Mapping[str, Sequence[str]], vocabulary: int, *, seed: int = 0):
    """BPE with byte fallback; words, numbers, punctuation and line breaks never merge with one another.

    Learnt from the generated sentences of all languages and, so that the generated words come first, a smaller part of natural ones.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first"),
            pre_tokenizers.Split(Regex(r"▁?[0-9]+"), "isolated"),
            pre_tokenizers.Split(Regex(MARKS), "isolated"),
            pre_tokenizers.Split(Regex("▁?(" + "|".join(chinese_words()) + ")"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = [
        language.fact(fact.relation, fact.subject, fact.value, 0).text
        for fact in facts()
        for language in map(grammar, CODES)
    ]
    chance = random.Random(f"tokenizer-{seed}")
    plain = [line for code in CODES for line in chance.sample(list(texts[code]), min(1200, len(texts[code])))]
    corpus = [*lexicon_texts(), *(names * 4), *plain]
    letters = Counter(letter for text in corpus for letter in text if not letter.isspace())
    alphabet = sorted(letters, key=lambda letter: (-letters[letter], letter))[:ALPHABET]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=["▁", *alphabet], limit_alphabet=ALPHABET + 1, show_progress=False, min_frequency=2,
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return plain_bytes(tokenizer)


def plain_bytes(tokenizer):
    """The same ids, but byte tokens (the line break is one) are no longer special: a decoder that skips special tokens keeps them."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(state))


class Encoder:
    """Documents as token ids with a weight each."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, document: Document) -> tuple[list[int], list[float]]:
        """Ids from `<s>` to `</s>`; `weights[i]` is how much predicting token i counts (a token has the weight of its last character)."""
        text = "".join(part for part, _ in document)
        encoded = self.tokenizer.encode(text)
        ends = np.cumsum([len(part) for part, _ in document])
        weights = [0.0]
        for start, end in encoded.offsets[1:]:
            weights.append(document[min(int(np.searchsorted(ends, max(end, start + 1))), len(document) - 1)][1])
        return [*encoded.ids, EOS], [*weights, 1.0]


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def batch(
    recipe: Recipe, step: int, encoder: Encoder, plain: Mapping[str, Sequence[str]], stated: Mapping[str, list]
) -> Batch:
    """Ids, weights and document numbers [row pos] of a step; 0 where a row is not full (its weight is 0, its document -1)."""
    chance = random.Random(f"{recipe.seed}-{step}")
    progress = step / recipe.steps
    kinds, names = recipe.curriculum(progress)
    shares = recipe.shares()
    counts = dict.fromkeys(shares, 0.0)
    rows: list[list[tuple[list[int], list[float]]]] = [[] for _ in range(recipe.rows)]
    room = [recipe.length] * recipe.rows
    refused = 0
    while refused < 12:  # a document goes into the fullest row that has room for it
        total = sum(counts.values()) + 40
        # a draw by deficit, so that shares are shares of tokens
        code = max(shares, key=lambda c: shares[c] * total - counts[c] + chance.random() * 40)
        document = encoder(
            draw(chance, grammar(code), stated[code], plain[code], progress=progress, kinds=kinds, names=names)
        )
        size = len(document[0])
        fits = [i for i in range(recipe.rows) if room[i] >= size]
        if not fits:
            refused += 1
            continue
        at = min(fits, key=lambda i: room[i])
        rows[at].append(document)
        room[at] -= size
        counts[code] += size
    ids = np.zeros((recipe.rows, recipe.length), np.int64)
    weights = np.zeros((recipe.rows, recipe.length), np.float32)
    numbers = np.full((recipe.rows, recipe.length), -1, np.int64)
    for r, documents in enumerate(rows):
        at = 0
        for n, (tokens, weight) in enumerate(documents):
            ids[r, at : at + len(tokens)], weights[r, at : at + len(tokens)] = tokens, weight
            numbers[r, at : at + len(tokens)] = n
            at += len(tokens)
    return ids, weights, numbers


def stated_facts() -> dict[str, list]:
    """Facts that each language's training text states."""
    known = facts()
    return {code: [fact for fact in known if code in fact.stated] for code in CODES}


def batches(recipe: Recipe, start: int, encoder: Encoder, plain: Mapping[str, Sequence[str]]) -> Iterator[Batch]:
    """All batches from a step on."""
    stated = stated_facts()
    for step in range(start, recipe.steps):
        yield batch(recipe, step, encoder, plain, stated)
