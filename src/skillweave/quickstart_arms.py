"""The jobs of the quickstart: learn a skill, and every way of using 24 invoices. Each runs in a process of its own."""

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from . import __version__
from .bank import SkillBank
from .base import Base, load_base
from .carried import carried_by
from .compose.scales import Scales, ScalesWithLora
from .composition import Active, Composition
from .curriculum.mixing import mixture
from .curriculum.recombine import recombine
from .delta import LowRank, weighted_sum
from .errors import LibraryError
from .files import sha256_json
from .learn.batches import Batches
from .learn.loop import Group, Log, Plan, Run, Tick, train
from .learn.loss import bank_loss, mean_loss
from .learn.sft import SFT
from .library import Library
from .measure.score import evaluate
from .measure.stats import wilson
from .saving import facts_of, save_composition, save_skill
from .skill import Skill
from .task import Example, Task
from .tasks import load_task
from .unfinished import forget
from .verbs import check, run, weights_of

SKILLS = ("date", "number", "country")
TARGET = "invoice"
CHECKED = 40
"""Validation examples that each of the three skills is tried on."""
SHOTS = 24
"""Examples of it that may be used."""
QUESTION = "On 3. Mai 2021 we billed a client in Ivory Coast two hundred and five euros."


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    skills: Mapping[str, SFT]
    """How each of the three skills is learned; the joint LoRA gets all their steps."""
    few: SFT
    """How a LoRA learns from the 24 invoices; the arms that weave take the same steps."""
    test: int
    """Held-out invoices, half of them in phrasings never seen."""
    kept: int
    """Held-out examples of each skill's own task."""
    rates: tuple[float, ...]
    """Learning rates that the fresh LoRA may choose from."""
    arms: tuple[str, ...]
    """Which ways of using the invoices run."""

    @property
    def joint(self) -> SFT:
        """One LoRA with the steps of all skills and of the 24 invoices together."""
        return replace(self.few, steps=sum(skill.steps for skill in self.skills.values()) + self.few.steps)


@dataclass(frozen=True)
class Setting:
    """Where a job works, and with what."""

    effort: Effort
    library: Path
    seed: int

    @property  # a library holds locks, and a setting travels to other processes
    def shelf(self) -> Library:
        return Library(self.library)

    @property
    def base(self) -> Base:
        return _base()

    def task(self, name: str) -> Task:
        return _task(name, self.seed)

    @property
    def invoices(self) -> list[Example]:
        """The 24."""
        return self.task(TARGET).take(SHOTS, "train")

    def pool(self, name: str) -> list[Example]:
        """What the skill `name` learns from."""
        method = self.effort.skills[name]
        return [self.task(name).example(i, "train") for i in range(method.steps * method.batch)]

    @property
    def members(self) -> list[Skill]:
        return [self.shelf.get(name) for name in SKILLS]

    @property
    def weights(self) -> dict[str, LowRank]:
        return {member.name: weights_of(member) for member in self.members}

    @cached_property
    def work(self) -> Path:
        """Where the answers of finished jobs wait: a folder for each effort, seed and state of the tasks."""
        tasks = [self.task(name).digest() for name in (*SKILLS, TARGET)]
        what = [__version__, asdict(self.effort), vars(ScalesWithLora()), self.seed, tasks]
        return Path(self.library) / ".work" / f"quickstart-{sha256_json(what)[:16]}"

    def run(self, tick: Tick, *what: object) -> Run:
        """A training run of `what` that can be resumed."""
        key = sha256_json([str(part) for part in (self.work.name, self.base.digest, *what)])
        return Run(Path(self.library) / ".work" / f"{key[:32]}.safetensors", key, tick)


@cache
def _base() -> Base:
    return load_base()


@cache
def _task(name: str, seed: int) -> Task:
    return load_task(name, seed)


def teach(at: Setting, name: str, tick: Tick) -> dict[str, Any]:
    """Learn one of the three skills, unless the library has just this one."""
    method, base, task = at.effort.skills[name], at.base, at.task(name)
    if name in at.shelf:
        made = at.shelf.get(name).provenance
        if (made.get("config"), made.get("seed"), (made.get("base") or {}).get("digest")) != (
            vars(method),
            at.seed,
            base.digest,
        ):
            raise LibraryError(
                f"`{name}` in {at.library} was learned in another way.", "run the quickstart with another --library"
            )
        return {"seconds": made["cost"]["cpu_seconds"]}
    course = at.run(tick, method, name)
    skill, log = method.fit(base, at.pool(name), at.seed, course)
    made = Composition.of(skill, base)
    facts = facts_of(base, "sft", method, task, at.pool(name), at.seed, log, check(made.use(base, {}), task, CHECKED))
    save_skill(at.shelf, name, made, base, task, at.pool(name), facts, task.description)
    forget(course.state)
    return {"seconds": log.cpu_seconds}


def weave(at: Setting, method: Scales, save: bool, tick: Tick) -> dict[str, Any]:
    """Learn a strength per skill and layer, perhaps with a new LoRA; `save` it as the skill `invoice`."""
    base, members, weights, few = at.base, at.members, at.weights, at.effort.few
    method = replace(method, steps=few.steps, batch=few.batch)
    if save and TARGET in at.shelf:
        made = at.shelf.get(TARGET).provenance
        parents = [{"name": member.name, "digest": member.digest} for member in members]
        if (made.get("config"), made.get("seed"), made.get("parents")) != (vars(method), at.seed, parents):
            raise LibraryError(
                f"`{TARGET}` in {at.library} was made in another way.", "run the quickstart with another --library"
            )
    course = at.run(tick, method, [member.digest for member in members])
    woven, log = method.fit(base, weights, at.invoices, at.seed, carried_by(members), course)
    tested = test(at, woven.merged(base, weights), log.cpu_seconds)
    if save and TARGET not in at.shelf:
        task = at.task(TARGET)
        facts = facts_of(base, "scales+lora", method, task, at.invoices, at.seed, log, wilson(0.0, 0))
        save_composition(at.shelf, TARGET, woven, members, weights, base, task, at.invoices, facts)
        reached = wilson(sum(tested["exact"]), len(tested["exact"]))
        at.shelf.record(TARGET, [{"task": TARGET, "split": "test", "metric": "exact", "seed": at.seed} | vars(reached)])
    forget(course.state)
    return tested | {"alpha": woven.strengths.mean(1).tolist()}


def search(at: Setting, rate: float | None, tick: Tick) -> dict[str, Any]:
    """How a third of the 24 invoices is answered while a fresh LoRA learns the others, at two points of one half of the way.

    The first half at `rate`; with None the second half of the rate that looked best, from where its first half stopped
    (successive halving, 1502.07943). A look is (steps, share of right fields, nats per token). Loss alone would stop a LoRA
    too early: it grows with certainty while the answers still get better.
    """
    began, most, half = time.process_time(), at.effort.few.steps, rate is not None
    rate = rate or _best(at)[0]
    state = at.work / f"search {rate:g}.safetensors"
    if half:
        forget(state)
    else:
        state = Path(shutil.copy(state, at.work / "search on.safetensors"))  # so that it can be gone on from once more
    held, rest = at.invoices[::3], [example for i, example in enumerate(at.invoices) if i % 3]
    looks = {round(most * share) for share in ((0.25, 0.5) if half else (0.75, 1.0))}
    seen: list[tuple[int, float, float]] = []
    done = 0

    def look(steps: int, note: str) -> None:
        nonlocal done
        done += steps
        if done in looks:
            parts = evaluate(Active(at.base, bank), at.task(TARGET), held).fields.values()
            seen.append((done, sum(map(sum, parts)) / sum(map(len, parts)), mean_loss(bank, held)))
        tick(steps, note)

    bank, method = _new(at), replace(at.effort.few, lr=rate)
    _teach(bank, method, rest, at.seed, replace(at.run(look, method, "search"), state=state), most // 2 if half else most)
    return {"rate": rate, "looks": seen, "seconds": time.process_time() - began}


def _best(at: Setting) -> tuple[float, int]:
    """The rate and number of steps that looked best in the searches that are done."""
    looks = [(-right, loss, run["rate"], steps) for run in _searches(at) for steps, right, loss in run["looks"]]
    *_, rate, steps = min(looks)
    return rate, steps


def _searches(at: Setting) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(at.work.glob("search *.json"))]


def fresh(at: Setting, more: float, tick: Tick) -> dict[str, Any]:
    """A new LoRA on the 24 invoices, at the rate and number of steps that the search liked best.

    more: share of the examples that are recombined from the 24 and the skills' own data, as in the weaving arm.
    """
    rate, steps = _best(at)
    method = replace(at.effort.few, lr=rate)
    examples = at.invoices
    if more:
        steps = method.steps  # there is nothing to overfit in examples that do not repeat
        count = method.steps * method.batch
        made = recombine(at.invoices, carried_by(at.members), round(count * more), at.seed)
        examples = mixture([(at.invoices, 1 - more), (made, more)], count, at.seed)
    bank = _new(at)
    log = _teach(bank, method, examples, at.seed, Run(tick=tick), steps)
    searched = sum(run["seconds"] for run in _searches(at))
    chosen = {"lr": rate, "steps": steps}
    return test(at, bank.skills["new"].detach(), log.cpu_seconds + searched) | {"chosen": chosen}


def single(at: Setting, tick: Tick) -> dict[str, Any]:
    """The one skill that fits the 24 invoices best before any step, trained on them."""
    losses = {name: mean_loss(SkillBank(at.base, {name: skill}), at.invoices) for name, skill in at.weights.items()}
    best = min(losses, key=losses.__getitem__)
    bank = _new(at, at.weights[best].learner())
    log = _teach(bank, at.effort.few, at.invoices, at.seed, Run(tick=tick))
    return test(at, bank.skills["new"].detach(), log.cpu_seconds) | {"chosen": {"skill": best}}


def joint(at: Setting, tick: Tick) -> dict[str, Any]:
    """One new LoRA on all the skills' training data and the invoices, for the steps of all of them together."""
    method, few = at.effort.joint, at.effort.few
    shares = [(at.pool(name), float(skill.steps * skill.batch)) for name, skill in at.effort.skills.items()]
    drawn = mixture([*shares, (at.invoices, float(few.steps * few.batch))], method.steps * method.batch, at.seed)
    course = at.run(tick, method, "joint")
    skill, log = method.fit(at.base, drawn, at.seed, course)
    tested = test(at, skill, log.cpu_seconds)
    forget(course.state)
    return tested


def prompted(at: Setting, skills: bool, tick: Tick) -> dict[str, Any]:
    """No training: the 24 invoices are shown in the prompt, to the base or to the sum of the skills."""
    parts = [(skill, dict.fromkeys(skill.factors, 1.0)) for skill in at.weights.values()] if skills else []
    return test(at, weighted_sum(parts) if parts else None, 0.0, at.invoices)


def example(at: Setting, tick: Tick) -> str:
    """What the saved skill says to one sentence."""
    return run(TARGET, [QUESTION], library=at.library).answers[0]


def test(at: Setting, skill: LowRank | None, seconds: float, shown: Sequence[Example] = ()) -> dict[str, Any]:
    """Scores of `skill` on held-out invoices and on the skills' own tasks, and how many seconds of one core it trained."""
    arm = Active(at.base, SkillBank(at.base, {"arm": skill}) if skill else None)
    invoices = at.task(TARGET).take(at.effort.test, "test")
    scores = evaluate(arm, at.task(TARGET), invoices, shots=shown, batch=32 if shown else 64)
    kept = {}
    for name in SKILLS:
        own = at.task(name)
        shots = own.take(8, "train") if shown else ()
        kept[name] = evaluate(arm, own, own.take(at.effort.kept, "test"), shots=shots).exact
    seen = [invoice.tags["phrasing"] == "seen" for invoice in invoices]
    return {"exact": scores.exact, "seen": seen, "fields": scores.fields, "kept": kept, "seconds": seconds}


def _new(at: Setting, start: LowRank | None = None) -> SkillBank:
    """A bank of one LoRA to train: fresh, or from `start`."""
    few = at.effort.few
    return SkillBank(at.base, {"new": start or LowRank.fresh(at.base, few.rank, few.scale, at.seed)})


def _teach(bank: SkillBank, method: SFT, examples: Sequence[Example], seed: int, run: Run, stop: int | None = None) -> Log:
    """Train the LoRA of `bank` for `stop` steps of the course of `method`; a state is saved at the end alone."""
    batches, group = Batches(bank.base, examples, method.batch, seed), Group(bank.skills["new"].tensors(), method.lr)
    plan = Plan(method.steps, stop=stop, save_every=math.inf)
    return train(lambda batch: bank_loss(bank, batch), [group], batches.at, plan, run)
