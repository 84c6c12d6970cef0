"""When stacked products over all skills of a batch beat gathered ones over the skills of each sample.

Stacked products pay once a sample uses about a quarter of the skills that its batch uses. The exact share depends on the
processor and on how many tokens a sample has; `calibrate` measures it and keeps it in the cache folder, one file for each
processor, number of threads, number format and version of torch.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from .delta import Factors
from .files import atomic_write, sha256_json
from .gemma import cache_root
from .kernels import buckets, gathered, inner_kind, side_by_side, stack, stacked
from .record import machine

SHARE = 0.25
"""Share of the batch's skills a sample uses from which stacked products are taken, unless this machine was measured."""
TOKENS = (1, 16, 128)
"""Tokens a sample at which it is measured."""
USED = (2, 3, 4, 6, 8, 12, 16)
"""Skills that a batch uses, of which each sample uses one."""
SAMPLES, RANK, INSIDE, OUTSIDE = 8, 16, 640, 2048
REPEATS = 7


@dataclass(frozen=True)
class Shares:
    """From which share of a batch's skills on stacked products are taken, by tokens a sample."""

    by_tokens: Mapping[int, float]

    def at(self, tokens: int) -> float:
        """The share measured at the nearest number of tokens (by ratio)."""
        return self.by_tokens[min(self.by_tokens, key=lambda known: max(known, tokens) / min(known, tokens))]


DEFAULT = Shares({1: SHARE})


def shares(kind: torch.dtype) -> Shares:
    """What was measured on this machine for the number format `kind`, or the default."""
    try:
        found = json.loads(_file(kind).read_text())["shares"]
        return Shares({int(tokens): float(share) for tokens, share in found.items()}) if found else DEFAULT
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return DEFAULT


def calibrate(kind: torch.dtype) -> Shares:
    """Measure the shares for the number format `kind` (a few seconds), and keep them."""
    found = Shares({tokens: _measure(tokens, kind) for tokens in TOKENS})
    path = _file(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps({"shares": found.by_tokens, **_key(kind)}, indent=2))
    return found


def _key(kind: torch.dtype) -> dict:
    return {"kind": str(kind), "threads": torch.get_num_threads(), "torch": torch.__version__, "machine": machine()}


def _file(kind: torch.dtype) -> Path:
    return cache_root() / "kernels" / f"{sha256_json(_key(kind))[:16]}.json"


@torch.inference_mode()
def _measure(tokens: int, kind: torch.dtype) -> float:
    """One over the number of used skills at which both kernels take as long."""
    draw = torch.Generator().manual_seed(0)
    inner = inner_kind(kind, tokens)
    x, y = (torch.randn(SAMPLES, tokens, width, generator=draw).to(kind) for width in (INSIDE, OUTSIDE))
    one = [
        Factors(torch.randn(RANK, INSIDE, generator=draw), torch.randn(OUTSIDE, RANK, generator=draw)) for _ in range(max(USED))
    ]
    bucket = buckets([(k,) for k in range(SAMPLES)], [RANK] * SAMPLES)[0]
    a, b = side_by_side([[f] for f in one[:SAMPLES]], inner)
    scale = torch.rand(SAMPLES, 1, RANK, generator=draw)
    limit = _seconds(lambda: gathered(y, x, bucket, a, b, scale))
    costs = {}
    for used in USED:
        c, d = stack(one[:used], inner)
        wide = torch.rand(SAMPLES, 1, RANK * used, generator=draw)
        costs[used] = _seconds(lambda c=c, d=d, wide=wide: stacked(y, x, c, d, wide))
    return 1 / _crossing(costs, limit)


def _crossing(costs: Mapping[int, float], limit: float) -> float:
    """The number of skills at which stacked products, which cost `costs`, take `limit`; between two measured ones by a line."""
    below = [used for used in costs if costs[used] <= limit]
    if not below:
        return float(min(costs))
    last = max(below)
    above = [used for used in costs if used > last]
    if not above:
        return float(last)
    rise = costs[above[0]] - costs[last]
    return last + (above[0] - last) * (limit - costs[last]) / rise if rise > 0 else float(last)


def _seconds(call: Callable[[], object]) -> float:
    """Median time of a call, after one that is not counted."""
    call()
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(3):
            call()
        spent.append(time.perf_counter() - began)
    return median(spent)
