"""Partly learnable projections (Break-for-Make, paper 44, 2403.19456): a LoRA of which half of each factor never moves.

    A = [P | C + D]   (rank, inside)     P, Q: frozen, disjoint rows of one random orthogonal basis of `rank` columns
    B = [Q ; U]       (outside, rank)    D, U: learned, zero at the start; C: where the learned half of A begins
    ΔW = scale · (B A - [Q ; 0] [P | C]) = scale · ([Q ; U] [0 | D] + [0 ; U] [P | C])

The product that is there at the start is taken away exactly: the sum on the right is zero to the last bit as long as D and U
are, and is itself a plain LoRA of twice the rank, so any program that reads one reads this. The side that a skill is learned on
(`down` is D, `up` is U) learns at the full rate and the other one weakly; P, Q and C follow from `basis` alone, so the D of one
skill and the U of another belong together (compose/factors.py). Layers need not be square: halves are rounded down.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..delta import Factors, LowRank
from ..errors import BadOption
from ..task import Example
from .batches import Batch, Batches
from .loop import Group, Log, Plan, Run, train
from .loss import bank_loss
from .precondition import Pair

SIDES = ("down", "up")
"""What a skill is learned on: columns of A, or rows of B."""


@dataclass(frozen=True)
class Halves:
    """One layer of such a skill."""

    start: Float[Tensor, "rank inside"]
    """[P | C]: A as it starts."""
    top: Float[Tensor, "above rank"]
    """Q: the rows of B that never move."""
    down: Float[Tensor, "rank right"]
    """D: what the other columns of A have learned."""
    up: Float[Tensor, "below rank"]
    """U: the other rows of B."""

    def factors(self, scale: float) -> Factors:
        """ΔW as two pairs of plain factors, side by side."""
        still = self.start.new_zeros(len(self.start), self.start.shape[1] - self.down.shape[1])
        a = torch.cat([torch.cat([still, self.down], 1), self.start])
        b = torch.cat([torch.cat([self.top, torch.zeros_like(self.top)], 1), torch.cat([self.up, self.up], 1)])
        return Factors(a, b, scale)

    def without(self, side: str) -> "Halves":
        """The same, where what is learned on `side` gets no gradient."""
        down, up = (half.detach() if name == side else half for name, half in self.sides.items())
        return Halves(self.start, self.top, down, up)

    @property
    def sides(self) -> dict[str, Tensor]:
        """What is learned, by side."""
        return dict(zip(SIDES, (self.down, self.up), strict=True))

    def pair(self) -> Pair:
        """A and B in full, for preconditioning."""
        width = self.start.shape[1] - self.down.shape[1]
        a = torch.cat([self.start[:, :width], self.start[:, width:] + self.down.detach()], 1)
        return Pair(a, torch.cat([self.top, self.up.detach()]), self.down, self.up)


@dataclass(frozen=True)
class PLP:
    """A new skill on one side of partly frozen factors, to be joined with one of the other side (compose --method factors)."""

    side: str = "down"
    """What learns at the full rate: `down`, the factor that reads a layer's input, or `up`, the one that writes its output."""
    steps: int = 100
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 1e-3
    """Largest learning rate of the side, unitless."""
    weak: float = 0.1
    """Learning rate of the other side, as a share of lr."""
    rank: int = 8
    """Columns of the basis; the adapter that is written has twice the rank."""
    scale: float = 2.0
    """LoRA's alpha / rank, unitless."""
    basis: int = 0
    """Seed of what is frozen: skills are joined only if they have the same."""

    def fit(
        self,
        base: Base,
        examples: Sequence[Example],
        seed: int,
        run: Run = Run(),
        others: Sequence[Example] = (),
    ) -> tuple[LowRank, Log]:
        """Learn `examples`, the other side from `others` instead where there are any (the paper's varied exemplars)."""
        if self.side not in SIDES:
            raise BadOption(f"side is `{self.side}`, but can only be down or up.", "--set side=down or --set side=up")
        halves = fresh(base, self.rank, self.basis)
        groups = [Group(learned(halves, side), self.lr * (1 if side == self.side else self.weak)) for side in SIDES]
        batches = Batches(base, examples, self.batch, seed)
        if others:
            loss, at = self._apart(base, halves, batches, Batches(base, others, self.batch, seed))
        else:
            loss, at = (lambda batch: bank_loss(self._bank(base, halves), batch)), batches.at
        log = train(loss, groups, at, Plan(self.steps), run)
        return assembled(halves, self.scale).detach(), log

    def _bank(self, base: Base, halves: Mapping[str, Halves]) -> SkillBank:
        return SkillBank(base, {"new": assembled(halves, self.scale)})

    def _apart(self, base: Base, halves: Mapping[str, Halves], batches: Batches, others: Batches):
        """A loss whose gradient on `side` is that of the examples, on the other that of the others; it counts the first."""
        weak = SIDES[self.side == "down"]
        now: list[Batch] = []

        def at(step: int) -> Batch:
            now[:] = [others.at(step)]
            return batches.at(step)

        def loss(batch: Batch) -> Tensor:
            own = bank_loss(self._bank(base, {slot: h.without(weak) for slot, h in halves.items()}), batch)
            theirs = bank_loss(self._bank(base, {slot: h.without(self.side) for slot, h in halves.items()}), now[0])
            return own + theirs - theirs.detach()

        return loss, at


def fresh(base: Base, rank: int, basis: int) -> dict[str, Halves]:
    """The start for every linear layer of `base`: frozen halves from `basis`, nothing learned. Raises BadOption."""
    draw = torch.Generator().manual_seed(basis)
    halves = {}
    for slot, linear in base.linears.items():
        inside, outside = linear.in_features, linear.out_features
        left, above = inside // 2, outside // 2
        if rank > left + above:
            raise BadOption(f"rank is {rank}, but half of `{slot}` has {left + above} rows and columns.", "lower the rank")
        rows = torch.linalg.qr(torch.randn(left + above, rank, generator=draw, dtype=torch.float64)).Q.float()
        bound = 1 / math.sqrt(inside)  # as a LoRA starts
        begin = torch.empty(rank, inside - left).uniform_(-bound, bound, generator=draw)
        down = torch.zeros(rank, inside - left, requires_grad=True)
        up = torch.zeros(outside - above, rank, requires_grad=True)
        halves[slot] = Halves(torch.cat([rows[:left].t(), begin], 1), rows[left:].clone(), down, up)
    return halves


def learned(halves: Mapping[str, Halves], side: str) -> dict[str, Tensor]:
    """What learns on `side`, by layer."""
    return {f"{slot}.{side}": half.sides[side] for slot, half in halves.items()}


def assembled(halves: Mapping[str, Halves], scale: float) -> LowRank:
    """The skill that `halves` are."""
    return LowRank({slot: half.factors(scale) for slot, half in halves.items()})


def taken_apart(name: str, skill: LowRank) -> dict[str, Halves]:
    """The halves that `skill` was assembled from. Raises BadOption if it was not."""
    found = {slot: _halves(f) for slot, f in skill.factors.items()}
    if odd := [*(slot for slot, half in found.items() if half is None), *skill.full, *skill.replaced]:
        raise BadOption(
            f"`{name}` is not a skill of frozen and learned halves (`{odd[0]}`): its factors cannot be joined with others.",
            "learn it with --method plp, or add it up with --method sum",
        )
    return {slot: half for slot, half in found.items() if half is not None}


def _halves(f: Factors) -> Halves | None:
    """The halves of one layer; None if it has none."""
    rank, left, above = f.rank // 2, f.a.shape[1] // 2, f.b.shape[0] // 2
    if f.rank % 2 or f.tensors.keys() != {"a", "b"} or f.lookup:
        return None
    a, b = f.a.float(), f.b.float()
    half = Halves(a[rank:], b[:above, :rank], a[:rank, left:], b[above:, :rank])
    again = half.factors(1.0)
    return half if torch.equal(a, again.a) and torch.equal(b, again.b) else None
