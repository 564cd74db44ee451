"""The commands of experts: their files hold what the functions give, and one line says where something is wrong."""

import shutil
import warnings

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from test_cli import call, folder, refused, texts  # noqa: F401  # fixtures

import mwork_lens.cli.experts  # noqa: F401  # registers the commands
from mwork_lens.corpora import load_corpora
from mwork_lens.experts.analysis import frequency_table, similarity
from mwork_lens.experts.categories import categories, category_shares, quantile_thresholds, statements
from mwork_lens.experts.frequencies import expert_counts
from mwork_lens.experts.kinship import family_test
from mwork_lens.experts.partition import partition
from mwork_lens.experts.pruning import flops, keep_by_rank, masked, pruning_scores
from mwork_lens.experts.scales import layer_scale, score_moments
from mwork_lens.measure import measure
from mwork_lens.models import load_model
from mwork_lens.perplexity.tables import perplexity_matrix
from mwork_lens.storage import Run, load, load_run, save

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # tiny corpora: too few tokens, by design

EXPERTS, HIGH, LOW = 5, 0.35, 0.2


@pytest.fixture(scope="module")
def model(folder):  # noqa: F811
    return load_model(folder)


@pytest.fixture(scope="module")
def parts(texts):  # noqa: F811
    """The two halves of the texts."""
    return [{x: c.shard(at, 2) for x, c in load_corpora(texts).items()} for at in range(2)]


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):  # noqa: F811
    """Folder of a finished `build`."""
    out = tmp_path_factory.mktemp("built") / "run"
    result = call("experts", "build", "--model", folder, "--experts", EXPERTS, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result


@pytest.fixture(scope="module")
def counted(built, folder, texts, tmp_path_factory):  # noqa: F811
    """A copy of it in which experts were counted on the first half of the texts."""
    out = shutil.copytree(built[0], tmp_path_factory.mktemp("counted") / "run")
    result = call("experts", "frequencies", out, "--model", folder, "--corpora", texts, "--part", "1/2")
    assert result.exit_code == 0, result.output
    return out, result


@pytest.fixture
def fresh(counted, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(counted[0], tmp_path / "run")


def same_counts(found, expected):
    assert list(found) == list(expected)
    for language, counts in found.items():
        assert torch.equal(counts.counts, expected[language].counts)
        assert (counts.how, int(counts.tokens)) == (expected[language].how, int(expected[language].tokens))


def test_build_writes_the_partition(built, model, folder):  # noqa: F811
    out, result = built
    expected = partition(model, experts=EXPERTS, progress=False)
    assert torch.equal(load(out / "partition.safetensors").labels, expected.labels)
    assert load_run(out / "partition.safetensors")["parameters"]["experts"] == EXPERTS
    assert "4 layers of 20 units: 5 experts of 4 (kmeans, gate)" in result.output
    words = ("experts", "build", "--model", folder, "--experts", EXPERTS, "--out", out)
    refused(call(*words), "already holds this run: pass resume=True (--resume)")
    assert call(*words, "--resume").exit_code == 0


def test_build_has_controls(folder, model, tmp_path):  # noqa: F811
    words = ("--experts", 3, "--method", "random", "--seed", 4, "--weights", "both", "--out", tmp_path / "x")
    result = call("experts", "build", "--model", folder, *words)
    assert result.exit_code == 0, result.output
    expected = partition(model, experts=3, method="random", seed=4, weights="both", progress=False)
    found = load(tmp_path / "x" / "partition.safetensors")
    assert torch.equal(found.labels, expected.labels)
    assert found.weights == "both"
    assert "3 experts of 6 to 7 (random, both)" in result.output


def test_frequencies_writes_counts(counted, model, parts):
    out, result = counted
    expected = measure(model, parts[0], expert_counts(load(out / "partition.safetensors")), progress=False)
    found = load(out / "counts.safetensors")
    same_counts(found, expected)
    assert_frame_equal(load(out / "frequencies.parquet"), frequency_table(expected))
    parameters = load_run(out / "counts.safetensors")["parameters"]
    assert (parameters["share"], parameters["part"]) == (0.3, "1/2")
    for language in expected:
        (line,) = [x for x in result.output.splitlines() if f" {language} " in x]
        assert f" {int(expected[language].tokens)} " in line
        assert " 0.300 " in line  # 6 of 20 experts, whatever the texts


def test_frequencies_over_layers_read_twice_and_replace_the_rest(fresh, model, folder, texts, parts):  # noqa: F811
    assert call("experts", "compare", fresh, "--high", HIGH, "--low", LOW).exit_code == 0
    words = ("experts", "frequencies", fresh, "--model", folder, "--corpora", texts, "--part", "1/2", "--z", "layer")
    words += ("--score", "absolute", "--share", 0.4, "--select", "per_layer", "--length", 6)
    result = call(*words)
    assert result.exit_code == 0, result.output
    held = load(fresh / "partition.safetensors")
    how = {"score": "absolute", "length": 6}
    scale = layer_scale(measure(model, parts[0], score_moments(held, **how), progress=False))
    statistic = expert_counts(held, z="layer", share=0.4, select="per_layer", scale=scale, **how)
    same_counts(load(fresh / "counts.safetensors"), measure(model, parts[0], statistic, progress=False))
    assert not (fresh / "similarity.parquet").exists()  # it was of the counts before
    refused(call(*words), "already holds this run: pass resume=True (--resume)")
    assert call(*words, "--resume").exit_code == 0


@pytest.mark.parametrize("quantiles", [None, "0.4,0.2"])
def test_compare_writes_tables_and_needs_no_model(quantiles, fresh, monkeypatch):
    monkeypatch.setattr("mwork_lens.models.load_model", None)
    words = ("--high", HIGH, "--low", LOW) if quantiles is None else ("--quantiles", quantiles)
    result = call("experts", "compare", fresh, "--measure", "spearman", "--shared", "subtract", *words)
    assert result.exit_code == 0, result.output
    counts = load(fresh / "counts.safetensors")
    high, low = (HIGH, LOW) if quantiles is None else quantile_thresholds(counts, top=0.4, bottom=0.2)
    alike = similarity(counts, measure="spearman", shared="subtract", high=high)
    kinds = categories(counts, high=high, low=low)
    expected = {
        "similarity": alike,
        "categories": kinds,
        "shares": category_shares(kinds),
        "statements": statements(counts, high=high, low=low),
        "family": family_test(alike),
    }
    for name, table in expected.items():
        assert_frame_equal(load(fresh / f"{name}.parquet"), table)
    assert load_run(fresh / "similarity.parquet")["parameters"]["high"] == high
    test = expected["family"].iloc[0]
    assert f"p = {test['p']:.4f} (these 3 languages allow no p below {test['smallest_p']:.4f})" in result.output
    pair = alike.set_index(["language", "other"])["similarity"]["en", "de"]
    assert f"{pair:.3f}" in result.output
    assert "more than 1000 of 8192" in result.output


def test_compare_warns_of_few_tokens_once(fresh):
    warnings.simplefilter("always")  # pytest takes it back
    result = call("experts", "compare", fresh)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("warning: too few tokens (en ") == 1


def test_compare_goes_on_without_a_family_test(fresh):
    assert call("experts", "compare", fresh).exit_code == 0
    counts, of = load(fresh / "counts.safetensors"), load_run(fresh / "counts.safetensors")
    kept = Run(of["method"], of["parameters"], of["model"], of["corpora"])
    save({x: counts[x] for x in ("en", "fr")}, fresh / "counts.safetensors", kept)
    result = call("experts", "compare", fresh)
    assert result.exit_code == 0, result.output
    assert "no family test: at least 3 languages are needed" in result.output
    assert not (fresh / "family.parquet").exists()
    assert set(load(fresh / "similarity.parquet")["language"]) == {"en", "fr"}


def test_prune_writes_matrices_and_a_smaller_model(fresh, model, folder, texts, parts, tmp_path):  # noqa: F811
    words = ("experts", "prune", fresh, "--model", folder, "--corpora", texts, "--part", "2/2", "--draws", 2)
    words += ("--keep", "0.8,0.6", "--per-layer")
    small = tmp_path / "small"
    result = call(*words, "--export", small, "--language", "de", "--share", 0.4)
    assert result.exit_code == 0, result.output
    assert "among those counted" not in result.output
    held, counts = load(fresh / "partition.safetensors"), load(fresh / "counts.safetensors")
    expected, relative = [], []
    for share in (0.8, 0.6):
        keeps = {x: keep_by_rank(c.frequency(), share, per_layer=True) for x, c in counts.items()}
        matrix = perplexity_matrix(pruning_scores(model, parts[1], held, keeps, draws=2, progress=False))
        matrix.insert(0, "share", share)
        expected.append(matrix)
        relative += [flops(model, held, keep).relative for keep in keeps.values()]
        for x, row in matrix[matrix["neurons"] == "own"].groupby("off"):
            cell = row.set_index("language").loc[x]
            (line,) = [one for one in result.output.splitlines() if f" {x} " in one and f" {share:g} " in one]
            assert f"{cell['dnll']:+.3f}" in line
            assert f"{cell['random_low']:+.3f} to {cell['random_high']:+.3f}" in line
    assert_frame_equal(load(fresh / "pruning.parquet"), pd.concat(expected, ignore_index=True))
    assert load(fresh / "flops.parquet")["relative"].tolist() == relative
    keep = keep_by_rank(counts["de"].frequency(), 0.4, per_layer=True)
    ids = torch.arange(4, 16)[None]
    with torch.no_grad(), masked(model, held, keep):
        logits = model(ids)
    with torch.no_grad():
        assert torch.allclose(load_model(str(small))(ids), logits, atol=1e-5)
    refused(call(*words), "already holds this run: pass resume=True (--resume)")
    assert call(*words, "--resume").exit_code == 0
    again = (*words, "--resume", "--export", small, "--language", "de", "--share", 0.4)
    refused(call(*again), "small exists and is not an empty folder")


def test_prune_warns_of_counted_texts_and_missing_ones(fresh, folder, texts):  # noqa: F811
    words = ("--model", folder, "--corpora", texts, "--languages", "en,de", "--draws", 0, "--keep", 1)
    result = call("experts", "prune", fresh, *words)
    assert result.exit_code == 0, result.output
    assert "texts of en, de are among those counted" in result.output
    assert "no texts for fr, so their experts are not tried" in result.output
    own = load(fresh / "pruning.parquet").query("neurons == 'own'")
    assert (own["dnll"] == 0).all()  # everything is kept


def test_a_folder_that_lacks_something_is_named(built, counted, folder, texts, tmp_path):  # noqa: F811
    nothing, more = tmp_path / "nothing", ("--model", folder, "--corpora", texts)
    refused(
        call("experts", "frequencies", nothing, *more),
        "nothing holds no partition.safetensors: run `mwork-lens experts build`",
    )
    refused(call("experts", "compare", built[0]), "holds no counts.safetensors: run `mwork-lens experts frequencies`")
    refused(
        call("experts", "prune", built[0], *more), "holds no counts.safetensors: run `mwork-lens experts frequencies`"
    )
    wrong = tmp_path / "wrong"
    shutil.copytree(counted[0], wrong)
    shutil.copy(wrong / "partition.safetensors", wrong / "counts.safetensors")
    refused(call("experts", "compare", wrong), "counts.safetensors holds something else")
    call("experts", "build", "--model", folder, "--experts", 4, "--out", tmp_path / "other")
    shutil.copy(counted[0] / "counts.safetensors", tmp_path / "other")
    refused(call("experts", "prune", tmp_path / "other", *more), "en was counted on another partition")


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("build", ("--experts", 21), "experts=21 is more than the 20 FFN units"),
        ("build", ("--method", "magic"), "unknown method 'magic': choose from kmeans, random, contiguous"),
        ("build", ("--weights", "down"), "unknown weights 'down'"),
        ("frequencies", ("--score", "magic"), "score='magic' is unknown"),
        ("frequencies", ("--z", "magic"), "z='magic' is unknown"),
        ("frequencies", ("--select", "magic"), "select='magic' is unknown"),
        ("frequencies", ("--share", 1.5), "share=1.5 is not a share"),
        ("frequencies", ("--part", "3/2"), "--part '3/2'"),
        ("compare", ("--measure", "magic"), "measure='magic' is unknown"),
        ("compare", ("--shared", "magic"), "shared='magic' is unknown"),
        ("compare", ("--high", 0.1, "--low", 0.5), "high=0.1 and low=0.5"),
        ("compare", ("--quantiles", "0.5"), "--quantiles '0.5': give two shares"),
        ("compare", ("--quantiles", "0.7,0.6"), "top=0.7 and bottom=0.6"),
        ("prune", ("--keep", "0.5,2"), "--keep 2 is not a share"),
        ("prune", ("--keep", "half"), "--keep 'half': give numbers"),
        ("prune", ("--keep", "0.01"), "--keep 0.01, en: share=0.01 of 20 experts is none"),
        ("prune", ("--keep", "0.05"), "--keep 0.05, en: layer "),
        ("prune", ("--keep", "0.05"), "per_layer=True (--per-layer)"),
        ("prune", ("--language", "de"), "--export, --language and --share go together"),
        ("prune", ("--export", "small"), "--export, --language and --share go together"),
        ("prune", ("--export", "small", "--language", "sw", "--share", 0.5), "--language 'sw': experts were counted for en, de, fr"),
        ("prune", ("--export", "small", "--language", "de", "--share", 2), "--share 2, de: share=2.0 is not a share"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(command, words, message, counted, folder, texts, tmp_path):  # noqa: F811
    start = ("experts", command) if command == "build" else ("experts", command, counted[0])
    more = {"build": ("--model", folder, "--out", tmp_path / "x"), "compare": ()}
    result = call(*start, *more.get(command, ("--model", folder, "--corpora", texts)), *words)
    refused(result, message)
