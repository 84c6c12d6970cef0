"""LEGO chains: the values are those of the group, the order of the clauses gives nothing away, every clause is needed."""

import re
from itertools import product

import pytest

from skillweave.errors import BadOption, NotFound
from skillweave.task import Example, check_task
from skillweave.tasks.audit import audit
from skillweave.tasks.lego import DEEPEST, GROUPS, Lego

CORNERS = {"r0": "ABC", "r1": "BCA", "r2": "CAB", "s0": "ACB", "s1": "CBA", "s2": "BAC"}
"""What each symmetry makes of a triangle whose corners are read in this order."""


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_is_one(name):
    group, times = GROUPS[name].elements, GROUPS[name].times
    (neutral,) = [e for e in group if all(times(e, x) == times(x, e) == x for x in group)]
    assert len(set(group)) == {"sign": 2, "cyclic": 10, "triangle": 6}[name]
    for one, other in product(group, group):
        assert times(one, other) in group and (times(one, other) == neutral) == (times(other, one) == neutral)
        assert all(times(times(one, other), x) == times(one, times(other, x)) for x in group)
        assert {times(one, x) for x in group} == set(group)


def test_in_the_triangle_the_order_matters_and_elsewhere_it_does_not():
    commute = {n: all(g.times(a, b) == g.times(b, a) for a, b in product(g.elements, g.elements)) for n, g in GROUPS.items()}
    assert commute == {"sign": True, "cyclic": True, "triangle": False}
    for one, other in product(CORNERS, CORNERS):
        first = CORNERS[other]
        both = "".join("ABC"["ABC".index(CORNERS[one]["ABC".index(c)])] for c in first)
        assert CORNERS[GROUPS["triangle"].times(one, other)] == both


def resolve(prompt: str, group: str) -> dict[str, str]:
    """The values by substitution alone: a clause whose variable is known becomes known."""
    *clauses, asked = prompt.strip().split(";")
    known, waiting = {}, [clause.split("=") for clause in clauses]
    while waiting:
        name, said = waiting.pop(0)
        variable = re.search(r"[a-z]$", said)
        if variable is None:
            known[name] = said
        elif variable[0] not in known:
            waiting.append([name, said])
        else:
            element = {"sign": f"{said[0]}1"}.get(group, re.split(r"[*+]", said)[0])
            known[name] = GROUPS[group].times(element, known[variable[0]])
    return known | {"": known[asked.rstrip("?")]}


@pytest.mark.parametrize("group", GROUPS)
def test_substitution_comes_to_the_answer(group):
    task, seen = Lego(1, (1, 3, 6), group), set()
    for example in [e for split in task.splits for e in task.take(60, split)]:
        values = resolve(example.prompt, group)
        assert task.score(example, values[""]) == 1 and task.final(example.completion) == values[""]
        steps = dict(step.split("=") for step in example.completion.split(";"))
        assert steps == {name: value for name, value in values.items() if name} and list(steps) == example.tags["chain"].split()
        seen.add(len(steps) - 1)
    assert seen == {1, 3, 6}


def test_the_order_of_the_clauses_gives_nothing_away():
    examples = Lego(0, 3).take(300, "train")
    roots = [[bool(re.fullmatch(r"\w=[rs]\d", c)) for c in e.prompt.strip().split(";")[:-1]].index(True) for e in examples]
    last = [[c[0] for c in e.prompt.split(";")[:-1]].index(e.prompt.split(";")[-1][0]) for e in examples]
    for places in (roots, last):
        assert all(45 < places.count(at) < 105 for at in range(4))


def test_another_order_of_the_same_clauses_is_the_same_content():
    task = Lego(0, 4)
    for example in task.take(20, "test"):
        *clauses, asked = example.prompt.strip().split(";")
        turned = Example(";".join([*reversed(clauses), asked]), example.completion)
        assert task.content(turned) == task.content(example) != task.content(task.example(99, "test"))


def test_an_answer_without_its_steps():
    with_steps, without = Lego(0, 2).example(0, "test"), Lego(0, 2, trace=False).example(0, "test")
    assert with_steps.prompt == without.prompt and with_steps.completion.endswith(f"={without.completion}")


def test_the_contract():
    found = {name: audit(Lego(2, (1, 4), name), 100) for name in GROUPS}
    assert {name: one.fault for name, one in found.items()} == dict.fromkeys(GROUPS, "")
    assert found["triangle"].guess < 0.3 and found["sign"].guess > 0.3
    check_task(Lego(0, DEEPEST), 10)


@pytest.mark.parametrize(
    ("kind", "words", "make"),
    [
        (BadOption, "depth is 0.*from 1 to 25", lambda: Lego(0, 0)),
        (BadOption, "depth is 26", lambda: Lego(0, 26)),
        (BadOption, r"depth is \(\)", lambda: Lego(0, ())),
        (NotFound, "no group `signs`. Did you mean `sign`", lambda: Lego(0, 1, "signs")),
        (NotFound, "split", lambda: Lego().example(0, "dev")),
    ],
)
def test_mistakes_are_answered_in_a_sentence(kind, words, make):
    with pytest.raises(kind, match=words):
        make()
