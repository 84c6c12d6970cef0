"""Small sums: what they look like, that the ways of writing agree, and a base that learns until it is right often enough."""

import pytest

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
    monkeypatch.setattr(written_sums, "STINT", 2)
    shares = iter([0.0, 0.1, 0.2, 0.3])
    monkeypatch.setattr(written_sums, "drawn_right", lambda *_: next(shares))
    base, steps = taught([Sums(0)], 0, 0.2)
    assert steps == 4 and base.digest != taught([Sums(0)], 0, 0.2)[0].digest
