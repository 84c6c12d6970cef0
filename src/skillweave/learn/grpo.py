"""GRPO (2402.03300) and its relatives Dr. GRPO, DAPO and GSPO: a skill learns from which of its own answers earn more.

Each step asks `batch` prompts for `group` completions, scores them, and makes those that did better than the rest of their
group likelier (formulas in grpo_loss.py). A group whose completions all earned exactly the same teaches nothing: it is dropped
before the backward pass, and other prompts are asked in its place, at most `refills` times. A step without a group is idle.

Everything that decides a step follows from (seed, step) and the weights; the samples that several updates share, the counts and
the rows of the journal are saved with the state, so a run that was killed goes on to the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..bank import SkillBank
from ..base import Base
from ..composition import Active
from ..delta import LowRank
from ..errors import BadOption
from ..task import Example, Task
from .attempts import Watch, unwatched
from .course import Course
from .grpo_loss import CLIPS
from .loop import Group, Log, Plan, Run, train
from .rollout import Judge, Prompts, Reward, Writer, limit_of
from .templates import Template
from .trl_engine import grpo, wanted
from .turns import Executor, Turns


@dataclass(frozen=True)
class GRPO:
    """A skill that answers as rewards say, from its own attempts; it has to be right now and then to begin with."""

    takes: ClassVar[tuple[str, ...]] = ("task", "start")
    """What `fit` wants to know beyond examples: who scores, and the skill to go on from."""

    steps: int = 100
    """Optimiser steps."""
    batch: int = 8
    """Prompts a step."""
    group: int = 8
    """Completions a prompt."""
    updates: int = 1
    """Optimiser steps on the same completions."""
    loss: str = "dapo"
    """`grpo`, `dr_grpo`, `dapo` or `gspo`."""
    lr: float = 3e-4
    """Largest learning rate, unitless."""
    steady: bool = False
    """Keep the rate as it is through all steps: no rise, no fall."""
    rank: int = 8
    """Rank of every layer's change; a skill that is gone on from keeps its own."""
    scale: float = 2.0
    """LoRA's alpha / rank, unitless."""
    low: float = 0.0
    """How far a probability ratio may fall, unitless; 0 for what the paper of the loss has."""
    high: float = 0.0
    """How far a probability ratio may rise, unitless; 0 for what the paper of the loss has."""
    kl: float = 0.0
    """Weight of the divergence from where the skill began, unitless; 0 for none."""
    temperature: float = 1.0
    """Of the completions, unitless."""
    tokens: int = 0
    """Most tokens of a completion; 0 for a few more than the longest right answer."""
    refills: int = 3
    """How many times other prompts are asked in the place of groups that all earned the same."""
    probe: int = 32
    """Prompts on which it is measured first how often one of `group` completions is right; 0 for none."""
    engine: str = "own"
    """What samples and trains: `own`, or `trl` for several GPUs."""

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
        templates: Sequence[Template] = (),
        prompts: Prompts | None = None,
        executor: Executor | None = None,
        turns: Turns | None = None,
        watch: Watch = unwatched,
    ) -> tuple[LowRank, Log]:
        """Practise the prompts of `examples` on the frozen `base`; returns the skill's weights (fp32) and what happened.

        It goes on from the weights of `start`, if there are any. `reward` takes the place of the score of `task`; `templates`
        are ways of asking, one drawn for each group; `prompts` decides what is asked next. `executor` carries out what was
        written, and what it makes of it is judged; with `turns` a completion is a conversation, and each of its turns is
        compared with the same turn of the others. `watch` adds to each step's row.
        """
        self.check()
        skill = start.learner() if start is not None else LowRank.fresh(base, self.rank, self.scale, seed)
        bank = SkillBank(base, {"new": skill})
        bank.check_head()
        if wanted(self.engine):
            if reward or templates or prompts or executor or turns or watch is not unwatched:
                raise BadOption("the engine trl practises prompts by the score of their task only.", "leave out the engine")
            return grpo(self, base, examples, seed, run, task, skill)
        began = SkillBank(base, {"start": start.detach()}) if start is not None else None
        limit = limit_of(base, examples, self.tokens)
        how: dict[str, Any] = {"templates": templates, "executor": executor, "turns": turns}
        writer = Writer(Active(base, bank), Judge(task, reward), limit, seed, **how)
        plan = Plan(self.steps, steady=self.steady)
        course = Course(self, plan, writer, Active(base, began), prompts or Prompts(examples, seed), run, watch)
        tick = replace(run, tick=lambda count, note: run.tick(count, course.note or note))
        log = train(course.loss, [Group(skill.tensors(), self.lr)], course.batch, plan, tick, after=course.after, memory=course)
        return skill.detach(), course.told(log)

    def check(self) -> None:
        """Raises BadOption."""
        if self.loss not in CLIPS:
            raise BadOption(f"loss is `{self.loss}`, but can only be {', '.join(CLIPS)}.")
        if self.group < 2:
            raise BadOption(f"group is {self.group}, but has to be at least 2: completions are compared with each other.")
        if self.updates < 1:
            raise BadOption(f"updates is {self.updates}, but has to be at least 1.")
        if self.temperature <= 0:
            raise BadOption(f"temperature is {self.temperature}, but has to be above 0: groups need different completions.")

    @property
    def needed(self) -> int:
        """How many examples it would ask if it never asked one twice, and never others in the place of one."""
        return max(self.probe, -(-self.steps // max(1, self.updates)) * self.batch)

    @property
    def clip(self) -> tuple[float, float]:
        """How far a ratio may fall and rise."""
        low, high = CLIPS[self.loss]
        return self.low or low, self.high or high
