"""Paper 5 (arXiv:2509.25123): does reinforcement on f(g(x)) teach nesting itself, also of functions that it never nested?

A base from scratch learns twelve functions on words as single lines, `T(abcd)=dcba`, each with a word of its own: so the value
is read off its line and not off a prompt. How a nested call is taken apart it learns from a *syntax* family of five other
functions, each under several names, one to three deep. Then half of the twelve are practised: nested two deep and one at a time
by GRPO, two deep by rejection tuning from as many samples, and two deep from right traces, as a control. The other half is
never practised; it is asked one, two and three deep.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any

from ..bank import SkillBank
from ..base import Base, TinyBase
from ..composition import Active
from ..errors import SkillweaveError
from ..learn.grpo import GRPO
from ..learn.loop import Log
from ..learn.practice import Practice
from ..learn.pretrain import pretrain
from ..learn.rejection import Rejection
from ..learn.sft import SFT
from ..measure.score import evaluate
from ..task import Example
from ..tasks.atoms import EQUAL, words
from ..tasks.functions import FunctionChain, small

CRITERION = (
    "Holds if, on held-out functions at depth 3, RL-depth-2 >= 20 %, RL-depth-1 <= 5 %, rejection tuning <= half of RL at "
    "equal samples."
)
LIMITS = (
    "Bases of 0.3 M parameters from scratch on words of 4 or 5 letters, six functions practised and six held out. Such a base "
    "has no sense of nesting of its own: the syntax family gives it one, and its dose decides how often the first attempts are "
    "right. Depths above 3 and the transfer to a second task are not tested."
)
UNEQUAL = ("control: shown depth 2",)
"""It is shown right traces and draws nothing."""
START = (0.01, 0.15)
"""Between these shares of first attempts have to be right: below, nothing can be reinforced; above, little is left to learn."""
ATOMS = 0.8
"""As many single calls have to be right at the start, in both halves."""
LETTERS = "abcdefgh"
WORDS = words(LETTERS, (4, 5))
SYNTAX = ("halves", "leap", "rest", "staircase", "sort")
"""Functions that keep the length, like the twelve, and are none of them."""
MORE = "ijklmnopqrstuvw"
"""Further names of the syntax family."""
ALPHABET = "\n ()=ABCDEFGHIJKLMNOPQRSTUVWXY" + LETTERS + MORE
LINES = 2
"""The most lines of a text."""
TOKENS = 32
"""Of an attempt; two right lines and their end have 30."""
Method = GRPO | Practice | SFT
Arms = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Effort:
    """How much of everything; rates were chosen on validation calls with another seed."""

    seeds: int
    width: int = 80
    """Of the base, in four layers."""
    pretraining: int = 2600
    """Steps of the base, 64 texts each."""
    steps: int = 150
    """Of every arm."""
    batch: int = 16
    """Calls a step."""
    group: int = 16
    """Attempts a call."""
    test: int = 200
    """Test calls of each depth and half."""
    shares: tuple[float, float, float] = (0.57, 0.05, 0.38)
    """Of lines, single calls and the syntax family among the texts."""
    ticks: int = 6

    def arms(self) -> dict[str, tuple[int | tuple[int, ...], Method]]:
        """How deep each arm nests the practised half, and how it learns; the one on both depths decides nothing."""
        rl = GRPO(self.steps, self.batch, self.group, lr=1e-3, rank=16, refills=0, probe=0, tokens=TOKENS)
        tuning = Rejection(
            steps=self.steps, batch=64, rounds=5, prompts=self.steps * self.batch // 5, samples=self.group, keep=0, lr=1e-3,
            rank=16, tokens=TOKENS,
        )  # fmt: skip
        return {
            "RL, depth 1": (1, rl),
            "RL, depth 2": (2, rl),
            "RL, depths 1 and 2": ((1, 2), rl),
            "rejection, depth 2": (2, tuning),
            "control: shown depth 2": (2, SFT(self.steps, 64, 1e-3, 16)),
        }


EFFORTS = {"quick": Effort(1, pretraining=2000, steps=15, test=60), "paper": Effort(3)}


def seed(effort: Effort, seed: int, tick) -> Arms:
    """One seed: a base, what it can do, and what every arm makes of it."""
    base = scratch(effort, seed)
    found: Arms = {"start": measured(Active(base), effort, seed)}
    tick(1, "base")
    for name, (depth, method) in effort.arms().items():
        use, log = practised(base, chain(seed, depth, "seen"), method, effort, seed)
        found[name] = measured(use, effort, seed) | {"samples": log.samples, "rewards": [row["reward"] for row in log.rows]}
        tick(1, name)
    found["start"]["first"] = (found["rejection, depth 2"]["rewards"] or [0.0])[0]  # its first round is drawn from the base
    return found


def chain(seed: int, depth: int | Sequence[int], half: str = "all", functions: Sequence[str] = EQUAL) -> FunctionChain:
    """Calls of some of the twelve functions, or of others, with a line a step."""
    return small(seed, functions, depth, family=WORDS, half=half)


def scratch(effort: Effort, seed: int) -> Base:
    """A base that knows single functions, and how calls of the syntax family are taken apart."""
    start = TinyBase(effort.width, seed, ALPHABET, window=128, layers=4)
    examples = texts(effort.pretraining * 64, effort.shares, seed)
    return pretrain(start, examples, steps=effort.pretraining, batch=64, lr=3e-3, seed=seed)[0]


def texts(count: int, shares: Sequence[float], seed: int) -> list[Example]:
    """`count` texts: lines that have nothing to do with each other; a single call and its line; a call of the syntax family."""
    twelve, other, nested = chain(seed, 1), chain(seed, 1, functions=SYNTAX), chain(seed, (1, 2, 3), functions=SYNTAX)
    names = [WORDS.names(short=True)[name] for name in SYNTAX]
    more = len(MORE) // len(names)
    found = []
    for i in range(count):
        draw = Random(f"{seed}/text/{i}")
        kind = draw.choices(("lines", "single", "syntax"), shares)[0]
        if kind == "lines":
            tasks = draw.choices((twelve, other), (0.8, 0.2), k=draw.randint(1, LINES))
            text = Example("", "\n".join(task.example(LINES * i + k, "train").completion for k, task in enumerate(tasks)))
        else:
            text = (twelve if kind == "single" else nested).example(i, "train")
        also = str.maketrans({name: draw.choice(name + MORE[k * more : (k + 1) * more]) for k, name in enumerate(names)})
        found.append(Example(text.prompt.translate(also), text.completion.translate(also)))
    return found


def practised(base: Base, task: FunctionChain, method: Method, effort: Effort, seed: int) -> tuple[Active, Log]:
    """`base` after practice, and what happened; as it was if no first attempt is right: there is nothing to learn then."""
    calls = task.take(effort.steps * effort.batch, "train")
    try:
        skill, log = method.fit(base, calls, seed) if isinstance(method, SFT) else method.fit(base, calls, seed, task=task)
    except SkillweaveError:
        return Active(base), Log()
    return Active(base, SkillBank(base, {"new": skill})), log


def measured(use: Active, effort: Effort, seed: int) -> dict[str, float]:
    """Share of test calls with the right value, by half and depth; and of three lines where held-out functions want three."""
    halves = {"practised": "seen", "held-out": "unseen"}
    tasks = {f"{name} {depth}": chain(seed, depth, half) for name, half in halves.items() for depth in (1, 2, 3)}
    calls = [call for task in tasks.values() for call in task.take(effort.test, "test")]
    said = evaluate(use, chain(seed, 1), calls, batch=256)  # every task on words scores alike
    found = {name: fmean(said.exact[k * effort.test : (k + 1) * effort.test]) for k, name in enumerate(tasks)}
    return found | {"three lines": fmean(answer.count("\n") == 2 for answer in said.answers[-effort.test :])}


def judge(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """The criterion over the means of the seeds; partly: RL on depth two gets there, and one of the two others does, too.

    Not tested: single calls are not known at the start, or the first attempts are right too seldom or too often.
    """

    def mean(arm: str, metric: str) -> float:
        return fmean(run[arm][metric] for run in runs)

    known = min(mean("start", f"{half} 1") for half in ("practised", "held-out"))
    if known < ATOMS or not START[0] <= mean("start", "first") <= START[1]:
        return "not tested"
    deep = mean("RL, depth 2", "held-out 3")
    if deep < 0.2:
        return "does not hold"
    fewer = (mean("RL, depth 1", "held-out 3") <= 0.05, mean("rejection, depth 2", "held-out 3") <= deep / 2)
    return "holds" if all(fewer) else "partly" if any(fewer) else "does not hold"
