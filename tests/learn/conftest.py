"""A base and a task for methods that practise: it says this and that, and what begins with one of two letters is right."""

import pytest

from skillweave.task import Example, Task


class Pick(Task):
    """Six prompts that all want a `b` or a `c` first."""

    name, description = "pick", "b or c"

    def example(self, i: int, split: str) -> Example:
        return Example(f"{'uvwxyz'[i % 6]}\n", "b")

    def score(self, example: Example, completion: str) -> float:
        return float(completion[:1] in ("b", "c"))


@pytest.fixture(scope="session")
def pick() -> Task:
    return Pick()


@pytest.fixture(scope="session")
def picker(loud):
    """A base of few letters whose answers vary; nothing may change it."""
    return loud(alphabet="abcduvwxyz\n")
