"""y = W x + Σ α s B A x, held against the dense formula; nothing is ever written to the base."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from skillweave.bank import SkillBank
from skillweave.base import SkillLinear, TinyBase
from skillweave.delta import Factors, LowRank
from skillweave.errors import BaseMismatch

TOKENS = torch.tensor([[1, 20, 30, 40, 50], [1, 9, 8, 7, 6]])
Q0, UP1 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"


def logits(base):
    return base.logits(base.hidden(TOKENS).flatten(0, 1))


def dense(base, bank, alpha):
    """Logits with W + Σ α s B A in the place of W."""
    weights = {}
    for slot, linear in base.linears.items():
        layer = base.layer_of(slot)
        here = [(k, skill.factors[slot]) for k, skill in enumerate(bank.skills.values()) if slot in skill.factors]
        weights[f"{slot}.weight"] = linear.weight + sum(alpha[k, layer] * f.scale * f.b @ f.a for k, f in here)
    return functional_call(base.model, weights, (TOKENS,)).logits.flatten(0, 1)


@pytest.fixture
def bank(tiny, random_skill):
    """Three skills of different ranks, one of which touches only two layers."""
    skills = {
        "one": random_skill(tiny, 1, 2),
        "two": random_skill(tiny, 2, 5, scale=1.5),
        "three": random_skill(tiny, 3, 1, [Q0, UP1]),
    }
    return SkillBank(tiny, skills)


@pytest.fixture
def alpha(tiny):
    return torch.rand(3, tiny.layers, generator=torch.Generator().manual_seed(5)) * 2 - 0.5


@pytest.mark.parametrize("learning", [False, True])
def test_zero_is_the_base_bit_for_bit(tiny, bank, alpha, learning):
    plain = logits(tiny)
    with bank.on((alpha * 0).requires_grad_(learning)):
        assert torch.equal(logits(tiny), plain)
    with bank.on(alpha):
        assert not torch.allclose(logits(tiny), plain, atol=1e-3)


def test_it_is_the_dense_formula(tiny, bank, alpha):
    for shown, strength in ((alpha, alpha), (None, bank.ones())):
        wanted = dense(tiny, bank, strength)
        with bank.on(shown):
            assert torch.allclose(logits(tiny), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_one_layer_is_the_formula_to_the_last_digits(bias):
    draw = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    base = TinyBase(16)
    base.dtype = torch.float64
    layer = torch.nn.Linear(4, 3, bias=bias).double().requires_grad_(False)
    layer.__class__, layer.slot, base.linears = SkillLinear, "m.1.x", {"m.1.x": layer}
    parts = [(rand(2, 4), rand(3, 2), 0.7), (rand(1, 4), rand(3, 1), 2.0)]
    bank = SkillBank(base, {str(k): LowRank({"m.1.x": Factors(*part)}) for k, part in enumerate(parts)})
    x, alpha = rand(2, 5, 4), rand(2, base.layers)
    weight = layer.weight + sum(alpha[k, 1] * s * b @ a for k, (a, b, s) in enumerate(parts))
    with bank.on(alpha):
        assert torch.allclose(layer(x), torch.nn.functional.linear(x, weight, layer.bias), rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_the_dense_formula(tiny, bank, alpha):
    wanted = [alpha.requires_grad_()]
    for skill in bank.skills.values():
        wanted += [tensor.requires_grad_() for tensor in skill.tensors().values()]
    with bank.on(alpha):
        ours = torch.autograd.grad(logits(tiny).square().mean(), wanted)
    theirs = torch.autograd.grad(dense(tiny, bank, alpha).square().mean(), wanted)
    assert len(ours) == 1 + 2 * (21 + 21 + 2)
    assert all(gradient.abs().max() > 1e-6 for gradient in theirs[1:])
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_only_what_is_asked_for_gets_a_gradient(tiny, bank, alpha):
    with bank.on(alpha.requires_grad_()):
        logits(tiny).sum().backward()
    assert alpha.grad is not None
    assert all(tensor.grad is None for skill in bank.skills.values() for tensor in skill.tensors().values())


def test_a_skill_that_starts_at_zero_can_learn(tiny, random_skill):
    skill = random_skill(tiny)
    alpha = torch.zeros(1, tiny.layers, requires_grad=True)
    with SkillBank(tiny, {"a": skill}).on(alpha):
        logits(tiny).square().mean().backward()
    assert (alpha.grad != 0).all()


def test_an_exception_leaves_no_edit(tiny, bank):
    plain = logits(tiny)
    with pytest.raises(ZeroDivisionError), bank.on():
        logits(tiny)
        _ = 1 / 0
    assert torch.equal(logits(tiny), plain)


def test_blocks_nest(tiny, bank, alpha):
    with bank.on(alpha):
        outer = logits(tiny)
        with bank.on():
            inner = logits(tiny)
        assert torch.equal(logits(tiny), outer)
    assert not torch.equal(inner, outer)


def test_the_base_is_never_written_to(tiny, bank, alpha):
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    with bank.on(alpha.requires_grad_()):
        logits(tiny).sum().backward()
        tiny.generate(["abc"], 3)
    after = tiny.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(3)), values=st.lists(st.floats(-2, 2, width=32), min_size=9, max_size=9))
def test_a_permuted_library_gives_the_same_answer(tiny, random_skill, order, values):
    skills = [random_skill(tiny, k, k + 1) for k in range(3)]
    alpha = torch.tensor(values).view(3, 3)
    with SkillBank(tiny, {str(k): skills[k] for k in range(3)}).on(alpha):
        straight = logits(tiny)
    with SkillBank(tiny, {str(k): skills[k] for k in order}).on(alpha[list(order)]):
        assert torch.allclose(logits(tiny), straight, rtol=1e-4, atol=1e-5)


def test_skills_on_different_layers(tiny, random_skill):
    skills = {"a": random_skill(tiny, 1, 2, [Q0]), "b": random_skill(tiny, 2, 3, [UP1])}
    bank, alpha = SkillBank(tiny, skills), torch.tensor([[1.0, 9.0, 9.0], [9.0, 0.5, 9.0]])
    wanted = dense(tiny, bank, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))
    with bank.on(alpha):
        assert torch.allclose(logits(tiny), wanted, rtol=1e-4, atol=1e-5)


def test_cost_follows_the_skills_in_use(tiny, bank):
    alpha = torch.tensor([[0.0] * 3, [0.0] * 3, [1.0] * 3])
    assert set(bank._edits(alpha)) == {Q0, UP1}
    assert bank._edits(alpha)[Q0].a.shape[0] == 1


def test_names_are_in_order(bank, tiny):
    assert bank.names == ("one", "two", "three")
    assert bank.ones().shape == (3, tiny.layers)


@pytest.mark.parametrize(
    ("slot", "a", "b", "words"),
    [
        (
            "model.layers.9.mlp.up_proj",
            (2, 32),
            (80, 2),
            "skill `x` changes the layer `model.layers.9.mlp.up_proj`, which tiny-32",
        ),
        (Q0, (2, 31), (32, 2), f"skill `x` has a change of 32 x 31 for `{Q0}`, which is 32 x 32 in tiny-32"),
        (Q0, (2, 32), (33, 2), "has a change of 33 x 32"),
    ],
)
def test_a_skill_that_does_not_fit_is_refused(tiny, slot, a, b, words):
    with pytest.raises(BaseMismatch, match=words):
        SkillBank(tiny, {"x": LowRank({slot: Factors(torch.zeros(a), torch.zeros(b))})})
