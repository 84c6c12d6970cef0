"""Cross-entropy that never holds more than a tile of logits.

Only rows that have a label reach the head, and the vocabulary passes by in tiles, with the running maximum and sum of an
online softmax (1805.02867) in fp32. The gradient with respect to a row is Σ_v p_v w_v - w_label: its sum runs along in the same
pass, rescaled when the maximum moves. So each tile costs one product forward and at most one back, nothing is computed twice,
and memory is `ROWS · TILE` whatever the batch and the vocabulary.

Two things follow from what training is like. The label comes first, and most tiles then hold nothing of a row that is nearly
certain: their product back is left out. And the label's own term, (p_label - 1) w_label, stays out of the products: in bf16 its
rounding would drown the rest of such a row.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..strength import Strength
from ..task import Example
from .batches import Batch, Batches

ROWS = 256
"""Rows at a time."""
TILE = 8_192
"""Columns of the vocabulary at a time: with `ROWS`, 8 MiB of fp32 logits."""
NOTHING = 2.0**-24
"""A share of a row's probability that fp32 cannot add to it: tiles that hold less have no part in the row's gradient."""


def bank_loss(bank: SkillBank, batch: Batch, alpha: Strength | None = None) -> Float[Tensor, ""]:
    """Nats per labelled token of `batch` with the bank's skills at strength `alpha`."""
    bank.check_head()
    with bank.on(alpha):
        return base_loss(bank.base, batch)


def base_loss(base: Base, batch: Batch) -> Float[Tensor, ""]:
    """Nats per labelled token of `batch`, with whatever skills are on; the head is frozen."""
    return cross_entropy(base, base.hidden(batch.tokens).flatten(0, 1)[batch.rows], batch.labels)


@torch.inference_mode()
def mean_loss(bank: SkillBank, examples: Sequence[Example], alpha: Strength | None = None, size: int = 16) -> float:
    """Nats per labelled token over all of `examples`."""
    batches = Batches(bank.base, sorted(examples, key=lambda e: len(e.prompt)), size, seed=0)
    total = count = 0.0
    for start in range(0, len(batches.pairs), size):
        batch = batches.collate(batches.pairs[start : start + size])
        total += bank_loss(bank, batch, alpha).item() * len(batch.labels)
        count += len(batch.labels)
    return total / count


@torch.inference_mode()
def forced(
    bank: SkillBank, examples: Sequence[Example], alpha: Tensor | None = None, size: int = 64
) -> tuple[list[float], list[float]]:
    """Whether greedy decoding would give each example, end and all (1 or 0), and its nats; read once, nothing is decoded."""
    batches = Batches(bank.base, examples, size, seed=0)
    right: list[float] = []
    nats: list[float] = []
    for start in range(0, len(batches.pairs), size):
        batch = batches.collate(batches.pairs[start : start + size])
        with bank.on(alpha):
            rows = bank.base.hidden(batch.tokens).flatten(0, 1)[batch.rows]
            wrong = _likeliest(bank.base, rows) != batch.labels
            parts = zip(rows.split(ROWS), batch.labels.split(ROWS), strict=True)
            loss = torch.cat([_tiles(bank.base, *part, TILE, False)[0] for part in parts])
        owner, none = batch.rows // batch.tokens.shape[1], torch.zeros(len(batch.tokens))
        right += (none.index_add(0, owner, wrong.float()) == 0).float().tolist()
        nats += none.index_add(0, owner, loss).tolist()
    return right, nats


def _likeliest(base: Base, rows: Float[Tensor, "row width"]) -> Int[Tensor, " row"]:
    """The token of the highest logit for each row; the vocabulary passes by in tiles."""
    parts = []
    for some in rows.split(ROWS):
        tiles = [base.logits(some, slice(at, at + TILE)).max(1) for at in range(0, len(base.head), TILE)]
        first = torch.stack([tile.values for tile in tiles]).argmax(0)
        place = torch.stack([tile.indices for tile in tiles]).gather(0, first[None])[0]
        parts.append(first * TILE + place)
    return torch.cat(parts)


def cross_entropy(
    base: Base, rows: Float[Tensor, "row width"], labels: Int[Tensor, " row"], tile: int = TILE
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood in nats per token; gradients flow to `rows` (the head is frozen)."""
    return _TiledCrossEntropy.apply(rows, labels, base, tile)


def token_nats(
    base: Base, rows: Float[Tensor, "row width"], labels: Int[Tensor, " row"], temperature: float = 1.0, tile: int = TILE
) -> Float[Tensor, " row"]:
    """-log p of each label in nats (fp32), with the logits divided by `temperature`; gradients flow to `rows`."""
    return _TiledNats.apply(rows, labels, base, temperature, tile)


class _TiledNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, labels, base, temperature, tile):
        ctx.gradient = torch.empty_like(rows) if rows.requires_grad else None
        nats = rows.new_zeros(len(rows), dtype=torch.float32)
        for at in range(0, len(rows), ROWS):
            some = slice(at, at + ROWS)
            nats[some], pull = _tiles(base, rows[some], labels[some], tile, ctx.gradient is not None, temperature)
            if ctx.gradient is not None:
                ctx.gradient[some] = pull
        return nats

    @staticmethod
    def backward(ctx, up):
        return (ctx.gradient.float() * up[:, None]).to(ctx.gradient.dtype), None, None, None, None


class _TiledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, labels, base, tile):
        total = rows.new_zeros((), dtype=torch.float32)
        ctx.gradient = torch.empty_like(rows) if rows.requires_grad else None
        for at in range(0, len(rows), ROWS):
            some = slice(at, at + ROWS)
            losses, pull = _tiles(base, rows[some], labels[some], tile, ctx.gradient is not None)
            total += losses.sum()
            if ctx.gradient is not None:
                ctx.gradient[some] = pull / len(rows)
        return total / max(len(rows), 1)

    @staticmethod
    def backward(ctx, up):
        return ctx.gradient * up.to(ctx.gradient.dtype), None, None, None


def _tiles(
    base: Base, rows: Tensor, labels: Tensor, size: int, learning: bool, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Loss of each row, (row,), and its gradient with respect to the row, (row, width): both fp32."""
    own_logit = base.logits(rows, labels).diagonal()[:, None].float()
    wanted = own_logit / temperature  # the likeliest, as soon as a model has learned: so it comes first
    high = wanted  # running maximum of the logits
    mass = torch.ones_like(wanted)  # running Σ exp(logit - high)
    pull = torch.zeros(rows.shape, dtype=torch.float32)  # running Σ exp(logit - high) · d logit / d row, without the label
    for at in range(0, len(base.head), size):
        columns = slice(at, at + size)
        logits = base.logits(rows, columns).float()
        slope = None if base.softcap is None else 1 - (logits / base.softcap) ** 2
        logits = logits if temperature == 1.0 else logits.div_(temperature)
        top = torch.maximum(high, logits.amax(1, keepdim=True))
        fade = (high - top).exp_()
        share = logits.sub_(top).exp_()
        own = ((labels >= at) & (labels < at + size)).nonzero()[:, 0]
        share[own, labels[own] - at] = 0
        here = share.sum(1, keepdim=True)
        mass = mass * fade + here
        high = top
        if learning:
            busy = (here > NOTHING * mass).nonzero()[:, 0]
            share = share[busy] if slope is None else share[busy] * slope[busy]
            pull.mul_(fade).index_add_(0, busy, (share.to(rows.dtype) @ base.head[columns]).float())
    loss = high + mass.log() - wanted
    if learning:
        slope = 1.0 if base.softcap is None else 1 - (own_logit / base.softcap) ** 2
        pull.div_(mass).add_(base.head[labels].float() * torch.expm1(-loss) * slope)
        pull = pull if temperature == 1.0 else pull.div_(temperature)
    return loss[:, 0], pull
