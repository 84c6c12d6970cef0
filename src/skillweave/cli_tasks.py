"""`skillweave tasks`: which tasks there are, and what their examples look like."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import App, Parameter

from .cli import Common
from .errors import BadOption, NotFound
from .progress import say
from .result import Table
from .task import SPLITS, Task
from .tasks.audit import Audit, audit

HEAD = ("task", "size", "depth", "guess", "audit", "description")
CHAIN = "gym-gcd-then-chain-sum"
LOOKED_AT = 24
"""Examples of each split for an audit while somebody waits."""

app = App(name="tasks", help="List the tasks, or show examples of one.")


@dataclass(frozen=True)
class TaskRow:
    """A task: what it is about, how long it goes on, and what its audit says."""

    name: str
    description: str
    sizes: dict[str, int | None]
    """Examples of each split; null for one without end."""
    depths: tuple[int, ...]
    audit: Audit

    def cells(self) -> tuple[str, ...]:
        """The row as it is printed."""
        sizes = "/".join(str(size) if size is not None else "∞" for size in self.sizes.values())
        sizes = "∞" if set(self.sizes.values()) == {None} else sizes
        depths = f"{min(self.depths)}-{max(self.depths)}" if len(self.depths) > 1 else str(self.depths[0])
        return self.name, sizes, depths, f"{self.audit.guess:.2f}", self.audit.fault or "sound", self.description


@dataclass(frozen=True)
class Tasks:
    """All tasks by name."""

    tasks: tuple[TaskRow, ...]
    next: str = "skillweave tasks show date"

    def table(self) -> Table:
        return Table(HEAD, tuple(task.cells() for task in self.tasks))


@dataclass(frozen=True)
class Examples:
    """The first examples of a split."""

    task: str
    split: str
    examples: tuple

    def table(self) -> Table:
        return Table(("prompt", "completion"), tuple((example.prompt, example.completion) for example in self.examples))


@app.default
def list_(*, n: Annotated[int, Parameter(name=["-n", "--n"])] = LOOKED_AT, gym: bool = False, common: Common = Common()) -> int:
    """List the tasks, or show examples of one.

    `size` is of train/valid/test, `guess` is what the most common answer scores, `depth` how many steps an answer takes.

    Parameters
    ----------
    n
        Examples of each split that the audit looks at.
    gym
        List the sound tasks of reasoning_gym instead; they need the extra `gym`.
    """
    if n < 1:
        raise BadOption(f"n is {n}, but has to be at least 1.")
    from .tasks import EXTRA, TASKS, load_task

    if gym:
        from .tasks.gym import PLACES, name_of, names

        chosen, following = names(), f"skillweave tasks show {CHAIN}"
        said = f"{', '.join(map(name_of, PLACES))} can come behind another one, as in {CHAIN}"
    else:
        chosen, following = list(TASKS), Tasks.next
        said = f"{' and '.join(EXTRA)} need skillweave[facts]; skillweave tasks --gym lists those of reasoning_gym"
    report = Tasks(tuple(_row(name, load_task(name, common.seed), n) for name in chosen), following)
    say(said)
    return common.show(report)


def _row(name: str, task: Task, n: int) -> TaskRow:
    return TaskRow(name, task.description, {split: task.size(split) for split in SPLITS}, task.depths, audit(task, n))


@app.command(name="show")
def show_(
    name: str, /, *, n: Annotated[int, Parameter(name=["-n", "--n"])] = 3, split: str = "train", common: Common = Common()
) -> int:
    """Show examples of a task.

    Parameters
    ----------
    name
        Name of the task.
    n
        How many examples.
    split
        train, valid or test.
    """
    from .tasks import load_task

    task = load_task(name, common.seed)
    if split not in task.splits:
        raise NotFound("split", split, task.splits, hint=f"the splits of {name} are {', '.join(task.splits)}")
    return common.show(Examples(name, split, tuple(task.take(n, split))))
