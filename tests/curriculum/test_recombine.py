"""Recombined examples: the sentence's own words stay, the skills' inputs take the places, the answers follow."""

import pytest

from skillweave.curriculum.recombine import recombine
from skillweave.task import Example

COLOURS = {"rot": "red", "blau": "blue", "gelb": "yellow"}
POOLS = {
    "colour": [Example(f"colour: {word}\n", answer) for word, answer in COLOURS.items()],
    "count": [Example(f"count: {word}\n", digits) for word, digits in {"one": "1", "two": "2", "eleven": "11"}.items()],
}
FEW = [
    Example(f"order: send {n} {c} hats by ship\n", f"{digits} x {answer}")
    for n, digits, c, answer in (("four", "4", "grün", "green"), ("six", "6", "weiss", "white"), ("ten", "10", "rosa", "pink"))
]


def test_sentence_and_answer_are_kept_and_filled_anew():
    made = recombine(FEW, POOLS, 60, seed=0)
    assert len(made) == 60
    for example in made:
        words = example.prompt.removeprefix("order: ").split()
        count, _, colour = example.completion.split()
        inputs = {e.completion: e.prompt.split()[1] for pool in POOLS.values() for e in pool}
        assert sorted(words) == sorted(["send", inputs[count], inputs[colour], "hats", "by", "ship"])
        assert words[0] == "send" and words[-3:] == ["hats", "by", "ship"]
    assert {e.completion for e in made} == {f"{n} x {c}" for n in ("1", "2", "11") for c in COLOURS.values()}


def test_inputs_come_in_every_order():
    firsts = {example.prompt.split()[2] in COLOURS for example in recombine(FEW, POOLS, 60, seed=0)}
    assert firsts == {True, False}


def test_the_same_seed_gives_the_same_examples():
    assert recombine(FEW, POOLS, 9, seed=3) == recombine(FEW, POOLS, 9, seed=3) != recombine(FEW, POOLS, 9, seed=4)


def test_braces_are_words_like_others():
    few = [Example(e.prompt.replace("send", "{send}"), "{} " + e.completion) for e in FEW]
    assert all(e.completion.startswith("{} ") and "{send}" in e.prompt for e in recombine(few, POOLS, 5, seed=0))


@pytest.mark.parametrize(
    "few",
    [
        [Example(e.prompt, e.completion.split()[0]) for e in FEW],  # no value of the colour
        [Example(e.prompt, e.completion + " y" * i) for i, e in enumerate(FEW)],  # no common form
        [Example(e.prompt, "A" + e.completion) for e in FEW],  # a value of no skill's shape
    ],
)
def test_nothing_is_made_when_the_answers_do_not_show_a_value_for_each_skill(few):
    assert recombine(few, POOLS, 5, seed=0) == []


def test_nothing_is_made_for_a_skill_without_examples():
    assert recombine(FEW, POOLS | {"count": []}, 5, seed=0) == []
