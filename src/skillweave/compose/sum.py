"""Task arithmetic (2212.04089): skills added, each as strong as its weight, or taken away. Nothing is learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..base import Base
from ..composition import Composition
from ..delta import LowRank
from ..errors import BadOption
from .merge import Merged, Merging, merge


@dataclass(frozen=True)
class Sum(Merging):
    """Σ weight · ΔW, exactly, or cut to a rank."""

    def merge(self, skills: Sequence[LowRank], seed: int = 0) -> Merged:
        return merge(skills, self.strengths(len(skills)), self.kept)

    def composition(self, base: Base, skills: Mapping[str, LowRank], seed: int) -> Composition:
        """The skills themselves with their weights, so that each stays visible; one new skill when a rank is asked for."""
        if self.kept is not None:
            return super().composition(base, skills, seed)
        weights = torch.tensor(self.strengths(len(skills)))[:, None]
        return Composition(tuple(skills), weights.expand(-1, base.layers).clone())


@dataclass(frozen=True)
class Subtract(Sum):
    """The first skill without the others; of one skill alone, the base without it (negation)."""

    strength: float = 1.0
    """How much of what is taken away, unitless."""

    def strengths(self, count: int) -> list[float]:
        if self.weights:
            raise BadOption("subtract takes no weights.", "give strength, or use the method sum with weights")
        return [1.0] * (count > 1) + [-self.strength] * (count - (count > 1))
