"""Rejection tuning and self-training: what is kept, that it teaches, and that a stopped run ends in the same bits."""

import json
from dataclasses import replace

import pytest
import torch

from skillweave.composition import Active
from skillweave.errors import BadOption, SkillweaveError
from skillweave.learn import practice as module
from skillweave.learn.journal import UNTIMED
from skillweave.learn.loop import Run
from skillweave.learn.rejection import Rejection
from skillweave.learn.rollout import Judge, Prompts, Rollout, Writer
from skillweave.learn.rounds import Rounds
from skillweave.learn.sampling import Sample
from skillweave.learn.selftrain import SelfTrain, tries
from skillweave.task import Example

QUICK = Rejection(steps=6, batch=4, rounds=3, prompts=6, samples=8, lr=1e-2, rank=4, tokens=4, cut=True)
CHOOSING = SelfTrain(
    steps=6, batch=4, rounds=3, prompts=6, samples=8, lr=1e-2, rank=4, tokens=4, cut=True, tuning=3, temperatures=(0.5, 1.5)
)
METHODS = pytest.mark.parametrize("method", [QUICK, CHOOSING], ids=["rejection", "selftrain"])


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


def rollout(*rows: tuple[str, float, bool]) -> Rollout:
    samples = tuple(Sample((5, 2), (-0.1, -0.2), text, ended) for text, _, ended in rows)
    rewards = tuple(reward for _, reward, _ in rows)
    return Rollout(Example("x", "y"), (1,), samples, rewards, {"score": rewards})


def rounds_of(picker, pick, method):
    return Rounds(method, Writer(Active(picker), Judge(pick), 4, 0), Prompts(pick.take(24, "train"), 0), Run())


@METHODS
def test_practice_raises_the_reward(practise, method):
    log = practise(replace(method, steps=30))[1]
    rewards = [row["reward"] for row in log.rows]
    assert len(rewards) == 3 and rewards[-1] > rewards[0] + 0.3


@METHODS
def test_the_same_seed_gives_the_same_skill(practise, method):
    (one, log), (two, again) = practise(method), practise(method)
    assert same(one, two) and facts(log) == facts(again) and not same(one, practise(method, seed=1)[0])


@METHODS
def test_who_watches_adds_to_each_round_and_changes_nothing(practise, method):
    seen = []
    skill, log = practise(method, watch=lambda step, use: seen.append(step) or {"seen": use.bank is not None})
    assert seen == [0, 2, 4] and [row["seen"] for row in log.rows] == [True] * 3 and same(skill, practise(method)[0])


@METHODS
def test_a_stopped_run_ends_in_the_same_bits(practise, stopped, tmp_path, method):
    """It is stopped in the third step, in the middle of the second round, and again has what that round kept."""
    skill, log = practise(method)
    journal = tmp_path / "log.jsonl"
    again, resumed = stopped(module, lambda run: practise(method, replace(run, journal=journal)))
    assert same(skill, again) and facts(log) == facts(resumed) and log.samples == resumed.samples
    assert [json.loads(line) for line in journal.read_text().splitlines()] == resumed.rows


@pytest.mark.parametrize(("cut", "keep", "wanted"), [(False, 0, [0, 1]), (True, 0, [4, 0, 1]), (True, 2, [4, 0])])
def test_what_is_kept_is_right_different_and_ended(picker, pick, cut, keep, wanted):
    rows = ("a", 1.0, True), ("b", 1.0, True), ("a", 1.0, True), ("c", 0.5, True), ("d", 1.5, False)
    course = rounds_of(picker, pick, replace(QUICK, cut=cut, keep=keep))
    kept = course.chosen(rollout(*rows), 1.0)
    assert [one.text for one in kept.samples] == [rows[i][0] for i in wanted]


def test_the_labels_are_the_tokens_that_were_drawn(picker, pick, monkeypatch):
    """Also where the text would be encoded otherwise: `b` and an unknown token have the text `b`, say."""
    seen = []
    drawn = (picker.encode("b")[0], picker.encode("c")[0], picker.eos)
    always = [Sample(drawn, (-1.0,) * 3, "b", True)]
    monkeypatch.setattr("skillweave.learn.rollout.sample", lambda use, asked, count, **how: [always for _ in asked])
    monkeypatch.setattr(module, "bank_loss", lambda bank, batch: seen.append(batch.labels.tolist()) or _still(bank))
    Rejection(steps=1, batch=2, rounds=1, prompts=2, samples=1).fit(picker, pick.take(4, "train"), 0, task=pick)
    assert seen == [[*drawn, *drawn]]


def _still(bank):
    return sum(tensor.sum() for skill in bank.skills.values() for tensor in skill.tensors().values()) * 0


def test_rounds_are_even(picker, pick):
    for steps, rounds in ((6, 3), (7, 3), (5, 5), (120, 4), (11, 4)):
        course = rounds_of(picker, pick, replace(QUICK, steps=steps, rounds=rounds))
        numbers = [course.round_of(step) for step in range(steps)]
        counts = [numbers.count(n) for n in range(rounds)]
        assert numbers == sorted(numbers) and max(counts) - min(counts) <= 1 and min(counts) >= 1
        assert [numbers.index(n) for n in range(rounds)] == [course.first_of(n) for n in range(rounds)]


@METHODS
def test_nothing_right_is_refused(practise, method):
    with pytest.raises(SkillweaveError, match=r"none of \d+ completions of \d prompts of pick .*nothing to learn from") as said:
        practise(method, reward=lambda example, group: [0.0] * len(group))
    assert "--from" in said.value.hint


def test_a_round_that_keeps_nothing_is_idle(practise):
    calls = []

    def reward(example, group):
        calls.append(1)
        return [float(len(calls) <= 6)] * len(group)

    skill, log = practise(QUICK, reward=reward)
    assert log.idle == 4 and [row["kept"] > 0 for row in log.rows] == [True, False, False]


def test_few_right_answers_are_not_drilled_in(picker, pick):
    """Three completions at most twice each are a batch of four, one of two, and idle steps."""
    course = rounds_of(picker, pick, replace(QUICK, steps=8, rounds=2, passes=2))
    course.pairs = [([1, 4, 2], 2), ([1, 5, 2], 2), ([1, 6, 2], 2)]
    course._begin = lambda now, step: None
    batches = [course.batch(step) for step in range(4)]
    assert [len(batch.tokens) for batch in batches] == [4, 2, 0, 0] and batches[2].pieces(512) == []
    firsts = [row[1] for batch in batches for row in batch.tokens.tolist()]
    assert sorted(firsts) == [4, 4, 5, 5, 6, 6]


@METHODS
def test_every_completion_is_counted(practise, method):
    log = practise(method)[1]
    tuning = 3 * 3 * 2 * 8 if isinstance(method, SelfTrain) else 0
    assert log.samples == log.rows[-1]["samples"] == 3 * 6 * 8 + tuning


def test_quality_decides_which_right_answers_are_kept(practise):
    """Right answers are those that begin with b or c; of these the longer ones pass."""
    seen = []

    def quality(example, group):
        seen.append(len(group))
        return [0.5 * (len(one.text) > 1) for one in group]

    plain, strict = (practise(replace(QUICK, threshold=at, keep=0), quality=quality)[1].rows[0] for at in (1.0, 1.5))
    assert 0 < strict["kept"] < plain["kept"] and seen


def test_a_continued_skill_begins_where_it_was(practise):
    start, _ = practise(replace(QUICK, steps=20))
    rewards = [practise(QUICK, start=begin)[1].rows[0]["reward"] for begin in (None, start)]
    assert rewards[1] > rewards[0]


def test_the_chosen_setting_is_in_the_journal(practise):
    for row in practise(CHOOSING)[1].rows:
        assert row["temperature"] in (0.5, 1.5) and row["threshold"] == 0.5 and 0 < row["balance"] <= 1


def test_only_what_can_be_kept_is_weighed():
    rows = rollout(("a", 1.0, True), ("b", 0.0, True), ("c", 1.0, False))
    assert [(one.text, one.right) for one in tries(rows, False)] == [("a", True), ("b", False)]
    assert len(tries(rows, True)) == 3


@pytest.mark.parametrize(("method", "change", "words"), [
    (QUICK, {"rounds": 0}, "rounds is 0"), (QUICK, {"steps": 2}, "2 steps cannot be shared by 3 rounds"),
    (QUICK, {"samples": 0}, "samples is 0"), (QUICK, {"passes": 0}, "passes is 0"),
    (QUICK, {"temperature": -1.0}, "temperature is -1.0"),
    (CHOOSING, {"temperatures": ()}, "temperatures are"), (CHOOSING, {"temperatures": (0.0,)}, "temperatures are"),
    (CHOOSING, {"thresholds": ()}, "no threshold"), (CHOOSING, {"tuning": 0}, "tuning is 0"),
])  # fmt: skip
def test_options_that_cannot_work(practise, method, change, words):
    with pytest.raises(BadOption, match=words):
        practise(replace(method, **change))
