"""The quickstart: three skills, a fourth task with 24 examples, and what each way of doing it gives.

Every arm sees the same 24 invoices. Arms that learn from them take the same number of steps; the fresh LoRA gets a search of
its rate and steps besides, on a third of the 24 held out for that, and the joint LoRA the steps of the skills as well. Nothing
is chosen on the test split. Jobs run in processes of one thread; what is done stays done when the run is interrupted.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from . import gemma
from .compose.scales import Scales, ScalesWithLora
from .errors import LibraryError
from .files import sha256_json
from .jobs import Job, run_jobs
from .learn.sft import SFT
from .library import Library
from .result import Estimate, Table

SKILLS = ("date", "number", "country")
TARGET = "invoice"
QUESTION = "On 3. Mai 2021 we billed a client in Ivory Coast two hundred and five euros."
WOVEN = "skills woven, new LoRA, replay"
FRESH = "fresh LoRA, tuned"
JOINT = "one LoRA on everything"
CRITERION = (
    f"'{WOVEN}' is at least 60 points above '{FRESH}', at least 90 % exact, and not below '{JOINT}' "
    "(the interval of the difference reaches zero) at a quarter of its minutes"
)


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    skills: Mapping[str, SFT]
    """How each of the three skills is learned; the joint LoRA gets all their steps."""
    steps: int
    """Steps on the 24 invoices, of every arm that learns from them."""
    batch: int
    test: int
    """Held-out invoices, half of them in phrasings never seen."""
    kept: int
    """Held-out examples of each skill's own task."""
    rates: tuple[float, ...]
    """Learning rates that the fresh LoRA may choose from."""

    @property
    def joint_steps(self) -> int:
        return sum(method.steps for method in self.skills.values()) + self.steps


def _skills(date: int, number: int, country: int) -> dict[str, SFT]:
    steps = {"date": date, "number": number, "country": country}
    return {name: SFT(steps=steps[name], batch=8, lr=1e-3, rank=8) for name in SKILLS}


EFFORTS = {
    "fair": Effort(_skills(60, 150, 150), steps=40, batch=8, test=200, kept=50, rates=(5e-4, 1e-3, 2e-3)),
    "quick": Effort(_skills(30, 70, 70), steps=20, batch=8, test=60, kept=20, rates=(1e-3, 2e-3)),
}
EVALUATION = 10
"""Ticks of the progress bar that an evaluation counts for."""


@dataclass(frozen=True)
class Quickstart:
    """What each arm reached on the invoices, and what it kept of the skills."""

    effort: str
    seed: int
    arms: Mapping[str, Mapping[str, Estimate]]
    criterion: str
    verdict: str
    minutes: float
    """Of this run, on the clock."""
    question: str
    answer: str
    library: Path

    @property
    def next(self) -> str:
        return f'skillweave run {TARGET} "{QUESTION}"'

    def table(self) -> Table:
        columns = ("arm", "exact", "seen / unseen phrasing", "country", "date", "amount", "kept of the skills", "minutes")
        rows = tuple((name, *_cells(arm)) for name, arm in self.arms.items())
        note = f"one seed, {self.minutes:.1f} minutes in all; {self.verdict}: {self.criterion}\n{self.question}\n-> {self.answer}"
        return Table(columns, rows, title=f"{TARGET}: exact match on {self.arms[WOVEN]['exact'].n} held-out invoices, in %", note=note)


def quickstart(effort: str = "fair", *, library: Path, seed: int = 0) -> Quickstart:
    """Run all jobs that are not done yet in `library`, save the composition as the skill `invoice`, and report."""
    began = time.monotonic()
    Library(library, create=True)
    from .base import set_threads
    from .progress import say

    say(f"Gemma is provided under and subject to the Gemma Terms of Use: {gemma.TERMS}")
    say("preparing the base model (the first time takes a minute)")
    gemma.folder()
    set_threads(1)
    jobs = plan(effort, library, seed)
    work = work_folder(effort, library, seed)
    answers = run_jobs(jobs, work, workers=2, title=f"quickstart ({effort})")
    arms = {name: summary([answers[name]]) for name in ARMS}
    verdict = judge([{name: answers[name] for name in ARMS}])
    minutes = (time.monotonic() - began) / 60
    return Quickstart(effort, seed, arms, CRITERION, verdict, minutes, QUESTION, answers["example"], Path(library))


def plan(effort: str, library: Path, seed: int) -> list[Job]:
    """All jobs, the longest first."""
    e = EFFORTS[effort]
    common = {"effort": effort, "library": str(library), "seed": seed}
    joint = e.joint_steps
    jobs = [Job(JOINT, joint_arm, common, (), joint + EVALUATION)]
    jobs += [Job(f"skill {name}", teach, common | {"name": name}, (), e.skills[name].steps) for name in SKILLS]
    after = tuple(f"skill {name}" for name in SKILLS)
    woven = {WOVEN: (8, 1 / 3), "skills woven, new LoRA": (8, 0.0), "skills woven": (0, 0.0)}
    for name, (rank, share) in woven.items():
        jobs.append(Job(name, woven_arm, common | {"name": name, "rank": rank, "replay": share}, after, e.steps + EVALUATION))
    jobs += [Job(f"search {rate:g}", search, common | {"rate": rate}, (), e.steps) for rate in e.rates]
    searches = tuple(f"search {rate:g}" for rate in e.rates)
    jobs.append(Job(FRESH, fresh_arm, common, searches, e.steps + EVALUATION))
    jobs.append(Job("best single skill, trained on", single_arm, common, after, e.steps + EVALUATION))
    jobs.append(Job("skills summed, 24 examples shown", prompted_arm, common | {"skills": SKILLS}, after, EVALUATION))
    jobs.append(Job("base, 24 examples shown", prompted_arm, common | {"skills": ()}, (), EVALUATION))
    jobs.append(Job("example", example, common, (WOVEN,), 1))
    return jobs


ARMS = (
    "base, 24 examples shown",
    "skills summed, 24 examples shown",
    "best single skill, trained on",
    FRESH,
    "skills woven",
    "skills woven, new LoRA",
    WOVEN,
    JOINT,
)


def work_folder(effort: str, library: Path | str, seed: int) -> Path:
    """Where the answers of finished jobs wait: a folder for each effort, seed and state of the tasks."""
    what = [effort, asdict(EFFORTS[effort]), seed, [_task(name, seed).digest() for name in (*SKILLS, TARGET)]]
    return Path(library) / ".work" / f"quickstart-{sha256_json(what)[:16]}"


@cache
def _base():
    from .base import load_base

    return load_base()


@cache
def _task(name: str, seed: int):
    from .tasks import load_task

    return load_task(name, seed)


def _invoices(seed: int):
    task = _task(TARGET, seed)
    return task.take(task.size("train"), "train")


def _weights(library: str) -> dict[str, Any]:
    from .verbs import weights_of

    shelf = Library(Path(library))
    return {name: weights_of(shelf.get(name)) for name in SKILLS}


def _state(library: str, *what: object) -> tuple[Path, str]:
    key = sha256_json([str(part) for part in what])
    return Path(library) / ".work" / f"{key[:32]}.safetensors", key


def teach(effort: str, library: str, seed: int, name: str, tick: Callable) -> dict[str, Any]:
    """Learn one of the three skills, unless the library has just this one."""
    from .verbs import check, facts_of, save_skill

    shelf, base, task, method = Library(Path(library)), _base(), _task(name, seed), EFFORTS[effort].skills[name]
    if name in shelf:
        made = shelf.get(name).provenance
        if (made.get("config"), made.get("seed"), (made.get("base") or {}).get("digest")) != (vars(method), seed, base.digest):
            raise LibraryError(f"`{name}` in {library} was learned in another way.", "run the quickstart with another --library")
        return {"seconds": made["cost"]["seconds"]}
    examples = [task.example(i, "train") for i in range(method.steps * method.batch)]
    state, key = _state(library, base.digest, method, name, seed)
    skill, log = method.fit(base, examples, seed, state, key, tick)
    facts = facts_of(base, "sft", method, task, examples, seed, log, check(base, task, {name: skill}))
    save_skill(shelf, name, skill, base, task, examples, facts, task.description)
    state.unlink(missing_ok=True)
    return {"seconds": log.seconds}


def woven_arm(effort: str, library: str, seed: int, name: str, rank: int, replay: float, tick: Callable) -> dict[str, Any]:
    """Learn a strength per skill and layer, with or without a new LoRA and replay."""
    from .verbs import facts_of, replay_of, save_skill
    from .measure.stats import wilson

    e, base, weights, shelf = EFFORTS[effort], _base(), _weights(library), Library(Path(library))
    kind = ScalesWithLora if rank else Scales
    method = replace(kind(), steps=e.steps, batch=e.batch, rank=rank, replay=replay)
    members = [shelf.get(skill) for skill in SKILLS]
    state, key = _state(library, base.digest, method, name, seed, [m.digest for m in members])
    woven, log = method.fit(base, weights, _invoices(seed), seed, replay_of(members), state, key, tick)
    merged = woven.merged(base, weights)
    if name == WOVEN and TARGET not in shelf:
        facts = facts_of(base, "scales+lora", method, _task(TARGET, seed), _invoices(seed), seed, log, wilson(0, 0))
        facts["parents"] = [{"name": m.name, "digest": m.digest} for m in members]
        table = {skill: woven.alpha[k].tolist() for k, skill in enumerate(woven.skills)}
        about = f"{_task(TARGET, seed).description} (composed of {', '.join(SKILLS)})"
        save_skill(shelf, TARGET, merged, base, _task(TARGET, seed), _invoices(seed), facts, about, alpha=table)
    state.unlink(missing_ok=True)
    return _tested(e, seed, merged, log.seconds) | {"alpha": woven.alpha.mean(1).tolist()}


def search(effort: str, library: str, seed: int, rate: float, tick: Callable) -> dict[str, Any]:
    """Loss on a third of the 24 invoices while a fresh LoRA learns the others, at four points of the way."""
    from .bank import SkillBank
    from .delta import LowRank
    from .learn.batches import Batches
    from .learn.loop import Group, Plan, train
    from .learn.sft import bank_loss, mean_loss

    e, base, invoices = EFFORTS[effort], _base(), _invoices(seed)
    held, rest = invoices[::3], [x for i, x in enumerate(invoices) if i % 3]
    skill = LowRank.fresh(base, SFT.rank, SFT.scale, seed)
    bank, losses = SkillBank(base, {"new": skill}), {}
    batches, done = Batches(base, rest, e.batch, seed), 0
    looks = {round(e.steps * share) for share in (0.25, 0.5, 0.75, 1.0)}

    def look(steps: int, note: str) -> None:
        nonlocal done
        done += steps
        if done in looks:
            losses[done] = mean_loss(bank, held)
        tick(steps, note)

    log = train(lambda b: bank_loss(bank, b), [Group(skill.tensors(), rate)], batches.at, Plan(e.steps), tick=look)
    return {"losses": losses, "seconds": log.seconds}


def fresh_arm(effort: str, library: str, seed: int, tick: Callable) -> dict[str, Any]:
    """A new LoRA on the 24 invoices, at the rate and number of steps that the search liked best."""
    e, base, work = EFFORTS[effort], _base(), work_folder(effort, library, seed)
    found = {rate: json.loads((work / f"search {rate:g}.json").read_text()) for rate in e.rates}
    rate, steps = min(
        ((rate, int(steps)) for rate, run in found.items() for steps in run["losses"]),
        key=lambda choice: found[choice[0]]["losses"][str(choice[1])],
    )
    method = SFT(steps=e.steps, batch=e.batch, lr=rate)
    skill, log = _fit_for(method, steps, base, _invoices(seed), seed, tick)
    searched = sum(run["seconds"] for run in found.values())
    return _tested(e, seed, skill, log.seconds + searched) | {"chosen": {"lr": rate, "steps": steps}}


def _fit_for(method: SFT, steps: int, base, examples, seed: int, tick: Callable, start=None):
    """The first `steps` steps of `method`, so that its rate has the course that the search saw; perhaps from a skill's weights."""
    from .bank import SkillBank
    from .delta import LowRank
    from .learn.batches import Batches
    from .learn.loop import Group, Plan, train
    from .learn.sft import bank_loss

    skill = start or LowRank.fresh(base, method.rank, method.scale, seed)
    bank, batches = SkillBank(base, {"new": skill}), Batches(base, examples, method.batch, seed)
    whole = Plan(method.steps, stop=steps)
    log = train(lambda b: bank_loss(bank, b), [Group(skill.tensors(), method.lr)], batches.at, whole, tick=tick)
    return skill.detach(), log


def single_arm(effort: str, library: str, seed: int, tick: Callable) -> dict[str, Any]:
    """The one skill that fits the 24 invoices best before any step, trained on them."""
    from .bank import SkillBank
    from .delta import Factors, LowRank
    from .learn.sft import mean_loss

    e, base, weights, invoices = EFFORTS[effort], _base(), _weights(library), _invoices(seed)
    losses = {name: mean_loss(SkillBank(base, {name: skill}), invoices) for name, skill in weights.items()}
    best = min(losses, key=losses.__getitem__)
    start = LowRank(
        {
            slot: Factors(f.a.clone().requires_grad_(), f.b.clone().requires_grad_(), f.scale)
            for slot, f in weights[best].factors.items()
        }
    )
    method = SFT(steps=e.steps, batch=e.batch)
    skill, log = _fit_for(method, e.steps, base, invoices, seed, tick, start)
    return _tested(e, seed, skill, log.seconds) | {"chosen": {"skill": best}}


def joint_arm(effort: str, library: str, seed: int, tick: Callable) -> dict[str, Any]:
    """One new LoRA on all the skills' training data and the invoices, for the steps of all of them together."""
    from .curriculum.mixing import mixture

    e, base = EFFORTS[effort], _base()
    counts = {name: method.steps * method.batch for name, method in e.skills.items()}
    shares = [([_task(name, seed).example(i, "train") for i in range(count)], count) for name, count in counts.items()]
    shares.append((_invoices(seed), e.steps * e.batch))
    method = SFT(steps=e.joint_steps, batch=e.batch)
    state, key = _state(library, base.digest, method, JOINT, seed)
    skill, log = method.fit(base, mixture(shares, method.steps * method.batch, seed), seed, state, key, tick)
    state.unlink(missing_ok=True)
    return _tested(e, seed, skill, log.seconds)


def prompted_arm(effort: str, library: str, seed: int, skills: tuple[str, ...], tick: Callable) -> dict[str, Any]:
    """No training: the 24 invoices are shown in the prompt, to the base or to the sum of the skills."""
    from .delta import weighted_sum

    weights = _weights(library) if skills else {}
    parts = [(skill, dict.fromkeys(skill.factors, 1.0)) for skill in weights.values()]
    return _tested(EFFORTS[effort], seed, weighted_sum(parts) if parts else None, 0.0, _invoices(seed))


def example(effort: str, library: str, seed: int, tick: Callable) -> str:
    """What the saved skill says to one sentence."""
    from .verbs import run

    return run(TARGET, [QUESTION], library=library).answers[0]


def _tested(e: Effort, seed: int, skill, seconds: float, shots=()) -> dict[str, Any]:
    """Scores of `skill` on held-out invoices and on the skills' own tasks, and the seconds its training took."""
    from .bank import SkillBank
    from .measure.score import evaluate

    base = _base()
    bank = SkillBank(base, {"arm": skill}) if skill else None
    task = _task(TARGET, seed)
    invoices = task.take(e.test, "test")
    scores = evaluate(base, task, invoices, bank, shots=shots, batch=32 if shots else 64)
    kept = {}
    for name in SKILLS:
        own = _task(name, seed)
        shown = own.take(8, "train") if shots else ()
        kept[name] = evaluate(base, own, own.take(e.kept, "test"), bank, shots=shown).exact
    seen = [x.tags["phrasing"] == "seen" for x in invoices]
    return {"exact": scores.exact, "seen": seen, "fields": scores.fields, "kept": kept, "seconds": seconds}


def summary(runs: list[dict[str, Any]]) -> dict[str, Estimate]:
    """One arm over its seeds: every metric with its interval."""
    from .measure.stats import over_seeds, student

    def part(pick: Callable[[dict], list[float]]) -> Estimate:
        return over_seeds([pick(run) for run in runs])

    metrics = {"exact": part(lambda r: r["exact"])}
    for side, wanted in (("seen", True), ("unseen", False)):
        metrics[side] = part(lambda r, wanted=wanted: [x for x, s in zip(r["exact"], r["seen"], strict=True) if s is wanted])
    metrics |= {name: part(lambda r, name=name: r["fields"][name]) for name in runs[0]["fields"]}
    metrics |= {f"kept {name}": part(lambda r, name=name: r["kept"][name]) for name in runs[0]["kept"]}
    metrics["minutes"] = student([run["seconds"] / 60 for run in runs], "min")
    return metrics


def judge(seeds: list[dict[str, dict[str, Any]]]) -> str:
    """`holds`, `partly` or `does not hold`, by the criterion; `seeds` are the arms' answers of each seed."""
    from .measure.stats import over_seeds, two_level

    def difference(other: str) -> Estimate:
        return two_level([[a - b for a, b in zip(s[WOVEN]["exact"], s[other]["exact"], strict=True)] for s in seeds])

    exact = over_seeds([s[WOVEN]["exact"] for s in seeds]).value
    minutes = {name: sum(s[name]["seconds"] for s in seeds) for name in (WOVEN, JOINT)}
    parts = [
        difference(FRESH).value >= 0.60,
        exact >= 0.90,
        difference(JOINT).high >= 0 and minutes[WOVEN] <= minutes[JOINT] / 4,
    ]
    return "holds" if all(parts) else "partly" if any(parts) else "does not hold"


def _cells(arm: Mapping[str, Estimate]) -> tuple[str, ...]:
    def percent(e: Estimate) -> str:
        return f"{100 * e.value:.0f} [{100 * e.low:.0f}, {100 * e.high:.0f}]"

    kept = " ".join(f"{100 * arm[f'kept {name}'].value:.0f}" for name in SKILLS)
    sides = f"{100 * arm['seen'].value:.0f} / {100 * arm['unseen'].value:.0f}"
    return (percent(arm["exact"]), sides, *(percent(arm[f]) for f in ("country", "date", "amount")), kept, f"{arm['minutes'].value:.1f}")
