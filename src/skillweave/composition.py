"""Composition: which skills, how strong each is and where, what new weights go with them; and a base while skills are on.

What a method of the compose room makes is a `Woven`: it can be used (`Active`) and written to the folder of a skill. Where
strengths are constants it is a `Composition`, which merges exactly into one adapter. Where they depend on the input they come
from a `Gate`, the parts stay apart, and the folder holds them and the gate (`kind` in composition.json says whose).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from .bank import SkillBank
from .base import Base
from .delta import LowRank, weighted_sum
from .delta_format import DELTA, load_delta, save_delta
from .errors import BadSkill
from .peft_format import load_adapter, save_adapter
from .strength import Constant, PerBlock, Strength, rows

NEW = "+new"
"""The name of a composition's own weights inside its bank; no skill can be called so."""
ABOUT = "composition.json"
"""What a composed skill says of itself: `kind` (whose class reads it again; none for one merged adapter) and its settings."""
PARTS = "parts"
"""The folder of the adapters of a composition that stays apart."""


Gate = Callable[[Base, Sequence[str]], Strength]
"""Strengths that depend on what is asked: those for the prompts, in their order, read off the base without skills."""


@dataclass(frozen=True)
class Active:
    """A base while skills are on, as strong as `alpha` says: what answers. Without a bank, the base alone."""

    base: Base
    bank: SkillBank | None = None
    alpha: Strength | Gate | None = None

    @contextmanager
    def on(self, prompts: Sequence[str]) -> Iterator[None]:
        """Inside the block the base computes `prompts` with the skills."""
        if self.bank is None:
            yield
            return
        alpha = self.alpha(self.base, prompts) if callable(self.alpha) else self.alpha
        with self.bank.on(alpha):
            yield

    def encode(self, text: str) -> list[int]:
        """Token numbers of `text`."""
        return self.base.encode(text)

    def generate(self, prompts: Sequence[str], max_new_tokens: int = 64, prefix: str = "", batch: int = 64) -> list[str]:
        """Greedy completions, as `Base.generate`."""
        with self.on(prompts):
            return self.base.generate(prompts, max_new_tokens, prefix, batch)


class Woven(Protocol):
    """What a method makes of skills."""

    @property
    def skills(self) -> tuple[str, ...]:
        """The skills that stay visible in it, by name."""

    @property
    def strengths(self) -> Float[Tensor, "skill place"]:
        """How strong each of `skills` is, in layers or blocks: constants, or means over the examples that it was made from."""

    def use(self, base: Base, skills: Mapping[str, LowRank]) -> Active:
        """`base` with it on; `skills` are the weights of the skills that it was made of."""

    def save(self, folder: Path, base: Base, skills: Mapping[str, LowRank]) -> None:
        """Write what makes it a skill into `folder`."""


@dataclass(frozen=True)
class Composition:
    """Skills by name with strengths (unitless, 1 = as trained), and perhaps weights of its own."""

    skills: tuple[str, ...]
    alpha: Float[Tensor, "skill layer"] | PerBlock
    """For each skill and layer, or each skill and block of weights (of all skills together, or a part of them)."""
    new: LowRank | None = None

    @staticmethod
    def of(skill: LowRank, base: Base) -> "Composition":
        """Weights of its own and nothing else."""
        return Composition((), torch.zeros(0, base.layers), skill)

    @property
    def strengths(self) -> Float[Tensor, "skill place"]:
        return self.alpha.alpha if isinstance(self.alpha, PerBlock) else self.alpha

    def bank(self, base: Base, skills: Mapping[str, LowRank]) -> tuple[SkillBank, Constant]:
        """The bank that holds this composition, and its α: `with bank.on(alpha): …`."""
        parts = {name: skills[name] for name in self.skills}
        if self.new is None:
            return SkillBank(base, parts), self.alpha
        return SkillBank(base, {**parts, NEW: self.new}), with_new(self.alpha, self.new)

    def use(self, base: Base, skills: Mapping[str, LowRank]) -> Active:
        return Active(base, *self.bank(base, skills))

    def merged(self, base: Base, skills: Mapping[str, LowRank]) -> LowRank:
        """The same change of weights as one skill: exact, its rank is the sum of the ranks."""
        bank, alpha = self.bank(base, skills)
        strength = rows(alpha, len(bank.skills), base.layers, base.layer_of)
        parts = enumerate(bank.skills.values())
        return weighted_sum([(part, {slot: strength.at(k, slot).item() for slot in part.slots}) for k, part in parts])

    def save(self, folder: Path, base: Base, skills: Mapping[str, LowRank]) -> None:
        """One exact change, with the strengths beside it: an adapter, or a delta where no factors can hold it."""
        whole = self.merged(base, skills) if self.skills else self._own()
        if whole.full:
            save_delta(folder, whole)
        else:
            save_adapter(folder / "adapter", whole, base.name)
        if self.skills:
            write_about(folder, None, **self.about(skills))

    def about(self, skills: Mapping[str, LowRank]) -> dict[str, Any]:
        """Its strengths as composition.json has them: the layers in order, or the blocks that a skill changes by name."""
        named = dict(zip(self.skills, self.strengths.tolist(), strict=True))
        if isinstance(self.alpha, PerBlock):
            pairs = {name: zip(self.alpha.blocks, row, strict=True) for name, row in named.items()}
            named = {name: {b: x for b, x in row if b in skills[name].slots} for name, row in pairs.items()}
        return {"alpha": named}

    def _own(self) -> LowRank:
        assert self.new is not None, "a composition of nothing"
        return self.new


def with_new(alpha: Constant, new: LowRank) -> Float[Tensor, "more layer"] | PerBlock:
    """`alpha` of skills, and one for new weights behind them."""
    if not isinstance(alpha, PerBlock):
        return torch.cat([alpha, torch.ones(1, alpha.shape[1])])
    more = tuple(block for block in new.factors if block not in alpha.place)
    wide = torch.cat([alpha.alpha, torch.zeros(len(alpha.alpha), len(more))], 1)
    return PerBlock(torch.cat([wide, torch.ones(1, wide.shape[1])]), (*alpha.blocks, *more))


def write_about(folder: Path, kind: str | None, **settings) -> None:
    """Write composition.json; `kind` is the line of `compose.KINDS` that reads the skill again."""
    (folder / ABOUT).write_text(json.dumps({"kind": kind, **settings} if kind else settings, indent=1))


def read_about(folder: Path, name: str = "") -> dict:
    """What composition.json of the skill `name` says; empty when there is none. Raises BadSkill."""
    path = folder / ABOUT
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text())
    except ValueError as error:
        raise BadSkill(f"{path} of `{name}` is not JSON.", "restore it, or compose the skill again") from error
    if not isinstance(about, dict):
        raise BadSkill(f"{path} of `{name}` is not a JSON object.", "restore it, or compose the skill again")
    return about


def save_parts(folder: Path, base: Base, skills: Mapping[str, LowRank]) -> None:
    """Write the changes of a composition that stays apart into the folder of its skill."""
    for name, skill in skills.items():
        if skill.full:
            save_delta(folder / PARTS / name, skill)
        else:
            save_adapter(folder / PARTS / name, skill, base.name)


def load_parts(folder: Path, names: Sequence[str]) -> dict[str, LowRank]:
    """The changes `names` of a composition that stays apart. Raises BadSkill."""
    parts = {name: folder / PARTS / name for name in names}
    return {name: (load_delta if (at / DELTA).exists() else load_adapter)(at, name) for name, at in parts.items()}
