"""The quickstart: three skills, a fourth task with 24 examples, and what each way of doing it gives.

Every arm sees the same 24 invoices. Arms that learn from them take the same number of steps; the fresh LoRA gets a search of
its rate and steps besides, on a third of the 24 held out for that (the worse rate stops half-way), and the joint LoRA the steps
of the skills as well. Nothing is chosen on the test split. Jobs run in processes of one thread; what is done stays done when a
run is interrupted.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import gemma
from . import quickstart_arms as arms
from .compose.scales import Scales, ScalesWithLora
from .jobs import Job, run_jobs
from .learn.sft import SFT
from .library import Library
from .measure.stats import over_seeds, student, two_level
from .progress import say
from .quickstart_arms import QUESTION, SKILLS, TARGET, Effort, Setting
from .result import Estimate, Table

BASE = "base, 24 examples shown"
SUMMED = "skills summed, 24 examples shown"
SINGLE = "best single skill, trained on"
FRESH = "fresh LoRA, tuned"
FRESH_MADE = "fresh LoRA, recombined examples"
ALPHA = "skills woven: strengths only"
NEW = "skills woven, new LoRA"
REPLAY = "skills woven, new LoRA, replay"
WOVEN = "skills woven, new LoRA, replay, recombined examples"
JOINT = "one LoRA on everything"
ARMS = (BASE, SUMMED, SINGLE, FRESH, FRESH_MADE, ALPHA, NEW, REPLAY, WOVEN, JOINT)
CRITERION = (
    f"'{WOVEN}' is at least 60 points above '{FRESH}', at least 90 % exact, and not below '{JOINT}' "
    "(the interval of the difference reaches zero) at a quarter of its minutes"
)
METHOD = ScalesWithLora()
"""The composition that ships as `scales+lora`; the other weaving arms are this one with parts switched off."""


def _skills(date: int, number: int, country: int) -> dict[str, SFT]:
    return {"date": SFT(steps=date), "number": SFT(steps=number), "country": SFT(steps=country, lr=1.5e-3)}


FEWEST = (BASE, FRESH, WOVEN, JOINT)
"""The arms that the criterion compares, and the base alone."""
USUAL = tuple(arm for arm in ARMS if arm not in (FRESH_MADE, REPLAY))
"""All but the control and the composition that replays without recombining."""
_FAIR = Effort(_skills(60, 100, 90), few=SFT(steps=40), test=60, kept=16, rates=(1e-3, 2e-3), arms=USUAL)
EFFORTS = {
    "quick": Effort(_skills(25, 50, 50), few=SFT(steps=20), test=40, kept=8, rates=(1e-3, 2e-3), arms=FEWEST),
    "fair": _FAIR,
    "paper": replace(_FAIR, skills=_skills(60, 150, 150), test=200, kept=30, arms=ARMS),
}
"""quick and fair are to fit into 5 and 12 minutes, with fewer arms; paper learns the skills longer and measures more."""
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
        count = self.arms[WOVEN]["exact"].n
        note = (
            f"kept: exact match on {', '.join(SKILLS)} of their own; minutes: of one core, to train beyond the skills\n"
            f"one seed, {self.minutes:.1f} minutes in all; by one seed the criterion {self.verdict}: {self.criterion}\n\n"
            f"{self.question}\n-> {self.answer}"
        )
        return Table(
            columns, rows, title=f"{TARGET}: exact match on {count} held-out invoices, in % [95 % interval]", note=note
        )


def quickstart(effort: str = "fair", *, library: Path, seed: int = 0) -> Quickstart:
    """Run all jobs that are not done yet in `library`, save the composition as the skill `invoice`, and report."""
    began = time.monotonic()
    Library(library, create=True)
    say(f"Gemma is provided under and subject to the Gemma Terms of Use: {gemma.TERMS}")
    say("preparing the base model (the first time takes a minute)")
    gemma.folder()
    at = Setting(EFFORTS[effort], library, seed)
    _forget_what_is_gone(at)
    answers = run_jobs(plan(at), at.work, workers=2, title=f"quickstart ({effort})")
    shown = {name: summary([answers[name]]) for name in ARMS if name in answers}
    verdict = judge([answers])
    minutes = (time.monotonic() - began) / 60
    return Quickstart(effort, seed, shown, CRITERION, verdict, minutes, QUESTION, answers["example"], library)


def _forget_what_is_gone(at: Setting) -> None:
    """A job that leaves a skill is not done when the skill has been taken out of the library."""
    for name, jobs in {**{name: [f"skill {name}"] for name in SKILLS}, TARGET: [WOVEN, "example"]}.items():
        if name not in at.shelf:
            for job in jobs:
                (at.work / f"{job}.json").unlink(missing_ok=True)


def plan(at: Setting) -> list[Job]:
    """All jobs, the longest and those that others wait for first."""
    e = at.effort
    few = e.few.steps + EVALUATION
    skills = tuple(f"skill {name}" for name in SKILLS)
    halves = tuple(f"search {rate:g}" for rate in e.rates)

    def job(title: str, run: Callable[..., Any], steps: int, after: tuple[str, ...] = (), **more: Any) -> Job:
        return Job(title, run, {"at": at} | more, after, steps)

    woven = {
        WOVEN: METHOD,
        REPLAY: ScalesWithLora(replay=1 / 3, recombined=0.0),
        NEW: ScalesWithLora(replay=0.0, recombined=0.0),
        ALPHA: Scales(),
    }
    jobs = [
        job(JOINT, arms.joint, e.joint.steps + EVALUATION),
        *(job(f"skill {name}", arms.teach, e.skills[name].steps, name=name) for name in SKILLS),
        *(job(f"search {rate:g}", arms.search, e.few.steps // 2, rate=rate) for rate in e.rates),
        *(job(name, arms.weave, few, skills, method=method, save=name == WOVEN) for name, method in woven.items()),
        job(SINGLE, arms.single, few, skills),
        job("search on", arms.search, e.few.steps, halves, rate=None),
        job(FRESH_MADE, arms.fresh, few, ("search on", *skills), more=METHOD.recombined),
        job(FRESH, arms.fresh, few, ("search on",), more=0.0),
        job(SUMMED, arms.prompted, EVALUATION, skills, skills=True),
        job(BASE, arms.prompted, EVALUATION, skills=False),
        job("example", arms.example, 1, (WOVEN,)),
    ]
    return [j for j in jobs if j.name not in ARMS or j.name in e.arms]


def summary(runs: list[dict[str, Any]]) -> dict[str, Estimate]:
    """One arm over its seeds: every metric with its interval."""

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
    return (
        percent(arm["exact"]),
        sides,
        *(percent(arm[f]) for f in ("country", "date", "amount")),
        kept,
        f"{arm['minutes'].value:.1f}",
    )
