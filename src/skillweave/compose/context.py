"""A context gate (paper 1, PSEC, 2502.05932): strengths that a small network reads off the prompt, one a sample and skill.

    α(s) = c + W₂ tanh(W₁ z(s) + b₁),    z(s) = (h(s) - h̄) / σ,    y = W x + Σ_k α_k(s) · s_k · B_k A_k x   in every layer

h(s) is the mean of the last hidden states of the prompt on the base without skills; nothing of the answer is looked at. h̄ and
σ are their mean and spread over the examples. At the start W₂ is zero and c is 1 / skills, the mean of the skills: in their sum
each drowns the others, and a gate seldom finds its way from there. Only the gate is learned, with the loss of the skills. It is
capped in size (`CAP`), because a large gate that sees the whole question could hold the answers itself, with the skills as its
means; with `hidden` at 0 it sees nothing and is a learned constant.

The paper's network has two layers of 256 units, its α take the place of LoRA's scale, and a prior pulls them to it; here α
multiplies the scale, and there is no prior.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..composition import Active
from ..curriculum.mixing import with_replay
from ..delta import LowRank
from ..errors import BadOption
from ..learn.batches import Batch, Batches
from ..learn.loop import Group, Log, Plan, Run, train
from ..learn.loss import bank_loss
from ..strength import PerSample
from ..task import Example
from .apart import load_apart, save_apart

CAP = 64
"""Hidden units that a gate may have at most."""
KIND = "context"


@dataclass(frozen=True, eq=False)
class InputGate:
    """The network; called with prompts, it gives their strengths."""

    constant: Float[Tensor, " skill"]
    inner: Float[Tensor, "hidden width"]
    bias: Float[Tensor, " hidden"]
    outer: Float[Tensor, "skill hidden"]
    centre: Float[Tensor, " width"]
    """Mean of what was read of the examples."""
    spread: Float[Tensor, ""]
    """Root of the mean squared distance from it."""

    @staticmethod
    def new(seen: Float[Tensor, "example width"], skills: int, hidden: int, seed: int) -> "InputGate":
        """A gate that gives every skill the same share for all inputs like `seen`: their mean."""
        draw = torch.Generator().manual_seed(seed)
        centre = seen.mean(0)
        spread = (seen - centre).square().sum(1).mean().sqrt().clamp(min=1e-6)
        inner, outer = torch.randn(hidden, seen.shape[1], generator=draw), torch.zeros(skills, hidden)
        constant = torch.full((skills,), 1 / skills)
        return InputGate(constant, inner, torch.zeros(hidden), outer, centre, spread)

    def learnable(self) -> dict[str, Tensor]:
        """What is learned of it, by name, ready to learn."""
        names = ("constant", "inner", "bias", "outer") if len(self.bias) else ("constant",)
        return {name: getattr(self, name).requires_grad_() for name in names}

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in vars(self).items()}

    def alpha(self, seen: Float[Tensor, "prompt width"]) -> Float[Tensor, "prompt skill"]:
        """Strengths from what was read."""
        if not len(self.bias):
            return self.constant.expand(len(seen), -1)
        inside = torch.tanh((seen - self.centre) / self.spread @ self.inner.t() + self.bias)
        return self.constant + inside @ self.outer.t()

    @torch.no_grad()
    def __call__(self, base: Base, prompts: Sequence[str]) -> PerSample:
        return PerSample(self.alpha(read(base, [tokens_of(base, prompt) for prompt in prompts])))


@torch.no_grad()
def read(base: Base, prompts: Sequence[Sequence[int]], batch: int = 64) -> Float[Tensor, "prompt width"]:
    """The mean of the last hidden states of each prompt (as tokens) on `base`, in fp32; call it where no skill is on."""
    seen = torch.zeros(len(prompts), base.head.shape[1])
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), batch):
        rows = order[at : at + batch]
        lengths = torch.tensor([len(prompts[i]) for i in rows])
        width = int(lengths.max())
        tokens = torch.tensor([[*prompts[i], *[base.pad] * (width - len(prompts[i]))] for i in rows])
        real = torch.arange(width) < lengths[:, None]  # (row, time)
        hidden = base.hidden(tokens).float()
        seen[rows] = (hidden * real[..., None]).sum(1) / lengths[:, None]
    return seen


def tokens_of(base: Base, prompt: str) -> list[int]:
    """What a gate reads of a prompt: as much of its end as fits into the window."""
    return (base.encode(prompt, start=True) or [base.eos])[-base.window :]


@dataclass(frozen=True, eq=False)
class Gated:
    """Skills whose strengths a gate reads off the prompt."""

    skills: tuple[str, ...]
    strengths: Float[Tensor, "skill layer"]
    gate: InputGate

    def use(self, base: Base, skills: Mapping[str, LowRank]) -> Active:
        return Active(base, SkillBank(base, {name: skills[name] for name in self.skills}), self.gate)

    def save(self, folder: Path, base: Base, skills: Mapping[str, LowRank]) -> None:
        parts = {name: skills[name] for name in self.skills}
        mean = self.strengths.mean(1).tolist()
        save_apart(folder, base, parts, KIND, self.gate.tensors(), hidden=len(self.gate.bias), mean=mean)

    @staticmethod
    def load(folder: Path, base: Base, name: str) -> Active:
        """A saved one on `base`. Raises BadSkill."""
        found = load_apart(folder, base, name)
        skills, hidden, width = len(found.bank.names), int(found.number("hidden", 0)), base.head.shape[1]
        shapes = {"constant": (skills,), "inner": (hidden, width), "bias": (hidden,), "outer": (skills, hidden)}
        shapes |= {"centre": (width,), "spread": ()}
        return Active(base, found.bank, InputGate(**{key: found.tensor(key, shape) for key, shape in shapes.items()}))


@dataclass(frozen=True)
class Context:
    """A strength per skill that depends on the prompt, learned; no new weights in the model."""

    steps: int = 200
    """Optimiser steps."""
    batch: int = 8
    """Examples a step."""
    lr: float = 2e-2
    """Largest learning rate of the gate, unitless."""
    hidden: int = 16
    """Hidden units of the gate, at most 64; 0 for strengths that do not depend on the prompt."""
    replay: float = 0.0
    """Share of the examples that come from the skills' own tasks."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        run: Run = Run(),
    ) -> tuple[Gated, Log]:
        """Learn the gate on `examples`; `carried` are the examples that each skill brings along."""
        if self.hidden > CAP:
            raise BadOption(
                f"hidden is {self.hidden}, but a gate may have {CAP} at most.", "a larger one could hold the answers"
            )
        bank = SkillBank(base, skills)
        own = {name: carried.get(name, ()) for name in skills}
        drawn = with_replay(examples, own, self.replay, self.steps * self.batch, seed)
        batches = Batches(base, drawn, self.batch, seed)
        prompts = list(dict.fromkeys(tuple(tokens_of(base, example.prompt)) for example in drawn))
        seen = dict(zip(prompts, read(base, prompts), strict=True))
        gate = InputGate.new(torch.stack(list(seen.values())), len(skills), self.hidden, seed)

        def loss(batch: Batch) -> Tensor:
            asked = torch.stack([seen[prompt] for prompt in asked_in(batch)])
            return bank_loss(bank, batch, PerSample(gate.alpha(asked)))

        log = train(loss, [Group(gate.learnable(), self.lr)], batches.at, Plan(self.steps), run)
        gate = InputGate(**gate.tensors())
        mean = gate.alpha(read(base, [tokens_of(base, example.prompt) for example in examples])).mean(0)
        return Gated(tuple(skills), mean[:, None].repeat(1, base.layers), gate), log


def asked_in(batch: Batch) -> list[tuple[int, ...]]:
    """The tokens of the prompt of each example of a batch: those up to the row that predicts its first label."""
    width = batch.tokens.shape[1]
    ends = torch.full((len(batch.tokens),), width).scatter_reduce(0, batch.rows // width, batch.rows % width, "amin")
    return [tuple(row[: end + 1]) for row, end in zip(batch.tokens.tolist(), ends.tolist(), strict=True)]
