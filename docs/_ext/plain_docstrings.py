"""The package's docstrings are plain text; this makes them reStructuredText on their way into the reference.

`name`                         a link, if the package has that public name, else code
an indented paragraph          a literal block: formulas and tables are drawn as they were typed
* and | and a trailing _       themselves
"""

import re
from typing import Any

SECTION = re.compile(r"^(Args|Attributes|Columns|Example|Examples|Note|Raises|Returns|Yields):\s*$")
ITEM = re.compile(r"^\s*([*-]|\d+\.|[a-z]\)|\(\d\)) ")


def inline(line: str, names: set[str]) -> str:
    """One line of prose."""
    mark = ITEM.match(line)
    head = mark.group(0) if mark else ""
    parts = line[len(head) :].split("`")
    if len(parts) % 2 == 0:  # a span that goes on in the next line: leave it
        return line
    made = head
    for i, part in enumerate(parts):
        if i % 2 == 0:
            made += re.sub(r"(\w)_(?!\w)", r"\1\\_", re.sub(r"([*|])", r"\\\1", part))
            continue
        before = "\\ " if made and made[-1].isalnum() else ""
        name = part.removesuffix("()").removeprefix("mwork_lens.").removeprefix("mw.")
        span = f":py:obj:`~mwork_lens.{name}`" if name in names else f"``{part}``"
        after = "\\ " if parts[i + 1][:1].isalnum() else ""
        made += before + span + after
    return made


def restructure(lines: list[str], names: set[str]) -> list[str]:
    """A docstring, line by line."""
    made: list[str] = []
    anchor, literal = "", False
    for i, line in enumerate(lines):
        if not line.strip():
            made.append(line)
            continue
        indented = line[0] == " "
        blank_before = i > 0 and not lines[i - 1].strip()
        if not indented:
            literal, anchor = False, line
        elif not literal and blank_before and not (SECTION.match(anchor) or ITEM.match(anchor)):
            literal = True
            made += ["::", ""]
        is_code = line.lstrip().startswith((">>>", "..."))
        made.append(line if literal or is_code else inline(line, names))
    return made


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon reads the sections."""
    import mwork_lens

    lines[:] = restructure(lines, set(mwork_lens.__all__))
    if what in (
        "attribute",
        "property",
        "data",
    ):  # napoleon takes what stands before a colon for a type, in the first line
        lines[:0] = ["..", ""]


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """On the page of a module, leave out what has its place under its public name."""
    import mwork_lens

    short = name.rsplit(".", 1)[-1]
    return True if what == "module" and short in mwork_lens.__all__ and getattr(mwork_lens, short) is obj else None


def name_sites() -> None:
    """In signatures, `Site` by its name instead of its eleven values."""
    import sys

    from sphinx.util import typing

    from mwork_lens.sites import SITES

    spelt, plain = f"Literal[{', '.join(map(repr, SITES))}]", typing.stringify_annotation

    def stringify(annotation: Any, /, mode: str = "fully-qualified-except-typing", **options: Any) -> str:
        found = plain(annotation, mode, **options)
        return re.sub(
            r"~?(typing\.)?" + re.escape(spelt), "~mwork_lens.Site" if mode == "smart" else "mwork_lens.Site", found
        )

    for name, module in list(sys.modules.items()):
        if name.startswith("sphinx.") and getattr(module, "stringify_annotation", None) is plain:
            module.stringify_annotation = stringify


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    name_sites()
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
