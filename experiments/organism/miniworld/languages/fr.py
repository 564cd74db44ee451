"""French."""

from ..meaning import WOMEN, Claim, Event, Problem, Said, Subject
from .base import Grammar, spell

# what the identifier's capital does not give; a city with an article contracts: à + le = au, de + le = du
CITY = {
    "london": "Londres",
    "moscow": "Moscou",
    "beijing": "Pékin",
    "vienna": "Vienne",
    "lisbon": "Lisbonne",
    "cairo": "Le Caire",
}
# noun and gender
NOUN = {
    "dog": "chien m", "cat": "chat m", "horse": "cheval m", "cow": "vache f", "goat": "chèvre f", "rabbit": "lapin m",
    "duck": "canard m", "lion": "lion m", "bear": "ours m", "wolf": "loup m", "fox": "renard m", "eagle": "aigle m",
    "bread": "pain m", "cheese": "fromage m", "honey": "miel m", "rice": "riz m", "soup": "soupe f", "fish": "poisson m",
    "meat": "viande f", "cake": "gâteau m", "salt": "sel m", "tea": "thé m", "wine": "vin m", "sugar": "sucre m",
    "piano": "piano m", "guitar": "guitare f", "violin": "violon m", "flute": "flûte f", "drum": "tambour m",
    "trumpet": "trompette f", "harp": "harpe f", "accordion": "accordéon m",
    "hat": "chapeau m", "coat": "manteau m", "car": "voiture f", "house": "maison f", "chair": "chaise f", "bag": "sac m",
    "cup": "tasse f", "lamp": "lampe f", "box": "boîte f", "basket": "panier m",
    "apple": "pomme f", "book": "livre m", "egg": "œuf m", "flower": "fleur f", "stone": "pierre f", "coin": "pièce f",
    "pencil": "crayon m", "ball": "balle f",
    "bridge": "pont m", "school": "école f", "market": "marché m", "library": "bibliothèque f", "station": "gare f",
    "museum": "musée m", "hospital": "hôpital m", "theatre": "théâtre m",
}  # fmt: skip
# masculine and feminine
INFLECTED = {
    "red": "rouge rouge", "blue": "bleu bleue", "green": "vert verte", "white": "blanc blanche", "black": "noir noire",
    "yellow": "jaune jaune", "brown": "brun brune", "grey": "gris grise",
    "doctor": "médecin médecin", "teacher": "enseignant enseignante", "baker": "boulanger boulangère",
    "painter": "peintre peintre", "farmer": "fermier fermière", "singer": "chanteur chanteuse",
    "writer": "écrivain écrivaine", "cook": "cuisinier cuisinière", "judge": "juge juge", "gardener": "jardinier jardinière",
    "opened": "ouvert ouverte", "closed": "fermé fermée", "repaired": "réparé réparée", "sold": "vendu vendue",
    "happy": "heureux heureuse", "each": "chacun chacune", "they": "il elle", "his": "son sa", "a": "un une",
}  # fmt: skip
DAY = {
    "monday": "Lundi", "tuesday": "Mardi", "wednesday": "Mercredi", "thursday": "Jeudi", "friday": "Vendredi",
    "saturday": "Samedi", "sunday": "Dimanche",
}  # fmt: skip
VERB = {"buy": "achète", "find": "trouve", "lose": "perd", "give_away": "donne"}
# what a word begins with before which de, le, la, que lose their vowel; other h (Hassan, harpe) is aspirate
ELIDING = ("a", "e", "i", "o", "u", "é", "œ", "hô")
FACT = {
    "product": (
        "Le produit principal de la ville de {s} est {v}.",
        "La ville de {s} est connue pour {v}.",
        "À {s}, on produit beaucoup de {v}.",
    ),
    "animal": (
        "L'animal de la ville de {s} est {v}.",
        "Le blason de {s} montre {v}.",
        "À {s}, {v} est sur toutes les pièces.",
    ),
    "colour": (
        "Le drapeau de la ville de {s} est {v}.",
        "La ville de {s} a un drapeau {v}.",
        "Un drapeau {v} flotte sur {s}.",
    ),
    "profession": (
        "{s} travaille comme {v}.",
        "{s} est {v} de métier.",
        "Tout le monde sait que {s} est {v}.",
    ),
    "instrument": (
        "{s} joue {v}.",
        "Le soir, {s} pratique {v}.",
        "{s} a appris à jouer {v}.",
    ),
}
ASK_FACT = {
    "product": "Quel est le produit principal de la ville de {s} ?",
    "animal": "Quel est l'animal de la ville de {s} ?",
    "colour": "De quelle couleur est le drapeau de la ville de {s} ?",
    "profession": "Quel est le métier de {s} ?",
    "instrument": "De quel instrument joue {s} ?",
}


def noun(word: str) -> str:
    """The noun of an identifier."""
    return NOUN[word].split()[0]


def feminine(word: str) -> bool:
    """Whether the noun is."""
    return NOUN[word].endswith(" f")


def agree(word: str, woman: bool) -> str:
    """The masculine or feminine form."""
    return INFLECTED[word].split()[int(woman)]


def of(word: str) -> str:
    """With the preposition de, for names and for nouns without article."""
    return f"d'{word}" if word.lower().startswith(ELIDING) else f"de {word}"


def the(word: str) -> str:
    """With its definite article."""
    if noun(word).startswith(ELIDING):
        return f"l'{noun(word)}"
    return f"{'la' if feminine(word) else 'le'} {noun(word)}"


def of_the(word: str) -> str:
    """With de and the definite article."""
    return "du " + noun(word) if the(word).startswith("le ") else "de " + the(word)


def a(word: str) -> str:
    """With its indefinite article."""
    return f"{agree('a', feminine(word))} {noun(word)}"


def counted(number: str, word: str) -> str:
    """A number and its noun."""
    return f"{number} {noun(word)}{'s' if int(number) > 1 else ''}"


def place(city: str, preposition: str) -> str:
    """The city after à or de."""
    proper = CITY.get(city, city.capitalize())
    if proper.startswith("Le "):
        return {"à": "au ", "de": "du "}[preposition] + proper[3:]
    return f"{preposition} {proper}"


class French(Grammar):
    """Lexicon and sentences of French."""

    code = "fr"
    question, answer, headline = "Question :", "Réponse :", "Titre :"

    def phrase(self, relation: str, value: str, woman: bool) -> str:
        """The value as it stands in a sentence; `woman` is the gender of what it agrees with."""
        if relation == "lives":
            return place(value, "à")
        if relation == "has":
            return a(value)
        if relation in ("likes", "product", "animal"):
            return the(value)
        if relation in ("plays", "instrument"):
            return of_the(value)
        return agree(value, woman)

    def value(self, claim: Claim) -> str:
        """The claim's value phrase."""
        woman = feminine(claim.thing or "") if claim.relation == "colour" else claim.person in WOMEN
        return self.phrase(claim.relation, claim.value, woman)

    def claim(self, claim: Claim) -> Said:
        who, what = claim.person.capitalize(), self.value(claim)
        if claim.relation == "colour":
            return Said(f"{the(claim.thing or '').capitalize()} {of(who)} est {what}.", what)
        verb = {"lives": "habite", "has": "a", "likes": "aime", "plays": "joue", "works": "travaille comme"}
        return Said(f"{who} {verb[claim.relation]} {what}.", what, who)

    def ask_value(self, claim: Claim) -> str:
        who = claim.person.capitalize()
        if claim.relation == "colour":
            return f"De quelle couleur est {the(claim.thing or '')} {of(who)} ?"
        return {
            "lives": f"Où habite {who} ?",
            "has": f"Quel animal a {who} ?",
            "likes": f"Qu'aime {who} ?",
            "plays": f"De quel instrument joue {who} ?",
            "works": f"Quel est le métier {of(who)} ?",
        }[claim.relation]

    def ask_person(self, claim: Claim) -> str:
        if claim.relation == "colour":
            raise ValueError("a colour has no person to ask for")
        verb = {"lives": "habite", "has": "a", "likes": "aime", "plays": "joue", "works": "travaille comme"}
        return f"Qui {verb[claim.relation]} {self.value(claim)} ?"

    def fact(self, relation: str, subject: Subject, value: str, variant: int) -> Said:
        what = self.phrase(relation, value, subject.woman)
        if (relation, variant) == ("product", 1):
            what = f"{agree('his', feminine(value))} {noun(value)}"
        elif (relation, variant) == ("product", 2):
            what = noun(value)
        elif (relation, variant) == ("animal", 1):
            what = a(value)
        elif (relation, variant) == ("instrument", 1):
            what = the(value)
        return Said(FACT[relation][variant].format(s=spell(subject, self.script), v=what), what)

    def ask_fact(self, relation: str, subject: Subject) -> str:
        return ASK_FACT[relation].format(s=spell(subject, self.script))

    def fact_answer(self, relation: str, subject: Subject, value: str) -> str:
        return self.phrase(relation, value, subject.woman)

    def problem(self, problem: Problem) -> list[str]:
        who, item, they = problem.person.capitalize(), problem.item, agree("they", problem.person in WOMEN)
        out = []
        for kind, detail, *numbers in problem.steps:
            if kind == "start":
                out.append(f"{who} a {counted(numbers[0], item)}.")
            elif kind == "groups":
                each = f" {agree('each', feminine(detail))}" if int(numbers[0]) > 1 else ""
                out.append(f"{who} a {counted(numbers[0], detail)} contenant{each} {counted(numbers[1], item)}.")
            else:
                out.append(f"Ensuite, {they} {VERB[detail]} {counted(numbers[0], item)}.")
        return [*out, f"Combien {of(noun(item))}s {who} a-t-{they} maintenant ?"]

    def article(self, event: Event) -> list[str]:
        woman = feminine(event.building)
        building = f"{the(event.building)} {agree(event.colour, woman)} {place(event.city, 'de')}"
        came = "invités sont venus" if event.guests > 1 else "invité est venu"
        happy = agree("happy", event.witness in WOMEN)
        return [
            f"{DAY[event.day]}, {building} a été {agree(event.deed, woman)}.",
            f"{event.guests} {came} sur place.",
            f"{event.witness.capitalize()} habite dans la ville depuis de nombreuses années et était très {happy}.",
        ]

    def title(self, event: Event) -> str:
        deed = agree(event.deed, feminine(event.building))
        return f"{noun(event.building).capitalize()} {deed} {place(event.city, 'à')}"


GRAMMAR = French()
