"""Dense and sparse changes: every operation gives what the same operation on the whole matrices gives, across all kinds."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.compose.merge import merge
from skillweave.delta import Factors, LowRank, check_alike, weighted_sum
from skillweave.delta_full import Dense, Sparse, added
from skillweave.errors import BadOption, BaseMismatch
from skillweave.likeness import cosines, inners

SHAPE = (5, 7)
KINDS = ("factors", "dense", "sparse", "empty", "both")


def part(kind: str, draw: torch.Generator):
    """One change of SHAPE."""
    if kind == "factors":
        return Factors(torch.randn(2, 7, generator=draw), torch.randn(5, 2, generator=draw), 0.7)
    if kind == "dense":
        return Dense(torch.randn(SHAPE, generator=draw), -1.5)
    count = 0 if kind == "empty" else 9
    index = torch.randperm(35, generator=draw)[:count].sort().values
    return Sparse(index.int() if count % 2 else index, torch.randn(count, generator=draw), SHAPE, 2.0)


def skill(kind: str, seed: int, slots=("x",)) -> LowRank:
    """A skill whose changes are of one kind; `both` has factors and entries in each layer."""
    draw = torch.Generator().manual_seed(seed)
    kinds = ("factors", "sparse") if kind == "both" else (kind,)
    made = {one: {slot: part(one, draw) for slot in slots} for one in kinds}
    return LowRank(made.pop("factors", {}), full=next(iter(made.values()), {}))


def whole(one: LowRank, slot="x") -> torch.Tensor:
    """ΔW from the definition of each kind, entry by entry."""
    total = torch.zeros(SHAPE, dtype=torch.float64)
    if slot in one.factors:
        f = one.factors[slot]
        total += f.scale * f.b.double() @ f.a.double()
    if slot in one.full and isinstance(one.full[slot], Dense):
        total += one.full[slot].scale * one.full[slot].values.double()
    elif slot in one.full:
        for place, value in zip(one.full[slot].index.tolist(), one.full[slot].values.tolist(), strict=True):
            total[place // 7, place % 7] += one.full[slot].scale * value
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_what_it_says(kind):
    one, places = skill(kind, 0), torch.tensor([0, 3, 8, 20, 34])
    assert one.slots == ["x"] and {p.shape for p in one.parts("x")} == {SHAPE}
    assert torch.allclose(one.dense("x").double(), whole(one), atol=1e-5)
    picked = one.masked({"x": places})
    assert torch.allclose(whole(picked).flatten()[places], whole(one).flatten()[places], atol=1e-5)
    assert not whole(picked).flatten()[torch.isin(torch.arange(35), places, invert=True)].any()
    assert torch.allclose(whole(one.scaled(-3.0)), -3 * whole(one), atol=1e-5)
    assert one.energy == pytest.approx(float(whole(one).square().sum()), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("first", "second"), list(product(KINDS, KINDS)))
def test_inner_products_hold_between_all_kinds(first, second):
    one, other = skill(first, 1), skill(second, 2)
    wanted = float((whole(one) * whole(other)).sum())
    assert one.inner(other) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert one.inner(other) == pytest.approx(other.inner(one), rel=1e-5, abs=1e-6)
    gram = inners([one, other])
    assert [gram[0, 1].item(), gram[1, 0].item()] == pytest.approx([wanted, wanted], rel=1e-4, abs=1e-4)
    assert gram.diagonal().tolist() == pytest.approx([one.energy, other.energy], rel=1e-4)


def test_cosines_look_at_all_layers_of_all_kinds():
    skills = [skill("both", 1, ("x", "y")), skill("dense", 2, ("y",)), skill("empty", 3), skill("factors", 4, ("x",))]
    flat = [torch.cat([whole(one, slot).flatten() for slot in ("x", "y")]) for one in skills]
    for i, j in product(range(4), range(4)):
        size = float(flat[i].norm() * flat[j].norm())
        wanted = float(flat[i] @ flat[j]) / size if size else 0.0
        assert cosines(skills)[i, j].item() == pytest.approx(wanted, abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    weights=st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    seed=st.integers(0, 5),
)
def test_a_weighted_sum_is_the_sum_of_the_changes(kinds, weights, seed):
    skills = [skill(kind, 10 * seed + k, ("x", "y") if k % 2 else ("y",)) for k, kind in enumerate(kinds)]
    total = weighted_sum([(one, dict.fromkeys(one.slots, w)) for one, w in zip(skills, weights, strict=False)])
    assert set(total.slots) == {slot for one in skills for slot in one.slots}
    for slot in total.slots:
        wanted = sum((w * whole(one, slot) for one, w in zip(skills, weights, strict=False)), torch.zeros(SHAPE).double())
        assert torch.allclose(whole(total, slot), wanted, rtol=1e-4, atol=1e-4)
        if slot in total.full and isinstance(total.full[slot], Sparse):
            assert (total.full[slot].index.diff() > 0).all()


def test_a_sum_stays_sparse_as_long_as_all_parts_are():
    draw = torch.Generator().manual_seed(0)
    one, other, wide = part("sparse", draw), part("sparse", draw), part("dense", draw)
    both = added([(one, 1.0), (other, 0.5)])
    assert isinstance(both, Sparse) and isinstance(added([(one, 1.0), (wide, 1.0)]), Dense)
    assert set(both.index.tolist()) == {*one.index.tolist(), *other.index.tolist()}


@pytest.mark.parametrize("kind", ["dense", "sparse", "both"])
def test_merging_to_a_rank_is_the_best_that_rank_can_do(kind):
    one, other = skill(kind, 1), skill("factors", 2)
    total = whole(one) - 0.5 * whole(other)
    u, s, v = torch.linalg.svd(total)
    for rank in (1, 3):
        merged = merge([one, other], [1.0, -0.5], rank)
        best = u[:, :rank] * s[:rank] @ v[:rank]
        assert merged.skill.rank == rank and not merged.skill.full
        assert torch.allclose(whole(merged.skill), best, atol=1e-4)
        assert merged.share == pytest.approx(float(s[:rank].square().sum() / s.square().sum()), rel=1e-4)
    exact = merge([one, other], [1.0, -0.5])
    assert torch.allclose(whole(exact.skill), total, atol=1e-4) and exact.share == 1.0
    assert exact.layers["x"].energy == pytest.approx(float(total.square().sum()), rel=1e-4)


def test_what_cannot_be_done_is_said():
    one = skill("sparse", 0)
    with pytest.raises(BadOption, match="dense or sparse change .`x`. has no factors that this method could use"):
        one.check_factors()
    skill("factors", 0).check_factors()
    dora = LowRank({"x": Factors(torch.ones(1, 7), torch.ones(5, 1), magnitude=torch.ones(5))})
    with pytest.raises(BadOption, match="a DoRA adapter cannot be"):
        dora.masked({"x": torch.tensor([1])})
    odd = LowRank({}, full={"x": Dense(torch.zeros(5, 6))})
    with pytest.raises(BaseMismatch, match="`x` is 5 x 7 in a and 5 x 6 in b"):
        check_alike({"a": one, "b": odd})


def test_counts_and_detached():
    one = skill("both", 0, ("x", "y"))
    assert one.parameters == 2 * (2 * 12 + 9) and one.rank == 2
    values = torch.zeros(SHAPE, requires_grad=True)
    loose = LowRank({}, full={"x": Dense(values)}).detach()
    assert not loose.full["x"].values.requires_grad and values.requires_grad
