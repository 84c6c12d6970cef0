"""The one training loop: AdamW with linear decay on whatever tensors it is given, resumable bit for bit.

Plain gradient steps (SGD) are there for methods that need the gradient's own size. Everything that decides a step is a function
of (seed, step), so a state is: the tensors, what AdamW knows of each (two moments and a count of steps, since a tensor that a
step does not use is not stepped), and the log; and what a method that learns from its own samples remembers between steps
(`Memory`). It is saved aside and renamed, so a process killed at any moment finds the last whole state. With one thread the
resumed run gives the same bits as one that was never stopped.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import SkillweaveError
from ..files import atomic_write
from .batches import Batch

Tick = Callable[[int, str], None]
"""(steps done since the last call, a note): how a loop tells that it is alive."""
Rates = Callable[[int], Sequence[float] | None]
"""The step that comes -> a multiple of the rate of each group from now on, unitless; None: as they are."""


BETAS = (0.9, 0.99)
"""AdamW's memory: runs here last tens to hundreds of steps, so the second moment must not remember a thousand."""


MEMORY = {"m": "exp_avg", "v": "exp_avg_sq", "s": "step"}
"""What is saved of a tensor beside itself, and AdamW's name for it."""


PIECE = 512
"""Positions of a batch that are computed at once: enough for products at full speed, and no more activations are held."""


@dataclass(frozen=True)
class Group:
    """Tensors that learn at one rate."""

    tensors: Mapping[str, Tensor]
    lr: float
    """Change per step, unitless."""
    decay: float = 0.0
    """AdamW's weight decay, per step and unit of learning rate: pulls towards zero."""


@dataclass(frozen=True)
class Plan:
    """How long and how carefully."""

    steps: int
    warmup: float = 0.05
    """Share of the steps over which the rate rises from zero; then it falls linearly to zero."""
    clip: float = 1.0
    """Largest norm of the whole gradient, unitless."""
    optimiser: str = "adamw"
    """`adamw`, or `sgd`: each step is the rate times the gradient."""
    steady: bool = False
    """Keep the rate as it is through all steps: no rise, no fall."""
    stop: int | None = None
    """Stop after so many steps, with the rates of the whole course; None for all of them."""
    save_every: float = 15.0
    """Seconds between saved states."""
    piece: int = PIECE
    """Positions of a batch that are computed at once."""


@dataclass(frozen=True)
class Run:
    """Where a run keeps its state, and who is told how far it is."""

    state: Path | None = None
    """A file to save to and to go on from; None for neither."""
    key: str = ""
    """Digest of all that decides the run: a state that was saved under another one is not used."""
    tick: Tick = lambda steps, note: None
    journal: Path | None = None
    """A file for one JSON object a step, from methods that have more to tell than their loss; None for none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What decides the run, as JSON values by name: the state says it to whoever finds it (`unfinished`)."""


@runtime_checkable
class Memory(Protocol):
    """What a method remembers between steps that follows neither from the seed nor from the tensors."""

    def saved(self) -> Any:
        """All of it as a JSON value."""

    def restore(self, saved: Any) -> None:
        """Be as it was when `saved` was taken."""


@dataclass
class Log:
    """What happened, a number a step."""

    loss: list[float] = field(default_factory=list)
    """Nats per token."""
    tokens: int = 0
    """Tokens read, without padding."""
    padding: int = 0
    """Padded positions computed."""
    labels: int = 0
    rates: list[list[float]] = field(default_factory=list)
    """Where the rates of the groups were changed: the step, then a multiple a group, unitless."""
    idle: int = 0
    """Steps whose batch had nothing to learn from: weights and optimiser stayed as they were."""
    samples: int = 0
    """Completions that the model wrote to learn from, those for measuring and those that were thrown away included."""
    drawn: int = 0
    """Tokens of these completions."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What a method that samples says of each step; one JSON object a line in the journal of the run."""
    seconds: float = 0.0
    """On the clock, over all runs that it took."""
    cpu_seconds: float = 0.0
    """Of all threads; with one thread on an idle machine the same as `seconds`."""


def train(
    loss: Callable[[Batch], Tensor],
    groups: Sequence[Group],
    batch: Callable[[int], Batch],
    plan: Plan,
    run: Run = Run(),
    *,
    precondition: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
    rates: Rates = lambda step: None,
    memory: Memory | None = None,
) -> Log:
    """Change the tensors of `groups` in place until the steps of `plan` are done.

    A loss or gradient that is not finite stops the run; the last whole state stays. `precondition` may change the clipped
    gradients before the optimiser reads them, as a function of them and of the tensors alone (or a resumed run would differ).
    `after` is called after each step and may write to tensors of `groups` that have no gradient: they are saved with the rest.
    `rates` is asked before each step; what it answered last is part of the state, so it may look at the tensors.
    `batch` may look at the tensors, too, and sample from them; what it has to remember is saved with the state as `memory`.
    A batch without pieces is an idle step.
    """
    named = {name: tensor for group in groups for name, tensor in group.tensors.items()}
    optimiser = _optimiser(groups, plan)
    state, key, tick = run.state, run.key, run.tick
    log, start = _load(state, key, named, optimiser, memory)
    tick(start, "") if start else None
    began = saved = time.monotonic()
    past, past_cpu = log.seconds, log.cpu_seconds - time.process_time()
    for step in range(start, plan.steps if plan.stop is None else plan.stop):
        if (changed := rates(step)) is not None:
            log.rates.append([step, *changed])
        multiples = log.rates[-1][1:] if log.rates else [1.0] * len(groups)
        for group, shown, multiple in zip(groups, optimiser.param_groups, multiples, strict=True):
            shown["lr"] = group.lr * multiple * rate(step, plan)
        data = batch(step)
        optimiser.zero_grad()
        number = 0.0
        pieces = data.pieces(plan.piece)
        for piece in pieces:
            value = loss(piece) * (len(piece.labels) / max(1, len(data.labels)))
            value.backward()
            number += value.item()
        if not math.isfinite(number):
            raise SkillweaveError(f"the loss is {number} at step {step}.", "lower the learning rate (--lr)")
        if pieces:
            norm = torch.nn.utils.clip_grad_norm_(list(named.values()), plan.clip).item()
            if not math.isfinite(norm):
                raise SkillweaveError(f"the gradient is {norm} at step {step}.", "lower the learning rate (--lr)")
            precondition()
            optimiser.step()
        log.idle += not pieces
        after()
        log.loss.append(number)
        log.tokens += data.real
        log.padding += data.positions - data.real
        log.labels += len(data.labels)
        log.seconds = past + time.monotonic() - began
        log.cpu_seconds = past_cpu + time.process_time()
        if state is not None and time.monotonic() - saved > plan.save_every:
            _save(run, named, optimiser, log, memory)
            saved = time.monotonic()
        tick(1, f"loss {number:.3f} · {log.tokens / max(log.seconds, 1e-9):,.0f} tokens/s")
    if state is not None:
        _save(run, named, optimiser, log, memory)
    return log


def rate(step: int, plan: Plan) -> float:
    """Share of the full learning rate at `step`: a linear rise, then a linear fall that ends above zero."""
    if plan.steady:
        return 1.0
    rise = max(1, round(plan.warmup * plan.steps))
    return min(1.0, (step + 1) / rise) * min(1.0, (plan.steps - step) / max(1, plan.steps - rise))


def _optimiser(groups: Sequence[Group], plan: Plan) -> torch.optim.Optimizer:
    rates = [{"params": list(g.tensors.values()), "lr": g.lr, "weight_decay": g.decay} for g in groups]
    if plan.optimiser == "sgd":
        return torch.optim.SGD(rates, foreach=True)
    adam = torch.optim.AdamW(rates, betas=BETAS, foreach=True)
    for tensor in (tensor for group in groups for tensor in group.tensors.values()):
        adam.state[tensor] = {  # moments exist from the start, so that every state has the same tensors
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(tensor),
            "exp_avg_sq": torch.zeros_like(tensor),
        }
    return adam


def _tensors(named: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that a state holds: the tensors and what AdamW knows of each."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {"": lambda t: t.detach()}
    if isinstance(optimiser, torch.optim.AdamW):
        kinds |= {f":{k}": lambda t, n=n: optimiser.state[t][n] for k, n in MEMORY.items()}
    return {f"{name}{kind}": of(tensor) for name, tensor in named.items() for kind, of in kinds.items()}


def _save(run: Run, named: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, log: Log, memory: Memory | None) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(named, optimiser).items()}
    about = {"key": run.key, "log": json.dumps(vars(log)), "settings": json.dumps(run.settings)}
    if memory is not None:
        about["memory"] = json.dumps(memory.saved())
    assert run.state is not None
    atomic_write(run.state, save(tensors, about))


def _load(
    path: Path | None, key: str, named: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, memory: Memory | None
) -> tuple[Log, int]:
    """Go on from the state at `path`, or start anew if there is none of `key` that is whole."""
    if path is None or not path.is_file():
        return Log(), 0
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            log = Log(**json.loads(about["log"])) if about.get("key") == key else Log()
            kept = json.loads(about["memory"]) if memory is not None else None
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, TypeError, ValueError):
        return Log(), 0
    wanted = _tensors(named, optimiser)
    if about.get("key") != key or {k: t.shape for k, t in saved.items()} != {k: t.shape for k, t in wanted.items()}:
        return Log(), 0
    for name, tensor in wanted.items():
        tensor.copy_(saved[name])
    if memory is not None:
        memory.restore(kept)
    return log, len(log.loss)
