"""XQuAD, MGSM and XCOPA from files of their shape, and from records in memory."""

import json
import warnings

import datasets
import pytest

from mwork_lens.tasks.mgsm import mgsm
from mwork_lens.tasks.xcopa import xcopa
from mwork_lens.tasks.xquad import xquad

SQUAD = {
    "en": ("The Panthers gave up 308 points.", "How many points?", "308", "Who gave up?", "Panthers"),
    "zh": ("\ufeff 黑豹队丢了308分。", "多少分？", "308", "谁丢分？", "黑豹队"),
}
COPA = {
    "et": [
        ("Ese oli pakitud.", "See oli õrn.", "See oli väike.", "cause", 0),
        ("Ma otsisin", "Leidsin.", "Kaotasin.", "effect", 1),
    ],
    "th": [("สิ่งของถูกห่อ", "มันบอบบาง", "มันเล็ก", "effect", 0), ("ฉันหา", "ฉันพบ", "ฉันเสีย", "effect", 1)],
    "tr": [
        ("Paketlenmişti.", "İnce idi.", "Küçüktü.", "cause", 0),
        ("Aradım", "Irmak buldum.", "Buldum.", "effect", 1),
    ],
}


def squad_questions(language):
    context, q1, a1, q2, a2 = SQUAD[language]
    asked = ((q1, a1), (q2, a2))
    return context, [
        {"id": f"q{i}", "question": q, "answers": [{"text": a, "answer_start": 0}]} for i, (q, a) in enumerate(asked)
    ]


@pytest.fixture
def folder(tmp_path):
    for language in SQUAD:
        context, qas = squad_questions(language)
        other = {
            "context": "Passage 2",
            "qas": [{"id": "q9", "question": "Q9?", "answers": [{"text": "2", "answer_start": 8}]}],
        }
        held = {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}, other]}]}
        (tmp_path / f"xquad.{language}.json").write_text(json.dumps(held), encoding="utf-8")
    for language, text in (
        ("en", "Eggs?\t18\nMoney?\t2,125\n"),
        ("fr", "Œufs ?\t18\r\nArgent ?\t2,125\r\n"),
        ("zh", "蛋？\t18\n钱？\t2,125\n"),
    ):
        (tmp_path / f"mgsm_{language}.tsv").write_bytes(text.encode())
    for language, rows in COPA.items():
        (tmp_path / language).mkdir()
        lines = [json.dumps({**copa(row), "idx": i, "changed": False}) + "\n" for i, row in enumerate(rows)]
        (tmp_path / language / f"test.{language}.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def copa(row):
    return dict(zip(("premise", "choice1", "choice2", "question", "label"), row, strict=True))


def test_xquad_files(folder):
    t = xquad(folder)
    assert (t.languages, t.parallel, t.how, t.metric, t.ability) == (
        ("en", "zh"),
        ("q0", "q1", "q9"),
        "generate",
        "f1",
        "understanding",
    )
    assert t.items[0].prompt == "The Panthers gave up 308 points.\n\nQuestion: How many points?\nAnswer:"
    assert t.items[0].joined("308").endswith("Answer: 308")
    assert t.of("zh")[0].joined("308") == "黑豹队丢了308分。\n\n问题：多少分？\n答案：308"
    assert t.of("zh")[1].answers == ("黑豹队",)
    assert t.items[0].meta == {"passage": "The Panthers gave up 308 points.", "question": "How many points?"}


def test_xquad_examples_are_of_another_passage(folder):
    t = xquad(folder, "en", shots=1)
    assert t.items[0].prompt.startswith("Passage 2\n\nQuestion: Q9?\nAnswer: 2\n\nThe Panthers")
    assert t.items[2].prompt.startswith(
        "The Panthers gave up 308 points.\n\nQuestion: How many points?\nAnswer: 308\n\nPassage 2"
    )


def test_xquad_records_as_on_the_hub(folder, monkeypatch):
    def rows(language):
        context, qas = squad_questions(language)
        answers = [{"text": [q["answers"][0]["text"]], "answer_start": [0]} for q in qas]
        return datasets.Dataset.from_list(
            [{**q, "context": context, "answers": a} for q, a in zip(qas, answers, strict=True)]
        )

    held = datasets.DatasetDict({language: rows(language) for language in SQUAD})
    files = xquad(folder).where(lambda item: item.id != "q9")
    assert xquad(held) == files
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, config, split: asked.append((name, config, split)) or rows(config[-2:])
    )
    assert xquad("google/xquad", ["zh"]) == files.only("zh")
    assert asked == [("google/xquad", "xquad.zh", "validation")]
    with pytest.raises(ValueError, match="say which languages of 'google/xquad'"):
        xquad("google/xquad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"xquad.en.json is not in SQuAD's format"),
        ('{"data": [{"paragraphs": [{"qas": [{"id": "1"}]}]}]}', r"xquad.en.json is not in SQuAD's format, .*KeyError: 'context'"),
        ('{"data": [{"paragraphs": [{"context": "C", "qas": [{"id": "1"}]}]}]}', "question '1': field 'question' is missing"),
        ('{"data": [{"paragraphs": [{"context": "C", "qas": [{"id": "1", "question": 2, "answers": []}]}]}]}',
         "question '1': field 'question' must be str, got 2"),
        ('{"data": [{"paragraphs": [{"context": "C", "qas": [{"id": "1", "question": "Q", "answers": []}]}]}]}',
         "question '1': field 'answers' is empty"),
        ('{"data": []}', "no items in 'en'"),
    ],
)  # fmt: skip
def test_xquad_faults(tmp_path, text, message):
    (tmp_path / "xquad.en.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        xquad(tmp_path)


def test_mgsm_files(folder):
    t = mgsm(folder)
    assert (t.languages, t.parallel, t.metric, t.max_new_tokens) == (("en", "fr", "zh"), ("0", "1"), "number", 512)
    assert t.items[0].prompt == "Question: Eggs?\nStep-by-Step Answer:"
    assert t.of("fr")[0].prompt == "Question : Œufs ?\nRéponse étape par étape :"
    assert t.of("zh")[1].joined("2125") == "问题：钱？\n逐步解答：2125"
    assert t.items[1].answers == ("2,125",)
    assert t.stop == ("\nQuestion:", "\nQuestion :", "\n问题：")
    few = mgsm(folder, ["zh"], shots=1)
    assert few.items[0].prompt == "问题：钱？\n答案：2,125\n\n问题：蛋？\n答案："
    assert (few.stop, few.max_new_tokens) == (("\n",), 16)


def test_mgsm_lines_are_problems(folder):
    (folder / "mgsm_zh.tsv").write_text("\n钱？\t2,125\n", encoding="utf-8")
    assert [item.id for item in mgsm(folder).of("zh")] == ["1"]
    (folder / "mgsm_zh.tsv").write_text("钱？\t2,125\n", encoding="utf-8")
    with pytest.raises(ValueError, match="problem 0 is 18 in 'en' and 2,125 in 'zh'"):
        mgsm(folder)
    with pytest.raises(ValueError, match="max_new_tokens=0 must be at least 1"):
        mgsm(folder, "en", max_new_tokens=0)


def test_mgsm_records_and_faults(folder):
    t = mgsm({"en": [{"question": "Eggs?", "answer": None, "answer_number": 18}]})
    assert (t.items[0].prompt, t.items[0].answers) == (mgsm(folder, "en").items[0].prompt, ("18",))
    with pytest.raises(ValueError, match="en, record 0: the answer 'many' is no number"):
        mgsm({"en": [{"question": "Eggs?", "answer_number": "many"}]})
    (folder / "mgsm_fr.tsv").write_text("no tab here\n")
    with pytest.raises(ValueError, match=r"mgsm_fr.tsv, line 1: expected a question, a tab"):
        mgsm(folder)


def test_languages_and_folders(folder, tmp_path):
    with pytest.raises(ValueError, match="no items in 'sw' in this source: it has en, fr, zh"):
        mgsm(folder, ["sw"])
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        mgsm(folder, ["xx"])
    with pytest.raises(FileNotFoundError, match="no folder"):
        mgsm(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no files such as mgsm_en.tsv"):
        mgsm(tmp_path / "et")


def test_xcopa_files_and_their_disagreement(folder):
    with pytest.warns(UserWarning, match="disagree on cause or effect in 1 of 2 items: pass question_from"):
        t = xcopa(folder)
    assert (t.how, t.ability, t.languages, t.parallel) == ("choose", "reasoning", ("et", "th", "tr"), ("0", "1"))
    assert t.items[0].joined(t.items[0].choices[1]) == "Ese oli pakitud sest see oli väike."
    assert t.items[1].answers == ("kaotasin.",)
    assert t.of("th")[0].joined("X") == "สิ่งของถูกห่อดังนั้นX"  # nothing is cut: there is no full stop
    assert t.of("tr")[0].choices[0] == "ince idi."
    assert t.of("tr")[1].choices[0] == "ırmak buldum."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xcopa(folder, question_from="et").of("th")[0].prompt == "สิ่งของถูกห่อเพราะ"
        assert (
            xcopa(folder, ["et", "tr"], shots=1).items[0].prompt
            == "Ma otsisin seetõttu kaotasin.\n\nEse oli pakitud sest"
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "why"}, "field 'question' must be cause or effect, got 'why'"),
        ({"label": 2}, "field 'label' must be 0 or 1, got 2"),
        ({"premise": None}, "field 'premise' must be str, got None"),
        ({"choice2": "See oli õrn."}, "field 'choices': 'see oli õrn.' is there twice"),
    ],
)
def test_xcopa_faults(change, message):
    with pytest.raises(ValueError, match="et, record 0: " + message):
        xcopa({"et": [{**copa(COPA["et"][0]), "idx": 0, **change}]})


def test_xcopa_languages_it_does_not_have(folder):
    with pytest.raises(ValueError, match="XCOPA has no 'de'"):
        xcopa({"de": [{**copa(COPA["et"][0]), "idx": 0}]})
    with pytest.raises(ValueError, match="question_from='zh' is not loaded"):
        xcopa(folder, question_from="zh")
    with pytest.raises(ValueError, match="question_from='et' has no item 1, which 'th' has"):
        xcopa(
            {"et": [{**copa(COPA["et"][0]), "idx": 0}], "th": [{**copa(COPA["th"][0]), "idx": 1}]}, question_from="et"
        )
