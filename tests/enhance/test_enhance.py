"""Enhancement: what is trained, what is not, and that a delta goes on and comes off exactly."""

import copy
from dataclasses import replace
from unittest import mock

import jaxtyping
import oracles
import pytest
import torch
from families import FAMILIES, hf_model, tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

import mwork_lens as mw
from mwork_lens.enhance import Delta, Training, enhance
from mwork_lens.enhance.run import LAST_GOOD
from mwork_lens.enhance.slices import owned, rows
from mwork_lens.enhance.training import Slices
from mwork_lens.sites import shape_of

SITES = ("q", "k", "v", "z", "ffn")
QUICK = Training(rate=1e-2, epochs=2, batch=2, accumulation=2, warmup=0.0, weight_decay=0.1, clip=1.0, length=16)


def corpus(count: int = 8, language: str = "xx", offset: int = 0) -> mw.Corpus:
    texts = [" ".join(f"w{(7 * i + 3 * j + offset) % 60}" for j in range(4 + i % 5)) for i in range(count)]
    return mw.Corpus(language, tuple(texts))


def some(model, every: int = 5, sites=SITES) -> mw.NeuronSet:
    """Every fifth unit of a site, shifted by layer, so that no two layers agree."""
    masks = {}
    for site, (layers, width) in shape_of(model, sites).items():
        units = torch.arange(width)
        masks[site] = torch.stack([(units + layer) % every == 0 for layer in range(layers)])
    return mw.NeuronSet(masks, model=mw.fingerprint(model))


def load(family: str, **options):
    return mw.load_model(hf_model(family, **options), tokenizer=tokenizer())


def owned_by(hf, neurons: mw.NeuronSet) -> dict[int, torch.Tensor]:
    """Mask per parameter of what the set owns, by the oracle that knows every family's layout."""
    masks = {id(p): torch.zeros_like(p, dtype=torch.bool) for p in hf.parameters()}
    conv = hf.config.model_type == "gpt2"
    for site, layer, unit in neurons:
        places = oracles.slices(hf, site, layer, unit)
        if site == "ffn":
            down = oracles.down_projection(hf, layer).weight
            places.append((down, (unit,) if conv else (slice(None), unit)))
        for parameter, index in places:
            masks[id(parameter)][index] = True
    return masks


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_outside_the_set_moves_and_everything_inside_does(family, tmp_path):
    hf = hf_model(family)
    before = copy.deepcopy(hf)
    model = mw.load_model(hf, tokenizer=tokenizer())
    neurons, known = some(model), mw.fingerprint(model)
    delta = enhance(model, corpus(), neurons, QUICK, progress=False)
    assert mw.fingerprint(model) == known
    after = AutoModelForCausalLM.from_pretrained(delta.export(model, tmp_path / "hf"), attn_implementation="eager")
    assert mw.fingerprint(model) == known  # exporting put it on and took it off
    mine = owned_by(before, neurons)
    for (name, old), (same, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert name == same
        assert torch.equal(old[~mine[id(old)]], new[~mine[id(old)]]), name
        if bool(mine[id(old)].any()):
            moved = (old != new)[mine[id(old)]]
            # a bias of k shifts every score of a row alike, which no softmax sees: its gradient is rounding, its decay is not
            assert moved.float().mean() > 0.95, name
    ids = torch.tensor([[1, 5, 9, 30, 8]])
    with torch.no_grad(), delta.applied(model):
        on, exported = model(ids), after(ids).logits
    assert torch.allclose(on, exported, atol=2e-5)
    assert delta.neurons(model) == neurons


@pytest.mark.parametrize(("part", "gate", "names"), [
    ("in", False, {"W_Q", "W_K", "W_V", "W_up"}), ("in", True, {"W_Q", "W_K", "W_V", "W_up", "W_gate"}),
    ("out", False, {"W_O", "W_down"}), ("both", False, {"W_Q", "W_K", "W_V", "W_up", "W_O", "W_down"}),
])  # fmt: skip
def test_parts(part, gate, names):
    model = load("llama")
    found = owned(model, some(model), part, gate=gate)
    assert {one.matrix for one in found} == names
    assert all(
        torch.equal(one.units, (torch.arange(999) + one.layer)[: one.units[-1] + 1].fmod(5).eq(0).nonzero().flatten())
        for one in found
    )


def test_a_part_that_does_not_exist(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would see it first
    with pytest.raises(ValueError, match="part='up': choose in, out or both"):
        owned(load("llama"), some(load("llama")), "up")  # pyright: ignore[reportArgumentType]


def test_training_is_a_loop_written_by_hand():
    """AdamW on whole matrices, with gradients masked before the norm is taken: what the released code means to do."""
    model, texts = load("llama", seed=2), corpus(6)
    neurons = some(model, sites=("ffn", "q"))
    training = Training(
        rate=3e-3, epochs=1, batch=2, accumulation=1, warmup=0.0, clip=0.5, length=16, schedule="constant", seed=3
    )
    delta = enhance(model, texts, neurons, training, part="both", progress=False)

    hf = hf_model("llama", seed=2)
    mine = owned_by(hf, neurons)
    chosen = [p for p in hf.parameters() if bool(mine[id(p)].any())]
    optimizer = torch.optim.AdamW(chosen, lr=training.rate, weight_decay=0.0)
    order = _order_of(model, texts, training)
    for batch in order:
        loss, count = torch.zeros(()), 0
        for row in batch:
            ids = torch.tensor([tokenizer()(texts.texts[row])["input_ids"]])
            logp = hf(ids).logits[0, :-1].log_softmax(-1)
            loss = loss - logp.gather(1, ids[0, 1:, None]).sum()
            count += ids.shape[1] - 1
        optimizer.zero_grad()
        (loss / count).backward()
        for p in chosen:
            p.grad[~mine[id(p)]] = 0
        torch.nn.utils.clip_grad_norm_(chosen, training.clip)
        with torch.no_grad():
            kept = [p.clone() for p in chosen]
        optimizer.step()
        with torch.no_grad():
            for p, old in zip(chosen, kept, strict=True):
                p[~mine[id(p)]] = old[~mine[id(p)]]
    down = oracles.down_projection(hf, 1).weight.T[delta.units["1.W_down"]]
    up = oracles.hf_blocks(hf)[0].mlp.up_proj.weight[delta.units["0.W_up"]]
    query = oracles.hf_blocks(hf)[1].self_attn.q_proj.weight[delta.units["1.W_Q"]]
    for key, hand in {"1.W_down": down, "0.W_up": up, "1.W_Q": query}.items():
        change = (hand - delta.before[key]).abs().max()
        assert change > 1e-3
        assert (hand - delta.after[key]).abs().max() < 2e-3 * change, key


def _order_of(model, texts: mw.Corpus, training: Training) -> list[list[int]]:
    """Which documents each step saw: read from the ids that reached the module."""
    by_ids = {tuple(tokenizer()(text)["input_ids"]): i for i, text in enumerate(texts.texts)}
    seen, forward = [], Slices.forward

    def watching(self, input_ids, attention_mask, **rest):
        seen.append(
            [by_ids[tuple(row[mask.bool()].tolist())] for row, mask in zip(input_ids, attention_mask, strict=True)]
        )
        return forward(self, input_ids, attention_mask, **rest)

    with mock.patch.object(Slices, "forward", watching):
        enhance(model, texts, some(model, sites=("ffn",)), training, progress=False)
    return seen


def test_it_learns_its_documents_and_the_log_says_so():
    model, texts = load("llama", std=0.1), corpus(8)
    other = corpus(8, "yy", offset=31)
    training = Training(rate=2e-2, epochs=15, batch=4, accumulation=1, clip=1.0, length=16, save_every=10)
    delta = enhance(model, texts, some(model, 2), training, held_out={"xx": texts, "yy": other}, progress=False)
    rows = [row for row in delta.facts["log"] if "nll" in row]
    assert [row["step"] for row in rows] == [0, 10, 20, 30]
    measured = mw.evaluate(model, {"xx": texts})
    assert rows[0]["nll"]["xx"] == pytest.approx(measured["nll"].sum() / measured["tokens"].sum(), rel=1e-5)
    assert rows[-1]["nll"]["xx"] < rows[0]["nll"]["xx"] - 0.5
    gain = {name: rows[0]["nll"][name] - rows[-1]["nll"][name] for name in ("xx", "yy")}
    assert gain["xx"] > gain["yy"] + 0.3  # documents it did not see gain less
    with delta.applied(model):
        after = mw.evaluate(model, {"xx": texts})
    assert after["nll"].sum() / after["tokens"].sum() == pytest.approx(rows[-1]["nll"]["xx"], rel=1e-5)
    known = enhance(
        model, texts, some(model, 2), training, held_out={"xx": texts, "yy": other}, baseline=False, progress=False
    )
    assert [row for row in known.facts["log"] if "nll" in row] == rows[1:]


def test_a_bar_is_all_that_is_shown(monkeypatch, capfd):
    """Hugging Face would print every loss beside it; TQDM_DISABLE hides it."""
    model, bar = load("llama"), mock.MagicMock()
    monkeypatch.setattr("transformers.trainer_callback.tqdm", bar)
    for disabled, progress, shown in (("0", True, 1), ("1", True, 0), ("0", False, 0)):
        monkeypatch.setenv("TQDM_DISABLE", disabled)
        bar.reset_mock()
        enhance(model, corpus(2), some(model), replace(QUICK, epochs=1, accumulation=1), progress=progress)
        assert bar.call_count == shown
        assert bar.return_value.update.call_count == shown, "one step"
        assert not bar.return_value.write.called
        assert "loss" not in "".join(capfd.readouterr())


def test_accumulating_is_a_larger_batch():
    model, texts = load("llama"), corpus(8)
    whole = Training(rate=1e-3, epochs=1, batch=4, accumulation=1, length=16, schedule="constant", warmup=0.0)
    halves = Training(rate=1e-3, epochs=1, batch=2, accumulation=2, length=16, schedule="constant", warmup=0.0)
    one, other = (enhance(model, texts, some(model), how, progress=False) for how in (whole, halves))
    for key in one.units:
        assert torch.allclose(one.after[key], other.after[key], atol=2e-5), key


class Stopped(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path):
    model, texts = load("llama"), corpus(9)
    training = Training(rate=1e-2, epochs=4, batch=2, accumulation=1, length=16, save_every=3)
    options = {"held_out": {"xx": texts}, "progress": False}
    whole = enhance(model, texts, some(model), training, out=tmp_path / "whole", **options)
    forward, calls = Slices.forward, []

    def failing(self, *args, **named):
        calls.append(1)
        if self.training and sum(calls) > 30:
            raise Stopped
        return forward(self, *args, **named)

    with mock.patch.object(Slices, "forward", failing), pytest.raises(Stopped):
        enhance(model, texts, some(model), training, out=tmp_path / "parts", **options)
    assert (tmp_path / "parts" / "checkpoints").is_dir()
    with pytest.raises(ValueError, match=r"holds this very run: pass resume=True \(--resume\)"):
        enhance(model, texts, some(model), training, out=tmp_path / "parts", **options)
    again = enhance(model, texts, some(model), training, out=tmp_path / "parts", resume=True, **options)
    assert all(torch.equal(whole.after[key], again.after[key]) for key in whole.units)
    assert [row["nll"] for row in whole.facts["log"] if "nll" in row] == [
        row["nll"] for row in again.facts["log"] if "nll" in row
    ]
    with mock.patch.object(Slices, "forward", side_effect=AssertionError):  # a finished run is read, not made again
        kept = enhance(model, texts, some(model), training, out=tmp_path / "parts", resume=True, **options)
    assert all(torch.equal(whole.after[key], kept.after[key]) for key in whole.units)


def test_half_precision_is_trained_in_single_and_rounded_once():
    model = mw.load_model(hf_model("llama").to(torch.bfloat16), tokenizer=tokenizer())
    texts = corpus(8)
    small, large = (
        enhance(
            model, texts, some(model), Training(rate=rate, epochs=2, batch=4, accumulation=1, length=16), progress=False
        )
        for rate in (1e-7, 1e-2)
    )
    assert small.after["0.W_Q"].dtype == torch.bfloat16
    assert small.changed < 0.01 * small.size  # steps far below the spacing of the weights leave nothing
    assert large.changed > 0.9 * large.size
    known = mw.fingerprint(model)
    with large.applied(model):
        assert mw.fingerprint(model) != known
    assert mw.fingerprint(model) == known


def test_a_delta_is_a_file(tmp_path):
    model = load("gpt2")
    delta = enhance(model, corpus(), some(model), QUICK, out=tmp_path / "run", progress=False)
    read = mw.load(tmp_path / "run" / "delta.safetensors")
    assert read.facts["training"]["rate"] == QUICK.rate
    assert read.model == mw.fingerprint(model)
    assert all(
        torch.equal(delta.after[key], read.after[key]) and torch.equal(delta.units[key], read.units[key])
        for key in delta.units
    )
    known = mw.fingerprint(model)
    read.apply(model)
    with pytest.raises(ValueError, match="take off any other delta first"):
        read.apply(model)
    read.remove(model)
    assert mw.fingerprint(model) == known
    with pytest.raises(ValueError, match="does not hold what this delta expects there: nothing was changed"):
        read.remove(model)
    assert mw.fingerprint(model) == known
    assert (tmp_path / "run" / "delta.safetensors").stat().st_size < 3e5


@given(st.lists(st.integers(0, 43), min_size=1, max_size=9, unique=True), st.integers(0, 2**16))
def test_on_and_off_again_is_nothing(units, seed):
    model = _tiny()
    view = rows(model, 1, "W_down")
    chosen = torch.tensor(units)
    new = torch.randn(len(units), 32, generator=torch.Generator().manual_seed(seed))
    known = mw.fingerprint(model)
    delta = Delta({"1.W_down": chosen}, {"1.W_down": view[chosen].clone()}, {"1.W_down": new}, known)
    with delta.applied(model):
        assert torch.equal(rows(model, 1, "W_down")[chosen], new)
        others = [i for i in range(44) if i not in units]
        assert torch.equal(rows(model, 1, "W_down")[others], view[others])
    assert mw.fingerprint(model) == known


_kept: list = []


def _tiny():
    if not _kept:
        _kept.append(load("llama"))
    return _kept[0]


def test_bad_input_is_refused_before_anything_is_trained(tmp_path):
    model = load("llama")
    empty = some(model) & ~some(model)
    cases = [
        ({"neurons": empty}, "NeuronSet is empty, so there is nothing to train"),
        ({"corpus": corpus(1)}, "1 documents of 'xx' do not fill a batch of 2"),
        ({"neurons": some(model, sites=("q",)), "part": "out"}, "owns no slice that is 'out'"),
        ({"neurons": some(load("qwen3"), sites=("q",))}, "it was detected on another model"),
    ]
    for changed, message in cases:
        given = {"corpus": corpus(), "neurons": some(model), "part": "both"} | changed
        with pytest.raises(ValueError, match=message):
            enhance(model, given["corpus"], given["neurons"], QUICK, part=given["part"], progress=False)
    delta = enhance(model, corpus(), some(model), QUICK, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="holds another run"):
        enhance(model, corpus(), some(model, 4), QUICK, out=tmp_path, progress=False)
    other = load("llama", seed=1)
    with pytest.raises(ValueError, match="this delta is for the model"):
        delta.apply(other)


@pytest.mark.parametrize(("field", "value"), [
    ("rate", 0.0), ("rate", float("nan")), ("epochs", -1), ("clip", 0.0), ("batch", 0), ("accumulation", 0), ("save_every", 0), ("warmup", 1.5),
    ("weight_decay", -1.0),
])  # fmt: skip
def test_settings_that_mean_nothing(field, value):
    with pytest.raises(ValueError, match=f"{field}="):
        Training(**{field: value})


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_state(tmp_path):
    model = load("llama")
    wild = Training(
        rate=1e18,
        epochs=4,
        batch=2,
        accumulation=1,
        clip=1.0,
        warmup=0.0,
        length=16,
        save_every=100,
        schedule="constant",
    )
    with pytest.raises(
        ValueError, match=r"step \d+.* (nan|inf|NaN).*the slices are as after step \d+; they are in .*last_good"
    ):
        enhance(model, corpus(), some(model), wild, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"give out=\.\.\. to keep them"):
        enhance(model, corpus(), some(model), wild, progress=False)


def test_what_is_kept_is_the_state_whose_loss_was_last_a_number(tmp_path):
    model, seen, forward = load("llama"), [], Slices.forward

    def failing(self, *args, **named):
        seen.append({name: value.detach().clone() for name, value in self.values.items()})
        output = forward(self, *args, **named)
        if len(seen) == 5:
            output.loss = output.loss * float("nan")
        return output

    training = Training(rate=1e-2, epochs=4, batch=2, accumulation=1, length=16)
    message = "step 5: the loss is nan, so the slices are as after step 3"
    with mock.patch.object(Slices, "forward", failing), pytest.raises(ValueError, match=message):
        enhance(model, corpus(), some(model), training, out=tmp_path, progress=False)
    kept = mw.load(tmp_path / LAST_GOOD)
    assert all(torch.equal(kept.after[key], seen[3][key.replace(".", "_")]) for key in kept.units)
    assert not torch.equal(seen[3]["0_W_Q"], seen[4]["0_W_Q"])


def test_a_model_that_never_gives_a_number(tmp_path):
    hf = hf_model("llama")
    with torch.no_grad():
        hf.get_output_embeddings().weight[5, 5] = float("nan")
    model = mw.load_model(hf, tokenizer=tokenizer())
    with pytest.raises(ValueError, match="step 1: the loss is nan, before anything was trained"):
        enhance(model, corpus(), some(model), QUICK, progress=False)


def test_a_delta_must_be_whole():
    units, row = torch.tensor([1]), torch.zeros(1, 4)
    for units_, before, after, message in [
        ({}, {}, {}, "needs the same slices, at least one"),
        ({"0.W_Q": units}, {"0.W_Q": torch.zeros(2, 4)}, {"0.W_Q": row}, "1 units, but 2 and 1 rows"),
        (
            {"0.W_Q": units},
            {"0.W_Q": row},
            {"0.W_Q": row * float("nan")},
            "is NaN or infinite; train again at a lower rate",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            Delta(units_, before, after, "model")
