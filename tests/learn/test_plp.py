"""Partly learnable projections: nothing at the start, half of each factor for ever, the other side ten times slower."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from skillweave.bank import SkillBank
from skillweave.delta import Factors, LowRank, Replacement
from skillweave.errors import BadOption
from skillweave.learn import plp
from skillweave.learn.loop import Plan, Run
from skillweave.learn.loss import mean_loss
from skillweave.learn.plp import PLP, SIDES, assembled, fresh, taken_apart
from skillweave.peft_format import load_adapter, save_adapter
from skillweave.task import Example

FOUR = [Example(f"say {c}\n", c * (3 + i)) for i, c in enumerate("abcd")]
OTHERS = [Example(f"tell {c}\n", c.upper()) for c in "efgh"]
QUICK = PLP(steps=60, batch=4, lr=2e-2, rank=4)


@pytest.fixture(scope="module")
def learned(loud):
    return {side: PLP(side, 60, 4, 2e-2, rank=4).fit(loud(), FOUR, 0) for side in SIDES}


def test_the_start_is_no_change_at_all(loud):
    base = loud()
    skill = assembled(fresh(base, 4, 0), 2.0)
    assert len(skill.factors) == len(base.linears) and skill.rank == 8
    shapes = {(f.b.shape[0], f.a.shape[1]) for f in skill.factors.values()}
    assert any(outside != inside for outside, inside in shapes), "no layer here that is not square"
    for f in skill.factors.values():
        assert f.a.abs().sum() > 0 and f.b.abs().sum() > 0
        assert torch.equal(f.dense(), torch.zeros(f.b.shape[0], f.a.shape[1]))
    tokens = torch.arange(4, 60)[None]
    alone = base.hidden(tokens)
    with SkillBank(base, {"new": skill}).on(), torch.no_grad():
        assert torch.equal(base.hidden(tokens), alone)


def test_it_is_the_change_of_the_paper(loud):
    """scale (B A - B0 A0), with A0 and B0 where the two factors start."""
    halves = fresh(loud(), 4, 0)
    draw = torch.Generator().manual_seed(1)
    for half in halves.values():
        half.down.data.normal_(generator=draw), half.up.data.normal_(generator=draw)
    for slot, f in assembled(halves, 0.5).detach().factors.items():
        half = halves[slot]
        start = torch.cat([half.top, torch.zeros_like(half.up)]) @ half.start
        pair = half.pair()
        assert torch.allclose(f.dense(), 0.5 * (pair.b @ pair.a - start), atol=1e-5)
        assert pair.a.shape[0] == 4 and not torch.allclose(f.dense(), 0.5 * (pair.b @ pair.a), atol=1e-2)


def test_frozen_halves_are_rows_of_one_orthogonal_basis(loud):
    for half in fresh(loud(), 4, 7).values():
        width = half.start.shape[1] - half.down.shape[1]
        assert (width, len(half.top)) == (half.start.shape[1] // 2, (len(half.top) + len(half.up)) // 2)
        rows = torch.cat([half.start[:, :width].t(), half.top])
        assert torch.allclose(rows.t() @ rows, torch.eye(4), atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_frozen_halves_stay_bit_for_bit(loud, learned, side, tmp_path):
    """In the file that is written, too."""
    skill, _ = learned[side]
    save_adapter(tmp_path, skill, "tiny")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    moved = 0
    for slot, half in fresh(loud(), 4, 0).items():
        a, b = (tensors[f"base_model.model.{slot}.lora_{which}.weight"] for which in "AB")
        width, above = half.start.shape[1] - half.down.shape[1], len(half.top)
        assert torch.equal(a[4:], half.start) and not a[:4, :width].any()
        assert torch.equal(b[:above, :4], half.top) and not b[:above, 4:].any()
        moved += bool(a[:4, width:].any() and b[above:].any())
    assert moved == len(loud().linears)


def test_it_learns_and_the_other_side_hardly_moves(loud, learned):
    for side, other in (SIDES, SIDES[::-1]):
        skill, log = learned[side]
        assert log.loss[0] > 2 and log.loss[-1] < 0.5
        bank = SkillBank(loud(), {"new": skill})
        assert mean_loss(bank, FOUR) < 0.5
        halves = taken_apart("one", skill).values()
        far = {name: sum(half.sides[name].abs().max().item() for half in halves) for name in SIDES}
        assert far[other] < far[side] / 3
    weak = PLP(steps=3, weak=0.0, lr=1e-2, rank=4).fit(loud(), FOUR, 0)[0]
    assert not any(half.up.any() for half in taken_apart("one", weak).values())


def test_others_teach_the_other_side_alone(loud):
    """With others, the side follows the examples' gradient alone, and its partner that of the others."""
    step = PLP(steps=1, batch=4, lr=1e-2, weak=1.0, rank=4)
    one, alone = (taken_apart("one", step.fit(loud(), FOUR, 0, others=others)[0]) for others in (OTHERS, ()))
    other = taken_apart("one", PLP("up", 1, 4, 1e-2, 1.0, 4).fit(loud(), OTHERS, 0)[0])
    signs = 0
    for slot, half in one.items():
        assert torch.equal(half.down.sign(), alone[slot].down.sign()) and torch.equal(half.up.sign(), other[slot].up.sign())
        signs += int((half.up.sign() != alone[slot].up.sign()).sum())
    assert signs > 100, "the two sets of examples ask for the same, so this test shows nothing"
    log = step.fit(loud(), FOUR, 0, others=OTHERS)[1]
    assert log.loss == pytest.approx(step.fit(loud(), FOUR, 0)[1].loss)


def test_same_seed_same_bits_and_one_basis_for_all_seeds(loud, learned):
    skill, log = PLP("down", 60, 4, 2e-2, rank=4).fit(loud(), FOUR, 0)
    other, _ = PLP("down", 3, 4, 2e-2, rank=4).fit(loud(), FOUR, 1)
    another, _ = PLP("down", 3, 4, 2e-2, rank=4, basis=1).fit(loud(), FOUR, 0)
    assert log.loss == learned["down"][1].loss
    for slot, f in skill.factors.items():
        assert torch.equal(f.a, learned["down"][0].factors[slot].a)
        assert torch.equal(f.a[4:], other.factors[slot].a[4:]) and not torch.equal(f.a[4:], another.factors[slot].a[4:])


@pytest.mark.parametrize("others", [(), OTHERS], ids=["alone", "others"])
def test_an_interrupted_run_gives_the_same_bits(loud, tmp_path, monkeypatch, others):
    def tick(steps, note):
        ticks.append(steps)
        if len(ticks) in (5, 13):
            raise KeyboardInterrupt

    quick = PLP(steps=20, batch=3, lr=2e-2, rank=4)
    whole, log = quick.fit(loud(), FOUR, 0, others=others)
    monkeypatch.setattr(plp, "Plan", partial(Plan, save_every=0.0))
    ticks = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            quick.fit(loud(), FOUR, 0, Run(tmp_path / "state", "key", tick), others)
    skill, again = quick.fit(loud(), FOUR, 0, Run(tmp_path / "state", "key", tick), others)
    assert ticks[5] >= 4 and log.loss == again.loss
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors().values(), skill.tensors().values(), strict=True))


def test_it_comes_apart_again(loud, learned, tmp_path):
    skill, _ = learned["up"]
    save_adapter(tmp_path, skill, "tiny")
    halves = taken_apart("one", load_adapter(tmp_path))
    for slot, f in assembled(halves, 2.0).factors.items():
        assert torch.equal(f.a, skill.factors[slot].a) and torch.equal(f.b, skill.factors[slot].b)


def spoilt(how):
    a, b = torch.zeros(4, 6), torch.zeros(6, 4)
    a[2:], b[:3, :2], b[3:] = 1.0, 1.0, 0.5
    if how == "odd":
        a, b = a[:3], b[:, :3]
    elif how == "a":
        a[0, 0] = 1e-9
    elif how == "b":
        b[0, 3] = 1e-9
    elif how == "copy":
        b[4, 0] = 0.25
    replaced = {"layer.weight": Replacement(torch.zeros(6, 6))} if how == "replaced" else {}
    return LowRank({"layer": Factors(a, b, 1.0, torch.zeros(6) if how == "bias" else None)}, replaced)


@pytest.mark.parametrize("how", ["odd", "a", "b", "copy", "bias", "replaced"])
def test_another_skill_does_not_come_apart(how):
    assert taken_apart("one", spoilt("not at all"))["layer"].up.shape == (3, 2)
    with pytest.raises(BadOption, match="`one` is not a skill of frozen and learned halves.*--method plp"):
        taken_apart("one", spoilt(how))


def test_what_cannot_be_is_said(loud):
    with pytest.raises(BadOption, match="side is `left`, but can only be down or up"):
        PLP("left").fit(loud(), FOUR, 0)
    with pytest.raises(BadOption, match=r"rank is 33, but half of .* has 32 rows and columns"):
        PLP(rank=33).fit(loud(), FOUR, 0)
