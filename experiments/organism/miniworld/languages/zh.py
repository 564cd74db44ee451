"""Chinese, simplified."""

from ..meaning import WOMEN, Claim, Event, Problem, Said, Subject
from .base import Grammar, spell

NAME = {
    "anna": "安娜", "maria": "玛丽亚", "eva": "伊娃", "laura": "劳拉", "nina": "尼娜", "clara": "克拉拉",
    "julia": "朱莉娅", "emma": "艾玛", "lena": "莱娜", "rosa": "罗莎", "amina": "阿米娜", "sofia": "索菲亚",
    "peter": "彼得", "thomas": "托马斯", "david": "大卫", "daniel": "丹尼尔", "martin": "马丁", "leon": "莱昂",
    "oscar": "奥斯卡", "paul": "保罗", "victor": "维克多", "simon": "西蒙", "hassan": "哈桑", "adam": "亚当",
}  # fmt: skip
CITY = {
    "paris": "巴黎", "rome": "罗马", "berlin": "柏林", "madrid": "马德里", "london": "伦敦", "moscow": "莫斯科",
    "beijing": "北京", "nairobi": "内罗毕", "vienna": "维也纳", "lisbon": "里斯本", "cairo": "开罗", "tokyo": "东京",
}  # fmt: skip
# measure word, noun
ANIMAL = {
    "dog": ("只", "狗"), "cat": ("只", "猫"), "horse": ("匹", "马"), "cow": ("头", "奶牛"), "goat": ("只", "山羊"),
    "rabbit": ("只", "兔子"), "duck": ("只", "鸭子"), "lion": ("头", "狮子"), "bear": ("头", "熊"), "wolf": ("只", "狼"),
    "fox": ("只", "狐狸"), "eagle": ("只", "老鹰"),
}  # fmt: skip
COUNTED = {
    "apple": ("个", "苹果"), "book": ("本", "书"), "egg": ("个", "鸡蛋"), "flower": ("朵", "花"), "stone": ("块", "石头"),
    "coin": ("枚", "硬币"), "pencil": ("支", "铅笔"), "ball": ("个", "球"),
    "box": ("个", "盒子"), "bag": ("个", "袋子"), "basket": ("个", "篮子"),
}  # fmt: skip
FOOD = {
    "bread": "面包", "cheese": "奶酪", "honey": "蜂蜜", "rice": "大米", "soup": "汤", "fish": "鱼", "meat": "肉",
    "cake": "蛋糕", "salt": "盐", "tea": "茶", "wine": "葡萄酒", "sugar": "糖",
}  # fmt: skip
COLOUR = {
    "red": "红色", "blue": "蓝色", "green": "绿色", "white": "白色", "black": "黑色", "yellow": "黄色", "brown": "棕色",
    "grey": "灰色",
}  # fmt: skip
PROFESSION = {
    "doctor": "医生", "teacher": "教师", "baker": "面包师", "painter": "画家", "farmer": "农民", "singer": "歌手",
    "writer": "作家", "cook": "厨师", "judge": "法官", "gardener": "园丁",
}  # fmt: skip
INSTRUMENT = {
    "piano": "钢琴", "guitar": "吉他", "violin": "小提琴", "flute": "长笛", "drum": "大鼓", "trumpet": "小号",
    "harp": "竖琴", "accordion": "手风琴",
}  # fmt: skip
THING = {
    "hat": "帽子", "coat": "外套", "car": "汽车", "house": "房子", "chair": "椅子", "bag": "包", "cup": "杯子", "lamp": "灯",
}  # fmt: skip
BUILDING = {
    "bridge": "大桥", "school": "学校", "market": "市场", "library": "图书馆", "station": "车站", "museum": "博物馆",
    "hospital": "医院", "theatre": "剧院",
}  # fmt: skip
DEED = {"opened": "启用", "closed": "关闭", "repaired": "修复", "sold": "售出"}
DAY = {
    "monday": "星期一", "tuesday": "星期二", "wednesday": "星期三", "thursday": "星期四", "friday": "星期五",
    "saturday": "星期六", "sunday": "星期日",
}  # fmt: skip
VERB = {"buy": "买了", "find": "找到了", "lose": "弄丢了", "give_away": "送出了"}
VALUES = {
    "lives": CITY, "likes": FOOD, "plays": INSTRUMENT, "works": PROFESSION, "colour": COLOUR,
    "product": FOOD, "profession": PROFESSION, "instrument": INSTRUMENT,
}  # fmt: skip
FACT = {
    "product": ("{s}镇的主要产品是{v}。", "{s}镇的{v}很有名。", "{s}镇的人出售很多{v}。"),
    "animal": ("{s}镇镇徽上的动物是{v}。", "{s}镇的镇徽上画着{v}。", "在{s}镇，每枚硬币上都有{v}。"),
    "colour": ("{s}镇旗帜的颜色是{v}。", "{s}镇有一面{v}的旗帜。", "一面{v}的旗帜飘扬在{s}镇上空。"),
    "profession": ("{s}是一名{v}。", "{s}的职业是{v}。", "大家都知道{s}是一名{v}。"),
    "instrument": ("{s}会演奏{v}。", "晚上，{s}在家练习{v}。", "{s}学会了演奏{v}。"),
}
ASK_FACT = {
    "product": "{s}镇的主要产品是什么？",
    "animal": "{s}镇镇徽上的动物是什么？",
    "colour": "{s}镇旗帜的颜色是什么？",
    "profession": "{s}做什么工作？",
    "instrument": "{s}会演奏什么乐器？",
}


def counted(number: int | str, key: str) -> str:
    """A number, the measure word and the noun."""
    return f"{number}{''.join(COUNTED[key])}"


class Chinese(Grammar):
    """Lexicon and sentences of Chinese."""

    code, script, gap = "zh", "Hans", ""
    question, answer, headline = "问题：", "回答：", "标题："

    def phrase(self, relation: str, value: str) -> str:
        """The value as it stands in a sentence."""
        if relation == "has":
            return f"一{''.join(ANIMAL[value])}"
        if relation == "likes" and value == "rice":
            return "米饭"  # on the plate; 大米 is the grain
        return ANIMAL[value][1] if relation == "animal" else VALUES[relation][value]

    def claim(self, claim: Claim) -> Said:
        who, what = NAME[claim.person], self.phrase(claim.relation, claim.value)
        if claim.relation == "colour":
            return Said(f"{who}的{THING[claim.thing or '']}是{what}的。", what)
        verb = {"lives": "住在", "has": "有", "likes": "喜欢", "plays": "会演奏", "works": "是一名"}[claim.relation]
        return Said(f"{who}{verb}{what}。", what, who)

    def ask_value(self, claim: Claim) -> str:
        who = NAME[claim.person]
        if claim.relation == "colour":
            return f"{who}的{THING[claim.thing or '']}是什么颜色？"
        return {
            "lives": f"{who}住在哪里？",
            "has": f"{who}有什么动物？",
            "likes": f"{who}喜欢什么？",
            "plays": f"{who}会演奏什么乐器？",
            "works": f"{who}做什么工作？",
        }[claim.relation]

    def ask_person(self, claim: Claim) -> str:
        if claim.relation == "colour":
            raise ValueError("a colour has no person to ask for")
        verb = {"lives": "住在", "has": "有", "likes": "喜欢", "plays": "会演奏", "works": "是"}[claim.relation]
        return f"谁{verb}{self.phrase(claim.relation, claim.value)}？"

    def fact(self, relation: str, subject: Subject, value: str, variant: int) -> Said:
        one = relation == "animal" and variant > 0
        what = self.phrase("has" if one else relation, value)
        return Said(FACT[relation][variant].format(s=spell(subject, self.script), v=what), what)

    def ask_fact(self, relation: str, subject: Subject) -> str:
        return ASK_FACT[relation].format(s=spell(subject, self.script))

    def fact_answer(self, relation: str, subject: Subject, value: str) -> str:
        return self.phrase(relation, value)

    def problem(self, problem: Problem) -> list[str]:
        who, item = NAME[problem.person], problem.item
        they = "她" if problem.person in WOMEN else "他"
        out = []
        for kind, detail, *numbers in problem.steps:
            if kind == "start":
                out.append(f"{who}有{counted(numbers[0], item)}。")
            elif kind == "groups":
                box = "".join(COUNTED[detail])
                inside = f"每{box}里" if int(numbers[0]) > 1 else "里面"
                out.append(f"{who}有{counted(numbers[0], detail)}，{inside}有{counted(numbers[1], item)}。")
            else:
                out.append(f"然后{they}{VERB[detail]}{counted(numbers[0], item)}。")
        return [*out, f"{who}现在有多少{''.join(COUNTED[item])}？"]

    def article(self, event: Event) -> list[str]:
        they = "她" if event.witness in WOMEN else "他"
        return [
            f"{DAY[event.day]}，{CITY[event.city]}的{COLOUR[event.colour]}{BUILDING[event.building]}{DEED[event.deed]}了。",
            f"有{event.guests}位客人来到了这里。",
            f"{NAME[event.witness]}在这座城市住了很多年，{they}非常高兴。",
        ]

    def title(self, event: Event) -> str:
        return f"{CITY[event.city]}{BUILDING[event.building]}{DEED[event.deed]}"


GRAMMAR = Chinese()
