"""Few-shot adaptation with skills at hand: a family of one base, its skills and a task that needs them; and ways to adapt.

Every way gets the same examples, and those that train the same number of steps and examples a step. A gate can be told from a
policy of its own by two controls: `constant`, which sees nothing, and `untaught`, whose skills know nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..bank import SkillBank
from ..base import Base
from ..compose.arrow import Arrow
from ..compose.context import Context
from ..compose.lorahub import LoraHub
from ..compose.router import Router
from ..compose.scales import Scales
from ..composition import Active, Composition
from ..delta import Factors, LowRank
from ..learn.loss import mean_loss
from ..learn.sft import SFT
from ..measure.score import evaluate
from ..strength import Choice
from ..task import Example, Task


@dataclass(frozen=True)
class Family:
    """One base, what it was taught, and what is asked of it."""

    base: Base
    skills: Mapping[str, LowRank]
    task: Task
    """Whose examples name in the tag `task` the skill that they need."""
    test: Sequence[Example]
    seed: int

    def score(self, active: Active) -> float:
        """Share of the held-out examples that are answered right."""
        return sum(evaluate(active, self.task, self.test).exact) / len(self.test)

    def used(self, method: Any, shots: Sequence[Example], skills: Mapping[str, LowRank] | None = None) -> Active:
        """The base with what `method` of the compose room makes of the skills (or of others)."""
        skills = skills or self.skills
        return method.fit(self.base, skills, shots, self.seed)[0].use(self.base, skills)


def fixed(family: Family, shots: Sequence[Example]) -> Active:
    """One strength for all skills and inputs: of 1, 1/2 and 1 / skills that with the lowest loss on the examples."""
    bank = SkillBank(family.base, family.skills)
    count = len(family.skills)
    tried = [torch.full((count,), strength) for strength in sorted({1.0, 0.5, 1 / count})]
    return Active(family.base, bank, min(tried, key=lambda alpha: mean_loss(bank, shots, alpha)))


def oracle(family: Family) -> Active:
    """Each held-out input with the skill that it needs: what there is to gain."""
    names = list(family.skills)
    needed = {e.prompt: names.index(e.tags["task"]) for e in family.test}
    chosen = lambda base, prompts: Choice(torch.tensor([needed[prompt] for prompt in prompts]))  # noqa: E731
    return Active(family.base, SkillBank(family.base, family.skills), chosen)


def untaught(skills: Mapping[str, LowRank], seed: int) -> dict[str, LowRank]:
    """Skills of the same size that know nothing: the entries of every factor in another order."""
    draw = torch.Generator().manual_seed(seed)

    def mixed(x: torch.Tensor) -> torch.Tensor:
        return x.flatten()[torch.randperm(x.numel(), generator=draw)].view(x.shape)

    return {
        name: LowRank({slot: Factors(mixed(f.a), mixed(f.b), f.scale) for slot, f in skill.factors.items()})
        for name, skill in skills.items()
    }


def fresh(family: Family, shots: Sequence[Example], method: SFT) -> Active:
    """A new LoRA, and none of the skills."""
    skill, _ = method.fit(family.base, shots, family.seed)
    return Composition.of(skill, family.base).use(family.base, {})


@dataclass(frozen=True)
class Ways:
    """How each way that learns does so; steps and batch are those of all."""

    steps: int
    batch: int
    context: Context
    scales: Scales
    router: Router
    sft: SFT
    lorahub: LoraHub
    arrow: Arrow

    def of(self, method: Any) -> Any:
        return replace(method, steps=self.steps, batch=self.batch)


def without_examples(family: Family, ways: Ways) -> dict[str, Active]:
    """What needs none: the base alone, the plain sum, Arrow, and the right skill for each input."""
    bank = SkillBank(family.base, family.skills)
    return {
        "base": Active(family.base),
        "sum": Active(family.base, bank),
        "arrow": family.used(ways.arrow, []),
        "right skill": oracle(family),
    }


def adapted(family: Family, ways: Ways, shots: Sequence[Example], arms: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each of `arms` after the same examples: score, and the CPU seconds that it took to adapt."""
    gate = ways.of(ways.context)
    make = {
        "gate": lambda: family.used(gate, shots),
        "constant": lambda: family.used(replace(gate, hidden=0), shots),
        "untaught": lambda: family.used(gate, shots, untaught(family.skills, family.seed)),
        "fixed": lambda: fixed(family, shots),
        "scales": lambda: family.used(ways.of(ways.scales), shots),
        "router": lambda: family.used(ways.of(ways.router), shots),
        "lorahub": lambda: family.used(ways.lorahub, shots),
        "fresh LoRA": lambda: fresh(family, shots, ways.of(ways.sft)),
    }
    found = {}
    for arm in arms:
        began = time.process_time()
        active = make[arm]()
        found[arm] = {"seconds": time.process_time() - began, "exact": family.score(active)}
    return found
