"""The figures of patching say what its tables say."""

import itertools

import numpy as np
import pandas as pd
import pytest

from mwork_lens.patching.tables import CARRIED, RECOVERY
from mwork_lens.plots import carried_curves, recovery_heatmap
from mwork_lens.plots.style import svg


def recovered(positions=3, layers=2, head="all"):
    rows = [
        (
            "en",
            "fr",
            "resid_pre",
            layer,
            head,
            position,
            -1.0,
            2.0,
            0.5,
            layer - position / 4,
            layer - 0.6,
            layer + 0.1,
            8,
        )
        for layer, position in itertools.product(range(layers), range(positions))
    ]
    return pd.DataFrame(rows, columns=list(RECOVERY))


def test_the_map_holds_every_cell_in_its_place_and_marks_what_is_unclear():
    axes = recovery_heatmap(recovered(), tokens=["Tor", " sa\n", ""])
    (mesh,) = [c for c in axes.collections if hasattr(c, "get_coordinates")]
    assert np.allclose(mesh.get_array().reshape(2, 3), [[0, -0.25, -0.5], [1, 0.75, 0.5]])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["Tor", "·sa\N{RETURN SYMBOL}", "∅"]
    (dots,) = axes.lines
    assert sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True)) == [(0, 0), (1, 0), (2, 0)]
    assert axes.get_title(loc="left") == "English (en) → French (fr), resid_pre"
    assert "recovery" in svg(axes.figure)


def test_heads_are_columns_in_their_order():
    table = pd.concat([recovered(1, head=h) for h in (10, 2)])
    axes = recovery_heatmap(table.assign(position="all"))
    assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "10"]


def test_the_map_refuses_what_it_cannot_show():
    table = recovered()
    for made, options, message in [
        (table.drop(columns="low"), {}, "lacks low"),
        (table[:0], {}, "is empty"),
        (pd.concat([table, table.assign(site="z")]), {}, "several values of 'site' \\(resid_pre, z\\)"),
        (pd.concat([recovered(head=h) for h in (0, 1)]), {}, "has heads and positions"),
        (table, {"tokens": ["a"]}, "1 tokens for 3 columns"),
    ]:
        with pytest.raises(ValueError, match=message):
            recovery_heatmap(made, **options)


def carried(languages=("fr", "ru")):
    rows = [
        (
            "en",
            language,
            "resid_post",
            layer,
            "all",
            "all",
            name,
            p,
            p - 0.1,
            p + 0.1,
            p / 2,
            p / 2 - 0.05,
            p / 2 + 0.05,
            0.1,
            0.9,
            20,
        )
        for language in languages
        for layer in range(4)
        for name, p in (("theirs", 0.2 * layer), ("mine", 0.9 - 0.2 * layer))
    ]
    return pd.DataFrame(rows, columns=list(CARRIED))


def test_curves_are_those_of_the_table():
    panels = carried_curves(carried(), names={"theirs": "their answer"})
    assert [p.get_title(loc="left") for p in panels] == ["English (en) → French (fr)", "English (en) → Russian (ru)"]
    first = panels[0].lines[0]
    assert np.allclose(first.get_ydata(), [0, 0.1, 0.2, 0.3])
    assert [t.get_text() for t in panels[0].figure.legends[0].get_texts()] == ["their answer", "mine"]
    assert np.allclose(carried_curves(carried(), value="probability")[1].lines[1].get_ydata(), [0.9, 0.7, 0.5, 0.3])


def test_curves_refuse_what_they_cannot_show():
    with pytest.raises(ValueError, match="unknown value='best'"):
        carried_curves(carried(), value="best")
    with pytest.raises(ValueError, match="lacks likeliest"):
        carried_curves(carried().drop(columns="likeliest"))
    many = pd.concat([carried().assign(candidate=f"c{i}") for i in range(7)])
    with pytest.raises(ValueError, match="7 candidates are more than 6"):
        carried_curves(many)
    with pytest.raises(ValueError, match="1 axes for 2"):
        carried_curves(carried(), axes=carried_curves(carried(("fr",))))
