"""Rows that go on from one prompt: its keys and values are kept once and looked at together.

    out_r = softmax([q_r K_promptᵀ, q_r K_rᵀ] / √size) [V_prompt, V_r]

The first half of each product is one matrix product a prompt for all of its rows, instead of a walk through memory for each.
A model notices nothing: what the memory hands to it as keys answers, in its own way, when attention is asked for.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .memory import Heads, New, Roomy, roomy

ROWS = 4
"""Rows a prompt, on the average, from which on this pays."""


class Owners:
    """Which row goes on from which prompt; what all layers of a memory share."""

    def __init__(self, owner: Int[Tensor, " row"], seen: Bool[Tensor, "prompt time"]):
        self.owner, self.seen = owner, seen
        count = torch.bincount(owner, minlength=len(seen))
        order = owner.argsort(stable=True)
        first = count.cumsum(0) - count
        self.most = int(count.max())
        self.place = torch.empty_like(owner)
        self.place[order] = torch.arange(len(owner)) - first[owner[order]]
        self.hidden = None if bool(seen.all()) else (~seen)[owner][:, None, None]  # (row, 1, 1, time)

    def take(self, rows: Int[Tensor, " some"]) -> "Owners":
        return Owners(self.owner[rows], self.seen)

    def together(self, x: Float[Tensor, "row head query size"]) -> Float[Tensor, "prompt head queries size"]:
        """The queries of the rows of a prompt side by side; zeros where a prompt has fewer rows."""
        _, heads, queries, size = x.shape
        out = x.new_zeros(len(self.seen), self.most, heads, queries, size)
        out[self.owner, self.place] = x
        return out.transpose(1, 2).reshape(len(out), heads, self.most * queries, size)

    def apart(self, x: Float[Tensor, "prompt head queries size"]) -> Float[Tensor, "row head query size"]:
        """What `together` has put together."""
        return x.unflatten(2, (self.most, -1)).transpose(1, 2)[self.owner, self.place]


class Keys(Tensor):
    """The keys of each row's own tokens, which know those of the prompts."""

    prompt: tuple[Heads, Heads]
    owners: Owners
    plain: Heads
    """The same as a plain tensor."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **kwargs)
        assert func.__name__ == "__get__", f"{func.__name__} of keys that are only a part"
        return super().__torch_function__(func, types, args, kwargs)


def _attend(query: Tensor, key: Keys, value: Tensor, attn_mask=None, scale: float | None = None, **options) -> Tensor:
    assert attn_mask is None or bool(attn_mask.all()), "a mask over tokens that are all there"
    keys, values = key.prompt
    owners, own = key.owners, key.plain
    rows, heads, size = query.shape[0], own.shape[1], query.shape[-1]
    q = query.reshape(rows, heads, -1, size) * (size**-0.5 if scale is None else scale)
    before = owners.apart(owners.together(q) @ keys.transpose(2, 3))
    if owners.hidden is not None:
        before = before.masked_fill(owners.hidden, -torch.inf)
    share = torch.cat([before, q @ own.transpose(2, 3)], -1).softmax(-1, dtype=torch.float32).to(query.dtype)
    time = keys.shape[2]
    out = owners.apart(owners.together(share[..., :time]) @ values) + share[..., time:] @ value
    return out.reshape(query.shape)


class Shared(Roomy):
    """A layer's memory of each row's own tokens, and once a prompt what was read before."""

    prompt: tuple[Heads, Heads]
    owners: Owners

    def share(self, owners: Owners, room: int) -> None:
        """Keep what there is as the prompts'; rows begin with nothing of their own, and room for `room` tokens."""
        self.prompt, self.owners = (self.keys, self.values), owners
        wide = [old.new_empty(len(owners.owner), old.shape[1], room, old.shape[-1]) for old in self.prompt]
        self._wide = wide[0], wide[1]
        self._show(len(owners.owner), 0)

    def update(self, key_states: New, value_states: New, *args, **kwargs) -> tuple[Tensor, Tensor]:
        plain, values = super().update(key_states, value_states)
        keys = plain.as_subclass(Keys)
        keys.prompt, keys.owners, keys.plain = self.prompt, self.owners, plain
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.keys.shape[-2] + query_length, 0


class Group:
    """The layers of a memory that rows share."""

    def __init__(self, memory: Any, owners: Owners):
        self.memory, self.owners = memory, owners

    def batch_select_indices(self, rows: Int[Tensor, " row"]) -> None:
        self.owners = self.owners.take(rows)
        self.memory.batch_select_indices(rows)
        for layer in self.memory.layers:
            layer.owners = self.owners


def share(base: Any, memory: Any, owner: Int[Tensor, " row"], seen: Bool[Tensor, "prompt time"], room: int) -> Group | None:
    """Let the rows `owner` share `memory`, or None where that does not pay or is not known how: nothing has changed then."""
    layers = getattr(memory, "layers", [])
    known = layers and all(roomy(layer, room) for layer in layers)
    if not known or len(owner) < ROWS * len(seen) or any(kind != "sdpa" for kind in _attentions(base)):
        return None
    owners = Owners(owner, seen)
    for layer in layers:
        layer.__class__ = Shared
        layer.share(owners, room)
    return Group(memory, owners)


def _attentions(base: Any) -> set[str]:
    return {m.config._attn_implementation for m in base.model.modules() if hasattr(m, "config")}
