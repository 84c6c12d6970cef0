"""Full fine-tuning: every weight of the base's linear layers learns; embeddings, norms and the head stay as they are.

The skill is the whole change, ΔW = W_tuned - W_base in fp32 for each linear layer: large to store, and what a graft (paper 40)
is cut out of. AdamW moves all weights by much the same; plain gradient steps (`sgd`, as in the paper) leave more of the change
in few of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..base import Base
from ..delta import LowRank
from ..delta_full import Dense
from ..errors import BadOption
from ..task import Example
from .batches import Batches
from .loop import Log, Plan, Run, train
from .pretrain import groups_of, text_loss, thawed


@dataclass(frozen=True)
class Full:
    """A new skill from examples, held as a change of all weights of the linear layers."""

    steps: int = 100
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 1e-4
    """Largest learning rate, unitless; `sgd` wants one a thousand times as large."""
    optimiser: str = "adamw"
    """`adamw` or `sgd`."""

    def fit(
        self,
        base: Base,
        examples: Sequence[Example],
        seed: int,
        run: Run = Run(),
    ) -> tuple[LowRank, Log]:
        """Learn `examples` on a copy of `base`; returns the change of its weights (fp32) and what happened."""
        if self.optimiser not in ("adamw", "sgd"):
            raise BadOption(f"optimiser is `{self.optimiser}`, but can only be adamw or sgd.")
        learner = thawed(base)
        names = {f"{slot}.weight" for slot in base.linears}
        groups = groups_of(learner, self.lr, lambda name: float(name in names))
        batches = Batches(learner, examples, self.batch, seed)
        plan = Plan(self.steps, optimiser=self.optimiser)
        log = train(lambda b: text_loss(learner, b), groups, batches.at, plan, run)
        return moved(base, learner), log


def moved(before: Base, after: Base) -> LowRank:
    """The change of all linear layers from one base to another of the same shape, in fp32."""
    with torch.no_grad():
        pairs = {slot: (linear.matrix.float(), after.linears[slot].matrix.float()) for slot, linear in before.linears.items()}
        return LowRank({}, full={slot: Dense((new - old).detach()) for slot, (old, new) in pairs.items()})
