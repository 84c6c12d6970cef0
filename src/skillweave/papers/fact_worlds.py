"""A small world for papers on facts: invented people, bases of whole words from scratch that have read about them.

Text is that of `tasks/knowledge.py` without its fillers: `guest Kavuna Toleri .` is a fact, `job guest Kavuna ?` a question. So
what is to be looked up stands beside what it is looked up by, which a model of this size learns to use in minutes. A base reads
documents, which say what is known, and notes, which say a few drawn facts again and again: reading them is finding them again.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

from ..bank import SkillBank
from ..base import Base, TinyBase
from ..composition import Active
from ..delta import LowRank
from ..errors import SkillweaveError
from ..learn.grpo import GRPO
from ..learn.pretrain import pretrain
from ..learn.sft import SFT
from ..measure.score import evaluate
from ..task import Example
from ..tasks.facts import World
from ..tasks.knowledge import Questions

FACT = re.compile(r"the (\w+) of (\w+) is (\w+) \.|(\w+) has (\w+) as (\w+) \.|as (\w+) , (\w+) has (\w+) \.")
ORDERS = ((0, 1, 2), (5, 3, 4), (6, 7, 8))
"""Of each way to say a fact, which groups are the relation, the one and the other."""
SAID, KINDS = 12, 4
"""Facts of a note, and how many different ones."""
WINDOW = 192
SFT_RATES, RL_RATES = (1e-3, 3e-3, 1e-2), (3e-3, 1e-2)
REWARDS = 10
"""Points of a learning curve."""


def short(text: str) -> str:
    """`text` without its fillers."""

    def fact(match: re.Match) -> str:
        groups = match.groups()
        return " ".join(next([groups[i] for i in order] for order in ORDERS if groups[order[0]])) + " ."

    asked = re.sub(r"what is (.*) \?", lambda match: re.sub(r"\b(the|of) ", "", match[1]) + " ?", FACT.sub(fact, text))
    return asked


class Short(Questions):
    """Questions in few words."""

    def example(self, i: int, split: str) -> Example:
        found = super().example(i, split)
        return Example(short(found.prompt), short(found.completion), found.tags)


def documents(world: World, copies: int, seed: int) -> list[Example]:
    """What is known, `copies` times, each time in another order."""
    return [Example(one.prompt, short(one.completion)) for one in world.documents(copies, seed)]


def notes(world: World, count: int, seed: int) -> list[Example]:
    """`count` notes: a few drawn facts, said over and over."""
    random, names, found = Random(f"notes/{world.name}/{seed}"), list(world.split), []
    for _ in range(count):
        drawn = {}
        for relation in random.choices(list(world.told), k=KINDS):
            drawn[relation, random.choice(names)] = random.choice(world.told[relation] or names)
        facts = [f"{relation} {one} {other} ." for (relation, one), other in drawn.items()]
        found.append(Example("\n", " ".join(random.choices(facts, k=SAID))))
    return found


def blank(width: int, layers: int, seed: int, words: Sequence[str]) -> TinyBase:
    """A base that has read nothing. Its attention starts by looking for like and copying it, as in mimetic initialisation
    (2305.09828): keys as queries, and what is put out as what is read, transposed."""
    base = TinyBase(width, seed, words, window=WINDOW, layers=layers)
    base.table.data.mul_(5)  # larger weights than a TinyBase starts with: it then learns much sooner
    for slot, linear in base.linears.items():
        linear.matrix.data.mul_(2)
        if slot.endswith("k_proj"):
            linear.matrix.data.copy_(base.linears[slot.replace("k_proj", "q_proj")].matrix)
        if slot.endswith("o_proj"):
            linear.matrix.data.copy_(base.linears[slot.replace("o_proj", "v_proj")].matrix.t())
    return base


def mixed(parts: Sequence[tuple[Sequence[Example], float]], count: int, seed: int) -> list[Example]:
    """`count` examples out of parts with their shares, those of a part each as often as any other."""
    random, found = Random(f"mixed/{seed}"), []
    for examples, share in parts:
        wanted = round(share * count)
        passes = [list(examples) for _ in range(-(-wanted // len(examples)))]
        found += [one for each in passes for one in random.sample(each, len(each))][:wanted]
    return random.sample(found, len(found))


def taught(base: Base, parts: Sequence[tuple[Sequence[Example], float]], steps: int, lr: float, seed: int, **how) -> Base:
    """`base` after `steps` steps of 32 examples, all of its weights."""
    examples = mixed(parts, 32 * steps, seed)
    return pretrain(base, examples, steps=steps, batch=32, lr=lr, seed=seed, **how)[0]


def right(use: Active | Base, task: Questions, count: int, split: str) -> float:
    """Share of `count` questions of `task` that are answered right."""
    active = use if isinstance(use, Active) else Active(use)
    return sum(evaluate(active, task, task.take(count, split), batch=256).exact) / count


def with_skill(base: Base, skill: LowRank) -> Active:
    """`base` with `skill` on."""
    return Active(base, SkillBank(base, {"one": skill}))


Check = Callable[[Active], float]
"""How good a skill is, for the choice of its rate: never on test questions."""


def shown(base: Base, examples: Sequence[Example], steps: int, seed: int, check: Check) -> tuple[LowRank, dict]:
    """A LoRA from solutions, 64 a step, and its rate: the best of three."""
    made = {lr: SFT(steps, 64, lr).fit(base, examples, seed)[0] for lr in SFT_RATES}
    return _best(base, made, check)


def reinforced(
    base: Base, task: Questions, examples: Sequence[Example], steps: int, seed: int, check: Check
) -> tuple[LowRank, dict]:
    """A LoRA from right answers alone, eight attempts at each of eight questions a step; its rate (the better of two), and the
    share of right attempts from the first steps to the last. No change, and zeros, where no attempt is right to begin with.
    """
    made, rewards = {}, {}
    for lr in RL_RATES:
        try:
            made[lr], log = GRPO(steps, lr=lr).fit(base, examples, seed, task=task)
        except SkillweaveError:
            return LowRank({}), {"rate": 0.0, "rewards": [0.0] * REWARDS}
        rewards[lr] = curve([row["reward"] for row in log.rows if row["step"]])
    skill, chosen = _best(base, made, check)
    return skill, chosen | {"rewards": rewards[chosen["rate"]]}


def _best(base: Base, made: Mapping[float, LowRank], check: Check) -> tuple[LowRank, dict]:
    rate = max(made, key=lambda lr: check(with_skill(base, made[lr])))
    return made[rate], {"rate": rate}


def curve(values: Sequence[float]) -> list[float]:
    """`values` as REWARDS means of parts of about one length."""
    cuts = [i * len(values) // REWARDS for i in range(REWARDS + 1)]
    parts = [values[one : max(other, one + 1)] for one, other in zip(cuts, cuts[1:], strict=False)]
    return [sum(part) / len(part) for part in parts]
