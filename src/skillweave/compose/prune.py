"""Width pruning (paper 31, arXiv:2512.22671): a base with fewer neurons in every gated MLP.

A gated MLP computes `down(act(gate x) * up x)`. Its neuron j is row j of gate, row j of up and column j of down. Every neuron
gets a score from its two rows g and u, and in each layer the same share of neurons, those of the lowest scores, is cut out:

    ppm     (max g + |min g|) + (max u + |min u|)     the paper's: the range of a row that straddles zero, peak to peak
    vow     var g + var u                             variance of weights (sample variance, over the row)
    pon     ‖g‖₁ · ‖u‖₁                               product of norms
    random  a number drawn from the seed              the control

Nothing is trained and no data is read. Scores are computed in fp32; of equal ones the neuron with the lower number goes first.
"""

import copy
import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..base import Base
from ..errors import BadBase, BadOption, NotFound
from ..files import sha256_json

Rows = Float[Tensor, "neuron width"]


def ppm(gate: Rows, up: Rows, draw: torch.Generator) -> Float[Tensor, " neuron"]:
    """Peak to peak: the range of the gate row plus the range of the up row."""
    ranges = [rows.amax(1) + rows.amin(1).abs() for rows in (gate, up)]
    return ranges[0] + ranges[1]


def vow(gate: Rows, up: Rows, draw: torch.Generator) -> Float[Tensor, " neuron"]:
    """The variance of the gate row plus the variance of the up row."""
    return gate.var(1) + up.var(1)


def pon(gate: Rows, up: Rows, draw: torch.Generator) -> Float[Tensor, " neuron"]:
    """The sum of absolute weights of the gate row times that of the up row."""
    return gate.abs().sum(1) * up.abs().sum(1)


def random(gate: Rows, up: Rows, draw: torch.Generator) -> Float[Tensor, " neuron"]:
    """A number that knows nothing of the weights."""
    return torch.rand(len(gate), generator=draw)


SCORES: dict[str, Callable[..., Tensor]] = {"ppm": ppm, "vow": vow, "pon": pon, "random": random}


def width_prune(base: Base, share: float, score: str = "ppm", seed: int = 0) -> Base:
    """A new Base without the `share` of MLP neurons of the lowest `score` in each layer; `base` stays as it is.

    What is not cut is shared with `base` in memory. The digest is that of what was kept, so that a skill learned on the full
    base is refused; only when nothing was cut it stays the same. `seed` is for `random` alone.
    """
    check(share, score)
    draw = torch.Generator().manual_seed(seed)
    model: Any = copy.deepcopy(base.model, {id(weight): weight for weight in base.model.parameters()})
    kept = []
    for mlp in gated_mlps(model, base.name):
        gate, up = mlp.gate_proj.weight.float(), mlp.up_proj.weight.float()
        kept.append(keep(SCORES[score](gate, up, draw), share))
        _cut(mlp, kept[-1])
    model.config.get_text_config().intermediate_size = len(kept[0])
    rows = hashlib.sha256(torch.stack(kept).numpy().tobytes()).hexdigest()
    digest = base.digest if len(kept[0]) == width(base) else sha256_json(["pruned", base.digest, rows])
    return Base(f"{base.name} without {share:.0%} ({score})", digest, model, base.tokenizer)


def keep(scores: Float[Tensor, " neuron"], share: float) -> Int[Tensor, " kept"]:
    """The neurons that stay, in their order: all but the round(share * neurons) of the lowest scores, at least one."""
    cut = min(round(share * len(scores)), len(scores) - 1)
    return scores.sort(stable=True).indices[cut:].sort().values


def check(share: float, score: str) -> None:
    """BadOption or NotFound for what cannot be pruned by."""
    if score not in SCORES:
        raise NotFound("score", score, SCORES, hint=f"choose from {', '.join(SCORES)}")
    if not 0 <= share < 1:
        raise BadOption(f"share is {share}, but has to be at least 0 and below 1.", "0.2 cuts a fifth of the neurons")


def gated_mlps(model: nn.Module, name: str) -> list[Any]:
    """The MLPs that have a gate, in the order of their layers; BadBase if there is none, or if they differ in width."""
    parts = ("gate_proj", "up_proj", "down_proj")
    found: list[Any] = [m for m in model.modules() if all(isinstance(getattr(m, part, None), nn.Linear) for part in parts)]
    if not found:
        raise BadBase(
            f"`{name}` has no gated MLP with {', '.join(parts)}.", "width pruning is for models such as Gemma and Llama"
        )
    if len(widths := {m.gate_proj.out_features for m in found}) > 1:
        raise BadBase(f"the MLPs of `{name}` have {len(widths)} different widths.", "choose a base whose layers are all alike")
    return found


def width(base: Base) -> int:
    """Neurons of each MLP."""
    return gated_mlps(base.model, base.name)[0].gate_proj.out_features


def _cut(mlp: Any, kept: Tensor) -> None:
    for linear in (mlp.gate_proj, mlp.up_proj):
        linear.weight, linear.out_features = _frozen(linear.weight[kept]), len(kept)
        if linear.bias is not None:
            linear.bias = _frozen(linear.bias[kept])
    mlp.down_proj.weight, mlp.down_proj.in_features = _frozen(mlp.down_proj.weight[:, kept]), len(kept)
    if hasattr(mlp, "intermediate_size"):
        mlp.intermediate_size = len(kept)


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().contiguous(), requires_grad=False)


def parameters(base: Base) -> int:
    """How many weights the model has; tied ones count once."""
    return sum(math.prod(weight.shape) for weight in base.model.parameters())
