"""Three levels of newness: nothing held out is trained on, and what is new is only the path."""

from itertools import product

import pytest

from skillweave.curriculum.levels import LEVELS, three_level_split
from skillweave.errors import BadData

PATHS = [*product("abcde", repeat=2), *product("abcde", repeat=3)]


def test_every_path_has_one_level():
    found = three_level_split(PATHS, {"e"})
    assert tuple(found) == LEVELS and sorted(sum(found.values(), [])) == sorted(PATHS)
    assert all("e" in path for path in found["zero-shot"]) and len(found["zero-shot"]) == 9 + 61
    assert 0.2 < len(found["composition"]) / (16 + 64) <= 0.25


def test_composition_is_new_in_the_path_alone():
    found = three_level_split(PATHS, {"e"})
    shown = {(len(path), at, relation) for path in found["iid"] for at, relation in enumerate(path)}
    assert all((len(path), at, relation) in shown for path in found["composition"] for at, relation in enumerate(path))
    assert shown == {(n, at, r) for n in (2, 3) for at in range(n) for r in "abcd"}


def test_few_paths_are_shown_rather_than_held_back():
    """No relation is left without a path that shows it."""
    found = three_level_split([("a", "b"), ("b", "a"), ("c", "a")], set(), new=0.9)
    assert len(found["iid"]) == 3 and not found["composition"]


def test_the_order_of_the_paths_does_not_matter():
    assert three_level_split(PATHS[::-1], ["e"])["composition"] == three_level_split(PATHS, ["e"])["composition"]


def test_everything_held_out_is_a_mistake():
    with pytest.raises(BadData, match=r"none of 150 paths is without a relation that is held out \(a, b, c, d, e\)"):
        three_level_split(PATHS, set("abcde"))
