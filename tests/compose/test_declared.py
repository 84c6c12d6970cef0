"""Declared skills: the mean is exact, what is not declared stays as it is, tasks have the shares of the formula."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.base import TinyBase
from skillweave.compose import declared
from skillweave.compose.declared import OWNER, Declared, Sets, average, check_sets, shares
from skillweave.compose.sum import Sum
from skillweave.delta import LowRank
from skillweave.errors import BadOption, NotFound
from skillweave.learn.batches import Batches
from skillweave.learn.loss import bank_loss, mean_loss
from skillweave.task import Example

TOKENS = torch.tensor([[1, 20, 30, 40, 50], [1, 9, 8, 7, 6], [1, 11, 12, 13, 14]])
SETS = {"x": ("all", "a"), "y": ("all", "b")}
ROWS = {task: [Example(f"{task} {i}\n", str(i % 7)) for i in range(30)] for task in SETS}


@pytest.fixture
def skills(tiny, random_skill):
    some = list(tiny.linears)[3:9]
    return {"all": random_skill(tiny, 1, 2), "a": random_skill(tiny, 2, 3, some), "b": random_skill(tiny, 3, 1)}


def copies(skills):
    return {name: {part: t.clone() for part, t in skill.tensors().items()} for name, skill in skills.items()}


def same(skill, before):
    return all(torch.equal(t, before[part]) for part, t in skill.tensors().items())


def test_the_mean_is_the_sum_at_one_over_the_number(tiny, skills):
    woven, log = Declared().fit(tiny, skills, [], 0)
    by_hand = Sum(weights=(1 / 3,) * 3).composition(tiny, skills, 0)
    assert (woven.skills, log.loss) == (("all", "a", "b"), [])
    assert torch.equal(woven.alpha, by_hand.alpha) and woven.alpha.unique().tolist() == [pytest.approx(1 / 3)]
    assert Declared().strengths(3) == [1 / 3] * 3


def test_each_sample_is_computed_with_the_mean_of_its_own_set(tiny, skills):
    bank = SkillBank(tiny, skills)
    sets = [("all", "a"), ("b",), ("a", "all", "b")]
    with bank.on(Sets(bank, sets).of([2, 0, 1])):
        together = tiny.hidden(TOKENS)
    seen = 0
    for row, names in enumerate([sets[2], sets[0], sets[1]]):
        alone = average(tiny, names).merged(tiny, skills)
        with SkillBank(tiny, {"mean": alone}).on():
            assert torch.allclose(tiny.hidden(TOKENS[row : row + 1])[0], together[row], rtol=1e-4, atol=1e-5)
            seen += 1
    assert seen == 3 and not torch.allclose(tiny.hidden(TOKENS), together, atol=1e-2)


def test_a_skill_outside_the_set_gets_no_gradient(tiny, skills):
    learned = {name: _learning(skill) for name, skill in skills.items()}
    bank = SkillBank(tiny, learned)
    batch = Batches(tiny, ROWS["x"], 4, 0).at(0)
    bank_loss(bank, batch, Sets(bank, [SETS["x"]] * 30).of(batch.samples)).backward()
    moved = {name: any(t.grad is not None for t in skill.tensors().values()) for name, skill in learned.items()}
    assert moved == {"all": True, "a": True, "b": False}


def _learning(skill: LowRank) -> LowRank:
    for tensor in skill.tensors().values():
        tensor.requires_grad_()
    return skill


def test_what_no_drawn_task_declares_stays_bit_equal(tiny, skills):
    before = copies(skills)
    method = Declared(steps=3, batch=4)
    learned, log = method.joint(tiny, skills, SETS, {"x": ROWS["x"], "y": []}, 0)
    assert len(log.loss) == 3 and same(learned["b"], before["b"])
    assert not same(learned["all"], before["all"]) and not same(learned["a"], before["a"])
    assert all(same(skill, before[name]) for name, skill in skills.items())  # what was given is never written to
    assert not any(t.requires_grad for skill in learned.values() for t in skill.tensors().values())


def test_experts_learn_their_tasks_together(loud):
    base = loud()
    experts = {name: LowRank.fresh(base, 4, 2.0, seed) for seed, name in enumerate(("all", "a", "b"))}
    words = {"x": "pqrs", "y": "srqp"}  # the same questions, answered by each task in its own way
    rows = {
        task: [Example(f"say {c}\n", answer) for c, answer in zip("abcd", said, strict=True)] for task, said in words.items()
    }
    learned, _ = Declared(steps=150, batch=8, lr=1e-2).joint(base, experts, SETS, rows, 0)
    bank = SkillBank(base, learned)
    own, other = (mean_loss(bank, rows["x"], _mean(bank, SETS[task])) for task in ("x", "y"))
    assert own < 0.2 and mean_loss(bank, rows["y"], _mean(bank, SETS["y"])) < 0.2 and other > 1


def _mean(bank, names):
    return torch.tensor([1 / len(names) if name in names else 0.0 for name in bank.names])


def test_skills_that_learn_on_become_one_adapter(tiny, skills):
    woven, log = Declared(steps=4, batch=4).fit(tiny, skills, ROWS["x"], 0)
    again, _ = Declared(steps=4, batch=4).fit(tiny, skills, ROWS["x"], 0)
    assert (woven.skills, woven.new.rank, len(log.loss)) == ((), 6, 4)
    bank = SkillBank(tiny, skills)
    was = mean_loss(bank, ROWS["x"], average(tiny, tuple(skills)).alpha)
    assert mean_loss(*woven.bank(tiny, {})[:1], ROWS["x"]) < was
    assert same(woven.new, {part: t for part, t in again.new.tensors().items()})


@pytest.mark.parametrize(
    ("sizes", "temperature", "wanted"),
    [
        ({"x": 100, "y": 300}, 1.0, (0.25, 0.75)),
        ({"x": 1, "y": 16}, 2.0, (0.2, 0.8)),
        ({"x": 1, "y": 16}, 4.0, (1 / 3, 2 / 3)),
        ({"x": 5, "y": 5000}, 1e9, (0.5, 0.5)),
        ({"x": 50, "y": 50}, 0.1, (0.5, 0.5)),
        ({"x": 10, "y": 10**6}, 0.01, (0.0, 1.0)),
    ],
)
def test_shares_are_those_of_the_formula(sizes, temperature, wanted):
    assert tuple(shares(sizes, temperature).values()) == pytest.approx(wanted)


@pytest.mark.parametrize(("temperature", "wanted"), [(1.0, 20), (2.0, 32), (1e6, 48)])
def test_tasks_are_drawn_in_their_shares(temperature, wanted):
    rows = {"x": ROWS["x"][:5], "y": ROWS["y"][:20]}
    drawn = Declared(steps=12, batch=8, temperature=temperature).drawn(rows, 0)
    found = Counter(example.tags[OWNER] for example in drawn)
    assert (found["x"], found["x"] + found["y"]) == (pytest.approx(wanted, abs=1), 96)
    assert all(example.prompt.startswith(example.tags[OWNER]) for example in drawn)


@pytest.mark.parametrize(
    ("sets", "error", "words"),
    [
        ({"x": ()}, BadOption, "task `x` declares no skill"),
        ({"x": ("all", "a", "all")}, BadOption, "task `x` declares a skill twice: all, a, all"),
        ({"x": ("all", "aa")}, NotFound, "no skill `aa` in what the task `x` can declare. Did you mean `a`"),
        ({"x": ("all", "a")}, BadOption, "no task declares `b`"),
    ],
)
def test_bad_declarations_get_a_sentence(tiny, skills, sets, error, words):
    with pytest.raises(error, match=words):
        Declared(steps=1).joint(tiny, skills, sets, ROWS, 0)
    check_sets(SETS, skills)


def test_other_mistakes_get_a_sentence(tiny, skills):
    with pytest.raises(BadOption, match="temperature is 0, but has to be above 0"):
        Declared(steps=1, temperature=0.0).joint(tiny, skills, SETS, ROWS, 0)
    with pytest.raises(NotFound, match="no skill `c` in the bank"):
        Sets(SkillBank(tiny, skills), [("c",)])
    slot = next(iter(tiny.linears))
    f = skills["a"].factors | {slot: replace(skills["b"].factors[slot], bias=torch.ones(tiny.linears[slot].out_features))}
    with pytest.raises(BadOption, match=r"a bias \(`.*`\) cannot be thinned out or learn on"):
        Declared(steps=1).fit(tiny, skills | {"a": LowRank(f)}, ROWS["x"], 0)


def test_an_interrupted_run_goes_on_bit_for_bit(stopped):
    base = TinyBase(16)
    experts = {name: LowRank.fresh(base, 2, 2.0, seed) for seed, name in enumerate(("all", "a", "b"))}
    method = Declared(steps=6, batch=4)
    whole, log = method.joint(base, experts, SETS, ROWS, 0)
    again, resumed = stopped(declared, lambda run: method.joint(base, experts, SETS, ROWS, 0, run))
    assert all(same(again[name], copies(whole)[name]) for name in whole) and log.loss == resumed.loss


def test_an_embedding_cannot_learn_on(skills):
    slot, f = next(iter(skills["a"].factors.items()))
    with pytest.raises(BadOption, match=rf"a table of embeddings \(`{slot}`\) cannot be thinned out or learn on"):
        LowRank({slot: replace(f, lookup=True)}).learner()
