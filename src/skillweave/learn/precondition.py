"""Riemannian preconditioning of a low-rank change (2402.02347): gradients that do not depend on how ΔW is split into factors.

    grad_A ← (Bᵀ B + ε I)⁻¹ grad_A,    grad_B ← grad_B (A Aᵀ + ε I)⁻¹        for ΔW = scale · B A

Two matrices of rank x rank a layer, made anew from the factors at each step and applied before AdamW takes its moments, as the
paper has it. Some columns of A, or rows of B, may be all that learns: the products are over whole factors all the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..delta import LowRank

EPSILON = 1e-6
"""ε, unitless: what keeps the inverse finite while a factor is zero."""


@dataclass(frozen=True)
class Pair:
    """The two factors of a layer as they are now, and what of them learns: the tensors whose gradients are changed."""

    a: Tensor
    b: Tensor
    learned_a: Tensor
    """Some columns of A, (rank, column); A itself where all of it learns."""
    learned_b: Tensor
    """Some rows of B, (row, rank)."""


def precondition(pairs: Sequence[Pair], epsilon: float = EPSILON) -> None:
    """Change the gradients of what learns in `pairs`, in place; one that has no gradient is left alone."""
    for pair in pairs:
        a, b = pair.a.detach().double(), pair.b.detach().double()
        for learned, gram in ((pair.learned_a, b.t() @ b), (pair.learned_b, a @ a.t())):
            if learned.grad is None:
                continue
            gram.diagonal().add_(epsilon)
            columns = learned is pair.learned_a
            grad = learned.grad.double() if columns else learned.grad.double().t()
            solved = torch.linalg.solve(gram, grad)
            learned.grad.copy_(solved if columns else solved.t())


def whole(*skills: LowRank) -> Callable[[], None]:
    """What `train` calls before each step of AdamW, for skills whose factors learn as a whole."""
    return lambda: precondition([Pair(f.a, f.b, f.a, f.b) for skill in skills for f in skill.factors.values()])
