"""Factors joined across skills (Break-for-Make, paper 44, 2403.19456): A from one skill, B from another, then both a little.

    A = [P | C + D]  with the D of the skill learned on side=down,    B = [Q ; U]  with the U of the one on side=up

P, Q and C, which never moved, are the same in both (learn/plp.py): skills that were not made for each other are refused. The
second stage trains D and U together on few examples, by AdamW on preconditioned gradients (2402.02347, learn/precondition.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from ..bank import SkillBank
from ..base import Base
from ..composition import Composition
from ..curriculum.mixing import mixture
from ..delta import LowRank
from ..errors import BadOption
from ..learn.batches import Batches
from ..learn.loop import Group, Log, Plan, Run, train
from ..learn.loss import bank_loss
from ..learn.plp import SIDES, Halves, assembled, learned, taken_apart
from ..learn.precondition import EPSILON, precondition
from ..skill import Skill
from ..task import Example

CLOSE = 0.01
"""Frozen halves that differ by less, as a share of their norm, are the same: rounded to bf16 they differ by 0.004 at most."""


@dataclass(frozen=True)
class JoinFactors:
    """The learned half of A of the first skill (side=down) and that of B of the second (side=up), as one skill."""

    steps: int = 0
    """Optimiser steps of the second stage; 0 for none."""
    batch: int = 8
    """Examples a step."""
    lr: float = 1e-3
    """Largest learning rate of both halves, unitless."""
    replay: float = 0.5
    """Share of the second stage's examples that come from the skills' own tasks; 1 for nothing else, as in the paper."""
    precondition: bool = True
    """Whether the gradients of the second stage are preconditioned."""
    epsilon: float = EPSILON
    """Added to the diagonal of what is inverted, unitless."""

    def check_members(self, members: Sequence[Skill]) -> None:
        """BadOption unless these skills were made for each other, as their provenance has it."""
        _check_two([member.name for member in members])
        made = {}
        for member, side in zip(members, SIDES, strict=True):
            config = member.provenance.get("config") or {}
            if member.provenance.get("method") != "plp":
                raise BadOption(
                    f"`{member.name}` was not learned by plp: it has no halves to join.", "learn it with --method plp"
                )
            if config.get("side") != side:
                raise BadOption(
                    f"`{member.name}` was learned on side={config.get('side')}, where a skill on side={side} is needed.",
                    "name two skills, the one learned on side=down first",
                )
            made[member.name] = config
        (one, first), (other, second) = made.items()
        for setting in ("basis", "rank", "scale"):
            if first.get(setting) != second.get(setting):
                raise BadOption(
                    f"`{one}` was learned with {setting}={first.get(setting)} and `{other}` with "
                    f"{setting}={second.get(setting)}: their halves do not belong together.",
                    f"learn one of them again with the {setting} of the other",
                )

    def strengths(self, count: int) -> list[float]:
        """Each half is as strong as it was learned."""
        return [1.0] * count

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Composition, Log]:
        """Join the two `skills`, the one learned on side=down first, then learn on `examples` and what the skills carry."""
        if self.replay > 1:
            raise BadOption(f"replay is {self.replay}, but is a share: at most 1.")
        halves, scale = join(skills)
        log = Log()
        if self.steps:
            own = [example for name in skills for example in carried.get(name, ())]
            share = self.replay if own else 0.0
            drawn = mixture([(examples, 1 - share), (own, share)], self.steps * self.batch, seed)
            log = self.tune(base, halves, scale, Batches(base, drawn, self.batch, seed), run)
        return Composition.of(assembled(halves, scale).detach(), base), log

    def tune(self, base: Base, halves: Mapping[str, Halves], scale: float, batches: Batches, run: Run) -> Log:
        """The second stage: D and U together, in place."""
        for half in halves.values():
            half.down.requires_grad_(), half.up.requires_grad_()

        def loss(batch):
            return bank_loss(SkillBank(base, {"joined": assembled(halves, scale)}), batch)

        def before():
            if self.precondition:
                precondition([half.pair() for half in halves.values()], self.epsilon)

        groups = [Group({k: t for side in SIDES for k, t in learned(halves, side).items()}, self.lr)]
        return train(loss, groups, batches.at, Plan(self.steps), run, precondition=before)


def join(skills: Mapping[str, LowRank]) -> tuple[dict[str, Halves], float]:
    """D of the first of two `skills`, U of the second, what is frozen in both, and their scale. Raises BadOption."""
    _check_two(list(skills))
    (one, first), (other, second) = ((name, taken_apart(name, skill)) for name, skill in skills.items())
    scales = {f.scale for skill in skills.values() for f in skill.factors.values()}
    for slot in dict.fromkeys([*first, *second]):
        if slot not in first or slot not in second or not _belong(first[slot], second[slot]) or len(scales) > 1:
            raise BadOption(
                f"the halves of `{one}` and `{other}` do not belong together: what is frozen in `{slot}` is not the same.",
                "learn both on one base with the same rank, scale and basis (--method plp)",
            )
    joined = {slot: replace(half, down=half.down.clone(), up=second[slot].up.clone()) for slot, half in first.items()}
    return joined, scales.pop()


def _belong(one: Halves, other: Halves) -> bool:
    pairs = ((one.start, other.start), (one.top, other.top))
    return all(a.shape == b.shape and torch.dist(a, b) <= CLOSE * torch.linalg.vector_norm(a) for a, b in pairs)


def _check_two(names: Sequence[str]) -> None:
    if len(names) != 2:
        raise BadOption(
            f"{len(names)} skills were named ({', '.join(names)}), but factors are joined of two.",
            "name the one learned on side=down, then the one on side=up",
        )
