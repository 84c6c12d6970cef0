"""Merging in the factors gives what merging the full matrices would, in all its singular values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.compose.merge import merge, truncate
from skillweave.delta import Factors, LowRank
from skillweave.likeness import cosines

SHAPES = {"layers.0.q": (24, 40), "layers.0.o": (40, 24), "layers.1.q": (24, 40), "square": (30, 30)}


def made(seed, rank=4, slots=SHAPES, scale=0.5):
    draw = torch.Generator().manual_seed(seed)
    return LowRank(
        {
            slot: Factors(
                torch.randn(rank, SHAPES[slot][1], generator=draw), torch.randn(SHAPES[slot][0], rank, generator=draw), scale
            )
            for slot in slots
        }
    )


def exact(skills, weights, slot):
    """The oracle: every ΔW formed, in fp64."""
    parts = [(s.factors[slot], w) for s, w in zip(skills, weights, strict=True) if slot in s.factors]
    return sum(w * f.scale * f.b.double() @ f.a.double() for f, w in parts)


def relative(one, other):
    return ((one.double() - other).norm() / other.norm()).item()


seeds = st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True)
weight = st.floats(-2, 2, width=32).filter(lambda w: abs(w) > 0.05)


@settings(deadline=None, max_examples=40)
@given(seeds=seeds, data=st.data())
def test_the_exact_merge_is_the_sum(seeds, data):
    skills = [made(seed, rank=1 + seed % 5) for seed in seeds]
    weights = [data.draw(weight) for _ in seeds]
    merged = merge(skills, weights)
    assert merged.share == 1 and merged.residual == 0
    for slot, f in merged.skill.factors.items():
        assert relative(f.dense(), exact(skills, weights, slot)) < 1e-5
        assert f.rank == sum(s.factors[slot].rank for s in skills)


@settings(deadline=None, max_examples=40)
@given(seeds=seeds, rank=st.integers(1, 30), data=st.data())
def test_a_cut_merge_is_the_best_of_its_rank(seeds, rank, data):
    skills = [made(seed, rank=1 + seed % 9) for seed in seeds]
    weights = [data.draw(weight) for _ in seeds]
    merged = merge(skills, weights, rank)
    for slot, f in merged.skill.factors.items():
        whole = exact(skills, weights, slot)
        values = torch.linalg.svdvals(whole)
        best = (values[rank:].norm() / values.norm()).item()  # Eckart and Young
        assert relative(f.dense(), whole) == pytest.approx(best, abs=2e-6)
        assert f.rank == min(rank, sum(s.factors[slot].rank for s in skills), *SHAPES[slot])
        assert merged.layers[slot].share == pytest.approx(1 - best**2, abs=1e-6)
        assert merged.layers[slot].energy == pytest.approx(float(values.square().sum()), rel=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99, 1.0])
def test_the_energy_decides_the_rank(share):
    skills = [made(seed, rank=6) for seed in range(3)]
    merged = merge(skills, [1.0, 0.5, -0.7], share)
    for slot, kept in merged.layers.items():
        squares = torch.linalg.svdvals(exact(skills, [1.0, 0.5, -0.7], slot)).square()
        enough = int((squares.cumsum(0) / squares.sum() < share - 1e-9).sum()) + 1
        assert kept.rank == min(enough, 18) and kept.share >= share - 1e-9
    assert merged.residual == pytest.approx(math.sqrt(1 - merged.share), abs=1e-6)


def test_more_energy_never_takes_less_rank():
    f = made(3, rank=20).factors["square"]
    ranks = [truncate(f, share)[1].rank for share in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)]
    shares = [truncate(f, rank)[1].share for rank in range(1, 21)]
    assert ranks == sorted(ranks) and ranks[0] < ranks[-1] == 20
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)


def test_one_skill_is_itself():
    skill = made(1)
    for rank in (None, 4, 9, 1.0):
        merged = merge([skill], [1.0], rank).skill
        for slot, f in merged.factors.items():
            assert relative(f.dense(), exact([skill], [1.0], slot)) < 1e-6 and f.rank == 4


def test_order_does_not_matter():
    skills, weights = [made(seed, rank=2 + seed) for seed in range(4)], [0.3, -1.0, 2.0, 0.5]
    one, other = merge(skills, weights, 5), merge(skills[::-1], weights[::-1], 5)
    for slot, f in one.skill.factors.items():
        assert relative(f.dense(), other.skill.factors[slot].dense().double()) < 1e-5


def test_skills_of_different_layers():
    one, other = made(0, slots=["square", "layers.0.q"]), made(1, rank=2, slots=["layers.0.q", "layers.1.q"])
    merged = merge([one, other], [2.0, -1.0], 3).skill
    assert {slot: f.rank for slot, f in merged.factors.items()} == {"square": 3, "layers.0.q": 3, "layers.1.q": 2}
    assert relative(merged.factors["layers.1.q"].dense(), exact([other], [-1.0], "layers.1.q")) < 1e-6


def test_factors_whose_columns_depend_on_each_other():
    """A fresh LoRA has b = 0, and the same skill twice has every column twice."""
    skill = made(0, slots=["square"])
    fresh = LowRank({"square": Factors(torch.randn(3, 30), torch.zeros(30, 3))})
    merged = merge([skill, fresh, skill], [0.7, 1.0, 0.3], 1.0)
    assert merged.skill.factors["square"].rank == 4
    assert relative(merged.skill.factors["square"].dense(), exact([skill], [1.0], "square")) < 1e-6


def test_skills_that_cancel_leave_nothing():
    skill = made(0)
    merged = merge([skill, skill], [1.0, -1.0], 4)
    for slot, f in merged.skill.factors.items():
        assert f.rank >= 1 and f.dense().norm() < 1e-5 * skill.factors[slot].dense().norm()
    nothing = merge([skill], [0.0], 4)
    assert not any(f.dense().any() for f in nothing.skill.factors.values()) and nothing.share == 1


def test_more_ranks_than_the_layer_has():
    skills = [made(seed, rank=16, slots=["layers.0.q", "layers.0.o"]) for seed in range(4)]
    merged = merge(skills, [1.0] * 4, 1.0)
    for slot, f in merged.skill.factors.items():
        assert f.rank == 24 and relative(f.dense(), exact(skills, [1.0] * 4, slot)) < 1e-5


def test_singular_values_are_shared_by_both_factors():
    f = merge([made(0), made(1)], [1.0, 1.0], 3).skill.factors["square"]
    assert torch.allclose(f.a.square().sum(1), f.b.square().sum(0), rtol=1e-4)
    assert torch.allclose(f.b.t() @ f.b, torch.diag(f.b.square().sum(0)), atol=1e-3)


def test_cosines_are_those_of_the_full_matrices():
    skills = [made(0), made(1, rank=2, slots=["square"]), made(0).scaled(-3.0), LowRank({})]
    flat = []
    for skill in skills:
        parts = [exact([skill], [1.0], slot) if slot in skill.factors else torch.zeros(SHAPES[slot]) for slot in SHAPES]
        flat.append(torch.cat([part.flatten().double() for part in parts]))
    for i, one in enumerate(flat):
        for j, other in enumerate(flat):
            wanted = (one @ other / (one.norm() * other.norm())).item() if one.any() and other.any() else 0.0
            assert cosines(skills)[i, j].item() == pytest.approx(wanted, abs=1e-6)
            assert skills[i].inner(skills[j]) == pytest.approx((one @ other).item(), rel=1e-5, abs=1e-4)
    assert skills[0].energy == pytest.approx((flat[0] @ flat[0]).item(), rel=1e-6)
