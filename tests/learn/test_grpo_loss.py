"""The four losses on small cases that are worked out by hand, token by token, with no tensor but the answer."""

import math
from statistics import fmean, stdev

import pytest
import torch

from skillweave.learn.grpo_loss import CLIPS, FLOOR, advantages, k3, terms, weights

KINDS = sorted(CLIPS)
OLD = [[-1.0, -0.5, -2.0], [-0.3], [-1.2, -0.7], [-2.0, -1.0, -0.1, -0.4]]
NEW = [[-0.6, -0.9, -2.0], [-0.31], [-1.5, -0.2], [-2.2, -0.4, -0.1, -0.7]]
REWARDS = [1.0, 0.0, 0.25, 0.0]
LIMIT = 5
CLIP = (0.2, 0.3)


def by_hand(kind: str, beta: float = 0.0, new=NEW) -> float:
    """The loss, from the formulas, one token after another."""
    mean, spread = fmean(REWARDS), stdev(REWARDS)
    every, total = 0.0, sum(map(len, OLD))
    for reward, old, now in zip(REWARDS, OLD, new, strict=True):
        better = reward - mean if kind == "dr_grpo" else (reward - mean) / (spread + FLOOR)
        shared = math.exp(fmean(n - o for n, o in zip(now, old, strict=True)))
        here = 0.0
        for o, n in zip(old, now, strict=True):
            ratio = shared if kind == "gspo" else math.exp(n - o)
            bounded = min(max(ratio, 1 - CLIP[0]), 1 + CLIP[1])
            reference = o - 0.1
            moved = math.exp(reference - n) - (reference - n) - 1
            here += -min(ratio * better, bounded * better) + beta * moved
        counts = {"dapo": total, "dr_grpo": len(OLD) * LIMIT}.get(kind, len(OLD) * len(old))
        every += here / counts
    return every


def ours(kind: str, logp: torch.Tensor, beta: float = 0.0) -> torch.Tensor:
    lengths = torch.tensor(list(map(len, OLD)))
    owner = torch.arange(4).repeat_interleave(lengths)
    old = torch.tensor(sum(OLD, []))
    better = advantages(torch.tensor(REWARDS), kind)[owner]
    each = terms(kind, logp, old, better, owner, CLIP).loss + beta * k3(logp, old - 0.1)
    return (weights(kind, lengths, LIMIT)[owner] * each).sum()


@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient(kind, beta):
    logp = torch.tensor(sum(NEW, []), requires_grad=True)
    loss = ours(kind, logp, beta)
    assert loss.item() == pytest.approx(by_hand(kind, beta), rel=1e-5)
    loss.backward()
    step, at = 1e-5, 0
    for i, row in enumerate(NEW):
        for t in range(len(row)):
            up, down = ([list(r) for r in NEW] for _ in range(2))
            up[i][t] += step
            down[i][t] -= step
            slope = (by_hand(kind, beta, up) - by_hand(kind, beta, down)) / (2 * step)
            assert logp.grad[at].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)
            at += 1


def test_the_four_differ():
    assert len(KINDS) == 4
    assert len({round(by_hand(kind), 6) for kind in KINDS}) == 4


def test_advantages_of_a_group():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert advantages(rewards, "dr_grpo").tolist() == [0.5, -0.5, -0.5, 0.5]
    spread = math.sqrt(1 / 3)
    assert advantages(rewards, "grpo").tolist() == pytest.approx([x * 0.5 / (spread + 1e-4) for x in (1, -1, -1, 1)])


@pytest.mark.parametrize(("change", "better", "fell", "rose"), [
    (0.25, 1.0, False, False),  # asymmetric: 1.284 is within 1 + 0.3
    (0.27, 1.0, False, True),
    (0.27, -1.0, False, False),
    (-0.23, -1.0, True, False),
    (-0.23, 1.0, False, False),
    (-0.21, -1.0, False, False),
])  # fmt: skip
def test_the_gradient_is_cut_on_the_side_that_went_far_enough(change, better, fell, rose):
    logp, old = torch.tensor([change], requires_grad=True), torch.zeros(1)
    term = terms("grpo", logp, old, torch.tensor([better]), torch.tensor([0]), CLIP)
    assert (term.fell.item(), term.rose.item()) == (fell, rose)
    term.loss.sum().backward()
    assert (logp.grad.item() == 0) == (fell or rose)


def test_gspo_has_one_ratio_a_completion():
    logp, old = torch.tensor([0.5, -0.5, 0.1]), torch.zeros(3)
    term = terms("gspo", logp, old, torch.ones(3), torch.tensor([0, 0, 1]), CLIP)
    assert term.loss.tolist() == pytest.approx([-1, -1, -math.exp(0.1)])


def test_k3_is_zero_where_nothing_moved_and_positive_elsewhere():
    here = torch.tensor([-1.0, -2.0])
    assert k3(here, here).tolist() == [0, 0]
    assert (k3(here, here + torch.tensor([0.3, -0.3])) > 0).all()


def test_k3_has_the_mean_of_the_divergence():
    p, q = (torch.softmax(torch.tensor(row), 0) for row in ([0.1, 1.0, -1.0], [0.5, 0.2, 0.0]))
    exact = (p * (p / q).log()).sum()
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(exact.item(), rel=1e-5)
