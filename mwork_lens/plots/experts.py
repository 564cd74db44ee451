"""The figures of the experts: how often each language uses them, how that groups languages and experts, what keeping only some costs.

Liu et al. 2024 (arXiv 2402.16367) show frequencies as heat maps, layer by expert, and prune by frequency; the tree, the categories by layer and
the random range beside the pruning curve are ours. `experts.analysis`, `kinship`, `categories` and `pruning` compute what is drawn here.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..experts.analysis import families_of
from ..experts.categories import CATEGORIES
from ..experts.kinship import Dendrogram
from .parts import add_legend, label_axes, make_panels, require_columns, unique, whole_numbers
from .style import GREY, INK, PALE, WIDTH, house_style, language_colours, language_name, make_figure

if TYPE_CHECKING:
    import matplotlib.axes

_SHADES, _BLANK = ["#F3F7FB", "#7FB2D9", "#0B4A7F", "#04233D"], "#E3D9CF"
_CATEGORY_LOOK: dict[str, dict[str, Any]] = {
    "co-activated": {"facecolor": "#0B4A7F"},
    "family": {"facecolor": "#009E73"},
    "language": {"facecolor": "#E69F00"},
    "dormant": {"facecolor": "#FFFFFF", "edgecolor": "#9A9A9A", "hatch": "//////", "linewidth": 0.6},
    "mixed": {"facecolor": PALE},
}
_CATEGORY_NAMES = {"family": "one family", "language": "one language"}
_RANDOM: dict[str, Any] = {"facecolor": "#ECECEC", "edgecolor": "#A8A8A8", "hatch": "//////", "linewidth": 0}
_MANY_CELLS = 10_000


def frequency_heatmaps(
    table: pd.DataFrame, *, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """How often each language uses each expert: one panel per language, a row per layer, all panels on one colour scale from 0.

    In every layer experts are ordered by their mean frequency over the languages of the table, the most frequent first (a tie: the lower number
    first). The order is that of all panels, so the same place is the same expert in each; it differs from layer to layer. The colour bar takes
    room from the panels of its figure.

    Args:
        table: Columns language, layer, expert, frequency (share of tokens), as `frequency_table` returns.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty, lacks a column or has an expert twice; too few axes.
    """
    require_columns(
        table, ["language", "layer", "expert", "frequency"], "frequency", "experts.analysis.frequency_table"
    )
    _refuse_twice(table, ["language", "layer", "expert"], "frequency")
    languages, layers = unique(table, "language"), sorted({*table["layer"]})
    mean = table.groupby(["layer", "expert"])["frequency"].mean().unstack("expert")
    order = {layer: mean.columns[np.argsort(-mean.loc[layer].to_numpy(float), kind="stable")] for layer in layers}
    top = max(float(table["frequency"].max(skipna=True)), 1e-9) if table["frequency"].notna().any() else 1.0
    with house_style():
        height = float(np.clip(0.55 + 0.09 * len(layers), 1.4, 3.2))
        panels = make_panels(axes, len(languages), height=height)
        from matplotlib.colors import LinearSegmentedColormap

        look: dict[str, Any] = {"vmin": 0, "vmax": top, "rasterized": len(table) > _MANY_CELLS}
        look["cmap"] = LinearSegmentedColormap.from_list("frequency", _SHADES).with_extremes(bad=_BLANK)
        last: dict[Any, tuple[Any, list[Any]]] = {}  # of each figure: a mesh, its panels
        for panel, language in zip(panels, languages, strict=True):
            grid = table[table["language"] == language].pivot(index="layer", columns="expert", values="frequency")
            grid = grid.reindex(index=layers, columns=mean.columns)
            values = np.stack([grid.loc[layer, order[layer]].to_numpy(float) for layer in layers])
            edges = np.arange(values.shape[1] + 1) + 0.5, np.arange(len(layers) + 1) - 0.5  # ranks from 1
            mesh = panel.pcolormesh(*edges, np.ma.masked_invalid(values), **look)
            last.setdefault(panel.figure, (mesh, []))[1].append(panel)
            _tick_layers(panel, layers)
            whole_numbers(panel)
            panel.set_title(language_name(language))
            panel.spines[:].set_visible(False)
        for figure, (mesh, beside) in last.items():
            bar = figure.colorbar(mesh, ax=beside, fraction=0.025, pad=0.015, aspect=40)
            bar.set_label("frequency, share of tokens", fontsize=9)
            bar.outline.set_visible(False)
        label_axes(
            panels,
            "experts, by mean frequency over languages" if axes is None else "experts, by mean frequency",
            "layer",
            own=axes is None,
        )
    return panels


def language_tree(
    dendrogram: Dendrogram, *, families: Mapping[str, str] | None = None, axes: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """The tree of languages, root at the left: where two branches meet is their mean distance, 1 - similarity.

    Names stand at the right in the colour of their family, which is written beside them. The title says how well the tree keeps the distances
    (cophenetic correlation) and how well it agrees with the families, if either is known.

    Args:
        dendrogram: What `kinship.dendrogram` returned.
        families: Families that differ from `languages.LANGUAGES`, by language: give those the tree was made with.
        axes: Drawn into, if given.

    Raises:
        ValueError: A language's family is unknown.
    """
    from scipy.cluster.hierarchy import dendrogram as drawn

    family = families_of(dendrogram.languages, families)
    colours = language_colours(family.values())
    tree = drawn(dendrogram.linkage, no_plot=True, labels=list(dendrogram.languages))  # only coordinates: no pyplot
    leaves = tree["ivl"]
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH / 1.5, 1.0 + 0.25 * len(leaves)).subplots()
        for across, distance in zip(tree["icoord"], tree["dcoord"], strict=True):
            places = (np.asarray(across) - 5) / 10  # SciPy puts leaf i at 5 + 10 i
            axes.plot(distance, places, color=GREY, linewidth=1.4, solid_joinstyle="miter")
        axes.set_yticks(range(len(leaves)), [f"{language_name(leaf)}  {family[leaf]}" for leaf in leaves])
        axes.yaxis.tick_right()
        for text, leaf in zip(axes.get_yticklabels(), leaves, strict=True):
            text.set_color(colours[family[leaf]])
            text.set_fontweight("bold")
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(leaves) - 0.5, -0.5)
        axes.set_xlim(max(float(dendrogram.linkage[:, 2].max()) * 1.05, 1e-9), 0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("distance, 1 − similarity")
        known = {"cophenetic correlation": dendrogram.cophenetic, "adjusted Rand index of families": dendrogram.rand}
        said = [f"{name} {_number(value)}" for name, value in known.items() if np.isfinite(value)]
        title = "; ".join(said) or "cophenetic correlation not defined"
        axes.set_title(title, fontsize=9, fontweight="normal", color=GREY)
    return axes


def category_bars(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """What share of each layer's experts is co-activated, of one family, of one language, dormant or mixed: stacked to the whole.

    Args:
        table: Columns layer, category, of, share, as `category_shares(..., by="layer")` returns; rows of a single family or language
            (`of` not empty) are parts of the others and not drawn.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty, lacks a column, has a category twice in a layer or one that is unknown.
    """
    maker = 'experts.categories.category_shares(table, by="layer")'
    require_columns(table, ["layer", "category", "of", "share"], "category", maker)
    whole = table[table["of"] == ""]
    require_columns(whole, ["layer"], "category", maker)
    if unknown := [name for name in unique(whole, "category") if name not in CATEGORIES]:
        raise ValueError(f"unknown category {unknown[0]!r}: the categories are {', '.join(CATEGORIES)}")
    _refuse_twice(whole, ["layer", "category"], "category")
    shares = whole.pivot(index="layer", columns="category", values="share").sort_index()
    with house_style():
        own = axes is None
        if axes is None:
            axes = make_figure(min(WIDTH, 5.6 + 0.12 * len(shares)), 2.9).subplots()
        from matplotlib.patches import Patch
        from matplotlib.ticker import PercentFormatter

        handles: list[Any] = []
        bottom = np.zeros(len(shares))
        places = np.arange(len(shares))
        for name in CATEGORIES:
            if name not in shares:
                continue
            heights, look = shares[name].to_numpy(float), _CATEGORY_LOOK[name]
            axes.bar(places, heights, bottom=bottom, width=0.84, label=name, **look)
            handles.append(Patch(label=_CATEGORY_NAMES.get(name, name), **look))
            bottom = bottom + np.nan_to_num(heights)
        axes.set_xlim(-0.6, len(shares) - 0.4)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        step = -(-len(shares) // 16)
        axes.set_xticks(places[::step], [str(layer) for layer in shares.index[::step]])
        axes.set(xlabel="layer", ylabel="share of the layer's experts")
        add_legend([axes], handles, own=own, columns=len(handles) if own else 3)
    return axes


def pruning_curves(
    table: pd.DataFrame, *, axes: "Sequence[matplotlib.axes.Axes] | None" = None
) -> "list[matplotlib.axes.Axes]":
    """What keeping only some experts costs the language they were chosen for: one panel per language, from all experts kept to few.

    The coloured curve is the language with its own experts kept, with its 95% interval; hatched grey is the range of as many random experts. A curve
    below the grey does less harm than chance. Every curve starts at 100% with no change, whether the table has that row or not.

    Args:
        table: Columns share (of experts kept, 0..1), neurons, language, dnll, dnll_low, dnll_high, random_low, random_high: rows of
            `perplexity_matrix` for several shares. With a column `off`, only rows whose mask is the language's own are drawn.
        axes: One per language, in the order of the table; made if absent.

    Raises:
        ValueError: The table is empty, lacks a column, has no row of a language's own experts or one twice, or a share is none; too few axes.
    """
    value = ["dnll", "dnll_low", "dnll_high", "random_low", "random_high"]
    needed = ["share", "neurons", "language", *value]
    maker = "perplexity_matrix of pruning_scores, with a column share,"
    require_columns(table, needed, "pruning", maker)
    own = table[table["neurons"] == "own"]
    own = own[own["off"] == own["language"]] if "off" in own else own
    require_columns(own, needed, "pruning", maker)
    _refuse_twice(own, ["share", "language"], "pruning")
    if bad := [share for share in own["share"] if not 0 < share <= 1]:
        raise ValueError(f"share={bad[0]} is not a share of experts kept: give numbers above 0 and at most 1")
    languages = unique(own, "language")
    colours = language_colours(languages)
    with house_style():
        panels = make_panels(axes, len(languages), height=1.7 if len(languages) > 1 else 2.1)
        for panel, language in zip(panels, languages, strict=True):
            part = own[own["language"] == language].sort_values("share", ascending=False)[["share", *value]]
            rows = part.to_numpy(float)
            if rows[0, 0] < 1:
                rows = np.concatenate([[[1.0, *[0.0] * len(value)]], rows])
            rows[0, 4:] = np.nan_to_num(rows[0, 4:])  # with everything kept nothing is drawn at random
            share, change, low, high, least, most = rows.T
            x, colour = 100 * share, colours[language]
            if np.isfinite(least[1:]).any():
                panel.fill_between(x, least, most, zorder=1, **_RANDOM)
            panel.fill_between(x, low, high, color=colour, alpha=0.3, linewidth=0, zorder=2)
            panel.plot(x, change, color=colour, marker="o", markersize=3.5, label="own experts kept", zorder=4)
            panel.axhline(0, color=INK, linewidth=0.7, zorder=1.5)
            panel.set_title(language_name(language), color=colour)
            panel.grid(axis="y", color=PALE, linewidth=0.6)
            panel.set_xlim(102, min(float(own["share"].min()) * 100, 99) - 2)
        label_axes(panels, "experts kept, % of all experts", "change of NLL, nats per token", own=axes is None)
        if axes is None:
            add_legend(panels, _pruning_handles(), own=True, columns=1 if len(panels) == 1 else 2)
        else:  # curves rise to the right: the corner is free, and the title stays readable
            panels[0].legend(handles=_pruning_handles(), loc="upper left", fontsize=8)
    return panels


def _pruning_handles() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Line2D([], [], color=INK, marker="o", markersize=3.5, label="own experts, 95% interval"),
        Patch(label="as many random ones, range of draws", **_RANDOM),
    ]


def _tick_layers(panel: Any, layers: list[Any]) -> None:
    """At most nine layers are named; rows are places, since layers may be left out."""
    places = range(0, len(layers), -(-len(layers) // 9))
    panel.set_yticks(places, [str(layers[place]) for place in places])
    panel.tick_params(axis="y", length=0)


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _refuse_twice(table: pd.DataFrame, keys: list[str], what: str) -> None:
    twice = table.duplicated(keys)
    if twice.any():
        row = table[twice].iloc[0]
        named = ", ".join(f"{key} {row[key]}" for key in keys)
        raise ValueError(f"the {what} table has {named} twice: give one row for each")
