"""skillweave teaches a model one skill at a time, keeps every skill in a library, and makes skills work together.

The nouns are here; the verbs are in `skillweave.verbs`:

    from skillweave.verbs import learn, compose, measure, run

Names load on first use, so that `import skillweave` is quick and imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import SkillweaveError
    from .library import Library
    from .result import Estimate
    from .skill import Skill
    from .task import Task

__version__ = "0.1.0"

__all__ = ["Estimate", "Library", "Skill", "SkillweaveError", "Task", "__version__"]

_HOMES = {"Estimate": "result", "Library": "library", "Skill": "skill", "SkillweaveError": "errors", "Task": "task"}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'skillweave' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
