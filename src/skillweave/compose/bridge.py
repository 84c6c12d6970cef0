"""CALM (2401.02412): two models joined by cross-attention that is trained, while both stay as they are.

The anchor answers, and between its layers looks at the hidden states of the augmenting model (`bridged.py` has the formula).
Only the bridges learn, on the anchor's loss, from a few examples that need both models. Either model may have skills on, and
the two may be one: the same weights with other skills on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from ..bank import SkillBank
from ..base import Base, load_base
from ..composition import Active, load_parts, read_about, save_parts, write_about
from ..delta import LowRank
from ..delta_format import DELTA
from ..errors import BadOption, BadSkill, BaseMismatch
from ..files import sha256_json
from ..learn.batches import Batches
from ..learn.loop import Group, Log, Plan, Run, train
from ..learn.loss import bank_loss
from ..peft_format import read_tensors
from ..task import Example
from .bridged import BridgedBase, Crossing, Weights, crossings

KIND = "bridge"
AGAIN = "get the skill again, or compose it again"


@dataclass(frozen=True)
class Bridged:
    """Two bases joined: names of the skills that are on in the anchor and in the augmenting model, and the bridges."""

    own: tuple[str, ...]
    theirs: tuple[str, ...]
    augment: Base
    crossings: tuple[Crossing, ...]

    @property
    def skills(self) -> tuple[str, ...]:
        return self.own + self.theirs

    @property
    def strengths(self) -> Float[Tensor, "skill layer"]:
        """One: all skills are as strong as they were trained."""
        return torch.ones(len(self.skills), self.augment.layers)

    def tensors(self) -> dict[str, Tensor]:
        """The weights of all bridges, by name."""
        return {f"{k}.{part}": t for k, one in enumerate(self.crossings) for part, t in one.weights.tensors().items()}

    def use(self, base: Base, skills: Mapping[str, LowRank]) -> Active:
        """`base` as the anchor, looking into the other model."""
        joined = BridgedBase(base, SkillBank(self.augment, {name: skills[name] for name in self.theirs}), self.crossings)
        return Active(joined, SkillBank(joined, {name: skills[name] for name in self.own}))

    def save(self, folder: Path, base: Base, skills: Mapping[str, LowRank]) -> None:
        """The weights of the bridges, the skills of both sides, and which bases they belong to."""
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.tensors().items()}
        save_file(tensors, folder / DELTA, metadata={"format": "pt"})
        sides: dict[str, Any] = {}
        for side, model, names in (("anchor", base, self.own), ("augment", self.augment, self.theirs)):
            save_parts(folder, model, {name: skills[name] for name in names})
            sides[side] = {"name": model.name, "digest": model.digest, "skills": list(names)}
        places = [[one.anchor, one.augment] for one in self.crossings]
        write_about(folder, KIND, **sides, layers=places, heads=self.crossings[0].heads)

    @staticmethod
    def load(folder: Path, base: Base, name: str) -> Active:
        """What `save` has written to `folder`, with `base` as its anchor. Raises BadSkill, BaseMismatch."""
        about = read_about(folder, name)
        try:
            anchor, augment = (_Side(**about[side]) for side in ("anchor", "augment"))
            places, heads = [(int(j), int(i)) for j, i in about["layers"]], int(about["heads"])
            own, theirs = load_parts(folder, anchor.skills), load_parts(folder, augment.skills)
        except (KeyError, TypeError, ValueError) as error:
            raise BadSkill(f"composition.json of `{name}` does not say what its bridges join.", AGAIN) from error
        anchor.check(name, "anchor", base)
        other = base if augment.digest == base.digest else _augmenting(augment.name)
        augment.check(name, "augmenting model", other)
        made = _read(folder / DELTA, name, places, heads, base, other)
        return Bridged(tuple(own), tuple(theirs), other, made).use(base, {**own, **theirs})


@dataclass(frozen=True)
class Bridge:
    """Two frozen models, and trained cross-attention from one into the other."""

    two_bases: ClassVar[bool] = True
    """The skills may be those of two bases."""
    steps: int = 200
    """Optimiser steps."""
    batch: int = 16
    """Examples a step."""
    lr: float = 1e-3
    """Largest learning rate, unitless."""
    every: int = 4
    """A bridge after every so many layers of the anchor; after the last if it has fewer."""
    heads: int = 0
    """Heads of the cross-attention; 0 for as many as the anchor's own attention has."""
    augment: str = ""
    """A bare augmenting base, by name or folder: all skills are then the anchor's."""
    anchor: str = ""
    """A bare anchor, by name or folder: all skills are then the augmenting model's."""

    def sides(self, skills: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Which of `skills` are on in the anchor, and which in the augmenting model: the first, and all others."""
        if self.augment and self.anchor:
            raise BadOption("both augment and anchor were given.", "leave one out: it is the base that the skills belong to")
        if self.anchor:
            return (), tuple(skills)
        if self.augment:
            return tuple(skills), ()
        if len(skills) < 2:
            raise BadOption(
                f"a bridge joins two models, and `{skills[0]}` names one.",
                "name a skill of the augmenting model too, or --set augment=BASE, or --set anchor=BASE",
            )
        return tuple(skills[:1]), tuple(skills[1:])

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
        augment: Base | None = None,
    ) -> tuple[Bridged, Log]:
        """Learn bridges from `augment` (the same base, if none is given) into `base` on `examples`."""
        other = base if augment is None else augment
        fresh = crossings(base, other, self.every, self.heads, seed)
        made = Bridged(*self.sides(tuple(skills)), other, tuple(fresh))
        learned = made.tensors()
        for tensor in learned.values():
            tensor.requires_grad_(True)
        use = made.use(base, skills)
        batches = Batches(use.base, examples, self.batch, seed)
        assert use.bank is not None
        bank = use.bank
        run = replace(run, key=sha256_json([run.key, base.digest, other.digest]))
        log = train(lambda b: bank_loss(bank, b), [Group(learned, self.lr)], batches.at, Plan(self.steps), run)
        return replace(made, crossings=tuple(map(_frozen, fresh))), log


def _frozen(one: Crossing) -> Crossing:
    return replace(one, weights=Weights(**{name: tensor.detach() for name, tensor in one.weights.tensors().items()}))


@dataclass(frozen=True)
class _Side:
    """What composition.json says of one of the two models."""

    name: str
    digest: str
    skills: list[str]

    def check(self, skill: str, role: str, base: Base) -> None:
        if base.digest != self.digest:
            raise BaseMismatch(
                f"the {role} of `{skill}` is {self.name} ({self.digest[:12]}), and this is {base.name} ({base.digest[:12]}).",
                "put the base back that it was composed with, or compose it again",
            )


@lru_cache(maxsize=1)
def _augmenting(name: str) -> Base:
    """An augmenting model; the last one stays in memory, since lines of input are answered in small groups."""
    return load_base(name)


def _read(
    file: Path, name: str, places: Sequence[tuple[int, int]], heads: int, base: Base, other: Base
) -> tuple[Crossing, ...]:
    """The bridges in a file, if they are those of these models."""
    tensors = read_tensors(file, name, "file of bridges")
    width, augmenting = base.table.shape[1], other.table.shape[1]
    like = Weights.fresh(width, augmenting, torch.Generator().manual_seed(0)).tensors()
    wanted = {f"{k}.{part}": tensor.shape for k in range(len(places)) for part, tensor in like.items()}
    real = all(1 <= j <= base.layers and 1 <= i <= other.layers for j, i in places)
    if not places or not real or heads < 1 or width % heads or {k: t.shape for k, t in tensors.items()} != wanted:
        raise BadSkill(f"the bridges of `{name}` are not between {base.name} and {other.name}.", AGAIN)
    if any(t.dtype != torch.float32 for t in tensors.values()):
        raise BadSkill(f"the bridges of `{name}` hold values that are not numbers of 32 bits.", AGAIN)
    return tuple(
        Crossing(j, i, heads, Weights(**{part: tensors[f"{k}.{part}"] for part in like})) for k, (j, i) in enumerate(places)
    )
