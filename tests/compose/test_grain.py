"""How finely strengths are learned: layouts, parts that add up, and what is written down."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.bank import SkillBank
from skillweave.compose.grain import Grain, blocks_of, cut, filled
from skillweave.compose.scales import Scales
from skillweave.delta import Factors, LowRank
from skillweave.errors import BadOption
from skillweave.peft_format import load_adapter
from skillweave.strength import PerBlock
from skillweave.task import Example

TOKENS = torch.tensor([[1, 20, 30, 40, 50], [1, 9, 8, 7, 6]])
Q0, UP1 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"
FEW = [Example(f"say {c}\n", c) for c in "abcd"]


def changes(skill):
    return {slot: f.dense() for slot, f in skill.factors.items()}


def close(one, other):
    assert set(one) == set(other)
    return all(torch.allclose(one[slot], other[slot], rtol=1e-4, atol=1e-5) for slot in one)


@settings(deadline=None, max_examples=15)
@given(parts=st.integers(2, 7), seed=st.integers(0, 99))
def test_the_parts_add_up(tiny, random_skill, parts, seed):
    skill = random_skill(tiny, seed, 5)
    pieces = cut(skill, parts, seed)
    assert len(pieces) == parts
    ranks = [[p.factors[slot].rank if slot in p.factors else 0 for p in pieces] for slot in skill.factors]
    assert all(sum(row) == 5 and max(row) - min(row) <= 1 for row in ranks)
    total = {slot: sum(p.factors[slot].dense() for p in pieces if slot in p.factors) for slot in skill.factors}
    assert close(total, changes(skill))


def test_parts_are_orthogonal_and_drawn(tiny, random_skill):
    skill = random_skill(tiny, 1, 4)
    one, two = cut(skill, 2, 0)
    assert abs(one.inner(two)) < 1e-4 * one.energy
    assert close(changes(one), changes(cut(skill, 2, 0)[0])) and not close(changes(one), changes(cut(skill, 2, 1)[0]))


def test_parts_are_the_skills_own_however_it_is_written(tiny, random_skill):
    """B M and M⁻¹ A are the same change, and give the same parts."""
    skill = random_skill(tiny, 1, 4, [Q0, UP1])
    m = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(4)
    other = LowRank({s: Factors(torch.linalg.inv(m) @ f.a, f.b @ m, f.scale) for s, f in skill.factors.items()})
    assert close(changes(skill), changes(other))
    for one, again in zip(cut(skill, 3, 5), cut(other, 3, 5), strict=True):
        assert close(changes(one), changes(again))


def test_what_is_no_product_of_factors_cannot_be_cut(tiny, random_skill):
    f = random_skill(tiny, 1, 2, [Q0]).factors[Q0]
    with pytest.raises(BadOption, match="a bias"):
        cut(LowRank({Q0: Factors(f.a, f.b, bias=torch.zeros(32))}), 2, 0)


@pytest.mark.parametrize(
    ("text", "shape"),
    [("global", (2, 1)), ("layer", (2, 3)), ("block", (2, 21)), ("partition:2", (4, 21)), ("partition:3", (6, 21))],
)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_every_layout_starts_as_the_sum_or_the_base(tiny, random_skill, text, shape, value):
    skills = {"a": random_skill(tiny, 1, 3), "b": random_skill(tiny, 2, 2)}
    grain = Grain.of(text, skills, 0)
    members = grain.members(skills)
    numbers = grain.start(members, tiny.layers, value)
    assert numbers.shape == shape
    with SkillBank(tiny, skills).on(torch.full((2,), value)):
        wanted = tiny.hidden(TOKENS)
    with SkillBank(tiny, members).on(grain.strengths(numbers, members, tiny.layers)):
        assert torch.allclose(tiny.hidden(TOKENS), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["blocks", "partition", "partition:0", "partition:1", "partition:x", "partition:-2", "", "Layer"]
)
def test_a_layout_that_there_is_not(tiny, random_skill, text):
    with pytest.raises(BadOption, match=f"granularity is `{text}`, but can only be global, layer, block, partition:K"):
        Grain.of(text, {"a": random_skill(tiny, 1, 3)}, 0)


def test_more_parts_than_there_are_directions(tiny, random_skill):
    with pytest.raises(BadOption, match="no skill has a rank above 3"):
        Grain.of("partition:4", {"a": random_skill(tiny, 1, 3), "b": random_skill(tiny, 1, 2)}, 0)


def test_where_a_skill_changes_nothing_it_has_its_mean(tiny, random_skill):
    members = {"a": random_skill(tiny, 1, 1, [Q0]), "b": random_skill(tiny, 1, 1, [Q0, UP1])}
    assert blocks_of(members) == (Q0, UP1)
    wanted = torch.tensor([[0.2, 0.2], [0.4, 0.6]])
    assert torch.equal(filled(torch.tensor([[0.2, 9.0], [0.4, 0.6]]), members), wanted)


@pytest.mark.parametrize("granularity", ["global", "layer", "block", "partition:2"])
@pytest.mark.parametrize("rank", [0, 2])
def test_used_merged_and_saved_are_one(tiny, random_skill, tmp_path, granularity, rank):
    skills = {"a": random_skill(tiny, 1, 3), "b": random_skill(tiny, 2, 1, [Q0, UP1])}
    woven, log = Scales(steps=3, batch=4, lr=0.1, granularity=granularity, rank=rank).fit(tiny, skills, FEW, 0)
    assert woven.skills == ("a", "b") and len(log.loss) == 3 and len(woven.strengths) == 2
    assert (woven.strengths != 1).any() and woven.strengths.std() > 0
    with woven.use(tiny, skills).on(["x", "y"]):
        wanted = tiny.hidden(TOKENS)
    woven.save(tmp_path, tiny, skills)
    for skill in (woven.merged(tiny, skills), load_adapter(tmp_path / "adapter", "ab")):
        with SkillBank(tiny, {"merged": skill}).on():
            assert torch.allclose(tiny.hidden(TOKENS), wanted, rtol=1e-4, atol=1e-5)
    assert woven.merged(tiny, skills).rank == 4 + rank
    about = json.loads((tmp_path / "composition.json").read_text())
    assert list(about["alpha"]) == ["a", "b"]
    if granularity == "partition:2":
        assert (about["parts"], about["seed"]) == (2, 0)
        assert {slot: len(parts) for slot, parts in about["alpha"]["b"].items()} == {Q0: 1, UP1: 1}  # rank one has one part
        assert set(map(len, about["alpha"]["a"].values())) == {2} and len(about["alpha"]["a"]) == 21


def test_one_number_a_skill_is_one_number(tiny, random_skill):
    woven, _ = Scales(steps=3, batch=4, lr=0.1, granularity="global").fit(tiny, {"a": random_skill(tiny, 1, 3)}, FEW, 0)
    assert woven.alpha.shape == (1, tiny.layers) and len(woven.alpha.unique()) == 1


def test_blocks_learn_apart(tiny, random_skill):
    woven, _ = Scales(steps=3, batch=4, lr=0.1, granularity="block").fit(tiny, {"a": random_skill(tiny, 1, 3)}, FEW, 0)
    assert isinstance(woven.alpha, PerBlock) and woven.alpha.blocks == tuple(tiny.linears)
    assert len(woven.alpha.alpha.unique()) > 10
