"""Decoding: tokens one after the other, for many rows at once. Greedy answers and samples come out of the same loop.

A prompt is read once, however many rows go on from it. A row that has ended leaves at once: the last rows move into the places
of those that left, so that no more is copied than what leaves. The head sees one position a row.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from .slots import at_hand

Choose = Callable[[Tensor, Tensor, int], Tensor]
"""(numbers of rows, their logits (row, vocabulary), step) -> the next token of each."""
NOTHING = -1
"""What stands behind the end of a row that ended."""


@torch.inference_mode()
def decode(
    base: Any,
    prompts: Sequence[Sequence[int]],
    copies: Sequence[int],
    limit: int,
    choose: Choose,
    samples: Sequence[int] | None = None,
    memory=None,
    shared: int = 0,
) -> Int[Tensor, "row limit"]:
    """What `choose` makes of each prompt of `base`, `copies` rows a prompt: tokens up to the end token, it included.

    `samples` are the numbers of the prompts among the caller's (for strengths that differ by sample); `memory` is that of
    `shared` tokens before all prompts, and stays as it is.
    """
    from .groups import share
    from .memory import widen

    width, count = max(map(len, prompts)), len(prompts)
    gaps = [width - len(p) for p in prompts]
    tokens = torch.tensor([[base.pad] * gap + list(p) for gap, p in zip(gaps, prompts, strict=True)])  # padded on the left
    mask = torch.tensor([[1] * shared + [0] * gap + [1] * (width - gap) for gap in gaps])
    place = torch.tensor(range(count) if samples is None else samples)
    if memory is not None:
        memory = copy.deepcopy(memory)
        memory.batch_repeat_interleave(count)
    position = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
    with at_hand(tuple(place.tolist())):
        hidden, memory = base.read(tokens, mask, position, memory)
    owner = torch.arange(count).repeat_interleave(torch.tensor(copies))
    group = share(base, memory, owner, mask.bool(), limit - 1)
    if group is None:
        widen(memory, owner, max(0, limit - 1))
    out = torch.full((len(owner), limit), NOTHING)
    alive, logits, place = torch.arange(len(owner)), base.logits(hidden[:, -1])[owner], place[owner]
    position, rows = position[owner, -1:], tuple(place.tolist())
    mask = torch.cat([mask[owner], mask.new_ones(len(owner), limit)], 1)
    for step in range(limit):
        chosen = choose(alive, logits, step)
        out[alive, step] = chosen
        going = chosen != base.eos
        if step + 1 == limit or not going.any():
            break
        if not going.all():
            stay = _close_ranks(going)
            alive, chosen, place, mask, position = alive[stay], chosen[stay], place[stay], mask[stay], position[stay]
            rows = tuple(place.tolist())
            (group or memory).batch_select_indices(stay)  # the memory of this step: some bases make a new one each time
        position = position + 1
        with at_hand(rows):
            seen = mask[:, : shared + width + step + 1] if group is None else None
            hidden, memory = base.read(chosen[:, None], seen, position, memory)
        logits = base.logits(hidden[:, -1])
    return out


def _close_ranks(going: Tensor) -> Int[Tensor, " row"]:
    """Which rows go on, the last ones in the places of those that do not."""
    left = int(going.sum())
    stay = torch.arange(left)
    stay[~going[:left]] = left + going[left:].nonzero()[:, 0]
    return stay
