"""LoraHub's search: its objective against a plain loop, the strengths that it finds, and what it goes on from."""

import numpy as np
import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.compose import lorahub
from skillweave.compose.evolve import Evolution
from skillweave.compose.lorahub import LoraHub, objective, whole
from skillweave.errors import BadData, BadOption
from skillweave.learn.loop import Run
from skillweave.learn.loss import mean_loss
from skillweave.task import Example


@pytest.fixture(scope="module")
def world(taught, prompts):
    """A base, three skills, and what the second of them says."""
    base, skills = taught
    return base, skills, [Example(prompt, "hb") for prompt in prompts[::11]]


@pytest.mark.parametrize("positions", [1, 40, 4096])
def test_all_candidates_in_one_forward_are_each_alone(world, positions):
    base, skills, examples = world
    some = [*examples[:7], Example("abcabcabc", "h"), Example("a", "hgfedc")]
    bank, weights = (
        SkillBank(base, skills),
        torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.2, -0.7, 0.1], [-0.3, 1.5, 0.4]]),
    )
    together = objective(bank, whole(base, some, positions), weights, 0.05)
    for row, score in zip(weights, together, strict=True):
        wanted = mean_loss(bank, some, row) + 0.05 * row.abs().mean().item()
        assert score.item() == pytest.approx(wanted, rel=1e-5)


def test_every_example_is_in_one_batch_and_batches_are_small(world):
    base, _, examples = world
    some = [*examples, Example("a" * 50, "b")]
    batches = whole(base, some, 30)
    assert sum(len(batch.tokens) for batch in batches) == len(some) and len(batches) > 5
    assert all(batch.tokens.numel() <= 30 or len(batch.tokens) == 1 for batch in batches)
    assert sum(len(batch.labels) for batch in batches) == sum(len(e.completion) + 1 for e in some)


def test_finds_the_skill_that_does_the_task(world):
    base, skills, examples = world
    woven, log = LoraHub(steps=12).fit(*world, 0)
    alpha = woven.alpha[:, 0]
    assert (woven.alpha == alpha[:, None]).all() and woven.alpha.shape == (3, base.layers)
    assert 0.8 < alpha[1] < 1.5 and alpha[[0, 2]].abs().max() < 0.4
    assert len(log.loss) == 12 and log.loss == sorted(log.loss, reverse=True) and log.tokens > 0
    bank = SkillBank(base, skills)
    best = mean_loss(bank, examples, woven.alpha) + 0.05 * alpha.abs().mean().item()
    assert best == pytest.approx(log.loss[-1], rel=1e-4)
    assert log.loss[-1] < min(mean_loss(bank, examples, torch.full((3,), share)) for share in (0.0, 1 / 3, 1.0))


def test_strengths_stay_within_their_bound(world):
    base, skills, examples = world
    woven, _ = LoraHub(steps=6, most=0.25, l1=0.0, spread=1.0).fit(base, skills, examples[:4], 0)
    assert woven.alpha.abs().max() == 0.25


def test_the_same_seed_finds_the_same(world):
    base, skills, examples = world
    first, again, other = (LoraHub(steps=3).fit(base, skills, examples[:4], seed)[0].alpha for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_interrupted_search_goes_on_where_it_was(world, tmp_path, monkeypatch):
    base, skills, examples = world
    method, state, counted = LoraHub(steps=5), tmp_path / "state", []
    whole_alpha = method.fit(base, skills, examples[:4], 0)[0].alpha
    monkeypatch.setattr(lorahub, "objective", lambda *args: counted.append(1) or objective(*args))

    def tick(steps, note):
        if len(counted) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fit(base, skills, examples[:4], 0, {}, Run(state, "key", tick))
    again = method.fit(base, skills, examples[:4], 0, {}, Run(state, "key"))[0].alpha
    assert torch.equal(again, whole_alpha) and len(counted) == 5
    method.fit(base, skills, examples[:4], 0, {}, Run(state, "another key"))
    assert len(counted) == 10
    state.write_text("{")
    method.fit(base, skills, examples[:4], 0, {}, Run(state, "key"))
    assert len(counted) == 15


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"candidates": 3}, "candidates is 3, but has to be at least 4"),
        ({"most": 0.0}, "most is 0, but"),
        ({"spread": 0.0}, "spread is 0, but"),
    ],
)
def test_options_that_cannot_be(world, options, said):
    with pytest.raises(BadOption, match=said):
        LoraHub(**options).fit(*world, 0)


def test_nothing_is_searched_on_no_examples(world):
    base, skills, _ = world
    with pytest.raises(BadData, match="no examples"):
        LoraHub().fit(base, skills, [], 0)


@pytest.mark.parametrize(("numbers", "stretch"), [(1, 1.0), (3, 1e6), (6, 1e3)])
def test_the_search_finds_the_floor_of_a_stretched_bowl(numbers, stretch):
    """The optimum of a quadratic whose axes differ by `stretch`, which random search or plain steps would not reach."""
    search, wanted = Evolution(np.zeros(numbers), 0.5, 8, 0), np.linspace(-1, 1, numbers)
    weights = stretch ** np.linspace(0, 1, numbers)
    for _ in range(350):
        asked = search.ask()
        search.tell(asked, (np.square(asked - wanted) * weights).sum(1))
    assert np.abs(search.mean - wanted).max() < 1e-4


def test_what_lies_outside_the_bound_is_worth_less_than_its_edge(world, monkeypatch):
    told = []

    class Asked:
        def __init__(self, start, spread, candidates, seed):
            self.candidates = np.zeros((candidates, len(start)))
            self.candidates[1, 0], self.candidates[2, 0] = 1.5, 3.5

        def ask(self):
            return self.candidates

        def tell(self, asked, scores):
            told.append((asked, scores))

    monkeypatch.setattr(lorahub, "Evolution", Asked)
    LoraHub(steps=1, candidates=lorahub.LEAST, most=1.5).fit(*world, 0)
    ((asked, scores),) = told
    assert asked[2, 0] == 3.5 and scores[2] - scores[1] == pytest.approx(2.0**2, abs=1e-5) and scores[0] != scores[1]
