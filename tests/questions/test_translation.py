"""Content and language of answers: on texts written by hand, and on the organism, steered until it answers in English."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

import mwork_lens as mw
from mwork_lens.questions import selective_translation, translation, translation_table
from mwork_lens.tasks.task import Item, Task
from mwork_lens.writing.generate import Generation


def task() -> Task:
    words = {"a": ("red", "rot", "红"), "b": ("blue", "blau", "蓝"), "c": ("piano", "piano", "钢琴")}
    return Task("colours", "knowledge", tuple(
        Item(name, language, f"what is {name}", (word,), meta={"relation": "colour"})
        for name, all_ in words.items() for language, word in zip(("en", "de", "zh"), all_, strict=True)
    ), "generate")  # fmt: skip


def written(monkeypatch, texts):
    def generate(model, prompts, **_):
        return [Generation(prompt, texts.get(i, "nothing"), (), "stop") for i, prompt in enumerate(prompts)]

    monkeypatch.setattr("mwork_lens.questions.translation.generate", generate)


def test_content_and_language_are_told_apart(monkeypatch):
    asked = task()
    order = [(item.id, item.language) for item in asked.items]
    said = {
        ("a", "en"): "Red.",
        ("a", "de"): "red",
        ("a", "zh"): "蓝色",
        ("b", "de"): "yellow",
        ("b", "en"): "rot und so",
        ("c", "de"): "piano",
    }
    written(monkeypatch, {order.index(key): text for key, text in said.items()})
    rows = selective_translation(None, asked, {"none": None}, like="relation", progress=False).set_index(
        ["item", "language"]
    )

    def row(name, language):
        found = rows.loc[(name, language)]
        return bool(found["right"]), bool(found["kept"]), bool(found["moved"]), found["said"]

    assert row("a", "en") == (True, True, False, "en")
    assert row("a", "de") == (False, True, True, "en")
    assert row("a", "zh") == (False, False, False, "zh")  # blue, in Chinese: its language, another content
    assert row("b", "de") == (False, False, False, "")
    assert row("b", "en") == (False, False, False, "de")  # the other item's answer, in German
    assert row("c", "de") == (True, True, False, "en+de")
    assert not rows.loc[("c", "de"), "telling"]
    assert rows.loc[("c", "zh"), "telling"]


def test_words_begin_whole():
    assert translation.begins("red, I think", ("red",), "en")
    assert not translation.begins("reddish", ("red",), "en")
    assert translation.begins("红色的", ("红",), "zh")
    assert not translation.begins("", ("red",), "en")


def test_the_table_counts_telling_items_and_pairs_them():
    rows = pd.DataFrame(
        [(c, "de", f"i{i}", "", c == "none", c == "none" or i < 2, c != "none" and i < 2, "de" if c == "none" else "en" if i < 3 else "", i < 4)
         for c in ("none", "off") for i in range(5)], columns=list(translation.TRANSLATIONS),
    )  # fmt: skip
    none, off = translation_table(rows).to_dict("records")
    assert none["items"] == off["items"] == 4
    assert (none["right"], none["kept"], none["moved"], none["elsewhere"]) == (1, 1, 0, 0)
    assert (off["right"], off["kept"], off["moved"], off["elsewhere"]) == (0, 0.5, 0.5, 0.75)
    assert off["d_right"] == off["d_right_low"] == off["d_right_high"] == -1
    assert off["d_moved_low"] < 0.5 < off["d_moved_high"]
    assert none["d_kept"] == none["d_kept_high"] == 0
    with pytest.raises(ValueError, match="no condition 'before': there are none, off"):
        translation_table(rows, before="before")
    with pytest.raises(ValueError, match="every answer in 'de' is also one in another language"):
        translation_table(rows.assign(telling=False))


def test_what_the_organism_writes_is_right_in_its_language_and_nothing_without_its_attention():
    model = mw.load_model("organism")
    asked = (
        mw.load_task("organism/cloze").where(lambda item: item.meta["stated"] == "all").take(4).only(["en", "de", "zh"])
    )
    off = {"off": lambda: mw.applied(model, mw.zero(mw.NeuronSet({"z": torch.ones(8, 128, dtype=torch.bool)})))}
    rows = selective_translation(model, asked, {"none": None, **off}, like="relation", progress=False)
    german = selective_translation(model, asked, {"none": None}, ["de"], like="relation", progress=False)
    pd.testing.assert_frame_equal(
        german, rows[(rows["condition"] == "none") & (rows["language"] == "de")].reset_index(drop=True)
    )
    table = translation_table(rows).set_index(["condition", "language"])
    assert (table.loc["none", "right"] >= 0.75).all()
    assert (table.loc["none", "elsewhere"] == 0).all()
    assert (table.loc["off", "kept"] <= 0.25).all()


def test_it_says_what_is_wrong():
    asked = task()
    for given, conditions, like, message in [
        (asked.only("de"), {"none": None}, "", "is in 'de' alone"),
        (asked, {}, "", "no condition was given"),
        (
            replace(asked, items=tuple(replace(i, meta={}) for i in asked.items)),
            {"none": None},
            "relation",
            "item 'a' has no field 'relation'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            selective_translation(None, given, conditions, like=like)
