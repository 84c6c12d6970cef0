"""Batches are a function of the step, waste little padding, and ask for the right tokens."""

from collections import Counter

import pytest
import torch

from skillweave.errors import BadData
from skillweave.learn.batches import WINDOW, Batches
from skillweave.task import Example


def examples(n, longest=40):
    return [Example(f"{i} " + "x" * (i * 7 % longest) + "\n", "y" * (1 + i % 5) + str(i)) for i in range(n)]


def same(one, other):
    return all(torch.equal(getattr(one, part), getattr(other, part)) for part in ("tokens", "rows", "labels"))


def answers(base, batch):
    """The text that each row of the batch asks for, with the prompt it stands in."""
    width, found = batch.tokens.shape[1], {}
    for row, label in zip(batch.rows.tolist(), batch.labels.tolist(), strict=True):
        found.setdefault(row // width, []).append((row % width, label))
    out = []
    for i, asked in found.items():
        assert [place for place, _ in asked] == list(range(asked[0][0], asked[-1][0] + 1))
        assert asked[-1][1] == base.eos
        out.append((base.decode(batch.tokens[i, : asked[0][0] + 1].tolist()), base.decode([label for _, label in asked])))
    return out


def test_a_batch_is_a_function_of_the_step(tiny):
    one, other = Batches(tiny, examples(30), 4, 1), Batches(tiny, examples(30), 4, 1)
    steps = [0, 17, 3, 16, 0, 40, 7, 8]
    straight = {step: one.at(step) for step in range(41)}
    assert all(same(other.at(step), straight[step]) for step in steps)
    assert not all(same(Batches(tiny, examples(30), 4, 2).at(step), straight[step]) for step in range(8))


def test_every_example_once_a_pass(tiny):
    data = examples(2 * WINDOW * 4)
    batches = Batches(tiny, data, 4, 0)
    passes = [
        [pair for step in range(at, at + 2 * WINDOW) for pair in answers(tiny, batches.at(step))] for at in (0, 2 * WINDOW)
    ]
    wanted = sorted((e.prompt, e.completion) for e in data)
    assert [sorted(seen) for seen in passes] == [wanted, wanted]
    assert passes[0] != passes[1]


def test_passes_go_on_within_a_batch(tiny):
    data = examples(5)
    batches = Batches(tiny, data, 4, 0)
    times = Counter(prompt for step in range(WINDOW * 5) for prompt, _ in answers(tiny, batches.at(step)))
    assert set(times.values()) == {WINDOW * 4}


@pytest.mark.parametrize("n", [4, 8, 24])
def test_few_examples_are_not_put_beside_their_copies(tiny, n):
    batches = Batches(tiny, examples(n), 4, 0)
    assert all(len(set(answers(tiny, batches.at(step)))) == 4 for step in range(40))


def test_labels_are_the_completion_and_the_end(tiny):
    data = examples(12)
    known = {e.prompt: e.completion for e in data}
    found = dict(pair for step in range(8) for pair in answers(tiny, Batches(tiny, data, 3, 0).at(step)))
    assert found == known


def test_real_tokens_and_padding_add_up(tiny):
    batches = Batches(tiny, examples(30), 4, 0)
    for step in range(12):
        batch = batches.at(step)
        assert batch.real == int((batch.tokens != tiny.pad).sum())
        assert (batch.tokens != tiny.pad).any(0).all()
        assert len(batch.tokens) == 4


def test_mixed_lengths_waste_little(tiny):
    batches = Batches(tiny, examples(200, longest=120), 8, 0)
    seen = [batches.at(step) for step in range(40)]
    padding = 1 - sum(batch.real for batch in seen) / sum(batch.tokens.numel() for batch in seen)
    assert padding < 0.10
    assert len({batch.tokens.shape[1] for batch in seen[:WINDOW]}) == WINDOW


def test_lengths_do_not_come_in_order(tiny):
    batches = Batches(tiny, examples(200, longest=120), 8, 0)
    widths = [batches.at(step).tokens.shape[1] for step in range(WINDOW)]
    assert widths not in (sorted(widths), sorted(widths)[::-1])


def test_no_examples_is_said(tiny):
    with pytest.raises(BadData, match="no examples to learn from.*at least one"):
        Batches(tiny, [], 4, 0)


def test_a_long_example_is_found_before_learning_starts(tiny):
    with pytest.raises(BadData, match="longer than the window of tiny-32"):
        Batches(tiny, [*examples(3), Example("z" * 300, "no")], 2, 0)


@pytest.mark.parametrize(("positions", "sizes"), [(1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (7, [7]), (9, [7])])
def test_pieces_ask_for_the_same(tiny, positions, sizes):
    whole = Batches(tiny, examples(7), 7, 0).at(0)
    width = whole.tokens.shape[1]
    pieces = whole.pieces(positions * width + width // 2)
    assert [len(piece.tokens) for piece in pieces] == sizes
    assert sum((answers(tiny, piece) for piece in pieces), []) == answers(tiny, whole)


def test_a_batch_says_which_examples_its_samples_are(tiny):
    rows = examples(20)
    batches = Batches(tiny, rows, 6, 3)
    seen = 0
    for step in range(4):
        batch = batches.at(step)
        for piece in [batch, *batch.pieces(2 * batch.tokens.shape[1])]:
            wanted = [(rows[i].prompt, rows[i].completion) for i in piece.samples]
            assert [(p.removeprefix("<s>"), a) for p, a in answers(tiny, piece)] == wanted
            seen += len(wanted)
    assert seen == 2 * 4 * 6
