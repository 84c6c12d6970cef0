"""Arithmetic problems with all that they consist of: text, graph of steps, trace, skills, answer.

    Ann has 12 shells . Bob has 5 more than Ann . Cid has 3 times as many as Bob . How many has Cid ?
    Bob = 12 + 5 = 17
    Cid = 17 * 3 = 51

A problem is a graph: each quantity is a number, or an operation on quantities and numbers before it. Each operation is a skill;
the tag `skills` names those that the answer needs, `steps` says how many steps it takes. Problems can be told in words or
written as `a = 12 ; b = a + 5 ; c = b * 3 ; c ?`, with quantities beside them that nothing needs. No value is below 1
or above 999.

What belongs to which split is decided by a hash of the first step, `12 + 5`: no problem of the test split begins with one that
training begins with, however it goes on and whatever the names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from ..errors import BadData, BadOption, NotFound
from ..task import Example, Task, split_of

LARGEST = 999
MOST_STEPS = 8
TRIES = 2000
"""Draws after which a split is taken to be empty."""
REDRAWS = 30
"""How often a step is drawn again when its value is out of range."""
NAMES = (
    "Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jan", "Kim", "Lea", "Max",
    "Ned", "Ola", "Pam", "Quy", "Ron", "Sue", "Tom", "Una", "Vic", "Wes", "Xia", "Yan", "Zoe",
)  # fmt: skip
THINGS = ("shells", "coins", "cards", "beads", "stamps", "books")
SYMBOLS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Operation:
    """One skill: what it computes, its sign, how it is told, and the numbers it is used with."""

    compute: Callable[[int, int], int]
    sign: str
    told: str
    """With {one} for a quantity and {number} for a number."""
    numbers: tuple[int, int]


OPERATIONS = {
    "add": Operation(lambda a, b: a + b, "+", "{number} more than {one}", (2, 99)),
    "subtract": Operation(lambda a, b: a - b, "-", "{number} less than {one}", (2, 99)),
    "multiply": Operation(lambda a, b: a * b, "*", "{number} times as many as {one}", (2, 9)),
    "divide": Operation(
        lambda a, b: a // b if b and a % b == 0 else -1, "/", "as many as each gets when {number} share those of {one}", (2, 9)
    ),
}
"""The skills by name."""
TOGETHER = {"add": "as many as {one} and {other} together", "subtract": "as many as {one} without those of {other}"}
"""How operations on two quantities are told."""


@dataclass(frozen=True)
class Quantity:
    """A number, or an operation on quantities (places in the problem) and numbers."""

    operation: str = ""
    one: int = 0
    """Where the first quantity stands; the number itself if there is no operation."""
    number: int | None = None
    other: int | None = None
    """The second operand: a number, or where a quantity stands."""


@dataclass(frozen=True)
class Problem:
    """Quantities in an order in which they can be computed; the one that is asked for."""

    quantities: tuple[Quantity, ...]
    asked: int

    def values(self) -> list[int]:
        """What each quantity is."""
        return computed(self.quantities)

    def needed(self) -> list[int]:
        """The quantities that the answer depends on, itself included, in order."""
        found = {self.asked}
        for at in range(self.asked, -1, -1):
            q = self.quantities[at]
            if at in found and q.operation:
                found |= {q.one} | ({q.other} if q.other is not None else set())
        return sorted(found)

    def steps(self) -> list[int]:
        """The needed quantities that have to be computed."""
        return [at for at in self.needed() if self.quantities[at].operation]

    def skills(self) -> list[str]:
        """The operation of each step."""
        return [self.quantities[at].operation for at in self.steps()]

    def expression(self, at: int | None = None) -> str:
        """What is asked for as one expression of numbers: `(12 + 5) * 3`."""
        q = self.quantities[self.asked if at is None else at]
        if not q.operation:
            return str(q.one)
        first, second = self.expression(q.one), str(q.number) if q.other is None else self.expression(q.other)
        return " ".join((_bracketed(first), OPERATIONS[q.operation].sign, _bracketed(second)))

    def trace(self, names: Sequence[str]) -> str:
        """One line a step."""
        values = self.values()
        lines = []
        for at in self.steps():
            q = self.quantities[at]
            lines.append(f"{names[at]} = {values[q.one]} {OPERATIONS[q.operation].sign} {_second(q, values)} = {values[at]}")
        return "\n".join(lines)

    def told(self, names: Sequence[str], thing: str) -> str:
        """The problem in words."""
        said = [f"{names[at]} has {self._words(q, names, thing)} ." for at, q in enumerate(self.quantities)]
        return f"{' '.join(said)} How many has {names[self.asked]} ?"

    def written(self, names: Sequence[str]) -> str:
        """The problem in symbols."""
        said = [f"{names[at]} = {self._symbols(q, names)} ;" for at, q in enumerate(self.quantities)]
        return f"{' '.join(said)} {names[self.asked]} ?"

    def _words(self, q: Quantity, names: Sequence[str], thing: str) -> str:
        if not q.operation:
            return f"{q.one} {thing}"
        if q.other is not None:
            return TOGETHER[q.operation].format(one=names[q.one], other=names[q.other])
        return OPERATIONS[q.operation].told.format(one=names[q.one], number=q.number)

    def _symbols(self, q: Quantity, names: Sequence[str]) -> str:
        if not q.operation:
            return str(q.one)
        second = str(q.number) if q.other is None else names[q.other]
        return f"{names[q.one]} {OPERATIONS[q.operation].sign} {second}"


def computed(quantities: Sequence[Quantity], known: Sequence[int] = ()) -> list[int]:
    """The values of quantities that come after others of `known` values; those, and then theirs."""
    found = list(known)
    for q in quantities:
        if q.operation:
            found.append(OPERATIONS[q.operation].compute(found[q.one], _second(q, found)))
        else:
            found.append(q.one)
    return found


def _second(q: Quantity, values: Sequence[int]) -> int:
    return q.number if q.number is not None else values[q.other or 0]


class Arithmetic(Task):
    """Problems that take `steps` steps (a number, or several to draw from), each with one of `operations`, to the answer."""

    def __init__(
        self,
        seed: int = 0,
        steps: int | Sequence[int] = (1, 2, 3),
        operations: Sequence[str] = tuple(OPERATIONS),
        *,
        words: bool = True,
        trace: bool = True,
        beside: int = 0,
        largest: int = LARGEST,
        name: str = "arithmetic",
    ):
        """`words` tells the problem instead of writing it; `beside` is how many quantities there are that nothing needs."""
        super().__init__(seed)
        self.depths = (steps,) if isinstance(steps, int) else tuple(sorted(set(steps)))
        if not self.depths or not all(1 <= count <= MOST_STEPS for count in self.depths):
            raise BadOption(f"steps is {steps}.", f"give one or more numbers from 1 to {MOST_STEPS}")
        if unknown := [one for one in operations if one not in OPERATIONS]:
            raise NotFound("operation", unknown[0], OPERATIONS, hint=f"choose from {', '.join(OPERATIONS)}")
        if not operations:
            raise BadOption("there are no operations.", f"choose from {', '.join(OPERATIONS)}")
        if not 0 <= beside <= MOST_STEPS:
            raise BadOption(f"beside is {beside}.", f"give a number from 0 to {MOST_STEPS}")
        self.name, self.template = name, "{input}\n"
        kind = "told in words" if words else "in symbols"
        self.description = (
            f"problems of {' or '.join(map(str, self.depths))} steps, {kind} -> {'steps and ' if trace else ''}answer"
        )
        self.setting = f"{self.depths}/{tuple(operations)}/{beside}/{largest}"
        if largest < 4:
            raise BadOption(f"largest is {largest}.", "give at least 4")
        self._operations, self._words, self._trace, self._beside = tuple(operations), words, trace, beside
        self._largest = largest

    def problem(self, i: int, split: str) -> Problem:
        """The problem of example `i`: what its text, its trace and its tags are made from."""
        return self._drawn(i, split)[0]

    def example(self, i: int, split: str) -> Example:
        problem, first, random = self._drawn(i, split)
        names = random.sample(NAMES, len(problem.quantities)) if self._words else list(SYMBOLS)
        text = problem.told(names, random.choice(THINGS)) if self._words else problem.written(names)
        answer = problem.trace(names) if self._trace else str(problem.values()[problem.asked])
        tags = {
            "steps": str(len(problem.steps())),
            "skills": " ".join(problem.skills()),
            "expression": problem.expression(),
            "first": first,
        }
        return Example(self.prompt(text), answer, tags)

    def final(self, completion: str) -> str:
        """What follows the last `=` of the last line."""
        return completion.strip().rpartition("\n")[2].rpartition("=")[2].strip()

    def content(self, example: Example) -> frozenset[str]:
        return frozenset({f"first step {example.tags['first']}"})

    def _drawn(self, i: int, split: str) -> tuple[Problem, str, Random]:
        """The problem, its first step as an expression, and what is left of its random numbers."""
        self.check_split(split)
        random = self.generator(i, split)
        for _ in range(TRIES):
            steps = random.choice(self.depths)
            found = self._more([self._number(random)], 0, random)
            first = Problem(tuple(found), len(found) - 1).expression()
            if len(found) == 1 or split_of(f"first step {first}") != split:
                continue
            for _ in range(steps - 1):
                found = self._more(found, len(found) - 1, random)
            if sum(bool(q.operation) for q in found) == steps:
                return self._with_others(found, random), first, random
        raise BadData(f"the {split} split of `{self.name}` is empty: no problem keeps to values from 1 to {self._largest}.",
                      "give other operations, fewer steps, or a larger limit")  # fmt: skip

    def _more(self, found: list[Quantity], last: int, random: Random) -> list[Quantity]:
        """The quantities and one step from `last` on, drawn again while it is out of range; nothing new if that fails."""
        values = computed(found)
        for _ in range(REDRAWS):
            step = self._step(found, last, random)
            if 1 <= computed(step, values)[-1] <= self._largest:
                return [*found, *step]
        return found

    def _with_others(self, found: list[Quantity], random: Random) -> Problem:
        """The problem that asks for the last quantity, with others beside it, in any order in which it can be computed."""
        every, values = list(found), computed(found)
        for at in random.choices([at for at, value in enumerate(values) if value < self._largest], k=self._beside):
            every.append(Quantity("add", at, number=random.randint(1, min(99, self._largest - values[at]))))
        return _shuffled(Problem(tuple(every), len(found) - 1), random)

    def _step(self, found: Sequence[Quantity], last: int, random: Random) -> list[Quantity]:
        """One step from `last` on: with a number, a quantity further back, or a new one."""
        operation = random.choice(self._operations)
        kind = random.random() if operation in TOGETHER else 0.0
        if kind < 0.6:
            return [Quantity(operation, last, number=random.randint(*OPERATIONS[operation].numbers))]
        if kind < 0.8 and last > 0:
            return [Quantity(operation, last, other=random.randrange(last))]
        return [self._number(random), Quantity(operation, last, other=len(found))]

    def _number(self, random: Random) -> Quantity:
        return Quantity(one=random.randint(2, min(99, self._largest)))


def _shuffled(problem: Problem, random: Random) -> Problem:
    """The same problem with its quantities in another order in which they can be computed."""
    waiting, order = list(range(len(problem.quantities))), []
    while waiting:
        ready = [at for at in waiting if set(_before(problem.quantities[at])) <= set(order)]
        order.append(random.choice(ready))
        waiting.remove(order[-1])
    place = {old: new for new, old in enumerate(order)}

    def moved(q: Quantity) -> Quantity:
        return Quantity(q.operation, place[q.one], q.number, None if q.other is None else place[q.other]) if q.operation else q

    return Problem(tuple(moved(problem.quantities[at]) for at in order), place[problem.asked])


def _before(q: Quantity) -> list[int]:
    if not q.operation:
        return []
    return [q.one] if q.other is None else [q.one, q.other]


def _bracketed(text: str) -> str:
    return f"({text})" if " " in text else text


Symbols = partial(Arithmetic, words=False, name="equations")
