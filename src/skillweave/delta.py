"""LowRank: a change of weights held as factors, ΔW = scale · B A for each linear layer it touches, and its exact algebra.

Sums, scales, inner products and energies are taken in the factors; ΔW itself (outside x inside) is never formed for them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Base


@dataclass(frozen=True)
class Factors:
    """One linear layer's change: ΔW = scale · b @ a."""

    a: Float[Tensor, "rank inside"]
    b: Float[Tensor, "outside rank"]
    scale: float = 1.0
    """Unitless; alpha / r in the terms of LoRA (2106.09685)."""

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def dense(self) -> Float[Tensor, "outside inside"]:
        """ΔW itself, in fp32."""
        return self.scale * (self.b.float() @ self.a.float())

    def inner(self, other: "Factors") -> float:
        """⟨ΔW, ΔW'⟩ = Σ (A A'ᵀ) ∘ (Bᵀ B'), times both scales."""
        a, b = self.a.double() @ other.a.double().t(), self.b.double().t() @ other.b.double()
        return self.scale * other.scale * float((a * b).sum())


@dataclass(frozen=True)
class LowRank:
    """A skill's weights: factors by the name of the linear layer."""

    factors: Mapping[str, Factors]

    def scaled(self, by: float) -> "LowRank":
        """by · ΔW; a negative number takes the skill away."""
        return LowRank({s: Factors(f.a, f.b, f.scale * by) for s, f in self.factors.items()})

    def inner(self, other: "LowRank") -> float:
        """⟨ΔW, ΔW'⟩ over all layers that both change."""
        return float(sum(f.inner(other.factors[slot]) for slot, f in self.factors.items() if slot in other.factors))

    @property
    def energy(self) -> float:
        """‖ΔW‖², the sum of squares of all its entries."""
        return self.inner(self)

    @property
    def rank(self) -> int:
        """The largest rank of any layer."""
        return max((f.rank for f in self.factors.values()), default=0)

    @property
    def parameters(self) -> int:
        return sum(f.a.numel() + f.b.numel() for f in self.factors.values())

    def tensors(self) -> dict[str, Tensor]:
        """Every factor by name (`layer.a`, `layer.b`)."""
        return {f"{slot}.{side}": getattr(f, side) for slot, f in self.factors.items() for side in "ab"}

    def detach(self) -> "LowRank":
        return LowRank({s: Factors(f.a.detach(), f.b.detach(), f.scale) for s, f in self.factors.items()})

    @staticmethod
    def fresh(base: Base, rank: int, scale: float, seed: int) -> "LowRank":
        """The usual start of a LoRA on every linear layer of `base`: a uniform in ±1/√inside, b zero; fp32, trainable."""
        generator = torch.Generator().manual_seed(seed)
        factors = {}
        for slot, linear in base.linears.items():
            bound = 1 / math.sqrt(linear.in_features)
            a = torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator)
            b = torch.zeros(linear.out_features, rank)
            factors[slot] = Factors(a.requires_grad_(), b.requires_grad_(), scale)
        return LowRank(factors)


def weighted_sum(parts: Sequence[tuple[LowRank, Mapping[str, float]]]) -> LowRank:
    """Σ weight · ΔW, exact: factors side by side, the weight of each layer folded into b; ranks add up.

    Each part comes with its weight for each of its layers. Parts may touch different layers.
    """
    slots = dict.fromkeys(slot for part, _ in parts for slot in part.factors)
    return LowRank({s: stacked([(part.factors[s], weights[s]) for part, weights in parts if s in part.factors]) for s in slots})


def stacked(parts: Sequence[tuple[Factors, float]]) -> Factors:
    """Σ weight · ΔW of one layer, exact: factors side by side."""
    a = torch.cat([f.a.float() for f, _ in parts])
    return Factors(a, torch.cat([f.b.float() * (f.scale * weight) for f, weight in parts], 1))


def cosines(skills: Sequence[LowRank]) -> Float[Tensor, "skill skill"]:
    """Cosine between the changes of every two skills, over all weights of the model; 0 where one changes nothing."""
    inner = torch.zeros(len(skills), len(skills), dtype=torch.float64)
    for slot in dict.fromkeys(slot for skill in skills for slot in skill.factors):
        here = [(k, skill.factors[slot]) for k, skill in enumerate(skills) if slot in skill.factors]
        a = torch.cat([f.a.float() for _, f in here])  # (ranks, inside)
        b = torch.cat([f.b.float() * f.scale for _, f in here], 1)  # (outside, ranks)
        owner = torch.repeat_interleave(torch.tensor([k for k, _ in here]), torch.tensor([f.rank for _, f in here]))
        product = ((a @ a.t()) * (b.t() @ b)).double()  # (ranks, ranks)
        rows = torch.zeros(len(skills), len(owner), dtype=torch.float64).index_add_(0, owner, product)
        inner += torch.zeros_like(inner).index_add_(1, owner, rows)
    norm = inner.diagonal().clamp(min=0).sqrt()
    return torch.where((norm[:, None] * norm) > 0, inner / (norm[:, None] * norm), 0.0)
