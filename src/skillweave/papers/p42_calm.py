"""Paper 42 (arXiv:2401.02412): does cross-attention give an adding model the numbers of keys that only another model knows?

A seed draws 500 keys with their numbers and trains two small bases from scratch: the anchor adds two or three numbers and has
never met a key, the augmenting model recalls the numbers of keys and cannot add. Bridges between the two, and a LoRA on the
anchor, then learn from the same examples with a fifth of the keys, whose answers are (a) the numbers written out or (b) their
sum, and are asked for sums of keys that were in none of these. Positive control of failure: a bridge to the same augmenting
model, in a world whose keys have the numbers of others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from ..bank import SkillBank
from ..base import Base, TinyBase
from ..compose.bridge import Bridge
from ..composition import Active
from ..learn.pretrain import pretrain
from ..learn.sft import SFT
from ..measure.score import evaluate
from ..task import Task
from ..tasks.keyed import Numbers, Recall, Sums, Terms
from ..tasks.primitives import Mixture

CRITERION = "Holds if CALM >= 50 % on unseen keys, LoRA and shuffled <= 5 %, numeric accuracy drops <= 2 points."
LIMITS = (
    "Two bases of some ten thousand to a hundred thousand weights, much less than the card's 1 M and 3 M, from scratch and for "
    "one task each; 100 keys to learn a bridge from, where the paper has 5,000. The augmenting model is trained to recall each "
    "key as it reads it, not to rewrite expressions. Nothing here is about languages or code."
)
ALPHABET = "0123456789+=:abcdefghijklmnopqrstuvwxyz"
WORKS, FAILS, DROP, KNOWN = 0.5, 0.05, 0.02, 0.9
"""Shares of right answers: what the bridge has to reach, what its rivals may, what numbers may lose, and what each model must
know for the experiment to say anything."""
ENOUGH, ASKED = 0.95, 200
"""The training of a base ends with the round after which it is right on this share of so many validation questions."""
EXACT = 1e-9
"""Shares are whole answers; their means are not exact in floating point."""
BRIDGES = {"bridge (a)": (False, False), "bridge (b)": (True, False), "shuffled (b)": (True, True)}
"""Whether what is learned from is the sum ((a) is section 4.1 of the paper, (b) its section 3.2), and the numbers of others."""
Arms = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    seeds: int
    anchor: int = 2400
    """Steps of each round of the anchor's own training; an exploratory anchor knew all after 2,200."""
    augment: int = 3000
    """Steps of each round of the augmenting model's own training."""
    rounds: int = 4
    """Rounds of each base at most."""
    steps: int = 1200
    """Steps of every bridge and LoRA; 3,000 of a bridge did no better than 1,000 on an exploratory seed."""
    batch: int = 48
    """Examples a step, everywhere."""
    test: int = 300
    """Test examples of each measure."""
    bridge_lr: float = 3e-3
    """Beside 1e-3 and 1e-2, which ran shorter, on validation keys of a seed that is not among these; sums failed at each."""
    lora_lr: float = 3e-3
    """The lowest training loss of 1e-3, 3e-3 and 1e-2 on that seed; sums of its validation keys failed at each."""
    rank: int = 16
    """Of the LoRA: about as many weights as the bridges have."""

    @property
    def ticks(self) -> int:
        return 7


EFFORTS = {"quick": Effort(1, rounds=2, steps=400, test=100), "paper": Effort(3)}


def seed(effort: Effort, seed: int, tick) -> Arms:
    """One seed of all arms, in shares of right answers."""
    adding = Mixture([Sums(seed), Numbers(seed)], [0.75, 0.25], seed)
    anchor, rounds = taught(adding, Sums(seed), effort.anchor, effort, seed, width=64, layers=3)
    augment, more = taught(Recall(seed), Recall(seed), effort.augment, effort, seed, width=48, layers=1)
    tick(2, "both models")
    known = partial(scores, effort=effort, seed=seed)
    found = {}
    for arm, use, took in (("anchor alone", Active(anchor), rounds), ("augmenting alone", Active(augment), more)):
        found[arm] = known(use) | {"recall": right(use, Recall(seed), effort.test), "rounds": float(took)}
    for arm, (add, shuffled) in BRIDGES.items():
        examples = keyed(seed, add, terms=(1, 2, 3), shuffled=shuffled).take(effort.steps * effort.batch, "train")
        bridge = Bridge(effort.steps, effort.batch, effort.bridge_lr, every=1, anchor="anchor")
        made, _ = bridge.fit(anchor, {}, examples, seed, augment=augment)
        weights = float(sum(tensor.numel() for tensor in made.tensors().values()))
        found[arm] = known(made.use(anchor, {}), shuffled=shuffled) | {"weights": weights}
        tick(1, arm)
        if not shuffled:
            lora, _ = SFT(effort.steps, effort.batch, effort.lora_lr, effort.rank).fit(anchor, examples, seed)
            rival, bank = arm.replace("bridge", "LoRA"), SkillBank(anchor, {"lora": lora})
            found[rival] = known(Active(anchor, bank)) | {"weights": float(lora.parameters)}
            tick(1, rival)
    return found


def taught(task: Task, until: Task, steps: int, effort: Effort, seed: int, **shape: int) -> tuple[Base, int]:
    """A base from scratch that learned `task` in rounds until it knew `until`, and how many; each round has new examples."""
    base: Base = TinyBase(seed=seed, alphabet=ALPHABET, window=32, **shape)
    base.table.data.mul_(10)  # drawn that small, tokens take the first hundreds of steps to be told apart
    count = steps * effort.batch
    for done in range(effort.rounds):
        examples = task.take(count, "train", start=done * count)
        base, _ = pretrain(base, examples, steps=steps, batch=effort.batch, lr=3e-3, seed=seed)
        if right(Active(base), until, ASKED, "valid") >= ENOUGH:
            break
    return base, done + 1


def keyed(seed: int, add: bool = True, **options) -> Terms:
    """Sums of keys, or their numbers written out; each split has its own keys."""
    return Terms(seed, "key-sums" if add else "keys", keys=True, add=add, apart=True, **options)


def scores(use: Active, effort: Effort, seed: int, shuffled: bool = False) -> dict[str, float]:
    """Right answers: two or three unseen keys added, or written out, one of them, learned keys added, numbers added."""
    sums, n = keyed(seed, shuffled=shuffled), effort.test
    return {
        "key sums": right(use, sums, n),
        "keys written out": right(use, keyed(seed, False, shuffled=shuffled), n),
        "one key": right(use, keyed(seed, terms=(1,), shuffled=shuffled), n),
        "learned keys": right(use, sums, n, "train", effort.steps * effort.batch),  # drawn after those learned from
        "numeric": right(use, Sums(seed), n),
    }


def right(use: Active, task: Task, n: int, split: str = "test", start: int = 0) -> float:
    """The share of right answers."""
    return fmean(evaluate(use, task, task.take(n, split, start)).exact)


def judge(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """The criterion over the means of the seeds, for variant (b), since (a) may fail at this size; partly: the bridge works,
    but a rival does, too, or numbers are lost. Not tested: one of the two models does not know its own part."""

    def mean(arm: str, metric: str) -> float:
        return fmean(run[arm][metric] for run in runs)

    if min(mean("anchor alone", "numeric"), mean("augmenting alone", "recall")) < KNOWN:
        return "not tested"
    if mean("bridge (b)", "key sums") < WORKS:
        return "does not hold"
    rivals = max(mean(arm, "key sums") for arm in ("LoRA (a)", "LoRA (b)", "shuffled (b)"))
    drop = mean("anchor alone", "numeric") - mean("bridge (b)", "numeric")
    return "holds" if rivals <= FAILS + EXACT and drop <= DROP + EXACT else "partly"
