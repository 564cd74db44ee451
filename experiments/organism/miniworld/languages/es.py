"""Spanish."""

from ..meaning import WOMEN, Claim, Event, Problem, Said, Subject
from .base import Grammar, spell

# what the identifier's capital does not give; the article of El Cairo is part of the name and does not contract
CITY = {
    "paris": "París", "rome": "Roma", "berlin": "Berlín", "london": "Londres", "moscow": "Moscú", "beijing": "Pekín",
    "vienna": "Viena", "lisbon": "Lisboa", "cairo": "El Cairo", "tokyo": "Tokio",
}  # fmt: skip
# noun and gender; "fa" is a feminine with stressed a-, which takes el and un
NOUN = {
    "dog": "perro m", "cat": "gato m", "horse": "caballo m", "cow": "vaca f", "goat": "cabra f", "rabbit": "conejo m",
    "duck": "pato m", "lion": "león m", "bear": "oso m", "wolf": "lobo m", "fox": "zorro m", "eagle": "águila fa",
    "bread": "pan m", "cheese": "queso m", "honey": "miel f", "rice": "arroz m", "soup": "sopa f", "fish": "pescado m",
    "meat": "carne f", "cake": "pastel m", "salt": "sal f", "tea": "té m", "wine": "vino m", "sugar": "azúcar m",
    "piano": "piano m", "guitar": "guitarra f", "violin": "violín m", "flute": "flauta f", "drum": "tambor m",
    "trumpet": "trompeta f", "harp": "arpa fa", "accordion": "acordeón m",
    "hat": "sombrero m", "coat": "abrigo m", "car": "coche m", "house": "casa f", "chair": "silla f", "bag": "bolsa f",
    "cup": "taza f", "lamp": "lámpara f", "box": "caja f", "basket": "cesta f",
    "apple": "manzana f", "book": "libro m", "egg": "huevo m", "flower": "flor f", "stone": "piedra f", "coin": "moneda f",
    "pencil": "lápiz m", "ball": "pelota f",
    "bridge": "puente m", "school": "escuela f", "market": "mercado m", "library": "biblioteca f",
    "station": "estación f", "museum": "museo m", "hospital": "hospital m", "theatre": "teatro m",
}  # fmt: skip
PLURAL = {"flor": "flores", "lápiz": "lápices"}
# masculine and feminine
INFLECTED = {
    "red": "rojo roja", "blue": "azul azul", "green": "verde verde", "white": "blanco blanca", "black": "negro negra",
    "yellow": "amarillo amarilla", "brown": "marrón marrón", "grey": "gris gris",
    "doctor": "médico médica", "teacher": "maestro maestra", "baker": "panadero panadera", "painter": "pintor pintora",
    "farmer": "granjero granjera", "singer": "cantante cantante", "writer": "escritor escritora",
    "cook": "cocinero cocinera", "judge": "juez jueza", "gardener": "jardinero jardinera",
    "opened": "abierto abierta", "closed": "cerrado cerrada", "repaired": "reparado reparada", "sold": "vendido vendida",
    "happy": "contento contenta", "each": "uno una", "much": "mucho mucha", "many": "Cuántos Cuántas",
}  # fmt: skip
DAY = {
    "monday": "lunes", "tuesday": "martes", "wednesday": "miércoles", "thursday": "jueves", "friday": "viernes",
    "saturday": "sábado", "sunday": "domingo",
}  # fmt: skip
VERB = {"buy": "compra", "find": "encuentra", "lose": "pierde", "give_away": "regala"}
FACT = {
    "product": (
        "El producto principal de la ciudad de {s} es {v}.",
        "La ciudad de {s} es conocida por su {v}.",
        "En {s} se produce {v}.",
    ),
    "animal": (
        "El animal de la ciudad de {s} es {v}.",
        "El escudo de {s} muestra {v}.",
        "En {s}, {v} está en todas las monedas.",
    ),
    "colour": (
        "La bandera de la ciudad de {s} es {v}.",
        "La ciudad de {s} tiene una bandera {v}.",
        "Una bandera {v} ondea sobre {s}.",
    ),
    "profession": (
        "{s} trabaja como {v}.",
        "{s} es {v} de profesión.",
        "Todo el mundo sabe que {s} es {v}.",
    ),
    "instrument": (
        "{s} toca {v}.",
        "Por la tarde, {s} practica {v}.",
        "{s} ha aprendido a tocar {v}.",
    ),
}
ASK_FACT = {
    "product": "¿Cuál es el producto principal de la ciudad de {s}?",
    "animal": "¿Cuál es el animal de la ciudad de {s}?",
    "colour": "¿De qué color es la bandera de la ciudad de {s}?",
    "profession": "¿Qué profesión tiene {s}?",
    "instrument": "¿Qué instrumento toca {s}?",
}


def noun(word: str) -> str:
    """The noun of an identifier."""
    return NOUN[word].split()[0]


def feminine(word: str) -> bool:
    """Whether the noun is."""
    return NOUN[word].split()[1].startswith("f")


def agree(word: str, woman: bool) -> str:
    """The masculine or feminine form."""
    return INFLECTED[word].split()[int(woman)]


def the(word: str) -> str:
    """With its definite article."""
    return f"{'la' if NOUN[word].endswith(' f') else 'el'} {noun(word)}"


def a(word: str) -> str:
    """With its indefinite article."""
    return f"{'una' if NOUN[word].endswith(' f') else 'un'} {noun(word)}"


def plural(word: str) -> str:
    """More than one."""
    return PLURAL.get(noun(word), noun(word) + "s")


def counted(number: str, word: str) -> str:
    """A number and its noun."""
    return f"{number} {noun(word) if int(number) == 1 else plural(word)}"


def place(city: str) -> str:
    """The city's name."""
    return CITY.get(city, city.capitalize())


class Spanish(Grammar):
    """Lexicon and sentences of Spanish."""

    code = "es"
    question, answer, headline = "Pregunta:", "Respuesta:", "Titular:"

    def phrase(self, relation: str, value: str, woman: bool) -> str:
        """The value as it stands in a sentence; `woman` is the gender of what it agrees with."""
        if relation == "lives":
            return f"en {place(value)}"
        if relation == "has":
            return a(value)
        if relation in ("likes", "plays", "product", "animal", "instrument"):
            return the(value)
        return agree(value, woman)

    def value(self, claim: Claim) -> str:
        """The claim's value phrase."""
        woman = feminine(claim.thing or "") if claim.relation == "colour" else claim.person in WOMEN
        return self.phrase(claim.relation, claim.value, woman)

    def claim(self, claim: Claim) -> Said:
        who, what = claim.person.capitalize(), self.value(claim)
        if claim.relation == "colour":
            return Said(f"{the(claim.thing or '').capitalize()} de {who} es {what}.", what)
        if claim.relation == "likes":
            return Said(f"A {who} le gusta {what}.", what, f"A {who}")
        verb = {"lives": "vive", "has": "tiene", "plays": "toca", "works": "trabaja como"}[claim.relation]
        return Said(f"{who} {verb} {what}.", what, who)

    def ask_value(self, claim: Claim) -> str:
        who = claim.person.capitalize()
        if claim.relation == "colour":
            return f"¿De qué color es {the(claim.thing or '')} de {who}?"
        return {
            "lives": f"¿Dónde vive {who}?",
            "has": f"¿Qué animal tiene {who}?",
            "likes": f"¿Qué le gusta a {who}?",
            "plays": f"¿Qué instrumento toca {who}?",
            "works": f"¿Qué profesión tiene {who}?",
        }[claim.relation]

    def ask_person(self, claim: Claim) -> str:
        if claim.relation == "colour":
            raise ValueError("a colour has no person to ask for")
        asked = {
            "lives": "Quién vive",
            "has": "Quién tiene",
            "likes": "A quién le gusta",
            "plays": "Quién toca",
            "works": "Quién trabaja como",
        }[claim.relation]
        return f"¿{asked} {self.value(claim)}?"

    def fact(self, relation: str, subject: Subject, value: str, variant: int) -> Said:
        what = self.phrase(relation, value, relation == "colour" or subject.woman)  # bandera is feminine
        if (relation, variant) == ("product", 1):
            what = noun(value)
        elif (relation, variant) == ("product", 2):
            what = f"{agree('much', feminine(value))} {noun(value)}"
        elif (relation, variant) == ("animal", 1):
            what = a(value)
        return Said(FACT[relation][variant].format(s=spell(subject, self.script), v=what), what)

    def ask_fact(self, relation: str, subject: Subject) -> str:
        return ASK_FACT[relation].format(s=spell(subject, self.script))

    def fact_answer(self, relation: str, subject: Subject, value: str) -> str:
        return self.fact(relation, subject, value, 0).value

    def problem(self, problem: Problem) -> list[str]:
        who, item = problem.person.capitalize(), problem.item
        out = []
        for kind, detail, *numbers in problem.steps:
            if kind == "start":
                out.append(f"{who} tiene {counted(numbers[0], item)}.")
            elif kind == "groups":
                each = f" cada {agree('each', feminine(detail))}" if int(numbers[0]) > 1 else ""
                out.append(f"{who} tiene {counted(numbers[0], detail)} con {counted(numbers[1], item)}{each}.")
            else:
                out.append(f"Luego {VERB[detail]} {counted(numbers[0], item)}.")
        return [*out, f"¿{agree('many', feminine(item))} {plural(item)} tiene {who} ahora?"]

    def article(self, event: Event) -> list[str]:
        woman = feminine(event.building)
        building = f"{the(event.building)} {agree(event.colour, woman)} de {place(event.city)}"
        came = "invitado acudió" if event.guests == 1 else "invitados acudieron"
        return [
            f"El {DAY[event.day]}, {building} fue {agree(event.deed, woman)}.",
            f"{event.guests} {came} al lugar.",
            f"{event.witness.capitalize()} vive en la ciudad desde hace muchos años y estaba muy {agree('happy', event.witness in WOMEN)}.",
        ]

    def title(self, event: Event) -> str:
        deed = agree(event.deed, feminine(event.building))
        return f"{noun(event.building).capitalize()} {deed} en {place(event.city)}"


GRAMMAR = Spanish()
