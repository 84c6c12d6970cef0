"""Learned anisotropic scaling (paper 47, 2407.02880): a strength for every skill and place, learned from few examples.

    y = W x + Σ_k α[k, place] · s_k · B_k A_k x   (+ s B A x of a small new skill, as in paper 1, 2502.05932)

What a place is (the whole model, a layer, a block of weights, a part of one) is in `grain.py`, what α is learned for in
`objective.py`. α starts at one (the plain sum) unless `start` says otherwise, and the skills stay as they are. The new skill,
where there is one, learns what none of them holds, such as the shape of the answer. `replay` mixes examples of the skills' own
tasks into the batches, so that the composition does not forget them; `recombined` mixes in new examples made of the few and of
the skills' own. The paper's own settings are granularity block, start 0, decay 0.1 and lr 0.1.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..bank import SkillBank
from ..base import Base
from ..composition import NEW, Composition, with_new
from ..curriculum.mixing import mixture
from ..curriculum.recombine import recombine
from ..delta import LowRank
from ..errors import BadData, BadOption, NotFound
from ..learn.batches import Batches
from ..learn.best import Best
from ..learn.loop import Group, Log, Plan, Run, train
from ..strength import Constant
from ..task import Example
from .grain import Grain, Partitioned
from .objective import OBJECTIVES, Alpha, Ce, Negate, Objective, Pseudo, control_of


@dataclass(frozen=True)
class Scales:
    """A strength per skill and layer (or block, or model), learned; no new weights."""

    steps: int = 40
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 2e-2
    """Largest learning rate of α, unitless."""
    rank: int = 0
    """Rank of the new skill that learns beside α; 0 for none."""
    lora_lr: float = 1e-3
    """Largest learning rate of the new skill, unitless."""
    scale: float = 2.0
    """The new skill's alpha / rank, unitless."""
    replay: float = 0.0
    """Share of the examples that come from the skills' own tasks."""
    recombined: float = 0.0
    """Share of the examples that are made of the few and of the skills' own."""

    granularity: str = "layer"
    """What has its own strength: `global` (a skill), `layer`, `block` (of weights), `partition:K` (K parts of each block)."""
    objective: str = "ce"
    """`ce`: answer as the examples do; `negate`: unlearn them; `pseudo`: read their prompts alone, and trust sure answers."""
    start: float = 1.0
    """Where strengths start, unitless: 1 the plain sum, 0 the base."""
    decay: float = 0.0
    """Weight decay of α: pulls towards 0, which is the base."""
    valid: float = 0.0
    """Share of the examples that are kept apart to choose the best step by; 0 to take the last."""
    forget: str = ""
    """For `negate`: the skill whose task the examples are of; what the other skills carry along is kept."""
    sure: float = 0.9
    """For `pseudo`: the probability from which an answer is trusted."""
    longest: int = 32
    """For `pseudo`: tokens of an answer."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Composition | Partitioned, Log]:
        """Learn α (and the new skill) on `examples`; `carried` are the examples that each skill brings along."""
        self.check()
        grain = Grain.of(self.granularity, skills, seed)
        members = grain.members(skills)
        numbers = grain.start(members, base.layers, self.start).requires_grad_()
        new = LowRank.fresh(base, self.rank, self.scale, seed) if self.rank else None
        bank = SkillBank(base, {**members, NEW: new} if new else members)

        def alpha() -> Constant:
            found = grain.strengths(numbers, members, base.layers)
            return with_new(found, new) if new else found

        aim = self.aim(bank, alpha, examples, {name: carried.get(name, ()) for name in skills}, seed)
        groups = [Group({"alpha": numbers}, self.lr, self.decay)]
        if new:
            groups.append(Group(new.tensors(), self.lora_lr))
        if not self.valid:
            log = train(aim.loss, groups, aim.at, Plan(self.steps), run)
        else:
            best = Best({name: tensor for group in groups for name, tensor in group.tensors.items()}, aim.held, self.steps)
            log = train(aim.loss, [*groups, best.group], best.watch(aim.at), Plan(self.steps), run)
            best.restore()
        if not log.labels:
            raise BadData(f"no answer was as sure as {self.sure:g}: nothing was learned.", "lower it (--set sure=0.5)")
        return grain.woven(numbers.detach(), skills, members, base.layers, new.detach() if new else None), log

    def check(self) -> None:
        """Raises BadOption for what cannot be, or not together."""
        if not (0 <= self.replay < 1 and 0 <= self.recombined < 1 and self.replay + self.recombined < 1):
            raise BadOption(
                f"replay is {self.replay} and recombined is {self.recombined}, but the shares must leave some to the task.",
                "their sum has to be below 1",
            )
        if self.objective not in OBJECTIVES:
            raise NotFound("objective", self.objective, OBJECTIVES, hint=f"choose from {', '.join(OBJECTIVES)}")
        if self.objective != "ce" and (self.replay or self.recombined):
            raise BadOption(
                f"{self.objective} mixes no other examples into the batches, and replay is {self.replay:g}, recombined "
                f"{self.recombined:g}.",
                "set both to 0",
            )
        if not 0 <= self.valid < 1:
            raise BadOption(f"valid is {self.valid:g}, but is a share: at least 0 and below 1.")
        if self.objective == "pseudo" and self.valid:
            raise BadOption(f"valid is {self.valid:g}, but pseudo reads no answer to choose a step by.", "set it to 0")
        if self.longest < 1:
            raise BadOption(f"longest is {self.longest}, but an answer has at least 1 token.")
        if not 0 < self.sure <= 1:
            raise BadOption(f"sure is {self.sure:g}, but is a probability: above 0 and at most 1.")

    def aim(
        self, bank: SkillBank, alpha: Alpha, examples: Sequence[Example], carried: Mapping[str, Sequence[Example]], seed: int
    ) -> Objective:
        """What the strengths are learned for, on what is not kept apart."""
        base, count = bank.base, self.steps * self.batch
        if self.objective == "pseudo":
            return Pseudo(bank, alpha, mixture([(examples, 1.0)], count, seed), self.batch, self.sure, self.longest)
        some, apart = self.split(examples, seed)
        if self.objective == "negate":
            kept, kept_apart = self.split(control_of(carried, self.forget), seed)
            target, control = (Batches(base, mixture([(e, 1.0)], count, seed), self.batch, seed) for e in (some, kept))
            return Negate(bank, alpha, target, control, apart, kept_apart)
        return Ce(bank, alpha, Batches(base, self.drawn(some, carried, seed), self.batch, seed), apart)

    def split(self, examples: Sequence[Example], seed: int) -> tuple[Sequence[Example], list[Example]]:
        """Examples to learn from, and those kept apart: the share `valid`, at least one. Raises BadOption."""
        if not self.valid:
            return examples, []
        if len(examples) < 2:
            raise BadOption(f"of {len(examples)} example, none can be kept apart.", "give more examples, or set valid=0")
        shuffled = random.Random(f"{seed}:apart").sample(list(examples), len(examples))
        apart = min(len(examples) - 1, max(1, round(len(examples) * self.valid)))
        return shuffled[apart:], shuffled[:apart]

    def drawn(self, examples: Sequence[Example], carried: Mapping[str, Sequence[Example]], seed: int) -> list[Example]:
        """What all steps will read: the task, the skills' own examples and recombined ones, each its share."""
        count = self.steps * self.batch
        made = recombine(examples, carried, round(count * self.recombined), seed) if self.recombined else []
        own = [example for kept in carried.values() for example in kept]
        shares = [(own, self.replay if own else 0.0), (made, self.recombined if made else 0.0)]
        return mixture([(examples, 1 - sum(share for _, share in shares)), *shares], count, seed)


@dataclass(frozen=True)
class ScalesWithLora(Scales):
    """A strength per skill and layer, and a small new skill for what none of them holds."""

    rank: int = 8
    replay: float = 0.2
    recombined: float = 0.6
