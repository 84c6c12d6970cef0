"""What a task gives for right answers, for wrong ones and for guessing: whether its scores can be trusted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..task import Example, Task, check_task

NOTHING = ("", " ", "\n", "None")
"""What a model says that says nothing."""
JUNK = ("junk", "0", "yes", "the answer is", "?" * 80, "\N{REPLACEMENT CHARACTER}")


@dataclass(frozen=True)
class Audit:
    """Mean scores, in [0, 1], over the first examples of the test split."""

    task: str
    n: int
    """Test examples that were looked at."""
    truth: float
    """The true answer: has to be 1."""
    nothing: float
    """An empty answer, at best."""
    junk: float
    """Text that has to do with no task, at best."""
    other: float
    """The answer of the next example: above 0 where answers repeat."""
    guess: float
    """The most common answer of the training split (what counts in it, without its steps): what guessing reaches."""
    wrong_at_most: float
    """What the task declares that a wrong answer may get."""
    fault: str
    """How the task breaks its contract (`check_task`), or nothing."""

    @property
    def sound(self) -> bool:
        return not self.fault


def audit(task: Task, n: int = 100) -> Audit:
    """Look at up to `n` examples of each split of `task`."""
    examples = task.take(_up_to(n, task.size("test")), "test")
    answers = [example.completion for example in examples]
    guess = Counter(task.final(e.completion) for e in task.take(_up_to(n, task.size("train")), "train")).most_common(1)
    return Audit(
        task.name,
        len(examples),
        _mean(task.score(e, e.completion) for e in examples),
        _mean(_best(task, e, NOTHING) for e in examples),
        _mean(_best(task, e, JUNK) for e in examples),
        _mean(task.score(e, answer) for e, answer in zip(examples, answers[1:] + answers[:1], strict=True)),
        _mean(task.score(e, guess[0][0]) for e in examples) if guess else 0.0,
        task.wrong_at_most,
        _fault(task, n),
    )


def _fault(task: Task, n: int) -> str:
    try:
        check_task(task, n)
    except AssertionError as broken:
        return str(broken).removeprefix(f"task `{task.name}`: ")
    return ""


def _best(task: Task, example: Example, answers: Iterable[str]) -> float:
    """The best score of `answers` that are not the right one."""
    right = task.final(example.completion)
    return max((task.score(example, answer) for answer in answers if task.final(answer) != right), default=0.0)


def _mean(scores: Iterable[float]) -> float:
    found = list(scores)
    return sum(found) / max(1, len(found))


def _up_to(n: int, size: int | None) -> int:
    return n if size is None else min(n, size)
