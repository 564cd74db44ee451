"""The embedded facts of the generated world: what the script writes, with the world's own truth."""

import json

import pytest
from make_facts import blanked, main
from miniworld.languages import CODES, grammar
from miniworld.languages.base import spell
from miniworld.meaning import FACTS
from miniworld.world import facts

from mwork_lens.facts.factset import EMBEDDED, fill, load_facts

KNOWN = {fact.id: fact for fact in facts(languages=CODES)}


def test_the_package_holds_what_the_script_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_facts.py", "--out", str(tmp_path)])
    main()
    assert "400 facts in 7 languages" in capsys.readouterr().out
    from importlib import resources

    own = resources.files("mwork_lens") / "data" / "facts" / "organism"
    for name in ("relations.json", "facts.jsonl"):
        assert (own / name).read_text(encoding="utf-8") == (tmp_path / name).read_text(encoding="utf-8")


def test_every_sentence_is_the_worlds():
    held = load_facts("organism")
    assert "organism" in EMBEDDED
    assert held.languages == CODES
    assert len(held) == len(KNOWN) * len(CODES)
    for row in held.table.itertuples(index=False):
        fact, language = KNOWN[row.fact], grammar(row.language)
        said = language.fact(fact.relation, fact.subject, fact.value, 0)
        assert fill(held.templates[row.language, row.relation], row.subject, row.object) == said.text
        assert row.subject == spell(fact.subject, language.script)
        assert blanked(language, fact)[1:] == (row.subject, row.object)


def test_the_truth_is_the_worlds_and_candidates_are_all_values():
    held = load_facts("organism")
    stated = held.stated()
    assert {fact: set(CODES if where == "all" else where) for fact, where in stated.items()} == {
        fact: set(known.stated) for fact, known in KNOWN.items()
    }
    for relation, (_, values) in FACTS.items():
        assert len(held.candidates["en", relation]) == len(values)
        assert len(held.candidates["de", relation]) in (len(values), 2 * len(values))


def test_a_template_that_is_not_one_is_refused(monkeypatch):
    import make_facts

    first = next(iter(KNOWN.values()))
    turned = lambda language, fact: ("x [X] [Y]" if fact is first else "[X] [Y]", "a", "b")  # noqa: E731
    monkeypatch.setattr(make_facts, "blanked", turned)
    with pytest.raises(ValueError, match="'product' has several templates in 'en'"):
        make_facts.relations(list(KNOWN.values()))
    assert json.loads(make_facts.line(first))["meta"]["stated"] == list(first.stated)
