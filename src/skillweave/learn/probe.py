"""General text that a method looks at and does not learn: what may be changed without harm, and what may not.

layer_importance    how much the loss on the probe rises when a layer is left out (paper 49: by bypass)
unit_importance     mean |θ · ∂loss/∂θ| over the probe, of every tensor (first-order, as paper 49's code has it)
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..base import Base
from ..errors import BadData
from ..measure.text import SHORTEST, documentation_of
from ..task import Example, Task
from ..tasks import load_data, load_task
from .batches import Batch, collate
from .loss import base_loss

DOCSTRINGS = "docstrings"
"""The probe that every installation has: documentation of Python's standard library."""
CHARACTERS = 400
"""Of a docstring, from its beginning."""
ROWS = 8
"""Texts of one batch."""


@dataclass(frozen=True)
class Probe:
    """Batches to look at, and the examples that they are made of where a task or a file gave them."""

    batches: tuple[Batch, ...]
    examples: tuple[Example, ...] = ()

    @staticmethod
    def of(base: Base, source: str, n: int, seed: int) -> "Probe":
        """`n` texts of `source` (`docstrings`, a file of examples, or a task), never of a valid or test split."""
        if source == DOCSTRINGS:
            texts = [text[:CHARACTERS] for text in documentation_of("train") if len(text) >= SHORTEST]
            return Probe.of_texts(base, random.Random(f"probe/{seed}").sample(texts, min(n, len(texts))))
        task = source_of(source, seed)
        size = task.size("train")
        examples = tuple(task.take(n if size is None else min(n, size), "train"))
        if not examples:
            raise BadData(f"the probe {source} has no training examples.", "give a task or file with more examples")
        return Probe(_cut([base.encode_pair(e.prompt, e.completion) for e in examples], base.pad), examples)

    @staticmethod
    def of_texts(base: Base, texts: Sequence[str]) -> "Probe":
        """Every token of `texts`, as far as the window of the base reaches."""
        rows = [base.encode(text, start=True)[: base.window] for text in texts]
        return Probe(_cut([(row, len(row) - 1) for row in rows], base.pad))

    def loss(self, base: Base) -> float:
        """Nats per token of the probe."""
        return self.mean(partial(base_loss, base))

    @torch.no_grad()
    def mean(self, loss: Callable[[Batch], Tensor]) -> float:
        """The mean of a loss per token over all of the probe."""
        count = sum(len(batch.labels) for batch in self.batches)
        return sum(loss(batch).item() * len(batch.labels) for batch in self.batches) / count


def source_of(name: str, seed: int) -> Task:
    """The task or file `name`. Raises NotFound, BadData."""
    return load_data(name, seed) if Path(name).suffix in (".jsonl", ".csv") else load_task(name, seed)


def layer_importance(base: Base, layers: Sequence[nn.Module], probe: Probe) -> Float[Tensor, " layer"]:
    """By how much the loss on `probe` rises, in nats per token, when each of `layers` passes on what it is given."""
    whole = probe.loss(base)
    rises = []
    for layer in layers:
        with bypassed(layer):
            rises.append(probe.loss(base) - whole)
    return torch.tensor(rises)


@contextmanager
def bypassed(layer: nn.Module):
    """Inside the block `layer` passes on what it is given; nothing stays behind, also when the block raises."""

    def pass_on(module, args, kwargs, output):
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    hook = layer.register_forward_hook(pass_on, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def unit_importance(
    loss: Callable[[Batch], Tensor],
    units: Mapping[str, Tensor],
    probe: Probe,
    nothing: Mapping[str, float] = MappingProxyType({}),
) -> Float[Tensor, " unit"]:
    """Of each tensor the mean of |θ| · |∂loss/∂θ|, the slope averaged over the batches of `probe`.

    θ is how far a weight is from 0, or from what `nothing` says of its tensor.
    """
    tensors = list(units.values())
    slopes = [torch.zeros_like(tensor) for tensor in tensors]
    for batch in probe.batches:
        for slope, found in zip(slopes, torch.autograd.grad(loss(batch), tensors), strict=True):
            slope += found.abs() / len(probe.batches)
    sizes = [(tensor.detach() - nothing.get(name, 0.0)).abs() for name, tensor in units.items()]
    return torch.stack([(size * slope).mean() for size, slope in zip(sizes, slopes, strict=True)])


def _cut(pairs: Sequence[tuple[list[int], int]], pad: int) -> tuple[Batch, ...]:
    order = sorted(pairs, key=lambda pair: len(pair[0]))
    return tuple(collate(order[at : at + ROWS], pad) for at in range(0, len(order), ROWS))
