"""A small world for papers on composing: a base from scratch, six skills that it lacks, a task that nobody has learned.

The tasks apply two functions to short words, one after the other (`R H: abba` is its word reversed, then each letter moved on).
The base is trained on the single functions and on most chains; each skill is a LoRA on a chain that it has not seen; one more
chain is held out. A seed draws which is which, the base and all examples. Chains that are the same function count as one.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

from ..base import Base, TinyBase
from ..composition import Active
from ..delta import LowRank
from ..learn.loss import mean_loss
from ..learn.pretrain import pretrain
from ..learn.sft import SFT
from ..measure.score import evaluate
from ..task import Example
from ..tasks.primitives import CHAINED, Mixture, Words

ALPHABET = "\n :ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LETTERS = dict(zip(CHAINED, "RSHDTWU", strict=True))
ALIKE = 0.4
"""What is held out has the answers of no other task on more than this share of words."""
SCORER = Words()
"""Every task on words scores alike."""


@dataclass(frozen=True)
class World:
    """What a seed draws."""

    base: Base
    tasks: tuple[Words, ...]
    """One a skill, in order."""
    skills: Mapping[str, LowRank]
    """By the name of their tasks."""
    held: Words
    """A task that neither the base nor a skill has learned."""
    known: tuple[Words, ...]
    """What the base has learned."""

    @property
    def same(self) -> float:
        """Share of test examples on which some other task has the answer of the held-out one, at most."""
        test = self.held.take(100, "test")
        words = [e.prompt.rpartition(": ")[2].strip() for e in test]
        counts = (
            sum(t.answer(w) == e.completion for w, e in zip(words, test, strict=True)) for t in (*self.tasks, *self.known)
        )
        return max(counts) / len(test)


def words(chain: Sequence[str], seed: int) -> Words:
    """The task of applying functions one after another, told by their letters."""
    return Words(seed, chain, letters="abcdefgh", lengths=(3, 4), labels=LETTERS)


@cache
def answers(chain: tuple[str, ...]) -> tuple[str, ...]:
    """What functions, one after another, make of 300 training words."""
    sample = words(("copy",), 0).take(300, "train")
    task = words(chain, 0)
    return tuple(task.answer(e.completion) for e in sample)


def chains() -> list[tuple[str, ...]]:
    """Chains of two functions, each a function of its own: none is another one, or a single one, under a second name."""
    seen = {answers((name,)) for name in CHAINED}
    found: list[tuple[str, ...]] = []
    for pair in permutations(CHAINED, 2):
        if answers(pair) not in seen:
            found.append(pair)
            seen.add(answers(pair))
    return found


def likeness(chain: tuple[str, ...]) -> float:
    """The largest share of words on which another chain, or a single function, has the answer of `chain`."""
    others = [answers(other) for other in (*chains(), *((name,) for name in CHAINED)) if other != chain]
    counts = (sum(a == b for a, b in zip(answers(chain), other, strict=True)) for other in others)
    return max(counts) / len(answers(chain))


def world(seed: int, width: int, pretraining: int, steps: int, skills: int = 6) -> World:
    """A base of `width` after `pretraining` steps of 64 examples, and `skills` after `steps` steps of 32 examples each."""
    draw = random.Random(f"{seed}:chains")
    last = draw.choice([chain for chain in chains() if likeness(chain) <= ALIKE])
    others = [chain for chain in chains() if chain != last]
    held, drawn = words(last, seed), [words(chain, seed) for chain in draw.sample(others, len(others))]
    tasks, rest = drawn[:skills], drawn[skills:]
    known = [words([name], seed) for name in CHAINED] + rest
    mixture = Mixture(known, [2.0] * len(CHAINED) + [1.0] * len(rest), seed)
    start, examples = TinyBase(width, seed, ALPHABET, window=64), mixture.take(pretraining * 64, "train")
    base, _ = pretrain(start, examples, steps=pretraining, batch=64, lr=3e-3, seed=seed)
    sft = SFT(steps, 32, 3e-3)
    made = {task.name: sft.fit(base, task.take(steps * 32, "train"), seed)[0] for task in tasks}
    return World(base, tuple(tasks), made, held, tuple(known))


def examples_of(tasks: Sequence[Words], n: int, split: str) -> list[Example]:
    """`n` of each task, in turn."""
    return [task.example(i, split) for i in range(n) for task in tasks]


def right(use: Active, examples: Sequence[Example]) -> tuple[float, ...]:
    """1 for each example that is answered exactly, else 0."""
    return evaluate(use, SCORER, examples, batch=256).exact


def loss(use: Active, examples: Sequence[Example]) -> float:
    """Nats per token; strengths are constants."""
    alpha: Any = use.alpha
    assert use.bank is not None
    return mean_loss(use.bank, examples, alpha)


def tuned(fit: Callable[[float], Active], rates: Sequence[float], held: Sequence[Example]) -> tuple[float, Active]:
    """The rate, and what it gave, that has the lowest loss on `held`."""
    return min(((rate, fit(rate)) for rate in rates), key=lambda pair: loss(pair[1], held))


def share(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
