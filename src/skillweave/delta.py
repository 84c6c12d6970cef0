"""LowRank: a change of weights held as factors, ΔW = scale · B A for each linear layer it touches, and its exact algebra.

Sums, scales, inner products and energies are taken in the factors; ΔW itself (outside x inside) is never formed for them.
A change that is no product of factors (a full fine-tune, a graft) is held beside them in full (`delta_full.py`), all entries
or those that are not zero; all of the algebra holds across the kinds, and what a layer's parts say adds up.

Adapters from elsewhere hold more at times: a bias, a table of embeddings, the magnitudes of DoRA (2402.09353), weights that
take the place of the base's. The first two are linear and are carried along; the others have no sum, and every operation here
that would need one says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .base import Base
from .delta_full import Full, Sparse, added
from .errors import BadOption, BaseMismatch

ENTRIES = 1 << 20
"""Places of a product of factors that are worked out at a time."""


@dataclass(frozen=True)
class Factors:
    """One linear layer's change: ΔW = scale · b @ a."""

    a: Float[Tensor, "rank inside"]
    b: Float[Tensor, "outside rank"]
    scale: float = 1.0
    """Unitless; alpha / r in the terms of LoRA (2106.09685)."""
    bias: Float[Tensor, " outside"] | None = None
    """Added to what the layer gives, times scale."""
    magnitude: Float[Tensor, " outside"] | None = None
    """DoRA: the length that each row of W + scale · b @ a is given."""
    lookup: bool = False
    """The layer is a table of embeddings: what goes in is a token, one column of `a`."""

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(outside, inside)."""
        return self.b.shape[0], self.a.shape[1]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What there is of a, b, bias and magnitude."""
        found = {name: getattr(self, name) for name in ("a", "b", "bias", "magnitude")}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def dense(self) -> Float[Tensor, "outside inside"]:
        """ΔW itself, in fp32."""
        check_linear(self)
        return self.scale * (self.b.float() @ self.a.float())

    def at(self, index: Int[Tensor, " entry"]) -> Float[Tensor, " entry"]:
        """The entries of ΔW at these places (row · inside + column), in fp32."""
        check_linear(self)
        a, b, parts = self.a.t().float(), self.b.float(), index.long().split(ENTRIES)
        return self.scale * torch.cat([(b[part // len(a)] * a[part % len(a)]).sum(1) for part in parts])

    def against(self, values: Float[Tensor, "outside inside"]) -> float:
        """⟨ΔW, values⟩ = scale · Σ (Bᵀ values) ∘ A."""
        check_linear(self)
        return self.scale * float(((self.b.t().double() @ values.double()) * self.a.double()).sum())

    def inner(self, other: "Factors | Full") -> float:
        """⟨ΔW, ΔW'⟩; of factors Σ (A A'ᵀ) ∘ (Bᵀ B'), times both scales."""
        if not isinstance(other, Factors):
            return other.inner(self)
        check_linear(self, other)
        a, b = self.a.double() @ other.a.double().t(), self.b.double().t() @ other.b.double()
        return self.scale * other.scale * float((a * b).sum())


@dataclass(frozen=True)
class Replacement:
    """What takes the place of a weight of the base."""

    values: Tensor
    """The new weight, or the new rows."""
    rows: Int[Tensor, " row"] | None = None
    """Which rows are new; all of them if not given."""


@dataclass(frozen=True)
class LowRank:
    """A skill's weights: factors by the name of the linear layer."""

    factors: Mapping[str, Factors]
    replaced: Mapping[str, Replacement] = field(default_factory=dict)
    """Weights of the base, by name, that the skill brings itself."""
    full: Mapping[str, Full] = field(default_factory=dict)
    """Changes of linear layers that are no product of factors; a layer that has factors, too, is changed by both."""

    @property
    def slots(self) -> list[str]:
        """The layers that it changes."""
        return list(dict.fromkeys([*self.factors, *self.full]))

    def parts(self, slot: str) -> list[Factors | Full]:
        """What changes one layer: their sum is ΔW."""
        return [where[slot] for where in (self.factors, self.full) if slot in where]

    def dense(self, slot: str) -> Float[Tensor, "outside inside"]:
        """ΔW of a layer, in fp32."""
        first, *rest = [part.dense() for part in self.parts(slot)]
        return sum(rest, first)

    def masked(self, places: Mapping[str, Int[Tensor, " entry"]]) -> "LowRank":
        """Only the entries of ΔW at these places of these layers, in order and none twice; what is left is sparse."""
        self.check_plain()
        parts = {slot: self.parts(slot) for slot in places}
        values = {slot: torch.stack([part.at(places[slot]) for part in here]).sum(0) for slot, here in parts.items()}
        return LowRank({}, full={s: Sparse(places[s], values[s], here[0].shape) for s, here in parts.items()})

    def check_sum(self) -> None:
        """Raises BadOption if this is more than a sum of products can hold."""
        check_linear(*self.factors.values())
        if self.replaced:
            raise BadOption(
                f"an adapter that replaces {', '.join(self.replaced)} cannot be scaled or added to others: "
                "weights that take a place have no sum.",
                "use it by itself at strength one",
            )

    def check_plain(self) -> None:
        """Raises BadOption if this is more than products of factors on linear layers."""
        self.check_sum()
        for slot, f in self.factors.items():
            if f.bias is not None or f.lookup:
                what = "a table of embeddings" if f.lookup else "a bias"
                raise BadOption(
                    f"an adapter with {what} (`{slot}`) cannot be thinned out or learn on: that is for linear layers alone.",
                    "merge it with --method sum",
                )

    def check_factors(self) -> None:
        """Raises BadOption if this is more than products of factors on linear layers, or has entries of its own."""
        self.check_plain()
        if self.full:
            raise BadOption(
                f"a skill with a dense or sparse change (`{next(iter(self.full))}`) has no factors that this method could use.",
                "use it with --method sum",
            )

    def scaled(self, by: float) -> "LowRank":
        """by · ΔW; a negative number takes the skill away."""
        self.check_sum()
        full = {s: replace(f, scale=f.scale * by) for s, f in self.full.items()}
        return LowRank({s: replace(f, scale=f.scale * by) for s, f in self.factors.items()}, full=full)

    def inner(self, other: "LowRank") -> float:
        """⟨ΔW, ΔW'⟩ over all layers that both change."""
        pairs = [(part, to) for slot in self.slots for part in self.parts(slot) for to in other.parts(slot)]
        return float(sum(part.inner(to) for part, to in pairs))

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
        beside = [*self.replaced.values(), *self.full.values()]
        return sum(t.numel() for t in self.tensors().values()) + sum(one.values.numel() for one in beside)

    def tensors(self) -> dict[str, Tensor]:
        """Every factor by name (`layer.a`, `layer.b`)."""
        return {f"{slot}.{side}": tensor for slot, f in self.factors.items() for side, tensor in f.tensors.items()}

    def learner(self) -> "LowRank":
        """A copy in fp32 whose factors can learn. Raises BadOption for what is more than factors of linear layers."""
        self.check_factors()
        return LowRank({slot: replace(f, a=_learner(f.a), b=_learner(f.b)) for slot, f in self.factors.items()})

    def detach(self) -> "LowRank":
        full = {slot: replace(f, values=f.values.detach()) for slot, f in self.full.items()}
        return LowRank({slot: _detached(f) for slot, f in self.factors.items()}, self.replaced, full)

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


def _learner(tensor: Tensor) -> Tensor:
    return tensor.detach().float().clone().requires_grad_()


def _detached(f: Factors) -> Factors:
    own: dict[str, Any] = {name: tensor.detach() for name, tensor in f.tensors.items()}
    return replace(f, **own)


def weighted_sum(parts: Sequence[tuple[LowRank, Mapping[str, float]]]) -> LowRank:
    """Σ weight · ΔW, exact: factors side by side, the weight of each layer folded into b; ranks add up, entries too.

    Each part comes with its weight for each of its layers. Parts may touch different layers.
    """
    for part, _ in parts:
        part.check_sum()
    slots = dict.fromkeys(slot for part, _ in parts for slot in part.factors)
    wide = dict.fromkeys(slot for part, _ in parts for slot in part.full)
    return LowRank(
        {s: stacked([(part.factors[s], weights[s]) for part, weights in parts if s in part.factors]) for s in slots},
        full={s: added([(part.full[s], weights[s]) for part, weights in parts if s in part.full]) for s in wide},
    )


def stacked(parts: Sequence[tuple[Factors, float]]) -> Factors:
    """Σ weight · ΔW of one layer, exact: factors side by side, biases added up."""
    check_linear(*(f for f, _ in parts))
    a = torch.cat([f.a.float() for f, _ in parts])
    b = torch.cat([f.b.float() * (f.scale * weight) for f, weight in parts], 1)
    biases = [f.bias.float() * (f.scale * weight) for f, weight in parts if f.bias is not None]
    return Factors(a, b, bias=torch.stack(biases).sum(0) if biases else None, lookup=parts[0][0].lookup)


def check_linear(*factors: Factors) -> None:
    """Raises BadOption if one of them is a DoRA, whose change is not the product of its factors."""
    if any(f.magnitude is not None for f in factors):
        raise BadOption(
            "a DoRA adapter cannot be scaled, compared or added to others in its factors: it rescales the base's own weights, "
            "and such changes have no low-rank sum.",
            "use it by itself, or make a plain adapter of it: skillweave import ADAPTER --materialise RANK",
        )


def check_alike(skills: Mapping[str, LowRank]) -> None:
    """BaseMismatch unless every layer that several of `skills` (by name) change has one shape."""
    seen: dict[str, tuple[str, tuple[int, int]]] = {}
    for name, skill in skills.items():
        for slot, part in ((one, part) for one in skill.slots for part in skill.parts(one)):
            shape = part.shape
            first, there = seen.setdefault(slot, (name, shape))
            if there != shape:
                raise BaseMismatch(
                    f"`{slot}` is {there[0]} x {there[1]} in {first} and {shape[0]} x {shape[1]} in {name}.",
                    "take adapters of one model",
                )
