"""A strength for each skill and block of weights: the dense formula, its algebra, merged, written down."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from skillweave.bank import SkillBank
from skillweave.composition import Composition, with_new
from skillweave.delta import LowRank
from skillweave.errors import BadOption
from skillweave.peft_format import load_adapter
from skillweave.strength import PerBlock, rows

TOKENS = torch.tensor([[1, 20, 30, 40, 50], [1, 9, 8, 7, 6]])
Q0, UP1 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def logits(base):
    return base.logits(base.hidden(TOKENS).flatten(0, 1))


def dense(base, skills, alpha: PerBlock):
    """Logits with W + Σ α s B A in the place of W."""
    weights = {}
    for slot, linear in base.linears.items():
        here = [(k, skill.factors[slot]) for k, skill in enumerate(skills.values()) if slot in skill.factors]
        change = sum(alpha.alpha[k, alpha.blocks.index(slot)] * f.scale * f.b @ f.a for k, f in here)
        weights[f"{slot}.weight"] = linear.weight + change
    return functional_call(base.model, weights, (TOKENS,)).logits.flatten(0, 1)


@pytest.fixture
def skills(tiny, random_skill):
    """Of different ranks; the last touches two blocks only."""
    return {
        "one": random_skill(tiny, 1, 2),
        "two": random_skill(tiny, 2, 5, scale=1.5),
        "three": random_skill(tiny, 3, 1, [Q0, UP1]),
    }


def drawn(base, count, seed=0, order=1):
    numbers = torch.randn(count, len(base.linears), generator=torch.Generator().manual_seed(seed))
    return PerBlock(numbers[:, ::order] if order > 0 else numbers.flip(1), tuple(base.linears)[::order])


@pytest.mark.parametrize("order", [1, -1])
def test_it_is_the_dense_formula(tiny, skills, order):
    alpha = drawn(tiny, 3, order=order)
    with SkillBank(tiny, skills).on(alpha):
        ours = logits(tiny)
    assert torch.allclose(ours, dense(tiny, skills, alpha), **CLOSE)
    assert not torch.allclose(ours, logits(tiny), atol=1e-2)


def test_gradients_are_those_of_the_dense_formula(tiny, skills):
    alpha = drawn(tiny, 3)
    alpha.alpha.requires_grad_()
    with SkillBank(tiny, skills).on(alpha):
        (ours,) = torch.autograd.grad(logits(tiny).square().mean(), [alpha.alpha])
    (theirs,) = torch.autograd.grad(dense(tiny, skills, alpha).square().mean(), [alpha.alpha])
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert (theirs != 0).sum() == 2 * 21 + 2  # what a skill does not change has no gradient


@pytest.mark.parametrize("learning", [False, True])
def test_zero_is_the_base_bit_for_bit(tiny, skills, learning):
    plain, alpha = logits(tiny), PerBlock(torch.zeros(3, 21, requires_grad=learning), tuple(tiny.linears))
    with SkillBank(tiny, skills).on(alpha):
        assert torch.equal(logits(tiny), plain)


def test_equal_numbers_in_a_layer_are_a_strength_of_that_layer(tiny, skills):
    layers = torch.rand(3, tiny.layers, generator=torch.Generator().manual_seed(1))
    wide = PerBlock(torch.stack([layers[:, tiny.layer_of(slot)] for slot in tiny.linears], 1), tuple(tiny.linears))
    bank = SkillBank(tiny, skills)
    with bank.on(layers):
        wanted = logits(tiny)
    with bank.on(wide):
        assert torch.equal(logits(tiny), wanted)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(3)), blocks=st.permutations(range(21)), seed=st.integers(0, 99))
def test_any_order_of_skills_and_blocks(tiny, random_skill, order, blocks, seed):
    skills = [random_skill(tiny, k, k + 1) for k in range(3)]
    alpha, names = drawn(tiny, 3, seed), tuple(tiny.linears)
    with SkillBank(tiny, {str(k): skills[k] for k in range(3)}).on(alpha):
        straight = logits(tiny)
    other = PerBlock(alpha.alpha[order][:, blocks], tuple(names[i] for i in blocks))
    with SkillBank(tiny, {str(k): skills[k] for k in order}).on(other):
        assert torch.allclose(logits(tiny), straight, **CLOSE)


@settings(deadline=None, max_examples=20)
@given(share=st.floats(-2, 2, width=32), seed=st.integers(0, 99))
def test_the_change_of_weights_is_linear_in_the_strengths(tiny, random_skill, share, seed):
    skills = {"a": random_skill(tiny, 1, 2), "b": random_skill(tiny, 2, 3)}
    one, other = drawn(tiny, 2, seed), drawn(tiny, 2, seed + 100)
    mixed = PerBlock(one.alpha + share * other.alpha, one.blocks)
    changes = [Composition(("a", "b"), alpha).merged(tiny, skills).factors for alpha in (one, other, mixed)]
    for slot in tiny.linears:
        first, second, both = (change[slot].dense() for change in changes)
        assert torch.allclose(both, first + share * second, rtol=1e-4, atol=1e-5)


def test_a_dora_too(tiny, skills):
    """ΔW = (g - 1) ∘ W + s (g ∘ B) A, times the strength of its block."""
    lengths = {slot: linear.weight.norm(dim=1) * 1.3 for slot, linear in tiny.linears.items()}
    dora = LowRank({slot: replace(f, magnitude=lengths[slot]) for slot, f in skills["one"].factors.items()})
    alpha, weights = drawn(tiny, 1), {}
    for i, (slot, f) in enumerate(dora.factors.items()):
        w = tiny.linears[slot].weight
        whole = w + f.scale * f.b @ f.a
        change = f.magnitude[:, None] * whole / whole.norm(dim=1, keepdim=True) - w
        weights[f"{slot}.weight"] = w + alpha.alpha[0, i] * change
    with SkillBank(tiny, {"dora": dora}).on(alpha):
        ours = logits(tiny)
    assert torch.allclose(ours, functional_call(tiny.model, weights, (TOKENS,)).logits.flatten(0, 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (lambda blocks: PerBlock(torch.ones(2, 21), blocks), "strengths for 2 skills were given, and the bank has 3"),
        (lambda blocks: PerBlock(torch.ones(3, 20), blocks), "20 strengths a skill were given for 21 blocks"),
        (lambda blocks: PerBlock(torch.ones(3, 20), blocks[:-1]), "no strength was given for `model.layers.2.mlp.down_proj`"),
        (lambda blocks: PerBlock(torch.ones(3, 21), (*blocks[:-1], Q0)), "21 strengths a skill were given for 20 blocks"),
    ],
)
def test_strengths_that_do_not_fit(tiny, skills, alpha, words):
    with pytest.raises(BadOption, match=words), SkillBank(tiny, skills).on(alpha(tuple(tiny.linears))):
        pass


@pytest.mark.parametrize("new", [False, True])
def test_merged_equals_the_bank(tiny, random_skill, skills, new):
    parts = {name: skills[name] for name in ("three", "one")}
    alpha = drawn(tiny, 2)
    alpha = PerBlock(alpha.alpha[:, :-1], alpha.blocks[:-1])
    own = {slot: f for slot, f in parts["one"].factors.items() if slot in alpha.place}
    parts["one"] = LowRank(own)  # the last block is changed by the new weights alone
    woven = Composition(("three", "one"), alpha, random_skill(tiny, 9, 4) if new else None)
    bank, strength = woven.bank(tiny, parts)
    with bank.on(strength):
        wanted = logits(tiny)
    merged = woven.merged(tiny, parts)
    with SkillBank(tiny, {"merged": merged}).on():
        assert torch.allclose(logits(tiny), wanted, **CLOSE)
    assert merged.rank == 3 + 4 * new and len(merged.factors) == 20 + new


def test_new_weights_are_at_full_strength(tiny, random_skill):
    alpha = with_new(PerBlock(torch.tensor([[0.5]]), (Q0,)), random_skill(tiny, 9, 4, [UP1, Q0]))
    assert alpha.blocks == (Q0, UP1) and alpha.alpha.tolist() == [[0.5, 0.0], [1.0, 1.0]]


def test_what_is_written_down(tiny, skills, tmp_path):
    woven = Composition(("three", "one"), drawn(tiny, 2))
    woven.save(tmp_path, tiny, skills)
    about = json.loads((tmp_path / "composition.json").read_text())
    assert set(about) == {"alpha"} and list(about["alpha"]) == ["three", "one"]
    assert set(about["alpha"]["three"]) == {Q0, UP1} and set(about["alpha"]["one"]) == set(tiny.linears)
    assert about["alpha"]["one"][UP1] == woven.alpha.alpha[1, woven.alpha.place[UP1]].item()
    again, merged = load_adapter(tmp_path / "adapter", "both"), woven.merged(tiny, skills)
    assert all(torch.allclose(again.factors[slot].dense(), f.dense(), atol=1e-6) for slot, f in merged.factors.items())
    assert woven.strengths.shape == (2, 21)


def test_rows_read_every_shape():
    place = {"a": 0, "b": 1}.get
    assert rows(torch.tensor([2.0, 3.0]), 2, 9, place).at(1, "b") == 3
    assert rows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2, 2, place).at(1, "a") == 3
    assert rows(PerBlock(torch.tensor([[1.0, 2.0]]), ("b", "a")), 1, 2, place).at(0, "a") == 2
