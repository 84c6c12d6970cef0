"""Conversations and executors: each turn is learned by what it earned itself, and nothing that others said is learned."""

from dataclasses import replace

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.composition import Active
from skillweave.errors import BadOption
from skillweave.learn import grpo as module
from skillweave.learn.course import Course
from skillweave.learn.grpo import GRPO
from skillweave.learn.grpo_loss import advantages
from skillweave.learn.loop import Plan, Run
from skillweave.learn.rollout import Judge, Prompts, Rollout, Writer
from skillweave.learn.templates import Template
from skillweave.learn.turns import Frozen, Turns, each

QUICK = GRPO(steps=4, batch=3, group=6, lr=1e-2, rank=4, tokens=2, probe=4)
REPLY = "cx\n"


def once(example, said):
    """One reply, then it is over."""
    return REPLY if len(said) == 1 else None


def first_d_then_v(example, talks):
    return [[float(one.text[:1] == letter) for one, letter in zip(talk, "dv", strict=False)] for talk in talks]


def course(picker, pick, method=QUICK, **how):
    writer = Writer(Active(picker), Judge(pick), 2, 0, **how)
    return Course(method, Plan(method.steps), writer, Active(picker), Prompts(pick.take(24, "train"), 0), Run())


def practise(picker, pick, method=QUICK, run=Run(), **more):
    return method.fit(picker, pick.take(24, "train"), 0, run, task=pick, **more)


def rows(log, key, slice_):
    found = [row[key] for row in log.rows if key in row][slice_]
    return sum(found) / len(found)


# An executor


def opposite(example, plan):
    """Wants a `d`, which the verifier itself would not take; a `b`, which it would, is nothing."""
    return "b" if plan[:1] == "d" else "x"


def test_what_an_executor_makes_of_a_plan_is_what_is_learned(picker, pick):
    method = replace(QUICK, steps=25, batch=4, group=8, rank=8)
    skill, log = practise(picker, pick, method, executor=each(opposite))
    assert rows(log, "reward", slice(-5, None)) > rows(log, "reward", slice(1, 6)) + 0.3
    said = Active(picker, SkillBank(picker, {"new": skill})).generate([e.prompt for e in pick.take(6, "test")], 2)
    assert {text[:1] for text in said} == {"d"}


def test_no_token_of_an_executor_is_a_label(picker, pick):
    run = course(
        picker,
        pick,
        replace(QUICK, probe=0),
        executor=lambda examples, plans: ["b" if i % 2 else "x" for i, _ in enumerate(plans)],
    )
    batch = run.batch(0)
    drawn = [token for rollout in run.kept for one in rollout.samples for token in one.tokens]
    assert sorted(batch.labels.tolist()) == sorted(drawn) and len(drawn) > 18
    assert all(rollout.rewards == (0, 1, 0, 1, 0, 1) for rollout in run.kept)
    assert any(one.text != "b" for rollout in run.kept for one in rollout.samples), "what was written is kept as it was"


def test_a_frozen_model_can_be_the_executor(picker, pick, loud):
    other = Active(loud(seed=1, alphabet="abcduvwxyz\n"))
    before = {name: tensor.clone() for name, tensor in other.base.model.state_dict().items()}
    executor = Frozen(other, tokens=3)
    examples, plans = pick.take(4, "train"), ["a", "bb", "cu", ""]
    asked = [f"{example.prompt}{plan}\n" for example, plan in zip(examples, plans, strict=True)]
    assert executor(examples, plans) == other.generate(asked, 3)
    _, log = practise(picker, pick, replace(QUICK, probe=0), executor=executor)
    assert len(log.loss) == 4
    assert all(torch.equal(before[name], tensor) for name, tensor in other.base.model.state_dict().items())


def test_an_executor_that_fails_earns_nothing_and_the_run_goes_on(picker, pick):
    def broken(examples, plans):
        raise RuntimeError("no")

    run = course(picker, pick, replace(QUICK, probe=0, refills=0), executor=broken)
    run.batch(0)
    assert run.kept == [] and run.writer.judge.failed == 18
    assert each(opposite)(pick.take(2, "train"), ["d", "u"]) == ["b", "x"]
    assert each(lambda example, plan: plan[9])(pick.take(1, "train"), ["d"]) == [""]


# Turns


def test_each_turn_is_learned_by_its_own_reward(picker, pick):
    method = replace(QUICK, steps=25, batch=4, group=8, rank=8)
    skill, log = practise(picker, pick, method, turns=Turns(once, first_d_then_v))
    for turn in ("rewards/turn 1/mean", "rewards/turn 2/mean"):
        assert rows(log, turn, slice(-5, None)) > rows(log, turn, slice(0, 5)) + 0.3, turn
    use = Active(picker, SkillBank(picker, {"new": skill}))
    asked = [example.prompt for example in pick.take(6, "test")]
    first = use.generate(asked, 2)
    second = use.generate([a + said + REPLY for a, said in zip(asked, first, strict=True)], 2)
    assert sum(said[:1] == "d" for said in first) >= 4 and sum(said[:1] == "v" for said in second) >= 4


def test_a_turn_is_compared_with_the_same_turn_of_its_group(picker, pick):
    run = course(picker, pick, replace(QUICK, probe=0), turns=Turns(once, first_d_then_v))
    run.batch(0)
    wanted = [a for rollout in run.kept for a in advantages(torch.tensor(rollout.rewards), "dapo").tolist()]
    assert run._better == wanted and {rollout.turn for rollout in run.kept} == {0, 1} and run.facts["groups/kept"] == 3
    for rollout in run.kept:
        letter = "dv"[rollout.turn]
        assert rollout.rewards == tuple(float(one.text[:1] == letter) for one in rollout.samples) and not rollout.level


def test_only_what_the_model_drew_is_a_label_and_it_drew_it_behind_the_reply(picker, pick):
    run = course(picker, pick, replace(QUICK, probe=0), turns=Turns(once, first_d_then_v))
    batch = run.batch(0)
    drawn = [token for rollout in run.kept for one in rollout.samples for token in one.tokens]
    assert sorted(batch.labels.tolist()) == sorted(drawn)
    later = [rollout for rollout in run.kept if rollout.turn]
    reply = picker.encode(REPLY)
    assert later
    for rollout in later:
        assert len(rollout.prompts) == len(rollout.samples) == 6
        for prompt, (tokens, count) in zip(rollout.prompts, rollout.pairs(), strict=True):
            assert list(prompt[-len(reply) :]) == reply and tokens[:-count] == list(prompt)
    assert any(len(set(rollout.prompts)) > 1 for rollout in later), "each behind what it said itself"
    logp = run._logp(run.writer.use, batch.pieces(10**6)[0])
    assert torch.allclose(logp.detach(), torch.cat([torch.tensor(one.logprobs) for one in run.kept[0].samples]), atol=1e-4)


def test_a_turn_that_all_did_alike_is_dropped_and_the_other_kept(picker, pick):
    def only_second(example, talks):
        return [[1.0, float(i % 2)] for i, _ in enumerate(talks)]

    run = course(picker, pick, replace(QUICK, probe=0), turns=Turns(once, only_second))
    run.batch(0)
    assert [rollout.turn for rollout in run.kept] == [1, 1, 1] and run.facts["groups/kept"] == 3 == run.facts["groups/asked"]


def test_conversations_may_be_of_different_lengths(picker, pick):
    def until_b(example, said):
        return None if "b" in said[-1] else REPLY

    run = course(picker, pick, replace(QUICK, probe=0), turns=Turns(until_b, most=3))
    (group,) = run.writer.play(pick.take(1, "train"), 40, 1.0, "here")
    counts = [len(rollout.samples) for rollout in group]
    over = [sum("b" in one.text for one in rollout.samples) for rollout in group]
    assert counts[0] == 40 and counts[1:] == [n - k for n, k in zip(counts[:2], over[:2], strict=True)] and min(counts) > 0
    assert sum(group[-1].rewards) == sum(pick.score(group[-1].example, one.text) for one in group[-1].samples)
    assert run.writer.samples == sum(counts)


def test_without_a_reward_all_turns_earn_what_the_last_one_scores(picker, pick):
    run = course(picker, pick, replace(QUICK, probe=0), turns=Turns(once))
    (group,) = run.writer.play(pick.take(1, "train"), 90, 1.0, "here")
    assert group[0].rewards == group[1].rewards and 0 < sum(group[1].rewards) < 90
    assert group[1].rewards == tuple(pick.score(group[1].example, one.text) for one in group[1].samples)


def test_one_turn_is_what_there_is_without_turns(picker, pick):
    one, other = (practise(picker, pick, **how)[0].tensors() for how in ({}, {"turns": Turns(once, most=1)}))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stopped_run_of_turns_ends_in_the_same_bits(picker, pick, stopped):
    how = {"turns": Turns(once, first_d_then_v)}
    method = replace(QUICK, updates=2)
    skill, log = practise(picker, pick, method, **how)
    again, resumed = stopped(module, lambda run: practise(picker, pick, method, run, **how))
    assert (
        all(torch.equal(tensor, again.tensors()[name]) for name, tensor in skill.tensors().items()) and log.loss == resumed.loss
    )


def test_a_rollout_of_a_later_turn_is_saved_whole(picker, pick):
    run = course(picker, pick, turns=Turns(once, first_d_then_v))
    for rollout in run.writer.play(pick.take(1, "train"), 4, 1.0, "here")[0]:
        assert Rollout.restored(rollout.saved()) == rollout
        assert rollout.keep([2, 0]).pairs() == [rollout.pairs()[2], rollout.pairs()[0]]


def test_a_reply_that_fails_ends_the_conversation(picker, pick):
    def broken(example, said):
        raise RuntimeError("no")

    run = course(picker, pick, turns=Turns(broken))
    (group,) = run.writer.play(pick.take(1, "train"), 5, 1.0, "here")
    assert len(group) == 1 and run.writer.judge.failed == 5


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (
            "the reward gave .* numbers for conversations of .* turns",
            {"turns": Turns(once, lambda e, talks: [[1.0]] * len(talks))},
        ),
        ("the executor gave 1 answers for 24 completions", {"executor": lambda examples, plans: ["b"]}),
        ("neither templates nor a quality", {"turns": Turns(once), "templates": [Template("plain")]}),
    ],
)
def test_mistakes_are_answered_in_a_sentence(picker, pick, words, how):
    with pytest.raises(BadOption, match=words):
        practise(picker, pick, **how)
    with pytest.raises(BadOption, match="most is 0"):
        Turns(once, most=0)
