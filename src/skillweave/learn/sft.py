"""Supervised fine-tuning of a low-rank skill (LoRA, 2106.09685) on prompt and completion; only the completion is learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..delta import LowRank
from ..task import Example
from .batches import Batch, Batches
from .loop import Group, Log, Plan, Tick, train
from .loss import cross_entropy


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

    def fit(
        self,
        base: Base,
        examples: Sequence[Example],
        seed: int,
        state: Path | None = None,
        key: str = "",
        tick: Tick = lambda n, t: None,
    ) -> tuple[LowRank, Log]:
        """Learn `examples` on the frozen `base`; returns the skill's weights (fp32) and what happened."""
        skill = LowRank.fresh(base, self.rank, self.scale, seed)
        bank = SkillBank(base, {"new": skill})
        batches = Batches(base, examples, self.batch, seed)
        groups = [Group(skill.tensors(), self.lr)]
        log = train(lambda b: bank_loss(bank, b), groups, batches.at, Plan(self.steps), state, key, tick)
        return skill.detach(), log


def bank_loss(bank: SkillBank, batch: Batch, alpha: Tensor | None = None) -> Tensor:
    """Nats per labelled token of `batch` with the bank's skills at strength `alpha`."""
    with bank.on(alpha):
        hidden = bank.base.hidden(batch.tokens)
    return cross_entropy(bank.base, hidden.flatten(0, 1)[batch.rows], batch.labels)


@torch.inference_mode()
def mean_loss(bank: SkillBank, examples: Sequence[Example], alpha: Tensor | None = None, size: int = 16) -> float:
    """Nats per labelled token over all of `examples`."""
    batches = Batches(bank.base, sorted(examples, key=lambda e: len(e.prompt)), size, seed=0)
    total = count = 0.0
    for start in range(0, len(batches.pairs), size):
        batch = batches.collate(batches.pairs[start : start + size])
        total += bank_loss(bank, batch, alpha).item() * len(batch.labels)
        count += len(batch.labels)
    return total / count
