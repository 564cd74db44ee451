"""A task: items of some languages, one ability, and how an answer is had from a model.

Three ways to ask, and the primary score of each:

    choose      log-likelihood of every choice after the prompt; the likeliest is the answer         accuracy
    generate    greedy text after the prompt, up to a stop string                                    exact, f1, rouge_l, number or fidelity
    loglik      log-likelihood of the reference answer after the prompt, in nats; no text is written  logp

An answer is appended to its prompt with the item's `glue`: a space, or nothing in languages that are written without spaces (zh, ja, th ...).
A prompt therefore ends without white space (`Answer:`). Items that share an id across languages are the same item, so that samples are the
same, and intervals are paired. A task holds no model, and knows no neuron.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ..corpora import Corpus
from ..languages import LANGUAGES
from ..storage import content_hash

Ability = Literal["understanding", "reasoning", "knowledge", "generation"]
How = Literal["choose", "generate", "loglik"]
Normalise = Literal["sum", "token", "character"]
"""How the likelihoods of choices are compared: their sum, or that per token or character."""

ABILITIES: tuple[Ability, ...] = ("understanding", "reasoning", "knowledge", "generation")
METRICS: dict[How, tuple[str, ...]] = {
    "choose": ("accuracy",),
    "generate": ("exact", "f1", "rouge_l", "number", "fidelity"),
    "loglik": ("logp",),
}
"""Primary scores of each way to ask; the first is the default."""

_WITHOUT_SPACES = {"THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "CJK"}


def default_glue(language: str) -> str:
    """What stands between a prompt and its answer: nothing in languages written without spaces, else a space."""
    return "" if language in LANGUAGES and LANGUAGES[language].script in _WITHOUT_SPACES else " "


@dataclass(frozen=True)
class Item:
    """One question in one language."""

    id: str
    """Its name; the same item in another language has the same one."""
    language: str
    """Code of the language it is asked in."""
    prompt: str
    """The complete text given to the model."""
    answers: tuple[str, ...]
    """Accepted answers; the first is the reference."""
    choices: tuple[str, ...] = ()
    """What may be chosen; empty if the answer is written freely."""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Passage, question, fact, split and the like; json values."""
    glue: str | None = None
    """Between the prompt and an answer; default by language (`default_glue`)."""

    def __post_init__(self) -> None:
        for name in ("answers", "choices"):
            if isinstance(value := getattr(self, name), str):
                raise ValueError(f"field {name!r} is one string ({value!r}): give a list of strings")
        object.__setattr__(self, "answers", tuple(self.answers))
        object.__setattr__(self, "choices", tuple(self.choices))
        object.__setattr__(self, "glue", default_glue(self.language) if self.glue is None else self.glue)
        for name in ("id", "language", "prompt"):
            if not getattr(self, name).strip():
                raise ValueError(f"field {name!r} is empty: every item needs one")
        if self.glue and self.prompt != self.prompt.rstrip():
            raise ValueError(
                f"field 'prompt' ends in white space ({self.prompt[-10:]!r}), and the answer follows after {self.glue!r}: "
                "strip the prompt, or set 'glue' to ''"
            )
        if not self.answers:
            raise ValueError("field 'answers' is empty: give at least one accepted answer")
        for name in ("answers", "choices"):
            for at, text in enumerate(getattr(self, name)):
                if not text.strip():
                    raise ValueError(
                        f"field {name!r}: number {at} is of zero length ({text!r}): write it out, or leave it out"
                    )
        if self.choices:
            self._check_choices()

    def _check_choices(self) -> None:
        for name, rule in (("choices", "choices must differ"), ("answers", "name each right choice once")):
            seen = [" ".join(text.split()) for text in getattr(self, name)]
            if twice := [text for at, text in enumerate(getattr(self, name)) if seen[at] in seen[:at]]:
                raise ValueError(f"field {name!r}: {twice[0]!r} is there twice (but for white space); {rule}")
        if strange := [answer for answer in self.answers if answer not in self.choices]:
            raise ValueError(f"field 'answers': {strange[0]!r} is not among the choices ({', '.join(self.choices)})")
        if set(self.answers) == set(self.choices):
            raise ValueError("field 'choices': every choice is right, so nothing can be told: add a wrong one")

    def joined(self, answer: str) -> str:
        """The prompt with an answer behind it."""
        return f"{self.prompt}{self.glue}{answer}"


@dataclass(frozen=True)
class Task:
    """Items of one ability, and how they are asked."""

    name: str
    """Such as `xquad`."""
    ability: Ability
    """Which of the four."""
    items: tuple[Item, ...]
    """In the order in which they are asked and reported, language by language."""
    how: How
    """How an answer is had: see the top of this module."""
    metric: str = ""
    """The primary score; default the first of `METRICS`."""
    stop: tuple[str, ...] = ("\n",)
    """Strings at which generated text ends."""
    max_new_tokens: int = 32
    """Tokens to generate at most."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        where = f"task {self.name!r}"
        if isinstance(self.stop, str):
            raise ValueError(f"{where}: stop={self.stop!r} is one string: give a list of strings")
        object.__setattr__(self, "stop", tuple(self.stop))
        if self.ability not in ABILITIES:
            raise ValueError(f"{where}: ability {self.ability!r} is not one of {', '.join(ABILITIES)}")
        if self.how not in METRICS:
            raise ValueError(f"{where}: how={self.how!r} is not one of {', '.join(METRICS)}")
        object.__setattr__(self, "metric", self.metric or METRICS[self.how][0])
        if self.metric not in METRICS[self.how]:
            raise ValueError(
                f"{where}: metric {self.metric!r} does not go with how={self.how!r}: it has {', '.join(METRICS[self.how])}"
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"{where}: max_new_tokens={self.max_new_tokens} must be at least 1")
        if not all(self.stop):
            raise ValueError(
                f"{where}: stop={self.stop!r} holds an empty string, which would end every text: leave it out"
            )
        if not self.items:
            raise ValueError(f"{where} has no items: give at least one")
        seen: set[tuple[str, str]] = set()
        for item in self.items:
            if (item.language, item.id) in seen:
                raise ValueError(f"{where}: item {item.id!r} is there twice in {item.language!r}; ids must differ")
            seen.add((item.language, item.id))
            if self.how == "choose" and not item.choices:
                raise ValueError(
                    f"{where}: item {item.id!r} of {item.language!r} has no choices; ask it with how='generate'"
                )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that have items, in order of appearance."""
        return tuple(dict.fromkeys(item.language for item in self.items))

    @property
    def parallel(self) -> tuple[str, ...]:
        """Ids that every language has, in the order of the first language."""
        held = [{item.id for item in self.of(language)} for language in self.languages]
        common = set.intersection(*held)
        return tuple(item.id for item in self.of(self.languages[0]) if item.id in common)

    def of(self, language: str) -> tuple[Item, ...]:
        """Items of one language.

        Raises:
            ValueError: The task does not have the language.
        """
        found = tuple(item for item in self.items if item.language == language)
        if not found:
            raise ValueError(f"task {self.name!r} has no items in {language!r}: it has {', '.join(self.languages)}")
        return found

    def only(self, languages: Sequence[str] | str) -> "Task":
        """The items of some languages, in this order.

        Raises:
            ValueError: A language is none of the task's; none is given.
        """
        chosen = [languages] if isinstance(languages, str) else list(dict.fromkeys(languages))
        if not chosen:
            raise ValueError(f"no language asked for: task {self.name!r} has {', '.join(self.languages)}")
        return replace(self, items=tuple(item for language in chosen for item in self.of(language)))

    def where(self, keep: Callable[[Item], bool]) -> "Task":
        """The items for which `keep` holds, such as those of a split: `task.where(lambda item: item.meta["split"] == "test")`.

        Raises:
            ValueError: None is left.
        """
        left = tuple(item for item in self.items if keep(item))
        if not left:
            raise ValueError(f"no item of task {self.name!r} ({len(self)} items) is left: check the condition")
        return replace(self, items=left)

    def take(self, n: int, seed: int = 0) -> "Task":
        """At most `n` random items per language, in their order.

        Parallel items come first, and are the same in every language. Samples are nested: those of a smaller `n` are among those of a larger.

        Raises:
            ValueError: `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"take({n}): give the number of items per language, at least 1")
        parallel = set(self.parallel)

        def rank(item: Item) -> tuple[bool, str]:
            return item.id not in parallel, content_hash(seed, item.id)

        chosen = {
            (item.language, item.id) for language in self.languages for item in sorted(self.of(language), key=rank)[:n]
        }
        return self.where(lambda item: (item.language, item.id) in chosen)

    def corpus(self, language: str) -> Corpus:
        """What the task says in one language: every prompt with each of its choices (or answers) behind it, a document each.

        Raises:
            ValueError: The task does not have the language.
        """
        said = [
            (f"{item.id}-{n}", item.joined(x))
            for item in self.of(language)
            for n, x in enumerate(item.choices or item.answers)
        ]
        return Corpus(language, tuple(text for _, text in said), tuple(name for name, _ in said), source=self.name)

    def as_loglik(self) -> "Task":
        """The same items, scored by the log-likelihood of the reference answer: continuous, and one forward pass an item."""
        return replace(self, how="loglik", metric="logp")

    def fingerprint(self, language: str) -> str:
        """Hash of one language's items and of everything that decides their scores."""
        rows = [[value for name, value in asdict(item).items() if name != "meta"] for item in self.of(language)]
        return content_hash(self.name, self.ability, self.how, self.metric, self.stop, self.max_new_tokens, rows)

    def scores(
        self,
        model: Any,
        languages: Sequence[str] | None = None,
        *,
        condition: str = "baseline",
        size: int = 16,
        identify: Any = None,
        normalise: Normalise = "sum",
    ) -> Any:
        """Ask a model every item; edits in force apply. `evaluate(model, task)` does the same.

        Args:
            model: What `load_model` returned.
            languages: Which to ask, default all.
            condition: Label of the rows.
            size: Texts per batch.
            identify: Identifier for the language of generated text; None leaves `fidelity` nan.
            normalise: How the likelihoods of choices are compared: `sum`, per `token`, or per `character`.

        Returns:
            Columns `run.ROWS`, one row an item.

        Raises:
            ValueError: See `run.answer_scores`; everything about the items is found before the model computes.
        """
        from .run import task_scores

        return task_scores(
            model, self, languages, condition=condition, size=size, identify=identify, normalise=normalise
        )
