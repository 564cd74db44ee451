"""The scripts of experiments/mwork as modules, and a bench without a model.

They are loaded by path: they import a `common` of theirs, and other experiments have one too.
"""

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

FOLDER = Path(__file__).parents[2] / "experiments" / "mwork"


@cache
def script(name: str) -> ModuleType:
    spec = spec_from_file_location(f"experiments_mwork_{name}", FOLDER / f"{name}.py")
    module = sys.modules[spec.name] = module_from_spec(spec)
    shared = None if name == "common" else script("common")
    held = sys.modules.pop("common", None)
    try:
        if shared is not None:
            sys.modules["common"] = shared
        spec.loader.exec_module(module)
    finally:
        sys.modules.pop("common", None)
        if held is not None:
            sys.modules["common"] = held
    return module


class Bench:
    """What a script's `run` uses: scores are handed out in the order of the calls, results are kept."""

    def __init__(self, scores=(), *, tasks=(), layers=4, **held):
        settings = {
            "draws": 3,
            "seed": 0,
            "ask": None,
            "smoke": False,
            "sweep": "de",
            "metric": "nll",
            "set_draws": 99,
            "sizes": None,
        }
        self.arguments = SimpleNamespace(**settings | held.pop("arguments", {}))
        self.tasks, self.model = (
            {task.name: task for task in tasks},
            SimpleNamespace(cfg=SimpleNamespace(n_layers=layers)),
        )
        self.asked, self.waiting = [], list(scores)
        for name, value in held.items():
            setattr(self, name, value)

    def scores(self, tasks, own, **options):
        self.asked.append(options)
        return self.waiting.pop(0)

    def finish(self, tables, figures, markdown, findings=(), **facts):
        self.tables, self.figures, self.findings, self.facts = tables, figures, list(findings), facts
        self.lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in markdown.split("\n")[2:]]
