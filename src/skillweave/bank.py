"""SkillBank: many low-rank skills attached to one frozen Base.

    y = W x + Σ_k α_k · s_k · B_k A_k x

α is given at call time and differentiable: one number a skill, a skill and layer, or a skill and block of weights, for the
whole batch; or one a sample, a sample and layer, a token; or read off the layer's input by a router (`strength.py`). Which of
three kernels computes it (`kernels.py`) follows from the share of the skills that a sample uses, so that cost follows the
skills in use, not those in the bank. The base weights are never written to, and nothing stays behind when the block ends or a
forward raises.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Base, Edit, edited
from .calibration import Shares, calibrate, shares
from .delta import LowRank
from .edits import BySample, by_input, by_token, routed
from .errors import BadOption, NotFound
from .fitting import check_owners, check_uniform, dress, fit
from .kernels import Folded, Store, stack
from .rowwise import with_gains
from .strength import Choice, PerBlock, PerSample, PerToken, Routed, Rows, Strength, check_count, mix, rows

CACHE = 512 * 2**20
"""Bytes of factors that a bank keeps side by side between calls: 64 skills of rank 16 on Gemma 3 270M in bf16."""


class SkillBank:
    """The skills `skills` (name -> factors) on `base`."""

    def __init__(self, base: Base, skills: Mapping[str, LowRank]):
        self.base, self.store = base, Store(CACHE)
        self._skills = dict(skills)
        self.fitted = {name: fit(base, name, skill) for name, skill in skills.items()}
        check_owners(self.fitted.values())

    @property
    def skills(self) -> Mapping[str, LowRank]:
        """Its skills, in order: their places are the numbers that strengths speak of."""
        return MappingProxyType(self._skills)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._skills)

    def put(self, name: str, skill: LowRank) -> None:
        """Add a skill at the end, or put another in the place of the one called `name`."""
        fitted = self.fitted | {name: fit(self.base, name, skill)}
        check_owners(fitted.values())
        self.fitted = fitted
        self._skills[name] = skill
        self.store.clear()

    def drop(self, name: str) -> None:
        """Take a skill out; those after it move up by one place."""
        if name not in self._skills:
            raise NotFound("skill", name, self._skills, where="the bank")
        del self._skills[name], self.fitted[name]
        self.store.clear()

    def ones(self) -> Float[Tensor, "skill layer"]:
        """α of one everywhere: every skill as strong as it was trained."""
        return torch.ones(len(self._skills), self.base.layers)

    def choice(self, names: Sequence[str | None]) -> Choice:
        """The Choice of one skill a sample by name; None for the base alone."""
        place = {name: k for k, name in enumerate(self._skills)}
        if unknown := [name for name in names if name is not None and name not in place]:
            raise NotFound("skill", unknown[0], place, where="the bank")
        return Choice(torch.tensor([-1 if name is None else place[name] for name in names], dtype=torch.long))

    def check_head(self) -> None:
        """Raises BadOption if a skill changes the head, which a loss taken in tiles of the vocabulary leaves out."""
        for skill in self.fitted.values():
            if skill.changes(self.base.head_slot):
                raise BadOption(f"`{skill.name}` changes the head of the model: it can be used, but not learned on.")

    @contextmanager
    def on(self, alpha: Strength | None = None) -> Iterator[None]:
        """Inside the block the base computes with the skills, each as strong as `alpha` says (default: one)."""
        edits = self._edits(self.ones() if alpha is None else alpha)
        with edited(edits, by_sample=isinstance(alpha, PerSample | Choice | PerToken)):
            yield

    def calibrate(self) -> Shares:
        """Measure on this machine when which kernel pays (a few seconds); kept on disk for every later bank."""
        self.__dict__["shares"] = calibrate(self.base.dtype)
        return self.shares

    @cached_property
    def shares(self) -> Shares:
        """From which share of the skills in use stacked products are taken, by tokens a sample."""
        return shares(self.base.dtype)

    def _edits(self, alpha: Strength) -> dict[str, Edit]:
        skills = [skill.plain for skill in self.fitted.values()]
        self.store.turn += 1
        if isinstance(alpha, Tensor | PerBlock):
            return self._folded(rows(alpha, len(skills), self.base.layers, self.base.layer_of), skills)
        fitted = list(self.fitted.values())
        check_uniform(fitted)
        if isinstance(alpha, Routed):
            return with_gains(routed(alpha.router, skills, self.store), fitted, partial(by_input, alpha.router))
        if isinstance(alpha, PerToken):
            check_count(alpha.alpha.shape[2], len(skills))
            return with_gains(by_token(alpha.alpha, skills, self.store), fitted, lambda slot: lambda x: alpha.alpha)
        found = mix(alpha, len(skills), self.base.layers)
        shared = BySample(found, skills, self.store, self.shares)
        slots = dict.fromkeys(slot for k in found.used for slot in skills[k].factors)
        edits: dict[str, Edit] = {slot: partial(shared, slot, self.base.layer_of(slot)) for slot in slots}
        return with_gains(edits, fitted, lambda s: shared.rows(s, self.base.layer_of(s)))

    def _folded(self, strength: Rows, skills: list[LowRank]) -> dict[str, Edit]:
        alpha = strength.alpha
        learning = torch.is_grad_enabled() and (alpha.requires_grad or any(map(_learns, self._skills.values())))
        used = range(len(skills)) if learning else alpha.any(1).nonzero()[:, 0].tolist()
        kind = self.base.dtype
        edits: dict[str, Edit] = {}
        for slot in dict.fromkeys(slot for k in used for slot in skills[k].factors):
            here = [(k, skills[k].factors[slot]) for k in used if slot in skills[k].factors]
            factors = [f for _, f in here]
            tensors = [tensor for f in factors for tensor in (f.a, f.b)]
            key = (slot, "stacked", tuple(k for k, _ in here), kind)
            a, b = self.store.get(key, tensors, partial(stack, factors, kind))
            scale = torch.cat([(strength.at(k, slot) * f.scale).expand(f.rank) for k, f in here])  # (rank,)
            edits[slot] = Folded(a, b, scale)
        fitted = list(self.fitted.values())
        return dress(self.base, {k: fitted[k] for k in used}, strength, edits)


def _learns(skill: LowRank) -> bool:
    tensors = [*skill.tensors().values(), *(part.values for part in skill.full.values())]
    return any(tensor.requires_grad for tensor in tensors)
