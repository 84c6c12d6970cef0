"""Learned anisotropic scaling (paper 47, 2407.02880): a strength for every skill and layer, learned from few examples.

    y = W x + Σ_k α[k, layer] · s_k · B_k A_k x   (+ s B A x of a small new skill, as in paper 1, 2502.05932)

α starts at one (the plain sum) and the skills stay as they are. The new skill, where there is one, learns what none of them
holds, such as the shape of the answer. `replay` mixes examples of the skills' own tasks into the batches, so that the
composition does not forget them; `recombined` mixes in new examples made of the few and of the skills' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from ..bank import SkillBank
from ..base import Base
from ..composition import NEW, Composition
from ..curriculum.mixing import mixture
from ..curriculum.recombine import recombine
from ..delta import LowRank
from ..errors import BadOption
from ..learn.batches import Batches
from ..learn.loop import Group, Log, Plan, Tick, train
from ..learn.loss import bank_loss
from ..task import Example


@dataclass(frozen=True)
class Scales:
    """A strength per skill and layer, learned; no new weights."""

    steps: int = 40
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 2e-2
    """Largest learning rate of α, unitless."""
    rank: int = 0
    """Rank of the new skill that learns beside α; 0 for none."""
    lora_lr: float = 1e-3
    """Largest learning rate of the new skill, unitless."""
    scale: float = 2.0
    """The new skill's alpha / rank, unitless."""
    replay: float = 0.0
    """Share of the examples that come from the skills' own tasks."""
    recombined: float = 0.0
    """Share of the examples that are made of the few and of the skills' own."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        state: Path | None = None,
        key: str = "",
        tick: Tick = lambda n, t: None,
    ) -> tuple[Composition, Log]:
        """Learn α (and the new skill) on `examples`; `carried` are the examples that each skill brings along."""
        if not (0 <= self.replay < 1 and 0 <= self.recombined < 1 and self.replay + self.recombined < 1):
            raise BadOption(
                f"replay is {self.replay} and recombined is {self.recombined}, but the shares must leave some to the task.",
                "their sum has to be below 1",
            )
        new = {NEW: LowRank.fresh(base, self.rank, self.scale, seed)} if self.rank else {}
        bank = SkillBank(base, {**skills, **new})
        alpha = bank.ones()
        learned = alpha[: len(skills)].clone().requires_grad_()
        drawn = self.drawn(examples, {name: carried.get(name, ()) for name in skills}, seed)
        batches = Batches(base, drawn, self.batch, seed)
        groups = [Group({"alpha": learned}, self.lr)]
        if new:
            groups.append(Group(new[NEW].tensors(), self.lora_lr))

        def loss(batch):
            return bank_loss(bank, batch, torch.cat([learned, alpha[len(learned) :]]))

        log = train(loss, groups, batches.at, Plan(self.steps), state, key, tick)
        return Composition(tuple(skills), learned.detach(), new[NEW].detach() if new else None), log

    def drawn(self, examples: Sequence[Example], carried: Mapping[str, Sequence[Example]], seed: int) -> list[Example]:
        """What all steps will read: the task, the skills' own examples and recombined ones, each its share."""
        count = self.steps * self.batch
        made = recombine(examples, carried, round(count * self.recombined), seed) if self.recombined else []
        own = [example for kept in carried.values() for example in kept]
        shares = [(own, self.replay if own else 0.0), (made, self.recombined if made else 0.0)]
        return mixture([(examples, 1 - sum(share for _, share in shares)), *shares], count, seed)


@dataclass(frozen=True)
class ScalesWithLora(Scales):
    """A strength per skill and layer, and a small new skill for what none of them holds."""

    rank: int = 8
    replay: float = 0.2
    recombined: float = 0.6
