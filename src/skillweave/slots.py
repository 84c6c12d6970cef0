"""Where skills attach to a model: its linear layers, its table of embeddings, its head.

A slot is a layer under its name. It asks, at each call, whether a skill is active on it; its weights are never written to, and
nothing stays behind when a block ends or a forward raises.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .errors import BadBase

Edit = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(input, weight, bias) -> output: what a skill puts in the place of `input @ weight.T + bias`.

For the embeddings it is (tokens, rows, factor) -> rows, and for the head (rows, weight, bias, tokens) -> logits."""

_EDITS: ContextVar[Mapping[str, Any] | None] = ContextVar("edits", default=None)


_BY_SAMPLE: ContextVar[bool] = ContextVar("by_sample", default=False)
_SAMPLES: ContextVar[tuple[int, ...] | None] = ContextVar("samples", default=None)


@contextmanager
def edited(edits: Mapping[str, Any], by_sample: bool = False) -> Iterator[None]:
    """Inside the block, the layers named by `edits` compute with them; nothing stays behind, also when the block raises.

    `by_sample` says that they compute each sample in its own way: they ask `samples_at_hand`, and share no prefix.
    """
    tokens = _EDITS.set(edits), _BY_SAMPLE.set(by_sample)
    try:
        yield
    finally:
        _EDITS.reset(tokens[0])
        _BY_SAMPLE.reset(tokens[1])


def by_sample() -> bool:
    """Whether each sample is computed in its own way now."""
    return _BY_SAMPLE.get()


def samples_at_hand() -> tuple[int, ...] | None:
    """Which of the caller's samples the rows of the batch are that is computed now; None: all of them, in order."""
    return _SAMPLES.get()


@contextmanager
def at_hand(samples: tuple[int, ...]) -> Iterator[None]:
    """Inside the block, the rows of a batch are these samples of the caller's."""
    token = _SAMPLES.set(samples)
    try:
        yield
    finally:
        _SAMPLES.reset(token)


_ROUNDED: ContextVar[bool] = ContextVar("rounded", default=False)


@contextmanager
def rounded(on: bool = True) -> Iterator[None]:
    """Inside the block, linear layers round what they multiply to bfloat16, there and on the way back; all else stays fp32.

    That is faster where the processor multiplies bfloat16 in hardware. Unlike autocast it leaves attention as it is.
    """
    token = _ROUNDED.set(on)
    try:
        yield
    finally:
        _ROUNDED.reset(token)


def product(x: Tensor, weight: Float[Tensor, "outside inside"], bias: Tensor | None) -> Tensor:
    """What a linear layer computes without a skill."""
    if not _ROUNDED.get():
        return F.linear(x, weight, bias)
    y = F.linear(x.to(torch.bfloat16), weight.to(torch.bfloat16)).to(x.dtype)
    return y if bias is None else y + bias


def edit_of(slot: str):
    """The edit that is active on `slot`, if there is one."""
    edits = _EDITS.get()
    return edits.get(slot) if edits else None


class SkillLinear(nn.Linear):
    """A linear layer that asks, at each call, whether a skill is active on it. Its weights are never written to."""

    slot: str

    @property
    def matrix(self) -> Float[Tensor, "outside inside"]:
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        edit = edit_of(self.slot)
        return product(x, self.weight, self.bias) if edit is None else edit(x, self.weight, self.bias)


class SkillConv1D(nn.Module):
    """The same for the linear layer of GPT-2, which holds its weight as inside x outside."""

    slot: str
    weight: Tensor
    bias: Tensor

    @property
    def in_features(self) -> int:
        return self.weight.shape[0]

    @property
    def out_features(self) -> int:
        return self.weight.shape[1]

    @property
    def matrix(self) -> Float[Tensor, "outside inside"]:
        return self.weight.t()

    def forward(self, x: Tensor) -> Tensor:
        edit = edit_of(self.slot)
        return product(x, self.matrix, self.bias) if edit is None else edit(x, self.matrix, self.bias)


def attach(model: nn.Module, head: nn.Module | None) -> dict[str, SkillLinear | SkillConv1D]:
    """Make every linear layer of `model` but its head a slot; returns them by name."""
    found = {}
    for slot, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            module.__class__ = SkillLinear
        elif type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # of transformers
            module.__class__ = SkillConv1D
        else:
            continue
        module.slot = slot
        found[slot] = module
    return found


def name_in(model: nn.Module, wanted: nn.Module | None) -> str:
    """The name of a module of `model`; empty for one that is not there."""
    return next((slot for slot, module in model.named_modules() if module is wanted), "")


def listen(embeddings: nn.Module, slot: str) -> None:
    """Let skills have their say, once, in what a table of embeddings gives, whatever its class makes of its rows."""
    if hasattr(embeddings, "slot"):  # a copy of a model that listens already
        return
    embeddings.slot = slot  # type: ignore[assignment]

    def say(module, tokens, rows):
        edit = edit_of(slot)
        return rows if edit is None else edit(tokens[0], rows, getattr(module, "embed_scale", 1.0))

    embeddings.register_forward_hook(say)


def stack_of(model: Any, name: str) -> nn.ModuleList:
    """The transformer layers of the model `name`, in their order. Raises BadBase."""
    count = model.config.get_text_config().num_hidden_layers
    found = [part for part in model.base_model.children() if isinstance(part, nn.ModuleList) and len(part) == count]
    if len(found) != 1:
        raise BadBase(f"`{name}` does not keep its {count} layers in one list.", "choose a model such as Gemma or Llama")
    return found[0]
