"""What strengths are learned for (paper 47, 2407.02880): batches, and the loss of each.

    ce       CE(task)
    negate   -min(CE(task), log V) + CE(control)
    pseudo   1/B Σ_b 1[p(ŷ_b) >= sure] CE(ŷ_b)

`negate` unlearns a task and keeps others. The loss of who knows nothing, log V for V tokens, bounds its first term: without
end, it would be bought with all that is to be kept. In `pseudo`, ŷ_b is the greedy answer to prompt b with the
strengths of this very step: FixMatch (2001.07685) without a second view of the input, since text has no distortion that is sure
to keep its meaning. p is the probability of the whole answer and its end, so one that was cut off is not trusted; no label of
the task is read.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from ..bank import SkillBank
from ..errors import BadOption
from ..learn.batches import Batch, Batches
from ..learn.loss import bank_loss, mean_loss
from ..measure.choice import log_probabilities
from ..strength import Constant
from ..task import Example

OBJECTIVES = ("ce", "negate", "pseudo")
Alpha = Callable[[], Constant]
"""The strengths as they are now."""


class Objective(ABC):
    @abstractmethod
    def at(self, step: int) -> Batch:
        """What a step reads."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Of a batch or a piece of one."""

    @abstractmethod
    def held(self) -> float:
        """The same on the examples that were kept apart."""


@dataclass(frozen=True)
class Ce(Objective):
    """Answer as the examples do."""

    bank: SkillBank
    alpha: Alpha
    batches: Batches
    apart: Sequence[Example] = ()

    def at(self, step: int) -> Batch:
        return self.batches.at(step)

    def loss(self, batch: Batch) -> Tensor:
        return bank_loss(self.bank, batch, self.alpha())

    def held(self) -> float:
        return mean_loss(self.bank, self.apart, self.alpha())


@dataclass(frozen=True)
class Weighed(Batch):
    """A batch whose loss counts `weight` times, unitless; a negative one is to grow."""

    weight: float = 1.0


@dataclass(frozen=True)
class Several(Batch):
    """Batches of one step, each with the weight of its mean loss in the step's."""

    parts: Sequence[tuple[Batch, float]] = ()

    @staticmethod
    def of(*parts: tuple[Batch, float]) -> "Several":
        """All tokens in one row."""
        starts = accumulate((batch.tokens.numel() for batch, _ in parts), initial=0)
        rows = [batch.rows + start for (batch, _), start in zip(parts, starts, strict=False)]
        flat, labels = ([getattr(batch, name).flatten() for batch, _ in parts] for name in ("tokens", "labels"))
        real = sum(batch.real for batch, _ in parts)
        return Several(torch.cat(flat)[None], torch.cat(rows), torch.cat(labels), real, parts=parts)

    def pieces(self, positions: int) -> list[Batch]:
        """Pieces are weighed by their labels: what makes up for that is part of the weights."""
        found: list[Batch] = []
        for batch, weight in self.parts:
            share = weight * len(self.labels) / max(1, len(batch.labels))
            found += [Weighed(p.tokens, p.rows, p.labels, p.real, p.samples, share) for p in batch.pieces(positions)]
        return found or [self]


@dataclass(frozen=True)
class Negate(Objective):
    """Unlearn the examples, keep what the others show."""

    bank: SkillBank
    alpha: Alpha
    target: Batches
    control: Batches
    apart: Sequence[Example] = ()
    control_apart: Sequence[Example] = ()

    @property
    def most(self) -> float:
        """Nats per token of a guess among all tokens."""
        return math.log(len(self.bank.base.head))

    def at(self, step: int) -> Batch:
        return Several.of((self.target.at(step), -1.0), (self.control.at(step), 1.0))

    def loss(self, batch: Batch) -> Tensor:
        assert isinstance(batch, Weighed)
        nats = bank_loss(self.bank, batch, self.alpha())
        return batch.weight * (nats if batch.weight > 0 else nats.clamp(max=self.most))

    def held(self) -> float:
        target, control = (mean_loss(self.bank, some, self.alpha()) for some in (self.apart, self.control_apart))
        return control - min(target, self.most)


@dataclass(frozen=True)
class Pseudo(Objective):
    """Answer as the model itself does where it is sure."""

    bank: SkillBank
    alpha: Alpha
    drawn: Sequence[Example]
    """In the order in which the steps read them; their completions are left alone."""
    size: int
    sure: float
    """The probability from which an answer is trusted."""
    longest: int
    """Tokens of an answer."""

    @torch.no_grad()
    def at(self, step: int) -> Batch:
        prompts = [example.prompt for example in self.drawn[step * self.size : (step + 1) * self.size]]
        base = self.bank.base
        with self.bank.on(self.alpha()):
            answers = base.generate(prompts, self.longest)
            own = [Example(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
            batches = Batches(base, own, len(own), 0)
            whole = batches.collate(batches.pairs)
            hidden = base.hidden(whole.tokens)
            nats = log_probabilities(base, hidden.flatten(0, 1)[whole.rows], whole.labels[:, None])[:, 0]
        total = torch.zeros(len(own)).index_add(0, whole.rows // whole.tokens.shape[1], nats.float())
        trusted = [pair for pair, sum_ in zip(batches.pairs, total.tolist(), strict=True) if sum_ >= math.log(self.sure)]
        if not trusted:
            none = torch.zeros(0, dtype=torch.long)
            return Several(none[None], none, none, 0)
        return Several.of((batches.collate(trusted), len(trusted) / len(own)))

    def loss(self, batch: Batch) -> Tensor:
        if not isinstance(batch, Weighed):  # nobody was sure: a gradient of zero, so that the optimiser counts the step
            alpha = self.alpha()
            return 0.0 * (alpha if isinstance(alpha, Tensor) else alpha.alpha).sum()
        return batch.weight * bank_loss(self.bank, batch, self.alpha())

    def held(self) -> float:
        raise AssertionError("nothing is kept apart where no label is read")


def control_of(carried: Mapping[str, Sequence[Example]], forget: str) -> list[Example]:
    """What all skills but `forget` carry along: what is to be kept. Raises BadOption."""
    if forget not in carried:
        raise BadOption(
            f"negate has to know whose task goes, and forget is `{forget}`.",
            f"--set forget=NAME, with NAME one of {', '.join(carried)}",
        )
    kept = [example for name, examples in carried.items() if name != forget for example in examples]
    if not kept:
        raise BadOption(
            f"without `{forget}` there is no example of what is to be kept.", "compose it with a skill whose task is to stay"
        )
    return kept
