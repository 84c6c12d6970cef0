"""A learned router: in every layer each token goes to the few skills whose row fits its input best.

    α = softmax of the k largest w_k · x / ‖x‖, for each token and layer

As in a mixture of experts (1701.06538), with skills that stay as they are for experts and without noise or balancing: the few
examples say which skill is wanted. It has a row for every skill and layer, so many more numbers than a context gate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..curriculum.mixing import with_replay
from ..delta import LowRank
from ..learn.batches import Batch, Batches
from ..learn.loop import Group, Log, Plan, Run, train
from ..learn.loss import bank_loss
from ..strength import Routed
from ..task import Example
from .routing import Routes, TopK, check_routed, mean_strengths, present

START = 1e-2
"""Spread of the rows at the start: skills begin all but equal, and no two are tied."""


@dataclass(frozen=True)
class Router:
    """Which skills compute a token, learned for every layer; no new weights in the model."""

    steps: int = 60
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 2e-2
    """Largest learning rate of the rows, unitless."""
    top_k: int = 2
    """Skills a token and layer."""
    replay: float = 0.0
    """Share of the examples that come from the skills' own tasks."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Routes, Log]:
        """Learn the rows on `examples`; `carried` are the examples that each skill brings along."""
        bank, here = SkillBank(base, skills), present(skills)
        check_routed(bank, self.top_k, 1.0)
        own = {name: carried.get(name, ()) for name in skills}
        drawn = with_replay(examples, own, self.replay, self.steps * self.batch, seed)
        batches = Batches(base, drawn, self.batch, seed)
        draw = torch.Generator().manual_seed(seed)
        rows = {slot: torch.randn(len(skills), base.linears[slot].in_features, generator=draw) * START for slot in here}
        learned = {slot: row.requires_grad_() for slot, row in rows.items()}
        router = TopK(learned, here, self.top_k, 1.0, False)

        def loss(batch: Batch) -> Tensor:
            return bank_loss(bank, batch, Routed(router))

        log = train(loss, [Group(learned, self.lr)], batches.at, Plan(self.steps), run)
        router = TopK({slot: row.detach() for slot, row in rows.items()}, here, self.top_k, 1.0, False)
        return Routes(tuple(skills), mean_strengths(base, bank, router, examples), router), log
