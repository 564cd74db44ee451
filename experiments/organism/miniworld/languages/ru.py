"""Russian."""

from ..meaning import WOMEN, Claim, Event, Problem, Said, Subject
from .base import Grammar, spell

# nominative, genitive
NAME = {
    "anna": ("Анна", "Анны"), "maria": ("Мария", "Марии"), "eva": ("Ева", "Евы"), "laura": ("Лаура", "Лауры"),
    "nina": ("Нина", "Нины"), "clara": ("Клара", "Клары"), "julia": ("Юлия", "Юлии"), "emma": ("Эмма", "Эммы"),
    "lena": ("Лена", "Лены"), "rosa": ("Роза", "Розы"), "amina": ("Амина", "Амины"), "sofia": ("София", "Софии"),
    "peter": ("Пётр", "Петра"), "thomas": ("Томас", "Томаса"), "david": ("Давид", "Давида"),
    "daniel": ("Даниил", "Даниила"), "martin": ("Мартин", "Мартина"), "leon": ("Леон", "Леона"),
    "oscar": ("Оскар", "Оскара"), "paul": ("Павел", "Павла"), "victor": ("Виктор", "Виктора"),
    "simon": ("Семён", "Семёна"), "hassan": ("Хасан", "Хасана"), "adam": ("Адам", "Адама"),
}  # fmt: skip
# prepositional
CITY = {
    "paris": "Париже", "rome": "Риме", "berlin": "Берлине", "madrid": "Мадриде", "london": "Лондоне", "moscow": "Москве",
    "beijing": "Пекине", "nairobi": "Найроби", "vienna": "Вене", "lisbon": "Лиссабоне", "cairo": "Каире", "tokyo": "Токио",
}  # fmt: skip
# nominative, accusative
ANIMAL = {
    "dog": ("собака", "собаку"), "cat": ("кошка", "кошку"), "horse": ("лошадь", "лошадь"), "cow": ("корова", "корову"),
    "goat": ("коза", "козу"), "rabbit": ("кролик", "кролика"), "duck": ("утка", "утку"), "lion": ("лев", "льва"),
    "bear": ("медведь", "медведя"), "wolf": ("волк", "волка"), "fox": ("лиса", "лису"), "eagle": ("орёл", "орла"),
}  # fmt: skip
# nominative, accusative, instrumental
FOOD = {
    "bread": ("хлеб", "хлеб", "хлебом"), "cheese": ("сыр", "сыр", "сыром"), "honey": ("мёд", "мёд", "мёдом"),
    "rice": ("рис", "рис", "рисом"), "soup": ("суп", "суп", "супом"), "fish": ("рыба", "рыбу", "рыбой"),
    "meat": ("мясо", "мясо", "мясом"), "cake": ("торт", "торт", "тортом"), "salt": ("соль", "соль", "солью"),
    "tea": ("чай", "чай", "чаем"), "wine": ("вино", "вино", "вином"), "sugar": ("сахар", "сахар", "сахаром"),
}  # fmt: skip
COLOUR = {
    "red": "красный", "blue": "синий", "green": "зелёный", "white": "белый", "black": "чёрный", "yellow": "жёлтый",
    "brown": "коричневый", "grey": "серый",
}  # fmt: skip
HARD = {"m": "ый", "f": "ая", "n": "ое", "f4": "ую"}  # f4: feminine accusative
SOFT = {"m": "ий", "f": "яя", "n": "ее", "f4": "юю"}
# nominative, instrumental; then the same of a woman where Russian commonly has a word of its own
PROFESSION = {
    "doctor": ("врач", "врачом"), "teacher": ("учитель", "учителем", "учительница", "учительницей"),
    "baker": ("пекарь", "пекарем"), "painter": ("художник", "художником", "художница", "художницей"),
    "farmer": ("фермер", "фермером"), "singer": ("певец", "певцом", "певица", "певицей"),
    "writer": ("писатель", "писателем", "писательница", "писательницей"), "cook": ("повар", "поваром"),
    "judge": ("судья", "судьёй"), "gardener": ("садовник", "садовником"),
}  # fmt: skip
# prepositional
INSTRUMENT = {
    "piano": "пианино", "guitar": "гитаре", "violin": "скрипке", "flute": "флейте", "drum": "барабане", "trumpet": "трубе",
    "harp": "арфе", "accordion": "аккордеоне",
}  # fmt: skip
THING = {
    "hat": ("шляпа", "f"), "coat": ("пальто", "n"), "car": ("машина", "f"), "house": ("дом", "m"), "chair": ("стул", "m"),
    "bag": ("сумка", "f"), "cup": ("чашка", "f"), "lamp": ("лампа", "f"),
}  # fmt: skip
# after 1, after 2 to 4, after 5 and more
COUNTED = {
    "apple": ("яблоко", "яблока", "яблок"), "book": ("книга", "книги", "книг"), "egg": ("яйцо", "яйца", "яиц"),
    "flower": ("цветок", "цветка", "цветов"), "stone": ("камень", "камня", "камней"), "coin": ("монета", "монеты", "монет"),
    "pencil": ("карандаш", "карандаша", "карандашей"), "ball": ("мяч", "мяча", "мячей"),
    "box": ("коробка", "коробки", "коробок"), "bag": ("пакет", "пакета", "пакетов"), "basket": ("корзина", "корзины", "корзин"),
    "guest": ("гость", "гостя", "гостей"), "came": ("пришёл", "пришли", "пришло"),
}  # fmt: skip
# accusative, gender
BUILDING = {
    "bridge": ("мост", "m"), "school": ("школу", "f4"), "market": ("рынок", "m"), "library": ("библиотеку", "f4"),
    "station": ("вокзал", "m"), "museum": ("музей", "m"), "hospital": ("больницу", "f4"), "theatre": ("театр", "m"),
}  # fmt: skip
DEED = {"opened": "открыли", "closed": "закрыли", "repaired": "отремонтировали", "sold": "продали"}
DAY = {
    "monday": "В понедельник", "tuesday": "Во вторник", "wednesday": "В среду", "thursday": "В четверг",
    "friday": "В пятницу", "saturday": "В субботу", "sunday": "В воскресенье",
}  # fmt: skip
VERB = {"buy": "покупает", "find": "находит", "lose": "теряет", "give_away": "отдаёт"}
# each variant with the case of its value: 0 nominative, 1 the next form of the lexicon, 2 the third
FACT = {
    "product": (
        ("Главный продукт города {s} — {v}.", 0),
        ("Город {s} славится {v} на всю страну.", 2),
        ("Из города {s} привозят {v}.", 1),
    ),
    "animal": (
        ("Животное на гербе города {s} — {v}.", 0),
        ("На гербе города {s} можно увидеть {v}.", 1),
        ("В городе {s} {v} есть на каждой монете.", 0),
    ),
    "colour": (
        ("Флаг города {s} {v}.", 0),
        ("У города {s} {v} флаг.", 0),
        ("Над городом {s} развевается {v} флаг.", 0),
    ),
    "profession": (("{s} работает {v}.", 1), ("По профессии {s} — {v}.", 0), ("Все знают, что {s} — {v}.", 0)),
    "instrument": (("{s} играет {v}.", 0), ("По вечерам {v} играет {s}.", 0), ("{s} давно умеет играть {v}.", 0)),
}
ASK_FACT = {
    "product": "Какой главный продукт у города {s}?",
    "animal": "Какое животное на гербе города {s}?",
    "colour": "Какого цвета флаг города {s}?",
    "profession": "Кем работает {s}?",
    "instrument": "На каком инструменте играет {s}?",
}


def form(number: int | str, key: str) -> str:
    """The form of a word that agrees with a number."""
    tens, ones = divmod(int(number) % 100, 10)
    one, few, many = COUNTED[key]
    if tens == 1 or ones == 0 or ones > 4:
        return many
    return one if ones == 1 else few


def counted(number: int | str, key: str, accusative: bool = False) -> str:
    """A number and its noun."""
    noun = form(number, key)
    if accusative and noun == COUNTED[key][0] and noun.endswith("а"):
        noun = noun[:-1] + "у"
    return f"{number} {noun}"


def adjective(colour: str, gender: str) -> str:
    """A colour that agrees."""
    word = COLOUR[colour]
    return word[:-2] + (SOFT if word.endswith("ий") else HARD)[gender]


def profession(value: str, case: int, woman: bool) -> str:
    """Nominative (0) or instrumental (1)."""
    return PROFESSION[value][case - 2 if woman else case]


class Russian(Grammar):
    """Lexicon and sentences of Russian."""

    code, script = "ru", "Cyrl"
    question, answer, headline = "Вопрос:", "Ответ:", "Заголовок:"

    def phrase(self, claim: Claim) -> str:
        """The value as it stands in a claim."""
        value = claim.value
        if claim.relation == "lives":
            return f"в {CITY[value]}"
        if claim.relation == "has":
            return ANIMAL[value][0]
        if claim.relation == "likes":
            return FOOD[value][1]
        if claim.relation == "plays":
            return f"на {INSTRUMENT[value]}"
        if claim.relation == "works":
            return profession(value, 1, claim.person in WOMEN)
        return adjective(value, THING[claim.thing or ""][1])

    def claim(self, claim: Claim) -> Said:
        (who, whose), what = NAME[claim.person], self.phrase(claim)
        if claim.relation == "colour":
            return Said(f"{THING[claim.thing or ''][0].capitalize()} {whose} {what}.", what)
        if claim.relation == "has":
            return Said(f"У {whose} есть {what}.", what, f"У {whose}")
        verb = {"lives": "живёт", "likes": "любит", "plays": "играет", "works": "работает"}[claim.relation]
        return Said(f"{who} {verb} {what}.", what, who)

    def ask_value(self, claim: Claim) -> str:
        who, whose = NAME[claim.person]
        if claim.relation == "colour":
            return f"Какого цвета {THING[claim.thing or ''][0]} {whose}?"
        return {
            "lives": f"Где живёт {who}?",
            "has": f"Какое животное есть у {whose}?",
            "likes": f"Что любит {who}?",
            "plays": f"На чём играет {who}?",
            "works": f"Кем работает {who}?",
        }[claim.relation]

    def ask_person(self, claim: Claim) -> str:
        if claim.relation == "colour":
            raise ValueError("a colour has no person to ask for")
        start = {
            "lives": "Кто живёт",
            "has": "У кого есть",
            "likes": "Кто любит",
            "plays": "Кто играет",
            "works": "Кто работает",
        }[claim.relation]
        return f"{start} {self.phrase(claim)}?"

    def fact(self, relation: str, subject: Subject, value: str, variant: int) -> Said:
        frame, case = FACT[relation][variant]
        if relation == "instrument":
            what = f"на {INSTRUMENT[value]}"
        elif relation == "profession":
            what = profession(value, case, subject.woman)
        else:
            what = COLOUR[value] if relation == "colour" else {"product": FOOD, "animal": ANIMAL}[relation][value][case]
        return Said(frame.format(s=spell(subject, self.script), v=what), what)

    def ask_fact(self, relation: str, subject: Subject) -> str:
        return ASK_FACT[relation].format(s=spell(subject, self.script))

    def fact_answer(self, relation: str, subject: Subject, value: str) -> str:
        return self.fact(relation, subject, value, 0).value

    def problem(self, problem: Problem) -> list[str]:
        whose, item = NAME[problem.person][1], problem.item
        they = "она" if problem.person in WOMEN else "он"
        out = []
        for kind, detail, *numbers in problem.steps:
            if kind == "start":
                out.append(f"У {whose} {counted(numbers[0], item)}.")
            elif kind == "groups":
                one = numbers[0] == "1"
                each = ("в нём" if one else "в каждом") if detail == "bag" else ("в ней" if one else "в каждой")
                out.append(f"У {whose} {counted(numbers[0], detail)}, {each} {counted(numbers[1], item)}.")
            else:
                out.append(f"Потом {they} {VERB[detail]} {counted(numbers[0], item, accusative=True)}.")
        return [*out, f"Сколько {COUNTED[item][2]} теперь у {whose}?"]

    def article(self, event: Event) -> list[str]:
        building, gender = BUILDING[event.building]
        glad = "была очень рада" if event.witness in WOMEN else "был очень рад"
        return [
            f"{DAY[event.day]} в {CITY[event.city]} {DEED[event.deed]} {adjective(event.colour, gender)} {building}.",
            f"Туда {form(event.guests, 'came')} {counted(event.guests, 'guest')}.",
            f"{NAME[event.witness][0]} живёт в этом городе уже много лет и {glad}.",
        ]

    def title(self, event: Event) -> str:
        return f"В {CITY[event.city]} {DEED[event.deed]} {BUILDING[event.building][0]}"


GRAMMAR = Russian()
