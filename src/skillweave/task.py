"""A task: a seeded source of examples and the judge of answers to them.

`example(i, split)` is a pure function of (task, seed, split, i), so a training run can be resumed, repeated and checked
without storing data. The splits train, valid and test never share content, whatever the seed: what belongs to which split is
decided by a hash of the content (`split_of`), not by a draw. A bounded train split starts again at its end, so that training
can go on for as many steps as it likes; valid and test never repeat silently.
"""

import copy
import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from .errors import BadData, NotFound
from .files import sha256_json

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Example:
    """One pair: `prompt` is what the model sees, `completion` what it should write; `tags` say what kind of example it is."""

    prompt: str
    completion: str
    tags: dict[str, str] = field(default_factory=dict, hash=False)


class Task(ABC):
    """A source of examples with a verifier; subclasses give `name`, `description`, `template` and `example`."""

    name: str
    description: str
    template: str = "{input}"
    splits: tuple[str, ...] = SPLITS
    setting: str = ""
    """What sets the task apart from others of its name: with the name it gives each its own random numbers."""
    depths: tuple[int, ...] = (1,)
    """How many steps an answer takes, one after the other: all the numbers that occur."""
    wrong_at_most: float = 0.0
    """The highest score in [0, 1] that a wrong answer may get; 0 for an exact match."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    @abstractmethod
    def example(self, i: int, split: str) -> Example:
        """Example `i` (0, 1, …) of `split`: the same one each time. BadData beyond the end of a bounded valid or test split."""

    def size(self, split: str) -> int | None:
        """How many examples `split` holds, or None if it never ends."""
        self.check_split(split)
        return None

    def score(self, example: Example, completion: str) -> float:
        """How right `completion` is, in [0, 1]: exact match of what counts in it (`final`)."""
        return float(self.final(completion) == self.final(example.completion))

    def scores(self, examples: Sequence[Example], completions: Sequence[str]) -> list[float]:
        """The score of each completion: all at once for tasks that judge elsewhere (`tasks.sandbox`)."""
        return [self.score(example, said) for example, said in zip(examples, completions, strict=True)]

    def faults(self) -> str:
        """What has gone wrong in judging so far, in words; nothing for tasks that judge by themselves."""
        return ""

    def final(self, completion: str) -> str:
        """What counts in `completion`: all of it, ends stripped, unless the task knows better (the end of a trace, say)."""
        return completion.strip()

    def fields(self, example: Example, completion: str) -> dict[str, float]:
        """The score of each part of the answer, in [0, 1]; empty for answers of one part."""
        return {}

    def content(self, example: Example) -> frozenset[str]:
        """What must not turn up in another split: the prompt, unless the task knows better."""
        return frozenset({example.prompt})

    def take(self, n: int, split: str, start: int = 0) -> list[Example]:
        """Examples `start` to `start + n - 1` of `split`; BadData if it has fewer."""
        size = self.size(split)
        if size is not None and start + n > size:
            raise BadData(
                f"the {split} split of `{self.name}` has {size} examples, and {start + n} were asked for.",
                f"ask for at most {max(size - start, 0)}",
            )
        return [self.example(i, split) for i in range(start, start + n)]

    def digest(self) -> str:
        """Content address of the task as it is now: name, template, seed, sizes and the first 64 examples of each split."""
        sizes = {split: self.size(split) for split in self.splits}
        rows = [(split, e.prompt, e.completion) for split in self.splits for e in self._first(64, split)]
        return sha256_json({"name": self.name, "template": self.template, "seed": self.seed, "sizes": sizes, "rows": rows})

    def prompt(self, text: str) -> str:
        """The user's `text` in the words the model was taught with."""
        return self.template.replace("{input}", text)

    def check_split(self, split: str) -> None:
        """NotFound unless the task has `split`."""
        if split not in self.splits:
            hint = f"choose from {', '.join(self.splits)}"
            raise NotFound("split", split, self.splits, where=f"task `{self.name}`", hint=hint)

    def place(self, i: int, split: str) -> int:
        """Where example `i` of a bounded `split` stands in it: train starts again at its end, the others raise BadData."""
        size = self.size(split)
        assert size is not None, f"`{split}` of {self.name} has no end"
        if split == "train" and size:
            return i % size
        if not 0 <= i < size:
            raise BadData(
                f"there is no example {i} in the {split} split of `{self.name}`, which has {size}.",
                f"ask for fewer than {size}" if size else "give more data",
            )
        return i

    def generator(self, i: int, split: str) -> random.Random:
        """The random numbers of example `i` of `split`, its own and the same in every process."""
        name = f"{self.name}/{self.setting}" if self.setting else self.name
        return random.Random(f"{name}/{self.seed}/{split}/{i}")

    def _first(self, n: int, split: str) -> list[Example]:
        size = self.size(split)
        return self.take(n if size is None else min(n, size), split)


def share(key: str) -> float:
    """A fixed number in [0, 1) for `key`: what decides the split, in every process and for every seed."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest()) / 2**48


def split_of(key: str, valid: float = 0.1, test: float = 0.1) -> str:
    """The split that content `key` belongs to; `valid` and `test` are shares of all keys, train has the rest."""
    at = share(key)
    return "test" if at < test else "valid" if at < test + valid else "train"


def check_task(task: Task, n: int = 50) -> None:
    """Check that `task` keeps the contract on the first `n` examples of each split; AssertionError says what it breaks.

    True answers score 1, wrong ones (empty, junk, another example's) at most `task.wrong_at_most`; asked again, in another
    order, of a fresh copy, the examples are the same; splits share neither a prompt nor content.
    """
    fresh = copy.deepcopy(task)
    for split in task.splits:
        examples = task._first(n, split)
        _check_pure(fresh, split, examples)
        for example in examples:
            _check_example(task, split, example)
            _check_scores(task, example, [other.completion for other in examples[:5]])
    assert_disjoint(task, n)


def assert_disjoint(task: Task, n: int | None = None) -> None:
    """AssertionError if two of train, valid and test share a prompt or content.

    Looks at the first `n` examples of each split, or at all of them (1000 of a split that never ends).
    """
    seen = {}
    for split in SPLITS:
        size = task.size(split)
        count = min((k for k in (n, size) if k is not None), default=1000)
        examples = task.take(count, split)
        seen[split] = {e.prompt for e in examples} | {f"content {key}" for e in examples for key in task.content(e)}
    for one, other in combinations(SPLITS, 2):
        shared = seen[one] & seen[other]
        _require(not shared, task, f"{one} and {other} share {min(shared, default='')!r}")


def _check_pure(fresh: Task, split: str, examples: list[Example]) -> None:
    for i in reversed(range(len(examples))):
        _require(fresh.example(i, split) == examples[i], fresh, f"example {i} of {split} is another one when asked again")


def _check_example(task: Task, split: str, example: Example) -> None:
    _require(bool(example.prompt.strip()), task, f"{split} has an empty prompt")
    _require(bool(example.completion.strip()), task, f"{split} has an empty completion")
    _require(bool(task.content(example)), task, f"{split} has an example without content")


def _check_scores(task: Task, example: Example, others: list[str]) -> None:
    truth = example.completion
    _require(task.score(example, truth) == 1, task, f"the true answer {truth!r} does not score 1")
    candidates = ["", "\n", "junk", truth + " junk", *others]
    for wrong in (answer for answer in candidates if task.final(answer).split() != task.final(truth).split()):
        score = task.score(example, wrong)
        _require(0 <= score <= task.wrong_at_most, task, f"{wrong!r} scores {score} where {truth!r} is right")
    for part, score in task.fields(example, truth).items():
        _require(score == 1, task, f"the true answer {truth!r} does not score 1 in {part}")


def _require(kept: bool, task: Task, broken: str) -> None:
    if not kept:
        raise AssertionError(f"task `{task.name}`: {broken}")
