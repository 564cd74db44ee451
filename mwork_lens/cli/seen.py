"""Whether documents that are scored are among those that neurons were found on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .activation import STRATA
from .console import warn


def warn_seen(neurons: Path, scored: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Say so where documents to be scored are among those the neurons were found on, as far as that is recorded.

    Args:
        neurons: File of the neuron sets; its `Run` has the hash of the texts, and what `lape` wrote beside it their names.
        scored: Corpora to be scored, per language.
        whole: The corpora they are parts of, in whose order the hash is looked for.
    """
    from ..storage import load, load_run

    run = load_run(neurons)
    found_on = run.get("corpora") or {}
    # a study finds neurons on one part of its texts, and leaves the other to be scored
    held_out = (run.get("parameters") or {}).get("held_out") if run.get("method") == "study" else None
    kept = load(neurons.parent / STRATA) if (neurons.parent / STRATA).exists() else {}

    def seen(language: str) -> set[str]:
        facts, names = found_on.get(language, {}), set()
        if language in kept and facts.get("source") == scored[language].source:
            names |= set(kept[language].documents)
        for corpus in (scored[language], whole[language]):
            count = facts.get("documents", 0)
            first = corpus.chunks(count)[0] if 0 < count <= len(corpus) else None
            if first is not None and first.facts() == facts:
                names |= set((first.split(held_out)[0] if held_out else first).ids)
        return names

    if same := [language for language, corpus in scored.items() if seen(language) & set(corpus.ids)]:
        warn(
            f"texts of {', '.join(same)} are among those the neurons were found on, which flatters them: score others (--corpora, --part), "
            "or find the neurons on others"
        )
