"""What GRPO and its three relatives make of log-probabilities and rewards.

    A_i  = (r_i - mean r) / (std r + 1e-4)                                          grpo, dapo, gspo; over the group
    A_i  = r_i - mean r                                                             dr_grpo
    ρ_t  = exp(log π(y_t) - log π_old(y_t))                                         grpo, dr_grpo, dapo: one a token
    ρ_t  = exp(mean over the completion of log π - log π_old)                       gspo: one a completion
    loss = Σ_i w_i Σ_t [-min(ρ_t A_i, clip(ρ_t, 1 - low, 1 + high) A_i) + β · k3_t]
    k3   = exp(log π_ref - log π) - (log π_ref - log π) - 1                         never negative, unbiased for KL(π ‖ π_ref)

    w_i  = 1 / (N · length_i)       grpo, gspo: the mean over completions of their means      (2402.03300, 2507.18071)
    w_i  = 1 / (N · limit)          dr_grpo: a constant, so that length is not rewarded       (2503.20783)
    w_i  = 1 / Σ_i length_i         dapo: every token of the step counts the same             (2503.14476)

N is the number of completions of the whole step, so that a step may be computed in pieces. All logarithms are in nats.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CLIPS = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "dapo": (0.2, 0.28), "gspo": (3e-4, 4e-4)}
"""How far a ratio may fall and rise before its gradient is cut, as the papers have it: unitless, by loss."""
FLOOR = 1e-4
"""Added to the spread of a group's rewards."""


def advantages(rewards: Float[Tensor, " group"], kind: str) -> Float[Tensor, " group"]:
    """How much better than its group each completion did, unitless."""
    centred = rewards - rewards.mean()
    return centred if kind == "dr_grpo" else centred / (rewards.std() + FLOOR)


def weights(kind: str, lengths: Int[Tensor, " sample"], limit: int) -> Float[Tensor, " sample"]:
    """What a token of each completion counts; `limit` is the most tokens that a completion may have."""
    if kind == "dapo":
        return torch.full(lengths.shape, 1 / lengths.sum().item())
    if kind == "dr_grpo":
        return torch.full(lengths.shape, 1 / (len(lengths) * limit))
    return 1 / (len(lengths) * lengths.float())


@dataclass(frozen=True)
class Terms:
    """What each token of a piece adds, before its weight."""

    loss: Float[Tensor, " token"]
    fell: Bool[Tensor, " token"]
    """Whose gradient is cut since the ratio fell far enough already."""
    rose: Bool[Tensor, " token"]
    """Whose gradient is cut since the ratio rose far enough already."""


def terms(
    kind: str,
    logp: Float[Tensor, " token"],
    old: Float[Tensor, " token"],
    advantage: Float[Tensor, " token"],
    owner: Int[Tensor, " token"],
    clip: tuple[float, float],
) -> Terms:
    """The clipped surrogate of each token; `owner` says whose completion a token is (0, 1, …), each whole in this piece."""
    change = logp - old
    if kind == "gspo":
        none = change.new_zeros(int(owner.max()) + 1)
        change = (none.index_add(0, owner, change) / none.index_add(0, owner, torch.ones_like(change)))[owner]
    ratio = change.exp()
    low, high = 1 - clip[0], 1 + clip[1]
    loss = -torch.min(ratio * advantage, ratio.clamp(low, high) * advantage)
    return Terms(loss, (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0))


def k3(logp: Float[Tensor, " token"], reference: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
    """How far each token's distribution has moved from the reference, in nats, estimated from the token that was drawn."""
    change = reference - logp
    return change.exp() - change - 1
