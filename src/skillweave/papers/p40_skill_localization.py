"""Paper 40 (arXiv:2302.06600): does a tiny part of the fine-tuned weights carry the whole skill?

A seed is a base of its own, trained from scratch on questions in other templates with other answers (`tasks/yesno.py`), and
draws of everything else. It is fine-tuned (linear layers only) on 64 questions of one task, and weights of the result are put
onto the base: those of a learned mask, the largest changes, or random ones, as many of each. Three tasks are measured; each has
a related one, which asks the same of other words. Rates and masks are chosen on training and validation questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from random import Random

import torch

from ..bank import SkillBank
from ..base import Base, TinyBase
from ..compose.graft import cut, drawn, entries, learn_mask, top, weights
from ..delta import LowRank
from ..learn.full import Full
from ..learn.loss import forced
from ..learn.pretrain import pretrain
from ..measure.localize import calibration_error, choice_shares, overlap
from ..measure.stats import student
from ..task import Example
from ..tasks.yesno import ALPHABET, Question

CRITERION = (
    "Holds if the learned mask at <= 1 % keeps >= 95 % of the gain while random keeps <= 30 %, ECE falls, and related "
    "tasks overlap more."
)
LIMITS = (
    "Bases of about 1 M parameters trained from scratch on an artificial language, three easy tasks, a tenth of whose answers "
    "are wrong, 64 examples: far from RoBERTa on text. Related tasks differ in their words only. 0.01 % is 97 weights here: "
    "what that share of a large model holds is not shown."
)
KINDS = ("mood", "order", "subject")
SHOTS, NOISE = 64, 0.1
DECIDES = 0.01
"""The size that decides."""
RATES = {"sgd": (0.1, 0.3), "adamw": (3e-4, 1e-3)}
MASK_RATES = (1e7, 1e8)


@dataclass(frozen=True)
class Effort:
    """How much is trained and measured."""

    seeds: int
    width: int
    """Of the base."""
    pretrain: int
    """Steps of 64 questions from which the base learns."""
    tune: int
    """Steps of 16 examples of a fine-tuning."""
    mask: int
    """Steps of a mask, each over all examples."""
    test: int
    """Test questions of a task, and of as many in other templates."""
    sizes: tuple[float, ...]
    """Shares of the weights that a graft may hold, DECIDES among them."""
    ticks: int = 1 + len(KINDS)


EFFORTS = {
    "quick": Effort(1, 32, 250, 60, 6, 200, (DECIDES, 0.1)),
    "paper": Effort(3, 128, 200, 100, 20, 400, (1e-4, 1e-3, DECIDES, 0.1)),
}


def seed(effort: Effort, seed: int, tick) -> dict[str, dict[str, float]]:
    """One base: every arm, as the mean over the tasks."""
    base = scratch(effort, seed)
    tick(1, "base")
    found: dict[str, list[dict[str, float]]] = {}
    grafts: dict[str, dict[str, LowRank]] = {"learned": {}, "top": {}}

    def add(name: str, change: LowRank, task: Question) -> None:
        found.setdefault(name, []).append(measured(base, change, task, effort))

    for kind in KINDS:
        one, other = (tuned(base, kind, words, effort, seed) for words in (0, 1))
        best, rate = learned(base, one, DECIDES, effort, seed, MASK_RATES)
        adam = tuned(base, kind, 0, effort, seed, "adamw")
        add("base", LowRank({}), one.task)
        add("full", one.change, one.task)
        add("AdamW full", adam.change, one.task)
        for size in effort.sizes:
            graft = best if size == DECIDES else learned(base, one, size, effort, seed, (rate,))[0]
            same = graft.parameters
            for how, change in (("learned", graft), ("top", cut(one.change, top(one.change, same))),
                                ("random", cut(one.change, drawn(one.change, same, seed)))):  # fmt: skip
                add(arm(how, size), change, one.task)
        small = learned(base, adam, DECIDES, effort, seed, MASK_RATES)[0]
        add(arm("AdamW learned", DECIDES), small, one.task)
        add(arm("AdamW top", DECIDES), cut(adam.change, top(adam.change, small.parameters)), one.task)
        grafts["learned"] |= {f"{kind} 0": best, f"{kind} 1": learned(base, other, DECIDES, effort, seed, (rate,))[0]}
        grafts["top"] |= {t.task.name: cut(t.change, top(t.change, entries(base, t.change, DECIDES))) for t in (one, other)}
        tick(1, kind)
    arms = {name: {m: sum(one[m] for one in ones) / len(ones) for m in ones[0]} for name, ones in found.items()}
    for name, metrics in arms.items():
        whole = arms["AdamW full" if name.startswith("AdamW") else "full"]["right"] - arms["base"]["right"]
        metrics["kept"] = (metrics["right"] - arms["base"]["right"]) / whole if whole else 0.0
    for how, made in grafts.items():
        arms[arm(how, DECIDES)] |= overlaps(made)
    return arms


def arm(how: str, size: float) -> str:
    """The name of an arm: `learned 0.1 %`."""
    return f"{how} {100 * size:g} %"


def scratch(effort: Effort, seed: int) -> Base:
    """A base that knows what the tasks ask, in other templates and with other answers; and yes and no of another question."""
    base = TinyBase(effort.width, seed, ALPHABET, window=32)
    base.table.data.mul_(5)  # larger weights than a TinyBase starts with: it then learns much sooner
    for linear in base.linears.values():
        linear.matrix.data.mul_(2)
    asked = [Question(k, v, template=t, answers=1, seed=seed) for k in KINDS for v in (0, 1) for t in (1, 2)]
    asked += [Question("token", v, template=t, seed=seed) for v in (0, 1) for t in (0, 1, 2)]
    draw = Random(seed)
    examples = [draw.choice(asked).example(i, "train") for i in range(64 * effort.pretrain)]
    return pretrain(base, examples, steps=effort.pretrain, batch=64, lr=3e-3, seed=seed)[0]


@dataclass(frozen=True)
class Tuned:
    """A task, and the fine-tuned change that does it."""

    task: Question
    change: LowRank
    few: Sequence[Example]
    valid: Sequence[Example]


def tuned(base: Base, kind: str, words: int, effort: Effort, seed: int, optimiser: str = "sgd") -> Tuned:
    """The fine-tuned change of the rate that answers the validation questions best."""
    task = Question(kind, words, noise=NOISE, seed=seed)
    few, valid = task.take(SHOTS, "train"), task.take(SHOTS, "valid")
    made = [Full(effort.tune, 16, lr, optimiser).fit(base, few, seed)[0] for lr in RATES[optimiser]]
    return Tuned(task, max(made, key=lambda change: _quality(base, change, valid)), few, valid)


def learned(base: Base, one: Tuned, size: float, effort: Effort, seed: int, rates: Sequence[float]) -> tuple[LowRank, float]:
    """The learned graft of at most that size, and its rate: the best on training and validation questions together."""
    made = partial(learn_mask, base, one.change, entries(base, one.change, size), one.few, one.valid, steps=effort.mask)
    found = [(cut(one.change, made(batch=SHOTS, lr=lr, seed=seed)[0]), lr) for lr in rates]
    return max(found, key=lambda pair: _quality(base, pair[0], [*one.few, *one.valid]))


def _quality(base: Base, change: LowRank, examples: Sequence[Example]) -> tuple[float, float]:
    right, nats = forced(SkillBank(base, {"one": change}), examples)
    return sum(right), -sum(nats)


def measured(base: Base, change: LowRank, task: Question, effort: Effort) -> dict[str, float]:
    """Test questions, in the template that was learned and in others, and how much of the base is changed."""
    found = {"held": change.parameters / weights(base)}
    for name, templates in (("", (0,)), (" elsewhere", (1, 2))):
        asked = [Question(task.kind, task.vocabulary, template=t, noise=NOISE, seed=task.seed) for t in templates]
        examples = [e for one in asked for e in one.take(effort.test // len(templates), "test")]
        with SkillBank(base, {"one": change}).on():
            shares = choice_shares(base, [e.prompt for e in examples], task.answers)
        right = (
            (shares.argmax(1) == torch.tensor([task.answers.index(e.completion.strip()) for e in examples])).double().tolist()
        )
        found |= {f"right{name}": sum(right) / len(right), f"ece{name}": calibration_error(shares.amax(1).tolist(), right)}
    if change.full:
        squares = (
            torch.cat([change.dense(slot).flatten().square() for slot in change.slots]).double().sort(descending=True).values
        )
        found["energy"] = float(squares[: round(DECIDES * weights(base))].sum() / squares.sum())
    return found


def overlaps(grafts: Mapping[str, LowRank]) -> dict[str, float]:
    """Mean overlap of the grafts of related tasks, which ask the same of other words, and of all others."""
    pairs = [(one[:-2] == other[:-2], overlap(grafts[one], grafts[other])) for one, other in combinations(grafts, 2)]
    groups = {
        name: [value for same, value in pairs if same == wanted] for name, wanted in (("related", True), ("others", False))
    }
    return {f"overlap {name}": sum(values) / len(values) for name, values in groups.items()}


def judge(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """The criterion: what is to differ does so by more than its interval over the seeds, what is to be reached is by the mean.

    Three claims: the learned mask keeps the gain and a random one does not; ECE falls; related tasks overlap more. Not tested:
    fine-tuning gained nothing that could be kept.
    """

    def gap(one: tuple[str, str], other: tuple[str, str]):
        return student([run[one[0]][one[1]] - run[other[0]][other[1]] for run in runs])

    if not gap(("full", "right"), ("base", "right")).low > 0:
        return "not tested"
    mask, control = arm("learned", DECIDES), arm("random", DECIDES)
    kept, chance = (student([run[name]["kept"] for run in runs]).value for name in (mask, control))
    parts = (
        kept >= 0.95 and chance <= 0.3,
        gap((mask, "ece"), ("full", "ece")).high < 0,
        gap((mask, "overlap related"), (mask, "overlap others")).low > 0,
    )
    return "holds" if all(parts) else "partly" if any(parts) else "does not hold"
