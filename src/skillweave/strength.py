"""Strengths: how strong each skill is, and for whom. One small class a granularity, so that no shape can mean two things.

    y = W x + Σ_k α_k · s_k · B_k A_k x,    α_k unitless: 1 as trained, 0 off, negative takes the skill away

A plain tensor, a number a skill or a skill and layer, holds for the whole batch, and so does `PerBlock`, a number a skill and
block of weights. `PerSample`, `Choice` and `PerToken` tell the samples of a batch apart, and `Routed` reads α off each layer's
own input. Whatever takes a strength takes any of them; all are differentiable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .errors import BadOption


@dataclass(frozen=True, eq=False)
class PerBlock:
    """A strength for every skill and block of weights (`q_proj` of layer 3, say), for the whole batch."""

    alpha: Float[Tensor, "skill block"]
    blocks: tuple[str, ...]
    """The blocks by name, as the base calls its linear layers (and its head and embeddings, if a skill changes them)."""

    @cached_property
    def place(self) -> dict[str, int]:
        """Where in `blocks` each one is."""
        return {block: i for i, block in enumerate(self.blocks)}


@dataclass(frozen=True, eq=False)
class PerSample:
    """A strength for every sample and skill, perhaps for every layer too."""

    alpha: Float[Tensor, "batch skill"] | Float[Tensor, "batch skill layer"]


@dataclass(frozen=True, eq=False)
class Choice:
    """One skill, or up to k, for each sample."""

    skill: Int[Tensor, "batch"] | Int[Tensor, "batch k"]
    """Numbers of skills in the bank; -1 for none (a row of -1 is the base alone)."""
    weight: Float[Tensor, "batch"] | Float[Tensor, "batch k"] | None = None
    """How strong each is; None for one."""


@dataclass(frozen=True, eq=False)
class PerToken:
    """A strength for every token and skill. The tokens have to be known: it cannot generate."""

    alpha: Float[Tensor, "batch time skill"]


@dataclass(frozen=True, eq=False)
class Routed:
    """Strengths that a module reads off each layer's input."""

    router: Callable[[Tensor, str], Tensor]
    """(input (row, inside), name of the layer) -> α (row, skill)."""


Constant = Float[Tensor, "skill"] | Float[Tensor, "skill layer"] | PerBlock
"""The same for the whole batch."""
Strength = Constant | PerSample | Choice | PerToken | Routed


@dataclass(frozen=True, eq=False)
class Rows:
    """Strengths that are the same for the whole batch, and which of them a block of weights has."""

    alpha: Float[Tensor, "skill place"]
    place: Callable[[str], int]

    def at(self, skill: int, block: str) -> Float[Tensor, ""]:
        """How strong `skill`, by number, is in `block`."""
        return self.alpha[skill, self.place(block)]


def rows(strength: Constant, skills: int, layers: int, layer_of: Callable[[str], int]) -> Rows:
    """Strengths of any shape, for a bank of `skills` on a base of `layers`, as Rows. Raises BadOption."""
    if isinstance(strength, PerBlock):
        check_count(len(strength.alpha), skills)
        if len(strength.place) != strength.alpha.shape[1]:
            raise BadOption(f"{strength.alpha.shape[1]} strengths a skill were given for {len(strength.place)} blocks.")
        return Rows(strength.alpha, partial(_place, strength.place))
    check_count(len(strength), skills)
    if strength.dim() == 1:
        return Rows(strength[:, None], lambda block: 0)
    if strength.shape[1] != layers:
        raise BadOption(f"strengths for {strength.shape[1]} layers were given, and the base has {layers}.")
    return Rows(strength, layer_of)


def _place(places: dict[str, int], block: str) -> int:
    if block not in places:
        raise BadOption(f"no strength was given for `{block}`.", "give one to every block of weights that a skill changes")
    return places[block]


@dataclass(frozen=True, eq=False)
class Mix:
    """Strengths of the skills that a batch uses, sample by sample."""

    used: tuple[int, ...]
    """Their numbers in the bank."""
    alpha: Float[Tensor, "batch used"] | Float[Tensor, "batch used layer"]
    active: Bool[Tensor, "batch used"]
    """Which of them each sample needs computed."""

    def take(self, rows: Sequence[int]) -> "Mix":
        """The same for some of the samples, and without the skills that none of these uses."""
        active = self.active[list(rows)]
        keep = active.any(0).nonzero()[:, 0]
        alpha = self.alpha[list(rows)].index_select(1, keep)
        return Mix(tuple(self.used[k] for k in keep.tolist()), alpha, active.index_select(1, keep))

    @cached_property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        """For each sample, the places in `used` of its skills."""
        found: list[list[int]] = [[] for _ in range(len(self.active))]
        for row, place in self.active.nonzero().tolist():
            found[row].append(place)
        return tuple(map(tuple, found))

    @cached_property
    def share(self) -> float:
        """Of the skills that the batch uses, those that a sample uses: mean over the samples that use any, in (0, 1]."""
        counts = [len(one) for one in self.sets if one]
        return sum(counts) / (len(counts) * len(self.used)) if counts else 1.0


def mix(strength: PerSample | Choice, skills: int, layers: int) -> Mix:
    """A Mix of strengths that are given sample by sample, for a bank of `skills` on a base of `layers`."""
    return _dense(strength.alpha, skills, layers) if isinstance(strength, PerSample) else _chosen(strength, skills)


def _dense(alpha: Tensor, skills: int, layers: int) -> Mix:
    check_count(alpha.shape[1], skills)
    if alpha.dim() == 3 and alpha.shape[2] != layers:
        raise BadOption(f"strengths for {alpha.shape[2]} layers were given, and the base has {layers}.")
    if torch.is_grad_enabled() and alpha.requires_grad:  # a skill that is off can learn to be on
        return Mix(tuple(range(skills)), alpha, torch.ones(alpha.shape[:2], dtype=torch.bool))
    everyone = Mix(tuple(range(skills)), alpha, (alpha != 0).flatten(2).any(2) if alpha.dim() == 3 else alpha != 0)
    return everyone.take(range(len(alpha)))


def _chosen(choice: Choice, skills: int) -> Mix:
    skill, weight = choice.skill, choice.weight
    if weight is not None and weight.shape != skill.shape:
        raise BadOption(
            f"weights of shape {tuple(weight.shape)} were given for choices of shape {tuple(skill.shape)}.",
            "give one weight a choice",
        )
    if skill.numel() and not -1 <= int(skill.min()) <= int(skill.max()) < skills:
        wrong = next(k for k in skill.flatten().tolist() if not -1 <= k < skills)
        raise BadOption(f"skill {wrong} was chosen from a bank of {skills}.", f"choose 0 to {skills - 1}, or -1 for none")
    skill = skill.reshape(len(skill), -1)
    weight = torch.ones(skill.shape) if weight is None else weight.reshape(skill.shape)
    used = [k for k in skill.unique().tolist() if k >= 0]
    place = torch.searchsorted(torch.tensor(used, dtype=torch.long), skill.long().clamp(min=0)).clamp(max=max(0, len(used) - 1))
    real = skill >= 0
    empty = torch.zeros(len(skill), max(1, len(used)), dtype=weight.dtype)
    alpha = empty.scatter_add(1, place, weight * real)  # a skill chosen twice counts twice
    active = torch.zeros(empty.shape).scatter_add(1, place, real.float()) > 0
    return Mix(tuple(used), alpha[:, : len(used)], active[:, : len(used)])


def check_count(given: int, skills: int) -> None:
    """Raises BadOption unless strengths were given for all skills."""
    if given != skills:
        raise BadOption(f"strengths for {given} skills were given, and the bank has {skills}.", "give one strength a skill")
