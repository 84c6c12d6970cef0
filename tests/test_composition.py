"""A composition computes the same merged into one skill as it does in a bank."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.composition import NEW, Composition, load_parts, save_parts
from skillweave.delta import LowRank
from skillweave.delta_full import Dense, Sparse
from skillweave.errors import BadName
from skillweave.skill import check_name

TOKENS = torch.tensor([[1, 20, 30, 40, 50], [1, 9, 8, 7, 6]])


@pytest.fixture
def skills(tiny, random_skill):
    some = list(tiny.linears)[3:9]
    return {"a": random_skill(tiny, 1, 2), "b": random_skill(tiny, 2, 3, some), "unused": random_skill(tiny, 3, 1)}


@pytest.fixture
def alpha(tiny):
    return torch.rand(2, tiny.layers, generator=torch.Generator().manual_seed(4)) * 2 - 0.5


@pytest.mark.parametrize("new", [False, True])
def test_merged_equals_the_bank(tiny, random_skill, skills, alpha, new):
    woven = Composition(("b", "a"), alpha, random_skill(tiny, 9, 4) if new else None)
    bank, strength = woven.bank(tiny, skills)
    with bank.on(strength):
        weights = tiny.hidden(TOKENS)
    merged = woven.merged(tiny, skills)
    with SkillBank(tiny, {"merged": merged}).on():
        assert torch.allclose(tiny.hidden(TOKENS), weights, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(tiny.hidden(TOKENS), weights, atol=1e-2)
    assert merged.rank == 2 + 3 + 4 * new


def test_new_weights_are_at_full_strength(tiny, random_skill, skills, alpha):
    bank, strength = Composition(("a", "b"), alpha, random_skill(tiny, 9, 4)).bank(tiny, skills)
    assert bank.names == ("a", "b", NEW)
    assert torch.equal(strength, torch.cat([alpha, torch.ones(1, tiny.layers)]))


def test_no_skill_can_be_called_as_the_new_weights_are():
    with pytest.raises(BadName):
        check_name(NEW)


def test_parts_of_every_kind_come_back_as_they_were(tiny, skills, tmp_path):
    slot, f = next(iter(skills["b"].factors.items()))
    sparse = Sparse(torch.tensor([0, 5]), torch.tensor([0.5, -2.0]), f.shape, 0.5)
    parts = {
        "a": skills["a"],
        "dense": LowRank({}, full={slot: Dense(f.dense())}),
        "both": LowRank({slot: f}, full={slot: sparse}),
    }
    save_parts(tmp_path, tiny, parts)
    again = load_parts(tmp_path, tuple(parts))
    for name, skill in parts.items():
        for slot in (*skill.factors, *skill.full):
            whole, read = (sum(part.dense() for part in one.parts(slot)) for one in (skill, again[name]))
            assert torch.allclose(whole, read, atol=1e-6) and whole.abs().max() > 0.01, (name, slot)
    assert set(again["both"].full) == set(again["both"].factors) == {slot} and set(again["dense"].factors) == set()
