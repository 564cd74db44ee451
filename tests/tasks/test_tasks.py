"""Items and tasks: what they refuse, and that samples are the same in every language."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.tasks.shots import few_shot
from mwork_lens.tasks.task import Item, Task, default_glue


def item(name="a", language="en", **fields):
    return Item(name, language, **{"prompt": f"Prompt {name}:", "answers": (f"yes {name}",), **fields})


def task(items, **fields):
    return Task(**{"name": "t", "ability": "knowledge", "items": tuple(items), "how": "generate", **fields})


def parallel(n=9, languages=("en", "fr", "zh")):
    return task(item(f"i{k}", language) for language in languages for k in range(n))


def test_glue_is_a_space_but_not_in_chinese():
    assert item().joined("Lima") == "Prompt a: Lima"
    assert item(language="zh", prompt="首都：").joined("北京") == "首都：北京"
    assert item(language="zh", glue=" ").glue == " "
    assert [default_glue(code) for code in ("ja", "th", "ko", "sw", "xx")] == ["", "", " ", " ", " "]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "field 'id' is empty"),
        ({"language": " "}, "field 'language' is empty"),
        ({"prompt": ""}, "field 'prompt' is empty"),
        ({"prompt": "Answer: "}, "field 'prompt' ends in white space .* strip the prompt"),
        ({"answers": ()}, "field 'answers' is empty"),
        ({"answers": ("x", " ")}, "field 'answers': number 1 is of zero length"),
        ({"answers": ("x",), "choices": ("x", "")}, "field 'choices': number 1 is of zero length"),
        ({"answers": ("x",), "choices": ("x", "y", "y")}, "field 'choices': 'y' is there twice"),
        (
            {"answers": ("x",), "choices": ("x", "y z", " y  z")},
            r"field 'choices': ' y  z' is there twice \(but for white",
        ),
        (
            {"answers": ("x", "x"), "choices": ("x", "y")},
            "field 'answers': 'x' is there twice .* name each right choice",
        ),
        ({"answers": ("z",), "choices": ("x", "y")}, r"field 'answers': 'z' is not among the choices \(x, y\)"),
        ({"answers": ("x",), "choices": ("x",)}, "every choice is right"),
    ],
)
def test_items_refuse(fields, message):
    with pytest.raises(ValueError, match=message):
        item(**fields)


def test_choices_that_differ_and_answers_that_are_written_freely_may_be_alike():
    assert item(answers=("A", "a"), choices=("A", "a", "b")).choices == ("A", "a", "b")
    assert item(answers=("x", "x")).answers == ("x", "x")  # as SQuAD's annotators


def test_white_space_before_an_answer_is_the_prompts_own_if_the_glue_is_empty():
    assert item(prompt="Answer: ", glue="").joined("x") == "Answer: x"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"items": ()}, "task 't' has no items"),
        ({"items": (item(), item())}, "item 'a' is there twice in 'en'"),
        ({"ability": "magic"}, "ability 'magic' is not one of understanding"),
        ({"how": "guess"}, "how='guess' is not one of choose, generate, loglik"),
        ({"metric": "accuracy"}, "metric 'accuracy' does not go with how='generate': it has exact, f1"),
        ({"how": "choose"}, "item 'a' of 'en' has no choices"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"stop": ("",)}, "would end every text"),
    ],
)
def test_tasks_refuse(fields, message):
    made = object.__new__(Task)  # beartype would refuse a wrong literal before the task can
    for name, value in {"name": "t", "ability": "knowledge", "items": (item(),), "how": "generate", "metric": "", "stop": ("\n",),
                        "max_new_tokens": 3, **fields}.items():  # fmt: skip
        object.__setattr__(made, name, value)
    with pytest.raises(ValueError, match=message):
        made.__post_init__()


def test_metric_defaults_to_that_of_the_way_to_ask():
    assert task([item()]).metric == "exact"
    assert task([item(answers=("x",), choices=("x", "y"))], how="choose").metric == "accuracy"
    assert task([item()]).as_loglik().metric == "logp"
    assert task([item()]).as_loglik().items == (item(),)


def test_languages_in_the_order_asked_for():
    t = parallel()
    assert t.languages == ("en", "fr", "zh")
    assert t.only(["zh", "en"]).languages == ("zh", "en")
    assert t.only("fr").languages == ("fr",)
    assert len(t.only("fr")) == 9
    with pytest.raises(ValueError, match="task 't' has no items in 'sw': it has en, fr, zh"):
        t.only(["en", "sw"])
    with pytest.raises(ValueError, match="no language asked for"):
        t.only([])


@given(st.integers(1, 12), st.integers(0, 5))
def test_take_keeps_parallel_items_and_is_nested(n, seed):
    t = parallel()
    some, more = t.take(n, seed), t.take(n + 1, seed)
    assert some.parallel == tuple(i.id for i in some.of("zh")) == tuple(i.id for i in some.of("en"))
    assert len(some) == 3 * min(n, 9)
    assert set(some.items) <= set(more.items)
    assert some.languages == t.languages
    assert list(some.items) == [i for i in t.items if i in some.items]


def test_take_fills_up_with_items_of_their_own():
    t = task([item("a"), item("b"), item("x"), item("a", "fr"), item("b", "fr"), item("y", "fr")])
    assert t.parallel == ("a", "b")
    assert set(t.take(2).parallel) == {"a", "b"}
    assert {i.id for i in t.take(3).of("fr")} == {"a", "b", "y"}
    assert t.take(1, 0) == t.take(1, 0)
    assert len({t.take(1, seed).items for seed in range(20)}) == 2
    with pytest.raises(ValueError, match=r"take\(0\)"):
        t.take(0)


def test_where():
    t = parallel(2)
    assert [i.id for i in t.where(lambda i: i.id == "i1").items] == ["i1"] * 3
    with pytest.raises(ValueError, match="no item of task 't'"):
        t.where(lambda i: False)


def test_what_a_task_says_is_every_prompt_with_each_choice_or_else_each_answer():
    chosen = replace(task([item("c", choices=("yes c", "no c"))]), how="choose", metric="accuracy")
    assert chosen.corpus("en").texts == ("Prompt c: yes c", "Prompt c: no c")
    free = task([item("a", answers=("x", "y")), item("b", "zh")])
    assert dict(free.corpus("en").documents()) == {"a-0": "Prompt a: x", "a-1": "Prompt a: y"}
    assert free.corpus("zh").texts == ("Prompt b:yes b",)
    with pytest.raises(ValueError, match="no items in 'fr'"):
        free.corpus("fr")


def test_fingerprint_sees_what_is_asked_and_nothing_else():
    t = parallel(2)
    same = replace(t, items=tuple(replace(i, meta={"split": "test"}) for i in t.items))
    assert t.fingerprint("en") == same.fingerprint("en") != t.fingerprint("fr")
    for other in (replace(t, stop=("x",)), replace(t, metric="f1"), replace(t, items=(*t.items[1:], item("new")))):
        assert other.fingerprint("en") != t.fingerprint("en")


def test_examples_are_solved_and_never_the_item_itself():
    t = few_shot(parallel(4), 2)
    assert t.of("en")[0].prompt == "Prompt i1: yes i1\n\nPrompt i2: yes i2\n\nPrompt i0:"
    assert t.of("zh")[2].prompt == "Prompt i0:yes i0\n\nPrompt i1:yes i1\n\nPrompt i2:"
    for one in t.items:
        assert f"yes {one.id}" not in one.prompt
    assert few_shot(t, 0) is t


def test_an_item_under_another_id_is_no_example_of_itself_in_any_language():
    asked = task([item("a"), item("a", "fr"), item("b"), item("b", "fr")])
    others = task(
        item(name, language, prompt=prompt)
        for language in ("en", "fr")
        for name, prompt in (("o1", "prompt  A:" if language == "en" else "Question o1:"), ("o2", "Prompt o2:"))
    )
    t = few_shot(asked, 1, examples=others)
    assert [one.prompt.split(":")[0] for one in t.items] == ["Prompt o2", "Prompt o2", "prompt  A", "Question o1"]
    with pytest.raises(ValueError, match="item 'a' of 'en' has 1 other items"):
        few_shot(asked, 2, examples=others)


def test_examples_come_from_elsewhere_and_from_other_passages():
    others = task([item("o1", meta={"passage": "P"}), item("o2", meta={"passage": "Q"})])
    t = few_shot(task([item(meta={"passage": "P"})]), 1, examples=others)
    assert t.items[0].prompt == "Prompt o2: yes o2\n\nPrompt a:"
    with pytest.raises(ValueError, match=r"item 'a' of 'en' has 1 other items .* at most 1 shots"):
        few_shot(task([item(meta={"passage": "P"})]), 2, examples=others)
    with pytest.raises(ValueError, match="shots=-1"):
        few_shot(t, -1)
    with pytest.raises(ValueError, match="no items in 'fr'"):
        few_shot(task([item(language="fr")]), 1, examples=others)


@pytest.mark.parametrize(("make", "name"), [(item, "answers"), (item, "choices"), (lambda: task([item()]), "stop")])
def test_one_string_is_no_list_of_strings(make, name):
    made = make()
    object.__setattr__(made, name, "Lima")  # past the type checker of these tests
    with pytest.raises(ValueError, match=r"'Lima'.* is one string|is one string .'Lima'.: give a list of strings"):
        made.__post_init__()
