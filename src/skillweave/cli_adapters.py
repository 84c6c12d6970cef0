"""`skillweave import`, `export` and `inspect`: adapters come into the library, leave it, and are looked into."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .cli import Common


def import_(
    adapter: str,
    /,
    *,
    name: str | None = None,
    base: str | None = None,
    description: str = "",
    materialise: Annotated[int | None, Parameter(metavar="RANK", show_default=False)] = None,
    replace: bool = False,
    common: Common = Common(),
) -> int:
    """Make a skill of a PEFT adapter.

    It is tried on its base first; what does not do what it says is refused, and leaves nothing behind.

    Parameters
    ----------
    adapter
        A folder that PEFT has saved, or a name on the Hugging Face hub.
    name
        Name of the skill; that of the adapter if not given.
    base
        The model it was made on; what the adapter says if not given.
    description
        What the skill does, in a sentence.
    materialise
        Make a plain adapter of this rank of it, which can be added to others.
    replace
        Replace a skill of that name.
    """
    from .adapters import import_adapter

    how = {"base": base, "description": description, "replace": replace, "rank": materialise}
    return common.show(import_adapter(adapter, name, library=common.library, **how))


def export_(skill: str, /, *, out: Annotated[Path, Parameter(metavar="DIR")], common: Common = Common()) -> int:
    """Make a PEFT adapter of a skill.

    The folder holds the weights, their configuration and a model card with what was measured.

    Parameters
    ----------
    skill
        Name of the skill.
    out
        A new folder.
    """
    from .adapters import export_skill

    return common.show(export_skill(skill, out, library=common.library))


def inspect_(
    adapters: list[str],
    /,
    *,
    svg: Annotated[Path | None, Parameter(metavar="FILE", show_default=False)] = None,
    common: Common = Common(),
) -> int:
    """Look into adapters, and compare them.

    No model is loaded.

    Parameters
    ----------
    adapters
        Adapter folders, or skills of the library.
    svg
        A file for a small picture: energy by layer, or of several their cosines.
    """
    from .adapters import inspect_adapters

    return common.show(inspect_adapters(adapters, library=common.library, svg=svg))
