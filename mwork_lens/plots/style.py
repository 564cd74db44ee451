"""How every figure looks: names, colours, type and size, and its text as SVG."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..languages import LANGUAGES
from ..storage import content_hash, write_text

if TYPE_CHECKING:
    import matplotlib.figure

ENGLISH = "en"

INK, GREY, PALE = "#222222", "#7A7A7A", "#D9D9D9"

_FIXED = {"en": INK, "zh": "#D55E00", "de": "#009E73", "fr": "#56B4E9", "ru": "#CC79A7", "es": "#E69F00"}
_SPARE = ("#5D3A9B", "#8C564B", "#1B7F9C", "#A8A03A")

WIDTH = 9.3
"""Inches; the page shows 1 pt as 1 pt, so 9 pt text is 12 px there."""

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # only to measure: `svg` names no font but the reader's sans-serif
    "font.size": 9,
    "text.parse_math": False,  # a language called "$" is a name, not a formula
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9A9A9A",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": "#9A9A9A",
    "ytick.color": "#9A9A9A",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",
    "svg.hashsalt": "mwork_lens",
}


def language_name(code: str) -> str:
    """`Chinese (zh)`; the code itself if the language is not known."""
    return f"{LANGUAGES[code].name} ({code})" if code in LANGUAGES else str(code)


def stage_name(stage: str) -> str:
    """`task-solving`; the stage `all` is all layers."""
    return "all layers" if stage == "all" else stage.replace("_", "-")


def layers_name(layers: range) -> str:
    """`layer 3`, `layers 3–5`."""
    return f"layer {layers.start}" if len(layers) == 1 else f"layers {layers.start}–{layers.stop - 1}"


def language_colours(languages: Iterable[str]) -> dict[str, str]:
    """A colour per language: fixed for English and the five of the embedded model, the free ones in alphabetical order for others.

    The same languages have the same colours whatever their order; beyond ten, colours repeat (every panel is named as well).
    """
    names = sorted({*languages})
    colours = {name: _FIXED[name] for name in names if name in _FIXED}
    free = [*_SPARE, *(colour for name, colour in _FIXED.items() if name not in colours and name != ENGLISH)]
    others = [name for name in names if name not in colours]
    return colours | {name: free[i % len(free)] for i, name in enumerate(others)}


def house_style() -> Any:
    """A context in which matplotlib draws and measures in the style of the toolkit."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)  # type: ignore[arg-type]


def make_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    """An empty figure, in inches, that makes room for its own labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05, wspace=0.02, hspace=0.03)  # type: ignore[union-attr]
    return figure


def log_axis(axes: Any, which: str = "x") -> None:
    """A logarithmic axis whose numbers are plain text: matplotlib's own are formulas, and `text.parse_math` is off.

    Powers of ten are named; twice and five times them too where fewer than two of these are in view.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")

    def between(value: float, _: Any = None) -> str:
        low, high = sorted(axis.get_view_interval())
        return plain_number(value) if low > 0 and high < 100 * low else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axis.set_minor_formatter(FuncFormatter(between))


def plain_number(value: float) -> str:
    """`1,000`, `0.5`, `2e+07`."""
    return f"{value:,.0f}" if 1 <= value < 1e6 and value == round(value) else f"{value:g}"


def svg(figure: "matplotlib.figure.Figure") -> str:
    """The figure as an `<svg>` element to put into a page: text stays text, and equal figures give equal text.

    Nothing in it points outside; ids are its own, so that several figures share a page.
    """
    import warnings

    buffer = io.StringIO()
    with house_style(), warnings.catch_warnings():
        # the reader's browser has the glyphs that the measuring font lacks
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    mark = f"f{content_hash(text)[:8]}-"

    def own_names(tag: re.Match[str]) -> str:
        named = (
            tag[0]
            .replace(' id="', f' id="{mark}')
            .replace('href="#', f'href="#{mark}')
            .replace("url(#", f"url(#{mark}")
        )
        return named.replace("'DejaVu Sans', ", "")

    return re.sub(r"<[^>]*>", own_names, text).strip()


def write_svg(figure: "matplotlib.figure.Figure", path: str | Path) -> Path:
    """Write a figure as a file of its own, on white, atomically."""
    text = svg(figure).replace("<svg ", '<svg style="background:#fff" ', 1)
    return write_text(path, text)
