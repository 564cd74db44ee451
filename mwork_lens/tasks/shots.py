"""Few-shot prompts: solved examples in front of every item, the same ones in every language, and never the item itself.

An example is the item itself if it has its id, or the same prompt in any language (but for case and white space): a set of examples may have ids of
its own.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from .task import Item, Task


def few_shot(task: Task, shots: int, *, examples: Task | None = None, separator: str = "\n\n") -> Task:
    """A task whose prompts begin with solved examples in the item's language.

    Args:
        task: The items, with prompts that stand alone.
        shots: Examples in front of each; 0 changes nothing.
        examples: Where they come from: the first `shots` of a language that are not the item itself (by id and by prompt) and share no passage with
            it (`meta["passage"]`). Default the task's own items.
        separator: Between examples, and before the item.

    Raises:
        ValueError: `shots` is negative, or a language has too few other items.
    """
    if shots < 0:
        raise ValueError(f"shots={shots}: give the number of examples, 0 for none")
    if shots == 0:
        return task
    source = examples or task
    given = {language: source.of(language) for language in task.languages}
    known: dict[tuple[str, str], set[str]] = {}  # language and content -> ids of examples
    for language, examples_of in given.items():
        for one in examples_of:
            known.setdefault((language, _content(one)), set()).add(one.id)
    same = {item.id: {item.id} for item in task.items}
    for item in task.items:  # what is the item in one language is left out in all, so that examples stay parallel
        same[item.id] |= known.get((item.language, _content(item)), set())
    return replace(
        task, items=tuple(_with(item, given[item.language], same[item.id], shots, separator) for item in task.items)
    )


def _content(item: Item) -> str:
    return " ".join(item.prompt.casefold().split())


def _with(item: Item, examples: Sequence[Item], itself: Collection[str], shots: int, separator: str) -> Item:
    passage = item.meta.get("passage")
    others = [
        one for one in examples if one.id not in itself and (passage is None or one.meta.get("passage") != passage)
    ]
    if len(others) < shots:
        raise ValueError(
            f"item {item.id!r} of {item.language!r} has {len(others)} other items to learn from: ask for at most {len(others)} shots, "
            "or give more examples"
        )
    solved = [one.joined(one.answers[0]) for one in others[:shots]]
    return replace(item, prompt=separator.join([*solved, item.prompt]))
