"""Paper 49 (arXiv:2510.10071): does a field of knowledge do less harm in copies of the layers that general text needs least?

A transformer of eight layers is trained from scratch on general text: docstrings and a small grammar. Then every arm learns an
invented field from the same number of tokens. Along each run the loss on held-out general text and on held-out text of the
field is measured, and the rise of the one is read off where the other has come to the same level in all arms.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..bank import SkillBank
from ..base import Base, TinyBase
from ..curriculum.invented import InventedField, grammar
from ..curriculum.mixing import mixture
from ..delta import LowRank
from ..learn.batches import Batch, Batches
from ..learn.expand import Expand
from ..learn.loop import Group, Plan, Rates, Run, train
from ..learn.loss import bank_loss
from ..learn.pretrain import groups_of, pretrain, text_loss, thawed
from ..learn.probe import Probe
from ..measure.forgetting import common_level, rises
from ..measure.stats import student
from ..measure.text import documentation_of
from ..task import Example

CRITERION = (
    "Holds if ADEPT's rise is <= 50 % of full tuning's, and least-important beats random and most-important selection in "
    ">= 2 of 3 seeds."
)
LIMITS = (
    "A model of 0.4 M parameters that reads characters and has read little; general text is docstrings and a small grammar, "
    "the field is invented. Losses on held-out text only: nothing is said about benchmarks such as MMLU or GSM8K."
)
RATES = {
    "full": 3e-4, "LoRA": 1e-3, "replay": 3e-4, "even": 1e-3, "random": 1e-3, "most": 1e-3, "one rate": 1e-3, "ADEPT": 1e-3,
}  # fmt: skip
"""Largest learning rate of each arm, found on the validation split of a seed that is not reported."""
PIECE = 110
"""Characters of a piece of a docstring."""
LEVELS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the way to the common level of the field's loss at which arms are compared; the last one decides."""
RISE = "rise at 100 %"


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    seeds: int
    width: int = 64
    layers: int = 8
    pretrain: int = 400
    """Steps of pretraining, each of 24 texts."""
    steps: int = 120
    """Steps of each arm, each of `batch` texts."""
    batch: int = 16
    held: int = 32
    """Held-out texts of each kind."""
    points: int = 10
    """Measurements along a run."""
    copies: int = 2
    every: int = 40
    """Steps between two measurements of unit importance (the paper: 100 of far more)."""

    @property
    def ticks(self) -> int:
        return 1 + len(RATES)


EFFORTS = {"quick": Effort(1, pretrain=150, steps=60, every=20), "paper": Effort(3)}


@dataclass(frozen=True)
class Arm:
    """What learns, and how."""

    loss: Callable[[Batch], Tensor]
    groups: list[Group]
    rates: Rates = lambda step: None
    replay: float = 0.0
    """Share of the texts that are general ones."""


def seed(effort: Effort, seed: int, tick) -> dict[str, dict[str, float]]:
    """One model and one field: every arm from the same weights, on the same texts."""
    began = time.process_time()
    base = pretrained(effort, seed)
    tick(1, "pretrained")
    courses = {}
    for name, lr in RATES.items():
        courses[name] = course(effort, base, name, lr, seed, "test")
        tick(1, name)
    start, level = courses["full"][0], common_level(courses.values())
    found = {"before": {"field loss": start[0], "general loss": start[1], "level loss": level}}
    for name, read_off in rises(courses, LEVELS).items():
        found[name] = {f"rise at {share:.0%}".replace("%", " %"): rise for share, rise in read_off.items()}
        found[name] |= dict(zip(("field loss", "general loss"), courses[name][-1], strict=True))
    worth = grown(effort, base, "least", seed).importance.tolist()
    found["before"]["cpu minutes"] = (time.process_time() - began) / 60  # of this seed, wherever the seeds are put together
    return found | {f"layer {number}": {"importance": rise} for number, rise in enumerate(worth)}


def general(n: int, split: str, seed: int) -> list[str]:
    """`n` texts, half pieces of docstrings and half grammar."""
    words = [" ".join(text.split()) for text in documentation_of(split)]
    pieces = [Example("", text[at : at + PIECE]) for text in words for at in range(0, len(text) - PIECE, PIECE)]
    return [e.completion for e in mixture([(pieces, 1.0)], n - n // 2, seed)] + grammar(n // 2, split, seed)


def pretrained(effort: Effort, seed: int) -> Base:
    """A small base that has read general text."""
    base = TinyBase(effort.width, seed, layers=effort.layers)
    texts = [Example("", text) for text in general(effort.pretrain * 24, "train", seed)]
    return pretrain(base, texts, steps=effort.pretrain, batch=24, lr=4e-3, seed=seed, whole_text=True)[0]


def grown(effort: Effort, base: Base, choice: str, seed: int):
    """`base` with silent copies; the probe is general text of the training split, the arms are measured on other text."""
    probe = Probe.of_texts(base, general(effort.held, "train", seed + 500))
    return Expand(copies=effort.copies, choice=choice).grow(base, probe, seed)


def arm(effort: Effort, base: Base, name: str, lr: float, seed: int) -> Arm:
    """Everything of the arm `name` but its data."""
    if name in ("full", "replay"):
        learner = thawed(base)
        return Arm(partial(text_loss, learner), groups_of(learner, lr), replay=0.1 if name == "replay" else 0.0)
    if name == "LoRA":
        bank = SkillBank(base, {"new": LowRank.fresh(base, 8, 2.0, seed)})
        return Arm(partial(bank_loss, bank), [Group(bank.skills["new"].tensors(), lr)])
    growth = grown(effort, base, name if name in ("even", "random", "most") else "least", seed)
    every = 0 if name in ("even", "one rate") else effort.every
    return Arm(growth.loss, growth.groups(lr), growth.rates(every, Expand.trim))


def course(effort: Effort, base: Base, name: str, lr: float, seed: int, split: str) -> list[tuple[float, float]]:
    """Let the arm `name` learn the field; its loss on the field and on general text, of `split`, along the run."""
    made, field, count = arm(effort, base, name, lr, seed), InventedField(seed), effort.steps * effort.batch
    texts = [(field.texts(count, "train", seed), 1 - made.replay), (general(count, "train", seed), made.replay)]
    drawn = mixture([([Example("", text) for text in some], share) for some, share in texts], count, seed)
    held = [Probe.of_texts(base, some) for some in (field.texts(effort.held, split, 0), general(effort.held, split, 0))]
    stops = [round(effort.steps * point / effort.points) for point in range(effort.points + 1)]
    found, done = [], []

    def look(steps: int, note: str) -> None:
        done.append(steps)
        if sum(done) in stops:
            found.append((held[0].mean(made.loss), held[1].mean(made.loss)))

    look(0, "")
    batches = Batches(base, drawn, effort.batch, seed, whole_text=True)
    train(made.loss, made.groups, batches.at, Plan(effort.steps), Run(tick=look), rates=made.rates)
    return found


def judge(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """The criterion; least-important has to beat both in the same seed.

    Not tested: full tuning does no harm (its rise is not above 0, with several seeds by its interval).
    """
    full, adept = (student([run[name][RISE] for run in runs]) for name in ("full", "ADEPT"))
    if not full.low > 0:
        return "not tested"
    half = adept.value <= 0.5 * full.value
    beats = [run["ADEPT"][RISE] < min(run["random"][RISE], run["most"][RISE]) for run in runs]
    least = 3 * sum(beats) >= 2 * len(beats)
    return "holds" if half and least else "partly" if half or least else "does not hold"
