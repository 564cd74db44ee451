"""What can be said: people, things, facts, small stories, problems. No word of any language is here.

A meaning is a frozen value; a language turns it into sentences (`languages/`), so that items are parallel by construction.
Identifiers are English words for our convenience only.
"""

from dataclasses import dataclass

# first names of people in stories and problems; the gender decides agreement
WOMEN = ("anna", "maria", "eva", "laura", "nina", "clara", "julia", "emma", "lena", "rosa", "amina", "sofia")
MEN = ("peter", "thomas", "david", "daniel", "martin", "leon", "oscar", "paul", "victor", "simon", "hassan", "adam")
NAMES = (*WOMEN, *MEN)

CITIES = (
    "paris", "rome", "berlin", "madrid", "london", "moscow", "beijing", "nairobi", "vienna", "lisbon", "cairo", "tokyo",
)  # fmt: skip
ANIMALS = ("dog", "cat", "horse", "cow", "goat", "rabbit", "duck", "lion", "bear", "wolf", "fox", "eagle")
FOODS = ("bread", "cheese", "honey", "rice", "soup", "fish", "meat", "cake", "salt", "tea", "wine", "sugar")
COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown", "grey")
PROFESSIONS = (
    "doctor", "teacher", "baker", "painter", "farmer", "singer", "writer", "cook", "judge", "gardener",
)  # fmt: skip
INSTRUMENTS = ("piano", "guitar", "violin", "flute", "drum", "trumpet", "harp", "accordion")
THINGS = ("hat", "coat", "car", "house", "chair", "bag", "cup", "lamp")
COUNTABLES = ("apple", "book", "egg", "flower", "stone", "coin", "pencil", "ball")
CONTAINERS = ("box", "bag", "basket")
BUILDINGS = ("bridge", "school", "market", "library", "station", "museum", "hospital", "theatre")
DEEDS = ("opened", "closed", "repaired", "sold")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

# what a story says of a person, and the values it can take
RELATIONS = {
    "lives": CITIES,  # lives in a city
    "has": ANIMALS,  # has an animal
    "likes": FOODS,  # likes (to eat or drink) a food
    "plays": INSTRUMENTS,  # plays an instrument
    "works": PROFESSIONS,  # works as
    "colour": COLOURS,  # a thing of theirs has a colour (needs `thing`)
}

# what the world knows of invented towns and people: the relation, the kind of subject, the values
FACTS = {
    "product": (
        "town",
        tuple(food for food in FOODS if food != "cake"),
    ),  # the main product of the town; one says "cakes" of those
    "animal": ("town", ANIMALS),  # the animal in the town's coat of arms
    "colour": ("town", COLOURS),  # the colour of the town's flag
    "profession": ("person", PROFESSIONS),
    "instrument": ("person", INSTRUMENTS),
}

GAINS = ("buy", "find")
LOSSES = ("lose", "give_away")


@dataclass(frozen=True)
class Claim:
    """One sentence of a story: a relation between a person and a value; `thing` is what has the colour."""

    relation: str
    person: str
    value: str
    thing: str | None = None


@dataclass(frozen=True)
class Subject:
    """An invented town or person, spelt by syllables; `index` numbers subjects of a kind. Women end in -a, men do not."""

    kind: str
    index: int
    syllables: tuple[str, ...]

    @property
    def woman(self) -> bool:
        """Whether agreement with this person is feminine."""
        return self.kind == "person" and self.syllables[-1].endswith("a")


@dataclass(frozen=True)
class Fact:
    """What the world knows of a subject; `stated` are the languages whose training text says so."""

    relation: str
    subject: Subject
    value: str
    stated: tuple[str, ...]

    @property
    def id(self) -> str:
        """Such as `product-12`: the same in every language."""
        return f"{self.relation}-{self.subject.index}"


@dataclass(frozen=True)
class Problem:
    """An arithmetic word problem. Steps: `("start", n)`, `("groups", containers, n)`, `("gain"|"lose", n)`, verbs beside them."""

    person: str
    item: str
    steps: tuple[tuple[str, ...], ...]
    """Each `(kind, detail, *numbers as strings)`: ("start", "", "7"), ("groups", "box", "3", "4"), ("gain", "buy", "5")."""

    def equations(self) -> list[tuple[int, str, int, int]]:
        """`(left, operator, right, result)` of each step of the calculation."""
        out, total = [], 0
        for kind, _, *numbers in self.steps:
            values = [int(number) for number in numbers]
            if kind == "start":
                total = values[0]
                continue
            if kind == "groups":
                left, operator, right, total = values[0], "×", values[1], values[0] * values[1]
            elif kind == "gain":
                left, operator, right, total = total, "+", values[0], total + values[0]
            else:
                left, operator, right, total = total, "-", values[0], total - values[0]
            out.append((left, operator, right, total))
        return out

    @property
    def answer(self) -> int:
        """The number asked for."""
        return self.equations()[-1][3]


@dataclass(frozen=True)
class Event:
    """News: a building in a city was opened, closed, repaired or sold, on a day; a guest count and a witness fill the article."""

    building: str
    deed: str
    city: str
    day: str
    guests: int
    witness: str
    colour: str


@dataclass(frozen=True)
class Said:
    """A sentence and the two phrases in it that answer questions, verbatim; `person` is empty where it is not asked for."""

    text: str
    value: str
    person: str = ""
