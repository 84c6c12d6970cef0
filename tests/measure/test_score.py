"""Scoring: the right prompt, the right skills, the right parts."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.composition import Active
from skillweave.learn.sft import SFT
from skillweave.measure.score import Scores, evaluate, few_shot
from skillweave.task import Example, Task

FOUR = [Example(f"say {c}\n", f"{c}{c} {c}") for c in "abcd"]


class Say(Task):
    """Say a letter three times; its parts are the two words."""

    name, description = "say", "letters"

    def example(self, i, split):
        return FOUR[i]

    def fields(self, example, completion):
        wanted, got = example.completion.split(), [*completion.split(), "", ""]
        return {part: float(got[k] == wanted[k]) for k, part in enumerate(("first", "second"))}


class Parrot:
    """A base that says what it is told to, and remembers how it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def encode(self, text):
        return list(text)

    def generate(self, prompts, limit, prefix, batch):
        self.asked.append((prompts, limit, prefix, batch))
        return self.answers


@pytest.fixture
def unchecked(monkeypatch):
    """`evaluate` without the check of types, so that a parrot may stand in for a Base."""
    return getattr(evaluate, "__wrapped__", evaluate)


def test_answers_are_scored_in_whole_and_in_parts(unchecked):
    scores = unchecked(Parrot("aa a", " bb b\n", "cc x", ""), Say(), FOUR)
    assert scores.exact == (1.0, 1.0, 0.0, 0.0)
    assert scores.fields == {"first": (1.0, 1.0, 1.0, 0.0), "second": (1.0, 1.0, 0.0, 0.0)}
    assert scores.answers == ("aa a", " bb b\n", "cc x", "")
    assert scores.seconds >= 0


def test_shots_are_shown_first_and_the_answer_is_a_line(unchecked):
    parrot = Parrot("aa a\n\nsay q\nqq q", "bb b\nmore")
    scores = unchecked(parrot, Say(), FOUR[:2], shots=FOUR[2:], batch=7)
    assert scores.exact == (1.0, 1.0)
    prompts, limit, prefix, batch = parrot.asked[0]
    assert prompts == ["say a\n", "say b\n"] and batch == 7 and limit > 4
    assert prefix == few_shot(FOUR[2:]) == "say c\ncc c\n\nsay d\ndd d\n\n"


def test_answers_have_lines_when_the_shots_do(unchecked):
    lines = [Example("say c\n", "cc\nc")]
    assert unchecked(Parrot("aa\na\n\nsay q"), Say(), FOUR[:1], shots=lines).answers == ("aa\na",)


def test_without_shots_an_answer_may_have_lines(unchecked):
    scores = unchecked(Parrot("aa a\nmore"), Say(), FOUR[:1])
    assert scores.exact == (0.0,) and scores.answers == ("aa a\nmore",)
    assert few_shot(()) == ""


def test_no_examples_no_scores(unchecked):
    scores = unchecked(Parrot(), Say(), [])
    assert (scores.exact, scores.fields) == ((), {})


def test_a_part_of_a_run():
    scores = Scores(("x", "y", "z"), (1.0, 0.0, 1.0), {"p": (1.0, 0.0, 0.5)}, 3.0)
    assert scores.of([0, 2]) == Scores(("x", "z"), (1.0, 1.0), {"p": (1.0, 0.5)}, 3.0)


def test_the_skills_of_the_bank_answer(loud):
    base = loud()
    skill, _ = SFT(steps=60, batch=4, lr=1e-2).fit(base, FOUR, 0)
    bank = SkillBank(base, {"skill": skill})
    assert evaluate(base, Say(), FOUR).exact == (0.0,) * 4
    assert evaluate(Active(base, bank), Say(), FOUR).exact == (1.0,) * 4
    assert evaluate(Active(base, bank, torch.zeros(1, base.layers)), Say(), FOUR).exact == (0.0,) * 4
    assert evaluate(Active(base, bank), Say(), FOUR, batch=1).answers == evaluate(Active(base, bank), Say(), FOUR).answers
