"""Intervals hold what they promise: against published values, and by simulation."""

import math

import numpy as np
import pytest

from skillweave.measure.stats import mcnemar, over_seeds, paired, student, two_level, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe 1998, table I (method 3), and R's prop.test(correct = FALSE)
        (81.0, 263, 0.2553, 0.3662),
        (15.0, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0000, 0.1611),
        (1.0, 29, 0.0061, 0.1718),
        (10.0, 10, 0.7225, 1.0000),
    ],
)
def test_wilson_is_as_published(k, n, low, high):
    e = wilson(k, n)
    assert (e.value, e.n) == (k / n, n)
    assert (e.low, e.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_without_items_knows_nothing():
    e = wilson(0.0, 0)
    assert math.isnan(e.value) and (e.low, e.high, e.n) == (0.0, 1.0, 0)


def test_wilson_of_shaped_scores_stays_around_its_value():
    for k in (0.0, 0.3, 4.9, 5.0):
        e = wilson(k, 5)
        assert 0 <= e.low <= e.value <= e.high <= 1


@pytest.mark.parametrize(("p", "n"), [(0.5, 50), (0.9, 50), (0.97, 200), (0.2, 24)])
def test_wilson_covers(p, n):
    hits = np.random.default_rng(0).binomial(n, p, 4000)
    covered = [e.low <= p <= e.high for e in (wilson(float(k), n) for k in hits)]
    assert 0.92 < np.mean(covered) < 0.98


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (8, 1, 0.0390625), (1, 8, 0.0390625), (10, 10, 1.0), (15, 4, 0.019211)],
)
def test_mcnemar_is_the_exact_binomial(won, lost, p):
    assert mcnemar(won, lost) == pytest.approx(p, abs=5e-7)


def test_mcnemar_is_right_about_chance():
    rng = np.random.default_rng(0)
    small = [mcnemar(int(k), 30 - int(k)) < 0.05 for k in rng.binomial(30, 0.5, 2000)]
    assert 0.02 < np.mean(small) <= 0.055


def test_paired_counts_wins_and_losses():
    pair = paired([1.0, 1.0, 1.0, 0.0, 0.5], [0.0, 1.0, 0.0, 1.0, 0.5])
    assert pair.difference.value == pytest.approx(0.2) and pair.difference.n == 5
    assert pair.p == mcnemar(2, 1)
    assert pair.difference.low < 0 < pair.difference.high
    back = paired([0.0, 1.0, 0.0, 1.0, 0.5], [1.0, 1.0, 1.0, 0.0, 0.5])
    assert back.difference.value == pytest.approx(-0.2) and back.p == pair.p


def test_paired_repeats_itself_and_needs_the_same_items():
    rng = np.random.default_rng(1)
    one, other = ([float(x) for x in rng.integers(0, 2, 60)] for _ in range(2))
    assert paired(one, other) == paired(one, other) != paired(one, other, seed=1)
    with pytest.raises(ValueError, match="2 and 1"):
        paired([1.0, 0.0], [1.0])


def test_the_paired_interval_covers():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(600):
        second = rng.random(80) < 0.5
        first = np.where(rng.random(80) < 0.3, rng.random(80) < 0.8, second)  # true difference 0.3 · (0.8 - 0.5) = 0.09
        e = paired([float(x) for x in first], [float(x) for x in second], draws=400).difference
        covered.append(e.low <= 0.09 <= e.high)
    assert 0.91 < np.mean(covered) < 0.98


def runs(*right, n=100):
    return [[1.0] * k + [0.0] * (n - k) for k in right]


def test_one_seed_is_wilson():
    assert over_seeds(runs(60)) == wilson(60.0, 100)


def test_seeds_that_disagree_widen_the_interval():
    pooled, apart = wilson(180.0, 300), over_seeds(runs(30, 60, 90))
    assert apart.value == pytest.approx(0.6) and apart.n == 300
    assert apart.high - apart.low > 3 * (pooled.high - pooled.low)


def test_seeds_that_agree_are_no_surer_than_their_items():
    for right in (60, 100, 0):
        agreed, pooled = over_seeds(runs(right, right, right)), wilson(3.0 * right, 300)
        assert agreed.low <= pooled.low and agreed.high >= pooled.high
        assert agreed.high - agreed.low > 0.01


def test_runs_without_items_are_left_out():
    assert over_seeds([[], [1.0, 0.0]]) == wilson(1.0, 2)
    assert math.isnan(over_seeds([[], []]).value)


def test_two_levels_cover_the_mean_of_all_seeds():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        rates = np.clip(rng.normal(0.6, 0.08, 5), 0, 1)
        e = two_level([[float(x) for x in rng.random(50) < p] for p in rates], draws=400)
        covered.append(e.low <= 0.6 <= e.high)
    assert np.mean(covered) > 0.93


def test_two_levels_of_one_run_are_its_items():
    e = two_level(runs(60))
    assert (e.value, e.n) == (pytest.approx(0.6), 100)
    assert (e.low, e.high) == (pytest.approx(0.5, abs=0.03), pytest.approx(0.7, abs=0.03))


def test_student_is_as_published():
    e = student([1.0, 2.0, 3.0], "min")
    assert (e.value, e.unit, e.n) == (2.0, "min", 3)
    assert e.high - e.value == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)
    assert (student([4.0]).low, student([4.0]).high) == (4.0, 4.0)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 13, 18, 40])
def test_student_covers(n):
    rng = np.random.default_rng(n)
    estimates = [student(rng.normal(0, 1, n).tolist()) for _ in range(4000)]
    assert 0.94 < np.mean([e.low <= 0 <= e.high for e in estimates]) < 0.97
