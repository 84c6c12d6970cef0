"""Merging skills whose changes are thinned out first, so that they get in each other's way less.

Every way here works on the true change ΔW = s B A of each layer (not on the factors A and B apart, which is another thing), as
its paper defines it:

    trim         the largest share of the entries stays (over all layers of a skill together, or in each layer)
    drop         a random share stays, divided by that share: DARE (2311.03099)
    magprune     as drop, but in each row the larger are likelier to stay, with probabilities from density - window to density +
                 window, and each is divided by its own: DELLA (2406.11617)
    band         the smallest and the few largest of each layer go: Model Breadcrumbs (2312.06795)

and what is left is summed, or *elected* (TIES, 2306.01708): the sign of each entry is that of the sum of all skills, and the
entry is the mean of those skills that have this sign. KnOTS (2410.19735) does the same in a basis that the skills share: the
column space of [ΔW_1 ΔW_2 …], which the factors B give without any ΔW.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..delta import Factors, LowRank
from ..errors import BadOption
from .merge import Kept, Merged, Merging, cut_dense

Change = Float[Tensor, "outside inside"]
Changes = Callable[[], Iterable[Tensor]]
"""Gives the changes of all layers of a skill, each time it is called."""


@dataclass(frozen=True)
class Thinned(Merging):
    """What all of these share: thin out each change, then make one of what is left."""

    density: float = 0.2
    """Share of the entries that stays, in (0, 1]."""
    elect: ClassVar[bool] = False
    """Whether signs are elected (TIES); else the rest is summed."""
    shared: ClassVar[bool] = False
    """Whether all this happens in the skills' common basis (KnOTS)."""

    def merge(self, skills: Sequence[LowRank], seed: int = 0) -> Merged:
        """One skill from several; without `rank` or `energy` it has the rank of their exact sum."""
        self.check()
        for skill in skills:
            skill.check_factors()
        weights, rank = self.strengths(len(skills)), self.kept
        draw = torch.Generator().manual_seed(seed)
        slots = list(dict.fromkeys(slot for skill in skills for slot in skill.factors))
        bases = {slot: self._basis([s.factors[slot] for s in skills if slot in s.factors]) for slot in slots}
        enough = [self.enough(lambda s=s: (_seen(f, bases[slot]) for slot, f in s.factors.items())) for s in skills]
        factors: dict[str, Factors] = {}
        layers: dict[str, Kept] = {}
        for slot in slots:
            here = [k for k, skill in enumerate(skills) if slot in skill.factors]
            stack = torch.stack([_seen(skills[k].factors[slot], bases[slot]) for k in here])
            for change, k in zip(stack, here, strict=True):
                change.copy_(self.thin(change, enough[k], draw) * weights[k])
            total = elected(stack) if self.elect else stack.sum(0)
            if (basis := bases[slot]) is not None:
                total = basis @ total
            most = sum(skills[k].factors[slot].rank for k in here)
            factors[slot], layers[slot] = cut_dense(total, most if rank is None else rank)
        return Merged(LowRank(factors), layers)

    def check(self) -> None:
        """Raises BadOption when the numbers cannot be."""
        if not 0 < self.density <= 1:
            raise BadOption(f"density is {self.density:g}, but has to be above 0 and at most 1.")

    def enough(self, changes: Changes) -> float | None:
        """The size from which all of a skill's entries stay, if that is how they are chosen."""
        return None

    def thin(self, change: Change, enough: float | None, draw: torch.Generator) -> Change:
        raise NotImplementedError

    def _basis(self, parts: Sequence[Factors]) -> Tensor | None:
        return common_basis(parts) if self.shared else None


@dataclass(frozen=True)
class Magnitude(Thinned):
    """The largest entries of each skill, summed."""

    scope: str = "model"
    """Where they are the largest: `model`, in all layers of a skill together, or `layer`, in each."""

    def check(self) -> None:
        super().check()
        if self.scope not in ("model", "layer"):
            raise BadOption(f"scope is `{self.scope}`, but can only be model or layer.")

    def enough(self, changes: Changes) -> float | None:
        return threshold(changes, self.density) if self.scope == "model" else None

    def thin(self, change: Change, enough: float | None, draw: torch.Generator) -> Change:
        return trim(change, threshold(lambda: [change], self.density) if enough is None else enough)


@dataclass(frozen=True)
class Ties(Magnitude):
    """The largest entries of each skill, signs elected."""

    elect: ClassVar[bool] = True


@dataclass(frozen=True)
class Knots(Ties):
    """TIES in the basis that the skills share."""

    shared: ClassVar[bool] = True


@dataclass(frozen=True)
class Dare(Thinned):
    """Random entries of each skill, rescaled and summed."""

    density: float = 0.5

    def thin(self, change: Change, enough: float | None, draw: torch.Generator) -> Change:
        return drop(change, self.density, draw)


@dataclass(frozen=True)
class DareTies(Dare):
    """Random entries of each skill, rescaled, signs elected."""

    elect: ClassVar[bool] = True


@dataclass(frozen=True)
class Della(Thinned):
    """Random entries of each skill, the larger likelier, rescaled, signs elected."""

    density: float = 0.5
    window: float = 0.1
    """How far the probability to stay goes above and below `density`."""
    elect: ClassVar[bool] = True

    def check(self) -> None:
        super().check()
        most = min(self.density, 1 - self.density)
        if not 0 <= self.window <= most:
            raise BadOption(f"window is {self.window:g}, but at density {self.density:g} it can be at most {most:g}.")

    def thin(self, change: Change, enough: float | None, draw: torch.Generator) -> Change:
        return magprune(change, self.density, self.window, draw)


@dataclass(frozen=True)
class Breadcrumbs(Thinned):
    """Entries of middling size of each layer, summed."""

    density: float = 0.15
    outliers: float = 0.007
    """Share of the largest entries that go."""

    def check(self) -> None:
        super().check()
        if not 0 <= self.outliers <= 1 - self.density:
            raise BadOption(f"outliers is {self.outliers:g}, but density {self.density:g} leaves {1 - self.density:g} to go.")

    def thin(self, change: Change, enough: float | None, draw: torch.Generator) -> Change:
        return band(change, self.density, self.outliers)


def trim(change: Change, enough: float) -> Change:
    """Entries of at least this size."""
    return F.hardshrink(change, float(np.nextafter(np.float32(enough), np.float32(0))))


def drop(change: Change, density: float, draw: torch.Generator) -> Change:
    """A random share of the entries, divided by it: the same change on average."""
    return torch.where(torch.rand(change.shape, generator=draw) < density, change / density, 0.0)


def magprune(change: Change, density: float, window: float, draw: torch.Generator) -> Change:
    """Each row's entries stay with probabilities that rise with their rank in the row, each divided by its own."""
    rank = change.abs().argsort(1).argsort(1)
    keep = density + window * (2 * rank / max(1, change.shape[1] - 1) - 1)
    return torch.where(torch.rand(change.shape, generator=draw) < keep, change / keep, 0.0)


def band(change: Change, density: float, outliers: float) -> Change:
    """The entries whose size is below that of the `outliers` largest, and among the next `density`."""
    size = change.abs()
    low = threshold(lambda: [change], min(1.0, density + outliers))
    kept = torch.where(size >= low, change, 0.0)
    return torch.where(size < threshold(lambda: [change], outliers), kept, 0.0) if outliers > 0 else kept


def elected(stack: Float[Tensor, "skill outside inside"]) -> Change:
    """The mean, entry by entry, of the skills whose sign is that of the sum of all; skills without an entry do not count."""
    sign = stack.sum(0).sign()
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for change in stack:
        size = (change * sign).relu_()  # of those that agree
        total += size
        count += size.sign()
    return total.mul_(sign).div_(count.clamp_(min=1))


def threshold(changes: Changes, density: float) -> float:
    """The size that just the share `density` of all entries of `changes` reach; exact, in two passes that hold one change.

    Positive floats are ordered as their bits are: the first pass counts by the upper half of the bits, the second looks into
    the one bin that matters.
    """
    counts = torch.zeros(1 << 15, dtype=torch.int64)
    for change in changes():
        counts += torch.bincount(_bin(change), minlength=1 << 15)
    wanted = round(density * int(counts.sum()))
    if wanted < 1:
        return float("inf")
    above = counts.flip(0).cumsum(0).flip(0)  # entries in this bin or a higher one
    edge = int((above >= wanted).nonzero()[-1])
    left = wanted - int(above[edge] - counts[edge])
    inside = torch.cat([change.abs().flatten()[_bin(change) == edge] for change in changes()])
    return float(np.partition(inside.numpy(), len(inside) - left)[len(inside) - left])


def _bin(change: Tensor) -> Tensor:
    """The upper half of the bits of each entry's size."""
    return change.abs().flatten().view(torch.int32).bitwise_right_shift_(16)


def common_basis(parts: Sequence[Factors]) -> Float[Tensor, "outside basis"]:
    """Left singular vectors of [ΔW_1 ΔW_2 …]: with the stacked factors B = Q R, those of Q (R diag(s² A Aᵀ) Rᵀ) Qᵀ."""
    q, r = torch.linalg.qr(torch.cat([f.b.double() for f in parts], 1))
    middle = torch.block_diag(*[f.scale**2 * f.a.double() @ f.a.double().t() for f in parts])
    squares, vectors = torch.linalg.eigh(r @ middle @ r.t())
    real = squares > 1e-12 * squares.sum()
    return (q @ vectors[:, real]).float()


def _seen(f: Factors, basis: Tensor | None) -> Tensor:
    """A change, or its coordinates in `basis`."""
    return f.dense() if basis is None else f.scale * (basis.t() @ f.b.float()) @ f.a.float()
