"""Paper 39 (arXiv:2602.03190): does GRPO last longer when every group is asked in a way that is drawn for it?

A base from scratch writes small sums in four ways, told by a mark before the problem (`written_sums.py`), and practises 256 of
them for many passes: in one way, in one way with a divergence that holds it to its start, or in a way drawn for each group.
Every model is asked the same held-out problems in the plain way, greedily.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..base import Base
from ..composition import Active
from ..learn.collapse import fallen
from ..learn.grpo import GRPO
from ..learn.journal import Row
from ..learn.templates import PLAIN, Template, inside, tags
from ..task import Example
from .word_skills import share
from .written_sums import TOKENS, Sums, right, taught

CRITERION = (
    "Holds if the mixture's peak beats the best single template by >= 2 points or its collapse (5 points below the peak) comes "
    ">= 1.5x later. If no single run collapses: not tested."
)
DROP = 0.05
"""How far below its peak the accuracy of a run that has collapsed is."""
HIGHER, LATER = 0.02, 1.5
"""By how much a peak has to be higher, and how many times as long a run has to last."""
HOT = 3
"""By what the rate is multiplied in two arms beside the criterion, so that a collapse is seen in any case."""
WINDOW = 2
"""Evaluations in a row whose mean is taken: one alone is noise."""
SINGLES = {
    "plain": PLAIN,
    "reversed": Template("reversed", "R{prompt}", answer=lambda text: text.rpartition("=")[2].strip()[::-1]),
    "scratchpad": Template("scratchpad", "S{prompt}"),
    "tagged": Template("tagged", "T{prompt}", format=tags(["s", "a"]), answer=inside("a")),
}
"""The ways of asking; three are free in form, one has tags that earn."""
LIMITS = (
    "A base of 0.1 M parameters from scratch, sums of two steps, LoRA of rank 8 at a steady rate: a run lasts minutes, not "
    "days. Four templates that differ in how steps are written, not thirteen prompts to a pretrained model. The baseline "
    "with an entropy bonus is left out: the method here has none. Three seeds."
)
Arms = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    seeds: int
    enough: float = 0.35
    """Share of right answers at which the base stops learning from examples."""
    problems: int = 256
    """What is practised."""
    steps: int = 200
    """Of GRPO."""
    batch: int = 4
    """Problems a step."""
    group: int = 16
    """Completions a problem."""
    lr: float = 1e-3
    """The same through all steps."""
    kl: float = 0.05
    """Weight of the divergence from the start in the arm that has one."""
    every: int = 20
    """Steps between two evaluations."""
    test: int = 400
    """Held-out problems."""

    @property
    def ticks(self) -> int:
        return 5 + len(SINGLES)


EFFORTS = {"quick": Effort(1, steps=60), "paper": Effort(3)}


def seed(effort: Effort, seed: int, tick, split: str = "test") -> Arms:
    """One seed: every arm from the same base, on the same problems, with as many completions."""
    tasks = [Sums(seed, 2, name, template.text.removesuffix("{prompt}")) for name, template in SINGLES.items()]
    base, taken = taught(tasks, seed, effort.enough)
    held = tasks[0].take(effort.test, split)
    starts = {task.name: right(Active(base), task, task.take(effort.test, split)) for task in tasks}
    found: Arms = {"start": starts | {"steps": taken}}
    tick(1, "base")
    every = list(SINGLES.values())
    arms = {name: ([template], 0.0, effort.lr) for name, template in SINGLES.items()}
    arms |= {"plain + KL": ([PLAIN], effort.kl, effort.lr), "mixture": (every, 0.0, effort.lr)}
    arms |= {"plain, hot": ([PLAIN], 0.0, HOT * effort.lr), "mixture, hot": (every, 0.0, HOT * effort.lr)}
    for name, (templates, kl, lr) in arms.items():
        method = GRPO(effort.steps, effort.batch, effort.group, lr=lr, steady=True, kl=kl, tokens=TOKENS, probe=0, refills=0)
        found[name] = practised(effort, base, tasks[0], method, templates, held, seed)
        tick(1, name)
    return found


def practised(
    effort: Effort, base: Base, task: Sums, method: GRPO, templates: Sequence[Template], held: Sequence[Example], seed: int
) -> dict[str, Any]:
    """One run: its curve of held-out accuracy, its peak, how long it lasted, and its entropy."""

    def watch(step: int, use: Active) -> Row:
        return {} if step % effort.every else {"held": right(use, task, held)}

    pool = task.take(effort.problems, "train")
    _, log = method.fit(base, pool, seed, task=task, templates=templates, watch=watch)
    curve = [right(Active(base), task, held), *(row["held"] for row in log.rows if "held" in row)]
    fell = fallen(curve, WINDOW, DROP)
    nats = [row["entropy"] for row in log.rows]
    return {
        "peak": max(means(curve)),
        "last": means(curve)[-1],
        "lasted": float(effort.steps if fell is None else (fell - 1) * effort.every),
        "collapsed": float(fell is not None),
        "entropy first": share(nats[:10]),
        "entropy last": share(nats[-10:]),
        "score last": share([row["rewards/score/mean"] for row in log.rows[-10:]]),
        "samples": log.samples,
        "idle": log.idle,
        "every": effort.every,
        "curve": curve,
        "nats": [share(nats[at : at + effort.every]) for at in range(0, len(nats), effort.every)],
    }


def means(curve: Sequence[float]) -> list[float]:
    """The mean of every `WINDOW` evaluations in a row."""
    return [share(curve[at : at + WINDOW]) for at in range(len(curve) - WINDOW + 1)]


def judge(runs: Sequence[Arms]) -> str:
    """The criterion over the means of the seeds; a run that does not collapse lasts as long as it is."""
    if not any(run[name]["collapsed"] for run in runs for name in SINGLES):
        return "not tested"
    mean = {arm: {m: share([run[arm][m] for run in runs]) for m in ("peak", "lasted")} for arm in (*SINGLES, "mixture")}
    higher = mean["mixture"]["peak"] - max(mean[name]["peak"] for name in SINGLES) >= HIGHER
    later = mean["mixture"]["lasted"] >= LATER * max(mean[name]["lasted"] for name in SINGLES)
    return "holds" if higher or later else "does not hold"
