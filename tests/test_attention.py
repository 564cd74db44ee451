"""attention.py and the closed forms of attention_change.py, against an attention written in NumPy that zeroes each unit and runs again."""

import sys
from dataclasses import replace
from typing import Any

import families
import numpy as np
import oracles
import pytest
import torch
from conftest import document, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mwork_lens.attention import PAIRINGS, Attention, Rotation, of_layer, wanted
from mwork_lens.capture import capture
from mwork_lens.detect import attention_change as change
from mwork_lens.detect.attention_change import (
    attention_change,
    output_change,
    output_factor,
    score_changes,
    value_change,
)
from mwork_lens.detect.plnd import neuron_importance
from mwork_lens.models import load_model

MEASURES = {"attention": attention_change, "output": output_change}


def of_v(att: Attention) -> torch.Tensor:
    return value_change(att.z, att.W_O, att.group)


def as_attention(parts: oracles.Parts, dtype: torch.dtype = torch.float64) -> Attention:
    """The package's view of an oracle's parts."""

    def tensor(x: Any) -> torch.Tensor:
        return torch.tensor(x, dtype=dtype)

    def norm(gain: Any) -> Any:
        if gain is None:
            return None

        def normed(x: torch.Tensor, head: int | None) -> torch.Tensor:
            axes = (-1,) if gain.size == x.shape[-1] else (-2, -1)
            size = (x.square().mean(axes, keepdim=True) + oracles.EPSILON).sqrt()
            return x / size * tensor(gain).reshape(x.shape[-len(axes) :])

        return normed

    d_head = parts.q.shape[2]
    rotation = None if parts.angles is None else Rotation.of(*map(tensor, parts.tables()), d_head, parts.pairing)
    return Attention(
        layer=0, q=tensor(parts.q), k=tensor(parts.k), v=tensor(parts.v), W_O=tensor(parts.W_O), scale=parts.scale,
        cap=parts.cap, bias=tensor(parts.bias), rotation=rotation, q_norm=norm(parts.q_gain),
        k_norm=norm(parts.k_gain), norm_joins_heads=parts.joined,
    )  # fmt: skip


def closed_form(att: Attention, site: str, measure: str, units: Any = None) -> np.ndarray:
    """[owner, unit] importances of q or k."""
    chosen = torch.arange(att.q.shape[2]) if units is None else units
    owners = (att.q if site == "q" else att.k).shape[0]
    return torch.stack([MEASURES[measure](att, score_changes(att, site, o, chosen)) for o in range(owners)]).numpy()


@st.composite
def st_parts(draw: Any, *, peaks: Any = (0.1, 1.0, 4.0), longest: int = 20) -> oracles.Parts:
    """Any attention: heads, groups, widths, rotation, norm, cap, ALiBi, window."""
    d_head = draw(st.sampled_from([2, 4, 6, 8]))
    return oracles.random_parts(
        draw(st.integers(0, 2**20)),
        kv=draw(st.integers(1, 3)),
        group=draw(st.integers(1, 3)),
        d_head=d_head,
        length=draw(st.integers(1, longest)),
        d_model=draw(st.integers(1, 11)),
        rotary=draw(st.sampled_from(range(0, d_head + 1, 2))),
        pairing=draw(st.sampled_from(["half-split", "adjacent"])),
        cap=draw(st.sampled_from([None, None, 2.0, 30.0])),
        norm=draw(st.sampled_from(["none", "none", "head", "joined"])),
        alibi=draw(st.booleans()),
        window=draw(st.sampled_from([None, None, 1, 3])),
        peak=draw(st.sampled_from(list(peaks))),
        offset=draw(st.sampled_from([0.0, 0.0, 3.0])),
    )


def assert_close(found: np.ndarray, right: np.ndarray, *, rtol: float, floor: float) -> None:
    """`floor` is what the subtraction of two float64 patterns of size one loses in the oracle itself."""
    np.testing.assert_allclose(found, right, rtol=rtol, atol=floor)


# ---------------------------------------------------------------- the parts


@given(parts=st_parts())
def test_pattern_and_z_equal_the_naive_attention(parts: oracles.Parts) -> None:
    att = as_attention(parts)
    pattern, z, out = oracles.attend(parts)
    np.testing.assert_allclose(att.pattern.numpy(), pattern, atol=1e-12)
    np.testing.assert_allclose(att.z.numpy(), z, atol=1e-11)
    np.testing.assert_allclose(torch.einsum("hpd,hdm->pm", att.z, att.W_O).numpy(), out, atol=1e-10)
    assert not att.pattern.numpy()[:, ~parts.visible].any()


@given(
    pairs=st.sampled_from(PAIRINGS),
    d_head=st.sampled_from([4, 6, 10]),
    rotary=st.sampled_from([2, 4]),
    seed=st.integers(0, 99),
)
def test_a_rotation_turns_pairs_and_keeps_norms(pairs: str, d_head: int, rotary: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles, x = rng.normal(size=(5, rotary // 2)), rng.normal(size=(2, 5, d_head))
    wide = np.concatenate([angles, angles], 1) if pairs != "adjacent" else np.repeat(angles, 2, 1)
    rotation = Rotation.of(torch.tensor(np.cos(wide)), torch.tensor(np.sin(wide)), d_head, pairs)
    found = rotation(torch.tensor(x)).numpy()
    for p in range(rotary // 2):
        a, b = (p, p + rotary // 2) if pairs == "half-split" else (2 * p, 2 * p + 1)
        turned = (x[:, :, a] + 1j * x[:, :, b]) * np.exp(1j * angles[:, p])
        np.testing.assert_allclose(found[:, :, a] + 1j * found[:, :, b], turned, atol=1e-12)
    np.testing.assert_array_equal(found[:, :, rotary:], x[:, :, rotary:])


def _attentions(model: Any, ids: torch.Tensor) -> list[Attention]:
    found: list[Attention] = []
    capture(model, ids, wanted(model), lambda layer, seen: found.append(of_layer(model, layer, seen)))
    return found


def test_every_family_is_taken_apart_rightly(any_family: tuple[str, Any, Any]) -> None:
    _, model, plain = any_family
    for length in (1, 2, 13):
        ids = document(length, seed=length)
        for layer, att in enumerate(_attentions(model, ids)):
            seen = oracles.observe(plain, ids, layer)
            np.testing.assert_allclose(att.pattern.numpy(), seen["pattern"][0].numpy(), atol=2e-6)
            out = torch.einsum("hpd,hdm->pm", att.z, att.W_O)
            bias = getattr(oracles.o_projection(plain, layer), "bias", None)
            right = seen["attn"][0] - (0 if bias is None else bias.detach())
            np.testing.assert_allclose(out.numpy(), right.numpy(), atol=2e-5 * float(right.abs().max()))


def _seen(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    capture(model, ids, wanted(model), lambda layer, seen: kept.update(seen) if layer == 1 else None)
    return kept


def test_a_scale_that_is_not_the_models_is_refused(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _seen(llama, document())
    assert of_layer(llama, 1, seen).layer == 1
    original = llama.blocks[1].attn.original_component
    monkeypatch.setattr(original, "scaling", 1.1 * original.scaling)
    with pytest.raises(
        NotImplementedError, match=r"layer 1 .*is not reproduced.*half-split.*sites=\('ffn', 'v', 'z'\)"
    ):
        of_layer(llama, 1, seen)


@pytest.mark.parametrize("name", ["q", "k", "v", "z", "pattern", "scores", "cos"])
def test_parts_that_do_not_fit_together_are_refused(llama: Any, name: str) -> None:
    seen = _seen(llama, document())
    with pytest.raises(NotImplementedError, match="is not reproduced"):
        of_layer(llama, 1, {**seen, name: seen[name].flip(1) if name != "scores" else 0.9 * seen[name]})


def test_scores_biased_by_something_else_than_alibi_are_refused() -> None:
    model = pair("bloom")[0]
    seen = _seen(model, document())
    of_layer(model, 1, seen)
    noise = torch.randn(seen["scores"].shape, generator=torch.Generator().manual_seed(0))
    scores = seen["scores"] + noise
    with pytest.raises(NotImplementedError, match="is not reproduced"):
        of_layer(model, 1, {**seen, "scores": scores, "pattern": scores.softmax(-1)})


@pytest.mark.parametrize("length", [1, 7, 20])
def test_other_families_are_read_or_refused(length: int) -> None:
    """Cohere2 rotates in its sliding layers only: reproduced or refused, never silently wrong (the check is `of_layer`'s own)."""
    ids = document(length)
    for family in families.OTHERS:
        model, plain = pair(family)
        for layer, att in enumerate(_attentions(model, ids)):
            np.testing.assert_allclose(att.pattern.numpy(), oracles.observe_pattern(plain, ids, layer), atol=2e-6)


# ---------------------------------------------------------------- the closed forms


@settings(max_examples=60)
@given(parts=st_parts(), site=st.sampled_from(["q", "k"]))
def test_closed_forms_equal_ablation_in_double_precision(parts: oracles.Parts, site: str) -> None:
    att, right = as_attention(parts), oracles.ablation(parts, site)
    for measure in MEASURES:
        assert_close(closed_form(att, site, measure), right[measure], rtol=1e-8, floor=1e-12)


@settings(max_examples=60)
@given(parts=st_parts(), site=st.sampled_from(["q", "k"]))
def test_closed_forms_keep_their_digits_in_single_precision(parts: oracles.Parts, site: str) -> None:
    att, right = as_attention(parts, torch.float32), oracles.ablation(parts, site)
    logits = 1 + float(att.raw.abs().max())
    for measure in MEASURES:
        found = closed_form(att, site, measure)
        assert_close(found, right[measure], rtol=1e-4, floor=2e-6 * logits)


@given(parts=st_parts(peaks=(10.0, 30.0, 100.0)), site=st.sampled_from(["q", "k"]), single=st.booleans())
def test_closed_forms_hold_where_attention_is_adversarially_peaked(
    parts: oracles.Parts, site: str, single: bool
) -> None:
    """Scores that differ by hundreds: A underflows where A' does not."""
    att, right = as_attention(parts, torch.float32 if single else torch.float64), oracles.ablation(parts, site)
    logits = 1 + float(att.raw.abs().max())
    for measure in MEASURES:
        found = closed_form(att, site, measure)
        assert np.isfinite(found).all()
        assert_close(found, right[measure], rtol=1e-3 if single else 1e-8, floor=(1e-6 if single else 1e-14) * logits)


def test_a_key_that_had_no_weight_at_all_takes_over() -> None:
    """exp(-200) is zero in float32: the relative change A exp(D) would leave it there."""
    parts = oracles.random_parts(0, kv=1, group=1, d_head=2, length=2, rotary=0)
    q, k = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    q[0, 1], k[0, 0], k[0, 1] = (1.0, 1.0), (200.0, 0.0), (0.0, 50.0)
    parts = replace(parts, q=q, k=k, scale=1.0)
    att = as_attention(parts, torch.float32)
    assert att.pattern[0, 1, 1] == 0.0
    assert_close(closed_form(att, "q", "attention"), np.array([[2**0.5, 0.0]]), rtol=1e-6, floor=0.0)
    assert_close(closed_form(att, "k", "output"), oracles.ablation(parts, "k")["output"], rtol=1e-5, floor=0.0)


def test_a_small_change_keeps_its_digits_beside_a_large_one() -> None:
    parts = oracles.random_parts(0, kv=1, group=1, length=10, rotary=0)
    q = parts.q.copy()
    q[0, :, 0] *= 80
    q[0, :, 1] *= 2.0**-20
    parts = replace(parts, q=q)
    right = oracles.ablation(parts, "q")
    assert right["attention"][0, 0] > 1
    assert right["attention"][0, 1] < 1e-6
    for measure in MEASURES:
        found = closed_form(as_attention(parts, torch.float32), "q", measure)
        np.testing.assert_allclose(found, right[measure], rtol=1e-4)


@given(parts=st_parts())
def test_value_change_equals_ablation(parts: oracles.Parts) -> None:
    right = oracles.ablation(parts, "v")["output"]
    assert_close(of_v(as_attention(parts)).numpy(), right, rtol=1e-7, floor=1e-9)
    assert_close(of_v(as_attention(parts, torch.float32)).numpy(), right, rtol=1e-3, floor=1e-4)


@pytest.mark.parametrize("window", [None, 5, 33])
@pytest.mark.parametrize("norm", ["none", "head", "joined"])
def test_long_documents_are_cut_into_blocks_without_a_seam(
    window: int | None, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = oracles.random_parts(1, length=2 * change._ROWS + 7, window=window, norm=norm, d_head=4, peak=1.5)
    att = as_attention(parts)
    for site in ("q", "k"):
        right = oracles.ablation(parts, site)
        for measure in MEASURES:
            assert_close(closed_form(att, site, measure), right[measure], rtol=1e-8, floor=1e-12)
            whole = closed_form(att, site, measure)
            with monkeypatch.context() as patch:
                patch.setattr(change, "_ROWS", 5)
                patch.setattr(change, "_blocks", _unit_by_unit(change._blocks))
                assert_close(closed_form(att, site, measure), whole, rtol=1e-10, floor=1e-14)


def _unit_by_unit(blocks: Any) -> Any:
    """The same cover with blocks of at most two units, as under a budget that is nearly spent."""

    def cut(att: Attention, head: int, count: int) -> Any:
        for units, rows, keys in blocks(att, head, count):
            for at in range(units.start, units.stop, 2):
                yield slice(at, min(at + 2, units.stop)), rows, keys

    return cut


@given(
    length=st.integers(1, 150),
    count=st.sampled_from([1, 3, 64, 4000]),
    window=st.sampled_from([None, 1, 4, 40]),
    seed=st.integers(0, 9),
)
def test_blocks_cover_every_visible_score_once(length: int, count: int, window: int | None, seed: int) -> None:
    parts = oracles.random_parts(seed, kv=1, group=1, d_head=2, length=length, window=window)
    covered = np.zeros((count, length, length), np.int8)
    for units, rows, keys in change._blocks(as_attention(parts), 0, count):
        covered[units, rows, keys] += 1
    assert covered.max() <= 1
    assert (covered[:, parts.visible] == 1).all()


@given(heads=st.integers(1, 4), d_head=st.sampled_from([2, 4]), d_model=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_factor_of_W_O_keeps_norms(heads: int, d_head: int, d_model: int, seed: int) -> None:
    att = as_attention(oracles.random_parts(seed, kv=heads, group=1, d_head=d_head, d_model=d_model, length=3))
    chosen = list(range(0, heads, 2))
    factor = output_factor(att, chosen)
    W_O = att.W_O[chosen].flatten(0, 1)
    assert factor.shape[1] <= d_model
    x = torch.randn(5, len(W_O), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close((x @ factor).norm(dim=1), (x @ W_O).norm(dim=1))


# ---------------------------------------------------------------- laws


@given(parts=st_parts(peaks=(0.5, 1.0, 3.0)), unit=st.integers(0, 1))
def test_a_unit_that_is_already_zero_has_no_importance(parts: oracles.Parts, unit: int) -> None:
    for site in ("q", "k"):
        silenced = getattr(parts, site).copy()
        silenced[0, :, unit] = 0.0
        att = as_attention(replace(parts, **{site: silenced}))
        for measure in MEASURES:
            found = closed_form(att, site, measure)
            assert found[0, unit] == 0.0
            assert (found >= 0).all()


@given(seed=st.integers(0, 999), group=st.integers(1, 3))
def test_without_rotation_a_coordinate_silent_on_one_side_is_silent_on_the_other(seed: int, group: int) -> None:
    parts = oracles.random_parts(seed, group=group, rotary=0)
    k = parts.k.copy()
    k[1, :, 2] = 0.0
    att = as_attention(replace(parts, k=k))
    for measure in MEASURES:
        found = closed_form(att, "q", measure)
        assert (found[group : 2 * group, 2] == 0.0).all()  # the query heads of that key/value head
        assert (np.delete(found, 2, axis=1) > 0).all()  # and no other


def test_under_a_rotation_the_partner_keeps_a_coordinate_alive() -> None:
    """The control of the test above: this is why removal before and after RoPE differ."""
    parts = oracles.random_parts(0, group=1)
    k = parts.k.copy()
    k[1, :, 2] = 0.0
    assert closed_form(as_attention(replace(parts, k=k)), "q", "attention")[1, 2] > 1e-3


@given(seed=st.integers(0, 999), group=st.integers(2, 4), cap=st.sampled_from([None, 3.0]))
def test_hand_expanded_heads(seed: int, group: int, cap: float | None) -> None:
    """Every query head with a k and v of its own: q keeps its scores; a k row is the root sum of squares of its copies; v is not."""
    parts = oracles.random_parts(seed, group=group, cap=cap)
    expanded = replace(parts, k=parts.k.repeat(group, 0), v=parts.v.repeat(group, 0))
    att, wide = as_attention(parts), as_attention(expanded)
    for measure in MEASURES:
        np.testing.assert_allclose(closed_form(att, "q", measure), closed_form(wide, "q", measure), rtol=1e-9)
    copies = closed_form(wide, "k", "attention").reshape(len(parts.k), group, -1)
    np.testing.assert_allclose(closed_form(att, "k", "attention"), np.sqrt((copies**2).sum(1)), rtol=1e-9)
    alone = of_v(wide).numpy().reshape(len(parts.k), group, -1)
    summed = np.sqrt((alone**2).sum(1))
    together = of_v(att).numpy()
    assert not np.allclose(together, summed, rtol=1e-3)  # the cross terms
    z, W_O = oracles.attend(parts)[1], parts.W_O
    cross = np.zeros_like(together)
    for kv in range(len(parts.k)):
        for a in range(kv * group, (kv + 1) * group):
            for b in range(a + 1, (kv + 1) * group):
                cross[kv] += 2 * (z[a] * z[b]).sum(0) * (W_O[a] * W_O[b]).sum(1)
    np.testing.assert_allclose(together**2, summed**2 + cross, rtol=1e-8, atol=1e-9)


@given(parts=st_parts(), constant=st.floats(-50, 50))
def test_what_all_keys_share_is_invisible(parts: oracles.Parts, constant: float) -> None:
    """A softmax does not see a constant: without rotation, norm or cap, a bias of k moves no query's importance."""
    bare = replace(parts, angles=None, q_gain=None, k_gain=None, cap=None)
    moved = replace(bare, k=bare.k + constant)
    for site, measure in (("q", "attention"), ("q", "output")):
        right = closed_form(as_attention(bare), site, measure)
        np.testing.assert_allclose(closed_form(as_attention(moved), site, measure), right, rtol=1e-6, atol=1e-9)


def test_a_document_of_one_token_has_no_attention_to_change() -> None:
    att = as_attention(oracles.random_parts(0, length=1))
    for site in ("q", "k"):
        for measure in MEASURES:
            assert not closed_form(att, site, measure).any()
    assert (of_v(att) > 0).all()


@pytest.mark.parametrize("heads", [(1, 1), (3, 1), (6, 3)])
def test_odd_models_are_taken_apart(heads: tuple[int, int]) -> None:
    config = families.LlamaConfig(
        vocab_size=families.VOCAB, hidden_size=30, intermediate_size=37, num_hidden_layers=1, head_dim=10,
        num_attention_heads=heads[0], num_key_value_heads=heads[1], max_position_embeddings=families.CONTEXT,
    )  # fmt: skip
    model = load_model(families.hf_model("llama", config=config), tokenizer=families.tokenizer())
    (att,) = _attentions(model, document())
    assert (att.q.shape[0], att.k.shape[0], att.group) == (*heads, heads[0] // heads[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "cohere", "qwen3", "gemma2", "neox", "phi3", "olmo2"])
def test_half_precision_is_read_like_single(family: str, dtype: torch.dtype) -> None:
    """Float16 masks with -65504, which is no bias; and a wrong rotary pairing must not hide behind coarse numbers."""
    weak = {"std": 0.08}
    exact = neuron_importance(load_model(families.hf_model(family, **weak), tokenizer=families.tokenizer()), document())
    model = load_model(families.hf_model(family, **weak), tokenizer=families.tokenizer(), dtype=dtype)
    for site, scores in neuron_importance(model, document()).items():
        assert ((scores - exact[site]).norm() / exact[site].norm()).item() < 0.1, site


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_short_document_does_not_hide_the_wrong_pairing(length: int) -> None:
    model, plain = pair("cohere")
    ids = document(length)
    found = neuron_importance(model, ids, sites=("q", "k"))
    for site in ("q", "k"):
        right = [oracles.brute_force(plain, ids, site, 1, unit)["output"] for unit in range(found[site].shape[1])]
        assert torch.allclose(found[site][1], torch.tensor(right), rtol=1e-4, atol=1e-6)


def test_v_and_z_do_not_need_an_attention_that_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pair("qwen2")[0]
    right = neuron_importance(model, document())
    monkeypatch.setattr(model.blocks[1].attn.original_component, "scaling", 17.0)  # the forward uses it too
    refused = sys.modules[neuron_importance.__module__]
    monkeypatch.setattr(refused, "of_layer", lambda *a: pytest.fail("the attention was taken apart"))
    alone = neuron_importance(model, document(), sites=("v", "z", "ffn"))
    assert set(alone) == {"v", "z", "ffn"}
    assert torch.allclose(alone["v"][0], right["v"][0], rtol=1e-5)
    assert torch.allclose(alone["z"][0], right["z"][0], rtol=1e-5)
