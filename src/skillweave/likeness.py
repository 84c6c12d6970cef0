"""How alike changes of weights are: inner products and cosines of every two, across all kinds of change.

Of factors all pairs are taken at once, in the factors of all skills side by side; a pair with a dense or a sparse part is taken
by itself. What is alike by chance is seen beside changes that know nothing: drawn ones of the same length, and permuted ones.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from .delta import Factors, LowRank, check_linear
from .delta_full import Dense


def cosines(skills: Sequence[LowRank]) -> Float[Tensor, "skill skill"]:
    """Cosine between the changes of every two skills, over all weights of the model; 0 where one changes nothing."""
    inner = inners(skills)
    norm = inner.diagonal().clamp(min=0).sqrt()
    return torch.where((norm[:, None] * norm) > 0, inner / (norm[:, None] * norm), 0.0)


def inners(skills: Sequence[LowRank]) -> Float[Tensor, "skill skill"]:
    """⟨ΔW, ΔW'⟩ of every two skills, in fp64: of factors all pairs at once, of other kinds one by one."""
    inner = torch.zeros(len(skills), len(skills), dtype=torch.float64)
    for slot in dict.fromkeys(slot for skill in skills for slot in skill.factors):
        here = [(k, skill.factors[slot]) for k, skill in enumerate(skills) if slot in skill.factors]
        check_linear(*(f for _, f in here))
        a = torch.cat([f.a.float() for _, f in here])  # (ranks, inside)
        b = torch.cat([f.b.float() * f.scale for _, f in here], 1)  # (outside, ranks)
        owner = torch.repeat_interleave(torch.tensor([k for k, _ in here]), torch.tensor([f.rank for _, f in here]))
        product = ((a @ a.t()) * (b.t() @ b)).double()  # (ranks, ranks)
        rows = torch.zeros(len(skills), len(owner), dtype=torch.float64).index_add_(0, owner, product)
        inner += torch.zeros_like(inner).index_add_(1, owner, rows)
    for i, one in enumerate(skills):
        for j, other in enumerate(skills[: i + 1]):
            beside = _beside(one, other)
            inner[i, j] += beside
            inner[j, i] += beside * (i != j)
    return inner


def _beside(one: LowRank, other: LowRank) -> float:
    """⟨ΔW, ΔW'⟩ without that of factors with factors."""
    slots = [slot for slot in one.slots if slot in one.full or slot in other.full]
    pairs = [(part, to) for slot in slots for part in one.parts(slot) for to in other.parts(slot)]
    return float(sum(part.inner(to) for part, to in pairs if not isinstance(part, Factors) or not isinstance(to, Factors)))


def as_long(skill: LowRank, seed: int) -> LowRank:
    """Drawn factors of the same ranks and, in each layer, of the same length as those of `skill`."""
    skill.check_factors()
    draw, factors = torch.Generator().manual_seed(seed), {}
    for slot, f in skill.factors.items():
        new = Factors(torch.randn(f.a.shape, generator=draw), torch.randn(f.b.shape, generator=draw))
        factors[slot] = replace(new, scale=(f.inner(f) / new.inner(new)) ** 0.5)
    return LowRank(factors)


def permuted(skill: LowRank, seed: int) -> LowRank:
    """The entries of each layer's change in another order."""
    draw, full = torch.Generator().manual_seed(seed), {}
    for slot in skill.slots:
        values = skill.dense(slot)
        full[slot] = Dense(values.flatten()[torch.randperm(values.numel(), generator=draw)].view(values.shape))
    return LowRank({}, full=full)
