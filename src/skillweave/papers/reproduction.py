"""One way to run a paper's claim at small scale: criterion first, several seeds, every arm's numbers with an interval.

A file `pNN_name.py` holds what is that paper's alone:

    CRITERION   what decides, written down before anything was run (from the paper's card)
    LIMITS      what this scale cannot show
    EFFORTS     {"quick": …, "paper": …}: how much of everything, each with `seeds`
    seed(effort, seed, tick)   one seed of all arms -> {arm: {metric: number}}, a pure function of its arguments
    judge(runs)                the verdict over the seeds: holds, partly, does not hold, not tested
    UNEQUAL                    arms whose budget is another one on purpose, if there are any; the page says why
"""

import importlib
import pkgutil
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__, papers
from ..errors import NotFound, SkillweaveError
from ..files import sha256_json
from ..jobs import Engine, Job, run_jobs, spent
from ..measure.stats import student
from ..record import write_result
from ..result import Estimate, Table
from .catalog import get

EFFORTS = ("quick", "paper")
BUDGETS = ("tokens", "steps", "samples", "examples")
"""What arms may say that they spent. Seconds are told and not compared: other programs on the machine decide them, too."""
APART = 0.02
"""By how much of the largest the budgets of two arms may differ."""


@dataclass(frozen=True)
class Reproduction:
    """What a paper's claim looks like here."""

    paper: int
    title: str
    effort: str
    seeds: tuple[int, ...]
    arms: Mapping[str, Mapping[str, Estimate]]
    """Every metric of every arm: mean over the seeds with a 95 % interval (Student's t; none for one seed)."""
    criterion: str
    verdict: str
    """holds, partly, does not hold, not tested."""
    limits: str
    minutes: float
    """Of this run, on the clock."""

    @property
    def exit_code(self) -> int:
        """4 when the effect was not seen."""
        return 4 if self.verdict in ("does not hold", "not tested") else 0

    def table(self) -> Table:
        metrics = list(dict.fromkeys(metric for arm in self.arms.values() for metric in arm))
        rows = tuple((name, *(arm.get(metric) for metric in metrics)) for name, arm in self.arms.items())
        note = f"verdict: {self.verdict}\ncriterion: {self.criterion}\nlimits: {self.limits}\n{self.minutes:.1f} minutes"
        return Table(("arm", *metrics), rows, title=f"{self.paper}. {self.title} ({self.effort})", note=note)


def reproduce(
    number: int,
    effort: str = "quick",
    *,
    library: Path,
    seed: int = 0,
    seeds: int | None = None,
    out: Path | None = None,
    engine: Engine = "local",
) -> Reproduction:
    """Run the reproduction of paper `number`; what is done stays done when it is interrupted. `out`: a result file to write.

    Seeds are jobs of an `engine`: two processes of this machine, or tasks of a Ray cluster (`jobs.py`).
    """
    paper, module = get(number), load(number)
    how, began = module.EFFORTS[effort], time.monotonic()
    numbers = tuple(range(seed, seed + (seeds or how.seeds)))
    folder = folder_of(library, number, effort, how)
    jobs = [Job(f"seed {n}", module.seed, {"effort": how, "seed": n}, steps=getattr(how, "ticks", 1)) for n in numbers]
    answers = run_jobs(jobs, folder, workers=2, title=f"paper {number} ({effort})", engine=engine)
    costs = spent(folder)
    runs = [answers[job.name] for job in jobs]
    check_budgets(runs, getattr(module, "UNEQUAL", ()))
    report = Reproduction(
        number, paper.title, effort, numbers, summary(runs), module.CRITERION, module.judge(runs), module.LIMITS,
        (time.monotonic() - began) / 60,
    )  # fmt: skip
    if out is not None:
        write_result(
            out,
            name=out.stem,
            kind="reproduction",
            command=f"skillweave reproduce {number} --effort {effort} --seeds {len(numbers)} --out {out}",
            seeds=numbers,
            cpu_minutes=sum(costs[job.name] for job in jobs) / 60,
            verdict=report.verdict,
            values={
                "criterion": report.criterion,
                "limits": report.limits,
                "arms": {name: {metric: shown(e) for metric, e in arm.items()} for name, arm in report.arms.items()},
                "runs": runs,
            },
        )
    return report


def folder_of(library: Path, number: int, effort: str, how: Any) -> Path:
    """Where finished seeds wait: a folder for each paper, effort (all of its numbers) and version."""
    return Path(library) / ".work" / f"reproduce-{number}-{sha256_json([__version__, effort, asdict(how)])[:12]}"


def load(number: int):
    """The module of a paper. Raises NotFound, naming those that have one."""
    names = [module.name for module in pkgutil.iter_modules(papers.__path__)]
    found = {int(name[1:3]): name for name in names if re.match(r"p\d\d_", name)}
    if number not in found:
        raise NotFound("reproduction of paper", str(number), map(str, found), hint="skillweave papers shows how far each is")
    return importlib.import_module(f"{papers.__name__}.{found[number]}")


def check_budgets(runs: Sequence[Mapping[str, Mapping[str, Any]]], unequal: Collection[str] = ()) -> None:
    """SkillweaveError if arms that say how much of something they spent differ in it, other than those that are `unequal`."""
    for metric in BUDGETS:
        spent = {arm: sum(run[arm][metric] for run in runs) for arm, found in runs[0].items() if metric in found}
        spent = {arm: total / len(runs) for arm, total in spent.items() if arm not in unequal}
        if spent and max(spent.values()) - min(spent.values()) > APART * max(spent.values()):
            most, least = max(spent, key=spent.__getitem__), min(spent, key=spent.__getitem__)
            told = f"{spent[most]:,.0f} and {spent[least]:,.0f}"
            raise SkillweaveError(
                f"the {metric} of `{most}` and `{least}` differ ({told}): nothing is judged.",
                "give all arms the same, or name those that are to differ in UNEQUAL and say why on the page",
            )


def summary(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Estimate]]:
    """Every metric of every arm over the seeds; what is not a number (a picture, say) stays in the runs alone."""
    numbers = {arm: [m for m, value in found.items() if isinstance(value, int | float)] for arm, found in runs[0].items()}
    return {arm: {m: student([run[arm][m] for run in runs]) for m in found} for arm, found in numbers.items() if found}


def shown(estimate: Estimate) -> dict[str, float]:
    """As a result file has it."""
    return {"mean": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
