"""Train the weights of a base themselves: from scratch, or further from where they are (full tuning).

The loss is the mean over the labelled tokens of -log p(token | what stands before it), in nats: of the completions, or of
every token of the text (language modelling). Unlike a skill's loss it gives the embeddings and the head their gradient, tied
or not. The loop and the batches are the ones that skills learn with; the base that is given stays as it is.

    pretrain        examples in, a new frozen Base out
    thawed, sealed  the same in two halves, for a method that brings its own groups of weights or its own loss
"""

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..base import Base
from ..errors import BadOption
from ..files import sha256_json
from ..slots import rounded
from ..task import Example
from .batches import Batch, Batches
from .loop import PIECE, Group, Log, Plan, Run, train
from .loss import ROWS, TILE

ROUNDED_PIECE = 2048
"""Positions at once in bfloat16: each piece rounds the weights anew."""
Rate = Callable[[str], float]
"""The name of a weight -> its learning rate as a multiple of the whole's, unitless; 0 keeps the weight as it is."""


def pretrain(
    base: Base,
    examples: Sequence[Example],
    *,
    steps: int,
    batch: int = 32,
    lr: float = 1e-3,
    seed: int,
    rate: Rate = lambda name: 1.0,
    whole_text: bool = False,
    bf16: bool = False,
    run: Run = Run(),
) -> tuple[Base, Log]:
    """A copy of `base` whose weights have learned `examples` for `steps` steps of `batch` examples, and what happened.

    `whole_text` learns the prompts, too. `bf16` rounds what linear layers multiply: faster where the processor has bfloat16,
    and not the same run. The new base is frozen and of the old one's precision (its weights learn in fp32); its digest is that
    of its weights. A `run` with a state that was killed goes on from where it was.
    """
    model = thawed(base)
    groups = groups_of(model, lr, rate)
    batches = Batches(model, examples, batch, seed, whole_text)

    def loss(batch: Batch) -> Tensor:
        with rounded(bf16):
            return text_loss(model, batch)

    log = train(loss, groups, batches.at, Plan(steps, piece=ROUNDED_PIECE if bf16 else PIECE), run)
    return sealed(model, base), log


def thawed(base: Base) -> Base:
    """A copy of `base` in fp32 whose weights can learn."""
    model: Any = copy.deepcopy(base.model)
    for weight in model.parameters():
        weight.data = weight.data.float()
    learner = Base(base.name, base.digest, model, base.tokenizer)
    model.requires_grad_(True)
    return learner


def sealed(learner: Base, like: Base) -> Base:
    """The weights of `learner` (which is used up) as a frozen Base of the precision of `like`, under their own digest."""
    dtypes = {name: weight.dtype for name, weight in like.model.named_parameters()}
    for name, weight in learner.model.named_parameters():
        weight.data, weight.grad = weight.data.to(dtypes.get(name, like.dtype)), None
    name = like.name if like.name.endswith(", trained") else f"{like.name}, trained"
    return Base(name, weights_digest(learner), learner.model, learner.tokenizer)


def groups_of(learner: Base, lr: float, rate: Rate = lambda name: 1.0) -> list[Group]:
    """The weights of `learner`, those of one learning rate together; what has a rate of 0 is frozen and left out."""
    found: dict[float, dict[str, Tensor]] = {}
    for name, weight in learner.model.named_parameters():
        share = rate(name)
        if share < 0:
            raise BadOption(f"the rate of `{name}` is {share}, but has to be at least 0.", "0 keeps a weight as it is")
        weight.requires_grad_(share > 0)
        if share > 0:
            found.setdefault(share, {})[name] = weight
    if not found:
        raise BadOption(f"all weights of `{learner.name}` have the rate 0.", "let at least one weight learn")
    return [Group(tensors, lr * share) for share, tensors in found.items()]


def but(base: Base, frozen: Iterable[str] = ()) -> Rate:
    """The rate that lets all weights learn but the embeddings, the head and those whose names begin with one of `frozen`."""
    names = tuple(f"{name}." for name in (base.table_slot, base.head_slot, *frozen) if name)
    return lambda name: float(not name.startswith(names))


def text_loss(base: Base, batch: Batch) -> Float[Tensor, ""]:
    """Nats per labelled token of `batch`, with gradients for every weight of `base` that can learn."""
    rows = base.hidden(batch.tokens).flatten(0, 1)[batch.rows]
    if len(base.head) <= TILE:
        return F.cross_entropy(base.logits(rows).float(), batch.labels)
    parts = [  # a large vocabulary: no more than ROWS rows of logits at a time, computed again on the way back
        checkpoint(_total, base, rows[at : at + ROWS], batch.labels[at : at + ROWS], use_reentrant=False)
        for at in range(0, len(rows), ROWS)
    ]
    return torch.stack(parts).sum() / len(rows)


def _total(base: Base, rows: Float[Tensor, "row width"], labels: Int[Tensor, " row"]) -> Float[Tensor, ""]:
    return F.cross_entropy(base.logits(rows).float(), labels, reduction="sum")


def weights_digest(base: Base) -> str:
    """A digest of the values of all weights, whatever they came from."""
    weights = {}
    for name, weight in base.model.named_parameters():
        flat = weight.detach().contiguous().flatten().view(torch.uint8)
        weights[name] = [str(weight.dtype), list(weight.shape), hashlib.sha256(flat.numpy().tobytes()).hexdigest()]
    return sha256_json(["weights", weights])
