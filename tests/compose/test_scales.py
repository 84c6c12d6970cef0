"""Learned strengths: they find the blend that made the task, repeat themselves, and replay what they should."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.compose import scales
from skillweave.compose.scales import Scales, ScalesWithLora, Sum
from skillweave.errors import BadOption
from skillweave.learn.sft import mean_loss
from skillweave.task import Example

TRUTH = torch.tensor([[1.4], [0.2]])


@pytest.fixture(scope="module")
def world(loud, random_skill):
    """A base, two skills, and 48 examples answered by the two at strengths 1.4 and 0.2."""
    base = loud(alphabet="abcdefgh")
    skills = {"a": random_skill(base, 1, scale=0.3), "b": random_skill(base, 2, scale=0.3)}
    prompts = [f"{x}{y}{x}" for x in "abcdefgh" for y in "abcdef"]
    bank = SkillBank(base, skills)
    with bank.on(TRUTH.expand(2, base.layers)):
        answers = base.generate(prompts, 8)
    examples = [Example(p, a) for p, a in zip(prompts, answers, strict=True) if "?" not in a]
    assert len(set(answers)) > 20 and len(examples) > 30
    return base, skills, examples


def distance(alpha):
    return (alpha - TRUTH).abs().mean().item()


@pytest.fixture(scope="module")
def found(world):
    return Scales(steps=60, batch=16, lr=3e-2).fit(*world, 0)


def test_recovers_the_blend_that_made_the_task(world, found):
    base, skills, examples = world
    woven, log = found
    assert distance(woven.alpha) < distance(torch.ones(2, base.layers)) / 2
    assert (woven.alpha[0] > woven.alpha[1]).all()
    bank = SkillBank(base, skills)
    assert mean_loss(bank, examples, woven.alpha) < mean_loss(bank, examples) * 0.6


def test_strengths_alone_leave_no_weights(world, found):
    base, skills, _ = world
    woven, log = found
    assert (woven.skills, woven.new, len(log.loss)) == (("a", "b"), None, 60)
    assert woven.alpha.shape == (2, base.layers) and not woven.alpha.requires_grad
    assert not any(tensor.requires_grad for skill in skills.values() for tensor in skill.tensors().values())


def test_same_seed_same_strengths(world):
    quick = ScalesWithLora(steps=5, batch=4)
    one, again, other = (quick.fit(*world, seed, world[2][:6])[0] for seed in (0, 0, 1))
    assert torch.equal(one.alpha, again.alpha) and not torch.equal(one.alpha, other.alpha)
    pairs = zip(one.new.tensors().values(), again.new.tensors().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_new_lora_learns_what_no_skill_holds(loud, random_skill):
    base = loud()
    skills = {"a": random_skill(base, 1, scale=0.01)}
    examples = [Example(f"say {c}\n", c * 4) for c in "abcd"]
    alone, _ = Scales(steps=40, batch=4).fit(base, skills, examples, 0)
    woven, _ = ScalesWithLora(steps=40, batch=4, lora_lr=1e-2).fit(base, skills, examples, 0)
    bank, alpha = woven.bank(base, skills)
    assert mean_loss(bank, examples, alpha) < 0.3 < mean_loss(SkillBank(base, skills), examples, alone.alpha)
    assert woven.new.rank == 8 and not any(tensor.requires_grad for tensor in woven.new.tensors().values())


def test_the_sum_learns_nothing(world):
    base, skills, examples = world
    woven, log = Sum().fit(base, skills, examples, 0)
    assert (woven.skills, woven.new, log.loss) == (("a", "b"), None, [])
    assert torch.equal(woven.alpha, torch.ones(2, base.layers))


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 0), (0.25, 24), (1 / 3, 32), (0.5, 48)])
def test_replay_is_counted(world, monkeypatch, share, wanted):
    drawn = []

    class Seen(Exception):
        pass

    def look(base, examples, size, seed):
        drawn.extend(examples)
        raise Seen

    monkeypatch.setattr(scales, "Batches", look)
    replay = [Example("old", "a"), Example("older", "b")]
    with pytest.raises(Seen):
        Scales(steps=12, batch=8, replay=share).fit(*world, 0, replay)
    assert len(drawn) == 96 and sum(e in replay for e in drawn) == wanted


def test_replay_of_nothing_leaves_all_to_the_task(world):
    _, log = Scales(steps=2, batch=4, replay=0.5).fit(*world, 0, [])
    assert len(log.loss) == 2


@pytest.mark.parametrize("share", [1.0, 1.5, -0.1])
def test_a_share_that_cannot_be(world, share):
    with pytest.raises(BadOption, match=f"replay is {share}, but a share lies between 0 and 1"):
        Scales(replay=share).fit(*world, 0)


def test_an_interrupted_composition_gives_the_same_bits(world, tmp_path):
    def tick(steps, note):
        if note and len(list(tmp_path.iterdir())) == 0:
            raise KeyboardInterrupt

    method = ScalesWithLora(steps=6, batch=4)
    whole, log = method.fit(*world, 0)
    with pytest.raises(KeyboardInterrupt):
        method.fit(*world, 0, (), tmp_path / "state", "key", tick)
    again, resumed = method.fit(*world, 0, (), tmp_path / "state", "key")
    assert torch.equal(whole.alpha, again.alpha) and log.loss == resumed.loss
