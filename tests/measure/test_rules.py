"""Rules in context: the solved lines determine the answer, and without them it is a guess."""

from collections import Counter

import pytest

from skillweave.measure.rules import KINDS, SHOTS, rules

ITEMS = rules(400, seed=0)


def lines(item):
    *solved, question = item.prompt.split("\n")
    return [tuple(line.split(" -> ")) for line in solved], question.removesuffix(" ->")


def apply(kind, given):
    """Everything that some rule of `kind` makes of `given`, by the name of the rule."""
    words = given.split()
    if kind == "place":
        return dict(enumerate(words))
    if kind == "form":
        return {"upper": given.upper(), "title": given.title(), "same": given, "swapped": given[0] + given[1:].upper()}
    if kind == "order":
        a, b = words
        return {"same": given, "swap": f"{b} {a}", "first": f"{a} {a}", "second": f"{b} {b}"}
    return {k: str(int(given) + k) for k in (1, 2, 3, 10)}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lookup"])
def test_exactly_one_rule_fits_the_solved_lines_and_gives_the_answer(kind):
    mine = [item for item in ITEMS if item.kind == kind]
    assert len(mine) == 80
    found: Counter = Counter()
    for item in mine:
        solved, question = lines(item)
        assert len(solved) == SHOTS
        fits = set.intersection(*({r for r, out in apply(kind, given).items() if out == wanted} for given, wanted in solved))
        assert len(fits) == 1
        found.update(fits)
        assert apply(kind, question)[fits.pop()] == item.choices[item.answer]
        assert set(item.choices) == set(apply(kind, question).values())
    assert set(found.values()) == {20}  # every rule equally often


def test_what_is_looked_up_was_shown():
    for item in (item for item in ITEMS if item.kind == "lookup"):
        solved, question = lines(item)
        assert dict(solved)[question] == item.choices[item.answer] and set(item.choices) == {value for _, value in solved}


@pytest.mark.parametrize("kind", KINDS)
def test_who_reads_no_solved_line_can_only_guess(kind):
    mine = [item for item in rules(6000, seed=2) if item.kind == kind]
    n = len(mine[0].choices)
    guesses = {
        "shortest, then first in the alphabet": lambda item: min(item.choices, key=lambda c: (len(c), c)),
        "last in the alphabet": lambda item: max(item.choices),
        "the first": lambda item: item.choices[0],
        "a copy of the question": lambda item: min(item.choices, key=lambda c: (c not in lines(item)[1], c)),
    }
    for name, guess in guesses.items():
        share = sum(guess(item) == item.choices[item.answer] for item in mine) / len(mine)
        assert share == pytest.approx(1 / n, abs=0.04), name


def test_items_are_shared_out_and_a_seed_is_a_draw():
    assert Counter(item.kind for item in ITEMS) == dict.fromkeys(KINDS, 80)
    assert rules(50, 0) == ITEMS[:50]
    assert not {item.prompt for item in ITEMS} & {item.prompt for item in rules(400, 1)}
    assert all(len(set(item.choices)) == len(item.choices) and not item.prompt.endswith(" ") for item in ITEMS)
