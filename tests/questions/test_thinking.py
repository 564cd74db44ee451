"""The interaction of structure and task: planted changes are found, chance is not, missing parts are named."""

import numpy as np
import pandas as pd
import pytest

from mwork_lens.questions import thinking_against_knowing

ITEMS = 4


def scores(changes, *, draws: int = 19, noise: float = 0.0, targets=("de", "zh"), seed: int = 0) -> pd.DataFrame:
    """Items of score -1 in the baseline; the specific neurons change them as given, random ones not (but for noise)."""
    rng = np.random.default_rng(seed)
    rows = []

    def add(task, target, row, neurons, draw, language, value):
        for item in range(ITEMS):
            rows.append((task, "reasoning", "logp", target, row, neurons, "", draw, 3.0, language, str(item), value))

    for task in ("sums", "facts"):
        for language in ("en", *targets):
            add(task, "", "", "none", -1, language, -1.0)
        for target in targets:
            for row in ("SA", "SF"):
                for draw in range(-1, draws):
                    own = changes[task, row] if draw < 0 else 0.0
                    for language in ("en", target):
                        change = (own if language == target else 0.0) + noise * rng.normal()
                        add(task, target, row, "specific" if draw < 0 else "random", draw, language, -1.0 + change)
    names = [
        "task",
        "ability",
        "metric",
        "target",
        "row",
        "neurons",
        "of",
        "draw",
        "count",
        "language",
        "item",
        "score",
    ]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(exact=np.nan, f1=np.nan, rouge_l=np.nan, number=np.nan, fidelity=np.nan, tokens=1)


def test_a_planted_split_is_found_in_the_language_and_not_in_english():
    made = scores(
        {("sums", "SA"): -0.9, ("sums", "SF"): -0.1, ("facts", "SA"): -0.2, ("facts", "SF"): -0.8}, noise=0.02
    )
    table = thinking_against_knowing(made, "sums", "facts").set_index(["target", "asked"])
    for target in ("de", "zh", "all"):
        assert table.loc[(target, "target"), "interaction"] == pytest.approx(-0.8 - 0.6, abs=0.15)
        assert table.loc[(target, "target"), "p"] == pytest.approx(1 / 20)
    assert abs(table.loc[("all", "English"), "interaction"]) < 0.1
    assert table.loc[("all", "target"), "thinking_SA"] == pytest.approx(-0.9, abs=0.05)
    low, high = table.loc[("all", "target"), ["low", "high"]]
    assert low <= table.loc[("all", "target"), "interaction"] <= high


def test_equal_changes_have_no_interaction_and_noise_is_seldom_significant():
    made = scores(dict.fromkeys([(t, r) for t in ("sums", "facts") for r in ("SA", "SF")], -0.5))
    table = thinking_against_knowing(made, "sums", "facts")
    assert np.allclose(table["interaction"], 0)
    nothing = dict.fromkeys([(t, r) for t in ("sums", "facts") for r in ("SA", "SF")], 0.0)
    p = [
        thinking_against_knowing(scores(nothing, noise=0.1, seed=s), "sums", "facts", resamples=2)
        .set_index(["target", "asked"])
        .loc[("all", "target"), "p"]
        for s in range(12)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.25


def test_it_says_what_is_missing():
    made = scores(dict.fromkeys([(t, r) for t in ("sums", "facts") for r in ("SA", "SF")], -0.5), draws=3)
    with pytest.raises(ValueError, match="no scores of task 'xcopa': there are sums, facts"):
        thinking_against_knowing(made, "sums", "xcopa")
    with pytest.raises(ValueError, match="no scores of row 'SA'"):
        thinking_against_knowing(made[made["row"] != "SA"], "sums", "facts")
    with pytest.raises(ValueError, match="1 random draws say nothing"):
        thinking_against_knowing(made[made["draw"] < 1], "sums", "facts")
    empty = made.assign(score=np.where(made["neurons"] == "specific", np.nan, made["score"]))
    with pytest.raises(ValueError, match="no target has both attention and FFN neurons"):
        thinking_against_knowing(empty, "sums", "facts")
