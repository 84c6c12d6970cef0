"""Rollouts: order of prompts, who scores, what is kept of it, how they become a batch."""

import json

import pytest
import torch

from skillweave.base import TinyBase
from skillweave.composition import Active
from skillweave.errors import BadData, BadOption
from skillweave.learn.collapse import fallen
from skillweave.learn.journal import Journal
from skillweave.learn.rollout import Judge, Prompts, Rollout, Writer, limit_of, together
from skillweave.learn.sampling import Sample
from skillweave.learn.templates import Template, after, inside, phrase, tags
from skillweave.task import Example, Task

TWO = [Example("ask a\n", "a"), Example("ask bbb\n", "b", {"kind": "x"})]


class Letters(Task):
    name, description = "letters", "a letter"

    def example(self, i, split):
        return TWO[i % 2]


def said(*texts: str) -> list[Sample]:
    return [Sample((5,), (-0.5,), text, True) for text in texts]


@pytest.fixture
def writer(tiny):
    return Writer(Active(tiny), Judge(Letters()), 6, 3)


def test_each_pass_asks_every_example_once_in_its_own_order():
    pool = [Example(str(i), "x") for i in range(20)]
    prompts = Prompts(pool, 4)
    first, second = ([prompts.at(p * 20 + i).prompt for i in range(20)] for p in (0, 1))
    assert sorted(first) == sorted(second) == sorted(e.prompt for e in pool) and first != second
    assert prompts.at(3).prompt == first[3] == Prompts(pool, 4).at(3).prompt
    assert [Prompts(pool, 5).at(i).prompt for i in range(20)] != first


def test_no_examples_are_a_sentence():
    with pytest.raises(BadData, match="no examples"):
        Prompts([], 0)


def test_the_task_scores_each_completion():
    judge = Judge(Letters())
    assert judge(TWO[0], said("a", "b", " a ")) == (1.0, 0.0, 1.0) and judge.failed == 0


def test_a_reward_sees_the_whole_group():
    rare = Judge(Letters(), lambda example, group: [1 / [s.text for s in group].count(one.text) for one in group])
    assert rare(TWO[0], said("a", "b", "b", "b")) == (1.0, 1 / 3, 1 / 3, 1 / 3)


def test_a_verifier_that_raises_counts_as_nothing(capsys):
    class Broken(Letters):
        def score(self, example, completion):
            if completion == "b":
                raise ZeroDivisionError("by the way")
            return float("nan") if completion == "c" else 1.0

    judge = Judge(Broken())
    assert judge(TWO[0], said("a", "b", "c", "b")) == (1.0, 0.0, 0.0, 0.0) and judge.failed == 3
    assert capsys.readouterr().err.count("verifier of letters") == 1
    whole = Judge(Letters(), lambda example, group: 1 / 0)
    assert whole(TWO[0], said("a", "b")) == (0.0, 0.0) and whole.failed == 2
    with pytest.raises(BadOption, match="1 numbers for 2"):
        Judge(Letters(), lambda example, group: [1.0])(TWO[0], said("a", "b"))


def test_what_is_drawn_follows_from_the_seed_and_the_place(tiny, writer):
    one, again, other = (writer.draw(TWO, 4, 1.0, "here", step) for step in (1, 1, 2))
    assert [r.samples for r in one] == [r.samples for r in again] != [r.samples for r in other]
    assert writer.samples == 24 and writer.drawn == sum(
        len(s.tokens) for rs in (one, again, other) for r in rs for s in r.samples
    )
    assert writer.read == 3 * 4 * sum(len(tiny.encode(e.prompt, start=True)) for e in TWO)
    assert list(one[1].prompt) == tiny.encode("ask bbb\n", start=True)


def test_a_rollout_is_itself_after_json(writer):
    for rollout in writer.draw(TWO, 3, 1.0, 0):
        again = Rollout.restored(json.loads(json.dumps(rollout.saved())))
        assert again == rollout and again.parts == rollout.parts and again.example.tags == rollout.example.tags


def test_level_is_exact():
    assert Rollout(TWO[0], (1,), tuple(said("a", "b")), (0.5, 0.5), {}).level
    assert not Rollout(TWO[0], (1,), tuple(said("a", "b")), (0.1 + 0.2, 0.3), {}).level


def test_a_batch_of_groups_has_each_label_once(tiny):
    groups = [[([1, 7, 8, 9], 2), ([1, 7, 8], 1)], [([1, 5, 6, 7, 8, 9, 10], 3)]]
    batch = together(groups, tiny.pad)
    assert batch.labels.tolist() == [8, 9, 8, 8, 9, 10] and batch.samples == (0, 1, 2) and batch.real == 3 + 2 + 6
    assert batch.positions == 2 * 3 + 6 and batch.tokens.shape == (3, 6)
    for size, shapes in ((512, [(2, 3), (1, 6)]), (3, [(1, 3), (1, 3), (1, 6)])):
        pieces = batch.pieces(size)
        assert [tuple(piece.tokens.shape) for piece in pieces] == shapes
        assert torch.cat([piece.labels for piece in pieces]).tolist() == batch.labels.tolist()
        assert [i for piece in pieces for i in piece.samples] == [0, 1, 2]
    assert together([], tiny.pad).pieces(512) == [] and together([], tiny.pad).positions == 0


def test_the_longest_completion_is_a_little_longer_than_any_right_answer():
    base = TinyBase(32)
    assert limit_of(base, [Example("x", "12345"), Example("x", "1")], 0) == 5 + 8 and limit_of(base, TWO, 3) == 3


def test_all_completions_of_a_prompt_share_a_template(tiny):
    forms = [Template("short", "{prompt}Say: ", format=phrase("."), share=0.5), Template("none", "Q {prompt}", "A: ")]
    writer = Writer(Active(tiny), Judge(Letters(), lambda example, group: [0.25] * len(group)), 4, 0, templates=forms)
    starts = {tiny.decode(r.prompt) for step in range(12) for r in writer.draw(TWO[:1], 3, 1.0, step)}
    assert starts == {"ask a\nSay: ", "Q ask a\nA: "}
    for rollout in (r for step in range(12) for r in writer.draw(TWO, 8, 1.0, step)):
        short = tiny.decode(rollout.prompt).endswith("Say: ")
        wanted = tuple(0.5 * ("." in one.text) if short else 1.0 for one in rollout.samples)
        assert rollout.parts["format"] == wanted and rollout.rewards == tuple(0.25 + x for x in wanted)


def test_the_verifier_sees_the_answer_and_the_format_everything(tiny, monkeypatch):
    form = Template("tagged", answer=inside("answer"), format=tags(["think", "answer"], given=["<think>"]))
    writer = Writer(Active(tiny), Judge(Letters()), 4, 0, templates=[form])
    text = "so</think><answer>a</answer>"
    monkeypatch.setattr("skillweave.learn.rollout.sample", lambda use, asked, count, **how: [said(text, "a")])
    rollout = writer.draw(TWO[:1], 2, 1.0, 0)[0]
    assert rollout.parts == {"score": (1.0, 0.0), "format": (1.0, 0.0)} and rollout.samples[0].text == text


def test_format_rewards():
    assert tags(["a"])("<a>x</a>") == 1 and tags(["a"])("<a><a>x</a>") == 0.5 and tags(["a", "b"])("<a></a>") == 0.5
    assert tags(["a"], given=["<a>"])("x</a>") == 1
    assert phrase("The answer is")("The answer is 3") == 1 and phrase("The answer is")("3") == 0
    assert after("is ")("It is 5 is 6") == "6" and after("is ")("7") == "7"
    assert inside("a")("<a>1</a> <a>2</a>") == "2" and inside("a")("3") == ""


def test_a_journal_has_each_row_once(tmp_path):
    path = tmp_path / "deep" / "run.jsonl"
    journal = Journal(path)
    for step in range(3):
        journal.add({"step": step, "reward": step / 2})
    assert [json.loads(line) for line in path.read_text().splitlines()] == journal.rows
    later = Journal(path)
    later.restore(journal.rows[:2])
    assert len(path.read_text().splitlines()) == 2
    later.add({"step": 2})
    assert len(path.read_text().splitlines()) == 3 and later.series("reward") == [0, 0.5]
    Journal(path).add({"step": 0})
    assert len(path.read_text().splitlines()) == 1
    Journal(None).add({"step": 0})


def test_a_fall_is_seen_when_it_is_far_enough_below_the_best():
    rise = [i / 40 for i in range(40)]
    assert fallen(rise) is None and fallen([0.5] * 5, window=10) is None
    down = rise + [0.5] * 40
    at = fallen(down, window=10, drop=0.1)
    best = max(sum(down[i : i + 10]) / 10 for i in range(70))
    assert at == next(e for e in range(40, 80) if sum(down[e - 10 : e]) / 10 <= best - 0.1)
