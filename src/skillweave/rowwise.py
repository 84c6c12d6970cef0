"""What no kernel computes where strengths differ between the rows of a batch: DoRA, lora_bias, dense and sparse changes.

A DoRA on a known base is a low-rank part and a gain g of what the layer gave (`fitting.py`). The kernels compute the first; at
strengths α_k that differ by sample, token or router a layer then gives

    y + (W x) ∘ Σ_k α_k (g_k - 1) + Σ_k α_k b_k + Σ_k α_k S_k x

with one more product W x, whatever the number of skills; S_k x costs what the entries of S_k cost, for all rows.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Edit
from .fitting import Fitted
from .products import Product

Rows = Callable[[Tensor], Tensor]
"""input of a layer (sample, time, inside) -> α (sample, time or 1, skill): how strong each skill is for each row."""


def with_gains(edits: dict[str, Edit], skills: Sequence[Fitted], strengths: Callable[[str], Rows]) -> dict[str, Edit]:
    """`edits` of the kernels, and with them the gains, biases and entries of `skills`; `strengths(layer)` says for whom."""
    for slot in dict.fromkeys(slot for skill in skills for slot in (*skill.gain, *skill.bias, *skill.full)):
        gain, bias = (_rows([getattr(skill, part).get(slot) for skill in skills]) for part in ("gain", "bias"))
        full = {k: skill.full[slot] for k, skill in enumerate(skills) if slot in skill.full}
        edits[slot] = Rowwise(edits.get(slot), strengths(slot), gain, bias, full)
    return edits


def _rows(parts: Sequence[Tensor | None]) -> Tensor | None:
    """(skill, outside), zero for a skill that has none; None if no skill has one."""
    some = next((part for part in parts if part is not None), None)
    return None if some is None else torch.stack([torch.zeros_like(some) if part is None else part for part in parts])


class Rowwise:
    """The edit of a layer that skills give a gain, a bias or entries, each as strong as the rows say."""

    def __init__(
        self, kernel: Edit | None, strengths: Rows, gain: Tensor | None, bias: Tensor | None, full: Mapping[int, Product]
    ):
        self.kernel, self.strengths, self.gain, self.bias, self.full = kernel, strengths, gain, bias, full

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = F.linear(x, weight)
        y = (plain if self.kernel is None else self.kernel(x, weight, None)).float()
        alpha = self.strengths(x).float()
        if self.gain is not None:
            y = y + plain.float() * (alpha @ self.gain)
        for k, change in self.full.items():
            if bool(alpha[..., k].any()) or alpha.requires_grad:
                y = y + change(x) * alpha[..., k : k + 1]
        for extra in (bias, None if self.bias is None else alpha @ self.bias):
            y = y if extra is None else y + extra
        return y.to(x.dtype)
