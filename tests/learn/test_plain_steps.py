"""Plain gradient steps in the one loop, what is done after each, and answers judged without decoding."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.learn.batches import Batch
from skillweave.learn.loop import Group, Plan, Run, rate, train
from skillweave.learn.loss import forced, mean_loss
from skillweave.learn.sft import SFT
from skillweave.task import Example


def batch(step):
    draw = torch.Generator().manual_seed(step)
    return Batch(torch.randint(0, 9, (2, 4), generator=draw), torch.arange(3), torch.zeros(3, dtype=torch.long), 7)


def value(weights, data):
    return (data.tokens.float() @ weights).square().mean()


def start():
    return torch.randn(4, generator=torch.Generator().manual_seed(0)).requires_grad_()


def run(plan, weights, state=None, batch=batch, after=lambda: None, tick=lambda steps, note: None, **more):
    groups = [Group({"weights": weights}, 1e-3), *([Group(more, 0.0)] if more else [])]
    return train(lambda data: value(weights, data), groups, batch, plan, Run(state, "k", tick), after=after)


@pytest.mark.parametrize("steady", [True, False])
def test_a_step_is_the_rate_times_the_gradient(steady):
    plan = Plan(6, clip=float("inf"), optimiser="sgd", steady=steady)
    weights, wanted = start(), start().detach()
    run(plan, weights)
    for step in range(6):
        point = wanted.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(point, batch(step)), point)
        assert gradient.norm() > 1
        wanted = wanted - 1e-3 * (1.0 if steady else rate(step, plan)) * gradient
    assert torch.allclose(weights.detach(), wanted, rtol=1e-5, atol=1e-6)


def test_the_clip_holds_for_plain_steps_too():
    weights = start()
    run(Plan(1, clip=0.5, optimiser="sgd", steady=True), weights)
    assert (weights.detach() - start().detach()).norm().item() == pytest.approx(0.5e-3, rel=1e-3)


@pytest.mark.parametrize("stop", [1, 4, 7])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_stopped_run_goes_on_bit_for_bit_with_what_is_kept(tmp_path, stop, optimiser):
    """What `after` writes into tensors without a gradient is part of the state."""

    ticks = []

    def once(state=None, stop=None):
        weights, kept = start(), torch.zeros(3, dtype=torch.bool)
        count = torch.zeros(())

        def after():
            count.add_(1)
            kept[int(count) % 3] ^= True

        plan = Plan(8, optimiser=optimiser, stop=stop, save_every=0.0)
        run(plan, weights, state, after=after, tick=lambda steps, note: ticks.append(steps), kept=kept, count=count)
        return weights.detach(), kept, count

    whole = once()
    once(tmp_path / "state", stop)
    ticks.clear()
    again = once(tmp_path / "state")
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True)) and whole[2] == 8
    assert ticks == [stop, *[1] * (8 - stop)]


EXAMPLES = [Example(f"say {c}\n", c * n) for c, n in zip("abcdefgh", [1, 2, 3, 1, 2, 3, 1, 2], strict=True)]


@pytest.mark.parametrize("size", [1, 3, 64])
def test_judged_answers_are_those_of_greedy_decoding(loud, size):
    base = loud()
    skill, _ = SFT(steps=25, lr=1e-2).fit(base, EXAMPLES[:5], 0)
    bank = SkillBank(base, {"a": skill})
    right, nats = forced(bank, EXAMPLES, size=size)
    with bank.on():
        said = base.generate([e.prompt for e in EXAMPLES], 6)
    assert right == [float(answer == e.completion) for answer, e in zip(said, EXAMPLES, strict=True)]
    assert 0 < sum(right) < 8
    tokens = sum(len(e.completion) + 1 for e in EXAMPLES)
    assert sum(nats) / tokens == pytest.approx(mean_loss(bank, EXAMPLES), rel=1e-4)


def test_a_large_vocabulary_passes_by_in_tiles(loud, monkeypatch):
    from skillweave.learn import loss

    base = loud()
    skill, _ = SFT(steps=25, lr=1e-2).fit(base, EXAMPLES[:5], 0)
    bank = SkillBank(base, {"a": skill})
    whole = forced(bank, EXAMPLES)
    monkeypatch.setattr(loss, "TILE", 7)
    monkeypatch.setattr(loss, "ROWS", 3)
    right, nats = forced(bank, EXAMPLES)
    assert right == whole[0] and nats == pytest.approx(whole[1], rel=1e-4)
