"""French and Spanish sentences: spans, injectivity, and agreement against tables written here, not taken from the lexicon."""

import re
from itertools import product

import pytest
from miniworld.languages.es import GRAMMAR as ES
from miniworld.languages.fr import GRAMMAR as FR
from miniworld.meaning import (
    BUILDINGS,
    CITIES,
    COLOURS,
    CONTAINERS,
    COUNTABLES,
    DAYS,
    DEEDS,
    FACTS,
    NAMES,
    RELATIONS,
    THINGS,
    Claim,
    Event,
    Problem,
    Subject,
)  # fmt: skip

BOTH = pytest.mark.parametrize("grammar", [FR, ES], ids=["fr", "es"])
CLAIMS = [
    Claim(relation, person, value, thing)
    for relation, values in RELATIONS.items()
    for person, value, thing in product(NAMES, values, THINGS if relation == "colour" else (None,))
]
SUBJECTS = {"town": [("vel", "mo"), ("ho", "sen")], "person": [("ka", "ra"), ("ker", "dos")]}
FACT_CASES = [
    (relation, Subject(kind, index, syllables), value)
    for relation, (kind, values) in FACTS.items()
    for index, syllables in enumerate(SUBJECTS[kind])
    for value in values
]
EVENTS = [
    Event(building, deed, city, day, 120, "anna", colour)
    for building, deed, city, day, colour in product(BUILDINGS, DEEDS, CITIES, DAYS, COLOURS)
]
# the gender of every noun, as a dictionary gives it
FEMININE = {
    "fr": "vache chèvre soupe viande guitare flûte trompette harpe voiture maison chaise tasse lampe boîte pomme fleur pierre "
    "pièce balle école bibliothèque gare ville",
    "es": "vaca cabra miel sopa carne sal guitarra flauta trompeta casa silla bolsa taza lámpara caja cesta manzana flor "
    "piedra moneda pelota escuela biblioteca estación bandera ciudad",
}
MASCULINE = {
    "fr": "chien chat cheval lapin canard lion loup renard pain fromage miel riz poisson gâteau sel thé vin sucre piano violon "
    "tambour chapeau manteau sac panier livre crayon pont marché musée théâtre drapeau blason produit métier",
    "es": "perro gato caballo conejo pato león oso lobo zorro pan queso arroz pescado pastel té vino azúcar piano violín "
    "tambor acordeón sombrero abrigo coche libro huevo lápiz puente mercado museo hospital teatro escudo producto animal "
    "águila arpa",  # el águila, un águila: the articles of a masculine
}
ARTICLES = {
    "fr": (("le", "un", "du", "son"), ("la", "une", "sa")),
    "es": (("el", "un", "mucho"), ("la", "una", "mucha")),
}


def faults(code: str, text: str) -> list[str]:
    """Articles of the wrong gender, and vowels not elided."""
    found = []
    for article, noun in re.findall(r"(?=\b(\w+) (\w+))", text.lower()):
        for forms, nouns in zip(ARTICLES[code], (FEMININE[code], MASCULINE[code]), strict=True):
            if article in forms and noun in nouns.split():
                found.append(f"{article} {noun}")
    if code == "fr":
        found += re.findall(r"\b(?:le|la|de|que|du) (?:[aeiouéœ]|hôp)\w+", text.lower())
        found += re.findall(r"\bà le\b|\bde le\b", text.lower())
    return found


def sentences(grammar) -> list[str]:
    """Everything but the problems."""
    out = [said for c in CLAIMS for said in (grammar.claim(c).text, grammar.ask_value(c))]
    out += [grammar.ask_person(c) for c in CLAIMS if c.relation != "colour"]
    out += [grammar.fact(*case, variant).text for case in FACT_CASES for variant in range(3)]
    out += [grammar.ask_fact(relation, subject) for relation, subject, _ in FACT_CASES]
    return out + [sentence for event in EVENTS[::7] for sentence in grammar.article(event)]


@BOTH
def test_spans_answer_and_claims_are_distinct(grammar):
    for c in CLAIMS:
        said = grammar.claim(c)
        assert said.value in said.text
        assert said.person in said.text
        assert said.value not in grammar.ask_value(c)
        assert (said.person == "") == (c.relation == "colour")
        if c.relation != "colour":
            assert said.value in grammar.ask_person(c)
            assert said.person not in grammar.ask_person(c)
    assert len({grammar.claim(c).text for c in CLAIMS}) == len(CLAIMS)
    with pytest.raises(ValueError, match="colour"):
        grammar.ask_person(Claim("colour", "anna", "red", "hat"))


@BOTH
def test_facts_end_in_their_value(grammar):
    texts = set()
    for relation, subject, value in FACT_CASES:
        prefix, answer = grammar.cloze(relation, subject, value)
        assert f"{prefix} {answer}." == grammar.fact(relation, subject, value, 0).text
        assert answer == grammar.fact_answer(relation, subject, value)
        for variant in range(3):
            said = grammar.fact(relation, subject, value, variant)
            assert said.value in said.text
            texts.add(said.text)
    assert len(texts) == 3 * len(FACT_CASES)


@BOTH
def test_every_sentence_is_whole_and_its_articles_agree(grammar):
    for text in sentences(grammar):
        end = r"[^ ]( \?|\.)" if grammar.code == "fr" else r"[^ ][.?]"  # French has a space before a question mark
        assert re.fullmatch(rf"(¿?[A-ZÀÉ]|\d).*{end}", text), text
        assert text.count("¿") == (text.count("?") if grammar is ES else 0)
        assert faults(grammar.code, text) == []


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("fr", "Anna a une chien."),
        ("fr", "Le école est là."),
        ("fr", "Il vient de le Caire."),
        ("es", "La perro."),
        ("es", "Una águila."),
    ],
)
def test_the_checker_finds_a_wrong_article(code, text):
    assert faults(code, text)


@BOTH
def test_news_and_titles_are_distinct(grammar):
    assert len({tuple(grammar.article(event)) for event in EVENTS}) == len(EVENTS)
    titles = {(e.building, e.city, e.deed): grammar.title(e) for e in EVENTS}
    assert len(set(titles.values())) == len(titles)
    assert all(title[0].isupper() and title[-1].isalpha() for title in titles.values())


@BOTH
def test_problems_are_distinct(grammar):
    details = [("start", "", "7"), *(("groups", c, "3", "4") for c in CONTAINERS)]
    turns = [
        (kind, verb, "2") for kind, verb in (("gain", "buy"), ("gain", "find"), ("lose", "lose"), ("lose", "give_away"))
    ]
    problems = [Problem(p, i, (d, t)) for p, i, d, t in product(NAMES, COUNTABLES, details, turns)]
    assert len({tuple(grammar.problem(p)) for p in problems}) == len(problems)


PAIRS = (("start", "", "1"), ("lose", "give_away", "1"))
GROUPS = (("groups", "basket", "3", "4"), ("gain", "find", "12"))
FRENCH = [
    (FR.claim(Claim("colour", "anna", "white", "house")).text, "La maison d'Anna est blanche."),
    (FR.claim(Claim("plays", "hassan", "accordion")).text, "Hassan joue de l'accordéon."),
    (FR.claim(Claim("plays", "eva", "harp")).text, "Eva joue de la harpe."),
    (FR.claim(Claim("plays", "eva", "piano")).text, "Eva joue du piano."),
    (FR.claim(Claim("lives", "adam", "cairo")).text, "Adam habite au Caire."),
    (FR.claim(Claim("works", "anna", "singer")).text, "Anna travaille comme chanteuse."),
    (FR.ask_value(Claim("works", "oscar", "cook")), "Quel est le métier d'Oscar ?"),
    (FR.ask_value(Claim("works", "hassan", "cook")), "Quel est le métier de Hassan ?"),
    (FR.fact("animal", Subject("town", 0, ("vel", "mo")), "eagle", 0).text, "L'animal de la ville de Velmo est l'aigle."),
    (FR.problem(Problem("anna", "egg", PAIRS)), ["Anna a 1 œuf.", "Ensuite, elle donne 1 œuf.", "Combien d'œufs Anna a-t-elle maintenant ?"]),
    (FR.problem(Problem("adam", "apple", GROUPS))[0], "Adam a 3 paniers contenant chacun 4 pommes."),
    (FR.article(Event("hospital", "sold", "cairo", "monday", 9, "paul", "green"))[0], "Lundi, l'hôpital vert du Caire a été vendu."),
    (FR.title(Event("school", "closed", "cairo", "monday", 9, "paul", "green")), "École fermée au Caire"),
]  # fmt: skip
SPANISH = [
    (ES.claim(Claim("colour", "anna", "white", "house")).text, "La casa de Anna es blanca."),
    (ES.claim(Claim("has", "paul", "eagle")).text, "Paul tiene un águila."),
    (ES.claim(Claim("plays", "eva", "harp")).text, "Eva toca el arpa."),
    (ES.claim(Claim("likes", "leon", "honey")).text, "A Leon le gusta la miel."),
    (ES.ask_person(Claim("likes", "leon", "honey")), "¿A quién le gusta la miel?"),
    (ES.claim(Claim("lives", "adam", "cairo")).text, "Adam vive en El Cairo."),
    (ES.claim(Claim("works", "anna", "judge")).text, "Anna trabaja como jueza."),
    (ES.fact("colour", Subject("town", 0, ("vel", "mo")), "red", 1).text, "La ciudad de Velmo tiene una bandera roja."),
    (ES.fact("product", Subject("town", 0, ("vel", "mo")), "salt", 2).text, "En Velmo se produce mucha sal."),
    (ES.problem(Problem("anna", "pencil", PAIRS)), ["Anna tiene 1 lápiz.", "Luego regala 1 lápiz.", "¿Cuántos lápices tiene Anna ahora?"]),
    (ES.problem(Problem("adam", "flower", GROUPS))[0], "Adam tiene 3 cestas con 4 flores cada una."),
    (ES.article(Event("station", "sold", "cairo", "monday", 9, "eva", "black"))[0], "El lunes, la estación negra de El Cairo fue vendida."),
    (ES.title(Event("school", "closed", "paris", "monday", 9, "paul", "green")), "Escuela cerrada en París"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), FRENCH + SPANISH)
def test_sentences_written_by_hand(said, expected):
    assert said == expected
