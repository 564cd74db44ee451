"""Write parallel texts of the generated world: what training never shows of passages and articles, the same ids in seven languages.

    python experiments/organism/make_texts.py --out mwork_lens/data/texts/organism

`load_corpora("organism")` reads them; the files in the package are exactly what this writes. They are what the organism is fluent in,
and its only texts in Swahili.
"""

import argparse
import json
import random
from pathlib import Path

from miniworld.languages import CODES, grammar
from miniworld.sampling import draw_event, draw_passage

from mwork_lens.storage import write_text

COUNT = 144


def texts(language: str, count: int = COUNT) -> list[dict[str, str]]:
    """Every second document is an article of a held-out event, the others are passages of five claims, one of them held out."""
    speak, found = grammar(language), []
    for number in range(count):
        chance = random.Random(f"texts-{number}")
        if number % 2:
            kind, sentences = "article", speak.article(draw_event(chance, held_out=True))
        else:
            claims, _ = draw_passage(chance, 5, held_out=True)
            kind, sentences = "passage", [speak.claim(claim).text for claim in claims]
        found.append({"id": f"{kind}-{number:03d}", "topic": kind, "text": speak.join(sentences)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    for code in CODES:
        lines = [json.dumps(row, ensure_ascii=False) for row in texts(code)]
        write_text(given.out / f"{code}.jsonl", "\n".join(lines) + "\n")
        print(f"{given.out / code}.jsonl: {len(lines)} documents")


if __name__ == "__main__":
    main()
