"""Measuring is a sum over shards: interrupted, resumed, damaged and failed, it stays the same sum."""

import json
import random
import sys
from dataclasses import dataclass, field
from typing import Any

import families
import pytest
import torch
from conftest import pair

from mwork_lens.collect import moments
from mwork_lens.corpora import Corpus
from mwork_lens.measure import DocumentsFailed, Measured, claim_folder, measure
from mwork_lens.models import load_model
from mwork_lens.neurons import NeuronSet
from mwork_lens.stats import Moments
from mwork_lens.storage import Run, load, load_run, save


@dataclass
class Counting:
    """`moments`, counting its calls, and raising when it meets a given document or has been called often enough."""

    inner: Any = field(default_factory=lambda: moments("ffn", "k", size=2))
    stop_after: int | None = None
    fails: tuple[str, ...] = ()
    error: type[Exception] = ArithmeticError
    calls: int = 0
    seen: list[str] = field(default_factory=list)

    @property
    def size(self):
        return self.inner.size

    @property
    def length(self):
        return self.inner.length

    def parameters(self):
        return self.inner.parameters()

    def __call__(self, model, tokens):
        if self.stop_after is not None and self.calls >= self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        if bad := [name for name in tokens.documents if name in self.fails]:
            raise self.error(f"cannot read {bad[0]}")
        self.seen.extend(tokens.documents)
        return self.inner(model, tokens)


def corpus(language, n, seed):
    rng = random.Random(seed)
    texts = tuple(" ".join(f"w{rng.randrange(90)}" for _ in range(rng.randrange(2, 9))) for _ in range(n))
    return Corpus(language, texts, tuple(f"{language}{i}" for i in range(n)))


@pytest.fixture
def texts():
    """Ten and seven documents: shards of 4 are 4 4 2 and 4 3; batches of 2 are 5 and 4 calls."""
    return {"de": corpus("de", 10, 0), "en": corpus("en", 7, 1)}


@pytest.fixture
def whole(llama, texts):
    return measure(llama, texts, moments("ffn", "k", size=2), chunk=4, progress=False)


def identical(a, b):
    assert list(a) == list(b)
    for language in a:
        mine, yours = a[language].to_tensors()[0], b[language].to_tensors()[0]
        assert mine.keys() == yours.keys()
        for name in mine:
            assert torch.equal(mine[name], yours[name]), (language, name)


def shards(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


def run(model, corpora, statistic=None, **options):
    return measure(model, corpora, statistic or Counting(), chunk=4, progress=False, **options)


def test_measuring_is_the_sum_over_documents(llama, texts, whole):
    for language, found in texts.items():
        ids = [families.tokenizer()(text, return_tensors="pt")["input_ids"] for text in found.texts]
        statistic = moments("ffn", "k")
        total = statistic(llama, ids[0])
        for one in ids[1:]:
            total = total + statistic(llama, one)
        assert whole[language].n == total.n
        for site in ("ffn", "k"):
            torch.testing.assert_close(whole[language].total[site], total.total[site], rtol=1e-5, atol=1e-5)
            assert (
                whole[language].positive[site] - total.positive[site]
            ).abs().max() <= 1  # float32: batching may flip a near-zero
    assert isinstance(whole, Measured)
    assert (list(whole), len(whole), dict(whole.failures), whole.reused) == (["de", "en"], 2, {}, 0)


@pytest.mark.parametrize("chunk", [2, 4, 6, 100])
def test_shards_do_not_change_counts(llama, texts, whole, chunk):
    found = measure(llama, texts, moments("ffn", "k", size=2), chunk=chunk, progress=False)
    for language in texts:
        for site in ("ffn", "k"):
            assert torch.equal(found[language].positive[site], whole[language].positive[site])
            torch.testing.assert_close(found[language].total[site], whole[language].total[site], rtol=1e-12, atol=1e-12)


def test_disk_changes_nothing(llama, texts, whole, tmp_path):
    identical(run(llama, texts, out=tmp_path / "a" / "b"), whole)
    assert [name[:7] for name in shards(tmp_path / "a" / "b")] == [
        "de-0000",
        "de-0001",
        "de-0002",
        "en-0000",
        "en-0001",
    ]
    record = load_run(tmp_path / "a" / "b" / shards(tmp_path / "a" / "b")[0])
    assert record["model"]["layers"] == 2
    assert record["corpora"]["de"]["documents"] == 10


@pytest.mark.parametrize("stop_after", range(9))
def test_an_interrupted_run_resumes_to_the_same_bits(llama, texts, whole, tmp_path, stop_after):
    with pytest.raises(KeyboardInterrupt):
        run(llama, texts, Counting(stop_after=stop_after), out=tmp_path)
    # batches of shards:  de 2 2 1  en 2 2
    finished = sum(stop_after >= needed for needed in (2, 4, 5, 7, 9))
    assert len(shards(tmp_path)) == finished
    assert not list(tmp_path.glob(".*.tmp"))
    statistic = Counting()
    resumed = run(llama, texts, statistic, out=tmp_path, resume=True)
    identical(resumed, whole)
    assert resumed.reused == finished
    assert statistic.calls == 9 - [0, 2, 4, 5, 7][finished]
    again = Counting()
    identical(run(llama, texts, again, out=tmp_path, resume=True), whole)
    assert again.calls == 0


def test_a_deleted_shard_is_computed_again(llama, texts, whole, tmp_path):
    run(llama, texts, out=tmp_path)
    (tmp_path / shards(tmp_path)[1]).unlink()
    statistic = Counting()
    found = run(llama, texts, statistic, out=tmp_path, resume=True)
    identical(found, whole)
    assert statistic.seen == ["de4", "de5", "de6", "de7"]
    assert found.reused == 4


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)


def of_another_run(path):
    save(load(path), path, Run("measure", {"key": "0" * 32}))


def of_another_kind(path):
    save(NeuronSet({}), path, Run("measure"))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (truncate, "is truncated"),
        (empty, "is truncated"),
        (foreign, "was not written by mwork_lens"),
        (of_another_run, "belongs to another run"),
        (of_another_kind, "belongs to another run"),
    ],
)
def test_a_damaged_shard_is_told_and_computed_again(llama, texts, whole, tmp_path, damage, why):
    run(llama, texts, out=tmp_path)
    damage(tmp_path / shards(tmp_path)[3])
    statistic = Counting()
    with pytest.warns(
        UserWarning, match=rf"en-0000-.*\.safetensors cannot be used \(.*{why}.*\): computing this shard again"
    ):
        found = run(llama, texts, statistic, out=tmp_path, resume=True)
    identical(found, whole)
    assert statistic.seen == ["en0", "en1", "en2", "en3"]
    assert run(llama, texts, Counting(stop_after=0), out=tmp_path, resume=True).reused == 5  # mended


def test_leftovers_of_a_killed_process_are_swept(llama, texts, tmp_path):
    run(llama, texts, out=tmp_path)
    (tmp_path / ".de-0000.safetensors.abc.tmp").write_text("half")
    run(llama, texts, out=tmp_path, resume=True)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_nothing_but_leftovers_is_free(tmp_path, resume):
    for name in (".run.id.json.abc.tmp", ".measure.json.abc.tmp"):
        (tmp_path / name).write_text("half")
    claim_folder(tmp_path, {"a": 1}, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["run.id.json"]


def test_leftovers_one_folder_below_are_swept(tmp_path):
    claim_folder(tmp_path, {"a": 1}, resume=False)
    for place in (tmp_path / "scores", tmp_path / "scores" / "deeper"):
        place.mkdir()
        for name in (".en.parquet.abc.tmp", "en.parquet"):
            (place / name).write_text("half")
    claim_folder(tmp_path, {"a": 1}, resume=True)
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["deeper", "en.parquet"]
    assert len(list((tmp_path / "scores" / "deeper").iterdir())) == 2  # not ours to search


@pytest.mark.parametrize("name", ["notes.tmp", ".hidden", ".folder.tmp"])
def test_what_only_resembles_a_leftover_is_somebody_elses(tmp_path, name):
    (tmp_path / name).mkdir() if name == ".folder.tmp" else (tmp_path / name).write_text("precious")
    (tmp_path / ".run.id.json.abc.tmp").write_text("half")
    with pytest.raises(FileExistsError, match="is not empty and holds no run of ours"):
        claim_folder(tmp_path, {"a": 1}, resume=True)
    assert len(list(tmp_path.iterdir())) == 2


# --- whose folder ---


def test_the_same_run_without_resume_is_refused(llama, texts, tmp_path):
    run(llama, texts, out=tmp_path)
    with pytest.raises(
        FileExistsError,
        match=r"already holds this run: pass resume=True \(--resume\) to continue it, or choose another folder",
    ):
        run(llama, texts, out=tmp_path)


def test_the_folder_of_another_run_is_refused(llama, texts, tmp_path):
    run(llama, texts, out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    others = {
        "model": lambda: run(pair("qwen2")[0], texts, out=tmp_path, resume=True),
        "texts": lambda: run(llama, {**texts, "en": corpus("en", 7, 9)}, out=tmp_path, resume=True),
        "sites": lambda: run(llama, texts, moments("ffn", size=2), out=tmp_path, resume=True),
        "length": lambda: run(llama, texts, moments("ffn", "k", size=2, length=50), out=tmp_path, resume=True),
        "size": lambda: run(llama, texts, moments("ffn", "k", size=3), out=tmp_path, resume=True),
        "chunk": lambda: measure(llama, texts, Counting(), out=tmp_path, resume=True, chunk=5, progress=False),
    }
    for differs, other in others.items():
        with pytest.raises(
            FileExistsError, match=rf"already holds another run \(it differs in {differs}\): choose another folder"
        ):
            other()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before  # nothing was touched


def test_a_changed_weight_is_another_run(texts, tmp_path):
    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    run(model, texts, out=tmp_path)
    with torch.no_grad():
        next(model.parameters())[5, 5] += 1e-3
    with pytest.raises(FileExistsError, match="it differs in model"):
        run(model, texts, out=tmp_path, resume=True)
    with torch.no_grad():
        next(model.parameters())[5, 5] -= 1e-3


@pytest.mark.parametrize("resume", [False, True])
def test_somebody_elses_folder_is_refused(llama, texts, tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty and holds no run of ours: choose another folder"):
        run(llama, texts, out=tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(NotADirectoryError, match=r"thesis.tex is a file: give a folder"):
        run(llama, texts, out=tmp_path / "thesis.tex")


def test_resuming_nothing_starts(llama, texts, whole, tmp_path):
    identical(run(llama, texts, out=tmp_path / "new", resume=True), whole)


def test_a_claim_that_cannot_be_read_is_another_run(tmp_path):
    claim_folder(tmp_path, {"a": 1}, resume=False)
    held = json.loads((tmp_path / "run.id.json").read_text())
    assert held["identity"] == {"a": 1}
    (tmp_path / "run.id.json").write_text("{")
    with pytest.raises(FileExistsError, match=r"already holds another run \(it differs in a\)"):
        claim_folder(tmp_path, {"a": 1}, resume=True)


# --- keys ---


def test_the_key_of_a_shard_changes_with_everything_that_decides_it(llama, texts, tmp_path, monkeypatch):
    def keys(name, *args, **options):
        measure(*args, out=tmp_path / name, progress=False, **{"chunk": 4, **options})
        return {path.rpartition("-")[2] for path in shards(tmp_path / name)}

    base = keys("base", llama, texts, moments("ffn", size=2))
    assert len(base) == 5
    assert keys("same", llama, texts, moments("ffn", size=2)) == base
    others = {
        "weights": (pair("qwen2")[0], texts, moments("ffn", size=2)),
        "sites": (llama, texts, moments("k", size=2)),
        "size": (llama, texts, moments("ffn", size=3)),
        "length": (llama, texts, moments("ffn", size=2, length=60)),
    }
    for name, args in others.items():
        assert not keys(name, *args) & base, name
    # one text changed: its shard changes, the others stay
    changed = Corpus("de", (*texts["de"].texts[:5], "w1 w2", *texts["de"].texts[6:]), texts["de"].ids)
    assert len(keys("text", llama, {**texts, "de": changed}, moments("ffn", size=2)) & base) == 4
    monkeypatch.setattr(sys.modules[measure.__module__], "CODE", "another")
    assert not keys("code", llama, texts, moments("ffn", size=2)) & base


# --- failures ---


def test_a_failing_document_is_named_and_the_others_are_measured(llama, texts, tmp_path):
    with pytest.raises(
        DocumentsFailed,
        match=r"1 document\(s\) failed - de/de5: ArithmeticError: cannot read de5\. The others are measured",
    ) as caught:
        run(llama, texts, Counting(fails=("de5",)), out=tmp_path)
    measured = caught.value.measured
    assert measured.failures == {"de": {"de5": "ArithmeticError: cannot read de5"}}
    rest = Corpus("de", texts["de"].texts[:5] + texts["de"].texts[6:], texts["de"].ids[:5] + texts["de"].ids[6:])
    expected = measure(llama, {"de": rest, "en": texts["en"]}, moments("ffn", "k", size=1), progress=False)
    for language in texts:
        assert measured[language].n == expected[language].n
        torch.testing.assert_close(
            measured[language].total["ffn"], expected[language].total["ffn"], rtol=1e-5, atol=1e-5
        )
    # all but its shard are on disk; once it is mended, only that shard is computed
    assert [name[:7] for name in shards(tmp_path)] == ["de-0000", "de-0002", "en-0000", "en-0001"]
    statistic = Counting()
    identical(run(llama, texts, statistic, out=tmp_path, resume=True), run(llama, texts))
    assert statistic.seen == ["de4", "de5", "de6", "de7"]


def test_failures_may_be_allowed(llama, texts):
    found = run(llama, texts, Counting(fails=("de5", "en0")), allow_failures=True)
    assert {language: list(names) for language, names in found.failures.items()} == {"de": ["de5"], "en": ["en0"]}
    assert found["de"].n < run(llama, texts)["de"].n


def test_a_long_list_of_failures_is_cut(llama, texts):
    with pytest.raises(DocumentsFailed, match=r"7 document\(s\) failed - de/de0: .*; de/de4: .*; and 2 more\. "):
        run(llama, texts, Counting(fails=tuple(f"de{i}" for i in range(7))))


def test_a_shard_of_failures_only_is_left_out(llama, texts):
    found = run(llama, texts, Counting(fails=("de0", "de1", "de2", "de3")), allow_failures=True)
    rest = measure(llama, {"de": texts["de"]._part(range(4, 10))}, moments("ffn", "k", size=2), chunk=4, progress=False)
    identical({"de": found["de"]}, rest)


@pytest.mark.parametrize("lost", ["de", "en"])
def test_a_language_of_which_nothing_could_be_measured_is_left_out(llama, texts, whole, lost):
    (other,) = set(texts) - {lost}
    every = Counting(fails=texts[lost].ids)
    with pytest.raises(
        DocumentsFailed,
        match=rf"\d+ document\(s\) failed - {lost}/{lost}0: .*; and \d more\. Nothing is left of '{lost}'\. The others are measured",
    ) as caught:
        run(llama, texts, every)
    allowed = run(llama, texts, every, allow_failures=True)
    for found in (caught.value.measured, allowed):
        identical({other: found[other]}, {other: whole[other]})
        assert list(found) == [other]
        assert tuple(found.failures[lost]) == texts[lost].ids


@pytest.mark.parametrize("allow_failures", [False, True])
def test_nothing_measured_at_all_is_an_error(llama, texts, tmp_path, allow_failures):
    every = texts["de"].ids + texts["en"].ids
    with pytest.raises(
        ValueError,
        match=r"no document could be measured \(de/de0: ArithmeticError: cannot read de0; de/de1: .*\): mend or replace",
    ):
        run(llama, texts, Counting(fails=every), out=tmp_path, allow_failures=allow_failures)
    assert not shards(tmp_path)


@pytest.mark.parametrize("fails", ["en4", "en5"])  # the first and the second of a batch
def test_a_refusal_of_the_model_stops_at_once_and_keeps_what_is_finished(llama, texts, whole, tmp_path, fails):
    statistic = Counting(fails=(fails,), error=NotImplementedError)
    with pytest.raises(NotImplementedError, match=f"cannot read {fails}"):
        run(llama, texts, statistic, out=tmp_path, allow_failures=True)
    assert statistic.calls == 8  # de 5, en 2, and the refused batch; no document of it is tried again
    identical(run(llama, texts, out=tmp_path, resume=True), whole)


def test_a_refusal_found_document_by_document_stops_too(llama, texts):
    class Refusing(Counting):
        def __call__(self, model, tokens):
            if len(tokens) > 1:
                raise ArithmeticError("batches are hard")
            raise NotImplementedError("no such model")

    with pytest.raises(NotImplementedError, match="no such model"):
        run(llama, texts, Refusing(), allow_failures=True)


def test_a_mixture_of_experts_is_no_failed_document(texts):
    with pytest.raises(NotImplementedError, match="is a mixture of experts"):
        run(pair("mixtral")[0], texts, moments("ffn"), allow_failures=True)


def test_an_empty_document_fails_alone(llama, texts):
    de = texts["de"]
    holed = Corpus("de", (*de.texts[:4], "  ", *de.texts[4:]), (*de.ids[:4], "void", *de.ids[4:]))
    with pytest.raises(
        DocumentsFailed, match=r"1 document\(s\) failed - de/void: ValueError: document 'void' of 'de' has no token"
    ) as caught:
        run(llama, {"de": holed, "en": texts["en"]})
    found = caught.value.measured
    assert list(found.failures["de"]) == ["void"]
    expected = run(llama, texts)
    identical({"en": found["en"]}, {"en": expected["en"]})
    assert found["de"].n == expected["de"].n
    torch.testing.assert_close(found["de"].total["ffn"], expected["de"].total["ffn"], rtol=1e-5, atol=1e-5)


def test_beside_an_empty_document_truncation_is_still_counted(llama):
    holed = Corpus("de", ("w1 w2 w3", " ", "w4 w5 w6", "w7"))
    with pytest.warns(UserWarning, match="2 of 4 documents of 'de' were longer than the limit and were truncated"):
        found = run(llama, {"de": holed}, moments("ffn", length=3), allow_failures=True)
    assert found["de"].n == 5


def test_a_broken_activation_names_its_document(texts):
    """The real thing: one token whose embedding is NaN."""
    model = load_model(families.hf_model("llama"), tokenizer=families.tokenizer())
    poisoned = Corpus("de", ("w1 w2", "w3 w95 w92", "w4"), ("good", "bad", "fine"))
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "embed" in n)[4 + 92] = float("nan")
    with pytest.raises(
        DocumentsFailed, match="de/bad: ValueError: NaN or infinite activation at site 'ffn' of layer 0, in bad"
    ):
        measure(model, {"de": poisoned}, moments("ffn"), progress=False)


# --- the rest ---


def test_truncation_is_warned(llama, texts):
    with pytest.warns(UserWarning, match="documents of 'de' were longer than the limit and were truncated"):
        measure(llama, {"de": texts["de"]}, moments("ffn", length=3), progress=False)


def test_nothing_to_measure_is_refused(llama, texts):
    with pytest.raises(ValueError, match="no corpora to measure: give at least one language"):
        measure(llama, {}, moments())
    with pytest.raises(ValueError, match="chunks of 0 documents do not exist"):
        measure(llama, texts, moments(), chunk=0)


def test_a_length_without_room_is_refused_before_anything_is_written(llama, texts, tmp_path):
    statistic = moments("ffn")
    object.__setattr__(statistic, "length", 1)
    with pytest.raises(ValueError, match="length=1: give at least 2 tokens per document"):
        run(llama, texts, statistic, out=tmp_path / "new", allow_failures=True)
    assert not (tmp_path / "new").exists()


def test_a_mapping_of_sums(whole):
    assert isinstance(whole["de"], Moments)
    assert set(whole) == {"de", "en"}
    with pytest.raises(KeyError):
        whole["fr"]
