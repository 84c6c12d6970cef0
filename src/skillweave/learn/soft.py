"""How far a student's next-token distribution q is from a teacher's p, where both have read the same text.

One tokenizer (1503.02531), z the logits, T the temperature:

    T² · KL(p ‖ q),    p = softmax(z_teacher / T),    q = softmax(z_student / T)

Different tokenizers (ULD, 2402.12030): tokens cannot be matched, so the probabilities are, sorted from the highest down:

    Σ_i |p_(i) - q_(i)|

which says how sure to be, not of what: the labels say that. The authors pair the first, second, … tokens of an answer. Here the
pairs are where both tokenizers have a boundary at the same character, so that both predict what follows the same text.
Beyond the `TOP` likeliest, p and q count as one sum each, which makes the distance at most smaller, never larger.

Memory is `ROWS` rows of logits, however many labels there are: what is dropped is computed again on the way back.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..base import Base
from ..composition import Active
from ..task import Example
from .batches import Batch, collate

ROWS = 32
"""Rows of logits at a time: 32 MiB in fp32 for a vocabulary of 262,144."""
TOP = 256
"""Probabilities that are compared one by one between different tokenizers."""
Distance = Callable[[Float[Tensor, "row ours"], Float[Tensor, "row theirs"]], Float[Tensor, " row"]]
"""Logits of the student and of the teacher -> how far apart they are."""


def divergence(student: Float[Tensor, "row token"], teacher: Float[Tensor, "row token"]) -> Float[Tensor, " row"]:
    """KL(p ‖ q) of each row, in nats."""
    p, q = (z.float().log_softmax(1) for z in (teacher, student))
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def sorted_distance(
    student: Float[Tensor, "row ours"], teacher: Float[Tensor, "row theirs"], top: int | None = None
) -> Float[Tensor, " row"]:
    """Σ_i |p_(i) - q_(i)| of each row, unitless, in [0, 2]."""
    count = TOP if top is None else top
    p, q = (_highest(z.float().softmax(1), count) for z in (teacher, student))
    return (p - q).abs().sum(1) + (p.sum(1) - q.sum(1)).abs()


def _highest(p: Float[Tensor, "row token"], count: int) -> Float[Tensor, "row count"]:
    found = p.topk(min(count, p.shape[1]), 1).values
    return F.pad(found, (0, count - found.shape[1]))


class Guide:
    """A teacher beside a student, on the same examples."""

    def __init__(self, teacher: Active, base: Base, examples: Sequence[Example], temperature: float):
        self.teacher, self.base, self.temperature = teacher, base, temperature
        self.prompts = [e.prompt for e in examples]
        self.pairs = [teacher.base.encode_pair(e.prompt, e.completion) for e in examples]
        own = [base.encode_pair(e.prompt, e.completion) for e in examples]
        self.counts = [count for _, count in own]
        self.same = same_vocabulary(teacher.base, base) and own == self.pairs
        if self.same:
            self.places = [[(i, i) for i in range(count)] for count in self.counts]
        else:
            self.places = [meeting(base, teacher.base, e.completion) for e in examples]

    def loss(self, batch: Batch, rows: Float[Tensor, "label width"]) -> Float[Tensor, ""]:
        """The distance at the labels of `batch` where both have read the same text, per label; `rows` are the student's."""
        ours, theirs = self._rows(batch)
        parts = [
            checkpoint(self._sum, rows[ours[at : at + ROWS]], theirs[at : at + ROWS], use_reentrant=False)
            for at in range(0, len(ours), ROWS)
        ]
        return torch.stack(parts).sum() / max(1, len(batch.labels))

    def _sum(self, ours: Float[Tensor, "row width"], theirs: Float[Tensor, "row depth"]) -> Float[Tensor, ""]:
        t = self.temperature
        student, teacher = self.base.logits(ours).float() / t, self.teacher.base.logits(theirs).float() / t
        return t * t * divergence(student, teacher).sum() if self.same else sorted_distance(student, teacher).sum()

    @torch.no_grad()
    def _rows(self, batch: Batch) -> tuple[Int[Tensor, " row"], Float[Tensor, "row depth"]]:
        """Which labels of `batch` have a partner, and the teacher's hidden states at it."""
        read = collate([self.pairs[i] for i in batch.samples], self.teacher.base.pad)
        with self.teacher.on([self.prompts[i] for i in batch.samples]):
            hidden = self.teacher.base.hidden(read.tokens).flatten(0, 1)[read.rows]
        ours, theirs, here, there = [], [], 0, 0
        for i in batch.samples:
            ours += [here + place for place, _ in self.places[i]]
            theirs += [there + place for _, place in self.places[i]]
            here, there = here + self.counts[i], there + self.pairs[i][1]
        return torch.tensor(ours), hidden[torch.tensor(theirs)]


def same_vocabulary(one: Base, other: Base) -> bool:
    """Whether a token number stands for the same text on both."""
    vocabularies = [getattr(b.tokenizer, "alphabet", None) or b.tokenizer.get_vocab() for b in (one, other)]
    return vocabularies[0] == vocabularies[1] and len(one.head) == len(other.head)


def meeting(one: Base, other: Base, text: str) -> list[tuple[int, int]]:
    """How many tokens of `text` each of two tokenizers has read where both have read the same characters; (0, 0) is first."""
    here, there = boundaries(one, text), boundaries(other, text)
    return [(here[at], there[at]) for at in sorted(here.keys() & there.keys())]


def boundaries(base: Base, text: str) -> dict[int, int]:
    """Characters of `text` that are read -> tokens that are read, wherever the tokens so far are whole characters of it."""
    tokens = base.encode(text)
    begun = ((base.decode(tokens[:count]), count) for count in range(len(tokens) + 1))
    return {len(part): count for part, count in begun if text.startswith(part)}
