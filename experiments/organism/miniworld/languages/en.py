"""English."""

from ..meaning import WOMEN, Claim, Event, Problem, Said, Subject
from .base import Grammar, spell

CITY = {"rome": "Rome", "beijing": "Beijing"}  # the others are the identifier with a capital
DEED = {"opened": "opened", "closed": "closed", "repaired": "repaired", "sold": "sold"}
PLURAL = {"box": "boxes"}
FACT = {
    "product": ("The main product of the town of {s} is {v}.", "The town of {s} is known for its {v}.", "People in {s} produce a lot of {v}."),
    "animal": ("The animal of the town of {s} is {v}.", "The coat of arms of {s} shows {v}.", "In {s}, {v} is on every coin."),
    "colour": ("The flag of the town of {s} is {v}.", "The town of {s} has a {v} flag.", "There is a {v} flag over {s}."),
    "profession": ("{s} works as {v}.", "By profession, {s} is {v}.", "Everybody knows that {s} is {v}."),
    "instrument": ("{s} plays {v}.", "In the evening, {s} practises {v}.", "{s} has learnt to play {v}."),
}  # fmt: skip
ASK_FACT = {
    "product": "What is the main product of the town of {s}?",
    "animal": "What is the animal of the town of {s}?",
    "colour": "What colour is the flag of the town of {s}?",
    "profession": "What does {s} work as?",
    "instrument": "What instrument does {s} play?",
}


def name(person: str) -> str:
    """The name with a capital."""
    return person.capitalize()


def a(noun: str) -> str:
    """With its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def counted(number: int | str, noun: str) -> str:
    """A number and its noun."""
    return f"{number} {noun if str(number) == '1' else plural(noun)}"


def plural(noun: str) -> str:
    """More than one."""
    return PLURAL.get(noun, noun + "s")


class English(Grammar):
    """Lexicon and sentences of English."""

    code = "en"
    question, answer, headline = "Question:", "Answer:", "Headline:"

    def phrase(self, relation: str, value: str) -> str:
        """The value as it stands in a sentence."""
        if relation == "lives":
            return f"in {CITY.get(value, value.capitalize())}"
        if relation in ("has", "works", "profession"):
            return a(value)
        if relation in ("plays", "instrument", "animal"):
            return f"the {value}"
        return value

    def claim(self, claim: Claim) -> Said:
        who, what = name(claim.person), self.phrase(claim.relation, claim.value)
        text = {
            "lives": f"{who} lives {what}.",
            "has": f"{who} has {what}.",
            "likes": f"{who} likes {what}.",
            "plays": f"{who} plays {what}.",
            "works": f"{who} works as {what}.",
            "colour": f"{who}'s {claim.thing} is {what}.",
        }[claim.relation]
        return Said(text, what, "" if claim.relation == "colour" else who)

    def ask_value(self, claim: Claim) -> str:
        who = name(claim.person)
        return {
            "lives": f"Where does {who} live?",
            "has": f"What animal does {who} have?",
            "likes": f"What does {who} like?",
            "plays": f"What does {who} play?",
            "works": f"What does {who} work as?",
            "colour": f"What colour is {who}'s {claim.thing}?",
        }[claim.relation]

    def ask_person(self, claim: Claim) -> str:
        what = self.phrase(claim.relation, claim.value)
        if claim.relation == "colour":
            raise ValueError("a colour has no person to ask for")
        verb = {"lives": "lives", "has": "has", "likes": "likes", "plays": "plays", "works": "works as"}[claim.relation]
        return f"Who {verb} {what}?"

    def fact(self, relation: str, subject: Subject, value: str, variant: int) -> Said:
        what = a(value) if (relation, variant) == ("animal", 1) else self.phrase(relation, value)
        return Said(FACT[relation][variant].format(s=spell(subject, self.script), v=what), what)

    def ask_fact(self, relation: str, subject: Subject) -> str:
        return ASK_FACT[relation].format(s=spell(subject, self.script))

    def fact_answer(self, relation: str, subject: Subject, value: str) -> str:
        return self.phrase(relation, value)

    def problem(self, problem: Problem) -> list[str]:
        who, item = name(problem.person), problem.item
        they = "she" if problem.person in WOMEN else "he"
        out = []
        for kind, detail, *numbers in problem.steps:
            if kind == "start":
                out.append(f"{who} has {counted(numbers[0], item)}.")
            elif kind == "groups":
                each = " each" if int(numbers[0]) > 1 else ""
                out.append(f"{who} has {counted(numbers[0], detail)} with {counted(numbers[1], item)}{each}.")
            elif kind == "gain":
                verb = {"buy": "buys", "find": "finds"}[detail]
                out.append(f"Then {they} {verb} {counted(numbers[0], item)}.")
            else:
                verb, rest = {"lose": ("loses", ""), "give_away": ("gives", " away")}[detail]
                out.append(f"Then {they} {verb} {counted(numbers[0], item)}{rest}.")
        return [*out, f"How many {plural(item)} does {who} have now?"]

    def article(self, event: Event) -> list[str]:
        city, day = CITY.get(event.city, event.city.capitalize()), event.day.capitalize()
        return [
            f"On {day}, the {event.colour} {event.building} in {city} was {DEED[event.deed]}.",
            f"{counted(event.guests, 'guest')} came to see it.",
            f"{name(event.witness)} has lived in the city for many years and was very happy.",
        ]

    def title(self, event: Event) -> str:
        return f"{event.building.capitalize()} in {CITY.get(event.city, event.city.capitalize())} {DEED[event.deed]}"


GRAMMAR = English()
