"""Preconditioned gradients: the formula on small cases, and a step that does not depend on how the change is split."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.delta import Factors, LowRank
from skillweave.learn.batches import Batch
from skillweave.learn.loop import Group, Plan, train
from skillweave.learn.loss import mean_loss
from skillweave.learn.precondition import Pair, precondition, whole
from skillweave.learn.sft import SFT
from skillweave.task import Example

FOUR = [Example(f"say {c}\n", c * (3 + i)) for i, c in enumerate("abcd")]


def test_numbers_by_hand():
    """B has columns of squares 4 and 1 at right angles, A rows of squares 9 and 1."""
    a, b = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    a.grad, b.grad = torch.tensor([[8.0, 8.0], [8.0, 8.0]]), torch.full((3, 2), 9.0)
    precondition([Pair(a, b, a, b)], 0.0)
    assert torch.allclose(a.grad, torch.tensor([[2.0, 2.0], [8.0, 8.0]]))
    assert torch.allclose(b.grad, torch.tensor([[1.0, 9.0]]).expand(3, 2))


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_the_formula(epsilon):
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 7, generator=draw), torch.randn(5, 3, generator=draw)
    columns, rows = a[:, 4:].clone().requires_grad_(), b[3:].clone().requires_grad_()
    grad_a, grad_b = torch.randn(3, 3, generator=draw), torch.randn(2, 3, generator=draw)
    columns.grad, rows.grad = grad_a.clone(), grad_b.clone()
    precondition([Pair(a, b, columns, rows)], epsilon)
    eye = epsilon * torch.eye(3)
    assert torch.allclose(columns.grad, torch.linalg.inv(b.t() @ b + eye) @ grad_a, rtol=1e-4)
    assert torch.allclose(rows.grad, grad_b @ torch.linalg.inv(a @ a.t() + eye), rtol=1e-4)


def test_what_has_no_gradient_is_left_alone():
    a, b = torch.ones(1, 2), torch.ones(2, 1)
    b.grad = torch.ones(2, 1)
    precondition([Pair(a, b, a, b)], 0.0)
    assert a.grad is None and torch.allclose(b.grad, torch.full((2, 1), 0.5))


def test_a_factor_of_zero_gives_finite_gradients():
    a, b = torch.ones(2, 3), torch.zeros(3, 2)
    a.grad, b.grad = torch.zeros(2, 3), torch.ones(3, 2)
    precondition([Pair(a, b, a, b)])
    assert torch.isfinite(a.grad).all() and torch.isfinite(b.grad).all() and not a.grad.any()


def test_the_change_of_a_step_does_not_depend_on_the_split():
    """(B / t)(t A) is the same change: under plain gradients a step would differ by t² in each factor, here by nothing."""
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, generator=draw), torch.randn(5, 2, generator=draw)
    wanted = torch.randn(5, 6, generator=draw)
    steps = []
    for t in (1.0, 10.0):
        a, b = (first * t).requires_grad_(), (second / t).requires_grad_()
        (b @ a - wanted).square().sum().backward()
        precondition([Pair(a, b, a, b)], 0.0)
        steps.append(b.grad @ a.detach() + b.detach() @ a.grad)
    assert torch.allclose(*steps, rtol=1e-4)


def test_whole_skills_are_pairs_of_their_factors():
    a, b = torch.ones(1, 2), torch.ones(2, 1)
    skills = [LowRank({"x": Factors(a, b)}), LowRank({"x": Factors(a.clone(), b.clone())})]
    for skill in skills:
        for tensor in skill.tensors().values():
            tensor.grad = torch.ones_like(tensor)
    whole(*skills)()
    for skill in skills:
        assert all(torch.allclose(tensor.grad, torch.full_like(tensor, 0.5)) for tensor in skill.tensors().values())


def test_the_loop_calls_it_between_clipping_and_the_step():
    """AdamW's first step is the sign of what it reads; the norm of what it is called on is that of the clip."""
    value = torch.zeros(2, requires_grad=True)
    seen = []

    def before():
        seen.append(value.grad.norm().item())
        value.grad.mul_(torch.tensor([1.0, -1.0]))

    batch = Batch(torch.zeros(1, 1, dtype=torch.long), torch.arange(1), torch.zeros(1, dtype=torch.long), 1)
    train(
        lambda data: value.sum() * 100, [Group({"x": value}, 0.1)], lambda step: batch, Plan(1, clip=0.5), precondition=before
    )
    assert seen == pytest.approx([0.5]) and value.tolist() == pytest.approx([-0.1, 0.1], rel=1e-3)


def test_sft_can_be_preconditioned(loud):
    quick = SFT(steps=40, batch=4, lr=1e-2, precondition=True)
    skill, log = quick.fit(loud(), FOUR, 0)
    _, other = SFT(steps=40, batch=4, lr=1e-2).fit(loud(), FOUR, 0)
    assert log.loss[0] == other.loss[0] and log.loss[-1] != other.loss[-1]
    assert mean_loss(SkillBank(loud(), {"new": skill}), FOUR) < 0.5
