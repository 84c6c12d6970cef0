"""Supervised fine-tuning of a low-rank skill (LoRA, 2106.09685) on prompt and completion; only the completion is learned."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..bank import SkillBank
from ..base import Base
from ..delta import LowRank
from ..task import Example
from .batches import Batches
from .loop import Group, Log, Plan, Run, train
from .loss import bank_loss
from .precondition import whole
from .trl_engine import sft, wanted


@dataclass(frozen=True)
class SFT:
    """A new skill from examples."""

    steps: int = 100
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 1e-3
    """Largest learning rate, unitless."""
    rank: int = 8
    """Rank of every layer's change."""
    scale: float = 2.0
    """LoRA's alpha / rank, unitless."""
    precondition: bool = False
    """Whether gradients are freed of how the change is split into factors (Riemannian preconditioning, 2402.02347)."""
    engine: str = "own"
    """What trains: `own`, or `trl` for several GPUs."""

    def fit(
        self,
        base: Base,
        examples: Sequence[Example],
        seed: int,
        run: Run = Run(),
    ) -> tuple[LowRank, Log]:
        """Learn `examples` on the frozen `base`; returns the skill's weights (fp32) and what happened."""
        if wanted(self.engine):
            return sft(self, base, examples, seed, run)
        skill = LowRank.fresh(base, self.rank, self.scale, seed)
        bank = SkillBank(base, {"new": skill})
        batches = Batches(base, examples, self.batch, seed)
        groups = [Group(skill.tensors(), self.lr)]
        before = whole(skill) if self.precondition else lambda: None
        log = train(lambda b: bank_loss(bank, b), groups, batches.at, Plan(self.steps), run, precondition=before)
        return skill.detach(), log
