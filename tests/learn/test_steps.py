"""The quality of steps: the regression finds what it should, lines are told apart, and unlikely steps score low."""

import torch

from skillweave.base import TinyBase
from skillweave.composition import Active
from skillweave.learn.sampling import sample
from skillweave.learn.steps import StepScorer, features, logistic
from skillweave.task import Example


def test_the_regression_recovers_the_weights_that_made_the_data():
    draw = torch.Generator().manual_seed(0)
    x = torch.cat([torch.ones(4000, 1), torch.randn(4000, 2, generator=draw)], 1)
    true = torch.tensor([0.5, 2.0, -1.0])
    y = torch.rand(4000, generator=draw) < (x @ true).sigmoid()
    assert torch.allclose(logistic(x, y), true, atol=0.15)


def test_features_are_those_of_each_line():
    base, example = TinyBase(16, 0), Example("ab", "x")
    group = sample(Active(base), [example.prompt], 6, max_new_tokens=60, seed=1)[0]
    found = features(base, example, group)
    assert [len(lines) for lines in found] == [one.text.count("\n") + 1 for one in group] and max(map(len, found)) > 1
    for one, lines in zip(group, found, strict=True):
        assert abs(min(line[2] for line in lines) - min(one.logprobs)) < 1e-4


def test_a_completion_is_worth_its_worst_step():
    base, example = TinyBase(16, 0), Example("ab", "x")
    group = sample(Active(base), [example.prompt], 6, max_new_tokens=60, seed=1)[0]
    scorer = StepScorer(base, torch.tensor([0.0, 0.0, 1.0]))
    wanted = [2 * torch.tensor(min(one.logprobs)).sigmoid().item() - 1 for one in group]
    assert torch.allclose(torch.tensor(scorer(example, group)), torch.tensor(wanted), atol=1e-4)


def test_it_learns_from_what_is_known_of_steps():
    base, examples = TinyBase(16, 0), [Example(prompt, "x") for prompt in ("ab", "cd", "ef")]
    asked = []
    scorer = StepScorer.fitted(base, examples, lambda example, line: asked.append(line) or False, 20, 0)
    assert len(asked) >= 24
    assert all(value < 0 for value in scorer(examples[0], sample(Active(base), ["ab"], 4, max_new_tokens=20, seed=2)[0]))
