"""Shares are exact, and nothing is seen twice before everything was seen once."""

from collections import Counter

import pytest

from skillweave.curriculum.mixing import mixture
from skillweave.task import Example


def source(name, n):
    return [Example(f"{name} {i}", name) for i in range(n)]


def counts(drawn):
    return Counter(example.completion for example in drawn)


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ((1.0, 1.0, 1.0), {"a": 20, "b": 20, "c": 20}),
        ((0.5, 0.25, 0.25), {"a": 30, "b": 15, "c": 15}),
        ((2.0, 0.0, 1.0), {"a": 40, "c": 20}),
        ((0.0, 0.0, 3.0), {"c": 60}),
    ],
)
def test_shares_are_exact(shares, wanted):
    sources = [(source(name, 7), share) for name, share in zip("abc", shares, strict=True)]
    assert counts(mixture(sources, 60, 0)) == wanted


def test_the_whole_count_is_always_reached():
    for count in range(1, 40):
        drawn = mixture([(source("a", 3), 1 / 3), (source("b", 4), 1 / 3), (source("c", 5), 1 / 3)], count, 0)
        assert len(drawn) == count
        assert all(abs(n - count / 3) <= 1.5 for n in (counts(drawn)[name] for name in "abc"))


def test_every_example_comes_before_any_comes_again():
    drawn = mixture([(source("a", 7), 0.5), (source("b", 4), 0.5)], 40, 3)
    times = Counter(example.prompt for example in drawn)
    assert {times[f"a {i}"] for i in range(7)} == {2, 3}
    assert {times[f"b {i}"] for i in range(4)} == {5}


def test_empty_sources_take_no_part():
    assert counts(mixture([([], 0.5), (source("b", 2), 0.5)], 10, 0)) == {"b": 10}
    assert mixture([], 10, 0) == []


def test_same_seed_same_order():
    sources = [(source("a", 9), 2.0), (source("b", 9), 1.0)]
    assert mixture(sources, 30, 5) == mixture(sources, 30, 5) != mixture(sources, 30, 6)


def test_sources_are_mixed_all_along():
    drawn = mixture([(source("a", 50), 0.5), (source("b", 50), 0.5)], 100, 0)
    assert all(10 <= counts(drawn[start : start + 40])["a"] <= 30 for start in (0, 30, 60))
