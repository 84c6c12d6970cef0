"""What learning costs is read off where all have learned as much."""

import pytest

from skillweave.measure.forgetting import common_level, rise_at, rises

SLOW = [(3.0, 1.0), (2.5, 1.1), (2.0, 1.4)]
FAST = [(3.0, 1.0), (2.0, 2.0), (1.0, 3.0)]


def test_the_level_is_the_one_that_all_reach():
    assert common_level([SLOW, FAST]) == 2.0
    assert common_level([[(3.0, 1.0), (1.5, 1.0), (2.0, 1.0)]]) == 1.5


def test_rises_are_read_between_two_measurements():
    assert rise_at(SLOW, 2.25) == pytest.approx(0.25) and rise_at(FAST, 2.25) == pytest.approx(0.75)
    assert rise_at(SLOW, 3.0) == 0 and rise_at(FAST, 1.0) == pytest.approx(2.0)


def test_the_first_time_counts():
    assert rise_at([(3.0, 1.0), (2.0, 1.5), (2.5, 0.5), (1.0, 9.0)], 2.0) == pytest.approx(0.5)
    assert rise_at([(3.0, 1.0), (3.2, 2.0), (2.8, 3.0)], 2.9) == pytest.approx(1.75)  # after a bump
    with pytest.raises(AssertionError, match="never came down to 0.5"):
        rise_at(FAST, 0.5)


def test_courses_are_compared_at_shares_of_the_way():
    found = rises({"slow": SLOW, "fast": FAST}, (0.5, 1.0))
    assert found == {
        "slow": {0.5: pytest.approx(0.1), 1.0: pytest.approx(0.4)},
        "fast": {0.5: pytest.approx(0.5), 1.0: pytest.approx(1.0)},
    }
