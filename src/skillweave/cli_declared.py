"""`skillweave compose --recipe`: tasks that learn together, each with the skills that it declares."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadOption

if TYPE_CHECKING:
    from .cli import Source
    from .declaring import Joint


def joint(
    recipe: Path, skills: Sequence[str] | None, source: "Source", method: str, description: str, how: Mapping[str, Any]
) -> "Joint":
    """The call of `declare`; what stands in the recipe cannot be given a second time. Raises BadOption."""
    given = {
        "skills": skills,
        "--task": source.task,
        "--data": source.data,
        "--verifier": source.verifier,
        "--description": description,
    }
    if method not in ("declared", "scales+lora"):  # the second is what stands there when nothing was given
        raise BadOption(f"--method {method} takes no recipe.", "leave it out: a recipe is for the method declared")
    for what, value in given.items():
        if value:
            raise BadOption(f"both --recipe {recipe} and {what} were given.", "keep one of the two: tasks stand in the recipe")
    from . import declaring

    return declaring.declare(recipe, **how)
