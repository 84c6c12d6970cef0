"""Paper 31: arms and what they lost, and the verdict on invented runs."""

import math

import pytest

from skillweave.papers import p31_width_pruning as paper
from skillweave.papers.p31_width_pruning import EFFORTS, SHARE, Effort, arm, judge


def run(facts=0.5, rules=0.1, ppm=40.0, vow=80.0, pon=90.0, full=(0.67, 0.74)):
    """One seed: what was lost of facts and rules at the share that decides, and perplexities."""
    blind = {"facts blind": 0.15, "rules blind": 0.23}
    return {
        "full": {"facts": full[0], "rules": full[1]} | blind,
        arm("ppm", SHARE): {"facts lost": facts, "rules lost": rules, "perplexity": ppm},
        arm("vow", SHARE): {"perplexity": vow},
        arm("pon", SHARE): {"perplexity": pon},
    }


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"rules": -0.3}, "holds"),  # an improvement is not required, and no harm
        ({"rules": 0.25}, "holds"),
        ({"rules": 0.26}, "partly"),
        ({"ppm": 85.0}, "partly"),  # better than one rival only
        ({"rules": 0.5, "ppm": 85.0}, "does not hold"),
        ({"facts": -0.1, "rules": -0.2, "ppm": 99.0}, "does not hold"),  # facts that grow are not fragile
        ({"facts": -0.1, "rules": -0.2}, "partly"),
        ({"full": (0.16, 0.74)}, "not tested"),
        ({"full": (0.67, 0.24)}, "not tested"),
        ({"ppm": math.nan, "rules": 0.5}, "does not hold"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_seeds_that_disagree_about_facts_show_no_dichotomy():
    assert judge([run(facts=x, rules=-0.5) for x in (0.02, 0.5, -0.3)]) == "partly"
    assert judge([run(facts=x, rules=0.1) for x in (0.5, 0.52, 0.54)]) == "holds"


def test_the_criterion_is_that_of_the_card():
    assert paper.CRITERION == (
        "Holds for the dichotomy if at 20 % facts lose >= 2x the relative share that in-context tasks lose, and PPM beats "
        "VOW/PON in perplexity. Do not require improvement; report it with degenerate-output controls."
    )


def test_efforts_measure_the_share_that_decides():
    assert EFFORTS["quick"].seeds == 1 and EFFORTS["paper"].seeds == 3
    assert all(SHARE in effort.shares for effort in EFFORTS.values()) and arm("ppm", SHARE) == "ppm 20 %"


@pytest.fixture
def small(monkeypatch, tiny):
    """A tiny base and a handful of items in the place of Gemma and all of them."""
    from skillweave.measure import abilities

    for name, n in {"FACTS": 6, "RULES": 5, "TOPICS": 1, "TEXTS": 2, "ANSWER": 2}.items():
        monkeypatch.setattr(abilities, name, n)
    monkeypatch.setattr(paper, "load_base", lambda: tiny)


def test_a_seed_gives_every_arm(small):
    ticks = []
    effort = Effort(1, (SHARE, 0.5), ("facts", "text"))
    found = paper.seed(effort, 0, lambda n, note: ticks.append(note))
    assert len(ticks) == effort.ticks == 9
    assert set(found["ppm 50 %"]) == set(found["full"]) | {"facts lost", "rules lost"}
    assert set(found["random 20 %"]) == {"facts", "facts blind", "facts lost", "perplexity"}
    assert set(found["vow 20 %"]) == set(found["random 50 %"]) == {"perplexity"}
    assert found["control: empty"]["formats sound"] == 0
    full, now = found["full"], found["ppm 50 %"]
    if full["facts"] > full["facts blind"]:
        gone = full["facts"] - now["facts"]
        assert now["facts lost"] == pytest.approx(gone / (full["facts"] - full["facts blind"]))


def test_a_seed_repeats_itself(small):
    effort = Effort(1, (SHARE,), ("text",))
    first, again, other = (paper.seed(effort, s, lambda n, note: None) for s in (0, 0, 1))
    assert repr(first) == repr(again) != repr(other)


@pytest.mark.slow
def test_a_model_that_knows_nothing_is_not_tested(monkeypatch, tiny):
    monkeypatch.setattr(paper, "load_base", lambda: tiny)
    assert judge([paper.seed(EFFORTS["quick"], 0, lambda n, note: None)]) == "not tested"
