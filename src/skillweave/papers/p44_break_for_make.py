"""Paper 44 (arXiv:2403.19456): do a new shape and a new texture meet better when each is learned in a factor of its own?

A small base from scratch draws pictures of 16 x 16 pixels (tasks/sprites.py), every shape in every texture but a new one of
each. Four pictures of the new shape, in four known textures, and four of the new texture, on four known shapes, teach a skill
each, beside as many pictures that the base knows; asked for is the new shape in the new texture, before skies and on grounds of
the test split. A seed is a base, what is new to it, and all that is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..bank import SkillBank
from ..base import Base, TinyBase
from ..compose.factors import JoinFactors
from ..composition import Active, Composition
from ..curriculum.mixing import mixture
from ..delta import LowRank
from ..learn.batches import Batches
from ..learn.loop import Group, Plan, train
from ..learn.loss import bank_loss, mean_loss
from ..learn.plp import PLP
from ..learn.precondition import whole
from ..learn.pretrain import pretrain
from ..learn.sft import SFT
from ..measure.score import evaluate
from ..measure.stats import student
from ..task import Example
from ..tasks.sprites import Sprites, Withheld, all_of

CRITERION = (
    "Holds if PLP joint accuracy is >= 10 points above the sum and above plain + stage 2. If summed LoRAs already reach 95 %, "
    "there is no headroom: entangle the exemplars (texture always on one shape) or say so."
)
LIMITS = (
    "A base of 0.1 M parameters that writes pictures of 64 patches stands in for a diffusion model of photographs; ten shapes "
    "and ten textures, one new pair a seed; half of what teaches a skill are pictures that the base knows; exact programs "
    "stand in for people and CLIP."
)
GAP, CEILING, SOUND, TAUGHT = 0.10, 0.95, 0.90, 0.50
"""How far ahead PLP must be; where the sum leaves no headroom; what the base must reach on what it knows, and a skill on what
it was taught, or nothing is tested."""
RANK, BATCH, SHOTS = 8, 8, 4
SIDE = {"shape": "down", "texture": "up"}


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    seeds: int
    width: int
    """Of the base, which has two layers."""
    pretrain: int
    """Steps of 32 pictures."""
    steps: int
    """Steps for each skill; the joint LoRA has as many as both and the second stage together."""
    tune: int
    """Steps of the second stage."""
    asked: int
    """Pictures asked for."""
    rates: tuple[float, ...]
    """Largest learning rates that each arm tries; the validation split decides."""

    @property
    def ticks(self) -> int:
        return 2 + 2 * len(self.rates)


EFFORTS = {"quick": Effort(1, 32, 60, 10, 4, 8, (5e-3,)), "paper": Effort(3, 64, 1200, 80, 24, 41, (2e-3, 6e-3, 2e-2))}


def learned_base(effort: Effort, world: Withheld, seed: int) -> Base:
    """A base from scratch that has seen everything but what is new: of the two new names, only where in a prompt they stand."""
    start = TinyBase(effort.width, seed, layers=2)
    seen = all_of(world.known, "train") + world.vague()
    return pretrain(start, seen, steps=effort.pretrain, batch=32, lr=4e-3, seed=seed)[0]


Skills = dict[str, LowRank]


def first(base: Base, shown: Mapping[str, Sequence[Example]], effort: Effort, seed: int, lr: float) -> dict[str, Skills]:
    """The first stage at one rate, by arm: a skill of the shape and one of the texture, or one of both."""
    skill = SFT(effort.steps, BATCH, lr, RANK)
    long = SFT(2 * effort.steps + effort.tune, BATCH, lr, RANK)
    return {
        "plain": {name: skill.fit(base, own, seed + k)[0] for k, (name, own) in enumerate(shown.items())},
        "PLP": {
            name: PLP(SIDE[name], effort.steps, BATCH, lr, rank=RANK).fit(base, own, seed)[0] for name, own in shown.items()
        },
        "joint": {"both": long.fit(base, [e for own in shown.values() for e in own], seed)[0]},
    }


def second(base: Base, made: dict[str, Skills], shown: dict[str, list[Example]], effort: Effort, seed: int, lr: float):
    """The second stage at one rate, of the plain pair and of the joined one, by arm."""
    both = mixture([([e for own in shown.values() for e in own], 1.0)], effort.tune * BATCH, seed)
    plain = {name: skill.learner() for name, skill in made["plain"].items()}
    bank, batches = SkillBank(base, plain), Batches(base, both, BATCH, seed)
    group = Group({f"{name}.{key}": t for name, skill in plain.items() for key, t in skill.tensors().items()}, lr)
    train(lambda b: bank_loss(bank, b), [group], batches.at, Plan(effort.tune), precondition=whole(*plain.values()))
    joined = JoinFactors(effort.tune, BATCH, lr, replay=1.0).fit(base, made["PLP"], [], seed, shown)[0]
    return {"sum + stage 2": {name: skill.detach() for name, skill in plain.items()}, "PLP + stage 2": own(joined)}


def own(joined: Composition) -> Skills:
    """The one change of weights that a join is."""
    assert joined.new is not None
    return {"both": joined.new}


def best(base: Base, task: Sprites, tried: Sequence[Skills]) -> int:
    """Which of `tried` gives the asked pictures of the validation split the least loss."""
    examples = all_of(task, "valid")
    losses = [mean_loss(SkillBank(base, skills), examples) for skills in tried]
    return losses.index(min(losses))


def seed(effort: Effort, seed: int, tick) -> dict[str, dict]:
    """One seed of all arms, and the first pictures of each."""
    world = Withheld.of(seed)
    base, shown = learned_base(effort, world, seed), world.shown(effort.steps * BATCH)
    tick(1, "base")
    tried, later = [], []
    for lr in effort.rates:
        tried.append(first(base, shown, effort, seed, lr))
        tick(1, f"skills at {lr:g}")
    joined = [own(JoinFactors().fit(base, one["PLP"], [], seed)[0]) for one in tried]
    at = best(base, world.asked, joined)
    made = {"plain": chosen(base, world.asked, tried, "plain"), "PLP": tried[at]["PLP"]}
    for lr in effort.rates:
        later.append(second(base, made, shown, effort, seed, lr))
        tick(1, f"second stage at {lr:g}")
    middle = SFT(effort.steps, BATCH, effort.rates[len(effort.rates) // 2], RANK)
    found: dict[str, Skills] = {
        "base": {},
        **{f"{kind} {name} alone": {name: skill} for kind, skills in made.items() for name, skill in skills.items()},
        "sum": made["plain"],
        "sum + stage 2": chosen(base, world.asked, later, "sum + stage 2"),
        "joint": chosen(base, world.asked, tried, "joint"),
        "PLP": joined[at],
        "PLP + stage 2": chosen(base, world.asked, later, "PLP + stage 2"),
        "control: shown the pair": {"both": middle.fit(base, world.pair(effort.steps * BATCH), seed)[0]},
    }
    answered = {name: answers(base, skills, world, effort.asked) for name, skills in found.items()}
    tick(1, "pictures")
    pictures = {name: seen for name, (_, seen) in answered.items()}
    return {name: got for name, (got, _) in answered.items()} | {"pictures": pictures}


def chosen(base: Base, task: Sprites, tried: Sequence[Mapping[str, Skills]], arm: str) -> Skills:
    """The skills of `arm` at its best rate."""
    return tried[best(base, task, [one[arm] for one in tried])][arm]


def answers(base: Base, skills: Skills, world: Withheld, count: int) -> tuple[dict[str, float], list[str]]:
    """How often shape, texture and both are right: of what was asked, taught, known; and the first pictures."""
    use = Active(base, SkillBank(base, skills) if skills else None)
    tasks = {"asked": world.asked, "shape taught": world.shape, "texture taught": world.texture, "known": world.known}
    scores = {name: evaluate(use, task, task.take(count, "test")) for name, task in tasks.items()}
    share = {name: {part: sum(got) / len(got) for part, got in one.fields.items()} for name, one in scores.items()}
    loss = mean_loss(SkillBank(base, skills), world.asked.take(count, "test"))
    others = {name: part["both"] for name, part in share.items() if name != "asked"}
    return share["asked"] | others | {"loss": loss}, list(scores["asked"].answers[:4])


def judge(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """The criterion over the means of the seeds.

    Not tested: the base does not draw what it knows, no skill draws what it was taught, or the sum leaves no headroom.
    """

    def mean(arm: str, metric: str = "both") -> float:
        return round(student([run[arm][metric] for run in runs]).value, 9)  # so that 0.95 three times is 0.95

    taught = [max(mean(f"{kind} {name} alone", f"{name} taught") for kind in ("plain", "PLP")) for name in SIDE]
    if mean("base", "known") < SOUND or min(taught) < TAUGHT or mean("sum") >= CEILING:
        return "not tested"
    ahead = [mean("PLP + stage 2") - mean(rival) >= GAP - 1e-8 for rival in ("sum", "sum + stage 2")]
    return "holds" if all(ahead) else "partly" if any(ahead) else "does not hold"
