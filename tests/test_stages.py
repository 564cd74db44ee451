"""The split of the layers: a partition, and boundaries recovered where they were planted."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.stages import STAGES, Stages
from mwork_lens.storage import Run, load, save

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


def lens_table(curves, *, english=0.9):
    """What `layer_languages` returns, in the columns that matter: per language the mass of its own tokens by entry."""
    n = len(next(iter(curves.values())))
    rows = [("en", "en", i, english) for i in range(n)]
    for language, curve in curves.items():
        rows += [(language, language, i, mass) for i, mass in enumerate(curve)]
        rows += [(language, "en", i, 1 - mass) for i, mass in enumerate(curve)]
    return pd.DataFrame(rows, columns=["text_language", "token_language", "layer", "mass"])


def dip(first, middle, last, *, high=0.8, low=0.1, end=None):
    """Own-language mass that falls in the last layer of the first stage and returns in the first layer of the last."""
    return [high] * first + [low] * (middle + 1) + [high if end is None else end] * last


@given(sizes=sizes)
def test_stages_are_a_partition(sizes):
    first, middle, last = sizes
    n = sum(sizes)
    stages = Stages.of(n, understanding=first, generation=last)
    assert [len(layers) for _, layers in stages.items()] == [first, middle, last]
    assert [layer for _, layers in stages.items() for layer in layers] == list(range(n))
    assert [name for name, _ in stages.items()] == list(STAGES)
    assert stages.n_layers == n
    for layer in range(n):
        assert [name for name in STAGES if layer in getattr(stages, name)] == [stages.stage_of(layer)]
    assert stages.stage_of(0) == "understanding"
    assert stages.stage_of(n - 1) == "generation"


@given(sizes=sizes, high=st.floats(0.5, 1.0), low=st.floats(0.0, 0.2), end=st.floats(0.4, 1.0))
def test_planted_boundaries_are_recovered(sizes, high, low, end):
    first, _middle, last = sizes
    table = lens_table(
        {"de": dip(*sizes, high=high, low=low, end=end), "zh": dip(*sizes, high=high / 2, low=low / 2, end=end / 2)}
    )
    assert Stages.from_lens(table) == Stages.of(sum(sizes), understanding=first, generation=last)


def test_a_gradual_dip_is_cut_at_half():
    #        entry    0    1    2    3    4    5    6    7    8          lowest 0.1; half way down 0.45, half way up 0.35
    curve = [0.8, 0.7, 0.5, 0.4, 0.1, 0.2, 0.3, 0.4, 0.6]
    assert Stages.from_lens(lens_table({"fr": curve})) == Stages.of(8, understanding=3, generation=2)
    # other languages, English among them, do not move the boundary of the mean curve
    assert Stages.from_lens(lens_table({"fr": curve}, english=0.1)) == Stages.of(8, understanding=3, generation=2)
    assert Stages.from_lens(lens_table({"fr": curve}).sample(frac=1, random_state=0)) == Stages.of(
        8, understanding=3, generation=2
    )


@given(curve=st.lists(st.floats(0, 1), min_size=4, max_size=20))
def test_any_curve_gives_a_partition_with_all_stages(curve):
    stages = Stages.from_lens(lens_table({"de": curve}))
    assert stages.n_layers == len(curve) - 1
    assert all(len(layers) >= 1 for _, layers in stages.items())


@pytest.mark.parametrize(("understanding", "generation"), [(0, 2), (2, 0), (-1, 2), (4, 4), (5, 3), (8, 1)])
def test_a_split_that_leaves_a_stage_empty_is_refused(understanding, generation):
    with pytest.raises(
        ValueError,
        match=f"{understanding} layers of understanding and {generation} of generation do not split 8 layers: each",
    ):
        Stages.of(8, understanding=understanding, generation=generation)


@pytest.mark.parametrize(
    "ranges",
    [
        (range(2), range(3, 4), range(4, 6)),
        (range(2), range(1, 4), range(4, 6)),
        (range(1, 2), range(2, 3), range(3, 4)),
        (range(0),) * 3,
    ],
)
def test_ranges_that_are_no_partition_are_refused(ranges):
    with pytest.raises(ValueError, match="stages must be consecutive ranges from layer 0, got range"):
        Stages(*ranges)


@pytest.mark.parametrize("layer", [-1, 8])
def test_a_layer_outside_has_no_stage(layer):
    with pytest.raises(ValueError, match=rf"layer {layer} is outside 0\.\.7"):
        Stages.of(8, understanding=2, generation=2).stage_of(layer)


@pytest.mark.parametrize(
    "table",
    [
        lens_table({"de": [0.5, 0.1, 0.5]}),
        lens_table({"de": [0.5, float("nan"), 0.1, 0.5, 0.5]}),
        lens_table({"en": [0.9] * 9}),
    ],
    ids=["two layers", "nan", "English only"],
)
def test_a_lens_without_a_curve_is_refused(table):
    with pytest.raises(
        ValueError, match="no curve to read stages from: it needs a language besides English and at least three layers"
    ):
        Stages.from_lens(table)


@given(sizes=sizes)
def test_stages_survive_the_disk(tmp_path_factory, sizes):
    stages = Stages.of(sum(sizes), understanding=sizes[0], generation=sizes[2])
    path = tmp_path_factory.getbasetemp() / "stages.safetensors"
    save(stages, path, Run("study"))
    assert load(path) == stages
