"""Paper 47 (arXiv:2407.02880): do strengths per block of weights compose skills better than one a skill, or one for all?

Six skills on one base (`word_skills.py`): (a) all of them at once, one set of strengths for their six tasks, chosen on
validation examples that are the same for every arm; (b) a seventh task from 1 to 64 examples, by strengths for the blocks of
the six skills, or by a LoRA of its own. Strengths start at 0, as the paper's do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..bank import SkillBank
from ..compose.scales import Scales
from ..composition import Active
from ..learn.sft import SFT
from .word_skills import World, examples_of, loss, right, share, tuned, world

CRITERION = (
    "Holds if block >= per-vector >= grid by >= 3 normalised points in (a), and block beats LoRA at <= 8 shots with LoRA "
    "overtaking later in (b)."
)
LIMITS = (
    "A base of 1 M parameters from scratch, on words of 3 or 4 letters; its tasks differ in an instruction of two letters, not "
    "in domain. In (b) rates are chosen on validation examples that someone with one example does not have; every arm has the "
    "same. Three seeds. Nothing here is about vision models."
)
FEW = 8
"""Shots up to which strengths should win."""
GRID = tuple(i / 20 for i in range(1, 21))
"""What is tried as the one strength of all skills, unitless."""
GRAINS = ("global", "layer", "block")
RANKS = (1, 8)
ALPHA_RATES, FEW_RATES, LORA_RATES = (0.03, 0.1, 0.3), (0.01, 0.03, 0.1), (3e-4, 1e-3, 3e-3, 1e-2)
Arms = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    seeds: int
    width: int = 128
    pretraining: int = 500
    """Steps of the base, 64 examples each."""
    skill: int = 120
    """Steps of each skill, 32 examples each."""
    tuning: int = 50
    """Steps of strengths in (a), 32 examples each."""
    few: int = 30
    """Steps of every arm in (b), 8 examples each."""
    valid: int = 48
    """Validation examples of each task."""
    test: int = 100
    """Test examples of each of the six tasks; twice as many of the seventh."""
    shots: tuple[int, ...] = (1, 2, 4, 8, 16, 64)

    @property
    def ticks(self) -> int:
        return 2 + len(self.shots)


EFFORTS = {"quick": Effort(1, shots=(1, 8, 64)), "paper": Effort(3)}


def seed(effort: Effort, seed: int, tick) -> Arms:
    """One seed: every arm on the same base, skills and examples."""
    here = world(seed, effort.width, effort.pretraining, effort.skill)
    tick(1, "base and skills")
    found = addition(effort, here, seed)
    tick(1, "addition")
    seventh = right(Active(here.base), here.held.take(2 * effort.test, "test"))
    found["held-out task, base"] = {"exact": share(seventh), "same": here.same}
    for shots in effort.shots:
        found |= few_shots(effort, here, shots, seed)
        tick(1, f"{shots} shots")
    return found


def addition(effort: Effort, here: World, seed: int) -> Arms:
    """(a) one set of strengths for all tasks; scores as shares of what each skill reaches alone on its own."""
    base, tasks, count = here.base, here.tasks, len(here.tasks)
    bank, ones = SkillBank(base, here.skills), torch.ones(count)
    on = partial(Active, base, bank)
    valid, test = examples_of(tasks, effort.valid, "valid"), examples_of(tasks, effort.test, "test")
    own = [share(right(on(ones.diag()[k]), test[k::count])) for k in range(count)]

    def scores(use: Active) -> dict[str, float]:
        got = right(use, test)
        each = [share(got[k::count]) / max(own[k], 0.01) for k in range(count)]
        return {"normalised": share(each), "exact": share(got)}

    found = {"each alone": {"normalised": 1.0, "exact": share(own)}, "base": scores(on(0 * ones)), "sum": scores(on(ones))}
    best = max(GRID, key=lambda x: sum(right(on(x * ones), valid)))
    found["grid"] = scores(on(best * ones)) | {"chosen": best}
    for grain in GRAINS:

        def fit(lr: float, grain: str = grain) -> Active:
            method = Scales(effort.tuning, 32, lr, granularity=grain, start=0.0, valid=0.25)
            return method.fit(base, here.skills, valid, seed)[0].use(base, here.skills)

        rate, use = tuned(fit, ALPHA_RATES, Scales(valid=0.25).split(valid, seed)[1])
        found[grain] = scores(use) | {"chosen": rate}
    for arm, rival in (("global", "grid"), ("block", "global")):
        found[arm]["gap"] = found[arm]["normalised"] - found[rival]["normalised"]
    return found


def few_shots(effort: Effort, here: World, shots: int, seed: int) -> Arms:
    """(b) the held-out task from `shots` examples."""
    base, task = here.base, here.held
    few, valid, test = task.take(shots, "train"), task.take(effort.valid, "valid"), task.take(2 * effort.test, "test")

    def block(lr: float) -> Active:
        method = Scales(effort.few, FEW, lr, granularity="block", start=0.0)
        return method.fit(base, here.skills, few, seed)[0].use(base, here.skills)

    def lora(rank: int, lr: float) -> Active:
        return Active(base, SkillBank(base, {"new": SFT(effort.few, FEW, lr, rank).fit(base, few, seed)[0]}))

    found = {}
    arms = {"block": (block, FEW_RATES)} | {f"lora {rank}": (partial(lora, rank), LORA_RATES) for rank in RANKS}
    for name, (fit, rates) in arms.items():
        rate, use = tuned(fit, rates, valid)
        found[f"{name}, {shots} shots"] = {"exact": share(right(use, test)), "nats": loss(use, test), "chosen": rate}
    return found


def judge(runs: Sequence[Arms]) -> str:
    """The criterion over the means of the seeds.

    (a) each of the two gaps is at least 3 points; (b) strengths beat both LoRAs at every number of shots up to 8, and lose to
    one of them at the largest. Not tested: the skills cannot do their own tasks, or hardly better than the base; or another
    task has the answers of the held-out one.
    """
    mean = {arm: {m: share([run[arm][m] for run in runs]) for m in values} for arm, values in runs[0].items()}
    alone, base = mean["each alone"]["exact"], mean["base"]["exact"]
    if alone < 0.6 or alone - base < 0.2 or mean["held-out task, base"]["same"] > 0.5:
        return "not tested"
    grid, vector, block = (mean[arm]["normalised"] for arm in ("grid", "global", "block"))
    adds = block - vector >= 0.03 and vector - grid >= 0.03
    lead = leads(mean)
    adapts = all(gap > 0 for n, gap in lead.items() if n <= FEW) and lead[max(lead)] < 0
    return "holds" if adds and adapts else "partly" if adds or adapts else "does not hold"


def leads(mean: Mapping[str, Mapping[str, float]]) -> dict[int, float]:
    """By the number of shots, how far strengths are ahead of the better LoRA."""
    shots = sorted(int(arm.split()[1]) for arm in mean if arm.startswith("block, "))
    best = {n: max(mean[f"lora {rank}, {n} shots"]["exact"] for rank in RANKS) for n in shots}
    return {n: mean[f"block, {n} shots"]["exact"] - best[n] for n in shots}
