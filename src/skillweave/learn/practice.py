"""What rejection tuning and self-training share: rounds of sampling, verifying, keeping and training on what was kept.

    D_r   = the different completions y of round r with reward(y) >= threshold, at most `keep` a prompt; y drawn from π_r
    π_r+1 = π_r after `steps` / `rounds` steps on -Σ log π(y) over D_r

One optimiser and one course of learning rates for all rounds. The labels are the tokens that were drawn.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..bank import SkillBank
from ..base import Base
from ..composition import Active
from ..delta import LowRank
from ..errors import BadOption
from ..task import Example, Task
from .attempts import Watch, unwatched
from .journal import Row
from .loop import Group, Log, Plan, Run, train
from .loss import bank_loss
from .rollout import Judge, Prompts, Reward, Writer, limit_of

if TYPE_CHECKING:
    from .rounds import Rounds


@dataclass(frozen=True)
class Practice(ABC):
    """Rounds of practice; `settings` says how each is sampled and what is kept of it."""

    takes: ClassVar[tuple[str, ...]] = ("task", "start")
    """What `fit` wants to know beyond examples: who scores, and the skill to go on from."""

    steps: int = 120
    """Optimiser steps, in all rounds together."""
    batch: int = 8
    """Completions a step."""
    rounds: int = 4
    """How often completions are drawn anew."""
    prompts: int = 64
    """Prompts a round."""
    samples: int = 8
    """Completions a prompt."""
    keep: int = 4
    """The most different completions of a prompt that are kept; 0 for all."""
    passes: int = 4
    """The most often that a round learns a completion; steps beyond that are idle, so that few answers are not drilled in."""
    cut: bool = False
    """Whether completions that were cut off at `tokens` may be kept: they teach no end."""
    lr: float = 1e-3
    """Largest learning rate, unitless."""
    rank: int = 8
    """Rank of every layer's change; a skill that is gone on from keeps its own."""
    scale: float = 2.0
    """LoRA's alpha / rank, unitless."""
    tokens: int = 0
    """Most tokens of a completion; 0 for a few more than the longest right answer."""

    @abstractmethod
    def settings(self, course: "Rounds", number: int) -> Row:
        """`temperature` and `threshold` of round `number` (0, 1, …), and what else is to be said of the choice."""

    def fit(
        self,
        base: Base,
        examples: Sequence[Example],
        seed: int,
        run: Run = Run(),
        *,
        task: Task,
        start: LowRank | None = None,
        reward: Reward | None = None,
        quality: Reward | None = None,
        prompts: Prompts | None = None,
        watch: Watch = unwatched,
    ) -> tuple[LowRank, Log]:
        """Learn the prompts of `examples` on the frozen `base`; returns the skill's weights (fp32) and what happened.

        It goes on from the weights of `start`, if there are any. `reward` takes the place of the score of `task`, `quality` is
        added to it; `prompts` decides what is asked next; `watch` adds to the row of each round, before its first step.
        """
        from .rounds import Rounds

        self.check()
        skill = start.learner() if start is not None else LowRank.fresh(base, self.rank, self.scale, seed)
        bank = SkillBank(base, {"new": skill})
        bank.check_head()
        limit = limit_of(base, examples, self.tokens)
        writer = Writer(Active(base, bank), Judge(task, reward), limit, seed, quality=quality)
        course = Rounds(self, writer, prompts or Prompts(examples, seed), run, watch)
        groups, plan = [Group(skill.tensors(), self.lr)], Plan(self.steps)
        log = train(lambda piece: bank_loss(bank, piece), groups, course.batch, plan, run, memory=course)
        return skill.detach(), course.told(log)

    def check(self) -> None:
        """Raises BadOption."""
        for name in ("rounds", "prompts", "samples", "passes"):
            if getattr(self, name) < 1:
                raise BadOption(f"{name} is {getattr(self, name)}, but has to be at least 1.")
        if self.steps < self.rounds:
            raise BadOption(f"{self.steps} steps cannot be shared by {self.rounds} rounds.", "give a step for each, or more")

    @property
    def needed(self) -> int:
        """How many examples it would ask if it never asked one twice."""
        return self.rounds * self.prompts
