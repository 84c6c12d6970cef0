"""Samples of what a base would say, for reinforcement learning, self-training and pass@k.

A token is drawn by the inverse of the distribution function: the first token t with Σ_{v <= t} p_v > u · Σ_v p_v, where
p = softmax(logits / temperature) and u is uniform on [0, 1). The u of a sample are all drawn beforehand, from a generator of
its own (Philox, 10.1145/2063384.2063405) whose key is (seed, prompt's position, sample's number): so a sample does not depend
on its company, on the size of the batch, or on how many samples are drawn of how many prompts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..base import Base
from ..composition import Active
from ..decoding import NOTHING, decode
from ..errors import BadBase, BadOption
from ..files import sha256_json

Heat = float | int
WIDE = 4096
"""Vocabularies larger than this are searched in two steps: which piece, and where in it."""


@dataclass(frozen=True)
class Sample:
    """One completion, drawn."""

    tokens: tuple[int, ...]
    """Of the completion, with the end token if it ended."""
    logprobs: tuple[float, ...]
    """Nats, of each token under the distribution that it was drawn from (at temperature 0 that token is certain: 0)."""
    text: str
    """Decoded, without the end token."""
    ended: bool
    """False: cut after `max_new_tokens`."""


def sample(
    use: Active,
    prompts: Sequence[str],
    count: int,
    *,
    max_new_tokens: int = 64,
    temperature: Heat | Sequence[Heat] = 1.0,
    seed: int,
    batch: int = 256,
) -> list[list[Sample]]:
    """`count` samples of each prompt, in the prompts' order; `temperature` (unitless, 0 is greedy) for all, or one a prompt.

    Prompts are grouped by length and read once; `batch` rows are decoded together. Raises BadOption, and BadData where a
    prompt and its new tokens are longer than the window.
    """
    heat = _temperatures(temperature, len(prompts))
    _check("count", count)
    _check("max_new_tokens", max_new_tokens)
    _check("batch", batch)
    base = use.base
    tokens, _ = base.encode_prompts(prompts, max_new_tokens)
    if not prompts:
        return []
    order = sorted(range(len(tokens)), key=lambda i: (len(tokens[i]), i))
    samples: list[list[Sample]] = [[] for _ in prompts]
    with use.on(prompts):
        for part in _parts(order, count, batch):
            draw = Draw(heat, part, max_new_tokens, seed)
            rows = [len(numbers) for _, numbers in part]
            chosen = [i for i, _ in part]
            out = decode(base, [tokens[i] for i in chosen], rows, max_new_tokens, draw, chosen)
            if not draw.logprobs.isfinite().all():
                raise BadBase(
                    f"{base.name} gives scores that are not finite numbers.", "it cannot be sampled from: learn it again"
                )
            for i, one in zip(draw.prompt, _samples(base, out, draw.logprobs), strict=True):
                samples[i].append(one)
    return samples


Part = list[tuple[int, range]]
"""Prompts by number, and the numbers of the samples that are drawn of each."""


def _parts(order: Sequence[int], count: int, batch: int) -> list[Part]:
    """Whole groups, as many as `batch` rows hold; a group that is larger is cut."""
    if count > batch:
        return [[(i, range(at, min(at + batch, count)))] for i in order for at in range(0, count, batch)]
    size = batch // count
    return [[(i, range(count)) for i in order[at : at + size]] for at in range(0, len(order), size)]


class Draw:
    """Chooses the next token of each row, and keeps how likely it was."""

    def __init__(self, temperatures: Sequence[float], part: Part, limit: int, seed: int):
        rows = [(i, number) for i, numbers in part for number in numbers]
        self.prompt = [i for i, _ in rows]
        self.temperature = torch.tensor([temperatures[i] for i in self.prompt], dtype=torch.float32)[:, None]
        self.uniform = torch.from_numpy(np.stack([uniforms(seed, i, number, limit) for i, number in rows]))
        self.logprobs = torch.zeros(len(rows), limit)

    def __call__(self, rows: Tensor, logits: Tensor, step: int) -> Tensor:
        temperature = self.temperature[rows]
        greedy = temperature[:, 0] == 0
        chosen = logits.argmax(-1) if greedy.any() else torch.zeros(len(rows), dtype=torch.long)
        if greedy.all():
            return chosen
        logs = torch.log_softmax(logits.float() / temperature.masked_fill(temperature == 0, 1), -1)
        chosen = torch.where(greedy, chosen, pick(logs.exp(), self.uniform[rows, step]))
        self.logprobs[rows, step] = logs.gather(1, chosen[:, None])[:, 0].masked_fill(greedy, 0)
        return chosen


def uniforms(seed: int, prompt: int, number: int, count: int) -> np.ndarray:
    """The `count` numbers in [0, 1) that decide sample `number` of the prompt at position `prompt`; more begin the same way."""
    key = int(sha256_json(["sample", seed, prompt, number])[:32], 16)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def pick(p: Float[Tensor, "row vocabulary"], u: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
    """The token of each row at which the sum of `p` passes the share `u` of the whole."""
    if p.shape[1] <= WIDE:
        return _passes(p.double(), u)[0]
    size = math.isqrt(p.shape[1])
    pieces = torch.nn.functional.pad(p, (0, -p.shape[1] % size)).unflatten(1, (-1, size))  # (row, piece, size)
    piece, rest = _passes(pieces.sum(2, dtype=torch.float64), u)
    inside = pieces[torch.arange(len(p)), piece].double()
    return piece * size + _passes(inside, rest)[0]


def _passes(p: Float[Tensor, "row part"], u: Float[Tensor, " row"]) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
    """Where the sum of `p` passes the share `u`, and how far into that part, as a share of it in [0, 1)."""
    total = p.cumsum(1)
    whole = total[:, -1:]
    wanted = torch.minimum(u[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole)))  # so that one always passes it
    found = torch.searchsorted(total, wanted, right=True).clamp(max=p.shape[1] - 1)
    here = p.gather(1, found)
    inside = (wanted - (total.gather(1, found) - here)) / here
    return found[:, 0], inside[:, 0].clamp(0, 1 - 2**-53)


def _samples(base: Base, out: Tensor, logprobs: Tensor) -> list[Sample]:
    found = []
    lengths = (out != NOTHING).sum(1).tolist()
    for length, tokens, nats in zip(lengths, out.tolist(), logprobs.tolist(), strict=True):
        ended = tokens[length - 1] == base.eos
        text = base.decode(tokens[: length - ended])
        found.append(Sample(tuple(tokens[:length]), tuple(nats[:length]), text, ended))
    return found


def _temperatures(given: Heat | Sequence[Heat], prompts: int) -> list[float]:
    heat = [float(t) for t in given] if isinstance(given, Sequence) else [float(given)] * prompts
    if len(heat) != prompts:
        raise BadOption(f"{len(heat)} temperatures were given for {prompts} prompts.", "give one, or one a prompt")
    if wrong := [t for t in heat if not 0 <= t < math.inf]:
        raise BadOption(f"temperature is {wrong[0]}, but has to be a finite number of at least 0.", "0 is greedy")
    return heat


def _check(name: str, value: int) -> None:
    if value < 1:
        raise BadOption(f"{name} is {value}, but has to be at least 1.")
