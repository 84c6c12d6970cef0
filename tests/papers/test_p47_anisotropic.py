"""Paper 47: a world without doubles, every arm on the same examples, and the verdict on invented runs."""

from itertools import product

import pytest
import torch

from skillweave.composition import Active
from skillweave.papers import p47_anisotropic as paper
from skillweave.papers import word_skills
from skillweave.papers.p47_anisotropic import EFFORTS, FEW, Effort, judge, leads
from skillweave.papers.word_skills import CHAINED, chains, tuned, words, world

TINY = Effort(1, width=16, pretraining=3, skill=2, tuning=2, few=2, valid=4, test=4, shots=(1,))


def run(grid=0.5, vector=0.6, block=0.7, lead=(0.1, 0.1, -0.1), alone=0.9, base=0.2, same=0.1):
    """One seed: normalised scores in (a), and by how much strengths lead at 1, 8 and 64 shots."""
    found = {
        "each alone": {"normalised": 1.0, "exact": alone},
        "base": {"normalised": base / alone, "exact": base},
        "held-out task, base": {"exact": 0.1, "same": same},
    }
    found |= {arm: {"normalised": x, "exact": x} for arm, x in (("grid", grid), ("global", vector), ("block", block))}
    for shots, gap in zip((1, 8, 64), lead, strict=True):
        found[f"block, {shots} shots"] = {"exact": 0.5 + gap}
        found |= {f"lora {rank}, {shots} shots": {"exact": 0.5 - 0.01 * (rank == 8)} for rank in (1, 8)}
    return found


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"block": 0.64}, "holds"),
        ({"block": 0.62}, "partly"),
        ({"vector": 0.52, "block": 0.9}, "partly"),
        ({"lead": (0.1, -0.01, -0.1)}, "partly"),
        ({"lead": (0.1, 0.0, -0.1)}, "partly"),  # as good is not better
        ({"lead": (0.1, 0.1, 0.01)}, "partly"),  # never overtaken
        ({"block": 0.55, "lead": (0.1, 0.1, 0.01)}, "does not hold"),
        ({"grid": 0.8, "lead": (-0.1, -0.1, -0.1)}, "does not hold"),
        ({"alone": 0.5, "base": 0.1}, "not tested"),
        ({"base": 0.75}, "not tested"),
        ({"same": 0.6}, "not tested"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_the_verdict_is_that_of_the_means():
    assert judge([run(block=0.6), run(block=0.7), run(block=0.8)]) == "holds"
    assert leads(run()) == pytest.approx({1: 0.1, 8: 0.1, 64: -0.1})


def test_the_criterion_is_that_of_the_card():
    assert paper.CRITERION == (
        "Holds if block >= per-vector >= grid by >= 3 normalised points in (a), and block beats LoRA at <= 8 shots with LoRA "
        "overtaking later in (b)."
    )


def test_efforts_try_what_the_criterion_compares():
    assert EFFORTS["quick"].seeds == 1 and EFFORTS["paper"].seeds == 3
    for effort in EFFORTS.values():
        assert min(effort.shots) == 1 and FEW in effort.shots and max(effort.shots) == 64


def test_chains_are_functions_of_their_own():
    every = ["".join(letters) for length in (3, 4) for letters in product("abcd", repeat=length)]
    answers = {chain: tuple(map(words(chain, 0).answer, every)) for chain in [*chains(), *((name,) for name in CHAINED)]}
    assert len(chains()) > 20 and len(set(answers.values())) == len(answers)


def test_a_world_keeps_its_tasks_apart():
    here = world(3, 16, 2, 2, skills=3)
    names = [task.name for task in (*here.tasks, *here.known, here.held)]
    assert len(set(names)) == len(names) == len(chains()) + len(CHAINED) and len(here.tasks) == len(here.skills) == 3
    assert 0 < here.same < 0.5
    prompts = {split: {e.prompt for task in here.tasks for e in task.take(50, split)} for split in ("train", "valid", "test")}
    assert not prompts["train"] & prompts["test"] and not prompts["valid"] & prompts["test"]
    assert here.held.name != world(4, 16, 1, 1, skills=1).held.name


def test_the_rate_with_the_lowest_loss_is_taken(monkeypatch, tiny):
    made = {rate: Active(tiny, None, torch.tensor([nats])) for rate, nats in ((1.0, 2.0), (2.0, 1.0), (3.0, 3.0))}
    monkeypatch.setattr(word_skills, "loss", lambda use, held: use.alpha.item())
    assert tuned(made.__getitem__, (1.0, 2.0, 3.0), []) == (2.0, made[2.0])


def test_a_seed_gives_every_arm():
    ticks = []
    found = paper.seed(TINY, 0, lambda n, note: ticks.append(note))
    assert len(ticks) == TINY.ticks == 3
    assert list(found)[:4] == ["each alone", "base", "sum", "grid"] and set(paper.GRAINS) < set(found)
    assert {f"{arm}, {n} shots" for arm in ("block", "lora 1", "lora 8") for n in (1,)} < set(found)
    assert all(arm["chosen"] in paper.ALPHA_RATES for name, arm in found.items() if name in paper.GRAINS)
    assert all(0 <= arm["exact"] <= 1 for arm in found.values())


def test_a_seed_repeats_itself():
    first, again, other = (paper.seed(TINY, s, lambda n, note: None) for s in (0, 0, 1))
    assert repr(first) == repr(again) != repr(other)


@pytest.mark.slow
def test_a_world_that_has_learned_nothing_is_not_tested():
    assert judge([paper.seed(TINY, 0, lambda n, note: None)]) == "not tested"
