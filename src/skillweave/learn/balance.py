"""B-STaR's balance score (paper 23, 2412.17256): how good a temperature and a threshold are, by what they would keep.

    bs = min(n' / n*, 1) · n' / n        for each prompt; the mean over prompts is what a setting is worth

n are the different completions of a prompt that pass the threshold, n' those among them that are right, n* how many a prompt
should give. The first factor asks for enough right answers that differ (exploration), the second for a threshold that lets no
wrong ones through (exploitation). Copies of a completion count once. A prompt that keeps nothing is worth nothing.

Where the reward is the answer's being right and nothing else, what passes a threshold is right: n' / n is 1, the threshold has
no effect, and only the temperature is chosen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Try:
    """One completion, as it was scored."""

    text: str
    reward: float
    """What a threshold is held against."""
    right: bool


Group = Sequence[Try]
"""The completions of one prompt at one temperature."""


@dataclass(frozen=True)
class Setting:
    """A temperature and a threshold, and what they are worth."""

    temperature: float
    threshold: float
    balance: float
    """The mean balance score over the prompts, in [0, 1]."""


def balance(right: int, kept: int, wanted: int) -> float:
    """The score of one prompt that keeps `kept` different completions, `right` of them right, where `wanted` are enough."""
    return min(right / wanted, 1.0) * right / kept if kept else 0.0


def wanted_of(samples: int, prompts: int) -> int:
    """n*: how many completions each of `prompts` has to give for `samples` in all."""
    return math.ceil(samples / prompts)


def worth(groups: Sequence[Group], threshold: float, wanted: int, cap: int = 0) -> float:
    """The mean balance score of `groups` at `threshold`; at most `cap` of a prompt are kept (0: all), the best first."""
    return sum(balance(*_counts(group, threshold, cap), wanted) for group in groups) / len(groups)


def choose(tried: Mapping[float, Sequence[Group]], thresholds: Sequence[float], wanted: int, cap: int = 0) -> Setting:
    """The best of all pairs of a temperature (of `tried`) and a threshold; of equals, the lowest of both."""
    settings = [Setting(t, at, worth(tried[t], at, wanted, cap)) for t in sorted(tried) for at in sorted(thresholds)]
    return max(settings, key=lambda one: one.balance)


def _counts(group: Group, threshold: float, cap: int) -> tuple[int, int]:
    """(right, kept) of the different completions that pass."""
    different = {one.text: one for one in sorted(group, key=lambda one: one.reward) if one.reward >= threshold}
    kept = sorted(different.values(), key=lambda one: -one.reward)[: cap or None]
    return sum(one.right for one in kept), len(kept)
