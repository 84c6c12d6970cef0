"""Functions nested in each other, `f(g(x))`, under names that say nothing (paper 5, arXiv:2509.25123).

    f7(f2(abcd))    what f2 makes of the word, and f7 of that; a trace has one line a step, the innermost first:
    f2(abcd)=dcba
    f7(dcba)=edcb   the answer is what follows the last `=` of the last line

Every example needs all of it: leaving out any one step would change the answer, and another word in place of `abcd` can. So no
function is idle, no literal takes the place of the word, and an answer that names the word itself is always wrong.

What can be held out: words, by the split (a hash of their letters); half of the functions, which may then be known
alone but not nested (`half`); and a fifth of the pairs of neighbours (`pairs`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from random import Random

from ..errors import BadData, BadOption, NotFound
from ..task import Example, Task, share, split_of
from .atoms import EQUAL, FAMILIES, Family, halves, words
from .primitives import TRIES

DEEPEST = 8
LONGEST = 40
"""Characters of the longest value: functions that double a word cannot be nested without end."""
HELD_OUT = 0.2
"""Share of the ordered pairs of functions that are held out."""
OTHERS = 3
"""Other values that are tried to see whether an answer depends on the one that is given."""
WHICH = ("all", "seen", "unseen")


@dataclass(frozen=True)
class Step:
    """One function, with a literal to its right or left if it takes two values."""

    name: str
    literal: str = ""
    left: bool = False

    def written(self, name: str, value: str) -> str:
        """The call, with `name` for the function and `value` for what it is applied to."""
        return f"{name}({','.join(part for part in ((self.literal, value) if self.left else (value, self.literal)) if part)})"


class FunctionChain(Task):
    """Calls of `depth` nested functions (a number, or several to draw from) on values of a family, to their value."""

    def __init__(
        self,
        seed: int = 0,
        functions: Sequence[str] | None = None,
        depth: int | Sequence[int] = 2,
        *,
        family: Family | str = "words",
        half: str = "all",
        pairs: str = "all",
        trace: bool = False,
        short: bool = False,
        joined: float = 0.0,
        name: str = "functions",
    ):
        """`functions` are those to draw from (all of the family unless given).

        `half` and `pairs` keep those that are "seen" or "unseen": of the functions, one half; of the pairs of neighbours, in
        "seen" no held-out pair occurs, in "unseen" at least one. `trace` writes the steps into the completion, `short` gives
        functions names of one character, and `joined` is the share of steps that join the value to a literal.
        """
        super().__init__(seed)
        self.family = FAMILIES[_known("family", family, FAMILIES)]() if isinstance(family, str) else family
        table = self.family.table
        pool = [_known("function", one, table) for one in (table if functions is None else functions)]
        if len(pool) < 2 or len(set(pool)) < len(pool):
            raise BadOption(f"the functions are {', '.join(pool) or 'none'}.", "give at least two, each once")
        seen, unseen = halves(pool)
        self.functions = {"all": pool, "seen": seen, "unseen": unseen}[_known("half", half, WHICH)]
        """Those that are nested here."""
        self.depths = (depth,) if isinstance(depth, int) else tuple(sorted(set(depth)))
        if not self.depths or not all(1 <= depth <= DEEPEST for depth in self.depths):
            raise BadOption(f"depth is {depth}.", f"give one or more numbers from 1 to {DEEPEST}")
        if _known("pairs", pairs, WHICH) == "unseen" and min(self.depths) < 2:
            raise BadOption("at depth 1 there are no pairs to be unseen.", 'leave out pairs="unseen", or nest deeper')
        if not 0 <= joined <= 1 or (joined and not self.family.joins):
            raise BadOption(f"joined is {joined}.", "give a share from 0 to 1, and only with words: nothing else can be joined")
        self.name, self.template = name, "{input}\n"
        what = f"{len(self.functions)} functions on {self.family.name}, nested {' or '.join(map(str, self.depths))} deep"
        self.description = f"{what} -> {'each step, then ' if trace else ''}the value"
        self.setting = f"{pool}/{self.depths}/{half}/{pairs}/{joined}"
        self._names = self.family.names(short)
        self._pairs, self._trace, self._joined = pairs, trace, joined

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        random = self.generator(i, split)
        for _ in range(TRIES):
            value = self.family.draw(random)
            if split_of(self.family.key(value)) != split:
                continue
            steps = self._steps(random)
            values = self.values(steps, value)
            if self._fits(steps) and self._needed(steps, values, random):
                return self._written(steps, values)
        raise BadData(
            f"the {split} split of `{self.name}` has no value on which every function matters ({self.description}).",
            "give other functions, longer values, or less depth",
        )

    def values(self, steps: Sequence[Step], value: str) -> list[str]:
        """`value` and what it is after each of `steps`, innermost first; they end with "" where a function has no answer."""
        found = [value]
        for step in steps:
            before = found[-1]
            if step.literal:
                found.append(self.family.joins[step.name](*((step.literal, before) if step.left else (before, step.literal))))
            else:
                found.append(self.family.table[step.name](before))
            if not found[-1] or len(found[-1]) > LONGEST:
                return [*found, ""]
        return found

    def final(self, completion: str) -> str:
        """What follows the last `=` of the last line: the answer, with or without a trace."""
        return completion.strip().rpartition("\n")[2].rpartition("=")[2].strip()

    def content(self, example: Example) -> frozenset[str]:
        """What decides the split of the value; the functions do not matter."""
        return frozenset({self.family.key(example.tags["input"])})

    def _steps(self, random: Random) -> list[Step]:
        steps = []
        for _ in range(random.choice(self.depths)):
            if self._joined and random.random() < self._joined:
                name, literal = random.choice(list(self.family.joins)), self.family.draw(random)[:3]
                steps.append(Step(name, literal, random.random() < 0.5))
            else:
                steps.append(Step(random.choice(self.functions)))
        return steps

    def _fits(self, steps: Sequence[Step]) -> bool:
        held = any(held_out(outer.name, inner.name) for inner, outer in pairwise(steps))
        return self._pairs == "all" or held == (self._pairs == "unseen")

    def _needed(self, steps: Sequence[Step], values: Sequence[str], random: Random) -> bool:
        """Whether the answer depends on the value and on every step, and differs from the value."""
        answer = values[-1]
        if not answer or answer == values[0]:
            return False
        fewer = ([*steps[:at], *steps[at + 1 :]] for at in range(len(steps)))
        if any(self.values(rest, values[0])[-1] == answer for rest in fewer):
            return False
        return any(self.values(steps, self.family.draw(random))[-1] != answer for _ in range(OTHERS))

    def _written(self, steps: Sequence[Step], values: Sequence[str]) -> Example:
        call = values[0]
        for step in steps:
            call = step.written(self._names[step.name], call)
        lines = [f"{s.written(self._names[s.name], v)}={w}" for s, v, w in zip(steps, values, values[1:], strict=False)]
        outermost_first = " ".join(self._names[step.name] for step in reversed(steps))
        tags = {"task": self.name, "depth": str(len(steps)), "functions": outermost_first, "input": values[0]}
        return Example(self.prompt(call), "\n".join(lines) if self._trace else values[-1], tags)


def held_out(outer: str, inner: str) -> bool:
    """Whether `outer(inner(...))` is one of the pairs that are held out: the same in every process."""
    return share(f"pair {outer}({inner})") < HELD_OUT


def small(seed: int = 0, functions: Sequence[str] = EQUAL, depth: int | Sequence[int] = (1, 2), **options) -> FunctionChain:
    """Twelve functions that keep the length, on words of 4 or 5 letters, with short names and a trace.

    What a model of a million characters-as-tokens parameters can learn: a step of a trace has at most 14 characters.
    """
    given = {"family": words(lengths=(4, 5)), "trace": True, "short": True, "name": "functions-small", **options}
    return FunctionChain(seed, functions, depth, **given)


def _known(kind: str, name: str, known) -> str:
    if name not in known:
        raise NotFound(kind, name, known, hint=f"choose from {', '.join(known)}")
    return name


Words = partial(FunctionChain, name="functions")
Lists = partial(FunctionChain, family="lists", name="list-functions")
Numbers = partial(FunctionChain, family="numbers", name="number-functions")
