"""Views on a page: one script for all of them, nothing from outside.

A circuitsvis view is a component and its properties. circuitsvis's own `_repr_html_` asks Google whether there is a network and then loads its script
from a CDN, or inlines 1.3 MB per view; tokens reach `innerHTML`. Here the script comes from the installed package and is put into a page once; a
Content-Security-Policy forbids every request; properties are JSON in which `<`, `>` and `&` are escapes, and tokens have `‹ › ＆` in their place.
Components draw on white, so every view is a light card, as the figures of a report are, on a page that follows the reader's light or dark scheme.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..languages import SHARED, UNKNOWN
from ..plots.style import GREY, PALE, language_colours, language_name
from ..storage import content_hash, write_text

_COMPONENTS = ("AttentionHeads", "AttentionPattern", "ColoredTokens", "ColoredTokensMulti", "TextNeuronActivations", "TokenLogProbs",
               "TopkSamples", "TopkTokens")  # fmt: skip

_DIGITS = 4
"""Significant digits of a number on a page."""

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'wasm-unsafe-eval'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""No request may leave; circuitsvis's tensor library looks whether there is WebAssembly."""


@dataclass(frozen=True, eq=False, repr=False)
class View:
    """Something to look at; a notebook shows it, `write_views` puts it into a file.

    Everything in `html` is escaped; `props` are escaped when they are written.
    """

    title: str
    """The heading."""
    notes: tuple[str, ...] = ()
    """What there is to know: how to read it, what was cut."""
    html: str = ""
    """A body that needs no script, below the component if there is one."""
    component: str = ""
    """Name of a circuitsvis component; none if empty."""
    props: Mapping[str, Any] = field(default_factory=dict)
    """Its properties: strings, numbers, arrays and tensors."""
    languages: tuple[str, ...] = ()
    """The legend: languages, `shared` and `unknown`, in the colours of the figures."""
    rtl: bool = False
    """Whether the text runs from right to left."""
    height: int = 420
    """Pixels a notebook reserves; the reader can pull the frame longer."""

    def __repr__(self) -> str:
        return f"View({self.title!r})"

    def __post_init__(self) -> None:
        if self.component and self.component not in _COMPONENTS:
            raise ValueError(f"unknown circuitsvis component {self.component!r}: choose from {', '.join(_COMPONENTS)}")

    def to_html(self) -> str:
        """The view as a page of its own."""
        return page([self], self.title)

    def _repr_html_(self) -> str:
        """For notebooks: the page in a frame, which can neither reach the notebook nor the network."""
        return (
            f'<iframe srcdoc="{escape(self.to_html())}" sandbox="allow-scripts" title="{escape(self.title)}" '
            f'style="width:100%;height:{self.height}px;border:0;resize:vertical;overflow:auto"></iframe>'
        )


def page(views: Sequence[View], title: str = "Views") -> str:
    """A self-contained HTML page of several views, with one copy of circuitsvis's script.

    Raises:
        ValueError: No view.
        TypeError: Something that is not a `View`.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="generator" content="mwork_lens">\n'
        f"<title>{escape(title)}</title>\n<style>{_PAGE_STYLE}</style>\n</head>\n<body>\n"
        f"{'' if len(views) == 1 else f'<h1>{escape(title)}</h1>'}\n{fragment(views)}\n</body>\n</html>\n"
    )


def fragment(views: Sequence[View]) -> str:
    """The views, their style and one copy of the script, to put into another page (once a page).

    Raises:
        ValueError: No view.
        TypeError: Something that is not a `View`.
    """
    views = list(views)
    if not views:
        raise ValueError(
            "no view given: make one with lens_view, neuron_view, top_tokens_view, attention_view or edit_view"
        )
    for view in views:
        if not isinstance(view, View):
            raise TypeError(f"expected views, got {type(view).__name__}: pass what lens_view and the others return")
    names = [f"view-{content_hash(view.title, _json(view.props))[:8]}-{i}" for i, view in enumerate(views)]
    script = f"<script>{circuitsvis_script()}</script>\n" if any(view.component for view in views) else ""
    cards = "\n".join(_card(view, name) for view, name in zip(views, names, strict=True))
    return f"<style>{_STYLE}</style>\n{script}{cards}"


def write_views(views: Sequence[View] | View, path: str | Path, title: str = "Views") -> Path:
    """Write views as one self-contained HTML file, atomically.

    Args:
        views: One or several.
        path: The file, such as `views.html`.
        title: Of the page.

    Raises:
        ValueError: No view.
        OSError: The file cannot be written; what was there before is kept.
    """
    return write_text(path, page([views] if isinstance(views, View) else views, title))


@lru_cache(maxsize=1)
def circuitsvis_script() -> str:
    """The script of circuitsvis, from the installed package, ready to stand inside `<script>`.

    Raises:
        RuntimeError: The installed circuitsvis has none.
    """
    import circuitsvis

    file = resources.files("circuitsvis") / "dist" / "cdn" / "iife.js"
    if not file.is_file():
        raise RuntimeError(
            f"circuitsvis {circuitsvis.__version__} has no dist/cdn/iife.js: pip install --force-reinstall 'circuitsvis>=1.43'"
        )
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("//# sourceMap")]
    # inside a string of JavaScript `<\/script` is `</script`, and does not end the element
    return "\n".join(lines).replace("</script", "<\\/script")


def component_text(shown: str) -> str:
    """What a label shows, for a circuitsvis component, which would take `<`, `>` and `&` as HTML: `‹s›`."""
    return shown.translate({ord("<"): "‹", ord(">"): "›", ord("&"): "＆"})


def plain_values(value: Any) -> Any:
    """Arrays, tensors and their scalars as lists and numbers of four digits; NaN and infinity as None."""
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return plain_values(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def _json(value: Any) -> str:
    """JSON that means nothing to an HTML parser."""
    text = json.dumps(plain_values(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def _card(view: View, name: str) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in view.notes)
    component = ""
    if view.component:
        direction = ' dir="rtl"' if view.rtl else ""
        component = (
            f'<div class="mw-component mw-{view.component}" id="{name}"{direction}></div><noscript><p>This view needs JavaScript.</p></noscript>\n'
            f'<script>CircuitsVis.render("{name}",CircuitsVis.{view.component},{_json(view.props)})</script>\n'
        )
    return (
        f'<section class="mw-view" aria-label="{escape(view.title)}"><h2>{escape(view.title)}</h2>\n'
        f'<div class="mw-notes">{notes}</div>{legend(view.languages)}\n{component}{view.html}</section>'
    )


def colours(languages: Sequence[str]) -> dict[str, str]:
    """A colour per language, as in the figures; `shared` and `unknown` are greys."""
    known = language_colours(language for language in languages if language not in (SHARED, UNKNOWN))
    return {name: known.get(name, GREY if name == SHARED else PALE) for name in languages}


def legend(languages: Sequence[str]) -> str:
    """A chip per language."""
    chips = "".join(
        f'<li><i style="background:{colour}"></i>{escape(language_name(name))}</li>'
        for name, colour in colours(languages).items()
    )
    return f'<ul class="mw-legend" aria-label="Languages">{chips}</ul>' if chips else ""


_PAGE_STYLE = """
:root { --page: #ffffff; --on-page: #1c1e21; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; --on-page: #e6e8eb; } }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--page); color: var(--on-page); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 1.2rem; overflow-wrap: anywhere; }
"""

_STYLE = """
.mw-view { color-scheme: light; position: relative; margin: 0 0 1.5rem; padding: 1rem 1.2rem; background: #fff; color: #222;
  border: 1px solid #d5d9de; border-radius: 8px; overflow-x: auto; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", "Noto Sans CJK SC", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic", "PingFang SC", "Microsoft YaHei",
  "Nirmala UI", "Leelawadee UI", Arial, sans-serif; }
.mw-view h2 { font-size: 1.15rem; line-height: 1.3; margin: 0 0 .3rem; }
.mw-view .mw-notes p { margin: 0 0 .3rem; color: #565c63; max-width: 56rem; }
.mw-view .mw-legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; margin: .5rem 0; padding: 0; font-size: 14px; }
.mw-view .mw-legend i { display: inline-block; width: .85em; height: .85em; margin-right: .4em; border: 1px solid #0003;
  border-radius: 2px; vertical-align: -.08em; }
.mw-view .mw-component { margin-top: .8rem; font-size: 15px; }
.mw-view .mw-component h3 { font-size: .95rem; margin: .3rem 0; }
.mw-view .mw-component h4 { font-size: .75rem; }
.mw-view .mw-component select, .mw-view .mw-component input, .mw-view .mw-component button { font: inherit; max-width: 100%; }
.mw-view .mw-component .colored-tokens { line-height: 1.9; }
.mw-view .mw-component td { padding: 2px 8px; }
.mw-view .mw-AttentionHeads { max-width: 52rem; position: relative; }
.mw-view .mw-keys { font-size: 14px; margin: .8rem 0 0; }
.mw-view .mw-keys dt { font-weight: 600; }
.mw-view .mw-keys dd { margin: 0 0 .4rem; }
"""
