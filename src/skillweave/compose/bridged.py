"""One base made of two: a frozen anchor that answers, and a frozen augmenting model that it looks into (CALM, 2401.02412).

Both read the same tokens. H_A is what the augmenting model has after i layers, H_B what the anchor of width d has after j:

    P    = rms(H_A) W_project
    H_B <- H_B + [softmax(Q_h K_hᵀ / √(d / heads)) V_h]_h W_out,   Q = rms(H_B) W_query,  K = P W_key,  V = P W_value

A token looks at what the augmenting model made of itself and of the tokens before it, padding left out. W_out starts at zero,
so that a new bridge changes no bit of the anchor. rms(x) = x / √mean(x²) is not in the paper: hidden states of different
models, and of different depths, differ in size by orders of magnitude, and one learning rate has to do for all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from threading import get_ident
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..bank import SkillBank
from ..base import Base
from ..characters import CharTokenizer
from ..errors import BadOption, BaseMismatch
from ..files import sha256_json

Seen = tuple[Float[Tensor, "batch head _ size"], Float[Tensor, "batch head _ size"]]
"""Keys and values: what the anchor can look at."""


@dataclass(frozen=True)
class Weights:
    """The trained matrices of one bridge, each as (outside, inside)."""

    project: Float[Tensor, "width augmenting"]
    query: Float[Tensor, "width width"]
    key: Float[Tensor, "width width"]
    value: Float[Tensor, "width width"]
    out: Float[Tensor, "width width"]

    @staticmethod
    def fresh(width: int, augmenting: int, draw: torch.Generator) -> "Weights":
        """Drawn at random, but for `out`, which is zero."""

        def normal(inside: int) -> Tensor:
            return torch.randn(width, inside, generator=draw) / inside**0.5

        return Weights(normal(augmenting), normal(width), normal(width), normal(width), torch.zeros(width, width))

    def tensors(self) -> dict[str, Tensor]:
        return {part.name: getattr(self, part.name) for part in fields(self)}


@dataclass(frozen=True)
class Crossing:
    """One bridge: from the augmenting model after some of its layers into the anchor after some of its own."""

    anchor: int
    """Layers of the anchor that come before it."""
    augment: int
    heads: int
    weights: Weights

    def look(self, states: Float[Tensor, "batch time augmenting"], before: Seen | None) -> Seen:
        """What the augmenting model has just read, after what it had read before."""
        projected = F.linear(rms(states), self.weights.project)
        found = [self._split(F.linear(projected, weight)) for weight in (self.weights.key, self.weights.value)]
        key, value = found if before is None else [torch.cat(pair, 2) for pair in zip(before, found, strict=True)]
        return key, value

    def cross(
        self, hidden: Float[Tensor, "batch time width"], seen: Seen, visible: Bool[Tensor, "some 1 time _"]
    ) -> Float[Tensor, "batch time width"]:
        """The anchor's hidden states with what they find in `seen`."""
        query = self._split(F.linear(rms(hidden), self.weights.query))
        found = F.scaled_dot_product_attention(query, *seen, attn_mask=visible)
        return hidden + F.linear(found.transpose(1, 2).flatten(2), self.weights.out).to(hidden.dtype)

    def _split(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch head time size"]:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


@dataclass
class Memory:
    """What a bridged base has read: the key-value memory of each model, and what the anchor can look at in the other."""

    anchor: Any = None
    augment: Any = None
    seen: list[Seen] = field(default_factory=list)
    """One a bridge."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times, as caches of transformers do it."""
        self.anchor.batch_repeat_interleave(repeats)
        self.augment.batch_repeat_interleave(repeats)
        self.seen = [(k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)) for k, v in self.seen]

    def batch_select_indices(self, rows: Int[Tensor, " row"]) -> None:
        """Only these rows, as caches of transformers do it."""
        self.anchor.batch_select_indices(rows)
        self.augment.batch_select_indices(rows)
        self.seen = [(key[rows], value[rows]) for key, value in self.seen]


class BridgedBase(Base):
    """`anchor`, its head, tokens and slots, and between its layers what `crossings` bring over from `augment`.

    The skills of the bank `augment` are on in the augmenting model. Those of a bank on this base are on in the anchor.
    """

    def __init__(self, anchor: Base, augment: SkillBank, crossings: Sequence[Crossing]):
        check_tokens(anchor, augment.base)
        vars(self).update(vars(anchor))
        self.anchor, self.augment, self.crossings = anchor, augment, tuple(crossings)
        self.name = f"{anchor.name} bridged to {augment.base.name}"
        self.digest = sha256_json(["bridged", anchor.digest, augment.base.digest])
        self.window = min(anchor.window, augment.base.window)

    def hidden(
        self, tokens: Int[Tensor, "batch time"], mask: Tensor | None = None, **options
    ) -> Float[Tensor, "batch time width"]:
        _, seen = self._look(partial(self.augment.base.hidden, tokens, mask, **options), [])
        with self._crossed(seen, tokens.shape[1], mask):
            return self.anchor.hidden(tokens, mask, **options)

    def read(
        self, tokens: Int[Tensor, "batch time"], mask: Tensor | None = None, position: Tensor | None = None, memory=None
    ) -> tuple[Float[Tensor, "batch time width"], Any]:
        memory = memory or Memory()
        (_, theirs), seen = self._look(partial(self.augment.base.read, tokens, mask, position, memory.augment), memory.seen)
        with self._crossed(seen, tokens.shape[1], mask):
            hidden, own = self.anchor.read(tokens, mask, position, memory.anchor)
        return hidden, Memory(own, theirs, seen)

    def _look(self, read: Callable[[], Any], before: Sequence[Seen]) -> tuple[Any, list[Seen]]:
        """Let the augmenting model read; what it answers, and what can be seen in it, all that was before included."""
        states: dict[int, Tensor] = {}
        hooks = {c.augment: partial(states.__setitem__, c.augment) for c in self.crossings}
        with torch.no_grad(), self.augment.on(), hooked(self.augment.base, hooks):
            answer = read()
        past: Sequence[Seen | None] = before or [None] * len(self.crossings)
        return answer, [c.look(states[c.augment], old) for c, old in zip(self.crossings, past, strict=True)]

    def _crossed(self, seen: Sequence[Seen], new: int, mask: Tensor | None):
        """A block in which the anchor, reading `new` tokens, looks at `seen`."""
        visible = look_back(new, seen[0][0].shape[2], mask)
        return hooked(
            self.anchor,
            {c.anchor: lambda h, c=c, s=s: c.cross(h, s, visible) for c, s in zip(self.crossings, seen, strict=True)},
        )


def crossings(anchor: Base, augment: Base, every: int = 4, heads: int = 0, seed: int = 0) -> list[Crossing]:
    """New bridges after every `every`-th layer of the anchor (after the last, if it has fewer), evenly spaced in both models.

    `heads` 0 is as many as the anchor's attention has.
    """
    check_tokens(anchor, augment)
    if every < 1:
        raise BadOption(f"every is {every}, but has to be at least 1.", "1 puts a bridge after each layer of the anchor")
    width, other = anchor.table.shape[1], augment.table.shape[1]
    config: Any = anchor.model.config
    heads = heads or config.get_text_config().num_attention_heads
    if width % heads:
        raise BadOption(f"{heads} heads do not divide the width of {anchor.name}, {width}.", "choose another number of heads")
    draw = torch.Generator().manual_seed(seed)
    depths = list(range(every, anchor.layers + 1, every)) or [anchor.layers]
    return [
        Crossing(depth, max(1, round(depth * augment.layers / anchor.layers)), heads, Weights.fresh(width, other, draw))
        for depth in depths
    ]


def check_tokens(anchor: Base, augment: Base) -> None:
    """Raises BaseMismatch unless both read every text as the same tokens."""
    a, b = anchor.tokenizer, augment.tokenizer
    if a is b:
        return
    ends = [(len(t), t.bos_token_id, t.eos_token_id, t.pad_token_id) for t in (a, b)]
    characters = next((t.alphabet for t in (a, b) if isinstance(t, CharTokenizer)), None)
    one, other = (
        (_tokens_of(a), _tokens_of(b)) if characters is None else (anchor.encode(characters), augment.encode(characters))
    )
    if one != other or ends[0] != ends[1]:
        raise BaseMismatch(
            f"{anchor.name} and {augment.name} cut text into different tokens ({ends[0][0]:,} and {ends[1][0]:,} kinds), "
            "and a bridge needs the same.",
            "join bases that share a tokenizer",
        )


def _tokens_of(tokenizer) -> Any:
    """All that decides which tokens a tokenizer makes."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    return fast.to_str() if fast is not None else tokenizer.get_vocab()


def rms(x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Rows of a mean square of one, in fp32."""
    return F.rms_norm(x.float(), x.shape[-1:], eps=1e-6)


def look_back(new: int, total: int, mask: Tensor | None) -> Bool[Tensor, "some 1 new total"]:
    """Where each of the last `new` of `total` positions may look: at itself, and at what is before it and real by `mask`."""
    at = torch.arange(total)
    itself = at[total - new :, None] == at
    before = at[total - new :, None] >= at
    if mask is None:
        return before[None, None]
    return (before & mask[:, None, None].bool()) | itself  # padding looks at itself: a softmax needs something to look at


@contextmanager
def hooked(base: Base, hooks: Mapping[int, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
    """Inside the block, hooks see the hidden states after so many layers of `base`, and may put others in their place.

    They are for this thread alone, and gone when the block ends or raises.
    """
    layers, thread = base.stack, get_ident()

    def call(hook: Callable, module: nn.Module, given: Any, output: Any) -> Any:
        if get_ident() != thread:
            return output
        hidden, *rest = output if isinstance(output, tuple) else (output,)
        new = hook(hidden)
        new = hidden if new is None else new
        return (new, *rest) if isinstance(output, tuple) else new

    handles = []
    try:
        for depth, hook in hooks.items():
            handles.append(layers[depth - 1].register_forward_hook(partial(call, hook)))
        yield
    finally:
        for handle in handles:
            handle.remove()
