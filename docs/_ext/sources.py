"""What the pages take from elsewhere in the repository, when they are built.

* `<!-- commands -->` becomes the help of every command, as the command line itself gives it.
* A block `{figures} PATTERN`, with lines `name: caption`, becomes the figures of the repository that match, each with its caption or else its name.
* A link to a Markdown file outside `docs/`, right on GitHub, becomes a link to the page that shows it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PAGES = {
    "README.md": "getting_started.md",
    "experiments/README.md": "experiments.md",
    "mwork_lens/data/organism/README.md": "cards/organism.md",
    "mwork_lens/data/polyglot/README.md": "cards/polyglot.md",
    "mwork_lens/data/facts/small/README.md": "cards/facts.md",
}
FIGURES = re.compile(r"```\{figures\} (\S+)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((\.\./[^)#\s]+\.md)(#[^)]*)?\)")


def commands() -> str:
    """Markdown, from the app."""
    import typer
    from typer.cli import get_docs_for_click

    from mwork_lens.cli import app

    command = typer.main.get_command(app)
    made = get_docs_for_click(obj=command, ctx=typer.Context(command), name="mwork-lens", indent=0)
    made = re.sub(r"(?<![`\w-])--[a-z][\w-]*", r"`\g<0>`", made)  # an option named in a sentence
    return made.partition("\n")[2]  # without its title


def gallery(match: re.Match[str]) -> str:
    """Figures, in the order of their captions; those without one come last."""
    captions = dict(line.split(": ", 1) for line in match[2].splitlines() if ": " in line)
    order = list(captions)
    found = sorted(
        ROOT.glob(match[1]), key=lambda path: (order.index(path.stem) if path.stem in order else len(order), path)
    )
    shown = []
    for path in found:
        caption = captions.get(path.stem, path.stem.replace("_", " ").replace("-", " "))
        shown.append(
            f"```{{figure}} ../{path.relative_to(ROOT).as_posix()}\n:alt: {caption}\n:width: 100%\n\n{caption}\n```\n"
        )
    return "::::{container} gallery\n\n" + "\n".join(shown) + "\n::::"


def read(app: Any, name: str, source: list[str]) -> None:
    """A page, before it is parsed."""

    def moved(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(name), match[1]))
        if path not in PAGES:
            return match[0]
        return f"]({posixpath.relpath(PAGES[path], posixpath.dirname(name) or '.')}{match[2] or ''})"

    if name == "reference/command_line":
        source[0] = source[0].replace("<!-- commands -->", commands())
    source[0] = FIGURES.sub(gallery, source[0])
    source[0] = LINK.sub(moved, source[0])


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True}
