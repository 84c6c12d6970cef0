"""Supervised fine-tuning learns, repeats itself, and touches only what is new."""

import math
from functools import partial

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.learn import sft
from skillweave.learn.loop import Plan, Run
from skillweave.learn.loss import mean_loss
from skillweave.learn.sft import SFT
from skillweave.task import Example

FOUR = [Example(f"say {c}\n", c * (3 + i)) for i, c in enumerate("abcd")]
QUICK = SFT(steps=60, batch=4, lr=1e-2)


def equal(one, other):
    pairs = zip(one.tensors().values(), other.tensors().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def learned(loud):
    return QUICK.fit(loud(), FOUR, 0)


def test_it_learns_four_answers(loud, learned):
    skill, log = learned
    assert log.loss[0] > 2 and log.loss[-1] < 0.2
    bank = SkillBank(loud(), {"skill": skill})
    with bank.on():
        assert loud().generate([e.prompt for e in FOUR], 10) == [e.completion for e in FOUR]
    assert mean_loss(bank, FOUR) < 0.2


def test_same_seed_same_bits(loud, learned):
    skill, log = QUICK.fit(loud(), FOUR, 0)
    assert equal(skill, learned[0]) and log.loss == learned[1].loss
    assert not equal(QUICK.fit(loud(), FOUR, 1)[0], learned[0])


def test_a_step_in_pieces_is_the_same_step(loud, monkeypatch):
    """Answers of 3 to 6 letters: each piece counts by its labels."""
    whole, log = SFT(steps=3, batch=4).fit(loud(), FOUR, 0)
    monkeypatch.setattr(sft, "Plan", partial(Plan, piece=1))
    pieces, other = SFT(steps=3, batch=4).fit(loud(), FOUR, 0)
    assert other.loss == pytest.approx(log.loss, rel=1e-5) and not equal(whole, pieces)
    assert (other.tokens, other.padding, other.labels) == (log.tokens, log.padding, log.labels)
    for one, same in zip(whole.tensors().values(), pieces.tensors().values(), strict=True):
        assert torch.allclose(one, same, atol=1e-4)


def test_an_interrupted_run_gives_the_same_bits(loud, learned, tmp_path, monkeypatch):
    def tick(steps, note):
        ticks.append(steps)
        if len(ticks) in (5, 13):
            raise KeyboardInterrupt

    monkeypatch.setattr(sft, "Plan", partial(Plan, save_every=0.0))
    ticks = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            QUICK.fit(loud(), FOUR, 0, Run(tmp_path / "state", "key", tick))
    skill, log = QUICK.fit(loud(), FOUR, 0, Run(tmp_path / "state", "key", tick))
    assert ticks[5] >= 4 and equal(skill, learned[0]) and log.loss == learned[1].loss


def test_what_comes_back_is_finished(learned):
    skill, log = learned
    assert not any(tensor.requires_grad for tensor in skill.tensors().values())
    assert all(tensor.dtype == torch.float32 for tensor in skill.tensors().values())
    assert (skill.rank, log.padding >= 0, log.labels) == (8, True, 60 * sum(len(e.completion) + 1 for e in FOUR))


def test_the_mean_loss_is_that_of_single_examples(loud, random_skill):
    base = loud()
    bank = SkillBank(base, {"skill": random_skill(base)})
    alpha = torch.full((1, base.layers), 0.5)
    total = count = 0
    for example in FOUR:
        tokens, answer = base.encode_pair(example.prompt, example.completion)
        with bank.on(alpha):
            scores = base.logits(base.hidden(torch.tensor([tokens[:-1]]))[0]).log_softmax(-1)
        wanted = torch.tensor(tokens[1:])
        total -= scores.gather(1, wanted[:, None])[-answer:].sum().item()
        count += answer
    assert math.isclose(mean_loss(bank, FOUR, alpha), total / count, rel_tol=1e-4)
    assert math.isclose(mean_loss(bank, FOUR, alpha, size=3), total / count, rel_tol=1e-4)
