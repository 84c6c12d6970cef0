"""GRPO: reward rises, groups of equal reward are dropped and replaced, a run that is stopped goes on to the same bits."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.composition import Active
from skillweave.errors import BadOption, SkillweaveError
from skillweave.learn import grpo as module
from skillweave.learn.course import Course
from skillweave.learn.grpo import GRPO
from skillweave.learn.grpo_loss import CLIPS
from skillweave.learn.journal import UNTIMED
from skillweave.learn.loop import Plan, Run
from skillweave.learn.rollout import Judge, Prompts, Writer
from skillweave.learn.templates import Template, phrase
from skillweave.measure.score import evaluate

QUICK = GRPO(steps=4, batch=3, group=6, lr=1e-2, rank=4, tokens=4, probe=6)


@pytest.fixture
def practise(picker, pick):
    """`practise(method, run, …)`: `method` on the picker."""

    def call(method=QUICK, run=Run(), seed=0, **more):
        return method.fit(picker, pick.take(24, "train"), seed, run, task=pick, **more)

    return call


def facts(log):
    """The rows of a log without what no two runs share."""
    return [{key: value for key, value in row.items() if key not in UNTIMED} for row in log.rows]


def same(one, other):
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def course(picker, pick, method, reward=None, prompts=None, run=Run()):
    writer = Writer(Active(picker), Judge(pick, reward), 4, 0)
    return Course(method, Plan(method.steps), writer, Active(picker), prompts or Prompts(pick.take(24, "train"), 0), run)


def test_reward_rises(practise, picker, pick):
    skill, log = practise(replace(QUICK, steps=25, batch=4, group=8, rank=8))
    first, last = (sum(row["reward"] for row in rows) / 5 for rows in (log.rows[1:6], log.rows[-5:]))
    assert 0 < log.rows[0]["pass@1"] < log.rows[0]["pass@8"] < 1 and last > first + 0.3
    alone, taught = (
        sum(evaluate(use, pick, pick.take(6, "test")).exact) / 6
        for use in (Active(picker), Active(picker, SkillBank(picker, {"new": skill})))
    )
    assert taught == 1 > alone


@pytest.mark.parametrize("kind", sorted(CLIPS))
def test_every_loss_learns_and_is_the_same_twice(practise, kind):
    method = replace(QUICK, loss=kind, updates=2)
    (one, log), (two, again) = practise(method), practise(method)
    assert same(one, two) and facts(log) == facts(again) and log.idle == 0
    assert any(f.b.abs().sum() > 0 for f in one.factors.values())
    assert not same(one, practise(method, seed=1)[0])


def test_the_first_update_is_the_policy_that_drew(practise):
    """The ratio of the first update is one, whatever the temperature; that of the second is not."""
    log = practise(replace(QUICK, updates=2, temperature=0.7))[1]
    gaps = [row["sampling/sampling_logp_difference/max"] for row in log.rows[1:]]
    assert len(gaps) == 4 and max(gaps[0], gaps[2]) < 1e-4 < min(gaps[1], gaps[3])


def test_the_clip_is_counted(practise):
    log = practise(replace(QUICK, updates=4, low=1e-6, high=1e-6))[1]
    assert log.rows[1]["clip_ratio/region_mean"] < log.rows[-1]["clip_ratio/region_mean"] > 0
    for row in log.rows[1:]:
        assert row["clip_ratio/low_mean"] + row["clip_ratio/high_mean"] == pytest.approx(row["clip_ratio/region_mean"])


def test_divergence_is_counted_from_the_start_of_a_continued_skill(practise, picker, pick):
    start, _ = practise()
    log = practise(replace(QUICK, kl=0.1, updates=2), start=start)[1]
    values = [row["kl"] for row in log.rows[1:]]
    assert 0 <= values[0] < 1e-6 < values[-1]
    assert "kl" not in practise(start=start)[1].rows[-1]


def test_a_heavy_divergence_holds_the_skill_back(practise):
    start, _ = practise()
    free, held = (practise(replace(QUICK, steps=8, updates=4, kl=kl), start=start)[1].rows for kl in (1e-9, 100.0))
    assert held[-1]["kl"] < free[-1]["kl"]


def test_a_continued_skill_begins_where_it_was_and_leaves_it_alone(practise, picker):
    start, _ = practise()
    before = {name: tensor.clone() for name, tensor in start.tensors().items()}
    skill, _ = practise(replace(QUICK, rank=2), start=start)
    assert skill.rank == start.rank == 4 and not same(skill, start)
    assert all(torch.equal(before[name], tensor) for name, tensor in start.tensors().items())


def test_groups_of_equal_reward_are_dropped_and_others_asked(picker, pick):
    """A reward that is level for some prompts: exactly the others are learned from."""
    uneven = "uvw"

    def reward(example, group):
        return [float(i % 2) if example.prompt[0] in uneven else 0.5 for i in range(len(group))]

    run = course(picker, pick, replace(QUICK, probe=0, batch=3), reward)
    batch = run.batch(0)
    assert [r.example.prompt[0] in uneven for r in run.kept] == [True] * 3
    assert run.facts["groups/kept"] == 3 < run.facts["groups/asked"] <= 12 and len(batch.samples) == 18
    asked = [run.prompts.at(i).prompt for i in range(run.facts["groups/asked"])]
    assert [p for p in asked if p[0] in uneven] == [r.example.prompt for r in run.kept]
    assert run.facts["frac_reward_zero_std"] == pytest.approx(1 - 3 / len(asked))


def test_refills_are_bounded(picker, pick):
    run = course(picker, pick, replace(QUICK, probe=0, refills=2), lambda example, group: [0.5] * len(group))
    batch = run.batch(0)
    assert run.facts["groups/asked"] == 9 and run.kept == [] and batch.pieces(512) == [] and run.writer.samples == 54


def test_a_difference_however_small_keeps_a_group(picker, pick):
    run = course(picker, pick, replace(QUICK, probe=0, refills=0), lambda e, group: [0.5] * (len(group) - 1) + [0.5 + 1e-9])
    run.batch(0)
    assert len(run.kept) == 3


def test_who_watches_adds_to_each_row_and_changes_nothing(practise):
    skill, log = practise(watch=lambda step, use: {"seen": step} if step % 2 == 0 else {})
    assert [row.get("seen") for row in log.rows] == [None, None, 2, None, 4] and same(skill, practise()[0])


def test_a_steady_rate_stays(practise):
    rates = [row["learning_rate"] for row in practise(replace(QUICK, steady=True))[1].rows if row["step"]]
    assert rates == [QUICK.lr] * 4 and practise()[1].rows[-1]["learning_rate"] < QUICK.lr


def test_an_idle_step_changes_nothing(practise):
    """Nothing to prefer from the second step on: the weights are those of the first."""
    calls = []

    def reward(example, group):
        calls.append(example)
        return [float(i % 2 and len(calls) <= 3) for i in range(len(group))]

    method = replace(QUICK, probe=0, refills=0)
    skill, log = practise(method, reward=reward)
    assert log.idle == 3 and [row["loss"] for row in log.rows[1:]] == [0, 0, 0]
    calls.clear()
    short = module.Plan
    module.Plan = partial(Plan, stop=1)
    try:
        assert same(skill, practise(method, reward=reward)[0])
    finally:
        module.Plan = short


def test_nothing_right_is_refused_before_any_step(practise):
    with pytest.raises(SkillweaveError, match=r"none of 36 completions of 6 prompts of pick .*pass@6 is 0") as said:
        practise(reward=lambda example, group: [0.0] * len(group))
    assert "--from" in said.value.hint


def test_everything_right_is_refused(practise):
    with pytest.raises(SkillweaveError, match=r"within each of 6 groups .* earned the same \(on average 1.00\)"):
        practise(reward=lambda example, group: [1.0] * len(group))


@pytest.mark.parametrize(("change", "words"), [
    ({"loss": "ppo"}, "loss is `ppo`"), ({"group": 1}, "group is 1"), ({"updates": 0}, "updates is 0"),
    ({"temperature": 0.0}, "temperature is 0.0"),
])  # fmt: skip
def test_options_that_cannot_work(practise, change, words):
    with pytest.raises(BadOption, match=words):
        practise(replace(QUICK, **change))


@pytest.mark.parametrize("updates", [1, 2])
def test_a_stopped_run_ends_in_the_same_bits(practise, stopped, tmp_path, updates):
    method = replace(QUICK, steps=5, updates=updates, kl=0.01)
    skill, log = practise(method)
    journal = tmp_path / "log.jsonl"
    again, resumed = stopped(module, lambda run: practise(method, replace(run, journal=journal)))
    assert same(skill, again) and facts(log) == facts(resumed) and log.loss == resumed.loss
    assert (log.samples, log.drawn) == (resumed.samples, resumed.drawn)
    assert [json.loads(line) for line in journal.read_text().splitlines()] == resumed.rows


def test_a_curriculum_goes_on_where_it_was(practise, stopped, pick):
    class Hard(Prompts):
        """Asks what was answered worst so far."""

        def __init__(self):
            super().__init__(pick.take(24, "train"), 0)
            self.rewards = {}

        def at(self, place):
            order = sorted(range(24), key=lambda i: (self.rewards.get(self.examples[i].prompt, 0), i))
            return self.examples[order[place % 24]]

        def told(self, rollouts):
            self.rewards |= {r.example.prompt: sum(r.rewards) for r in rollouts}

        def saved(self):
            return self.rewards

        def restore(self, saved):
            self.rewards = dict(saved)

    skill, log = practise(prompts=Hard())
    again, resumed = stopped(module, lambda run: practise(run=run, prompts=Hard()))
    assert same(skill, again) and facts(log) == facts(resumed)
    assert not same(skill, practise()[0])


def test_a_verifier_that_raises_does_not_stop_the_run(picker, pick):
    class Broken(type(pick)):
        def score(self, example, completion):
            if completion[:1] not in ("b", "c"):
                raise RuntimeError("no")
            return super().score(example, completion)

    _, log = QUICK.fit(picker, pick.take(24, "train"), 0, task=Broken())
    assert len(log.rows) == 5 and log.rows[-1]["rewards/failed"] > 0


def test_the_journal_has_the_names_of_trl(practise, tmp_path):
    path = tmp_path / "log.jsonl"
    practise(replace(QUICK, kl=0.1), Run(journal=path), templates=[Template("say", "{prompt}", format=phrase("a"))])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4] and {"pass@1", "pass@6"} <= rows[0].keys()
    names = {
        "loss", "learning_rate", "reward", "reward_std", "frac_reward_zero_std", "rewards/score/mean", "rewards/format/mean",
        "completions/mean_length", "completions/min_length", "completions/max_length", "completions/clipped_ratio", "entropy",
        "kl", "clip_ratio/low_mean", "clip_ratio/low_min", "clip_ratio/high_mean", "clip_ratio/high_max",
        "clip_ratio/region_mean", "num_tokens", "step_time", "sampling/sampling_logp_difference/mean",
    }  # fmt: skip
    assert names <= rows[-1].keys()
    assert rows[-1]["reward"] == pytest.approx(rows[-1]["rewards/score/mean"] + rows[-1]["rewards/format/mean"], rel=1e-5)


def test_a_fall_is_said_once(practise, capsys, monkeypatch):
    monkeypatch.setattr("skillweave.learn.course.fallen", lambda rewards: 2 if len(rewards) > 1 else None)
    practise()
    assert capsys.readouterr().err.count("collapse:") == 1
