"""B-STaR's balance score on the cases of its paper's card, and what it chooses."""

import pytest

from skillweave.learn.balance import Try, balance, choose, wanted_of, worth


@pytest.mark.parametrize(("right", "kept", "wanted", "score"), [
    (8, 8, 8, 1.0),  # enough, and all right
    (4, 4, 8, 0.5),  # all right, half of what is wanted
    (8, 16, 8, 0.5),  # enough, half of it wrong
    (16, 16, 8, 1.0),  # more than enough counts as enough
    (4, 8, 8, 0.25),
    (0, 8, 8, 0.0),
    (0, 0, 8, 0.0),
])  # fmt: skip
def test_one_prompt(right, kept, wanted, score):
    assert balance(right, kept, wanted) == score


def test_how_many_a_prompt_should_give():
    assert wanted_of(64, 8) == 8 and wanted_of(65, 8) == 9 and wanted_of(1, 8) == 1


def right(text):
    return Try(text, 1.0, True)


def test_copies_count_once():
    """Eight copies of a right answer are one: neither enough nor a reason to sample so."""
    assert worth([[right("a")] * 8], 1.0, 4) == 0.25
    assert worth([[right(text) for text in "abcd"]], 1.0, 4) == 1.0
    assert worth([[right("a"), Try("x", 1.0, False), Try("x", 1.0, False)]], 1.0, 1) == 0.5


def test_the_mean_is_over_all_prompts():
    assert worth([[right("a")], [Try("x", 0.0, False)]], 0.5, 1) == 0.5


def test_a_cap_keeps_the_best():
    group = [Try("a", 1.2, True), Try("b", 1.1, True), Try("x", 1.0, False)]
    assert worth([group], 0.5, 2) == pytest.approx(2 / 3) and worth([group], 0.5, 2, cap=2) == 1


def test_a_threshold_has_no_effect_where_the_reward_is_the_answer():
    groups = [[right("a"), right("b"), Try("x", 0.0, False)], [Try("y", 0.0, False), right("c")]]
    values = {worth(groups, threshold, 4) for threshold in (0.1, 0.5, 0.75, 1.0)}
    assert values == {(0.5 + 0.25) / 2}
    assert worth(groups, 0.0, 4) < min(values)  # and that is one which lets wrong answers pass


def test_a_threshold_matters_where_there_is_a_quality():
    group = [Try("a", 1.5, True), Try("b", 1.2, True), Try("x", 0.7, False), Try("y", 0.6, False)]
    assert choose({1.0: [group]}, (0.0, 0.5, 1.0, 1.4), 2).threshold == 1.0


def test_it_chooses_more_variety_until_that_costs_too_many_right_answers():
    cold = [[right("a")] * 8]
    warm = [[right(text) for text in "abcd"] + [Try("x", 0.0, False)] * 4]
    hot = [[right("a")] + [Try(str(i), 0.0, False) for i in range(7)]]
    best = choose({0.5: cold, 1.0: warm, 2.0: hot}, (0.5, 1.0), 4)
    assert (best.temperature, best.threshold, best.balance) == (1.0, 0.5, 1.0)
    assert choose({2.0: cold, 0.5: cold}, (1.0, 0.5), 4).temperature == 0.5
