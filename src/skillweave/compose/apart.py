"""A composition whose parts stay apart: its files, and what a reader checks of them.

    composition.json         kind, the skills by name, settings
    parts/NAME/              the adapter of each skill, in PEFT's format
    strengths.safetensors    what the strengths are computed from: a gate's weights, a router's rows

Numbers and tensors only; nothing in them can run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..composition import ABOUT, load_parts, read_about, save_parts, write_about
from ..delta import LowRank
from ..errors import BadName, BadSkill
from ..peft_format import read_tensors
from ..skill import check_name

TENSORS = "strengths.safetensors"


@dataclass(frozen=True)
class Apart:
    """What the folder of such a composition holds."""

    name: str
    settings: Mapping[str, Any]
    bank: SkillBank
    tensors: Mapping[str, Tensor]

    def number(self, key: str, least: int) -> int | float:
        """The setting `key`, a number of at least `least`. Raises BadSkill."""
        value = self.settings.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
            raise BadSkill(
                f"{ABOUT} of `{self.name}` says that {key} is {value!r}, but it has to be a number of at least {least}.",
                "restore it, or compose the skill again",
            )
        return value

    def tensor(self, key: str, shape: Sequence[int]) -> Tensor:
        """The tensor `key`, of `shape`. Raises BadSkill."""
        found = self.tensors.get(key)
        if found is None or found.shape != torch.Size(shape):
            state = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise BadSkill(
                f"`{key}` in {TENSORS} of `{self.name}` is {state}, but has to be of shape {tuple(shape)}.",
                "restore it, or compose the skill again",
            )
        return found.float()


def save_apart(
    folder: Path, base: Base, skills: Mapping[str, LowRank], kind: str, tensors: Mapping[str, Tensor], **settings: Any
) -> None:
    """Write such a composition of `skills` (in this order) into `folder`. Raises BadName."""
    for name in skills:
        check_name(name)
    save_parts(folder, base, skills)
    save_file({key: tensor.detach().float().contiguous().clone() for key, tensor in tensors.items()}, folder / TENSORS)
    write_about(folder, kind, skills=list(skills), **settings)


def load_apart(folder: Path, base: Base, name: str) -> Apart:
    """What `folder` of the skill `name` holds, its parts on `base`. Raises BadSkill."""
    settings = read_about(folder, name)
    names = settings.get("skills")
    try:
        known = [check_name(part) for part in names] if isinstance(names, list) and names else []
    except (BadName, TypeError):
        known = []
    if not known or len(set(known)) < len(known):
        raise BadSkill(f"{ABOUT} of `{name}` does not name its skills.", "restore it, or compose the skill again")
    tensors = read_tensors(folder / TENSORS, name, "file of strengths")
    return Apart(name, settings, SkillBank(base, load_parts(folder, known)), tensors)
