"""Several skills merged into one: exactly, then cut to the best change of its rank, without ever forming ΔW.

    ΔW = Σ_k w_k s_k B_k A_k = B A,   with B = [w_k s_k B_k] (outside x R) and A the stacked A_k (R x inside)

The singular values and vectors of B A are those of a small core: with the Gram matrices G_a = A Aᵀ and G_b = Bᵀ B = Lᵀ L (all
R x R, in fp64), Lᵀ's image of ΔW ΔWᵀ is L G_a Lᵀ = U S² Uᵀ. By Eckart and Young (1936) the best change of rank k is then

    B' = B G_a Lᵀ U_k S_k^(-3/2),   A' = S_k^(-1/2) U_kᵀ L A

for 2 (m + n) R² operations and no memory beyond the factors. The energy that is kept, Σ_k S² / trace(G_a G_b), comes for free.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from ..base import Base
from ..composition import Composition
from ..delta import Factors, LowRank, check_linear, stacked, weighted_sum
from ..errors import BadOption
from ..learn.loop import Log, Run
from ..task import Example

NOISE = 1e-7
"""Singular values below this share of ‖B‖ ‖A‖ are rounding errors of fp32 factors."""

Rank = int | float | None
"""How much of a merged change to keep: that rank, that share of each layer's energy, or (None) all of it."""


@dataclass(frozen=True)
class Kept:
    """What a layer's merged change kept of the exact one."""

    rank: int
    full: int
    """Rank of the exact sum: the ranks of the parts together."""
    energy: float
    """‖ΔW‖² of the exact sum."""
    share: float
    """Of that energy, kept: in [0, 1]."""


@dataclass(frozen=True)
class Merged:
    """One skill made of several, and how far it is from their exact sum."""

    skill: LowRank
    layers: Mapping[str, Kept]

    @property
    def share(self) -> float:
        """Kept energy of all layers together, in [0, 1]."""
        total = sum(layer.energy for layer in self.layers.values())
        return sum(layer.energy * layer.share for layer in self.layers.values()) / total if total else 1.0

    @property
    def residual(self) -> float:
        """‖merged - exact‖ / ‖exact‖ over all layers, unitless."""
        return math.sqrt(max(0.0, 1 - self.share))


@dataclass(frozen=True)
class Merging:
    """A way to make one skill of several that needs neither model nor data."""

    weights: tuple[float, ...] = ()
    """One a skill, unitless; 1 each when there are none."""
    rank: int = 0
    """Rank to keep in each layer; 0 for that of the exact sum."""
    energy: float = 0.0
    """Or the share of each layer's energy to keep, in (0, 1]."""

    def merge(self, skills: Sequence[LowRank], seed: int = 0) -> Merged:
        """One skill of several. Raises BadOption."""
        raise NotImplementedError

    def strengths(self, count: int) -> list[float]:
        """The weights of `count` skills."""
        if self.weights and len(self.weights) != count:
            raise BadOption(f"{len(self.weights)} weights were given for {count} skills.", "give one weight a skill")
        return [float(w) for w in self.weights] or [1.0] * count

    @property
    def kept(self) -> Rank:
        """How much to keep. Raises BadOption."""
        if self.rank and self.energy:
            raise BadOption(f"both rank {self.rank} and energy {self.energy:g} were given.", "give one of the two")
        if self.rank < 0:
            raise BadOption(f"rank is {self.rank}, but has to be at least 1.")
        if not 0 <= self.energy <= 1:
            raise BadOption(f"energy is {self.energy:g}, but has to be above 0 and at most 1.")
        return self.rank or self.energy or None

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Composition, Log]:
        """The merged skill as a composition; no example is looked at."""
        return self.composition(base, skills, seed), Log()

    def composition(self, base: Base, skills: Mapping[str, LowRank], seed: int) -> Composition:
        return Composition((), torch.zeros(0, base.layers), self.merge(list(skills.values()), seed).skill)


def merge(skills: Sequence[LowRank], weights: Sequence[float], rank: Rank = None) -> Merged:
    """Σ weight · ΔW of `skills`, cut to `rank`. Skills may differ in ranks and in the layers they change.

    Where one of them is dense or sparse the sum of the layer is formed, if it is to be cut; it stays of that kind if not.
    """
    for skill in skills:
        skill.check_sum()
    factors: dict[str, Factors] = {}
    layers: dict[str, Kept] = {}
    wide = dict.fromkeys(slot for skill in skills for slot in skill.full)
    if rank is None and wide:  # nothing is cut
        total = weighted_sum([(skill, dict.fromkeys(skill.slots, float(w))) for skill, w in zip(skills, weights, strict=True)])
        return Merged(total, {slot: _whole(total, slot) for slot in total.slots})
    for slot in wide:
        changes = [w * skill.dense(slot) for skill, w in zip(skills, weights, strict=True) if skill.parts(slot)]
        factors[slot], layers[slot] = cut_dense(torch.stack(changes).sum(0), rank or 1.0)
    for slot in dict.fromkeys(slot for skill in skills for slot in skill.factors if slot not in wide):
        f = stacked([(s.factors[slot], float(w)) for s, w in zip(skills, weights, strict=True) if slot in s.factors])
        factors[slot], layers[slot] = (f, Kept(f.rank, f.rank, f.inner(f), 1.0)) if rank is None else truncate(f, rank)
    return Merged(LowRank(factors), layers)


def _whole(total: LowRank, slot: str) -> Kept:
    """What is kept of a layer of which nothing is cut."""
    parts = total.parts(slot)
    rank = min(parts[0].shape) if slot in total.full else total.factors[slot].rank
    return Kept(rank, rank, sum(one.inner(other) for one in parts for other in parts), 1.0)


def truncate(f: Factors, rank: int | float) -> tuple[Factors, Kept]:
    """The best change of `rank` (or of that share of the energy), singular values halved between the two factors."""
    check_linear(f)
    a, b = f.a.float(), f.b.float() * f.scale
    if f.rank > a.shape[1]:  # more directions than there are: the product is the smaller thing
        a, b = torch.eye(a.shape[1]), b @ a
    elif f.rank > b.shape[0]:
        a, b = b @ a, torch.eye(b.shape[0])
    wide_a, wide_b = a.double(), b.double()
    gram_a, gram_b = wide_a @ wide_a.t(), wide_b.t() @ wide_b
    energy = float((gram_a * gram_b).sum())
    root = _root(gram_b)  # L
    squares, u = torch.linalg.eigh(root @ gram_a @ root.t())
    squares, u = squares.flip(0).clamp(min=0), u.flip(1)  # the largest first
    real = int((squares > NOISE**2 * gram_a.trace() * gram_b.trace()).sum())
    k = max(1, min(real, rank if isinstance(rank, int) else _enough(squares, rank)))
    if not real:  # the parts cancel: a change of zero, of rank one because every adapter has a rank
        zero = Factors(torch.zeros_like(a[:1]), torch.zeros_like(b[:, :1]), bias=_bias(f), lookup=f.lookup)
        return zero, Kept(1, f.rank, energy, 1.0)
    u, half = u[:, :k], squares[:k] ** 0.25  # √S
    left, right = gram_a @ root.t() @ u / half**3, (u.t() @ root) / half[:, None]
    share = min(1.0, float(squares[:k].sum() / squares.sum()))
    a, b = (right.float() @ a).contiguous(), (b @ left.float()).contiguous()
    return Factors(a, b, bias=_bias(f), lookup=f.lookup), Kept(k, f.rank, energy, share)


def _bias(f: Factors) -> Tensor | None:
    """The bias of `f` with its scale in it."""
    return f.bias if f.bias is None else f.bias.float() * f.scale


def _root(gram: Tensor) -> Tensor:
    """L with Lᵀ L = gram."""
    upper, failed = torch.linalg.cholesky_ex(gram, upper=True)
    if not failed and bool(torch.isfinite(upper).all()):
        return upper
    values, vectors = torch.linalg.eigh(gram)  # some columns depend on each other
    return values.clamp(min=0).sqrt()[:, None] * vectors.t()


def _enough(squares: Tensor, share: float) -> int:
    """The smallest rank that keeps `share` of the energy."""
    kept = squares.cumsum(0) / squares.sum()
    return int((kept < share * (1 - 1e-12)).sum()) + 1


def cut_dense(change: Float[Tensor, "outside inside"], rank: int | float) -> tuple[Factors, Kept]:
    """The best factors of `rank` (or of that share of the energy) for a change that is there in full."""
    tall = change.shape[0] >= change.shape[1]
    narrow = change if tall else change.t()
    wide = narrow.double()
    squares, v = torch.linalg.eigh(wide.t() @ wide)
    squares, v = squares.flip(0).clamp(min=0), v.flip(1)
    energy = float(wide.square().sum())
    if not energy:
        empty = Factors(torch.zeros(1, change.shape[1]), torch.zeros(change.shape[0], 1))
        return empty, Kept(1, min(change.shape), 0.0, 1.0)
    k = min(len(squares), rank if isinstance(rank, int) else _enough(squares, rank), int((squares > NOISE**2 * energy).sum()))
    half = squares[:k] ** 0.25
    inner, outer = (v[:, :k] * half).float(), narrow @ (v[:, :k] / half).float()  # (narrow side, rank), (long side, rank)
    a, b = (inner.t(), outer) if tall else (outer.t(), inner)
    return Factors(a.contiguous(), b.contiguous()), Kept(k, len(squares), energy, min(1.0, float(squares[:k].sum()) / energy))
