"""A recipe of declarations: which tasks learn together, and which skills each of them declares.

new = ["general", "dates"]        skills that begin at nothing; all others are skills of the library
base = "gemma-3-270m"             read only when all of them are new
steps = 200                       any option of the method `declared`

[tasks]                           a task by name, or a file of examples, with the skills that it declares
date = ["general", "dates"]
"notes.jsonl" = ["general", "number"]
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import gemma
from .errors import BadData, BadOption
from .skill import check_name, slug


@dataclass(frozen=True)
class Names:
    """What each task, and each skill as it has become, is saved as."""

    tasks: Mapping[str, str]
    skills: Mapping[str, str]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.tasks.values(), *self.skills.values())


@dataclass(frozen=True)
class Recipe:
    """What a file of declarations holds."""

    tasks: Mapping[str, tuple[str, ...]]
    """The skills that each task declares, by the name of the task or the path of a file."""
    new: tuple[str, ...]
    base: str
    options: Mapping[str, Any]

    @property
    def skills(self) -> tuple[str, ...]:
        """All that are declared, in the order in which tasks name them."""
        return tuple(dict.fromkeys(name for names in self.tasks.values() for name in names))

    def of(self, skill: str) -> list[str]:
        """The tasks that declare `skill`."""
        return [task for task, names in self.tasks.items() if skill in names]

    def names(self, save: str) -> Names:
        """`save`-TASK for tasks, `save`-expert-SKILL for skills. Raises BadName, BadOption."""
        check_name(save)
        tasks = {task: check_name(f"{save}-{slug(Path(task).stem if is_file(task) else task)}") for task in self.tasks}
        names = Names(tasks, {name: check_name(f"{save}-expert-{name}") for name in self.skills})
        if twice := [name for name in names.all if names.all.count(name) > 1]:
            raise BadOption(f"two parts of the recipe would be saved as `{twice[0]}`.", "give one of them another name")
        return names


def is_file(task: str) -> bool:
    """Whether a task of a recipe is a file of examples."""
    return Path(task).suffix.lower() in (".jsonl", ".csv")


def read(path: Path) -> Recipe:
    """The recipe in a TOML file. Raises BadData, with what is wrong and how to write it."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.", "give a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise BadData(f"{path} is not TOML: {error}.", 'write [tasks] on a line, then date = ["general", "dates"]') from error
    tasks, new, base = found.pop("tasks", None), found.pop("new", []), found.pop("base", gemma.NAME)
    if not isinstance(tasks, dict) or not tasks:
        raise BadData(f"{path} declares no task.", 'write [tasks] on a line, then lines such as date = ["general", "dates"]')
    for what, names in {**{f"the task `{task}`": names for task, names in tasks.items()}, "new": new}.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadData(f"{path} has {names!r} for {what}.", 'write a list of skills, as in ["general", "dates"]')
    if not isinstance(base, str):
        raise BadData(f"{path} has {base!r} for base.", "write the name of a model")
    return Recipe({task: tuple(names) for task, names in tasks.items()}, tuple(new), base, found)
