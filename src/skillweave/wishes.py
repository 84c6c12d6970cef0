"""What a way to learn wants beyond examples: the task, a skill to start from, a teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import gemma
from .composition import Active
from .errors import BadOption, NotFound
from .learn import METHODS
from .library import Library
from .methods import resolve
from .skill import Skill
from .task import Task
from .verbs import active, base_of, weights_of


def wishes_of(
    method: str, fitter: Any, source: Task, shelf: Library, parents: Sequence[Skill]
) -> tuple[dict[str, Any], list[Skill], list[tuple[str, str]]]:
    """What `fit` of a learn method `takes` beyond examples, who teaches it, and (name, digest) of all that it comes from.

    It may take the `task`, the weights of a skill to `start` from, and a `teacher`.
    """
    takes = getattr(fitter, "takes", ())
    if parents and "start" not in takes:
        able = [name for name, target in METHODS.items() if "start" in getattr(resolve(target), "takes", ())]
        raise BadOption(f"the method {method} cannot go on from a skill (`{parents[0].name}`).", f"--method {' | '.join(able)}")
    wishes: dict[str, Any] = {"task": source, "start": weights_of(parents[0]) if parents else None}
    teachers: list[Skill] = []
    stamp = [(skill.name, skill.digest) for skill in parents]
    if "teacher" in takes:
        wishes["teacher"], teachers = _teacher_of(fitter, shelf)
        model = wishes["teacher"].base
        stamp += [(model.name, model.digest), *((skill.name, skill.digest) for skill in teachers)]
    return {name: wishes[name] for name in takes}, teachers, stamp


def _teacher_of(fitter: Any, shelf: Library) -> tuple[Active, list[Skill]]:
    """Who answers for the teacher that a method names, and the skills of the library that it is made of."""
    fitter.check()
    names = fitter.teacher.split("+")
    if not fitter.teacher:
        raise BadOption("no teacher was named.", "--set teacher=NAME, a skill of the library or a model")
    members = [shelf.get(name) for name in names] if all(name in shelf for name in names) else []
    if not members and not _names_a_base(fitter.teacher):
        missing = next(name for name in names if name not in shelf)
        raise NotFound("teacher", missing, shelf.names(), str(shelf.path), "name a skill of the library, or a model")
    return active(base_of(members, None if members else fitter.teacher), members), members


def _names_a_base(name: str) -> bool:
    """Whether `name` reads as that of a model, so that no misspelt skill is looked for on a hub."""
    return name == gemma.NAME or name.startswith("tiny") or "/" in name or Path(name).is_dir()
