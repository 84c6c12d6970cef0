"""Which skills of a library a new one can be tried with, each on its own task; and why others cannot."""

from collections.abc import Sequence
from typing import Any

from .bank import SkillBank
from .base import Base
from .carried import fingerprint, seen_by
from .composition import Active, read_about
from .delta import LowRank
from .errors import SkillweaveError
from .library import Library
from .measure.retention import Other
from .skill import Skill
from .task import Task
from .tasks import TASKS, load_task
from .verbs import weights_of

TRIED = 24
"""Validation examples of each."""
NEW = "+learned"
"""The new skill in a bank; no skill can be called so."""


def beside(
    shelf: Library, name: str, model: Base, made: Any, shown: Sequence, most: int
) -> tuple[dict[str, Other], dict[str, str]]:
    """Up to `most` skills of `shelf`, by name, alone and with `made` (the skill `name`) added; and those left out, with why."""
    found: dict[str, Other] = {}
    left_out: dict[str, str] = {}
    for entry in shelf.list() if most else []:
        if entry.name == name:
            continue
        try:
            other = _other(shelf.get(entry.name), model, made, {fingerprint(e) for e in shown})
        except SkillweaveError as error:
            other = error.message
        if isinstance(other, str):
            left_out[entry.name] = other
        else:
            found[entry.name] = other
        if len(found) == most:
            break
    return found, left_out


def _other(member: Skill, model: Base, made: Any, shown: set[str]) -> Other | str:
    if not isinstance(made, LowRank):
        return "the new skill is not a change of weights that could be added to others."
    if (member.provenance.get("base") or {}).get("digest") != model.digest:
        return "it was learned on another base."
    task = _task(member)
    if task is None:
        return "the task that it learned is not one that can be loaded by name."
    size = task.size("valid")
    examples = task.take(TRIED if size is None else min(size, TRIED), "valid")
    seen = seen_by([member]) | shown
    if not (fresh := [e for e in examples if fingerprint(e) not in seen]):
        return f"the {len(examples)} validation examples of {task.name} were learned from."
    if read_about(member.path, member.name).get("kind"):
        return "it is not a change of weights that could be added to others."
    weights = weights_of(member)
    alone, both = ({member.name: weights}, {member.name: weights, NEW: made})
    return Other(Active(model, SkillBank(model, alone)), Active(model, SkillBank(model, both)), task, fresh)


def _task(member: Skill) -> Task | None:
    """The task that `member` learned from, if it still is what it was then."""
    data = member.provenance.get("data") or {}
    if data.get("name") not in TASKS:
        return None
    task = load_task(data["name"], member.provenance.get("seed") or 0)
    return task if task.digest() == data.get("digest") else None
