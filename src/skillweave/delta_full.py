"""Changes of one layer's weights that are no product of factors: all entries of ΔW (dense), or some of them (sparse).

A place in ΔW (outside x inside) is one number, row · inside + column. Sparse entries stand in the order of their places, each
place once. Inner products between any two kinds are exact and taken in fp64:

    sparse with anything     Σ v_p ΔW'_p over the places p of the sparse one
    dense with factors       s Σ (Bᵀ D) ∘ A, so that B A is never formed
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Change(Protocol):
    """What can be known of any change of one layer."""

    @property
    def shape(self) -> tuple[int, int]:
        """(outside, inside)."""

    def at(self, index: Int[Tensor, " entry"]) -> Float[Tensor, " entry"]:
        """The entries of ΔW at these places, in fp32."""

    def against(self, values: Float[Tensor, "outside inside"]) -> float:
        """⟨ΔW, values⟩."""

    def dense(self) -> Float[Tensor, "outside inside"]:
        """ΔW itself, in fp32."""


@dataclass(frozen=True)
class Dense:
    """All entries: ΔW = scale · values."""

    values: Float[Tensor, "outside inside"]
    scale: float = 1.0
    """Unitless."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    def at(self, index: Int[Tensor, " entry"]) -> Float[Tensor, " entry"]:
        return self.scale * self.values.flatten()[index.long()].float()

    def against(self, values: Float[Tensor, "outside inside"]) -> float:
        return self.scale * _dot(self.values, values)

    def dense(self) -> Float[Tensor, "outside inside"]:
        return self.scale * self.values.float()

    def inner(self, other: Change) -> float:
        """⟨ΔW, ΔW'⟩."""
        return self.scale * other.against(self.values)


@dataclass(frozen=True)
class Sparse:
    """Some entries: ΔW is scale · values at the places `index`, and zero elsewhere."""

    index: Int[Tensor, " entry"]
    """Places, in order and none twice."""
    values: Float[Tensor, " entry"]
    shape: tuple[int, int]
    """(outside, inside) of the layer."""
    scale: float = 1.0
    """Unitless."""

    def at(self, index: Int[Tensor, " entry"]) -> Float[Tensor, " entry"]:
        if not len(self.index):
            return torch.zeros(len(index))
        own, asked = self.index.long(), index.long()
        place = torch.searchsorted(own, asked).clamp(max=len(own) - 1)
        return torch.where(own[place] == asked, self.scale * self.values[place].float(), 0.0)

    def against(self, values: Float[Tensor, "outside inside"]) -> float:
        return self.scale * _dot(self.values, values.flatten()[self.index.long()])

    def dense(self) -> Float[Tensor, "outside inside"]:
        flat = torch.zeros(self.shape).flatten()
        flat[self.index.long()] = self.scale * self.values.float()
        return flat.view(self.shape)

    def inner(self, other: Change) -> float:
        """⟨ΔW, ΔW'⟩."""
        return self.scale * _dot(self.values, other.at(self.index))


Full = Dense | Sparse


def added(parts: Sequence[tuple[Full, float]]) -> Full:
    """Σ weight · ΔW of one layer, exact: sparse as long as all parts are, with the places of any of them."""
    if len(parts) == 1:
        part, weight = parts[0]
        return replace(part, scale=part.scale * weight)
    sparse = [(part, weight) for part, weight in parts if isinstance(part, Sparse)]
    if len(sparse) == len(parts):
        index, place = torch.cat([part.index.long() for part, _ in sparse]).unique(return_inverse=True)
        values = torch.cat([part.values.float() * (part.scale * weight) for part, weight in sparse])
        return Sparse(index, torch.zeros(len(index)).index_add_(0, place, values), sparse[0][0].shape)
    return Dense(torch.stack([part.dense() * weight for part, weight in parts]).sum(0))


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.detach().flatten().double(), other.detach().flatten().double()))
