"""What strengths are learned for: unlearning within bounds, own labels trusted only when sure; the best step."""

import math

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.compose import scales
from skillweave.compose.objective import Negate, Pseudo, Several, control_of
from skillweave.compose.scales import Scales, ScalesWithLora
from skillweave.errors import BadData, BadOption, NotFound
from skillweave.learn.batches import Batches
from skillweave.learn.loss import mean_loss
from skillweave.learn.sft import SFT
from skillweave.task import Example

SAY = [Example(f"say {c}\n", c * 4) for c in "abcd"]
CRY = [Example(f"cry {c}\n", c.upper() * 3) for c in "abcd"]


@pytest.fixture(scope="module")
def world(loud):
    """A base and two skills that have learned four answers each."""
    base = loud()
    made = {name: SFT(steps=60, batch=4, lr=1e-2, rank=4).fit(base, some, 0)[0] for name, some in (("say", SAY), ("cry", CRY))}
    for name, some in (("say", SAY), ("cry", CRY)):
        assert mean_loss(SkillBank(base, {name: made[name]}), some) < 0.1
    return base, made


def losses(world, woven):
    base, skills = world
    bank, alpha = woven.bank(base, skills)
    return mean_loss(bank, SAY, alpha), mean_loss(bank, CRY, alpha)


def test_several_batches_are_one_step(loud):
    base = loud()
    batches = Batches(base, SAY, 4, 0)
    one, other = batches.at(0), Batches(base, CRY, 2, 0).at(0)
    both = Several.of((one, -2.0), (other, 0.5))
    for positions in (512, 12):
        pieces = both.pieces(positions)
        assert len(pieces) == (2 if positions == 512 else 6)
        shares = [piece.weight * len(piece.labels) / len(both.labels) for piece in pieces]
        assert sum(shares) == pytest.approx(-1.5) and sum(s for s in shares if s < 0) == pytest.approx(-2)
    assert both.real == one.real + other.real and len(both.labels) == len(one.labels) + len(other.labels)


@pytest.mark.parametrize("granularity", ["global", "block"])
def test_a_task_goes_and_the_other_stays(world, granularity):
    base, skills = world
    how = Scales(steps=30, batch=4, lr=0.1, granularity=granularity, objective="negate", forget="say")
    woven, _ = how.fit(base, skills, SAY, 0, {"say": SAY, "cry": CRY})
    before, after = losses(world, Scales(steps=1, batch=4, lr=0.0).fit(base, skills, SAY, 0)[0]), losses(world, woven)
    assert after[0] > before[0] + 1 and after[1] < max(0.5, before[1])


def test_unlearning_has_an_end(world):
    base, skills = world
    bank, numbers = SkillBank(base, skills), torch.tensor([[-9.0] * base.layers] * 2, requires_grad=True)
    aim = Negate(bank, lambda: numbers, Batches(base, SAY, 4, 0), Batches(base, CRY, 4, 0), SAY, CRY)
    assert aim.most == pytest.approx(math.log(100)) and mean_loss(bank, SAY, numbers.detach()) > aim.most
    target, control = aim.at(0).pieces(512)
    loss = aim.loss(target)
    assert loss.item() == pytest.approx(target.weight * aim.most)
    loss.backward()
    assert not numbers.grad.any()  # nothing is gained by going on
    aim.loss(control).backward()
    assert numbers.grad.any()
    assert aim.held() == pytest.approx(mean_loss(bank, CRY, numbers.detach()) - aim.most)


def test_what_is_kept_is_what_the_others_carry():
    carried = {"a": SAY[:1], "b": CRY[:2], "c": []}
    assert control_of(carried, "a") == CRY[:2] and control_of(carried, "c") == SAY[:1] + CRY[:2]
    with pytest.raises(BadOption, match="forget is ``"):
        control_of(carried, "")
    with pytest.raises(BadOption, match="forget is `x`"):
        control_of(carried, "x")
    with pytest.raises(BadOption, match="without `a` there is no example of what is to be kept"):
        control_of({"a": SAY}, "a")


def pseudo(world, alpha, sure, some=SAY):
    base, skills = world
    return Pseudo(SkillBank(base, skills), lambda: alpha, some, 4, sure, 8)


def test_only_sure_answers_are_trusted(world):
    base, skills = world
    bank, alpha = SkillBank(base, skills), torch.tensor([[1.0] * base.layers, [0.0] * base.layers])
    with bank.on(alpha):
        said = base.generate([e.prompt for e in SAY + CRY], 8)
    own = [Example(e.prompt, answer) for e, answer in zip(SAY + CRY, said, strict=True)]
    odds = [math.exp(-mean_loss(bank, [e], alpha) * (len(e.completion) + 1)) for e in own]
    assert said[:4] == [e.completion for e in SAY] and min(odds[:4]) > 0.8 > min(odds[4:])
    middle = (sorted(odds)[3] + sorted(odds)[4]) / 2
    aim = Pseudo(bank, lambda: alpha, SAY + CRY, 8, middle, 8)
    batch = aim.at(0)
    assert len(batch.parts[0][0].tokens) == sum(p >= middle for p in odds) == 4 and batch.parts[0][1] == 0.5
    wanted = [base.encode(e.completion) + [base.eos] for e, p in zip(own, odds, strict=True) if p >= middle]
    assert batch.labels.tolist() == [token for answer in wanted for token in answer]


def test_labels_are_not_read(world):
    alpha = torch.tensor([[1.0] * 3, [0.0] * 3])
    blind = [Example(e.prompt, "?") for e in SAY]
    one, other = pseudo(world, alpha, 0.5).at(0), pseudo(world, alpha, 0.5, blind).at(0)
    assert torch.equal(one.labels, other.labels) and len(one.labels) > 0


def test_nobody_sure_is_a_step_without_a_loss(world):
    numbers = torch.zeros(2, 3, requires_grad=True)
    aim = pseudo(world, numbers, 1.0)
    (piece,) = aim.at(0).pieces(512)
    assert len(piece.labels) == 0
    aim.loss(piece).backward()
    assert not numbers.grad.any()


def test_its_own_answers_become_surer_right_or_wrong(world):
    """At 0.6 the skill answers one prompt wrong: what it is sure of it confirms, whatever it is."""
    base, skills = world
    some, start = {"say": skills["say"]}, torch.full((1,), 0.6)
    bank, blind = SkillBank(base, some), [Example(e.prompt, "") for e in SAY]
    with bank.on(start):
        own = [Example(e.prompt, a) for e, a in zip(SAY, base.generate([e.prompt for e in SAY], 8), strict=True)]
    assert sum(e.completion != right.completion for e, right in zip(own, SAY, strict=True)) == 1
    how = Scales(steps=20, batch=4, lr=0.01, start=0.6, granularity="block", objective="pseudo", sure=0.5, longest=8)
    woven, log = how.fit(base, some, blind, 0)
    assert mean_loss(bank, own, woven.alpha) < 0.8 * mean_loss(bank, own, start) and log.labels > 0


def test_nobody_ever_sure_is_said(world):
    base, skills = world
    how = Scales(steps=2, batch=4, objective="pseudo", sure=1.0, longest=4)
    with pytest.raises(BadData, match="no answer was as sure as 1"):
        how.fit(base, skills, SAY, 0)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"objective": "ec"}, NotFound, "Did you mean `ce`"),
        ({"objective": "pseudo", "replay": 0.2}, BadOption, "pseudo mixes no other examples"),
        ({"objective": "negate", "recombined": 0.2}, BadOption, "negate mixes no other examples"),
        ({"objective": "pseudo", "valid": 0.2}, BadOption, "pseudo reads no answer to choose a step by"),
        ({"objective": "pseudo", "sure": 0.0}, BadOption, "sure is 0, but is a probability"),
        ({"longest": 0}, BadOption, "longest is 0"),
        ({"valid": 1.0}, BadOption, "valid is 1, but is a share"),
        ({"objective": "negate"}, BadOption, "forget is ``"),
        ({"objective": "negate", "forget": "say"}, BadOption, "no example of what is to be kept"),
        ({"granularity": "blocks"}, BadOption, "granularity is `blocks`"),
    ],
)
def test_what_cannot_be(world, options, kind, words):
    base, skills = world
    with pytest.raises(kind, match=words):
        Scales(steps=2, batch=4, **options).fit(base, skills, SAY, 0)


def test_one_example_cannot_be_kept_apart(world):
    base, skills = world
    with pytest.raises(BadOption, match="of 1 example, none can be kept apart"):
        Scales(steps=2, batch=4, valid=0.5).fit(base, skills, SAY[:1], 0)


@pytest.mark.parametrize(("count", "share", "apart"), [(2, 0.1, 1), (2, 0.9, 1), (10, 0.25, 2), (20, 0.25, 5), (4, 0.5, 2)])
def test_the_share_that_is_kept_apart(count, share, apart):
    some = [Example(f"{i}", "x") for i in range(count)]
    learned, kept = Scales(valid=share).split(some, 3)
    assert len(kept) == apart and sorted(map(repr, [*learned, *kept])) == sorted(map(repr, some))
    assert (learned, kept) == Scales(valid=share).split(some, 3)
    assert count < 10 or kept != Scales(valid=share).split(some, 4)[1]


def test_the_best_step_and_not_the_last(world):
    """A rate that throws α about: what is kept is better on what was kept apart than the end, and no worse than the start."""
    base, skills = world
    wild = {"steps": 20, "batch": 2, "lr": 3.0, "granularity": "block"}
    bank, apart = SkillBank(base, skills), Scales(valid=0.5).split(SAY, 0)[1]
    last, best = (Scales(**wild, valid=v).fit(base, skills, SAY, 0)[0] for v in (0.0, 0.5))
    held = [mean_loss(bank, apart, alpha) for alpha in (last.alpha, best.alpha, torch.ones(2))]
    assert held[1] < held[0] and held[1] <= held[2]


def test_decay_pulls_to_the_base(world):
    base, skills = world
    still = [Example("x\n", "")] * 4
    free, pulled = (Scales(steps=20, batch=4, lr=1e-2, decay=d).fit(base, skills, still, 0)[0].alpha for d in (0.0, 20.0))
    assert pulled.abs().mean() < free.abs().mean() - 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"valid": 0.5, "rank": 2},
        {"objective": "negate", "forget": "say", "valid": 0.5},
        {"objective": "pseudo", "sure": 0.1, "longest": 6},
    ],
    ids=lambda options: options.get("objective", "ce"),
)
def test_an_interrupted_run_goes_on_bit_for_bit(world, stopped, options):
    base, skills = world
    how, carried = Scales(steps=8, batch=2, lr=0.5, granularity="block", **options), {"say": SAY, "cry": CRY}
    whole, log = how.fit(base, skills, SAY, 0, carried)
    again, resumed = stopped(scales, lambda run: how.fit(base, skills, SAY, 0, carried, run), 5)
    assert torch.equal(whole.alpha.alpha, again.alpha.alpha) and log.loss == resumed.loss


def test_a_new_skill_learns_beside_blocks(world):
    base, skills = world
    some = [Example(f"hum {c}\n", "m" * 3) for c in "abcd"]
    woven, _ = ScalesWithLora(steps=40, batch=4, lora_lr=1e-2, granularity="block").fit(base, skills, some, 0)
    bank, alpha = woven.bank(base, skills)
    assert mean_loss(bank, some, alpha) < 0.2 and alpha.alpha.shape == (3, 21)
