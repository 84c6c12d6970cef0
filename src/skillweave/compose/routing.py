"""Routed skills: in every layer each token is computed by the few skills whose rows fit its input best.

    score_k = f(v_k · x),    α = softmax of the k largest scores / temperature, 0 for all others

f is |·| with the input as it is (`arrow.py`), or · with an input of length one (`router.py`).
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..bank import SkillBank
from ..base import Base
from ..composition import ABOUT, Active
from ..delta import LowRank
from ..errors import BadOption, BadSkill
from ..fitting import check_uniform
from ..strength import Routed
from ..task import Example
from .apart import load_apart, save_apart

KIND = "routed"
LOOKED_AT = 16
"""Examples over which the mean strengths of the report are taken."""


@dataclass(frozen=True, eq=False)
class TopK:
    """The router; called with the input of a layer and its name, it gives the strengths of each row."""

    rows: Mapping[str, Float[Tensor, "skill inside"]]
    """A row for every skill, by layer."""
    here: Mapping[str, Bool[Tensor, " skill"]]
    """Which skills change the layer."""
    top_k: int
    temperature: float
    absolute: bool
    """Whether the sign of a score counts for nothing, and the length of the input for something: Arrow."""

    def __call__(self, x: Float[Tensor, "row inside"], slot: str) -> Float[Tensor, "row skill"]:
        x, here = x.float(), self.here[slot]
        scores = F.linear(x, self.rows[slot]).abs() if self.absolute else F.linear(F.normalize(x), self.rows[slot])
        best, at = scores.masked_fill(~here, -torch.inf).topk(min(self.top_k, int(here.sum())), 1)
        return torch.zeros_like(scores).scatter(1, at, (best / self.temperature).softmax(1))


def check_routed(bank: SkillBank, top_k: int, temperature: float) -> None:
    """Raises BadOption if there is nothing to route between, or not so."""
    count = len(bank.names)
    if count < 2:
        raise BadOption(f"only `{', '.join(bank.names)}` was given, and a router chooses between skills.", "name two or more")
    if not 1 <= top_k <= count:
        raise BadOption(f"top_k is {top_k}, but with {count} skills it can be 1 to {count}.")
    if not temperature > 0:
        raise BadOption(f"temperature is {temperature:g}, but has to be above 0.")
    check_uniform(bank.fitted.values())


def present(skills: Mapping[str, LowRank]) -> dict[str, Bool[Tensor, " skill"]]:
    """Which of `skills` change each layer that any of them changes."""
    slots = dict.fromkeys(slot for skill in skills.values() for slot in skill.slots)
    return {slot: torch.tensor([slot in skill.slots for skill in skills.values()]) for slot in slots}


@dataclass(frozen=True, eq=False)
class Routes:
    """Skills between which a router chooses."""

    skills: tuple[str, ...]
    strengths: Float[Tensor, "skill layer"]
    router: TopK

    def use(self, base: Base, skills: Mapping[str, LowRank]) -> Active:
        return Active(base, SkillBank(base, {name: skills[name] for name in self.skills}), Routed(self.router))

    def save(self, folder: Path, base: Base, skills: Mapping[str, LowRank]) -> None:
        router, parts = self.router, {name: skills[name] for name in self.skills}
        about = {"top_k": router.top_k, "temperature": router.temperature, "absolute": router.absolute}
        save_apart(folder, base, parts, KIND, router.rows, **about, mean=self.strengths.mean(1).tolist())

    @staticmethod
    def load(folder: Path, base: Base, name: str) -> Active:
        """A saved one on `base`. Raises BadSkill."""
        found = load_apart(folder, base, name)
        skills = found.bank.skills
        top_k, temperature, absolute = found.number("top_k", 1), found.number("temperature", 0), found.settings.get("absolute")
        if not isinstance(top_k, int) or top_k > len(skills) or not temperature or not isinstance(absolute, bool):
            raise BadSkill(f"{ABOUT} of `{name}` does not say how to route.", "restore it, or compose the skill again")
        here = present(skills)
        rows = {slot: found.tensor(slot, (len(skills), base.linears[slot].in_features)) for slot in here}
        return Active(base, found.bank, Routed(TopK(rows, here, top_k, float(temperature), absolute)))


def mean_strengths(base: Base, bank: SkillBank, router: TopK, examples: Sequence[Example]) -> Float[Tensor, "skill layer"]:
    """The mean of what `router` gives over the layers' inputs and the tokens of the first prompts."""
    total, count = torch.zeros(len(bank.names), base.layers), torch.zeros(base.layers)

    def noting(x: Tensor, slot: str) -> Tensor:
        alpha, layer = router(x, slot), base.layer_of(slot)
        total[:, layer] += alpha.mean(0)
        count[layer] += 1
        return alpha

    with torch.no_grad(), bank.on(Routed(noting)) if examples else nullcontext():
        for example in examples[:LOOKED_AT]:
            base.hidden(torch.tensor([base.encode(example.prompt, start=True)[: base.window] or [base.eos]]))
    return total / count.clamp(min=1)
