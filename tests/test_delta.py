"""The algebra of low-rank changes is exact."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.delta import Factors, LowRank, weighted_sum


def change(f):
    return f.scale * f.b.double() @ f.a.double()


def made(draw, slots, rank, scale):
    return LowRank(
        {slot: Factors(torch.randn(rank, 4, generator=draw), torch.randn(3, rank, generator=draw), scale) for slot in slots}
    )


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 9),
    ranks=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    weights=st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
)
def test_a_weighted_sum_is_the_sum_of_the_changes(seed, ranks, weights):
    draw = torch.Generator().manual_seed(seed)
    parts = [made(draw, ["x", "y"] if k % 2 == 0 else ["y", "z"], rank, 0.5 + k) for k, rank in enumerate(ranks)]
    total = weighted_sum([(p, {slot: w for slot in p.factors}) for p, w in zip(parts, weights, strict=False)])
    assert set(total.factors) == {slot for part in parts for slot in part.factors}
    for slot, f in total.factors.items():
        here = [(p.factors[slot], w) for p, w in zip(parts, weights, strict=False) if slot in p.factors]
        assert f.rank == sum(one.rank for one, _ in here)
        assert torch.allclose(change(f), sum(w * change(one) for one, w in here), rtol=1e-6, atol=1e-5)


def test_the_weight_is_that_of_the_layer():
    part = made(torch.Generator().manual_seed(0), ["x", "y"], 2, 1.0)
    total = weighted_sum([(part, {"x": 2.0, "y": 0.0})])
    assert torch.allclose(change(total.factors["x"]), 2 * change(part.factors["x"]))
    assert not change(total.factors["y"]).any()


def test_counts():
    part = LowRank({"x": Factors(torch.zeros(2, 4), torch.zeros(3, 2)), "y": Factors(torch.zeros(5, 4), torch.zeros(3, 5))})
    assert (part.rank, part.parameters) == (5, 2 * 7 + 5 * 7)
    assert list(part.tensors()) == ["x.a", "x.b", "y.a", "y.b"]
    assert LowRank({}).rank == 0


def test_a_fresh_skill_changes_nothing_and_can_learn(tiny):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, again, other = (LowRank.fresh(tiny, 4, 2.0, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert set(one.factors) == set(tiny.linears)
    for slot, f in one.factors.items():
        bound = tiny.linears[slot].in_features ** -0.5
        assert (f.rank, f.scale) == (4, 2.0)
        assert not f.b.any()
        assert bound / 2 < f.a.abs().max() <= bound
        assert f.a.requires_grad and f.b.requires_grad
        assert torch.equal(f.a, again.factors[slot].a) and not torch.equal(f.a, other.factors[slot].a)


def test_detached_factors_do_not_learn(tiny):
    loose = LowRank.fresh(tiny, 2, 1.0, 0).detach()
    assert not any(tensor.requires_grad for tensor in loose.tensors().values())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_sums_are_kept_in_single_precision(kind):
    part = LowRank({"x": Factors(torch.ones(1, 4, dtype=kind), torch.ones(3, 1, dtype=kind), 1.001)})
    f = weighted_sum([(part, {"x": 1.0})]).factors["x"]
    assert f.a.dtype == f.b.dtype == torch.float32
    assert torch.allclose(change(f), torch.tensor(1.001, dtype=torch.float64))
