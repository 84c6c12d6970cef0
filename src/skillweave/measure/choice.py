"""Ranked choice: which of several answers does the model find likeliest?

The score of a choice is Σ log p(token | what stands before it), in nats, over the tokens of the choice. A prompt is read once
for all of its choices, and only rows that predict a token of a choice reach the head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..base import Base

ROWS, TILE = 256, 8_192
"""Rows and columns of logits at a time: 8 MiB in fp32."""


@dataclass(frozen=True)
class Choice:
    """A prompt with the answers to choose from; one of them is right."""

    prompt: str
    """Ends without a space: the space before the answer belongs to the answer's first token."""
    choices: tuple[str, ...]
    answer: int
    """Which of `choices` is right."""
    kind: str = ""
    """What sort of question it is."""


def chance(items: Sequence[Choice]) -> float:
    """The expected score of who chooses blindly, in [0, 1]."""
    return sum(1 / len(item.choices) for item in items) / len(items)


def right(base: Base, items: Sequence[Choice], batch: int = 32) -> list[float]:
    """1 for each item whose right answer is the likeliest, else 0."""
    nats = log_likelihoods(base, items, batch)
    return [float(max(range(len(row)), key=row.__getitem__) == item.answer) for row, item in zip(nats, items, strict=True)]


@torch.inference_mode()
def log_likelihoods(base: Base, items: Sequence[Choice], batch: int = 32) -> list[list[float]]:
    """Of each item the log-likelihood of each of its choices, in nats; minus infinity for what is not a number."""
    prompts = [base.encode(item.prompt, start=True) for item in items]
    order = sorted(range(len(items)), key=lambda i: len(prompts[i]))
    found: list[list[float]] = [[] for _ in items]
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        choices = [[base.encode(f" {choice}") for choice in items[i].choices] for i in some]
        for i, nats in zip(some, _batch(base, [prompts[i] for i in some], choices), strict=True):
            found[i] = [-math.inf if math.isnan(x) else x for x in nats]
    return found


def log_probabilities(
    base: Base, rows: Float[Tensor, "row width"], tokens: Int[Tensor, "row token"]
) -> Float[Tensor, "row token"]:
    """Of each row of hidden states the log-probability of some next tokens, in nats; the vocabulary passes by in tiles."""
    parts = []
    for at in range(0, len(rows), ROWS):
        some, asked = rows[at : at + ROWS], tokens[at : at + ROWS]
        different, column = asked.unique(return_inverse=True)
        tiles = (base.logits(some, slice(v, v + TILE)).float().logsumexp(1) for v in range(0, len(base.head), TILE))
        total = torch.stack(list(tiles)).logsumexp(0)
        parts.append(base.logits(some, different).float().gather(1, column) - total[:, None])
    return torch.cat(parts)


def _batch(base: Base, prompts: list[list[int]], choices: list[list[list[int]]]) -> list[list[float]]:
    width = max(map(len, prompts))
    tokens = torch.tensor([[base.pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    hidden, memory = base.read(tokens, mask, (mask.cumsum(1) - 1).clamp(min=0))
    most = max(map(len, choices))
    first = torch.tensor([[choice[0] for choice in row] + [base.pad] * (most - len(row)) for row in choices])
    nats = [row[: len(c)] for row, c in zip(log_probabilities(base, hidden[:, -1], first).tolist(), choices, strict=True)]
    longer = [(i, j) for i, row in enumerate(choices) for j, choice in enumerate(row) if len(choice) > 1]
    if longer:
        memory.batch_select_indices(torch.tensor([i for i, _ in longer]))
        more = _go_on(base, memory, mask[[i for i, _ in longer]], [choices[i][j] for i, j in longer])
        for (i, j), value in zip(longer, more, strict=True):
            nats[i][j] += value
    return nats


def _go_on(base: Base, memory, mask: Tensor, choices: list[list[int]]) -> list[float]:
    """The log-likelihood of each choice's tokens after its first; `memory` holds the prompts, one a row."""
    width = max(map(len, choices)) - 1
    tokens = torch.tensor([c[:-1] + [base.pad] * (width + 1 - len(c)) for c in choices])
    position = mask.sum(1, keepdim=True) + torch.arange(width)
    hidden, _ = base.read(tokens, torch.cat([mask, mask.new_ones(len(choices), width)], 1), position, memory)
    own = torch.tensor([[j < len(c) - 1 for j in range(width)] for c in choices])
    labels = torch.tensor([token for c in choices for token in c[1:]])
    nats = torch.zeros(own.shape)
    nats[own] = log_probabilities(base, hidden[own], labels[:, None])[:, 0]
    return nats.sum(1).tolist()
