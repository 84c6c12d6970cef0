"""Routing by declared skills (SkillNet; paper 32, 2205.06126): a task names the skills that it needs; no gate is learned.

    y = W x + 1/|S| Σ_{k in S} s_k · B_k A_k x,    S the set that the task declares: a shared skill and its own ones

The paper has a feed-forward part for each skill, all begun as the pretrained one, and takes the plain mean of the active ones.
Here a skill is a change of weights on the one base, so the mean of the active W + ΔW_k is W + the mean of their changes. Skills
outside S are not computed and get no gradient. Where several tasks learn together, each with its own set, task t has the share

    p_t ∝ n_t^(1/T)    (n_t examples at hand; T = 1 in proportion to them, a large T evenly)

of the examples, and a step holds examples of several tasks, each computed with its own set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from ..bank import SkillBank
from ..base import Base
from ..composition import Composition
from ..curriculum.mixing import mixture
from ..delta import LowRank
from ..errors import BadOption, NotFound
from ..learn.batches import Batch, Batches
from ..learn.loop import Group, Log, Plan, Run, train
from ..learn.loss import bank_loss
from ..strength import Choice
from ..task import Example

OWNER = "declared by"
"""The tag of an example that says which task it was drawn for."""


@dataclass(frozen=True)
class Declared:
    """The mean of the skills that are named; with steps, these learn on together from the examples first."""

    steps: int = 0
    """Optimiser steps in which the skills learn on, in that mean; 0 leaves them as they are."""
    batch: int = 8
    """Examples a step."""
    lr: float = 1e-3
    """Largest learning rate, unitless."""
    rank: int = 8
    """Of a recipe: the rank of a new skill."""
    scale: float = 2.0
    """Of a recipe: a new skill's alpha / rank, unitless."""
    temperature: float = 1.0
    """Of a recipe: T of the tasks' shares; 1 in proportion to their examples, larger is more even. Unitless."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Composition, Log]:
        """The mean of `skills`, as they are or after they have learned on from `examples`; `skills` themselves stay."""
        if not self.steps:
            return average(base, tuple(skills)), Log()
        learned, log = self.joint(base, skills, {"": tuple(skills)}, {"": examples}, seed, run)
        return Composition.of(average(base, tuple(skills)).merged(base, learned), base), log

    def joint(
        self,
        base: Base,
        experts: Mapping[str, LowRank],
        sets: Mapping[str, Sequence[str]],
        examples: Mapping[str, Sequence[Example]],
        seed: int,
        run: Run = Run(),
    ) -> tuple[dict[str, LowRank], Log]:
        """What `experts` become when they learn several tasks together; `sets` are the experts that each task declares."""
        check_sets(sets, experts)
        learned = {name: skill.learner() for name, skill in experts.items()}
        bank = SkillBank(base, learned)
        drawn = self.drawn(examples, seed)
        batches = Batches(base, drawn, self.batch, seed)
        strength = Sets(bank, [sets[example.tags[OWNER]] for example in drawn])
        tensors = {f"{name}.{part}": t for name, skill in learned.items() for part, t in skill.tensors().items()}

        def loss(batch: Batch):
            return bank_loss(bank, batch, strength.of(batch.samples))

        log = train(loss, [Group(tensors, self.lr)], batches.at, Plan(self.steps), run)
        return {name: skill.detach() for name, skill in learned.items()}, log

    def drawn(self, examples: Mapping[str, Sequence[Example]], seed: int) -> list[Example]:
        """What all steps will read: of each task its share, and whose each example is."""
        parts = shares({task: len(some) for task, some in examples.items()}, self.temperature)
        owned = {t: [replace(e, tags={**e.tags, OWNER: t}) for e in some] for t, some in examples.items()}
        return mixture([(owned[t], share) for t, share in parts.items()], self.steps * self.batch, seed)

    def strengths(self, count: int) -> list[float]:
        """What each of `count` skills goes into the mean with."""
        return [1 / count] * count


def average(base: Base, names: Sequence[str]) -> Composition:
    """The skills `names`, each at 1 / their number in every layer."""
    return Composition(tuple(names), torch.full((len(names), base.layers), 1 / len(names)))


class Sets:
    """The sets that some samples declare, as strengths for any batch of them."""

    def __init__(self, bank: SkillBank, sets: Sequence[Sequence[str]]):
        place = {name: k for k, name in enumerate(bank.names)}
        for name in dict.fromkeys(name for names in sets for name in names):
            if name not in place:
                raise NotFound("skill", name, place, where="the bank")
        most = max(map(len, sets), default=0)
        self.skill = torch.tensor([[place[name] for name in names] + [-1] * (most - len(names)) for names in sets])
        self.weight = torch.tensor([[1 / max(1, len(names))] * most for names in sets])

    def of(self, samples: Sequence[int]) -> Choice:
        """For each of `samples` the mean of the skills of its set."""
        return Choice(self.skill[list(samples)], self.weight[list(samples)])


def shares(sizes: Mapping[str, int], temperature: float) -> dict[str, float]:
    """The share p_t ∝ n_t^(1/T) of each task, in [0, 1]; `sizes` are the examples n_t at hand."""
    if temperature <= 0:
        raise BadOption(f"temperature is {temperature:g}, but has to be above 0.", "1 is in proportion, larger more even")
    largest = max(sizes.values())
    raw = {task: (n / largest) ** (1 / temperature) for task, n in sizes.items()}  # of n / largest: no power can overflow
    return {task: value / sum(raw.values()) for task, value in raw.items()}


def check_sets(sets: Mapping[str, Sequence[str]], experts: Mapping[str, object]) -> None:
    """Raises BadOption or NotFound unless each task declares some of `experts`, and each of them is declared."""
    for task, names in sets.items():
        if not names:
            raise BadOption(f"the task `{task}` declares no skill.", "name at least one, such as a shared one")
        if len(set(names)) < len(names):
            raise BadOption(f"the task `{task}` declares a skill twice: {', '.join(names)}.", "name each skill once")
        for name in names:
            if name not in experts:
                raise NotFound("skill", name, experts, where=f"what the task `{task}` can declare")
    declared = {name for names in sets.values() for name in names}
    if idle := [name for name in experts if name not in declared]:
        raise BadOption(f"no task declares `{idle[0]}`, so it would learn nothing.", "add it to a task, or leave it out")
