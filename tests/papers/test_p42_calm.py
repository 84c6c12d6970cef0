"""Paper 42: arms and what is asked of them, and the verdict on invented runs."""

from itertools import pairwise

import pytest

from skillweave.papers import p42_calm as paper
from skillweave.papers.p42_calm import EFFORTS, Effort, judge, keyed
from skillweave.task import assert_disjoint

ARMS = ("anchor alone", "augmenting alone", "bridge (a)", "LoRA (a)", "bridge (b)", "LoRA (b)", "shuffled (b)")


def run(bridge=0.6, lora_a=0.0, lora=0.01, shuffled=0.05, before=0.98, after=0.97, recall=1.0, other=0.0):
    """One seed, in shares of right answers."""
    found = {arm: {"key sums": 0.0, "numeric": 0.0} for arm in ARMS}
    found["anchor alone"] |= {"numeric": before, "recall": 0.0}
    found["augmenting alone"]["recall"] = recall
    found["bridge (a)"] |= {"key sums": other, "numeric": 0.0}
    found["bridge (b)"] |= {"key sums": bridge, "numeric": after}
    for arm, value in (("LoRA (a)", lora_a), ("LoRA (b)", lora), ("shuffled (b)", shuffled)):
        found[arm]["key sums"] = value
    return found


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"bridge": 0.5}, "holds"),
        ({"bridge": 0.49}, "does not hold"),
        ({"bridge": 0.0, "other": 0.9}, "does not hold"),  # (b) decides
        ({"lora": 0.06}, "partly"),
        ({"lora_a": 0.06}, "partly"),
        ({"shuffled": 0.06}, "partly"),
        ({"after": 0.95}, "partly"),
        ({"after": 1.0}, "holds"),
        ({"before": 0.89, "after": 0.89}, "not tested"),
        ({"recall": 0.89}, "not tested"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_verdict_follows_the_criterion(change, verdict, seeds):
    assert judge([run(**change)] * seeds) == verdict


def test_the_verdict_is_over_the_mean_of_the_seeds():
    assert judge([run(bridge=x) for x in (0.9, 0.4, 0.3)]) == "holds"
    assert judge([run(bridge=x) for x in (0.7, 0.4, 0.3)]) == "does not hold"


def test_the_criterion_is_that_of_the_card():
    wanted = "Holds if CALM >= 50 % on unseen keys, LoRA and shuffled <= 5 %, numeric accuracy drops <= 2 points."
    assert wanted == paper.CRITERION and (paper.WORKS, paper.FAILS, paper.DROP) == (0.5, 0.05, 0.02)


def test_keys_of_the_test_are_in_no_example():
    for add in (True, False):
        assert_disjoint(keyed(0, add), 300)
    learned, asked = keyed(0, terms=(1, 2, 3)).take(400, "train"), keyed(0).take(200, "test")
    keys = [{key for e in examples for key in e.prompt[:-1].split("+")} for examples in (learned, asked)]
    assert not keys[0] & keys[1] and len(keys[0]) == 100
    assert {e.prompt.count("+") for e in asked} == {1, 2}  # two or three terms


def test_shuffled_examples_ask_for_other_numbers():
    true, other = (keyed(0, shuffled=shuffled).take(50, "test") for shuffled in (False, True))
    assert [e.prompt for e in true] == [e.prompt for e in other]
    assert sum(a.completion != b.completion for a, b in zip(true, other, strict=True)) > 45


def test_efforts_differ_in_how_much():
    assert EFFORTS["quick"].seeds == 1 and EFFORTS["paper"].seeds == 3


SMALL = Effort(1, anchor=2, augment=2, steps=2, batch=4, test=6)


@pytest.fixture(scope="module")
def two_runs():
    ticks = []
    runs = [paper.seed(SMALL, seed, lambda n, note: ticks.append(n)) for seed in (0, 0)]
    assert sum(ticks) == 2 * SMALL.ticks
    return runs


def test_a_seed_gives_every_arm(two_runs):
    found = two_runs[0]
    assert set(found) == set(ARMS)
    for arm, values in found.items():
        assert {"key sums", "keys written out", "one key", "learned keys", "numeric"} <= set(values), arm
    for metric in ("recall", "rounds"):
        assert {arm for arm, values in found.items() if metric in values} == {"anchor alone", "augmenting alone"}
    assert found["anchor alone"]["rounds"] == SMALL.rounds == 4  # it never knew enough
    bridges = [found[arm]["weights"] for arm in ("bridge (a)", "bridge (b)", "shuffled (b)")]
    assert bridges == [3 * (64 * 48 + 4 * 64 * 64)] * 3 and found["LoRA (b)"]["weights"] == pytest.approx(bridges[0], rel=0.05)
    assert judge(two_runs) == "not tested"


def test_a_seed_repeats_itself(two_runs):
    assert all(one == other for one, other in pairwise(two_runs))


@pytest.mark.parametrize(("shares", "rounds"), [((0.95,), 1), ((0.949, 0.0, 1.0), 3), ((0.0,) * 4, 4)])
def test_a_base_learns_in_rounds_until_it_knows_enough(monkeypatch, shares, rounds):
    left, began = list(shares), []
    taken = paper.Sums(0).take
    sums = paper.Sums(0)

    def take(n, split, start=0):
        began.append((n, split, start))
        return taken(n, split, start)

    def right(use, task, n, split):
        assert (task, n, split) == (sums, paper.ASKED, "valid")
        return left.pop(0)

    monkeypatch.setattr(sums, "take", take)
    monkeypatch.setattr(paper, "right", right)
    base, done = paper.taught(sums, sums, 2, SMALL, 0, width=16, layers=1)
    assert (done, left) == (rounds, []) and base.layers == 1
    assert began == [(8, "train", 8 * at) for at in range(rounds)]  # new examples each round


def test_the_anchor_learns_no_single_terms(monkeypatch):
    learned = []

    class Known(Exception):
        """Enough was seen."""

    def taught(task, until, *rest, **shape):
        learned.append((task, until))
        raise Known

    monkeypatch.setattr(paper, "taught", taught)
    with pytest.raises(Known):
        paper.seed(SMALL, 0, print)
    ((task, until),) = learned
    sums = [e for e in task.take(300, "train") if e.prompt.endswith("=")]
    assert len(sums) > 150 and {e.prompt.count("+") for e in sums} == {1, 2} and until.name == "sums"
