"""What a grammar must be able to say. Each language file holds a lexicon and one subclass, `GRAMMAR`."""

from abc import ABC, abstractmethod

from ..meaning import Claim, Event, Problem, Said, Subject

# spelling of the syllables of invented names: Latin, Cyrillic, Han
SYLLABLES = {
    "vel": ("вел", "维"), "mo": ("мо", "莫"), "ra": ("ра", "拉"), "dar": ("дар", "达"), "vin": ("вин", "文"),
    "lo": ("ло", "洛"), "ta": ("та", "塔"), "ker": ("кер", "克"), "su": ("су", "苏"), "na": ("на", "娜"),
    "pol": ("пол", "波"), "gri": ("гри", "格"), "sen": ("сен", "森"), "ba": ("ба", "巴"), "tul": ("тул", "图"),
    "ma": ("ма", "玛"), "fer": ("фер", "费"), "ni": ("ни", "尼"), "dos": ("дос", "多"), "ka": ("ка", "卡"),
    "rel": ("рел", "雷"), "bun": ("бун", "本"), "ho": ("хо", "霍"), "gan": ("ган", "甘"), "lu": ("лу", "卢"),
    "mir": ("мир", "米"), "sa": ("са", "萨"), "tor": ("тор", "托"), "pe": ("пе", "佩"), "zan": ("зан", "赞"),
}  # fmt: skip


def spell(subject: Subject, script: str) -> str:
    """The subject's name in a script, `"Latn"`, `"Cyrl"` or `"Hans"`, capitalised where there are capitals."""
    if script == "Latn":
        return "".join(subject.syllables).capitalize()
    if script not in ("Cyrl", "Hans"):
        raise ValueError(f"names are not spelt in {script!r}: Latn, Cyrl or Hans")
    column = 0 if script == "Cyrl" else 1
    return "".join(SYLLABLES[syllable][column] for syllable in subject.syllables).capitalize()


class Grammar(ABC):
    """Sentences of one language. Every sentence is complete: capital, punctuation, agreement."""

    code: str
    script: str = "Latn"
    gap: str = " "
    """What stands between two sentences of a passage."""
    question: str
    """Label before a question, such as "Question:"."""
    answer: str
    headline: str

    @abstractmethod
    def claim(self, claim: Claim) -> Said:
        """A sentence of a story; `value` and `person` are substrings of it which answer `ask_value` and `ask_person`."""

    @abstractmethod
    def ask_value(self, claim: Claim) -> str:
        """The question whose answer is the claim's value (which the question does not contain)."""

    @abstractmethod
    def ask_person(self, claim: Claim) -> str:
        """The question whose answer is the claim's person (not asked for `colour`: raise ValueError)."""

    @abstractmethod
    def fact(self, relation: str, subject: Subject, value: str, variant: int) -> Said:
        """A fact stated; variant 0 ends in the value's phrase and punctuation, variants 1 and 2 are phrased otherwise.

        `Said.value` is the phrase of the value in this sentence.
        """

    @abstractmethod
    def ask_fact(self, relation: str, subject: Subject) -> str:
        """The question of a fact."""

    @abstractmethod
    def fact_answer(self, relation: str, subject: Subject, value: str) -> str:
        """The short answer: the phrase of variant 0."""

    @abstractmethod
    def problem(self, problem: Problem) -> list[str]:
        """The sentences of a word problem; the last is the question, in the third person."""

    @abstractmethod
    def article(self, event: Event) -> list[str]:
        """Three or four sentences of news; the first names building, deed and city."""

    @abstractmethod
    def title(self, event: Event) -> str:
        """The headline: building, deed and city, no final punctuation."""

    def join(self, sentences: list[str]) -> str:
        """Sentences as a passage."""
        return self.gap.join(sentences)

    def cloze(self, relation: str, subject: Subject, value: str) -> tuple[str, str]:
        """Variant 0 as `(everything before the value, the value)`."""
        said = self.fact(relation, subject, value, 0)
        prefix = said.text[: said.text.rindex(said.value)].rstrip()
        return prefix, said.value
