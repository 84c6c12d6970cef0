"""Grafting (paper 40, 2302.06600): the fewest weights of a skill that keep what it can do, copied onto the base.

    θ = θ_base + γ ∘ Δ,   γ = γ₀ + (1 - 2 γ₀) ∘ σ(S - b),   S ~ U[0, 1), b = 10

Δ is the skill's whole change of the weights: for a LoRA the product of its factors (a mask on the factors would be another
thing), for a full fine-tune all of it. γ₀ marks the `size` largest entries of |Δ| over all layers together. Only S learns, by
plain gradient steps on the loss of the examples,

    S <- S - lr · (∂L/∂θ ∘ Δ) ∘ (1 - 2 γ₀) ∘ σ'(S - b)

whose rate is huge because σ' starts near 5e-5: an entry passes when its ∂L/∂θ · Δ is large, step after step (AdamW would make
all of them equal). After each step γ is rounded to zeros and ones, the *rounded* graft answers the examples, and the best one
is kept. Embeddings and head stay the base's.

In the paper only the base patch has the size that is asked for, and the mask may outgrow it. Here it may not: of more entries
than `size` those with the largest γ stay, and S of the others starts over. The validation set is the share `valid` of the
examples, which S never sees.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..composition import Composition
from ..delta import LowRank
from ..delta_full import Dense
from ..errors import BadOption
from ..learn.batches import Batches
from ..learn.loop import Group, Log, Plan, Run, train
from ..learn.loss import bank_loss, forced
from ..progress import say
from ..task import Example
from .thin import threshold

BIAS = 10.0
"""b of the paper: S starts ten below the middle of the sigmoid."""
AGAIN = -9.5
"""The logit of γ, outside the mask, from which S starts over."""

Masks = Mapping[str, Bool[Tensor, "outside inside"]]
"""Which entries of each layer are in a graft."""


@dataclass(frozen=True)
class Graft:
    """The fewest weights of one skill that keep what it can do."""

    size: float = 0.1
    """Share of the weights of the base's linear layers that the graft may change, in (0, 1]."""
    steps: int = 20
    """Steps of the mask; each reads `batch` examples."""
    batch: int = 64
    """Examples a step."""
    lr: float = 1e7
    """Rate of the mask's plain gradient steps, unitless."""
    valid: float = 0.25
    """Share of the examples that only choose between the masks, in [0, 1)."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Composition, Log]:
        """The graft of the one skill in `skills`, as a composition of nothing but its sparse change."""
        if len(skills) != 1:
            raise BadOption(f"graft takes one skill, and {len(skills)} were named.", "graft each, then compose them with sum")
        if not 0 <= self.valid < 1:
            raise BadOption(f"valid is {self.valid:g}, but has to be at least 0 and below 1.")
        (skill,) = skills.values()
        count = entries(base, skill, self.size)
        kept = min(round(self.valid * len(examples)), len(examples) - 1)
        some, rest = (examples[: len(examples) - kept], examples[len(examples) - kept :])
        masks, log = learn_mask(
            base, skill, count, some, rest, steps=self.steps, batch=self.batch, lr=self.lr, seed=seed,
            run=run,
        )  # fmt: skip
        graft = cut(skill, masks)
        held = graft.parameters
        say(f"the graft holds {held:,} of {weights(base):,} weights ({held / weights(base):.2%}) in {len(graft.full)} layers")
        return Composition.of(graft, base), log

    def strengths(self, count: int) -> list[float]:
        """What the one skill goes in with."""
        return [1.0] * count


def weights(base: Base) -> int:
    """How many weights the base's linear layers hold."""
    return sum(linear.matrix.numel() for linear in base.linears.values())


def entries(base: Base, skill: LowRank, size: float) -> int:
    """How many weights the share `size` of the base is. Raises BadOption where there is nothing to choose from."""
    skill.check_plain()
    if not 0 < size <= 1:
        raise BadOption(f"size is {size:g}, but has to be above 0 and at most 1.", "0.001 keeps a weight in a thousand")
    count = round(size * weights(base))
    if not count:
        raise BadOption(f"size {size:g} of {weights(base):,} weights is less than one.", "choose a larger --set size")
    return count


@torch.no_grad()
def cut(skill: LowRank, masks: Masks) -> LowRank:
    """What `masks` leave of the change: sparse, without the layers of which nothing is left."""
    return skill.masked({slot: mask.flatten().nonzero()[:, 0] for slot, mask in masks.items() if mask.any()})


def top(skill: LowRank, count: int) -> Masks:
    """The `count` largest entries of |Δ| over all layers together; those that are zero are never among them."""
    return largest(lambda: ((slot, skill.dense(slot).abs()) for slot in skill.slots), count)


def drawn(skill: LowRank, count: int, seed: int) -> Masks:
    """`count` entries of the layers that the skill changes, drawn from `seed`: the control."""
    draw = torch.Generator().manual_seed(seed)
    values = {slot: torch.rand(skill.parts(slot)[0].shape, generator=draw) + 1 for slot in skill.slots}
    return largest(lambda: values.items(), count)


@torch.no_grad()
def largest(values: Callable, count: int) -> Masks:
    """The `count` largest of some values that are not negative, given as (layer, values) each time it is called.

    Zeros are left out; of equal ones at the edge those that come first are taken.
    """
    total = sum(value.numel() for _, value in values())
    edge = threshold(lambda: (value for _, value in values()), min(1.0, count / total))
    left = count - sum(int((value > edge).sum()) for _, value in values())
    masks = {}
    for slot, value in values():
        mask, equal = value > edge, (value == edge) & (value > 0)
        if left > 0 and (ties := int(equal.sum())):
            mask |= equal & (equal.flatten().cumsum(0).view(equal.shape) <= left)
            left -= min(left, ties)
        masks[slot] = mask
    return masks


def learn_mask(
    base: Base,
    skill: LowRank,
    count: int,
    examples: Sequence[Example],
    valid: Sequence[Example],
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    run: Run = Run(),
) -> tuple[Masks, Log]:
    """The best rounded mask of at most `count` entries, and what happened.

    The mask learns from `examples`; which one is the best is decided by the right answers on these and, as much, on `valid`,
    and where they are equal by the nats. The base patch γ₀ itself is the first candidate.
    """
    patch = top(skill, count)
    draw = torch.Generator().manual_seed(seed)
    scores = {s: torch.rand(mask.shape, generator=draw).requires_grad_() for s, mask in patch.items()}
    best = {f"{slot}.best": mask.clone() for slot, mask in patch.items()}
    found = _quality(base, cut(skill, patch), examples, valid)

    def loss(part):
        grafted = {s: Dense(_Grafted.apply(scores[s], mask, skill, s, base.dtype)) for s, mask in patch.items()}
        return bank_loss(SkillBank(base, {"graft": LowRank({}, full=grafted)}), part)

    def after():
        masks = rounded({slot: value.detach() for slot, value in scores.items()}, patch, count)
        now = _quality(base, cut(skill, masks), examples, valid)
        if now.tolist() > found.tolist():
            found.copy_(now)
            for slot, mask in masks.items():
                best[f"{slot}.best"].copy_(mask)

    groups = [Group({f"{slot}.score": value for slot, value in scores.items()}, lr), Group(best | {"found": found}, 0.0)]
    plan = Plan(steps, clip=float("inf"), optimiser="sgd", steady=True)
    log = train(loss, groups, Batches(base, examples, batch, seed).at, plan, run, after=after)
    return {slot: best[f"{slot}.best"] for slot in patch}, log


def rounded(scores: Mapping[str, Float[Tensor, "outside inside"]], patch: Masks, count: int) -> Masks:
    """γ rounded to zeros and ones, at most `count` ones: those of the largest γ; what is cut off starts over in `scores`."""

    def logit(slot: str) -> Tensor:  # of γ
        return (scores[slot] - BIAS) * torch.where(patch[slot], -1.0, 1.0)

    def above() -> Iterator[tuple[str, Tensor]]:
        return ((slot, logit(slot).clamp(min=0)) for slot in scores)

    if sum(int((value > 0).sum()) for _, value in above()) <= count:
        return {slot: value > 0 for slot, value in above()}
    masks = largest(above, count)
    for slot, value in above():
        again = torch.where(patch[slot], BIAS - AGAIN, BIAS + AGAIN)
        scores[slot].copy_(torch.where((value > 0) & ~masks[slot], again, scores[slot]))
    return masks


def _quality(base: Base, graft: LowRank, examples: Sequence[Example], valid: Sequence[Example]) -> Float[Tensor, "2"]:
    """Share of right answers on `examples` plus that on `valid`, and for ties the negated nats an example, added likewise."""
    bank, shares = SkillBank(base, {"graft": graft}), torch.zeros(2, dtype=torch.float64)
    for some in filter(None, (examples, valid)):
        right, nats = forced(bank, some)
        shares += torch.tensor([sum(right), -sum(nats)], dtype=torch.float64) / len(some)
    return shares


class _Grafted(torch.autograd.Function):
    """γ ∘ Δ of one layer in the base's number format, differentiable in S; Δ is formed anew, so that only S is kept."""

    @staticmethod
    def forward(ctx, score, patch, skill, slot, kind):
        ctx.save_for_backward(score, patch)
        ctx.change = lambda: skill.dense(slot)
        gate = torch.sigmoid(score - BIAS)
        return (torch.where(patch, 1 - gate, gate) * ctx.change()).to(kind)

    @staticmethod
    def backward(ctx, up):
        score, patch = ctx.saved_tensors
        gate = torch.sigmoid(score - BIAS)
        slope = gate * (1 - gate) * torch.where(patch, -1.0, 1.0)
        return up.float() * ctx.change() * slope, None, None, None, None
