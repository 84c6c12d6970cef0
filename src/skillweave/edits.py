"""The edits of a block whose strengths are not the same for all rows: by sample, by token, or by a router."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Edit, samples_at_hand
from .calibration import Shares
from .delta import Factors, LowRank
from .errors import BadOption
from .kernels import Bucket, Pair, Store, buckets, gathered, inner_kind, lasting, side_by_side, stack, stacked
from .strength import Mix, check_count


@dataclass(eq=False)
class Piece:
    """Some skills at one layer, for one kernel: where their factors come from, and which α goes with which of their ranks."""

    key: tuple
    groups: Sequence[Sequence[int]]
    """Skills by number, for each copy of factors; one group for stacked products."""
    factors: Sequence[Sequence[Factors]]
    bucket: Bucket | None = None
    tensors: Sequence[Tensor] = field(init=False)
    owner: Tensor = field(init=False)
    """(group, rank): the place in the strengths of the skill behind each rank."""
    own: Tensor = field(init=False)
    """(group, rank): that skill's own scale s."""

    def __post_init__(self):
        flat = {id(f): f for group in self.factors for f in group}.values()
        self.tensors = [tensor for f in flat for tensor in (f.a, f.b)]
        pairs = [list(zip(*group, strict=True)) for group in zip(self.groups, self.factors, strict=True)]
        self.owner = torch.tensor([[k for k, f in group for _ in range(f.rank)] for group in pairs])
        self.own = torch.tensor([[f.scale for _, f in group for _ in range(f.rank)] for group in pairs])

    def pair(self, store: Store, kind: torch.dtype) -> Pair:
        """The factors side by side, in the number format `kind`."""
        if self.bucket is None:
            return store.get((*self.key, kind), self.tensors, lambda: stack(self.factors[0], kind))
        return store.get((*self.key, kind), self.tensors, lambda: side_by_side(self.factors, kind))

    def scale(self, alpha: Tensor) -> Tensor:
        """α s for each row and rank, (row, 1, rank), from α (sample, skill)."""
        if self.bucket is None:
            return (alpha.index_select(1, self.owner[0]) * self.own)[:, None]
        rows = torch.arange(len(alpha)) if self.bucket.rows is None else self.bucket.rows
        size = len(rows) // len(self.owner)
        owner, own = self.owner.repeat_interleave(size, 0), self.own.repeat_interleave(size, 0)
        return (alpha[rows[:, None], owner] * own)[:, None]


class BySample:
    """What all layers of a block share whose strengths are a Mix; call it with a layer's name and number to compute it."""

    def __init__(self, mix: Mix, skills: Sequence[LowRank], store: Store, shares: Shares):
        self.mix, self.skills, self.store, self.shares = mix, skills, store, shares
        self._whole = self._now = _Batch(mix)
        self._samples: tuple[int, ...] | None = None

    def __call__(self, slot: str, layer: int, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = F.linear(x, weight, bias)
        now = self._batch(x, slot)
        kind = inner_kind(x.dtype, x.shape[1])
        for piece in now.pieces(slot, self.skills, now.mix.share >= self.shares.at(x.shape[1])):
            a, b = piece.pair(self.store, kind)
            scale = now.scale(piece, slot, layer)
            y = stacked(y, x, a, b, scale) if piece.bucket is None else gathered(y, x, piece.bucket, a, b, scale)
        return y

    def rows(self, slot: str, layer: int) -> Callable[[Tensor], Tensor]:
        """How strong each skill of the bank is for the samples of a batch at one layer: (sample, 1, skill)."""

        def alpha(x: Tensor) -> Tensor:
            mix = self._batch(x, slot).mix
            mine = mix.alpha if mix.alpha.dim() == 2 else mix.alpha[:, :, layer]
            every = mine.new_zeros(len(mine), len(self.skills))
            return every.index_copy(1, torch.tensor(mix.used, dtype=torch.long), mine)[:, None]

        return alpha

    def _batch(self, x: Tensor, slot: str) -> "_Batch":
        samples = samples_at_hand()
        if samples is not self._samples:
            self._samples = samples
            self._now = self._whole if samples is None else _Batch(self._take(samples))
        if x.dim() != 3 or len(x) != len(self._now.mix.active):
            raise BadOption(
                f"strengths for {len(self._now.mix.active)} samples were given, and `{slot}` computes {tuple(x.shape)}.",
                "a batch has to be (sample, time, width), with the samples that the strengths are for",
            )
        return self._now

    def _take(self, samples: tuple[int, ...]) -> Mix:
        if max(samples) >= len(self.mix.active):
            raise BadOption(
                f"strengths for {len(self.mix.active)} samples were given, and this is sample {max(samples)} (from 0).",
                "give a strength to every sample",
            )
        return self.mix.take(samples)


class _Batch:
    """The samples at hand, and what has been worked out for them."""

    def __init__(self, mix: Mix):
        self.mix = mix
        self._buckets: dict[tuple[int, ...], list[Bucket]] = {}
        self._pieces: dict[tuple[str, bool], list[Piece]] = {}
        self._scales: dict[tuple[Piece, int], Tensor] = {}

    def pieces(self, slot: str, skills: Sequence[LowRank], dense: bool) -> list[Piece]:
        found = self._pieces.get((slot, dense))
        if found is None:
            with lasting():
                found = self._pieces[slot, dense] = self._make(slot, skills, dense)
        return found

    def _make(self, slot: str, skills: Sequence[LowRank], dense: bool) -> list[Piece]:
        used = self.mix.used
        here = {place: skills[k].factors[slot] for place, k in enumerate(used) if slot in skills[k].factors}
        if dense or not here:
            return [_stack(slot, used, here)] if here else []
        ranks = tuple(here[place].rank if place in here else 0 for place in range(len(used)))
        if ranks not in self._buckets:
            self._buckets[ranks] = buckets(self.mix.sets, ranks)
        made = []
        for bucket in self._buckets[ranks]:
            key = (slot, "gathered", tuple(tuple(used[place] for place in group) for group in bucket.groups))
            made.append(Piece(key, bucket.groups, [[here[place] for place in group] for group in bucket.groups], bucket))
        return made

    def scale(self, piece: Piece, slot: str, layer: int) -> Tensor:
        alpha = self.mix.alpha if self.mix.alpha.dim() == 2 else self.mix.alpha[:, :, layer]
        if torch.is_grad_enabled() and alpha.requires_grad:
            return piece.scale(alpha)
        found = self._scales.get((piece, layer))
        if found is None:
            with lasting():
                found = self._scales[piece, layer] = piece.scale(alpha)
        return found


def _stack(slot: str, used: Sequence[int], here: dict[int, Factors]) -> Piece:
    """All skills of `here` (place in the strengths -> factors) at one layer, for stacked products."""
    key = (slot, "stacked", tuple(used[place] for place in here))
    return Piece(key, [list(here)], [list(here.values())])


def by_token(alpha: Tensor, skills: Sequence[LowRank], store: Store) -> dict[str, Edit]:
    """Edits of strengths (sample, time, skill)."""
    learning = torch.is_grad_enabled() and alpha.requires_grad
    used = range(len(skills)) if learning else alpha.flatten(0, 1).any(0).nonzero()[:, 0].tolist()

    def edit(piece: Piece, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if samples_at_hand() is not None or x.shape[:-1] != alpha.shape[:-1]:
            raise BadOption(
                f"strengths for {alpha.shape[0]} x {alpha.shape[1]} tokens were given, and a layer computes "
                f"{' x '.join(map(str, x.shape[:-1]))} tokens.",
                "give one strength a token; to generate, use strengths per sample or a router",
            )
        return _add_tokens(x, weight, bias, piece, alpha, store)

    found: dict[str, Edit] = {}
    for slot in dict.fromkeys(slot for k in used for slot in skills[k].factors):
        here = {k: skills[k].factors[slot] for k in used if slot in skills[k].factors}
        found[slot] = partial(edit, _stack(slot, range(len(skills)), here))
    return found


def routed(router: Callable[[Tensor, str], Tensor], skills: Sequence[LowRank], store: Store) -> dict[str, Edit]:
    """Edits whose strengths `router` reads off the input of each layer."""
    pieces: dict[tuple[str, tuple[int, ...]], Piece] = {}

    def edit(slot: str, here: dict[int, Factors], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        alpha = router(rows, slot)
        if alpha.shape[:1] != rows.shape[:1] or alpha.dim() != 2:
            raise BadOption(
                f"the router gave {tuple(alpha.shape)} for {len(rows)} rows of `{slot}`.", "it has to be (row, skill)"
            )
        check_count(alpha.shape[1], len(skills))
        learning = torch.is_grad_enabled() and alpha.requires_grad
        used = here if learning else {k: here[k] for k in alpha.any(0).nonzero()[:, 0].tolist() if k in here}
        if not used:
            return F.linear(x, weight, bias)
        key = (slot, tuple(used))
        if key not in pieces:
            with lasting():
                pieces[key] = _stack(slot, range(len(skills)), used)
        return _add_tokens(x, weight, bias, pieces[key], alpha.view(*x.shape[:-1], -1), store)

    by_slot: dict[str, dict[int, Factors]] = {}
    for k, skill in enumerate(skills):
        for slot, factors in skill.factors.items():
            by_slot.setdefault(slot, {})[k] = factors
    return {slot: partial(edit, slot, here) for slot, here in by_slot.items()}


def by_input(router: Callable[[Tensor, str], Tensor], slot: str) -> Callable[[Tensor], Tensor]:
    """How strong `router` finds each skill for the inputs of a layer: (sample, time, inside) -> (sample, time, skill)."""
    return lambda x: router(x.reshape(-1, x.shape[-1]), slot).view(*x.shape[:-1], -1)


def _add_tokens(x: Tensor, weight: Tensor, bias: Tensor | None, piece: Piece, alpha: Tensor, store: Store) -> Tensor:
    a, b = piece.pair(store, inner_kind(x.dtype, x.shape[-2]))
    return stacked(F.linear(x, weight, bias), x, a, b, alpha[..., piece.owner[0]] * piece.own[0])
