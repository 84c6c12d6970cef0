"""Intervals and comparisons: Wilson, Student over seeds, paired bootstrap, exact McNemar.

Sampling error and run-to-run error are different things. One run on n items gets a Wilson interval; several seeds get an
interval over items and seeds together, whose second level is the seeds; two runs on the same items are compared pair by pair.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..result import Estimate

Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def wilson(successes: float, n: int, unit: str = "") -> Estimate:
    """A proportion with its 95 % Wilson score interval (Wilson 1927); shaped scores in [0, 1] may sum to a fraction.

    >>> str(wilson(0, 10)), str(wilson(10, 10))
    ('0.00 [0.00, 0.28] n=10', '1.00 [0.72, 1.00] n=10')
    """
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, unit)
    p = successes / n
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return Estimate(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), n, unit)


def over_seeds(scores: Sequence[Sequence[float]], draws: int = 4000, seed: int = 0) -> Estimate:
    """Mean of `scores[seed][item]`, each in [0, 1], with a 95 % interval over items and seeds.

    One seed gives the Wilson interval; several give the wider of that of all items and the two-level bootstrap (all right or
    all wrong has no spread of its own, and three seeds that happen to agree do not make items certain).
    """
    runs = [run for run in scores if len(run)]
    pooled = wilson(float(sum(map(sum, runs))), sum(map(len, runs)))
    if len(runs) < 2:
        return pooled
    spread = two_level(runs, draws, seed)
    return Estimate(spread.value, max(0.0, min(spread.low, pooled.low)), min(1.0, max(spread.high, pooled.high)), pooled.n)


def two_level(scores: Sequence[Sequence[float]], draws: int = 4000, seed: int = 0) -> Estimate:
    """Mean of `scores[seed][item]` (any real numbers) with a 95 % bootstrap interval: seeds are drawn, then items within each.

    A bootstrap of k seeds is too narrow by √(k/(k-1)), so the spread around the mean is widened by that factor.
    """
    runs = [np.asarray(run, dtype=float) for run in scores]
    rng = np.random.default_rng(seed)
    within = np.array([run[rng.integers(0, len(run), (draws, len(run)))].mean(1) for run in runs])  # (seed, draw)
    chosen = rng.integers(0, len(runs), (len(runs), draws))
    means = np.take_along_axis(within, chosen, 0).mean(0)
    mean = float(np.mean([run.mean() for run in runs]))
    wide = math.sqrt(len(runs) / (len(runs) - 1)) if len(runs) > 1 else 1.0
    low, high = (mean + (float(np.quantile(means, q)) - mean) * wide for q in (0.025, 0.975))
    return Estimate(mean, low, high, sum(map(len, runs)))


def student(values: Sequence[float], unit: str = "") -> Estimate:
    """Mean of a few repeats of a real number with its 95 % Student interval; one value has no interval (it repeats itself)."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, mean, mean, n, unit)
    quantile = _T95[max(freedom for freedom in _T95 if freedom < n)]  # of the next lower one in the table: rather too wide
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, unit)


def per_item(totals: Sequence[float], counts: Sequence[int], unit: str = "", draws: int = 4000, seed: int = 0) -> Estimate:
    """Σ totals / Σ counts, such as nats per token, with a 95 % bootstrap interval over the clusters (texts) that these are of.

    >>> str(per_item([2.0, 4.0], [1, 2], "nats/token"))
    '2.00 nats/token [2.00, 2.00] n=2'
    """
    above, below = np.asarray(totals, dtype=float), np.asarray(counts, dtype=float)
    chosen = np.random.default_rng(seed).integers(0, len(above), (draws, len(above)))
    low, high = np.quantile(above[chosen].sum(1) / below[chosen].sum(1), (0.025, 0.975))
    return Estimate(float(above.sum() / below.sum()), float(low), float(high), len(above), unit)


_T95 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    14: 2.145,
    19: 2.093,
}


@dataclass(frozen=True)
class Paired:
    """Two runs on the same items: by how much the first is better, and whether that could be chance."""

    difference: Estimate
    """Mean of first minus second, with a 95 % bootstrap interval over items."""
    p: float
    """Two-sided exact McNemar probability (of items that one got right and the other wrong); unitless."""


def paired(first: Sequence[float], second: Sequence[float], draws: int = 4000, seed: int = 0) -> Paired:
    """Compare two runs item by item."""
    if len(first) != len(second):
        raise ValueError(f"paired runs need the same items: {len(first)} and {len(second)}")
    gaps = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    rng = np.random.default_rng(seed)
    means = gaps[rng.integers(0, len(gaps), (draws, len(gaps)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    difference = Estimate(float(gaps.mean()), float(low), float(high), len(gaps))
    return Paired(difference, mcnemar(int((gaps > 0).sum()), int((gaps < 0).sum())))


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact McNemar probability of `won` against `lost` discordant pairs under a fair coin.

    >>> mcnemar(0, 0), round(mcnemar(8, 1), 4)
    (1.0, 0.0391)
    """
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    return min(1.0, 2 * tail)
