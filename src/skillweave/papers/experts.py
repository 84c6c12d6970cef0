"""Small models from scratch whose feed-forward parts are declared, chosen by a gate, or dense: what paper 32 compares.

An expert is a change of full rank on every linear layer of the feed-forward parts, all begun at zero, on weights that stay as
they were drawn: W + ΔW_k, as if each were a feed-forward part of its own that was begun as the first one. Attention, embeddings
and norms are shared and learn with them. Everything goes through the bank, the loop and the batches that skills learn with.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..bank import SkillBank
from ..base import Base, TinyBase
from ..compose.declared import Sets
from ..compose.routing import TopK, present
from ..delta import Factors, LowRank
from ..learn.batches import Batch, Batches
from ..learn.loop import Group, Plan, train
from ..learn.pretrain import text_loss, thawed
from ..strength import Routed, Strength
from ..task import Example

PARTS = ("gate_proj", "up_proj", "down_proj")
TASK = "task"
"""The tag of an example that says which task it belongs to."""


@dataclass(frozen=True)
class Model:
    """A model that learns, with the strengths of its experts for the examples of a batch."""

    base: Base
    bank: SkillBank | None = None
    route: Callable[[Sequence[Example]], Strength] | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """What the route learns."""

    def on(self, examples: Sequence[Example]):
        """Inside the block the model computes `examples`, in their order."""
        return self.bank.on(self.route(examples)) if self.bank is not None and self.route is not None else nullcontext()

    def tensors(self) -> dict[str, Tensor]:
        """All that learns, by name."""
        own = {name: weight for name, weight in self.base.model.named_parameters() if weight.requires_grad}
        parts = {f"{k}.{n}": t for k, s in (self.bank.skills if self.bank else {}).items() for n, t in s.tensors().items()}
        return own | {name: t for name, t in parts.items() if t.requires_grad} | dict(self.extra)


def dense(alphabet: str, width: int, seed: int, mlp: int) -> Model:
    """A model without experts and with `mlp` neurons in each feed-forward part."""
    return Model(thawed(TinyBase(width, seed, alphabet, mlp=mlp)))


def declared(alphabet: str, width: int, seed: int, mlp: int, sets: Mapping[str, Sequence[str]]) -> Model:
    """A model whose tasks declare the experts that compute them."""
    base = _shared(alphabet, width, seed, mlp)
    return routed_by(base, experts(base, dict.fromkeys(name for names in sets.values() for name in names)), sets)


def routed_by(base: Base, skills: Mapping[str, LowRank], sets: Mapping[str, Sequence[str]]) -> Model:
    """`base` with `skills`, of which each task declares some."""
    bank = SkillBank(base, skills)
    return Model(base, bank, lambda some: Sets(bank, [sets[example.tags[TASK]] for example in some]).of(range(len(some))))


def gated(alphabet: str, width: int, seed: int, mlp: int, count: int, top: int) -> Model:
    """A model in which a learned router gives every token the `top` of `count` experts, in every linear layer of a part."""
    base = _shared(alphabet, width, seed, mlp)
    skills = experts(base, map(str, range(count)))
    draw = torch.Generator().manual_seed(seed)
    rows = {slot: torch.randn(count, base.linears[slot].in_features, generator=draw) for slot in slots(base)}
    router = TopK({slot: row.requires_grad_() for slot, row in rows.items()}, present(skills), top, 1.0, False)
    return Model(base, SkillBank(base, skills), lambda some: Routed(router), {f"router.{s}": row for s, row in rows.items()})


def _shared(alphabet: str, width: int, seed: int, mlp: int) -> Base:
    """A base that learns, but for its feed-forward parts."""
    return _frozen_parts(thawed(TinyBase(width, seed, alphabet, mlp=mlp)))


def _frozen_parts(base: Base) -> Base:
    """`base`, which learns, without its feed-forward parts."""
    for slot in slots(base):
        base.linears[slot].requires_grad_(False)
    return base


def slots(base: Base) -> list[str]:
    """The linear layers of the feed-forward parts."""
    return [slot for slot in base.linears if slot.endswith(PARTS)]


def experts(base: Base, names: Iterable[str]) -> dict[str, LowRank]:
    """Changes of full rank on the feed-forward parts, zero and learning; the other factor is the identity."""
    return {name: LowRank({slot: _full(*base.linears[slot].weight.shape) for slot in slots(base)}) for name in names}


def _full(outside: int, inside: int) -> Factors:
    change, same = torch.zeros(outside, inside, requires_grad=True), torch.eye(min(outside, inside))
    return Factors(same, change) if inside <= outside else Factors(change, same)


def learn(model: Model, examples: Sequence[Example], steps: int, batch: int, lr: float, seed: int, whole: bool = False) -> None:
    """Train all that learns in `model` for `steps` steps; with `whole`, on every symbol of the prompts too, and no answer."""
    batches = Batches(model.base, examples, batch, seed, whole)

    def loss(some: Batch) -> Tensor:
        with model.on([examples[i] for i in some.samples]):
            return text_loss(model.base, some)

    train(loss, [Group(model.tensors(), lr)], batches.at, Plan(steps))


@torch.no_grad()
def right(model: Model, examples: Sequence[Example], size: int = 64) -> list[float]:
    """1 for each of `examples` whose answer the model finds symbol by symbol, else 0."""
    found: list[float] = []
    for at in range(0, len(examples), size):
        some = examples[at : at + size]
        batch = Batches(model.base, some, 1, 0).collate([model.base.encode_pair(e.prompt, e.completion) for e in some])
        with model.on(some):
            rows = model.base.hidden(batch.tokens).flatten(0, 1)[batch.rows]
        hit = (model.base.logits(rows).argmax(-1) == batch.labels).view(len(some), -1)[:, :-1]  # the last is the end
        found += hit.all(1).float().tolist()
    return found


def copied(model: Model, names: Sequence[str]) -> dict[str, LowRank]:
    """Copies of some of the experts that can learn on."""
    assert model.bank is not None, "a model without experts"
    return {name: _again(model.bank.skills[name]) for name in names}


def _again(skill: LowRank) -> LowRank:
    def fresh(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)

    return LowRank({slot: replace(f, a=fresh(f.a), b=fresh(f.b)) for slot, f in skill.factors.items()})


def tuned(model: Model, task: str, names: Sequence[str]) -> Model:
    """A copy of `model` in which `task` declares the experts `names`, those that it has as they are, others begun at zero."""
    assert model.bank is not None, "a model without experts"
    base = _frozen_parts(thawed(model.base))
    known = [name for name in names if name in model.bank.skills]
    skills = copied(model, known) | experts(base, [name for name in names if name not in known])
    return routed_by(base, skills, {task: names})
