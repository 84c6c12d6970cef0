"""Arithmetic problems: what the text says is what the graph computes, whoever reads it."""

import ast
import re

import pytest

from skillweave.errors import BadData, BadOption, NotFound
from skillweave.task import check_task
from skillweave.tasks.arithmetic import NAMES, OPERATIONS, Arithmetic, Problem, Quantity, Symbols

SPLITS = ("train", "valid", "test")
FEW = Problem(
    (Quantity(one=12), Quantity("add", 0, number=5), Quantity("multiply", 1, number=3), Quantity("add", 0, number=9)), 2
)
"""12, 5 more, 3 times as many; and one that is not needed."""


def test_a_problem_knows_all_its_sides():
    assert FEW.values() == [12, 17, 51, 21] and FEW.needed() == [0, 1, 2] and FEW.steps() == [1, 2]
    assert FEW.skills() == ["add", "multiply"] and FEW.expression() == "(12 + 5) * 3"
    assert FEW.trace(["Ann", "Bob", "Cid", "Dan"]) == "Bob = 12 + 5 = 17\nCid = 17 * 3 = 51"
    assert FEW.written("abcd") == "a = 12 ; b = a + 5 ; c = b * 3 ; d = a + 9 ; c ?"
    told = "Ann has 12 coins . Bob has 5 more than Ann . Cid has 3 times as many as Bob . "
    told += "Dan has 9 more than Ann . How many has Cid ?"
    assert FEW.told(["Ann", "Bob", "Cid", "Dan"], "coins") == told


TOLD = (
    (r"(\d+) (?:shells|coins|cards|beads|stamps|books)", lambda number: number),
    (r"(\d+) more than (\w+)", lambda number, one: one + number),
    (r"(\d+) less than (\w+)", lambda number, one: one - number),
    (r"(\d+) times as many as (\w+)", lambda number, one: one * number),
    (r"as many as each gets when (\d+) share those of (\w+)", lambda number, one: one / number),
    (r"as many as (\w+) and (\w+) together", lambda one, other: one + other),
    (r"as many as (\w+) without those of (\w+)", lambda one, other: one - other),
)


def read(text: str) -> float:
    """The answer, from the words alone."""
    known = {}
    *said, asked = text.strip().split(" . ")
    for sentence in said:
        who, what = re.fullmatch(r"(\w+) has (.*)", sentence).groups()
        found = [(rule, match) for pattern, rule in TOLD if (match := re.fullmatch(pattern, what))]
        assert len(found) == 1, sentence
        rule, match = found[0]
        known[who] = rule(*(int(part) if part.isdigit() else known[part] for part in match.groups()))
    return known[re.fullmatch(r"How many has (\w+) \?", asked)[1]]


@pytest.mark.parametrize("beside", [0, 3])
def test_what_is_told_gives_the_answer(beside):
    task, plain = (Arithmetic(1, (1, 2, 3, 6), beside=beside, trace=trace) for trace in (True, False))
    seen = set()
    for i in range(150):
        example, problem = task.example(i, "train"), task.problem(i, "train")
        assert (
            str(read(example.prompt)).removesuffix(".0")
            == task.final(example.completion)
            == plain.example(i, "train").completion
        )
        assert len(problem.quantities) - len(problem.needed()) == beside
        assert (example.tags["steps"], example.tags["skills"]) == (str(len(problem.steps())), " ".join(problem.skills()))
        seen |= {(q.operation, q.other is None) for q in problem.quantities}
    one_number = {(name, True) for name in ("", *OPERATIONS)}
    assert seen == one_number | {("add", False), ("subtract", False)}


def test_symbols_expression_and_trace_agree():
    task, depths = Symbols(2, (1, 2, 4, 8)), set()
    for example in task.take(150, "train"):
        names: dict[str, float] = {}
        *said, asked = example.prompt.strip().split(" ; ")
        for line in said:
            name, _, what = line.partition(" = ")
            names[name] = _compute(what, names)
        answer = names[asked.removesuffix(" ?")]
        lines = example.completion.splitlines()
        assert answer == _compute(example.tags["expression"], {}) == int(task.final(example.completion)) and 1 <= answer <= 999
        assert all(_compute(line.split(" = ")[1], {}) == int(line.split(" = ")[2]) for line in lines)
        assert len(lines) == int(example.tags["steps"])
        depths.add(len(lines))
    assert depths == {1, 2, 4, 8} == set(task.depths)


def _compute(text: str, names: dict[str, float]) -> float:
    """The value of an expression of numbers, names, signs and brackets."""

    def value(node):
        match node:
            case ast.Constant(value=number):
                return number
            case ast.Name(id=name):
                return names[name]
            case ast.BinOp(left=left, op=op, right=right):
                one, other = value(left), value(right)
                signs = {ast.Add: one + other, ast.Sub: one - other, ast.Mult: one * other}
                return one / other if isinstance(op, ast.Div) else signs[type(op)]

    return value(ast.parse(text, mode="eval").body)


def test_every_kind_keeps_the_contract():
    made = [Arithmetic(), Symbols(), Arithmetic(3, 5, beside=4), Symbols(0, 2, ["multiply"], largest=50, trace=False)]
    made += [Arithmetic(0, 2, [name]) for name in OPERATIONS]
    for task in made:
        check_task(task, n=12)
        assert {skill for e in task.take(40, "train") for skill in e.tags["skills"].split()} <= set(OPERATIONS)
    assert len(made) == 8
    first = re.match(r"\(*(\d+ . \d+)", Arithmetic(0, 3).example(0, "test").tags["expression"])[1]
    assert first == Arithmetic(0, 3).example(0, "test").tags["first"]
    assert {s for e in Arithmetic(0, 2, ["add", "divide"]).take(99, "test") for s in e.tags["skills"].split()} == {
        "add",
        "divide",
    }


def test_words_and_symbols_are_apart_together():
    """The same first step is in the same split, however it is put and goes on."""
    made = (Arithmetic(0, 1), Symbols(0, (2, 3)))
    seen = {split: {key for task in made for e in task.take(200, split) for key in task.content(e)} for split in SPLITS}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["valid"] and not seen["valid"] & seen["test"]
    assert len(seen["train"]) > 200 and len(set(NAMES)) == 26


def test_quantities_stand_in_no_fixed_order():
    task = Arithmetic(0, 2, ["multiply"], beside=2)
    assert {task.problem(i, "train").asked for i in range(100)} == {2, 3, 4}


def test_there_are_as_many_steps_as_were_asked_for():
    """Also where most draws grow too large."""
    assert {e.tags["steps"] for e in Arithmetic(0, 3, ["multiply"], largest=300).take(10, "train")} == {"3"}


@pytest.mark.parametrize(
    ("kind", "sentence", "make"),
    [
        (BadOption, "steps is 9.*from 1 to 8", lambda: Arithmetic(0, 9)),
        (BadOption, r"steps is \(\)", lambda: Arithmetic(0, ())),
        (NotFound, "no operation `ad`. Did you mean `add`", lambda: Arithmetic(0, 1, ["ad"])),
        (BadOption, "there are no operations", lambda: Arithmetic(0, 1, [])),
        (BadOption, "beside is -1", lambda: Arithmetic(0, beside=-1)),
        (BadOption, "largest is 3", lambda: Arithmetic(0, largest=3)),
        (
            BadData,
            "no problem keeps to values from 1 to 4",
            lambda: Arithmetic(0, 8, ["multiply"], largest=4).example(0, "test"),
        ),
        (NotFound, "split", lambda: Arithmetic().example(0, "dev")),
    ],
)
def test_mistakes_are_answered_in_a_sentence(kind, sentence, make):
    with pytest.raises(kind, match=sentence):
        make()
