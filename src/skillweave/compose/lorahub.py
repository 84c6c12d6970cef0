"""LoraHub (2307.13269): one strength a skill, found without gradients from a few examples.

    minimise  CE(examples; Σ_k w_k ΔW_k) + l1 · mean |w_k|,    |w_k| <= most,    from w = 0

by CMA-ES (`evolve.py`). All candidates of a generation are scored in one forward: each has its own slice of the batch, and its
strengths are those of that slice. As in the paper l1 is 0.05 and the bound 1.5; it scores 40 candidates. Other than there, what
is weighed is ΔW: the paper's code weighs A and B apart, which gives w² and products of different skills.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..composition import Composition
from ..delta import LowRank
from ..errors import BadOption
from ..files import atomic_write
from ..learn.batches import Batch, Batches
from ..learn.loop import Log, Run
from ..learn.loss import cross_entropy
from ..strength import PerSample
from ..task import Example
from .evolve import Evolution

POSITIONS = 4096
"""Positions of all candidates together that are computed at once."""
LEAST = 4
"""Candidates a generation: with fewer, the better half is one."""


@dataclass(frozen=True)
class LoraHub:
    """One strength per skill, searched without gradients; no new weights."""

    steps: int = 10
    """Generations."""
    candidates: int = 8
    """Strengths tried in each, at least 4."""
    l1: float = 0.05
    """Weight of the mean size of the strengths beside the loss in nats per token."""
    most: float = 1.5
    """Largest size of a strength."""
    spread: float = 0.5
    """Standard deviation of the first generation."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Composition, Log]:
        """Search on all of `examples` at once; the best candidate seen is taken."""
        self._check()
        bank = SkillBank(base, skills)
        bank.check_head()
        batches = whole(base, examples, POSITIONS // self.candidates)
        search = Evolution(np.zeros(len(skills)), self.spread, self.candidates, seed)
        known, log = _load(run.state, run.key), Log()
        best, found = np.inf, np.zeros(len(skills))
        began, cpu = time.monotonic(), time.process_time()
        for step in range(self.steps):
            asked = search.ask()
            inside = np.clip(asked, -self.most, self.most)
            if step == len(known):
                known.append(objective(bank, batches, torch.tensor(inside, dtype=torch.float32), self.l1).tolist())
                _save(run.state, run.key, known)
            scores = np.array(known[step])
            if scores.min() < best:
                best, found = scores.min(), inside[scores.argmin()]
            search.tell(asked, scores + np.square(asked - inside).sum(1))  # what lies outside is worth less than its edge
            log.loss.append(float(best))
            log.tokens += self.candidates * sum(batch.real for batch in batches)
            log.labels += self.candidates * sum(len(batch.labels) for batch in batches)
            run.tick(1, f"objective {best:.3f}")
        log.seconds, log.cpu_seconds = time.monotonic() - began, time.process_time() - cpu
        alpha = torch.tensor(found, dtype=torch.float32)
        return Composition(tuple(skills), alpha[:, None].repeat(1, base.layers)), log

    def _check(self) -> None:
        if self.candidates < LEAST:
            raise BadOption(f"candidates is {self.candidates}, but has to be at least {LEAST}.")
        for name in ("most", "spread"):
            if not getattr(self, name) > 0:
                raise BadOption(f"{name} is {getattr(self, name):g}, but has to be above 0.")


def whole(base: Base, examples: Sequence[Example], positions: int) -> list[Batch]:
    """All of `examples`, each once, in batches of about one length and at most `positions`. Raises BadData."""
    batches = Batches(base, examples, 1, 0)
    pairs = sorted(batches.pairs, key=lambda pair: len(pair[0]))
    found: list[Batch] = []
    while pairs:
        count = max(1, sum((i + 1) * (len(pair[0]) - 1) <= positions for i, pair in enumerate(pairs)))
        found.append(batches.collate(pairs[:count]))
        pairs = pairs[count:]
    return found


@torch.inference_mode()
def objective(
    bank: SkillBank, batches: Sequence[Batch], weights: Float[Tensor, "candidate skill"], l1: float
) -> Float[Tensor, " candidate"]:
    """Nats per labelled token of each candidate, all of them in the same forward, with the penalty of its size."""
    count = len(weights)
    total, labels = torch.zeros(count), 0
    for batch in batches:
        with bank.on(PerSample(weights.repeat_interleave(len(batch.tokens), 0))):
            hidden = bank.base.hidden(batch.tokens.repeat(count, 1)).view(count, -1, bank.base.head.shape[1])
        for number, rows in enumerate(hidden[:, batch.rows]):
            total[number] += cross_entropy(bank.base, rows, batch.labels) * len(batch.labels)
        labels += len(batch.labels)
    return total / labels + l1 * weights.abs().mean(1)


def _load(state: Path | None, key: str) -> list[list[float]]:
    """The scores of the generations that are done: with them and the seed, the search goes on where it was."""
    try:
        saved = json.loads(state.read_text()) if state is not None and state.is_file() else {}
        return saved["scores"] if saved.get("key") == key else []
    except (ValueError, KeyError, AttributeError):
        return []


def _save(state: Path | None, key: str, scores: list[list[float]]) -> None:
    if state is not None:
        atomic_write(state, json.dumps({"key": key, "scores": scores}))
