"""Small sums: what they look like, that the ways of writing agree, and a base that learns until it is right often enough."""

import pytest

from skillweave.base import TinyBase
from skillweave.composition import Active
from skillweave.papers import written_sums
from skillweave.papers.written_sums import ALPHABET, WAYS, Sums, taught
from skillweave.task import check_task

STEPS = [(12, "+", 25, 37), (37, "-", 30, 7)]


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("plain", "12+25=37\n37-30=07"),
        ("reversed", "21+52=73\n73-03=70"),
        ("swapped", "+25+12=37\n-30+37=07"),
        ("scratchpad", "12+20=32+5=37\n37-30=07-0=07"),
        ("short", "37-30=07"),
        ("tagged", "<s>12+25=37\n37-30=07</s><a>07</a>"),
    ],
)
def test_ways_of_writing(way, text):
    assert WAYS[way](STEPS) == text and set(text) <= set(ALPHABET)


@pytest.mark.parametrize("way", ["plain", "swapped", "scratchpad", "short"])
def test_problems_keep_the_contract_of_tasks(way):
    check_task(Sums(1, 2, way), 20)


def test_the_prompt_is_the_sum_that_the_steps_do():
    for i in range(50):
        example = Sums(2, 3, mark="R").example(i, "train")
        assert example.prompt[0] == "R" and example.prompt[-2:] == "?\n"
        terms = example.prompt[1:-2].replace("+", " +").replace("-", " -").split()
        assert sum(map(int, terms)) == int(example.completion[-2:])
        assert len(terms) == 4 and 1 <= int(example.completion[-2:]) <= 29


def test_a_base_learns_until_it_is_right_often_enough(monkeypatch):
    for name, value in {"STEPS": 8, "LOOK": 2, "BATCH": 4}.items():
        monkeypatch.setattr(written_sums, name, value)
    shares = [0.0, 0.1, 0.2, 0.3]
    asked = iter(shares)
    monkeypatch.setattr(written_sums, "right", lambda *_: next(asked))
    enough, steps = taught([Sums(0)], 0, 0.2)
    assert steps == 4 and list(asked) == [0.3]
    asked = iter(shares)
    all_of_it, most = taught([Sums(0)], 0, 0.9)
    assert most == 8 and all_of_it.digest != enough.digest


def test_right_answers_are_counted():
    class Mute(Sums):
        def score(self, example, completion):
            return float(example.prompt < "15")

    task = Mute(0)
    examples = task.take(40, "valid")
    wanted = sum(e.prompt < "15" for e in examples) / 40
    assert 0 < written_sums.right(Active(TinyBase(16, 0, ALPHABET)), task, examples) == wanted < 1
