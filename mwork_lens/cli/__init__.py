"""The command line: mwork-lens demo | study | lens | detect | doctor | report | lape | sensitivity | perplexity | steer | geometry | experts |
enhance | facts.

Heavy imports happen inside the commands, so `mwork-lens --help` answers at once.
"""

from . import activation as _activation
from . import effects as _effects
from . import enhancement as _enhancement
from . import experts as _experts
from . import facts as _facts
from . import workflow as _workflow
from .options import app

__all__ = ["app", "main"]

_COMMANDS = (_workflow, _activation, _effects, _experts, _enhancement, _facts)
"""Importing a module adds its commands to the app."""


def main() -> None:
    """Entry point of `mwork-lens`."""
    app()
