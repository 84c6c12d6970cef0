"""Paper 49: every arm learns the same texts, the probe is none of the held-out ones, and the verdict on invented runs."""

import math

import pytest

from skillweave.papers import p49_adept as paper
from skillweave.papers.p49_adept import EFFORTS, RATES, RISE, Effort, general, judge

SMALL = Effort(1, width=32, layers=3, pretrain=2, steps=6, batch=3, held=3, points=3, copies=1, every=2)


def run(**change):
    """One seed: the rise of each arm at the common level."""
    rises = {"full": 1.0, "random": 0.6, "most": 0.7, "ADEPT": 0.4} | {
        k.replace("adept", "ADEPT"): v for k, v in change.items()
    }
    return {name: {RISE: rise} for name, rise in rises.items()}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"adept": 0.5}, "holds"),
        ({"adept": 0.51}, "partly"),  # better than other layers, and not half as harmful
        ({"most": 0.3}, "partly"),
        ({"random": 0.4}, "partly"),  # the same layers by chance are not beaten
        ({"adept": 0.65}, "does not hold"),
        ({"adept": -0.2, "full": -0.1}, "not tested"),  # no harm was done that could be halved
        ({"full": 0.0}, "not tested"),
        ({"full": math.nan}, "not tested"),
        ({"adept": math.nan}, "does not hold"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_two_seeds_of_three_decide_about_layers():
    assert judge([run(), run(), run(most=0.1)]) == "holds"
    assert judge([run(), run(random=0.1), run(most=0.1)]) == "partly"


def test_seeds_that_disagree_about_harm_test_nothing():
    assert judge([run(full=x) for x in (0.9, -0.3, 0.4)]) == "not tested"


def test_the_criterion_is_that_of_the_card():
    assert paper.CRITERION == (
        "Holds if ADEPT's rise is <= 50 % of full tuning's, and least-important beats random and most-important selection in "
        ">= 2 of 3 seeds."
    )
    assert EFFORTS["quick"].seeds == 1 and EFFORTS["paper"].seeds == 3


@pytest.fixture(scope="module")
def found():
    ticks = []
    arms = paper.seed(SMALL, 0, lambda n, note: ticks.append(n))
    assert sum(ticks) == SMALL.ticks == 9
    return arms


def test_a_seed_gives_every_arm(found):
    assert set(found) == {"before", *RATES, "layer 0", "layer 1", "layer 2"}
    assert all({f"rise at {share} %" for share in (25, 50, 75, 100)} < set(found[name]) for name in RATES)
    assert found["ADEPT"] != found["full"] and found["even"] != found["ADEPT"]
    level = found["before"]["level loss"]
    assert level < found["before"]["field loss"] and math.isfinite(found["ADEPT"][RISE])
    assert judge([found]) == "not tested"  # a base that knows nothing


def test_all_arms_learn_as_many_texts(monkeypatch):
    counts = {}

    def train(loss, groups, batch, plan, *run, **options):
        counts[name] = sum(len(batch(step).tokens) for step in range(plan.steps))
        assert plan.steps == SMALL.steps

    monkeypatch.setattr(paper, "train", train)
    base = paper.TinyBase(SMALL.width, 0, layers=SMALL.layers)
    for name in RATES:
        paper.course(SMALL, base, name, 1e-3, 0, "valid")
    assert len(counts) == 8 and set(counts.values()) == {SMALL.steps * SMALL.batch}


def test_the_probe_shares_no_text_with_what_is_held_out():
    texts = {split: set(general(200, split, seed)) for split, seed in (("train", 500), ("valid", 0), ("test", 0))}
    assert all(len(some) > 150 for some in texts.values())
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["valid"] and not texts["valid"] & texts["test"]
