"""`skillweave tasks`: which tasks there are, and what their examples look like."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import App, Parameter

from .cli import Common
from .errors import NotFound
from .result import Table

app = App(name="tasks", help="List the tasks, or show examples of one.")


@dataclass(frozen=True)
class TaskRow:
    """A task and what it is about."""

    name: str
    description: str


@dataclass(frozen=True)
class Tasks:
    """All tasks by name."""

    tasks: tuple[TaskRow, ...]
    next: str = "skillweave tasks show date"

    def table(self) -> Table:
        return Table(("task", "description"), tuple((task.name, task.description) for task in self.tasks))


@dataclass(frozen=True)
class Examples:
    """The first examples of a split."""

    task: str
    split: str
    examples: tuple

    def table(self) -> Table:
        return Table(("prompt", "completion"), tuple((example.prompt, example.completion) for example in self.examples))


@app.default
def list_(*, common: Common = Common()) -> int:
    """List the tasks, or show examples of one."""
    from .tasks import TASKS, load_task

    return common.show(Tasks(tuple(TaskRow(name, load_task(name).description) for name in TASKS)))


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
