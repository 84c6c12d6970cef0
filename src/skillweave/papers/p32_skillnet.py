"""Paper 32 (arXiv:2205.06126): is one model whose tasks declare their experts as good as one model for each kind of input?

Five kinds of generated input, all sequences of 16 symbols, the class answered through the one head. Every arm is a small
decoder from scratch and reads the same labelled examples, equally many of each kind. In the declared arm a kind has a general
expert and its own; experts are full-rank changes of the feed-forward layers, and active ones are averaged layer by layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..measure.stats import wilson
from ..task import Example
from ..tasks.modalities import ALPHABET, KINDS, Modality
from . import experts
from .experts import Model

CRITERION = (
    "Holds if mean accuracy within 2 points of separate models and >= 2 above dense-equal-active; a new task reusing two "
    "skills needs <= 1/2 the examples; masked pre-training adds >= 3 points with 5 % labels."
)
LIMITS = (
    "Five toy kinds of input and decoders of 0.1 to 0.5 M parameters from scratch. Active experts are averaged as the weights "
    "of each linear layer, not as the outputs of whole feed-forward parts, as the paper has it. Pre-training is causal, not "
    "masked: the base is a decoder. Rates were chosen on one exploratory seed; the gate and the dense model of equal total "
    "size took over those of their kind. Seeds draw weights, items and their order."
)
SETS = {kind: ("general", kind) for kind in KINDS}
NEW, OTHER = ("image", "sound"), ("text", "code")
"""The two skills that the new task needs, and two that it does not: the control."""
FEW = 0.05
"""Share of the labels that are left."""
RATE = {"declared": 1.5e-3, "separate": 1.5e-3, "dense active": 3e-3, "dense total": 3e-3, "gate": 1.5e-3, "new": 1.5e-3}
"""Largest learning rates, from the exploratory seed."""


@dataclass(frozen=True)
class Effort:
    """How much is learned and measured."""

    seeds: int
    width: int
    labelled: int
    """Labelled examples of each kind."""
    steps: int
    """Of five examples of each kind."""
    unlabelled: int
    """Steps of pre-training."""
    few: int
    """Steps on the few labels."""
    shots: tuple[int, ...]
    """Examples of the new task for who begins anew; who reuses skills gets half as many."""
    tune: int
    """Steps on the new task, of 16 examples."""
    test: int
    """Test examples of each task."""
    ticks: int = 10


EFFORTS = {
    "quick": Effort(1, 48, 600, 150, 60, 60, (64,), 20, 100),
    "paper": Effort(3, 48, 1500, 900, 300, 250, (128, 512), 100, 300),
}
PER_KIND = 5
"""Examples of each kind a step."""


def seed(effort: Effort, seed: int, tick) -> dict[str, dict[str, float]]:
    """One draw of weights and items: every arm on the same examples."""
    mlp = effort.width * 8 // 3 // 16 * 16
    shape = (ALPHABET, effort.width, seed)
    train = {kind: Modality(seed, kind).take(effort.labelled, "train") for kind in KINDS}
    test = {kind: Modality(seed, kind).take(effort.test, "test") for kind in KINDS}
    everything = [example for some in train.values() for example in some]
    found: dict[str, dict[str, float]] = {}

    def note(arm: str, scores: Mapping[str, float], model: Model, active: int = 0) -> None:
        found[arm] = {**scores, "mean": sum(scores.values()) / len(scores), **_sizes(model, active)}
        tick(1, arm)

    def joint(arm: str, model: Model, active: int = 0) -> Model:
        experts.learn(model, everything, effort.steps, PER_KIND * len(KINDS), RATE[arm], seed)
        note(arm, accuracies(model, test), model, active)
        return model

    skillnet = joint("declared", experts.declared(*shape, mlp, SETS), 2)
    joint("dense active", experts.dense(*shape, 2 * mlp))
    joint("dense total", experts.dense(*shape, len(KINDS) * mlp + mlp))
    joint("gate", experts.gated(*shape, mlp, len(KINDS) + 1, 2), 2)
    alone = {kind: experts.dense(*shape, 2 * mlp) for kind in KINDS}
    for kind, model in alone.items():
        experts.learn(model, train[kind], effort.steps, PER_KIND, RATE["separate"], seed)
    note("separate", {k: accuracies(model, {k: test[k]})[k] for k, model in alone.items()}, alone["text"])

    few = [example for some in train.values() for example in some[: round(FEW * effort.labelled)]]
    unlabelled = [replace(example, completion="") for example in everything]
    for arm, steps in (("5 % labels", 0), ("5 % labels, pre-trained", effort.unlabelled)):
        model = experts.declared(*shape, mlp, SETS)
        if steps:
            experts.learn(model, unlabelled, steps, PER_KIND * len(KINDS), RATE["declared"], seed, whole=True)
        experts.learn(model, few, effort.few, PER_KIND * len(KINDS), RATE["declared"], seed)
        note(arm, accuracies(model, test), model, 2)
    return found | new_task(effort, seed, skillnet, tick)


def new_task(effort: Effort, seed: int, skillnet: Model, tick) -> dict[str, dict[str, float]]:
    """A task that needs two skills at once, from few examples: with these, with new experts, and with two others."""
    task, found = Modality(seed, *NEW), {}
    test = {"both": task.take(effort.test, "test")}
    for arm, own in (("reuse", NEW), ("new experts", ("one", "two")), ("control: two others", OTHER)):
        found[arm] = {}
        for shots in effort.shots:
            some = task.take(shots if arm == "new experts" else shots // 2, "train")
            model = experts.tuned(skillnet, task.name, ("general", *own))
            experts.learn(model, some, effort.tune, 16, RATE["new"], seed)
            found[arm][f"both {shots // 2}/{shots}"] = accuracies(model, test)["both"]
        tick(1, arm)
    return found


def accuracies(model: Model, test: Mapping[str, Sequence[Example]]) -> dict[str, float]:
    """Share of right answers of each task."""
    return {name: sum(experts.right(model, some)) / len(some) for name, some in test.items()}


def _sizes(model: Model, active: int) -> dict[str, float]:
    """Weights that learn: all, and those that a request is computed with (`active` experts, if there are any)."""
    whole = float(sum(tensor.numel() for tensor in model.tensors().values()))
    if model.bank is None:
        return {"weights": whole, "active weights": whole}
    each = sum(t.numel() for t in next(iter(model.bank.skills.values())).tensors().values() if t.requires_grad)
    return {"weights": whole, "active weights": whole - (len(model.bank.names) - active) * each}


def parts(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, bool]:
    """Each part of the criterion over the means of the seeds."""

    def mean(arm: str, metric: str = "mean") -> float:
        return sum(run[arm][metric] for run in runs) / len(runs)

    shots = list(runs[0]["reuse"])
    reuse, fresh = (sum(mean(arm, metric) for metric in shots) for arm in ("reuse", "new experts"))
    return {
        "near separate": mean("declared") >= mean("separate") - 0.02,
        "above dense": mean("declared") >= mean("dense active") + 0.02,
        "half the examples": reuse >= fresh,
        "pre-training": mean("5 % labels, pre-trained") >= mean("5 % labels") + 0.03,
    }


def judge(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """The criterion; not tested if separate models learn no kind better than chance (Wilson's interval over all seeds)."""
    n = len(runs) * min(effort.test for effort in EFFORTS.values())
    chance = {kind: 1 / classes for kind, (_, classes) in KINDS.items()}
    learned = [wilson(sum(run["separate"][kind] for run in runs) / len(runs) * n, n).low > chance[kind] for kind in KINDS]
    if not any(learned):
        return "not tested"
    held = parts(runs)
    return "holds" if all(held.values()) else "partly" if any(held.values()) else "does not hold"
