"""SkillBank: many low-rank skills attached to one frozen Base.

    y = W x + Σ_k α_k · s_k · B_k A_k x

α is given at call time and differentiable. Here it is constant over a batch, one number for each skill and layer; all active
skills of a layer are stacked, so that a layer costs one pair of small products however many skills are on. The base weights
are never written to, and nothing stays behind when the block ends or a forward raises.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .base import Base, Edit, edited
from .delta import LowRank
from .errors import BaseMismatch


class SkillBank:
    """The skills `skills` (name -> factors) on `base`."""

    def __init__(self, base: Base, skills: Mapping[str, LowRank]):
        self.base, self.skills = base, dict(skills)
        for name, skill in self.skills.items():
            _check_fit(base, name, skill)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.skills)

    def ones(self) -> Float[Tensor, "skill layer"]:
        """α of one everywhere: every skill as strong as it was trained."""
        return torch.ones(len(self.skills), self.base.layers)

    @contextmanager
    def on(self, alpha: Float[Tensor, "skill layer"] | None = None) -> Iterator[None]:
        """Inside the block the base computes with the skills, each as strong as `alpha` says (default: one)."""
        alpha = self.ones() if alpha is None else alpha
        with edited(self._edits(alpha)):
            yield

    def _edits(self, alpha: Tensor) -> dict[str, Edit]:
        learning = torch.is_grad_enabled() and (
            alpha.requires_grad or any(t.requires_grad for s in self.skills.values() for t in s.tensors().values())
        )
        used = [k for k in range(len(self.skills)) if learning or bool(alpha[k].any())]
        skills, kind = list(self.skills.values()), self.base.dtype
        edits: dict[str, Edit] = {}
        for slot in dict.fromkeys(slot for k in used for slot in skills[k].factors):
            here = [(k, skills[k].factors[slot]) for k in used if slot in skills[k].factors]
            layer = self.base.layer_of(slot)
            a = torch.cat([f.a.to(kind) for _, f in here])  # (rank, in)
            b = torch.cat([f.b.to(kind) for _, f in here], 1)  # (out, rank)
            scale = torch.cat([(alpha[k, layer] * f.scale).expand(f.rank) for k, f in here])  # (rank,)
            edits[slot] = _Stacked(a, b, scale)
        return edits


class _Stacked:
    """The edit of one layer: all its active skills in one pair of products."""

    __slots__ = ("a", "b", "scale")

    def __init__(self, a: Tensor, b: Tensor, scale: Tensor):
        self.a, self.b, self.scale = a, b, scale

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = _LowRankLinear.apply(x.reshape(-1, x.shape[-1]), weight, self.a, self.b, self.scale)
        y = y if bias is None else y + bias
        return y.view(*x.shape[:-1], -1)


class _LowRankLinear(torch.autograd.Function):
    """y = x Wᵀ + ((x Aᵀ) ∘ scale) Bᵀ, with only the gradients that are asked for; the weight W is frozen."""

    @staticmethod
    def forward(ctx, x, weight, a, b, scale):
        z = F.linear(x, a)  # (row, rank)
        scaled = z * scale.to(z.dtype)
        ctx.save_for_backward(x, weight, a, b, scale, z)
        return torch.addmm(F.linear(x, weight), scaled, b.t())

    @staticmethod
    def backward(ctx, dy):
        x, weight, a, b, scale, z = ctx.saved_tensors
        need_x, _, need_a, need_b, need_scale = ctx.needs_input_grad
        factor = scale.to(z.dtype)
        g = dy @ b  # (row, rank): gradient of z ∘ scale
        dx = torch.addmm(dy @ weight, g * factor, a) if need_x else None
        da = (g * factor).t() @ x if need_a else None
        db = dy.t() @ (z * factor) if need_b else None
        ds = (g.float() * z.float()).sum(0) if need_scale else None
        return dx, None, da, db, ds


def _check_fit(base: Base, name: str, skill: LowRank) -> None:
    for slot, f in skill.factors.items():
        linear = base.linears.get(slot)
        if linear is None:
            raise BaseMismatch(f"skill `{name}` changes the layer `{slot}`, which {base.name} does not have.")
        if (f.b.shape[0], f.a.shape[1]) != (linear.out_features, linear.in_features):
            raise BaseMismatch(
                f"skill `{name}` has a change of {f.b.shape[0]} x {f.a.shape[1]} for `{slot}`, which is "
                f"{linear.out_features} x {linear.in_features} in {base.name}."
            )
