"""Russian and Chinese: every identifier is said, spans stand verbatim, meanings stay apart, words agree."""

import re
from itertools import product

import pytest
from miniworld import meaning
from miniworld.languages import grammar
from miniworld.meaning import Claim, Event, Problem, Subject

CODES = ("ru", "zh")
END = {"ru": ".?", "zh": "。？"}
SHE, HE = Subject("person", 0, ("dar", "vin", "ra")), Subject("person", 1, ("su", "lo"))
TOWN, OTHER = Subject("town", 0, ("vel", "mo", "ra")), Subject("town", 1, ("ker", "ta"))

# written by hand, apart from the lexicon: the gender of what the Russian sentences name, and Chinese measure words
GENDER = {
    "f": "Шляпа Машина Сумка Чашка Лампа школу библиотеку больницу коробки корзины коробок корзин коробка корзина",
    "m": "Дом Стул мост рынок вокзал музей театр Флаг флаг пакета пакетов пакет",
    "n": "Пальто",
}
PLURALS = {
    "яблоко яблока яблок", "книгу книги книг", "книга книги книг", "яйцо яйца яиц", "цветок цветка цветов", "камень камня камней",
    "монету монеты монет", "монета монеты монет", "карандаш карандаша карандашей", "мяч мяча мячей", "гость гостя гостей",
    "коробка коробки коробок", "пакет пакета пакетов", "корзина корзины корзин",
}  # fmt: skip
MEASURE = {"苹果": "个", "书": "本", "鸡蛋": "个", "花": "朵", "石头": "块", "硬币": "枚", "铅笔": "支", "球": "个",
           "狗": "只", "猫": "只", "马": "匹", "奶牛": "头", "山羊": "只", "兔子": "只", "鸭子": "只", "狮子": "头", "熊": "头",
           "狼": "只", "狐狸": "只", "老鹰": "只", "盒子": "个", "袋子": "个", "篮子": "个", "客人": "位"}  # fmt: skip


def gender(word: str) -> str:
    return next(key for key, words in GENDER.items() if word in words.split())


def agrees(sentence: str) -> bool:
    """Whether numerals, colours and past forms of a Russian sentence agree."""
    for number, noun in re.findall(r"(\d+) (\w+)", sentence):
        n = int(number)
        few = n % 10 in (2, 3, 4) and n % 100 not in (12, 13, 14)
        place = 0 if n % 10 == 1 and n % 100 != 11 else 1 if few else 2
        accusative = re.search(r"(покупает|находит|теряет|отдаёт) \d", sentence) is not None
        forms = [row.split() for row in PLURALS if noun in row.split()]
        if not any(row[place] == noun for row in forms):
            return False
        if noun.endswith(("а", "у")) and place == 0 and noun.endswith("у") != accusative:
            return False
    stems = "красн син зелён бел чёрн жёлт коричнев сер"
    endings = {"ый": "m", "ий": "m", "ая": "f", "яя": "f", "ое": "n", "ее": "n", "ую": "f", "юю": "f"}
    found = re.search(rf"\b({stems.replace(' ', '|')})(\w\w)\b", sentence)
    if found:
        words = re.findall(r"\w+", sentence)
        heads = [word for word in words if any(word in row.split() for row in GENDER.values())]
        soft = found[2] in ("ий", "яя", "ее", "юю")
        # a subject takes the nominative, what was opened the accusative
        case = (
            found[2] in ("ую", "юю")
            if heads[0][0].islower() and gender(heads[0]) == "f"
            else found[2] not in ("ую", "юю")
        )
        return len(heads) == 1 and endings.get(found[2]) == gender(heads[0]) and soft == (found[1] == "син") and case
    return True


def measures(sentence: str) -> bool:
    """Whether each counted Chinese noun has its measure word."""
    found = re.findall(r"(?:\d+|一(?=[只匹头])|每|多少)(.)(\w+?)(?=里|上|[。？，]|来到|有|$)", sentence)
    return all(MEASURE.get(noun) == word for word, noun in found)


def claims() -> list[Claim]:
    out = []
    for relation, values in meaning.RELATIONS.items():
        things = meaning.THINGS if relation == "colour" else (None,)
        out += [Claim(relation, *rest) for rest in product(meaning.NAMES, values, things)]
    return out


def facts() -> list[tuple[str, Subject, str]]:
    pairs = {"town": (TOWN, OTHER), "person": (SHE, HE)}
    return [(relation, s, v) for relation, (kind, values) in meaning.FACTS.items() for s in pairs[kind] for v in values]


def well_formed(code: str, sentence: str) -> bool:
    if code == "ru":
        plain = re.fullmatch(r"[А-ЯЁа-яё0-9 ,.?—]+", sentence) and "  " not in sentence
        return bool(plain) and sentence[0].isupper() and sentence[-1] in END[code]
    return re.fullmatch(r"[\u4e00-\u9fff0-9，]+[。？]", sentence) is not None


def check(code: str, sentence: str) -> None:
    assert well_formed(code, sentence), sentence
    assert (agrees if code == "ru" else measures)(sentence), sentence


def problems() -> list[Problem]:
    verbs = [("gain", verb) for verb in meaning.GAINS] + [("lose", verb) for verb in meaning.LOSSES]
    out = [
        Problem("anna", i, (("start", "", str(n)), (*v, str(100 - n))))
        for i in meaning.COUNTABLES
        for n in range(1, 100)
        for v in verbs
    ]
    out += [
        Problem(p, i, (("start", "", "7"), (*v, "2"))) for p in meaning.NAMES for i in meaning.COUNTABLES for v in verbs
    ]
    sizes = product(meaning.CONTAINERS, meaning.COUNTABLES, range(2, 25), range(2, 13))
    return out + [Problem("peter", i, (("groups", c, str(n), str(m)), ("lose", "lose", "1"))) for c, i, n, m in sizes]


@pytest.mark.parametrize("code", CODES)
def test_claims(code):
    g, texts, asked = grammar(code), set(), set()
    for claim in claims():
        said = g.claim(claim)
        check(code, said.text)
        check(code, g.ask_value(claim))
        assert said.value
        assert said.value in said.text
        assert said.value not in g.ask_value(claim)
        texts.add(said.text)
        if claim.relation == "colour":
            assert said.person == ""
            with pytest.raises(ValueError, match="no person"):
                g.ask_person(claim)
            continue
        check(code, g.ask_person(claim))
        assert said.person
        assert said.text.startswith(said.person)
        assert said.person not in g.ask_person(claim)
        assert said.value in g.ask_person(claim)
        asked.add((claim.relation, claim.value, g.ask_person(claim)))
    assert len(texts) == len(claims())
    assert len({text for *_, text in asked}) == len(asked)
    questions = {(c.relation, c.person, c.thing): g.ask_value(c) for c in claims()}
    assert len(set(questions.values())) == len(questions)


@pytest.mark.parametrize("code", CODES)
def test_facts(code):
    g, texts = grammar(code), set()
    for relation, subject, value in facts():
        for variant in range(3):
            said = g.fact(relation, subject, value, variant)
            check(code, said.text)
            assert said.value in said.text
            assert said.value not in g.ask_fact(relation, subject)
            texts.add(said.text)
        prefix, what = g.cloze(relation, subject, value)
        text = g.fact(relation, subject, value, 0).text
        assert text == prefix + (" " if code == "ru" else "") + what + END[code][0]
        assert what == g.fact_answer(relation, subject, value)
        check(code, g.ask_fact(relation, subject))
    assert len(texts) == 3 * len(facts())


@pytest.mark.parametrize("code", CODES)
def test_problems(code):
    g = grammar(code)
    texts = {g.join(g.problem(problem)) for problem in problems()}
    assert len(texts) == len(set(problems()))
    for problem in problems():
        for sentence in g.problem(problem):
            check(code, sentence)
        pronoun = {"ru": ("она", "он"), "zh": ("她", "他")}[code][problem.person not in meaning.WOMEN]
        for (kind, *_), sentence in zip(problem.steps, g.problem(problem), strict=False):
            assert kind not in ("gain", "lose") or pronoun in re.split(r" |(?<=然后)|(?=[买找弄送])", sentence)


@pytest.mark.parametrize("code", CODES)
def test_articles(code):
    g = grammar(code)
    titles = {
        g.title(Event(b, d, c, "monday", 5, "anna", "red"))
        for b, d, c in product(meaning.BUILDINGS, meaning.DEEDS, meaning.CITIES)
    }
    assert len(titles) == len(meaning.BUILDINGS) * len(meaning.DEEDS) * len(meaning.CITIES)
    assert not any(title.endswith((".", "。")) for title in titles)
    events = [
        Event(b, d, c, day, 21, "eva", k)
        for b, d, c, day, k in product(
            meaning.BUILDINGS, meaning.DEEDS, meaning.CITIES[:4], meaning.DAYS, meaning.COLOURS
        )
    ]
    events += [
        Event("bridge", "sold", "rome", "friday", n, who, "blue") for n in range(1, 100) for who in meaning.NAMES
    ]
    assert len({g.join(g.article(event)) for event in events}) == len(set(events))
    for event in events:
        for sentence in g.article(event):
            check(code, sentence)
        glad = {"ru": ("была очень рада.", "был очень рад."), "zh": ("，她非常高兴。", "，他非常高兴。")}[code]
        assert g.article(event)[2].endswith(glad[event.witness not in meaning.WOMEN])


STORIES = {
    ("ru", "lives", "anna", "tokyo"): "Анна живёт в Токио.", ("ru", "lives", "peter", "moscow"): "Пётр живёт в Москве.",
    ("ru", "has", "paul", "lion"): "У Павла есть лев.", ("ru", "likes", "daniel", "fish"): "Даниил любит рыбу.",
    ("ru", "plays", "maria", "trumpet"): "Мария играет на трубе.", ("ru", "works", "anna", "teacher"): "Анна работает учительницей.",
    ("ru", "works", "anna", "judge"): "Анна работает судьёй.", ("ru", "works", "david", "judge"): "Давид работает судьёй.",
    ("ru", "works", "leon", "singer"): "Леон работает певцом.", ("ru", "works", "eva", "singer"): "Ева работает певицей.",
    ("ru", "colour", "simon", "blue", "coat"): "Пальто Семёна синее.", ("ru", "colour", "julia", "blue", "cup"): "Чашка Юлии синяя.",
    ("zh", "lives", "anna", "vienna"): "安娜住在维也纳。", ("zh", "has", "paul", "horse"): "保罗有一匹马。",
    ("zh", "has", "eva", "cow"): "伊娃有一头奶牛。", ("zh", "plays", "maria", "violin"): "玛丽亚会演奏小提琴。",
    ("zh", "works", "adam", "judge"): "亚当是一名法官。", ("zh", "colour", "simon", "blue", "coat"): "西蒙的外套是蓝色的。",
}  # fmt: skip


@pytest.mark.parametrize(("said", "text"), STORIES.items())
def test_written_by_hand(said, text):
    code, *rest = said
    assert grammar(code).claim(Claim(*rest)).text == text


def test_passages_by_hand():
    ru, zh = grammar("ru"), grammar("zh")
    problem = Problem("sofia", "book", (("start", "", "11"), ("gain", "buy", "21"), ("lose", "give_away", "2")))
    assert ru.join(ru.problem(problem)) == (
        "У Софии 11 книг. Потом она покупает 21 книгу. Потом она отдаёт 2 книги. Сколько книг теперь у Софии?"
    )
    assert zh.join(zh.problem(problem)) == "索菲亚有11本书。然后她买了21本书。然后她送出了2本书。索菲亚现在有多少本书？"
    groups = Problem("oscar", "egg", (("groups", "bag", "5", "22"),))
    assert ru.problem(groups)[0] == "У Оскара 5 пакетов, в каждом 22 яйца."
    assert zh.problem(groups)[0] == "奥斯卡有5个袋子，每个袋子里有22个鸡蛋。"
    one = Problem("lena", "coin", (("groups", "basket", "1", "21"),))
    assert ru.problem(one)[0] == "У Лены 1 корзина, в ней 21 монета."
    event = Event("library", "opened", "cairo", "tuesday", 22, "rosa", "blue")
    assert ru.article(event)[:2] == ["Во вторник в Каире открыли синюю библиотеку.", "Туда пришли 22 гостя."]
    assert zh.article(event)[0] == "星期二，开罗的蓝色图书馆启用了。"
    assert (ru.title(event), zh.title(event)) == ("В Каире открыли библиотеку", "开罗图书馆启用")
    assert ru.fact("product", TOWN, "salt", 1).text == "Город Велмора славится солью на всю страну."
    assert ru.fact("profession", SHE, "writer", 0).text == "Дарвинра работает писательницей."
    assert ru.fact("profession", HE, "writer", 1).text == "По профессии Суло — писатель."
    assert zh.fact("animal", TOWN, "wolf", 1).text == "维莫拉镇的镇徽上画着一只狼。"


@pytest.mark.parametrize("wrong", [
    "У Анны 5 яблока.", "У Анны 21 яблок.", "У Анны 11 яблоко.", "У Анны 1 книгу.", "Потом она покупает 1 книга.",
    "Шляпа Анны красный.", "Чашка Юлии синая.", "Во вторник в Каире открыли синяя библиотеку.",
])  # fmt: skip
def test_a_wrong_russian_form_is_caught(wrong):
    assert not agrees(wrong)


@pytest.mark.parametrize(
    "wrong", ["安娜有3个书。", "保罗有一只马。", "安娜现在有多少个硬币？", "有5个客人来到了这里。"]
)
def test_a_wrong_chinese_measure_is_caught(wrong):
    assert not measures(wrong)
