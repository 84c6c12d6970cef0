"""Paper 23: what counts as right and as different, equal budgets, and the verdict on invented runs."""

import pytest

from skillweave.papers import p23_b_star as paper
from skillweave.papers import written_sums
from skillweave.papers.p23_b_star import EFFORTS, SAMPLES, TEMPERATURES, WAYS, Effort, judge, known
from skillweave.papers.written_sums import WAYS as WRITE
from skillweave.papers.written_sums import Sums
from skillweave.task import Example

TINY = Effort(1, enough=0.0, early=6, rounds=2, prompts=8, tuning=1, steps=2, test=4)


def run(rft=0.4, star=0.5, varied=0.2, first=0.8, last=1.2, start=0.25):
    """One seed."""
    return {
        "start": {"pass@1": start, "pass@16-4": 0.1},
        "online RFT": {"pass@1": rft, "pass@16-4": 0.2},
        "fixed": {"pass@1": rft, "pass@16-4": 0.2},
        "B-STaR": {"pass@1": star, "pass@16-4": varied, "T first": first, "T last": last},
    }


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"star": 0.44}, "holds"),
        ({"star": 0.42}, "does not hold"),
        ({"varied": 0.19}, "partly"),
        ({"last": 0.8}, "partly"),  # as high as at first is not risen
        ({"star": 0.3, "last": 0.6}, "does not hold"),
        ({"start": 0.05}, "not tested"),
        ({"start": 0.45}, "not tested"),
        ({"rft": 0.25, "star": 0.27}, "not tested"),  # practice added nothing
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_the_verdict_is_that_of_the_means():
    assert judge([run(star=0.4), run(star=0.4), run(star=0.5)]) == "holds"
    assert judge([run(last=0.6), run(last=0.6), run(last=1.4)]) == "holds"


def test_a_step_is_right_if_it_ends_in_a_true_result():
    example = Sums(3).example(0, "train")
    lines = example.completion.splitlines()
    assert len(lines) == 2 and all(known(example, line) for line in lines)
    assert not known(example, "") and not known(example, lines[0][:-2] + "30")


def test_all_ways_are_right_and_different():
    steps = [(12, "+", 25, 37), (37, "-", 30, 7)]
    texts, true = [WRITE[way](steps) for way in WAYS], Example("12+25-30?\n", WRITE["plain"](steps))
    assert len(set(texts)) == len(WAYS) == 4 and all(Sums().score(true, text) == 1 for text in texts)
    assert all(known(true, line) for text in texts for line in text.splitlines())


def test_a_seed_gives_every_arm_the_same_samples(monkeypatch):
    monkeypatch.setattr(Sums, "score", lambda self, example, text: float(len(text) % 3 == 0))  # an untrained base is right, too
    monkeypatch.setattr(paper, "FIXED", (1.0, 0.0))
    ticks = []
    monkeypatch.setattr(written_sums, "STEPS", 2)
    found = paper.seed(TINY, 0, lambda n, note: ticks.append(note))
    assert len(ticks) == TINY.ticks == 4 and list(found) == ["start", "online RFT", "fixed", "B-STaR"]
    assert {found[arm]["samples"] for arm in ("online RFT", "fixed", "B-STaR")} == {2 * 8 * SAMPLES}
    assert all(len(found[arm][key]) == n for arm in list(found)[1:] for key, n in (("temperature", 2), ("curve", 3)))
    assert 0 <= found["start"]["scorer"] <= 1


def test_efforts_leave_prompts_beside_the_choice():
    assert EFFORTS["quick"].seeds == 1 and EFFORTS["paper"].seeds == 3
    assert all(0 < e.tuning * len(TEMPERATURES) < e.prompts for e in EFFORTS.values())
