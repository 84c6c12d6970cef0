"""Where tasks come from: our own generators, by name, and the user's files."""

from importlib import import_module
from pathlib import Path

from ..errors import NotFound
from ..task import Task, assert_disjoint

TASKS = {
    "date": "skillweave.tasks.records:Date",
    "number": "skillweave.tasks.records:Number",
    "country": "skillweave.tasks.records:Country",
    "invoice": "skillweave.tasks.records:Invoice",
    "copy": "skillweave.tasks.primitives:Copy",
    "reverse": "skillweave.tasks.primitives:Reverse",
    "sort": "skillweave.tasks.primitives:Sort",
    "shift": "skillweave.tasks.primitives:Shift",
    "double": "skillweave.tasks.primitives:Double",
    "rotate": "skillweave.tasks.primitives:Rotate",
    "swap": "skillweave.tasks.primitives:Swap",
    "unique": "skillweave.tasks.primitives:Unique",
    "first": "skillweave.tasks.primitives:First",
    "last": "skillweave.tasks.primitives:Last",
    "upper": "skillweave.tasks.primitives:Upper",
    "primitives": "skillweave.tasks.primitives:primitives",
    "chain": "skillweave.tasks.primitives:chain",
    "functions": "skillweave.tasks.functions:Words",
    "functions-small": "skillweave.tasks.functions:small",
    "list-functions": "skillweave.tasks.functions:Lists",
    "number-functions": "skillweave.tasks.functions:Numbers",
    "arithmetic": "skillweave.tasks.arithmetic:Arithmetic",
    "equations": "skillweave.tasks.arithmetic:Symbols",
    "knowledge": "skillweave.tasks.knowledge:Questions",
    "known-facts": "skillweave.tasks.knowledge:known",
    "told-facts": "skillweave.tasks.knowledge:told",
    "country-facts": "skillweave.tasks.knowledge:real",
    "sums": "skillweave.tasks.keyed:Sums",
    "numbers": "skillweave.tasks.keyed:Numbers",
    "keys": "skillweave.tasks.keyed:Keys",
    "key-sums": "skillweave.tasks.keyed:KeySums",
    "lego": "skillweave.tasks.lego:Lego",
    "sprites": "skillweave.tasks.sprites:Sprites",
}
EXTRA = {
    "city-facts": "skillweave.tasks.knowledge:places",
    "element-facts": "skillweave.tasks.knowledge:chemistry",
}
"""Tasks that need packages which are not there by themselves: the extra `facts`."""
GYM = "gym-"
"""How the names of tasks of reasoning_gym begin (`tasks.gym`)."""
LOOKED_AT = 16
"""Examples of each split that are compared when a task is loaded; `skillweave tasks` and the tests look at more."""


def load_task(name: str, seed: int = 0) -> Task:
    """The task called `name`; NotFound with the nearest name if there is none.

    One that begins with `gym-` is of reasoning_gym. A task whose splits share something among their first examples is not
    handed out.
    """
    known = TASKS | EXTRA
    if name not in known and not name.startswith(GYM):
        raise NotFound("task", name, known, hint="skillweave tasks")
    if name in known:
        module, kind = known[name].split(":")
        task = getattr(import_module(module), kind)(seed)
    else:
        from .gym import named

        task = named(name, seed)
    assert_disjoint(task, LOOKED_AT)
    return task


def load_data(path: str | Path, seed: int = 0, verifier: str | None = None) -> Task:
    """The task made of a user's `.jsonl` or `.csv` file; BadData says what is wrong with it, and where.

    A `verifier`, `FILE.py:function` or `module:function`, judges in a process of its own (`tasks.sandbox`).
    """
    from .jsonl import JsonlTask

    task = JsonlTask(Path(path), seed)
    if verifier is None:
        return task
    from .sandbox import Sandbox, Verified

    return Verified(task, Sandbox(verifier))
