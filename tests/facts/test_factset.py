"""Fact sets: what they hold, how they are read and written, and what is said of bad files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.facts.factset import FACT_COLUMNS, FactSet, fill, load_facts, read_mlama, save_facts

TEMPLATES = {
    ("en", "capital"): "The capital of [X] is [Y] .",
    ("de", "capital"): "Die Hauptstadt von [X] ist [Y] .",
    ("en", "sport"): "[X] plays [Y].",
}
ROWS = [
    ("capital", "c1", "en", "France", "Paris"),
    ("capital", "c2", "en", "Italy", "Rome"),
    ("capital", "c3", "en", "Peru", "Lima"),
    ("sport", "s1", "en", "Ann", "tennis"),
    ("sport", "s2", "en", "Bob", "tennis"),
    ("capital", "c1", "de", "Frankreich", "Paris"),
    ("capital", "c3", "de", "Peru", "Lima"),
]


def facts(rows: Any = ROWS, **changes: Any) -> FactSet:
    return FactSet(pd.DataFrame(rows, columns=list(FACT_COLUMNS)), **{"templates": TEMPLATES, **changes})


def write(folder: Path, relations: Any = None, lines: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    relations = (
        {"capital": {"templates": {"en": "[X] has [Y]", "de": "[X] hat [Y]"}}} if relations is None else relations
    )
    lines = [line()] if lines is None else lines
    text = relations if isinstance(relations, str) else json.dumps(relations, indent=1)
    (folder / "relations.json").write_text(text, encoding="utf-8")
    held = [one if isinstance(one, str) else json.dumps(one) for one in lines]
    (folder / "facts.jsonl").write_text("\n".join(held) + "\n", encoding="utf-8")
    return folder


def line(**changes: Any) -> dict[str, Any]:
    both = {"subject": {"en": "France", "de": "Frankreich"}, "object": {"en": "Paris", "de": "Paris"}}
    return {"fact": "c1", "relation": "capital", **both, **changes}


def mlama(folder: Path, *, nested: bool = True) -> Path:
    """Invented facts in mLAMA's layout."""
    root = folder / "mlama1.1" if nested else folder
    for language, verb in (("en", "was born in"), ("af", "is gebore in")):
        (root / language).mkdir(parents=True)
        templates = [{"relation": "P19", "template": f"[X] {verb} [Y] ."}, {"relation": "P6", "template": "[X] [Y]"}]
        (root / language / "templates.jsonl").write_text("\n".join(map(json.dumps, templates)), encoding="utf-8")
        rows = [("u1", "Ann", "Ulm"), ("u2", "Bob", "Bern"), ("u3", "Bob", "Bern")][: 3 if language == "en" else 2]
        made = [{"uuid": u, "sub_label": s, "obj_label": o, "lineid": i, "sub_uri": "Q1", "obj_uri": "Q2"}
                for i, (u, s, o) in enumerate(rows)]  # fmt: skip
        (root / language / "P19.jsonl").write_text("\n".join(map(json.dumps, made)) + "\n", encoding="utf-8")
    return folder


def test_what_a_set_holds() -> None:
    held = facts()
    assert held.languages == ("en", "de")
    assert held.relations == ("capital", "sport")
    assert held.pairs == (("en", "capital"), ("en", "sport"), ("de", "capital"))
    assert held.candidates["en", "capital"] == ("Paris", "Rome", "Lima")
    assert held.candidates["en", "sport"] == ("tennis",)
    assert held.shared("en", "de") == ("c1", "c3") == held.shared("de", "en")
    assert list(held.of("de", "capital")["fact"]) == ["c1", "c3"]
    assert len(held) == len(ROWS)


def test_parts_keep_candidates_and_facts_across_languages() -> None:
    held = facts()
    assert held.only(["de"]).candidates == {("de", "capital"): ("Paris", "Lima")}
    assert held.only(relations=["sport"]).languages == ("en",)
    taken = held.take(1, seed=0)
    assert taken.candidates["en", "capital"] == ("Paris", "Rome", "Lima")  # of the whole relation
    assert taken.table["fact"].nunique() == 2
    assert taken.table.equals(held.take(1, seed=0).table)
    assert {tuple(held.take(1, seed=seed).table["fact"]) for seed in range(9)} != {tuple(taken.table["fact"])}
    for fact in taken.table["fact"]:
        assert list(taken.table["fact"]).count(fact) == list(held.table["fact"]).count(fact)


def test_fill_leaves_blanks_within_texts_alone() -> None:
    assert fill("[Y] of [X], [X]", "[Y]", "a[X]") == "a[X] of [Y], [Y]"


def test_fingerprints_see_what_is_asked() -> None:
    base = facts().fingerprint("en", "capital")
    assert facts().fingerprint("en", "capital") == base == facts().only(["en"]).fingerprint("en", "capital")
    changed = [
        facts(templates={**TEMPLATES, ("en", "capital"): "[X] [Y]"}),
        facts(candidates={("en", "capital"): ("Rome", "Paris", "Lima", "Bern")}),
        facts([(*ROWS[0][:3], "Gaul", "Paris"), *ROWS[1:]]),
    ]
    assert len({base, *(one.fingerprint("en", "capital") for one in changed)}) == 4


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        ([], {}, r"no facts in memory: give at least one"),
        ([*ROWS, ROWS[0]], {}, r"fact 'c1' of 'capital' in 'en': fact 'c1' is there twice in 'en'; ids must differ"),
        ([*ROWS, ("sport", "c2", "en", "x", "y")], {}, r"fact 'c2' is there twice in 'en'"),
        ([*ROWS, ("sport", "c2", "de", "x", "y")], {}, r"fact 'c2' belongs to 'sport' here and to another relation"),
        ([*ROWS, ("sport", "s1", "de", "Ann", "Tennis")], {}, r"relation 'sport' has no template in 'de': add one"),
        ([*ROWS, ("sport", "s3", "en", " ", "golf")], {}, r"fact 's3' of 'sport' in 'en': subject is ' '"),
        ([*ROWS, ("sport", "s3", "en", "Cid", None)], {}, r"object is None|object is nan"),
        (ROWS, {"templates": {**TEMPLATES, ("en", "sport"): "[X] plays"}}, r"'\[X\] plays' has no \[Y\]: write \[Y\] where"),
        (ROWS, {"templates": {**TEMPLATES, ("en", "sport"): "plays [Y]"}}, r"'plays \[Y\]' has no \[X\]"),
        (ROWS, {"candidates": {("en", "sport"): ("golf",)}}, r"fact 's1' .*object 'tennis' is not among the 1 candidates"),
        (ROWS, {"candidates": {("en", "sport"): ("tennis", "")}}, r"a candidate of 'sport' in 'en' is ''"),
    ],
)  # fmt: skip
def test_bad_sets_are_refused(rows: Any, changes: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        facts(rows, **changes)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no facts in language 'fr': there are en, de"):
        facts().only(["fr"])
    with pytest.raises(ValueError, match="no facts in relation 'river': there are capital, sport"):
        facts().only(relations=["river"])
    with pytest.raises(ValueError, match="language 'de' has none of the relations sport"):
        facts().only(["en", "de"], ["sport"])
    with pytest.raises(ValueError, match="language 'de' has no relation 'sport': it has capital"):
        facts().of("de", "sport")
    with pytest.raises(ValueError, match="no facts in language 'fr': there are en, de"):
        facts().of("fr", "sport")
    with pytest.raises(ValueError, match="n=0: take at least one"):
        facts().take(0)
    with pytest.raises(ValueError, match="has no column 'subject'"):
        FactSet(pd.DataFrame({"relation": ["a"], "fact": ["b"], "language": ["en"]}), {})


def test_saved_facts_are_read_back(tmp_path: Path) -> None:
    held = facts(candidates={("en", "capital"): ("Paris", "Rome", "Lima", "Bern")})
    read = load_facts(save_facts(held, tmp_path / "set"))
    keys = ["language", "fact"]
    assert (
        read.table.sort_values(keys).reset_index(drop=True).equals(held.table.sort_values(keys).reset_index(drop=True))
    )
    assert read.templates == held.templates
    assert read.candidates == held.candidates
    at = list(read.table["fact"]).index("s1")
    assert read.place(at) == f"{tmp_path / 'set' / 'facts.jsonl'}, line 4"
    assert read.only(relations=["sport"]).place(0).endswith("line 4")
    assert load_facts(tmp_path / "set", ["de"]).languages == ("de",)


@given(texts=st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=5))
def test_any_text_survives(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [("capital", f"f{i}", "en", text, texts[-1]) for i, text in enumerate(texts)]
    folder = save_facts(facts(rows), tmp_path_factory.mktemp("set"))
    assert load_facts(folder).table[["subject", "object"]].to_numpy().tolist() == [[text, texts[-1]] for text in texts]


# fmt: off
@pytest.mark.parametrize(("relations", "lines", "said"), [
    ({"capital": {"templates": {"en": "[X] has [Y]", "de": "hat [Y]"}}}, None, r"relations.json, line 5: template 'hat \[Y\]' has no \[X\]"),
    ({"capital": {"templates": {"en": "[X] has", "de": "[X] [Y]"}}}, None, r"relations.json, line 4: .* has no \[Y\]"),
    ({"capital": {"templates": {"en": 3}}}, None, r"relations.json, line 4: a template must be a text, got 3"),
    ({"capital": {"template": "x"}}, None, r"relations.json, line 2: relation 'capital' needs"),
    ({"capital": {"templates": {"en": "[X] [Y]"}, "candidate": {}}}, None, r"line 2: .* has an unknown field 'candidate'"),
    ({"capital": {"templates": {"xq": "[X] [Y]"}}}, None, r"relations.json, line 4: unknown language"),
    ({"capital": {"templates": {"en": "[X] [Y]", "de": "[X] [Y]"}, "candidates": {"en": ["Paris", " "]}}}, None,
     r"relations.json, line 2: candidates of 'capital' in 'en': candidate 2 is ' '"),
    ({"capital": {"templates": {"en": "[X] [Y]", "de": "[X] [Y]"}, "candidates": {"en": ["Rome"]}}}, None,
     r"facts.jsonl, line 1: object 'Paris' is not among the 1 candidates"),
    ({"capital": {"templates": {"en": "[X] [Y]"}}}, None, r"facts.jsonl, line 1: relation 'capital' has no template in 'de'"),
    ({"capital": {"templates": {"en": "[X] a [Y]", "de": "[X] b [Y]", "fr": "[X] c [Y]"}}}, None,
     r"relations.json, line 6: relation 'capital' has a template in 'fr' and no fact"),
    ({"capital": {"templates": {"en": "[X] [Y]", "de": "[X] [Y]"}, "candidates": None}}, None, r"line 2: candidates of 'capital' must be"),
    ({"capital": {"templates": {"en": "[X] [Y]", "de": "[X] [Y]"}, "candidates": ["Paris"]}}, None, r"must be .* got \['Paris'\]"),
    ({"capital": {"templates": {"en": "[X] [Y]", "de": "[X] [Y]"}, "candidates": {"xq": ["a"]}}}, None, r"line 2: .* unknown language 'xq'"),
    ({"capital": {"templates": {"en": "[X] [Y]", "de": "[X] [Y]"}, "candidates": {"fr": ["a"]}}}, None,
     r"line 2: candidates of 'capital' in 'fr': there is no template"),
    ('{"capital": {},\n"capital": {}}', None, r"relations.json, line 2: 'capital' is there twice in one object: keep one"),
    ("[" * 200_000, None, r"relations.json, line 1: nested too deeply"),
    (None, ['{"fact": "a", "fact": "b"}'], r"facts.jsonl, line 1: 'fact' is there twice"),
    (None, [line(meta={"stated": 3})], r"facts.jsonl, line 1: fact 'c1': stated must name languages, .* got 3"),
    (None, [line(meta={"stated": [3]})], r"facts.jsonl, line 1: fact 'c1': stated must name languages"),
    (None, [line(meta={"stated": ["xq"]})], r"facts.jsonl, line 1: fact 'c1': stated: unknown language 'xq'"),
    ("[", None, r"relations.json, line 1: not JSON"),
    ("[]", None, r"relations.json: expected .* got list"),
    (None, [line(), "{"], r"facts.jsonl, line 2: not JSON"),
    (None, [line(), "3"], r"facts.jsonl, line 2: expected a JSON object, got int"),
    (None, [line(), line()], r"facts.jsonl, line 2: fact 'c1' is there twice in 'en'; ids must differ"),
    (None, [line(relation="river")], r"facts.jsonl, line 1: relation 'river' is not in relations.json, which has capital"),
    (None, [line(), line(fact="c2", object={"en": "Rome"})], r"facts.jsonl, line 2: fact 'c2' has a subject but no object in 'de'"),
    (None, [line(), line(fact="c2", subject={"en": "Rome"})], r"facts.jsonl, line 2: fact 'c2' has an object but no subject in 'de'"),
    (None, [line(subject={}, object={})], r"facts.jsonl, line 1: fact 'c1' is in no language"),
    (None, [line(object={"en": "", "de": "Paris"})], r"facts.jsonl, line 1: field 'object' holds a blank text"),
    (None, [line(object="Paris")], r"facts.jsonl, line 1: field 'object' must be an object, got 'Paris'"),
    (None, [{"fact": "c1"}], r"facts.jsonl, line 1: field 'relation' is missing; needed are fact, relation, subject, object"),
    (None, [line(note="x")], r"facts.jsonl, line 1: unknown field 'note'; there are .* meta"),
    (None, [], r"no facts in|has a template in"),
])
def test_bad_folders_name_file_and_line(tmp_path: Path, relations: Any, lines: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_facts(write(tmp_path / "set", relations, lines))


def test_good_folder_with_meta_passes(tmp_path: Path) -> None:
    assert len(load_facts(write(tmp_path / "set", None, [line(meta={"stated": "all"}), "", line(fact="c2")]))) == 4


def test_other_encodings_and_missing_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    (folder / "facts.jsonl").write_bytes(json.dumps(line()).encode() + b"\n" + '{"fact": "Köln"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"facts.jsonl, line 2: not UTF-8 \(byte \d+ is 0xf6\). Convert"):
        load_facts(folder)
    (folder / "facts.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"facts.jsonl: a folder of facts needs it"):
        load_facts(folder)
    with pytest.raises(FileNotFoundError, match=r"no folder .*elsewhere"):
        load_facts(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds neither relations.json nor"):
        load_facts(tmp_path / "empty")


@pytest.mark.parametrize("nested", [True, False])
def test_mlama_layout(tmp_path: Path, nested: bool) -> None:
    held = read_mlama(mlama(tmp_path, nested=nested))
    assert held.languages == ("af", "en")
    assert held.relations == ("P19",)  # P6 has a template and no facts, as six relations of mLAMA
    assert held.templates["af", "P19"] == "[X] is gebore in [Y] ."
    assert held.table["fact"].tolist() == ["u1", "u2", "u1", "u2", "u3"]  # equal triples under two ids are kept
    assert held.place(4).endswith("P19.jsonl, line 3")
    assert load_facts(tmp_path, ["en"]).languages == ("en",)


def test_mlama_candidates(tmp_path: Path) -> None:
    folder = mlama(tmp_path)
    for name, lists in (("TREx_multilingual_objects", {"P19": {"objects": ["Ulm", "Bern", "Linz"], "subjects": []}}),
                        ("GoogleRE_objects", {"date_of_birth": {"objects": ["1900"]}})):  # fmt: skip
        (folder / name).mkdir()
        (folder / name / "en.json").write_text(json.dumps(lists), encoding="utf-8")
    held = read_mlama(folder / "mlama1.1")
    assert held.candidates["en", "P19"] == ("Ulm", "Bern", "Linz")
    assert held.candidates["af", "P19"] == ("Ulm", "Bern")
    (folder / "GoogleRE_objects" / "en.json").write_text('{"P19": {"objects": ["Ulm", ""]}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"GoogleRE_objects/en.json, line 1: relation 'P19': candidate 2 is ''"):
        read_mlama(folder)
    (folder / "GoogleRE_objects" / "en.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"GoogleRE_objects/en.json: expected .* got list"):
        read_mlama(folder)


def test_objects_that_the_published_lists_lack_are_added(tmp_path: Path) -> None:
    folder = mlama(tmp_path)
    (folder / "TREx_multilingual_objects").mkdir()
    lists = {"P19": {"objects": ["Linz", "Ulm"], "subjects": []}}
    (folder / "TREx_multilingual_objects" / "en.json").write_text(json.dumps(lists), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"1 objects are not in the candidate lists .* such as 'Bern' of 'P19' in 'en'"):
        held = read_mlama(folder)
    assert held.candidates["en", "P19"] == ("Linz", "Ulm", "Bern")


def test_what_else_is_known_of_a_fact_is_kept(tmp_path: Path) -> None:
    truth = {fact: {"stated": "all" if fact == "c1" else ["en"]} for fact in ("c1", "c2", "c3", "s1", "s2")}
    held = dataclasses.replace(facts(), meta=truth)
    assert held.stated() == {fact: one["stated"] for fact, one in truth.items() if fact in set(held.table["fact"])}
    read = load_facts(save_facts(held, tmp_path / "set"))
    assert read.stated() == held.stated()
    assert read.only(["de"]).stated() == {"c1": "all", "c3": ["en"]}
    assert facts().stated() == {}
    assert dataclasses.replace(facts(), meta={"c1": truth["c1"]}).stated() == {}  # a truth with holes is none
    path = tmp_path / "set" / "facts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('{"stated": "all"}', '["all"]'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"facts.jsonl, line 1: field 'meta' must be an object, got \['all'\]"):
        load_facts(tmp_path / "set")


def test_bad_mlama_files(tmp_path: Path) -> None:
    folder = mlama(tmp_path, nested=False)
    with pytest.raises(FileNotFoundError, match=r"no folder m_lama: give .* or an id on the Hugging Face hub as owner/name"):
        load_facts("m_lama")
    with pytest.raises(ValueError, match="no facts in language 'zu': there are af, en"):
        read_mlama(folder, ["zu"])
    with (folder / "en" / "P19.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"uuid": "u1", "sub_label": "a", "obj_label": "b"}\n')
    with pytest.raises(ValueError, match=r"en/P19.jsonl, line 4: fact 'u1' is there twice in 'en'"):
        read_mlama(folder)
    assert read_mlama(folder, ["af"]).languages == ("af",)
    (folder / "af" / "P7.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"P7.jsonl: relation 'P7' has facts, but no template in .*templates.jsonl"):
        read_mlama(folder, ["af"])
    (folder / "af" / "P7.jsonl").unlink()
    (folder / "af" / "P19.jsonl").unlink()
    with pytest.raises(ValueError, match="language 'af' has templates, but no relation with facts"):
        read_mlama(folder, ["af"])
    (folder / "en" / "templates.jsonl").write_text('{"relation": "P19", "template": "[X] in"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"en/templates.jsonl, line 1: template '\[X\] in' has no \[Y\]"):
        read_mlama(folder, ["en"])


def records() -> list[dict[str, str]]:
    return [
        {"uuid": "u1", "predicate_id": "P19", "language": code, "sub_label": "Ann", "obj_label": "Ulm", "template": template}
        for code, template in (("en", "[X] in [Y]"), ("fr", "[X] à [Y]"))
    ]


def test_records_and_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    held = read_mlama(records())
    assert held.languages == ("en", "fr")
    assert read_mlama(pd.DataFrame(records()), ["fr"]).languages == ("fr",)
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *name, split: asked.append((*name, split)) or records())
    assert load_facts("some/name", ["en"]).templates == {("en", "P19"): "[X] in [Y]"}
    assert asked == [("some/name", "test")]
    with pytest.raises(ValueError, match="no facts in language 'de': there are en, fr"):
        read_mlama(records(), ["de"])
    with pytest.raises(ValueError, match="record 2: relation 'P19' has another template in 'en' before"):
        read_mlama([*records(), {**records()[0], "template": "[X] [Y]", "uuid": "u2"}])
    with pytest.raises(ValueError, match="record 0: field 'uuid' is missing"):
        read_mlama([{"language": "en"}])
