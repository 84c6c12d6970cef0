"""Ranked choice: the same numbers as one forward a choice, whatever the batch; a broken model is right about nothing."""

import math

import pytest
import torch

from skillweave.measure import choice
from skillweave.measure.choice import Choice, chance, log_likelihoods, log_probabilities, right

ITEMS = [
    Choice("A cat is", ("an animal", "a tool", "a"), 0),
    Choice("2 + 2 =", ("4", "5"), 0),
    Choice("The sea, seen from the shore at noon, was", ("blue", "x", "green and grey", "??"), 2),
    Choice("", ("one", "two"), 1),
]


def one_by_one(base, item):
    """The log-likelihood of each choice from a whole forward pass of its own."""
    prompt, found = base.encode(item.prompt, start=True), []
    for words in item.choices:
        tokens = base.encode(f" {words}")
        with torch.inference_mode():
            rows = base.logits(base.hidden(torch.tensor([prompt + tokens]))[0]).double().log_softmax(-1)
        found.append(sum(rows[len(prompt) - 1 + i, token].item() for i, token in enumerate(tokens)))
    return found


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_likelihoods_are_those_of_one_forward_a_choice(loud, batch):
    base = loud()
    for found, item in zip(log_likelihoods(base, ITEMS, batch), ITEMS, strict=True):
        assert found == pytest.approx(one_by_one(base, item), abs=2e-3)


def test_likelihoods_of_all_continuations_sum_to_one(loud):
    base = loud(alphabet=" ab")
    words = Choice("ab", ("a", "b", " ", "?"), 0)
    (nats,) = log_likelihoods(base, [words])
    ends = log_likelihoods(base, [Choice("ab ", ("",), 0)])  # a choice of the space alone, after one more space
    assert sum(map(math.exp, nats)) < 1 and len(ends[0]) == 1


@pytest.mark.parametrize(("rows", "tile"), [(2, 7), (256, 8192)])
def test_tiles_change_nothing(tiny, monkeypatch, rows, tile):
    monkeypatch.setattr(choice, "ROWS", rows)
    monkeypatch.setattr(choice, "TILE", tile)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    asked = torch.tensor([[3, 98], [4, 4], [0, 1], [50, 7], [98, 3]])
    wanted = tiny.logits(hidden).log_softmax(-1).gather(1, asked)
    assert torch.allclose(log_probabilities(tiny, hidden, asked), wanted, atol=1e-5)


def test_the_likeliest_is_taken(loud):
    base = loud()
    likeliest = [max(range(len(i.choices)), key=one_by_one(base, i).__getitem__) for i in ITEMS]
    assert right(base, [Choice(i.prompt, i.choices, best) for i, best in zip(ITEMS, likeliest, strict=True)]) == [1.0] * 4
    assert (
        right(base, [Choice(i.prompt, i.choices, 1 - min(best, 1)) for i, best in zip(ITEMS, likeliest, strict=True)])
        == [0.0] * 4
    )


def test_a_model_that_computes_no_number_has_no_ability():
    from skillweave.base import TinyBase

    base = TinyBase(32)
    base.model.model.norm.weight.fill_(math.nan)
    assert log_likelihoods(base, ITEMS[:1]) == [[-math.inf] * 3]


def test_chance_is_one_in_so_many():
    assert chance(ITEMS) == pytest.approx((1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4)
