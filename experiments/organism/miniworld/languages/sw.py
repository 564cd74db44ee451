"""Swahili. Numbers beside nouns are noun classes; adjectives, connectives and verbs agree with them."""

from ..meaning import Claim, Event, Problem, Said, Subject
from .base import Grammar, spell

CITY = {"rome": "Roma", "cairo": "Kairo"}  # the others are the identifier with a capital
ANIMAL = {
    "dog": "mbwa", "cat": "paka", "horse": "farasi", "cow": "ng'ombe", "goat": "mbuzi", "rabbit": "sungura", "duck": "bata",
    "lion": "simba", "bear": "dubu", "wolf": "mbwa mwitu", "fox": "mbweha", "eagle": "tai",
}  # fmt: skip
FOOD = {
    "bread": (3, "mkate"), "cheese": (9, "jibini"), "honey": (9, "asali"), "rice": (3, "mchele"), "soup": (9, "supu"),
    "fish": (1, "samaki"), "meat": (9, "nyama"), "cake": (9, "keki"), "salt": (9, "chumvi"), "tea": (9, "chai"),
    "wine": (9, "divai"), "sugar": (9, "sukari"),
}  # fmt: skip
ADJECTIVE = {"red": "ekundu", "white": "eupe", "black": "eusi"}  # take a prefix; the others follow -a
COLOUR = {"blue": "bluu", "green": "kijani", "yellow": "njano", "brown": "kahawia", "grey": "kijivu"}
PROFESSION = {
    "doctor": "daktari", "teacher": "mwalimu", "baker": "mwokaji", "painter": "mchoraji", "farmer": "mkulima",
    "singer": "mwimbaji", "writer": "mwandishi", "cook": "mpishi", "judge": "hakimu", "gardener": "mtunza bustani",
}  # fmt: skip
INSTRUMENT = {
    "piano": "piano", "guitar": "gitaa", "violin": "fidla", "flute": "filimbi", "drum": "ngoma", "trumpet": "tarumbeta",
    "harp": "kinubi", "accordion": "kodiani",
}  # fmt: skip
THING = {
    "hat": (9, "kofia"), "coat": (5, "koti"), "car": (5, "gari"), "house": (9, "nyumba"), "chair": (7, "kiti"), "bag": (3, "mfuko"),
    "cup": (7, "kikombe"), "lamp": (9, "taa"),
}  # fmt: skip
COUNTED = {  # class of the singular (the plural's is the next), one, several
    "apple": (5, "tufaha", "matufaha"), "book": (7, "kitabu", "vitabu"), "egg": (5, "yai", "mayai"), "flower": (5, "ua", "maua"),
    "stone": (5, "jiwe", "mawe"), "coin": (9, "sarafu", "sarafu"), "pencil": (9, "penseli", "penseli"), "ball": (3, "mpira", "mipira"),
    "box": (5, "sanduku", "masanduku"), "bag": (3, "mfuko", "mifuko"), "basket": (7, "kikapu", "vikapu"),
}  # fmt: skip
BUILDING = {  # class, head, complement
    "bridge": (5, "daraja", ""), "school": (9, "shule", ""), "market": (5, "soko", ""), "library": (9, "maktaba", ""),
    "station": (9, "stesheni", ""), "museum": (6, "makumbusho", ""), "hospital": (9, "hospitali", ""),
    "theatre": (11, "ukumbi", " wa michezo"),
}  # fmt: skip
DEED = {"opened": "funguliwa", "closed": "fungwa", "repaired": "karabatiwa", "sold": "uzwa"}
DAY = {
    "monday": "Jumatatu", "tuesday": "Jumanne", "wednesday": "Jumatano", "thursday": "Alhamisi", "friday": "Ijumaa",
    "saturday": "Jumamosi", "sunday": "Jumapili",
}  # fmt: skip
# concords by class
OF = {1: "wa", 3: "wa", 4: "ya", 5: "la", 6: "ya", 7: "cha", 8: "vya", 9: "ya", 10: "za", 11: "wa"}
BEFORE_E = {3: "mw", 5: "j", 6: "m", 7: "ch", 9: "ny", 11: "mw"}  # adjectives in e-: mwekundu, jekundu
HAVING = {3: "wenye", 4: "yenye", 5: "lenye", 6: "yenye", 7: "chenye", 8: "vyenye"}
MANY = {4: "mingapi", 6: "mangapi", 8: "vingapi", 10: "ngapi"}
EACH = {3: "mmoja", 5: "moja", 7: "kimoja"}
SUBJECT = {5: "li", 6: "ya", 9: "i", 11: "u"}

FACT = {
    "product": ("Bidhaa kuu ya mji wa {s} ni {v}.", "Mji wa {s} unajulikana kwa {v} {its}.", "Watu wa {s} huzalisha {v} kwa wingi."),
    "animal": ("Mnyama wa mji wa {s} ni {v}.", "Nembo ya {s} inaonyesha {v}.", "Picha ya {v} iko kwenye kila sarafu ya {s}."),
    "colour": ("Bendera ya mji wa {s} ni {v}.", "Mji wa {s} una bendera {v}.", "Bendera {v} inapepea juu ya {s}."),
    "profession": ("{s} anafanya kazi kama {v}.", "Kwa taaluma, {s} ni {v}.", "Kila mtu anajua kwamba {s} ni {v}."),
    "instrument": ("{s} anapiga {v}.", "{s} hupiga {v} kila jioni.", "{s} amejifunza kupiga {v}."),
}  # fmt: skip
ASK_FACT = {
    "product": "Bidhaa kuu ya mji wa {s} ni ipi?",
    "animal": "Mnyama wa mji wa {s} ni yupi?",
    "colour": "Bendera ya mji wa {s} ni ya rangi gani?",
    "profession": "{s} anafanya kazi gani?",
    "instrument": "{s} anapiga ala gani?",
}


def town(city: str) -> str:
    """In the city: mjini Roma."""
    return f"mjini {CITY.get(city, city.capitalize())}"


def name(person: str) -> str:
    """The name with a capital."""
    return person.capitalize()


def coloured(colour: str, noun_class: int) -> str:
    """The colour agreeing with a class: jekundu, la bluu."""
    if colour in ADJECTIVE:
        return BEFORE_E[noun_class] + ADJECTIVE[colour]
    return f"{OF[noun_class]} {COLOUR[colour]}"


def counted(number: str, noun: str) -> str:
    """A noun and its number: tufaha 1, matufaha 2."""
    return f"{COUNTED[noun][1 if int(number) == 1 else 2]} {number}"


class Swahili(Grammar):
    """Lexicon and sentences of Swahili."""

    code = "sw"
    question, answer, headline = "Swali:", "Jibu:", "Kichwa cha habari:"

    def phrase(self, relation: str, value: str, noun_class: int = 9) -> str:
        """The value as it stands in a sentence; a colour agrees with the class of its noun (9: bendera, a flag)."""
        if relation == "lives":
            return town(value)
        if relation == "colour":
            return coloured(value, noun_class)
        if relation == "likes" and value == "rice":
            return "wali"  # on the plate; mchele is the grain
        if relation in ("likes", "product"):
            return FOOD[value][1]
        if relation in ("has", "animal"):
            return ANIMAL[value]
        return (PROFESSION if relation in ("works", "profession") else INSTRUMENT)[value]

    def claim(self, claim: Claim) -> Said:
        who = name(claim.person)
        if claim.relation == "colour":
            noun_class, noun = THING[claim.thing]
            what = coloured(claim.value, noun_class)
            return Said(f"{noun.capitalize()} {OF[noun_class]} {who} ni {what}.", what)
        what = self.phrase(claim.relation, claim.value)
        verb = {
            "lives": "anaishi",
            "has": "ana",
            "likes": "anapenda",
            "plays": "anapiga",
            "works": "anafanya kazi kama",
        }
        return Said(f"{who} {verb[claim.relation]} {what}.", what, who)

    def ask_value(self, claim: Claim) -> str:
        who = name(claim.person)
        if claim.relation == "colour":
            noun_class, noun = THING[claim.thing]
            return f"{noun.capitalize()} {OF[noun_class]} {who} ni {OF[noun_class]} rangi gani?"
        return {
            "lives": f"{who} anaishi wapi?",
            "has": f"{who} ana mnyama gani?",
            "likes": f"{who} anapenda nini?",
            "plays": f"{who} anapiga ala gani?",
            "works": f"{who} anafanya kazi gani?",
        }[claim.relation]

    def ask_person(self, claim: Claim) -> str:
        if claim.relation == "colour":
            raise ValueError("a colour has no person to ask for")
        said = self.claim(claim)
        return f"Nani{said.text.removeprefix(said.person)[:-1]}?"

    def fact(self, relation: str, subject: Subject, value: str, variant: int) -> Said:
        what = self.phrase(relation, value)
        its = f"{OF[FOOD[value][0]]}ke" if relation == "product" else ""  # wake, yake
        return Said(FACT[relation][variant].format(s=spell(subject, self.script), v=what, its=its), what)

    def ask_fact(self, relation: str, subject: Subject) -> str:
        return ASK_FACT[relation].format(s=spell(subject, self.script))

    def fact_answer(self, relation: str, subject: Subject, value: str) -> str:
        return self.phrase(relation, value)

    def problem(self, problem: Problem) -> list[str]:
        who, item = name(problem.person), problem.item
        out = []
        for kind, detail, *numbers in problem.steps:
            if kind == "start":
                out.append(f"{who} ana {counted(numbers[0], item)}.")
            elif kind == "groups":
                noun_class, several = COUNTED[detail][0], int(numbers[0]) != 1
                having = HAVING[noun_class + 1 if several else noun_class]
                each = f" kila {EACH[noun_class]}" if several else ""
                out.append(f"{who} ana {counted(numbers[0], detail)} {having} {counted(numbers[1], item)}{each}.")
            else:
                verb = {"buy": "ananunua", "find": "anapata", "lose": "anapoteza", "give_away": "anatoa"}[detail]
                out.append(f"Kisha {verb} {counted(numbers[0], item)}.")
        noun_class, _, plural = COUNTED[item]
        return [*out, f"{who} ana {plural} {MANY[noun_class + 1]} sasa?"]

    def article(self, event: Event) -> list[str]:
        noun_class, head, rest = BUILDING[event.building]
        noun = f"{head} {coloured(event.colour, noun_class)}{rest}"
        came = "Mgeni 1 alifika" if event.guests == 1 else f"Wageni {event.guests} walifika"
        return [
            f"Siku ya {DAY[event.day]}, {noun} {town(event.city)} {SUBJECT[noun_class]}li{DEED[event.deed]}.",
            f"{came} hapo.",
            f"{name(event.witness)} ameishi katika mji huo kwa miaka mingi na alifurahi sana.",
        ]

    def title(self, event: Event) -> str:
        noun_class, head, rest = BUILDING[event.building]
        return f"{head.capitalize()}{rest} {OF[noun_class]}{DEED[event.deed]} {town(event.city)}"


GRAMMAR = Swahili()
