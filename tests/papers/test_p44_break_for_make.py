"""Paper 44: its arms on a tiny base, the search of rates, and the verdict on invented runs."""

from functools import partial

import pytest
import torch

from skillweave.compose import factors
from skillweave.learn import plp, sft
from skillweave.learn.loop import train
from skillweave.learn.plp import taken_apart
from skillweave.papers import p44_break_for_make as paper
from skillweave.papers.p44_break_for_make import EFFORTS, GAP, Effort, judge
from skillweave.papers.reproduction import summary
from skillweave.tasks.sprites import Withheld

SMALL = Effort(1, 32, 2, 2, 1, 3, (1e-3, 1e-2))


def run(plp=0.6, joined=0.5, sum_=0.2, tuned=0.3, known=0.97, plain=(0.8, 0.7), own=(0.6, 0.9)):
    """One seed: joint accuracies, what the base knows, what skills of shape and texture draw of what they were taught."""
    found = {"base": {"both": 0.0, "known": known}, "sum": {"both": sum_}, "sum + stage 2": {"both": tuned}}
    found |= {"PLP": {"both": joined}, "PLP + stage 2": {"both": plp}}
    for kind, taught in (("plain", plain), ("PLP", own)):
        for name, share in zip(("shape", "texture"), taught, strict=True):
            found[f"{kind} {name} alone"] = {f"{name} taught": share}
    return found


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"plp": 0.4}, "holds"),  # ten points above both
        ({"plp": 0.39}, "partly"),
        ({"tuned": 0.55}, "partly"),
        ({"sum_": 0.55}, "partly"),
        ({"sum_": 0.55, "tuned": 0.6}, "does not hold"),
        ({"plp": 0.0, "sum_": 0.0, "tuned": 0.0}, "does not hold"),
        ({"joined": 0.0}, "holds"),  # what the second stage does is reported, and no part of the criterion
        ({"sum_": 0.95}, "not tested"),
        ({"known": 0.89}, "not tested"),
        ({"plain": (0.4, 0.9), "own": (0.4, 0.9)}, "not tested"),
        ({"plain": (0.4, 0.4), "own": (0.6, 0.6)}, "holds"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_the_means_of_the_seeds_decide():
    assert judge([run(plp=plp) for plp in (0.3, 0.4, 0.5)]) == "holds"
    assert judge([run(plp=plp) for plp in (0.3, 0.4, 0.4)]) == "partly"


def test_the_criterion_is_that_of_the_card():
    assert paper.CRITERION.startswith("Holds if PLP joint accuracy is >= 10 points above the sum and above plain + stage 2.")
    assert GAP == 0.10 and paper.CEILING == 0.95 and EFFORTS["paper"].seeds == 3 and paper.SHOTS == 4


@pytest.fixture(scope="module")
def found():
    ticks = []
    return paper.seed(SMALL, 0, lambda n, note: ticks.append(note)), ticks


def test_a_seed_gives_every_arm(found):
    arms, ticks = found
    assert len(ticks) == SMALL.ticks == 6
    pictures = arms["pictures"]
    assert set(arms) - {"pictures"} == set(pictures) and len(pictures) == 11
    for name in pictures:
        shares = {"shape", "texture", "both", "shape taught", "texture taught", "known"}
        assert set(arms[name]) == shares | {"loss"} and all(0 <= arms[name][share] <= 1 for share in shares)
        assert len(pictures[name]) == 3
    assert set(summary([arms])) == set(pictures)  # pictures are no numbers
    assert arms["sum"]["loss"] != arms["sum + stage 2"]["loss"] != arms["PLP + stage 2"]["loss"] != arms["PLP"]["loss"]


def test_every_arm_has_the_same_steps(monkeypatch):
    """Both skills and the second stage together take as many steps as the joint LoRA, and both pairs the same second stage."""
    steps = []
    for module in (sft, plp, factors, paper):
        monkeypatch.setattr(module, "train", partial(_counted, steps))
    world = Withheld.of(0)
    base, shown = paper.learned_base(SMALL, world, 0), world.shown(SMALL.steps * paper.BATCH)
    made = paper.first(base, shown, SMALL, 0, 1e-2)
    assert steps == [2, 2, 2, 2, 5]
    paper.second(base, made, shown, SMALL, 0, 1e-2)
    assert steps[5:] == [1, 1]
    halves = [taken_apart(name, skill) for name, skill in made["PLP"].items()]
    assert all(torch.equal(one.start, other.start) for one, other in zip(*(h.values() for h in halves), strict=True))


def _counted(steps, *arguments, **options):
    """`train`, which notes how many steps it took."""
    log = train(*arguments, **options)
    steps.append(len(log.loss))
    return log
