"""A context gate: it finds strengths that follow the prompt, looks at nothing else, and repeats itself."""

import pytest
import torch

from skillweave.compose import context
from skillweave.compose.context import CAP, Context, InputGate, asked_in, read, tokens_of
from skillweave.errors import BadData, BadOption
from skillweave.learn.batches import Batches
from skillweave.task import Example


@pytest.fixture(scope="module")
def world(taught, divided):
    """A base, two skills, and examples that each belong to one of the two."""
    base, skills = taught
    return base, {name: skills[name] for name in "ab"}, divided


@pytest.fixture(scope="module")
def found(world):
    return Context(steps=60, batch=16, lr=5e-2).fit(*world, 0)


def test_finds_strengths_that_follow_the_prompt(world, found):
    """Where the prompt says which skill is wanted, a gate that reads it does what no constant can."""
    base, skills, examples = world
    woven, log = found
    blind, worse = Context(steps=60, batch=16, lr=5e-2, hidden=0).fit(*world, 0)
    right = [right_of(w, base, skills, examples) for w in (woven, blind)]
    assert right[0] > 0.45 and right[1] < 0.15 and log.loss[-1] < worse.loss[-1] - 1
    alpha = woven.gate(base, [e.prompt for e in examples]).alpha
    ahead, first = alpha[:, 0] - alpha[:, 1], torch.tensor([e.completion == "ga" for e in examples])
    assert ahead[first].mean() > 0.3 and ahead[~first].mean() < -0.3


def right_of(woven, base, skills, examples):
    """Share of `examples` that it answers as they do."""
    said = woven.use(base, skills).generate([e.prompt for e in examples], 4)
    return sum(answer == e.completion for answer, e in zip(said, examples, strict=True)) / len(examples)


def test_a_gate_that_sees_nothing_is_a_constant(world):
    base, skills, _ = world
    woven, _ = Context(steps=5, batch=4, hidden=0).fit(*world, 0)
    alpha = woven.gate(base, ["abc", "hgf"]).alpha
    assert torch.equal(alpha[0], alpha[1]) and torch.allclose(alpha[0], woven.strengths[:, 0], atol=1e-6)
    assert not torch.equal(alpha[0], torch.full((2,), 0.5))


def test_it_starts_as_the_mean_of_the_skills(world):
    base, skills, examples = world
    seen = read(base, [tokens_of(base, e.prompt) for e in examples])
    gate = InputGate.new(seen, 2, 8, 0)
    assert torch.equal(gate.alpha(seen), torch.full((len(seen), 2), 0.5))
    scaled = (seen - gate.centre) / gate.spread
    assert scaled.mean(0).abs().max() < 1e-5 and scaled.square().sum(1).mean() == pytest.approx(1, abs=1e-4)


def test_strengths_are_the_mean_over_the_examples(world, found):
    base, _, examples = world
    woven, _ = found
    mean = woven.gate(base, [e.prompt for e in examples]).alpha.mean(0)
    assert woven.strengths.shape == (2, base.layers)
    assert torch.allclose(woven.strengths, mean[:, None].expand(2, base.layers), atol=1e-5)


def test_a_gate_reads_the_base_without_skills_and_each_prompt_by_itself(world):
    base, skills, _ = world
    prompts = [tokens_of(base, text) for text in ("a", "abcdefgh", "", "ab")]
    together = read(base, prompts)
    for row, prompt in zip(together, prompts, strict=True):
        assert torch.allclose(row, base.hidden(torch.tensor([prompt]))[0].mean(0), atol=1e-4)
    assert torch.allclose(read(base, prompts, batch=1), together, atol=1e-4)
    long = "abcdefgh" * 60
    assert len(tokens_of(base, long)) == base.window and tokens_of(base, long) == base.encode(long)[-base.window :]


def test_what_is_asked_in_a_batch_ends_before_the_answer(world):
    base, _, _ = world
    examples = [Example("abc", "de"), Example("a", "efgh"), Example("abcdefg", "h")]
    batches = Batches(base, examples, 3, 0)
    batch = batches.collate(batches.pairs)
    wanted = [tuple(tokens_of(base, e.prompt)) for e in examples]
    assert asked_in(batch) == wanted
    assert [asked for piece in batch.pieces(8) for asked in asked_in(piece)] == wanted


def test_the_answers_do_not_reach_the_gate(world, monkeypatch):
    base, skills, examples = world
    seen = []
    monkeypatch.setattr(context, "read", lambda base, prompts: seen.append(list(prompts)) or read(base, prompts))
    Context(steps=2, batch=4).fit(base, skills, examples[:5], 0)
    allowed = {tuple(tokens_of(base, e.prompt)) for e in examples[:5]}
    assert len(seen) == 2 and {tuple(prompt) for call in seen for prompt in call} == allowed


def test_the_same_seed_gives_the_same_gate(world):
    first, again, other = (Context(steps=4, batch=4).fit(*world, seed)[0].gate.tensors() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["inner"], other["inner"])


def test_an_interrupted_gate_goes_on_bit_for_bit(world, stopped):
    method = Context(steps=6, batch=4)
    whole, log = method.fit(*world, 0)
    again, resumed = stopped(context, lambda run: method.fit(*world, 0, {}, run))
    assert torch.equal(whole.gate.outer, again.gate.outer) and log.loss == resumed.loss


def test_it_learns_from_what_the_skills_carry_too(world):
    base, skills, examples = world
    method = Context(steps=4, batch=4, replay=0.5)
    carried = {"a": [Example("hh", "a")], "another": [Example("gg", "b")]}
    alone, _ = method.fit(base, skills, examples, 0)
    mixed, _ = method.fit(base, skills, examples, 0, carried)
    assert not torch.equal(alone.gate.centre, mixed.gate.centre)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"hidden": CAP + 1}, BadOption, f"hidden is {CAP + 1}, but a gate may have {CAP} at most"),
        ({"replay": 1.0}, BadOption, "replay is 1, but"),
    ],
)
def test_options_that_cannot_be(world, options, error, said):
    with pytest.raises(error, match=said):
        Context(**options).fit(*world, 0)


def test_nothing_is_learned_from_no_examples(world):
    base, skills, _ = world
    with pytest.raises(BadData, match="no examples to learn from"):
        Context().fit(base, skills, [], 0)
