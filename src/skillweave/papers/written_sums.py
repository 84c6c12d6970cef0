"""Small sums in steps, written in several ways, and bases from scratch that get some of them right: where practice begins.

    12+05-03?        the problem; every number has two digits
    12+05=17         its steps, plain
    17-03=14

The problems are those of tasks/arithmetic.py, told without names: each step goes on from the last one. A way of writing is a
function of the steps; `mark` stands before a problem where the prompt says which way is wanted.
"""

from collections.abc import Callable, Sequence
from functools import partial

from ..base import Base, TinyBase
from ..composition import Active
from ..learn.batches import Batch, Batches
from ..learn.loop import Plan, train
from ..learn.pretrain import groups_of, sealed, text_loss, thawed
from ..learn.rollout import together
from ..learn.sampling import sample
from ..task import Example, Task
from ..tasks.arithmetic import Arithmetic
from ..tasks.primitives import Mixture

ALPHABET = "\n+-=?/<>0123456789asRST"
TOKENS = 44
"""More than the longest right answer of two steps in any way."""
Step = tuple[int, str, int, int]
"""First number, sign, second number, result."""


def plain(steps: Sequence[Step]) -> str:
    """`17-13=04`, a line a step."""
    return "\n".join(f"{one:02}{sign}{two:02}={value:02}" for one, sign, two, value in steps)


def reversed_digits(steps: Sequence[Step]) -> str:
    """The digits of every number from the last to the first: `71-31=40`."""
    lines = plain(steps).splitlines()
    return "\n".join(f"{x[1]}{x[0]}{x[2]}{x[4]}{x[3]}={x[7]}{x[6]}" for x in lines)


def swapped(steps: Sequence[Step]) -> str:
    """The second number first: `-13+17=04`."""
    return "\n".join(f"{sign}{two:02}+{one:02}={value:02}" for one, sign, two, value in steps)


def scratchpad(steps: Sequence[Step]) -> str:
    """The tens of the second number, then the rest: `17-10=07-3=04`."""
    parts = [(one, sign, two - two % 10, two % 10, value) for one, sign, two, value in steps]
    return "\n".join(
        f"{one:02}{sign}{ten:02}={one + ten if sign == '+' else one - ten:02}{sign}{rest}={value:02}"
        for one, sign, ten, rest, value in parts
    )


def short(steps: Sequence[Step]) -> str:
    """Only the last step."""
    return plain(steps[-1:])


def tagged(steps: Sequence[Step]) -> str:
    """Steps and answer in tags: `<s>17-13=04</s><a>04</a>`."""
    return f"<s>{plain(steps)}</s><a>{steps[-1][-1]:02}</a>"


WAYS: dict[str, Callable[[Sequence[Step]], str]] = {
    "plain": plain,
    "reversed": reversed_digits,
    "swapped": swapped,
    "scratchpad": scratchpad,
    "short": short,
    "tagged": tagged,
}


class Sums(Arithmetic):
    """Sums and differences from 1 to `largest` in `steps` steps, written in one of `WAYS`."""

    def __init__(self, seed: int = 0, steps: int = 2, way: str = "plain", mark: str = "", largest: int = 29):
        super().__init__(seed, steps, ("add", "subtract"), words=False, largest=largest, name=f"sums, {way}")
        self.write, self.mark = WAYS[way], mark

    def example(self, i: int, split: str) -> Example:
        told = super().example(i, split)
        parts = [line.split() for line in told.completion.splitlines()]
        steps = [(int(one), sign, int(two), int(value)) for _, _, one, sign, two, _, value in parts]
        asked = f"{steps[0][0]:02}" + "".join(f"{sign}{two:02}" for _, sign, two, _ in steps)
        return Example(f"{self.mark}{asked}?\n", self.write(steps), told.tags)


STEPS, BATCH, LOOK = 1600, 64, 50
"""The most steps of a base, the examples of each, and how many steps there are between two looks at it."""


def taught(tasks: Sequence[Sums], seed: int, enough: float) -> tuple[Base, int]:
    """A base from scratch that has learned `tasks` until it answers a share of `enough` right; its steps."""
    start = TinyBase(64, seed, ALPHABET, window=64, layers=2)
    learner, mixture = thawed(start), Mixture(tasks, seed=seed)
    batches, asked = Batches(learner, mixture.take(STEPS * BATCH, "train"), BATCH, seed), mixture.take(256, "valid")
    taken = STEPS

    def batch(step: int) -> Batch:
        """That of the step, until the base is right often enough; nothing from then on."""
        nonlocal taken
        if step % LOOK == 0 and step < taken and right(Active(learner), mixture, asked) >= enough:
            taken = step
        return batches.at(step) if step < taken else together([], learner.pad)

    train(partial(text_loss, learner), groups_of(learner, 4e-3), batch, Plan(STEPS, piece=4096))
    return sealed(learner, start), taken


def right(use: Active, task: Task, asked: Sequence[Example]) -> float:
    """Share of `asked` that is answered right, greedily; an answer may be as long as the longest way of writing."""
    drawn = sample(use, [e.prompt for e in asked], 1, max_new_tokens=TOKENS, temperature=0, seed=0)
    return sum(task.score(e, one.text) for e, (one,) in zip(asked, drawn, strict=True)) / len(asked)
