"""Paper 3 (arXiv:2601.11258, PaST): does what reinforcement changed in one world help a model that has only read another?

A seed is one world of invented people in three parts that share nobody (`fact_worlds.py`). The base has read about the first
part and answers questions about it; it then reads about the second (the source) or the third (the target), by all weights. In
the source, questions of two hops are practised, which need their facts quoted one after the other: the low-rank change that
comes of it is the skill vector v, added to the model that has read the target as it is (strength one).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..base import Base
from ..composition import Active
from ..delta import LowRank
from ..learn.full import moved
from ..likeness import as_long, cosines, permuted
from ..measure.score import evaluate
from ..task import Example
from ..tasks.facts import people
from .fact_worlds import Check, Short, blank, documents, notes, reinforced, right, shown, taught, with_skill

CRITERION = "Holds if v >= +8 points over SFT and over random, and RL-vector >= SFT-vector."
LIMITS = (
    "Decoders of 0.2 M parameters from scratch, parts of one world of 300 invented people that share relations and the words "
    "for cities and pets, questions of two hops. The skill vector is a LoRA of rank 8; one round, no refinement over shards."
)
BEFORE, SOURCE, TARGET = "valid", "train", "test"
"""The parts: what the base knows, where the skill is learned, where it is to help."""
DOSE = 32
"""Solved questions of two hops that the base has read."""


@dataclass(frozen=True)
class Effort:
    """How much is trained and measured."""

    seeds: int
    width: int
    people: int
    read: int
    """Steps of 32 texts in which the base reads."""
    sft: int
    """Steps of 32 texts in which a part of the world is read."""
    practice: int
    """Steps of 64 texts: solutions, or eight attempts at each of eight questions."""
    questions: int
    """Different questions of a part that are practised."""
    test: int
    ticks: int = 4


EFFORTS = {
    "quick": Effort(1, 64, 300, 1000, 400, 30, 256, 100),
    "paper": Effort(3, 64, 300, 2000, 1400, 60, 256, 200),
}


@dataclass(frozen=True)
class Setting:
    """A world in parts, its questions, and what the base knows of their form."""

    effort: Effort
    seed: int
    one: Short
    two: Short
    """Questions of one and of two hops."""

    def about(self, part: str) -> list[Example]:
        """Documents about everybody of one part."""
        world = self.one.world
        return [d for d in documents(world, 20, self.seed) if world.split[d.prompt.split()[1]] == part]

    def form(self) -> list[tuple[Sequence[Example], float]]:
        """Questions about the first part with their shares: those of two hops are few."""
        return [(self.one.take(400, BEFORE), 0.15), (self.two.take(DOSE, BEFORE), 0.05)]

    def asked(self, part: str) -> list[Example]:
        """What is practised: other questions than those that are scored come first."""
        return self.two.take(self.effort.questions, part, start=self.effort.test)

    def check(self, part: str) -> Check:
        """Right answers to practised questions."""
        return lambda use: sum(evaluate(use, self.two, self.asked(part)[: self.effort.test // 2], batch=256).exact)


def setting(effort: Effort, seed: int) -> Setting:
    """The world of a seed."""
    world = people(seed, effort.people)
    return Setting(effort, seed, *(Short(seed, world, "known", hops, name=f"known {hops}") for hops in (1, 2)))


def reader(here: Setting) -> Base:
    """A base that has read about the first part, knows how questions look, and all names from notes."""
    effort, world = here.effort, here.one.world
    parts = [(here.about(BEFORE), 0.3), (notes(world, 16 * effort.read, here.seed), 0.5), *here.form()]
    start = blank(effort.width, 3, here.seed, world.vocabulary())
    return taught(start, parts, effort.read, 3e-3, here.seed, whole_text=True)


def informed(here: Setting, base: Base, part: str) -> Base:
    """`base` after it has read about `part`; the form of answers stays."""
    return taught(base, [(here.about(part), 0.8), *here.form()], here.effort.sft, 2e-3, here.seed)


def seed(effort: Effort, seed: int, tick) -> dict[str, dict[str, float]]:
    """All arms in one world."""
    here = setting(effort, seed)
    base = reader(here)
    tick(1, "reader")
    source, target = (informed(here, base, part) for part in (SOURCE, TARGET))
    tick(1, "SFT")
    steps, asked = effort.practice, here.asked(SOURCE)
    v, how = reinforced(source, here.two, asked, steps, seed, here.check(SOURCE))
    solutions, rate = shown(source, asked, steps, seed, here.check(SOURCE))
    best, course = reinforced(target, here.two, here.asked(TARGET), steps, seed, here.check(TARGET))
    tick(1, "practice")
    arms = {
        "SFT": LowRank({}),
        "SFT + v": v,
        "SFT + random": as_long(v, seed),
        "SFT + SFT vector": solutions,
        "target RL": best,
    }
    found = {name: measured(here, with_skill(target, skill), TARGET) for name, skill in arms.items()}
    found["SFT + v"] |= how
    found["SFT + SFT vector"] |= rate
    found["target RL"] |= course
    found["source: SFT"] = measured(here, source, SOURCE)
    found["source: RL"] = measured(here, with_skill(source, v), SOURCE)
    one, other = moved(base, source), moved(base, target)
    table = cosines([one, other, v, best, permuted(other, seed), permuted(v, seed)]).tolist()
    found["cosine"] = {"SFT and RL": table[0][2], "SFT and SFT": table[0][1], "RL and RL": table[2][3]}
    found["cosine, one permuted"] = {"SFT and RL": table[0][5], "SFT and SFT": table[0][4], "RL and RL": table[3][5]}
    tick(1, "measured")
    return found


def measured(here: Setting, use: Active | Base, part: str) -> dict[str, float]:
    """Right answers about `part`: of two hops, and single facts."""
    return {"two hops": right(use, here.two, here.effort.test, part), "known": right(use, here.one, here.effort.test, part)}


def judge(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """The criterion over the means of the seeds. Not tested: practice taught the source nothing, or the target was not read."""
    arms = [arm for arm in runs[0] if not arm.startswith("cosine")]
    mean = {arm: {m: sum(run[arm][m] for run in runs) / len(runs) for m in ("two hops", "known")} for arm in arms}
    gain = mean["source: RL"]["two hops"] - mean["source: SFT"]["two hops"]
    if mean["SFT"]["known"] < 0.9 or gain < 0.08:
        return "not tested"
    v, sft, chance, shown = (mean[arm]["two hops"] for arm in ("SFT + v", "SFT", "SFT + random", "SFT + SFT vector"))
    helps, better = v - max(sft, chance) >= 0.08, v >= shown
    return "holds" if helps and better else "partly" if helps or better else "does not hold"
