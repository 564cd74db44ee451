"""Seven grammars, one file each; every one offers the same functions (see `base.Grammar`)."""

from importlib import import_module

from .base import Grammar

CODES = ("en", "de", "fr", "es", "ru", "zh", "sw")


def grammar(code: str) -> Grammar:
    """The grammar of a language.

    Raises:
        ValueError: There is none.
    """
    if code not in CODES:
        raise ValueError(f"no grammar for {code!r}: there are {', '.join(CODES)}")
    return import_module(f".{code}", __name__).GRAMMAR
