"""The key-value memory of many rows that end at different times, with room for what is still to come.

Caches of transformers grow by copying themselves, at each token and each row that leaves. Here a token is written where it
belongs, and a row that leaves is overwritten. A layer that forgets (a sliding window) does so only if it gets to slide;
kinds of memory that are not known here stay as they are.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

Heads = Float[Tensor, "row head time size"]
New = Float[Tensor, "row head new size"]


class Roomy(DynamicLayer):
    """Keys and values at the front of tensors that are large enough."""

    keys: Heads
    values: Heads
    _wide: tuple[Heads, Heads]

    def update(self, key_states: New, value_states: New, *args, **kwargs) -> tuple[Heads, Heads]:
        rows, start = key_states.shape[0], self.keys.shape[-2]
        stop = start + key_states.shape[-2]
        for wide, new in zip(self._wide, (key_states, value_states), strict=True):
            wide[:rows, :, start:stop] = new
        self._show(rows, stop)
        return self.keys, self.values

    def batch_select_indices(self, indices: Int[Tensor, " row"]) -> None:
        """Only these rows: each stays in its place, or comes from behind all places that are left."""
        moved = (indices != torch.arange(len(indices))).nonzero()[:, 0]
        time = self.keys.shape[-2]
        for wide in self._wide:
            wide[moved, :, :time] = wide[indices[moved], :, :time]
        self._show(len(indices), time)

    def widen(self, owner: Int[Tensor, " copy"], room: int) -> None:
        """The memory of row i becomes that of row `owner[i]`, with room for `room` more tokens."""
        time = self.keys.shape[-2]
        self._wide = _wide(self.keys, owner, room), _wide(self.values, owner, room)
        self._show(len(owner), time)

    def _show(self, rows: int, time: int) -> None:
        self.keys, self.values = (wide[:rows, :, :time] for wide in self._wide)


def _wide(old: Heads, owner: Int[Tensor, " copy"], room: int) -> Tensor:
    _, heads, time, size = old.shape
    new = old.new_empty(len(owner), heads, time + room, size)
    new[:, :, :time] = old[owner]
    return new


class RoomyWindow(Roomy, DynamicSlidingWindowLayer):
    """The same for a layer that would forget, as long as it has nothing to forget."""

    def update(self, key_states: New, value_states: New, *args, **kwargs) -> tuple[Heads, Heads]:
        self.cumulative_length += key_states.shape[-2]
        return super().update(key_states, value_states)


def widen(memory: Any, owner: Int[Tensor, " copy"], room: int) -> None:
    """Give row i of `memory` what row `owner[i]` had, and room for `room` more tokens where that can be had."""
    if not isinstance(memory, Cache):
        memory.batch_select_indices(owner)
        return
    for layer in memory.layers:
        kind = roomy(layer, room)
        if kind is None:
            layer.batch_select_indices(owner)  # type: ignore[union-attr]
        else:
            layer.__class__ = kind
            layer.widen(owner, room)  # type: ignore[union-attr]


def roomy(layer: Any, room: int) -> type[Roomy] | None:
    """The class that gives this layer of a memory room for `room` more tokens; None for kinds that are not known here."""
    if type(layer) is DynamicSlidingWindowLayer:
        return RoomyWindow if layer.cumulative_length + room < layer.sliding_window else None
    return Roomy if type(layer) is DynamicLayer else None
