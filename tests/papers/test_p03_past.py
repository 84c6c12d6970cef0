"""Paper 3: parts of a world that share nobody, changes that are of a length, and the verdict on invented runs."""

import pytest

from skillweave.papers import p03_past as paper
from skillweave.papers.p03_past import BEFORE, EFFORTS, SOURCE, TARGET, Effort, judge, setting
from skillweave.tasks.facts import people

TINY = Effort(1, 16, 180, read=3, sft=2, practice=2, questions=40, test=6)


def run(sft=0.3, v=0.5, chance=0.3, shown=0.45, known=1.0, source=0.8):
    """One seed, with what the criterion looks at."""
    two = {
        "SFT": sft,
        "SFT + v": v,
        "SFT + random": chance,
        "SFT + SFT vector": shown,
        "source: RL": source,
        "source: SFT": 0.4,
    }
    return {arm: {"two hops": share, "known": known} for arm, share in two.items()} | {"cosine": {"SFT and RL": 0.0}}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"shown": 0.55}, "partly"),
        ({"v": 0.36, "shown": 0.35}, "partly"),
        ({"chance": 0.45, "shown": 0.55}, "does not hold"),
        ({"v": 0.36}, "does not hold"),
        ({"known": 0.8}, "not tested"),
        ({"source": 0.45}, "not tested"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_efforts_are_what_the_criterion_asks_for():
    assert EFFORTS["quick"].seeds == 1 and EFFORTS["paper"].seeds == 3 and ">= +8 points" in paper.CRITERION


def test_parts_of_the_world_share_nobody():
    here, world = setting(TINY, 0), people(0, TINY.people)
    for part in (BEFORE, SOURCE, TARGET):
        texts = [*here.about(part), *here.asked(part)]
        words = {word for e in texts for word in f"{e.prompt} {e.completion}".split()} & set(world.split)
        assert len(words) >= 14 and {world.split[word] for word in words} == {part}
    asked = [e for examples, _ in here.form() for e in examples]
    assert {world.split[w] for e in asked for w in e.completion.split() if w in world.split} == {BEFORE}


def test_a_seed_gives_every_arm():
    ticks = []
    found = paper.seed(TINY, 0, lambda n, note: ticks.append(n))
    assert sum(ticks) == TINY.ticks
    assert list(found)[:5] == ["SFT", "SFT + v", "SFT + random", "SFT + SFT vector", "target RL"]
    assert all(-1 <= value <= 1 for arm in ("cosine", "cosine, one permuted") for value in found[arm].values())
