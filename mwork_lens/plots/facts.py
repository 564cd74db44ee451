"""The figures of facts: how many a model knows in each language, with what that goes, which languages share them, where they sit, whence they come.

Zhao, Yoshinaga & Oba 2024 (arXiv 2403.05189; Figures 9-18 of their slides): P@1 per language, P@1 against training volume and mask tokens, the
sharing heat map, units per layer, overlap of the top 50; absent facts, their types and patterns are in `fact_origins.py`. Intervals, levels of
chance and contiguous bins are ours. `facts.precision`, `factors`, `sharing`, `overlaps` and `probeless` compute what is drawn here.
"""

# pandas types a column as anything it might be
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..facts.sharing import Clusters
from .parts import require_columns, unique, whole_numbers
from .style import GREY, INK, PALE, WIDTH, house_style, language_colours, language_name, log_axis, make_figure

if TYPE_CHECKING:
    import matplotlib.axes

_SHADES, _BLANK = ["#F3F7FB", "#7FB2D9", "#0B4A7F", "#04233D"], "#E3D9CF"
_METRIC_LOOK = {
    "full": ("#0B4A7F", "o"), "contiguous": ("#56B4E9", "s"), "partial": ("#E69F00", "D"), "typed": ("#009E73", "^"),
}  # fmt: skip


def precision_intervals(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """P@1 per language with its 95% interval: a row per language, the best by the first metric on top, a mark per metric.

    Args:
        table: Columns language, metric, precision, low, high, as `precision` returns (of several metrics, one below the other).
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty, lacks a column, or has a language twice for a metric.
    """
    require_columns(table, ["language", "metric", "precision", "low", "high"], "precision", "facts.precision.precision")
    if table.duplicated(["language", "metric"]).any():
        raise ValueError("the precision table has a language twice for a metric: keep one average")
    metrics = unique(table, "metric")
    first = table[table["metric"] == metrics[0]].set_index("language")["precision"]
    order = sorted(unique(table, "language"), key=lambda x: -float(first.get(x, np.nan)))
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH / 1.4, 1.1 + (0.13 + 0.11 * len(metrics)) * len(order)).subplots()
        for number, metric in enumerate(metrics):
            held = table[table["metric"] == metric].set_index("language").reindex(order)
            y = np.arange(len(order)) + (number - (len(metrics) - 1) / 2) * 0.7 / max(len(metrics), 2)
            value, low, high = (100 * held[name].to_numpy(float) for name in ("precision", "low", "high"))
            colour, mark = _METRIC_LOOK.get(metric, (INK, "o"))
            error = np.clip([value - low, high - value], 0, None)
            axes.errorbar(
                value, y, xerr=error, fmt=mark, color=colour, markersize=4, elinewidth=1.2, capsize=2, label=metric
            )
        axes.set_yticks(range(len(order)), [language_name(language) for language in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlim(0, None)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=PALE, linewidth=0.6)
        axes.set_xlabel("P@1, % of queries, with 95% interval")
        if len(metrics) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(metrics), borderaxespad=0.2)
    return axes


def factor_scatter(
    table: pd.DataFrame, correlations: pd.DataFrame | None = None, *, factor: str, log: bool = False, axes: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":  # fmt: skip
    """P@1 of each language against a factor, such as training volume or mask tokens, with the correlations in the title.

    Args:
        table: Columns language, precision, low, high, and one named `factor`; a row a language.
        correlations: What `factor_correlations` returned; those of `factor` are shown.
        factor: Which.
        log: Logarithmic scale for the factor; Pearson's r is then that of the logarithm.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column; `log` and a factor that is not positive.
    """
    require_columns(table, ["language", "precision", "low", "high", factor], "factor", "facts.precision.precision")
    x, value = table[factor].to_numpy(float), 100 * table["precision"].to_numpy(float)
    if log and (x <= 0).any():
        raise ValueError(
            f"factor {factor!r} is not positive for {table['language'].iloc[int(np.argmax(x <= 0))]!r}: use log=False"
        )
    colours = language_colours(table["language"])
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH / 1.7, 3.4).subplots()
        if log:
            log_axis(axes)
        low, high = (100 * table[name].to_numpy(float) for name in ("low", "high"))
        error = np.clip([value - low, high - value], 0, None)
        for i, language in enumerate(table["language"]):
            axes.errorbar(
                x[i], value[i], yerr=error[:, [i]], fmt="o", color=colours[language], markersize=4, elinewidth=1
            )
        axes.set_ylim(0, None)
        for language, at, (place, side) in zip(
            table["language"], zip(x, value, strict=True), _label_places(axes, x, value, table["language"]), strict=True
        ):
            axes.annotate(language, at, xytext=place, textcoords="offset points", fontsize=8, color=GREY, ha=side)
        axes.grid(color=PALE, linewidth=0.6)
        axes.set(xlabel=factor, ylabel="P@1, %")
        held = correlations[correlations["factor"] == factor] if correlations is not None else ()
        said = [
            f"{row['method']}{' of log ' + factor if row['scale'] == 'log' else ''} {row['r']:.2f} [{row['low']:.2f}, {row['high']:.2f}]".replace(
                "-", "−"
            )
            for _, row in (held.iterrows() if len(held) else ())
            if row["method"] == "spearman" or (row["scale"] == "log") == log
        ]
        if said:
            axes.set_title(
                "\n".join([*said[:-1], f"{said[-1]}; n = {int(held['languages'].iloc[0])}"]),
                fontsize=9,
                fontweight="normal",
                color=GREY,
            )
    return axes


def token_curves(table: pd.DataFrame, *, axes: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
    """P@1 by how many tokens the object has: a curve per language, with Wilson's 95% interval.

    Args:
        table: Columns language, object_tokens, p_at_1, low, high, as `precision_by_tokens` returns.
        axes: Drawn into, if given.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    needed = ["language", "object_tokens", "p_at_1", "low", "high"]
    require_columns(table, needed, "tokens", "facts.factors.precision_by_tokens")
    languages = unique(table, "language")
    colours = language_colours(languages)
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH / 1.5, 3.2).subplots()
        for number, language in enumerate(languages):
            part = table[table["language"] == language].sort_values("object_tokens")
            value, low, high = (100 * part[name].to_numpy(float) for name in ("p_at_1", "low", "high"))
            x = part["object_tokens"].to_numpy(float) + 0.5 * ((number + 0.5) / len(languages) - 0.5)
            error = np.clip([value - low, high - value], 0, None)
            look: dict[str, Any] = {"color": colours[language], "markersize": 3.5, "elinewidth": 0.9}
            axes.errorbar(x, value, yerr=error, fmt="o-", label=language_name(language), **look)
        whole_numbers(axes)
        axes.set_ylim(0, None)
        axes.grid(axis="y", color=PALE, linewidth=0.6)
        axes.set(xlabel="tokens of the object", ylabel="P@1, %")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    return axes


def language_heatmap(
    matrix: pd.DataFrame, clusters: Clusters | None = None, *, label: str, chance: float | None = None,
    axes: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":  # fmt: skip
    """How alike languages are, such as the facts they share or the neurons of these facts; the diagonal is left blank.

    With clusters, languages stand in the order of the tree's leaves, and lines part the groups. Values are written up to 14 languages.

    Args:
        matrix: Languages as rows and columns, as `sharing` or `neuron_similarity(...).matrix` gives it; nan is blank (beige, as a line below says).
        clusters: What `cluster` returned.
        label: Of the colour bar.
        chance: Named below, if given.
        axes: Drawn into, if given.

    Raises:
        ValueError: Rows and columns are not the same languages, or the clusters are of others.
    """
    names = [str(x) for x in matrix.index]
    if names != [str(x) for x in matrix.columns] or not names:
        raise ValueError(
            f"a heat map of languages has the same ones in rows and columns, not {names} and {list(matrix.columns)}"
        )
    if clusters is not None and set(clusters.order) != set(names):
        raise ValueError(
            f"the clusters are of {', '.join(clusters.order)}, the matrix is of {', '.join(names)}: cluster this one"
        )
    order = list(clusters.order) if clusters is not None else names
    values = matrix.loc[order, order].to_numpy(float).copy()
    np.fill_diagonal(values, np.nan)
    top = max(float(np.nanmax(values, initial=0.0)), 1e-9) if np.isfinite(values).any() else 1.0
    with house_style():
        side = float(np.clip(0.42 * len(order), 2.2, 7.5))
        if axes is None:
            axes = make_figure(side + 2.2, side + 1.0).subplots()
        mesh = _mesh(axes, values, top)
        small = len(order) > 14
        for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
            if not small:
                ink = "white" if values[i, j] > 0.42 * top else INK
                axes.text(j, i, f"{values[i, j]:.2f}".lstrip("0"), ha="center", va="center", fontsize=7.5, color=ink)
        if clusters is not None:
            groups = [clusters.groups[x] for x in order]
            for at in [i - 0.5 for i in range(1, len(order)) if groups[i] != groups[i - 1]]:
                axes.axhline(at, color="#D55E00", linewidth=1.4)
                axes.axvline(at, color="#D55E00", linewidth=1.4)
        axes.set_xticks(range(len(order)), order, rotation=90 if small else 0)
        axes.set_yticks(range(len(order)), [x if small else language_name(x) for x in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_aspect("equal")
        blank = "beige: a language with itself"
        if np.isnan(values).sum() > len(order):
            blank += ", or no fact in both"
        said = blank if chance is None else f"by chance {chance:.4f}; {blank}"
        axes.set_xlabel(said, color=GREY, fontsize=8)
        _bar(axes, mesh, label)
    return axes


def bins_heatmap(
    counts: Any, *, width: int | None = None, title: str = "", axes: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """In which parts of which layers fact neurons lie: a row per layer, a column per bin of neighbouring units.

    Args:
        counts: How many of the chosen units lie in each part, [layer, bin], as `FactNeurons.bins` gives it.
        width: Units per layer, for the axis.
        title: Of the figure.
        axes: Drawn into, if given.

    Raises:
        ValueError: The counts are no table [layer, bin].
    """
    values = np.asarray(counts, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"the counts have shape {values.shape}: give [layer, bin], as FactNeurons.bins does")
    layers, bins = values.shape
    with house_style():
        if axes is None:
            axes = make_figure(WIDTH / 1.6, float(np.clip(0.9 + 0.22 * layers, 1.8, 7.0))).subplots()
        mesh = _mesh(axes, values, max(values.max(), 1e-9))
        whole_numbers(axes)
        axes.set_yticks(range(layers) if layers <= 16 else range(0, layers, 4))
        axes.set_ylim(layers - 0.5, -0.5)
        units = (
            ""
            if width is None
            else f" of {width // bins} units"
            if width % bins == 0
            else f" of {width // bins} or {width // bins + 1} units"
        )
        axes.set(xlabel=f"bin{units}, side by side", ylabel="layer")
        axes.set_title(title)
        _bar(axes, mesh, "chosen units")
    return axes


def _label_places(axes: Any, x: np.ndarray, y: np.ndarray, names: Any) -> list[tuple[tuple[int, int], str]]:
    """Offset (points) and alignment of each point's name, so that names of points close to each other do not lie on one another if they can."""
    at = axes.transData.transform(np.stack([x, y], axis=1)) * 72 / axes.figure.dpi
    ways = [
        ((4, 3), "left"),
        ((4, -9), "left"),
        ((-4, 3), "right"),
        ((-4, -9), "right"),
        ((4, 11), "left"),
        ((4, -17), "left"),
    ]
    taken: list[tuple[float, float, float, float]] = []
    found = []
    for (px, py), name in zip(at, names, strict=True):
        wide = 5.0 * len(str(name))
        boxes = [(px + dx - wide * (side == "right"), py + dy, wide, 8.0) for (dx, dy), side in ways]
        hits = [
            sum(a < c + w and c < a + v and b < d + h and d < b + u for c, d, w, h in taken) for a, b, v, u in boxes
        ]
        best = int(np.argmin(hits))
        taken.append(boxes[best])
        found.append(ways[best])
    return found


def _mesh(axes: Any, values: np.ndarray, top: float) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("share", _SHADES).with_extremes(bad=_BLANK)
    edges = [np.arange(n + 1) - 0.5 for n in values.shape[::-1]]
    mesh = axes.pcolormesh(
        *edges, np.ma.masked_invalid(values), cmap=shades, vmin=0, vmax=top, edgecolors="white", linewidth=0.6
    )
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return mesh


def _bar(axes: Any, mesh: Any, label: str) -> None:
    bar = axes.figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02, aspect=30)
    bar.set_label(label, fontsize=9)
    bar.outline.set_visible(False)
