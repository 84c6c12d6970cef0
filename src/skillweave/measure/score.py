"""Answer the examples of a task greedily and score the answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..base import Base
from ..composition import Active
from ..task import Example, Task

ANSWER_TOKENS = 8
"""New tokens allowed beyond the longest right answer."""


@dataclass(frozen=True)
class Scores:
    """One run on a list of examples."""

    answers: tuple[str, ...]
    exact: tuple[float, ...]
    """Score of each answer, in [0, 1]."""
    fields: dict[str, tuple[float, ...]]
    """Score of each part of each answer, in [0, 1]."""
    seconds: float

    def of(self, keep: Sequence[int]) -> "Scores":
        """The same run on some of its examples."""
        pick = [self.exact[i] for i in keep]
        fields = {name: tuple(values[i] for i in keep) for name, values in self.fields.items()}
        return Scores(tuple(self.answers[i] for i in keep), tuple(pick), fields, self.seconds)


def evaluate(
    base: Base | Active,
    task: Task,
    examples: Sequence[Example],
    shots: Sequence[Example] = (),
    batch: int = 64,
) -> Scores:
    """Let `base`, alone or with skills on, answer each example; `shots` are shown first."""
    began = time.monotonic()
    longest = max((len(base.encode(e.completion)) for e in examples), default=0)
    answers = base.generate([e.prompt for e in examples], longest + ANSWER_TOKENS, few_shot(shots), batch)
    if shots:  # a model that has only been shown examples goes on with the next one: its answer ends where theirs do
        end = "\n\n" if any("\n" in shot.completion for shot in shots) else "\n"
        answers = [answer.split(end)[0] for answer in answers]
    exact = tuple(task.scores(examples, answers))
    parts = [task.fields(e, a) for e, a in zip(examples, answers, strict=True)]
    fields = {name: tuple(part[name] for part in parts) for name in (parts[0] if parts else {})}
    return Scores(tuple(answers), exact, fields, time.monotonic() - began)


def few_shot(shots: Sequence[Example]) -> str:
    """Solved examples as the text that stands before a question."""
    return "".join(f"{shot.prompt}{shot.completion}\n\n" for shot in shots)
