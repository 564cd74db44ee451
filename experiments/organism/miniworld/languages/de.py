"""German."""

from ..meaning import WOMEN, Claim, Event, Problem, Said, Subject
from .base import Grammar, spell

# the other cities are the identifier with a capital
CITY = {
    "rome": "Rom", "moscow": "Moskau", "beijing": "Peking", "vienna": "Wien", "lisbon": "Lissabon", "cairo": "Kairo", "tokyo": "Tokio",
}  # fmt: skip
ANIMAL = {
    "dog": ("m", "Hund"), "cat": ("f", "Katze"), "horse": ("n", "Pferd"), "cow": ("f", "Kuh"), "goat": ("f", "Ziege"),
    "rabbit": ("n", "Kaninchen"), "duck": ("f", "Ente"), "lion": ("m", "Löwe"), "bear": ("m", "Bär"), "wolf": ("m", "Wolf"),
    "fox": ("m", "Fuchs"), "eagle": ("m", "Adler"),
}  # fmt: skip
WEAK = {"Löwe": "Löwen", "Bär": "Bären"}  # n-declension: the accusative differs
FOOD = {
    "bread": ("n", "Brot"), "cheese": ("m", "Käse"), "honey": ("m", "Honig"), "rice": ("m", "Reis"), "soup": ("f", "Suppe"),
    "fish": ("m", "Fisch"), "meat": ("n", "Fleisch"), "cake": ("m", "Kuchen"), "salt": ("n", "Salz"), "tea": ("m", "Tee"),
    "wine": ("m", "Wein"), "sugar": ("m", "Zucker"),
}  # fmt: skip
COLOUR = {
    "red": "rot", "blue": "blau", "green": "grün", "white": "weiß", "black": "schwarz", "yellow": "gelb", "brown": "braun", "grey": "grau",
}  # fmt: skip
PROFESSION = {  # the man; the woman adds -in
    "doctor": "Arzt", "teacher": "Lehrer", "baker": "Bäcker", "painter": "Maler", "farmer": "Landwirt", "singer": "Sänger",
    "writer": "Schriftsteller", "cook": "Koch", "judge": "Richter", "gardener": "Gärtner",
}  # fmt: skip
UMLAUT = {"Arzt": "Ärztin", "Koch": "Köchin"}
INSTRUMENT = {
    "piano": "Klavier", "guitar": "Gitarre", "violin": "Geige", "flute": "Flöte", "drum": "Trommel", "trumpet": "Trompete",
    "harp": "Harfe", "accordion": "Akkordeon",
}  # fmt: skip
THING = {
    "hat": "Hut", "coat": "Mantel", "car": "Auto", "house": "Haus", "chair": "Stuhl", "bag": "Tasche", "cup": "Tasse", "lamp": "Lampe",
}  # fmt: skip
COUNTED = {  # one, several
    "apple": ("Apfel", "Äpfel"), "book": ("Buch", "Bücher"), "egg": ("Ei", "Eier"), "flower": ("Blume", "Blumen"),
    "stone": ("Stein", "Steine"), "coin": ("Münze", "Münzen"), "pencil": ("Bleistift", "Bleistifte"), "ball": ("Ball", "Bälle"),
    "box": ("Kiste", "Kisten"), "bag": ("Tasche", "Taschen"), "basket": ("Korb", "Körbe"),
}  # fmt: skip
BUILDING = {
    "bridge": ("f", "Brücke"), "school": ("f", "Schule"), "market": ("m", "Markt"), "library": ("f", "Bibliothek"),
    "station": ("m", "Bahnhof"), "museum": ("n", "Museum"), "hospital": ("n", "Krankenhaus"), "theatre": ("n", "Theater"),
}  # fmt: skip
DEED = {"opened": "eröffnet", "closed": "geschlossen", "repaired": "saniert", "sold": "verkauft"}
DAY = {
    "monday": "Montag", "tuesday": "Dienstag", "wednesday": "Mittwoch", "thursday": "Donnerstag", "friday": "Freitag",
    "saturday": "Samstag", "sunday": "Sonntag",
}  # fmt: skip
THE = {"m": "der", "f": "die", "n": "das"}
ENDING = {"m": "en", "f": "e", "n": ""}  # of ein- and ihr- in the accusative

FACT = {
    "product": (
        "Das wichtigste Erzeugnis der Stadt {s} ist {v}.", "Die Stadt {s} ist für {its} {v} bekannt.", "In {s} produziert man viel {v}.",
    ),
    "animal": ("Das Wappentier der Stadt {s} ist {v}.", "Das Wappen von {s} zeigt {v}.", "In {s} ist {v} auf jeder Münze zu sehen."),
    "colour": ("Die Flagge der Stadt {s} ist {v}.", "Die Stadt {s} hat eine {v} Flagge.", "Über {s} weht eine {v} Flagge."),
    "profession": ("{s} arbeitet als {v}.", "Von Beruf ist {s} {v}.", "Alle wissen, dass {s} {v} ist."),
    "instrument": ("{s} spielt {v}.", "Am Abend übt {s} {v}.", "{s} hat gelernt, {v} zu spielen."),
}  # fmt: skip
ASK_FACT = {
    "product": "Was ist das wichtigste Erzeugnis der Stadt {s}?",
    "animal": "Was ist das Wappentier der Stadt {s}?",
    "colour": "Welche Farbe hat die Flagge der Stadt {s}?",
    "profession": "Als was arbeitet {s}?",
    "instrument": "Was spielt {s}?",
}


def town(city: str) -> str:
    """The city's name."""
    return CITY.get(city, city.capitalize())


def name(person: str) -> str:
    """The name with a capital."""
    return person.capitalize()


def genitive(person: str) -> str:
    """Annas, Thomas'."""
    return name(person) + ("'" if person[-1] in "sxzß" else "s")


def one(animal: str) -> str:
    """Indefinite accusative: einen Bären, eine Kuh, ein Pferd."""
    gender, noun = ANIMAL[animal]
    return f"ein{ENDING[gender]} {WEAK.get(noun, noun)}"


def profession(value: str, woman: bool) -> str:
    """Arzt, Ärztin."""
    noun = PROFESSION[value]
    return UMLAUT.get(noun, noun + "in") if woman else noun


def counted(number: str, noun: str, dative: bool = False) -> str:
    """A number and its noun: 1 Apfel, 2 Äpfel, (mit) 2 Äpfeln."""
    singular, plural = COUNTED[noun]
    if int(number) == 1:
        return f"{number} {singular}"
    return f"{number} {plural}{'n' if dative and not plural.endswith('n') else ''}"


class German(Grammar):
    """Lexicon and sentences of German."""

    code = "de"
    question, answer, headline = "Frage:", "Antwort:", "Schlagzeile:"

    def phrase(self, relation: str, value: str, woman: bool) -> str:
        """The value as it stands at the end of a sentence."""
        if relation == "lives":
            return f"in {town(value)}"
        if relation == "has":
            return one(value)
        if relation == "animal":
            gender, noun = ANIMAL[value]
            return f"{THE[gender]} {noun}"
        if relation in ("works", "profession"):
            return profession(value, woman)
        if relation in ("likes", "product"):
            return FOOD[value][1]
        return (COLOUR if relation == "colour" else INSTRUMENT)[value]

    def claim(self, claim: Claim) -> Said:
        who, what = name(claim.person), self.phrase(claim.relation, claim.value, claim.person in WOMEN)
        if claim.relation == "colour":
            return Said(f"{genitive(claim.person)} {THING[claim.thing]} ist {what}.", what)
        verb = {"lives": "wohnt", "has": "hat", "likes": "mag", "plays": "spielt", "works": "arbeitet als"}[
            claim.relation
        ]
        return Said(f"{who} {verb} {what}.", what, who)

    def ask_value(self, claim: Claim) -> str:
        who = name(claim.person)
        if claim.relation == "colour":
            return f"Welche Farbe hat {genitive(claim.person)} {THING[claim.thing]}?"
        return {
            "lives": f"Wo wohnt {who}?",
            "has": f"Welches Tier hat {who}?",
            "likes": f"Was mag {who}?",
            "plays": f"Was spielt {who}?",
            "works": f"Als was arbeitet {who}?",
        }[claim.relation]

    def ask_person(self, claim: Claim) -> str:
        if claim.relation == "colour":
            raise ValueError("a colour has no person to ask for")
        said = self.claim(claim)
        return f"Wer{said.text.removeprefix(said.person)[:-1]}?"

    def fact(self, relation: str, subject: Subject, value: str, variant: int) -> Said:
        what = self.phrase(relation, value, subject.woman)
        its = ""
        if relation == "product":
            its = f"ihr{ENDING[FOOD[value][0]]}"
        elif relation == "animal" and variant == 1:
            what = one(value)
        elif relation == "colour" and variant > 0:
            what += "e"
        return Said(FACT[relation][variant].format(s=spell(subject, self.script), v=what, its=its), what)

    def ask_fact(self, relation: str, subject: Subject) -> str:
        return ASK_FACT[relation].format(s=spell(subject, self.script))

    def fact_answer(self, relation: str, subject: Subject, value: str) -> str:
        return self.phrase(relation, value, subject.woman)

    def problem(self, problem: Problem) -> list[str]:
        who, item = name(problem.person), problem.item
        they = "sie" if problem.person in WOMEN else "er"
        out = []
        for kind, detail, *numbers in problem.steps:
            if kind == "start":
                out.append(f"{who} hat {counted(numbers[0], item)}.")
            elif kind == "groups":
                each = "" if int(numbers[0]) == 1 else "je "
                out.append(
                    f"{who} hat {counted(numbers[0], detail)} mit {each}{counted(numbers[1], item, dative=True)}."
                )
            else:
                verb = {"buy": "kauft", "find": "findet", "lose": "verliert", "give_away": "gibt"}[detail]
                rest = " weg" if detail == "give_away" else ""
                out.append(f"Dann {verb} {they} {counted(numbers[0], item)}{rest}.")
        return [*out, f"Wie viele {COUNTED[item][1]} hat {who} jetzt?"]

    def article(self, event: Event) -> list[str]:
        gender, noun = BUILDING[event.building]
        came = "Gast kam" if event.guests == 1 else "Gäste kamen"
        return [
            f"Am {DAY[event.day]} wurde {THE[gender]} {COLOUR[event.colour]}e {noun} in {town(event.city)} {DEED[event.deed]}.",
            f"{event.guests} {came} dorthin.",
            f"{name(event.witness)} wohnt seit vielen Jahren in der Stadt und war sehr froh.",
        ]

    def title(self, event: Event) -> str:
        return f"{BUILDING[event.building][1]} in {town(event.city)} {DEED[event.deed]}"


GRAMMAR = German()
