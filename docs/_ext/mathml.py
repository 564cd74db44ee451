"""Formulas as MathML, which browsers draw themselves: no script, no font, nothing from a network."""

from html import escape
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def inline(self: Any, node: Any) -> None:
    """`$x$`."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(self: Any, node: Any) -> None:
    """`$$x$$`; what is read aloud is the formula as it was written."""
    self.body.append(f'<div class="math" role="math" aria-label="{escape(node.astext())}">')
    self.body.append(convert(node.astext(), display="block") + "</div>")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
