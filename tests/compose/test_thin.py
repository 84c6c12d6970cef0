"""Each way of thinning out is held against its paper's definition, written out over the full matrices."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.compose.merge import cut_dense
from skillweave.compose.sum import Subtract, Sum
from skillweave.compose.thin import (
    Breadcrumbs,
    Dare,
    Della,
    Knots,
    Magnitude,
    Ties,
    band,
    drop,
    elected,
    magprune,
    threshold,
    trim,
)
from skillweave.delta import Factors, LowRank
from skillweave.errors import BadOption

SHAPES = {"one": (12, 20), "two": (20, 12)}


def made(seed, rank=4, slots=SHAPES, scale=0.5):
    draw = torch.Generator().manual_seed(seed)
    shape = {slot: SHAPES[slot] for slot in slots}
    return LowRank(
        {
            s: Factors(torch.randn(rank, n, generator=draw), torch.randn(m, rank, generator=draw), scale)
            for s, (m, n) in shape.items()
        }
    )


def flat(skill):
    return np.concatenate([skill.factors[slot].dense().numpy().ravel() for slot in SHAPES if slot in skill.factors])


def ties(vectors, density, weights):
    """TIES on flat vectors, step by step as in the paper: trim each, elect signs by the sum, mean of those that agree."""
    trimmed = []
    for vector, weight in zip(vectors, weights, strict=True):
        order = np.argsort(-np.abs(vector))[: round(density * len(vector))]
        kept = np.zeros_like(vector)
        kept[order] = vector[order]
        trimmed.append(kept * weight)
    out = np.zeros_like(vectors[0])
    for i in range(len(out)):
        entries = [t[i] for t in trimmed]
        sign = np.sign(sum(entries))
        agreeing = [e for e in entries if e != 0 and np.sign(e) == sign]
        out[i] = np.mean(agreeing) if agreeing else 0.0
    return out


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 2.0, -1.0]])
def test_ties_is_the_papers(density, weights):
    skills = [made(seed) for seed in range(3)]
    merged = Ties(tuple(weights), energy=1.0, density=density).merge(skills)
    assert np.allclose(flat(merged.skill), ties([flat(s) for s in skills], density, weights), atol=1e-5)


def test_the_threshold_of_a_layer_is_its_own():
    big = LowRank({s: Factors(f.a, f.b, f.scale * (100 if s == "one" else 1)) for s, f in made(0).factors.items()})
    whole = Magnitude(energy=1.0, density=0.5).merge([big]).skill
    each = Magnitude(energy=1.0, density=0.5, scope="layer").merge([big]).skill
    assert float((whole.factors["two"].dense().abs() > 1e-5).float().mean()) < 0.1
    assert float((each.factors["two"].dense().abs() > 1e-5).float().mean()) == pytest.approx(0.5, abs=0.01)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 999), density=st.floats(0.001, 1.0), spread=st.floats(-20, 20))
def test_the_threshold_is_exact(seed, density, spread):
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randn(7, 11, generator=draw) * 2.0**spread, torch.randn(5, 3, generator=draw), torch.zeros(4, 4)]
    sizes = np.sort(np.concatenate([part.abs().numpy().ravel() for part in parts]))[::-1]
    wanted = round(density * len(sizes))
    assert threshold(lambda: parts, density) == (sizes[wanted - 1] if wanted else np.inf)


def test_dropping_keeps_the_mean():
    change, draw = torch.randn(200, 300, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    left = drop(change, 0.3, draw)
    assert float((left != 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.allclose(left[left != 0], change[left != 0] / 0.3)
    mean = sum(drop(change[:20, :20], 0.3, draw) for _ in range(3000)) / 3000
    assert (mean - change[:20, :20]).abs().mean() < 0.05


def test_magprune_keeps_the_large_more_often_and_the_mean():
    row = torch.linspace(0.1, 1.0, 10)[torch.randperm(10, generator=torch.Generator().manual_seed(0))][None]
    draw = torch.Generator().manual_seed(1)
    runs = torch.cat([magprune(row, 0.5, 0.2, draw) for _ in range(20000)])
    kept = (runs != 0).float().mean(0)[row[0].argsort()]
    assert torch.allclose(kept, torch.linspace(0.3, 0.7, 10), atol=0.02)
    assert torch.allclose(runs.mean(0), row[0], rtol=0.05)


def test_a_band_leaves_out_both_ends():
    change = torch.arange(1.0, 101.0).view(10, 10) * torch.tensor([1.0, -1.0]).repeat(5)
    left = band(change, 0.6, 0.1)
    assert sorted(left[left != 0].abs().tolist()) == list(range(31, 91))
    assert (band(change, 0.6, 0.0) != 0).sum() == 60 and band(change, 0.6, 0.0).abs().max() == 100


def test_election_counts_only_those_who_agree():
    stack = torch.tensor([[[3.0, 1.0, 0.0]], [[-1.0, 2.0, 0.0]], [[0.0, 6.0, -4.0]], [[1.0, -1.0, 0.0]]])
    assert elected(stack).tolist() == [[2.0, 3.0, -4.0]]


def test_knots_is_ties_in_the_common_basis():
    """The oracle forms [ΔW_1 ΔW_2 …] and takes its SVD in fp64."""
    skills = [made(seed, rank=2) for seed in range(3)]
    merged = Knots(energy=1.0, density=0.3, scope="layer").merge(skills).skill
    for slot in SHAPES:
        u, _, _ = np.linalg.svd(
            np.concatenate([s.factors[slot].dense().double().numpy() for s in skills], 1), full_matrices=False
        )
        u = u[:, :6]
        seen = [(u.T @ s.factors[slot].dense().double().numpy()) for s in skills]
        voted = ties([x.ravel() for x in seen], 0.3, [1.0] * 3).reshape(seen[0].shape)
        assert np.allclose(merged.factors[slot].dense(), u @ voted, atol=1e-4)
        assert merged.factors[slot].rank <= 6


@pytest.mark.parametrize("way", [Magnitude, Dare, partial(Breadcrumbs, outliers=0.0)])
def test_everything_stays_at_density_one(way):
    skills = [made(0), made(1, rank=2, slots=["two"])]
    merged = way((0.5, -2.0), energy=1.0, density=1.0).merge(skills).skill
    assert torch.allclose(merged.factors["one"].dense(), 0.5 * skills[0].factors["one"].dense(), atol=1e-5)
    two = 0.5 * skills[0].factors["two"].dense() - 2 * skills[1].factors["two"].dense()
    assert torch.allclose(merged.factors["two"].dense(), two, atol=1e-5)


def test_the_seed_decides():
    skills = [made(0), made(1)]
    one, again, other = (Dare().merge(skills, seed).skill for seed in (3, 3, 4))
    assert torch.equal(one.factors["one"].a, again.factors["one"].a)
    assert not torch.equal(one.factors["one"].dense(), other.factors["one"].dense())


@pytest.mark.parametrize(("options", "most"), [({}, 8), ({"rank": 3}, 3), ({"energy": 1.0}, 12)])
def test_the_rank_that_is_kept(options, most):
    merged = Magnitude(density=0.5, **options).merge([made(0), made(1)])
    assert {f.rank for f in merged.skill.factors.values()} == {most}
    assert merged.share == pytest.approx(1.0) if "energy" in options else 0.2 < merged.share < 1


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)])
def test_a_dense_change_is_cut_at_its_best(shape):
    change = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(change)
    for rank in (1, 3, 5):
        f, kept = cut_dense(change, rank)
        assert f.rank == rank == kept.rank
        assert float((f.dense() - change).norm()) == pytest.approx(float(values[rank:].norm()), abs=1e-5)
        assert kept.share == pytest.approx(float(values[:rank].square().sum() / values.square().sum()), abs=1e-6)
    assert not cut_dense(torch.zeros(shape), 3)[0].dense().any()


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (Ties(density=0.0), "density is 0"),
        (Dare(density=1.5), "density is 1.5"),
        (Della(density=0.2, window=0.3), "window is 0.3, but at density 0.2 it can be at most 0.2"),
        (Breadcrumbs(density=0.9, outliers=0.2), "outliers is 0.2"),
        (Magnitude(scope="block"), "scope is `block`"),
        (Ties((1.0, 2.0)), "2 weights were given for 1 skills"),
        (Sum(rank=4, energy=0.5), "both rank 4 and energy 0.5"),
        (Sum(rank=-1), "rank is -1"),
        (Sum(energy=1.5), "energy is 1.5"),
        (Subtract((1.0,)), "subtract takes no weights"),
    ],
)
def test_numbers_that_cannot_be(way, words):
    with pytest.raises(BadOption, match=words):
        way.merge([made(0)])


def test_subtraction_takes_the_others_away():
    one, two = made(0), made(1)
    left = Subtract(strength=0.5).merge([one, two]).skill.factors["one"].dense()
    assert torch.allclose(left, one.factors["one"].dense() - 0.5 * two.factors["one"].dense(), atol=1e-5)
    assert torch.allclose(Subtract().merge([one]).skill.factors["one"].dense(), -one.factors["one"].dense(), atol=1e-5)


def test_trim_keeps_what_reaches():
    assert trim(torch.tensor([[1.0, -2.0, 0.5]]), 1.0).tolist() == [[1.0, -2.0, 0.0]]
