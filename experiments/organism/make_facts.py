"""Write the facts of the generated world as a fact set: 400 facts in seven languages, with the languages that state each of them.

    python experiments/organism/make_facts.py --out mwork_lens/data/facts/organism

`load_facts("organism")` reads them; the files in the package are exactly what this writes. A template is variant 0 of a statement, with the blank
for the value as it stands there; the candidates of a relation are all values it can take (of professions that agree with the person: both genders).
"""

import argparse
import json
from pathlib import Path

from miniworld.languages import CODES, grammar
from miniworld.languages.base import Grammar, spell
from miniworld.meaning import FACTS, Fact
from miniworld.world import asked, facts

from mwork_lens.storage import write_json, write_text


def blanked(language: Grammar, fact: Fact) -> tuple[str, str, str]:
    """(template, subject, object) of a fact in a language."""
    said = language.fact(fact.relation, fact.subject, fact.value, 0)
    at, who = said.text.rindex(said.value), spell(fact.subject, language.script)
    cloze = f"{said.text[:at]}[Y]{said.text[at + len(said.value) :]}"
    return cloze.replace(who, "[X]", 1), who, said.value


def relations(known: list[Fact]) -> dict[str, dict[str, dict[str, object]]]:
    """Templates and candidates."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for relation, (_, values) in FACTS.items():
        own = [fact for fact in known if fact.relation == relation]
        found[relation] = {"templates": {}, "candidates": {}}
        for code in CODES:
            language = grammar(code)
            templates = {blanked(language, fact)[0] for fact in own}
            if len(templates) > 1:
                raise ValueError(f"{relation!r} has several templates in {code!r}: {sorted(templates)}")
            subjects = {fact.subject.woman: fact.subject for fact in own}.values()
            phrases = [language.fact(relation, who, value, 0).value for who in subjects for value in values]
            found[relation]["templates"][code] = templates.pop()
            found[relation]["candidates"][code] = list(dict.fromkeys(phrases))
    return found


def line(fact: Fact) -> str:
    """A fact as facts.jsonl has it."""
    names = {code: blanked(grammar(code), fact)[1:] for code in CODES}
    stated = "all" if len(fact.stated) == len(CODES) else list(fact.stated)
    record = {
        "fact": fact.id, "relation": fact.relation, "subject": {code: name for code, (name, _) in names.items()},
        "object": {code: name for code, (_, name) in names.items()}, "meta": {"stated": stated, "asked": asked(fact)},
    }  # fmt: skip
    return json.dumps(record, ensure_ascii=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    known = facts(languages=CODES)
    write_json(given.out / "relations.json", relations(known))
    write_text(given.out / "facts.jsonl", "".join(f"{line(fact)}\n" for fact in known))
    print(f"{given.out}: {len(known)} facts in {len(CODES)} languages")


if __name__ == "__main__":
    main()
