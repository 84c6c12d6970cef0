"""What a new skill costs elsewhere: on general text, and on the tasks of other skills that it is added to.

    rise = Σ (nats with the skill - nats without any) / Σ tokens        over texts, nats per token

"Without" is the base alone. The same texts are read on both sides in the same batches, so that neither rounding nor the choice
of texts tells them apart, and the interval is a bootstrap over texts. They are paragraphs of Python's language reference; one
that the skill was shown is left out. While a skill is off it harms no other one: what is measured of the others is their exact
match alone, and added to the new one, both as strong as they were trained.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from ..base import Base
from ..composition import Active
from ..errors import BadOption
from ..reports import Change, Retention
from ..task import Example, Task
from .score import evaluate
from .stats import paired, per_item, wilson
from .text import TWINS, digest, nats, paragraphs

TEXTS = 24
"""Paragraphs that are read."""
READ = 32
"""Tokens of each, from its beginning."""
BATCH = 16
"""Texts that are read together."""
UNIT = "nats/token"


@dataclass(frozen=True)
class Other:
    """Another skill, alone and added to the new one, with examples of its own task that neither has learned from."""

    alone: Active
    both: Active
    task: Task
    examples: Sequence[Example]


def check_limit(limit: float | None) -> None:
    """Raises BadOption if `limit` cannot be held, before anything is learned."""
    if limit is None:
        return
    if not 0 <= limit < math.inf:
        raise BadOption(f"max-forgetting is {limit:g}, but has to be a number of nats/token, at least 0.", "try 0.05")
    if not paragraphs():
        raise BadOption(
            "max-forgetting needs Python's language reference (pydoc_data), which this Python lacks.", "use a full Python"
        )


def retention(
    base: Base,
    use: Active,
    shown: Iterable[Example],
    others: Mapping[str, Other] = MappingProxyType({}),
    left_out: Mapping[str, str] = MappingProxyType({}),
    limit: float | None = None,
) -> Retention:
    """What `use`, the new skill on `base`, has changed; `shown` is what it has learned from."""
    texts = unseen(shown)
    before, after = _read(Active(base), texts), _read(use, texts)
    skills = {name: _tried(other) for name, other in others.items()}
    tokens = sum(count for _, count in before)
    return Retention(_text(before, after), digest(texts), tokens, skills, dict(left_out), limit)


def unseen(shown: Iterable[Example], n: int = TEXTS) -> list[str]:
    """`n` paragraphs, the same ones each time but for those that a skill with these examples has seen a piece of."""
    told = "\n".join(" ".join(f"{e.prompt}{e.completion}".split()) for e in shown)
    order = random.Random("retention").sample(paragraphs(), len(paragraphs()))
    fresh = (p for p in order if not any(piece in told for piece in (p[:TWINS], p[len(p) // 2 :][:TWINS], p[-TWINS:])))
    return [text for text, _ in zip(fresh, range(n), strict=False)]


def _read(use: Active, texts: Sequence[str]) -> list[tuple[float, int]]:
    """Nats and tokens of each text."""
    found = []
    for at in range(0, len(texts), BATCH):
        some = texts[at : at + BATCH]
        with use.on(some), torch.inference_mode():
            found += nats(use.base, some, READ)
    return found


def _text(before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> Change | None:
    if not before:
        return None
    counts = [count for _, count in before]
    without, given = ([total for total, _ in side] for side in (before, after))
    rises = [b - a for a, b in zip(without, given, strict=True)]
    return Change(*(per_item(totals, counts, UNIT) for totals in (without, given, rises)))


def _tried(other: Other) -> Change:
    alone, both = (evaluate(use, other.task, other.examples).exact for use in (other.alone, other.both))
    n = len(other.examples)
    return Change(wilson(sum(alone), n), wilson(sum(both), n), paired(both, alone).difference)
