"""Cross-entropy in chunks is cross-entropy, and holds no more logits than a chunk."""

import pytest
import torch
import torch.nn.functional as F

from skillweave.learn.loss import cross_entropy

DRAW = torch.Generator().manual_seed(0)


@pytest.fixture
def rows(tiny):
    return torch.randn(37, 32, generator=DRAW), torch.randint(0, len(tiny.tokenizer), (37,), generator=DRAW)


@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 128])
def test_value_and_gradient_are_those_of_all_rows_at_once(tiny, rows, chunk):
    hidden, labels = rows
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    one, other = cross_entropy(tiny, ours, labels, chunk), F.cross_entropy(tiny.logits(theirs), labels)
    assert torch.allclose(one, other, rtol=1e-6)
    (one * 3).backward()
    (other * 3).backward()
    assert theirs.grad.abs().max() > 1e-3
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("learning", [True, False])
def test_never_more_rows_than_a_chunk(tiny, rows, monkeypatch, learning):
    seen, head = [], tiny.logits
    monkeypatch.setattr(tiny, "logits", lambda part: seen.append(len(part)) or head(part))
    cross_entropy(tiny, rows[0].requires_grad_(learning), rows[1], 8)
    assert seen == [8, 8, 8, 8, 5]


def test_without_gradients_it_is_only_a_number(tiny, rows):
    hidden, labels = rows
    with torch.inference_mode():
        value = cross_entropy(tiny, hidden, labels, 8)
    assert torch.allclose(value, F.cross_entropy(tiny.logits(hidden), labels), rtol=1e-6)


def test_the_head_stays_frozen(tiny, rows):
    cross_entropy(tiny, rows[0].requires_grad_(), rows[1]).backward()
    assert tiny.model.get_output_embeddings().weight.grad is None


def test_no_rows_cost_nothing(tiny):
    hidden = torch.zeros(0, 32, requires_grad=True)
    value = cross_entropy(tiny, hidden, torch.zeros(0, dtype=torch.long))
    value.backward()
    assert value == 0 and hidden.grad.shape == (0, 32)
