"""Distillation: a new skill learns what a teacher answers, or how likely the teacher finds each next token.

    loss = labels · -log q(answer | prompt) + soft · distance(p, q)        per token of the answer

With the teacher's own answers and `soft` = 0 that is distillation of sequences (1606.07947), with `soft` above 0 of logits
(`soft`: 1503.02531 for one tokenizer, 2402.12030 between two). The teacher is a skill of the library, a sum of skills, or a
model; it may have another base than the student. It stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..composition import Active
from ..delta import LowRank
from ..errors import BadData, BadOption
from ..progress import say
from ..task import Example
from .batches import Batch, Batches
from .loop import Group, Log, Plan, Run, train
from .loss import cross_entropy
from .soft import Guide

LONGER = 8
"""Tokens that an answer of the teacher may have beyond the longest given one."""


@dataclass(frozen=True)
class Distill:
    """A new skill from a teacher: a skill of the library, a sum of skills, or another model."""

    takes: ClassVar[tuple[str, ...]] = ("teacher",)

    teacher: str = ""
    """Who teaches: a skill of the library, `a+b` (their sum), or a model (a name or a folder)."""
    answers: str = "teacher"
    """Which answers are learned: those of the `teacher`, or those `given` with the examples."""
    labels: float = 1.0
    """Weight of the answers' own loss, unitless."""
    soft: float = 0.0
    """Weight of the distance to the teacher's next-token distribution, unitless; 0 learns the answers alone."""
    temperature: float = 1.0
    """What logits are divided by before the two distributions are compared, unitless."""
    tokens: int = 0
    """The longest answer of the teacher, in its tokens; 0 for a little more than the longest given one."""
    steps: int = 100
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 1e-3
    """Largest learning rate, unitless."""
    rank: int = 8
    """Rank of every layer's change."""
    scale: float = 2.0
    """LoRA's alpha / rank, unitless."""

    def check(self) -> None:
        """Raises BadOption if nothing could be learned so."""
        if self.answers not in ("teacher", "given"):
            raise BadOption(f"answers is `{self.answers}`, but can only be teacher or given.")
        if self.answers == "given" and not self.soft:
            raise BadOption("with answers=given and soft=0 nothing comes from the teacher.", "--set soft=1, or --method sft")
        if not self.labels and not self.soft:
            raise BadOption("labels and soft are both 0: there is nothing to learn.", "--set labels=1 or --set soft=1")
        if not self.temperature:
            raise BadOption("temperature is 0, but has to be above 0.", "1 takes the distributions as they are")

    def taught(self, examples: Sequence[Example], teacher: Active) -> list[Example]:
        """`examples` with the completions that are learned: the teacher's greedy answers, if `answers` says so."""
        if self.answers == "given":
            return list(examples)
        limit = self.tokens or LONGER + max(len(teacher.encode(e.completion)) for e in examples)
        prompts = list(dict.fromkeys(e.prompt for e in examples))
        say(f"asking the teacher {self.teacher} for {len(prompts):,} answers")
        said = dict(zip(prompts, teacher.generate(prompts, limit), strict=True))
        if not any(answer.strip() for answer in said.values()):
            raise BadData(
                f"the teacher `{self.teacher}` answers nothing to {len(prompts):,} prompts.", "choose another teacher"
            )
        return [replace(e, completion=said[e.prompt]) for e in examples]

    def fit(
        self,
        base: Base,
        examples: Sequence[Example],
        seed: int,
        run: Run = Run(),
        *,
        teacher: Active,
    ) -> tuple[LowRank, Log]:
        """Learn the completions of `examples`, as `taught` gives them, on the frozen `base` beside the `teacher`."""
        self.check()
        skill = LowRank.fresh(base, self.rank, self.scale, seed)
        bank = SkillBank(base, {"new": skill})
        batches = Batches(base, examples, self.batch, seed)
        guide = self._guide(base, examples, teacher) if self.soft else None

        def loss(batch: Batch) -> Float[Tensor, ""]:
            with bank.on():
                rows = base.hidden(batch.tokens).flatten(0, 1)[batch.rows]
            total = self.soft * guide.loss(batch, rows) if guide else rows.new_zeros(())
            return total + self.labels * cross_entropy(base, rows, batch.labels) if self.labels else total

        log = train(loss, [Group(skill.tensors(), self.lr)], batches.at, Plan(self.steps), run)
        return skill.detach(), log

    def _guide(self, base: Base, examples: Sequence[Example], teacher: Active) -> Guide:
        if teacher.bank is not None:
            teacher.bank.check_head()
        guide = Guide(teacher, base, examples, self.temperature)
        if not guide.same and not self.labels:
            raise BadOption(
                f"labels is 0, but {teacher.base.name} and {base.name} have different tokens: sorted probabilities alone "
                "do not say which token is meant.",
                "--set labels=1",
            )
        return guide
