"""Composition: which skills, how strong each is in each layer, and what new weights go with them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .bank import SkillBank
from .base import Base
from .delta import LowRank, weighted_sum

NEW = "+new"
"""The name of a composition's own weights inside its bank; no skill can be called so."""


@dataclass(frozen=True)
class Composition:
    """Skills by name with a strength per skill and layer (unitless, 1 = as trained), and perhaps weights of its own."""

    skills: tuple[str, ...]
    alpha: Float[Tensor, "skill layer"]
    new: LowRank | None = None

    def bank(self, base: Base, skills: Mapping[str, LowRank]) -> tuple[SkillBank, Tensor]:
        """The bank that holds this composition, and its α: `with bank.on(alpha): …`."""
        parts = {name: skills[name] for name in self.skills}
        if self.new is None:
            return SkillBank(base, parts), self.alpha
        return SkillBank(base, {**parts, NEW: self.new}), torch.cat([self.alpha, torch.ones(1, self.alpha.shape[1])])

    def merged(self, base: Base, skills: Mapping[str, LowRank]) -> LowRank:
        """The same change of weights as one skill: exact, its rank is the sum of the ranks."""
        bank, alpha = self.bank(base, skills)
        return weighted_sum(
            [
                (part, {slot: alpha[k, base.layer_of(slot)].item() for slot in part.factors})
                for k, part in enumerate(bank.skills.values())
            ]
        )
