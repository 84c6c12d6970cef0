"""Learned strengths: they find the blend that made the task, repeat themselves, and replay what they should."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.base import TinyBase
from skillweave.compose import scales
from skillweave.compose.scales import Scales, ScalesWithLora
from skillweave.compose.sum import Sum
from skillweave.errors import BadOption
from skillweave.learn.batches import Batches
from skillweave.learn.loss import mean_loss
from skillweave.task import Example

TRUTH = torch.tensor([[1.5], [0.2]])


@pytest.fixture(scope="module")
def world(random_skill):
    """A base, two skills, and examples that the two at strengths 1.5 and 0.2 made: their completions are drawn, not chosen."""
    base = TinyBase(32, alphabet="abcdefgh")
    base.model.get_input_embeddings().weight.data.mul_(15)
    for linear in base.linears.values():
        linear.weight.data.mul_(2)
    skills = {name: random_skill(base, seed, scale=2.0) for name, seed in (("a", 1), ("b", 2))}
    with SkillBank(base, skills).on(TRUTH.expand(2, base.layers)):
        examples = sample(base, [x + y + z for x in "abcdefgh" for y in "abcdef" for z in "abcdefgh"])
    assert len(examples) > 40
    return base, skills, examples


def sample(base, prompts, steps=16):
    """The prompts whose completions, drawn token by token, end within `steps`."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.tensor([base.encode(prompt, start=True) for prompt in prompts])
    at = tokens.shape[1]
    for _ in range(steps):
        shares = base.logits(base.hidden(tokens)[:, -1]).softmax(-1)
        shares[:, [0, 1, 3]] = 0
        tokens = torch.cat([tokens, torch.multinomial(shares, 1, generator=draw)], 1)
    drawn = zip(prompts, tokens[:, at:].tolist(), strict=True)
    return [Example(p, base.decode(row[: row.index(base.eos)])) for p, row in drawn if base.eos in row]


def distance(alpha):
    return (alpha - TRUTH).abs().mean().item()


@pytest.fixture(scope="module")
def found(world):
    return Scales(steps=60, batch=32, lr=5e-2).fit(*world, 0)


def test_recovers_the_blend_that_made_the_task(world, found):
    base, skills, examples = world
    woven, _ = found
    assert distance(woven.alpha) < distance(torch.ones(2, base.layers)) / 2
    assert (woven.alpha[0] > woven.alpha[1] + 0.4).all()
    bank = SkillBank(base, skills)
    truth, start = mean_loss(bank, examples, TRUTH.expand(2, base.layers)), mean_loss(bank, examples)
    assert mean_loss(bank, examples, woven.alpha) - truth < (start - truth) / 4


def test_strengths_alone_leave_no_weights(world, found):
    base, skills, _ = world
    woven, log = found
    assert (woven.skills, woven.new, len(log.loss)) == (("a", "b"), None, 60)
    assert woven.alpha.shape == (2, base.layers) and not woven.alpha.requires_grad
    assert not any(tensor.requires_grad for skill in skills.values() for tensor in skill.tensors().values())


def test_same_seed_same_strengths(world):
    quick = ScalesWithLora(steps=5, batch=4)
    one, again, other = (quick.fit(*world, seed, {"a": world[2][:6]})[0] for seed in (0, 0, 1))
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


FEW = [Example(f"new {i}", "x") for i in range(5)]
CARRIED = {"a": [Example("old a", "a"), Example("older a", "a")], "b": [Example("old b", "b")]}


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 0), (0.25, 24), (1 / 3, 32), (0.5, 48)])
def test_replay_is_counted(share, wanted):
    drawn = Scales(steps=12, batch=8, replay=share).drawn(FEW, CARRIED, 0)
    replayed = [example for example in drawn if example not in FEW]
    assert (len(drawn), len(replayed)) == (96, wanted)
    assert {example.completion for example in replayed} == ({"a", "b"} if wanted else set())


def test_replay_of_nothing_leaves_all_to_the_task():
    drawn = Scales(steps=2, batch=4, replay=0.5, recombined=0.25).drawn(FEW, {"a": [], "b": []}, 0)
    assert len(drawn) == 8 and all(example in FEW for example in drawn)


def test_a_fit_learns_from_what_was_drawn(world, monkeypatch):
    base, skills, examples = world
    seen = []
    monkeypatch.setattr(
        scales, "Batches", lambda base, drawn, size, seed: seen.append(drawn) or Batches(base, drawn, size, seed)
    )
    method = Scales(steps=2, batch=4, replay=0.5)
    replay = {"a": [Example("aa", "b")], "another": [Example("bb", "c")]}
    method.fit(base, skills, examples, 0, replay)
    assert seen == [method.drawn(examples, {"a": replay["a"], "b": ()}, 0)]


@pytest.mark.parametrize("shares", [(1.0, 0.0), (-0.1, 0.0), (0.0, 1.5), (0.5, 0.5), (0.0, -1.0)])
def test_shares_that_cannot_be(world, shares):
    with pytest.raises(BadOption, match=f"replay is {shares[0]} and recombined is {shares[1]}"):
        Scales(replay=shares[0], recombined=shares[1]).fit(*world, 0)


def test_an_interrupted_composition_goes_on_bit_for_bit(world, stopped):
    method = ScalesWithLora(steps=6, batch=4)
    whole, log = method.fit(*world, 0)
    again, resumed = stopped(scales, lambda run: method.fit(*world, 0, {}, run))
    assert torch.equal(whole.alpha, again.alpha) and log.loss == resumed.loss
