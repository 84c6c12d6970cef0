"""Full fine-tuning: the whole change of the linear layers, and of nothing else."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.delta_full import Dense
from skillweave.errors import BadOption
from skillweave.learn import full
from skillweave.learn.full import Full
from skillweave.learn.loss import forced, mean_loss
from skillweave.learn.pretrain import thawed
from skillweave.task import Example

EXAMPLES = [Example(f"say {c}\n", c * 2) for c in "abcdefgh"]


@pytest.mark.parametrize(("optimiser", "lr"), [("adamw", 1e-2), ("sgd", 0.3)])
def test_it_learns_what_the_bank_then_does(loud, optimiser, lr):
    base = loud()
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    skill, log = Full(steps=60, lr=lr, optimiser=optimiser).fit(base, EXAMPLES, 0)
    assert not skill.factors and set(skill.full) == set(base.linears)
    assert all(isinstance(part, Dense) and part.values.abs().max() > 0 for part in skill.full.values())
    bank = SkillBank(base, {"a": skill})
    assert log.loss[-1] < log.loss[0] / 2 and mean_loss(bank, EXAMPLES) < log.loss[0] / 2
    assert all(torch.equal(before[name], weight) for name, weight in base.model.named_parameters())
    assert not any(part.values.requires_grad for part in skill.full.values())


def test_the_change_is_the_difference_of_the_weights_and_nothing_else_moves(loud, monkeypatch):
    base, made = loud(), []
    monkeypatch.setattr(full, "thawed", lambda base: made.append(thawed(base)) or made[-1])
    skill, _ = Full(steps=3, lr=1e-2).fit(base, EXAMPLES, 0)
    tuned, before = dict(made[0].model.named_parameters()), dict(base.model.named_parameters())
    linears = {f"{slot}.weight": slot for slot in base.linears}
    assert set(linears) < set(before) == set(tuned)
    for name, weight in tuned.items():
        change = skill.dense(linears[name]) if name in linears else torch.zeros_like(weight)
        assert torch.equal(weight.detach() - before[name], change)
    right, nats = forced(SkillBank(base, {"a": skill}), EXAMPLES)
    assert len(right) == 8 and sum(nats) / 24 == pytest.approx(mean_loss(SkillBank(made[0], {}), EXAMPLES), rel=1e-3)


def test_same_seed_same_run(loud):
    one, again, other = (Full(steps=2, batch=3).fit(loud(), EXAMPLES, seed)[1].loss for seed in (0, 0, 1))
    assert one == again != other


def test_adamw_spreads_the_change_and_plain_steps_do_not(loud):
    base = loud()

    def share(optimiser, lr):
        skill, _ = Full(steps=40, lr=lr, optimiser=optimiser).fit(base, EXAMPLES, 0)
        squares = torch.cat([skill.dense(slot).flatten().square() for slot in skill.slots]).sort(descending=True).values
        return float(squares[: len(squares) // 100].sum() / squares.sum())

    assert share("sgd", 0.1) > 2 * share("adamw", 1e-3)


def test_an_unknown_optimiser_is_said(loud):
    with pytest.raises(BadOption, match="optimiser is `adam`, but can only be adamw or sgd"):
        Full(optimiser="adam").fit(loud(), EXAMPLES, 0)


def test_an_interrupted_run_goes_on_bit_for_bit(loud, stopped):
    method = Full(steps=5)
    whole, _ = method.fit(loud(), EXAMPLES, 0)
    again, _ = stopped(full, lambda run: method.fit(loud(), EXAMPLES, 0, run))
    assert all(torch.equal(whole.dense(slot), again.dense(slot)) for slot in whole.slots)


def test_it_is_a_skill_of_the_library(cli, tmp_path):
    library = ("--library", tmp_path / "library")
    said = cli("learn", "copy", "--task", "copy", "--method", "full", "--base", "tiny", "--steps", 2, *library)
    assert said.code == 0, said.err
    assert (tmp_path / "library" / "copy" / "delta.safetensors").is_file()
    assert cli("run", "copy", "abc", *library).code == 0
