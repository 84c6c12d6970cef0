"""The three ways to add Σ_k α_k s_k B_k A_k x to a layer, by who shares α.

    folded     α the same for all rows:      one pair of products over the skills in use, α between them
    gathered   few skills for each sample:   the factors of each sample's skills side by side, one pair of batched products
    stacked    many skills, or per token:    z = A x over all skills in use, y = W x + B (z ∘ α s)

Gathered products cost what the skills of one sample cost, stacked ones what all skills of the batch cost; but every sample then
reads its own copy of the factors. Samples with the same skills share a copy; samples whose skills have different ranks are
computed in buckets of equal rank, so that no rank is padded. The low-rank part of a few tokens is computed in fp32 whatever the
base computes in: there it costs nothing, and it is rounded once, with the sum.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .delta import Factors

FEW = 16
"""Tokens a sample up to which the low-rank part is computed in fp32; beyond, bf16 products are twice as fast."""


class Folded:
    """The edit of one layer whose skills are as strong for every row."""

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
        return F.linear(x, weight).addmm_(scaled, b.t())

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


@dataclass(frozen=True, eq=False)
class Bucket:
    """Samples whose skills have the same rank together at one layer, in groups that share a copy of the factors."""

    groups: tuple[tuple[int, ...], ...]
    """The skills of each group. Every group has as many rows."""
    rows: Tensor | None
    """The sample behind each row of each group; a group that lacks rows repeats its first. None: all samples in order."""
    real: Tensor | None
    """Which of `rows` are not such repeats; None: all."""
    targets: Tensor | None
    """The samples of `real`."""


def buckets(sets: Sequence[tuple[int, ...]], ranks: Sequence[int]) -> list[Bucket]:
    """Samples by the rank of their skills; `sets` are the skills of each sample, `ranks` the rank of each skill (0: none)."""
    by_rank: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for row, skills in enumerate(sets):
        if here := tuple(k for k in skills if ranks[k]):
            by_rank.setdefault(sum(ranks[k] for k in here), {}).setdefault(here, []).append(row)
    return [_bucket(groups, len(sets)) for groups in by_rank.values()]


def _bucket(groups: dict[tuple[int, ...], list[int]], samples: int) -> Bucket:
    total = sum(map(len, groups.values()))
    size = 1 if total <= 2 * len(groups) else -(-total // len(groups))  # so there are at most twice as many copies as groups
    if size == 1:
        chunks = sorted(((skills, [row]) for skills, rows in groups.items() for row in rows), key=lambda chunk: chunk[1])
    else:
        chunks = [(skills, rows[i : i + size]) for skills, rows in groups.items() for i in range(0, len(rows), size)]
    padded = [row for _, rows in chunks for row in [*rows, *[rows[0]] * (size - len(rows))]]
    skills = tuple(skills for skills, _ in chunks)
    if padded == list(range(samples)):
        return Bucket(skills, None, None, None)
    real = [i * size + j for i, (_, rows) in enumerate(chunks) for j in range(len(rows))]
    rows = torch.tensor(padded)
    return Bucket(skills, rows, None if len(real) == len(padded) else torch.tensor(real), rows[real])


def side_by_side(groups: Sequence[Sequence[Factors]], kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """A (group, inside, rank) and B (group, rank, outside) of groups of equal rank."""
    a = torch.stack([torch.cat([f.a.to(kind) for f in group]) for group in groups])
    b = torch.stack([torch.cat([f.b.t().to(kind) for f in group]) for group in groups])
    return a.transpose(1, 2), b


def stack(factors: Sequence[Factors], kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """A (rank, inside) and B (outside, rank) of all skills together."""
    return torch.cat([f.a.to(kind) for f in factors]), torch.cat([f.b.to(kind) for f in factors], 1)


def gathered(y: Tensor, x: Tensor, bucket: Bucket, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """y plus the low-rank part of one bucket, in place; x (sample, time, inside), scale (row, 1, rank)."""
    some = x if bucket.rows is None else x.index_select(0, bucket.rows)
    mine = y if bucket.rows is None else y.index_select(0, bucket.rows)
    count, (_, time, inside) = len(bucket.groups), some.shape
    z = torch.bmm(some.reshape(count, -1, inside).to(a.dtype), a)
    z = (z.view(-1, time, a.shape[2]) * scale).to(a.dtype).view(z.shape)
    new = mine.view(count, -1, b.shape[2])
    new = new.baddbmm_(z, b) if y.dtype == a.dtype else torch.baddbmm(new.to(a.dtype), z, b).to(y.dtype)
    if bucket.rows is None:
        return new.view(y.shape)
    new = new.view(mine.shape)
    return y.index_copy_(0, bucket.targets, new if bucket.real is None else new.index_select(0, bucket.real))


def stacked(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """y plus the low-rank part of all skills, in place; x (…, inside), scale broadcasts to (…, rank)."""
    z = (F.linear(x.to(a.dtype), a) * scale).to(a.dtype).view(-1, len(a))
    flat = y.view(-1, y.shape[-1])
    flat = flat.addmm_(z, b.t()) if y.dtype == a.dtype else torch.addmm(flat.to(a.dtype), z, b.t()).to(y.dtype)
    return flat.view(y.shape)


def inner_kind(kind: torch.dtype, tokens: int) -> torch.dtype:
    """The number format of the low-rank part on a base that computes in `kind`, for `tokens` a sample."""
    return torch.float32 if kind.itemsize < 4 and tokens <= FEW else kind


@contextmanager
def lasting() -> Iterator[None]:
    """Tensors made inside can be used by every later call: those made in inference mode could not be by one that learns."""
    with torch.inference_mode(False), torch.no_grad():
        yield


Pair = tuple[Tensor, Tensor]


class Store:
    """Copies of factors side by side, kept between calls within `cap` bytes.

    A copy is found by what it was made of, and is as good only while every tensor behind it is the same object in the same
    state: a factor that was written to in place, or another one in its place, makes a new copy. The oldest go first, but never
    for copies of the same block (`turn`): a batch that does not fit would drop each copy just before it is needed again.
    """

    def __init__(self, cap: int):
        self.cap, self.bytes, self.turn = cap, 0, 0
        self._kept: OrderedDict[tuple, tuple[int, Sequence[Tensor], tuple[int, ...], Pair]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0

    def get(self, key: tuple, tensors: Sequence[Tensor], make: Callable[[], Pair]) -> Pair:
        """The copy called `key` of `tensors`: a kept one, or a new one from `make`. One that learns is always new."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return make()
        if found := self._kept.get(key):
            turn, old, before, pair = found
            same = old is tensors or (len(old) == len(tensors) and all(map(_same, old, tensors)))
            if same and before == _state(tensors):
                if turn != self.turn:
                    self._kept[key] = (self.turn, tensors, before, pair)
                    self._kept.move_to_end(key)
                return pair
            self._drop(key)
        if any(tensor.is_inference() for tensor in tensors):  # these do not tell when they are written to
            return make()
        state = _state(tensors)
        with lasting():
            pair = make()
        self._keep(key, (self.turn, tensors, state, pair))
        return pair

    def _keep(self, key: tuple, entry: tuple[int, Sequence[Tensor], tuple[int, ...], Pair]) -> None:
        size = _bytes(entry[3])
        while self._kept and self.bytes + size > self.cap:
            oldest = next(iter(self._kept))
            if self._kept[oldest][0] == self.turn:
                return
            self._drop(oldest)
        if size <= self.cap:
            self._kept[key] = entry
            self.bytes += size

    def _drop(self, key: tuple) -> None:
        self.bytes -= _bytes(self._kept.pop(key)[3])


def _state(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """How often each was written to."""
    return tuple([tensor._version for tensor in tensors])


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other


def _bytes(pair: Pair) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in pair)
