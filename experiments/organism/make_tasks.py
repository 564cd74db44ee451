"""Write the held-out items of the four abilities as task files, the same ids in seven languages.

    python experiments/organism/make_tasks.py --out mwork_lens/data/tasks/organism

The files in the package are exactly what this writes.
"""

import argparse
from pathlib import Path

from miniworld.items import ABILITIES, COUNTS, items

from mwork_lens import Item, Task, save_task

SETTINGS = {
    "understanding": {"how": "generate", "metric": "exact", "max_new_tokens": 16},
    "reasoning": {"how": "generate", "metric": "number", "max_new_tokens": 20},
    "knowledge": {"how": "choose"},
    "cloze": {"how": "choose"},
    "generation": {"how": "generate", "metric": "rouge_l", "max_new_tokens": 32},
}


def task(kind: str, count: int) -> Task:
    """A task with `count` items in every language."""
    made = tuple(Item(**item) for item in items(kind, count))
    return Task(name=f"organism-{kind}", ability=ABILITIES[kind], items=made, **SETTINGS[kind])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    for kind, count in COUNTS.items():
        path = save_task(task(kind, count), given.out / f"{kind}.jsonl")
        print(f"{path}: {count} items in each language")


if __name__ == "__main__":
    main()
