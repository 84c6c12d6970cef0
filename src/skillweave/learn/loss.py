"""Cross-entropy that never holds more than a few rows of logits.

Only rows that have a label reach the head, and those in chunks: each chunk's gradient with respect to its hidden states is
taken at once and its logits are dropped. Memory is `chunk · vocabulary`, whatever the batch; the work is one product forward
and one back for each labelled row.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..base import Base

CHUNK = 128
"""Rows a chunk: enough to keep the processor's matrix units busy, 64 MiB of bf16 logits at 262,144 columns."""


def cross_entropy(
    base: Base, rows: Float[Tensor, "row width"], labels: Int[Tensor, " row"], chunk: int = CHUNK
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood in nats per token; gradients flow to `rows` (the head is frozen)."""
    return _ChunkedCrossEntropy.apply(rows, labels, base, chunk)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, labels, base, chunk):
        total = rows.new_zeros((), dtype=torch.float32)
        gradient = torch.empty_like(rows) if rows.requires_grad else None
        for start in range(0, len(rows), chunk):
            part, wanted = rows[start : start + chunk].detach(), labels[start : start + chunk]
            with torch.set_grad_enabled(gradient is not None):
                part.requires_grad_(gradient is not None)
                loss = F.cross_entropy(base.logits(part), wanted, reduction="sum")
            total += loss.detach().float()
            if gradient is not None:
                gradient[start : start + chunk] = torch.autograd.grad(loss, part)[0]
        ctx.gradient, ctx.count = gradient, max(len(rows), 1)
        return total / ctx.count

    @staticmethod
    def backward(ctx, up):
        return ctx.gradient * (up / ctx.count).to(ctx.gradient.dtype), None, None, None
