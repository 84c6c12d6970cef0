"""How finely strengths are learned (paper 47, 2407.02880): the layout of α, and what it makes of skills.

    global         α_k                  one number a skill
    layer          α_k,layer            one a skill and layer of the model
    block          α_k,W                one a skill and block of weights W, as in the paper
    partition:K    α_k,W,j              K a skill and block: ΔW = Σ_j ΔW_j, the parts drawn at random

The paper's partition is over the entries of ΔW, and its parts have no small factors. Here the parts are made of the singular
directions of each block, ΔW = Σ_i σ_i u_i v_iᵀ: these are the skill's own, however its factors are written; their sum is exact;
and a number between A and B is what the folded kernel has anyway, so a step costs the same for every layout. A block of rank r
has at most r parts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..base import Base
from ..composition import Active, Composition, write_about
from ..delta import Factors, LowRank
from ..errors import BadOption
from ..peft_format import save_adapter
from ..strength import PerBlock
from .merge import truncate

GRAINS = ("global", "layer", "block", "partition:K")


@dataclass(frozen=True)
class Grain:
    """One of GRAINS."""

    kind: str
    parts: int = 1
    """Of each block; more than one for partitions alone."""
    seed: int = 0
    """Draws the parts."""

    @staticmethod
    def of(text: str, skills: Mapping[str, LowRank], seed: int) -> "Grain":
        """The grain that `text` names, for these skills. Raises BadOption."""
        found = re.fullmatch(r"(global|layer|block)|partition:(\d{1,6})", text)
        if not found or found[2] == "1" or (found[2] and int(found[2]) < 1):
            raise BadOption(f"granularity is `{text}`, but can only be {', '.join(GRAINS)}.", "K is a number from 2 on")
        if not found[2]:
            return Grain(text)
        parts, most = int(found[2]), max((skill.rank for skill in skills.values()), default=0)
        if parts > most:
            raise BadOption(
                f"granularity is `{text}`, but no skill has a rank above {most}.", f"a change of rank {most} has {most} parts"
            )
        return Grain("partition", parts, seed)

    def members(self, skills: Mapping[str, LowRank]) -> dict[str, LowRank]:
        """What a bank holds: the skills, or each one's parts after one another."""
        if self.parts == 1:
            return dict(skills)
        apart = {name: cut(skill, self.parts, self.seed) for name, skill in skills.items()}
        return {f"{name}/{j}": part for name, parts in apart.items() for j, part in enumerate(parts)}

    def start(self, members: Mapping[str, LowRank], layers: int, value: float) -> Float[Tensor, "member place"]:
        """The numbers that learn, all `value`."""
        wide = {"global": 1, "layer": layers}.get(self.kind)
        return torch.full((len(members), len(blocks_of(members)) if wide is None else wide), value)

    def strengths(
        self, numbers: Float[Tensor, "member place"], members: Mapping[str, LowRank], layers: int
    ) -> Float[Tensor, "member layer"] | PerBlock:
        """What they mean to a bank of `members`; differentiable."""
        if self.kind == "global":
            return numbers.expand(-1, layers)
        return numbers if self.kind == "layer" else PerBlock(numbers, blocks_of(members))

    def woven(
        self, numbers: Tensor, skills: Mapping[str, LowRank], members: Mapping[str, LowRank], layers: int, new: LowRank | None
    ) -> "Composition | Partitioned":
        """The composition of `skills` that learned `numbers` stand for."""
        if self.kind in ("block", "partition"):
            numbers = filled(numbers, members)
        alpha = self.strengths(numbers, members, layers)
        alpha = alpha.contiguous() if isinstance(alpha, Tensor) else alpha
        inner = Composition(tuple(members), alpha, new)
        return inner if self.parts == 1 else Partitioned(tuple(skills), inner, self)


@dataclass(frozen=True)
class Partitioned:
    """Skills whose changes were cut into parts, each part of each block with a strength of its own."""

    skills: tuple[str, ...]
    inner: Composition
    """Of the parts."""
    grain: Grain

    @property
    def strengths(self) -> Float[Tensor, "skill place"]:
        return self.inner.strengths.reshape(len(self.skills), -1)

    def use(self, base: Base, skills: Mapping[str, LowRank]) -> Active:
        return self.inner.use(base, self._parts(skills))

    def merged(self, base: Base, skills: Mapping[str, LowRank]) -> LowRank:
        """The same change of weights as one skill: exact, its rank is the sum of the ranks."""
        return self.inner.merged(base, self._parts(skills))

    def save(self, folder: Path, base: Base, skills: Mapping[str, LowRank]) -> None:
        """One exact adapter, with the strengths of the parts beside it."""
        save_adapter(folder / "adapter", self.merged(base, skills), base.name)
        write_about(folder, None, **self.about(skills))

    def about(self, skills: Mapping[str, LowRank]) -> dict[str, Any]:
        """Its strengths as composition.json has them: those of the parts of each block, and how the parts were drawn."""
        alpha = self.inner.about(self._parts(skills))["alpha"]
        count = self.grain.parts
        shown = {name: {b: [alpha[f"{name}/{j}"][b] for j in range(count) if b in alpha[f"{name}/{j}"]]
                        for b in skills[name].slots} for name in self.skills}  # fmt: skip
        return {"alpha": shown, "parts": count, "seed": self.grain.seed}

    def _parts(self, skills: Mapping[str, LowRank]) -> dict[str, LowRank]:
        return self.grain.members({name: skills[name] for name in self.skills})


def cut(skill: LowRank, parts: int, seed: int) -> list[LowRank]:
    """`skill` as a sum of `parts`, each with its share of the singular directions of every block, drawn from `seed`."""
    skill.check_factors()
    draw = torch.Generator().manual_seed(seed)
    found: list[dict[str, Factors]] = [{} for _ in range(parts)]
    for slot, f in skill.factors.items():
        own, _ = truncate(f, f.rank)
        order = torch.randperm(own.rank, generator=draw)
        for j in range(min(parts, own.rank)):
            some = order[j::parts].sort().values
            found[j][slot] = Factors(own.a[some].contiguous(), own.b[:, some].contiguous())
    return [LowRank(factors) for factors in found]


def blocks_of(members: Mapping[str, LowRank]) -> tuple[str, ...]:
    """Every block of weights that one of `members` changes, in order."""
    return tuple(dict.fromkeys(slot for skill in members.values() for slot in skill.slots))


def filled(numbers: Float[Tensor, "member block"], members: Mapping[str, LowRank]) -> Float[Tensor, "member block"]:
    """`numbers` with the mean of a member where it changes nothing: no number there was learned, or means anything."""
    has = torch.tensor([[block in skill.slots for block in blocks_of(members)] for skill in members.values()])
    mean = (numbers * has).sum(1, keepdim=True) / has.sum(1, keepdim=True).clamp(min=1)
    return torch.where(has, numbers, mean)
