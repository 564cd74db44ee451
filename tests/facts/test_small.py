"""The embedded fact set: its shape, its scripts, its consistency, and the numbers its README gives. Every check has a broken copy it must refuse."""

import copy
import functools
import json
import re
import unicodedata
from collections import Counter, defaultdict
from importlib.resources import files
from typing import Any

import pytest

LANGUAGES = ("en", "de", "fr", "es", "ru", "zh")
LATIN = ("en", "de", "fr", "es")
SCRIPTS = {**dict.fromkeys(LATIN, "LATIN"), "ru": "CYRILLIC", "zh": "CJK UNIFIED"}
STOPS = {**dict.fromkeys(LANGUAGES, "."), "zh": "。"}
CONTAINED: frozenset[tuple[str, str]] = frozenset()  # (fact, language) whose subject spells out its object: none so far

Fact = dict[str, Any]
Relations = dict[str, Any]


@functools.cache
def _texts() -> tuple[str, str, str]:
    folder = files("mwork_lens") / "data" / "facts" / "small"
    relations, facts, readme = (
        (folder / name).read_text("utf-8") for name in ("relations.json", "facts.jsonl", "README.md")
    )
    return relations, facts, readme


@pytest.fixture
def relations() -> Relations:
    return json.loads(_texts()[0])


@pytest.fixture
def facts() -> list[Fact]:
    return [json.loads(line) for line in _texts()[1].splitlines()]


def folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def bad_templates(relations: Relations) -> list[str]:
    """[X] and [Y] once each, [X] first, [Y] last before the full stop, in every language."""
    bad = []
    for relation, entry in relations.items():
        if set(entry) != {"templates"} or tuple(entry["templates"]) != LANGUAGES:
            bad.append(relation)
            continue
        for language, text in entry["templates"].items():
            once = text.count("[X]") == text.count("[Y]") == 1 and len(re.findall(r"[\[\]]", text)) == 4
            if not once or text.index("[X]") > text.index("[Y]") or not text.endswith("[Y]" + STOPS[language]):
                bad.append(f"{relation}/{language}")
    return bad


def bad_shapes(facts: list[Fact]) -> list[str]:
    """The four keys, a subject and an object in all six languages, clean strings."""
    bad = []
    for fact in facts:
        labels = [fact.get(role, {}) for role in ("subject", "object")]
        whole = list(fact) == ["fact", "relation", "subject", "object"] and all(tuple(x) == LANGUAGES for x in labels)
        texts = [text for x in labels for text in x.values()]
        clean = all(
            t and t == " ".join(t.split()) and unicodedata.is_normalized("NFC", t) and "[" not in t for t in texts
        )
        if not (whole and clean):
            bad.append(fact["fact"])
    return bad


def bad_scripts(facts: list[Fact]) -> list[str]:
    """Labels with a letter of another script, or with no letter at all, or with signs that are no part of a name."""
    bad = []
    for fact in facts:
        for language, script in SCRIPTS.items():
            for role in ("subject", "object"):
                text = fact[role][language]
                letters = [c for c in text if c.isalpha()]
                rest = {c for c in text if not c.isalpha()}
                allowed = set("·") if language == "zh" else set(" -'")
                if (
                    not letters
                    or not rest <= allowed
                    or not all(unicodedata.name(c).startswith(script) for c in letters)
                ):
                    bad.append(f"{fact['fact']}/{language}")
    return bad


def ambiguous(facts: list[Fact], *roles: str) -> list[tuple[str, str, str]]:
    """(direction, language, label) of English labels with two translations, and of translations of two English labels."""
    there, back = defaultdict(set), defaultdict(set)
    for fact in facts:
        for role in roles:
            for language in LANGUAGES[1:]:
                english, other = fact[role]["en"], fact[role][language]
                there[language, english].add(other)
                back[language, other].add(english)
    return [("there", *key) for key, v in there.items() if len(v) > 1] + [
        ("back", *key) for key, v in back.items() if len(v) > 1
    ]


def majority(facts: list[Fact], relation: str, language: str = "en") -> float:
    """Share of the commonest object: what a guesser that knows only the relation gets right."""
    counts = Counter(fact["object"][language] for fact in facts if fact["relation"] == relation)
    return max(counts.values()) / sum(counts.values())


def contained(facts: list[Fact]) -> set[tuple[str, str]]:
    """(fact, language) whose object can be copied out of the subject, case ignored."""
    return {
        (fact["fact"], language)
        for fact in facts
        for language in LANGUAGES
        if folded(fact["object"][language]) in folded(fact["subject"][language])
    }


def duplicates(facts: list[Fact]) -> list[Any]:
    """Ids used twice, and subjects asked twice within a relation and language."""
    counts: Counter[Any] = Counter(fact["fact"] for fact in facts)
    counts.update((f["relation"], language, folded(f["subject"][language])) for f in facts for language in LANGUAGES)
    return [key for key, n in counts.items() if n > 1]


def test_counts(relations: Relations, facts: list[Fact]) -> None:
    assert len(relations) == 10
    assert Counter(fact["relation"] for fact in facts) == dict.fromkeys(relations, 40)
    assert [fact["relation"] for fact in facts] == [relation for relation in relations for _ in range(40)]


def test_templates(relations: Relations) -> None:
    assert bad_templates(relations) == []
    texts = [text for entry in relations.values() for text in entry["templates"].values()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    "text", ["[X] is.", "[X] is [Y]", "[Y] of [X].", "[X] and [X]: [Y].", "[X] is [Y] here.", "[X] [Z] [Y]."]
)
def test_broken_templates_are_found(relations: Relations, text: str) -> None:
    broken = copy.deepcopy(relations)
    broken["capital"]["templates"]["fr"] = text
    assert bad_templates(broken) == ["capital/fr"]
    del broken["capital"]["templates"]["fr"]
    assert bad_templates(broken) == ["capital"]


def test_every_fact_in_every_language(facts: list[Fact]) -> None:
    assert bad_shapes(facts) == []


def test_missing_and_unclean_labels_are_found(facts: list[Fact]) -> None:
    del facts[3]["object"]["zh"]
    facts[5]["subject"]["de"] += " "
    facts[7]["object"]["es"] = ""
    facts[9]["subject"]["fr"] = unicodedata.normalize("NFD", "Grèce")
    assert bad_shapes(facts) == [facts[i]["fact"] for i in (3, 5, 7, 9)]


def test_scripts(facts: list[Fact]) -> None:
    assert bad_scripts(facts) == []


def test_foreign_letters_are_found(facts: list[Fact]) -> None:
    facts[0]["object"]["ru"] = "Пaриж"  # a Latin a
    facts[1]["object"]["zh"] = "Berlin"
    facts[2]["subject"]["de"] = "Италия"
    facts[3]["subject"]["en"] = "Spain (country)"
    assert bad_scripts(facts) == [f"{facts[i]['fact']}/{x}" for i, x in enumerate(("ru", "zh", "de", "en"))]


def test_ids_and_subjects_are_unique(facts: list[Fact]) -> None:
    assert duplicates(facts) == []
    assert all(
        re.fullmatch(r"[a-z_]+-[a-z0-9-]+", f["fact"]) and f["fact"].startswith(f["relation"] + "-") for f in facts
    )


def test_repeated_facts_are_found(facts: list[Fact]) -> None:
    facts[1]["fact"] = facts[0]["fact"]
    facts[6]["subject"]["ru"] = facts[5]["subject"]["ru"].upper()
    assert duplicates(facts) == [facts[0]["fact"], ("capital", "ru", folded(facts[5]["subject"]["ru"]))]


def test_one_label_per_thing_across_relations(facts: list[Fact]) -> None:
    assert ambiguous(facts, "object") == []
    assert ambiguous(facts, "subject") == []
    assert ambiguous(facts, "subject", "object") == []


def test_two_labels_for_a_thing_are_found(facts: list[Fact]) -> None:
    cities = [fact for fact in facts if fact["object"]["en"] == "Beijing"]
    assert {fact["relation"] for fact in cities} == {"capital", "landmark_city"}
    cities[0]["object"]["es"] = "Beijing"
    cities[0]["object"]["ru"] = "Париж"
    found = ambiguous(facts, "object")
    assert sorted(found) == [("back", "ru", "Париж"), ("there", "es", "Beijing"), ("there", "ru", "Beijing")]


def test_no_object_dominates(relations: Relations, facts: list[Fact]) -> None:
    assert all(majority(facts, relation, language) < 0.3 for relation in relations for language in LANGUAGES)
    for fact in facts[:12]:
        fact["object"] = facts[0]["object"]
    assert majority(facts, "capital") == 0.3


def test_no_object_stands_in_its_subject(facts: list[Fact]) -> None:
    assert contained(facts) == CONTAINED


def test_an_object_in_its_subject_is_found(facts: list[Fact]) -> None:
    facts[0]["subject"]["en"] = "Greater PARIS"
    facts[1]["subject"]["zh"] = "柏林州"
    assert contained(facts) == {(facts[0]["fact"], "en"), (facts[1]["fact"], "zh")}


def _row(facts: list[Fact], relation: str) -> list[str]:
    """A line of the README's table, counted from the data."""
    objects = [fact["object"] for fact in facts if fact["relation"] == relation]
    subjects = [fact["subject"] for fact in facts if fact["relation"] == relation]
    spelled = [[len({folded(labels[x]) for x in LATIN}) for labels in group] for group in (objects, subjects)]
    alike = [sum(folded(o["en"]) == folded(o[x]) for o in objects) for x in LATIN[1:]]
    top = Counter(o["en"] for o in objects).most_common(1)[0][1]
    same = [sum(n == 1 for n in group) for group in spelled]
    return [
        f"`{relation}`",
        str(len({o["en"] for o in objects})),
        str(top),
        " / ".join(map(str, alike)),
        *map(str, same),
    ]


def test_readme_gives_the_counted_numbers(relations: Relations, facts: list[Fact]) -> None:
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in _texts()[2].splitlines()
        if line.startswith("| `")
    ]
    assert [line[:1] + line[2:] for line in lines] == [_row(facts, relation) for relation in relations]
    same = sum(len({folded(fact["object"][x]) for x in LATIN}) == 1 for fact in facts)
    assert f"{same} of 400" in _texts()[2]
    facts[0]["object"]["en"] = "Lutetia"
    assert _row(facts, "capital") != lines[0][:1] + lines[0][2:]
