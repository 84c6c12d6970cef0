"""Learning in new layers (ADEPT, paper 49, arXiv:2510.10071): the base stays as it is and grows where it can best be spared.

Which layers: general text (the probe) says what each layer is worth, by how much its loss rises when the layer is left out.
The `copies` layers that it needs least are copied, the copies start silent (`depth`) and learn; nothing else does.

How fast: every `every` steps each tensor of the copies gets a rate of its own, from its importance on the probe,

    I = mean |θ · ∂loss/∂θ|        rate = 2 (I_max - I) / (I_max - I_min) · lr

so that what general text leans on moves slowly. A unit is a tensor, as in the paper's code (the paper has attention, MLP
and norms as units). Two traps. A tensor that is all zeros, or that zeros block from the loss, has no importance to speak of:
it keeps the plain rate; before the first step that is all of them, so the scale begins after `every` steps. And one
outlier would decide the whole scale: importance is cut at the quantiles `trim` and 1 - `trim` first (0: as in the paper).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from ..base import Base
from ..errors import BadOption, NotFound
from ..progress import say
from ..task import Example
from .batches import Batch, Batches
from .depth import Deeper, ends_of, expand, new_weights, nothing, places
from .loop import Group, Log, Plan, Run, train
from .loss import base_loss
from .probe import DOCSTRINGS, Probe, layer_importance, source_of, unit_importance

CHOICES = ("least", "most", "random", "even")


@dataclass(frozen=True)
class Expand:
    """New layers for a new field: copies of the layers that general text needs least learn, everything else stays."""

    steps: int = 200
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 1e-3
    """Largest learning rate before the scale, which makes it 0 to 2 times of that; unitless."""
    copies: int = 2
    """Layers that are copied."""
    choice: str = "least"
    """Which: the `least` or `most` important, `random`, or `even` (the last of each of `copies` blocks, as LLaMA-Pro)."""
    probe: str = DOCSTRINGS
    """General text: `docstrings` (of Python's standard library), a file of examples or a task (their train split)."""
    texts: int = 16
    """Texts of the probe."""
    every: int = 100
    """Steps between two measurements of what general text leans on; 0 for one rate for all."""
    trim: float = 0.1
    """Share of the units at each end that do not stretch the scale; 0 as in the paper."""
    whole_text: bool = False
    """Whether the prompts are learned, too, as plain text."""

    def __post_init__(self):
        if self.choice not in CHOICES:
            raise NotFound("choice", self.choice, CHOICES, hint=f"choose from {', '.join(CHOICES)}")
        if self.copies < 1 or self.texts < 1:
            raise BadOption(f"copies is {self.copies} and texts is {self.texts}, but both have to be at least 1.")
        if not 0 <= self.trim < 0.5:
            raise BadOption(f"trim is {self.trim}, but has to be at least 0 and below 0.5.", "0.1 cuts a tenth at each end")
        if self.probe != DOCSTRINGS:
            source_of(self.probe, 0)

    def fit(
        self,
        base: Base,
        examples: Sequence[Example],
        seed: int,
        run: Run = Run(),
    ) -> tuple[Deeper, Log]:
        """Learn `examples` in new layers of `base`; returns the layers and what happened."""
        growth = self.grow(base, Probe.of(base, self.probe, self.texts, seed), seed)
        say(f"copying layers {', '.join(map(str, growth.layers))} of {base.layers}")
        batches = Batches(base, examples, self.batch, seed, self.whole_text)
        groups, rates = growth.groups(self.lr), growth.rates(self.every, self.trim)
        log = train(growth.loss, groups, batches.at, Plan(self.steps), run, rates=rates)
        return growth.grown(), log

    def grow(self, base: Base, probe: Probe, seed: int) -> "Growth":
        """`base` with silent copies of the layers that `choice` names."""
        if self.copies > base.layers:
            raise BadOption(f"copies is {self.copies}, but `{base.name}` has {base.layers} layers.", "copy fewer")
        importance = layer_importance(base, list(base.stack), probe)
        return Growth(base, choose(importance, self.copies, self.choice, seed), importance, probe)


def choose(importance: Float[Tensor, " layer"], copies: int, choice: str, seed: int) -> tuple[int, ...]:
    """The layers to copy, in their order; of equal ones the first. `seed` is for `random` alone."""
    count = len(importance)
    if choice == "even":
        return tuple((block + 1) * count // copies - 1 for block in range(copies))
    if choice == "random":
        return tuple(sorted(random.Random(f"layers/{seed}").sample(range(count), copies)))
    order = importance.argsort(descending=choice == "most", stable=True)
    return tuple(sorted(order[:copies].tolist()))


class Growth:
    """A base with copies of `layers` that learn: their weights in fp32, whatever the base computes in."""

    def __init__(self, base: Base, layers: tuple[int, ...], importance: Float[Tensor, " layer"], probe: Probe):
        self.layers, self.importance, self.probe = layers, importance, probe
        self.base = expand(base, layers)
        fresh = new_weights(self.base, layers)
        self.weights = {name: weight.detach().float().clone().requires_grad_() for name, weight in fresh.items()}
        self.nothing, self.reach = self._sizes(base)
        self._frame = _Frame(self.base.model)

    def _sizes(self, base: Base) -> tuple[dict[str, float], dict[str, float]]:
        """Where each of our norms says nothing, and how loud those are in the base that are silent here."""
        nothing_at, reach = {}, {}
        names = {id(weight): name for name, weight in self.base.model.named_parameters()}
        for place, layer in zip(places(self.layers), self.layers, strict=True):
            theirs, ends = dict(base.stack[layer].named_modules()), ends_of(self.base.stack[place], base.name)
            for slot, part in self.base.stack[place].named_modules():
                weight = getattr(part, "weight", None)
                if weight is not None and weight.dim() == 1:
                    name = names[id(weight)]
                    nothing_at[name] = nothing(part)
                    if slot in ends:
                        reach[name] = (theirs[slot].weight.float() - nothing_at[name]).abs().mean().item()
        return nothing_at, reach

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Nats per labelled token of `batch`, with gradients for the new weights."""
        cast = {f"model.{name}": weight.to(self.base.dtype) for name, weight in self.weights.items()}
        return functional_call(self._frame, cast, (lambda: base_loss(self.base, batch),))

    def groups(self, lr: float) -> list[Group]:
        """A group a tensor, so that each can have its rate.

        A silent norm has to come back to the gain that it has in the base, 20 to 300 in Gemma: its steps are that much longer.
        """
        return [Group({name: weight}, lr * self.reach.get(name, 1.0)) for name, weight in self.weights.items()]

    def rates(self, every: int, trim: float):
        """What the loop asks before each step: new multiples every `every` steps, by what the probe leans on then."""

        def asked(step: int) -> list[float] | None:
            if not every or not step or step % every:
                return None
            return multiples(unit_importance(self.loss, self.weights, self.probe, self.nothing), trim).tolist()

        return asked

    def grown(self) -> Deeper:
        """The new layers as a skill, in the number format of the base."""
        weights = {name: weight.detach().to(self.base.dtype) for name, weight in self.weights.items()}
        return Deeper(self.layers, weights, tuple(self.importance.tolist()), self.probe.examples)


def multiples(importance: Float[Tensor, " unit"], trim: float) -> Float[Tensor, " unit"]:
    """Each unit's rate as a multiple of the plain one: 0 for the most important, 2 for the least, 1 where there is none."""
    some = importance > 0
    if not some.any():
        return torch.ones_like(importance)
    low, high = (importance[some].quantile(share) for share in (trim, 1 - trim))
    if low == high:
        return torch.ones_like(importance)
    return torch.where(some, 2 * (high - importance.clamp(low, high)) / (high - low), 1.0)


class _Frame(nn.Module):
    """Calls what it is given while functional_call has other weights in the place of the model's."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, compute):
        return compute()
