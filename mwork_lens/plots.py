"""The figures: a table in, axes in (if you have them), axes out. Nothing is shown and no file is written.

    lens_curves      which language each layer speaks, one panel per language of the text
    layer_counts     language-specific neurons per layer, attention and FFN stacked
    overlap_heatmap  neurons that pairs of languages share
    deltas           what breaks when neurons are switched off, beside the range of the random controls

Every figure is a plain `matplotlib.figure.Figure`: no pyplot, no global state, so figures can be made in threads and in notebooks alike
(`axes[0].figure` shows itself there). Colours are those of Okabe and Ito (2008), told apart under every common colour blindness; a language
has the same colour in every figure of a study. What is not known (nan) is left out, never drawn as zero.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .languages import LANGUAGES, SHARED
from .sites import ATTENTION_SITES
from .stages import STAGES, Stages
from .storage import content_hash

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

ENGLISH = "en"

INK, GREY, PALE = "#222222", "#7A7A7A", "#D9D9D9"
OWN, OTHER = "#0072B2", "#8A6D00"
"""Colours of the two conditions of `deltas`; no language has them."""

_FIXED = {"en": INK, "zh": "#D55E00", "de": "#009E73", "fr": "#56B4E9", "ru": "#CC79A7", "es": "#E69F00"}
_SPARE = ("#5D3A9B", "#8C564B", "#1B7F9C", "#A8A03A")
_STAGE_TINTS = {"understanding": "#E4EEF7", "task_solving": "#FFFFFF", "generation": "#FBEEDD"}

_WIDTH = 9.3
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


def language_colours(languages: Iterable[str]) -> dict[str, str]:
    """A colour per language: fixed for English and the five of the embedded model, the free ones in alphabetical order for others.

    The same languages have the same colours whatever their order; beyond ten, colours repeat (every panel is named as well).
    """
    names = sorted({*languages})
    colours = {name: _FIXED[name] for name in names if name in _FIXED}
    free = [*_SPARE, *(colour for name, colour in _FIXED.items() if name not in colours and name != ENGLISH)]
    others = [name for name in names if name not in colours]
    return colours | {name: free[i % len(free)] for i, name in enumerate(others)}


def lens_curves(
    table: pd.DataFrame,
    value: Literal["share", "mass"] = "share",
    *,
    stages: Stages | None = None,
    axes: "Sequence[matplotlib.axes.Axes] | None" = None,
) -> "list[matplotlib.axes.Axes]":
    """Which language each layer speaks: one panel per language of the text.

    Lines, with 95% bands: the text's own language, English and, for `"mass"`, tokens that several languages share. For `"share"`, a dotted
    line says which part of the top-k tokens the share speaks about (`coverage`); layers where that is nothing leave a gap.

    Args:
        table: What `layer_languages` returns.
        value: `"share"` among the top-k tokens that have a language, or probability `"mass"` over the whole vocabulary.
        stages: Shown as background, if given.
        axes: One per language of the text, in the order of the table; made if absent.

    Raises:
        ValueError: `value` is neither; the table is empty or lacks a column; too few axes.
    """
    if value not in ("share", "mass"):
        raise ValueError(f"value={value!r}: a lens curve shows 'share' or 'mass'")
    columns = ["text_language", "token_language", "layer", value, f"{value}_low", f"{value}_high"]
    require_columns(table, [*columns, *(["coverage"] if value == "share" else [])], "lens", "layer_languages")
    languages = _unique(table, "text_language")
    colours = language_colours(languages)
    with _style():
        panels = _panels(axes, len(languages), height=1.95)
        for panel, language in zip(panels, languages, strict=True):
            part = table[table["text_language"] == language]
            _spans(panel, stages, offset=0.0)
            if value == "share":
                coverage = part.groupby("layer")["coverage"].first().sort_index()
                panel.plot(
                    coverage.index, coverage, color=GREY, linewidth=1.1, linestyle=":", label="coverage", zorder=2
                )
            lines = [(ENGLISH, INK, "English")] if language != ENGLISH else []
            lines += [(SHARED, GREY, "shared by several languages")] if value == "mass" else []
            for token, colour, label in [*lines, (language, colours[language], "own language")]:
                one = part[part["token_language"] == token].sort_values("layer")
                if len(one):  # a study without English has no English line
                    _curve(panel, one, value, colour, label, dashed=token == SHARED)
            layers = sorted({*part["layer"]})
            panel.set_xlim(layers[0], max(layers[-1], layers[0] + 1))
            panel.set_ylim(0, 1.02)
            panel.set_title(language_name(language), color=colours[language])
            _percent(panel)
            _whole_numbers(panel)
        of = "share of the top-k tokens that have a language" if value == "share" else "probability"
        _label(panels, "layer (0 = embeddings, last = output)", of, own=axes is None)
        _legend(panels, [*_lens_handles(value, list(colours.values())), *_stage_handles(stages)], own=axes is None)
    return panels


def layer_counts(
    table: pd.DataFrame, *, stages: Stages | None = None, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """Neurons of each language per layer: one panel per language, attention (q, k, v, z) below FFN.

    Args:
        table: Columns language, site, layer, count.
        stages: Shown as background, if given.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty or lacks a column; too few axes.
    """
    require_columns(table, ["language", "site", "layer", "count"], "counts", "analysis.layer_counts")
    languages = _unique(table, "language")
    colours = language_colours(languages)
    attention = table["site"].isin(ATTENTION_SITES)
    with _style():
        panels = _panels(axes, len(languages), height=1.6)
        tallest = table.groupby(["language", "layer"])["count"].sum().max()
        layers = sorted({*table["layer"]})
        for panel, language in zip(panels, languages, strict=True):
            _spans(panel, stages, offset=-0.5)
            chosen = table["language"] == language
            per_layer = [
                table[chosen & which].groupby("layer")["count"].sum().reindex(layers, fill_value=0).to_numpy(float)
                for which in (attention, ~attention)
            ]
            colour = colours[language]
            panel.bar(layers, per_layer[0], width=0.82, color=colour, label="attention")
            panel.bar(
                layers, per_layer[1], width=0.82, bottom=per_layer[0], label="FFN",
                facecolor=_tint(colour, 0.35), edgecolor=colour, linewidth=0.6, hatch="//////",
            )  # fmt: skip
            panel.set_xlim(layers[0] - 0.6, layers[-1] + 0.6)
            panel.set_ylim(0, max(float(tallest) * 1.06, 1))
            panel.set_title(language_name(language), color=colour)
            total = int(sum(map(np.sum, per_layer)))
            note = f"{total:,} neurons" if total else "no neurons"
            panel.set_title(note, loc="right", fontsize=8.5, fontweight="normal", color=GREY)
            panel.grid(axis="y", color=PALE, linewidth=0.6)
            _whole_numbers(panel, both=True)
        _label(panels, "layer", "neurons", own=axes is None)
        _legend(panels, [*_count_handles(), *_stage_handles(stages)], own=axes is None)
    return panels


def overlap_heatmap(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """Jaccard overlap |A and B| / |A or B| of the neurons of each pair of languages; the diagonal says how many each has.

    Args:
        table: Columns language, other, shared, jaccard; all ordered pairs, the diagonal included.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    require_columns(table, ["language", "other", "shared", "jaccard"], "overlap", "analysis.overlap")
    languages = _unique(table, "language")
    grid = table.pivot(index="language", columns="other", values="jaccard").reindex(index=languages, columns=languages)
    sizes = table[table["language"] == table["other"]].set_index("language")["shared"]
    values = grid.to_numpy(float, copy=True)
    np.fill_diagonal(values, np.nan)
    top = max(float(np.nanmax(values)) if np.isfinite(values).any() else 0.0, 0.01)
    with _style():
        if axes is None:
            axes = _figure(min(1.8 + 0.95 * len(languages), _WIDTH), 0.75 + 0.38 * len(languages)).subplots()
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("jaccard", ["#F3F7FB", "#7FB2D9", "#0B4A7F"])
        centres = np.arange(len(languages))  # a mesh, not an image: cells stay sharp at any size
        masked = np.ma.masked_invalid(values)
        look = {"vmin": 0, "vmax": top, "edgecolors": "white", "linewidth": 1.5}
        axes.pcolormesh(centres, centres, masked, cmap=shades.with_extremes(bad="#EDEDED"), **look)
        axes.invert_yaxis()
        size = 9 if len(languages) <= 12 else 6.5
        for row, column in np.ndindex(values.shape):
            value, dark = values[row, column], values[row, column] > 0.6 * top
            if row == column:
                text = f"{int(sizes[languages[row]]):,}" if languages[row] in sizes else "–"
            else:
                text = "–" if np.isnan(value) else f"{value:.2f}"
            colour = GREY if row == column else "white" if dark else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
        axes.set_xticks(range(len(languages)), languages)
        axes.set_yticks(range(len(languages)), [language_name(language) for language in languages])
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_title("Jaccard index (diagonal: number of neurons)", fontsize=9, fontweight="normal", color=GREY)
    return axes


def deltas(
    summary: pd.DataFrame, *, stages: Stages | None = None, axes: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """What breaks when neurons are switched off: change of log-likelihood, by stage and structure.

    Each row has two lanes: the other languages (filled) above English (hollow). A point is the mean over target languages, with its 95%
    interval; the grey bar behind it spans the random controls of the same lane, its tick their mean. Left of zero is harm; a blue point left
    of the bar is more harm than chance gives, and a filled point left of its hollow one is harm to the language more than to English.

    Args:
        summary: Columns stage, structure, neurons, eng, non_eng, with `_low` and `_high`, and delta, p_delta.
        stages: Layers are named beside the stages, if given.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    lanes = {"non_eng": -0.19, "eng": 0.19}
    measured = [f"{lane}{end}" for lane in lanes for end in ("", "_low", "_high")]
    require_columns(summary, ["stage", "structure", "neurons", *measured, "delta", "p_delta"], "summary", "summarise")
    rows = summary[["stage", "structure"]].drop_duplicates().itertuples(index=False)
    places: dict[tuple[str, str], float] = {}
    heads: dict[str, float] = {}
    at = 0.0
    for stage, structure in rows:
        if stage not in heads:
            at += 0.35 if heads else 0.0
            heads[stage] = at
            at += 0.8
        places[stage, structure] = at
        at += 1.0
    with _style():
        if axes is None:
            axes = _figure(_WIDTH, 1.1 + 0.4 * at).subplots()
        for _, row in summary.iterrows():
            y = places[row["stage"], row["structure"]]
            for lane, offset in lanes.items():
                low, high, mean = row[f"{lane}_low"], row[f"{lane}_high"], row[lane]
                if not np.isfinite(mean):
                    continue
                english = lane == "eng"
                if row["neurons"] == "random":
                    axes.fill_between(
                        [low, high], y + offset - 0.16, y + offset + 0.16, color="#CFCFCF", linewidth=0.8, zorder=1
                    )
                    axes.plot([mean, mean], [y + offset - 0.16, y + offset + 0.16], color=GREY, linewidth=1.4, zorder=2)
                    continue
                mine = row["neurons"] == "own"
                colour = OWN if mine else OTHER
                axes.errorbar(
                    mean, y + offset + (-0.055 if mine else 0.055), xerr=[[max(mean - low, 0)], [max(high - mean, 0)]],
                    fmt="o" if mine else "D", markersize=6 if mine else 4.6, color=colour, markerfacecolor="white" if english else colour,
                    markeredgewidth=1.4, elinewidth=1.5, zorder=5 if mine else 4, label=f"{row['neurons']} {lane}",
                )  # fmt: skip
        _delta_frame(axes, summary, places, heads, stages, at)
        _legend([axes], _delta_handles(), own=False, columns=3)
    return axes


def svg(figure: "matplotlib.figure.Figure") -> str:
    """The figure as an `<svg>` element to put into a page: text stays text, and equal figures give equal text.

    Nothing in it points outside; ids are its own, so that several figures share a page.
    """
    import warnings

    buffer = io.StringIO()
    with _style(), warnings.catch_warnings():
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


def require_columns(table: pd.DataFrame, columns: Sequence[str], what: str, maker: str) -> None:
    """Refuse a table that cannot be shown.

    Raises:
        ValueError: It lacks columns, or has no rows.
    """
    if missing := [column for column in columns if column not in table.columns]:
        has = ", ".join(map(str, table.columns)) or "no columns"
        raise ValueError(
            f"the {what} table lacks {', '.join(missing)}: give it as `{maker}` makes it (this one has {has})"
        )
    if not len(table):
        raise ValueError(f"the {what} table is empty: there is nothing to show - was `{maker}` given any language?")


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)  # type: ignore[arg-type]


def _figure(width: float, height: float) -> "matplotlib.figure.Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05, wspace=0.02, hspace=0.03)  # type: ignore[union-attr]
    return figure


def _unique(table: pd.DataFrame, column: str) -> list[str]:
    return [str(name) for name in table[column].unique()]


def _panels(axes: Any, count: int, *, height: float) -> list[Any]:
    """One axes per language, in rows of three (four if there are many); the given ones, or those of a new figure."""
    if axes is not None:
        panels = list(np.ravel(np.asarray(axes, dtype=object)))
        if len(panels) < count:
            raise ValueError(f"{len(panels)} axes for {count} languages: give one per language, or none")
        return panels[:count]
    columns = min(count, 3 if count <= 9 else 4)
    rows = -(-count // columns)
    # a single panel gets half the page, not all of it
    figure = _figure(_WIDTH if columns > 1 else _WIDTH / 1.7, height * rows + 0.75 + (0.35 if columns < 3 else 0))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    for panel in grid[max(0, count - columns) : count]:  # a column that ends early still has its numbers
        panel.tick_params(labelbottom=True)
    return list(grid[:count])


def _label(panels: list[Any], x: str, y: str, *, own: bool) -> None:
    """Axis labels: once for a figure of ours, on every axes that was given."""
    if own:
        panels[0].figure.supxlabel(x, fontsize=9)
        panels[0].figure.supylabel(y, fontsize=9)
        return
    for panel in panels:
        panel.set(xlabel=x, ylabel=y)


def _curve(panel: Any, one: pd.DataFrame, value: str, colour: str, label: str, *, dashed: bool) -> None:
    x, y, low, high = (one[column].to_numpy(float) for column in ("layer", value, f"{value}_low", f"{value}_high"))
    panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, zorder=3)
    size = 3.4 if len(x) <= 34 else 1.6
    panel.plot(
        x,
        y,
        color=colour,
        label=label,
        linestyle="--" if dashed else "-",
        marker="o",
        markersize=size,
        clip_on=False,
        zorder=4,
    )
    # a point between two gaps has no line and no band: its interval is drawn as a bar
    known = np.isfinite(np.concatenate([[np.nan], y, [np.nan]]))
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    panel.vlines(x[alone], low[alone], high[alone], color=colour, linewidth=1, zorder=3)


def _spans(panel: Any, stages: Stages | None, *, offset: float) -> None:
    """Background per stage. A curve over the states of the stream has layer i between i and i + 1; a bar of layer i is centred on i."""
    if stages is None:
        return
    for name, layers in stages.items():
        panel.axvspan(layers.start + offset, layers.stop + offset, color=_STAGE_TINTS[name], linewidth=0, zorder=0)
        if layers.start:
            panel.axvline(layers.start + offset, color="#C4C4C4", linewidth=0.7, zorder=0.5)


def _percent(panel: Any) -> None:
    from matplotlib.ticker import FixedLocator, PercentFormatter

    panel.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.grid(axis="y", color=PALE, linewidth=0.6)


def _whole_numbers(panel: Any, *, both: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    if both:
        panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _tint(colour: str, strength: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(colour))
    return red, green, blue


def _legend(panels: list[Any], handles: list[Any], *, own: bool, columns: int | None = None) -> None:
    """One legend above all panels of a figure of ours; above the first one if the axes were given."""
    from matplotlib.legend_handler import HandlerTuple

    labels = [handle.get_label() if not isinstance(handle, tuple) else handle[0].get_label() for handle in handles]
    several = {tuple: HandlerTuple(ndivide=None, pad=0.15)}
    look: dict[str, Any] = {"handler_map": several, "handlelength": 2.0, "columnspacing": 1.2, "handletextpad": 0.5}
    if own:
        wide = len(panels) > 2
        panels[0].figure.legend(
            handles, labels, loc="outside upper left", ncols=columns or (len(handles) if wide else 3), **look
        )
    else:
        panels[0].legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0, 1.02), ncols=columns or 3, borderaxespad=0, **look
        )


def _lens_handles(value: str, colours: list[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    shown = [colour for colour in colours if colour != INK][:3] or [INK]
    own = tuple(Line2D([], [], color=colour, label="the text's own language") for colour in shown)
    handles: list[Any] = [own, Line2D([], [], color=INK, marker="o", markersize=3.4, label="English")]
    if value == "mass":
        handles.append(
            Line2D([], [], color=GREY, linestyle="--", marker="o", markersize=3.4, label="shared by several")
        )
    else:
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1.1, label="coverage"))
    return handles


def _count_handles() -> list[Any]:
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=GREY, label="attention (q, k, v, z)"),
        Patch(facecolor=_tint(GREY, 0.35), edgecolor=GREY, hatch="//////", label="FFN"),
    ]


def _stage_handles(stages: Stages | None) -> list[Any]:
    from matplotlib.patches import Patch

    if stages is None:
        return []
    return [
        Patch(facecolor=_STAGE_TINTS[name], edgecolor="#C4C4C4", linewidth=0.7, label=name.replace("_", "-"))
        for name in STAGES
    ]


def _delta_handles() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def point(marker: str, colour: str, filled: bool, label: str, size: float = 6.0) -> Line2D:
        inside = colour if filled else "white"
        return Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            markersize=size,
            markerfacecolor=inside,
            markeredgewidth=1.4,
            label=label,
        )

    return [
        point("o", OWN, True, "own neurons off: the language"),
        point("o", OWN, False, "own neurons off: English"),
        point("D", OTHER, True, "another language's neurons off: the language", 4.6),
        point("D", OTHER, False, "another language's neurons off: English", 4.6),
        Patch(facecolor="#CFCFCF", label="random neurons off: range of the draws"),
        Line2D(
            [], [], color=GREY, linestyle="none", marker="|", markersize=10, markeredgewidth=1.4, label="their mean"
        ),
    ]


def _delta_frame(
    axes: Any, summary: pd.DataFrame, places: Any, heads: Any, stages: Stages | None, bottom: float
) -> None:
    """Rows, headings, zero line, and the numbers at the right of `deltas`."""
    from matplotlib.ticker import MaxNLocator

    edge = axes.get_yaxis_transform()
    own = summary[summary["neurons"] == "own"].set_index(["stage", "structure"])
    known = summary[["eng", "non_eng"]].notna().any(axis=1).groupby([summary["stage"], summary["structure"]]).any()
    empty = set(known.index[~known])

    def beside(y: float, delta: str, p: str, colour: str = INK) -> None:
        for text, points in ((delta, 32), (p, 72)):
            axes.annotate(
                text, (1, y), xycoords=edge, xytext=(points, 0), textcoords="offset points", ha="center", va="center",
                fontsize=8.5, color=colour, annotation_clip=False,
            )  # fmt: skip

    beside(-0.8, "Δ own", "p", GREY)
    for i, ((stage, structure), y) in enumerate(places.items()):
        if i % 2 == 0:
            axes.axhspan(y - 0.5, y + 0.5, color="#F6F6F6", linewidth=0, zorder=0)
        delta, p = (own[c].get((stage, structure), np.nan) for c in ("delta", "p_delta"))
        if np.isfinite(delta):
            beside(y, f"{delta:+.3f}".replace("-", "−"), f"{p:.2f}" if np.isfinite(p) else "–")
        else:
            beside(y, "–", "–")
        if (stage, structure) in empty:
            look = {"fontsize": 8.5, "color": GREY, "style": "italic"}
            axes.text(0.01, y, "nothing to switch off", transform=edge, ha="left", va="center", **look)
    for stage, y in heads.items():
        layers = getattr(stages, stage, None) if stages is not None else None
        name = "all layers" if stage == "all" else stage.replace("_", "-")
        if layers:
            name += f", layer {layers.start}" if len(layers) == 1 else f", layers {layers.start}–{layers.stop - 1}"
        axes.text(0.0, y + 0.08, name, transform=edge, ha="left", va="center", fontsize=9.5, fontweight="bold")
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1.5)
    labels = {"ffn": "FFN"}
    axes.set_yticks(list(places.values()), [labels.get(structure, structure) for _, structure in places])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(bottom - 0.35, -0.55)
    axes.margins(x=0.04)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_xlabel("change of log-likelihood, nats per token (left of 0 = harm)")
