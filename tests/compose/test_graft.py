"""Grafts: they find the weights that carry a skill, hold no more than they may, repeat themselves, and go through the verbs."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.compose import graft as module
from skillweave.compose.graft import BIAS, Graft, cut, drawn, entries, largest, learn_mask, rounded, top, weights
from skillweave.delta import Factors, LowRank
from skillweave.delta_full import Dense, Sparse
from skillweave.errors import BadOption
from skillweave.learn.batches import Batches
from skillweave.learn.loss import bank_loss, forced, mean_loss
from skillweave.learn.sft import SFT
from skillweave.task import Example

EXAMPLES = [Example(f"say {c}\n", c * 2) for c in "abcdefgh"]


@pytest.fixture(scope="module")
def world(loud):
    """A base and a LoRA that answers EXAMPLES on it."""
    base = loud()
    skill, _ = SFT(steps=100, lr=1e-2).fit(base, EXAMPLES, 0)
    assert sum(forced(SkillBank(base, {"a": skill}), EXAMPLES)[0]) == 8
    return base, skill


def learn(base, skill, size, lr=1e6, steps=15, seed=0, **options):
    count = entries(base, skill, size)
    masks, log = learn_mask(base, skill, count, EXAMPLES, [], steps=steps, batch=8, lr=lr, seed=seed, **options)
    return cut(skill, masks), masks, log


def loss(base, skill):
    return mean_loss(SkillBank(base, {"a": skill}), EXAMPLES)


def test_a_learned_mask_beats_the_largest_and_random_entries_of_its_size(world):
    base, skill = world
    graft, masks, log = learn(base, skill, 0.05)
    same = graft.parameters
    others = [loss(base, cut(skill, other)) for other in (top(skill, same), drawn(skill, same, 0))]
    assert same <= 0.05 * weights(base) and len(log.loss) == 15
    assert loss(base, graft) < min(others) / 5
    assert sum(forced(SkillBank(base, {"a": graft}), EXAMPLES)[0]) >= 6
    assert all(isinstance(part, Sparse) for part in graft.full.values()) and not graft.factors


def test_a_graft_holds_the_skills_own_entries_and_nothing_else(world):
    base, skill = world
    graft, masks, _ = learn(base, skill, 0.02, steps=3)
    for slot, part in graft.full.items():
        whole = skill.dense(slot)
        assert torch.allclose(part.dense()[masks[slot]], whole[masks[slot]], atol=1e-6)
        assert not part.dense()[~masks[slot]].any()


@pytest.mark.parametrize("size", [1e-3, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("lr", [1e5, 1e9])
def test_it_is_never_larger_than_asked_for(world, size, lr):
    base, skill = world
    graft, _, _ = learn(base, skill, size, lr, steps=4)
    assert 0 < graft.parameters <= round(size * weights(base))


def test_all_of_the_weights_are_the_whole_skill(world):
    base, skill = world
    graft = cut(skill, top(skill, weights(base)))
    assert all(torch.allclose(graft.dense(slot), skill.dense(slot), atol=1e-6) for slot in skill.slots)
    assert graft.energy == pytest.approx(skill.energy, rel=1e-4)


def test_the_rate_of_nothing_leaves_the_largest_entries(world):
    base, skill = world
    _, masks, _ = learn(base, skill, 0.02, lr=0.0, steps=2)
    patch = top(skill, entries(base, skill, 0.02))
    assert all(torch.equal(masks[slot], patch[slot]) for slot in patch)


def test_the_gradient_is_that_of_the_paper(world, monkeypatch):
    """One step: S - lr · (∂L/∂θ ∘ Δ) ∘ (1 - 2 γ₀) ∘ σ'(S - b), with ∂L/∂θ taken at the softly grafted weights."""
    base, skill = world
    count, seen = entries(base, skill, 0.02), []
    monkeypatch.setattr(
        module, "rounded", lambda scores, patch, count: seen.append({s: v.clone() for s, v in scores.items()}) or patch
    )
    learn_mask(base, skill, count, EXAMPLES, [], steps=1, batch=8, lr=1e4, seed=3)
    patch, draw = top(skill, count), torch.Generator().manual_seed(3)
    start = {slot: torch.rand(mask.shape, generator=draw) for slot, mask in patch.items()}
    gate = {slot: torch.sigmoid(score - BIAS) for slot, score in start.items()}
    soft = {s: (patch[s].float() + (1 - 2 * patch[s].float()) * gate[s]) * skill.dense(s) for s in patch}
    soft = {slot: value.requires_grad_() for slot, value in soft.items()}
    bank = SkillBank(base, {"a": LowRank({}, full={slot: Dense(value) for slot, value in soft.items()})})
    bank_loss(bank, Batches(base, EXAMPLES, 8, 3).at(0)).backward()
    for slot, score in start.items():
        slope = gate[slot] * (1 - gate[slot]) * (1 - 2 * patch[slot].float())
        wanted = score - 1e4 * soft[slot].grad * skill.dense(slot) * slope
        assert torch.allclose(seen[0][slot], wanted, rtol=1e-4, atol=1e-5)
    assert any((seen[0][slot] - score).abs().max() > 1e-4 for slot, score in start.items())


def test_rounding_keeps_the_largest_gates_and_lets_the_rest_start_over():
    patch = {"x": torch.tensor([[True, True, False, False, False]])}
    scores = {"x": torch.tensor([[0.5, 11.0, 30.0, 12.0, 0.5]])}  # stays, goes, comes, comes, stays out
    assert rounded(dict(scores), patch, 3)["x"].tolist() == [[True, False, True, True, False]]
    kept = {"x": scores["x"].clone()}
    assert rounded(kept, patch, 2)["x"].tolist() == [[True, False, True, False, False]]
    assert kept["x"].tolist() == [[0.5, 11.0, 30.0, 0.5, 0.5]]
    few = {"x": scores["x"].clone()}
    assert rounded(few, patch, 1)["x"].tolist() == [[False, False, True, False, False]]
    assert few["x"].tolist() == [[19.5, 11.0, 30.0, 0.5, 0.5]]  # what the base patch held starts over outside of it
    assert rounded(few, patch, 1)["x"].tolist() == [[False, False, True, False, False]]


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, [0, 1, 0, 0, 0]), (2, [0, 1, 1, 0, 0]), (3, [0, 1, 1, 1, 0]), (5, [0, 1, 1, 1, 0])]
)
def test_ties_are_broken_and_zeros_left_out(count, wanted):
    values = {"x": torch.tensor([[0.0, 3.0, 2.0]]), "y": torch.tensor([[2.0], [0.0]])}
    masks = largest(lambda: values.items(), count)
    assert [int(bit) for mask in masks.values() for bit in mask.flatten()] == wanted


def test_random_entries_are_as_many_as_asked_and_anywhere(world):
    base, skill = world
    one, again, other = (drawn(skill, 500, seed) for seed in (1, 1, 2))
    assert sum(int(mask.sum()) for mask in one.values()) == 500
    assert all(torch.equal(one[slot], again[slot]) for slot in one)
    assert any(not torch.equal(one[slot], other[slot]) for slot in one)
    assert len([slot for slot, mask in one.items() if mask.any()]) > len(one) / 2


def test_same_seed_same_graft(world):
    base, skill = world
    one, again, other = (learn(base, skill, 0.05, steps=4, seed=seed)[1] for seed in (0, 0, 1))
    assert all(torch.equal(one[slot], again[slot]) for slot in one)
    assert any(not torch.equal(one[slot], other[slot]) for slot in one)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_an_interrupted_mask_goes_on_bit_for_bit(world, stopped, steps):
    base, skill = world
    _, whole, log = learn(base, skill, 0.05, steps=6)
    _, again, resumed = stopped(module, lambda run: learn(base, skill, 0.05, steps=6, run=run), steps)
    assert resumed.loss == log.loss
    assert all(torch.equal(whole[slot], again[slot]) for slot in whole)


def test_the_best_rounded_mask_is_kept_not_the_last(world, monkeypatch):
    base, skill = world
    qualities = iter([0.5, 0.2, 0.9, 0.4])
    made = []

    def rounding(scores, patch, count):
        made.append({slot: torch.zeros_like(mask) for slot, mask in patch.items()})
        made[-1]["model.layers.0.mlp.up_proj"][0, len(made)] = True
        return made[-1]

    monkeypatch.setattr(module, "rounded", rounding)
    monkeypatch.setattr(module, "_quality", lambda *a: torch.tensor([next(qualities), 0.0], dtype=torch.float64))
    _, masks, _ = learn(base, skill, 0.01, steps=3)
    assert all(torch.equal(masks[slot], made[1][slot]) for slot in masks)


def test_examples_that_choose_are_not_learned_from(world, monkeypatch):
    base, skill = world
    seen, asked = [], []
    monkeypatch.setattr(module, "Batches", lambda b, some, *rest: seen.append(list(some)) or Batches(b, some, *rest))
    monkeypatch.setattr(module, "forced", lambda bank, some: asked.append(list(some)) or ([1.0], [0.0]))
    woven, _ = Graft(size=0.01, steps=1, valid=0.25).fit(base, {"a": skill}, EXAMPLES, 0)
    assert seen == [EXAMPLES[:6]] and asked == [EXAMPLES[:6], EXAMPLES[6:]] * 2
    assert woven.skills == () and woven.new.full


@pytest.mark.parametrize(
    ("options", "skills", "words"),
    [
        ({"size": 0.0}, 1, "size is 0, but has to be above 0 and at most 1"),
        ({"size": 1.5}, 1, "size is 1.5, but has to be above 0"),
        ({"size": 1e-7}, 1, "size 1e-07 of 35,328 weights is less than one"),
        ({"valid": 1.0}, 1, "valid is 1, but has to be at least 0 and below 1"),
        ({}, 2, "graft takes one skill, and 2 were named"),
    ],
)
def test_what_cannot_be_is_said(world, options, skills, words):
    base, skill = world
    with pytest.raises(BadOption, match=words):
        Graft(**options).fit(base, {str(k): skill for k in range(skills)}, EXAMPLES, 0)


def test_a_dora_has_no_entries_to_choose_from(world):
    base, _ = world
    slot = "model.layers.0.self_attn.q_proj"
    dora = LowRank({slot: Factors(torch.ones(1, 32), torch.ones(32, 1), magnitude=torch.ones(32))})
    with pytest.raises(BadOption, match="a DoRA adapter cannot be"):
        Graft().fit(base, {"a": dora}, EXAMPLES, 0)


def test_it_goes_through_the_command_line(cli, tmp_path):
    """Learned, grafted, saved sparse, used, added up with another graft, and its weights in the place of a file of words."""
    library = ("--library", tmp_path / "library")
    for name in ("one", "two"):
        said = cli("learn", name, "--task", "copy", "--base", "tiny", "--steps", 2, "--seed", len(name), *library)
        assert said.code == 0, said.err
        said = cli("compose", name, "--task", "copy", "--method", "graft", "--set", "size=0.01", "--steps", 2, "--shots", 8,
                   "--save", f"{name}-graft", *library)  # fmt: skip
        assert said.code == 0, said.err
        assert "the graft holds" in said.err and "of 35,328 weights" in said.err
    folder = tmp_path / "library" / "one-graft"
    assert (folder / "delta.safetensors").is_file() and not (folder / "adapter").exists()
    assert (folder / "delta.safetensors").stat().st_size < 10_000
    said = cli("compose", "one-graft", "two-graft", "--task", "copy", "--method", "sum", "--save", "both", *library)
    assert said.code == 0, said.err
    assert (tmp_path / "library" / "both" / "delta.safetensors").is_file()
    assert cli("run", "both", "copy: abc", *library).code == 0
    assert cli("measure", "both", "one-graft", "one", "--task", "copy", "--n", 5, *library).code == 0
    refused = cli("compose", "one-graft", "two", "--task", "copy", "--method", "ties", *library)
    assert refused.code == 1 and "has no factors that this method could use" in refused.err
    exported = cli("export", "both", "--out", tmp_path / "peft", *library)
    assert exported.code == 1 and "PEFT's format" in exported.err
    shown = cli("inspect", "one-graft", "two-graft", "one", *library)
    assert shown.code == 0 and "sparse" in shown.out


def test_every_step_is_looked_at_after_it_was_taken(world, monkeypatch):
    """The last step counts like all others: the masks that are looked at are those of the scores after each step."""
    base, skill = world
    seen, looked = [], module.rounded

    def look(scores, *rest):
        seen.append(sum(map(torch.sum, scores.values())))
        return looked(scores, *rest)

    monkeypatch.setattr(module, "rounded", look)
    learn(base, skill, 0.05, lr=1e7, steps=2)
    count = entries(base, skill, 0.05)
    draw = torch.Generator().manual_seed(0)
    start = sum(torch.rand(mask.shape, generator=draw).sum() for mask in top(skill, count).values())
    assert len(seen) == 2 and seen[0] != start and seen[1] != seen[0]


def test_of_masks_with_as_many_right_answers_the_surer_is_better(monkeypatch, tiny):
    learned, valid, surer = ([Example(name, "x")] * n for name, n in (("learned", 2), ("valid", 3), ("surer", 2)))
    answers = {"learned": ([1, 0], [1.0, 3.0]), "valid": ([1, 1, 0], [2.0, 2.0, 5.0]), "surer": ([1, 0], [1.0, 2.0])}
    monkeypatch.setattr(module, "forced", lambda bank, some: answers[some[0].prompt])
    both = module._quality(tiny, LowRank({}), learned, valid)
    assert both.tolist() == pytest.approx([1 / 2 + 2 / 3, -(2.0 + 3.0)])
    assert module._quality(tiny, LowRank({}), learned, ()).tolist() == pytest.approx([1 / 2, -2.0])
    assert module._quality(tiny, LowRank({}), surer, valid).tolist() > both.tolist()
