"""Texts of the world: parallel, as the script writes them, and with something in each that training never shows."""

import json
import re
from importlib import resources
from pathlib import Path

import make_texts
from miniworld.languages import CODES
from miniworld.meaning import BUILDINGS, CITIES, DEEDS, Event
from miniworld.world import held_out_event

import mwork_lens as mw

SHIPPED = Path(str(resources.files("mwork_lens"))) / "data" / "texts" / "organism"


def test_the_shipped_texts_are_what_the_script_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_texts.py", "--out", str(tmp_path)])
    make_texts.main()
    assert capsys.readouterr().out.count("144 documents") == len(CODES)
    assert sorted(path.name for path in SHIPPED.iterdir()) == sorted(f"{code}.jsonl" for code in CODES)
    for path in SHIPPED.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_they_load_by_name_parallel_in_seven_languages_and_apart_from_the_natural_ones():
    world, natural = mw.load_corpora("organism"), mw.load_corpora()
    assert set(world) == set(CODES)
    assert len({corpus.ids for corpus in world.values()}) == 1
    assert "sw" not in natural
    assert not set(world["en"].texts) & set(natural["en"].texts)
    numbers = {code: [re.findall(r"\d+", text) for text in corpus.texts] for code, corpus in world.items()}
    assert all(found == numbers["en"] for found in numbers.values())


def test_articles_are_of_held_out_events():
    for line in (SHIPPED / "en.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["topic"] == "article":
            first = record["text"].split(".")[0]
            building = next(b for b in BUILDINGS if f" {b} " in first)
            city = next(c for c in CITIES if c.capitalize() in first)
            deed = next(d for d in DEEDS if first.endswith(d))
            assert held_out_event(Event(building, deed, city, "monday", 2, "anna", "red")), first
