"""Batches of examples of about one length, as a pure function of (examples, batch size, seed, step)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from ..base import Base
from ..errors import BadData
from ..task import Example

WINDOW = 8
"""Batches that are sorted by length together, at most a pass: enough to waste little padding, few enough to stay mixed."""


@dataclass(frozen=True)
class Batch:
    tokens: Int[Tensor, "batch time"]
    """Padded on the right, where causal rows never look."""
    rows: Int[Tensor, " label"]
    """Which of the batch·time positions predict a label."""
    labels: Int[Tensor, " label"]
    """The tokens they should predict."""
    real: int
    """Tokens that are not padding."""
    samples: tuple[int, ...] = ()
    """Which of the examples each of its samples is, for a loss that tells them apart."""

    @property
    def positions(self) -> int:
        """Positions that are computed, padding included."""
        return self.tokens.numel()

    def pieces(self, positions: int) -> list["Batch"]:
        """The same examples in batches of at most `positions` (at least one example each); `real` stays with the whole."""
        count, width = self.tokens.shape
        size = max(1, positions // width)
        if size >= count:
            return [self]
        owner = self.rows // width
        cuts = [(start, (owner >= start) & (owner < start + size)) for start in range(0, count, size)]
        return [
            Batch(self.tokens[i : i + size], self.rows[at] - i * width, self.labels[at], 0, self.samples[i : i + size])
            for i, at in cuts
        ]


class Batches:
    """Shuffled passes over `examples`, cut into batches of `size` rows of similar length.

    The labels are the tokens of the completions, with `whole_text` those of the prompts, too.
    """

    def __init__(self, base: Base, examples: Sequence[Example], size: int, seed: int, whole_text: bool = False):
        if not examples:
            raise BadData("there are no examples to learn from.", "give a task or file with at least one example")
        self.size, self.seed, self.pad = size, seed, base.pad
        self.pairs = [base.encode_pair(e.prompt, e.completion) for e in examples]
        if whole_text:
            self.pairs = [(tokens, len(tokens) - 1) for tokens, _ in self.pairs]
        self.window = min(WINDOW, max(1, len(examples) // size))  # a longer one would put copies of an example side by side
        self._window: tuple[int, list[list[int]]] = (-1, [])
        self._epoch: tuple[int, list[int]] = (-1, [])

    def at(self, step: int) -> Batch:
        """The batch of step `step`; asking for it again, or out of order, gives the same one."""
        number = step // self.window
        if self._window[0] != number:
            self._window = (number, self._cut(number))
        chosen = self._window[1][step % self.window]
        return replace(self.collate([self.pairs[i] for i in chosen]), samples=tuple(chosen))

    def _cut(self, number: int) -> list[list[int]]:
        span = self.window * self.size
        chosen = [self._order(at // len(self.pairs))[at % len(self.pairs)] for at in range(number * span, (number + 1) * span)]
        chosen.sort(key=lambda i: len(self.pairs[i][0]))
        batches = [chosen[start : start + self.size] for start in range(0, span, self.size)]
        random.Random(f"{self.seed}:window:{number}").shuffle(batches)
        return batches

    def _order(self, epoch: int) -> list[int]:
        if self._epoch[0] != epoch:
            order = list(range(len(self.pairs)))
            random.Random(f"{self.seed}:epoch:{epoch}").shuffle(order)
            self._epoch = (epoch, order)
        return self._epoch[1]

    def collate(self, pairs: Sequence[tuple[list[int], int]]) -> Batch:
        """One batch of (tokens, number of answer tokens) pairs."""
        return collate(pairs, self.pad)


def collate(pairs: Sequence[tuple[list[int], int]], pad: int) -> Batch:
    """One batch of (tokens, number of answer tokens) pairs, padded with the token `pad`."""
    width = max(len(tokens) for tokens, _ in pairs) - 1  # the last token is only ever a label
    tokens, rows, labels = [], [], []
    for i, (sequence, answer) in enumerate(pairs):
        tokens.append(sequence[:-1] + [pad] * (width + 1 - len(sequence)))
        first = len(sequence) - answer
        rows += range(i * width + first - 1, i * width + len(sequence) - 1)
        labels += sequence[first:]
    real = sum(len(sequence) - 1 for sequence, _ in pairs)
    return Batch(torch.tensor(tokens), torch.tensor(rows), torch.tensor(labels), real)
