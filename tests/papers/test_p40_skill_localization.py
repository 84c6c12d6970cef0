"""Paper 40: every arm and what is said of it, and the verdict on invented runs."""

import pytest

from skillweave.papers import p40_skill_localization as paper
from skillweave.papers.p40_skill_localization import DECIDES, EFFORTS, Effort, arm, judge, overlaps


def run(kept=0.97, chance=0.1, ece=0.05, full=0.85, related=0.3, others=0.1):
    """One seed."""
    return {
        "base": {"right": 0.5, "ece": 0.4},
        "full": {"right": full, "ece": 0.1},
        arm("learned", DECIDES): {"kept": kept, "ece": ece, "overlap related": related, "overlap others": others},
        arm("random", DECIDES): {"kept": chance},
    }


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"kept": 0.951, "chance": 0.299}, "holds"),
        ({"kept": 0.94}, "partly"),
        ({"chance": 0.31}, "partly"),
        ({"ece": 0.1}, "partly"),
        ({"related": 0.1}, "partly"),
        ({"kept": 0.5, "ece": 0.2}, "partly"),
        ({"kept": 0.5, "ece": 0.2, "related": 0.05}, "does not hold"),
        ({"full": 0.5}, "not tested"),
        ({"full": 0.4}, "not tested"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_what_is_to_differ_differs_by_more_than_its_interval():
    assert judge([run(ece=e) for e in (0.09, 0.02, 0.105)]) == "partly"
    assert judge([run(related=r) for r in (0.11, 0.5, 0.05)]) == "partly"
    assert judge([run(full=f) for f in (0.9, 0.45, 0.6)]) == "not tested"
    assert judge([run(kept=k) for k in (0.9, 0.97, 0.99)]) == "holds"


def test_the_criterion_is_that_of_the_card():
    assert paper.CRITERION == (
        "Holds if the learned mask at <= 1 % keeps >= 95 % of the gain while random keeps <= 30 %, ECE falls, and related "
        "tasks overlap more."
    )


def test_efforts_hold_the_size_that_decides():
    assert EFFORTS["quick"].seeds == 1 and EFFORTS["paper"].seeds == 3
    assert all(DECIDES in effort.sizes for effort in EFFORTS.values())
    assert [arm("learned", size) for size in EFFORTS["paper"].sizes] == [f"learned {s} %" for s in ("0.01", "0.1", "1", "10")]


def test_overlaps_tell_related_tasks_from_others(tiny, random_skill):
    import torch

    slot = next(iter(tiny.linears))
    skill = random_skill(tiny, 0, 2, [slot])
    grafts = {f"{k} {v}": skill.masked({slot: torch.tensor([10 * i, 10 * i + 1 + v])})
              for i, k in enumerate(("a", "b")) for v in (0, 1)}  # fmt: skip
    assert overlaps(grafts) == {"overlap related": pytest.approx(1 / 3), "overlap others": 0.0}


SMALL = Effort(1, 16, 3, 2, 1, 6, (DECIDES, 0.5))


@pytest.mark.slow
def test_a_seed_gives_every_arm(monkeypatch):
    monkeypatch.setattr(paper, "KINDS", ("mood", "order"))
    ticks = []
    found = paper.seed(SMALL, 0, lambda n, note: ticks.append(note))
    assert ticks == ["base", "mood", "order"] and SMALL.ticks == 1 + 3
    ways = {f"{how} {size} %" for how in ("learned", "top", "random") for size in (1, 50)}
    assert set(found) == {"base", "full", "AdamW full", "AdamW learned 1 %", "AdamW top 1 %"} | ways
    for name, metrics in found.items():
        assert {"right", "ece", "right elsewhere", "ece elsewhere", "held", "kept"} <= set(metrics)
        assert ("energy" in metrics) == (name != "base") and ("overlap related" in metrics) == (
            name in ("learned 1 %", "top 1 %")
        )
    assert found["base"]["held"] == 0 and found["full"]["held"] == 1
    for size in (1, 50):
        held = {found[f"{how} {size} %"]["held"] for how in ("learned", "top", "random")}
        assert len(held) == 1 and held.pop() <= size / 100
    assert found["full"]["kept"] in (0, 1) and found["base"]["kept"] == 0
    again = paper.seed(SMALL, 0, lambda n, note: None)
    other = paper.seed(SMALL, 1, lambda n, note: None)
    assert repr(found) == repr(again) != repr(other)
