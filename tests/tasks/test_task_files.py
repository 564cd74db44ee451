"""Task files: what is written comes back, and every fault is named with file, line and field."""

import json

import pytest
from test_tasks import item, task

from mwork_lens.tasks import files
from mwork_lens.tasks.files import embedded_tasks, load_task, save_task

GOOD = {"id": "a", "language": "en", "prompt": "P:", "answers": ["x"], "choices": ["x", "y"]}
HEAD = {"task": {"name": "n", "ability": "knowledge"}}


def write(path, *rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_round_trip(tmp_path):
    t = task(
        [item(meta={"passage": "P", "n": [1, 2]}), item("b", "zh", prompt="首都：", answers=("北京", "京"), glue="")],
        metric="f1", stop=("\n", "##"), max_new_tokens=7,
    )  # fmt: skip
    path = save_task(t, tmp_path / "t.jsonl")
    assert load_task(path) == t
    assert load_task(str(path)) == t
    assert save_task(load_task(path), tmp_path / "u.jsonl").read_bytes() == path.read_bytes()
    chosen = task([item(answers=("x",), choices=("x", "y"))], how="choose")
    assert load_task(save_task(chosen, path)) == chosen


def test_settings_come_from_arguments_the_first_line_or_the_items(tmp_path):
    path = write(tmp_path / "mine.jsonl", GOOD, "", {**GOOD, "id": 7, "meta": {"split": "test"}, "glue": ""})
    t = load_task(path, ability="reasoning")
    assert (t.name, t.ability, t.how, t.metric, t.stop) == ("mine", "reasoning", "choose", "accuracy", ("\n",))
    assert [i.id for i in t.items] == ["a", "7"]
    assert [i.glue for i in t.items] == [" ", ""]
    t = load_task(
        write(path, HEAD, GOOD), ability="understanding", how="generate", metric="rouge_l", stop=["."], max_new_tokens=3
    )
    assert (t.name, t.ability, t.how, t.metric, t.stop, t.max_new_tokens) == (
        "n",
        "understanding",
        "generate",
        "rouge_l",
        (".",),
        3,
    )
    with pytest.raises(ValueError, match=r"mine.jsonl: no ability is given"):
        load_task(write(path, GOOD))


def test_a_stop_that_is_one_string_is_not_split(tmp_path):
    with pytest.raises(ValueError, match="stop='Question:' is one string: give a list of strings"):
        load_task(write(tmp_path / "t.jsonl", HEAD, GOOD), stop="Question:")


def test_languages_are_chosen(tmp_path):
    path = write(tmp_path / "t.jsonl", HEAD, GOOD, {**GOOD, "language": "fr"})
    assert load_task(path, languages=["fr"]).languages == ("fr",)
    with pytest.raises(ValueError, match="has no items in 'sw': it has en, fr"):
        load_task(path, languages=["sw"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"bad.jsonl, line 3: not JSON"),
        ("[1]", r"bad.jsonl, line 3: expected a JSON object, got list"),
        ({k: v for k, v in GOOD.items() if k != "prompt"}, "line 3: field 'prompt' is missing"),
        ({k: v for k, v in GOOD.items() if k != "answers"}, "line 3: field 'answers' is missing"),
        ({**GOOD, "answer": "x"}, "line 3: unknown field 'answer'; there are id"),
        ({**GOOD, "prompt": 3}, "line 3: field 'prompt' must be a string, got 3"),
        ({**GOOD, "id": True}, "line 3: field 'id' must be a string or a number"),
        ({**GOOD, "answers": "x"}, "line 3: field 'answers' must be a list, got 'x'"),
        ({**GOOD, "answers": ["x", 2]}, "line 3: field 'answers' must hold strings, got 2"),
        ({**GOOD, "meta": []}, "line 3: field 'meta' must be an object"),
        ({**GOOD, "answers": ["z"]}, "line 3: field 'answers': 'z' is not among the choices"),
        ({**GOOD, "choices": ["x", "y", "y "]}, "line 3: field 'choices': 'y ' is there twice"),
        ({**GOOD, "answers": ["x", "x"]}, "line 3: field 'answers': 'x' is there twice"),
        ({**GOOD, "choices": ["x", ""]}, "line 3: field 'choices': number 1 is of zero length"),
        ({**GOOD, "id": "b", "choices": []}, "line 3: field 'choices' is empty"),
        (
            {k: v for k, v in GOOD.items() if k != "choices"} | {"id": "b"},
            "line 3: field 'choices' is missing, and other",
        ),
        ({**GOOD, "language": "xx"}, "line 3: field 'language': unknown language 'xx'"),
        (GOOD, "line 3: field 'id': 'a' is there twice in 'en'"),
    ],
)
def test_faults_are_named(tmp_path, row, message):
    path = write(tmp_path / "bad.jsonl", HEAD, GOOD, row)
    with pytest.raises(ValueError, match=message):
        load_task(path)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"task": 3}, "line 1: field 'task' must be an object"),
        ({"task": {"nam": "x"}}, "line 1: unknown field 'nam'"),
        ({"task": {"max_new_tokens": "x"}}, "line 1: field 'max_new_tokens' must be a number"),
        ({"task": {"stop": [1]}}, "line 1: field 'stop' must hold strings"),
    ],
)
def test_settings_are_checked(tmp_path, head, message):
    with pytest.raises(ValueError, match=message):
        load_task(write(tmp_path / "bad.jsonl", head, GOOD))


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none.jsonl"):
        load_task(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no items"):
        load_task(write(tmp_path / "empty.jsonl", HEAD))
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}\n')
    with pytest.raises(ValueError, match=r"latin.jsonl is not UTF-8: byte 8 is 0xe9"):
        load_task(tmp_path / "latin.jsonl")
    with pytest.raises(ValueError, match=r"rename 't.json' to 't.jsonl'"):
        save_task(task([item()]), tmp_path / "t.json")
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        save_task(task([item(meta={"x": {1, 2}})]), tmp_path / "t.jsonl")
    assert not (tmp_path / "t.jsonl").exists()


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = write(tmp_path / "t.jsonl", HEAD, GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load_task(path)) == 1


def test_embedded_tasks_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "embedded_folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="no embedded task 'organism/knowledge': there are none"):
        load_task("organism/knowledge")
    (tmp_path / "organism").mkdir()
    save_task(task([item()]), tmp_path / "organism" / "knowledge.jsonl")
    assert embedded_tasks() == ("organism/knowledge",)
    assert load_task("organism/knowledge").items == (item(),)
    with pytest.raises(
        FileNotFoundError, match=r"no embedded task 'knowledge': there are organism/knowledge; for a file"
    ):
        load_task("knowledge")
