"""Arrow (2405.11157): a router for skills that were learned apart, without any learning of its own.

    v_k = the right singular vector of ΔW_k = s_k B_k A_k with the largest singular value, layer by layer
    α = softmax over the k skills of the largest |v · x|, for each token

v_k is the direction of the input in which the skill changes most. It comes from the factors (`merge.truncate`), never from ΔW.
The paper takes 4 skills a token and PEFT 3; the default here is 2, which two skills allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..delta import Factors, LowRank
from ..learn.loop import Log, Run
from ..task import Example
from .merge import truncate
from .routing import Routes, TopK, check_routed, mean_strengths, present


@dataclass(frozen=True)
class Arrow:
    """Each token by the skills whose change its input meets most; nothing is learned."""

    top_k: int = 2
    """Skills a token and layer."""
    temperature: float = 1.0
    """What scores are divided by, unitless: the larger, the more evenly the chosen skills are mixed."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Routes, Log]:
        """The router; `examples` serve the report alone."""
        bank, here = SkillBank(base, skills), present(skills)
        check_routed(bank, self.top_k, self.temperature)
        for skill in skills.values():
            skill.check_factors()
        router = TopK({slot: _rows(skills, slot) for slot in here}, here, self.top_k, self.temperature, True)
        return Routes(tuple(skills), mean_strengths(base, bank, router, examples), router), Log()


def direction(f: Factors) -> Float[Tensor, " inside"]:
    """The input, of length one, that ΔW stretches most (its sign is arbitrary); zeros if ΔW is zero."""
    best, _ = truncate(f, 1)
    return F.normalize(best.a[0], dim=0)


def _rows(skills: Mapping[str, LowRank], slot: str) -> Float[Tensor, "skill inside"]:
    inside = next(skill.factors[slot].a.shape[1] for skill in skills.values() if slot in skill.factors)
    none = torch.zeros(inside)
    return torch.stack([direction(skill.factors[slot]) if slot in skill.factors else none for skill in skills.values()])
