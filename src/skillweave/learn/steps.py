"""How likely each step of a completion is right, from the words alone: a quality to add to the reward of a right answer.

    P(step is right) = σ(w · [1, mean of log p, least log p])        log p of the step's tokens under a frozen base, in nats
    quality          = 2 · min over steps of P - 1                   in [-1, 1]

The base is the one that practice starts from, whatever the temperature that the completion was drawn at. The three weights are
a logistic regression on steps of its own early completions, each known to be right or wrong. It is the smallest thing that can
take the place of a process reward model (as in paper 23, 2412.17256).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..base import Base
from ..composition import Active
from ..task import Example
from .batches import collate
from .loss import token_nats
from .sampling import Sample, sample

Known = Callable[[Example, str], bool]
"""Whether a step (a line of a completion) of an example is right."""


@dataclass(frozen=True)
class StepScorer:
    """A quality of completions; call it as `rollout.Reward`."""

    base: Base
    weights: Float[Tensor, " feature"]

    @classmethod
    def fitted(cls, base: Base, examples: Sequence[Example], known: Known, tokens: int, seed: int) -> "StepScorer":
        """Learned from the steps of 8 completions (of at most `tokens`) of each of `examples`."""
        rows, right = list[list[float]](), list[bool]()
        drawn = sample(Active(base), [e.prompt for e in examples], 8, max_new_tokens=tokens, seed=seed)
        for example, group in zip(examples, drawn, strict=True):
            for one, steps in zip(group, features(base, example, group), strict=True):
                rows += steps
                right += [known(example, line) for line in one.text.split("\n")]
        return cls(base, logistic(torch.tensor(rows), torch.tensor(right)))

    def __call__(self, example: Example, group: Sequence[Sample]) -> list[float]:
        """The quality of each completion of one prompt."""
        found = features(self.base, example, group)
        return [2 * (torch.tensor(steps) @ self.weights).sigmoid().min().item() - 1 for steps in found]


@torch.no_grad()
def features(base: Base, example: Example, group: Sequence[Sample]) -> list[list[list[float]]]:
    """Of each completion, for each of its lines: 1, and the mean and the least log-probability of its tokens, in nats."""
    before, line_end = base.encode(example.prompt, start=True), base.encode("\n")
    batch = collate([([*before, *one.tokens], len(one.tokens)) for one in group], base.pad)
    nats = token_nats(base, base.hidden(batch.tokens).flatten(0, 1)[batch.rows], batch.labels).tolist()
    found, at = [], 0
    for one in group:
        lines: list[list[float]] = [[]]
        for token in one.tokens:
            lines[-1].append(-nats[at])
            at += 1
            if [token] == line_end:
                lines.append([])
        found.append([[1.0, sum(line) / max(1, len(line)), min(line, default=0.0)] for line in lines])
    return found


def logistic(x: Float[Tensor, "row feature"], y: Tensor) -> Float[Tensor, " feature"]:
    """The weights that make `y` (true or false, a row) likeliest, a little shrunk; by Newton's method."""
    weights, wide = torch.zeros(x.shape[1], dtype=torch.float64), x.double()
    for _ in range(20):
        p = (wide @ weights).sigmoid()
        curvature = (wide.T * (p * (1 - p))) @ wide + torch.eye(len(weights), dtype=torch.float64)
        weights = weights + torch.linalg.solve(curvature, wide.T @ (y.double() - p) - weights)
    return weights.float()
