"""Paper 39: templates the base knows, equal budgets, one way of asking for all scores, and the verdict on invented runs."""

import pytest

from skillweave.papers import p39_prompt_augmentation as paper
from skillweave.papers import written_sums
from skillweave.papers.p39_prompt_augmentation import EFFORTS, SINGLES, Effort, judge, means
from skillweave.papers.written_sums import WAYS, Sums
from skillweave.task import Example

TINY = Effort(1, enough=0.0, problems=4, steps=2, batch=2, group=2, every=1, test=4)


def run(peak=0.6, lasted=160.0, collapsed=1.0, single=0.6, best=80.0):
    """One seed: the mixture's peak and how long it lasts, then those of the single templates."""
    found = {name: {"peak": single - 0.01 * i, "lasted": best - i, "collapsed": collapsed} for i, name in enumerate(SINGLES)}
    return found | {"mixture": {"peak": peak, "lasted": lasted, "collapsed": 0.0}}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"lasted": 110.0}, "does not hold"),
        ({"lasted": 110.0, "peak": 0.63}, "holds"),
        ({"lasted": 110.0, "peak": 0.61}, "does not hold"),
        ({"collapsed": 0.0}, "not tested"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_one_collapse_is_enough_to_test():
    assert judge([run(collapsed=0.0), run(collapsed=0.0), run()]) == "holds"


@pytest.mark.parametrize("name", SINGLES)
def test_a_right_answer_in_every_way_earns_everything(name):
    text, template, task = WAYS[name]([(12, "+", 25, 37), (37, "-", 30, 7)]), SINGLES[name], Sums(5)
    true = Example("12+25-30?\n", WAYS["plain"]([(12, "+", 25, 37), (37, "-", 30, 7)]))
    assert template.format(text) == 1 and task.score(true, template.answer(text)) == 1
    assert task.score(true, template.answer(text.replace("07", "08").replace("70", "80"))) == 0
    mark = template.text.removesuffix("{prompt}")
    assert Sums(5, way=name, mark=mark).example(0, "train").prompt.startswith(mark) and len(text) < paper.TOKENS


def test_the_mean_of_evaluations_in_a_row():
    assert means([0.0, 1.0, 0.5]) == [0.5, 0.75]


def test_a_seed_gives_every_arm_the_same_samples(monkeypatch):
    ticks = []
    monkeypatch.setattr(written_sums, "STEPS", 2)
    found = paper.seed(TINY, 0, lambda n, note: ticks.append(note))
    assert len(ticks) == TINY.ticks == 9
    assert list(found) == ["start", *SINGLES, "plain + KL", "mixture", "plain, hot", "mixture, hot"]
    assert {found[arm]["samples"] for arm in list(found)[1:]} == {2 * 2 * 2}
    assert all(len(found[arm]["curve"]) == 3 and len(found[arm]["nats"]) == 2 for arm in list(found)[1:])
    assert EFFORTS["paper"].seeds == 3 and all(e.steps % e.every == 0 for e in EFFORTS.values())
