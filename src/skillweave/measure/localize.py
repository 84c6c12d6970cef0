"""Where a skill sits in the weights, and how much its confidence is worth (paper 40, 2302.06600).

overlap   |P ∩ P'| / |P ∪ P'| of the places P that two sparse changes hold: 1 the same weights, 0 none in common
ECE       Σ_b n_b / n · |right_b - confidence_b| over equal bins of the confidence (1706.04599): 0 is calibrated
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..base import Base
from ..delta import LowRank
from ..delta_full import Sparse
from ..errors import BadOption
from .choice import Choice, log_likelihoods

BINS = 10
"""Bins of the confidence."""


def overlap(one: LowRank, other: LowRank) -> float:
    """The share of the weights that either of two sparse changes holds and both do, in [0, 1]; two empty ones share nothing."""
    both = either = 0
    for slot in {*one.slots, *other.slots}:
        first, second = _places(one, slot), _places(other, slot)
        common = int(torch.isin(first, second).sum())
        both, either = both + common, either + len(first) + len(second) - common
    return both / either if either else 0.0


def choice_shares(base: Base, prompts: Sequence[str], answers: Sequence[str]) -> Float[Tensor, "prompt answer"]:
    """How likely each of `answers` is after each prompt, among them alone: the confidence of a model that has to choose one."""
    items = [Choice(prompt, tuple(answers), 0) for prompt in prompts]
    return torch.tensor(log_likelihoods(base, items, 128)).softmax(1)


def calibration_error(confidence: Sequence[float], right: Sequence[float], bins: int = BINS) -> float:
    """The expected calibration error, in [0, 1], of answers of some `confidence` in [0, 1] that were `right` (1) or not (0)."""
    if len(confidence) != len(right) or not len(right):
        raise ValueError(f"one confidence an answer, and at least one: {len(confidence)} and {len(right)}")
    sure, true = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    own = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)  # bins are open on the left
    counts = np.bincount(own, minlength=bins)
    gaps = np.bincount(own, true - sure, minlength=bins)  # n_b (right_b - confidence_b)
    return float(np.abs(gaps).sum() / counts.sum())


def _places(skill: LowRank, slot: str) -> torch.Tensor:
    parts = skill.parts(slot)
    if not all(isinstance(part, Sparse) for part in parts):
        raise BadOption(f"`{slot}` is changed in full, so all of its weights would overlap.", "compare grafts")
    return torch.cat([part.index.long() for part in parts if isinstance(part, Sparse)]) if parts else torch.zeros(0).long()
