"""Joined factors: each skill's own half, none from skills that were not made for each other, a second stage that resumes."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.compose import factors
from skillweave.compose.factors import JoinFactors, join
from skillweave.delta import Factors, LowRank
from skillweave.errors import BadOption
from skillweave.learn.loop import Plan, Run
from skillweave.learn.loss import mean_loss
from skillweave.learn.plp import PLP, assembled, taken_apart
from skillweave.peft_format import load_adapter
from skillweave.skill import Skill
from skillweave.task import Example

ONE = [Example(f"say {c}\n", c * (3 + i)) for i, c in enumerate("ab")]
TWO = [Example(f"say {c}\n", c * (3 + i)) for i, c in enumerate("cd")]
BOTH = ONE + TWO
TUNE = JoinFactors(steps=40, batch=4, lr=1e-2, replay=0.0)


@pytest.fixture(scope="module")
def pair(loud):
    """Two skills that were made for each other: the first on side=down, the second on side=up."""
    made = {"one": ("down", ONE), "two": ("up", TWO)}
    return {name: PLP(side, 30, 2, 2e-2, rank=4).fit(loud(), own, 0)[0] for name, (side, own) in made.items()}


def equal(one, other):
    pairs = zip(one.tensors().values(), other.tensors().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_join_has_each_ones_learned_half(loud, pair):
    woven, log = JoinFactors().fit(loud(), pair, BOTH, 0)
    assert (woven.skills, log.loss, woven.new.rank) == ((), [], 8)
    joined, one, two = (taken_apart("x", skill) for skill in (woven.new, *pair.values()))
    for slot, half in joined.items():
        assert torch.equal(half.down, one[slot].down) and torch.equal(half.up, two[slot].up)
        assert torch.equal(half.start, one[slot].start) and torch.equal(half.top, two[slot].top)
        assert not torch.equal(half.down, two[slot].down) and not torch.equal(half.up, one[slot].up)


def test_a_bf16_copy_can_be_joined(loud, pair):
    """An adapter that was stored in 16 bits has lost digits of what is frozen, and no more than digits."""
    short = {slot: Factors(f.a.bfloat16().float(), f.b.bfloat16().float(), f.scale) for slot, f in pair["two"].factors.items()}
    woven, _ = JoinFactors().fit(loud(), {"one": pair["one"], "two": LowRank(short)}, BOTH, 0)
    assert all(torch.equal(f.a, pair["one"].factors[slot].a) for slot, f in woven.new.factors.items())


@pytest.mark.parametrize("change", [{"basis": 1}, {"rank": 3}, {"scale": 1.0}])
def test_strangers_are_refused(loud, pair, change):
    stranger, _ = PLP(**({"side": "up", "steps": 1, "batch": 2, "rank": 4} | change)).fit(loud(), TWO, 0)
    with pytest.raises(
        BadOption, match="the halves of `one` and `two` do not belong together: what is frozen in `model.layers.0"
    ):
        JoinFactors().fit(loud(), {"one": pair["one"], "two": stranger}, BOTH, 0)


def test_a_plain_skill_is_refused(loud, pair, random_skill):
    with pytest.raises(BadOption, match="`two` is not a skill of frozen and learned halves"):
        join({"one": pair["one"], "two": random_skill(loud(), rank=8)})


@pytest.mark.parametrize("count", [1, 3])
def test_there_are_two(pair, count):
    with pytest.raises(BadOption, match=f"{count} skills were named .* factors are joined of two"):
        join({f"skill-{k}": pair["one"] for k in range(count)})


def test_a_layer_that_only_one_has_is_refused(pair):
    less = LowRank(dict(list(pair["two"].factors.items())[1:]))
    with pytest.raises(BadOption, match="do not belong together"):
        join({"one": pair["one"], "two": less})


def test_the_second_stage_learns_and_leaves_the_parts_alone(loud, pair):
    before = {name: taken_apart(name, skill) for name, skill in pair.items()}
    start = JoinFactors().fit(loud(), pair, BOTH, 0)[0].new
    woven, log = TUNE.fit(loud(), pair, BOTH, 0)
    assert len(log.loss) == 40 and not any(t.requires_grad for t in woven.new.tensors().values())
    loss = {name: mean_loss(SkillBank(loud(), {"x": s}), BOTH) for name, s in (("start", start), ("end", woven.new))}
    assert loss["end"] < loss["start"] / 2
    for slot, half in taken_apart("x", woven.new).items():
        assert torch.equal(half.start, before["one"][slot].start) and torch.equal(half.top, before["one"][slot].top)
        assert not torch.equal(half.down, before["one"][slot].down) and not torch.equal(half.up, before["two"][slot].up)
        assert not before["one"][slot].down.requires_grad
    for name, skill in pair.items():
        assert equal(skill, assembled(before[name], 2.0))


def test_the_second_stage_takes_the_preconditioned_step(loud, pair):
    """One step of AdamW moves every entry by the rate in the direction of what it reads: the formula's, by autograd alone."""
    woven, _ = JoinFactors(steps=1, batch=4, lr=1e-3, replay=0.0).fit(loud(), pair, BOTH, 0)
    halves, scale = join(pair)
    for half in halves.values():
        half.down.requires_grad_(), half.up.requires_grad_()
    mean_loss_of(loud(), halves, scale).backward()
    differ = total = 0
    for slot, half in taken_apart("x", woven.new).items():
        a, b = halves[slot].pair().a, halves[slot].pair().b
        eye = 1e-6 * torch.eye(4)
        down = torch.linalg.inv(b.t() @ b + eye) @ halves[slot].down.grad
        up = halves[slot].up.grad @ torch.linalg.inv(a @ a.t() + eye)
        for now, then, gradient, plain in (
            (half.down, halves[slot].down, down, halves[slot].down.grad),
            (half.up, halves[slot].up, up, halves[slot].up.grad),
        ):
            sure = gradient.abs() > 1e-3 * gradient.abs().max()
            assert torch.equal((then - now).detach().sign()[sure], gradient.sign()[sure])
            differ, total = differ + int((plain.sign() != gradient.sign())[sure].sum()), total + int(sure.sum())
    assert differ > total / 100, "preconditioning changes too little here to be seen"


def mean_loss_of(base, halves, scale):
    from skillweave.learn.batches import Batches
    from skillweave.learn.loss import bank_loss

    return bank_loss(SkillBank(base, {"x": assembled(halves, scale)}), Batches(base, BOTH, 4, 0).at(0))


def test_it_can_go_without_preconditioning(loud, pair):
    plain = JoinFactors(steps=3, batch=4, replay=0.0, precondition=False).fit(loud(), pair, BOTH, 0)[0]
    with_it = JoinFactors(steps=3, batch=4, replay=0.0).fit(loud(), pair, BOTH, 0)[0]
    assert not equal(plain.new, with_it.new)


@pytest.mark.parametrize(("replay", "own"), [(0.0, 0), (0.5, 20), (1.0, 40)])
def test_replay_is_counted(loud, pair, monkeypatch, replay, own):
    seen = []
    real = factors.Batches
    monkeypatch.setattr(factors, "Batches", lambda base, drawn, *rest: seen.append(drawn) or real(base, drawn, *rest))
    few = [Example("both\n", "x")]
    method = JoinFactors(steps=10, batch=4, replay=replay)
    method.fit(loud(), pair, few, 0, {"one": ONE, "two": TWO, "another": few})
    assert (len(seen[0]), sum(example in BOTH for example in seen[0])) == (40, own)
    method.fit(loud(), pair, few, 0, {"one": [], "two": []})
    assert seen[1] == few * 40


def test_an_interrupted_second_stage_gives_the_same_bits(loud, pair, tmp_path, monkeypatch):
    def tick(steps, note):
        ticks.append(steps)
        if len(ticks) == 9:
            raise KeyboardInterrupt

    ticks = []
    method = JoinFactors(steps=20, batch=3, lr=1e-2, replay=0.5)
    whole, log = method.fit(loud(), pair, BOTH, 0, {"one": ONE})
    monkeypatch.setattr(factors, "Plan", partial(Plan, save_every=0.0))
    with pytest.raises(KeyboardInterrupt):
        method.fit(loud(), pair, BOTH, 0, {"one": ONE}, Run(tmp_path / "state", "key", tick))
    again, resumed = method.fit(loud(), pair, BOTH, 0, {"one": ONE}, Run(tmp_path / "state", "key", tick))
    assert ticks[9] >= 8 and log.loss == resumed.loss and equal(whole.new, again.new)


def test_a_replay_that_cannot_be(loud, pair):
    with pytest.raises(BadOption, match="replay is 1.5, but is a share"):
        JoinFactors(replay=1.5).fit(loud(), pair, BOTH, 0)


def skill(name="one", method="plp", **config):
    config = {"side": "down", "basis": 0, "rank": 8, "scale": 2.0} | config
    return Skill(Path("library"), name, "", "", {}, {"method": method, "config": config} if method else {})


UP = {"name": "two", "side": "up"}


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([skill(), skill(**UP)], None),
        ([skill()], "1 skills were named"),
        ([skill(method="sft"), skill(**UP)], "`one` was not learned by plp"),
        ([skill(), skill("two", None)], "`two` was not learned by plp"),
        ([skill(), skill("two")], "`two` was learned on side=down, where a skill on side=up"),
        ([skill(**UP), skill()], "`two` was learned on side=up, where a skill on side=down"),
        ([skill(), skill(**UP, basis=3)], "`one` was learned with basis=0 and `two` with basis=3"),
        ([skill(), skill(**UP, rank=4)], "`one` was learned with rank=8 and `two` with rank=4"),
        ([skill(), skill(**UP, scale=1.0)], "`one` was learned with scale=2.0 and `two` with scale=1.0"),
    ],
)
def test_provenance_says_who_belongs_together(members, sentence):
    if sentence is None:
        return JoinFactors().check_members(members)
    with pytest.raises(BadOption, match=sentence):
        JoinFactors().check_members(members)


def test_from_the_command_line(cli, tmp_path):
    for name, rows in (("one", ONE), ("two", TWO), ("both", BOTH)):
        lines = [json.dumps({"prompt": e.prompt, "completion": e.completion}) for e in rows * 8]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in dict.fromkeys(lines)))
    library = ("--library", tmp_path / "library")
    for name, side in (("one", "down"), ("two", "up")):
        data = ("--data", tmp_path / f"{name}.jsonl", "--base", "tiny", "--steps", "4")
        done = cli("learn", name, *data, "--method", "plp", "--set", f"side={side}", "--rank", "4", *library)
        assert done.code == 0, done.err
    compose = ("--data", tmp_path / "both.jsonl", "--method", "factors", "--save", "joined", *library)
    wrong = cli("compose", "two", "one", *compose)
    assert wrong.code == 1 and "the one learned on side=down first" in wrong.err
    assert not (tmp_path / "library" / "joined").exists()
    done = cli("compose", "one", "two", *compose, "--steps", "3", "--set", "precondition=true", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["alpha"]["two"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    halves = taken_apart("joined", load_adapter(tmp_path / "library" / "joined" / "adapter"))
    assert all(half.down.any() for half in halves.values())
    said = cli("measure", "joined", "--data", tmp_path / "both.jsonl", *library)
    assert said.code == 0 and "left out 3 of 4 examples" in said.err  # the fourth is the file's validation split
