"""Changes that know nothing: as long as a skill in each layer, and in no direction of its own."""

from dataclasses import replace

import pytest

from skillweave.delta import LowRank
from skillweave.learn.full import moved
from skillweave.likeness import as_long, cosines, permuted


@pytest.fixture(scope="module")
def skill(tiny):
    """One that changes every layer."""
    fresh = LowRank.fresh(tiny, 4, 2.0, 0).detach()
    return LowRank({slot: replace(f, b=f.b + 0.1) for slot, f in fresh.factors.items()})


def test_chance_has_the_length_of_a_skill_in_each_layer(skill):
    other = as_long(skill, 1)
    assert other.slots == skill.slots and len(skill.slots) > 5
    for slot, f in skill.factors.items():
        one = other.factors[slot]
        assert one.inner(one) == pytest.approx(f.inner(f)) and one.rank == f.rank
    assert abs(cosines([skill, other])[0, 1].item()) < 0.2
    assert other.energy == as_long(skill, 1).energy and cosines([other, as_long(skill, 2)])[0, 1] < 0.2


def test_a_permuted_change_has_the_same_entries_elsewhere(skill):
    mixed = permuted(skill, 0)
    assert mixed.slots == skill.slots and abs(cosines([skill, mixed])[0, 1].item()) < 0.5
    for slot in skill.slots:
        before, after = (one.dense(slot).flatten().sort().values for one in (skill, mixed))
        assert (before == after).all() and not (skill.dense(slot) == mixed.dense(slot)).all()


def test_a_base_that_has_not_moved_has_no_change(tiny):
    assert moved(tiny, tiny).energy == 0 and set(moved(tiny, tiny).slots) == set(tiny.linears)
