"""Chains of assignments over a small group, to be resolved (LEGO, arXiv:2206.04301).

    c=s1*b;a=r2;b=r1*a;c?          clauses in any order: a is an element, b and c are another one times a variable
    a=r2;b=r0;c=s1                 resolved from the root on; the answer is what follows the last `=`

`sign` is the group of +1 and -1, whose answer is a matter of counting signs in any order; `cyclic` adds digits modulo 10;
`triangle` is the group of the six symmetries of a triangle, in which the order matters, so that no clause can be left for
later. What belongs to which split is decided by a hash of the clauses, whatever their order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from ..errors import BadData, BadOption, NotFound
from ..task import Example, Task, split_of

DEEPEST = len(ascii_lowercase) - 1
TRIES = 1000
TURNS = {"r0": (0, 1, 2), "r1": (1, 2, 0), "r2": (2, 0, 1), "s0": (0, 2, 1), "s1": (2, 1, 0), "s2": (1, 0, 2)}
"""Where each symmetry of a triangle takes its corners."""


@dataclass(frozen=True)
class Group:
    """Elements as they are written, how one times another is written, and what it is."""

    elements: tuple[str, ...]
    written: Callable[[str, str], str]
    times: Callable[[str, str], str]


def _turned(one: str, other: str) -> str:
    """The symmetry that does what `other` does, then what `one` does."""
    corners = tuple(TURNS[one][at] for at in TURNS[other])
    return next(name for name, turn in TURNS.items() if turn == corners)


GROUPS = {
    "sign": Group(("+1", "-1"), lambda g, x: g[0] + x, lambda g, x: "+1" if g == x else "-1"),
    "cyclic": Group(tuple("0123456789"), lambda g, x: f"{g}+{x}", lambda g, x: str((int(g) + int(x)) % 10)),
    "triangle": Group(tuple(TURNS), lambda g, x: f"{g}*{x}", _turned),
}


class Lego(Task):
    """Chains of `depth` steps (a number, or several to draw from) from an element to the variable that is asked for."""

    def __init__(
        self,
        seed: int = 0,
        depth: int | Sequence[int] = (1, 2, 3, 4),
        group: str = "triangle",
        *,
        trace: bool = True,
        name: str = "lego",
    ):
        """`trace` asks for the value of every variable on the way, not only for the last."""
        super().__init__(seed)
        self.depths = (depth,) if isinstance(depth, int) else tuple(sorted(set(depth)))
        if not self.depths or not all(1 <= count <= DEEPEST for count in self.depths):
            raise BadOption(f"depth is {depth}.", f"give one or more numbers from 1 to {DEEPEST}")
        if group not in GROUPS:
            raise NotFound("group", group, GROUPS, hint=f"choose from {', '.join(GROUPS)}")
        self.name, self.template, self.setting = name, "{input}\n", f"{self.depths}/{group}"
        self.group, self._trace = GROUPS[group], trace
        said = f"{min(self.depths)} to {max(self.depths)} steps" if len(self.depths) > 1 else f"{self.depths[0]} steps"
        self.description = f"variables that depend on each other, {said} over the group {group} -> the value of one"

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        random = self.generator(i, split)
        for _ in range(TRIES):
            depth = random.choice(self.depths)
            names = random.sample(ascii_lowercase, depth + 1)
            elements = random.choices(self.group.elements, k=depth + 1)
            clauses = [f"{names[0]}={elements[0]}"]
            clauses += [f"{x}={self.group.written(g, y)}" for x, g, y in zip(names[1:], elements[1:], names, strict=False)]
            random.shuffle(clauses)
            if split_of(_content(clauses), 0.1, 0.2) == split:
                return self._written(clauses, names, elements)
        raise BadData(f"the {split} split of `{self.name}` is empty.", "give a larger depth")

    def final(self, completion: str) -> str:
        """What follows the last `=`."""
        return completion.strip().rpartition("=")[2].strip()

    def content(self, example: Example) -> frozenset[str]:
        """The clauses, whatever their order."""
        return frozenset({_content(example.prompt.strip().split(";")[:-1])})

    def _written(self, clauses: Sequence[str], names: Sequence[str], elements: Sequence[str]) -> Example:
        values = [elements[0]]
        for element in elements[1:]:
            values.append(self.group.times(element, values[-1]))
        resolved = ";".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        tags = {"depth": str(len(names) - 1), "chain": " ".join(names)}
        return Example(self.prompt(f"{';'.join(clauses)};{names[-1]}?"), resolved if self._trace else values[-1], tags)


def _content(clauses: Sequence[str]) -> str:
    return f"clauses {' '.join(sorted(clauses))}"
